package authz_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const outwardDocument = `
openapi: 3.1.0
info: {title: outward, version: "1"}
paths:
  /one: {get: {operationId: one, security: [{t: [read]}], responses: {default: {description: any}}}}
  /two: {get: {operationId: two, security: [{t: [read, write]}], responses: {default: {description: any}}}}
  /any: {get: {operationId: any, security: [{t: []}], responses: {default: {description: any}}}}
components:
  securitySchemes:
    t: {type: http, scheme: bearer, x-scopes: {read: Read, write: Write, admin: All}}
`

// outward guards the document with issuers, after change has changed each.
func outward(t *testing.T, changes ...func(*token.Issuer)) (*authz.Gate, []*devissuer.Server) {
	t.Helper()
	var servers []*devissuer.Server
	var issuers []token.Issuer
	var urls []string
	for _, change := range changes {
		server, err := devissuer.Start(
			devissuer.Config{Audiences: []string{audience}, Algorithm: "ES256"},
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		issuer := token.Issuer{URL: server.URL(), Audiences: []string{audience}}
		change(&issuer)
		servers, issuers, urls = append(
			servers,
			server,
		), append(
			issuers,
			issuer,
		), append(
			urls,
			issuer.URL,
		)
	}
	verifier, err := token.NewVerifier(
		t.Context(),
		token.Config{Issuers: issuers, Logger: slog.New(slog.DiscardHandler)},
	)
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{
		Document: load(
			t,
			outwardDocument,
		), Verifier: verifier, Resource: resource, AuthorizationServers: urls,
	})
	if err != nil {
		t.Fatal(err)
	}
	return gate, servers
}

func prefixed(i *token.Issuer) { i.ScopePrefix = "https://api.example/" }
func plainly(*token.Issuer)    {}

// scopesOf is the scope of the first challenge.
func scopesOf(answer *http.Response) string {
	_, rest, _ := strings.Cut(answer.Header.Get("WWW-Authenticate"), `scope="`)
	scopes, _, _ := strings.Cut(rest, `"`)
	return scopes
}

func metadataScopes(t *testing.T, gate *authz.Gate) []string {
	t.Helper()
	w := httptest.NewRecorder()
	gate.ServeMetadata(w, httptest.NewRequest("GET", "/.well-known/oauth-protected-resource", nil))
	var metadata struct {
		Scopes []string `json:"scopes_supported"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &metadata); err != nil {
		t.Fatalf("metadata is %s: %v", w.Body, err)
	}
	return metadata.Scopes
}

// Clients get the names of scopes that their issuer uses.
func TestClientsGetTheIssuersNames(t *testing.T) {
	expired := map[string]any{"exp": time.Now().Unix() - 3600}
	for _, row := range []struct {
		name                     string
		issuers                  []func(*token.Issuer)
		missing, invalid, lacked string // of GET /two
		metadata                 string
	}{
		{"no names of its own", []func(*token.Issuer){plainly}, "read write", "read write", "read write", "admin read write"},
		{
			"a prefix", []func(*token.Issuer){prefixed},
			"https://api.example/read https://api.example/write", "https://api.example/read https://api.example/write",
			"https://api.example/read https://api.example/write",
			"https://api.example/admin https://api.example/read https://api.example/write",
		},
		{
			"names, of which one grants several", []func(*token.Issuer){func(i *token.Issuer) {
				i.ScopeNames = map[string]string{
					"reader": "read", "editor": "read write", "root": "read write admin",
				}
			}},
			"reader editor", "reader editor", "reader editor", "root reader editor",
		},
		{
			"names and a prefix", []func(*token.Issuer){func(i *token.Issuer) {
				i.ScopePrefix = "api/"
				i.ScopeNames = map[string]string{"r": "read", "write": "admin"}
			}},
			"api/r", "api/r", "api/r", "api/write api/r", // nothing of this issuer grants write
		},
		{
			"names in other claims than scopes", []func(*token.Issuer){func(i *token.Issuer) {
				i.ScopeClaims = []string{"/sub"}
				i.ScopeNames = map[string]string{"1122": "read write"}
			}},
			"read write", "read write", "read write", "admin read write",
		},
		{
			"two issuers of the same names", []func(*token.Issuer){prefixed, prefixed},
			"https://api.example/read https://api.example/write", "https://api.example/read https://api.example/write",
			"https://api.example/read https://api.example/write",
			"https://api.example/admin https://api.example/read https://api.example/write",
		},
		{
			"two issuers of different names: the token decides, and without it the document",
			[]func(*token.Issuer){prefixed, plainly},
			"read write", "https://api.example/read https://api.example/write",
			"https://api.example/read https://api.example/write", "admin read write",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			gate, servers := outward(t, row.issuers...)
			for what, c := range map[string]struct{ bearer, want string }{
				"no token":       {"", row.missing},
				"a bad token":    {servers[0].Mint(expired), row.invalid},
				"another scope":  {servers[0].Mint(map[string]any{"scope": "other"}), row.lacked},
				"not a JWT":      {"x", row.missing},
				"of no issuer":   {servers[0].Mint(map[string]any{"iss": "https://other.example"}), row.missing},
				"a scope of two": {servers[0].Mint(map[string]any{"scope": "read https://api.example/read api/r reader"}), row.lacked},
			} {
				got := startedWriter(t, gate, "/two", c.bearer)
				if scopesOf(got) != c.want {
					t.Errorf(
						"%s: challenge is %q, want scope %q",
						what,
						got.Header.Get("WWW-Authenticate"),
						c.want,
					)
				}
				if !strings.Contains(
					got.Header.Get("WWW-Authenticate"),
					`resource_metadata="https://api.example/`,
				) {
					t.Errorf(
						"%s: challenge is %q, want resource_metadata",
						what,
						got.Header.Get("WWW-Authenticate"),
					)
				}
			}
			if got := strings.Join(metadataScopes(t, gate), " "); got != row.metadata {
				t.Errorf("scopes_supported are %q, want %q", got, row.metadata)
			}
			if got := startedWriter(t, gate, "/any", ""); scopesOf(got) != "" {
				t.Errorf(
					"challenge of an operation without scopes is %q",
					got.Header.Get("WWW-Authenticate"),
				)
			}
		})
	}
}

