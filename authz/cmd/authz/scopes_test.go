package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// policy writes a document from the security of each operation.
func policy(t *testing.T, scopes map[string]string, operations map[string]string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths:\n")
	for i, id := range slices.Sorted(maps.Keys(operations)) {
		fmt.Fprintf(
			&b,
			"  /p%d: {get: {operationId: %q, security: %s, responses: {'200': {description: d}}}}\n",
			i,
			id,
			operations[id],
		)
	}
	b.WriteString("components: {securitySchemes: {b: {type: http, scheme: bearer, x-scopes: {")
	for _, scope := range slices.Sorted(maps.Keys(scopes)) {
		fmt.Fprintf(&b, "%q: %q, ", scope, scopes[scope])
	}
	b.WriteString("}}}}\n")
	return b.String()
}

// generated is the type-checked Go code of a document.
type generated struct {
	code       string
	constants  map[string]map[string]string // by type, the names by value
	comments   map[string]string            // of constants
	duplicates bool
}

// standard type-checks the standard library once for all tests here.
var standard = importer.ForCompiler(token.NewFileSet(), "source", nil)

func generate(t *testing.T, document string, beside map[string]string) generated {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	if _, err := authz.Compile(doc); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	command := scopesCommand{Document: "openapi.yaml", Package: "gen"}
	code, err := command.generate(doc, siblings{pkg: "gen", names: beside})
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	again, err := command.generate(doc, siblings{pkg: "gen", names: beside})
	if err != nil || !bytes.Equal(code, again) {
		t.Error("the same document makes different code")
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "scopes.gen.go", code, parser.ParseComments)
	if err != nil {
		t.Fatalf("%v\n%s", err, code)
	}
	checked, err := (&types.Config{Importer: standard}).Check("gen", files, []*ast.File{file}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, code)
	}
	if !ast.IsGenerated(file) {
		t.Error("the file does not say that it is generated")
	}
	g := generated{
		code:      string(code),
		constants: map[string]map[string]string{"Scope": {}, "OperationID": {}},
		comments:  map[string]string{},
	}
	for _, name := range checked.Scope().Names() {
		if c, ok := checked.Scope().Lookup(name).(*types.Const); ok {
			kind := c.Type().(*types.Named).Obj().Name()
			value := constant.StringVal(c.Val())
			g.duplicates = g.duplicates || g.constants[kind][value] != ""
			g.constants[kind][value] = name
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Doc != nil {
			g.comments[spec.Names[0].Name] = spec.Doc.Text()
		}
		return true
	})
	return g
}

func TestScopesNames(t *testing.T) {
	for _, test := range []struct {
		name       string
		scopes     []string
		operations []string
		beside     map[string]string
		want       string // in the order of the values
	}{
		{"as they are written", []string{"read:messages", "https://example.com/auth/drive.readonly", "write_all"}, []string{"listMessages", "get-user", "DeleteAll"}, nil,
			"ScopeHttpsExampleComAuthDriveReadonly ScopeReadMessages ScopeWriteAll | DeleteAll GetUser ListMessages"},
		{"scopes alike", []string{"read:messages", "read-messages", "other"}, nil, nil,
			"ScopeOther ScopeReadDashMessages ScopeReadColonMessages | "},
		{"scopes alike but for case", []string{"Read", "read"}, nil, nil, "Scope_52656164 Scope_72656164 | "},
		{"a scope like the words of another", []string{"a:b", "a-b", "a:colon:b"}, nil, nil,
			"ScopeADashB Scope_613a62 ScopeAColonColonColonB | "},
		{"scopes without words", []string{"*", ":"}, nil, nil, "ScopeStar ScopeColon | "},
		{"operations alike", nil, []string{"get-user", "getUser", "get_user"}, nil, "OperationGetDashUser OperationGetUser OperationGetUnderscoreUser"},
		{"operations like what is there already", []string{"read"}, []string{"scope", "operationID", "scopesFor", "scopeRead"}, nil,
			"ScopeRead | OperationOperationID OperationScope OperationScopeRead OperationScopesFor"},
		{"operations that are no identifiers", nil, []string{"1st", "日本", "...", "type", "_x"}, nil,
			"OperationDotDotDot Operation1st X Type Operation日本"},
		{"names that files beside have", []string{"read"}, []string{"listMessages"}, map[string]string{"ListMessages": "x.go", "ScopeRead": "x.go", "GetUser": "x.go"},
			"Scope_72656164 | OperationListMessages"},
	} {
		t.Run(test.name, func(t *testing.T) {
			scopes, operations := map[string]string{}, map[string]string{"": ""}
			delete(operations, "")
			for _, scope := range test.scopes {
				scopes[scope] = ""
			}
			for _, id := range test.operations {
				operations[id] = "[]"
			}
			g := generate(t, policy(t, scopes, operations), test.beside)
			var got []string
			for _, scope := range slices.Sorted(maps.Keys(scopes)) {
				got = append(got, g.constants["Scope"][scope])
			}
			if test.scopes != nil {
				got = append(got, "|")
			}
			for _, id := range slices.Sorted(maps.Keys(operations)) {
				got = append(got, g.constants["OperationID"][id])
			}
			if all := strings.Join(got, " "); all != strings.TrimSpace(test.want) {
				t.Errorf("the constants are %s, want %s", all, test.want)
			}
		})
	}
}

