package token_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// TestIntrospectionOfStrangers: made-up tokens evict no genuine one, and are bounded in rate.
func TestIntrospectionOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		endpoint := s.introspected(t)
		endpoint.set("genuine", s.claims("active", "true"))
		v := s.verifier(t)
		accepted(t, v, "genuine")
		limited := 0
		for n := range 2000 {
			_, err := v.Verify(t.Context(), fmt.Sprint("junk", n))
			switch codeOf(err) {
			case token.IntrospectionUnavailable:
				limited++
			case token.Inactive:
			default:
				t.Fatalf("junk: %v", err)
			}
		}
		if pending := endpoint.asked.Load(); pending > 1001 || limited < 1000 {
			t.Errorf("%d introspection requests, %d refused without one", pending, limited)
		}
		before := endpoint.asked.Load()
		accepted(t, v, "genuine")
		if endpoint.asked.Load() != before {
			t.Error("junk evicted a genuine token")
		}
		time.Sleep(61 * time.Second)
		for n := range 2000 { // the flood continues; the cached response has expired
			v.Verify(t.Context(), fmt.Sprint("more", n))
		}
		accepted(t, v, "genuine")
		if stats := v.Stats().Issuers[0].Introspection; stats.Active != 2 || stats.Limited < 2000 {
			t.Errorf("the counters are %+v", stats)
		}
	})
}

// TestIntrospectionOfOneStranger: the made-up tokens of one client leave room for those of others,
// whether the issuer answers at once or not at all.
func TestIntrospectionOfOneStranger(t *testing.T) {
	for name, hangs := range map[string]bool{"a fast issuer": false, "a slow issuer": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSceneAt(t, "EdDSA", time.Now)
				endpoint := s.introspected(t)
				endpoint.set("genuine", s.claims("active", "true"))
				s.wire.hosts["introspect.example"] = http.HandlerFunc(
					func(w http.ResponseWriter, r *http.Request) {
						if hangs && r.PostFormValue("token") != "genuine" {
							time.Sleep(4 * time.Second) // less than the time limit
						}
						endpoint.ServeHTTP(w, r)
					})
				v := s.verifier(t)
				for n := range 500 {
					go v.VerifyPresented(t.Context(), token.Presented{
						Token: fmt.Sprint("junk", n), Client: "192.0.2.1", Introspect: n%2 == 0,
					})
				}
				synctest.Wait()
				other := token.Presented{Token: "genuine", Client: "192.0.2.2"}
				if _, err := v.VerifyPresented(t.Context(), other); err != nil {
					t.Errorf("the token of another client: %v", err)
				}
				time.Sleep(time.Minute)
				own := token.Presented{Token: "genuine", Client: "192.0.2.1", Introspect: true}
				if _, err := v.VerifyPresented(t.Context(), own); err != nil {
					t.Errorf("a token of the same client, later: %v", err)
				}
			})
		})
	}
}

// TestIntrospectionOfManyStrangers: the made-up tokens of many clients leave room for those of
// others, whether the issuer answers at once or not at all.
func TestIntrospectionOfManyStrangers(t *testing.T) {
	for name, test := range map[string]struct {
		hangs             bool
		strangers, others int // clients
	}{
		"a fast issuer": {false, 40, 40}, "a slow issuer": {true, 20, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSceneAt(t, "EdDSA", time.Now)
				endpoint := s.introspected(t)
				s.wire.hosts["introspect.example"] = http.HandlerFunc(
					func(w http.ResponseWriter, r *http.Request) {
						junk := strings.HasPrefix(r.PostFormValue("token"), "junk")
						if !junk {
							time.Sleep(50 * time.Millisecond)
						} else if test.hangs {
							time.Sleep(4 * time.Second) // less than the time limit
						}
						endpoint.ServeHTTP(w, r)
					})
				v := s.verifier(t)
				for n := range 100 * test.strangers {
					go v.VerifyPresented(t.Context(), token.Presented{
						Token: fmt.Sprint("junk", n), Introspect: n%2 == 0,
						Client: fmt.Sprint("192.0.2.", n%test.strangers),
					})
				}
				synctest.Wait()
				var others sync.WaitGroup
				for n := range test.others {
					tok := fmt.Sprint("genuine", n)
					endpoint.set(tok, s.claims("active", "true"))
					others.Go(func() {
						other := token.Presented{Token: tok, Client: fmt.Sprint("198.51.100.", n)}
						if _, err := v.VerifyPresented(t.Context(), other); err != nil {
							t.Errorf("the token of another client: %v", err)
						}
					})
				}
				others.Wait()
				time.Sleep(time.Minute)
			})
		})
	}
}

