package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
	"golang.org/x/tools/txtar"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// TestProbe replays testdata/probe.txtar against a server that is right, and some that are not.
func TestProbe(t *testing.T) {
	const script, secret = "testdata/probe.txtar", "correct-horse-battery-staple"
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{
			"https://api.example/",
		}, Scopes: []string{"read:messages", "write:messages"},
		Clients: []devissuer.Client{
			{ID: "probe", Secret: secret, Scopes: []string{"read:messages", "write:messages"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	var writes, elsewhere atomic.Int64
	guarded := guardedServer(t, script, issuer, &writes)
	serve := func(h http.Handler) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}
	other := serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	gone := httptest.NewServer(nil)
	gone.Close()
	values := map[string]string{
		"{right}": serve(guarded),
		// One route has escaped the gate.
		"{leaky}": serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/messages" && r.Method == http.MethodGet {
				return
			}
			guarded.ServeHTTP(w, r)
		})),
		// A server that answers as RFC 6750 wants and no better.
		"{terse}": serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := httptest.NewRecorder()
			guarded.ServeHTTP(answer, r)
			if challenge := answer.Header().Get("WWW-Authenticate"); challenge != "" {
				w.Header().Set("WWW-Authenticate", challenge)
				w.Header().Set("Connection", "close")
			}
			w.WriteHeader(answer.Code)
		})),
		"{redirects}": serve(http.RedirectHandler(other, http.StatusTemporaryRedirect)),
		"{gone}":      gone.URL,
		"{gone-host}": gone.Listener.Addr().String(),
		"{issuer}":    issuer.URL(),
		"{token-url}": strings.TrimSuffix(issuer.URL(), "/") + "/oauth/token",
		"{secret}":    secret,
	}
	replay(t, script, func(args []string, stdin, stdout, stderr *bytes.Buffer) int {
		before := writes.Load()
		code := run(t.Context(), args, stdin, stdout, stderr)
		if command := strings.Join(args, " "); (writes.Load() > before) != strings.Contains(
			command,
			"--writes",
		) {
			t.Errorf(
				"authz %s had the server write %d times",
				strings.ReplaceAll(command, secret, "…"),
				writes.Load()-before,
			)
		}
		if strings.Contains(stdout.String()+stderr.String(), secret) ||
			strings.Contains(stdout.String()+stderr.String(), "eyJ") {
			t.Errorf(
				"authz %s prints a secret or a token",
				strings.ReplaceAll(strings.Join(args, " "), secret, "…"),
			)
		}
		return code
	}, values)
	if n := elsewhere.Load(); n > 0 {
		t.Errorf(
			"%d requests were sent to where --url does not point: redirects are not to be followed",
			n,
		)
	}
}

// guardedServer serves the first document of a transcript, behind a gate.
func guardedServer(
	t *testing.T,
	script string,
	issuer *devissuer.Server,
	writes *atomic.Int64,
) http.Handler {
	t.Helper()
	archive, err := txtar.ParseFile(script)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(archive.Files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	verifier, err := token.NewVerifier(ctx, token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.HTTPErrorHandler = echov4.ErrorHandler(gate)
	e.Use(echov4.Middleware(gate))
	for _, o := range gate.Plan().Operations() {
		e.Add(
			o.Method,
			strings.NewReplacer("{", ":", "}", "").Replace(o.Path),
			func(c echo.Context) error {
				if o.Method != http.MethodGet {
					writes.Add(1)
				}
				return c.NoContent(http.StatusNoContent)
			},
		)
	}
	return e
}

// TestIssuersThatWantTheSecretInTheBody: not every issuer takes HTTP Basic.
func TestIssuersThatWantTheSecretInTheBody(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Content-Type", "application/json")
		if _, _, basic := r.BasicAuth(); basic || r.PostFormValue("client_secret") != "s" {
			w.WriteHeader(http.StatusUnauthorized)
			w.Write([]byte(`{"error": "invalid_client"}`))
			return
		}
		w.Write(
			[]byte(
				`{"access_token": "t", "token_type": "bearer", "expires_in": 3600, "scope": "a b"}`,
			),
		)
	}))
	defer server.Close()
	c := &oauthClient{
		config: client.Config{TokenURL: server.URL, ClientID: "c", ClientSecret: "s"},
		asked:  map[string]*issued{},
	}
	for range 3 {
		if _, err := c.sufficient(t.Context(), []string{"a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.exactly(t.Context(), []string{"a"}); err == nil {
			t.Fatal("a token with a and b passes for one with exactly a")
		}
	}
	if requests != 2 {
		t.Errorf(
			"%d requests to the token endpoint, expected 2: by Basic, then in the body, then never again",
			requests,
		)
	}
}

