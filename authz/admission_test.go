package authz_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

func requestIn(ctx context.Context, target, bearer string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return r
}

// A handler can send another request through the gate in its own context, for example a batch
// endpoint. The principal of the inner request does not become that of the outer one.
func TestNestedAdmission(t *testing.T) {
	p := newPrincipals(t, "read", "admin")
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: p})
	if err != nil {
		t.Fatal(err)
	}
	outer, err := gate.Check(requestIn(t.Context(), "/one", "read"), "/one", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gate.Check(requestIn(outer.Context(), "/either", "admin"),
		"/either", nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := token.FromContext(outer.Context()); got != p["read"] {
		t.Errorf("the principal of the outer request is %v, want read", got.Scopes())
	}
	// refused sub-request
	outer, _ = gate.Check(requestIn(t.Context(), "/public", ""), "/public", nil)
	_, err = gate.Check(requestIn(outer.Context(), "/all", "read"), "/all", nil)
	var refused *authz.Error
	if !errors.As(err, &refused) || refused.Status() != 403 {
		t.Fatal(err)
	}
	if got, ok := token.FromContext(outer.Context()); ok {
		t.Errorf("the outer request, anonymous on a public operation, is now that of %v, whose "+
			"own request was refused", got.Scopes())
	}
}

func TestConcurrentNestedAdmissions(t *testing.T) {
	p := newPrincipals(t, "read", "admin")
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: p})
	if err != nil {
		t.Fatal(err)
	}
	outer, err := gate.Check(requestIn(t.Context(), "/public", ""), "/public", nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, who := range []struct{ path, bearer string }{{"/one", "read"}, {"/either", "admin"}} {
		all.Go(func() {
			for range 200 {
				sub, err := gate.Check(requestIn(outer.Context(), who.path, who.bearer), who.path,
					nil)
				if err != nil {
					t.Error(err)
					return
				}
				if got, _ := token.FromContext(sub.Context()); got != p[who.bearer] {
					mu.Lock()
					wrong++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if wrong > 0 {
		t.Errorf("%d of 400 handlers got the principal of another request", wrong)
	}
}

// Handlers get the principal that the gate admitted, whatever other middleware has put into the
// context.
func TestAdmissionIsNotHidden(t *testing.T) {
	p := newPrincipals(t, "read", "admin")
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: p})
	if err != nil {
		t.Fatal(err)
	}
	for name, ctx := range map[string]context.Context{"without": t.Context(),
		"with the server's": &authz.Admission{Context: t.Context()}} {
		r := requestIn(token.NewContext(ctx, p["admin"]), "/one", "read")
		admitted, err := gate.Check(r, "/one", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := token.FromContext(admitted.Context()); got != p["read"] {
			t.Errorf("%s admission: the handler gets %v, want read", name,
				got.Scopes())
		}
	}
}

// The principal of a refused request is in the admission, for the log.
func TestAdmissionOfARefusedRequest(t *testing.T) {
	p := newPrincipals(t, "read")
	gate, _ := authz.New(authz.Config{Document: load(t, guarded), Verifier: p})
	found := &authz.Admission{Context: t.Context()}
	r := requestIn(found, "/all", "read")
	_, err := gate.Check(r, "/all", nil)
	if got, ok := token.FromContext(r.Context()); ok {
		t.Errorf("refused (%v), but token.FromContext returns %v",
			err, got.Scopes())
	}
}

// TestAdmission: the gate puts its result into the context of a request that it refuses, too, and
// into the Admission of the server if there is one.
func TestAdmission(t *testing.T) {
	readers := newPrincipals(t, "read")
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: readers})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, method, target, template, token string
		status                                int // 0: admitted
		operation                             bool
		principal                             bool
	}{
		{"let in", "GET", "/one", "/one", "read", 0, true, true},
		{"a token nobody looks at", "GET", "/public", "/public", "read", 0, true, false},
		{"a bad token", "GET", "/one", "/one", "nobody", 401, true, false},
		{"no token", "GET", "/one", "/one", "", 401, true, false},
		{"a scope too few", "GET", "/all", "/all", "read", 403, true, true},
		{"a parameter too many", "GET", "/one?x=1", "/one", "read", 400, true, true},
		{"another method", "PATCH", "/one", "/one", "read", 405, false, false},
		{"another path", "GET", "/none", "", "read", 404, false, false},
		{"a route beside the document", "GET", "/none", "/none", "read", 500, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := httptest.NewRequest(row.method, row.target, nil)
			if row.token != "" {
				r.Header.Set("Authorization", "Bearer "+row.token)
			}
			type key struct{}
			found := &authz.Admission{Context: context.WithValue(r.Context(), key{}, "kept"),
				Principal: &token.Principal{}}
			admitted, err := gate.Check(r.WithContext(found), row.template, nil)
			status := 0
			if refused, ok := errors.AsType[*authz.Error](err); ok {
				status = refused.Status()
			}
			if status != row.status || (admitted == nil) != (row.status != 0) {
				t.Fatalf("Check returned %v, %v: want status %d (0: admitted)", admitted, err,
					row.status)
			}
			if (found.Operation != nil) != row.operation || row.operation &&
				found.Operation.Path != row.template {
				t.Errorf("operation is %+v, want one: %v", found.Operation, row.operation)
			}
			if row.status >= 404 {
				return // the caller was not authenticated yet
			}
			if (found.Principal != nil) != row.principal || row.principal &&
				!found.Principal.HasScope("read") {
				t.Errorf("principal is %v, want the reader: %v", found.Principal, row.principal)
			}
			if row.status != 0 {
				return
			}
			if again, ok := authz.FromContext(admitted.Context()); !ok || again != found {
				t.Errorf("the handler's context has the admission %p, want that of the "+
					"server, %p", again, found)
			}
			if p, ok := token.FromContext(admitted.Context()); ok != row.principal ||
				p != found.Principal {
				t.Errorf("token.FromContext returns %v, want what the gate found: %v", p,
					found.Principal)
			}
			if admitted.Context().Value(key{}) != "kept" {
				t.Error("what the context had before is lost")
			}
			fresh, err := gate.Check(r, row.template, nil)
			if err != nil {
				t.Fatal(err)
			}
			if own, ok := authz.FromContext(fresh.Context()); !ok ||
				own.Operation != found.Operation || own.Principal != found.Principal {
				t.Errorf("without one of the server's the context has %+v, want the same", own)
			}
			if _, ok := authz.FromContext(r.Context()); ok {
				t.Error("the gate has changed the request that it was given")
			}
		})
	}
}
