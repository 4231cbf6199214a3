package authz_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// stack is a complete server: http.Server on a loopback port, Echo, the gate, and a handler that
// records that it ran. Tokens are those of a development issuer, and are verified.
type stack struct {
	issuer *devissuer.Server
	gate   *authz.Gate
	echo   *echo.Echo
	addr   string

	verifications atomic.Int64
	connections   sync.Map // the client's address → *connection

	mu     sync.Mutex // guards what follows
	ran    []*run
	answer echo.HandlerFunc // what the handler does after it has recorded; nil: 204
	read   *counter         // the body of the request that is being served
}

// run is what a handler got.
type run struct {
	operation string
	principal *token.Principal
	params    map[string]string
	query     url.Values
	header    http.Header
	cookies   []*http.Cookie
	body      string
}

const audience = "https://tests.example/api"

// newIssuer starts an issuer with Ed25519 keys, which are made in no time.
func newIssuer(tb testing.TB) *devissuer.Server {
	tb.Helper()
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Algorithm: "EdDSA"})
	if err != nil {
		tb.Fatalf("devissuer.Start: %v", err)
	}
	tb.Cleanup(issuer.Close)
	return issuer
}

func newVerifier(tb testing.TB, issuer *devissuer.Server) *token.Verifier {
	tb.Helper()
	verifier, err := token.NewVerifier(tb.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatalf("token.NewVerifier: %v", err)
	}
	return verifier
}

func load(tb testing.TB, document string) *openapi3.T {
	tb.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		tb.Fatalf("the test's document does not load: %v", err)
	}
	return doc
}

// start serves a document. change, if not nil, changes the gate's configuration; use is what Echo
// runs before the gate.
func start(tb testing.TB, document string, change func(*authz.Config),
	use ...echo.MiddlewareFunc) *stack {
	tb.Helper()
	s := &stack{issuer: newIssuer(tb), echo: echo.New()}
	config := authz.Config{
		Document: load(tb, document), Logger: slog.New(slog.DiscardHandler),
		Verifier: counting{newVerifier(tb, s.issuer), &s.verifications},
	}
	if change != nil {
		change(&config)
	}
	gate, err := authz.New(config)
	if err != nil {
		tb.Fatalf("authz.New: %v", err)
	}
	s.gate = gate
	s.echo.Logger.SetOutput(io.Discard)
	s.echo.Use(use...)
	echov4.Guard(s.echo, gate)
	for _, o := range gate.Plan().Operations() {
		s.echo.Add(o.Method, config.BasePath+echoPath(o.Path), s.handle)
	}
	if err := echov4.CheckRoutes(s.echo, gate); err != nil {
		tb.Fatalf("CheckRoutes: %v", err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.addr = listener.Addr().String()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Body != http.NoBody {
				body := &counter{ReadCloser: r.Body}
				r.Body = body
				s.mu.Lock()
				s.read = body
				s.mu.Unlock()
			}
			s.echo.ServeHTTP(w, r)
		}),
		ReadTimeout:                  time.Minute,
		DisableGeneralOptionsHandler: true, // OPTIONS * is for the gate too
		ErrorLog:                     log.New(io.Discard, "", 0),
	}
	go func() { _ = server.Serve(listening{listener, s}) }()
	tb.Cleanup(func() { _ = server.Close() })
	return s
}

// echoPath converts a path template to Echo's syntax.
func echoPath(template string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(template)
}

// token returns a genuine token with the scopes.
func (s *stack) token(scopes string) string {
	return s.issuer.Mint(map[string]any{"scope": scopes})
}

func (s *stack) bearer(scopes string) string { return "Authorization: Bearer " + s.token(scopes) }

func (s *stack) handle(c echo.Context) error {
	r := c.Request()
	found, _ := authz.FromContext(r.Context())
	ran := &run{operation: found.Operation.ID, params: map[string]string{}, query: r.URL.Query(),
		header: r.Header, cookies: r.Cookies()}
	ran.principal, _ = token.FromContext(r.Context())
	for _, name := range c.ParamNames() {
		ran.params[name] = c.Param(name)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	ran.body = string(body)
	s.mu.Lock()
	s.ran = append(s.ran, ran)
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		return answer(c)
	}
	return c.NoContent(http.StatusNoContent)
}

