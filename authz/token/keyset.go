package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // registers the hash functions that the algorithms name
	_ "crypto/sha512"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// An algorithm is a way to sign, by a public key (RFC 7518 §3.1, RFC 8037 §3.1). Symmetric ones are not here: an
// API that can verify HS256 can also issue.
type algorithm struct {
	name string
	fits func(crypto.PublicKey) bool
	// prepare is given a key that fits, once.
	prepare func(crypto.PublicKey) verifier
}

// verifier reports whether a signature is that of its key.
type verifier func(signed, signature []byte) bool

func isRSA(k crypto.PublicKey) bool     { _, ok := k.(*rsa.PublicKey); return ok }
func isEd25519(k crypto.PublicKey) bool { _, ok := k.(ed25519.PublicKey); return ok }

// onCurve: each ES algorithm goes with one curve (RFC 7518 §3.4).
func onCurve(curve elliptic.Curve) func(crypto.PublicKey) bool {
	return func(k crypto.PublicKey) bool {
		pub, ok := k.(*ecdsa.PublicKey)
		return ok && pub.Curve == curve
	}
}

var algorithms = func() map[string]*algorithm {
	list := []*algorithm{
		{"RS256", isRSA, pkcs1v15(crypto.SHA256)}, {"RS384", isRSA, pkcs1v15(crypto.SHA384)}, {"RS512", isRSA, pkcs1v15(crypto.SHA512)},
		{"PS256", isRSA, pss(crypto.SHA256)}, {"PS384", isRSA, pss(crypto.SHA384)}, {"PS512", isRSA, pss(crypto.SHA512)},
		{"ES256", onCurve(elliptic.P256()), library(jwa.ES256)}, {"ES384", onCurve(elliptic.P384()), library(jwa.ES384)}, {"ES512", onCurve(elliptic.P521()), library(jwa.ES512)},
		{"EdDSA", isEd25519, library(jwa.EdDSA)},
	}
	byName := map[string]*algorithm{}
	for _, a := range list {
		byName[a.name] = a
	}
	return byName
}()

// library verifies with jwx's verifier of the algorithm, on exactly the bytes that were received.
func library(name jwa.SignatureAlgorithm) func(crypto.PublicKey) verifier {
	v, err := jws.NewVerifier(name)
	if err != nil {
		panic(err) // a name that jwx does not know: a fault of this file, seen by every test
	}
	return func(pub crypto.PublicKey) verifier {
		return func(signed, signature []byte) bool { return v.Verify(signed, signature, pub) == nil }
	}
}

// key is one usable entry of a key set.
type key struct {
	kid       string
	public    crypto.PublicKey
	verifiers map[string]verifier // by the algorithms that it may be used with: its own alg, or all that fit it
}

// keySet is what an issuer published at one time. It does not change.
type keySet struct {
	keys  []*key
	bykid map[string][]*key // several only when they differ in alg
	// Set by source: when it was fetched, and the number of that fetch.
	fetched time.Time
	flight  uint64
}

const (
	maxSetBytes = 512 << 10
	maxSetKeys  = 100
)

// parseKeySet reads a JWK set (RFC 7517 §5). An entry that cannot be used is dropped and reported in dropped; a
// set of which nothing can be used is an error, so that a fault at the issuer does not revoke every token.
func parseKeySet(data []byte) (set *keySet, dropped []error, err error) {
	var document struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// Lenient about what is inside the entries: each is judged by itself.
	if err := json.Unmarshal(data, &document, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, nil, errors.New("it is not a JWK set: expected a JSON object with an array named keys (RFC 7517 §5)")
	}
	if len(document.Keys) > maxSetKeys {
		return nil, nil, fmt.Errorf("it has %d keys, more than the %d that are read", len(document.Keys), maxSetKeys)
	}
	var keys []*key
	for i, entry := range document.Keys {
		k, err := parseKey(entry)
		if err != nil {
			dropped = append(dropped, fmt.Errorf("keys[%d]: %w", i, err))
		} else if k != nil {
			keys = append(keys, k)
		}
	}
	set = &keySet{bykid: map[string][]*key{}}
	for i, k := range keys {
		if j := slices.IndexFunc(keys, func(other *key) bool { return other != k && k.clashes(other) }); j >= 0 {
			dropped = append(dropped, fmt.Errorf("usable key %d: kid %s and an algorithm are shared with another key, so neither can be trusted", i, quote(k.kid)))
			continue
		}
		set.keys = append(set.keys, k)
		if k.kid != "" { // kid "" never matches
			set.bykid[k.kid] = append(set.bykid[k.kid], k)
		}
	}
	if len(set.keys) == 0 {
		return nil, dropped, fmt.Errorf("none of its %d keys can verify a signature", len(document.Keys))
	}
	return set, dropped, nil
}

func (k *key) clashes(other *key) bool {
	for alg := range k.verifiers {
		if k.kid != "" && k.kid == other.kid && other.verifiers[alg] != nil {
			return true
		}
	}
	return false
}

