package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// another starts another issuer.
func another(t *testing.T) *devissuer.Server {
	t.Helper()
	issuer, err := devissuer.Start(
		devissuer.Config{Audiences: []string{testAudience}, Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	return issuer
}

// withIssuers configures a server for exactly these issuers.
func withIssuers(issuers ...token.Issuer) func(*Config) {
	return func(c *Config) { c.Issuers = issuers }
}

func issuerOf(issuer *devissuer.Server) token.Issuer {
	return token.Issuer{URL: issuer.URL(), Audiences: []string{testAudience}}
}

// get sends a request with a token and expects a status.
func (r *running) get(t *testing.T, path, jwt string, want int, why string) answer {
	t.Helper()
	got := r.ask(t, http.MethodGet, path, "Authorization", "Bearer "+jwt)
	if got.status != want {
		t.Errorf("GET %s is %d, want %d: %s\n%s", path, got.status, want, why, got.body)
	}
	return got
}

// Each issuer only issues its own tokens, by its own rules.
func TestThreeIssuers(t *testing.T) {
	a, b, c := another(t), another(t), another(t)
	limited, strict := issuerOf(b), issuerOf(c)
	limited.GrantableScopes = []string{"another"}
	strict.RFC9068, strict.ScopeClaims, strict.ScopeNames = true, []string{
		"/roles",
	}, map[string]string{
		"reader": scoped.scope,
	}
	r := start(t, withIssuers(issuerOf(a), limited, strict))

	read := map[string]any{"scope": scoped.scope + " another"}
	r.get(t, scoped.path, mint(a, read), 200, "the first may grant everything")
	r.get(t, private.path, mint(b, read), 200, "the second vouches for its users")
	r.get(t, scoped.path, mint(b, read), 403,
		"the second may not grant this scope, whatever it writes")

	roles := map[string]any{"scope": scoped.scope, "roles": []string{"reader"}}
	r.get(t, scoped.path, mint(c, roles), 200, "the third grants by roles")
	r.get(t, scoped.path, mint(c, read), 403, "the third's scope is not read")
	r.get(t, scoped.path, mint(a, map[string]any{"roles": []string{"reader"}, "scope": nil}), 403,
		"the first's roles are not read")
	jwt := c.Sign(
		map[string]any{"typ": "JWT"},
		map[string]any{
			"iss":       c.URL(),
			"sub":       "s",
			"aud":       testAudience,
			"exp":       time.Now().Unix() + 60,
			"iat":       time.Now().Unix(),
			"jti":       "1",
			"client_id": "x",
		},
	)
	r.get(t, private.path, jwt, 401, "the third is held to RFC 9068: typ is at+jwt")
	for _, claim := range []string{"client_id", "iat", "jti"} {
		r.get(t, private.path, mint(c, map[string]any{claim: nil}), 401,
			"the third is held to RFC 9068: "+claim+" is required")
		r.get(t, private.path, mint(a, map[string]any{claim: nil}), 200,
			"the first is not held to RFC 9068")
	}

	for _, forger := range []*devissuer.Server{a, b, c} {
		for _, victim := range []*devissuer.Server{a, b, c} {
			if forger != victim {
				// A new kid may have to wait for the next refresh of the keys.
				got := r.ask(t, http.MethodGet, private.path, "Authorization",
					"Bearer "+mint(forger, map[string]any{"iss": victim.URL()}))
				if got.status != http.StatusUnauthorized &&
					got.status != http.StatusServiceUnavailable {
					t.Errorf("a token signed with another issuer's key: %d, want 401 or 503",
						got.status)
				}
			}
		}
	}
}

// Keys are found by issuer and kid.
func TestSameKidOfTwoIssuers(t *testing.T) {
	a, b := another(t), another(t)
	kid, _ := a.CurrentKey()
	publicKey, privateKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b.Publish(
		json.RawMessage(
			fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid,
				base64.RawURLEncoding.EncodeToString(publicKey)),
		),
	)
	r := start(t, withIssuers(issuerOf(a), issuerOf(b)))
	byB := func(iss string) string {
		claims, _ := json.Marshal(
			map[string]any{
				"iss":   iss,
				"sub":   "s",
				"aud":   testAudience,
				"exp":   time.Now().Unix() + 60,
				"scope": private.scope,
			},
		)
		encode := base64.RawURLEncoding.EncodeToString
		signed := encode([]byte(`{"alg":"EdDSA","kid":"`+kid+`"}`)) + "." + encode(claims)
		return signed + "." + encode(ed25519.Sign(privateKey, []byte(signed)))
	}
	for range 2 { // also with both key sets and cached results
		r.get(t, private.path, mint(a, nil), 200, "the first's own key of this kid")
		r.get(t, private.path, byB(b.URL()), 200, "the second's own key of this kid")
		r.get(t, private.path, byB(a.URL()), 401,
			"the second's key of this kid, in the first's name")
		r.get(t, private.path, mint(a, map[string]any{"iss": b.URL()}), 401,
			"the first's key of this kid, in the second's name")
	}
}

// listening counts the connections to a port that should get none.
func listening(t *testing.T) (url string, calls *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	calls = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			calls.Add(1)
			connection.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return "http://" + listener.Addr().String() + "/", calls
}

// A token cannot make the server connect to an issuer that is not configured.
func TestUnknownIssuer(t *testing.T) {
	r := start(t, nil)
	unlisted := another(t)
	url, calls := listening(t)
	for _, iss := range []string{url, unlisted.URL(), r.issuer.URL() + "x",
		strings.TrimSuffix(r.issuer.URL(), "/")} {
		jwt := unlisted.Sign(
			map[string]any{"jku": url + "keys", "x5u": url + "x5u"},
			map[string]any{
				"iss": iss,
				"sub": "s",
				"aud": testAudience,
				"exp": time.Now().Unix() + 60,
			},
		)
		r.get(t, private.path, jwt, 401, "issuer "+iss+" is not on the list")
	}
	if discovery, keys := unlisted.Requests(); discovery+keys != 0 || calls.Load() != 0 {
		t.Errorf("%d and %d requests went to issuers that are not on the list", discovery+keys,
			calls.Load())
	}
}

// An outage of one issuer only affects its own tokens.
func TestOneIssuerDown(t *testing.T) {
	up, down := another(t), another(t)
	down.Stop()
	r := start(t, withIssuers(issuerOf(down), issuerOf(up)))
	r.get(t, private.path, mint(up, nil), 200, "its issuer is up")
	got := r.get(t, private.path, mint(down, nil), 503, "nothing can be said of it")
	if got.header.Get("Retry-After") == "" || got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("an outage is answered with Retry-After %q and challenge %q: want one, and none",
			got.header.Get("Retry-After"), got.header.Get("WWW-Authenticate"))
	}
	if got := r.ask(t, http.MethodGet, "/readyz"); got.status != 200 {
		t.Errorf("/readyz is %d: one issuer that is down keeps the users of all others away",
			got.status)
	}
	up.Stop()
	r.get(t, private.path, mint(up, nil), 200, "its keys were had")
}

