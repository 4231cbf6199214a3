package impl

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/redisstore"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/server/telemetry"
	"github.com/oasgate/oasgate/authz/token"
)

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
		t.Fatalf("without a nonce: %d %q %s, want 401 and a nonce", first.status, first.header,
			first.body)
	}
	good := proof(map[string]any{"nonce": nonce})
	if got := r.ask(t, "GET", private.path(t), proven(tok, good)...); got.status != 200 {
		t.Errorf("with the nonce: %d %s", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t), proven(tok, good)...); got.status != 401 {
		t.Errorf("with a used proof: %d %s, want 401", got.status, got.body)
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
		t.Errorf("a bearer token, but DPoP is required: %d %s, want 401", got.status, got.body)
	}
	if got := r.ask(t, "GET", private.path(t),
		proven(tok, client.Proof("GET", resource+private.path(t), tok,
			nil))...); got.status != 200 {
		t.Errorf("a new proof after a reload: %d %s", got.status, got.body)
	}
}

func startReplays(t *testing.T, url string) *redisstore.Store {
	t.Helper()
	store, err := redisstore.New(redisstore.Config{URL: url, Prefix: "oasgate:"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// With two servers and one Redis, a proof passes once. Without Redis, requests with a proof fail
// and those with a bearer token pass.
func TestDPoPOfSeveralServers(t *testing.T) {
	if testing.Short() {
		t.Skip("Redis is not tested with -short")
	}
	url := os.Getenv("OASGATE_TEST_REDIS_URL")
	if url == "" {
		t.Skip("OASGATE_TEST_REDIS_URL is not set: no Redis to test with " +
			"(. .ci/services; start_redis)")
	}
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
		// 503: on a busy machine Redis can take longer than the timeout.
		if count[200] > 1 || count[200] == 0 && count[503] == 0 ||
			count[200]+count[401]+count[503] != 16 {
			t.Fatalf("one proof, 16 requests at two servers: %v, want one 200", count)
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
		t.Errorf("without Redis: %d %q %s, want 503 with Retry-After", got.status, got.header,
			got.body)
	}
	if got := down.ask(t, "GET", private.path(t), "Authorization",
		"Bearer "+mint(issuer, nil)); got.status != 200 {
		t.Errorf("a bearer token without Redis: %d %s", got.status, got.body)
	}
}

const redisPassword = "opensesame"

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// TestRedisIsRestarted: while Redis is dead, requests with a proof get 503 and others are served;
// rate limits are those of each server. Afterwards, requests with a proof are served again.
func TestRedisIsRestarted(t *testing.T) {
	if os.Getenv("OASGATE_TEST_FAULTS") == "" {
		t.Skip("OASGATE_TEST_FAULTS is not set: see .ci/full")
	}
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	port := listen(t)
	addr := port.Addr().String()
	port.Close()
	dir := t.TempDir()
	startRedis := func() (kill func()) {
		redis := exec.Command(program, "--bind", "127.0.0.1",
			"--port", addr[strings.LastIndex(addr, ":")+1:], "--dir", dir,
			"--requirepass", redisPassword, "--appendonly", "yes", "--appendfsync", "always")
		if err := redis.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "Redis listens at "+addr, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
		return func() {
			_ = redis.Process.Kill()
			_ = redis.Wait()
		}
	}
	kill := startRedis()
	log := &logBuffer{}
	exported, err := telemetry.New(t.Context(), server.TelemetryConfig{Page: true})
	if err != nil {
		t.Fatal(err)
	}
	store := startReplays(t, "redis://:"+redisPassword+"@"+addr)
	r, client, tok := startDPoP(t, func(config *server.Config) {
		config.Replays, config.RateCounter, config.Telemetry = store, store, exported
		config.Logger = slog.New(slog.NewJSONHandler(log, nil))
	})
	admin := r.server.Admin(server.AdminConfig{
		Components: map[string]func(context.Context) error{"replay store": store.Ping},
	})
	page := func(path string) string {
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Body.String()
	}
	proof := func() string { return client.Proof("GET", resource+private.path(t), tok, nil) }
	send := func(headers ...string) answer { return r.ask(t, "GET", private.path(t), headers...) }
	bearer := []string{"Authorization", "Bearer " + mint(r.issuer, nil)}

	used := proof()
	if got := send(proven(tok, used)...); got.status != http.StatusOK {
		t.Fatalf("with Redis: %d %s", got.status, got.body)
	}
	kill()
	for range 20 {
		if got := send(proven(tok, proof())...); got.status != http.StatusServiceUnavailable ||
			got.header.Get("Retry-After") == "" ||
			!strings.Contains(got.body, "#replays-unavailable") {
			t.Errorf("without Redis: %d %q %s", got.status, got.header, got.body)
		}
		if got := send(bearer...); got.status != http.StatusOK {
			t.Errorf("a bearer token without Redis: %d %s", got.status, got.body)
		}
	}
	if got := page("/readyz?verbose"); !strings.Contains(got, "connection refused") {
		t.Errorf("/readyz?verbose without Redis: %s", got)
	}
	if said := log.String(); !strings.Contains(said, "dpop_replays_unavailable") ||
		!strings.Contains(said, "connection refused") || strings.Contains(said, redisPassword) {
		t.Errorf("the log is\n%s\nwant the cause, and no password", said)
	}
	defer startRedis()()
	if got := send(proven(tok, proof())...); got.status != http.StatusOK {
		t.Errorf("with Redis again: %d %s", got.status, got.body)
	}
	if got := send(proven(tok, used)...); got.status != http.StatusUnauthorized {
		t.Errorf("a proof from before: %d %s", got.status, got.body)
	}
	metrics := page("/metrics")
	for _, want := range []string{
		`authz_replay_duration_seconds_count{result="error"} 20`,
		`authz_replay_duration_seconds_count{result="fresh"} 2`,
		`authz_replay_duration_seconds_count{result="used"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics do not have %s:\n%s", want, metrics)
		}
	}
}
