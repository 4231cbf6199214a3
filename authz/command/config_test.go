package command

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// prefix is the prefix of a program called orders.
const prefix = "ORDERS_"

// configured returns a configuration with the required settings only.
func configured() config {
	c := config{Issuer: "https://issuer.example/", Audience: "https://api.example"}
	fields := reflect.ValueOf(&c).Elem()
	for i := range fields.NumField() {
		if unset, ok := fields.Type().Field(i).Tag.Lookup("default"); ok {
			fields.Field(i).SetString(unset)
		}
	}
	return c
}

func TestSettings(t *testing.T) {
	c := configured()
	c.Addr = "127.0.0.1:0"
	c.Audience = "https://api.example, https://old-api.example"
	c.Algorithms = "EdDSA"
	c.Leeway = "0s"
	c.JWKSCooldown, c.JWKSMaxAge, c.JWKSMaxStale = "1s", "2m", "3h"
	c.TrustedProxies = "10.0.0.0/8,fd00::/8"
	c.CORSOrigins = "https://app.example, http://localhost:3000"
	c.Docs = "true"
	got, err := c.settings(prefix, true)
	if err != nil {
		t.Fatalf("a valid configuration is refused: %v", err)
	}
	want := []token.Issuer{{
		URL:        "https://issuer.example/",
		Audiences:  []string{"https://api.example", "https://old-api.example"},
		Algorithms: []string{"EdDSA"},
		Leeway:     token.NoLeeway,
		DPoP:       token.DPoPOff,
		Keys: token.KeyPolicy{
			Cooldown: time.Second,
			MaxAge:   2 * time.Minute,
			MaxStale: 3 * time.Hour,
		},
	}}
	if !reflect.DeepEqual(got.server.Issuers, want) {
		t.Errorf("issuers\n got %+v\nwant %+v", got.server.Issuers, want)
	}
	if want := []string{"https://app.example", "http://localhost:3000"}; !slices.Equal(
		got.server.CORSOrigins, want) {
		t.Errorf("origins are %q, want %q", got.server.CORSOrigins, want)
	}
	if !got.server.Docs {
		t.Error("the docs page is off, though ORDERS_DOCS is true")
	}
	if got.addr != "127.0.0.1:0" || len(got.server.TrustedProxies) != 2 ||
		got.server.TrustedProxies[1].String() != "fd00::/8" {
		t.Errorf("wrong address or proxies: %+v", got)
	}
}

func TestDefaultsPass(t *testing.T) {
	s, err := configured().settings(prefix, true)
	if err != nil {
		t.Fatalf("the defaults of the tags are faulty: %v", err)
	}
	if s.server.Docs {
		t.Error("the docs page is on by default")
	}
	if _, err := token.NewVerifier(t.Context(),
		token.Config{Issuers: s.server.Issuers}); err != nil {
		t.Errorf("token.NewVerifier refuses it: %v", err)
	}
}

