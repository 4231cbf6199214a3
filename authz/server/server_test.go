package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/internal/jsonlines"
	"github.com/oasgate/oasgate/authz/token"
)

const testAudience = "https://api.example"

// operation is an operation of testdata/openapi.yaml.
type operation struct{ id, path, scope string }

var (
	public  = operation{"getPublic", "/api/public", ""}
	private = operation{"getPrivate", "/api/private", ""}
	scoped  = operation{"getPrivateScoped", "/api/private-scoped", "read:notes"}
)

// document returns testdata/openapi.yaml.
func document(t testing.TB) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile("testdata/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// withHandler returns routes of Echo v4 with the same handler for each operation.
func withHandler(handler echo.HandlerFunc) func(*authz.Gate) (http.Handler, error) {
	return func(g *authz.Gate) (http.Handler, error) {
		return echov4.Routes(g, func(e *echo.Echo) {
			for _, o := range g.Plan().Operations() {
				e.Add(o.Method, strings.NewReplacer("{", ":", "}", "").Replace(o.Path), handler)
			}
		})
	}
}

// greet is the default handler.
func greet(c echo.Context) error { return c.String(http.StatusOK, greeting) }

const greeting = "Hello"

// mint returns a token for the private operation, with changed claims.
func mint(issuer interface{ Mint(map[string]any) string }, claims map[string]any) string {
	all := map[string]any{"scope": private.scope}
	maps.Copy(all, claims)
	return issuer.Mint(all)
}

// running is a server on a free port, with its issuer and its log.
type running struct {
	url    string
	issuer *devissuer.Server
	log    *logBuffer
	stop   context.CancelFunc
	ended  chan error // what Serve returned
	server *Server
}

// start starts a server with one issuer and the handler greet. The function configure can change
// the configuration.
func start(t *testing.T, configure func(*Config)) *running {
	t.Helper()
	return startAnswering(t, greet, configure)
}

// startAnswering is start with another handler.
func startAnswering(t *testing.T, handler echo.HandlerFunc, configure func(*Config)) *running {
	t.Helper()
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{testAudience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	r := &running{issuer: issuer, log: &logBuffer{}, ended: make(chan error, 1)}
	config := Config{
		Document: document(t), Routes: withHandler(handler),
		Logger: slog.New(
			slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}},
	}
	if configure != nil {
		configure(&config)
	}
	r.server, err = New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- r.server.Serve(ctx, listener)
	}()
	t.Cleanup(func() { stop(); <-done })
	return r
}

// eventually waits until a condition is true, or for the watchdog.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begun := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > watchdog {
			t.Fatalf("it never happens that %s", what)
		}
	}
}

const watchdog = 2 * time.Minute

// answer is a response with its body.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request. headers are name, value, name, value.
func (r *running) ask(t *testing.T, method, path string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		if pair[0] == "Host" {
			request.Host = pair[1]
		}
		request.Header.Set(pair[0], pair[1])
	}
	return read(t, request)
}

// call calls the private operation with a valid token.
func (r *running) call(t *testing.T, headers ...string) answer {
	t.Helper()
	return r.ask(
		t,
		http.MethodGet,
		private.path,
		append(headers, "Authorization", "Bearer "+mint(r.issuer, nil))...)
}

func read(t *testing.T, request *http.Request) answer {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// wantProblem checks that a response is a problem document with the same status.
func wantProblem(t *testing.T, got answer, status int) {
	t.Helper()
	var problem struct {
		Type, Title string
		Status      int
	}
	if err := json.Unmarshal([]byte(got.body), &problem); err != nil || problem.Status != status ||
		problem.Title == "" ||
		problem.Type == "" {
		t.Errorf("body is %q: want a problem document (RFC 9457) of status %d", got.body, status)
	}
	if got.status != status || got.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("status %d, Content-Type %q: want %d, application/problem+json", got.status,
			got.header.Get("Content-Type"), status)
	}
}

