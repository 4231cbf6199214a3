package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestLargeDocuments runs the tool with documents of the size and the shapes of large APIs. The
// time of a command is compared with that of loading and validating the same document, measured
// next to it, so that the speed of the machine does not matter.
func TestLargeDocuments(t *testing.T) {
	if raceDetector {
		t.Skip("measured without the race detector")
	}
	// The measured ratios are 1 to 4 (go test -v shows them). There are several tries, because a
	// busy machine may delay one.
	const limit, tries = 12, 5
	for name, generate := range map[string]func(t *testing.T, dir string,
		weaker bool) (document string, operations int){
		"3.1, nested resources, allOf chains, recursive schemas": nestedResources,
		"3.0 in JSON, oauth2 and keys, everything inline":        inlined,
		"3.0, long chains of refs":                               chained,
		"3.1 in a hundred files":                                 manyFiles,
	} {
		t.Run(name, func(t *testing.T) {
			old, operations := generate(t, t.TempDir(), false)
			if operations < howMany(600) {
				t.Fatalf("%d operations: not large", operations)
			}
			now, _ := generate(t, t.TempDir(), true)
			timed := func(args ...string) (int, string) {
				for try := 1; ; try++ {
					base := loadAndValidate(t, old)
					var stdout, stderr bytes.Buffer
					start := time.Now()
					code := run(
						t.Context(),
						append(args, "--json"),
						&bytes.Buffer{},
						&stdout,
						&stderr,
					)
					ratio := float64(time.Since(start)) / float64(base)
					t.Logf("%-5s %.1f times %s", args[0], ratio, base.Round(time.Millisecond))
					if code == unable {
						t.Fatalf("%s: %s", args[0], stderr.String())
					}
					if ratio <= limit {
						return code, stdout.String()
					}
					if try == tries {
						t.Fatalf(
							"%s took %.0f times as long as loading and validating the document, want at most %d",
							args[0],
							ratio,
							limit,
						)
					}
				}
			}
			_, out := timed("plan", old)
			var plan planReport
			if err := json.Unmarshal([]byte(out), &plan); err != nil ||
				len(plan.Operations) != operations {
				t.Errorf(
					"plan has %d operations, want %d (%v)",
					len(plan.Operations),
					operations,
					err,
				)
			}
			timed("lint", old)
			if code, out := timed("diff", old, old); code != allWell ||
				strings.Contains(out, `"change":`) {
				t.Errorf("diff with itself: exit code %d, %s", code, out)
			}
			code, out := timed("diff", old, now)
			var diff struct{ Changes []change }
			if err := json.Unmarshal([]byte(out), &diff); err != nil {
				t.Fatal(err)
			}
			weaker := 0
			for _, c := range diff.Changes {
				if c.Change == weakened && c.Weakens {
					weaker++
				}
			}
			// Each generator omits a scope in every seventh operation that requires one of two.
			if expected := operations / 7; code != found || weaker != expected ||
				len(diff.Changes) != expected {
				t.Errorf(
					"diff finds %d changes, %d of them weakened, exit code %d; want %d, all weakened, and 1",
					len(diff.Changes),
					weaker,
					code,
					expected,
				)
			}
		})
	}
}

