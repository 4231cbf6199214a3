package authztest_test

import (
	"crypto/rsa"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
)

const audience = "https://messages.example/"

// messages is a target of a hand-written server with a flaw, or without.
type messages struct {
	document *openapi3.T
	plan     *authz.Plan
	issuer   *devissuer.Server
	tokens   authztest.Tokens
	keys     map[string]*rsa.PublicKey
}

func newMessages(t *testing.T) messages {
	t.Helper()
	m := messages{document: load(t, "testdata/messages.yaml"), keys: map[string]*rsa.PublicKey{}}
	var err error
	if m.plan, err = authz.Compile(m.document); err != nil {
		t.Fatal(err)
	}
	if m.issuer, err = devissuer.Start(devissuer.Config{Audiences: []string{audience}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.issuer.Close)
	m.tokens = authztest.Issued(m.issuer.Issuer)
	var set struct{ Keys []struct{ Kid, N, E string } }
	if err := json.Unmarshal(m.tokens.KeySet, &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("Issued has no usable key set: %v: %s", err, m.tokens.KeySet)
	}
	for _, key := range set.Keys {
		m.keys[key.Kid] = rsaKey(key.N, key.E)
	}
	return m
}

func load(t *testing.T, name string) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// target is a fresh one: servers with flaws remember.
func (m messages) target(f flaw) authztest.Target {
	s := newServer(m.plan, m.issuer, audience, m.keys, f)
	outage := newServer(m.plan, m.issuer, audience, nil, f)
	return authztest.Target{
		Document: m.document,
		Handler:  s,
		Outage:   outage,
		Tokens:   m.tokens,
		Calls:    func() int { return s.calls + outage.calls },
	}
}

// TestConformance: a server that is right passes, though nothing of it is oasgate's.
func TestConformance(t *testing.T) {
	authztest.Run(t, newMessages(t).target(none))
}

// TestFlaws: each flaw is found by the cases that should find it, and by no other.
func TestFlaws(t *testing.T) {
	const (
		secured    = `(getMe|listMessages|createMessage|deleteMessage/bearer\([a-z:]*\)|deleteMessage)/`
		closed     = `(listMessages|createMessage|deleteMessage/bearer\([a-z:]*\)|deleteMessage)/` // a token is required
		tokenless  = `(no_token|wrong_scheme|invalid_body_without_token|huge_body_without_token)`
		forged     = `(malformed|alg_none|wrong_key|embedded_jwk|hs256_with_public_key|tampered_payload|expired|not_yet_valid|wrong_issuer|wrong_audience|unknown_kid|bound_as_bearer)`
		scopesLack = `(scope_.*|token_of_.*)`
		outage     = `keys_unavailable`
		or         = `|`
	)
	caughtBy := map[flaw]string{
		anyScope:           `createMessage/(scope_.*|token_of_listMessages)`,
		scopePrefix:        closed + `scope_.*_with_suffix`,
		missingIsForbidden: closed + tokenless,
		expiryUnchecked:    secured + `expired`,
		audienceUnchecked:  secured + `wrong_audience`,
		kidIgnored:         secured + `unknown_kid`,
		validatorFirst:     closed + `(invalid|huge)_body_without_token`,
		unguardedRoute:     `listMessages/(` + tokenless + or + forged + or + scopesLack + or + outage + `)`,
		cachedVerdict:      closed + `token_of_.*`,
		failOpen:           secured + outage,

		scopeSuffix:        closed + `scope_.*_with_prefix`,
		scopeCut:           closed + `scope_.*_cut_short`,
		scopeCase:          closed + `scope_.*_in_other_case`,
		noneAccepted:       secured + `alg_none`,
		algorithmOfToken:   secured + `hs256_with_public_key`,
		embeddedKeyTrusted: secured + `embedded_jwk`,
		signatureUnchecked: secured + `(wrong_key|embedded_jwk|tampered_payload)`,
		notBeforeUnchecked: secured + `not_yet_valid`,
		issuerPrefix:       secured + `wrong_issuer`,
		bindingIgnored:     secured + `bound_as_bearer`,
		malformedForgiven:  secured + `malformed`,
		schemeIgnored:      secured + `wrong_scheme`,
		publicRefuses:      `getStatus/bad_token_ignored`,
		publicIsGuarded:    `getStatus/.*`,
		optionalIsRequired: `getMe/(no_token|wrong_scheme)`,
		genuineRefused:     secured + `(exact_scopes|token_of_.*)` + or + closed + scopesLack,
		errorCodeMissing:   secured + forged + or + closed + scopesLack,
		errorCodeAlways:    closed + tokenless,
		scopesUnnamed:      closed + scopesLack,
		htmlErrors:         secured + `(` + forged + or + outage + `)` + or + closed + `(` + tokenless + or + scopesLack + `)`,
		cacheable:          secured + forged + or + closed + `(` + tokenless + or + scopesLack + `)`,
		tokenRepeated:      secured + `(` + forged + or + outage + `)` + or + closed + `(wrong_scheme|` + scopesLack + `)`,
		outageIsInvalid:    secured + outage,
	}
	m := newMessages(t)
	caught := map[string]bool{}
	for _, f := range slices.Sorted(maps.Keys(caughtBy)) {
		t.Run(string(f), func(t *testing.T) {
			report, err := authztest.Check(t.Context(), m.target(f))
			if err != nil {
				t.Fatal(err)
			}
			should := regexp.MustCompile(`^(` + caughtBy[f] + `)$`)
			for _, result := range report.Results {
				name, found := result.Case.Name, len(result.Faults) > 0
				if result.Skipped != "" {
					t.Errorf("%s was skipped (%s): the target gives the kit everything", name, result.Skipped)
				}
				if found {
					caught[name] = true
				}
				switch {
				case should.MatchString(name) && !found:
					t.Errorf("%s passed: it should find that %s", name, f)
				case !should.MatchString(name) && found:
					t.Errorf("%s failed, though it is not about that: %s", name, strings.Join(result.Faults, "; "))
				}
			}
		})
	}
	for _, c := range authztest.Cases(m.plan) {
		if !caught[c.Name] {
			t.Errorf("%s passes whatever the flaw: is it able to fail?", c.Name)
		}
	}
}
