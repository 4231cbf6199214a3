package token

import (
	"crypto/ed25519"
	"testing"
)

// TestCacheVerdictOfAnotherKey: two requests with one token, the issuer's set replaced between them. What the first
// found out by the old key is no answer for the second, which found the new one.
func TestCacheVerdictOfAnotherKey(t *testing.T) {
	tok := fuzzToken(fuzzHeader, fuzzClaims)
	parts, err := parseCompact(tok)
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func(private ed25519.PrivateKey) *key {
		k, err := parseKey([]byte(okpEntry("Ed25519", private.Public().(ed25519.PublicKey), "")))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	signer, other := keyOf(fuzzKey), keyOf(ed25519.NewKeyFromSeed(make([]byte, 32)))
	c, err := newCache(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(k *key) bool {
		return c.verify(t.Context(), digest(tok), parts, &verified{principal: &Principal{}, alg: []byte("EdDSA"), key: k}) != nil
	}
	if verify(other) {
		t.Error("accepted by a key that did not sign it")
	}
	if !verify(signer) {
		t.Error("refused by the key that signed it: that another key failed was kept")
	}
	if verify(other) {
		t.Error("accepted for another key's verdict")
	}
	if again := keyOf(fuzzKey); !verify(again) {
		t.Error("refused by the key that signed it, read from the next set")
	}
}
