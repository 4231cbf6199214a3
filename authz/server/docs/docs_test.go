package docs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// orders is a document with every kind of access, and with parts that the served copy must change.
const orders = `
openapi: 3.1.0
info: {title: Orders, version: 1.0.0, summary: What is ordered.}
servers: [{url: https://elsewhere.example/v1}]
paths:
  /open:
    servers: [{url: https://elsewhere.example/path}]
    get:
      {operationId: open, security: [], responses: {"200": {description: Fine.}}}
  /any:
    get:
      operationId: any
      security: [{bearerAuth: []}]
      servers: [{url: https://elsewhere.example/operation}]
      responses: {"200": {description: Fine.}}
  /one:
    get:
      {operationId: one, security: [{bearerAuth: ["read:orders"]}], responses: {"200": {description: Fine.}}}
    put:
      {operationId: both, security: [{bearerAuth: ["read:orders", "write:orders"]}], responses: {"200": {description: Fine.}}}
  /or:
    get:
      operationId: or
      security: [{bearerAuth: ["read:orders"]}, {bearerAuth: ["write:orders"]}]
      responses: {"200": {description: Fine.}}
  /either:
    get:
      operationId: either
      security: [{bearerAuth: ["read:orders"]}, {signIn: []}]
      responses: {"200": {description: Fine.}}
  /optional:
    get:
      {operationId: optional, security: [{}, {bearerAuth: ["read:orders"]}], responses: {"200": {description: Fine.}}}
  /signed:
    get:
      operationId: signed
      security: [{signIn: ["write:orders", "audit"]}]
      x-acr-values: [gold]
      x-max-age: 300
      responses: {"200": {description: Fine.}}
components:
  securitySchemes:
    bearerAuth:
      {type: http, scheme: bearer, x-scopes: {"read:orders": Read orders, "write:orders": Write orders}}
    signIn:
      type: oauth2
      description: At the issuer.
      flows:
        implicit: {authorizationUrl: https://elsewhere.example/authorize, scopes: {audit: Look closely, "write:orders": Write orders}}
`

// accesses is the requirement of each operation of orders, by operationId.
var accesses = map[string]string{
	"open": "public", "any": "token", "one": "scope: read:orders", "both": "scope: read:orders and write:orders",
	"or": "scope: read:orders or write:orders", "either": "token", "optional": "token optional",
	"signed": "scope: write:orders and audit, signed in by gold, signed in within 300 s",
}

const issuerURL = "https://issuer.example/"

// site is a page under test, with its configuration.
type site struct {
	*Docs
	document *openapi3.T
	log      *bytes.Buffer
	asked    int   // number of requests for the metadata of issuers
	down     error // what they answer then
	now      time.Time
}

func newSite(t *testing.T, configure func(*Config)) *site {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData([]byte(orders))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{document: document, log: &bytes.Buffer{}, now: time.Unix(1e9, 0)}
	config := Config{
		Document: document, Resource: "https://api.example/", Issuers: []Issuer{{URL: issuerURL, Audience: "https://api"}},
		Discover: func(_ context.Context, issuer string) (string, string, error) {
			s.asked++
			return issuer + "authorize", issuer + "oauth/token", s.down
		},
		Refuse: func(w http.ResponseWriter, _ *http.Request, err error) {
			e, ok := errors.AsType[*authz.Error](err)
			if !ok {
				t.Fatalf("the error is %v: want an authz.Error", err)
			}
			w.Header().Set("Allow", strings.Join(e.Allow, ", "))
			http.Error(w, "refused", e.Status())
		},
		Logger: slog.New(slog.NewTextHandler(s.log, nil)),
		Now:    func() time.Time { return s.now },
	}
	if configure != nil {
		configure(&config)
	}
	if s.Docs, err = New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends a request. headers are name, value, name, value.
func (s *site) ask(method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// served is the copy of the document that the page loads.
func (s *site) copy(t *testing.T, target string) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(s.ask("GET", target).Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Errorf("the served document is invalid: %v", err)
	}
	return document
}

// settings returns the settings of the page's script.
func (s *site) settings(t *testing.T, target string) (settings struct {
	Schemes map[string]struct {
		Issuer, Audience string
		Clients          map[string]struct{ ID, Secret string }
	}
}) {
	t.Helper()
	escaped := regexp.MustCompile(`data-settings="([^"]*)"`).FindStringSubmatch(s.ask("GET",
		target).Body.String())
	if escaped == nil {
		t.Fatal("the page has no data-settings")
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(escaped[1], "&#34;", `"`)),
		&settings); err != nil {
		t.Fatal(err)
	}
	return settings
}

