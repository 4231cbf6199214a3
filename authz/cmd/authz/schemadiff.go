package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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

// types compares types, const, enum and readOnly.
func (v *schemaVerdict) types(where string, was, now *openapi3.Schema, s scope) {
	before, after := typesOf(was), typesOf(now)
	if weakens, tightens := !within(after, before), !within(before, after); weakens || tightens {
		v.note(where, "type "+typeNames(before)+" → "+typeNames(after), s, weakens, tightens)
	}
	one := func(value any) []string { return []string{compact(value)} }
	v.choice(where, "const", listed(was.Const, one), listed(now.Const, one), s)
	v.choice(where, "enum", values(was.Enum), values(now.Enum), s)
	if was.ReadOnly != now.ReadOnly {
		// A request must not contain a readOnly member, and need not, even if it is required.
		v.note(where, ternary(was.ReadOnly, "no longer readOnly", "now readOnly"), s, true, true)
	}
}

// typesOf returns the types that a schema accepts. integer is a part of number.
func typesOf(s *openapi3.Schema) []string {
	if s.Type == nil || len(*s.Type) == 0 {
		return []string{"any"}
	}
	all := slices.Clone(s.Type.Slice())
	if s.Nullable && !slices.Contains(all, "null") {
		all = append(all, "null")
	}
	return all
}

// within reports whether others include each of some types.
func within(some, others []string) bool {
	return others[0] == "any" || !slices.ContainsFunc(some, func(t string) bool {
		return !slices.Contains(others, t) && !(t == "integer" && slices.Contains(others, "number"))
	})
}

func typeNames(types []string) string {
	return strings.Join(slices.Sorted(slices.Values(types)), " or ")
}

func listed(value any, list func(any) []string) []string {
	if value == nil {
		return nil
	}
	return list(value)
}

func values(enum []any) (all []string) {
	for _, value := range enum {
		all = append(all, compact(value))
	}
	return all
}

// choice compares lists of accepted values; nil accepts all.
func (v *schemaVerdict) choice(where, keyword string, before, after []string, s scope) {
	lacks := func(list, other []string) []string {
		return slices.DeleteFunc(
			slices.Clone(list),
			func(v string) bool { return slices.Contains(other, v) },
		)
	}
	switch more, less := lacks(after, before), lacks(before, after); {
	case before == nil && after == nil:
	case before == nil:
		v.note(where, keyword+" added", s, false, true)
	case after == nil:
		v.note(where, keyword+" removed", s, true, false)
	case more != nil || less != nil:
		var parts []string
		if len(more) > 0 {
			parts = append(parts, "with "+strings.Join(more, ", "))
		}
		if len(less) > 0 {
			parts = append(parts, "without "+strings.Join(less, ", "))
		}
		if parts != nil {
			v.note(where, keyword+" "+strings.Join(parts, ", "), s, len(more) > 0, len(less) > 0)
		}
	}
}

// bounds compares numbers, lengths and counts.
func (v *schemaVerdict) bounds(where string, was, now *openapi3.Schema, s scope) {
	least := func(keyword string, before, after uint64) {
		if before != after {
			v.note(
				where,
				fmt.Sprintf("%s %d → %d", keyword, before, after),
				s,
				after < before,
				after > before,
			)
		}
	}
	most := func(keyword string, before, after *uint64) {
		v.limit(where, keyword, float(before), float(after), s)
	}
	least("minLength", was.MinLength, now.MinLength)
	most("maxLength", was.MaxLength, now.MaxLength)
	least("minItems", was.MinItems, now.MinItems)
	most("maxItems", was.MaxItems, now.MaxItems)
	least("minProperties", was.MinProps, now.MinProps)
	most("maxProperties", was.MaxProps, now.MaxProps)
	v.limit(where, "maximum", was.Max, now.Max, s)
	v.limit(where, "minimum", negative(was.Min), negative(now.Min), s)
	v.exclusive(where, "exclusiveMaximum", was.ExclusiveMax, now.ExclusiveMax, s, 1)
	v.exclusive(where, "exclusiveMinimum", was.ExclusiveMin, now.ExclusiveMin, s, -1)
	if b, a := was.MultipleOf, now.MultipleOf; b != nil && a != nil && *b != *a {
		v.note(where, fmt.Sprintf("multipleOf %v → %v", *b, *a), s, true, true)
	} else {
		v.presence(where, "multipleOf", b != nil, a != nil, s)
	}
	if was.UniqueItems != now.UniqueItems {
		v.presence(where, "uniqueItems", was.UniqueItems, now.UniqueItems, s)
	}
}

