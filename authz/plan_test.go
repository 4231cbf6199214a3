package authz_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov4"
)

// faulty has every fault that prevents the start.
const faulty = `
openapi: 3.1.0
info: {title: Faults, version: "1"}
paths:
  /unstated:
    get: {operationId: unstated, responses: {"204": {description: Done.}}}
  /twice:
    get: {operationId: twice, security: [], responses: {"204": {description: Done.}}}
    post: {operationId: twice, security: [], responses: {"204": {description: Done.}}}
  /schemes:
    get: {operationId: undeclared, security: [{nowhere: []}], responses: {"204": {description: Done.}}}
    post: {operationId: basic, security: [{bearer: [], basic: []}], responses: {"204": {description: Done.}}}
    patch: {operationId: oauth, security: [{oauth: [raed]}], responses: {"204": {description: Done.}}}
  /scopes:
    get: {operationId: misspelt, security: [{bearer: [raed]}], responses: {"204": {description: Done.}}}
    put: {operationId: empty, security: [{bearer: [""]}], responses: {"204": {description: Done.}}}
    post: {operationId: two, security: [{bearer: ["read write"]}], responses: {"204": {description: Done.}}}
    patch: {operationId: quoted, security: [{bearer: ['re"ad']}], responses: {"204": {description: Done.}}}
    delete: {operationId: elsewhere, security: [{plain: [read]}], responses: {"204": {description: Done.}}}
  /nulls:
    get: {operationId: "null", security: [null], responses: {"204": {description: Done.}}}
    post: {operationId: nullScopes, security: [{bearer: null}], responses: {"204": {description: Done.}}}
  /same/{id}/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {operationId: same, security: [], responses: {"204": {description: Done.}}}
  /pattern:
    post:
      operationId: pattern
      security: []
      requestBody: {content: {application/json: {schema: {patternProperties: {"(x": {type: string}}, properties: {a: {const: 1}}}}}}
      responses: {"204": {description: Done.}}
  /composed:
    get:
      operationId: composed
      security: []
      parameters: [{name: q, in: query, style: deepObject, schema: {type: object, properties: {a: {$ref: "#/components/schemas/Round"}}}}]
      responses: {"204": {description: Done.}}
    post:
      operationId: composedBody
      security: []
      requestBody: {content: {application/x-www-form-urlencoded: {schema: {$ref: "#/components/schemas/About"}}}}
      responses: {"204": {description: Done.}}
  /invalid/{undeclared}:
    get: {operationId: invalid, security: [], responses: {"204": {description: Done.}}}
components:
  schemas:
    Round: {anyOf: [{$ref: "#/components/schemas/Round"}, {type: string}]}
    About: {type: object, oneOf: [{$ref: "#/components/schemas/Back"}]}
    Back: {allOf: [{$ref: "#/components/schemas/About"}]}
  securitySchemes:
    bearer: {type: http, scheme: bearer, x-scopes: {read: Read., write: Write., "bad scope": Two., number: 1}}
    plain: {type: http, scheme: bearer}
    list: {type: http, scheme: bearer, x-scopes: [read]}
    basic: {type: http, scheme: basic}
    oauth: {type: oauth2, flows: {clientCredentials: {tokenUrl: "https://tests.example/token", scopes: {read: Read.}}}}
`

// faults returns the faults that an error joins.
func faults(tb testing.TB, err error) (all []*authz.Fault) {
	tb.Helper()
	switch joined := err.(type) {
	case nil:
	case interface{ Unwrap() []error }:
		for _, e := range joined.Unwrap() {
			all = append(all, faults(tb, e)...)
		}
	case *authz.Fault:
		all = append(all, joined)
	default:
		tb.Errorf("an error that is not an *authz.Fault: %T %v", err, err)
	}
	return all
}