const (
	strict = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	open = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' https://issuer.example/oauth/token; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func TestAnswers(t *testing.T) {
	s := newSite(t, nil)
	tests := []struct {
		method, path string
		status       int
		contentType  string // a prefix; "": the server's refusal, or none
		caching      string
		policy       string
		allow        string
	}{
		{"GET", "/docs", 307, "", "no-store", strict, ""},
		{"HEAD", "/docs", 307, "", "no-store", strict, ""},
		{"GET", "/docs/", 200, "text/html; charset=utf-8", "no-store", open, ""},
		{"HEAD", "/docs/", 200, "text/html; charset=utf-8", "no-store", open, ""},
		{"GET", "/docs/openapi.json", 200, "application/json", "no-cache", strict, ""},
		{"GET", "/docs/openapi.yaml", 200, "application/yaml", "no-cache", strict, ""},
		{"GET", "/docs/snippets.json?operation=one", 200, "application/json", "no-cache", strict, ""},
		{"GET", "/docs/snippets.json?operation=none", 404, "", "", strict, ""},
		{"GET", "/docs/snippets.json", 404, "", "", strict, ""},
		{"GET", "/docs/docs.js", 200, "text/javascript", "no-cache", strict, ""},
		{"GET", "/docs/docs.css", 200, "text/css", "no-cache", strict, ""},
		{"GET", "/docs/swagger-ui-bundle.js", 200, "text/javascript", "no-cache", strict, ""},
		{"GET", "/docs/swagger-ui.css", 200, "text/css", "no-cache", strict, ""},
		{"GET", "/docs/favicon.svg", 200, "image/svg+xml", "no-cache", strict, ""},
		{"GET", "/docs/oauth2-redirect.html?code=c&state=s", 200, "text/html", "no-cache", strict, ""},
		{"GET", "/docs/oauth2-redirect.js", 200, "text/javascript", "no-cache", strict, ""},
		{"HEAD", "/docs/docs.js", 200, "text/javascript", "no-cache", strict, ""},
		{"GET", "/docs/index.html", 404, "", "", strict, ""},
		{"GET", "/docs/page/docs.js", 404, "", "", strict, ""},
		{"GET", "/docs/../docs.js", 404, "", "", strict, ""},
		{"GET", "/docs//", 404, "", "", strict, ""},
		{"GET", "/docs/snippets/curl.tmpl", 404, "", "", strict, ""},
		{"GET", "/docsearch", 404, "", "", strict, ""},
		{"POST", "/docs", 405, "", "", strict, "GET, HEAD"},
		{"POST", "/docs/", 405, "", "", strict, "GET, HEAD"},
		{"OPTIONS", "/docs/openapi.json", 405, "", "", strict, "GET, HEAD"},
		{"DELETE", "/docs/nothing", 405, "", "", strict, "GET, HEAD"},
	}
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			got := s.ask(test.method, test.path)
			if got.Code != test.status {
				t.Errorf("status is %d, want %d", got.Code, test.status)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": test.policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": test.caching, "Allow": test.allow, "Access-Control-Allow-Origin": "",
			} {
				if is := got.Header().Get(name); is != want {
					t.Errorf("%s is %q, want %q", name, is, want)
				}
			}
			if is := got.Header().Get("Content-Type"); test.contentType != "" &&
				!strings.HasPrefix(is, test.contentType) {
				t.Errorf("Content-Type is %q, want %s", is, test.contentType)
			}
			if test.method == "HEAD" && got.Body.Len() > 0 {
				t.Errorf("the answer to HEAD has a body of %d bytes", got.Body.Len())
			}
			if test.method == "GET" && test.status == 200 && got.Body.Len() == 0 {
				t.Error("the answer is empty")
			}
			// The URL is relative, so that it works behind a proxy that removes a prefix.
			if is := got.Header().Get("Location"); test.status == 307 && is != "docs/" {
				t.Errorf("Location is %q, want docs/", is)
			}
		})
	}
}

func TestServes(t *testing.T) {
	for path, want := range map[string]bool{"/docs": true, "/docs/": true, "/docs/x/y": true,
		"/docsearch": false, "/Docs": false, "/": false, "/api/docs": false} {
		if Serves(path) != want {
			t.Errorf("Serves(%q) is %v", path, !want)
		}
	}
}

func TestFilesAreCached(t *testing.T) {
	s := newSite(t, nil)
	for name := range s.files {
		first := s.ask("GET", "/docs/"+name, "Accept-Encoding", "gzip")
		etag := first.Header().Get("ETag")
		if again := s.ask("GET", "/docs/"+name, "Accept-Encoding", "gzip", "If-None-Match",
			etag); again.Code != 304 || again.Body.Len() > 0 {
			t.Errorf("%s with the ETag %s that it had: %d with %d bytes, want 304 with none", name,
				etag, again.Code, again.Body.Len())
		}
		if s.ask("GET", "/docs/"+name, "If-None-Match", `"another"`).Code != 200 {
			t.Errorf("%s with another ETag is not sent", name)
		}
	}
}

