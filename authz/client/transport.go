package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// OriginError reports a request to another origin than the API's. It was not sent, because only the
// API may see the token.
type OriginError struct{ Expected, Received string }

func (e *OriginError) Error() string {
	return fmt.Sprintf("client: the request goes to %s, the token is for %s: use another "+
		"http.Client", e.Received, e.Expected)
}

// Client returns an http.Client for requests to an API, which adds the token to each and, with
// DPoP, a proof. api is any URL of the API; only its origin matters. A request to another origin is
// refused with an [*OriginError], unless the API redirects there. In that case, it and the
// redirects that follow are sent without the token.
//
// A request that the API refuses with 401 is sent once more if that can help: with the nonce that
// the API requires (RFC 9449 §9), or with a new token if the old one, not just issued, is no longer
// valid (the issuer may have dropped the key). A body is sent again only if the request has
// GetBody, which http.NewRequest sets.
func (s *Source) Client(api string) (*http.Client, error) {
	u, err := url.Parse(api)
	if err == nil {
		err = checkConfidential(api)
	}
	if err != nil {
		return nil,
			fmt.Errorf("client: the API is at %q: expected an https URL, http on loopback hosts "+
				"only", redacted(api))
	}
	caller := *s.config.HTTPClient
	caller.Transport = &transport{source: s, origin: originOf(u), base: baseOf(s.config.HTTPClient)}
	return &caller, nil
}

type transport struct {
	source *Source
	origin string
	base   http.RoundTripper
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	origin := originOf(r.URL)
	switch {
	case r.Response != nil && (origin != t.origin || !t.redirectedByAPI(r)):
		// a redirect followed by the http.Client
		return t.base.RoundTrip(r)
	case origin != t.origin:
		closeBody(r)
		return nil, &OriginError{Expected: t.origin, Received: origin}
	}
	response, retry, err := t.send(r)
	if err == nil && !retry {
		retry, err = t.waitRetryAfter(r, response)
	}
	if err != nil || !retry {
		return response, err
	}
	again, ok := rewind(r)
	if !ok {
		return response, nil
	}
	discard(response)
	response, _, err = t.send(again)
	return response, err
}

// waitRetryAfter waits for the Retry-After of a 503, if it is short enough and the method is safe,
// and reports whether it did.
func (t *transport) waitRetryAfter(r *http.Request, response *http.Response) (bool, error) {
	longest := t.source.config.MaxRetryAfter
	if longest <= 0 || response.StatusCode != http.StatusServiceUnavailable {
		return false, nil
	}
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		return false, nil
	}
	seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 31)
	if err != nil || time.Duration(seconds)*time.Second > longest {
		return false, nil
	}
	timer := time.NewTimer(time.Duration(seconds) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-r.Context().Done():
		discard(response)
		return false, context.Cause(r.Context())
	}
}

// redirectedByAPI reports whether all redirects that led to a request are the API's own. A redirect
// by another origin back to the API must not be sent with the token.
func (t *transport) redirectedByAPI(r *http.Request) bool {
	for r.Response != nil {
		if r = r.Response.Request; r == nil || originOf(r.URL) != t.origin {
			return false
		}
	}
	return true
}

// send sends a request with the token, and reports whether to send it again.
func (t *transport) send(r *http.Request) (response *http.Response, retry bool, err error) {
	token, err := t.source.token(r.Context())
	if err != nil {
		closeBody(r)
		return nil, false, err
	}
	sent := r.Clone(r.Context()) // a RoundTripper must not modify the request
	sent.Header.Set("Authorization", t.source.tokenType()+" "+token.AccessToken)
	nonce := ""
	if prover := t.source.prover; prover != nil {
		if nonce, err = prover.prove(sent, token.AccessToken); err != nil {
			closeBody(r)
			return nil, false, err
		}
	}
	response, err = t.base.RoundTrip(sent)
	if err != nil {
		return nil, false, err
	}
	response.Request = r // without the token, in case the caller logs it
	if t.source.prover != nil {
		retry = t.source.prover.storeNonce(r.URL, response.Header, nonce) &&
			refusedFor(response, "use_dpop_nonce")
	}
	if refusedFor(response, "invalid_token") {
		retry = t.source.forget(token)
	}
	return response, retry, nil
}

// refusedFor reports whether a response is a 401 with this error in a challenge (RFC 6750 §3, RFC
// 9449 §7.1).
func refusedFor(response *http.Response, code string) bool {
	challenges := strings.Join(response.Header.Values("WWW-Authenticate"), ", ")
	return response.StatusCode == http.StatusUnauthorized &&
		strings.Contains(challenges, `error="`+code+`"`)
}

// originOf returns the origin of a URL (RFC 6454 §4).
func originOf(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	port, known := map[string]string{"http": ":80", "https": ":443"}[scheme]
	if known {
		host = strings.TrimSuffix(host, port)
	}
	return scheme + "://" + host
}

// rewind returns a copy of a request with its body at the start, if the body can be replayed.
func rewind(r *http.Request) (*http.Request, bool) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	again := *r
	again.Body = body
	return &again, true
}

// discard drains and closes a response so that its connection can be reused.
func discard(response *http.Response) {
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	response.Body.Close()
}

// closeBody closes the body of a request that is not sent, as a RoundTripper must.
func closeBody(r *http.Request) {
	if r.Body != nil {
		r.Body.Close()
	}
}

func baseOf(client *http.Client) http.RoundTripper {
	if client.Transport != nil {
		return client.Transport
	}
	return http.DefaultTransport
}
