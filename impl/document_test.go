package impl

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/gen"
)

// reporter is what asDocumented needs of a test.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

// asDocumented holds every answer of a server to the document: status, headers and body. [start] puts it around every
// server, so that whatever a test asks, the answer is one that the document promises.
func asDocumented(t reporter, next http.Handler) http.Handler {
	t.Helper()
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := routeOf(document, r)
		if route == nil {
			next.ServeHTTP(w, r) // nothing is promised here
			return
		}
		x := &recorded{ResponseWriter: w}
		next.ServeHTTP(x, r)
		if err := x.check(r, route); err != nil {
			t.Errorf("%s %s is answered, not as openapi.yaml promises, with %d\n%v\n%s\n%v", r.Method, r.URL, x.status, x.Header(), x.body.String(), err)
		}
	})
}

// routeOf returns the operation of a request, or nil.
func routeOf(document *openapi3.T, r *http.Request) *routers.Route {
	for template, item := range document.Paths.Map() {
		o := item.GetOperation(r.Method)
		matched, err := path.Match(regexp.MustCompile(`{\w+}`).ReplaceAllString(template, "*"), r.URL.Path)
		if o != nil && matched && err == nil && !strings.HasSuffix(r.URL.Path, "/") {
			return &routers.Route{Spec: document, Path: template, PathItem: item, Method: r.Method, Operation: o}
		}
	}
	return nil
}

type recorded struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (x *recorded) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *recorded) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	x.body.Write(p)
	return x.ResponseWriter.Write(p)
}

func (x *recorded) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *recorded) check(r *http.Request, route *routers.Route) error {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return openapi3filter.ValidateResponse(context.Background(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: route},
		Status:                 x.status,
		Header:                 x.Header(),
		Body:                   io.NopCloser(&x.body),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	})
}

// complaints counts what a test would have failed with.
type complaints struct {
	*testing.T
	n int
}

func (c *complaints) Errorf(string, ...any) { c.n++ }

// That answers are held to the document is worth something only if a wrong one is seen.
func TestWrongAnswersAreSeen(t *testing.T) {
	const message = `{"id":"019ad7c8-09b3-7204-bf92-a8cef806518f","text":"x","author":{"issuer":"i","subject":"s"},"created":"2026-12-01T09:30:00.435Z"}`
	tests := []struct {
		name   string
		status int
		header string // of ETag
		body   string
		wrong  bool
	}{
		{"right", 200, `"1"`, message, false},
		{"a header is missing", 200, "", message, true},
		{"a header is malformed", 200, "W/1", message, true},
		{"a member is missing", 200, `"1"`, strings.Replace(message, `"text":"x",`, "", 1), true},
		{"a member too many", 200, `"1"`, strings.Replace(message, `{`, `{"extra":1,`, 1), true},
		{"a pattern is not matched", 200, `"1"`, strings.Replace(message, "-7204", "-4204", 1), true},
		{"a text is too long", 200, `"1"`, strings.Replace(message, `"x"`, `"`+strings.Repeat("x", 1001)+`"`, 1), true},
		{"no body", 200, `"1"`, "", true},
		{"a problem without a type", 404, "", `{"title":"t","status":404}`, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &complaints{T: t}
			server := asDocumented(c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if test.status != 200 {
					w.Header().Set("Content-Type", "application/problem+json")
				}
				if test.header != "" {
					w.Header().Set("ETag", test.header)
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			server.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/api/messages/019ad7c8-09b3-7204-bf92-a8cef806518f", nil))
			if (c.n > 0) != test.wrong {
				t.Errorf("asDocumented complained %d times", c.n)
			}
		})
	}
}
