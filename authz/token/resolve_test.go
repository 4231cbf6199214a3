package token_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// directory finds the issuers of a program, like a database.
type directory struct {
	asked  atomic.Int32
	answer func(ctx context.Context, iss string) (*token.Issuer, error)
}

func (d *directory) resolve(ctx context.Context, iss string) (*token.Issuer, error) {
	d.asked.Add(1)
	return d.answer(ctx, iss)
}

// resolving returns a verifier without configured issuers.
func (s *scene) resolving(t testing.TB, d *directory, issuers ...token.Issuer) *token.Verifier {
	t.Helper()
	if d.answer == nil {
		d.answer = func(_ context.Context, iss string) (*token.Issuer, error) {
			if iss != issuerURL {
				return nil, nil
			}
			found := s.policy
			return &found, nil
		}
	}
	config := s.config(issuers...)
	config.Resolve = d.resolve
	v, err := token.NewVerifier(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (d *directory) expect(t testing.TB, n int32, when string) {
	t.Helper()
	if pending := d.asked.Swap(0); pending != n {
		t.Errorf("%s: Resolve called %d times, want %d", when, pending, n)
	}
}

func TestResolve(t *testing.T) {
	s, d := newScene(t), &directory{}
	v := s.resolving(t, d)
	for range 3 {
		if p := accepted(t, v, s.genuine()); p.Issuer() != issuerURL ||
			!p.HasScope("read:messages") {
			t.Errorf("the principal is %+v", p)
		}
	}
	accepted(t, v, s.genuine("jti", `"2"`))
	d.expect(t, 1, "the same issuer")
	for range 3 {
		refused(
			t,
			v,
			s.genuine("iss", `"https://other.example/"`),
			token.WrongIssuer,
			"which is not accepted",
		)
	}
	d.expect(t, 1, "an issuer that is not accepted")
	refused(t, v, s.genuine("aud", `"x"`), token.WrongAudience)
	refused(t, v, s.genuine()[:200]+"AAAA", token.Malformed)
	d.expect(t, 0, "the rules of the issuer")

	configured := s.resolving(t, d, s.policy)
	accepted(t, configured, s.genuine())
	d.expect(t, 0, "a configured issuer")
}

// TestResolveIsNotCalled: for a token that no issuer could accept.
func TestResolveIsNotCalled(t *testing.T) {
	s, d := newScene(t), &directory{}
	v := s.resolving(t, d)
	for _, tok := range []string{
		"", "x", "a.b.c", "a.b", opaqueToken,
		s.genuine("iss", ""), s.genuine("iss", "1"), s.genuine("iss", `"not a URL"`),
		s.genuine("iss", `"file:///etc/passwd"`), s.genuine("iss", strconv.Quote("https://a.example/"+strings.Repeat("x", 600))),
		s.genuine("exp", ""), s.genuine("exp", "1"), s.genuine("exp", `"soon"`),
		s.SignBytes([]byte(s.header("alg", `"none"`)), []byte(s.claims())),
		s.SignBytes([]byte(s.header("alg", `"HS256"`)), []byte(s.claims())),
		s.SignBytes([]byte(s.header("crit", `["x"]`)), []byte(s.claims())),
		s.genuine("iss", strconv.Quote(issuerURL), "", `"iss":"https://b.example/"`),
		s.genuine() + ".x", strings.Repeat("x", 9000),
	} {
		if _, err := v.Verify(t.Context(), tok); err == nil {
			t.Errorf("accepted: %s", legible(tok))
		}
		d.expect(t, 0, legible(tok))
	}
}

// TestResolveAges: answers end; issuers that changed or went are not served from the cache.
func TestResolveAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSceneAt(t, "EdDSA", time.Now), &directory{}
		v := s.resolving(t, d)
		tok := s.genuine("exp", strconv.FormatInt(time.Now().Unix()+80000, 10))
		other := s.genuine(
			"iss",
			`"https://other.example/"`,
			"exp",
			strconv.FormatInt(time.Now().Unix()+80000, 10),
		)
		accepted(t, v, tok)
		refused(t, v, other, token.WrongIssuer)
		d.expect(t, 2, "at first")
		time.Sleep(29 * time.Second)
		refused(t, v, other, token.WrongIssuer)
		d.expect(t, 0, "not accepted, shortly after")
		time.Sleep(2 * time.Second)
		refused(t, v, other, token.WrongIssuer)
		d.expect(t, 1, "not accepted, later")
		time.Sleep(5 * time.Minute)
		accepted(t, v, tok)
		d.expect(t, 1, "accepted, later")
		fetches := len(s.wire.requests())

		s.policy.GrantableScopes = []string{"read:messages"} // changes
		time.Sleep(5 * time.Minute)
		if p := accepted(t, v, tok); len(p.Scopes()) != 1 {
			t.Errorf("the issuer's new rules are not enforced: %v", p.Scopes())
		}
		if len(s.wire.requests()) == fetches {
			t.Error("a new issuer uses the keys of the old one")
		}

		answer := d.answer
		d.answer = func(context.Context, string) (*token.Issuer, error) {
			return nil, errors.New("database down")
		}
		time.Sleep(5 * time.Minute)
		accepted(t, v, tok) // an outage does not make tokens invalid
		refused(t, v, other, token.KeysUnavailable)
		d.asked.Store(0)
		accepted(t, v, tok)
		refused(t, v, other, token.KeysUnavailable)
		d.expect(t, 0, "a failure shortly before")

		d.answer = func(context.Context, string) (*token.Issuer, error) { return nil, nil }
		time.Sleep(5 * time.Minute)
		refused(t, v, tok, token.WrongIssuer) // is removed, and its cached tokens with it
		d.answer = answer
		time.Sleep(time.Minute)
		accepted(t, v, tok)
	})
}

