package authz_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// The URL of the tested server for clients. It listens elsewhere, and its Host header has that
// address.
const resource = "https://api.example"

const (
	onDPoP       = `DPoP realm="Tests of the gate", algs="ES256 EdDSA PS256 RS256"`
	whereBearer  = challenge + `, resource_metadata="https://api.example/.well-known/oauth-protected-resource"`
	whereDPoP    = onDPoP + `, resource_metadata="https://api.example/.well-known/oauth-protected-resource"`
	badProof     = whereDPoP + `, error="invalid_dpop_proof"` + "\n" + whereBearer
	badToken     = whereDPoP + `, error="invalid_token"` + "\n" + whereBearer
	bothSchemes  = whereBearer + "\n" + whereDPoP
	notAsABearer = whereBearer + `, error="invalid_token"` + "\n" + whereDPoP
)

// proving is a stack that offers DPoP, its issuer, and a client with a key.
type proving struct {
	*stack
	issuer *devissuer.Server
	client *devissuer.Prover
}

func startDPoP(t *testing.T, policy token.DPoPPolicy,
	change func(*token.Config, *authz.Config)) *proving {
	t.Helper()
	p := &proving{issuer: newIssuer(t)}
	var err error
	if p.client, err = devissuer.NewProver("ES256", nil); err != nil {
		t.Fatal(err)
	}
	p.stack = start(t, guarded, func(config *authz.Config) {
		config.Resource, config.AuthorizationServers = resource, []string{p.issuer.URL()}
		tokens := token.Config{
			Issuers: []token.Issuer{{URL: p.issuer.URL(), Audiences: []string{audience},
				DPoP: policy}},
			Logger: slog.New(slog.DiscardHandler),
		}
		if change != nil {
			change(&tokens, config)
		}
		if config.Verifier, err = token.NewVerifier(t.Context(), tokens); err != nil {
			t.Fatal(err)
		}
	})
	return p
}

// bound returns a token that is bound to the client's key.
func (p *proving) bound(scopes string, claims ...any) string {
	all := map[string]any{"scope": scopes, "cnf": map[string]any{"jkt": p.client.Thumbprint()}}
	for i := 0; i < len(claims); i += 2 {
		all[claims[i].(string)] = claims[i+1]
	}
	return p.issuer.Mint(all)
}

func (p *proving) proof(request, tok string) string {
	method, path, _ := strings.Cut(request, " ")
	return p.client.Proof(method, resource+path, tok, nil)
}

// credentials are what a client sends with a request by the DPoP scheme.
func (p *proving) credentials(request, tok string) []string {
	return []string{"Authorization: DPoP " + tok, "DPoP: " + p.proof(request, tok)}
}

// The table "Credentials" of the behaviour for clients, with the DPoP scheme.
const aboutResource = `, resource_metadata="https://api.example/.well-known/oauth-protected-resource"`

