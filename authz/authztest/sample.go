package authztest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	engine "github.com/oasgate/oasgate/authz/internal/schema"
)

// sampler makes values that match the schemas of a document, as small as possible. It supports
// common keywords, not all: the values are validated before they are used.
type sampler struct {
	doc      *openapi3.T
	compiler *engine.Compiler
	compiled map[*openapi3.Schema]*engine.Schema // nil: it cannot be
}

func newSampler(doc *openapi3.T) sampler {
	compiler := engine.NewCompiler(doc, engine.Options{DenyUndecoded: true})
	return sampler{doc, compiler, map[*openapi3.Schema]*engine.Schema{}}
}

// Bounds for values: schemas can require themselves, or more than a test should send.
const (
	deepest = 16
	most    = 1 << 12 // characters, items, members
)

// parameter makes a value for a required parameter. An array has at least one element, because an
// empty one would be no parameter.
func (s sampler) parameter(p *openapi3.Parameter) (any, error) {
	for _, media := range p.Content {
		return s.media(media)
	}
	if v, ok := s.example(p.Schema, p.Example, p.Examples); ok {
		return v, nil
	}
	if p.Schema == nil {
		return nil, errors.New("it has neither a schema nor an example")
	}
	schema := *p.Schema.Value
	if schema.MinItems == 0 {
		schema.MinItems = 1
	}
	return s.value(&openapi3.SchemaRef{Value: &schema}, 0, 0)
}

func (s sampler) media(media *openapi3.MediaType) (any, error) {
	if v, ok := s.example(media.Schema, media.Example, media.Examples); ok {
		return v, nil
	}
	if media.Schema == nil {
		return nil, errors.New("it has neither a schema nor an example")
	}
	return s.value(media.Schema, 0, 0)
}

// example returns the first example that the schema accepts.
func (s sampler) example(schema *openapi3.SchemaRef, one any, more openapi3.Examples) (any, bool) {
	candidates := []any{one}
	for _, name := range slices.Sorted(maps.Keys(more)) {
		if ref := more[name]; ref != nil && ref.Value != nil {
			candidates = append(candidates, ref.Value.Value)
		}
	}
	for _, v := range candidates {
		if v != nil && (schema == nil || s.accepts(schema.Value, v)) {
			return v, true
		}
	}
	return nil, false
}

func (s sampler) accepts(spec *openapi3.Schema, v any) bool {
	text, err := json.Marshal(v)
	if err != nil {
		return false
	}
	compiled, known := s.compiled[spec]
	if !known {
		compiled, _ = s.compiler.Schema(&openapi3.SchemaRef{Value: spec})
		s.compiled[spec] = compiled
	}
	if compiled == nil {
		return false
	}
	_, err = compiled.Validate(text)
	return err == nil
}

// value makes the nth value of a schema. If possible, the values differ, so that items can be
// unique.
func (s sampler) value(ref *openapi3.SchemaRef, n, depth int) (any, error) {
	if ref == nil || ref.Value == nil {
		return "a" + suffix(n), nil
	}
	if depth > deepest {
		return nil, errors.New("the schema requires itself recursively")
	}
	schema := ref.Value
	if given := s.given(schema); len(given) > 0 && (n == 0 || len(schema.Enum) > 0) {
		return given[n%len(given)], nil
	}
	if max(schema.MinLength, schema.MinItems, schema.MinProps) > most {
		return nil, fmt.Errorf(
			"the schema requires more than %d characters, items or members",
			most,
		)
	}
	switch {
	case len(schema.AllOf) > 0:
		all := *schema
		all.AllOf = nil
		for _, part := range schema.AllOf {
			all = merge(all, *part.Value)
		}
		return s.value(&openapi3.SchemaRef{Value: &all}, n, depth+1)
	case len(schema.OneOf) > 0:
		return s.oneOf(schema, schema.OneOf, n, depth)
	case len(schema.AnyOf) > 0:
		return s.oneOf(schema, schema.AnyOf, n, depth)
	}
	switch kind(schema) {
	case "null":
		return nil, nil
	case "boolean":
		return n%2 == 0, nil
	case "integer", "number":
		return number(schema, n), nil
	case "array":
		return s.array(schema, n, depth)
	case "object":
		return s.object(schema, n, depth)
	}
	return s.characters(schema, n)
}

// given returns the values in the schema itself that it accepts.
func (s sampler) given(schema *openapi3.Schema) (all []any) {
	candidates := slices.Concat(
		[]any{schema.Const, schema.Example},
		schema.Examples,
		[]any{schema.Default},
		schema.Enum,
	)
	for _, v := range candidates {
		if v != nil && s.accepts(schema, v) {
			all = append(all, v)
		}
	}
	return all
}

