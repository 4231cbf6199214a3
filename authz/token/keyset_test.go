package token

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var bigThree = big.NewInt(3)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// rsaEntry returns a JWK with a modulus of so many bits, whose factors are unknown, and an
// exponent.
func rsaEntry(bits int, e *big.Int, more string) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	n.SetBit(n, 0, 1)
	return fmt.Sprintf(`{"kty":"RSA","kid":"k","n":"%s","e":"%s"%s}`, b64(n.Bytes()),
		b64(e.Bytes()), more)
}

func ecEntry(crv string, x, y []byte, more string) string {
	return fmt.Sprintf(`{"kty":"EC","kid":"k","crv":"%s","x":"%s","y":"%s"%s}`, crv, b64(x), b64(y),
		more)
}

func okpEntry(crv string, x []byte, more string) string {
	return fmt.Sprintf(`{"kty":"OKP","kid":"k","crv":"%s","x":"%s"%s}`, crv, b64(x), more)
}

// TestParseKey: which entries of a set are usable, by which algorithms, and why others are not.
func TestParseKey(t *testing.T) {
	f4 := big.NewInt(65537)
	power := func(n uint, plus int64) *big.Int {
		return new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), n), big.NewInt(plus))
	}
	point := func(curve elliptic.Curve) (x, y []byte) {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return encoded[1 : 1+len(encoded)/2], encoded[1+len(encoded)/2:]
	}
	x, y := point(elliptic.P256())
	x384, y384 := point(elliptic.P384())
	x521, y521 := point(elliptic.P521())
	x224, y224 := point(elliptic.P224())
	off := slices.Clone(y)
	off[len(off)-1] ^= 1
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const allRSA = "PS256 PS384 PS512 RS256 RS384 RS512"

	for _, test := range []struct {
		name, entry string
		algs        string // "" if it may not be used
		says        string // the reason why not; "" if that is not a fault
	}{
		{"RSA", rsaEntry(2048, f4, ""), allRSA, ""},
		{"RSA with alg", rsaEntry(2048, f4, `,"alg":"PS384"`), "PS384", ""},
		{"RSA with alg null", rsaEntry(2048, f4, `,"alg":null,"use":null,"key_ops":null`), allRSA, ""},
		{"RSA for encryption by its alg", rsaEntry(2048, f4, `,"alg":"RSA-OAEP"`), "", `alg "RSA-OAEP" is not a signature algorithm`},
		{"RSA with an alg of EC", rsaEntry(2048, f4, `,"alg":"ES256"`), "", `alg "ES256" is not a signature algorithm for a key of its type`},
		{"RSA with HS256", rsaEntry(2048, f4, `,"alg":"HS256"`), "", `alg "HS256"`},
		{"RSA with none", rsaEntry(2048, f4, `,"alg":"none"`), "", `alg "none"`},
		{"RSA with alg a number", rsaEntry(2048, f4, `,"alg":1`), "", "not a JWK"},
		{"RSA, 512 bits", rsaEntry(512, f4, ""), "", "RSA key of 512 bits, expected 2048 to 8192"},
		{"RSA, 1024 bits", rsaEntry(1024, f4, ""), "", "RSA key of 1024 bits, expected 2048 to 8192"},
		{"RSA, 2047 bits", rsaEntry(2047, f4, ""), "", "RSA key of 2047 bits"},
		{"RSA, 8192 bits", rsaEntry(8192, f4, ""), allRSA, ""},
		{"RSA, 8193 bits", rsaEntry(8193, f4, ""), "", "RSA key of 8193 bits"},
		{"RSA, 65536 bits", rsaEntry(65536, f4, ""), "", "RSA key of 65536 bits"},
		{"RSA, modulus zero", `{"kty":"RSA","kid":"k","n":"AA","e":"AQAB"}`, "", "RSA key of 0 bits"},
		{"RSA, modulus even", strings.Replace(rsaEntry(2048, f4, ""), `AQ","e"`, `AA","e"`, 1), "", "even"},
		{"RSA, exponent 0", rsaEntry(2048, big.NewInt(0), ""), "", "exponent"},
		{"RSA, exponent 1", rsaEntry(2048, big.NewInt(1), ""), "", "exponent is not an odd number from 3 to 2³¹−1"},
		{"RSA, exponent 2", rsaEntry(2048, big.NewInt(2), ""), "", "exponent"},
		{"RSA, exponent 3", rsaEntry(2048, big.NewInt(3), ""), allRSA, ""},
		{"RSA, exponent 65536", rsaEntry(2048, big.NewInt(65536), ""), "", "exponent"},
		{"RSA, exponent 2^31-1", rsaEntry(2048, power(31, -1), ""), allRSA, ""},
		{"RSA, exponent 2^31+1", rsaEntry(2048, power(31, 1), ""), "", "exponent"},
		{"RSA, exponent 2^32+1", rsaEntry(2048, power(32, 1), ""), "", "exponent"},
		{"RSA, exponent 2^63+1", rsaEntry(2048, power(63, 1), ""), "", "exponent"},
		{"RSA, exponent 2^64+65537, cut down to 65537", rsaEntry(2048, power(64, 65537), ""), "", "exponent"},
		{"RSA, exponent of 8192 bits", rsaEntry(2048, power(8191, 1), ""), "", "exponent"},
		{"RSA without n", `{"kty":"RSA","kid":"k","e":"AQAB"}`, "", `kty "RSA" is unknown or its members are wrong`},
		{"RSA without e", `{"kty":"RSA","kid":"k","n":"AQAB"}`, "", `its members are wrong`},
		{"RSA, n no base64", `{"kty":"RSA","kid":"k","n":"*","e":"AQAB"}`, "", `its members are wrong`},
		{"RSA, n a number", `{"kty":"RSA","kid":"k","n":5,"e":"AQAB"}`, "", `its members are wrong`},
		{"RSA with its private part", rsaEntry(2048, f4, `,"d":"AQAB"`), "", "the private or symmetric key is published"},
		{"RSA with an empty private part", rsaEntry(2048, f4, `,"d":""`), "", "the private or symmetric key is published"},

		{"P-256", ecEntry("P-256", x, y, ""), "ES256", ""},
		{"P-256 with alg", ecEntry("P-256", x, y, `,"alg":"ES256"`), "ES256", ""},
		{"P-384", ecEntry("P-384", x384, y384, ""), "ES384", ""},
		{"P-521", ecEntry("P-521", x521, y521, ""), "ES512", ""},
		{"P-384 said to be for ES256", ecEntry("P-384", x384, y384, `,"alg":"ES256"`), "", `alg "ES256" is not a signature algorithm for a key of its type and curve`},
		{"P-256 said to be for key agreement", ecEntry("P-256", x, y, `,"alg":"ECDH-ES"`), "", `alg "ECDH-ES"`},
		{"P-224", ecEntry("P-224", x224, y224, ""), "", "its members"},
		{"secp256k1", ecEntry("secp256k1", x, y, `,"alg":"ES256K"`), "", "its members"},
		{"a point of another curve", ecEntry("P-256", x384, y384, ""), "", ""},
		{"off the curve", ecEntry("P-256", x, off, ""), "", "curve"},
		{"the point at the origin", ecEntry("P-256", make([]byte, 32), make([]byte, 32), ""), "", "curve"},
		{"x alone", `{"kty":"EC","kid":"k","crv":"P-256","x":"` + b64(x) + `"}`, "", "its members are wrong"},
		{"x greater than the field", ecEntry("P-256", slices.Repeat([]byte{0xff}, 32), y, ""), "", "curve"},
		{"x of many bytes", ecEntry("P-256", append(slices.Repeat([]byte{1}, 100), x...), y, ""), "", "curve"},
		{"P-256 with its private part", ecEntry("P-256", x, y, `,"d":"AQ"`), "", "is published"},

		{"Ed25519", okpEntry("Ed25519", ed, ""), "EdDSA", ""},
		{"Ed25519 with alg", okpEntry("Ed25519", ed, `,"alg":"EdDSA"`), "EdDSA", ""},
		{"Ed25519 by its other name", okpEntry("Ed25519", ed, `,"alg":"Ed25519"`), "EdDSA", ""},
		{"X25519 said to be for Ed25519", okpEntry("X25519", x25519.PublicKey().Bytes(), `,"alg":"Ed25519"`), "", "verifies no signatures"},
		{"P-256 said to be for Ed25519", ecEntry("P-256", x, y, `,"alg":"Ed25519"`), "", `alg "Ed25519"`},
		{"Ed25519 of 31 bytes", okpEntry("Ed25519", ed[:31], ""), "", "Ed25519 key of 31 bytes, expected 32"},
		{"Ed25519 of 33 bytes", okpEntry("Ed25519", append(slices.Clone(ed), 0), ""), "", "Ed25519 key of 33 bytes"},
		{"Ed25519 of no bytes", okpEntry("Ed25519", nil, ""), "", ""},
		{"X25519", okpEntry("X25519", x25519.PublicKey().Bytes(), ""), "", "verifies no signatures"},
		{"X25519 said to be for EdDSA", okpEntry("X25519", x25519.PublicKey().Bytes(), `,"alg":"EdDSA"`), "", "verifies no signatures"},
		{"Ed448", okpEntry("Ed448", make([]byte, 57), ""), "", "members"},

		{"oct", `{"kty":"oct","kid":"k","k":"AAAA","alg":"HS256"}`, "", "the private or symmetric key is published"},
		{"oct without k", `{"kty":"oct","kid":"k","alg":"HS256"}`, "", `kty "oct"`},
		{"an unknown type", `{"kty":"AKP","kid":"k","alg":"ML-DSA-44","pub":"AAAA"}`, "", `kty "AKP" is unknown`},
		{"kty missing", strings.Replace(okpEntry("Ed25519", ed, ""), `"kty":"OKP",`, "", 1), "", `kty "" is unknown`},
		{"kty in other case", strings.Replace(okpEntry("Ed25519", ed, ""), `"kty"`, `"KTY"`, 1), "", `kty "" is unknown`},
		{"kty twice, in two cases", strings.Replace(okpEntry("Ed25519", ed, ""), `"kty":"OKP"`, `"kty":"EC","KTY":"OKP"`, 1), "", `kty "EC" is unknown or its members are wrong`},
		{"kty null", `{"kty":null,"kid":"k"}`, "", `kty "" is unknown`},
		{"kty twice", `{"kty":"RSA","kty":"OKP","kid":"k"}`, "", "not a JWK: expected a JSON object with unique names"},
		{"kid twice", okpEntry("Ed25519", ed, `,"kid":"j"`), "", "not a JWK"},
		{"kid a number", strings.Replace(okpEntry("Ed25519", ed, ""), `"kid":"k"`, `"kid":1`, 1), "", "not a JWK"},
		{"an unknown member twice", okpEntry("Ed25519", ed, `,"a":{"b":1,"b":2}`), "", "not a JWK"},
		{"no object", `[]`, "", "not a JWK"},
		{"unknown members", okpEntry("Ed25519", ed, `,"x5t":"AAAA","exp":1,"nbf":{},"USE":"enc","Alg":"none"`), "EdDSA", ""},

		{"use sig", okpEntry("Ed25519", ed, `,"use":"sig"`), "EdDSA", ""},
		{"use enc", okpEntry("Ed25519", ed, `,"use":"enc"`), "", ""},
		{"use enc, and broken", `{"kty":"RSA","use":"enc"}`, "", ""},
		{"key_ops verify", okpEntry("Ed25519", ed, `,"key_ops":["sign","verify"]`), "EdDSA", ""},
		{"key_ops sign", okpEntry("Ed25519", ed, `,"key_ops":["sign"]`), "", ""},
		{"key_ops empty", okpEntry("Ed25519", ed, `,"key_ops":[]`), "", ""},
		{"key_ops with null", okpEntry("Ed25519", ed, `,"key_ops":[null]`), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			k, err := parseKey([]byte(test.entry))
			if err != nil && k != nil {
				t.Errorf("a key and an error: %v, %v", k, err)
			}
			got := ""
			if k != nil {
				got = strings.Join(slices.Sorted(maps.Keys(k.verifiers)), " ")
			}
			if got != test.algs {
				t.Errorf("may be used for %q, want %q (%v): %s", got, test.algs, err,
					test.entry)
			}
			if test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("the error is %v: it does not say %q", err, test.says)
			}
			if strings.HasPrefix(test.name, "use") || strings.HasPrefix(test.name, "key_ops") {
				if err != nil {
					t.Errorf("reported as a fault: %v; it is none that a key is for something else",
						err)
				}
			}
			if k != nil {
				for name, verify := range k.verifiers {
					for _, signature := range [][]byte{nil, {0}, make([]byte, 64),
						make([]byte, 256), make([]byte, 1024)} {
						if verify([]byte("signed"), signature) {
							t.Errorf("%s verifies a signature of %d zeros", name, len(signature))
						}
					}
				}
			}
		})
	}
}

