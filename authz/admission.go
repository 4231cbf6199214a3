package authz

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/oasgate/oasgate/authz/token"
)

// Admission is what a gate finds out about one request. It is the context in which the request goes
// on, so that [token.FromContext] finds the principal.
//
// The gate makes one for each request, also for a request that a handler sends through the gate
// within another. A server can make it instead, to log what was found about refused requests too:
//
//	found := &authz.Admission{Context: r.Context()}
//	handler.ServeHTTP(w, r.WithContext(found))
//	log.Info("request", "operation", found.Operation, "status", …)
type Admission struct {
	context.Context
	Operation *Operation // nil: the document has none that matches
	// Principal is the caller, also if refused; nil: anonymous, or not known. Where an alternative
	// demands several credentials, the caller is the access token's principal, because a token says
	// for whom and with which scopes a request is made, where a key or a certificate tells from
	// which machine. Without a token it is that of the first scheme by name: a security requirement
	// has no order.
	Principal *token.Principal
	// Limiter, if set by a server, applies the operation's Timeout to the request, before anything
	// else is done for it. Else the gate ends the request's context when the time is over.
	Limiter interface{ Limit(time.Duration) }
	Cause   error // of the answer that [Gate.WriteProblem] gave, for the log
	// Reported is why the request would have been refused without InsecureReport…; nil: it would
	// not.
	Reported *Error

	own      bool        // the gate has made it, so no server logs its Cause
	taken    atomic.Bool // by its request: one that a handler makes in its context gets another
	admitted bool        // until then, [token.FromContext] does not find the principal

	rate rate // of the caller

	raw []byte // the body as it was sent; see [RawBody]

	decision // of the gate
}

// decision is what authorize and the function that the validator calls share.
type decision struct {
	gate      *Gate
	request   *http.Request
	operation *operation
	input     openapi3filter.RequestValidationInput
	results   []result // by the operation's sources
	inline    [2]result
	next      int    // the way that the validator asks about
	asked     int    // how many of its conditions the validator has asked about
	satisfied *way   // nil: none yet
	refused   *Error // the nearest miss of the ways until now
	bad       *Error // the worst of the credentials until now
}

// result is what a source has said.
type result struct {
	known     bool
	principal *token.Principal
	err       error // errNoCredential or an *Error
}

// PrincipalOf returns the principal whose credential the security scheme of this name has accepted,
// in the alternative that let the request in; else nil. A handler needs it where an operation
// demands several credentials at once: [Admission.Principal] is one of them.
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

// Expiry returns when the first of the credentials that let the request in expires. It is zero if
// none does, or none was needed.
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

// FromContext returns what the gate found out about the request of a context.
func FromContext(ctx context.Context) (*Admission, bool) {
	a, ok := ctx.Value(admissionKey{}).(*Admission)
	return a, ok
}

// Value returns the admission to [FromContext]. To [token.FromContext] it returns the principal
// that was admitted, and hides any other that the context holds.
func (a *Admission) Value(key any) any {
	switch {
	case key == admissionKey{}:
		return a
	case key == token.ContextKey{} && a.taken.Load():
		if !a.admitted || a.Principal == nil { // not a nil *Principal, which would not be nil
			return nil
		}
		return a.Principal
	}
	return a.Context.Value(key)
}

// take reports whether the admission was free. It is then the caller's request's.
func (a *Admission) take() bool { return a.taken.CompareAndSwap(false, true) }

// admission returns the server's admission of the request, or a new one.
func admission(r *http.Request) *Admission {
	if a, ok := FromContext(r.Context()); ok && a.take() {
		return a
	}
	a := &Admission{Context: r.Context(), own: true}
	a.taken.Store(true)
	return a
}

// limit applies the timeout of the operation. The request's context ends with the request, and this
// one with it.
func (a *Admission) limit(r *http.Request, timeout time.Duration) *http.Request {
	switch {
	case a.Limiter != nil:
		a.Limiter.Limit(timeout)
	case timeout > 0:
		ctx, end := context.WithTimeout(r.Context(), timeout)
		context.AfterFunc(ctx, end)
		// a is to be the context of the handler
		if found, _ := FromContext(r.Context()); found != a {
			a.Context = ctx
		}
		return r.WithContext(ctx)
	}
	return r
}

// contextOf returns the context that a request has once it is admitted: its own where the admission
// is within it already.
func (a *Admission) contextOf(r *http.Request) context.Context {
	if found, _ := FromContext(r.Context()); found != a {
		return a
	}
	return r.Context()
}

// admit lets the request into the handler: it returns the request in whose context the handler
// finds the principal.
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
		own: a.own, admitted: true}
	other.results, other.satisfied, other.raw = a.results, a.satisfied, a.raw
	other.rate = a.rate
	other.taken.Store(true)
	return r.WithContext(other)
}
