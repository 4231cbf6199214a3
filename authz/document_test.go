package authz_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz"
)

// plain is a document without faults, for tests that add one.
const plain = `
openapi: 3.1.0
info: {title: Plain, version: "1"}
paths:
  /things/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get:
      operationId: getThing
      security: [{bearer: [read]}]
      parameters: [{name: full, in: query, schema: {type: boolean}}]
      responses: {"200": {description: A thing., content: {application/json: {schema: {type: object, properties: {n: {type: integer}}}}}}}
    post:
      operationId: setThing
      security: [{bearer: [write]}]
      requestBody: {content: {application/json: {schema: {type: object, properties: {n: {type: integer}}}}}}
      responses: {"204": {description: Done.}}
components:
  securitySchemes:
    bearer: {type: http, scheme: bearer}
`

// edited returns a document with one text replaced by another.
func edited(t *testing.T, document, old, replacement string) string {
	t.Helper()
	text := strings.Replace(document, old, replacement, 1)
	if text == document {
		t.Fatalf("the document has no %q to replace", old)
	}
	return text
}

// TestOnlyRequestsMatter: what a request does not meet does not stop the start.
func TestOnlyRequestsMatter(t *testing.T) {
	for name, edit := range map[string][2]string{
		"an example of a response": {"{n: {type: integer}}}}}}}", "{n: {type: integer}}}, example: {n: x}}}}}"},
		"a default of a response":  {"{n: {type: integer}}}}}}}", "{n: {type: integer, default: x}}}}}}}"},
		"a pattern of a response":  {"{n: {type: integer}}}}}}}", "{n: {type: string, pattern: '(?=x)'}}}}}}}"},
		"a pattern that only ECMA-262 has": {
			"schema: {type: boolean}", `schema: {type: string, pattern: '^(?!-)\u0061(?=b)b$'}`,
		},
		"an example of a request": {"schema: {type: boolean}", "schema: {type: boolean}, example: [1]"},
		"a default of a required parameter": {
			"{name: full, in: query, schema: {type: boolean}}",
			"{name: full, in: query, required: true, schema: {type: boolean, default: x}}",
		},
		"an example of a body":         {"requestBody: {content: {application/json: {", "requestBody: {content: {application/json: {example: x, "},
		"an empty version":             {`version: "1"`, `version: ""`},
		"no title":                     {"title: Plain", "x-title: Plain"},
		"a response without words":     {"{description: Done.}", "{}"},
		"no responses":                 {`      responses: {"204": {description: Done.}}` + "\n", ""},
		"a webhook":                    {"components:\n", "webhooks: {event: {post: {security: [{nowhere: []}]}}}\ncomponents:\n"},
		"a callback":                   {"operationId: setThing\n", "operationId: setThing\n      callbacks: {done: {'{$request.body#/url}': {post: {requestBody: {}}}}}\n"},
		"servers":                      {"paths:\n", "servers: [{url: '{undeclared}'}]\npaths:\n"},
		"tags":                         {"paths:\n", "tags: [{}]\nexternalDocs: {}\npaths:\n"},
		"a component that is not used": {"components:\n", "components:\n  parameters: {unused: {name: x, in: nowhere}}\n  schemas: {Unused: {type: nothing}}\n"},
		"a scheme that is not used":    {"  securitySchemes:\n", "  securitySchemes:\n    unused: {type: nothing}\n"},
		"no operationId":               {"operationId: setThing\n", "summary: Set.\n"},
		"two paths of one shape, with different methods": {"components:\n", "  /things/{other}: {delete: {security: [], parameters: [{name: other, in: path, required: true, schema: {type: string}}], responses: {'204': {description: Done.}}}}\ncomponents:\n"},
		"a foreign extension":                            {"operationId: setThing\n", "operationId: setThing\n      x-internal: true\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := authz.Compile(load(t, edited(t, plain, edit[0], edit[1]))); err != nil {
				t.Errorf("Compile: %v", err)
			}
		})
	}
	for name, edit := range map[string][2]string{
		"a default that is applied":                               {"{name: full, in: query, schema: {type: boolean}}", "{name: full, in: query, schema: {type: boolean, default: x}}"},
		"a body without content":                                  {"requestBody: {content: {application/json: {schema: {type: object, properties: {n: {type: integer}}}}}}", "requestBody: {}"},
		"a schema of a body":                                      {"requestBody: {content: {application/json: {schema: {type: object", "requestBody: {content: {application/json: {schema: {type: nothing"},
		"a parameter in nowhere":                                  {"{name: full, in: query,", "{name: full, in: nowhere,"},
		"two paths of one shape":                                  {"components:\n", "  /things/{other}: {get: {security: [], parameters: [{name: other, in: path, required: true, schema: {type: string}}], responses: {'204': {description: Done.}}}}\ncomponents:\n"},
		"a parameter in nowhere, of the second path of one shape": {"components:\n", "  /things/{other}: {delete: {security: [], parameters: [{name: other, in: path, schema: {type: string}}], responses: {'204': {description: Done.}}}}\ncomponents:\n"},
		"an undeclared scheme":                                    {"security: [{bearer: [write]}]", "security: [{nowhere: [write]}]"},
		"a scheme that is used":                                   {"bearer: {type: http, scheme: bearer}", "bearer: {type: http}"},
		"a newer field":                                           {"requestBody: {content: {application/json: {schema:", "requestBody: {content: {application/json: {itemSchema:"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := authz.Compile(load(t, edited(t, plain, edit[0], edit[1])))
			for _, fault := range faults(t, err) {
				t.Log(fault)
			}
			if err == nil {
				t.Error("Compile accepts it")
			}
		})
	}
}

