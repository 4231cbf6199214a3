package token

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/singleflight"
)

// Introspection configures token introspection (RFC 7662) at an issuer. It is on if ClientID is
// set. Without Opaque and Always, only tokens with [Presented.Introspect] are introspected.
type Introspection struct {
	// Endpoint is the introspection endpoint. Default: introspection_endpoint of the metadata.
	Endpoint string
	// ClientID and ClientSecret are this API's own credentials at the issuer, sent by HTTP Basic,
	// or in the body if the metadata allows only that (RFC 6749 §2.3.1).
	ClientID, ClientSecret string
	// Opaque accepts tokens that are not JWTs. Such a token names no issuer, so at most one issuer
	// of a [Verifier] can accept them.
	Opaque bool
	// Always introspects every JWT of the issuer, after its signature and claims were verified.
	Always bool
	// MaxAge is how long the response that a token is active is cached, at most until the token's
	// exp. Default 60 s; NoAge disables the cache.
	MaxAge time.Duration
}

// NoAge as an Introspection's MaxAge disables the cache of active tokens.
const NoAge time.Duration = -1

const (
	defaultAnswerAge, maxAnswerAge = time.Minute, time.Hour
	// inactiveAge is how long the response that a token is not active is cached.
	inactiveAge = 10 * time.Second
	// warningGap is the minimum time between two log lines about failures.
	warningGap = 10 * time.Second
	// maxInactive bounds the cache of inactive tokens.
	maxInactive = 1 << 14
	// knownQueries and unknownQueries are how many queries to an issuer can be in progress, about
	// JWTs and tokens that were active before, and about other tokens. The latter can be made up,
	// so they are limited to a burst, and to one in each interval, too.
	knownQueries, unknownQueries  = 256, 64
	unknownBurst, unknownInterval = 1000, 20 * time.Millisecond
	maxIntrospectionBytes         = 64 << 10
)

func (i *Introspection) on() bool { return i.ClientID != "" }

func (i *Issuer) completeIntrospection(fault func(string, ...any)) {
	c := &i.Introspection
	if !c.on() {
		if *c != (Introspection{}) {
			fault("Introspection.ClientID is empty: expected this API's own credentials at the " +
				"issuer")
		}
		return
	}
	if c.ClientSecret == "" {
		fault("Introspection.ClientSecret is empty: expected this API's own credentials at the " +
			"issuer")
	}
	switch {
	case c.MaxAge == 0:
		c.MaxAge = defaultAnswerAge
	case c.MaxAge == NoAge:
		c.MaxAge = 0
	case c.MaxAge < 0 || c.MaxAge > maxAnswerAge:
		fault("Introspection.MaxAge is %s: expected at most %s", c.MaxAge, maxAnswerAge)
	}
	if c.Opaque && strings.Contains(i.URL, tenantPlaceholder) {
		fault("Introspection.Opaque: an opaque token names no tenant. Expected an issuer URL "+
			"without %s", tenantPlaceholder)
	}
	if c.Endpoint == "" {
		if i.JWKSURI != "" || i.JWKS != nil || i.PublicKeyPEM != nil {
			fault("Introspection.Endpoint is empty: it is required if the keys are configured, " +
				"because no metadata is fetched")
		}
		return
	}
	if strings.Contains(c.Endpoint, tenantPlaceholder) && (len(i.Tenants) == 0 || i.commonKeys()) {
		fault("Introspection.Endpoint has %s: that is allowed only if each tenant has its own keys",
			tenantPlaceholder)
	}
	u, err := url.Parse(strings.ReplaceAll(c.Endpoint, tenantPlaceholder, "tenant"))
	if err != nil || u.Hostname() == "" || u.Fragment != "" || u.User != nil ||
		u.Scheme != "https" && (u.Scheme != "http" ||
			!IsLoopback(u.Hostname()) && u.Host != newLocator(i, nil, nil).insecureHost) {
		fault("Introspection.Endpoint is %q: expected an https URL (http on loopback hosts, or "+
			"the host of InsecureHTTP)", c.Endpoint)
	}
}

