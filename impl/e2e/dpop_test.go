//go:build unix

package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// prove sends a request with the DPoP scheme.
func (p *process) prove(t *testing.T, path, token, proof string) answer {
	t.Helper()
	p.keepSecret(proof)
	return p.ask(t, http.MethodGet, path, "Authorization", "DPoP "+token, "DPoP", proof)
}

func newClient(t *testing.T) *devissuer.Prover {
	t.Helper()
	client, err := devissuer.NewProver("ES256", nil)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// In dev, a client with a key gets a token that is bound to it, which cannot be used without the
// key (RFC 9449 §5, §7).
func TestDPoP(t *testing.T) {
	t.Parallel()
	p, client := startDev(t), newClient(t)
	endpoint := p.url + "/oauth/token"
	form := url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {"full"},
		"client_secret": {devSecret},
		"audience":      {devAudience},
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint,
		strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("DPoP", client.Proof(http.MethodPost, endpoint, "", nil))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	var grant struct {
		Token string `json:"access_token"`
		Type  string `json:"token_type"`
	}
	if got := readAnswer(t, response); json.Unmarshal([]byte(got.body), &grant) != nil ||
		grant.Type != "DPoP" {
		t.Fatalf("the token endpoint answers %d %s: want a token of type DPoP", got.status,
			got.body)
	}

	proof := func() string {
		return client.Proof(http.MethodGet, p.url+scoped.path(t), grant.Token, nil)
	}
	once := proof()
	wantServed(t, p.prove(t, scoped.path(t), grant.Token, once))
	for name, got := range map[string]answer{
		"invalid-dpop-proof of a proof that was used": p.prove(t, scoped.path(t), grant.Token, once),
		"invalid-dpop-proof of another path":          p.prove(t, scoped.path(t), grant.Token, client.Proof(http.MethodGet, p.url+"/nowhere", grant.Token, nil)),
		"invalid-token of another key":                p.prove(t, scoped.path(t), grant.Token, newClient(t).Proof(http.MethodGet, p.url+scoped.path(t), grant.Token, nil)),
		"invalid-token of a bearer":                   p.get(t, scoped.path(t), grant.Token),
		"missing-token":                               p.get(t, scoped.path(t), ""),
	} {
		kind, _, _ := strings.Cut(name, " ")
		if offers := strings.Join(got.header.Values("WWW-Authenticate"), "\n"); got.status != 401 ||
			!strings.Contains(got.body, "#"+kind) ||
			!strings.Contains(offers, "DPoP realm=") ||
			!strings.Contains(offers, "Bearer realm=") {
			t.Errorf("%s: %d %s, WWW-Authenticate %q; want 401 and both challenges", name,
				got.status, got.body, offers)
		}
	}
	wantServed(t, p.prove(t, scoped.path(t), grant.Token, proof()))
}

// With these settings of serve, tokens must be bound, proofs need a nonce, and two servers with the
// same Redis and nonce key accept each other's nonces and used proofs.
func TestServeDPoP(t *testing.T) {
	t.Parallel()
	const resource = "https://api.example"
	path := private.path(t)
	issuer, client := startIssuer(t), newClient(t)
	token := issuer.mint(map[string]any{"cnf": map[string]any{"jkt": client.Thumbprint()}})
	env := []string{
		"OASGATE_RESOURCE=" + resource,
		"OASGATE_DPOP=required",
		"OASGATE_DPOP_NONCES=on",
		"OASGATE_DPOP_NONCE_KEY=" + strings.Repeat("secret", 6),
	}
	redis := os.Getenv("OASGATE_TEST_REDIS_URL")
	if redis != "" {
		env = append(env, "OASGATE_REPLAY_STORE="+redis)
	}
	first := startServe(t, issuer, env...)
	if got := first.get(t, path, issuer.mint(nil)); got.status != 401 ||
		!strings.HasPrefix(got.header.Get("WWW-Authenticate"), `DPoP realm="`) {
		t.Errorf(
			"a bearer token where bound ones are required: %d %q; want 401 with the challenge of DPoP",
			got.status, got.header)
	}
	proof := func(nonce string) string {
		return client.Proof(http.MethodGet, resource+path, token, map[string]any{"nonce": nonce})
	}
	refused := first.prove(t, path, token, proof("guessed"))
	nonce := refused.header.Get("DPoP-Nonce")
	if refused.status != 401 || !strings.Contains(refused.body, "#use-dpop-nonce") || nonce == "" {
		t.Fatalf("a proof without the server's nonce: %d %s, DPoP-Nonce %q", refused.status,
			refused.body, nonce)
	}
	wantServed(t, first.prove(t, path, token, proof(nonce)))

	if redis == "" {
		t.Skip(
			"OASGATE_TEST_REDIS_URL is not set, so two servers are not tested: . .ci/services; " +
				"start_redis")
	}
	second := startServe(t, issuer, env...)
	once := proof(nonce)
	wantServed(t, second.prove(t, path, token, once))
	if got := first.prove(t, path, token, once); got.status != 401 ||
		!strings.Contains(got.body, "#invalid-dpop-proof") {
		t.Errorf("a proof that was used at the other server: %d %s; want 401", got.status, got.body)
	}
}
