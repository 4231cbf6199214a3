package token

import (
	"crypto/ed25519"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestCacheVerdictOfAnotherKey: the issuer's set is replaced between two requests with one token.
// The result of the first, with the old key, must not be used for the second.
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
	c := newCache(1 << 20)
	verify := func(k *key) bool {
		return c.verify(tok, named(tok), parts, &verifiedToken{principal: &Principal{},
			alg: []byte("EdDSA"), key: k}) != nil
	}
	if verify(other) {
		t.Error("accepted by a key that did not sign it")
	}
	if !verify(signer) {
		t.Error("refused although its key verifies it: the result of another key was cached")
	}
	if verify(other) {
		t.Error("accepted for another key's verdict")
	}
	if again := keyOf(fuzzKey); !verify(again) {
		t.Error("refused by the key that signed it, read from the next set")
	}
}

func named(token string) cacheKey {
	n, _ := cacheKeyOf(token)
	return n
}

// signedBy is a key whose verification returns a given result, once it may.
func signedBy(yes bool, when <-chan struct{}) *verifiedToken {
	return &verifiedToken{principal: &Principal{}, alg: []byte("EdDSA"),
		key: &key{verifiers: map[string]verifier{
			"EdDSA": func(_, _ []byte) bool { <-when; return yes },
		}}}
}

// While an issuer replaces a key with the same kid, concurrent requests with one token can use
// different sets. The result of one must not be used for the other.
func TestCacheSharesVerdictsOfOneKeyOnly(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second bool
	}{
		{"the first key is the new one", true, false},
		{"the second key is the new one", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCache(1 << 20)
				open := make(chan struct{})
				got := make([]*verifiedToken, 2)
				for i, yes := range []bool{test.first, test.second} {
					accepted := signedBy(yes, open)
					go func() { got[i] = c.verify("", cacheKey{}, compact{}, accepted) }()
					synctest.Wait() // the second waits for the first
				}
				close(open)
				synctest.Wait()
				if (got[0] != nil) != test.first || (got[1] != nil) != test.second {
					t.Errorf("accepted: %v and %v, want %v and %v: is the verdict of one key "+
						"taken for that of the other?",
						got[0] != nil, got[1] != nil, test.first, test.second)
				}
			})
		})
	}
}

// The memory of a cached token is bounded, even if most of it is not claims: some issuers put a
// certificate into the header.
func TestCacheCountsWholeTokens(t *testing.T) {
	const url, room = "https://issuer.example/", 64 << 10
	v, err := NewVerifier(t.Context(),
		Config{Issuers: []Issuer{{URL: url, Audiences: []string{"api"}}}, CacheBytes: room})
	if err != nil {
		t.Fatal(err)
	}
	always := make(chan struct{})
	close(always)
	v.issuers[url].keys.set.Store(&keySet{keys: []*key{signedBy(true, always).key},
		fetched: time.Now()})

	header := `{"alg":"EdDSA","x5c":["` + strings.Repeat("A", 5<<10) + `"]}`
	for i := range 100 {
		claims := fmt.Sprintf(`{"iss":"%s","aud":"api","sub":"%d","exp":%d}`, url, i,
			time.Now().Unix()+60)
		if _, err := v.Verify(t.Context(), encode([]byte(header))+"."+encode([]byte(claims))+"."+
			encode([]byte("signature"))); err != nil {
			t.Fatal(err)
		}
	}
	kept, _ := v.cache.entries.size()
	if limit := room / len(header); kept == 0 || kept > limit {
		t.Errorf("%d bytes are counted for %d tokens of more than 5 KiB each, want 1 to %d: does the weight "+
			"leave a part of the token out?", room, kept, limit)
	}
}

// The cache counts its memory correctly, even for genuine tokens of 8 KiB with 1,500 scopes.
func TestCacheBytesAreExact(t *testing.T) {
	const url, room = "https://issuer.example/", 8 << 20
	v, err := NewVerifier(t.Context(),
		Config{Issuers: []Issuer{{URL: url, Audiences: []string{"api"}}}, CacheBytes: room})
	if err != nil {
		t.Fatal(err)
	}
	always := make(chan struct{})
	close(always)
	v.issuers[url].keys.set.Store(&keySet{keys: []*key{signedBy(true, always).key},
		fetched: time.Now()})
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		return int64(memory.HeapAlloc)
	}
	var scopes strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&scopes, "%x ", i)
	}
	before := heap()
	for i := range 2000 { // several times what there is room for
		claims := fmt.Sprintf(`{"iss":"%s","aud":"api","sub":"%d","exp":%d,"scope":"%s"}`, url, i,
			time.Now().Unix()+60, scopes.String())
		tok := encode([]byte(`{"alg":"EdDSA"}`)) + "." + encode([]byte(claims)) + "." +
			encode([]byte("signature"+fmt.Sprint(i)))
		if _, err := v.Verify(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
	}
	if holds := heap() - before; holds > room*5/4 {
		t.Errorf("%d bytes are used, %.1f times the limit of %d", holds,
			float64(holds)/room, room)
	} else {
		kept, _ := v.cache.entries.size()
		t.Logf("%d tokens in %.2f of the room", kept, float64(holds)/room)
	}
}

// The weight of a token counts everything that the cache alone keeps in memory.
func TestWeightOfTokens(t *testing.T) {
	big := strings.Repeat("x", 4<<10)
	for name, v := range map[string]*verifiedToken{
		"subject": {principal: &Principal{subject: big}},
		"client":  {principal: &Principal{clientID: big}},
		"scopes":  {principal: &Principal{scopes: make([]string, 0, len(big)/16)}},
		"text":    {principal: &Principal{}, text: big},
		"size":    {principal: &Principal{}, size: len(big)},
	} {
		if weight := v.weight(); weight < overhead+int64(len(big)) {
			t.Errorf("%s: %d bytes of weight, %d in use", name, weight, len(big))
		}
	}
}

