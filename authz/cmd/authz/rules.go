package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/schema"
)

// The levels of findings, most severe first.
const (
	faultLevel   = "fault"   // the document would not be served
	warningLevel = "warning" // callers or requests are admitted that are probably not intended
	noteLevel    = "note"
)

var levels = []string{faultLevel, warningLevel, noteLevel}

// rule finds one kind of unwise construct, or describes one kind of fault.
type rule struct {
	name  string
	level string
	why   string
	fix   string
	// find reports findings in a document, input those in one schema of a request. Both are nil for
	// faults, which the library finds.
	find  func(doc *openapi3.T, operations []operation, report report)
	input func(doc *openapi3.T, in input, report report)
	// problem matches the texts of a fault.
	problem *regexp.Regexp
}

// report adds a finding: its place in the document, the part of the API, and the problem. Two
// reports of the same place count once. Findings with the same cause form a group; if the cause is
// empty, the problem is used.
type report func(at *openapi3.Location, where, problem, cause string)

// rules lists the faults, in the order in which they are matched, and then the other rules.
var rules = []rule{
	{name: brokenRef, level: faultLevel,
		why: "A reference is broken, so the document cannot be loaded.",
		fix: "correct the reference, or add what it refers to"},
	{
		name:    "undeclared-scope",
		level:   faultLevel,
		problem: regexp.MustCompile(`^scope (\S+) is not declared`),
		why:     "A misspelt scope excludes all callers, or hides which ones are admitted.",
		fix:     "correct the scope, or declare it where the other scopes are",
	},
	{
		name:    "unstated-security",
		level:   faultLevel,
		problem: regexp.MustCompile(`^no security is stated`),
		why: "In OpenAPI, an operation without security is public, but that may not be " +
			"intended.",
		fix: "state security on the operation or for the whole document; security: [] if " +
			"everybody may call it",
	},
	{
		name:  "undeclared-scheme",
		level: faultLevel,
		problem: regexp.MustCompile(
			`security scheme (\S+) is not declared|undefined security scheme`,
		),
		why: "The document does not say which credential the scheme requires.",
		fix: "declare it under components.securitySchemes",
	},
	{
		name:    "duplicate-operation-id",
		level:   faultLevel,
		problem: regexp.MustCompile(`^operationId \S+ is also used by|same operation id`),
		why:     "Handlers, logs and clients identify operations by operationId.",
		fix:     "give each operation a unique one",
	},
	{
		name:    "unknown-extension",
		level:   faultLevel,
		problem: regexp.MustCompile(`unknown extension|has no effect on`),
		why:     "A misspelt control would silently have no effect.",
		fix:     "correct the name, or remove it",
	},
	{
		name:    "invalid-document",
		level:   faultLevel,
		problem: regexp.MustCompile(`^not a valid OpenAPI document`),
		why:     "The meaning of the document is not defined.",
		fix:     "correct it according to OpenAPI",
	},
	{name: otherFault, level: faultLevel, problem: regexp.MustCompile(``),
		why: "The policy is unclear, or cannot be enforced.",
		fix: "see the finding"},

	{name: "public-write", level: warningLevel, find: publicWrites,
		why: "Anyone on the network can change something.",
		fix: "require a credential; suppress the finding if it is intended (sign-up, " +
			"webhooks with a signature)"},
	{name: "redundant-alternative", level: warningLevel, find: redundantAlternatives,
		why: "If one alternative requires a part of what another requires, the rest has no effect.",
		fix: "remove the alternative that requires more, or the one that requires less"},
	{name: "write-by-read-scope", level: warningLevel, find: writesByReadScopes,
		why: "Clients with a scope for reading can write.",
		fix: "require a scope that says what the operation does; if it only reads, make it a GET"},
	{name: "near-miss-scope", level: warningLevel, find: nearMissScopes,
		why: "Two scopes that differ by a character or two are often one scope, misspelt.",
		fix: "use one name, or names that differ clearly"},
	{name: "credential-in-url", level: warningLevel, find: credentialsInURLs,
		why: "URLs are stored in logs and histories, and sent in Referer headers.",
		fix: "send it in a header"},
	{name: "weak-flow", level: warningLevel, find: weakFlows,
		why: "The implicit and password grants are obsolete (RFC 9700 §2.1.2 and §2.4).",
		fix: "use authorizationCode with PKCE, or clientCredentials"},
	{name: "http-server", level: warningLevel, find: httpServers,
		why: "Tokens that are sent over http can be intercepted.",
		fix: "use https; http is for loopback hosts"},
	{name: "any-body", level: warningLevel, find: anyBodies,
		why: "The body is not validated.",
		fix: "describe the body, or use type: object with additionalProperties: true if anything " +
			"is meant"},
	{name: "open-object", level: warningLevel, input: openObjects,
		why: "Members that the document does not describe reach the handler's decoder unchecked.",
		fix: "use additionalProperties: false, or describe the other members; around allOf, " +
			"use unevaluatedProperties: false"},
	{name: "unbounded-string", level: noteLevel, input: unboundedStrings,
		why: "A public or writing operation accepts strings up to the size limit of bodies.",
		fix: "give it a maxLength, an enum, or a pattern from ^ to $ without * and +"},
	{name: "unbounded-array", level: noteLevel, input: unboundedArrays,
		why: "A public or writing operation accepts arrays up to the size limit of bodies.",
		fix: "give it a maxItems"},
	{name: "unenforced-format", level: noteLevel, input: unenforcedFormats,
		why: "An unknown format is not validated.",
		fix: "add a pattern, or use a format of the OpenAPI format registry"},
	{name: "readonly-input", level: noteLevel, input: readOnlyInputs,
		why: "A readOnly member is refused in a request, even if the schema requires it.",
		fix: "describe requests by a schema of their own, or leave the member out of required"},
	{name: unboundInput, level: noteLevel,
		why: "The binder of generated code refuses such a value, or silently ignores it.",
		fix: "describe the value as the finding says, or read it from the request by hand"},
	{name: nullConst, level: noteLevel,
		why: "The check may be absent, depending on how the document is loaded.",
		fix: `write type: "null"`},
	{name: "one-credential", level: noteLevel, find: oneCredential,
		why: "All bearer, oauth2 and openIdConnect schemes take the same access tokens, unless " +
			"Config.Schemes tells them apart.",
		fix: "set in Config.Schemes what the tokens of each must have, or use one scheme"},
	{name: "scopes-by-use", level: noteLevel, find: scopesByUse,
		why: "Without a list of scopes, a misspelt scope is not noticed.",
		fix: "list the scopes under x-scopes of the scheme"},
	{name: "unused-scope", level: noteLevel, find: unusedScopes,
		why: "Issuers grant a scope that has no effect.",
		fix: "require it where intended, or remove it"},
	{name: "undocumented-refusal", level: noteLevel, find: undocumentedRefusals,
		why: "Clients and generated code do not expect the 401 and 403 that the gate returns.",
		fix: "declare the responses, or a default"},
	{name: "missing-operation-id", level: noteLevel, find: missingOperationIDs,
		why: "Logs and generated code need a name that does not change with the path.",
		fix: "give it an operationId"},
	{name: unknownSuppression, level: warningLevel,
		why: "A misspelt rule in x-authz-lint-ignore suppresses nothing.",
		fix: "use a rule of authz lint --rules; faults cannot be suppressed"},
	{name: invalidElsewhere, level: noteLevel,
		why: "An example, a response or a webhook is invalid OpenAPI. It does not affect " +
			"requests, so the document is served; other tools may refuse it.",
		fix: "correct it according to OpenAPI"},
}

