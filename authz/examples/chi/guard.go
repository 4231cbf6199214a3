package main

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"

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
		path := cmp.Or(r.URL.RawPath, r.URL.Path) // what chi matches
		for _, method := range strings.Fields("GET PUT POST PATCH DELETE HEAD OPTIONS TRACE") {
			if match := chi.NewRouteContext(); router.Match(match, method, path) {
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
	if r.URL.RawPath == "" {
		return value
	}
	unescaped, _ := url.PathUnescape(value) // net/http has parsed the path
	return unescaped
}

func checkRoutes(router chi.Routes, gates authz.Gates) error {
	var routes []authz.Route
	type middleware = func(http.Handler) http.Handler
	_ = chi.Walk(router, func(method, path string, _ http.Handler, _ ...middleware) error {
		routes = append(routes, authz.Route{Method: method, Path: path})
		return nil
	})
	return gates.CheckRoutes(routes)
}
