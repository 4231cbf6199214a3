package devissuer_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// withPeople is config with people, and with clients in which they sign in. The redirect URI of
// other has a query.
func withPeople(clock func() time.Time) devissuer.Config {
	cfg := config()
	cfg.Now = clock
	cfg.Clients = append(cfg.Clients,
		devissuer.Client{ID: "app", Scopes: []string{"read:messages", "write:messages"},
			RedirectURIs: []string{
				"http://localhost/callback", "http://127.0.0.1:8080/callback", "http://[::1]/callback", "https://app.example/callback", "com.example.app:/callback",
			}},
		devissuer.Client{ID: "other", Scopes: cfg.Scopes, RedirectURIs: []string{"http://localhost/callback?tenant=a%20b"}},
		devissuer.Client{ID: "web", Secret: secret, Scopes: cfg.Scopes, RedirectURIs: []string{"http://127.0.0.1/callback"}},
	)
	cfg.People = []devissuer.Person{
		{Name: "alice", Scopes: cfg.Scopes},
		{Name: "bob", Scopes: []string{"read:messages"}},
		{Name: "<i>mallory</i>"},
	}
	return cfg
}

// newSignIn returns an issuer with people and the clock of the test.
func newSignIn(t testing.TB, clock *time.Time) *devissuer.Issuer {
	t.Helper()
	if clock == nil {
		clock = &now
	}
	issuer, err := devissuer.New(withPeople(func() time.Time { return *clock }))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return issuer
}

const (
	callback = "http://localhost:5173/callback"
	// this and its challenge are of RFC 7636 appendix B
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	s256     = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
)

// signInParams returns a valid authorization request, with changes.
func signInParams(changes ...string) url.Values {
	form := url.Values{
		"response_type": {"code"}, "client_id": {"app"}, "redirect_uri": {callback}, "state": {"the state"},
		"code_challenge": {s256}, "code_challenge_method": {"S256"},
	}
	for change := range slices.Chunk(changes, 2) {
		form.Set(change[0], change[1])
	}
	return form
}

func authorizeURL(form url.Values) string { return issuerURL + "authorize?" + form.Encode() }

// A page is the sign-in page, parsed like a browser.
type page struct {
	issuer http.Handler
	at     *url.URL
	body   string
	hidden url.Values
}

// browse opens the sign-in page, and calls wantPage.
func browse(t testing.TB, issuer http.Handler, at string) page {
	t.Helper()
	r := httptest.NewRequest("GET", at, nil)
	w := serve(issuer, r)
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: answered %d %v %s: want the sign-in page", at, w.Code, w.Header(), w.Body)
	}
	wantPage(t, w)
	p := page{issuer: issuer, body: w.Body.String(), hidden: url.Values{}}
	action := regexp.MustCompile(`<form method="post" action="([^"]*)">`).FindStringSubmatch(p.body)
	if action == nil {
		t.Fatalf("no form with method post in %s", p.body)
	}
	var err error
	if p.at, err = r.URL.Parse(html.UnescapeString(action[1])); err != nil {
		t.Fatalf("the form's action: %v", err)
	}
	for _, input := range regexp.MustCompile(
		`<input type="hidden" name="([^"]*)" value="([^"]*)">`).FindAllStringSubmatch(p.body, -1) {
		p.hidden.Add(html.UnescapeString(input[1]), html.UnescapeString(input[2]))
	}
	return p
}

