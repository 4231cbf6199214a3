package token

import (
	"maps"
	"slices"
	"strings"
)

// ScopesToRequest returns what a client asks this issuer for to be granted the scopes: it undoes
// ScopePrefix and ScopeNames. A scope that the issuer has no value for is left out.
//
// Names are undone where a claim of ScopeClaims is called scope, scopes or scp. The values of other
// claims, such as roles or a user's number, are not for clients to ask for; scopes then keep their
// names. Where there are claims of both kinds, a name of ScopeNames that stands for several scopes
// is taken for a role.
func (i Issuer) ScopesToRequest(scopes []string) []string {
	requested, others := i.claimKinds()
	if i.ScopePrefix == "" && len(i.ScopeNames) == 0 || !requested {
		return scopes
	}
	all := []string{}
	for _, scope := range scopes {
		if value, ok := i.valueFor(scope, others); ok &&
			!slices.Contains(all, i.ScopePrefix+value) {
			all = append(all, i.ScopePrefix+value)
		}
	}
	return all
}

// claimKinds reports whether the scope claims hold what clients have requested, and what others
// have assigned.
func (i Issuer) claimKinds() (requested, others bool) {
	for _, pointer := range i.ScopeClaims {
		pointer = strings.ReplaceAll(pointer, "~1", "/") // RFC 6901 §3: a claim's name may be a URL
		switch pointer[strings.LastIndexByte(pointer, '/')+1:] {
		case "scope", "scopes", "scp":
			requested = true
		default:
			others = true
		}
	}
	return requested || len(i.ScopeClaims) == 0, others
}

// valueFor returns the value of the scope claims, without the prefix, that grants the scope and the
// fewest others. withRoles: names that stand for several scopes may be roles.
func (i Issuer) valueFor(scope string, withRoles bool) (value string, ok bool) {
	fewest := 0
	for _, name := range slices.Sorted(maps.Keys(i.ScopeNames)) {
		granted := strings.Split(i.ScopeNames[name], " ")
		if withRoles && len(granted) > 1 {
			continue
		}
		if slices.Contains(granted, scope) && (!ok || len(granted) < fewest) {
			value, ok, fewest = name, true, len(granted)
		}
	}
	if _, other := i.ScopeNames[scope]; !ok && !other {
		return scope, true
	}
	return value, ok
}

// ScopesToRequest returns what a client asks the issuer of this principal's token for: see
// [Issuer.ScopesToRequest].
func (p *Principal) ScopesToRequest(scopes []string) []string {
	if p == nil || p.namer == nil {
		return scopes
	}
	return p.namer.ScopesToRequest(scopes)
}

// ScopesToRequest returns what a client asks its issuer for. The issuer is the one that the token
// names, genuine or not. Without a token it is any, where all have the same names; otherwise
// certain is false, and the scopes keep their names.
func (v *Verifier) ScopesToRequest(token string, scopes []string) (names []string, certain bool) {
	if i := v.claimed(token); i != nil {
		return i.ScopesToRequest(scopes), true
	}
	if len(v.configured) == 0 || v.resolver != nil {
		return scopes, false
	}
	for n, i := range v.configured {
		next := i.ScopesToRequest(scopes)
		if n > 0 && !slices.Equal(names, next) {
			return scopes, false
		}
		names = next
	}
	return names, true
}

// claimed returns the issuer that a token names; nil where that is none of ours.
func (v *Verifier) claimed(token string) *issuer {
	if checkLength(token) != nil {
		return nil
	}
	parts, err := parseCompact(token)
	if err != nil {
		return nil
	}
	claims, err := parseClaims(parts.payload)
	if err != nil {
		return nil
	}
	return v.configuredIssuer(claims.iss)
}
