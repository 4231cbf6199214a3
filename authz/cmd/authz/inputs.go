package main

import (
	"maps"
	"regexp/syntax"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
)

// input is a schema that validates a part of a request.
type input struct {
	operation operation // the first that uses it
	where     string    // for people: POST /messages body.user.name
	exposed   bool      // of a public or a write operation
	schema    *openapi3.Schema
	bounded   bool // the length of its strings, by it or by a schema around it
	closed    bool // a schema around it handles undescribed members
}

// inputs visits every schema that validates a part of a request, once.
func inputs(operations []operation, visit func(input)) {
	v := visitor{visit, map[visited]bool{}}
	for _, o := range operations {
		exposed := o.access.open() || o.writes()
		for _, ref := range slices.Concat(o.item.Parameters, o.spec.Parameters) {
			if p := ref.Value; p != nil {
				in := input{
					operation: o,
					exposed:   exposed,
					where:     o.String() + " " + p.In + " " + p.Name,
				}
				v.walk(in, p.Schema)
				v.content(in, p.Content)
			}
		}
		if body := o.spec.RequestBody; body != nil && body.Value != nil {
			v.content(
				input{operation: o, exposed: exposed, where: o.String() + " body"},
				body.Value.Content,
			)
		}
	}
}

type visitor struct {
	visit func(input)
	seen  map[visited]bool
}

type visited struct {
	schema                   *openapi3.Schema
	bounded, closed, exposed bool
}

func (v visitor) content(in input, content openapi3.Content) {
	for _, media := range slices.Sorted(maps.Keys(content)) {
		if content[media] != nil {
			v.walk(in, content[media].Schema)
		}
	}
}

// walk visits a schema and its subschemas. in describes its place.
func (v visitor) walk(in input, ref *openapi3.SchemaRef) {
	if ref == nil || ref.Value == nil {
		return
	}
	s := ref.Value
	in.schema, in.bounded = s, in.bounded || bounds(s)
	key := visited{s, in.bounded, in.closed, in.exposed}
	if v.seen[key] {
		return
	}
	v.seen[key] = true
	v.visit(in)

	// Parts for the same value: what surrounds them applies to them too. A member that one part of
	// allOf does not describe can be described by another, so only the whole can refuse members.
	part := in
	part.closed = in.closed || closes(s) || isObject(s)
	for _, ref := range slices.Concat(s.AllOf, s.OneOf, s.AnyOf,
		openapi3.SchemaRefs{s.Then, s.Else}) {
		v.walk(part, ref)
	}

	// Parts for other values.
	inner := func(suffix string, ref *openapi3.SchemaRef) {
		v.walk(input{operation: in.operation, exposed: in.exposed, where: in.where + suffix}, ref)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		inner("."+name, s.Properties[name])
	}
	for _, pattern := range slices.Sorted(maps.Keys(s.PatternProperties)) {
		inner(".*", s.PatternProperties[pattern])
	}
	inner(".*", s.AdditionalProperties.Schema)
	inner("[]", s.Items)
	for _, ref := range s.PrefixItems {
		inner("[]", ref)
	}
}

// boundedFormats are the formats that bound the length of strings.
var boundedFormats = map[string]bool{
	"date": true, "date-time": true, "time": true, "uuid": true, "ipv4": true, "ipv6": true,
	"hostname": true,
	// bounded by the size of a body
	"email": true, "char": true, "http-date": true, "binary": true,
}

// bounds reports whether a schema bounds the length of strings, by itself or by a part of its
// allOf. A format counts if it is enforced and bounds the length.
func bounds(s *openapi3.Schema) bool {
	return s.MaxLength != nil || s.Enum != nil || s.Const != nil || boundedFormats[s.Format] ||
		boundedPattern(s.Pattern) ||
		slices.ContainsFunc(
			s.AllOf,
			func(ref *openapi3.SchemaRef) bool { return ref.Value != nil && bounds(ref.Value) },
		)
}

// boundedPattern reports whether a pattern matches whole strings (patterns of schemas are not
// anchored) and strings of bounded length only.
func boundedPattern(pattern string) bool {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if pattern == "" || err != nil {
		return false
	}
	return anchored(parsed, syntax.OpBeginText, 0) && anchored(parsed, syntax.OpEndText, -1) &&
		finite(parsed)
}

// anchored reports whether each alternative has the anchor at the given end: 0 is the first, -1 the
// last.
func anchored(r *syntax.Regexp, anchor syntax.Op, end int) bool {
	switch r.Op {
	case anchor:
		return true
	case syntax.OpCapture:
		return anchored(r.Sub[0], anchor, end)
	case syntax.OpConcat:
		return anchored(r.Sub[(len(r.Sub)+end)%len(r.Sub)], anchor, end)
	case syntax.OpAlternate:
		return !slices.ContainsFunc(
			r.Sub,
			func(sub *syntax.Regexp) bool { return !anchored(sub, anchor, end) },
		)
	}
	return false
}

func finite(r *syntax.Regexp) bool {
	if r.Op == syntax.OpStar || r.Op == syntax.OpPlus || r.Op == syntax.OpRepeat && r.Max < 0 {
		return false
	}
	return !slices.ContainsFunc(r.Sub, func(sub *syntax.Regexp) bool { return !finite(sub) })
}

// closes reports whether a schema says what happens to members that it does not describe. Accepting
// them explicitly counts too.
func closes(s *openapi3.Schema) bool {
	return s.AdditionalProperties.Has != nil || s.AdditionalProperties.Schema != nil ||
		s.UnevaluatedProperties.Has != nil || s.UnevaluatedProperties.Schema != nil
}

// isObject reports whether a schema describes objects, by itself or by a part of its allOf.
func isObject(s *openapi3.Schema) bool {
	return s.Type != nil && s.Type.Includes(openapi3.TypeObject) ||
		s.Type == nil && len(s.Properties) > 0 ||
		slices.ContainsFunc(s.AllOf, func(ref *openapi3.SchemaRef) bool {
			return ref.Value != nil && isObject(ref.Value)
		})
}
