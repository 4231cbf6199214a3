package token_test

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const (
	issuerURL    = "https://localhost:8443/"
	discoveryURL = issuerURL + ".well-known/openid-configuration"
	keySetURL    = issuerURL + ".well-known/jwks.json"
	audience     = "https://api.example/"
	scope        = "read:messages write:messages"
	// canary is a part of every token. Errors and logs must not contain it.
	canary = "canary-7f3a"
)

// now is what time it is in tests that do not run the clock.
var now = time.Unix(1_795_000_000, 0)

// scene is an issuer, the wire that leads to it, and the policy by which its tokens are verified.
type scene struct {
	*devissuer.Issuer
	alg    string // of its first key
	wire   *wire
	log    *logged
	policy token.Issuer
	now    func() time.Time
}

// newScene makes an issuer of EdDSA tokens, because its keys are made in no time.
func newScene(t testing.TB) *scene {
	return newSceneAt(t, "EdDSA", func() time.Time { return now })
}

func newSceneAt(t testing.TB, alg string, clock func() time.Time) *scene {
	t.Helper()
	issuer, err := devissuer.New(devissuer.Config{URL: issuerURL, Audiences: []string{audience},
		Algorithm: alg, Now: clock})
	if err != nil {
		t.Fatalf("devissuer.New: %v", err)
	}
	return &scene{
		Issuer: issuer,
		alg:    alg,
		wire:   &wire{hosts: map[string]http.Handler{"localhost:8443": issuer}},
		log:    &logged{},
		policy: token.Issuer{URL: issuerURL, Audiences: []string{audience},
			Algorithms: []string{alg}},
		now: clock,
	}
}

func (s *scene) config(issuers ...token.Issuer) token.Config {
	return token.Config{
		Issuers:    issuers,
		HTTPClient: &http.Client{Transport: s.wire},
		Now:        s.now,
		Logger:     slog.New(slog.NewTextHandler(s.log, nil)),
	}
}

// verifier returns a verifier without keys.
func (s *scene) verifier(t testing.TB) *token.Verifier {
	t.Helper()
	v, err := token.NewVerifier(t.Context(), s.config(s.policy))
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	return v
}

// header returns the header of a genuine token with changes: see object.
func (s *scene) header(changes ...string) string {
	kid, _ := s.CurrentKey()
	return object([]string{"alg", strconv.Quote(s.alg), "kid", strconv.Quote(kid), "typ",
		`"at+jwt"`, "note", strconv.Quote(canary)}, changes)
}

// claims returns the claims of a genuine token with changes: see object.
func (s *scene) claims(changes ...string) string {
	at := s.now().Unix()
	return object([]string{
		"iss", strconv.Quote(issuerURL), "sub", `"reader@clients"`, "aud", strconv.Quote(audience),
		"exp", strconv.FormatInt(at+300, 10), "iat", strconv.FormatInt(at, 10),
		"jti", `"1"`, "client_id", `"reader"`, "scope", strconv.Quote(scope), "note", strconv.Quote(canary),
	}, changes)
}

// genuine is a token as the issuer would make it, but for the changed claims.
func (s *scene) genuine(changes ...string) string {
	return s.SignBytes([]byte(s.header()), []byte(s.claims(changes...)))
}

