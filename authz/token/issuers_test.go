package token_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// Issuers have different claims for the audience, the client and the scopes.

func TestIssuerClaims(t *testing.T) {
	s := newScene(t)
	audienceOf := func(pointer string, audiences ...string) func(*token.Issuer) {
		return func(i *token.Issuer) { i.AudienceClaim, i.Audiences = pointer, audiences }
	}
	required := func(claims map[string][]string) func(*token.Issuer) {
		return func(i *token.Issuer) { i.RequiredClaims = claims }
	}
	access := required(map[string][]string{"/token_use": {"access"}})
	kinds := required(map[string][]string{"/typ": {"Bearer", "DPoP"}})
	org := required(map[string][]string{"/org/id": {"o-7"}, "/token_use": {"access"}})
	check(t, s, []row{
		{name: "audience in client_id", policy: audienceOf("/client_id", "reader"), claims: []string{"aud", ""}},
		{name: "audience in client_id, another", policy: audienceOf("/client_id", "writer"), claims: []string{"aud", ""},
			code: token.WrongAudience,
			says: []string{`audience (/client_id) is "reader", expected "writer"`}},
		{name: "audience in client_id, absent", policy: audienceOf("/client_id", "reader"), claims: []string{"client_id", ""},
			code: token.WrongAudience,
			says: []string{`audience (/client_id) is absent, expected "reader"`}},
		{name: "audience in client_id, aud does not stand in for it", policy: audienceOf("/client_id", audience), code: token.WrongAudience},
		{name: "audience nested, an array", policy: audienceOf("/for/apis", audience), claims: []string{"aud", "", "for", `{"apis":["x",` + strconv.Quote(audience) + `]}`}},
		{name: "audience nested, of the wrong type", policy: audienceOf("/for/apis", audience), claims: []string{"for", `{"apis":{"` + canary + `":1}}`}, code: token.Malformed, says: []string{"/for/apis is neither"}},
		{name: "aud is checked for its type all the same", policy: audienceOf("/client_id", "reader"), claims: []string{"aud", "7"}, code: token.Malformed, says: []string{"aud is neither"}},

		{name: "required, there", policy: access, claims: []string{"token_use", `"access"`}},
		{name: "required, absent", policy: access, code: token.WrongClaim, says: []string{"claim /token_use is absent, expected access"}},
		{name: "required, another", policy: access, claims: []string{"token_use", `"id"`}, code: token.WrongClaim, says: []string{`claim /token_use is "id", expected access`}},
		{name: "required, in other case", policy: access, claims: []string{"token_use", `"Access"`}, code: token.WrongClaim},
		{name: "required, empty", policy: access, claims: []string{"token_use", `""`}, code: token.WrongClaim},
		{name: "required, an array of it", policy: access, claims: []string{"token_use", `["access"]`}, code: token.WrongClaim, says: []string{"/token_use is not a string, expected access"}},
		{name: "required, null", policy: access, claims: []string{"token_use", "null"}, code: token.WrongClaim, says: []string{"/token_use is not a string"}},
		{name: "required, the second of those accepted", policy: kinds, claims: []string{"typ", `"DPoP"`}},
		{name: "required, none of those accepted", policy: kinds, claims: []string{"typ", `"ID"`}, code: token.WrongClaim, says: []string{`claim /typ is "ID", expected Bearer or DPoP`}},
		{name: "required, both there", policy: org, claims: []string{"token_use", `"access"`, "org", `{"id":"o-7"}`}},
		{name: "required, one of both", policy: org, claims: []string{"token_use", `"access"`, "org", `{"id":"o-8"}`}, code: token.WrongClaim, says: []string{"claim /org/id"}},
	})

	for _, test := range []struct {
		name, pointer string
		claims        []string
		want          string
		says          string // of the refusal
	}{
		{name: "by default client_id", claims: []string{"azp", `"a"`}, want: "reader"},
		{name: "or azp", claims: []string{"client_id", "", "azp", `"a"`}, want: "a"},
		{name: "configured", pointer: "/cid", claims: []string{"cid", `"c"`}, want: "c"},
		{name: "configured, absent: none", pointer: "/cid", want: ""},
		{name: "configured, of the wrong type", pointer: "/cid", claims: []string{"cid", "1"}, says: "claims: /cid is not a string"},
		{name: "configured, nested", pointer: "/act/client", claims: []string{"act", `{"client":"c"}`}, want: "c"},
	} {
		t.Run("client: "+test.name, func(t *testing.T) {
			s := *s
			s.policy.ClientClaim = test.pointer
			if test.says != "" {
				refused(t, s.verifier(t), s.genuine(test.claims...), token.Malformed, test.says)
			} else if got := accepted(t, s.verifier(t),
				s.genuine(test.claims...)).ClientID(); got != test.want {
				t.Errorf("the client is %q, want %q", got, test.want)
			}
		})
	}
}

