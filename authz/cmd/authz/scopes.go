package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"
)

type scopesCommand struct {
	Document string `arg:"" help:"OpenAPI document: a file, REVISION:FILE as in git, an https URL, or - for standard input."`
	Output   string `short:"o" help:"File to write. Default: standard output."`
	Format   string `enum:"auto,go,typescript,json" default:"auto" help:"Language: go, typescript or json. Default: by the name of the output, else go."`
	Package  string `help:"Go package of the file. Default: that of the files beside it, or the name of its folder."`
}

//go:embed scopes.go.tmpl
var scopesTemplate string

// generatedConstant is a constant of the generated file.
type generatedConstant struct {
	Name, Value, Comment string
	Alternatives         [][]string // names of scopes, of an operation
}

func (c *scopesCommand) Run(ctx context.Context, t *tool) error {
	doc, err := t.load(ctx, c.Document, securityPart, false)
	if err != nil {
		return err
	}
	if found := securityFaults(doc); len(found) > 0 {
		return fmt.Errorf(
			"%s has %s, so the scopes of its operations are not known: see authz lint %s",
			c.Document,
			count(len(found), "fault"),
			c.Document,
		)
	}
	var code []byte
	switch c.language(t.json) {
	case "json":
		code, err = listScopes(doc).json()
	case "typescript":
		code, err = listScopes(doc).typescript(c.source())
	default:
		var beside siblings
		if beside, err = c.siblings(); err == nil {
			code, err = c.generate(doc, beside)
		}
	}
	if err != nil {
		return err
	}
	if c.Output == "" {
		_, err = t.out.w.Write(code)
		return err
	}
	return os.WriteFile(c.Output, code, 0o644)
}

func (c *scopesCommand) language(json bool) string {
	switch extension := filepath.Ext(c.Output); {
	case c.Format != "auto":
		return c.Format
	case json || extension == ".json":
		return "json"
	case extension == ".ts":
		return "typescript"
	}
	return "go"
}

// source returns the name of the document in the generated file.
func (c *scopesCommand) source() string {
	if c.Document == standardInput {
		return "standard input"
	}
	return oneLine(filepath.Base(c.Document))
}

// siblings are the files beside the generated one, and the names that they declare.
type siblings struct {
	pkg   string            // "": there are none
	names map[string]string // to the file that declares it
}

func (c *scopesCommand) siblings() (siblings, error) {
	found := siblings{names: map[string]string{}}
	if c.Output == "" {
		return found, nil
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(c.Output), "*.go"))
	if err != nil {
		return found, err
	}
	for _, name := range files {
		if filepath.Base(name) == filepath.Base(c.Output) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return found, fmt.Errorf(
				"cannot read the files beside %s, which must not declare the same names: %w",
				c.Output,
				err,
			)
		}
		pkg := file.Name.Name
		if pkg == c.Package || c.Package == "" && !strings.HasSuffix(name, "_test.go") {
			found.pkg = pkg
		}
		if pkg == c.Package || c.Package == "" && !strings.HasSuffix(pkg, "_test") {
			for _, d := range declared(file) {
				found.names[d] = name
			}
		}
	}
	return found, nil
}

