package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// recorder is a Telemetry that records the events.
type recorder struct {
	Telemetry
	mu  sync.Mutex
	all []Event
}

func (e *recorder) Begin(r *http.Request) *http.Request                { return r }
func (e *recorder) Trace(context.Context) (traceID, spanID string)     { return "trace", "span" }
func (e *recorder) Watch(func() Stats) error                           { return nil }
func (e *recorder) Transport(next http.RoundTripper) http.RoundTripper { return next }

func (e *recorder) End(_ context.Context, event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	event.Duration = 0
	e.all = append(e.all, event)
}

// last waits for the event of a path and returns it.
func (e *recorder) last(t *testing.T, path string) (found Event) {
	t.Helper()
	eventually(t, "the request to "+path+" ends", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, event := range e.all {
			if event.Path == path {
				found = event
				return true
			}
		}
		return false
	})
	return found
}

// Values of clients are never labels.
func TestEvents(t *testing.T) {
	seen := &recorder{}
	r := start(t, func(c *Config) { c.Telemetry = seen })
	r.call(t)
	if got, want := seen.last(t, private.path), (Event{
		Method: "GET", Path: private.path, Route: private.path, Operation: private.id, Status: 200,
		Outcome: Succeeded,
	}); got != want {
		t.Errorf("the event is %+v, want %+v", got, want)
	}
	r.ask(t, "BREW", "/no/such/path?q=secret", "Authorization", "Bearer forged.forged.forged")
	if got, want := seen.last(t, "/no/such/path"), (Event{
		Method: "_OTHER", Path: "/no/such/path", Status: 404, Outcome: Refused, Cause: "not-found",
	}); got != want {
		t.Errorf("the event is %+v, want %+v", got, want)
	}
	r.ask(t, "GET", scoped.path, "Authorization",
		"Bearer "+mint(r.issuer, map[string]any{"aud": "stranger"}))
	if got := seen.last(t, scoped.path); got.Cause != "audience" || got.Operation != scoped.id {
		t.Errorf("the event is %+v, want that of %s with the cause audience", got, scoped.id)
	}
	entry := r.log.request(t, r.ask(t, "GET", "/healthz").header.Get("X-Request-Id"))
	if entry["trace_id"] != "trace" || entry["span_id"] != "span" {
		t.Errorf("the log has no IDs of the trace: %v", entry)
	}
}

func TestClientClosed(t *testing.T) {
	seen := &recorder{}
	entered := make(chan struct{})
	r := startAnswering(t, func(c echo.Context) error {
		close(entered)
		ctx := c.Request().Context()
		<-ctx.Done()
		return &authz.Error{Kind: authz.Unavailable, Err: fmt.Errorf("the database: %w", ctx.Err())}
	}, func(c *Config) { c.Telemetry = seen })
	ctx, hangUp := context.WithCancel(t.Context())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, r.url+private.path, nil)
	request.Header.Set("Authorization", "Bearer "+mint(r.issuer, nil))
	request.Header.Set("X-Request-Id", "gone")
	go func() { <-entered; hangUp() }()
	if response, err := http.DefaultTransport.RoundTrip(request); err == nil {
		response.Body.Close()
		t.Error("the client got a response")
	}
	entry := r.log.request(t, "gone")
	for key, want := range map[string]any{
		"level": "INFO", "status": 0.0, "outcome": "client_closed", "code": "client_closed",
		"cause": "the client closed the connection",
	} {
		if entry[key] != want {
			t.Errorf("%s is %v, want %v", key, entry[key], want)
		}
	}
	if got := seen.last(t, private.path); got.Outcome != ClientClosed || got.Status != 0 {
		t.Errorf("the event is %+v, want %s", got, ClientClosed)
	}
}

