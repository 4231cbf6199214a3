package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
)

// KeyPolicy says how an issuer's keys are kept. Zero values are the defaults.
type KeyPolicy struct {
	// Cooldown is the least time between two refreshes that tokens with an unknown kid ask for. Default 30 s.
	Cooldown time.Duration
	// MaxAge is the longest time after which keys are refreshed in the background, whatever the issuer's
	// Cache-Control allows. Default 1 h. The issuer's max-age is honoured between 1 min, or MaxAge where that is
	// less, and MaxAge.
	MaxAge time.Duration
	// MaxStale is how long keys serve when they cannot be refreshed. Default 24 h.
	MaxStale time.Duration
}

const (
	fetchTimeout = 5 * time.Second
	leastMaxAge  = time.Minute
	// retryGap is the least time between two attempts while there are no keys at all. It keeps "serving within
	// a second of the issuer's return" without hammering an issuer that is down.
	retryGap = 500 * time.Millisecond
	// backoff bounds the attempts in the background while the keys had are still good.
	leastBackoff, mostBackoff = time.Second, time.Minute
)

// source keeps one issuer's key set: fetched at first need, refreshed in the background ahead of its expiry, and
// at once for a kid that it does not know. There is at most one fetch at a time. It runs on the server's context,
// so that a client who hangs up disturbs nobody; whoever needs its outcome waits for it on the request's own.
type source struct {
	issuer string
	policy KeyPolicy
	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	ctx    context.Context

	set     atomic.Pointer[keySet] // nil before the first good fetch
	flights atomic.Uint64          // how many fetches were begun

	mu       sync.Mutex
	flight   *flight   // the fetch under way
	failedAt time.Time // of the last fetch, if it failed
	failure  error
	forcedAt time.Time // when an unknown kid last caused a fetch
	refresh  *time.Timer
	backoff  time.Duration
}

type flight struct {
	done chan struct{} // closed at the end; then err may be read
	err  error
}

// inherit takes over the set of another source of the same issuer, and sees to a newer one.
func (s *source) inherit(from *source) {
	set := from.set.Load()
	if set == nil {
		return
	}
	own := *set
	own.flight = 0 // before any fetch of s, so that a kid that it does not know causes one
	s.set.Store(&own)
	go s.refreshNow()
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
			return nil, refuse(UnknownKey, "the token names no key (kid) and the set has %d usable keys, or one that is not for %s", len(set.keys), alg)
		case how == keyUnfit:
			return nil, refuse(WrongAlgorithm, "alg is %s, which is not that of key %s", alg, quote(string(kid)))
		case set.flight > begun: // fetched for this very request, or since
			return nil, s.unknown(kid)
		}
		var newer *keySet
		if newer, err = s.newer(ctx, set); newer == set {
			return nil, s.unknown(kid) // the cooldown lasts, and the set was good when it began
		}
		set = newer
	}
	return nil, err
}

func (s *source) unknown(kid []byte) error {
	return refuse(UnknownKey, "no usable key of %s has kid %s, in the newest set either", s.issuer, quote(string(kid)))
}

// serving returns the set that serves now, or nil.
func (s *source) serving(now time.Time) *keySet {
	if set := s.set.Load(); set != nil && now.Sub(set.fetched) < s.policy.MaxStale {
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
	f := s.flight
	if f == nil {
		if wait := s.failedAt.Add(retryGap).Sub(s.now()); s.failure != nil && wait > 0 {
			err := s.failure
			s.mu.Unlock()
			return nil, s.unavailable(time.Second, err)
		}
		f = s.fly()
	}
	s.mu.Unlock()
	return s.wait(ctx, f, time.Second)
}

// newer returns a set newer than the given one, fetched if need be and if the cooldown allows; else the given one.
func (s *source) newer(ctx context.Context, than *keySet) (*keySet, error) {
	s.mu.Lock()
	if set := s.set.Load(); set != than {
		s.mu.Unlock()
		return set, nil
	}
	f := s.flight
	if f == nil {
		if wait := s.forcedAt.Add(s.policy.Cooldown).Sub(s.now()); wait > 0 {
			err := s.failure
			s.mu.Unlock()
			if err != nil { // nothing newer could be had: of this kid nothing can be said
				return nil, s.unavailable(wait, err)
			}
			return than, nil
		}
		s.forcedAt = s.now()
		f = s.fly()
	}
	s.mu.Unlock()
	return s.wait(ctx, f, s.policy.Cooldown)
}

func (s *source) wait(ctx context.Context, f *flight, retryAfter time.Duration) (*keySet, error) {
	select {
	case <-f.done:
		if f.err != nil {
			return nil, s.unavailable(retryAfter, f.err)
		}
		return s.set.Load(), nil
	case <-ctx.Done():
		return nil, s.unavailable(time.Second, ctx.Err())
	}
}

func (s *source) unavailable(retryAfter time.Duration, err error) error {
	return &Error{Code: KeysUnavailable, Detail: "the keys of " + s.issuer + " could not be had", RetryAfter: retryAfter, Err: err}
}

// fly begins a fetch. The caller holds mu, and there is none under way.
func (s *source) fly() *flight {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	number := s.flights.Add(1)
	go func() {
		ctx, cancel := context.WithTimeout(s.ctx, fetchTimeout)
		defer cancel()
		set, maxAge, err := s.fetch(ctx)
		s.land(f, number, set, maxAge, err)
	}()
	return f
}

// land keeps the outcome of a fetch, tells who waits, and sets the time of the next.
func (s *source) land(f *flight, number uint64, set *keySet, maxAge time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight, f.err = nil, err
	defer close(f.done)

	var next time.Duration
	if err != nil {
		if s.failure == nil || s.failure.Error() != err.Error() {
			s.log.Warn("keys could not be fetched", "issuer", s.issuer, "error", err, "still_serving", s.set.Load() != nil)
		}
		s.failure, s.failedAt = err, s.now()
		if s.set.Load() == nil {
			return // the next request, or readiness probe, tries again
		}
		s.backoff = min(max(2*s.backoff, leastBackoff), mostBackoff)
		next = s.backoff
	} else {
		if s.failure != nil || s.set.Load() == nil {
			s.log.Info("keys fetched", "issuer", s.issuer, "keys", len(set.keys))
		}
		set.fetched, set.flight = s.now(), number
		set.adopt(s.set.Load())
		s.set.Store(set)
		s.failure, s.backoff = nil, 0
		next = maxAge * 3 / 4 // ahead of expiry
	}
	next -= time.Duration(rand.Int64N(int64(next)/10 + 1)) // replicas that started together do not ask together
	if s.refresh == nil {
		s.refresh = time.AfterFunc(next, s.refreshNow)
		context.AfterFunc(s.ctx, func() { s.refresh.Stop() })
	} else {
		s.refresh.Reset(next)
	}
}

func (s *source) refreshNow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && s.ctx.Err() == nil {
		s.fly()
	}
}