func TestCompileListsEveryFault(t *testing.T) {
	_, err := authz.Compile(load(t, faulty))
	var found []string
	for _, f := range faults(t, err) {
		found = append(found, f.Error())
		if (f.Method == "" || f.Path == "") && !strings.Contains(f.Error(), "invalid") &&
			!strings.Contains(f.Error(), "securitySchemes") &&
			!strings.Contains(f.Error(), "openapi: /") {
			t.Errorf("the fault does not name its operation: %v", f)
		}
		if strings.Contains(f.Error(), "  ") {
			t.Errorf("two spaces in a fault: %v", f)
		}
	}
	for _, expected := range [][]string{
		{"GET /unstated: ", "security: []"},
		{"POST /twice: ", "operationId twice", "GET /twice"},
		{"GET /schemes: ", "nowhere is not declared"},
		{"POST /schemes: ", "an access token and basic credentials in one Authorization header", "RFC 9110"},
		{"PATCH /schemes: ", "raed is not declared", "components.securitySchemes.oauth.flows"},
		{"GET /scopes: ", "raed is not declared", "components.securitySchemes.bearer.x-scopes"},
		{"PUT /scopes: ", "scope is empty"},
		{"POST /scopes: ", `"read write"`, "RFC 6749"},
		{"PATCH /scopes: ", `"re\"ad"`, "RFC 6749"},
		{"DELETE /scopes: ", "read is not declared", "components.securitySchemes.plain.x-scopes"},
		{"GET /nulls: ", "null", "{}"},
		{"POST /nulls: ", "bearer has null", "[]"},
		{"/same/{id}/{id}: ", "id occurs twice"},
		{"POST /pattern: ", "pattern (x: "},
		{"GET /composed: ", "Round is composed of itself"},
		{"POST /composed: ", "is composed of itself"},
		{"not a valid OpenAPI document", "/invalid/{undeclared}"},
		{"securitySchemes.bearer.x-scopes: ", `"bad scope"`},
		{"securitySchemes.bearer.x-scopes: ", `"number"`},
		{"securitySchemes.list.x-scopes ", "not a map"},
	} {
		if !slices.ContainsFunc(found, func(f string) bool {
			return !slices.ContainsFunc(expected, func(part string) bool {
				return !strings.Contains(f, part)
			})
		}) {
			t.Errorf("no fault says %q; there are:\n%s", expected, strings.Join(found, "\n"))
		}
	}
}

// TestCompileReportsEachFault: each fault is found without the others.
func TestCompileReportsEachFault(t *testing.T) {
	doc := load(t, faulty)
	if _, err := authz.Compile(load(t, guarded)); err != nil {
		t.Fatalf("a document without faults: %v", err)
	}
	for template, item := range doc.Paths.Map() {
		for method, spec := range item.Operations() {
			alone := load(t, guarded)
			alone.Security = nil
			alone.Components.SecuritySchemes = doc.Components.SecuritySchemes
			if method == http.MethodGet && template == "/twice" {
				continue // on its own it is not a fault
			}
			alone.Paths = openapi3.NewPaths(openapi3.WithPath(template,
				&openapi3.PathItem{Parameters: item.Parameters}))
			alone.Paths.Value(template).SetOperation(method, spec)
			if template == "/twice" {
				alone.Paths.Value(template).Get = item.Get
			}
			found := faults(t, errorOf(authz.Compile(alone)))
			found = slices.DeleteFunc(found, func(f *authz.Fault) bool {
				return strings.Contains(f.Error(), "x-scopes") && f.Path == ""
			})
			if len(found) == 0 {
				t.Errorf("%s %s alone has no fault", method, template)
			}
		}
	}
}

func errorOf[T any](_ T, err error) error { return err }

