package authz

import (
	"context"
	"net/http"

	"github.com/oasgate/oasgate/authz/token"
)

// Admission is what a gate has found out about a request. It is the context in which the request goes on, so that
// [token.FromContext] finds the principal.
//
// A gate makes one of its own where there is none. A server makes it itself to know afterwards what was found, whether
// the request was let in or not:
//
//	found := &authz.Admission{Context: r.Context()}
//	handler.ServeHTTP(w, r.WithContext(found))
//	log.Info("request", "operation", found.Operation, "status", …)
type Admission struct {
	context.Context
	Operation *Operation       // nil: none of the document matches
	Principal *token.Principal // who sent it; nil: nobody was asked, or it is not known
}

type admissionKey struct{}

// FromContext returns what the gate has found out about the request of a context, if it has been at one.
func FromContext(ctx context.Context) (*Admission, bool) {
	a, ok := ctx.Value(admissionKey{}).(*Admission)
	return a, ok
}

// Value returns the principal to [token.FromContext], and the admission to [FromContext].
func (a *Admission) Value(key any) any {
	switch {
	case key == admissionKey{}:
		return a
	case key == token.ContextKey{} && a.Principal != nil:
		return a.Principal
	}
	return a.Context.Value(key)
}

// admission returns that of a request, or one of its own with the request that goes on in it.
func admission(r *http.Request) (*Admission, *http.Request) {
	if a, ok := FromContext(r.Context()); ok {
		return a, r
	}
	a := &Admission{Context: r.Context()}
	return a, r.WithContext(a)
}