// choose presses a button.
func (p page) choose(t testing.TB, name, value string,
	header ...string) *httptest.ResponseRecorder {
	t.Helper()
	if button := `<button name="` + name + `" value="` + html.EscapeString(value) +
		`">`; !strings.Contains(p.body, button) {
		t.Fatalf("no %s in %s", button, p.body)
	}
	form := url.Values{name: {value}}
	for name, values := range p.hidden {
		form[name] = append(form[name], values...)
	}
	r := httptest.NewRequest("POST", p.at.String(), strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", formType)
	for pair := range slices.Chunk(header, 2) {
		r.Header.Add(pair[0], pair[1])
	}
	return serve(p.issuer, r)
}

// wantRedirect checks that the response redirects to the client, and returns its parameters.
func wantRedirect(t testing.TB, w *httptest.ResponseRecorder, redirectURI string) url.Values {
	t.Helper()
	location := w.Header().Get("Location")
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(location, redirectURI) ||
		w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("answered %d, Location %q, Cache-Control %q, %s: want 303 to %s, not to be stored",
			w.Code, location, w.Header().Get("Cache-Control"), w.Body, redirectURI)
	}
	rest := strings.TrimPrefix(location, redirectURI)
	if want := map[bool]string{false: "?", true: "&"}[strings.Contains(redirectURI,
		"?")]; !strings.HasPrefix(rest, want) {
		t.Fatalf("Location is %q: want %q after %s", location, want, redirectURI)
	}
	answer, err := url.ParseQuery(rest[1:])
	if err != nil {
		t.Fatalf("Location is %q: %v", location, err)
	}
	return answer
}

// newCode signs alice in, and returns the code.
func newCode(t testing.TB, issuer http.Handler, changes ...string) string {
	t.Helper()
	form := signInParams(changes...)
	code := wantRedirect(t, browse(t, issuer, authorizeURL(form)).choose(t, "person", "alice"),
		form.Get("redirect_uri")).Get("code")
	if code == "" {
		t.Fatalf("no code for %v", form)
	}
	return code
}

// wantPage checks the security headers of a page: it runs nothing, fetches nothing, and cannot be
// framed.
func wantPage(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(w.Body.String())
	if style == nil {
		t.Fatalf("no style in %s", w.Body)
	}
	sum := sha256.Sum256([]byte(style[1]))
	policy := strings.Split(w.Header().Get("Content-Security-Policy"), "; ")
	for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'",
		"base-uri 'none'", "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"} {
		if !slices.Contains(policy, directive) {
			t.Errorf("Content-Security-Policy is %q: want %q in it", policy, directive)
		}
	}
	if len(policy) != 5 || !slices.ContainsFunc(policy, func(s string) bool {
		return strings.HasPrefix(s, "form-action '")
	}) {
		t.Errorf("Content-Security-Policy is %q: want five directives, with form-action", policy)
	}
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "same-origin", "Set-Cookie": "", "Location": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// The values of hidden fields are the request's, and may look like markup.
	markup := regexp.MustCompile(` (name|value)="[^"]*"`).ReplaceAllString(w.Body.String(), " $1")
	if found := regexp.MustCompile(
		`(?i)<script|\son[a-z]+=|javascript:|<img|<link|\sstyle=|https?://[^<"]*"[^>]*>\s*</a`).FindString(markup); found != "" {
		t.Errorf("the page has %q", found)
	}
}

