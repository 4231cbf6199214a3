package authz

import (
	"context"
	"sync/atomic"

	"github.com/oasgate/oasgate/authz/token"
)

// Admission is what a gate has found out about a request. It is the context in which the request goes on, so that
// [token.FromContext] finds the principal.
//
// A gate makes one for each request that it lets in, also for one that a handler makes within another. A server makes it
// itself to know what was found of the others, too, and to spare the gate a copy of the request:
//
//	found := &authz.Admission{Context: r.Context()}
//	handler.ServeHTTP(w, r.WithContext(found))
//	log.Info("request", "operation", found.Operation, "status", …)
type Admission struct {
	context.Context
	Operation *Operation       // nil: none of the document matches
	Principal *token.Principal // who sent it, or was refused; nil: nobody was asked, or it is not known

	taken    atomic.Bool // by its request: one that a handler makes of it, in its context, gets an admission of its own
	admitted bool        // before that, the principal is not for [token.FromContext]
}

type admissionKey struct{}

// FromContext returns what the gate has found out about the request of a context, if it has been at one.
func FromContext(ctx context.Context) (*Admission, bool) {
	a, ok := ctx.Value(admissionKey{}).(*Admission)
	return a, ok
}

// Value returns the admission to [FromContext], and to [token.FromContext] the principal that was let in, and no other that
// the context has from elsewhere.
func (a *Admission) Value(key any) any {
	switch {
	case key == admissionKey{}:
		return a
	case key == token.ContextKey{} && a.taken.Load():
		if !a.admitted || a.Principal == nil { // not a nil *Principal, which would be one
			return nil
		}
		return a.Principal
	}
	return a.Context.Value(key)
}

func newAdmission(ctx context.Context) *Admission {
	a := &Admission{Context: ctx}
	a.taken.Store(true)
	return a
}
