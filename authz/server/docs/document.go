package docs

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// accessExtension is an extension of operations in the served copy. It says what an operation
// requires, because Swagger UI does not show the scopes of an http bearer scheme.
const accessExtension = "x-access"

// served returns the copy of the document that the page shows, with the URL of the API, the
// security schemes of the issuers whose endpoints are known, and the requirements of each
// operation. It does not modify the original.
func (d *Docs) served(base string, found []endpoints) (*openapi3.T, error) {
	text, err := d.document()
	if err != nil {
		return nil, fmt.Errorf("docs: cannot copy the document: %w", err)
	}
	document, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, fmt.Errorf("docs: cannot copy the document: %w", err)
	}
	if document.Info == nil {
		document.Info = &openapi3.Info{}
	}
	document.Info.Title = cmp.Or(document.Info.Title, "API")
	document.Servers = openapi3.Servers{{URL: cmp.Or(d.api(base), "/")}}
	for _, item := range document.Paths.Map() {
		item.Servers = nil // this server serves all paths
		removeOptionalExamples(item.Parameters)
		for _, operation := range item.Operations() {
			removeOptionalExamples(operation.Parameters)
		}
	}
	if document.Components == nil {
		document.Components = &openapi3.Components{}
	}
	if document.Components.SecuritySchemes == nil {
		document.Components.SecuritySchemes = openapi3.SecuritySchemes{}
	}
	scopes, tokens := d.scopes(), map[string]bool{} // tokens: schemes for access tokens
	for name, ref := range document.Components.SecuritySchemes {
		scheme := ref.Value
		tokens[name] = credentialOf(scheme) == "token"
		if scheme.Type == "oauth2" || scheme.Type == "openIdConnect" {
			// The configured issuers replace the document's flows and endpoints. A token of a
			// configured issuer is accepted under any scheme for tokens.
			*scheme = openapi3.SecurityScheme{
				Type: "http", Scheme: "bearer", Description: scheme.Description,
			}
		}
	}
	schemes := d.schemes(found)
	for name, e := range schemes {
		document.Components.SecuritySchemes[name] = &openapi3.SecuritySchemeRef{
			Value: oauth2Scheme(e, d.scopesAt(e.URL, scopes)),
		}
	}
	for _, o := range d.plan.Operations() {
		operation := document.Paths.Value(o.Path).GetOperation(o.Method)
		operation.Servers = nil
		if operation.Extensions == nil {
			operation.Extensions = map[string]any{}
		}
		operation.Extensions[accessExtension] = d.access(o)
		security := openapi3.NewSecurityRequirements()
		for _, alternative := range o.Alternatives {
			security.With(requirement(alternative))
		}
		for _, name := range slices.Sorted(maps.Keys(schemes)) {
			for _, alternative := range o.Alternatives {
				if from, ok := fromIssuer(alternative, name, tokens); ok {
					from[name] = d.config.ScopesToRequest(schemes[name].URL, from[name])
					security.With(from)
				}
			}
		}
		operation.Security = security
	}
	return document, nil
}

// removeOptionalExamples removes the examples of optional parameters. Swagger UI would fill them
// in and send them, such as a cursor or an idempotency key, which users rarely want.
func removeOptionalExamples(parameters openapi3.Parameters) {
	for _, ref := range parameters {
		p := ref.Value
		if p.Required {
			continue
		}
		p.Example, p.Examples = nil, nil
		if p.Schema != nil && p.Schema.Value != nil {
			schema := *p.Schema.Value // the schema may be shared
			schema.Example, schema.Examples = nil, nil
			p.Schema = &openapi3.SchemaRef{Value: &schema}
		}
	}
}

// api returns the URL of the document's paths: base, plus the base path unless base includes it.
func (d *Docs) api(base string) string {
	return strings.TrimSuffix(base, d.config.BasePath) + d.config.BasePath
}

