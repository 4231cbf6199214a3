// Package echopath translates between the path templates of OpenAPI, /messages/{id}, and the patterns
// of Echo's router, /messages/:id, for the adapters of its versions.
package echopath

import (
	"fmt"
	"strings"

	"github.com/oasgate/oasgate/authz"
)

// Patterns are the path templates of a document by the patterns that Echo has for them, with the
// base path in front.
type Patterns map[string]string

// Templates returns the patterns for a gate's document, and an [*authz.Fault] for each operation that
// Echo cannot route.
func Templates(g *authz.Gate) (p Patterns, faults []error) {
	p = Patterns{}
	for _, o := range g.Plan().Operations() {
		pattern, err := pattern(o.Path)
		if err != nil {
			faults = append(faults, &authz.Fault{Method: o.Method, Path: o.Path, Problem: err.Error()})
			continue
		}
		p[g.BasePath()+pattern] = o.Path
	}
	return p, faults
}

// pattern writes a path template as Echo does, and as oapi-codegen registers it.
func pattern(template string) (string, error) {
	segments := strings.Split(template, "/")
	for i, s := range segments {
		inner, opened := strings.CutPrefix(s, "{")
		name, closed := strings.CutSuffix(inner, "}")
		switch {
		case opened && closed && !strings.ContainsAny(name, "{}"):
			segments[i] = ":" + name
		case strings.ContainsAny(s, "{}:*"):
			return "", fmt.Errorf("path segment %s cannot be routed by Echo: a parameter must be "+
				"a whole segment, and : and * have a meaning in Echo's patterns", s)
		}
	}
	return strings.Join(segments, "/"), nil
}

// Route returns an Echo route as the gate compares it with the document.
func (p Patterns) Route(g *authz.Gate, method, pattern string) authz.Route {
	if template, ok := p[pattern]; ok {
		pattern = g.BasePath() + template
	}
	return authz.Route{Method: method, Path: pattern}
}

// Matched returns the path template of the pattern that Echo has matched with a path, or "" if the
// document has none.
func (p Patterns) Matched(pattern, path string) string {
	if path != pattern && !segmentwise(pattern, path) {
		return ""
	}
	return p[pattern]
}

// segmentwise reports whether each parameter of the matched pattern is exactly one segment of the
// path, as in OpenAPI. Echo lets the last parameter of a route match all the rest of the path, lets
// one in the middle be empty, and sets no parameters where no route has the method.
func segmentwise(pattern, path string) bool {
	for {
		segment, patternRest, further := strings.Cut(pattern, "/")
		value, pathRest, longer := strings.Cut(path, "/")
		if value == "" && strings.HasPrefix(segment, ":") {
			return false
		}
		if !further || !longer {
			return further == longer
		}
		pattern, path = patternRest, pathRest
	}
}