func TestSignInPage(t *testing.T) {
	issuer := newSignIn(t, nil)
	const nasty = `"><script>alert(1)</script>&amp; + %20 ✓`
	p := browse(t, issuer, authorizeURL(signInParams("state", nasty, "nonce", nasty, "scope",
		"openid read:messages write:messages", "unknown", nasty)))
	for _, says := range []string{
		"<code>app</code> requests <code>openid</code>, <code>read:messages</code>, <code>write:messages</code> at <code>" + audience + "</code>",
		"is sent to <code>" + callback + "</code>",
		"alice grants <code>openid</code>, <code>read:messages</code>, <code>write:messages</code></p>",
		`bob grants <code>openid</code>, <code>read:messages</code> <span class="not">but may not grant <code>write:messages</code></span></p>`,
		`&lt;i&gt;mallory&lt;/i&gt; grants <code>openid</code> <span class="not">but may not grant <code>read:messages</code>, <code>write:messages</code></span></p>`,
	} {
		if !strings.Contains(p.body, says) {
			t.Errorf("the page does not say %s: it says %s", says, p.body)
		}
	}
	for _, person := range []string{"alice", "bob", "<i>mallory</i>"} {
		answer := wantRedirect(t, p.choose(t, "person", person), callback)
		if answer.Get("state") != nasty || answer.Get("iss") != issuerURL ||
			answer.Get("code") == "" || len(answer) != 3 {
			t.Errorf("%s: the answer is %v: want code, state as it was sent, and iss", person,
				answer)
		}
	}
	answer := wantRedirect(t, p.choose(t, "cancel", "yes"), callback)
	if answer.Get("error") != "access_denied" || answer.Get("code") != "" ||
		answer.Get("state") != nasty {
		t.Errorf("cancel: the answer is %v: want access_denied and state", answer)
	}

	// Without scope, the client gets all of its scopes (RFC 6749 §3.3).
	if p := browse(t, issuer, authorizeURL(signInParams())); !strings.Contains(p.body,
		"requests <code>read:messages</code>, <code>write:messages</code> at") {
		t.Errorf("without scope the page says %s", p.body)
	}
	// Browsers apply form-action to the redirect after the form.
	for redirectURI, follows := range map[string]string{
		callback:                       "'self' http://localhost:* http://127.0.0.1:*",
		"http://127.0.0.1:9/callback":  "'self' http://localhost:* http://127.0.0.1:*",
		"http://[::1]:9/callback":      "'self' http:",
		"https://app.example/callback": "'self' https://app.example",
		"com.example.app:/callback":    "'self' com.example.app:",
	} {
		w := get(issuer, "authorize?"+signInParams("redirect_uri", redirectURI).Encode())
		if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy,
			"; form-action "+follows+"; ") {
			t.Errorf("%s: the policy is %q: want form-action %s", redirectURI, policy, follows)
		}
	}
}

// The request may also be posted (OpenID Connect Core 1.0 §3.1.2.1).
func TestSignInPageOfAPostedRequest(t *testing.T) {
	issuer := newSignIn(t, nil)
	r := httptest.NewRequest("POST", issuerURL+"authorize",
		strings.NewReader(signInParams().Encode()))
	r.Header.Set("Content-Type", formType)
	w := serve(issuer, r)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Continue as bob") {
		t.Errorf("answered %d %s: want the sign-in page", w.Code, w.Body)
	}
	wantPage(t, w)
}

