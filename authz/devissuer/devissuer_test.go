package devissuer_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha512" // verify hashes with crypto.SHA384 and crypto.SHA512
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

const (
	issuerURL = "http://localhost:3010/"
	audience  = "https://quickstart.example/api"
	// secret has what form encoding must carry: & = % + : and a space.
	secret = "s3cr&t=%2B+: word"
)

var now = time.Unix(1_795_000_000, 0)

// config has a client for each kind of scopes. The algorithm is EdDSA, because its keys are
// generated quickly.
func config() devissuer.Config {
	return devissuer.Config{
		URL:       issuerURL,
		Audiences: []string{audience, "urn:other"},
		Scopes:    []string{"read:messages", "write:messages", "admin"},
		Clients: []devissuer.Client{
			{ID: "reader", Secret: secret, Scopes: []string{"read:messages", "write:messages"}},
			{ID: "nobody", Secret: "nobody's"},
			{ID: "colon:id", Secret: "colon's"},
		},
		Algorithm: "EdDSA",
		Now:       func() time.Time { return now },
	}
}

func newIssuer(t testing.TB) *devissuer.Issuer {
	t.Helper()
	issuer, err := devissuer.New(config())
	if err != nil {
		t.Fatalf("New(config()): %v", err)
	}
	return issuer
}

func start(t testing.TB) *devissuer.Server {
	t.Helper()
	cfg := config()
	cfg.URL = ""
	server, err := devissuer.Start(cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(server.Close)
	return server
}

func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	return serve(h, httptest.NewRequest("GET", issuerURL+path, nil))
}

// good returns a valid token request, with changes.
func good(changes ...string) url.Values {
	form := url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {"reader"},
		"client_secret": {secret},
		"audience":      {audience},
	}
	for change := range slices.Chunk(changes, 2) {
		form.Set(change[0], change[1])
	}
	return form
}

func without(form url.Values, names ...string) url.Values {
	for _, name := range names {
		form.Del(name)
	}
	return form
}

func post(contentType, body string, header ...string) *http.Request {
	r := httptest.NewRequest("POST", issuerURL+"oauth/token", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for pair := range slices.Chunk(header, 2) {
		r.Header.Add(pair[0], pair[1])
	}
	return r
}

const formType, jsonType = "application/x-www-form-urlencoded", "application/json"

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+
		url.QueryEscape(secret)))
}

func object(form url.Values) string {
	members := make(map[string]string)
	for name := range form {
		members[name] = form.Get(name)
	}
	b, _ := json.Marshal(members)
	return string(b)
}

func TestTokenEndpointGrants(t *testing.T) {
	issuer := newIssuer(t)
	inHeader := without(good(), "client_id", "client_secret")
	for _, test := range []struct {
		name     string
		request  *http.Request
		clientID string
		audience string
		scope    string
	}{
		{"form, all scopes of the client", post(formType, good().Encode()), "reader", audience, "read:messages write:messages"},
		{"form with charset", post(formType+"; charset=utf-8", good().Encode()), "reader", audience, "read:messages write:messages"},
		{"JSON", post(jsonType, object(good())), "reader", audience, "read:messages write:messages"},
		{"JSON with a space after it", post(jsonType, object(good())+" \n"), "reader", audience, "read:messages write:messages"},
		{"Basic", post(formType, inHeader.Encode(), "Authorization", basic("reader", secret)), "reader", audience, "read:messages write:messages"},
		{"Basic, lower case", post(formType, inHeader.Encode(), "Authorization", "basic"+basic("reader", secret)[5:]), "reader", audience, "read:messages write:messages"},
		{"Basic, encoded colon in the id", post(formType, inHeader.Encode(), "Authorization", basic("colon:id", "colon's")), "colon:id", audience, ""},
		{"Basic with JSON", post(jsonType, object(inHeader), "Authorization", basic("reader", secret)), "reader", audience, "read:messages write:messages"},
		{"Basic and its own client_id in the body", post(formType, without(good(), "client_secret").Encode(), "Authorization", basic("reader", secret)), "reader", audience, "read:messages write:messages"},
		{"one scope", post(formType, good("scope", "write:messages").Encode()), "reader", audience, "write:messages"},
		{"scopes in the order asked", post(formType, good("scope", "write:messages read:messages").Encode()), "reader", audience, "write:messages read:messages"},
		{"a scope twice", post(formType, good("scope", "read:messages read:messages").Encode()), "reader", audience, "read:messages"},
		{"scope without a value is omitted (§3.2)", post(formType, good("scope", "").Encode()), "reader", audience, "read:messages write:messages"},
		{"a client that may have none", post(formType, good("client_id", "nobody", "client_secret", "nobody's").Encode()), "nobody", audience, ""},
		{"the second audience", post(formType, good("audience", "urn:other").Encode()), "reader", "urn:other", "read:messages write:messages"},
		{"an unknown parameter is ignored (§3.2)", post(formType, good("sub", "root").Encode()), "reader", audience, "read:messages write:messages"},
		{"claims and headers are never input", post(jsonType, object(good("iss", "x", "exp", "9", "alg", "none", "kid", "x"))), "reader", audience, "read:messages write:messages"},
		{"body of exactly 64 KiB", post(formType, padded(64<<10)), "reader", audience, "read:messages write:messages"},
		{"from a page on this machine", post(formType, good().Encode(), "Origin", "http://127.0.0.1:8080"), "reader", audience, "read:messages write:messages"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := serve(issuer, test.request)
			if w.Code != http.StatusOK {
				t.Fatalf("status %d, want 200; body %s", w.Code, w.Body)
			}
			for name, want := range map[string]string{"Content-Type": jsonType,
				"Cache-Control": "no-store", "Pragma": "no-cache"} {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s is %q, want %q (RFC 6749 §5.1)", name, got, want)
				}
			}
			var answer map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatalf("the answer is not JSON: %v", err)
			}
			token, _ := answer["access_token"].(string)
			header, claims, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(), token)
			if err != nil {
				t.Fatalf("the token does not verify against the published keys: %v", err)
			}
			kid, _ := issuer.CurrentKey()
			wantEqual(t, "header", header, map[string]any{"alg": "EdDSA", "kid": kid,
				"typ": "at+jwt"})

			if jti, _ := claims["jti"].(string); len(jti) < 16 {
				t.Errorf("jti is %q, want something unguessable", jti)
			}
			delete(claims, "jti")
			wantAnswer := map[string]any{"access_token": token, "token_type": "Bearer",
				"expires_in": 3600.0}
			wantClaims := map[string]any{
				"iss": issuerURL, "sub": test.clientID + "@clients", "client_id": test.clientID, "aud": test.audience,
				"iat": float64(now.Unix()), "exp": float64(now.Unix() + 3600),
			}
			if test.scope != "" {
				wantAnswer["scope"], wantClaims["scope"] = test.scope, test.scope
			}
			wantEqual(t, "answer", answer, wantAnswer)
			wantEqual(t, "claims", claims, wantClaims)
		})
	}
}

