package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/examples/internal/exampletest"
	"github.com/oasgate/oasgate/authz/internal/routertest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	m.Run()
}

func TestExample(t *testing.T) { exampletest.Run(t, newHandler) }

func TestRouter(t *testing.T) {
	routertest.Run(t, func(gates authz.Gates, routes []routertest.Route) (http.Handler, error) {
		r := newRouter(gates)
		for _, route := range routes {
			pattern := strings.NewReplacer("{", ":", "}", "").Replace(route.Path)
			handler := func(c *gin.Context) {
				if err := route.Handler(c.Writer, c.Request, c.Param); err != nil {
					r.refuse(c, err)
				}
			}
			if route.Method == http.MethodGet {
				r.GET(pattern, handler)
			} else {
				r.Handle(route.Method, pattern, handler)
			}
		}
		return r, r.checkRoutes()
	})
}
