package token_test

import (
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// The rows of "Keys: what an outage looks like". Most run with the clock of synctest: days pass at
// once, the time of calls is exact, and a leaked goroutine fails the test.

func bubble(t *testing.T, test func(t *testing.T, s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newSceneAt(t, "EdDSA", time.Now)) })
}

// fetches asserts how often the key set and discovery were requested.
func (s *scene) fetches(t testing.TB, want int, why string) {
	t.Helper()
	synctest.Wait()
	if discovery, keySet := s.Requests(); discovery != want || keySet != want {
		t.Errorf("%s: discovery was requested %d times and the key set %d times, want %d of "+
			"each", why, discovery, keySet, want)
	}
}

// atOnce asserts that do takes no time.
func atOnce(t testing.TB, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took != 0 {
		t.Errorf("took %s, want no wait", took)
	}
}

// outages are kinds of failures of an issuer.
var outages = map[string]devissuer.Fault{
	"connection lost":            {Down: true},
	"status 500":                 {Status: 500},
	"status 404":                 {Status: 404}, // two requests, the second by RFC 8414
	"status 204":                 {Status: 204},
	"status 206":                 {Status: 206},
	"never answers":              {Delay: 1000 * time.Hour},
	"redirect":                   {Redirect: issuerURL + ".well-known/jwks.json"},
	"redirect, 308":              {Redirect: keySetURL, Status: 308, Endpoint: devissuer.KeySet},
	"HTML":                       {ContentType: "text/html"},
	"text":                       {ContentType: "text/plain; charset=utf-8"},
	"no media type":              {ContentType: ";"},
	"discovery alone down":       {Endpoint: devissuer.Discovery, Down: true},
	"key set alone down":         {Endpoint: devissuer.KeySet, Down: true},
	"key set empty":              {Endpoint: devissuer.KeySet, Body: []byte(`{"keys":[]}`)},
	"key set of null":            {Endpoint: devissuer.KeySet, Body: []byte(`{"keys":null}`)},
	"key set without keys":       {Endpoint: devissuer.KeySet, Body: []byte(`{}`)},
	"key set an array":           {Endpoint: devissuer.KeySet, Body: []byte(`[]`)},
	"key set null":               {Endpoint: devissuer.KeySet, Body: []byte(`null`)},
	"key set of nothing":         {Endpoint: devissuer.KeySet, Body: []byte{}},
	"key set cut short":          {Endpoint: devissuer.KeySet, Body: []byte(`{"keys":[{"kty":"OKP",`)},
	"key set of unknown types":   {Endpoint: devissuer.KeySet, Body: []byte(`{"keys":[{"kty":"AKP","kid":"a"},{"kty":"oct","k":"AAAA"}]}`)},
	"key set of broken entries":  {Endpoint: devissuer.KeySet, Body: []byte(`{"keys":[null,1,"a",[],{},{"kty":"RSA"}]}`)},
	"key set too large":          {Endpoint: devissuer.KeySet, Body: []byte(`{"keys":[]}` + strings.Repeat(" ", 512<<10))},
	"discovery too large":        {Endpoint: devissuer.Discovery, Body: []byte(`{}` + strings.Repeat(" ", 512<<10))},
	"discovery no JSON":          {Endpoint: devissuer.Discovery, Body: []byte(`<html>`)},
	"discovery of another":       {DiscoveryIssuer: "https://attacker.example/"},
	"discovery without jwks_uri": {Endpoint: devissuer.Discovery, Body: []byte(`{"issuer":"` + issuerURL + `"}`)},
}

// TestKeysIssuerDownAtStart: the verifier is there, tokens get KeysUnavailable, and a second after
// the issuer is back they are accepted.
func TestKeysIssuerDownAtStart(t *testing.T) {
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scene) {
				s.Fail(outage)
				v := s.verifier(t)
				if pending := s.wire.requests(); len(pending) != 0 {
					t.Errorf("NewVerifier requested %q: it should do no I/O", pending)
				}
				if err := v.Ready(t.Context()); err == nil ||
					!strings.Contains(err.Error(), issuerURL) {
					t.Errorf("Ready says %v, want an error that names %s", err, issuerURL)
				}
				for range 20 {
					e := refused(t, v, s.genuine(), token.KeysUnavailable,
						"could not fetch the keys of "+issuerURL)
					if e.RetryAfter != time.Second || e.Err == nil {
						t.Errorf("RetryAfter is %s and the cause %v, want 1s and why",
							e.RetryAfter, e.Err)
					}
					time.Sleep(50 * time.Millisecond)
				}
				s.Fail(devissuer.Fault{})
				back := time.Now()
				for outage.Delay == 0 { // a fetch that began before the end of the outage hangs on
					if _, err := v.Verify(t.Context(), s.genuine()); err == nil {
						break
					}
					if time.Since(back) > time.Second {
						t.Fatal("a second after the issuer is back its tokens are not accepted")
					}
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(time.Second)
				if outage.Delay != 0 {
					time.Sleep(5 * time.Second)
					_ = v.Ready(t.Context())
				}
				accepted(t, v, s.genuine())
				if err := v.Ready(t.Context()); err != nil {
					t.Errorf("Ready says %v, and the keys are there", err)
				}
				if logged := strings.Count(s.log.String(),
					"could not fetch keys"); logged != 1 {
					t.Errorf("the same failure was logged %d times, want once:\n%s", logged,
						s.log)
				}
				loggable(t, s.genuine(), strings.ReplaceAll(s.log.String(), "\n", " "))
			})
		})
	}
}

