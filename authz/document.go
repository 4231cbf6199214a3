package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	urlpath "path"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// validate returns the OpenAPI faults in the parts of the document that concern requests. Faults in
// others (responses, callbacks, webhooks, examples, descriptions) do not affect the policy.
func (p *Plan) validate() (faults []error) {
	var several openapi3.MultiError
	for _, part := range p.requestParts() {
		err := part.Validate(context.Background(), openapi3.EnableMultiError(),
			openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
			// package schema compiles patterns as ECMA-262, not Go's dialect
			openapi3.DisableSchemaPatternValidation())
		if multi, ok := err.(openapi3.MultiError); ok {
			several = append(several, multi...)
		} else if err != nil {
			several = append(several, err)
		}
	}
	for _, err := range several {
		fault := &Fault{Problem: "not a valid OpenAPI document", Err: err}
		if at, ok := errors.AsType[*openapi3.PathValidationError](err); ok {
			fault.Path, fault.Err = at.Path, at.Cause
		}
		if in, ok := errors.AsType[*openapi3.OperationValidationError](err); ok {
			fault.Method, fault.Err = in.Method, in.Cause
		}
		if of, ok := errors.AsType[*openapi3.PathParametersError](err); ok {
			fault.Method, fault.Path, fault.Err = of.Method, of.Path, of
		}
		item := orEmpty(p.doc.Paths.Value(fault.Path))
		if fault.At = locate(item.Origin, ""); fault.Method != "" {
			fault.At = locate(item.GetOperation(fault.Method).Origin, "")
		}
		faults = append(faults, fault)
	}
	return faults
}

// requestParts returns documents with the parts that concern requests: paths, parameters, bodies
// and the security schemes in use, without schemas, which the schema compiler reads. There are
// several if paths have the same shape: kin-openapi rejects such paths in one document, although
// they are unambiguous unless two have the same method.
func (p *Plan) requestParts() (parts []*openapi3.T) {
	description := "-"
	responses := openapi3.NewResponses(
		openapi3.WithName("default", &openapi3.Response{Description: &description}),
	)
	shapes := map[string]int{}
	for _, template := range slices.Sorted(maps.Keys(p.doc.Paths.Map())) {
		item := orEmpty(p.doc.Paths.Value(template))
		kept := &openapi3.PathItem{Parameters: bareParameters(item.Parameters), Origin: item.Origin}
		for method, o := range item.Operations() {
			kept.SetOperation(method, &openapi3.Operation{
				Parameters: bareParameters(o.Parameters), RequestBody: bareBody(o.RequestBody),
				Responses: responses, Origin: o.Origin,
			})
		}
		at := shapes[shapeOf(template)]
		if shapes[shapeOf(template)]++; at == len(parts) {
			parts = append(parts, p.emptyPart(at == 0))
		}
		parts[at].Paths.Set(template, kept)
	}
	if parts == nil {
		parts = []*openapi3.T{p.emptyPart(true)}
		if p.doc.Paths == nil {
			parts[0].Paths = nil
		}
	}
	return parts
}

// bareParameters returns parameters with empty schemas.
func bareParameters(all openapi3.Parameters) (bare openapi3.Parameters) {
	for _, ref := range all {
		if ref != nil && ref.Value != nil {
			p := *ref.Value
			p.Schema, p.Content = bareSchema(p.Schema), bareContent(p.Content)
			ref = &openapi3.ParameterRef{Value: &p}
		}
		bare = append(bare, ref)
	}
	return bare
}

func bareBody(ref *openapi3.RequestBodyRef) *openapi3.RequestBodyRef {
	if ref == nil || ref.Value == nil {
		return ref
	}
	body := *ref.Value
	body.Content = bareContent(body.Content)
	return &openapi3.RequestBodyRef{Value: &body}
}

func bareContent(content openapi3.Content) openapi3.Content {
	if content == nil {
		return nil
	}
	bare := openapi3.Content{}
	for name, media := range content {
		if media != nil {
			m := *media
			m.Schema, m.ItemSchema = bareSchema(m.Schema), bareSchema(m.ItemSchema)
			media = &m
		}
		bare[name] = media
	}
	return bare
}

func bareSchema(ref *openapi3.SchemaRef) *openapi3.SchemaRef {
	if ref == nil {
		return nil
	}
	return &openapi3.SchemaRef{Value: &openapi3.Schema{}}
}

