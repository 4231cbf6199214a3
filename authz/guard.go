package authz

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
)

// Guard returns a handler that calls next for the requests that the gate admits, and answers
// others, and panics of next, with problems. It must run after the router has matched and before
// anything reads the request. For route and param see [Gate.Check].
func (g *Gate) Guard(
	next http.Handler,
	route func(*http.Request) string,
	param func(r *http.Request, name string) string,
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &startedWriter{ResponseWriter: w}
		defer func() { g.HandlePanic(w, r, recover(), answer.started) }() // of hooks, too
		admitted, err := g.Check(r, route(r), func(name string) string { return param(r, name) })
		if err != nil {
			g.WriteProblem(w, r, err)
			return
		}
		g.SetHeaders(w.Header(), admitted)
		out := w // a server around the gate handles panics itself
		if _, carried := FromContext(r.Context()); !carried {
			out = answer
		}
		wrapped, done := g.WrapResponse(out, admitted)
		next.ServeHTTP(wrapped, admitted)
		done()
	})
}

// HandlePanic answers a panic of a handler with a problem without details. If the response has
// begun, it closes the connection instead, so that the client does not take a partial response for
// a complete one. Adapters defer it:
//
//	defer func() { gate.HandlePanic(w, r, recover(), begun) }()
//
// r is the request as it came to the gate. If its context has an [Admission], a server around the
// gate handles panics, and HandlePanic panics again.
func (g *Gate) HandlePanic(w http.ResponseWriter, r *http.Request, reason any, begun bool) {
	if reason == nil {
		return
	}
	if _, carried := FromContext(r.Context()); carried || reason == http.ErrAbortHandler {
		panic(reason)
	}
	err := &Error{Kind: Internal, Err: fmt.Errorf("panic: %v\n%s", reason, debug.Stack())}
	if begun {
		g.log(r, err)
		panic(http.ErrAbortHandler)
	}
	g.WriteProblem(w, r, err)
}

// startedWriter records whether a response has begun.
type startedWriter struct {
	http.ResponseWriter
	started bool
}

func (a *startedWriter) WriteHeader(status int) {
	a.started = a.started || status >= 200
	a.ResponseWriter.WriteHeader(status)
}

func (a *startedWriter) Write(p []byte) (int, error) {
	a.started = true
	return a.ResponseWriter.Write(p)
}

func (a *startedWriter) ReadFrom(src io.Reader) (int64, error) {
	a.started = true
	return io.Copy(a.ResponseWriter, src)
}

func (a *startedWriter) Flush() {
	a.started = true
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *startedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.started = true
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

func (a *startedWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }
