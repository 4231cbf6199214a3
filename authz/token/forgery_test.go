package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/oasgate/oasgate/authz/token"
)

// These are tokens that somebody accepted once.

// TestForgeryJSONSerialization: a genuine token of another issuer in JSON serialization (RFC 7515
// §7.2), with other claims next to it. jwt.Parse of jwx verifies the signature of the former and
// returns the latter.
func TestForgeryJSONSerialization(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	_, key := s.CurrentKey()
	elsewhere := s.genuine("aud", `"urn:somewhere-else"`, "sub", `"attacker"`, "scope", `""`)
	refused(t, v, elsewhere, token.WrongAudience)
	parts := strings.Split(elsewhere, ".")

	wanted := s.claims("sub", `"administrator"`, "scope", `"admin"`)
	for name, serialized := range map[string]string{
		"flattened": `"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"`,
		"general":   `"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			forged := "{" + serialized + "," + strings.TrimPrefix(wanted, "{")

			believed, err := jwt.Parse([]byte(forged), jwt.WithKey(jwa.EdDSA, key.Public()),
				jwt.WithValidate(false))
			if err != nil || believed.Subject() != "administrator" ||
				!slices.Contains(believed.Audience(), audience) {
				t.Fatalf("jwx does not accept the forgery (%v, %v): this test no longer tests "+
					"what it says", believed, err)
			}
			refused(t, v, forged, token.Malformed)
			refused(t, v, segment(forged), token.Malformed, "no dots")
			// the same as claims
			refused(t, v, parts[0]+"."+segment(forged)+"."+parts[2], token.BadSignature)
			refused(t, v, parts[0]+"."+segment(`{`+serialized+`}`)+"."+parts[2], token.WrongIssuer)
		})
	}
}

func TestForgeryAlgNone(t *testing.T) {
	s := newScene(t)
	s.policy.Algorithms = nil // the default
	v := s.verifier(t)
	for _, none := range []string{"none", "None", "nonE", "NONE", ""} {
		for _, header := range []string{
			`{"alg":"` + none + `"}`, `{"alg":"` + none + `","typ":"JWT"}`, `{"alg":"EdDSA","Alg":"` + none + `"}`,
		} {
			unsigned := segment(header) + "." + segment(s.claims()) + "."
			refused(t, v, unsigned, token.Malformed, "signature segment is empty")
			if !strings.Contains(header, "EdDSA") {
				refused(t, v, unsigned+"AA", token.WrongAlgorithm)
			} else {
				refused(t, v, unsigned+"AA", token.BadSignature)
			}
		}
	}
}

// TestForgeryPublicKeyAsSecret: HS256 with the public key as its secret. The issuer's set has a key
// for it, too.
func TestForgeryPublicKeyAsSecret(t *testing.T) {
	pub := &rsaKey().PublicKey
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for name, secret := range map[string][]byte{
		"PEM":                      asPEM,
		"PEM, without line break":  []byte(strings.TrimSpace(string(asPEM))),
		"PEM of PKCS #1":           pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(pub)}),
		"DER":                      der,
		"modulus":                  pub.N.Bytes(),
		"modulus, encoded":         []byte(segment(pub.N.Bytes())),
		"JWK":                      []byte(jwk(pub, "kid", `"k"`)),
		"a secret in the same set": []byte("a secret of thirty-two characters"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.policy.Algorithms = nil // the default
			s.publishOnly(jwk(pub, "kid", `"k"`),
				`{"kty":"oct","kid":"oct","alg":"HS256","k":"`+
					segment("a secret of thirty-two characters")+`"}`)
			v := s.verifier(t)
			accepted(t, v, sign(t, "RS256", rsaKey(), s.header("alg", `"RS256"`, "kid", `"k"`),
				s.claims()))
			for _, alg := range []string{"HS256", "HS384", "HS512"} {
				for _, kid := range []string{`"k"`, `"oct"`, ""} {
					refused(t, v, sign(t, alg, secret, s.header("alg", strconv.Quote(alg), "kid",
						kid), s.claims()), token.WrongAlgorithm, alg)
				}
			}
			for _, kid := range []string{`"k"`, ""} { // not even under a name that is allowed
				refused(t, v, sign(t, "HS256", secret, s.header("alg", `"RS256"`, "kid", kid),
					s.claims()), token.BadSignature)
			}
		})
	}
}

