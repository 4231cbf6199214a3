package authztest

import (
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/oasgate/oasgate/authz"
)

// Case is a request, and the expected response.
type Case struct {
	// Name is unique in the document: the operationId, the alternative if there are several, and
	// what is tested, separated by slashes.
	Name      string
	Operation authz.Operation
	// Scopes are those that the token of the case grants, or claims to grant.
	Scopes []string
	// Want is the expected refusal; "" means that the request must succeed.
	Want authz.Kind

	credential credential
	others     []other // credentials of other security schemes than the token's
	mixed      bool    // the operation also takes other credentials
	crossSite  bool    // sent as if by a page of another site
	body       body
	first      *authz.Operation        // called first, with the same token: it must succeed
	outage     bool                    // sent to Target.Outage
	owned      bool                    // requests what first has created, as another principal
	request    *Request                // sent instead of the operation's; nil: the operation's
	names      func([]string) []string // of scopes, in challenges; nil: the document's
	broken     error                   // why no request to the operation could be built

	proof func(proofInput) string // of the possession of a key; nil: none is sent
	twice bool                    // sent twice with the same proof: the first must succeed
	timed bool                    // about the time at which the proof was made

	revoked bool // the token is used once, and then revoked

	certificate presentedCertificate
}

// Runs returns the operations that the case runs on a correct server.
func (c Case) Runs() (all []authz.Operation) {
	if c.first != nil {
		all = append(all, *c.first)
	}
	if c.Want == "" || c.twice || c.revoked {
		all = append(all, c.Operation)
	}
	return all
}

// body is the kind of body that a case sends.
type body int

const (
	validBody   body = iota // as the document describes it
	invalidBody             // broken JSON
	hugeBody                // does not end
)

// Cases derives the cases of every operation, in the order of [authz.Plan.Operations]. Which of
// them can run depends on the [Target].
func Cases(plan *authz.Plan) []Case {
	var all []Case
	schemes := schemes{plan}
	var byToken []authz.Operation // those that take nothing but access tokens
	for _, o := range plan.Operations() {
		if schemes.onlyTokens(o) {
			byToken = append(byToken, o)
		}
	}
	for _, o := range plan.Operations() {
		switch {
		case o.Denied != "":
			all = append(
				all,
				Case{
					Name:       o.ID + "/denied",
					Operation:  o,
					Want:       authz.Denied,
					credential: malformed,
				},
			)
		case o.Public():
			all = append(all, publicCases(o)...)
		case !schemes.onlyTokens(o):
			all = append(all, schemes.cases(o)...)
		default:
			all = append(all, tokenlessCases(o)...)
			for _, a := range alternatives(o) {
				all = append(all, alternativeCases(o, a)...)
			}
			all = append(all, dpopCases(o)...)
			all = append(all, certificateCases(o)...)
			all = append(all, revocationCases(o)...)
			all = append(all, reuseCases(o, byToken)...)
			all = append(all, ownerCases(o, byToken)...)
		}
	}
	return all
}

// publicCases test that no token is required, and that an invalid token is ignored.
func publicCases(o authz.Operation) []Case {
	return []Case{
		{Name: o.ID + "/no_token", Operation: o, credential: noToken},
		{Name: o.ID + "/bad_token_ignored", Operation: o, credential: malformed},
	}
}

// tokenlessCases are the cases that need no valid token.
func tokenlessCases(o authz.Operation) []Case {
	want := authz.MissingToken
	if o.Optional() {
		want = ""
	}
	cases := []Case{
		{Name: o.ID + "/no_token", Operation: o, Want: want, credential: noToken},
		{
			Name:       o.ID + "/wrong_scheme",
			Operation:  o,
			Want:       want,
			credential: wrongScheme,
			Scopes:     alternatives(o)[0].scopes,
		},
		{Name: o.ID + "/malformed", Operation: o, Want: authz.InvalidToken, credential: malformed},
	}
	// Before the caller is authenticated, the body must not be read, and the response must not
	// depend on it.
	if !o.Optional() {
		cases = append(
			cases,
			Case{
				Name:       o.ID + "/invalid_body_without_token",
				Operation:  o,
				Want:       want,
				credential: noToken,
				body:       invalidBody,
			},
			Case{
				Name:       o.ID + "/huge_body_without_token",
				Operation:  o,
				Want:       want,
				credential: noToken,
				body:       hugeBody,
			},
		)
	}
	return cases
}

// alternative is an alternative of an operation that requires a token.
type alternative struct {
	prefix string              // of the names of its cases
	scopes []string            // none implies another
	by     map[string][]string // scopes that imply one of them (x-authz-implies)
}

func alternatives(o authz.Operation) (all []alternative) {
	for _, a := range o.Alternatives {
		if len(a) == 0 {
			continue // no token at all
		}
		next := alternative{by: map[string][]string{}}
		var label []string
		for _, r := range a {
			next.scopes = append(next.scopes, r.Scopes...)
			label = append(label, r.Scheme+"("+strings.Join(r.Scopes, ",")+")")
			for _, scope := range r.Scopes {
				next.by[scope] = o.GrantedBy(r.Scheme, scope)
			}
		}
		next.prefix = o.ID + "/" + strings.Join(label, "+") + "/"
		slices.Sort(next.scopes)
		next.scopes = slices.Compact(next.scopes)
		required := slices.Clone(next.scopes)
		next.scopes = slices.DeleteFunc(next.scopes, func(scope string) bool {
			return slices.ContainsFunc(
				next.by[scope],
				func(s string) bool { return slices.Contains(required, s) },
			)
		})
		if !slices.ContainsFunc(
			all,
			func(known alternative) bool { return known.prefix == next.prefix },
		) {
			all = append(all, next)
		}
	}
	if len(all) == 1 {
		all[0].prefix = o.ID + "/"
	}
	return all
}

