package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/token"
)

func withDocs(c *Config) { c.Docs = true }

func TestDocsAreOffByDefault(t *testing.T) {
	r := start(t, nil)
	for _, path := range []string{"/docs", "/docs/", "/docs/openapi.json", "/", "/openapi.json"} {
		wantProblem(t, r.ask(t, http.MethodGet, path), http.StatusNotFound)
	}
}

func TestDocs(t *testing.T) {
	r := start(t, withDocs)
	page := r.ask(t, http.MethodGet, "/docs/")
	if page.status != http.StatusOK || !strings.Contains(page.body, r.issuer.URL()) ||
		strings.Contains(page.body, "could not fetch the endpoints") {
		t.Errorf("the page is %d, %s: want it to contain the issuer's endpoints", page.status,
			page.body)
	}
	if policy := page.header.Get("Content-Security-Policy"); !strings.Contains(policy,
		"connect-src 'self' "+r.issuer.URL()+"oauth/token;") {
		t.Errorf("the policy is %s: want one with the issuer's token endpoint", policy)
	}
	if document := r.ask(t, http.MethodGet, "/docs/openapi.json").body; !strings.Contains(document,
		`"tokenUrl":"`+r.issuer.URL()+`oauth/token"`) {
		t.Error("the document does not name the issuer's token endpoint")
	}
	wantProblem(t, r.ask(t, http.MethodGet, "/docs/nothing"), http.StatusNotFound)
	refused := r.ask(t, http.MethodPost, "/docs/")
	wantProblem(t, refused, http.StatusMethodNotAllowed)
	if allow := refused.header.Get("Allow"); allow != "GET, HEAD" {
		t.Errorf("Allow is %q, want GET, HEAD", allow)
	}

	// The API is as strict as without the page.
	wantProblem(t, r.ask(t, http.MethodGet, private.path), http.StatusUnauthorized)
	wantProblem(t, r.ask(t, http.MethodGet, "/docs.json"), http.StatusNotFound)
	if policy := r.ask(t, http.MethodGet,
		healthPath).header.Get("Content-Security-Policy"); policy != "" {
		t.Errorf("an answer of the API has the page's policy %q", policy)
	}
}

