package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// claims holds the registered claims (RFC 7519 §4.1, RFC 9068 §2.2), not yet verified.
type claims struct {
	iss, sub, clientID, azp, jti []byte         // nil when absent
	tid                          []byte         // the tenant; nil when absent or not a string
	aud                          jsontext.Value // a string or an array of strings; nil when absent
	scope                        jsontext.Value // of any kind; nil when absent
	act                          jsontext.Value // an object; nil when absent
	times
	binding binding
	idToken bool   // has a claim of ID tokens only
	raw     []byte // the whole object
}

// times are the claims that are checked against the clock.
type times struct{ exp, nbf, iat numericDate }

func parseClaims(data []byte) (claims, error) {
	c := claims{raw: data}
	err := eachMember(data, func(name []byte, value jsontext.Value) (err error) {
		switch string(name) {
		case "iss":
			c.iss, err = textOf("iss", value)
		case "sub":
			c.sub, err = textOf("sub", value)
		case "client_id":
			c.clientID, err = textOf("client_id", value)
		case "azp":
			c.azp, err = textOf("azp", value)
		case "jti":
			c.jti, err = textOf("jti", value)
		case "aud":
			c.aud, err = value, eachText("aud", value, func([]byte) {})
		case "scope":
			c.scope = value
		case "exp":
			c.exp, err = timeOf("exp", value)
		case "nbf":
			c.nbf, err = timeOf("nbf", value)
		case "iat":
			c.iat, err = timeOf("iat", value)
		case "cnf":
			c.binding = readBinding(value)
		case "act":
			if c.act = value; value.Kind() != '{' {
				err = errors.New("act is not an object (RFC 8693 §4.1)")
			}
		case "tid": // not standardized, so of any type where the issuer has no tenants
			c.tid, _ = textOf("tid", value)
		case "nonce", "at_hash", "c_hash", "s_hash":
			c.idToken = true
		}
		return err
	})
	if err != nil {
		return claims{}, refuse(Malformed, "claims: %v", err)
	}
	return c, nil
}

// check applies the issuer's rules to the claims.
func (c *claims) check(i *issuer, now time.Time) error {
	if len(c.sub) == 0 && (c.sub != nil || !i.SubjectOptional) {
		return refuse(Malformed, "claims: sub is missing or empty")
	}
	if err := c.checkTenant(i); err != nil {
		return err
	}
	if err := c.checkAudience(i); err != nil {
		return err
	}
	if err := c.checkRequired(i); err != nil {
		return err
	}
	if err := c.times.check(i, now); err != nil {
		return err
	}
	if i.RFC9068 {
		var missing []string
		for name, absent := range map[string]bool{"client_id": len(c.clientID) == 0,
			"iat": !c.iat.present, "jti": len(c.jti) == 0} {
			if absent {
				missing = append(missing, name)
			}
		}
		if missing != nil {
			slices.Sort(missing)
			return refuse(Malformed,
				"claims: %s missing, required by RFC 9068 §2.2 (the strict profile)",
				strings.Join(missing, ", "))
		}
	}
	return nil
}

// checkLifetime applies the FAPI 2.0 profile to a JWT that is not introspected.
func (c *claims) checkLifetime(i *issuer) error {
	if !i.FAPI2 || i.Introspection.Always {
		return nil
	}
	if !c.iat.present {
		return refuse(Malformed, "claims: iat is missing, required by the profile fapi2")
	}
	if lifetime := c.exp.seconds - c.iat.seconds; lifetime > i.MaxLifetime.Seconds() {
		return refuse(TooLongLived, "exp is %s after iat, more than the maximum lifetime of %s "+
			"(profile fapi2)", formatSeconds(lifetime), i.MaxLifetime)
	}
	return nil
}

// checkAudience checks that one of the token's audiences is configured for the issuer.
func (c *claims) checkAudience(i *issuer) error {
	name, value := "audience", c.aud
	if i.AudienceClaim != audClaim {
		name = "audience (" + i.AudienceClaim + ")"
		value, _ = lookup(c.raw, i.AudienceClaim)
	}
	ours := false
	if value != nil {
		err := eachText(i.AudienceClaim, value, func(audience []byte) {
			ours = ours || slices.Contains(i.Audiences, string(audience))
		})
		if err != nil {
			return refuse(Malformed, "claims: %v", err)
		}
	}
	if ours {
		return nil
	}
	return c.wrongAudience(i, name, value)
}

func (c *claims) wrongAudience(i *issuer, name string, value jsontext.Value) error {
	var audiences []string
	_ = eachText(name, value, func(audience []byte) {
		audiences = append(audiences, string(audience))
	})
	quoted := func(list []string) string {
		var out []string
		for _, s := range list[:min(len(list), 5)] {
			out = append(out, quote(s))
		}
		return strings.Join(out, ", ")
	}
	received := quoted(audiences)
	switch {
	case value == nil:
		received = "absent"
	case audiences == nil:
		received = "an empty array"
	}
	hint := ""
	if c.idToken {
		hint = ". This looks like an ID token: send the access token instead"
	}
	return refuse(WrongAudience, "%s is %s, expected %s%s", name, received, quoted(i.Audiences),
		hint)
}

