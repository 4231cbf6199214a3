package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

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
	for path, item := range doc.Paths.Map() {
		kept := &openapi3.PathItem{Parameters: orEmpty(item).Parameters, Origin: orEmpty(item).Origin}
		for method, o := range orEmpty(item).Operations() {
			kept.SetOperation(method, &openapi3.Operation{
				Parameters: o.Parameters, RequestBody: o.RequestBody, Responses: responses, Origin: o.Origin,
			})
		}
		part.Paths.Set(path, kept)
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
