package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/diff"
)

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