// introspector introspects tokens at one issuer.
type introspector struct {
	issuer  string
	config  Introspection
	answers answers
	locator *locator
	client  *http.Client
	now     func() time.Time
	log     *slog.Logger
	ctx     context.Context // the server's
	count   *introspectionCounts

	group          singleflight.Group
	known, unknown queryLimiter // for verified JWTs and recent tokens, and for others

	discovering sync.Mutex
	endpoint    string // "": not known yet
	inBody      bool   // the credentials go into the body
	foundAt     time.Time
}

// queryLimiter limits the queries about tokens of one kind, and divides them between callers: the
// subjects of known tokens, and the clients that present unknown ones. Unknown tokens have their
// own limiter, so that failures caused by made-up tokens do not affect known ones.
type queryLimiter struct {
	rate  *rate  // nil: unlimited
	slots shares // queries in progress

	mu        sync.Mutex
	failure   error // of the last query
	failedAt  time.Time
	failedFor string    // the caller of that query
	outage    bool      // all callers are held back: several have failed, and none succeeded since
	probing   bool      // a query is in progress after a failure
	warnedAt  time.Time // when a failure was last logged
	warned    bool      // and no success since
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

// answers caches introspection responses by the SHA-256 of the token. Active and inactive tokens
// have separate caches, so that a flood of made-up tokens evicts no active one.
type answers struct {
	active   *lru[[sha256.Size]byte, *activeAnswer]
	inactive *lru[[sha256.Size]byte, time.Time] // when the response arrived
}

// activeAnswer is a response that a token is active.
type activeAnswer struct {
	by     *introspector
	claims claims
	until  time.Time
	token  *verifiedToken // the token with the response applied; nil until verified
}

// weight is the approximate memory of an answer. The token of an opaque one has the same claims.
func (a *activeAnswer) weight() int64 {
	weight := overhead + int64(cap(a.claims.raw))
	if a.token != nil {
		weight += a.token.weight()
	}
	return weight
}

// keep caches an answer, unless the inactive cache has the token. It checks that last, because a
// concurrent query may add the token there.
func (a answers) keep(name [sha256.Size]byte, answer *activeAnswer, now time.Time) {
	if !now.Before(answer.until) {
		return
	}
	a.active.set(name, answer)
	if _, revoked := a.inactive.get(name); revoked {
		a.active.remove(name)
	}
}

func newAnswers(bytes int64) answers {
	return answers{
		active: &lru[[sha256.Size]byte, *activeAnswer]{
			limit: bytes,
			weigh: (*activeAnswer).weight,
		},
		inactive: &lru[[sha256.Size]byte, time.Time]{limit: maxInactive},
	}
}

// newIntrospector returns the introspector of an issuer that is complete, or nil if introspection
// is off.
func newIntrospector(i *Issuer, env environment) *introspector {
	if !i.Introspection.on() {
		return nil
	}
	q := &introspector{
		issuer: i.URL, config: i.Introspection, answers: env.answers,
		locator: newLocator(i, env.client, env.log),
		client:  env.client, now: env.now, log: env.log, ctx: env.ctx,
		count: new(introspectionCounts),
		known: queryLimiter{slots: shares{capacity: knownQueries}},
		unknown: queryLimiter{
			slots: shares{capacity: unknownQueries},
			rate:  newRate(unknownBurst, unknownInterval),
		},
	}
	return q
}

// isOpaque reports whether a token is not a JWT. A token with three segments is never opaque, so
// that the token of another issuer is not sent to this one.
func isOpaque(token string) bool {
	if strings.Count(token, ".") == 2 {
		return false
	}
	return strings.Trim(token, "=") != "" && !strings.ContainsFunc(token, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("-._~+/=", c)) // b64token, RFC 6750 §2.1
	})
}