// TestKeysIssuerDownAtStartOverTCP is the same with a real port without a listener.
func TestKeysIssuerDownAtStartOverTCP(t *testing.T) {
	server, err := devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Algorithm: "EdDSA"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	server.Stop()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	v, err := token.NewVerifier(t.Context(), token.Config{
		Issuers:    []token.Issuer{{URL: server.URL(), Audiences: []string{audience}}},
		HTTPClient: &http.Client{Transport: transport},
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, v, server.Mint(nil), token.KeysUnavailable)
	if err := v.Ready(t.Context()); err == nil {
		t.Error("Ready is nil without an issuer")
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	for {
		if _, err = v.Verify(t.Context(), server.Mint(nil)); err == nil {
			break
		}
		if time.Since(back) > time.Minute { // TestKeysIssuerDownAtStart asserts one second
			t.Fatalf("not served though the issuer is back: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("served %s after the issuer was back", time.Since(back).Round(time.Millisecond))
	server.Stop()
	accepted(t, v, server.Mint(nil))
}

// TestKeysIssuerDownLater: every token of a known key is still served, without delay, up to the
// maximum staleness.
func TestKeysIssuerDownLater(t *testing.T) {
	for name, outage := range outages {
		if len(outage.Body) > 1<<10 {
			continue // a day of large responses takes half a minute with the race detector
		}
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scene) {
				maxStale := 24 * time.Hour // the default
				if name != "connection lost" {
					maxStale = 3 * time.Hour
					s.policy.Keys.MaxStale = maxStale
				}
				v := s.verifier(t)
				// a cached token
				again := s.genuine("exp", strconv.FormatInt(time.Now().Unix()+23*3600, 10))
				accepted(t, v, again)
				s.Fail(outage)
				began := time.Now()
				for _, after := range []time.Duration{0, time.Second, 5 * time.Minute, maxStale / 2,
					maxStale - 62*time.Minute, maxStale - time.Second} {
					time.Sleep(time.Until(began.Add(after)))
					atOnce(t, func() { accepted(t, v, s.genuine()) })
					if after < 23*time.Hour-time.Minute {
						atOnce(t, func() { accepted(t, v, again) })
					}
					atOnce(t, func() {
						if err := v.Ready(t.Context()); err != nil {
							t.Errorf("after %s Ready says %v, and tokens are served", after, err)
						}
					})
				}
				discovery, _ := s.Requests()
				if outage.Status == http.StatusNotFound {
					discovery /= 2
				}
				if perHour := float64(discovery) / maxStale.Hours(); perHour < 40 || perHour > 75 {
					t.Errorf("the issuer got %.0f requests an hour during the outage, "+
						"want about one a minute", perHour)
				}
				last := s.genuine()
				atOnce(t, func() { accepted(t, v, last) })
				time.Sleep(2 * time.Second)
				if e := refused(t, v, s.genuine(),
					token.KeysUnavailable); e.RetryAfter != time.Second {
					t.Errorf("RetryAfter is %s, want 1s", e.RetryAfter)
				}
				// that it was accepted before does not help
				refused(t, v, last, token.KeysUnavailable)
				s.Fail(devissuer.Fault{})
				time.Sleep(time.Second)
				if outage.Delay != 0 {
					time.Sleep(5 * time.Second)
					_ = v.Ready(t.Context())
				}
				accepted(t, v, s.genuine())
				accepted(t, v, last)
			})
		})
	}
}

func TestKeysMaxStaleIsConfigurable(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		s.policy.Keys = token.KeyPolicy{MaxAge: 10 * time.Second, MaxStale: time.Minute}
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		s.Fail(devissuer.Fault{Down: true})
		time.Sleep(time.Minute - time.Millisecond)
		accepted(t, v, s.genuine())
		time.Sleep(2 * time.Millisecond)
		refused(t, v, s.genuine(), token.KeysUnavailable)
	})
}

// TestKeysRefreshedAheadOfExpiry: keys are refreshed in the background, by the clamped max-age,
// with or without tokens.
func TestKeysRefreshedAheadOfExpiry(t *testing.T) {
	for _, test := range []struct {
		name, cacheControl string
		maxAge             time.Duration // configured
		fresh              time.Duration // the expected result of both
	}{
		{"within the bounds", "public, max-age=600", 0, 10 * time.Minute},
		{"below the lower bound", "max-age=1", 0, time.Minute},
		{"above the upper bound", "max-age=86400", 0, time.Hour},
		{"unsaid", "public", 0, time.Hour},
		{"no-store", "no-store", 0, time.Minute},
		{"configured shorter", "max-age=600", 2 * time.Minute, 2 * time.Minute},
		{"configured shorter than the lower bound", "max-age=600", 10 * time.Second, 10 * time.Second},
		{"configured longer", "max-age=7200", 3 * time.Hour, 2 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scene) {
				s.Fail(devissuer.Fault{CacheControl: test.cacheControl})
				s.policy.Keys.MaxAge = test.maxAge
				v := s.verifier(t)
				accepted(t, v, s.genuine())
				s.fetches(t, 1, "at first need")
				earliest, latest := test.fresh*3/4*9/10, test.fresh*3/4
				time.Sleep(earliest - time.Millisecond)
				s.fetches(t, 1, "before three quarters of the time less a tenth")
				time.Sleep(latest - earliest + 2*time.Millisecond)
				s.fetches(t, 2, "at three quarters of the time")
				time.Sleep(latest + time.Millisecond)
				s.fetches(t, 3, "after as long again")
				atOnce(t, func() { accepted(t, v, s.genuine()) })
			})
		})
	}
}

// TestKeysRefreshDoesNotDelay: while keys are refreshed, the old ones serve.
func TestKeysRefreshDoesNotDelay(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		accepted(t, v, s.genuine()) // max-age is 300 s: refreshed from 202.5 to 225 s
		s.Fail(devissuer.Fault{Delay: 4 * time.Second})
		for range 3000 {
			time.Sleep(100 * time.Millisecond)
			atOnce(t, func() { accepted(t, v, s.genuine()) })
		}
	})
}

