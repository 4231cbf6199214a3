package authz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/internal/rates"
	"github.com/oasgate/oasgate/authz/token"
)

const limitedDocument = `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /limited:
    get:
      operationId: limited
      security: []
      x-authz-rate-limit: 2/min
      responses: {"200": {description: ok}}
  /free:
    get: {operationId: free, security: [], responses: {"200": {description: ok}}}
`

// sharedCounter is a RateCounter that fails while err is set.
type sharedCounter struct {
	counts rates.Memory
	now    func() time.Time
	err    error
	asked  int
}

func (c *sharedCounter) Count(_ context.Context, key string, until time.Time) (int64, error) {
	if c.asked++; c.err != nil {
		return 0, c.err
	}
	return c.counts.Add("", key, 1, c.now(), until), nil
}

// limitedGate returns a function that sends a request from an address. It checks that the handler
// runs only if the status is 200.
func limitedGate(
	t *testing.T, configure func(*Config),
) func(path, address string) *httptest.ResponseRecorder {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData([]byte(limitedDocument))
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Document: document, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	configure(&config)
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(path, address string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = address
		w := httptest.NewRecorder()
		admitted, err := g.Check(r, path, nil)
		if err != nil {
			g.WriteProblem(w, r, err)
			return w
		}
		g.SetHeaders(w.Header(), admitted)
		return w
	}
}

func TestRateLimit(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 15, 0, time.UTC)
	send := limitedGate(t, func(c *Config) { c.Now = func() time.Time { return now } })
	for _, step := range []struct {
		address string
		later   time.Duration
		status  int
		left    string
	}{
		{"192.0.2.1:1", 0, 200, `"operation";r=1;t=45`},
		{"192.0.2.1:2", 5 * time.Second, 200, `"operation";r=0;t=40`},
		{"192.0.2.1:3", 0, 429, `"operation";r=0;t=40`},
		{"192.0.2.2:1", 0, 200, `"operation";r=1;t=40`}, // another caller
		{"[2001:db8::1]:1", 0, 200, `"operation";r=1;t=40`},
		{"[2001:db8::2]:1", 0, 200, `"operation";r=0;t=40`}, // the same network
		{"[2001:db8:0:1::2]:1", 0, 200, `"operation";r=1;t=40`},
		{"192.0.2.1:4", 40 * time.Second, 200, `"operation";r=1;t=60`}, // the next minute
	} {
		now = now.Add(step.later)
		w := send("/limited", step.address)
		if w.Code != step.status || w.Header().Get("RateLimit") != step.left ||
			w.Header().Get("RateLimit-Policy") != `"operation";q=2;w=60` {
			t.Errorf("%s: status %d, headers %v: want %d and %s", step.address, w.Code, w.Header(),
				step.status, step.left)
		}
		retry := w.Header().Get("Retry-After")
		if refused := step.status == 429; refused != (retry == "40") ||
			refused != strings.Contains(w.Body.String(), "#rate-limited") {
			t.Errorf("%s: Retry-After %q, body %s", step.address, retry, w.Body)
		}
	}
	if w := send("/free", "192.0.2.1:1"); w.Code != 200 || w.Header().Get("RateLimit") != "" {
		t.Errorf("without a limit: status %d, headers %v", w.Code, w.Header())
	}
}

// TestRateLimitOfPrincipals: addresses do not matter to a caller with a credential.
func TestRateLimitOfPrincipals(t *testing.T) {
	g := &Gate{}
	r := httptest.NewRequest("GET", "/", nil)
	callers := map[string]bool{}
	for _, c := range []token.PrincipalConfig{
		{Issuer: "i", Subject: "alice"}, {Issuer: "i", Subject: "alice", ClientID: "other"},
		{Issuer: "i", Subject: "bob"}, {Issuer: "j", Subject: "alice"},
		{Issuer: "i", ClientID: "alice"}, // a client is not the subject of the same name
	} {
		p, err := token.NewPrincipal(c)
		if err != nil {
			t.Fatal(err)
		}
		callers[g.caller(&Admission{Principal: p}, r)] = true
	}
	callers[g.caller(&Admission{}, r)] = true
	if len(callers) != 5 {
		t.Errorf("%d callers, want 5: %v", len(callers), callers)
	}
}

func TestSharedRateLimit(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		t.Run(fmt.Sprint("refuse ", refuse), func(t *testing.T) {
			now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
			clock := func() time.Time { return now }
			counter := &sharedCounter{now: clock}
			send := limitedGate(t, func(c *Config) {
				c.Now, c.RateCounter, c.RefuseUncounted = clock, counter, refuse
			})
			want := func(status int) {
				t.Helper()
				if w := send("/limited", "192.0.2.1:1"); w.Code != status {
					t.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
				}
			}
			want(200)
			counter.err = errors.New("down")
			if refuse {
				want(503)
				want(503)
			} else { // each server counts by itself
				want(200)
				want(200)
				want(429)
			}
			if counter.asked != 2 {
				t.Errorf("called %d times, want 2: not again within %s", counter.asked, rateRetry)
			}
			counter.err = nil
			now = now.Add(rateRetry)
			want(200)
			want(429)

			counter.err = errors.New("down")
			now = now.Add(time.Hour)
			want(map[bool]int{true: 503, false: 200}[refuse])
			counter.err = nil
			now = now.Add(-time.Hour) // another window, in which the counter is used again
			want(429)
		})
	}
}

func TestParseRateLimit(t *testing.T) {
	for text, want := range map[string]RateLimit{
		"100/min": {100, time.Minute}, "1/s": {1, time.Second}, "5/h": {5, time.Hour},
		"9/d": {9, 24 * time.Hour}, "": {}, "0/s": {}, "-1/s": {}, "10": {}, "10/": {},
		"10/week": {}, "1.5/s": {}, "10 / s": {},
	} {
		got, err := ParseRateLimit(text)
		if got != want || (err == nil) != (want.Requests > 0) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
}
