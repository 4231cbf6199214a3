package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	urlpath "path"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// validate returns what makes the document invalid OpenAPI where a request meets it. Faults in other
// places (responses, callbacks, webhooks, examples, descriptions) do not change who may call what.
func (p *Plan) validate() (faults []error) {
	err := p.requestPart().Validate(context.Background(), openapi3.EnableMultiError(),
		openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation())
	several, ok := err.(openapi3.MultiError)
	if err != nil && !ok {
		several = openapi3.MultiError{err}
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

// requestPart returns a document that holds only what requests meet: paths, parameters, bodies and
// the security schemes that are in use.
func (p *Plan) requestPart() *openapi3.T {
	doc := p.doc
	part := &openapi3.T{
		OpenAPI: doc.OpenAPI, JSONSchemaDialect: doc.JSONSchemaDialect, Origin: doc.Origin,
		Info:       &openapi3.Info{Title: "-", Version: "-"},
		Components: &openapi3.Components{SecuritySchemes: openapi3.SecuritySchemes{}},
	}
	if doc.Paths != nil {
		part.Paths = openapi3.NewPathsWithCapacity(doc.Paths.Len())
		part.Paths.Origin = doc.Paths.Origin
	}
	for _, o := range p.operations {
		for _, alternative := range o.Alternatives {
			for _, requirement := range alternative {
				if s := p.schemes[requirement.Scheme]; s != nil {
					part.Components.SecuritySchemes[s.name] = &openapi3.SecuritySchemeRef{Value: s.spec}
				}
			}
		}
	}
	description := "-"
	responses := openapi3.NewResponses(openapi3.WithName("default", &openapi3.Response{Description: &description}))
	for template, item := range doc.Paths.Map() {
		kept := &openapi3.PathItem{Parameters: orEmpty(item).Parameters, Origin: orEmpty(item).Origin}
		for method, o := range orEmpty(item).Operations() {
			kept.SetOperation(method, &openapi3.Operation{
				Parameters: o.Parameters, RequestBody: o.RequestBody, Responses: responses, Origin: o.Origin,
			})
		}
		part.Paths.Set(template, kept)
	}
	return part
}

func orEmpty(item *openapi3.PathItem) *openapi3.PathItem {
	if item == nil {
		return &openapi3.PathItem{}
	}
	return item
}

// checkInputs returns what the validator would read past: defaults that it would apply although they
// break their own schema, and content that it does not decode.
func (p *Plan) checkInputs(item *openapi3.PathItem, spec *openapi3.Operation) (problems []string) {
	for _, parameters := range []openapi3.Parameters{item.Parameters, spec.Parameters} {
		for _, ref := range parameters {
			if ref == nil || ref.Value == nil || ref.Value.Required || ref.Value.Schema == nil {
				continue
			}
			if s := ref.Value.Schema.Value; s != nil && s.Default != nil && p.breaks(s.Default, s) {
				problems = append(problems, fmt.Sprintf("the default of the %s parameter %s breaks its schema, "+
					"and is applied where the parameter is missing: correct it", ref.Value.In, ref.Value.Name))
			}
		}
	}
	if spec.RequestBody == nil || spec.RequestBody.Value == nil {
		return problems
	}
	for _, name := range slices.Sorted(maps.Keys(spec.RequestBody.Value.Content)) {
		if media := spec.RequestBody.Value.Content[name]; media != nil && media.ItemSchema != nil {
			problems = append(problems, fmt.Sprintf("its body of type %s has an itemSchema, which is not enforced: "+
				"describe the whole body with schema", name))
		}
	}
	return problems
}

func (p *Plan) breaks(value any, s *openapi3.Schema) bool {
	var options []openapi3.SchemaValidationOption
	if p.doc.IsOpenAPI31OrLater() {
		options = append(options, openapi3.EnableJSONSchema2020())
	}
	return p.doc.ValidateSchemaJSON(s, value, options...) != nil
}

// BasePath tells [Config.BasePath] from the servers of a document (OpenAPI 3.1 §4.8.5): where all of
// them agree on a path, it is that; without servers it is "". The error says how to go on otherwise.
func BasePath(doc *openapi3.T) (string, error) {
	const wayOut = "set the base path in the configuration"
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
			return "", &Fault{Problem: fmt.Sprintf("%s has servers of its own, and one base path is served: %s", where, wayOut)}
		}
	}
	base := ""
	for i, server := range doc.Servers {
		if server == nil {
			continue
		}
		path, err := serverPath(server)
		if err != nil {
			return "", &Fault{Problem: fmt.Sprintf("servers: %s: %v: %s", server.URL, err, wayOut), At: locate(server.Origin, "url")}
		}
		if i > 0 && path != base {
			return "", &Fault{Problem: fmt.Sprintf("servers have different paths, %q and %q: %s", base, path, wayOut), At: locate(server.Origin, "url")}
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
		if inHost && slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "/") }) {
			return "", fmt.Errorf("the variable %s may hold a part of the path", name)
		}
	}
	switch {
	case strings.ContainsAny(base, "{}"):
		return "", errors.New("its path has a variable")
	case base != "" && (urlpath.Clean(base) != base || strings.ContainsAny(base, "%?#*:")):
		return "", errors.New("its path is not plain segments with a slash in front of each")
	}
	return base, nil
}
