package command

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/oasgate/oasgate/authz/token"
)

// presets holds a configuration file for each provider. Each is a complete example with a
// placeholder url and placeholder audiences; a preset takes everything else from it.
//
//go:embed presets
var presets embed.FS

// readIssuers reads the issuers from a configuration file, or returns all faults, joined, each with
// the file, the line and the key. [token.Issuer] documents the keys. The setting key names the
// file.
func readIssuers(key, path string) ([]token.Issuer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s is %q: expected a readable file: %w", key, path, err)
	}
	return parseIssuers(path, text)
}

func parseIssuers(name string, text []byte) ([]token.Issuer, error) {
	file, r, err := openYAML(name, text, "a list named issuers")
	if err != nil {
		return nil, err
	}
	issuers := r.root(file)
	if r.all != nil {
		return nil, errors.Join(r.all...)
	}
	return issuers, nil
}

// openYAML returns the root of a file with one YAML document.
func openYAML(name string, text []byte, expected string) (setting, *reader, error) {
	var document, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&document); err == io.EOF {
		return setting{}, nil, fmt.Errorf("%s is empty: expected %s", name, expected)
	} else if err != nil {
		return setting{}, nil, fmt.Errorf("%s is not valid YAML: %w", name, err)
	}
	if decoder.Decode(&second) != io.EOF {
		return setting{}, nil, fmt.Errorf(
			"%s has more than one YAML document: expected one, with %s", name, expected)
	}
	r := &reader{file: name}
	return setting{r, "the file", "", resolve(document.Content[0])}, r, nil
}

// reader reads a configuration file and collects faults. An unknown key is a fault, because a
// restriction with a misspelt name would not be enforced.
type reader struct {
	file string
	faults
}

func (r *reader) root(file setting) (issuers []token.Issuer) {
	lines := map[string]int{} // of the issuers, by URL
	for _, s := range file.members("") {
		if s.name != "issuers" {
			s.unknown("issuers")
			continue
		}
		for _, entry := range s.elements() {
			i := r.issuer(entry)
			if line := lines[i.URL]; line != 0 && i.URL != "" {
				r.add(entry.at("url"), i.URL, "each issuer once; this one is also on line %d", line)
			}
			lines[i.URL] = entry.node.Line
			issuers = append(issuers, i)
		}
	}
	if issuers == nil && r.all == nil {
		r.missing(file.at("issuers"), "a list of issuers, each with url and audiences")
	}
	return issuers
}