// verifyOpaque verifies a token by its issuer's introspection response only.
func (v *Verifier) verifyOpaque(
	ctx context.Context, presented Presented, proven possession,
) (*verifiedToken, error) {
	i := v.opaque
	answer, err := i.keys.introspector.ask(ctx, presented, nil)
	if err != nil {
		return nil, err
	}
	c := &answer.claims
	if c.iss != nil && string(c.iss) != i.URL {
		return nil, i.wrongAnswerIssuer(c)
	}
	if err := c.check(i, v.now()); err != nil {
		return nil, err
	}
	if err := c.binding.check(i, proven); err != nil {
		return nil, err
	}
	if answer.token != nil {
		return answer.token, nil
	}
	scopes, err := c.scopes(i)
	if err != nil {
		return nil, err
	}
	client, err := c.clientName(i)
	if err != nil {
		return nil, err
	}
	known := &verifiedToken{
		principal: c.principal(i, client, scopes), issuer: i, times: c.times, binding: c.binding,
	}
	i.keys.introspector.keep(presented.Token, answer, known)
	return known, nil
}

// confirm introspects a JWT that was verified. The claims of the response must agree with the
// token, and can only remove scopes.
func (v *Verifier) confirm(
	ctx context.Context, presented Presented, known *verifiedToken,
) (*verifiedToken, error) {
	i := known.issuer
	if i.keys.introspector == nil {
		return nil, &Error{Code: IntrospectionUnavailable, RetryAfter: time.Minute,
			Detail: "introspection is not configured for " + i.URL}
	}
	answer, err := i.keys.introspector.ask(ctx, presented, known)
	if err != nil {
		return nil, err
	}
	c := &answer.claims
	if c.exp.present {
		if err := c.times.check(i, v.now()); err != nil {
			return nil, err
		}
	}
	if t := answer.token; t != nil && t.key == known.key && t.issuer == i {
		return t, nil
	}
	switch {
	case c.iss != nil && string(c.iss) != i.URL:
		return nil, i.wrongAnswerIssuer(c)
	case c.sub != nil && string(c.sub) != known.principal.subject:
		return nil, refuse(WrongClaim, "sub in the introspection response of %s differs from the "+
			"token's", i.URL)
	case c.binding.bound && c.binding != known.binding:
		return nil,
			refuse(Bound, "cnf in the introspection response of %s differs from the token's",
				i.URL)
	}
	if c.aud != nil || i.AudienceClaim != audClaim {
		if _, found := lookup(c.raw, i.AudienceClaim); found {
			if err := c.checkAudience(i); err != nil {
				return nil, err
			}
		}
	}
	confirmed := *known
	confirmed.text = "" // for the cache of verified tokens only
	if i.hasScopeClaim(c.raw) {
		granted, err := c.scopes(i)
		if err != nil {
			return nil, err
		}
		principal := *known.principal
		principal.scopes = slices.DeleteFunc(principal.Scopes(), func(scope string) bool {
			return !slices.Contains(granted, scope)
		})
		confirmed.principal = &principal
	}
	i.keys.introspector.keep(presented.Token, answer, &confirmed)
	return &confirmed, nil
}

func (i *issuer) wrongAnswerIssuer(c *claims) error {
	return refuse(WrongIssuer, "iss in the introspection response of %s is %s", i.URL,
		quote(string(c.iss)))
}

