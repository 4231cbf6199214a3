package token

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"
)

// DPoPPolicy says whether an issuer's tokens may, or must, be bound to a key of the client (RFC
// 9449). A bound token is accepted only with a proof, made for the one request, that the client has
// the key.
type DPoPPolicy string

const (
	DPoPOff      DPoPPolicy = "off"      // only bearer tokens
	DPoPAllowed  DPoPPolicy = "allowed"  // bearer tokens, and bound tokens with a proof
	DPoPRequired DPoPPolicy = "required" // only bound tokens with a proof
)

// ProofPolicy says how DPoP proofs are checked. Zero values are the defaults.
type ProofPolicy struct {
	// Window is the largest difference between now and the time of a proof, in either direction.
	// Replays must remember each proof for that long. Default 1 min, at most 5 min.
	Window time.Duration
	// Replays remembers which proofs were used. Several servers must share one. Default: the
	// Predecessor's, or [NewReplayMemory] with room for about 4,000 proofs per second at the
	// default Window.
	Replays ReplayStore
	// Limit is how many proofs of one subject are accepted in a minute, so that a subject cannot
	// fill Replays. Each verifier counts in memory. Default 10,000, of which a [ReplayMemory] with
	// the default capacity has room for three minutes: see [NewReplayMemory].
	Limit int
	// NonceKey, if set, requires proofs to carry a nonce of the server (RFC 9449 §9). Clients then
	// cannot make proofs in advance, and their clocks do not matter, because the time of the nonce
	// is checked instead of iat. It is 32 or more secret bytes, shared by all servers.
	NonceKey []byte
	// Offered announces DPoP to clients although no issuer of Config.Issuers accepts it, for the
	// issuers of Config.Resolve.
	Offered bool
}

// Proof is what came with a token that is bound to a key (RFC 9449 §7.1).
type Proof struct {
	JWT    string // the value of the DPoP header
	Method string // of the request
	// URL is the absolute URL of the request, with the host that clients use. Query and fragment
	// are ignored.
	URL string
}

// DPoPOffer is what a server announces to its clients about DPoP.
type DPoPOffer struct {
	Algorithms []string // the algorithms of proofs; nil if DPoP is off
	Required   bool     // no token is accepted as a bearer token
	Nonce      string   // for the next proof; "" if nonces are not required
}

// DPoP returns what to announce to clients. DPoP is on if some issuer's policy is not off.
func (v *Verifier) DPoP() DPoPOffer {
	offer := DPoPOffer{Required: v.resolver == nil}
	on, fapi2 := v.offersDPoP, !v.offersDPoP
	for _, i := range v.configured {
		if i.DPoP != DPoPOff {
			on, fapi2 = true, fapi2 && i.FAPI2
		}
		offer.Required = offer.Required && i.DPoP == DPoPRequired
	}
	switch {
	case on && fapi2:
		offer.Algorithms = slices.Sorted(slices.Values(fapi2Algorithms))
	case on:
		offer.Algorithms = ProofAlgorithms()
	}
	if offer.Algorithms != nil && v.proofs.nonces != nil {
		offer.Nonce = v.proofs.nonces.current(v.proofs.now())
	}
	return offer
}

// ProofAlgorithms returns the allow-list for proofs. It is the same for every issuer, because the
// key is the client's.
func ProofAlgorithms() []string { return []string{"ES256", "EdDSA", "PS256", "RS256"} }

// VerifyDPoP returns the principal of a genuine token that is bound to the key of the proof: see
// [Verifier.VerifyPresented].
func (v *Verifier) VerifyDPoP(ctx context.Context, token string, proof Proof) (*Principal, error) {
	return v.VerifyPresented(ctx, Presented{Token: token, Proof: &proof})
}

// verifyProved verifies a token that came with a DPoP proof.
func (v *Verifier) verifyProved(ctx context.Context, presented Presented) (*verifiedToken, error) {
	p, err := parseProof(presented.Proof.JWT)
	if err != nil {
		return nil, err
	}
	if err := p.checkRequest(presented.Proof.Method, presented.Proof.URL); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(bytesOf(presented.Token)); string(p.ath) != base64url.EncodeToString(
		sum[:]) {
		return nil, refuse(InvalidProof, "ath is missing, or not the SHA-256 of the token that "+
			"came with the proof (RFC 9449 §4.2)")
	}

	proven := possession{dpop: true, certificate: presented.certificate()}
	known, err := v.verifyHere(ctx, presented.Token, proven)
	if err != nil {
		return nil, err
	}
	issuer := v.opaque
	if known != nil {
		issuer = known.issuer
	}
	if issuer.FAPI2 {
		if err := p.checkFAPI2(v.now()); err != nil {
			return nil, err
		}
	}

	// Compare the key with the token before it verifies a signature, so that only clients with a
	// genuine token can cause that cost. Verify the signature before the issuer is asked about the
	// token, which costs more.
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	jkt := thumbprint(key)
	if known != nil && jkt != known.binding.jkt {
		return nil, errOtherKey()
	}
	if err := p.checkSignature(key); err != nil {
		return nil, err
	}
	end, err := v.proofs.checkTime(p)
	if err != nil {
		return nil, err
	}
	if known, err = v.introspect(ctx, presented, known, proven); err != nil {
		return nil, err
	}
	if jkt != known.binding.jkt { // of an opaque token
		return nil, errOtherKey()
	}
	// Last, so that only proofs that pass all other checks take room in the store.
	if err := v.proofs.use(ctx, known, p, end); err != nil {
		return nil, err
	}
	return known, nil
}

func errOtherKey() error {
	return refuse(Bound, "the token is bound to a key (cnf.jkt) other than the one that signed "+
		"the proof")
}

// ProofThumbprint is for authorization servers (RFC 9449 §5): it checks the proof of a token
// request, and returns the thumbprint for the token's cnf.jkt, and the proof's jti, which the
// server must accept only once.
func ProofThumbprint(presented Proof, now time.Time) (jkt, jti string, err error) {
	p, err := parseProof(presented.JWT)
	if err != nil {
		return "", "", err
	}
	if err := p.checkRequest(presented.Method, presented.URL); err != nil {
		return "", "", err
	}
	key, err := p.key()
	if err != nil {
		return "", "", err
	}
	if err := p.checkSignature(key); err != nil {
		return "", "", err
	}
	if _, err := (&proofs{window: defaultWindow, now: func() time.Time {
		return now
	}}).checkTime(p); err != nil {
		return "", "", err
	}
	return thumbprint(key), string(p.jti), nil
}