// Rules that are implemented in lint.
const (
	brokenRef          = "broken-ref"
	otherFault         = "unclear-policy"
	invalidElsewhere   = "invalid-elsewhere"
	unboundInput       = "unbound-input"
	nullConst          = "null-const"
	unknownSuppression = "unknown-suppression"
)

func ruleNamed(name string) (rule, bool) {
	i := slices.IndexFunc(rules, func(r rule) bool { return r.name == name })
	if i < 0 {
		return rule{}, false
	}
	return rules[i], true
}

// writes reports whether the operation's method is not safe (RFC 9110 §9.2.1).
func (o operation) writes() bool {
	return slices.Contains(
		[]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		o.Method,
	)
}

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

func anyBodies(_ *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		body := o.body()
		if body == nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(body.Content)) {
			media := body.Content[name]
			if media == nil || !strings.Contains(name, "json") {
				continue
			}
			if media.Schema == nil || media.Schema.Value == nil || media.Schema.Value.IsEmpty() {
				report(
					locate(body.Origin, "content"),
					o.String()+" body",
					"any "+name+" passes",
					"",
				)
			}
		}
	}
}

func unboundedStrings(_ *openapi3.T, in input, report report) {
	s := in.schema
	if in.exposed && s.Type.Includes(openapi3.TypeString) && !in.bounded {
		report(locate(s.Origin, "type"), in.where, "a string of any length", "")
	}
}

func unboundedArrays(_ *openapi3.T, in input, report report) {
	s := in.schema
	if in.exposed && s.Type.Includes(openapi3.TypeArray) && s.MaxItems == nil && s.Enum == nil &&
		s.Const == nil {
		report(locate(s.Origin, "type"), in.where, "an array of any length", "")
	}
}

func openObjects(doc *openapi3.T, in input, report report) {
	s := in.schema
	switch {
	case in.closed || closes(s) || !isObject(s):
	case doc.IsOpenAPI30() && len(s.AllOf)+len(s.OneOf)+len(s.AnyOf) > 0: // 3.0 has no keyword
	default:
		report(locate(s.Origin, ""), in.where,
			"an object that accepts members it does not describe",
			"")
	}
}

func unenforcedFormats(_ *openapi3.T, in input, report report) {
	s := in.schema
	if s.Format != "" && !schema.IsKnownFormat(s.Format) && s.Pattern == "" && s.Enum == nil {
		report(locate(s.Origin, "format"), in.where, "format "+s.Format+" is not enforced", "")
	}
}

func readOnlyInputs(_ *openapi3.T, in input, report report) {
	for _, name := range slices.Sorted(slices.Values(in.schema.Required)) {
		if ref := in.schema.Properties[name]; ref != nil && ref.Value != nil && ref.Value.ReadOnly {
			report(locate(in.schema.Origin, "required"), in.where+"."+name,
				"required and readOnly: a request must not contain it", "")
		}
	}
}

// locate returns the place of an element's field, or that of the element if it does not have the
// field.
func locate(element *openapi3.Origin, field string) *openapi3.Location {
	if element == nil {
		return nil
	}
	if at, ok := element.Fields.Lookup(field); ok {
		return &at
	}
	return element.Key
}
