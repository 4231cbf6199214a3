package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// access is the meaning of an operation's security: who may call it. Schemes are compared by what
// they require, not by name. The order of alternatives and scopes does not matter, and neither does
// an alternative that requires more than another.
type access struct {
	needs    []need // one of them must be met (OR). Minimal: none contains another. Never empty
	declared []need // the alternatives of the document, in its order, for missing
	// checked are the credentials that are checked although none is required, so that an invalid
	// one is refused.
	checked []string
	// stepUp is what is required of how the caller signed in, beyond the needs. nil: nothing.
	stepUp  *authz.StepUp
	granted grants
}

// need is a set of atoms that are all required (AND). The empty need is always met.
type need []atom

// atom is a credential, or a scope that the credential must grant. A caller with the scope also has
// the credential.
type atom struct{ credential, scope string }

// bearer is the credential of http bearer, oauth2 and openIdConnect schemes: an access token (RFC
// 6750). The server's configuration says who issues it.
const bearer = "token"

// credential returns the credential that a scheme of the document requires.
func credential(doc *openapi3.T, scheme string) string {
	if doc.Components == nil || doc.Components.SecuritySchemes[scheme] == nil ||
		doc.Components.SecuritySchemes[scheme].Value == nil {
		return "undeclared scheme " + scheme
	}
	s := doc.Components.SecuritySchemes[scheme].Value
	switch {
	case s.Type == "oauth2",
		s.Type == "openIdConnect",
		s.Type == "http" && strings.EqualFold(s.Scheme, "bearer"):
		return bearer
	case s.Type == "http":
		return "http " + strings.ToLower(s.Scheme)
	case s.Type == "apiKey" && s.In == "header":
		return "api key in header " + strings.ToLower(s.Name) // RFC 9110 §5.1
	case s.Type == "apiKey":
		return "api key in " + s.In + " " + s.Name
	case s.Type == "mutualTLS":
		return "client certificate"
	}
	return s.Type
}

// grants are the scopes that imply a scope (x-authz-implies).
type grants map[atom][]string

// met reports whether a caller with n has the atom.
func (g grants) met(n need, a atom) bool {
	return slices.Contains(n, a) || slices.ContainsFunc(g[a], func(scope string) bool {
		return slices.Contains(n, atom{a.credential, scope})
	})
}

// within reports whether every caller with more also has less.
func (g grants) within(less, more need) bool {
	return !slices.ContainsFunc(less, func(a atom) bool { return !g.met(more, a) })
}

// accessOf returns the meaning of an operation's security. credential returns the credential that a
// scheme requires.
func accessOf(o authz.Operation, credential func(scheme string) string) access {
	a := access{granted: grants{}}
	for _, alternative := range o.Alternatives {
		a.declared = append(a.declared, needOf(alternative, credential))
		for _, r := range alternative {
			for _, scope := range r.Scopes {
				key := atom{credential(r.Scheme), scope}
				if by := o.GrantedBy(r.Scheme, scope); by != nil {
					a.granted[key] = by
				}
			}
		}
	}
	if a.declared == nil {
		a.declared = []need{{}}
	}
	for i, n := range a.declared {
		a.declared[i] = a.granted.reduced(n)
	}
	a.needs = a.declared
	looks := a.credentials()
	a.needs = a.granted.minimal(a.needs)
	if a.open() {
		a.checked = looks
	} else {
		a.stepUp = o.StepUp
	}
	return a
}

func needOf(alternative authz.Alternative, credential func(scheme string) string) need {
	n := need{}
	add := func(a atom) {
		if !slices.Contains(n, a) {
			n = append(n, a)
		}
	}
	for _, requirement := range alternative {
		add(atom{credential: credential(requirement.Scheme)})
		for _, scope := range requirement.Scopes {
			add(atom{credential(requirement.Scheme), scope})
		}
	}
	return n
}