func TestDPoPCredentials(t *testing.T) {
	p := startDPoP(t, token.DPoPAllowed, nil)
	tok, plain := p.bound("read"), p.issuer.Mint(map[string]any{"scope": "read"})
	stranger, err := devissuer.NewProver("ES256", nil)
	if err != nil {
		t.Fatal(err)
	}
	proof := func() string { return "DPoP: " + p.proof("GET /any", tok) }
	of := func(method, url string) string {
		return "DPoP: " + p.client.Proof(method, url, tok, nil)
	}
	used := proof()

	for _, row := range []struct {
		name    string
		request string
		headers []string

		operation string // the operation that runs; "" for a refusal
		status    int
		kind      authz.Kind
		challenge string
	}{
		{"no Authorization", "GET /any", nil, "", 401, authz.MissingToken, bothSchemes},
		{"a proof alone", "GET /any", []string{proof()}, "", 401, authz.MissingToken, bothSchemes},
		{"Basic", "GET /any", []string{"Authorization: Basic " + submitted}, "", 401, authz.MissingToken, bothSchemes},
		{"no space after DPoP", "GET /any", []string{"Authorization: DPoP" + tok, proof()}, "", 401, authz.MissingToken, bothSchemes},
		{"DPoP=", "GET /any", []string{"Authorization: DPoP=" + tok, proof()}, "", 401, authz.MissingToken, bothSchemes},

		{"DPoP", "GET /any", []string{"Authorization: DPoP " + tok, used}, "any", 0, "", ""},
		{"dpop", "GET /any", []string{"Authorization: dpop " + tok, proof()}, "any", 0, "", ""},
		{"DPOP, more spaces", "GET /any", []string{"Authorization: DPOP   " + tok, proof()}, "any", 0, "", ""},
		{"the header by another spelling", "GET /any", []string{"Authorization: DPoP " + tok, "dpop" + strings.TrimPrefix(proof(), "DPoP")}, "any", 0, "", ""},
		{"a bearer token, for that is allowed", "GET /any", []string{"Authorization: Bearer " + plain}, "any", 0, "", ""},
		{"a bearer token with a proof that nobody asked for", "GET /any", []string{"Authorization: Bearer " + plain, "DPoP: x"}, "any", 0, "", ""},
		{"public, with rubbish", "GET /public", []string{"Authorization: DPoP x", "DPoP: y"}, "public", 0, "", ""},
		{"optional, with neither", "GET /optional/first", nil, "optionalFirst", 0, "", ""},
		{"optional, with both", "GET /optional/first", p.credentials("GET /optional/first", tok), "optionalFirst", 0, "", ""},
		{"several alternatives, one proof", "GET /either", p.credentials("GET /either", p.bound("read audit")), "either", 0, "", ""},
		{"several schemes of the document, one proof", "GET /both", p.credentials("GET /both", p.bound("read audit")), "both", 0, "", ""},
		{"a path that is encoded", "GET /messages/a%20b%2Fc", p.credentials("GET /messages/a%20b%2Fc", tok), "message", 0, "", ""},

		{"DPoP without a token", "GET /any", []string{"Authorization: DPoP", proof()}, "", 400, authz.InvalidRequest, onDPoP + `, error="invalid_request"`},
		{"two words", "GET /any", []string{"Authorization: DPoP " + tok + " " + submitted, proof()}, "", 400, authz.InvalidRequest, onDPoP + `, error="invalid_request"`},
		{"two tokens, joined", "GET /any", []string{"Authorization: DPoP " + tok + "," + tok, proof()}, "", 400, authz.InvalidRequest, onDPoP + `, error="invalid_request"`},
		{"a token in the query, too", "GET /any?access_token=x", []string{"Authorization: DPoP " + tok, proof()}, "", 400, authz.InvalidRequest, onDPoP + `, error="invalid_request"`},
		{"two Authorization headers", "GET /any", []string{"Authorization: DPoP " + tok, "Authorization: Bearer " + plain, proof()}, "", 400, authz.InvalidRequest, onDPoP + `, error="invalid_request"`},

		{"no proof", "GET /any", []string{"Authorization: DPoP " + tok}, "", 401, authz.InvalidProof, badProof},
		{"two proofs", "GET /any", []string{"Authorization: DPoP " + tok, proof(), proof()}, "", 401, authz.InvalidProof, badProof},
		{"two proofs, joined", "GET /any", []string{"Authorization: DPoP " + tok, proof() + ", " + p.proof("GET /any", tok)}, "", 401, authz.InvalidProof, badProof},
		{"an empty proof", "GET /any", []string{"Authorization: DPoP " + tok, "DPoP:"}, "", 401, authz.InvalidProof, badProof},
		{"rubbish for a proof", "GET /any", []string{"Authorization: DPoP " + tok, "DPoP: " + submitted}, "", 401, authz.InvalidProof, badProof},
		{"the token for a proof", "GET /any", []string{"Authorization: DPoP " + tok, "DPoP: " + tok}, "", 401, authz.InvalidProof, badProof},
		{"a proof that was used", "GET /any", []string{"Authorization: DPoP " + tok, used}, "", 401, authz.InvalidProof, badProof},
		{"a proof of another method", "GET /any", []string{"Authorization: DPoP " + tok, of("POST", resource+"/any")}, "", 401, authz.InvalidProof, badProof},
		{"a proof of another path", "GET /any", []string{"Authorization: DPoP " + tok, of("GET", resource+"/one")}, "", 401, authz.InvalidProof, badProof},
		{"a proof of the path decoded", "GET /messages/a%2Fb", []string{"Authorization: DPoP " + tok, of("GET", resource+"/messages/a/b")}, "", 401, authz.InvalidProof, badProof},
		{"a proof of what the Host header says", "GET /any", []string{"Authorization: DPoP " + tok, of("GET", "http://"+p.addr+"/any")}, "", 401, authz.InvalidProof, badProof},
		{"a proof of another token", "GET /any", []string{"Authorization: DPoP " + tok, "DPoP: " + p.proof("GET /any", plain)}, "", 401, authz.InvalidProof, badProof},
		{"an optional operation with a bad proof", "GET /optional/last", []string{"Authorization: DPoP " + tok, "DPoP: x"}, "", 401, authz.InvalidProof, strings.Replace(badProof, `_proof"`, `_proof", scope="read"`, 1)},

		{"a bound token as a bearer token", "GET /any", []string{"Authorization: Bearer " + tok, proof()}, "", 401, authz.InvalidToken, notAsABearer},
		{"a token that is not bound", "GET /any", p.credentials("GET /any", plain), "", 401, authz.InvalidToken, badToken},
		{"a token that is bound to another key", "GET /any", []string{"Authorization: DPoP " + tok, "DPoP: " + stranger.Proof("GET", resource+"/any", tok, nil)}, "", 401, authz.InvalidToken, badToken},
		{"expired", "GET /any", p.credentials("GET /any", p.bound("read", "exp", time.Now().Unix()-60)), "", 401, authz.InvalidToken, badToken},
		{"rubbish for a token", "GET /any", p.credentials("GET /any", submitted), "", 401, authz.InvalidToken, badToken},
		{"a scope is lacking", "GET /all", p.credentials("GET /all", tok), "", 403, authz.InsufficientScope, onDPoP + aboutResource + `, error="insufficient_scope", scope="read write"`},
		{"no such path", "GET /none", p.credentials("GET /none", tok), "", 404, authz.NotFound, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := p.send(t, row.request, "", row.headers...)
			if row.operation == "" {
				got.refused(t, row.status, row.kind, row.challenge)
			} else if got.ran == nil || got.ran.operation != row.operation ||
				got.StatusCode != 204 {
				t.Errorf("got %d %s, want %s to run", got.StatusCode, got.body,
					row.operation)
			} else if strings.Contains(strings.Join(row.headers, " "), tok) &&
				row.operation != "public" && got.ran.principal.Subject() == "" {
				t.Error("the handler has no principal")
			}
			if nonce := got.Header.Values("DPoP-Nonce"); nonce != nil {
				t.Errorf("DPoP-Nonce is %q, but nonces are not required", nonce)
			}
		})
	}

	t.Run("not a byte of a body is read", func(t *testing.T) {
		got := p.send(t, "POST /any", `{"text":"x"}`, "Content-Type: application/json",
			"Authorization: DPoP "+tok, of("GET", resource+"/any"))
		got.refused(t, 401, authz.InvalidProof, badProof)
		if got.read != 0 {
			t.Errorf("%d bytes of the body were read before the proof was refused", got.read)
		}
	})
	t.Run("a handler's refusal", func(t *testing.T) {
		p.answering(func(echo.Context) error {
			return &authz.Error{Kind: authz.InsufficientScope, Scopes: []string{"admin"}}
		})
		defer p.answering(nil)
		p.send(t, "GET /any", "", p.credentials("GET /any", tok)...).problem(t, 403,
			authz.InsufficientScope,
			onDPoP+aboutResource+`, error="insufficient_scope", scope="admin"`)
		p.send(t, "GET /any", "", "Authorization: Bearer "+plain).problem(t, 403,
			authz.InsufficientScope,
			challenge+aboutResource+`, error="insufficient_scope", scope="admin"`)
	})
}

