package token

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"

	"filippo.io/bigmod"
)

// digestInfos are the DER prefixes of a hash in an EMSA-PKCS1-v1_5 encoding (RFC 8017 §9.2, note
// 1).
var digestInfos = map[crypto.Hash][]byte{
	crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
		0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
		0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
		0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// pkcs1v15 verifies RSASSA-PKCS1-v1_5 (RFC 8017 §8.2.2), which most issuers use and which is by far
// the most expensive step of a request. crypto/rsa prepares the modulus on each verification, which
// is a third of its time; here it is prepared once per key. The arithmetic is bigmod's, which is
// that of the standard library. The result is compared byte for byte with the expected encoded
// message, so nothing is parsed. Tests compare this function with crypto/rsa.
func pkcs1v15(hash crypto.Hash) func(crypto.PublicKey) verifier {
	return func(pub crypto.PublicKey) verifier {
		k := pub.(*rsa.PublicKey)
		n, err := bigmod.NewModulus(k.N.Bytes())
		if err != nil { // parseKey rejects such a key
			return func(_, _ []byte) bool { return false }
		}
		// EM = 0x00 || 0x01 || PS || 0x00 || T. All of it but the digest at the end is constant.
		size, info := k.Size(), digestInfos[hash]
		expected := bytes.Repeat([]byte{0xff}, size-hash.Size())
		expected[0], expected[1] = 0x00, 0x01
		copy(expected[len(expected)-len(info):], info)
		expected[len(expected)-len(info)-1] = 0x00

		return func(signed, signature []byte) bool {
			if len(signature) != size {
				return false
			}
			s, err := bigmod.NewNat().SetBytes(signature, n)
			if err != nil { // the signature is not less than the modulus
				return false
			}
			em := bigmod.NewNat().ExpShortVarTime(s, uint(k.E), n).Bytes(n)
			return bytes.Equal(em[:len(expected)], expected) &&
				bytes.Equal(em[len(expected):], sum(hash, signed))
		}
	}
}

// pss verifies RSASSA-PSS. It does not use jwx, which accepts any salt length: RFC 7518 §3.5
// requires that of the hash.
func pss(hash crypto.Hash) func(crypto.PublicKey) verifier {
	return func(pub crypto.PublicKey) verifier {
		return func(signed, signature []byte) bool {
			return rsa.VerifyPSS(pub.(*rsa.PublicKey), hash, sum(hash, signed), signature,
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}) == nil
		}
	}
}

// sum hashes without allocating a hash.Hash.
func sum(hash crypto.Hash, data []byte) []byte {
	switch hash {
	case crypto.SHA256:
		s := sha256.Sum256(data)
		return s[:]
	case crypto.SHA384:
		s := sha512.Sum384(data)
		return s[:]
	default:
		s := sha512.Sum512(data)
		return s[:]
	}
}