// hasScopeClaim reports whether an object has one of the issuer's scope claims.
func (i *issuer) hasScopeClaim(object []byte) bool {
	return slices.ContainsFunc(i.ScopeClaims, func(pointer string) bool {
		_, found := lookup(object, pointer)
		return found
	})
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
	if at, cached := q.answers.inactive.get(name); cached && now.Sub(at) < inactiveAge {
		return nil, q.inactive()
	}
	limiter, caller := &q.unknown, presented.Client
	if a, cached := q.answers.active.get(name); cached && a.by == q {
		if !live && now.Before(a.until) {
			return a, nil
		}
		limiter, known = &q.known, cmp.Or(known, a.token)
	}
	if known != nil {
		limiter, caller = &q.known, known.caller()
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

var (
	errBusy = errors.New("too many concurrent requests")
	errSlow = errors.New("the previous request failed, and this one has not completed yet")
	// errAbandoned means that the client disconnected, or that the server stops. It does not mean
	// that the issuer failed.
	errAbandoned = errors.New("the request was cancelled")
)

// query sends an introspection request, within the limits of time, number and rate.
func (q *introspector) query(
	ctx context.Context, limiter *queryLimiter, caller string, name [sha256.Size]byte, token string,
) (*activeAnswer, error) {
	end, err := q.begin(ctx, limiter, caller)
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
	a, err := protect(func() (*activeAnswer, error) { return q.post(bounded, token) })
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
	case a == nil:
		q.count.inactive.Add(1)
		q.answers.inactive.set(name, q.now())
		q.answers.active.remove(name)
		return nil, q.inactive()
	}
	q.count.active.Add(1)
	q.answers.keep(name, a, q.now())
	return a, nil
}

// begin waits for a slot. After a failure it allows no query for retryGap, and then one at a time,
// so that an issuer that hangs does not delay every request: see lastFailure.
func (q *introspector) begin(
	ctx context.Context, l *queryLimiter, caller string,
) (end func(error), err error) {
	probe, err := l.admit(caller, q.now())
	if err != nil {
		return nil, err
	}
	if probe {
		return func(err error) { q.end(l, caller, probe, err) }, nil
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	slot, err := l.slots.wait(ctx, caller, timer.C)
	if err != nil {
		return nil, err
	}
	return func(err error) {
		l.slots.give(slot)
		q.end(l, caller, probe, err)
	}, nil
}

// admit counts a query, and says whether it is the one that is allowed after a failure. It fails if
// the query may not begin.
func (l *queryLimiter) admit(caller string, now time.Time) (probe bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	failure := l.failureOf(caller)
	if failure != nil && (l.probing || now.Sub(l.failedAt) < retryGap) {
		return false, failure
	}
	if l.rate != nil && !l.rate.take(caller, now) {
		return false, errBusy
	}
	probe = failure != nil
	l.probing = l.probing || probe
	return probe, nil
}

// end records the result of a query, and logs changes only.
func (q *introspector) end(l *queryLimiter, caller string, probe bool, err error) {
	l.mu.Lock()
	l.probing = l.probing && !probe
	if err == errAbandoned {
		l.mu.Unlock()
		return
	}
	now, before := q.now(), l.failure
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
		q.log.Warn("introspection failed", "issuer", q.issuer, "error", err)
	}
	if recovered {
		q.log.Info("introspection recovered", "issuer", q.issuer)
	}
}

// tolerates reports whether a failure does not hold back other callers. If it did, two clients with
// tokens that the issuer's firewall refuses could hold back all. It does if the issuer has not
// answered, because others would wait too, and if no rate limits the load on an issuer that fails.
func (l *queryLimiter) tolerates(err error) bool {
	_, answered := errors.AsType[*answerError](err)
	return answered && l.rate != nil
}

// post sends the request (RFC 7662 §2.1) and returns the answer, or nil if the token is not active.
// Its errors hold neither the token nor the credentials.
func (q *introspector) post(ctx context.Context, token string) (*activeAnswer, error) {
	endpoint, inBody, err := q.locate(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if inBody {
		form.Set("client_id", q.config.ClientID)
		form.Set("client_secret", q.config.ClientSecret)
	}
	content := strings.NewReader(form.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if !inBody { // encoded as in a form (RFC 6749 §2.3.1)
		id, secret := url.QueryEscape(q.config.ClientID), url.QueryEscape(q.config.ClientSecret)
		request.SetBasicAuth(id, secret)
	}
	response, err := q.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if err := q.checkHeader(response, endpoint); err != nil {
		return nil, &answerError{err}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxIntrospectionBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpoint, err)
	}
	if len(body) > maxIntrospectionBytes {
		return nil, &answerError{fmt.Errorf("%s: the response exceeds the limit of %d bytes",
			endpoint, maxIntrospectionBytes)}
	}
	return q.read(body)
}

// answerError means that the issuer has answered, but not as RFC 7662 §2.2 says.
type answerError struct{ error }

func (e *answerError) Unwrap() error { return e.error }

// checkHeader checks status and media type of a response.
func (q *introspector) checkHeader(response *http.Response, endpoint string) error {
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusBadRequest:
		return fmt.Errorf("%s: status is %d, expected 200: is the client %s with this secret "+
			"registered at the issuer?", endpoint, response.StatusCode, quote(q.config.ClientID))
	default:
		return &statusError{endpoint, response.StatusCode}
	}
	media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return fmt.Errorf("%s: Content-Type is %s, expected application/json (RFC 7662 §2.2)",
			endpoint, quote(response.Header.Get("Content-Type")))
	}
	return nil
}