// kind returns the type of the values to make.
func kind(schema *openapi3.Schema) string {
	for _, t := range schema.Type.Slice() {
		if t != "null" || len(schema.Type.Slice()) == 1 {
			return t
		}
	}
	switch {
	case len(schema.Properties) > 0 || len(schema.Required) > 0 || schema.MinProps > 0:
		return "object"
	case schema.Items != nil || len(schema.PrefixItems) > 0 || schema.MinItems > 0:
		return "array"
	case schema.Min != nil || schema.Max != nil || schema.MultipleOf != nil:
		return "number"
	}
	return "string"
}

// oneOf makes a value for the first branch that has one which the whole schema accepts.
func (s sampler) oneOf(
	schema *openapi3.Schema,
	branches openapi3.SchemaRefs,
	n, depth int,
) (any, error) {
	var faults []error
	for i, branch := range branches {
		rest := *schema
		rest.OneOf, rest.AnyOf = nil, nil
		both := merge(rest, *branch.Value)
		v, err := s.value(&openapi3.SchemaRef{Value: &both}, n, depth+1)
		if members, ok := v.(map[string]any); ok && schema.Discriminator != nil &&
			branch.Ref != "" {
			members[schema.Discriminator.PropertyName] = discriminated(
				schema.Discriminator,
				branch.Ref,
			)
		}
		if err == nil && s.accepts(schema, v) {
			return v, nil
		}
		if err == nil {
			err = errors.New("found no value that it accepts")
		}
		faults = append(faults, fmt.Errorf("branch %d: %w", i+1, err))
	}
	return nil, fmt.Errorf(
		"found no value for any branch of oneOf or anyOf: %w",
		errors.Join(faults...),
	)
}

// discriminated returns the name of a schema in a discriminator (OpenAPI 3.1 §4.8.25).
func discriminated(d *openapi3.Discriminator, ref string) string {
	for _, name := range slices.Sorted(maps.Keys(d.Mapping)) {
		if mapped := d.Mapping[name].Ref; mapped == ref || mapped == path.Base(ref) {
			return name
		}
	}
	return path.Base(ref)
}

// merge returns a schema that is valid where both are: it has the stricter bounds, and the members
// of both.
func merge(a, b openapi3.Schema) openapi3.Schema {
	if a.Type == nil {
		a.Type = b.Type
	}
	a.AllOf = slices.Concat(a.AllOf, b.AllOf)
	a.OneOf = slices.Concat(a.OneOf, b.OneOf)
	a.AnyOf = slices.Concat(a.AnyOf, b.AnyOf)
	properties := maps.Clone(b.Properties)
	if properties == nil {
		properties = openapi3.Schemas{}
	}
	for name, ref := range a.Properties {
		if other := properties[name]; other != nil {
			ref = &openapi3.SchemaRef{
				Value: &openapi3.Schema{AllOf: openapi3.SchemaRefs{ref, other}},
			}
		}
		properties[name] = ref
	}
	a.Properties = properties
	a.Required = slices.Concat(a.Required, b.Required)
	a.Min, a.Max = stricter(a.Min, b.Min, math.Max), stricter(a.Max, b.Max, math.Min)
	a.MinLength = max(a.MinLength, b.MinLength)
	a.MinItems = max(a.MinItems, b.MinItems)
	a.MinProps = max(a.MinProps, b.MinProps)
	if a.MaxLength == nil || b.MaxLength != nil && *b.MaxLength < *a.MaxLength {
		a.MaxLength = b.MaxLength
	}
	if !a.ExclusiveMin.IsSet() {
		a.ExclusiveMin = b.ExclusiveMin
	}
	if !a.ExclusiveMax.IsSet() {
		a.ExclusiveMax = b.ExclusiveMax
	}
	if a.Enum == nil {
		a.Enum = b.Enum
	}
	a.MultipleOf = cmp.Or(a.MultipleOf, b.MultipleOf)
	a.Format = cmp.Or(a.Format, b.Format)
	a.Pattern = cmp.Or(a.Pattern, b.Pattern)
	a.Items = cmp.Or(a.Items, b.Items)
	a.Const = cmp.Or(a.Const, b.Const)
	a.Example = cmp.Or(a.Example, b.Example)
	a.Default = cmp.Or(a.Default, b.Default)
	a.Discriminator = cmp.Or(a.Discriminator, b.Discriminator)
	a.UniqueItems = a.UniqueItems || b.UniqueItems
	return a
}

func stricter(a, b *float64, of func(a, b float64) float64) *float64 {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	v := of(*a, *b)
	return &v
}

