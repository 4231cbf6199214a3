package docs

import (
	"encoding/json"
	"go/format"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// Requests are checked in the language of the shell, which is the easiest to parse.
// impl/e2e/snippets_test.go runs the programs of all languages.
const snippetsDocument = `
openapi: 3.1.0
info: {title: things, version: "1"}
components:
  securitySchemes:
    bearerAuth: {type: http, scheme: bearer, x-scopes: {a: "", b: "", c: ""}}
    other: {type: http, scheme: bearer, x-scopes: {c: "", d: ""}}
  schemas:
    Endless: {type: object, required: [next], properties: {next: {$ref: "#/components/schemas/Endless"}}}
    Thing:
      type: object
      required: [name, count, tags, made, id, kind, parts]
      properties:
        id: {type: string, readOnly: true}
        name: {type: string, examples: ["<it's> & \"more\""]}
        count: {type: integer, minimum: 7}
        tags: {type: array, items: {type: boolean}}
        made: {type: string, format: date}
        kind: {enum: [round, square]}
        parts: {allOf: [{type: object, required: [x], properties: {x: {default: 0.5}}}, {type: object, required: [y], properties: {y: {type: string}}}]}
        note: {type: string}
security: [{bearerAuth: [a]}]
paths:
  /public:
    get: {operationId: public, security: [], responses: {default: {description: ""}}}
  /optional:
    get: {operationId: optional, security: [{}, {bearerAuth: [a]}], responses: {default: {description: ""}}}
  /any:
    get: {operationId: any, security: [{bearerAuth: []}], responses: {default: {description: ""}}}
  /both:
    get: {operationId: both, security: [{bearerAuth: [b, c], other: [c, d]}, {bearerAuth: [a]}], responses: {default: {description: ""}}}
  /things/{id}/{list}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string}, example: "a/b c?{d}"}
      - {name: list, in: path, required: true, schema: {type: array, items: {type: integer}}, examples: {some: {value: [1, 2]}}}
      - {name: limit, in: query, required: true, schema: {type: integer, default: 20}}
    get:
      operationId: parameters
      parameters:
        - {name: "ids[]", in: query, required: true, schema: {type: array, items: {type: string}}, example: ["x|y", "z&w"]}
        - {name: filter, in: query, required: true, content: {application/json: {example: {on: true}}}}
        - {name: X-Trace, in: header, required: true, schema: {type: string, example: "it's"}}
        - {name: session, in: cookie, required: true, schema: {type: string, example: s1}}
        - {name: left, in: query, schema: {type: string}, example: out}
        - {name: If-Match, in: header, schema: {type: string}, example: '"1"'}
        - {name: limit, in: query, required: true, schema: {type: integer}, example: 5}
      responses: {default: {description: ""}}
  /exotic:
    post:
      operationId: exotic
      parameters:
        - {name: deep, in: query, required: true, style: deepObject, schema: {type: object}, example: {a: {b: 1}}}
        - {name: objects, in: query, required: true, schema: {type: array, items: {type: object}}, example: [{a: 1}]}
        - {name: nothing, in: query, required: true, schema: {type: "null"}}
        - {name: endless, in: query, required: true, schema: {$ref: "#/components/schemas/Endless"}}
        - {name: authorization, in: header, required: true, schema: {type: string}, example: "Basic YTpi"}
      requestBody: {content: {multipart/form-data: {schema: {type: object, properties: {file: {type: string}}}}}}
      responses: {default: {description: ""}}
  /conditional:
    parameters: [{name: if-match, in: header, schema: {type: string}, example: '"1"'}]
    delete: {operationId: conditional, responses: {"428": {description: ""}, default: {description: ""}}}
  /schema:
    put:
      operationId: schema
      requestBody: {content: {text/plain: {example: no}, application/merge-patch+json: {schema: {$ref: "#/components/schemas/Thing"}}}}
      responses: {default: {description: ""}}
  /text:
    post:
      operationId: text
      requestBody: {content: {text/plain: {example: "It's\ntext"}}}
      responses: {default: {description: ""}}
`

func TestSnippetRequests(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(snippetsDocument))
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	snippets, err := NewSnippets(Values{Document: document, APIURL: "https://api.example.com/base/", Audience: "https://api.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		operation string
		scope     string   // the expected scope of the token; "-": there is no token
		call      []string // the arguments of curl with the request
	}{
		{"public", "-", []string{"GET", "https://api.example.com/base/public"}},
		{"optional", "-", []string{"GET", "https://api.example.com/base/optional"}},
		{"any", "", []string{"GET", "https://api.example.com/base/any"}},
		{"both", "b c d", []string{"GET", "https://api.example.com/base/both"}},
		{"parameters", "a", []string{
			"GET", "https://api.example.com/base/things/a%2Fb%20c%3F%7Bd%7D/1,2?ids%5B%5D=x%7Cy&ids%5B%5D=z%26w&filter=%7B%22on%22%3Atrue%7D&limit=5",
			"X-Trace: it's", "Cookie: session=s1",
		}},
		{"exotic", "a", []string{
			"POST", "https://api.example.com/base/exotic?deep%5Ba%5D%5Bb%5D=1&objects=%5B%7B%22a%22%3A1%7D%5D&nothing=string&endless=" +
				strings.Repeat("%7B%22next%22%3A", 9) + "null" + strings.Repeat("%7D", 9),
		}},
		{"conditional", "a", []string{"DELETE", "https://api.example.com/base/conditional", `if-match: "1"`}},
		{"schema", "a", []string{
			"PUT", "https://api.example.com/base/schema", "Content-Type: application/merge-patch+json",
			`{"count":7,"kind":"round","made":"2026-01-01","name":"<it's> & \"more\"","parts":{"x":0.5,"y":"string"},"tags":[true]}`,
		}},
		{"text", "a", []string{"POST", "https://api.example.com/base/text", "Content-Type: text/plain", "It's\ntext"}},
	} {
		snippet := snippets.Operations[test.operation]["curl"]
		if got := arguments(snippet.Call); !reflect.DeepEqual(got, test.call) {
			t.Errorf("%s: calls with\n%q, want\n%q", test.operation, got, test.call)
		}
		expected := []string{
			"https://YOUR_ISSUER/oauth/token",
			"grant_type=client_credentials", "client_id=YOUR_CLIENT_ID", "client_secret=YOUR_CLIENT_SECRET", "audience=https://api.example.com",
		}
		switch test.scope {
		case "-":
			expected = nil
		case "":
		default:
			expected = append(expected, "scope="+test.scope)
		}
		got := arguments(strings.SplitAfter(snippet.Token, "\nTOKEN=")[0])
		if !reflect.DeepEqual(got, expected) {
			t.Errorf("%s: gets its token with\n%q, want\n%q", test.operation, got, expected)
		}
	}
}

// arguments returns the words in single quotes, parsed like a shell.
func arguments(script string) (all []string) {
	for _, literal := range regexp.MustCompile(`'(?:[^']|'\\'')*'`).FindAllString(script, -1) {
		all = append(all, unquotedByShell(literal))
	}
	return all
}

func unquotedByShell(literal string) string {
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(literal, "'"), "'"), `'\''`,
		"'")
}

