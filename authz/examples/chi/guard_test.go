package main

import (
	"net/http"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/examples/internal/exampletest"
	"github.com/oasgate/oasgate/authz/internal/routertest"
)

func TestExample(t *testing.T) { exampletest.Run(t, newHandler) }

func TestRouter(t *testing.T) {
	routertest.Run(t, func(gates authz.Gates, routes []routertest.Route) (http.Handler, error) {
		router := newRouter(gates)
		for _, route := range routes {
			handler := func(w http.ResponseWriter, r *http.Request) {
				if err := route.Handler(w, r, func(name string) string {
					return param(r, name)
				}); err != nil {
					route.Gate.WriteProblem(w, r, err)
				}
			}
			if route.Gate == nil {
				router.MethodFunc(route.Method, route.Path, handler)
			} else {
				router.With(guard(route.Gate)).MethodFunc(route.Method, route.Path, handler)
			}
		}
		return router, checkRoutes(router, gates)
	})
}