// TestLiveAnswersForOneSubject: a subject whose requests all need a live answer leaves room for
// others.
func TestLiveAnswersForOneSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		endpoint := s.introspected(t)
		many, other := s.genuine(), s.genuine("sub", `"other"`)
		endpoint.set(many, `{"active":true}`)
		endpoint.set(other, `{"active":true}`)
		s.wire.hosts["introspect.example"] = http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				if r.PostFormValue("token") == many {
					time.Sleep(4 * time.Second) // less than the time limit
				}
				endpoint.ServeHTTP(w, r)
			})
		v := s.verifier(t)
		accepted(t, v, other) // also fetches the keys
		for range 500 {
			go v.VerifyPresented(t.Context(), token.Presented{Token: many, Introspect: true})
		}
		synctest.Wait()
		_, err := v.VerifyPresented(t.Context(), token.Presented{Token: other, Introspect: true})
		if err != nil {
			t.Errorf("the token of another subject: %v", err)
		}
		if n := endpoint.asked.Load(); n != 1 {
			t.Errorf("%d introspection requests have ended, want one", n)
		}
		time.Sleep(time.Minute)
	})
}

// firewall puts a firewall in front of the endpoint, which refuses tokens that look like an attack.
func (s *scene) firewall(endpoint *introspection) {
	s.wire.hosts["introspect.example"] = http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.PostFormValue("token"), "/../../") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			endpoint.ServeHTTP(w, r)
		})
}

// TestStrangersDoNotStopIntrospection: a firewall's response to a made-up token, an unreadable
// response, or a client that disconnects is not an outage for others.
func TestStrangersDoNotStopIntrospection(t *testing.T) {
	t.Run("a firewall", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSceneAt(t, "EdDSA", time.Now)
			endpoint := s.introspected(t)
			tok := s.genuine()
			endpoint.set(tok, `{"active":true}`)
			s.firewall(endpoint)
			v := s.verifier(t)
			live := token.Presented{Token: tok, Introspect: true}
			for n := range 3 {
				refused(t, v, fmt.Sprint("/../../", n), token.IntrospectionUnavailable)
				if _, err := v.VerifyPresented(t.Context(), live); err != nil {
					t.Error(err)
				}
			}
		})
	})
	t.Run("a token with odd claims", func(t *testing.T) {
		s := newScene(t)
		endpoint := s.introspected(t)
		tok, odd := s.genuine(), s.genuine("jti", `"2"`)
		endpoint.set(tok, `{"active":true}`)
		endpoint.set(odd, `{"active":true,"act":"somebody"}`)
		v := s.verifier(t)
		for range 3 {
			live := token.Presented{Token: odd, Introspect: true}
			if _, err := v.VerifyPresented(t.Context(), live); codeOf(
				err,
			) != token.IntrospectionUnavailable {
				t.Error(err)
			}
			live.Token = tok
			if _, err := v.VerifyPresented(t.Context(), live); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a client that hangs up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSceneAt(t, "EdDSA", time.Now)
			endpoint := s.introspected(t)
			endpoint.set("a", s.claims("active", "true"))
			v := s.verifier(t)
			endpoint.failing(status(500))
			refused(t, v, "a", token.IntrospectionUnavailable)
			endpoint.failing(nil)
			time.Sleep(time.Second)
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			stranger := token.Presented{Token: "b", Introspect: true}
			if _, err := v.VerifyPresented(gone, stranger); codeOf(
				err,
			) != token.IntrospectionUnavailable {
				t.Error(err)
			}
			accepted(t, v, "a") // the outage did not begin anew
		})
	})
}