// TestKeysRefreshBackoff: a failed fetch is repeated after 1, 2, 4… seconds, at most a minute, and
// then its result is used.
func TestKeysRefreshBackoff(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		s.Fail(devissuer.Fault{Down: true, Endpoint: devissuer.Discovery})
		first, _ := s.Requests()
		for first == 1 {
			time.Sleep(10 * time.Millisecond)
			first, _ = s.Requests()
		}
		failing := time.Now()
		for n, at := range []time.Duration{0, 1, 3, 7, 15, 31, 63, 123, 183, 243} {
			// seconds, less up to a tenth of each pause
			time.Sleep(time.Until(failing.Add(at*time.Second + 20*time.Millisecond)))
			synctest.Wait()
			if attempts, _ := s.Requests(); attempts != n+2 {
				t.Fatalf("%d s after the first failure there were %d attempts, want %d", at,
					attempts-1, n+1)
			}
		}
		s.log.mentions(t, "could not fetch keys", "still_serving=true")
		kid := s.Rotate("")
		s.Fail(devissuer.Fault{})
		time.Sleep(time.Minute)
		before, _ := s.Requests()
		if got, _ := s.CurrentKey(); got != kid {
			t.Fatal("not rotated")
		}
		accepted(t, v, s.genuine())
		if after, _ := s.Requests(); after != before {
			t.Error("a request waited for the new key: it should have been fetched with a " +
				"refresh in the " +
				"background")
		}
	})
}

// TestKeysFetchTimeout: five seconds for discovery and key set together.
func TestKeysFetchTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		s.Fail(devissuer.Fault{Delay: 3 * time.Second})
		start := time.Now()
		e := refused(t, v, s.genuine(), token.KeysUnavailable)
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %s, want 5s", took)
		}
		if !errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("the cause is %v, want a deadline", e.Err)
		}
		s.Fail(devissuer.Fault{Delay: 2 * time.Second})
		time.Sleep(time.Second)
		// After a failed attempt, requests do not wait for the end of the next.
		start = time.Now()
		refused(t, v, s.genuine(), token.KeysUnavailable)
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("took %s, want 500ms", took)
		}
		atOnce(t, func() { refused(t, v, s.genuine(), token.KeysUnavailable) })
		time.Sleep(4 * time.Second)
		accepted(t, v, s.genuine())
	})
}

// TestKeysAreNotFetchedWithoutTokens: without tokens of an issuer, its keys are not fetched, at
// start and after a first fetch that failed.
func TestKeysAreNotFetchedWithoutTokens(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		time.Sleep(time.Hour)
		s.fetches(t, 0, "nobody has asked")
		s.Fail(devissuer.Fault{Endpoint: devissuer.KeySet, Down: true})
		refused(t, v, s.genuine(), token.KeysUnavailable)
		time.Sleep(time.Hour)
		s.fetches(t, 1, "one token came, an hour ago")
	})
}

// TestKeysSingleFlight: a hundred tokens at a cold start cause one fetch and share it.
func TestKeysSingleFlight(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		s.Fail(devissuer.Fault{Delay: time.Second})
		var group sync.WaitGroup
		for n := range 100 {
			tok := s.genuine("jti", strconv.Quote(strconv.Itoa(n)))
			group.Go(func() {
				if _, err := v.Verify(t.Context(), tok); err != nil {
					t.Errorf("refused: %v", err)
				}
			})
			group.Go(func() {
				if err := v.Ready(t.Context()); err != nil {
					t.Errorf("not ready: %v", err)
				}
			})
		}
		group.Wait()
		s.fetches(t, 1, "for a hundred tokens")
	})
}

// TestKeysClientHangsUp: if a client disconnects during the first fetch, others are not affected.
func TestKeysClientHangsUp(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		s.Fail(devissuer.Fault{Delay: time.Second})
		tok, start := s.genuine(), time.Now()
		var group sync.WaitGroup
		timeout := func(ctx context.Context, after time.Duration, cause error) {
			_, err := v.Verify(ctx, tok)
			e, ok := errors.AsType[*token.Error](err)
			if !ok || e.Code != token.KeysUnavailable || !errors.Is(err, cause) {
				t.Errorf("the client that hung up got %v, want keys_unavailable because of %v",
					err, cause)
			}
			if took := time.Since(start); took != after {
				t.Errorf("the request of the client that disconnected took %s, want %s", took,
					after)
			}
		}
		group.Go(func() { // the one whose request began the fetch
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			timeout(ctx, 100*time.Millisecond, context.Canceled)
		})
		synctest.Wait()
		group.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			timeout(ctx, 300*time.Millisecond, context.DeadlineExceeded)
		})
		for range 10 {
			group.Go(func() { accepted(t, v, tok) })
		}
		group.Wait()
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("the others were served after %s, want 2s: discovery and key set", took)
		}
		s.fetches(t, 1, "though the first client hung up")
	})
}

// TestKeysClientGoneBefore: a request whose context has ended can start a fetch, whose result
// others use.
func TestKeysClientGoneBefore(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		s.Fail(devissuer.Fault{Delay: time.Second})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Verify(gone, s.genuine()); err == nil {
			t.Error("accepted without keys")
		}
		accepted(t, v, s.genuine())
		s.fetches(t, 1, "by a client that was gone")
		// With the keys, nothing waits, so the ended context does not matter.
		if _, err := v.Verify(gone, s.genuine()); err != nil {
			t.Errorf("refused with the keys there: %v", err)
		}
	})
}

// TestKeysUnknownKid: one refresh at once, then at most one per cooldown.
func TestKeysUnknownKid(t *testing.T) {
	for name, cooldown := range map[string]time.Duration{"by default": 0,
		"configured": 7 * time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scene) {
				s.policy.Keys.Cooldown = cooldown
				if cooldown == 0 {
					cooldown = 30 * time.Second
				}
				v := s.verifier(t)
				accepted(t, v, s.genuine())
				s.fetches(t, 1, "at first need")

				s.Rotate("")
				atOnce(t, func() { accepted(t, v, s.genuine()) })
				s.fetches(t, 2, "for the new key, at once")

				unknown := func() string {
					return s.SignBytes([]byte(s.header("kid", `"unknown"`)), []byte(s.claims()))
				}
				for range 200 {
					atOnce(t, func() {
						e := refused(t, v, unknown(), token.KeyPending, `kid "unknown" is unknown`)
						if e.RetryAfter != cooldown {
							t.Errorf("RetryAfter is %s, want %s", e.RetryAfter, cooldown)
						}
					})
				}
				s.fetches(t, 2, "during the cooldown")
				time.Sleep(cooldown - time.Millisecond)
				if e := refused(t, v, unknown(),
					token.KeyPending); e.RetryAfter != time.Millisecond {
					t.Errorf("RetryAfter is %s, want what is left of the cooldown",
						e.RetryAfter)
				}
				s.fetches(t, 2, "at the end of the cooldown")
				time.Sleep(time.Millisecond)
				var group sync.WaitGroup
				s.Fail(devissuer.Fault{Delay: time.Second})
				for range 100 {
					group.Go(func() { refused(t, v, unknown(), token.UnknownKey) })
				}
				accepted(t, v, s.genuine()) // known keys do not wait
				group.Wait()
				s.fetches(t, 3, "after the cooldown, for a hundred tokens")
				accepted(t, v, s.genuine())
			})
		})
	}
}