// TestForgeryKeyInTheHeader: keys in the header, or that it refers to, are not used.
func TestForgeryKeyInTheHeader(t *testing.T) {
	var calls atomic.Int64
	var set string
	attacker := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		calls.Add(1)
		serveJSON(set).ServeHTTP(w, r)
	}))
	defer attacker.Close()

	s := newScene(t)
	s.wire.hosts[strings.TrimPrefix(attacker.URL, "https://")] = attacker.Config.Handler
	v := s.verifier(t)
	accepted(t, v, s.genuine())
	before := len(s.wire.requests())

	_, key, _ := ed25519.GenerateKey(rand.Reader)
	kid, _ := s.CurrentKey()
	itsKey := jwk(key.Public(), "kid", strconv.Quote(kid), "alg", `"EdDSA"`)
	set = `{"keys":[` + itsKey + `]}`
	for name, members := range map[string][]string{
		"jwk":  {"jwk", itsKey},
		"jku":  {"jku", strconv.Quote(attacker.URL + "/keys")},
		"x5u":  {"x5u", strconv.Quote(attacker.URL + "/cert")},
		"x5c":  {"x5c", `["` + base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(key.Public()))) + `"]`},
		"iss":  {"iss", strconv.Quote(attacker.URL)},
		"kid":  {"kid", strconv.Quote(attacker.URL + "/keys")},
		"all":  {"jwk", itsKey, "jku", strconv.Quote(attacker.URL + "/keys"), "x5u", strconv.Quote(attacker.URL + "/cert")},
		"none": nil,
	} {
		t.Run(name, func(t *testing.T) {
			code := token.BadSignature
			if name == "kid" {
				code = token.UnknownKey
			}
			refused(t, v, sign(t, "EdDSA", key, s.header(members...), s.claims()), code)
		})
	}
	refused(t, v, sign(t, "EdDSA", key, s.header(),
		s.claims("iss", strconv.Quote(attacker.URL+"/"))), token.WrongIssuer)
	if calls.Load() != 0 {
		t.Errorf("the attacker's server got %d requests, want none", calls.Load())
	}
	for _, pending := range s.wire.requests()[before:] {
		// kid is unknown: one refresh of the issuer's key set
		if pending != discoveryURL && pending != keySetURL {
			t.Errorf("%s was requested", pending)
		}
	}
}

// TestForgeryPSSSaltLength: the salt has the length of the hash (RFC 7518 §3.5). jwx accepts any
// length.
func TestForgeryPSSSaltLength(t *testing.T) {
	s := newScene(t)
	s.policy.Algorithms = []string{"PS256"}
	s.publishOnly(jwk(&rsaKey().PublicKey, "kid", `"k"`, "alg", `"PS256"`))
	v := s.verifier(t)
	input := segment(s.header("alg", `"PS256"`, "kid", `"k"`)) + "." + segment(s.claims())
	digest := sha256.Sum256([]byte(input))
	for _, salt := range []int{0, 1, 20, 31, 32, 33, 64, rsaKey().Size() - 32 - 2} {
		t.Run(fmt.Sprint(salt), func(t *testing.T) {
			length := salt
			if salt == 0 {
				length = rsa.PSSSaltLengthAuto
			}
			signature, err := rsa.SignPSS(rand.Reader, rsaKey(), crypto.SHA256, digest[:],
				&rsa.PSSOptions{SaltLength: length})
			if salt == 0 { // for which crypto/rsa has no constant
				signature, err = pssWithoutSalt(digest[:]), nil
			}
			if err != nil {
				t.Fatal(err)
			}
			tok := input + "." + segment(signature)
			if _, err := jws.Verify([]byte(tok),
				jws.WithKey(jwa.PS256, &rsaKey().PublicKey)); err != nil {
				t.Fatalf("jwx does not accept it (%v): this test no longer tests what it says", err)
			}
			if salt == 32 {
				accepted(t, v, tok)
			} else {
				refused(t, v, tok, token.BadSignature, `does not verify with key "k"`)
			}
		})
	}
}

// pssWithoutSalt is RSASSA-PSS-SIGN with an empty salt (RFC 8017 §8.1.1, §9.1.1).
func pssWithoutSalt(digest []byte) []byte {
	key := rsaKey()
	h := sha256.Sum256(append(make([]byte, 8), digest...))
	size := key.Size()
	db := make([]byte, size-len(h)-1)
	db[len(db)-1] = 1
	var counter [4]byte
	for done := 0; done < len(db); counter[3]++ { // MGF1
		block := sha256.Sum256(append(h[:], counter[:]...))
		for _, b := range block {
			if done < len(db) {
				db[done] ^= b
				done++
			}
		}
	}
	db[0] &= 0x7f
	em := append(append(db, h[:]...), 0xbc)
	return new(big.Int).Exp(new(big.Int).SetBytes(em), key.D, key.N).FillBytes(make([]byte, size))
}

