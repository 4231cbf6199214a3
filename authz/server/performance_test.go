package server

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/internal/jsonlines"
	"github.com/oasgate/oasgate/authz/token"
)

// unread is where answers go that nobody reads.
type unread struct {
	header http.Header
	status int
}

func (u *unread) Header() http.Header         { return u.header }
func (u *unread) WriteHeader(status int)      { u.status = status }
func (u *unread) Write(p []byte) (int, error) { return len(p), nil }

// message is what the handler answers.
type message struct{ Message string }

// served returns what sends one protected GET through all of the server but the connection, and
// expects a 200.
func served(tb testing.TB, log slog.Handler) (send func()) {
	issuer, err := devissuer.Start(
		devissuer.Config{Audiences: []string{testAudience}, Scopes: []string{scoped.scope}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(issuer.Close)
	server, err := New(tb.Context(), Config{
		Document: document(tb), Logger: slog.New(log),
		Routes: answering(
			func(c echo.Context) error { return c.JSON(http.StatusOK, message{greeting}) }),
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, scoped.path, nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Mint(map[string]any{"scope": scoped.scope}))
	w := &unread{header: http.Header{}}
	return func() {
		clear(w.header)
		if server.ServeHTTP(w, r); w.status != http.StatusOK {
			tb.Fatalf("status is %d, expected 200", w.status)
		}
	}
}

var logs = map[string]slog.Handler{
	"log off": slog.DiscardHandler,
	"log on":  jsonlines.NewHandler(io.Discard, nil),
}

// BenchmarkServer is one protected GET: what stands around the gate costs the difference to authz's
// BenchmarkRequest.
func BenchmarkServer(b *testing.B) {
	for name, log := range logs {
		b.Run(name, func(b *testing.B) {
			send := served(b, log)
			b.ReportAllocs()
			for b.Loop() {
				send()
			}
		})
	}
}

// The ceiling is what is measured, and one more. A change that breaks it has put work on every
// request.
func TestAllocationsOfTheServer(t *testing.T) {
	if build, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates on its own account")
	}
	for name, log := range logs {
		send := served(t, log)
		send() // the keys are fetched
		if got := testing.AllocsPerRun(500, send); got > 9 {
			t.Errorf(
				"%s: %v allocations a request, the ceiling is 9: profile BenchmarkServer with -memprofile",
				name, got)
		}
	}
}
