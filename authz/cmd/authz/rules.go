package main

import (
	"net/http"
	"regexp"
	"slices"

	"github.com/getkin/kin-openapi/openapi3"
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
		why: "A part of the document, such as an example, a response or a webhook, is invalid " +
			"OpenAPI. It does not affect requests, so the document is served; other tools may " +
			"refuse it.",
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
