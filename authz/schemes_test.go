package authz_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// A third-party document with oauth2 and openIdConnect.
const foreignDocument = `
openapi: 3.0.3
info: {title: foreign, version: "1"}
paths:
  /oauth2: {get: {operationId: viaOAuth2, security: [{oauth: [read:things]}], responses: {default: {description: any}}}}
  /oidc:   {get: {operationId: viaOIDC, security: [{oidc: [profile]}], responses: {default: {description: any}}}}
  /both:   {get: {operationId: viaBoth, security: [{oauth: [read:things], oidc: [profile]}], responses: {default: {description: any}}}}
  /either: {get: {operationId: viaEither, security: [{oauth: [write:things]}, {oidc: [profile]}], responses: {default: {description: any}}}}
  /maybe:  {get: {operationId: viaMaybe, security: [{}, {oauth: [read:things]}], responses: {default: {description: any}}}}
components:
  securitySchemes:
    oauth:
      type: oauth2
      flows:
        clientCredentials: {tokenUrl: /token, scopes: {read:things: Read, write:things: Write}}
    oidc: {type: openIdConnect, openIdConnectUrl: /.well-known/openid-configuration}
`

// realGate guards a document with a real issuer and verifier.
func realGate(t *testing.T, config authz.Config) (*authz.Gate, *devissuer.Server) {
	t.Helper()
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Scopes: []string{"read:things"},
		Clients: []devissuer.Client{{ID: "agent", Secret: "secret",
			Scopes: []string{"read:things"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { issuer.Close() })
	config.Verifier, err = token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if config.Resource != "" {
		config.AuthorizationServers = []string{issuer.URL()}
	}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return gate, issuer
}

// answer returns the response of a gate to a GET, without a router.
func startedWriter(t *testing.T, gate *authz.Gate, path, bearer string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	if _, err := gate.Check(r, path, nil); err != nil {
		gate.WriteProblem(w, r, err)
	}
	return w.Result()
}

func TestOtherSchemesAreEnforcedByTheSameVerifier(t *testing.T) {
	gate, issuer := realGate(t, authz.Config{Document: load(t, foreignDocument)})
	mint := func(scope string) string { return issuer.Mint(map[string]any{"scope": scope}) }
	for _, c := range []struct {
		path, token string
		status      int
	}{
		{"/oauth2", "", 401},
		{"/oauth2", mint("profile"), 403},
		{"/oauth2", mint("read:things"), 200},
		{"/oidc", mint("read:things"), 403},
		{"/oidc", mint("profile"), 200},
		{"/both", mint("read:things"), 403},
		{"/both", mint("profile"), 403},
		{"/both", mint("profile read:things"), 200},
		{"/either", mint("read:things"), 403},
		{"/either", mint("write:things"), 200},
		{"/either", mint("profile"), 200},
		{"/maybe", "", 200},
		{"/maybe", mint("profile"), 200},
		{"/maybe", "rubbish", 401},
	} {
		if got := startedWriter(t, gate, c.path, c.token).StatusCode; got != c.status {
			t.Errorf("%s with a token of %d bytes: status is %d, want %d", c.path, len(c.token),
				got, c.status)
		}
	}
	if scopes := fmt.Sprint(gate.Plan().Scopes()); scopes != "[read:things write:things]" {
		t.Errorf("the plan's scopes are %s, want those of the flows", scopes)
	}
}

func TestFaultsOfSchemesAndStepUp(t *testing.T) {
	for name, c := range map[string]struct{ old, new, fault string }{
		"scope of no flow":      {"{oauth: [read:things]}], responses", "{oauth: [reed:things]}], responses", "scope reed:things is not declared: is it misspelled? Declare it under components.securitySchemes.oauth.flows"},
		"scope with a space":    {"{oauth: [read:things]}], responses", "{oauth: [read things]}], responses", "allow in a scope"},
		"flow declares rubbish": {"write:things: Write", `"write things": Write`, "scope write:things is not declared"},
		"mutual TLS":            {"{type: openIdConnect, openIdConnectUrl: /.well-known/openid-configuration}", "{type: mutualTLS}", "mutualTLS"},
		"acr is no list":        {"operationId: viaOIDC,", "operationId: viaOIDC, x-acr-values: mfa,", "x-acr-values: expected a list of one or more strings"},
		"acr with a quote":      {"operationId: viaOIDC,", `operationId: viaOIDC, x-acr-values: ['m"fa'],`, "x-acr-values: expected a list of one or more strings of printable ASCII"},
		"max age is negative":   {"operationId: viaOIDC,", "operationId: viaOIDC, x-max-age: -1,", "x-max-age: expected a number of seconds, 0 or more"},
		"max age is null":       {"operationId: viaOIDC,", "operationId: viaOIDC, x-max-age: null,", "x-max-age: expected a number of seconds, 0 or more"},
		"step-up is optional":   {"operationId: viaMaybe,", "operationId: viaMaybe, x-max-age: 60,", "may be called without a token"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(foreignDocument, c.old, c.new, 1)
			if text == foreignDocument {
				t.Fatalf("the document has no %q to replace", c.old)
			}
			_, err := authz.Compile(load(t, text))
			var fault *authz.Fault
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("error is %v, want a Fault that says %q", err, c.fault)
			}
		})
	}
}

