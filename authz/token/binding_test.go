package token_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/token"
)

// TestCertificateBinding: RFC 8705 §3, with and without DPoP.
func TestCertificateBinding(t *testing.T) {
	mine := must(x509.ParseCertificate(certificateOf(t)))
	other := must(x509.ParseCertificate(certificateOf(t)))
	other.Raw = append([]byte{}, other.Raw...)
	other.Raw[len(other.Raw)-1] ^= 1
	sum := sha256.Sum256(mine.Raw)
	x5t := `"x5t#S256":` + strconv.Quote(segment(sum[:]))
	jkt := `"jkt":` + strconv.Quote(thumbprintOf(p256Key()))
	const pass = token.Code("")
	for _, test := range []struct {
		policy      token.MTLSPolicy
		cnf         string
		certificate *x509.Certificate
		bearer      token.Code
		proven      token.Code
	}{
		{token.MTLSOff, "{" + x5t + "}", mine, token.Bound, token.Bound},
		{token.MTLSOff, "", mine, pass, token.WrongScheme},
		{token.MTLSAllowed, "", nil, pass, token.WrongScheme},
		{token.MTLSAllowed, "", mine, pass, token.WrongScheme},
		{token.MTLSAllowed, "{" + x5t + "}", mine, pass, token.WrongScheme},
		{token.MTLSAllowed, "{" + x5t + "}", nil, token.Bound, token.Bound},
		{token.MTLSAllowed, "{" + x5t + "}", other, token.Bound, token.Bound},
		{token.MTLSAllowed, "{" + x5t + `,"other":1}`, mine, pass, token.WrongScheme},
		{token.MTLSAllowed, `{"x5t#S256":""}`, mine, token.Bound, token.WrongScheme},
		{token.MTLSAllowed, `{"x5t#S256":["` + segment(sum[:]) + `"]}`, mine, token.Bound, token.WrongScheme},
		{token.MTLSAllowed, `{"x5t":"` + segment(sum[:]) + `"}`, mine, token.Bound, token.WrongScheme},
		{token.MTLSAllowed, "{" + jkt + "," + x5t + "}", mine, token.Bound, pass}, // both are required
		{token.MTLSAllowed, "{" + jkt + "," + x5t + "}", nil, token.Bound, token.Bound},
		{token.MTLSAllowed, "{" + jkt + "," + x5t + "}", other, token.Bound, token.Bound},
		{token.MTLSAllowed, "{" + x5t + `,"jkt":1}`, mine, token.Bound, token.WrongScheme},
		{token.MTLSAllowed, "{" + jkt + "}", mine, token.Bound, pass},
		{token.MTLSRequired, "", mine, token.WrongScheme, token.WrongScheme},
		{token.MTLSRequired, "{" + jkt + "}", mine, token.Bound, token.WrongScheme},
		{token.MTLSRequired, "{" + x5t + "}", mine, pass, token.WrongScheme},
	} {
		t.Run(fmt.Sprintf("%s, cnf %s, certificate %v", test.policy, test.cnf,
			test.certificate != nil), func(t *testing.T) {
			s := newDPoPScene(t)
			s.policy.DPoP, s.policy.MTLS = token.DPoPAllowed, test.policy
			tok := s.genuine("cnf", test.cnf)
			v := s.verifier(t)
			for range 2 { // the second time from the cache
				proof := of(s.proof(t, p256Key(), tok, "jti", strconv.Quote(rand.Text())))
				for _, row := range []struct {
					presented token.Presented
					code      token.Code
				}{
					{token.Presented{Token: tok, Certificate: test.certificate}, test.bearer},
					{token.Presented{Token: tok, Certificate: test.certificate, Proof: &proof}, test.proven},
				} {
					p, err := v.VerifyPresented(t.Context(), row.presented)
					if got := codeOf(err); got != row.code || (p != nil) != (row.code == pass) {
						t.Errorf("with a proof %v: %v, want %q", row.presented.Proof != nil,
							err, row.code)
					}
				}
			}
		})
	}
}

func codeOf(err error) token.Code {
	if e, ok := err.(*token.Error); ok {
		return e.Code
	}
	return ""
}

// TestProofKeysAreCheap: the client chooses the key of a proof, and so what it costs.
func TestProofKeysAreCheap(t *testing.T) {
	s := newDPoPScene(t)
	s.policy.DPoP = token.DPoPAllowed
	v := s.verifier(t)
	tok := s.genuine("cnf", `{"jkt":"x"}`)
	for _, test := range []struct {
		bits, e int
		says    string
	}{
		{4096, 65537, "bound to a key (cnf.jkt) other than"},
		{4104, 65537, "RSA key of 4104 bits with exponent 65537, expected at most 4096 bits"},
		{8192, 65537, "RSA key of 8192 bits"},
		{2048, 3, "exponent 3"},
		{2048, 1<<31 - 1, "exponent 2147483647"},
		{2048, 65539, "exponent 65539"},
	} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(test.bits-1))
		public := &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: test.e}
		header := object([]string{"typ", `"dpop+jwt"`, "alg", `"RS256"`, "jwk", jwk(public)}, nil)
		proof := segment(header) + "." + segment(s.proofClaims(tok)) + "." +
			segment(make([]byte, 512))
		_, err := v.VerifyDPoP(t.Context(), tok, of(proof))
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%d bits, exponent %d: %v, want %q", test.bits, test.e, err, test.says)
		}
	}
}
