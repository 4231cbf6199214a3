package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // registers the hash functions that the algorithms name
	_ "crypto/sha512"
	"maps"
	"slices"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// algorithm is an asymmetric signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1). Symmetric ones
// are not supported: an API that can verify HS256 can also issue tokens.
type algorithm struct {
	name string
	fits func(crypto.PublicKey) bool
	// prepare is called once per key, with a key that fits.
	prepare func(crypto.PublicKey) verifier
}

// verifier reports whether a signature was made with its key.
type verifier func(signed, signature []byte) bool

func isRSA(k crypto.PublicKey) bool     { _, ok := k.(*rsa.PublicKey); return ok }
func isEd25519(k crypto.PublicKey) bool { _, ok := k.(ed25519.PublicKey); return ok }

// onCurve matches ECDSA keys on one curve, because each ES algorithm requires its own (RFC 7518
// §3.4).
func onCurve(curve elliptic.Curve) func(crypto.PublicKey) bool {
	return func(k crypto.PublicKey) bool {
		pub, ok := k.(*ecdsa.PublicKey)
		return ok && pub.Curve == curve
	}
}

var algorithms = func() map[string]*algorithm {
	list := []*algorithm{
		{"RS256", isRSA, pkcs1v15(crypto.SHA256)}, {"RS384", isRSA, pkcs1v15(crypto.SHA384)},
		{"RS512", isRSA, pkcs1v15(crypto.SHA512)},
		{"PS256", isRSA, pss(crypto.SHA256)}, {"PS384", isRSA, pss(crypto.SHA384)},
		{"PS512", isRSA, pss(crypto.SHA512)},
		{"ES256", onCurve(elliptic.P256()), jwxVerifier(jwa.ES256)},
		{"ES384", onCurve(elliptic.P384()), jwxVerifier(jwa.ES384)},
		{"ES512", onCurve(elliptic.P521()), jwxVerifier(jwa.ES512)},
		{"EdDSA", isEd25519, jwxVerifier(jwa.EdDSA)},
	}
	byName := map[string]*algorithm{}
	for _, a := range list {
		byName[a.name] = a
	}
	return byName
}()

// jwxVerifier verifies with jwx, over exactly the bytes that were received.
func jwxVerifier(name jwa.SignatureAlgorithm) func(crypto.PublicKey) verifier {
	v, err := jws.NewVerifier(name)
	if err != nil {
		panic(err) // jwx does not know the name
	}
	return func(pub crypto.PublicKey) verifier {
		return func(signed, signature []byte) bool {
			return v.Verify(signed, signature, pub) == nil
		}
	}
}

// Algorithms returns the names of all algorithms that an [Issuer] may allow.
func Algorithms() []string {
	names := append(slices.Collect(maps.Keys(algorithms)), ed25519Name)
	slices.Sort(names)
	return names
}

// ed25519Name is the fully specified name (RFC 9864 §2.2) of the only EdDSA that is supported.
const ed25519Name = "Ed25519"

// canonicalAlgorithm returns the key of an algorithm in algorithms.
func canonicalAlgorithm(name string) string {
	if name == ed25519Name {
		return "EdDSA"
	}
	return name
}
