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
	// Cooldown is the least time between two refreshes that tokens with an unknown kid cause.
	// Default 30 s. Where the issuer's key set has a validator (ETag or Last-Modified), so that a
	// request for one that has not changed costs next to nothing, it is at most 5 s.
	Cooldown time.Duration
	// MaxAge is the longest time after which keys are refreshed in the background, whatever the
	// issuer's Cache-Control allows. Default 1 h. The issuer's max-age is honoured between 1 min,
	// or MaxAge where that is less, and MaxAge.
	MaxAge time.Duration
	// MaxStale is how long keys serve when they cannot be refreshed. Default 24 h.
	MaxStale time.Duration
}

const (
	fetchTimeout = 5 * time.Second
	leastMaxAge  = time.Minute
	// retryGap is the least time between two attempts while there are no keys at all. It keeps
	// "serving within a second of the issuer's return" without hammering an issuer that is down.
	retryGap = 500 * time.Millisecond
	// patience is how long after its begin an attempt is waited for that follows a failed one. An
	// issuer that is back answers sooner, and one that hangs is not waited for by every request.
	patience = 500 * time.Millisecond
	// backoff bounds the attempts in the background while the keys had are still good.
	leastBackoff, mostBackoff = time.Second, time.Minute
	// conditionalCooldown is the longest cooldown where requests for the keys are conditional.
	conditionalCooldown = 5 * time.Second
)

// source keeps one issuer's key set: fetched at first need, refreshed in the background ahead of
// its expiry, and at once for a kid that it does not know. There is at most one fetch at a time. It
// runs on the server's context, so that a client who hangs up disturbs nobody; whoever needs its
// outcome waits for it on the request's own.
type source struct {
	issuer  string
	policy  KeyPolicy
	locator *locator
	static  bool // the configuration itself has the keys
	now     func() time.Time
	log     *slog.Logger
	ctx     context.Context

	set     atomic.Pointer[keySet] // nil before the first good fetch
	flights atomic.Uint64          // how many fetches were begun

	mu       sync.Mutex
	flight   *flight   // the fetch under way
	failedAt time.Time // of the last fetch, if it failed
	failure  error
	forcedAt time.Time // when an unknown kid last caused a fetch
	absent   absent
	refresh  *time.Timer
	due      time.Time // when it fires
	backoff  time.Duration

	introspector *introspector // nil: the issuer is not asked about tokens
	counts       *fetchCounts
}

type flight struct {
	kid   []byte // that caused it, if one did
	begun time.Time
	done  chan struct{} // closed at the end; then err may be read
	err   error
}

// absent remembers for a while for which kids a key set was fetched that did not have them.
type absent map[string]time.Time // when that was

// mostAbsent is more than there are fetches during a cooldown.
const mostAbsent = 64

func (a absent) add(kid []byte, now time.Time, cooldown time.Duration) {
	for kid, at := range a {
		if now.Sub(at) >= cooldown {
			delete(a, kid)
		}
	}
	if len(a) < mostAbsent {
		a[string(kid)] = now
	}
}

// addRemoved remembers the kids that the set before had and the set after does not have.
func (a absent) addRemoved(before, after *keySet, cooldown time.Duration) {
	if before == nil {
		return
	}
	for kid := range before.bykid {
		if after.bykid[kid] == nil {
			a.add([]byte(kid), after.fetched, cooldown)
		}
	}
}

// environment is what the sources of a verifier share.
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
		now: env.now, log: env.log, ctx: env.ctx, absent: absent{},
		introspector: newIntrospector(i, env), counts: new(fetchCounts),
	}
	if host := s.locator.insecureHost; host != "" {
		s.log.Warn("keys are fetched over http: whoever can change what is sent can sign tokens",
			"issuer", i.URL, "host", host)
	}
	if static, err := i.staticKeys(); err == nil && static != nil {
		static.fetched = s.now()
		s.static = true
		s.set.Store(static)
	}
	return s
}

// inherit takes over the set of another source of the same issuer, and when it is refreshed.
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
	own.flight = 0 // before any fetch of s, so that a kid that it does not know causes one
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
	begun := s.flights.Load()
	set, err := s.current(ctx)
	for err == nil {
		k, how := set.find(kid, alg)
		switch {
		case how == keyFound:
			return k, nil
		case how == keyUnfit && kid == nil:
			return nil,
				refuse(UnknownKey, "the token names no key (kid) and the set has %d usable keys, "+
					"or one that is not for %s", len(set.keys), alg)
		case how == keyUnfit:
			return nil, refuse(WrongAlgorithm, "alg is %s, which is not that of key %s",
				alg, quote(string(kid)))
		case s.static:
			return nil, refuse(UnknownKey, "no usable key that is configured for %s has kid %s",
				s.issuer, quote(string(kid)))
		case set.flight > begun: // fetched for this very request, or since
			s.mu.Lock()
			s.absent.add(kid, s.now(), s.policy.Cooldown)
			s.mu.Unlock()
			return nil, s.unknown(kid, s.now().Sub(set.fetched))
		}
		set, err = s.newer(ctx, set, kid)
	}
	return nil, err
}

func (s *source) unknown(kid []byte, ago time.Duration) error {
	return refuse(UnknownKey, "no usable key of %s has kid %s, by the key set of %s ago",
		s.issuer, quote(string(kid)), ago.Round(time.Second))
}

// serving returns the set that serves now, or nil.
func (s *source) serving(now time.Time) *keySet {
	if set := s.set.Load(); set != nil && (s.static || now.Sub(set.fetched) < s.policy.MaxStale) {
		return set
	}
	return nil
}

