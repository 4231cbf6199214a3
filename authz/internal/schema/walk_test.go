package schema

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestWalk: the schemas are those of kin-openapi's own walk.
func TestWalk(t *testing.T) {
	const everywhere = `{"openapi": "3.1.0", "info": {"title": "t", "version": "1"},
"paths": {"/a": {"parameters": [{"$ref": "#/components/parameters/P"}, {"name": "q", "in": "query",
  "content": {"a/b": {"schema": {"type": "string"}}}}],
  "post": {"requestBody": {"$ref": "#/components/requestBodies/B"}, "responses": {"200":
    {"description": "", "headers": {"H": {"schema": {"type": "string"}}}, "content": {"a/b": {}}}},
  "callbacks": {"c": {"$ref": "#/components/callbacks/C"}}}}},
"webhooks": {"w": {"get": {"responses": {"200": {"$ref": "#/components/responses/R"}}}}},
"components": {
  "parameters": {"P": {"name": "p", "in": "query", "schema": {"not": {"if": {}, "then": {}, "else": {}}}}},
  "headers": {"H": {"schema": {"contains": {"contentSchema": {}}}}},
  "requestBodies": {"B": {"content": {"a/b": {"schema": {"$ref": "#/components/schemas/S"}}}}},
  "responses": {"R": {"description": "", "content": {"a/b": {"itemSchema": {"propertyNames": {}}}}}},
  "callbacks": {"C": {"{$url}": {"post": {"responses": {"200": {"description": "", "content":
    {"a/b": {"schema": {"unevaluatedItems": {"type": "string"}, "unevaluatedProperties": {"type": "string"}}}}}},
    "callbacks": {"again": {"$ref": "#/components/callbacks/C"}}}}}},
  "schemas": {"S": {"properties": {"s": {"$ref": "#/components/schemas/S"}}, "items": {"type": "null"},
    "additionalProperties": {"type": "null"}, "allOf": [{}], "anyOf": [{}], "oneOf": [{}],
    "prefixItems": [{}], "patternProperties": {"a": {}}, "dependentSchemas": {"a": {}}, "$defs": {"a": {}}}}}}`
	documents := [][]byte{[]byte(everywhere)}
	files, _ := filepath.Glob(filepath.FromSlash("../../testdata/*.yaml"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, text)
	}
	for i, text := range documents {
		doc, err := openapi3.NewLoader().LoadFromData(text)
		if err != nil {
			continue // in several files
		}
		want := map[*openapi3.Schema]string{}
		_ = doc.WalkSchemas(func(at string, ref *openapi3.SchemaRef) error {
			want[ref.Value] = at
			return nil
		})
		got := map[*openapi3.Schema]bool{}
		walk(doc, func(ref *openapi3.SchemaRef) { got[ref.Value] = true })
		for s, at := range want {
			if !got[s] {
				t.Errorf("document %d: %s is not visited", i, at)
			}
		}
		if len(want) == 0 || len(got) != len(want) {
			t.Errorf("document %d: %d schemas, expected %d", i, len(got), len(want))
		}
	}
}