// TestSecurityMustBeStated: an operation without stated security prevents the start.
func TestSecurityMustBeStated(t *testing.T) {
	const operation = "openapi: 3.1.0\ninfo: {title: T, version: v}\n%s\npaths:\n  /a:\n    " +
		"get:\n      operationId: a\n      responses: {'204': {description: Done.}}\n      %s\n" +
		"components: {securitySchemes: {bearer: {type: http, scheme: bearer, x-scopes: {read: " +
		"Read.}}}}\n"
	for _, row := range []struct {
		document, own string
		stated        bool
		public        bool
	}{
		{"", "", false, false},
		{"", "security:", false, false},
		{"security:", "", false, false},
		{"security: []", "", false, false}, // kin-openapi drops it when it writes the document, as into generated code
		{"security: []", "security:", false, false},
		{"security: [null]", "", false, false},
		{"security:\n  -", "", false, false},
		{"", "security: [null]", false, false},
		{"", "security: [{bearer: [read]}, null]", false, false},
		{"", "security: [{bearer: }]", false, false},
		{"", "security: []", true, true},
		{"security: [{bearer: []}]", "security: []", true, true},
		{"security: []", "security: [{bearer: []}]", true, false},
		{"security: [{bearer: [read]}]", "", true, false},
		{"security: [{bearer: [read]}]", "security:", true, false},
		{"security: [{}]", "", true, true},
	} {
		plan, err := authz.Compile(load(t, fmt.Sprintf(operation, row.document, row.own)))
		switch {
		case (err == nil) != row.stated:
			t.Errorf("document %q, operation %q: %v, want it to be served: %v", row.document,
				row.own, err, row.stated)
		case err == nil && plan.Operations()[0].Public() != row.public:
			t.Errorf("document %q, operation %q: public is %v, want %v", row.document, row.own,
				!row.public, row.public)
		}
	}
}

func TestPlan(t *testing.T) {
	plan, err := authz.Compile(load(t, guarded))
	if err != nil {
		t.Fatal(err)
	}
	if scopes, expected := plan.Scopes(), []string{"admin", "audit", "base", "read",
		"write"}; !slices.Equal(scopes, expected) {
		t.Errorf("Scopes() is %q, want %q", scopes, expected)
	}
	var got []string
	for _, o := range plan.Operations() {
		got = append(got, fmt.Sprintf("%s %s %s %v public=%v optional=%v", o.Method, o.Path, o.ID,
			o.Alternatives, o.Public(), o.Optional()))
	}
	for _, expected := range []string{
		"GET /both both [[{bearer [read]} {second [audit]}]] public=false optional=false",
		"GET /optional/first optionalFirst [[] [{bearer [read]}]] public=false optional=true",
		"GET /optional/last optionalLast [[{bearer [read]}] []] public=false optional=true",
		"GET /public public [] public=true optional=false",
		"GET /unstated unstated [[{bearer [base]}]] public=false optional=false",
	} {
		if !slices.Contains(got, expected) {
			t.Errorf("there is no operation %q; there are:\n%s", expected, strings.Join(got, "\n"))
		}
	}
	if len(got) != 15 {
		t.Errorf("%d operations, want 15", len(got))
	}
}

func TestNewListsEveryFault(t *testing.T) {
	_, err := authz.New(authz.Config{Realm: `a "b"`, BasePath: "v1/", MaxBodyBytes: -1})
	for _, field := range []string{"Document", "Realm", "BasePath", "MaxBodyBytes"} {
		if err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("New does not say that Config.%s is faulty: %v", field, err)
		}
	}
	if _, err := authz.New(authz.Config{Document: load(t, guarded)}); err == nil ||
		strings.Count(err.Error(), "Config.Verifier") != 1 {
		t.Errorf("New without a verifier for access tokens: error is %v, want it to contain once "+
			"that Config.Verifier is nil", err)
	}
	for _, path := range []string{"/", "v1", "/v1/"} {
		if _, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: principals{},
			BasePath: path}); err == nil {
			t.Errorf("New accepts BasePath %q", path)
		}
	}
	if _, err := authz.New(authz.Config{Document: load(t, faulty), Verifier: principals{}}); len(
		faults(t, err)) < 20 {
		t.Errorf("New lists %d faults of the document, want all of them", len(faults(t, err)))
	}
}

