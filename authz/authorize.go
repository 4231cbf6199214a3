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
// authenticates on the first call. It leaves what it finds in the admission.
func (g *Gate) authorize(a *Admission, r *http.Request, op *operation) error {
	if op.Public() {
		return nil
	}
	a.gate, a.request = g, r
	a.input = openapi3filter.RequestValidationInput{
		Request: bodiless(r), Route: op.route, Options: &g.security,
	}
	err := openapi3filter.ValidateSecurityRequirements(a, &a.input, op.security)
	switch {
	case a.authErr == errNoCredential && err == nil:
		return nil // the token is optional here
	case a.authErr == errNoCredential:
		return &Error{Kind: MissingToken}
	case a.authErr != nil:
		return a.authErr // even where a token is optional: a bad token is not a missing one
	case a.Principal == nil:
		return &Error{Kind: Internal, Err: fmt.Errorf("the validator did not ask for a principal: %w", err)}
	case err == nil && !op.StepUp.Met(a.Principal, g.now()):
		return &Error{Kind: InsufficientAuth, StepUp: op.StepUp}
	case err == nil:
		return nil
	case !onlyScopes(err):
		return &Error{Kind: Internal, Err: err}
	}
	return lacking(op.nearest(a.Principal))
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

// bodiless returns the request without its body: the validator reads all of a body before it asks
// for the credential.
func bodiless(r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	r = r.WithContext(r.Context())
	r.Body = http.NoBody
	return r
}

// AuthenticationFunc returns the function that kin-openapi's validator calls for each security
// scheme of an alternative: it verifies the token of the request and checks the scopes. The gate
// drives the validator with it. It is exported for programs that call openapi3filter themselves:
// there it also checks how the principal signed in, and each error is an [*Error] for
// [Gate.WriteProblem].
//
// Such a program should put an [Admission] of its own into the context of each validation. It then
// holds the principal, and the token is verified once. Otherwise the token is verified for each
// alternative, and a DPoP proof, which is good for one use, satisfies only the first.
func (g *Gate) AuthenticationFunc() openapi3filter.AuthenticationFunc {
	return func(ctx context.Context, in *openapi3filter.AuthenticationInput) error {
		a, ok := FromContext(ctx)
		if ok && in.RequestValidationInput == &a.input {
			return a.satisfies(in.Scopes)
		}
		return g.authenticateForeign(ctx, a, in)
	}
}

// authenticateForeign answers a validator that the gate does not drive itself. a is the admission
// of the context, or nil.
func (g *Gate) authenticateForeign(ctx context.Context, a *Admission, in *openapi3filter.AuthenticationInput) error {
	if in.RequestValidationInput == nil || in.RequestValidationInput.Request == nil || in.RequestValidationInput.Route == nil {
		return &Error{Kind: Internal, Err: errors.New("the validator passes no request, or no route")}
	}
	r, route := in.RequestValidationInput.Request, in.RequestValidationInput.Route
	op, err := g.match(r, route.Path)
	if err != nil {
		return err
	}
	if _, err := g.plan.enforced(in.SecuritySchemeName); err != nil {
		return &Error{Kind: Internal, Err: err}
	}
	switch {
	case a != nil && a.take():
		a.gate, a.request, a.Operation = g, r, &op.Operation
	case a == nil || a.gate != g || a.request != r: // that of another request
		a = &Admission{Context: ctx, gate: g, request: r}
	}
	switch err := a.satisfies(in.Scopes); {
	case err == errNoCredential:
		return &Error{Kind: MissingToken}
	case err == errScopes:
		return lacking(in.Scopes)
	case err != nil:
		return err
	case !op.StepUp.Met(a.Principal, g.now()):
		return &Error{Kind: InsufficientAuth, StepUp: op.StepUp}
	}
	return nil
}

var errScopes = errors.New("the token lacks a scope")

// satisfies reports whether the principal of the request has the scopes. It authenticates on the
// first call: the signature and the claims are always checked before scopes.
func (a *Admission) satisfies(scopes []string) error {
	if !a.authenticated {
		a.authenticated = true
		a.Principal, a.authErr = a.gate.authenticate(a.request)
	}
	if a.authErr != nil {
		return a.authErr
	}
	for _, scope := range scopes {
		if !a.Principal.HasScope(scope) {
			return errScopes
		}
	}
	return nil
}

// onlyScopes reports whether the validator was not satisfied for want of scopes alone.
func onlyScopes(err error) bool {
	var unmet *openapi3filter.SecurityRequirementsError
	return errors.As(err, &unmet) &&
		!slices.ContainsFunc(unmet.Errors, func(e error) bool { return e != errScopes })
}

// lacking is the refusal of a principal that lacks some of the scopes.
func lacking(scopes []string) *Error {
	return &Error{Kind: InsufficientScope, Scopes: scopes, Detail: "This operation needs the scopes: " + strings.Join(scopes, " ") + "."}
}

// nearest returns the scopes of the alternative of which the principal lacks the fewest; of several
// such, the one with the fewest scopes.
func (o *operation) nearest(p *token.Principal) []string {
	var best []string
	fewest := -1
	for _, alternative := range o.Alternatives {
		scopes, missing := alternative.scopes(), 0
		for _, scope := range scopes {
			if !p.HasScope(scope) {
				missing++
			}
		}
		if fewest < 0 || missing < fewest || missing == fewest && len(scopes) < len(best) {
			best, fewest = scopes, missing
		}
	}
	return best
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