// logBuffer is a log of JSON lines.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// request waits for the line of the request with this ID, which can follow the response.
func (b *logBuffer) request(t *testing.T, id string) (entry map[string]any) {
	t.Helper()
	eventually(t, "request "+id+" has a line in the log", func() bool {
		for line := range strings.Lines(b.String()) {
			var one map[string]any
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatalf("the log has a line that is not JSON: %q", line)
			}
			if one["msg"] == "request" && one["request_id"] == id {
				if entry != nil {
					t.Fatalf("request %s has two lines in the log: %v, %v", id, entry, one)
				}
				entry = one
			}
		}
		return entry != nil
	})
	return entry
}

func TestProbes(t *testing.T) {
	r := start(t, func(c *Config) { c.Issuers[0].URL = "http://127.0.0.1:1/" }) // where nobody is
	if got := r.ask(t, http.MethodGet, "/healthz"); got.status != http.StatusOK ||
		got.body != `{"status":"ok"}`+"\n" {
		t.Errorf(
			"/healthz answers %d %q while the issuer is down: the process is alive, so it is 200",
			got.status, got.body)
	}
	if got := r.ask(t, http.MethodHead, "/healthz"); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD /healthz is %d, %q: want 200 without a body", got.status, got.body)
	}
	got := r.ask(t, http.MethodGet, "/readyz")
	wantProblem(t, got, http.StatusServiceUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Errorf("/readyz is 503 without Retry-After")
	}
	got = r.ask(t, http.MethodPost, "/readyz")
	wantProblem(t, got, http.StatusMethodNotAllowed)
	if allow := got.header.Get("Allow"); allow != "GET, HEAD" {
		t.Errorf("POST /readyz: Allow is %q, want GET, HEAD", allow)
	}
}

// The tests of package token check the delay, with a fake clock.
func TestReadyAfterOutage(t *testing.T) {
	r := start(t, nil)
	r.issuer.Stop()
	down := start(t, func(c *Config) { c.Issuers[0].URL = r.issuer.URL() })
	wantProblem(t, down.ask(t, http.MethodGet, "/readyz"), http.StatusServiceUnavailable)
	if err := r.issuer.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz is 200 once the issuer is back",
		func() bool { return down.ask(t, http.MethodGet, "/readyz").status == http.StatusOK })
}

func TestReadyOfTheProgram(t *testing.T) {
	var fault atomic.Pointer[error]
	r := start(t, func(c *Config) {
		c.Ready = func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the check may take for ever")
			}
			if f := fault.Load(); f != nil {
				return *f
			}
			return nil
		}
	})
	eventually(t, "the server is ready",
		func() bool { return r.ask(t, "GET", "/readyz").status == http.StatusOK })
	err := errors.New("secret of the database")
	fault.Store(&err)
	got := r.ask(t, "GET", "/readyz", "X-Request-Id", "not-ready")
	wantProblem(t, got, http.StatusServiceUnavailable)
	if strings.Contains(got.body, "secret") || got.header.Get("Retry-After") == "" {
		t.Errorf("want Retry-After, and nothing of the cause: %v %s", got.header, got.body)
	}
	if cause := fmt.Sprint(r.log.request(t, "not-ready")["cause"]); !strings.Contains(cause,
		"secret of the database") {
		t.Errorf("cause is %q", cause)
	}
	if got := r.ask(t, "GET", "/healthz"); got.status != http.StatusOK {
		t.Errorf("/healthz is %d: the process is alive", got.status)
	}
	fault.Store(nil)
	if got := r.ask(t, "GET", "/readyz"); got.status != http.StatusOK {
		t.Errorf("/readyz is %d though nothing is wrong any more", got.status)
	}
}

