package authztest_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const notes = `
openapi: 3.1.0
info: {title: Notes of people, version: 1.0.0}
security: [bearerAuth: []]
paths:
  /notes:
    post: {operationId: postNote, responses: {"201": {description: made}}}
  /notes/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: getNote, x-authz-owner: subject, responses: {"204": {description: fine}}}
components: {securitySchemes: {bearerAuth: {type: http, scheme: bearer}}}
`

// notesServer stores the owner of each note. A broken one does not check it.
type notesServer struct {
	broken, forgetful bool

	mu     sync.Mutex
	owners []string
}

func (s *notesServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	admission, _ := authz.FromContext(r.Context())
	subject := admission.Principal.Subject()
	if r.Method == http.MethodPost {
		s.owners = append(s.owners, subject)
		w.Header().Set("Location", fmt.Sprintf("/notes/%d", len(s.owners)-1))
		w.WriteHeader(http.StatusCreated)
		return
	}
	var n int
	_, _ = fmt.Sscan(r.PathValue("id"), &n)
	if s.forgetful || n >= len(s.owners) || s.owners[n] != subject && !s.broken {
		http.NotFound(w, r)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// TestObjectsOfAnother: the kit finds servers that return the objects of other principals.
func TestObjectsOfAnother(t *testing.T) {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://notes.example/"}})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(notes))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://notes.example/"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		server *notesServer
		fault  string
	}{
		"right":     {&notesServer{}, ""},
		"broken":    {&notesServer{broken: true}, "expected 403 or 404 for an object of another principal, received 204"},
		"forgetful": {&notesServer{forgetful: true}, "expected the owner to reach the object"},
	} {
		gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier})
		if err != nil {
			t.Fatal(err)
		}
		mux := gate.Mux()
		mux.Handle("POST /notes", test.server)
		mux.Handle("GET /notes/{id}", test.server)
		tokens := authztest.Issued(issuer.Issuer)
		tokens.Genuine = func(context.Context, []string) (string, error) {
			return issuer.Mint(map[string]any{"sub": "one"}), nil
		}
		tokens.Other = func(context.Context, []string) (string, error) {
			return issuer.Mint(map[string]any{"sub": "two"}), nil
		}
		report, err := authztest.Check(t.Context(), authztest.Target{
			Document: doc, Handler: mux, Tokens: tokens, Workers: 4,
		})
		if err != nil {
			t.Fatal(err)
		}
		tried := false
		for _, r := range report.Results {
			if !strings.HasSuffix(r.Case.Name, "/object_of_another_principal") {
				if len(r.Faults) > 0 && name == "right" {
					t.Errorf("%s: %s: %v", name, r.Case.Name, r.Faults)
				}
				continue
			}
			tried = true
			if got := strings.Join(r.Faults, "; "); r.Skipped != "" ||
				(test.fault == "") != (got == "") ||
				!strings.Contains(got, test.fault) {
				t.Errorf(
					"%s: %s: skipped %q, faults %q, want %q",
					name,
					r.Case.Name,
					r.Skipped,
					got,
					test.fault,
				)
			}
			if test.fault != "" &&
				!strings.Contains(r.Curl, "curl -i -X GET 'http://localhost/notes/") ||
				strings.Contains(r.Curl, "eyJ") {
				t.Errorf("%s: the command to repeat it is %q", name, r.Curl)
			}
		}
		if !tried {
			t.Errorf("%s: no case of an object of another principal", name)
		}
	}
}
