package impl

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/oasgate/oasgate/authz/devissuer"
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

// BenchmarkServer is one protected GET through all of the server but the connection: what stands around the gate costs
// the difference to authz's BenchmarkRequest.
func BenchmarkServer(b *testing.B) {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{testAudience}, Scopes: []string{"read:messages"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(issuer.Close)
	for name, log := range map[string]slog.Handler{"log off": slog.DiscardHandler, "log on": newJSONLines(io.Discard, nil)} {
		b.Run(name, func(b *testing.B) {
			config := ServerConfig{Logger: slog.New(log), Handlers: Handlers{}}
			config.Settings.Issuers = []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}}
			server, err := New(b.Context(), config)
			if err != nil {
				b.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, "/api/private-scoped", nil)
			r.Header.Set("Authorization", "Bearer "+issuer.Mint(map[string]any{"scope": "read:messages"}))
			w := &unread{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				if server.http.Handler.ServeHTTP(w, r); w.status != http.StatusOK {
					b.Fatalf("status is %d, expected 200", w.status)
				}
			}
		})
	}
}
