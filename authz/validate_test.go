package authz_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/labstack/echo/v4"
	"github.com/oapi-codegen/runtime"

	"github.com/oasgate/oasgate/authz"
)

// validated has parameters and bodies of all kinds, in a form that is valid in OpenAPI 3.0 and 3.1.
const validated = `
openapi: 3.1.0
info: {title: Tests of the gate, version: "1"}
security: [{bearer: []}]
paths:
  /nothing:
    get: {operationId: nothing, responses: {"204": {description: Done.}}}
    post: {operationId: postNothing, responses: {"204": {description: Done.}}}
  /items/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string, maxLength: 4}}
      - {name: q, in: query, schema: {type: string}}
      - {name: list, in: query, schema: {type: array, items: {type: string}}}
    get: {operationId: item, responses: {"204": {description: Done.}}}
    put:
      operationId: overriding
      parameters:
        - {name: q, in: query, schema: {type: array, items: {type: string}}}
        - {name: list, in: query, schema: {type: string}}
      responses: {"204": {description: Done.}}
  /numbers/{n}:
    get:
      operationId: number
      parameters: [{name: n, in: path, required: true, schema: {type: integer, minimum: 1}}]
      responses: {"204": {description: Done.}}
  /items/{id}/parts/{part}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string}}
      - {name: part, in: path, required: true, schema: {type: string}}
    get: {operationId: part, responses: {"204": {description: Done.}}}
  /search:
    get:
      operationId: search
      parameters:
        - {name: text, in: query, schema: {type: string, maxLength: 5}}
        - {name: limit, in: query, schema: {type: integer, maximum: 100, default: 10}}
        - {name: tag, in: query, schema: {type: array, items: {type: string, maxLength: 5}}}
        - {name: csv, in: query, explode: false, schema: {type: array, items: {type: integer}}}
        - {name: wrapped, in: query, schema: {allOf: [{type: array, items: {type: string}}]}}
        - name: filter
          in: query
          style: deepObject
          explode: true
          schema: {type: object, properties: {state: {type: string, maxLength: 5}, level: {type: integer}}}
        - name: open
          in: query
          style: deepObject
          explode: true
          schema: {type: object, additionalProperties: {type: integer}}
        - {name: json, in: query, content: {application/json: {schema: {type: object, additionalProperties: false, properties: {a: {type: integer}}}}}}
        - {name: typeless, in: query, schema: {properties: {hidden: {type: integer}}}}
        - {name: X-Kind, in: header, schema: {type: string, enum: [a, b]}}
        - {name: X-Default, in: header, schema: {type: string, default: given}}
      responses: {"204": {description: Done.}}
  /spread:
    get:
      operationId: spread
      parameters: [{name: object, in: query, schema: {type: object, properties: {a: {type: integer}, b: {type: string}}}}]
      responses: {"204": {description: Done.}}
  /open:
    get:
      operationId: open
      parameters: [{name: object, in: query, schema: {type: object, additionalProperties: {type: integer}}}]
      responses: {"204": {description: Done.}}
  /required:
    get:
      operationId: required
      parameters:
        - {name: text, in: query, required: true, schema: {type: string}}
        - {name: X-Required, in: header, required: true, schema: {type: string}}
      responses: {"204": {description: Done.}}
  /cookie:
    get:
      operationId: cookie
      parameters: [{name: session, in: cookie, required: true, schema: {type: string, maxLength: 5}}]
      responses: {"204": {description: Done.}}
  /json:
    post:
      operationId: json
      requestBody:
        required: true
        content:
          application/json: {schema: &message {type: object, properties: {text: {type: string, maxLength: 5}, level: {type: integer}, items: {type: array, items: {$ref: "#/components/schemas/Item"}}}}}
          application/merge-patch+json: {schema: *message}
          text/plain: {schema: {type: string, maxLength: 5}}
      responses: {"204": {description: Done.}}
  /closed:
    post:
      operationId: closed
      requestBody: {required: true, content: {application/json: {schema: {type: object, additionalProperties: false, properties: {text: {type: string}}}}}}
      responses: {"204": {description: Done.}}
  /map:
    post:
      operationId: map
      requestBody: {required: true, content: {application/json: {schema: {type: object, additionalProperties: {type: integer}}}}}
      responses: {"204": {description: Done.}}
  /maybe:
    post:
      operationId: maybe
      requestBody: {content: {application/json: {schema: {type: object}}}}
      responses: {"204": {description: Done.}}
  /form:
    post:
      operationId: form
      requestBody: {required: true, content: {application/x-www-form-urlencoded: {schema: {type: object, properties: {n: {type: integer}}}}}}
      responses: {"204": {description: Done.}}
components:
  schemas:
    Item: {type: object, required: [name], properties: {name: {type: string, pattern: "^[a-z]+$"}, next: {$ref: "#/components/schemas/Item"}}}
  securitySchemes:
    bearer: {type: http, scheme: bearer}
`

const (
	jsonType = "Content-Type: application/json"
	maxBody  = 1000
)

func small(c *authz.Config) { c.MaxBodyBytes = maxBody }

