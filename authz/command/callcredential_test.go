package command

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// credentialed accepts credentials of each kind, under a base path.
const credentialed = `
openapi: 3.1.0
info: {title: t, version: "1"}
servers: [{url: "https://api.example.com/v1"}]
paths:
  /header: {get: {operationId: header, security: [{x-key: []}], responses: {"204": {description: d}}}}
  /query: {get: {operationId: query, security: [{query: []}], parameters: [{name: q, in: query, schema: {type: string}}], responses: {"204": {description: d}}}}
  /cookie: {get: {operationId: cookie, security: [{cookie: []}], responses: {"204": {description: d}}}}
  /basic: {get: {operationId: basic, security: [{basic: []}], responses: {"204": {description: d}}}}
  /either: {get: {operationId: either, security: [{token: [read]}, {x-key: []}], responses: {"204": {description: d}}}}
  /two: {get: {operationId: two, security: [{x-key: [], cookie: []}], responses: {"204": {description: d}}}}
  /optional: {get: {operationId: optional, security: [{}, {x-key: []}], responses: {"204": {description: d}}}}
  /certificate: {get: {operationId: certificate, security: [{mtls: []}], responses: {"204": {description: d}}}}
  /public: {get: {operationId: public, security: [], responses: {"204": {description: d}}}}
components:
  securitySchemes:
    token: {type: http, scheme: bearer}
    x-key: {type: apiKey, in: header, name: X-Key}
    query: {type: apiKey, in: query, name: key}
    cookie: {type: apiKey, in: cookie, name: sid}
    basic: {type: http, scheme: basic}
    mtls: {type: mutualTLS}
`