// TestKeysUnknownKidAtAColdStart: the fetch for this token need not be repeated.
func TestKeysUnknownKidAtAColdStart(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		refused(t, v, s.SignBytes([]byte(s.header("kid", `"unknown"`)), []byte(s.claims())),
			token.UnknownKey)
		s.fetches(t, 1, "at a cold start")
		s.Rotate("") // the first fetch was not forced, so there is no cooldown
		accepted(t, v, s.genuine())
		s.fetches(t, 2, "for the new key")
	})
}

// TestKeysOnlyAForcedRefreshStartsTheCooldown: the first fetch and background fetches do not start
// it.
func TestKeysOnlyAForcedRefreshStartsTheCooldown(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		for n := 1; n == 1; n, _ = s.Requests() {
			time.Sleep(time.Second)
		}
		s.fetches(t, 2, "in the background")
		s.Rotate("")
		atOnce(t, func() { accepted(t, v, s.genuine()) })
		s.fetches(t, 3, "for the new key, a moment later")
	})
}

// TestKeysUnknownKidDuringAnOutage: until a refresh succeeds, the token is neither accepted nor
// invalid.
func TestKeysUnknownKidDuringAnOutage(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		known := s.genuine()
		accepted(t, v, known)
		s.Rotate("")
		s.Fail(devissuer.Fault{Status: 503})
		retryAfter := func(want time.Duration) {
			t.Helper()
			if e := refused(t, v, s.genuine(), token.KeyPending, issuerURL); e.RetryAfter != want ||
				e.Err == nil {
				t.Errorf("RetryAfter is %s, want %s: when the next refresh may be",
					e.RetryAfter, want)
			}
		}
		retryAfter(30 * time.Second)
		time.Sleep(10 * time.Second)
		// the background fetch continues, and hangs
		s.Fail(devissuer.Fault{Status: 503, Delay: time.Minute})
		atOnce(t, func() { retryAfter(20 * time.Second) })
		accepted(t, v, known)
		s.Fail(devissuer.Fault{})
		time.Sleep(30 * time.Second)
		accepted(t, v, s.genuine())
		accepted(t, v, known)
	})
	bubble(t, func(t *testing.T, s *scene) { // the same, and then the kid is unknown for certain
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		forged := s.SignBytes([]byte(s.header("kid", `"forged"`)), []byte(s.claims()))
		s.Fail(devissuer.Fault{Down: true})
		refused(t, v, forged, token.KeyPending)
		s.Fail(devissuer.Fault{})
		time.Sleep(30 * time.Second)
		refused(t, v, forged, token.UnknownKey, `has kid "forged"`)
	})
}

// TestKeysRemoved: tokens of a removed key are refused from the next refresh, also cached ones.
func TestKeysRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		old, _ := s.CurrentKey()
		tok := s.genuine("exp", strconv.FormatInt(time.Now().Unix()+3600, 10))
		accepted(t, v, tok)
		s.Rotate("")
		accepted(t, v, s.genuine())
		accepted(t, v, tok)
		s.RemoveKey(old)
		accepted(t, v, tok) // not known yet
		time.Sleep(225 * time.Second)
		synctest.Wait()
		refused(t, v, tok, token.UnknownKey, strconv.Quote(old))
		accepted(t, v, s.genuine())
	})
}

// TestKeysChanged: cached tokens are verified again if their key has changed.
func TestKeysChanged(t *testing.T) {
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	key := func(changes ...string) string { return jwk(ed25519Key().Public(), changes...) }
	spare := jwk(p256Key().Public(), "kid", `"spare"`)
	for _, test := range []struct {
		name          string
		kid           string // of the token
		before, after []string
		code          token.Code // by the next set
	}{
		{"not at all", `"k"`, []string{key("kid", `"k"`)}, []string{key("kid", `"k"`)}, ""},
		{"alg is said now", `"k"`, []string{key("kid", `"k"`)}, []string{key("kid", `"k"`, "alg", `"EdDSA"`)}, ""},
		{"another key is added", `"k"`, []string{key("kid", `"k"`)}, []string{spare, key("kid", `"k"`)}, ""},
		{"another key of the same kid", `"k"`, []string{key("kid", `"k"`)}, []string{jwk(other.Public(), "kid", `"k"`)}, token.BadSignature},
		{"another kid for the same key", `"k"`, []string{key("kid", `"k"`)}, []string{key("kid", `"j"`)}, token.UnknownKey},
		{"for encryption now", `"k"`, []string{key("kid", `"k"`)}, []string{spare, key("kid", `"k"`, "use", `"enc"`)}, token.UnknownKey},
		{"no more for verifying", `"k"`, []string{key("kid", `"k"`)}, []string{spare, key("kid", `"k"`, "key_ops", `["sign"]`)}, token.UnknownKey},
		{"its kid is taken twice", `"k"`, []string{key("kid", `"k"`)}, []string{spare, key("kid", `"k"`), jwk(other.Public(), "kid", `"k"`)}, token.UnknownKey},
		{"not the only one any more, and not named", "", []string{key("kid", `"k"`)}, []string{spare, key("kid", `"k"`)}, token.UnknownKey},
		{"still the only one, not named", "", []string{key("kid", `"k"`)}, []string{key("kid", `"k"`)}, ""},
		{"another only one, not named", "", []string{key("kid", `"k"`)}, []string{jwk(other.Public(), "kid", `"k"`)}, token.BadSignature},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scene) {
				s.policy.Algorithms = []string{"EdDSA", "ES256"}
				s.publishOnly(test.before...)
				v := s.verifier(t)
				exp := strconv.FormatInt(time.Now().Unix()+7200, 10)
				tok := sign(t, "EdDSA", ed25519Key(), s.header("kid", test.kid),
					s.claims("exp", exp))
				accepted(t, v, tok)
				s.publishOnly(test.after...)
				time.Sleep(time.Hour)
				synctest.Wait()
				fresh := sign(t, "EdDSA", ed25519Key(), s.header("kid", test.kid),
					s.claims("exp", exp, "jti", `"2"`))
				for name, tok := range map[string]string{"accepted before": tok,
					"never seen": fresh} {
					if test.code == "" {
						accepted(t, v, tok)
					} else {
						t.Log(name)
						refused(t, v, tok, test.code)
					}
				}
			})
		})
	}
}

