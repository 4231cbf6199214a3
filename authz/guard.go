package authz

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
)

// Guard returns a handler that passes on to next the requests that the gate admits, and answers all
// others, and panics of next, with problems. It must run after the router has matched and before
// anything reads the request: route and param are those of [Gate.Check].
func (g *Gate) Guard(
	next http.Handler,
	route func(*http.Request) string,
	param func(r *http.Request, name string) string,
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &answer{ResponseWriter: w}
		defer func() { g.HandlePanic(w, r, recover(), answer.begun) }() // of hooks, too
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
		held, done := g.HoldResponse(out, admitted)
		next.ServeHTTP(held, admitted)
		done()
	})
}

// HandlePanic answers a panic of a handler with a problem that says nothing of it. If the answer
// has begun, it closes the connection instead, so that the client does not take half an answer for
// a whole one. Adapters defer it:
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

// answer notes whether an answer has begun.
type answer struct {
	http.ResponseWriter
	begun bool
}

func (a *answer) WriteHeader(status int) {
	a.begun = a.begun || status >= 200
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

func (a *answer) ReadFrom(src io.Reader) (int64, error) {
	a.begun = true
	return io.Copy(a.ResponseWriter, src)
}

func (a *answer) Flush() {
	a.begun = true
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.begun = true
	return http.NewResponseController(a.ResponseWriter).Hijack()
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
