package schema

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// The engine's verdicts are compared with those of two other validators, on random schemas and
// values that are made to meet. Where they differ, the specification decides; what it decides is
// written down here.
//
//	difference                                     decided by                     for
//	kin: const: null is no const                   JSON Schema validation §6.1.3  the engine
//	kin: enum: [] accepts everything               JSON Schema validation §6.1.2  the engine
//	kin 3.0: null needs nullable without type      OpenAPI 3.0.4 §4.7.24.3        the engine
//	kin: not: {} accepts everything                JSON Schema §9.2.1.4           the engine
//	kin 3.0: nullable lets null pass an enum       OpenAPI 3.0.4 §4.7.24.3        the engine
//	kin: uniqueItems takes 1.0 and 1 for two       JSON Schema §4.2.2             the engine
//	kin: numbers are compared as float64           JSON Schema §6.1               the engine
//	kin: minLength counts UTF-16 units             JSON Schema validation §6.3.2  the engine
//	santhosh: numbers of any size                  RFC 7493 §2.2                  the engine refuses
//	santhosh: patterns are those of RE2            JSON Schema §6.4, ECMA-262     the engine
//
// The corpus of the test leaves these out where it cannot tell them from other differences.

// maker makes random schemas and values.
type maker struct {
	*rand.Rand
	old bool // only what OpenAPI 3.0 has
}

var (
	memberNames = []string{"a", "b", "c", "x-y"}
	scalars     = []any{nil, true, false, 0, 1, 2, -1, 1.5, 2.5, 10, "", "a", "ab", "abc", "äö",
		"x-y"}
)

func pick[T any](m *maker, all []T) T { return all[m.IntN(len(all))] }

func (m *maker) value(depth int) any {
	switch n := m.IntN(6); {
	case n == 0 && depth > 0:
		list := []any{}
		for range m.IntN(4) {
			list = append(list, m.value(depth-1))
		}
		return list
	case n < 4 && depth > 0:
		object := map[string]any{}
		for range m.IntN(4) {
			object[pick(m, memberNames)] = m.value(depth - 1)
		}
		return object
	}
	if m.old {
		return pick(m, scalars[1:]) // see the table
	}
	return pick(m, scalars)
}

func (m *maker) schema(depth int) any {
	if !m.old && m.IntN(30) == 0 {
		return m.IntN(2) == 0
	}
	s := map[string]any{}
	for range 1 + m.IntN(3) {
		m.keyword(s, depth)
	}
	return s
}

func (m *maker) list(depth int) []any {
	all := []any{}
	for range 1 + m.IntN(3) {
		all = append(all, m.schema(depth-1))
	}
	return all
}

func (m *maker) some() map[string]any {
	s := map[string]any{}
	for range 1 + m.IntN(3) {
		s[pick(m, memberNames)] = nil
	}
	return s
}

func (m *maker) schemas(depth int) map[string]any {
	all := m.some()
	for name := range all {
		all[name] = m.schema(depth - 1)
	}
	return all
}

func (m *maker) names() []any {
	all := []any{}
	for name := range m.some() {
		all = append(all, name)
	}
	return all
}