func TestEveryFaultNamesItsKey(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*config)
		want  string // the complete message
	}{
		{"address without port", func(c *config) { c.Addr = "3010" },
			`ORDERS_ADDR is "3010": expected host:port with a port of 0 to 65535, such as :3010 or 127.0.0.1:3010, or unix: and a path`},
		{"address with too high a port", func(c *config) { c.Addr = ":65536" },
			`ORDERS_ADDR is ":65536": expected host:port with a port of 0 to 65535, such as :3010 or 127.0.0.1:3010, or unix: and a path`},
		{"audience alone", func(c *config) { c.Issuer = "" },
			`ORDERS_ISSUER is not set: expected the URL of the issuer that issues tokens for ORDERS_AUDIENCE "https://api.example"; for an Auth0 tenant, set AUTH0_DOMAIN instead`},
		{"issuer alone", func(c *config) { c.Audience = "" },
			`ORDERS_AUDIENCE is not set: expected the identifier of this API at the issuer in ORDERS_ISSUER, so that tokens for other APIs are refused`},
		{"issuer without scheme", func(c *config) { c.Issuer = "issuer.example" },
			`ORDERS_ISSUER is "issuer.example": expected a URL without query and fragment, such as https://issuer.example/, identical to the iss claim (RFC 8414 §2)`},
		{"issuer of another scheme", func(c *config) { c.Issuer = "ftp://issuer.example/" },
			`ORDERS_ISSUER is "ftp://issuer.example/": expected a URL without query and fragment, such as https://issuer.example/, identical to the iss claim (RFC 8414 §2)`},
		{"issuer with a query", func(c *config) { c.Issuer = "https://issuer.example/?tenant=1" },
			`ORDERS_ISSUER is "https://issuer.example/?tenant=1": expected a URL without query and fragment, such as https://issuer.example/, identical to the iss claim (RFC 8414 §2)`},
		{"http issuer", func(c *config) { c.Issuer = "http://issuer.example/" },
			`ORDERS_ISSUER is "http://issuer.example/": expected https: http is allowed for loopback hosts only, because anyone on the network path could replace the keys`},
		{
			"issuer with a password, which is not repeated",
			func(c *config) { c.Issuer = "https://me:hunter2@issuer.example/" },
			`ORDERS_ISSUER is "https://me:xxxxx@issuer.example/": expected a URL without user and password`,
		},
		{"empty audience in a list", func(c *config) { c.Audience = "a,,b" },
			`ORDERS_AUDIENCE is "a,,b": expected entries separated by single commas, none of them empty`},
		{"symmetric algorithm", func(c *config) { c.Algorithms = "RS256,HS256" },
			`ORDERS_ALGORITHMS is "HS256": expected one of ES256, ES384, ES512, Ed25519, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512`},
		{"algorithm none", func(c *config) { c.Algorithms = "none" },
			`ORDERS_ALGORITHMS is "none": expected one of ES256, ES384, ES512, Ed25519, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512`},
		{"leeway without unit", func(c *config) { c.Leeway = "30" },
			`ORDERS_LEEWAY is "30": expected a duration with its unit, from 0s to 60s`},
		{"leeway too long", func(c *config) { c.Leeway = "61s" },
			`ORDERS_LEEWAY is "61s": expected a duration with its unit, from 0s to 60s`},
		{"negative leeway", func(c *config) { c.Leeway = "-1ns" },
			`ORDERS_LEEWAY is "-1ns": expected a duration with its unit, from 0s to 60s`},
		{"cooldown of zero", func(c *config) { c.JWKSCooldown = "0s" },
			`ORDERS_JWKS_COOLDOWN is "0s": expected a positive duration with its unit, such as 30s, 15m or 1h`},
		{"maximum age in words", func(c *config) { c.JWKSMaxAge = "an hour" },
			`ORDERS_JWKS_MAX_AGE is "an hour": expected a positive duration with its unit, such as 30s, 15m or 1h`},
		{"negative maximum staleness", func(c *config) { c.JWKSMaxStale = "-1h" },
			`ORDERS_JWKS_MAX_STALE is "-1h": expected a positive duration with its unit, such as 30s, 15m or 1h`},
		{"keys that expire before they are refreshed", func(c *config) { c.JWKSMaxStale = "10m" },
			`ORDERS_JWKS_MAX_STALE is "10m": expected at least ORDERS_JWKS_MAX_AGE, which is 1h0m0s: keys would expire before they are refreshed`},
		{"proxy that is not a network", func(c *config) { c.TrustedProxies = "10.0.0.1" },
			`ORDERS_TRUSTED_PROXIES is "10.0.0.1": expected networks as CIDRs, such as 10.0.0.0/8,fd00::/8; a single address is 192.0.2.1/32`},
		{"unknown report mode", func(c *config) { c.InsecureReport = "true" },
			`ORDERS_INSECURE_REPORT is "true": expected off, validation or everything`},
		{"origin with a path", func(c *config) { c.CORSOrigins = "https://app.example/" },
			`ORDERS_CORS_ORIGINS is "https://app.example/": expected an origin as browsers send it, in lower case and without a slash at the end, such as https://app.example.com or http://localhost:3000`},
		{"all origins", func(c *config) { c.CORSOrigins = "*" },
			`ORDERS_CORS_ORIGINS is "*": expected a list of origins without wildcards`},
		{"no origin", func(c *config) { c.CORSOrigins = "https://app.example,null" },
			`ORDERS_CORS_ORIGINS is "null": expected an origin other than null, which all sandboxed frames and local files share`},
		{
			"http origin",
			func(c *config) { c.CORSOrigins = "http://localhost:3000,http://app.example" },
			`ORDERS_CORS_ORIGINS is "http://app.example": expected https: http is allowed for loopback hosts only, because anyone on the network path could change the page`,
		},
		{
			"origin with the default port",
			func(c *config) { c.CORSOrigins = "https://app.example:443" },
			`ORDERS_CORS_ORIGINS is "https://app.example:443": expected the origin without :443, because browsers omit the default port`,
		},
		{"docs is yes", func(c *config) { c.Docs = "yes" },
			`ORDERS_DOCS is "yes": expected true or false`},
		{"value with a line break", func(c *config) { c.Leeway = "1s\nall is well" },
			`ORDERS_LEEWAY is "1s\nall is well": expected a duration with its unit, from 0s to 60s`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := configured()
			test.spoil(&c)
			_, err := c.settings(prefix, true)
			if err == nil {
				t.Fatalf("no fault was found")
			}
			if err.Error() != test.want {
				t.Errorf("the message is\n  %s\nwant\n  %s", err, test.want)
			}
		})
	}
}

