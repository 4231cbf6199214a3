package authz

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	urlpath "path"
	"slices"
	"strings"
)

// Mux is an [http.ServeMux] that guards each registered handler with a gate. Code that oapi-codegen
// generates for net/http accepts it as BaseRouter:
//
//	mux := gate.Mux()
//	gen.HandlerWithOptions(handlers, gen.StdHTTPServerOptions{
//		BaseRouter: mux, ErrorHandlerFunc: gate.WriteBindingProblem,
//	})
//	err := mux.CheckRoutes()
//
// Register all handlers before serving. Unlike an http.ServeMux, a Mux never redirects, a pattern
// of the document that ends in a slash matches only that path, and CheckRoutes reports invalid
// patterns, which do not panic.
type Mux struct {
	gates  Gates
	mux    *http.ServeMux
	routes []Route
	faults []error
	known  map[string]muxRoute // by anonymous path, with the base path
}

type muxRoute struct {
	gate     *Gate
	template string
}

// Mux returns a mux that the gate guards.
func (g *Gate) Mux() *Mux { return Gates{g}.Mux() }

// Mux returns a mux for several documents, each of which has a gate and a base path.
func (gs Gates) Mux() *Mux {
	m := &Mux{gates: gs, mux: http.NewServeMux(), known: map[string]muxRoute{}}
	m.mux.HandleFunc("/", m.unmatched)
	for _, g := range gs {
		for _, template := range slices.Sorted(maps.Keys(g.plan.paths)) {
			full := g.basePath + template
			m.known[anonymous(full)] = muxRoute{g, template}
			if trimmed := strings.TrimSuffix(full, "/"); trimmed != full && trimmed != "" {
				// Without this, http.ServeMux redirects.
				m.register(trimmed, http.HandlerFunc(m.unmatched))
			}
		}
	}
	return m
}

// HandleFunc registers a handler for a pattern such as "GET /v1/messages/{id}".
func (m *Mux) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(handler))
}

// Handle registers a handler for a pattern such as "GET /v1/messages/{id}".
func (m *Mux) Handle(pattern string, handler http.Handler) {
	method, full, ok := strings.Cut(pattern, " ")
	if !ok {
		method, full = "", pattern
	}
	known, ok := m.known[anonymous(full)]
	if !ok { // unguarded, or a fault
		m.routes = append(m.routes, Route{method, full})
		route := func(*http.Request) string { return method + " " + full }
		// the path itself is listed, not a prefix
		if strings.HasSuffix(full, "/") && !m.gates.unguarded(full+"x") {
			pattern += "{$}"
		}
		m.register(pattern, m.gates.At(full).Guard(handler, route, (*http.Request).PathValue))
		return
	}
	template := known.gate.basePath + known.template
	m.routes = append(m.routes, Route{method, template})
	if strings.HasSuffix(pattern, "/") {
		pattern += "{$}"
	}
	route := func(*http.Request) string { return known.template }
	guarded := known.gate.Guard(handler, route, pathValues(template, full))
	m.register(pattern, m.requireLiteral(template, guarded))
}

// register records a panic of http.ServeMux as a fault: the pattern is invalid, or conflicts with
// another.
func (m *Mux) register(pattern string, handler http.Handler) {
	defer func() {
		if reason := recover(); reason != nil {
			method, full, _ := strings.Cut(pattern, " ")
			problem := fmt.Sprintf("net/http cannot route it: %v", reason)
			m.faults = append(m.faults, &Fault{Method: method, Path: full, Problem: problem})
		}
	}()
	m.mux.Handle(pattern, handler)
}

// CheckRoutes compares the routes with the documents. Call it after all are registered, and do not
// serve if it fails. The error joins a [*Fault] for each fault.
func (m *Mux) CheckRoutes() error {
	return errors.Join(append(slices.Clone(m.faults), m.gates.CheckRoutes(m.routes))...)
}

// ServeHTTP serves the handler of the pattern that matches the request. Paths that are not clean
// match none: http.ServeMux would redirect them.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isClean(r.URL.EscapedPath()) {
		m.refuse(w, r, muxRoute{})
		return
	}
	m.mux.ServeHTTP(w, r)
}

// isClean reports whether http.ServeMux serves an escaped path without a redirect.
func isClean(escaped string) bool {
	if escaped == "/" {
		return true
	}
	cleaned := urlpath.Clean(escaped)
	return cleaned != "/" && cleaned[0] == '/' && cleaned == strings.TrimSuffix(escaped, "/")
}

// requireLiteral refuses a path that matches only after its literal segments are unescaped, because
// other routers do not match it.
func (m *Mux) requireLiteral(template string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawPath != "" && !isLiteral(template, r.URL.EscapedPath()) {
			m.refuse(w, r, muxRoute{})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLiteral(template, escaped string) bool {
	segments, values := strings.Split(template, "/"), strings.Split(escaped, "/")
	if len(segments) != len(values) {
		return false
	}
	for i, segment := range segments {
		if segment != values[i] && !strings.HasPrefix(segment, "{") {
			return false
		}
	}
	return true
}

// unmatched answers a request that matches no pattern: 405 if another method does, else 404.
func (m *Mux) unmatched(w http.ResponseWriter, r *http.Request) {
	for _, method := range m.methods() {
		other := r.WithContext(r.Context())
		other.Method = method
		_, pattern := m.mux.Handler(other)
		_, full, _ := strings.Cut(pattern, " ")
		known, ok := m.known[anonymous(full)]
		if ok && (r.URL.RawPath == "" || isLiteral(full, r.URL.EscapedPath())) {
			m.refuse(w, r, known)
			return
		}
	}
	m.refuse(w, r, muxRoute{})
}

func (m *Mux) methods() (all []string) {
	for _, route := range m.routes {
		if !slices.Contains(all, route.Method) {
			all = append(all, route.Method)
		}
	}
	return all
}

// refuse answers a request without a handler. The route is that of another method.
func (m *Mux) refuse(w http.ResponseWriter, r *http.Request, route muxRoute) {
	if route.gate == nil {
		route.gate = m.gates.At(r.URL.Path)
	}
	_, err := route.gate.Check(r, route.template, nil)
	if err == nil {
		err = errors.New("authz: no handler is registered for this operation: see Mux.CheckRoutes")
	}
	route.gate.WriteProblem(w, r, err)
}

// anonymous returns a path without the names of its parameters and the {$} of http.ServeMux.
func anonymous(full string) string {
	segments := strings.Split(strings.TrimSuffix(full, "{$}"), "/")
	for i, segment := range segments {
		if isParameter(segment) {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}

func isParameter(segment string) bool {
	return strings.HasPrefix(segment, "{") && strings.IndexByte(segment, '}') == len(segment)-1 &&
		!strings.HasSuffix(segment, "...}")
}

// pathValues returns a function for the values of the document's path parameters. Names that are
// not Go identifiers have other names in the pattern of http.ServeMux.
func pathValues(template, pattern string) func(*http.Request, string) string {
	names := map[string]string{}
	theirs := strings.Split(pattern, "/")
	for i, segment := range strings.Split(template, "/") {
		if segment != theirs[i] && isParameter(segment) {
			names[segment[1:len(segment)-1]] = theirs[i][1 : len(theirs[i])-1]
		}
	}
	if len(names) == 0 {
		return (*http.Request).PathValue
	}
	return func(r *http.Request, name string) string {
		if theirs, ok := names[name]; ok {
			name = theirs
		}
		return r.PathValue(name)
	}
}
