package command

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/jsonlines"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

// config holds the settings of serve. The tag "key" names the environment variable, without the
// program's prefix. The values are strings, so that [config.settings] can report all faults
// together.
type config struct {
	Addr           string `key:"ADDR" default:":3010" help:"Address to listen on, or unix: and the path of a socket."`
	File           string `name:"config" key:"CONFIG" help:"YAML file that lists the issuers whose tokens are accepted, instead of one issuer. Reloaded on SIGHUP."`
	Issuer         string `key:"ISSUER" group:"One issuer:" help:"Issuer whose tokens are accepted: its URL, identical to the iss claim. Alternative: AUTH0_DOMAIN."`
	Audience       string `key:"AUDIENCE" group:"One issuer:" help:"Identifiers of this API, separated by commas; the aud claim must contain one. Alternative: AUTH0_AUDIENCE."`
	Resource       string `key:"RESOURCE" help:"URL at which clients reach this API. If set, refusals tell clients where to get a token (RFC 9728)."`
	Algorithms     string `key:"ALGORITHMS" default:"RS256,PS256,ES256,EdDSA" group:"One issuer:" help:"Signature algorithms accepted, separated by commas."`
	Leeway         string `key:"LEEWAY" default:"30s" group:"One issuer:" help:"Accepted difference between clocks, at most 60s."`
	JWKSCooldown   string `name:"jwks-cooldown" key:"JWKS_COOLDOWN" default:"30s" group:"One issuer:" help:"Minimum time between key refreshes for unknown kids."`
	JWKSMaxAge     string `name:"jwks-max-age" key:"JWKS_MAX_AGE" default:"1h" group:"One issuer:" help:"Maximum time between key refreshes."`
	JWKSMaxStale   string `name:"jwks-max-stale" key:"JWKS_MAX_STALE" default:"24h" group:"One issuer:" help:"How long keys are used while they cannot be refreshed."`
	DPoP           string `name:"dpop" key:"DPOP" default:"off" group:"One issuer:" help:"Sender-constrained tokens (RFC 9449): off, allowed or required."`
	DPoPNonces     string `name:"dpop-nonces" key:"DPOP_NONCES" default:"off" help:"Require a nonce of this server in DPoP proofs: off or on."`
	DPoPNonceKey   string `name:"dpop-nonce-key" key:"DPOP_NONCE_KEY" secret:"" help:"Secret that nonces are derived from: at least 32 characters, the same on all servers. Default: random."`
	CORSOrigins    string `name:"cors-origins" key:"CORS_ORIGINS" help:"Origins whose pages can call the API from a browser, such as https://app.example.com, separated by commas. Default: none."`
	Docs           string `key:"DOCS" default:"false" help:"Serve the documentation at /docs: true or false."`
	TrustedProxies string `key:"TRUSTED_PROXIES" help:"Proxies whose X-Forwarded-For is trusted, as CIDRs separated by commas. Default: none."`
	Responses      string `key:"RESPONSES" default:"off" help:"Compare responses of handlers with the document: off, log, or fail (answer 500 instead)."`
	InsecureReport string `name:"insecure-report" key:"INSECURE_REPORT" default:"off" help:"Accept requests that the document refuses, and log why: off, validation (schema violations only) or everything. For introducing the document to an existing API."`

	TLS tlsConfig `embed:""`

	withoutTokens bool // the document takes no access tokens, so no issuer is needed
}

// settings are the parsed values of a config.
type settings struct {
	addr   string
	server server.Config
	tls    *tls.Config // nil: the server does not speak TLS
}