func TestDPoPRequired(t *testing.T) {
	p := startDPoP(t, token.DPoPRequired, nil)
	tok := p.bound("read")
	p.send(t, "GET /any", "").refused(t, 401, authz.MissingToken, whereDPoP)
	p.send(t, "GET /any", "", "Authorization: Bearer "+p.issuer.Mint(nil)).refused(t, 401,
		authz.InvalidToken, whereDPoP+`, error="invalid_token"`)
	p.send(t, "GET /any", "", "Authorization: Bearer "+tok).refused(t, 401, authz.InvalidToken,
		whereDPoP+`, error="invalid_token"`)
	p.send(t, "GET /any", "", "Authorization: Bearer a b").refused(t, 400, authz.InvalidRequest,
		onDPoP+`, error="invalid_request"`)
	if got := p.send(t, "GET /any", "", p.credentials("GET /any", tok)...); got.StatusCode != 204 {
		t.Errorf("got %d %s, want it to pass", got.StatusCode, got.body)
	}
}

// If DPoP is off, it is like any unknown scheme.
func TestDPoPOff(t *testing.T) {
	p := startDPoP(t, token.DPoPOff, nil)
	p.send(t, "GET /any", "", p.credentials("GET /any", p.bound("read"))...).refused(t, 401,
		authz.MissingToken, whereBearer)
	p.send(t, "GET /any", "", "Authorization: Bearer "+p.bound("read")).refused(t, 401,
		authz.InvalidToken, whereBearer+`, error="invalid_token"`)
}

