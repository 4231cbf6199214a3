package devissuer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// invalidProof is the error code of RFC 9449 §5.
const invalidProof = "invalid_dpop_proof"

// boundKey returns the thumbprint of the key that the token is bound to (RFC 9449 §5), or "" for a
// bearer token if the request has no proof.
func (i *Issuer) boundKey(r *http.Request) (jkt string, refused *refusal) {
	proofs := r.Header.Values("DPoP")
	switch len(proofs) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", refuse(invalidProof, "there is more than one DPoP header")
	}
	now := i.cfg.Now()
	jkt, jti, err := token.ProofThumbprint(token.Proof{JWT: proofs[0], Method: r.Method,
		URL: i.endpoints + tokenPath}, now)
	if e, ok := errors.AsType[*token.Error](err); ok {
		return "", refuse(invalidProof, e.Detail)
	}
	fresh, err := i.proofs.Use(r.Context(), jkt+" "+jti, "", now.Add(5*time.Minute))
	switch {
	case err != nil:
		return "", refuse(invalidProof, "too many recent proofs: try again in a few minutes")
	case !fresh:
		return "", refuse(invalidProof, "the proof was used before: make one for each request")
	}
	return jkt, nil
}

// Prover makes DPoP proofs (RFC 9449) with a client's key.
type Prover struct {
	key *signingKey
	now func() time.Time
}

// NewProver generates a key for an algorithm such as ES256. now is time.Now if nil.
func NewProver(alg string, now func() time.Time) (*Prover, error) {
	if now == nil {
		now = time.Now
	}
	key, err := newSigningKey(alg)
	return &Prover{key, now}, err
}

// JWK returns the public key as it appears in proofs.
func (p *Prover) JWK() json.RawMessage { return p.key.bare }

// Thumbprint returns the thumbprint of the key (RFC 7638 §3), the cnf.jkt of tokens that are bound
// to it.
func (p *Prover) Thumbprint() string {
	// RFC 7638 requires sorted members, as json.Marshal writes maps, and no optional ones.
	sum := sha256.Sum256(p.key.bare)
	return segment(sum[:])
}

// Proof makes a proof for one request (RFC 9449 §4.2). token is the access token of the request, or
// "" for a token request. claims override and add to the claims, and a nil value removes one, as in
// [Issuer.Mint].
func (p *Prover) Proof(method, url, token string, claims map[string]any) string {
	made := map[string]any{"htm": method, "htu": url, "iat": p.now().Unix(), "jti": rand.Text()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		made["ath"] = segment(sum[:])
	}
	return p.Sign(nil, merge(made, claims))
}

// Sign makes a proof with exactly these claims. The header has typ, alg and jwk, which header
// overrides and adds to, as in [Issuer.Mint]. The signature uses the key's algorithm, whatever the
// header says.
func (p *Prover) Sign(header, claims map[string]any) string {
	made := map[string]any{"typ": "dpop+jwt", "alg": p.key.alg, "jwk": p.key.bare}
	return p.key.compact(encode(merge(made, header)), encode(claims))
}
