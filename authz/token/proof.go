package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// proof is a parsed, unverified DPoP proof (RFC 9449 §4.2).
type proof struct {
	compact
	alg                       string
	jwk                       jsontext.Value
	htm, htu, jti, ath, nonce []byte // nil when absent
	iat                       numericDate
}

// maxJTIBytes bounds the jti of a proof; a UUID takes 36 bytes.
const maxJTIBytes = 256

// parseProof parses a proof and makes the checks 2 to 7 of RFC 9449 §4.3, except the signature.
func parseProof(jwt string) (*proof, error) {
	fail := func(format string, args ...any) (*proof, error) {
		return nil, refuse(InvalidProof, format, args...)
	}
	if len(jwt) > maxTokenBytes {
		return fail("the proof has %d bytes, more than the limit of %d", len(jwt), maxTokenBytes)
	}
	parts, err := parseCompact(jwt)
	if err != nil {
		return fail("the proof is not three segments of canonical base64url (RFC 7515 §7.1)")
	}
	h, err := parseHeader(parts.header)
	if err != nil {
		detail := err.Error()
		if e, ok := errors.AsType[*Error](err); ok {
			detail = e.Detail
		}
		return fail("the proof: %s", detail)
	}
	if !strings.EqualFold(string(h.typ), "dpop+jwt") {
		return fail("typ of the proof is %s, expected dpop+jwt", quote(string(h.typ)))
	}
	if !slices.Contains(ProofAlgorithms(), string(h.alg)) {
		return fail("alg of the proof is %s, expected one of %s", quote(string(h.alg)),
			strings.Join(ProofAlgorithms(), ", "))
	}
	p := &proof{compact: parts, alg: string(h.alg), jwk: h.jwk}
	if err := p.parseClaims(); err != nil {
		return fail("claims of the proof: %v", err)
	}
	if err := checkPublic(p.jwk); err != nil {
		return fail("jwk of the proof: %v", err)
	}
	return p, nil
}

func (p *proof) parseClaims() error {
	err := eachMember(p.payload, func(name []byte, value jsontext.Value) (err error) {
		switch string(name) {
		case "htm":
			p.htm, err = textOf("htm", value)
		case "htu":
			p.htu, err = textOf("htu", value)
		case "jti":
			p.jti, err = textOf("jti", value)
		case "ath":
			p.ath, err = textOf("ath", value)
		case "nonce":
			p.nonce, err = textOf("nonce", value)
		case "iat":
			p.iat, err = timeOf("iat", value)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case p.htm == nil || p.htu == nil || !p.iat.present:
		return errors.New("htm, htu and iat are all required (RFC 9449 §4.2)")
	case len(p.jti) == 0 || len(p.jti) > maxJTIBytes:
		return fmt.Errorf("jti has %d bytes, expected 1 to %d", len(p.jti), maxJTIBytes)
	}
	return nil
}

// checkPublic checks that a JWK has no private or symmetric parts (RFC 9449 §4.3, 7).
func checkPublic(key jsontext.Value) error {
	if key == nil {
		return errors.New("it is missing: expected the public key that verifies the proof")
	}
	return eachMember(key, func(name []byte, _ jsontext.Value) error {
		switch string(name) {
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k":
			// RFC 7518 §6.2.2, §6.3.2, §6.4.1, RFC 8037 §2
			return errors.New("it holds the private or symmetric key. The client must send the " +
				"public key only, and replace this key")
		}
		return nil
	})
}

// checkRequest checks that the proof was made for this request (RFC 9449 §4.3, 8 and 9).
func (p *proof) checkRequest(method, url string) error {
	if string(p.htm) != method {
		return refuse(InvalidProof, "htm is %s, expected the method of the request, %s",
			quote(string(p.htm)), quote(method))
	}
	server, path, ok := normalURL(url)
	if !ok {
		return refuse(InvalidProof, "the URL of the request is %s, so htu cannot be checked: "+
			"expected an absolute http or https URL", quote(url))
	}
	htuServer, htuPath, ok := normalURL(string(p.htu))
	switch {
	case !ok:
		return refuse(InvalidProof, "htu is not an absolute http or https URL")
	case htuServer != server:
		return refuse(InvalidProof, "htu is a URL of %s, expected %s. If the client is right, "+
			"configure the URL at which clients reach the API", quote(htuServer), quote(server))
	case removeDotSegments(htuPath) != path:
		return refuse(InvalidProof, "the path of htu differs from that of the request, which is %s",
			quote(path))
	}
	return nil
}

// maxProofBits and proofExponent bound the cost of verifying a proof.
const maxProofBits, proofExponent = 4096, 65537

// key returns the public key in the proof, checked like an issuer's.
func (p *proof) key() (crypto.PublicKey, error) {
	parsed, err := parseJWK(p.jwk)
	if err != nil {
		return nil, refuse(InvalidProof, "jwk of the proof: kty is unknown or its members are "+
			"wrong (RFC 7517 §4)")
	}
	key, err := publicKey(parsed)
	if err != nil {
		return nil, refuse(InvalidProof, "jwk of the proof: %v", err)
	}
	// The client chooses the key, and so the cost of verifying its signature.
	if k, ok := key.(*rsa.PublicKey); ok && (k.N.BitLen() > maxProofBits || k.E != proofExponent) {
		return nil, refuse(InvalidProof, "jwk of the proof: RSA key of %d bits with exponent %d, "+
			"expected at most %d bits and exponent %d", k.N.BitLen(), k.E, maxProofBits,
			proofExponent)
	}
	if !algorithms[p.alg].fits(key) {
		return nil, refuse(InvalidProof, "jwk of the proof: alg is %s, which does not fit a key "+
			"of this type and curve", p.alg)
	}
	return key, nil
}

// thumbprint returns the JWK thumbprint of a key (RFC 7638 §3, RFC 8037 §2). It is computed from
// the parsed key that verifies the signature, not from the received text.
func thumbprint(key crypto.PublicKey) string {
	var members string
	switch key := key.(type) {
	case *rsa.PublicKey:
		members = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`,
			encode(big.NewInt(int64(key.E)).Bytes()), encode(key.N.Bytes()))
	case *ecdsa.PublicKey:
		// 4, x, y; there is no error, because publicKey has checked the point
		point, _ := key.Bytes()
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		members = fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, key.Params().Name,
			encode(x), encode(y))
	case ed25519.PublicKey:
		members = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, encode(key))
	}
	sum := sha256.Sum256([]byte(members))
	return encode(sum[:])
}

func encode(b []byte) string { return base64url.EncodeToString(b) }

func (p *proof) checkSignature(key crypto.PublicKey) error {
	if !algorithms[p.alg].prepare(key)(p.signed, p.signature) {
		return refuse(InvalidProof, "the signature of the proof does not verify with its jwk")
	}
	return nil
}

// checkFAPI2 applies the FAPI 2.0 profile (§5.3.2.1, §5.4.1), including to proofs with a nonce.
func (p *proof) checkFAPI2(now time.Time) error {
	if !slices.Contains(fapi2Algorithms, p.alg) {
		return refuse(InvalidProof, "alg of the proof is %s, expected one of %s (FAPI 2.0 §5.4.1)",
			p.alg, strings.Join(fapi2Algorithms, ", "))
	}
	if ahead := p.iat.seconds - float64(now.Unix()); ahead > fapi2Ahead.Seconds() {
		return refuse(InvalidProof, "iat of the proof is %s in the future. Do the clocks agree?",
			formatSeconds(ahead))
	}
	return nil
}
