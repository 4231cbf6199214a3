package authztest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/authztest"
)

// withBody is a document of one operation, whose JSON body has the schema.
func withBody(t *testing.T, version, schema string) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(fmt.Appendf(nil, `
openapi: %s
info: {title: t, version: "1"}
paths:
  /things:
    post:
      operationId: makeThing
      security: []
      requestBody: {required: true, content: {application/json: {schema: %s}}}
      responses: {default: {description: Anything.}}
components:
  schemas:
    Tree: {type: object, required: [name], properties: {name: {type: string}, left: {$ref: "#/components/schemas/Tree"}}}
    Endless: {type: object, required: [next], properties: {next: {$ref: "#/components/schemas/Endless"}}}
    Cat: {type: object, required: [kind, lives], properties: {kind: {type: string}, lives: {type: integer, enum: [9]}}}
    Dog: {type: object, required: [kind, name], properties: {kind: {type: string}, name: {type: string}}}
`, version, schema))
	if err != nil {
		t.Fatalf("schema %s: %v", schema, err)
	}
	return document
}

// sent returns the body that reaches a server, or the fault that is reported instead.
func sent(t *testing.T, target authztest.Target) (body, fault string) {
	t.Helper()
	target.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body = string(b)
	})
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, failed := range report.Failed() {
		fault += failed.Case.Name + ": " + strings.Join(failed.Faults, "; ")
	}
	return body, fault
}

