package authz_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

const implyingDocument = `
openapi: 3.1.0
info: {title: implying, version: "1"}
paths:
  /read:  {get: {operationId: read, security: [{t: [read]}], responses: {default: {description: any}}}}
  /all:   {get: {operationId: all, security: [{t: ["read:all"]}], responses: {default: {description: any}}}}
  /both:  {get: {operationId: both, security: [{t: [read, "read:all"]}], responses: {default: {description: any}}}}
  /other: {get: {operationId: other, security: [{u: [read]}], responses: {default: {description: any}}}}
  /near:  {get: {operationId: near, security: [{t: [write, audit]}, {t: [read, "read:all"]}], responses: {default: {description: any}}}}
  /key:   {get: {operationId: key, security: [{k: [read]}], responses: {default: {description: any}}}}
components:
  securitySchemes:
    t:
      type: http
      scheme: bearer
      x-scopes: {read: Read, "read:all": Read all, admin: Everything, write: Write, audit: Audit}
      x-authz-implies: {"read:all": [read], admin: ["read:all"]}
    u: {type: http, scheme: bearer, x-scopes: {read: Read}}
    k: {type: apiKey, in: header, name: X-Key, x-scopes: {read: Read, admin: Everything}}
`

func TestScopesImplyOthers(t *testing.T) {
	keys := authz.APIKey(
		func(context.Context, string) (*token.Principal, error) {
			return nil, authz.ErrBadCredential
		},
	)
	gate, issuer := realGate(t, authz.Config{
		Document: load(
			t,
			implyingDocument,
		), Authenticators: map[string]authz.Authenticator{"k": keys},
	})
	for _, row := range []struct {
		path, scope string
		status      int
		asks        string
	}{
		{"/read", "read", 200, ""},
		{"/read", "read:all", 200, ""},
		{"/read", "admin", 200, ""}, // through another
		{"/read", "read:al", 403, "read"},
		{"/read", "write", 403, "read"},
		{"/all", "read", 403, "read:all"}, // not in the other direction
		{"/all", "admin", 200, ""},
		{"/both", "read:all", 200, ""},
		{"/both", "read", 403, "read:all"}, // which brings read
		{"/both", "", 403, "read:all"},
		{"/other", "read:all", 200, ""},     // all schemes of access tokens share them
		{"/near", "write", 403, "read:all"}, // one scope is missing in both, but this alternative is shorter
		{"/near", "write audit", 200, ""},
		{"/near", "audit write:x", 403, "read:all"},
	} {
		got := startedWriter(t, gate, row.path, issuer.Mint(map[string]any{"scope": row.scope}))
		if got.StatusCode != row.status || scopesOf(got) != row.asks {
			t.Errorf(
				"%s with %q: %d %q, want %d and the scopes %q",
				row.path,
				row.scope,
				got.StatusCode,
				got.Header.Get("WWW-Authenticate"),
				row.status,
				row.asks,
			)
		}
	}
	if got := startedWriter(t, gate, "/both", ""); scopesOf(got) != "read:all" {
		t.Errorf(
			"challenge without a token is %q, want the one scope that is enough",
			got.Header.Get("WWW-Authenticate"),
		)
	}
	for _, o := range gate.Plan().Operations() {
		if got := o.GrantedBy("t", "read"); !slices.Equal(got, []string{"admin", "read:all"}) {
			t.Errorf("%s: read is granted by %q as well, want admin and read:all", o.ID, got)
		}
		if got := o.GrantedBy("k", "read"); got != nil {
			t.Errorf(
				"%s: the role read of keys is granted by %q, want nothing: scopes are another kind",
				o.ID,
				got,
			)
		}
	}
}

func TestImplicationFaults(t *testing.T) {
	const given = `x-authz-implies: {"read:all": [read], admin: ["read:all"]}`
	for name, c := range map[string]struct{ instead, fault string }{
		"a cycle of one":                  {`x-authz-implies: {read: [read]}`, "read implies read: scopes that imply each other are one scope"},
		"a cycle of three":                {`x-authz-implies: {read: [admin], "read:all": [read], admin: ["read:all"]}`, "admin implies read:all implies read implies admin"},
		"not declared":                    {`x-authz-implies: {admin: [raed]}`, "scope raed is not declared"},
		"implied by what is not declared": {`x-authz-implies: {amdin: [read]}`, "scope amdin is not declared"},
		"a list":                          {`x-authz-implies: [read]`, "expected a map of scopes to lists"},
		"not lists":                       {`x-authz-implies: {admin: read}`, "expected a map of scopes to lists"},
		"nothing":                         {`x-authz-implies: {}`, "expected a map of scopes to lists"},
		"misspelt":                        {`x-authz-imply: {admin: [read]}`, "unknown extension x-authz-imply"},
		"defaults, none":                  {`x-authz-default-scopes: []`, "expected a list of one or more scopes"},
		"defaults, not declared":          {`x-authz-default-scopes: [raed]`, "scope raed is not declared"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := authz.Compile(load(t, strings.Replace(implyingDocument, given, c.instead, 1)))
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("error is %v, want a fault that says %q", err, c.fault)
			}
		})
	}
	for name, extension := range map[string]string{
		"defaults of a key": "x-authz-default-scopes: [read], in: header", "in a wrong place": "",
	} {
		text := strings.Replace(implyingDocument, "in: header", extension, 1)
		if extension == "" {
			text = strings.Replace(
				implyingDocument,
				"operationId: read,",
				"operationId: read, x-authz-implies: {admin: [read]},",
				1,
			)
		}
		if _, err := authz.Compile(load(t, text)); err == nil {
			t.Errorf("%s: no fault", name)
		}
	}
	// A cycle across two schemes is a fault, because they share the implications.
	text := strings.Replace(
		implyingDocument,
		"x-scopes: {read: Read}}",
		`x-scopes: {read: Read, admin: All}, x-authz-implies: {read: [admin]}}`,
		1,
	)
	if _, err := authz.Compile(load(t, text)); err == nil ||
		!strings.Contains(err.Error(), "implies") {
		t.Errorf("error is %v, want the cycle", err)
	}
}

// A program that calls the validator itself gets the same results.
func TestImplicationsInAuthenticationFunc(t *testing.T) {
	keys := authz.APIKey(
		func(context.Context, string) (*token.Principal, error) {
			return nil, authz.ErrBadCredential
		},
	)
	document := load(t, implyingDocument)
	gate, issuer := realGate(t, authz.Config{
		Document: document, Authenticators: map[string]authz.Authenticator{"k": keys},
	})
	for scope, want := range map[string]bool{"admin": true, "write": false} {
		r := httptest.NewRequest("GET", "/read", nil)
		r.Header.Set("Authorization", "Bearer "+issuer.Mint(map[string]any{"scope": scope}))
		item := document.Paths.Value("/read")
		err := openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{
			Request: r,
			Options: &openapi3filter.Options{AuthenticationFunc: gate.AuthenticationFunc()},
			Route: &routers.Route{
				Spec:      document,
				Path:      "/read",
				PathItem:  item,
				Method:    "GET",
				Operation: item.Get,
			},
		})
		if (err == nil) != want {
			t.Errorf("scope %s: error is %v", scope, err)
		}
	}
}