// An error is sent to the client only if its redirect URI is valid.
func TestAuthorizeFaults(t *testing.T) {
	issuer := newSignIn(t, nil)
	for _, test := range []struct {
		name   string
		form   url.Values
		status int    // of a page; 0: the browser is sent back
		code   string // of the error
		says   string
	}{
		{"no client_id", without(signInParams(), "client_id"), 400, "invalid_request", "client_id is missing"},
		{"client_id without a value", signInParams("client_id", ""), 400, "invalid_request", "client_id is missing"},
		{"client_id twice", url.Values{"client_id": {"app", "app"}, "redirect_uri": {callback}}, 400, "invalid_request", "client_id is missing or repeated"},
		{"unknown client", signInParams("client_id", "stranger"), 400, "invalid_request", "client_id is unknown"},
		{"client in another case", signInParams("client_id", "APP"), 400, "invalid_request", "client_id is unknown"},
		{"a client that signs nobody in", signInParams("client_id", "reader"), 400, "invalid_request", "redirect_uri is not registered for this client"},
		{"no redirect_uri", without(signInParams(), "redirect_uri"), 400, "invalid_request", "redirect_uri is missing"},
		{"redirect_uri twice", func() url.Values { f := signInParams(); f.Add("redirect_uri", "https://attacker.example/"); return f }(), 400, "invalid_request", "redirect_uri is missing or repeated"},
		{"another client's redirect_uri", signInParams("redirect_uri", "http://localhost/callback?tenant=a%20b"), 400, "invalid_request", "redirect_uri is not registered"},
		{"a foreign redirect_uri and a fault beside", signInParams("redirect_uri", "https://attacker.example/", "response_type", "token"), 400, "invalid_request", "redirect_uri is not registered"},

		{"a parameter twice", func() url.Values { f := signInParams(); f.Add("scope", "a"); f.Add("scope", "b"); return f }(), 0, "invalid_request", "repeated"},
		{"an unknown parameter twice", func() url.Values { f := signInParams(); f["x"] = []string{"1", "1"}; return f }(), 0, "invalid_request", "repeated"},
		{"no response_type", without(signInParams(), "response_type"), 0, "invalid_request", "response_type is missing"},
		{"response_type token", signInParams("response_type", "token"), 0, "unsupported_response_type", "must be code"},
		{"response_type of two", signInParams("response_type", "code id_token"), 0, "unsupported_response_type", "must be code"},
		{"response_mode", signInParams("response_mode", "fragment"), 0, "invalid_request", "response_mode"},
		{"no code_challenge", without(signInParams(), "code_challenge"), 0, "invalid_request", "must use PKCE"},
		{"no PKCE", without(signInParams(), "code_challenge", "code_challenge_method"), 0, "invalid_request", "must use PKCE"},
		{"no PKCE, confidential", without(signInParams("client_id", "web", "redirect_uri", "http://127.0.0.1/callback"), "code_challenge"), 0, "invalid_request", "must use PKCE"},
		{"plain by default", without(signInParams(), "code_challenge_method"), 0, "invalid_request", "must be S256"},
		{"plain", signInParams("code_challenge_method", "plain"), 0, "invalid_request", "must be S256"},
		{"challenge too short", signInParams("code_challenge", s256[:42]), 0, "invalid_request", "SHA-256"},
		{"challenge padded", signInParams("code_challenge", s256+"="), 0, "invalid_request", "SHA-256"},
		{"challenge of the other alphabet", signInParams("code_challenge", strings.ReplaceAll(s256, "-", "+")), 0, "invalid_request", "SHA-256"},
		{"challenge with a newline", signInParams("code_challenge", s256+"\n"), 0, "invalid_request", "SHA-256"},
		{"challenge with loose bits", signInParams("code_challenge", s256[:42]+"N"), 0, "invalid_request", "SHA-256"},
		{"dpop_jkt", signInParams("dpop_jkt", "x"), 0, "invalid_request", "dpop_jkt"},
		{"unknown audience", signInParams("audience", "urn:unknown"), 0, "invalid_target", "audience is unknown"},
		{"unknown resource", signInParams("resource", "urn:unknown"), 0, "invalid_target", "audience is unknown"},
		{"audience and resource differ", signInParams("audience", audience, "resource", "urn:other"), 0, "invalid_target", "differ"},
		{"unknown scope", signInParams("scope", "openid read:secrets"), 0, "invalid_scope", "a requested scope is unknown (known: read:messages write:messages admin openid profile email offline_access"},
		{"a scope not for the client", signInParams("scope", "admin"), 0, "invalid_scope", "not allowed for this client"},
		{"malformed scope", signInParams("scope", "openid  read:messages"), 0, "invalid_scope", "malformed"},
		{"request object", signInParams("request", "e30.e30."), 0, "request_not_supported", ""},
		{"request object elsewhere", signInParams("request_uri", "https://attacker.example/"), 0, "request_uri_not_supported", ""},
		{"prompt=none", signInParams("prompt", "none"), 0, "login_required", "keeps no sessions"},
		{"prompt that contradicts itself", signInParams("prompt", "none login"), 0, "invalid_request", "prompt"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, person := range []string{"", "alice"} {
				// the form of the page is checked like the link
				r := httptest.NewRequest("GET", authorizeURL(test.form), nil)
				if person != "" {
					r = httptest.NewRequest("POST", issuerURL+"authorize",
						strings.NewReader(test.form.Encode()+"&person="+person))
					r.Header.Set("Content-Type", formType)
				}
				w := serve(issuer, r)
				if test.status != 0 {
					if w.Code != test.status ||
						!strings.Contains(html.UnescapeString(w.Body.String()),
							"<code>"+test.code+"</code>: ") ||
						!strings.Contains(html.UnescapeString(w.Body.String()), test.says) {
						t.Errorf("%s answered %d %s: want a page, %d, that says %s and %q",
							r.Method, w.Code, w.Body, test.status, test.code, test.says)
					}
					wantPage(t, w)
					if strings.Contains(w.Body.String(), "attacker") ||
						strings.Contains(w.Body.String(), "<form") {
						t.Errorf("%s: the page shows the parameters, or has a button: %s",
							r.Method, w.Body)
					}
					continue
				}
				answer := wantRedirect(t, w, test.form.Get("redirect_uri"))
				if answer.Get("error") != test.code ||
					!strings.Contains(answer.Get("error_description"), test.says) ||
					answer.Get("code") != "" {
					t.Errorf("%s: the answer is %v: want %s that says %q", r.Method, answer,
						test.code, test.says)
				}
				if answer.Get("state") != "the state" || answer.Get("iss") != issuerURL {
					t.Errorf("%s: the answer is %v: want state as it was sent, and iss (RFC 9207)",
						r.Method, answer)
				}
			}
		})
	}

	// A repeated state is not returned, and one without a value counts as absent.
	for _, form := range []url.Values{{"state": {"a", "b"}}, {"state": {""}}} {
		request := signInParams("response_type", "x")
		request["state"] = form["state"]
		if answer := wantRedirect(t, get(issuer, "authorize?"+request.Encode()),
			callback); answer.Has("state") || answer.Get("error") == "" {
			t.Errorf("state %q: the answer is %v: want an error without state", form["state"],
				answer)
		}
	}
}

