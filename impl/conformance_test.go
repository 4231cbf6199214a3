package impl

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
)

// panics answers every operation there is or will be, by a panic: the log then tells that it was
// called.
type panics struct{ gen.StrictServerInterface }

// TestConformance tests that the whole server enforces openapi.yaml. The cases are generated from
// the document, so new operations need no change here.
func TestConformance(t *testing.T) {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{testAudience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	var log logBuffer
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	serve := func() http.Handler {
		s, err := server.New(t.Context(), server.Config{
			Document: document, Routes: Routes(panics{}),
			Logger:  slog.New(slog.NewTextHandler(&log, nil)),
			Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	keyless := serve()
	authztest.Run(t, authztest.Target{
		Document: document,
		Handler:  serve(),
		Outage: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			issuer.Fail(devissuer.Fault{Down: true})
			defer issuer.Fail(devissuer.Fault{})
			keyless.ServeHTTP(w, r)
		}),
		Tokens: authztest.Issued(issuer.Issuer),
		Calls:  func() int { return strings.Count(log.String(), "nil pointer dereference") },
	})
}
