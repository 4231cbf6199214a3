package token

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// resolvedAge is how long an issuer is used before Resolve is called for it again, and
	// resolvedStale how long it is used while Resolve fails.
	resolvedAge, resolvedStale = 5 * time.Minute, 24 * time.Hour
	// unresolvedAge is how long it is cached that an iss is not accepted, and failedAge how long a
	// failure of Resolve is cached.
	unresolvedAge, failedAge = 30 * time.Second, time.Second
	// maxResolved and maxUnresolved bound the caches.
	maxResolved, maxUnresolved = 1000, 1 << 14
	// knownCalls and unknownCalls bound the concurrent calls for known and unknown issuers.
	knownCalls, unknownCalls = 4, 16
	// maxIssuerBytes bounds the length of the iss passed to Resolve.
	maxIssuerBytes = 512
)

// resolver finds issuers that are not configured, by Config.Resolve. Accepted issuers and others
// have separate caches, so that a flood of made-up names evicts no issuer.
type resolver struct {
	resolve func(ctx context.Context, iss string) (*Issuer, error)
	env     environment
	known   *lru[string, *resolvedIssuer]
	unknown *lru[string, unresolvedIssuer]
	group   singleflight.Group
	// calls limits the calls for known issuers, and strangers those for unknown ones. Each is
	// divided between the clients that cause them. They are separate so that made-up names do not
	// delay the removal of an issuer.
	calls, strangers shares
	rate             *rate // of calls for unknown issuers
}

// resolvedIssuer is an issuer that Resolve returned.
type resolvedIssuer struct {
	issuer    *issuer
	given     Issuer
	confirmed time.Time
	until     atomic.Int64 // when to call Resolve again, in Unix nanoseconds
	stop      context.CancelFunc
}

// unresolvedIssuer is an iss for which Resolve returned no issuer.
type unresolvedIssuer struct {
	at  time.Time
	err error // nil: the issuer is not accepted
}

func newResolver(config Config, env environment) *resolver {
	if config.Resolve == nil {
		return nil
	}
	r := &resolver{
		resolve: config.Resolve, env: env,
		calls: shares{capacity: knownCalls}, strangers: shares{capacity: unknownCalls},
		rate: newRate(unknownBurst, unknownInterval),
	}
	r.known = &lru[string, *resolvedIssuer]{
		limit: maxResolved,
		removed: func(i *resolvedIssuer) {
			time.AfterFunc(time.Minute, i.stop) // requests may be waiting for its keys
		},
	}
	r.unknown = &lru[string, unresolvedIssuer]{limit: maxUnresolved}
	return r
}

// find returns the issuer of an iss, or nil if it is not accepted. client has sent the token.
func (r *resolver) find(ctx context.Context, client, iss string) (*issuer, error) {
	now := r.env.now()
	known, _ := r.known.get(iss)
	if known != nil {
		// more than resolvedAge if the clock was set back
		left := time.Duration(known.until.Load() - now.UnixNano())
		if 0 < left && left <= resolvedAge {
			return known.issuer, nil
		}
	}
	if not, found := r.unknown.get(iss); found && known == nil {
		switch {
		case not.err == nil && left(not.at, now, unresolvedAge) > 0:
			return nil, nil
		case not.err != nil && left(not.at, now, failedAge) > 0:
			return nil, r.unavailable(iss, not.err)
		}
	}
	pending := r.group.DoChan(iss, func() (any, error) { return r.call(client, iss, known) })
	select {
	case outcome := <-pending:
		i, _ := outcome.Val.(*issuer)
		return i, outcome.Err
	case <-ctx.Done():
		return nil, r.unavailable(iss, ctx.Err())
	}
}