// Tokens of the second issuer get its names.
func TestEachTokenGetsItsIssuersNames(t *testing.T) {
	gate, servers := outward(t, plainly, prefixed)
	for n, want := range []string{"read", "https://api.example/read"} {
		got := startedWriter(t, gate, "/one", servers[n].Mint(map[string]any{"scope": "write"}))
		if scopesOf(got) != want || got.StatusCode != http.StatusForbidden {
			t.Errorf(
				"issuer %d: %d with %q, want 403 with scope %q",
				n,
				got.StatusCode,
				got.Header.Get("WWW-Authenticate"),
				want,
			)
		}
	}
}

// The refusal of a handler has the scopes of the operation, like that of the gate.
func TestRefusalsOfHandlersHaveTheIssuersNames(t *testing.T) {
	gate, servers := outward(t, prefixed)
	for _, c := range []struct {
		err    error
		status int
		want   string
	}{
		{authz.StatusError(http.StatusUnauthorized, "", nil), 401, "https://api.example/read"},
		{&authz.Error{Kind: authz.InsufficientScope, Scopes: []string{"admin"}}, 403, "https://api.example/admin"},
	} {
		r := httptest.NewRequest("GET", "/one", nil)
		r.Header.Set(
			"Authorization",
			"Bearer "+servers[0].Mint(map[string]any{"scope": "https://api.example/read"}),
		)
		admitted, err := gate.Check(r, "/one", nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the handler may return the same error for all requests
			w := httptest.NewRecorder()
			gate.WriteProblem(w, admitted, c.err)
			if got := w.Result(); got.StatusCode != c.status || scopesOf(got) != c.want {
				t.Errorf(
					"%d with %q, want %d with scope %q",
					got.StatusCode,
					got.Header.Get("WWW-Authenticate"),
					c.status,
					c.want,
				)
			}
		}
	}
}

// Errors, principals and decisions have the names of the document.
func TestDecisionsHaveTheDocumentsNames(t *testing.T) {
	gate, servers := outward(t, prefixed)
	r := httptest.NewRequest("GET", "/two", nil)
	r.Header.Set("Authorization", "Bearer "+servers[0].Mint(nil))
	_, err := gate.Check(r, "/two", nil)
	if refused, ok := err.(*authz.Error); !ok ||
		!slices.Equal(refused.Scopes, []string{"read", "write"}) {
		t.Errorf("error is %#v, want the scopes read and write", err)
	}
}

func TestMetadataListsDefaultScopes(t *testing.T) {
	document := strings.Replace(
		outwardDocument,
		"x-scopes:",
		"x-authz-default-scopes: [read], x-scopes:",
		1,
	)
	gate, _ := realGate(t, authz.Config{Document: load(t, document), Resource: resource})
	if got := metadataScopes(t, gate); !slices.Equal(got, []string{"read"}) {
		t.Errorf("scopes_supported are %q, want read alone", got)
	}
	if got := startedWriter(t, gate, "/two", ""); scopesOf(got) != "read write" {
		t.Errorf(
			"challenge is %q, want the operation's own scopes",
			got.Header.Get("WWW-Authenticate"),
		)
	}
}
