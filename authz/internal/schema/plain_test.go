package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// random makes schemas and values. Schemas keep to the allow-list and stray from it; values conform to a schema, or
// are a step away, or have nothing to do with it.
type random struct {
	*rand.Rand
	schemas map[string]any // by name, for others to refer to
	strays  int            // of so many schemas, one strays
}

func (r random) one(of ...string) string { return of[r.IntN(len(of))] }

func (r random) schema(depth int) map[string]any {
	s := map[string]any{}
	if len(r.schemas) > 0 && r.IntN(5) == 0 {
		s["$ref"] = "#/components/schemas/" + slices.Sorted(maps.Keys(r.schemas))[r.IntN(len(r.schemas))]
		switch r.IntN(6) {
		case 0:
			s["description"] = r.one("a", "b")
		case 1:
			s["maxLength"] = 1
		}
		return s
	}
	kind := r.one("string", "string", "integer", "number", "boolean", "array", "object", "object", "allOf")
	if depth == 0 && (kind == "array" || kind == "object" || kind == "allOf") {
		kind = "string"
	}
	maybe := func(keyword string, value any) {
		if r.IntN(4) == 0 {
			s[keyword] = value
		}
	}
	switch s["type"] = kind; kind {
	case "string":
		maybe("minLength", r.IntN(4))
		maybe("maxLength", r.IntN(6))
		maybe("pattern", r.one("^a", "b$", "^[a-z]*$", "^.{2}$", `^\d+$`))
		maybe("format", r.one("date", "date-time", "uuid", "byte", "nonsense"))
		maybe("enum", []any{"a", "ab", ""})
	case "integer", "number":
		bounds := []any{0, 1, -1, 2.5, 10, 9007199254740992, 9007199254740993, 1e300}
		bound := func() any { return bounds[r.IntN(len(bounds))] }
		maybe("minimum", bound())
		maybe("maximum", bound())
		maybe("exclusiveMinimum", bound())
		maybe("exclusiveMaximum", bound())
		maybe("format", r.one("int32", "int64", "double"))
	case "array":
		maybe("minItems", r.IntN(3))
		maybe("maxItems", r.IntN(4))
		maybe("items", r.schema(depth-1))
	case "object":
		properties := map[string]any{}
		for _, name := range []string{"a", "b", "c"}[:r.IntN(4)] {
			properties[name] = r.schema(depth - 1)
		}
		s["properties"] = properties
		maybe("required", []any{r.one("a", "b", "z")})
		maybe("minProperties", r.IntN(3))
		maybe("maxProperties", r.IntN(4))
		switch r.IntN(4) {
		case 0:
			s["additionalProperties"] = r.IntN(2) == 0
		case 1:
			s["additionalProperties"] = r.schema(depth - 1)
		}
	case "allOf":
		delete(s, "type")
		s["allOf"] = []any{r.schema(depth - 1), r.schema(depth - 1)}
	}
	if kind != "allOf" && r.IntN(6) == 0 {
		s["type"] = []any{kind, "null"}
	}
	if r.IntN(r.strays) == 0 { // beyond the allow-list
		part := func() any { return (random{r.Rand, r.schemas, 1 << 30}).schema(r.IntN(2)) }
		stray := []map[string]any{
			{"const": "a"}, {"not": map[string]any{"type": "string"}}, {"uniqueItems": true}, {"multipleOf": 2}, {"readOnly": true},
			{"nullable": true}, {"default": "a"}, {"enum": []any{1, 1.0, nil}}, {"oneOf": []any{part(), part()}},
			{"anyOf": []any{part(), part()}}, {"patternProperties": map[string]any{"^a": map[string]any{"type": "string"}}},
			{"propertyNames": map[string]any{"maxLength": 1}}, {"dependentRequired": map[string]any{"a": []any{"b"}}},
			{"if": part(), "then": part()}, {"unevaluatedProperties": false}, {"prefixItems": []any{part()}},
			{"contains": part()}, {"contentEncoding": "base64"}, {"madeUp": 1},
			{"const": map[string]any{"a": "a", "$ref": "x"}}, {"enum": []any{"a", 1, []any{"a"}, map[string]any{}}}, {"if": part(), "then": part(), "else": part()},
			{"not": part()}, {"unevaluatedItems": part()}, {"dependentSchemas": map[string]any{"a": part()}}, {"additionalProperties": part()},
			{"discriminator": map[string]any{"propertyName": "a"}}, {"contains": part(), "minContains": 2, "maxContains": 3}, {"multipleOf": 0.01}, {"writeOnly": true},
			{"example": map[string]any{"format": "date", "$ref": "#/components/schemas/A"}}, {"minProperties": 2}, {"properties": map[string]any{"format": part(), "a": part()}},
		}
		maps.Copy(s, stray[r.IntN(len(stray))])
	}
	return s
}