// TestBrokenDocuments: a document that was built in Go can lack any part.
func TestBrokenDocuments(t *testing.T) {
	for name, breakIt := range map[string]func(*openapi3.T){
		"nothing at all":           func(doc *openapi3.T) { *doc = openapi3.T{} },
		"no paths":                 func(doc *openapi3.T) { doc.Paths = nil; doc.OpenAPI = "3.0.3" },
		"no components":            func(doc *openapi3.T) { doc.Components = nil },
		"no info":                  func(doc *openapi3.T) { doc.Info = nil },
		"a nil path":               func(doc *openapi3.T) { doc.Paths.Set("/nil", nil); doc.Info = nil },
		"a nil path without slash": func(doc *openapi3.T) { doc.Paths.Set("nil", nil) },
		"a nil scheme":             func(doc *openapi3.T) { doc.Components.SecuritySchemes["bearer"] = nil },
		"an unresolved scheme": func(doc *openapi3.T) {
			doc.Components.SecuritySchemes["bearer"] = &openapi3.SecuritySchemeRef{Ref: "#/nowhere"}
		},
		"an unresolved parameter": func(doc *openapi3.T) {
			doc.Paths.Value("/messages/{id}").Parameters[0] = &openapi3.ParameterRef{
				Ref: "#/nowhere"}
		},
		"a parameter without a schema": func(doc *openapi3.T) { doc.Paths.Value("/messages/{id}").Parameters[0].Value.Schema = nil },
		"an unresolved schema": func(doc *openapi3.T) {
			doc.Paths.Value("/messages/{id}").Parameters[0].Value.Schema = &openapi3.SchemaRef{
				Ref: "#/nowhere"}
		},
		"an unresolved body": func(doc *openapi3.T) {
			doc.Paths.Value("/any").Post.RequestBody = &openapi3.RequestBodyRef{Ref: "#/nowhere"}
		},
		"a nil media type": func(doc *openapi3.T) {
			doc.Paths.Value("/any").Post.RequestBody.Value.Content["application/json"] = nil
		},
		"no responses": func(doc *openapi3.T) { doc.Paths.Value("/any").Post.Responses = nil },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("Compile panics: %v", p)
				}
			}()
			doc := load(t, guarded)
			breakIt(doc)
			plan, err := authz.Compile(doc)
			authz.Describe(doc)
			// nothing else is admitted
			harmless := []string{"a nil path", "a nil media type", "no responses", "no info"}
			if err == nil && !slices.Contains(harmless, name) {
				t.Errorf("Compile accepts it: %d operations", len(plan.Operations()))
			}
		})
	}
}

func TestCheckRoutes(t *testing.T) {
	ok := func(echo.Context) error { return nil }
	described := func(e *echo.Echo, base string) {
		for _, o := range errorlessPlan(t).Operations() {
			e.Add(o.Method, base+echoPath(o.Path), ok)
		}
	}
	for _, row := range []struct {
		name     string
		base     string
		routes   func(*echo.Echo)
		expected []string // "" for none
	}{
		{"as described", "", func(e *echo.Echo) { described(e, "") }, nil},
		{"under a base path", "/v1", func(e *echo.Echo) { described(e, "/v1") }, nil},
		{"a route more", "", func(e *echo.Echo) { described(e, ""); e.GET("/debug/pprof", ok) }, []string{"GET /debug/pprof: a route that the document does not describe"}},
		{"a method more", "", func(e *echo.Echo) { described(e, ""); e.DELETE("/any", ok) }, []string{"DELETE /any: a route that"}},
		{"any method", "", func(e *echo.Echo) { described(e, ""); e.Any("/public", ok) }, []string{"DELETE /public: a route that", "TRACE /public: a route that", "PROPFIND /public: a route that"}},
		{"static files", "", func(e *echo.Echo) { described(e, ""); e.Static("/static", ".") }, []string{"GET /static*: a route that"}},
		{"a group's catch-all", "", func(e *echo.Echo) {
			described(e, "")
			e.Group("/v2", func(next echo.HandlerFunc) echo.HandlerFunc { return next })
		}, nil}, // Echo's own, for what is not found
		{"another name for a parameter", "", func(e *echo.Echo) { described(e, ""); e.GET("/messages/:name", ok) }, []string{"GET /messages/:name: a route that"}},
		{"an operation less", "", func(e *echo.Echo) {
			for _, o := range errorlessPlan(t).Operations() {
				if o.ID != "deleteMessage" {
					e.Add(o.Method, echoPath(o.Path), ok)
				}
			}
		}, []string{"DELETE /messages/{id}: no route serves this operation"}},
		{"no base path where there is one", "/v1", func(e *echo.Echo) { described(e, "") }, []string{"GET /any: a route that", "GET /any: no route serves"}},
		{"a base path where there is none", "", func(e *echo.Echo) { described(e, "/v1") }, []string{"GET /v1/any: a route that", "GET /any: no route serves"}},
		{"a base path as a mere prefix", "/v1", func(e *echo.Echo) { described(e, "/v1"); e.GET("/v10/any", ok) }, []string{"GET /v10/any: a route that"}},
		{"nothing", "", func(*echo.Echo) {}, []string{"GET /any: no route serves", "GET /public: no route serves"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: principals{},
				BasePath: row.base})
			if err != nil {
				t.Fatal(err)
			}
			e := echo.New()
			row.routes(e)
			err = echov4.CheckRoutes(e, gate)
			if row.expected == nil && err != nil {
				t.Errorf("CheckRoutes: %v", err)
			}
			faults(t, err) // all of them *Fault
			for _, expected := range row.expected {
				if err == nil || !strings.Contains(err.Error(), expected) {
					t.Errorf("CheckRoutes does not say %q: %v", expected, err)
				}
			}
		})
	}
}