// TestIssuerScopes: prefix, then names, then what the issuer may grant.
func TestIssuerScopes(t *testing.T) {
	names := map[string]string{"admin": "read:messages write:messages", "reader": "read:messages",
		"old": "new"}
	for _, test := range []struct {
		name      string
		scope     string
		prefix    string
		names     map[string]string
		grantable []string
		want      []string
	}{
		{"prefix", `"api/a api/b other/c d"`, "api/", nil, nil, []string{"a", "b"}},
		{"prefix alone names nothing", `"api/ api/a"`, "api/", nil, nil, []string{"a"}},
		{"prefix is cut once", `"api/api/a"`, "api/", nil, nil, []string{"api/a"}},
		{"prefix in other case", `"API/a"`, "api/", nil, nil, nil},
		{"prefix in an array", `["api/a","api/b c"]`, "api/", nil, nil, []string{"a", "b c"}},
		{"names", `"reader x"`, "", names, nil, []string{"read:messages", "x"}},
		{"a name for several", `"admin"`, "", names, nil, []string{"read:messages", "write:messages"}},
		{"names that say the same", `"reader admin read:messages"`, "", names, nil, []string{"read:messages", "write:messages"}},
		{"the old name is gone", `"old"`, "", names, nil, []string{"new"}},
		{"names are exact", `"Admin admins adm"`, "", names, nil, []string{"Admin", "admins", "adm"}},
		{"no name is renamed twice", `"a"`, "", map[string]string{"a": "b", "b": "c"}, nil, []string{"b"}},
		{"names after the prefix", `"api/admin admin"`, "api/", names, nil, []string{"read:messages", "write:messages"}},
		{"grantable", `"a b c"`, "", nil, []string{"b", "x"}, []string{"b"}},
		{"grantable, none", `"a b"`, "", nil, []string{}, nil},
		{"grantable by the name that it has here", `"admin write:messages"`, "", names, []string{"read:messages"}, []string{"read:messages"}},
		{"not grantable by the name that it has there", `"admin"`, "", names, []string{"admin"}, nil},
		{"grantable after the prefix", `"api/a a api/b"`, "api/", nil, []string{"a", "api/b"}, []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.policy.ScopePrefix, s.policy.ScopeNames, s.policy.GrantableScopes = test.prefix,
				test.names, test.grantable
			p := accepted(t, s.verifier(t), s.genuine("scope", test.scope))
			if got := p.Scopes(); !slices.Equal(got, test.want) {
				t.Errorf("scopes are %q, want %q", got, test.want)
			}
		})
	}
}

func TestIssuerConfigFaults(t *testing.T) {
	for says, change := range map[string]func(*token.Issuer){
		`audience claim "aud": expected a JSON pointer`:                func(i *token.Issuer) { i.AudienceClaim = "aud" },
		`audience claim "/client_id": the strict profile requires aud`: func(i *token.Issuer) { i.AudienceClaim, i.RFC9068 = "/client_id", true },
		`client claim "azp": expected a JSON pointer`:                  func(i *token.Issuer) { i.ClientClaim = "azp" },
		`required claim "typ": expected a JSON pointer`:                func(i *token.Issuer) { i.RequiredClaims = map[string][]string{"typ": {"a"}} },
		`required claim "/typ": no value is given`:                     func(i *token.Issuer) { i.RequiredClaims = map[string][]string{"/typ": {}} },
		`scope name "" stands for "a"`:                                 func(i *token.Issuer) { i.ScopeNames = map[string]string{"": "a"} },
		`scope name "a" stands for ""`:                                 func(i *token.Issuer) { i.ScopeNames = map[string]string{"a": ""} },
		`scope name "a" stands for "b  c"`:                             func(i *token.Issuer) { i.ScopeNames = map[string]string{"a": "b  c"} },
		`grantable scope "a b": expected one scope, without spaces`:    func(i *token.Issuer) { i.GrantableScopes = []string{"a b"} },
		`grantable scope "": expected one scope, without spaces`:       func(i *token.Issuer) { i.GrantableScopes = []string{""} },
	} {
		s := newScene(t)
		change(&s.policy)
		if _, err := token.NewVerifier(t.Context(), s.config(s.policy)); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("NewVerifier says %v, want %q", err, says)
		}
	}
}

