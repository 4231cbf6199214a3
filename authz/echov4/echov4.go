// Package echov4 guards an Echo v4 instance with an [authz.Gate]:
//
//	handler, err := echov4.Routes(gate, func(e *echo.Echo) { gen.RegisterHandlers(e, handlers) })
package echov4

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/echopath"
)

// Routes returns an Echo instance that the gate guards, with the routes that register adds. The
// error joins a fault for each route that the document does not describe, each operation without a
// route, and each path that Echo cannot route.
func Routes(g *authz.Gate, register func(*echo.Echo)) (http.Handler, error) {
	e := echo.New()
	Guard(e, g)
	register(e)
	if err := CheckRoutes(e, g); err != nil {
		return nil, err
	}
	return e, nil
}

// Guard guards an Echo instance with a gate for each document that it serves. It adds [Middleware],
// sets [ErrorHandler], and routes HEAD like GET where a document does not declare it. Call it
// before registering routes, and [CheckRoutes] after.
//
// Unless the instance has its own Binder, it gets one that binds JSON bodies exactly as they were
// validated: bodies of any JSON media type, into a map without path parameters, and with an error
// that wraps io.EOF if an optional body is absent.
func Guard(e *echo.Echo, gates ...*authz.Gate) {
	e.HTTPErrorHandler = ErrorHandler(gates...)
	if _, ok := e.Binder.(*echo.DefaultBinder); ok {
		e.Binder = &binder{}
	}
	e.Use(Middleware(gates...))
	patterns, _ := echopath.Read(gates) // CheckRoutes reports the faults
	before := e.OnAddRouteHandler
	e.OnAddRouteHandler = func(
		host string, route echo.Route, handler echo.HandlerFunc, middleware []echo.MiddlewareFunc,
	) {
		if before != nil {
			before(host, route, handler, middleware)
		}
		if host == "" && route.Method == http.MethodGet && patterns.ImpliesHEAD(route.Path) {
			e.Add(http.MethodHead, route.Path, handler, middleware...)
		}
	}
}

// Middleware guards a whole Echo instance: e.Use(echov4.Middleware(gate)). It decides by the route
// that Echo has matched, and refuses routes that no document describes. Without [Guard], the
// program must route HEAD.
func Middleware(gates ...*authz.Gate) echo.MiddlewareFunc {
	patterns, _ := echopath.Read(gates) // CheckRoutes reports the faults
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			var param func(string) string
			if len(c.ParamNames()) > 0 {
				param = func(name string) string { return pathParam(c, name) }
			}
			r := c.Request()
			g, route := patterns.Matched(gates, c.Path(), r, func() bool { return isRoute(c) })
			admitted, err := g.Check(r, route, param)
			if err != nil {
				return err
			}
			response := c.Response()
			c.SetRequest(admitted)
			g.SetHeaders(response.Header(), admitted)
			defer func() { g.HandlePanic(c.Response(), r, recover(), c.Response().Committed) }()
			writer := response.Writer
			wrapped, done := g.WrapResponse(writer, admitted)
			response.Writer = wrapped
			defer func() {
				response.Writer = writer
				done()
			}()
			return next(c)
		}
	}
}

// binder is Echo's default binder, except for JSON bodies of admitted requests.
type binder struct {
	echo.DefaultBinder
	decoder echopath.Decoder
}

func (b *binder) Bind(v any, c echo.Context) error {
	text, ok := echopath.JSONBody(c.Request())
	if !ok {
		return b.DefaultBinder.Bind(v, c)
	}
	if reflect.TypeOf(v).Elem().Kind() == reflect.Struct { // Echo would add parameters to a map
		if err := b.BindPathParams(c, v); err != nil {
			return err
		}
		if c.Request().Method == http.MethodDelete { // as Echo does
			if err := b.BindQueryParams(c, v); err != nil {
				return err
			}
		}
	}
	return b.decoder.Decode(text, v)
}

// isRoute reports whether the matched path belongs to a route other than RouteNotFound.
func isRoute(c echo.Context) bool {
	return slices.ContainsFunc(c.Echo().Routes(), func(route *echo.Route) bool {
		return route.Path == c.Path() && route.Method != echo.RouteNotFound
	})
}

// ErrorHandler answers every error of an Echo instance with a problem document:
// e.HTTPErrorHandler = echov4.ErrorHandler(gate).
func ErrorHandler(gates ...*authz.Gate) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		r := c.Request()
		if c.Response().Committed {
			if a, ok := authz.FromContext(r.Context()); ok {
				a.Cause = err // for the log only: the response is already sent
			}
			return
		}
		authz.Gates(gates).At(r.URL.Path).WriteProblem(c.Response(), r, typed(err))
	}
}

// typed converts an error of Echo to an [authz.Error]. Its message is for the client if the program
// has written it, but not if it is the text of another error.
func typed(err error) error {
	if _, ok := errors.AsType[*authz.Error](err); ok {
		return err
	}
	if binding, ok := errors.AsType[*echo.BindingError](err); ok {
		detail := "The parameter " + binding.Field + " cannot be read."
		return &authz.Error{Kind: authz.InvalidParameter, Detail: detail, Err: err}
	}
	coded, ok := errors.AsType[*echo.HTTPError](err)
	if !ok {
		return err
	}
	message, _ := coded.Message.(string)
	return echopath.Typed(err, coded.Code, message, coded.Internal)
}

// CheckRoutes compares the routes of a guarded instance with the documents. Call it after
// registering all routes, and do not start on an error. The error joins an [*authz.Fault] for each
// fault.
func CheckRoutes(e *echo.Echo, gates ...*authz.Gate) error {
	patterns, faults := echopath.Read(gates)
	var routes []authz.Route
	for _, route := range e.Routes() {
		if route.Method != echo.RouteNotFound {
			routes = append(routes, patterns.Route(route.Method, route.Path))
		}
	}
	return errors.Join(append(faults, authz.Gates(gates).CheckRoutes(routes))...)
}

// pathParam returns a path parameter unescaped. Echo matches the escaped path where the two differ.
func pathParam(c echo.Context, name string) string {
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