// TestBodiesFromSchemas: generated requests are valid, which Check itself verifies. If a schema has
// few values, the request has one of them.
func TestBodiesFromSchemas(t *testing.T) {
	const both = "3.0.3 3.1.0"
	for _, test := range []struct{ versions, schema, want string }{ // no want: any that is valid
		{both, `{type: string}`, `"a"`},
		{both, `{type: string, minLength: 3, maxLength: 3}`, `"aaa"`},
		{both, `{type: string, maxLength: 0}`, `""`},
		{both, `{type: string, enum: [b, c]}`, `"b"`},
		{both, `{type: string, default: d}`, `"d"`},
		{both, `{type: string, example: e}`, `"e"`},
		{"3.1.0", `{type: string, examples: [f]}`, `"f"`},
		{"3.1.0", `{const: {g: 1}}`, `{"g":1}`},
		{both, `{type: string, format: date-time}`, `"2026-01-02T03:04:05Z"`},
		{both, `{type: string, format: uuid}`, ``},
		{both, `{type: string, pattern: "^[a-f0-9]{32}$"}`, ``},
		{both, `{type: string, pattern: "^(?:red|green)-\\d{2,}$", minLength: 9}`, `"red-00000"`},
		{both, `{type: string, pattern: "^(ab*)+$", minLength: 100, maxLength: 101}`, ``},
		{both, `{type: string, pattern: "[^a-z]\\s?$"}`, ``},
		{both, `{type: string, pattern: "^[xX]\\.y?$"}`, ``},
		{both, `{type: string, pattern: "^(?=.*[A-Z])(?=.*\\d)(?!.*\\s)[^;]{8,}$"}`, `"A0aaaaaaaa"`},
		{both, `{type: string, pattern: "^(?!-)[a-z-]{1,9}(?<!-)$"}`, ``},
		{both, `{type: string, pattern: "^\\u00e9\\u{66}[)(?=]$"}`, ``},
		{both, `{type: boolean}`, `true`},
		{both, `{type: integer}`, `1`},
		{both, `{type: integer, minimum: -5, maximum: -3}`, `-5`},
		{both, `{type: integer, maximum: -3}`, `-3`},
		{both, `{type: integer, minimum: 8, multipleOf: 7}`, `14`},
		{"3.0.3", `{type: number, minimum: 0, exclusiveMinimum: true, maximum: 0.5}`, `0.25`},
		{"3.1.0", `{type: number, exclusiveMinimum: 0, exclusiveMaximum: 0.5}`, `0.25`},
		{"3.1.0", `{type: integer, exclusiveMaximum: 0}`, `-1`},
		{"3.1.0", `{type: ["null", integer]}`, `1`},
		{"3.1.0", `{type: "null"}`, `null`},
		{"3.0.3", `{type: string, nullable: true}`, `"a"`},
		{both, `{type: array, items: {type: integer}}`, `[]`},
		{both, `{type: array, items: {type: integer}, minItems: 3, uniqueItems: true}`, `[1,2,3]`},
		{both, `{type: array, items: {type: string, format: uuid}, minItems: 2, uniqueItems: true}`, ``},
		{both, `{type: array, items: {enum: [x, y, z]}, minItems: 3, uniqueItems: true}`, `["x","y","z"]`},
		{"3.1.0", `{type: array, prefixItems: [{type: boolean}, {type: string}], items: false}`, `[true,"a"]`},
		{both, `{type: array, items: {$ref: "#/components/schemas/Tree"}, minItems: 2, uniqueItems: true}`, `[{"name":"a"},{"name":"a1"}]`},
		{both, `{type: array, items: {type: object, properties: {a: {enum: [x, y]}}}, minItems: 2, uniqueItems: true}`, `[{},{"a":"y"}]`},
		{both, `{type: array, items: {type: array, items: {type: integer}}, minItems: 2, uniqueItems: true}`, `[[],[2]]`},
		{both, `{type: object}`, `{}`},
		{both, `{type: object, required: [a], properties: {a: {type: string}, b: {type: string}}}`, `{"a":"a"}`},
		{both, `{type: object, minProperties: 2, properties: {a: {type: string}, b: {type: integer}}}`, `{"a":"a","b":1}`},
		{both, `{type: object, minProperties: 2, additionalProperties: {type: integer}}`, ``},
		{"3.0.3", `{type: object, required: [a, b], properties: {a: {type: string, readOnly: true}, b: {type: string}}}`, `{"b":"a"}`},
		{"3.1.0", `{type: object, required: [a, b], properties: {a: {type: string, readOnly: true}, b: {type: string}}}`, `{"a":"a","b":"a"}`},
		{both, `{$ref: "#/components/schemas/Tree"}`, `{"name":"a"}`},
		{both, `{allOf: [{$ref: "#/components/schemas/Tree"}, {$ref: "#/components/schemas/Tree"}, {required: [left]}]}`, `{"left":{"name":"a"},"name":"a"}`},
		{both, `{allOf: [{type: integer, minimum: 3}, {maximum: 7, minimum: 5}]}`, `5`},
		{both, `{type: object, allOf: [{properties: {a: {type: string, minLength: 2}}}], required: [a], properties: {a: {maxLength: 2}}}`, `{"a":"aa"}`},
		{both, `{oneOf: [{type: string, maxLength: 3, minLength: 4}, {type: integer}]}`, `1`},
		{both, `{anyOf: [{type: object, required: [a]}, {type: object, required: [b]}]}`, `{"a":"a"}`},
		{both, `{oneOf: [{$ref: "#/components/schemas/Cat"}, {$ref: "#/components/schemas/Dog"}], discriminator: {propertyName: kind, mapping: {cat: "#/components/schemas/Cat"}}}`, `{"kind":"cat","lives":9}`},
		{both, `{}`, ``},
	} {
		for version := range strings.FieldsSeq(test.versions) {
			body, fault := sent(t, authztest.Target{Document: withBody(t, version, test.schema)})
			if fault != "" || test.want != "" && body != test.want {
				t.Errorf("%s, %s: sent %s, fault %q, want %s", version, test.schema, body,
					fault, test.want)
			}
		}
	}
}

// TestNoValidRequest: if no valid request can be generated, the report says so once, with what to
// do. An entry of Requests fixes it.
func TestNoValidRequest(t *testing.T) {
	for _, test := range []struct{ schema, says, given string }{
		{`{type: string, pattern: "^a$", minLength: 5}`, `found no string for its pattern "^a$" and length`, ``},
		{`{type: string, pattern: "^((a*)*b*)*$", minLength: 400, maxLength: 401}`, `found no string`, ``},
		{`{$ref: "#/components/schemas/Endless"}`, `requires itself`, ``},
		{`{type: array, minItems: 1000000, items: {}}`, `more than 4096`, ``},
		{`{oneOf: [{type: string, maxLength: 0, minLength: 1}]}`, `found no value for any branch of oneOf`, ``},
		{`{type: object, required: [a], properties: {a: {type: string}, b: {type: string}}, dependentRequired: {a: [b]}}`, `/b is required because a is present`, `{"a":"1","b":"2"}`},
		{`{type: object, required: [a], properties: {a: {not: {type: string}}}}`, `/a matches the schema that it must not match`, `{"a":1}`},
	} {
		target := authztest.Target{Document: withBody(t, "3.1.0", test.schema)}
		body, fault := sent(t, target)
		for _, part := range []string{"makeThing/request: ", test.says,
			`Give an example in the document, or Target.Requests["makeThing"]`} {
			if !strings.Contains(fault, part) {
				t.Errorf("%s: sent %s, fault %q, want it to contain: %s", test.schema, body, fault,
					part)
			}
		}
		if strings.Count(fault, "makeThing/") != 1 {
			t.Errorf("%s: fault %q, want it once", test.schema, fault)
		}
		if test.given == "" {
			continue
		}
		target.Requests = map[string]authztest.Request{"makeThing": {Body: []byte(test.given),
			ContentType: "application/json"}}
		if body, fault := sent(t, target); body != test.given || fault != "" {
			t.Errorf("%s: sent %s, fault %q, want the body of Target.Requests", test.schema,
				body, fault)
		}
	}
}

