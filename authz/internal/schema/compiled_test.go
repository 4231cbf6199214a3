package schema

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// document makes a document of one operation with parameters and a body, whose schemas refer to each other.
func (r *random) document() (text []byte, query, header, body map[string]any, media string) {
	r.schemas, r.strays = map[string]any{}, []int{4, 12, 30}[r.IntN(3)]
	for _, name := range []string{"A", "B", "C"} { // each of those before it alone: one made of itself sends the validator round in circles
		schema := r.schema(2)
		if properties, ok := schema["properties"].(map[string]any); ok && r.IntN(2) == 0 {
			properties["c"] = map[string]any{"$ref": "#/components/schemas/" + name} // within itself it may be
		}
		r.schemas[name] = schema
	}
	schemas := r.schemas
	if r.IntN(3) == 0 {
		r.schemas = nil // no references in what follows
	}
	query, header, body = r.schema(1), r.schema(0), r.schema(3)
	r.schemas = schemas
	media = r.one("application/json", "application/json", "application/merge-patch+json", "text/plain", "application/x-www-form-urlencoded")
	parameter := map[string]any{"name": "q", "in": "query", "schema": query}
	switch r.IntN(6) {
	case 0:
		parameter["style"], parameter["explode"] = "deepObject", true
	case 1:
		parameter["explode"] = false
	case 2:
		delete(parameter, "schema")
		parameter["content"] = map[string]any{"application/json": map[string]any{"schema": query}}
	}
	operation := map[string]any{
		"operationId": "o", "security": []any{}, "responses": map[string]any{"default": map[string]any{"description": "any"}},
		"parameters":  []any{parameter, map[string]any{"name": "X-H", "in": "header", "schema": header}},
		"requestBody": map[string]any{"content": map[string]any{media: map[string]any{"schema": body}}},
	}
	text, err := json.Marshal(map[string]any{
		"openapi": "3.1.0", "info": map[string]any{"title": "t", "version": "1"},
		"paths":      map[string]any{"/o": map[string]any{"post": operation}},
		"components": map[string]any{"schemas": schemas},
	})
	if err != nil {
		panic(err)
	}
	return text, query, header, body, media
}

// plainText is what a parameter is for a JSON value, more or less.
func plainText(value string) string {
	if text, err := strconv.Unquote(value); err == nil {
		return text
	}
	return strings.Trim(value, "[]{}")
}

// outcome is all that a client and a handler see of how a request was validated.
type outcome struct {
	kind        string
	detail      string
	query, body string
	header      http.Header
	kept        any
}

func outcomeOf(r *http.Request, err error) (o outcome) {
	if err != nil {
		refused, _ := errors.AsType[*Error](err)
		return outcome{kind: kindNames[refused.Kind], detail: refused.Detail}
	}
	o.query, o.header = r.URL.RawQuery, r.Header
	if r.Body != nil {
		if validated, ok := r.Body.(interface{ ValidatedValue() any }); ok {
			o.kept = validated.ValidatedValue()
		}
		text, _ := io.ReadAll(r.Body)
		o.body = string(text)
	}
	return o
}

var kindNames = map[Kind]string{
	Internal: "internal", NotFound: "not-found", Parameter: "invalid-parameter", InvalidBody: "invalid-body", WrongMediaType: "unsupported-media-type",
}

// compile compiles the only operation of a document.
func compile(doc *openapi3.T) (*Operation, error) {
	errs := []error{doc.Validate(context.Background())}
	item := doc.Paths.Value("/o")
	route := &routers.Route{Spec: doc, Path: "/o", PathItem: item, Method: "POST", Operation: item.Post}
	o, found := NewCompiler(doc).Operation(route)
	return o, errors.Join(append(errs, found...)...)
}

// validate holds a request to the operation, as the gate does.
func (o *Operation) validate(r *http.Request) (*http.Request, error) {
	return o.Validate(r, nil, func() (body Body, err error) {
		if r.Body == nil || r.ContentLength == 0 {
			return body, nil
		}
		if body.Media, body.Params, err = ParseMediaType(r.Header["Content-Type"]); err != nil {
			return body, err
		}
		body.Bytes, err = io.ReadAll(r.Body)
		return body, err
	})
}

