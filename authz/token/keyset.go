package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// key is one usable entry of a key set.
type key struct {
	kid    string
	issuer string // the only issuer whose tokens the key verifies, or "": see checkKey
	public crypto.PublicKey
	// verifiers holds one verifier for each algorithm of the key: its alg, or all that fit it.
	verifiers map[string]verifier
}

// keySet is what an issuer published at one time. It does not change.
type keySet struct {
	keys  []*key
	bykid map[string][]*key // several only when they differ in alg
	// anyKid makes find ignore the kid of a token and return the only key.
	anyKid bool
	// validates is set by locator: a request for a newer set can be conditional.
	validates bool
	// Set by source: when it was fetched, and the number of that fetch.
	fetched     time.Time
	fetchNumber uint64
}

const (
	maxSetBytes = 512 << 10
	maxSetKeys  = 100
)

// parseKeySet reads a JWK set (RFC 7517 §5). An entry that cannot be used is dropped and reported
// in dropped; a set of which nothing can be used is an error, so that a fault at the issuer does
// not revoke every token.
func parseKeySet(data []byte) (set *keySet, dropped []error, err error) {
	var document struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// parseKey checks each entry strictly, so that one bad entry does not spoil the set.
	if err := json.Unmarshal(data, &document, jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, nil, errors.New("not a JWK set: expected a JSON object with an array named " +
			"keys (RFC 7517 §5)")
	}
	if len(document.Keys) > maxSetKeys {
		return nil, nil, fmt.Errorf("%d keys, more than the limit of %d", len(document.Keys),
			maxSetKeys)
	}
	var keys []*key
	for i, entry := range document.Keys {
		k, err := parseKey(entry)
		if err != nil {
			dropped = append(dropped, fmt.Errorf("keys[%d]: %w", i, err))
		} else if k != nil && !slices.ContainsFunc(keys, k.mergeInto) {
			keys = append(keys, k)
		}
	}
	set = &keySet{bykid: map[string][]*key{}}
	for i, k := range keys {
		if j := slices.IndexFunc(keys, func(other *key) bool {
			return other != k && k.clashes(other)
		}); j >= 0 {
			dropped = append(dropped, fmt.Errorf("usable key %d: another key has the same kid %s "+
				"and algorithm, so neither is used", i, quote(k.kid)))
			continue
		}
		set.keys = append(set.keys, k)
		if k.kid != "" { // kid "" never matches
			set.bykid[k.kid] = append(set.bykid[k.kid], k)
		}
	}
	if len(set.keys) == 0 {
		return nil, dropped, fmt.Errorf("none of the %d keys can verify a signature",
			len(document.Keys))
	}
	return set, dropped, nil
}

// mergeInto adds the algorithms of k to an earlier entry with the same key and kid, and reports
// whether it is one.
func (k *key) mergeInto(earlier *key) bool {
	if k.kid != earlier.kid || k.issuer != earlier.issuer || !k.equal(earlier) {
		return false
	}
	maps.Copy(earlier.verifiers, k.verifiers)
	return true
}

func (k *key) clashes(other *key) bool {
	for alg := range k.verifiers {
		if k.kid != "" && k.kid == other.kid && other.verifiers[alg] != nil {
			return true
		}
	}
	return false
}

// parseKey reads one JWK (RFC 7517 §4). It returns nil without an error for a key that is not for
// verifying signatures.
func parseKey(entry jsontext.Value) (*key, error) {
	var meta struct {
		KeyType string         `json:"kty"`
		ID      string         `json:"kid"`
		Alg     *string        `json:"alg"`
		Use     *string        `json:"use"`
		Ops     []string       `json:"key_ops"`
		Issuer  jsontext.Value `json:"issuer"`
		// The key is in the first certificate of the chain (RFC 7517 §4.7) or in these members.
		Chain []string       `json:"x5c"`
		N     jsontext.Value `json:"n"`
		X     jsontext.Value `json:"x"`
		// Private or symmetric parts: a key that is published with them is compromised.
		D jsontext.Value `json:"d"`
		K jsontext.Value `json:"k"`
	}
	// Duplicate names are rejected, because such an entry is ambiguous.
	if err := json.Unmarshal(entry, &meta); err != nil {
		return nil, errors.New("not a JWK: expected a JSON object with unique names and string " +
			"members kty, kid, use, alg (RFC 7517 §4)")
	}
	if meta.Use != nil && *meta.Use != "sig" || meta.Ops != nil &&
		!slices.Contains(meta.Ops, "verify") {
		return nil, nil
	}
	if meta.D != nil || meta.K != nil {
		return nil, fmt.Errorf("kid %s: the private or symmetric key is published: the issuer "+
			"must replace it", quote(meta.ID))
	}
	var parsed jwk.Key
	var err error
	if meta.N == nil && meta.X == nil && len(meta.Chain) > 0 {
		parsed, err = certificateKey(meta.Chain[0])
	} else {
		parsed, err = parseJWK(entry)
	}
	if err != nil || parsed.KeyType().String() != meta.KeyType { // jwx takes KTY for kty
		return nil, fmt.Errorf("kid %s: kty %s is unknown or its members are wrong", quote(meta.ID),
			quote(meta.KeyType))
	}
	public, err := publicKey(parsed)
	if err != nil {
		return nil, fmt.Errorf("kid %s: %w", quote(meta.ID), err)
	}
	k := newKey(meta.ID, public, meta.Alg)
	if meta.Issuer != nil { // not standardized, so of any type
		if issuer, err := textOf("issuer", meta.Issuer); err == nil {
			k.issuer = string(issuer)
		}
	}
	if len(k.verifiers) == 0 {
		if meta.Alg != nil {
			return nil, fmt.Errorf("kid %s: alg %s is not a signature algorithm for a key of its "+
				"type and curve", quote(meta.ID), quote(*meta.Alg))
		}
		return nil, fmt.Errorf("kid %s: no signature algorithm fits a key of its type and curve",
			quote(meta.ID))
	}
	return k, nil
}

