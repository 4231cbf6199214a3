package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	gotoken "go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/oapi-codegen/v2/pkg/codegen"
	"go.yaml.in/yaml/v4"
)

// initHandler is a method of the generated interface that the folder has no handler for.
type initHandler struct {
	ID, Name, Request, Response string
	Visit                       string // the method of Response
	Comment                     string
	Example                     *initExample
}

// initExample is an answer that the document has as an example.
type initExample struct {
	Status     int
	Type, Body string
}

const generatedFile = "gen/api.gen.go"

// generate generates the Go code of the document, and finds which handlers are missing.
func (r *repository) generate(ctx context.Context, source string) error {
	config, err := os.ReadFile(filepath.Join(r.folder, ".oapi-codegen.yaml"))
	if err != nil {
		if config, err = r.fill("oapi-codegen.yaml"); err != nil {
			return err
		}
	}
	// As the generator reads it when go generate runs.
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	doc, err := loader.LoadFromFile(source)
	if err != nil {
		return err
	}
	if r.Bundle {
		data, err := bundle(ctx, doc)
		if err != nil {
			return err
		}
		r.addGenerated("gen/openapi.json", data)
		if doc, err = openapi3.NewLoader().LoadFromData(data); err != nil {
			return fmt.Errorf("the files of %s cannot be written as one: %w", source, err)
		}
	}
	code, err := generateCode(doc, config)
	if err != nil {
		return err
	}
	r.addGenerated(generatedFile, code)
	return r.readHandlers(code)
}

// addGenerated adds a generated file if it is new or changes.
func (r *repository) addGenerated(name string, data []byte) {
	if there, err := os.ReadFile(filepath.Join(r.folder, filepath.FromSlash(name))); err != nil || !bytes.Equal(there, data) {
		r.files = append(r.files, initFile{name: name, data: data, generated: true})
	}
}

// generateCode runs oapi-codegen, and reports what it cannot generate in words of the document.
func generateCode(doc *openapi3.T, config []byte) ([]byte, error) {
	var c codegen.Configuration
	if err := yaml.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf(".oapi-codegen.yaml: %w", err)
	}
	c = c.UpdateDefaults()
	code, err := codegen.Generate(doc, c)
	if err != nil {
		return nil, fmt.Errorf("oapi-codegen cannot generate code for the document: %w", err)
	}
	file, err := parser.ParseFile(gotoken.NewFileSet(), generatedFile, code, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("oapi-codegen generates code that is not Go: %w", err)
	}
	declares := map[string]int{}
	for _, name := range declared(file) {
		declares[name]++
	}
	var clashes []string
	for name := range declares {
		if declares[name] > 1 {
			clashes = append(clashes, clash(doc, name))
		}
	}
	if clashes != nil {
		slices.Sort(clashes)
		return nil, fmt.Errorf("oapi-codegen generates two types of the same name:\n%s", strings.Join(clashes, "\n"))
	}
	return []byte(code), nil
}

// clash says what of the document has a generated name.
func clash(doc *openapi3.T, name string) string {
	if doc.Components != nil {
		for schema := range doc.Components.Schemas {
			if codegen.SchemaNameToTypeName(schema) == name {
				return fmt.Sprintf("components.schemas.%s: the generated code has a type %s of its own: give the schema another with x-go-name", schema, name)
			}
		}
	}
	return name + ": rename one of the schemas or operations that it comes from, or give a schema another name with x-go-name"
}

// readHandlers reads the interface of the generated code, and which of its methods impl has.
func (r *repository) readHandlers(code []byte) error {
	files := gotoken.NewFileSet()
	file, err := parser.ParseFile(files, generatedFile, code, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	has, receivers, err := r.methods()
	if err != nil {
		return err
	}
	visits := map[string]string{} // by response type
	var methods []*ast.Field
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if i, ok := spec.Type.(*ast.InterfaceType); ok && spec.Name.Name == "StrictServerInterface" {
			methods = i.Methods.List
		} else if ok && len(i.Methods.List) == 1 && len(i.Methods.List[0].Names) == 1 {
			visits[spec.Name.Name] = i.Methods.List[0].Names[0].Name
		}
		return true
	})
	r.Receiver = "API"
	counts := map[string]int{}
	for _, m := range methods {
		name := m.Names[0].Name
		if has[name] {
			counts[receivers[name]]++
			continue
		}
		h := initHandler{Name: name}
		signature := m.Type.(*ast.FuncType)
		h.Request = "gen." + source(files, signature.Params.List[len(signature.Params.List)-1].Type)
		response := source(files, signature.Results.List[0].Type)
		h.Response, h.Visit = "gen."+response, visits[response]
		r.describeHandler(&h, m.Doc.Text())
		r.Handlers = append(r.Handlers, h)
	}
	r.First = len(counts) == 0
	for receiver, n := range counts {
		if n > counts[r.Receiver] {
			r.Receiver = receiver
		}
	}
	slices.SortStableFunc(r.Handlers, func(a, b initHandler) int { return cmp.Compare(a.Name, b.Name) })
	r.Unanswered = slices.ContainsFunc(r.Handlers, func(h initHandler) bool { return h.Example == nil })
	return nil
}