// RFC 9449 §9: a client without a nonce gets one, and continues with it.
func TestDPoPNonces(t *testing.T) {
	p := startDPoP(t, token.DPoPAllowed, func(tokens *token.Config, _ *authz.Config) {
		tokens.Proofs.NonceKey = []byte(strings.Repeat("k", 32))
	})
	tok := p.bound("read")
	with := func(nonce string) []string {
		return []string{"Authorization: DPoP " + tok, "DPoP: " + p.client.Proof("GET",
			resource+"/any", tok, map[string]any{"nonce": nonce})}
	}
	first := p.send(t, "GET /any", "", p.credentials("GET /any", tok)...)
	first.refused(t, 401, authz.UseNonce, whereDPoP+`, error="use_dpop_nonce"`+"\n"+whereBearer)
	nonce := first.Header.Get("DPoP-Nonce")
	if nonce == "" {
		t.Fatal("a refusal for want of a nonce brings none")
	}
	second := p.send(t, "GET /any", "", with(nonce)...)
	if second.StatusCode != 204 || second.Header.Get("DPoP-Nonce") == "" ||
		second.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("with the nonce: %d %q, want 204 with a nonce for the next proof, not to be "+
			"cached", second.StatusCode, second.Header)
	}
	p.send(t, "GET /any", "", with(submitted)...).refused(t, 401, authz.UseNonce,
		whereDPoP+`, error="use_dpop_nonce"`+"\n"+whereBearer)
	if got := p.send(t, "GET /any", "", "Authorization: DPoP "+tok,
		"DPoP: x"); got.Header.Get("DPoP-Nonce") == "" {
		t.Error("another refusal of a client that uses DPoP brings no nonce")
	}
	for name, headers := range map[string][]string{"nobody": nil,
		"a bearer": {"Authorization: Bearer " + p.issuer.Mint(nil)}} {
		if got := p.send(t, "GET /any", "", headers...); got.Header.Get("DPoP-Nonce") != "" {
			t.Errorf("%s gets a nonce", name)
		}
	}
	p.answering(func(c echo.Context) error {
		c.Response().Header().Set("Cache-Control", "private, no-cache")
		return c.NoContent(http.StatusNoContent)
	})
	if got := p.send(t, "GET /any", "",
		with(nonce)...).Header.Get("Cache-Control"); got != "private, no-cache" {
		t.Errorf("Cache-Control is %q, want the handler's own", got)
	}
}

type brokenStore struct{}

func (brokenStore) Use(context.Context, string, string, time.Time) (bool, error) {
	return true, errors.New("the store is down, token: eyJ")
}

