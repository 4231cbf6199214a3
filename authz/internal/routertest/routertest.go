// Package routertest is one table of behaviour tests that every adapter of a router passes.
package routertest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// Handler is the handler of an operation. param returns the unescaped value of a path parameter, as
// the router gives it to a handler.
type Handler func(w http.ResponseWriter, r *http.Request, param func(string) string) error

// Route is a route that the router is to have. Path is the document's template with the base path.
type Route struct {
	Gate         *authz.Gate // nil: the route is beside the documents
	Method, Path string
	Handler      Handler
}

// Build returns a guarded router with the routes. The error is that of its route check.
type Build func(gates authz.Gates, routes []Route) (http.Handler, error)

const document = `
openapi: 3.1.0
info: {title: t, version: "1"}
security: [{bearerAuth: [read]}]
components:
  securitySchemes: {bearerAuth: {type: http, scheme: bearer, x-scopes: {read: r, write: w}}}
  parameters:
    id: {name: id, in: path, required: true, schema: {type: integer, minimum: 1}}
    name: {name: name, in: path, required: true, schema: {type: string}}
    user: {name: user-id, in: path, required: true, schema: {type: string}}
paths:
  /items:
    get: {operationId: listItems, responses: {"204": {description: Done.}}}
    post:
      operationId: addItem
      security: [{bearerAuth: [write]}]
      requestBody: {required: true, content: {application/json: {schema: {type: object, required: [text], properties: {text: {type: string}}}}}}
      responses: {"204": {description: Done.}}
  /items/special:
    get: {operationId: special, security: [], responses: {"204": {description: Done.}}}
  /items/{id}:
    parameters: [{$ref: "#/components/parameters/id"}]
    get: {operationId: getItem, responses: {"204": {description: Done.}}}
    delete: {operationId: deleteItem, security: [{bearerAuth: [write]}], responses: {"204": {description: Done.}}}
  /files/{name}:
    parameters: [{$ref: "#/components/parameters/name"}]
    get: {operationId: getFile, security: [], responses: {"204": {description: Done.}}}
  /users/{user-id}:
    parameters: [{$ref: "#/components/parameters/user"}]
    get: {operationId: getUser, security: [], responses: {"204": {description: Done.}}}
  /both:
    get: {operationId: getBoth, responses: {"204": {description: Done.}}}
    head: {operationId: headBoth, security: [], responses: {"204": {description: Done.}}}
  /panic:
    get: {operationId: panics, security: [], responses: {"204": {description: Done.}}}
  /half:
    get: {operationId: half, security: [], responses: {"204": {description: Done.}}}
  /fails:
    get: {operationId: fails, security: [], responses: {"204": {description: Done.}}}
  /gone:
    get: {operationId: gone, security: [], responses: {"204": {description: Done.}}}
`

const (
	audience = "https://api.example.com"
	secret   = "dial tcp 10.0.0.7" // of an error; no client may see it
	problem  = "application/problem+json"
)

// harness is one guarded server, and what happened in it.
type harness struct {
	address     string
	read, write string // access tokens

	mu      sync.Mutex
	decided []authz.Decision
	ran     string // the operation whose handler ran
	value   string // of its path parameter
	method  string // of the request that it got
	subject string // of the principal that it got
	logged  strings.Builder
}

// answer is an answer, and what happened on the server before it.
type answer struct {
	*http.Response
	body    string
	problem authz.Problem
	ran     string
	value   string
	method  string
	subject string
	decided []authz.Decision
}

