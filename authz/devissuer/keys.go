package devissuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // registers SHA-384 and SHA-512
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// signingKey is a private key and its algorithm.
type signingKey struct {
	id     string
	alg    string
	signer crypto.Signer
	public json.RawMessage // the JWK, RFC 7517
	bare   json.RawMessage // the JWK with its required members only
}

// algorithms returns the asymmetric ones of RFC 7518 §3.1 and RFC 8037 §3.1.
func algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
		"EdDSA"}
}

func unknownAlgorithm(alg string) error {
	return fmt.Errorf("algorithm is %q: choose one of %s", alg, strings.Join(algorithms(), ", "))
}

func newSigningKey(alg string) (*signingKey, error) {
	key := &signingKey{id: rand.Text(), alg: alg}
	var err error
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		key.signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		key.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key.signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		key.signer, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key.signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = unknownAlgorithm(alg)
	}
	if err != nil {
		return nil, fmt.Errorf("devissuer: no signing key: %w", err)
	}
	members, err := key.members()
	if err != nil {
		return nil, err
	}
	key.bare = encode(members)
	key.public = encode(merge(members, map[string]any{"kid": key.id, "alg": key.alg, "use": "sig"}))
	return key, nil
}

// members returns the required members of a public JWK (RFC 7518 §6, RFC 8037 §2).
func (k *signingKey) members() (map[string]any, error) {
	members := map[string]any{}
	switch public := k.signer.Public().(type) {
	case *rsa.PublicKey:
		members["kty"] = "RSA"
		members["n"] = segment(public.N.Bytes())
		members["e"] = segment(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 0x04, then x and y, padded to the curve's size
		if err != nil {
			return nil, fmt.Errorf("devissuer: public key: %w", err)
		}
		size := len(point) / 2
		members["kty"], members["crv"] = "EC", public.Params().Name
		members["x"], members["y"] = segment(point[1:1+size]), segment(point[1+size:])
	case ed25519.PublicKey:
		members["kty"], members["crv"] = "OKP", "Ed25519"
		members["x"] = segment(public)
	}
	return members, nil
}

// sign makes a JWS signature (RFC 7518 §3, RFC 8037 §3.1).
func (k *signingKey) sign(input []byte) ([]byte, error) {
	if k.alg == "EdDSA" {
		return k.signer.Sign(nil, input, crypto.Hash(0))
	}
	hash := k.hash()
	h := hash.New()
	h.Write(input)
	digest := h.Sum(nil)

	switch k.alg[:2] {
	case "PS":
		return k.signer.Sign(rand.Reader, digest,
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
	case "ES":
		// A JWS has r and s at full length, not in ASN.1.
		key := k.signer.(*ecdsa.PrivateKey)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			return nil, err
		}
		size := (key.Params().BitSize + 7) / 8
		signature := make([]byte, 2*size)
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
		return signature, nil
	default:
		return k.signer.Sign(rand.Reader, digest, hash)
	}
}

// verify checks a signature made by sign.
func (k *signingKey) verify(input, signature []byte) bool {
	hash := k.hash()
	h := hash.New()
	h.Write(input)
	digest := h.Sum(nil)
	switch public := k.signer.Public().(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(public, input, signature)
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		return len(signature) == 2*((public.Params().BitSize+7)/8) &&
			ecdsa.Verify(public, digest, r, s)
	case *rsa.PublicKey:
		if strings.HasPrefix(k.alg, "PS") {
			salt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.VerifyPSS(public, hash, digest, signature, salt) == nil
		}
		return rsa.VerifyPKCS1v15(public, hash, digest, signature) == nil
	}
	return false
}

// hash returns the hash of the algorithm. Ed25519 uses SHA-512 (RFC 8032 §5.1).
func (k *signingKey) hash() crypto.Hash {
	if k.alg == "EdDSA" {
		return crypto.SHA512
	}
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384,
		"512": crypto.SHA512}[k.alg[2:]]
}

// segment returns base64url without padding (RFC 7515 §2).
func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// CurrentKey returns the key that signs, and its kid.
func (i *Issuer) CurrentKey() (kid string, key crypto.Signer) {
	current := i.signingKey()
	return current.id, current.signer
}

func (i *Issuer) signingKey() *signingKey {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.current
}

// publishedKey returns the published key with a kid, or nil.
func (i *Issuer) publishedKey(kid string) *signingKey {
	i.mu.RLock()
	defer i.mu.RUnlock()
	for _, k := range i.published {
		if k.id == kid {
			return k
		}
	}
	return nil
}

// Rotate generates a new current key and publishes it; older keys stay published until
// [Issuer.RemoveKey]. If alg is empty, the new key has the algorithm of the old one. Rotate panics
// on an unknown algorithm.
func (i *Issuer) Rotate(alg string) (kid string) {
	if alg == "" {
		alg = i.signingKey().alg
	}
	key, err := newSigningKey(alg)
	if err != nil {
		panic(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.current = key
	i.published = append(i.published, key)
	return key.id
}

// RemoveKey removes a key from the published set. The current key still signs after that, and its
// tokens cannot be verified.
func (i *Issuer) RemoveKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = slices.DeleteFunc(i.published, func(k *signingKey) bool { return k.id == kid })
}

// Publish adds an entry to the key set exactly as given: with an unknown type, a duplicate kid, or
// invalid JSON.
func (i *Issuer) Publish(jwk json.RawMessage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.extra = append(i.extra, slices.Clone(jwk))
}