func TestStepUp(t *testing.T) {
	document := strings.Replace(foreignDocument, "operationId: viaOAuth2,",
		"operationId: viaOAuth2, x-acr-values: [phr, phrh], x-max-age: 300,", 1)
	now := time.Now()
	gate, issuer := realGate(t, authz.Config{Document: load(t, document), Now: func() time.Time {
		return now
	}})
	ago := func(seconds int) int64 { return now.Unix() - int64(seconds) }
	const challenge = `Bearer realm="foreign", error="insufficient_user_authentication", acr_values="phr phrh", max_age=300, scope="read:things"`
	for _, c := range []struct {
		name      string
		claims    map[string]any
		status    int
		challenge string
	}{
		{"strong and recent", map[string]any{"acr": "phrh", "auth_time": ago(300)}, 200, ""},
		{"recent, and not strong enough", map[string]any{"acr": "pwd", "auth_time": ago(1)}, 401, challenge},
		{"strong, and a second too long ago", map[string]any{"acr": "phr", "auth_time": ago(301)}, 401, challenge},
		{"says nothing of either", map[string]any{}, 401, challenge},
		{"acr is no string", map[string]any{"acr": []string{"phr"}, "auth_time": ago(1)}, 401, challenge},
		{"auth_time is no number", map[string]any{"acr": "phr", "auth_time": "1"}, 401, challenge},
		{"will sign in tomorrow", map[string]any{"acr": "phr", "auth_time": ago(-86400)}, 401, challenge},
		{"strong and recent, and lacks the scope", map[string]any{"acr": "phr", "auth_time": ago(1), "scope": "profile"}, 403, `Bearer realm="foreign", error="insufficient_scope", scope="read:things"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.claims["scope"] == nil {
				c.claims["scope"] = "read:things"
			}
			got := startedWriter(t, gate, "/oauth2", issuer.Mint(c.claims))
			if got.StatusCode != c.status || got.Header.Get("WWW-Authenticate") != c.challenge {
				t.Errorf("answer is %d with challenge %q, want %d with %q", got.StatusCode,
					got.Header.Get("WWW-Authenticate"), c.status, c.challenge)
			}
		})
	}
}

// A client that knows only the address of the API follows 401 → metadata → issuer → token, like MCP
// clients.
func TestDiscoveryByAddressOnly(t *testing.T) {
	var gate *authz.Gate
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gate.ServesMetadata(r.URL.Path) {
			gate.ServeMetadata(w, r)
			return
		}
		if _, err := gate.Check(r, strings.TrimPrefix(r.URL.Path, "/v1"), nil); err != nil {
			gate.WriteProblem(w, r, err)
		}
	}))
	defer api.Close()
	var issuer *devissuer.Server
	gate, issuer = realGate(t, authz.Config{Document: load(t, foreignDocument),
		Resource: api.URL + "/v1"})

	get := func(url, bearer string) (*http.Response, []byte) {
		t.Helper()
		r, _ := http.NewRequest(http.MethodGet, url, nil)
		if strings.HasPrefix(url, api.URL) {
			r.Host = "attacker.example" // must not show anywhere
		}
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response, body
	}
	refused, _ := get(api.URL+"/v1/oauth2", "")
	challenge := regexp.MustCompile(`resource_metadata="([^"]*)"`).FindStringSubmatch(
		refused.Header.Get("WWW-Authenticate"))
	if refused.StatusCode != 401 || challenge == nil ||
		challenge[1] != api.URL+"/.well-known/oauth-protected-resource/v1" {
		t.Fatalf("status is %d, challenge is %q: want a 401 that names the metadata under %s",
			refused.StatusCode, refused.Header.Get("WWW-Authenticate"), api.URL)
	}
	if bad, _ := get(api.URL+"/v1/oauth2",
		"rubbish"); !strings.Contains(bad.Header.Get("WWW-Authenticate"), challenge[0]) {
		t.Errorf("challenge to a bad token is %q: it does not name the metadata",
			bad.Header.Get("WWW-Authenticate"))
	}
	for _, at := range []string{challenge[1], api.URL + "/.well-known/oauth-protected-resource"} {
		answer, body := get(at, "")
		var metadata struct {
			Resource string   `json:"resource"`
			Servers  []string `json:"authorization_servers"`
			Scopes   []string `json:"scopes_supported"`
			Methods  []string `json:"bearer_methods_supported"`
		}
		if err := json.Unmarshal(body, &metadata); err != nil {
			t.Fatal(err)
		}
		if got, expected := fmt.Sprint(metadata), fmt.Sprintf(
			"{%s/v1 [%s] [read:things write:things] [header]}", api.URL, issuer.URL()); got != expected {
			t.Errorf("%s: metadata is %s, want %s", at, got, expected)
		}
		if answer.Header.Get("Access-Control-Allow-Origin") != "*" ||
			answer.Header.Get("Cache-Control") == "" ||
			answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: headers are %v: want JSON for scripts of any origin, with a lifetime",
				at, answer.Header)
		}
	}
	// The remaining steps are those of RFC 8414 and RFC 6749. The real audience replaces the
	// resource.
	_, body := get(issuer.URL()+".well-known/oauth-authorization-server", "")
	var server struct {
		Issuer string `json:"issuer"`
		Token  string `json:"token_endpoint"`
	}
	if err := json.Unmarshal(body, &server); err != nil || server.Issuer != issuer.URL() {
		t.Fatalf("authorization server metadata is %s, %v: want that of %s", body, err,
			issuer.URL())
	}
	granted, err := http.PostForm(server.Token, url.Values{"grant_type": {"client_credentials"},
		"client_id": {"agent"}, "client_secret": {"secret"}, "resource": {audience},
		"scope": {"read:things"}})
	if err != nil {
		t.Fatal(err)
	}
	defer granted.Body.Close()
	var grant struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(granted.Body).Decode(&grant); err != nil || grant.AccessToken == "" {
		t.Fatalf("no token from the issuer: %v", err)
	}
	if let, _ := get(api.URL+"/v1/oauth2", grant.AccessToken); let.StatusCode != 200 {
		t.Errorf("with the token: status is %d, want 200", let.StatusCode)
	}
}