// TestFailuresForOneClient: if the issuer fails for the tokens of one client, those of others are
// accepted, and the client's share bounds its queries.
func TestFailuresForOneClient(t *testing.T) {
	for _, code := range []int{400, 403, 500} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSceneAt(t, "EdDSA", time.Now)
				endpoint := s.introspected(t)
				var failed atomic.Int32
				s.wire.hosts["introspect.example"] = http.HandlerFunc(
					func(w http.ResponseWriter, r *http.Request) {
						if strings.HasPrefix(r.PostFormValue("token"), "bad") {
							failed.Add(1)
							w.WriteHeader(code)
							return
						}
						endpoint.ServeHTTP(w, r)
					})
				v := s.verifier(t)
				verify := func(tok, client string) error {
					_, err := v.VerifyPresented(t.Context(),
						token.Presented{Token: tok, Client: client})
					return err
				}
				for round := range 60 {
					time.Sleep(500 * time.Millisecond)
					for n := range 40 {
						bad := fmt.Sprint("bad", round, "-", n)
						good := fmt.Sprint("good", round, "-", n)
						if err := verify(bad, "192.0.2.66"); err == nil {
							t.Fatal("accepted")
						}
						if n%20 != 0 { // the others ask less often
							continue
						}
						endpoint.set(good, s.claims("active", "true"))
						if err := verify(good, fmt.Sprint("198.51.100.", n)); err != nil {
							t.Fatalf("%s of another client: %v", good, err)
						}
					}
				}
				if n := failed.Load(); n < 60 || n > 30*50+59 {
					t.Errorf("%d queries of one client in 30 s, want 50 per second at most", n)
				}
			})
		})
	}
}

// TestFailuresForSeveralClients: once the issuer did not answer two clients, queries of others fail
// without delay. A query after a failure counts in the client's share too.
func TestFailuresForSeveralClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		endpoint := s.introspected(t)
		v := s.verifier(t)
		n := 0
		asked := func(client string, want int32) {
			t.Helper()
			n++
			before := endpoint.asked.Load()
			v.VerifyPresented(t.Context(), token.Presented{Token: fmt.Sprint("t", n),
				Client: client})
			if got := endpoint.asked.Load() - before; got != want {
				t.Errorf("a token of %s: %d queries, want %d", client, got, want)
			}
		}
		for range 57 {
			asked("a", 1)
		}
		endpoint.failing(func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) })
		asked("a", 1)
		asked("a", 0)
		asked("b", 1)
		asked("c", 0)
		time.Sleep(500 * time.Millisecond)
		asked("a", 1)
		time.Sleep(500 * time.Millisecond)
		endpoint.failing(nil)
		asked("c", 1)
		asked("b", 1)
		for range 50 { // as many as have returned to a's share since
			asked("a", 1)
		}
		asked("a", 0)
		time.Sleep(time.Second)
		asked("a", 1)
	})
}

// TestFirewall: clients whose tokens a firewall in front of the issuer refuses do not hold back
// those of others. They do not flood the log either.
func TestFirewall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		endpoint := s.introspected(t)
		s.firewall(endpoint)
		v := s.verifier(t)
		for n := range 300 { // 30 s
			for _, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
				bad := token.Presented{Token: fmt.Sprint("/../../", client, n), Client: client}
				if _, err := v.VerifyPresented(t.Context(), bad); err == nil {
					t.Fatal("accepted")
				}
			}
			good := token.Presented{Token: fmt.Sprint("good", n), Client: "198.51.100.1"}
			endpoint.set(good.Token, s.claims("active", "true"))
			if _, err := v.VerifyPresented(t.Context(), good); err != nil {
				t.Fatalf("after %d tokens: %v", n, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := strings.Count(s.log.String(), "\n"); n > 2*3+1 {
			t.Errorf("%d log lines in 30 s", n)
		}
	})
}

// TestPanicsReleaseSlots: an HTTP client that panics takes no slot for good.
func TestPanicsReleaseSlots(t *testing.T) {
	s := newScene(t)
	endpoint := s.introspected(t)
	config := s.config(s.policy)
	panics := true
	config.HTTPClient = &http.Client{Transport: roundTripper(
		func(r *http.Request) (*http.Response, error) {
			if panics {
				panic("transport")
			}
			return s.wire.RoundTrip(r)
		})}
	v := must(token.NewVerifier(t.Context(), config))
	verify := func(tok string, n int) error {
		_, err := v.VerifyPresented(t.Context(), token.Presented{
			Token: tok, Client: fmt.Sprint("198.51.100.", n), Introspect: true})
		return err
	}
	for n := range 20 {
		panics = true
		if err := verify(fmt.Sprint("t", n), 1); codeOf(err) != token.IntrospectionUnavailable {
			t.Errorf("a panic: %v", err)
		}
		panics = false
		good := fmt.Sprint("good", n)
		endpoint.set(good, s.claims("active", "true"))
		if err := verify(good, 2+n); err != nil {
			t.Errorf("after %d panics: %v", n+1, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
