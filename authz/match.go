package authz

import (
	"errors"
	"net/http"
	"strings"
)

// match returns the operation of a request on the path that the router has matched.
func (g *Gate) match(r *http.Request, template string) (*operation, error) {
	path := g.plan.paths[template]
	if path == nil {
		return nil, &Error{Kind: NotFound}
	}
	op := path.methods[r.Method]
	if op == nil {
		return nil, &Error{Kind: MethodNotAllowed, Allow: path.allow}
	}
	return op, nil
}

// Route is a route of the program's router. Path is the document's path template with
// [Config.BasePath] in front of it, such as /v1/messages/{id}.
type Route struct{ Method, Path string }

// CheckRoutes compares the routes of a guarded router with the document. The error joins a
// [*Fault] for each route that the document does not describe and for each operation that no route
// serves. Adapters such as echov4 call it once all routes are registered.
func (g *Gate) CheckRoutes(routes []Route) error {
	var faults []error
	served := map[*operation]bool{}
	for _, route := range routes {
		op := g.operationAt(route)
		if op == nil {
			faults = append(faults, &Fault{Method: route.Method, Path: route.Path, Problem: "a route that the document does not describe: describe it, or serve it outside the guarded router"})
		}
		served[op] = true
	}
	for _, op := range g.plan.operations {
		if !served[op] {
			faults = append(faults, &Fault{Method: op.Method, Path: op.Path, Problem: "no route serves this operation: register its handler, under BasePath if that is set"})
		}
	}
	return errors.Join(faults...)
}

func (g *Gate) operationAt(route Route) *operation {
	template, ok := strings.CutPrefix(route.Path, g.basePath)
	if !ok || g.plan.paths[template] == nil {
		return nil
	}
	return g.plan.paths[template].methods[route.Method]
}