// For any document, the generated code compiles, and has a constant for each scope and each
// operation.
func TestScopesOfAnyDocument(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 4))
	text := func(alphabet string, most int) string {
		runes := []rune(alphabet)
		var b strings.Builder
		for range 1 + random.IntN(most) {
			b.WriteRune(runes[random.IntN(len(runes))])
		}
		return b.String()
	}
	for range 150 {
		scopes, operations := map[string]string{}, map[string]string{}
		for range random.IntN(12) {
			scopes[text("aAbZ09:-._/*!#$%&'()+;<=>?@[]^`{|}~,", 4)] = text(
				"aé\n\r\t\x00\u2028\u202e*/\"`\\ //go:build",
				20,
			)
		}
		for range random.IntN(12) {
			operations[text("aA0 -_.:/日é\n\t\"'`\\*\u2028", 4)] = []string{"[]", "[{b: []}]",
				"[{}, {b: []}]"}[random.IntN(3)]
		}
		if len(operations) > 0 && len(scopes) > 0 {
			operations["one"] = fmt.Sprintf("[{b: [%q]}]", slices.Sorted(maps.Keys(scopes))[0])
		}
		document := policy(t, scopes, operations)
		g := generate(
			t,
			document,
			map[string]string{"ScopeA": "x.go", "A": "x.go", "OperationA": "x.go"},
		)
		if g.duplicates || len(g.constants["Scope"]) != len(scopes) ||
			len(g.constants["OperationID"]) != len(operations) {
			t.Fatalf(
				"%d scopes and %d operations have the constants %v\n%s",
				len(scopes),
				len(operations),
				g.constants,
				document,
			)
		}
		for _, constants := range g.constants {
			for value, name := range constants {
				if _, isScope := scopes[value]; !isScope && operations[value] == "" {
					t.Fatalf(
						"%s is %q, which the document does not have\n%s",
						name,
						value,
						document,
					)
				}
			}
		}
	}
}

func TestScopesOfDocuments(t *testing.T) {
	for _, test := range []struct {
		name, document string
		want           []string // in the code
	}{
		{"public alone", policy(t, nil, map[string]string{"ping": "[]"}), []string{"Ping OperationID = \"ping\"", "\n\t// GET /p0: public\n", "[][]Scope {\n\treturn nil\n}"}},
		{"no operation, no scheme", "openapi: 3.0.3\ninfo: {title: t, version: '1'}\npaths: {}\n", nil},
		{"an optional token asks for nothing", policy(t, map[string]string{"s": ""}, map[string]string{"ping": "[{}, {b: [s]}]"}), []string{"[][]Scope {\n\treturn nil\n}"}},
		{"any token", policy(t, nil, map[string]string{"ping": "[{b: []}]"}), []string{"return [][]Scope{{}}"}},
		{"alternatives, one of which asks for more than another", policy(t, map[string]string{"r": "", "w": ""}, map[string]string{"ping": "[{b: [r, w]}, {b: [w]}, {b: [r]}]"}), []string{"return [][]Scope{{ScopeW}, {ScopeR}}"}},
		{"descriptions", policy(t, map[string]string{"r": "Read\nand look\n//go:embed x"}, map[string]string{}), []string{"\t// Read\n\t// and look\n\t// //go:embed x\n\tScopeR "}},
		{"OpenID Connect, which declares its scopes elsewhere", `
openapi: 3.0.3
info: {title: t, version: '1'}
security: [{oidc: [profile]}]
paths: {/me: {get: {operationId: me, responses: {'200': {description: d}}}}}
components: {securitySchemes: {oidc: {type: openIdConnect, openIdConnectUrl: 'https://issuer.example/.well-known/openid-configuration'}}}
`, []string{"ScopeProfile Scope = \"profile\"", "return [][]Scope{{ScopeProfile}}"}},
		{"OAuth 2.0 flows, and two schemes together", `
openapi: 3.0.3
info: {title: t, version: '1'}
paths: {/me: {get: {operationId: me, security: [{a: [r], b: [r, w]}], responses: {'200': {description: d}}}}}
components: {securitySchemes: {
  a: {type: oauth2, flows: {clientCredentials: {tokenUrl: 'https://i.example/t', scopes: {r: Reading}}}},
  b: {type: oauth2, flows: {authorizationCode: {authorizationUrl: 'https://i.example/a', tokenUrl: 'https://i.example/t', scopes: {r: Reading, w: Writing}}}}}}
`, []string{"// Reading\n\tScopeR ", "// Writing\n\tScopeW ", "return [][]Scope{{ScopeR, ScopeW}}"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := generate(t, test.document, nil)
			for _, want := range test.want {
				if !strings.Contains(g.code, want) {
					t.Errorf("the code does not contain %q:\n%s", want, g.code)
				}
			}
		})
	}
}

