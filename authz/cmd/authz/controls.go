package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// comparableCredentials returns functions from a scheme to its credential, for two documents, so
// that the credentials can be compared. All bearer, oauth2 and openIdConnect schemes require an
// access token. If either document uses several of them, each stands for its own callers, because a
// server can tell them apart by name.
func comparableCredentials(old, now *openapi3.T) (before, after func(scheme string) string) {
	several := len(tokenSchemes(old)) > 1 || len(tokenSchemes(now)) > 1
	of := func(doc *openapi3.T) func(string) string {
		return func(scheme string) string {
			c := credential(doc, scheme)
			if several && c == bearer {
				c = fmt.Sprintf("%s (%s)", bearer, scheme)
			}
			return c
		}
	}
	return of(old), of(now)
}

// tokenSchemes returns the used schemes that require an access token, sorted.
func tokenSchemes(doc *openapi3.T) []string {
	return slices.DeleteFunc(
		usedSchemes(doc),
		func(name string) bool { return credential(doc, name) != bearer },
	)
}

// usedSchemes returns the schemes that any operation mentions, sorted.
func usedSchemes(doc *openapi3.T) []string {
	used := map[string]bool{}
	mention := func(requirements openapi3.SecurityRequirements) {
		for _, requirement := range requirements {
			for name := range requirement {
				used[name] = true
			}
		}
	}
	for _, item := range doc.Paths.Map() {
		if item == nil {
			continue
		}
		for _, o := range item.Operations() {
			if o.Security != nil {
				mention(*o.Security)
			} else {
				mention(doc.Security)
			}
		}
	}
	return slices.Sorted(maps.Keys(used))
}

// schemeChanges compares the definitions of the schemes that both documents use, as far as they say
// where credentials come from. What a scheme requires is compared by operation.
func schemeChanges(old, now *openapi3.T) (changes []change) {
	names := map[string]string{} // after: before
	for _, name := range usedSchemes(now) {
		if declaredScheme(old, name) != nil {
			names[name] = name
		}
	}
	if was, is := tokenSchemes(old), tokenSchemes(now); len(was) == 1 && len(is) == 1 {
		names[is[0]] = was[0]
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := declaredScheme(old, names[name]), declaredScheme(now, name)
		if was == nil || is == nil {
			continue
		}
		details := append(origins(was, is), extensionChanges(was.Extensions, is.Extensions)...)
		if len(details) == 0 {
			continue
		}
		c := change{Change: changed, Path: "securitySchemes." + name, Details: details}
		c.decide(weakened, tightened)
		if at := locate(is.Origin, ""); at != nil {
			c.File, c.Line = at.File, at.Line
		}
		changes = append(changes, c)
	}
	return changes
}

func declaredScheme(doc *openapi3.T, name string) *openapi3.SecurityScheme {
	if doc.Components == nil || doc.Components.SecuritySchemes[name] == nil {
		return nil
	}
	return doc.Components.SecuritySchemes[name].Value
}

// origins compares where the credentials of a scheme come from. Another issuer has other callers.
func origins(was, now *openapi3.SecurityScheme) (details []detail) {
	compare := func(field, was, now string, weakens bool) {
		if was != now && was != "" && now != "" {
			details = append(
				details,
				detail{field, fmt.Sprintf("%s → %s", was, now), weakens, weakens},
			)
		}
	}
	compare("openIdConnectUrl", was.OpenIdConnectUrl, now.OpenIdConnectUrl, true)
	if was.BearerFormat != now.BearerFormat {
		details = append(
			details,
			detail{
				"bearerFormat",
				orNone(was.BearerFormat) + " → " + orNone(now.BearerFormat),
				false,
				false,
			},
		)
	}
	before, after := namedFlows(was.Flows), namedFlows(now.Flows)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		b, a := before[name], after[name]
		if b == nil {
			if was.Flows != nil {
				details = append(
					details,
					detail{"flows." + name, "added: another way to get tokens", true, false},
				)
			}
			continue
		}
		compare("flows."+name+".tokenUrl", b.TokenURL, a.TokenURL, true)
		compare("flows."+name+".authorizationUrl", b.AuthorizationURL, a.AuthorizationURL, true)
		compare("flows."+name+".refreshUrl", b.RefreshURL, a.RefreshURL, true)
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if after[name] == nil && now.Flows != nil {
			details = append(details, detail{"flows." + name, "removed", false, true})
		}
	}
	return details
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func namedFlows(all *openapi3.OAuthFlows) map[string]*openapi3.OAuthFlow {
	if all == nil {
		return nil
	}
	flows := map[string]*openapi3.OAuthFlow{
		"implicit": all.Implicit, "password": all.Password,
		"clientCredentials": all.ClientCredentials, "authorizationCode": all.AuthorizationCode,
	}
	maps.DeleteFunc(flows, func(_ string, f *openapi3.OAuthFlow) bool { return f == nil })
	return flows
}