// schemes names a security scheme for each issuer whose endpoints are known. The names are unique.
func (d *Docs) schemes(found []endpoints) map[string]endpoints {
	taken := map[string]bool{}
	if components := d.config.Document.Components; components != nil {
		for name := range components.SecuritySchemes {
			taken[name] = true
		}
	}
	schemes := map[string]endpoints{}
	for _, e := range found {
		name := "oauth2"
		if u, err := url.Parse(e.URL); err == nil && len(d.config.Issuers) > 1 {
			name += "-" + strings.Map(func(r rune) rune {
				// characters that are allowed in the name of a component
				if r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r &&
					r <= 'z' || 'A' <= r && r <= 'Z' {
					return r
				}
				return '_'
			}, u.Host+strings.TrimSuffix(u.Path, "/"))
		}
		for taken[name] {
			name += "_"
		}
		taken[name] = true
		schemes[name] = e
	}
	return schemes
}

// oauth2Scheme returns the security scheme of an issuer.
func oauth2Scheme(e endpoints, scopes map[string]string) *openapi3.SecurityScheme {
	flows := &openapi3.OAuthFlows{ClientCredentials: &openapi3.OAuthFlow{TokenURL: e.token,
		Scopes: scopes}}
	if e.authorize != "" {
		flows.AuthorizationCode = &openapi3.OAuthFlow{AuthorizationURL: e.authorize,
			TokenURL: e.token, Scopes: scopes}
	}
	return &openapi3.SecurityScheme{Type: "oauth2", Flows: flows,
		Description: "A token from " + e.URL + "."}
}

// scopes returns the declared scopes and their descriptions.
func (d *Docs) scopes() map[string]string {
	scopes := map[string]string{}
	if components := d.config.Document.Components; components != nil {
		for _, name := range slices.Sorted(maps.Keys(components.SecuritySchemes)) {
			if scheme := components.SecuritySchemes[name].Value; credentialOf(scheme) == "token" {
				collectScopes(scheme, scopes)
			}
		}
	}
	return scopes
}

// grantedBy returns, for each implied scope (x-authz-implies), the scopes that imply it.
func (d *Docs) grantedBy() map[string][]string {
	all := map[string][]string{}
	for _, o := range d.plan.Operations() {
		for _, requirement := range slices.Concat(o.Alternatives...) {
			for _, scope := range requirement.Scopes {
				by := o.GrantedBy(requirement.Scheme, scope)
				if by != nil && credentialOf(d.plan.Scheme(requirement.Scheme)) == "token" {
					all[scope] = by
				}
			}
		}
	}
	return all
}

// scopesAt returns the scopes by the issuer's names.
func (d *Docs) scopesAt(issuer string, scopes map[string]string) map[string]string {
	named := map[string]string{}
	for _, scope := range slices.Sorted(maps.Keys(scopes)) {
		for _, name := range d.config.ScopesToRequest(issuer, []string{scope}) {
			named[name] = scopes[scope]
		}
	}
	return named
}

// collectScopes adds the scopes that a scheme declares, with their descriptions.
func collectScopes(scheme *openapi3.SecurityScheme, into map[string]string) {
	if listed, ok := scheme.Extensions["x-scopes"].(map[string]any); ok {
		for scope, description := range listed {
			into[scope], _ = description.(string)
		}
	}
	if scheme.Flows == nil {
		return
	}
	for _, flow := range []*openapi3.OAuthFlow{scheme.Flows.Implicit, scheme.Flows.Password,
		scheme.Flows.ClientCredentials, scheme.Flows.AuthorizationCode} {
		if flow != nil {
			for scope, description := range flow.Scopes {
				into[scope] = description
			}
		}
	}
}

func requirement(alternative authz.Alternative) openapi3.SecurityRequirement {
	all := openapi3.SecurityRequirement{}
	for _, r := range alternative {
		all[r.Scheme] = append([]string{}, r.Scopes...)
	}
	return all
}

// fromIssuer returns an alternative with its token from an issuer, if it needs a token. A request
// has one token, whatever the number of schemes; other credentials remain required.
func fromIssuer(alternative authz.Alternative, issuer string,
	tokens map[string]bool) (openapi3.SecurityRequirement, bool) {
	all, found := openapi3.SecurityRequirement{}, false
	for _, r := range alternative {
		if !tokens[r.Scheme] {
			all[r.Scheme] = append([]string{}, r.Scopes...)
			continue
		}
		if found = true; all[issuer] == nil {
			all[issuer] = []string{}
		}
		for _, scope := range r.Scopes {
			if !slices.Contains(all[issuer], scope) {
				all[issuer] = append(all[issuer], scope)
			}
		}
	}
	return all, found
}

