package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/overlay"
)

// load reads a document with everything that it refers to, or only the needed part of it. With
// places, it also records the line of each element.
func (t *tool) load(
	ctx context.Context,
	name string,
	needed part,
	places bool,
) (*openapi3.T, error) {
	doc, err := t.read(ctx, name, needed, places)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", describeName(name), err)
	}
	// Any YAML can be loaded. An empty document, such as the output of a command that failed, must
	// not count as an API without operations.
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		return nil, fmt.Errorf(
			"cannot read %s: openapi is %q, expected an OpenAPI document of version 3",
			describeName(name),
			doc.OpenAPI,
		)
	}
	return doc, nil
}

func (t *tool) read(
	ctx context.Context,
	name string,
	needed part,
	places bool,
) (*openapi3.T, error) {
	from, err := t.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer from.close()
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = places
	loader.IsExternalRefsAllowed = true
	read := func(location *url.URL) ([]byte, error) {
		data, err := from.read(location)
		if needed == requestPart && maybeNullConst.Match(data) {
			loader.IncludeOrigin = true
		}
		return data, err
	}
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, location *url.URL) ([]byte, error) {
		return read(location)
	}
	data, err := read(from.root)
	if err != nil {
		return nil, err
	}
	if len(t.overlays) > 0 {
		if data, err = t.applyOverlays(from, name, data); err != nil {
			return nil, err
		}
		loader.IncludeOrigin = needed == requestPart && maybeNullConst.Match(data)
	}
	doc, err := loadData(loader, data, needed, from.root)
	if err != nil && name != standardInput { // it can only be read once
		err = findBrokenRefs(from, err)
	}
	if err == nil && loader.IncludeOrigin && needed == requestPart {
		setNullConsts(doc)
	}
	return doc, err
}

// maybeNullConst matches the text of every document with const: null, and of some others.
var maybeNullConst = regexp.MustCompile(`\bconst["']?\s*:\s*([nN~!&*#,}\r\n]|$)`)

// jsonNull stands for const: null. The loader treats it as an absent const, and only the origins
// distinguish the two.
type jsonNull struct{}

// MarshalJSON implements [json.Marshaler].
func (jsonNull) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func setNullConsts(doc *openapi3.T) {
	_ = doc.WalkSchemas(func(_ string, ref *openapi3.SchemaRef) error {
		if s := ref.Value; s != nil && s.Const == nil && s.Origin != nil {
			if _, found := s.Origin.Fields.Lookup("const"); found {
				s.Const = jsonNull{}
			}
		}
		return nil
	})
}

// loadData loads the needed part of a document, and what it refers to. The loader has no hook for
// another parser, so it reads the referenced files with its YAML parser.
func loadData(
	loader *openapi3.Loader,
	data []byte,
	needed part,
	root *url.URL,
) (*openapi3.T, error) {
	parse := parseYAML
	if isJSON(data) {
		parse = parseJSON
	}
	node, err := parse(data)
	if err != nil { // the loader decides
		return loader.LoadFromDataWithPath(data, root)
	}
	needed.prune(node)
	// Register the document with the loader before decoding it, for files that refer back to it.
	doc, err := loader.LoadFromDataWithPath([]byte("{}"), root)
	if err != nil {
		return nil, err
	}
	if err := node.Decode(doc); err != nil {
		return nil, err
	}
	if loader.IncludeOrigin {
		setPlaces(doc, node, root.String())
	}
	return doc, loader.ResolveRefsIn(doc, root)
}

// applyOverlays applies the overlays of --overlay. One that a revision does not have is skipped.
func (t *tool) applyOverlays(from source, name string, document []byte) ([]byte, error) {
	var texts [][]byte
	for _, file := range t.overlays {
		text, err := from.overlay(file)
		if errors.Is(err, errNotInRevision) {
			t.printError(
				fmt.Sprintf("%s: its revision does not have %s, which is skipped", name, file),
			)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("--overlay: %w", err)
		}
		texts = append(texts, text)
	}
	return overlay.Apply(document, texts...)
}

func describeName(name string) string {
	if name == standardInput {
		return "standard input"
	}
	return name
}

// operation is an operation of a document, with the meaning of its security.
type operation struct {
	authz.Operation
	access access
	item   *openapi3.PathItem
	spec   *openapi3.Operation
	// unstated: the document does not say who may call the operation. In OpenAPI it is public, for
	// the gate it is a fault.
	unstated bool
}

func (o operation) String() string { return o.Method + " " + o.Path }

// describe returns every operation of a document. credential returns the credential that a scheme
// requires.
func describe(doc *openapi3.T, credential func(scheme string) string) []operation {
	described := authz.Describe(doc)
	all := make([]operation, 0, len(described))
	for _, o := range described {
		item := doc.Paths.Value(o.Path)
		spec := item.GetOperation(o.Method)
		unstated := spec.Security == nil && len(doc.Security) == 0
		all = append(all, operation{o, accessOf(o, credential), item, spec, unstated})
	}
	return all
}

// credentials returns a function from the document's schemes to their credentials.
func credentials(doc *openapi3.T) func(scheme string) string {
	return func(scheme string) string { return credential(doc, scheme) }
}

// securityFaults returns the faults in who may call what.
func securityFaults(doc *openapi3.T) []*authz.Fault {
	_, err := authz.Config{Document: doc}.CompileSecurity()
	return faultsOf(err)
}

func faultsOf(err error) (all []*authz.Fault) {
	var fault *authz.Fault
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range several.Unwrap() {
			all = append(all, faultsOf(err)...)
		}
	} else if errors.As(err, &fault) {
		all = append(all, fault)
	}
	return all
}
