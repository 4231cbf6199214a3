package authz_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// guarded has every kind of security, in a form that is valid in OpenAPI 3.0 and 3.1.
const guarded = `
openapi: 3.1.0
info: {title: Tests of the gate, version: "1"}
security: [{bearer: [base]}]
paths:
  /public:
    get: {operationId: public, security: [], responses: {"204": {description: Done.}}}
  /unstated:
    get: {operationId: unstated, responses: {"204": {description: Done.}}}
  /any:
    get: {operationId: any, security: [{bearer: []}], responses: {"204": {description: Done.}}}
    post:
      operationId: post
      security: [{bearer: []}]
      requestBody: &body
        required: true
        content:
          application/json: {schema: {type: object, additionalProperties: false, properties: {text: {type: string, maxLength: 5}}}}
          application/x-www-form-urlencoded: {schema: {type: object, properties: {access_token: {type: string}}}}
      responses: {"204": {description: Done.}}
  /one:
    get: {operationId: one, security: [{bearer: [read]}], responses: {"204": {description: Done.}}}
    put: {operationId: put, security: [{bearer: [read]}], requestBody: *body, responses: {"204": {description: Done.}}}
  /all:
    get: {operationId: all, security: [{bearer: [read, write]}], responses: {"204": {description: Done.}}}
  /either:
    get: {operationId: either, security: [{bearer: [read, write, base]}, {bearer: [admin]}, {bearer: [read, audit]}], responses: {"204": {description: Done.}}}
  /both:
    get: {operationId: both, security: [{bearer: [read], second: [audit]}], responses: {"204": {description: Done.}}}
  /optional/first:
    get: {operationId: optionalFirst, security: [{}, {bearer: [read]}], responses: {"204": {description: Done.}}}
  /optional/last:
    get: {operationId: optionalLast, security: [{bearer: [read]}, {}], responses: {"204": {description: Done.}}}
  /messages/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: message, security: [{bearer: []}], responses: {"204": {description: Done.}}}
    delete: {operationId: deleteMessage, security: [{bearer: [write]}], responses: {"204": {description: Done.}}}
  /declared:
    head: {operationId: head, security: [], responses: {"204": {description: Done.}}}
    options: {operationId: options, security: [{bearer: []}], responses: {"204": {description: Done.}}}
components:
  securitySchemes:
    bearer: &scheme
      type: http
      scheme: bearer
      x-scopes: {base: The least., read: Read., write: Write., admin: All of it., audit: Look on.}
    second: *scheme
`

const (
	challenge   = `Bearer realm="Tests of the gate"`
	wrongly     = challenge + `, error="invalid_request"`
	notValid    = challenge + `, error="invalid_token"`
	lacksScopes = challenge + `, error="insufficient_scope", scope="%s"`
)

// versions runs a test on a document as 3.1 and as 3.0.
func versions(t *testing.T, document string, test func(t *testing.T, document string)) {
	for _, version := range []string{"3.1.0", "3.0.3"} {
		t.Run(version, func(t *testing.T) {
			test(t, strings.Replace(document, "openapi: 3.1.0", "openapi: "+version, 1))
		})
	}
}