func TestDPoPReplayStoreDown(t *testing.T) {
	p := startDPoP(t, token.DPoPAllowed, func(tokens *token.Config, _ *authz.Config) {
		tokens.Proofs.Replays = brokenStore{}
	})
	p.send(t, "GET /any", "", p.credentials("GET /any", p.bound("read"))...).refused(t, 503,
		authz.ReplaysUnavailable, "")
	if got := p.send(t, "GET /any", "",
		"Authorization: Bearer "+p.issuer.Mint(nil)); got.StatusCode != 204 {
		t.Errorf("a bearer token gets %d: the store is none of its business", got.StatusCode)
	}
}

// A subject that floods gets 429 with Retry-After, and others are served.
func TestDPoPLimit(t *testing.T) {
	p := startDPoP(t, token.DPoPAllowed, func(tokens *token.Config, config *authz.Config) {
		began := time.Now()
		tokens.Now = func() time.Time { return began } // so that no minute ends
		tokens.Proofs.Limit = 2
	})
	send := func(tok string) *answered {
		return p.send(t, "GET /any", "", p.credentials("GET /any", tok)...)
	}
	flood := p.bound("read")
	for range 2 {
		if got := send(flood); got.StatusCode != 204 {
			t.Fatalf("within the limit: %d %s", got.StatusCode, got.body)
		}
	}
	got := send(flood)
	if retry, _ := strconv.Atoi(got.Header.Get("Retry-After")); retry < 1 || retry > 60 {
		t.Errorf("Retry-After is %q, want the rest of a minute", got.Header.Get("Retry-After"))
	}
	got.refused(t, 429, authz.RateLimited, "")
	quiet := p.issuer.Mint(map[string]any{
		"sub": "quiet", "cnf": map[string]any{"jkt": p.client.Thumbprint()},
	})
	if got := send(quiet); got.StatusCode != 204 {
		t.Errorf("another subject: %d %s", got.StatusCode, got.body)
	}
}

func TestDPoPExplains(t *testing.T) {
	p := startDPoP(t, token.DPoPAllowed, func(_ *token.Config, config *authz.Config) {
		config.InsecureExplain = true
	})
	tok := p.bound("read")
	got := p.send(t, "GET /any", "", "Authorization: DPoP "+tok, "DPoP: "+p.client.Proof("GET", "http://"+p.addr+"/any", tok, nil))
	if want := `htu is a URL of \"http://` + p.addr + `\", expected \"https://api.example\"`; !strings.Contains(string(got.body), want) {
		t.Errorf("the problem is %s: it does not say %s", got.body, want)
	}
}

// The URL of a request is derived from Resource, with or without the path of the server.
func TestDPoPRequestURL(t *testing.T) {
	for _, test := range []struct{ resource, basePath, public, path, htu string }{
		{"https://api.example", "", "", "/any", "https://api.example/any"},
		{"https://api.example/", "", "", "/any", "https://api.example/any"},
		{"https://api.example/v1", "", "", "/any", "https://api.example/v1/any"}, // a proxy takes /v1 away
		{"https://api.example/v1/", "", "", "/any", "https://api.example/v1/any"},
		{"https://api.example/v1", "/v1", "", "/v1/any", "https://api.example/v1/any"},
		{"https://api.example", "/v1", "", "/v1/any", "https://api.example/v1/any"},

		{"https://api.example", "", "/v1", "/any", "https://api.example/v1/any"}, // the same proxy, named
		{"https://api.example/v1", "", "/v1", "/any", "https://api.example/v1/any"},
		{"https://api.example/v1", "/orders", "/v1", "/orders/any", "https://api.example/v1/any"},
		{"https://api.example", "/orders", "/", "/orders/any", "https://api.example/any"},
	} {
		p := startDPoP(t, token.DPoPAllowed, func(_ *token.Config, config *authz.Config) {
			config.Resource, config.BasePath, config.PublicPath = test.resource, test.basePath,
				test.public
		})
		tok := p.bound("read")
		got := p.send(t, "GET "+test.path, "", "Authorization: DPoP "+tok,
			"DPoP: "+p.client.Proof("GET", test.htu, tok, nil))
		if got.StatusCode != 204 {
			t.Errorf("%+v: a request with that proof gets %d %s", test, got.StatusCode, got.body)
		}
	}
}