// answering makes the handler respond like f.
func (s *stack) answering(f echo.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// answered is what a client received, and what the server did for it.
type answered struct {
	*http.Response
	body     []byte
	ran      *run  // nil: no handler ran
	verified int64 // how many tokens were verified
	read     int64 // bytes of the body that the application read
	received int64 // bytes that the server read from the connection, including the header
}

// send sends one request over a new connection. request is a method and a target, headers are
// lines.
func (s *stack) send(tb testing.TB, request, body string, headers ...string) *answered {
	tb.Helper()
	if body != "" && !slices.ContainsFunc(headers, func(h string) bool {
		return strings.HasPrefix(h, "Content-Length:") || strings.HasPrefix(h, "Transfer-Encoding:")
	}) {
		headers = append(headers, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return s.exchange(tb, request, strings.NewReader(body), headers...)
}

// exchange is like send, and sends a body until the server stops reading.
func (s *stack) exchange(tb testing.TB, request string, body io.Reader,
	headers ...string) *answered {
	tb.Helper()
	s.mu.Lock()
	s.ran, s.read = nil, &counter{}
	s.mu.Unlock()
	verifications := s.verifications.Load()

	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	head := request + " HTTP/1.1\r\n" + strings.Join(slices.Concat([]string{"Host: " + s.addr},
		headers, []string{"", ""}), "\r\n")
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// It fails when the server is not interested in the rest.
		_, _ = io.Copy(struct{ io.Writer }{conn}, io.MultiReader(strings.NewReader(head), body))
	}()
	method, _, _ := strings.Cut(request, " ")
	answers := bufio.NewReader(conn)
	response, err := http.ReadResponse(answers, &http.Request{Method: method})
	if err == nil && response.StatusCode == http.StatusContinue {
		response, err = http.ReadResponse(answers, &http.Request{Method: method})
	}
	if err != nil {
		tb.Fatalf("%s: no answer: %v (does the server read the body before it answers?)", request,
			err)
	}
	a := &answered{Response: response}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		tb.Fatalf("%s: the answer broke off: %v", request, err)
	}
	if c, ok := s.connections.Load(conn.LocalAddr().String()); ok {
		a.received = c.(*connection).received.Load()
	}
	_ = conn.Close()
	if waiting, ok := body.(io.Closer); ok {
		_ = waiting.Close()
	}
	<-sent

	s.mu.Lock()
	defer s.mu.Unlock()
	a.read, a.verified = s.read.n.Load(), s.verifications.Load()-verifications
	if len(s.ran) > 1 {
		tb.Fatalf("%s: %d handlers ran", request, len(s.ran))
	}
	if len(s.ran) == 1 {
		a.ran = s.ran[0]
	}
	return a
}

// submitted is a part of each invalid request. No response may contain it.
const submitted = "SUBMITTED"

// goText matches error texts of the libraries.
var goText = []string{
	"json:", "http:", "strconv", "invalid character", "EOF", "goroutine", ".go", "panic", "openapi3", "doesn't match", "Schema:", "Value:",
	"unmarshal", "decod", "parsing", "runtime error", "token:", "authz:", "echo", "0x", "eyJ",
}

// refused checks what all refusals have in common, and the status, the problem type and the
// challenge of this one ("" for none, several on one line each). It returns the detail.
func (a *answered) refused(tb testing.TB, status int, kind authz.Kind, challenge string) string {
	tb.Helper()
	if a.ran != nil {
		tb.Errorf("the handler of %s ran, want a refusal with %d", a.ran.operation, status)
	}
	return a.problem(tb, status, kind, challenge)
}

// problem is refused for a handler that ran.
func (a *answered) problem(tb testing.TB, status int, kind authz.Kind, challenge string) string {
	tb.Helper()
	if a.StatusCode != status {
		tb.Errorf("status is %d, want %d; the body is %s", a.StatusCode, status, a.body)
	}
	if got := a.Header.Values("WWW-Authenticate"); challenge == "" && got != nil ||
		challenge != "" && !slices.Equal(got, strings.Split(challenge, "\n")) {
		tb.Errorf("WWW-Authenticate is %q, want %q", got, challenge)
	}
	noStore := ""
	if status == 401 || status == 403 {
		noStore = "no-store"
	}
	for name, expected := range map[string]string{"Content-Type": "application/problem+json",
		"Cache-Control": noStore, "X-Content-Type-Options": "nosniff"} {
		if got := a.Header.Get(name); got != expected {
			tb.Errorf("%s is %q, want %q", name, got, expected)
		}
	}
	if after := a.Header.Get("Retry-After"); (after != "") != (kind == authz.KeysUnavailable ||
		kind == authz.ReplaysUnavailable || kind == authz.RateLimited || kind == authz.Timeout ||
		kind == authz.Unavailable) {
		tb.Errorf("Retry-After is %q on a problem of type %s", after, kind)
	}
	var problem struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Errors []authz.Violation
	}
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&problem); err != nil {
		tb.Fatalf("the body is not a problem document: %v: %q", err, a.body)
	}
	uri := authz.ProblemTypes + string(kind)
	if kind == authz.Other {
		uri = "about:blank"
	}
	if problem.Type != uri {
		tb.Errorf("problem type is %q, want %q", problem.Type, uri)
	}
	if problem.Status != a.StatusCode {
		tb.Errorf("the problem says status %d, the answer has %d", problem.Status, a.StatusCode)
	}
	if problem.Title == "" || problem.Detail == "" {
		tb.Errorf("the problem lacks a title or a detail: %s", a.body)
	}
	for _, leak := range append([]string{submitted}, goText...) {
		if strings.Contains(strings.ReplaceAll(string(a.body), authz.ProblemTypes, ""), leak) {
			tb.Errorf("the body contains %q: %s", leak, a.body)
		}
	}
	return problem.Detail
}

// passed checks that the handler of the operation ran, and answered.
func (a *answered) passed(tb testing.TB, operation string) *run {
	tb.Helper()
	if a.ran == nil || a.ran.operation != operation || a.StatusCode != http.StatusNoContent {
		tb.Fatalf("status is %d, want the handler of %s to run; the body is %s", a.StatusCode,
			operation, a.body)
	}
	return a.ran
}

// counting counts verifications.
type counting struct {
	authz.Verifier
	n *atomic.Int64
}

func (v counting) Verify(ctx context.Context, token string) (*token.Principal, error) {
	v.n.Add(1)
	return v.Verifier.Verify(ctx, token)
}

// counter counts the bytes of a body that are read. It does not count those that net/http drains,
// which connection does.
type counter struct {
	io.ReadCloser
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// repeated is n times the same bytes.
type repeated struct {
	bytes string
	n     int
	rest  string
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		r.n, r.rest = r.n-1, r.bytes
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

type listening struct {
	net.Listener
	stack *stack
}

func (l listening) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn}
	l.stack.connections.Store(conn.RemoteAddr().String(), c)
	return c, nil
}

type connection struct {
	net.Conn
	received atomic.Int64
}

func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}