// padded returns a valid form of that many bytes.
func padded(size int) string {
	form := good().Encode() + "&padding="
	return form + strings.Repeat("x", size-len(form))
}

func TestTokenEndpointRefusals(t *testing.T) {
	issuer := newIssuer(t)
	form := func(changes ...string) *http.Request {
		return post(formType, good(changes...).Encode())
	}
	inHeader := without(good(), "client_id", "client_secret").Encode()
	const none = "" // no challenge
	challenge := `Basic realm="development issuer"`
	for _, test := range []struct {
		name      string
		request   *http.Request
		status    int
		code      string
		says      string // part of error_description
		challenge string
	}{
		{"no body", post(formType, ""), 400, "invalid_client", "client_id or client_secret is missing", none},
		{"no client_id", post(formType, without(good(), "client_id").Encode()), 400, "invalid_client", "is missing: send both", none},
		{"no client_secret", post(formType, without(good(), "client_secret").Encode()), 400, "invalid_client", "is missing: send both", none},
		{"unknown client", form("client_id", "stranger"), 400, "invalid_client", "client_id is unknown or client_secret is incorrect", none},
		{"wrong secret", form("client_secret", secret+"x"), 400, "invalid_client", "client_secret is incorrect", none},
		{"a prefix of the secret", form("client_secret", secret[:3]), 400, "invalid_client", "client_secret is incorrect", none},
		{"another client's secret", form("client_secret", "nobody's"), 400, "invalid_client", "client_secret is incorrect", none},
		{"client_id in another case", form("client_id", "READER"), 400, "invalid_client", "client_id is unknown", none},
		{"Basic, wrong secret", post(formType, inHeader, "Authorization", basic("reader", "guess")), 401, "invalid_client", "client_secret is incorrect", challenge},
		{"Basic, secret not form-encoded", post(formType, inHeader, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("reader:"+secret))), 401, "invalid_client", "client_secret is incorrect", challenge},
		{"Basic, bad escape", post(formType, inHeader, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("reader:%zz"))), 401, "invalid_client", "not HTTP Basic", challenge},
		{"Basic, not base64", post(formType, inHeader, "Authorization", "Basic !!"), 401, "invalid_client", "not HTTP Basic", challenge},
		{"Basic, no colon", post(formType, inHeader, "Authorization", "Basic cmVhZGVy"), 401, "invalid_client", "not HTTP Basic", challenge},
		{"another scheme", post(formType, inHeader, "Authorization", "Bearer abc"), 401, "invalid_client", "not HTTP Basic", challenge},
		{"another scheme and a client_id", post(formType, without(good(), "client_secret").Encode(), "Authorization", "Bearer abc"), 401, "invalid_client", "not HTTP Basic", challenge},
		{"Basic and a secret in the body", post(formType, good().Encode(), "Authorization", basic("reader", secret)), 400, "invalid_request", "authenticates twice", none},
		{"Basic and another client_id in the body", post(formType, without(good("client_id", "nobody"), "client_secret").Encode(), "Authorization", basic("reader", secret)), 400, "invalid_request", "differs from the Authorization header", none},
		{"two Authorization headers", post(formType, inHeader, "Authorization", basic("reader", secret), "Authorization", basic("reader", secret)), 400, "invalid_request", "more than one Authorization", none},

		{"no grant_type", post(formType, without(good(), "grant_type").Encode()), 400, "invalid_request", "grant_type is missing", none},
		{"another grant_type", form("grant_type", "password"), 400, "unsupported_grant_type", "must be client_credentials", none},
		{"grant_type in another case", form("grant_type", "Client_Credentials"), 400, "unsupported_grant_type", "must be client_credentials", none},
		{"no audience", post(formType, without(good(), "audience").Encode()), 400, "invalid_request", "audience is missing: this issuer knows " + audience + ", urn:other", none},
		{"audience without a value", form("audience", ""), 400, "invalid_request", "audience is missing", none},
		{"unknown resource", post(formType, without(good("resource", "urn:unknown"), "audience").Encode()), 400, "invalid_target", "audience is unknown", none},
		{"audience and resource differ", post(formType, good("resource", "urn:other").Encode()), 400, "invalid_target", "audience and resource differ", none},
		{"unknown audience", form("audience", audience+"/"), 400, "invalid_target", "audience is unknown: this issuer knows " + audience, none},
		{"two audiences in one", form("audience", audience+" urn:other"), 400, "invalid_target", "audience is unknown", none},
		{"unknown scope", form("scope", "read:secrets"), 400, "invalid_scope", "a requested scope is unknown (known: read:messages write:messages admin", none},
		{"a known and an unknown scope", form("scope", "read:messages read:secrets"), 400, "invalid_scope", "scope is unknown", none},
		{"scope in another case", form("scope", "Read:messages"), 400, "invalid_scope", "scope is unknown", none},
		{"prefix of a scope", form("scope", "read:"), 400, "invalid_scope", "scope is unknown", none},
		{"a scope not for the client", form("scope", "read:messages admin"), 400, "invalid_scope", "not allowed for this client (allowed: read:messages write:messages)", none},
		{"any scope, for a client that may have none", form("client_id", "nobody", "client_secret", "nobody's", "scope", "admin"), 400, "invalid_scope", "(allowed: none)", none},
		{"two spaces between scopes", form("scope", "read:messages  write:messages"), 400, "invalid_scope", "malformed", none},
		{"a space before the scope", form("scope", " read:messages"), 400, "invalid_scope", "malformed", none},
		{"nothing but a space", form("scope", " "), 400, "invalid_scope", "malformed", none},
		{"a tab between scopes", form("scope", "read:messages\twrite:messages"), 400, "invalid_scope", "malformed", none},
		{"a quote in the scope", form("scope", `read:"messages"`), 400, "invalid_scope", "malformed", none},

		{"repeated parameter", post(formType, good().Encode()+"&audience=urn:other"), 400, "invalid_request", "repeated", none},
		{"repeated with the same value", post(formType, good().Encode()+"&grant_type=client_credentials"), 400, "invalid_request", "repeated", none},
		{"repeated without a value", post(formType, good().Encode()+"&scope=&scope="), 400, "invalid_request", "repeated", none},
		{"repeated JSON member", post(jsonType, `{"audience":"urn:other",`+object(good())[1:]), 400, "invalid_request", "repeated", none},
		{"repeated JSON member, escaped", post(jsonType, `{"audienc\u0065":"urn:other",`+object(good())[1:]), 400, "invalid_request", "repeated", none},
		{"parameters in the query", func() *http.Request {
			r := post(formType, good().Encode())
			r.URL.RawQuery = "scope=admin"
			return r
		}(), 400, "invalid_request", "has a query", none},
		{"no Content-Type", post("", good().Encode()), 400, "invalid_request", "Content-Type must be", none},
		{"another Content-Type", post("text/plain", good().Encode()), 400, "invalid_request", "Content-Type must be", none},
		{"multipart", post("multipart/form-data; boundary=x", "--x--"), 400, "invalid_request", "Content-Type must be", none},
		{"form with a bad escape", post(formType, good().Encode()+"&x=%zz"), 400, "invalid_request", "not a well-formed form", none},
		{"form with a semicolon", post(formType, good().Encode()+";x=1"), 400, "invalid_request", "not a well-formed form", none},
		{"JSON cut short", post(jsonType, strings.TrimSuffix(object(good()), "}")), 400, "invalid_request", "not well-formed JSON", none},
		{"JSON and more", post(jsonType, object(good())+"{}"), 400, "invalid_request", "not well-formed JSON", none},
		{"JSON array", post(jsonType, "["+object(good())+"]"), 400, "invalid_request", "not a JSON object", none},
		{"JSON null", post(jsonType, "null"), 400, "invalid_request", "not a JSON object", none},
		{"JSON audience as an array", post(jsonType, strings.Replace(object(good()), `"`+audience+`"`, `["`+audience+`"]`, 1)), 400, "invalid_request", "must be a string", none},
		{"JSON member null", post(jsonType, `{"scope":null,`+object(good())[1:]), 400, "invalid_request", "must be a string", none},
		{"JSON names in another case", post(jsonType, strings.Replace(object(good()), `"client_id"`, `"Client_ID"`, 1)), 400, "invalid_client", "is missing: send both", none},
		{"a body over the limit", post(formType, padded(64<<10+1)), 413, "invalid_request", "larger than 64 KiB", none},
		{"a body that breaks off", httptest.NewRequest("POST", issuerURL+"oauth/token", io.MultiReader(strings.NewReader("a="), broken{})), 400, "invalid_request", "could not read", none},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := serve(issuer, test.request)
			var answer map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatalf("status %d, and a body that is not a JSON object of strings: %s", w.Code,
					w.Body)
			}
			if w.Code != test.status || answer["error"] != test.code {
				t.Errorf("status %d, error %q, want %d, %q (%s)", w.Code, answer["error"],
					test.status, test.code, answer["error_description"])
			}
			if !strings.Contains(answer["error_description"], test.says) {
				t.Errorf("error_description is %q, want it to contain %q", answer["error_description"],
					test.says)
			}
			if got := w.Header().Get("WWW-Authenticate"); got != test.challenge {
				t.Errorf("WWW-Authenticate is %q, want %q", got, test.challenge)
			}
			wantRefusalShape(t, w)
		})
	}
}

