package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// guardedAPI is an API below /v1 that a gate guards, with tokens of an issuer. The issuer writes
// scopes as api/read.
func guardedAPI(t *testing.T) (url string, issuer *devissuer.Server) {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: API, version: "1"}
paths:
  /read: {get: {operationId: read, security: [{t: [read]}], responses: {default: {description: any}}}}
  /open: {get: {operationId: open, security: [], responses: {default: {description: any}}}}
components: {securitySchemes: {t: {type: http, scheme: bearer, x-scopes: {read: Read, write: Write}, x-authz-default-scopes: [read]}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	url = "http://" + server.Listener.Addr().String() + "/v1"
	scopes := []string{"api/read", "api/write"}
	issuer, err = devissuer.Start(devissuer.Config{
		Audiences: []string{
			url,
		}, Scopes: scopes,
		Clients: []devissuer.Client{{ID: "full", Secret: secret, Scopes: scopes}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{url}, ScopePrefix: "api/"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{
		Document: document, Verifier: verifier, BasePath: "/v1", Resource: url,
		AuthorizationServers: []string{issuer.URL()},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	for _, o := range gate.Plan().Operations() {
		mux.HandleFunc("GET /v1"+o.Path, func(w http.ResponseWriter, r *http.Request) {
			p, _ := token.FromContext(r.Context())
			if p != nil {
				fmt.Fprint(w, strings.Join(p.Scopes(), " "))
			}
		})
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gate.ServesMetadata(r.URL.Path) {
			gate.ServeMetadata(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	server.Start()
	t.Cleanup(server.Close)
	return url, issuer
}

// A client that knows only the address of the API gets a token: it follows the 401 to the metadata
// and the issuer, and requests the scopes of the challenge.
func TestAPINamesItsIssuer(t *testing.T) {
	url, issuer := guardedAPI(t)
	// With a challenge, and without.
	for _, at := range []string{url + "/read", url + "/open", url} {
		for _, named := range []string{"", issuer.URL()} {
			source, err := client.New(
				t.Context(),
				client.Config{API: at, Issuer: named, ClientID: "full", ClientSecret: secret},
			)
			if err != nil {
				t.Fatal(err)
			}
			caller, err := source.Client(url)
			if err != nil {
				t.Fatal(err)
			}
			response, err := caller.Get(url + "/read")
			if err != nil {
				t.Fatalf("API %s: %v", at, err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf(
					"API %s: %s %q",
					at,
					response.Status,
					response.Header.Get("WWW-Authenticate"),
				)
			}
		}
	}
	found, err := client.DiscoverAPI(t.Context(), nil, url+"/read")
	if err != nil || found.Resource != url ||
		!slices.Equal(found.Issuers, []string{issuer.URL()}) ||
		!slices.Equal(found.Scopes, []string{"api/read"}) {
		t.Errorf("the API says %+v, %v", found, err)
	}
}

// A program with the scopes of the document sets the prefix that its issuer uses.
func TestScopePrefixAndResource(t *testing.T) {
	url, issuer := guardedAPI(t)
	source, err := client.New(t.Context(), client.Config{
		Issuer: issuer.URL(), ClientID: "full", ClientSecret: secret, Resource: url,
		ScopePrefix: "api/", Scopes: []string{"read"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := source.Token()
	if err != nil || got.Extra("scope") != "api/read" {
		t.Fatalf("scope is %v, %v: want api/read", got, err)
	}
}

func TestDiscoverAPIRefuses(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a request to another server: %s", r.URL)
	}))
	defer elsewhere.Close()
	for _, test := range []struct{ name, challenge, metadata, want string }{
		{"metadata elsewhere", `Bearer resource_metadata="` + elsewhere.URL + `/m"`, "", "metadata of another origin"},
		{"metadata that is not a URL", `Bearer resource_metadata="::"`, "", "metadata of another origin"},
		{"another resource", `Bearer resource_metadata="%s/m"`, `{"resource":"https://other.example","authorization_servers":["https://issuer.example"]}`, `resource is "https://other.example"`},
		{"a neighbour", `Bearer resource_metadata="%s/m"`, `{"resource":"%s/v2","authorization_servers":["https://issuer.example"]}`, "expected a prefix of"},
		{"a name that begins alike", `Bearer resource_metadata="%s/m"`, `{"resource":"%s/ap","authorization_servers":["https://issuer.example"]}`, "expected a prefix of"},
		{"no resource", `Bearer resource_metadata="%s/m"`, `{"authorization_servers":["https://issuer.example"]}`, `resource is ""`},
		{"no issuer", `Bearer resource_metadata="%s/m"`, `{"resource":"%s"}`, "authorization_servers is missing"},
		{"an issuer without TLS", `Bearer resource_metadata="%s/m"`, `{"resource":"%s","authorization_servers":["http://issuer.example"]}`, "http on loopback hosts only"},
		{"no JSON", `Bearer resource_metadata="%s/m"`, `x`, "expected a JSON object with resource and authorization_servers"},
		{"nothing at all", `Bearer realm="x"`, "", "/.well-known/oauth-protected-resource/api: status is 404"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var server *httptest.Server
			server = httptest.NewServer(
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case r.Header.Get("Authorization") != "":
						t.Error("a credential is sent")
					case r.URL.Path == "/api":
						challenge := strings.ReplaceAll(test.challenge, "%s", server.URL)
						w.Header().Set("WWW-Authenticate", challenge)
						w.WriteHeader(http.StatusUnauthorized)
					case r.URL.Path == "/m" && test.metadata != "":
						w.Header().Set("Content-Type", "application/json")
						fmt.Fprint(w, strings.ReplaceAll(test.metadata, "%s", server.URL))
					default:
						http.NotFound(w, r)
					}
				}),
			)
			defer server.Close()
			source, err := client.New(
				t.Context(),
				client.Config{API: server.URL + "/api", ClientID: "full", ClientSecret: secret},
			)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one that says %q", err, test.want)
			}
		})
	}
}

// An API cannot choose where the secret is sent if the issuer is configured.
func TestAPIDoesNotNameTheIssuer(t *testing.T) {
	var asked atomic.Int32
	url, _ := guardedAPI(t)
	other := httptest.NewServer(
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }),
	)
	defer other.Close()
	source, err := client.New(
		t.Context(),
		client.Config{API: url, Issuer: other.URL, ClientID: "full", ClientSecret: secret},
	)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := source.Token(); err == nil ||
		!strings.Contains(err.Error(), ", not of "+other.URL) ||
		asked.Load() != 0 {
		t.Errorf(
			"error is %v after %d requests to the issuer, want a refusal and none",
			err,
			asked.Load(),
		)
	}
}

// TestIssuerOfAnAPIElsewhere: a loopback issuer is not accepted for an API on another host.
func TestIssuerOfAnAPIElsewhere(t *testing.T) {
	transport := answering(
		`{"resource":"https://api.example","authorization_servers":["http://localhost:6379"]}`,
	)
	_, err := client.DiscoverAPI(
		t.Context(),
		&http.Client{Transport: transport},
		"https://api.example/read",
	)
	if err == nil || !strings.Contains(err.Error(), "expected an https URL, like the API's") {
		t.Errorf("error is %v, want the issuer to be refused", err)
	}
	for _, at := range []string{"", "http://api.example/", "https://u:hunter2@api.example/", "::"} {
		_, err := client.DiscoverAPI(t.Context(), &http.Client{Transport: unreachable{t}}, at)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("API %q: error is %v, want it to be refused without a request", at, err)
		}
	}
}

func TestConfigOfAPIs(t *testing.T) {
	good := client.Config{API: "https://api.example", ClientID: "x", ClientSecret: "x"}
	if _, err := client.New(t.Context(), good); err != nil {
		t.Errorf("error is %v", err)
	}
	for want, change := range map[string]func(*client.Config){
		"API is":                        func(c *client.Config) { c.API = "http://api.example" },
		"TokenURL and API are both set": func(c *client.Config) { c.TokenURL = "https://issuer.example/token" },
		"Resource is":                   func(c *client.Config) { c.Resource = "https://api.example/#x" },
		"one scope per element":         func(c *client.Config) { c.ScopePrefix, c.Scopes = "a ", []string{"b"} },
		"set Issuer, such as":           func(c *client.Config) { c.API = "" },
	} {
		config := good
		change(&config)
		if _, err := client.New(t.Context(), config); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one that says %q", err, want)
		}
	}
}