// TestKeysCachedTokenExpires: cached tokens expire.
func TestKeysCachedTokenExpires(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		v := s.verifier(t)
		tok := s.genuine() // for 300 s, and 30 s of leeway
		accepted(t, v, tok)
		time.Sleep(330*time.Second - time.Millisecond)
		accepted(t, v, tok)
		time.Sleep(time.Millisecond)
		refused(t, v, tok, token.Expired, "expired 30s ago")
		refused(t, v, tok, token.Expired)
	})
	// A verifier with another configuration verifies the same bytes again.
	s := newScene(t)
	tok := s.genuine()
	accepted(t, s.verifier(t), tok)
	s.policy.Audiences = []string{"urn:other"}
	refused(t, s.verifier(t), tok, token.WrongAudience)
}

// TestKeysCacheBytes: with a cache that is too small for any token, only the cost changes.
func TestKeysCacheBytes(t *testing.T) {
	s := newScene(t)
	config := s.config(s.policy)
	config.CacheBytes = 1
	v, err := token.NewVerifier(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	tok := s.genuine()
	for range 3 {
		accepted(t, v, tok)
		refused(t, v, tok[:len(tok)-8]+"AAAAAAAA", token.BadSignature)
	}
}

// TestKeysWrongAnswers: a faulty discovery document is an outage, and the log has the fault.
func TestKeysWrongAnswers(t *testing.T) {
	discovery := func(body string) devissuer.Fault {
		return devissuer.Fault{Endpoint: devissuer.Discovery, Body: []byte(body)}
	}
	set := func(body string) devissuer.Fault {
		return devissuer.Fault{Endpoint: devissuer.KeySet, Body: []byte(body)}
	}
	manyKeys := func(n int) string {
		return `{"keys":[` + strings.Repeat(`{"kty":"oct"},`, n-1) + jwk(ed25519Key().Public()) +
			`]}`
	}
	for _, test := range []struct {
		name  string
		fault devissuer.Fault
		says  []string
	}{
		{"issuer without the trailing slash", devissuer.Fault{DiscoveryIssuer: strings.TrimSuffix(issuerURL, "/")},
			[]string{discoveryURL, `issuer is "https://localhost:8443", expected "https://localhost:8443/"`, "they differ by a trailing slash"}},
		{"issuer in other case", devissuer.Fault{DiscoveryIssuer: "https://LOCALHOST:8443/"}, []string{`issuer is "https://LOCALHOST:8443/", expected "https://localhost:8443/"`, "exactly as its metadata names it"}},
		{"issuer of somebody else", devissuer.Fault{DiscoveryIssuer: "https://attacker.example/"}, []string{`issuer is "https://attacker.example/"`}},
		{"issuer that would break a log line", devissuer.Fault{DiscoveryIssuer: "x\nlevel=INFO"}, []string{`issuer is "x\nlevel=INFO"`}},
		{"issuer missing", discovery(`{"jwks_uri":"` + keySetURL + `"}`), []string{`issuer is ""`}},
		{"issuer a number", discovery(`{"issuer":1,"jwks_uri":"` + keySetURL + `"}`), []string{discoveryURL, "expected a discovery document"}},
		{"issuer twice", discovery(`{"issuer":"x","issuer":"` + issuerURL + `","jwks_uri":"` + keySetURL + `"}`), []string{"expected a discovery document"}},
		{"Issuer is not issuer", discovery(`{"Issuer":"` + issuerURL + `","jwks_uri":"` + keySetURL + `"}`), []string{`issuer is ""`}},
		{"an array", discovery(`[]`), []string{"expected a discovery document"}},
		{"jwks_uri missing", discovery(`{"issuer":"` + issuerURL + `"}`), []string{`jwks_uri is ""`, "expected an https URL"}},
		{"jwks_uri relative", devissuer.Fault{JWKSURI: "/keys"}, []string{`jwks_uri is "/keys"`, "expected an https URL"}},
		{"jwks_uri http elsewhere", devissuer.Fault{JWKSURI: "http://keys.example/"}, []string{`jwks_uri is "http://keys.example/"`, "expected an https URL"}},
		{"jwks_uri http on loopback for an https issuer", devissuer.Fault{JWKSURI: "http://localhost:8443/.well-known/jwks.json"}, []string{"expected an https URL"}},
		{"jwks_uri a file", devissuer.Fault{JWKSURI: "file:///etc/passwd"}, []string{"expected an https URL"}},
		{"jwks_uri without host", devissuer.Fault{JWKSURI: "https:///keys"}, []string{"expected an https URL"}},
		{"jwks_uri no URL", devissuer.Fault{JWKSURI: "https://%zz/"}, []string{"expected an https URL"}},
		{"jwks_uri nobody answers at", devissuer.Fault{JWKSURI: "https://keys.example/"}, []string{"https://keys.example/", "no route"}},
		{"status", devissuer.Fault{Endpoint: devissuer.KeySet, Status: 401}, []string{keySetURL, "status is 401, expected 200"}},
		{"redirect", devissuer.Fault{Endpoint: devissuer.KeySet, Redirect: "https://keys.example/"}, []string{keySetURL, "status is 302, expected 200 (redirects are not followed)"}},
		{"content type", devissuer.Fault{Endpoint: devissuer.KeySet, ContentType: "text/html"}, []string{keySetURL, `Content-Type is "text/html", expected JSON`}},
		{"too large", set(`{"keys":[]}` + strings.Repeat(" ", 512<<10)), []string{keySetURL, "exceeds the limit of 524288 bytes"}},
		{"101 keys", set(manyKeys(101)), []string{keySetURL, "101 keys, more than the limit of 100"}},
		{"no keys", set(`{"keys":[]}`), []string{keySetURL, "none of the 0 keys can verify a signature"}},
		{"no usable keys", set(`{"keys":[{"kty":"oct","kid":"a"},{"kty":"OKP","crv":"X25519","kid":"b","x":"AAAA"}]}`), []string{"none of the 2 keys", `kid "a"`, `kid "b"`}},
		{"not a set", set(`{"keys":{}}`), []string{"expected a JSON object with an array named keys"}},
		{"a lone key", set(jwk(ed25519Key().Public())), []string{"none of the 0 keys"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.Fail(test.fault)
			e := refused(t, s.verifier(t), s.genuine(), token.KeysUnavailable)
			for _, says := range test.says {
				if !strings.Contains(e.Err.Error(), says) {
					t.Errorf("the cause is %q: it does not say %q", e.Err, says)
				}
			}
			s.log.mentions(t, "level=WARN", "could not fetch keys", issuerURL)
			for _, pending := range s.wire.requests() {
				if pending != discoveryURL && pending != keySetURL &&
					test.name != "jwks_uri nobody answers at" {
					t.Errorf("%s was requested", pending)
				}
			}
		})
	}
}

// TestKeysRightAnswers tests the limits of what is allowed.
func TestKeysRightAnswers(t *testing.T) {
	key := jwk(ed25519Key().Public(), "kid", `"k"`)
	set := func(body string) devissuer.Fault {
		return devissuer.Fault{Endpoint: devissuer.KeySet, Body: []byte(body)}
	}
	one := `{"keys":[` + key + `]}`
	for name, fault := range map[string]devissuer.Fault{
		"one key":                     set(one),
		"unknown members":             set(`{"x":[1,{"keys":[]}],"keys":[` + key + `],"y":null}`),
		"100 keys":                    set(`{"keys":[` + strings.Repeat(`{"kty":"oct"},`, 99) + key + `]}`),
		"512 KiB":                     set(one + strings.Repeat(" ", 512<<10-len(one))),
		"entries that are no objects": set(`{"keys":[null,1,"a",[],{},{"kty":1},` + key + `]}`),
		"an entry of an unknown type": set(`{"keys":[{"kty":"AKP","kid":"k","alg":"ML-DSA-44","pub":"AAAA"},` + key + `]}`),
		"an entry with a name twice":  set(`{"keys":[{"kty":"RSA","kty":"OKP","kid":"j"},` + key + `]}`),
		"an entry of invalid UTF-8":   set("{\"keys\":[{\"kty\":\"\xff\",\"kid\":\"j\"}," + key + `]}`),
		"application/json":            {Endpoint: devissuer.KeySet, Body: []byte(one), ContentType: "application/json"},
		"with charset":                {Endpoint: devissuer.KeySet, Body: []byte(one), ContentType: "Application/JSON; charset=utf-8"},
		"application/jwk-set+json":    {Endpoint: devissuer.KeySet, Body: []byte(one), ContentType: "application/jwk-set+json"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.Fail(fault)
			accepted(t, s.verifier(t), sign(t, "EdDSA", ed25519Key(), s.header("kid", `"k"`),
				s.claims()))
		})
	}
	t.Run("a key set on another host", func(t *testing.T) {
		s := newScene(t)
		s.wire.hosts["keys.example"] = serveJSON(one)
		s.Fail(devissuer.Fault{JWKSURI: "https://keys.example/k?tenant=1"})
		accepted(t, s.verifier(t), sign(t, "EdDSA", ed25519Key(), s.header("kid", `"k"`),
			s.claims()))
	})
	t.Run("an issuer with a path", func(t *testing.T) {
		for _, url := range []string{"https://localhost:9443/tenant", "https://localhost:9443/tenant/"} {
			s := newScene(t)
			s.policy.URL = url
			s.wire.hosts["localhost:9443"] = serveJSON(`{"issuer":"` + url + `","jwks_uri":"https://localhost:9443/keys","keys":[` + key + `]}`)
			accepted(t, s.verifier(t), sign(t, "EdDSA", ed25519Key(), s.header("kid", `"k"`),
				s.claims("iss", strconv.Quote(url))))
			if pending := s.wire.requests()[0]; pending != "https://localhost:9443/tenant/.well-known/openid-configuration" {
				t.Errorf("discovery of %s was requested at %s", url, pending)
			}
		}
	})
	t.Run("http on loopback", func(t *testing.T) {
		const url = "http://127.0.0.1:9080/"
		s := newScene(t)
		s.policy.URL = url
		tok := sign(t, "EdDSA", ed25519Key(), s.header("kid", `"k"`),
			s.claims("iss", strconv.Quote(url)))
		serve := func(keysAt string) {
			s.wire.hosts["127.0.0.1:9080"] = serveJSON(`{"issuer":"` + url + `","jwks_uri":"` +
				keysAt + `","keys":[` + key + `]}`)
		}
		serve(url + "keys")
		accepted(t, s.verifier(t), tok)
		serve("http://keys.example/")
		refused(t, s.verifier(t), tok, token.KeysUnavailable)
	})
}