func TestMetadataIsNotServedUnlessConfigured(t *testing.T) {
	gate, _ := realGate(t, authz.Config{Document: load(t, foreignDocument)})
	if gate.ServesMetadata("/.well-known/oauth-protected-resource") {
		t.Error("metadata is served without Config.Resource")
	}
	if got := startedWriter(t, gate, "/oauth2",
		"").Header.Get("WWW-Authenticate"); got != `Bearer realm="foreign", scope="read:things"` {
		t.Errorf("challenge is %q, want one without resource_metadata", got)
	}
	for _, resource := range []string{"api.example.com", "https://api.example.com/?q", "https://api.example.com/#f", "ftp://api.example.com", `https://api.example.com/"`, "https://u:p@api.example.com"} {
		_, err := authz.New(authz.Config{Document: load(t, foreignDocument), Resource: resource, AuthorizationServers: []string{"https://issuer.example"}})
		if err == nil || !strings.Contains(err.Error(), "Config.Resource") {
			t.Errorf("Resource %q: error is %v, want a fault of it", resource, err)
		}
	}
}

// The truth table of two schemes: all lists of up to three of the alternatives below, in every
// order, with every credential. The expected result follows the definition of OpenAPI (§4.8.30):
// one alternative, all of its schemes.
func TestTruthTableOfSchemes(t *testing.T) {
	issuer := newIssuer(t)
	verifier := newVerifier(t, issuer)
	alternatives := []string{`{}`, `{oauth: [read:things]}`, `{oidc: [profile]}`,
		`{oauth: [read:things], oidc: [profile]}`, `{oauth: []}`}
	needs := [][]string{{}, {"read:things"}, {"profile"}, {"read:things", "profile"}, {}}
	credentials := map[string]string{
		"none": "", "bad": "rubbish",
		"token of nothing": issuer.Mint(nil), "read:things": issuer.Mint(map[string]any{"scope": "read:things"}),
		"profile": issuer.Mint(map[string]any{"scope": "profile"}), "both": issuer.Mint(map[string]any{"scope": "profile read:things"}),
	}
	granted := map[string][]string{"read:things": {"read:things"}, "profile": {"profile"},
		"both": {"read:things", "profile"}}

	var lists [][]int
	for a := range alternatives {
		lists = append(lists, []int{a})
		for b := range alternatives {
			lists = append(lists, []int{a, b})
			for c := range alternatives {
				lists = append(lists, []int{a, b, c})
			}
		}
	}
	expected := func(list []int, credential string) int {
		optional, public := slices.Contains(list, 0), !slices.ContainsFunc(list, func(a int) bool {
			return a != 0
		})
		switch {
		case public || credential == "none" && optional:
			return 200
		case credential == "none" || credential == "bad":
			return 401
		}
		for _, a := range list {
			if !slices.ContainsFunc(needs[a], func(s string) bool {
				return !slices.Contains(granted[credential], s)
			}) {
				return 200
			}
		}
		return 403
	}
	rows := 0
	for _, list := range lists {
		var security []string
		for _, a := range list {
			security = append(security, alternatives[a])
		}
		document := strings.Replace(foreignDocument,
			"security: [{oauth: [read:things]}], responses", "security: ["+strings.Join(security,
				", ")+"], responses", 1)
		gate, err := authz.New(authz.Config{Document: load(t, document), Verifier: verifier})
		if err != nil {
			t.Fatalf("security %v: %v", security, err)
		}
		for name, credential := range credentials {
			rows++
			if got := startedWriter(t, gate, "/oauth2",
				credential).StatusCode; got != expected(list,
				name) {
				t.Errorf("security %v, credential %s: status is %d, want %d", security, name,
					got, expected(list, name))
			}
		}
	}
	t.Logf("%d rows", rows)
}
