package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/diff"

	"github.com/oasgate/oasgate/authz"
)

// compareRequests compares what the requests of each pair may contain. The server holds requests to
// the document, so that a weaker schema lets in what was refused before.
func compareRequests(old, now *openapi3.T, pairs []pair) (changes []change, missed []uncompared) {
	c := requestComparison{
		was:  openapi3.Schemas{},
		now:  openapi3.Schemas{},
		same: sameness{known: map[[2]*openapi3.Schema]bool{}},
	}
	var differing []int
	for i, p := range pairs {
		c.places = append(c.places, nil)
		c.details = append(c.details, nil)
		c.add(i, p)
		if c.places[i] != nil || c.details[i] != nil {
			differing = append(differing, i)
		}
	}
	if differing == nil {
		return nil, nil
	}
	schemas, err := diff.Get(diff.NewConfig(), schemasOnly(c.was), schemasOnly(c.now))
	if err != nil {
		for _, i := range differing {
			missed = append(missed, uncompared{pairs[i].now.Method, pairs[i].now.Path, err.Error()})
		}
		return nil, missed
	}
	var modified diff.ModifiedSchemasMap
	if schemas != nil && schemas.ComponentsDiff != nil &&
		schemas.ComponentsDiff.SchemasDiff != nil {
		modified = schemas.ComponentsDiff.SchemasDiff.Modified
	}
	unknown := uncompilable(old, now, pairs, differing)
	for _, i := range differing {
		v := judge{}
		for _, place := range c.places[i] {
			v.schema(place.where, modified[place.key], scope{})
		}
		p := pairs[i]
		if problem := unknown[i]; problem != "" {
			v.unknown = append(v.unknown, problem)
		}
		for _, problem := range v.unknown {
			missed = append(missed, uncompared{p.now.Method, p.now.Path, problem})
		}
		change := p.change(changed)
		change.Details = append(c.details[i], v.details...)
		change.judge(looser, stricter)
		if change.Weakens || change.Tightens {
			changes = append(changes, change)
		}
	}
	return changes, missed
}

// requestComparison collects the schemas that two documents have for the same part of a request.
type requestComparison struct {
	was, now openapi3.Schemas // by a key that both share
	places   [][]place        // by pair
	details  [][]detail       // by pair: what is not a schema's
	same     sameness
}

// place is a part of a request and the key of its schemas.
type place struct{ where, key string }

// add adds the parts of a pair's requests that differ.
func (c *requestComparison) add(i int, p pair) {
	note := func(where, problem string, weakens, tightens bool) {
		c.details[i] = append(c.details[i], detail{where, problem, weakens, tightens})
	}
	before, after := p.old.parameters(), p.now.parameters()
	for _, key := range slices.Sorted(maps.Keys(after)) {
		a, b := after[key], before[key]
		where := a.In + " " + a.Name
		if b == nil {
			note(where, "added: its values are checked", false, true)
			continue
		}
		if a.Required != b.Required {
			note(where, was("required", b.Required, a.Required), b.Required, a.Required)
		}
		if decoding(a) != decoding(b) {
			note(where, decoding(b)+" → "+decoding(a), true, true)
		}
		c.schemas(i, where, b.Schema, a.Schema)
		c.content(i, where, b.Content, a.Content, note)
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if after[key] == nil {
			note(
				before[key].In+" "+before[key].Name,
				"removed: its values are no longer checked",
				true,
				false,
			)
		}
	}
	b, a := p.old.body(), p.now.body()
	switch {
	case a == nil && b == nil:
	case b == nil:
		note("body", "added: a body is accepted", true, a.Required)
	case a == nil:
		note("body", "removed: no body is accepted", b.Required, true)
	default:
		if a.Required != b.Required {
			note("body", was("required", b.Required, a.Required), b.Required, a.Required)
		}
		c.content(i, "body", b.Content, a.Content, note)
	}
}

func was(what string, before, after bool) string {
	switch {
	case before:
		return "no longer " + what
	case after:
		return "now " + what
	}
	return ""
}