// OpenAPI 3.2: supported parts are enforced, and others are faults.
func TestNewestVersion(t *testing.T) {
	newest := edited(t, plain, "openapi: 3.1.0", "openapi: 3.2.0")
	newest = edited(t, newest, "    post:\n", "    query:\n")
	plan, err := authz.Compile(load(t, newest))
	if err != nil {
		t.Fatal(err)
	}
	if o := plan.Operations()[1]; o.Method != "QUERY" || o.ID != "setThing" {
		t.Errorf("the plan has %s %s, want the QUERY operation", o.Method, o.ID)
	}
	streamed := edited(t, newest, "requestBody: {content: {application/json: {schema:",
		"requestBody: {content: {application/json: {itemSchema:")
	if _, err := authz.Compile(load(t, streamed)); err == nil ||
		!strings.Contains(err.Error(),
			"QUERY /things/{id}: its body of type application/json has an itemSchema") {
		t.Errorf("itemSchema: error is %v, want a fault", err)
	}
}

func TestDerivedOperationID(t *testing.T) {
	plan, err := authz.Compile(load(t, edited(t, plain, "operationId: setThing\n",
		"summary: Set.\n")))
	if err != nil {
		t.Fatal(err)
	}
	if id := plan.Operations()[1].ID; id != "POST /things/{id}" {
		t.Errorf("the operationId is %q, want it to be made of method and path", id)
	}
	taken := edited(t, plain, "operationId: setThing\n", "summary: Set.\n")
	taken = edited(t, taken, "operationId: getThing\n", "operationId: POST /things/{id}\n")
	if _, err := authz.Compile(load(t, taken)); err == nil {
		t.Error("Compile accepts an operationId that equals the derived one of another operation")
	}
}

// TestScopesByUse: without a list, a scope exists by being used; with one, another is a fault.
func TestScopesByUse(t *testing.T) {
	plan, err := authz.Compile(load(t, plain))
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Scopes(); !slices.Equal(got, []string{"read", "write"}) {
		t.Errorf("Scopes() is %q, want those that are used", got)
	}
	listed := edited(t, plain, "scheme: bearer}", "scheme: bearer, x-scopes: {read: Read.}}")
	if _, err := authz.Compile(load(t, listed)); err == nil ||
		!strings.Contains(err.Error(), "scope write is not declared") {
		t.Errorf("a scope that is not in the list: error is %v, want a fault", err)
	}
	elsewhere := edited(t, plain, "    bearer: {type",
		"    other: {type: http, scheme: bearer, x-scopes: {}}\n    bearer: {type")
	if _, err := authz.Compile(load(t, elsewhere)); err == nil {
		t.Error("Compile accepts undeclared scopes in a document that lists those of another scheme")
	}
}