// errorlessPlan returns the plan of the document guarded.
func errorlessPlan(tb testing.TB) *authz.Plan {
	tb.Helper()
	plan, err := authz.Compile(load(tb, guarded))
	if err != nil {
		tb.Fatal(err)
	}
	return plan
}

// TestUndescribedRoutesAreRefused: CheckRoutes reports routes that the document does not describe,
// and the gate refuses their requests.
func TestUndescribedRoutesAreRefused(t *testing.T) {
	s := start(t, guarded, func(c *authz.Config) { c.BasePath = "/v1" })
	for _, path := range []string{"/debug", "/any", "/v10/any", "/v1"} {
		s.echo.Any(path, s.handle)
	}
	s.echo.Group("/v1/group", func(next echo.HandlerFunc) echo.HandlerFunc {
		return next
	}).GET("/in", s.handle)
	s.echo.Static("/v1/static", ".")
	for _, target := range []string{"/debug", "/any", "/v10/any", "/v1",
		"/v1/group/in", "/v1/static/gate.go"} {
		s.send(t, "GET "+target, "", s.bearer("read base")).refused(t, 500, authz.Internal, "")
	}
	for _, target := range []string{"/v1/group", "/v1/group/x", "/v1/nothing"} {
		s.send(t, "GET "+target, "", s.bearer("read base")).refused(t, 404, authz.NotFound, "")
	}
	s.send(t, "GET /v1/any", "", s.bearer("read")).passed(t, "any")
	s.send(t, "GET /v1/one", "", s.bearer("x")).refused(t, 403, authz.InsufficientScope,
		fmt.Sprintf(lacksScopes, "read"))
}

// TestInspect: notes have locations, and are not faults.
func TestInspect(t *testing.T) {
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = true
	doc, err := loader.LoadFromData([]byte(`openapi: 3.1.0
info: {title: T, version: "1"}
paths:
  /things:
    post:
      operationId: addThing
      security: []
      parameters:
        - {name: color, in: header, schema: {type: object, properties: {R: {type: integer}}}}
      requestBody:
        content:
          application/x-www-form-urlencoded:
            schema: {type: object, properties: {day: {type: string, format: date}}}
          application/json:
            schema:
              const: null
      responses: {"204": {description: Done.}}
`))
	if err != nil {
		t.Fatal(err)
	}
	notes, err := authz.Inspect(doc)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range notes {
		got = append(got, fmt.Sprintf("%d %s %s", n.At.Line, n.Path, n.Problem))
	}
	for i, want := range []string{"5 /things header parameter color: ",
		"5 /things form field day: ", "16  const: null is lost"} {
		if len(got) != 3 || !strings.HasPrefix(got[i], want) {
			t.Errorf("the notes are %q, want %d to begin with %q", got, i, want)
		}
	}
}
