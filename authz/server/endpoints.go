package server

import (
	"context"
	"net/http"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/docs"
)

const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// Issuer is a development issuer beside the API.
type Issuer interface {
	http.Handler
	Serves(path string) bool
}

// endpoints are what the server answers beside the document's operations and the metadata.
type endpoints struct {
	gate   *authz.Gate
	ready  func(context.Context) error
	docs   *docs.Docs // nil: off
	issuer Issuer     // nil: none
}

// handler returns the handler of a path, or nil if the path is the API's. It compares paths as they
// are: [http.ServeMux] would redirect some.
func (e *endpoints) handler(path string) http.Handler {
	switch {
	case path == healthPath:
		return e.probe(func(context.Context) error { return nil })
	case path == readyPath:
		return e.probe(e.ready)
	case e.docs != nil && docs.Serves(path):
		return e.docs
	case e.issuer != nil && e.issuer.Serves(path):
		return e.issuer
	}
	return nil
}

// probe answers 200, or the error that check returns.
func (e *endpoints) probe(check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			get := []string{http.MethodGet}
			e.gate.WriteProblem(w, r, &authz.Error{Kind: authz.MethodNotAllowed, Allow: get})
			return
		}
		if err := check(r.Context()); err != nil {
			e.gate.WriteProblem(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
	}
}
