package authz_test

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// TestConformance: the gate enforces documents that were not written for it.
func TestConformance(t *testing.T) {
	for _, name := range []string{"warehouse", "library"} {
		t.Run(name, func(t *testing.T) {
			document, err := openapi3.NewLoader().LoadFromFile("testdata/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://" + name + ".example/"}, Algorithm: "ES256"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(issuer.Close)

			calls := 0
			guarded := func(client *http.Client) http.Handler {
				verifier, err := token.NewVerifier(t.Context(), token.Config{
					Issuers:    []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://" + name + ".example/"}}},
					HTTPClient: client,
					Logger:     slog.New(slog.DiscardHandler),
				})
				if err != nil {
					t.Fatal(err)
				}
				gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
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
				if err := echov4.CheckRoutes(e, gate); err != nil {
					t.Fatal(err)
				}
				return e
			}
			authztest.Run(t, authztest.Target{
				Document: document,
				Handler:  guarded(nil),
				Outage:   guarded(&http.Client{Transport: unreachable{}}),
				Tokens:   authztest.Issued(issuer.Issuer),
				Calls:    func() int { return calls },
			})
		})
	}
}

// unreachable is a transport to an issuer that is down.
type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the issuer is down")
}
