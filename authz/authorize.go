package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/oasgate/oasgate/authz/token"
)

// authorize lets kin-openapi's validator ask, for each alternative of the operation's security,
// whether the request satisfies it. The validator asks through [Gate.AuthenticationFunc], which
// authenticates at the first question. It leaves what it finds in the admission.
//
// One alternative that is satisfied is enough, whatever became of the others: a bad key beside a
// good token changes nothing. The alternative without a credential is the exception. It is for
// requests that have none, so a credential that is bad, or cannot be checked, is a refusal.
func (g *Gate) authorize(a *Admission, r *http.Request, op *operation) error {
	switch {
	case op.Denied != "":
		return &Error{Kind: Denied}
	case op.Public():
		return nil
	}
	a.begin(g, r, op)
	// No request: the validator reads all of its body before it asks for the credential.
	a.input = openapi3filter.RequestValidationInput{Route: op.route, Options: &g.security}
	err := openapi3filter.ValidateSecurityRequirements(a, &a.input, op.security)
	a.Principal = a.caller()
	switch {
	case err == nil && a.satisfied != nil:
		return nil
	case err == nil && op.Optional() && a.next == len(op.ways):
		// by {}, which the validator asks last and grants itself
		if a.bad != nil {
			return a.tell(a.bad)
		}
		if a.isForged() {
			a.Principal = nil // and nothing more than everybody may
		}
		return nil
	case err != nil && a.refused != nil && onlyUnsatisfied(err):
		return a.tell(a.complete(a.refused))
	}
	return &Error{
		Kind: Internal,
		Err:  fmt.Errorf("the validator did not ask about every alternative: %w", err),
	}
}

// tell has a 401 say with which scopes to come back (RFC 6750 §3), by the names of the token's
// issuer where issuers differ. The error is of this request alone: see authenticate.
func (a *Admission) tell(e *Error) *Error {
	op := a.operation
	if op.wanted == nil || e.Status() != http.StatusUnauthorized {
		return e
	}
	e.Scopes, e.asked, e.prepared = op.wanted, op.asked, op.challenges[e.Kind]
	if op.unsettled {
		_, raw, err := credential(a.request, true)
		namer, _ := a.gate.verifier.(ScopeNamer)
		if names, certain := namer.ScopesToRequest(raw, op.wanted); err == nil && certain {
			e.asked, e.prepared = names, ""
		}
	}
	return e
}

// settle finds out, at start, with which scopes a client is told to come back.
func (op *operation) settle(v Verifier) {
	op.wanted = op.cheapest()
	op.asked = op.wanted
	if namer, ok := v.(ScopeNamer); ok && op.wanted != nil {
		var certain bool
		op.asked, certain = namer.ScopesToRequest("", op.wanted)
		op.unsettled = !certain
	}
}

// cheapest returns the fewest scopes of access tokens that are enough for the operation; nil: none
// are needed, or no access token.
func (op *operation) cheapest() (fewest []string) {
	found := false
	for i := range op.ways {
		var scopes []string
		byToken := false
		for _, c := range op.ways[i].conditions {
			byToken = byToken || c.scheme.isToken()
		}
		for _, n := range op.ways[i].needs {
			if n.ofToken {
				scopes = appendNew(scopes, n.scope)
			}
		}
		if byToken && (!found || len(scopes) < len(fewest)) {
			fewest, found = scopes, true
		}
	}
	return fewest
}

// isForged reports whether a page of another site has made the request, and the browser has added a
// credential that was accepted.
func (a *Admission) isForged() bool {
	for _, w := range a.operation.ways {
		for _, c := range w.conditions {
			if c.scheme.isAmbient() && a.results[c.source].principal != nil {
				return a.gate.checkOrigin(a.request) != nil
			}
		}
	}
	return false
}

func (d *decision) begin(g *Gate, r *http.Request, op *operation) {
	*d = decision{gate: g, request: r, operation: op}
	if d.results = d.inline[:]; len(op.sources) > len(d.inline) {
		d.results = make([]result, len(op.sources))
	}
}

