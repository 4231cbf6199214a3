package authz_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov4"
)

const answering = `
openapi: 3.1.0
info: {title: T, version: "1"}
security: []
paths:
  /thing:
    get:
      operationId: thing
      security: []
      responses:
        "200":
          description: A thing.
          headers: {X-Count: {required: true, schema: {type: integer}}, X-Note: {schema: {type: string}}}
          content: {application/json: {schema: {type: object, required: [name], additionalProperties: false, properties: {name: {type: string, maxLength: 5}, password: {type: string, writeOnly: true}}}}}
        "204": {description: Nothing.}
        4XX: {description: An error., content: {text/plain: {schema: {type: string}}}}
`

// TestResponses: responses of handlers are compared with the document. Differences are logged with
// names of the document only, and with FailResponses the client gets a 500.
func TestResponses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(`SUBMITTED`), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Count", "1")
			if contentType != "" {
				w.Header().Set("Content-Type", contentType)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const plain, asJSON = "text/plain; charset=utf-8", "application/json"
	for _, row := range []struct {
		name    string
		handler http.HandlerFunc
		wrong   string // a part of the log; "" for none
	}{
		{"as described", write(200, asJSON, `{"name":"a"}`), ""},
		{"without a body", write(204, "", ""), ""},
		{"of a range", write(404, plain, "no"), ""},
		{"too long", write(200, asJSON, `{"name":"SUBMITTED"}`), "/name is longer"},
		{"an undeclared member", write(200, asJSON, `{"name":"a","SUBMITTED":1}`), "body /*"},
		{"a writeOnly member", write(200, asJSON, `{"name":"a","password":"SUBMITTED"}`), "/password"},
		{"not JSON", write(200, asJSON, `SUBMITTED`), "not valid JSON"},
		{"no body", write(200, asJSON, ""), "body is missing"},
		{"another type", write(200, plain, "SUBMITTED"), "a Content-Type that the document"},
		{"another status", write(202, asJSON, `{}`), "a status that the document"},
		{"a header of another type", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Count", "SUBMITTED")
			w.Header().Set("Content-Type", asJSON)
			_, _ = io.WriteString(w, `{"name":"a"}`)
		}, "X-Count"},
		{"a stream", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "SUBMITTED")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "SUBMITTED")
		}, ""},
		{"a file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }, ""},
		{"more than is kept", write(200, asJSON, strings.Repeat("SUBMITTED", 1<<17)), ""},
	} {
		for _, mode := range []authz.Responses{authz.IgnoreResponses,
			authz.LogResponses, authz.FailResponses} {
			var log bytes.Buffer
			gate, err := authz.New(authz.Config{
				Document: load(t, answering), Responses: mode,
				Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			mux := gate.Mux()
			mux.HandleFunc("GET /thing", row.handler)
			e := echo.New()
			echov4.Guard(e, gate)
			e.GET("/thing", echo.WrapHandler(row.handler))
			unguarded := httptest.NewRecorder()
			row.handler(unguarded, httptest.NewRequest("GET", "/thing", nil))
			for name, h := range map[string]http.Handler{"net/http": mux, "echo": e} {
				if row.name == "a file" && name == "echo" {
					continue // Echo writes what it copies, so a file is validated like any response
				}
				log.Reset()
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", "/thing", nil))
				logged := mode != authz.IgnoreResponses && row.wrong != ""
				if !strings.Contains(log.String(), row.wrong) && logged || !logged &&
					log.Len() > 0 ||
					strings.Contains(log.String(), "SUBMITTED") {
					t.Errorf("%s, %s, %d: the log is %q, want %q", row.name, name, mode, &log,
						row.wrong)
				}
				status, body := unguarded.Code, unguarded.Body.String()
				if logged && mode == authz.FailResponses {
					status, body = 500, w.Body.String()
					if !strings.Contains(body, "#internal") ||
						strings.Contains(body, "SUBMITTED") ||
						w.Header().Get("X-Count") != "" {
						t.Errorf("%s, %s: the answer is %v %q", row.name, name, w.Header(), body)
					}
				}
				if w.Code != status || w.Body.String() != body {
					t.Errorf("%s, %s, %d: status %d and %q, want %d and %q",
						row.name, name, mode, w.Code, w.Body, status, body)
				}
			}
		}
	}
}

// TestCheckResponse: a plan checks responses of a server that it does not run.
func TestCheckResponse(t *testing.T) {
	plan, err := authz.Config{Document: load(t, answering),
		Responses: authz.FailResponses}.Compile()
	if err != nil {
		t.Fatal(err)
	}
	o := plan.Operations()[0]
	for _, row := range []struct {
		method, body string
		header       http.Header
		wrong        string // a part of the error; "" for none
	}{
		{"GET", `{"name":"a"}`, http.Header{"X-Count": {"1"}}, ""},
		{"HEAD", "", http.Header{"X-Count": {"1"}}, ""},
		{"GET", "", http.Header{"X-Count": {"1"}}, "body is missing"},
		{"GET", `{"name":"a"}`, http.Header{}, "header X-Count is missing"},
		{"GET", `{"name":"a"}`, http.Header{"X-Count": {"1"}, "X-Note": {"a", "b"}}, ""}, // RFC 9110 §5.3
		{"GET", `{"name":"a"}`, http.Header{"X-Count": {"1", "1"}}, "X-Count"},
		{"GET", `{"name":"SUBMITTED"}`, http.Header{"X-Count": {"1"}}, "/name is longer"},
	} {
		row.header.Set("Content-Type", "application/json")
		response := &http.Response{
			StatusCode: 200, Header: row.header, Request: httptest.NewRequest(row.method, "/thing",
				nil),
		}
		err := plan.CheckResponse(o, response, []byte(row.body))
		if (err == nil) != (row.wrong == "") ||
			err != nil && (!strings.Contains(err.Error(), row.wrong) ||
				strings.Contains(err.Error(), "SUBMITTED")) {
			t.Errorf("%s %s: %v, want %q", row.method, row.body, err, row.wrong)
		}
	}
	without, err := authz.Compile(load(t, answering))
	if err != nil {
		t.Fatal(err)
	}
	if err := without.CheckResponse(o, &http.Response{StatusCode: 200}, nil); err == nil {
		t.Error("a plan without responses checks them")
	}
	if err := plan.CheckResponse(authz.Operation{Path: "/other", Method: "GET"},
		&http.Response{StatusCode: 200}, nil); err == nil {
		t.Error("an operation that the document does not have is checked")
	}
}
