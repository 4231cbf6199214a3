package server

import (
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/oasgate/oasgate/authz"
)

// recoverPanic must be deferred. It responds to a panic with a 500 without details. If the response
// has started, it closes the connection, so that the client notices that the response is
// incomplete.
func recoverPanic(x *exchange, r *http.Request, gate *authz.Gate) {
	reason := recover()
	if reason == nil {
		return
	}
	if reason == http.ErrAbortHandler {
		panic(reason) // net/http closes the connection
	}
	x.stack = debug.Stack()
	err := &authz.Error{Kind: authz.Internal, Err: fmt.Errorf("panic: %v", reason)}
	if x.status != 0 {
		x.Cause = err
		panic(http.ErrAbortHandler)
	}
	gate.WriteProblem(x, r, err)
}