func TestUnstated(t *testing.T) {
	document := edited(t, plain, "      security: [{bearer: [write]}]\n", "")
	_, err := authz.Compile(load(t, document))
	for _, way := range []string{"security: []", "whole document", "overlay", "Config.Unstated"} {
		if err == nil || !strings.Contains(err.Error(), way) {
			t.Errorf("the fault does not offer %s: %v", way, err)
		}
	}
	config := authz.Config{Document: load(t, document), Verifier: newPrincipals(t, "read", "write"),
		Unstated: authz.DenyUnstated}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	o := gate.Plan().Operations()[1]
	if o.Denied == "" || o.Public() || o.Optional() {
		t.Errorf("the plan has %+v, want a denied operation", o)
	}
	for _, bearer := range []string{"", "read", "write", "unknown"} {
		r := httptest.NewRequest("POST", "/things/1", nil)
		r.Header.Set("Authorization", "Bearer "+bearer)
		if _, err := gate.Check(r, "/things/{id}", func(string) string {
			return "1"
		}); kindOfError(err) != authz.Denied {
			t.Errorf("with %q: %v, want %s", bearer, err, authz.Denied)
		}
		w := httptest.NewRecorder()
		gate.WriteProblem(w, r, &authz.Error{Kind: authz.Denied})
		if w.Code != 403 || w.Header().Get("WWW-Authenticate") != "" ||
			w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("the answer is %d %v, want 403 without a challenge, not for caches",
				w.Code, w.Header())
		}
	}
}

func kindOfError(err error) authz.Kind {
	if e, ok := err.(*authz.Error); ok {
		return e.Kind
	}
	return ""
}

// TestCompileSecurity: access is known even if requests cannot be validated.
func TestCompileSecurity(t *testing.T) {
	document := edited(t, plain, "{application/json: {schema: {type: object, properties: {n: "+
		"{type: integer}}}}}}\n",
		"{application/json: {schema: {type: string, pattern: '[_-.]', const: 1}}}}\n")
	if _, err := authz.Compile(load(t, document)); err == nil {
		t.Error("Compile accepts an invalid pattern")
	}
	plan, err := authz.Config{Document: load(t, document)}.CompileSecurity()
	if err != nil || len(plan.Operations()) != 2 {
		t.Fatalf("CompileSecurity: %v", err)
	}
	if _, err := (authz.Config{Document: load(t, edited(t, document, "[{bearer: [write]}]",
		"[{nowhere: []}]"))}).CompileSecurity(); err == nil {
		t.Error("CompileSecurity accepts an undeclared scheme")
	}
}