// TestSmallOrder: signatures of S = 0 are made without a private key, and crypto/ed25519 verifies
// them for every key that is refused.
func TestSmallOrder(t *testing.T) {
	var points [][]byte // all encodings of the eight points
	for _, y := range []string{
		strings.Repeat("00", 32), "01" + strings.Repeat("00", 31),
		"ec" + strings.Repeat("ff", 30) + "7f", "ed" + strings.Repeat("ff", 30) + "7f", "ee" + strings.Repeat("ff", 30) + "7f",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	} {
		point, err := hex.DecodeString(y)
		if err != nil {
			t.Fatal(err)
		}
		negative := slices.Clone(point)
		negative[31] |= 0x80
		points = append(points, point, negative)
	}
	for _, public := range points {
		forged := slices.ContainsFunc(points, func(r []byte) bool {
			return slices.ContainsFunc([]byte("abcdefghijklmnopqrstuvwxyz"), func(c byte) bool {
				signature := slices.Concat(r, make([]byte, 32))
				return ed25519.Verify(public, []byte{c}, signature)
			})
		})
		if !forged {
			t.Errorf("%x verifies no forged signature", public)
		}
		if k, err := parseKey([]byte(okpEntry("Ed25519", public, ""))); k != nil || err == nil ||
			!strings.Contains(err.Error(), "small order") {
			t.Errorf("%x is accepted, or refused for another reason: %v", public, err)
		}
	}
}