// declared returns the names that a file declares in its package.
func declared(file *ast.File) (names []string) {
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names = append(names, d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					names = append(names, s.Name.Name)
				case *ast.ValueSpec:
					for _, name := range s.Names {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// packageName returns the package of the generated file.
func (c *scopesCommand) packageName(beside siblings) (string, error) {
	name := c.Package
	if name == "" {
		name = beside.pkg
	}
	if name == "" && c.Output != "" {
		folder, err := filepath.Abs(filepath.Dir(c.Output))
		if err != nil {
			return "", err
		}
		name = filepath.Base(folder)
	}
	if name == "" {
		return "", errors.New("the Go package of the output is not known: name the file with -o " +
			"(-o gen/scopes.gen.go), or the package with --package; --format=json and " +
			"--format=typescript need neither")
	}
	if !token.IsIdentifier(name) || name == "_" {
		return "", fmt.Errorf(
			"the package of the generated file would be %q: set it with --package",
			name,
		)
	}
	return name, nil
}

// taken returns the names that constants cannot have.
func (s siblings) taken() (map[string]bool, error) {
	taken := map[string]bool{}
	var clashes []error
	for _, name := range []string{"Scope", "OperationID", "ScopesFor", "slices"} {
		if file, ok := s.names[name]; ok {
			clashes = append(clashes, fmt.Errorf("%s declares %s, and so would the generated "+
				"file: write it to a folder of its own with -o", file, name))
		}
		taken[name] = true
	}
	for name := range s.names {
		taken[name] = true
	}
	return taken, errors.Join(clashes...)
}

// scopesFile is the data of the template of the generated file.
type scopesFile struct {
	Document, Package  string
	Scopes, Operations []generatedConstant
	Restricted         bool // whether any operation requires a token
}

// generate writes the file. The same document gives the same bytes.
func (c *scopesCommand) generate(doc *openapi3.T, beside siblings) ([]byte, error) {
	pkg, err := c.packageName(beside)
	if err != nil {
		return nil, err
	}
	taken, err := beside.taken()
	if err != nil {
		return nil, err
	}
	file := scopesFile{Document: c.source(), Package: pkg}
	operations := describe(doc, credentials(doc))
	names := file.addScopes(scopesWithText(doc, operations), taken)
	for _, name := range names {
		taken[name] = true
	}
	file.addOperations(operations, names, taken)

	var code bytes.Buffer
	written := template.New("scopes").
		Funcs(template.FuncMap{"quote": strconv.Quote, "comment": comment})
	if _, err := written.Parse(scopesTemplate); err != nil {
		return nil, err
	}
	if err := written.Execute(&code, file); err != nil {
		return nil, err
	}
	return format.Source(code.Bytes())
}

// addScopes adds a constant for each scope, and returns their names.
func (f *scopesFile) addScopes(described map[string]string, taken map[string]bool) (
	constants map[string]string) {
	scopes := slices.Sorted(maps.Keys(described))
	constants = names(scopes, taken,
		func(s string) string { return prefixed("Scope", camel(s)) },
		func(s string) string { return prefixed("Scope", camel(spellOut(s))) },
		func(s string) string { return "Scope_" + hex.EncodeToString([]byte(s)) },
	)
	for _, scope := range scopes {
		f.Scopes = append(f.Scopes, generatedConstant{
			Name: constants[scope], Value: scope, Comment: described[scope],
		})
	}
	return constants
}

// addOperations adds a constant for each operation. scopes are the constants of scopes.
func (f *scopesFile) addOperations(operations []operation, scopes map[string]string,
	taken map[string]bool) {
	byID := map[string]operation{}
	for _, o := range operations {
		byID[o.ID] = o
	}
	ids := slices.Sorted(maps.Keys(byID))
	constants := names(ids, taken,
		camel,
		func(s string) string { return prefixed("Operation", camel(s)) },
		func(s string) string { return prefixed("Operation", camel(spellOut(s))) },
		func(s string) string { return "Operation_" + hex.EncodeToString([]byte(s)) },
	)
	for _, id := range ids {
		o := byID[id]
		constant := generatedConstant{
			Name:    constants[id],
			Value:   id,
			Comment: oneLine(o.String() + ": " + o.access.String()),
		}
		if !o.access.open() {
			f.Restricted = true
			for _, alternative := range o.access.alternatives() {
				for i, scope := range alternative {
					alternative[i] = scopes[scope]
				}
				constant.Alternatives = append(constant.Alternatives, alternative)
			}
		}
		f.Operations = append(f.Operations, constant)
	}
}

// scopesWithText returns the scopes that a document declares or requires, and their descriptions.
// OpenID Connect schemes need not declare them.
func scopesWithText(doc *openapi3.T, operations []operation) map[string]string {
	all := describedScopes(doc)
	for _, o := range operations {
		for _, n := range o.access.needs {
			for _, scope := range n.scopes() {
				if _, known := all[scope]; !known {
					all[scope] = ""
				}
			}
		}
	}
	return all
}

// describedScopes returns the scopes that a document declares, and their descriptions.
func describedScopes(doc *openapi3.T) map[string]string {
	all := map[string]string{}
	if doc.Components == nil {
		return all
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.SecuritySchemes)) {
		scheme := doc.Components.SecuritySchemes[name].Value
		if credential(doc, name) != bearer {
			continue // no operation has it, or the document would have faults
		}
		listed, _ := scheme.Extensions["x-scopes"].(map[string]any)
		for scope, description := range listed {
			all[scope], _ = description.(string)
		}
		for _, flow := range namedFlows(scheme.Flows) {
			maps.Copy(all, flow.Scopes)
		}
	}
	return all
}

// names gives each value the first of its names that is an exported identifier, not taken, and not
// a name of another value. The result depends only on the set of values: if two values share a
// name, neither gets it, so that a constant never changes its value unnoticed. The last name of a
// value must be unique.
func names(values []string, taken map[string]bool, ways ...func(string) string) map[string]string {
	way := map[string]int{}
	for {
		all := map[string]string{}
		number := map[string]int{}
		for _, v := range values {
			all[v] = ways[way[v]](v)
			number[all[v]]++
		}
		settled := true
		for _, v := range values {
			name := all[v]
			if last := way[v] == len(ways)-1; !last &&
				(number[name] > 1 || taken[name] || !token.IsIdentifier(name) ||
					!token.IsExported(name)) {
				way[v]++
				settled = false
			}
		}
		if settled {
			return all
		}
	}
}

// camel joins the words of s: read:messages is ReadMessages.
func camel(s string) string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) {
		runes := []rune(word)
		b.WriteRune(unicode.ToUpper(runes[0]))
		b.WriteString(string(runes[1:]))
	}
	return b.String()
}

// prefixed adds a prefix to a name, or returns "" for an empty name.
func prefixed(prefix, words string) string {
	if words == "" {
		return ""
	}
	return prefix + words
}

// spellOut spells out the characters that camel drops, so that the names of read:messages and
// read-messages differ.
func spellOut(s string) string {
	return strings.NewReplacer(
		":",
		" colon ",
		"-",
		" dash ",
		".",
		" dot ",
		"/",
		" slash ",
		"_",
		" underscore ",
		"*",
		" star ",
		"#",
		" hash ",
		"+",
		" plus ",
		"@",
		" at ",
		"~",
		" tilde ",
	).Replace(s)
}

// comment returns text as comment lines, or "" for no text.
func comment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text)) {
		b.WriteString(strings.TrimRight("\t// "+oneLine(line), " ") + "\n")
	}
	return b.String()
}

// oneLine removes from a text what could end a comment or hide in one.
func oneLine(s string) string {
	printed := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		}
		return -1
	}, strings.ToValidUTF8(s, ""))
	return strings.TrimSpace(printed)
}
