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

// authorize authenticates and authorizes a request. It runs kin-openapi's security validation,
// which calls [Gate.AuthenticationFunc] for each alternative of the operation; see checkScheme. The
// results are stored in the admission.
//
// One satisfied alternative is enough: a bad key next to a good token does no harm. The exception
// is the alternative without credentials, {}. It is for requests without credentials, so a
// credential that is bad, or cannot be checked, is refused.
func (g *Gate) authorize(a *Admission, r *http.Request, op *operation) error {
	switch {
	case op.Denied != "":
		return &Error{Kind: Denied}
	case op.Public():
		return nil
	}
	a.begin(g, r, op)
	err := openapi3filter.ValidateSecurityRequirements(a, &op.input, op.security)
	a.Principal = a.caller()
	switch {
	case err == nil && a.satisfied != nil:
		return nil
	case err == nil && op.Optional() && a.next == len(op.compiled):
		// {} is last, and the validator satisfies it without a call
		if a.bad != nil {
			return a.withRequestScopes(a.bad)
		}
		if a.isForged() {
			a.Principal = nil // treat the request as anonymous
		}
		return nil
	case err != nil && a.refused != nil && onlyUnsatisfied(err):
		return a.withRequestScopes(a.withMissingScopes(a.refused))
	}
	return &Error{
		Kind: Internal,
		Err:  fmt.Errorf("the validator did not ask about every alternative: %w", err),
	}
}

// withRequestScopes adds to a 401 the scopes that the client should request (RFC 6750 §3), by the
// names of the token's issuer if issuers differ. It modifies e, which no other request shares.
func (a *Admission) withRequestScopes(e *Error) *Error {
	op := a.operation
	if op.fewestScopes == nil || e.Status() != http.StatusUnauthorized {
		return e
	}
	e.Scopes, e.requestScopes, e.preparedChallenge = op.fewestScopes, op.requestScopes,
		op.challenges[e.Kind]
	if op.scopeNamesVary {
		_, raw, err := credential(a.request, true)
		namer, _ := a.gate.verifier.(ScopeNamer)
		if names, certain := namer.ScopesToRequest(raw, op.fewestScopes); err == nil && certain {
			e.requestScopes, e.preparedChallenge = names, ""
		}
	}
	return e
}

// prepareScopes sets the scopes that the challenges of 401s list.
func (op *operation) prepareScopes(v Verifier) {
	op.fewestScopes = op.minimalScopes()
	op.requestScopes = op.fewestScopes
	if namer, ok := v.(ScopeNamer); ok && op.fewestScopes != nil {
		var certain bool
		op.requestScopes, certain = namer.ScopesToRequest("", op.fewestScopes)
		op.scopeNamesVary = !certain
	}
}