// value makes JSON that has a fair chance to conform to a schema.
func (r random) value(schema any, depth int) string {
	s, _ := schema.(map[string]any)
	if name, ok := s["$ref"].(string); ok {
		s, _ = r.schemas[strings.TrimPrefix(name, "#/components/schemas/")].(map[string]any)
	}
	if s == nil || r.IntN(7) == 0 {
		s = map[string]any{"type": r.one("string", "integer", "number", "boolean", "array", "object", "null")}
	}
	for _, keyword := range []string{"allOf", "oneOf", "anyOf"} {
		if parts, ok := s[keyword].([]any); ok && (keyword == "allOf" || r.IntN(2) == 0) {
			if depth == 0 {
				return `"a"`
			}
			return r.value(parts[r.IntN(len(parts))], depth-1)
		}
	}
	if constant, ok := s["const"]; ok && r.IntN(2) == 0 {
		text, _ := json.Marshal(constant)
		return string(text)
	}
	kind, ok := s["type"].(string)
	if list, several := s["type"].([]any); several {
		kind, ok = list[r.IntN(len(list))].(string), true
	}
	switch {
	case kind == "null" || !ok:
		return "null"
	case kind == "boolean":
		return r.one("true", "false")
	case kind == "integer" || kind == "number":
		return r.one("0", "1", "-1", "2", "2.5", "1.0", "10", "-0", "9007199254740992", "9007199254740993", "1.00000000000000000001",
			"1e2", "1E400", "0.1", "123456789012345", "1234567890123456", "3000000000", "10.5", "-1.5", "2.50")
	case kind == "array" && depth > 0:
		items := []string{}
		for range r.IntN(4) {
			items = append(items, r.value(s["items"], depth-1))
		}
		return "[" + strings.Join(items, ",") + "]"
	case kind == "object" && depth > 0:
		properties, _ := s["properties"].(map[string]any)
		members := []string{}
		for _, name := range []string{"a", "b", "c", "d"} {
			if r.IntN(2) == 0 {
				continue
			}
			schema := properties[name]
			if schema == nil {
				schema = s["additionalProperties"]
			}
			members = append(members, fmt.Sprintf("%q:%s", name, r.value(schema, depth-1)))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	return r.one(`""`, `"a"`, `"ab"`, `"abc"`, `"12"`, `"é"`, `"😀😀"`, `"2026-11-23"`, `"2026-11-23T00:00:00Z"`, `"YQ=="`, `"a\nb"`, `"1234567890123456789"`)
}

// bothWays decides a value in the quick and in the whole way, as the validator does. ok is false where the document
// does not load, or where the quick way may not be taken.
func bothWays(schema []byte, text string, body bool) (quick, whole error, ok bool) {
	document := `{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {}, "components": {"schemas": {"S": ` + string(schema) + `}}}`
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		return nil, nil, false
	}
	ref := doc.Components.Schemas["S"]
	if p := (plain{body: body}); !p.schema(ref) || body && numbersOf([]byte(text)) != plainNumbers {
		return nil, nil, false
	}
	decode := func() (value any) {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && !body {
			return n
		}
		d := json.NewDecoder(strings.NewReader(text))
		if body {
			d.UseNumber()
		}
		if err := d.Decode(&value); err != nil {
			panic(err)
		}
		return value
	}
	options := []openapi3.SchemaValidationOption{}
	if body {
		options = append(options, openapi3.VisitAsRequest(), openapi3.DefaultsSet(func() {}))
	}
	value := decode()
	quick = ref.Value.VisitJSON(value, options...)
	if before, _ := json.Marshal(decode()); body {
		if after, _ := json.Marshal(value); !bytes.Equal(before, after) {
			quick = fmt.Errorf("the quick way has changed the value to %s", after)
		}
	}
	whole = ref.Value.VisitJSON(decode(), append(options, openapi3.EnableJSONSchema2020())...)
	return quick, whole, true
}

func TestTheQuickWayJudgesLikeTheWholeWay(t *testing.T) {
	r := random{Rand: rand.New(rand.NewPCG(1, 2)), strays: 12}
	compared, accepted := 0, 0
	for range 1500 {
		schema := r.schema(3)
		text, err := json.Marshal(schema)
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			body := r.IntN(3) > 0
			value := r.value(schema, 3)
			if !body && strings.Contains(value, "400") {
				continue // no parameter is that
			}
			quick, whole, ok := bothWays(text, value, body)
			if !ok {
				continue
			}
			compared++
			if whole == nil {
				accepted++
			}
			if (quick == nil) != (whole == nil) {
				t.Fatalf("schema %s\nvalue  %s (of a body: %v)\nquick  %v\nwhole  %v\nthe allow-list in plain.go has to exclude what they differ in", text, value, body, quick, whole)
			}
		}
	}
	t.Logf("%d verdicts compared, %d of them to accept", compared, accepted)
	if compared < 1500 || accepted < compared/10 || accepted > compared*9/10 {
		t.Errorf("%d verdicts compared, %d of them to accept: too few of a kind to say anything", compared, accepted)
	}
}