// The root redirects browsers to the page, and is an index for others. The document is where tools
// expect it. Operations with these paths take precedence.
func TestBesideDocs(t *testing.T) {
	r := start(t, withDocs)
	page := r.ask(t, http.MethodGet, "/", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	if to := page.header.Get("Location"); page.status != 307 || to != "docs/" {
		t.Errorf("a browser gets %d and %q, want 307 and docs/", page.status, to)
	}
	index := r.ask(t, http.MethodGet, "/", "Accept", "*/*")
	if want := `{"title":"notes","version":"1","docs":"docs/","openapi_json":"docs/openapi.json",` +
		`"openapi_yaml":"docs/openapi.yaml"}` + "\n"; index.body != want ||
		!slices.Contains(index.header.Values("Vary"), "Accept") {
		t.Errorf("the index is %s (Vary: %q), want %s", index.body, index.header["Vary"], want)
	}
	wantProblem(t, r.ask(t, http.MethodPost, "/"), http.StatusMethodNotAllowed)
	for _, path := range []string{"/openapi.json", "/openapi.yaml"} {
		got, want := r.ask(t, http.MethodGet, path), r.ask(t, http.MethodGet, "/docs"+path)
		if got.status != 200 || got.body != want.body {
			t.Errorf("%s is not /docs%s", path, path)
		}
		if got := r.ask(t, http.MethodHead, path); got.status != 200 || got.body != "" {
			t.Errorf("HEAD %s is %d, want 200 and no body", path, got.status)
		}
	}

	for path, yields := range map[string][]string{
		"/":             {"/"},
		"/{name}":       {"/", "/openapi.json", "/openapi.yaml"},
		"/openapi.yaml": {"/openapi.yaml"},
		"/a/{name}":     nil,
	} {
		document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: T, version: "1"}
paths:
  ` + path + `:
    get:
      security: []
      responses: {"200": {description: Fine.}}
`))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(path, "{") {
			document.Paths.Value(path).Parameters = openapi3.Parameters{{
				Value: openapi3.NewPathParameter("name").WithSchema(openapi3.NewStringSchema()),
			}}
		}
		gate, err := authz.New(authz.Config{Document: document})
		if err != nil {
			t.Fatal(err)
		}
		for _, beside := range docs.OtherPaths() {
			kept := slices.Contains(besideDocs(gate), beside)
			if kept == slices.Contains(yields, beside) {
				t.Errorf("with the operation %s, %s is the server's: %v", path, beside, kept)
			}
		}
	}
}

// The files of the documentation vary by encoding, and also by origin.
func TestDocsVaryByOrigin(t *testing.T) {
	r := start(t, func(c *Config) { withDocs(c); allowing(app)(c) })
	for _, path := range []string{"/docs/", "/docs/docs.js", "/docs/swagger-ui.css"} {
		for _, headers := range [][]string{{}, {"Origin", app}} {
			if got := r.ask(t, http.MethodGet, path, headers...); !slices.Contains(
				got.header.Values("Vary"), "Origin") {
				t.Errorf(
					"%s with %q: Vary is %q, want Origin in it: a cache would give one origin's answer to another",
					path, headers, got.header.Values("Vary"))
			}
		}
	}
}

// Requests for the documentation are logged, without authorization codes.
func TestDocsAreLogged(t *testing.T) {
	r := start(t, withDocs)
	r.ask(t, http.MethodGet, "/docs/oauth2-redirect.html?code=confidential&state=s")
	line := r.log.String()
	if !strings.Contains(line, `"path":"/docs/oauth2-redirect.html"`) ||
		strings.Contains(line, "confidential") {
		t.Errorf("logged %s: want a line of the path, without the query", line)
	}
}

func TestDocsAfterReload(t *testing.T) {
	a, b := another(t), another(t)
	r := start(t, func(c *Config) {
		withDocs(c)
		c.Issuers = []token.Issuer{issuerOf(a)}
	})
	for _, issuer := range []string{a.URL(), b.URL()} {
		page := r.ask(t, http.MethodGet, "/docs/")
		if policy := page.header.Get("Content-Security-Policy"); !strings.Contains(policy,
			"connect-src 'self' "+issuer+"oauth/token;") ||
			!strings.Contains(page.body, issuer) {
			t.Errorf("the policy is %s: want one of %s", policy, issuer)
		}
		if err := r.server.Reload([]token.Issuer{issuerOf(b)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDocsWhileTheIssuerIsDown(t *testing.T) {
	r := start(t, withDocs)
	r.issuer.Stop()
	page := r.ask(t, http.MethodGet, "/docs/")
	if page.status != http.StatusOK ||
		!strings.Contains(page.body, "could not fetch the endpoints") {
		t.Errorf("the page is %d: want one that says that the issuer's endpoints could not be "+
			"fetched",
			page.status)
	}
	if log := r.log.String(); !strings.Contains(log, "the docs page cannot request tokens") {
		t.Errorf("logged %s: want to read why", log)
	}
}

// Credentials are filled in with a development issuer only, and only for loopback hosts.
func TestDocsOfDev(t *testing.T) {
	r := start(t, func(c *Config) {
		withDocs(c)
		c.InsecureIssuer = development(t)
		c.InsecureClients = &docs.Clients{ID: "full", Secret: "for-everybody-to-see", App: "app"}
	})
	if page := r.ask(t, http.MethodGet, "/docs/"); !strings.Contains(page.body,
		"for-everybody-to-see") {
		t.Errorf("the page is not filled in: %s", page.body)
	}
	wantProblem(t, r.ask(t, http.MethodGet, "/docs/", "Host", "evil.example"),
		http.StatusMisdirectedRequest)
	if page := start(t, withDocs).ask(t, http.MethodGet, "/docs/"); strings.Contains(page.body,
		"clients") {
		t.Errorf("the page is filled in under serve: %s", page.body)
	}
}

func TestOperationsBelowDocs(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: Papers, version: "1"}
paths:
  /docs: {get: {operationId: all, security: [], responses: {"200": {description: Fine.}}}}
  /docs/{id}: {get: {operationId: one, security: [], parameters: [{name: id, in: path, required: true, schema: {type: string}}], responses: {"200": {description: Fine.}}}}
  /documents: {get: {operationId: other, security: [], responses: {"200": {description: Fine.}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, on := range []bool{false, true} {
		want := "<nil>"
		if on {
			want = "openapi: GET /docs: the server uses this path itself: change the path of the " +
				"operation\n" +
				"openapi: GET /docs/{id}: the server uses this path itself: change the path of " +
				"the operation"
		}
		_, err := New(t.Context(), Config{
			Document: document, Routes: withHandler(greet), Docs: on,
			Logger: slog.New(slog.DiscardHandler),
			Issuers: []token.Issuer{
				{URL: "https://issuer.example/", Audiences: []string{testAudience}},
			},
		})
		if got := fmt.Sprint(err); got != want {
			t.Errorf("with docs on: %v, the faults are\n%s\nwant\n%s", on, got, want)
		}
	}
}
