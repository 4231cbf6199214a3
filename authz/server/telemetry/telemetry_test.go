package telemetry

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

const (
	audience = "https://api.example"
	document = `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /things/{id}:
    get:
      operationId: getThing
      security: [{token: [read]}]
      parameters: [{name: id, in: path, required: true, schema: {type: string, maxLength: 3}}]
      responses: {"200": {description: d}}
components: {securitySchemes: {token: {type: http, scheme: bearer}}}
`
)

// rig is a server with telemetry.
type rig struct {
	*server.Server
	telemetry server.Telemetry
	issuer    *devissuer.Server
}

func start(tb testing.TB, page bool) *rig {
	t, err := New(tb.Context(), server.TelemetryConfig{
		Service: "things", Version: "v1", Page: page, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return serve(tb, t)
}

func serve(tb testing.TB, telemetry server.Telemetry) *rig {
	issuer, err := devissuer.Start(
		devissuer.Config{Audiences: []string{audience}, Scopes: []string{"read"}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(issuer.Close)
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := server.New(tb.Context(), server.Config{
		Document: doc, Telemetry: telemetry, Logger: slog.New(slog.DiscardHandler),
		Routes: func(g *authz.Gate) (http.Handler, error) {
			mux := g.Mux()
			mux.HandleFunc("GET /things/{id}", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "{}")
			})
			return mux, mux.CheckRoutes()
		},
		Gate:    func(c *authz.Config) { c.InsecureReportValidation = true },
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
		Replays: store{},
		Pools: func() map[string]server.Pool {
			return map[string]server.Pool{"things": {MaxOpen: 4, InUse: 1, Idle: 2}}
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &rig{s, telemetry, issuer}
}

// store is a replay store that always fails.
type store struct{}

func (store) Use(context.Context, string, string, time.Time) (bool, error) {
	return false, errors.New("no route to host")
}

func (r *rig) get(path, authorization string, headers ...string) int {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	request.Header.Set("Authorization", authorization)
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, request)
	return w.Code
}

func (r *rig) bearer() string { return "Bearer " + r.issuer.Mint(map[string]any{"scope": "read"}) }

// metrics returns the metrics for Prometheus, without those of the runtime and the process.
func (r *rig) metrics(t *testing.T) string {
	w := httptest.NewRecorder()
	r.telemetry.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("/metrics is %d", w.Code)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if !regexp.MustCompile(`^(# (HELP|TYPE) )?(go|process|target)_`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// The table of the README has exactly the exported metrics.
func TestTable(t *testing.T) {
	r := start(t, true)
	if got := r.get("/things/1", r.bearer()); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	r.get("/things/too-long", r.bearer()) // passes in report mode
	_, _ = r.telemetry.Replays(store{}).Use(t.Context(), "", "", time.Time{})

	exported := map[string]string{} // names, and sorted labels
	types := regexp.MustCompile(`(?m)^# TYPE (\S+) `)
	for _, found := range types.FindAllStringSubmatch(r.metrics(t), -1) {
		name := found[1]
		sample := regexp.MustCompile(`(?m)^` + name + `(?:_count)?(?:\{(.*)\})? `).
			FindStringSubmatch(r.metrics(t))
		if sample == nil {
			t.Fatalf("%s has no sample", name)
		}
		var labels []string
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(sample[1], -1) {
			labels = append(labels, label[1])
		}
		slices.Sort(labels)
		exported[name] = strings.Join(labels, " ")
	}

	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	row := regexp.MustCompile("(?m)^\\| `([a-z._]+)` \\| `([a-z_]+)` \\|\\s*(.*?)\\s*\\| .* \\|$")
	for _, cells := range row.FindAllStringSubmatch(string(text), -1) {
		if !strings.HasPrefix(cells[2], strings.ReplaceAll(cells[1], ".", "_")) {
			t.Errorf("%s is %s for Prometheus", cells[1], cells[2])
		}
		labels := strings.Fields(strings.NewReplacer("`", "", ",", "", ".", "_").Replace(cells[3]))
		slices.Sort(labels)
		listed[cells[2]] = strings.Join(labels, " ")
	}
	// No issuer of this test has introspection.
	exported["authz_introspections_total"] = listed["authz_introspections_total"]
	for name, labels := range listed {
		if got, ok := exported[name]; !ok || got != labels {
			t.Errorf("the table lists %s{%s}, exported is {%s} (%t)", name, labels, got, ok)
		}
	}
	for name := range exported {
		if _, ok := listed[name]; !ok {
			t.Errorf("%s is not in the table of README.md", name)
		}
	}
}

// A stranger cannot add a label.
func TestLabelsAreBounded(t *testing.T) {
	r := start(t, true)
	send := func(from, to int) {
		for i := from; i < to; i++ {
			text := fmt.Sprint("stranger", i)
			r.get("/"+text, "Bearer "+text)
			r.get("/things/1", "Bearer "+r.issuer.Mint(map[string]any{
				"scope": text, "iss": text, "sub": text, "client_id": text}))
			r.get("/things/1", "Bearer "+r.issuer.Mint(map[string]any{"scope": text}))
			request := httptest.NewRequest("X"+text, "/things/1", nil)
			r.ServeHTTP(httptest.NewRecorder(), request)
		}
	}
	send(0, 1)
	before := strings.Count(r.metrics(t), "\n")
	send(1, 100)
	if after := r.metrics(t); strings.Count(after, "\n") != before ||
		strings.Contains(after, "stranger") {
		t.Errorf("strangers made labels:\n%s", after)
	}
}

func TestOff(t *testing.T) {
	got, err := New(t.Context(), server.TelemetryConfig{})
	if err != nil || got != nil {
		t.Errorf("without anything to export, New returns %v, %v", got, err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if got, err = New(t.Context(), server.TelemetryConfig{}); err != nil || got != nil {
		t.Errorf("with OTEL_SDK_DISABLED, New returns %v, %v", got, err)
	}
}

func TestExporters(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"OTEL_TRACES_EXPORTER", "otlp", ""},
		{"OTEL_METRICS_EXPORTER", "prometheus", "expected otlp or none"},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", ""},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "expected http/protobuf"},
		{"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc", "expected http/protobuf"},
	} {
		t.Run(test.name+"="+test.value, func(t *testing.T) {
			collector := httptest.NewServer(&received{})
			defer collector.Close()
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
			t.Setenv(test.name, test.value)
			got, err := New(t.Context(), server.TelemetryConfig{})
			if got != nil {
				defer got.Shutdown(t.Context())
			}
			if (err == nil) != (test.want == "") || err != nil &&
				(!strings.Contains(err.Error(), test.want) ||
					!strings.Contains(err.Error(), test.name)) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

// received are the spans that a collector has received.
type received struct {
	mu  sync.Mutex
	all []*spans.Span
}

func (c *received) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	text, _ := io.ReadAll(body)
	var export collector.ExportTraceServiceRequest
	if proto.Unmarshal(text, &export) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range export.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			c.all = append(c.all, scope.Spans...)
		}
	}
}

// By default, the sampled flag of a client's traceparent does not decide. The trace ID is logged.
func TestClientsCannotCauseTraces(t *testing.T) {
	var got received
	collector := httptest.NewServer(&got)
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	config := server.TelemetryConfig{Logger: slog.New(slog.DiscardHandler)}
	telemetry, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	const requests, traceID, parent = 1000, "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, flags := range []string{"00", "01"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Traceparent", "00-"+traceID+"-"+parent+"-"+flags)
		for range requests {
			ctx := telemetry.Begin(r).Context()
			if trace, span := telemetry.Trace(ctx); trace != traceID || span == parent {
				t.Fatalf("the trace is %q, the span %q", trace, span)
			}
			telemetry.End(ctx, server.Event{Method: "GET"})
		}
	}
	if err := telemetry.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if n := len(got.all); n == 0 || n > requests/2 { // 100 are expected
		t.Errorf("%d of %d requests were traced", n, 2*requests)
	}
}

// A request continues the trace of its header, and the fetch of keys is its child. It contains no
// credential.
func TestTraces(t *testing.T) {
	var got received
	collector := httptest.NewServer(&got)
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0")
	r := start(t, false)
	const traceID, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	bearer := r.bearer()
	if got := r.get("/things/1?q=secret", bearer,
		"Traceparent", "00-"+traceID+"-"+parent+"-01"); got != http.StatusOK {
		t.Fatalf("status %d", got)
	}
	if err := r.telemetry.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	var request *spans.Span
	children := 0
	for _, span := range got.all {
		if span.Name == "GET /things/{id}" {
			request = span
		}
		if text := span.String(); strings.Contains(text, "secret") ||
			strings.Contains(text, bearer[len(bearer)-20:]) {
			t.Errorf("a span contains a credential: %s", text)
		}
	}
	if request == nil || fmt.Sprintf("%x %x", request.TraceId, request.ParentSpanId) !=
		traceID+" "+parent {
		t.Fatalf("the span of the request is %v, in %v", request, got.all)
	}
	for _, span := range got.all {
		if string(span.ParentSpanId) == string(request.SpanId) &&
			string(span.TraceId) == string(request.TraceId) {
			children++
		}
	}
	if children == 0 {
		t.Errorf("the fetch of the keys is not a child of the request: %v", got.all)
	}
	for key, want := range map[string]string{
		"http.route": "/things/{id}", "authz.operation": "getThing", "authz.outcome": "succeeded",
		"url.path": "/things/1",
	} {
		found := ""
		for _, attribute := range request.Attributes {
			if attribute.Key == key {
				found = attribute.Value.GetStringValue()
			}
		}
		if found != want {
			t.Errorf("%s is %q, want %q", key, found, want)
		}
	}
}