func TestParameters(t *testing.T) {
	versions(t, validated, func(t *testing.T, document string) {
		s := start(t, document, small)
		good := s.bearer("")
		for _, row := range []struct {
			name    string
			request string
			headers []string
			// the operation; "" for 400 invalid-parameter, or 404 if detail says so
			runs   string
			detail string // a part of it
		}{
			{"nothing declared, nothing sent", "GET /nothing", nil, "nothing", ""},
			{"a bare question mark", "GET /nothing?", nil, "nothing", ""},
			{"a query where none is declared", "GET /nothing?a=SUBMITTED", nil, "", "does not declare"},
			{"a name without a value", "GET /nothing?SUBMITTED", nil, "", "does not declare"},
			{"a malformed escape", "GET /nothing?%zz", nil, "", "malformed"},
			{"a malformed escape in a value", "GET /search?text=%", nil, "", "malformed"},
			{"a semicolon", "GET /search?text=a;limit=5", nil, "", "malformed"},
			{"a semicolon alone", "GET /nothing?;", nil, "", "malformed"},
			{"empty pairs", "GET /search?&&text=a&&", nil, "search", ""},

			{"in bounds", "GET /search?text=abcde", nil, "search", ""},
			{"an escaped name", "GET /search?te%78t=abcde", nil, "search", ""},
			{"other letters in a name", "GET /search?TEXT=abcde", nil, "", "does not declare"},
			{"an undeclared one beside it", "GET /search?text=a&other=SUBMITTED", nil, "", "does not declare"},
			{"too long", "GET /search?text=SUBMITTED", nil, "", "The query parameter text is longer than 5 characters."},
			{"not a number", "GET /search?limit=SUBMITTED", nil, "", "The query parameter limit is not of type integer."},
			{"too great", "GET /search?limit=101", nil, "", "The query parameter limit is out of range: maximum is 100."},
			{"empty where a number is expected", "GET /search?limit=", nil, "", "limit"},
			{"a scalar twice", "GET /search?text=a&text=b", nil, "", "more than once"},
			{"a scalar twice, escaped", "GET /search?text=a&te%78t=b", nil, "", "more than once"},
			{"a scalar twice, one too long", "GET /search?text=a&text=SUBMITTED", nil, "", "more than once"},
			{"NUL in a value", "GET /search?text=a%00", nil, "", "not text"},
			{"invalid UTF-8 in a value", "GET /search?text=%ff", nil, "", "not text"},
			{"a character cut in two", "GET /search?tag=%c3&tag=%a9", nil, "", "not text"},
			{"an overlong slash", "GET /search?text=%c0%af", nil, "", "not text"},

			{"an array", "GET /search?tag=a&tag=b", nil, "search", ""},
			{"an array of one", "GET /search?tag=a", nil, "search", ""},
			{"an array, one too long", "GET /search?tag=a&tag=SUBMITTED", nil, "", "The query parameter tag at /1 is longer than 5 characters."},
			{"an array by allOf", "GET /search?wrapped=a&wrapped=b", nil, "search", ""},
			{"a joined array", "GET /search?csv=1,2,3", nil, "search", ""},
			{"a joined array, of other things", "GET /search?csv=1,SUBMITTED", nil, "", "csv"},
			{"a joined array twice", "GET /search?csv=1&csv=SUBMITTED", nil, "", "more than once"},

			{"a deepObject", "GET /search?filter[state]=open&filter[level]=3", nil, "search", ""},
			{"a deepObject, escaped", "GET /search?filter%5Bstate%5D=open", nil, "search", ""},
			{"a deepObject, too long", "GET /search?filter[state]=SUBMITTED", nil, "", "The query parameter filter at /state is longer than 5 characters."},
			{"a deepObject, not a number", "GET /search?filter[level]=SUBMITTED", nil, "", "filter"},
			{"a deepObject, another member", "GET /search?filter[SUBMITTED]=1", nil, "", "does not declare"},
			{"a deepObject, other letters", "GET /search?filter[STATE]=SUBMITTED", nil, "", "does not declare"},
			{"a deepObject, a member twice", "GET /search?filter[state]=a&filter[state]=SUBMITTED", nil, "", "more than once"},
			{"a deepObject, something after", "GET /search?filter[state]=a&filter[state]x=SUBMITTED", nil, "", "The query parameter filter is not named as style deepObject names it."},
			{"a deepObject, something between", "GET /search?filter[state]x[y]=SUBMITTED", nil, "", "The query parameter filter is not named as style deepObject names it."},
			{"a deepObject, left open", "GET /search?filter[state=SUBMITTED", nil, "", "The query parameter filter is not named as style deepObject names it."},
			{"a deepObject, brackets within", "GET /search?filter[[state]]=SUBMITTED", nil, "", "does not declare"},
			{"a deepObject, no name", "GET /search?filter[]=SUBMITTED", nil, "", "does not declare"},
			{"a deepObject, no brackets", "GET /search?filter=SUBMITTED", nil, "", "does not declare"},
			{"a deepObject, a member as a value and as an object", "GET /search?filter[state]=a&filter[state][x]=SUBMITTED", nil, "", "as a value and as an object"},
			{"an open deepObject", "GET /search?open[whatever]=1", nil, "search", ""},
			{"an open deepObject, not a number", "GET /search?open[whatever]=SUBMITTED", nil, "", "open"},
			{"an object without a type, by its properties", "GET /search?hidden=SUBMITTED", nil, "", "The query parameter typeless at /hidden is not of type integer."},

			{"a spread object", "GET /spread?a=1&b=x", nil, "spread", ""},
			{"a spread object, not a number", "GET /spread?a=SUBMITTED", nil, "", "object"},
			{"a spread object, another member", "GET /spread?a=1&c=SUBMITTED", nil, "", "does not declare"},
			{"a spread object, a member twice", "GET /spread?a=1&a=SUBMITTED", nil, "", "The query parameter object at /a is not of type integer."},
			{"a spread object by its name", "GET /spread?object=SUBMITTED", nil, "", "does not declare"},
			{"an open spread object", "GET /open?a=1&b=2", nil, "open", ""},
			{"an open spread object, not a number", "GET /open?a=1&b=SUBMITTED", nil, "", "object"},
			{"an open spread object, a member twice", "GET /open?a=1&a=SUBMITTED", nil, "", "The query parameter object at /* is not of type integer."},
			{"an open spread object, a name that is not text", "GET /open?%ff=1", nil, "", "not text"},

			{"JSON", "GET /search?json=%7B%22a%22:1%7D", nil, "search", ""},
			{"JSON, another member", "GET /search?json=%7B%22SUBMITTED%22:1%7D", nil, "", "json"},
			{"JSON, malformed", "GET /search?json=%7BSUBMITTED", nil, "", "json"},
			{"JSON twice", "GET /search?json=%7B%7D&json=SUBMITTED", nil, "", "more than once"},

			{"a header", "GET /search", []string{"X-Kind: a"}, "search", ""},
			{"a header of another value", "GET /search", []string{"X-Kind: SUBMITTED"}, "", "The header parameter X-Kind is not one of a, b."},
			{"a header twice", "GET /search", []string{"X-Kind: a", "x-kind: SUBMITTED"}, "", "more than once"},
			{"a header that is not text", "GET /search", []string{"X-Kind: \xff"}, "", "not text"},
			{"undeclared headers are nobody's business", "GET /search", []string{"X-Other: SUBMITTED", "X-Other: again"}, "search", ""},
			{"required ones", "GET /required?text=a", []string{"X-Required: a"}, "required", ""},
			{"a required one missing", "GET /required", []string{"X-Required: a"}, "", "The query parameter text is missing."},
			{"a required header missing", "GET /required?text=a", nil, "", "The header parameter X-Required is missing."},
			{"a cookie", "GET /cookie", []string{"Cookie: a=b; session=abc"}, "cookie", ""},
			{"a cookie missing", "GET /cookie", nil, "", "The cookie parameter session is missing."},
			{"a cookie too long", "GET /cookie", []string{"Cookie: session=SUBMITTED"}, "", "The cookie parameter session is longer than 5 characters."},
			{"a cookie twice", "GET /cookie", []string{"Cookie: session=a; session=SUBMITTED"}, "", "more than once"},
			{"a cookie twice, in two headers", "GET /cookie", []string{"Cookie: session=a", "Cookie: session=SUBMITTED"}, "", "more than once"},

			{"a path parameter", "GET /items/abcd", nil, "item", ""},
			{"a path parameter too long", "GET /items/SUBMITTED", nil, "", "The path parameter id is longer than 4 characters."},
			{"counted unescaped", "GET /items/%C3%A9%C3%A9%C3%A9%C3%A9", nil, "item", ""},
			{"an escaped slash", "GET /items/a%2Fb", nil, "item", ""},
			{"an escaped slash, counted unescaped", "GET /items/a%2Fb%2F", nil, "item", ""},
			{"NUL in the path", "GET /items/a%00", nil, "", "The path parameter id is not text."},
			{"invalid UTF-8 in the path", "GET /items/%ff", nil, "", "The path parameter id is not text."},
			{"invalid UTF-8 beside an escaped slash", "GET /items/%ff%2F", nil, "", "The path parameter id is not text."},
			{"escaped twice", "GET /items/%2541", nil, "item", ""},
			{"escaped twice, too long when unescaped once", "GET /items/%252525", nil, "", "The path parameter id is longer than 4 characters."},
			{"a number in the path", "GET /numbers/5", nil, "number", ""},
			{"no number in the path", "GET /numbers/SUBMITTED", nil, "", "The path parameter n is not of type integer."},
			{"two path parameters", "GET /items/a/parts/b", nil, "part", ""},

			{"of the path item", "GET /items/a?q=x&list=a&list=b", nil, "item", ""},
			{"of the path item, twice", "GET /items/a?q=x&q=SUBMITTED", nil, "", "more than once"},
			{"overridden with an array", "PUT /items/a?q=x&q=y&list=a", nil, "overriding", ""},
			{"overridden with a scalar", "PUT /items/a?list=a&list=SUBMITTED", nil, "", "more than once"},
		} {
			t.Run(row.name, func(t *testing.T) {
				a := s.send(t, row.request, "", append(row.headers, good)...)
				if row.runs != "" {
					a.passed(t, row.runs)
					return
				}
				if detail := a.refused(t, 400, authz.InvalidParameter,
					""); !strings.Contains(detail, row.detail) {
					t.Errorf("the detail is %q, want it to contain %q", detail, row.detail)
				}
			})
		}
		// Echo routes these to the operation, with an invalid value of the parameter.
		for _, target := range []string{"/items/", "/items/a/b", "/items/a/", "/items//",
			"/items/a/parts/", "/items//parts/b", "/items/a/parts/b/c", "/numbers/5/6"} {
			s.send(t, "GET "+target, "", good).refused(t, 404, authz.NotFound, "")
			s.send(t, "PATCH "+target, "", good).refused(t, 404, authz.NotFound, "")
		}
	})
}

