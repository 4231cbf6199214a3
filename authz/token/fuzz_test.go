package token

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// Accepted inputs are checked again with encoding/json, strings and encoding/base64. Most targets
// check both directions, to find inputs that are wrongly refused.

const fuzzIssuer, fuzzAudience = "https://localhost:8443/", "https://api.example/"

var fuzzNow = time.Unix(1_795_000_000, 0)

// fuzzKey is constant, so that a corpus stays valid.
var fuzzKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

func fuzzToken(header, claims string) string {
	input := b64([]byte(header)) + "." + b64([]byte(claims))
	return input + "." + b64(ed25519.Sign(fuzzKey, []byte(input)))
}

const (
	fuzzHeader = `{"alg":"EdDSA","kid":"k","typ":"at+jwt"}`
	fuzzClaims = `{"iss":"https://localhost:8443/","sub":"s","aud":"https://api.example/","exp":1795000300,"iat":1795000000,"nbf":0,"jti":"1","client_id":"c","scope":"a b"}`
)

// strictObject is what eachMember should accept, decided anew.
func strictObject(data []byte) (map[string]any, bool) {
	if !utf8.Valid(data) || !json.Valid(data) || halfSurrogate(data) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // of any size
	if unique(d) != nil {
		return nil, false
	}
	d = json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var object any
	if err := d.Decode(&object); err != nil {
		return nil, false
	}
	members, ok := object.(map[string]any)
	return members, ok
}

// unique reads one value and reports a name that occurs twice in an object of it.
func unique(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	delim, _ := t.(json.Delim)
	if delim != '{' && delim != '[' {
		return nil
	}
	names := map[any]bool{}
	for d.More() {
		if delim == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if names[name] {
				return errors.New("twice")
			}
			names[name] = true
		}
		if err := unique(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// halfSurrogate reports an escaped half of a pair (RFC 8259 §8.2), for which encoding/json puts
// U+FFFD.
func halfSurrogate(data []byte) bool {
	for i := 0; i+1 < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		if i++; data[i] != 'u' {
			continue
		}
		unit := hexUnit(data, i+1)
		if unit>>10 == 0xdc00>>10 {
			return true
		}
		if unit>>10 == 0xd800>>10 {
			if i+6 >= len(data) || data[i+5] != '\\' || data[i+6] != 'u' ||
				hexUnit(data, i+7)>>10 != 0xdc00>>10 {
				return true
			}
			i += 6
		}
		i += 4
	}
	return false
}

func hexUnit(data []byte, at int) uint64 {
	if at+4 > len(data) {
		return 0
	}
	n, _ := strconv.ParseUint(string(data[at:at+4]), 16, 16)
	return n
}

// checkErrorText: an error shows no long part of the input, and is one line.
func checkErrorText(t *testing.T, input []byte, err error) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	if e.Code == "" || e.Detail == "" {
		t.Errorf("the error does not say what it is: %#v", e)
	}
	text := e.Error()
	if len(text) > 1500 || strings.ContainsFunc(text, func(r rune) bool {
		return r < 0x20 || r == 0x7f
	}) || !utf8.ValidString(text) {
		t.Errorf("the error is not fit for a log: %q", text)
	}
}

