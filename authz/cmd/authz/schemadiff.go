package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/diff"
)

// schemaVerdict says in which direction a schema has changed: it accepts what it rejected before,
// rejects what it accepted, or both. If the direction is not known, it is both.
type schemaVerdict struct {
	details []detail
	unknown []string
}

// scope describes what surrounds a schema.
type scope struct {
	inverted bool // an odd number of not around it
	// closed: a surrounding schema refuses members or items that no part has evaluated, so a part
	// that describes more accepts more.
	closed bool
	// optional: the schema is a part of anyOf or oneOf in a closed schema. What it evaluates
	// depends on whether it matches.
	optional bool
}

// inside returns the scope of a member or an item.
func (s scope) inside() scope { return scope{inverted: s.inverted} }

func (v *schemaVerdict) note(where, problem string, s scope, weakens, tightens bool) {
	if s.inverted {
		weakens, tightens = tightens, weakens
	}
	if s.optional {
		weakens, tightens = true, true
	}
	v.details = append(v.details, detail{where, problem, weakens, tightens})
}

// schema compares the difference between two schemas.
func (v *schemaVerdict) schema(where string, d *diff.SchemaDiff, s scope) {
	if d == nil {
		return
	}
	if d.SchemaAdded {
		v.note(where, "now checked by a schema", s, s.closed, true)
		return
	}
	if d.SchemaDeleted {
		v.note(where, "no longer checked by a schema", s, true, s.closed)
		return
	}
	was, now := d.Base, d.Revision
	s.closed = s.closed || closesUnevaluated(was) || closesUnevaluated(now)
	v.boolean(where, d, s)
	v.types(where, was, now, s)
	v.bounds(where, was, now, s)
	v.strings(where, d, s)
	v.members(where, d, s)
	v.items(where, d, s)
	v.combined(where, d, s)
	if d.SchemaIDDiff != nil || d.AnchorDiff != nil || d.DynamicRefDiff != nil ||
		d.DynamicAnchorDiff != nil ||
		d.SchemaDialectDiff != nil {
		v.unknown = append(
			v.unknown,
			where+": $id, $anchor, $dynamicRef, $dynamicAnchor or $schema differs",
		)
	}
}

// inner compares the schemas of members or items.
func (v *schemaVerdict) inner(where string, d *diff.SchemaDiff, s scope) {
	if d != nil && (d.SchemaAdded || d.SchemaDeleted) {
		v.schema(where, d, s)
	} else {
		v.schema(where, d, s.inside())
	}
}

func closesUnevaluated(s *openapi3.Schema) bool {
	return s.UnevaluatedProperties.Has != nil || s.UnevaluatedProperties.Schema != nil ||
		s.UnevaluatedItems.Has != nil || s.UnevaluatedItems.Schema != nil
}

// boolean compares schemas that are written true or false.
func (v *schemaVerdict) boolean(where string, d *diff.SchemaDiff, s scope) {
	if d.AlwaysDiff == nil {
		return
	}
	never := func(s *openapi3.Schema) bool { return s.Always != nil && !*s.Always }
	switch {
	case never(d.Base) && !never(d.Revision):
		v.note(where, "no longer forbidden", s, true, false)
	case never(d.Revision) && !never(d.Base):
		v.note(where, "now forbidden", s, false, true)
	}
}

// members compares the members of objects.
func (v *schemaVerdict) members(where string, d *diff.SchemaDiff, s scope) {
	v.required(where, d.RequiredDiff, s)
	v.properties(where, d, s)
	v.undescribedMembers(where, d, s)
	if d.UnevaluatedPropertiesAllowedDiff != nil || d.UnevaluatedPropertiesDiff != nil {
		v.remainder(
			where,
			"unevaluatedProperties",
			d.Base.UnevaluatedProperties,
			d.Revision.UnevaluatedProperties,
			s,
		)
	}
	v.patternProperties(where, d.PatternPropertiesDiff, s)
	v.inner(where+" (names)", d.PropertyNamesDiff, s)
	if r := d.DependentRequiredDiff; r != nil {
		v.note(
			where,
			"dependentRequired differs",
			s,
			len(r.Deleted)+len(r.Modified) > 0,
			len(r.Added)+len(r.Modified) > 0,
		)
	}
	if d.DependentSchemasDiff != nil {
		v.note(where, "dependentSchemas differs", s, true, true)
	}
}

