package impl

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/joho/godotenv"

	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

// Config is what an operator of `serve` may set, by flag or by the key of the environment that the tag names. The
// values are text, so that [Config.Settings] can report every fault at once, each by its key.
type Config struct {
	Addr           string `key:"OASGATE_ADDR" default:":3010" help:"Address to listen on."`
	File           string `name:"config" key:"OASGATE_CONFIG" help:"YAML file that lists the issuers whose tokens are accepted, where one is not enough. Read again on SIGHUP."`
	Issuer         string `key:"OASGATE_ISSUER" group:"One issuer:" help:"Issuer whose tokens are accepted: its URL exactly as it stands in iss. AUTH0_DOMAIN does as well."`
	Audience       string `key:"OASGATE_AUDIENCE" group:"One issuer:" help:"Identifiers of this API, one of which a token's aud must hold, separated by commas. AUTH0_AUDIENCE does as well."`
	Resource       string `key:"OASGATE_RESOURCE" help:"URL under which clients reach this API. With it, they are told where to get a token (RFC 9728)."`
	Algorithms     string `key:"OASGATE_ALGORITHMS" default:"RS256,PS256,ES256,EdDSA" group:"One issuer:" help:"Signature algorithms accepted, separated by commas."`
	Leeway         string `key:"OASGATE_LEEWAY" default:"30s" group:"One issuer:" help:"How far clocks may differ, at most 60s."`
	JWKSCooldown   string `name:"jwks-cooldown" key:"OASGATE_JWKS_COOLDOWN" default:"30s" group:"One issuer:" help:"Least time between two key refreshes that unknown kids ask for."`
	JWKSMaxAge     string `name:"jwks-max-age" key:"OASGATE_JWKS_MAX_AGE" default:"1h" group:"One issuer:" help:"After which time keys are refreshed at the latest."`
	JWKSMaxStale   string `name:"jwks-max-stale" key:"OASGATE_JWKS_MAX_STALE" default:"24h" group:"One issuer:" help:"How long keys serve while they cannot be refreshed."`
	DPoP           string `name:"dpop" key:"OASGATE_DPOP" default:"off" group:"One issuer:" help:"Whether tokens may be bound to a key of the client (RFC 9449): off, allowed or required."`
	DPoPNonces     string `name:"dpop-nonces" key:"OASGATE_DPOP_NONCES" default:"off" help:"Whether DPoP proofs must hold a nonce of this server: off or on."`
	DPoPNonceKey   string `name:"dpop-nonce-key" key:"OASGATE_DPOP_NONCE_KEY" help:"What nonces are made from: 32 secret characters or more, the same on all servers. Default: made at start."`
	ReplayStore    string `name:"replay-store" key:"OASGATE_REPLAY_STORE" help:"Redis, as redis://user:password@host:6379/0, where several servers remember which DPoP proofs were used. Default: in memory, for one server."`
	DatabaseURL    string `name:"database" key:"OASGATE_DATABASE_URL" default:"sqlite:data/oasgate.db" help:"Where messages are kept: sqlite: and a file's path, or postgres://user:password@host/database."`
	CORSOrigins    string `name:"cors-origins" key:"OASGATE_CORS_ORIGINS" help:"Origins whose pages may call from a browser, such as https://app.example.com, separated by commas. Default: none."`
	Docs           string `key:"OASGATE_DOCS" default:"false" help:"Whether the API can be read about and tried at /docs: true or false."`
	TrustedProxies string `key:"OASGATE_TRUSTED_PROXIES" help:"Networks from which X-Forwarded-For is believed, as CIDRs separated by commas. Default: none."`
}

// Settings are a Config's values, parsed and checked.
type Settings struct {
	Addr           string
	Issuers        []token.Issuer
	Resource       string
	NonceKey       []byte // of DPoP nonces; nil: none are asked for
	ReplayStore    string // URL; "": in memory
	DatabaseURL    string
	CORSOrigins    []string // see server.CheckOrigin; none: CORS is off
	Docs           bool     // whether /docs is served
	TrustedProxies []netip.Prefix
}

