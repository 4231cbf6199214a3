package token_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/token"
)

// TestNoChangeIsAccepted: no byte of a genuine token's decoded header, payload or signature can be
// changed, added or removed. The test flips each bit at each position, and inserts characters with
// a meaning in JSON.
func TestNoChangeIsAccepted(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			s := newScene(t)
			s.policy.Algorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}
			key := keyFor(alg)
			// without alg, it is for all algorithms that fit it
			s.publishOnly(jwk(key.Public(), "kid", `"k"`))
			v := s.verifier(t)
			tok := sign(t, alg, key, s.header("kid", `"k"`, "alg", strconv.Quote(alg)),
				s.claims("nbf", "0"))
			accepted(t, v, tok)

			var parts [3][]byte
			for i, segment := range strings.Split(tok, ".") {
				parts[i] = must(base64.RawURLEncoding.DecodeString(segment))
			}
			const signature = 2
			tries := 0
			try := func(i int, changed []byte) {
				t.Helper()
				if tries++; slices.Equal(changed, parts[i]) {
					return
				}
				with := parts
				with[i] = changed
				forged := segment(with[0]) + "." + segment(with[1]) + "." + segment(with[2])
				_, err := v.Verify(t.Context(), forged)
				if err == nil {
					t.Errorf("accepted with one byte changed:\n%s\ngenuine:\n%s", legible(forged),
						legible(tok))
				} else if e, _ := errors.AsType[*token.Error](err); e == nil ||
					e.Code == token.KeysUnavailable {
					t.Errorf("refused for want of keys, not for the change: %v\n%s", err,
						legible(forged))
				}
			}
			for i, part := range parts {
				for at := range part {
					for bit := range 8 {
						if i == signature && bit != at%8 && bit != 7 {
							// of a signature, one bit per byte is enough, because each costs a
							// verification
							continue
						}
						changed := slices.Clone(part)
						changed[at] ^= 1 << bit
						try(i, changed)
					}
					try(i, slices.Delete(slices.Clone(part), at, at+1))
					if i == signature {
						continue // no JSON
					}
					for _, c := range []byte("\x00\" }{],:9\\") {
						changed := slices.Clone(part)
						changed[at] = c
						try(i, changed)
						try(i, slices.Insert(slices.Clone(part), at, c))
					}
				}
				try(i, append(slices.Clone(part), 0))
				try(i, append(slices.Clone(part), ' '))
			}
			if tries < 8000 {
				t.Errorf("only %d changes were tried", tries)
			}
			accepted(t, v, tok) // genuine tokens are still accepted
		})
	}
}
