package server

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz/token"
)

const (
	app   = "https://app.example"
	local = "http://localhost:3000"
)

func allowing(origins ...string) func(*Config) {
	return func(c *Config) { c.CORSOrigins = origins }
}

// handled returns the response of a handler; headers are name, value, name, value.
func handled(handler http.Handler, method, path string, headers ...string) answer {
	request, recorder := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	handler.ServeHTTP(recorder, request)
	return answer{recorder.Code, recorder.Header(), recorder.Body.String()}
}

// corsHeaders returns the CORS headers of a response.
func corsHeaders(got answer) (found []string) {
	for name, values := range got.header {
		if strings.HasPrefix(name, "Access-Control-") {
			found = append(found, name+": "+strings.Join(values, " | "))
		}
	}
	slices.Sort(found)
	return found
}

func TestPreflight(t *testing.T) {
	r := startAnswering(t, func(c echo.Context) error {
		t.Error("a preflight reached the handler")
		return greet(c)
	}, allowing(app, local))
	r.issuer.Stop() // with a token, the response would be 503, because there are no keys

	tests := []struct {
		name, path, origin, method, headers string
		allowed                             bool
	}{
		{"simple", "/api/public", app, "GET", "", true},
		{"with a token", "/api/private-scoped", app, "GET", "authorization", true},
		{"of another allowed origin", "/api/private-scoped", local, "GET", "authorization", true},
		{"with a proof", "/api/private", app, "GET", "authorization,dpop", true},
		{
			"of a creation",
			"/api/notes",
			app,
			"POST",
			"authorization,content-type,idempotency-key",
			true,
		},
		{"of a change", "/api/notes/1", app, "PUT", "authorization,content-type,if-match", true},
		{"of a removal", "/api/notes/1", app, "DELETE", "authorization,if-match", true},
		{"with a request id", "/api/public", app, "GET", "x-request-id", true},
		{
			"to nowhere, which the request itself will be told",
			"/nowhere",
			app,
			"GET",
			"authorization",
			true,
		},
		{"of another origin", "/api/public", "https://other.example", "GET", "", false},
		{"of a subdomain", "/api/public", "https://www.app.example", "GET", "", false},
		{"of a longer name", "/api/public", "https://app.example.evil", "GET", "", false},
		{"in the clear", "/api/public", "http://app.example", "GET", "", false},
		{"of another port", "/api/public", "http://localhost:3001", "GET", "", false},
		{
			"in capitals, as no browser writes it",
			"/api/public",
			"HTTPS://APP.EXAMPLE",
			"GET",
			"",
			false,
		},
		{"of nobody", "/api/public", "null", "GET", "", false},
		{"of an empty origin", "/api/public", "", "GET", "", false},
		{"with a method that the document does not have", "/api/public", app, "PURGE", "", false},
		{"with a method in lower case", "/api/public", app, "put", "", false},
		{
			"with a header that the document does not have",
			"/api/public",
			app,
			"GET",
			"authorization,x-debug",
			false,
		},
		{"with any header", "/api/public", app, "GET", "*", false},
		{"with a cookie", "/api/public", app, "GET", "cookie", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			request := []string{
				"Origin",
				test.origin,
				"Access-Control-Request-Method",
				test.method,
				"X-Request-Id",
				strings.ReplaceAll(strings.ReplaceAll(test.name, " ", "-"), ",", ""),
			}
			if test.headers != "" {
				request = append(request, "Access-Control-Request-Headers", test.headers)
			}
			got := r.ask(t, "OPTIONS", test.path, request...)
			if got.status != http.StatusNoContent || got.body != "" {
				t.Errorf(
					"answered with %d %q, want 204 and nothing: no browser sends a preflight with a token",
					got.status, got.body)
			}
			var want []string
			if test.allowed {
				if test.headers != "" {
					want = append(want, "Access-Control-Allow-Headers: "+test.headers)
				}
				want = append(want, "Access-Control-Allow-Methods: "+test.method,
					"Access-Control-Allow-Origin: "+test.origin, "Access-Control-Max-Age: 600")
			}
			if found := corsHeaders(got); !slices.Equal(found, want) {
				t.Errorf("the answer has\n  %q\nwant\n  %q", found, want)
			}
			if vary := got.header.Get("Vary"); vary != "Origin, Access-Control-Request-Method, "+
				"Access-Control-Request-Headers" {
				t.Errorf("Vary is %q: a cache would give one origin's answer to another", vary)
			}
			line := r.log.request(t, request[5])
			if line["method"] != "OPTIONS" || line["status"] != 204.0 || line["operation"] != nil {
				t.Errorf(
					"logged %v: want method and status as of any other, and no operation, for none was looked for",
					line)
			}
			if _, explained := line["cause"]; explained == test.allowed {
				t.Errorf("logged %v: want a cause if, and only if, the preflight was refused", line)
			}
		})
	}
}

