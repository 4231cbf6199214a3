package authztest_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// TestRevokedTokens: a server that asks the issuer each time passes, and one that keeps what it was
// told is found out.
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
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience},
			Introspection: token.Introspection{ClientID: client, ClientSecret: secret}}},
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
	for name, test := range map[string]struct {
		handler http.Handler
		failed  string
	}{
		"right": {mux, ""}, "careless": {careless, "listKeys/revoked_token"},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := authztest.Check(t.Context(), authztest.Target{
				Document: document, Handler: test.handler, Tokens: tokens,
			})
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, result := range report.Results {
				if len(result.Faults) > 0 {
					failed = append(failed, result.Case.Name)
				}
				if strings.HasSuffix(result.Case.Name, "revoked_token") && result.Skipped != "" {
					t.Errorf("skipped: %s", result.Skipped)
				}
			}
			if strings.Join(failed, " ") != test.failed {
				t.Errorf("%q fail, expected %q", failed, test.failed)
			}
		})
	}
}
