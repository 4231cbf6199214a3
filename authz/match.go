package authz

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// match returns the operation of a request. For route see [Gate.Check].
func (g *Gate) match(r *http.Request, route string) (*operation, error) {
	if route == "" {
		return nil, &Error{Kind: NotFound}
	}
	path := g.plan.paths[route]
	if path == nil {
		if path = g.pathOf(route); path == nil {
			return nil, &Error{Kind: Internal, Err: fmt.Errorf("authz: the router matched %s, "+
				"which the document does not describe: check the routes at start (CheckRoutes), "+
				"and list other paths in Config.InsecureUnguarded", route)}
		}
	}
	if op := path.operation(r.Method); op != nil {
		return op, nil
	}
	return nil, &Error{Kind: MethodNotAllowed, Allow: path.allowed()}
}

// pathOf returns the path of a pattern with a method and the base path, or nil.
func (g *Gate) pathOf(pattern string) *path {
	_, full, ok := strings.Cut(pattern, " ")
	if !ok {
		return nil
	}
	template, ok := strings.CutPrefix(full, g.basePath)
	if !ok {
		return nil
	}
	return g.plan.paths[template]
}

// operation returns the operation of a method, or nil. HEAD is handled as GET if the document does
// not declare it (RFC 9110 §9.3.2).
func (p *path) operation(method string) *operation {
	op := p.methods[method]
	if op == nil && method == http.MethodHead {
		op = p.methods[http.MethodGet]
	}
	return op
}

// ImpliesHEAD reports whether the gate handles HEAD as GET at the path of a route, because the
// document declares GET and not HEAD. Adapters of routers that do not route HEAD to GET add a
// route.
func (g *Gate) ImpliesHEAD(route string) bool {
	path := g.pathOf(http.MethodHead + " " + route)
	if path == nil || path.methods[http.MethodGet] == nil {
		return false
	}
	return path.methods[http.MethodHead] == nil
}

// allowed returns the methods of a path for an Allow header (RFC 9110 §10.2.1), sorted.
func (p *path) allowed() []string {
	if p.methods[http.MethodGet] == nil || p.methods[http.MethodHead] != nil {
		return p.allow
	}
	all := append(slices.Clone(p.allow), http.MethodHead)
	slices.Sort(all)
	return all
}

// Route is a route of the program's router. Path is the document's path template with
// [Config.BasePath] in front of it, such as /v1/messages/{id}.
type Route struct{ Method, Path string }

// CheckRoutes compares the routes of a guarded router with the document. The error joins a
// [*Fault] for each route that the document does not describe and for each operation that no route
// serves. Adapters such as echov4 call it once all routes are registered.
func (g *Gate) CheckRoutes(routes []Route) error { return Gates{g}.CheckRoutes(routes) }

// Gates are the gates of one server, each for a document under its own base path.
type Gates []*Gate

// At returns the gate with the longest base path that contains a path, or the first gate if there
// is none. It answers the requests that match no route.
func (gs Gates) At(path string) *Gate {
	at := gs[0]
	longest := -1
	for _, g := range gs {
		rest, under := strings.CutPrefix(path, g.basePath)
		if under && (rest == "" || rest[0] == '/') && len(g.basePath) > longest {
			at, longest = g, len(g.basePath)
		}
	}
	return at
}

// CheckRoutes compares the routes of one router with the documents of all gates, as
// [Gate.CheckRoutes] does.
func (gs Gates) CheckRoutes(routes []Route) error {
	var faults []error
	fault := func(method, path, problem string) {
		faults = append(faults, &Fault{Method: method, Path: path, Problem: problem})
	}
	served := map[*operation]bool{}
	for _, route := range routes {
		ops := gs.operationsAt(route)
		switch {
		case len(ops) > 1:
			fault(route.Method, route.Path,
				"two documents describe this route: give each its own Config.BasePath")
		case len(ops) == 0 && !gs.unguarded(route.Path):
			fault(route.Method, route.Path, "a route that the document does not describe: "+
				"describe it, or list its path in Config.InsecureUnguarded")
		}
		for _, op := range ops {
			if op.Method == route.Method { // a HEAD route does not serve GET
				served[op] = true
			}
		}
	}
	for _, g := range gs {
		for _, op := range g.plan.operations {
			if !served[op] {
				fault(op.Method, op.Path, "no route serves this operation: "+
					"register its handler, under BasePath if that is set")
			}
		}
		for _, other := range gs {
			if other != g {
				faults = append(faults, g.overlaps(other.unguarded)...)
			}
		}
	}
	return errors.Join(faults...)
}

func (gs Gates) operationsAt(route Route) (ops []*operation) {
	for _, g := range gs {
		if path := g.pathOf(route.Method + " " + route.Path); path != nil {
			if op := path.operation(route.Method); op != nil {
				ops = append(ops, op)
			}
		}
	}
	return ops
}

func (gs Gates) unguarded(path string) bool {
	return slices.ContainsFunc(gs, func(g *Gate) bool { return g.unguarded.has(path) })
}

// unguarded are the paths of [Config.InsecureUnguarded]. One that ends in /* is a prefix.
type unguarded []string

// has reports whether the path of a route is listed.
func (u unguarded) has(path string) bool {
	for _, listed := range u {
		prefix, open := strings.CutSuffix(listed, "*")
		if path == listed || open && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// check returns a fault for each malformed path.
func (u unguarded) check() (faults []error) {
	for _, listed := range u {
		path := listed
		if strings.HasSuffix(listed, "/*") {
			path = strings.TrimSuffix(listed, "*")
		}
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "*{}? ") {
			faults = append(faults, fmt.Errorf("authz: Config.InsecureUnguarded has %q: "+
				"expected a path such as /metrics, or a prefix such as /static/*", listed))
		}
	}
	return faults
}

// overlaps returns a fault for each path of the document that may match the same requests as an
// unguarded path.
func (g *Gate) overlaps(u unguarded) (faults []error) {
	for template := range g.plan.paths {
		for _, listed := range u {
			if overlap(g.basePath+template, listed) {
				faults = append(faults, &Fault{Path: template, Problem: fmt.Sprintf(
					"Config.InsecureUnguarded has %s, which overlaps with this path of the "+
						"document: it would be unguarded too", listed)})
			}
		}
	}
	return faults
}

func overlap(template, listed string) bool {
	prefix, open := strings.CutSuffix(listed, "/*")
	segments, others := strings.Split(template, "/"), strings.Split(prefix, "/")
	if open && len(segments) <= len(others) || !open && len(segments) != len(others) {
		return false
	}
	for i, other := range others {
		if segments[i] != other && !strings.Contains(segments[i], "{") {
			return false
		}
	}
	return true
}