func TestAuthorizeRefusesOddRequests(t *testing.T) {
	issuer := newSignIn(t, nil)
	post := func(query, contentType, body string, header ...string) *http.Request {
		r := httptest.NewRequest("POST", issuerURL+"authorize"+query, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		for pair := range slices.Chunk(header, 2) {
			r.Header.Add(pair[0], pair[1])
		}
		return r
	}
	signingIn := signInParams("person", "alice").Encode()
	for _, test := range []struct {
		name    string
		request *http.Request
		status  int
		says    string
	}{
		{"malformed query", httptest.NewRequest("GET", authorizeURL(signInParams())+"&x=%zz", nil), 400, "not well-formed"},
		{"long query", httptest.NewRequest("GET", authorizeURL(signInParams("nonce", strings.Repeat("x", 8<<10))), nil), 414, "larger than 8 KiB"},
		{"long body", post("", formType, signInParams("nonce", strings.Repeat("x", 8<<10)).Encode()), 413, "larger than 8 KiB"},
		{"body that breaks off", func() *http.Request {
			r := httptest.NewRequest("POST", issuerURL+"authorize", broken{})
			r.Header.Set("Content-Type", formType)
			return r
		}(), 400, "could not read"},
		{"query beside a body", post("?"+signInParams().Encode(), formType, "person=alice"), 400, "both a query and a body"},
		{"JSON", post("", jsonType, object(signInParams("person", "alice"))), 400, "Content-Type must be"},
		{"person is unknown", post("", formType, signInParams("person", "carol").Encode()), 400, "person is unknown"},
		{"person in another case", post("", formType, signInParams("person", "Alice").Encode()), 400, "person is unknown"},
		{"another page's form", post("", formType, signingIn, "Sec-Fetch-Site", "cross-site"), 403, "not sent by this issuer"},
		{"a form of another port", post("", formType, signingIn, "Sec-Fetch-Site", "same-site"), 403, "not sent by this issuer"},
		{"a form of another port, told by its origin", post("", formType, signingIn, "Origin", "http://localhost:5173"), 403, "not sent by this issuer"},
		{"another page's Cancel", post("", formType, signInParams("cancel", "yes").Encode(), "Sec-Fetch-Site", "cross-site"), 403, "not sent by this issuer"},
		{"a form of a page of nowhere", post("", formType, signingIn, "Origin", "null"), 403, "This issuer is for development"},
		{"a form of a foreign page", post("", formType, signingIn, "Origin", "https://attacker.example"), 403, "This issuer is for development"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := serve(issuer, test.request)
			if w.Code != test.status || !strings.Contains(html.UnescapeString(w.Body.String()),
				test.says) || w.Header().Get("Location") != "" {
				t.Errorf("answered %d %v %s: want %d that says %q", w.Code, w.Header(), w.Body,
					test.status, test.says)
			}
		})
	}

	p := browse(t, issuer, authorizeURL(signInParams()))
	for _, header := range [][]string{{"Sec-Fetch-Site", "same-origin", "Origin", "http://localhost:3010"}, {"Origin", "http://localhost:3010"}, {"Sec-Fetch-Site", "same-origin"}} {
		if answer := wantRedirect(t, p.choose(t, "person", "alice", header...),
			callback); answer.Get("code") == "" {
			t.Errorf("%q: the answer is %v: want a code, as the form is the page's own", header,
				answer)
		}
	}
	// A link cannot sign a person in.
	if p := browse(t, issuer,
		authorizeURL(signInParams("person", "alice", "cancel", "yes"))); p.hidden.Has("person") ||
		p.hidden.Has("cancel") {
		t.Errorf("the page accepts person in the query: %s", p.body)
	}
}

