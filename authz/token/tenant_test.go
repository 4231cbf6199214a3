package token_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/token"
)

const (
	tenantA = "11111111-1111-1111-1111-111111111111"
	tenantB = "22222222-2222-2222-2222-222222222222"
	entra   = "https://login.microsoftonline.com/{tenantid}/v2.0"
)

// entraHosts serves metadata and keys like Entra ID: keys for all tenants, one for personal
// accounts only, and keys by tenant.
func entraHosts() map[string]http.Handler {
	mux := http.NewServeMux()
	issuerOf := func(tenant string) string {
		return strings.ReplaceAll(entra, "{tenantid}", tenant)
	}
	mux.HandleFunc("/{tenant}/v2.0/.well-known/openid-configuration",
		func(w http.ResponseWriter, r *http.Request) {
			tenant := r.PathValue("tenant")
			issuer := issuerOf(tenant)
			if tenant == "common" {
				issuer = entra
			}
			serveJSON(fmt.Sprintf(`{"issuer":%q,"jwks_uri":"https://login.microsoftonline.com/%s/discovery/v2.0/keys"}`, issuer, tenant)).ServeHTTP(w, r)
		})
	mux.HandleFunc("/{tenant}/discovery/v2.0/keys", func(w http.ResponseWriter, r *http.Request) {
		serveJSON(`{"keys":[`+jwk(ed25519Key().Public(), "kid", `"k"`, "issuer",
			strconv.Quote(entra))+`,`+
			jwk(stranger.Public(), "kid", `"personal"`, "issuer",
				strconv.Quote(issuerOf("9188040d-6c67-4c5b-b112-36a304b66dad")))+`]}`).ServeHTTP(w,
			r)
	})
	return map[string]http.Handler{"login.microsoftonline.com": mux}
}

func TestTenants(t *testing.T) {
	const common = "https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration"
	listed := func(i *token.Issuer) { i.Tenants = []string{tenantA} }
	shared := func(i *token.Issuer) { i.Tenants, i.DiscoveryURL = []string{tenantA}, common }
	anyone := func(i *token.Issuer) { i.InsecureAnyTenant, i.DiscoveryURL = true, common }
	iss := func(tenant string) string { return strings.ReplaceAll(entra, "{tenantid}", tenant) }
	for _, test := range []struct {
		name     string
		policy   func(*token.Issuer)
		iss, tid string // tid as JSON; "": absent
		personal bool   // signed with the key for personal accounts
		code     token.Code
	}{
		{name: "keys of the tenant", policy: listed, iss: iss(tenantA), tid: strconv.Quote(tenantA)},
		{name: "keys of all", policy: shared, iss: iss(tenantA), tid: strconv.Quote(tenantA)},
		{name: "any tenant", policy: anyone, iss: iss(tenantB), tid: strconv.Quote(tenantB)},
		{name: "not on the list", policy: listed, iss: iss(tenantB), tid: strconv.Quote(tenantB), code: token.WrongIssuer},
		{name: "not on the list, keys of all", policy: shared, iss: iss(tenantB), tid: strconv.Quote(tenantB), code: token.WrongIssuer},
		{name: "tid of another", policy: shared, iss: iss(tenantA), tid: strconv.Quote(tenantB), code: token.WrongIssuer},
		{name: "tid of another, any tenant", policy: anyone, iss: iss(tenantA), tid: strconv.Quote(tenantB), code: token.WrongIssuer},
		{name: "tid in other case", policy: anyone, iss: iss("aaaa"), tid: `"AAAA"`, code: token.WrongIssuer},
		{name: "tid absent", policy: shared, iss: iss(tenantA), code: token.WrongIssuer},
		{name: "tid no string", policy: anyone, iss: iss(tenantA), tid: `["` + tenantA + `"]`, code: token.WrongIssuer},
		{name: "the template itself", policy: anyone, iss: entra, tid: `"{tenantid}"`, code: token.WrongIssuer},
		{name: "a tenant with a slash", policy: anyone, iss: iss("a/b"), tid: `"a/b"`, code: token.WrongIssuer},
		{name: "a tenant that leads elsewhere", policy: anyone, iss: iss(".."), tid: `".."`, code: token.WrongIssuer},
		{name: "an empty tenant", policy: anyone, iss: iss(""), tid: `""`, code: token.WrongIssuer},
		{name: "another version", policy: anyone, iss: "https://login.microsoftonline.com/" + tenantA + "/v1.0", tid: strconv.Quote(tenantA), code: token.WrongIssuer},
		{name: "a key that is not for this tenant", policy: shared, iss: iss(tenantA), tid: strconv.Quote(tenantA), personal: true, code: token.UnknownKey},
		{name: "a key that is for this tenant alone", policy: anyone, iss: iss("9188040d-6c67-4c5b-b112-36a304b66dad"), tid: `"9188040d-6c67-4c5b-b112-36a304b66dad"`, personal: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.wire.hosts = entraHosts()
			s.policy.URL = entra
			test.policy(&s.policy)
			v := s.verifier(t)
			signer, kid := ed25519Key(), `"k"`
			if test.personal {
				signer, kid = stranger, `"personal"`
			}
			tok := sign(t, "EdDSA", signer, s.header("kid", kid),
				s.claims("iss", strconv.Quote(test.iss), "tid", test.tid))
			for range 2 {
				if test.code != "" {
					refused(t, v, tok, test.code)
				} else if p := accepted(t, v, tok); p.Issuer() != test.iss {
					t.Errorf("the issuer is %q, want %q", p.Issuer(), test.iss)
				}
			}
			if test.code == token.WrongIssuer && len(s.wire.requests()) > 0 {
				t.Errorf("%q were requested for a token that can be refused without keys",
					s.wire.requests())
			}
		})
	}
}

