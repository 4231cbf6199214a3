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
	"time"

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

// A key is a key of the file, and what its value sets on T.
type key[T any] struct {
	name string
	read func(r *reader, s setting, to *T)
}

// issuerKeys are those of an issuer, which [token.Issuer] documents.
var issuerKeys = []key[token.Issuer]{
	{"preset", func(*reader, setting, *token.Issuer) {}}, // see [reader.issuer]
	{"url", func(r *reader, s setting, i *token.Issuer) { i.URL = value(s, r.issuerURL(i)) }},
	{"tenants", func(r *reader, s setting, i *token.Issuer) { i.Tenants = list(s, verbatim) }},
	{"insecure_any_tenant", func(r *reader, s setting, i *token.Issuer) {
		i.InsecureAnyTenant = value(s, r.yes)
	}},
	{"discovery_url", func(r *reader, s setting, i *token.Issuer) {
		i.DiscoveryURL = value(s, verbatim)
	}},
	{"jwks_uri", func(r *reader, s setting, i *token.Issuer) { i.JWKSURI = value(s, verbatim) }},
	{"jwks", func(r *reader, s setting, i *token.Issuer) { i.JWKS = value(s, bytesOf) }},
	{"jwks_file", func(r *reader, s setting, i *token.Issuer) { i.JWKS = value(s, r.content) }},
	{"public_key_file", func(r *reader, s setting, i *token.Issuer) {
		i.PublicKeyPEM = value(s, r.content)
	}},
	{"insecure_http", func(r *reader, s setting, i *token.Issuer) {
		i.InsecureHTTP = value(s, r.yes)
	}},
	{"audiences", func(r *reader, s setting, i *token.Issuer) { i.Audiences = list(s, verbatim) }},
	{"audience_claim", func(r *reader, s setting, i *token.Issuer) {
		i.AudienceClaim = value(s, r.pointer)
	}},
	{"client_claim", func(r *reader, s setting, i *token.Issuer) {
		i.ClientClaim = value(s, r.pointer)
	}},
	{"subject", func(r *reader, s setting, i *token.Issuer) {
		i.SubjectOptional = value(s, r.subject)
	}},
	{"required_claims", func(r *reader, s setting, i *token.Issuer) {
		i.RequiredClaims = map[string][]string{}
		for _, claim := range s.members("required_claims.") {
			i.RequiredClaims[claim.name] = list(claim, verbatim)
		}
	}},
	{"algorithms", func(r *reader, s setting, i *token.Issuer) {
		i.Algorithms = list(s, r.algorithm)
	}},
	{"leeway", func(r *reader, s setting, i *token.Issuer) { i.Leeway = value(s, r.leeway) }},
	{"max_lifetime", func(r *reader, s setting, i *token.Issuer) {
		i.MaxLifetime = value(s, r.positive)
	}},
	{"profile", func(r *reader, s setting, i *token.Issuer) {
		profile := value(s, r.profile)
		i.RFC9068, i.FAPI2 = profile == profileRFC9068, profile == profileFAPI2
	}},
	{"scope_claims", func(r *reader, s setting, i *token.Issuer) {
		i.ScopeClaims = list(s, r.pointer)
	}},
	{"strict_scope_claims", func(r *reader, s setting, i *token.Issuer) {
		i.StrictScopeClaims = value(s, r.yes)
	}},
	{"scope_prefix", func(r *reader, s setting, i *token.Issuer) {
		i.ScopePrefix = value(s, verbatim)
	}},
	{"scope_names", func(r *reader, s setting, i *token.Issuer) {
		i.ScopeNames = map[string]string{}
		for _, name := range s.members("scope_names.") {
			i.ScopeNames[name.name] = value(name, verbatim)
		}
	}},
	{"grantable_scopes", func(r *reader, s setting, i *token.Issuer) {
		i.GrantableScopes = list(s, verbatim)
	}},
	{"dpop", func(r *reader, s setting, i *token.Issuer) { i.DPoP = value(s, r.dpop) }},
	{"mtls", func(r *reader, s setting, i *token.Issuer) { i.MTLS = value(s, r.mtls) }},
	{"introspection", func(r *reader, s setting, i *token.Issuer) {
		readKeys(r, s.members("introspection."), introspectionKeys, &i.Introspection)
	}},
	{"keys", func(r *reader, s setting, i *token.Issuer) {
		readKeys(r, s.members("keys."), keyPolicyKeys, &i.Keys)
	}},
}