// wantRefusalShape checks what all errors have in common (RFC 6749 §5.2).
func wantRefusalShape(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q, want no-store", got)
	}
	if got := w.Header().Get("Content-Type"); got != jsonType {
		t.Errorf("Content-Type is %q, want %q", got, jsonType)
	}
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("the body is not a JSON object: %s", w.Body)
	}
	if names := slices.Sorted(maps.Keys(answer)); !slices.Equal(names,
		[]string{"error", "error_description"}) {
		t.Errorf("members are %q, want only error and error_description", names)
	}
	description, _ := answer["error_description"].(string)
	for _, c := range description {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			t.Errorf("error_description %q has %q, outside the set of §5.2", description, c)
		}
	}
	for _, s := range []string{secret, "nobody's", "colon's"} {
		if strings.Contains(description, s) {
			t.Errorf("error_description %q shows a secret", description)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the client hung up") }

// Responses contain no parameter, because it can be a secret in the wrong field.
func TestTokenEndpointEchoesNothing(t *testing.T) {
	issuer := newIssuer(t)
	for _, field := range []string{"grant_type", "client_id", "client_secret", "audience", "scope",
		"pasted-here-by-mistake"} {
		for _, request := range []*http.Request{
			post(formType, good(field, "pasted-here-by-mistake").Encode()),
			post(jsonType, object(good(field, "pasted-here-by-mistake"))),
			post(formType, good().Encode()+"&"+field+"=pasted-here-by-mistake&"+field+"=x"),
		} {
			if w := serve(issuer, request); w.Code != http.StatusOK &&
				strings.Contains(w.Body.String(), "pasted") {
				t.Errorf("%s: the refusal repeats what was sent: %s", field, w.Body)
			}
		}
	}
}

func TestDescriptionOfAnyConfiguredAudience(t *testing.T) {
	cfg := config()
	cfg.Audiences = []string{"say \"ä\\\"\x01"}
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusalShape(t, serve(issuer, post(formType, good().Encode())))
}

func TestTokenEndpointLimitsTheBody(t *testing.T) {
	body := &endless{}
	r := httptest.NewRequest("POST", issuerURL+"oauth/token", body)
	r.Header.Set("Content-Type", formType)
	if w := serve(newIssuer(t), r); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", w.Code)
	}
	if body.read > 66<<10 {
		t.Errorf("%d bytes of the body were read, want about 64 KiB", body.read)
	}
}

type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	p = p[:min(len(p), 1<<10)]
	e.read += len(p)
	return copy(p, bytes.Repeat([]byte("x"), len(p))), nil
}

func TestPathsAndMethods(t *testing.T) {
	for _, base := range []string{"http://localhost:3010", "http://localhost:3010/", "https://127.0.0.1/tenant", "http://[::1]:8080/a/b/"} {
		cfg := config()
		cfg.URL = base
		issuer, err := devissuer.New(cfg)
		if err != nil {
			t.Fatalf("New with URL %q: %v", base, err)
		}
		root := strings.TrimSuffix(base, "/")
		for _, test := range []struct {
			method, url string
			status      int
			allow       string
		}{
			{"POST", root + "/oauth/token", 400, ""},
			{"GET", root + "/oauth/token", 405, "POST"},
			{"HEAD", root + "/oauth/token", 405, "POST"},
			{"OPTIONS", root + "/oauth/token", 405, "POST"},
			{"GET", root + "/.well-known/openid-configuration", 200, ""},
			{"HEAD", root + "/.well-known/openid-configuration", 200, ""},
			{"POST", root + "/.well-known/openid-configuration", 405, "GET, HEAD"},
			{"GET", root + "/.well-known/jwks.json", 200, ""},
			{"DELETE", root + "/.well-known/jwks.json", 405, "GET, HEAD"},
			{"GET", root + "/", 404, ""},
			{"POST", root + "/oauth/token/", 404, ""},
			{"GET", root + "/.well-known/jwks.json/..", 404, ""},
			{"GET", root + "/x/.well-known/jwks.json", 404, ""},
		} {
			w := serve(issuer, httptest.NewRequest(test.method, test.url, nil))
			if w.Code != test.status || w.Header().Get("Allow") != test.allow {
				t.Errorf("%s %s: %d, Allow %q, want %d, %q", test.method, test.url, w.Code,
					w.Header().Get("Allow"), test.status, test.allow)
			}
			r := httptest.NewRequest(test.method, test.url, nil)
			if own := test.status != 404; issuer.Serves(r.URL.Path) != own {
				t.Errorf("Serves(%q) is %v, want %v, as ServeHTTP does", r.URL.Path, !own, own)
			}
		}
	}
}