// The cache of headers is small, whatever headers an issuer writes, and does not retain other parts
// of tokens.
func TestKnownHeadersAreBounded(t *testing.T) {
	var known headers
	for i := range 3 * maxHeaders {
		token := fmt.Appendf(nil, `{"alg":"EdDSA","kid":"%d"}%s`, i,
			strings.Repeat(" payload", 100))
		data := token[:strings.IndexByte(string(token), '}')+1]
		known.keep(data)
		kept := known.known.Load().(map[string]header)
		h, ok := kept[string(data)]
		if !ok || string(h.kid) != fmt.Sprint(i) || len(kept) > maxHeaders {
			t.Fatalf("after %d headers %d are known, the last as %+v: want it, and no more than %d",
				i+1, len(kept), h, maxHeaders)
		}
		clear(token)
		if got, err := known.parse(fmt.Appendf(nil, `{"alg":"EdDSA","kid":"%d"}`, i)); err != nil ||
			string(got.kid) != fmt.Sprint(i) {
			t.Fatalf("header %d is now known as %q, %v: does it share memory with its token?", i,
				got.kid, err)
		}
	}
}

// Concurrent requests with one new token cost one signature verification, also in two batches.
func TestCacheChecksASignatureOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(1 << 20)
		var checked, accepted atomic.Int32
		open := make(chan struct{})
		k := &key{verifiers: map[string]verifier{"EdDSA": func(_, _ []byte) bool {
			checked.Add(1)
			<-open
			return true
		}}}
		for wave := range 2 {
			for range 32 {
				go func() {
					if c.verify("", cacheKey{}, compact{}, &verifiedToken{principal: &Principal{},
						alg: []byte("EdDSA"), key: k}) != nil {
						accepted.Add(1)
					}
				}()
			}
			synctest.Wait()
			if wave == 0 {
				close(open)
			}
		}
		if checked.Load() != 1 || accepted.Load() != 64 {
			t.Errorf("the signature was checked %d times and %d of 64 requests accepted, want "+
				"once and all", checked.Load(), accepted.Load())
		}
	})
}

// The cached tokens stay within the limit, whatever their sizes.
func TestCacheStaysWithinItsBytes(t *testing.T) {
	const room = 1 << 20
	c := newCache(room)
	always := make(chan struct{})
	close(always)
	for i := range 5000 {
		accepted := signedBy(true, always)
		accepted.size = i * 7919 % maxTokenBytes
		if c.verify(fmt.Sprint(i), named(fmt.Sprintf("..%d", i)), compact{}, accepted) == nil {
			t.Fatal("refused")
		}
		if tokens, weight := c.entries.size(); tokens == 0 || weight > room {
			t.Fatalf("%d tokens weigh %d bytes, the limit is %d", tokens, weight, room)
		}
	}
}

// The key of a token in the cache depends on all of its bytes: a token that differs in any byte, or
// is divided differently, is not found, and does not evict the cached one.
func TestCacheKeyHasEveryByte(t *testing.T) {
	c := newCache(1 << 20)
	always := make(chan struct{})
	close(always)
	genuine := fuzzToken(fuzzHeader, fuzzClaims) + strings.Repeat("A", 3*hashedChars)
	if c.verify(genuine, named(genuine), compact{}, signedBy(true, always)) == nil {
		t.Fatal("refused")
	}
	last := strings.LastIndexByte(genuine, '.')
	if kept := c.find(named(genuine)).text; len(kept) != len(genuine)-hashedChars ||
		strings.Contains(kept, genuine[last+1:last+1+hashedChars]) {
		t.Errorf("the cache keeps %q of %q", kept, genuine)
	}
	others := []string{"", ".", genuine + ".", "." + genuine, genuine + "A", genuine[:last],
		genuine[:last] + genuine[last+1:], genuine[last:], genuine[last+1:]}
	for i := range genuine {
		others = append(others, genuine[:i]+string(genuine[i]^1)+genuine[i+1:],
			genuine[:i]+genuine[i+1:])
	}
	for _, other := range others {
		if n, ok := cacheKeyOf(other); ok && other != genuine && c.find(n) != nil {
			t.Errorf("%q is taken for %q", other, genuine)
		}
		if c.find(named(genuine)) == nil {
			t.Fatalf("%q has evicted the cached token", other)
		}
	}
}

// An attacker who has seen a token can send its signature with other claims, at the time at which
// the token is verified.
func TestCacheSharesVerdictsOfOneTokenOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCache(1 << 20)
		genuine, forged := "header.claims.signature", "header.others.signature"
		open := make(chan struct{})
		k := &key{verifiers: map[string]verifier{"EdDSA": func(signed, _ []byte) bool {
			<-open
			return string(signed) == "header.claims"
		}}}
		got := map[string]*verifiedToken{}
		for _, token := range []string{genuine, forged} {
			parts := compact{signed: []byte(token[:strings.LastIndexByte(token, '.')])}
			accepted := &verifiedToken{principal: &Principal{}, alg: []byte("EdDSA"), key: k}
			go func() {
				v := c.verify(token, named(token), parts, accepted)
				got[token] = v
			}()
			synctest.Wait()
		}
		open <- struct{}{}
		synctest.Wait()
		close(open)
		synctest.Wait()
		if got[genuine] == nil || got[forged] != nil {
			t.Errorf("genuine accepted: %v, forged accepted: %v", got[genuine] != nil,
				got[forged] != nil)
		}
	})
}