// TestCompiledSchemasJudgeLikeTheValidator holds requests to generated documents, as the gate does and as the validator
// does by itself. CASES says how many documents, for a long run.
func TestCompiledSchemasJudgeLikeTheValidator(t *testing.T) {
	documents, seed := 250, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("CASES")); err == nil {
		documents, seed = n, rand.Uint64()
	}
	r := random{Rand: rand.New(rand.NewPCG(seed, 3))}
	counts := map[string]int{}
	for range documents {
		text, query, header, body, media := r.document()
		doc, err := openapi3.NewLoader().LoadFromData(text)
		if err != nil {
			counts["documents that do not load"]++
			continue
		}
		o, err := compile(doc)
		if err != nil {
			counts["documents with faults"]++
			continue
		}
		counts[wayOf(o)]++
		for range 12 {
			at := url.Values{}
			if r.IntN(3) == 0 {
				at.Set(r.one("q", "q", "q", "a", "q[a]"), plainText(r.value(query, 1)))
			}
			sent := r.value(body, 3)
			switch media {
			case "text/plain":
				sent = plainText(sent)
			case "application/x-www-form-urlencoded":
				sent = url.Values{r.one("a", "b", "c"): {plainText(r.value(body, 0))}}.Encode()
			}
			headers := http.Header{"Content-Type": {media}}
			if r.IntN(3) == 0 {
				headers.Set("X-H", plainText(r.value(header, 0)))
			}
			request := func() *http.Request {
				request := httptest.NewRequest("POST", "/o?"+at.Encode(), strings.NewReader(sent))
				request.Header = headers.Clone()
				return request
			}
			gated, err := o.validate(request())
			got := outcomeOf(gated, err)
			expected := expectedOf(t.Context(), request(), o)
			for range 20 { // of several errors, the validator reports any
				if reflect.DeepEqual(got, expected) {
					break
				}
				expected = expectedOf(t.Context(), request(), o)
			}
			counts["cases"]++
			if expected.kind == "" {
				counts["accepted"]++
			} else {
				counts[expected.kind]++
			}
			if o.quick != nil && got.kind == expected.kind && got.kind != "" {
				continue // the quick way goes no further than the first error
			}
			if !reflect.DeepEqual(got, expected) {
				t.Fatalf("document %s\nquery %s header %q body %s\nis judged %+v\nexpected  %+v", text, at.Encode(), headers, sent, got, expected)
			}
		}
	}
	t.Log(counts)
	if counts["compiled"] < documents/8 || counts["quick"] < documents/20 || counts["accepted"] < counts["cases"]/10 || counts["cases"] < documents {
		t.Error("too few of a kind to say anything")
	}
}

func wayOf(o *Operation) string {
	switch {
	case o.quick != nil:
		return "quick"
	case o.way.route.Spec == o.doc:
		return "whole"
	}
	return "compiled"
}

