package telemetry

import (
	"context"
	"math/rand/v2"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/oasgate/oasgate/authz/server"
)

var traceContext propagation.TraceContext

// Begin begins the span of a request. Its parent is that of the traceparent header, if any (W3C
// Trace Context).
func (t *Telemetry) Begin(r *http.Request) *http.Request {
	continued := r.Header["Traceparent"] != nil
	traced := t.tracer != nil && (t.part >= 1 || rand.Float64() < t.part)
	if !continued && !traced {
		return r
	}
	ctx := r.Context()
	if continued {
		ctx = traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	if traced {
		ctx, _ = t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
	}
	return r.WithContext(ctx)
}

// Trace implements [server.Telemetry]. If the request is not traced, there is no span, but the
// client may have sent a trace ID.
func (t *Telemetry) Trace(ctx context.Context) (traceID, spanID string) {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return "", ""
	}
	if !span.IsRemote() {
		spanID = span.SpanID().String()
	}
	return span.TraceID().String(), spanID
}

// End ends the span of a request, and counts the request.
func (t *Telemetry) End(ctx context.Context, e server.Event) {
	if t.metrics != nil {
		t.metrics.request(e)
	}
	if t.tracer == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	defer span.End()
	if !span.IsRecording() {
		return
	}
	name := e.Method
	if e.Route != "" {
		name += " " + e.Route
	}
	span.SetName(name)
	attributes := append(make([]attribute.KeyValue, 0, 8),
		semconv.HTTPRequestMethodKey.String(e.Method),
		semconv.URLPath(e.Path),
		semconv.HTTPResponseStatusCode(e.Status),
		attribute.String("authz.outcome", string(e.Outcome)),
	)
	for _, more := range [...]struct{ key, value string }{
		{string(semconv.HTTPRouteKey), e.Route},
		{"authz.operation", e.Operation},
		{"authz.cause", e.Cause},
		{"authz.reported", e.Reported},
	} {
		if more.value != "" {
			attributes = append(attributes, attribute.String(more.key, more.value))
		}
	}
	span.SetAttributes(attributes...)
	if e.Outcome == server.Failed {
		span.SetStatus(codes.Error, e.Cause)
	}
}

// Transport returns a transport with a span for each request. It sends no trace context, because
// issuers are not part of the trace.
func (t *Telemetry) Transport(next http.RoundTripper) http.RoundTripper {
	if t.tracer == nil {
		return next
	}
	return transport{t.tracer, next}
}

type transport struct {
	tracer trace.Tracer
	next   http.RoundTripper
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, span := t.tracer.Start(r.Context(), r.Method, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			semconv.HTTPRequestMethodKey.String(r.Method),
			semconv.ServerAddress(r.URL.Hostname()),
			semconv.URLFull(r.URL.Scheme+"://"+r.URL.Host+r.URL.Path), // a query can be secret
		))
	defer span.End()
	response, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		span.SetStatus(codes.Error, "no response")
		return nil, err
	}
	span.SetAttributes(semconv.HTTPResponseStatusCode(response.StatusCode))
	if response.StatusCode >= 400 {
		span.SetStatus(codes.Error, "")
	}
	return response, nil
}
