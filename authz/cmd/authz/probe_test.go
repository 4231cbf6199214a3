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
components: {securitySchemes: {key: {type: apiKey, in: header, name: X-Key}}}
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
		Document:       doc,
		Authenticators: map[string]authz.Authenticator{"key": authz.APIKey(keys.Key)},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	mux.HandleFunc("GET /a", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	dir := t.TempDir()
	files := map[string]string{"api.yaml": document, "credentials": "key: " + key,
		"wrong": "- " + key}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for credentials, expected := range map[string]struct {
		code int
		text string
	}{
		"credentials": {allWell, " 0 failed, 0 skipped"},
		"wrong":       {unable, "expected a YAML map"},
		"missing":     {unable, "no such file"},
		"":            {allWell, "needs a credential of another scheme (--credentials)"},
	} {
		args := []string{"probe", "--document=" + filepath.Join(dir, "api.yaml"),
			"--url=" + server.URL}
		if credentials != "" {
			args = append(args, "--credentials="+filepath.Join(dir, credentials))
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		out := stdout.String() + stderr.String()
		if code != expected.code || !strings.Contains(out, expected.text) ||
			strings.Contains(out, key) {
			t.Errorf("%s: exit code %d, %s: expected %d, %q, and no key", credentials, code, out,
				expected.code, expected.text)
		}
	}
}