// TestHandlersSeeWhatWasValidated binds parameters like generated code, and compares them with the
// validated values.
func TestHandlersSeeWhatWasValidated(t *testing.T) {
	versions(t, validated, func(t *testing.T, document string) {
		s := start(t, document, small)
		good := s.bearer("")
		for target, expected := range map[string]string{
			"/items/abcd": "abcd", "/items/%2541": "%41", "/items/a%2Fb": "a/b", "/items/%2541%2F": "%41/", "/items/a+b": "a+b", "/items/a%20b": "a b", "/items/%25": "%", "/items/a:b": "a:b", "/items/..%2F": "../",
		} {
			var bound string
			s.answering(func(c echo.Context) error {
				if err := runtime.BindStyledParameterWithOptions("simple", "id", c.Param("id"),
					&bound, runtime.BindStyledParameterOptions{
						ParamLocation: runtime.ParamLocationPath, Required: true, Type: "string",
						ValueIsUnescaped: c.Request().URL.RawPath == "",
					}); err != nil {
					return err
				}
				return c.NoContent(http.StatusNoContent)
			})
			s.send(t, "GET "+target, "", good).passed(t, "item")
			if bound != expected {
				t.Errorf("GET %s: the handler is given the id %q, want %q", target, bound,
					expected)
			}
		}

		// encoding/json accepts TEXT as text; the validator has validated text only.
		var bound struct {
			Text  string `json:"text"`
			Level int64  `json:"level"`
		}
		var raw []byte
		s.answering(func(c echo.Context) error {
			raw = authz.RawBody(c.Request().Context())
			r := c.Request()
			r.Body, _ = r.GetBody() // the stack has read it
			if err := c.Bind(&bound); err != nil {
				return err
			}
			return c.NoContent(http.StatusNoContent)
		})
		sent := `{"text": "ok", "TEXT": "much too long", "Level": 7, "level": 9007199254740993}`
		s.send(t, "POST /json", sent, good, jsonType).passed(t, "json")
		if bound.Text != "ok" || bound.Level != 9007199254740993 {
			t.Errorf("generated code binds %+v, want the members that were validated", bound)
		}
		if string(raw) != sent {
			t.Errorf("RawBody returns %q, want the body as it was sent", raw)
		}
		s.answering(nil)

		body := ` {"text":"ok"} `
		if ran := s.send(t, "POST /json", body, good, jsonType).passed(t,
			"json"); ran.body != body {
			t.Errorf("the handler reads %q, want the body as sent", ran.body)
		}
		if ran := s.send(t, "POST /json", "a\nb", good, "Content-Type: text/plain").passed(t,
			"json"); ran.body != "a\nb" {
			t.Errorf("the handler reads %q, want the body as sent", ran.body)
		}
	})
}

