package telemetry

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

// bounds are those of histograms, in seconds. Those of the conventions begin at 5 ms, and most
// requests of a server take less than one.
var bounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// buckets sets the bounds of histograms of the SDK.
func buckets(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
	return sdkmetric.Stream{
		Name: i.Name, Description: i.Description, Unit: i.Unit,
		Aggregation: sdkmetric.AggregationExplicitBucketHistogram{
			Boundaries: bounds[:], NoMinMax: true,
		},
	}, i.Kind == sdkmetric.InstrumentKindHistogram
}

// metrics are the instruments.
type metrics struct {
	meter    metric.Meter
	reported metric.Int64Counter
	replays  metric.Float64Histogram

	started time.Time
	labels  sync.Map // of *labels, by labelKey
	kinds   atomic.Int64
}

// mostKinds limits the number of distinct kinds of requests. The values are from small sets, so
// the limit is reached only if a program creates many causes.
const mostKinds = 10_000

type labelKey struct {
	method, route, operation, cause string
	status                          int
	outcome                         server.Outcome
}

// labels are the attributes of one kind of request, prepared, because that takes longer than
// counting. Requests are counted and timed here, and reported when metrics are read: a counter and
// a histogram of the SDK take 0.25 and 0.5 µs, most of what metrics would add to a request.
type labels struct {
	requests metric.ObserveOption
	duration attribute.Set
	buckets  [len(bounds) + 1]atomic.Uint64
	took     atomic.Int64 // in all, in nanoseconds
}

func (l *labels) add(took time.Duration) {
	seconds, i := took.Seconds(), 0
	for i < len(bounds) && seconds > bounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.took.Add(int64(took))
}

func (l *labels) count() (n uint64) {
	for i := range l.buckets {
		n += l.buckets[i].Load()
	}
	return n
}

// register creates the instruments.
func (m *metrics) register(meter metric.Meter) error {
	m.meter = meter
	var faults [4]error
	requests, err := meter.Int64ObservableCounter("authz.requests", metric.WithDescription(
		"Requests by operation, outcome and cause."))
	faults[0] = err
	m.reported, faults[1] = meter.Int64Counter("authz.reported", metric.WithDescription(
		"Requests that passed in report mode only, by the cause of the refusal."))
	m.replays, faults[2] = meter.Float64Histogram("authz.replay.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of uses of the replay store."))
	_, faults[3] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.observe(o, requests)
		return nil
	}, requests)
	return errors.Join(faults[:]...)
}

// request counts a request.
func (m *metrics) request(e server.Event) {
	m.labelsOf(e).add(e.Duration)
	if e.Reported != "" {
		m.reported.Add(context.Background(), 1, metric.WithAttributes(
			label("operation", e.Operation), label("cause", e.Reported)))
	}
}

// observe reports the numbers of requests. Kinds that only differ in what the attributes leave out
// are added up.
func (m *metrics) observe(o metric.Observer, requests metric.Int64Observable) {
	type key struct{ operation, outcome, cause string }
	sums := map[key]int64{}
	options := map[key]metric.ObserveOption{}
	m.labels.Range(func(k, v any) bool {
		kind, l := k.(labelKey), v.(*labels)
		of := key{kind.operation, string(kind.outcome), kind.cause}
		sums[of] += int64(l.count())
		options[of] = l.requests
		return true
	})
	for of, n := range sums {
		o.ObserveInt64(requests, n, options[of])
	}
}