// TestProbeCredentials probes operations that take keys, with the credentials of a file.
func TestProbeCredentials(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: t, version: 1.0.0}
paths:
  /a: {get: {operationId: a, security: [key: []], responses: {default: {description: fine}}}}
  /b: {get: {operationId: b, security: [login: []], responses: {default: {description: fine}}}}
components:
  securitySchemes:
    key: {type: apiKey, in: header, name: X-Key}
    login: {type: http, scheme: basic}
`
	const key = "correct-horse-battery-staple"
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	somebody, err := token.NewPrincipal(token.PrincipalConfig{Subject: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	keys := authz.Secrets{{ID: "a", SHA256: sha256.Sum256([]byte(key)), Principal: somebody}}
	gate, err := authz.New(authz.Config{
		Document: doc,
		Authenticators: map[string]authz.Authenticator{
			"key": authz.APIKey(keys.Key), "login": authz.Basic(keys.User),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	mux.HandleFunc("GET /a", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /b", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	dir := t.TempDir()
	files := map[string]string{"api.yaml": document, "wrong": "- " + key,
		"credentials": "{key: " + key + ", login: 'a:" + key + "'}"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inFile := func(name string) string { return "--credentials=" + filepath.Join(dir, name) }
	for i, test := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{inFile("credentials")}, allWell, " 0 failed, 0 skipped"},
		{[]string{"--key=key=" + key, "--user=a:" + key}, allWell, " 0 failed, 0 skipped"},
		{[]string{"--user=a:" + key}, allWell, " 0 failed, 5 skipped"},
		{[]string{"--key=key=" + key + "x", "--only=a"}, found, "expected the request to be accepted"},
		{[]string{"--key=login=" + key}, unable, "login is not a security scheme of type apiKey"},
		{[]string{"--user=" + key}, unable, "expected user:password"},
		{[]string{inFile("wrong")}, unable, "expected a YAML map"},
		{[]string{inFile("missing")}, unable, "no such file"},
		{nil, allWell, "needs a credential of another scheme (--key, --user, --credentials)"},
	} {
		args := append([]string{"probe", "--document=" + filepath.Join(dir, "api.yaml"),
			"--url=" + server.URL}, test.args...)
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		out := stdout.String() + stderr.String()
		if code != test.code || !strings.Contains(out, test.text) ||
			strings.Contains(out, key) {
			t.Errorf("%d: exit code %d, %s: expected %d, %q, and no key", i, code, out, test.code,
				test.text)
		}
	}
}

// TestProbeDPoP probes a server that takes bound tokens, at another URL than it knows itself by,
// and one that does not look at proofs.
func TestProbeDPoP(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: t, version: 1.0.0}
paths: {/a: {get: {operationId: a, security: [b: [read]], responses: {default: {description: fine}}}}}
components: {securitySchemes: {b: {type: http, scheme: bearer, x-scopes: {read: Read.}}}}
`
	const secret = "correct-horse-battery-staple"
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{"https://api.example/"}, Scopes: []string{"read"},
		Clients: []devissuer.Client{{ID: "probe", Secret: secret, Scopes: []string{"read"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"},
			DPoP: token.DPoPAllowed}},
		Proofs: token.ProofPolicy{NonceKey: []byte(strings.Repeat("n", 32))},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier,
		Resource: "https://api.example/", AuthorizationServers: []string{issuer.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	mux.HandleFunc("GET /a", func(http.ResponseWriter, *http.Request) {})
	right := httptest.NewServer(mux)
	defer right.Close()
	careless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Authorization"), "DPoP ") {
			return
		}
		mux.ServeHTTP(w, r)
	}))
	defer careless.Close()
	name := filepath.Join(t.TempDir(), "api.yaml")
	if err := os.WriteFile(name, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		url  string
		code int
		text string
	}{
		{right.URL, allWell, "10 cases: 9 passed, 0 failed, 1 skipped"}, // by nonces, not by time
		{careless.URL, found, "expected 401 (invalid-dpop-proof), received 200"},
	} {
		args := []string{"probe", "--document=" + name, "--url=" + test.url, "--only=a/dpop*",
			"--token-url=" + strings.TrimSuffix(issuer.URL(), "/") + "/oauth/token",
			"--client-id=probe", "--client-secret=" + secret, "--audience=https://api.example/",
			"--dpop", "--resource=https://api.example/"}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		if out := stdout.String() + stderr.String(); code != test.code ||
			!strings.Contains(out, test.text) || strings.Contains(out, "eyJ") {
			t.Errorf("exit code %d, %s: expected %d, %q, and no token", code, out, test.code,
				test.text)
		}
	}
}