// introspectionKeys are those of introspection, which [token.Introspection] documents.
var introspectionKeys = []key[token.Introspection]{
	{"endpoint", func(r *reader, s setting, i *token.Introspection) {
		i.Endpoint = value(s, verbatim)
	}},
	{"client_id", func(r *reader, s setting, i *token.Introspection) {
		i.ClientID = value(s, verbatim)
	}},
	{"client_secret_file", func(r *reader, s setting, i *token.Introspection) {
		i.ClientSecret = strings.TrimRight(string(value(s, r.content)), "\r\n")
	}},
	{"opaque", func(r *reader, s setting, i *token.Introspection) { i.Opaque = value(s, r.yes) }},
	{"always", func(r *reader, s setting, i *token.Introspection) { i.Always = value(s, r.yes) }},
	{"max_age", func(r *reader, s setting, i *token.Introspection) {
		i.MaxAge = value(s, r.answerAge)
	}},
}

// keyPolicyKeys are those of keys, which [token.KeyPolicy] documents.
var keyPolicyKeys = []key[token.KeyPolicy]{
	{"cooldown", func(r *reader, s setting, p *token.KeyPolicy) {
		p.Cooldown = value(s, r.positive)
	}},
	{"max_age", func(r *reader, s setting, p *token.KeyPolicy) { p.MaxAge = value(s, r.positive) }},
	{"max_stale", func(r *reader, s setting, p *token.KeyPolicy) {
		p.MaxStale = value(s, r.positive)
	}},
}

// readKeys reads settings, of which each must be a known key.
func readKeys[T any](r *reader, settings []setting, known []key[T], to *T) {
	for _, s := range settings {
		at := slices.IndexFunc(known, func(k key[T]) bool { return k.name == s.name })
		if at >= 0 {
			known[at].read(r, s, to)
			continue
		}
		var names []string
		for _, k := range known {
			names = append(names, k.name)
		}
		s.unknown("one of " + strings.Join(names, ", "))
	}
}

func (r *reader) issuer(entry setting) (i token.Issuer) {
	before := len(r.all)
	settings := entry.members("")
	if settings == nil && len(r.all) > before {
		return i
	}
	own := []string{"url", "audiences"} // what a preset leaves to the file
	for _, s := range settings {
		if s.name == "preset" { // first, because the other keys override it
			i, own = r.preset(s)
		}
	}
	for _, s := range settings { // before url, which depends on it
		if s.name == "insecure_http" {
			i.InsecureHTTP = s.node.Value == "true"
		}
	}
	readKeys(r, settings, issuerKeys, &i)
	for _, k := range []struct{ name, expected string }{
		{"url", "the URL of the issuer, identical to the iss claim"},
		{"audiences", "the identifiers of this API at the issuer, so that tokens for other APIs " +
			"are refused"},
		{"discovery_url", "the URL of the issuer's metadata, which is not below its url"},
		{"tenants", "the tenants whose tokens are accepted"},
	} {
		given := slices.ContainsFunc(settings, func(s setting) bool {
			return s.name == k.name || s.name == "insecure_any_tenant" && k.name == "tenants"
		})
		if !given && slices.Contains(own, k.name) {
			r.missing(entry.at(k.name), "%s", k.expected)
		}
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

// preset returns the provider's example without the keys in own, which each file must set.
func (r *reader) preset(s setting) (i token.Issuer, own []string) {
	own = []string{"url", "audiences"}
	given := value(s, verbatim)
	text, err := presets.ReadFile("presets/" + given + ".yaml")
	if err != nil {
		r.add(s.at(s.key()), given, "one of %s", strings.Join(presetNames(), ", "))
		return i, own
	}
	issuers, err := parseIssuers(given+".yaml", text)
	if err != nil {
		r.all = append(r.all, err) // the tests parse all presets
		return i, own
	}
	i = issuers[0]
	i.Audiences = nil
	if i.Tenants != nil { // its url and discovery_url are those of all tenants
		i.Tenants = nil
		return i, []string{"audiences", "tenants"}
	}
	i.URL = ""
	if i.DiscoveryURL != "" {
		i.DiscoveryURL, own = "", append(own, "discovery_url")
	}
	return i, own
}

// issuerURL returns the check of the URL of an issuer.
func (r *reader) issuerURL(i *token.Issuer) func(key, given string) string {
	if i.InsecureHTTP {
		return r.faults.issuerURL // with http to any host
	}
	return r.faults.issuer
}

func presetNames() (names []string) {
	entries, _ := presets.ReadDir("presets") // embedded: cannot fail
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// The profiles of an issuer's tokens.
const (
	profileRFC9068 = "rfc9068"
	profileFAPI2   = "fapi2"
)

func (r *reader) profile(key, given string) string {
	if given != profileRFC9068 && given != profileFAPI2 {
		r.add(key, given, "%s or %s, or leave it unset", profileRFC9068, profileFAPI2)
	}
	return given
}

func (r *reader) answerAge(key, given string) time.Duration {
	if d, err := time.ParseDuration(given); err == nil && d == 0 {
		return token.NoAge
	}
	return r.positive(key, given)
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