func TestExtensions(t *testing.T) {
	on := func(extension string) string {
		return edited(t, plain, "operationId: setThing\n",
			"operationId: setThing\n      "+extension+"\n")
	}
	for _, row := range []struct{ document, fault string }{
		{on("x-authz-max-body: 50MiB"), ""},
		{on("x-authz-max-body: 1000"), ""},
		{on("x-authz-max-body: 50MB"), "x-authz-max-body: expected a size"},
		{on("x-authz-max-body: 0"), "x-authz-max-body: expected a size"},
		{on("x-authz-max-body: -1KiB"), "x-authz-max-body: expected a size"},
		{on("x-authz-max-body: 9007199254740993GiB"), "x-authz-max-body: expected a size"},
		{on("x-authz-max-body: [1]"), "x-authz-max-body: expected a size"},
		{on("x-authz-timeout: 2m"), ""},
		{on("x-authz-timeout: none"), ""},
		{on("x-authz-timeout: 0s"), "x-authz-timeout: expected a positive duration"},
		{on("x-authz-timeout: 120"), "x-authz-timeout: expected a positive duration"},
		{on("x-authz-outlives-token: true"), ""},
		{on("x-authz-stream: false"), ""},
		{on("x-authz-stream: true"), "x-authz-stream: a body of application/json cannot be streamed"},
		{on("x-authz-stream: 1"), "x-authz-stream: expected true or false"},
		{on("x-authz-outlives-token: \"true\""), "x-authz-outlives-token: expected true or false"},
		{on("x-authz-timeouts: 2m"), "POST /things/{id}: unknown extension x-authz-timeouts"},
		{on("X-Authz-Timeout: 2m"), "unknown extension X-Authz-Timeout"},
		{on("x-auth-timeout: 2m"), "did you mean x-authz-timeout?"},
		{on("x-acr-value: [a]"), "did you mean x-acr-values?"},
		{on("x-scopes: {a: b}"), "x-scopes has no effect on an operation: it belongs to a security scheme"},
		{edited(t, plain, "paths:\n", "x-authz-timeout: 2m\npaths:\n"), "x-authz-timeout has no effect on the document"},
		{edited(t, plain, "    parameters: [{name: id", "    x-authz-timeout: 2m\n    parameters: [{name: id"), "x-authz-timeout has no effect on a path"},
		{edited(t, plain, "scheme: bearer}", "scheme: bearer, x-scope: {}}"), "components.securitySchemes.bearer: unknown extension x-scope"},
		{edited(t, plain, "scheme: bearer}", "scheme: bearer, x-max-age: 1}"), "x-max-age has no effect on a security scheme"},
		{edited(t, plain, "schema: {type: boolean}", "schema: {type: boolean}, x-authz-x: 1"), "unknown extension x-authz-x"},
		{edited(t, plain, "schema: {type: boolean}", "schema: {type: boolean, x-authz-x: 1}"), "unknown extension x-authz-x"},
		{edited(t, plain, "requestBody: {", "requestBody: {x-authz-max-body: 1MiB, "), "x-authz-max-body has no effect on a request body"},
	} {
		_, err := authz.Compile(load(t, row.document))
		if row.fault == "" && err != nil || row.fault != "" &&
			(err == nil || !strings.Contains(err.Error(), row.fault)) {
			t.Errorf("error is %v, want %q", err, row.fault)
		}
	}
	plan, err := authz.Compile(load(t, on("x-authz-max-body: 64KiB\n      x-authz-timeout: 90s")))
	if err != nil {
		t.Fatal(err)
	}
	if o := plan.Operations()[1]; o.MaxBody != 64<<10 || o.Timeout != 90*time.Second {
		t.Errorf("the plan says %d bytes in %s, want 64 KiB in 90 s", o.MaxBody, o.Timeout)
	}
}

