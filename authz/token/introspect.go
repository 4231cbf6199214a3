package token

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"
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

const defaultAnswerAge, maxAnswerAge = time.Minute, time.Hour

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