// presence compares a keyword that can only refuse values.
func (v *schemaVerdict) presence(where, keyword string, before, after bool, s scope) {
	if before != after {
		v.note(where, keyword+ternary(after, " added", " removed"), s, before, after)
	}
}

// limit compares an upper limit.
func (v *schemaVerdict) limit(where, keyword string, before, after *float64, s scope) {
	if before != nil && after != nil && *before != *after {
		from, to := *before, *after
		if keyword == "minimum" || keyword == "exclusiveMinimum" {
			from, to = -from, -to
		}
		v.note(
			where,
			fmt.Sprintf("%s %v → %v", keyword, from, to),
			s,
			*after > *before,
			*after < *before,
		)
		return
	}
	v.presence(where, keyword, before != nil, after != nil, s)
}

// exclusive compares exclusive limits: flags in 3.0, limits since 3.1. sign is -1 for lower limits.
func (v *schemaVerdict) exclusive(
	where, keyword string,
	before, after openapi3.ExclusiveBound,
	s scope,
	sign float64,
) {
	flag := func(b openapi3.ExclusiveBound) bool { return b.Bool != nil && *b.Bool }
	limit := func(b openapi3.ExclusiveBound) *float64 {
		if b.Value == nil {
			return nil
		}
		v := sign * *b.Value
		return &v
	}
	v.presence(where, keyword, flag(before), flag(after), s)
	v.limit(where, keyword, limit(before), limit(after), s)
}

func float(n *uint64) *float64 {
	if n == nil {
		return nil
	}
	f := float64(*n)
	return &f
}

func negative(n *float64) *float64 {
	if n == nil {
		return nil
	}
	f := -*n
	return &f
}

// strings compares patterns and formats.
func (v *schemaVerdict) strings(where string, d *diff.SchemaDiff, s scope) {
	for _, keyword := range []struct{ name, was, now string }{
		{"pattern", d.Base.Pattern, d.Revision.Pattern},
		{"format", d.Base.Format, d.Revision.Format},
	} {
		switch {
		case keyword.was == keyword.now:
		case keyword.was != "" && keyword.now != "":
			v.note(
				where,
				fmt.Sprintf("%s %s → %s", keyword.name, keyword.was, keyword.now),
				s,
				true,
				true,
			)
		default:
			v.presence(where, keyword.name, keyword.was != "", keyword.now != "", s)
		}
	}
}

