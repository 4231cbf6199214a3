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

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

const (
	// resolvedAge is how long an issuer serves before Resolve is called for it again, and
	// resolvedStale how long while Resolve fails.
	resolvedAge, resolvedStale = 5 * time.Minute, 24 * time.Hour
	// unresolvedAge is how long an iss is known not to be accepted, and failedAge how long a
	// failure of Resolve answers for the calls after it.
	unresolvedAge, failedAge = 30 * time.Second, time.Second
	// mostResolved and mostUnresolved bound what is remembered, mostResolving the calls at one
	// time, for issuers that are known and for others.
	mostResolved, mostUnresolved, mostResolving = 1000, 1 << 14, 4
	// mostIssuerBytes bounds the iss that Resolve is asked about.
	mostIssuerBytes = 512
)

// resolver finds issuers that are not configured, by Config.Resolve. Issuers and strangers' made-up
// names are kept apart, so that the latter evict none of the former.
type resolver struct {
	resolve func(ctx context.Context, iss string) (*Issuer, error)
	env     environment
	known   *otter.Cache[string, *resolved]
	unknown *otter.Cache[string, unresolved]
	flights singleflight.Group
	// calls and strange hold one for each call under way, for issuers that are known and others:
	// made-up names must not keep an issuer that is gone from being forgotten.
	calls, strange chan struct{}
	rate           bucket
}

// resolved is an issuer that Resolve has returned.
type resolved struct {
	issuer    *issuer
	given     Issuer
	confirmed time.Time
	until     atomic.Int64 // in nanoseconds: when Resolve is called again
	stop      context.CancelFunc
}

// unresolved is an iss for which Resolve has returned none.
type unresolved struct {
	at  time.Time
	err error // nil: it is not accepted
}

func newResolver(config Config, env environment) (*resolver, error) {
	if config.Resolve == nil {
		return nil, nil
	}
	r := &resolver{
		resolve: config.Resolve, env: env,
		calls: make(chan struct{}, mostResolving), strange: make(chan struct{}, mostResolving),
		rate: bucket{rate: strangerRate, burst: strangerBurst},
	}
	var err, alsoErr error
	r.known, err = otter.New(&otter.Options[string, *resolved]{
		MaximumSize: mostResolved,
		OnDeletion: func(e otter.DeletionEvent[string, *resolved]) {
			time.AfterFunc(time.Minute, e.Value.stop) // requests may be waiting for its keys
		},
	})
	r.unknown, alsoErr = otter.New(&otter.Options[string, unresolved]{MaximumSize: mostUnresolved})
	return r, errors.Join(err, alsoErr)
}

// find returns the issuer of an iss; nil: it is not accepted. It never asks about a token that no
// issuer's rules accept.
func (r *resolver) find(ctx context.Context, iss string) (*issuer, error) {
	now := r.env.now()
	known, _ := r.known.GetIfPresent(iss)
	if known != nil && now.UnixNano() < known.until.Load() {
		return known.issuer, nil
	}
	if not, found := r.unknown.GetIfPresent(iss); found && known == nil {
		switch age := now.Sub(not.at); {
		case not.err == nil && age < unresolvedAge:
			return nil, nil
		case not.err != nil && age < failedAge:
			return nil, r.unavailable(iss, not.err)
		}
	}
	asked := r.flights.DoChan(iss, func() (any, error) { return r.call(iss, known) })
	select {
	case outcome := <-asked:
		i, _ := outcome.Val.(*issuer)
		return i, outcome.Err
	case <-ctx.Done():
		return nil, r.unavailable(iss, ctx.Err())
	}
}

// call calls Resolve, on the server's context.
func (r *resolver) call(iss string, known *resolved) (*issuer, error) {
	places := r.calls
	if known == nil {
		if places = r.strange; !r.rate.take(r.env.now()) {
			return nil, r.unavailable(iss, errBusy)
		}
	}
	given, err := r.ask(iss, places)
	now := r.env.now()
	switch {
	case err != nil && known != nil && now.Sub(known.confirmed) < resolvedStale:
		known.until.Store(now.Add(failedAge).UnixNano())
		r.env.log.Warn("the issuer could not be resolved again", "issuer", iss, "error", err)
		return known.issuer, nil
	case err == errBusy:
		return nil, r.unavailable(iss, err)
	case err != nil:
		r.unknown.Set(iss, unresolved{now, err})
		return nil, r.unavailable(iss, err)
	case given == nil:
		r.known.Invalidate(iss)
		r.unknown.Set(iss, unresolved{at: now})
		return nil, nil
	case known != nil && reflect.DeepEqual(known.given, *given):
		known.confirmed = now
		known.until.Store(now.Add(resolvedAge).UnixNano())
		return known.issuer, nil
	}
	built, err := r.build(*given)
	if err != nil {
		r.unknown.Set(iss, unresolved{now, err})
		r.env.log.Error("Config.Resolve returned a faulty issuer", "issuer", iss, "error", err)
		return nil, r.unavailable(iss, err)
	}
	built.confirmed = now
	built.until.Store(now.Add(resolvedAge).UnixNano())
	r.known.Set(iss, built)
	return built.issuer, nil
}

// ask calls Resolve once there is a place for the call.
func (r *resolver) ask(iss string, places chan struct{}) (*Issuer, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-timer.C:
		return nil, errBusy
	}
	ctx, cancel := context.WithTimeout(r.env.ctx, fetchTimeout)
	defer cancel()
	given, err := r.resolve(ctx, iss)
	if err == nil && given != nil && given.URL != iss {
		err = fmt.Errorf("Config.Resolve returned an issuer with the URL %s", quote(given.URL))
	}
	return given, err
}

func (r *resolver) build(given Issuer) (*resolved, error) {
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
	return &resolved{issuer: i, given: given, stop: stop}, nil
}

func (r *resolver) unavailable(iss string, err error) error {
	return &Error{Code: KeysUnavailable, RetryAfter: time.Second, Err: err,
		Detail: "could not find out whether tokens of " + quote(iss) + " are accepted"}
}

// sources returns those of the issuers that are known, by URL. r may be nil.
func (r *resolver) sources() (all []*source) {
	if r == nil {
		return nil
	}
	for known := range r.known.Values() {
		all = append(all, known.issuer.keys)
	}
	slices.SortFunc(all, func(a, b *source) int { return strings.Compare(a.issuer, b.issuer) })
	return all
}

// resolvable reports whether a token is worth a call of Resolve: some issuer could accept it.
func (c *claims) resolvable(h header, now time.Time) error {
	u, err := url.Parse(string(c.iss))
	switch {
	case len(c.iss) > mostIssuerBytes || err != nil || u.Host == "" ||
		u.Scheme != "https" && u.Scheme != "http":
		return refuse(WrongIssuer, "issuer is %s, expected a URL (RFC 8414 §2)",
			quote(string(c.iss)))
	case algorithms[string(h.alg)] == nil:
		return refuse(WrongAlgorithm, "alg is %s, which no issuer may use", quote(string(h.alg)))
	case !c.exp.present:
		return refuse(Malformed, "claims: exp is missing")
	case float64(now.Unix()) >= c.exp.seconds+mostLeeway.Seconds():
		return refuse(Expired, "expired %s ago", ago(float64(now.Unix())-c.exp.seconds))
	}
	return nil
}
