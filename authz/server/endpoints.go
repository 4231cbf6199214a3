package server

import (
	"context"
	"net/http"
	"regexp"
	"slices"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/docs"
)

const (
	healthPath = "/healthz"
	readyPath  = "/readyz"
)

// Issuer is a development issuer that runs with the API.
type Issuer interface {
	http.Handler
	Serves(path string) bool
}

// endpoints are the handlers of the server's own paths, except for the metadata.
type endpoints struct {
	gate   *authz.Gate
	ready  func(context.Context) error
	docs   *docs.Docs // nil: off
	beside []string   // the paths next to /docs that no operation has
	issuer Issuer     // nil: none
}

// handler returns the handler of a path, or nil if the path is not the server's own. It does not
// use [http.ServeMux], which would redirect some paths.
func (e *endpoints) handler(path string) http.Handler {
	switch {
	case path == healthPath:
		return e.probe(func(context.Context) error { return nil })
	case path == readyPath:
		return e.probe(e.ready)
	case e.docs != nil && (docs.Serves(path) || slices.Contains(e.beside, path)):
		return e.docs
	case e.issuer != nil && e.issuer.Serves(path):
		return e.issuer
	}
	return nil
}

// besideDocs returns the paths next to /docs that no operation has. Unlike the server's
// other paths, they give way to the document.
func besideDocs(gate *authz.Gate) []string {
	return slices.DeleteFunc(docs.OtherPaths(), func(path string) bool {
		return slices.ContainsFunc(gate.Plan().Operations(), func(o authz.Operation) bool {
			template := regexp.QuoteMeta(gate.BasePath() + o.Path)
			pattern := parameter.ReplaceAllString(template, "[^/]*")
			return regexp.MustCompile("^" + pattern + "$").MatchString(path)
		})
	})
}

// parameter is a path parameter in a template after [regexp.QuoteMeta].
var parameter = regexp.MustCompile(`\\{[^}]*\\}`)

// probe returns a handler that responds 200, or with the error of check.
func (e *endpoints) probe(check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			reads := []string{http.MethodGet, http.MethodHead}
			e.gate.WriteProblem(w, r, &authz.Error{Kind: authz.MethodNotAllowed, Allow: reads})
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
