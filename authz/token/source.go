package token

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// KeyPolicy says how an issuer's keys are kept. Zero values are the defaults.
type KeyPolicy struct {
	// Cooldown is the minimum time between two refreshes caused by tokens with an unknown kid.
	// Default 30 s. It is at most 5 s if the issuer's key set has a validator (ETag or
	// Last-Modified), because conditional requests are cheap.
	Cooldown time.Duration
	// MaxAge is the maximum time between two refreshes in the background. Default 1 h. The max-age
	// of the issuer's Cache-Control may shorten it, to 1 min at least.
	MaxAge time.Duration
	// MaxStale is how long keys are used while they cannot be refreshed. Default 24 h.
	MaxStale time.Duration
}

const (
	fetchTimeout = 5 * time.Second
	minMaxAge    = time.Minute
	// retryGap is the minimum time between two attempts while there are no keys. It limits the load
	// on an issuer that is down, and still finds its keys within a second after it recovers.
	retryGap = 500 * time.Millisecond
	// maxWait is how long a request waits for an attempt that follows a failed one, so that an
	// issuer that hangs does not delay every request.
	maxWait = 500 * time.Millisecond
	// minBackoff and maxBackoff bound the time between failed refreshes in the background.
	minBackoff, maxBackoff = time.Second, time.Minute
	// conditionalCooldown is the maximum cooldown if requests for the keys are conditional.
	conditionalCooldown = 5 * time.Second
)

// source holds one issuer's key set. It fetches the set when it is first needed, refreshes it in
// the background before it expires, and at once for an unknown kid. There is at most one fetch at a
// time. It uses the server's context, so that a client that disconnects does not cancel it; the
// requests that need its result wait with their own contexts.
type source struct {
	issuer  string
	policy  KeyPolicy
	locator *locator
	static  bool // the keys are configured
	now     func() time.Time
	log     *slog.Logger
	ctx     context.Context

	set     atomic.Pointer[keySet] // nil before the first successful fetch
	fetches atomic.Uint64          // how many fetches were begun

	mu          sync.Mutex
	inflight    *fetch    // the fetch under way
	failedAt    time.Time // of the last fetch, if it failed
	failure     error
	forcedAt    time.Time // when an unknown kid last caused a fetch
	unknownKids kidTimes
	refresh     *time.Timer
	due         time.Time // when it fires
	backoff     time.Duration

	introspector *introspector // nil: introspection is off
	counts       *fetchCounts
}

type fetch struct {
	kid   []byte // that caused it, if one did
	begun time.Time
	done  chan struct{} // closed at the end; then err may be read
	err   error
}

// kidTimes holds kids that were missing from a fetched key set, with the time of the fetch.
type kidTimes map[string]time.Time

// maxUnknownKids exceeds the number of fetches during a cooldown.
const maxUnknownKids = 64

func (a kidTimes) add(kid []byte, now time.Time, cooldown time.Duration) {
	for kid, at := range a {
		if left(at, now, cooldown) <= 0 {
			delete(a, kid)
		}
	}
	if len(a) < maxUnknownKids {
		a[string(kid)] = now
	}
}

// addRemoved adds the kids of before that are not in after.
func (a kidTimes) addRemoved(before, after *keySet, cooldown time.Duration) {
	if before == nil {
		return
	}
	for kid := range before.bykid {
		if after.bykid[kid] == nil {
			a.add([]byte(kid), after.fetched, cooldown)
		}
	}
}

// environment is shared by the sources of a verifier.
type environment struct {
	ctx     context.Context // the server's
	client  *http.Client
	now     func() time.Time
	log     *slog.Logger
	answers answers
}

// newSource returns the source of an issuer that is complete.
func newSource(i *Issuer, env environment) *source {
	s := &source{
		issuer: i.URL, policy: i.Keys, locator: newLocator(i, env.client, env.log),
		now: env.now, log: env.log, ctx: env.ctx, unknownKids: kidTimes{},
		introspector: newIntrospector(i, env), counts: new(fetchCounts),
	}
	if host := s.locator.insecureHost; host != "" {
		s.log.Warn("keys are fetched over http: an attacker on the network can sign tokens",
			"issuer", i.URL, "host", host)
	}
	if static, err := i.staticKeys(); err == nil && static != nil {
		static.fetched = s.now()
		s.static = true
		s.set.Store(static)
	}
	return s
}