// newKey returns a key for the algorithm only, or, if that is nil, for all that fit.
func newKey(kid string, public crypto.PublicKey, only *string) *key {
	k := &key{kid: kid, public: public, verifiers: map[string]verifier{}}
	for name, a := range algorithms {
		if a.fits(public) && (only == nil || canonicalAlgorithm(*only) == name) {
			k.verifiers[name] = a.prepare(public)
		}
	}
	return k
}

// certificateKey returns the key of a certificate (RFC 7517 §4.7: base64, not base64url). It does
// not check the chain and dates: the key is trusted because the issuer's key set holds it.
func certificateKey(encoded string) (jwk.Key, error) {
	der, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return jwk.FromRaw(certificate.PublicKey)
}

// parsePEM reads one public key, or the key of one certificate (RFC 7468 §5, §13).
func parsePEM(data []byte) (*key, error) {
	block, rest := pem.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("expected one PEM block, PUBLIC KEY or CERTIFICATE")
	}
	var raw any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		raw, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			raw = certificate.PublicKey
		}
	default:
		return nil,
			fmt.Errorf("received a PEM block of type %s, expected PUBLIC KEY or CERTIFICATE",
				quote(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("the %s block is malformed", block.Type)
	}
	parsed, err := jwk.FromRaw(raw)
	if err != nil {
		return nil, fmt.Errorf("a %T verifies no signatures", raw)
	}
	public, err := publicKey(parsed)
	if err != nil {
		return nil, err
	}
	k := newKey("", public, nil)
	if len(k.verifiers) == 0 {
		return nil, errors.New("no signature algorithm fits a key of its type and curve")
	}
	return k, nil
}

// parseJWK parses a key with the library. It recovers from panics, because in the goroutine of a
// fetch a panic on network input would end the process; none is known.
func parseJWK(entry jsontext.Value) (parsed jwk.Key, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("the library panicked: %v", reason)
		}
	}()
	return jwk.ParseKey(entry)
}

// publicKey returns the raw key, after checks that neither jwx nor the standard library makes.
func publicKey(parsed jwk.Key) (crypto.PublicKey, error) {
	if r, ok := parsed.(jwk.RSAPublicKey); ok {
		// Check before Raw, which truncates the exponent to an int.
		e := new(big.Int).SetBytes(r.E())
		if !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 || e.Bit(0) == 0 {
			return nil, errors.New("RSA exponent is not an odd number from 3 to 2³¹−1")
		}
	}
	var raw any
	if err := parsed.Raw(&raw); err != nil {
		return nil, errors.New("its members do not form a key")
	}
	switch pub := raw.(type) {
	case *rsa.PublicKey:
		if bits := pub.N.BitLen(); bits < 2048 || bits > 8192 {
			return nil, fmt.Errorf("RSA key of %d bits, expected 2048 to 8192", bits)
		}
		if pub.N.Bit(0) == 0 { // bigmod panics on it
			return nil, errors.New("RSA modulus is even")
		}
		return pub, nil
	case *ecdsa.PublicKey:
		if _, err := pub.ECDH(); err != nil {
			return nil, errors.New("the EC point is not on its curve")
		}
		return pub, nil
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize { // crypto/ed25519 panics on other sizes
			return nil, fmt.Errorf("Ed25519 key of %d bytes, expected %d", len(pub),
				ed25519.PublicKeySize)
		}
		if hasSmallOrder(pub) {
			return nil, errors.New("Ed25519 key is a point of small order, for which anyone can " +
				"make signatures")
		}
		return pub, nil
	}
	return nil, fmt.Errorf("a %T verifies no signatures", raw)
}

// hasSmallOrder reports whether a public key is one of the eight points whose order divides the
// cofactor (RFC 8032 §5.1). crypto/ed25519 accepts them, and anyone can make signatures that verify
// with them. One is 32 zero bytes.
func hasSmallOrder(pub ed25519.PublicKey) bool {
	y := bytes.Clone(pub)
	y[31] &= 0x7f // without the sign of x
	switch hex.EncodeToString(y) {
	case "0000000000000000000000000000000000000000000000000000000000000000", // 0
		"0100000000000000000000000000000000000000000000000000000000000000", // 1
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // -1
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 0, not reduced
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // 1, not reduced
		// of order 8
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a":
		return true
	}
	return false
}

// lookupResult is the result of keySet.find.
type lookupResult int

const (
	keyFound   lookupResult = iota
	keyUnknown              // no such kid: a newer set may have it
	// wrong algorithm, or no kid and several keys: a newer set does not help
	keyUnfit
)

// find returns the key for the kid and alg of a token's header. Without kid, the set must have
// exactly one key.
func (s *keySet) find(kid, alg []byte) (*key, lookupResult) {
	var candidates []*key
	if kid != nil && !s.anyKid {
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

// reuseKeys replaces keys by equal ones of the previous set, because cached tokens are valid only
// with the same *key.
func (s *keySet) reuseKeys(before *keySet) {
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
	return k.kid == other.kid && k.issuer == other.issuer && k.equal(other) &&
		maps.EqualFunc(k.verifiers, other.verifiers, func(_, _ verifier) bool { return true })
}

func (k *key) equal(other *key) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(other.public)
}