func TestCompression(t *testing.T) {
	s := newSite(t, nil)
	plain := s.ask("GET", "/docs/swagger-ui-bundle.js")
	if plain.Header().Get("Content-Encoding") != "" || plain.Body.Len() < 1<<20 {
		t.Fatalf("without gzip: Content-Encoding %q with %d bytes",
			plain.Header().Get("Content-Encoding"), plain.Body.Len())
	}
	for accepted, want := range map[string]string{
		"gzip": "gzip", "deflate, gzip;q=1.0, *;q=0.5": "gzip", "GZIP": "gzip", "br, gzip": "gzip",
		"gzip;q=0": "", "gzip; q=0": "", "br": "", "xgzip": "",
	} {
		got := s.ask("GET", "/docs/swagger-ui-bundle.js", "Accept-Encoding", accepted)
		if is := got.Header().Get("Content-Encoding"); is != want ||
			got.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf(
				"Accept-Encoding %s: Content-Encoding %q, Vary %q: want %q and Accept-Encoding",
				accepted, is, got.Header().Get("Vary"), want)
		}
		if want != "" {
			reader, err := gzip.NewReader(got.Body)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(reader); err != nil ||
				!bytes.Equal(text, plain.Body.Bytes()) {
				t.Errorf("Accept-Encoding %s: the content differs from that without: %v", accepted,
					err)
			}
			if got.Header().Get("ETag") == plain.Header().Get("ETag") {
				t.Error("both codings have one ETag, which is strong (RFC 9110 §8.8.3)")
			}
		}
	}
}

// What the policy forbids must not be there, and what a page names must be.
func TestPagesAgreeWithThePolicy(t *testing.T) {
	for name, s := range map[string]*site{
		"serve": newSite(t, nil),
		"dev":   newSite(t, func(c *Config) { c.InsecureClients = &Clients{"full", "secret", "app"} }),
		"down": newSite(t, func(c *Config) {
			c.Discover = func(context.Context, string) (string, string, error) {
				return "", "", errors.New("down")
			}
		}),
	} {
		for _, path := range []string{"/docs/", "/docs/oauth2-redirect.html"} {
			html := s.ask("GET", "http://localhost:3010"+path).Body.String()
			for what, forbidden := range map[string]string{
				"a script within": `<script[^>]*>[^<]`, "a script without a file": `<script(\s+[^s>][^>]*)?>`, "a style within": `<style`, "an inline style": `\sstyle\s*=`,
				"an inline handler": `<[^>]*\son[a-z]+\s*=`, "an address elsewhere": `(src|href)\s*=\s*"?(https?:)?//`, "a script's URL": `javascript:`,
			} {
				if found := regexp.MustCompile(`(?i)` + forbidden).FindString(html); found != "" {
					t.Errorf("%s %s has %s: %s", name, path, what, found)
				}
			}
			links := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(html, -1)
			if len(links) < 2 {
				t.Errorf("%s %s has %d links: want its script and its style", name, path,
					len(links))
			}
			for _, link := range links {
				if got := s.ask("GET", "/docs/"+link[1]); got.Code != 200 {
					t.Errorf("%s %s names %s, which is answered with %d", name, path, link[1],
						got.Code)
				}
			}
		}
	}
	for name, file := range newSite(t, nil).files {
		if strings.HasSuffix(name, ".css") &&
			regexp.MustCompile(`url\(\s*["']?(https?:)?//`).Match(file.plain) {
			t.Errorf("%s loads something from another host", name)
		}
	}
}