// Settings returns the values, or all faults, joined.
func (c Config) Settings() (Settings, error) {
	var f faults
	s := Settings{
		Addr:           f.addr("OASGATE_ADDR", c.Addr),
		Issuers:        c.issuers(&f),
		CORSOrigins:    f.origins("OASGATE_CORS_ORIGINS", c.CORSOrigins),
		Docs:           f.boolean("OASGATE_DOCS", c.Docs),
		TrustedProxies: f.networks("OASGATE_TRUSTED_PROXIES", c.TrustedProxies),
		Resource:       f.resource("OASGATE_RESOURCE", c.Resource),
		NonceKey:       c.nonceKey(&f),
		ReplayStore:    f.replayStore("OASGATE_REPLAY_STORE", c.ReplayStore),
		DatabaseURL:    f.database("OASGATE_DATABASE_URL", c.DatabaseURL),
	}
	if c.Resource == "" && slices.ContainsFunc(s.Issuers, func(i token.Issuer) bool { return i.DPoP == token.DPoPAllowed || i.DPoP == token.DPoPRequired }) {
		f.missing("OASGATE_RESOURCE", "the URL under which clients reach this API, such as https://api.example.com: with DPoP a client proves that it means the very URL of its request")
	}
	if f != nil {
		return Settings{}, errors.Join(f...)
	}
	return s, nil
}

// nonceKey never repeats the key that was given.
func (c Config) nonceKey(f *faults) []byte {
	key := []byte(c.DPoPNonceKey)
	switch {
	case c.DPoPNonces != "on" && c.DPoPNonces != "off":
		f.add("OASGATE_DPOP_NONCES", c.DPoPNonces, "off or on")
	case c.DPoPNonces == "off" && len(key) > 0:
		f.add("OASGATE_DPOP_NONCES", c.DPoPNonces, "on, for OASGATE_DPOP_NONCE_KEY is set")
	case len(key) > 0 && len(key) < 32:
		*f = append(*f, fmt.Errorf("OASGATE_DPOP_NONCE_KEY has %d characters: expected 32 secret ones or more, or none for a key that is made at start", len(key)))
	case c.DPoPNonces == "on" && len(key) == 0:
		key = make([]byte, 32)
		rand.Read(key) // never fails
	}
	if c.DPoPNonces != "on" {
		return nil
	}
	return key
}

// issuers are those of the file, or the one that the environment and the flags name. Not both: what would be trusted
// would depend on which of them somebody looks at.
func (c Config) issuers(f *faults) []token.Issuer {
	if c.File == "" {
		return []token.Issuer{c.issuer(f)}
	}
	values := reflect.ValueOf(c)
	for n := range values.NumField() {
		tag := values.Type().Field(n).Tag
		if given := values.Field(n).String(); tag.Get("group") == "One issuer:" && given != tag.Get("default") {
			f.add(tag.Get("key"), given, "nothing, for the issuers are those of OASGATE_CONFIG %q: say it there, or leave that unset", c.File)
		}
	}
	issuers, err := ReadIssuers(c.File)
	if err != nil {
		*f = append(*f, err)
	}
	return issuers
}

// issuer is the one issuer that the environment and the flags name.
func (c Config) issuer(f *faults) token.Issuer {
	i := token.Issuer{
		Algorithms: f.algorithms("OASGATE_ALGORITHMS", c.Algorithms),
		Leeway:     f.leeway("OASGATE_LEEWAY", c.Leeway),
		DPoP:       f.dpop("OASGATE_DPOP", c.DPoP),
		Keys: token.KeyPolicy{
			Cooldown: f.positive("OASGATE_JWKS_COOLDOWN", c.JWKSCooldown),
			MaxAge:   f.positive("OASGATE_JWKS_MAX_AGE", c.JWKSMaxAge),
			MaxStale: f.positive("OASGATE_JWKS_MAX_STALE", c.JWKSMaxStale),
		},
	}
	switch {
	case c.Issuer == "" && c.Audience != "":
		f.missing("OASGATE_ISSUER", "the URL of the issuer of the tokens for OASGATE_AUDIENCE %q; for an Auth0 tenant AUTH0_DOMAIN does as well", c.Audience)
	case c.Issuer == "":
		f.missing("OASGATE_ISSUER", "the URL of the issuer whose tokens are accepted; for an Auth0 tenant AUTH0_DOMAIN does as well; without an issuer at hand, try `dev`")
	default:
		i.URL = f.issuer("OASGATE_ISSUER", c.Issuer)
	}
	switch {
	case c.Audience == "" && c.Issuer != "":
		f.missing("OASGATE_AUDIENCE", "the identifier under which this API is known to the issuer of OASGATE_ISSUER, without which tokens for its other APIs would pass")
	case c.Audience == "":
		f.missing("OASGATE_AUDIENCE", "the identifier under which this API is known to its issuer")
	default:
		i.Audiences = f.list("OASGATE_AUDIENCE", c.Audience)
	}
	if keys := i.Keys; keys.MaxStale > 0 && keys.MaxStale < keys.MaxAge {
		f.add("OASGATE_JWKS_MAX_STALE", c.JWKSMaxStale, "no less than OASGATE_JWKS_MAX_AGE, which is %s: keys would end before they are refreshed", keys.MaxAge)
	}
	return i
}