// Requests after a reload use the new issuers, and no cached results of the old ones.
func TestReload(t *testing.T) {
	a, b := another(t), another(t)
	r := start(t, func(c *Config) {
		c.Issuers = []token.Issuer{issuerOf(a)}
		c.Resource = "https://api.example"
	})
	reload := func(issuers ...token.Issuer) {
		t.Helper()
		if err := r.server.Reload(issuers); err != nil {
			t.Fatal(err)
		}
	}
	metadata := func(servers ...string) {
		t.Helper()
		var got struct {
			Servers []string `json:"authorization_servers"`
		}
		body := r.ask(t, http.MethodGet, "/.well-known/oauth-protected-resource").body
		if err := json.Unmarshal([]byte(body), &got); err != nil ||
			!slices.Equal(got.Servers, servers) {
			t.Errorf("the metadata names %q, %v: want %q", got.Servers, err, servers)
		}
	}
	ofA, ofB := mint(a, map[string]any{"scope": scoped.scope}), mint(b,
		map[string]any{"scope": scoped.scope})
	check := func(path string, statusA, statusB int, why string) {
		t.Helper()
		for range 2 { // the second time, the result may be cached
			r.get(t, path, ofA, statusA, "of the first issuer: "+why)
			r.get(t, path, ofB, statusB, "of the second issuer: "+why)
		}
	}

	check(scoped.path, 200, 401, "at first, the first alone is trusted")
	metadata(a.URL())
	reload(issuerOf(a), issuerOf(b))
	check(scoped.path, 200, 200, "now both are trusted")
	metadata(a.URL(), b.URL())
	limited := issuerOf(b)
	limited.GrantableScopes = []string{}
	reload(issuerOf(a), limited)
	check(scoped.path, 200, 403, "now the second may grant nothing")
	other := issuerOf(a)
	other.Audiences = []string{"https://other.example"}
	reload(other, issuerOf(b))
	check(private.path, 401, 200, "now the first's tokens are to be for another audience")
	reload(issuerOf(b))
	check(private.path, 401, 200, "now the second alone is trusted")
	metadata(b.URL())
	reload(issuerOf(a))
	check(private.path, 200, 401, "as at first")
}