// TestDefaults: absent parameters have the defaults of the document.
func TestDefaults(t *testing.T) {
	versions(t, validated, func(t *testing.T, document string) {
		s := start(t, document, nil)
		var outside http.Header // the request as it stood before the gate
		s.echo.Pre(func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				r := c.Request()
				err := next(c)
				outside = r.Header
				if r.URL.RawQuery != "" {
					t.Errorf("the query of the original request is %q, want it unchanged",
						r.URL.RawQuery)
				}
				return err
			}
		})
		ran := s.send(t, "GET /search", "", s.bearer("")).passed(t, "search")
		if limit, header := ran.query.Get("limit"), ran.header.Get("X-Default"); limit != "10" ||
			header != "given" {
			t.Errorf("the handler gets limit %q and X-Default %q, want 10 and given", limit,
				header)
		}
		if outside.Get("X-Default") != "" {
			t.Error("the default was written into the original request")
		}
	})
}

func TestBodies(t *testing.T) {
	versions(t, validated, func(t *testing.T, document string) {
		s := start(t, document, small)
		good := s.bearer("")
		limit := strings.Repeat(" ", maxBody-2) + "{}"
		chunked := func(body string) string {
			return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		}
		for _, row := range []struct {
			name    string
			request string
			body    string
			headers []string
			runs    string
			status  int
			kind    authz.Kind
			detail  string
		}{
			{"JSON", "POST /json", `{"text": "abc"}`, []string{jsonType}, "json", 0, "", ""},
			{"JSON, charset", "POST /json", `{}`, []string{"Content-Type: application/json; charset=UTF-8"}, "json", 0, "", ""},
			{"JSON, charset in quotes", "POST /json", `{}`, []string{`Content-Type: application/json;charset="utf-8"`}, "json", 0, "", ""},
			{"JSON, in capitals", "POST /json", `{}`, []string{"Content-Type: Application/JSON"}, "json", 0, "", ""},
			{"JSON by suffix", "POST /json", `{"text": "abc"}`, []string{"Content-Type: application/merge-patch+json"}, "json", 0, "", ""},
			{"text", "POST /json", "abc", []string{"Content-Type: text/plain"}, "json", 0, "", ""},
			{"chunked", "POST /json", chunked(`{"text": "abc"}`), []string{jsonType, "Transfer-Encoding: chunked"}, "json", 0, "", ""},
			{"asking first", "POST /json", `{}`, []string{jsonType, "Expect: 100-continue"}, "json", 0, "", ""},
			{"Content-Encoding: identity", "POST /json", `{}`, []string{jsonType, "Content-Encoding: Identity"}, "json", 0, "", ""},
			{"at the limit", "POST /json", limit, []string{jsonType}, "json", 0, "", ""},
			{"at the limit, chunked", "POST /json", chunked(limit), []string{jsonType, "Transfer-Encoding: chunked"}, "json", 0, "", ""},
			{"optional, none", "POST /maybe", "", nil, "maybe", 0, "", ""},
			{"optional, none, with a Content-Type", "POST /maybe", "", []string{jsonType, "Content-Length: 0"}, "maybe", 0, "", ""},
			{"optional, one", "POST /maybe", "{}", []string{jsonType}, "maybe", 0, "", ""},
			{"none declared, none sent", "POST /nothing", "", nil, "postNothing", 0, "", ""},
			{"none declared, of length 0", "POST /nothing", "", []string{"Content-Length: 0"}, "postNothing", 0, "", ""},
			{"none declared, chunked but empty", "POST /nothing", "0\r\n\r\n", []string{"Transfer-Encoding: chunked"}, "postNothing", 0, "", ""},
			{"a form", "POST /form", "n=5", []string{"Content-Type: application/x-www-form-urlencoded"}, "form", 0, "", ""},
			{"a form, a field that is not declared, which is left out", "POST /form", "n=5&SUBMITTED=1", []string{"Content-Type: application/x-www-form-urlencoded"}, "form", 0, "", ""},

			{"none declared", "POST /nothing", submitted, []string{jsonType}, "", 400, authz.InvalidBody, "does not accept a body"},
			{"none declared, chunked", "POST /nothing", chunked(submitted), []string{"Transfer-Encoding: chunked"}, "", 400, authz.InvalidBody, "does not accept a body"},
			{"none declared, on GET", "GET /nothing", submitted, nil, "", 400, authz.InvalidBody, "does not accept a body"},
			{"missing", "POST /json", "", nil, "", 400, authz.InvalidBody, "The body is missing."},
			{"missing, chunked", "POST /json", "0\r\n\r\n", []string{jsonType, "Transfer-Encoding: chunked"}, "", 400, authz.InvalidBody, "The body is missing."},
			{"white space", "POST /json", "  ", []string{jsonType}, "", 400, authz.InvalidBody, "The body is empty."},
			{"malformed", "POST /json", `{"text": SUBMITTED}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 9)."},
			{"cut off", "POST /json", `{"text": "SUBMITTED`, []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 19)."},
			{"something after", "POST /json", `{"text": "a"} SUBMITTED`, []string{jsonType}, "", 400, authz.InvalidBody, "The body has something after its JSON value."},
			{"a value after", "POST /json", `{"text": "a"}{}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body has something after its JSON value."},
			{"a member twice", "POST /json", `{"text": "a", "text": "SUBMITTED"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body has an object with two members of the same name (at byte 14)."},
			{"a member twice, escaped", "POST /json", `{"text": "a", "te\u0078t": "SUBMITTED"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body has an object with two members of the same name (at byte 14)."},
			{"a member twice, within", "POST /json", `{"items": [{"name": "a", "name": "SUBMITTED"}]}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body has an object with two members of the same name (at byte 25)."},
			{"a member twice, by suffix", "POST /json", `{"text": "a", "text": "SUBMITTED"}`, []string{"Content-Type: application/merge-patch+json"}, "", 400, authz.InvalidBody, "The body has an object with two members of the same name (at byte 14)."},
			{"invalid UTF-8", "POST /json", "{\"text\": \"\xff\"}", []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 10)."},
			{"half a surrogate", "POST /json", `{"text": "\ud800"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 10)."},
			{"a byte order mark", "POST /json", "\ufeff{}", []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 0)."},
			{"comments", "POST /json", "{} // SUBMITTED", []string{jsonType}, "", 400, authz.InvalidBody, "The body has something after its JSON value."},
			{"NaN", "POST /json", `{"level": NaN}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 10)."},
			{"ten thousand brackets", "POST /json", strings.Repeat("[", 990), []string{jsonType}, "", 400, authz.InvalidBody, "The body is not valid JSON (at byte 990)."},

			{"too long", "POST /json", `{"text": "SUBMITTED"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /text is longer than 5 characters."},
			{"another type", "POST /json", `{"level": "SUBMITTED"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /level is not of type integer."},
			{"no object", "POST /json", `"SUBMITTED"`, []string{jsonType}, "", 400, authz.InvalidBody, "The body is not of type object."},
			{"null", "POST /json", `null`, []string{jsonType}, "", 400, authz.InvalidBody, "The body is not of type object."},
			{"deep within", "POST /json", `{"items": [{"name": "a"}, {"name": "b", "next": {"name": "SUBMITTED"}}]}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /items/1/next/name does not match the pattern ^[a-z]+$."},
			{"a member missing", "POST /json", `{"items": [{}]}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /items/0/name is missing."},
			{"an undeclared member", "POST /closed", `{"SUBMITTED": 1}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /* is not declared in the schema."},
			{"an undeclared member in other letters", "POST /closed", `{"TEXT": "SUBMITTED"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /* is not declared in the schema."},
			{"a member by a name of the client", "POST /map", `{"SUBMITTED": "SUBMITTED"}`, []string{jsonType}, "", 400, authz.InvalidBody, "The body at /* is not of type integer."},
			{"text, too long", "POST /json", submitted, []string{"Content-Type: text/plain"}, "", 400, authz.InvalidBody, "The body is longer than 5 characters."},
			{"a form, another type", "POST /form", "n=SUBMITTED", []string{"Content-Type: application/x-www-form-urlencoded"}, "", 400, authz.InvalidBody, "The body at /n is not of type integer."},
			{"a form, malformed", "POST /form", "n=%zz", []string{"Content-Type: application/x-www-form-urlencoded"}, "", 400, authz.InvalidBody, "The body is not a valid form."},
			{"a form, an element that generated code would bind", "POST /form", "n=5&n[0]=7", []string{"Content-Type: application/x-www-form-urlencoded"}, "", 400, authz.InvalidBody, "The body at /n is sent as a value and as an object."},
			{"a form, a field twice", "POST /form", "n=5&n=7", []string{"Content-Type: application/x-www-form-urlencoded"}, "", 400, authz.InvalidBody, "The body at /n occurs more than once."},
			{"broken off", "POST /json", "5\r\n{}xSUBMITTED", []string{jsonType, "Transfer-Encoding: chunked"}, "", 400, authz.InvalidBody, "could not be read to its end"},

			{"no Content-Type", "POST /json", `{"text": "SUBMITTED"}`, nil, "", 415, authz.UnsupportedMediaType, "has 0 Content-Type headers"},
			{"no Content-Type, optional body", "POST /maybe", `{}`, nil, "", 415, authz.UnsupportedMediaType, "has 0 Content-Type headers"},
			{"two Content-Types", "POST /json", `{}`, []string{jsonType, jsonType}, "", 415, authz.UnsupportedMediaType, "has 2 Content-Type headers"},
			{"an empty Content-Type", "POST /json", `{}`, []string{"Content-Type:"}, "", 415, authz.UnsupportedMediaType, "malformed"},
			{"a malformed Content-Type", "POST /json", `{}`, []string{"Content-Type: application/json; SUBMITTED"}, "", 415, authz.UnsupportedMediaType, "malformed"},
			{"two in one Content-Type", "POST /json", `{}`, []string{"Content-Type: application/json, text/plain"}, "", 415, authz.UnsupportedMediaType, ""},
			{"an undeclared Content-Type", "POST /json", `<SUBMITTED/>`, []string{"Content-Type: application/xml"}, "", 415, authz.UnsupportedMediaType, "does not accept a body of this"},
			{"an undeclared one that the validator decodes", "POST /closed", "text: SUBMITTED", []string{"Content-Type: application/yaml"}, "", 415, authz.UnsupportedMediaType, "does not accept a body of this"},
			{"another charset", "POST /json", `{}`, []string{"Content-Type: application/json; charset=utf-16"}, "", 415, authz.UnsupportedMediaType, "charset"},
			{"another charset, in capitals", "POST /json", `{}`, []string{"Content-Type: application/json; CHARSET=ISO-8859-1"}, "", 415, authz.UnsupportedMediaType, "charset"},
			{"two charsets", "POST /json", `{}`, []string{"Content-Type: application/json; charset=utf-8; charset=utf-16"}, "", 415, authz.UnsupportedMediaType, "malformed"},
			{"Content-Encoding: gzip", "POST /json", `{}`, []string{jsonType, "Content-Encoding: gzip"}, "", 415, authz.UnsupportedMediaType, "Content-Encoding"},
			{"two Content-Encodings", "POST /json", `{}`, []string{jsonType, "Content-Encoding: identity", "Content-Encoding: br"}, "", 415, authz.UnsupportedMediaType, "Content-Encoding"},
			{"joined Content-Encodings", "POST /json", `{}`, []string{jsonType, "Content-Encoding: identity, gzip"}, "", 415, authz.UnsupportedMediaType, "Content-Encoding"},

			{"over the limit", "POST /json", limit + " ", []string{jsonType}, "", 413, authz.BodyTooLarge, "1000 bytes"},
			{"over the limit, chunked", "POST /json", chunked(limit + " "), []string{jsonType, "Transfer-Encoding: chunked"}, "", 413, authz.BodyTooLarge, "1000 bytes"},
			{"a body limit comes before the schema", "POST /json", `{"text": "SUBMITTED` + strings.Repeat("x", maxBody) + `"}`, []string{jsonType}, "", 413, authz.BodyTooLarge, "1000 bytes"},
		} {
			t.Run(row.name, func(t *testing.T) {
				a := s.send(t, row.request, row.body, append(row.headers, good)...)
				if row.runs != "" {
					ran := a.passed(t, row.runs)
					if sent := strings.TrimSuffix(row.body, "0\r\n\r\n"); sent != "" &&
						!strings.Contains(sent, ran.body) {
						t.Errorf("the handler reads %q, want what was sent: %q", ran.body,
							row.body)
					}
					return
				}
				if detail := a.refused(t, row.status, row.kind, ""); !strings.Contains(detail,
					row.detail) {
					t.Errorf("the detail is %q, want it to contain %q", detail, row.detail)
				}
			})
		}
		t.Run("a flood", func(t *testing.T) {
			a := s.exchange(t, "POST /json", &repeated{bytes: "100000\r\n" + strings.Repeat(" ",
				1<<20) + "\r\n", n: 200}, good, jsonType, "Transfer-Encoding: chunked")
			a.refused(t, 413, authz.BodyTooLarge, "")
			if a.read > 2*maxBody || a.received > 512<<10 || !a.Close {
				t.Errorf("of a flood, %d bytes were read and %d received, close is %v: want "+
					"little more than the limit", a.read, a.received, a.Close)
			}
			a = s.exchange(t, "POST /json", io.MultiReader(), good, jsonType,
				"Content-Length: 1001")
			a.refused(t, 413, authz.BodyTooLarge, "")
			if a.read != 0 {
				t.Errorf("%d bytes were read of a body whose length is over the limit, want "+
					"none", a.read)
			}
		})
	})
	t.Run("a lower limit of the server", func(t *testing.T) {
		s := start(t, validated, nil, func(next echo.HandlerFunc) echo.HandlerFunc {
			return func(c echo.Context) error {
				c.Request().Body = http.MaxBytesReader(c.Response(), c.Request().Body, 10)
				return next(c)
			}
		})
		s.send(t, "POST /json", `{"text": "abc"}`, s.bearer(""), jsonType).refused(t, 413,
			authz.BodyTooLarge, "")
	})
	t.Run("too slow", func(t *testing.T) {
		gate, err := authz.New(authz.Config{Document: load(t, validated),
			Verifier: newPrincipals(t, "x")})
		if err != nil {
			t.Fatal(err)
		}
		for cause, status := range map[error]int{os.ErrDeadlineExceeded: 408,
			io.ErrUnexpectedEOF: 400} {
			r := httptest.NewRequest("POST", "/maybe", io.MultiReader(strings.NewReader(submitted),
				iotest.ErrReader(cause)))
			r.Header = http.Header{"Authorization": {"Bearer x"},
				"Content-Type": {"application/json"}}
			_, err = gate.Check(r, "/maybe", nil)
			refused, ok := errors.AsType[*authz.Error](err)
			if !ok || refused.Status() != status || !errors.Is(err, cause) ||
				strings.Contains(err.Error(), submitted) {
				t.Errorf("a body that ends with %v: %v, want %d with the cause and without "+
					"the body", cause, err, status)
			}
		}
	})
	t.Run("no limit to speak of", func(t *testing.T) {
		s := start(t, validated, func(c *authz.Config) { c.MaxBodyBytes = 1<<63 - 1 })
		s.send(t, "POST /maybe", `[]`, s.bearer(""), jsonType).refused(t, 400, authz.InvalidBody,
			"")
		s.send(t, "POST /maybe", `{}`, s.bearer(""), jsonType).passed(t, "maybe")
	})
	t.Run("the default limit", func(t *testing.T) {
		s := start(t, validated, nil)
		s.send(t, "POST /maybe", strings.Repeat(" ", 1<<20-2)+"{}", s.bearer(""),
			jsonType).passed(t, "maybe")
		s.send(t, "POST /maybe", strings.Repeat(" ", 1<<20-1)+"{}", s.bearer(""),
			jsonType).refused(t, 413, authz.BodyTooLarge, "")
	})
}

// TestJSONSchema2020 tests keywords that kin-openapi's own validator only enforces in documents of
// OpenAPI 3.1.
func TestJSONSchema2020(t *testing.T) {
	rows := []struct {
		schema          string
		valid, notValid []string
	}{
		{`{const: 1}`, []string{`1`, `1.0`}, []string{`2`, `"1"`}},
		{`{type: object, properties: {a: {const: x}}}`, []string{`{"a":"x"}`, `{}`}, []string{`{"a":"y"}`}},
		{`{patternProperties: {"^n_": {type: integer}}}`, []string{`{"n_a":1}`, `{"a":"x"}`}, []string{`{"n_a":"x"}`}},
		{`{dependentRequired: {a: [b]}}`, []string{`{"a":1,"b":1}`, `{"b":1}`}, []string{`{"a":1}`}},
		{`{dependentSchemas: {a: {required: [b]}}}`, []string{`{"a":1,"b":1}`, `{"b":1}`}, []string{`{"a":1}`}},
		{`{if: {properties: {a: {const: 1}}, required: [a]}, then: {required: [b]}, else: {required: [c]}}`, []string{`{"a":1,"b":1}`, `{"c":1}`}, []string{`{"a":1}`, `{"a":2}`}},
		{`{allOf: [{properties: {a: true}}], unevaluatedProperties: false}`, []string{`{"a":1}`}, []string{`{"a":1,"b":1}`}},
		{`{prefixItems: [{type: string}, {type: integer}], unevaluatedItems: false}`, []string{`["a",1]`, `["a"]`}, []string{`["a","b"]`, `["a",1,2]`}},
		{`{prefixItems: [{type: string}], items: {type: integer}}`, []string{`["a",1]`}, []string{`[1]`, `["a","b"]`}},
		{`{type: array, contains: {type: integer}, minContains: 2, maxContains: 3}`, []string{`[1,2]`, `["a",1,2,3]`}, []string{`[1]`, `[1,2,3,4]`}},
		{`{propertyNames: {pattern: "^[a-z]+$"}}`, []string{`{"a":1}`}, []string{`{"A":1}`}},
		{`{type: [string, "null"]}`, []string{`"a"`, `null`}, []string{`1`}},
		{`{type: integer, exclusiveMinimum: 3}`, []string{`4`}, []string{`3`}},
		{`{enum: [a, null]}`, []string{`"a"`, `null`}, []string{`"b"`}},
		{`{type: object, properties: {a: {const: 1}, b: {$ref: "#/components/schemas/Closed"}}}`, []string{`{"a":1,"b":{"x":1}}`}, []string{`{"a":2,"b":{"x":1}}`, `{"a":1,"b":{"x":2}}`, `{"b":{"y":1}}`}},
		{`{$ref: "#/components/schemas/Tree"}`, []string{`{"kind":"t","next":{"kind":"t"}}`}, []string{`{"kind":"t","next":{"kind":"u"}}`}},
		{`{$ref: "#/components/schemas/Closed", required: [x]}`, []string{`{"x":1}`}, []string{`{}`, `{"x":2}`}},
		{`false`, nil, []string{`1`, `null`}},
	}
	var paths strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&paths, "  /%d: {post: {operationId: o%d, security: [], requestBody: "+
			"{required: true, content: {application/json: {schema: %s}}}, responses: {'204': "+
			"{description: Done.}}}}\n", i, i, row.schema)
	}
	s := start(t, "openapi: 3.1.0\ninfo: {title: T, version: v}\npaths:\n"+paths.String()+`
  /parameter: {get: {operationId: parameter, security: [], parameters: [{name: q, in: query, schema: {type: string, const: x}}], responses: {'204': {description: Done.}}}}
components:
  schemas:
    Closed: {type: object, unevaluatedProperties: false, properties: {x: {const: 1}}}
    Tree: {type: object, properties: {kind: {const: t}, next: {$ref: "#/components/schemas/Tree"}}}
`, nil)
	for i, row := range rows {
		for _, body := range row.valid {
			if a := s.send(t, fmt.Sprintf("POST /%d", i), body, jsonType); a.ran == nil {
				t.Errorf("%s: %s is refused: %s", row.schema, body, a.body)
			}
		}
		for _, body := range row.notValid {
			a := s.send(t, fmt.Sprintf("POST /%d", i), body, jsonType)
			if a.ran != nil {
				t.Errorf("%s: %s passes", row.schema, body)
				continue
			}
			a.refused(t, 400, authz.InvalidBody, "")
		}
	}
	s.send(t, "GET /parameter?q=x", "").passed(t, "parameter")
	s.send(t, "GET /parameter?q=y", "").refused(t, 400, authz.InvalidParameter, "")
}

// TestSchemasThatContainThemselves: compiling them ends, and so does decoding a parameter. One that
// is composed of itself is a fault of the document.
func TestSchemasThatContainThemselves(t *testing.T) {
	s := start(t, `
openapi: 3.1.0
info: {title: T, version: "1"}
paths:
  /a:
    get:
      operationId: a
      security: []
      parameters:
        - {name: deep, in: query, style: deepObject, explode: true, schema: {$ref: "#/components/schemas/Object"}}
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Object"}}}}
      responses: {"204": {description: Done.}}
components:
  schemas:
    Object: {type: object, properties: {next: {$ref: "#/components/schemas/Object"}, n: {anyOf: [{type: integer}, {$ref: "#/components/schemas/Object"}]}}}
`, nil)
	for _, target := range []string{"/a", "/a?deep[n]=1", "/a?deep[next][n]=1"} {
		s.send(t, "GET "+target, "").passed(t, "a")
	}
	for _, target := range []string{"/a?deep[next][next][n]=SUBMITTED"} {
		s.send(t, "GET "+target, "").refused(t, 400, authz.InvalidParameter, "")
	}
	s.send(t, "GET /a", `{"next": {"next": {"n": "SUBMITTED"}}}`, jsonType).refused(t, 400,
		authz.InvalidBody, "")
}

// TestUnenforceableSchemas: a schema with a keyword that cannot be enforced is a fault of the
// document.
func TestUnenforceableSchemas(t *testing.T) {
	const document = "openapi: 3.1.0\ninfo: {title: T, version: v}\npaths: {/a: {post: " +
		"{operationId: a, security: [], requestBody: {content: {application/json: {schema: " +
		"%s}}}, responses: {'204': {description: Done.}}}}}\n"
	for schema, served := range map[string]bool{
		`{const: 1, patternProperties: {"^a": {type: string}}}`:                     true,
		`{const: 1, patternProperties: {"(?=a)": {type: string}}}`:                  true,
		`{properties: {a: {const: 1}, b: {items: {patternProperties: {"(": {}}}}}}`: false,
		`{type: string, pattern: '^[\u0041-\u005a]+$'}`:                             true,
		`{type: string, pattern: '[_-.]'}`:                                          false,
		`{type: string, maxLenght: 5}`:                                              false,
		`{type: string, pattern: '^[A-Z]+$'}`:                                       true,
	} {
		_, err := authz.Compile(load(t, fmt.Sprintf(document, schema)))
		if (err == nil) != served {
			t.Errorf("schema %s: %v, want it to be served: %v", schema, err, served)
		}
		if err != nil && !slices.ContainsFunc(faults(t, err), func(f *authz.Fault) bool {
			return f.Path == "/a"
		}) {
			t.Errorf("schema %s: the fault does not name the operation: %v", schema, err)
		}
	}
}

// TestViolations: a refusal lists all errors of parameters and body, by names of the document only.
func TestViolations(t *testing.T) {
	s := start(t, `
openapi: 3.1.0
info: {title: T, version: "1"}
paths:
  /a/{id}:
    post:
      operationId: a
      security: []
      parameters:
        - {name: id, in: path, required: true, schema: {type: integer}}
        - {name: limit, in: query, schema: {type: integer, maximum: 10}}
        - {name: filter, in: query, style: deepObject, schema: {type: object, properties: {n: {type: integer}}}}
      requestBody:
        content:
          application/json:
            schema: {type: object, required: [name], properties: {name: {type: string}, list: {type: array, items: {type: integer}}, secret: {type: string, readOnly: true}, email: {type: string, format: email}}, additionalProperties: {type: integer}}
      responses: {"204": {description: Done.}}
  /deep:
    post:
      operationId: deep
      security: []
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Deep"}}}}
      responses: {"204": {description: Done.}}
components:
  schemas:
    Deep: {oneOf: [{properties: {a: {$ref: "#/components/schemas/Deep"}}}, {properties: {a: {$ref: "#/components/schemas/Deep"}}}, {type: "null"}]}
`, func(c *authz.Config) { c.IgnoreFormats, c.RefuseReadOnly = []string{"email"}, true })
	violations := func(a *answered) (all []authz.Violation) {
		var problem authz.Problem
		if err := json.Unmarshal(a.body, &problem); err != nil {
			t.Fatal(err)
		}
		for _, v := range problem.Errors {
			if v.Detail == "" {
				t.Errorf("%+v has no detail", v)
			}
			v.Detail = ""
			all = append(all, v)
		}
		return all
	}
	body := `{"list": [1, "SUBMITTED"], "SUBMITTED": "x", "secret": "SUBMITTED", "email": "SUBMITTED"}`
	a := s.send(t, "POST /a/SUBMITTED?limit=11&filter[n]=SUBMITTED", body, jsonType)
	a.refused(t, 400, authz.InvalidParameter, "")
	if got, expected := violations(a), []authz.Violation{
		{In: "path", Parameter: "id", Keyword: "type"},
		{In: "query", Parameter: "limit", Keyword: "maximum"},
		{In: "query", Parameter: "filter", Pointer: "#/n", Keyword: "type"},
		{Pointer: "#/name", Keyword: "required"},
		{Pointer: "#/list/1", Keyword: "type"},
		{Pointer: "#/*", Keyword: "type"},
		{Pointer: "#/secret", Keyword: "readOnly"},
	}; !slices.Equal(got, expected) {
		t.Errorf("the errors are\n%+v\nwant\n%+v", got, expected)
	}
	a = s.send(t, "POST /a/1", `{"name": "a", "list": [`+strings.Repeat(`"x",`, 30)+`1]}`, jsonType)
	a.refused(t, 400, authz.InvalidBody, "")
	if got := violations(a); len(got) != 20 {
		t.Errorf("there are %d errors, want 20", len(got))
	}
	a = s.send(t, "POST /a/1", `[]`, jsonType)
	if got := violations(a); !slices.Equal(got,
		[]authz.Violation{{Pointer: "#", Keyword: "type"}}) {
		t.Errorf("the errors are %+v, want one of the whole body", got)
	}

	nested := strings.Repeat(`{"a":`, 500) + `0` + strings.Repeat(`}`, 500)
	a = s.send(t, "POST /deep", nested, jsonType)
	if detail := a.refused(t, 400, authz.InvalidBody, ""); !strings.Contains(detail,
		"too much work") {
		t.Errorf("the detail is %q", detail)
	}
	r := httptest.NewRequest("POST", "/deep", strings.NewReader(nested))
	r.Header.Set("Content-Type", "application/json")
	if _, err := s.gate.Check(r, "/deep", nil); err == nil ||
		!strings.Contains(err.Error(), "budget exceeded") {
		t.Errorf("the cause is %v, want the budget", err)
	}
}

// FuzzRequest: every request is admitted, or refused as a fault of the client. There is no panic
// and no 500.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][5]string{
		{"text=a&limit=5&tag=a&tag=b&csv=1,2", "abcd", "a", "session=a", `{"text":"a","items":[{"name":"a"}]}`},
		{"filter[state]=a&filter[level]=1&open[a]=1&open[b]=2&json={}&wrapped=a", "%2541", "b", "session=a; session=b", `{"level":1e400}`},
		{"filter[level]=1&filter[level][x]=2", "1", "", "", "[]"},
		{"open[a][b]=1&open[a]=1&a=1&b=x", "-0", "\xff", "=", `"\ud800"`},
		{"a=1;b=2&%zz", "\x00", "a,b", "session=\"", "n=1&n=2"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	var gates []*authz.Gate
	verifier := newPrincipals(f, "x")
	for _, version := range []string{"3.1.0", "3.0.3"} {
		gate, err := authz.New(authz.Config{Document: load(f, strings.Replace(validated, "3.1.0",
			version, 1)), Verifier: verifier})
		if err != nil {
			f.Fatal(err)
		}
		gates = append(gates, gate)
	}
	f.Fuzz(func(t *testing.T, query, id, header, cookie, body string) {
		for _, gate := range gates {
			for _, o := range gate.Plan().Operations() {
				for _, contentType := range []string{"application/json",
					"application/x-www-form-urlencoded", "text/plain"} {
					if o.Method == http.MethodGet && contentType != "text/plain" {
						continue
					}
					r := httptest.NewRequest(o.Method, "/", strings.NewReader(body))
					r.URL.RawQuery = query
					r.Header = http.Header{"Authorization": {"Bearer x"}, "X-Kind": {header},
						"Cookie": {cookie}, "Content-Type": {contentType}}
					if o.Method == http.MethodGet {
						r.Body, r.ContentLength = http.NoBody, 0
					}
					_, err := gate.Check(r, o.Path, func(string) string { return id })
					if refused, ok := errors.AsType[*authz.Error](err); err != nil &&
						(!ok || refused.Status() >= 500) {
						t.Errorf("%s %s?%s: %v", o.Method, o.Path, query, err)
					}
				}
			}
		}
	})
}

// TestUnenforceableBesideReferences: a schema that has such keywords and does not compile together
// with its references must not be validated without them. The start, or the request, is refused.
func TestUnenforceableBesideReferences(t *testing.T) {
	for _, row := range []struct{ schema, components, bad string }{
		// const must be enforced although $defs is replaced
		{`{"$defs": {"q": {"$dynamicAnchor": "q", "const": 1}}, "properties": {"x": {"$dynamicRef": "#q"}, "y": {"$ref": "#/components/schemas/K"}}}`, `"K": {"type": "object", "properties": {"k": {"const": "a"}}}`, `{"y":{"k":"b"}}`},
		{`{"$defs": {"q": {"$anchor": "q", "const": 1}}, "properties": {"x": {"$dynamicRef": "#q"}, "y": {"$ref": "#/components/schemas/K"}}}`, `"K": {"type": "object", "properties": {"k": {"type":"string"}}}`, `{"x":2}`},
		// $dynamicRef must be enforced
		{`{"properties": {"y": {"$ref": "#/components/schemas/Q"}, "x": {"$dynamicRef": "#q"}}}`, `"Q": {"$dynamicAnchor": "q", "type": "integer"}`, `{"x":"a"}`},
	} {
		doc := `{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/o": {"post": {"operationId": "o", "security": [],
		"responses": {"default": {"description": "any"}}, "requestBody": {"content": {"application/json": {"schema": ` + row.schema + `}}}}}}, "components": {"schemas": {` + row.components + `}}}`
		gate, err := authz.New(authz.Config{Document: load(t, doc), Verifier: newPrincipals(t)})
		if err != nil {
			t.Logf("refused at start, good: %v", err)
			continue
		}
		r := httptest.NewRequest("POST", "/o", strings.NewReader(row.bad))
		r.Header.Set("Content-Type", "application/json")
		if _, err := gate.Check(r, "/o", nil); err == nil {
			t.Errorf("%s passes, against %s with %s", row.bad, row.schema, row.components)
		} else {
			t.Logf("refused, good: %v", err)
		}
	}
}
