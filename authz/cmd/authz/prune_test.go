package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestPrune(t *testing.T) {
	const document = `{
  "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
  "tags": [{"name": "}"}],
  "paths": {
    "/a\"b": {
      "parameters": [{"$ref": "#/components/parameters/Id"}],
      "get": {
        "operationId": "get", "description": "{\"not\": \"a member\"}", "x-authz-timeout": "2m",
        "responses": {"200": {"description": "fine", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}}},
        "security": []
      },
      "put": {"operationId": "put", "requestBody": {"$ref": "#/components/requestBodies/Body"}, "responses": {}}
    }
  },
  "components": {
    "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}},
    "parameters": {"Id": {"name": "id", "in": "query", "schema": {"$ref": "#/components/schemas/Id~1x"}}},
    "requestBodies": {"Body": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}}},
    "schemas": {
      "Answer": {"type": "object"},
      "Id/x": {"type": "string"},
      "Body": {"oneOf": [{"$ref": "#/components/schemas/Body"}], "discriminator": {"propertyName": "kind", "mapping": {"a": "#/components/schemas/A"}}},
      "A": {"type": "object"}
    }
  }
}
`
	for part, expected := range map[part][]string{
		everything:   {"Answer", "Id/x", "Body", "A", "requestBody", "tags"},
		requestPart:  {"Id/x", "Body", "A", "requestBody"},
		securityPart: {},
	} {
		parse := parseJSON
		if part == securityPart {
			parse = parseYAML // to which JSON is YAML
		}
		root, err := parse([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		part.prune(root)
		var doc struct {
			Tags       any
			Paths      map[string]map[string]any
			Components struct {
				Schemas         map[string]any
				SecuritySchemes map[string]any `yaml:"securitySchemes"`
			}
		}
		if err := root.Decode(&doc); err != nil {
			t.Fatalf("part %d: %v", part, err)
		}
		var found []string
		for _, name := range []string{"Answer", "Id/x", "Body", "A"} {
			if doc.Components.Schemas[name] != nil {
				found = append(found, name)
			}
		}
		put, _ := doc.Paths[`/a"b`]["put"].(map[string]any)
		if put["requestBody"] != nil {
			found = append(found, "requestBody")
		}
		if doc.Tags != nil {
			found = append(found, "tags")
		}
		if strings.Join(found, " ") != strings.Join(expected, " ") {
			t.Errorf("part %d keeps %v, want %v", part, found, expected)
		}
		get, _ := doc.Paths[`/a"b`]["get"].(map[string]any)
		if get["security"] == nil || get["x-authz-timeout"] != "2m" ||
			put["operationId"] != "put" ||
			doc.Components.SecuritySchemes["bearerAuth"] == nil {
			t.Errorf("part %d does not keep who may call what: %v", part, doc)
		}
	}
}

func TestPruneLeavesAlone(t *testing.T) {
	for _, document := range []string{
		"[]", `{"tags": [], "paths": {"/a": {"$ref": "a.json"}}}`,
		`{"tags": [], "paths": {"/a": {"$ref": "#/x-paths/a"}}}`,
		`{"tags": [], "paths": {"/a": {"$ref": "#/components/pathItems/%61"}}}`,
		`{"tags": [], "paths": {"/a": {"post": {"requestBody": {"$ref": "#/components/requestBodies/a"}}}},
			"components": {"requestBodies": {"a": {"$ref": "a.json"}}}}`,
	} {
		var before, after any
		root, err := parseJSON([]byte(document))
		if err == nil {
			err = root.Decode(&before)
		}
		if err != nil {
			t.Fatal(err)
		}
		requestPart.prune(root)
		if err := root.Decode(&after); err != nil || !reflect.DeepEqual(after, before) {
			t.Errorf("%s becomes %v (%v)", document, after, err)
		}
	}
}

// TestNamesMatchExactly: names are case-sensitive, as for the server.
func TestNamesMatchExactly(t *testing.T) {
	document := func(security, maxLength string) string {
		return `{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "tags": [], "paths": {"/a": {"post": {
			"operationId": "a", "` + security + `": [{"b": []}], "responses": {"default": {"description": "fine"}},
			"requestBody": {"content": {"application/json": {"schema": {"type": "string", "` + maxLength + `": 5}}}}
		}}}, "components": {"securitySchemes": {"b": {"type": "http", "scheme": "bearer"}}}}`
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := write("old.json", document("security", "maxLength"))
	for change, text := range map[string]string{
		"opened":              document("Security", "maxLength"),
		"validation weakened": document("security", "MaxLength"),
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"diff", old, write("new.json", text)}, &bytes.Buffer{},
			&stdout, &stderr)
		if code == allWell || !strings.Contains(stdout.String(), change) {
			t.Errorf("exit code %d, %s%s: want %s", code, &stdout, &stderr, change)
		}
	}
}