// current returns a set that may still serve. Only when there is none does it wait for a fetch.
func (s *source) current(ctx context.Context) (*keySet, error) {
	if set := s.serving(s.now()); set != nil {
		return set, nil
	}
	s.mu.Lock()
	f, failure := s.flight, s.failure
	if f == nil {
		if wait := s.failedAt.Add(retryGap).Sub(s.now()); failure != nil && wait > 0 {
			s.mu.Unlock()
			return nil, s.unavailable(time.Second, failure)
		}
		f = s.fly(ctx, nil)
	}
	s.mu.Unlock()
	set, err := s.wait(ctx, f, failure)
	if err != nil {
		return nil, s.unavailable(time.Second, err)
	}
	return set, nil
}

// newer returns a newer set than the given one, in which a kid was looked for in vain. It fetches
// it if need be, and if the cooldown allows. Strangers can make kids up, so the order matters: what
// was looked for just now is unknown for certain; of another kid nothing can be said until the next
// look, for its key may have been published a moment ago.
func (s *source) newer(ctx context.Context, than *keySet, kid []byte) (*keySet, error) {
	s.mu.Lock()
	if set := s.set.Load(); set != than {
		s.mu.Unlock()
		return set, nil
	}
	now := s.now()
	if at, known := s.absent[string(kid)]; known && now.Sub(at) < s.policy.Cooldown {
		s.mu.Unlock()
		return nil, s.unknown(kid, now.Sub(at))
	}
	f, failure, cooldown := s.flight, s.failure, s.cooldown(than)
	if f == nil {
		if wait := s.forcedAt.Add(cooldown).Sub(now); wait > 0 {
			s.mu.Unlock()
			return nil, s.pending(kid, wait, failure)
		}
		s.forcedAt = now
		f = s.fly(ctx, kid)
	}
	s.mu.Unlock()
	set, err := s.wait(ctx, f, failure)
	if err != nil {
		return nil, s.pending(kid, cooldown, err)
	}
	return set, nil
}

// cooldown is the least time between two fetches for unknown kids.
func (s *source) cooldown(set *keySet) time.Duration {
	if set.validates {
		return min(s.policy.Cooldown, conditionalCooldown)
	}
	return s.policy.Cooldown
}

// wait waits for the end of a fetch. failure is that of the fetch before it, if it failed.
func (s *source) wait(ctx context.Context, f *flight, failure error) (*keySet, error) {
	var impatient <-chan time.Time
	if failure != nil {
		timer := time.NewTimer(patience - s.now().Sub(f.begun))
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case <-f.done:
		return s.set.Load(), f.err
	case <-impatient:
		return nil, failure
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *source) unavailable(retryAfter time.Duration, err error) error {
	return &Error{Code: KeysUnavailable, Detail: "the keys of " + s.issuer + " could not be had",
		RetryAfter: retryAfter, Err: err}
}

func (s *source) pending(kid []byte, retryAfter time.Duration, err error) error {
	return &Error{Code: KeyPending, Detail: "kid " + quote(string(kid)) +
		" is new here, and the keys of " +
		s.issuer + " cannot be fetched again yet", RetryAfter: retryAfter, Err: err}
}

// fly begins a fetch. The caller holds mu, and there is none under way. kid is the one that causes
// it. The fetch has the values of the context cause, for the trace, and the life of the server's.
func (s *source) fly(cause context.Context, kid []byte) *flight {
	f := &flight{kid: kid, begun: s.now(), done: make(chan struct{})}
	s.flight = f
	number := s.flights.Add(1)
	go func() {
		ctx, cancel := context.WithTimeout(withValues{s.ctx, cause}, fetchTimeout)
		defer cancel()
		set, maxAge, err := s.locator.fetch(ctx, s.policy)
		s.land(f, number, set, maxAge, err)
	}()
	return f
}

// land keeps the outcome of a fetch, tells who waits, and sets the time of the next.
func (s *source) land(f *flight, number uint64, set *keySet, maxAge time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.set.Load(); err == nil && len(set.keys) == 0 && before != nil &&
		len(before.keys) > 0 {
		err = errors.New("the issuer names no keys any more") // which revokes none
	}
	s.flight, f.err = nil, err
	defer close(f.done)

	var next time.Duration
	if err != nil {
		s.counts.failed.Add(1)
		if s.failure == nil || s.failure.Error() != err.Error() {
			s.log.Warn("keys could not be fetched", "issuer", s.issuer, "error", err,
				"still_serving", s.set.Load() != nil)
		}
		s.failure, s.failedAt = err, s.now()
		if s.set.Load() == nil {
			return // the next request, or readiness probe, tries again
		}
		s.backoff = min(max(2*s.backoff, leastBackoff), mostBackoff)
		next = s.backoff
	} else {
		s.counts.fetched.Add(1)
		if s.failure != nil || s.set.Load() == nil {
			s.log.Info("keys fetched", "issuer", s.issuer, "keys", len(set.keys))
		}
		set.fetched, set.flight = s.now(), number
		before := s.set.Load()
		set.adopt(before)
		s.absent.addRemoved(before, set, s.policy.Cooldown)
		if f.kid != nil && set.bykid[string(f.kid)] == nil {
			s.absent.add(f.kid, set.fetched, s.policy.Cooldown)
		}
		s.set.Store(set)
		s.failure, s.backoff = nil, 0
		next = maxAge * 3 / 4 // ahead of expiry
	}
	// replicas that started together do not ask together
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
	if s.flight == nil && s.ctx.Err() == nil {
		s.fly(s.ctx, nil)
	}
}
