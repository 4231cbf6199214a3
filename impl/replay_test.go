package impl

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

// redisURL returns the URL of the Redis for tests, which .ci/services starts.
func redisURL(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("Redis is not tried with -short")
	}
	url := os.Getenv("OASGATE_TEST_REDIS_URL")
	if url == "" {
		t.Skip(
			"OASGATE_TEST_REDIS_URL is not set, so what needs a Redis is not tested: . " +
				".ci/services; start_redis")
	}
	return url
}

func startReplays(t *testing.T, url string) *Replays {
	t.Helper()
	replays, err := OpenReplays(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replays.Close() })
	return replays
}

// dialRedis connects to a server.
func dialRedis(t *testing.T, url string) redis.Conn {
	t.Helper()
	target, err := parseRedisURL(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := target.dial(t.Context(), target.addresses[0], target.user, target.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// keys numbers the keys of this run.
var keys atomic.Int64

func freshKey() string { return fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), keys.Add(1)) }

// Servers with the same Redis share the counts of x-authz-rate-limit.
func TestCountsAreShared(t *testing.T) {
	servers := []*Replays{startReplays(t, redisURL(t)), startReplays(t, redisURL(t))}
	key, until := freshKey(), time.Now().Add(time.Minute)
	for n := range 6 {
		got, err := servers[n%2].Count(t.Context(), key, until)
		if err != nil || got != int64(n+1) {
			t.Errorf("the count is %d, %v: want %d", got, err, n+1)
		}
	}
	if got, err := servers[0].Count(t.Context(), freshKey(), until); err != nil || got != 1 {
		t.Errorf("the count of another key is %d, %v: want 1", got, err)
	}
}

func TestReplaysAreUsedOnceAcrossServers(t *testing.T) {
	servers := []*Replays{startReplays(t, redisURL(t)), startReplays(t, redisURL(t))}
	for range 20 {
		key, until := freshKey(), time.Now().Add(time.Minute)
		var fresh, failed atomic.Int64
		var all sync.WaitGroup
		begin := make(chan struct{})
		for n := range 32 {
			all.Go(func() {
				<-begin
				ok, err := servers[n%2].Use(t.Context(), key, until)
				switch {
				case ok:
					fresh.Add(1)
				case err != nil: // on a machine that is very busy
					failed.Add(1)
				}
			})
		}
		close(begin)
		all.Wait()
		if fresh.Load() > 1 || fresh.Load() == 0 && failed.Load() == 0 {
			t.Fatalf("the key was fresh for %d of 32 callers, expected 1 (%d failed)",
				fresh.Load(), failed.Load())
		}
	}
}

// Keys expire, and not too early.
func TestReplaysExpire(t *testing.T) {
	client := dialRedis(t, redisURL(t))
	replays := startReplays(t, redisURL(t))
	for name, life := range map[string]time.Duration{"to come": 90500 * time.Millisecond,
		"over": -time.Hour} {
		key := freshKey()
		if fresh, err := replays.Use(t.Context(), key, time.Now().Add(life)); !fresh || err != nil {
			t.Fatalf("an end that is %s: fresh %t, error %v", name, fresh, err)
		}
		if fresh, err := replays.Use(t.Context(), key, time.Now().Add(life)); fresh || err != nil {
			t.Errorf("an end that is %s, again: fresh %t, error %v", name, fresh, err)
		}
		expected := max(life, time.Second)
		milliseconds, err := redis.Int64(client.Do("PTTL", "oasgate:dpop:"+key))
		left := time.Duration(milliseconds) * time.Millisecond
		if err != nil || left > expected+time.Millisecond || left < expected-900*time.Millisecond {
			t.Errorf("an end that is %s: Redis forgets in %s, expected about %s", name, left,
				expected)
		}
	}
}

// faultyProxy is a proxy of Redis that can close its connections and drop requests.
type faultyProxy struct {
	net.Listener
	target string
	mute   atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newFaultyProxy(t *testing.T, target string) *faultyProxy {
	t.Helper()
	w := &faultyProxy{Listener: listen(t), target: target}
	go w.serve()
	t.Cleanup(func() { w.Close(); w.cut() })
	return w
}

func (w *faultyProxy) serve() {
	for {
		near, err := w.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", w.target)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, near, far)
		w.mu.Unlock()
		go func() { io.Copy(unless{far, &w.mute}, near); far.Close() }()
		go func() { io.Copy(near, far); near.Close() }()
	}
}

// cut ends all connections; new ones are taken.
func (w *faultyProxy) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
}

type unless struct {
	io.Writer
	mute *atomic.Bool
}

func (u unless) Write(p []byte) (int, error) {
	if u.mute.Load() {
		return len(p), nil
	}
	return u.Writer.Write(p)
}

// Failures of Redis are errors without a password, within the timeout. The store recovers.
func TestReplaysFail(t *testing.T) {
	path, ok := strings.CutPrefix(redisURL(t), "unix://")
	if !ok {
		t.Skip("OASGATE_TEST_REDIS_URL is not a socket of this machine")
	}
	const password = "opensesame"
	fails := func(what string, replays *Replays) {
		t.Helper()
		began := time.Now()
		fresh, err := replays.Use(t.Context(), freshKey(), time.Now().Add(time.Minute))
		if fresh || err == nil || !strings.HasPrefix(err.Error(), "OASGATE_REPLAY_STORE: ") ||
			strings.Contains(err.Error(), password) {
			t.Errorf(
				"%s: fresh %t, error %v; expected an error that names the key and holds no password",
				what, fresh, err)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("%s: it took %s, expected an end at replayTimeout", what, took)
		}
	}
	serves := func(what string, replays *Replays) {
		t.Helper()
		var err error
		for range 30 {
			// after a failure each connection of the pool is found to be gone, one at a time
			var fresh bool
			if fresh, err = replays.Use(t.Context(), freshKey(),
				time.Now().Add(time.Minute)); fresh {
				return
			}
		}
		t.Errorf("%s: error %v; expected that it serves", what, err)
	}

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	fails("connection refused",
		startReplays(t, "redis://user:"+password+"@"+closed.Addr().String()))

	wire := newFaultyProxy(t, path)
	fails("a wrong password", startReplays(t, "redis://user:"+password+"@"+wire.Addr().String()))
	replays := startReplays(t, "redis://"+wire.Addr().String())
	serves("at first", replays)
	wire.mute.Store(true)
	fails("Redis does not answer", replays)
	wire.mute.Store(false)
	serves("after Redis answers again", replays)
	wire.cut()
	serves("after the connections were cut", replays)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if fresh, err := replays.Use(ctx, freshKey(), time.Now().Add(time.Minute)); fresh ||
		err == nil {
		t.Error("the key was fresh for a request that has ended")
	}
}

// TestReplayTransports uses a real Redis over TLS, and as a user with a password.
func TestReplayTransports(t *testing.T) {
	base := redisURL(t)
	path, ok := strings.CutPrefix(base, "unix://")
	if !ok {
		t.Skip("OASGATE_TEST_REDIS_URL is not a socket")
	}
	admin := dialRedis(t, base)
	user := freshKey()
	if _, err := admin.Do("ACL", "SETUSER", user, "on", ">open:sesame", "~*", "+@all"); err != nil {
		t.Fatal(err)
	}
	defer admin.Do("ACL", "DELUSER", user)

	certified := httptest.NewTLSServer(nil) // for its certificate
	defer certified.Close()
	roots := x509.NewCertPool()
	roots.AddCert(certified.Certificate())
	wire := &faultyProxy{
		Listener: tls.NewListener(listen(t), &tls.Config{Certificates: certified.TLS.Certificates}),
		target:   path,
	}
	go wire.serve()
	t.Cleanup(func() { wire.Close(); wire.cut() })
	trusted := &tls.Config{RootCAs: roots}

	for _, test := range []struct {
		name, url string
		config    *tls.Config
		want      string // in the error; "" if the proof is fresh
	}{
		{"user and password", "unix://" + user + ":open%3Asesame@" + path, nil, ""},
		{"wrong password", "unix://" + user + ":x@" + path, nil, "WRONGPASS"},
		{"TLS", "rediss://" + wire.Addr().String(), trusted, ""},
		{"TLS, database and user", "rediss://" + user + ":open%3Asesame@" + wire.Addr().String() + "/3",
			trusted, ""},
		{"unknown certificate", "rediss://" + wire.Addr().String(), nil, "certificate"},
		{"no TLS", "redis://" + wire.Addr().String(), nil, "OASGATE_REPLAY_STORE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			replays, err := openReplays(test.url, test.config)
			if err != nil {
				t.Fatal(err)
			}
			defer replays.Close()
			fresh, err := replays.Use(t.Context(), freshKey(), time.Now().Add(time.Minute))
			if test.want == "" && (err != nil || !fresh) {
				t.Errorf("fresh is %t, error is %v, want true and none", fresh, err)
			}
			if test.want != "" &&
				(fresh || err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("fresh is %t, error is %v, want false and %q", fresh, err, test.want)
			}
		})
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

const resource = "https://api.example"

// startDPoP is start with an issuer that allows DPoP.
func startDPoP(t *testing.T, configure func(*server.Config)) (*running, *devissuer.Prover, string) {
	t.Helper()
	r := start(t, func(config *server.Config) {
		config.Resource = resource
		config.Issuers[0].DPoP = token.DPoPAllowed
		if configure != nil {
			configure(config)
		}
	})
	client, err := devissuer.NewProver("ES256", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r, client, mint(r.issuer,
		map[string]any{"cnf": map[string]any{"jkt": client.Thumbprint()}})
}

func proven(tok, proof string) []string {
	return []string{"Authorization", "DPoP " + tok, "DPoP", proof}
}

func TestDPoP(t *testing.T) {
	r, client, tok := startDPoP(t,
		func(config *server.Config) { config.NonceKey = []byte(strings.Repeat("k", 32)) })
	proof := func(claims map[string]any) string {
		return client.Proof("GET", resource+private.path(t), tok, claims)
	}
	first := r.ask(t, "GET", private.path(t), proven(tok, proof(nil))...)
	nonce := first.header.Get("DPoP-Nonce")
	if first.status != 401 || nonce == "" ||
		!strings.Contains(first.body, authz.ProblemTypes+string(authz.UseNonce)) {
		t.Fatalf("without a nonce: %d %q %s, expected 401 and a nonce", first.status, first.header,
			first.body)
	}
	good := proof(map[string]any{"nonce": nonce})
	if got := r.ask(t, "GET", private.path(t), proven(tok, good)...); got.status != 200 {
		t.Errorf("with the nonce: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t), proven(tok, good)...); got.status != 401 {
		t.Errorf("with a proof that was used: %d %s", got.status, got.body)
	}
	for _, says := range []string{"dpop_nonce: the proof has no nonce",
		"dpop_replay: a proof with this jti was used before"} {
		if log := r.log.String(); !strings.Contains(log, says) {
			t.Errorf("the log does not say %q:\n%s", says, log)
		}
	}
	for _, secret := range []string{tok, good, nonce} {
		if strings.Contains(r.log.String(), secret) {
			t.Error("a token, a proof or a nonce is in the log")
		}
	}
}

// A reload keeps the used proofs.
func TestDPoPReload(t *testing.T) {
	r, client, tok := startDPoP(t, nil)
	used := client.Proof("GET", resource+private.path(t), tok, nil)
	if got := r.ask(t, "GET", private.path(t), proven(tok, used)...); got.status != 200 {
		t.Fatalf("a good proof: %d %s", got.status, got.body)
	}
	if err := r.server.Reload([]token.Issuer{{URL: r.issuer.URL(),
		Audiences: []string{testAudience}, DPoP: token.DPoPRequired}}); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "GET", private.path(t), proven(tok, used)...); got.status != 401 ||
		!strings.Contains(got.body, string(authz.InvalidProof)) {
		t.Errorf("the same proof after a reload: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t), "Authorization",
		"Bearer "+mint(r.issuer, nil)); got.status != 401 {
		t.Errorf("a bearer token where bound ones are required: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t),
		proven(tok, client.Proof("GET", resource+private.path(t), tok,
			nil))...); got.status != 200 {
		t.Errorf("a new proof after a reload: %d %s", got.status, got.body)
	}
}

// With two servers and one Redis, a proof passes once. Without Redis, requests with a proof fail
// and those with a bearer token pass.
func TestDPoPOfSeveralServers(t *testing.T) {
	url := redisURL(t)
	first, client, tok := startDPoP(t,
		func(config *server.Config) { config.Replays = startReplays(t, url) })
	issuer := first.issuer
	second := start(t, func(config *server.Config) {
		config.Resource, config.Replays = resource, startReplays(t, url)
		config.Issuers = []token.Issuer{
			{URL: issuer.URL(), Audiences: []string{testAudience}, DPoP: token.DPoPAllowed},
		}
	})
	for range 10 {
		proof := client.Proof("GET", resource+private.path(t), tok, nil)
		statuses := make(chan int, 16)
		for n := range 16 {
			go func() {
				statuses <- []*running{first, second}[n%2].ask(t, "GET", private.path(t),
					proven(tok, proof)...).status
			}()
		}
		count := map[int]int{}
		for range 16 {
			count[<-statuses]++
		}
		// 503: on a machine that is very busy Redis may take too long.
		if count[200] > 1 || count[200] == 0 && count[503] == 0 ||
			count[200]+count[401]+count[503] != 16 {
			t.Fatalf("one proof, 16 requests at two servers: %v, expected one 200", count)
		}
	}

	down := start(t, func(config *server.Config) {
		config.Resource, config.Replays = resource, startReplays(t, "redis://127.0.0.1:1")
		config.Issuers = []token.Issuer{
			{URL: issuer.URL(), Audiences: []string{testAudience}, DPoP: token.DPoPAllowed},
		}
	})
	if got := down.ask(t, "GET", private.path(t),
		proven(tok, client.Proof("GET", resource+private.path(t), tok,
			nil))...); got.status != 503 ||
		got.header.Get("Retry-After") == "" {
		t.Errorf("without Redis: %d %q %s, expected 503 with Retry-After", got.status, got.header,
			got.body)
	}
	if got := down.ask(t, "GET", private.path(t), "Authorization",
		"Bearer "+mint(issuer, nil)); got.status != 200 {
		t.Errorf("a bearer token without Redis: %d %s", got.status, got.body)
	}
}