// decide sets the change's verdict from its details.
func (c *change) decide(weaker, tighter verdict) {
	for _, d := range c.Details {
		c.Weakens, c.Tightens = c.Weakens || d.Weakens, c.Tightens || d.Tightens
	}
	switch {
	case c.Weakens:
		c.Change = weaker
	case c.Tightens:
		c.Change = tighter
	}
}

// controls compares the extensions of an operation, including those of its path.
func (p pair) controls() []change {
	details := extensionChanges(p.old.extensions(), p.now.extensions())
	if len(details) == 0 {
		return nil
	}
	c := p.change(changed)
	c.Details = details
	c.decide(weakened, tightened)
	return []change{c}
}

func (o operation) extensions() map[string]any {
	all := maps.Clone(o.item.Extensions)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, o.spec.Extensions)
	return all
}

// extensionChanges compares the x-authz-… extensions.
func extensionChanges(was, now map[string]any) (details []detail) {
	all := maps.Clone(was)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, now)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		before, had := was[name]
		after, has := now[name]
		compare, known := directions[name]
		switch {
		case !strings.HasPrefix(name, "x-authz-"):
			continue
		case known && compare == nil:
			continue
		case had == has && compact(before) == compact(after):
			continue
		}
		d := detail{Where: name, Weakens: true, Tightens: true}
		if known {
			d.Weakens, d.Tightens = compare(before, after)
		}
		switch {
		case !d.Weakens && !d.Tightens:
			continue
		case !had:
			d.Problem = "added: " + compact(after)
		case !has:
			d.Problem = "removed: " + compact(before)
		default:
			d.Problem = compact(before) + " → " + compact(after)
		}
		details = append(details, d)
	}
	return details
}

// directions compares two values of an extension; nil means that it is absent. If an extension is
// not in the map, any change counts as weaker and as stricter. The changes of an extension with a
// nil function are ignored: it has no effect, or is compared as part of who may call an operation.
var directions = map[string]func(before, after any) (weakens, tightens bool){
	"x-authz-introspect":     stricterIfTrue,
	"x-authz-owner":          stricterIfPresent,
	"x-authz-stream":         looserIfTrue, // the handler runs before the body is validated
	"x-authz-outlives-token": looserIfTrue,
	"x-authz-max-body":       compareLimits,
	"x-authz-timeout":        compareLimits,
	"x-authz-rate-limit":     compareRates,
	"x-authz-lint-ignore":    nil,
	"x-authz-implies":        nil,
	"x-authz-default-scopes": nil, // which scopes clients start with admits nobody
}

func stricterIfTrue(before, after any) (weakens, tightens bool) {
	return before == true && after != true, before != true && after == true
}

func looserIfTrue(before, after any) (weakens, tightens bool) {
	tightens, weakens = stricterIfTrue(before, after)
	return weakens, tightens
}

func stricterIfPresent(before, after any) (weakens, tightens bool) {
	return before != nil, after != nil
}

// compareLimits compares upper limits. If one is absent, the server's own limit applies, which can
// be higher or lower.
func compareLimits(before, after any) (weakens, tightens bool) {
	from, fromKnown := quantity(before)
	to, toKnown := quantity(after)
	switch {
	case fromKnown && toKnown:
		return to > from, to < from
	case fromKnown:
		return !math.IsInf(from, 1), true
	case toKnown:
		return true, !math.IsInf(to, 1)
	}
	return true, true
}

// compareRates compares rate limits. If one is absent, the rate is not limited.
func compareRates(before, after any) (weakens, tightens bool) {
	return compareLimits(orUnlimited(before), orUnlimited(after))
}

func orUnlimited(value any) any {
	if value == nil {
		return "none"
	}
	return value
}

var size = regexp.MustCompile(`^(\d+) ?(B|KiB|MiB|GiB|)$`)

// quantity parses a size (50MiB), a duration (2m), a rate (100/min), or "none", which means no
// limit.
func quantity(value any) (float64, bool) {
	text := compact(value)
	if text == "none" {
		return math.Inf(1), true
	}
	if m := size.FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseFloat(m[1], 64)
		unit := map[string]float64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
		return n * unit[m[2]], err == nil
	}
	if limit, err := authz.ParseRateLimit(text); err == nil {
		return float64(limit.Requests) / limit.Window.Seconds(), true
	}
	d, err := time.ParseDuration(text)
	return d.Seconds(), err == nil
}

func compact(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}