func TestDiscoveryAndKeySet(t *testing.T) {
	cfg := config()
	cfg.URL = "http://localhost:3010/tenant"
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	issuer.Rotate("ES256")
	w := get(issuer, "tenant/.well-known/openid-configuration")
	var metadata map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &metadata); err != nil {
		t.Fatalf("discovery is not JSON: %v: %s", err, w.Body)
	}
	wantEqual(t, "discovery", metadata, map[string]any{
		"issuer":                 "http://localhost:3010/tenant",
		"token_endpoint":         "http://localhost:3010/tenant/oauth/token",
		"introspection_endpoint": "http://localhost:3010/tenant/oauth/introspect",
		"introspection_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post"},
		"revocation_endpoint":                           "http://localhost:3010/tenant/oauth/revoke",
		"revocation_endpoint_auth_methods_supported":    []any{"client_secret_basic", "client_secret_post", "none"},
		"jwks_uri":                              "http://localhost:3010/tenant/.well-known/jwks.json",
		"grant_types_supported":                 []any{"client_credentials"},
		"token_endpoint_auth_methods_supported": []any{"client_secret_basic", "client_secret_post"},
		"scopes_supported":                      []any{"read:messages", "write:messages", "admin"},
		"response_types_supported":              []any{},
		"subject_types_supported":               []any{"public"},
		"id_token_signing_alg_values_supported": []any{"ES256", "EdDSA"},
		"dpop_signing_alg_values_supported":     []any{"ES256", "EdDSA", "PS256", "RS256"},
	})
	wantHeaders(t, w, "application/json", "public, max-age=300")

	w = get(issuer, "tenant/.well-known/jwks.json")
	wantHeaders(t, w, "application/jwk-set+json", "public, max-age=300")
	for _, member := range []string{`"d"`, `"p"`, `"q"`, `"k"`} {
		if strings.Contains(w.Body.String(), member) {
			t.Errorf("the key set has a private member %s: %s", member, w.Body)
		}
	}

	cfg.Scopes, cfg.Clients = nil, nil
	if issuer, err = devissuer.New(cfg); err != nil {
		t.Fatal(err)
	}
	if body := get(issuer,
		"tenant/.well-known/openid-configuration").Body.String(); !strings.Contains(body,
		`"scopes_supported":[]`) {
		t.Errorf("without scopes, scopes_supported must be [], not null: %s", body)
	}
}

func wantHeaders(t *testing.T, w *httptest.ResponseRecorder, contentType, cacheControl string) {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != contentType {
		t.Errorf("Content-Type is %q, want %q", got, contentType)
	}
	if got := w.Header().Get("Cache-Control"); got != cacheControl {
		t.Errorf("Cache-Control is %q, want %q", got, cacheControl)
	}
}

func TestOnlyThisMachine(t *testing.T) {
	issuer := newIssuer(t)
	for _, test := range []struct {
		host, origin string
		status       int
	}{
		{"localhost:3010", "", 200},
		{"LOCALHOST", "", 200},
		{"127.0.0.1:3010", "", 200},
		{"127.8.9.10", "", 200},
		{"[::1]:3010", "", 200},
		{"[::1]", "", 200},
		{"", "", 403},
		{"attacker.example", "", 403},
		{"attacker.example:3010", "", 403},
		{"localhost.attacker.example:3010", "", 403},
		{"127.0.0.1.attacker.example:3010", "", 403},
		{"attacker.example:127.0.0.1", "", 403},
		{"localhost@attacker.example", "", 403},
		{"0.0.0.0:3010", "", 403},
		{"192.168.0.2:3010", "", 403},
		{"[::1]attacker.example", "", 403},
		{"localhost:3010", "http://localhost:3010", 200},
		{"localhost:3010", "http://127.0.0.1:8080", 200},
		{"localhost:3010", "http://[::1]:8080", 200},
		{"localhost:3010", "https://attacker.example", 403},
		{"localhost:3010", "http://localhost.attacker.example", 403},
		{"localhost:3010", "http://localhost@attacker.example", 403},
		{"localhost:3010", "null", 403},
		{"localhost:3010", "://", 403},
	} {
		for _, path := range []string{"oauth/token", ".well-known/openid-configuration",
			".well-known/jwks.json"} {
			r := httptest.NewRequest("GET", issuerURL+path, nil)
			if path == "oauth/token" {
				r = post(formType, good().Encode())
			}
			r.Host = test.host
			if test.origin != "" {
				r.Header.Set("Origin", test.origin)
			}
			if w := serve(issuer, r); w.Code != test.status {
				t.Errorf("Host %q, Origin %q, /%s: status %d, want %d", test.host, test.origin,
					path, w.Code, test.status)
			}
		}
	}
	r := httptest.NewRequest("GET", issuerURL+".well-known/jwks.json", nil)
	r.Header["Origin"] = []string{"http://localhost", "https://attacker.example"}
	if w := serve(issuer, r); w.Code != http.StatusForbidden {
		t.Errorf("a second, foreign Origin: status %d, want 403", w.Code)
	}
}

func TestEveryAlgorithm(t *testing.T) {
	cfg := config()
	cfg.Algorithm = "" // the default
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	check := func(alg, kid string) {
		t.Helper()
		for range 8 { // so that some r or s of ES512 begins with a zero byte
			token := issuer.Mint(nil)
			header, claims, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(), token)
			if err != nil {
				t.Fatalf("%s: the token does not verify: %v", alg, err)
			}
			if header["alg"] != alg || header["kid"] != kid || claims["iss"] != issuerURL {
				t.Errorf("%s: header %v and iss %v, want alg %s, kid %s, iss %s", alg, header,
					claims["iss"], alg, kid, issuerURL)
			}
			// verify must be able to fail.
			forged := strings.Replace(token, ".", "."+segment([]byte(`{"admin":true}`)), 1)
			if _, _, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(),
				forged); err == nil {
				t.Errorf("%s: verify, of this test, accepts a changed payload", alg)
			}
		}
	}
	kid, _ := issuer.CurrentKey()
	check("RS256", kid)
	for _, alg := range []string{"RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
		"ES384", "ES512", "EdDSA"} {
		check(alg, issuer.Rotate(alg))
	}
	if kid := issuer.Rotate(""); kid != "" {
		check("EdDSA", kid)
	}
}

