package main

import (
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestReadsAsLoader: a document is the one that the loader reads, with the same places.
func TestReadsAsLoader(t *testing.T) {
	documents := map[string]string{
		"strange": `{"openapi": "3.1.0", "info": {"title": "é \u00fc \n\t\" \\ ü", "version": "1"},
			"x-<<": {"<<": 1e3, "yes": [true, null, -0.5, 12345678901234567890, "1", "~", "2020-01-01"]},
	"paths" : {"/ü/{a}":{"get":{"security":[],"parameters":[{"name":"a","in":"path","required":true,
	  "schema":{"type":["string","null"],"additionalProperties":{"type":"integer","maximum":7}}}],
	  "responses":{"200":{"description":""}},
	  "callbacks":{"c":{"{$url}":{"post":{"responses":{"2XX":{"description":"d"}}}}}}}}},
	"components":{"schemas":{"A":{"const":null,"allOf":[{"$ref":"#/components/schemas/B"},true]},
	"B":{"exclusiveMinimum":1,"enum":[1,2.5,"x"],"default":{"a":1}}}}}`,
	}
	documents["strange.yaml"] = `# A comment
openapi: 3.1.0
info: {title: Ü, version: 2020-01-01, x-version: 2020-01-01T00:00:00Z, x-numbers: [0o17, 0x1F, 1_000, -.5, 1e3]}
x-18_24: {yes: ~, 1: on, "quoted": 'it''s', .5: [a
    b]}
x-text: |
  several
  lines
x-folded: >-
  one
  line
paths:
  /a/{b}:
    parameters:
      -
        name: b
        in: path
        required: true
        schema: {type: [string, "null"], const: null}
    get: # who
      security: []
      responses:
        200: {description: fine}
        4XX:
          description: "no\tno"
components:
  schemas: {A: {$ref: '#/components/schemas/B'}, B: true, C: {enum: [no, 1.0, 2020-01-01]}}
`
	documents["aliases.yaml"] = `openapi: 3.1.0
info: &info {title: t, version: "1"}
x-info: {<<: *info, x: !local y}
paths: {}
`
	for _, name := range []string{"library.yaml", "quickstart.yaml", "warehouse.yaml"} {
		file := filepath.Join("..", "..", "testdata", name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents[name], documents[name+" as JSON"] = string(text), asJSON(t, file)
	}
	if dir := os.Getenv("OASGATE_TEST_DOCUMENTS"); dir != "" {
		files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			documents[filepath.Base(file)] = string(text)
		}
	}
	for name, text := range documents {
		t.Run(name, func(t *testing.T) {
			root := &url.URL{Path: name}
			load := func(
				load func(*openapi3.Loader, []byte, *url.URL) (*openapi3.T, error),
			) *openapi3.T {
				loader := openapi3.NewLoader()
				loader.IncludeOrigin = true
				doc, err := load(loader, []byte(text), root)
				if err != nil {
					t.Fatal(err)
				}
				return doc
			}
			want := load((*openapi3.Loader).LoadFromDataWithPath)
			c := comparer{t: t, seen: map[[2]uintptr]bool{}}
			c.equal("", reflect.ValueOf(want), reflect.ValueOf(load(loadEverything)))
		})
	}
}

func loadEverything(
	loader *openapi3.Loader,
	text []byte,
	location *url.URL,
) (*openapi3.T, error) {
	return loadData(loader, text, everything, location)
}

// asJSON returns a YAML document as JSON on several lines.
func asJSON(t *testing.T, file string) string {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := doc.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), `,"`, ",\n \"")
}

// comparer compares two documents, with places but without where blocks end.
type comparer struct {
	t      *testing.T
	seen   map[[2]uintptr]bool
	failed int
}

func (c *comparer) equal(at string, want, got reflect.Value) {
	if c.failed > 10 {
		return
	}
	fail := func() {
		c.failed++
		c.t.Errorf("%s: got %v, want %v", at, got, want)
	}
	switch want.Kind() {
	case reflect.Pointer:
		if want.IsNil() || got.IsNil() {
			if want.IsNil() != got.IsNil() {
				fail()
			}
			return
		}
		pair := [2]uintptr{want.Pointer(), got.Pointer()}
		if c.seen[pair] {
			return
		}
		c.seen[pair] = true
		c.equal(at, want.Elem(), got.Elem())
	case reflect.Interface:
		if want.IsNil() || got.IsNil() || want.Elem().Type() != got.Elem().Type() {
			if !want.IsNil() || !got.IsNil() {
				fail()
			}
			return
		}
		c.equal(at, want.Elem(), got.Elem())
	case reflect.Struct:
		for i := range want.NumField() {
			switch name := want.Type().Field(i).Name; {
			case name == "EndLine", name == "EndColumn", name == "Sequences":
			case name == "Fields" && want.Field(i).IsNil(): // of maps, whose members have them
			case name == "Key" && strings.Contains(at, ".Schema."): // its parent's, to the loader
			default:
				c.equal(at+"."+name, want.Field(i), got.Field(i))
			}
		}
	case reflect.Slice:
		if want.Len() != got.Len() {
			fail()
			return
		}
		for i := range want.Len() {
			c.equal(at+"[]", want.Index(i), got.Index(i))
		}
	case reflect.Map:
		if want.Len() != got.Len() {
			fail()
			return
		}
		for _, key := range want.MapKeys() {
			if !got.MapIndex(key).IsValid() {
				fail()
				return
			}
			c.equal(at+"."+key.String(), want.MapIndex(key), got.MapIndex(key))
		}
	default:
		if !want.Equal(got) {
			fail()
		}
	}
}

func TestParseJSONRefuses(t *testing.T) {
	for _, text := range []string{
		``, `{`, `{"a":1,"a":2}`, `{"a":1} {}`, `{"a":01}`, "{\"a\":\"\xff\"}", `{"a":1]`, `{]`,
	} {
		if node, err := parseJSON([]byte(text)); err == nil {
			t.Errorf("%s is read as %v", text, node)
		}
	}
}
