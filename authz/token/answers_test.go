package token_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// TestIntrospectionAges: answers end with MaxAge, and with exp.
func TestIntrospectionAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		s.policy.Leeway = token.NoLeeway
		endpoint := s.introspected(t)
		in := func(seconds int64) string { return strconv.FormatInt(time.Now().Unix()+seconds, 10) }
		endpoint.set("long", s.claims("active", "true", "exp", in(3600)))
		endpoint.set("short", s.claims("active", "true", "exp", in(30)))
		v := s.verifier(t)
		pending := func(n int32, when string) {
			t.Helper()
			if got := endpoint.asked.Swap(0); got != n {
				t.Errorf("%s: %d introspection requests, want %d", when, got, n)
			}
		}
		accepted(t, v, "long")
		accepted(t, v, "short")
		pending(2, "at first")
		time.Sleep(29 * time.Second)
		accepted(t, v, "long")
		accepted(t, v, "short")
		pending(0, "before exp and MaxAge")
		time.Sleep(time.Second)
		refused(t, v, "short", token.Expired)
		endpoint.set("long", `{"active":false}`)
		accepted(t, v, "long")
		pending(0, "at exp of one, before MaxAge of the other")
		time.Sleep(30 * time.Second)
		refused(t, v, "long", token.Inactive)
		pending(1, "after MaxAge")
		refused(t, v, "long", token.Inactive)
		pending(0, "not active, shortly after")
		time.Sleep(11 * time.Second)
		refused(t, v, "long", token.Inactive)
		pending(1, "not active, after a while")

		s.policy.Introspection.MaxAge = token.NoAge
		v = s.verifier(t)
		endpoint.set("long", s.claims("active", "true", "exp", in(3600)))
		time.Sleep(11 * time.Second)
		accepted(t, v, "long")
		accepted(t, v, "long")
		pending(2, "with no MaxAge")
	})
}

// TestIntrospectionClockSetBack: what was cached before the clock was set back does not stay longer
// than otherwise.
func TestIntrospectionClockSetBack(t *testing.T) {
	s := newScene(t)
	clock := now
	s.now = func() time.Time { return clock }
	endpoint := s.introspected(t)
	for _, tok := range []string{"active", "failing", "inactive"} {
		endpoint.set(tok, s.claims("active", "true", "nbf", "0", "iat", "0"))
	}
	endpoint.set("inactive", `{"active":false}`)
	v := s.verifier(t)
	accepted(t, v, "active")
	refused(t, v, "inactive", token.Inactive)
	endpoint.failing(status(500))
	refused(t, v, "failing", token.IntrospectionUnavailable)
	endpoint.failing(nil)
	clock = clock.Add(-time.Hour)
	endpoint.set("active", `{"active":false}`)
	endpoint.set("inactive", s.claims("active", "true"))
	accepted(t, v, "failing")
	accepted(t, v, "inactive")
	refused(t, v, "active", token.Inactive)
}

// TestAnswersStayWithinTheirBytes: the cached responses are counted with the tokens that they keep
// in memory.
func TestAnswersStayWithinTheirBytes(t *testing.T) {
	const room = 8 << 20
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var memory runtime.MemStats
		runtime.ReadMemStats(&memory)
		return int64(memory.HeapAlloc)
	}
	var scopes strings.Builder
	for n := range 10_000 {
		fmt.Fprintf(&scopes, "%x ", n)
	}
	long := strconv.Quote(strings.Repeat("x", 5<<10))
	for _, test := range []struct {
		name   string
		answer func(s *scene) string
		token  func(s *scene, n int) string
		tokens int // several times what there is room for
	}{
		{"JWTs", func(*scene) string { return `{"active":true}` }, func(s *scene, n int) string {
			return s.genuine("jti", strconv.Quote(fmt.Sprint(n)), "pad", long)
		}, 3000},
		{"opaque tokens with many scopes", func(s *scene) string {
			return s.claims("active", "true", "scope", strconv.Quote(scopes.String()))
		}, func(_ *scene, n int) string { return fmt.Sprint("t", n) }, 90},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.introspected(t)
			s.policy.Introspection.Always = true
			answer := test.answer(s)
			s.wire.hosts["introspect.example"] = http.HandlerFunc(
				func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, answer) })
			config := s.config(s.policy)
			config.CacheBytes = room
			v := must(token.NewVerifier(t.Context(), config))
			accepted(t, v, test.token(s, -1)) // also fetches the keys
			before := heap()
			for n := range test.tokens {
				accepted(t, v, test.token(s, n))
			}
			limit := int64(v.Stats().Cache.Bytes) + room/4
			if holds := heap() - before; holds > limit*5/4 {
				t.Errorf("%d bytes are used, %.1f times the limit of %d", holds,
					float64(holds)/float64(limit), limit)
			} else {
				t.Logf("%.2f of the limit", float64(holds)/float64(limit))
			}
			runtime.KeepAlive(v)
		})
	}
}
