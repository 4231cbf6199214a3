package schema

import (
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
)

// A readOnly member does not belong in a request, and a writeOnly member does not belong in a
// response (OpenAPI 3.1 §4.8.24, JSON Schema 2020-12 validation §9.4). Such a member is hidden: it
// is not required there, even if required and readOnly are in different parts of a composed schema.

// isHidden reports whether a member's schema hides it.
func (c *Compiler) isHidden(ref *openapi3.SchemaRef) bool {
	return hides(ref, c.options.Responses, map[*openapi3.Schema]bool{})
}

func hides(ref *openapi3.SchemaRef, responses bool, visited map[*openapi3.Schema]bool) bool {
	if ref == nil || ref.Value == nil || visited[ref.Value] {
		return false
	}
	s := ref.Value
	visited[s] = true
	if responses && s.WriteOnly || !responses && s.ReadOnly {
		return true
	}
	return slices.ContainsFunc(s.AllOf, func(part *openapi3.SchemaRef) bool {
		return hides(part, responses, visited)
	})
}

// hiddenMembers returns the members that a schema, or a part of its allOf, hides.
func (c *Compiler) hiddenMembers(
	s *openapi3.Schema, visited map[*openapi3.Schema]bool,
) (names []string) {
	if visited[s] {
		return nil
	}
	visited[s] = true
	for name, ref := range s.Properties {
		if c.isHidden(ref) {
			names = append(names, name)
		}
	}
	for _, part := range s.AllOf {
		if part != nil && part.Value != nil {
			names = append(names, c.hiddenMembers(part.Value, visited)...)
		}
	}
	return names
}

// requires reports whether a schema, or one that applies to the same value, requires a member.
func requires(s *openapi3.Schema, name string, visited map[*openapi3.Schema]bool) bool {
	if s == nil || visited[s] {
		return false
	}
	visited[s] = true
	if slices.Contains(s.Required, name) {
		return true
	}
	for _, others := range s.DependentRequired {
		if slices.Contains(others, name) {
			return true
		}
	}
	parts := slices.Concat(s.AllOf, s.AnyOf, s.OneOf, openapi3.SchemaRefs{s.Not, s.If, s.Then,
		s.Else})
	for _, ref := range s.DependentSchemas {
		parts = append(parts, ref)
	}
	return slices.ContainsFunc(parts, func(ref *openapi3.SchemaRef) bool {
		return ref != nil && requires(ref.Value, name, visited)
	})
}