// Floods are sampled by cause and client, with a line about it. Other lines are all logged.
func TestSampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSampler(slog.New(slog.NewTextHandler(&log, nil)))
		logged := map[string]int{}
		flood := func() {
			for range 10_000 {
				if s.allow("malformed", "192.0.2.1") {
					logged["flood"]++
				}
				if s.allow("malformed", "2001:db8::"+fmt.Sprint(logged["address"])) {
					logged["network"]++
				}
				logged["address"] = (logged["address"] + 1) % 1000
			}
		}
		flood()
		for _, other := range []struct{ cause, client string }{
			{"expired", "192.0.2.1"}, {"malformed", "192.0.2.2"},
		} {
			if !s.allow(other.cause, other.client) {
				t.Errorf("the flood hides %s of %s", other.cause, other.client)
			}
		}
		if logged["flood"] != sampleLines || logged["network"] != sampleLines {
			t.Errorf("lines in a window: %v, want %d of each client", logged, sampleLines)
		}
		time.Sleep(sampleWindow)
		synctest.Wait()
		for _, want := range []string{
			`msg="refusals not logged" code=malformed remote=192.0.2.1 lines=9980`,
			"remote=2001:db8::/64 lines=9980",
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log is %s\nwant %s in it", &log, want)
			}
		}
		flood()
		if logged["flood"] != 2*sampleLines {
			t.Errorf("lines in two windows: %v, want %d", logged["flood"], 2*sampleLines)
		}
		// Clients that are too many share the lines of a cause.
		allowed := 0
		for i := range 10_000 {
			if s.allow("issuer", fmt.Sprintf("10.0.%d.%d", i/256, i%256)) {
				allowed++
			}
		}
		if most := sampleKeys + sampleLines; allowed > most || allowed < sampleKeys/2 {
			t.Errorf("%d lines of 10,000 clients, want at most %d", allowed, most)
		}
		time.Sleep(sampleWindow)
	})
}

// The lines of known callers and of the server's failures are not sampled.
func TestNotSampled(t *testing.T) {
	r := startAnswering(t, func(echo.Context) error { return errors.New("disk on fire") }, nil)
	bad := mint(r.issuer, map[string]any{"scope": "other"})
	for range 2 * sampleLines {
		r.call(t)
		r.ask(t, "GET", scoped.path, "Authorization", "Bearer "+bad)
		r.ask(t, "GET", "/nowhere")
	}
	r.stop()
	<-r.ended
	r.ended <- nil
	for text, want := range map[string]int{
		`"status":500`: 2 * sampleLines, `"status":403`: 2 * sampleLines, `"status":404`: sampleLines,
	} {
		if got := strings.Count(r.log.String(), text); got != want {
			t.Errorf("%d lines with %s, want %d", got, text, want)
		}
	}
	if got := r.server.Stats().SuppressedLines; got != sampleLines {
		t.Errorf("%d lines were suppressed, want %d", got, sampleLines)
	}
}

// disk is a writer that can be full, or block.
type disk struct {
	logBuffer
	full  atomic.Bool
	block chan struct{} // nil: it does not
}

func (d *disk) Write(p []byte) (int, error) {
	if d.block != nil {
		<-d.block
	}
	if d.full.Load() {
		n, _ := d.logBuffer.Write(p[:min(10, len(p))])
		return n, errors.New("no space left on device")
	}
	return d.logBuffer.Write(p)
}

func TestAudit(t *testing.T) {
	var out logBuffer
	audit, err := NewAudit(AuditConfig{Writer: &out})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) { c.Audit = audit })
	tokens := []string{
		mint(r.issuer, map[string]any{"sub": "alice", "client_id": "app"}),
		mint(r.issuer, map[string]any{"scope": "other", "sub": "bob", "client_id": "app"}),
		mint(r.issuer, map[string]any{"aud": "stranger"}),
	}
	for i, path := range []string{private.path, scoped.path, private.path} {
		r.ask(t, "GET", path, "Authorization", "Bearer "+tokens[i], "X-Request-Id", fmt.Sprint(i))
	}
	r.ask(t, "GET", "/nowhere", "X-Request-Id", "3")
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, entry)
		for _, token := range tokens {
			if strings.Contains(line, token[len(token)-20:]) {
				t.Errorf("the line contains a token: %s", line)
			}
		}
	}
	want := []map[string]any{
		{"outcome": "allowed", "operation": private.id, "issuer": r.issuer.URL(),
			"subject": "alice", "client_id": "app", "request_id": "0", "code": nil},
		{"outcome": "refused", "operation": scoped.id, "subject": "bob",
			"code": "insufficient-scope"},
		{"outcome": "refused", "operation": private.id, "subject": nil, "code": "audience"},
		{"outcome": "refused", "operation": nil, "code": "not-found"},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines for %d decisions: %s", len(lines), len(want), &out)
	}
	for i, members := range want {
		for key, value := range members {
			if lines[i][key] != value {
				t.Errorf("line %d: %s is %v, want %v", i, key, lines[i][key], value)
			}
		}
	}
}