// reduced removes the scopes that other scopes of the need imply.
func (g grants) reduced(n need) need {
	return slices.DeleteFunc(slices.Clone(n), func(a atom) bool {
		return slices.ContainsFunc(g[a], func(scope string) bool {
			return slices.Contains(n, atom{a.credential, scope})
		})
	})
}

// minimal removes every need that contains another.
func (g grants) minimal(needs []need) (least []need) {
	for i, n := range needs {
		redundant := false
		for j, other := range needs {
			redundant = redundant || i != j && g.within(other, n) && (!g.within(n, other) || j < i)
		}
		if !redundant {
			least = append(least, n)
		}
	}
	return least
}

// open reports whether everybody may call the operation.
func (a access) open() bool { return len(a.needs[0]) == 0 }

func (a access) credentials() (all []string) {
	for _, n := range a.needs {
		for _, atom := range n {
			if !slices.Contains(all, atom.credential) {
				all = append(all, atom.credential)
			}
		}
	}
	return all
}

// within reports whether other admits every caller that a admits. The answer is exact: needs have
// no negation, so if any caller is refused, one with exactly one of the needs is.
func (a access) within(other access) bool {
	return a.beyond(other) == nil && !a.ignoresInvalid(other) && !a.acceptsWeakerSignIn(other)
}

// beyond returns the needs whose holders a admits and other does not.
func (a access) beyond(other access) (needs []need) {
	for _, n := range a.needs {
		holders := a.holders(n, other.granted)
		if holders == nil {
			needs = append(needs, n) // too many to compare: report a change
		}
		for _, has := range holders {
			if !slices.ContainsFunc(
				other.needs,
				func(o need) bool { return other.granted.within(o, has) },
			) {
				needs = append(needs, has)
			}
		}
	}
	return needs
}

// holders returns the sets of scopes that meet a need: the need itself, and the need with scopes
// replaced by others that imply them. Scopes that also imply the replaced one in other are left
// out, because they cannot make a difference. It returns nil if there are more than maxHolders.
func (a access) holders(n need, other grants) []need {
	all := []need{{}}
	for _, wanted := range n {
		choices := []atom{wanted}
		for _, scope := range a.granted[wanted] {
			if has := (atom{wanted.credential, scope}); !other.met(need{has}, wanted) {
				choices = append(choices, has)
			}
		}
		if len(all)*len(choices) > maxHolders {
			return nil
		}
		var longer []need
		for _, has := range all {
			for _, choice := range choices {
				longer = append(longer, append(slices.Clone(has), choice))
			}
		}
		all = longer
	}
	return all
}

// maxHolders bounds the sets of scopes that one need is compared by. Each scope with an implication
// doubles their number.
const maxHolders = 1 << 10

// ignoresInvalid reports whether a ignores an invalid credential that other refuses.
func (a access) ignoresInvalid(other access) bool {
	return a.open() &&
		slices.ContainsFunc(
			other.checked,
			func(c string) bool { return !slices.Contains(a.checked, c) },
		)
}

// acceptsWeakerSignIn reports whether a accepts a sign-in that other does not.
func (a access) acceptsWeakerSignIn(other access) bool {
	mine, theirs := a.stepUp, other.stepUp
	if mine == nil {
		mine = &authz.StepUp{}
	}
	return theirs != nil &&
		(theirs.ACRValues != nil && (mine.ACRValues == nil || slices.ContainsFunc(mine.ACRValues,
			func(v string) bool {
				return !slices.Contains(theirs.ACRValues, v)
			})) ||
			theirs.MaxAge != nil && (mine.MaxAge == nil || *mine.MaxAge > *theirs.MaxAge))
}

