package token

import (
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
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// Introspection has an issuer asked whether a token is active (RFC 7662). It is on where ClientID
// is set. Without Opaque and Always, only tokens with [Presented.Introspect] are asked about.
type Introspection struct {
	// Endpoint is where to ask. Default: introspection_endpoint of the issuer's metadata.
	Endpoint string
	// ClientID and ClientSecret are this API's own credentials at the issuer, sent by HTTP Basic,
	// or in the body where the metadata says that the issuer takes nothing else (RFC 6749 §2.3.1).
	ClientID, ClientSecret string
	// Opaque accepts tokens of another form than a JWT. Such a token names no issuer, so one issuer
	// of a [Verifier] at most can accept them.
	Opaque bool
	// Always asks about every JWT of the issuer, after its signature and claims were verified.
	Always bool
	// MaxAge is how long the answer that a token is active is used again, and never beyond the
	// token's exp. Default 60 s; NoAge asks each time.
	MaxAge time.Duration
}

// NoAge as an Introspection's MaxAge keeps no answer that a token is active.
const NoAge time.Duration = -1

const (
	defaultAnswerAge, mostAnswerAge = time.Minute, time.Hour
	// inactiveAge is how long the answer that a token is not active is used again: a token that is
	// not active does not become so.
	inactiveAge = 10 * time.Second
	// mostInactive bounds the tokens that are known not to be active.
	mostInactive = 1 << 14
	// mostAsked bounds the questions to an issuer at one time.
	mostAsked = 16
	// strangerRate and strangerBurst bound the questions about tokens that nothing is known of.
	// JWTs are not among them: only those with a genuine signature are asked about.
	strangerRate, strangerBurst = 50, 100
	maxIntrospectionBytes       = 64 << 10
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
	case c.MaxAge < 0 || c.MaxAge > mostAnswerAge:
		fault("Introspection.MaxAge is %s: expected at most %s", c.MaxAge, mostAnswerAge)
	}
	if c.Opaque && strings.Contains(i.URL, tenantPlaceholder) {
		fault("Introspection.Opaque: an opaque token names no tenant. Expected an issuer URL "+
			"without %s", tenantPlaceholder)
	}
	if c.Endpoint == "" {
		if i.JWKSURI != "" || i.JWKS != nil || i.PublicKeyPEM != nil {
			fault("Introspection.Endpoint is empty: expected it where the keys are configured, " +
				"because no metadata is fetched")
		}
		return
	}
	if strings.Contains(c.Endpoint, tenantPlaceholder) && (len(i.Tenants) == 0 || i.commonKeys()) {
		fault("Introspection.Endpoint has %s: expected it only where each tenant has keys of its "+
			"own", tenantPlaceholder)
	}
	u, err := url.Parse(strings.ReplaceAll(c.Endpoint, tenantPlaceholder, "tenant"))
	if err != nil || u.Hostname() == "" || u.Fragment != "" || u.User != nil ||
		u.Scheme != "https" && (u.Scheme != "http" ||
			!IsLoopback(u.Hostname()) && u.Host != newLocator(i, nil, nil).insecureHost) {
		fault("Introspection.Endpoint is %q: expected an https URL (http on loopback hosts, or "+
			"the host of InsecureHTTP)", c.Endpoint)
	}
}

// introspector asks one issuer about tokens.
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

	flights        singleflight.Group
	known, strange lane // for tokens of which something is known, and others
	strangers      bucket

	discovering sync.Mutex
	endpoint    string // "": not known yet
	inBody      bool   // the credentials go into the body
	foundAt     time.Time
}

// lane holds the questions about tokens of one kind. Those of strangers have their own, because a
// made-up token can make an issuer fail, or a firewall in front of it: that concerns nobody else.
type lane struct {
	places chan struct{} // holds one for each question under way

	mu       sync.Mutex
	failure  error // of the last question
	failedAt time.Time
	probing  bool // a question is under way, since the last one failed
}

func (l *lane) lastFailure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// answers keeps what issuers said, by the SHA-256 of the token. Answers that a token is active and
// others are kept apart, so that a flood of made-up tokens evicts none of a genuine one.
type answers struct {
	active   *otter.Cache[[sha256.Size]byte, *answered]
	inactive *otter.Cache[[sha256.Size]byte, time.Time] // when the answer came
}