func source(files *gotoken.FileSet, node ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, files, node)
	return b.String()
}

// methods returns the methods of impl, and the receiver of each.
func (r *repository) methods() (has map[string]bool, receivers map[string]string, err error) {
	has, receivers = map[string]bool{}, map[string]string{}
	names, err := filepath.Glob(filepath.Join(r.folder, "impl", "*.go"))
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		files := gotoken.NewFileSet()
		file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, fmt.Errorf("the handlers that there are cannot be read: %w", err)
		}
		for _, declaration := range file.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv != nil {
				has[f.Name.Name] = true
				receivers[f.Name.Name] = source(files, f.Recv.List[0].Type)
			}
		}
	}
	return has, receivers, nil
}

// address is how the generated code names the operation of a method: (GET /orders/{id}).
var address = regexp.MustCompile(`\((\S+) (\S+)\)\s*$`)

// describeHandler adds what the document says about the operation of a handler.
func (r *repository) describeHandler(h *initHandler, doc string) {
	at := address.FindStringSubmatch(doc)
	if at == nil || r.document.Paths.Value(at[2]) == nil {
		return
	}
	spec := r.document.Paths.Value(at[2]).GetOperation(at[1])
	if spec == nil {
		return
	}
	h.ID = spec.OperationID
	says := oneLine(cmp.Or(spec.Summary, spec.Description))
	if len(says) > 70 {
		says = ""
	}
	h.Comment = "// " + h.Name + " answers " + at[1] + " " + at[2] + "."
	if says != "" {
		h.Comment += "\n// " + strings.TrimSuffix(says, ".") + "."
	}
	h.Comment += "\n"
	if r.Examples {
		h.Example = exampleOf(spec)
	}
}

// exampleOf returns the example of an operation's first successful answer; nil: it has none.
func exampleOf(spec *openapi3.Operation) *initExample {
	if spec.Responses == nil {
		return nil
	}
	for _, status := range slices.Sorted(maps.Keys(spec.Responses.Map())) {
		code, err := strconv.Atoi(status)
		response := spec.Responses.Value(status).Value
		if err != nil || code < 200 || code > 299 || response == nil {
			continue
		}
		if len(response.Content) == 0 {
			return &initExample{Status: code}
		}
		for _, media := range slices.Sorted(maps.Keys(response.Content)) {
			if body, ok := exampleBody(media, response.Content[media]); ok {
				return &initExample{Status: code, Type: media, Body: body}
			}
		}
	}
	return nil
}

func exampleBody(media string, content *openapi3.MediaType) (string, bool) {
	value := content.Example
	for _, name := range slices.Sorted(maps.Keys(content.Examples)) {
		if example := content.Examples[name].Value; value == nil && example != nil {
			value = example.Value
		}
	}
	if value == nil && content.Schema != nil && content.Schema.Value != nil {
		value = schemaExample(content.Schema.Value, 8)
	}
	text, isText := value.(string)
	switch {
	case value == nil:
		return "", false
	case isText && !strings.Contains(media, "json"):
		return text, true
	}
	body, err := json.MarshalIndent(value, "", "  ")
	return string(body) + "\n", err == nil
}

// schemaExample returns the example of a schema, or one put together of those of its members, which may
// contain themselves.
func schemaExample(schema *openapi3.Schema, depth int) any {
	switch {
	case depth == 0:
		return nil
	case schema.Example != nil:
		return schema.Example
	case len(schema.Examples) > 0:
		return schema.Examples[0]
	case schema.Default != nil:
		return schema.Default
	case schema.Type.Is("array") && schema.Items != nil && schema.Items.Value != nil:
		if item := schemaExample(schema.Items.Value, depth-1); item != nil {
			return []any{item}
		}
	case schema.Type.Is("object"):
		object := map[string]any{}
		for name, property := range schema.Properties {
			if property.Value == nil {
				continue
			}
			if value := schemaExample(property.Value, depth-1); value != nil {
				object[name] = value
			} else if slices.Contains(schema.Required, name) {
				return nil
			}
		}
		if len(object) > 0 {
			return object
		}
	}
	return nil
}