func FuzzCompact(f *testing.F) {
	genuine := fuzzToken(fuzzHeader, fuzzClaims)
	for _, seed := range []string{
		genuine, "", ".", "..", "...", "a.b.c", "AA.AA.AA", "AB.AA.AA", "AA==.AA.AA", "AA.AA.AA=",
		"A.AA.AA", "AA.A\nA.AA", "AA.AA.AA\r\n",
		"AA.+/.AA", "AA.-_.AA", "AA..AA", "AA.AA.", ".AA.AA", "AA.AA.AA.AA.AA", genuine + "=", genuine + "\n", " " + genuine,
		"{" + `"payload":"AA","protected":"AA","signature":"AA"}`, "é.AA.AA", "AA.AA.AA\x00", strings.Repeat("A", 8192),
	} {
		f.Add(seed)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	canonical := func(segment string) bool {
		if segment == "" || strings.Trim(segment, alphabet) != "" ||
			strings.ContainsFunc(segment, func(r rune) bool {
				return !strings.ContainsRune(alphabet, r)
			}) {
			return false
		}
		decoded, err := base64.RawURLEncoding.DecodeString(segment)
		return err == nil && b64(decoded) == segment
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCompact(s)
		segments := strings.Split(s, ".")
		wanted := len(segments) == 3 && !slices.ContainsFunc(segments, func(segment string) bool {
			return !canonical(segment)
		})
		if (err == nil) != wanted {
			t.Fatalf("parseCompact returns %v, want accepted: %v", err, wanted)
		}
		if err != nil {
			checkErrorText(t, []byte(s), err)
			return
		}
		if again := b64(c.header) + "." + b64(c.payload) + "." + b64(c.signature); again != s {
			t.Errorf("the parts spell %q", again)
		}
		if string(c.signed) != segments[0]+"."+segments[1] {
			t.Errorf("the signed bytes are %q", c.signed)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		fuzzHeader, `{}`, `{"alg":"none"}`, `{"alg":""}`, `{"alg":1}`,
		`{"alg":"Ed25519"}`, // the other name of EdDSA (RFC 9864 §2.2)
		`{"alg":"RS256","alg":"none"}`, `{"alg":"RS256","\u0061lg":"none"}`,
		`{"alg":"RS256","crit":[]}`, `{"alg":"RS256","b64":false}`, `{"alg":"RS256","zip":null}`, `{"alg":"RS256","cty":"JWT"}`,
		`{"alg":"RS256","kid":""}`, `{"alg":"RS256","kid":null}`, `{"alg":"RS256","typ":""}`, `{"alg":"RS256","jwk":{"a":1,"a":2}}`,
		`{"alg":"RS256"} `, `{"alg":"RS256"}{}`, `[]`, `null`, "{\"alg\":\"\xff\"}", `{"alg":"\ud800"}`, `{"alg":"\ud83d\ude00"}`, `{"a":[[[[]]]],"alg":"x"}`,
		`{"kid":"a\nb","alg":"RS256"}`, "\ufeff" + fuzzHeader, `{"alg":"RS256","x":1e999}`, `{"alg":"RS256","x":-0.0E+1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHeader(data)
		members, wanted := strictObject(data)
		for name, value := range members {
			switch text, isString := value.(string); name {
			case "crit", "b64", "zip", "cty":
				wanted = false
			case "kid":
				wanted = wanted && isString && text != ""
			case "typ", "alg":
				wanted = wanted && isString
			}
		}
		alg, _ := members["alg"].(string)
		if alg == ed25519Name {
			alg = "EdDSA"
			members["alg"] = alg
		}
		if wanted = wanted && alg != ""; (err == nil) != wanted {
			t.Fatalf("parseHeader returns %v, want accepted: %v", err, wanted)
		}
		if err != nil {
			checkErrorText(t, data, err)
			return
		}
		for name, got := range map[string][]byte{"alg": h.alg, "kid": h.kid, "typ": h.typ} {
			text, present := members[name].(string)
			if string(got) != text || (got != nil) != present {
				t.Errorf("%s is %q, want %q", name, got, members[name])
			}
		}
		i := &issuer{Issuer: Issuer{Algorithms: []string{"RS256", "EdDSA"}}}
		for _, i.RFC9068 = range []bool{false, true} {
			typ, present := members["typ"].(string)
			lower := asciiLower(typ)
			wanted := (alg == "RS256" || alg == "EdDSA") &&
				(lower == "at+jwt" || lower == "application/at+jwt" || !i.RFC9068 &&
					(!present || lower == "jwt"))
			if err := h.check(i); (err == nil) != wanted {
				t.Errorf("strict %v: check returns %v, want accepted: %v", i.RFC9068, err,
					wanted)
			} else if err != nil {
				checkErrorText(t, data, err)
			}
		}
	})
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func fuzzIssuerConfig(t testing.TB) *issuer {
	i := Issuer{URL: fuzzIssuer, Audiences: []string{fuzzAudience}, ScopeClaims: []string{"/scope",
		"/a/b"}}
	if faults := i.complete(); faults != nil {
		t.Fatal(faults)
	}
	return &issuer{Issuer: i}
}

func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		fuzzClaims, `{}`, `[]`, `{"exp":"1795000300"}`, `{"exp":0}`, `{"exp":-1}`, `{"exp":-0}`,
		`{"exp":1e400}`, `{"exp":1e-400}`, `{"exp":1795000300000}`,
		`{"exp":9007199254740993}`, `{"exp":1.7950003e9,"nbf":1795000030.000001,"iat":1795000031}`, `{"exp":NaN}`, `{"exp":null}`,
		`{"aud":[]}`, `{"aud":["https://api.example/"]}`, `{"aud":["x",null]}`, `{"aud":{}}`, `{"aud":[["https://api.example/"]]}`, `{"iss":1}`,
		`{"sub":""}`, `{"cnf":null}`, `{"cnf":{"jkt":"x"}}`, `{"scope":"a  b a"}`, `{"scope":["a","b","a",""]}`, `{"scope":[1]}`, `{"scope":null}`,
		`{"a":{"b":["x","y"]}}`, `{"a":{"b":"x y","b":"z"}}`, `{"a":[{"b":"x"}]}`, `{"a":"b"}`, `{"a":{"c":{"b":"x"}}}`, `{"sub":"\u0000\ud83d\ude00"}`,
		`{"sub":"\ude00"}`, "{\"x\":{\"y\":\"\xff\"}}", `{"nonce":"n","aud":"client"}`, `{"azp":"a","client_id":""}`, `{"x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`,
		strings.Replace(fuzzClaims, `"a b"`, `{"a":true}`, 1),
		strings.Replace(fuzzClaims, `"scope"`, `"sub"`, 1), fuzzClaims + "x",
		`{"act":1}`, `{"act":{}}`, `{"tid":1}`,
		`{"scope":"a b","a":{"b":["x",1]}}`, `{"a":{"b":null}}`, // grants nothing, see StrictScopeClaims
		" " + fuzzClaims + "\n",
	} {
		f.Add([]byte(seed))
	}
	i := fuzzIssuerConfig(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseClaims(data)
		members, wanted := strictObject(data)
		dates := map[string]float64{}
		for name, value := range members {
			switch name {
			case "iss", "sub", "client_id", "azp", "jti":
				_, isString := value.(string)
				wanted = wanted && isString
			case "aud":
				_, isTexts := texts(value)
				wanted = wanted && isTexts
			case "act":
				_, isObject := value.(map[string]any)
				wanted = wanted && isObject
			case "exp", "nbf", "iat":
				number, isNumber := value.(json.Number)
				n, err := strconv.ParseFloat(string(number), 64)
				wanted = wanted && isNumber && err == nil && n >= 0 && n <= 1<<53
				dates[name] = n
			}
		}
		if (err == nil) != wanted {
			t.Fatalf("parseClaims returns %v, want accepted: %v", err, wanted)
		}
		if err != nil {
			checkErrorText(t, data, err)
			return
		}
		for name, got := range map[string][]byte{"iss": c.iss, "sub": c.sub,
			"client_id": c.clientID, "azp": c.azp, "jti": c.jti} {
			text, present := members[name].(string)
			if string(got) != text || (got != nil) != present {
				t.Errorf("%s is %q, want %q", name, got, members[name])
			}
		}

		audiences, _ := texts(members["aud"])
		exp, hasExp := dates["exp"]
		now := float64(fuzzNow.Unix())
		wanted = members["sub"] != nil && members["sub"] != "" &&
			slices.Contains(audiences, fuzzAudience) &&
			hasExp && now < exp+30 && exp <= now+24*3600+30 && dates["nbf"] <= now+30 &&
			dates["iat"] <= now+30
		if _, bound := members["cnf"]; bound {
			wanted = false
		}
		if err = c.check(i, fuzzNow); err == nil {
			err = c.binding.check(i, possession{})
		}
		if (err == nil) != wanted {
			t.Fatalf("check returns %v, want accepted: %v", err, wanted)
		} else if err != nil {
			checkErrorText(t, data, err)
		}

		want, wanted := wantedScopes(members["scope"], nil)
		if value, present := members["scope"]; present && value == nil {
			wanted = false
		}
		// Without StrictScopeClaims, a malformed claim other than scope grants nothing.
		if a, isObject := members["a"].(map[string]any); isObject {
			if more, ok := wantedScopes(a["b"], want); ok {
				want = more
			}
		}
		got, err := c.scopes(i)
		if (err == nil) != wanted || err == nil && !slices.Equal(got, want) {
			t.Fatalf("scopes are %q, %v; want %q, and that they are accepted: %v", got, err,
				want, wanted)
		}
		if err != nil {
			checkErrorText(t, data, err)
		}
	})
}

// texts returns a string, or the strings of an array.
func texts(value any) ([]string, bool) {
	switch value := value.(type) {
	case string:
		return []string{value}, true
	case []any:
		var list []string
		for _, element := range value {
			text, isString := element.(string)
			if !isString {
				return nil, false
			}
			list = append(list, text)
		}
		return list, true
	}
	return nil, false
}

// wantedScopes adds the scopes of a claim to the earlier ones. The claim is nil if absent.
func wantedScopes(value any, before []string) ([]string, bool) {
	if value == nil {
		return before, true
	}
	list, ok := texts(value)
	if text, isString := value.(string); isString {
		list = strings.Split(text, " ")
	}
	for _, scope := range list {
		if scope != "" && !slices.Contains(before, scope) {
			before = append(before, scope)
		}
	}
	return before, ok
}

func FuzzScopeString(f *testing.F) {
	for _, seed := range []string{"", " ", "a", "a b", " a  b ", "a\tb", "a\u00a0b", "a,b", `a"b`,
		`a\b`, "a\x00b", "é 😀", "read:messages read:messages",
		strings.Repeat("a b c d e f g h i j k l m n o p q r ", 2)} {
		f.Add(seed)
	}
	i := fuzzIssuerConfig(f)
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		quoted, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseClaims(fmt.Appendf(nil, `{"scope":%s}`, quoted))
		if err != nil {
			t.Fatalf("%q as a scope: %v", s, err)
		}
		scopes, err := c.scopes(i)
		if err != nil {
			t.Fatalf("%q as a scope: %v", s, err)
		}
		p := c.principal(i, nil, scopes)
		parts := strings.Split(s, " ")
		for _, part := range parts {
			if part != "" && !p.HasScope(part) {
				t.Errorf("%q does not grant %q", s, part)
			}
		}
		for n, scope := range scopes {
			if scope == "" || !slices.Contains(parts, scope) || slices.Contains(scopes[:n], scope) {
				t.Errorf("%q grants %q", s, scopes)
			}
		}
	})
}