// TestWays: what may go which way, where it matters most.
func TestWays(t *testing.T) {
	const components = `"components": {"schemas": {
		"K": {"type": "object", "properties": {"k": {"const": "a"}, "again": {"$ref": "#/components/schemas/K"}}},
		"S": {"type": "string", "maxLength": 5},
		"U": {"type": "object", "properties": {"u": {"type": "integer"}}},
		"N": {"type": "object", "properties": {"n": {"type": "string", "nullable": true}}}}}`
	for _, row := range []struct{ schema, way, bodies string }{
		{`{"type": "object", "properties": {"s": {"type": "string"}}}`, "quick", `[{"s": "a"}, {"s": 1}, 1]`},
		{`{"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}}`, "quick", `[{"n": 9}, {"n": 9.0000000000000000001}, {"n": 9.0000000000000000000}, {"n": 1e1}]`},
		{`{"type": "object", "properties": {"s": {"type": "string", "default": "a"}}, "required": ["s"]}`, "compiled", `[{"s": "a"}, {}]`},
		{`{"type": ["object", "null"], "not": {"type": "null"}}`, "compiled", `[{}, null]`},
		{`{"type": "string", "nullable": true}`, "compiled", `["a", null]`},
		{`{"uniqueItems": true, "type": "array", "items": {"$ref": "#/components/schemas/S"}}`, "quick", `[["a", "b"], ["a", "a"], ["123456"], [null]]`},
		{`{"anyOf": [{"$ref": "#/components/schemas/S"}, {"type": "number", "default": 1, "maximum": 1.5}]}`, "quick", `["a", "123456", 1.5, 1.50000000000000000001, null]`},
		{`{"anyOf": [{"$ref": "#/components/schemas/N"}, {"type": "number"}]}`, "whole", `[{"n": "a"}, {"n": null}, 1, null]`},
		{`{"anyOf": [{"$ref": "#/components/schemas/K", "description": "x", "x-any": 1}, {"$ref": "#/components/schemas/S", "description": "y"}]}`, "compiled", `[{"k": "a"}, {"k": "b"}, {"again": {"again": {"k": "b"}}}, {"again": {"k": "a"}}, "a", "123456"]`},
		{`{"properties": {"k": {"$ref": "#/components/schemas/K"}, "s": {"$ref": "#/components/schemas/S", "maxLength": 2}, "t": {"$ref": "#/components/schemas/S"}}}`, "whole", `[{"k": {"k": "b"}}, {"s": "123"}, {"t": "123"}, {"t": "123456"}]`},
		{`{"properties": {"k": {"$ref": "#/components/schemas/K"}, "u": {"$ref": "#/components/schemas/U", "unevaluatedProperties": false}}}`, "whole", `[{"u": {"u": 1}}, {"u": {"v": 1}}, {"u": {}}]`},
		{`{"$ref": "#/components/schemas/U", "unevaluatedProperties": false}`, "compiled", `[{"u": 1}, {"u": "a"}, {"v": 1}, {}]`},
		{`{"$ref": "#/components/schemas/K", "required": ["k"]}`, "compiled", `[{"k": "a"}, {"again": {}}, {"k": "a", "again": {"k": "b"}}]`},
	} {
		doc, err := openapi3.NewLoader().LoadFromData([]byte(`{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/o": {"post": {"operationId": "o", "security": [],
			"responses": {"default": {"description": "any"}}, "requestBody": {"content": {"application/json": {"schema": ` + row.schema + `}}}}}}, ` + components + `}`))
		if err != nil {
			t.Fatal(err)
		}
		o, err := compile(doc)
		if err != nil {
			t.Errorf("%s: %v", row.schema, err)
			continue
		}
		if way := wayOf(o); way != row.way {
			t.Errorf("%s: goes the %s way, expected the %s", row.schema, way, row.way)
		}
		bodies := []json.RawMessage{}
		if err := json.Unmarshal([]byte(row.bodies), &bodies); err != nil {
			t.Fatal(err)
		}
		for _, body := range bodies {
			request := func() *http.Request {
				r := httptest.NewRequest("POST", "/o", bytes.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				return r
			}
			got := outcomeOf(o.validate(request()))
			if expected := expectedOf(t.Context(), request(), o); !reflect.DeepEqual(got, expected) {
				t.Errorf("%s: %s is judged %+v\nexpected %+v", row.schema, body, got, expected)
			}
		}
	}
}

// TestReferencesWithOneText: the same text refers to two schemas where documents have been put together.
func TestReferencesWithOneText(t *testing.T) {
	known := judgements{}
	for _, constant := range []string{"a", "b"} {
		array := openapi3.NewArraySchema()
		array.Items = openapi3.NewSchemaRef("#/components/schemas/X", &openapi3.Schema{Const: constant})
		j := known.of(openapi3.NewSchemaRef("", array))
		if j.compiled == nil || j.compiled.Validate([]any{constant}) != nil || j.compiled.Validate([]any{"c"}) == nil {
			t.Errorf("not judged by the schema referred to: %+v", j)
		}
	}
}

// route is the operation's, in the document itself.
func (o *Operation) route() *routers.Route {
	route := *o.way.route
	route.Spec = o.doc
	return &route
}

// expectedOf is what becomes of a request that is given to the validator by itself, once the gate's own checks are done.
func expectedOf(ctx context.Context, r *http.Request, o *Operation) outcome {
	unjudged := *o
	unjudged.way, unjudged.quick = &way{route: o.route()}, nil
	r, err := unjudged.validate(r)
	if err != nil {
		return outcomeOf(r, err)
	}
	open := *o.route().Operation
	open.Security = openapi3.NewSecurityRequirements()
	route := *o.route()
	route.Operation = &open
	if err := openapi3filter.ValidateRequest(ctx, &openapi3filter.RequestValidationInput{Request: r, Route: &route, Options: &validation}); err != nil {
		return outcomeOf(r, o.invalid(err))
	}
	return outcomeOf(r, nil)
}

// TestCompiledSchemasAreShared: requests are judged by the same ones at the same time. The race detector looks on.
func TestCompiledSchemasAreShared(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData([]byte(`{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/o": {"post": {
		"operationId": "o", "security": [], "responses": {"default": {"description": "any"}},
		"parameters": [{"name": "q", "in": "query", "schema": {"type": "integer", "multipleOf": 3, "maximum": 8}}],
		"requestBody": {"content": {"application/json": {"schema": {"type": "array", "uniqueItems": true, "items": {"oneOf": [
			{"type": "number", "multipleOf": 0.01, "maximum": 5}, {"type": "string", "format": "date", "pattern": "^2"}, {"type": "object", "propertyNames": {"pattern": "^a"}, "unevaluatedProperties": false}
		]}}}}}
	}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	o, err := compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if o.quick != nil || o.way.route.Spec == doc {
		t.Fatal("the schemas are not compiled")
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				sent, valid := `[1.25, "2026-11-27", {}]`, true
				if (i+j)%2 == 0 {
					sent, valid = `[1.255, "1"]`, false
				}
				r := httptest.NewRequest("POST", "/o?q=6", strings.NewReader(sent))
				r.Header.Set("Content-Type", "application/json")
				if _, err := o.validate(r); (err == nil) != valid {
					t.Errorf("%s: %v, expected it to be valid: %v", sent, err, valid)
				}
			}
		})
	}
	all.Wait()
}
