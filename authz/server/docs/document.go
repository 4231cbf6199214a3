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

// accessExtension says in the served copy, on each operation, what it needs: Swagger UI does not show the scopes of an
// http bearer scheme.
const accessExtension = "x-access"

// served returns the copy of the document that the page shows: where the API is, how a token is had from the issuers whose
// endpoints are known, and what each operation needs. The document that the server goes by is another, and is not changed.
func (d *Docs) served(base string, found []endpoints) (*openapi3.T, error) {
	document, err := openapi3.NewLoader().LoadFromData(d.document)
	if err != nil {
		return nil, fmt.Errorf("docs: the document cannot be shown: %w", err)
	}
	document.Servers = openapi3.Servers{{URL: cmp.Or(base, "/")}}
	for _, item := range document.Paths.Map() {
		item.Servers = nil // this server answers all of it
	}
	scopes := map[string]string{}
	if document.Components != nil {
		for _, name := range slices.Sorted(maps.Keys(document.Components.SecuritySchemes)) {
			scheme := document.Components.SecuritySchemes[name].Value
			collectScopes(scheme, scopes)
			if scheme.Type != "http" {
				// What the document says of flows and endpoints is not what is configured. A token of a configured issuer
				// does, wherever it is from.
				*scheme = openapi3.SecurityScheme{Type: "http", Scheme: "bearer", Description: scheme.Description}
			}
		}
	}
	schemes := d.schemes(found)
	for name, e := range schemes {
		document.Components.SecuritySchemes[name] = &openapi3.SecuritySchemeRef{Value: oauth2Scheme(e, scopes)}
	}
	for _, o := range d.plan.Operations() {
		operation := document.Paths.Value(o.Path).GetOperation(o.Method)
		operation.Servers = nil
		if operation.Extensions == nil {
			operation.Extensions = map[string]any{}
		}
		operation.Extensions[accessExtension] = access(o)
		security := openapi3.NewSecurityRequirements()
		for _, alternative := range o.Alternatives {
			security.With(requirement(alternative))
		}
		for _, name := range slices.Sorted(maps.Keys(schemes)) {
			for _, alternative := range o.Alternatives {
				if len(alternative) > 0 {
					security.With(openapi3.SecurityRequirement{name: scopesOf(alternative)})
				}
			}
		}
		operation.Security = security
	}
	return document, nil
}

// schemes names a security scheme for each issuer whose endpoints are known, so that none has the name of another.
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
			name += "-" + strings.Map(func(r rune) rune { // what may stand in the name of a component
				if r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
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

// oauth2Scheme is how a token is had from an issuer.
func oauth2Scheme(e endpoints, scopes map[string]string) *openapi3.SecurityScheme {
	flows := &openapi3.OAuthFlows{ClientCredentials: &openapi3.OAuthFlow{TokenURL: e.token, Scopes: scopes}}
	if e.authorize != "" {
		flows.AuthorizationCode = &openapi3.OAuthFlow{AuthorizationURL: e.authorize, TokenURL: e.token, Scopes: scopes}
	}
	return &openapi3.SecurityScheme{Type: "oauth2", Flows: flows, Description: "A token from " + e.URL + "."}
}

// collectScopes adds the scopes that a scheme declares, and what each is for.
func collectScopes(scheme *openapi3.SecurityScheme, into map[string]string) {
	if listed, ok := scheme.Extensions["x-scopes"].(map[string]any); ok {
		for scope, description := range listed {
			into[scope], _ = description.(string)
		}
	}
	if scheme.Flows == nil {
		return
	}
	for _, flow := range []*openapi3.OAuthFlow{scheme.Flows.Implicit, scheme.Flows.Password, scheme.Flows.ClientCredentials, scheme.Flows.AuthorizationCode} {
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

// scopesOf returns every scope that an alternative asks for. A token is one, whatever the schemes.
func scopesOf(alternative authz.Alternative) []string {
	scopes := []string{}
	for _, r := range alternative {
		for _, scope := range r.Scopes {
			if !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

// access says what an operation needs, in a few words: "public", "token", "scope: read:messages or read:messages:all".
func access(o authz.Operation) string {
	switch {
	case o.Public():
		return "public"
	case o.Optional():
		return "token optional"
	}
	var ways []string
	for _, alternative := range o.Alternatives {
		scopes := scopesOf(alternative)
		if len(scopes) == 0 { // then any token will do
			return "token" + signIn(o.StepUp)
		}
		if way := strings.Join(scopes, " and "); !slices.Contains(ways, way) {
			ways = append(ways, way)
		}
	}
	return "scope: " + strings.Join(ways, " or ") + signIn(o.StepUp)
}

// signIn says what is asked of how the caller signed in (RFC 9470).
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