// TestProviderShapes: tokens as providers write them, whose issuers or claims are not as elsewhere.
func TestProviderShapes(t *testing.T) {
	key := jwk(ed25519Key().Public(), "kid", `"k"`)
	for _, test := range []struct {
		name   string
		policy token.Issuer
		claims []string
		scopes []string
		client string
	}{
		{"Azure AD B2C: the policy in the metadata's place, not in iss",
			token.Issuer{URL: "https://t.b2clogin.com/" + tenantA + "/v2.0/", Audiences: []string{audience}, ScopeClaims: []string{"/scp"},
				DiscoveryURL: "https://t.b2clogin.com/t.onmicrosoft.com/B2C_1_signin/v2.0/.well-known/openid-configuration"},
			[]string{"tfp", `"B2C_1_signin"`, "scp", `"read"`, "client_id", "", "azp", `"app"`,
				"ver", `"1.0"`}, []string{"read"}, "app"},
		{"Entra v1",
			token.Issuer{URL: "https://sts.windows.net/{tenantid}/", Tenants: []string{tenantA}, Audiences: []string{audience},
				ScopeClaims: []string{"/scp", "/roles"}, ClientClaim: "/appid"},
			[]string{"tid", strconv.Quote(tenantA), "scp", `"read write"`, "roles", `["admin"]`,
				"client_id", "", "appid", `"app"`, "ver", `"1.0"`},
			[]string{"read", "write", "admin"}, "app"},
		{"Keycloak 25 without sub",
			token.Issuer{URL: "https://keycloak.example/realms/x", Audiences: []string{audience}, SubjectOptional: true, ClientClaim: "/azp",
				ScopeClaims: []string{"/realm_access/roles"}},
			[]string{"sub", "", "azp", `"app"`, "realm_access", `{"roles":["admin"]}`},
			[]string{"admin"}, "app"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			test.policy.Algorithms = []string{"EdDSA"}
			s.policy = test.policy
			iss := strings.ReplaceAll(test.policy.URL, "{tenantid}", tenantA)
			answer := serveJSON(fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"keys":[%s]}`, iss,
				iss+"keys", key))
			host := strings.Split(iss, "/")[2]
			s.wire.hosts = map[string]http.Handler{host: answer}
			p := accepted(t, s.verifier(t), sign(t, "EdDSA", ed25519Key(), s.header("kid", `"k"`),
				s.claims(append([]string{"iss", strconv.Quote(iss), "scope", ""},
					test.claims...)...)))
			if !slices.Equal(p.Scopes(), test.scopes) || p.ClientID() != test.client {
				t.Errorf("scopes are %q, the client %q, want %q and %q", p.Scopes(),
					p.ClientID(), test.scopes, test.client)
			}
		})
	}
}

func TestSubjectOptional(t *testing.T) {
	s := newScene(t)
	s.policy.SubjectOptional = true
	v := s.verifier(t)
	if p := accepted(t, v, s.genuine("sub", "")); p.Subject() != "" {
		t.Errorf("the subject is %q", p.Subject())
	}
	refused(t, v, s.genuine("sub", `""`), token.Malformed)
	refused(t, v, s.genuine("sub", "null"), token.Malformed)
}

// TestMistypedScopeClaims: /scope is a string by RFC 8693; claims for roles can have any type.
func TestMistypedScopeClaims(t *testing.T) {
	for _, value := range []string{"true", "1", "{}", "null", `["admin",1]`, `["a","b",null]`} {
		s := newScene(t)
		s.policy.ScopeClaims = []string{"/scope", "/admin"}
		p := accepted(t, s.verifier(t), s.genuine("admin", value))
		if !slices.Equal(p.Scopes(), strings.Fields(scope)) {
			t.Errorf("%s: scopes are %q, want those of /scope alone", value, p.Scopes())
		}
		refused(t, s.verifier(t), s.genuine("scope", value), token.Malformed)
		s.policy.StrictScopeClaims = true
		refused(t, s.verifier(t), s.genuine("admin", value), token.Malformed)
	}
	// A claim of the wrong type grants nothing. Other claims still grant their scopes.
	s := newScene(t)
	s.policy.ScopeClaims = []string{"/roles", "/more"}
	many := `["` +
		strings.Join(strings.Split(strings.Repeat("r ", 1)+"a b c d e f g h i j k l m n o p q s",
			" "), `","`) + `",1]`
	if p := accepted(t, s.verifier(t), s.genuine("roles", many, "more",
		`["a","z"]`)); !slices.Equal(p.Scopes(), []string{"a", "z"}) {
		t.Errorf("scopes are %q, want a and z", p.Scopes())
	}
}

func TestActor(t *testing.T) {
	p := principalOf(t, "act", `{"sub":"agent","iss":"https://a.example","client_id":"app","act":{"sub":"earlier"}}`)
	if actor, ok := p.Actor(); !ok || actor != (token.Actor{Issuer: "https://a.example", Subject: "agent", ClientID: "app"}) {
		t.Errorf("the actor is %+v, %v", actor, ok)
	}
	if actor, ok := principalOf(t).Actor(); ok {
		t.Errorf("the actor is %+v, and there is none", actor)
	}
	if actor, ok := principalOf(t, "act", `{"sub":1}`).Actor(); !ok || actor != (token.Actor{}) {
		t.Errorf("the actor is %+v, %v, want one that is not named", actor, ok)
	}
	s := newScene(t)
	for _, act := range []string{`"agent"`, "null", "[]"} {
		refused(t, s.verifier(t), s.genuine("act", act), token.Malformed, "act is not an object")
	}
}