// consult asks [Config.Authorize].
func (g *Gate) consult(a *Admission, r *http.Request, op *operation) error {
	if g.authorizeMore == nil {
		return nil
	}
	asked := r.Clone(r.Context()) // so that it cannot change the request
	asked.Body, asked.GetBody = http.NoBody, nil
	err := g.authorizeMore(r.Context(), asked, op.Operation, a.Principal)
	if _, typed := errors.AsType[*Error](err); err == nil || typed {
		return err
	}
	return &Error{Kind: Internal, Err: fmt.Errorf("authz: Config.Authorize failed: %w", err)}
}

// bodiless returns the request without its body, for an [Authenticator]: no byte of a body is read
// before the credential has been accepted.
func bodiless(r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	r = r.WithContext(r.Context())
	r.Body = http.NoBody
	return r
}

// AuthenticationFunc returns the function that kin-openapi's validator calls for each security
// scheme of an alternative: it verifies the credential of the request and checks the scopes. The
// gate drives the validator with it. It is exported for programs that call openapi3filter
// themselves: there it also checks how the principal signed in, and each error is an [*Error] for
// [Gate.WriteProblem].
//
// Such a program should put an [Admission] of its own into the context of each validation. It then
// holds the principal, and the token is verified once. Otherwise the token is verified for each
// alternative, and a DPoP proof, which is good for one use, satisfies only the first. The validator
// does not ask where its document states no security: [DenyUnstated] is for [Gate.Check] alone.
func (g *Gate) AuthenticationFunc() openapi3filter.AuthenticationFunc {
	return func(ctx context.Context, in *openapi3filter.AuthenticationInput) error {
		a, ok := FromContext(ctx)
		if ok && in.RequestValidationInput == &a.input {
			return a.answer(in.SecuritySchemeName)
		}
		return g.authenticateForeign(ctx, a, in)
	}
}

// authenticateForeign answers a validator that the gate does not drive itself. a is the admission
// of the context, or nil. It is asked about one scheme and does not know of which alternative, so
// it takes each credential that browsers add by themselves for the only one.
func (g *Gate) authenticateForeign(
	ctx context.Context,
	a *Admission,
	in *openapi3filter.AuthenticationInput,
) error {
	if in.RequestValidationInput == nil || in.RequestValidationInput.Request == nil ||
		in.RequestValidationInput.Route == nil {
		return &Error{
			Kind: Internal,
			Err:  errors.New("the validator passes no request, or no route"),
		}
	}
	r, route := in.RequestValidationInput.Request, in.RequestValidationInput.Route
	op, err := g.match(r, route.Path)
	if err != nil {
		return err
	}
	s, err := g.plan.scheme(in.SecuritySchemeName)
	if err != nil {
		return &Error{Kind: Internal, Err: err}
	}
	source := slices.Index(op.sources, g.sources[s.name])
	if op.Denied != "" || source < 0 || !op.names(s) {
		return &Error{
			Kind: Denied,
			Err:  fmt.Errorf("no alternative of %s has the security scheme %s", op.ID, s.name),
		}
	}
	switch {
	case a != nil && a.take():
		a.Operation = &op.Operation
		a.begin(g, r, op)
	case a == nil || a.gate != g || a.request != r || a.operation != op: // that of another request
		a = &Admission{Context: ctx}
		a.begin(g, r, op)
	}
	c := condition{scheme: s, source: source, scopes: in.Scopes}
	if demand, ok := g.demands[s.name]; ok {
		c.demand = &demand
	}
	w := op.newWay([]condition{c})
	refused := a.decide(&w)
	if p := a.results[source].principal; p != nil && (a.Principal == nil || s.isToken()) {
		a.Principal = p
	}
	if refused != nil {
		return a.tell(a.complete(refused))
	}
	return nil
}

// names reports whether an alternative of the operation has the scheme. Another one, which
// [Config.Without] switches off, may have the same source.
func (o *operation) names(s *scheme) bool {
	return slices.ContainsFunc(o.ways, func(w way) bool {
		return slices.ContainsFunc(w.conditions, func(c condition) bool { return c.scheme == s })
	})
}

