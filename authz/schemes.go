package authz

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// scheme is a security scheme of the document.
type scheme struct {
	name           string
	spec           *openapi3.SecurityScheme
	token          bool              // for access tokens; the verifier verifies them by default
	scopes         map[string]string // descriptions by scope
	openScopes     bool              // the scopes are declared elsewhere
	implicitScopes bool              // scopes need no declaration (OpenAPI 3.1 §4.8.30)
	scopesAt       string            // where scopes are declared, for messages
}

func (s *scheme) isHTTP(name string) bool {
	return s.spec.Type == "http" && strings.EqualFold(s.spec.Scheme, name)
}

func (s *scheme) isKey(in string) bool { return s.spec.Type == "apiKey" && s.spec.In == in }

// authorization describes what the scheme expects in the Authorization header, or returns "".
func (s *scheme) authorization() string {
	switch {
	case s.token:
		return "an access token"
	case s.spec.Type == "http":
		return s.spec.Scheme + " credentials"
	case s.isKey("header") && http.CanonicalHeaderKey(s.spec.Name) == "Authorization":
		return "a key"
	}
	return ""
}

// isAmbient reports whether browsers add the credential to cross-site requests.
func (s *scheme) isAmbient() bool {
	return s.isKey("cookie") || s.isKey("header") &&
		http.CanonicalHeaderKey(s.spec.Name) == "Cookie" ||
		s.isHTTP("ntlm") || s.isHTTP("basic") || s.isHTTP("digest") || s.isHTTP("negotiate") ||
		s.spec.Type == "mutualTLS"
}

func (s *scheme) String() string {
	switch {
	case s.spec.Type == "apiKey":
		return fmt.Sprintf("apiKey in %s %s", s.spec.In, s.spec.Name)
	case s.spec.Type == "http":
		return "http " + s.spec.Scheme
	}
	return s.spec.Type
}

// readSchemes reads the schemes of the document.
func (p *Plan) readSchemes() (faults []error) {
	if p.doc.Components == nil {
		return nil
	}
	listed := false // some scheme lists its scopes
	for _, name := range slices.Sorted(maps.Keys(p.doc.Components.SecuritySchemes)) {
		ref := p.doc.Components.SecuritySchemes[name]
		if ref == nil || ref.Value == nil {
			continue
		}
		s, found := readScheme(name, ref.Value)
		p.schemes[name] = s
		if s.token {
			maps.Copy(p.scopes, s.scopes)
		}
		faults = append(faults, found...)
		listed = listed || ref.Value.Extensions[scopesExtension] != nil
	}
	for _, s := range p.schemes {
		s.implicitScopes = !listed && s.spec.Type != "oauth2" && s.spec.Type != "openIdConnect"
	}
	return faults
}

func readScheme(name string, spec *openapi3.SecurityScheme) (*scheme, []error) {
	where := "components.securitySchemes." + name
	s := &scheme{name: name, spec: spec, scopes: map[string]string{},
		scopesAt: where + "." + scopesExtension}
	s.token = s.isHTTP("bearer") || spec.Type == "oauth2" || spec.Type == "openIdConnect"
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &Fault{Problem: where + "." + fmt.Sprintf(format, args...),
			At: locate(spec.Origin, field)})
	}
	declare := func(field, scope, description string) {
		if err := checkScope(scope); err != nil {
			fault(field, "%s: %v", field, err)
		}
		s.scopes[scope] = description
	}
	switch extension := spec.Extensions[scopesExtension].(type) {
	case map[string]any:
		for _, scope := range slices.Sorted(maps.Keys(extension)) {
			description, ok := extension[scope].(string)
			if !ok {
				fault(scopesExtension, "%s: %q: expected a string that describes the scope",
					scopesExtension, scope)
			}
			declare(scopesExtension, scope, description)
		}
	case nil:
		// OpenID Connect declares its scopes at the provider.
		s.openScopes = spec.Type == "openIdConnect"
	default:
		fault(scopesExtension, "%s is not %s", scopesExtension,
			extensions[scopesExtension].expected)
	}
	if spec.Type == "oauth2" {
		s.scopesAt = where + ".flows"
		for _, flow := range flows(spec.Flows) {
			for scope, description := range flow.Scopes {
				if checkScope(scope) == nil { // others are faults if an operation requires them
					s.scopes[scope] = description
				}
			}
		}
	}
	if spec.Type == "apiKey" && !quotable(spec.Name) {
		fault("name", "name is %q: expected printable ASCII without quotes and backslashes",
			spec.Name)
	}
	return s, faults
}

func flows(all *openapi3.OAuthFlows) []*openapi3.OAuthFlow {
	if all == nil {
		return nil
	}
	return slices.DeleteFunc([]*openapi3.OAuthFlow{all.Implicit, all.Password,
		all.ClientCredentials, all.AuthorizationCode},
		func(f *openapi3.OAuthFlow) bool { return f == nil })
}

// scheme returns the scheme of a name.
func (p *Plan) scheme(name string) (*scheme, error) {
	if s := p.schemes[name]; s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("security scheme %s is not declared: declare it under "+
		"components.securitySchemes", name)
}

// requires reports whether a security requirement of the document names the scheme, which need not
// be declared.
func (p *Plan) requires(name string) bool {
	named := func(all openapi3.SecurityRequirements) bool {
		return slices.ContainsFunc(all, func(r openapi3.SecurityRequirement) bool {
			_, found := r[name]
			return found
		})
	}
	for _, item := range p.doc.Paths.Map() {
		for _, o := range orEmpty(item).Operations() {
			if o.Security != nil && named(*o.Security) {
				return true
			}
		}
	}
	return named(p.doc.Security)
}

// declares returns an error if a scope is malformed or not declared.
func (s *scheme) declares(scope string) error {
	if err := checkScope(scope); err != nil {
		return err
	}
	if _, ok := s.scopes[scope]; !ok && !s.openScopes && !s.implicitScopes {
		return fmt.Errorf("scope %s is not declared: is it misspelled? Declare it under %s", scope,
			s.scopesAt)
	}
	return nil
}

// checkScope checks that a scope is a scope-token (RFC 6749 §3.3), which needs no escapes in a
// challenge.
func checkScope(scope string) error {
	for _, c := range []byte(scope) {
		if c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return fmt.Errorf("scope %q has a character that RFC 6749 §3.3 does not allow in a "+
				"scope (a space separates scopes: list them one by one)", scope)
		}
	}
	if scope == "" {
		return errors.New("a scope is empty: name it, or leave it out")
	}
	return nil
}
