package token_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/token"
)

func TestScopesToRequest(t *testing.T) {
	names := map[string]string{"Messages.Read": "read", "editor": "read write", "admin": "all"}
	for _, test := range []struct {
		name   string
		issuer token.Issuer
		scopes string
		want   string
	}{
		{"the same", token.Issuer{}, "read write", "read write"},
		{"none", token.Issuer{ScopePrefix: "api/"}, "", ""},
		{"a prefix", token.Issuer{ScopePrefix: "api/"}, "read write", "api/read api/write"},
		{"names", token.Issuer{ScopeNames: names}, "read write other", "Messages.Read editor other"},
		{"one name for two scopes, once", token.Issuer{ScopeNames: map[string]string{"e": "read write"}}, "write read", "e"},
		{"a name that means another scope", token.Issuer{ScopeNames: map[string]string{"read": "write"}}, "read write", "read"},
		{"another claim for scopes", token.Issuer{ScopeClaims: []string{"/scp"}, ScopeNames: names}, "read", "Messages.Read"},
		{"a claim of a namespace", token.Issuer{ScopeClaims: []string{"/https:~1~1api.example~1scopes"}, ScopePrefix: "api/"}, "read", "api/read"},
		{"roles", token.Issuer{ScopeClaims: []string{"/realm_access/roles"}, ScopeNames: names}, "read write", "read write"},
		{"users' numbers", token.Issuer{ScopeClaims: []string{"/sub"}, ScopeNames: map[string]string{"1122": "read"}}, "read", "read"},
		{"scopes and roles", token.Issuer{ScopeClaims: []string{"/scp", "/roles"}, ScopeNames: names}, "read write all", "Messages.Read write admin"},
	} {
		t.Run(test.name, func(t *testing.T) {
			names := test.issuer.ScopesToRequest(strings.Fields(test.scopes))
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("a client requests %q, want %q", got, test.want)
			}
		})
	}
}

// Issuers of Resolve are known only by their tokens.
func TestScopesToRequestOfResolvedIssuers(t *testing.T) {
	v, err := token.NewVerifier(t.Context(), token.Config{
		Resolve: func(context.Context, string) (*token.Issuer, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	got, certain := v.ScopesToRequest("", []string{"read"})
	if certain || !slices.Equal(got, []string{"read"}) {
		t.Errorf(
			"scopes are %q, certain: %v; want the document's names, and that they are not",
			got,
			certain,
		)
	}
}