func (m *maker) keyword(s map[string]any, depth int) {
	types := []string{"null", "boolean", "integer", "number", "string", "array", "object"}
	flat := []func(){
		func() { s["type"] = pick(m, types[1:]) },
		func() { s["type"] = pick(m, []string{"object", "array", "string"}) },
		func() { s["minimum"] = m.IntN(3) },
		func() { s["maximum"] = 1.5 },
		func() { s["multipleOf"] = pick(m, []any{1, 0.5, 2}) },
		func() { s["minLength"] = m.IntN(3) },
		func() { s["maxLength"] = m.IntN(3) },
		func() { s["pattern"] = pick(m, []string{"^a", "b$", "[a-c]{2}"}) },
		func() { s["enum"] = []any{pick(m, scalars[1:]), pick(m, scalars[1:]), "a"} },
		func() { s["minItems"] = m.IntN(3) },
		func() { s["maxItems"] = m.IntN(3) },
		func() { s["uniqueItems"] = true },
		func() { s["required"] = m.names() },
		func() { s["minProperties"] = m.IntN(3) },
		func() { s["maxProperties"] = m.IntN(3) },
	}
	deep := []func(){
		func() { s["properties"] = m.schemas(depth) },
		func() { s["properties"] = m.schemas(depth) },
		func() { s["items"] = m.schema(depth - 1) },
		func() { s["additionalProperties"] = m.schema(depth - 1) },
		func() { s["additionalProperties"] = m.IntN(2) == 0 },
		func() { s["allOf"] = m.list(depth) },
		func() { s["anyOf"] = m.list(depth) },
		func() { s["oneOf"] = m.list(depth) },
		func() { s["not"] = m.schema(depth - 1) },
	}
	if !m.old {
		flat = append(flat,
			func() { s["type"] = []any{pick(m, types[:3]), pick(m, types[4:])} },
			func() { s["const"] = m.value(1) },
			func() { s["enum"] = []any{m.value(1), m.value(2), nil} },
			func() { s["exclusiveMinimum"] = m.IntN(3) },
			func() { s["exclusiveMaximum"] = m.IntN(3) },
			func() { s["dependentRequired"] = map[string]any{pick(m, memberNames): m.names()} },
		)
		deep = append(deep,
			func() { s["prefixItems"] = m.list(depth) },
			func() { s["contains"] = m.schema(depth - 1) },
			func() {
				s["contains"], s["minContains"], s["maxContains"] = m.schema(depth-1), m.IntN(3),
					1+m.IntN(2)
			},
			func() { s["patternProperties"] = map[string]any{"^x-": m.schema(depth - 1)} },
			func() { s["propertyNames"] = m.schema(depth - 1) },
			func() { s["dependentSchemas"] = m.schemas(depth) },
			func() {
				s["if"], s["then"], s["else"] = m.schema(depth-1), m.schema(depth-1),
					m.schema(depth-1)
			},
			func() { s["unevaluatedProperties"] = m.IntN(2) == 0 },
			func() { s["unevaluatedProperties"] = false },
			func() { s["unevaluatedProperties"] = m.schema(depth - 1) },
			func() { s["unevaluatedItems"] = m.IntN(4) == 0 },
			func() { s["unevaluatedItems"] = m.schema(depth - 1) },
			func() { s["$ref"] = "#/components/schemas/" + pick(m, []string{"A", "B"}) },
		)
	} else {
		deep = append(deep, func() {
			clear(s)
			s["$ref"] = "#/components/schemas/" + pick(m, []string{"A", "B"})
		})
	}
	if depth > 0 && m.IntN(2) == 0 {
		pick(m, deep)()
		return
	}
	pick(m, flat)()
}

// document returns a document with schemas S, A and B. A and B have no references, so that no
// schema contains itself.
func (m *maker) document(version string) map[string]any {
	leaf := func() any {
		for {
			s := m.schema(2)
			if text, _ := json.Marshal(s); !strings.Contains(string(text), "$ref") {
				return s
			}
		}
	}
	return map[string]any{
		"openapi": version, "info": map[string]any{"title": "t", "version": "1"}, "paths": map[string]any{},
		"components": map[string]any{"schemas": map[string]any{"S": m.schema(3), "A": leaf(), "B": leaf()}},
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadDocument(t testing.TB, document any) *openapi3.T {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = true
	doc, err := loader.LoadFromData(marshal(t, document))
	if err != nil {
		t.Fatalf("%v: %s", err, marshal(t, document))
	}
	return doc
}

// TestAgainstJSONSchema compares with santhosh-tekuri/jsonschema on JSON Schema 2020-12.
func TestAgainstJSONSchema(t *testing.T) {
	m := &maker{Rand: rand.New(rand.NewPCG(5, 6))}
	count := 6000
	if testing.Short() {
		count = 300
	}
	accepted, total := 0, 0
	for range count {
		document := m.document(v31)
		doc := loadDocument(t, document)
		s, err := NewCompiler(doc, Options{}).Schema(doc.Components.Schemas["S"])
		if err != nil {
			t.Fatalf("%v: %s", err, marshal(t, document))
		}
		other := jsonschema.NewCompiler()
		other.DefaultDraft(jsonschema.Draft2020)
		var plain any
		if err := json.Unmarshal(marshal(t, document), &plain); err != nil {
			t.Fatal(err)
		}
		if err := other.AddResource("d.json", plain); err != nil {
			t.Fatal(err)
		}
		compiled, err := other.Compile("d.json#/components/schemas/S")
		if err != nil {
			t.Fatalf("%v: %s", err, marshal(t, document))
		}
		for range 30 {
			body := marshal(t, m.value(3))
			_, err := s.Validate(body)
			var value any
			if err := json.Unmarshal(body, &value); err != nil {
				t.Fatal(err)
			}
			if want := compiled.Validate(value) == nil; (err == nil) != want {
				t.Fatalf("%s: %s: %v, want %v", marshal(t, document), body, err, want)
			}
			if total++; err == nil {
				accepted++
			}
		}
	}
	t.Logf("%d of %d values accepted", accepted, total)
}

// TestAgainstKin compares the engine with kin-openapi's own validator, for OpenAPI 3.0.
func TestAgainstKin(t *testing.T) {
	m := &maker{Rand: rand.New(rand.NewPCG(7, 8)), old: true}
	count := 6000
	if testing.Short() {
		count = 300
	}
	for range count {
		document := m.document(v30)
		if text := string(marshal(t, document)); strings.Contains(text, `"not"`) ||
			strings.Contains(text, `"uniqueItems"`) {
			continue // see the table
		}
		doc := loadDocument(t, document)
		ref := doc.Components.Schemas["S"]
		s, err := NewCompiler(doc, Options{}).Schema(ref)
		if err != nil {
			t.Fatalf("%v: %s", err, marshal(t, document))
		}
		for range 30 {
			body := marshal(t, m.value(3))
			_, err := s.Validate(body)
			var value any
			if err := json.Unmarshal(body, &value); err != nil {
				t.Fatal(err)
			}
			if want := visit(ref.Value, value); (err == nil) != want {
				t.Fatalf("%s: %s: %v, want %v", marshal(t, document), body, err, want)
			}
		}
	}
}

func visit(s *openapi3.Schema, value any) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Sprint("kin-openapi: ", r))
		}
	}()
	return s.VisitJSON(value) == nil
}