func TestHTTPIssuerOnLoopbackHosts(t *testing.T) {
	for _, issuer := range []string{"http://localhost:9000/", "http://LOCALHOST/", "http://127.8.9.1:1/", "http://[::1]:1/realms/r"} {
		c := configured()
		c.Issuer = issuer
		if s, err := c.settings(prefix, true); err != nil || s.server.Issuers[0].URL != issuer {
			t.Errorf("%s became %+v, %v: want the http issuer on a loopback host unchanged",
				issuer, s.server.Issuers, err)
		}
	}
	for _, issuer := range []string{"http://localhost.example/", "http://127.0.0.1.example/", "http://128.0.0.1/", "http://0.0.0.0/", "http://[::]/"} {
		c := configured()
		c.Issuer = issuer
		if _, err := c.settings(prefix, true); err == nil {
			t.Errorf("%s was accepted: only https may be, for it is not this machine", issuer)
		}
	}
}

func TestFaultsAreJoined(t *testing.T) {
	_, err := config{
		Addr: "x", Algorithms: "HS256", Leeway: "x", JWKSCooldown: "x", JWKSMaxAge: "x",
		JWKSMaxStale: "x", DPoP: "x", DPoPNonces: "x", CORSOrigins: "x", Docs: "x",
		TrustedProxies: "x", InsecureReport: "x", Responses: "x",
	}.settings(prefix, true)
	for _, key := range []string{
		"ORDERS_ADDR", "ORDERS_ISSUER", "ORDERS_AUDIENCE", "ORDERS_ALGORITHMS", "ORDERS_LEEWAY",
		"ORDERS_JWKS_COOLDOWN", "ORDERS_JWKS_MAX_AGE", "ORDERS_JWKS_MAX_STALE", "ORDERS_DPOP", "ORDERS_DPOP_NONCES", "ORDERS_CORS_ORIGINS", "ORDERS_DOCS", "ORDERS_TRUSTED_PROXIES", "ORDERS_INSECURE_REPORT", "ORDERS_RESPONSES",
	} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+key+" is ") {
			t.Errorf("no fault names %s, in:\n%v", key, err)
		}
	}
}