// TestClamp: how long a set is fresh (RFC 9111 §5.2.2), within [1 min, 1 h] or the configured
// limits.
func TestClamp(t *testing.T) {
	const hour = time.Hour
	for _, test := range []struct {
		cacheControl []string
		maxAge       time.Duration
		want         time.Duration
	}{
		{nil, hour, hour},
		{[]string{""}, hour, hour},
		{[]string{"public"}, hour, hour},
		{[]string{"max-age=300"}, hour, 5 * time.Minute},
		{[]string{"public, max-age=300, must-revalidate"}, hour, 5 * time.Minute},
		{[]string{"Public,MAX-AGE=300"}, hour, 5 * time.Minute},
		{[]string{`max-age="300"`}, hour, 5 * time.Minute},
		{[]string{"public", "max-age=300"}, hour, 5 * time.Minute},
		{[]string{"max-age=600, max-age=300"}, hour, 5 * time.Minute},
		{[]string{"max-age=60"}, hour, time.Minute},
		{[]string{"max-age=59"}, hour, time.Minute},
		{[]string{"max-age=0"}, hour, time.Minute},
		{[]string{"max-age=3600"}, hour, hour},
		{[]string{"max-age=3601"}, hour, hour},
		{[]string{"max-age=31536000"}, hour, hour},
		{[]string{"max-age=99999999999999999999"}, hour, hour},
		{[]string{"max-age=9223372036854775807"}, hour, hour},
		{[]string{"max-age=-1"}, hour, hour},
		{[]string{"max-age=1.5"}, hour, hour},
		{[]string{"max-age"}, hour, hour},
		{[]string{"max-age="}, hour, hour},
		{[]string{"max-age=x, max-age=300"}, hour, 5 * time.Minute},
		{[]string{"s-maxage=300"}, hour, hour},
		{[]string{"x-max-age=300"}, hour, hour},
		{[]string{"no-store"}, hour, time.Minute},
		{[]string{"no-cache"}, hour, time.Minute},
		{[]string{"no-cache, max-age=300"}, hour, time.Minute},
		{[]string{"max-age=300, no-store"}, hour, time.Minute},
		{[]string{"max-age=300"}, 2 * time.Minute, 2 * time.Minute},
		{[]string{"max-age=300"}, 30 * time.Second, 30 * time.Second},
		{[]string{"max-age=1"}, 30 * time.Second, 30 * time.Second},
		{[]string{"no-store"}, 30 * time.Second, 30 * time.Second},
		{nil, 30 * time.Second, 30 * time.Second},
		{[]string{"max-age=7200"}, 3 * hour, 2 * hour},
		{nil, 1, 1},
	} {
		got := KeyPolicy{MaxAge: test.maxAge}.clamp(http.Header{"Cache-Control": test.cacheControl})
		if got != test.want {
			t.Errorf("Cache-Control %q with a maximum age of %s: fresh for %s, want %s",
				test.cacheControl, test.maxAge, got, test.want)
		}
	}
}

