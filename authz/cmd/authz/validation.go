package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oasdiff/oasdiff/diff"

	"github.com/oasgate/oasgate/authz"
)

// compareRequests compares what the requests of each pair may contain. The server validates
// requests, so a weaker schema accepts what was refused before.
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
		v := schemaVerdict{}
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
		change.decide(looser, stricter)
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
				note(at, "encoding differs", true, true)
			}
		}
	}
	for _, media := range slices.Sorted(maps.Keys(before)) {
		if after[media] == nil {
			note(where, media+" is no longer accepted", false, true)
		}
	}
}

// schemas adds a pair of schemas, unless they are the same. A missing schema accepts anything.
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

// parameters returns the parameters of an operation, including those of its path. Path parameters
// are identified by position, because requests do not show their names.
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

// decoding describes how the values of a parameter are parsed.
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

// uncompilable returns, for pairs whose requests differ, why one of the two cannot be enforced. It
// is not known what such a schema accepts.
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
			// The prefix separates paths that differ only in parameter names.
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