func (v *schemaVerdict) required(where string, d *diff.RequiredPropertiesDiff, s scope) {
	if d == nil {
		return
	}
	for _, name := range d.Added {
		v.note(where+"."+name, "now required", s, false, true)
	}
	for _, name := range d.Deleted {
		v.note(where+"."+name, "no longer required", s, true, false)
	}
}

// properties compares the members that schemas describe. A member that one schema does not describe
// is refused, accepted or checked there like every other such member.
func (v *schemaVerdict) properties(where string, d *diff.SchemaDiff, s scope) {
	p := d.PropertiesDiff
	if p == nil {
		return
	}
	before, after := undescribed(d.Base), undescribed(d.Revision)
	for _, name := range slices.Sorted(slices.Values(p.Added)) {
		v.note(where+"."+name, "described", s, s.closed || before != accepts,
			s.closed || before != refuses)
	}
	for _, name := range slices.Sorted(slices.Values(p.Deleted)) {
		v.note(where+"."+name, "no longer described", s, s.closed || after != refuses,
			s.closed || after != accepts)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Modified)) {
		v.inner(where+"."+name, p.Modified[name], s)
	}
}

// undescribedMembers compares additionalProperties.
func (v *schemaVerdict) undescribedMembers(where string, d *diff.SchemaDiff, s scope) {
	was, now := d.Base, d.Revision
	before, after := undescribed(was), undescribed(now)
	switch {
	case before != after:
		v.note(
			where,
			"undescribed members: "+before+" → "+after,
			s,
			s.closed || before != accepts && after != refuses,
			s.closed || after != accepts && before != refuses,
		)
	case before == checks:
		v.inner(where+".*", d.AdditionalPropertiesDiff, s)
	case s.closed && states(was) != states(now):
		// additionalProperties: true accepts members, and unevaluatedProperties then ignores them.
		v.note(where, "additionalProperties: true added or removed", s, states(now), states(was))
	}
}

func (v *schemaVerdict) patternProperties(where string, d *diff.SchemasDiff, s scope) {
	if d == nil {
		return
	}
	for _, pattern := range slices.Sorted(slices.Values(slices.Concat(d.Added, d.Deleted))) {
		v.note(where, "patternProperties "+pattern+" added or removed", s, true, true)
	}
	for _, pattern := range slices.Sorted(maps.Keys(d.Modified)) {
		v.inner(where+".*", d.Modified[pattern], s)
	}
}

// These say what an object schema does with members that it does not describe.
const (
	accepts = "accepted"
	refuses = "refused"
	checks  = "checked by a schema"
)

func undescribed(s *openapi3.Schema) string {
	switch {
	case s.AdditionalProperties.Schema != nil:
		return checks
	case s.AdditionalProperties.Has != nil && !*s.AdditionalProperties.Has:
		return refuses
	}
	return accepts
}

// states reports whether a schema has additionalProperties.
func states(s *openapi3.Schema) bool {
	return s.AdditionalProperties.Has != nil || s.AdditionalProperties.Schema != nil
}

// remainder compares unevaluatedProperties and unevaluatedItems.
func (v *schemaVerdict) remainder(where, keyword string, was, now openapi3.BoolSchema, s scope) {
	says := func(b openapi3.BoolSchema) string {
		return undescribed(&openapi3.Schema{AdditionalProperties: openapi3.AdditionalProperties(b)})
	}
	before, after := says(was), says(now)
	if before == after { // both by a schema
		v.note(where, keyword+" differs", s, true, true)
		return
	}
	v.note(
		where,
		keyword+": "+before+" → "+after,
		s,
		before != accepts && after != refuses,
		after != accepts && before != refuses,
	)
}