// TestKeysEntriesDropped: an unusable entry does not affect the others, and the log has the reason.
func TestKeysEntriesDropped(t *testing.T) {
	s := newScene(t)
	_, twice, _ := ed25519.GenerateKey(rand.Reader)
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	good := jwk(ed25519Key().Public(), "kid", `"good"`)
	s.publishOnly(`{"kty":"AKP","kid":"unknown"}`, `{"kty":"RSA","kid":"broken","e":"AQAB"}`,
		jwk(twice.Public(), "kid", `"twice"`), jwk(other.Public(), "kid", `"twice"`), good,
		`{"kty":"OKP","crv":"Ed25519","kid":"gave\nitself\u001baway","x":"AAAA","d":"`+segment(canary)+`"}`,
		jwk(twice.Public(), "kid", `"enc"`, "use", `"enc"`))
	v := s.verifier(t)
	accepted(t, v, sign(t, "EdDSA", ed25519Key(), s.header("kid", `"good"`), s.claims()))
	refused(t, v, sign(t, "EdDSA", twice, s.header("kid", `"twice"`), s.claims()), token.UnknownKey)
	s.log.mentions(t, "level=WARN", "keys ignored", issuerURL, `\"unknown\"`, `\"broken\"`,
		`\"twice\"`, "the private or symmetric key is published")
	if text := s.log.String(); strings.Contains(text, segment(canary)) ||
		strings.ContainsRune(text, '\x1b') {
		t.Errorf("the log has what it should not have:\n%s", text)
	}
	if strings.Contains(s.log.String(), `\"enc\"`) {
		t.Errorf("a key for encryption is not a fault, but was logged:\n%s", s.log)
	}
}