// TestRequests: the fields of an entry replace what was generated, parameter by parameter. A faulty
// entry is refused.
func TestRequests(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /a/{one}/b/{two}:
    parameters:
      - {name: one, in: path, required: true, schema: {type: string, pattern: "^x($|.*y$)", minLength: 2}}
      - {name: two, in: path, required: true, schema: {type: string}}
    get:
      operationId: get
      security: []
      parameters:
        - {name: q, in: query, required: true, schema: {type: string}}
        - {name: r, in: query, schema: {type: integer}}
        - {name: X-H, in: header, required: true, schema: {type: string}}
      responses: {default: {description: Anything.}}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		override authztest.Request
		want     string // the request line and X-H; or the fault
	}{
		{"all", authztest.Request{
			Path:  map[string]string{"one": "x/ y", "two": "ü"},
			Query: url.Values{"q": {"&"}, "r": {"5"}}, Header: http.Header{"X-H": {"h"}},
		}, `GET /base/a/x%2F%20y/b/%C3%BC?q=%26&r=5 h`},
		{"some", authztest.Request{Path: map[string]string{"one": "xy"}}, `GET /base/a/xy/b/a?q=a a`},
		{"wrong", authztest.Request{Path: map[string]string{"one": "xy"}, Query: url.Values{"r": {"five"}}}, `query r is not of type integer`},
		{"too few", authztest.Request{}, `the path parameter one: found no string`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got string
			report, err := authztest.Check(t.Context(), authztest.Target{
				Document: document,
				URL:      "http://localhost/base/",
				Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					got = r.Method + " " + r.RequestURI + " " + r.Header.Get("X-H")
				}),
				Requests: map[string]authztest.Request{"get": test.override},
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, failed := range report.Failed() {
				got += strings.Join(failed.Faults, "; ")
			}
			if got != test.want &&
				(strings.HasPrefix(test.want, "GET") || !strings.Contains(got, test.want)) {
				t.Errorf("received %s, want %s", got, test.want)
			}
		})
	}
}

// TestMultipart: objects are JSON, arrays are several parts, and files are last and have the media
// type of the document.
func TestMultipart(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /things:
    post:
      operationId: makeThing
      security: []
      requestBody:
        required: true
        content:
          multipart/form-data:
            schema:
              type: object
              additionalProperties: false
              required: [cover, note, pages, tags, count]
              properties:
                cover: {type: string, format: binary}
                note: {type: object, required: [text], properties: {text: {type: string}}}
                pages: {type: array, minItems: 2, uniqueItems: true, items: {type: object, required: [n], properties: {n: {type: integer}}}}
                tags: {type: array, minItems: 2, uniqueItems: true, items: {type: string}}
                count: {type: integer}
            encoding: {cover: {contentType: "image/png, image/jpeg"}}
      responses: {default: {description: Anything.}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	report, err := authztest.Check(t.Context(), authztest.Target{
		Document: document,
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			parts, err := r.MultipartReader()
			if err != nil {
				t.Error(err)
				return
			}
			for {
				part, err := parts.NextPart()
				if err != nil {
					return
				}
				text, _ := io.ReadAll(part)
				got = append(got, strings.TrimSpace(fmt.Sprint(part.FormName(), " ", string(text),
					" ", part.Header.Get("Content-Type"))))
			}
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, failed := range report.Failed() {
		t.Errorf("%s: %q", failed.Case.Name, failed.Faults)
	}
	want := []string{
		"count 1", `note {"text":"a"} application/json`, `pages {"n":1} application/json`,
		`pages {"n":2} application/json`, "tags a", "tags a1", "cover a image/png",
	}
	if !slices.Equal(got[:min(len(got), len(want))], want) {
		t.Errorf("received %q, want %q", got, want)
	}
}