func newHarness(t *testing.T, build Build) *harness {
	t.Helper()
	issuer, err := devissuer.Start(
		devissuer.Config{Audiences: []string{audience}, Algorithm: "ES256"},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{
		read:  issuer.Mint(map[string]any{"sub": "alice", "scope": "read"}),
		write: issuer.Mint(map[string]any{"sub": "bob", "scope": "write"}),
	}
	var gates authz.Gates
	var routes []Route
	for _, base := range []string{"/v1", "/v2"} {
		loaded, err := openapi3.NewLoader().LoadFromData([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		gate, err := authz.New(authz.Config{
			Document: loaded, Verifier: verifier, BasePath: base, Realm: base,
			InsecureUnguarded: []string{"/metrics", "/static/*"},
			Logger:            slog.New(slog.NewTextHandler(locked{h}, nil)),
			OnDecision: func(_ context.Context, d authz.Decision) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.decided = append(h.decided, d)
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		gates = append(gates, gate)
		for _, o := range gate.Plan().Operations() {
			routes = append(
				routes,
				Route{gate, o.Method, base + o.Path, h.handler(base+" "+o.ID, o)},
			)
		}
	}
	for _, path := range []string{"/metrics", "/static/app.js"} {
		routes = append(
			routes,
			Route{nil, http.MethodGet, path, h.handler("unguarded", authz.Operation{})},
		)
	}
	handler, err := build(gates, routes)
	if err != nil {
		t.Fatalf("the route check: %v", err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.DisableGeneralOptionsHandler = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	h.address = server.Listener.Addr().String()
	return h
}

type locked struct{ *harness }

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logged.Write(p)
}

// handler is that of an operation: it notes that it ran, and does what its operation is there for.
func (h *harness) handler(id string, o authz.Operation) Handler {
	return func(w http.ResponseWriter, r *http.Request, param func(string) string) error {
		h.mu.Lock()
		h.ran, h.method = id, r.Method
		if _, name, ok := strings.Cut(o.Path, "{"); ok {
			h.value = param(strings.TrimSuffix(name, "}"))
		}
		if p, ok := token.FromContext(r.Context()); ok {
			h.subject = p.Subject()
		}
		h.mu.Unlock()
		switch o.ID {
		case "panics":
			panic(secret)
		case "half":
			w.WriteHeader(http.StatusOK)
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(secret)
		case "fails":
			return errors.New(secret)
		case "gone":
			return authz.StatusError(http.StatusGone, "It was there yesterday.", errors.New(secret))
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, "ok")
		return nil
	}
}

// send sends a request whose target is not looked at by a client: "GET //v1/items".
func (h *harness) send(t *testing.T, request, bearer, body string) answer {
	t.Helper()
	h.mu.Lock()
	h.ran, h.value, h.method, h.subject, h.decided = "", "", "", "", nil
	h.mu.Unlock()
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	head := request + " HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n"
	if bearer != "" {
		head += "Authorization: Bearer " + bearer + "\r\n"
	}
	if body != "" {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	read, err := io.ReadAll(response.Body)
	if err != nil && !strings.HasSuffix(request, "/half") {
		t.Fatalf("%s: %v", request, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a := answer{
		Response: response,
		body:     string(read),
		ran:      h.ran,
		value:    h.value,
		method:   h.method,
		subject:  h.subject,
		decided:  slices.Clone(h.decided),
	}
	if response.Header.Get("Content-Type") == problem && method != http.MethodHead {
		if err := json.Unmarshal(read, &a.problem); err != nil ||
			a.problem.Status != response.StatusCode {
			t.Errorf("%s: status %d, the problem is %s", request, response.StatusCode, read)
		}
	}
	if response.StatusCode >= 400 && response.Header.Get("Content-Type") != problem {
		t.Errorf(
			"%s: status %d as %q, expected a problem",
			request,
			response.StatusCode,
			response.Header.Get("Content-Type"),
		)
	}
	if strings.Contains(a.body, secret) {
		t.Errorf("%s: the answer has the text of an error: %s", request, a.body)
	}
	return a
}

// Run runs the table.
func Run(t *testing.T, build Build) {
	h := newHarness(t, build)
	t.Run("decisions", h.decisions)
	t.Run("hostile paths", h.hostile)
	t.Run("HEAD", h.head)
	t.Run("handlers", h.handlers)
	t.Run("unguarded", h.unguarded)
	t.Run("uploads", func(t *testing.T) { uploadRows(t, build) })
	t.Run("limits of uploads", func(t *testing.T) { uploadLimits(t, build) })
	t.Run("memory of uploads", func(t *testing.T) { uploadMemory(t, build) })
	t.Run("reported uploads", func(t *testing.T) { uploadReports(t, build) })
	t.Run("faults", func(t *testing.T) { faults(t, build) })
}

func (h *harness) decisions(t *testing.T) {
	for _, row := range []struct {
		name, request, bearer, body string
		status                      int
		ran, allow                  string
	}{
		{"a token", "GET /v1/items/7", h.read, "", 200, "/v1 getItem", ""},
		{"the other document", "GET /v2/items/7", h.read, "", 200, "/v2 getItem", ""},
		{"no token", "GET /v1/items/7", "", "", 401, "", ""},
		{"no token and an invalid parameter", "GET /v1/items/not-a-number", "", "", 401, "", ""},
		{"no token and an invalid body", "POST /v1/items", "", "{}", 401, "", ""},
		{"a scope too few", "DELETE /v1/items/7", h.read, "", 403, "", ""},
		{"an invalid parameter", "GET /v1/items/not-a-number", h.read, "", 400, "", ""},
		{"a parameter that is not declared", "GET /v1/items?x=1", h.read, "", 400, "", ""},
		{"an invalid body", "POST /v1/items", h.write, "{}", 400, "", ""},
		{"a body", "POST /v1/items", h.write, `{"text":"x"}`, 200, "/v1 addItem", ""},
		{"public", "GET /v1/items/special", "", "", 200, "/v1 special", ""},
		{"an unknown path", "GET /v1/nothing", "", "", 404, "", ""},
		{"an unknown path, a token", "GET /v1/nothing", h.read, "", 404, "", ""},
		{"outside both documents", "GET /items/7", h.read, "", 404, "", ""},
		{"another method", "PATCH /v1/items", "", "", 405, "", "GET, HEAD, POST"},
		{"another method, a parameter", "POST /v1/items/7", h.read, "", 405, "",
			"DELETE, GET, HEAD"},
		{"another method, a token, the other document", "PUT /v2/both", h.read, "", 405, "",
			"GET, HEAD"},
		{"an unheard-of method", "BREW /v1/items", "", "", 405, "", "GET, HEAD, POST"},
		{"OPTIONS", "OPTIONS /v1/items", "", "", 405, "", "GET, HEAD, POST"},
		{"TRACE", "TRACE /v1/items", "", "", 405, "", "GET, HEAD, POST"},
		{"a parameter whose name has a dash", "GET /v1/users/ann", "", "", 200, "/v1 getUser", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := h.send(t, row.request, row.bearer, row.body)
			if a.StatusCode != row.status || a.ran != row.ran {
				t.Fatalf(
					"%s: status %d, ran %q: expected %d, %q; %s",
					row.request,
					a.StatusCode,
					a.ran,
					row.status,
					row.ran,
					a.body,
				)
			}
			if allow := methods(a.Header); allow != row.allow {
				t.Errorf("%s: Allow is %q, expected %q", row.request, allow, row.allow)
			}
			if row.status == 401 &&
				!strings.HasPrefix(a.Header.Get("WWW-Authenticate"), `Bearer realm="/v1"`) {
				t.Errorf("the challenge is %q", a.Header.Get("WWW-Authenticate"))
			}
			if a.ran != "" && row.bearer != "" &&
				a.subject != map[string]string{h.read: "alice", h.write: "bob"}[row.bearer] {
				t.Errorf("the handler sees the principal %q", a.subject)
			}
		})
	}
}

// methods returns the methods of the Allow headers, sorted.
func methods(header http.Header) string {
	all := strings.FieldsFunc(
		strings.Join(header.Values("Allow"), ","),
		func(r rune) bool { return r == ',' || r == ' ' },
	)
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// hostile: for any path, the operation that was decided is the one that runs. If routers differ, no
// handler runs with any of the statuses.
func (h *harness) hostile(t *testing.T) {
	for _, row := range []struct {
		target   string
		value    string // of the parameter, where a handler runs
		statuses []int
	}{
		{"/v1/items/7", "7", []int{200}},
		{"/v1/items/7/", "", []int{404}},
		{"/v1/items/", "", []int{404}},
		{"/v1//items/7", "", []int{404}},
		{"//v1/items/7", "", []int{404}},
		{"/v1/items//7", "", []int{404}},
		{"/v1/items/7//", "", []int{404}},
		{"//", "", []int{404}},
		{"/", "", []int{404}},
		{"/v1", "", []int{404}},
		{"/v1/", "", []int{404}},
		{"/v1/./items/7", "", []int{404}},
		{"/v1/x/../items/7", "", []int{404}},
		{"/v2/../v1/items/special", "", []int{404}},
		{"/v1/items/7/.", "", []int{404}},
		{"/v1/items/7/../special", "", []int{404}},
		{"/v1/items/..", "", []int{400, 404}},
		{"/v1/%2e%2e/v1/items/7", "", []int{404}},
		{"/v1/items/%2e%2e%2fspecial", "", []int{400}},
		{"/v1/items/..%2fspecial", "", []int{400}},
		{"/V1/items/7", "", []int{404}},
		{"/v1/ITEMS/7", "", []int{404}},
		{"/v1/items/SPECIAL", "", []int{400}},
		{"/v1/%69tems/7", "", []int{404}},
		{"/v1/items%2F7", "", []int{404}},
		{"/v1%2Fitems/7", "", []int{404}},
		{"/v1/items/%73pecial", "", []int{400, 404}},
		{"/v1/items/%37", "7", []int{200}},
		{"/v1/items;x=1", "", []int{404}},
		{"/v1/items;/7", "", []int{404}},
		{"/v1/items/7;x=1", "", []int{400}},
		{"/v1/items/special;x", "", []int{400}},
		{"/v1/items/7%3F", "", []int{400}},
		{"/v1/items/7%00", "", []int{400}},
		{"/v1/items/7%0a", "", []int{400}},
		{"/v1/items/7?", "7", []int{200}},
		{"/v1/files/a%2Fb", "a/b", []int{200}},
		{"/v1/files/a%252Fb", "a%2Fb", []int{200}},
		{"/v1/files/a+b", "a+b", []int{200}},
		{"/v1/files/a%20b", "a b", []int{200}},
		{"/v1/files/a;b", "a;b", []int{200}},
		{"/v1/files/a:b", "a:b", []int{200}},
		{"/v1/files/%C3%BC", "ü", []int{200}},
		{"/v1/files/*", "*", []int{200}},
		{"/v1/files/:name", ":name", []int{200}},
		{"/v1/files/{name}", "{name}", []int{200}},
		{"/v1/files/%7Bname%7D", "{name}", []int{200}},
		{"/v1/files/a/b", "", []int{404}},
		{"/v1/files/a%2Fb/", "", []int{404}},
		{"/v1/files/%FF", "", []int{400}},
		{"http://other.example/v1/items/7", "7", []int{200}},
	} {
		a := h.send(t, "GET "+row.target, h.read, "")
		if !slices.Contains(row.statuses, a.StatusCode) || (a.ran != "") != (a.StatusCode == 200) {
			t.Errorf(
				"%s: status %d, ran %q: expected one of %v",
				row.target,
				a.StatusCode,
				a.ran,
				row.statuses,
			)
		}
		if a.ran != "" &&
			(len(a.decided) != 1 || a.decided[0].Outcome != authz.Allowed ||
				!strings.HasSuffix(a.ran, " "+a.decided[0].Operation.ID)) {
			t.Errorf("%s: %s ran, the decisions are %+v", row.target, a.ran, a.decided)
		}
		if a.value != row.value {
			t.Errorf("%s: the handler got %q, expected %q", row.target, a.value, row.value)
		}
	}
}

func (h *harness) head(t *testing.T) {
	for _, row := range []struct {
		target, bearer string
		status         int
		ran            string
	}{
		{"/v1/items/7", h.read, 200, "/v1 getItem"}, // as GET, by GET's policy
		{"/v1/items/7", h.write, 403, ""},
		{"/v1/items/7", "", 401, ""},
		{"/v1/items/x", h.read, 400, ""},
		{"/v1/items/special", "", 200, "/v1 special"},
		{"/v1/both", "", 200, "/v1 headBoth"}, // as declared
		{"/v1/nothing", "", 404, ""},
	} {
		a := h.send(t, "HEAD "+row.target, row.bearer, "")
		if a.StatusCode != row.status || a.ran != row.ran || a.body != "" {
			t.Errorf(
				"HEAD %s: status %d, ran %q, body %q: expected %d, %q, no body",
				row.target,
				a.StatusCode,
				a.ran,
				a.body,
				row.status,
				row.ran,
			)
		}
		if a.ran != "" && a.method != http.MethodHead {
			t.Errorf("HEAD %s: the handler got the method %s", row.target, a.method)
		}
	}
	if a := h.send(t, "GET /v1/both", "", ""); a.StatusCode != 401 {
		t.Errorf("GET of a path with a declared HEAD: status %d, expected 401", a.StatusCode)
	}
}

func (h *harness) handlers(t *testing.T) {
	for _, row := range []struct {
		path   string
		status int
		detail string // "": whatever
	}{
		{"/v1/panic", 500, ""},
		{"/v1/fails", 500, ""},
		{"/v1/gone", 410, "It was there yesterday."},
	} {
		a := h.send(t, "GET "+row.path, "", "")
		if a.StatusCode != row.status || row.detail != "" && a.problem.Detail != row.detail {
			t.Errorf("%s: status %d, %s", row.path, a.StatusCode, a.body)
		}
		h.mu.Lock()
		if logged := h.logged.String(); strings.Contains(logged, secret) != (row.status == 500) {
			t.Errorf("%s: the log has %q", row.path, logged)
		}
		h.logged.Reset()
		h.mu.Unlock()
	}
	if a := h.send(t, "GET /v1/half", "", ""); a.StatusCode != 200 || a.body != "half" {
		t.Errorf("a panic in the middle of an answer: status %d, %q", a.StatusCode, a.body)
	}
}

func (h *harness) unguarded(t *testing.T) {
	for target, status := range map[string]int{"/metrics": 200, "/static/app.js": 200,
		"/static/other.js": 404, "/metrics/": 404, "/Metrics": 404} {
		a := h.send(t, "GET "+target, "", "")
		if a.StatusCode != status || (a.ran == "unguarded") != (status == 200) {
			t.Errorf("%s: status %d, ran %q: expected %d", target, a.StatusCode, a.ran, status)
		}
	}
}

// faults: a router that does not have the document's routes, all of them and no other, does not
// start.
func faults(t *testing.T, build Build) {
	for _, row := range []struct {
		name   string
		change func([]Route) []Route
		fault  string
	}{
		{"a route more", func(all []Route) []Route {
			return append(all, Route{nil, http.MethodGet, "/debug", all[0].Handler})
		}, "/debug: a route that the document does not describe"},
		{"a route less", func(all []Route) []Route { return all[1:] },
			"no route serves this operation"},
	} {
		loaded, err := openapi3.NewLoader().LoadFromData([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		gate, err := authz.New(authz.Config{Document: loaded, Verifier: nobody{}})
		if err != nil {
			t.Fatal(err)
		}
		var routes []Route
		for _, o := range gate.Plan().Operations() {
			routes = append(
				routes,
				Route{
					gate,
					o.Method,
					o.Path,
					func(http.ResponseWriter, *http.Request, func(string) string) error {
						return nil
					},
				},
			)
		}
		if _, err := build(authz.Gates{gate}, row.change(routes)); err == nil ||
			!strings.Contains(err.Error(), row.fault) {
			t.Errorf("%s: the route check says %v, expected %q", row.name, err, row.fault)
		}
	}
}

type nobody struct{}

func (nobody) Verify(context.Context, string) (*token.Principal, error) {
	return nil, &token.Error{Code: token.Malformed}
}
