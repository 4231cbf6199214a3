package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/oapi-codegen/v2/pkg/codegen"
	"go.yaml.in/yaml/v4"
)

// TestGuarantee tests the guarantee of SECURITY.md with whole handlers: what a handler binds that
// oapi-codegen has generated, with the options of authz init, equals the value that the engine
// accepted, or the request is refused. Random documents, one of each version, become a program with
// strict and other handlers, which respond with what they have bound.
func TestGuarantee(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("generates and compiles a program")
	}
	seed := uint64(1)
	if text := os.Getenv("SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	const operations, requests = 150, 40
	var servers []*generated
	for i, version := range []string{v30, v31} {
		m := &writer{
			maker:      maker{Rand: rand.New(rand.NewPCG(seed, uint64(i))), old: version == v30},
			components: map[string]any{},
		}
		servers = append(servers, generate(t, m, version, operations))
	}
	urls := build(t, servers)
	count := map[string]int{}
	for i, g := range servers {
		g.testLimits(t, operations, urls[2*i:][:2])
		for _, o := range g.operations[:operations] {
			for range requests {
				sent := g.request(o)
				want, refusal := o.accepts(t, sent)
				for n, kind := range []string{"strict", "plain"} {
					got, answer := sent.send(t, urls[2*i+n])
					name := fmt.Sprintf("%s %s %s: %s", g.version, kind, o.id, sent)
					switch {
					case refusal != nil && got == nil:
						count["refused"]++
					case refusal != nil:
						t.Errorf("%s: %v, bound %s", name, refusal, answer)
					case got == nil && o.mayRefuse(sent, answer):
						count["refused by the binder"]++
					case got == nil:
						t.Errorf(
							"%s: accepted, and refused by the binder: %s\n%s",
							name,
							answer,
							o.text,
						)
					default:
						count["bound"]++
						if difference := o.compare(want, got, kind == "plain"); difference != "" {
							t.Errorf("%s: %s\nbound %s\n%s", name, difference, answer, o.text)
						}
					}
				}
			}
			if t.Failed() && count["shown"] > 200 {
				t.Fatal("and so on")
			}
		}
	}
	t.Log(count)
	if count["bound"] < count["refused"]/4 || count["refused by the binder"] > count["bound"]/10 {
		t.Error("the corpus says little")
	}
}

// generated is a document with its operations and its generated code.
type generated struct {
	*writer
	version    string
	pkg        string
	operations []*boundOperation
	files      map[string]string
}

// boundOperation is one operation of the document, compiled by the engine.
type boundOperation struct {
	*Operation
	id     string
	item   *openapi3.PathItem
	spec   *openapi3.Operation
	method string
	base   string // its path, without its parameter
	text   string // of the document
}

const generatedProgram = "authz/internal/schema/guarantee"