// checkRequired checks the issuer's RequiredClaims.
func (c *claims) checkRequired(i *issuer) error {
	for pointer, accepted := range i.RequiredClaims {
		value, found := lookup(c.raw, pointer)
		if !found {
			return refuse(WrongClaim, "claim %s is absent, expected %s", pointer,
				strings.Join(accepted, " or "))
		}
		text, err := textOf(pointer, value)
		if err != nil {
			return refuse(WrongClaim, "claim %v, expected %s", err, strings.Join(accepted, " or "))
		}
		if !slices.Contains(accepted, string(text)) {
			return refuse(WrongClaim, "claim %s is %s, expected %s", pointer, quote(string(text)),
				strings.Join(accepted, " or "))
		}
	}
	return nil
}

// clientName returns the client that the token was issued to, or nil.
func (c *claims) clientName(i *issuer) ([]byte, error) {
	switch {
	case i.ClientClaim == "" && c.clientID != nil:
		return c.clientID, nil // RFC 9068 §2.2
	case i.ClientClaim == "":
		return c.azp, nil // OpenID Connect Core 1.0 §2
	}
	value, found := lookup(c.raw, i.ClientClaim)
	if !found {
		return nil, nil
	}
	text, err := textOf(i.ClientClaim, value)
	if err != nil {
		return nil, refuse(Malformed, "claims: %v", err)
	}
	return text, nil
}

// check compares in seconds, as the claims are (RFC 7519 §2).
func (c times) check(i *issuer, at time.Time) error {
	now, leeway := float64(at.UnixNano())/1e9, i.Leeway.Seconds()
	switch {
	case !c.exp.present:
		return refuse(Malformed, "claims: exp is missing")
	case now >= c.exp.seconds+leeway:
		return refuse(Expired, "expired %s ago", formatSeconds(now-c.exp.seconds))
	case c.exp.seconds > now+i.MaxLifetime.Seconds()+leeway:
		return refuse(TooLongLived, "exp is %s from now, more than the maximum lifetime of %s. "+
			"Is it in milliseconds?", formatSeconds(c.exp.seconds-now), i.MaxLifetime)
	case c.nbf.present && c.nbf.seconds > now+leeway:
		return refuse(NotYetValid, "valid in %s (nbf). Do the clocks agree?",
			formatSeconds(c.nbf.seconds-now))
	case c.iat.present && c.iat.seconds > now+leeway:
		return refuse(NotYetValid, "issued in %s (iat). Do the clocks agree?",
			formatSeconds(c.iat.seconds-now))
	}
	return nil
}

// formatSeconds writes a number of seconds as a duration, or as days if it is long.
func formatSeconds(seconds float64) string {
	const day = 24 * 60 * 60
	if seconds > 3*day {
		return fmt.Sprintf("%.0f days", seconds/day)
	}
	return (time.Duration(seconds) * time.Second).String()
}

// scopes reads the scopes from the issuer's ScopeClaims. scope is a string with spaces between the
// values (RFC 8693 §4.2); some issuers use an array.
func (c *claims) scopes(i *issuer) ([]string, error) {
	var all scopeList
	add := func(scope string) {
		if scope != "" && (i.grantable == nil || i.grantable[scope]) {
			all.add(scope)
		}
	}
	read := func(value string) {
		value, ours := strings.CutPrefix(value, i.ScopePrefix)
		names, renamed := i.ScopeNames[value]
		switch {
		case !ours: // a scope of another API
		case renamed:
			for scope := range strings.SplitSeq(names, " ") {
				add(scope)
			}
		default:
			add(value)
		}
	}
	for _, pointer := range i.ScopeClaims {
		value, found := c.scope, c.scope != nil // set by parseClaims
		if pointer != scopeClaim {
			value, found = lookup(c.raw, pointer)
		}
		if !found {
			continue
		}
		before := len(all.scopes)
		err := eachText(pointer, value, func(text []byte) {
			if value.Kind() == '[' {
				read(stringOf(text))
				return
			}
			for value := range strings.SplitSeq(stringOf(text), " ") {
				read(value)
			}
		})
		if err != nil && (pointer == scopeClaim || i.StrictScopeClaims) {
			return nil, refuse(Malformed, "claims: %v", err)
		}
		if err != nil { // a malformed claim grants nothing, not even the values before the error
			all.truncate(before)
		}
	}
	return all.scopes, nil
}

// scopeList is an ordered set of scopes.
type scopeList struct {
	scopes []string
	seen   map[string]bool // nil while they are few
}

// truncate removes all but the first n scopes.
func (l *scopeList) truncate(n int) {
	for _, scope := range l.scopes[n:] {
		delete(l.seen, scope)
	}
	l.scopes = l.scopes[:n]
}

// add appends a new scope. It searches the list while that is short, as in most tokens, and a map
// when it is long: a forged token of 8 KiB may hold 2,000 scopes.
func (l *scopeList) add(scope string) {
	const few = 16
	switch {
	case l.scopes == nil:
		l.scopes = make([]string, 0, 4)
	case l.seen == nil && len(l.scopes) == few:
		l.seen = setOf(l.scopes)
	}
	if l.seen[scope] || l.seen == nil && slices.Contains(l.scopes, scope) {
		return
	}
	if l.seen != nil {
		l.seen[scope] = true
	}
	l.scopes = append(l.scopes, scope)
}