// Without people there is no authorization endpoint, in discovery neither. The API can have its
// path.
func TestWithoutPeople(t *testing.T) {
	issuer := newIssuer(t)
	if w := get(issuer, "authorize?"+signInParams().Encode()); w.Code != http.StatusNotFound ||
		issuer.Serves("/authorize") {
		t.Errorf("answered %d, Serves is %v: want 404", w.Code, issuer.Serves("/authorize"))
	}
	if w := get(newSignIn(t, nil), "authorize?"+signInParams().Encode()); w.Code != http.StatusOK ||
		!newSignIn(t, nil).Serves("/authorize") {
		t.Errorf("with people, answered %d: want the sign-in page", w.Code)
	}
	for method, status := range map[string]int{"HEAD": 200, "PUT": 405, "OPTIONS": 405} {
		if w := serve(newSignIn(t, nil), httptest.NewRequest(method, authorizeURL(signInParams()),
			nil)); w.Code != status {
			t.Errorf("%s: answered %d, want %d", method, w.Code, status)
		}
	}
}

// The metadata has all endpoints and features, and no others.
func TestDiscoveryOfSignIn(t *testing.T) {
	issuer := newSignIn(t, nil)
	document := get(issuer, ".well-known/openid-configuration").Body.String()
	if other := get(issuer,
		".well-known/oauth-authorization-server").Body.String(); other != document {
		t.Errorf("RFC 8414's document is %s, OpenID Connect's %s: want the same", other, document)
	}
	var metadata map[string]any
	if err := json.Unmarshal([]byte(document), &metadata); err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "discovery", metadata, map[string]any{
		"issuer":                 issuerURL,
		"authorization_endpoint": issuerURL + "authorize",
		"token_endpoint":         issuerURL + "oauth/token",
		"userinfo_endpoint":      issuerURL + "oauth/userinfo",
		"introspection_endpoint": issuerURL + "oauth/introspect",
		"introspection_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post"},
		"revocation_endpoint":                           issuerURL + "oauth/revoke",
		"revocation_endpoint_auth_methods_supported":    []any{"client_secret_basic", "client_secret_post", "none"},
		"jwks_uri": issuerURL + ".well-known/jwks.json",
		"authorization_response_iss_parameter_supported": true,
		"grant_types_supported":                          []any{"client_credentials", "authorization_code", "refresh_token"},
		"response_types_supported":                       []any{"code"},
		"response_modes_supported":                       []any{"query"},
		"code_challenge_methods_supported":               []any{"S256"},
		"token_endpoint_auth_methods_supported":          []any{"client_secret_basic", "client_secret_post", "none"},
		"scopes_supported":                               []any{"read:messages", "write:messages", "admin", "openid", "profile", "email", "offline_access"},
		"claims_supported":                               []any{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "at_hash", "name", "email"},
		"subject_types_supported":                        []any{"public"},
		"id_token_signing_alg_values_supported":          []any{"EdDSA"},
		"dpop_signing_alg_values_supported":              []any{"ES256", "EdDSA", "PS256", "RS256"},
		"request_uri_parameter_supported":                false,
	})
}

