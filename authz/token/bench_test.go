package token_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"github.com/oasgate/oasgate/authz/token"
)

// BenchmarkVerify measures a new token, a repeated one, and a forged one, by algorithm.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA", "RS384", "RS512", "PS384",
		"PS512", "ES384", "ES512"} {
		s := newScene(b)
		s.policy.Algorithms = []string{alg}
		key := keyFor(alg)
		s.publishOnly(jwk(key.Public(), "kid", `"k"`, "alg", strconv.Quote(alg)))
		header := s.header("kid", `"k"`, "alg", strconv.Quote(alg))
		v := s.verifier(b)
		tok := sign(b, alg, key, header, s.claims())
		accepted(b, v, tok)

		b.Run(alg+"/new", func(b *testing.B) {
			var tokens []string
			for n := range 1024 {
				// many more than the cache records before it evicts them
				tokens = append(tokens,
					sign(b, alg, key, header, s.claims("jti", strconv.Quote(fmt.Sprint(n)))))
			}
			config := s.config(s.policy)
			config.CacheBytes = 1 // nothing is cached
			v, err := token.NewVerifier(b.Context(), config)
			if err != nil {
				b.Fatal(err)
			}
			accepted(b, v, tok)
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if _, err := v.Verify(b.Context(), tokens[n%len(tokens)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/again", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), tok); err != nil {
					b.Fatal(err)
				}
			}
		})
		if !slices.Contains([]string{"RS256", "PS256", "ES256", "EdDSA"}, alg) {
			continue
		}
		b.Run(alg+"/forged", func(b *testing.B) {
			other := sign(b, alg, key, header, s.claims("sub", `"other"`))
			forged := tok[:len(tok)-8] + other[len(other)-8:]
			refused(b, v, forged, token.BadSignature)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), forged); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

// BenchmarkDistinctTokens measures a repeated token after so many others. The time should not
// depend on their number, and the memory should not exceed CacheBytes (here the default) and that
// of the test. Signing the last set takes minutes.
func BenchmarkDistinctTokens(b *testing.B) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			if testing.Short() && n > 10_000 {
				b.Skip("a million signatures are left out of -short")
			}
			s := newScene(b)
			s.policy.Algorithms = []string{"EdDSA"}
			key := keyFor("EdDSA")
			s.publishOnly(jwk(key.Public(), "kid", `"k"`, "alg", `"EdDSA"`))
			header := s.header("kid", `"k"`, "alg", `"EdDSA"`)
			v := s.verifier(b)
			recent := make([]string, min(n, 1000))
			for i := range n {
				tok := sign(b, "EdDSA", key, header,
					s.claims("jti", strconv.Quote(strconv.Itoa(i))))
				accepted(b, v, tok)
				recent[i%len(recent)] = tok
			}
			for range 2 { // some of them the others have driven out
				for _, tok := range recent {
					accepted(b, v, tok)
				}
			}
			runtime.GC()
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := v.Verify(b.Context(), recent[i%len(recent)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.ReportMetric(float64(memory.HeapAlloc)/(1<<20), "MiB")
		})
	}
}