func TestServedDocument(t *testing.T) {
	s := newSite(t, nil)
	before, _ := s.document.MarshalJSON()
	served := s.copy(t, "/docs/openapi.json")

	if len(served.Servers) != 1 || served.Servers[0].URL != "https://api.example" {
		t.Errorf("servers are %v: want only the resource", served.Servers)
	}
	scheme := served.Components.SecuritySchemes["oauth2"].Value
	scopes := map[string]string{"read:orders": "Read orders", "write:orders": "Write orders",
		"audit": "Look closely"}
	for flow, is := range map[string]*openapi3.OAuthFlow{
		"clientCredentials": scheme.Flows.ClientCredentials,
		"authorizationCode": scheme.Flows.AuthorizationCode,
	} {
		if is == nil || is.TokenURL != issuerURL+"oauth/token" || !maps.Equal(is.Scopes, scopes) {
			t.Errorf("%s is %+v: want the issuer's token endpoint, and the scopes %v", flow, is,
				scopes)
		}
	}
	if is := scheme.Flows.AuthorizationCode.AuthorizationURL; is != issuerURL+"authorize" {
		t.Errorf("the authorization endpoint is %q", is)
	}
	if is := served.Components.SecuritySchemes["signIn"].Value; is.Type != "http" ||
		is.Scheme != "bearer" || is.Flows != nil {
		t.Errorf("signIn is %+v: want a token that is pasted, for the document's flows lead "+
			"elsewhere", is)
	}

	shown := map[string]bool{}
	for _, o := range authz.Describe(served) {
		operation := served.Paths.Value(o.Path).GetOperation(o.Method)
		if is := operation.Extensions["x-access"]; is != accesses[o.ID] {
			t.Errorf("x-access of %s is %q, want %q", o.ID, is, accesses[o.ID])
		}
		shown[o.ID] = true
		if operation.Servers != nil || served.Paths.Value(o.Path).Servers != nil {
			t.Errorf("%s has its own servers, where this one would not answer", o.ID)
		}
		// In the copy, a token of the issuer with the same scopes grants access to the operations
		// that the document's own schemes protect.
		original := s.document.Paths.Value(o.Path).GetOperation(o.Method)
		want := slices.Clone(*original.Security)
		for _, alternative := range *original.Security {
			for _, scopes := range alternative {
				want = append(want, openapi3.SecurityRequirement{"oauth2": scopes})
			}
		}
		if !reflect.DeepEqual(*operation.Security, want) {
			t.Errorf("security of %s is %v, want %v", o.ID, *operation.Security, want)
		}
	}
	if len(shown) != len(accesses) {
		t.Errorf("there are %d operations, want %d", len(shown), len(accesses))
	}
	if after, _ := s.document.MarshalJSON(); !bytes.Equal(before, after) {
		t.Error("the document that was given has changed")
	}
}

// The rest of the document, apart from servers and security, is unchanged in the copy.
func TestServedDocumentKeepsTheRest(t *testing.T) {
	s := newSite(t, nil)
	var original, served map[string]any
	given, err := s.document.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for text, into := range map[*[]byte]*map[string]any{&given: &original,
		new(s.ask("GET", "/docs/openapi.json").Body.Bytes()): &served} {
		if err := json.Unmarshal(*text, into); err != nil {
			t.Fatal(err)
		}
		delete(*into, "servers")
		delete((*into)["components"].(map[string]any), "securitySchemes")
		for _, item := range (*into)["paths"].(map[string]any) {
			delete(item.(map[string]any), "servers")
			for _, operation := range item.(map[string]any) {
				for _, member := range []string{"security", "servers", "x-access"} {
					delete(operation.(map[string]any), member)
				}
			}
		}
	}
	if !reflect.DeepEqual(original, served) {
		t.Errorf("the copy is\n%v\nwant\n%v", served, original)
	}
}

func TestSnippetsAreOfTheSite(t *testing.T) {
	s := newSite(t, nil)
	for id := range accesses {
		text := s.ask("GET", "/docs/snippets.json?operation="+id).Body.String()
		var snippets Snippets
		if err := json.Unmarshal([]byte(text), &snippets); err != nil ||
			len(snippets.Operations) != 1 {
			t.Errorf("the answer for %s is of %d operations (%v), want one", id,
				len(snippets.Operations), err)
		}
		for _, want := range []string{issuerURL + "oauth/token", "https://api.example/one", "https://api", "YOUR_CLIENT_SECRET"} {
			if id == "one" && !strings.Contains(text, want) {
				t.Errorf("the snippets of %s do not have %s", id, want)
			}
		}
	}
}

// Generated files are compressed and cached like static ones.
func TestDocumentAndSnippetsAreCached(t *testing.T) {
	s := newSite(t, nil)
	for _, path := range []string{"/docs/openapi.json", "/docs/openapi.yaml",
		"/docs/snippets.json?operation=one"} {
		first := s.ask("GET", path, "Accept-Encoding", "gzip")
		if is := first.Header().Get("Content-Encoding"); is != "gzip" {
			t.Errorf("%s: Content-Encoding is %q, want gzip", path, is)
		}
		etag := first.Header().Get("ETag")
		if again := s.ask("GET", path, "Accept-Encoding", "gzip", "If-None-Match",
			etag); again.Code != 304 {
			t.Errorf("%s with the ETag %s that it had is %d, want 304", path, etag, again.Code)
		}
	}
}