// object returns a JSON object of names and raw values. A change replaces the value of its name,
// removes the member if it is "", or adds one. A change of the name "" is added unchanged.
func object(base, changes []string) string {
	members := slices.Clone(base)
	for change := range slices.Chunk(changes, 2) {
		replaced := false
		for i := 0; i < len(members); i += 2 {
			if members[i] == change[0] && change[0] != "" {
				members[i+1], replaced = change[1], true
			}
		}
		if !replaced {
			members = append(members, change...)
		}
	}
	var parts []string
	for member := range slices.Chunk(members, 2) {
		switch name, value := member[0], member[1]; {
		case value == "":
		case name == "":
			parts = append(parts, value)
		default:
			parts = append(parts, strconv.Quote(name)+":"+value)
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// accepted asserts that v accepts the token.
func accepted(t testing.TB, v *token.Verifier, tok string) *token.Principal {
	t.Helper()
	p, err := v.Verify(t.Context(), tok)
	if err != nil {
		t.Fatalf("a token that should be accepted was refused: %v\n%s", err, legible(tok))
	}
	return p
}

// refused asserts that v refuses the token with this code and detail, and that the error is safe to
// log.
func refused(t testing.TB, v *token.Verifier, tok string, code token.Code,
	says ...string) *token.Error {
	t.Helper()
	p, err := v.Verify(t.Context(), tok)
	if err == nil {
		t.Fatalf("accepted, and should be refused as %q\n%s", code, legible(tok))
	}
	if p != nil {
		t.Errorf("refused, but with a principal: %v", p)
	}
	e, ok := errors.AsType[*token.Error](err)
	if !ok {
		t.Fatalf("the error is a %T, want a *token.Error: %v", err, err)
	}
	if e.Code != code {
		t.Errorf("refused as %q, want %q: %s\n%s", e.Code, code, e.Detail, legible(tok))
	}
	for _, s := range says {
		if !strings.Contains(e.Detail, s) {
			t.Errorf("detail is %q: it does not say %q", e.Detail, s)
		}
	}
	loggable(t, tok, err.Error())
	return e
}

// loggable asserts that no part of the token is in the text, other than values of registered
// parameters and claims, and that the text is one line.
func loggable(t testing.TB, tok, text string) {
	t.Helper()
	if strings.Contains(text, canary) {
		t.Errorf("a value of the token is in %q", text)
	}
	for segment := range strings.SplitSeq(tok, ".") {
		for i := 0; i+16 <= len(segment); i++ {
			if strings.Contains(text, segment[i:i+16]) {
				t.Fatalf("a part of the token, %q, is in %q", segment[i:i+16], text)
			}
		}
	}
	if strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) {
		t.Errorf("not one line of text: %q", text)
	}
	if len(text) > 1500 {
		t.Errorf("an error of %d bytes, long enough to fill a log: %.200q…", len(text), text)
	}
}

// legible decodes a token for the message of a failed test.
func legible(tok string) string {
	var parts []string
	for segment := range strings.SplitSeq(tok, ".") {
		b, err := base64.RawURLEncoding.DecodeString(segment)
		if err != nil {
			b = []byte(segment)
		}
		parts = append(parts, fmt.Sprintf("%.400q", b))
	}
	return strings.Join(parts, "\n")
}

// segment is base64url without padding (RFC 7515 §2).
func segment[T string | []byte](b T) string {
	return base64.RawURLEncoding.EncodeToString([]byte(b))
}

// sign makes a token with any key and algorithm of jwx, for keys that devissuer does not have.
func sign(t testing.TB, alg string, key any, header, claims string) string {
	t.Helper()
	signer, err := jws.NewSigner(jwa.SignatureAlgorithm(alg))
	if err != nil {
		t.Fatalf("signing with %s: %v", alg, err)
	}
	input := segment(header) + "." + segment(claims)
	signature, err := signer.Sign([]byte(input), key)
	if err != nil {
		t.Fatalf("signing with %s: %v", alg, err)
	}
	return input + "." + segment(signature)
}

// jwk describes a public key (RFC 7518 §6, RFC 8037 §2), changed as by object.
func jwk(pub crypto.PublicKey, changes ...string) string {
	quoted := func(b []byte) string { return strconv.Quote(segment(b)) }
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return object([]string{"kty", `"RSA"`, "n", quoted(pub.N.Bytes()), "e",
			quoted(big.NewInt(int64(pub.E)).Bytes())}, changes)
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			panic(err)
		}
		size := len(point) / 2
		return object([]string{"kty", `"EC"`, "crv", strconv.Quote(pub.Params().Name), "x",
			quoted(point[1 : 1+size]), "y", quoted(point[1+size:])}, changes)
	case ed25519.PublicKey:
		return object([]string{"kty", `"OKP"`, "crv", `"Ed25519"`, "x", quoted(pub)}, changes)
	}
	panic(fmt.Sprintf("no JWK is known for a %T", pub))
}

// publishOnly has the issuer publish exactly these keys.
func (s *scene) publishOnly(jwks ...string) {
	s.Fail(devissuer.Fault{Endpoint: devissuer.KeySet,
		Body: []byte(`{"keys":[` + strings.Join(jwks, ",") + `]}`)})
}

// Keys that tests share, generated when first used.
var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
		return must(rsa.GenerateKey(rand.Reader, 2048))
	})
	p256Key = sync.OnceValue(func() *ecdsa.PrivateKey {
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	})
	p384Key = sync.OnceValue(func() *ecdsa.PrivateKey {
		return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	})
	p521Key = sync.OnceValue(func() *ecdsa.PrivateKey {
		return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	})
	ed25519Key = sync.OnceValue(func() ed25519.PrivateKey {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return must(key, err)
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// keyFor returns a key that alg can sign with.
func keyFor(alg string) crypto.Signer {
	switch alg {
	case "ES256":
		return p256Key()
	case "ES384":
		return p384Key()
	case "ES512":
		return p521Key()
	case "EdDSA":
		return ed25519Key()
	}
	return rsaKey()
}

// wire calls handlers of this process without a network, so that synctest can run the clock. It
// records the requested URLs.
type wire struct {
	mu    sync.Mutex
	hosts map[string]http.Handler
	asked []string
}

func (w *wire) RoundTrip(r *http.Request) (response *http.Response, err error) {
	w.mu.Lock()
	w.asked = append(w.asked, r.URL.String())
	host := w.hosts[r.URL.Host]
	w.mu.Unlock()
	if host == nil {
		return nil, fmt.Errorf("no route to %s", r.URL.Host)
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = cmp.Or(r.Context().Err(), io.ErrUnexpectedEOF)
		} else if p != nil {
			panic(p)
		}
	}()
	recorder := httptest.NewRecorder()
	host.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

// serveJSON responds to each request with body.
func serveJSON(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, body)
	})
}

// requests returns the URLs that were requested so far.
func (w *wire) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked)
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// mentions asserts that the log contains all of these.
func (l *logged) mentions(t testing.TB, says ...string) {
	t.Helper()
	for _, s := range says {
		if text := l.String(); !strings.Contains(text, s) {
			t.Errorf("the log does not say %q:\n%s", s, text)
		}
	}
}
