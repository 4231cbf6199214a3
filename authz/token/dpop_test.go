package token_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jwx "github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/oasgate/oasgate/authz/token"
)

// The request that the proofs of these tests are of.
const (
	method = "GET"
	target = "https://api.example/messages/a%20b"
)

// dpopScene is an issuer whose tokens can be bound, and a client with keys.
type dpopScene struct {
	*scene
	store *counting
}

// counting is a replay store that counts its calls, and can fail.
type counting struct {
	token.ReplayStore
	err error

	mu    sync.Mutex
	uses  int
	until time.Time // of the last use
}

func (c *counting) Use(
	ctx context.Context, key, caller string, until time.Time,
) (bool, error) {
	c.mu.Lock()
	c.uses++
	c.until = until
	c.mu.Unlock()
	if c.err != nil {
		return false, c.err
	}
	return c.ReplayStore.Use(ctx, key, caller, until)
}

func newDPoPScene(t testing.TB) *dpopScene {
	s := newScene(t)
	s.policy.DPoP = token.DPoPAllowed
	return &dpopScene{s, &counting{ReplayStore: token.NewReplayMemory(1<<16, s.now)}}
}

func (s *dpopScene) verifier(t testing.TB, change ...func(*token.Config)) *token.Verifier {
	t.Helper()
	config := s.config(s.policy)
	config.Proofs.Replays = s.store
	for _, change := range change {
		change(&config)
	}
	v, err := token.NewVerifier(t.Context(), config)
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	return v
}

// bound returns a token that is bound to the public part of a key.
func (s *dpopScene) bound(key crypto.Signer) string {
	return s.genuine("cnf", `{"jkt":`+strconv.Quote(thumbprintOf(key))+`}`)
}

// thumbprintOf computes thumbprints with jwx, independently of this package.
func thumbprintOf(key crypto.Signer) string {
	sum := must(must(jwx.FromRaw(key.Public())).Thumbprint(crypto.SHA256))
	return segment(sum)
}

func ath(tok string) string {
	sum := sha256.Sum256([]byte(tok))
	return segment(sum[:])
}

var proofs atomic.Int64

// proofHeader and proofClaims are those of a valid proof, with changes: see object.
func proofHeader(alg string, key crypto.Signer, changes ...string) string {
	return object([]string{"typ", `"dpop+jwt"`, "alg", strconv.Quote(alg), "jwk", jwkOf(key)},
		changes)
}

func (s *dpopScene) proofClaims(tok string, changes ...string) string {
	return object([]string{
		"htm", strconv.Quote(method), "htu", strconv.Quote(target), "iat", strconv.FormatInt(s.now().Unix(), 10),
		"jti", strconv.Quote(fmt.Sprint(proofs.Add(1))), "ath", strconv.Quote(ath(tok)),
	}, changes)
}

// proof returns a valid proof, with changed claims.
func (s *dpopScene) proof(t testing.TB, key crypto.Signer, tok string, changes ...string) string {
	t.Helper()
	return sign(t, "ES256", key, proofHeader("ES256", key), s.proofClaims(tok, changes...))
}

func jwkOf(key crypto.Signer, changes ...string) string { return jwk(key.Public(), changes...) }

func of(proof string) token.Proof { return token.Proof{JWT: proof, Method: method, URL: target} }

func proved(t testing.TB, v *token.Verifier, tok, proof string) *token.Principal {
	t.Helper()
	p, err := v.VerifyDPoP(t.Context(), tok, of(proof))
	if err != nil {
		t.Fatalf("a token and a proof that should be accepted were refused: %v\n%s\n%s", err,
			legible(tok), legible(proof))
	}
	return p
}

func wantProofRefused(t testing.TB, v *token.Verifier, tok string, proof token.Proof,
	code token.Code,
	says ...string) *token.Error {
	t.Helper()
	p, err := v.VerifyDPoP(t.Context(), tok, proof)
	if err == nil || p != nil {
		t.Fatalf("accepted, with %v, and should be refused as %q\n%s\n%s", p, code, legible(tok),
			legible(proof.JWT))
	}
	e, ok := errors.AsType[*token.Error](err)
	if !ok {
		t.Fatalf("the error is a %T, want a *token.Error: %v", err, err)
	}
	if e.Code != code {
		t.Errorf("refused as %q, want %q: %s\n%s", e.Code, code, e.Detail, legible(proof.JWT))
	}
	for _, s := range says {
		if !strings.Contains(e.Detail, s) {
			t.Errorf("detail is %q: it does not say %q", e.Detail, s)
		}
	}
	loggable(t, tok, err.Error())
	return e
}

