package token

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"math/big"
	"testing"
)

// compareWithStdlib compares our verification with that of the standard library.
func compareWithStdlib(t *testing.T, name string, pub *rsa.PublicKey, hash crypto.Hash, signed,
	signature []byte) bool {
	t.Helper()
	h := hash.New()
	h.Write(signed)
	expected := rsa.VerifyPKCS1v15(pub, hash, h.Sum(nil), signature) == nil
	if got := pkcs1v15(hash)(pub)(signed, signature); got != expected {
		t.Errorf("%s (%d bits, e %d, %v): ours returns %v, crypto/rsa returns %v; signature %x",
			name,
			pub.N.BitLen(), pub.E, hash, got, expected, signature)
	}
	return expected
}

func TestPKCS1v15AgreesWithTheStandardLibrary(t *testing.T) {
	signed := []byte("header.payload")
	for _, bits := range []int{2048, 2056, 2047 + 1024} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		pub := &key.PublicKey
		for hash := range digestInfos {
			h := hash.New()
			h.Write(signed)
			digest := h.Sum(nil)
			good, err := rsa.SignPKCS1v15(nil, key, hash, digest)
			if err != nil {
				t.Fatal(err)
			}
			if !compareWithStdlib(t, "genuine", pub, hash, signed, good) {
				t.Fatalf("%d bits, %v: crypto/rsa does not accept its own signature", bits, hash)
			}
			size := pub.Size()
			// raw signs any encoded message at all, as a forger with the key could.
			raw := func(em []byte) []byte {
				return new(big.Int).Exp(new(big.Int).SetBytes(em), key.D,
					key.N).FillBytes(make([]byte, size))
			}
			genuine := new(big.Int).Exp(new(big.Int).SetBytes(good), big.NewInt(int64(key.E)),
				key.N).FillBytes(make([]byte, size))
			with := func(change func(em []byte)) []byte {
				em := bytes.Clone(genuine)
				change(em)
				return raw(em)
			}
			prefix := len(genuine) - hash.Size() - len(digestInfos[hash])
			for name, signature := range map[string][]byte{
				"empty":               {},
				"zero":                make([]byte, size),
				"one":                 append(make([]byte, size-1), 1),
				"all ones":            bytes.Repeat([]byte{0xff}, size),
				"modulus":             key.N.FillBytes(make([]byte, size)),
				"short":               good[1:],
				"long":                append([]byte{0}, good...),
				"plus the modulus":    new(big.Int).Add(new(big.Int).SetBytes(good), key.N).Bytes(),
				"other message":       raw(with(func([]byte) {})),
				"first byte":          with(func(em []byte) { em[0] = 1; em[1] = 0 }),
				"block type 2":        with(func(em []byte) { em[1] = 2 }),
				"padding not ff":      with(func(em []byte) { em[9] = 0xfe }),
				"separator not 0":     with(func(em []byte) { em[prefix-1] = 1 }),
				"other hash named":    with(func(em []byte) { em[prefix+len(digestInfos[hash])-5] ^= 1 }),
				"without NULL":        with(func(em []byte) { copy(em[prefix+1:], em[prefix:len(em)-1]) }),
				"digest changed":      with(func(em []byte) { em[len(em)-1] ^= 1 }),
				"rubbish after it":    with(func(em []byte) { copy(em[10:], em[prefix-1:]); clear(em[10+len(em)-prefix+1:]) }),
				"a bare digest":       raw(append(make([]byte, size-len(digest)), digest...)),
				"the encoded message": genuine,
			} {
				if compareWithStdlib(t, name, pub, hash, signed, signature) {
					t.Errorf("%s: crypto/rsa accepts it: the case does not test what it says", name)
				}
			}
			for i := range good {
				changed := bytes.Clone(good)
				changed[i] ^= 1 << (i % 8)
				compareWithStdlib(t, "a bit changed", pub, hash, signed, changed)
			}
		}
	}
}

// With exponent 3, a signature whose encoded message only begins correctly can be made without the
// key, as a cube root (Bleichenbacher, 2006). A verifier must check the whole encoded message.
func TestPKCS1v15ExponentThree(t *testing.T) {
	signed := []byte("header.payload")
	hash := crypto.SHA256
	h := hash.New()
	h.Write(signed)
	n, _ := new(big.Int).SetString("1", 10)
	n.Lsh(n, 2047)
	n.Or(n, big.NewInt(0x1234567)) // only the size of the modulus matters to this attack
	n.SetBit(n, 0, 1)
	pub := &rsa.PublicKey{N: n, E: 3}
	em := append([]byte{0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0},
		digestInfos[hash]...)
	em = h.Sum(em)
	em = append(em, make([]byte, pub.Size()-len(em))...)
	root := cubeRoot(new(big.Int).SetBytes(em))
	forged := root.Add(root, big.NewInt(1)).FillBytes(make([]byte, pub.Size()))
	cube := new(big.Int).Exp(new(big.Int).SetBytes(forged), big.NewInt(3),
		nil).FillBytes(make([]byte, pub.Size()))
	if !bytes.Equal(cube[:60], em[:60]) {
		t.Fatal("the forgery does not begin like a genuine encoded message: the case does not " +
			"test what it says")
	}
	if compareWithStdlib(t, "cube root", pub, hash, signed, forged) {
		t.Error("a forgery made without the key is accepted")
	}
}

func cubeRoot(x *big.Int) *big.Int {
	low, high := big.NewInt(0), new(big.Int).Lsh(big.NewInt(1), uint(x.BitLen()/3+1))
	for new(big.Int).Sub(high, low).Cmp(big.NewInt(1)) > 0 {
		middle := new(big.Int).Rsh(new(big.Int).Add(low, high), 1)
		if new(big.Int).Exp(middle, big.NewInt(3), nil).Cmp(x) <= 0 {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// The prefixes are constants. The test computes them from their definition.
func TestDigestInfos(t *testing.T) {
	for hash, oid := range map[crypto.Hash]asn1.ObjectIdentifier{
		crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
		crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
		crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
	} {
		type algorithmIdentifier struct {
			Algorithm  asn1.ObjectIdentifier
			Parameters asn1.RawValue
		}
		der, err := asn1.Marshal(struct {
			Algorithm algorithmIdentifier
			Digest    []byte
		}{algorithmIdentifier{oid, asn1.NullRawValue}, make([]byte, hash.Size())})
		if err != nil {
			t.Fatal(err)
		}
		if expected := der[:len(der)-hash.Size()]; !bytes.Equal(digestInfos[hash], expected) {
			t.Errorf("%v: prefix is %x, want %x", hash, digestInfos[hash], expected)
		}
	}
}
