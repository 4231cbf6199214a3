package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// reportInvalid reports invalid OpenAPI that is not a fault, because it does not affect requests.
func reportInvalid(doc *openapi3.T, faults []*authz.Fault, report report) {
	known := map[string]bool{}
	for _, fault := range faults {
		if fault.Err != nil {
			_, cause := innermost(fault.Err)
			known[cause.Error()] = true
		}
	}
	v := validation{doc: doc, seen: map[any]bool{}, invalid: map[*openapi3.Schema]bool{}}
	v.report = func(where string, err error, at *openapi3.Location) {
		removeSchemas(err)
		origin, cause := innermost(err)
		first, _, _ := strings.Cut(err.Error(), "\n")
		// Other rules and faults report the rest, in the terms of this tool.
		if known[cause.Error()] || ruleOfFault(first).name != otherFault {
			return
		}
		brief, _, _ := strings.Cut(cause.Error(), "\n")
		report(cmp.Or(at, origin), where, first, brief)
	}
	v.walk()
	v.validateParts()
	v.validateValues()
}

// validation validates a document, and each shared schema once. kin-openapi would validate a
// schema, and all that it refers to, again for each reference.
type validation struct {
	doc    *openapi3.T
	report func(where string, err error, at *openapi3.Location)

	seen    map[any]bool // visited parts that several places can refer to
	shared  []sharedSchema
	values  []placedValue
	invalid map[*openapi3.Schema]bool
}

// sharedSchema is a schema that several places can refer to.
type sharedSchema struct {
	name     string
	schema   *openapi3.Schema
	original openapi3.Schema
}

// placedValue is a default or an example.
type placedValue struct {
	where, kind string
	value       any
	schema      *openapi3.SchemaRef
	at          *openapi3.Location
}

// validateParts validates the document while its shared schemas are empty, and each of these by
// itself.
func (v *validation) validateParts() {
	options := []openapi3.ValidationOption{
		openapi3.EnableMultiError(),
		openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
	}
	if v.doc.IsOpenAPI31OrLater() {
		options = append(options, openapi3.IsOpenAPI31OrLater())
	}
	if v.doc.IsOpenAPI32OrLater() {
		options = append(options, openapi3.IsOpenAPI32OrLater())
	}
	for _, s := range v.shared {
		*s.schema = openapi3.Schema{}
	}
	defer func() {
		for _, s := range v.shared {
			*s.schema = s.original
		}
	}()
	// The paths are validated apart from the rest, so that Validate does not look for undeclared
	// security schemes in them. This would take a third of its time, and other rules report them.
	rest := *v.doc
	if v.doc.Paths != nil {
		rest.Paths = openapi3.NewPaths()
		for _, err := range errorsOf(v.doc.Paths.Validate(context.Background(), options...)) {
			v.report("", &openapi3.SectionValidationError{Section: "paths", Cause: err}, nil)
		}
	}
	for _, err := range errorsOf(rest.Validate(context.Background(), options...)) {
		v.report("", err, nil)
	}
	for i, s := range v.shared {
		err := v.shared[i].original.Validate(context.Background(), options...)
		for _, err := range errorsOf(err) {
			v.invalid[s.schema] = true
			v.report("", fmt.Errorf("invalid schema %s: %w", s.name, err), nil)
		}
	}
}

func errorsOf(err error) []error {
	var several openapi3.MultiError
	if !errors.As(err, &several) && err != nil {
		several = openapi3.MultiError{err}
	}
	return several
}

// validateValues validates defaults and examples, unless their schema contains an invalid one.
func (v *validation) validateValues() {
	options := []openapi3.SchemaValidationOption{openapi3.MultiErrors()}
	if v.doc.IsOpenAPI31OrLater() {
		options = append(options, openapi3.EnableJSONSchema2020())
	}
	for _, value := range v.values {
		if v.reachesInvalid(value.schema) {
			continue
		}
		if err := value.schema.Value.VisitJSON(value.value, options...); err != nil {
			v.report(value.where, fmt.Errorf("invalid %s: %w", value.kind, err), value.at)
		}
	}
}

func (v *validation) reachesInvalid(schema *openapi3.SchemaRef) (invalid bool) {
	if len(v.invalid) > 0 {
		_ = schema.WalkSubtree(func(_ string, ref *openapi3.SchemaRef) error {
			invalid = invalid || v.invalid[ref.Value]
			return nil
		})
	}
	return invalid
}

// walk finds shared schemas, defaults and examples.
func (v *validation) walk() {
	if c := v.doc.Components; c != nil {
		for name, ref := range sorted(c.Schemas) {
			v.share(name, ref)
		}
		for name, ref := range sorted(c.Parameters) {
			v.parameter("", &openapi3.ParameterRef{Ref: name, Value: ref.Value})
		}
		for name, ref := range sorted(c.Headers) {
			v.header("header "+name, &openapi3.HeaderRef{Ref: name, Value: ref.Value})
		}
		for name, ref := range sorted(c.RequestBodies) {
			v.body("body "+name, &openapi3.RequestBodyRef{Ref: name, Value: ref.Value})
		}
		for name, ref := range sorted(c.Responses) {
			v.response("response "+name, &openapi3.ResponseRef{Ref: name, Value: ref.Value})
		}
		for name, ref := range sorted(c.Callbacks) {
			v.callback("callback "+name, &openapi3.CallbackRef{Ref: name, Value: ref.Value})
		}
	}
	for path, item := range sorted(v.doc.Paths.Map()) {
		v.item(path, item)
	}
	for name, item := range sorted(v.doc.Webhooks) {
		v.item("webhook "+name, item)
	}
}