// The copy has the order of the document's text, in paths, methods and members of examples.
func TestServedDocumentKeepsTheOrder(t *testing.T) {
	const source = `
openapi: 3.1.0
info: {version: "1", title: Order}
paths:
  /z:
    put: {operationId: put, security: [], responses: {"200": {description: "Fine: yes"}}}
    get:
      operationId: get
      security: []
      responses:
        "200":
          description: "1"
          content: {application/json: {example: {zebra: 1, ant: {y: "true", b: 10000000000000000001}}}}
  /a:
    get: {operationId: a, security: [], responses: {"200": {description: Fine.}}}
`
	s := newSite(t, func(c *Config) {
		document, err := openapi3.NewLoader().LoadFromData([]byte(source))
		if err != nil {
			t.Fatal(err)
		}
		c.Document, c.Source = document, []byte(source)
	})
	for path, order := range map[string][]string{
		"/docs/openapi.json": {`"openapi"`, `"info"`, `"version"`, `"title"`, `"/z"`, `"put"`, `"get"`, `"zebra"`, `"ant"`, `"y":"true"`, `"b"`, `"/a"`},
		"/docs/openapi.yaml": {"openapi:", "info:", "version: \"1\"", "title:", "/z:", "put:", "get:", "zebra:", "ant:", "y: \"true\"", "b:", "/a:"},
	} {
		rest := s.ask("GET", path).Body.String()
		for _, next := range order {
			_, after, found := strings.Cut(rest, next)
			if !found {
				t.Fatalf("%s: %s does not follow in:\n%s", path, next, rest)
			}
			rest = after
		}
		s.copy(t, path)
	}
	_, err := New(t.Context(), Config{Document: s.document, Source: []byte("\t{"),
		Refuse: func(http.ResponseWriter, *http.Request, error) {}})
	if err == nil || !strings.Contains(err.Error(), "Config.Source is not valid YAML") {
		t.Errorf("a source that is not YAML: %v", err)
	}
}

// Swagger UI sends examples, so only those of required parameters remain.
func TestOptionalParametersHaveNoExamples(t *testing.T) {
	schema := func() *openapi3.SchemaRef {
		return &openapi3.SchemaRef{Value: &openapi3.Schema{Type: &openapi3.Types{"string"},
			Example: "shown"}}
	}
	s := newSite(t, func(c *Config) {
		c.Document.Paths.Value("/one").Get.Parameters = openapi3.Parameters{
			{Value: &openapi3.Parameter{In: "query", Name: "optional", Schema: schema(), Example: "shown"}},
			{Value: &openapi3.Parameter{In: "query", Name: "needed", Required: true, Schema: schema()}},
		}
	})
	got := s.copy(t, "/docs/openapi.json").Paths.Value("/one").Get.Parameters
	if p := got[0].Value; p.Example != nil || p.Schema.Value.Example != nil {
		t.Errorf("the optional parameter has the examples %v and %v, want none", p.Example,
			p.Schema.Value.Example)
	}
	if got[1].Value.Schema.Value.Example != "shown" {
		t.Error("the required parameter has lost its example")
	}
}

// Under serve nothing is filled in, and the Host header is not used.
func TestServe(t *testing.T) {
	s := newSite(t, nil)
	for _, path := range []string{"/docs/", "/docs/openapi.json",
		"/docs/snippets.json?operation=one"} {
		if text := s.ask("GET", "http://evil.example"+path).Body.String(); strings.Contains(text, "evil.example") {
			t.Errorf("%s repeats the Host of the request", path)
		}
	}
	for name, scheme := range s.settings(t, "/docs/").Schemes {
		if scheme.Clients != nil {
			t.Errorf("%s is filled in: %+v", name, scheme)
		}
		if name != "oauth2" || scheme.Issuer != issuerURL || scheme.Audience != "https://api" {
			t.Errorf("%s is %+v", name, scheme)
		}
	}
	if strings.Contains(s.ask("GET", "/docs/").Body.String(), "Development") {
		t.Error("the page says that it is for development")
	}

	s = newSite(t, func(c *Config) { c.Resource = "" })
	if servers := s.copy(t, "http://evil.example/docs/openapi.json").Servers; len(servers) != 1 || servers[0].URL != "/" {
		t.Errorf("servers are %v: want / without a resource", servers)
	}
}