// generatorOptions are the options of authz init.
func generatorOptions(t *testing.T, pkg string) codegen.Configuration {
	t.Helper()
	text := new(strings.Builder)
	files, err := template.ParseFiles("../../cmd/authz/initfiles/oapi-codegen.yaml.tmpl")
	if err == nil {
		err = files.Execute(text, map[string]string{"Server": "echo-server"})
	}
	var c codegen.Configuration
	if err == nil {
		err = yaml.Unmarshal([]byte(text.String()), &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	c = c.UpdateDefaults()
	c.PackageName = pkg
	c.Generate.Client = false // it costs a third of the time to compile, and binds nothing
	return c
}

func generate(t *testing.T, m *writer, version string, operations int) *generated {
	t.Helper()
	g := &generated{writer: m, version: version, pkg: "api" + strings.ReplaceAll(version, ".", "")}
	document := m.document(version, operations)
	if out := os.Getenv("DOCUMENT"); out != "" {
		_ = os.WriteFile(out+g.pkg+".json", marshal(t, document), 0o600)
		defer func() { _ = os.WriteFile(out+g.pkg+".go", []byte(g.files["api.gen.go"]), 0o600) }()
	}
	code, err := codegen.Generate(loadDocument(t, document), generatorOptions(t, g.pkg))
	if err != nil {
		t.Fatal(err)
	}
	// The engine compiles what the program embeds.
	doc, err := openapi3.NewLoader().LoadFromData(marshal(t, document))
	if err != nil {
		t.Fatal(err)
	}
	compiler := NewCompiler(doc, Options{})
	for i := range operations + len(limits(m.old)) {
		for path, item := range doc.Paths.Map() {
			for method, spec := range item.Operations() {
				if spec.OperationID != fmt.Sprint("o", i) {
					continue
				}
				o, faults := compiler.Operation(item, spec)
				if faults != nil {
					t.Fatal(path, errors.Join(faults...))
				}
				text, _ := json.Marshal(
					map[string]any{"parameters": spec.Parameters, "requestBody": spec.RequestBody},
				)
				g.operations = append(g.operations, &boundOperation{
					Operation: o, id: fmt.Sprint("O", i), item: item, spec: spec, method: method,
					base: strings.TrimSuffix(path, "{id}"), text: string(text),
				})
			}
		}
	}
	g.files = map[string]string{"api.gen.go": code, "handlers.go": g.handlers(code)}
	return g
}

var method = regexp.MustCompile(`(?m)^\t(O\d+)\((ctx echo\.Context.*)\) error$`)

// handlers writes handlers that respond with what they have bound.
func (g *generated) handlers(code string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `package %s
import ("context"; "net/http"; "github.com/labstack/echo/v4"; "github.com/oapi-codegen/runtime"
openapi_types "github.com/oapi-codegen/runtime/types")
var _ openapi_types.Date
var _ time.Time
var _ = runtime.BindForm
type Strict struct{}
type Plain struct{}
type bound struct { request any; raw any }
`, g.pkg)
	for _, o := range g.operations {
		kind := o.bodyType("")
		raw := "nil"
		if kind == "multipart" || kind == "raw" {
			raw = "Read(r.Body)"
		}
		fmt.Fprintf(
			&b,
			`func (Strict) %[1]s(_ context.Context, r %[1]sRequestObject) (%[1]sResponseObject, error) { return bound{r, %[2]s}, nil }
func (b bound) Visit%[1]sResponse(w http.ResponseWriter) error { return Write(w, b.request, b.raw) }
`,
			o.id,
			raw,
		)
	}
	for _, found := range method.FindAllStringSubmatch(code, -1) {
		id, arguments := found[1], found[2]
		fmt.Fprintf(&b, "func (Plain) %s(%s) error {\nanswer := map[string]any{}\n", id, arguments)
		for _, argument := range strings.Split(arguments, ", ")[1:] {
			name, _, _ := strings.Cut(argument, " ")
			key := name
			if name == "params" {
				key = "Params"
			}
			fmt.Fprintf(&b, "answer[%q] = %s\n", key, name)
		}
		types := regexp.MustCompile(`(?m)^type (`+id+`(?:[A-Z]\w*)?JSON\w*RequestBody)\b`).
			FindAllStringSubmatch(code, -1)
		if len(types) == 1 {
			fmt.Fprintf(
				&b,
				"if ctx.Request().ContentLength != 0 && IsJSON(ctx.Request()) {\nvar body %s\nif err := ctx.Bind(&body); err != nil { return err }\nanswer[\"JSONBody\"] = body\n}\n",
				types[0][1],
			)
		}
		b.WriteString("return Write(ctx.Response(), answer, nil)\n}\n")
	}
	b.WriteString(`
func IsJSON(r *http.Request) bool { return strings.Contains(strings.ToLower(r.Header.Get("Content-Type")), "json") }

func Write(w http.ResponseWriter, request, raw any) error {
	text, err := json.Marshal(map[string]any{"request": request, "raw": raw})
	if err != nil { return err }
	w.Header().Set("Content-Type", "application/json")
	_, err = w.Write(text)
	return err
}

func Read(body any) any {
	switch b := body.(type) {
	case *multipart.Reader:
		if b == nil { return nil }
		parts := [][]string{}
		for {
			p, err := b.NextPart()
			if err != nil { return parts }
			data, _ := io.ReadAll(p)
			parts = append(parts, []string{p.FormName(), p.FileName(), string(data)})
		}
	case io.Reader:
		data, _ := io.ReadAll(b)
		return data
	}
	return nil
}
`)
	return strings.Replace(
		b.String(),
		`import (`,
		`import ("encoding/json"; "io"; "mime/multipart"; "strings"; "time"; `,
		1,
	)
}

// build compiles the program, starts it, and returns the URLs of its servers: for each document the
// strict handlers, and the others.
func build(t *testing.T, all []*generated) []string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	overlay := map[string]string{}
	add := func(name, text string) {
		file := filepath.Join(folder, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(root, generatedProgram, name)] = file
	}
	imports, calls := "", ""
	for _, g := range all {
		for name, text := range g.files {
			add(g.pkg+"/"+name, text)
		}
		imports += fmt.Sprintf("%q\n", "github.com/oasgate/oasgate/"+generatedProgram+"/"+g.pkg)
		calls += fmt.Sprintf(`
	for _, h := range []%[1]s.ServerInterface{%[1]s.NewStrictHandler(%[1]s.Strict{}, nil), %[1]s.Plain{}} {
		serve(%[1]s.GetSpec, func(e *echo.Echo) { %[1]s.RegisterHandlers(e, h) })
	}
`, g.pkg)
	}
	add("main.go", `package main
import ("fmt"; "io"; "net"; "net/http"; "os"
"github.com/getkin/kin-openapi/openapi3"
"github.com/labstack/echo/v4"
"github.com/oasgate/oasgate/authz"
"github.com/oasgate/oasgate/authz/echov4"
`+imports+`)
func main() {`+calls+`
	_, _ = io.Copy(io.Discard, os.Stdin)
}
func serve(spec func() (*openapi3.T, error), register func(*echo.Echo)) {
	doc, err := spec()
	if err != nil { panic(err) }
	gate, err := authz.New(authz.Config{Document: doc})
	if err != nil { panic(err) }
	h, err := echov4.Routes(gate, register)
	if err != nil { panic(err) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { panic(err) }
	go func() { panic(http.Serve(l, h)) }()
	fmt.Println("http://" + l.Addr().String())
}
`)
	text := marshal(t, map[string]any{"Replace": overlay})
	if err := os.WriteFile(filepath.Join(folder, "overlay.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(folder, "program")
	compile := exec.CommandContext(
		t.Context(),
		"go",
		"build",
		"-overlay",
		filepath.Join(folder, "overlay.json"),
		"-ldflags=-s -w",
		"-o",
		program,
		"./"+generatedProgram,
	)
	compile.Dir = root
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("the generated program does not compile: %v\n%.5000s", err, out)
	}
	run := exec.Command(program)
	run.Stderr = t.Output()
	stdin, err := run.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = run.Wait()
	})
	urls := make([]string, 2*len(all))
	for i := range urls {
		if _, err := fmt.Fscanln(stdout, &urls[i]); err != nil {
			t.Fatal("the generated program does not start: ", err)
		}
	}
	return urls
}

