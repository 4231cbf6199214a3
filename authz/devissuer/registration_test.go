package devissuer_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// registers is an issuer with registration.
func registers(t testing.TB) *devissuer.Issuer {
	t.Helper()
	cfg := withPeople(issuerClock)
	cfg.Registration = "app"
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func issuerClock() time.Time { return now }

func register(
	issuer *devissuer.Issuer,
	contentType, body string,
	header ...string,
) *httptest.ResponseRecorder {
	r := post(contentType, body, header...)
	r.URL.Path = "/oauth/register"
	return serve(issuer, r)
}

func TestRegistration(t *testing.T) {
	issuer := registers(t)
	w := register(
		issuer,
		jsonType,
		`{"redirect_uris":["http://localhost:9/callback"],"client_name":"A <b>tool</b>\u202e",
		"token_endpoint_auth_method":"client_secret_post","grant_types":["authorization_code"],
		"scope":"write:messages admin openid","software_id":"x"}`,
	)
	var client map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &client); err != nil || w.Code != 201 {
		t.Fatalf("answered %d %s: want 201", w.Code, w.Body)
	}
	id, _ := client["client_id"].(string)
	delete(client, "client_id")
	wantEqual(t, "registration", client, map[string]any{
		"client_id_issued_at": float64(
			now.Unix(),
		), "redirect_uris": []any{"http://localhost:9/callback"},
		"token_endpoint_auth_method": "none", "grant_types": []any{"authorization_code", "refresh_token"},
		"response_types": []any{"code"}, "client_name": "A <b>tool</b>",
		"scope": "write:messages openid profile email offline_access", // admin is not app's
	})

	asked := signInParams("client_id", id)
	page := browse(t, issuer, authorizeURL(asked)) // a person must consent
	if !strings.Contains(page.body, "registered as “A &lt;b&gt;tool&lt;/b&gt;”") {
		t.Errorf(
			"the sign-in page is %s: want the registered name, as text",
			page.body,
		)
	}
	code := wantRedirect(t, page.choose(t, "person", "alice"), callback).Get("code")
	got := granted(t, issuer, codeParams(code, "client_id", id))
	if _, claims := claimsOf(t, issuer, got.AccessToken); claims["scope"] != "write:messages" ||
		claims["client_id"] != id {
		t.Errorf("claims are %v: want scope write:messages, and the client's own ID", claims)
	}
	refused(
		t,
		issuer,
		good("client_id", id, "client_secret", "x"),
		"invalid_client",
		"client_id is unknown or",
	)
	refused(
		t,
		issuer,
		without(good("client_id", id), "client_secret"),
		"unauthorized_client",
		"without a secret",
	)
}

func TestRegistrationRefuses(t *testing.T) {
	issuer := registers(t)
	with := func(members string) string { return `{"redirect_uris":["http://127.0.0.1/cb"]` + members + `}` }
	for _, test := range []struct{ name, contentType, body, code string }{
		{"a form", formType, "redirect_uris=http://127.0.0.1/cb", "invalid_request"},
		{"a form's text", "text/plain", with(""), "invalid_request"},
		{"no type", "", with(""), "invalid_request"},
		{"no JSON", jsonType, "{", "invalid_request"},
		{"another type of JSON", jsonType, `{"redirect_uris":"http://127.0.0.1/cb"}`, "invalid_request"},
		{"too much", jsonType, with(`,"x":"` + strings.Repeat("x", 16<<10) + `"`), "invalid_request"},
		{"no redirect URI", jsonType, `{}`, "invalid_redirect_uri"},
		{"many redirect URIs", jsonType, `{"redirect_uris":["http://localhost/` + strings.Repeat(`","http://localhost/`, 10) + `"]}`, "invalid_redirect_uri"},
		{"client credentials", jsonType, with(`,"grant_types":["client_credentials"]`), "invalid_client_metadata"},
		{"another grant beside", jsonType, with(`,"grant_types":["authorization_code","password"]`), "invalid_client_metadata"},
		{"implicit", jsonType, with(`,"response_types":["token"]`), "invalid_client_metadata"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := register(issuer, test.contentType, test.body)
			if w.Code != 400 && w.Code != 413 ||
				!strings.Contains(w.Body.String(), `"`+test.code+`"`) {
				t.Errorf("answered %d %s: want %s", w.Code, w.Body, test.code)
			}
			wantRefusalShape(t, w)
		})
	}
	for _, uri := range []string{
		"https://app.example/cb", "http://app.example/cb", "http://localhost.app.example/", "http://localhost@app.example/",
		"com.example.app:/cb", "javascript:alert(1)", "http://127.0.0.2/cb", "http://localhost/#x", "http://localhost:99999999/", "", "/cb",
	} {
		t.Run("redirect "+uri, func(t *testing.T) {
			body, _ := json.Marshal(
				map[string]any{"redirect_uris": []string{"http://localhost/", uri}},
			)
			if w := register(issuer, jsonType, string(body)); w.Code != 400 ||
				!strings.Contains(w.Body.String(), "invalid_redirect_uri") {
				t.Errorf("answered %d %s: want invalid_redirect_uri", w.Code, w.Body)
			}
		})
	}
	if w := register(issuer, jsonType, with(""), "Origin", "https://elsewhere.example"); w.Code != 403 {
		t.Errorf("from a page elsewhere: answered %d %s: want 403", w.Code, w.Body)
	}
	if w := register(newSignIn(t, nil), jsonType, with("")); w.Code != 404 {
		t.Errorf("an issuer without Registration answered %d: want 404", w.Code)
	}
}

func TestRegistrationIsBounded(t *testing.T) {
	issuer := registers(t)
	for n := range 101 {
		w := register(
			issuer,
			jsonType,
			fmt.Sprintf(`{"redirect_uris":["http://localhost:%d/"]}`, n+1),
		)
		if want := map[bool]int{true: 201, false: 503}[n < 100]; w.Code != want {
			t.Fatalf("client %d: answered %d %s: want %d", n+1, w.Code, w.Body, want)
		}
	}
}

func TestRegistrationFaults(t *testing.T) {
	for _, id := range []string{"stranger", "web", "reader"} {
		cfg := withPeople(issuerClock)
		cfg.Registration = id
		if _, err := devissuer.New(cfg); err == nil ||
			!strings.Contains(err.Error(), "Registration is") {
			t.Errorf("Registration %q: error is %v: want it refused", id, err)
		}
	}
}