func FuzzKeySet(f *testing.F) {
	pub := b64(fuzzKey.Public().(ed25519.PublicKey))
	for _, seed := range []string{
		`{"keys":[]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + pub + `"}]}`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"` + strings.Repeat("A", 43) + `"}]}`,
		`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAA"}]}`, `{"keys":[{"kty":"OKP","crv":"X25519","kid":"k","x":"` + pub + `"}]}`,
		`{"keys":[` + rsaEntry(2048, bigThree, "") + `,` + rsaEntry(1024, bigThree, "") + `]}`, `{"keys":[` + strings.Replace(rsaEntry(2048, bigThree, ""), `AQ","e"`, `AA","e"`, 1) + `]}`,
		`{"keys":[` + rsaEntry(2048, bigThree, `,"alg":"RS256"`) + `,` + rsaEntry(2048, bigThree, `,"alg":"PS256"`) + `]}`,
		// RFC 7517 appendix A.1 has this point of P-256.
		`{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"AAAA"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-384","kid":"1","x":"AA","y":"AA"}]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`, `{"keys":{}}`, `{"keys":null}`, `[]`, `null`, ``,
		`{"keys":[null,1,"a",[],{}]}`, `{"keys":[{"kty":"RSA","n":"","e":""}]}`, `{"keys":[{"kty":"RSA","kty":"EC"}]}`, "{\"keys\":[{\"kty\":\"\xff\"}]}",
		`{"keys":[{"kty":"RSA","x5c":["AAAA"],"x5u":1,"n":"AQAB","e":"AQAB"}]}`, `{"keys":[],"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + pub + `"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, dropped, err := parseKeySet(data)
		for _, text := range []string{fmt.Sprint(err), joinFaults(dropped)} {
			if strings.ContainsFunc(text, func(r rune) bool {
				return r < 0x20 || r == 0x7f
			}) || !utf8.ValidString(text) {
				t.Errorf("not fit for a log: %q", text)
			}
		}
		if err != nil {
			if set != nil {
				t.Error("a set and an error")
			}
			return
		}
		if len(set.keys) == 0 || len(set.keys) > maxSetKeys {
			t.Fatalf("a set of %d keys", len(set.keys))
		}
		cacheable := map[string]bool{}
		for _, k := range set.keys {
			switch pub := k.public.(type) {
			case *rsa.PublicKey:
				if bits := pub.N.BitLen(); bits < 2048 || bits > 8192 || pub.N.Bit(0) == 0 ||
					pub.E < 3 || pub.E > 1<<31-1 || pub.E%2 == 0 {
					t.Errorf("RSA of %d bits, exponent %d", bits, pub.E)
				}
			case *ecdsa.PublicKey:
				if _, err := pub.ECDH(); err != nil {
					t.Error("EC point off its curve")
				}
			case ed25519.PublicKey:
				if len(pub) != 32 {
					t.Errorf("Ed25519 of %d bytes", len(pub))
				}
			default:
				t.Errorf("a key of type %T", pub)
			}
			if len(k.verifiers) == 0 {
				t.Error("a key for no algorithm")
			}
			for _, alg := range slices.Sorted(maps.Keys(k.verifiers)) {
				if algorithms[alg] == nil || !algorithms[alg].fits(k.public) {
					t.Errorf("%s by a %T", alg, k.public)
				}
				for _, size := range []int{0, 1, 64, 96, 132, 256, 1024} {
					if k.verifiers[alg]([]byte("signed"), make([]byte, size)) {
						t.Errorf("%s verifies %d zeros", alg, size)
					}
				}
				if k.kid == "" {
					continue
				}
				if cacheable[k.kid+" "+alg] {
					t.Errorf("kid %q and %s twice", k.kid, alg)
				}
				cacheable[k.kid+" "+alg] = true
				if found, how := set.find([]byte(k.kid), []byte(alg)); how != keyFound ||
					found != k {
					t.Errorf("kid %q for %s is not found", k.kid, alg)
				}
			}
		}
		if k, _ := set.find([]byte{}, []byte("EdDSA")); k != nil {
			t.Error(`kid "" is found`)
		}
	})
}