// The issuer copies the slices of the caller.
func TestNewCopiesPeopleAndRedirectURIs(t *testing.T) {
	cfg := withPeople(func() time.Time { return now })
	cfg.Clients[3].RedirectURIs = slices.Clone(cfg.Clients[3].RedirectURIs)
	cfg.People[0].Scopes = slices.Clone(cfg.People[0].Scopes)
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Clients[3].RedirectURIs[0], cfg.People[0].Scopes[0], cfg.People[1].Name = "https://attacker.example/", "admin", "carol"
	if p := browse(t, issuer,
		authorizeURL(signInParams("scope", "read:messages"))); !strings.Contains(
		p.body, "alice grants <code>read:messages</code></p>") ||
		!strings.Contains(p.body, "Continue as bob") {
		t.Errorf("a change of the caller's Config reached the issuer: %s", p.body)
	}
}

// Exactly, but for the port on this machine.
func TestRedirectURIs(t *testing.T) {
	issuer := newSignIn(t, nil)
	for uri, ours := range map[string]bool{
		"http://localhost/callback":       true,
		"http://localhost:1/callback":     true,
		"http://localhost:65535/callback": true,
		"http://127.0.0.1/callback":       true, // registered with a port
		"http://127.0.0.1:8080/callback":  true,
		"http://127.0.0.1:49152/callback": true,
		"http://[::1]:3000/callback":      true,
		"https://app.example/callback":    true,
		"com.example.app:/callback":       true,

		"http://localhost":                                    false,
		"http://localhost/":                                   false,
		"http://localhost/callback/":                          false,
		"http://localhost/Callback":                           false,
		"http://localhost/callback?":                          false,
		"http://localhost/callback?a=b":                       false,
		"http://localhost/callback#":                          false,
		"http://localhost/callback#a":                         false,
		"http://localhost/./callback":                         false,
		"http://localhost/%63allback":                         false,
		"http://localhost/x/../callback":                      false,
		"http://localhost//callback":                          false,
		"http://localhost:/callback":                          false,
		"http://localhost:123456/callback":                    false,
		"http://localhost:-1/callback":                        false,
		"http://localhost:8o/callback":                        false,
		"http://localhost:80:80/callback":                     false,
		"http://localhost:80@attacker.example/callback":       false,
		"http://localhost@attacker.example/callback":          false,
		"http://user@localhost/callback":                      false,
		"http://localhost.attacker.example/callback":          false,
		"http://localhost\\.attacker.example/callback":        false,
		"http://localhost.:80/callback":                       false,
		"http://LOCALHOST/callback":                           false,
		"HTTP://localhost/callback":                           false,
		"https://localhost/callback":                          false,
		"http://127.0.0.2/callback":                           false,
		"http://127.1/callback":                               false,
		"http://[::1%25lo]/callback":                          false,
		"http://[0:0:0:0:0:0:0:1]/callback":                   false,
		"http://::1/callback":                                 false,
		"http://[::1]8080/callback":                           false,
		"https://app.example:443/callback":                    false,
		"https://app.example:8443/callback":                   false,
		"https://app.example/callback/../evil":                false,
		"http://app.example/callback":                         false,
		"com.example.app:/callback2":                          false,
		"com.example.app://callback":                          false,
		"javascript:alert(1)":                                 false,
		"data:text/html,x":                                    false,
		"//localhost/callback":                                false,
		"/callback":                                           false,
		" http://localhost/callback":                          false,
		"http://localhost/callback ":                          false,
		"http://localhost/callback\r\nSet-Cookie: a=b":        false,
		"http://localhost:3000\r\n/callback":                  false,
		"http://localhost/callback http://localhost/callback": false,
	} {
		w := get(issuer, "authorize?"+signInParams("redirect_uri", uri).Encode())
		if got := w.Code == http.StatusOK; got != ours || !ours && w.Code != http.StatusBadRequest {
			t.Errorf("%q: answered %d: want it taken for the client's: %v", uri, w.Code, ours)
		}
		if ours {
			wantRedirect(t,
				browse(t, issuer, authorizeURL(signInParams("redirect_uri", uri))).choose(t,
					"person", "bob"), uri)
		}
	}
	// The query of the redirect URI remains.
	const other = "http://localhost:9/callback?tenant=a%20b"
	if answer := wantRedirect(t,
		browse(t, issuer, authorizeURL(signInParams("client_id", "other", "redirect_uri",
			other))).choose(
			t, "person", "bob"), other); answer.Get("code") == "" {
		t.Errorf("the answer is %v: want a code", answer)
	}
}

