package redisstore

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
	"github.com/oasgate/oasgate/authz/token"
)

// redisURL returns the URL of the Redis for tests, which .ci/services starts.
func redisURL(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("Redis is not tested with -short")
	}
	url := os.Getenv("OASGATE_TEST_REDIS_URL")
	if url == "" {
		t.Skip(
			"OASGATE_TEST_REDIS_URL is not set: no Redis to test with " +
				"(. .ci/services; start_redis)")
	}
	return url
}

const prefix = "oasgate:"

func startReplays(t *testing.T, url string) *Store {
	t.Helper()
	store, err := New(Config{URL: url, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// The interfaces that the comment of Store names.
var _ interface {
	token.ReplayStore
	authz.RateCounter
} = (*Store)(nil)

func TestNewWithoutPrefix(t *testing.T) {
	if _, err := New(Config{URL: "redis://localhost"}); err == nil ||
		!strings.Contains(err.Error(), "Config.Prefix") {
		t.Errorf("the error is %v, want one that names Config.Prefix", err)
	}
}

// patience is a limit against hanging.
const patience = 2 * time.Minute

// eventually waits until done returns true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
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
	servers := []*Store{startReplays(t, redisURL(t)), startReplays(t, redisURL(t))}
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
	servers := []*Store{startReplays(t, redisURL(t)), startReplays(t, redisURL(t))}
	for range 20 {
		key, until := freshKey(), time.Now().Add(time.Minute)
		var fresh, failed atomic.Int64
		var all sync.WaitGroup
		begin := make(chan struct{})
		for n := range 32 {
			all.Go(func() {
				<-begin
				ok, err := servers[n%2].Use(t.Context(), key, "", until)
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
			t.Fatalf("the key was fresh for %d of 32 callers, want 1 (%d failed)",
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
		fresh, err := replays.Use(t.Context(), key, "", time.Now().Add(life))
		if !fresh || err != nil {
			t.Fatalf("an end that is %s: fresh %t, error %v", name, fresh, err)
		}
		fresh, err = replays.Use(t.Context(), key, "", time.Now().Add(life))
		if fresh || err != nil {
			t.Errorf("an end that is %s, again: fresh %t, error %v", name, fresh, err)
		}
		expected := max(life, time.Second)
		milliseconds, err := redis.Int64(client.Do("PTTL", prefix+"dpop:"+key))
		left := time.Duration(milliseconds) * time.Millisecond
		if err != nil || left > expected+time.Millisecond || left < expected-900*time.Millisecond {
			t.Errorf("an end that is %s: the key expires in %s, want about %s", name, left,
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
	fails := func(what string, replays *Store) {
		t.Helper()
		began := time.Now()
		fresh, err := replays.Use(t.Context(), freshKey(), "", time.Now().Add(time.Minute))
		if fresh || err == nil || !strings.HasPrefix(err.Error(), "redisstore: ") ||
			strings.Contains(err.Error(), password) {
			t.Errorf(
				"%s: fresh %t, error %v: want an error of redisstore without the password",
				what, fresh, err)
		}
		if took := time.Since(began); took > patience {
			t.Errorf("%s: it took %s, want it to end at replayTimeout", what, took)
		}
	}
	serves := func(what string, replays *Store) {
		t.Helper()
		var err error
		for range 30 {
			// After a failure, each use removes one closed connection from the pool.
			var fresh bool
			if fresh, err = replays.Use(t.Context(), freshKey(), "",
				time.Now().Add(time.Minute)); fresh {
				return
			}
		}
		t.Errorf("%s: error %v, want none", what, err)
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
	if fresh, err := replays.Use(ctx, freshKey(), "", time.Now().Add(time.Minute)); fresh ||
		err == nil {
		t.Error("the key was fresh for a request that has ended")
	}
}

// TestReplayTransports uses a real Redis with TLS, and with a user and password.
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
		{"no TLS", "redis://" + wire.Addr().String(), nil, "redisstore"},
	} {
		t.Run(test.name, func(t *testing.T) {
			replays, err := New(Config{URL: test.url, Prefix: prefix, TLS: test.config})
			if err != nil {
				t.Fatal(err)
			}
			defer replays.Close()
			fresh, err := replays.Use(t.Context(), freshKey(), "", time.Now().Add(time.Minute))
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