func TestFaultsOfTheConfiguration(t *testing.T) {
	issuers := []token.Issuer{{URL: "https://issuer.example/", Audiences: []string{testAudience}}}
	routes := withHandler(greet)
	for name, test := range map[string]struct {
		config Config
		want   []string // each in its line
	}{
		"nothing":    {Config{}, []string{"server: Config.Document is nil", "server: Config.Routes is nil"}},
		"no issuers": {Config{Document: document(t), Routes: routes, CORSOrigins: []string{"*"}}, []string{`server: Config.CORSOrigins has "*": `, "authz: Config.Verifier is nil, but the document requires access tokens"}},
		"routes fail": {Config{Document: document(t), Issuers: issuers,
			Routes: func(*authz.Gate) (http.Handler, error) {
				return nil, errors.New("no route for getPublic")
			}}, []string{"no route for getPublic"}},
		"no handler": {Config{Document: document(t), Issuers: issuers,
			Routes: func(*authz.Gate) (http.Handler, error) {
				return nil, nil
			}}, []string{"server: Config.Routes returned a nil handler"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Logger = slog.New(slog.DiscardHandler)
			_, err := New(t.Context(), test.config)
			lines := strings.Split(fmt.Sprint(err), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("faults are\n%v\nwant %d", err, len(test.want))
			}
			for i, want := range test.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("fault is %q, want %q", lines[i], want)
				}
			}
		})
	}
}

// Serve fetches the keys before the first request.
func TestKeysAreFetchedAtStart(t *testing.T) {
	r := start(t, nil)
	eventually(t, "Serve has the keys fetched",
		func() bool { _, keySets := r.issuer.Requests(); return keySets == 1 })
}

func TestUnknownPathsAndMethods(t *testing.T) {
	r := start(t, nil)
	for _, test := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 404},
		{"GET", "/nowhere", 404},
		{"GET", private.path + "/", 404},
		{"GET", "/" + private.path, 404}, // nothing cleans paths and redirects
		{"GET", "/x/.." + private.path, 404},
		{"GET", "/healthz/", 404},
		{"GET", "/oauth/token", 404}, // served under dev only
		{"GET", "/.well-known/jwks.json", 404},
		{"BREW", private.path, 405},
	} {
		got := r.ask(t, test.method, test.path)
		if test.method == "HEAD" {
			if got.status != test.status {
				t.Errorf("HEAD %s is %d, want %d", test.path, got.status, test.status)
			}
			continue
		}
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			wantProblem(t, got, test.status)
			if allow := got.header.Get("Allow"); test.status == 405 &&
				!slices.Contains(strings.Split(allow, ", "), "GET") {
				t.Errorf("Allow is %q, want GET in it", allow)
			}
		})
	}
}