// Produce implements [sdkmetric.Producer]. It returns the durations of requests.
func (m *metrics) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	points := map[attribute.Distinct]*metricdata.HistogramDataPoint[float64]{}
	now := time.Now()
	m.labels.Range(func(_, v any) bool {
		l := v.(*labels)
		p := points[l.duration.Equivalent()]
		if p == nil {
			p = &metricdata.HistogramDataPoint[float64]{
				Attributes: l.duration, StartTime: m.started, Time: now,
				Bounds: bounds[:], BucketCounts: make([]uint64, len(l.buckets)),
			}
			points[l.duration.Equivalent()] = p
		}
		for i := range l.buckets {
			n := l.buckets[i].Load()
			p.BucketCounts[i] += n
			p.Count += n
		}
		p.Sum += time.Duration(l.took.Load()).Seconds()
		return true
	})
	if len(points) == 0 {
		return nil, nil
	}
	durations := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
	for _, p := range points {
		durations.DataPoints = append(durations.DataPoints, *p)
	}
	return []metricdata.ScopeMetrics{{
		Scope: instrumentation.Scope{Name: scope},
		Metrics: []metricdata.Metrics{{
			Name: "http.server.request.duration", Unit: "s",
			Description: "Duration of requests.", Data: durations,
		}},
	}}, nil
}

func (m *metrics) labelsOf(e server.Event) *labels {
	key := labelKey{e.Method, e.Route, e.Operation, e.Cause, e.Status, e.Outcome}
	if known, ok := m.labels.Load(key); ok {
		return known.(*labels)
	}
	if m.kinds.Load() >= mostKinds {
		key = labelKey{cause: "others"}
		e = server.Event{Cause: key.cause}
	}
	duration := attribute.NewSet(
		semconv.HTTPRequestMethodKey.String(e.Method), label(string(semconv.HTTPRouteKey), e.Route),
		semconv.HTTPResponseStatusCode(e.Status))
	known, loaded := m.labels.LoadOrStore(key, &labels{
		requests: metric.WithAttributeSet(attribute.NewSet(label("operation", e.Operation),
			label("outcome", string(e.Outcome)), label("cause", e.Cause))),
		duration: duration,
	})
	if !loaded {
		m.kinds.Add(1)
	}
	return known.(*labels)
}

