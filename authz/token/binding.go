package token

import (
	"context"
	"crypto/sha256"
	"crypto/x509"

	"github.com/go-json-experiment/json/jsontext"
)

// Presented is an access token with what came with it.
type Presented struct {
	Token string
	// Proof is the DPoP proof (RFC 9449 §7.1), or nil if the token was presented as a bearer token.
	Proof *Proof
	// Certificate is the client's certificate, or nil. The TLS handshake, here or at a trusted
	// proxy, has proven possession of its key (RFC 8705 §3). Its chain and dates are not checked.
	Certificate *x509.Certificate
	// Introspect asks the issuer now whether the token is active, without the cache. A token of an
	// issuer without [Introspection] is refused.
	Introspect bool
	// Client names the sender, such as its network address. The introspection requests for unknown
	// opaque tokens are divided between clients. Default: together with all that have no name.
	Client string
}

// VerifyPresented returns the principal of a genuine token that was presented with the proof or
// certificate that it is bound to, or an [*Error] that names the check that failed. With
// [KeysUnavailable], [KeyPending] and [IntrospectionUnavailable] the token could not be verified,
// because the issuer's keys could not be fetched or introspection failed; ctx bounds the wait. The
// codes [InvalidProof], [NonceRequired] and [ProofReplayed] are about the proof rather than the
// token. With [ReplaysUnavailable] the [ReplayStore] failed, and with [ProofLimit] the subject has
// sent too many proofs; then the request must be refused.
//
// A proof is accepted once: a second call with the same one is refused.
func (v *Verifier) VerifyPresented(ctx context.Context, presented Presented) (*Principal, error) {
	known, err := v.verifyPresented(ctx, presented)
	if err != nil {
		v.counts.refuse(err)
		return nil, err
	}
	return known.principal, nil
}

func (v *Verifier) verifyPresented(ctx context.Context,
	presented Presented) (*verifiedToken, error) {
	if err := checkLength(presented.Token); err != nil {
		return nil, err
	}
	if presented.Proof != nil {
		return v.verifyProved(ctx, presented)
	}
	proven := possession{certificate: presented.certificate()}
	known, err := v.verifyHere(ctx, presented.Token, proven)
	if err != nil {
		return nil, err
	}
	return v.introspect(ctx, presented, known, proven)
}

// Offer is what a verifier supports in addition to bearer tokens.
type Offer struct {
	MTLS       bool // some issuer accepts tokens bound to the client's certificate
	Introspect bool // every issuer supports [Presented.Introspect]
	Opaque     bool // some issuer accepts opaque tokens
}

// Offer returns what metadata may announce and what a document may demand. Introspect is about the
// configured issuers only: for those of Config.Resolve it is checked per token.
func (v *Verifier) Offer() Offer {
	offer := Offer{MTLS: v.resolver != nil, Introspect: true, Opaque: v.opaque != nil}
	for _, i := range v.configured {
		offer.MTLS = offer.MTLS || i.MTLS != MTLSOff
		offer.Introspect = offer.Introspect && i.Introspection.on()
	}
	return offer
}

// certificate returns the thumbprint of the client's certificate (RFC 8705 §3.1), or "".
func (p Presented) certificate() string {
	if p.Certificate == nil {
		return ""
	}
	sum := sha256.Sum256(p.Certificate.Raw)
	return encode(sum[:])
}

// MTLSPolicy says whether an issuer's tokens may, or must, be bound to the client's certificate
// (RFC 8705).
type MTLSPolicy string

const (
	MTLSOff      MTLSPolicy = "off"      // tokens bound to a certificate are refused
	MTLSAllowed  MTLSPolicy = "allowed"  // they are accepted with the certificate
	MTLSRequired MTLSPolicy = "required" // only they are accepted
)

// possession is what the sender of a token has proven to possess. verifyProved verifies the
// signature of the DPoP proof later.
type possession struct {
	dpop        bool
	certificate string // the thumbprint
}

// binding is how a token is bound to a key (RFC 7800), if it is.
type binding struct {
	bound       bool   // the token has cnf, of any kind
	broken      bool   // cnf, or a supported member of it, is malformed
	jkt         string // the thumbprint of the key (RFC 9449 §6.1), or ""
	certificate string // x5t#S256, the thumbprint of the certificate (RFC 8705 §3.1), or ""
}

// readBinding reads cnf. It ignores unknown members (RFC 7800 §3.1), but a token with only unknown
// members is still bound: see check.
func readBinding(cnf jsontext.Value) binding {
	b := binding{bound: true}
	if cnf.Kind() != '{' {
		b.broken = true
		return b
	}
	err := eachMember(cnf, func(name []byte, value jsontext.Value) error {
		var into *string
		switch string(name) {
		case "jkt":
			into = &b.jkt
		case "x5t#S256":
			into = &b.certificate
		default:
			return nil
		}
		text, err := textOf(string(name), value)
		*into = string(text)
		b.broken = b.broken || len(text) == 0
		return err
	})
	b.broken = b.broken || err != nil
	return b
}

// check compares the binding of a token with what its sender has proven to possess, and both with
// the issuer's policy. Every supported binding must match, and a bound token needs at least one.
func (b binding) check(i *issuer, proven possession) error {
	switch {
	case !proven.dpop && b.bound && b.certificate == "", !proven.dpop && b.jkt != "":
		// RFC 9449 §7.2, RFC 8705 §3
		return refuse(Bound,
			"the token is bound to a key (cnf) and was presented as a bearer token")
	case b.certificate != "" && i.MTLS == MTLSOff:
		return refuse(Bound, "the token is bound to a certificate (cnf.x5t#S256), and the MTLS "+
			"policy for %s is off", i.URL)
	case b.certificate != "" && proven.certificate == "":
		return refuse(Bound,
			"the token is bound to a certificate (cnf.x5t#S256), and the client presented none")
	case b.certificate != "" && proven.certificate != b.certificate:
		return refuse(Bound, "the token is bound to a certificate (cnf.x5t#S256) other than the "+
			"one that the client presented")
	case b.certificate == "" && i.MTLS == MTLSRequired:
		return refuse(WrongScheme,
			"the tokens of %s must be bound to the client's certificate (cnf.x5t#S256)", i.URL)
	case !proven.dpop && i.DPoP == DPoPRequired:
		return refuse(WrongScheme, "presented as a bearer token, but the tokens of %s must be "+
			"bound to a key and come with a DPoP proof", i.URL)
	case proven.dpop && i.DPoP == DPoPOff:
		return refuse(WrongScheme, "presented with a DPoP proof, but the DPoP policy for %s is off",
			i.URL)
	case proven.dpop && b.jkt == "":
		return refuse(WrongScheme,
			"presented with a DPoP proof, but not bound to a key by cnf.jkt (RFC 9449 §6.1)")
	case i.FAPI2 && !proven.dpop && b.certificate == "":
		return refuse(WrongScheme, "presented as a bearer token, but the tokens of %s must be "+
			"bound to a key or a certificate", i.URL)
	case b.broken:
		return refuse(Bound, "cnf is malformed (RFC 7800 §3.1)")
	}
	return nil
}