// lacks counts the required scopes that the granted ones do not cover.
func (a alternative) lacks(granted []string) (n int) {
	for _, scope := range a.scopes {
		if !has(granted, scope, a.by[scope]) {
			n++
		}
	}
	return n
}

// has reports whether a scope is granted, or one that implies it.
func has(granted []string, scope string, by []string) bool {
	return slices.Contains(granted, scope) ||
		slices.ContainsFunc(by, func(s string) bool { return slices.Contains(granted, s) })
}

func alternativeCases(o authz.Operation, a alternative) (cases []Case) {
	add := func(name string, scopes []string, want authz.Kind, c credential) *Case {
		cases = append(
			cases,
			Case{Name: a.prefix + name, Operation: o, Scopes: scopes, Want: want, credential: c},
		)
		return &cases[len(cases)-1]
	}
	add("exact_scopes", a.scopes, "", genuine)
	for _, forgery := range forgeries {
		add(forgery.name, a.scopes, authz.InvalidToken, forgery)
	}
	for i, scope := range a.scopes {
		others := slices.Delete(slices.Clone(a.scopes), i, i+1)
		add("scope_"+scope+"_removed", others, byScopes(o, others), genuine)
		for _, near := range nearMisses(scope) {
			scopes := append(slices.Clone(others), near.scope)
			add("scope_"+scope+near.name, scopes, byScopes(o, scopes), genuine)
		}
		for _, implying := range a.by[scope] {
			add(
				"scope_"+scope+"_implied_by_"+implying,
				append(slices.Clone(others), implying),
				"",
				genuine,
			)
		}
	}
	add("keys_unavailable", a.scopes, authz.KeysUnavailable, genuine).outage = true
	return cases
}

// nearMisses returns scopes that a sloppy comparison would accept for the required one (RFC 6749
// §3.3: scopes are compared exactly).
func nearMisses(scope string) (all []struct{ name, scope string }) {
	other := strings.Map(func(r rune) rune {
		if unicode.IsLower(r) {
			return unicode.ToUpper(r)
		}
		return unicode.ToLower(r)
	}, scope)
	for _, near := range []struct{ name, scope string }{
		{"_with_suffix", scope + ".x"},
		{"_with_prefix", "x." + scope},
		{"_cut_short", scope[:len(scope)-1]},
		{"_in_other_case", other},
	} {
		if near.scope != "" && near.scope != scope {
			all = append(all, near)
		}
	}
	return all
}

// reuseCases test that a token is not accepted because it was accepted for another operation. A
// server that caches its decision by token alone would do so.
func reuseCases(o authz.Operation, operations []authz.Operation) []Case {
	byCaution := slices.Clone(
		operations,
	) // the other operation runs, so prefer one that only reads
	slices.SortStableFunc(
		byCaution,
		func(a, b authz.Operation) int { return caution(a) - caution(b) },
	)
	for _, other := range byCaution {
		for _, a := range alternatives(other) {
			if want := byScopes(o, a.scopes); want != "" && other.ID != o.ID {
				return []Case{
					{
						Name:       o.ID + "/token_of_" + other.ID,
						Operation:  o,
						Scopes:     a.scopes,
						Want:       want,
						credential: genuine,
						first:      &other,
					},
				}
			}
		}
	}
	return nil
}

// revocationCases test that a revoked token is refused at once by operations with
// x-authz-introspect, which ask the issuer about every token (RFC 7009, RFC 7662).
func revocationCases(o authz.Operation) []Case {
	if !o.Introspect {
		return nil
	}
	return []Case{{
		Name: o.ID + "/revoked_token", Operation: o, Scopes: alternatives(o)[0].scopes,
		Want: authz.InvalidToken, revoked: true,
		credential: credential{needs: needsGenuine | needsRevoke, make: unchanged},
	}}
}

func caution(o authz.Operation) int {
	if o.Method == http.MethodGet || o.Method == http.MethodHead {
		return 0
	}
	return 1
}

// byScopes returns the expected response to a genuine token with these scopes.
func byScopes(o authz.Operation, scopes []string) authz.Kind {
	if o.Optional() ||
		slices.ContainsFunc(
			alternatives(o),
			func(a alternative) bool { return a.lacks(scopes) == 0 },
		) {
		return ""
	}
	return authz.InsufficientScope
}

// nearest returns the sets of scopes that a refusal may name: those of the alternatives that lack
// the fewest, and of these, require the fewest.
func nearest(o authz.Operation, granted []string) (sets [][]string) {
	best := [2]int{-1}
	for _, a := range alternatives(o) {
		cost := [2]int{a.lacks(granted), len(a.scopes)}
		switch order := slices.Compare(cost[:], best[:]); {
		case best[0] < 0 || order < 0:
			best, sets = cost, [][]string{a.scopes}
		case order == 0:
			sets = append(sets, a.scopes)
		}
	}
	return sets
}