// errUnsatisfied tells the validator to go on with the next alternative.
var errUnsatisfied = errors.New("the alternative is not satisfied")

// answer answers the validator, which asks about the schemes of an alternative in the order of
// their names until one fails, and then about the next alternative. The first question about an
// alternative decides all of it.
func (a *Admission) answer(scheme string) error {
	if a.next >= len(a.operation.ways) {
		return errors.New(
			"the validator asks about an alternative that the operation does not have",
		)
	}
	w := &a.operation.ways[a.next]
	if a.asked >= len(w.conditions) || w.conditions[a.asked].scheme.name != scheme {
		return fmt.Errorf("the validator asks about the security scheme %s out of order", scheme)
	}
	if a.asked == 0 {
		if refused := a.decide(w); refused != nil {
			a.next++
			if a.refused == nil || rank(refused) > rank(a.refused) ||
				lacksLess(refused, a.refused) {
				a.refused = refused
			}
			return errUnsatisfied
		}
	}
	if a.asked++; a.asked == len(w.conditions) {
		a.satisfied = w
	}
	return nil
}

// decide decides an alternative: each of its schemes must have a principal, which has the scopes
// that are demanded of that scheme.
func (a *Admission) decide(w *way) *Error {
	var failed *Error
	for i := range w.conditions {
		_, err := a.ask(&w.conditions[i])
		if err == nil {
			continue
		}
		if failed == nil || certainty(err) > certainty(failed) {
			failed = err
		}
		if err.Kind != MissingToken && err.Kind != MissingCredential &&
			(a.bad == nil || certainty(err) > certainty(a.bad)) {
			a.bad = err
		}
	}
	if failed != nil {
		return failed
	}
	if refused := a.lacks(w); refused != nil {
		return refused
	}
	if stepUp := a.operation.StepUp; !stepUp.Met(a.callerOf(w), a.gate.now()) {
		return &Error{Kind: InsufficientAuth, StepUp: stepUp}
	}
	if w.ambient {
		if err := a.gate.checkOrigin(a.request); err != nil {
			return &Error{Kind: CrossOrigin, Err: err}
		}
	}
	return nil
}

// ask returns the principal of a condition's scheme. Each source is asked once per request.
func (a *Admission) ask(c *condition) (*token.Principal, *Error) {
	known := &a.results[c.source]
	if !known.known {
		known.principal, known.err = a.gate.authenticate(
			a.request, a.operation, a.operation.sources[c.source])
		known.known = true
	}
	switch {
	case known.err == errNoCredential && len(a.operation.offers) == 0:
		return nil, &Error{Kind: MissingToken}
	case known.err == errNoCredential:
		return nil, &Error{Kind: MissingCredential, operation: a.operation}
	case known.err != nil:
		refused := known.err.(*Error)
		if refused.Kind == InvalidCredential {
			refused.operation = a.operation
		}
		return nil, refused
	}
	if c.demand != nil {
		if err := c.demand.unmet(known.principal); err != nil {
			return nil, &Error{
				Kind:   InvalidToken,
				Detail: "The access token is not of the kind that this operation takes.",
				Err:    err,
			}
		}
	}
	return known.principal, nil
}

// lacks returns the refusal of principals of which one lacks a scope that its own scheme demands.
// It is not complete: most requests that lack the scopes of one alternative have those of another.
func (a *Admission) lacks(w *way) *Error {
	missing, kind := 0, InsufficientRole
	for i := range w.needs {
		n := &w.needs[i]
		if n.metBy(a.results[n.source].principal) {
			continue
		}
		if missing++; n.ofToken {
			kind = InsufficientScope // another token would do
		}
	}
	if missing == 0 {
		return nil
	}
	return &Error{Kind: kind, missing: missing, way: w}
}