// TestCredentials is the table "Credentials" of the behaviour for clients, without the rows about
// bodies.
func TestCredentials(t *testing.T) {
	versions(t, guarded, func(t *testing.T, document string) {
		s := start(t, document, nil)
		good := s.token("read")
		foreign := newIssuer(t).Mint(nil)
		for _, row := range []struct {
			name    string
			request string
			headers []string

			operation string // the operation that runs; "" for a refusal
			anonymous bool   // it runs without a principal
			status    int
			kind      authz.Kind
			challenge string
			verified  int64 // tokens
		}{
			{"no Authorization", "GET /any", nil, "", false, 401, authz.MissingToken, challenge, 0},
			{"empty Authorization", "GET /any", []string{"Authorization:"}, "", false, 401, authz.MissingToken, challenge, 0},
			{"Basic", "GET /any", []string{"Authorization: Basic " + submitted}, "", false, 401, authz.MissingToken, challenge, 0},
			{"Digest", "GET /any", []string{`Authorization: Digest username="Bearer ` + good + `"`}, "", false, 401, authz.MissingToken, challenge, 0},
			{"a bare token", "GET /any", []string{"Authorization: " + good}, "", false, 401, authz.MissingToken, challenge, 0},
			{"no space after Bearer", "GET /any", []string{"Authorization: Bearer" + good}, "", false, 401, authz.MissingToken, challenge, 0},
			{"Bearer=", "GET /any", []string{"Authorization: Bearer=" + good}, "", false, 401, authz.MissingToken, challenge, 0},

			{"Bearer", "GET /any", []string{"Authorization: Bearer " + good}, "any", false, 0, "", "", 1},
			{"bearer", "GET /any", []string{"authorization: bearer " + good}, "any", false, 0, "", "", 1},
			{"BEARER", "GET /any", []string{"AUTHORIZATION: BEARER " + good}, "any", false, 0, "", "", 1},
			{"bEaReR", "GET /any", []string{"Authorization: bEaReR " + good}, "any", false, 0, "", "", 1},
			{"several spaces", "GET /any", []string{"Authorization: Bearer    " + good}, "any", false, 0, "", "", 1},
			{"spaces around", "GET /any", []string{"Authorization:   Bearer " + good + "  "}, "any", false, 0, "", "", 1},

			{"Bearer and no token", "GET /any", []string{"Authorization: Bearer"}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"Bearer and spaces", "GET /any", []string{"Authorization: Bearer   "}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"two words", "GET /any", []string{"Authorization: Bearer " + good + " " + submitted}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"a tab as separator", "GET /any", []string{"Authorization: Bearer\t" + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"a space and a tab", "GET /any", []string{"Authorization: Bearer \t" + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"a tab within", "GET /any", []string{"Authorization: Bearer " + good + "\t" + submitted}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"comma-joined tokens", "GET /any", []string{"Authorization: Bearer " + good + "," + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"comma-joined credentials", "GET /any", []string{"Authorization: Bearer " + good + ", Bearer " + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"the same header twice", "GET /any", []string{"Authorization: Bearer " + good, "Authorization: Bearer " + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"Basic and Bearer", "GET /any", []string{"Authorization: Basic " + submitted, "Authorization: Bearer " + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"an empty header and Bearer", "GET /any", []string{"Authorization:", "Authorization: Bearer " + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"header and query", "GET /any?access_token=" + good, []string{"Authorization: Bearer " + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"header and escaped query", "GET /any?a=b&access%5Ftoken", []string{"Authorization: Bearer " + good}, "", false, 400, authz.InvalidRequest, wrongly, 0},

			{"query alone", "GET /any?access_token=" + good, nil, "", false, 401, authz.MissingToken, challenge, 0},
			{"cookie alone", "GET /any", []string{"Cookie: access_token=" + good}, "", false, 401, authz.MissingToken, challenge, 0},
			{"X-Forwarded-Authorization", "GET /any", []string{"X-Forwarded-Authorization: Bearer " + good}, "", false, 401, authz.MissingToken, challenge, 0},
			{"Proxy-Authorization", "GET /any", []string{"Proxy-Authorization: Bearer " + good}, "", false, 401, authz.MissingToken, challenge, 0},

			{"malformed", "GET /any", []string{"Authorization: Bearer " + submitted}, "", false, 401, authz.InvalidToken, notValid, 1},
			{"not a token's characters", "GET /any", []string{"Authorization: Bearer \xff\"quoted\"\\"}, "", false, 401, authz.InvalidToken, notValid, 1},
			{"forged", "GET /any", []string{"Authorization: Bearer " + good[:len(good)-8] + "AAAAAAAA"}, "", false, 401, authz.InvalidToken, notValid, 1},
			{"expired", "GET /any", []string{"Authorization: Bearer " + s.issuer.Mint(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})}, "", false, 401, authz.InvalidToken, notValid, 1},
			{"of another audience", "GET /any", []string{"Authorization: Bearer " + s.issuer.Mint(map[string]any{"aud": submitted})}, "", false, 401, authz.InvalidToken, notValid, 1},
			{"of another issuer", "GET /any", []string{"Authorization: Bearer " + foreign}, "", false, 401, authz.InvalidToken, notValid, 1},
			{"an invalid token, on an operation with scopes that it claims", "GET /one", []string{"Authorization: Bearer " + s.issuer.Mint(map[string]any{"scope": "read", "exp": 1})}, "", false, 401, authz.InvalidToken, notValid + `, scope="read"`, 1},

			{"the scope", "GET /one", []string{s.bearer("read")}, "one", false, 0, "", "", 1},
			{"the scope among others", "GET /one", []string{s.bearer("x read y")}, "one", false, 0, "", "", 1},
			{"no scope", "GET /one", []string{"Authorization: Bearer " + s.issuer.Mint(nil)}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read"), 1},
			{"another scope", "GET /one", []string{s.bearer(submitted)}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read"), 1},
			{"a longer scope", "GET /one", []string{s.bearer("reader read:all")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read"), 1},
			{"the scope in capitals", "GET /one", []string{s.bearer("READ")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read"), 1},
			{"permissions are not scopes", "GET /one", []string{"Authorization: Bearer " + s.issuer.Mint(map[string]any{"permissions": []string{"read"}})}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read"), 1},
			{"one scope of two", "GET /all", []string{s.bearer("write")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read write"), 1},
			{"both scopes", "GET /all", []string{s.bearer("write read")}, "all", false, 0, "", "", 1},
			{"the document's own requirement", "GET /unstated", []string{s.bearer("base")}, "unstated", false, 0, "", "", 1},
			{"the document's own requirement, unmet", "GET /unstated", []string{s.bearer("read")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "base"), 1},
			{"the document's own requirement, no token", "GET /unstated", nil, "", false, 401, authz.MissingToken, challenge + `, scope="base"`, 0},

			{"first alternative", "GET /either", []string{s.bearer("read write base")}, "either", false, 0, "", "", 1},
			{"second alternative", "GET /either", []string{s.bearer("admin")}, "either", false, 0, "", "", 1},
			{"third alternative", "GET /either", []string{s.bearer("audit read")}, "either", false, 0, "", "", 1},
			{"nothing of any alternative: the cheapest", "GET /either", []string{s.bearer("x")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "admin"), 1},
			{"one short of two alternatives: the one that asks for less", "GET /either", []string{s.bearer("read write")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "admin"), 1},
			{"several alternatives, no token", "GET /either", nil, "", false, 401, authz.MissingToken, challenge + `, scope="admin"`, 0},
			{"several alternatives, a bad token", "GET /either", []string{"Authorization: Bearer a.b.c"}, "", false, 401, authz.InvalidToken, notValid + `, scope="admin"`, 1},

			{"two schemes, both met", "GET /both", []string{s.bearer("read audit")}, "both", false, 0, "", "", 1},
			{"two schemes, one met", "GET /both", []string{s.bearer("read")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read audit"), 1},
			{"two schemes, the other met", "GET /both", []string{s.bearer("audit")}, "", false, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read audit"), 1},
			{"two schemes, no token", "GET /both", nil, "", false, 401, authz.MissingToken, challenge + `, scope="read audit"`, 0},

			{"public, no token", "GET /public", nil, "public", true, 0, "", "", 0},
			{"public, a token", "GET /public", []string{s.bearer("read")}, "public", true, 0, "", "", 0},
			{"public, a bad token", "GET /public", []string{"Authorization: Bearer a.b.c"}, "public", true, 0, "", "", 0},
			{"public, two tokens", "GET /public", []string{"Authorization: Bearer a", "Authorization: Bearer b"}, "public", true, 0, "", "", 0},

			{"optional first, no token", "GET /optional/first", nil, "optionalFirst", true, 0, "", "", 0},
			{"optional first, another scheme", "GET /optional/first", []string{"Authorization: Basic x"}, "optionalFirst", true, 0, "", "", 0},
			{"optional first, a token", "GET /optional/first", []string{s.bearer("read")}, "optionalFirst", false, 0, "", "", 1},
			{"optional first, a token without the scope", "GET /optional/first", []string{s.bearer("x")}, "optionalFirst", false, 0, "", "", 1},
			{"optional first, a bad token", "GET /optional/first", []string{"Authorization: Bearer a.b.c"}, "", false, 401, authz.InvalidToken, notValid + `, scope="read"`, 1},
			{"optional first, an expired token", "GET /optional/first", []string{"Authorization: Bearer " + s.issuer.Mint(map[string]any{"exp": 1})}, "", false, 401, authz.InvalidToken, notValid + `, scope="read"`, 1},
			{"optional first, presented wrongly", "GET /optional/first", []string{"Authorization: Bearer"}, "", false, 400, authz.InvalidRequest, wrongly, 0},
			{"optional last, no token", "GET /optional/last", nil, "optionalLast", true, 0, "", "", 0},
			{"optional last, a token", "GET /optional/last", []string{s.bearer("read")}, "optionalLast", false, 0, "", "", 1},
			{"optional last, a token without the scope", "GET /optional/last", []string{s.bearer("x")}, "optionalLast", false, 0, "", "", 1},
			{"optional last, a bad token", "GET /optional/last", []string{"Authorization: Bearer a.b.c"}, "", false, 401, authz.InvalidToken, notValid + `, scope="read"`, 1},

			{"unknown path", "GET /" + submitted, nil, "", false, 404, authz.NotFound, "", 0},
			{"unknown path, a token", "GET /" + submitted, []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"unknown path, a bad token", "GET /any/" + submitted, []string{"Authorization: Bearer a.b.c"}, "", false, 404, authz.NotFound, "", 0},
			{"a slash more", "GET /any/", []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"other letters", "GET /ANY", []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"dots", "GET /public/../any", nil, "", false, 404, authz.NotFound, "", 0},
			{"an escaped letter", "GET /%61ny", []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"an empty parameter", "GET /messages/", []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"a segment more", "GET /messages/1/" + submitted, []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"a slash after a parameter", "GET /messages/1/", []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"a segment more, another method", "PATCH /messages/1/" + submitted, []string{s.bearer("read")}, "", false, 404, authz.NotFound, "", 0},
			{"the whole server", "OPTIONS *", nil, "", false, 404, authz.NotFound, "", 0},

			{"another method", "DELETE /any", nil, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"another method, a token", "DELETE /any", []string{s.bearer("read")}, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"another method, a bad token", "DELETE /any", []string{"Authorization: Bearer a.b.c"}, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"an unheard-of method", "BREW /any", nil, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"get in small letters", "get /any", nil, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"OPTIONS", "OPTIONS /any", nil, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"TRACE", "TRACE /any", nil, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"another method, with a parameter", "PATCH /messages/1", nil, "", false, 405, authz.MethodNotAllowed, "", 0},
			{"OPTIONS as declared", "OPTIONS /declared", []string{s.bearer("x")}, "options", false, 0, "", "", 1},
			{"OPTIONS as declared, no token", "OPTIONS /declared", nil, "", false, 401, authz.MissingToken, challenge, 0},
			{"HEAD as declared", "HEAD /declared", nil, "head", true, 0, "", "", 0},
		} {
			t.Run(row.name, func(t *testing.T) {
				a := s.send(t, row.request, "", row.headers...)
				if a.verified != row.verified {
					t.Errorf("%d tokens were verified, want %d", a.verified, row.verified)
				}
				if row.operation != "" {
					ran := a.passed(t, row.operation)
					if (ran.principal == nil) != row.anonymous {
						t.Errorf("the principal is %v, want anonymous %v", ran.principal,
							row.anonymous)
					}
					return
				}
				a.refused(t, row.status, row.kind, row.challenge)
			})
		}
		t.Run("Allow", func(t *testing.T) {
			for request, expected := range map[string]string{
				"DELETE /any": "GET, HEAD, POST", "PATCH /messages/1": "DELETE, GET, HEAD", "GET /declared": "HEAD, OPTIONS", "OPTIONS /messages/1": "DELETE, GET, HEAD",
			} {
				if got := s.send(t, request, "").Header.Values("Allow"); !slices.Equal(got,
					[]string{expected}) {
					t.Errorf("%s: Allow is %q, want %q", request, got, expected)
				}
			}
		})
		t.Run("HEAD", func(t *testing.T) { // as GET, by GET's policy, without the body
			a := s.send(t, "HEAD /any", "")
			if a.StatusCode != 401 || len(a.body) != 0 ||
				a.Header.Get("Content-Type") != "application/problem+json" || a.ran != nil {
				t.Errorf("HEAD of a GET operation: status %d, Content-Type %q, body %q; want "+
					"401, a problem's header, no body", a.StatusCode, a.Header.Get("Content-Type"),
					a.body)
			}
			if a := s.send(t, "HEAD /any", "", s.bearer("x")); a.passed(t, "any") == nil ||
				len(a.body) != 0 {
				t.Errorf("HEAD of a GET operation has a body: %q", a.body)
			}
			s.send(t, "HEAD /messages/1", "", s.bearer("x")).passed(t, "message")
		})
	})
}

func TestPrincipalReachesHandler(t *testing.T) {
	s := start(t, guarded, nil)
	ran := s.send(t, "GET /one", "", "Authorization: Bearer "+
		s.issuer.Mint(map[string]any{"scope": "read write", "sub": "somebody",
			"client_id": "some-client"})).passed(t, "one")
	if p := ran.principal; p == nil || p.Subject() != "somebody" || p.ClientID() != "some-client" ||
		!slices.Equal(p.Scopes(), []string{"read", "write"}) {
		t.Errorf("the principal of the handler is %+v, want that of the token", p)
	}
}

// TestKeysUnavailable: during an outage of the keys, a response does not say whether a token is
// valid.
func TestKeysUnavailable(t *testing.T) {
	s := start(t, guarded, nil)
	s.issuer.Fail(devissuer.Fault{Down: true})
	good := s.bearer("read")
	for _, request := range []string{"GET /any", "GET /optional/first",
		"GET /optional/last", "GET /either"} {
		a := s.send(t, request, "", good)
		a.refused(t, 503, authz.KeysUnavailable, "")
		if a.Header.Get("Retry-After") < "1" {
			t.Errorf("%s: Retry-After is %q, want a number of seconds", request,
				a.Header.Get("Retry-After"))
		}
	}
	s.send(t, "POST /any", "x", good).refused(t, 503, authz.KeysUnavailable, "")
	s.send(t, "GET /public", "", good).passed(t, "public")
	s.send(t, "GET /optional/first", "").passed(t, "optionalFirst")
	// no key is needed
	s.send(t, "GET /any", "", "Authorization: Bearer "+submitted).refused(t, 401,
		authz.InvalidToken, notValid)
}

// TestBodyOfRefusedRequest: no byte of a body is read before the token is accepted. A client that
// sends its body after the response gets the response, although net/http would drain the body
// first. A client that floods is disconnected.
func TestBodyOfRefusedRequest(t *testing.T) {
	s := start(t, guarded, nil)
	const mebibytes = 200
	silence := func() io.Reader {
		silent, _ := io.Pipe()
		return silent
	}
	flood := func() io.Reader { // chunked invalid JSON, which the response must not mention
		return io.MultiReader(&repeated{bytes: "100000\r\n" + strings.Repeat("x", 1<<20) + "\r\n",
			n: mebibytes}, strings.NewReader("0\r\n\r\n"))
	}
	weak := s.bearer("x")
	for _, row := range []struct {
		name      string
		request   string
		headers   []string
		status    int
		kind      authz.Kind
		challenge string
	}{
		{"no token", "POST /any", nil, 401, authz.MissingToken, challenge},
		{"token in a form", "POST /any", []string{"Content-Type: application/x-www-form-urlencoded"}, 401, authz.MissingToken, challenge},
		{"presented wrongly", "POST /any", []string{"Authorization: Bearer"}, 400, authz.InvalidRequest, wrongly},
		{"bad token", "POST /any", []string{"Authorization: Bearer a.b.c"}, 401, authz.InvalidToken, notValid},
		{"no scope", "PUT /one", []string{weak, "Content-Type: application/json"}, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read")},
		{"on GET", "GET /any", nil, 401, authz.MissingToken, challenge},
		{"on an optional operation", "GET /optional/first", []string{"Authorization: Bearer a.b.c"}, 401, authz.InvalidToken, notValid + `, scope="read"`},
		{"unknown path", "POST /nowhere", []string{weak}, 404, authz.NotFound, ""},
		{"another method", "DELETE /any", []string{weak}, 405, authz.MethodNotAllowed, ""},
		{"wrong query", "POST /any?x=" + submitted, []string{weak, "Content-Type: application/json"}, 400, authz.InvalidParameter, ""},
		{"compressed", "POST /any", []string{weak, "Content-Type: application/json", "Content-Encoding: gzip"}, 415, authz.UnsupportedMediaType, ""},
		{"no Content-Type", "POST /any", []string{weak}, 415, authz.UnsupportedMediaType, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, sent := range []struct {
				name   string
				header string
				body   func() io.Reader
			}{
				{"chunked, waiting", "Transfer-Encoding: chunked", silence},
				{"of a length, waiting", "Content-Length: 100", silence},
				{"chunked, flooding", "Transfer-Encoding: chunked", flood},
				{"of a length, flooding", fmt.Sprintf("Content-Length: %d", mebibytes<<20), flood},
				{"asking first", "Content-Length: 100\r\nExpect: 100-continue", silence},
			} {
				a := s.exchange(t, row.request, sent.body(),
					append([]string{sent.header}, row.headers...)...)
				a.refused(t, row.status, row.kind, row.challenge)
				if a.read != 0 {
					t.Errorf("%s: %d bytes of the body were read, want none", sent.name, a.read)
				}
				// after the response, net/http itself reads up to 256 KiB
				if a.received > 512<<10 {
					t.Errorf("%s: the server read %d bytes, want it to close the connection", sent.name,
						a.received)
				}
				if !a.Close {
					t.Errorf("%s: the answer does not say Connection: close", sent.name)
				}
			}
		})
	}
	t.Run("with no body, the connection lives on", func(t *testing.T) {
		if s.send(t, "GET /any", "").Close {
			t.Error("the answer says Connection: close on a request without a body")
		}
	})
	t.Run("with its body read, the connection lives on", func(t *testing.T) {
		if a := s.send(t, "POST /any", `{"text": "too long"}`, weak,
			"Content-Type: application/json"); a.Close || a.StatusCode != 400 {
			t.Errorf("status %d, close %v: want 400, and no Connection: close once all is read",
				a.StatusCode, a.Close)
		}
		s.answering(func(echo.Context) error { return echo.ErrTeapot })
		defer s.answering(nil)
		if a := s.send(t, "POST /any", `{"text": "short"}`, weak,
			"Content-Type: application/json"); a.Close || a.StatusCode != 418 {
			t.Errorf("status %d, close %v: want the handler's 418, and no Connection: close "+
				"once all is read", a.StatusCode, a.Close)
		}
	})
}

// principals are genuine principals by their tokens, for tests that are not about tokens.
type principals map[string]*token.Principal

func (p principals) Verify(_ context.Context, raw string) (*token.Principal, error) {
	if principal := p[raw]; principal != nil {
		return principal, nil
	}
	return nil, &token.Error{Code: token.BadSignature, Detail: "a test's bad token"}
}

// newPrincipals makes one for each set of scopes; the scopes are its token.
func newPrincipals(tb testing.TB, scopes ...string) principals {
	tb.Helper()
	issuer := newIssuer(tb)
	verifier := newVerifier(tb, issuer)
	p := principals{}
	for _, s := range scopes {
		principal, err := verifier.Verify(tb.Context(), issuer.Mint(map[string]any{"scope": s}))
		if err != nil {
			tb.Fatal(err)
		}
		p[strings.ReplaceAll(s, " ", "+")] = principal
	}
	return p
}

// TestDecisionIsThatOfTheDocument compares the gate with a reference evaluator, for random
// alternatives and all callers.
func TestDecisionIsThatOfTheDocument(t *testing.T) {
	all := []string{"a", "b", "c"}
	var callers []string // the scopes of each
	for set := range 1 << len(all) {
		var has []string
		for i, s := range all {
			if set>>i&1 == 1 {
				has = append(has, s)
			}
		}
		callers = append(callers, strings.Join(has, " "))
	}
	verifier := newPrincipals(t, callers...)
	verifier["none"] = verifier[""]
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	doc := load(t, guarded)
	responses := doc.Paths.Value("/public").Get.Responses
	doc.Paths = openapi3.NewPaths()
	for _, name := range []string{"bearer", "second"} {
		doc.Components.SecuritySchemes[name].Value.Extensions["x-scopes"] = map[string]any{"a": "",
			"b": "", "c": "", "base": ""}
	}
	type operation struct {
		path         string
		alternatives [][]string // scopes
	}
	var operations []operation
	for i := range 300 {
		o := operation{path: fmt.Sprintf("/%d", i)}
		security := openapi3.SecurityRequirements{}
		for range random.IntN(4) {
			requirement := openapi3.SecurityRequirement{}
			var scopes []string
			for _, scheme := range []string{"bearer", "second"}[:random.IntN(3)] {
				requirement[scheme] = []string{}
				for _, s := range all {
					if random.IntN(3) == 0 {
						requirement[scheme] = append(requirement[scheme], s)
						scopes = append(scopes, s)
					}
				}
			}
			if len(requirement) == 0 {
				scopes = nil
			} else if scopes == nil {
				scopes = []string{}
			}
			security, o.alternatives = append(security, requirement), append(o.alternatives, scopes)
		}
		spec := &openapi3.Operation{OperationID: fmt.Sprint("o", i), Security: &security,
			Responses: responses}
		doc.Paths.Set(o.path, &openapi3.PathItem{Get: spec})
		operations = append(operations, o)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}

	// reference: what the caller may do, and which alternatives are nearest. nil is the anonymous
	// alternative.
	reference := func(alternatives [][]string, credential string) (authz.Kind, [][]string) {
		anonymous := slices.ContainsFunc(alternatives, func(a []string) bool { return a == nil })
		public := !slices.ContainsFunc(alternatives, func(a []string) bool { return a != nil })
		has := strings.Split(credential, "+")
		fewest, nearest := 99, [][]string(nil)
		for _, a := range alternatives {
			missing := len(slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(a))),
				func(s string) bool {
					return slices.Contains(has, s)
				}))
			if missing < fewest {
				fewest, nearest = missing, nil
			}
			if missing == fewest {
				nearest = append(nearest, a)
			}
		}
		switch {
		case public, credential == "" && anonymous:
			return "", nil
		case credential == "":
			return authz.MissingToken, nil
		case credential == "bad":
			return authz.InvalidToken, nil
		case fewest == 0:
			return "", nil
		}
		return authz.InsufficientScope, nearest
	}

	decided := map[authz.Kind]int{}
	for _, o := range operations {
		for _, credential := range append(callers, "bad", "none") {
			credential = strings.ReplaceAll(credential, " ", "+")
			r := httptest.NewRequest("GET", o.path, nil)
			if credential != "" {
				r.Header.Set("Authorization", "Bearer "+credential)
			}
			_, err := gate.Check(r, o.path, nil)
			var refused *authz.Error
			if err != nil && !errors.As(err, &refused) {
				t.Fatalf("Check returned a %T: %v", err, err)
			}
			var kind authz.Kind
			if refused != nil {
				kind = refused.Kind
			}
			expected, nearest := reference(o.alternatives, credential)
			decided[kind]++
			if kind != expected {
				t.Errorf("alternatives %q, credential %q: decided %q, want %q", o.alternatives,
					credential, kind, expected)
			}
			if kind == authz.InsufficientScope {
				set := func(s []string) string {
					return fmt.Sprint(slices.Compact(slices.Sorted(slices.Values(s))))
				}
				if !slices.ContainsFunc(nearest, func(a []string) bool {
					return set(a) == set(refused.Scopes)
				}) {
					t.Errorf("alternatives %q, credential %q: the challenge names %q, want "+
						"one of %q", o.alternatives, credential, refused.Scopes, nearest)
				}
			}
		}
	}
	for _, kind := range []authz.Kind{"", authz.MissingToken, authz.InvalidToken,
		authz.InsufficientScope} {
		if decided[kind] < 50 {
			t.Errorf("only %d decisions were %q: the random documents prove little", decided[kind],
				kind)
		}
	}
}

// TestConcurrentRequests: concurrent requests share nothing but the plan: the race detector finds
// no race, and each handler gets its own principal.
func TestConcurrentRequests(t *testing.T) {
	verifier := newPrincipals(t, "read", "write", "read write")
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.HTTPErrorHandler = echov4.ErrorHandler(gate)
	e.Use(echov4.Middleware(gate))
	for _, o := range gate.Plan().Operations() {
		e.Add(o.Method, echoPath(o.Path), func(c echo.Context) error {
			principal, _ := token.FromContext(c.Request().Context())
			raw := strings.TrimPrefix(c.Request().Header.Get("Authorization"), "Bearer ")
			if o.Public() != (principal == nil) || principal != nil && principal != verifier[raw] {
				t.Errorf("%s runs with the principal %v, want that of token %q", o.ID,
					principal, raw)
			}
			return c.NoContent(http.StatusNoContent)
		})
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 200 {
				for raw := range verifier {
					target := []string{"/public", "/any", "/one", "/all", "/either", "/both",
						"/messages/7", "/nowhere"}[(n+i)%8]
					r := httptest.NewRequest("GET", target, nil)
					r.Header.Set("Authorization", "Bearer "+raw)
					w := httptest.NewRecorder()
					e.ServeHTTP(w, r)
					if w.Code == http.StatusInternalServerError {
						t.Errorf("GET %s: %s", target, w.Body)
					}
				}
			}
		})
	}
	all.Wait()
}

// TestVerifierFailures: an unclassified error is a 500 and a refusal.
func TestVerifierFailures(t *testing.T) {
	for _, row := range []struct {
		name      string
		principal *token.Principal
		err       error
		status    int
		kind      authz.Kind
	}{
		{"neither", nil, nil, 500, authz.Internal},
		{"an error of its own", nil, errors.New("broken: " + submitted), 500, authz.Internal},
		{"an error beside a principal", &token.Principal{}, errors.New("broken"), 500, authz.Internal},
		{"the context's end", nil, context.DeadlineExceeded, 500, authz.Internal},
		{"a wrapped refusal", nil, fmt.Errorf("around: %w", &token.Error{Code: token.Expired}), 401, authz.InvalidToken},
		{"a refusal beside a principal", &token.Principal{}, &token.Error{Code: token.Expired}, 401, authz.InvalidToken},
		{"no keys", nil, fmt.Errorf("around: %w", &token.Error{Code: token.KeysUnavailable}), 503, authz.KeysUnavailable},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := start(t, guarded, func(c *authz.Config) {
				c.Verifier = verifierFunc(func() (*token.Principal, error) {
					return row.principal, row.err
				})
			})
			for _, request := range []string{"GET /any", "GET /optional/first"} {
				expected := ""
				if row.status == 401 {
					expected = notValid
					if request == "GET /optional/first" {
						expected += `, scope="read"`
					}
				}
				s.send(t, request, "", "Authorization: Bearer x").refused(t, row.status, row.kind,
					expected)
			}
		})
	}
}

type verifierFunc func() (*token.Principal, error)

func (f verifierFunc) Verify(context.Context, string) (*token.Principal, error) { return f() }

// TestCheck is the decision without Echo.
func TestCheck(t *testing.T) {
	gate, err := authz.New(authz.Config{Document: load(t, guarded),
		Verifier: newPrincipals(t, "read")})
	if err != nil {
		t.Fatal(err)
	}
	request := func(method, target string) *http.Request {
		r := httptest.NewRequest(method, target, nil)
		r.Header.Set("Authorization", "Bearer read")
		return r
	}
	is := func(err error, kind authz.Kind) bool {
		refused, ok := errors.AsType[*authz.Error](err)
		return ok && refused.Kind == kind
	}
	id := func(value string) func(string) string { return func(string) string { return value } }

	r, err := gate.Check(request("GET", "/messages/1"), "/messages/{id}", id("1"))
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	if p, ok := token.FromContext(r.Context()); !ok || !p.HasScope("read") {
		t.Error("the principal is not in the context of the request that Check returned")
	}
	if _, err := gate.Check(request("GET", "/messages/1"), "/messages/:id",
		id("1")); !is(err, authz.Internal) {
		t.Errorf("a template that the document does not have: %v, want internal", err)
	}
	if _, err := gate.Check(request("GET", "/messages/1"), "", nil); !is(err, authz.NotFound) {
		t.Errorf("no route: %v, want not-found", err)
	}
	if _, err := gate.Check(request("GET", "/messages/1"),
		"GET /messages/{id}", id("1")); err != nil {
		t.Errorf("a pattern: %v, want it to be admitted", err)
	}
	if _, err := gate.Check(request("PATCH", "/messages/1"), "/messages/{id}", id("1")); !is(err,
		authz.MethodNotAllowed) {
		t.Errorf("another method: %v, want method-not-allowed", err)
	}
	for name, param := range map[string]func(string) string{"no function": nil,
		"an empty value": id("")} {
		if _, err := gate.Check(request("GET", "/messages/1"), "/messages/{id}",
			param); !is(err, authz.NotFound) {
			t.Errorf("a path parameter from %s: %v, want a refusal: it has not been validated",
				name, err)
		}
	}
	_, err = gate.Check(request("GET", "/all"), "/all", nil)
	if refused, ok := errors.AsType[*authz.Error](err); !ok || refused.Status() != 403 ||
		!slices.Equal(refused.Scopes, []string{"read", "write"}) {
		t.Errorf("refused with %+v, want 403 with the scopes", err)
	}
}

// FuzzCredential: whatever Authorization contains, the verifier gets one word or nothing.
func FuzzCredential(f *testing.F) {
	for _, seed := range []string{
		"", "Bearer", "Bearer ", "Bearer x", "bearer  x", "Bearer\tx", "Bearer x y", "Bearer x,y", "Bearer x, Bearer y", "Bearerx", "Basic x", "Bearer \x00", "Bearer x\n", "Bearer \u00a0x", "BEARER x.y.z", "Bearer x ", "Bear", "ſearer x", "Bearer \xff",
	} {
		f.Add(seed, "")
		f.Add(seed, "access_token=x")
		f.Add(seed, "a=b;access_token&%zz&access%5ftoken")
		f.Add(seed, "a&access_token=")
		f.Add(seed, "&access_token=%zz;")
	}
	var seen string
	gate, err := authz.New(authz.Config{Document: load(f, guarded), Verifier: seeing{&seen}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value, query string) {
		seen = ""
		r := httptest.NewRequest("GET", "/any", nil)
		r.Header["Authorization"] = []string{value}
		r.URL.RawQuery = query
		_, err := gate.Check(r, "/any", nil)
		refused, ok := errors.AsType[*authz.Error](err)
		if !ok {
			t.Fatalf("admitted, or refused with a %T: %v", err, err)
		}
		if strings.ContainsAny(seen, " \t,") {
			t.Errorf("the verifier saw %q", seen)
		}
		if seen != "" && (!strings.EqualFold(value[:7], "Bearer ") ||
			!strings.HasSuffix(value, seen)) {
			t.Errorf("the verifier saw %q of the header %q", seen, value)
		}
		if seen != "" && strings.Contains("&"+query, "&access_token=") {
			t.Errorf("the verifier saw a token although there is one in the query %q", query)
		}
		if (seen != "") != (refused.Kind == authz.InvalidToken) || seen == "" &&
			refused.Kind != authz.MissingToken && refused.Kind != authz.InvalidRequest {
			t.Errorf("the verifier saw %q, the refusal is %s", seen, refused.Kind)
		}
		if len(value) > 20 && strings.Contains(err.Error(), value[8:]) {
			t.Errorf("the error contains a part of the header: %v", err)
		}
	})
}

type seeing struct{ token *string }

func (s seeing) Verify(_ context.Context, raw string) (*token.Principal, error) {
	*s.token = raw
	return nil, &token.Error{Code: token.Malformed}
}

// BenchmarkGate measures the gate only: without Echo, verification and a response.
func BenchmarkGate(b *testing.B) {
	gate, err := authz.New(authz.Config{Document: load(b, guarded),
		Verifier: newPrincipals(b, "read")})
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"/public", "/any", "/one", "/either", "/messages/{id}"} {
		b.Run(strings.Trim(path, "/"), func(b *testing.B) {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", "Bearer read")
			param := func(string) string { return "1" }
			b.ReportAllocs()
			for b.Loop() {
				_, err = gate.Check(r, path, param)
			}
			if refused, ok := errors.AsType[*authz.Error](err); ok &&
				refused.Kind != authz.InsufficientScope {
				b.Fatal(err)
			}
		})
	}
}