// LogConfig is how the log looks. Its `default` is the command's.
type LogConfig struct {
	Format string `name:"log-format" key:"OASGATE_LOG_FORMAT" default:"${log_format}" help:"json or text."`
	Level  string `name:"log-level" key:"OASGATE_LOG_LEVEL" default:"info" help:"debug, info, warn or error."`
}

// Logger returns a logger that writes to w, or all faults, joined.
func (c LogConfig) Logger(w io.Writer) (*slog.Logger, error) {
	var f faults
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		f.add("OASGATE_LOG_LEVEL", c.Level, "debug, info, warn or error")
	}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch c.Format {
	case "json":
		handler = slog.NewJSONHandler(w, options)
	case "text":
		handler = slog.NewTextHandler(w, options)
	default:
		f.add("OASGATE_LOG_FORMAT", c.Format, "json or text")
	}
	if f != nil {
		return nil, errors.Join(f...)
	}
	return slog.New(handler), nil
}

// faults collects what is wrong with the values of a configuration.
type faults []error

func (f *faults) add(key, given, expected string, args ...any) {
	*f = append(*f, fmt.Errorf("%s is %q: expected %s", key, given, fmt.Sprintf(expected, args...)))
}

func (f *faults) missing(key, expected string, args ...any) {
	*f = append(*f, fmt.Errorf("%s is not set: expected %s", key, fmt.Sprintf(expected, args...)))
}

func (f *faults) addr(key, given string) string {
	_, port, err := net.SplitHostPort(given)
	if _, notPort := strconv.ParseUint(port, 10, 16); err != nil || notPort != nil {
		f.add(key, given, "host:port with a port of 0 to 65535, such as :3010 or 127.0.0.1:3010")
	}
	return given
}

// issuer leaves the URL as it is: iss is compared byte for byte (RFC 7519 §4.1.1, §2 StringOrURI).
func (f *faults) issuer(key, given string) string {
	u, err := url.Parse(given)
	switch {
	case err == nil && u.User != nil:
		f.add(key, u.Redacted(), "a URL without user and password")
	case err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		f.add(key, given, "a URL without query and fragment, such as https://issuer.example/, exactly as it stands in iss (RFC 8414 §2)")
	case u.Scheme == "http" && !token.IsLoopback(u.Hostname()):
		f.add(key, given, "https: http is for loopback hosts only, for whoever answers in the issuer's place makes the keys")
	}
	return given
}

func (f *faults) resource(key, given string) string {
	u, err := url.Parse(given)
	if given != "" && (err != nil || u.Hostname() == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") || strings.ContainsAny(given, "?#\"\\")) {
		f.add(key, given, "the URL under which clients reach this API, such as https://api.example.com, without query and fragment (RFC 9728 §1.2)")
	}
	return given
}

func (f *faults) dpop(key, given string) token.DPoPPolicy {
	policy := token.DPoPPolicy(given)
	if policy != token.DPoPOff && policy != token.DPoPAllowed && policy != token.DPoPRequired {
		f.add(key, given, "off, allowed or required")
	}
	return policy
}

func (f *faults) replayStore(key, given string) string {
	if given == "" {
		return ""
	}
	store, err := OpenReplays(given)
	if err != nil {
		f.add(key, redacted(given), "%s", err)
		return ""
	}
	_ = store.Close() // never connected
	return given
}

