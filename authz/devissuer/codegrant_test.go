package devissuer_test

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// codeParams returns a valid token request of app with a code, with changes.
func codeParams(code string, changes ...string) url.Values {
	form := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {"app"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
	}
	for change := range slices.Chunk(changes, 2) {
		form.Set(change[0], change[1])
	}
	return form
}

func refreshParams(refreshToken string, changes ...string) url.Values {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"},
		"refresh_token": {refreshToken}}
	for change := range slices.Chunk(changes, 2) {
		form.Set(change[0], change[1])
	}
	return form
}

// A response of the token endpoint, a token or an error.
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	Scope        string `json:"scope"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Error        string `json:"error"`
	Description  string `json:"error_description"`
}

func request(t testing.TB, issuer http.Handler, form url.Values, header ...string) tokenAnswer {
	t.Helper()
	w := serve(issuer, post(formType, form.Encode(), header...))
	var answer tokenAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("answered %d %s: want JSON", w.Code, w.Body)
	}
	if (w.Code == http.StatusOK) != (answer.AccessToken != "") ||
		(w.Code == http.StatusOK) == (answer.Error != "") ||
		w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("answered %d, Cache-Control %q, %s: want either 200 and a token or an error, "+
			"not to be stored", w.Code, w.Header().Get("Cache-Control"), w.Body)
	}
	return answer
}

// granted wants a token.
func granted(t testing.TB, issuer http.Handler, form url.Values, header ...string) tokenAnswer {
	t.Helper()
	answer := request(t, issuer, form, header...)
	if answer.Error != "" {
		t.Fatalf("%s: %s: want a token for %v", answer.Error, answer.Description, form)
	}
	return answer
}

// refused checks that the response is an error with a description.
func refused(t testing.TB, issuer http.Handler, form url.Values, code, says string,
	header ...string) {
	t.Helper()
	if answer := request(t, issuer, form, header...); answer.Error != code ||
		!strings.Contains(answer.Description, says) {
		t.Errorf("answered %+v for %v: want %s that says %q", answer, form, code, says)
	}
}

func claimsOf(t testing.TB, issuer *devissuer.Issuer,
	token string) (header, claims map[string]any) {
	t.Helper()
	header, claims, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(), token)
	if err != nil {
		t.Fatalf("the token does not verify against the published keys: %v", err)
	}
	return header, claims
}

func TestCodeIsExchanged(t *testing.T) {
	clock := now
	issuer := newSignIn(t, &clock)
	for _, test := range []struct {
		name, person, asked, audience string
		scope                         string // of the access token
		granted                       string
	}{
		{"all that the client may have", "alice", "", "", "read:messages write:messages", "read:messages write:messages"},
		{"no more than the person may have", "bob", "", "", "read:messages", "read:messages"},
		{"as asked", "alice", "write:messages", "", "write:messages", "write:messages"},
		{"each once", "alice", "write:messages openid write:messages openid", "", "write:messages", "write:messages openid"},
		{"none that the person may have", "bob", "write:messages", "", "", ""},
		{"a person who may have none", "<i>mallory</i>", "openid read:messages", "", "", "openid"},
		{"who signs in, and nothing else", "bob", "openid profile", "", "", "openid profile"},
		{"OpenID Connect's stay out of the access token", "bob", "openid profile email offline_access read:messages", "", "read:messages", "openid profile email offline_access read:messages"},
		{"another audience", "bob", "read:messages", "urn:other", "read:messages", "read:messages"},
	} {
		t.Run(test.name, func(t *testing.T) {
			clock = now
			form := signInParams("nonce", "the nonce")
			want := map[string]any{
				"iss": issuerURL, "sub": test.person, "aud": audience, "client_id": "app", "auth_time": now.Unix(),
				"iat": now.Unix() + 59, "exp": now.Unix() + 59 + 3600,
			}
			if test.asked != "" {
				form.Set("scope", test.asked)
			}
			if test.audience != "" {
				form.Set("audience", test.audience)
				want["aud"] = test.audience
			}
			if test.scope != "" {
				want["scope"] = test.scope
			}
			back := wantRedirect(t, browse(t, issuer, authorizeURL(form)).choose(t, "person",
				test.person), callback)
			clock = now.Add(59 * time.Second)
			got := granted(t, issuer, codeParams(back.Get("code")))
			if got.TokenType != "Bearer" || got.Scope != test.granted {
				t.Errorf("token_type is %q, scope is %q: want Bearer, %q", got.TokenType, got.Scope,
					test.granted)
			}
			header, claims := claimsOf(t, issuer, got.AccessToken)
			delete(claims, "jti")
			wantEqual(t, "claims of the access token", claims, want)
			wantEqual(t, "typ of the access token", header["typ"], "at+jwt")

			asked := strings.Fields(test.granted)
			if has := got.RefreshToken != ""; has != slices.Contains(asked, "offline_access") {
				t.Errorf("there is a refresh token: %v: want one when, and only when, "+
					"offline_access is granted", has)
			}
			if has := got.IDToken != ""; has != slices.Contains(asked, "openid") {
				t.Fatalf(
					"there is an ID token: %v: want one when, and only when, openid is granted",
					has)
			}
			if got.IDToken == "" {
				return
			}
			header, claims = claimsOf(t, issuer, got.IDToken)
			wantEqual(t, "typ of the ID token", header["typ"], "JWT")
			// its value is checked by another implementation, in interop_test.go
			hash, _ := claims["at_hash"].(string)
			delete(claims, "at_hash")
			identity := map[string]any{
				"iss": issuerURL, "sub": test.person, "aud": "app", "nonce": "the nonce", "auth_time": now.Unix(),
				"iat": now.Unix() + 59, "exp": now.Unix() + 59 + 3600,
			}
			if slices.Contains(asked, "profile") {
				identity["name"] = test.person
			}
			if slices.Contains(asked, "email") {
				identity["email"] = test.person + "@people.example"
			}
			wantEqual(t, "claims of the ID token", claims, identity)
			if len(hash) != 43 {
				t.Errorf("at_hash is %q: want half of SHA-512", hash)
			}
		})
	}
}

// openid is a scope if the document declares it.
func TestScopesThatBothHave(t *testing.T) {
	cfg := withPeople(func() time.Time { return now })
	cfg.Scopes = append(cfg.Scopes, "openid")
	cfg.Clients = []devissuer.Client{{ID: "app", Scopes: cfg.Scopes,
		RedirectURIs: []string{callback}}}
	cfg.People = []devissuer.Person{{Name: "alice", Scopes: cfg.Scopes}}
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := granted(t, issuer, codeParams(newCode(t, issuer, "scope", "openid profile admin")))
	_, claims := claimsOf(t, issuer, got.AccessToken)
	if claims["scope"] != "openid admin" || got.IDToken == "" {
		t.Errorf("the access token has %v, there is an ID token: %v: want openid admin, and one",
			claims["scope"], got.IDToken != "")
	}
	if body := get(issuer, ".well-known/openid-configuration").Body.String(); strings.Count(body,
		`"openid"`) != 1 {
		t.Errorf("discovery lists openid more or less than once: %s", body)
	}
}

// TestCodeWorksOnce: a code works once, within 60 s, for its client, redirect URI
// and verifier. A failed attempt uses it up, too.
func TestCodeWorksOnce(t *testing.T) {
	wrong := map[string][]string{
		"client": {"", "other"}, "redirect_uri": {"", "http://localhost:5174/callback"},
		"verifier": {"", "e" + verifier[1:]}, "age": {"0s", "59s", "60s", "1h"}, "target": {"", "urn:other"},
	}
	for _, client := range wrong["client"] {
		for _, redirectURI := range wrong["redirect_uri"] {
			for _, v := range wrong["verifier"] {
				for _, age := range wrong["age"] {
					for _, target := range wrong["target"] {
						clock := now
						issuer := newSignIn(t, &clock)
						code := newCode(t, issuer, "scope", "read:messages offline_access")
						old, _ := time.ParseDuration(age)
						clock = now.Add(old)
						form := codeParams(code)
						for name, value := range map[string]string{"client_id": client,
							"redirect_uri": redirectURI, "code_verifier": v, "audience": target} {
							if value != "" {
								form.Set(name, value)
							}
						}
						answer := request(t, issuer, form)
						good := client+redirectURI+v+target == "" && old < time.Minute
						switch {
						case good && answer.AccessToken == "":
							t.Fatalf("age %s, %v: %+v: want a token", age, form, answer)
						case !good && (answer.AccessToken != "" ||
							answer.Error != "invalid_grant" && answer.Error != "invalid_target"):
							t.Fatalf("age %s, %v: %+v: want invalid_grant, or invalid_target", age,
								form, answer)
						}
						refused(t, issuer, codeParams(code), "invalid_grant", "")
						if good {
							// Afterwards the code is useless (RFC 6749 §4.1.2).
							refused(t, issuer, refreshParams(answer.RefreshToken), "invalid_grant",
								"revoked")
						}
					}
				}
			}
		}
	}
}

func TestCodeExchangeRefusals(t *testing.T) {
	issuer := newSignIn(t, nil)
	for _, test := range []struct {
		name       string
		form       func(code string) url.Values
		code, says string
		spent      bool // the code was
	}{
		{"no code", func(string) url.Values { return without(codeParams(""), "code") }, "invalid_request", "code is missing", false},
		{"no redirect_uri", func(code string) url.Values { return without(codeParams(code), "redirect_uri") }, "invalid_request", "redirect_uri is missing", false},
		{"no code_verifier", func(code string) url.Values { return without(codeParams(code), "code_verifier") }, "invalid_request", "code_verifier is missing", false},
		{"no client_id", func(code string) url.Values { return without(codeParams(code), "client_id") }, "invalid_client", "is missing: send both", false},
		{"a public client with a secret", func(code string) url.Values { return codeParams(code, "client_secret", "x") }, "invalid_client", "client_secret is incorrect", false},
		{"a confidential client without its secret", func(code string) url.Values { return codeParams(code, "client_id", "web") }, "invalid_client", "is missing: send both", false},
		{"another public client", func(code string) url.Values { return codeParams(code, "client_id", "other") }, "invalid_grant", "another client", true},
		{"a confidential client", func(code string) url.Values { return codeParams(code, "client_id", "web", "client_secret", secret) }, "invalid_grant", "another client", true},
		{"another port", func(code string) url.Values { return codeParams(code, "redirect_uri", "http://localhost:1/callback") }, "invalid_grant", "redirect_uri differs", true},
		{"the challenge as verifier", func(code string) url.Values { return codeParams(code, "code_verifier", s256) }, "invalid_grant", "does not match", true},
		{"a verifier too short", func(code string) url.Values { return codeParams(code, "code_verifier", verifier[:42]) }, "invalid_grant", "does not match", true},
		{"a verifier too long", func(code string) url.Values { return codeParams(code, "code_verifier", strings.Repeat("a", 129)) }, "invalid_grant", "does not match", true},
		{"another resource", func(code string) url.Values { return codeParams(code, "resource", "urn:other") }, "invalid_target", "differs from the authorization request", true},
		{"an unknown code", func(code string) url.Values { return codeParams("x" + code) }, "invalid_grant", "unknown", false},
		{"half a code", func(code string) url.Values { return codeParams(code[:len(code)-1]) }, "invalid_grant", "used before", true},
		{"a code as a refresh token", func(code string) url.Values { return refreshParams(code) }, "invalid_grant", "used before", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			code := newCode(t, issuer)
			refused(t, issuer, test.form(code), test.code, test.says)
			if answer := request(t, issuer, codeParams(code)); (answer.Error != "") != test.spent {
				t.Errorf("the code afterwards: %+v: want it spent: %v", answer, test.spent)
			}
		})
	}
	// The parameter may be repeated with the same value.
	granted(t, issuer, codeParams(newCode(t, issuer), "audience", audience, "resource", audience))

	// A challenge that is not valid by RFC 7636 §4.2 is refused.
	short := strings.Repeat("a", 42)
	refused(t, issuer, codeParams(newCode(t, issuer, "code_challenge", challengeOf(short)),
		"code_verifier", short), "invalid_grant", "does not match")
	odd := strings.Repeat("ä", 30)
	refused(t, issuer, codeParams(newCode(t, issuer, "code_challenge", challengeOf(odd)),
		"code_verifier", odd), "invalid_grant", "does not match")
	long := strings.Repeat("a.-_~Z09", 16)
	refused(t, issuer, codeParams(newCode(t, issuer, "code_challenge", challengeOf(long+"a")),
		"code_verifier", long+"a"), "invalid_grant", "does not match")
	granted(t, issuer, codeParams(newCode(t, issuer, "code_challenge", challengeOf(long)),
		"code_verifier", long))
}

// Clients without a secret cannot use the client credentials grant; those with one can.
func TestPublicClientsAndClientCredentials(t *testing.T) {
	issuer := newSignIn(t, nil)
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"app"},
		"audience": {audience}}
	refused(t, issuer, form, "unauthorized_client", "a person must sign in")
	refused(t, issuer, good("scope", "openid"), "invalid_scope", "scope is unknown")
	refused(t, issuer, good("scope", "read:messages offline_access"), "invalid_scope",
		"scope is unknown")
	if got := granted(t, issuer, good()); got.RefreshToken != "" || got.IDToken != "" {
		t.Errorf("client credentials: got %+v: want only an access token (RFC 6749 §4.4.3)", got)
	}
	const back = "http://127.0.0.1:7/callback"
	code := newCode(t, issuer, "client_id", "web", "redirect_uri", back)
	granted(t, issuer, without(codeParams(code, "redirect_uri", back), "client_id"),
		"Authorization", basic("web", secret))
}

func TestRefresh(t *testing.T) {
	clock := now
	issuer := newSignIn(t, &clock)
	first := granted(t, issuer,
		codeParams(newCode(t, issuer, "scope", "openid read:messages write:messages offline_access",
			"nonce", "n", "audience", "urn:other")))
	current := first.RefreshToken
	seen := map[string]bool{current: true}
	// Each works for a day, so that together they outlast it.
	for n, test := range []struct{ asked, scope, granted string }{
		{"", "read:messages write:messages", "openid read:messages write:messages offline_access"},
		{"write:messages", "write:messages", "write:messages"},
		{"read:messages openid openid", "read:messages", "read:messages openid"},
		{"offline_access", "", "offline_access"},
		{"", "read:messages write:messages", "openid read:messages write:messages offline_access"}, // all scopes again (RFC 6749 §6)
	} {
		clock = clock.Add(23 * time.Hour)
		form := refreshParams(current)
		if test.asked != "" {
			form.Set("scope", test.asked)
		}
		got := granted(t, issuer, form)
		_, claims := claimsOf(t, issuer, got.AccessToken)
		scope, _ := claims["scope"].(string)
		if scope != test.scope || got.Scope != test.granted || claims["sub"] != "alice" ||
			claims["aud"] != "urn:other" || claims["auth_time"] != float64(now.Unix()) {
			t.Errorf("refresh %d: scope %q, claims %v: want alice's, with %q and %q, of the "+
				"sign-in then", n, got.Scope, claims, test.scope, test.granted)
		}
		if has := got.IDToken != ""; has != strings.Contains(test.granted, "openid") {
			t.Errorf("refresh %d: there is an ID token: %v", n, has)
		} else if has {
			_, claims := claimsOf(t, issuer, got.IDToken)
			if claims["nonce"] != nil || claims["auth_time"] != float64(now.Unix()) ||
				claims["iat"] != float64(clock.Unix()) || claims["sub"] != "alice" ||
				claims["aud"] != "app" {
				t.Errorf("refresh %d: the ID token has %v: want it as OpenID Connect Core 1.0 "+
					"§12.2 says", n, claims)
			}
		}
		if seen[got.RefreshToken] || got.RefreshToken == "" {
			t.Fatalf("refresh %d: refresh token %q: want a new one", n, got.RefreshToken)
		}
		current = got.RefreshToken
		seen[current] = true
	}

	// A refused request does not use up the code or the refresh token.
	for _, test := range []struct {
		form       url.Values
		code, says string
	}{
		{refreshParams(current, "scope", "admin"), "invalid_scope", "was not granted (granted: openid read:messages write:messages offline_access)"},
		{refreshParams(current, "scope", "read:messages  write:messages"), "invalid_scope", "was not granted"},
		{refreshParams(current, "scope", "profile"), "invalid_scope", "was not granted"},
		{refreshParams(current, "audience", audience), "invalid_target", "differs from the authorization request"},
		{refreshParams(current, "client_id", "other"), "invalid_grant", "another client"},
		{refreshParams(current, "client_id", "web"), "invalid_client", ""},
		{refreshParams(current, "client_secret", "x"), "invalid_client", ""},
		{without(refreshParams(""), "refresh_token"), "invalid_request", "refresh_token is missing"},
		{refreshParams("x" + current), "invalid_grant", "unknown"},
	} {
		refused(t, issuer, test.form, test.code, test.says)
	}
	current = granted(t, issuer, refreshParams(current, "audience", "urn:other")).RefreshToken

	clock = clock.Add(24 * time.Hour)
	refused(t, issuer, refreshParams(current), "invalid_grant", "expired")
}

// Reuse of a refresh token ends the grant (RFC 9700 §4.14.2).
func TestRefreshTokenUsedAgain(t *testing.T) {
	for uses := range 4 {
		issuer := newSignIn(t, nil)
		another := granted(t, issuer,
			codeParams(newCode(t, issuer, "scope", "offline_access"))).RefreshToken
		chain := []string{granted(t, issuer,
			codeParams(newCode(t, issuer, "scope", "offline_access"))).RefreshToken}
		for range uses + 1 {
			chain = append(chain,
				granted(t, issuer, refreshParams(chain[len(chain)-1])).RefreshToken)
		}
		refused(t, issuer, refreshParams(chain[0]), "invalid_grant", "used before")
		for _, token := range chain {
			refused(t, issuer, refreshParams(token), "invalid_grant", "revoked")
		}
		granted(t, issuer, refreshParams(another)) // another sign-in is another matter
	}
}

// Of concurrent requests with the same code or refresh token, one succeeds.
func TestConcurrentRedemption(t *testing.T) {
	issuer := newSignIn(t, nil)
	code := newCode(t, issuer, "scope", "offline_access")
	for _, form := range []url.Values{codeParams(code),
		refreshParams(granted(t, issuer,
			codeParams(newCode(t, issuer, "scope", "offline_access"))).RefreshToken)} {
		var served atomic.Int32
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				if serve(issuer, post(formType, form.Encode())).Code == http.StatusOK {
					served.Add(1)
				}
			})
		}
		group.Wait()
		if served.Load() != 1 {
			t.Errorf("%s: %d were served, want one", form.Get("grant_type"), served.Load())
		}
	}
}

// Memory is bounded: if it is full, expired sign-ins are removed first, and then the oldest.
func TestOldestGrantEnds(t *testing.T) {
	clock := now
	issuer := newSignIn(t, &clock)
	signIn := func() string {
		clock = clock.Add(time.Millisecond)
		r := httptest.NewRequest("POST", issuerURL+"authorize",
			strings.NewReader(signInParams("person", "alice", "scope", "offline_access").Encode()))
		r.Header.Set("Content-Type", formType)
		return wantRedirect(t, serve(issuer, r), callback).Get("code")
	}
	kept := granted(t, issuer, codeParams(signIn())).RefreshToken
	for range 999 { // codes that are not redeemed
		signIn()
	}
	clock = clock.Add(time.Minute)
	var codes []string
	for range 999 {
		codes = append(codes, signIn())
	}
	// the oldest, but the codes before these had expired
	kept = granted(t, issuer, refreshParams(kept)).RefreshToken
	codes = append(codes, signIn())
	refused(t, issuer, refreshParams(kept), "invalid_grant", "unknown")
	granted(t, issuer, codeParams(codes[0]))
	granted(t, issuer, codeParams(codes[len(codes)-1]))
}

// RFC 9449 §10: the code is bound to the key that the request names. §5: the refresh token of a
// public client is bound to the key of the proof.
func TestDPoPOfTheCodeGrant(t *testing.T) {
	issuer, prover, thief := newSignIn(t, nil), newProver(t, "ES256"), newProver(t, "ES256")
	proof := func(p *devissuer.Prover) []string {
		return []string{"DPoP", p.Proof("POST", tokenURL, "", nil)}
	}
	offline := func(changes ...string) string {
		return newCode(t, issuer, append(changes, "scope", "offline_access")...)
	}

	refused(t, issuer, codeParams(offline("dpop_jkt", prover.Thumbprint())), "invalid_grant",
		"bound to a DPoP key")
	refused(t, issuer, codeParams(offline("dpop_jkt", prover.Thumbprint())), "invalid_grant",
		"bound to a DPoP key", proof(thief)...)
	refused(t, issuer, codeParams(offline()), "invalid_dpop_proof", "", "DPoP", "x")

	for _, code := range []string{offline("dpop_jkt", prover.Thumbprint()), offline()} {
		got := granted(t, issuer, codeParams(code), proof(prover)...)
		for range 2 {
			_, claims := claimsOf(t, issuer, got.AccessToken)
			if got.TokenType != "DPoP" {
				t.Errorf("token_type is %q, want DPoP", got.TokenType)
			}
			wantEqual(t, "cnf", claims["cnf"], map[string]any{"jkt": prover.Thumbprint()})
			refused(t, issuer, refreshParams(got.RefreshToken), "invalid_grant",
				"bound to a DPoP key")
			refused(t, issuer, refreshParams(got.RefreshToken), "invalid_grant",
				"bound to a DPoP key",
				proof(thief)...)
			got = granted(t, issuer, refreshParams(got.RefreshToken), proof(prover)...)
		}
	}

	// A refresh token that was not bound to a key stays so, even if the access token is bound.
	free := granted(t, issuer, codeParams(offline()))
	bound := granted(t, issuer, refreshParams(free.RefreshToken), proof(prover)...)
	if bound.TokenType != "DPoP" {
		t.Errorf("token_type is %q, want DPoP", bound.TokenType)
	}
	last := granted(t, issuer, refreshParams(bound.RefreshToken)).RefreshToken

	// A confidential client's is bound to its secret.
	const back = "http://127.0.0.1/callback"
	web := []string{"client_id", "web", "client_secret", secret}
	first := granted(t, issuer, codeParams(offline("client_id", "web", "redirect_uri", back,
		"dpop_jkt", prover.Thumbprint()), append(web, "redirect_uri", back)...), proof(prover)...)
	granted(t, issuer, refreshParams(first.RefreshToken, web...), proof(thief)...)

	// An invalid proof does not use the code up.
	refused(t, issuer, refreshParams(last), "invalid_dpop_proof", "", "DPoP", "x")
	granted(t, issuer, refreshParams(last))
}

// FuzzAuthorize: for any request, redirects go to the client only, and have an error unless a
// second implementation accepts the request.
func FuzzAuthorize(f *testing.F) {
	issuer := newSignIn(f, nil)
	for _, query := range []string{
		signInParams().Encode(), signInParams("scope", "openid admin").Encode(), signInParams("redirect_uri", "http://localhost:80@x/callback").Encode(),
		signInParams().Encode() + "&state=x", signInParams().Encode() + "&client_id=app",
		signInParams().Encode() + "&person=bob", signInParams("prompt", "none").Encode(),
		signInParams("cancel", "yes").Encode(),
		signInParams("state", "a onload= style= javascript:").Encode(), // is only a value
		"client_id=app&redirect_uri=http%3A%2F%2F%5B%3A%3A1%5D%2Fcallback", "", "&&", "%zz", "a;b", "client_id=app;redirect_uri=x",
	} {
		f.Add(true, query)
		f.Add(false, query)
	}
	registered := map[string][]string{}
	for _, client := range withPeople(time.Now).Clients {
		registered[client.ID] = client.RedirectURIs
	}
	f.Fuzz(func(t *testing.T, posted bool, query string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: "localhost:3010",
			Path: "/authorize", RawQuery: query}, Host: "localhost:3010", Header: http.Header{}}
		if posted {
			r = httptest.NewRequest("POST", issuerURL+"authorize",
				strings.NewReader(query+"&person=alice"))
			r.Header.Set("Content-Type", formType)
		}
		w := serve(issuer, r)
		location := w.Header().Get("Location")
		switch w.Code {
		case 200, 400, 413, 414:
			wantPage(t, w)
			if location != "" {
				t.Fatalf("answered %d with a Location %q", w.Code, location)
			}
			return
		case 303:
		default:
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		sent, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("sent to %q, by a query that does not parse", location)
		}
		if !isRegistered(sent.Get("redirect_uri"), registered[sent.Get("client_id")]) ||
			len(sent["redirect_uri"]) != 1 || len(sent["client_id"]) != 1 {
			t.Fatalf("sent to %q, which is none of %q, the client's", location,
				registered[sent.Get("client_id")])
		}
		answer := wantRedirect(t, w, sent.Get("redirect_uri"))
		if answer.Get("iss") != issuerURL || len(answer["iss"]) != 1 || len(sent["state"]) == 1 &&
			answer.Get("state") != sent.Get("state") {
			t.Errorf("the answer to %v is %v: want iss, and state as it was sent", sent, answer)
		}
		if answer.Has("code") == answer.Has("error") {
			t.Fatalf("the answer is %v: want a code or an error", answer)
		}
		if answer.Has("code") {
			once := !slices.ContainsFunc(slices.Collect(maps.Values(sent)),
				func(values []string) bool {
					return len(values) > 1
				})
			if !posted || !once || sent.Get("cancel") != "" || sent.Has("person") ||
				sent.Get("response_type") != "code" ||
				sent.Get("code_challenge_method") != "S256" ||
				len(sent.Get("code_challenge")) != 43 {
				t.Errorf("a code for %v", sent)
			}
		}
	})
}

// isRegistered compares redirect URIs independently of the package, by parsing them.
func isRegistered(uri string, registered []string) bool {
	return slices.ContainsFunc(registered, func(own string) bool {
		u, err := url.Parse(uri)
		o, ownErr := url.Parse(own)
		if err != nil || ownErr != nil {
			return false
		}
		if u.Scheme == "http" && slices.Contains([]string{"localhost", "127.0.0.1", "::1"},
			u.Hostname()) && u.Hostname() == o.Hostname() {
			o.Host = u.Host
		}
		return *u == *o && uri == u.String()
	})
}

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return segment(sum[:])
}