// bodyType returns how a strict handler gets the body of a media type: json, form, multipart, text
// or raw. "" is the only media type of an operation; for several, it is "several".
func (o *boundOperation) bodyType(essence string) string {
	if essence == "" && o.spec.RequestBody != nil {
		for name := range o.spec.RequestBody.Value.Content {
			if essence != "" {
				return "several"
			}
			essence = mediaRange(name).essence
		}
	}
	switch {
	case essence == "":
		return ""
	case isJSON(essence):
		return "json"
	case isForm(essence):
		return "form"
	case isMultipart(essence):
		return "multipart"
	case essence == "text/plain":
		return "text"
	}
	return "raw"
}

// acceptedRequest is the accepted value of a request as sent, before any rewriting.
type acceptedRequest struct {
	parameters map[string][]byte // JSON, by place and name
	body       []byte            // JSON, or passed on unchanged
	essence    string            // of the body
}

func (o *boundOperation) accepts(t *testing.T, s *sentRequest) (*acceptedRequest, error) {
	t.Helper()
	r := &http.Request{Method: s.method, URL: &url.URL{RawQuery: s.query}, Header: s.header.Clone()}
	content := Content{Body: s.body}
	if s.body != nil {
		var err error
		if content.Essence, content.Params, err = mime.ParseMediaType(s.contentType); err != nil {
			t.Fatal(err)
		}
		if !o.TakesBody() {
			t.Fatal("a body for an operation without one")
		}
	}
	if _, err := o.Check(r, func(string) string { return s.id }, content); err != nil {
		return nil, err
	}
	want := &acceptedRequest{parameters: map[string][]byte{}, essence: content.Essence}
	all, _ := appendPairs(nil, s.query)
	for _, p := range slices.Concat(o.path, o.query, o.header, o.cookie) {
		var pairs []pair
		switch p.in {
		case openapi3.ParameterInPath:
			pairs = []pair{{p.name, s.id}}
		case openapi3.ParameterInHeader:
			if values := r.Header[p.key]; values != nil {
				pairs = []pair{{p.name, strings.Join(values, ",")}}
			}
		case openapi3.ParameterInCookie:
			pairs = p.unescape(p.cookiePairs(r.Cookies()))
		default:
			for _, q := range all {
				if o.owner(q.name) == p {
					pairs = append(pairs, q)
				}
			}
		}
		if value := p.valueOf(t, pairs, o.defaultOf(p)); value != nil {
			want.parameters[p.in+" "+p.name] = value
		}
	}
	if s.body != nil {
		want.body = o.acceptedBody(t, content)
	}
	return want, nil
}