// answered is the answer that a token is active.
type answered struct {
	by     *introspector
	claims claims
	until  time.Time
	token  *verified // what the answer makes of the token; nil: not known yet
}

// keep keeps an answer, unless a later one says that the token is not active. That one may come at
// the same time: so the look at it is the last step, as its Invalidate is in question.
func (a answers) keep(name [sha256.Size]byte, answer *answered, now time.Time) {
	if !now.Before(answer.until) {
		return
	}
	a.active.Set(name, answer)
	if _, revoked := a.inactive.GetIfPresent(name); revoked {
		a.active.Invalidate(name)
	}
}

func newAnswers(bytes int64) (a answers, err error) {
	upkeep := func(upkeep func()) { time.AfterFunc(upkeepDelay, upkeep) }
	a.active, err = otter.New(&otter.Options[[sha256.Size]byte, *answered]{
		MaximumWeight: uint64(bytes),
		Weigher: func(_ [sha256.Size]byte, a *answered) uint32 {
			return uint32(2*overhead + len(a.claims.raw))
		},
		Executor: upkeep,
	})
	if err != nil {
		return a, err
	}
	a.inactive, err = otter.New(&otter.Options[[sha256.Size]byte, time.Time]{
		MaximumSize: mostInactive, Executor: upkeep,
	})
	return a, err
}

// newIntrospector returns the introspector of an issuer that is complete; nil: it has none.
func newIntrospector(i *Issuer, env environment) *introspector {
	if !i.Introspection.on() {
		return nil
	}
	q := &introspector{
		issuer: i.URL, config: i.Introspection, answers: env.answers,
		locator: newLocator(i, env.client, env.log),
		client:  env.client, now: env.now, log: env.log, ctx: env.ctx,
		count:     new(introspectionCounts),
		known:     lane{places: make(chan struct{}, mostAsked)},
		strange:   lane{places: make(chan struct{}, mostAsked)},
		strangers: bucket{rate: strangerRate, burst: strangerBurst},
	}
	return q
}

// isOpaque reports whether a token is of another form than a JWT. What has three segments is never
// taken for one, so that a token of another issuer is not sent to this one.
func isOpaque(token string) bool {
	if strings.Count(token, ".") == 2 {
		return false
	}
	return strings.Trim(token, "=") != "" && !strings.ContainsFunc(token, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("-._~+/=", c)) // b64token, RFC 6750 §2.1
	})
}

// verifyOpaque verifies a token of which nothing is known but what its issuer answers.
func (v *Verifier) verifyOpaque(
	ctx context.Context, token string, has possession, live bool,
) (*verified, error) {
	i := v.opaque
	answer, err := i.keys.introspector.ask(ctx, token, live, true)
	if err != nil {
		return nil, err
	}
	c := &answer.claims
	if c.iss != nil && string(c.iss) != i.URL {
		return nil, i.foreignAnswer(c)
	}
	if err := c.check(i, v.now()); err != nil {
		return nil, err
	}
	if err := c.binding.check(i, has); err != nil {
		return nil, err
	}
	if answer.token != nil {
		return answer.token, nil
	}
	scopes, err := c.scopes(i)
	if err != nil {
		return nil, err
	}
	client, err := c.client(i)
	if err != nil {
		return nil, err
	}
	known := &verified{
		principal: c.principal(i, client, scopes), issuer: i, times: c.times, binding: c.binding,
	}
	i.keys.introspector.keep(token, answer, known)
	return known, nil
}