// Without Drop, no request is served that the audit log does not have.
func TestAuditBlocks(t *testing.T) {
	out, log := &disk{}, &logBuffer{}
	out.full.Store(true)
	audit, err := NewAudit(AuditConfig{
		Writer: out, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int32
	r := startAnswering(t, func(c echo.Context) error {
		handled.Add(1)
		return greet(c)
	}, func(c *Config) { c.Audit = audit })
	answered := make(chan answer, 1)
	request, _ := http.NewRequest(http.MethodGet, r.url+private.path, nil)
	request.Header.Set("Authorization", "Bearer "+mint(r.issuer, nil))
	go func() { answered <- read(t, request) }()
	eventually(t, "the log says that requests wait",
		func() bool { return strings.Contains(log.String(), "requests wait") })
	if handled.Load() != 0 {
		t.Error("a handler ran before its decision was written")
	}
	out.full.Store(false)
	if got := <-answered; got.status != http.StatusOK || handled.Load() != 1 {
		t.Errorf("status %d after the disk has space again", got.status)
	}
	if lines := strings.Split(out.String(), "\n"); !strings.Contains(lines[len(lines)-2],
		`"outcome":"allowed"`) {
		t.Errorf("the audit log is %q: want the whole line at its end", out)
	}
	if !strings.Contains(log.String(), "written again") {
		t.Errorf("the log does not say that it is over: %s", log)
	}
}

// With Drop, requests do not wait, and lost decisions are counted.
func TestAuditDrops(t *testing.T) {
	out := &disk{block: make(chan struct{})}
	audit, err := NewAudit(AuditConfig{
		Writer: out, Drop: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	const decisions = 50_000 // more than two buffers hold: one can be in a blocked write
	hook := audit.before(nil)
	for range decisions {
		hook(t.Context(), authz.Decision{Outcome: authz.Allowed})
	}
	if got := audit.Dropped(); got == 0 || got >= decisions {
		t.Errorf("%d of %d decisions were dropped, want some", got, decisions)
	}
	close(out.block)
	audit.Close()
	lines := uint64(strings.Count(out.String(), "\n"))
	if lines+audit.Dropped() != decisions {
		t.Errorf("%d lines and %d dropped of %d", lines, audit.Dropped(), decisions)
	}
}

// With Drop, a full disk is logged once, and its end too.
func TestAuditDropsOnAFullDisk(t *testing.T) {
	out, log := &disk{}, &logBuffer{}
	out.full.Store(true)
	audit, err := NewAudit(AuditConfig{
		Writer: out, Drop: true, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	hook := audit.before(nil)
	for n := range uint64(3) {
		hook(t.Context(), authz.Decision{Outcome: authz.Allowed})
		eventually(t, "the decision is dropped", func() bool { return audit.Dropped() == n+1 })
	}
	out.full.Store(false)
	hook(t.Context(), authz.Decision{Outcome: authz.Allowed})
	audit.Close()
	if said := log.String(); strings.Count(said, "decisions are dropped") != 1 ||
		!strings.Contains(said, "written again\" dropped=3") {
		t.Errorf("the log is\n%s", said)
	}
	if lines := strings.Split(out.String(), "\n"); !strings.Contains(lines[len(lines)-2],
		`"outcome":"allowed"`) {
		t.Errorf("the audit log is %q: want the whole line at its end", out)
	}
}

func TestAdmin(t *testing.T) {
	level := new(slog.LevelVar)
	r := start(t, nil)
	admin := r.server.Admin(AdminConfig{
		Level:    level,
		Settings: map[string]string{"ORDERS_ADDR": ":3010"},
		Components: map[string]func(context.Context) error{
			"database": func(context.Context) error { return errors.New("no route to host") },
		},
	})
	r.call(t) // fetches the keys
	const near, far = "127.0.0.1:4000", "192.0.2.1:4000"
	for _, test := range []struct {
		method, path, peer, host, body string
		header                         http.Header
		status                         int
		want                           string
	}{
		{"GET", "/healthz", far, "api.example", "", nil, 200, `"ok"`},
		{"GET", "/readyz", far, "api.example", "", nil, 200, `{"ready":true}`},
		{"GET", "/readyz?verbose", far, "api.example", "", nil, 200,
			`{"name":"keys of ` + r.issuer.URL() + `","ok":true,"keys":1`},
		{"GET", "/readyz?verbose", far, "api.example", "", nil, 200,
			`{"name":"database","ok":false,"error":"no route to host"}`},
		{"GET", "/version", far, "api.example", "", nil, 200, `"go":"go1`},
		{"GET", "/metrics", near, "localhost", "", nil, 404, ""}, // no telemetry
		{"GET", "/configuration", near, "localhost:9090", "", nil, 200, `{"ORDERS_ADDR":":3010"}`},
		{"GET", "/configuration", "[::1]:4000", "[::1]:9090", "", nil, 200, "ORDERS_ADDR"},
		{"GET", "/configuration", far, "localhost", "", nil, 403, ""},
		{"GET", "/configuration", near, "rebound.example", "", nil, 403, ""},
		{"GET", "/configuration", near, "localhost", "",
			http.Header{"X-Forwarded-For": {"192.0.2.1"}}, 403, ""},
		{"GET", "/debug/pprof/", near, "localhost", "", nil, 200, "goroutine"},
		{"GET", "/debug/pprof/heap", far, "localhost", "", nil, 403, ""},
		{"PUT", "/log-level", far, "localhost", "debug", nil, 403, ""},
		{"PUT", "/log-level", near, "localhost", "debug", http.Header{"Origin": {"https://x.example"}},
			403, ""},
		{"PUT", "/log-level", near, "localhost", "loud", nil, 400, "expected debug"},
		{"GET", "/log-level", near, "localhost", "", nil, 200, "INFO"},
		{"PUT", "/log-level", near, "localhost", "debug\n", nil, 204, ""},
		{"GET", "/log-level", near, "localhost", "", nil, 200, "DEBUG"},
	} {
		request := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		request.RemoteAddr, request.Host = test.peer, test.host
		for name, values := range test.header {
			request.Header[name] = values
		}
		got := httptest.NewRecorder()
		admin.ServeHTTP(got, request)
		body, _ := io.ReadAll(got.Body)
		if got.Code != test.status || !strings.Contains(string(body), test.want) {
			t.Errorf("%s %s of %s to %s: %d %s, want %d %s", test.method, test.path, test.peer,
				test.host, got.Code, body, test.status, test.want)
		}
	}
}

func TestCauseOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("anything"), "internal"},
		{&authz.Error{Kind: authz.Other}, "other"},
		{&authz.Error{Kind: authz.NotFound}, "not-found"},
		{&authz.Error{Kind: authz.InvalidToken, Err: &token.Error{Code: token.Expired}}, "expired"},
	} {
		if got := causeOf(test.err); got != test.want {
			t.Errorf("the cause of %v is %q, want %q", test.err, got, test.want)
		}
	}
}

// The table of the README lists exactly the fields of the lines.
func TestLogTable(t *testing.T) {
	fail := false
	r := startAnswering(t, func(c echo.Context) error {
		if fail {
			panic("a reason")
		}
		return greet(c)
	}, func(c *Config) { c.Telemetry = &recorder{} })
	logged := map[string]bool{}
	for _, claims := range []map[string]any{
		nil, {"client_id": "app", "act": map[string]any{"sub": "agent"}}, {"aud": "stranger"}, nil,
	} {
		id := fmt.Sprint("table", len(logged))
		fail = len(logged) > 0 && claims == nil
		r.ask(t, "GET", private.path, "X-Request-Id", id, "Authorization",
			"Bearer "+mint(r.issuer, claims))
		for field := range r.log.request(t, id) {
			logged[field] = true
		}
	}
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n| field | |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	listed := map[string]bool{"time": true, "level": true, "msg": true} // of every line
	for line := range strings.Lines(table) {
		fields, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		for field := range strings.SplitSeq(fields, ", ") {
			if name := strings.Trim(field, "`"); name != "" && !strings.HasPrefix(name, "|") {
				listed[name] = true
			}
		}
	}
	for field := range logged {
		if !listed[field] {
			t.Errorf("the table does not list %s", field)
		}
	}
	for field := range listed {
		if !logged[field] {
			t.Errorf("the table lists %s, which no line has", field)
		}
	}
}
