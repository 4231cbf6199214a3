package token

import (
	"maps"
	"slices"
	"strings"
)

// ScopesToRequest returns the scope values that a client requests from this issuer to be granted
// the scopes: it reverses ScopePrefix and ScopeNames. It omits a scope that no value grants.
//
// It reverses names only if a claim of ScopeClaims is named scope, scopes or scp, because clients
// cannot request the values of other claims, such as roles; otherwise it returns the scopes
// unchanged. If there are claims of both kinds, a key of ScopeNames that grants several scopes is
// taken for a role.
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

// claimKinds reports whether there are scope claims that clients can request, and others.
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
// fewest others. If withRoles, it skips values that grant several scopes.
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

// ScopesToRequest calls [Issuer.ScopesToRequest] of the issuer of the principal's token.
func (p *Principal) ScopesToRequest(scopes []string) []string {
	if p == nil || p.issuerConfig == nil {
		return scopes
	}
	return p.issuerConfig.ScopesToRequest(scopes)
}

// ScopesToRequest calls [Issuer.ScopesToRequest] of the issuer that the token names, genuine or
// not. Without such a token the issuer is unknown: if the results of all issuers are equal, it
// returns them, otherwise it returns the scopes unchanged and certain is false.
func (v *Verifier) ScopesToRequest(token string, scopes []string) (names []string, certain bool) {
	if i := v.unverifiedIssuer(token); i != nil {
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

// unverifiedIssuer returns the configured issuer that a token names, or nil. It verifies nothing.
func (v *Verifier) unverifiedIssuer(token string) *issuer {
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
