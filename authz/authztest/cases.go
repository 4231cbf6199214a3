package authztest

import (
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/oasgate/oasgate/authz"
)

// Case is one request, and how it must be answered.
type Case struct {
	// Name is unique in the document: the operationId, the alternative where there are several, and
	// what is tried; with a slash between.
	Name      string
	Operation authz.Operation
	// Scopes are those that the token of the case grants, or claims to.
	Scopes []string
	// Want is the refusal that is expected; "" means that the request must be let in.
	Want authz.Kind

	credential credential
	others     []other // credentials of other security schemes than the token's
	mixed      bool    // the operation takes not only tokens
	crossSite  bool    // sent as browsers send the requests of another site's page
	body       body
	first      *authz.Operation        // called first, with the same token: it must let that in
	outage     bool                    // sent to Target.Outage
	owned      bool                    // asks for what first has made, as another principal
	request    *Request                // sent instead of the operation's; nil: that
	names      func([]string) []string // of scopes, in challenges; nil: the document's
	broken     error                   // why no request to the operation could be built

	proof func(proving) string // of the possession of a key; nil: none is sent
	twice bool                 // sent once before, with the same proof: it must be let in then
	timed bool                 // about the time at which the proof was made

	revoked bool // the token is let in once, and then taken back
}

// Runs returns the operations that the case really has done, on a server that is right.
func (c Case) Runs() (all []authz.Operation) {
	if c.first != nil {
		all = append(all, *c.first)
	}
	if c.Want == "" || c.twice || c.revoked {
		all = append(all, c.Operation)
	}
	return all
}

// body is what a case sends as the body of its request.
type body int

const (
	validBody   body = iota // as the document describes it
	invalidBody             // broken JSON
	hugeBody                // one that does not end
)

// Cases derives the cases of every operation, in the order of [authz.Plan.Operations]. Which of
// them can be run is for the [Target] to say.
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
			all = append(all, revocationCases(o)...)
			all = append(all, reuseCases(o, byToken)...)
			all = append(all, ownerCases(o, byToken)...)
		}
	}
	return all
}

// publicCases: nobody is asked for a token, and none is looked at.
func publicCases(o authz.Operation) []Case {
	return []Case{
		{Name: o.ID + "/no_token", Operation: o, credential: noToken},
		{Name: o.ID + "/bad_token_ignored", Operation: o, credential: malformed},
	}
}

// tokenlessCases are those that need nothing to begin with.
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
	// A caller who is not known is told nothing of the body, and none of it is read for them.
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

// alternative is one way to be let in, of those that take a token.
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

// lacks counts the scopes that a token with the granted ones lacks.
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

// nearMisses are scopes that only a sloppy comparison takes for the one that is required (RFC 6749
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

// reuseCases: a token that has been good elsewhere is not good here because of that. A server that
// remembers a verdict by the token alone thinks so.
func reuseCases(o authz.Operation, operations []authz.Operation) []Case {
	byCaution := slices.Clone(
		operations,
	) // the other operation is really called: rather one that only reads
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

// revocationCases: an operation with x-authz-introspect asks the issuer about every token, so that
// one that was revoked is refused at once (RFC 7009, RFC 7662).
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

// byScopes says how a genuine token with these scopes must be answered.
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

// nearest returns the scopes that a refusal for want of scopes may name: those of an alternative
// that lacks the fewest, and among these of one that asks for the fewest. Several may be as near.
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
