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
	// Proof is the DPoP proof (RFC 9449 §7.1). nil: the token was presented as a bearer token.
	Proof *Proof
	// Certificate is that of the client, whose key the TLS handshake has proved (RFC 8705 §3), here
	// or at a proxy that is believed. Whether anybody trusts it does not matter. nil: none.
	Certificate *x509.Certificate
	// Introspect has the issuer asked now whether the token is active, whatever it answered before.
	// A token of an issuer without [Introspection] is refused.
	Introspect bool
}

// VerifyPresented returns the principal of a genuine token with which came what it is bound to, or
// an [*Error] that names the check that failed. With [KeysUnavailable], [KeyPending] and
// [IntrospectionUnavailable] nothing was found out about the token, because the issuer's keys could
// not be had or it could not be asked; ctx bounds the wait for it. Of what is wrong with the proof
// rather than the token, the code is [InvalidProof], [NonceRequired] or [ProofReplayed]. With
// [ReplaysUnavailable] whether the proof was used before could not be found out, and the request
// must be refused all the same.
//
// A proof that is accepted is used up: a second call with the same one is refused.
func (v *Verifier) VerifyPresented(ctx context.Context, presented Presented) (*Principal, error) {
	known, err := v.verifyPresented(ctx, presented)
	if err != nil {
		v.counts.refuse(err)
		return nil, err
	}
	return known.principal, nil
}

func (v *Verifier) verifyPresented(ctx context.Context, presented Presented) (*verified, error) {
	if err := checkLength(presented.Token); err != nil {
		return nil, err
	}
	if presented.Proof != nil {
		return v.verifyProved(ctx, presented)
	}
	return v.verify(ctx, presented, possession{certificate: presented.certificate()})
}

// Offer is what a verifier takes beside bearer tokens.
type Offer struct {
	MTLS       bool // tokens bound to the client's certificate, of some issuer
	Introspect bool // [Presented.Introspect], of every issuer
}

// Offer returns what to tell clients, and what a document may demand. Introspect does not speak of
// the issuers of Config.Resolve: tokens of those that are not asked are refused.
func (v *Verifier) Offer() Offer {
	offer := Offer{MTLS: v.resolver != nil, Introspect: true}
	for _, i := range v.configured {
		offer.MTLS = offer.MTLS || i.MTLS != MTLSOff
		offer.Introspect = offer.Introspect && i.Introspection.on()
	}
	return offer
}

// certificate returns the thumbprint of the client's certificate (RFC 8705 §3.1); "": there is
// none.
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
	MTLSOff      MTLSPolicy = "off"      // no tokens that are bound to a certificate
	MTLSAllowed  MTLSPolicy = "allowed"  // these too, with the certificate
	MTLSRequired MTLSPolicy = "required" // these alone
)

// possession is what the sender of a token has proved to have. Of a DPoP proof that is true only
// once its signature was verified: verifyProved sees to it.
type possession struct {
	dpop        bool
	certificate string // the thumbprint
}

// binding is how a token is bound to a key (RFC 7800), if it is.
type binding struct {
	bound       bool   // has cnf, of whatever kind
	broken      bool   // cnf, or a binding in it that is known here, is not what it should be
	jkt         string // the thumbprint of the key (RFC 9449 §6.1); "": not bound by it
	certificate string // x5t#S256, that of the certificate (RFC 8705 §3.1); "": not bound by it
}

// readBinding reads cnf. Members that are not understood are ignored (RFC 7800 §3.1), but do not
// make a bearer token of a bound one: see check.
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

// check compares how a token is bound with what its sender has, and both with the issuer's policy.
// Every binding that is known must hold, and of a token that is bound at least one must.
func (b binding) check(i *issuer, has possession) error {
	switch {
	case !has.dpop && b.bound && b.certificate == "", !has.dpop && b.jkt != "":
		// RFC 9449 §7.2, RFC 8705 §3: whoever merely holds the bytes of a bound token may not use
		// it.
		return refuse(Bound,
			"the token is bound to a key (cnf) and was presented as a bearer token")
	case b.certificate != "" && i.MTLS == MTLSOff:
		return refuse(Bound, "the token is bound to a certificate (cnf.x5t#S256), and the MTLS "+
			"policy for %s is off", i.URL)
	case b.certificate != "" && has.certificate == "":
		return refuse(Bound,
			"the token is bound to a certificate (cnf.x5t#S256), and the client presented none")
	case b.certificate != "" && has.certificate != b.certificate:
		return refuse(Bound,
			"the token is bound to another certificate (cnf.x5t#S256) than the client presented")
	case b.certificate == "" && i.MTLS == MTLSRequired:
		return refuse(WrongScheme,
			"the tokens of %s must be bound to the client's certificate (cnf.x5t#S256)", i.URL)
	case !has.dpop && i.DPoP == DPoPRequired:
		return refuse(WrongScheme, "presented as a bearer token, but the tokens of %s must be "+
			"bound to a key and come with a DPoP proof", i.URL)
	case has.dpop && i.DPoP == DPoPOff:
		return refuse(WrongScheme, "presented with a DPoP proof, but those of tokens of %s do "+
			"not count: its DPoP policy is off", i.URL)
	case has.dpop && b.jkt == "":
		return refuse(WrongScheme,
			"presented with a DPoP proof, but not bound to a key by cnf.jkt (RFC 9449 §6.1)")
	case i.FAPI2 && !has.dpop && b.certificate == "":
		return refuse(WrongScheme, "presented as a bearer token, but the tokens of %s must be "+
			"bound to a key or a certificate", i.URL)
	case b.broken:
		return refuse(Bound,
			"cnf is not what it should be, so what the token is bound to is not known")
	}
	return nil
}
