//go:build unix

package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// Under dev, apps on this machine sign in alice and bob, who may do different things. In a browser
// that is tried by TestBrowserAppOfAnotherOrigin; here, without one.
func TestDevSignsPeopleIn(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	var metadata struct {
		AuthorizationEndpoint string `json:"authorization_endpoint"`
		TokenEndpoint         string `json:"token_endpoint"`
	}
	if err := json.Unmarshal([]byte(p.get(t, "/.well-known/openid-configuration", "").body),
		&metadata); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		person, redirectURI string
		scope               string
		writes              int
	}{
		{"alice", "http://localhost:5173/", "read:messages read:messages:all write:messages", http.StatusCreated},
		{"alice", "http://127.0.0.1:8080/callback", "read:messages read:messages:all write:messages", http.StatusCreated},
		{"bob", "http://[::1]:9/callback", "read:messages", http.StatusForbidden},
		{"bob", p.url + "/docs/oauth2-redirect.html", "read:messages", http.StatusForbidden},
	} {
		app := oauth2.Config{
			ClientID:    "app",
			RedirectURL: test.redirectURI,
			Endpoint: oauth2.Endpoint{
				AuthURL:  metadata.AuthorizationEndpoint,
				TokenURL: metadata.TokenEndpoint,
			},
		}
		verifier := oauth2.GenerateVerifier()
		at, err := url.Parse(
			app.AuthCodeURL(oauth2.GenerateVerifier(), oauth2.S256ChallengeOption(verifier)))
		if err != nil {
			t.Fatal(err)
		}
		browser := http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		}
		response, err := browser.Get(at.String())
		if err != nil {
			t.Fatal(err)
		}
		if page := readAnswer(t, response); page.status != http.StatusOK ||
			!strings.Contains(page.body, "Continue as "+test.person) {
			t.Fatalf("the sign-in page is %d %s", page.status, page.body)
		}
		form := at.Query()
		form.Set("person", test.person)
		if response, err = browser.PostForm(metadata.AuthorizationEndpoint, form); err != nil {
			t.Fatal(err)
		}
		answer := readAnswer(t, response)
		back, err := url.Parse(answer.header.Get("Location"))
		if err != nil || answer.status != http.StatusSeeOther ||
			!strings.HasPrefix(back.String(), test.redirectURI+"?") ||
			back.Query().Get("state") != form.Get("state") {
			t.Fatalf("%s is sent to %q with %d %s: want %s, with state", test.person, back,
				answer.status, answer.body, test.redirectURI)
		}
		code := back.Query().Get("code")
		p.keepSecret(code, verifier, form.Get("state"))
		token, err := app.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatalf("%s: %v", test.person, err)
		}
		if scope, _ := token.Extra("scope").(string); scope != test.scope {
			t.Errorf("%s gives %q, want %q", test.person, scope, test.scope)
		}
		p.keepSecret(token.AccessToken)
		wantGreeting(t, p.get(t, "/api/private-scoped", token.AccessToken), scopedGreeting)

		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			p.url+"/api/messages", strings.NewReader(`{"text":"Hello"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token.AccessToken)
		request.Header.Set("Content-Type", "application/json")
		if response, err = http.DefaultClient.Do(request); err != nil {
			t.Fatal(err)
		}
		if wrote := readAnswer(t, response); wrote.status != test.writes ||
			test.writes == http.StatusCreated &&
				!strings.Contains(wrote.body, `"subject":"`+test.person+`"`) {
			t.Errorf("%s writes: answered %d %s, want %d", test.person, wrote.status, wrote.body,
				test.writes)
		}
	}
}
