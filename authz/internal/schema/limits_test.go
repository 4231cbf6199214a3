package schema

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

// limitCase is a valid request with a value that generated code does not bind exactly, as a row of
// SECURITY.md says. lint cannot report it, because it does not depend on the document alone.
// TestGuarantee sends it to generated handlers.
type limitCase struct {
	row       string // a text of SECURITY.md; "" if the value is bound exactly
	operation map[string]any
	query     string
	header    http.Header
	media     string // of the body
	body      string // "" if none is sent
	bound     string // the parameters or the body; "" if the request is refused
}

func limits(old bool) []limitCase {
	nullable := func(s map[string]any) map[string]any {
		if old {
			s["nullable"] = true
		} else {
			s["type"] = []any{s["type"], "null"}
		}
		return s
	}
	typed := func(name string) map[string]any { return object("type", name) }
	parameter := func(name, in string, required bool, more ...any) map[string]any {
		return object("parameters", []any{
			merged(object("name", name, "in", in, "required", required), object(more...)),
		})
	}
	body := func(media string, required bool, schema map[string]any) map[string]any {
		return object("requestBody", object("required", required, "content",
			object(media, object("schema", schema))))
	}
	member := func(name string, schema map[string]any) map[string]any {
		return object("type", "object", "properties", object(name, schema))
	}
	list := func(items map[string]any) map[string]any {
		return member("l", object("type", "array", "items", items))
	}
	date := object("type", "string", "format", "date-time")
	const isJSON, isForm = "application/json", "application/x-www-form-urlencoded"
	const rounded = "Numbers with more digits than the Go type has are rounded"
	const empty = "an empty text in a required header or cookie"
	return []limitCase{
		// null
		{
			row: "`null` as a whole body", media: isJSON, body: `null`, bound: `{}`,
			operation: body(isJSON, true, nullable(member("a", typed("string")))),
		},
		{
			row: "`null` as a whole body or a parameter with `content`", query: "p=null",
			bound: `{"p":0}`,
			operation: parameter("p", "query", false, "content", object(isJSON,
				object("schema", nullable(typed("integer"))))),
		},
		{
			row:   "An optional property that is `null` is bound like an absent one",
			media: isJSON, body: `{"a":null}`, bound: `{}`,
			operation: body(isJSON, true, member("a", nullable(typed("string")))),
		},
		{
			media: isJSON, body: `{"l":["a",null]}`, bound: `{"l":["a",null]}`,
			operation: body(isJSON, true, list(nullable(typed("string")))),
		},
		{
			media: isJSON, body: `{"l":[{"a":"x"},null]}`, bound: `{"l":[{"a":"x"},null]}`,
			operation: body(isJSON, true, list(nullable(member("a", typed("string"))))),
		},
		// an empty optional form
		{
			row: "an absent optional form, even if its schema requires fields", bound: `{"a":""}`,
			operation: body(isForm, false,
				merged(member("a", typed("string")), object("required", []any{"a"}))),
		},
		// leap seconds
		{
			row: "or of a leap second", media: isJSON, body: `{"t":"2016-12-31T23:59:60Z"}`,
			operation: body(isJSON, true, member("t", date)),
		},
		{
			row: "or of a leap second", query: "t=2016-12-31T23:59:60Z",
			operation: parameter("t", "query", false, "schema", date),
		},
		// rounding
		{
			row: rounded, media: isJSON, body: `{"n":0.12345678901234567890}`,
			bound:     `{"n":0.12345678901234568}`,
			operation: body(isJSON, true, member("n", typed("number"))),
		},
		{
			row: rounded, media: isJSON, body: `{"n":0.1234567890}`, bound: `{"n":0.12345679}`,
			operation: body(isJSON, true, member("n", object("type", "number", "format", "float"))),
		},
		{
			row: rounded, query: "n=0.12345678901234567890", bound: `{"n":0.12345678901234568}`,
			operation: parameter("n", "query", false, "schema", typed("number")),
		},
		// an empty header or cookie
		{
			row: empty, header: http.Header{"X-H": {""}},
			operation: parameter("X-H", "header", true, "schema", typed("string")),
		},
		{
			row: empty, header: http.Header{"Cookie": {"c="}},
			operation: parameter("c", "cookie", true, "schema", typed("string")),
		},
		{
			header: http.Header{"X-H": {""}}, bound: `{"X-H":""}`,
			operation: parameter("X-H", "header", false, "schema", typed("string")),
		},
		{
			header: http.Header{"Cookie": {"c="}}, bound: `{"c":""}`,
			operation: parameter("c", "cookie", false, "schema", typed("string")),
		},
	}
}

// testLimits sends the values to a strict and to a plain handler. The operation of the first value
// is operations[first].
func (g *generated) testLimits(t *testing.T, first int, urls []string) {
	t.Helper()
	file, err := os.ReadFile("../../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := strings.Cut(strings.Join(strings.Fields(string(file)), " "),
		"Values that generated code cannot bind exactly.")
	for i, l := range limits(g.old) {
		if !strings.Contains(rows, l.row) {
			t.Errorf("SECURITY.md does not say %q", l.row)
		}
		o := g.operations[first+i]
		s := &sentRequest{
			method: "POST", target: o.base, query: l.query, header: http.Header{},
			contentType: l.media,
		}
		if l.header != nil {
			s.header = l.header
		}
		if l.body != "" {
			s.header.Set("Content-Type", l.media)
			s.body = []byte(l.body)
		}
		if _, err := o.accepts(t, s); err != nil {
			t.Errorf("%s: %s is refused: %v", l.row, s, err)
		}
		for n, kind := range []string{"strict", "plain"} {
			if kind == "plain" && o.bodyType("") == "form" {
				continue // this handler binds no form
			}
			got, answer := s.send(t, urls[n])
			if text := l.of(t, got); text != l.bound || text == "" && answer[0] != '4' {
				t.Errorf("%s %s: %s: %s: bound %q, want %q: %s", g.version, kind, l.row, s, text,
					l.bound, answer)
			}
		}
	}
}

// of returns the part of an answer that was bound; "" for a refusal.
func (l *limitCase) of(t *testing.T, answer map[string]json.RawMessage) string {
	t.Helper()
	if answer == nil {
		return ""
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(answer["request"], &parts); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, part := range parts { // the only one
		if err := json.Compact(&text, part); err != nil {
			t.Fatal(err)
		}
	}
	return text.String()
}
