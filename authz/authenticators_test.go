package authz_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// everyScheme has a security scheme of each type.
const everyScheme = `
openapi: 3.1.0
info: {title: Schemes, version: "1"}
paths:
  /key: {get: &get {operationId: key, security: [{header: [read]}], responses: {"204": {description: Done.}}}}
  /query: {get: {<<: *get, operationId: query, security: [{query: []}], parameters: [{name: q, in: query, schema: {type: string}}]}}
  /declared: {get: {<<: *get, operationId: declared, security: [{query: []}], parameters: [{name: api_key, in: query, schema: {type: string}}]}}
  /cookie:
    get: {<<: *get, operationId: cookieGet, security: [{cookie: []}]}
    post: {<<: *get, operationId: cookiePost, security: [{cookie: []}]}
  /cookieOrToken: {post: {<<: *get, operationId: cookieOrToken, security: [{cookie: []}, {bearer: []}]}}
  /cookieAndKey: {post: {<<: *get, operationId: cookieAndKey, security: [{cookie: [], header: []}]}}
  /basic: {get: {<<: *get, operationId: basic, security: [{basic: []}]}}
  /mtls: {get: {<<: *get, operationId: mtls, security: [{mtls: []}]}}
  /bearer: {get: {<<: *get, operationId: bearer, security: [{bearer: []}]}}
  /either: {get: {<<: *get, operationId: either, security: [{bearer: [read]}, {header: [read]}]}}
  /both: {get: {<<: *get, operationId: both, security: [{bearer: [read], mtls: [write]}]}}
  /keys: {get: {<<: *get, operationId: keys, security: [{header: [], cookie: []}]}}
  /optional: {get: {<<: *get, operationId: optional, security: [{}, {header: [read]}]}}
  /optionalBoth: {get: {<<: *get, operationId: optionalBoth, security: [{}, {cookie: [], header: []}]}}
  /raw: {get: {<<: *get, operationId: raw, security: [{authorization: []}]}}
  /rawOrBearer: {get: {<<: *get, operationId: rawOrBearer, security: [{authorization: []}, {bearer: []}]}}
components:
  securitySchemes:
    bearer: {type: http, scheme: bearer}
    header: {type: apiKey, in: header, name: X-API-Key}
    query: {type: apiKey, in: query, name: api_key}
    cookie: {type: apiKey, in: cookie, name: sid}
    authorization: {type: apiKey, in: header, name: authorization}
    basic: {type: http, scheme: basic}
    mtls: {type: mutualTLS}
`

