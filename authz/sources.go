package authz

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// source authenticates for one security scheme. All schemes of access tokens share the source of
// the verifier, so that a token is verified once.
type source struct {
	scheme        *scheme // nil: the verifier
	authenticator Authenticator
}

// readSources sets the source of each scheme and operation. It returns a fault for each scheme in use
// that has none, and for each name in the configuration that is not a scheme.
func (g *Gate) readSources(config Config) (faults []error) {
	verifier := &source{}
	faults = g.readAuthenticators(config.Authenticators)
	for name, s := range g.plan.schemes {
		if s.token && g.sources[name] == nil {
			g.sources[name] = verifier
		}
	}
	faults = append(faults, g.checkSchemeRules(verifier)...)
	byVerifier := false
	for _, o := range g.plan.operations {
		for _, problem := range g.attach(o) {
			faults = append(faults, &Fault{
				Method: o.Method, Path: o.Path, Problem: problem,
				At: locate(o.route.Operation.Origin, "security"),
			})
		}
		if problem := g.introspectionFault(o, verifier); problem != "" {
			faults = append(faults, &Fault{
				Method: o.Method, Path: o.Path, Problem: problem,
				At: locate(o.route.Operation.Origin, ""),
			})
		}
		byVerifier = byVerifier || slices.Contains(o.sources, verifier)
	}
	if g.verifier == nil && byVerifier {
		faults = append(faults, errors.New(
			"authz: Config.Verifier is nil, but the document requires access tokens"))
	}
	return faults
}

// readAuthenticators sets the sources of the schemes that have their own authenticator.
func (g *Gate) readAuthenticators(authenticators map[string]Authenticator) (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("authz: Config.Authenticators"+format, args...))
	}
	for name, a := range authenticators {
		s := g.plan.schemes[name]
		checked, ok := a.(interface{ fits(*scheme) bool })
		switch {
		case s == nil:
			fault(" has %q, which is not a security scheme of the document", name)
		case a == nil:
			fault(" has nil for %q", name)
		case ok && !checked.fits(s):
			fault("[%q] does not fit the type of the scheme, %s", name, s)
		default:
			g.sources[name] = &source{s, a}
		}
	}
	return faults
}

// checkSchemeRules checks Config.Schemes, which restricts schemes of the verifier only.
func (g *Gate) checkSchemeRules(verifier *source) (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("authz: Config.Schemes"+format, args...))
	}
	for name, rules := range g.schemeRules {
		switch {
		case g.plan.schemes[name] == nil:
			fault(" has %q, which is not a security scheme of the document", name)
		case g.sources[name] != verifier:
			fault(" has %q, whose credentials are not verified as access tokens", name)
		case rules.Grant != "" && rules.Grant != ClientGrant && rules.Grant != PersonGrant:
			fault("[%q].Grant is %q: expected %q or %q", name, rules.Grant, ClientGrant, PersonGrant)
		case rules.Issuers != nil && len(rules.Issuers) == 0:
			fault("[%q].Issuers is empty, so that no token would pass: leave it nil for any", name)
		}
		for pointer, values := range rules.Claims {
			if !strings.HasPrefix(pointer, "/") || len(values) == 0 {
				fault("[%q].Claims has %q: expected a JSON pointer (RFC 6901) such as /token_use, "+
					"and values", name, pointer)
			}
		}
	}
	return faults
}

// introspectionFault says why x-authz-introspect of an operation cannot be enforced, or returns "".
func (g *Gate) introspectionFault(o *operation, verifier *source) string {
	if !o.Introspect {
		return ""
	}
	for _, w := range o.compiled {
		for _, c := range w.conditions {
			if c.scheme.token && o.sources[c.source] != verifier {
				return "it has x-authz-introspect, but the tokens of security scheme " +
					c.scheme.name + " are verified by an authenticator in Config.Authenticators"
			}
		}
	}
	switch {
	case !slices.Contains(o.sources, verifier) && o.Denied == "":
		return "it has x-authz-introspect, but does not accept access tokens"
	case !g.offer.Introspect && o.Denied == "":
		return "it has x-authz-introspect, but introspection (RFC 7662) is not configured for " +
			"every issuer: configure it, or remove the extension"
	}
	return ""
}

