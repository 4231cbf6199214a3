package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/oasgate/oasgate/authz/server"
)

// hook returns a function that does the work of telemetry for one request. part is the part of the
// requests that is traced; "": no traces.
func hook(tb testing.TB, part string) func() {
	discard := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	collector := httptest.NewServer(http.HandlerFunc(discard))
	tb.Cleanup(collector.Close)
	if part != "" {
		tb.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.URL)
		tb.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
		tb.Setenv("OTEL_TRACES_SAMPLER_ARG", part)
	}
	t, err := New(tb.Context(), server.TelemetryConfig{
		Page: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/things/1", nil)
	event := server.Event{
		Method: "GET", Path: "/things/1", Route: "/things/{id}", Operation: "getThing",
		Status: 200, Outcome: server.Succeeded, Duration: 1000,
	}
	return func() {
		ctx := t.Begin(r).Context()
		t.Trace(ctx)
		t.End(ctx, event)
	}
}

// BenchmarkHook measures what telemetry adds to a request.
func BenchmarkHook(b *testing.B) {
	for name, part := range map[string]string{"metrics": "", "not traced": "0", "traced": "1"} {
		b.Run(name, func(b *testing.B) {
			do := hook(b, part)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	if got := testing.AllocsPerRun(500, hook(t, "")); got > 0 {
		t.Errorf("metrics allocate %v times per request, want 0", got)
	}
}