// RFC 9449 §4.3, item by item: proofs that are not valid for this key, request, token or time.
func TestProofsThatAreRefused(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)
	es256 := func(header, claims string) string { return sign(t, "ES256", key, header, claims) }
	claims := func(changes ...string) string {
		return es256(proofHeader("ES256", key), s.proofClaims(tok, changes...))
	}
	header := func(changes ...string) string {
		return es256(proofHeader("ES256", key, changes...), s.proofClaims(tok))
	}
	good := claims()
	parts := strings.Split(good, ".")
	at := func(seconds int64) string { return strconv.FormatInt(now.Unix()+seconds, 10) }
	coordinate := strconv.Quote(segment(make([]byte, 32)))
	small := new(big.Int).SetBit(big.NewInt(1), 1023, 1).Bytes()

	for _, test := range []struct {
		name, proof string
		says        string
	}{
		{"empty", "", "not three segments of canonical base64url"},
		{"rubbish", "x.y.z", "not three segments of canonical base64url"},
		{"two proofs joined", good + ", " + good, "not three segments of canonical base64url"},
		{"JSON serialization", `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, "not three segments of canonical base64url"},
		{"five segments", good + ".a.b", "not three segments of canonical base64url"},
		{"no signature", parts[0] + "." + parts[1] + ".", "not three segments of canonical base64url"},
		{"padded", good + "=", "not three segments of canonical base64url"},
		{"too long", good + strings.Repeat("A", 8<<10), "more than the limit of 8192"},

		{"typ absent", header("typ", ""), `typ of the proof is ""`},
		{"typ of a token", header("typ", `"at+jwt"`), `typ of the proof is "at+jwt", expected dpop+jwt`},
		{"typ JWT", header("typ", `"JWT"`), `typ of the proof is "JWT"`},
		{"typ twice", header("", `"typ":"dpop+jwt"`), "a member name occurs twice"},
		{"alg absent", header("alg", ""), "the header has no alg"},
		{"alg none", segment(proofHeader("none", key)) + "." + parts[1] + ".AAAA", `alg of the proof is "none"`},
		{"alg symmetric", header("alg", `"HS256"`), `alg of the proof is "HS256"`},
		{"alg not on the list", header("alg", `"ES384"`), `alg of the proof is "ES384", expected one of ES256, EdDSA, PS256, RS256`},
		{"alg of another kind of key", header("alg", `"PS256"`), "alg is PS256, which does not fit a key of this type and curve"},
		{"alg in lower case", header("alg", `"es256"`), `alg of the proof is "es256"`},
		{"crit", header("crit", `["x"]`), "crit is not allowed"},
		{"b64", header("b64", "false"), "b64 is not allowed"},
		{"header no object", es256("[]", s.proofClaims(tok)), "not a JSON object"},

		{"jwk absent", header("jwk", ""), "it is missing"},
		{"jwk null", header("jwk", "null"), "not a JSON object"},
		{"jwk a string", header("jwk", `"x"`), "not a JSON object"},
		{"jwk with a private key", header("jwk", jwkOf(key, "d", coordinate)), "private or symmetric key"},
		{"jwk of RSA with a prime", header("jwk", jwkOf(rsaKey(), "p", coordinate)), "private or symmetric key"},
		{"jwk symmetric", header("jwk", `{"kty":"oct","k":"AAAA"}`), "private or symmetric key"},
		{"jwk with an empty private member", header("jwk", jwkOf(key, "d", `""`)), "private or symmetric key"},
		{"jwk with a private key under a name that only looks alike", header("jwk", jwkOf(key, "D", coordinate)), "jwk of the proof"},
		{"jwk symmetric, under a name that only looks alike", header("jwk", `{"kty":"oct","K":"AAAA"}`), "jwk of the proof"},
		{"jwk without a coordinate", header("jwk", jwkOf(key, "y", "")), "kty is unknown or its members are wrong"},
		{"jwk off its curve", header("jwk", jwkOf(key, "x", coordinate)), "jwk of the proof"},
		{"jwk twice x", header("jwk", jwkOf(key, "", `"x":`+coordinate)), "a member name occurs twice"},
		{"jwk of an unknown kind", header("jwk", `{"kty":"XX"}`), "kty is unknown"},
		{"jwk of RSA that is too small", header("alg", `"RS256"`, "jwk", `{"kty":"RSA","e":"AQAB","n":`+strconv.Quote(segment(small))+`}`), "RSA key of 1024 bits"},
		{"jwk of RSA with an even exponent", header("alg", `"RS256"`, "jwk", jwkOf(rsaKey(), "e", `"BA"`)), "RSA exponent"},
		{"jwk of RSA with exponent 1", header("alg", `"RS256"`, "jwk", jwkOf(rsaKey(), "e", `"AQ"`)), "RSA exponent"},
		{"jwk for key agreement", header("alg", `"EdDSA"`, "jwk", `{"kty":"OKP","crv":"X25519","x":`+coordinate+`}`), "jwk of the proof"},
		{"jwk of Ed25519 of small order", header("alg", `"EdDSA"`, "jwk", `{"kty":"OKP","crv":"Ed25519","x":"`+strings.Repeat("A", 43)+`"}`), "small order"},
		{"jwk of Ed25519 that is too short", header("alg", `"EdDSA"`, "jwk", `{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`), "jwk of the proof"},

		{"claims no object", es256(proofHeader("ES256", key), "[]"), "not a JSON object"},
		{"claims no JSON", es256(proofHeader("ES256", key), "{x"), "not valid JSON"},
		{"claims with something after them", es256(proofHeader("ES256", key), s.proofClaims(tok)+"{}"), "data after"},
		{"htm twice", claims("", `"htm":"GET"`), "a member name occurs twice"},
		{"htm absent", claims("htm", ""), "htm, htu and iat are all required"},
		{"htm a number", claims("htm", "1"), "htm is not a string"},
		{"htm another", claims("htm", `"POST"`), `htm is "POST", expected the method of the request, "GET"`},
		{"htm in lower case", claims("htm", `"get"`), `htm is "get"`},
		{"htu absent", claims("htu", ""), "htm, htu and iat are all required"},
		{"htu empty", claims("htu", `""`), "htu is not an absolute"},
		{"htu relative", claims("htu", `"/messages/a%20b"`), "htu is not an absolute"},
		{"htu without a host", claims("htu", `"https:///messages/a%20b"`), "htu is not an absolute"},
		{"htu with a user", claims("htu", `"https://user@api.example/messages/a%20b"`), "htu is not an absolute"},
		{"htu of another scheme", claims("htu", `"ftp://api.example/messages/a%20b"`), "htu is not an absolute"},
		{"htu without TLS", claims("htu", `"http://api.example/messages/a%20b"`), `htu is a URL of "http://api.example", expected "https://api.example"`},
		{"htu of another server", claims("htu", `"https://api.example.evil/messages/a%20b"`), `htu is a URL of "https://api.example.evil"`},
		{"htu of another port", claims("htu", `"https://api.example:8443/messages/a%20b"`), `htu is a URL of "https://api.example:8443"`},
		{"htu of another path", claims("htu", `"https://api.example/messages/c"`), `the path of htu differs from that of the request, which is "/messages/a%20b"`},
		{"htu of a path in another case", claims("htu", `"https://api.example/Messages/a%20b"`), "the path of htu"},
		{"htu with a slash at the end", claims("htu", `"https://api.example/messages/a%20b/"`), "the path of htu"},
		{"htu with a slash that is encoded", claims("htu", `"https://api.example/messages%2Fa%20b"`), "the path of htu"},
		{"htu with a character that no URI has", claims("htu", `"https://api.example/messages/a%20b\u00a0"`), "htu is not an absolute"},
		{"htu of a server whose name ends in a Kelvin sign", claims("htu", `"https://api.example\u212a/messages/a%20b"`), "htu is not an absolute"},
		{"htu with a broken escape", claims("htu", `"https://api.example/messages/a%2"`), "htu is not an absolute"},
		{"iat absent", claims("iat", ""), "htm, htu and iat are all required"},
		{"iat a string", claims("iat", strconv.Quote(at(0))), "iat is not a number"},
		{"iat too old", claims("iat", at(-60)), "made 1m0s ago (iat), expected at most 1m0s"},
		{"iat in the future", claims("iat", at(60)), "iat of the proof is 1m0s in the future"},
		{"iat in milliseconds", claims("iat", at(0)+"000"), "iat of the proof"},
		{"jti absent", claims("jti", ""), "jti has 0 bytes"},
		{"jti empty", claims("jti", `""`), "jti has 0 bytes"},
		{"jti a number", claims("jti", "1"), "jti is not a string"},
		{"jti too long", claims("jti", strconv.Quote(strings.Repeat("x", 257))), "jti has 257 bytes, expected 1 to 256"},
		{"ath absent", claims("ath", ""), "ath is missing, or not the SHA-256"},
		{"ath of another token", claims("ath", strconv.Quote(ath(s.bound(key)+"x"))), "ath is missing, or not"},
		{"ath padded", claims("ath", strconv.Quote(ath(tok)+"=")), "ath is missing, or not"},
		{"nonce a number", claims("nonce", "1"), "nonce is not a string"},

		{"signature of something else", parts[0] + "." + segment(s.proofClaims(tok)) + "." + parts[2], "the signature of the proof does not verify with its jwk"},
		{"signature cut short", parts[0] + "." + parts[1] + "." + parts[2][:80], "the signature of the proof"},
		{"signature of another key", sign(t, "ES256", otherKey(), proofHeader("ES256", key), s.proofClaims(tok)), "the signature of the proof"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := wantProofRefused(t, v, tok, of(test.proof), token.InvalidProof, test.says)
			loggable(t, test.proof, e.Error())
		})
	}
	if n := s.store.uses; n != 0 {
		t.Errorf("refused proofs are %d times in the replay store, want none: "+
			"anybody could fill it", n)
	}
	proved(t, v, tok, good)
}

var otherKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
})

func TestProofsThatAreAccepted(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)
	claims := func(changes ...string) string { return s.proof(t, key, tok, changes...) }
	header := func(changes ...string) string {
		return sign(t, "ES256", key, proofHeader("ES256", key, changes...), s.proofClaims(tok))
	}
	at := func(seconds float64) string {
		return strconv.FormatFloat(float64(now.Unix())+seconds, 'f', -1, 64)
	}
	for name, proof := range map[string]string{
		"plain":                        claims(),
		"typ in capitals":              header("typ", `"DPOP+JWT"`),
		"a kid beside jwk":             header("kid", `"x"`),
		"further members of jwk":       header("jwk", jwkOf(key, "kid", `"x"`, "use", `"sig"`, "alg", `"ES256"`)),
		"members that nobody knows":    claims("https://example/x", `{"a":[1]}`, "exp", "1"),
		"a nonce that nobody asked of": claims("nonce", `"x"`),
		"the longest jti":              claims("jti", strconv.Quote(strings.Repeat("x", 256))),
		"the oldest iat":               claims("iat", at(-59.9)),
		"the newest iat":               claims("iat", at(59.9)),
		"htu with a query":             claims("htu", `"https://api.example/messages/a%20b?x=/y"`),
		"htu with a fragment":          claims("htu", `"https://api.example/messages/a%20b#x?y"`),
		"htu with the default port":    claims("htu", `"https://api.example:443/messages/a%20b"`),
		"htu with an empty port":       claims("htu", `"https://api.example:/messages/a%20b"`),
		"htu with capitals":            claims("htu", `"HTTPS://API.Example/messages/a%20b"`),
		"htu with needless escapes":    claims("htu", `"https://api.example/%6dessages/%61%20b"`),
		"htu with dot segments":        claims("htu", `"https://api.example/x/./../messages/a%20b"`),
		"htu in JSON's escapes":        claims("htu", `"https:\/\/api.example\/messages\/a%20b"`),
	} {
		t.Run(name, func(t *testing.T) {
			if p := proved(t, v, tok, proof); p.Subject() != "reader@clients" ||
				!p.HasScope("read:messages") {
				t.Errorf("the principal is %s with %q, want that of the token", p.Subject(),
					p.Scopes())
			}
		})
	}
	for _, alg := range token.ProofAlgorithms() {
		t.Run(alg, func(t *testing.T) {
			key := keyFor(alg)
			tok := s.bound(key)
			proved(t, v, tok, sign(t, alg, key, proofHeader(alg, key), s.proofClaims(tok)))
		})
	}
	t.Run("the request's own URL with a query, in other capitals", func(t *testing.T) {
		if _, err := v.VerifyDPoP(t.Context(), tok, token.Proof{JWT: claims(), Method: method,
			URL: "HTTPS://API.EXAMPLE:443/messages/a%20b?x"}); err != nil {
			t.Error(err)
		}
	})
}

// Routers do not resolve dot segments: a proof for /messages is not valid for /x/../messages.
func TestDotSegmentsOfTheRequestAreNotResolved(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)
	for _, path := range []string{"/x/../messages/a%20b", "/x/%2e%2E/messages/a%20b",
		"/./messages/a%20b"} {
		wantProofRefused(t, v, tok, token.Proof{JWT: s.proof(t, key, tok), Method: method, URL: "https://api.example" + path}, token.InvalidProof, "the path of htu")
	}
}

// Which tokens are accepted with which scheme, by policy. The cache makes no difference.
func TestBindingAndSchemeTruthTable(t *testing.T) {
	jkt := `"jkt":` + strconv.Quote(thumbprintOf(p256Key()))
	const pass = token.Code("")
	type row struct {
		cnf            string
		bearer, proven token.Code
	}
	for policy, rows := range map[token.DPoPPolicy][]row{
		token.DPoPOff: {
			{"", pass, token.WrongScheme},
			{"{" + jkt + "}", token.Bound, token.WrongScheme},
			{`{"x5t#S256":"x"}`, token.Bound, token.Bound},
		},
		token.DPoPAllowed: {
			{"", pass, token.WrongScheme},
			{"{" + jkt + "}", token.Bound, pass},
			{`{"jkt":` + strconv.Quote(thumbprintOf(otherKey())) + "}", token.Bound, token.Bound},
			{`{"x5t#S256":"x"}`, token.Bound, token.Bound},
			{"{" + jkt + `,"x5t#S256":"x"}`, token.Bound, token.Bound}, // of the other binding a proof proves nothing
			{"{" + jkt + `,"x5t#S256":1}`, token.Bound, token.Bound},
			{"{" + jkt + `,"kc-jkt-type":"DPoP"}`, token.Bound, pass}, // Keycloak's
			{`{"kc-jkt-type":"DPoP",` + jkt + `,"kid":7}`, token.Bound, pass},
			{`{"kc-jkt-type":"DPoP"}`, token.Bound, token.WrongScheme},
			{"{" + jkt + "," + jkt + "}", token.Malformed, token.Malformed},
			{`{"jkt":1}`, token.Bound, token.WrongScheme},
			{`{"jkt":""}`, token.Bound, token.WrongScheme},
			{`{"JKT":"x"}`, token.Bound, token.WrongScheme},
			{"{}", token.Bound, token.WrongScheme},
			{"null", token.Bound, token.WrongScheme},
			{`"x"`, token.Bound, token.WrongScheme},
		},
		token.DPoPRequired: {
			{"", token.WrongScheme, token.WrongScheme},
			{"{" + jkt + "}", token.Bound, pass},
			{`{"x5t#S256":"x"}`, token.Bound, token.Bound},
		},
	} {
		for _, row := range rows {
			t.Run(fmt.Sprintf("%s, cnf %s", policy, row.cnf), func(t *testing.T) {
				s := newDPoPScene(t)
				s.policy.DPoP = policy
				tok := s.genuine("cnf", row.cnf)
				bearer := func(v *token.Verifier) {
					t.Helper()
					if row.bearer == pass {
						accepted(t, v, tok)
					} else {
						refused(t, v, tok, row.bearer)
					}
				}
				proven := func(v *token.Verifier) {
					t.Helper()
					if proof := s.proof(t, p256Key(), tok); row.proven == pass {
						proved(t, v, tok, proof)
					} else {
						wantProofRefused(t, v, tok, of(proof), row.proven)
					}
				}
				v := s.verifier(t)
				bearer(v)
				proven(v)
				bearer(v)
				proven(v)
				v = s.verifier(t) // and the reverse
				proven(v)
				bearer(v)
			})
		}
	}
}

// Proofs are refused without the issuer's keys if possible, and refused proofs are not recorded as
// used.
func TestProofsWhileTheIssuerIsDown(t *testing.T) {
	s := newDPoPScene(t)
	s.wire.hosts["localhost:8443"] = http.NotFoundHandler()
	clock := now
	s.now = func() time.Time { return clock }
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)
	wantProofRefused(t, v, tok, of("x"), token.InvalidProof)
	wantProofRefused(t, v, tok, of(s.proof(t, key, tok, "htm", `"POST"`)), token.InvalidProof)
	wantProofRefused(t, v, tok, of(s.proof(t, key, tok, "ath", `"x"`)), token.InvalidProof)
	plain := s.genuine()
	wantProofRefused(t, v, plain, of(s.proof(t, key, plain)), token.WrongScheme)
	if pending := s.wire.requests(); len(pending) != 0 {
		t.Errorf("%q were requested, want no requests yet", pending)
	}
	proof := s.proof(t, key, tok)
	wantProofRefused(t, v, tok, of(proof), token.KeysUnavailable)
	s.wire.hosts["localhost:8443"] = s.Issuer
	clock = clock.Add(time.Second)
	proved(t, v, tok, proof)
}

// A key that the token does not name is refused, whatever its signature.
func TestProofOfAnotherKeyIsRefusedBeforeItsSignature(t *testing.T) {
	s := newDPoPScene(t)
	v := s.verifier(t)
	tok := s.bound(p256Key())
	proof := s.proof(t, otherKey(), tok)
	wantProofRefused(t, v, tok, of(proof), token.Bound, "bound to a key (cnf.jkt) other than")
	wantProofRefused(t, v, tok, of(proof[:len(proof)-8]+"AAAAAAAA"), token.Bound,
		"bound to a key (cnf.jkt) other than")
}

func TestProofIsUsedOnce(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)

	t.Run("by one of many at once", func(t *testing.T) {
		proof := s.proof(t, key, tok)
		var passed atomic.Int64
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range 32 {
			all.Go(func() {
				<-begin
				_, err := v.VerifyDPoP(t.Context(), tok, of(proof))
				if err == nil {
					passed.Add(1)
				} else if e, ok := errors.AsType[*token.Error](err); !ok ||
					e.Code != token.ProofReplayed {
					t.Errorf("refused by %v, want code %s", err, token.ProofReplayed)
				}
			})
		}
		close(begin)
		all.Wait()
		if passed.Load() != 1 {
			t.Errorf("%d of 32 passed with one proof, want 1", passed.Load())
		}
	})
	t.Run("whatever else it says", func(t *testing.T) {
		proved(t, v, tok, s.proof(t, key, tok, "jti", `"again"`))
		wantProofRefused(t, v, tok, of(s.proof(t, key, tok, "jti", `"again"`, "x", "1")),
			token.ProofReplayed, "used before")
	})
	t.Run("and another's jti is another's", func(t *testing.T) {
		theirs := s.bound(otherKey())
		proved(t, v, theirs, s.proof(t, otherKey(), theirs, "jti", `"again"`))
	})
	t.Run("also with its signature written in the other way", func(t *testing.T) {
		proof := s.proof(t, key, tok)
		proved(t, v, tok, proof)
		wantProofRefused(t, v, tok, of(otherSignature(t, proof)), token.ProofReplayed)
	})
	t.Run("and after a change of the configuration", func(t *testing.T) {
		config := s.config(s.policy)
		first := must(token.NewVerifier(t.Context(), config))
		proof := s.proof(t, key, tok)
		proved(t, first, tok, proof)
		config.Predecessor = first
		wantProofRefused(t, must(token.NewVerifier(t.Context(), config)), tok, of(proof),
			token.ProofReplayed)
	})
}

// otherSignature returns an ES256 signature (r, s) as (r, n−s), which is valid too.
func otherSignature(t *testing.T, proof string) string {
	t.Helper()
	parts := strings.Split(proof, ".")
	raw := must(base64.RawURLEncoding.DecodeString(parts[2]))
	s := new(big.Int).SetBytes(raw[32:])
	s.Sub(p256Key().Params().N, s).FillBytes(raw[32:])
	return parts[0] + "." + parts[1] + "." + segment(raw)
}

// If the store fails, all proofs are refused, and used proofs are not removed to make room.
func TestReplayStoreFails(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)
	s.store.err = errors.New("the store is down")
	e := wantProofRefused(t, v, tok, of(s.proof(t, key, tok)), token.ReplaysUnavailable)
	if e.RetryAfter <= 0 || !errors.Is(e, s.store.err) {
		t.Errorf(
			"RetryAfter is %s, cause %v: want when to come back, and the store's own error",
			e.RetryAfter, e.Err)
	}

	small := s.verifier(t, func(c *token.Config) {
		c.Proofs.Replays = token.NewReplayMemory(2, s.now)
	})
	first, other := s.proof(t, key, tok), s.boundTo(key, "other")
	proved(t, small, tok, first)
	proved(t, small, other, s.proof(t, key, other))
	wantProofRefused(t, small, tok, of(s.proof(t, key, tok)), token.ReplaysUnavailable)
	wantProofRefused(t, small, tok, of(first), token.ProofReplayed)
}

// boundTo returns a token of a subject that is bound to a key.
func (s *dpopScene) boundTo(key crypto.Signer, subject string) string {
	return s.genuine("cnf", `{"jkt":`+strconv.Quote(thumbprintOf(key))+`}`, "sub",
		strconv.Quote(subject))
}

// TestReplayMemoryIsShared: subjects that use their shares of the store leave room for others. When
// their proofs end, the room returns.
func TestReplayMemoryIsShared(t *testing.T) {
	s := newDPoPScene(t)
	clock := now
	s.now = func() time.Time { return clock }
	store := token.NewReplayMemory(1000, s.now)
	v, key := s.verifier(t, func(c *token.Config) { c.Proofs.Replays = store }), p256Key()
	accepted := 0
	for _, subject := range []string{"a", "b", "c", "d", "e"} {
		flood := s.boundTo(key, subject)
		for {
			_, err := v.VerifyDPoP(t.Context(), flood, of(s.proof(t, key, flood)))
			if err == nil {
				accepted++
				continue
			}
			if e, ok := errors.AsType[*token.Error](err); !ok || e.Code != token.ProofLimit ||
				e.RetryAfter <= 0 {
				t.Errorf("a subject that has used its share: %v", err)
			}
			break
		}
	}
	if accepted > 300 {
		t.Errorf("five subjects have used %d of 1000 places, want at most 300", accepted)
	}
	for n := range 100 {
		quiet := s.boundTo(key, fmt.Sprint("quiet", n))
		proved(t, v, quiet, s.proof(t, key, quiet))
	}
	clock = clock.Add(4 * time.Minute)
	again := s.boundTo(key, "a")
	for range 30 {
		proved(t, v, again, s.proof(t, key, again))
	}
}

// TestOneSubjectAtTheLimit: the defaults of Limit and of the store fit together. A subject that
// sends as many proofs as it may does not use up its share of the store, and 20 of them do not fill
// it.
func TestOneSubjectAtTheLimit(t *testing.T) {
	const limit, capacity, stored = 10_000, 1 << 19, 3 * time.Minute
	clock := now
	store := token.NewReplayMemory(capacity, func() time.Time { return clock })
	use := func(caller string, proof ...any) error {
		fresh, err := store.Use(t.Context(), caller+fmt.Sprint(proof...), caller, clock.Add(stored))
		if err == nil && !fresh {
			err = errors.New("used before")
		}
		return err
	}
	for second := range 8 * 60 {
		subjects := 1
		if second >= 4*60 {
			subjects = 20
		}
		for subject := range subjects {
			for n := range limit / 60 {
				if err := use(fmt.Sprint(subject), second, n); err != nil && subjects == 1 {
					t.Fatalf("one subject, after %d s: %v", second, err)
				}
			}
		}
		if err := use("other", second); err != nil {
			t.Fatalf("another subject, after %d s: %v", second, err)
		}
		clock = clock.Add(time.Second)
	}
}

// TestProofLimit: a subject that floods does not fill the store, and other subjects are not
// refused.
func TestProofLimit(t *testing.T) {
	const limit = 5
	s := newDPoPScene(t)
	clock := now
	s.now = func() time.Time { return clock }
	config := s.config(s.policy)
	config.Proofs.Limit = limit
	config.Proofs.Replays = token.NewReplayMemory(200, s.now)
	v := must(token.NewVerifier(t.Context(), config))
	flooder, other := p256Key(), otherKey()
	flood := s.bound(flooder)
	quiet := s.genuine("cnf", `{"jkt":`+strconv.Quote(thumbprintOf(other))+`}`, "sub", `"quiet"`)
	var used []string
	for range limit {
		proof := s.proof(t, flooder, flood)
		proved(t, v, flood, proof)
		used = append(used, proof)
		if len(used) < limit {
			wantProofRefused(t, v, flood, of(used[0]), token.ProofReplayed) // which does not count
		}
	}
	refused := s.proof(t, flooder, flood)
	for range 3 * limit {
		e := wantProofRefused(t, v, flood, of(refused), token.ProofLimit, "has sent 5 proofs")
		if e.RetryAfter != clock.Truncate(time.Minute).Add(time.Minute).Sub(clock) {
			t.Errorf("RetryAfter is %s, want the rest of the minute", e.RetryAfter)
		}
	}
	for range limit - 1 {
		proved(t, v, quiet, s.proof(t, other, quiet))
	}
	config.Predecessor = v
	v = must(token.NewVerifier(t.Context(), config))
	wantProofRefused(t, v, flood, of(refused), token.ProofLimit) // after a reload too
	wantProofRefused(t, v, flood, of(used[0]), token.ProofLimit)

	clock = clock.Truncate(time.Minute).Add(time.Minute)
	for _, proof := range used {
		wantProofRefused(t, v, flood, of(proof), token.ProofReplayed)
	}
	proved(t, v, flood, refused)
}

// slowStore is a replay store that does not answer until it is opened.
type slowStore struct {
	asked chan struct{}
	open  chan struct{}
}

func (s *slowStore) Use(context.Context, string, string, time.Time) (bool, error) {
	s.asked <- struct{}{}
	<-s.open
	return true, nil
}

// TestProofLimitOfConcurrentProofs: proofs count while the store is asked.
func TestProofLimitOfConcurrentProofs(t *testing.T) {
	const limit, sent = 2, 20
	s := newDPoPScene(t)
	slow := &slowStore{make(chan struct{}, sent), make(chan struct{})}
	v := s.verifier(t, func(c *token.Config) { c.Proofs.Replays, c.Proofs.Limit = slow, limit })
	key := p256Key()
	tok := s.bound(key)
	results := make(chan error, sent)
	for range sent {
		proof := s.proof(t, key, tok)
		go func() {
			_, err := v.VerifyDPoP(t.Context(), tok, of(proof))
			results <- err
		}()
	}
	// All but two are refused while the store has not answered, or more would have asked it.
	for range sent - limit {
		select {
		case err := <-results:
			if e, ok := errors.AsType[*token.Error](err); !ok || e.Code != token.ProofLimit {
				t.Errorf("%v, want the code %s", err, token.ProofLimit)
			}
		case <-time.After(time.Minute):
			close(slow.open)
			t.Fatalf("%d proofs have asked the store, want %d", len(slow.asked), limit)
		}
	}
	close(slow.open)
	for range limit {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestProofLimitAfterFailures: proofs that the store could not check do not count.
func TestProofLimitAfterFailures(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t, func(c *token.Config) { c.Proofs.Limit = 1 }), p256Key()
	tok := s.bound(key)
	s.store.err = errors.New("the store is down")
	for range 2 {
		wantProofRefused(t, v, tok, of(s.proof(t, key, tok)), token.ReplaysUnavailable)
	}
	s.store.err = nil
	proved(t, v, tok, s.proof(t, key, tok))
	wantProofRefused(t, v, tok, of(s.proof(t, key, tok)), token.ProofLimit)
}

// TestProofLimitOfClients: a client does not use up the limit of the subject of the same name.
func TestProofLimitOfClients(t *testing.T) {
	s := newDPoPScene(t)
	s.policy.SubjectOptional = true
	v, key := s.verifier(t, func(c *token.Config) { c.Proofs.Limit = 1 }), p256Key()
	cnf := `{"jkt":` + strconv.Quote(thumbprintOf(key)) + `}`
	client := s.genuine("sub", "", "client_id", `"victim"`, "cnf", cnf)
	proved(t, v, client, s.proof(t, key, client))
	wantProofRefused(t, v, client, of(s.proof(t, key, client)), token.ProofLimit)
	subject := s.genuine("sub", `"victim"`, "cnf", cnf)
	proved(t, v, subject, s.proof(t, key, subject))
}

// TestClockSetBackWithAnyStore: proofs that a store may have forgotten are not accepted again.
func TestClockSetBackWithAnyStore(t *testing.T) {
	s := newDPoPScene(t)
	clock := now
	s.now = func() time.Time { return clock }
	s.store.ReplayStore = forgetful{}
	config := s.config(s.policy)
	config.Proofs.Replays = s.store
	v, key := must(token.NewVerifier(t.Context(), config)), p256Key()
	tok := s.bound(key)
	used := s.proof(t, key, tok)
	proved(t, v, tok, used)
	at := func(after time.Duration) string {
		clock = now.Add(after)
		return s.proof(t, key, tok, "iat", strconv.FormatInt(clock.Unix(), 10))
	}
	proved(t, v, tok, at(4*time.Minute))
	clock = now
	uses := s.store.uses
	wantProofRefused(t, v, tok, of(used), token.ReplaysUnavailable)
	config.Predecessor = v
	v = must(token.NewVerifier(t.Context(), config)) // after a reload too
	wantProofRefused(t, v, tok, of(used), token.ReplaysUnavailable)
	if s.store.uses != uses {
		t.Error("the store was asked for a key that it may have forgotten")
	}
	proved(t, v, tok, at(4*time.Minute))
}

// forgetful is a replay store that has forgotten everything.
type forgetful struct{}

func (forgetful) Use(context.Context, string, string, time.Time) (bool, error) { return true, nil }

// A proof is remembered for as long as any server could take it for fresh.
func TestProofIsStoredLongEnough(t *testing.T) {
	s := newDPoPScene(t)
	v, key := s.verifier(t), p256Key()
	tok := s.bound(key)
	for _, iat := range []float64{-59, 0, 59.5} {
		proved(t, v, tok, s.proof(t, key, tok, "iat", strconv.FormatFloat(float64(now.Unix())+iat,
			'f', -1, 64)))
		const window, clocks = time.Minute, time.Minute
		if least := now.Add(time.Duration(iat*1e9) + window + clocks); s.store.until.Before(least) {
			t.Errorf("a proof made at %+v s is remembered until %s, want %s or later", iat,
				s.store.until, least)
		}
	}
}

func TestReplayMemoryExpires(t *testing.T) {
	clock := now
	m := token.NewReplayMemory(3, func() time.Time { return clock })
	use := func(key string, life time.Duration) (fresh, ok bool) {
		fresh, err := m.Use(t.Context(), key, "", clock.Add(life))
		return fresh, err == nil
	}
	for _, step := range []struct {
		key       string
		life      time.Duration
		fresh, ok bool
		then      time.Duration
	}{
		{"a", 10 * time.Second, true, true, 0},
		{"b", 20 * time.Second, true, true, 0},
		{"c", 3500 * time.Millisecond, true, true, 3400 * time.Millisecond},
		{"c", time.Second, false, true, 0},
		{"d", time.Second, false, false, 1700 * time.Millisecond}, // full
		{"d", 9 * time.Second, true, true, 0},                     // c has ended
		{"a", time.Second, false, true, 6 * time.Second},
		{"a", time.Second, true, true, 0}, // it has ended
		{"b", time.Second, false, true, time.Hour},
		{"b", time.Second, true, true, 0},
	} {
		if fresh, ok := use(step.key, step.life); fresh != step.fresh || ok != step.ok {
			t.Fatalf("at %s, %s: fresh %t, without error %t; want %t, %t", clock.Sub(now),
				step.key, fresh, ok, step.fresh, step.ok)
		}
		clock = clock.Add(step.then)
	}
}

// RFC 9449 §9: with nonces, the time of the nonce is checked instead of the client's clock.
func TestNonces(t *testing.T) {
	s := newDPoPScene(t)
	clock := now
	s.now = func() time.Time { return clock }
	secret := []byte(strings.Repeat("k", 32))
	nonces := func(c *token.Config) { c.Proofs.NonceKey = secret }
	v, replica, unknown := s.verifier(t, nonces), s.verifier(t, nonces),
		s.verifier(t, func(c *token.Config) {
			c.Proofs.NonceKey = []byte(strings.Repeat("x", 32))
		})
	key := p256Key()
	tok := s.genuine("cnf", `{"jkt":`+strconv.Quote(thumbprintOf(key))+`}`, "iat", "1", "exp",
		strconv.FormatInt(now.Unix()+3600+600, 10))
	proof := func(nonce string, changes ...string) string {
		return s.proof(t, key, tok, append([]string{"nonce", strconv.Quote(nonce)}, changes...)...)
	}
	nonce := v.DPoP().Nonce
	if nonce == "" || nonce != replica.DPoP().Nonce || nonce == unknown.DPoP().Nonce {
		t.Fatalf("nonces are %q, %q with the same key and %q with another", nonce,
			replica.DPoP().Nonce, unknown.DPoP().Nonce)
	}
	wantProofRefused(t, v, tok, of(s.proof(t, key, tok)), token.NonceRequired, "has no nonce")
	wantProofRefused(t, v, tok, of(proof("")), token.NonceRequired)
	wantProofRefused(t, v, tok, of(proof(unknown.DPoP().Nonce)), token.NonceRequired,
		"Do the servers share their nonce key?")
	proved(t, replica, tok, proof(nonce))
	proved(t, v, tok, proof(nonce, "iat", "1")) // the client's clock is in 1970

	for _, step := range []struct {
		after  time.Duration
		serves bool
	}{{-time.Minute, true}, {-2 * time.Minute, false}, {time.Minute, true},
		{2 * time.Minute, false}, {time.Hour, false}} {
		clock = now.Add(step.after)
		if step.serves {
			proved(t, v, tok, proof(nonce))
			if least := s.now(); s.store.until.Before(least) {
				t.Errorf("a proof is remembered until %s, which is over at %s", s.store.until,
					least)
			}
		} else {
			wantProofRefused(t, v, tok, of(proof(nonce)), token.NonceRequired, "too old")
		}
	}
	clock = now
	used := proof(nonce)
	proved(t, v, tok, used)
	wantProofRefused(t, replica, tok, of(used), token.ProofReplayed)
	if s.store.until.Before(now.Add(2 * time.Minute)) {
		t.Errorf("a proof is remembered until %s, and its nonce may serve until 2 min after %s",
			s.store.until, now)
	}
}

func TestDPoPOffer(t *testing.T) {
	for _, test := range []struct {
		policies []token.DPoPPolicy
		on, only bool
	}{
		{[]token.DPoPPolicy{""}, false, false},
		{[]token.DPoPPolicy{token.DPoPOff}, false, false},
		{[]token.DPoPPolicy{token.DPoPAllowed}, true, false},
		{[]token.DPoPPolicy{token.DPoPRequired}, true, true},
		{[]token.DPoPPolicy{token.DPoPOff, token.DPoPRequired}, true, false},
		{[]token.DPoPPolicy{token.DPoPRequired, token.DPoPRequired}, true, true},
	} {
		config := token.Config{}
		for n, policy := range test.policies {
			config.Issuers = append(config.Issuers, token.Issuer{URL: fmt.Sprintf("https://localhost/%d", n), Audiences: []string{"x"}, DPoP: policy})
		}
		offer := must(token.NewVerifier(t.Context(), config)).DPoP()
		if on := slices.Equal(offer.Algorithms, token.ProofAlgorithms()); on != test.on ||
			offer.Required != test.only || offer.Nonce != "" {
			t.Errorf("policies %q: the offer is %+v", test.policies, offer)
		}
	}
}

func TestProofPolicyFaults(t *testing.T) {
	_, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: "https://localhost/", Audiences: []string{"x"}, DPoP: "on"}},
		Proofs:  token.ProofPolicy{Window: time.Hour, Limit: -1, NonceKey: []byte("short")},
	})
	for _, fault := range []string{
		`issuer "https://localhost/": DPoP policy is "on": expected off, allowed or required`,
		"Proofs.Window is 1h0m0s: expected a positive duration of at most 5m0s",
		"Proofs.Limit is -1: expected a positive number",
		"Proofs.NonceKey has 5 bytes: expected at least 32",
	} {
		if err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("no fault says %q, in:\n%v", fault, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "short") {
		t.Errorf("the key itself is in %q", err)
	}
}

// The examples of RFC 9449, figures 2, 9, 12 and 13, with the keys, thumbprint and hash that are
// printed there.
func TestRFC9449Examples(t *testing.T) {
	const (
		jwkPart    = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
		tokenProof = jwkPart +
			".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
		requestProof = jwkPart +
			".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
		jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	)
	for _, example := range []struct {
		proof token.Proof
		at    int64
		jti   string
	}{
		{token.Proof{JWT: tokenProof, Method: "POST", URL: "https://server.example.com/token"}, 1562262616, "-BwC3ESc6acc2lTc"},
		{token.Proof{JWT: requestProof, Method: "GET", URL: "https://resource.example.org/protectedresource"}, 1562262618, "e1j3V_bKic8-LAEB"},
	} {
		got, jti, err := token.ProofThumbprint(example.proof, time.Unix(example.at, 0))
		if got != jkt || jti != example.jti || err != nil {
			t.Errorf("%s: thumbprint %q, jti %q, error %v; want %s, %s", example.proof.URL, got,
				jti, err, jkt, example.jti)
		}
	}
	got := ath("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU")
	if got != "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo" {
		t.Errorf("the hash of figure 13's token is %s", got)
	}
}

func ExampleVerifier_VerifyDPoP() {
	v, err := token.NewVerifier(context.Background(), token.Config{Issuers: []token.Issuer{{
		URL: "https://issuer.example/", Audiences: []string{"https://api.example"}, DPoP: token.DPoPRequired,
	}}})
	if err != nil {
		panic(err)
	}
	offer, _ := json.Marshal(v.DPoP())
	fmt.Println(string(offer))

	_, err = v.VerifyDPoP(context.Background(), "a.b.c", token.Proof{JWT: "", Method: "GET", URL: "https://api.example/messages"})
	fmt.Println(err)
	// Output:
	// {"Algorithms":["ES256","EdDSA","PS256","RS256"],"Required":true,"Nonce":""}
	// token: dpop_proof: the proof is not three segments of canonical base64url (RFC 7515 §7.1)
}

// BenchmarkVerifyDPoP measures a cached token with a new proof, as in each request of a client with
// DPoP.
func BenchmarkVerifyDPoP(b *testing.B) {
	for _, alg := range token.ProofAlgorithms() {
		b.Run(alg, func(b *testing.B) {
			s := newDPoPScene(b)
			s.store.ReplayStore = token.NewReplayMemory(1<<30, s.now)
			v, key := s.verifier(b), keyFor(alg)
			tok := s.bound(key)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				proof := sign(b, alg, key, proofHeader(alg, key), s.proofClaims(tok))
				b.StartTimer()
				if _, err := v.VerifyDPoP(b.Context(), tok, of(proof)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