// confirm asks the issuer whether a JWT that was verified is active. What the answer says must
// agree with the token, and it can only take scopes away.
func (v *Verifier) confirm(
	ctx context.Context, token string, known *verified, live bool,
) (*verified, error) {
	i := known.issuer
	if i.keys.introspector == nil {
		return nil, &Error{Code: IntrospectionUnavailable, RetryAfter: time.Minute,
			Detail: "no introspection is configured for " + i.URL}
	}
	answer, err := i.keys.introspector.ask(ctx, token, live, false)
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
		return nil, i.foreignAnswer(c)
	case c.sub != nil && string(c.sub) != known.principal.subject:
		return nil, refuse(WrongClaim, "the answer of %s is about a token of another sub", i.URL)
	case c.binding.bound && c.binding != known.binding:
		return nil, refuse(Bound, "the answer of %s names another binding (cnf) than the token",
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
	if i.saysScopes(c.raw) {
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
	i.keys.introspector.keep(token, answer, &confirmed)
	return &confirmed, nil
}

func (i *issuer) foreignAnswer(c *claims) error {
	return refuse(WrongIssuer, "the answer of %s is about a token of %s", i.URL,
		quote(string(c.iss)))
}

// saysScopes reports whether an object has one of the issuer's scope claims.
func (i *issuer) saysScopes(object []byte) bool {
	return slices.ContainsFunc(i.ScopeClaims, func(pointer string) bool {
		_, found := lookup(object, pointer)
		return found
	})
}

// ask returns the answer that a token is active, or an [*Error]. live: it must be given now, and is
// not shared with a request that began earlier. stranger: nothing is known of the token yet.
func (q *introspector) ask(
	ctx context.Context, token string, live, stranger bool,
) (*answered, error) {
	name := sha256.Sum256(bytesOf(token))
	now := q.now()
	if at, known := q.answers.inactive.GetIfPresent(name); known && now.Sub(at) < inactiveAge {
		return nil, q.inactive()
	}
	if a, known := q.answers.active.GetIfPresent(name); known && a.by == q {
		if !live && now.Before(a.until) {
			return a, nil
		}
		stranger = false
	}
	if live {
		return q.question(ctx, name, token, stranger)
	}
	asked := q.flights.DoChan(string(name[:]), func() (any, error) {
		return q.question(q.ctx, name, token, stranger)
	})
	var impatient <-chan time.Time
	if failure := q.lane(stranger).lastFailure(); failure != nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case outcome := <-asked:
		a, _ := outcome.Val.(*answered)
		return a, outcome.Err
	case <-impatient:
		return nil, q.unavailable(errSlow)
	case <-ctx.Done():
		return nil, q.unavailable(ctx.Err())
	}
}

// keep keeps an answer with what it makes of the token.
func (q *introspector) keep(token string, a *answered, known *verified) {
	kept := *a
	kept.token = known
	q.answers.keep(sha256.Sum256(bytesOf(token)), &kept, q.now())
}

func (q *introspector) inactive() error {
	return refuse(Inactive, "%s answers that the token is not active (RFC 7662 §2.2): it "+
		"expired, was revoked, or is not one of its tokens", q.issuer)
}

func (q *introspector) unavailable(err error) error {
	return &Error{Code: IntrospectionUnavailable, RetryAfter: time.Second, Err: err,
		Detail: "could not ask " + q.issuer + " about the token"}
}

var (
	errBusy = errors.New("too many questions at one time")
	errSlow = errors.New("the last question failed, and no answer has come yet")
	// errAbandoned: the client hung up, or the server stops. It says nothing of the issuer.
	errAbandoned = errors.New("nobody waits for the answer any more")
)

func (q *introspector) lane(stranger bool) *lane {
	if stranger {
		return &q.strange
	}
	return &q.known
}

// question asks the issuer, within the limits of time, number and rate.
func (q *introspector) question(
	ctx context.Context, name [sha256.Size]byte, token string, stranger bool,
) (*answered, error) {
	end, err := q.begin(ctx, stranger)
	if err != nil {
		return nil, q.unavailable(err)
	}
	bounded, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	a, err := q.post(bounded, token)
	if ctx.Err() != nil {
		end(errAbandoned)
		return nil, q.unavailable(ctx.Err())
	}
	if _, ofToken := errors.AsType[*unreadableError](err); ofToken {
		end(nil) // or its holder could make an outage of it
	} else {
		end(err)
	}
	switch {
	case err != nil:
		q.count.failed.Add(1)
		return nil, q.unavailable(err)
	case a == nil:
		q.count.inactive.Add(1)
		q.answers.inactive.Set(name, q.now())
		q.answers.active.Invalidate(name)
		return nil, q.inactive()
	}
	q.count.active.Add(1)
	q.answers.keep(name, a, q.now())
	return a, nil
}

// begin waits for a place among the questions under way. After a failure one question is asked at a
// time, and none for a moment, so that an issuer that hangs does not hold every request.
func (q *introspector) begin(ctx context.Context, stranger bool) (end func(error), err error) {
	l := q.lane(stranger)
	l.mu.Lock()
	failure := l.failure
	if failure != nil && (l.probing || q.now().Sub(l.failedAt) < retryGap) {
		l.mu.Unlock()
		return nil, failure
	}
	probe := failure != nil
	l.probing = probe
	l.mu.Unlock()
	if probe {
		return func(err error) { q.end(l, err) }, nil
	}
	if stranger && !q.strangers.take(q.now()) {
		q.count.limited.Add(1)
		return nil, errBusy
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case l.places <- struct{}{}:
		return func(err error) { <-l.places; q.end(l, err) }, nil
	case <-timer.C:
		q.count.limited.Add(1)
		return nil, errBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// end records how a question ended, and logs changes only.
func (q *introspector) end(l *lane, err error) {
	l.mu.Lock()
	before := l.failure
	l.probing = false
	if err != errAbandoned {
		l.failure, l.failedAt = err, q.now()
	}
	l.mu.Unlock()
	switch {
	case err == errAbandoned:
	case err != nil && (before == nil || before.Error() != err.Error()):
		q.log.Warn("introspection failed", "issuer", q.issuer, "error", err)
	case err == nil && before != nil:
		q.log.Info("introspection works again", "issuer", q.issuer)
	}
}

// post sends the question (RFC 7662 §2.1) and returns the answer; nil: the token is not active. No
// error of it holds the token or the credentials.
func (q *introspector) post(ctx context.Context, token string) (*answered, error) {
	endpoint, inBody, err := q.place(ctx)
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
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusBadRequest:
		return nil, fmt.Errorf("%s: status %d: does the issuer know this API's client %s and its "+
			"secret?", endpoint, response.StatusCode, quote(q.config.ClientID))
	default:
		return nil, &statusError{endpoint, response.StatusCode}
	}
	media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, fmt.Errorf("%s: Content-Type is %s, expected application/json (RFC 7662 §2.2)",
			endpoint, quote(response.Header.Get("Content-Type")))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxIntrospectionBytes+1))
	if err == nil && len(body) > maxIntrospectionBytes {
		err = fmt.Errorf("more than the %d bytes that are read", maxIntrospectionBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", endpoint, err)
	}
	return q.read(body)
}

// place returns where to ask, by the issuer's metadata where the configuration does not say.
func (q *introspector) place(ctx context.Context) (endpoint string, inBody bool, err error) {
	if q.config.Endpoint != "" {
		return q.config.Endpoint, false, nil
	}
	q.discovering.Lock() // the locator is used by one at a time
	defer q.discovering.Unlock()
	if q.endpoint != "" && q.now().Sub(q.foundAt) < time.Hour {
		return q.endpoint, q.inBody, nil
	}
	found, at, err := q.locator.discover(ctx)
	if err == nil {
		if err = q.locator.mayFetch(found.Introspection); err != nil {
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

// read reads an answer (RFC 7662 §2.2), as strictly as claims are; nil: the token is not active.
// One that cannot be read is a fault of the issuer, and says nothing of the token.
func (q *introspector) read(body []byte) (*answered, error) {
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
		return nil, fmt.Errorf("the answer is not of RFC 7662 §2.2: %w", err)
	}
	isAccessToken := kind == nil || slices.ContainsFunc([]string{"Bearer", "DPoP", "access_token"},
		func(known string) bool { return strings.EqualFold(known, string(kind)) })
	if active == 'f' || !isAccessToken { // a refresh token, say, which is active too
		return nil, nil
	}
	c, err := parseClaims(body)
	if err != nil {
		refused, _ := errors.AsType[*Error](err)
		return nil, &unreadableError{refused.Detail}
	}
	return &answered{by: q, claims: c, until: q.now().Add(q.config.MaxAge)}, nil
}

// unreadableError is the answer about an active token whose claims cannot be read. Other tokens may
// have better ones.
type unreadableError struct{ detail string }

func (e *unreadableError) Error() string {
	return "the answer is not of RFC 7662 §2.2: " + e.detail
}

// bucket bounds a rate.
type bucket struct {
	rate, burst float64

	mu    sync.Mutex
	spent float64
	at    time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-b.rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.spent+1 > b.burst {
		return false
	}
	b.spent++
	return true
}
