package authz

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/oasgate/oasgate/authz/token"
)

// DPoPVerifier is a [Verifier] that also verifies tokens bound to a key of the client, with their
// proofs (RFC 9449). [*token.Verifier] is one. A [Gate] offers DPoP if its verifier does.
type DPoPVerifier interface {
	Verifier
	VerifyDPoP(ctx context.Context, token string, proof token.Proof) (*token.Principal, error)
	DPoP() token.DPoPOffer
}

// dpop is the DPoP configuration of a gate.
type dpop struct {
	verifier DPoPVerifier
	offer    token.DPoPOffer
	basePath string
	base     string // replaces basePath in the URL of a request, for clients
}

const nonceHeader = "DPoP-Nonce" // RFC 9449 §8.1

// newDPoP returns nil if DPoP is not offered.
func newDPoP(config Config, basePath, public string) (*dpop, error) {
	verifier, ok := config.Verifier.(DPoPVerifier)
	if !ok || verifier.DPoP().Algorithms == nil {
		return nil, nil
	}
	if config.Resource == "" {
		return nil, errors.New("authz: Config.Resource is empty: a DPoP proof names the URL of " +
			"its request (RFC 9449 §4.2), which is derived from Resource and never from a Host " +
			"header; set it, or turn DPoP off for every issuer")
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

// setNonce sets the nonce for the next proof of a client that uses DPoP, if nonces are required
// (RFC 9449 §8.2, §9). It also forbids caching, which the handler may override.
func (d *dpop) setNonce(answer http.Header, r *http.Request) {
	if d == nil || d.offer.Nonce == "" || !d.used(r) {
		return
	}
	answer.Set(nonceHeader, d.verifier.DPoP().Nonce)
	answer.Set("Cache-Control", "no-store")
}