func (r *reader) issuer(entry setting) (i token.Issuer) {
	before := len(r.all)
	settings := entry.members("")
	if settings == nil && len(r.all) > before {
		return i
	}
	given := map[string]bool{}
	url := r.faults.issuer
	for _, s := range settings {
		given[s.name] = true
		if s.name == "insecure_http" && s.node.Value == "true" {
			url = r.faults.issuerURL // with http to any host
		}
		if s.name == "preset" { // first, because the other keys override it
			i = value(s, r.preset)
		}
	}
	for _, s := range settings {
		switch s.name {
		case "preset":
		case "url":
			i.URL = value(s, url)
		case "tenants":
			i.Tenants = list(s, verbatim)
		case "insecure_any_tenant":
			i.InsecureAnyTenant = value(s, r.yes)
		case "discovery_url":
			i.DiscoveryURL = value(s, verbatim)
		case "jwks_uri":
			i.JWKSURI = value(s, verbatim)
		case "jwks":
			i.JWKS = value(s, bytesOf)
		case "jwks_file":
			i.JWKS = value(s, r.content)
		case "public_key_file":
			i.PublicKeyPEM = value(s, r.content)
		case "insecure_http":
			i.InsecureHTTP = value(s, r.yes)
		case "audiences":
			i.Audiences = list(s, verbatim)
		case "audience_claim":
			i.AudienceClaim = value(s, r.pointer)
		case "client_claim":
			i.ClientClaim = value(s, r.pointer)
		case "subject":
			i.SubjectOptional = value(s, r.subject)
		case "required_claims":
			i.RequiredClaims = map[string][]string{}
			for _, claim := range s.members("required_claims.") {
				i.RequiredClaims[claim.name] = list(claim, verbatim)
			}
		case "algorithms":
			i.Algorithms = list(s, r.algorithm)
		case "leeway":
			i.Leeway = value(s, r.leeway)
		case "max_lifetime":
			i.MaxLifetime = value(s, r.positive)
		case "profile":
			i.RFC9068 = value(s, r.profile)
		case "scope_claims":
			i.ScopeClaims = list(s, r.pointer)
		case "strict_scope_claims":
			i.StrictScopeClaims = value(s, r.yes)
		case "scope_prefix":
			i.ScopePrefix = value(s, verbatim)
		case "scope_names":
			i.ScopeNames = map[string]string{}
			for _, name := range s.members("scope_names.") {
				i.ScopeNames[name.name] = value(name, verbatim)
			}
		case "grantable_scopes":
			i.GrantableScopes = list(s, verbatim)
		case "dpop":
			i.DPoP = value(s, r.dpop)
		case "mtls":
			i.MTLS = value(s, r.mtls)
		case "keys":
			i.Keys = r.keys(s)
		default:
			s.unknown("one of preset, url, tenants, insecure_any_tenant, discovery_url, " +
				"jwks_uri, jwks, jwks_file, public_key_file, insecure_http, audiences, " +
				"audience_claim, client_claim, subject, required_claims, algorithms, leeway, " +
				"max_lifetime, profile, scope_claims, strict_scope_claims, scope_prefix, " +
				"scope_names, grantable_scopes, dpop, mtls, keys")
		}
	}
	if !given["url"] {
		r.missing(entry.at("url"), "the URL of the issuer, identical to the iss claim")
	}
	if !given["audiences"] {
		r.missing(entry.at("audiences"),
			"the identifiers of this API at the issuer, so that tokens for other APIs are refused")
	}
	if len(r.all) == before {
		if err := i.Validate(); err != nil {
			for line := range strings.Lines(err.Error()) {
				fault := errors.New(strings.TrimSpace(line))
				r.all = append(r.all, fmt.Errorf("%s %w", entry.at("the issuer's"), fault))
			}
		}
	}
	return i
}

func (r *reader) keys(s setting) (policy token.KeyPolicy) {
	for _, s := range s.members("keys.") {
		switch s.name {
		case "cooldown":
			policy.Cooldown = value(s, r.positive)
		case "max_age":
			policy.MaxAge = value(s, r.positive)
		case "max_stale":
			policy.MaxStale = value(s, r.positive)
		default:
			s.unknown("one of cooldown, max_age, max_stale")
		}
	}
	return policy
}

// preset returns the provider's example without its url and audiences.
func (r *reader) preset(key, given string) token.Issuer {
	text, err := presets.ReadFile("presets/" + given + ".yaml")
	if err != nil {
		r.add(key, given, "one of %s", strings.Join(presetNames(), ", "))
		return token.Issuer{}
	}
	issuers, err := parseIssuers(given+".yaml", text)
	if err != nil {
		r.all = append(r.all, err) // the tests parse all presets
		return token.Issuer{}
	}
	issuers[0].URL, issuers[0].Audiences = "", nil
	return issuers[0]
}

func presetNames() (names []string) {
	entries, _ := presets.ReadDir("presets") // embedded: cannot fail
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

func (r *reader) profile(key, given string) bool {
	if given != "rfc9068" {
		r.add(key, given, "rfc9068, or leave it unset")
	}
	return true
}

func (r *reader) yes(key, given string) bool {
	if given != "true" && given != "false" {
		r.add(key, given, "true or false")
	}
	return given == "true"
}

func (r *reader) subject(key, given string) (optional bool) {
	if given != "required" && given != "optional" {
		r.add(key, given, "required or optional")
	}
	return given == "optional"
}

func (r *reader) mtls(key, given string) token.MTLSPolicy {
	policy := token.MTLSPolicy(given)
	switch policy {
	case token.MTLSOff, token.MTLSAllowed, token.MTLSRequired:
	default:
		r.add(key, given, "%s, %s or %s", token.MTLSOff, token.MTLSAllowed, token.MTLSRequired)
	}
	return policy
}

// content reads a file that the configuration names.
func (r *reader) content(key, path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		r.add(key, path, "a file that can be read: %v", err)
	}
	return text
}