func TestScopesCommand(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(
		"good.yaml",
		policy(t, map[string]string{"r": ""}, map[string]string{"list": "[{b: [r]}]"}),
	)
	write(
		"bad.yaml",
		policy(t, map[string]string{"r": ""}, map[string]string{"list": "[{b: [misspelt]}]"}),
	)
	write("gen/types.go", "package mine\ntype List struct{}\nfunc (List) Scope() {}\n")
	write("gen/types_test.go", "package mine_test\ntype Scope struct{}\n")
	write("clash/types.go", "package clash\ntype Scope struct{}\nvar OperationID, slices int\n")
	write("fresh/README", "")
	write("not-one/README", "")
	write("broken/types.go", "package")
	for _, test := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr []string
		file   string // that is written
		want   string // in it
	}{
		{"to standard output", []string{"--package", "p", "good.yaml"}, allWell, "package p\n", nil, "", ""},
		{"of a package that is not said", []string{"good.yaml"}, unable, "", []string{"name the file with -o"}, "", ""},
		{"beside others", []string{"-o", "gen/scopes.gen.go", "good.yaml"}, allWell, "", nil, "gen/scopes.gen.go", "package mine\n"},
		{"once more", []string{"-o", "gen/scopes.gen.go", "good.yaml"}, allWell, "", nil, "gen/scopes.gen.go", "\tOperationList OperationID = \"list\"\n"},
		{"in a folder of its own", []string{"-o", "scopes.gen.go", "--package", "access", "good.yaml"}, allWell, "", nil, "scopes.gen.go", "package access\n"},
		{"of the folder's package", []string{"-o", "fresh/scopes.gen.go", "good.yaml"}, allWell, "", nil, "fresh/scopes.gen.go", "package fresh\n"},
		{"in a folder that is no package", []string{"-o", "not-one/scopes.gen.go", "good.yaml"}, unable, "", []string{`would be "not-one": set it with --package`}, "", ""},
		{"in a folder that there is not", []string{"-o", "none/scopes.gen.go", "good.yaml"}, unable, "", []string{"none/scopes.gen.go"}, "", ""},
		{"names that are taken", []string{"-o", "clash/scopes.gen.go", "good.yaml"}, unable, "", []string{"clash/types.go declares Scope, and so would", "clash/types.go declares OperationID", "clash/types.go declares slices"}, "", ""},
		{"beside what is no Go", []string{"-o", "broken/scopes.gen.go", "good.yaml"}, unable, "", []string{"cannot read"}, "", ""},
		{"a document with faults", []string{"--package", "p", "bad.yaml"}, unable, "", []string{"bad.yaml has 1 fault", "see authz lint bad.yaml"}, "", ""},
		{"JSON", []string{"--json", "good.yaml"}, allWell, `"scopes": [`, nil, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), append([]string{"scopes"}, test.args...), &bytes.Buffer{},
				&stdout, &stderr); code != test.code ||
				!strings.Contains(stdout.String(), test.stdout) {
				t.Errorf(
					"exit code %d, stdout %q, stderr %q: want %d, %q",
					code,
					&stdout,
					&stderr,
					test.code,
					test.stdout,
				)
			}
			for _, want := range test.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("stderr is %q, want it to contain %q", &stderr, want)
				}
			}
			if test.file != "" {
				if text, err := os.ReadFile(test.file); err != nil ||
					!strings.Contains(string(text), test.want) {
					t.Errorf(
						"%s is %q, %v: want it to contain %q",
						test.file,
						text,
						err,
						test.want,
					)
				}
			}
		})
	}
}

