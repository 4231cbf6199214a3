package devissuer_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// Third-party libraries can sign a person in, using the discovery document only. The verifier
// accepts the access token, and not the ID token.
func TestThirdPartyLibrariesSignIn(t *testing.T) {
	for _, test := range []struct {
		name, alg, clientID, secret string
		// AutoDetect is what one gets without a word: Basic first
		style oauth2.AuthStyle
	}{
		{"a public client", "RS256", "app", "", oauth2.AuthStyleAutoDetect},
		{"a public client in the body", "ES256", "app", "", oauth2.AuthStyleInParams},
		{"a confidential client", "EdDSA", "web", secret, oauth2.AuthStyleAutoDetect},
		{"a confidential client with Basic", "PS384", "web", secret, oauth2.AuthStyleInHeader},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := withPeople(time.Now)
			cfg.URL, cfg.Algorithm = "", test.alg
			server, err := devissuer.Start(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()

			provider, err := oidc.NewProvider(t.Context(), server.URL())
			if err != nil {
				t.Fatalf("discovery: %v", err)
			}
			app := oauth2.Config{
				ClientID: test.clientID, ClientSecret: test.secret, Endpoint: provider.Endpoint(), RedirectURL: "http://127.0.0.1:5173/callback",
				Scopes: []string{oidc.ScopeOpenID, "profile", "email", oidc.ScopeOfflineAccess,
					"read:messages", "write:messages"},
			}
			app.Endpoint.AuthStyle = test.style
			verifier := oauth2.GenerateVerifier()
			page := browse(t, server, app.AuthCodeURL("the state", oidc.Nonce("the nonce"),
				oauth2.S256ChallengeOption(verifier)))
			back := wantRedirect(t, page.choose(t, "person", "bob"), app.RedirectURL)
			if back.Get("state") != "the state" || back.Get("iss") != server.URL() {
				t.Errorf("the answer is %v: want state back, and iss %s", back, server.URL())
			}
			got, err := app.Exchange(t.Context(), back.Get("code"), oauth2.VerifierOption(verifier))
			if err != nil {
				t.Fatalf("Exchange: %v", err)
			}
			raw, _ := got.Extra("id_token").(string)
			id, err := provider.Verifier(&oidc.Config{ClientID: test.clientID}).Verify(t.Context(),
				raw)
			if err != nil {
				t.Fatalf("the ID token: %v", err)
			}
			if err := id.VerifyAccessToken(got.AccessToken); err != nil {
				t.Errorf("at_hash: %v", err)
			}
			var of struct{ Name, Email string }
			if err := id.Claims(&of); err != nil || id.Subject != "bob" ||
				id.Nonce != "the nonce" || of.Name != "bob" || of.Email != "bob@people.example" {
				t.Errorf("the ID token is of %q, %+v, with nonce %q (%v): want bob's, with the "+
					"nonce that was sent", id.Subject, of, id.Nonce, err)
			}

			// The next token is requested with the refresh token.
			expired := *got
			expired.Expiry = time.Now().Add(-time.Hour)
			next, err := app.TokenSource(t.Context(), &expired).Token()
			if err != nil {
				t.Fatalf("refresh: %v", err)
			}
			if next.AccessToken == got.AccessToken || next.RefreshToken == got.RefreshToken ||
				next.RefreshToken == "" {
				t.Errorf("after the refresh, want another access token and another refresh token")
			}
			again, err := provider.Verifier(&oidc.Config{ClientID: test.clientID}).Verify(
				t.Context(), next.Extra("id_token").(string))
			if err != nil || again.Subject != "bob" || again.Nonce != "" {
				t.Errorf("the ID token of the refresh: %v; %+v: want bob's, without a nonce", err,
					again)
			}

			api, err := token.NewVerifier(context.WithoutCancel(t.Context()),
				token.Config{Issuers: []token.Issuer{{URL: server.URL(),
					Audiences: []string{audience}, Algorithms: []string{test.alg}, RFC9068: true}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, access := range []string{got.AccessToken, next.AccessToken} {
				who, err := api.Verify(t.Context(), access)
				if err != nil {
					t.Fatalf("the API refuses the access token: %v", err)
				}
				if who.Subject() != "bob" || who.ClientID() != test.clientID ||
					!slices.Equal(who.Scopes(), []string{"read:messages"}) {
					t.Errorf("the access token is %s's, through %s, with %q: want bob's, through "+
						"%s, with read:messages alone", who.Subject(), who.ClientID(), who.Scopes(),
						test.clientID)
				}
			}
			lenient, err := token.NewVerifier(context.WithoutCancel(t.Context()),
				token.Config{Issuers: []token.Issuer{{URL: server.URL(),
					Audiences: []string{audience}, Algorithms: []string{test.alg}}}})
			if err != nil {
				t.Fatal(err)
			}
			for name, v := range map[string]*token.Verifier{"by RFC 9068": api,
				"leniently": lenient} {
				if who, err := v.Verify(t.Context(), raw); err == nil {
					t.Errorf("the verifier, with %s, accepts the ID token as an access token of %s",
						name, who.Subject())
				}
			}
		})
	}
}