// By default, net/http itself responds to OPTIONS *.
func TestOptionsAsterisk(t *testing.T) {
	r := start(t, nil)
	wantProblem(t, r.raw(t, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n"), http.StatusNotFound)
}

// raw sends the text of a request.
func (r *running) raw(t *testing.T, text string) answer {
	t.Helper()
	conn := r.dial(t)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return readFrom(t, conn)
}

func (r *running) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func readFrom(t *testing.T, conn net.Conn) answer {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

func TestRequestID(t *testing.T) {
	r := start(t, nil)
	for _, id := range []string{"a", "3f2b.A-b_c", strings.Repeat("x", 64)} {
		if got := r.ask(t, http.MethodGet, "/healthz", "X-Request-Id",
			id).header.Get("X-Request-Id"); got != id {
			t.Errorf("request id %q became %q: want a valid one unchanged", id, got)
		}
	}
	fit := regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	seen := map[string]bool{}
	for _, id := range []string{"", "a b", "ä", `"}`, strings.Repeat("x", 65), "<script>"} {
		got := r.ask(t, http.MethodGet, "/nowhere", "X-Request-Id", id).header.Get("X-Request-Id")
		if got == id || !fit.MatchString(got) || seen[got] {
			t.Errorf("request id %q became %q: want a new one", id, got)
		}
		seen[got] = true
	}
}

func TestRequestLog(t *testing.T) {
	r := start(t, nil)
	tests := []struct {
		id, method, path, authorization string
		want                            map[string]any // nil: the member must be absent
	}{
		{"public", "GET", public.path, "", map[string]any{
			"level": "INFO", "method": "GET", "path": public.path, "operation": public.id, "status": 200.0, "remote": "127.0.0.1",
			"subject": nil, "client_id": nil, "cause": nil}},
		{
			"private",
			"GET",
			private.path,
			mint(r.issuer, map[string]any{"sub": "alice", "client_id": "app"}),
			map[string]any{
				"operation": private.id, "status": 200.0, "subject": "alice", "client_id": "app", "cause": nil},
		},
		{
			"forbidden",
			"GET",
			scoped.path,
			mint(r.issuer, map[string]any{"sub": "bob", "client_id": "app", "scope": nil}),
			map[string]any{
				"level": "INFO", "operation": scoped.id, "status": 403.0, "subject": "bob", "client_id": "app",
				"cause": "authz: insufficient-scope: This operation requires the scopes: " + scoped.scope + "."},
		},
		{"no-token", "GET", private.path, "", map[string]any{
			"operation": private.id, "status": 401.0, "subject": nil, "cause": "authz: missing-token"}},
		{
			"wrong-audience",
			"GET",
			private.path,
			mint(r.issuer, map[string]any{"aud": "other"}),
			map[string]any{
				"operation": private.id, "status": 401.0, "subject": nil, "code": "audience",
				"cause": `authz: invalid-token: token: audience: audience is "other", expected "https://api.example"`},
		},
		{"not-found", "GET", "/no/such", "", map[string]any{
			"path": "/no/such", "operation": nil, "status": 404.0, "outcome": "refused",
			"cause": "authz: not-found", "code": "not-found"}},
		{"probe", "GET", "/healthz", "", map[string]any{
			"level": "DEBUG", "path": "/healthz", "operation": nil, "status": 200.0, "bytes": 16.0}},
	}
	for _, test := range tests {
		t.Run(test.id, func(t *testing.T) {
			headers := []string{"X-Request-Id", test.id}
			if test.authorization != "" {
				headers = append(headers, "Authorization", "Bearer "+test.authorization)
			}
			got := r.ask(t, test.method, test.path, headers...)
			entry := r.log.request(t, test.id)
			for key, want := range test.want {
				if entry[key] != want {
					t.Errorf("%s is %#v, want %#v, in %v", key, entry[key], want, entry)
				}
			}
			if entry["bytes"] != float64(len(got.body)) || entry["duration_ms"].(float64) < 0 {
				t.Errorf("bytes is %v for a body of %d, duration_ms %v", entry["bytes"],
					len(got.body), entry["duration_ms"])
			}
		})
	}
}

// Misplaced tokens are not logged, either.
func TestTokensAreNotLogged(t *testing.T) {
	r := start(t, nil)
	token := mint(r.issuer, map[string]any{"sub": "alice"})
	forged := mint(r.issuer, map[string]any{"exp": 1})
	r.ask(t, "GET", private.path, "Authorization", "Bearer "+token)
	r.ask(t, "GET", private.path, "Authorization", "Bearer "+forged)
	r.ask(t, "GET", private.path, "Authorization", "Bearer "+token+".x")
	r.ask(t, "GET", private.path, "Authorization", token)
	r.ask(t, "GET", private.path+"?access_token="+token)
	r.ask(t, "GET", private.path+"?access_token="+token, "Authorization", "Bearer "+token)
	r.ask(t, "GET", private.path+"/"+token)
	r.ask(t, "GET", "/"+token+"/private")
	r.ask(t, token[:200], private.path)
	r.ask(t, "GET", private.path, "X-Request-Id", token)
	r.ask(t, "GET", private.path, "Cookie", "access_token="+token, "Referer",
		"https://a.example/?t="+token)
	last := r.ask(t, "GET", "/healthz", "X-Request-Id", "last")
	r.log.request(t, last.header.Get("X-Request-Id"))
	for _, secret := range []string{token, forged} {
		for _, part := range strings.Split(secret, ".") {
			for at := 0; at+16 <= len(part); at += 16 {
				if piece := part[at : at+16]; strings.Contains(r.log.String(), piece) {
					t.Fatalf("the log contains %q, a part of a token:\n%s", piece, r.log)
				}
			}
		}
	}
}

// Values of requests cannot add lines to the log.
func TestLogLinesCannotBeForged(t *testing.T) {
	const forged = "x\n{\"msg\":\"request\"}\r\u2028\x1b[2Jlevel=ERROR"
	for format, handler := range map[string]func(io.Writer) slog.Handler{
		"json": func(w io.Writer) slog.Handler { return jsonlines.NewHandler(w, nil) },
		"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
	} {
		t.Run(format, func(t *testing.T) {
			var log logBuffer
			r := start(t, func(c *Config) { c.Logger = slog.New(handler(&log)) })
			token := mint(r.issuer, map[string]any{"sub": forged, "client_id": forged})
			if got := r.ask(t, "GET", private.path, "Authorization",
				"Bearer "+token); got.status != 200 {
				t.Fatalf("status %d: %s", got.status, got.body)
			}
			r.ask(t, "GET", private.path, "Authorization",
				"Bearer "+mint(r.issuer, map[string]any{"aud": forged}))
			r.ask(t, "GET", "/%0A%0D%1B%5B2J%7Bmsg%7D")
			r.ask(t, "GET", "/", "X-Request-Id", "a\tlevel=ERROR")
			// The lines of four requests, of the issuer and of its keys.
			eventually(t, "the log has six lines",
				func() bool { return strings.Count(log.String(), "\n") >= 6 })
			r.stop() // and no request is active
			if err := <-r.ended; err != nil {
				t.Error(err)
			}
			text := log.String()
			if lines := strings.Count(text, "\n"); lines != 4+2+1 { // and of the end
				t.Errorf("4 requests made %d lines:\n%s", lines, text)
			}
			if i := strings.IndexFunc(text, func(c rune) bool {
				return c < ' ' && c != '\n' || c == '\u2028' || c == 0x7f
			}); i >= 0 {
				t.Errorf("the log contains a control character at %d: %q", i,
					text[max(0, i-40):i+1])
			}
		})
	}
}

func TestPanics(t *testing.T) {
	r := startAnswering(t, func(echo.Context) error { panic("the secret of the handler") }, nil)
	got := r.call(t, "X-Request-Id", "panic")
	wantProblem(t, got, http.StatusInternalServerError)
	if strings.Contains(got.body, "secret") || strings.Contains(got.body, "goroutine") {
		t.Errorf("the client gets the panic: %s", got.body)
	}
	entry := r.log.request(t, "panic")
	stack, _ := entry["stack"].(string)
	if entry["level"] != "ERROR" || entry["status"] != 500.0 || entry["operation"] != private.id ||
		entry["cause"] != "authz: internal: panic: the secret of the handler" ||
		!strings.Contains(stack, "TestPanics") {
		t.Errorf("the log must say what panicked and where, it says %v", entry)
	}
	if got := r.ask(t, "GET", "/healthz"); got.status != http.StatusOK {
		t.Errorf("the server does not serve after a panic: %d", got.status)
	}
}

func TestPanicAfterResponseStarted(t *testing.T) {
	r := startAnswering(t, func(c echo.Context) error {
		_, _ = io.WriteString(c.Response(), "half of what")
		panic("too late")
	}, nil)
	request, _ := http.NewRequest("GET", r.url+private.path, nil)
	request.Header.Set("Authorization", "Bearer "+mint(r.issuer, nil))
	request.Header.Set("X-Request-Id", "late")
	response, err := http.DefaultTransport.RoundTrip(request)
	if err == nil {
		_, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	if err == nil {
		t.Errorf("the client takes half an answer for a whole one: the connection must be cut")
	}
	if entry := r.log.request(t, "late"); entry["cause"] != "authz: internal: panic: too late" ||
		entry["stack"] == nil {
		t.Errorf("the log does not say what became of the request: %v", entry)
	}
}

func TestHandlerError(t *testing.T) {
	r := startAnswering(t, func(echo.Context) error { return errors.New("disk on fire") }, nil)
	got := r.call(t, "X-Request-Id", "fails")
	wantProblem(t, got, http.StatusInternalServerError)
	if strings.Contains(got.body, "fire") {
		t.Errorf("the client gets the handler's error: %s", got.body)
	}
	if cause := r.log.request(t, "fails")["cause"]; cause != "disk on fire" {
		t.Errorf("cause is %v", cause)
	}
}

func TestHandlerErrorAfterResponseStarted(t *testing.T) {
	r := startAnswering(t, func(c echo.Context) error {
		_ = c.String(http.StatusOK, "half of what")
		return errors.New("disk on fire")
	}, nil)
	r.call(t, "X-Request-Id", "late")
	if entry := r.log.request(t, "late"); entry["cause"] != "disk on fire" ||
		entry["status"] != 200.0 {
		t.Errorf("the log must say why the answer is not whole, it says %v", entry)
	}
}

func TestHandlerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in here 20 s pass at once
		server, err := New(t.Context(), Config{
			Document: document(t), Logger: slog.New(slog.DiscardHandler),
			Issuers: []token.Issuer{
				{URL: "https://issuer.example/", Audiences: []string{testAudience}},
			},
			Routes: withHandler(func(c echo.Context) error {
				ctx := c.Request().Context()
				<-ctx.Done()
				return fmt.Errorf("looking for a greeting: %w", ctx.Err())
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequest("GET", public.path, nil))
		wantProblem(t, answer{w.Code, w.Header(), w.Body.String()}, http.StatusServiceUnavailable)
		if took := time.Since(begun); took != requestTimeout {
			t.Errorf("the handler was stopped after %s, want %s", took, requestTimeout)
		}
	})
}

// Each phase of a request has a time limit, and that of the handler leaves time for a response.
func TestSlowHeader(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the timeout")
	}
	t.Parallel()
	r := start(t, nil)
	conn := r.dial(t)
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	_ = conn.SetReadDeadline(time.Now().Add(watchdog))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the server waits for the other half of a header: %v", err)
	}
	if got := r.server.http.ReadHeaderTimeout; got != readHeaderTimeout {
		t.Errorf("headers have %s, want %s", got, readHeaderTimeout)
	}
	read, write := r.server.http.ReadTimeout, r.server.http.WriteTimeout
	if read >= requestTimeout || write <= requestTimeout {
		t.Errorf("bodies have %s, handlers %s, responses %s: the response could not be sent "+
			"before its timeout",
			read, requestTimeout, write)
	}
}

// The gate refuses tokens that are too long, as long as the headers are not.
func TestLongTokens(t *testing.T) {
	r := start(t, nil)
	for _, kib := range []int{8, 9, 20, 30} {
		got := r.ask(t, "GET", private.path, "Authorization",
			"Bearer "+strings.Repeat("a", kib<<10))
		wantProblem(t, got, http.StatusUnauthorized)
	}
	long := mint(r.issuer, map[string]any{"filler": strings.Repeat("a", 5000)})
	if got := r.ask(t, "GET", private.path, "Authorization",
		"Bearer "+long); got.status != http.StatusOK {
		t.Errorf("a genuine token of %d bytes is answered with %d: %s", len(long), got.status,
			got.body)
	}
	if got := r.ask(t, "GET", private.path, "Authorization", "Bearer "+strings.Repeat("a",
		64<<10)); got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB is answered with %d, want 431", got.status)
	}
}

func TestForwardedFor(t *testing.T) {
	trusting := start(t,
		func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	wary := start(t, nil)
	for _, test := range []struct {
		id, forwarded string
		server        *running
		want          string
	}{
		{"wary", "192.0.2.1", wary, "127.0.0.1"},
		{"one", "192.0.2.1", trusting, "192.0.2.1"},
		{"nearest-untrusted", "6.6.6.6, 192.0.2.1, 127.0.0.2", trusting, "192.0.2.1"},
		{"private-is-not-ours", "6.6.6.6, 10.0.0.1", trusting, "10.0.0.1"},
		{"garbage", "nonsense", trusting, "127.0.0.1"},
	} {
		test.server.ask(t, "GET", "/healthz", "X-Request-Id", test.id, "X-Forwarded-For",
			test.forwarded, "X-Real-IP", "6.6.6.6")
		if remote := test.server.log.request(t, test.id)["remote"]; remote != test.want {
			t.Errorf("%s: X-Forwarded-For %q is logged as %v, want %s", test.id, test.forwarded,
				remote, test.want)
		}
	}
}

func TestDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	finish := sync.OnceFunc(func() { close(leave) })
	defer finish()
	r := startAnswering(t, func(c echo.Context) error {
		close(entered)
		<-leave
		return c.String(http.StatusOK, "to the end")
	}, func(c *Config) { c.Linger = 2 * time.Second })
	answered := make(chan answer, 1)
	go func() {
		defer close(answered) // also if call fails
		answered <- r.call(t)
	}()
	<-entered
	eventually(t, "the server is ready",
		func() bool { return r.ask(t, "GET", "/readyz").status == http.StatusOK })

	r.stop()
	eventually(t, "/readyz says no while requests are still taken",
		func() bool { return r.ask(t, "GET", "/readyz").status == http.StatusServiceUnavailable })
	if got := r.ask(t, "GET", "/healthz"); got.status != http.StatusOK {
		t.Errorf("/healthz is %d while the server lingers: it is alive", got.status)
	}
	eventually(t, "the port is closed", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-r.ended:
		t.Fatalf("Serve returned %v during a request", err)
	default:
	}
	finish()
	if got := <-answered; got.status != http.StatusOK || got.body != "to the end" {
		t.Errorf("the active request got %d %q", got.status, got.body)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("Serve returned %v after a drain in which every request ended", err)
	}
}

// development is the dev issuer, and what it answers.
func development(t *testing.T) *devissuer.Issuer {
	t.Helper()
	issuer, err := devissuer.New(
		devissuer.Config{URL: "http://localhost/", Audiences: []string{testAudience}})
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func TestDevAnswersLoopbackOnly(t *testing.T) {
	r := start(t, func(c *Config) { c.InsecureIssuer = development(t) })
	for _, path := range []string{private.path, "/healthz", "/.well-known/jwks.json", "/nowhere"} {
		for _, host := range []string{"rebound.example", "rebound.example:3010",
			"localhost.rebound.example", "192.168.0.1:3010", "127.0.0.1.nip.example", ""} {
			got := r.raw(t, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			if got.status != http.StatusMisdirectedRequest {
				t.Errorf("GET %s of host %q is %d, want 421", path, host, got.status)
			}
		}
	}
	for _, host := range []string{"localhost", "LocalHost:3010", "127.0.0.1:1", "127.1.2.3",
		"[::1]:3010", "[::1]"} {
		if got := r.ask(t, "GET", "/.well-known/jwks.json", "Host",
			host); got.status != http.StatusOK {
			t.Errorf("host %q is %d, want 200", host, got.status)
		}
	}
	serving := start(t, nil)
	if got := serving.ask(t, "GET", "/healthz", "Host",
		"api.example"); got.status != http.StatusOK {
		t.Errorf("serve answers host api.example with %d, want 200", got.status)
	}
}

func TestOnlyDevExplains(t *testing.T) {
	dev := start(t, func(c *Config) { c.InsecureIssuer = development(t) })
	serving := start(t, nil)
	for _, r := range []*running{dev, serving} {
		foreign := mint(r.issuer, map[string]any{"aud": "https://other.example"})
		got := r.ask(t, "GET", private.path, "Authorization", "Bearer "+foreign)
		wantProblem(t, got, http.StatusUnauthorized)
		if explains := strings.Contains(got.body, "https://other.example"); explains != (r == dev) {
			t.Errorf("says why: %v, under dev: %v: %s", explains, r == dev, got.body)
		}
	}
}

// greedy serves a path of the document.
type greedy struct {
	http.Handler
	path string
}

func (g greedy) Serves(path string) bool { return path == g.path }

func TestUnreachableOperations(t *testing.T) {
	_, err := New(t.Context(), Config{
		Document: document(t), Routes: withHandler(greet),
		InsecureIssuer: greedy{path: private.path},
		Issuers: []token.Issuer{
			{URL: "https://issuer.example/", Audiences: []string{testAudience}},
		},
	})
	if want := "openapi: GET " + private.path +
		": the server uses this path itself: change the path of the operation"; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("fault is %v, want %s", err, want)
	}
}
