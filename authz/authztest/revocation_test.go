package authztest_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// opaqueTokens replaces the tokens of an issuer by opaque ones, and is their introspection
// endpoint.
type opaqueTokens struct {
	issuer string // ends with a slash
	mu     sync.Mutex
	named  map[string]string // JWTs by name
}

func (o *opaqueTokens) name(jwt string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	name := rand.Text()
	o.named[name] = jwt
	return name
}

func (o *opaqueTokens) find(name string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return cmp.Or(o.named[name], name)
}

// ServeHTTP answers as the issuer does about the JWT of the name (RFC 7662).
func (o *opaqueTokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	form := url.Values{"token": {o.find(r.FormValue("token"))}}
	asked, err := http.NewRequestWithContext(r.Context(), http.MethodPost,
		o.issuer+"oauth/introspect", strings.NewReader(form.Encode()))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	asked.Header.Set("Authorization", r.Header.Get("Authorization"))
	asked.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := http.DefaultClient.Do(asked)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

// TestRevokedTokens: a server that introspects each request passes, with JWTs and with opaque
// tokens. One that caches the response fails.
func TestRevokedTokens(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /keys:
    get:
      operationId: listKeys
      security: [{bearer: [read]}]
      x-authz-introspect: true
      responses: {"200": {description: Keys.}}
components:
  securitySchemes: {bearer: {type: http, scheme: bearer, x-scopes: {read: Read.}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	const client, secret = "api", "correct-horse"
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Clients: []devissuer.Client{{ID: client, Secret: secret}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	names := &opaqueTokens{issuer: issuer.URL(), named: map[string]string{}}
	endpoint := httptest.NewServer(names)
	t.Cleanup(endpoint.Close)
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience},
			Introspection: token.Introspection{
				Endpoint: endpoint.URL, ClientID: client, ClientSecret: secret, Opaque: true,
			}}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	mux.HandleFunc("GET /keys", func(http.ResponseWriter, *http.Request) {})

	known := map[string]bool{}
	careless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if known[r.Header.Get("Authorization")] {
			return
		}
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, r)
		known[r.Header.Get("Authorization")] = answer.Code == http.StatusOK
		mux.ServeHTTP(w, r)
	})
	tokens := authztest.Issued(issuer.Issuer)
	tokens.Revoke = func(_ context.Context, token string) error {
		response, err := http.PostForm(strings.TrimSuffix(issuer.URL(), "/")+"/oauth/revoke",
			url.Values{"client_id": {client}, "client_secret": {secret}, "token": {token}})
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	opaque := tokens
	opaque.Sign = nil
	opaque.Genuine = func(ctx context.Context, scopes []string) (string, error) {
		jwt, err := tokens.Genuine(ctx, scopes)
		return names.name(jwt), err
	}
	opaque.Revoke = func(ctx context.Context, token string) error {
		return tokens.Revoke(ctx, names.find(token))
	}
	for name, test := range map[string]struct {
		handler http.Handler
		tokens  authztest.Tokens
		failed  string
	}{
		"right":            {mux, tokens, ""},
		"careless":         {careless, tokens, "listKeys/revoked_token"},
		"right, opaque":    {mux, opaque, ""},
		"careless, opaque": {careless, opaque, "listKeys/revoked_token"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := authztest.Check(t.Context(), authztest.Target{
				Document: document, Handler: test.handler, Tokens: test.tokens,
			})
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, result := range report.Results {
				if len(result.Faults) > 0 {
					failed = append(failed, result.Case.Name)
				}
				tried := strings.HasSuffix(result.Case.Name, "revoked_token") ||
					strings.HasSuffix(result.Case.Name, "exact_scopes") ||
					strings.HasSuffix(result.Case.Name, "scope_read_removed")
				if tried && result.Skipped != "" {
					t.Errorf("%s was skipped: %s", result.Case.Name, result.Skipped)
				}
			}
			if strings.Join(failed, " ") != test.failed {
				t.Errorf("%q fail, want %q", failed, test.failed)
			}
		})
	}
}