func (v *validation) item(where string, item *openapi3.PathItem) {
	if item == nil || v.again(item.Ref, item) {
		return
	}
	for _, ref := range item.Parameters {
		v.parameter(where, ref)
	}
	for method, o := range sorted(item.Operations()) {
		v.operation(method+" "+where, o)
	}
}

func (v *validation) operation(where string, o *openapi3.Operation) {
	for _, ref := range o.Parameters {
		v.parameter(where, ref)
	}
	if o.RequestBody != nil {
		v.body(where+" body", o.RequestBody)
	}
	for status, ref := range sorted(o.Responses.Map()) {
		v.response(where+" response "+status, ref)
	}
	for name, ref := range sorted(o.Callbacks) {
		v.callback(where+" callback "+name, ref)
	}
}

func (v *validation) callback(where string, ref *openapi3.CallbackRef) {
	if ref.Value == nil || v.again(ref.Ref, ref.Value) {
		return
	}
	for path, item := range sorted(ref.Value.Map()) {
		v.item(where+" "+path, item)
	}
}

func (v *validation) body(where string, ref *openapi3.RequestBodyRef) {
	if ref.Value != nil && !v.again(ref.Ref, ref.Value) {
		v.content(where, ref.Value.Content)
	}
}

func (v *validation) response(where string, ref *openapi3.ResponseRef) {
	if ref.Value == nil || v.again(ref.Ref, ref.Value) {
		return
	}
	for name, ref := range sorted(ref.Value.Headers) {
		v.header(where+" header "+name, ref)
	}
	v.content(where, ref.Value.Content)
}

func (v *validation) header(where string, ref *openapi3.HeaderRef) {
	if ref.Value != nil && !v.again(ref.Ref, ref.Value) {
		v.input(where, &ref.Value.Parameter)
	}
}

func (v *validation) parameter(where string, ref *openapi3.ParameterRef) {
	if p := ref.Value; p != nil && !v.again(ref.Ref, p) {
		v.input(strings.TrimSpace(where+" "+p.In+" "+p.Name), p)
	}
}

func (v *validation) input(where string, p *openapi3.Parameter) {
	v.schema(where, p.Schema)
	v.examples(where, p.Example, p.Examples, p.Schema, p.Origin)
	v.content(where, p.Content)
}

func (v *validation) content(where string, content openapi3.Content) {
	for _, media := range sorted(content) {
		if media != nil {
			v.schema(where, media.Schema)
			v.schema(where, media.ItemSchema)
			v.examples(where, media.Example, media.Examples, media.Schema, media.Origin)
		}
	}
}

func (v *validation) examples(
	where string,
	value any,
	several openapi3.Examples,
	schema *openapi3.SchemaRef,
	origin *openapi3.Origin,
) {
	v.value(where, "example", value, schema, origin, "example")
	for name, ref := range sorted(several) {
		if err := ref.Validate(context.Background()); err != nil {
			v.report(where, fmt.Errorf("invalid example %s: %w", name, err), nil)
		} else {
			v.value(where, "example "+name, ref.Value.Value, schema, ref.Value.Origin, "value")
		}
	}
}

func (v *validation) schema(where string, ref *openapi3.SchemaRef) {
	switch {
	case ref == nil || ref.Value == nil:
	case ref.Ref != "":
		v.share(strings.TrimPrefix(ref.Ref, componentPrefix+"schemas/"), ref)
	default:
		v.subschemas(where, ref)
	}
}

func (v *validation) share(name string, ref *openapi3.SchemaRef) {
	if ref.Value != nil && !v.again(name, ref.Value) {
		v.shared = append(v.shared, sharedSchema{name, ref.Value, *ref.Value})
		v.subschemas("schema "+name, ref)
	}
}

func (v *validation) subschemas(where string, ref *openapi3.SchemaRef) {
	s := ref.Value
	v.value(where, "default", s.Default, ref, s.Origin, "default")
	v.value(where, "example", s.Example, ref, s.Origin, "example")
	for _, ref := range [...]*openapi3.SchemaRef{
		s.Not, s.If, s.Then, s.Else, s.Items, s.Contains, s.PropertyNames, s.ContentSchema,
		s.AdditionalProperties.Schema, s.UnevaluatedItems.Schema, s.UnevaluatedProperties.Schema,
	} {
		v.schema(where, ref)
	}
	for _, list := range [...]openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems} {
		for _, ref := range list {
			v.schema(where, ref)
		}
	}
	for _, members := range [...]openapi3.Schemas{
		s.Properties, s.PatternProperties, s.DependentSchemas, s.Defs,
	} {
		for _, ref := range sorted(members) {
			v.schema(where, ref)
		}
	}
}

// value adds a value of an element's field, if there is one.
func (v *validation) value(
	where, kind string,
	value any,
	schema *openapi3.SchemaRef,
	element *openapi3.Origin,
	field string,
) {
	if value != nil && schema != nil && schema.Value != nil {
		at := locate(element, field)
		v.values = append(v.values, placedValue{where, kind, value, schema, at})
	}
}

// again reports whether a part that a reference leads to was visited before.
func (v *validation) again(ref string, part any) bool {
	if ref == "" {
		return false
	}
	seen := v.seen[part]
	v.seen[part] = true
	return seen
}

// removeSchemas removes schemas and values from an error, whose text would contain them as JSON.
// They can be large, and are not shown.
func removeSchemas(err error) {
	switch err := err.(type) {
	case nil:
	case openapi3.MultiError:
		for _, part := range err {
			removeSchemas(part)
		}
	case *openapi3.SchemaError:
		err.Schema, err.Value = nil, nil
		removeSchemas(err.Origin)
	default:
		removeSchemas(errors.Unwrap(err))
	}
}

// sorted yields the members of a map by name.
func sorted[T any](all map[string]T) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		if len(all) == 0 {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if !yield(name, all[name]) {
				return
			}
		}
	}
}
