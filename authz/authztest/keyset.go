package authztest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

// published is a key in an issuer's JWK set.
type published struct {
	id  string
	jwk json.RawMessage
	key crypto.PublicKey
}

// hs256WithPublicKey signs with HMAC, with the public key as the secret, in each form in which a
// server may hold the key. A server that lets the token choose the algorithm accepts it (RFC 8725
// §2.1).
func hs256WithPublicKey(f *forger, t *parsed) (all []string, err error) {
	kid, _ := t.header["kid"].(string)
	key, err := publicKey(f.tokens.KeySet, kid)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.key)
	if err != nil {
		return nil, err
	}
	header := with(with(t.header, "alg", "HS256"), "kid", key.id)
	input := segment(header) + "." + segment(t.claims)
	for _, secret := range [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		der, key.jwk} {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		all = append(all, input+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	}
	return all, nil
}

// publicKey returns the key with that kid from a JWK set, or the first if kid is "".
func publicKey(set []byte, kid string) (published, error) {
	var keys struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(set, &keys); err != nil {
		return published{}, fmt.Errorf("the key set is not a JWK set (RFC 7517 §5): %w", err)
	}
	var first published
	for _, raw := range keys.Keys {
		key, err := parseJWK(raw)
		switch {
		case err != nil: // of a kind that is not known here
		case key.id == kid:
			return key, nil
		case first.key == nil:
			first = key
		}
	}
	if first.key == nil {
		return published{}, errors.New("the key set has no key of type RSA, EC or OKP")
	}
	return first, nil
}

// parseJWK parses a public key (RFC 7518 §6, RFC 8037 §2). It checks little, because nothing is
// verified with the keys.
func parseJWK(raw json.RawMessage) (published, error) {
	var jwk struct{ Kid, Kty, Crv, N, E, X, Y string }
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return published{}, err
	}
	number := func(s string) *big.Int {
		b, _ := base64.RawURLEncoding.DecodeString(s)
		return new(big.Int).SetBytes(b)
	}
	key := published{id: jwk.Kid, jwk: raw}
	curves := map[string]elliptic.Curve{
		"P-256": elliptic.P256(),
		"P-384": elliptic.P384(),
		"P-521": elliptic.P521(),
	}
	switch {
	case jwk.Kty == "RSA":
		key.key = &rsa.PublicKey{N: number(jwk.N), E: int(number(jwk.E).Int64())}
	case jwk.Kty == "EC" && curves[jwk.Crv] != nil:
		size := (curves[jwk.Crv].Params().BitSize + 7) / 8
		if x, y := number(jwk.X), number(jwk.Y); max(x.BitLen(), y.BitLen()) <= 8*size {
			point := append(
				[]byte{4},
				append(x.FillBytes(make([]byte, size)), y.FillBytes(make([]byte, size))...)...)
			var err error
			if key.key, err = ecdsa.ParseUncompressedPublicKey(curves[jwk.Crv], point); err != nil {
				return published{}, err
			}
			return key, nil
		}
		return published{}, fmt.Errorf("a key whose point is not on %s", jwk.Crv)
	case jwk.Kty == "OKP" && jwk.Crv == "Ed25519":
		b, _ := base64.RawURLEncoding.DecodeString(jwk.X)
		key.key = ed25519.PublicKey(b)
	default:
		return published{}, fmt.Errorf("a key of type %s %s", jwk.Kty, jwk.Crv)
	}
	return key, nil
}