// missing returns what a caller with the given atoms lacks for the nearest need, or nil if the
// caller may call the operation. As in the gate, the nearest need is the one that lacks the fewest
// atoms, and of several the one that requires the fewest.
func (a access) missing(has func(atom) bool) (lacks need) {
	fewest, least := -1, 0
	for _, n := range a.declared {
		var without need
		for _, wanted := range n {
			if !has(wanted) && !slices.ContainsFunc(a.granted[wanted], func(scope string) bool {
				return has(atom{wanted.credential, scope})
			}) {
				without = append(without, wanted)
			}
		}
		if fewest < 0 || len(without) < fewest || len(without) == fewest && len(n) < least {
			lacks, fewest, least = without, len(without), len(n)
		}
	}
	return lacks
}

// alternatives returns the sets of scopes of which one must be granted, or nil if no credential is
// required.
func (a access) alternatives() (all [][]string) {
	if a.open() {
		return nil
	}
	var holders []need
	for _, n := range a.needs {
		all := a.holders(n, nil)
		if all == nil {
			all = []need{n}
		}
		holders = append(holders, all...)
	}
	for _, n := range grants(nil).minimal(holders) {
		set := []string{}
		for _, scope := range n.scopes() {
			if !slices.Contains(set, scope) {
				set = append(set, scope)
			}
		}
		all = append(all, set)
	}
	return all
}

// class returns a word for who may call an operation.
func (a access) class() string {
	switch {
	case a.open() && a.checked == nil:
		return "public"
	case a.open():
		return "optional"
	}
	for _, n := range a.needs {
		if !slices.ContainsFunc(n, func(a atom) bool { return a.scope != "" }) {
			if len(n) == 1 && n[0].credential == bearer {
				return "token"
			}
			return "credential"
		}
	}
	return "scopes"
}

// String describes who may call an operation, such as: token with a and b, or c; signed in by mfa.
func (a access) String() string {
	switch {
	case a.open() && a.checked == nil:
		return "public"
	case a.open():
		return "optional " + strings.Join(a.checked, " or ")
	}
	if a.stepUp != nil {
		return a.granted.phrase(a.needs) + "; " + signIn(a.stepUp)
	}
	return a.granted.phrase(a.needs)
}

// signIn describes how the caller must have signed in (RFC 9470).
func signIn(s *authz.StepUp) string {
	if s == nil {
		return "signed in by any means"
	}
	words := "signed in"
	if s.ACRValues != nil {
		words += " by " + strings.Join(s.ACRValues, " or ")
	}
	if s.MaxAge != nil {
		words += fmt.Sprintf(" at most %d s ago", *s.MaxAge)
	}
	return words
}

// phrase joins the needs. If all are scopes of a token, it names the token once: token with a and
// b, or c.
func (g grants) phrase(needs []need) string {
	const scopes = bearer + " with "
	var all []string
	for _, n := range needs {
		all = append(all, g.words(n))
	}
	if !slices.ContainsFunc(needs, func(n need) bool { return !n.onlyScopes() }) {
		for i := range all[1:] {
			all[i+1] = strings.TrimPrefix(all[i+1], scopes)
		}
	}
	return strings.Join(all, ", or ")
}

// onlyScopes reports whether a token with scopes is required and nothing else.
func (n need) onlyScopes() bool {
	return len(n) > 1 &&
		!slices.ContainsFunc(n, func(a atom) bool { return a.credential != bearer })
}

func (n need) String() string { return grants(nil).words(n) }

// words describes a need: token with a and b (or c, which implies it). Several credentials are
// separated by commas.
func (g grants) words(n need) string {
	var credentials []string
	scopes := map[string][]string{}
	for _, a := range n {
		if !slices.Contains(credentials, a.credential) {
			credentials = append(credentials, a.credential)
		}
		if a.scope != "" {
			words := a.scope
			if by := g[a]; by != nil {
				words += " (or " + strings.Join(by, " or ") + ")"
			}
			scopes[a.credential] = append(scopes[a.credential], words)
		}
	}
	for i, c := range credentials {
		if scopes[c] != nil {
			credentials[i] += " with " + strings.Join(scopes[c], " and ")
		}
	}
	if len(n) == 0 {
		return "no credential"
	}
	return strings.Join(credentials, ", and ")
}
