// Package echov5 guards an Echo v5 instance with an [authz.Gate]:
//
//	handler, err := echov5.Routes(gate, func(e *echo.Echo) { gen.RegisterHandlers(e, handlers) })
package echov5

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v5"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/echopath"
)

// Routes returns an Echo instance that the gate guards, with the routes that register adds. The
// error joins a fault for each route that the document does not describe, each operation without a
// route, and each path that Echo cannot route.
func Routes(g *authz.Gate, register func(*echo.Echo)) (http.Handler, error) {
	e := echo.New()
	e.HTTPErrorHandler = ErrorHandler(g)
	e.Use(Middleware(g))
	register(e)
	if err := CheckRoutes(g, e); err != nil {
		return nil, err
	}
	return e, nil
}

// Middleware guards a whole Echo instance: e.Use(echov5.Middleware(gate)). It decides by the route
// that Echo has matched, and refuses any that the document does not describe.
func Middleware(g *authz.Gate) echo.MiddlewareFunc {
	templates, _ := echopath.Templates(g) // CheckRoutes reports the faults
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c *echo.Context) error {
			var param func(string) string
			if len(c.PathValues()) > 0 {
				param = func(name string) string { return pathParam(c, name) }
			}
			r, err := g.Check(c.Request(), templates.Matched(c.Path(), matchedPath(c.Request())), param)
			if err != nil {
				return err
			}
			c.SetRequest(r)
			g.SetHeaders(c.Response().Header(), r)
			return next(c)
		}
	}
}

// ErrorHandler answers every error of an Echo instance with a problem document:
// e.HTTPErrorHandler = echov5.ErrorHandler(gate).
func ErrorHandler(g *authz.Gate) echo.HTTPErrorHandler {
	return func(c *echo.Context, err error) {
		if answer, _ := echo.UnwrapResponse(c.Response()); answer != nil && answer.Committed {
			if a, ok := authz.FromContext(c.Request().Context()); ok {
				a.Cause = err // for the log, though the client cannot be told
			}
			return
		}
		g.WriteProblem(c.Response(), c.Request(), err)
	}
}

// CheckRoutes compares the routes of a guarded instance with the document. Call it once all routes
// are registered, and do not start on an error, which joins an [*authz.Fault] for each fault.
func CheckRoutes(g *authz.Gate, e *echo.Echo) error {
	templates, faults := echopath.Templates(g)
	var routes []authz.Route
	for _, route := range e.Router().Routes() {
		routes = append(routes, templates.Route(g, route.Method, route.Path))
	}
	return errors.Join(append(faults, g.CheckRoutes(routes))...)
}

// matchedPath returns the path that Echo matches: the escaped one where the two differ.
func matchedPath(r *http.Request) string {
	if r.URL.RawPath != "" {
		return r.URL.RawPath
	}
	return r.URL.Path
}

// pathParam returns a path parameter unescaped. Echo matches the escaped path where the two differ.
func pathParam(c *echo.Context, name string) string {
	value := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return value
	}
	unescaped, err := url.PathUnescape(value)
	if err != nil {
		return value // impossible: net/http has parsed the path
	}
	return unescaped
}
