package server

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	// A request waits for up to 1 s: this one is about what happens when the queue is full.
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

// TestGoodput: with 3 times the requests of its capacity, a server with a small pool keeps at least
// 80 % of its best goodput, and served requests wait at most 5 times as long.
func TestGoodput(t *testing.T) {
	if os.Getenv("OASGATE_TEST_FAULTS") == "" {
		t.Skip("OASGATE_TEST_FAULTS is not set: see .ci/full")
	}
	const connections, service = 4, 20 * time.Millisecond
	pool := make(chan struct{}, connections)
	r := startAnswering(t, func(c echo.Context) error {
		select {
		case pool <- struct{}{}:
		case <-time.After(5 * time.Second): // as the store does
			return c.NoContent(http.StatusInternalServerError)
		}
		defer func() { <-pool }()
		time.Sleep(service)
		return greet(c)
	}, func(c *Config) {
		c.Logger = slog.New(slog.DiscardHandler)
		c.Pools = func() map[string]Pool { return map[string]Pool{"x": {MaxOpen: connections}} }
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}
	defer client.CloseIdleConnections()
	token := mint(r.issuer, nil)
	send := func() int {
		request, _ := http.NewRequestWithContext(t.Context(), "GET", r.url+private.path, nil)
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		if err != nil {
			return 0
		}
		defer response.Body.Close()
		_, _ = io.Copy(io.Discard, response.Body)
		return response.StatusCode
	}
	// measure returns the goodput per second, and the 99th percentile of the time of served
	// requests.
	measure := func(run func(each func())) (goodput float64, p99 time.Duration, shed int) {
		var mu sync.Mutex
		var served []time.Duration
		begun := time.Now()
		run(func() {
			sent := time.Now()
			status := send()
			mu.Lock()
			defer mu.Unlock()
			if status == http.StatusOK {
				served = append(served, time.Since(sent))
			} else {
				shed++
			}
		})
		slices.Sort(served)
		if len(served) == 0 {
			t.Fatal("no request was served")
		}
		return float64(len(served)) / time.Since(begun).Seconds(), served[len(served)*99/100], shed
	}
	const lasting = 5 * time.Second
	best, usual, _ := measure(func(each func()) { // 8 for each connection use its whole capacity
		var clients sync.WaitGroup
		for range 8 * connections {
			clients.Go(func() {
				for begun := time.Now(); time.Since(begun) < lasting; {
					each()
				}
			})
		}
		clients.Wait()
	})
	got, slowest, shed := measure(func(each func()) {
		var clients sync.WaitGroup
		interval := time.Duration(float64(time.Second) / (3 * best))
		begun := time.Now()
		for n := 0; time.Since(begun) < lasting; n++ {
			time.Sleep(time.Until(begun.Add(time.Duration(n) * interval)))
			clients.Go(each)
		}
		clients.Wait()
	})
	t.Logf("at capacity: %.0f/s, p99 %s; offered 3 times that: %.0f/s, p99 %s, %d refused", best,
		usual, got, slowest, shed)
	if got < 0.8*best || slowest > 5*usual || shed == 0 {
		t.Errorf("want at least %.0f/s and at most %s", 0.8*best, 5*usual)
	}
}
