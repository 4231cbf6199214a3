package token

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"golang.org/x/sync/singleflight"
)

// introspector introspects tokens at one issuer.
type introspector struct {
	issuer   string
	maxAge   time.Duration // of answers
	answers  answers
	endpoint *endpoint
	now      func() time.Time
	ctx      context.Context // the server's
	count    *introspectionCounts

	group          singleflight.Group
	known, unknown *queryLimiter // for verified JWTs and recent tokens, and for others
}

// newIntrospector returns the introspector of an issuer that is complete, or nil if introspection
// is off.
func newIntrospector(i *Issuer, env environment) *introspector {
	if !i.Introspection.on() {
		return nil
	}
	return &introspector{
		issuer: i.URL, maxAge: i.Introspection.MaxAge, answers: env.answers,
		endpoint: &endpoint{
			config: i.Introspection, locator: newLocator(i, env.client, env.log),
			client: env.client, now: env.now,
		},
		now: env.now, ctx: env.ctx, count: new(introspectionCounts),
		known: &queryLimiter{
			issuer: i.URL, now: env.now, log: env.log, slots: shares{capacity: knownQueries},
		},
		unknown: &queryLimiter{
			issuer: i.URL, now: env.now, log: env.log, slots: shares{capacity: unknownQueries},
			rate: newRate(unknownBurst, unknownInterval),
		},
	}
}

// ask returns the response that a token is active, or an [*Error]. With [Presented.Introspect], the
// response is not from the cache, and is not shared with a request that began earlier. known is the
// token if it was verified in another way, or nil.
func (q *introspector) ask(
	ctx context.Context, presented Presented, known *verifiedToken,
) (*activeAnswer, error) {
	token, live := presented.Token, presented.Introspect
	name := sha256.Sum256(bytesOf(token))
	now := q.now()
	if at, cached := q.answers.inactive.get(name); cached && left(at, now, inactiveAge) > 0 {
		return nil, q.inactive()
	}
	limiter, caller := q.unknown, presented.Client
	if a, cached := q.answers.active.get(name); cached && a.by == q {
		if !live && a.fresh(now) {
			return a, nil
		}
		limiter, known = q.known, cmp.Or(known, a.token)
	}
	if known != nil {
		limiter, caller = q.known, known.caller()
	}
	if live {
		return q.query(ctx, limiter, caller, name, token)
	}
	pending := q.group.DoChan(string(name[:]), func() (any, error) {
		return q.query(q.ctx, limiter, caller, name, token)
	})
	var timeout <-chan time.Time
	if failure := limiter.lastFailure(caller); failure != nil {
		timer := time.NewTimer(maxWait)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case outcome := <-pending:
		a, _ := outcome.Val.(*activeAnswer)
		return a, outcome.Err
	case <-timeout:
		return nil, q.unavailable(errSlow)
	case <-ctx.Done():
		return nil, q.unavailable(ctx.Err())
	}
}

// query sends an introspection request, within the limits of time, number and rate.
func (q *introspector) query(
	ctx context.Context, limiter *queryLimiter, caller string, name [sha256.Size]byte, token string,
) (*activeAnswer, error) {
	end, err := limiter.begin(ctx, caller)
	if err != nil {
		if err == errBusy {
			q.count.limited.Add(1)
		}
		return nil, q.unavailable(err)
	}
	result := errAbandoned
	defer func() { end(result) }()
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	active, err := protect(func() (*claims, error) { return q.endpoint.post(bounded, token) })
	if ctx.Err() != nil {
		return nil, q.unavailable(ctx.Err())
	}
	result = err
	if _, ofToken := errors.AsType[*unreadableError](err); ofToken {
		result = nil // otherwise, clients could mark the issuer as failed
	}
	switch {
	case err != nil:
		q.count.failed.Add(1)
		return nil, q.unavailable(err)
	case active == nil:
		q.count.inactive.Add(1)
		q.answers.inactive.set(name, q.now())
		q.answers.active.remove(name)
		return nil, q.inactive()
	}
	q.count.active.Add(1)
	a := &activeAnswer{by: q, claims: *active, at: q.now()}
	q.answers.keep(name, a, q.now())
	return a, nil
}

// keep caches an answer with the token that was verified by it.
func (q *introspector) keep(token string, a *activeAnswer, known *verifiedToken) {
	kept := *a
	kept.token = known
	q.answers.keep(sha256.Sum256(bytesOf(token)), &kept, q.now())
}

func (q *introspector) inactive() error {
	return refuse(Inactive, "%s says that the token is not active (RFC 7662 §2.2): it expired, "+
		"was revoked, or is not one of its tokens", q.issuer)
}

func (q *introspector) unavailable(err error) error {
	return &Error{Code: IntrospectionUnavailable, RetryAfter: time.Second, Err: err,
		Detail: "introspection at " + q.issuer + " failed"}
}
