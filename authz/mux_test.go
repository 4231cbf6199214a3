package authz_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/routertest"
)

func TestMux(t *testing.T) {
	routertest.Run(t, func(gates authz.Gates, routes []routertest.Route) (http.Handler, error) {
		mux := gates.Mux()
		for _, route := range routes {
			names := strings.NewReplacer("user-id", "user_id") // as oapi-codegen writes it
			mux.HandleFunc(route.Method+" "+names.Replace(route.Path),
				func(w http.ResponseWriter, r *http.Request) {
					param := func(name string) string { return r.PathValue(names.Replace(name)) }
					if err := route.Handler(w, r, param); err != nil {
						route.Gate.WriteProblem(w, r, err)
					}
				})
		}
		return mux, mux.CheckRoutes()
	})
}

// publicAt is a document with one public operation for each path.
func publicAt(paths ...string) string {
	document := "openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths:\n"
	for i, path := range paths {
		var parameters []string
		for _, part := range strings.Split(path, "{")[1:] {
			name, _, _ := strings.Cut(part, "}")
			parameters = append(parameters,
				"{name: "+name+", in: path, required: true, schema: {type: string}}")
		}
		document += fmt.Sprintf("  %q: {get: {operationId: o%d, security: [], parameters: [%s], "+
			"responses: {'204': {description: Done.}}}}\n", path, i, strings.Join(parameters, ", "))
	}
	return document
}

func gateAt(t *testing.T, base string, paths ...string) *authz.Gate {
	t.Helper()
	gate, err := authz.New(authz.Config{Document: load(t, publicAt(paths...)),
		Verifier: principals{}, BasePath: base})
	if err != nil {
		t.Fatal(err)
	}
	return gate
}

func TestMuxFaults(t *testing.T) {
	for pattern, fault := range map[string]string{
		"/things/{id}:activate": "net/http cannot route it",
		"/files/{name}.json":    "net/http cannot route it",
		"/files/{name}.{ext}":   "net/http cannot route it",
		"/things:batch":         "",
		"/users/{user-id}":      "", // which oapi-codegen writes as below
		"/trailing/":            "",
		"/":                     "",
	} {
		mux := gateAt(t, "", pattern).Mux()
		mux.HandleFunc("GET "+strings.ReplaceAll(pattern, "user-id", "user_id"),
			func(w http.ResponseWriter, _ *http.Request) {})
		err := mux.CheckRoutes()
		if fault == "" && err != nil || fault != "" &&
			(err == nil || !strings.Contains(err.Error(), "GET "+pattern+": "+fault)) {
			t.Errorf("%s: %v, want %q", pattern, err, fault)
		}
	}
	gate := gateAt(t, "", "/a/{x}", "/{y}/b")
	mux := gate.Mux()
	mux.HandleFunc("GET /a/{x}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /{y}/b", func(http.ResponseWriter, *http.Request) {})
	if err := mux.CheckRoutes(); err == nil ||
		!strings.Contains(err.Error(), "GET /{y}/b: net/http cannot route it") {
		t.Errorf("patterns that conflict: %v", err)
	}
}

// TestMuxTrailingSlash: a path that ends in a slash is one path, and no other leads to it.
func TestMuxTrailingSlash(t *testing.T) {
	mux := gateAt(t, "/v1", "/", "/folders/", "/both", "/both/").Mux()
	ran := ""
	for _, path := range []string{"/", "/folders/", "/both", "/both/"} {
		mux.HandleFunc("GET /v1"+path, func(http.ResponseWriter, *http.Request) { ran = path })
	}
	if err := mux.CheckRoutes(); err != nil {
		t.Fatal(err)
	}
	for target, expected := range map[string]string{
		"/v1/": "/", "/v1": "", "/v1/folders/": "/folders/", "/v1/folders": "", "/v1/folders/x": "",
		"/v1/both": "/both", "/v1/both/": "/both/", "/v1/x": "", "/": "",
	} {
		ran = ""
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if ran != expected || (w.Code == 404) != (expected == "") {
			t.Errorf("%s: status %d, %q ran, want %q", target, w.Code, ran, expected)
		}
	}
}

func TestInsecureUnguarded(t *testing.T) {
	for _, row := range []struct{ listed, fault string }{
		{"/metrics", ""},
		{"/static/*", ""},
		{"/items", "overlaps"},
		{"/items/*", "overlaps"},
		{"/items/7", "overlaps"}, // a path that /items/{id} matches as well
		{"/*", "overlaps"},
		{"/items/7/more", ""},
		{"/items/7/*", ""},
		{"metrics", "expected a path"},
		{"", "expected a path"},
		{"/static*", "expected a path"},
		{"/a/*/b", "expected a path"},
		{"/a/{b}", "expected a path"},
		{"GET /metrics", "expected a path"},
	} {
		_, err := authz.New(authz.Config{Document: load(t, publicAt("/items", "/items/{id}")),
			Verifier: principals{}, InsecureUnguarded: []string{row.listed}})
		if row.fault == "" && err != nil || row.fault != "" &&
			(err == nil || !strings.Contains(err.Error(), row.fault)) {
			t.Errorf("%q: %v, want %q", row.listed, err, row.fault)
		}
	}
	gate, err := authz.New(authz.Config{Document: load(t, publicAt("/a")), Verifier: principals{},
		BasePath: "/v1", InsecureUnguarded: []string{"/v2/a"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := (authz.Gates{gate, gateAt(t, "/v2", "/a")}).CheckRoutes(nil); err == nil ||
		!strings.Contains(err.Error(), "/a: Config.InsecureUnguarded has /v2/a") {
		t.Errorf("listed in InsecureUnguarded of one gate, described by the document of another: %v", err)
	}
}

func TestTwoDocumentsForOneRoute(t *testing.T) {
	gates := authz.Gates{gateAt(t, "", "/v1/a"), gateAt(t, "/v1", "/a")}
	if err := gates.CheckRoutes([]authz.Route{{Method: "GET", Path: "/v1/a"}}); err == nil ||
		!strings.Contains(err.Error(), "two documents describe this route") {
		t.Errorf("CheckRoutes: %v", err)
	}
}

func TestBindingError(t *testing.T) {
	for text, detail := range map[string]string{
		"Invalid format for parameter id: error binding string parameter: SUBMITTED": "The parameter id ",
		"Query argument limit is required, but not found":                            "The parameter limit ",
		"Header parameter X-Request-Id is required, but not found":                   "The parameter X-Request-Id ",
		"Expected one value for X-Tag, got 2":                                        "The parameter X-Tag ",
		"Error unmarshaling parameter filter as JSON: SUBMITTED":                     "The parameter filter ",
		"Error unmarshaling parameter 'filter' as JSON":                              "The parameter filter ",
		"error unescaping cookie parameter 'session'":                                "The parameter session ",
		"can't decode JSON body: SUBMITTED":                                          "",
	} {
		e := authz.BindingError(errors.New(text))
		kind := authz.InvalidParameter
		if detail == "" {
			kind, detail = authz.InvalidBody, "The body "
		}
		if e.Kind != kind || e.Status() != 400 || !strings.HasPrefix(e.Detail, detail) ||
			strings.Contains(e.Detail, "SUBMITTED") {
			t.Errorf("%s: %s, %q", text, e.Kind, e.Detail)
		}
	}
}
