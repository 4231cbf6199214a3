package main

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// securityPlace returns the place that states an operation's security.
func securityPlace(doc *openapi3.T, o operation) *openapi3.Location {
	if o.spec.Security == nil {
		return locate(doc.Origin, "security") // one finding for all that inherit it
	}
	return locate(o.spec.Origin, "security")
}

func publicWrites(doc *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		if o.writes() && o.access.open() && !o.unstated {
			report(securityPlace(doc, o), o.String(), "it writes, and everyone may call it", "")
		}
	}
}

// redundantAlternatives finds alternatives that require everything that another requires, and more.
// Usually, one alternative is a token without scopes and the other a token with scopes.
func redundantAlternatives(doc *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		var needs []need
		for _, alternative := range o.Alternatives {
			needs = append(needs, needOf(alternative, credentials(doc)))
		}
		within := o.access.granted.within
		for i, more := range needs {
			for j, less := range needs {
				optional := len(less) == 0 &&
					!slices.ContainsFunc(more, func(a atom) bool { return a.scope != "" })
				if i == j || optional || !within(less, more) || within(more, less) && i < j {
					continue
				}
				if within(more, less) &&
					!sameSchemes(o.Alternatives[i], o.Alternatives[j]) { // see one-credential
					continue
				}
				report(
					securityPlace(doc, o),
					o.String(),
					fmt.Sprintf("%s is redundant: %s grants access", more, less),
					"",
				)
				break
			}
		}
	}
}

func sameSchemes(a, b authz.Alternative) bool {
	return slices.EqualFunc(a, b, func(x, y authz.Requirement) bool { return x.Scheme == y.Scheme })
}

// writesByReadScopes judges by the names of scopes.
func writesByReadScopes(_ *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		if !o.writes() {
			continue
		}
		for _, n := range o.access.needs {
			if scopes := n.scopes(); scopes != nil &&
				!slices.ContainsFunc(scopes, func(s string) bool { return !saysRead(s) }) {
				report(
					locate(o.spec.Origin, "security"),
					o.String(),
					"it writes, and is open to "+n.String(),
					"",
				)
			}
		}
	}
}

// scopes returns the scopes that are needed.
func (n need) scopes() (all []string) {
	for _, a := range n {
		if a.scope != "" {
			all = append(all, a.scope)
		}
	}
	return all
}

// saysRead matches scopes such as read:messages, messages.read or calendar.readonly, but not
// read_write.
func saysRead(scope string) bool {
	words := strings.FieldsFunc(
		strings.ToLower(scope),
		func(r rune) bool { return strings.ContainsRune(":./-_", r) },
	)
	has := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(any, w) })
	}
	return has("read", "reader", "readonly", "view", "viewer", "list", "get") &&
		!has("write", "writer", "edit", "editor", "create", "update", "delete", "manage", "admin")
}

// requiredScopes returns each scope that operations require, with the first operation, sorted by
// name.
func requiredScopes(operations []operation) (scopes []string, first map[string]operation) {
	first = map[string]operation{}
	for _, o := range operations {
		for _, alternative := range o.Alternatives {
			for _, r := range alternative {
				for _, scope := range r.Scopes {
					if _, ok := first[scope]; !ok {
						first[scope] = o
					}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(first)), first
}

func nearMissScopes(doc *openapi3.T, operations []operation, report report) {
	used, first := requiredScopes(operations)
	all := map[string]bool{}
	for _, scope := range used {
		all[scope] = true
	}
	for scope := range describedScopes(doc) {
		all[scope] = true
	}
	sorted := slices.Sorted(maps.Keys(all))
	for i, scope := range sorted {
		for _, other := range sorted[i+1:] {
			if !nearMiss(scope, other) {
				continue
			}
			o, ok := first[scope]
			if !ok {
				o, ok = first[other]
			}
			if ok {
				report(
					securityPlace(doc, o),
					o.String(),
					fmt.Sprintf("scope %s is close to scope %s", scope, other),
					"",
				)
			}
		}
	}
}

// nearMiss reports whether two scopes differ only by case, by separators, by a plural, or by one
// letter in a word of at least six. read:a1 and read:a2 are not near misses.
func nearMiss(a, b string) bool {
	plain := func(s string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(":./-_", r) {
				return -1
			}
			return r
		}, strings.ToLower(s))
	}
	x, y := plain(a), plain(b)
	if x == y || x+"s" == y || x == y+"s" {
		return true
	}
	same := 0
	for same < len(x) && same < len(y) && x[same] == y[same] {
		same++
	}
	p, q := x[same:], y[same:]
	if min(len(x), len(y)) < 6 ||
		strings.ContainsAny(p[:min(1, len(p))]+q[:min(1, len(q))], "0123456789") {
		return false
	}
	switch len(p) - len(q) {
	case 0:
		return len(p) > 1 && (p[1:] == q[1:] || p[0] == q[1] && p[1] == q[0] && p[2:] == q[2:])
	case 1:
		return len(q) > 0 && p[1:] == q
	case -1:
		return len(p) > 0 && p == q[1:]
	}
	return false
}

// secretName matches names of parameters that hold credentials.
var secretName = regexp.MustCompile(
	`(?i)^(((access|auth|id)[_-]?)?token|api[_-]?key|(client[_-]?)?secret|password|passwd)$`,
)

func credentialsInURLs(doc *openapi3.T, operations []operation, report report) {
	for _, name := range usedSchemes(doc) {
		if s := declaredScheme(doc, name); s != nil && s.Type == "apiKey" && s.In == "query" {
			report(
				locate(s.Origin, "in"),
				"securitySchemes."+name,
				"the key is sent in the query parameter "+s.Name,
				"",
			)
		}
	}
	for _, o := range operations {
		for _, ref := range slices.Concat(o.item.Parameters, o.spec.Parameters) {
			if p := ref.Value; p != nil && (p.In == "query" || p.In == "path") &&
				secretName.MatchString(p.Name) {
				report(
					locate(p.Origin, "name"),
					o.String(),
					fmt.Sprintf("the %s parameter %s looks like a credential", p.In, p.Name),
					"",
				)
			}
		}
	}
}

func weakFlows(doc *openapi3.T, _ []operation, report report) {
	for _, name := range usedSchemes(doc) {
		s := declaredScheme(doc, name)
		if s == nil || s.Flows == nil {
			continue
		}
		if s.Flows.Implicit != nil {
			report(
				locate(s.Flows.Origin, "implicit"),
				"securitySchemes."+name,
				"the implicit flow returns tokens in URLs",
				"",
			)
		}
		if s.Flows.Password != nil {
			report(
				locate(s.Flows.Origin, "password"),
				"securitySchemes."+name,
				"in the password flow, clients handle passwords",
				"",
			)
		}
	}
}

func httpServers(doc *openapi3.T, _ []operation, report report) {
	for _, server := range doc.Servers {
		at, err := url.Parse(server.URL)
		if err != nil || at.Scheme != "http" {
			continue
		}
		ip := net.ParseIP(at.Hostname())
		if at.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			report(locate(server.Origin, "url"), "servers", server.URL, "")
		}
	}
}