func (o *boundOperation) parameter(p *parameter) *openapi3.Parameter {
	all := parametersOf(o.item, o.spec)
	return all[slices.IndexFunc(all, func(spec *openapi3.Parameter) bool {
		return spec.In == p.in && spec.Name == p.name
	})]
}

func (o *boundOperation) defaultOf(p *parameter) []byte {
	spec := o.parameter(p)
	if spec.Required || spec.Schema == nil || spec.Schema.Value.Default == nil {
		return nil
	}
	text, _ := json.Marshal(spec.Schema.Value.Default)
	return text
}

func (p *parameter) valueOf(t *testing.T, pairs []pair, missing []byte) []byte {
	t.Helper()
	if len(pairs) == 0 {
		return missing
	}
	var text []byte
	var err error
	if p.in == "query" || p.in == "cookie" {
		text, err = p.decodePairs(pairs)
	} else {
		text, err = p.decode(pairs[0].value)
	}
	var value []byte
	if err == nil {
		value, err = p.check(text, new(time.Duration))
	}
	if err != nil {
		t.Fatalf("accepted, and then not: %s %s: %v: %q", p.name, p.style, err, pairs)
	}
	return value
}

func (o *boundOperation) acceptedBody(t *testing.T, content Content) []byte {
	t.Helper()
	b := o.bodyOf(content)
	var text []byte
	var err error
	switch b.kind {
	case jsonBody:
		text = content.Body
	case formBody:
		f := fields{body: b, byName: map[string]*field{}}
		pairs, _ := appendPairs(nil, string(content.Body))
		for _, p := range pairs {
			one, path, _ := f.named(p.name)
			one.tree.add(path, p.value)
		}
		text, err = f.json()
	default:
		return content.Body
	}
	if err == nil {
		text, err = b.schema.Validate(text)
	}
	if err != nil {
		t.Fatal("accepted, and then not: ", err)
	}
	return text
}

