//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/command"
)

// TestStart: with a document of 1,200 operations, dev starts within twice the processor time that
// loading and validating the document with kin-openapi takes.
func TestStart(t *testing.T) {
	if raceDetector {
		t.Skip("measured without the race detector")
	}
	const limit, tries = 2.0, 8
	text := manyOperations(300)
	var load, start time.Duration
	for i := range tries {
		loaded := used(t, func() {
			doc, err := openapi3.NewLoader().LoadFromData(text)
			if err == nil {
				err = doc.Validate(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		started := used(t, func() { startDev(t, text) })
		if load == 0 || loaded < load {
			load = loaded
		}
		if start == 0 || started < start {
			start = started
		}
		if i > 2 && float64(start) <= limit*float64(load) {
			break
		}
	}
	t.Logf("dev starts in %.2f times the %s that load and validate take",
		float64(start)/float64(load), load)
	if float64(start) > limit*float64(load) {
		t.Errorf("dev starts in %s of processor time, want at most twice %s", start, load)
	}
}

// used returns the processor time of the process in f.
func used(t *testing.T, f func()) time.Duration {
	t.Helper()
	total := func() time.Duration {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			t.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	before := total()
	f()
	return total() - before
}

// startDev runs dev until it is ready.
func startDev(t *testing.T, document []byte) {
	t.Helper()
	many := app()
	many.Document = func() (*openapi3.T, error) {
		return openapi3.NewLoader().LoadFromData(document)
	}
	many.Open = open
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	out, in := io.Pipe()
	ended := make(chan string, 1)
	go func() {
		var stderr strings.Builder
		args := []string{"dev", "--addr", "127.0.0.1:0", "--log-level", "error"}
		many.Run(ctx, args, nil, strings.NewReader(""), in, &stderr)
		in.Close()
		ended <- stderr.String()
	}()
	welcome := make([]byte, 1<<12)
	n, err := out.Read(welcome)
	go func() { _, _ = io.Copy(io.Discard, out) }()
	api := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).Find(welcome[:n])
	if api == nil {
		stop()
		t.Fatalf("dev does not start: %v, %s", err, <-ended)
	}
	for ctx.Err() == nil {
		if answer, err := http.Get(string(api) + "/readyz"); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
		}
	}
	stop()
	<-ended
}

// manyOperations is a document with four operations for each of n resources, which share schemas.
func manyOperations(n int) []byte {
	var b strings.Builder
	b.WriteString(`openapi: 3.1.0
info: {title: Many, version: "1"}
security: [{token: [read]}]
components:
  securitySchemes: {token: {type: http, scheme: bearer, x-scopes: {read: Read., write: Write.}}}
  schemas:
    Problem: {type: object, properties: {title: {type: string}, status: {type: integer}}}
    Base: {type: object, required: [id], properties: {id: {type: string, format: uuid, readOnly: true}, created: {type: string, format: date-time}, labels: {type: object, additionalProperties: {type: string, maxLength: 64}}}}
`)
	for i := range n {
		fmt.Fprintf(&b, `    R%d: {allOf: [{$ref: "#/components/schemas/Base"}, {type: object, required: [name], properties: {name: {type: string, minLength: 1, pattern: "^[a-z][a-z0-9-]*$"}, size: {type: [integer, "null"], minimum: 0}, kind: {type: string, enum: [a, b, c]}, parent: {$ref: "#/components/schemas/R%d"}, tags: {type: array, maxItems: 20, items: {type: string}}}}]}
`, i, max(i-1, 0))
	}
	b.WriteString("paths:\n")
	for i := range n {
		fmt.Fprintf(&b, `  /r%[1]d:
    get: {operationId: listR%[1]d, parameters: [{name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100, default: 20}}, {name: cursor, in: query, schema: {type: string}}], responses: {"200": {description: A page., content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/R%[1]d"}}}}}, default: {description: A problem., content: {application/problem+json: {schema: {$ref: "#/components/schemas/Problem"}}}}}}
    post: {operationId: addR%[1]d, security: [{token: [write]}], requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/R%[1]d"}}}}, responses: {"201": {description: Added., content: {application/json: {schema: {$ref: "#/components/schemas/R%[1]d"}}}}, default: {description: A problem., content: {application/problem+json: {schema: {$ref: "#/components/schemas/Problem"}}}}}}
  /r%[1]d/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string, format: uuid}}]
    get: {operationId: getR%[1]d, responses: {"200": {description: One., content: {application/json: {schema: {$ref: "#/components/schemas/R%[1]d"}}}}, default: {description: A problem., content: {application/problem+json: {schema: {$ref: "#/components/schemas/Problem"}}}}}}
    put: {operationId: setR%[1]d, security: [{token: [write]}], requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/R%[1]d"}}}}, responses: {"204": {description: Set.}, default: {description: A problem., content: {application/problem+json: {schema: {$ref: "#/components/schemas/Problem"}}}}}}
`, i)
	}
	return []byte(b.String())
}

// open serves every operation with a handler that does nothing.
var open = command.Routes(func(g *authz.Gate) (http.Handler, error) {
	mux := g.Mux()
	for _, o := range g.Plan().Operations() {
		mux.HandleFunc(o.Method+" "+o.Path, func(http.ResponseWriter, *http.Request) {})
	}
	return mux, mux.CheckRoutes()
})