// TestASchemaOfAParameterAndOfABody is one that both ways judge alike as the first alone.
func TestASchemaOfAParameterAndOfABody(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(`{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/o": {"post": {
		"operationId": "o", "security": [], "responses": {"default": {"description": "any"}},
		"parameters": [{"name": "q", "in": "query", "schema": {"$ref": "#/components/schemas/Level"}}],
		"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Level"}}}}
	}}}, "components": {"schemas": {"Level": {"type": "number", "maximum": 0.5}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	o, err := compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if o.quick != nil {
		t.Error("it goes the quick way, which compares numbers of a body by float64")
	}
}

func FuzzTheQuickWay(f *testing.F) {
	for seed := range uint64(8) {
		r := random{Rand: rand.New(rand.NewPCG(seed, 0)), strays: 12}
		schema := r.schema(3)
		text, _ := json.Marshal(schema)
		f.Add(text, r.value(schema, 3), seed%2 == 0)
	}
	f.Add([]byte(`{"type": "integer", "maximum": 10}`), "10.000000000000000001", true)
	f.Fuzz(func(t *testing.T, schema []byte, value string, body bool) {
		if !json.Valid(schema) || !json.Valid([]byte(value)) || !body && strings.ContainsAny(value, "eE") {
			return
		}
		if quick, whole, ok := bothWays(schema, value, body); ok && (quick == nil) != (whole == nil) {
			t.Fatalf("schema %s\nvalue  %s (of a body: %v)\nquick  %v\nwhole  %v", schema, value, body, quick, whole)
		}
	})
}

func TestNumbersOf(t *testing.T) {
	for text, expected := range map[string]numbers{
		`{"a":123456789012345}`: plainNumbers, `{"a":1234567890123456}`: longNumbers, `1e5`: longNumbers, `[1,2,-3]`: plainNumbers, `0.123456789012345678`: longNumbers,
		`{"a":"1234567890123456"}`: plainNumbers, `{"a":"\"1234567890123456"}`: plainNumbers, `{"a":"\\","b":1234567890123456}`: longNumbers,
		`{"id":"0190b8f3-7e00-7000-8000-1e0000000000"}`: plainNumbers, `true`: plainNumbers, `"`: plainNumbers, `"\`: plainNumbers, ``: plainNumbers, `[123456789,123456789]`: plainNumbers,
		`-1.5e-300`: longNumbers, `{"a":[1E+308,"1e999999"]}`: longNumbers, `1e309`: hugeNumbers, `-1E-309`: hugeNumbers, `["x",1e1000001]`: hugeNumbers, `{"1e1":1e+99999999999}`: hugeNumbers,
		strings.Repeat("9", 100): longNumbers, strings.Repeat("9", 101): hugeNumbers, `[0.` + strings.Repeat("1", 100) + `]`: hugeNumbers, `[1,1e999999,1]`: hugeNumbers,
	} {
		if got := numbersOf([]byte(text)); got != expected {
			t.Errorf("%.60s: is %d, expected %d", text, got, expected)
		}
	}
}
