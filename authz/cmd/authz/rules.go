package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// rule finds one kind of what is allowed, and unwise.
type rule struct {
	name string
	fix  string
	find func(doc *openapi3.T, operations []operation, report report)
}

// report takes a finding: its place in the document, and where in the API that is, for people. What is told of the
// same place twice counts once.
type report func(at *openapi3.Location, where, problem string)

var rules = []rule{
	{"moot-alternative", "remove the alternative that asks for more, or that which asks for less: one of them is not meant", mootAlternatives},
	{"write-by-read-scope", "ask for a scope that says what the operation does; if it only reads, make it a GET", writesByReadScopes},
	{"undocumented-refusal", "declare the responses, so that clients and generated code know of them", undocumentedRefusals},
	{"unused-scope", "require it where it was meant to be required, or remove it: issuers hand it out for nothing", unusedScopes},
	{"unbounded-string", "give it a maxLength, an enum, or a pattern from ^ to $ without * and +: whatever it is, it has a length beyond which it is a mistake or an attack", unboundedStrings},
	{"open-object", "say additionalProperties: false, or describe what more there may be; around allOf, say unevaluatedProperties: false", openObjects},
}

// mootAlternatives: where an alternative asks for all of another and more, nobody needs the more. A token without
// scopes beside one with is the usual case.
func mootAlternatives(doc *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		at := locate(o.spec.Origin, "security")
		if o.spec.Security == nil {
			at = locate(doc.Origin, "security") // one finding for all that inherit it
		}
		var needs []need
		for _, alternative := range o.Alternatives {
			needs = append(needs, needOf(alternative, func(scheme string) string { return credential(doc, scheme) }))
		}
		for i, more := range needs {
			for j, less := range needs {
				optional := len(less) == 0 && !slices.ContainsFunc(more, func(a atom) bool { return a.scope != "" })
				if i == j || optional || !less.within(more) || more.within(less) && i < j {
					continue
				}
				report(at, o.String(), fmt.Sprintf("%s is asked for in vain, for %s will do", more, less))
				break
			}
		}
	}
}

// writesByReadScopes goes by names, which is all there is to go by.
func writesByReadScopes(doc *openapi3.T, operations []operation, report report) {
	writes := []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	for _, o := range operations {
		if !slices.Contains(writes, o.Method) {
			continue
		}
		for _, n := range o.access.needs {
			var scopes []string
			for _, a := range n {
				if a.scope != "" {
					scopes = append(scopes, a.scope)
				}
			}
			if scopes != nil && !slices.ContainsFunc(scopes, func(s string) bool { return !saysRead(s) }) {
				report(locate(o.spec.Origin, "security"), o.String(), "it writes, and is open to "+n.String())
			}
		}
	}
}

// saysRead: read:messages, messages.read, …/calendar.readonly, but not read_write.
func saysRead(scope string) bool {
	words := strings.FieldsFunc(strings.ToLower(scope), func(r rune) bool { return strings.ContainsRune(":./-_", r) })
	has := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(any, w) })
	}
	return has("read", "reader", "readonly", "view", "viewer", "list", "get") &&
		!has("write", "writer", "edit", "editor", "create", "update", "delete", "manage", "admin")
}

func undocumentedRefusals(doc *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		responses := o.spec.Responses
		declares := func(status string) bool {
			return responses.Value(status) != nil || responses.Value("4XX") != nil
		}
		var missing []string
		if o.access.class() != "public" && !declares("401") {
			missing = append(missing, "401")
		}
		if o.access.class() == "scopes" && !declares("403") {
			missing = append(missing, "403")
		}
		if missing != nil {
			report(locate(o.spec.Origin, "responses"), o.String(), "its responses have no "+strings.Join(missing, " and no "))
		}
	}
}