// mayRefuse reports whether the binder may refuse an accepted request, by SECURITY.md: values in
// the notes of the document, integers beyond int64, an empty text in a header or a cookie, an
// absent optional multipart body, and a date-time with lower-case letters or of a leap second.
func (o *boundOperation) mayRefuse(s *sentRequest, answer string) bool {
	empty := regexp.MustCompile(`(?i)parameter (c|X-H)\d+ does not match`).MatchString(answer)
	for _, beyond := range []string{"18446744073709551615", "99999999999999999999", "1e30"} {
		if strings.HasPrefix(answer, "4") && strings.Contains(fmt.Sprint(s), beyond) {
			return true
		}
	}
	text := fmt.Sprint(s)
	return len(o.Unbound) > 0 || empty && strings.Contains(text, `[""]`) ||
		empty && regexp.MustCompile(`c\d+=["; ]`).MatchString(text) ||
		o.bodyType("") == "multipart" && s.body == nil ||
		strings.Contains(
			text,
			"28t10",
		) || strings.Contains(text, "59:60Z") || strings.Contains(text, "59%3A60Z")
}

// compare returns the differences between what was bound and what was accepted.
func (o *boundOperation) compare(
	want *acceptedRequest,
	answer map[string]json.RawMessage,
	plain bool,
) string {
	request, _ := decodeJSON(answer["request"]).(map[string]any)
	parameters, _ := request["Params"].(map[string]any)
	for _, p := range slices.Concat(o.path, o.query, o.header, o.cookie) {
		if slices.ContainsFunc(o.Unbound, func(note string) bool {
			return strings.HasPrefix(
				note,
				p.in+" parameter "+p.name+": generated code does not bind",
			)
		}) {
			continue
		}
		got := parameters[p.name]
		if p.in == openapi3.ParameterInPath {
			got = request["id"]
		}
		spec := o.parameter(p)
		schema := spec.Schema
		if schema == nil {
			schema = spec.Content["application/json"].Schema
		}
		accepted := decodeJSON(want.parameters[p.in+" "+p.name])
		if accepted == nil && p.content != "" && want.parameters[p.in+" "+p.name] != nil {
			continue // null is bound as the zero value
		}
		if difference := differ(schema, accepted, got, p.in+" "+p.name); difference != "" {
			return difference
		}
	}
	kind := o.bodyType(want.essence)
	var got any
	for name, value := range request {
		if strings.HasSuffix(name, "Body") && value != nil {
			if got != nil {
				return "two bodies are bound"
			}
			got = value
		}
	}
	switch {
	case kind == "":
		if got != nil && kind != "raw" {
			return "a body is bound, and none was sent"
		}
	case plain && kind != "json":
	case kind == "form" && want.body == nil: // an empty form, even if its schema requires fields
	case kind == "json" && string(want.body) == "null": // the zero value
	case kind == "json" || kind == "form":
		schema := o.bodySchema(want.essence)
		accepted := decodeJSON(want.body)
		if object, ok := accepted.(map[string]any); ok && len(o.Unbound) > 0 {
			o.dropUnbound(schema, object)
		}
		return differ(schema, accepted, got, "body")
	case kind == "text":
		if want.body == nil && got != nil || want.body != nil && got != string(want.body) {
			return fmt.Sprintf("the text %q, accepted %q", got, want.body)
		}
	case o.bodyType("") == "raw":
		var raw []byte
		if err := json.Unmarshal(answer["raw"], &raw); err != nil || !bytes.Equal(raw, want.body) {
			return fmt.Sprintf("the bytes %q, accepted %q", raw, want.body)
		}
	}
	return ""
}

// dropUnbound removes from a body what is not bound, by the notes of the document.
func (o *boundOperation) dropUnbound(schema *openapi3.SchemaRef, accepted map[string]any) {
	for name, value := range accepted {
		if schema.Ref == "" && schema.Value.Properties[name] == nil {
			delete(accepted, name)
		}
		if inner, ok := value.(map[string]any); ok {
			for member := range inner {
				if o.isUnbound("form field " + name + "[" + member + "]:") {
					delete(inner, member)
				}
			}
		}
		if o.isUnbound("form field " + name + ":") {
			delete(accepted, name)
		}
	}
}

