package echov5_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v5"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov5"
	"github.com/oasgate/oasgate/authz/token"
)

// nobody is a verifier that accepts no token.
type nobody struct{}

func (nobody) Verify(context.Context, string) (*token.Principal, error) {
	return nil, &token.Error{Code: token.Malformed}
}

// gateOf returns a gate with one public operation at the path template, under the base path.
func gateOf(t *testing.T, template, base string) *authz.Gate {
	t.Helper()
	parameters := ""
	if strings.Contains(template, "{name}") {
		parameters = "parameters: [{name: name, in: path, required: true, schema: {type: string}}]"
	}
	document, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: One operation, version: "1"}
paths:
  "` + template + `":
    get:
      operationId: one
      security: []
      ` + parameters + `
      responses: {"204": {description: Done.}}
`))
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: document, Verifier: nobody{}, BasePath: base})
	if err != nil {
		t.Fatal(err)
	}
	return gate
}

func TestPathsThatEchoCannotRoute(t *testing.T) {
	for _, template := range []string{"/files/{name}.txt", "/star/*",
		"/{name}:activate", "/a-{name}"} {
		_, err := echov5.Routes(gateOf(t, template, ""), func(*echo.Echo) {})
		if err == nil || !strings.Contains(err.Error(), template+": path segment") ||
			!strings.Contains(err.Error(), "cannot be routed by Echo") {
			t.Errorf("%s: %v, want a fault that names the path", template, err)
		}
	}
}

func TestRoutes(t *testing.T) {
	ran := 0
	handler, err := echov5.Routes(gateOf(t, "/files/{name}", "/v1"), func(e *echo.Echo) {
		e.GET("/v1/files/:name", func(c *echo.Context) error {
			ran++
			return c.NoContent(http.StatusNoContent)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		request string
		status  int
	}{
		{"GET /v1/files/a", 204},
		{"GET /v1/files/a%2Fb", 204}, // one segment, escaped
		{"GET /v1/files/", 404},
		{"GET /v1/files/a/", 404},
		{"GET /v1/files/a/b", 404},
		{"GET /v1//files/a", 404},
		{"GET //v1/files/a", 404},
		{"GET /v1/./files/a", 404},
		{"GET /v1/x/../files/a", 404},
		{"GET /V1/files/a", 404},
		{"GET /files/a", 404},
		{"POST /v1/files/a", 405},
		{"HEAD /v1/files/a", 204}, // as GET
	} {
		before := ran
		method, target, _ := strings.Cut(row.request, " ")
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, "/", nil)
		r.URL.Path, r.URL.RawPath = target, ""
		if unescaped := strings.ReplaceAll(target, "%2F", "/"); unescaped != target {
			r.URL.Path, r.URL.RawPath = unescaped, target
		}
		handler.ServeHTTP(w, r)
		if w.Code != row.status || (ran > before) != (row.status == 204) {
			t.Errorf("%s: status %d, handler ran %v: want %d", row.request, w.Code,
				ran > before, row.status)
		}
	}
}

// Generated code escapes a colon.
func TestColon(t *testing.T) {
	ran := 0
	handler, err := echov5.Routes(gateOf(t, "/things:batch", ""), func(e *echo.Echo) {
		e.GET(`/things\:batch`, func(c *echo.Context) error {
			ran++
			return c.NoContent(http.StatusNoContent)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for target, status := range map[string]int{"/things:batch": 204, "/things:other": 404,
		"/things": 404, "/thingsbatch": 404, `/things%5C:batch`: 404, "/things:batch/x": 404} {
		before := ran
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if w.Code != status || (ran > before) != (status == 204) {
			t.Errorf("%s: status %d, handler ran %v: want %d", target, w.Code, ran > before,
				status)
		}
	}
}

func TestRoutesListsFaults(t *testing.T) {
	_, err := echov5.Routes(gateOf(t, "/files/{name}", ""), func(e *echo.Echo) {
		e.GET("/debug", func(*echo.Context) error { return nil })
	})
	for _, expected := range []string{"GET /debug: a route that the document does not describe",
		"GET /files/{name}: no route serves this operation"} {
		if err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("no fault says %q: %v", expected, err)
		}
	}
}