// TestCallCredentials: call sends the credential of an alternative that it has one for, to where
// the document's paths begin.
func TestCallCredentials(t *testing.T) {
	var got string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = fmt.Sprintf("%s key=%s cookie=%s auth=%s", r.URL, r.Header.Get("X-Key"),
			r.Header.Get("Cookie"), r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer api.Close()
	program := things()
	program.Document = func() (*openapi3.T, error) {
		return openapi3.NewLoader().LoadFromData([]byte(credentialed))
	}
	for _, test := range []struct{ args, environ, want, stderr string }{
		{args: "header --key x-key=s=1", want: "/v1/header key=s=1 cookie= auth="},
		{args: "header", environ: "MANY_THINGS_KEY_X_KEY=s", want: "/v1/header key=s cookie= auth="},
		{args: "header", stderr: "give --key x-key=value, or MANY_THINGS_KEY_X_KEY"},
		{args: "query --q a --key query=s&t", want: "/v1/query?q=a&key=s%26t key= cookie= auth="},
		{args: "cookie --key cookie=s", want: "/v1/cookie key= cookie=sid=s auth="},
		{args: "basic --user u:p", want: "/v1/basic key= cookie= auth=Basic dTpw"},
		{args: "basic", environ: "MANY_THINGS_USER=u:p", want: "/v1/basic key= cookie= auth=Basic dTpw"},
		{args: "basic --user u", stderr: "--user: expected name:password"},
		{args: "basic", stderr: "give --user name:password, or MANY_THINGS_USER"},
		{args: "either --key x-key=s", want: "/v1/either key=s cookie= auth="},
		{args: "either", stderr: "--issuer (MANY_THINGS_ISSUER) is not set"},
		{args: "two --key x-key=s --key cookie=c", want: "/v1/two key=s cookie=sid=c auth="},
		{args: "two --key x-key=s", stderr: "give --key cookie=value"},
		{args: "optional", want: "/v1/optional key= cookie= auth="},
		{args: "optional --key x-key=s", want: "/v1/optional key=s cookie= auth="},
		{args: "certificate", stderr: "no credential for the security scheme mtls"},
		{args: "public", want: "/v1/public key= cookie= auth="},
		{args: "public", environ: "MANY_THINGS_BASE_PATH=/v2", want: "/v2/public key= cookie= auth="},
		{args: "public", environ: "MANY_THINGS_PUBLIC_PATH=/", want: "/public key= cookie= auth="},
		{args: "header --user u:p", stderr: "unknown flag --user"},
	} {
		for _, url := range []string{api.URL, api.URL + "/v1/"} {
			if strings.Contains(test.environ, "PATH") {
				url = api.URL
			}
			got = ""
			code, _, stderr := run(t, program, "call "+test.args+" --url "+url, test.environ)
			if got != test.want || (code == 0) != (test.stderr == "") ||
				!strings.Contains(stderr, test.stderr) {
				t.Errorf("%s %s at %s: sent %q, exit code %d, %s; want %q, %q", test.args,
					test.environ, url, got, code, stderr, test.want, test.stderr)
			}
		}
	}
	code, stdout, _ := run(t, program, "call")
	for _, access := range []string{"key cookie and key x-key", "token with read, or key x-key",
		"user and password", "optional: key x-key"} {
		if code != 0 || !strings.Contains(stdout, access) {
			t.Errorf("the list does not say %q: %s", access, stdout)
		}
	}
}

// TestCallKeepsSecrets: a key is only sent over https or to this machine, and no error contains it.
func TestCallKeepsSecrets(t *testing.T) {
	program := things()
	program.Document = func() (*openapi3.T, error) {
		return openapi3.NewLoader().LoadFromData([]byte(credentialed))
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, test := range []struct{ args, stderr string }{
		{"header --key x-key=canary --url http://api.invalid", "expected an https URL"},
		{"query --key query=canary --url http://api.invalid", "expected an https URL"},
		{"basic --user u:canary --url http://api.invalid", "expected an https URL"},
		{"query --key query=canary --url " + gone.URL, "set --url to the address of the API"},
	} {
		code, stdout, stderr := run(t, program, "call "+test.args, "")
		if code == 0 || !strings.Contains(stderr, test.stderr) ||
			strings.Contains(stdout+stderr, "canary") {
			t.Errorf("%s: exit code %d, %s%s, want %q", test.args, code, stdout, stderr,
				test.stderr)
		}
	}
}

// TestCallOverlay: call uses the same document as serve.
func TestCallOverlay(t *testing.T) {
	program := things()
	t.Chdir(t.TempDir())
	const closed = "overlay: 1.0.0\ninfo: {title: t, version: '1'}\nactions:\n" +
		"  - {target: \"$.paths['/things']\", remove: true}\n"
	if err := os.WriteFile("closed.yaml", []byte(closed), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay += "/closed.yaml"
	for _, row := range []struct{ line, environ string }{
		{"call list", "MANY_THINGS_OVERLAY=" + overlay},
		{"call list --overlay " + overlay, "MANY_THINGS_OVERLAY=missing.yaml"},
		{"call list --overlay=" + overlay, ""},
	} {
		if code, _, stderr := run(t, program, row.line, row.environ); code == 0 ||
			!strings.Contains(stderr, "no operations") {
			t.Errorf("%s: exit code %d, %s", row.line, code, stderr)
		}
	}
	if code, stdout, stderr := run(t, program, "call --overlay "+overlay); code != 0 ||
		strings.Contains(stdout, "/things") {
		t.Errorf("a list with an overlay: exit code %d, %s%s", code, stdout, stderr)
	}
}

// TestDevSecrets: dev accepts a known credential for each scheme without an authenticator.
func TestDevSecrets(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(credentialed))
	if err != nil {
		t.Fatal(err)
	}
	own := authz.APIKey(func(context.Context, string) (*token.Principal, error) {
		return nil, authz.ErrBadCredential
	})
	c := authz.Config{
		Document: document, Without: []string{"mtls", "token"},
		Authenticators: map[string]authz.Authenticator{"query": own},
	}
	plan, err := c.CompileSecurity()
	if err != nil {
		t.Fatal(err)
	}
	p := &policy{without: c.Without, unstated: authz.DenyUnstated, maxBody: 1}
	p.credentials.Store(&credentials{})
	if err := p.addDevSecrets(plan); err != nil {
		t.Fatal(err)
	}
	p.gate(&c)
	gate, err := authz.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for path, allowed := range map[string]bool{
		"/header": true, "/cookie": true, "/basic": true, "/either": true, "/two": true,
		"/query": false, "/certificate": false,
	} {
		r := httptest.NewRequest("GET", path+"?key="+devSecret, nil)
		r.Header.Set("X-Key", devSecret)
		r.AddCookie(&http.Cookie{Name: "sid", Value: devSecret})
		r.SetBasicAuth("full", devSecret)
		if path != "/query" {
			r.URL.RawQuery = ""
		}
		if _, err := gate.Check(r, path, nil); (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed: %t", path, err, allowed)
		}
	}
}