// complete says what is needed to an error of lacks, and returns any other as it is.
func (a *Admission) complete(e *Error) *Error {
	if e.way == nil {
		return e
	}
	var all []string
	var caller *token.Principal
	for _, n := range e.way.needs {
		if all = appendNew(all, n.scope); n.ofToken && e.Kind == InsufficientScope {
			e.Scopes = appendNew(e.Scopes, n.scope)
			caller = a.results[n.source].principal
		}
	}
	e.asked = caller.ScopesToRequest(e.Scopes)
	what := "roles"
	if e.Kind == InsufficientScope {
		what = "scopes"
	}
	e.Detail = "This operation needs the " + what + ": " + strings.Join(all, " ") + "."
	return e
}

func appendNew(all []string, s string) []string {
	if slices.Contains(all, s) {
		return all
	}
	return append(all, s)
}

// lacksLess reports whether a principal that was refused for want of scopes was nearer than
// another: it lacks fewer, or as many of fewer.
func lacksLess(a, b *Error) bool {
	return a.missing > 0 && b.missing > 0 &&
		(a.missing < b.missing || a.missing == b.missing && len(a.way.needs) < len(b.way.needs))
}

// certainty orders what becomes of the credentials of one alternative: a bad one refuses it,
// whatever is said of others.
func certainty(e *Error) int {
	switch status := e.Status(); {
	case e.Kind == Internal:
		return 3
	case e.Kind == MissingToken, e.Kind == MissingCredential:
		return 1
	case status == http.StatusServiceUnavailable:
		return 0
	}
	return 2
}

// rank orders the refusals of several alternatives. What could still let the request in comes
// first; then the nearest miss.
func rank(e *Error) int {
	switch {
	case e.Kind == Internal:
		return 6
	case e.Status() == http.StatusServiceUnavailable:
		return 5
	case e.Kind == InsufficientAuth:
		return 4
	case e.Kind == InsufficientScope, e.Kind == InsufficientRole:
		return 3
	case e.Kind == CrossOrigin:
		return 2
	case e.Kind == MissingToken, e.Kind == MissingCredential:
		return 0
	}
	return 1
}

// caller returns the principal that speaks for the request. See [Admission.Principal].
func (a *Admission) caller() *token.Principal {
	if a.satisfied != nil {
		return a.callerOf(a.satisfied)
	}
	for i := range a.operation.ways {
		if p := a.callerOf(&a.operation.ways[i]); p != nil {
			return p
		}
	}
	return nil
}

func (a *Admission) callerOf(w *way) (caller *token.Principal) {
	for _, c := range w.conditions {
		switch p := a.results[c.source].principal; {
		case p != nil && c.scheme.isToken():
			return p
		case caller == nil:
			caller = p
		}
	}
	return caller
}

// onlyUnsatisfied reports whether the validator failed for nothing but what it was answered.
func onlyUnsatisfied(err error) bool {
	var unmet *openapi3filter.SecurityRequirementsError
	return errors.As(err, &unmet) &&
		!slices.ContainsFunc(unmet.Errors, func(e error) bool { return e != errUnsatisfied })
}

// checkOrigin refuses requests that change something, or open a connection, and come from a page of
// another origin. The browser has added their credential, so the page's maker is not who it belongs
// to.
func (g *Gate) checkOrigin(r *http.Request) error {
	if r.Header.Get("Upgrade") != "" { // a GET that is not safe
		r = r.WithContext(r.Context())
		r.Method = http.MethodPost
	}
	return g.origins.Check(r)
}

// Met reports whether the principal signed in as the operation demands. A token that does not say
// how or when does not satisfy it. A nil StepUp demands nothing.
func (s *StepUp) Met(p *token.Principal, now time.Time) bool {
	if s == nil {
		return true
	}
	if s.ACRValues != nil {
		acr, err := token.Claim[string](p, "/acr")
		if err != nil || !slices.Contains(s.ACRValues, acr) {
			return false
		}
	}
	if s.MaxAge != nil {
		at, err := token.Claim[float64](p, "/auth_time")
		const skew = 60 // seconds that auth_time may lie in the future
		elapsed := float64(now.Unix()) - at
		if err != nil || elapsed > float64(*s.MaxAge) || elapsed < -skew {
			return false
		}
	}
	return true
}
