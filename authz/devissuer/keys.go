package devissuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // for crypto.SHA384 and crypto.SHA512; sha256 is imported for use
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// signingKey is a private key with the one algorithm that it is used with.
type signingKey struct {
	id     string
	alg    string
	signer crypto.Signer
	public json.RawMessage // the JWK, RFC 7517
	bare   json.RawMessage // the same with nothing but what makes the key
}

// algorithms are the asymmetric ones of RFC 7518 §3.1 and RFC 8037 §3.1.
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

// members are those of a JWK that make the public key: RFC 7518 §6, RFC 8037 §2.
func (k *signingKey) members() (map[string]any, error) {
	members := map[string]any{}
	switch public := k.signer.Public().(type) {
	case *rsa.PublicKey:
		members["kty"] = "RSA"
		members["n"] = segment(public.N.Bytes())
		members["e"] = segment(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, then x and y, both padded to the curve's size
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

// sign makes the JWS signature of input, RFC 7518 §3 and RFC 8037 §3.1.
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
		// A JWS wants r and s side by side at full length, not their ASN.1 form.
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

// verify checks a signature that sign has made.
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

// hash is the one of the algorithm's name; Ed25519 has SHA-512 inside (RFC 8032 §5.1).
func (k *signingKey) hash() crypto.Hash {
	if k.alg == "EdDSA" {
		return crypto.SHA512
	}
	return map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384,
		"512": crypto.SHA512}[k.alg[2:]]
}

// segment is base64url without padding, RFC 7515 §2.
func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// CurrentKey is the key that signs, and its kid.
func (i *Issuer) CurrentKey() (kid string, key crypto.Signer) {
	current := i.signingKey()
	return current.id, current.signer
}

func (i *Issuer) signingKey() *signingKey {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.current
}

// publishedKey returns the published key of a kid; nil if there is none.
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

// Rotate makes a new key current and publishes it; the older ones stay
// published until [Issuer.RemoveKey]. An empty alg means that of the key before.
// Rotate panics on an algorithm that it does not know.
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

// RemoveKey takes a key out of the published set. If it is the current one it
// still signs: such tokens name a key that nobody can find.
func (i *Issuer) RemoveKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = slices.DeleteFunc(i.published, func(k *signingKey) bool { return k.id == kid })
}

// Publish adds an entry to the key set exactly as it is given: of an unknown
// type, with a kid that is taken, or not even JSON.
func (i *Issuer) Publish(jwk json.RawMessage) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.extra = append(i.extra, slices.Clone(jwk))
}