func bytesOf(_, given string) []byte { return []byte(given) }

func (r *reader) pointer(key, given string) string {
	if !strings.HasPrefix(given, "/") {
		r.add(key, given,
			"a JSON pointer (RFC 6901) to a claim, such as /scope or /realm_access/roles")
	}
	return given
}

func verbatim(_, given string) string { return given }

// setting is one key of the file and its value.
type setting struct {
	reader *reader
	name   string
	within string // prefix of the name in faults, such as "keys."
	node   *yaml.Node
}

// at returns the file, the line and a key, the beginning of a fault.
func (s setting) at(key string) string {
	return fmt.Sprintf("%s:%d: %s", s.reader.file, s.node.Line, key)
}

// key returns the name of the setting in faults, quoted if it has special characters.
func (s setting) key() string {
	if quoted := strconv.Quote(s.name); quoted != `"`+s.name+`"` {
		return s.within + quoted
	}
	return s.within + s.name
}

func (s setting) fault(expected string) {
	given := "a list"
	switch {
	case s.node.Kind == yaml.MappingNode:
		given = "a mapping"
	case s.node.Kind == yaml.ScalarNode && s.empty():
		given = "empty"
	case s.node.Kind == yaml.ScalarNode:
		given = strconv.Quote(s.node.Value)
	}
	s.add("%s is %s: expected %s", s.at(s.key()), given, expected)
}

func (s setting) unknown(known string) {
	s.add("%s is an unknown key: expected %s", s.at(s.key()), known)
}

func (s setting) add(format string, args ...any) {
	s.reader.all = append(s.reader.all, fmt.Errorf(format, args...))
}

func (s setting) empty() bool { return s.node.Value == "" || s.node.Tag == "!!null" }

// members returns the settings of a mapping. A duplicate key is a fault.
func (s setting) members(within string) (members []setting) {
	if s.node.Kind != yaml.MappingNode {
		s.fault("a mapping: lines of key: value")
		return nil
	}
	lines := map[string]int{}
	for n := 0; n < len(s.node.Content); n += 2 {
		key := s.node.Content[n]
		member := setting{s.reader, key.Value, within, resolve(s.node.Content[n+1])}
		if key.Kind != yaml.ScalarNode || key.Value == "" {
			setting{s.reader, "a key", within, key}.fault("a word")
			continue
		}
		if line := lines[key.Value]; line != 0 {
			s.add("%s:%d: %s is given twice, first on line %d: expected it once",
				s.reader.file, key.Line, member.key(), line)
			continue
		}
		lines[key.Value] = key.Line
		members = append(members, member)
	}
	return members
}

// elements returns the elements of a list, each with the key of the list.
func (s setting) elements() (elements []setting) {
	if s.node.Kind != yaml.SequenceNode {
		s.fault("a list, such as [a, b]")
		return nil
	}
	for _, node := range s.node.Content {
		elements = append(elements, setting{s.reader, s.name, s.within, resolve(node)})
	}
	return elements
}

// resolve returns the node that an alias refers to. An alias that contains itself cannot cause
// endless recursion, because the depth of what is read is fixed.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// value parses a scalar from its text in the file, whatever type YAML would give it.
func value[T any](s setting, parse func(key, given string) T) (v T) {
	if s.node.Kind != yaml.ScalarNode || s.empty() || s.node.Tag == "!!binary" {
		s.fault("a single value")
		return v
	}
	return parse(s.at(s.key()), s.node.Value)
}

// list parses a list of scalars. The result of an empty list is not nil.
func list[T any](s setting, parse func(key, given string) T) []T {
	values := []T{}
	for _, element := range s.elements() {
		values = append(values, value(element, parse))
	}
	return values
}