// attach sets the sources of an operation and compiles its alternatives.
func (g *Gate) attach(o *operation) (problems []string) {
	for _, requirement := range o.security {
		var conditions []condition
		for _, name := range slices.Sorted(maps.Keys(requirement)) {
			s, from := g.plan.schemes[name], g.sources[name]
			switch {
			case s == nil:
				continue // the plan has a fault
			case from == nil:
				problems = append(problems, fmt.Sprintf("security scheme %s (%s) has no "+
					"authenticator: set one in Config.Authenticators, or drop the alternatives "+
					"that require it by Config.Without", name, s))
				continue
			}
			at := slices.Index(o.sources, from)
			if at < 0 {
				at = len(o.sources)
				o.sources = append(o.sources, from)
				o.schemeChallenges = appendChallenge(o.schemeChallenges, s, g.realm)
			}
			condition := condition{scheme: s, source: at, scopes: requirement[name]}
			if rules, ok := g.schemeRules[name]; ok {
				condition.rules = &rules
			}
			conditions = append(conditions, condition)
			o.byToken = o.byToken || s.token
		}
		if len(conditions) > 0 {
			o.compiled = append(o.compiled, o.newAlternative(conditions))
		}
	}
	o.queryKeys = undeclaredQueryKeys(o)
	return problems
}

// appendChallenge adds the challenge of a scheme (RFC 9110 §11.6.1). API keys and certificates have
// no registered one, but a 401 must have one (§15.5.2); clients ignore unknown challenges.
func appendChallenge(offers []string, s *scheme, realm string) []string {
	offer := ` realm="` + realm + `"`
	switch {
	case s.token:
		return offers // see Gate.challenges
	case s.isHTTP("basic"):
		offer = "Basic" + offer + `, charset="UTF-8"`
	case s.spec.Type == "http":
		offer = s.spec.Scheme + offer
	case s.spec.Type == "apiKey":
		offer = "ApiKey" + offer + `, in="` + s.spec.In + `", name="` + s.spec.Name + `"`
	default:
		offer = "MutualTLS" + offer
	}
	if slices.Contains(offers, offer) {
		return offers
	}
	return append(offers, offer)
}

// undeclaredQueryKeys returns the API keys in the query that the operation does not also declare as
// parameters.
func undeclaredQueryKeys(o *operation) (names []string) {
	declared := func(name string) bool {
		is := func(p *openapi3.ParameterRef) bool {
			return p != nil && p.Value != nil && p.Value.In == "query" && p.Value.Name == name
		}
		return slices.ContainsFunc(o.route.PathItem.Parameters, is) ||
			slices.ContainsFunc(o.route.Operation.Parameters, is)
	}
	for _, w := range o.compiled {
		for _, c := range w.conditions {
			if name := c.scheme.spec.Name; c.scheme.isKey("query") && !declared(name) &&
				!slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// withoutQueryKeys returns the request without queryKeys, so that they are neither validated as
// parameters nor logged by handlers.
func (o *operation) withoutQueryKeys(r *http.Request) *http.Request {
	if o.queryKeys == nil || r.URL.RawQuery == "" {
		return r
	}
	var kept []string
	for _, pair := range strings.Split(r.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err != nil || !slices.Contains(o.queryKeys, name) {
			kept = append(kept, pair)
		}
	}
	r = r.WithContext(r.Context())
	r.Form, r.PostForm, r.MultipartForm = nil, nil, nil // an authenticator may have parsed it
	at := *r.URL
	at.RawQuery = strings.Join(kept, "&")
	r.URL = &at
	if before, _, found := strings.Cut(r.RequestURI, "?"); found {
		r.RequestURI = before + "?" + at.RawQuery
	}
	return r
}
