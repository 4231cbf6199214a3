package authztest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/oasgate/oasgate/authz"
)

// ownerCases test that an object of one principal is not accessible to another (OWASP API1:2023,
// broken object level authorization), for operations that the document marks with x-authz-owner.
// The POST on the path before the last parameter creates the object, and its Location identifies
// it.
func ownerCases(o authz.Operation, operations []authz.Operation) []Case {
	i := strings.LastIndex(o.Path, "/{")
	if !o.OwnedBySubject || i < 0 {
		return nil
	}
	for _, maker := range operations {
		if maker.Method == http.MethodPost && maker.Path == o.Path[:i] {
			return []Case{{
				Name: o.ID + "/object_of_another_principal", Operation: o,
				Scopes:     alternatives(o)[0].scopes,
				credential: genuine, first: &maker, owned: true,
			}}
		}
	}
	return nil
}

// tryOwner creates an object as one principal, requests it as another, and then as its owner, which
// proves that it exists.
func (r *run) tryOwner(ctx context.Context, result Result) Result {
	c := result.Case
	if r.Tokens.Genuine == nil || r.Tokens.Other == nil {
		result.Skipped = "needs Tokens.Genuine and Tokens.Other"
		return result
	}
	maker := r.tokenFor(ctx, r.Tokens.Genuine, *c.first, &result)
	owner := r.tokenFor(ctx, r.Tokens.Genuine, c.Operation, &result)
	other := r.tokenFor(ctx, r.Tokens.Other, c.Operation, &result)
	if result.Skipped != "" || result.Faults != nil {
		return result
	}
	made := r.send(ctx, Case{Operation: *c.first}, maker, nil)
	location := made.answer.header.Get("Location")
	if made.faults == nil && location == "" {
		made.faults = []string{
			fmt.Sprintf(
				"inconclusive: expected %s to create an object and return its Location, "+
					"received %d without one",
				c.first.ID,
				made.answer.status,
			),
		}
	}
	if result.add(made); made.faults != nil {
		return result
	}
	id, err := lastSegment(location)
	if err != nil {
		result.Faults = []string{err.Error()}
		return result
	}
	request := r.requests[c.Operation.ID]
	request.Path = maps.Clone(request.Path)
	request.Path[c.Operation.Path[strings.LastIndex(c.Operation.Path, "/{")+
		2:strings.LastIndex(c.Operation.Path, "}")]] = id
	object := Case{Operation: c.Operation, request: &request}
	if result.add(r.sendAsOther(ctx, object, other)); result.Faults == nil {
		result.add(r.sendAsOwner(ctx, object, owner))
	}
	return result
}

// tokenFor returns the Authorization header for an operation, unless the result is known.
func (r *run) tokenFor(
	ctx context.Context,
	from func(context.Context, []string) (string, error),
	o authz.Operation,
	result *Result,
) string {
	if result.Skipped != "" || result.Faults != nil {
		return ""
	}
	r.tokens.Lock()
	defer r.tokens.Unlock()
	token, err := from(ctx, alternatives(o)[0].scopes)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		result.Skipped = "no token: " + err.Error()
	case err != nil:
		result.Faults = []string{"no credential: " + err.Error()}
	}
	return "Bearer " + token
}

// sendAsOther requests an object as a principal who must not reach it.
func (r *run) sendAsOther(ctx context.Context, object Case, authorization string) exchange {
	got := r.send(ctx, object, authorization, nil)
	switch status := got.answer.status; {
	case status == 0:
	case status == http.StatusForbidden || status == http.StatusNotFound:
		got.faults = nil
	default:
		got.faults = []string{
			fmt.Sprintf(
				"expected 403 or 404 for an object of another principal, received %d",
				status,
			),
		}
	}
	return got
}

// sendAsOwner requests an object as its owner.
func (r *run) sendAsOwner(ctx context.Context, object Case, authorization string) exchange {
	got := r.send(ctx, object, authorization, nil)
	if status := got.answer.status; status >= 400 {
		got.faults = []string{
			fmt.Sprintf(
				"inconclusive: expected the owner to reach the object, received %d",
				status,
			),
		}
	}
	return got
}

// lastSegment returns the last segment of a Location (RFC 9110 §10.2.2).
func lastSegment(location string) (string, error) {
	at, err := url.Parse(location)
	if err != nil {
		return "", fmt.Errorf("expected a URI reference in Location, received %q", location)
	}
	path := strings.TrimSuffix(at.EscapedPath(), "/")
	return url.PathUnescape(path[strings.LastIndex(path, "/")+1:])
}