// Without settings there is a placeholder for each, in all languages and operations.
func TestSnippetsWithoutValues(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromFile("../testdata/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	snippets, err := NewSnippets(Values{Document: document})
	if err != nil {
		t.Fatal(err)
	}
	if len(snippets.Languages) != 10 {
		t.Errorf("there are %d languages, want the quickstart's ten", len(snippets.Languages))
	}
	for _, o := range authz.Describe(document) {
		for _, language := range snippets.Languages {
			snippet := snippets.Operations[o.ID][language.ID]
			if !strings.Contains(snippet.Call, "https://YOUR_API/") {
				t.Errorf("%s, %s: does not call https://YOUR_API/…:\n%s", o.ID, language.Name, snippet.Call)
			}
			public := o.Public() || len(o.Alternatives[0]) == 0
			for _, placeholder := range []string{"https://YOUR_ISSUER/oauth/token", "YOUR_CLIENT_ID", "YOUR_CLIENT_SECRET"} {
				if strings.Contains(snippet.Token, placeholder) == public {
					t.Errorf("%s, %s: %s is there: %t", o.ID, language.Name, placeholder, public)
				}
			}
			if strings.Contains(snippet.Program(), "audience") {
				t.Errorf("%s, %s: the token request has an audience that is not configured", o.ID,
					language.Name)
			}
			if strings.Contains(snippet.Program(), "<no value>") ||
				strings.HasPrefix(snippet.Program(), "\n") ||
				strings.HasSuffix(snippet.Program(), "\n\n") {
				t.Errorf("%s, %s: see the template:\n%q", o.ID, language.Name, snippet.Program())
			}
			if formatted, err := format.Source([]byte(snippet.Program())); language.ID == "go" &&
				(err != nil || string(formatted) != snippet.Program()) {
				t.Errorf("%s: not as gofmt would have it (%v):\n%s", o.ID, err, snippet.Program())
			}
		}
	}
}

func TestSnippetsRequireADocument(t *testing.T) {
	if _, err := NewSnippets(Values{}); err == nil {
		t.Error("NewSnippets accepts Values without a document")
	}
}

// FuzzLiterals checks the literals without compilers. impl/e2e/snippets_test.go checks them with
// compilers.
func FuzzLiterals(f *testing.F) {
	for _, s := range []string{
		"", `"`, `'`, `\`, `\"`, "$x${x}$(x)`x`", "#{x}#$x", `\(x)`, "??/", "???/", "\x00\x07\r\n\t\x7f", "\u0085\u00a0\u2028ü€😀", `\u000a`, "'''\"\"\"", "</script>", "\xff", "*/ //",
	} {
		f.Add(s)
	}
	escapes := map[string]string{ // in addition to the common ones
		"csharp": `u[0-9a-f]{4}`, "go": `u[0-9a-f]{4}|U[0-9a-f]{8}`, "java": `u[0-9a-f]{4}`, "node": `u[0-9a-f]{4}`, "objc": `[0-3][0-7]{2}|\?`,
		"php": `\$|u\{[0-9a-f]+\}`, "python": `u[0-9a-f]{4}|U[0-9a-f]{8}`, "ruby": `#|u\{[0-9a-f]+\}`, "swift": `u\{[0-9a-f]+\}`,
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := string([]rune(s)) // invalid UTF-8 is U+FFFD
		for _, language := range languages() {
			literal := language.literal(s)
			if language.ID == "curl" {
				if got := unquotedByShell(literal); got != strings.ReplaceAll(s, "\x00", "") ||
					strings.Contains(strings.ReplaceAll(literal[1:len(literal)-1], `'\''`, ""),
						"'") {
					t.Errorf("a shell reads %s as %q, want %q", literal, got, s)
				}
				continue
			}
			inner, whole := strings.CutPrefix(strings.TrimPrefix(literal, "@"), `"`)
			inner, ended := strings.CutSuffix(inner, `"`)
			if !whole || !ended ||
				!regexp.MustCompile(`^(?:[ !#-\[\]-~]|\\(?:`+escapes[language.ID]+
					`|["\\nrt]))*$`).MatchString(inner) {
				t.Errorf("%s: %s is not one string literal of printable ASCII, with escapes that "+
					"the language has", language.Name, literal)
			}
			bare := regexp.MustCompile(`\\.`).ReplaceAllString(inner, "")
			if language.ID == "php" && strings.Contains(bare, "$") || language.ID == "ruby" &&
				strings.Contains(bare, "#") {
				t.Errorf("%s: something is interpolated into %s", language.Name, literal)
			}
			if language.ID == "objc" && strings.Contains(inner, "??") {
				t.Errorf("there is a trigraph in %s", literal)
			}
			if language.ID == "java" &&
				regexp.MustCompile(`(?:^|[^\\])(?:\\\\)*\\u00(?:0a|0d|22|5c)`).MatchString(inner) {
				t.Errorf("to a compiler of Java %s ends early: it reads \\u before it reads "+
					"literals", literal)
			}
			var got string
			var err error
			switch language.ID {
			case "go", "python":
				got, err = strconv.Unquote(literal)
			case "csharp", "java", "node":
				err = json.Unmarshal([]byte(literal), &got)
			default:
				continue
			}
			if err != nil || got != text {
				t.Errorf("%s: %s is %q (%v), want %q", language.Name, literal, got, err, text)
			}
		}
	})
}