// locate returns the endpoint, from the issuer's metadata if it is not configured.
func (q *introspector) locate(ctx context.Context) (endpoint string, inBody bool, err error) {
	if q.config.Endpoint != "" {
		return q.config.Endpoint, false, nil
	}
	q.discovering.Lock() // the locator is not safe for concurrent use
	defer q.discovering.Unlock()
	if q.endpoint != "" && q.now().Sub(q.foundAt) < time.Hour {
		return q.endpoint, q.inBody, nil
	}
	found, at, err := q.locator.discover(ctx)
	if err == nil {
		if err = q.locator.checkURL(found.Introspection); err != nil {
			err = fmt.Errorf("%s: introspection_endpoint is %s: %w", at,
				quote(found.Introspection), err)
		}
	}
	if err != nil {
		return "", false, err
	}
	methods := found.IntrospectionAuth
	q.endpoint, q.foundAt = found.Introspection, q.now()
	q.inBody = slices.Contains(methods, "client_secret_post") &&
		!slices.Contains(methods, "client_secret_basic")
	return q.endpoint, q.inBody, nil
}

// read parses a response (RFC 7662 §2.2), as strictly as claims. It returns nil if the token is not
// active, and an error only if the response is malformed.
func (q *introspector) read(body []byte) (*activeAnswer, error) {
	var kind []byte
	var active jsontext.Kind
	err := eachMember(body, func(name []byte, value jsontext.Value) (err error) {
		switch string(name) {
		case "active":
			active = value.Kind()
		case "token_type":
			kind, err = textOf("token_type", value)
		}
		return err
	})
	if err == nil && active != 't' && active != 'f' {
		err = errors.New("active is not true or false")
	}
	if err != nil {
		return nil,
			&answerError{fmt.Errorf("the response does not conform to RFC 7662 §2.2: %w", err)}
	}
	isAccessToken := kind == nil || slices.ContainsFunc([]string{"Bearer", "DPoP", "access_token"},
		func(known string) bool { return strings.EqualFold(known, string(kind)) })
	if active == 'f' || !isAccessToken { // refresh tokens are active too
		return nil, nil
	}
	c, err := parseClaims(body)
	if err != nil {
		refused, _ := errors.AsType[*Error](err)
		return nil, &unreadableError{refused.Detail}
	}
	return &activeAnswer{by: q, claims: c, until: q.now().Add(q.config.MaxAge)}, nil
}

// unreadableError means that a token is active but its claims cannot be read. Other tokens may be
// readable.
type unreadableError struct{ detail string }

func (e *unreadableError) Error() string {
	return "the answer is not of RFC 7662 §2.2: " + e.detail
}