// minimalScopes returns the scopes of the alternative that requires the fewest scopes of access
// tokens, or nil if none are required.
func (op *operation) minimalScopes() (fewest []string) {
	found := false
	for i := range op.compiled {
		var scopes []string
		byToken := false
		for _, c := range op.compiled[i].conditions {
			byToken = byToken || c.scheme.token
		}
		for _, n := range op.compiled[i].needs {
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

// isForged reports whether the request is a cross-site request with an accepted credential that the
// browser added.
func (a *Admission) isForged() bool {
	for _, w := range a.operation.compiled {
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

// callAuthorize calls [Config.Authorize].
func (g *Gate) callAuthorize(a *Admission, r *http.Request, op *operation) error {
	if g.authorizeHook == nil {
		return nil
	}
	asked := r.Clone(r.Context()) // Authorize cannot change the request
	asked.Body, asked.GetBody = http.NoBody, nil
	err := g.authorizeHook(r.Context(), asked, op.Operation, a.Principal)
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
// scheme of an alternative. It verifies the credential of the request and checks the scopes. The
// gate uses it; it is exported for programs that call openapi3filter themselves. For these it also
// checks the operation's StepUp, and each error is an [*Error] for [Gate.WriteProblem].
//
// Such a program should put a new [Admission] into the context of each validation, which then holds
// the principal. Without it, the token is verified once per alternative, and a DPoP proof, which is
// accepted once, satisfies only the first. The validator does not call the function for operations
// without security, so [DenyUnstated] has no effect there.
func (g *Gate) AuthenticationFunc() openapi3filter.AuthenticationFunc {
	return func(ctx context.Context, in *openapi3filter.AuthenticationInput) error {
		a, ok := ctx.(*Admission)
		if ok && a.operation != nil && in.RequestValidationInput == &a.operation.input {
			return a.checkScheme(in.SecuritySchemeName) // called by authorize
		}
		return g.authenticateForeign(ctx, in)
	}
}

// authenticateForeign is called by a validator that the gate does not run. The alternative is
// unknown, so the cross-origin check applies to every credential that browsers add by themselves.
func (g *Gate) authenticateForeign(
	ctx context.Context,
	in *openapi3filter.AuthenticationInput,
) error {
	if in.RequestValidationInput == nil || in.RequestValidationInput.Request == nil ||
		in.RequestValidationInput.Route == nil {
		return &Error{
			Kind: Internal,
			Err:  errors.New("the validator passed no request or no route"),
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
	a, _ := FromContext(ctx)
	switch {
	case a != nil && a.take():
		a.Operation = &op.Operation
		a.begin(g, r, op)
	case a == nil || a.gate != g || a.request != r || a.operation != op: // of another request
		a = &Admission{Context: ctx}
		a.begin(g, r, op)
	}
	c := condition{scheme: s, source: source, scopes: in.Scopes}
	if rules, ok := g.schemeRules[s.name]; ok {
		c.rules = &rules
	}
	w := op.newAlternative([]condition{c})
	refused := a.decide(&w)
	if p := a.results[source].principal; p != nil && (a.Principal == nil || s.token) {
		a.Principal = p
	}
	if refused != nil {
		return a.withRequestScopes(a.withMissingScopes(refused))
	}
	return nil
}

// names reports whether an alternative of the operation has the scheme. The source alone does not
// tell, because schemes that [Config.Without] disables may share it.
func (o *operation) names(s *scheme) bool {
	return slices.ContainsFunc(o.compiled, func(w compiledAlternative) bool {
		return slices.ContainsFunc(w.conditions, func(c condition) bool { return c.scheme == s })
	})
}

// errUnsatisfied makes the validator continue with the next alternative.
var errUnsatisfied = errors.New("the alternative is not satisfied")

// checkScheme is called by the validator for the schemes of an alternative in the order of their
// names, until one fails, and then for the next alternative. The first call for an alternative
// decides all of it.
func (a *Admission) checkScheme(scheme string) error {
	if a.next >= len(a.operation.compiled) {
		return errors.New("the validator checks an alternative that the operation does not have")
	}
	w := &a.operation.compiled[a.next]
	if a.checked >= len(w.conditions) || w.conditions[a.checked].scheme.name != scheme {
		return fmt.Errorf("the validator checks the security scheme %s out of order", scheme)
	}
	if a.checked == 0 {
		if refused := a.decide(w); refused != nil {
			a.next++
			if a.refused == nil || rank(refused) > rank(a.refused) ||
				isCloser(refused, a.refused) {
				a.refused = refused
			}
			return errUnsatisfied
		}
	}
	if a.checked++; a.checked == len(w.conditions) {
		a.satisfied = w
	}
	return nil
}

// decide checks an alternative: each of its schemes must have a principal with the scopes that the
// scheme requires.
func (a *Admission) decide(w *compiledAlternative) *Error {
	var failed *Error
	for i := range w.conditions {
		_, err := a.principalFor(&w.conditions[i])
		if err == nil {
			continue
		}
		if failed == nil || severity(err) > severity(failed) {
			failed = err
		}
		if err.Kind != MissingToken && err.Kind != MissingCredential &&
			(a.bad == nil || severity(err) > severity(a.bad)) {
			a.bad = err
		}
	}
	if failed != nil {
		return failed
	}
	if refused := a.checkScopes(w); refused != nil {
		return refused
	}
	if s := a.operation.StepUp; s != nil && !s.Met(a.callerOf(w), a.gate.now()) {
		return &Error{Kind: InsufficientAuth, StepUp: s}
	}
	if w.ambient {
		if err := a.gate.checkOrigin(a.request); err != nil {
			return &Error{Kind: CrossOrigin, Err: err}
		}
	}
	return nil
}

// principalFor returns the principal of a condition's scheme. It calls each source once per
// request.
func (a *Admission) principalFor(c *condition) (*token.Principal, *Error) {
	known := &a.results[c.source]
	if !known.known {
		known.principal, known.err = a.gate.authenticate(
			a.request, a.operation, a.operation.sources[c.source])
		known.known = true
	}
	switch {
	case known.err == errNoCredential && len(a.operation.schemeChallenges) == 0:
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
	if c.rules != nil {
		if err := c.rules.check(known.principal); err != nil {
			return nil, &Error{
				Kind:   InvalidToken,
				Detail: "This operation does not accept access tokens of this kind.",
				Err:    err,
			}
		}
	}
	return known.principal, nil
}

// checkScopes returns an error if a principal lacks a scope that its scheme requires. The error has
// no details yet, because most such requests satisfy another alternative: see withMissingScopes.
func (a *Admission) checkScopes(w *compiledAlternative) *Error {
	missing, kind := 0, InsufficientRole
	for i := range w.needs {
		n := &w.needs[i]
		if n.metBy(a.results[n.source].principal) {
			continue
		}
		if missing++; n.ofToken {
			kind = InsufficientScope // a token with more scopes is enough
		}
	}
	if missing == 0 {
		return nil
	}
	return &Error{Kind: kind, missing: missing, alternative: w}
}

// withMissingScopes adds the required scopes to an error of checkScopes, and returns other errors
// unchanged.
func (a *Admission) withMissingScopes(e *Error) *Error {
	if e.alternative == nil {
		return e
	}
	var all []string
	var caller *token.Principal
	for _, n := range e.alternative.needs {
		if all = appendNew(all, n.scope); n.ofToken && e.Kind == InsufficientScope {
			e.Scopes = appendNew(e.Scopes, n.scope)
			caller = a.results[n.source].principal
		}
	}
	e.requestScopes = caller.ScopesToRequest(e.Scopes)
	what := "roles"
	if e.Kind == InsufficientScope {
		what = "scopes"
	}
	e.Detail = "This operation requires the " + what + ": " + strings.Join(all, " ") + "."
	return e
}

func appendNew(all []string, s string) []string {
	if slices.Contains(all, s) {
		return all
	}
	return append(all, s)
}

// isCloser reports whether error a is about fewer missing scopes than b, or as many in an
// alternative with fewer scopes.
func isCloser(a, b *Error) bool {
	return a.missing > 0 && b.missing > 0 &&
		(a.missing < b.missing || a.missing == b.missing &&
			len(a.alternative.needs) < len(b.alternative.needs))
}

// severity orders the credential errors of one alternative. The most severe one is reported.
func severity(e *Error) int {
	switch status := e.Status(); {
	case e.Kind == Internal:
		return 3
	case e.Kind == MissingToken, e.Kind == MissingCredential:
		return 1
	case status == http.StatusServiceUnavailable, e.Kind == RateLimited:
		return 0
	}
	return 2
}

// rank orders the refusals of several alternatives. The highest is reported: a failure after which
// a retry may succeed, then the refusal closest to success.
func rank(e *Error) int {
	switch {
	case e.Kind == Internal:
		return 6
	case e.Status() == http.StatusServiceUnavailable, e.Kind == RateLimited:
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

// caller returns the caller of the request. See [Admission.Principal].
func (a *Admission) caller() *token.Principal {
	if a.satisfied != nil {
		return a.callerOf(a.satisfied)
	}
	for i := range a.operation.compiled {
		if p := a.callerOf(&a.operation.compiled[i]); p != nil {
			return p
		}
	}
	return nil
}

func (a *Admission) callerOf(w *compiledAlternative) (caller *token.Principal) {
	for i := range w.conditions {
		c := &w.conditions[i]
		switch p := a.results[c.source].principal; {
		case p != nil && c.scheme.token:
			return p
		case caller == nil:
			caller = p
		}
	}
	return caller
}

// onlyUnsatisfied reports whether all errors of the validator are errUnsatisfied.
func onlyUnsatisfied(err error) bool {
	var unmet *openapi3filter.SecurityRequirementsError
	return errors.As(err, &unmet) &&
		!slices.ContainsFunc(unmet.Errors, func(e error) bool { return e != errUnsatisfied })
}

// checkOrigin refuses unsafe requests, and those that open a connection, from pages of another
// origin.
func (g *Gate) checkOrigin(r *http.Request) error {
	if r.Header.Get("Upgrade") != "" { // not a safe GET
		r = r.WithContext(r.Context())
		r.Method = http.MethodPost
	}
	return g.origins.Check(r)
}

// Met reports whether the principal signed in as required. A token without the claims acr or
// auth_time does not satisfy a requirement about them. A nil StepUp requires nothing.
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
		const skew = 60 // seconds that auth_time may be in the future
		elapsed := float64(now.Unix()) - at
		if err != nil || elapsed > float64(*s.MaxAge) || elapsed < -skew {
			return false
		}
	}
	return true
}
