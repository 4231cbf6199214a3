package authz_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// calledFrom is a verifier that records its callers.
type calledFrom struct {
	principals
	stacks []string
}

func (v *calledFrom) Verify(ctx context.Context, raw string) (*token.Principal, error) {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	var stack []string
	for {
		frame, more := frames.Next()
		stack = append(stack, frame.Function)
		if !more {
			break
		}
	}
	v.stacks = append(v.stacks, strings.Join(stack, "\n"))
	return v.principals.Verify(ctx, raw)
}

// The authenticator of a guarded request is called by kin-openapi's validator only.
func TestAuthenticatorIsCalledByTheValidator(t *testing.T) {
	v := &calledFrom{principals: newPrincipals(t, "read", "write")}
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range gate.Plan().Operations() {
		for _, bearer := range []string{"read", "write", "unknown", ""} {
			v.stacks = nil
			r := httptest.NewRequest(o.Method, "/", nil)
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			_, _ = gate.Check(r, o.Path, func(string) string { return "1" })
			if expected := bearer != "" && !o.Public(); (len(v.stacks) > 0) != expected ||
				len(v.stacks) > 1 {
				t.Errorf("%s with %q: the verifier was called %d times, want once: %v", o.ID,
					bearer, len(v.stacks), expected)
			}
			for _, stack := range v.stacks {
				if !strings.Contains(stack, "openapi3filter.ValidateSecurityRequirements") {
					t.Errorf("%s: the verifier was not called through openapi3filter, but by\n%s",
						o.ID, stack)
				}
			}
		}
	}
}

// TestAuthenticationFunc drives the validator without the gate.
func TestAuthenticationFunc(t *testing.T) {
	v := &calledFrom{principals: newPrincipals(t, "read", "write")}
	doc := load(t, guarded)
	gate, err := authz.New(authz.Config{Document: doc, Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	validate := func(ctx context.Context, path, bearer string) error {
		r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		item := doc.Paths.Value(path)
		return openapi3filter.ValidateRequest(ctx, &openapi3filter.RequestValidationInput{
			Request: r,
			Options: &openapi3filter.Options{AuthenticationFunc: gate.AuthenticationFunc()},
			Route: &routers.Route{Spec: doc, Path: path, PathItem: item, Method: http.MethodGet,
				Operation: item.Get},
		})
	}
	refusal := func(err error) authz.Kind {
		var unmet *openapi3filter.SecurityRequirementsError
		if !errors.As(err, &unmet) || len(unmet.Errors) == 0 {
			return ""
		}
		refused, _ := errors.AsType[*authz.Error](unmet.Errors[0])
		if refused == nil {
			return "not an *authz.Error"
		}
		return refused.Kind
	}
	for _, row := range []struct {
		path, bearer string
		kind         authz.Kind
		calls        int // of the verifier, with an admission in the context
	}{
		{"/public", "", "", 0},
		{"/one", "", authz.MissingToken, 0},
		{"/one", "unknown", authz.InvalidToken, 1},
		{"/one", "write", authz.InsufficientScope, 1},
		{"/one", "read", "", 1},
		{"/either", "write", authz.InsufficientScope, 1},
	} {
		for _, ctx := range []context.Context{t.Context(), &authz.Admission{Context: t.Context()}} {
			v.stacks = nil
			err := validate(ctx, row.path, row.bearer)
			if (err == nil) != (row.kind == "") || err != nil && refusal(err) != row.kind {
				t.Errorf("%s with %q: %v, want %q", row.path, row.bearer, err, row.kind)
			}
			found, ok := authz.FromContext(ctx)
			if !ok {
				continue
			}
			if len(v.stacks) != row.calls {
				t.Errorf("%s with %q: the verifier was called %d times, want %d", row.path,
					row.bearer, len(v.stacks), row.calls)
			}
			if admitted := row.kind == "" && row.calls > 0; admitted &&
				found.Principal != v.principals["read"] {
				t.Errorf("%s with %q: the principal of the admission is %v", row.path, row.bearer,
					found.Principal)
			}
		}
	}

	// An admission that belongs to another request is not taken for this one's.
	outer := &authz.Admission{Context: t.Context()}
	if err := validate(outer, "/one", "read"); err != nil {
		t.Fatal(err)
	}
	if kind := refusal(validate(outer, "/one", "write")); kind != authz.InsufficientScope {
		t.Errorf("a second request in the context of the first is decided as %q", kind)
	}
	if outer.Principal != v.principals["read"] {
		t.Error("a second request has changed the admission of the first")
	}
}

// A validator that the program calls itself calls the function for each scheme of an alternative.
func TestAuthenticationFuncOfEveryScheme(t *testing.T) {
	gate, doc := schemesGate(t), load(t, everyScheme)
	for _, row := range []struct {
		method, path string
		headers      map[string]string
		certificate  string
		caller       string // "": refused
	}{
		{"GET", "/both", map[string]string{"Authorization": "Bearer read"}, "write", "token"},
		{"GET", "/both", map[string]string{"Authorization": "Bearer read"}, "", ""},
		{"GET", "/both", map[string]string{"Authorization": "Bearer read"}, "read", ""},
		{"GET", "/both", nil, "write", ""},
		{"GET", "/key", map[string]string{"X-Api-Key": "read"}, "", "header"},
		{"GET", "/key", map[string]string{"X-Api-Key": "write"}, "", ""},
		{"POST", "/cookie", map[string]string{"Cookie": "sid=a"}, "", "cookie"},
		{"POST", "/cookie", map[string]string{"Cookie": "sid=a", "Sec-Fetch-Site": "cross-site"}, "", ""},
	} {
		ctx := &authz.Admission{Context: t.Context()}
		r := httptest.NewRequestWithContext(ctx, row.method, row.path, nil)
		for name, value := range row.headers {
			r.Header.Set(name, value)
		}
		if row.certificate != "" {
			withCertificate(r, row.certificate, true)
		}
		item := doc.Paths.Value(row.path)
		err := openapi3filter.ValidateRequest(ctx, &openapi3filter.RequestValidationInput{
			Request: r,
			Options: &openapi3filter.Options{AuthenticationFunc: gate.AuthenticationFunc()},
			Route: &routers.Route{Spec: doc, Path: row.path, PathItem: item, Method: row.method,
				Operation: item.GetOperation(row.method)},
		})
		if (err == nil) != (row.caller != "") || err == nil &&
			ctx.Principal.Subject() != row.caller {
			t.Errorf("%s %v %s: %v, the caller is %v; want %q", row.path, row.headers,
				row.certificate, err, ctx.Principal, row.caller)
		}
	}

	without, err := authz.New(authz.Config{
		Document: doc, Verifier: byLookup(lookup(t, "token")), Without: []string{"header", "query",
			"cookie", "authorization", "basic", "mtls"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/key", "/either"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("X-API-Key", "read")
		item := doc.Paths.Value(path)
		if err := openapi3filter.ValidateRequest(t.Context(),
			&openapi3filter.RequestValidationInput{
				Request: r,
				Options: &openapi3filter.Options{AuthenticationFunc: without.AuthenticationFunc()},
				Route: &routers.Route{Spec: doc, Path: path, PathItem: item, Method: "GET",
					Operation: item.Get},
			}); err == nil {
			t.Errorf("%s: the key of a scheme that is switched off is accepted", path)
		}
	}
}