// A coordinate with a leading zero byte has full length (RFC 7518 §6.2.1.2). The first of the 66
// bytes of P-521 has one bit, so one of ten keys has such a coordinate.
func TestCoordinatesAreFullLength(t *testing.T) {
	issuer := newIssuer(t)
	for range 10 {
		issuer.Rotate("ES512")
	}
	for _, key := range keySet(t, issuer) {
		for _, member := range []string{"x", "y"} {
			encoded, _ := key[member].(string)
			if b, err := base64.RawURLEncoding.DecodeString(encoded); key["alg"] == "ES512" &&
				(err != nil || len(b) != 66) {
				t.Errorf("member %s has %d bytes (%v), want 66: %v", member, len(b), err, key)
			}
		}
	}
}

func TestMint(t *testing.T) {
	issuer := newIssuer(t)
	_, claims, err := decode(issuer.Mint(map[string]any{"aud": []string{"a", "b"},
		"exp": now.Unix() - 1, "sub": nil, "jti": nil, "scope": "x",
		"deep": map[string]any{"n": 1}}))
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "claims", claims, map[string]any{
		"iss": issuerURL, "client_id": "reader", "iat": float64(now.Unix()), "exp": float64(now.Unix() - 1),
		"aud": []any{"a", "b"}, "scope": "x", "deep": map[string]any{"n": 1.0},
	})
	_, first, _ := decode(issuer.Mint(nil))
	_, second, _ := decode(issuer.Mint(nil))
	if first["jti"] == second["jti"] {
		t.Errorf("two tokens share the jti %v", first["jti"])
	}
	if first["sub"] != "reader@clients" || first["aud"] != audience {
		t.Errorf("sub %v, aud %v, want those of the first client and the first audience",
			first["sub"], first["aud"])
	}

	cfg := config()
	cfg.Clients, cfg.TokenLifetime, cfg.Now = nil, time.Minute, nil
	if issuer, err = devissuer.New(cfg); err != nil {
		t.Fatalf("an issuer without clients is for minting by hand, but: %v", err)
	}
	_, claims, _ = decode(issuer.Mint(nil))
	iat, _ := claims["iat"].(float64)
	if age := time.Since(time.Unix(int64(iat), 0)); age < -time.Second || age > time.Minute {
		t.Errorf("iat is %v ago, want now, since Now is nil", age)
	}
	if claims["exp"] != iat+60 || claims["client_id"] == nil {
		t.Errorf("claims %v, want exp a minute after iat and some client_id", claims)
	}
}

func TestSignForges(t *testing.T) {
	issuer := newIssuer(t)
	kid, signer := issuer.CurrentKey()
	public := signer.Public().(ed25519.PublicKey)

	token := issuer.Sign(map[string]any{"alg": "none", "kid": nil, "crit": []string{"x"}},
		map[string]any{"sub": nil})
	header, claims, err := decode(token)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, "header", header, map[string]any{"alg": "none", "crit": []any{"x"},
		"typ": "at+jwt"})
	wantEqual(t, "claims", claims, map[string]any{"sub": nil})
	wantSigned(t, public, token)

	token = issuer.Sign(nil, nil)
	header, claims, _ = decode(token)
	wantEqual(t, "header", header, map[string]any{"alg": "EdDSA", "kid": kid, "typ": "at+jwt"})
	wantEqual(t, "claims", claims, map[string]any{})

	token = issuer.SignBytes([]byte("not \xff JSON"), nil)
	if want := segment([]byte("not \xff JSON")) + ".."; !strings.HasPrefix(token, want) {
		t.Errorf("SignBytes made %q, want it to begin with %q", token, want)
	}
	wantSigned(t, public, token)

	defer func() {
		if recover() == nil {
			t.Error("Sign made a token of a channel; it should have panicked")
		}
	}()
	issuer.Sign(nil, map[string]any{"c": make(chan int)})
}

func wantSigned(t *testing.T, key ed25519.PublicKey, token string) {
	t.Helper()
	dot := strings.LastIndex(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || !ed25519.Verify(key, []byte(token[:dot]), signature) {
		t.Errorf("the signature of %q is not the current key's", token)
	}
}

func TestRotateRemovePublish(t *testing.T) {
	issuer := newIssuer(t)
	kids := func() (kids []any) {
		for _, key := range keySet(t, issuer) {
			kids = append(kids, key["kid"])
		}
		return kids
	}
	first, _ := issuer.CurrentKey()
	old := issuer.Mint(nil)
	second := issuer.Rotate("ES256")
	if current, _ := issuer.CurrentKey(); first == second || current != second {
		t.Fatalf("after Rotate the current key is %q, want the new %q, not %q", current, second,
			first)
	}
	wantEqual(t, "kids after Rotate", kids(), []any{first, second})
	if _, _, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(), old); err != nil {
		t.Errorf("a token of the older, still published key: %v", err)
	}

	issuer.RemoveKey(first)
	issuer.RemoveKey("no such key")
	wantEqual(t, "kids after RemoveKey", kids(), []any{second})
	if _, _, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(), old); err == nil {
		t.Error("a token of the removed key still verifies")
	}

	issuer.RemoveKey(second)
	if body := get(issuer, ".well-known/jwks.json").Body.String(); body != `{"keys":[]}` {
		t.Errorf("with every key removed the set is %s, want {\"keys\":[]}", body)
	}
	if header, _, _ := decode(issuer.Mint(nil)); header["kid"] != second {
		t.Errorf("the removed current key should still sign; header %v", header)
	}

	entry := json.RawMessage(`{"kty":"XYZ"}`)
	issuer.Publish(entry)
	entry[2] = '!' // the issuer has copied it
	issuer.Publish(json.RawMessage(`{broken`))
	third := issuer.Rotate("EdDSA")
	body := get(issuer, ".well-known/jwks.json").Body.String()
	if !strings.HasSuffix(body, `,{"kty":"XYZ"},{broken]}`) || !strings.Contains(body, third) {
		t.Errorf("the set is %s, want the new key and then the extra entries as given", body)
	}

	defer func() {
		if recover() == nil {
			t.Error("Rotate to HS256 did not panic")
		}
	}()
	issuer.Rotate("HS256")
}

