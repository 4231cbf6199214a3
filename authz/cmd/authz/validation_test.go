package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// randomSchema returns a schema of the keywords that documents use.
func randomSchema(r *rand.Rand, depth int) object {
	s := object{}
	maybe := func(chance int, keyword string, value func() any) {
		if r.IntN(chance) == 0 {
			s[keyword] = value()
		}
	}
	small := func() any { return r.IntN(4) }
	inner := func() any { return randomSchema(r, depth-1) }
	list := func() any { return []any{inner(), inner()}[:1+r.IntN(2)] }
	maybe(2, "type", func() any {
		return []any{"string", "integer", "number", "object", "array", []string{"string", "null"},
			[]string{"object", "integer"}}[r.IntN(7)]
	})
	maybe(8, "enum", func() any { return []any{"a", 1, nil, "bbb"}[r.IntN(3):] })
	maybe(12, "const", func() any { return []any{"a", 1, nil}[r.IntN(3)] })
	maybe(6, "minLength", small)
	maybe(6, "maxLength", small)
	maybe(8, "pattern", func() any { return []any{"^a", "b$"}[r.IntN(2)] })
	maybe(6, "minimum", small)
	maybe(6, "maximum", small)
	maybe(8, "exclusiveMaximum", small)
	maybe(8, "exclusiveMinimum", small)
	maybe(10, "multipleOf", func() any { return 1 + r.IntN(3) })
	maybe(8, "minItems", small)
	maybe(8, "maxItems", small)
	maybe(8, "uniqueItems", func() any { return true })
	maybe(6, "required", func() any { return []any{"a", "b"}[r.IntN(2):] })
	maybe(8, "minProperties", small)
	maybe(8, "maxProperties", small)
	maybe(10, "dependentRequired", func() any { return object{"a": []string{"b"}} })
	maybe(4, "additionalProperties", func() any { return r.IntN(2) == 0 })
	maybe(10, "unevaluatedProperties", func() any { return false })
	if depth > 0 {
		maybe(3, "properties", func() any {
			return []any{object{"a": inner(), "b": inner()}, object{"a": inner()},
				object{"b": inner()}}[r.IntN(3)]
		})
		maybe(10, "additionalProperties", inner)
		maybe(10, "patternProperties", func() any { return object{"^a": inner()} })
		maybe(10, "propertyNames", func() any { return object{"maxLength": r.IntN(3)} })
		maybe(4, "items", inner)
		maybe(12, "prefixItems", list)
		maybe(10, "contains", inner)
		maybe(14, "minContains", small)
		maybe(14, "maxContains", small)
		maybe(8, "allOf", list)
		maybe(8, "anyOf", list)
		maybe(8, "oneOf", list)
		maybe(8, "not", inner)
		maybe(12, "if", inner)
		maybe(12, "then", inner)
		maybe(12, "else", inner)
		maybe(14, "dependentSchemas", func() any { return object{"a": inner()} })
	}
	return s
}

// mutated returns a schema with one place replaced, removed or added.
func mutated(r *rand.Rand, schema object) object {
	text, _ := json.Marshal(schema)
	var s object
	_ = json.Unmarshal(text, &s)
	at := s
	for {
		var deeper []object
		for _, name := range slices.Sorted(maps.Keys(at)) { // the same from run to run
			switch v := at[name].(type) {
			case object:
				deeper = append(deeper, v)
			case []any:
				for _, item := range v {
					if o, ok := item.(object); ok {
						deeper = append(deeper, o)
					}
				}
			}
		}
		if len(deeper) == 0 || r.IntN(2) == 0 {
			break
		}
		at = deeper[r.IntN(len(deeper))]
	}
	other := randomSchema(r, 1)
	for _, keyword := range slices.Sorted(maps.Keys(at)) {
		if r.IntN(3) == 0 {
			delete(at, keyword)
		}
	}
	for _, keyword := range slices.Sorted(maps.Keys(other)) {
		if r.IntN(3) == 0 {
			at[keyword] = other[keyword]
		}
	}
	return s
}

// samples are values of each type, few enough to try all of them.
func samples() (all []any) {
	all = []any{nil, true, "", "a", "ab", "bbb", "abbb", 0.0, 1.0, 2.0, 3.0, 1.5, -1.0, 6.0}
	leaves := []any{nil, "a", "bbb", 1.0, 2.5, object{}, object{"a": 1.0}, []any{}, []any{"a"}}
	all = append(all, []any{}, object{})
	for _, x := range leaves {
		all = append(
			all,
			[]any{x},
			object{"a": x},
			object{"b": x},
			object{"c": x},
			object{"abc": x},
		)
		for _, y := range leaves {
			all = append(
				all,
				[]any{x, y},
				object{"a": x, "b": y},
				object{"a": x, "c": y},
				[]any{x, y, "a"},
			)
		}
	}
	return all
}

func compiled(t *testing.T, schema object) *jsonschema.Schema {
	t.Helper()
	text, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("schema.json", plain); err != nil {
		return nil
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		return nil // a property with the name of a keyword, an empty list
	}
	return s
}

func withBody(t *testing.T, schema object) *openapi3.T {
	t.Helper()
	doc, paths, _ := skeleton("3.1.0")
	paths["/a"] = object{"post": object{
		"operationId": "a", "security": []any{}, "responses": object{"200": object{"description": "fine"}},
		"requestBody": object{"required": true, "content": jsonContent(schema)},
	}}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	reading := tool{stdin: bytes.NewReader(text)}
	loaded, err := reading.load(t.Context(), standardInput, requestPart, false)
	if err != nil {
		return nil // a mutation may not be a valid schema
	}
	return loaded
}

// TestValidationVerdictIsSound changes random schemas and validates values against both versions:
// if one is accepted that was refused before, the verdict must include weakened.
func TestValidationVerdictIsSound(t *testing.T) {
	const rounds = 500
	tried, weaker, exact := 0, 0, 0
	values := samples()
	for round := range rounds {
		random := rand.New(rand.NewPCG(7, uint64(round))) // a failed round can be run alone
		before := randomSchema(random, 2)
		after := mutated(random, before)
		was, now := compiled(t, before), compiled(t, after)
		old, changed := withBody(t, before), withBody(t, after)
		if was == nil || now == nil || old == nil || changed == nil {
			continue
		}
		tried++
		answer := compare(old, changed)
		var c change
		if len(answer.Changes) > 0 {
			c = answer.Changes[0]
		}
		var gained, lost any
		gains, losses := false, false
		for _, value := range values {
			a, b := was.Validate(value) == nil, now.Validate(value) == nil
			if !a && b {
				gains, gained = true, value
			}
			if a && !b {
				losses, lost = true, value
			}
		}
		if gains {
			weaker++
		}
		if gains == c.Weakens && losses == c.Tightens {
			exact++
		}
		if len(answer.Uncompared) > 0 {
			continue
		}
		if gains && !c.Weakens || losses && !c.Tightens {
			x, _ := json.Marshal(before)
			y, _ := json.Marshal(after)
			t.Fatalf(
				"round %d: %s\n→ %s:\nlet in is %s, refused is %s, but the verdict is %+v",
				round,
				x,
				y,
				fmt.Sprint(gains, gained),
				fmt.Sprint(losses, lost),
				c,
			)
		}
	}
	t.Logf("%d pairs, %d weaker, %d verdicts exact", tried, weaker, exact)
	if tried < rounds/2 || weaker < rounds/20 {
		t.Errorf("%d pairs tried, %d of them weaker: too few to mean anything", tried, weaker)
	}
}