// A reload does not fetch the keys of issuers that stay again.
func TestReloadKeepsKeys(t *testing.T) {
	issuer := another(t)
	r := start(t, func(c *Config) { c.Issuers = []token.Issuer{issuerOf(issuer)} })
	sent := mint(issuer, map[string]any{"scope": scoped.scope})
	r.get(t, scoped.path, sent, 200, "its keys are fetched")
	discoveries, keySets := issuer.Requests()
	for range 50 {
		if err := r.server.Reload([]token.Issuer{issuerOf(issuer)}); err != nil {
			t.Fatal(err)
		}
		r.get(t, scoped.path, sent, 200, "the issuer stays")
	}
	if d, k := issuer.Requests(); d != discoveries || k != keySets {
		t.Errorf("50 reloads fetched the metadata %d times and the keys %d times", d-discoveries,
			k-keySets)
	}
}

// A faulty reload changes nothing.
func TestFaultyReload(t *testing.T) {
	a, b := another(t), another(t)
	r := start(t, withIssuers(issuerOf(a)))
	ofA := mint(a, nil)
	r.get(t, private.path, ofA, 200, "its issuer is trusted")
	before := r.server.current.Load()
	faulty := issuerOf(b)
	faulty.Algorithms = []string{"HS256"}
	for _, issuers := range [][]token.Issuer{nil, {faulty},
		{issuerOf(a), issuerOf(a)}, {issuerOf(b), faulty}} {
		if err := r.server.Reload(issuers); err == nil {
			t.Errorf("%+v was put in force", issuers)
		}
	}
	if r.server.current.Load() != before {
		t.Errorf("something was replaced all the same")
	}
	r.get(t, private.path, ofA, 200, "its issuer is trusted as before")
	r.get(t, private.path, mint(b, nil), 401, "its issuer is none of ours as before")
}

// A reload during an outage does not wait, and keeps the keys.
func TestReloadDuringAnOutage(t *testing.T) {
	a, b := another(t), another(t)
	r := start(t, withIssuers(issuerOf(a)))
	r.get(t, private.path, mint(a, nil), 200, "its issuer is up")
	a.Stop()
	b.Fail(devissuer.Fault{Delay: 10 * time.Second})
	stuck := another(t)
	stuck.Stop()

	reload := func(issuers ...token.Issuer) time.Duration {
		least := watchdog
		for range 5 {
			begun := time.Now()
			if err := r.server.Reload(issuers); err != nil {
				t.Fatal(err)
			}
			least = min(least, time.Since(begun))
		}
		return least
	}
	up := another(t)
	usual, took := reload(issuerOf(up), issuerOf(a)), reload(issuerOf(stuck), issuerOf(b),
		issuerOf(a))
	if took > 50*usual {
		t.Errorf("a reload takes %s, but %s while the issuers are up: it waits for an issuer", took,
			usual)
	}
	r.get(t, private.path, mint(a, nil), 200, "the keys of its issuer were had before")
	r.get(t, private.path, mint(stuck, nil), 503, "its issuer is down")
	if got := r.ask(t, http.MethodGet, "/readyz"); got.status != 200 {
		t.Errorf("/readyz is %d after a reload with an issuer that is down: every replica would be",
			got.status)
	}
	b.Fail(devissuer.Fault{})
	if err := r.server.Reload([]token.Issuer{issuerOf(stuck), issuerOf(b),
		issuerOf(a)}); err != nil {
		t.Fatal(err)
	}
	r.get(t, private.path, mint(b, nil), 200,
		"its issuer is back, and new keys come with the first request")
	r.get(t, private.path, mint(a, nil), 200, "the keys of its issuer outlive a second reload")
}

// A reload does not interrupt requests: neither one that waits for keys, nor one whose handler
// runs.
func TestReloadDropsNoRequest(t *testing.T) {
	t.Run("while it waits for keys", func(t *testing.T) {
		a := another(t)
		a.Fail(devissuer.Fault{Delay: 300 * time.Millisecond})
		r := start(t, withIssuers(issuerOf(a)))
		path, done := private.path, make(chan struct{})
		go func() {
			defer close(done)
			r.get(t, path, mint(a, nil), 200, "its issuer is slow, and trusted before and after")
		}()
		time.Sleep(100 * time.Millisecond)
		if err := r.server.Reload([]token.Issuer{issuerOf(a)}); err != nil {
			t.Fatal(err)
		}
		<-done
	})
	t.Run("while its handler runs", func(t *testing.T) {
		running, reloaded := make(chan struct{}), make(chan struct{})
		r := startAnswering(t, func(c echo.Context) error {
			close(running)
			<-reloaded
			return c.String(http.StatusOK, greeting)
		}, nil)
		done := make(chan answer)
		go func() { done <- r.call(t) }()
		<-running
		if err := r.server.Reload([]token.Issuer{issuerOf(another(t))}); err != nil {
			t.Fatal(err)
		}
		close(reloaded)
		if got := <-done; got.status != 200 {
			t.Errorf("the answer is %d %s", got.status, got.body)
		}
	})
	t.Run("under load", func(t *testing.T) {
		a, b := another(t), another(t)
		r := start(t, withIssuers(issuerOf(a)))
		path := private.path
		var asked atomic.Int64
		var clients sync.WaitGroup
		stop := make(chan struct{})
		for n := range 4 {
			jwt := mint(a, map[string]any{"sub": fmt.Sprint(n)})
			clients.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if n%2 == 0 { // and tokens that are not cached
						jwt = mint(a, nil)
					}
					got := r.ask(t, http.MethodGet, path, "Authorization", "Bearer "+jwt)
					if got.status != 200 {
						t.Errorf("%d: its issuer is trusted all the time\n%s", got.status, got.body)
					}
					asked.Add(1)
				}
			})
		}
		for n := range 8 {
			issuers := []token.Issuer{issuerOf(a), issuerOf(b)}
			if n%2 == 0 {
				issuers = issuers[:1]
			}
			if err := r.server.Reload(issuers); err != nil {
				t.Error(err)
			}
			if err := r.server.Reload(nil); err == nil {
				t.Error("no issuer at all was put in force")
			}
			for before := asked.Load(); asked.Load() < before+8 && !t.Failed(); {
				time.Sleep(time.Millisecond)
			}
		}
		close(stop)
		clients.Wait()
	})
}