// content compares bodies by media type.
func (c *requestComparison) content(
	i int,
	where string,
	before, after openapi3.Content,
	note func(string, string, bool, bool),
) {
	for _, media := range slices.Sorted(maps.Keys(after)) {
		if before[media] == nil {
			note(where, media+" is accepted", true, false)
			continue
		}
		at := where
		if len(after) > 1 {
			at += " (" + media + ")"
		}
		if after[media] != nil {
			c.schemas(i, at, before[media].Schema, after[media].Schema)
			if !c.same.same(before[media].Encoding, after[media].Encoding) {
				note(at, "another encoding of its parts", true, true)
			}
		}
	}
	for _, media := range slices.Sorted(maps.Keys(before)) {
		if after[media] == nil {
			note(where, media+" is no longer accepted", false, true)
		}
	}
}

// schemas adds a pair of schemas, unless they are the same. None lets in anything.
func (c *requestComparison) schemas(i int, where string, before, after *openapi3.SchemaRef) {
	if before == nil || before.Value == nil {
		before = &openapi3.SchemaRef{Value: &openapi3.Schema{}}
	}
	if after == nil || after.Value == nil {
		after = &openapi3.SchemaRef{Value: &openapi3.Schema{}}
	}
	if c.same.same(before.Value, after.Value) {
		return
	}
	key := strconv.Itoa(len(c.was))
	c.was[key], c.now[key] = before, after
	c.places[i] = append(c.places[i], place{where, key})
}

// parameters returns the parameters of an operation, those of its path included. Path parameters
// are known by their position: their names are not seen in a request.
func (o operation) parameters() map[string]*openapi3.Parameter {
	all := map[string]*openapi3.Parameter{}
	inPath := parameter.FindAllString(o.Path, -1)
	for _, ref := range slices.Concat(o.item.Parameters, o.spec.Parameters) {
		if ref == nil || ref.Value == nil {
			continue
		}
		p := ref.Value
		key := p.In + " " + p.Name
		switch p.In {
		case openapi3.ParameterInPath:
			key = fmt.Sprint("path ", slices.Index(inPath, "{"+p.Name+"}"))
		case openapi3.ParameterInHeader:
			key = strings.ToLower(key)
		}
		all[key] = p
	}
	return all
}

func (o operation) body() *openapi3.RequestBody {
	if o.spec.RequestBody == nil {
		return nil
	}
	return o.spec.RequestBody.Value
}

// decoding says how the values of a parameter are read.
func decoding(p *openapi3.Parameter) string {
	method, err := p.SerializationMethod()
	if err != nil {
		return p.Style
	}
	text := "style " + method.Style
	if method.Explode {
		text += ", exploded"
	}
	if p.AllowEmptyValue {
		text += ", may be empty"
	}
	return text
}

func schemasOnly(schemas openapi3.Schemas) *openapi3.T {
	return &openapi3.T{
		OpenAPI: "3.1.0", Info: &openapi3.Info{}, Paths: openapi3.NewPaths(),
		Components: &openapi3.Components{Schemas: schemas},
	}
}

// uncompilable returns, for pairs whose requests differ, why one of the two could not be enforced:
// what such a schema lets in is not known.
func uncompilable(old, now *openapi3.T, pairs []pair, differing []int) map[int]string {
	problems := map[int]string{}
	for _, side := range []struct {
		doc *openapi3.T
		of  func(pair) operation
	}{
		{old, func(p pair) operation { return p.old }},
		{now, func(p pair) operation { return p.now }},
	} {
		paths := openapi3.NewPaths()
		at := map[string]int{}
		for _, i := range differing {
			o := side.of(pairs[i])
			// The prefix tells paths apart that differ in the names of their parameters only.
			path := fmt.Sprintf("/%d%s", i, o.Path)
			at[path] = i
			only := *o.spec
			only.Security, only.Extensions = openapi3.NewSecurityRequirements(), nil
			only.OperationID = fmt.Sprint("o", i)
			item := &openapi3.PathItem{Parameters: o.item.Parameters}
			item.SetOperation(o.Method, &only)
			paths.Set(path, item)
		}
		part := *side.doc
		part.Paths = paths
		_, err := authz.Compile(&part)
		for _, fault := range faultsOf(err) {
			if i, ok := at[fault.Path]; ok {
				problems[i] = fault.Problem
			}
		}
	}
	return problems
}

// sameness remembers which schemas have been found the same, or are being compared.
type sameness struct {
	known map[[2]*openapi3.Schema]bool
	// assumed are the pairs found the same in the present comparison. Schemas that hold each other
	// are the same if assuming so contradicts nothing, so that one difference refutes them all.
	assumed [][2]*openapi3.Schema
}