// call calls Resolve, on the server's context.
func (r *resolver) call(client, iss string, known *resolvedIssuer) (*issuer, error) {
	slots, caller := &r.calls, ""
	if known == nil {
		if slots, caller = &r.strangers, client; !r.rate.take(client, r.env.now()) {
			return nil, r.unavailable(iss, errBusy)
		}
	}
	given, err := r.ask(iss, slots, caller)
	now := r.env.now()
	switch {
	case err != nil && known != nil && left(known.confirmed, now, resolvedStale) > 0:
		known.until.Store(now.Add(failedAge).UnixNano())
		r.env.log.Warn("could not resolve the issuer again", "issuer", iss, "error", err)
		return known.issuer, nil
	case err == errBusy:
		return nil, r.unavailable(iss, err)
	case err != nil:
		r.unknown.set(iss, unresolvedIssuer{now, err})
		return nil, r.unavailable(iss, err)
	case given == nil:
		r.known.remove(iss)
		r.unknown.set(iss, unresolvedIssuer{at: now})
		return nil, nil
	case known != nil && reflect.DeepEqual(known.given, *given):
		known.confirmed = now
		known.until.Store(now.Add(resolvedAge).UnixNano())
		return known.issuer, nil
	}
	built, err := r.build(*given)
	if err != nil {
		r.unknown.set(iss, unresolvedIssuer{now, err})
		r.env.log.Error("Config.Resolve returned a faulty issuer", "issuer", iss, "error", err)
		return nil, r.unavailable(iss, err)
	}
	built.confirmed = now
	built.until.Store(now.Add(resolvedAge).UnixNano())
	r.known.set(iss, built)
	return built.issuer, nil
}

// ask calls Resolve when the caller can have a slot.
func (r *resolver) ask(iss string, slots *shares, caller string) (*Issuer, error) {
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	slot, err := slots.wait(r.env.ctx, caller, timer.C)
	if err != nil {
		return nil, err
	}
	defer slots.give(slot)
	ctx, cancel := context.WithTimeout(r.env.ctx, fetchTimeout)
	defer cancel()
	given, err := protect(func() (*Issuer, error) { return r.resolve(ctx, iss) })
	if err == nil && given != nil && given.URL != iss {
		err = fmt.Errorf("Config.Resolve returned an issuer with the URL %s", quote(given.URL))
	}
	return given, err
}

func (r *resolver) build(given Issuer) (*resolvedIssuer, error) {
	complete := given
	faults := complete.complete()
	if complete.Introspection.Opaque {
		faults = append(faults,
			errors.New("Introspection.Opaque: an opaque token names no issuer to resolve"))
	}
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	env := r.env
	var stop context.CancelFunc
	env.ctx, stop = context.WithCancel(env.ctx)
	i := &issuer{Issuer: complete, grantable: setOf(complete.GrantableScopes), resolved: true}
	i.keys = newSource(&i.Issuer, env)
	return &resolvedIssuer{issuer: i, given: given, stop: stop}, nil
}

func (r *resolver) unavailable(iss string, err error) error {
	return &Error{Code: KeysUnavailable, RetryAfter: time.Second, Err: err,
		Detail: "could not resolve the issuer " + quote(iss)}
}

// sources returns the sources of the cached issuers, sorted by URL. r may be nil.
func (r *resolver) sources() (all []*source) {
	if r == nil {
		return nil
	}
	for _, known := range r.known.values() {
		all = append(all, known.issuer.keys)
	}
	slices.SortFunc(all, func(a, b *source) int { return strings.Compare(a.issuer, b.issuer) })
	return all
}

// resolvable checks that some issuer could accept the token, before Resolve is called.
func (c *claims) resolvable(h header, now time.Time) error {
	u, err := url.Parse(string(c.iss))
	switch {
	case len(c.iss) > maxIssuerBytes || err != nil || u.Host == "" ||
		u.Scheme != "https" && u.Scheme != "http":
		return refuse(WrongIssuer, "issuer is %s, expected a URL (RFC 8414 §2)",
			quote(string(c.iss)))
	case algorithms[string(h.alg)] == nil:
		return refuse(WrongAlgorithm, "alg is %s, which no issuer may use", quote(string(h.alg)))
	case !c.exp.present:
		return refuse(Malformed, "claims: exp is missing")
	case float64(now.Unix()) >= c.exp.seconds+maxLeeway.Seconds():
		return refuse(Expired, "expired %s ago", formatSeconds(float64(now.Unix())-c.exp.seconds))
	}
	return nil
}
