package authz

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// Admission is the state of one request in a gate. It is also the context of the handler, in which
// [token.FromContext] finds the principal.
//
// The gate makes one for each request, including a request that a handler sends through the gate
// while it serves another. A server can make it instead, to log refused requests too:
//
//	found := &authz.Admission{Context: r.Context()}
//	handler.ServeHTTP(w, r.WithContext(found))
//	log.Info("request", "operation", found.Operation, "status", …)
type Admission struct {
	context.Context
	Operation *Operation // nil if no operation matches
	// Principal is the caller, also of a refused request; nil if anonymous or unknown. If an
	// alternative requires several credentials, the caller is the principal of the access token,
	// because keys and certificates often identify a machine only. Without a token it is the
	// principal of the first scheme by name, because a security requirement has no order.
	Principal *token.Principal
	// Limiter, if set by a server, applies the operation's Timeout to the request. Otherwise the
	// gate sets the deadline of the request's context.
	Limiter interface{ Limit(time.Duration) }
	Cause   error // the error that [Gate.WriteProblem] answered with, for the log
	// Reported is the reason why the request would have been refused without InsecureReport…, or
	// nil.
	Reported *Error

	gateMade bool        // made by the gate, so no server logs its Cause
	taken    atomic.Bool // in use by a request; nested requests get another one
	admitted bool        // until then, [token.FromContext] does not find the principal

	rate rate // of the caller

	raw []byte // the body as it was sent; see [RawBody]

	decision
}

// decision is the state that authorize shares with the callbacks of the validator.
type decision struct {
	gate      *Gate
	request   *http.Request
	operation *operation
	results   []result // by the operation's sources
	inline    [2]result
	next      int                  // the alternative that the validator is checking
	checked   int                  // how many of its conditions the validator has checked
	satisfied *compiledAlternative // nil: none yet
	refused   *Error               // the refusal closest to success so far
	bad       *Error               // the most severe credential error so far
}

// result is the result of one source.
type result struct {
	known     bool
	principal *token.Principal
	err       error // errNoCredential or an *Error
}

// PrincipalOf returns the principal of the named security scheme, or nil if the satisfied
// alternative does not have the scheme. Handlers need it if an operation requires several
// credentials: [Admission.Principal] is one of their principals.
func (a *Admission) PrincipalOf(scheme string) *token.Principal {
	if a.satisfied == nil {
		return nil
	}
	for _, c := range a.satisfied.conditions {
		if c.scheme.name == scheme {
			return a.results[c.source].principal
		}
	}
	return nil
}

// Expiry returns the earliest expiry of the credentials in the satisfied alternative. It is zero if
// none expires, or none was required.
func (a *Admission) Expiry() (first time.Time) {
	if a.satisfied == nil {
		return first
	}
	for _, c := range a.satisfied.conditions {
		p := a.results[c.source].principal
		if p == nil || p.Expiry().IsZero() {
			continue
		}
		if end := p.Expiry(); first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first
}

type admissionKey struct{}

// FromContext returns the admission of the request of a context.
func FromContext(ctx context.Context) (*Admission, bool) {
	a, ok := ctx.Value(admissionKey{}).(*Admission)
	return a, ok
}

// Value implements [context.Context]. It returns the admission for [FromContext], and the admitted
// principal for [token.FromContext], hiding any other principal in the context.
func (a *Admission) Value(key any) any {
	switch {
	case key == admissionKey{}:
		return a
	case key == token.ContextKey{} && a.taken.Load():
		if !a.admitted || a.Principal == nil { // an untyped nil
			return nil
		}
		return a.Principal
	}
	return a.Context.Value(key)
}

// take marks the admission as in use, and reports whether it was free.
func (a *Admission) take() bool { return a.taken.CompareAndSwap(false, true) }

// admission returns the server's admission of the request, or a new one.
func admission(r *http.Request) *Admission {
	if a, ok := FromContext(r.Context()); ok && a.take() {
		return a
	}
	a := &Admission{Context: r.Context(), gateMade: true}
	a.taken.Store(true)
	return a
}

// limit applies the timeout of the operation.
func (a *Admission) limit(r *http.Request, timeout time.Duration) *http.Request {
	switch {
	case a.Limiter != nil:
		a.Limiter.Limit(timeout)
	case timeout > 0:
		ctx, end := context.WithTimeout(r.Context(), timeout)
		context.AfterFunc(ctx, end)
		if a.gateMade { // a becomes the context of the handler
			a.Context = ctx
		}
		return r.WithContext(ctx)
	}
	return r
}

// contextOf returns the context of a request once it is admitted: its own if a server has put the
// admission into it.
func (a *Admission) contextOf(r *http.Request) context.Context {
	if a.gateMade {
		return a
	}
	return r.Context()
}

// admit returns the request for the handler, whose context holds the principal.
func (a *Admission) admit(r *http.Request) *http.Request {
	a.admitted = true
	if ctx := a.contextOf(r); ctx != r.Context() {
		return r.WithContext(ctx)
	}
	if p, _ := token.FromContext(r.Context()); p == a.Principal {
		return r
	}
	// A middleware between the server and the gate has put another principal into the context.
	other := &Admission{Context: r.Context(), Operation: a.Operation, Principal: a.Principal,
		gateMade: a.gateMade, admitted: true}
	other.results, other.satisfied, other.raw = a.results, a.satisfied, a.raw
	other.rate = a.rate
	other.taken.Store(true)
	return r.WithContext(other)
}
