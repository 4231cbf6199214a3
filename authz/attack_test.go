package authz_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

const mixed = `
openapi: 3.1.0
info: {title: Mixed credentials, version: "1"}
paths:
  /optional:
    post: {operationId: optional, security: [{}, {cookie: []}], responses: {"204": {description: D}}}
  /cookie-and-query:
    post: {operationId: both, security: [{cookie: [], query: []}], responses: {"204": {description: D}}}
  /cookie-and-header:
    post: {operationId: script, security: [{cookie: [], header: []}], responses: {"204": {description: D}}}
  /cookie-header:
    post: {operationId: raw, security: [{cookieHeader: []}], responses: {"204": {description: D}}}
  /ntlm:
    post: {operationId: ntlm, security: [{ntlm: []}], responses: {"204": {description: D}}}
  /query:
    get: {operationId: query, security: [{query: []}], responses: {"204": {description: D}}}
  /unlimited:
    get:
      operationId: unlimited
      x-authz-timeout: none
      security: [{bearer: []}]
      responses: {"204": {description: D}}
  "/x /metrics":
    get: {operationId: space, security: [{bearer: []}], responses: {"204": {description: D}}}
components:
  securitySchemes:
    bearer: {type: http, scheme: bearer}
    header: {type: apiKey, in: header, name: X-API-Key}
    query: {type: apiKey, in: query, name: api_key}
    cookie: {type: apiKey, in: cookie, name: sid}
    cookieHeader: {type: apiKey, in: header, name: Cookie}
    ntlm: {type: http, scheme: ntlm}
`

// accepting is a verifier that accepts every access token.
type accepting struct{}

func (accepting) Verify(context.Context, string) (*token.Principal, error) {
	return token.NewPrincipal(token.PrincipalConfig{Subject: "bearer"})
}

type authenticatorFunc func(r *http.Request) (*token.Principal, error)

func (f authenticatorFunc) Authenticate(r *http.Request,
	_ *openapi3.SecurityScheme) (*token.Principal, error) {
	return f(r)
}

func mixedGate(t *testing.T, change func(*authz.Config)) *authz.Gate {
	t.Helper()
	key := func(subject string) authz.Authenticator {
		return authz.APIKey(func(context.Context, string) (*token.Principal, error) {
			return token.NewPrincipal(token.PrincipalConfig{Subject: subject})
		})
	}
	config := authz.Config{
		Document: load(t, mixed), Verifier: accepting{},
		Authenticators: map[string]authz.Authenticator{
			"header": key("header"), "query": key("query"), "cookie": key("cookie"), "cookieHeader": key("cookieHeader"),
			"ntlm": authenticatorFunc(func(*http.Request) (*token.Principal, error) {
				return token.NewPrincipal(token.PrincipalConfig{Subject: "ntlm"})
			}),
		},
	}
	if change != nil {
		change(&config)
	}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return gate
}

// A request that a page of another site makes is refused, or has no caller.
func TestPagesOfOtherSites(t *testing.T) {
	gate := mixedGate(t, nil)
	for _, row := range []struct {
		target, header, value string
		same, cross           string // the caller; "" for none, or "refused"
	}{
		{"/optional", "Cookie", "sid=1", "cookie", ""},
		{"/cookie-and-query?api_key=1", "Cookie", "sid=1", "cookie", "refused"},
		{"/cookie-header", "Cookie", "sid=1", "cookieHeader", "refused"},
		{"/ntlm", "Authorization", "NTLM x", "ntlm", "refused"},
	} {
		for site, expected := range map[string]string{"same-origin": row.same,
			"cross-site": row.cross} {
			r := httptest.NewRequest("POST", row.target, nil)
			r.Header.Set(row.header, row.value)
			r.Header.Set("Sec-Fetch-Site", site)
			got := "refused"
			if admitted, err := gate.Check(r, r.URL.Path, nil); err == nil {
				got = ""
				if p, ok := token.FromContext(admitted.Context()); ok {
					got = p.Subject()
				}
			}
			if got != expected {
				t.Errorf("%s from %s: the caller is %q, want %q", row.target, site, got,
					expected)
			}
		}
	}
	// A custom header requires a script, which CORS must allow.
	r := httptest.NewRequest("POST", "/cookie-and-header", nil)
	r.Header.Set("Cookie", "sid=1")
	r.Header.Set("X-API-Key", "1")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if _, err := gate.Check(r, "/cookie-and-header", nil); err != nil {
		t.Errorf("a cookie and a custom header: %v", err)
	}
}

// limiter fails the test when the time limits of a request are changed.
type limiter struct{ t *testing.T }

func (l limiter) Limit(d time.Duration) {
	l.t.Errorf("the time limit of an anonymous request becomes %s", d)
}

func TestTimeoutsAreForAdmittedRequests(t *testing.T) {
	r := httptest.NewRequest("GET", "/unlimited", nil)
	r = r.WithContext(&authz.Admission{Context: r.Context(), Limiter: limiter{t}})
	if _, err := mixedGate(t, nil).Check(r, "/unlimited", nil); err == nil {
		t.Error("a request without a token is admitted")
	}
}

func TestQueryKeyIsNotInTheForm(t *testing.T) {
	gate := mixedGate(t, func(c *authz.Config) {
		c.Authenticators["query"] = authenticatorFunc(func(r *http.Request) (*token.Principal,
			error) {
			if r.FormValue("api_key") == "" { // parses the form of the request
				return nil, authz.ErrAbsent
			}
			return token.NewPrincipal(token.PrincipalConfig{Subject: "query"})
		})
	})
	admitted, err := gate.Check(httptest.NewRequest("GET", "/query?api_key=secret", nil), "/query",
		nil)
	if err != nil {
		t.Fatal(err)
	}
	if seen := admitted.FormValue("api_key") + admitted.URL.String() +
		admitted.RequestURI; strings.Contains(seen, "secret") {
		t.Errorf("the handler gets the key: %s", seen)
	}
}

func TestPanicOfAnAuthenticator(t *testing.T) {
	gate := mixedGate(t, func(c *authz.Config) {
		c.Authenticators["query"] = authenticatorFunc(func(*http.Request) (*token.Principal,
			error) {
			panic("secret")
		})
	})
	ran := false
	handler := gate.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }),
		func(*http.Request) string { return "/query" }, (*http.Request).PathValue)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/query?api_key=1", nil))
	if w.Code != http.StatusInternalServerError || ran ||
		strings.Contains(w.Body.String(), "secret") {
		t.Errorf("status %d, handler ran: %v, body %s; want a problem document of a 500",
			w.Code, ran, w.Body)
	}
}

func TestUnguardedPathsAreExact(t *testing.T) {
	gate := mixedGate(t, func(c *authz.Config) {
		c.InsecureUnguarded = []string{"/home/", "/metrics"}
	})
	mux := gate.Mux()
	ran := false
	mux.HandleFunc("/home/", func(http.ResponseWriter, *http.Request) { ran = true })
	for target, expected := range map[string]bool{"/home/": true, "/home/secret/file": false} {
		ran = false
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil))
		if ran != expected {
			t.Errorf("GET %s: the unguarded handler ran: %v, want %v", target, ran, expected)
		}
	}
	// The template has a space, and what follows it is not an unguarded path.
	if _, err := gate.Check(httptest.NewRequest("GET", "/x%20/metrics", nil),
		"/x /metrics", nil); err == nil {
		t.Error("a template with a space is admitted without a token")
	}
}
