package devissuer_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// postTo sends a form to an endpoint.
func postTo(
	h http.Handler,
	path string,
	form url.Values,
	header ...string,
) *httptest.ResponseRecorder {
	r := post(formType, form.Encode(), header...)
	r.URL.Path = "/" + path
	return serve(h, r)
}

// introspect sends a request as the client reader.
func introspect(t testing.TB, issuer http.Handler, token string) map[string]any {
	t.Helper()
	w := postTo(issuer, "oauth/introspect", url.Values{"token": {token}},
		"Authorization", basic("reader", secret))
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK ||
		w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf(
			"answered %d %v %s: want 200 and JSON, not to be stored",
			w.Code,
			w.Header(),
			w.Body,
		)
	}
	return answer
}

func wantActive(t testing.TB, issuer http.Handler, token string, want bool) {
	t.Helper()
	answer := introspect(t, issuer, token)
	if answer["active"] != want || !want && len(answer) != 1 {
		t.Errorf(
			"introspection is %v: want active to be %v, and nothing else if it is false",
			answer,
			want,
		)
	}
}

func TestIntrospectionSaysWhatATokenSays(t *testing.T) {
	issuer := newSignIn(t, nil)
	got := granted(t, issuer, good("scope", "read:messages"))
	_, claims := claimsOf(t, issuer, got.AccessToken)
	claims["active"], claims["token_type"] = true, "Bearer"
	wantEqual(t, "introspection", introspect(t, issuer, got.AccessToken), claims)

	bound := issuer.Mint(map[string]any{"cnf": map[string]any{"jkt": "x"}})
	if answer := introspect(t, issuer, bound); answer["token_type"] != "DPoP" ||
		answer["cnf"] == nil {
		t.Errorf("introspection of a bound token is %v: want token_type DPoP, and cnf", answer)
	}
}

func TestIntrospectionOfInactiveTokens(t *testing.T) {
	issuer, other := newIssuer(t), newIssuer(t)
	good := issuer.Mint(nil)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"no token of anybody":   "opaque",
		"of another issuer":     other.Mint(nil),
		"expired":               issuer.Mint(map[string]any{"exp": now.Unix()}),
		"not valid yet":         issuer.Mint(map[string]any{"nbf": now.Unix() + 60}),
		"without exp":           issuer.Mint(map[string]any{"exp": nil}),
		"in another's name":     issuer.Mint(map[string]any{"iss": "https://other.example"}),
		"an ID token":           issuer.Sign(map[string]any{"typ": "JWT"}, map[string]any{"iss": issuerURL, "exp": now.Unix() + 60}),
		"of another algorithm":  issuer.Sign(map[string]any{"alg": "RS256"}, map[string]any{"iss": issuerURL, "exp": now.Unix() + 60}),
		"with other claims":     parts[0] + "." + strings.Split(issuer.Mint(map[string]any{"scope": "admin"}), ".")[1] + "." + parts[2],
		"without its signature": parts[0] + "." + parts[1] + ".",
	} {
		t.Run(name, func(t *testing.T) { wantActive(t, issuer, token, false) })
	}
	wantActive(t, issuer, good, true)
	kid, _ := issuer.CurrentKey()
	issuer.Rotate("")
	wantActive(t, issuer, good, true)
	issuer.RemoveKey(kid)
	wantActive(t, issuer, good, false)
}

// Tokens of each algorithm are verified.
func TestIntrospectionVerifiesEveryAlgorithm(t *testing.T) {
	issuer := newIssuer(t)
	for _, alg := range []string{"RS256", "PS384", "ES256", "ES512", "EdDSA"} {
		issuer.Rotate(alg)
		token := issuer.Mint(nil)
		wantActive(t, issuer, token, true)
		cut := strings.LastIndex(token, ".") + 1
		forged := issuer.Mint(map[string]any{"scope": "admin"})
		wantActive(t, issuer, forged[:strings.LastIndex(forged, ".")+1]+token[cut:], false)
	}
}

func TestWhoMayIntrospect(t *testing.T) {
	issuer := newSignIn(t, nil)
	token := issuer.Mint(nil)
	for _, test := range []struct {
		name   string
		form   url.Values
		header []string
		status int
		code   string
	}{
		{"nobody", url.Values{"token": {token}}, nil, 400, "invalid_client"},
		{"a wrong secret", url.Values{"token": {token}}, []string{"Authorization", basic("reader", "x")}, 401, "invalid_client"},
		{"a public client", url.Values{"token": {token}, "client_id": {"app"}}, nil, 400, "unauthorized_client"},
		{"no token", url.Values{}, []string{"Authorization", basic("reader", secret)}, 400, "invalid_request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := postTo(issuer, "oauth/introspect", test.form, test.header...)
			if w.Code != test.status || !strings.Contains(w.Body.String(), `"`+test.code+`"`) {
				t.Errorf("answered %d %s: want %d %s", w.Code, w.Body, test.status, test.code)
			}
			wantRefusalShape(t, w)
		})
	}
}

