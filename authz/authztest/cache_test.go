package authztest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// TestCacheOfVerifiedTokensChangesNoAnswer: the gate passes the kit with an empty cache of verified
// tokens, with a filled one, and with one that is too small for any token.
func TestCacheOfVerifiedTokensChangesNoAnswer(t *testing.T) {
	m := newMessages(t)
	for name, bytes := range map[string]int64{"kept": 0, "none kept": 1} {
		t.Run(name, func(t *testing.T) {
			var proofs token.ProofPolicy
			if bytes > 0 { // the proofs of these clients have nonces
				proofs.NonceKey = []byte(strings.Repeat("n", 32))
			}
			calls := 0
			server := func() http.Handler {
				verifier, err := token.NewVerifier(t.Context(), token.Config{
					Issuers: []token.Issuer{{URL: m.issuer.URL(),
						Audiences: []string{audience}, DPoP: token.DPoPAllowed,
						MTLS: token.MTLSAllowed}},
					CacheBytes: bytes,
					Proofs:     proofs,
				})
				if err != nil {
					t.Fatal(err)
				}
				gate, err := authz.New(authz.Config{Document: m.document, Verifier: verifier,
					Resource:             "http://localhost",
					AuthorizationServers: []string{m.issuer.URL()}})
				if err != nil {
					t.Fatal(err)
				}
				e := echo.New()
				e.HTTPErrorHandler = echov4.ErrorHandler(gate)
				e.Use(echov4.Middleware(gate))
				for _, o := range gate.Plan().Operations() {
					e.Add(o.Method, strings.NewReplacer("{", ":", "}", "").Replace(o.Path),
						func(c echo.Context) error {
							calls++
							return c.NoContent(http.StatusNoContent)
						})
				}
				return e
			}
			keyless := server()
			target := authztest.Target{
				Document: m.document,
				Handler:  server(),
				Outage: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					m.issuer.Fail(devissuer.Fault{Down: true})
					defer m.issuer.Fail(devissuer.Fault{})
					keyless.ServeHTTP(w, r)
				}),
				Tokens: m.tokens,
				Calls:  func() int { return calls },
			}
			t.Run("first", func(t *testing.T) { authztest.Run(t, target) })
			t.Run("again", func(t *testing.T) { authztest.Run(t, target) })
		})
	}
}