func TestDPoPSettings(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*config)
		fault  string // "" for none
	}{
		{"off", func(c *config) {}, ""},
		{"allowed", func(c *config) { c.DPoP, c.Resource = "allowed", "https://api.example" }, ""},
		{"required, with nonces", func(c *config) { c.DPoP, c.Resource, c.DPoPNonces = "required", "https://api.example", "on" }, ""},
		{"a key of nonces", func(c *config) { c.DPoPNonces, c.DPoPNonceKey = "on", strings.Repeat("secret-", 5) }, ""},
		{"without a resource", func(c *config) { c.DPoP = "allowed" }, "ORDERS_RESOURCE is not set: expected the URL at which clients reach this API"},
		{"another policy", func(c *config) { c.DPoP = "on" }, `ORDERS_DPOP is "on": expected off, allowed or required`},
		{"other nonces", func(c *config) { c.DPoPNonces = "yes" }, `ORDERS_DPOP_NONCES is "yes": expected off or on`},
		{"a key for no nonces", func(c *config) { c.DPoPNonceKey = strings.Repeat("secret-", 5) }, `ORDERS_DPOP_NONCES is "off": expected on, because ORDERS_DPOP_NONCE_KEY is set`},
		{"a short key", func(c *config) { c.DPoPNonces, c.DPoPNonceKey = "on", "secret-" }, "ORDERS_DPOP_NONCE_KEY has 7 characters: expected at least 32"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := configured()
			test.change(&c)
			s, err := c.settings(prefix, true)
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) ||
					strings.Contains(err.Error(), "secret-") {
					t.Errorf("faults are %v: want %q, and no secret", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if policy := s.server.Issuers[0].DPoP; string(policy) != c.DPoP {
				t.Errorf("the policy is %s, want %s", policy, c.DPoP)
			}
			if on := len(s.server.NonceKey) >= 32; on != (c.DPoPNonces == "on") ||
				!on && s.server.NonceKey != nil {
				t.Errorf("the key of nonces has %d bytes, with nonces %s", len(s.server.NonceKey),
					c.DPoPNonces)
			}
		})
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, _, err := logConfig{Format: "json", Level: "warn"}.logger(prefix, &out)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not this")
	log.Warn("this")
	if got := out.String(); !strings.HasPrefix(got, `{"time":`) ||
		strings.Contains(got, "not this") ||
		!strings.Contains(got, `"msg":"this"`) {
		t.Errorf("logged %q: want one JSON line, of the warning", got)
	}

	_, _, err = logConfig{Format: "xml", Level: "loud"}.logger(prefix, &out)
	want := "ORDERS_LOG_LEVEL is \"loud\": expected debug, info, warn or " +
		"error\nORDERS_LOG_FORMAT is \"xml\": expected json or text"
	if err == nil || err.Error() != want {
		t.Errorf("faults are\n%v\nwant\n%s", err, want)
	}
}