// settings parses the values, or returns all faults, joined.
func (c config) settings(prefix string, hasDev bool) (settings, error) {
	f := faults{prefix: prefix}
	s := settings{
		addr: f.addr("ADDR", c.Addr),
		server: server.Config{
			Issuers:        c.issuers(&f, hasDev),
			CORSOrigins:    f.origins("CORS_ORIGINS", c.CORSOrigins),
			Docs:           f.boolean("DOCS", c.Docs),
			TrustedProxies: f.networks("TRUSTED_PROXIES", c.TrustedProxies),
			Resource:       f.resource("RESOURCE", c.Resource),
			NonceKey:       c.nonceKey(&f),
			Gate: chain(
				f.report("INSECURE_REPORT", c.InsecureReport),
				f.responses("RESPONSES", c.Responses),
			),
		},
	}
	s.server.ClientCertificates = c.TLS.clients(&f)
	s.tls = c.TLS.server(&f, s.server.Issuers)
	bound := func(i token.Issuer) bool {
		return i.DPoP == token.DPoPAllowed || i.DPoP == token.DPoPRequired
	}
	if c.Resource == "" && slices.ContainsFunc(s.server.Issuers, bound) {
		f.missing("RESOURCE", "the URL at which clients reach this API, such as "+
			"https://api.example.com: a DPoP proof names the URL of the request")
	}
	if f.all != nil {
		return settings{}, errors.Join(f.all...)
	}
	return s, nil
}

// nonceKey returns the key of the DPoP nonces. Its errors do not contain the key.
func (c config) nonceKey(f *faults) []byte {
	key := []byte(c.DPoPNonceKey)
	switch {
	case c.DPoPNonces != "on" && c.DPoPNonces != "off":
		f.add("DPOP_NONCES", c.DPoPNonces, "off or on")
	case c.DPoPNonces == "off" && len(key) > 0:
		f.add("DPOP_NONCES", c.DPoPNonces, "on, because %s is set", f.key("DPOP_NONCE_KEY"))
	case len(key) > 0 && len(key) < 32:
		f.all = append(f.all, fmt.Errorf("%s has %d characters: expected at least 32 secret "+
			"characters, or leave it unset for a random key", f.key("DPOP_NONCE_KEY"), len(key)))
	case c.DPoPNonces == "on" && len(key) == 0:
		key = make([]byte, 32)
		rand.Read(key) // never fails
	}
	if c.DPoPNonces != "on" {
		return nil
	}
	return key
}

// issuers returns the issuers of the file, or the one issuer of the environment and the flags. Both
// is a fault, so that there is one place that says which issuers are trusted.
func (c config) issuers(f *faults, hasDev bool) []token.Issuer {
	if c.File == "" && c.Issuer == "" && c.Audience == "" && c.withoutTokens {
		return nil
	}
	if c.File == "" {
		return []token.Issuer{c.issuer(f, hasDev)}
	}
	values := reflect.ValueOf(c)
	for n := range values.NumField() {
		tag := values.Type().Field(n).Tag
		given := values.Field(n).String()
		if tag.Get("group") == "One issuer:" && given != tag.Get("default") {
			f.add(tag.Get("key"), given, "it unset, because %[1]s %[2]q lists the issuers: "+
				"set it in that file, or unset %[1]s", f.key("CONFIG"), c.File)
		}
	}
	issuers, err := readIssuers(f.key("CONFIG"), c.File)
	if err != nil {
		f.all = append(f.all, err)
	}
	return issuers
}