// number returns the nth number from the minimum upwards, or from the maximum downwards if there is
// no minimum.
func number(schema *openapi3.Schema, n int) float64 {
	step := 1.0
	if schema.MultipleOf != nil {
		step = *schema.MultipleOf
	}
	least, exclusiveLeast := bound(schema.Min, schema.ExclusiveMin, math.Max)
	most, exclusiveMost := bound(schema.Max, schema.ExclusiveMax, math.Min)
	if least == nil && (most == nil || *most > step) {
		least = &step
	}
	if least == nil {
		v := math.Floor(*most/step) * step
		if exclusiveMost && v == *most {
			v -= step
		}
		return v - float64(n)*step
	}
	v := math.Ceil(*least/step) * step
	if exclusiveLeast && v == *least {
		v += step
	}
	if most != nil && (v > *most || exclusiveMost && v == *most) && schema.MultipleOf == nil &&
		!schema.Type.Is("integer") {
		return (*least + *most) / 2 // there is no whole number between them
	}
	return v + float64(n)*step
}

// bound returns a bound in the form of 3.0 or 3.1.
func bound(
	limit *float64,
	exclusive openapi3.ExclusiveBound,
	of func(a, b float64) float64,
) (*float64, bool) {
	strict := stricter(limit, exclusive.Value, of)
	return strict, exclusive.IsTrue() || exclusive.Value != nil && *strict == *exclusive.Value
}

func (s sampler) array(schema *openapi3.Schema, nth, depth int) (any, error) {
	length := max(int(schema.MinItems), len(schema.PrefixItems))
	if length == 0 && nth > 0 && (schema.MaxItems == nil || *schema.MaxItems > 0) {
		length = 1 // to differ from the others
	}
	items := []any{}
	for i := range length {
		item, n := schema.Items, nth
		if i < len(schema.PrefixItems) {
			item = schema.PrefixItems[i]
		}
		if schema.UniqueItems {
			n += i
		}
		v, err := s.value(item, n, depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}

func (s sampler) object(schema *openapi3.Schema, nth, depth int) (any, error) {
	members := map[string]any{}
	add := func(name string, required bool) error {
		ref := schema.Properties[name]
		if ref == nil {
			ref = schema.AdditionalProperties.Schema
		}
		// In 3.0, a readOnly member is required in responses only (§4.7.24); in 3.1, readOnly is an
		// annotation, and required applies.
		readOnly := ref != nil && ref.Value != nil && ref.Value.ReadOnly &&
			!(required && s.doc.IsOpenAPI31OrLater())
		if _, had := members[name]; had || readOnly {
			return nil
		}
		v, err := s.value(ref, nth, depth+1)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		members[name] = v
		return nil
	}
	for _, name := range schema.Required {
		if err := add(name, true); err != nil {
			return nil, err
		}
	}
	least := schema.MinProps
	if nth > 0 {
		least = max(least, 1) // to differ from the others
	}
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		if uint64(len(members)) >= least {
			break
		}
		if err := add(name, false); err != nil {
			return nil, err
		}
	}
	for i := 1; uint64(len(members)) < schema.MinProps; i++ {
		if err := add("member"+strconv.Itoa(i), false); err != nil {
			return nil, err
		}
	}
	return members, nil
}

// formats are values of common formats, with names and addresses of RFC 2606 and RFC 5737.
var formats = map[string]string{
	"date": "2026-01-02", "date-time": "2026-01-02T03:04:05Z", "time": "03:04:05Z",
	"duration": "P1D",
	"email":    "user@example.com", "idn-email": "user@example.com", "hostname": "example.com",
	"idn-hostname": "example.com",
	"ipv4":         "192.0.2.1", "ipv6": "2001:db8::1", "uri": "https://example.com/", "uri-reference": "/a", "iri": "https://example.com/",
	"iri-reference": "/a", "uri-template": "/a", "uuid": "00000000-0000-4000-8000-000000000000",
	"byte":         "AAAA",
	"json-pointer": "/a", "relative-json-pointer": "0", "regex": "a",
}

func (s sampler) characters(schema *openapi3.Schema, n int) (any, error) {
	if schema.Pattern != "" {
		return s.matching(schema, n)
	}
	if v, ok := formats[schema.Format]; ok {
		return v[:len(v)-len(suffix(n))] + suffix(n), nil
	}
	v := "a" + suffix(n)
	if missing := int(schema.MinLength) - len(v); missing > 0 {
		v = strings.Repeat("a", missing) + v
	}
	if schema.MaxLength != nil && uint64(len(v)) > *schema.MaxLength {
		v = v[uint64(len(v))-*schema.MaxLength:]
	}
	return v, nil
}

func suffix(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