// loadAndValidate returns the time that kin-openapi takes to load and validate it.
func loadAndValidate(t *testing.T, document string) time.Duration {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	start := time.Now()
	doc, err := loader.LoadFromFile(document)
	if err == nil {
		err = doc.Validate(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

// howMany is n, or less where the tests shall be quick.
func howMany(n int) int {
	if testing.Short() {
		return n / 8
	}
	return n
}

type object = map[string]any

// requirement returns the security of operation n: two scopes. The weaker document omits one in
// every seventh operation.
func requirement(n int, scheme string, weaker bool) []any {
	scopes := []string{fmt.Sprintf("write:r%d", n%20), "admin"}
	if weaker && n%7 == 6 {
		scopes = scopes[1:]
	}
	return []any{object{scheme: scopes}}
}

func allScopes() object {
	scopes := object{"admin": "All"}
	for n := range 20 {
		scopes[fmt.Sprintf("write:r%d", n)] = "Write"
	}
	return scopes
}

func schemaRef(name string) object { return object{"$ref": "#/components/schemas/" + name} }

func jsonContent(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

func responses(schema object) object {
	return object{
		"200": object{"description": "fine", "content": jsonContent(schema)},
		"401": object{"description": "no"}, "403": object{"description": "no"},
	}
}

// skeleton is a document without operations.
func skeleton(version string) (doc, paths, schemas object) {
	paths, schemas = object{}, object{}
	return object{
		"openapi": version,
		"info":    object{"title": "Large", "version": "1.0.0"},
		"paths":   paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{
				"bearerAuth": object{"type": "http", "scheme": "bearer", "x-scopes": allScopes()},
			},
		},
	}, paths, schemas
}

// write stores a document. JSON is YAML.
func write(t *testing.T, dir, name string, document object) string {
	t.Helper()
	data, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// resourceItems are the two paths of a collection, with four operations. n counts them.
func resourceItems(
	n *int,
	prefix string,
	parents []any,
	schema object,
	security func(n int) []any,
) object {
	operation := func(verb string, body bool) object {
		o := object{
			"operationId": fmt.Sprintf("%s%d", verb, *n),
			"summary":     verb,
			"security":    security(*n),
			"responses":   responses(schema),
		}
		if body {
			o["requestBody"] = object{"required": true, "content": jsonContent(schema)}
		}
		*n++
		return o
	}
	return object{
		prefix: object{
			"parameters": parents,
			"get":        operation("list", false),
			"post":       operation("create", true),
		},
		prefix + "/{id}": object{
			"parameters": append(parents, pathParameter("id")),
			"get":        operation("get", false),
			"put":        operation("replace", true),
		},
	}
}

func pathParameter(name string) object {
	return object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}}
}

func nestedResources(t *testing.T, dir string, weaker bool) (string, int) {
	doc, paths, schemas := skeleton("3.1.0")
	n := 0
	for r := range howMany(160) {
		// Resource → its base → … → the root: each is an allOf of the one before and its own
		// members. The tree is recursive.
		for depth := range 6 {
			base := schemaRef("Root")
			if depth > 0 {
				base = schemaRef(fmt.Sprintf("R%dD%d", r, depth-1))
			}
			schemas[fmt.Sprintf("R%dD%d", r, depth)] = object{"allOf": []any{base, object{
				"type": "object",
				"properties": object{
					fmt.Sprintf("text%d", depth): object{"type": []string{"string", "null"}},
					fmt.Sprintf("kind%d", depth): object{
						"oneOf": []any{
							object{"type": "string", "enum": []string{"a", "b"}},
							object{"type": "integer"},
						},
					},
				},
			}}}
		}
		prefix := fmt.Sprintf("/orgs/{org}/projects/{project}/resources%d", r)
		maps.Copy(
			paths,
			resourceItems(
				&n,
				prefix,
				[]any{pathParameter("org"), pathParameter("project")},
				schemaRef(fmt.Sprintf("R%dD5", r)),
				func(n int) []any { return requirement(n, "bearerAuth", weaker) },
			),
		)
	}
	schemas["Root"] = object{"type": "object", "properties": object{
		"id": object{
			"type": "string",
		}, "children": object{"type": "array", "items": schemaRef("Root")},
	}}
	return write(t, dir, "nested.yaml", doc), n
}

func inlined(t *testing.T, dir string, weaker bool) (string, int) {
	doc, paths, _ := skeleton("3.0.3")
	doc["components"].(object)["securitySchemes"] = object{
		"oauth": object{"type": "oauth2", "flows": object{"authorizationCode": object{
			"authorizationUrl": "https://issuer.example/authorize", "tokenUrl": "https://issuer.example/token", "scopes": allScopes(),
		}}},
		"key": object{"type": "apiKey", "in": "header", "name": "X-Key"},
	}
	doc["security"] = []any{object{"key": []string{}}}
	var schema func(depth int) object
	schema = func(depth int) object {
		if depth == 0 {
			return object{"type": "string", "maxLength": 100}
		}
		return object{
			"type": "object",
			"properties": object{
				"a": schema(depth - 1),
				"b": object{"type": "array", "items": schema(depth - 1)},
			},
		}
	}
	n := 0
	for r := range howMany(160) {
		maps.Copy(
			paths,
			resourceItems(
				&n,
				fmt.Sprintf("/v1/things%d", r),
				[]any{},
				schema(3),
				func(n int) []any {
					return append(
						requirement(n, "oauth", weaker),
						object{"key": []string{}, "oauth": []string{"admin", "write:r1"}},
					)
				},
			),
		)
	}
	return write(t, dir, "inlined.json", doc), n
}

func chained(t *testing.T, dir string, weaker bool) (string, int) {
	doc, paths, schemas := skeleton("3.0.3")
	length := howMany(400)
	for i := range length {
		schemas[fmt.Sprintf("Link%d", i)] = object{"type": "object", "properties": object{
			"next": schemaRef(
				fmt.Sprintf("Link%d", (i+1)%length),
			), "over": schemaRef(fmt.Sprintf("Link%d", (i+7)%length)),
			"name": object{"type": "string"},
		}}
	}
	n := 0
	for r := range howMany(170) {
		maps.Copy(
			paths,
			resourceItems(
				&n,
				fmt.Sprintf("/chains%d", r),
				[]any{},
				schemaRef(fmt.Sprintf("Link%d", r)),
				func(n int) []any { return requirement(n, "bearerAuth", weaker) },
			),
		)
	}
	return write(t, dir, "chained.yaml", doc), n
}

func manyFiles(t *testing.T, dir string, weaker bool) (string, int) {
	doc, paths, schemas := skeleton("3.1.0")
	schemas["Thing"] = object{"$ref": "thing.json"}
	write(
		t,
		dir,
		"thing.json",
		object{"type": "object", "properties": object{"name": object{"type": "string"}}},
	)
	n := 0
	for f := range howMany(100) {
		file := object{}
		items := resourceItems(
			&n,
			fmt.Sprintf("/files%d", f),
			[]any{},
			object{"$ref": "thing.json"},
			func(n int) []any { return requirement(n, "bearerAuth", weaker) },
		)
		maps.Copy(
			items,
			resourceItems(
				&n,
				fmt.Sprintf("/more%d", f),
				[]any{},
				object{"$ref": "thing.json"},
				func(n int) []any { return requirement(n, "bearerAuth", weaker) },
			),
		)
		for path, item := range items {
			name := strings.NewReplacer("/", "_", "{", "", "}", "").Replace(path)
			file[name] = item
			paths[path] = object{"$ref": fmt.Sprintf("part%d.json#/%s", f, name)}
		}
		write(t, dir, fmt.Sprintf("part%d.json", f), file)
	}
	return write(t, dir, "many.json", doc), n
}
