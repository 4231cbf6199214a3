package authz_test

import (
	"cmp"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
)

// templateRouter routes all path templates of OpenAPI, including those that http.ServeMux does not
// support, such as /files/{name}.{ext} and /things/{id}:activate.
type templateRouter struct {
	gate     *authz.Gate
	handlers map[string]http.Handler // by template
	routes   []templateRoute
}

type templateRoute struct {
	template string
	pattern  *regexp.Regexp // of the escaped path, with a group for each parameter
	names    []string
}

var templateParameter = regexp.MustCompile(`\{[^{}]+\}`)

// newTemplateRouter returns a router that guards one handler for all operations of the gate.
func newTemplateRouter(tb testing.TB, gate *authz.Gate, handler http.Handler) *templateRouter {
	tb.Helper()
	router := &templateRouter{gate: gate, handlers: map[string]http.Handler{}}
	var served []authz.Route
	for _, o := range gate.Plan().Operations() {
		served = append(served, authz.Route{Method: o.Method, Path: gate.BasePath() + o.Path})
		if router.handlers[o.Path] == nil {
			route := newTemplateRoute(o.Path)
			router.routes = append(router.routes, route)
			router.handlers[o.Path] = gate.Guard(handler,
				func(*http.Request) string { return o.Path }, route.param(gate.BasePath()))
		}
	}
	// A literal takes precedence over a parameter (OpenAPI 3.1 §4.8.8.1).
	slices.SortStableFunc(
		router.routes,
		func(a, b templateRoute) int { return cmp.Compare(b.rank(), a.rank()) },
	)
	if err := gate.CheckRoutes(served); err != nil {
		tb.Fatal(err)
	}
	return router
}

func newTemplateRoute(template string) templateRoute {
	route := templateRoute{template: template}
	pattern, at := "", 0
	for _, p := range templateParameter.FindAllStringIndex(template, -1) {
		pattern += regexp.QuoteMeta(template[at:p[0]]) + `([^/]+?)`
		route.names = append(route.names, template[p[0]+1:p[1]-1])
		at = p[1]
	}
	route.pattern = regexp.MustCompile("^" + pattern + regexp.QuoteMeta(template[at:]) + "$")
	return route
}

// rank returns a sort key: the later the first parameter, the greater.
func (r templateRoute) rank() string {
	return templateParameter.ReplaceAllString(r.template, "\x00")
}

func (r templateRoute) param(base string) func(*http.Request, string) string {
	return func(request *http.Request, name string) string {
		values := r.pattern.FindStringSubmatch(strings.TrimPrefix(request.URL.EscapedPath(), base))
		at := slices.Index(r.names, name)
		if at < 0 || values == nil {
			return ""
		}
		value, err := url.PathUnescape(values[at+1])
		if err != nil {
			return values[at+1]
		}
		return value
	}
}

func (router *templateRouter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, under := strings.CutPrefix(r.URL.EscapedPath(), router.gate.BasePath())
	known := ""
	for _, route := range router.routes {
		if !under || !route.pattern.MatchString(path) {
			continue
		}
		if known = route.template; router.takes(known, r.Method) {
			break
		}
	}
	if handler := router.handlers[known]; handler != nil {
		handler.ServeHTTP(w, r)
		return
	}
	_, err := router.gate.Check(r, "", nil)
	router.gate.WriteProblem(w, r, err)
}

func (router *templateRouter) takes(template, method string) bool {
	return slices.ContainsFunc(router.gate.Plan().Operations(), func(o authz.Operation) bool {
		return o.Path == template && o.Method == method
	})
}
