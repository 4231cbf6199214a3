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
	name   string
	spec   *openapi3.SecurityScheme
	scopes map[string]string // what exists, and what for
	open   bool              // the document cannot say which exist
	byUse  bool              // scopes exist by being used (OpenAPI 3.1 §4.8.30)
	where  string            // they are declared, for messages
}

// isToken reports whether the scheme takes access tokens: they go to the verifier unless the
// program has an authenticator for the scheme.
func (s *scheme) isToken() bool {
	return s.isHTTP("bearer") || s.spec.Type == "oauth2" || s.spec.Type == "openIdConnect"
}

func (s *scheme) isHTTP(name string) bool {
	return s.spec.Type == "http" && strings.EqualFold(s.spec.Scheme, name)
}

func (s *scheme) isKey(in string) bool { return s.spec.Type == "apiKey" && s.spec.In == in }

// authorization returns what the scheme expects to find in the Authorization header, "" for
// nothing.
func (s *scheme) authorization() string {
	switch {
	case s.isToken():
		return "an access token"
	case s.spec.Type == "http":
		return s.spec.Scheme + " credentials"
	case s.isKey("header") && http.CanonicalHeaderKey(s.spec.Name) == "Authorization":
		return "a key"
	}
	return ""
}

// isAmbient reports whether browsers add the credential to requests that pages of other sites make.
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
		if s.isToken() {
			maps.Copy(p.scopes, s.scopes)
		}
		faults = append(faults, found...)
		listed = listed || ref.Value.Extensions[scopesExtension] != nil
	}
	for _, s := range p.schemes {
		s.byUse = !listed && s.spec.Type != "oauth2" && s.spec.Type != "openIdConnect"
	}
	return faults
}

func readScheme(name string, spec *openapi3.SecurityScheme) (*scheme, []error) {
	where := "components.securitySchemes." + name
	s := &scheme{name: name, spec: spec, scopes: map[string]string{},
		where: where + "." + scopesExtension}
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
				fault(scopesExtension, "%s: %q: expected, as a string, what the scope is for",
					scopesExtension, scope)
			}
			declare(scopesExtension, scope, description)
		}
	case nil:
		// OpenID Connect declares its scopes at the provider.
		s.open = spec.Type == "openIdConnect"
	default:
		fault(scopesExtension, "%s is not %s", scopesExtension,
			extensions[scopesExtension].expected)
	}
	if spec.Type == "oauth2" {
		s.where = where + ".flows"
		for _, flow := range flows(spec.Flows) {
			for scope, description := range flow.Scopes {
				if checkScope(scope) == nil { // others are faults where an operation demands them
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
	return nil,
		fmt.Errorf(
			"security scheme %s is not declared: declare it under components.securitySchemes", name)
}

// demands reports whether some security requirement of the document names a scheme.
func (p *Plan) demands(name string) bool {
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

// declares reports why a scope may not be used: a misspelt one would lock everybody out, or hide
// who is let in.
func (s *scheme) declares(scope string) error {
	if err := checkScope(scope); err != nil {
		return err
	}
	if _, ok := s.scopes[scope]; !ok && !s.open && !s.byUse {
		return fmt.Errorf("scope %s is not declared: is it misspelt? Declare it under %s", scope,
			s.where)
	}
	return nil
}

// checkScope: a scope-token of RFC 6749 §3.3. That it holds no quote and no backslash lets a
// challenge name it.
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
