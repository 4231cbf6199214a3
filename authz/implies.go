package authz

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// implications holds, for each scope, the sorted scopes that imply it by x-authz-implies, directly
// or indirectly.
type implications map[string][]string

// GrantedBy returns the scopes that imply this scope of a security scheme (x-authz-implies),
// sorted. All schemes of access tokens share them.
func (o Operation) GrantedBy(scheme, scope string) []string { return o.granters[scheme][scope] }

// readImplications reads x-authz-implies of all schemes. All schemes of access tokens share their
// implications, as they share tokens.
func (p *Plan) readImplications() (faults []error) {
	direct := map[string]map[string][]string{} // by scheme; "" is for all schemes of tokens
	for _, name := range slices.Sorted(maps.Keys(p.schemes)) {
		s := p.schemes[name]
		value, given := s.spec.Extensions[impliesExtension]
		if !given {
			continue
		}
		fault := func(format string, args ...any) {
			faults = append(faults, &Fault{
				Problem: "components.securitySchemes." + name + "." + impliesExtension + ": " +
					fmt.Sprintf(format, args...),
				At: locate(s.spec.Origin, impliesExtension),
			})
		}
		var implied map[string][]string
		if remarshal(value, &implied) != nil || len(implied) == 0 {
			fault("expected %s", extensions[impliesExtension].expected)
			continue
		}
		key := name
		if s.token {
			key = ""
		}
		if direct[key] == nil {
			direct[key] = map[string][]string{}
		}
		for _, scope := range slices.Sorted(maps.Keys(implied)) {
			for _, named := range append([]string{scope}, implied[scope]...) {
				if err := s.declares(named); err != nil {
					fault("%v", err)
				} else if s.implicitScopes && s.token {
					p.scopes[named] = ""
				}
			}
			direct[key][scope] = append(direct[key][scope], implied[scope]...)
		}
		if cycle := cycleOf(direct[key]); cycle != nil {
			fault(
				"%s: scopes that imply each other are one scope",
				strings.Join(cycle, " implies "),
			)
			delete(direct, key)
		}
	}
	for name, s := range p.schemes {
		key := name
		if s.token {
			key = ""
		}
		if len(direct[key]) > 0 {
			if p.granters == nil {
				p.granters = map[string]implications{}
			}
			p.granters[name] = closure(direct[key])
		}
	}
	return faults
}

// cycleOf returns a cycle of scopes, each of which implies the next and the last of which is the
// first, or nil.
func cycleOf(direct map[string][]string) []string {
	done := map[string]bool{}
	var path []string
	var visit func(scope string) []string
	visit = func(scope string) []string {
		if i := slices.Index(path, scope); i >= 0 {
			return append(slices.Clone(path[i:]), scope)
		}
		if done[scope] {
			return nil
		}
		path = append(path, scope)
		for _, implied := range direct[scope] {
			if cycle := visit(implied); cycle != nil {
				return cycle
			}
		}
		path, done[scope] = path[:len(path)-1], true
		return nil
	}
	for _, scope := range slices.Sorted(maps.Keys(direct)) {
		if cycle := visit(scope); cycle != nil {
			return cycle
		}
	}
	return nil
}

// closure returns the inverted transitive closure of implications without cycles.
func closure(direct map[string][]string) implications {
	all := implications{}
	for _, holder := range slices.Sorted(maps.Keys(direct)) {
		seen, open := map[string]bool{}, direct[holder]
		for len(open) > 0 {
			implied := open[0]
			open = open[1:]
			if !seen[implied] {
				seen[implied] = true
				all[implied] = append(all[implied], holder)
				open = append(slices.Clone(open), direct[implied]...)
			}
		}
	}
	return all
}

// readDefaultScopes reads x-authz-default-scopes, the scopes that clients request first.
func (p *Plan) readDefaultScopes() (faults []error) {
	for _, name := range slices.Sorted(maps.Keys(p.schemes)) {
		s := p.schemes[name]
		value, given := s.spec.Extensions[defaultsExtension]
		if !given {
			continue
		}
		fault := func(format string, args ...any) {
			faults = append(faults, &Fault{
				Problem: "components.securitySchemes." + name + "." + defaultsExtension + ": " +
					fmt.Sprintf(format, args...),
				At: locate(s.spec.Origin, defaultsExtension),
			})
		}
		var scopes []string
		switch err := remarshal(value, &scopes); {
		case err != nil || len(scopes) == 0:
			fault("expected %s", extensions[defaultsExtension].expected)
		case !s.token:
			fault("the scheme does not accept access tokens: remove it")
		}
		for _, scope := range scopes {
			if err := s.declares(scope); err != nil {
				fault("%v", err)
			}
			p.defaults = appendNew(p.defaults, scope)
		}
	}
	slices.Sort(p.defaults)
	return faults
}

// initialScopes returns the scopes that a client should request before it knows which operation it
// will call (RFC 9728 §2).
func (p *Plan) initialScopes() []string {
	if p.defaults != nil {
		return p.defaults
	}
	return p.Scopes()
}
