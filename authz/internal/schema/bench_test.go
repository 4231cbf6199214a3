package schema

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

const personSchemas = `S: {type: object, additionalProperties: false, required: [id, name, tags], properties: {id: {type: integer, minimum: 1}, name: {type: string, minLength: 1, maxLength: 100}, email: {type: string, format: email}, active: {type: boolean}, tags: {type: array, maxItems: 10, items: {type: string, maxLength: 20}}}}
L: {type: array, items: {$ref: '#/components/schemas/S'}}`

const person = `{"id":12345,"name":"Ada Lovelace","email":"ada@example.com","active":true,"tags":["mathematics","poetry","engines"]}`

type personValue struct {
	ID     int      `json:"id"`
	Name   string   `json:"name"`
	Email  *string  `json:"email,omitempty"`
	Active *bool    `json:"active,omitempty"`
	Tags   []string `json:"tags"`
}

func people() []byte {
	body := []byte("[")
	for len(body) < 100<<10 {
		body = fmt.Append(body, person, ",")
	}
	body[len(body)-1] = ']'
	return body
}

func BenchmarkValidate(b *testing.B) {
	s := compileS(b, v31, personSchemas, Options{})
	doc, _ := load(b, v31, personSchemas)
	list, err := NewCompiler(doc, Options{}).Schema(doc.Components.Schemas["L"])
	if err != nil {
		b.Fatal(err)
	}
	all := people()
	b.Run("small", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Validate([]byte(person)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("small decoded", func(b *testing.B) {
		var d Decoder
		text := []byte(person)
		b.ReportAllocs()
		for b.Loop() {
			var value personValue
			if err := d.Decode(text, &value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("100KB", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := list.Validate(all); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("100KB decoded", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var value []personValue
			if err := json.Unmarshal(all, &value); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestAllocations: a body that is accepted unchanged costs few allocations.
func TestAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("measured without the race detector")
	}
	s := compileS(t, v31, personSchemas, Options{})
	body := []byte(person)
	const most = 1 // the text for a format
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Validate(body); err != nil {
			t.Fatal(err)
		}
	}); n > most {
		t.Errorf("%v allocations, want at most %v", n, most)
	}

	var d Decoder
	const mostOfDecoding = 5 // the value, its list and two pointers, and a copy for all strings
	if n := testing.AllocsPerRun(100, func() {
		var value personValue
		if err := d.Decode(body, &value); err != nil {
			t.Fatal(err)
		}
	}); n > mostOfDecoding {
		t.Errorf("%v allocations for decoding, want at most %v", n, mostOfDecoding)
	}

	o, r, param := parameterRequest(t)
	const mostOfParameters = 8
	if n := testing.AllocsPerRun(100, func() {
		if _, err := o.Check(r, param, Content{}); err != nil {
			t.Fatal(err)
		}
	}); n > mostOfParameters {
		t.Errorf("%v allocations for parameters, want at most %v", n, mostOfParameters)
	}
}

func parameterRequest(t testing.TB) (*Operation, *http.Request, func(string) string) {
	t.Helper()
	o := mustOperation(t, v31,
		`parameters: [{name: id, in: path, required: true, schema: {type: string, format: uuid}}, {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100}}, {name: q, in: query, schema: {type: string, maxLength: 50}}, {name: X-Trace, in: header, schema: {type: string}}]`)
	r := httptest.NewRequest("POST", "/p/1?limit=10&q=abc", nil)
	r.Header.Set("X-Trace", "abc")
	return o, r, func(string) string { return "f81d4fae-7dec-11d0-a765-00a0c91e6bf6" }
}

func BenchmarkParameters(b *testing.B) {
	o, r, param := parameterRequest(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Check(r, param, Content{}); err != nil {
			b.Fatal(err)
		}
	}
}