// FuzzVerify: of all strings, only genuine tokens are accepted.
func FuzzVerify(f *testing.F) {
	genuine := map[string]bool{}
	for _, claims := range []string{fuzzClaims, strings.Replace(fuzzClaims, `"a b"`, `["a"]`, 1)} {
		for _, header := range []string{fuzzHeader, `{"alg":"EdDSA"}`,
			`{"alg":"EdDSA","kid":"k","jwk":{}}`} {
			tok := fuzzToken(header, claims)
			genuine[tok] = true
			f.Add(tok)
			f.Add(tok[:len(tok)-1])
		}
	}
	f.Add(b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(fuzzClaims)) + ".AA")
	f.Add(fuzzToken(`{"alg":"EdDSA","kid":"k","crit":["b64"],"b64":false}`, fuzzClaims))
	f.Add(fuzzToken(`{"alg":"RS256","kid":"k"}`, fuzzClaims))
	f.Add(fuzzToken(fuzzHeader, strings.Replace(fuzzClaims, "1795000300", "0", 1)))

	key := okpEntry("Ed25519", fuzzKey.Public().(ed25519.PublicKey), "")
	v, err := NewVerifier(f.Context(), Config{
		Issuers: []Issuer{{URL: fuzzIssuer, Audiences: []string{fuzzAudience}}},
		HTTPClient: &http.Client{Transport: serves(`{"issuer":"` + fuzzIssuer + `","jwks_uri":"` +
			fuzzIssuer + `keys","keys":[` + key + `]}`)},
		Now:    func() time.Time { return fuzzNow },
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	if err := v.Ready(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tok string) {
		p, err := v.Verify(context.Background(), tok)
		if (err == nil) != genuine[tok] {
			t.Fatalf("Verify says %v, and that the token is genuine is %v", err, genuine[tok])
		}
		if err != nil {
			checkErrorText(t, []byte(tok), err)
		} else if p.Subject() != "s" || p.ClientID() != "c" || !p.HasScope("a") {
			t.Errorf("the principal is %v", p)
		}
	})
}

// serves responds to each request with this JSON.
type serves string

func (body serves) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(strings.NewReader(string(body)))}, nil
}