// Under dev the page is filled in, and the issuer, which is part of the server, has the origin of
// the page.
func TestDev(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.Resource = "http://localhost:3010"
		c.Issuers[0].URL = "http://localhost:3010/"
		c.InsecureClients = &Clients{ID: "full", Secret: "open", App: "app"}
	})
	for _, at := range []string{"http://localhost:3010", "http://127.0.0.1:4000", "http://[::1]:3010"} {
		served := s.copy(t, at+"/docs/openapi.json")
		if len(served.Servers) != 1 || served.Servers[0].URL != at {
			t.Errorf("at %s servers are %v", at, served.Servers)
		}
		flow := served.Components.SecuritySchemes["oauth2"].Value.Flows.AuthorizationCode
		if flow.TokenURL != at+"/oauth/token" || flow.AuthorizationURL != at+"/authorize" {
			t.Errorf("at %s the endpoints are %+v", at, flow)
		}
		scheme := s.settings(t, at+"/docs/").Schemes["oauth2"]
		if scheme.Issuer != "http://localhost:3010/" || scheme.Clients["clientCredentials"].ID != "full" || scheme.Clients["clientCredentials"].Secret != "open" ||
			scheme.Clients["authorizationCode"].ID != "app" ||
			scheme.Clients["authorizationCode"].Secret != "" {
			t.Errorf("at %s the page fills in %+v", at, scheme)
		}
		policy := s.ask("GET", at+"/docs/").Header().Get("Content-Security-Policy")
		named := strings.Contains(policy, "connect-src 'self' "+at+"/oauth/token;")
		// a policy cannot contain these, and 'self' is enough
		if ipv6 := strings.Contains(at, "["); named == ipv6 {
			t.Errorf("at %s the policy is %s", at, policy)
		}
	}
	s.issuers[0].found, s.down = nil, errors.New("down")
	for _, at := range []string{"http://localhost:3010", "http://127.0.0.1:4000"} {
		if servers := s.copy(t, at+"/docs/openapi.json").Servers; servers[0].URL != at {
			t.Errorf("while the issuer is down, at %s servers are %v", at, servers)
		}
	}
	s.now, s.down = s.now.Add(retryAfter), nil
	for _, host := range []string{"[::1%;script-src *]", "localhost;x", "[::1%25'unsafe-inline']"} {
		r := httptest.NewRequest("GET", "/docs/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "connect-src 'self' http://localhost:3010/oauth/token; base-uri") {
			t.Errorf("with the Host %s the policy is %s", host, policy)
		}
	}
	if !strings.Contains(s.ask("GET", "http://localhost:3010/docs/").Body.String(), "Development") {
		t.Error("the page does not say that it is for development")
	}
}

func TestMetadataIsFetchedAtFirstView(t *testing.T) {
	s := newSite(t, nil)
	s.ask("GET", "/docs")
	s.ask("GET", "/docs/docs.js")
	if s.asked != 0 {
		t.Fatalf("the issuer got %d requests before the first view", s.asked)
	}
	for range 3 {
		s.ask("GET", "/docs/")
		s.ask("GET", "/docs/openapi.json")
		s.now = s.now.Add(time.Hour)
	}
	if s.asked != 1 {
		t.Errorf("the issuer got %d requests, want 1", s.asked)
	}
}

// Concurrent requests by two hosts: the metadata of the issuer is fetched once, and each page has
// its own host.
func TestManyViewers(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.InsecureClients = &Clients{ID: "full", Secret: "open", App: "app"}
	})
	var viewers sync.WaitGroup
	for _, at := range []string{"http://localhost:3010", "http://127.0.0.1:3010"} {
		for range 8 {
			viewers.Go(func() {
				if text := s.ask("GET", at+"/docs/openapi.json").Body.String(); !strings.Contains(
					text, `"servers":[{"url":"`+at+`"}]`) {
					t.Errorf("the page at %s does not name that URL as the API", at)
				}
			})
		}
	}
	viewers.Wait()
	if s.asked != 1 {
		t.Errorf("the issuer got %d requests, want 1", s.asked)
	}
}

// Requests that wait for a slow issuer share its failure. If each made its own request, a few
// requests for the page would occupy connections for minutes.
func TestManyViewersOfAnIssuerThatTimesOut(t *testing.T) {
	var s *site
	s = newSite(t, func(c *Config) {
		c.Discover = func(context.Context, string) (string, string, error) {
			s.asked++
			s.now = s.now.Add(2 * retryAfter)
			return "", "", context.DeadlineExceeded
		}
	})
	var viewers sync.WaitGroup
	for range 8 {
		viewers.Go(func() { s.ask("GET", "/docs/") })
	}
	viewers.Wait()
	if s.asked != 1 {
		t.Errorf("the issuer got %d requests, want 1: the clock of retryAfter begins with "+
			"the failure", s.asked)
	}
}

