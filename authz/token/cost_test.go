package token

import (
	"fmt"
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// unsigned returns a verifier that accepts any signature, to measure the other costs of a token,
// and so many tokens for it.
func unsigned(tb testing.TB, cacheBytes int64, n int) (*Verifier, []string) {
	const url, audience = "https://issuer.example/", "https://api.example.com"
	v, err := NewVerifier(tb.Context(),
		Config{Issuers: []Issuer{{URL: url, Audiences: []string{audience}}},
			CacheBytes: cacheBytes})
	if err != nil {
		tb.Fatal(err)
	}
	k := &key{kid: "0123456789abcdef",
		verifiers: map[string]verifier{"RS256": func(_, _ []byte) bool {
			return true
		}}}
	v.issuers[url].keys.set.Store(&keySet{keys: []*key{k}, bykid: map[string][]*key{k.kid: {k}},
		fetched: time.Now()})

	header, now := encode([]byte(`{"alg":"RS256","kid":"0123456789abcdef","typ":"at+jwt"}`)),
		time.Now().Unix()
	claims := encode(fmt.Appendf(nil,
		`{"aud":%q,"azp":"my_client_id_0123456789abcdefghij","exp":%d,"iat":%d,"iss":%q,`+
			`"jti":"0b7e5a2c-6d7e-4f0e-9a55-0a3f4c1b2d3e","scope":"openid profile read:messages","sub":"auth0|000000000000000000000001"}`, audience, now+3600, now, url))
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = header + "." + claims + "." + encode(fmt.Appendf(nil, "%0256d", i))
	}
	return v, tokens
}

// BenchmarkUnsigned measures new tokens, a repeated one, and malformed ones.
func BenchmarkUnsigned(b *testing.B) {
	v, tokens := unsigned(b, 4<<20, 1<<16) // many more than there is room for
	verify := func(name string, token func(i int) string, ok bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := v.Verify(b.Context(), token(i)); (err == nil) != ok {
					b.Fatal(err)
				}
			}
		})
	}
	verify("new", func(i int) string { return tokens[i%len(tokens)] }, true)
	verify("again", func(int) string { return tokens[0] }, true)
	verify("two segments", func(int) string { return "x.y" }, false)
	verify("no claims", func(int) string { return "e30.e30.e30" }, false)
}

// The limits are slightly above the measured values. A change that exceeds one makes each token
// more expensive.
func TestAllocationsPerToken(t *testing.T) {
	if build, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates on its own account")
	}
	v, tokens := unsigned(t, 1<<20, 5000)
	i := 0
	for _, test := range []struct {
		name    string
		token   func() string
		ceiling float64
	}{
		{"new", func() string { i++; return tokens[i] }, 13},
		{"again", func() string { return tokens[i] }, 0},
		{"two segments", func() string { return "x.y" }, 2},
	} {
		if allocs := testing.AllocsPerRun(4000, func() {
			_, _ = v.Verify(t.Context(), test.token())
		}); allocs > test.ceiling {
			t.Errorf("%s: %v allocations, want at most %v", test.name, allocs, test.ceiling)
		}
	}
}
