package echov5_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/labstack/echo/v5"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov5"
	"github.com/oasgate/oasgate/authz/internal/routertest"
)

func TestRouter(t *testing.T) {
	routertest.Run(t, func(gates authz.Gates, routes []routertest.Route) (http.Handler, error) {
		e := echo.New()
		echov5.Guard(e, gates...)
		for _, route := range routes {
			pattern := strings.NewReplacer("{", ":", "}", "").Replace(route.Path)
			e.Add(route.Method, pattern, func(c *echo.Context) error {
				return route.Handler(c.Response(), c.Request(), func(name string) string {
					value, _ := url.PathUnescape(c.Param(name))
					if c.Request().URL.RawPath == "" {
						return c.Param(name)
					}
					return value
				})
			})
		}
		// Echo adds routes for unknown paths to a group that has a middleware.
		e.Group("/v3", func(next echo.HandlerFunc) echo.HandlerFunc { return next })
		return e, echov5.CheckRoutes(e, gates...)
	})
}
