package command

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

func TestIssuersFile(t *testing.T) {
	got, err := parseIssuers("issuers.yaml", []byte(`
# Three issuers, and every key.
issuers:
  - url: https://issuer.example/
    audiences: [https://api.example, "urn:api", 007]
    audience_claim: /resource
    client_claim: /cid
    required_claims:
      /typ: [Bearer, DPoP]
      /org_id: [org_1]
    algorithms: [EdDSA, ES256]
    leeway: 0s
    max_lifetime: 1h
    scope_claims:
      - /scp
      - /realm_access/roles
    scope_prefix: api/
    scope_names: {admin: read:messages write:messages, "Chief Editor": write:messages}
    grantable_scopes: [read:messages, write:messages]
    dpop: required
    introspection: {endpoint: "https://issuer.example/ask", client_id: api, client_secret_file: testdata/secret, opaque: true, always: true, max_age: 0s}
    keys: {cooldown: 1s, max_age: 2m, max_stale: 3h}
  - {url: "http://localhost:9000/realms/r", audiences: [a], profile: rfc9068, leeway: 5s, dpop: off, scope_claims: [], grantable_scopes: []}
  - {url: "https://fapi.example", audiences: [a], profile: fapi2, mtls: required}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []token.Issuer{{
		URL:            "https://issuer.example/",
		Audiences:      []string{"https://api.example", "urn:api", "007"},
		AudienceClaim:  "/resource",
		ClientClaim:    "/cid",
		RequiredClaims: map[string][]string{"/typ": {"Bearer", "DPoP"}, "/org_id": {"org_1"}},
		Algorithms:     []string{"EdDSA", "ES256"},
		Leeway:         token.NoLeeway,
		MaxLifetime:    time.Hour,
		ScopeClaims:    []string{"/scp", "/realm_access/roles"},
		ScopePrefix:    "api/",
		ScopeNames: map[string]string{
			"admin":        "read:messages write:messages",
			"Chief Editor": "write:messages",
		},
		GrantableScopes: []string{"read:messages", "write:messages"},
		DPoP:            token.DPoPRequired,
		Introspection: token.Introspection{
			Endpoint: "https://issuer.example/ask", ClientID: "api", ClientSecret: "s e c r e t",
			Opaque: true, Always: true, MaxAge: token.NoAge,
		},
		Keys: token.KeyPolicy{
			Cooldown: time.Second,
			MaxAge:   2 * time.Minute,
			MaxStale: 3 * time.Hour,
		},
	}, {
		URL: "http://localhost:9000/realms/r", Audiences: []string{"a"}, RFC9068: true, Leeway: 5 * time.Second,
		DPoP: token.DPoPOff, ScopeClaims: []string{}, GrantableScopes: []string{},
	}, {
		URL: "https://fapi.example", Audiences: []string{"a"}, FAPI2: true, MTLS: token.MTLSRequired,
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the issuers are\n %+v\nwant\n %+v", got, want)
	}
}

// TestIssuersFileHasEveryField checks that each field of token.Issuer has a key in the file.
func TestIssuersFileHasEveryField(t *testing.T) {
	keys := map[string]string{ // a value for the key that sets the field
		"URL": "url", "Audiences": "audiences", "AudienceClaim": "audience_claim", "ClientClaim": "client_claim", "RequiredClaims": "required_claims",
		"Algorithms": "algorithms", "Leeway": "leeway", "MaxLifetime": "max_lifetime", "RFC9068": "profile", "ScopeClaims": "scope_claims",
		"ScopePrefix": "scope_prefix", "ScopeNames": "scope_names", "GrantableScopes": "grantable_scopes", "DPoP": "dpop", "Keys": "keys",
		"Tenants": "tenants", "InsecureAnyTenant": "insecure_any_tenant", "DiscoveryURL": "discovery_url", "JWKSURI": "jwks_uri", "JWKS": "jwks",
		"PublicKeyPEM": "public_key_file", "InsecureHTTP": "insecure_http", "SubjectOptional": "subject", "StrictScopeClaims": "strict_scope_claims", "MTLS": "mtls",
		"FAPI2": "profile", "Introspection": "introspection",
	}
	_, err := parseIssuers("f",
		[]byte("issuers: [{url: https://a.example/, audiences: [a], nonsense: 1}]"))
	for field := range reflect.TypeFor[token.Issuer]().Fields() {
		key, known := keys[field.Name]
		if !known || !strings.Contains(err.Error(), key) {
			t.Errorf(
				"token.Issuer has %s: no key of the file sets it, or the list of known keys leaves it out:\n%v",
				field.Name, err)
		}
	}
}

// TestIssuersFileKeyPlaces: the keys, the tenants and the binding of tokens.
func TestIssuersFileKeyPlaces(t *testing.T) {
	const set = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]token.Issuer{
		"url: https://a.example/, discovery_url: 'https://meta.example/x?p=1'": {URL: "https://a.example/", DiscoveryURL: "https://meta.example/x?p=1"},
		"url: https://a.example/, jwks_uri: https://keys.example/":             {URL: "https://a.example/", JWKSURI: "https://keys.example/"},
		"url: https://a.example/, jwks: '" + set + "'":                         {URL: "https://a.example/", JWKS: []byte(set)},
		"url: https://a.example/, jwks_file: " + file:                          {URL: "https://a.example/", JWKS: []byte(set)},
		"url: 'http://keycloak:8080/realms/x', insecure_http: true":            {URL: "http://keycloak:8080/realms/x", InsecureHTTP: true},
		"url: 'https://l.example/{tenantid}/v2.0', tenants: [a, b]":            {URL: "https://l.example/{tenantid}/v2.0", Tenants: []string{"a", "b"}},
		"url: 'https://l.example/{tenantid}/v2.0', insecure_any_tenant: true, jwks_uri: https://l.example/keys": {
			URL: "https://l.example/{tenantid}/v2.0", InsecureAnyTenant: true, JWKSURI: "https://l.example/keys"},
		"url: https://a.example/, subject: optional, strict_scope_claims: true, mtls: allowed": {
			URL: "https://a.example/", SubjectOptional: true, StrictScopeClaims: true, MTLS: token.MTLSAllowed},
	} {
		want.Audiences = []string{"x"}
		got, err := parseIssuers("f", []byte("issuers: [{audiences: [x], "+text+"}]"))
		if err != nil || !reflect.DeepEqual(got, []token.Issuer{want}) {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"jwks_file: /nowhere":        `jwks_file is "/nowhere": expected a file that can be read`,
		"public_key_file: " + file:   "PublicKeyPEM: expected one PEM block",
		"insecure_http: yes":         `insecure_http is "yes": expected true or false`,
		"subject: none":              `subject is "none": expected required or optional`,
		"mtls: on":                   `mtls is "on": expected off, allowed or required`,
		"jwks_uri: http://k.example": "http is accepted on loopback hosts only",
	} {
		_, err := parseIssuers("f", []byte("issuers: [{url: https://a.example/, audiences: [x], "+text+"}]"))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
}

func TestIssuersFileFaults(t *testing.T) {
	const list = "issuers:\n"
	for _, test := range []struct {
		name, text string
		want       string // the complete message
	}{
		{"empty", "", `f.yaml is empty: expected a list named issuers`},
		{"a comment alone", "# later\n", `f.yaml is empty: expected a list named issuers`},
		{"invalid YAML", "issuers: [\n", `f.yaml is not valid YAML: yaml: line 2: did not find expected node content`},
		{"a tab", "issuers:\n\t- url: a\n", `f.yaml is not valid YAML: yaml: line 2: found character that cannot start any token`},
		{"two documents", list + "  - {url: https://a.example/, audiences: [a]}\n---\nissuers: []\n", `f.yaml has more than one YAML document: expected one, with a list named issuers`},
		{"something broken after it", list + "  - {url: https://a.example/, audiences: [a]}\n---\n[\n", `f.yaml has more than one YAML document: expected one, with a list named issuers`},
		{"a list", "- url: https://a.example/\n", `f.yaml:1: the file is a list: expected a mapping: lines of key: value`},
		{"a word", "issuers\n", `f.yaml:1: the file is "issuers": expected a mapping: lines of key: value`},
		{"no issuers", "{}", `f.yaml:1: issuers is not set: expected a list of issuers, each with url and audiences`},
		{"no issuer", "issuers: []", `f.yaml:1: issuers is not set: expected a list of issuers, each with url and audiences`},
		{"issuers empty", "issuers:\n", `f.yaml:1: issuers is empty: expected a list, such as [a, b]`},
		{"issuers a mapping", list + "  url: https://a.example/\n", `f.yaml:2: issuers is a mapping: expected a list, such as [a, b]`},
		{"an issuer that is a URL", list + "  - https://a.example/\n", `f.yaml:2: issuers is "https://a.example/": expected a mapping: lines of key: value`},
		{"another key at the top", list + "  - {url: https://a.example/, audiences: [a]}\naddr: :3010\n", `f.yaml:3: addr is an unknown key: expected issuers`},
		{"issuers twice", list + "  - {url: https://a.example/, audiences: [a]}\nissuers: []\n", `f.yaml:3: issuers is given twice, first on line 1: expected it once`},
		{"a merge", "x: &x {leeway: 1s}\nissuers:\n  - {url: https://a.example/, audiences: [a], <<: *x}\n",
			"f.yaml:1: x is an unknown key: expected issuers\n" +
				"f.yaml:1: << is an unknown key: expected one of preset, url, tenants, insecure_any_tenant, discovery_url, jwks_uri, jwks, jwks_file, public_key_file, insecure_http, audiences, audience_claim, client_claim, subject, required_claims, algorithms, leeway, max_lifetime, profile, scope_claims, strict_scope_claims, scope_prefix, scope_names, grantable_scopes, dpop, mtls, introspection, keys"},
		{"a key that is a list", list + "  - {url: https://a.example/, audiences: [a], [b]: c}\n", `f.yaml:2: a key is a list: expected a word`},
		{"an alias of itself", list + "  - {url: https://a.example/, audiences: &a [*a]}\n", `f.yaml:2: audiences is a list: expected a single value`},

		{"url missing", list + "  - audiences: [a]\n", `f.yaml:2: url is not set: expected the URL of the issuer, identical to the iss claim`},
		{"url and audiences missing, with a preset", list + "  - preset: okta\n",
			"f.yaml:2: url is not set: expected the URL of the issuer, identical to the iss claim\n" +
				"f.yaml:2: audiences is not set: expected the identifiers of this API at the issuer, so that tokens for other APIs are refused"},
		{"http url", list + "  - {url: http://a.example/, audiences: [a]}\n", `f.yaml:2: url is "http://a.example/": expected https: http is allowed for loopback hosts only, because anyone on the network path could replace the keys`},
		{"url empty", list + "  - url:\n    audiences: [a]\n", `f.yaml:2: url is empty: expected a single value`},
		{"url with a password, which is not repeated", list + "  - {url: 'https://me:hunter2@a.example/', audiences: [a]}\n", `f.yaml:2: url is "https://me:xxxxx@a.example/": expected a URL without user and password`},
		{"an issuer twice", list + "  - {url: https://a.example/, audiences: [a]}\n  - url: https://a.example/\n    audiences: [b]\n", `f.yaml:3: url is "https://a.example/": expected each issuer once; this one is also on line 2`},
		{"audiences a word", list + "  - url: https://a.example/\n    audiences: a\n", `f.yaml:3: audiences is "a": expected a list, such as [a, b]`},
		{"audiences none", list + "  - url: https://a.example/\n    audiences: []\n", `f.yaml:2: the issuer's audiences are []: at least one is needed, and none may be empty`},
		{"an audience empty", list + "  - url: https://a.example/\n    audiences:\n      - a\n      -\n", `f.yaml:5: audiences is empty: expected a single value`},
		{"symmetric algorithm", list + "  - url: https://a.example/\n    audiences: [a]\n    algorithms: [RS256, HS256]\n", `f.yaml:4: algorithms is "HS256": expected one of ES256, ES384, ES512, Ed25519, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512`},
		{"no algorithm", list + "  - {url: https://a.example/, audiences: [a], algorithms: []}\n", `f.yaml:2: the issuer's algorithms: the list is empty, so no token is accepted; leave it unset for the default`},
		{"leeway without unit", list + "  - {url: https://a.example/, audiences: [a], leeway: 30}\n", `f.yaml:2: leeway is "30": expected a duration with its unit, from 0s to 60s`},
		{"leeway too long", list + "  - {url: https://a.example/, audiences: [a], leeway: 2m}\n", `f.yaml:2: leeway is "2m": expected a duration with its unit, from 0s to 60s`},
		{"leeway twice", list + "  - url: https://a.example/\n    audiences: [a]\n    leeway: 5s\n    leeway: 6s\n", `f.yaml:5: leeway is given twice, first on line 4: expected it once`},
		{"lifetime negative", list + "  - {url: https://a.example/, audiences: [a], max_lifetime: -1h}\n", `f.yaml:2: max_lifetime is "-1h": expected a positive duration with its unit, such as 30s, 15m or 1h`},
		{"another profile", list + "  - {url: https://a.example/, audiences: [a], profile: strict}\n", `f.yaml:2: profile is "strict": expected rfc9068 or fapi2, or leave it unset`},
		{"scope claim by its bare name", list + "  - {url: https://a.example/, audiences: [a], scope_claims: [scope]}\n", `f.yaml:2: scope_claims is "scope": expected a JSON pointer (RFC 6901) to a claim, such as /scope or /realm_access/roles`},
		{"scope claim with a bad escape", list + "  - {url: https://a.example/, audiences: [a], scope_claims: [/a~2]}\n", `f.yaml:2: the issuer's scope claim "/a~2": expected a JSON pointer (RFC 6901) such as /scope or /realm_access/roles`},
		{"required claim without values", list + "  - {url: https://a.example/, audiences: [a], required_claims: {/typ: []}}\n", `f.yaml:2: the issuer's required claim "/typ": no value is given, so no token is accepted`},
		{"required claim with a word", list + "  - {url: https://a.example/, audiences: [a], required_claims: {/typ: Bearer}}\n", `f.yaml:2: required_claims./typ is "Bearer": expected a list, such as [a, b]`},
		{"scope names a list", list + "  - {url: https://a.example/, audiences: [a], scope_names: [admin]}\n", `f.yaml:2: scope_names is a list: expected a mapping: lines of key: value`},
		{"a scope name twice", list + "  - {url: https://a.example/, audiences: [a], scope_names: {admin: a, admin: b}}\n", `f.yaml:2: scope_names.admin is given twice, first on line 2: expected it once`},
		{"grantable scopes in one", list + "  - {url: https://a.example/, audiences: [a], grantable_scopes: [a b]}\n", `f.yaml:2: the issuer's grantable scope "a b": expected one scope, without spaces`},
		{"dpop in other words", list + "  - {url: https://a.example/, audiences: [a], dpop: true}\n", `f.yaml:2: dpop is "true": expected off, allowed or required`},
		{"introspection misspelt", list + "  - {url: https://a.example/, audiences: [a], introspection: {clientid: a}}\n", `f.yaml:2: introspection.clientid is an unknown key: expected one of endpoint, client_id, client_secret_file, opaque, always, max_age`},
		{"introspection without a secret", list + "  - {url: https://a.example/, audiences: [a], introspection: {client_id: a}}\n", `f.yaml:2: the issuer's Introspection.ClientSecret is empty: expected this API's own credentials at the issuer`},
		{"introspection with a secret that is not there", list + "  - {url: https://a.example/, audiences: [a], introspection: {client_id: a, client_secret_file: none}}\n", `f.yaml:2: introspection.client_secret_file is "none": expected a file that can be read: open none: no such file or directory`},
		{"fapi2 with bearer tokens", list + "  - {url: https://a.example/, audiences: [a], profile: fapi2}\n", `f.yaml:2: the issuer's DPoP and MTLS are both off: expected one of them allowed or required, because all tokens must be bound (FAPI 2.0 §5.3.4)`},
		{"keys misspelt", list + "  - {url: https://a.example/, audiences: [a], keys: {max-age: 1h}}\n", `f.yaml:2: keys.max-age is an unknown key: expected one of cooldown, max_age, max_stale`},
		{"keys that expire before they are refreshed", list + "  - {url: https://a.example/, audiences: [a], keys: {max_stale: 10m}}\n", `f.yaml:2: the issuer's maximum staleness of keys is 10m0s, less than their maximum age of 1h0m0s: keys would expire before they are refreshed`},
		{"strict, without aud", list + "  - {url: https://a.example/, audiences: [a], profile: rfc9068, audience_claim: /client_id}\n", `f.yaml:2: the issuer's audience claim "/client_id": the strict profile requires aud (RFC 9068 §4); leave one of the two unset`},
		{"unknown preset", list + "  - {preset: keycloack, url: https://a.example/, audiences: [a]}\n", `f.yaml:2: preset is "keycloack": expected one of auth0, auth0-rbac, cognito, entra, entra-b2c, entra-multitenant, entra-v1, google, keycloak, okta`},
		{"preset by its path", list + "  - {preset: ../presets/okta, url: https://a.example/, audiences: [a]}\n", `f.yaml:2: preset is "../presets/okta": expected one of auth0, auth0-rbac, cognito, entra, entra-b2c, entra-multitenant, entra-v1, google, keycloak, okta`},
		{"a key with a line break", "issuers: [{url: https://a.example/, audiences: [a], \"all is\\nwell\": 1}]", `f.yaml:1: "all is\nwell" is an unknown key: expected one of preset, url, tenants, insecure_any_tenant, discovery_url, jwks_uri, jwks, jwks_file, public_key_file, insecure_http, audiences, audience_claim, client_claim, subject, required_claims, algorithms, leeway, max_lifetime, profile, scope_claims, strict_scope_claims, scope_prefix, scope_names, grantable_scopes, dpop, mtls, introspection, keys`},
		{"a value with a line break", list + "  - {url: https://a.example/, audiences: [a], leeway: \"1s\\nall is well\"}\n", `f.yaml:2: leeway is "1s\nall is well": expected a duration with its unit, from 0s to 60s`},
		{"all of them together", list + "  - preset: x\n    url: y\n    audience: z\n  - audiences: [a]\nmore: 1\n",
			"f.yaml:2: preset is \"x\": expected one of auth0, auth0-rbac, cognito, entra, " +
				"entra-b2c, entra-multitenant, entra-v1, google, keycloak, okta\n" +
				"f.yaml:3: url is \"y\": expected a URL without query and fragment, such as https://issuer.example/, identical to the iss claim (RFC 8414 §2)\n" +
				"f.yaml:4: audience is an unknown key: expected one of preset, url, tenants, " +
				"insecure_any_tenant, discovery_url, jwks_uri, jwks, jwks_file, public_key_file, " +
				"insecure_http, audiences, audience_claim, client_claim, subject, " +
				"required_claims, algorithms, leeway, max_lifetime, profile, scope_claims, " +
				"strict_scope_claims, scope_prefix, scope_names, grantable_scopes, dpop, mtls, " +
				"introspection, keys\n" +
				"f.yaml:2: audiences is not set: expected the identifiers of this API at the " +
				"issuer, so that tokens for other APIs are refused\n" +
				"f.yaml:5: url is not set: expected the URL of the issuer, identical to the iss " +
				"claim\n" +
				"f.yaml:6: more is an unknown key: expected issuers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			issuers, err := parseIssuers("f.yaml", []byte(test.text))
			if err == nil {
				t.Fatalf("no fault was found: %+v", issuers)
			}
			if err.Error() != test.want {
				t.Errorf("the faults are\n%s\nwant\n%s", err, test.want)
			}
			if issuers != nil {
				t.Errorf("there are faults, but also issuers: %+v", issuers)
			}
		})
	}
}

