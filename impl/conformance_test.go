package impl

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
)

// panics answers every operation there is or will be, by a panic: the log then tells that it was called.
type panics struct{ gen.StrictServerInterface }

// TestConformance: the whole server enforces openapi.yaml, operation by operation. The cases come from the document: a
// new operation needs nothing here.
func TestConformance(t *testing.T) {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{testAudience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	var log logBuffer
	server := func() http.Handler {
		config := ServerConfig{Handlers: panics{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		config.Settings.Issuers = []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}}
		s, err := New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		return s.http.Handler
	}
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	keyless := server()
	authztest.Run(t, authztest.Target{
		Document: document,
		Handler:  server(),
		Outage: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			issuer.Fail(devissuer.Fault{Down: true})
			defer issuer.Fail(devissuer.Fault{})
			keyless.ServeHTTP(w, r)
		}),
		Tokens: authztest.Issued(issuer.Issuer),
		Calls:  func() int { return strings.Count(log.String(), "nil pointer dereference") },
	})
}