// issuer returns the one issuer of the environment and the flags.
func (c config) issuer(f *faults, hasDev bool) token.Issuer {
	i := token.Issuer{
		Algorithms: f.algorithms("ALGORITHMS", c.Algorithms),
		Leeway:     f.leeway("LEEWAY", c.Leeway),
		DPoP:       f.dpop("DPOP", c.DPoP),
		Keys: token.KeyPolicy{
			Cooldown: f.positive("JWKS_COOLDOWN", c.JWKSCooldown),
			MaxAge:   f.positive("JWKS_MAX_AGE", c.JWKSMaxAge),
			MaxStale: f.positive("JWKS_MAX_STALE", c.JWKSMaxStale),
		},
	}
	switch {
	case c.Issuer == "" && c.Audience != "":
		f.missing("ISSUER", "the URL of the issuer that issues tokens for %s %q; for an Auth0 "+
			"tenant, set AUTH0_DOMAIN instead", f.key("AUDIENCE"), c.Audience)
	case c.Issuer == "":
		hint := ""
		if hasDev {
			hint = "; for development without an issuer, run `dev`"
		}
		f.missing("ISSUER", "the URL of the issuer whose tokens are accepted; "+
			"for an Auth0 tenant, set AUTH0_DOMAIN instead%s", hint)
	default:
		i.URL = f.issuer("ISSUER", c.Issuer)
	}
	switch {
	case c.Audience == "" && c.Issuer != "":
		f.missing("AUDIENCE", "the identifier of this API at the issuer in %s, so that tokens for "+
			"other APIs are refused", f.key("ISSUER"))
	case c.Audience == "":
		f.missing("AUDIENCE", "the identifier of this API at the issuer")
	default:
		i.Audiences = f.list("AUDIENCE", c.Audience)
	}
	if keys := i.Keys; keys.MaxStale > 0 && keys.MaxStale < keys.MaxAge {
		f.add("JWKS_MAX_STALE", c.JWKSMaxStale, "at least %s, which is %s: keys would expire "+
			"before they are refreshed", f.key("JWKS_MAX_AGE"), keys.MaxAge)
	}
	return i
}