// named returns a principal whose subject is the name of its source.
func named(tb testing.TB, subject string, scopes ...string) *token.Principal {
	tb.Helper()
	p, err := token.NewPrincipal(token.PrincipalConfig{Subject: subject, Scopes: scopes})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// lookup is the lookup of all authenticators here: a credential is "down", "broken", "none", or
// scopes joined by +.
func lookup(tb testing.TB, subject string) func(context.Context, string) (*token.Principal, error) {
	return func(_ context.Context, credential string) (*token.Principal, error) {
		switch credential {
		case "bad":
			return nil, fmt.Errorf("not known: %w", authz.ErrBadCredential)
		case "down":
			return nil, fmt.Errorf("no database: %w", authz.ErrUnavailable)
		case "expired":
			return nil, &token.Error{Code: token.Expired}
		case "broken":
			return nil, errors.New("a bug")
		case "none":
			return nil, nil
		}
		return named(tb, subject, strings.Split(credential, "+")...), nil
	}
}

// byLookup is a verifier that calls lookup.
type byLookup func(context.Context, string) (*token.Principal, error)

func (v byLookup) Verify(ctx context.Context, raw string) (*token.Principal, error) {
	switch p, err := v(ctx, raw); {
	case errors.Is(err, authz.ErrBadCredential):
		return nil, &token.Error{Code: token.Malformed}
	case errors.Is(err, authz.ErrUnavailable):
		return nil, &token.Error{Code: token.KeysUnavailable}
	default:
		return p, err
	}
}

// everyAuthenticator authenticates for everyScheme.
func everyAuthenticator(tb testing.TB) map[string]authz.Authenticator {
	user := lookup(tb, "user")
	certificate := lookup(tb, "certificate")
	return map[string]authz.Authenticator{
		"header":        authz.APIKey(lookup(tb, "header")),
		"query":         authz.APIKey(lookup(tb, "query")),
		"cookie":        authz.APIKey(lookup(tb, "cookie")),
		"authorization": authz.APIKey(lookup(tb, "authorization")),
		"basic": authz.Basic(func(ctx context.Context, name, password string) (*token.Principal,
			error) {
			if name != "user" {
				return nil, authz.ErrBadCredential
			}
			return user(ctx, password)
		}),
		"mtls": authz.MutualTLS(func(ctx context.Context, c *x509.Certificate) (*token.Principal,
			error) {
			return certificate(ctx, c.Subject.CommonName)
		}),
	}
}

func schemesGate(tb testing.TB) *authz.Gate {
	tb.Helper()
	gate, err := authz.New(authz.Config{
		Document: load(tb, everyScheme), Verifier: byLookup(lookup(tb, "token")),
		Authenticators: everyAuthenticator(tb),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return gate
}

// withCertificate adds a TLS connection whose client certificate has a name.
func withCertificate(r *http.Request, name string, verified bool) {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
	if verified {
		r.TLS.VerifiedChains = [][]*x509.Certificate{{c}}
	}
}

func basicHeader(credential string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credential))
}

// TestSchemes: the credentials that each scheme accepts, their places, and the responses.
func TestSchemes(t *testing.T) {
	gate := schemesGate(t)
	const (
		bearerOffer = `Bearer realm="Schemes"`
		headerOffer = `ApiKey realm="Schemes", in="header", name="X-API-Key"`
		queryOffer  = `ApiKey realm="Schemes", in="query", name="api_key"`
		cookieOffer = `ApiKey realm="Schemes", in="cookie", name="sid"`
		rawOffer    = `ApiKey realm="Schemes", in="header", name="authorization"`
		basicOffer  = `Basic realm="Schemes", charset="UTF-8"`
		mtlsOffer   = `MutualTLS realm="Schemes"`
	)
	for _, row := range []struct {
		name        string
		request     string
		headers     []string
		certificate string // "-" in front: not verified
		caller      string // its subject; "" with no kind: anonymous
		kind        authz.Kind
		challenges  []string
	}{
		{"a key", "GET /key", []string{"X-API-Key: read"}, "", "header", "", nil},
		{"a key, in small letters", "GET /key", []string{"x-api-key: read"}, "", "header", "", nil},
		{"no key", "GET /key", nil, "", "", authz.MissingCredential, []string{headerOffer}},
		{"an empty key", "GET /key", []string{"X-API-Key:"}, "", "", authz.MissingCredential, []string{headerOffer}},
		{"a key in the query", "GET /key?X-API-Key=read", nil, "", "", authz.MissingCredential, []string{headerOffer}},
		{"a key in a cookie", "GET /key", []string{"Cookie: X-API-Key=read"}, "", "", authz.MissingCredential, []string{headerOffer}},
		{"a key as a token", "GET /key", []string{"Authorization: Bearer read"}, "", "", authz.MissingCredential, []string{headerOffer}},
		{"a bad key", "GET /key", []string{"X-API-Key: bad"}, "", "", authz.InvalidCredential, []string{headerOffer}},
		{"two keys", "GET /key", []string{"X-API-Key: read", "X-API-Key: read"}, "", "", authz.InvalidCredential, []string{headerOffer}},
		{"a key without the role", "GET /key", []string{"X-API-Key: write"}, "", "", authz.InsufficientRole, nil},
		{"a key that cannot be checked", "GET /key", []string{"X-API-Key: down"}, "", "", authz.CredentialsUnavailable, nil},
		{"a key of a broken authenticator", "GET /key", []string{"X-API-Key: broken"}, "", "", authz.Internal, nil},
		{"a key of nobody, without an error", "GET /key", []string{"X-API-Key: none"}, "", "", authz.Internal, nil},
		{"a key that is an expired token", "GET /key", []string{"X-API-Key: expired"}, "", "", authz.InvalidCredential, []string{headerOffer}},

		{"a key in the query as described", "GET /query?api_key=a", nil, "", "query", "", nil},
		{"a key in the query among others", "GET /query?q=1&api%5Fkey=a", nil, "", "query", "", nil},
		{"a key in the query twice", "GET /query?api_key=a&api_key=a", nil, "", "", authz.InvalidCredential, []string{queryOffer}},
		{"a key in a header instead", "GET /query", []string{"api_key: a"}, "", "", authz.MissingCredential, []string{queryOffer}},
		{"a key beside an undeclared parameter", "GET /query?api_key=a&x=1", nil, "", "", authz.InvalidParameter, nil},
		{"a key beside a malformed query", "GET /query?api_key=a&%zz", nil, "", "", authz.InvalidParameter, nil},
		{"a key that is a parameter as well", "GET /declared?api_key=a", nil, "", "query", "", nil},

		{"a cookie", "GET /cookie", []string{"Cookie: a=b; sid=a"}, "", "cookie", "", nil},
		{"a cookie twice", "GET /cookie", []string{"Cookie: sid=a; sid=a"}, "", "", authz.InvalidCredential, []string{cookieOffer}},
		{"a cookie as a header", "GET /cookie", []string{"sid: a"}, "", "", authz.MissingCredential, []string{cookieOffer}},

		{"a user", "GET /basic", []string{basicHeader("user:a")}, "", "user", "", nil},
		{"a user, in small letters", "GET /basic", []string{strings.Replace(basicHeader("user:a"), "Basic", "basic", 1)}, "", "user", "", nil},
		{"another user", "GET /basic", []string{basicHeader("use:a")}, "", "", authz.InvalidCredential, []string{basicOffer}},
		{"no colon", "GET /basic", []string{basicHeader("user")}, "", "", authz.InvalidCredential, []string{basicOffer}},
		{"no base64", "GET /basic", []string{"Authorization: Basic user:a"}, "", "", authz.InvalidCredential, []string{basicOffer}},
		{"no user", "GET /basic", nil, "", "", authz.MissingCredential, []string{basicOffer}},
		{"a token for a user", "GET /basic", []string{"Authorization: Bearer a"}, "", "", authz.MissingCredential, []string{basicOffer}},
		{"two users", "GET /basic", []string{basicHeader("user:a"), basicHeader("user:a")}, "", "", authz.InvalidCredential, []string{basicOffer}},

		{"a certificate", "GET /mtls", nil, "a", "certificate", "", nil},
		{"no certificate", "GET /mtls", nil, "", "", authz.MissingCredential, []string{mtlsOffer}},
		{"a certificate that is not verified", "GET /mtls", nil, "-a", "", authz.InvalidCredential, []string{mtlsOffer}},

		{"either, by token", "GET /either", []string{"Authorization: Bearer read"}, "", "token", "", nil},
		{"either, by key", "GET /either", []string{"X-API-Key: read"}, "", "header", "", nil},
		{"either, by none", "GET /either", nil, "", "", authz.MissingCredential, []string{bearerOffer + `, scope="read"`, headerOffer}},
		{"a bad key beside a good token", "GET /either", []string{"Authorization: Bearer read", "X-API-Key: bad"}, "", "token", "", nil},
		{"a bad token beside a good key", "GET /either", []string{"Authorization: Bearer bad", "X-API-Key: read"}, "", "header", "", nil},
		{"a key store that is down beside a good token", "GET /either", []string{"Authorization: Bearer read", "X-API-Key: down"}, "", "token", "", nil},
		{"a bad token and no key", "GET /either", []string{"Authorization: Bearer bad"}, "", "", authz.InvalidToken, []string{bearerOffer + `, error="invalid_token", scope="read"`}},
		{"a bad key and no token", "GET /either", []string{"X-API-Key: bad"}, "", "", authz.InvalidCredential, []string{bearerOffer + `, scope="read"`, headerOffer}},
		{"a token without the scope, and a bad key", "GET /either", []string{"Authorization: Bearer x", "X-API-Key: bad"}, "", "", authz.InsufficientScope, []string{bearerOffer + `, error="insufficient_scope", scope="read"`}},
		{"a bad token, and a key store that is down", "GET /either", []string{"Authorization: Bearer bad", "X-API-Key: down"}, "", "", authz.CredentialsUnavailable, nil},
		{"scopes are not added up", "GET /both", []string{"Authorization: Bearer write"}, "read", "", authz.InsufficientScope, []string{bearerOffer + `, error="insufficient_scope", scope="read"`}},

		{"both", "GET /both", []string{"Authorization: Bearer read"}, "write", "token", "", nil},
		{"both, one half", "GET /both", []string{"Authorization: Bearer read"}, "", "", authz.MissingCredential, []string{bearerOffer + `, scope="read"`, mtlsOffer}},
		{"both, the other half", "GET /both", nil, "write", "", authz.MissingCredential, []string{bearerOffer + `, scope="read"`, mtlsOffer}},
		{"both, a bad half", "GET /both", []string{"Authorization: Bearer bad"}, "write", "", authz.InvalidToken, []string{bearerOffer + `, error="invalid_token", scope="read"`}},
		{"both, a bad half and none", "GET /both", []string{"Authorization: Bearer bad"}, "", "", authz.InvalidToken, []string{bearerOffer + `, error="invalid_token", scope="read"`}},
		{"both, a half that is down and none", "GET /both", []string{"Authorization: Bearer down"}, "", "", authz.MissingCredential, []string{bearerOffer + `, scope="read"`, mtlsOffer}},
		{"both, the certificate lacks the role", "GET /both", []string{"Authorization: Bearer read"}, "read", "", authz.InsufficientRole, nil},
		{"two keys, the first by name is the caller", "GET /keys", []string{"X-API-Key: a", "Cookie: sid=a"}, "", "cookie", "", nil},

		{"optional, without", "GET /optional", nil, "", "", "", nil},
		{"optional, with a key", "GET /optional", []string{"X-API-Key: read"}, "", "header", "", nil},
		{"optional, with a key without the role", "GET /optional", []string{"X-API-Key: x"}, "", "header", "", nil},
		{"optional, with a bad key", "GET /optional", []string{"X-API-Key: bad"}, "", "", authz.InvalidCredential, []string{headerOffer}},
		{"optional, and the store is down", "GET /optional", []string{"X-API-Key: down"}, "", "", authz.CredentialsUnavailable, nil},
		{"optional, one half", "GET /optionalBoth", []string{"X-API-Key: a"}, "", "header", "", nil},
		{"optional, one bad half, the last by name", "GET /optionalBoth", []string{"X-API-Key: bad"}, "", "", authz.InvalidCredential, []string{cookieOffer, headerOffer}},

		{"a key in Authorization", "GET /raw", []string{"Authorization: a"}, "", "authorization", "", nil},
		{"a key in Authorization is all of the header", "GET /raw", []string{"Authorization: Bearer a"}, "", "authorization", "", nil},
		{"a key in Authorization or a token: a token", "GET /rawOrBearer", []string{"Authorization: bad"}, "", "", authz.InvalidCredential, []string{bearerOffer, rawOffer}},
		{"a token does not come from Basic", "GET /bearer", []string{basicHeader("user:a")}, "", "", authz.MissingToken, []string{bearerOffer}},
		{"a token does not come from a key", "GET /bearer", []string{"X-API-Key: a"}, "", "", authz.MissingToken, []string{bearerOffer}},
	} {
		t.Run(row.name, func(t *testing.T) {
			method, target, _ := strings.Cut(row.request, " ")
			r := httptest.NewRequest(method, target, nil)
			for _, header := range row.headers {
				name, value, _ := strings.Cut(header, ":")
				r.Header.Add(name, strings.TrimPrefix(value, " "))
			}
			if row.certificate != "" {
				withCertificate(r, strings.TrimPrefix(row.certificate, "-"),
					row.certificate[0] != '-')
			}
			admitted, err := gate.Check(r, r.URL.Path, nil)
			if kind := kindOfError(err); kind != row.kind || (err != nil) != (kind != "") {
				t.Fatalf("decided %v, want %q", err, row.kind)
			}
			if err == nil {
				p, _ := token.FromContext(admitted.Context())
				if (p == nil) != (row.caller == "") || p != nil && p.Subject() != row.caller {
					t.Errorf("the caller is %v, want %q", p, row.caller)
				}
				return
			}
			w := httptest.NewRecorder()
			gate.WriteProblem(w, r, err)
			if got := w.Header().Values("WWW-Authenticate"); !slices.Equal(got, row.challenges) {
				t.Errorf("challenges are %q, want %q", got, row.challenges)
			}
			if w.Code == http.StatusUnauthorized && len(row.challenges) == 0 {
				t.Error("401 without a challenge (RFC 9110 §15.5.2)")
			}
			if w.Code == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
				t.Error("503 without Retry-After")
			}
		})
	}
}

