package authz_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// TestCertifiedProvider uses tokens of a certified third-party OpenID provider, whose URL is in
// OASGATE_TEST_PROVIDER. OASGATE_TEST_PROVIDER_CONTROL has the URL of its control port, which
// rotates its keys. .ci/run starts one if possible.
func TestCertifiedProvider(t *testing.T) {
	issuer, control := os.Getenv("OASGATE_TEST_PROVIDER"),
		os.Getenv("OASGATE_TEST_PROVIDER_CONTROL")
	if issuer == "" || control == "" {
		t.Skip("skipped: OASGATE_TEST_PROVIDER and OASGATE_TEST_PROVIDER_CONTROL are not set: no " +
			"provider to test against")
	}
	const apiAudience, secret = "https://quickstarts/api", "h6-secret-h6-secret-h6-secret-32"
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer, Audiences: []string{apiAudience}, RFC9068: true,
			DPoP: token.DPoPAllowed, Keys: token.KeyPolicy{Cooldown: time.Millisecond}}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	var gate *authz.Gate
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := gate.Check(r, r.URL.Path, nil); err != nil {
			gate.WriteProblem(w, r, err)
		}
	}))
	defer api.Close()
	gate, err = authz.New(authz.Config{Document: doc, Verifier: verifier, Resource: api.URL,
		AuthorizationServers: []string{issuer}, InsecureExplain: true})
	if err != nil {
		t.Fatal(err)
	}

	send := func(r *http.Request) (int, string) {
		t.Helper()
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	rotate := func(query string) {
		t.Helper()
		r, _ := http.NewRequest(http.MethodPost, control+query, nil)
		if status, body := send(r); status != 200 {
			t.Fatalf("%s: status is %d: %s", query, status, body)
		}
	}
	grant := func(client, scope string, prover *devissuer.Prover) string {
		t.Helper()
		endpoint := strings.TrimSuffix(issuer, "/") + "/token"
		r, _ := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(url.Values{
			"grant_type": {"client_credentials"}, "resource": {apiAudience}, "scope": {scope},
		}.Encode()))
		r.SetBasicAuth(client, secret)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if prover != nil {
			r.Header.Set("DPoP", prover.Proof(http.MethodPost, endpoint, "", nil))
		}
		status, body := send(r)
		var answer struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Token == "" {
			t.Fatalf("the provider issues no token to %s: %d %s", client, status, body)
		}
		return answer.Token
	}
	expect := func(what string, status int, headers ...string) {
		t.Helper()
		r, _ := http.NewRequest(http.MethodGet, api.URL+"/api/private-scoped", nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		if got, body := send(r); got != status {
			t.Errorf("%s: status is %d, want %d: %s", what, got, status, body)
		}
	}

	first := grant("h6-client", "read:messages", nil)
	expect("plain", 200, "Authorization", "Bearer "+first)
	expect("without the scope", 403, "Authorization", "Bearer "+grant("h6-client", "write:messages",
		nil))
	for _, alg := range []string{"PS256", "ES256", "EdDSA", "RS256"} {
		rotate("/rotate?keep=1&alg=" + alg)
		bearer := grant("h6-client", "read:messages", nil)
		expect("rotated to "+alg, 200, "Authorization", "Bearer "+bearer)
		expect("the first key, after the rotation to "+alg, 200, "Authorization", "Bearer "+first)
		expect("tampered with, "+alg, 401, "Authorization", "Bearer "+bearer[:len(bearer)-6]+
			"AAAAAA")
	}
	rotate("/drop-old")
	bearer := grant("h6-client", "read:messages", nil)
	expect("the one key left", 200, "Authorization", "Bearer "+bearer)

	for _, alg := range []string{"ES256", "EdDSA", "RS256", "PS256"} {
		prover, err := devissuer.NewProver(alg, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		bound := grant("h6-client-dpop", "read:messages", prover)
		proof := prover.Proof(http.MethodGet, api.URL+"/api/private-scoped", bound, nil)
		expect("bound by "+alg, 200, "Authorization", "DPoP "+bound, "DPoP", proof)
		expect("bound, with a proof a second time, "+alg, 401, "Authorization", "DPoP "+bound,
			"DPoP", proof)
		expect("bound, as a bearer token, "+alg, 401, "Authorization", "Bearer "+bound)
	}
}
