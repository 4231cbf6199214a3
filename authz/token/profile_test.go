package token_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// TestFAPI2: the FAPI 2.0 Security Profile (§5.3.4, §5.4.1), for tokens with and without a proof.
func TestFAPI2(t *testing.T) {
	at := now.Unix()
	in := func(seconds int64) string { return strconv.FormatInt(at+seconds, 10) }
	bound := `{"jkt":"` + thumbprintOf(p256Key()) + `"}`
	const pass = token.Code("")
	for _, test := range []struct {
		name   string
		change []string
		proven token.Code
		bearer token.Code
	}{
		{"bound", []string{"cnf", bound}, pass, token.Bound},
		{"not bound", nil, token.WrongScheme, token.WrongScheme},
		{"without iat", []string{"cnf", bound, "iat", ""}, token.Malformed, token.Malformed},
		{"of five minutes", []string{"cnf", bound, "iat", in(-200), "exp", in(100)}, pass, token.Bound},
		{"of more than five minutes", []string{"cnf", bound, "iat", in(-300), "exp", in(100)}, token.TooLongLived, token.TooLongLived},
		{"with an iat 9 s ahead", []string{"cnf", bound, "iat", in(9), "exp", in(200)}, pass, token.Bound},
		{"with an iat 11 s ahead", []string{"cnf", bound, "iat", in(11), "exp", in(200)}, token.NotYetValid, token.NotYetValid},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newDPoPScene(t)
			s.policy.FAPI2 = true
			v := s.verifier(t)
			tok := s.genuine(test.change...)
			if _, err := v.VerifyDPoP(t.Context(), tok, of(s.proof(t, p256Key(), tok))); codeOf(
				err,
			) != test.proven {
				t.Errorf("with a proof: %v, want %q", err, test.proven)
			}
			refused(t, v, tok, test.bearer)
		})
	}

	s := newDPoPScene(t)
	s.policy.FAPI2 = true
	v := s.verifier(t)
	tok := s.genuine("cnf", `{"jkt":"`+thumbprintOf(rsaKey())+`"}`)
	header := object(
		[]string{"typ", `"dpop+jwt"`, "alg", `"RS256"`, "jwk", jwk(rsaKey().Public())},
		nil,
	)
	proof := sign(t, "RS256", rsaKey(), header, s.proofClaims(tok))
	if _, err := v.VerifyDPoP(t.Context(), tok, of(proof)); codeOf(err) != token.InvalidProof {
		t.Errorf("a proof by RS256: %v", err)
	}
	if got := strings.Join(v.DPoP().Algorithms, " "); got != "ES256 EdDSA PS256" ||
		!v.DPoP().Required {
		t.Errorf("the offer is %+v", v.DPoP())
	}

	introspected := newDPoPScene(t)
	endpoint := introspected.introspected(t)
	introspected.policy.FAPI2 = true
	introspected.policy.Introspection.Always = true
	long := introspected.genuine("cnf", bound, "exp", in(3600))
	endpoint.set(long, `{"active":true}`)
	v = introspected.verifier(t)
	if _, err := v.VerifyDPoP(t.Context(), long,
		of(introspected.proof(t, p256Key(), long))); err != nil {
		t.Errorf("a long lived token that the issuer answers for: %v", err)
	}
}

func TestFAPI2Faults(t *testing.T) {
	for _, test := range []struct {
		change func(*token.Issuer)
		says   string // "": no fault
	}{
		{func(i *token.Issuer) { i.DPoP = token.DPoPAllowed }, ""},
		{func(i *token.Issuer) { i.MTLS = token.MTLSAllowed }, ""},
		{func(i *token.Issuer) { i.DPoP, i.MTLS = token.DPoPAllowed, token.MTLSAllowed }, ""},
		{func(i *token.Issuer) { i.DPoP, i.Algorithms = token.DPoPAllowed, []string{"PS256", "Ed25519"} }, ""},
		{func(*token.Issuer) {}, "DPoP and MTLS are both off"},
		{func(i *token.Issuer) { i.DPoP, i.Algorithms = token.DPoPAllowed, []string{"RS256"} }, `algorithm "RS256"`},
		{func(i *token.Issuer) { i.DPoP, i.Leeway = token.DPoPAllowed, token.NoLeeway }, "leeway is 0s: expected 10s to 1m0s"},
		{func(i *token.Issuer) { i.DPoP, i.MaxLifetime = token.DPoPAllowed, time.Hour }, "maximum lifetime is 1h0m0s: expected at most 5m0s"},
		{func(i *token.Issuer) {
			i.DPoP, i.MaxLifetime = token.DPoPAllowed, time.Hour
			i.Introspection = token.Introspection{ClientID: "a", ClientSecret: "b", Always: true}
		}, ""},
	} {
		i := token.Issuer{URL: issuerURL, Audiences: []string{audience}, FAPI2: true}
		test.change(&i)
		err := i.Validate()
		if (err == nil) != (test.says == "") ||
			err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v, want %q", err, test.says)
		}
	}
}
