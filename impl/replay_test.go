package impl

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

// redisURL is that of a Redis for tests, which .ci/services starts.
func redisURL(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("Redis is not tried with -short")
	}
	url := os.Getenv("OASGATE_TEST_REDIS_URL")
	if url == "" {
		t.Skip("OASGATE_TEST_REDIS_URL is not set, so what needs a Redis is not tested: . .ci/services; start_redis")
	}
	return url
}

func openReplays(t *testing.T, url string) *Replays {
	t.Helper()
	replays, err := OpenReplays(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { replays.Close() })
	return replays
}

// key is one that no other test, and no other run of this one, has used.
var keys atomic.Int64

func freshKey() string { return fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), keys.Add(1)) }

func TestReplaysAreUsedOnceAcrossServers(t *testing.T) {
	servers := []*Replays{openReplays(t, redisURL(t)), openReplays(t, redisURL(t))}
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
			t.Fatalf("%d of 32 were told that the key is fresh, expected 1 (%d failed)", fresh.Load(), failed.Load())
		}
	}
}

// What is remembered ends by itself, and not before its time.
func TestReplaysEnd(t *testing.T) {
	options, err := redis.ParseURL(redisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	replays := openReplays(t, redisURL(t))
	for name, life := range map[string]time.Duration{"to come": 90500 * time.Millisecond, "over": -time.Hour} {
		key := freshKey()
		if fresh, err := replays.Use(t.Context(), key, time.Now().Add(life)); !fresh || err != nil {
			t.Fatalf("an end that is %s: fresh %t, error %v", name, fresh, err)
		}
		if fresh, err := replays.Use(t.Context(), key, time.Now().Add(life)); fresh || err != nil {
			t.Errorf("an end that is %s, again: fresh %t, error %v", name, fresh, err)
		}
		expected := max(life, time.Second)
		if left := client.PTTL(t.Context(), "oasgate:dpop:"+key).Val(); left > expected || left < expected-900*time.Millisecond {
			t.Errorf("an end that is %s: Redis forgets in %s, expected about %s", name, left, expected)
		}
	}
}

// faultyWire is a way to Redis that can be cut, and that can swallow what is sent.
type faultyWire struct {
	net.Listener
	target string
	mute   atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newFaultyWire(t *testing.T, target string) *faultyWire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &faultyWire{Listener: listener, target: target}
	go w.serve()
	t.Cleanup(func() { listener.Close(); w.cut() })
	return w
}

func (w *faultyWire) serve() {
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
func (w *faultyWire) cut() {
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

// However Redis fails, the answer is an error, soon, that holds no password; and all is well when it is back.
func TestReplaysFail(t *testing.T) {
	path, ok := strings.CutPrefix(redisURL(t), "unix://")
	if !ok {
		t.Skip("OASGATE_TEST_REDIS_URL is no socket of this machine: its way cannot be cut")
	}
	const password = "opensesame"
	fails := func(what string, replays *Replays) {
		t.Helper()
		began := time.Now()
		fresh, err := replays.Use(t.Context(), freshKey(), time.Now().Add(time.Minute))
		if fresh || err == nil || !strings.HasPrefix(err.Error(), "OASGATE_REPLAY_STORE: ") || strings.Contains(err.Error(), password) {
			t.Errorf("%s: fresh %t, error %v; expected an error that names the key and holds no password", what, fresh, err)
		}
		if took := time.Since(began); took > 2*replayTimeout {
			t.Errorf("%s: it took %s, expected %s at the most", what, took, replayTimeout)
		}
	}
	serves := func(what string, replays *Replays) {
		t.Helper()
		var err error
		for range 30 { // after a failure each connection of the pool is found to be gone, one at a time
			var fresh bool
			if fresh, err = replays.Use(t.Context(), freshKey(), time.Now().Add(time.Minute)); fresh {
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
	fails("nobody listens", openReplays(t, "redis://user:"+password+"@"+closed.Addr().String()))

	wire := newFaultyWire(t, path)
	fails("a wrong password", openReplays(t, "redis://user:"+password+"@"+wire.Addr().String()))
	replays := openReplays(t, "redis://"+wire.Addr().String())
	serves("at first", replays)
	wire.mute.Store(true)
	fails("Redis does not answer", replays)
	wire.mute.Store(false)
	serves("once it answers again", replays)
	wire.cut()
	serves("after the connections were cut", replays)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if fresh, err := replays.Use(ctx, freshKey(), time.Now().Add(time.Minute)); fresh || err == nil {
		t.Error("a request that has ended was told that its key is fresh")
	}
}

const resource = "https://api.example"

// startDPoP is start with an issuer whose tokens may be bound.
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
	return r, client, mint(r.issuer, map[string]any{"cnf": map[string]any{"jkt": client.Thumbprint()}})
}

func proven(tok, proof string) []string {
	return []string{"Authorization", "DPoP " + tok, "DPoP", proof}
}

func TestDPoP(t *testing.T) {
	r, client, tok := startDPoP(t, func(config *server.Config) { config.NonceKey = []byte(strings.Repeat("k", 32)) })
	proof := func(claims map[string]any) string { return client.Proof("GET", resource+private.path(t), tok, claims) }
	first := r.ask(t, "GET", private.path(t), proven(tok, proof(nil))...)
	nonce := first.header.Get("DPoP-Nonce")
	if first.status != 401 || nonce == "" || !strings.Contains(first.body, authz.ProblemTypes+string(authz.UseNonce)) {
		t.Fatalf("without a nonce: %d %q %s, expected 401 and a nonce", first.status, first.header, first.body)
	}
	good := proof(map[string]any{"nonce": nonce})
	if got := r.ask(t, "GET", private.path(t), proven(tok, good)...); got.status != 200 {
		t.Errorf("with the nonce: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t), proven(tok, good)...); got.status != 401 {
		t.Errorf("with a proof that was used: %d %s", got.status, got.body)
	}
	for _, says := range []string{"dpop_nonce: the proof has no nonce", "dpop_replay: a proof with this jti was used before"} {
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

// A reload of the issuers forgets no proof.
func TestDPoPReload(t *testing.T) {
	r, client, tok := startDPoP(t, nil)
	used := client.Proof("GET", resource+private.path(t), tok, nil)
	if got := r.ask(t, "GET", private.path(t), proven(tok, used)...); got.status != 200 {
		t.Fatalf("a good proof: %d %s", got.status, got.body)
	}
	if err := r.server.Reload([]token.Issuer{{URL: r.issuer.URL(), Audiences: []string{testAudience}, DPoP: token.DPoPRequired}}); err != nil {
		t.Fatal(err)
	}
	if got := r.ask(t, "GET", private.path(t), proven(tok, used)...); got.status != 401 || !strings.Contains(got.body, string(authz.InvalidProof)) {
		t.Errorf("the same proof after a reload: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t), "Authorization", "Bearer "+mint(r.issuer, nil)); got.status != 401 {
		t.Errorf("a bearer token where bound ones are required: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t), proven(tok, client.Proof("GET", resource+private.path(t), tok, nil))...); got.status != 200 {
		t.Errorf("a new proof after a reload: %d %s", got.status, got.body)
	}
}

// Two servers and one Redis: a proof passes at one of them. Without Redis nobody with a proof passes, and bearer tokens do.
func TestDPoPOfSeveralServers(t *testing.T) {
	url := redisURL(t)
	first, client, tok := startDPoP(t, func(config *server.Config) { config.Replays = openReplays(t, url) })
	issuer := first.issuer
	second := start(t, func(config *server.Config) {
		config.Resource, config.Replays = resource, openReplays(t, url)
		config.Issuers = []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}, DPoP: token.DPoPAllowed}}
	})
	for range 10 {
		proof := client.Proof("GET", resource+private.path(t), tok, nil)
		statuses := make(chan int, 16)
		for n := range 16 {
			go func() {
				statuses <- []*running{first, second}[n%2].ask(t, "GET", private.path(t), proven(tok, proof)...).status
			}()
		}
		count := map[int]int{}
		for range 16 {
			count[<-statuses]++
		}
		// 503: on a machine that is very busy Redis may take too long.
		if count[200] > 1 || count[200] == 0 && count[503] == 0 || count[200]+count[401]+count[503] != 16 {
			t.Fatalf("one proof, 16 requests at two servers: %v, expected one 200", count)
		}
	}

	down := start(t, func(config *server.Config) {
		config.Resource, config.Replays = resource, openReplays(t, "redis://127.0.0.1:1")
		config.Issuers = []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}, DPoP: token.DPoPAllowed}}
	})
	if got := down.ask(t, "GET", private.path(t), proven(tok, client.Proof("GET", resource+private.path(t), tok, nil))...); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("without Redis: %d %q %s, expected 503 with Retry-After", got.status, got.header, got.body)
	}
	if got := down.ask(t, "GET", private.path(t), "Authorization", "Bearer "+mint(issuer, nil)); got.status != 200 {
		t.Errorf("a bearer token without Redis: %d %s", got.status, got.body)
	}
}