// TestResolveFaults: an invalid result is an outage, and the log has the reason.
func TestResolveFaults(t *testing.T) {
	for _, test := range []struct {
		change func(*token.Issuer)
		says   string
	}{
		{func(i *token.Issuer) { i.URL = "https://other.example/" }, "Config.Resolve returned an issuer with the URL"},
		{func(i *token.Issuer) { i.Audiences = nil }, "audiences are"},
		{func(i *token.Issuer) {
			i.Introspection = token.Introspection{ClientID: "a", ClientSecret: "b", Opaque: true}
		}, "names no issuer to resolve"},
	} {
		s, d := newScene(t), &directory{}
		d.answer = func(context.Context, string) (*token.Issuer, error) {
			i := s.policy
			test.change(&i)
			return &i, nil
		}
		if e := refused(t, s.resolving(t, d), s.genuine(),
			token.KeysUnavailable); !strings.Contains(
			e.Error(),
			test.says,
		) {
			t.Errorf("%v, want %q", e, test.says)
		}
	}
}

// TestResolveClockSetBack: after the clock was set back, the refusal of an issuer is not cached for
// longer than otherwise.
func TestResolveClockSetBack(t *testing.T) {
	s, d := newScene(t), &directory{}
	clock := now
	s.now = func() time.Time { return clock }
	works := false
	d.answer = func(context.Context, string) (*token.Issuer, error) {
		if !works {
			return nil, nil
		}
		found := s.policy
		return &found, nil
	}
	v := s.resolving(t, d)
	refused(t, v, s.genuine(), token.WrongIssuer)
	works, clock = true, clock.Add(-time.Hour)
	accepted(t, v, s.genuine("iat", "0"))
}

// TestResolveIsBounded: attackers who invent issuers evict no other, and do not flood Resolve.
func TestResolveIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSceneAt(t, "EdDSA", time.Now), &directory{}
		v := s.resolving(t, d)
		accepted(t, v, s.genuine())
		for n := range 3000 {
			v.Verify(t.Context(), s.genuine("iss", fmt.Sprintf(`"https://%d.example/"`, n)))
		}
		if pending := d.asked.Swap(0); pending > 1010 {
			t.Errorf("Resolve called %d times", pending)
		}
		accepted(t, v, s.genuine())
		d.expect(t, 0, "the accepted issuer")
		if stats := v.Stats(); len(stats.Issuers) != 1 || stats.Issuers[0].URL != issuerURL ||
			stats.Issuers[0].Keys != 1 {
			t.Errorf("the counters are %+v", stats.Issuers)
		}

		release := make(chan struct{})
		d.answer = func(ctx context.Context, iss string) (*token.Issuer, error) { // hangs
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, ctx.Err()
		}
		time.Sleep(10 * time.Second)
		gone, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := v.Verify(gone, s.genuine("iss", `"https://slow.example/"`)); codeOf(
			err,
		) != token.KeysUnavailable {
			t.Errorf("a client that hung up: %v", err)
		}
		close(release)
		time.Sleep(10 * time.Second)
	})
}

// TestResolveIsShared: issuers of other clients are found although some clients invent issuers,
// whether Resolve is fast or slow.
func TestResolveIsShared(t *testing.T) {
	for name, slow := range map[string]bool{"fast": false, "slow": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSceneAt(t, "EdDSA", time.Now), &directory{}
				d.answer = func(_ context.Context, iss string) (*token.Issuer, error) {
					if iss == issuerURL {
						found := s.policy
						return &found, nil
					}
					if slow {
						time.Sleep(4 * time.Second)
					}
					return nil, nil
				}
				v := s.resolving(t, d)
				for n := range 1500 {
					go v.VerifyPresented(t.Context(), token.Presented{
						Token:  s.genuine("iss", fmt.Sprintf(`"https://%d.example/"`, n)),
						Client: fmt.Sprint("192.0.2.", n%10),
					})
				}
				synctest.Wait()
				other := token.Presented{Token: s.genuine(), Client: "198.51.100.1"}
				if _, err := v.VerifyPresented(t.Context(), other); err != nil {
					t.Errorf("the issuer of another client's token: %v", err)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// TestStrangersDoNotKeepIssuers: while invented issuers keep Resolve busy, known issuers are
// accepted, and removed ones are not.
func TestStrangersDoNotKeepIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := newSceneAt(t, "EdDSA", time.Now), &directory{}
		v := s.resolving(t, d)
		expiry := strconv.FormatInt(time.Now().Unix()+80000, 10)
		tok := s.genuine("exp", expiry)
		accepted(t, v, tok)
		answer := d.answer
		d.answer = func(ctx context.Context, iss string) (*token.Issuer, error) {
			if iss == issuerURL {
				return answer(ctx, iss)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		flood := func() {
			time.Sleep(6 * time.Minute)
			for n := range 20 {
				stranger := s.genuine("iss", fmt.Sprintf(`"https://%d.example/"`, n), "exp", expiry)
				go v.Verify(t.Context(), stranger)
			}
			synctest.Wait()
		}
		flood()
		accepted(t, v, tok)
		answer = func(context.Context, string) (*token.Issuer, error) { return nil, nil }
		flood()
		refused(t, v, tok, token.WrongIssuer)
		time.Sleep(time.Minute)
	})
}