// fetch asks the issuer where its keys are (OpenID Connect Discovery 1.0 §4) and gets them.
func (s *source) fetch(ctx context.Context) (*keySet, time.Duration, error) {
	at := strings.TrimSuffix(s.issuer, "/") + "/.well-known/openid-configuration"
	body, _, err := s.get(ctx, at)
	if err != nil {
		return nil, 0, err
	}
	var found struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return nil, 0, fmt.Errorf("%s: expected a discovery document (a JSON object with issuer and jwks_uri), received something else", at)
	}
	if found.Issuer != s.issuer {
		return nil, 0, fmt.Errorf("%s: issuer is %s, expected %s: %s", at, quote(found.Issuer), quote(s.issuer), issuerHint(found.Issuer, s.issuer))
	}
	if err := s.mayFetch(found.JWKSURI); err != nil {
		return nil, 0, fmt.Errorf("%s: jwks_uri is %s: %w", at, quote(found.JWKSURI), err)
	}
	body, header, err := s.get(ctx, found.JWKSURI)
	if err != nil {
		return nil, 0, err
	}
	set, dropped, err := parseKeySet(body)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %s", found.JWKSURI, listed(append([]error{err}, dropped...)))
	}
	if dropped != nil {
		s.log.Warn("keys left out", "issuer", s.issuer, "keys", listed(dropped))
	}
	return set, s.policy.clamp(header), nil
}

// listed writes faults on one line, and not all where there are many: they stand in every refusal of an outage.
func listed(faults []error) string {
	const most = 5
	var texts []string
	for _, fault := range faults[:min(len(faults), most)] {
		texts = append(texts, fault.Error())
	}
	if more := len(faults) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// mayFetch: keys come over https; over http only from this machine, and only for an issuer on this machine.
func (s *source) mayFetch(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err == nil && u.Scheme == "https" && u.Host != "":
		return nil
	case err == nil && u.Scheme == "http" && IsLoopback(u.Hostname()) && strings.HasPrefix(s.issuer, "http:"):
		return nil
	}
	return errors.New("expected an https URL (http only for an issuer on a loopback host)")
}

// IsLoopback reports whether a host, as [url.URL.Hostname] gives it, is this machine: localhost, 127.0.0.0/8 or ::1. It
// goes by what is written and asks no resolver. An address with a zone is none: what it means differs by machine.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

func issuerHint(received, expected string) string {
	if strings.TrimSuffix(received, "/") == strings.TrimSuffix(expected, "/") {
		return "they differ by a trailing slash only; configure it exactly as the issuer writes it"
	}
	return "configure the issuer exactly as it names itself"
}

// get fetches a JSON document: 200 and JSON, or an error; no redirects, and no more than maxSetBytes once decoded.
func (s *source) get(ctx context.Context, at string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("%s: status is %d, expected 200 (redirects are not followed)", at, response.StatusCode)
	}
	contentType := response.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return nil, nil, fmt.Errorf("%s: Content-Type is %s, expected JSON", at, quote(contentType))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSetBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", at, err)
	}
	if len(body) > maxSetBytes {
		return nil, nil, fmt.Errorf("%s: more than the %d bytes that are read", at, maxSetBytes)
	}
	return body, response.Header, nil
}

// clamp returns how long a set is fresh, by its Cache-Control (RFC 9111 §5.2.2) within the policy's bounds.
func (p KeyPolicy) clamp(header http.Header) time.Duration {
	age := p.MaxAge
	for directive := range strings.SplitSeq(strings.ToLower(strings.Join(header.Values("Cache-Control"), ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				age = min(age, time.Duration(n)*time.Second)
			}
		case "no-store", "no-cache":
			age = 0
		}
	}
	return min(max(age, leastMaxAge), p.MaxAge)
}