func (o *boundOperation) isUnbound(prefix string) bool {
	return slices.ContainsFunc(
		o.Unbound,
		func(note string) bool { return strings.HasPrefix(note, prefix) },
	)
}

func (o *boundOperation) bodySchema(essence string) *openapi3.SchemaRef {
	for name, media := range o.spec.RequestBody.Value.Content {
		if mediaRange(name).essence == essence {
			return media.Schema
		}
	}
	return nil
}

func decodeJSON(text []byte) (value any) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	_ = d.Decode(&value)
	return value
}

// differ returns where a bound value differs from the accepted one. null is bound like an absent
// value, and members that the document does not name are not bound.
func differ(ref *openapi3.SchemaRef, want, got any, at string) string {
	difference := fmt.Sprintf("%s: accepted %v, bound %v", at, want, got)
	if want == nil && got == nil {
		return ""
	}
	s := &openapi3.Schema{}
	if ref != nil && ref.Value != nil {
		s = ref.Value
	}
	switch accepted := want.(type) {
	case map[string]any:
		bound, ok := got.(map[string]any)
		if !ok {
			return difference
		}
		return differObject(s, accepted, bound, at)
	case []any:
		bound, ok := got.([]any)
		if !ok || len(bound) != len(accepted) {
			return difference
		}
		for i := range accepted {
			if d := differ(s.Items, accepted[i], bound[i], fmt.Sprint(at, "/", i)); d != "" {
				return d
			}
		}
		return ""
	case json.Number:
		bound, ok := got.(json.Number)
		if len(s.AllOf) == 1 {
			s = s.AllOf[0].Value
		}
		if ok && sameNumber(s, string(accepted), string(bound)) {
			return ""
		}
	case string:
		bound, ok := got.(string)
		if len(s.AllOf) == 1 {
			s = s.AllOf[0].Value
		}
		if ok && sameText(s, accepted, bound) {
			return ""
		}
	case bool:
		if got == want {
			return ""
		}
	}
	return difference
}

func differObject(s *openapi3.Schema, accepted, bound map[string]any, at string) string {
	properties, others := map[string]*openapi3.SchemaRef{}, s.AdditionalProperties
	open := s.Type == nil && len(s.AllOf) == 0 || others.Schema != nil ||
		others.Has != nil && *others.Has ||
		len(s.OneOf) > 0
	for _, part := range append([]*openapi3.SchemaRef{{Value: s}}, s.AllOf...) {
		for name, p := range part.Value.Properties {
			properties[name] = p
		}
	}
	for name, value := range accepted {
		p, known := properties[name]
		if !known {
			p = others.Schema
		}
		if !known && !open {
			if bound[name] != nil {
				return at + " binds " + name
			}
			continue
		}
		if d := differ(p, value, bound[name], at+"/"+name); d != "" {
			return d
		}
	}
	for name, value := range bound {
		if accepted[name] == nil && value != nil {
			return at + " binds " + name + " that was not accepted"
		}
	}
	return ""
}

func sameNumber(s *openapi3.Schema, accepted, bound string) bool {
	x, err1 := strconv.ParseFloat(accepted, 64)
	y, err2 := strconv.ParseFloat(bound, 64)
	switch {
	case err1 != nil || err2 != nil:
		return false
	case s.Format == "float":
		return float32(x) == float32(y)
	case s.Type == nil, s.Type.Includes("number"):
		return x == y
	}
	a, _ := appendCanonical(nil, []byte(accepted), 0)
	b, _ := appendCanonical(nil, []byte(bound), 0)
	return bytes.Equal(a, b)
}

func sameText(s *openapi3.Schema, accepted, bound string) bool {
	switch s.Format {
	case "date-time":
		x, err1 := time.Parse(time.RFC3339, strings.ToUpper(accepted))
		y, err2 := time.Parse(time.RFC3339, bound)
		return err1 == nil && err2 == nil && x.Equal(y)
	case "uuid":
		return strings.EqualFold(accepted, bound)
	}
	return accepted == bound
}
