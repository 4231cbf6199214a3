package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// claims holds the registered claims (RFC 7519 §4.1, RFC 9068 §2.2), not yet believed.
type claims struct {
	iss, sub, clientID, azp, jti string
	aud                          []string
	exp, nbf, iat                *float64 // nil when absent
	bound                        bool     // has cnf (RFC 7800)
	idToken                      bool     // has what only an ID token has
	raw                          []byte   // the whole object
}

func parseClaims(data []byte) (claims, error) {
	c := claims{raw: data}
	err := eachMember(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "iss":
			c.iss, err = readString(d, name)
		case "sub":
			c.sub, err = readString(d, name)
		case "client_id":
			c.clientID, err = readString(d, name)
		case "azp":
			c.azp, err = readString(d, name)
		case "jti":
			c.jti, err = readString(d, name)
		case "aud":
			c.aud, err = readStrings(d, name)
		case "exp":
			c.exp, err = readTimePointer(d, name)
		case "nbf":
			c.nbf, err = readTimePointer(d, name)
		case "iat":
			c.iat, err = readTimePointer(d, name)
		case "cnf":
			c.bound, err = true, d.SkipValue()
		case "nonce", "at_hash", "c_hash", "s_hash":
			c.idToken, err = true, d.SkipValue()
		default:
			err = d.SkipValue()
		}
		return err
	})
	if err != nil {
		return claims{}, refuse(Malformed, "claims: %v", err)
	}
	return c, nil
}

func readTimePointer(d *jsontext.Decoder, name string) (*float64, error) {
	t, err := readTime(d, name)
	return &t, err
}

// check applies the issuer's rules to the claims. None of them needs a key.
func (c claims) check(i *issuer, now time.Time) error {
	if c.sub == "" {
		return refuse(Malformed, "claims: sub is missing or empty")
	}
	if !slices.ContainsFunc(c.aud, i.accepts) {
		return c.wrongAudience(i)
	}
	if err := c.checkTimes(i, now); err != nil {
		return err
	}
	if c.bound {
		// RFC 9449 §7.2, RFC 8705 §3: whoever merely holds the bytes of a bound token may not use it.
		return refuse(Bound, "the token is bound to a key (cnf) and was presented as a bearer token")
	}
	if i.RFC9068 {
		var missing []string
		for name, absent := range map[string]bool{"client_id": c.clientID == "", "iat": c.iat == nil, "jti": c.jti == ""} {
			if absent {
				missing = append(missing, name)
			}
		}
		if missing != nil {
			slices.Sort(missing)
			return refuse(Malformed, "claims: %s missing, required by RFC 9068 §2.2 (the strict profile)", strings.Join(missing, ", "))
		}
	}
	return nil
}

func (c claims) wrongAudience(i *issuer) error {
	quoted := func(list []string) string {
		var out []string
		for _, s := range list[:min(len(list), 5)] {
			out = append(out, quote(s))
		}
		return strings.Join(out, ", ")
	}
	received := quoted(c.aud)
	if len(c.aud) == 0 {
		received = "absent"
	}
	hint := ""
	if c.idToken {
		hint = ". This looks like an ID token: send the access token instead"
	}
	return refuse(WrongAudience, "audience is %s, expected %s%s", received, quoted(i.Audiences), hint)
}

// checkTimes compares in seconds, as the claims are (RFC 7519 §2).
func (c claims) checkTimes(i *issuer, at time.Time) error {
	now, leeway := float64(at.UnixNano())/1e9, i.Leeway.Seconds()
	switch {
	case c.exp == nil:
		return refuse(Malformed, "claims: exp is missing")
	case now >= *c.exp+leeway:
		return refuse(Expired, "expired %s ago", ago(now-*c.exp))
	case *c.exp > now+i.MaxLifetime.Seconds()+leeway:
		return refuse(TooLongLived, "exp lies %s ahead, more than the %s that a token may live. Is it in milliseconds?", ago(*c.exp-now), i.MaxLifetime)
	case c.nbf != nil && *c.nbf > now+leeway:
		return refuse(NotYetValid, "valid in %s (nbf). Do the clocks agree?", ago(*c.nbf-now))
	case c.iat != nil && *c.iat > now+leeway:
		return refuse(NotYetValid, "issued in %s (iat). Do the clocks agree?", ago(*c.iat-now))
	}
	return nil
}

// ago writes a number of seconds as a person says it.
func ago(seconds float64) string {
	const day = 24 * 60 * 60
	if seconds > 3*day {
		return fmt.Sprintf("%.0f days", seconds/day)
	}
	return (time.Duration(seconds) * time.Second).String()
}

// scopes reads the scopes from the issuer's configured claims, and from no other: scope (RFC 8693 §4.2) is a
// string with single spaces, other issuers use an array.
func (c claims) scopes(i *issuer) ([]string, error) {
	var all []string
	for _, pointer := range i.ScopeClaims {
		value, found := lookup(c.raw, jsontext.Pointer(pointer))
		if !found {
			continue // absent is no scopes
		}
		list, err := scopeList(value)
		if err != nil {
			return nil, refuse(Malformed, "claims: %s %v", pointer, err)
		}
		for _, s := range list {
			if s != "" && !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

func scopeList(value jsontext.Value) (list []string, err error) {
	switch value.Kind() {
	case '"':
		var s string
		err = decode(value, &s)
		return strings.Split(s, " "), err
	case '[':
		var entries []*string // a null is no string
		if err = decode(value, &entries); err == nil && !slices.Contains(entries, nil) {
			for _, s := range entries {
				list = append(list, *s)
			}
			return list, nil
		}
	}
	return nil, errors.New("is neither a string nor an array of strings")
}
