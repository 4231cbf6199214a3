// Package clients tests third-party clients with the development issuer. It has only tests, in this
// module, so that the library does not depend on the clients.
package clients

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/client/rs"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz/devissuer"
)

const redirect = "http://localhost:8099/callback"

// TestZitadel signs alice in with zitadel's relying party, requests her user information, and
// introspects and revokes her token. The relying party only knows the URL of the issuer.
func TestZitadel(t *testing.T) {
	scopes := []string{"read:messages"}
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{"https://api.example"}, Scopes: scopes,
		Clients: []devissuer.Client{
			{ID: "app", Scopes: scopes, RedirectURIs: []string{redirect}},
			{ID: "api", Secret: "secret"},
		},
		People: []devissuer.Person{{Name: "alice", Scopes: scopes}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	ctx := t.Context()
	party, err := rp.NewRelyingPartyOIDC(ctx, issuer.URL(), "app", "", redirect,
		[]string{oidc.ScopeOpenID, oidc.ScopeEmail, oidc.ScopeOfflineAccess, "read:messages"},
		rp.WithSigningAlgsFromDiscovery())
	if err != nil {
		t.Fatalf("discovery: %v", err)
	}
	verifier := oauth2.GenerateVerifier()
	code := signIn(
		t,
		rp.AuthURL(
			"state",
			party,
			rp.WithCodeChallenge(oauth2.S256ChallengeFromVerifier(verifier)),
		),
	)
	tokens, err := rp.CodeExchange[*oidc.IDTokenClaims](
		ctx,
		code,
		party,
		rp.WithCodeVerifier(verifier),
	)
	if err != nil {
		t.Fatalf("code exchange: %v", err)
	}
	if tokens.IDTokenClaims.Subject != "alice" {
		t.Errorf("the ID token is of %q, want alice", tokens.IDTokenClaims.Subject)
	}
	info, err := rp.Userinfo[*oidc.UserInfo](ctx, tokens.AccessToken, "Bearer", "alice", party)
	if err != nil || info.Email != "alice@people.example" {
		t.Errorf("userinfo is %+v, %v: want alice's email", info, err)
	}
	next, err := rp.RefreshTokens[*oidc.IDTokenClaims](ctx, party, tokens.RefreshToken, "", "")
	if err != nil || next.AccessToken == tokens.AccessToken {
		t.Fatalf("refresh: %v", err)
	}

	api, err := rs.NewResourceServerClientCredentials(ctx, issuer.URL(), "api", "secret")
	if err != nil {
		t.Fatal(err)
	}
	active := func() bool {
		t.Helper()
		answer, err := rs.Introspect[*oidc.IntrospectionResponse](ctx, api, next.AccessToken)
		if err != nil {
			t.Fatalf("introspection: %v", err)
		}
		if answer.Active && (answer.Subject != "alice" || answer.ClientID != "app") {
			t.Errorf("introspection is %+v, want alice's token, for app", answer)
		}
		return answer.Active
	}
	if !active() {
		t.Error("the token is not active")
	}
	if err := rp.RevokeToken(ctx, party, next.AccessToken, "access_token"); err != nil {
		t.Fatalf("revocation: %v", err)
	}
	if active() {
		t.Error("a revoked token is active")
	}
}

// signIn presses alice's button, as a browser does, and returns the code.
func signIn(t *testing.T, at string) string {
	t.Helper()
	browser := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := browser.Get(at)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var page strings.Builder
	if _, err := io.Copy(&page, response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("the sign-in page is %s, %v: %s", response.Status, err, page.String())
	}
	form := url.Values{"person": {"alice"}}
	for _, field := range regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(page.String(), -1) {
		form.Set(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	u, _ := url.Parse(at)
	u.RawQuery = ""
	answer, err := browser.PostForm(u.String(), form)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	back, err := answer.Location()
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("the answer is %s to %v, %v: want a code", answer.Status, back, err)
	}
	return back.Query().Get("code")
}
