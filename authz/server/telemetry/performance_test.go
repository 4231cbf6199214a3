package telemetry

import (
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

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

// Durations are in the bucket of the first bound that is not smaller, and added up by attributes.
func TestDurations(t *testing.T) {
	var m metrics
	for _, took := range []time.Duration{
		0, 500 * time.Microsecond, 501 * time.Microsecond, 10 * time.Second, time.Minute,
	} {
		m.request(server.Event{Method: "GET", Status: 401, Cause: took.String(), Duration: took})
	}
	produced, err := m.Produce(t.Context())
	if err != nil || len(produced) != 1 {
		t.Fatalf("produced %v, %v", produced, err)
	}
	points := produced[0].Metrics[0].Data.(metricdata.Histogram[float64]).DataPoints
	if len(points) != 1 {
		t.Fatalf("%d points, want 1", len(points))
	}
	want := make([]uint64, len(bounds)+1)
	want[0], want[1], want[len(bounds)-1], want[len(bounds)] = 2, 1, 1, 1
	p := points[0]
	if p.Count != 5 || math.Abs(p.Sum-70.001001) > 1e-9 || !slices.Equal(p.BucketCounts, want) {
		t.Errorf("count %d, sum %v, buckets %v, want 5, 70.001001, %v", p.Count, p.Sum,
			p.BucketCounts, want)
	}
}
