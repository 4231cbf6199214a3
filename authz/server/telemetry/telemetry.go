// Package telemetry exports what a server does: traces and metrics by OpenTelemetry, and the same
// metrics for Prometheus. A program that does not import it contains none of this.
//
// Traces and metrics are sent by OTLP over HTTP if a variable of the OpenTelemetry specification
// says where, for example OTEL_EXPORTER_OTLP_ENDPOINT. The variables are read from the environment
// of the process.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/oasgate/oasgate/authz/server"
)

// scope is the instrumentation scope of all spans and metrics.
const scope = "github.com/oasgate/oasgate/authz/server"

// Telemetry implements [server.Telemetry].
type Telemetry struct {
	tracer   trace.Tracer // nil: no traces are exported
	part     float64      // of the requests that are traced
	metrics  *metrics     // nil: no metrics are exported
	page     http.Handler
	shutdown []func(context.Context) error
}

var _ server.Telemetry = (*Telemetry)(nil)

// New returns a [Telemetry], or nil if nothing is to be exported.
func New(ctx context.Context, config server.TelemetryConfig) (server.Telemetry, error) {
	traces, metrics := exported("TRACES"), exported("METRICS")
	if !traces && !metrics && !config.Page {
		return nil, nil
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	otel.SetErrorHandler(&errorLog{log: config.Logger})
	described, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		semconv.ServiceName(config.Service), semconv.ServiceVersion(config.Version),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("telemetry: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t := &Telemetry{}
	err = errors.Join(
		t.exportTraces(ctx, traces, described),
		t.exportMetrics(ctx, metrics, config.Page, described),
	)
	if err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// sampled is the part of the requests that is traced, unless OTEL_TRACES_SAMPLER is set. The
// sampled flag of a traceparent has no influence then, because any client can set it. A span with
// its export takes 6 µs of processor time, a fifth of a request that hits the token cache. The
// others have no span at all, because one that is not sampled still takes 0.5 µs.
const sampled = 0.02

// exported reports whether the environment says where a signal is exported to.
func exported(signal string) bool {
	exporter := os.Getenv("OTEL_" + signal + "_EXPORTER")
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none":
		return false
	case exporter != "":
		return true
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// checkExport returns an error if the environment asks for another exporter of a signal than OTLP
// over HTTP. The others would make every program larger, and start to listen by themselves.
func checkExport(signal string) error {
	name := "OTEL_" + signal + "_EXPORTER"
	if exporter := os.Getenv(name); exporter != "" && exporter != "otlp" {
		return fmt.Errorf("telemetry: %s is %q: expected otlp or none", name, exporter)
	}
	name = "OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL"
	protocol := os.Getenv(name)
	if protocol == "" {
		name = "OTEL_EXPORTER_OTLP_PROTOCOL"
		protocol = os.Getenv(name)
	}
	if protocol != "" && protocol != "http/protobuf" {
		return fmt.Errorf("telemetry: %s is %q: expected http/protobuf", name, protocol)
	}
	return nil
}

func (t *Telemetry) exportTraces(ctx context.Context, on bool, r *resource.Resource) error {
	if !on {
		return nil
	}
	if err := checkExport("TRACES"); err != nil {
		return err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return fmt.Errorf("telemetry: traces: %w", err)
	}
	options := []sdktrace.TracerProviderOption{
		sdktrace.WithBatcher(exporter), sdktrace.WithResource(r),
	}
	t.part = 1 // and the sampler decides
	if os.Getenv("OTEL_TRACES_SAMPLER") == "" {
		t.part = sampled
		options = append(options, sdktrace.WithSampler(sdktrace.AlwaysSample()))
	}
	provider := sdktrace.NewTracerProvider(options...)
	t.tracer = provider.Tracer(scope)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return nil
}

func (t *Telemetry) exportMetrics(
	ctx context.Context, on, page bool, r *resource.Resource,
) error {
	if !on && !page {
		return nil
	}
	t.metrics = &metrics{started: time.Now()}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(r), sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter),
		sdkmetric.WithView(buckets),
	}
	if on {
		if err := checkExport("METRICS"); err != nil {
			return err
		}
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return fmt.Errorf("telemetry: metrics: %w", err)
		}
		options = append(options, sdkmetric.WithReader(
			sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(t.metrics))))
	}
	if page {
		registry := prom.NewRegistry()
		registry.MustRegister(
			collectors.NewGoCollector(
				collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsScheduler)),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		reader, err := prometheus.New(prometheus.WithRegisterer(registry),
			prometheus.WithoutScopeInfo(), prometheus.WithProducer(t.metrics))
		if err != nil {
			return fmt.Errorf("telemetry: metrics: %w", err)
		}
		options = append(options, sdkmetric.WithReader(reader))
		t.page = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	}
	provider := sdkmetric.NewMeterProvider(options...)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return t.metrics.register(provider.Meter(scope))
}

// Shutdown exports what has not been exported yet.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var faults []error
	for _, shutdown := range t.shutdown {
		faults = append(faults, shutdown(ctx))
	}
	return errors.Join(faults...)
}

// ServeHTTP responds with all metrics, in the format of Prometheus.
func (t *Telemetry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if t.page == nil {
		http.NotFound(w, r)
		return
	}
	t.page.ServeHTTP(w, r)
}

// errorLog logs failures to export. One that continues is logged once a minute.
type errorLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time
}

// Handle implements [otel.ErrorHandler].
func (l *errorLog) Handle(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.last) >= time.Minute {
		l.last = now
		l.log.Warn("cannot export telemetry", "cause", err.Error())
	}
}

// label is the value of an attribute, or "none".
func label(key, value string) attribute.KeyValue {
	if value == "" {
		value = "none"
	}
	return attribute.String(key, value)
}