// TestKeysRedirectsAndSizeOverTCP uses a real transport, which follows redirects and decompresses
// bodies.
func TestKeysRedirectsAndSizeOverTCP(t *testing.T) {
	var elsewhere int
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	key := jwk(ed25519Key().Public(), "kid", `"k"`)
	inflated := func(size int) string {
		body := `{"keys":[` + key + `]}`
		return body + strings.Repeat(" ", size-len(body))
	}
	mux.HandleFunc("/{case}/.well-known/openid-configuration",
		func(w http.ResponseWriter, r *http.Request) {
			at := server.URL + "/" + r.PathValue("case")
			serveJSON(`{"issuer":"`+at+`","jwks_uri":"`+at+`/keys"}`).ServeHTTP(w, r)
		})
	mux.HandleFunc("/{case}/keys", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.PathValue("case") {
		case "redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case "gzip-fits", "gzip-too-large":
			w.Header().Set("Content-Encoding", "gzip")
			zip := gzip.NewWriter(w)
			if r.PathValue("case") == "gzip-fits" {
				fmt.Fprint(zip, inflated(512<<10))
			} else {
				fmt.Fprint(zip, inflated(4<<20)) // 4 KiB on the wire
			}
			zip.Close()
		case "too-large":
			fmt.Fprint(w, inflated(512<<10+1))
		case "endless":
			for _, err := fmt.Fprint(w, " "); err == nil; {
				_, err = w.Write(make([]byte, 64<<10))
			}
		}
	})
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		elsewhere++
		fmt.Fprint(w, inflated(1<<10))
	})

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, name := range []string{"redirect", "too-large", "gzip-too-large",
		"endless", "gzip-fits"} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.policy.URL = server.URL + "/" + name
			config := s.config(s.policy)
			config.HTTPClient = client
			v, err := token.NewVerifier(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			tok := sign(t, "EdDSA", ed25519Key(), s.header("kid", `"k"`),
				s.claims("iss", strconv.Quote(s.policy.URL)))
			if name == "gzip-fits" {
				accepted(t, v, tok)
			} else if e := refused(t, v, tok, token.KeysUnavailable); name != "redirect" &&
				!strings.Contains(e.Err.Error(), "exceeds the limit of 524288 bytes") {
				t.Errorf("the cause is %v, want the limit of 512 KiB", e.Err)
			}
		})
	}
	if elsewhere != 0 {
		t.Error("a redirect was followed")
	}
	if client.CheckRedirect != nil {
		t.Error("the configured client was changed: it is the caller's")
	}
}

// TestKeysReady: Ready returns nil once the keys of one issuer are available. Otherwise its error
// names all issuers.
func TestKeysReady(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		const second, third = "https://localhost:9443/", "https://localhost:7443/"
		verifier := func(issuers ...token.Issuer) *token.Verifier {
			v, err := token.NewVerifier(t.Context(), s.config(issuers...))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		down := []token.Issuer{{URL: second, Audiences: []string{audience}},
			{URL: third, Audiences: []string{audience}}}
		v := verifier(down...)
		err := v.Ready(t.Context())
		if err == nil || !strings.Contains(err.Error(), second) ||
			!strings.Contains(err.Error(), third) {
			t.Errorf("Ready says %v, want it to name %s and %s", err, second, third)
		}
		for range 100 { // readiness probes do not hammer an issuer
			_ = v.Ready(t.Context())
			time.Sleep(10 * time.Millisecond)
		}
		if pending := len(s.wire.requests()); pending > 2*3 {
			t.Errorf("%d requests in a second of probes, want two a second for each issuer",
				pending)
		}
		if err := verifier(append(down, s.policy)...).Ready(t.Context()); err != nil {
			t.Errorf("Ready says %v: that two issuers are down concerns their own tokens, the "+
				"third's can be verified", err)
		}
		s.wire.mu.Lock()
		s.wire.hosts["localhost:9443"] = serveJSON(`{"issuer":"` + second + `","jwks_uri":"` +
			second + `keys","keys":[` + jwk(p256Key().Public()) + `]}`)
		s.wire.mu.Unlock()
		time.Sleep(time.Second)
		if err := v.Ready(t.Context()); err != nil {
			t.Errorf("Ready says %v, and the keys of %s can be had", err, second)
		}
	})
}