// items compares the items of arrays.
func (v *schemaVerdict) items(where string, d *diff.SchemaDiff, s scope) {
	v.inner(where+"[]", d.ItemsDiff, s)
	if d.PrefixItemsDiff != nil {
		v.note(where, "prefixItems differs", s, true, true)
	}
	counted := d.Base.MaxContains != nil || d.Revision.MaxContains != nil ||
		(d.Base.MinContains != nil) != (d.Revision.MinContains != nil) || d.MinContainsDiff != nil
	switch {
	case d.ContainsDiff == nil && d.MinContainsDiff == nil && d.MaxContainsDiff == nil:
	case counted:
		v.note(where, "contains differs", s, true, true)
	default:
		v.inner(where+" (contains)", d.ContainsDiff, s)
	}
	if d.UnevaluatedItemsAllowedDiff != nil || d.UnevaluatedItemsDiff != nil {
		v.remainder(
			where,
			"unevaluatedItems",
			d.Base.UnevaluatedItems,
			d.Revision.UnevaluatedItems,
			s,
		)
	}
}

// combined compares allOf, anyOf, oneOf, not, if and discriminator.
func (v *schemaVerdict) combined(where string, d *diff.SchemaDiff, s scope) {
	v.parts(where, "allOf", d.AllOfDiff, true, s)
	v.alternatives(where, "anyOf", d.AnyOfDiff, d.Base.AnyOf, d.Revision.AnyOf, true, s)
	// A value that matches two branches of oneOf is refused, so a new branch can accept less. With
	// a discriminator, the branches exclude each other.
	exclusive := d.Base.Discriminator != nil && d.Revision.Discriminator != nil &&
		d.DiscriminatorDiff == nil
	v.alternatives(where, "oneOf", d.OneOfDiff, d.Base.OneOf, d.Revision.OneOf, exclusive, s)
	if n := d.NotDiff; n != nil {
		if n.SchemaAdded || n.SchemaDeleted {
			v.presence(where, "not", n.SchemaDeleted, n.SchemaAdded, s)
		} else {
			v.schema(where+" (not)", n, scope{inverted: !s.inverted})
		}
	}
	if d.IfDiff != nil {
		v.note(where, "if differs", s, true, true)
	} else {
		v.schema(where+" (then)", d.ThenDiff, s)
		v.schema(where+" (else)", d.ElseDiff, s)
	}
	if d.DiscriminatorDiff != nil {
		v.note(where, "discriminator differs", s, true, true)
	}
}

// alternatives compares anyOf or oneOf. Without any alternative, the keyword accepts all values.
func (v *schemaVerdict) alternatives(
	where, keyword string,
	d *diff.SubschemasDiff,
	was, now openapi3.SchemaRefs,
	exact bool,
	s scope,
) {
	switch before, after := len(was) > 0, len(now) > 0; {
	case d == nil:
	case before && after:
		v.parts(where, keyword, d, exact, s)
	default:
		v.note(where, keyword+ternary(after, " added", " removed"), s, before || s.closed,
			after || s.closed)
	}
}

// parts compares the parts of allOf, anyOf or oneOf. exact means that the whole never accepts less
// when a part accepts more.
func (v *schemaVerdict) parts(
	where, keyword string,
	d *diff.SubschemasDiff,
	exact bool,
	s scope,
) {
	if d == nil {
		return
	}
	narrows := keyword == "allOf" // another part makes allOf accept less, and the others more
	either := s.closed || !exact
	for _, part := range d.Added {
		v.note(where, keyword+" with "+partName(part), s, !narrows || either, narrows || either)
	}
	for _, part := range d.Deleted {
		v.note(where, keyword+" without "+partName(part), s, narrows || either, !narrows || either)
	}
	// The unevaluated… keywords of this schema depend on what its parts evaluate.
	s.optional = s.optional || s.closed && !narrows
	for _, part := range d.Modified {
		if exact {
			v.schema(where, part.Diff, s)
		} else {
			v.note(where, keyword+": "+partName(part.Revision)+" differs", s, true, true)
		}
	}
}

func partName(part diff.Subschema) string {
	switch {
	case part.Component != "":
		return part.Component
	case part.Title != "":
		return part.Title
	}
	return fmt.Sprint("part ", part.Index+1)
}

func ternary[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}