// oneCredential reports bearer schemes that a server treats alike, unless it distinguishes them by
// name.
func oneCredential(doc *openapi3.T, _ []operation, report report) {
	names := tokenSchemes(doc)
	if len(names) < 2 {
		return
	}
	report(locate(declaredScheme(doc, names[0]).Origin, ""), "securitySchemes",
		strings.Join(names, ", ")+" all require an access token", "")
}

// scopesByUse reports schemes whose scopes are required but not listed.
func scopesByUse(doc *openapi3.T, operations []operation, report report) {
	for _, name := range usedSchemes(doc) {
		s := declaredScheme(doc, name)
		if s == nil || s.Type == "oauth2" || s.Type == "openIdConnect" ||
			len(declaredScopes(s)) > 0 {
			continue
		}
		if used := scopesOf(operations, name); len(used) > 0 {
			report(
				locate(s.Origin, ""),
				"securitySchemes."+name,
				count(len(used), "scope")+" used but not listed: "+strings.Join(used, ", "),
				"",
			)
		}
	}
}

// scopesOf returns the scopes that operations require of a scheme, sorted.
func scopesOf(operations []operation, scheme string) []string {
	used := map[string]bool{}
	for _, o := range operations {
		for _, alternative := range o.Alternatives {
			for _, r := range alternative {
				for _, scope := range r.Scopes {
					used[scope] = used[scope] || r.Scheme == scheme
				}
			}
		}
	}
	maps.DeleteFunc(used, func(_ string, by bool) bool { return !by })
	return slices.Sorted(maps.Keys(used))
}

func unusedScopes(doc *openapi3.T, operations []operation, report report) {
	if doc.Components == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.SecuritySchemes)) {
		s := declaredScheme(doc, name)
		if s == nil {
			continue
		}
		used := append(scopesOf(operations, name), implying(s)...)
		for _, scope := range declaredScopes(s) {
			if !slices.Contains(used, scope) {
				report(
					locate(s.Origin, "x-scopes"),
					"securitySchemes."+name,
					"scope "+scope+" is declared, but no operation requires it",
					"unused",
				)
			}
		}
	}
}

// implying returns the scopes that imply others, which are useful even if no operation requires
// them.
func implying(scheme *openapi3.SecurityScheme) []string {
	implied, _ := scheme.Extensions["x-authz-implies"].(map[string]any)
	return slices.Collect(maps.Keys(implied))
}

// declaredScopes returns the scopes that a scheme lists, in flows or x-scopes.
func declaredScopes(scheme *openapi3.SecurityScheme) []string {
	all := map[string]bool{}
	extension, _ := scheme.Extensions["x-scopes"].(map[string]any)
	for scope := range extension {
		all[scope] = true
	}
	for _, flow := range namedFlows(scheme.Flows) {
		for scope := range flow.Scopes {
			all[scope] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func undocumentedRefusals(_ *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		responses := o.spec.Responses
		declares := func(status string) bool {
			return responses.Value(status) != nil || responses.Value("4XX") != nil ||
				responses.Value("default") != nil
		}
		var missing []string
		if o.access.class() != "public" && !declares("401") {
			missing = append(missing, "401")
		}
		if o.access.class() == "scopes" && !declares("403") {
			missing = append(missing, "403")
		}
		if missing != nil {
			report(
				locate(o.spec.Origin, "responses"),
				o.String(),
				"its responses have no "+strings.Join(missing, " and no "),
				"",
			)
		}
	}
}

func missingOperationIDs(_ *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		if o.spec.OperationID == "" {
			report(locate(o.spec.Origin, ""), o.String(), "it has no operationId", "")
		}
	}
}