// Watch exports the state of a server.
func (t *Telemetry) Watch(stats func() server.Stats) error {
	if t.metrics == nil {
		return nil
	}
	var faults []error
	gauge := func(name, unit, description string) metric.Int64ObservableGauge {
		g, err := t.metrics.meter.Int64ObservableGauge(name,
			metric.WithUnit(unit), metric.WithDescription(description))
		faults = append(faults, err)
		return g
	}
	counter := func(name, unit, description string) metric.Float64ObservableCounter {
		c, err := t.metrics.meter.Float64ObservableCounter(name,
			metric.WithUnit(unit), metric.WithDescription(description))
		faults = append(faults, err)
		return c
	}
	active := gauge("http.server.active_requests", "", "Requests that are active.")
	waiting := gauge("authz.waiting_requests", "", "Requests that wait to be handled.")
	clients := gauge("authz.connections", "", "Open connections of clients.")
	mostClients := gauge("authz.connections.max", "", "Connections that clients can have.")
	filled := counter("authz.connections.filled", "",
		"How often the limit of connections was reached.")
	lost := counter("authz.log.lost", "",
		"Lines of the log that nobody read, or that could not be written.")
	suppressed := counter("authz.log.suppressed", "",
		"Lines about refusals that were not logged in a flood.")
	dropped := counter("authz.audit.dropped", "", "Decisions that the audit log does not have.")
	keys := gauge("authz.keys", "", "Keys of an issuer that can be used.")
	age := gauge("authz.keys.age", "s", "Time since the keys of an issuer were fetched.")
	fetches := counter("authz.keys.fetches", "", "Fetches of the keys of an issuer, by result.")
	introspections := counter("authz.introspections", "",
		"Questions to an issuer about tokens, by result.")
	lookups := counter("authz.token.cache.lookups", "",
		"Lookups in the cache of verified tokens, by result.")
	size := gauge("authz.token.cache.size", "By", "Size of the cache of verified tokens.")
	connections := gauge("db.client.connection.count", "",
		"Connections of a pool, by state.")
	most := gauge("db.client.connection.max", "", "Connections that a pool can have.")
	waits := counter("authz.pool.waits", "", "Waits for a connection of a pool.")
	waited := counter("authz.pool.waited", "s", "Time of waits for a connection of a pool.")

	_, err := t.metrics.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := stats()
		o.ObserveInt64(active, s.Active)
		o.ObserveInt64(waiting, s.Waiting)
		o.ObserveInt64(clients, s.Connections.Open)
		o.ObserveInt64(mostClients, int64(s.Connections.Max))
		o.ObserveFloat64(filled, float64(s.Connections.Filled))
		o.ObserveFloat64(lost, float64(s.LostLines))
		o.ObserveFloat64(suppressed, float64(s.SuppressedLines))
		o.ObserveFloat64(dropped, float64(s.DroppedDecisions))
		result := func(of metric.Float64Observable, issuer, result string, n uint64) {
			attributes := []attribute.KeyValue{attribute.String("result", result)}
			if issuer != "" {
				attributes = append(attributes, attribute.String("issuer", issuer))
			}
			o.ObserveFloat64(of, float64(n), metric.WithAttributes(attributes...))
		}
		for _, i := range s.Tokens.Issuers {
			of := metric.WithAttributes(attribute.String("issuer", i.URL))
			o.ObserveInt64(keys, int64(i.Keys), of)
			if i.KeyAge > 0 {
				o.ObserveInt64(age, int64(i.KeyAge.Seconds()), of)
			}
			result(fetches, i.URL, "succeeded", i.Fetched)
			result(fetches, i.URL, "failed", i.Failed)
			if i.Introspection != (token.IntrospectionStats{}) {
				result(introspections, i.URL, "active", i.Introspection.Active)
				result(introspections, i.URL, "inactive", i.Introspection.Inactive)
				result(introspections, i.URL, "failed", i.Introspection.Failed)
				result(introspections, i.URL, "limited", i.Introspection.Limited)
			}
		}
		result(lookups, "", "hit", s.Tokens.Cache.Hits)
		result(lookups, "", "miss", s.Tokens.Cache.Misses)
		o.ObserveInt64(size, int64(s.Tokens.Cache.Bytes))
		for name, pool := range s.Pools {
			named := semconv.DBClientConnectionPoolName(name)
			for state, n := range map[string]int{"used": pool.InUse, "idle": pool.Idle} {
				o.ObserveInt64(connections, int64(n), metric.WithAttributes(named,
					semconv.DBClientConnectionStateKey.String(state)))
			}
			of := metric.WithAttributes(named)
			o.ObserveInt64(most, int64(pool.MaxOpen), of)
			o.ObserveFloat64(waits, float64(pool.Waits), of)
			o.ObserveFloat64(waited, pool.Waited.Seconds(), of)
		}
		return nil
	}, active, waiting, clients, mostClients, filled, lost, suppressed, dropped, keys, age, fetches,
		introspections, lookups, size, connections, most, waits, waited)
	return errors.Join(append(faults, err)...)
}

// Replays implements [server.Telemetry].
func (t *Telemetry) Replays(next token.ReplayStore) token.ReplayStore {
	if t.metrics == nil {
		return next
	}
	return replays{next, t.metrics.replays}
}

// replays measures a replay store.
type replays struct {
	token.ReplayStore
	duration metric.Float64Histogram
}

// Use implements [token.ReplayStore].
func (r replays) Use(
	ctx context.Context, key, caller string, until time.Time,
) (bool, error) {
	begun := time.Now()
	fresh, err := r.ReplayStore.Use(ctx, key, caller, until)
	result := "used"
	switch {
	case err != nil:
		result = "error"
	case fresh:
		result = "fresh"
	}
	r.duration.Record(ctx, time.Since(begun).Seconds(),
		metric.WithAttributes(attribute.String("result", result)))
	return fresh, err
}