// TestPresetOverridden: the keys of the file override the preset, in any order.
func TestPresetOverridden(t *testing.T) {
	for _, text := range []string{
		"issuers: [{preset: cognito, url: https://a.example/x, audiences: [a], scope_claims: [/groups], leeway: 1s}]",
		"issuers: [{url: https://a.example/x, audiences: [a], scope_claims: [/groups], leeway: 1s, preset: cognito}]",
	} {
		got, err := parseIssuers("f.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		want := []token.Issuer{{
			URL: "https://a.example/x", Audiences: []string{"a"}, ScopeClaims: []string{"/groups"}, Leeway: time.Second, // said
			// the preset's
			AudienceClaim: "/client_id", Algorithms: []string{"RS256"},
			RequiredClaims: map[string][]string{"/token_use": {"access"}},
		}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s results in\n %+v\nwant\n %+v", text, got, want)
		}
	}
}

// issuersFile writes a configuration file, or overwrites it.
func issuersFile(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "issuers.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettingsOfAFile(t *testing.T) {
	c := configured()
	c.Issuer, c.Audience = "", ""
	c.File = issuersFile(t,
		"issuers:\n  - {url: https://a.example/, audiences: [a]}\n  - {url: https://b.example/, audiences: [b]}\n")
	s, err := c.settings(prefix, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []token.Issuer{
		{URL: "https://a.example/", Audiences: []string{"a"}},
		{URL: "https://b.example/", Audiences: []string{"b"}},
	}
	if !reflect.DeepEqual(s.server.Issuers, want) {
		t.Errorf("the issuers are\n %+v\nwant\n %+v", s.server.Issuers, want)
	}
	if _, err := token.NewVerifier(t.Context(),
		token.Config{Issuers: s.server.Issuers}); err != nil {
		t.Errorf("token.NewVerifier refuses it: %v", err)
	}
}

// TestShortForm: the environment variables have the same result as a file with one issuer.
func TestShortForm(t *testing.T) {
	short := configured()
	short.Audience, short.Leeway, short.JWKSMaxAge = "a,b", "10s", "5m"
	long := configured()
	long.Issuer, long.Audience = "", ""
	long.File = issuersFile(t, `
issuers:
  - url: https://issuer.example/
    audiences: [a, b]
    algorithms: [RS256, PS256, ES256, EdDSA]
    leeway: 10s
    dpop: off
    keys: {cooldown: 30s, max_age: 5m, max_stale: 24h}
`)
	one, err := short.settings(prefix, true)
	if err != nil {
		t.Fatal(err)
	}
	same, err := long.settings(prefix, true)
	if err != nil {
		t.Fatal(err)
	}
	one.server.Issuers[0].DPoP = token.DPoPOff
	if !reflect.DeepEqual(one.server.Issuers, same.server.Issuers) {
		t.Errorf("the environment results in\n %+v\nthe file\n %+v", one.server.Issuers,
			same.server.Issuers)
	}
}

func TestFileAndShortForm(t *testing.T) {
	c := configured()
	c.File = issuersFile(t, "issuers:\n  - {url: https://a.example/}\n")
	c.Leeway = "1s"
	_, err := c.settings(prefix, true)
	want := `ORDERS_ISSUER is "https://issuer.example/": expected it unset, because ORDERS_CONFIG "` + c.File + `" lists the issuers: set it in that file, or unset ORDERS_CONFIG
ORDERS_AUDIENCE is "https://api.example": expected it unset, because ORDERS_CONFIG "` + c.File + `" lists the issuers: set it in that file, or unset ORDERS_CONFIG
ORDERS_LEEWAY is "1s": expected it unset, because ORDERS_CONFIG "` + c.File + `" lists the issuers: set it in that file, or unset ORDERS_CONFIG
` + c.File + `:2: audiences is not set: expected the identifiers of this API at the issuer, so that tokens for other APIs are refused`
	if err == nil || err.Error() != want {
		t.Errorf("the faults are\n%v\nwant\n%s", err, want)
	}
}

func TestUnreadableFile(t *testing.T) {
	c := configured()
	c.Issuer, c.Audience = "", ""
	c.File = filepath.Join(t.TempDir(), "none.yaml")
	_, err := c.settings(prefix, true)
	if want := `ORDERS_CONFIG is "` + c.File + `": expected a readable file: `; err == nil ||
		!strings.HasPrefix(err.Error(), want) {
		t.Errorf("the fault is\n%v\nwant\n%s…", err, want)
	}
}

// FuzzIssuersFile: every file results in issuers that the verifier accepts, or in faults with their
// locations.
func FuzzIssuersFile(f *testing.F) {
	for _, text := range []string{
		"", "issuers: [{preset: okta, url: https://a.example, audiences: [a], keys: {max_age: 1h}, dpop: off}]",
		"&a issuers: *a", "issuers: &a [*a]", "issuers: [{<<: &a {url: x}, ? [b] : c, !!binary url: !!binary aGk=}]", "a: b\n---\nc", "issuers: !!set {a, b}",
		"issuers:\n- url: http://[::1]/\n  audiences: [a]\n  required_claims: {/a: [b]}\n  leeway: 0s\n  scope_claims: [/s]\n  scope_names: {a: b c}\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		issuers, err := parseIssuers("f.yaml", text)
		if (err == nil) == (issuers == nil) {
			t.Fatalf("both or neither: %v, %v", issuers, err)
		}
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "f.yaml") {
					t.Errorf("a fault does not begin with the file: %q", line)
				}
			}
			return
		}
		seen := map[string]bool{}
		for _, i := range issuers {
			if err := i.Validate(); err != nil || seen[i.URL] {
				t.Errorf("%+v passes here and not there: %v", i, err)
			}
			seen[i.URL] = true
		}
	})
}