// The background work of a replaced verifier ends after the time limit of requests.
func TestReplacedVerifierEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuers := []token.Issuer{
			{URL: "http://127.0.0.1:1/", Audiences: []string{testAudience}},
		} // without a listener
		server, err := New(
			t.Context(),
			Config{
				Document: document(t),
				Routes:   withHandler(greet),
				Issuers:  issuers,
				Logger:   slog.New(slog.DiscardHandler),
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		var ended atomic.Bool
		first := server.current.Load()
		first.cancel = func() { ended.Store(true) }
		if err := server.Reload(issuers); err != nil {
			t.Fatal(err)
		}
		time.Sleep(requestTimeout - time.Nanosecond)
		if ended.Load() {
			t.Errorf("it ended while a request may still wait for its keys")
		}
		time.Sleep(2 * time.Nanosecond)
		if !ended.Load() {
			t.Errorf("it goes on though no request can be under way any more")
		}
	})
}

// TestReloadsKeepMemory: what a reload replaces is freed, after the time limit of requests. Each
// time an issuer is added or removed, and tokens are verified.
func TestReloadsKeepMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer, err := devissuer.New(devissuer.Config{
			URL: "http://127.0.0.1:1", Audiences: []string{testAudience},
		})
		if err != nil {
			t.Fatal(err)
		}
		keys := httptest.NewRecorder()
		issuer.ServeHTTP(keys, httptest.NewRequest("GET",
			issuer.URL()+"/.well-known/jwks.json", nil))
		one := []token.Issuer{{
			URL: "http://127.0.0.1:1", Audiences: []string{testAudience}, JWKS: keys.Body.Bytes(),
		}}
		two := append(one, token.Issuer{ // without a listener
			URL: "http://127.0.0.1:2", Audiences: []string{testAudience},
		})
		server, err := New(t.Context(), Config{
			Document: document(t), Routes: withHandler(greet), Issuers: one, Docs: true,
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		reload := func(times int) (heap uint64, goroutines int) {
			for n := range times {
				if err := server.Reload([][]token.Issuer{one, two}[n%2]); err != nil {
					t.Fatal(err)
				}
				w, r := httptest.NewRecorder(), httptest.NewRequest("GET", private.path, nil)
				r.Header.Set("Authorization", "Bearer "+mint(issuer, nil))
				if server.ServeHTTP(w, r); w.Code != http.StatusOK {
					t.Fatalf("status %d: %s", w.Code, w.Body)
				}
			}
			time.Sleep(2 * requestTimeout)
			synctest.Wait()
			var memory runtime.MemStats
			for range 3 { // finalizers, and what they release
				runtime.GC()
			}
			runtime.ReadMemStats(&memory)
			return memory.HeapAlloc, runtime.NumGoroutine()
		}
		heap, goroutines := reload(20)
		moreHeap, moreGoroutines := reload(200)
		t.Logf("heap %d, then %d bytes; goroutines %d, then %d", heap, moreHeap, goroutines,
			moreGoroutines)
		runtime.KeepAlive(server)
		if moreHeap > heap+2<<20 { // 10 KiB for each reload; a gate alone needs more
			t.Errorf("after 200 more reloads the heap has %d bytes, and %d before", moreHeap, heap)
		}
		if moreGoroutines > goroutines+2 {
			t.Errorf("after 200 more reloads there are %d goroutines, and %d before",
				moreGoroutines,
				goroutines)
		}
	})
}