func TestFail(t *testing.T) {
	const discovery, keys = ".well-known/openid-configuration", ".well-known/jwks.json"
	issuer := newIssuer(t)
	healthy := map[string]string{discovery: get(issuer, discovery).Body.String(),
		keys: get(issuer, keys).Body.String()}
	both := []string{discovery, keys}
	for _, test := range []struct {
		name  string
		fault devissuer.Fault
		hits  []string
		want  func(path string, w *httptest.ResponseRecorder) bool
	}{
		{"status with the good body", devissuer.Fault{Status: 500}, both,
			func(path string, w *httptest.ResponseRecorder) bool {
				return w.Code == 500 && w.Body.String() == healthy[path]
			}},
		{"one endpoint", devissuer.Fault{Status: 404, Endpoint: devissuer.KeySet}, []string{keys},
			func(_ string, w *httptest.ResponseRecorder) bool {
				return w.Code == 404
			}},
		{"the other endpoint", devissuer.Fault{Status: 404, Endpoint: "discovery"},
			[]string{discovery}, func(_ string, w *httptest.ResponseRecorder) bool {
				return w.Code == 404
			}},
		{"garbage", devissuer.Fault{Body: []byte("<html>"), ContentType: "text/html"}, both,
			func(_ string, w *httptest.ResponseRecorder) bool {
				return w.Code == 200 && w.Body.String() == "<html>" &&
					w.Header().Get("Content-Type") == "text/html"
			}},
		{"empty body", devissuer.Fault{Body: []byte{}}, both,
			func(_ string, w *httptest.ResponseRecorder) bool {
				return w.Code == 200 && w.Body.Len() == 0
			}},
		{"redirect", devissuer.Fault{Redirect: "http://169.254.0.1/"}, both, func(_ string, w *httptest.ResponseRecorder) bool {
			return w.Code == 302 && w.Header().Get("Location") == "http://169.254.0.1/"
		}},
		{"permanent redirect", devissuer.Fault{Redirect: "/x", Status: 308}, both,
			func(_ string, w *httptest.ResponseRecorder) bool {
				return w.Code == 308 && w.Header().Get("Location") == "/x"
			}},
		{"cache control", devissuer.Fault{CacheControl: "max-age=1"}, both,
			func(path string, w *httptest.ResponseRecorder) bool {
				return w.Code == 200 && w.Body.String() == healthy[path] &&
					w.Header().Get("Cache-Control") == "max-age=1"
			}},
		{"wrong issuer", devissuer.Fault{DiscoveryIssuer: "http://localhost:3010"}, []string{discovery}, func(_ string, w *httptest.ResponseRecorder) bool {
			return w.Code == 200 && strings.Contains(w.Body.String(), `"issuer":"http://localhost:3010"`)
		}},
		{"wrong jwks_uri", devissuer.Fault{JWKSURI: "http://x/keys"}, []string{discovery}, func(_ string, w *httptest.ResponseRecorder) bool {
			return w.Code == 200 && strings.Contains(w.Body.String(), `"jwks_uri":"http://x/keys"`)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			issuer.Fail(test.fault)
			for _, path := range both {
				w := get(issuer, path)
				if slices.Contains(test.hits, path) {
					if !test.want(path, w) {
						t.Errorf("%s under %+v: status %d, header %v, body %s", path, test.fault,
							w.Code, w.Header(), w.Body)
					}
				} else if w.Code != 200 || w.Body.String() != healthy[path] {
					t.Errorf("%s should be healthy under %+v: status %d, body %s", path, test.fault,
						w.Code, w.Body)
				}
			}
			if w := serve(issuer, post(formType, good().Encode())); w.Code != 200 {
				t.Errorf("the token endpoint fails too: %d %s", w.Code, w.Body)
			}
			issuer.Fail(devissuer.Fault{})
			if w := get(issuer, keys); w.Code != 200 || w.Body.String() != healthy[keys] {
				t.Errorf("not healed by Fail(Fault{}): %d %s", w.Code, w.Body)
			}
		})
	}
	defer func() {
		if recover() == nil {
			t.Error("Fail with an unknown Endpoint did not panic")
		}
	}()
	issuer.Fail(devissuer.Fault{Endpoint: "keys"})
}