// ScopesFor is compared with a search of all sets, in the program that contains the generated code.
func TestScopesFor(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command, which is not here")
	}
	random := rand.New(rand.NewPCG(6, 5))
	scopes, operations := map[string]string{}, map[string]string{}
	for i := range 10 {
		scopes[fmt.Sprint("s", i)] = ""
	}
	for i := range 60 {
		var alternatives []string
		for range 1 + random.IntN(4) {
			var some []string
			for range random.IntN(4) {
				some = append(some, fmt.Sprint("s", random.IntN(10)))
			}
			slices.Sort(some)
			alternatives = append(
				alternatives,
				"{b: ["+strings.Join(slices.Compact(some), ", ")+"]}",
			)
		}
		operations[fmt.Sprint("random", i)] = "[" + strings.Join(alternatives, ", ") + "]"
	}
	// Forty independent choices: together they have a trillion sets.
	for i := range 40 {
		scopes[fmt.Sprintf("r%d", i)], scopes[fmt.Sprintf("a%d", i)] = "", ""
		operations[fmt.Sprint("apart", i)] = fmt.Sprintf("[{b: [r%d]}, {b: [a%d]}]", i, i)
		operations[fmt.Sprint("too", i)] = fmt.Sprintf("[{b: [a%d]}, {b: [r%d]}]", i, i)
	}
	g := generate(t, policy(t, scopes, operations), nil)
	dir := t.TempDir()
	var ids []string
	for id := range operations {
		ids = append(ids, fmt.Sprintf("%q", id))
	}
	slices.Sort(ids)
	for name, text := range map[string]string{
		"go.mod":    "module generated\n\ngo 1.26\n",
		"scopes.go": strings.Replace(g.code, "package gen", "package main", 1),
		"main.go":   fmt.Sprintf(bruteForce, strings.Join(ids, ", ")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), "go", "run", ".")
	command.Dir, command.Env = dir, append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if said, err := command.CombinedOutput(); err != nil || string(said) != "right\n" {
		t.Errorf("%v: %s", err, said)
	}
}

const bruteForce = `package main

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

var ids = []OperationID{%s}

func opens(have []Scope, operations []OperationID) bool {
	for _, o := range operations {
		alternatives := o.Alternatives()
		if alternatives != nil && !slices.ContainsFunc(alternatives, func(a []Scope) bool {
			return !slices.ContainsFunc(a, func(s Scope) bool { return !slices.Contains(have, s) })
		}) {
			return false
		}
	}
	return true
}

func main() {
	wrong := func(args ...any) { fmt.Println(args...); os.Exit(1) }
	random := rand.New(rand.NewPCG(6, 6))
	tried := ids[slices.IndexFunc(ids, func(o OperationID) bool { return strings.HasPrefix(string(o), "random") }):]
	tried = slices.DeleteFunc(slices.Clone(tried), func(o OperationID) bool { return !strings.HasPrefix(string(o), "random") })
	for range 400 {
		var some []OperationID
		for range random.IntN(9) {
			some = append(some, tried[random.IntN(len(tried))])
		}
		got := ScopesFor(some...)
		least := 99
		for set := range 1 << 10 {
			var have []Scope
			for i := range 10 {
				if set>>i&1 == 1 {
					have = append(have, Scope(fmt.Sprint("s", i)))
				}
			}
			if bits.OnesCount(uint(set)) < least && opens(have, some) {
				least = len(have)
			}
		}
		if len(got) != least || !opens(got, some) || !slices.IsSorted(got) || got == nil {
			wrong(some, "need", least, "scopes, not", got)
		}
		for range 3 {
			shuffled := slices.Clone(some)
			random.Shuffle(len(some), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			before := slices.Clone(shuffled)
			if again := ScopesFor(shuffled...); !slices.Equal(got, again) || !slices.Equal(before, shuffled) {
				wrong(some, "in another order", again, "not", got)
			}
		}
	}
	all := ScopesFor(ids...)
	if !opens(all, ids) {
		wrong("all operations are not opened by", all)
	}
	fmt.Println("right")
}
`