func TestBasePath(t *testing.T) {
	for _, row := range []struct{ servers, base, fault string }{
		{"", "", ""},
		{"servers: []", "", ""},
		{"servers: [{url: /}]", "", ""},
		{"servers: [{url: /v1}]", "/v1", ""},
		{"servers: [{url: /v1/}]", "/v1", ""},
		{"servers: [{url: 'https://api.example.com'}]", "", ""},
		{"servers: [{url: 'https://api.example.com/v1'}, {url: 'http://localhost:3010/v1/'}, {url: /v1}]", "/v1", ""},
		{"servers: [{url: 'https://{region}.example.com/a/b', variables: {region: {default: eu}}}]", "/a/b", ""},
		{"servers: [{url: '{scheme}://{host}/v1', variables: {scheme: {default: https}, host: {default: a.example}}}]", "/v1", ""},
		{"servers: [{url: 'https://{host}/v1', variables: {host: {default: a.example/x}}}]", "", "variable host may hold a part of the path"},
		{"servers: [{url: 'https://a.example/{version}', variables: {version: {default: v1}}}]", "", "has a variable"},
		{"servers: [{url: '{server}/v1', variables: {server: {default: 'https://a.example'}}}]", "", "depends on where"},
		{"servers: [{url: v1}]", "", "depends on where"},
		{"servers: [{url: 'https://a.example/v1'}, {url: 'https://a.example/v2'}]", "", "different paths"},
		{"servers: [{url: 'https://a.example/v1'}, {url: 'https://a.example'}]", "", "different paths"},
		{"servers: [{url: 'https://a.example/v1/../v2'}]", "", "plain segments"},
		{"servers: [{url: 'https://a.example/a%20b'}]", "", "plain segments"},
	} {
		text := plain
		if row.servers != "" {
			text = edited(t, plain, "paths:\n", row.servers+"\npaths:\n")
		}
		base, err := authz.BasePath(load(t, text))
		if base != row.base || (err == nil) != (row.fault == "") || err != nil &&
			!strings.Contains(err.Error(), row.fault) {
			t.Errorf("%s: %q, %v; want %q %s", row.servers, base, err, row.base, row.fault)
		}
		if err != nil && !strings.Contains(err.Error(), "set the base path") {
			t.Errorf("%s: the fault does not say what to do: %v", row.servers, err)
		}
	}
	for _, of := range []string{"operationId: setThing\n",
		"parameters: [{name: id, in: path, required: true, schema: {type: string}}]\n"} {
		text := edited(t, plain, of, of+"      servers: [{url: /v1}]\n")
		if strings.HasPrefix(of, "parameters") {
			text = edited(t, plain, of, of+"    servers: [{url: /v1}]\n")
		}
		if _, err := authz.BasePath(load(t, text)); err == nil ||
			!strings.Contains(err.Error(), "/things/{id} has its own servers") {
			t.Errorf("servers of a part: error is %v", err)
		}
	}
}

func TestPublicPath(t *testing.T) {
	for _, row := range []struct{ base, public, expected string }{
		{"", "", ""}, {"/v1", "", "/v1"}, {"/v1", "/", ""}, {"", "/v1", "/v1"}, {"/a", "/v1", "/v1"},
	} {
		gate, err := authz.New(authz.Config{Document: load(t, plain), Verifier: principals{},
			BasePath: row.base, PublicPath: row.public})
		if err != nil {
			t.Fatal(err)
		}
		if got := gate.PublicPath(); got != row.expected {
			t.Errorf("%+v: PublicPath() is %q", row, got)
		}
	}
	for _, path := range []string{"v1", "/v1/", "//"} {
		if _, err := authz.New(authz.Config{Document: load(t, plain), Verifier: principals{},
			PublicPath: path}); err == nil {
			t.Errorf("New accepts PublicPath %q", path)
		}
	}
}