// same reports whether two parts of documents have the same meaning for a request, wherever they
// stand and however they are referred to.
func (s *sameness) same(a, b any) bool {
	s.assumed = nil
	equal := s.equal(reflect.ValueOf(a), reflect.ValueOf(b))
	if !equal {
		for _, pair := range s.assumed {
			delete(s.known, pair)
		}
	}
	return equal
}

func (s *sameness) equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
		if x, ok := a.Interface().(*openapi3.Schema); ok {
			pair := [2]*openapi3.Schema{x, b.Interface().(*openapi3.Schema)}
			if known, ok := s.known[pair]; ok {
				return known
			}
			s.known[pair] = true
			s.assumed = append(s.assumed, pair)
			return s.equal(a.Elem(), b.Elem())
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return s.equal(a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			field := a.Type().Field(i)
			if field.IsExported() && !irrelevant[field.Name] && !s.equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !s.equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, key := range a.MapKeys() {
			other := b.MapIndex(key)
			if !other.IsValid() || !s.equal(a.MapIndex(key), other) {
				return false
			}
		}
		return true
	case reflect.Interface:
		return compact(a.Interface()) == compact(b.Interface()) // numbers differ by parser
	}
	return a.Equal(b)
}

// irrelevant are the fields of a document that say nothing of what a request may contain.
var irrelevant = map[string]bool{
	"Origin": true, "Ref": true, "RefPath": true, "Extensions": true, "Title": true,
	"Description": true,
	"Default":     true, "Example": true, "Examples": true, "ExternalDocs": true, "XML": true,
	"Deprecated": true,
	"Comment":    true, "Defs": true,
}

// judge finds out in which direction a schema has changed: whether it lets in what it refused
// before, refuses what it let in, or both. Where that cannot be told it says both.
type judge struct {
	details []detail
	unknown []string
}

// scope is what surrounds a schema.
type scope struct {
	inverted bool // an odd number of not around it
	// closed: something around it refuses members or items that no part of the schema has
	// evaluated, so that a part which describes more lets in more.
	closed bool
	// optional: a part of anyOf or oneOf in a closed schema. Whether it matches decides what it
	// evaluates.
	optional bool
}

// inside is the scope of a value within the value.
func (s scope) inside() scope { return scope{inverted: s.inverted} }

func (j *judge) note(where, problem string, s scope, weakens, tightens bool) {
	if s.inverted {
		weakens, tightens = tightens, weakens
	}
	if s.optional {
		weakens, tightens = true, true
	}
	j.details = append(j.details, detail{where, problem, weakens, tightens})
}

// schema judges the difference between two schemas.
func (j *judge) schema(where string, d *diff.SchemaDiff, s scope) {
	if d == nil {
		return
	}
	if d.SchemaAdded {
		j.note(where, "now checked by a schema", s, s.closed, true)
		return
	}
	if d.SchemaDeleted {
		j.note(where, "no longer checked by a schema", s, true, s.closed)
		return
	}
	was, now := d.Base, d.Revision
	s.closed = s.closed || closesUnevaluated(was) || closesUnevaluated(now)
	j.boolean(where, d, s)
	j.types(where, was, now, s)
	j.bounds(where, was, now, s)
	j.strings(where, d, s)
	j.members(where, d, s)
	j.items(where, d, s)
	j.combined(where, d, s)
	if d.SchemaIDDiff != nil || d.AnchorDiff != nil || d.DynamicRefDiff != nil ||
		d.DynamicAnchorDiff != nil ||
		d.SchemaDialectDiff != nil {
		j.unknown = append(
			j.unknown,
			where+": $id, $anchor, $dynamicRef, $dynamicAnchor or $schema differs",
		)
	}
}

// inner judges the schema of values within the value.
func (j *judge) inner(where string, d *diff.SchemaDiff, s scope) {
	if d != nil && (d.SchemaAdded || d.SchemaDeleted) {
		j.schema(where, d, s)
	} else {
		j.schema(where, d, s.inside())
	}
}

func closesUnevaluated(s *openapi3.Schema) bool {
	return s.UnevaluatedProperties.Has != nil || s.UnevaluatedProperties.Schema != nil ||
		s.UnevaluatedItems.Has != nil || s.UnevaluatedItems.Schema != nil
}

