package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
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
		out := string(part.prune([]byte(document)))
		var doc struct {
			Tags       any
			Paths      map[string]map[string]any
			Components struct{ Schemas, SecuritySchemes map[string]any }
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("part %d: %v in %s", part, err, out)
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
			t.Errorf("part %d keeps %v, expected %v", part, found, expected)
		}
		get, _ := doc.Paths[`/a"b`]["get"].(map[string]any)
		if get["security"] == nil || get["x-authz-timeout"] != "2m" ||
			put["operationId"] != "put" ||
			doc.Components.SecuritySchemes["bearerAuth"] == nil {
			t.Errorf("part %d does not keep who may call what: %s", part, out)
		}
		line := func(text string) int {
			return strings.Count(text[:strings.Index(text, `"put"`)], "\n")
		}
		if line(out) != line(document) {
			t.Errorf("part %d moves a line from %d to %d", part, line(document), line(out))
		}
	}
}

func TestPruneLeavesAlone(t *testing.T) {
	for _, document := range []string{
		"", " ", "openapi: 3.1.0", "{", `{"paths": {"/a": {`, `{"paths": 1, "paths": 2}`,
		`{"paths": {"/a": {"$ref": "a.json"}}}`,
		`{"paths": {"/a": {"$ref": "#/x-paths/a"}}, "tags": []}`,
	} {
		if out := requestPart.prune([]byte(document)); string(out) != document {
			t.Errorf("%s becomes %s", document, out)
		}
	}
}

// TestNamesMatchExactly: a name in other letters is another name, as it is to the server.
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
			t.Errorf("exit code %d, %s%s: expected %s", code, &stdout, &stderr, change)
		}
	}
}

// TestCost compares what commands cost with what it costs to read the same document with
// kin-openapi, in one run.
func TestCost(t *testing.T) {
	if raceDetector || testing.Short() {
		t.Skip("measured without the race detector")
	}
	const operations = 5000
	doc := described(operations)
	for _, extension := range []string{"json", "yaml"} {
		name := filepath.Join(t.TempDir(), "large."+extension)
		data, err := json.MarshalIndent(doc, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if extension == "yaml" { // a comment makes it YAML and no JSON
			data = append([]byte("# Large\n"), data...)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		measure := func(do func()) (time.Duration, uint64) {
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := processorTime(t)
			do()
			took := processorTime(t) - start
			runtime.ReadMemStats(&after)
			return took, after.TotalAlloc - before.TotalAlloc
		}
		read := func(places bool) func() {
			return func() {
				loader := openapi3.NewLoader()
				loader.IncludeOrigin = places
				if _, err := loader.LoadFromFile(name); err != nil {
					t.Fatal(err)
				}
			}
		}
		costs := map[bool]struct { // of reading, by whether with places
			time   time.Duration
			memory uint64
		}{}
		for _, c := range []struct {
			command   []string
			documents float64
			limit     float64
			places    bool // the command tells lines, which the loader is asked for
		}{
			{[]string{"plan", name}, 1, 1.5, false},
			{[]string{"scopes", "--package=api", name}, 1, 1.5, false},
			{[]string{"diff", name, name}, 2, 1.5, false},
			// lint also validates everything, responses and examples included: 1.6 where it was
			// measured.
			{[]string{"lint", "--format=json", name}, 1, 2, true},
		} {
			const tries = 3
			for try := 1; ; try++ {
				if cost, known := costs[c.places]; !known || try > 1 {
					cost.time, cost.memory = measure(read(c.places))
					costs[c.places] = cost
				}
				reading, readAllocated := costs[c.places].time, costs[c.places].memory
				took, allocated := measure(func() {
					var stdout, stderr bytes.Buffer
					if code := run(context.Background(), c.command, &bytes.Buffer{}, &stdout,
						&stderr); code == unable {
						t.Fatalf("%v: %s", c.command, stderr.String())
					}
				})
				time, memory := float64(
					took,
				)/float64(
					reading,
				)/c.documents, float64(
					allocated,
				)/float64(
					readAllocated,
				)/c.documents
				t.Logf(
					"%s %-6s %.2f times the processor time, %.2f times the memory of reading",
					extension,
					c.command[0],
					time,
					memory,
				)
				if time <= c.limit && memory <= c.limit {
					break
				}
				if try == tries {
					t.Errorf(
						"%s %s costs %.2f times the processor time and %.2f times the memory of reading, expected at most %.1f",
						extension,
						c.command[0],
						time,
						memory,
						c.limit,
					)
					break
				}
			}
		}
	}
}

// described returns a document of which most describes responses, as most do.
func described(operations int) object {
	doc, paths, schemas := skeleton("3.1.0")
	answer := func() object {
		members := object{}
		for _, name := range []string{"id", "name", "owner"} {
			members[name] = object{"type": "string", "description": "What " + name + " is for."}
		}
		return object{"type": "object", "additionalProperties": false, "properties": members}
	}
	schemas["Input"] = object{
		"type":                 "object",
		"additionalProperties": false,
		"properties":           object{"name": object{"type": "string", "maxLength": 100}},
	}
	n := 0
	for n < operations {
		path := "/things" + strings.Repeat("x", n%7) + "/" + time.Duration(n).String()
		items := object{}
		for _, method := range []string{"get", "put", "post", "delete"} {
			o := object{
				"operationId": method + path, "security": requirement(n, "bearerAuth", false), "summary": "An operation.",
				"responses": object{
					"200": object{"description": "fine", "content": jsonContent(answer())},
					"401": object{"description": "no"}, "403": object{"description": "no"},
				},
			}
			if method == "put" || method == "post" {
				o["requestBody"] = object{
					"required": true,
					"content":  jsonContent(schemaRef("Input")),
				}
			}
			items[method] = o
			n++
		}
		paths[path] = items
	}
	return doc
}
