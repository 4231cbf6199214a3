package impl

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"path"
	"regexp"
	"strings"

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

// asDocumented compares each response of a server with the document: status, headers and body.
// [start] wraps every server in it, so that all tests check this.
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
			t.Errorf("%s %s is answered, not as openapi.yaml promises, with %d\n%v\n%s\n%v",
				r.Method, r.URL, x.status, x.Header(), x.body.String(), err)
		}
	})
}

// routeOf returns the operation of a request, or nil.
func routeOf(document *openapi3.T, r *http.Request) *routers.Route {
	for template, item := range document.Paths.Map() {
		o := item.GetOperation(r.Method)
		matched, err := path.Match(regexp.MustCompile(`{\w+}`).ReplaceAllString(template, "*"),
			r.URL.Path)
		if o != nil && matched && err == nil && !strings.HasSuffix(r.URL.Path, "/") {
			return &routers.Route{
				Spec:      document,
				Path:      template,
				PathItem:  item,
				Method:    r.Method,
				Operation: o,
			}
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
	return openapi3filter.ValidateResponse(
		context.Background(),
		&openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{
				Request: r,
				Route:   route,
			},
			Status: x.status,
			Header: x.Header(),
			Body:   io.NopCloser(&x.body),
			Options: &openapi3filter.Options{
				IncludeResponseStatus: true,
				MultiError:            true,
			},
		},
	)
}