// TestAdopt: a key that is also in the next set remains the same key; no other does.
func TestAdopt(t *testing.T) {
	entry := func(kid string, seed byte, more string) string {
		pub := ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, 32)).Public().(ed25519.PublicKey)
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":"%s","kid":"%s"%s}`, b64(pub), kid,
			more)
	}
	parse := func(entries ...string) *keySet {
		set, _, err := parseKeySet([]byte(`{"keys":[` + strings.Join(entries, ",") + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	rsaOf := func(alg string) string { return rsaEntry(2048, big.NewInt(3), `,"alg":"`+alg+`"`) }
	before := parse(entry("a", 1, ""), entry("b", 2, ""), entry("", 3, ""), rsaOf("RS256"),
		rsaOf("PS256"))
	after := parse(rsaOf("PS256"), entry("b", 2, `,"alg":"EdDSA"`), entry("a", 4, ""),
		entry("", 3, ""), entry("c", 1, ""), rsaOf("RS256"))
	after.reuseKeys(before)

	find := func(set *keySet, kid, alg string) *key {
		k, how := set.find([]byte(kid), []byte(alg))
		if how != keyFound {
			t.Fatalf("kid %q for %s is not found (%d)", kid, alg, how)
		}
		if !slices.Contains(set.keys, k) {
			t.Errorf("kid %q for %s is found by name and not in the list", kid, alg)
		}
		return k
	}
	for _, test := range []struct {
		kid, alg string
		same     bool
	}{{"b", "EdDSA", true}, {"a", "EdDSA", false}, {"k", "RS256", true}, {"k", "PS256", true}} {
		if got := find(before, test.kid, test.alg) == find(after, test.kid,
			test.alg); got != test.same {
			t.Errorf("kid %q for %s is the same key: %v, want %v", test.kid, test.alg, got,
				test.same)
		}
	}
	if find(before, "a", "EdDSA") == find(after, "c", "EdDSA") {
		t.Error("a key under another kid is taken for the same")
	}
	after.reuseKeys(nil)
	if _, ok := any(find(after, "k", "RS256").public).(*rsa.PublicKey); !ok {
		t.Error("the key of k is not an RSA key")
	}
}

// TestRefreshKeepsKeys: after a refresh with the same keys, cached tokens remain, so that the next
// request with each needs no signature verification.
func TestRefreshKeepsKeys(t *testing.T) {
	entry := okpEntry("Ed25519", fuzzKey.Public().(ed25519.PublicKey), "")
	v, err := NewVerifier(t.Context(), Config{
		Issuers: []Issuer{{URL: fuzzIssuer, Audiences: []string{fuzzAudience}}},
		HTTPClient: &http.Client{Transport: serves(`{"issuer":"` + fuzzIssuer + `","jwks_uri":"` +
			fuzzIssuer + `keys","keys":[` + entry + `]}`)},
		Now:    func() time.Time { return fuzzNow },
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := v.issuers[fuzzIssuer].keys
	find := func() *key {
		k, err := keys.find(t.Context(), []byte("k"), []byte("EdDSA"))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	before, set := find(), keys.set.Load()
	if newer, err := keys.fetchNewer(t.Context(), set, []byte("other")); err != nil ||
		newer == set {
		t.Fatalf("the keys were not refreshed: %v", err)
	}
	if find() != before {
		t.Error("the same key is another after a refresh")
	}
}