func TestFailDownAndDelay(t *testing.T) {
	server := start(t)
	keys := server.URL() + ".well-known/jwks.json"
	// no retry on another connection
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	server.Fail(devissuer.Fault{Down: true})
	if r, err := client.Get(keys); err == nil {
		t.Errorf("status %d while down, want a broken connection", r.StatusCode)
	}

	server.Fail(devissuer.Fault{Delay: 50 * time.Millisecond})
	begun := time.Now()
	r, err := client.Get(keys)
	if err != nil {
		t.Fatalf("a slow answer is still an answer, but: %v", err)
	}
	r.Body.Close()
	if took := time.Since(begun); took < 50*time.Millisecond || r.StatusCode != 200 {
		t.Errorf("status %d after %v, want 200 after 50 ms", r.StatusCode, took)
	}

	server.Fail(devissuer.Fault{Delay: time.Hour})
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	go func() {
		for keySet := 0; keySet < 3 && ctx.Err() == nil; _, keySet = server.Requests() {
			time.Sleep(time.Millisecond)
		}
		hangUp()
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := client.Do(request); err == nil {
		t.Errorf("status %d of an issuer with a delay of an hour", r.StatusCode)
	}
	if discovery, keySet := server.Requests(); discovery != 0 || keySet != 3 {
		t.Errorf("Requests() is %d, %d, want 0, 3: failures count", discovery, keySet)
	}
}

// If it were answered, an interrupted request would look like an empty 200.
func TestInterruptedDelayHasNoResponse(t *testing.T) {
	issuer := newIssuer(t)
	issuer.Fail(devissuer.Fault{Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	defer func() {
		if got := recover(); got != http.ErrAbortHandler {
			t.Errorf("the handler ended with %v, want a panic with http.ErrAbortHandler", got)
		}
	}()
	serve(issuer, httptest.NewRequest("GET", issuerURL+".well-known/jwks.json",
		nil).WithContext(ctx))
}

func TestStopRestart(t *testing.T) {
	server := start(t)
	keys := server.URL() + ".well-known/jwks.json"
	token := server.Mint(nil)
	fetch := func() ([]byte, error) {
		r, err := http.Get(keys)
		if err != nil {
			return nil, err
		}
		defer r.Body.Close()
		return io.ReadAll(r.Body)
	}
	for range 3 {
		set, err := fetch()
		if err != nil {
			t.Fatalf("GET %s: %v", keys, err)
		}
		if _, _, err := verify(set, token); err != nil {
			t.Errorf("the keys should outlive a restart, but: %v", err)
		}
		if err := server.Restart(); err != nil {
			t.Errorf("Restart of a running server: %v", err)
		}

		// An active request fails when the issuer goes down.
		server.Fail(devissuer.Fault{Delay: time.Hour})
		fetched := make(chan error, 1)
		_, before := server.Requests()
		go func() {
			_, err := fetch()
			fetched <- err
		}()
		for after := before; after == before; _, after = server.Requests() {
			time.Sleep(time.Millisecond)
		}
		server.Stop()
		server.Stop()
		select {
		case err := <-fetched:
			if err == nil {
				t.Error("a request that was waiting at Stop was answered")
			}
		case <-time.After(time.Minute):
			t.Fatal("Stop left a delayed request waiting")
		}
		if _, err := fetch(); err == nil {
			t.Error("the port still answers after Stop")
		}
		server.Fail(devissuer.Fault{})
		if err := server.Restart(); err != nil {
			t.Fatalf("Restart: %v", err)
		}
	}
	server.Close()
	if _, err := fetch(); err == nil {
		t.Error("the port still answers after Close")
	}
}

func TestStartURL(t *testing.T) {
	cfg := config()
	for _, test := range []struct{ url, prefix, suffix string }{
		{"", "http://127.0.0.1:", "/"},
		{"http://127.0.0.1:0", "http://127.0.0.1:", ""},
		{"http://localhost:0/tenant", "http://localhost:", "/tenant"},
	} {
		cfg.URL = test.url
		server, err := devissuer.Start(cfg)
		if err != nil {
			t.Fatalf("Start with URL %q: %v", test.url, err)
		}
		got := server.URL()
		port, ok := strings.CutPrefix(strings.TrimSuffix(got, test.suffix), test.prefix)
		if !ok || port == "" || strings.Trim(port, "0123456789") != "" || port == "0" {
			t.Errorf("URL %q: the issuer's is %q, want %sPORT%s",
				test.url, got, test.prefix, test.suffix)
		}
		r, err := http.Get(strings.TrimSuffix(got, "/") + "/.well-known/openid-configuration")
		if err != nil {
			t.Fatalf("the server is not where its URL says: %v", err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if !strings.Contains(string(body), fmt.Sprintf(`"issuer":%q`, got)) {
			t.Errorf("discovery of %q has another issuer: %s", got, body)
		}
		cfg.URL = got
		if second, err := devissuer.Start(cfg); err == nil {
			second.Close()
			t.Errorf("a second server on %s should fail: the port is taken", got)
		}
		server.Close()
	}

	for _, test := range []struct{ url, alg, says string }{
		{"http://0.0.0.0:0/", "EdDSA", "for one machine only"},
		{"http://0.0.0.0:0/", "HS256", `algorithm is "HS256"`}, // both faults
		{"https://localhost:0/", "EdDSA", "Start serves http only"},
		{"http://localhost/", "EdDSA", "missing port"},
		{"http://127.0.0.1:0/", "HS256", `algorithm is "HS256"`},
	} {
		cfg.URL, cfg.Algorithm = test.url, test.alg
		server, err := devissuer.Start(cfg)
		if err == nil {
			server.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("Start with URL %q and %s: error %v, want one that says %q", test.url,
				test.alg, err, test.says)
		}
	}
}

func TestNewReportsEveryFault(t *testing.T) {
	_, err := devissuer.New(devissuer.Config{
		URL:       "https://issuer.example.com/",
		Audiences: []string{"a", ""},
		Scopes:    []string{"read:messages", "two words", ""},
		Clients: []devissuer.Client{
			{ID: "", Secret: "hunter2\n"},
			{ID: "a", Secret: "", Scopes: []string{"read:messages", "write:messages"}},
			{ID: "a", Secret: "hunter2"},
		},
		Algorithm:     "HS256",
		TokenLifetime: -time.Hour,
	})
	if err == nil {
		t.Fatal("New accepted a configuration that is wrong throughout")
	}
	for _, want := range []string{
		`URL is "https://issuer.example.com/"`, `Audiences[1]`, `Scopes[1] is "two words"`, `Scopes[2] is ""`,
		`Clients[0].ID is ""`, `Clients[0] ("") has a Secret that`, `Clients[1] ("a") has neither a Secret`, `Clients[1] ("a") has scope "write:messages"`,
		`Clients[2].ID is "a"`, `algorithm is "HS256": choose one of RS256`, `TokenLifetime is -1h0m0s`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s; it says:\n%v", want, err)
		}
	}
	if got := len(strings.Split(err.Error(), "\n")); got != 11 {
		t.Errorf("%d faults, want 11:\n%v", got, err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows a secret: %v", err)
	}
	if _, err := devissuer.New(devissuer.Config{URL: issuerURL}); err == nil ||
		!strings.Contains(err.Error(), "Audiences is empty") {
		t.Errorf("no audience: error %v, want one about Audiences", err)
	}
}

func TestNewRequiresLoopbackURL(t *testing.T) {
	for raw, ok := range map[string]bool{
		"http://localhost":          true,
		"https://localhost:8443/x":  true,
		"http://127.1.2.3:1/":       true,
		"http://[::1]/":             true,
		"":                          false,
		"localhost:3010":            false,
		"ftp://localhost/":          false,
		"http://0.0.0.0/":           false,
		"http://[::]/":              false,
		"http://10.0.0.1/":          false,
		"http://localhost.example/": false,
		"http://:3010/":             false,
		"http://u:p@localhost/":     false,
		"http://localhost/?a=b":     false,
		"http://localhost/#":        false,
		"http://localhost:x/":       false,
	} {
		cfg := config()
		cfg.URL = raw
		if _, err := devissuer.New(cfg); (err == nil) != ok {
			t.Errorf("New with URL %q: error %v, want ok %v", raw, err, ok)
		}
	}
}

// The issuer copies the slices of the caller.
func TestNewCopiesItsConfig(t *testing.T) {
	cfg := config()
	issuer, err := devissuer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Audiences[0], cfg.Scopes[0], cfg.Clients[0].Secret, cfg.Clients[0].Scopes[0] = "x", "x",
		"x", "x"
	if w := serve(issuer, post(formType, good("scope", "read:messages").Encode())); w.Code != 200 {
		t.Errorf("a change of the caller's Config reached the issuer: %d %s", w.Code, w.Body)
	}
}

// Concurrent calls, for the race detector. The documents stay complete.
func TestConcurrentUse(t *testing.T) {
	server := start(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20 {
				kid := server.Rotate("EdDSA")
				server.Publish(json.RawMessage(`{"kty":"XYZ"}`))
				server.Fail(devissuer.Fault{CacheControl: "no-cache"})
				server.Mint(nil)
				server.CurrentKey()
				server.Requests()
				server.RemoveKey(kid)
			}
		})
		group.Go(func() {
			for range 20 {
				for _, path := range []string{".well-known/openid-configuration",
					".well-known/jwks.json"} {
					if w := get(server, path); w.Code != 200 || !json.Valid(w.Body.Bytes()) {
						t.Errorf("%s: status %d, body %s", path, w.Code, w.Body)
					}
				}
				if w := serve(server, post(formType, good().Encode())); w.Code != 200 {
					t.Errorf("token: status %d, body %s", w.Code, w.Body)
				}
			}
		})
		group.Go(func() {
			server.Stop()
			if err := server.Restart(); err != nil {
				t.Errorf("Restart: %v", err)
			}
		})
	}
	group.Wait()
}

// For any body, the response is a token or an error of RFC 6749 §5.2. It is a token only if a
// second implementation reads the same parameters.
func FuzzTokenRequest(f *testing.F) {
	issuer, err := devissuer.New(config())
	if err != nil {
		f.Fatal(err)
	}
	for _, body := range []string{
		good().Encode(), object(good()), good("scope", "admin").Encode(),
		object(good("scope", "read:messages")),
		good().Encode() + "&scope=a&scope=b", `{"audience":"a","audience":"b"}`,
		good().Encode() + "&&=x", // an empty pair is not a parameter without a name
		good("audience", "", "resource", audience).Encode(),
		`{"audience":["a"]}`, `{"a":{"b":"c"},"d":1}`,
		"", "{}", "{", "null", `{"a":"b",}`, "a=%zz", "a;b", "=", "&&", "\x00", `{"\ud800":"x"}`, strings.Repeat("[", 50),
	} {
		f.Add(true, body)
		f.Add(false, body)
	}
	f.Fuzz(func(t *testing.T, isJSON bool, body string) {
		contentType := formType
		if isJSON {
			contentType = jsonType
		}
		w := serve(issuer, post(contentType, body))
		if w.Code != http.StatusOK {
			if w.Code != 400 && w.Code != 401 && w.Code != 413 {
				t.Errorf("status %d, want 400, 401 or 413", w.Code)
			}
			wantRefusalShape(t, w)
			return
		}
		params := make(map[string]string)
		if isJSON {
			if err := json.Unmarshal([]byte(body), &params); err != nil {
				t.Fatalf("a token for a body that is not a JSON object of strings: %v", err)
			}
		} else {
			for pair := range strings.SplitSeq(body, "&") {
				if pair == "" {
					continue
				}
				name, value, _ := strings.Cut(pair, "=")
				name, errName := url.QueryUnescape(name)
				value, errValue := url.QueryUnescape(value)
				if _, repeated := params[name]; repeated || errName != nil || errValue != nil {
					t.Fatalf("a token for a form with a repeated or malformed %q", pair)
				}
				params[name] = value
			}
		}
		known := slices.ContainsFunc(config().Clients, func(c devissuer.Client) bool {
			return c.ID == params["client_id"] && c.Secret == params["client_secret"]
		})
		if !known || params["grant_type"] != "client_credentials" ||
			!slices.Contains(config().Audiences, cmp.Or(params["audience"], params["resource"])) {
			t.Errorf("a token for %q", body)
		}
		repeated := body + "&grant_type=x"
		if isJSON {
			repeated = strings.Replace(body, "{", `{"grant_type":"x",`, 1)
		}
		if w := serve(issuer, post(contentType, repeated)); w.Code != 400 && w.Code != 413 {
			t.Errorf("status %d, want 400, for %q, where grant_type is repeated", w.Code, repeated)
		}
	})
}

// The test of an API makes tokens with Mint.
func ExampleStart() {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://api.example"}})
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	expired := issuer.Mint(map[string]any{
		"scope": "read:messages",
		"exp":   time.Now().Add(-time.Hour).Unix(),
	})
	fmt.Println(strings.Count(expired, "."), "dots")
	// Output: 2 dots
}

// verify verifies a token with the standard library only, independently of the package.
func verify(set []byte, token string) (header, claims map[string]any, err error) {
	header, claims, err = decode(token)
	if err != nil {
		return nil, nil, err
	}
	var keys struct{ Keys []map[string]string }
	if err := json.Unmarshal(set, &keys); err != nil {
		return nil, nil, fmt.Errorf("key set: %w", err)
	}
	n := slices.IndexFunc(keys.Keys, func(key map[string]string) bool {
		return key["kid"] == header["kid"]
	})
	if n < 0 {
		return nil, nil, fmt.Errorf("no key of kid %v in %s", header["kid"], set)
	}
	key := keys.Keys[n]
	if key["alg"] != header["alg"] || key["use"] != "sig" {
		return nil, nil, fmt.Errorf("key %v does not fit header %v", key, header)
	}
	number := func(member string) *big.Int {
		b, decodeErr := base64.RawURLEncoding.DecodeString(key[member])
		if decodeErr != nil || len(b) == 0 {
			err = fmt.Errorf("member %s of key %v: %v", member, key, decodeErr)
		}
		return new(big.Int).SetBytes(b)
	}
	dot := strings.LastIndex(token, ".")
	input := []byte(token[:dot])
	signature, decodeErr := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if decodeErr != nil {
		return nil, nil, decodeErr
	}
	hash := map[byte]crypto.Hash{'2': crypto.SHA256, '3': crypto.SHA384,
		'5': crypto.SHA512}[key["alg"][2]]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	good := false
	switch key["kty"] + " " + key["alg"][:2] {
	case "RSA RS":
		public := &rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
		good = rsa.VerifyPKCS1v15(public, hash, digest, signature) == nil &&
			public.N.BitLen() == 2048
	case "RSA PS":
		public := &rsa.PublicKey{N: number("n"), E: int(number("e").Int64())}
		good = rsa.VerifyPSS(public, hash, digest, signature,
			&rsa.PSSOptions{SaltLength: hash.Size()}) == nil
	case "EC ES":
		curve := map[string]elliptic.Curve{"ES256 P-256": elliptic.P256(),
			"ES384 P-384": elliptic.P384(), "ES512 P-521": elliptic.P521()}[key["alg"]+" "+
			key["crv"]]
		if curve == nil {
			return nil, nil, fmt.Errorf("the curve of %v is not its algorithm's", key)
		}
		size := (curve.Params().BitSize + 7) / 8
		point := slices.Concat([]byte{4}, number("x").FillBytes(make([]byte, size)),
			number("y").FillBytes(make([]byte, size)))
		public, parseErr := ecdsa.ParseUncompressedPublicKey(curve, point)
		if parseErr != nil {
			return nil, nil, parseErr
		}
		r, s := new(big.Int), new(big.Int)
		if len(signature) == 2*size { // RFC 7518 §3.4
			r.SetBytes(signature[:size])
			s.SetBytes(signature[size:])
		}
		good = ecdsa.Verify(public, digest, r, s)
	case "OKP Ed":
		x, _ := base64.RawURLEncoding.DecodeString(key["x"])
		good = key["crv"] == "Ed25519" && len(x) == ed25519.PublicKeySize &&
			ed25519.Verify(x, input, signature)
	}
	if err == nil && !good {
		err = fmt.Errorf("the signature is not that of key %v", key)
	}
	return header, claims, err
}

func decode(token string) (header, claims map[string]any, err error) {
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		return nil, nil, fmt.Errorf("%d segments in %q, want 3", len(segments), token)
	}
	for n, into := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(segments[n])
		if err != nil {
			return nil, nil, err
		}
		if err := json.Unmarshal(b, into); err != nil {
			return nil, nil, err
		}
	}
	return header, claims, nil
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func keySet(t *testing.T, issuer *devissuer.Issuer) []map[string]any {
	t.Helper()
	body := get(issuer, ".well-known/jwks.json").Body.Bytes()
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(body, &set); err != nil {
		t.Fatalf("the key set is not JSON: %v: %s", err, body)
	}
	return set.Keys
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	g, _ := json.Marshal(got)
	w, _ := json.Marshal(want)
	if !bytes.Equal(g, w) {
		t.Errorf("%s\n got %s\nwant %s", what, g, w)
	}
}
