package authztest_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const implying = `
openapi: 3.1.0
info: {title: implying, version: "1"}
paths:
  /read: {get: {operationId: read, security: [{t: [read]}], responses: {default: {description: any}}}}
  /both: {get: {operationId: both, security: [{t: [read, all, write]}], responses: {default: {description: any}}}}
  /near: {get: {operationId: near, security: [{t: [write, audit]}, {t: [all, read]}], responses: {default: {description: any}}}}
  /key:  {get: {operationId: key, security: [{k: [], t: [read]}], responses: {default: {description: any}}}}
components:
  securitySchemes:
    t:
      type: http
      scheme: bearer
      x-scopes: {read: "", all: "", write: "", audit: "", admin: ""}
      x-authz-implies: {all: [read], admin: [all]}
    k: {type: apiKey, in: header, name: X-Key}
`

// newTarget returns an API that a gate guards with a document. The tested document may be another.
func newTarget(t *testing.T, text string, change func(*token.Issuer)) authztest.Target {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	server, err := devissuer.Start(
		devissuer.Config{Audiences: []string{audience}, Algorithm: "ES256"},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	issuer := token.Issuer{URL: server.URL(), Audiences: []string{audience}}
	change(&issuer)
	verifier, err := token.NewVerifier(t.Context(), token.Config{Issuers: []token.Issuer{issuer}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.NewPrincipal(token.PrincipalConfig{Issuer: "keys", Subject: "key"})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(
		authz.Config{
			Document: document,
			Verifier: verifier,
			Authenticators: map[string]authz.Authenticator{
				"k": authz.APIKey(func(_ context.Context, given string) (*token.Principal, error) {
					if given != "genuine" {
						return nil, authz.ErrBadCredential
					}
					return key, nil
				}),
			},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	mux := gate.Mux()
	for _, o := range gate.Plan().Operations() {
		mux.HandleFunc(o.Method+" "+o.Path, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.WriteHeader(http.StatusNoContent)
		})
	}
	tokens := authztest.Issued(server.Issuer)
	genuine := tokens.Genuine
	tokens.Genuine = func(ctx context.Context, scopes []string) (string, error) {
		return genuine(ctx, issuer.ScopesToRequest(scopes))
	}
	return authztest.Target{
		Document: document, Handler: mux, Tokens: tokens, Calls: func() int { return calls },
		ScopesToRequest: issuer.ScopesToRequest,
		Credentials: map[string]authztest.Credential{
			"k": {
				Genuine: func(context.Context, []string) (string, error) { return "genuine", nil },
			},
		},
	}
}

func TestScopesThatImplyOthers(t *testing.T) {
	target := newTarget(t, implying, func(*token.Issuer) {})
	authztest.Run(t, target)
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range report.Results {
		if strings.Contains(r.Case.Name, "_implied_by_") && r.Skipped == "" {
			names = append(names, r.Case.Name)
		}
	}
	if !slices.Contains(names, "read/scope_read_implied_by_admin") ||
		!slices.Contains(names, "both/scope_all_implied_by_admin") {
		t.Errorf("cases of implications are %q", names)
	}
}

// A server with the implications of another document fails.
func TestMissingImplicationsAreFound(t *testing.T) {
	plainly := strings.Replace(implying, "x-authz-implies: {all: [read], admin: [all]}", "", 1)
	target := newTarget(t, plainly, func(*token.Issuer) {})
	tested, err := openapi3.NewLoader().LoadFromData([]byte(implying))
	if err != nil {
		t.Fatal(err)
	}
	target.Document = tested
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, r := range report.Failed() {
		failed = append(failed, r.Case.Name)
	}
	if !slices.Contains(failed, "read/scope_read_implied_by_all") ||
		!slices.Contains(failed, "both/exact_scopes") {
		t.Errorf("failed cases are %q, want those of implications", failed)
	}
}

func TestChallengesWithTheIssuersNames(t *testing.T) {
	target := newTarget(
		t,
		implying,
		func(i *token.Issuer) { i.ScopePrefix = "https://api.example/" },
	)
	authztest.Run(t, target)
	target.ScopesToRequest = nil
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Failed()) == 0 {
		t.Error("challenges with names that the issuer does not have pass")
	}
}