func FuzzValidate(f *testing.F) {
	for seed := range uint64(20) {
		m := &maker{Rand: rand.New(rand.NewPCG(seed, 1))}
		body, err := json.Marshal(m.value(3))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed, body)
	}
	f.Fuzz(func(t *testing.T, seed uint64, body []byte) {
		m := &maker{Rand: rand.New(rand.NewPCG(seed, 1))}
		doc := loadDocument(t, m.document(v31))
		s, err := NewCompiler(doc, Options{}).Schema(doc.Components.Schemas["S"])
		if err != nil {
			t.Skip()
		}
		accepted, err := s.Validate(body)
		if err != nil {
			return
		}
		// The rewritten value is accepted, and not rewritten again.
		again, err := s.Validate(accepted)
		if err != nil || string(again) != string(accepted) {
			t.Errorf("%s is rewritten to %s, and that to %s, %v", body, accepted, again, err)
		}
	})
}

// FuzzOpinions compares the engine with both validators for random documents and values.
// TestAgainstJSONSchema and TestAgainstKin have a corpus.
func FuzzOpinions(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, documents, values uint64) {
		for _, old := range []bool{false, true} {
			m := &maker{Rand: rand.New(rand.NewPCG(documents, 2)), old: old}
			document := m.document(map[bool]string{false: v31, true: v30}[old])
			opinion := secondOpinion(t, document, old)
			if opinion == nil {
				continue
			}
			doc := loadDocument(t, document)
			s, err := NewCompiler(doc, Options{}).Schema(doc.Components.Schemas["S"])
			if err != nil {
				t.Fatalf("%v: %s", err, marshal(t, document))
			}
			m.Rand = rand.New(rand.NewPCG(values, 3))
			for range 20 {
				body := marshal(t, m.value(3))
				if _, err := s.Validate(body); (err == nil) != opinion(decodeAny(t, body)) {
					t.Fatalf("%s: %s: %v, the other says the opposite", marshal(t, document), body,
						err)
				}
			}
		}
	})
}

// secondOpinion returns the verdict of another validator; nil where the table above says that it
// decides otherwise.
func secondOpinion(t *testing.T, document map[string]any, old bool) func(value any) bool {
	t.Helper()
	if old {
		text := string(marshal(t, document))
		if strings.Contains(text, `"not"`) || strings.Contains(text, `"uniqueItems"`) {
			return nil
		}
		other := loadDocument(t, document).Components.Schemas["S"].Value
		return func(value any) bool { return visit(other, value) }
	}
	other := jsonschema.NewCompiler()
	other.DefaultDraft(jsonschema.Draft2020)
	if err := other.AddResource("d.json", decodeAny(t, marshal(t, document))); err != nil {
		t.Fatal(err)
	}
	compiled, err := other.Compile("d.json#/components/schemas/S")
	if err != nil {
		t.Fatalf("%v: %s", err, marshal(t, document))
	}
	return func(value any) bool { return compiled.Validate(value) == nil }
}

func decodeAny(t *testing.T, text []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