func TestRevocation(t *testing.T) {
	issuer := newSignIn(t, nil)
	revoke := func(token, client string) *httptest.ResponseRecorder {
		return postTo(issuer, "oauth/revoke", url.Values{"token": {token}, "client_id": {client}})
	}
	signIn := func() tokenAnswer {
		return granted(
			t,
			issuer,
			codeParams(newCode(t, issuer, "scope", "openid offline_access read:messages")),
		)
	}
	wantOK := func(w *httptest.ResponseRecorder) {
		t.Helper()
		if w.Code != http.StatusOK || w.Body.Len() != 0 {
			t.Errorf("answered %d %s: want 200, and nothing else (RFC 7009 §2.2)", w.Code, w.Body)
		}
	}

	one, two := signIn(), signIn()
	wantOK(revoke(one.AccessToken, "app"))
	wantActive(t, issuer, one.AccessToken, false)
	wantActive(t, issuer, two.AccessToken, true)
	next := granted(t, issuer, refreshParams(one.RefreshToken)) // only the access token was revoked
	wantActive(t, issuer, next.AccessToken, true)

	if w := revoke(two.AccessToken, "other"); w.Code != 400 {
		t.Errorf("another client's revocation is answered %d %s: want 400", w.Code, w.Body)
	}
	wantOK(revoke(two.RefreshToken, "other"))
	wantActive(t, issuer, two.AccessToken, true)

	wantOK(revoke(two.RefreshToken, "app"))
	wantActive(t, issuer, two.AccessToken, false)
	refused(t, issuer, refreshParams(two.RefreshToken), "invalid_grant", "revoked")

	wantOK(revoke("unknown", "app"))
	if w := revoke("unknown", "stranger"); w.Code != 400 {
		t.Errorf("revocation by another client: %d %s, want 400", w.Code, w.Body)
	}

	ofClient := granted(t, issuer, good()).AccessToken
	wantOK(
		postTo(
			issuer,
			"oauth/revoke",
			url.Values{"token": {ofClient}},
			"Authorization",
			basic("reader", secret),
		),
	)
	wantActive(t, issuer, ofClient, false)
}

// Reuse of a refresh token ends the grant and its tokens (RFC 9700 §4.14.2).
func TestReuseEndsAccessTokens(t *testing.T) {
	issuer := newSignIn(t, nil)
	first := granted(
		t,
		issuer,
		codeParams(newCode(t, issuer, "scope", "offline_access read:messages")),
	)
	second := granted(t, issuer, refreshParams(first.RefreshToken))
	wantActive(t, issuer, first.AccessToken, true)
	refused(t, issuer, refreshParams(first.RefreshToken), "invalid_grant", "used before")
	wantActive(t, issuer, first.AccessToken, false)
	wantActive(t, issuer, second.AccessToken, false)

	code := newCode(t, issuer, "scope", "read:messages")
	third := granted(t, issuer, codeParams(code))
	wantActive(t, issuer, third.AccessToken, true)
	refused(t, issuer, codeParams(code), "invalid_grant", "revoked")
	wantActive(t, issuer, third.AccessToken, false)
}

func TestUserInfo(t *testing.T) {
	issuer := newSignIn(t, nil)
	of := func(scope string) string {
		return granted(t, issuer, codeParams(newCode(t, issuer, "scope", scope))).AccessToken
	}
	revoked := of("openid")
	postTo(issuer, "oauth/revoke", url.Values{"token": {revoked}, "client_id": {"app"}})
	prover, err := devissuer.NewProver("ES256", issuerClock)
	if err != nil {
		t.Fatal(err)
	}
	bound := granted(t, issuer, codeParams(newCode(t, issuer, "scope", "openid")),
		"DPoP", prover.Proof("POST", issuerURL+"oauth/token", "", nil))
	for _, test := range []struct {
		name, authorization string
		status              int
		want                string // of the body, or of the challenge
	}{
		{"all", "Bearer " + of("openid profile email"), 200, `{"email":"alice@people.example","name":"alice","sub":"alice"}`},
		{"openid alone", "Bearer " + of("openid"), 200, `{"sub":"alice"}`},
		{"without openid", "Bearer " + of("read:messages"), 403, `error="insufficient_scope", scope="openid"`},
		{"of a client", "Bearer " + granted(t, issuer, good()).AccessToken, 403, `error="insufficient_scope"`},
		{"revoked", "Bearer " + revoked, 401, `error="invalid_token"`},
		{"bound to a key", "Bearer " + bound.AccessToken, 401, `error="invalid_token"`},
		{"none", "", 401, `Bearer realm="development issuer"`},
		{"nonsense", "Bearer x", 401, `error="invalid_token"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", issuerURL+"oauth/userinfo", nil)
			if test.authorization != "" {
				r.Header.Set("Authorization", test.authorization)
			}
			w := serve(issuer, r)
			got := strings.TrimSpace(w.Body.String())
			if test.status != 200 {
				got = w.Header().Get("WWW-Authenticate")
			}
			if w.Code != test.status || !strings.Contains(got, test.want) {
				t.Errorf(
					"answered %d %s %v: want %d and %s",
					w.Code,
					w.Body,
					w.Header(),
					test.status,
					test.want,
				)
			}
		})
	}
}
