package main

import (
	"cmp"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/oasgate/oasgate/authz"
)

// newRouter returns a router whose own answers are problems. Register the operations of a gate with
// router.With(guard(gate)), which runs after chi has matched.
func newRouter(gates authz.Gates) *chi.Mux {
	router := chi.NewRouter()
	router.Use(middleware.GetHead) // HEAD as GET, where it is not declared
	refuse := func(w http.ResponseWriter, r *http.Request) {
		gate, pattern := gates.At(r.URL.Path), ""
		for _, method := range []string{"GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"} {
			if match := chi.NewRouteContext(); router.Match(match, method, cmp.Or(r.URL.RawPath, r.URL.Path)) {
				pattern = method + " " + match.RoutePattern()
			}
		}
		_, err := gate.Check(r, pattern, nil) // 405 with the methods of the pattern, or 404
		gate.WriteProblem(w, r, err)
	}
	router.NotFound(refuse)
	router.MethodNotAllowed(refuse)
	return router
}

func guard(gate *authz.Gate) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler { return gate.Guard(next, pattern, param) }
}

func pattern(r *http.Request) string {
	return r.Method + " " + chi.RouteContext(r.Context()).RoutePattern()
}

func param(r *http.Request, name string) string {
	value := chi.URLParam(r, name)
	if unescaped, err := url.PathUnescape(value); err == nil && r.URL.RawPath != "" { // what chi matches then
		return unescaped
	}
	return value
}

func checkRoutes(router chi.Routes, gates authz.Gates) error {
	var routes []authz.Route
	_ = chi.Walk(router, func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, authz.Route{Method: method, Path: path})
		return nil
	})
	return gates.CheckRoutes(routes)
}
