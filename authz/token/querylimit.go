package token

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// knownQueries is how many queries to an issuer about known tokens (JWTs, and tokens that were
// active before) can be in progress, and unknownQueries how many about other tokens. These can be
// made up, so they are also limited to a burst, and to one in each interval.
const (
	knownQueries, unknownQueries  = 256, 64
	unknownBurst, unknownInterval = 1000, 20 * time.Millisecond
)

// warningGap is the minimum time between two log lines about failures.
const warningGap = 10 * time.Second

// queryLimiter limits the queries about tokens of one kind, and divides them between callers: the
// subjects of known tokens, and the clients that present unknown ones. Unknown tokens have their
// own limiter, so that failures caused by made-up tokens do not affect known ones.
type queryLimiter struct {
	issuer string
	now    func() time.Time
	log    *slog.Logger

	rate  *rate  // nil: unlimited
	slots shares // queries in progress

	mu        sync.Mutex
	failure   error // of the last query
	failedAt  time.Time
	failedFor string    // the caller of that query
	outage    bool      // all callers are held back: several have failed, and none succeeded since
	probing   bool      // a query is in progress after a failure
	warnedAt  time.Time // when a failure was last logged
	warned    bool      // a failure was logged, and no query has succeeded since
}

var (
	errBusy = errors.New("too many concurrent requests")
	errSlow = errors.New("the previous request failed, and this one has not completed yet")
	// errAbandoned means that the client disconnected, or that the server stops. It does not mean
	// that the issuer failed.
	errAbandoned = errors.New("the request was cancelled")
)

// begin waits for a slot. After a failure it allows no query for retryGap, and then one at a time,
// so that an issuer that hangs does not delay every request: see lastFailure. It returns that
// failure, errBusy if the caller has used its share, or the error of ctx.
func (l *queryLimiter) begin(
	ctx context.Context, caller string,
) (end func(error), err error) {
	probe, err := l.admit(caller)
	if err != nil {
		return nil, err
	}
	if probe {
		return func(err error) { l.end(caller, probe, err) }, nil
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	slot, err := l.slots.wait(ctx, caller, timer.C)
	if err != nil {
		return nil, err
	}
	return func(err error) {
		l.slots.give(slot)
		l.end(caller, probe, err)
	}, nil
}

// admit counts a query, and says whether it is the one that is allowed after a failure. It fails if
// the query may not begin.
func (l *queryLimiter) admit(caller string) (probe bool, err error) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	failure := l.failureOf(caller)
	if failure != nil && (l.probing || left(l.failedAt, now, retryGap) > 0) {
		return false, failure
	}
	if l.rate != nil && !l.rate.take(caller, now) {
		return false, errBusy
	}
	probe = failure != nil
	l.probing = l.probing || probe
	return probe, nil
}

// lastFailure returns the failure that holds back the caller's queries, or nil. The issuer can fail
// for the tokens of one caller only, so others are not held back until a query of theirs fails.
func (l *queryLimiter) lastFailure(caller string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failureOf(caller)
}

// failureOf is lastFailure for callers that hold mu.
func (l *queryLimiter) failureOf(caller string) error {
	if l.outage || caller == l.failedFor {
		return l.failure
	}
	return nil
}

// end records the result of a query, and logs changes only.
func (l *queryLimiter) end(caller string, probe bool, err error) {
	l.mu.Lock()
	l.probing = l.probing && !probe
	if err == errAbandoned {
		l.mu.Unlock()
		return
	}
	now, before := l.now(), l.failure
	l.outage = err != nil && before != nil && (l.outage || caller != l.failedFor) &&
		!l.tolerates(err)
	l.failure, l.failedAt, l.failedFor = err, now, caller
	changed := err != nil && (before == nil || before.Error() != err.Error())
	warn := changed && left(l.warnedAt, now, warningGap) <= 0
	if warn {
		l.warnedAt = now
	}
	recovered := err == nil && l.warned
	l.warned = warn || l.warned && !recovered
	l.mu.Unlock()
	if warn {
		l.log.Warn("introspection failed", "issuer", l.issuer, "error", err)
	}
	if recovered {
		l.log.Info("introspection recovered", "issuer", l.issuer)
	}
}

// tolerates reports whether a failure leaves the queries of other callers alone. It does if the
// issuer has answered: otherwise, two clients with tokens that the issuer's firewall refuses could
// hold back all. If the issuer has not answered, others would wait too; and without a rate, nothing
// else would limit the load on an issuer that fails.
func (l *queryLimiter) tolerates(err error) bool {
	_, answered := errors.AsType[*answerError](err)
	return answered && l.rate != nil
}