func unusedScopes(doc *openapi3.T, operations []operation, report report) {
	if doc.Components == nil {
		return
	}
	used := map[string]map[string]bool{}
	for _, o := range operations {
		for _, alternative := range o.Alternatives {
			for _, r := range alternative {
				if used[r.Scheme] == nil {
					used[r.Scheme] = map[string]bool{}
				}
				for _, scope := range r.Scopes {
					used[r.Scheme][scope] = true
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.SecuritySchemes)) {
		ref := doc.Components.SecuritySchemes[name]
		if ref == nil || ref.Value == nil {
			continue
		}
		for _, scope := range declaredScopes(ref.Value) {
			if !used[name][scope] {
				report(locate(ref.Value.Origin, "x-scopes"), "securitySchemes."+name, "scope "+scope+" is declared, and no operation requires it")
			}
		}
	}
}

// declaredScopes returns the scopes that a scheme lists: OpenAPI has a place for them in oauth2 schemes, x-scopes is
// that of the others.
func declaredScopes(scheme *openapi3.SecurityScheme) []string {
	all := map[string]bool{}
	extension, _ := scheme.Extensions["x-scopes"].(map[string]any)
	for scope := range extension {
		all[scope] = true
	}
	if flows := scheme.Flows; flows != nil {
		for _, flow := range []*openapi3.OAuthFlow{flows.Implicit, flows.Password, flows.ClientCredentials, flows.AuthorizationCode} {
			if flow != nil {
				for scope := range flow.Scopes {
					all[scope] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func unboundedStrings(doc *openapi3.T, operations []operation, report report) {
	inputs(doc, operations, func(in input) {
		s := in.schema
		if s.Type.Includes(openapi3.TypeString) && !in.bounded {
			report(locate(s.Origin, "type"), in.where, "a string of any length")
		}
	})
}

func openObjects(doc *openapi3.T, operations []operation, report report) {
	inputs(doc, operations, func(in input) {
		s := in.schema
		switch {
		case in.closed || closes(s) || !isObject(s):
		case doc.IsOpenAPI30() && len(s.AllOf)+len(s.OneOf)+len(s.AnyOf) > 0: // 3.0 has no word for it
		default:
			report(locate(s.Origin, ""), in.where, "an object that takes members it does not describe")
		}
	})
}

// input is a schema that something in a request is held to.
type input struct {
	where   string // for people: POST /messages body.user.name
	schema  *openapi3.Schema
	bounded bool // its strings are, by it or by a schema around it
	closed  bool // a schema around it sees to members that are not described
}

// inputs visits every schema that requests are held to, once.
func inputs(doc *openapi3.T, operations []operation, visit func(input)) {
	v := visitor{visit, map[visited]bool{}}
	for _, o := range operations {
		for _, ref := range slices.Concat(o.item.Parameters, o.spec.Parameters) {
			if p := ref.Value; p != nil {
				in := input{where: o.String() + " " + p.In + " " + p.Name}
				v.walk(in, p.Schema)
				v.content(in, p.Content)
			}
		}
		if body := o.spec.RequestBody; body != nil && body.Value != nil {
			v.content(input{where: o.String() + " body"}, body.Value.Content)
		}
	}
}

type visitor struct {
	visit func(input)
	seen  map[visited]bool
}

type visited struct {
	schema          *openapi3.Schema
	bounded, closed bool
}

func (v visitor) content(in input, content openapi3.Content) {
	for _, media := range slices.Sorted(maps.Keys(content)) {
		if content[media] != nil {
			v.walk(in, content[media].Schema)
		}
	}
}

// walk visits a schema and those that it is made of. in is what is known of its place.
func (v visitor) walk(in input, ref *openapi3.SchemaRef) {
	if ref == nil || ref.Value == nil {
		return
	}
	s := ref.Value
	in.schema, in.bounded = s, in.bounded || bounds(s)
	key := visited{s, in.bounded, in.closed}
	if v.seen[key] {
		return
	}
	v.seen[key] = true
	v.visit(in)

	// Parts of the same value: what is said around them holds for them. The members that one part of allOf does not
	// describe another may, so that only the whole can refuse members.
	part := in
	part.closed = in.closed || closes(s) || isObject(s)
	for _, ref := range slices.Concat(s.AllOf, s.OneOf, s.AnyOf, openapi3.SchemaRefs{s.Then, s.Else}) {
		v.walk(part, ref)
	}

	// Values of their own.
	inner := func(suffix string, ref *openapi3.SchemaRef) {
		v.walk(input{where: in.where + suffix}, ref)
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

// bounds reports whether a schema bounds the length of strings: by itself, or by a part of its allOf. Formats count
// where they are enforced and fix the length.
func bounds(s *openapi3.Schema) bool {
	return s.MaxLength != nil || s.Enum != nil || s.Const != nil || slices.Contains([]string{"date", "date-time", "binary"}, s.Format) ||
		boundedPattern(s.Pattern) ||
		slices.ContainsFunc(s.AllOf, func(ref *openapi3.SchemaRef) bool { return ref.Value != nil && bounds(ref.Value) })
}

// boundedPattern reports whether a pattern matches whole strings (a schema's pattern is not anchored by itself) and none
// of any length.
func boundedPattern(pattern string) bool {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if pattern == "" || err != nil {
		return false
	}
	return anchored(parsed, syntax.OpBeginText, 0) && anchored(parsed, syntax.OpEndText, -1) && finite(parsed)
}

// anchored reports whether each alternative has the anchor at the given end: 0 the first, -1 the last.
func anchored(r *syntax.Regexp, anchor syntax.Op, end int) bool {
	switch r.Op {
	case anchor:
		return true
	case syntax.OpCapture:
		return anchored(r.Sub[0], anchor, end)
	case syntax.OpConcat:
		return anchored(r.Sub[(len(r.Sub)+end)%len(r.Sub)], anchor, end)
	case syntax.OpAlternate:
		return !slices.ContainsFunc(r.Sub, func(sub *syntax.Regexp) bool { return !anchored(sub, anchor, end) })
	}
	return false
}

func finite(r *syntax.Regexp) bool {
	if r.Op == syntax.OpStar || r.Op == syntax.OpPlus || r.Op == syntax.OpRepeat && r.Max < 0 {
		return false
	}
	return !slices.ContainsFunc(r.Sub, func(sub *syntax.Regexp) bool { return !finite(sub) })
}

// closes reports whether a schema says what becomes of members that it does not describe. To say that they are
// welcome is a decision too.
func closes(s *openapi3.Schema) bool {
	return s.AdditionalProperties.Has != nil || s.AdditionalProperties.Schema != nil ||
		s.UnevaluatedProperties.Has != nil || s.UnevaluatedProperties.Schema != nil
}

// isObject reports whether a schema describes objects: by itself, or by a part of its allOf.
func isObject(s *openapi3.Schema) bool {
	return s.Type != nil && s.Type.Includes(openapi3.TypeObject) || s.Type == nil && len(s.Properties) > 0 ||
		slices.ContainsFunc(s.AllOf, func(ref *openapi3.SchemaRef) bool { return ref.Value != nil && isObject(ref.Value) })
}

// locate returns the place of an element's field, or of the element itself where it has no such field.
func locate(element *openapi3.Origin, field string) *openapi3.Location {
	if element == nil {
		return nil
	}
	if at, ok := element.Fields.Lookup(field); ok {
		return &at
	}
	return element.Key
}