// database never repeats the URL: there is a password in it.
func (f *faults) database(key, given string) string {
	if err := checkDatabaseURL(given); err != nil {
		f.add(key, redacted(given), "%s", err)
	}
	return given
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
		if entry != "" { // told by list
			f.algorithm(key, entry)
		}
	}
	return entries
}

// algorithm asks token's own question early, so that the fault names the key.
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
			f.add(key, entry, "networks as CIDRs, such as 10.0.0.0/8,fd00::/8; a single address is 192.0.2.1/32")
		}
		networks = append(networks, network)
	}
	return networks
}

func (f *faults) origins(key, given string) []string {
	if given == "" {
		return nil
	}
	origins := f.list(key, given)
	for _, origin := range origins {
		if err := server.CheckOrigin(origin); err != nil && origin != "" { // told by list
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
		f.add(key, given, "a duration longer than none with its unit, such as 30s, 15m or 1h")
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

// Environment is where a setting comes from that no flag gives: the strongest layer that has it, not empty.
type Environment []map[string]string

// ReadEnvironment returns the layers, the process's environment (as os.Environ gives it) before the file. That the
// file does not exist is normal.
func ReadEnvironment(environ []string, dotenv string) (Environment, error) {
	process := map[string]string{}
	for _, pair := range environ {
		key, value, _ := strings.Cut(pair, "=")
		process[key] = value
	}
	file, err := readDotenv(dotenv)
	if err != nil {
		return nil, err
	}
	env := Environment{process, file}
	return env, env.resolveAliases()
}

// Lookup returns the value of a key, or "". To be empty is to be absent: `KEY=` is how .env files and container
// descriptions leave a value out.
func (e Environment) Lookup(key string) string {
	for _, layer := range e {
		if value := strings.TrimSpace(layer[key]); value != "" {
			return value
		}
	}
	return ""
}

// resolveAliases gives the keys that the Auth0 quickstarts use our names, layer by layer, so that an alias in the
// environment beats our own key in .env. Two that contradict each other in one layer are a fault: guessing which
// issuer was meant would be guessing whom to trust.
func (e Environment) resolveAliases() error {
	var found []error
	for _, layer := range e {
		for _, a := range []struct {
			alias, key string
			value      func(string) string
		}{
			{"AUTH0_DOMAIN", "OASGATE_ISSUER", issuerOfDomain},
			{"AUTH0_AUDIENCE", "OASGATE_AUDIENCE", strings.TrimSpace},
		} {
			alias, own := a.value(layer[a.alias]), strings.TrimSpace(layer[a.key])
			switch {
			case alias == "" || alias == own:
			case own == "":
				layer[a.key] = alias
			default:
				found = append(found, fmt.Errorf("%s and %s contradict each other, %q and %q: expected one of them alone",
					a.alias, a.key, alias, own))
			}
		}
	}
	return errors.Join(found...)
}

// issuerOfDomain returns the issuer of an Auth0 tenant, whose iss is always https, in lower case, and ends in a slash.
func issuerOfDomain(domain string) string {
	domain = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(domain), "/"))
	if domain == "" || strings.HasPrefix(domain, "http://") {
		return domain // for the check of the issuer to refuse
	}
	return "https://" + strings.TrimPrefix(domain, "https://") + "/"
}

// readDotenv never repeats what the parser complains of: the parser quotes the rest of the file, secrets included.
func readDotenv(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s could not be read: %w; expected a file of KEY=value lines, or none", path, err)
	}
	values, err := godotenv.UnmarshalBytes(text)
	if _, nameless := values[""]; err == nil && !nameless {
		return values, nil
	}
	// The fault is in the statement after the longest beginning that is well-formed.
	lines := strings.SplitAfter(string(text), "\n")
	well := 0
	for n := range len(lines) {
		values, err := godotenv.Unmarshal(strings.Join(lines[:n], ""))
		if _, nameless := values[""]; err == nil && !nameless {
			well = n
		}
	}
	return nil, fmt.Errorf("%s is malformed at line %d: expected KEY=value, KEY=\"value\" or # comment", path, well+1)
}
