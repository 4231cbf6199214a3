package token_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// These tests are about where an issuer's keys are.

// stranger is a key of somebody else.
var stranger = ed25519.NewKeyFromSeed(make([]byte, 32))

// certificateOf returns an expired, untrusted certificate.
func certificateOf(t testing.TB) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, rsaKey().Public(), rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestKeyPlaces(t *testing.T) {
	key := jwk(ed25519Key().Public(), "kid", `"k"`)
	set := `{"keys":[` + key + `]}`
	document := func(issuer, keysAt string) http.Handler {
		return serveJSON(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"keys":[%s]}`, issuer, keysAt,
			key))
	}
	spki := must(x509.MarshalPKIXPublicKey(ed25519Key().Public()))
	for _, test := range []struct {
		name   string
		url    string // of the issuer; "": issuerURL
		hosts  map[string]http.Handler
		change func(*token.Issuer)
		kid    string     // of the token; "": k
		code   token.Code // of the refusal
		asked  []string
	}{
		{name: "jwks_uri alone", change: func(i *token.Issuer) { i.JWKSURI = "https://keys.example/k?v=1" },
			hosts: map[string]http.Handler{"keys.example": serveJSON(set)}, asked: []string{"https://keys.example/k?v=1"}},
		{name: "metadata elsewhere", change: func(i *token.Issuer) { i.DiscoveryURL = "https://meta.example/b2c/policy?p=1" },
			hosts: map[string]http.Handler{"meta.example": document(issuerURL, "https://keys.example/"), "keys.example": serveJSON(set)},
			asked: []string{"https://meta.example/b2c/policy?p=1", "https://keys.example/"}},
		{name: "metadata elsewhere, of another issuer", change: func(i *token.Issuer) { i.DiscoveryURL = "https://meta.example/" },
			hosts: map[string]http.Handler{"meta.example": document("https://attacker.example/", "https://meta.example/")}, code: token.KeysUnavailable},
		{name: "a set given here", change: func(i *token.Issuer) { i.JWKS = []byte(set) }},
		{name: "a set given here, another kid", change: func(i *token.Issuer) { i.JWKS = []byte(set) }, kid: "j", code: token.UnknownKey},
		{name: "a key in PEM, whatever the kid", change: func(i *token.Issuer) { i.PublicKeyPEM = pemOf("PUBLIC KEY", spki) }, kid: "any"},
		{name: "RFC 8414 where OpenID discovery answers 404", url: "https://oauth.example/tenant/a",
			hosts: map[string]http.Handler{
				"oauth.example": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/.well-known/oauth-authorization-server/tenant/a" {
						document("https://oauth.example/tenant/a", "https://oauth.example/keys").ServeHTTP(w, r)
					} else if r.URL.Path == "/keys" {
						serveJSON(set).ServeHTTP(w, r)
					} else {
						http.NotFound(w, r)
					}
				})},
			asked: []string{"https://oauth.example/tenant/a/.well-known/openid-configuration",
				"https://oauth.example/.well-known/oauth-authorization-server/tenant/a", "https://oauth.example/keys"}},
		{name: "RFC 8414 does not stand in for an outage", url: "https://oauth.example/",
			hosts: map[string]http.Handler{
				"oauth.example": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, "openid-configuration") {
						http.Error(w, "", http.StatusInternalServerError)
						return
					}
					document("https://oauth.example/", "https://oauth.example/").ServeHTTP(w, r)
				})},
			code: token.KeysUnavailable},
		{name: "http of a named host", change: func(i *token.Issuer) { i.DiscoveryURL, i.InsecureHTTP = "http://keycloak:8080/realms/x", true },
			hosts: map[string]http.Handler{"keycloak:8080": document(issuerURL, "http://keycloak:8080/keys")},
			asked: []string{"http://keycloak:8080/realms/x", "http://keycloak:8080/keys"}},
		{name: "http of a named host, the keys at another", change: func(i *token.Issuer) { i.DiscoveryURL, i.InsecureHTTP = "http://keycloak:8080/realms/x", true },
			hosts: map[string]http.Handler{"keycloak:8080": document(issuerURL, "http://keys.example/"), "keys.example": serveJSON(set)}, code: token.KeysUnavailable},
		{name: "http of a named host, the keys at another port", change: func(i *token.Issuer) { i.DiscoveryURL, i.InsecureHTTP = "http://keycloak:8080/realms/x", true },
			hosts: map[string]http.Handler{"keycloak:8080": document(issuerURL, "http://keycloak/"), "keycloak": serveJSON(set)}, code: token.KeysUnavailable},
		{name: "an issuer of http", url: "http://keycloak:8080/realms/x", change: func(i *token.Issuer) { i.InsecureHTTP = true },
			hosts: map[string]http.Handler{"keycloak:8080": document("http://keycloak:8080/realms/x", "http://keycloak:8080/keys")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.wire.hosts = test.hosts
			if test.url != "" {
				s.policy.URL = test.url
			}
			if test.change != nil {
				test.change(&s.policy)
			}
			kid := test.kid
			if kid == "" {
				kid = "k"
			}
			v := s.verifier(t)
			sign := func(signer any) string {
				return sign(t, "EdDSA", signer, s.header("kid", strconv.Quote(kid)),
					s.claims("iss", strconv.Quote(s.policy.URL)))
			}
			if test.code != "" {
				refused(t, v, sign(ed25519Key()), test.code)
				return
			}
			accepted(t, v, sign(ed25519Key()))
			refused(t, v, sign(stranger), token.BadSignature)
			if err := v.Ready(t.Context()); err != nil {
				t.Errorf("Ready says %v", err)
			}
			if pending := s.wire.requests(); test.asked != nil &&
				!slices.Equal(pending, test.asked) {
				t.Errorf("requested %q, want %q", pending, test.asked)
			}
			if s.policy.InsecureHTTP {
				s.log.mentions(t, "level=WARN", "keys are fetched over http", "keycloak:8080")
			}
		})
	}
}

// TestKeysInCertificates: the key counts, the chain does not.
func TestKeysInCertificates(t *testing.T) {
	der := certificateOf(t)
	encoded := base64.StdEncoding.EncodeToString(der)
	entry := func(more string) string { return `{"kty":"RSA","kid":"k",` + more + `}` }
	for _, test := range []struct {
		name   string
		change func(*scene)
		code   token.Code
	}{
		{"x5c alone", func(s *scene) { s.publishOnly(entry(`"x5c":["` + encoded + `","broken"]`)) }, ""},
		{"x5c with alg", func(s *scene) { s.publishOnly(entry(`"alg":"RS256","x5c":["` + encoded + `"]`)) }, ""},
		{"x5c with another alg", func(s *scene) {
			s.publishOnly(jwk(p256Key().Public()), entry(`"alg":"PS256","x5c":["`+encoded+`"]`))
		}, token.WrongAlgorithm},
		{"x5c of another kty", func(s *scene) {
			s.publishOnly(jwk(p256Key().Public()), strings.Replace(entry(`"x5c":["`+encoded+`"]`),
				"RSA", "EC", 1))
		}, token.UnknownKey},
		{"x5c broken", func(s *scene) { s.publishOnly(jwk(p256Key().Public()), entry(`"x5c":["AAAA"]`)) }, token.UnknownKey},
		{"the members are the key, not x5c", func(s *scene) {
			s.publishOnly(jwk(ed25519Key().Public(), "kid", `"k"`, "x5c", `["`+encoded+`"]`))
		}, token.WrongAlgorithm},
		{"a certificate in PEM", func(s *scene) { s.policy.PublicKeyPEM = pemOf("CERTIFICATE", der) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.policy.Algorithms = []string{"RS256", "PS256", "EdDSA"}
			test.change(s)
			tok := sign(t, "RS256", rsaKey(), s.header("alg", `"RS256"`, "kid", `"k"`), s.claims())
			if v := s.verifier(t); test.code == "" {
				accepted(t, v, tok)
			} else {
				refused(t, v, tok, test.code)
			}
		})
	}
}

func TestKeyPlaceFaults(t *testing.T) {
	private := must(x509.MarshalPKCS8PrivateKey(rsaKey()))
	for says, change := range map[string]func(*token.Issuer){
		"expected one of DiscoveryURL, JWKSURI, JWKS and PublicKeyPEM, received 2": func(i *token.Issuer) {
			i.JWKSURI, i.DiscoveryURL = "https://a.example/", "https://a.example/"
		},
		`JWKS URI is "http://keys.example/": http is accepted on loopback hosts only`: func(i *token.Issuer) { i.JWKSURI = "http://keys.example/" },
		`discovery URL is "file:///x": expected an https URL`:                         func(i *token.Issuer) { i.DiscoveryURL = "file:///x" },
		"InsecureHTTP is set, but no URL uses http":                                   func(i *token.Issuer) { i.InsecureHTTP = true },
		"JWKS: not a JWK set":                       func(i *token.Issuer) { i.JWKS = []byte("x") },
		"none of the 0 keys can verify a signature": func(i *token.Issuer) { i.JWKS = []byte(`{"keys":[]}`) },
		"the private or symmetric key": func(i *token.Issuer) {
			i.JWKS = []byte(`{"keys":[{"kty":"oct","kid":"a","k":"AAAA"},` +
				jwk(p256Key().Public()) + `]}`)
		},
		"PublicKeyPEM: expected one PEM block":               func(i *token.Issuer) { i.PublicKeyPEM = []byte("x") },
		`received a PEM block of type "PRIVATE KEY"`:         func(i *token.Issuer) { i.PublicKeyPEM = pemOf("PRIVATE KEY", private) },
		"PublicKeyPEM: the PUBLIC KEY block is malformed":    func(i *token.Issuer) { i.PublicKeyPEM = pemOf("PUBLIC KEY", []byte("x")) },
		"SubjectOptional is set, but the strict profile":     func(i *token.Issuer) { i.SubjectOptional, i.RFC9068 = true, true },
		"the URL of the keys has {tenantid}":                 func(i *token.Issuer) { i.JWKSURI = "https://keys.example/{tenantid}" },
		"tenants are given, but the URL has no {tenantid}":   func(i *token.Issuer) { i.Tenants = []string{"a"} },
		"expected {tenantid} once, as a segment of the path": func(i *token.Issuer) { i.URL = "https://{tenantid}.example/" },
		"expected no placeholder but {tenantid}":             func(i *token.Issuer) { i.URL = "https://login.example/{tenant}/" },
		"the URL has {tenantid}, but no tenants are given":   func(i *token.Issuer) { i.URL = "https://login.example/{tenantid}/" },
		`tenant "a/../b": expected letters, digits`:          func(i *token.Issuer) { i.URL, i.Tenants = "https://login.example/{tenantid}/", []string{"a/../b"} },
		`tenant "a" is listed twice`:                         func(i *token.Issuer) { i.URL, i.Tenants = "https://login.example/{tenantid}/", []string{"a", "a"} },
		"InsecureAnyTenant: the keys must be common":         func(i *token.Issuer) { i.URL, i.InsecureAnyTenant = "https://login.example/{tenantid}/", true },
		"Tenants and InsecureAnyTenant are both set": func(i *token.Issuer) {
			i.URL, i.Tenants, i.InsecureAnyTenant = "https://login.example/{tenantid}/", []string{"a"}, true
		},
	} {
		s := newScene(t)
		change(&s.policy)
		if _, err := token.NewVerifier(t.Context(), s.config(s.policy)); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("NewVerifier says %v, want %q", err, says)
		}
	}
}

// rotating is an issuer whose key set can have an ETag.
type rotating struct {
	tagged     bool
	generation atomic.Int32
	full       atomic.Int32 // responses with the whole key set
	same       atomic.Int32 // answers that it has not changed
}

func (r *rotating) kid() string { return fmt.Sprintf("k%d", r.generation.Load()) }

func (r *rotating) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if strings.Contains(q.URL.Path, ".well-known") {
		serveJSON(`{"issuer":"`+issuerURL+`","jwks_uri":"`+issuerURL+`keys"}`).ServeHTTP(w, q)
		return
	}
	if r.tagged {
		tag := `"` + r.kid() + `"`
		w.Header().Set("ETag", tag)
		if q.Header.Get("If-None-Match") == tag {
			r.same.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	r.full.Add(1)
	serveJSON(`{"keys":[`+jwk(ed25519Key().Public(), "kid", strconv.Quote(r.kid()))+`]}`).ServeHTTP(
		w, q)
}

// TestKeysRotationUnderJunk: attackers who invent kids, the same or a new one each time, cannot
// make tokens of a new key invalid. They can only delay them until the next refresh.
func TestKeysRotationUnderJunk(t *testing.T) {
	for _, test := range []struct {
		name     string
		tagged   bool
		distinct bool
		cooldown time.Duration
	}{
		{"one kid", false, false, 30 * time.Second},
		{"many kids", false, true, 30 * time.Second},
		{"one kid, with an ETag", true, false, 5 * time.Second},
		{"many kids, with an ETag", true, true, 5 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scene) {
				issuer := &rotating{tagged: test.tagged}
				s.wire.hosts["localhost:8443"] = issuer
				v := s.verifier(t)
				genuine := func() string {
					return sign(t, "EdDSA", ed25519Key(),
						s.header("kid", strconv.Quote(issuer.kid())), s.claims())
				}
				accepted(t, v, genuine())
				var pending, junk int
				send := func() {
					kid := "nope"
					if test.distinct {
						kid += strconv.Itoa(junk)
					}
					junk++
					_, err := v.Verify(t.Context(),
						sign(t, "EdDSA", stranger, s.header("kid", strconv.Quote(kid)), s.claims()))
					if e := err.(*token.Error); e.Code != token.UnknownKey &&
						e.Code != token.KeyPending {
						t.Errorf("junk is refused as %v", err)
					}
				}
				for range 20 * 40 { // before the rotation
					send()
					time.Sleep(50 * time.Millisecond)
				}
				issuer.generation.Add(1)
				rotated := time.Now()
				for {
					send()
					_, err := v.Verify(t.Context(), genuine())
					if err == nil {
						break
					}
					e := err.(*token.Error)
					if e.Code != token.KeyPending || e.RetryAfter <= 0 ||
						e.RetryAfter > test.cooldown {
						t.Fatalf("a genuine token of the new key: %v, again after %s", err,
							e.RetryAfter)
					}
					pending++
					time.Sleep(50 * time.Millisecond)
				}
				if took := time.Since(rotated); took > test.cooldown {
					t.Errorf("served %s after the rotation, want at most %s", took,
						test.cooldown)
				}
				synctest.Wait()
				if limit := int32(time.Since(rotated)/test.cooldown + 40*time.Second/test.cooldown +
					3); issuer.full.Load()+issuer.same.Load() > limit {
					t.Errorf("%d and %d requests for keys, want %d at most", issuer.full.Load(),
						issuer.same.Load(), limit)
				}
				if test.tagged && issuer.full.Load() != 2 {
					t.Errorf("the whole key set came %d times, want once for each generation",
						issuer.full.Load())
				}
				t.Logf("%d × pending, %d × junk, %d whole and %d unchanged answers", pending, junk,
					issuer.full.Load(), issuer.same.Load())
			})
		})
	}
}

// TestKeysUnknownKidIsRemembered: after a fetch without the kid, it is unknown, not pending. The
// memory for such kids is bounded.
func TestKeysUnknownKidIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		of := func(kid string) string {
			return s.SignBytes([]byte(s.header("kid", strconv.Quote(kid))), []byte(s.claims()))
		}
		refused(t, v, of("nope"), token.UnknownKey, `has kid "nope" (key set fetched 0s ago)`)
		s.fetches(t, 2, "for nope")
		time.Sleep(10 * time.Second)
		atOnce(t, func() {
			refused(t, v, of("nope"), token.UnknownKey, `(key set fetched 10s ago)`)
			refused(t, v, of("other"), token.KeyPending, `kid "other" is unknown`)
			// Checks that need no key are first.
			refused(t, v, s.SignBytes([]byte(s.header("kid", `"other"`)),
				[]byte(s.claims("aud", `"x"`))), token.WrongAudience)
			refused(t, v, s.SignBytes([]byte(s.header("kid", `"other"`)),
				[]byte(s.claims("exp", "1"))), token.Expired)
		})
		s.fetches(t, 2, "during the cooldown")
	})
	bubble(t, func(t *testing.T, s *scene) { // a cold start with more kids than are remembered
		v := s.verifier(t)
		s.Fail(devissuer.Fault{Delay: time.Second})
		var group sync.WaitGroup
		for n := range 500 {
			group.Go(func() {
				refused(t, v, s.SignBytes([]byte(s.header("kid", strconv.Quote(strconv.Itoa(n)))),
					[]byte(s.claims())), token.UnknownKey)
			})
		}
		group.Wait()
		s.fetches(t, 2, "for five hundred kids: one that some of them caused, one that began "+
			"after they came")
	})
}