func (p *Plan) emptyPart(withSchemes bool) *openapi3.T {
	part := &openapi3.T{
		OpenAPI: p.doc.OpenAPI, JSONSchemaDialect: p.doc.JSONSchemaDialect, Origin: p.doc.Origin,
		Info:       &openapi3.Info{Title: "-", Version: "-"},
		Paths:      openapi3.NewPaths(),
		Components: &openapi3.Components{SecuritySchemes: openapi3.SecuritySchemes{}},
	}
	if !withSchemes { // report their faults once
		return part
	}
	for _, o := range p.operations {
		for _, alternative := range o.Alternatives {
			for _, requirement := range alternative {
				if s := p.schemes[requirement.Scheme]; s != nil {
					part.Components.SecuritySchemes[s.name] = &openapi3.SecuritySchemeRef{
						Value: s.spec,
					}
				}
			}
		}
	}
	return part
}

var templateParameter = regexp.MustCompile(`\{[^{}]*\}`)

// shapeOf returns a path template without the names of its parameters.
func shapeOf(template string) string { return templateParameter.ReplaceAllString(template, "{}") }

func orEmpty(item *openapi3.PathItem) *openapi3.PathItem {
	if item == nil {
		return &openapi3.PathItem{}
	}
	return item
}

// checkInputs returns the parts of a request body that cannot be enforced.
func checkInputs(spec *openapi3.Operation) (problems []string) {
	if spec.RequestBody == nil || spec.RequestBody.Value == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(spec.RequestBody.Value.Content)) {
		if media := spec.RequestBody.Value.Content[name]; media != nil && media.ItemSchema != nil {
			problems = append(problems,
				fmt.Sprintf("its body of type %s has an itemSchema, which is not "+
					"enforced: describe the whole body with schema", name))
		}
	}
	return problems
}

// BasePath returns the [Config.BasePath] in the servers of a document (OpenAPI 3.1 §4.8.5): the
// path that all of them have, or "" without servers.
func BasePath(doc *openapi3.T) (string, error) {
	const remedy = "set the base path in the configuration"
	for _, template := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := orEmpty(doc.Paths.Value(template))
		where := template
		found := len(item.Servers) > 0
		for method, o := range item.Operations() {
			if o.Servers != nil && len(*o.Servers) > 0 {
				where, found = method+" "+template, true
			}
		}
		if found {
			return "", &Fault{
				Problem: fmt.Sprintf("%s has its own servers, but there is one base path: %s",
					where, remedy),
			}
		}
	}
	base := ""
	for i, server := range doc.Servers {
		if server == nil {
			continue
		}
		path, err := serverPath(server)
		if err != nil {
			return "", &Fault{
				Problem: fmt.Sprintf("servers: %s: %v: %s", server.URL, err, remedy),
				At:      locate(server.Origin, "url"),
			}
		}
		if i > 0 && path != base {
			return "", &Fault{
				Problem: fmt.Sprintf("servers have different paths, %q and %q: %s", base, path,
					remedy),
				At: locate(server.Origin, "url"),
			}
		}
		base = path
	}
	return base, nil
}

// serverPath returns the path of a server's URL, which is a template and may be relative.
func serverPath(server *openapi3.Server) (string, error) {
	_, rest, absolute := strings.Cut(server.URL, "://")
	if !absolute {
		rest = server.URL
	}
	host, base := rest, ""
	if at := strings.IndexByte(rest, '/'); at >= 0 {
		host, base = rest[:at], strings.TrimRight(rest[at:], "/")
	}
	if !absolute && host != "" {
		return "", errors.New("its path depends on where the document is, or on a variable")
	}
	for name, variable := range server.Variables {
		values := append([]string{variable.Default}, variable.Enum...)
		inHost := strings.Contains(host, "{"+name+"}")
		if inHost &&
			slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "/") }) {
			return "", fmt.Errorf("the variable %s may hold a part of the path", name)
		}
	}
	switch {
	case strings.ContainsAny(base, "{}"):
		return "", errors.New("its path has a variable")
	case base != "" && (urlpath.Clean(base) != base || strings.ContainsAny(base, "%?#*:")):
		return "", errors.New("its path is not a sequence of plain segments")
	}
	return base, nil
}
