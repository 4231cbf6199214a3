package authztest

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz"
)

// ProofKey is the key of a client that proves possession of its tokens with each request (RFC
// 9449).
type ProofKey struct {
	private *ecdsa.PrivateKey
	jwk     map[string]any
}

func newProofKey() (ProofKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return ProofKey{}, err
	}
	point, err := private.PublicKey.Bytes() // 4, x, y (SEC 1 §2.3.3)
	if err != nil {
		return ProofKey{}, err
	}
	return ProofKey{private, map[string]any{
		"kty": "EC", "crv": "P-256", "x": base64url(point[1:33]), "y": base64url(point[33:]),
	}}, nil
}

// Thumbprint returns the value of jkt in tokens that are bound to the key (RFC 9449 §6.1).
func (k ProofKey) Thumbprint() string {
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`,
		k.jwk["x"], k.jwk["y"])) // RFC 7638 §3
	return base64url(sum[:])
}

// Proof returns a proof for one request (RFC 9449 §4.2). token is the access token that is sent
// with it, nonce is the nonce that the server requires; either may be "".
func (k ProofKey) Proof(method, url, token, nonce string, at time.Time) string {
	claims := map[string]any{"htm": method, "htu": url, "iat": at.Unix(), "jti": rand.Text()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64url(sum[:])
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	input := segment(map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": k.jwk}) + "." +
		segment(claims)
	sum := sha256.Sum256([]byte(input))
	x, y, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		panic(fmt.Errorf("authztest: signing a DPoP proof: %w", err)) // no randomness: never
	}
	signature := make([]byte, 64) // RFC 7518 §3.4
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	return input + "." + base64url(signature)
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// proofInput is what a proof is made from.
type proofInput struct {
	key, other         ProofKey
	method, url, token string
	nonce              string
	now                time.Time
}

func (p proofInput) proof() string { return p.key.Proof(p.method, p.url, p.token, p.nonce, p.now) }

// proofs are sent with a bound token. The first must be accepted.
var proofs = []struct {
	name string
	want authz.Kind
	make func(p proofInput) string // "" sends none
}{
	{"genuine", "", proofInput.proof},
	{"without_proof", authz.InvalidProof, func(proofInput) string { return "" }},
	{"proof_of_another_key", authz.InvalidProof, func(p proofInput) string {
		p.key = p.other
		return p.proof()
	}},
	{"proof_of_another_method", authz.InvalidProof, func(p proofInput) string {
		p.method = http.MethodTrace
		return p.proof()
	}},
	{"proof_of_another_url", authz.InvalidProof, func(p proofInput) string {
		p.url += "x"
		return p.proof()
	}},
	{"proof_of_another_token", authz.InvalidProof, func(p proofInput) string {
		p.token += "x"
		return p.proof()
	}},
	{oldProof, authz.InvalidProof, func(p proofInput) string {
		p.now = p.now.Add(-time.Hour)
		return p.proof()
	}},
	{"proof_tampered", authz.InvalidProof, func(p proofInput) string {
		right := strings.Split(p.proof(), ".")
		p.method = http.MethodTrace
		other := strings.Split(p.proof(), ".")
		return right[0] + "." + right[1] + "." + other[2]
	}},
}

const oldProof = "old_proof"

// dpopCases test tokens that are bound to a client's key (RFC 9449 §4.3, §7.1). They run only if
// the target has such tokens, because the document does not say whether the server accepts them.
func dpopCases(o authz.Operation) (cases []Case) {
	bound := credential{needs: needsBound, scheme: "DPoP", make: unchanged}
	add := func(name string, want authz.Kind, c credential, proof func(proofInput) string) *Case {
		cases = append(cases, Case{
			Name: o.ID + "/dpop_" + name, Operation: o, Scopes: alternatives(o)[0].scopes,
			Want: want, credential: c, proof: proof,
		})
		return &cases[len(cases)-1]
	}
	for _, p := range proofs {
		add(p.name, p.want, bound, p.make).timed = p.name == oldProof
	}
	add("proof_used_before", authz.InvalidProof, bound, proofInput.proof).twice = true
	bound.scheme = "Bearer" // RFC 9449 §7.2
	add("token_as_bearer", authz.InvalidToken, bound, proofInput.proof)
	return cases
}

// prove adds a proof to the request of a case, and returns it.
func (r *run) prove(sent *http.Request, c Case, authorization string) string {
	_, token, _ := strings.Cut(authorization, " ")
	at := *sent.URL
	at.RawQuery = ""
	path := strings.TrimPrefix(at.String(), strings.TrimSuffix(r.URL, "/"))
	nonce, _ := r.nonce.Load().(string)
	proof := c.proof(proofInput{
		key: r.forger.key, other: r.forger.otherKey, method: sent.Method, token: token,
		url:   strings.TrimSuffix(cmp.Or(r.Resource, r.URL), "/") + path,
		nonce: nonce, now: r.forger.now(),
	})
	if proof != "" {
		sent.Header.Set("DPoP", proof)
	}
	return proof
}

// asksForNonce stores the nonce that a response requires (RFC 9449 §9), and reports whether it is
// new, so that the case must be repeated.
func (r *run) asksForNonce(got answer) bool {
	nonce := got.header.Get("DPoP-Nonce")
	known, _ := r.nonce.Load().(string)
	if got.status != http.StatusUnauthorized || nonce == "" || nonce == known {
		return false
	}
	r.nonce.Store(nonce)
	return true
}