// access describes what an operation requires in a few words: "public", "token", "scope:
// read:messages or read:messages:all".
func (d *Docs) access(o authz.Operation) string {
	isToken := func(r authz.Requirement) bool {
		return credentialOf(d.plan.Scheme(r.Scheme)) == "token"
	}
	onlyTokens := !slices.ContainsFunc(o.Alternatives, func(a authz.Alternative) bool {
		return slices.ContainsFunc(a, func(r authz.Requirement) bool { return !isToken(r) })
	})
	switch {
	case o.Denied != "":
		return "nobody"
	case o.Public():
		return "public"
	case o.Optional() && onlyTokens:
		return "token optional"
	case o.Optional():
		return "credential optional"
	}
	var alternatives []string
	for _, alternative := range o.Alternatives {
		var parts []string
		for _, r := range alternative {
			part := credentialOf(d.plan.Scheme(r.Scheme))
			if len(r.Scopes) > 0 {
				part += " with " + strings.Join(r.Scopes, " and ")
			}
			parts = append(parts, part)
		}
		text := strings.Join(parts, ", ")
		if onlyTokens {
			// any token grants access
			if text = strings.Join(scopesOf(alternative), " and "); text == "" {
				return "token" + signIn(o.StepUp)
			}
		}
		if !slices.Contains(alternatives, text) {
			alternatives = append(alternatives, text)
		}
	}
	if onlyTokens {
		return "scope: " + strings.Join(alternatives, " or ") + signIn(o.StepUp)
	}
	return strings.Join(alternatives, " or ") + signIn(o.StepUp)
}

// credential describes a security scheme to the page's script.
type credential struct {
	Kind string `json:"kind"` // token, key, basic, certificate, cookie, other
	In   string `json:"in,omitempty"`
	// Parameter is the name of an API key's header or query parameter.
	Parameter string `json:"parameter,omitempty"`
}

// credentials returns the credentials of the document's security schemes, by name.
func (d *Docs) credentials() map[string]credential {
	all := map[string]credential{}
	if d.config.Document.Components == nil {
		return all
	}
	for name, ref := range d.config.Document.Components.SecuritySchemes {
		c := credential{Kind: "other"}
		switch scheme := ref.Value; {
		case credentialOf(scheme) == "token":
			c.Kind = "token"
		case scheme.Type == "mutualTLS":
			c.Kind = "certificate"
		case scheme.Type == "apiKey" && scheme.In == openapi3.ParameterInCookie:
			c.Kind = "cookie"
		case scheme.Type == "apiKey":
			c = credential{Kind: "key", In: scheme.In, Parameter: scheme.Name}
		case strings.EqualFold(scheme.Scheme, "basic"):
			c.Kind = "basic"
		}
		all[name] = c
	}
	return all
}

// credentialOf describes the credential of a security scheme.
func credentialOf(scheme *openapi3.SecurityScheme) string {
	switch {
	case scheme == nil:
		return "credential"
	case scheme.Type == "apiKey":
		return apiKey
	case scheme.Type == "mutualTLS":
		return "client certificate"
	case scheme.Type == "http" && strings.EqualFold(scheme.Scheme, "basic"):
		return userAndPassword
	case scheme.Type == "http" && !strings.EqualFold(scheme.Scheme, "bearer"):
		return scheme.Scheme + " credential"
	}
	return "token"
}

// scopesOf returns all scopes that an alternative requires.
func scopesOf(alternative authz.Alternative) (scopes []string) {
	for _, r := range alternative {
		for _, scope := range r.Scopes {
			if !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

// signIn describes the requirements on the user's authentication (RFC 9470).
func signIn(s *authz.StepUp) (words string) {
	if s == nil {
		return ""
	}
	if s.ACRValues != nil {
		words += ", signed in by " + strings.Join(s.ACRValues, " or ")
	}
	if s.MaxAge != nil {
		words += ", signed in within " + strconv.Itoa(*s.MaxAge) + " s"
	}
	return words
}