// A preflight allows the methods and headers that the document declares.
func TestPreflightOfTheDocument(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`{
		"openapi": "3.1.0", "info": {"title": "t", "version": "1"},
		"paths": {"/a": {
			"parameters": [{"name": "X-Tenant", "in": "header", "schema": {"type": "string"}}, {"name": "X-Cookie", "in": "cookie", "schema": {"type": "string"}}],
			"patch": {
				"parameters": [{"name": "Prefer", "in": "header", "schema": {"type": "string"}}],
				"responses": {"200": {"description": "", "headers": {"X-Total": {"schema": {"type": "string"}}}}}
			}
		}}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		method, header string
		allowed        bool
	}{
		{"PATCH", "x-tenant", true},
		{"PATCH", "prefer,x-tenant", true},
		{"PATCH", "x-cookie", false},
		{"PATCH", "x-total", false},
		{"PUT", "prefer", false},
	}
	c := newCORS(document, []string{app})
	handler := http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			c.handle((&Server{ids: newRequestIDs()}).begin(w, r), r)
		})
	for _, test := range tests {
		got := handled(handler, "OPTIONS", "/a", "Origin", app, "Access-Control-Request-Method",
			test.method, "Access-Control-Request-Headers", test.header)
		if allowed := got.header.Get("Access-Control-Allow-Origin") != ""; allowed != test.allowed {
			t.Errorf("%s with %s: allowed is %t, want %t", test.method, test.header, allowed,
				test.allowed)
		}
	}
	if exposed := handled(handler, "PATCH", "/a", "Origin",
		app).header.Get("Access-Control-Expose-Headers"); !strings.Contains(
		exposed, "X-Total") {
		t.Errorf("exposed are %q: want X-Total among them, which the document says is answered",
			exposed)
	}
}

func TestResponsesToOtherOrigins(t *testing.T) {
	open := start(t, allowing(app, local))
	broken := startAnswering(t, func(echo.Context) error { panic("in a handler") }, allowing(app))
	const nowhere = "http://127.0.0.1:1/"
	down := start(t, func(c *Config) {
		allowing(app)(c)
		c.Issuers[0].URL = nowhere
	})
	unknown := "Bearer " + down.issuer.Mint(map[string]any{"iss": nowhere})

	const exposed = "DPoP-Nonce, ETag, Link, Location, Retry-After, WWW-Authenticate, X-Request-Id"
	tests := []struct {
		name         string
		server       *running
		method, path string
		token        string
		status       int
	}{
		{"200", open, "GET", "/api/public", "", 200},
		{"400", open, "GET", "/api/public?x=1", "", 400},
		{"401 without a token", open, "GET", "/api/private", "", 401},
		{"401 with a bad one", open, "GET", "/api/private", "Bearer x.y.z", 401},
		{"403", open, "GET", "/api/private-scoped", "Bearer " + open.issuer.Mint(nil), 403},
		{"404", open, "GET", "/nowhere", "", 404},
		{"405", open, "DELETE", "/api/public", "", 405},
		{"405 to what needs no preflight", open, "PUT", "/api/public", "", 405},
		{"405 to OPTIONS that is no preflight", open, "OPTIONS", "/api/public", "", 405},
		{"500", broken, "GET", "/api/public", "", 500},
		{"503", down, "GET", "/api/private", unknown, 503},
		{"probe", open, "GET", "/healthz", "", 200},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ask := func(origin string) answer {
				headers := []string{}
				if origin != "" {
					headers = append(headers, "Origin", origin)
				}
				if test.token != "" {
					headers = append(headers, "Authorization", test.token)
				}
				got := test.server.ask(t, test.method, test.path, headers...)
				if got.status != test.status {
					t.Errorf(
						"origin %q is answered with %d, want %d: the origin must not change the status",
						origin, got.status, test.status)
				}
				if got.header.Get("Vary") != "Origin" {
					t.Errorf(
						"Vary is %q, want Origin: a cache would give one origin's answer to another",
						got.header.Get("Vary"))
				}
				return got
			}
			want := []string{
				"Access-Control-Allow-Origin: " + app,
				"Access-Control-Expose-Headers: ",
			}
			found := corsHeaders(ask(app))
			if len(found) != 2 || found[0] != want[0] || !strings.HasPrefix(found[1], want[1]) {
				t.Errorf(
					"the answer to %s has %q: want only its own origin and the headers exposed",
					app, found)
			}
			for name := range strings.SplitSeq(exposed, ", ") {
				if len(found) == 2 &&
					!slices.ContainsFunc(strings.Split(found[1][len(want[1]):], ", "),
						func(s string) bool { return strings.EqualFold(s, name) }) {
					t.Errorf("%s is not exposed: %q", name, found[1])
				}
			}
			for _, origin := range []string{"https://other.example", "http://app.example", "https://app.example:444", "https://APP.example", "null", ""} {
				if found := corsHeaders(ask(origin)); found != nil {
					t.Errorf("the answer to origin %q has %q, want nothing", origin, found)
				}
			}
		})
	}
}

// Without origins there are no CORS headers, and OPTIONS is an ordinary method.
func TestWithoutOrigins(t *testing.T) {
	r := start(t, nil)
	for _, request := range [][]string{
		{"GET", "/api/public", "Origin", app},
		{"GET", "/api/private", "Origin", app},
		{"OPTIONS", "/api/private", "Origin", app, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization"},
	} {
		got := r.ask(t, request[0], request[1], request[2:]...)
		if found := corsHeaders(got); found != nil || got.header.Get("Vary") != "" {
			t.Errorf("%q is answered with %q, Vary %q: want neither, because CORS is off", request,
				found, got.header.Get("Vary"))
		}
		if request[0] == "OPTIONS" {
			wantProblem(t, got, http.StatusMethodNotAllowed)
		}
	}
	if newCORS(document(t), nil) != nil {
		t.Error("CORS is on without origins")
	}
}

// OPTIONS is a preflight only with the headers of a browser (Fetch §3.2.2).
func TestOptionsWithoutPreflight(t *testing.T) {
	r := start(t, allowing(app))
	for _, headers := range [][]string{nil, {"Origin", app}, {"Access-Control-Request-Method",
		"GET"}, {"Origin", app, "Access-Control-Request-Method", ""}} {
		got := r.ask(t, "OPTIONS", "/api/private", headers...)
		wantProblem(t, got, http.StatusMethodNotAllowed)
		if got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%q: Allow is %q, want GET, HEAD", headers, got.header.Get("Allow"))
		}
	}
}

// All origins can read the metadata, with or without CORS.
func TestMetadataForAllOrigins(t *testing.T) {
	const path = "/.well-known/oauth-protected-resource"
	r := start(t, func(c *Config) {
		allowing(app)(c)
		c.Resource = "https://api.example"
	})
	for _, origin := range []string{app, "https://other.example"} {
		if got := r.ask(t, "GET", path, "Origin", origin); got.status != 200 ||
			got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("GET of origin %s is answered with %d, for origin %q: want 200, for *", origin,
				got.status, got.header.Get("Access-Control-Allow-Origin"))
		}
		if got := r.ask(t, "OPTIONS", path, "Origin", origin, "Access-Control-Request-Method",
			"GET", "Access-Control-Request-Headers", "x-protocol-version"); got.header.Get(
			"Access-Control-Allow-Origin") != "*" ||
			got.header.Get("Access-Control-Allow-Headers") != "*" {
			t.Errorf(
				"the preflight of origin %s is answered with %q, want * for origin and headers",
				origin, corsHeaders(got))
		}
	}
}

// Pages of the origins can get tokens from the development issuer.
func TestDevIssuerForOtherOrigins(t *testing.T) {
	r := start(t, func(c *Config) {
		allowing(local)(c)
		c.InsecureIssuer = development(t)
	})
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/jwks.json"} {
		if got := r.ask(t, "GET", path, "Origin", local); got.status != 200 ||
			got.header.Get("Access-Control-Allow-Origin") != local {
			t.Errorf("GET %s is %d, for origin %q: want 200, for %s", path, got.status,
				got.header.Get("Access-Control-Allow-Origin"), local)
		}
		if got := r.ask(t, "GET", path, "Origin", "http://localhost:3001"); corsHeaders(
			got) != nil {
			t.Errorf("GET %s allows another origin: %q", path, corsHeaders(got))
		}
	}
	if got := r.ask(t, "OPTIONS", "/oauth/token", "Origin", local, "Access-Control-Request-Method",
		"POST", "Access-Control-Request-Headers", "content-type,dpop"); got.status != 204 ||
		got.header.Get("Access-Control-Allow-Origin") != local {
		t.Errorf("the preflight of the token endpoint is %d with %q: want it allowed", got.status,
			corsHeaders(got))
	}
	if got := r.ask(t, "OPTIONS", "/oauth/token", "Host", "rebound.example", "Origin", local,
		"Access-Control-Request-Method", "POST"); got.status != http.StatusMisdirectedRequest {
		t.Errorf("a preflight to another host is %d, want 421 like other requests to it",
			got.status)
	}
}

func TestReloadKeepsOrigins(t *testing.T) {
	r := start(t, allowing(app))
	if err := r.server.Reload([]token.Issuer{{URL: r.issuer.URL(),
		Audiences: []string{testAudience}}}); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "GET", "/api/private", "Origin", app); got.status != 401 ||
		got.header.Get("Access-Control-Allow-Origin") != app {
		t.Errorf("after a reload %d, %q: want 401, readable by %s as before", got.status,
			corsHeaders(got), app)
	}
}

func TestOrigins(t *testing.T) {
	for _, good := range []string{
		"https://app.example", "https://app.example:8443", "https://app.example:80", "https://xn--mnchen-3ya.example", "https://192.0.2.1", "https://[2001:db8::1]:8443",
		"http://localhost", "http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "http://localhost:443",
	} {
		if err := CheckOrigin(good); err != nil {
			t.Errorf("%s is refused: want %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "*", "null", "https://*.example", "https://*", "app.example", "//app.example", "https://", "https://app.example/", "https://app.example/callback", "https://app.example?x", "https://app.example#",
		"https://user@app.example", "https://App.example", "HTTPS://app.example", "https://app.example:443", "http://localhost:80", "https://app.example:", "https://app.example:0", "https://app.example:080",
		"https://münchen.example", "https://app.example https://b.example", "https://app.example\n", "ftp://app.example", "capacitor://localhost", "file://",
		"http://app.example", "http://192.168.0.1:3000", "http://localhost.example", "http://0.0.0.0:3000", "http://[::]:3000",
	} {
		if CheckOrigin(bad) == nil {
			t.Errorf("%q is accepted, but browsers do not send it, or it is not secure", bad)
		}
		if _, err := New(t.Context(), Config{CORSOrigins: []string{app, bad}}); err == nil ||
			!strings.Contains(err.Error(), "CORSOrigins has") {
			t.Errorf("New accepts the origin %q: %v", bad, err)
		}
	}
}
