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

// discard is a ResponseWriter that discards the response.
type discard struct {
	header http.Header
	status int
}

func (u *discard) Header() http.Header         { return u.header }
func (u *discard) WriteHeader(status int)      { u.status = status }
func (u *discard) Write(p []byte) (int, error) { return len(p), nil }

// message is the response of the handler.
type message struct{ Message string }

// served returns a function that sends one protected GET to the server, without a connection.
func served(tb testing.TB, log slog.Handler) (send func()) {
	issuer, err := devissuer.Start(
		devissuer.Config{Audiences: []string{testAudience}, Scopes: []string{scoped.scope}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(issuer.Close)
	server, err := New(tb.Context(), Config{
		Document: document(tb), Logger: slog.New(log),
		Routes: withHandler(
			func(c echo.Context) error { return c.JSON(http.StatusOK, message{greeting}) }),
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, scoped.path, nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Mint(map[string]any{"scope": scoped.scope}))
	w := &discard{header: http.Header{}}
	return func() {
		clear(w.header)
		if server.ServeHTTP(w, r); w.status != http.StatusOK {
			tb.Fatalf("status is %d, want 200", w.status)
		}
	}
}

var logs = map[string]slog.Handler{
	"log off": slog.DiscardHandler,
	"log on":  jsonlines.NewHandler(io.Discard, nil),
}

// BenchmarkServer measures one protected GET. The difference to BenchmarkRequest of package authz
// is the cost of the server around the gate.
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

// The limit is one more than measured.
func TestAllocations(t *testing.T) {
	if build, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates")
	}
	for name, log := range logs {
		send := served(t, log)
		send() // fetches the keys
		if got := testing.AllocsPerRun(500, send); got > 9 {
			t.Errorf(
				"%s: %v allocations per request, want at most 9: profile BenchmarkServer with -memprofile",
				name, got)
		}
	}
}
