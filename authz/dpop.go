package authz

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/oasgate/oasgate/authz/token"
)

// DPoPVerifier is a [Verifier] that also verifies tokens bound to a key of the client, and the
// proofs that come with them (RFC 9449). [*token.Verifier] is one. A [Gate] offers DPoP when its
// verifier does.
type DPoPVerifier interface {
	Verifier
	VerifyDPoP(ctx context.Context, token string, proof token.Proof) (*token.Principal, error)
	DPoP() token.DPoPOffer
}

// dpop is what a gate needs to take tokens with a proof.
type dpop struct {
	verifier DPoPVerifier
	offer    token.DPoPOffer
	basePath string
	base     string // what the URL of a request has in place of basePath, for clients
}

const nonceHeader = "DPoP-Nonce" // RFC 9449 §8.1

// newDPoP returns nil where DPoP is not offered.
func newDPoP(config Config, basePath, public string) (*dpop, error) {
	verifier, ok := config.Verifier.(DPoPVerifier)
	if !ok || verifier.DPoP().Algorithms == nil {
		return nil, nil
	}
	if config.Resource == "" {
		return nil, errors.New("authz: Config.Resource is empty: a DPoP proof names the URL of " +
			"its request (RFC 9449 §4.2), which is told from Resource and never from a Host " +
			"header; set it, or switch DPoP off for every issuer")
	}
	// The document's paths begin at Resource, which may end with PublicPath.
	base := strings.TrimSuffix(strings.TrimSuffix(config.Resource, "/"), public) + public
	return &dpop{verifier: verifier, offer: verifier.DPoP(), basePath: basePath, base: base}, nil
}

// used reports whether the request presents a token by the DPoP scheme.
func (d *dpop) used(r *http.Request) bool {
	if d == nil {
		return false
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, schemeDPoP)
}

// tellNonce tells a client that uses DPoP what nonce its next proof shall have, where nonces are
// asked for (RFC 9449 §8.2, §9). An answer with a nonce is not for caches, unless the handler knows
// better.
func (d *dpop) tellNonce(answer http.Header, r *http.Request) {
	if d == nil || d.offer.Nonce == "" || !d.used(r) {
		return
	}
	answer.Set(nonceHeader, d.verifier.DPoP().Nonce)
	answer.Set("Cache-Control", "no-store")
}