func TestDPoPNeedsResource(t *testing.T) {
	verifier, err := token.NewVerifier(t.Context(), token.Config{Issuers: []token.Issuer{{URL: "https://localhost/", Audiences: []string{"x"}, DPoP: token.DPoPAllowed}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authz.New(authz.Config{Document: load(t, guarded),
		Verifier: verifier}); err == nil ||
		!strings.Contains(err.Error(),
			"Config.Resource is empty: a DPoP proof names the URL of its request") {
		t.Errorf("New returns %v, want an error that names Resource", err)
	}
}

func TestDPoPInMetadata(t *testing.T) {
	for policy, want := range map[token.DPoPPolicy]string{
		token.DPoPOff:      `{"bearer_methods_supported":["header"]}`,
		token.DPoPAllowed:  `{"bearer_methods_supported":["header"],"dpop_signing_alg_values_supported":["ES256","EdDSA","PS256","RS256"]}`,
		token.DPoPRequired: `{"bearer_methods_supported":[],"dpop_bound_access_tokens_required":true,"dpop_signing_alg_values_supported":["ES256","EdDSA","PS256","RS256"]}`,
	} {
		p := startDPoP(t, policy, nil)
		w := httptest.NewRecorder()
		p.gate.ServeMetadata(w, httptest.NewRequest(http.MethodGet,
			"/.well-known/oauth-protected-resource", nil))
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for name := range got {
			if !strings.HasPrefix(name, "dpop") && !strings.HasPrefix(name, "bearer") {
				delete(got, name)
			}
		}
		if text, _ := json.Marshal(got); string(text) != want {
			t.Errorf("policy %s: the metadata says %s, want %s", policy, text, want)
		}
	}
}

// A gate whose verifier is wrapped by one for bearer tokens only offers only those, and refuses
// bound tokens.
func TestDPoPIsNotOfferedByAVerifierWithoutIt(t *testing.T) {
	p := startDPoP(t, token.DPoPAllowed, nil)
	bare := start(t, guarded, func(config *authz.Config) {
		config.Verifier = struct{ authz.Verifier }{config.Verifier}
	})
	bare.send(t, "GET /any", "", p.credentials("GET /any", p.bound("read"))...).refused(t, 401,
		authz.MissingToken, challenge)
}

// presenting is a verifier that accepts opaque tokens, and records what it gets.
type presenting struct {
	offer token.Offer
	got   token.Presented
}

func (v *presenting) Verify(ctx context.Context, t string) (*token.Principal, error) {
	return v.VerifyPresented(ctx, token.Presented{Token: t})
}

func (v *presenting) VerifyPresented(
	_ context.Context, presented token.Presented,
) (*token.Principal, error) {
	v.got = presented
	return nil, &token.Error{Code: token.Inactive}
}

func (v *presenting) Offer() token.Offer { return v.offer }

// TestClientOfAToken: the verifier gets the address of the client if the token can cause a request
// to an issuer, so that one client cannot use up the limit of these.
func TestClientOfAToken(t *testing.T) {
	opaque, resolve := token.Offer{Opaque: true}, token.Offer{Resolve: true}
	for _, test := range []struct {
		offer                 token.Offer
		token, remote, client string
	}{
		{opaque, "opaque", "192.0.2.1:1234", "192.0.2.1"},
		{opaque, "opaque.of.four.parts", "[2001:db8::1]:1234", "2001:db8::/48"},
		{opaque, "a.b.c", "192.0.2.1:1234", ""},
		{resolve, "a.b.c", "192.0.2.1:1234", "192.0.2.1"},
		{token.Offer{}, "opaque", "192.0.2.1:1234", ""},
	} {
		v := &presenting{offer: test.offer}
		gate, err := authz.New(authz.Config{Verifier: v, Document: load(t, `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /: {get: {security: [{bearer: []}], responses: {"204": {description: Done.}}}}
components: {securitySchemes: {bearer: {type: http, scheme: bearer}}}
`)})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = test.remote
		r.Header.Set("Authorization", "Bearer "+test.token)
		if _, err := gate.Check(r, "/", nil); err == nil {
			t.Fatal("accepted")
		}
		if v.got.Token != test.token || v.got.Client != test.client {
			t.Errorf("%+v: the verifier got %+v", test, v.got)
		}
	}
}