// logConfig holds the settings of the log. The default format depends on the command.
type logConfig struct {
	Format string `name:"log-format" key:"LOG_FORMAT" default:"${log_format}" help:"json or text."`
	Level  string `name:"log-level" key:"LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
}

// logger returns a logger that writes to w, and its level, or all faults, joined.
func (c logConfig) logger(prefix string, w io.Writer) (*slog.Logger, *slog.LevelVar, error) {
	f := faults{prefix: prefix}
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		f.add("LOG_LEVEL", c.Level, "debug, info, warn or error")
	}
	options := jsonlines.Options(level)
	var handler slog.Handler
	switch c.Format {
	case "json":
		handler = jsonlines.NewHandler(w, options)
	case "text":
		handler = slog.NewTextHandler(w, options)
	default:
		f.add("LOG_FORMAT", c.Format, "json or text")
	}
	if f.all != nil {
		return nil, nil, errors.Join(f.all...)
	}
	return slog.New(handler), level, nil
}

// faults collects the faults of a configuration.
type faults struct {
	prefix string // of the environment variables
	all    []error
}

// key returns the full name of an environment variable.
func (f *faults) key(name string) string { return f.prefix + name }

func (f *faults) add(key, given, expected string, args ...any) {
	expected = fmt.Sprintf(expected, args...)
	f.all = append(f.all, fmt.Errorf("%s is %q: expected %s", f.key(key), given, expected))
}

func (f *faults) missing(key, expected string, args ...any) {
	expected = fmt.Sprintf(expected, args...)
	f.all = append(f.all, fmt.Errorf("%s is not set: expected %s", f.key(key), expected))
}

func (f *faults) addr(key, given string) string {
	if path, unix := strings.CutPrefix(given, unixPrefix); unix && path != "" {
		return given
	}
	_, port, err := net.SplitHostPort(given)
	if _, notPort := strconv.ParseUint(port, 10, 16); err != nil || notPort != nil {
		f.add(key, given, "host:port with a port of 0 to 65535, such as :3010 or "+
			"127.0.0.1:3010, or unix: and a path")
	}
	return given
}

// issuer checks the URL and returns it unchanged: iss is compared byte for byte (RFC 7519 §4.1.1,
// §2 StringOrURI).
func (f *faults) issuer(key, given string) string {
	u, err := url.Parse(given)
	if err == nil && u.Scheme == "http" && u.Hostname() != "" && !token.IsLoopback(u.Hostname()) {
		f.add(key, given, "https: http is allowed for loopback hosts only, because anyone on the "+
			"network path could replace the keys")
		return given
	}
	return f.issuerURL(key, given)
}

// issuerURL checks all but where http is allowed, which another setting can change.
func (f *faults) issuerURL(key, given string) string {
	u, err := url.Parse(given)
	switch {
	case err == nil && u.User != nil:
		f.add(key, u.Redacted(), "a URL without user and password")
	case err != nil || !isWebURL(u) || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		f.add(key, given, "a URL without query and fragment, such as https://issuer.example/, "+
			"identical to the iss claim (RFC 8414 §2)")
	}
	return given
}

func (f *faults) resource(key, given string) string {
	if given == "" {
		return ""
	}
	u, err := url.Parse(given)
	if err != nil || !isWebURL(u) || u.User != nil || strings.ContainsAny(given, "?#\"\\") {
		f.add(key, given, "the URL at which clients reach this API, such as "+
			"https://api.example.com, without query and fragment (RFC 9728 §1.2)")
	}
	return given
}

func isWebURL(u *url.URL) bool {
	return u.Hostname() != "" && (u.Scheme == "https" || u.Scheme == "http")
}

func (f *faults) dpop(key, given string) token.DPoPPolicy {
	policy := token.DPoPPolicy(given)
	if policy != token.DPoPOff && policy != token.DPoPAllowed && policy != token.DPoPRequired {
		f.add(key, given, "off, allowed or required")
	}
	return policy
}

func (f *faults) list(key, given string) []string {
	entries := strings.Split(given, ",")
	for i, entry := range entries {
		entries[i] = strings.TrimSpace(entry)
	}
	if slices.Contains(entries, "") {
		f.add(key, given, "entries separated by single commas, none of them empty")
	}
	return entries
}

func (f *faults) algorithms(key, given string) []string {
	entries := f.list(key, given)
	for _, entry := range entries {
		if entry != "" { // list reports it
			f.algorithm(key, entry)
		}
	}
	return entries
}

// algorithm checks the algorithm before [token.NewVerifier] does, so that the fault names the key.
func (f *faults) algorithm(key, given string) string {
	if known := token.Algorithms(); !slices.Contains(known, given) {
		f.add(key, given, "one of %s", strings.Join(known, ", "))
	}
	return given
}

func (f *faults) networks(key, given string) (networks []netip.Prefix) {
	if given == "" {
		return nil
	}
	for _, entry := range f.list(key, given) {
		network, err := netip.ParsePrefix(entry)
		if err != nil && entry != "" {
			f.add(key, entry, "networks as CIDRs, such as 10.0.0.0/8,fd00::/8; "+
				"a single address is 192.0.2.1/32")
		}
		networks = append(networks, network.Masked())
	}
	return networks
}

func (f *faults) origins(key, given string) []string {
	if given == "" {
		return nil
	}
	origins := f.list(key, given)
	for _, origin := range origins {
		if err := server.CheckOrigin(origin); err != nil && origin != "" { // list reports it
			f.add(key, origin, "%s", err)
		}
	}
	return origins
}

func (f *faults) boolean(key, given string) bool {
	if given != "true" && given != "false" {
		f.add(key, given, "true or false")
	}
	return given == "true"
}

func (f *faults) positive(key, given string) time.Duration {
	d, err := time.ParseDuration(given)
	if err != nil || d <= 0 {
		f.add(key, given, "a positive duration with its unit, such as 30s, 15m or 1h")
	}
	return d
}

// timeout returns 0 for a fault.
func (f *faults) timeout(key, given string) time.Duration {
	if given == "none" {
		return authz.NoTimeout
	}
	d, err := time.ParseDuration(given)
	if err != nil || d <= 0 {
		f.add(key, given, "a positive duration with its unit, such as 20s or 2m, or none")
		return 0
	}
	return d
}

func (f *faults) leeway(key, given string) time.Duration {
	d, err := time.ParseDuration(given)
	switch {
	case err != nil || d < 0 || d > time.Minute:
		f.add(key, given, "a duration with its unit, from 0s to 60s")
	case d == 0:
		return token.NoLeeway
	}
	return d
}