// TestKeysEndWithTheServer: fetches end with the context of the verifier, and none begins
// afterwards.
func TestKeysEndWithTheServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		ctx, end := context.WithCancel(t.Context())
		v, err := token.NewVerifier(ctx, s.config(s.policy))
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, v, s.genuine())
		end()
		time.Sleep(20 * time.Hour)
		s.fetches(t, 1, "after the end")
		// active requests use the known keys
		atOnce(t, func() { accepted(t, v, s.genuine()) })
		time.Sleep(5 * time.Hour)
		refused(t, v, s.genuine(), token.KeysUnavailable)
		if err := v.Ready(t.Context()); err == nil {
			t.Error("Ready is nil after the end")
		}
	})
	bubble(t, func(t *testing.T, s *scene) { // during a fetch
		ctx, end := context.WithCancel(t.Context())
		v, err := token.NewVerifier(ctx, s.config(s.policy))
		if err != nil {
			t.Fatal(err)
		}
		s.Fail(devissuer.Fault{Delay: 4 * time.Second})
		time.AfterFunc(time.Second, end)
		start := time.Now()
		if e := refused(t, v, s.genuine(), token.KeysUnavailable); !errors.Is(e, context.Canceled) {
			t.Errorf("the cause is %v, want the end of the context", e.Err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %s, want 1s: until the end", took)
		}
	})
	bubble(t, func(t *testing.T, s *scene) { // during a refresh in the background
		ctx, end := context.WithCancel(t.Context())
		v, err := token.NewVerifier(ctx, s.config(s.policy))
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, v, s.genuine())
		s.Fail(devissuer.Fault{Delay: 4 * time.Second, Endpoint: devissuer.Discovery})
		n := 1
		for ; n == 1; n, _ = s.Requests() {
			time.Sleep(time.Second)
		}
		end()
		time.Sleep(10 * time.Hour)
		if after, _ := s.Requests(); after != n {
			t.Errorf("%d requests after the end", after-n)
		}
		accepted(t, v, s.genuine())
	})
}

// TestKeysNoGoroutineLeft after a thousand fetches that failed, over TCP.
func TestKeysNoGoroutineLeft(t *testing.T) {
	server, err := devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Algorithm: "EdDSA"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	transport := &http.Transport{}
	var mu sync.Mutex
	clock := time.Now()
	tick := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clock = clock.Add(time.Minute) // so that every token tries anew
		return clock
	}
	ctx, end := context.WithCancel(t.Context())
	v, err := token.NewVerifier(ctx, token.Config{
		Issuers: []token.Issuer{{URL: server.URL(), Audiences: []string{audience},
			MaxLifetime: 1e6 * time.Hour}},
		HTTPClient: &http.Client{Transport: transport}, Now: tick,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	tok := server.Mint(map[string]any{"exp": clock.Unix() + 3e9})
	failures := func(n int, fault devissuer.Fault) {
		server.Fail(fault)
		for range n {
			before, _ := server.Requests()
			for pending := before; pending == before; pending, _ = server.Requests() {
				if t.Failed() {
					t.FailNow()
				}
				time.Sleep(100 * time.Microsecond)
				// after a failed attempt, requests do not wait for the next
				refused(t, v, tok, token.KeysUnavailable)
			}
		}
	}
	count := func() int {
		transport.CloseIdleConnections()
		least := runtime.NumGoroutine()
		for range 100 { // connections take a moment to go
			least = min(least, runtime.NumGoroutine())
			time.Sleep(5 * time.Millisecond)
		}
		return least
	}
	failures(10, devissuer.Fault{Down: true})
	before, pending := count(), 0
	failures(400, devissuer.Fault{Down: true})
	failures(300, devissuer.Fault{Status: 500})
	failures(100, devissuer.Fault{Body: []byte("x")})
	server.Stop()
	server.Fail(devissuer.Fault{})
	for range 200 {
		refused(t, v, tok, token.KeysUnavailable)
	}
	pending, _ = server.Requests()
	if pending < 700 {
		t.Fatalf("only %d fetches were made: this test does not test what it says", pending)
	}
	if after := count(); after > before+2 {
		t.Errorf("%d goroutines before a thousand failed fetches and %d after:\n%s", before, after,
			stacks())
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for v.Ready(t.Context()) != nil { // the active attempt began before
		time.Sleep(time.Millisecond)
	}
	accepted(t, v, tok)
	end()
	if after := count(); after > before+2 {
		t.Errorf("%d goroutines before and %d after the end:\n%s", before, after, stacks())
	}
}

func stacks() []byte {
	buffer := make([]byte, 64<<10)
	return buffer[:runtime.Stack(buffer, true)]
}

// TestKeysConcurrently: concurrent verification, rotation and outages, for the race detector. No
// result is wrong.
func TestKeysConcurrently(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		s.policy.Keys = token.KeyPolicy{Cooldown: 20 * time.Millisecond,
			MaxAge: 100 * time.Millisecond}
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		var group sync.WaitGroup
		done := time.Now().Add(500 * time.Millisecond)
		group.Go(func() {
			for n := 0; time.Now().Before(done); n++ {
				before, _ := s.CurrentKey()
				s.Rotate("")
				time.Sleep(10 * time.Millisecond)
				s.RemoveKey(before)
				if n%3 == 0 {
					s.Fail(devissuer.Fault{Delay: 5 * time.Millisecond})
				} else {
					s.Fail(devissuer.Fault{})
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		for range 8 {
			group.Go(func() {
				for time.Now().Before(done) {
					tok := s.Mint(nil)
					p, err := v.Verify(t.Context(), tok)
					if e, _ := errors.AsType[*token.Error](err); err != nil &&
						e.Code != token.UnknownKey {
						t.Errorf("a genuine token: %v", err)
					} else if err == nil && p.Subject() == "" {
						t.Error("a principal without subject")
					}
					if _, err := v.Verify(t.Context(), tok[:len(tok)-6]+"AAAAAA"); err == nil {
						t.Error("a forged token was accepted")
					}
					time.Sleep(7 * time.Millisecond)
				}
			})
		}
		group.Wait()
		time.Sleep(time.Second)
		accepted(t, v, s.Mint(nil))
	})
}