func TestPrincipalByScheme(t *testing.T) {
	gate := schemesGate(t)
	r := httptest.NewRequest("GET", "/both", nil)
	r.Header.Set("Authorization", "Bearer read")
	withCertificate(r, "write", true)
	admitted, err := gate.Check(r, "/both", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := authz.FromContext(admitted.Context())
	for scheme, subject := range map[string]string{"bearer": "token", "mtls": "certificate"} {
		if p := a.PrincipalOf(scheme); p == nil || p.Subject() != subject {
			t.Errorf("the principal of %s is %v, want %s", scheme, p, subject)
		}
	}
	if p := a.PrincipalOf("header"); p != nil {
		t.Errorf("the principal of a scheme of no satisfied alternative is %v", p)
	}
}

// The handler does not get a key of the query, unless it is also a parameter.
func TestKeysInTheQueryAreHidden(t *testing.T) {
	gate := schemesGate(t)
	for target, expected := range map[string]string{
		"/query?api_key=secret":           "",
		"/query?q=a%20b&api%5Fkey=secret": "q=a%20b",
		"/declared?api_key=not-so-secret": "api_key=not-so-secret",
		"/query?api_key=secret&q=x&":      "q=x&",
	} {
		r := httptest.NewRequest("GET", target, nil)
		admitted, err := gate.Check(r, r.URL.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := admitted.URL.RawQuery; got != expected ||
			strings.Contains(admitted.RequestURI, "=secret") {
			t.Errorf("%s: the handler gets %q in %q, want %q", target, got, admitted.RequestURI,
				expected)
		}
		if r.URL.String() != target {
			t.Errorf("%s: the request of the server has changed to %s", target, r.URL)
		}
	}
}

// TestCrossOrigin: with a credential that browsers add by themselves, pages of other sites cannot
// make unsafe requests.
func TestCrossOrigin(t *testing.T) {
	gate, err := authz.New(authz.Config{
		Document: load(t, everyScheme), Verifier: byLookup(lookup(t, "token")),
		Authenticators: everyAuthenticator(t),
		CookieOrigins:  []string{"https://app.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		request string
		headers map[string]string
		kind    authz.Kind
	}{
		{"POST /cookie", nil, ""},
		{"POST /cookie", map[string]string{"Sec-Fetch-Site": "same-origin"}, ""},
		{"POST /cookie", map[string]string{"Sec-Fetch-Site": "cross-site"}, authz.CrossOrigin},
		{"POST /cookie", map[string]string{"Sec-Fetch-Site": "same-site"}, authz.CrossOrigin},
		{"POST /cookie", map[string]string{"Origin": "https://evil.example"}, authz.CrossOrigin},
		{"POST /cookie", map[string]string{"Origin": "null"}, authz.CrossOrigin},
		{"POST /cookie", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.com"}, ""},
		{"GET /cookie", map[string]string{"Sec-Fetch-Site": "cross-site"}, ""},
		{"GET /cookie", map[string]string{"Sec-Fetch-Site": "cross-site", "Connection": "Upgrade", "Upgrade": "websocket"}, authz.CrossOrigin},
		{"GET /cookie", map[string]string{"Origin": "https://evil.example", "Connection": "Upgrade", "Upgrade": "websocket"}, authz.CrossOrigin},
		{"GET /cookie", map[string]string{"Origin": "http://example.com", "Connection": "Upgrade", "Upgrade": "websocket"}, ""},
		{"POST /cookieOrToken", map[string]string{"Sec-Fetch-Site": "cross-site"}, authz.CrossOrigin},
		{"POST /cookieOrToken", map[string]string{"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer a"}, ""},
		{"POST /cookieAndKey", map[string]string{"Sec-Fetch-Site": "cross-site", "X-API-Key": "a"}, ""},
	} {
		method, path, _ := strings.Cut(row.request, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Cookie", "sid=a")
		for name, value := range row.headers {
			r.Header.Set(name, value)
		}
		if _, err := gate.Check(r, path, nil); kindOfError(err) != row.kind ||
			(err != nil) != (row.kind != "") {
			t.Errorf("%s %v: decided %v, want %q", row.request, row.headers, err, row.kind)
		}
		if r.Method != method {
			t.Errorf("%s: the method has changed to %s", row.request, r.Method)
		}
	}
}

func TestSecrets(t *testing.T) {
	secrets := authz.Secrets{
		{ID: "billing", SHA256: sha256.Sum256([]byte("first")), Principal: named(t, "billing")},
		{ID: "reports", SHA256: sha256.Sum256([]byte("second")), Principal: named(t, "reports")},
	}
	for _, row := range []struct{ user, secret, key, basic string }{
		{"billing", "first", "billing", "billing"},
		{"reports", "second", "reports", "reports"},
		{"billing", "second", "reports", ""},
		{"billing", "firs", "", ""},
		{"billing", "firstx", "", ""},
		{"billing", "", "", ""},
		{"bill", "first", "billing", ""},
		{"billing2", "first", "billing", ""},
		{"", "first", "billing", ""},
	} {
		for expected, found := range map[string]func() (*token.Principal, error){
			"key " + row.key:     func() (*token.Principal, error) { return secrets.Key(t.Context(), row.secret) },
			"basic " + row.basic: func() (*token.Principal, error) { return secrets.User(t.Context(), row.user, row.secret) },
		} {
			p, err := found()
			_, subject, _ := strings.Cut(expected, " ")
			if (p == nil) != (subject == "") || p != nil && p.Subject() != subject || p == nil &&
				!errors.Is(err, authz.ErrBadCredential) {
				t.Errorf("%q %q: %v, %v; want %s", row.user, row.secret, p, err, expected)
			}
			if err != nil && strings.Contains(err.Error(), row.secret) && row.secret != "" {
				t.Errorf("the error contains the secret: %v", err)
			}
		}
	}
}

func TestWithout(t *testing.T) {
	gate, err := authz.New(authz.Config{
		Document: load(t, everyScheme), Verifier: byLookup(lookup(t, "token")),
		Without: []string{"header", "query", "cookie", "authorization", "basic", "mtls"},
	})
	if err != nil {
		t.Fatal(err)
	}
	denied := 0
	for _, o := range gate.Plan().Operations() {
		if o.Denied != "" {
			denied++
		}
	}
	if denied != 11 {
		t.Errorf("the plan denies %d operations, want those 11 that need another credential "+
			"than a token", denied)
	}
	for path, kind := range map[string]authz.Kind{"/either": "", "/both": authz.Denied,
		"/key": authz.Denied, "/optional": ""} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer read")
		r.Header.Set("X-API-Key", "read")
		withCertificate(r, "write", true)
		if _, err := gate.Check(r, path, nil); kindOfError(err) != kind ||
			(err != nil) != (kind != "") {
			t.Errorf("%s: decided %v, want %q", path, err, kind)
		}
	}
}

// TestWithoutUndeclared: a scheme that operations require and the document does not declare can be
// disabled.
func TestWithoutUndeclared(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: Undeclared, version: "1"}
paths:
  /either: {get: {operationId: either, security: [{lost: []}, {token: []}], responses: {"204": {description: D}}}}
  /only: {get: {operationId: only, security: [{lost: []}], responses: {"204": {description: D}}}}
components: {securitySchemes: {token: {type: http, scheme: bearer}}}
`
	config := authz.Config{
		Document: load(t, document), Verifier: byLookup(lookup(t, "token")),
	}
	if _, err := authz.New(config); err == nil {
		t.Error("a document with an undeclared scheme is served")
	}
	config.Without = []string{"lost"}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for path, kind := range map[string]authz.Kind{"/either": "", "/only": authz.Denied} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer read")
		if _, err := gate.Check(r, path, nil); kindOfError(err) != kind ||
			(err != nil) != (kind != "") {
			t.Errorf("%s: decided %v, want %q", path, err, kind)
		}
	}
}

// TestSchemeDemands: two bearer schemes for different tokens.
func TestSchemeDemands(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: Two, version: "1"}
paths:
  /client: {get: {operationId: client, security: [{client: []}], responses: {"204": {description: Done.}}}}
  /person: {get: {operationId: person, security: [{person: []}], responses: {"204": {description: Done.}}}}
  /either: {get: {operationId: either, security: [{person: [read]}, {client: [write]}], responses: {"204": {description: Done.}}}}
  /staff: {get: {operationId: staff, security: [{staff: []}], responses: {"204": {description: Done.}}}}
  /maybe: {get: {operationId: maybe, security: [{}, {person: []}], responses: {"204": {description: Done.}}}}
components:
  securitySchemes:
    client: {type: http, scheme: bearer}
    person: {type: http, scheme: bearer}
    staff: {type: openIdConnect, openIdConnectUrl: https://issuer.example/}
`
	principals := map[string]token.PrincipalConfig{
		"client":   {Issuer: "https://a.example/", Subject: "app", ClientID: "app", Scopes: []string{"read", "write"}},
		"auth0":    {Issuer: "https://a.example/", Subject: "app@clients", ClientID: "app", Scopes: []string{"write"}},
		"entra":    {Issuer: "https://a.example/", Subject: "0d1", ClientID: "app", Claims: map[string]any{"idtyp": "app"}, Scopes: []string{"write"}},
		"person":   {Issuer: "https://a.example/", Subject: "alice", ClientID: "app", Scopes: []string{"read"}},
		"staff":    {Issuer: "https://b.example/", Subject: "bob", ClientID: "app", Claims: map[string]any{"group": "staff"}},
		"guest":    {Issuer: "https://b.example/", Subject: "eve", ClientID: "app", Claims: map[string]any{"group": "guest"}},
		"nameless": {Issuer: "https://a.example/", Subject: "alice"},
	}
	config := authz.Config{
		Document: load(t, document),
		Verifier: byLookup(func(_ context.Context, raw string) (*token.Principal, error) {
			return token.NewPrincipal(principals[raw])
		}),
		Schemes: map[string]authz.Scheme{
			"client": {Grant: authz.ClientGrant},
			"person": {Grant: authz.PersonGrant},
			"staff":  {Issuers: []string{"https://b.example/"}, Claims: map[string][]string{"/group": {"staff", "admin"}}},
		},
	}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for path, allowed := range map[string][]string{
		"/client": {"auth0", "client", "entra"}, "/person": {"guest", "person", "staff"}, "/staff": {"staff"},
		"/either": {"auth0", "client", "entra", "person"}, "/maybe": {"", "guest", "person", "staff"},
	} {
		for _, who := range []string{"", "auth0", "client", "entra", "guest",
			"nameless", "person", "staff"} {
			r := httptest.NewRequest("GET", path, nil)
			if who != "" {
				r.Header.Set("Authorization", "Bearer "+who)
			}
			_, err := gate.Check(r, path, nil)
			if (err == nil) != slices.Contains(allowed, who) {
				t.Errorf("%s with the token of %q: %v, want only %q", path, who, err, allowed)
			}
			if kind := kindOfError(err); err != nil && who != "" && kind != authz.InvalidToken &&
				kind != authz.InsufficientScope {
				t.Errorf("%s with the token of %q: decided %s", path, who, kind)
			}
		}
	}
}

// TestNamesOfSchemes: what the configuration names must exist, and fit.
func TestNamesOfSchemes(t *testing.T) {
	never := authz.Basic(func(context.Context, string, string) (*token.Principal, error) {
		return nil, authz.ErrAbsent
	})
	for fault, change := range map[string]func(*authz.Config){
		`Config.Authenticators has "headre"`: func(c *authz.Config) { c.Authenticators["headre"] = never },
		`Config.Authenticators has nil`:      func(c *authz.Config) { c.Authenticators["header"] = nil },
		`["header"] does not fit`:            func(c *authz.Config) { c.Authenticators["header"] = never },
		`Config.Without has "headre"`:        func(c *authz.Config) { c.Without = []string{"headre"} },
		`Config.Schemes has "headre"`:        func(c *authz.Config) { c.Schemes = map[string]authz.Scheme{"headre": {}} },
		`Config.Schemes has "header"`:        func(c *authz.Config) { c.Schemes = map[string]authz.Scheme{"header": {}} },
		`Config.Schemes["bearer"].Grant`:     func(c *authz.Config) { c.Schemes = map[string]authz.Scheme{"bearer": {Grant: "code"}} },
		`Config.Schemes["bearer"].Issuers`:   func(c *authz.Config) { c.Schemes = map[string]authz.Scheme{"bearer": {Issuers: []string{}}} },
		`Config.Schemes["bearer"].Claims`: func(c *authz.Config) {
			c.Schemes = map[string]authz.Scheme{"bearer": {Claims: map[string][]string{"a": {"b"}}}}
		},
		`Config.CookieOrigins has "app"`: func(c *authz.Config) { c.CookieOrigins = []string{"app"} },
		`GET /key: security scheme header (apiKey in header X-API-Key) has no authenticator`: func(c *authz.Config) { delete(c.Authenticators, "header") },
	} {
		config := authz.Config{Document: load(t, everyScheme),
			Verifier: byLookup(lookup(t, "token")), Authenticators: everyAuthenticator(t)}
		change(&config)
		if _, err := authz.New(config); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("error is %v, want %q", err, fault)
		}
	}
	for _, both := range []string{"{basic: [], bearer: []}", "{authorization: [], bearer: []}",
		"{authorization: [], basic: []}"} {
		document := edited(t, everyScheme, "security: [{mtls: []}]", "security: ["+both+"]")
		if _, err := authz.Compile(load(t, document)); err == nil ||
			!strings.Contains(err.Error(), "in one Authorization header") {
			t.Errorf("%s: error is %v, want a fault", both, err)
		}
	}
	quoted := edited(t, everyScheme, "name: sid", `name: 's"id'`)
	if _, err := authz.Compile(load(t, quoted)); err == nil {
		t.Error("Compile accepts a key whose name is not valid in a challenge")
	}
	stepUp := edited(t, everyScheme, "operationId: either,", "operationId: either, x-max-age: 60,")
	if _, err := authz.Compile(load(t, stepUp)); err == nil ||
		!strings.Contains(err.Error(), "x-max-age, but may be called without a token") {
		t.Errorf("step-up by key: error is %v, want a fault", err)
	}
}

// The program's own authenticators, for any scheme, including those of access tokens.
type own struct{ calls int }

func (o *own) Authenticate(r *http.Request,
	scheme *openapi3.SecurityScheme) (*token.Principal, error) {
	o.calls++
	if scheme.Type != "http" || r.Body != http.NoBody {
		return nil, errors.New("expected the scheme of the document, and no body")
	}
	if r.Header.Get("Authorization") != "Bearer opaque" {
		return nil, authz.ErrBadCredential
	}
	return token.NewPrincipal(token.PrincipalConfig{Subject: "own", Scopes: []string{"read"}})
}

func TestOwnAuthenticator(t *testing.T) {
	authenticator := &own{}
	gate, err := authz.New(authz.Config{
		Document:       load(t, plain),
		Authenticators: map[string]authz.Authenticator{"bearer": authenticator},
	})
	if err != nil {
		t.Fatal(err)
	}
	for bearer, kind := range map[string]authz.Kind{"opaque": authz.InsufficientScope,
		"other": authz.InvalidToken} {
		r := httptest.NewRequest("POST", "/things/1", strings.NewReader("{}"))
		r.Header.Set("Authorization", "Bearer "+bearer)
		if _, err := gate.Check(r, "/things/{id}", func(string) string {
			return "1"
		}); kindOfError(err) != kind {
			t.Errorf("with %q: decided %v, want %s", bearer, err, kind)
		}
	}
	if authenticator.calls != 2 {
		t.Errorf("the authenticator was called %d times for 2 requests", authenticator.calls)
	}
}

// Authenticators are called by kin-openapi's validator only, once per request.
func TestAuthenticatorsAreCalledByTheValidator(t *testing.T) {
	calls := 0
	byKey := func(context.Context, string) (*token.Principal, error) {
		calls++
		if !strings.Contains(string(debug.Stack()), "openapi3filter.ValidateSecurityRequirements") {
			t.Errorf("not called through openapi3filter, but by\n%s", debug.Stack())
		}
		return nil, authz.ErrBadCredential
	}
	document := edited(t, everyScheme, "[{header: [read]}]",
		"[{header: [read]}, {header: [write], cookie: []}, {header: []}]")
	gate, err := authz.New(authz.Config{
		Document: load(t, document), Verifier: byLookup(lookup(t, "token")),
		Authenticators: map[string]authz.Authenticator{"header": authz.APIKey(byKey),
			"cookie": authz.APIKey(byKey)},
		Without: []string{"query", "authorization", "basic", "mtls"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/key", nil)
	r.Header.Set("X-API-Key", "a")
	if _, err := gate.Check(r, "/key", nil); kindOfError(err) != authz.InvalidCredential ||
		calls != 1 {
		t.Errorf("decided %v with %d calls, want %s with one", err, calls,
			authz.InvalidCredential)
	}
}

// TestMutualTLS uses a real connection: with a certificate of the CA it is accepted, and without
// one it is not.
func TestMutualTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "write"}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	gate, subjects := schemesGate(t), make(chan string, 1)
	for _, row := range []struct {
		mode    tls.ClientAuthType
		sends   bool
		status  int
		subject string
	}{
		{tls.VerifyClientCertIfGiven, true, 204, "certificate"},
		{tls.VerifyClientCertIfGiven, false, 401, ""},
		{tls.RequestClientCert, true, 401, ""}, // not verified
	} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter,
			r *http.Request) {
			admitted, err := gate.Check(r, "/mtls", nil)
			if err != nil {
				gate.WriteProblem(w, r, err)
				return
			}
			p, _ := token.FromContext(admitted.Context())
			subjects <- p.Subject()
			w.WriteHeader(http.StatusNoContent)
		}))
		server.TLS = &tls.Config{ClientAuth: row.mode, ClientCAs: x509.NewCertPool()}
		server.TLS.ClientCAs.AddCert(certificate)
		server.StartTLS()
		client := server.Client()
		if row.sends {
			client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{
				{Certificate: [][]byte{raw}, PrivateKey: key}}
		}
		response, err := client.Get(server.URL + "/mtls")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		server.Close()
		if response.StatusCode != row.status {
			t.Errorf("%v, sends %v: status is %d, want %d", row.mode, row.sends,
				response.StatusCode, row.status)
		}
		select {
		case subject := <-subjects:
			if subject != row.subject {
				t.Errorf("the caller is %q, want %q", subject, row.subject)
			}
		default:
			if row.subject != "" {
				t.Error("the handler did not run")
			}
		}
	}
}