// boolean judges schemas that are written true or false.
func (j *judge) boolean(where string, d *diff.SchemaDiff, s scope) {
	if d.AlwaysDiff == nil {
		return
	}
	never := func(s *openapi3.Schema) bool { return s.Always != nil && !*s.Always }
	switch {
	case never(d.Base) && !never(d.Revision):
		j.note(where, "no longer forbidden", s, true, false)
	case never(d.Revision) && !never(d.Base):
		j.note(where, "now forbidden", s, false, true)
	}
}

// types judges the types of a value, and what it may be one of.
func (j *judge) types(where string, was, now *openapi3.Schema, s scope) {
	before, after := typesOf(was), typesOf(now)
	if weakens, tightens := !within(after, before), !within(before, after); weakens || tightens {
		j.note(where, "type "+typeNames(before)+" → "+typeNames(after), s, weakens, tightens)
	}
	one := func(value any) []string { return []string{compact(value)} }
	j.choice(where, "const", listed(was.Const, one), listed(now.Const, one), s)
	j.choice(where, "enum", values(was.Enum), values(now.Enum), s)
	if was.ReadOnly != now.ReadOnly {
		// In a request, a member that is readOnly is refused, and is not asked for if it is
		// required.
		j.note(where, ternary(was.ReadOnly, "no longer readOnly", "now readOnly"), s, true, true)
	}
}

// typesOf returns the types that a schema lets in; integer is a part of number.
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

// within reports whether each of some types is one of others.
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

// choice judges a list of the values that are let in; none lets in all.
func (j *judge) choice(where, keyword string, before, after []string, s scope) {
	lacks := func(list, other []string) []string {
		return slices.DeleteFunc(
			slices.Clone(list),
			func(v string) bool { return slices.Contains(other, v) },
		)
	}
	switch more, less := lacks(after, before), lacks(before, after); {
	case before == nil && after == nil:
	case before == nil:
		j.note(where, keyword+" added", s, false, true)
	case after == nil:
		j.note(where, keyword+" removed", s, true, false)
	case more != nil || less != nil:
		var parts []string
		if len(more) > 0 {
			parts = append(parts, "with "+strings.Join(more, ", "))
		}
		if len(less) > 0 {
			parts = append(parts, "without "+strings.Join(less, ", "))
		}
		if parts != nil {
			j.note(where, keyword+" "+strings.Join(parts, ", "), s, len(more) > 0, len(less) > 0)
		}
	}
}

// bounds judges numbers, lengths and counts.
func (j *judge) bounds(where string, was, now *openapi3.Schema, s scope) {
	least := func(keyword string, before, after uint64) {
		if before != after {
			j.note(
				where,
				fmt.Sprintf("%s %d → %d", keyword, before, after),
				s,
				after < before,
				after > before,
			)
		}
	}
	most := func(keyword string, before, after *uint64) {
		j.limit(where, keyword, float(before), float(after), s)
	}
	least("minLength", was.MinLength, now.MinLength)
	most("maxLength", was.MaxLength, now.MaxLength)
	least("minItems", was.MinItems, now.MinItems)
	most("maxItems", was.MaxItems, now.MaxItems)
	least("minProperties", was.MinProps, now.MinProps)
	most("maxProperties", was.MaxProps, now.MaxProps)
	j.limit(where, "maximum", was.Max, now.Max, s)
	j.limit(where, "minimum", negative(was.Min), negative(now.Min), s)
	j.exclusive(where, "exclusiveMaximum", was.ExclusiveMax, now.ExclusiveMax, s, 1)
	j.exclusive(where, "exclusiveMinimum", was.ExclusiveMin, now.ExclusiveMin, s, -1)
	if b, a := was.MultipleOf, now.MultipleOf; b != nil && a != nil && *b != *a {
		j.note(where, fmt.Sprintf("multipleOf %v → %v", *b, *a), s, true, true)
	} else {
		j.presence(where, "multipleOf", b != nil, a != nil, s)
	}
	if was.UniqueItems != now.UniqueItems {
		j.presence(where, "uniqueItems", was.UniqueItems, now.UniqueItems, s)
	}
}