func TestNewReportsFaultsOfSignIn(t *testing.T) {
	cfg := config()
	cfg.Clients = []devissuer.Client{
		{ID: "a", RedirectURIs: []string{
			"http://localhost/ok", "https://app.example/ok", "com.example.app:/ok", "http://127.9.9.9/ok",
			"http://app.example/", "javascript:alert(1)", "app:/x", "/relative", "http://localhost/#f", "http://u:hunter2@localhost/", "http://localhost/a b", "http://localhost/é", "https:///x", "%",
		}},
		{ID: audience, Secret: "hunter2", RedirectURIs: []string{"http://localhost/"}},
		{ID: "b"},
	}
	_, err := devissuer.New(cfg)
	if err == nil ||
		!strings.Contains(err.Error(),
			`Clients[0] ("a") has RedirectURIs, but People is empty`) {
		t.Errorf("RedirectURIs without People: %v", err)
	}
	cfg.People = []devissuer.Person{{Name: "ann", Scopes: []string{"admin", "unknown"}},
		{Name: "ann"}, {Name: ""}, {Name: "b@clients"}, {Name: strings.Repeat("x", 256)},
		{Name: "é"}}
	_, err = devissuer.New(cfg)
	if err == nil {
		t.Fatal("New accepted a configuration that is wrong throughout")
	}
	for _, want := range []string{
		`the redirect URI "http://app.example/" must be https`, `the redirect URI "javascript:alert(1)" must`, `the redirect URI "app:/x" must`,
		`the redirect URI "/relative" must`, `the redirect URI "http://localhost/#f" has a fragment`, `@localhost/" has a user`,
		`the redirect URI "http://localhost/a b" is not a URI`, `the redirect URI "http://localhost/é" is not a URI`, `the redirect URI "https:///x" must`, `the redirect URI "%" is not a URI`,
		`Clients[1].ID is "` + audience + `", also one of Audiences`, `Clients[2] ("b") has neither a Secret`,
		`People[0] ("ann") has scope "unknown"`, `People[1].Name is "ann", the name of an earlier person`, `People[2].Name is ""`, `People[3].Name is "b@clients": names that end`,
		`People[4].Name is "xxx`, `People[5].Name is "é"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s; it says:\n%v", want, err)
		}
	}
	if got := len(strings.Split(err.Error(), "\n")); got != 18 {
		t.Errorf("%d faults, want 18:\n%v", got, err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows a secret: %v", err)
	}
}