func TestIssuerIsDown(t *testing.T) {
	s := newSite(t, nil)
	s.down = errors.New("connection refused")
	page := s.ask("GET", "/docs/")
	if got := page.Header().Get("Content-Security-Policy"); got != strict {
		t.Errorf("the policy is %s: want one that names no endpoint", got)
	}
	if !strings.Contains(page.Body.String(), "It could not fetch the endpoints of "+issuerURL) {
		t.Error("the page does not say that the issuer's endpoints could not be fetched")
	}
	if n := len(s.settings(t, "/docs/").Schemes); n != 0 {
		t.Errorf("there are %d schemes to get a token by", n)
	}
	served := s.copy(t, "/docs/openapi.json")
	if _, there := served.Components.SecuritySchemes["oauth2"]; there {
		t.Error("the document has a scheme of an unreachable issuer")
	}
	for _, o := range authz.Describe(served) {
		if original := s.document.Paths.Value(o.Path).GetOperation(o.Method); !reflect.DeepEqual(
			*served.Paths.Value(o.Path).GetOperation(o.Method).Security, *original.Security) {
			t.Errorf("security of %s is not the document's", o.ID)
		}
	}
	if s.asked != 1 {
		t.Errorf("the issuer got %d requests at once, want 1", s.asked)
	}
	if log := s.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, issuerURL) ||
		!strings.Contains(log, "connection refused") {
		t.Errorf("logged %q: want one line, with the issuer and the cause", log)
	}

	s.down = nil
	s.now = s.now.Add(retryAfter - 1)
	if s.ask("GET", "/docs/"); s.asked != 1 {
		t.Error("the issuer got another request too soon")
	}
	s.now = s.now.Add(1)
	page = s.ask("GET", "/docs/")
	if got := page.Header().Get("Content-Security-Policy"); got != open ||
		strings.Contains(page.Body.String(), "could not fetch") {
		t.Errorf("the issuer is back, and the policy is %s", got)
	}
}

func TestSeveralIssuers(t *testing.T) {
	const other = "https://login.partner.example/realms/x"
	s := newSite(t, func(c *Config) {
		c.Issuers = append(c.Issuers, Issuer{URL: other, Audience: "partner"}, Issuer{URL: "https://down.example/", Audience: "down"})
		discover := c.Discover
		c.Discover = func(ctx context.Context, issuer string) (string, string, error) {
			switch issuer {
			case other:
				return "", other + "/token", nil // applications only
			case issuerURL:
				return discover(ctx, issuer)
			}
			return "", "", errors.New("down")
		}
	})
	served := s.copy(t, "/docs/openapi.json")
	if got, want := slices.Sorted(maps.Keys(served.Components.SecuritySchemes)), []string{
		"bearerAuth", "oauth2-issuer.example", "oauth2-login.partner.example_realms_x", "signIn",
	}; !slices.Equal(got, want) {
		t.Fatalf("the schemes are %v, want %v", got, want)
	}
	schemes := served.Components.SecuritySchemes
	flows := schemes["oauth2-login.partner.example_realms_x"].Value.Flows
	if flows.AuthorizationCode != nil ||
		flows.ClientCredentials.TokenURL != other+"/token" {
		t.Errorf("the partner's flows are %+v: it has no authorization endpoint", flows)
	}
	if n := len(*served.Paths.Value("/one").Get.Security); n != 3 {
		t.Errorf("/one has %d alternatives: want the document's and one for each issuer that "+
			"could be asked", n)
	}
	page := s.ask("GET", "/docs/")
	if policy := page.Header().Get("Content-Security-Policy"); !strings.Contains(policy,
		"connect-src 'self' "+issuerURL+"oauth/token "+other+"/token;") {
		t.Errorf("the policy is %s", policy)
	}
	if body := page.Body.String(); strings.Count(body, "could not fetch") != 1 || !strings.Contains(body, "fetch the endpoints of https://down.example/") {
		t.Error("the page does not say which issuer could not be asked")
	}
	if got := s.settings(t,
		"/docs/").Schemes["oauth2-login.partner.example_realms_x"]; got.Audience != "partner" ||
		got.Issuer != other {
		t.Errorf("the partner is %+v", got)
	}
}

func TestSchemeHasItsOwnName(t *testing.T) {
	s := newSite(t, func(c *Config) {
		schemes := c.Document.Components.SecuritySchemes
		schemes["oauth2"] = schemes["signIn"]
	})
	served := s.copy(t, "/docs/openapi.json").Components.SecuritySchemes
	if served["oauth2"].Value.Type != "http" || served["oauth2_"].Value.Type != "oauth2" {
		t.Errorf("oauth2 is the document's name, and the schemes are %v",
			slices.Sorted(maps.Keys(served)))
	}
}