// presence judges a keyword that refuses something where it stands.
func (j *judge) presence(where, keyword string, before, after bool, s scope) {
	if before != after {
		j.note(where, keyword+ternary(after, " added", " removed"), s, before, after)
	}
}

// limit judges an upper limit.
func (j *judge) limit(where, keyword string, before, after *float64, s scope) {
	if before != nil && after != nil && *before != *after {
		from, to := *before, *after
		if keyword == "minimum" || keyword == "exclusiveMinimum" {
			from, to = -from, -to
		}
		j.note(
			where,
			fmt.Sprintf("%s %v → %v", keyword, from, to),
			s,
			*after > *before,
			*after < *before,
		)
		return
	}
	j.presence(where, keyword, before != nil, after != nil, s)
}

// exclusive judges exclusive limits: a flag in 3.0, a limit of its own since. sign is -1 for a
// lower one.
func (j *judge) exclusive(
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
	j.presence(where, keyword, flag(before), flag(after), s)
	j.limit(where, keyword, limit(before), limit(after), s)
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

// strings judges what is said of strings beyond their length.
func (j *judge) strings(where string, d *diff.SchemaDiff, s scope) {
	for _, keyword := range []struct{ name, was, now string }{
		{"pattern", d.Base.Pattern, d.Revision.Pattern},
		{"format", d.Base.Format, d.Revision.Format},
	} {
		switch {
		case keyword.was == keyword.now:
		case keyword.was != "" && keyword.now != "":
			j.note(
				where,
				fmt.Sprintf("%s %s → %s", keyword.name, keyword.was, keyword.now),
				s,
				true,
				true,
			)
		default:
			j.presence(where, keyword.name, keyword.was != "", keyword.now != "", s)
		}
	}
}

// members judges the members of objects.
func (j *judge) members(where string, d *diff.SchemaDiff, s scope) {
	was, now := d.Base, d.Revision
	if r := d.RequiredDiff; r != nil {
		for _, name := range r.Added {
			j.note(where+"."+name, "now required", s, false, true)
		}
		for _, name := range r.Deleted {
			j.note(where+"."+name, "no longer required", s, true, false)
		}
	}
	if p := d.PropertiesDiff; p != nil {
		for _, name := range slices.Sorted(slices.Values(p.Added)) {
			// Where undescribed members are refused, it is let in; where they are not, it is now
			// checked.
			refused := undescribed(was) == refuses
			j.note(
				where+"."+name,
				"described",
				s,
				s.closed || undescribed(was) != accepts,
				s.closed || !refused,
			)
		}
		for _, name := range slices.Sorted(slices.Values(p.Deleted)) {
			refused := undescribed(now) == refuses
			j.note(
				where+"."+name,
				"no longer described",
				s,
				s.closed || !refused,
				s.closed || undescribed(now) != accepts,
			)
		}
		for _, name := range slices.Sorted(maps.Keys(p.Modified)) {
			j.inner(where+"."+name, p.Modified[name], s)
		}
	}
	if before, after := undescribed(was), undescribed(now); before != after {
		j.note(
			where,
			"undescribed members: "+before+" → "+after,
			s,
			s.closed || before != accepts && after != refuses,
			s.closed || after != accepts && before != refuses,
		)
	} else if was.AdditionalProperties.Schema != nil && now.AdditionalProperties.Schema != nil {
		j.inner(where+".*", d.AdditionalPropertiesDiff, s)
	} else if s.closed && states(was) != states(now) {
		// additionalProperties: true accepts members, which unevaluatedProperties then passes over.
		j.note(where, "additionalProperties: true added or removed", s, states(now), states(was))
	}
	if d.UnevaluatedPropertiesAllowedDiff != nil || d.UnevaluatedPropertiesDiff != nil {
		j.remainder(
			where,
			"unevaluatedProperties",
			was.UnevaluatedProperties,
			now.UnevaluatedProperties,
			s,
		)
	}
	if p := d.PatternPropertiesDiff; p != nil {
		for _, pattern := range slices.Sorted(slices.Values(slices.Concat(p.Added, p.Deleted))) {
			j.note(where, "patternProperties "+pattern+" added or removed", s, true, true)
		}
		for _, pattern := range slices.Sorted(maps.Keys(p.Modified)) {
			j.inner(where+".*", p.Modified[pattern], s)
		}
	}
	j.inner(where+" (names)", d.PropertyNamesDiff, s)
	if r := d.DependentRequiredDiff; r != nil {
		j.note(
			where,
			"dependentRequired differs",
			s,
			len(r.Deleted)+len(r.Modified) > 0,
			len(r.Added)+len(r.Modified) > 0,
		)
	}
	if p := d.DependentSchemasDiff; p != nil {
		j.note(where, "dependentSchemas differs", s, true, true)
	}
}

// What an object schema does with members that it does not describe.
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

// remainder judges unevaluatedProperties and unevaluatedItems.
func (j *judge) remainder(where, keyword string, was, now openapi3.BoolSchema, s scope) {
	says := func(b openapi3.BoolSchema) string {
		return undescribed(&openapi3.Schema{AdditionalProperties: openapi3.AdditionalProperties(b)})
	}
	before, after := says(was), says(now)
	if before == after { // both by a schema
		j.note(where, keyword+" differs", s, true, true)
		return
	}
	j.note(
		where,
		keyword+": "+before+" → "+after,
		s,
		before != accepts && after != refuses,
		after != accepts && before != refuses,
	)
}

// items judges the items of arrays.
func (j *judge) items(where string, d *diff.SchemaDiff, s scope) {
	j.inner(where+"[]", d.ItemsDiff, s)
	if d.PrefixItemsDiff != nil {
		j.note(where, "prefixItems differs", s, true, true)
	}
	counted := d.Base.MaxContains != nil || d.Revision.MaxContains != nil ||
		(d.Base.MinContains != nil) != (d.Revision.MinContains != nil) || d.MinContainsDiff != nil
	switch {
	case d.ContainsDiff == nil && d.MinContainsDiff == nil && d.MaxContainsDiff == nil:
	case counted:
		j.note(where, "contains differs", s, true, true)
	default:
		j.inner(where+" (contains)", d.ContainsDiff, s)
	}
	if d.UnevaluatedItemsAllowedDiff != nil || d.UnevaluatedItemsDiff != nil {
		j.remainder(
			where,
			"unevaluatedItems",
			d.Base.UnevaluatedItems,
			d.Revision.UnevaluatedItems,
			s,
		)
	}
}

// combined judges schemas that are made of schemas for the same value.
func (j *judge) combined(where string, d *diff.SchemaDiff, s scope) {
	// Other parts see members and items of which this schema's own unevaluated… depends.
	branch := s
	branch.optional = s.optional || s.closed
	parts := func(keyword string, sub *diff.SubschemasDiff, addedWeakens, deletedWeakens,
		exact bool) {
		if sub == nil {
			return
		}
		either := s.closed || !exact
		for _, part := range sub.Added {
			j.note(
				where,
				keyword+" with "+partName(part),
				s,
				addedWeakens || either,
				!addedWeakens || either,
			)
		}
		for _, part := range sub.Deleted {
			j.note(
				where,
				keyword+" without "+partName(part),
				s,
				deletedWeakens || either,
				!deletedWeakens || either,
			)
		}
		for _, part := range sub.Modified {
			if exact {
				j.schema(where, part.Diff, ternary(keyword == "allOf", s, branch))
			} else {
				j.note(where, keyword+": "+partName(part.Revision)+" differs", s, true, true)
			}
		}
	}
	appears := func(keyword string, before, after bool) {
		j.note(
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
		// A value that fits two branches is refused, so that more may be less. With a discriminator
		// the branches exclude each other.
		exact := d.Base.Discriminator != nil && d.Revision.Discriminator != nil &&
			d.DiscriminatorDiff == nil
		parts("oneOf", d.OneOfDiff, true, false, exact)
	}
	if n := d.NotDiff; n != nil {
		switch {
		case n.SchemaAdded || n.SchemaDeleted:
			j.presence(where, "not", n.SchemaDeleted, n.SchemaAdded, s)
		default:
			j.schema(where+" (not)", n, scope{inverted: !s.inverted})
		}
	}
	if d.IfDiff != nil {
		j.note(where, "if differs", s, true, true)
	} else {
		j.schema(where+" (then)", d.ThenDiff, s)
		j.schema(where+" (else)", d.ElseDiff, s)
	}
	if d.DiscriminatorDiff != nil {
		j.note(where, "discriminator differs", s, true, true)
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
