package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// initIn runs init with arguments that are separated by spaces, in a new folder that has the files.
func initIn(t *testing.T, files map[string]string, args string) (code int, stdout, stderr string) {
	t.Helper()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	code = run(t.Context(), strings.Fields("init "+args), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// libraryFolder is the root of this repository.
func libraryFolder(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

const orders = `openapi: 3.1.0
info: {title: Orders, version: "1"}
paths:
  /orders/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer, minimum: 1}}]
    get:
      operationId: getOrder
      summary: Returns an order
      security: [{bearerAuth: ["read:orders"]}]
      responses:
        "200": {description: The order., content: {application/json: {schema: {$ref: "#/components/schemas/Order"}}}}
components:
  schemas:
    Order:
      type: object
      required: [total]
      properties: {total: {type: number, examples: [7.5]}}
  securitySchemes: {bearerAuth: {type: http, scheme: bearer, x-scopes: {"read:orders": Read orders}}}
`

// parts is a document in several files.
var parts = map[string]string{
	"api/openapi.yaml": `openapi: 3.1.0
info: {title: Parts, version: "1"}
paths:
  /users: {$ref: "./paths/users.yaml"}
components:
  securitySchemes: {bearerAuth: {type: http, scheme: bearer, x-scopes: {"read:users": Read users, "write:users": Add users}}}
`,
	"api/paths/users.yaml": `get:
  operationId: listUsers
  security: [{bearerAuth: ["read:users"]}]
  responses:
    "200": {description: Users., content: {application/json: {schema: {type: array, items: {$ref: "../schemas/user.yaml"}}}}}
post:
  operationId: addUser
  security: [{bearerAuth: ["write:users"]}]
  requestBody: {required: true, content: {application/json: {schema: {$ref: "../schemas/user.yaml"}}}}
  responses: {"201": {description: Added.}}
`,
	"api/schemas/user.yaml": `type: object
required: [name]
additionalProperties: false
properties: {name: {type: string, maxLength: 10, example: Ann}}
`,
}

// clashing has names that the generator also uses.
const clashing = `openapi: 3.1.0
info: {title: Clashes, version: "1"}
security: [{bearerAuth: ["read:x"]}]
components:
  securitySchemes: {bearerAuth: {type: http, scheme: bearer, x-scopes: {"read:x": Read}}}
  schemas:
    Client: {type: object, properties: {size: {type: number}}}
    ListClientsResponse: {type: object, properties: {clients: {type: array, items: {$ref: "#/components/schemas/Client"}}}}
paths:
  /clients:
    get:
      operationId: listClients
      responses: {"200": {description: Clients., content: {application/json: {schema: {$ref: "#/components/schemas/ListClientsResponse"}}}}}
  /clients/{client-id}:
    delete:
      operationId: delete-client
      parameters: [{name: client-id, in: path, required: true, schema: {type: string}}]
      responses: {"204": {description: Gone.}}
`

// keyed has no security itself. Its overlay adds it: a token, a key and a password.
var keyed = map[string]string{
	"api/openapi.yaml": `openapi: 3.1.0
info: {title: Keys, version: "1"}
paths:
  /keys:
    get: {operationId: listKeys, responses: {"200": {description: Keys., content: {application/json: {schema: {type: array, items: {type: string}}}}}}}
    post: {operationId: addKey, responses: {"204": {description: Added.}}}
`,
	"api/security.yaml": `overlay: 1.0.0
info: {title: Security, version: "1"}
actions:
  - target: $
    update:
      components:
        securitySchemes:
          bearerAuth: {type: http, scheme: bearer, x-scopes: {"read:keys": Read keys}}
          key: {type: apiKey, in: query, name: key, x-scopes: {admin: Administer}}
          basic: {type: http, scheme: basic}
  - target: $.paths['/keys'].get
    update: {security: [{bearerAuth: ["read:keys"]}, {key: []}]}
  - target: $.paths['/keys'].post
    update: {security: [{bearerAuth: [], key: [admin]}, {basic: []}]}
`,
}

// TestInitWritesAWorkingRepository: for each document and router, init writes a repository whose
// tests pass. It builds programs, and may need the module proxy.
func TestInitWritesAWorkingRepository(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program for each document and router")
	}
	library := libraryFolder(t)
	own, err := os.ReadFile(filepath.Join(library, "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string]string{
		"own":   {"api/openapi.yaml": string(own)},
		"clash": {"api/openapi.yaml": clashing},
		"parts": parts,
		"keyed": keyed,
	} {
		for _, router := range []string{"echov4", "echov5", "std"} {
			t.Run(name+"/"+router, func(t *testing.T) {
				t.Chdir(t.TempDir())
				args := "--module example.com/acme/" + name +
					" --document api/openapi.yaml --replace " + library + " --router " + router +
					" made"
				switch name {
				case "own":
					args += " --examples"
				case "keyed":
					args += " --overlay=api/security.yaml"
				}
				if code, stdout, stderr := initIn(t, files, args); code != 0 {
					t.Fatalf("init: %s%s", stdout, stderr)
				}
				ignored := strings.Contains(read(t, "made/api_test.go"), "IgnoreResponses")
				if ignored != (name == "own") {
					t.Errorf("the answers of handlers are ignored: %v", ignored)
				}
				if name != "own" && name != "keyed" {
					writeTest(t, "made/allowed_test.go", allowedIs501)
				}
				writeTest(
					t,
					"made/impl/types_test.go",
					map[string]string{"clash": numbersAreFloat64}[name],
				)
				before := read(t, "made/gen/api.gen.go")
				for _, command := range []string{"go generate ./...",
					"go mod tidy -diff", "go test ./..."} {
					args := strings.Fields(command)
					c := exec.CommandContext(t.Context(), args[0], args[1:]...)
					c.Dir = "made"
					if said, err := c.CombinedOutput(); err != nil {
						t.Fatalf("%s: %v\n%s", command, err, said)
					}
				}
				if read(t, "made/gen/api.gen.go") != before {
					t.Error("go generate does not generate what init has written")
				}
				if lines := strings.Count(read(t, "made/main.go"), "\n"); lines >= 30 {
					t.Errorf("main.go has %d lines, want fewer than 30", lines)
				}
				if name == "own" && router == "std" {
					switchTelemetryOn(t)
				}
			})
		}
	}
}

// switchTelemetryOn follows README.md, and builds the program.
func switchTelemetryOn(t *testing.T) {
	t.Helper()
	main := read(t, "made/main.go")
	on := strings.NewReplacer("// \"", "\"", "// Telemetry:", "Telemetry:").Replace(main)
	if strings.Count(on, "telemetry") != 2 || len(on) != len(main)-len("// ")*2 {
		t.Fatalf("main.go does not have two lines about telemetry in comments:\n%s", main)
	}
	if err := os.WriteFile("made/main.go", []byte(on), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"go mod tidy", "go vet ."} {
		args := strings.Fields(command)
		c := exec.CommandContext(t.Context(), args[0], args[1:]...)
		c.Dir = "made"
		if said, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, said)
		}
	}
}

// allowedIs501 checks the response of a handler that is not implemented.
const allowedIs501 = `package main

import (
	"log/slog"
	"testing"

	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"

	"MODULE/gen"
	"MODULE/impl"
)

func TestAllowedIs501(t *testing.T) {
	document, _ := gen.GetSpec()
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience}})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	handler, err := server.New(t.Context(), server.Config{
		Document: document, Routes: impl.Routes, Logger: slog.New(slog.DiscardHandler),
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	report, err := authztest.Check(t.Context(), authztest.Target{Document: document, Handler: handler, Tokens: authztest.Issued(issuer.Issuer)})
	if err != nil {
		t.Fatal(err)
	}
	allowed, refused := 0, map[int]bool{}
	for _, r := range report.Results {
		if r.Case.Want != "" {
			refused[r.Status] = true
		} else if r.Skipped == "" {
			allowed++
			if r.Status != 501 {
				t.Errorf("%s: status %d, want 501", r.Case.Name, r.Status)
			}
		}
	}
	if allowed == 0 || !refused[401] || !refused[403] {
		t.Errorf("%d cases are allowed, refusals are %v", allowed, refused)
	}
}
`

const numbersAreFloat64 = `package impl

import "MODULE/gen"

var _ = gen.Client{Size: new(float64)}
`

func writeTest(t *testing.T, name, text string) {
	t.Helper()
	if text == "" {
		return
	}
	module, _, _ := strings.Cut(strings.TrimPrefix(read(t, "made/go.mod"), "module "), "\n")
	if err := os.WriteFile(name, []byte(strings.ReplaceAll(text, "MODULE", module)),
		0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestInitDryRun(t *testing.T) {
	library := libraryFolder(t)
	t.Chdir(t.TempDir())
	code, stdout, stderr := initIn(
		t,
		map[string]string{"openapi.yaml": orders},
		"--json --dry-run --module example.com/acme/orders/v2 --document openapi.yaml --replace "+library+" made",
	)
	if code != 0 {
		t.Fatalf("init: %s%s", stdout, stderr)
	}
	var report struct {
		initReport
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	expected := []string{
		".dockerignore", ".env.example", ".github/workflows/ci.yml", ".gitignore",
		".oapi-codegen.yaml", "Dockerfile", "README.md", "api_test.go", "compose.yaml",
		"deploy/kubernetes.yaml", "deploy/orders.service", "gen/api.gen.go", "go.mod", "impl/handlers.go", "impl/routes.go", "main.go", "openapi.yaml", "tools.go",
	}
	if !slices.Equal(report.Written, expected) ||
		!slices.Equal(report.Handlers, []string{"getOrder"}) ||
		report.Operations != 1 ||
		report.Public != 0 ||
		report.Scopes != 1 ||
		!report.DryRun {
		t.Errorf("the report is %+v", report)
	}
	if _, err := os.Stat("made"); err == nil {
		t.Error("--dry-run has written something")
	}
}

// TestInitAgain: a second run writes what is missing, and overwrites nothing.
func TestInitAgain(t *testing.T) {
	library := libraryFolder(t)
	t.Chdir(t.TempDir())
	t.Setenv("GOFLAGS", "-mod=mod")
	if code, _, stderr := initIn(t, map[string]string{"openapi.yaml": orders},
		"--module example.com/acme/orders --document openapi.yaml --examples --replace "+library+
			" made"); code != 0 {
		t.Fatal(stderr)
	}
	handlers := read(t, "made/impl/handlers.go")
	if !strings.Contains(handlers, `"total": 7.5`) {
		t.Errorf("the handler does not answer with the document's example:\n%s", handlers)
	}
	before := tree(t)
	if code, stdout, stderr := initIn(t, nil, "made"); code != 0 ||
		!strings.Contains(stdout, "nothing is missing") ||
		!equal(before, tree(t)) {
		t.Errorf("init of what is complete: %s%s", stdout, stderr)
	}

	// The repository was changed by hand, and the document has new operations.
	own := map[string]string{
		"made/main.go": "package main\n\nfunc main() {}\n",
		"made/impl/handlers.go": strings.NewReplacer("(API)", "(*Orders)", "type API",
			"type Orders").
			Replace(handlers),
		"made/openapi.yaml": strings.Replace(orders, "components:", `  /orders:
    get: {operationId: list-orders, security: [], responses: {"204": {description: None.}}}
components:`, 1),
	}
	if err := os.Remove("made/README.md"); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := initIn(t, own, "made")
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, said := range []string{"3 files written: README.md, gen/api.gen.go, impl/listorders.go",
		"list-orders"} {
		if !strings.Contains(stdout, said) {
			t.Errorf("init does not say %q: %s", said, stdout)
		}
	}
	for name, text := range own {
		if read(t, name) != text {
			t.Errorf("%s is overwritten", name)
		}
	}
	if added := read(t, "made/impl/listorders.go"); !strings.Contains(
		added,
		"func (*Orders) ListOrders(",
	) {
		t.Errorf("the new handler is\n%s", added)
	}
	if code, stdout, stderr := initIn(t, nil, "--document openapi.yaml made"); code != 2 ||
		!strings.Contains(
			stderr,
			"made/openapi.yaml differs from openapi.yaml, and is not overwritten",
		) {
		t.Errorf("another document: exit code %d, %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := initIn(t, nil, "--router std made"); code != 2 ||
		!strings.Contains(stderr, "generates code for echov4") {
		t.Errorf("another router: exit code %d, %s%s", code, stdout, stderr)
	}
}

// tree returns all files.
func tree(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(".", func(name string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			all[name] = read(t, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}

// TestInitFaults: all faults of a document are reported, and no file is written.
func TestInitFaults(t *testing.T) {
	library := libraryFolder(t)
	const templates = `openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /files/{name}.json:
    get: {operationId: f, security: [], parameters: [{name: name, in: path, required: true, schema: {type: string}}], responses: {"204": {description: d}}}
  /things/{id}:activate:
    post: {operationId: a, security: [], parameters: [{name: id, in: path, required: true, schema: {type: string}}], responses: {"204": {description: d}}}
  /things:batch:
    post: {operationId: b, security: [], responses: {"204": {description: d}}}
`
	for _, row := range []struct {
		name     string
		document string
		args     string
		code     int
		says     []string
	}{
		{"a policy with faults", strings.Replace(orders, `["read:orders"]}`,
			`["reed:orders"], other: []}`, 1), "", 1, []string{
			"openapi.yaml:9: GET /orders/{id}: scope reed:orders is not declared", "GET /orders/{id}: security scheme other is not declared", "2 faults: no files are written",
		}},
		{"paths that Echo cannot route", templates, "", 1, []string{
			"openapi.yaml:5: GET /files/{name}.json: path segment {name}.json cannot be routed by Echo", "openapi.yaml:7: POST /things/{id}:activate: path segment {id}:activate cannot be routed by Echo", "2 faults",
		}},
		{"paths that net/http cannot route", templates, "--router std", 1, []string{
			"openapi.yaml:5: GET /files/{name}.json: net/http cannot route it", "openapi.yaml:7: POST /things/{id}:activate: net/http cannot route it", "2 faults",
		}},
		{"a schema with the name of a generated type", strings.NewReplacer("schemas/Order",
			"schemas/ServerInterface", "    Order:", "    ServerInterface:").Replace(
			orders), "", 2, []string{
			"components.schemas.ServerInterface: the generated code has a type ServerInterface of its own: give the schema another with x-go-name",
		}},
		{"not a document", "a: b\n", "", 2, []string{"expected an OpenAPI document of version 3"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			code, stdout, stderr := initIn(
				t,
				map[string]string{"openapi.yaml": row.document},
				"--module example.com/acme/orders --document openapi.yaml --replace "+library+" "+row.args+" made",
			)
			if code != row.code {
				t.Errorf("exit code %d, want %d: %s%s", code, row.code, stdout, stderr)
			}
			for _, says := range row.says {
				if !strings.Contains(stderr, says) {
					t.Errorf("it does not say %q:\n%s", says, stderr)
				}
			}
			if _, err := os.Stat("made"); err == nil {
				t.Error("something is written")
			}
		})
	}
	for args, says := range map[string]string{
		"--module example.com/x --replace " + library + " made":                 "--document is missing, and there is no made/openapi.yaml",
		"--document openapi.yaml --replace " + library + " made":                `--module is "": expected a module path`,
		"--module a..b! --document openapi.yaml --replace . made":               "expected a module path",
		"--module example.com/x --name Orders --document openapi.yaml made":     `--name is "Orders"`,
		"--module example.com/x --document openapi.yaml made":                   "give the folder of the library with --replace",
		"--module example.com/x --document no.yaml --replace " + library + " m": "no.yaml",
	} {
		t.Chdir(t.TempDir())
		if code, stdout, stderr := initIn(t, map[string]string{"openapi.yaml": orders},
			args); code != 2 ||
			!strings.Contains(stderr, says) {
			t.Errorf("init %s: exit code %d, %s%s", args, code, stdout, stderr)
		}
	}
}

func TestBundle(t *testing.T) {
	t.Chdir(t.TempDir())
	initIn(t, parts, "--help")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"bundle", "api/openapi.yaml"}, strings.NewReader(""),
		&out, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	if strings.Contains(out.String(), ".yaml") ||
		!strings.Contains(out.String(), `"operationId": "addUser"`) {
		t.Errorf("the bundle is\n%s", out.String())
	}
}

// TestInitOverlay: an overlay is part of the folder from then on.
func TestInitOverlay(t *testing.T) {
	t.Chdir(t.TempDir())
	made := "--module example.com/acme/keyed --document api/openapi.yaml --dry-run --replace " +
		libraryFolder(t) + " made"
	files := maps.Clone(keyed)
	files["api/other.yaml"] = keyed["api/security.yaml"]
	if code, _, stderr := initIn(t, files, made); code != found ||
		!strings.Contains(stderr, "no security is stated") {
		t.Errorf("without the overlay: exit code %d, %s", code, stderr)
	}
	both := "--overlay=api/security.yaml,api/other.yaml "
	if code, _, stderr := initIn(t, nil, both+made); code != unable ||
		!strings.Contains(stderr, "put their actions into one") {
		t.Errorf("two overlays: exit code %d, %s", code, stderr)
	}
	code, stdout, stderr := initIn(t, nil, "--overlay=api/security.yaml "+made)
	if code != allWell || !strings.Contains(stdout, "security.yaml") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	config, err := (&repository{Server: servers["std"], Overlay: "security.yaml"}).
		fill("oapi-codegen.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{
		"made/.oapi-codegen.yaml": string(config),
		"made/openapi.yaml":       keyed["api/openapi.yaml"],
		"made/security.yaml":      keyed["api/security.yaml"],
	}
	made = strings.Replace(made, "--document api/openapi.yaml ", "", 1)
	if code, stdout, stderr := initIn(t, files, made); code != allWell {
		t.Errorf("again: exit code %d: %s%s", code, stdout, stderr)
	}
	if code, _, stderr := initIn(t, nil, "--overlay=api/other.yaml "+made); code != unable ||
		!strings.Contains(stderr, "does not name it") {
		t.Errorf("another overlay: exit code %d, %s", code, stderr)
	}
}

// TestInitGeneratesAsWeDo: the options that init writes are those of this repository.
func TestInitGeneratesAsWeDo(t *testing.T) {
	r := &repository{Server: servers["echov4"]}
	written, err := r.fill("oapi-codegen.yaml")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := readConfig([]byte(read(t, libraryFolder(t)+"/.oapi-codegen.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := readConfig(written)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(ours, theirs) {
		t.Errorf("init writes %+v, want %+v", theirs, ours)
	}
}

// TestInitPublicDocuments: for public documents with their overlays, init writes repositories whose
// tests pass.
func TestInitPublicDocuments(t *testing.T) {
	folder := os.Getenv("OASGATE_TEST_DOCUMENTS")
	if folder == "" {
		t.Skip("OASGATE_TEST_DOCUMENTS is not set: expected a folder of OpenAPI documents; " +
			".ci/full fetches some")
	}
	library := libraryFolder(t)
	overlays, err := filepath.Glob(library + "/authz/testdata/public/*.overlay.yaml")
	if err != nil || len(overlays) == 0 {
		t.Fatalf("no overlays: %v", err)
	}
	for _, overlay := range overlays {
		name := strings.TrimSuffix(filepath.Base(overlay), ".overlay.yaml")
		document := filepath.Join(folder, name+".json")
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat(document); err != nil {
				t.Skip("the folder does not have it")
			}
			t.Chdir(t.TempDir())
			args := "--module example.com/acme/api --document " + document +
				" --overlay=" + overlay + " --replace " + library + " made"
			if code, stdout, stderr := initIn(t, nil, args); code != allWell {
				t.Fatalf("init: %s%s", stdout, stderr)
			}
			for _, command := range []string{"go generate ./...", "go vet ./...", "go test ./..."} {
				before := read(t, "made/gen/api.gen.go")
				args := strings.Fields(command)
				c := exec.CommandContext(t.Context(), args[0], args[1:]...)
				c.Dir = "made"
				if said, err := c.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", command, err, said)
				}
				if read(t, "made/gen/api.gen.go") != before {
					t.Error("go generate does not generate what init has written")
				}
			}
		})
	}
}
