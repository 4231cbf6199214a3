package server

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/labstack/echo/v4"
)

// TestOverload: a request beyond the limits is refused at once, and its handler does not run.
// Probes and metadata are not refused.
func TestOverload(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 2)
	var ran atomic.Int64
	r := startAnswering(t, func(c echo.Context) error {
		ran.Add(1)
		entered <- struct{}{}
		<-release
		return greet(c)
	}, func(c *Config) { c.MaxActive = 1 })
	results := make(chan answer, 2)
	call := func() {
		go func() { results <- r.call(t) }()
	}
	call()
	<-entered
	// A request would wait up to 1 s. This test is about a full queue.
	r.server.overload.waiting.Add(1)
	got := r.call(t, "X-Request-Id", "shed")
	wantProblem(t, got, http.StatusServiceUnavailable)
	if !strings.Contains(got.body, "#overloaded") || got.header.Get("Retry-After") != "1" {
		t.Errorf("refused with %s, Retry-After %q: want the kind overloaded, and 1", got.body,
			got.header.Get("Retry-After"))
	}
	entry := r.log.request(t, "shed")
	if entry["level"] != "INFO" || entry["code"] != "overloaded" {
		t.Errorf("the log line is %v: want INFO and the code overloaded", entry)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := r.ask(t, "GET", path); got.status != http.StatusOK {
			t.Errorf("%s is %d in an overload", path, got.status)
		}
	}
	r.server.overload.waiting.Add(-1)
	if n := ran.Load(); n != 1 {
		t.Fatalf("%d handlers ran, want 1", n)
	}
	call()
	eventually(t, "the second request waits", func() bool {
		return r.server.overload.waiting.Load() == 1 || len(results) == 1 // or has waited too long
	})
	close(release)
	for range 2 {
		if got := <-results; got.status != http.StatusOK &&
			got.status != http.StatusServiceUnavailable {
			t.Errorf("status %d: %s", got.status, got.body)
		}
	}
	if got := r.call(t); got.status != http.StatusOK {
		t.Errorf("status %d after the overload: %s", got.status, got.body)
	}
	if n := len(r.server.overload.active); n != 0 {
		t.Errorf("%d requests are still active", n)
	}
}

// TestStreamsAreNotActive: streams and connections that are taken over do not count once they have
// begun.
func TestStreamsAreNotActive(t *testing.T) {
	for name, begin := range map[string]func(c echo.Context) error{
		"events": func(c echo.Context) error {
			c.Response().Header().Set("Content-Type", "text/event-stream")
			c.Response().Flush()
			return nil
		},
		"hijacked": func(c echo.Context) error {
			conn, _, err := c.Response().Hijack()
			if err != nil {
				return err
			}
			t.Cleanup(func() { conn.Close() })
			_, err = conn.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " +
				"0\r\n\r\n"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			var streams atomic.Int64
			r := startAnswering(t, func(c echo.Context) error {
				if streams.Add(1) > 1 {
					return greet(c)
				}
				err := begin(c)
				<-release
				return err
			}, func(c *Config) { c.MaxActive = 1 })
			request, _ := http.NewRequestWithContext(t.Context(), "GET", r.url+private.path, nil)
			request.Header.Set("Authorization", "Bearer "+mint(r.issuer, nil))
			response, err := http.DefaultTransport.RoundTrip(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if got := r.call(t); got.status != http.StatusOK {
				t.Errorf("status %d during a stream, want 200", got.status)
			}
			close(release)
		})
	}
}

// TestSlowBodies: requests whose bodies do not arrive do not count.
func TestSlowBodies(t *testing.T) {
	r := startAnswering(t, greet, func(c *Config) { c.MaxActive = 1 })
	token := "Authorization: Bearer " + mint(r.issuer, map[string]any{"scope": "write:notes"})
	for range 3 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "POST /api/notes HTTP/1.1\r\nHost: x\r\n"+token+
			"\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
		if got := r.call(t); got.status != http.StatusOK {
			t.Fatalf("status %d during slow bodies, want 200: %s", got.status, got.body)
		}
	}
}

func TestDefaultActive(t *testing.T) {
	pools := func(sizes ...int) func() map[string]Pool {
		return func() map[string]Pool {
			all := map[string]Pool{}
			for i, n := range sizes {
				all[string(rune('a'+i))] = Pool{MaxOpen: n}
			}
			return all
		}
	}
	if got := defaultActive(pools(1000, 1)); got != 4004 {
		t.Errorf("%d for 1001 connections, want 4004", got)
	}
	few, none, unlimited := defaultActive(pools(1)), defaultActive(nil), defaultActive(pools(1, 0))
	if few >= none || none != unlimited {
		t.Errorf("%d for one connection, %d without pools, %d without a limit", few, none,
			unlimited)
	}
}
