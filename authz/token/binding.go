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
}

// VerifyPresented returns the principal of a genuine token with which came what it is bound to, or
// an [*Error] that names the check that failed. With [KeysUnavailable] and [KeyPending] nothing was
// found out about the token, because the issuer's keys could not be had; ctx bounds the wait for
// them. Of what is wrong with the proof rather than the token, the code is [InvalidProof],
// [NonceRequired] or [ProofReplayed]. With [ReplaysUnavailable] whether the proof was used before
// could not be found out, and the request must be refused all the same.
//
// A proof that is accepted is used up: a second call with the same one is refused.
func (v *Verifier) VerifyPresented(ctx context.Context, presented Presented) (*Principal, error) {
	if err := checkLength(presented.Token); err != nil {
		return nil, err
	}
	if presented.Proof != nil {
		return v.verifyProved(ctx, presented)
	}
	known, err := v.verify(ctx, presented.Token, possession{certificate: presented.certificate()})
	if err != nil {
		return nil, err
	}
	return known.principal, nil
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
	case b.broken:
		return refuse(Bound,
			"cnf is not what it should be, so what the token is bound to is not known")
	}
	return nil
}