// TestVerdictOnSchemes compares the gate with a reference evaluator, for random alternatives of all
// types of schemes and random credentials.
func TestVerdictOnSchemes(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	one := func(of ...string) string { return of[random.IntN(len(of))] }

	doc := load(t, everyScheme)
	responses := doc.Paths.Value("/key").Get.Responses
	// the same credential
	doc.Components.SecuritySchemes["second"] = doc.Components.SecuritySchemes["bearer"]
	doc.Paths = openapi3.NewPaths()
	schemes := []string{"bearer", "second", "header", "query", "cookie", "basic", "mtls"}
	type operation struct {
		method, path string
		security     openapi3.SecurityRequirements
	}
	var operations []operation
	for i := range 400 {
		o := operation{one("GET", "POST"), fmt.Sprintf("/%d", i), openapi3.SecurityRequirements{}}
		for range random.IntN(4) {
			requirement := openapi3.SecurityRequirement{}
			for range random.IntN(4) {
				scopes := []string{}
				for _, scope := range []string{"a", "b"} {
					if random.IntN(4) == 0 {
						scopes = append(scopes, scope)
					}
				}
				requirement[one(schemes...)] = scopes
			}
			if _, basic := requirement["basic"]; basic { // it needs the header for itself
				delete(requirement, "bearer")
				delete(requirement, "second")
			}
			o.security = append(o.security, requirement)
		}
		item := &openapi3.PathItem{}
		item.SetOperation(o.method, &openapi3.Operation{OperationID: fmt.Sprint("o", i),
			Security: &o.security, Responses: responses})
		doc.Paths.Set(o.path, item)
		operations = append(operations, o)
	}
	gate, err := authz.New(authz.Config{
		Document: doc, Verifier: byLookup(lookup(t, "token")),
		Authenticators: everyAuthenticator(t),
	})
	if err != nil {
		t.Fatal(err)
	}

	const absent = ""
	ambient := []string{"cookie", "basic", "mtls"}
	reference := func(o operation, sent map[string]string, crossSite bool) int {
		anonymous, public := false, true
		var verdicts []int
		presented := 204 // the result of an operation without required credentials
		for _, requirement := range o.security {
			if len(requirement) == 0 {
				anonymous = true
				continue
			}
			public = false
			var missing, bad, down, lacks bool
			onlyAmbient, someAmbient := true, false
			for scheme, scopes := range requirement {
				credential := sent[scheme]
				missing, bad, down = missing || credential == absent, bad || credential == "bad",
					down || credential == "down"
				for _, scope := range scopes {
					lacks = lacks || !slices.Contains(strings.Split(credential, "+"), scope)
				}
				someAmbient = someAmbient || slices.Contains(ambient, scheme)
				onlyAmbient = onlyAmbient && (scheme == "query" || slices.Contains(ambient, scheme))
			}
			switch {
			case bad:
				presented = 401
			case down && presented != 401:
				presented = 503
			}
			switch {
			case missing || bad:
				verdicts = append(verdicts, 401)
			case down:
				verdicts = append(verdicts, 503)
			case lacks, onlyAmbient && someAmbient && crossSite && o.method == "POST":
				verdicts = append(verdicts, 403)
			default:
				return 204
			}
		}
		switch {
		case public:
			return 204
		case anonymous:
			return presented
		}
		for _, verdict := range []int{503, 403} {
			if slices.Contains(verdicts, verdict) {
				return verdict
			}
		}
		return 401
	}

	decided := map[int]int{}
	for range 20_000 {
		o := operations[random.IntN(len(operations))]
		sent := map[string]string{}
		state := func() string {
			return one(absent, absent, "bad", "down", "a", "b", "a+b", "a+b", "x")
		}
		r := httptest.NewRequest(o.method, o.path, nil)
		switch credential := state(); {
		case credential == absent:
		case random.IntN(2) == 0:
			sent["basic"] = credential
			r.SetBasicAuth("user", credential)
		default:
			sent["bearer"], sent["second"] = credential, credential
			r.Header.Set("Authorization", "Bearer "+credential)
		}
		// The key in the query is sent to operations that declare it. For others it is an
		// undeclared parameter.
		known := slices.ContainsFunc(o.security, func(s openapi3.SecurityRequirement) bool {
			_, ok := s["query"]
			return ok
		})
		if sent["query"] = state(); known && sent["query"] != absent {
			r.URL.RawQuery = "api_key=" + strings.ReplaceAll(sent["query"], "+", "%2B")
		}
		if sent["header"] = state(); sent["header"] != absent {
			r.Header.Set("X-API-Key", sent["header"])
		}
		if sent["cookie"] = state(); sent["cookie"] != absent {
			r.Header.Set("Cookie", "sid="+sent["cookie"])
		}
		if sent["mtls"] = state(); sent["mtls"] != absent {
			withCertificate(r, sent["mtls"], true)
		}
		crossSite := random.IntN(3) == 0
		if crossSite {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}
		status := 204
		if _, err := gate.Check(r, o.path, nil); err != nil {
			var refused *authz.Error
			if !errors.As(err, &refused) {
				t.Fatalf("Check returned a %T: %v", err, err)
			}
			status = refused.Status()
		}
		decided[status]++
		if expected := reference(o, sent, crossSite); status != expected {
			t.Fatalf("%s %v with %q, cross-site %v: decided %d, want %d", o.method, o.security,
				sent, crossSite, status, expected)
		}
	}
	for _, status := range []int{204, 401, 403, 503} {
		if decided[status] < 200 {
			t.Errorf("%d was decided %d times: the documents are not what they should be", status,
				decided[status])
		}
	}
	t.Logf("decided %v", decided)
}