// inherit uses the set of another source of the same issuer, and refreshes it when the other would
// have.
func (s *source) inherit(from *source) {
	s.counts = from.counts
	if s.introspector != nil && from.introspector != nil {
		s.introspector.count = from.introspector.count
	}
	set := from.set.Load()
	if set == nil || s.static || from.static || !s.locator.samePlace(from.locator) {
		return
	}
	own := *set
	own.fetchNumber = 0 // before any fetch of s, so that an unknown kid causes one
	s.set.Store(&own)
	from.mu.Lock()
	due, failing := from.due, from.failure != nil
	from.mu.Unlock()
	now := s.now()
	// The maximum age can have become less. If it has not, due is earlier.
	next := min(due.Sub(now), own.fetched.Add(s.policy.MaxAge).Sub(now))
	if failing {
		next = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule(max(next, 0))
}

// left returns how much of a span that began at since is left at now. If the clock was set back,
// the result is 0.
func left(since, now time.Time, span time.Duration) time.Duration {
	if now.Before(since) {
		return 0
	}
	return span - now.Sub(since)
}

// schedule sets the time of the next refresh. The caller holds mu.
func (s *source) schedule(next time.Duration) {
	s.due = s.now().Add(next)
	if s.refresh == nil {
		s.refresh = time.AfterFunc(next, s.refreshNow)
		context.AfterFunc(s.ctx, func() { s.refresh.Stop() })
	} else {
		s.refresh.Reset(next)
	}
}

// find returns the key that a token's header names.
func (s *source) find(ctx context.Context, kid, alg []byte) (*key, error) {
	begun := s.fetches.Load()
	set, err := s.current(ctx)
	for err == nil {
		k, how := set.find(kid, alg)
		switch {
		case how == keyFound:
			return k, nil
		case how == keyUnfit && kid == nil:
			return nil, refuse(UnknownKey, "the token has no kid, and the key set has %d usable "+
				"keys, expected one for %s", len(set.keys), alg)
		case how == keyUnfit:
			return nil, refuse(WrongAlgorithm, "alg is %s, which is not an algorithm of key %s",
				alg, quote(string(kid)))
		case s.static:
			return nil, refuse(UnknownKey, "no usable key configured for %s has kid %s",
				s.issuer, quote(string(kid)))
		case set.fetchNumber > begun: // fetched after this request began
			s.mu.Lock()
			s.unknownKids.add(kid, s.now(), s.policy.Cooldown)
			s.mu.Unlock()
			return nil, s.unknown(kid, s.now().Sub(set.fetched))
		}
		set, err = s.fetchNewer(ctx, set, kid)
	}
	return nil, err
}

func (s *source) unknown(kid []byte, ago time.Duration) error {
	return refuse(UnknownKey, "no usable key of %s has kid %s (key set fetched %s ago)",
		s.issuer, quote(string(kid)), ago.Round(time.Second))
}

// usableSet returns the current set, or nil if there is none or it is too old.
func (s *source) usableSet(now time.Time) *keySet {
	if set := s.set.Load(); set != nil && (s.static || now.Sub(set.fetched) < s.policy.MaxStale) {
		return set
	}
	return nil
}

// current returns the usable set. It waits for a fetch only if there is none.
func (s *source) current(ctx context.Context) (*keySet, error) {
	if set := s.usableSet(s.now()); set != nil {
		return set, nil
	}
	s.mu.Lock()
	f, failure := s.inflight, s.failure
	if f == nil {
		if failure != nil && left(s.failedAt, s.now(), retryGap) > 0 {
			s.mu.Unlock()
			return nil, s.unavailable(time.Second, failure)
		}
		f = s.startFetch(ctx, nil)
	}
	s.mu.Unlock()
	set, err := s.wait(ctx, f, failure)
	if err != nil {
		return nil, s.unavailable(time.Second, err)
	}
	return set, nil
}

// fetchNewer returns a newer set than the given one, which does not have the kid. It fetches one if
// the cooldown allows. Attackers can send made-up kids, so a kid that was missing from a recent
// fetch is refused; any other is pending during the cooldown, because its key may be new.
func (s *source) fetchNewer(ctx context.Context, than *keySet, kid []byte) (*keySet, error) {
	s.mu.Lock()
	if set := s.set.Load(); set != than {
		s.mu.Unlock()
		return set, nil
	}
	now := s.now()
	if at, known := s.unknownKids[string(kid)]; known && left(at, now, s.policy.Cooldown) > 0 {
		s.mu.Unlock()
		return nil, s.unknown(kid, now.Sub(at))
	}
	f, failure, cooldown := s.inflight, s.failure, s.cooldown(than)
	if f == nil {
		if wait := left(s.forcedAt, now, cooldown); wait > 0 {
			s.mu.Unlock()
			return nil, s.pending(kid, wait, failure)
		}
		s.forcedAt = now
		f = s.startFetch(ctx, kid)
	}
	s.mu.Unlock()
	set, err := s.wait(ctx, f, failure)
	if err != nil {
		return nil, s.pending(kid, cooldown, err)
	}
	return set, nil
}

// cooldown returns the minimum time between two fetches for unknown kids.
func (s *source) cooldown(set *keySet) time.Duration {
	if set.validates {
		return min(s.policy.Cooldown, conditionalCooldown)
	}
	return s.policy.Cooldown
}

// wait waits for the end of a fetch. failure is the error of the previous fetch, if it failed.
func (s *source) wait(ctx context.Context, f *fetch, failure error) (*keySet, error) {
	var timeout <-chan time.Time
	if failure != nil {
		timer := time.NewTimer(maxWait - s.now().Sub(f.begun))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-f.done:
		return s.set.Load(), f.err
	case <-timeout:
		return nil, failure
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *source) unavailable(retryAfter time.Duration, err error) error {
	return &Error{Code: KeysUnavailable, Detail: "could not fetch the keys of " + s.issuer,
		RetryAfter: retryAfter, Err: err}
}

func (s *source) pending(kid []byte, retryAfter time.Duration, err error) error {
	return &Error{Code: KeyPending, Detail: "kid " + quote(string(kid)) + " is unknown, and the " +
		"keys of " + s.issuer + " cannot be fetched again yet", RetryAfter: retryAfter, Err: err}
}

// startFetch starts a fetch. The caller holds mu, and no fetch is under way. kid is the unknown kid
// that caused the fetch, or nil. The fetch has the values of the context cause, for the trace, and
// the life of the server's.
func (s *source) startFetch(cause context.Context, kid []byte) *fetch {
	f := &fetch{kid: kid, begun: s.now(), done: make(chan struct{})}
	s.inflight = f
	number := s.fetches.Add(1)
	go func() {
		ctx, cancel := context.WithTimeout(withValues{s.ctx, cause}, fetchTimeout)
		defer cancel()
		var maxAge time.Duration
		set, err := protect(func() (set *keySet, err error) {
			set, maxAge, err = s.locator.fetch(ctx, s.policy)
			return set, err
		})
		s.finishFetch(f, number, set, maxAge, err)
	}()
	return f
}

// finishFetch stores the result of a fetch, wakes the waiters, and schedules the next fetch.
func (s *source) finishFetch(f *fetch, number uint64, set *keySet, maxAge time.Duration,
	err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.set.Load(); err == nil && len(set.keys) == 0 && before != nil &&
		len(before.keys) > 0 {
		err = errors.New("the issuer no longer publishes keys") // keep the previous ones
	}
	s.inflight, f.err = nil, err
	defer close(f.done)

	var next time.Duration
	if err != nil {
		s.counts.failed.Add(1)
		if s.failure == nil || s.failure.Error() != err.Error() {
			s.log.Warn("could not fetch keys", "issuer", s.issuer, "error", err,
				"still_serving", s.set.Load() != nil)
		}
		s.failure, s.failedAt = err, s.now()
		if s.set.Load() == nil {
			return // the next request or readiness probe retries
		}
		s.backoff = min(max(2*s.backoff, minBackoff), maxBackoff)
		next = s.backoff
	} else {
		s.counts.fetched.Add(1)
		if s.failure != nil || s.set.Load() == nil {
			s.log.Info("keys fetched", "issuer", s.issuer, "keys", len(set.keys))
		}
		set.fetched, set.fetchNumber = s.now(), number
		before := s.set.Load()
		set.reuseKeys(before)
		s.unknownKids.addRemoved(before, set, s.policy.Cooldown)
		if f.kid != nil && set.bykid[string(f.kid)] == nil {
			s.unknownKids.add(f.kid, set.fetched, s.policy.Cooldown)
		}
		s.set.Store(set)
		s.failure, s.backoff = nil, 0
		next = maxAge * 3 / 4 // before expiry
	}
	// Jitter keeps replicas that started together from fetching together.
	s.schedule(next - time.Duration(rand.Int64N(int64(next)/10+1)))
}

// withValues is a context with the values of another.
type withValues struct {
	context.Context
	values context.Context
}

func (c withValues) Value(key any) any { return c.values.Value(key) }

func (s *source) refreshNow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight == nil && s.ctx.Err() == nil {
		s.startFetch(s.ctx, nil)
	}
}