func TestEnvironment(t *testing.T) {
	tests := []struct {
		name             string
		environ          []string
		dotenv           string
		issuer, audience string
		fault            string
	}{
		{name: "nothing is set"},
		{
			name:     "of the environment",
			environ:  []string{"ORDERS_ISSUER=https://a/", "ORDERS_AUDIENCE=b=c"},
			issuer:   "https://a/",
			audience: "b=c",
		},
		{
			name:     "of .env",
			dotenv:   "# comment\nORDERS_ISSUER=https://a/ # why\nexport ORDERS_AUDIENCE=\"b c\"\n",
			issuer:   "https://a/",
			audience: "b c",
		},
		{
			name:     "the environment beats .env",
			environ:  []string{"ORDERS_ISSUER=https://a/"},
			dotenv:   "ORDERS_ISSUER=https://b/\nORDERS_AUDIENCE=c",
			issuer:   "https://a/",
			audience: "c",
		},
		{
			name:     "empty is absent",
			environ:  []string{"ORDERS_ISSUER=", "ORDERS_AUDIENCE= "},
			dotenv:   "ORDERS_ISSUER=https://b/\nORDERS_AUDIENCE=c",
			issuer:   "https://b/",
			audience: "c",
		},
		{
			name:    "domain",
			environ: []string{"AUTH0_DOMAIN=dev-1.eu.auth0.com"},
			issuer:  "https://dev-1.eu.auth0.com/",
		},
		{
			name:    "domain with slash",
			environ: []string{"AUTH0_DOMAIN=dev-1.eu.auth0.com/"},
			issuer:  "https://dev-1.eu.auth0.com/",
		},
		{
			name:    "domain with scheme",
			environ: []string{"AUTH0_DOMAIN=https://dev-1.eu.auth0.com"},
			issuer:  "https://dev-1.eu.auth0.com/",
		},
		{
			name:    "domain with both, in capitals",
			environ: []string{"AUTH0_DOMAIN=HTTPS://Dev-1.EU.auth0.com/"},
			issuer:  "https://dev-1.eu.auth0.com/",
		},
		{
			name:    "domain in the clear, for the check of the issuer to refuse",
			environ: []string{"AUTH0_DOMAIN=http://dev-1.eu.auth0.com"},
			issuer:  "http://dev-1.eu.auth0.com",
		},
		{name: "Auth0's audience", dotenv: "AUTH0_AUDIENCE=https://api", audience: "https://api"},
		{
			name: "alias and key agree",
			environ: []string{
				"AUTH0_DOMAIN=a.auth0.com",
				"ORDERS_ISSUER=https://a.auth0.com/",
				"AUTH0_AUDIENCE=b",
				"ORDERS_AUDIENCE=b",
			},
			issuer:   "https://a.auth0.com/",
			audience: "b",
		},
		{
			name:    "an alias in the environment beats the key in .env",
			environ: []string{"AUTH0_DOMAIN=a.auth0.com"},
			dotenv:  "ORDERS_ISSUER=https://b/",
			issuer:  "https://a.auth0.com/",
		},
		{
			name: "alias and key contradict each other",
			environ: []string{
				"AUTH0_DOMAIN=a.auth0.com",
				"ORDERS_ISSUER=https://a.auth0.com",
				"AUTH0_AUDIENCE=b",
				"ORDERS_AUDIENCE=c",
			},
			fault: "AUTH0_DOMAIN and ORDERS_ISSUER have different values, \"https://a.auth0.com/\" and \"https://a.auth0.com\": set only one of them\n" +
				"AUTH0_AUDIENCE and ORDERS_AUDIENCE have different values, \"b\" and \"c\": set only one of them",
		},
		{
			name:   "malformed line",
			dotenv: "A=1\nB='two\nlines'\n\nSECRET hunter2\nC=3\n",
			fault:  ".env is malformed at line 5: expected KEY=value, KEY=\"value\" or # comment",
		},
		{
			name:   "key alone at the end",
			dotenv: "A=1\nhunter2",
			fault:  ".env is malformed at line 2: expected KEY=value, KEY=\"value\" or # comment",
		},
		{
			name:   "quote that does not end",
			dotenv: "A=1\nB=\"hunter2\nC=3\n",
			fault:  ".env is malformed at line 2: expected KEY=value, KEY=\"value\" or # comment",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if test.dotenv != "" {
				if err := os.WriteFile(".env", []byte(test.dotenv), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			env, err := readEnvironment(prefix, test.environ, ".env")
			if test.fault != "" {
				if err == nil || err.Error() != test.fault {
					t.Errorf("the fault is\n  %v\nwant\n  %s", err, test.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if issuer, audience := env.lookup("ISSUER"), env.lookup(
				"AUDIENCE"); issuer != test.issuer ||
				audience != test.audience {
				t.Errorf("issuer %q, audience %q; want %q, %q", issuer, audience, test.issuer,
					test.audience)
			}
		})
	}
}

func TestUnreadableDotenv(t *testing.T) {
	path := filepath.Join(t.TempDir(),
		".env") // a directory, as a container gets for a file that was not there
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := readEnvironment(prefix, nil, path); err == nil ||
		!strings.HasPrefix(err.Error(), "cannot read "+path+": ") {
		t.Errorf("%v: want a fault that names the file, for only one that does not exist is normal",
			err)
	}
}