// TestSnippetsOfOtherSchemes: a program sends the credentials of the first alternative that it can
// satisfy.
func TestSnippetsOfOtherSchemes(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /header: {get: {operationId: header, security: [{key: []}], responses: {"204": {description: d}}}}
  /query: {get: {operationId: query, security: [{query: []}], parameters: [{name: q, in: query, required: true, schema: {type: string, example: a}}], responses: {"204": {description: d}}}}
  /cookie: {get: {operationId: cookie, security: [{cookie: []}], parameters: [{name: c, in: cookie, required: true, schema: {type: string, example: a}}], responses: {"204": {description: d}}}}
  /basic: {get: {operationId: basic, security: [{basic: []}], responses: {"204": {description: d}}}}
  /both: {get: {operationId: both, security: [{token: [read], key: []}], responses: {"204": {description: d}}}}
  /second: {get: {operationId: second, security: [{mtls: []}, {key: []}], responses: {"204": {description: d}}}}
  /none: {get: {operationId: none, security: [{}, {key: []}], responses: {"204": {description: d}}}}
components:
  securitySchemes:
    token: {type: http, scheme: bearer}
    key: {type: apiKey, in: header, name: X-Key}
    query: {type: apiKey, in: query, name: "my key"}
    cookie: {type: apiKey, in: cookie, name: sid}
    basic: {type: http, scheme: basic}
    mtls: {type: mutualTLS}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, dev := range []bool{false, true} {
		values := Values{Document: document, APIURL: "https://api.example.com"}
		key, basic := "YOUR_API_KEY", "Basic BASE64_OF_USER:PASSWORD"
		if dev {
			values.ClientID, values.ClientSecret = "full", "secret"
			key, basic = "secret", "Basic ZnVsbDpzZWNyZXQ="
		}
		snippets, err := NewSnippets(values)
		if err != nil {
			t.Fatal(err)
		}
		for id, expected := range map[string]struct {
			token bool
			parts []string
		}{
			"header": {false, []string{"X-Key: " + key}},
			"query":  {false, []string{"/query?q=a&my+key=" + key}},
			"cookie": {false, []string{"Cookie: c=a; sid=" + key}},
			"basic":  {false, []string{"Authorization: " + basic}},
			"both":   {true, []string{"X-Key: " + key, "Authorization: Bearer"}},
			"second": {false, []string{"X-Key: " + key}},
			"none":   {false, nil},
		} {
			curl := snippets.Operations[id]["curl"]
			if (curl.Token != "") != expected.token {
				t.Errorf("%s: gets a token: %t, want %t", id, curl.Token != "", expected.token)
			}
			if expected.parts == nil && strings.Contains(curl.Call, "--header") {
				t.Errorf("%s sends a header:\n%s", id, curl.Call)
			}
			for _, part := range expected.parts {
				if !strings.Contains(curl.Call, part) {
					t.Errorf("%s has no %s:\n%s", id, part, curl.Call)
				}
			}
		}
	}
}
