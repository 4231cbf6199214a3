package server

import (
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/oasgate/oasgate/authz"
)

// recoverPanic, deferred, answers a panic with a 500 that says nothing of it. If the answer has
// begun, it closes the connection instead, so that the client does not take half an answer for a
// whole one.
func recoverPanic(x *exchange, r *http.Request, gate *authz.Gate) {
	reason := recover()
	if reason == nil {
		return
	}
	if reason == http.ErrAbortHandler {
		panic(reason) // for net/http
	}
	x.stack = debug.Stack()
	err := &authz.Error{Kind: authz.Internal, Err: fmt.Errorf("panic: %v", reason)}
	if x.status != 0 {
		x.Cause = err
		panic(http.ErrAbortHandler)
	}
	gate.WriteProblem(x, r, err)
}