func TestSources(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://issuer.example/oauth/token":         "https://issuer.example/oauth/token",
		"https://issuer.example:8443/a b":            "https://issuer.example:8443/a%20b",
		"https://issuer.example/token?tenant=1#x":    "https://issuer.example/token",
		"https://issuer.example":                     "https://issuer.example",
		"http://localhost:3010/oauth/token":          "http://localhost:3010/oauth/token",
		"https://issuer.example/a;script-src *":      "https://issuer.example/a%3Bscript-src%20%2A",
		"https://issuer.example/a,b":                 "https://issuer.example/a%2Cb",
		"https://*.example/token":                    "",
		"https://issuer.example; script-src *":       "",
		"https://issuer.example;script-src/x":        "",
		"http://[::1]:3010/oauth/token":              "",
		"ftp://issuer.example/token":                 "",
		"//issuer.example/token":                     "",
		"'unsafe-inline'":                            "",
		"":                                           "",
		"https://user:password@issuer.example/token": "https://issuer.example/token",
	} {
		got := source(endpoint)
		if strings.ContainsAny(got, ";, '") {
			t.Errorf("source(%q) is %q, which is not one source", endpoint, got)
		}
		if unstarred := strings.ReplaceAll(got, "*", "%2A"); unstarred != want {
			t.Errorf("source(%q) is %q, want %q", endpoint, got, want)
		}
	}
}

func TestFaultsOfTheConfiguration(t *testing.T) {
	_, err := New(t.Context(), Config{Issuers: []Issuer{{URL: issuerURL}}})
	for _, want := range []string{"Config.Document is nil", "Config.Refuse is nil",
		"Config.Discover is nil"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no line says %s, in:\n%v", want, err)
		}
	}
	undeclared := &openapi3.Operation{Security: &openapi3.SecurityRequirements{{"nowhere": {}}}}
	paths := openapi3.NewPaths(openapi3.WithPath("/x", &openapi3.PathItem{Get: undeclared}))
	_, err = New(t.Context(), Config{Document: &openapi3.T{OpenAPI: "3.1.0", Paths: paths},
		Refuse: func(http.ResponseWriter, *http.Request, error) {}})
	if err == nil {
		t.Error("a document whose policy is not clear is taken")
	}
}

// TestOtherSchemes: the page shows what each operation requires, and a token of the issuer is used
// for token schemes only.
func TestOtherSchemes(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
paths:
  /key: {get: {security: [{key: [read]}], responses: {"204": {description: d}}}}
  /either: {get: {security: [{token: [read]}, {key: []}], responses: {"204": {description: d}}}}
  /both: {get: {security: [{token: [read], mtls: []}], responses: {"204": {description: d}}}}
  /optional: {get: {security: [{}, {basic: []}], responses: {"204": {description: d}}}}
  /unstated: {get: {responses: {"204": {description: d}}}}
components:
  securitySchemes:
    token: {type: http, scheme: bearer}
    key: {type: apiKey, in: header, name: X-Key}
    basic: {type: http, scheme: basic}
    mtls: {type: mutualTLS}
`))
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(t.Context(), Config{
		Document: document, Refuse: func(http.ResponseWriter, *http.Request, error) {},
		Issuers:  []Issuer{{URL: issuerURL}},
		Discover: func(context.Context, string) (string, string, error) { return "", "", nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.config.BasePath = "/v1"
	for base, want := range map[string]string{"": "/v1", "https://api.example": "https://api.example/v1", "https://api.example/v1": "https://api.example/v1"} {
		if served, err := d.served(base, nil); err != nil || served.Servers[0].URL != want {
			t.Errorf("served at %q: %v, %v; want %s", base, served.Servers[0], err, want)
		}
	}
	served, err := d.served("",
		[]endpoints{{Issuer: Issuer{URL: issuerURL}, token: issuerURL + "token"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := served.Components.SecuritySchemes["key"].Value; s.Type != "apiKey" ||
		s.Name != "X-Key" {
		t.Errorf("the page shows the key as %+v", s)
	}
	for path, want := range map[string]struct {
		access   string
		security string
	}{
		"/key":      {"API key with read", "[map[key:[read]]]"},
		"/either":   {"token with read or API key", "[map[token:[read]] map[key:[]] map[oauth2:[read]]]"},
		"/both":     {"client certificate, token with read", "[map[mtls:[] token:[read]] map[mtls:[] oauth2:[read]]]"},
		"/optional": {"credential optional", "[map[] map[basic:[]]]"},
		"/unstated": {"nobody", "[]"},
	} {
		o := served.Paths.Value(path).Get
		if got := o.Extensions[accessExtension]; got != want.access {
			t.Errorf("%s: access is %q, want %q", path, got, want.access)
		}
		if got := fmt.Sprint(*o.Security); got != want.security {
			t.Errorf("%s: security is %s, want %s", path, got, want.security)
		}
	}
}