// members compares the members of objects.
func (v *schemaVerdict) members(where string, d *diff.SchemaDiff, s scope) {
	was, now := d.Base, d.Revision
	if r := d.RequiredDiff; r != nil {
		for _, name := range r.Added {
			v.note(where+"."+name, "now required", s, false, true)
		}
		for _, name := range r.Deleted {
			v.note(where+"."+name, "no longer required", s, true, false)
		}
	}
	if p := d.PropertiesDiff; p != nil {
		for _, name := range slices.Sorted(slices.Values(p.Added)) {
			// If undescribed members are refused, the member is now accepted. If not, it is now
			// validated.
			refused := undescribed(was) == refuses
			v.note(
				where+"."+name,
				"described",
				s,
				s.closed || undescribed(was) != accepts,
				s.closed || !refused,
			)
		}
		for _, name := range slices.Sorted(slices.Values(p.Deleted)) {
			refused := undescribed(now) == refuses
			v.note(
				where+"."+name,
				"no longer described",
				s,
				s.closed || !refused,
				s.closed || undescribed(now) != accepts,
			)
		}
		for _, name := range slices.Sorted(maps.Keys(p.Modified)) {
			v.inner(where+"."+name, p.Modified[name], s)
		}
	}
	if before, after := undescribed(was), undescribed(now); before != after {
		v.note(
			where,
			"undescribed members: "+before+" → "+after,
			s,
			s.closed || before != accepts && after != refuses,
			s.closed || after != accepts && before != refuses,
		)
	} else if was.AdditionalProperties.Schema != nil && now.AdditionalProperties.Schema != nil {
		v.inner(where+".*", d.AdditionalPropertiesDiff, s)
	} else if s.closed && states(was) != states(now) {
		// additionalProperties: true accepts members, and unevaluatedProperties then ignores them.
		v.note(where, "additionalProperties: true added or removed", s, states(now), states(was))
	}
	if d.UnevaluatedPropertiesAllowedDiff != nil || d.UnevaluatedPropertiesDiff != nil {
		v.remainder(
			where,
			"unevaluatedProperties",
			was.UnevaluatedProperties,
			now.UnevaluatedProperties,
			s,
		)
	}
	if p := d.PatternPropertiesDiff; p != nil {
		for _, pattern := range slices.Sorted(slices.Values(slices.Concat(p.Added, p.Deleted))) {
			v.note(where, "patternProperties "+pattern+" added or removed", s, true, true)
		}
		for _, pattern := range slices.Sorted(maps.Keys(p.Modified)) {
			v.inner(where+".*", p.Modified[pattern], s)
		}
	}
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
	if p := d.DependentSchemasDiff; p != nil {
		v.note(where, "dependentSchemas differs", s, true, true)
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
	// The unevaluated… keywords of this schema depend on what its parts evaluate.
	branch := s
	branch.optional = s.optional || s.closed
	parts := func(keyword string, sub *diff.SubschemasDiff, addedWeakens, deletedWeakens,
		exact bool) {
		if sub == nil {
			return
		}
		either := s.closed || !exact
		for _, part := range sub.Added {
			v.note(
				where,
				keyword+" with "+partName(part),
				s,
				addedWeakens || either,
				!addedWeakens || either,
			)
		}
		for _, part := range sub.Deleted {
			v.note(
				where,
				keyword+" without "+partName(part),
				s,
				deletedWeakens || either,
				!deletedWeakens || either,
			)
		}
		for _, part := range sub.Modified {
			if exact {
				v.schema(where, part.Diff, ternary(keyword == "allOf", s, branch))
			} else {
				v.note(where, keyword+": "+partName(part.Revision)+" differs", s, true, true)
			}
		}
	}
	appears := func(keyword string, before, after bool) {
		v.note(
			where,
			keyword+ternary(after, " added", " removed"),
			s,
			before || s.closed,
			after || s.closed,
		)
	}
	parts("allOf", d.AllOfDiff, false, true, true)
	switch {
	case d.AnyOfDiff == nil:
	case len(d.Base.AnyOf) == 0 || len(d.Revision.AnyOf) == 0:
		appears("anyOf", len(d.Base.AnyOf) > 0, len(d.Revision.AnyOf) > 0)
	default:
		parts("anyOf", d.AnyOfDiff, true, false, true)
	}
	switch {
	case d.OneOfDiff == nil:
	case len(d.Base.OneOf) == 0 || len(d.Revision.OneOf) == 0:
		appears("oneOf", len(d.Base.OneOf) > 0, len(d.Revision.OneOf) > 0)
	default:
		// A value that matches two branches is refused, so a new branch can accept less. With a
		// discriminator, the branches exclude each other.
		exact := d.Base.Discriminator != nil && d.Revision.Discriminator != nil &&
			d.DiscriminatorDiff == nil
		parts("oneOf", d.OneOfDiff, true, false, exact)
	}
	if n := d.NotDiff; n != nil {
		switch {
		case n.SchemaAdded || n.SchemaDeleted:
			v.presence(where, "not", n.SchemaDeleted, n.SchemaAdded, s)
		default:
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