// TestMaxBodyOfOperation: x-authz-max-body replaces the limit of the gate, whether it is smaller or
// larger.
func TestMaxBodyOfOperation(t *testing.T) {
	for _, row := range []struct {
		extension string
		size      int
		status    int
	}{
		{"", 100, 0}, {"", 101, 413},
		{"x-authz-max-body: 50", 50, 0}, {"x-authz-max-body: 50", 51, 413},
		{"x-authz-max-body: 1KiB", 1024, 0}, {"x-authz-max-body: 1KiB", 1025, 413},
	} {
		text := edited(t, plain, "operationId: setThing\n",
			"operationId: setThing\n      "+row.extension+"\n")
		gate, err := authz.New(authz.Config{Document: load(t, text),
			Verifier: newPrincipals(t, "write"), MaxBodyBytes: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, length := range []int64{int64(row.size), -1} {
			r := httptest.NewRequest("POST", "/things/1",
				strings.NewReader("{}"+strings.Repeat(" ", row.size-2)))
			r.ContentLength = length
			r.Header.Set("Authorization", "Bearer write")
			r.Header.Set("Content-Type", "application/json")
			_, err := gate.Check(r, "/things/{id}", func(string) string { return "1" })
			status := 0
			if refused, ok := err.(*authz.Error); ok {
				status = refused.Status()
			}
			if status != row.status || (err == nil) != (status == 0) {
				t.Errorf("%q with %d bytes, length %d: %v, want %d", row.extension, row.size,
					length, err, row.status)
			}
		}
	}
}

// TestTimeoutOfOperation: where no server has a limiter, the handler's context ends in time.
func TestTimeoutOfOperation(t *testing.T) {
	for extension, limited := range map[string]bool{"": false, "x-authz-timeout: 2m": true,
		"x-authz-timeout: none": false} {
		text := edited(t, plain, "operationId: setThing\n",
			"operationId: setThing\n      "+extension+"\n")
		gate, err := authz.New(authz.Config{Document: load(t, text),
			Verifier: newPrincipals(t, "write")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, done := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(ctx, "POST", "/things/1", nil)
		r.Header.Set("Authorization", "Bearer write")
		admitted, err := gate.Check(r, "/things/{id}", func(string) string { return "1" })
		if err != nil {
			t.Fatal(err)
		}
		deadline, ok := admitted.Context().Deadline()
		if ok != limited || ok && time.Until(deadline) > 2*time.Minute {
			t.Errorf("%q: the deadline is %v, %v; want one: %v", extension, deadline, ok,
				limited)
		}
		done()
		if <-admitted.Context().Done(); admitted.Context().Err() == nil {
			t.Errorf("%q: the context is not cancelled after its request", extension)
		}
	}
}

// TestPathsOfOneShape: if paths differ only in the names of parameters, each operation has its own
// policy, on a router that distinguishes them by method.
func TestPathsOfOneShape(t *testing.T) {
	s := start(t, `
openapi: 3.1.0
info: {title: Tests of the gate, version: "1"}
paths:
  /things/{id}: {get: {operationId: get, security: [{bearer: [read]}], parameters: [{name: id, in: path, required: true, schema: {type: string}}], responses: {"204": {description: Done.}}}}
  /things/{name}: {delete: {operationId: delete, security: [{bearer: [write]}], parameters: [{name: name, in: path, required: true, schema: {type: string}}], responses: {"204": {description: Done.}}}}
components: {securitySchemes: {bearer: {type: http, scheme: bearer}}}
`, nil)
	s.send(t, "GET /things/1", "", s.bearer("read")).passed(t, "get")
	s.send(t, "DELETE /things/1", "", s.bearer("write")).passed(t, "delete")
	s.send(t, "GET /things/1", "", s.bearer("write")).refused(t, 403, authz.InsufficientScope,
		fmt.Sprintf(lacksScopes, "read"))
	s.send(t, "DELETE /things/1", "", s.bearer("read")).refused(t, 403, authz.InsufficientScope,
		fmt.Sprintf(lacksScopes, "write"))
	s.send(t, "PUT /things/1", "", s.bearer("read write")).refused(t, 405, authz.MethodNotAllowed,
		"")
}

// TestTemplates: path templates need not be supported by every router.
func TestTemplates(t *testing.T) {
	for _, template := range []string{"/things/{id}:activate", "/things:batch", "/files/{id}.json",
		"/{id}-{b}", "/x/{user-id}"} {
		var parameters []string
		for _, part := range strings.Split(template, "{")[1:] {
			name, _, _ := strings.Cut(part, "}")
			parameters = append(parameters,
				"{name: "+name+", in: path, required: true, schema: {type: string}}")
		}
		text := edited(t, plain, "components:\n",
			"  '"+template+"': {get: {security: [{bearer: [read]}], parameters: ["+
				strings.Join(parameters, ", ")+
				"], responses: {'204': {description: Done.}}}}\ncomponents:\n")
		gate, err := authz.New(authz.Config{Document: load(t, text),
			Verifier: newPrincipals(t, "read")})
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		for bearer, kind := range map[string]authz.Kind{"read": "", "": authz.MissingToken} {
			r := httptest.NewRequest("GET", "/", nil)
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			if _, err := gate.Check(r, template, func(string) string {
				return "1"
			}); kindOfError(err) != kind {
				t.Errorf("%s with %q: decided %v, want %q", template, bearer, err, kind)
			}
		}
	}
}
