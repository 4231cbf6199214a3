//go:build unix

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestIssuerHangs: while the issuer accepts connections and never answers, tokens of known keys are
// served, and others get 503 long before the request would time out.
func TestIssuerHangs(t *testing.T) {
	faultTest(t)
	issuer := startIssuer(t)
	p := startServe(t, issuer, "OASGATE_ADMIN_ADDR=127.0.0.1:0", "OASGATE_JWKS_COOLDOWN=1s")
	known, neverSeen := issuer.mint(nil), issuer.mint(nil)
	wantServed(t, p.get(t, private.path(t), known))
	issuer.rotate("")
	unknown := issuer.mint(nil)

	issuer.signal(t, syscall.SIGSTOP)
	var clients sync.WaitGroup
	answered := make(chan struct{})
	for range 8 { // the first fetch waits for its timeout
		clients.Go(func() {
			wantRefusal(t, p.get(t, private.path(t), unknown), "keys-unavailable")
		})
	}
	go func() {
		clients.Wait()
		close(answered)
	}()
	served := 0
	for waiting := true; waiting; served++ {
		select {
		case <-answered:
			waiting = false
		case <-time.After(5 * time.Millisecond):
		}
		wantServed(t, p.get(t, private.path(t), known))
		wantServed(t, p.get(t, private.path(t), neverSeen))
		if got := p.get(t, "/readyz", ""); got.status != http.StatusOK {
			t.Fatalf("/readyz is %d: want 200, because known keys are used", got.status)
		}
	}
	wantRefusal(t, p.get(t, private.path(t), unknown), "keys-unavailable") // after a failed fetch
	failed := func() float64 {
		return p.metrics(t).sum("authz_keys_fetches_total", `result="failed"`)
	}
	if n := failed(); n < 1 {
		t.Errorf("the metrics have %v failed fetches of keys", n)
	}
	p.logged(t, "msg", "could not fetch keys")

	issuer.signal(t, syscall.SIGCONT)
	eventually(t, "the new key is used once the issuer answers", func() bool {
		return p.get(t, private.path(t), unknown).status == http.StatusOK
	})
	t.Logf("%d rounds served while the issuer hung, %v fetches failed", served, failed())
}

// TestRotationUnderJunk: while strangers send tokens with made-up kids, a new key of the issuer is
// found, and the issuer is not flooded.
func TestRotationUnderJunk(t *testing.T) {
	faultTest(t)
	const cooldown = time.Second
	issuer := startIssuer(t)
	p := startServe(t, issuer, "OASGATE_ADMIN_ADDR=127.0.0.1:0",
		"OASGATE_JWKS_COOLDOWN="+cooldown.String())
	old := issuer.mint(nil)
	wantServed(t, p.get(t, private.path(t), old))
	before, begun := issuer.keySets(), time.Now()

	var junk atomic.Int64
	var strangers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		strangers.Go(func() {
			stranger := newAuthor("")
			for {
				select {
				case <-stop:
					return
				default:
				}
				stranger.token = withKid(t, old, rand.Text())
				got, err := stranger.ask(p, http.MethodGet, private.path(t), "")
				if err != nil || got.status != http.StatusUnauthorized &&
					(got.status != http.StatusServiceUnavailable ||
						got.header.Get("Retry-After") == "") {
					t.Errorf("junk: %d %s, %v, want 401, or 503 with Retry-After", got.status,
						got.body, err)
					return
				}
				junk.Add(1)
			}
		})
	}
	flooded := func() { // by some more tokens
		before := junk.Load()
		eventually(t, "junk is refused", func() bool {
			return junk.Load() > before+200 || t.Failed()
		})
	}
	flooded()
	for range 3 {
		issuer.rotate("")
		genuine := issuer.mint(nil)
		eventually(t, "a token of the new key is served", func() bool {
			return p.get(t, private.path(t), genuine).status == http.StatusOK || t.Failed()
		})
		wantServed(t, p.get(t, private.path(t), old))
		flooded()
	}
	p.logged(t, "msg", "refusals not logged") // of junk
	close(stop)
	strangers.Wait()

	metrics := p.metrics(t)
	fetches := issuer.keySets() - before
	if limit := int(time.Since(begun)/cooldown) + 2; fetches < 3 || fetches > limit {
		t.Errorf("%d fetches of keys, want 3 to %d", fetches, limit)
	}
	told := int(metrics.sum("authz_keys_fetches_total", `result="succeeded"`))
	if told != before+fetches {
		t.Errorf("the metrics have %d fetches of keys, the issuer %d", told, before+fetches)
	}
	refused := metrics.sum("authz_requests_total", `cause="unknown_key"`) +
		metrics.sum("authz_requests_total", `cause="key_pending"`)
	if n := int64(refused); n < junk.Load() {
		t.Errorf("the metrics have %d refusals, clients %d", n, junk.Load())
	}
	t.Logf("%d tokens with made-up kids, %d fetches in %s", junk.Load(), fetches,
		time.Since(begun).Round(time.Second))
}

// withKid returns a token with another kid in its header. Its signature is wrong.
func withKid(t *testing.T, token, kid string) string {
	t.Helper()
	head, rest, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var header map[string]any
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	if err != nil {
		t.Fatal(err)
	}
	header["kid"] = kid
	text, _ = json.Marshal(header)
	return base64.RawURLEncoding.EncodeToString(text) + "." + rest
}