// TestPredecessor: a new verifier has the keys of the old one, and nothing else.
func TestPredecessor(t *testing.T) {
	bubble(t, func(t *testing.T, s *scene) {
		before := s.verifier(t)
		exp := strconv.FormatInt(time.Now().Unix()+3600, 10)
		tok := s.genuine("exp", exp)
		accepted(t, before, tok)
		successor := func(change func(*token.Issuer)) *token.Verifier {
			policy := s.policy
			change(&policy)
			config := s.config(policy)
			config.Predecessor = before
			v, err := token.NewVerifier(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		same := func(*token.Issuer) {}

		atOnce(t, func() { accepted(t, successor(same), tok) })
		s.fetches(t, 1, "the successor refreshes when its predecessor would have")

		s.Fail(devissuer.Fault{Down: true})
		v := successor(same)
		atOnce(t, func() { accepted(t, v, tok) })
		accepted(t, v, s.genuine())
		if err := v.Ready(t.Context()); err != nil {
			t.Errorf("Ready says %v: the keys were taken over", err)
		}
		refused(t, successor(func(i *token.Issuer) {
			i.Audiences = []string{"urn:other"}
		}), tok, token.WrongAudience)
		refused(t, successor(func(i *token.Issuer) {
			i.Algorithms = []string{"RS256"}
		}), tok, token.WrongAlgorithm)
		refused(t, successor(func(i *token.Issuer) { i.URL = "https://localhost:9443/" }), tok, token.WrongIssuer)

		time.Sleep(24*time.Hour - time.Second)
		accepted(t, v, s.genuine())
		time.Sleep(time.Second)
		refused(t, v, s.genuine(), token.KeysUnavailable) // the age of the keys is not reset
		synctest.Wait()
	})
	bubble(t, func(t *testing.T, s *scene) { // a new key, or a removed one
		before := s.verifier(t)
		old := s.genuine("exp", strconv.FormatInt(time.Now().Unix()+7200, 10))
		accepted(t, before, old)
		kid, _ := s.CurrentKey()
		s.Rotate("")
		config := s.config(s.policy)
		config.Predecessor = before
		v, err := token.NewVerifier(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		accepted(t, v, s.genuine())
		accepted(t, v, old)
		s.RemoveKey(kid)
		config.Predecessor = v
		if v, err = token.NewVerifier(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		exp := strconv.FormatInt(time.Now().Unix()+7200, 10)
		later := s.genuine("exp", exp)
		time.Sleep(time.Hour) // the next refresh
		synctest.Wait()
		refused(t, v, old, token.UnknownKey)
		accepted(t, v, later)
	})
	bubble(t, func(t *testing.T, s *scene) {
		// a key that came later, though the predecessor fetched more often
		before := s.verifier(t)
		for range 3 {
			accepted(t, before, s.genuine())
			s.Rotate("")
			time.Sleep(time.Minute)
		}
		s.Fail(devissuer.Fault{Down: true})
		config := s.config(s.policy)
		config.Predecessor = before
		v, err := token.NewVerifier(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // the refresh at once fails, the next is later
		s.Fail(devissuer.Fault{})
		atOnce(t, func() { accepted(t, v, s.genuine()) })
	})
	bubble(t, func(t *testing.T, s *scene) { // of a predecessor that never had any
		s.Fail(devissuer.Fault{Down: true})
		config := s.config(s.policy)
		config.Predecessor = s.verifier(t)
		v, err := token.NewVerifier(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		s.fetches(t, 0, "there is nothing to refresh")
		refused(t, v, s.genuine(), token.KeysUnavailable)
	})
}
