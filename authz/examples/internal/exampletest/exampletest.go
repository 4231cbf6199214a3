// Package exampletest tests that an example enforces its document.
package exampletest

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const audience = "https://orders.example"

// Start loads a document and starts an issuer for an audience.
func Start(t *testing.T, file, audience string) (*openapi3.T, *devissuer.Server) {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	return document, issuer
}

// Run runs the conformance kit, and one call of a handler.
func Run(
	t *testing.T, newHandler func(*openapi3.T, *token.Verifier) (http.Handler, error),
) {
	document, issuer := Start(t, "../openapi.yaml", audience)
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := newHandler(document, verifier)
	if err != nil {
		t.Fatal(err)
	}
	authztest.Run(t, authztest.Target{
		Document: document,
		Handler:  handler,
		Tokens:   authztest.Issued(issuer.Issuer),
	})

	r := httptest.NewRequest("GET", "/orders/7", nil)
	genuine := issuer.Mint(map[string]any{"sub": "alice", "scope": "read:orders"})
	r.Header.Set("Authorization", "Bearer "+genuine)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if body, _ := io.ReadAll(w.Body); w.Code != 200 || string(body) != "order 7, read by alice\n" {
		t.Errorf("getOrder answers %d %q", w.Code, body)
	}

	for path, want := range map[string]int{"/orders/x": 400, "/orders": 404, "/debug": 404} {
		r := r.Clone(t.Context())
		r.URL.Path = path
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		const problem = "application/problem+json"
		if got := w.Header().Get("Content-Type"); w.Code != want || got != problem {
			t.Errorf("%s answers %d as %s, expected %d as %s", path, w.Code, got, want, problem)
		}
	}
	r = httptest.NewRequest("DELETE", "/orders/7", nil)
	w = httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if w.Code != 405 || w.Header().Get("Allow") == "" {
		t.Errorf("DELETE answers %d, Allow %q, expected 405", w.Code, w.Header().Get("Allow"))
	}
}
