// Package echopath translates between the path templates of OpenAPI, /messages/{id}, and the
// patterns of Echo's router, /messages/:id, for the adapters of its versions.
package echopath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/schema"
)

// Patterns maps Echo's patterns, including the base path, to the paths of documents.
type Patterns map[string]Path

// Path is a path of a document.
type Path struct {
	Gate     *authz.Gate
	Template string
}

// Read returns the patterns for the documents of gates, and an [*authz.Fault] for each operation
// that Echo cannot route.
func Read(gates authz.Gates) (p Patterns, faults []error) {
	p = Patterns{}
	for _, g := range gates {
		for _, o := range g.Plan().Operations() {
			pattern, err := pattern(o.Path)
			if err != nil {
				fault := &authz.Fault{Method: o.Method, Path: o.Path, Problem: err.Error()}
				faults = append(faults, fault)
				continue
			}
			p[g.BasePath()+pattern] = Path{g, o.Path}
		}
	}
	return p, faults
}

// pattern converts a path template to Echo's syntax, as oapi-codegen does.
func pattern(template string) (string, error) {
	segments := strings.Split(template, "/")
	for i, s := range segments {
		inner, opened := strings.CutPrefix(s, "{")
		name, closed := strings.CutSuffix(inner, "}")
		switch {
		case opened && closed && !strings.ContainsAny(name, "{}"):
			segments[i] = ":" + name
		case strings.ContainsAny(s, "{}*\\"):
			return "", fmt.Errorf("path segment %s cannot be routed by Echo: a parameter must be "+
				"a whole segment, and * has a meaning in Echo's patterns", s)
		default:
			segments[i] = strings.ReplaceAll(s, ":", `\:`)
		}
	}
	return strings.Join(segments, "/"), nil
}

// Route converts an Echo route for [authz.Gate.CheckRoutes].
func (p Patterns) Route(method, pattern string) authz.Route {
	if known, ok := p[pattern]; ok {
		pattern = known.Gate.BasePath() + known.Template
	}
	return authz.Route{Method: method, Path: pattern}
}

// Matched returns the gate and the route for [authz.Gate.Check], given the pattern that Echo has
// matched. registered reports whether the pattern belongs to a route other than RouteNotFound.
func (p Patterns) Matched(
	gates authz.Gates, pattern string, r *http.Request, registered func() bool,
) (*authz.Gate, string) {
	path := r.URL.Path
	if r.URL.RawPath != "" { // Echo matches it if set
		path = r.URL.RawPath
	}
	known, ok := p[pattern]
	switch {
	case ok && (path == pattern || segmentwise(pattern, path)):
		return known.Gate, known.Template
	case !ok && pattern != "" && registered():
		return gates.At(path), r.Method + " " + pattern
	}
	return gates.At(path), ""
}

// ImpliesHEAD reports whether HEAD is answered as GET at a pattern.
func (p Patterns) ImpliesHEAD(pattern string) bool {
	known, ok := p[pattern]
	return ok && known.Gate.ImpliesHEAD(known.Gate.BasePath()+known.Template)
}

// Typed converts an Echo error to an [authz.Error]. Its message is for the client, unless it is the
// text of the wrapped error or the error is the server's fault.
func Typed(err error, code int, message string, wrapped error) error {
	_, tooLarge := errors.AsType[*http.MaxBytesError](wrapped)
	if tooLarge || errors.Is(wrapped, context.DeadlineExceeded) ||
		errors.Is(wrapped, context.Canceled) {
		return wrapped // it is more specific
	}
	foreign := wrapped != nil && strings.Contains(message, wrapped.Error())
	if code == http.StatusBadRequest {
		binding := authz.BindingError(errors.New(message))
		if binding.Err = err; foreign || binding.Kind == authz.InvalidParameter {
			return binding
		}
	}
	switch {
	case code < 400 || code > 599:
		return &authz.Error{Kind: authz.Internal, Err: err}
	case foreign, code >= 500, message == http.StatusText(code):
		message = ""
	}
	return authz.StatusError(code, message, err)
}

// JSONBody returns the body of an admitted request if the operation accepts JSON. It is empty if no
// body was sent.
func JSONBody(r *http.Request) (text []byte, ok bool) {
	body, ok := r.Body.(*schema.JSONBody)
	if !ok {
		return nil, false
	}
	return body.Text, true
}

// Decoder binds what [JSONBody] returns. Its zero value is ready to use.
type Decoder struct{ schema.Decoder }

// Decode binds a text. The error wraps io.EOF if the text is empty, which generated code treats as
// an absent optional body.
func (d *Decoder) Decode(text []byte, v any) error {
	err := io.EOF
	if len(text) > 0 {
		err = d.Decoder.Decode(text, v)
	}
	if err != nil {
		const detail = "The body cannot be read as its schema says."
		return &authz.Error{Kind: authz.InvalidBody, Detail: detail, Err: err}
	}
	return nil
}

// segmentwise reports whether each parameter of the matched pattern is exactly one segment of the
// path, as in OpenAPI. Echo matches the rest of the path with the last parameter, allows an empty
// parameter in the middle, and sets no parameters if no route has the method.
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