// TestForgeryCurve: each ES algorithm requires one curve (RFC 7518 §3.4). jwx accepts P-384 for
// ES256.
func TestForgeryCurve(t *testing.T) {
	key := p384Key()
	for _, alg := range []string{"", `"ES256"`} {
		t.Run("published with alg "+alg, func(t *testing.T) {
			s := newScene(t)
			s.policy.Algorithms = []string{"ES256", "ES384"}
			s.publishOnly(jwk(key.Public(), "kid", `"k"`, "alg", alg),
				jwk(p256Key().Public(), "kid", `"j"`))
			input := segment(s.header("alg", `"ES256"`, "kid", `"k"`)) + "." + segment(s.claims())
			digest := sha256.Sum256([]byte(input))
			r, ss, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			signature := append(r.FillBytes(make([]byte, 48)), ss.FillBytes(make([]byte, 48))...)
			tok := input + "." + segment(signature)
			if _, err := jws.Verify([]byte(tok), jws.WithKey(jwa.ES256, key.Public())); err != nil {
				t.Fatalf("jwx does not accept it (%v): this test no longer tests what it says", err)
			}
			code := token.WrongAlgorithm
			if alg != "" {
				code = token.UnknownKey // the entry contradicts itself
			}
			refused(t, s.verifier(t), tok, code)
		})
	}
}

// TestForgeryWeakRSAKey: a weak key of the issuer's set, with which anybody could sign, is not
// used.
func TestForgeryWeakRSAKey(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	n := strconv.Quote(segment(rsaKey().N.Bytes()))
	s := newScene(t)
	s.policy.Algorithms = []string{"RS256"}
	s.publishOnly(jwk(&rsaKey().PublicKey, "kid", `"good"`), jwk(&weak.PublicKey, "kid", `"weak"`),
		`{"kty":"RSA","kid":"one","e":"AQ","n":`+n+`}`)
	v := s.verifier(t)
	accepted(t, v, sign(t, "RS256", rsaKey(), s.header("alg", `"RS256"`, "kid", `"good"`),
		s.claims()))

	tok := sign(t, "RS256", weak, s.header("alg", `"RS256"`, "kid", `"weak"`), s.claims())
	if _, err := jws.Verify([]byte(tok), jws.WithKey(jwa.RS256, &weak.PublicKey)); err != nil {
		t.Fatalf("jwx does not accept it (%v): this test no longer tests what it says", err)
	}
	refused(t, v, tok, token.UnknownKey, `has kid "weak"`)
	s.log.mentions(t, `kid \"weak\": RSA key of 1024 bits, expected 2048 to 8192`)

	// With exponent 1, a signature equals its encoded message (RFC 8017 §9.2): it can be forged
	// without a private key.
	input := segment(s.header("alg", `"RS256"`, "kid", `"one"`)) + "." + segment(s.claims())
	digest := sha256.Sum256([]byte(input))
	info := "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20" +
		string(digest[:])
	forged := "\x00\x01" + strings.Repeat("\xff", rsaKey().Size()-len(info)-3) + "\x00" + info
	refused(t, s.verifier(t), input+"."+segment(forged), token.UnknownKey, `has kid "one"`)
	s.log.mentions(t, `kid \"one\": RSA exponent is not an odd number from 3`)
}

// TestForgeryEd25519Malleability: the verifier must check that S < L, because S+L would verify as
// well (RFC 8032 §5.1.7).
func TestForgeryEd25519Malleability(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	tok := s.genuine()
	accepted(t, v, tok)
	at := strings.LastIndexByte(tok, '.') + 1
	signature := must(base64.RawURLEncoding.DecodeString(tok[at:]))
	l, _ := new(big.Int).SetString(
		"7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	scalar := slices.Clone(signature[32:])
	slices.Reverse(scalar)
	scalar = new(big.Int).Add(new(big.Int).SetBytes(scalar), l).FillBytes(make([]byte, 32))
	slices.Reverse(scalar)
	refused(t, v, tok[:at]+segment(append(signature[:32], scalar...)), token.BadSignature)
}

// TestForgeryNested: a token inside a token (RFC 7519 §5.2) is not unpacked.
func TestForgeryNested(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	inner := s.genuine()
	refused(t, v, s.SignBytes([]byte(s.header()), []byte(inner)), token.Malformed,
		"claims: not a JSON object")
	refused(t, v, s.SignBytes([]byte(s.header()), []byte(strconv.Quote(inner))), token.Malformed,
		"claims: not a JSON object")
	refused(t, v, s.SignBytes([]byte(s.header("cty", `"JWT"`)), []byte(inner)), token.Malformed,
		"header: cty is not allowed")
	refused(t, v, s.SignBytes([]byte(inner), []byte(s.claims())), token.Malformed,
		"header: not a JSON object")
}

// TestForgeryUnencodedPayload: with b64 false (RFC 7797), the signed bytes are not those that are
// parsed.
func TestForgeryUnencodedPayload(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	_, key := s.CurrentKey()
	for _, header := range []string{s.header("b64", "false", "crit", `["b64"]`),
		s.header("b64", "false")} {
		signature, err := key.Sign(nil, []byte(segment(header)+"."+s.claims()), crypto.Hash(0))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, v, segment(header)+"."+segment(s.claims())+"."+segment(signature),
			token.Malformed, "b64")
		refused(t, v, segment(header)+"."+s.claims()+"."+segment(signature), token.Malformed)
	}
}