// parseKey reads one JWK (RFC 7517 §4). A key that is not for verifying signatures is no fault: (nil, nil).
func parseKey(entry jsontext.Value) (*key, error) {
	var meta struct {
		KeyType string   `json:"kty"`
		ID      string   `json:"kid"`
		Alg     *string  `json:"alg"`
		Use     *string  `json:"use"`
		Ops     []string `json:"key_ops"`
		// Private or symmetric parts: whoever published them gave the key away.
		D jsontext.Value `json:"d"`
		K jsontext.Value `json:"k"`
	}
	// Strict: an entry with two members of one name says two things.
	if err := json.Unmarshal(entry, &meta); err != nil {
		return nil, errors.New("not a JWK: a JSON object with unique names and string members kty, kid, use, alg was expected (RFC 7517 §4)")
	}
	if meta.Use != nil && *meta.Use != "sig" || meta.Ops != nil && !slices.Contains(meta.Ops, "verify") {
		return nil, nil
	}
	if meta.D != nil || meta.K != nil {
		return nil, fmt.Errorf("kid %s: the private or symmetric key itself is published; have the issuer replace it", quote(meta.ID))
	}
	parsed, err := parseJWK(entry)
	if err != nil || parsed.KeyType().String() != meta.KeyType { // jwx takes KTY for kty
		return nil, fmt.Errorf("kid %s: kty %s is unknown or its members are wrong", quote(meta.ID), quote(meta.KeyType))
	}
	public, err := publicKey(parsed)
	if err != nil {
		return nil, fmt.Errorf("kid %s: %w", quote(meta.ID), err)
	}
	k := &key{kid: meta.ID, public: public, verifiers: map[string]verifier{}}
	for name, a := range algorithms {
		if a.fits(public) && (meta.Alg == nil || *meta.Alg == name) {
			k.verifiers[name] = a.prepare(public)
		}
	}
	if len(k.verifiers) == 0 {
		if meta.Alg != nil {
			return nil, fmt.Errorf("kid %s: alg %s is no signature algorithm for a key of its type and curve", quote(meta.ID), quote(*meta.Alg))
		}
		return nil, fmt.Errorf("kid %s: no signature algorithm fits a key of its type and curve", quote(meta.ID))
	}
	return k, nil
}

// parseJWK has the library read a key. It runs in a goroutine of our own, where a panic over what came from the network
// would end the process; none is known.
func parseJWK(entry jsontext.Value) (parsed jwk.Key, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("the library panicked: %v", reason)
		}
	}()
	return jwk.ParseKey(entry)
}

// publicKey takes the raw key out, once per set, and checks what a library or the standard library would let pass.
func publicKey(parsed jwk.Key) (crypto.PublicKey, error) {
	if r, ok := parsed.(jwk.RSAPublicKey); ok {
		// Before Raw, which cuts a longer exponent down to an int.
		e := new(big.Int).SetBytes(r.E())
		if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
			return nil, errors.New("RSA exponent is not an odd number from 3 to 2³¹−1")
		}
	}
	var raw any
	if err := parsed.Raw(&raw); err != nil {
		return nil, errors.New("its members do not make a key")
	}
	switch pub := raw.(type) {
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits < 2048 || bits > 8192 {
			return nil, fmt.Errorf("RSA key of %d bits, expected 2048 to 8192", bits)
		}
		if pub.N.Bit(0) == 0 { // bigmod panics on it
			return nil, errors.New("RSA modulus is even, and so no product of two primes")
		}
		return pub, nil
	case *ecdsa.PublicKey:
		if _, err := pub.ECDH(); err != nil { // the point is not on the curve
			return nil, errors.New("the EC point is not on its curve")
		}
		return pub, nil
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize { // crypto/ed25519 panics on any other
			return nil, fmt.Errorf("Ed25519 key of %d bytes, expected %d", len(pub), ed25519.PublicKeySize)
		}
		return pub, nil
	}
	return nil, fmt.Errorf("a %T verifies no signatures", raw)
}

// found says how a look-up ended.
type found int

const (
	keyFound   found = iota
	keyUnknown       // no such kid: a newer set may have it
	keyUnfit         // there, but not for this algorithm, or not to be told apart: no newer set is asked for
)

// find looks a key up as the header of a token names it. Without kid only the one key of a set of one will do.
func (s *keySet) find(kid, alg []byte) (*key, found) {
	var candidates []*key
	if kid != nil {
		if candidates = s.bykid[string(kid)]; candidates == nil {
			return nil, keyUnknown
		}
	} else if len(s.keys) == 1 {
		candidates = s.keys
	}
	for _, k := range candidates {
		if k.verifiers[string(alg)] != nil {
			return k, keyFound
		}
	}
	return nil, keyUnfit
}

// adopt lets keys that stand in the set before as well be the same, so that tokens verified by them stay so.
func (s *keySet) adopt(before *keySet) {
	if before == nil {
		return
	}
	for i, k := range s.keys {
		for _, old := range before.keys {
			if k.same(old) {
				s.keys[i] = old
				if at := slices.Index(s.bykid[k.kid], k); at >= 0 {
					s.bykid[k.kid][at] = old
				}
			}
		}
	}
}

// same reports whether two keys verify the same tokens.
func (k *key) same(other *key) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.kid == other.kid && public.Equal(other.public) &&
		maps.EqualFunc(k.verifiers, other.verifiers, func(_, _ verifier) bool { return true })
}
