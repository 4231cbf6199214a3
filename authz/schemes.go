package authz

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// scopesExtension lists, on a security scheme, the scopes that exist and what each is for. OpenAPI itself has a place
// for that in oauth2 schemes only.
const scopesExtension = "x-scopes"

// scheme is a security scheme that the gate enforces. All of them come down to one thing: an access token of a
// configured issuer, with scopes. They differ in where the document declares the scopes.
type scheme struct {
	scopes map[string]string // what exists, and what for
	open   bool              // the document cannot say which exist
	where  string            // they are declared, for messages
}

// readSchemes reads the schemes of the document. One that cannot be enforced is no fault until an operation uses it.
func (p *Plan) readSchemes() (faults []error) {
	if p.doc.Components == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(p.doc.Components.SecuritySchemes)) {
		ref := p.doc.Components.SecuritySchemes[name]
		if ref == nil || ref.Value == nil || unenforced(ref.Value) != nil {
			continue
		}
		s, found := readScheme("components.securitySchemes."+name, ref.Value)
		p.schemes[name] = s
		maps.Copy(p.scopes, s.scopes)
		faults = append(faults, found...)
	}
	return faults
}

// unenforced reports why requests could not be held to a scheme.
func unenforced(s *openapi3.SecurityScheme) error {
	switch {
	case s.Type == "http" && strings.EqualFold(s.Scheme, "bearer"), s.Type == "oauth2", s.Type == "openIdConnect":
		return nil
	}
	return fmt.Errorf("is of type %s, which is not enforced here: expected http with scheme bearer, oauth2 or openIdConnect", strings.TrimSpace(s.Type+" "+s.Scheme))
}

func readScheme(where string, spec *openapi3.SecurityScheme) (*scheme, []error) {
	s := &scheme{scopes: map[string]string{}, where: where + "." + scopesExtension}
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &Fault{Problem: where + "." + fmt.Sprintf(format, args...), At: locate(spec.Origin, field)})
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
				fault(scopesExtension, "%s: %q: expected, as a string, what the scope is for", scopesExtension, scope)
			}
			declare(scopesExtension, scope, description)
		}
	case nil:
		// OpenID Connect declares its scopes at the provider.
		s.open = spec.Type == "openIdConnect"
	default:
		fault(scopesExtension, "%s is not a map of scopes to descriptions", scopesExtension)
	}
	if spec.Type == "oauth2" {
		s.where = where + ".flows"
		for _, flow := range flows(spec.Flows) {
			for _, scope := range slices.Sorted(maps.Keys(flow.Scopes)) {
				declare("flows", scope, flow.Scopes[scope])
			}
		}
	}
	return s, faults
}

func flows(all *openapi3.OAuthFlows) []*openapi3.OAuthFlow {
	if all == nil {
		return nil
	}
	return slices.DeleteFunc([]*openapi3.OAuthFlow{all.Implicit, all.Password, all.ClientCredentials, all.AuthorizationCode},
		func(f *openapi3.OAuthFlow) bool { return f == nil })
}

// enforced returns the scheme of a name, or why requests could not be held to it.
func (p *Plan) enforced(name string) (*scheme, error) {
	if s := p.schemes[name]; s != nil {
		return s, nil
	}
	if p.doc.Components != nil {
		if ref := p.doc.Components.SecuritySchemes[name]; ref != nil && ref.Value != nil {
			return nil, fmt.Errorf("security scheme %s %w", name, unenforced(ref.Value))
		}
	}
	return nil, fmt.Errorf("security scheme %s is not declared: declare it under components.securitySchemes", name)
}

// declares reports why a scope may not be used: a misspelt one would lock everybody out, or hide who is let in.
func (s *scheme) declares(scope string) error {
	if err := checkScope(scope); err != nil {
		return err
	}
	if _, ok := s.scopes[scope]; !ok && !s.open {
		return fmt.Errorf("scope %s is not declared: is it misspelt? Declare it under %s", scope, s.where)
	}
	return nil
}

// checkScope: a scope-token of RFC 6749 §3.3. That it holds no quote and no backslash lets a challenge name it.
func checkScope(scope string) error {
	for _, c := range []byte(scope) {
		if c <= ' ' || c == '"' || c == '\\' || c > '~' {
			return fmt.Errorf("scope %q has a character that RFC 6749 §3.3 does not allow in a scope (a space separates scopes: list them one by one)", scope)
		}
	}
	if scope == "" {
		return errors.New("a scope is empty: name it, or leave it out")
	}
	return nil
}

// The extensions of an operation that ask how, and how long ago, a person signed in.
const (
	acrExtension    = "x-acr-values"
	maxAgeExtension = "x-max-age"
)

// StepUp is what an operation asks of how the principal signed in (RFC 9470).
type StepUp struct {
	ACRValues []string // one of which acr must be; none: any
	MaxAge    *int     // the most seconds since auth_time; nil: any
}

// readStepUp reads the extensions; nil where the operation has neither.
func readStepUp(extensions map[string]any) (*StepUp, error) {
	var s StepUp
	if value, ok := extensions[acrExtension]; ok {
		if err := remarshal(value, &s.ACRValues); err != nil || len(s.ACRValues) == 0 {
			return nil, fmt.Errorf("%s: expected a list of one or more strings", acrExtension)
		}
		for _, acr := range s.ACRValues {
			if checkScope(acr) != nil { // they stand in a challenge as scopes do
				return nil, fmt.Errorf("%s: %q cannot stand in a challenge: expected printable ASCII without spaces, quotes and backslashes", acrExtension, acr)
			}
		}
	}
	if value, ok := extensions[maxAgeExtension]; ok {
		if err := remarshal(value, &s.MaxAge); err != nil || s.MaxAge == nil || *s.MaxAge < 0 {
			return nil, fmt.Errorf("%s: expected a number of seconds, 0 or more", maxAgeExtension)
		}
	}
	if s.ACRValues == nil && s.MaxAge == nil {
		return nil, nil
	}
	return &s, nil
}

// remarshal reads what a loader has decoded without knowing its type.
func remarshal(value, into any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
