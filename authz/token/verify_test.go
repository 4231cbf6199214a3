package token_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// The rows of "Tokens: accepted only if all of this holds", with one test function for each item.

// row is one token. Fields that are not set are those of a genuine token.
type row struct {
	name   string
	header []string // changes, as for object
	claims []string
	at     time.Duration // the time of verification, from now
	policy func(*token.Issuer)
	code   token.Code // "" if it is accepted
	says   []string   // a part of the detail
}

// check runs the rows, each with a new verifier.
func check(t *testing.T, s *scene, rows []row) {
	t.Helper()
	names := map[string]bool{}
	for _, r := range rows {
		if names[r.name] {
			t.Errorf("two rows are named %q", r.name)
		}
		names[r.name] = true
		t.Run(r.name, func(t *testing.T) {
			s := *s
			s.now = func() time.Time { return now }
			tok := s.SignBytes([]byte(s.header(r.header...)), []byte(s.claims(r.claims...)))
			s.now = func() time.Time { return now.Add(r.at) }
			s.policy.Audiences = slices.Clone(s.policy.Audiences)
			if r.policy != nil {
				r.policy(&s.policy)
			}
			if v := s.verifier(t); r.code == "" {
				accepted(t, v, tok)
			} else {
				refused(t, v, tok, r.code, r.says...)
			}
		})
	}
}

func TestTokensForm(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	genuine := s.genuine()
	accepted(t, v, genuine)
	segments := strings.Split(genuine, ".")

	for _, test := range []struct {
		name, tok, says string
	}{
		{"empty", "", "no dots"},
		{"one segment", segments[0], "no dots"},
		{"two segments", segments[0] + "." + segments[1], "2 segments, expected 3"},
		{"four segments", genuine + "." + segments[2], "4 segments, expected 3"},
		{"five segments, a JWE", genuine + "." + segments[1] + "." + segments[2], "JWE"},
		{"six segments", genuine + "...", "6 segments, expected 3"},
		{"a dot after it", genuine + ".", "4 segments"},
		{"no header", "." + segments[1] + "." + segments[2], "header segment is empty"},
		{"detached payload (RFC 7515 appendix F)", segments[0] + ".." + segments[2], "payload segment is empty"},
		{"no signature", segments[0] + "." + segments[1] + ".", "signature segment is empty"},
		{"only dots", "..", "header segment is empty"},
		{"no ASCII", segments[0] + "." + segments[1] + ".é" + segments[2], "signature segment is not canonical base64url"},
	} {
		t.Run(test.name, func(t *testing.T) { refused(t, v, test.tok, token.Malformed, test.says) })
	}
	for i, name := range []string{"header", "payload", "signature"} {
		in := func(change func(string) string) string {
			changed := slices.Clone(segments)
			changed[i] = change(changed[i])
			return strings.Join(changed, ".")
		}
		for _, c := range []string{"\r", "\n", "\r\n", " ", "\t", "\x00", "=",
			"+", "/", "*", "\u00a0"} {
			for where, at := range map[string]int{"before": 0, "inside": len(segments[i]) / 2,
				"after": len(segments[i])} {
				t.Run(fmt.Sprintf("%q %s the %s", c, where, name), func(t *testing.T) {
					refused(t, v, in(func(s string) string {
						return s[:at] + c + s[at:]
					}), token.Malformed)
				})
			}
		}
		t.Run("padding of the "+name, func(t *testing.T) {
			refused(t, v, in(func(s string) string {
				return s + strings.Repeat("=", (4-len(s)%4)%4) + "=="
			}), token.Malformed, "canonical base64url")
			refused(t, v, in(func(s string) string {
				return s + strings.Repeat("=", 4-len(s)%4)
			}), token.Malformed, "canonical base64url")
		})
	}
}

// TestTokensFormSpelling looks for segments that have another spelling, which lenient decoders
// accept.
func TestTokensFormSpelling(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	seen := map[string]bool{}
	for n := 0; !(seen["-"] && seen["_"] && seen["header"] && seen["payload"] &&
		seen["signature"]); n++ {
		if n == 10_000 {
			t.Fatalf("no token has all of what this test wants to change: %v", seen)
		}
		pad := strconv.Quote(strings.Repeat("x", n%3))
		tok := s.SignBytes([]byte(s.header("pad", pad)),
			[]byte(s.claims("pad", pad, "jti", strconv.Quote(strconv.Itoa(n)))))
		for other, c := range map[string]string{"+": "-", "/": "_"} {
			if strings.Contains(tok, c) {
				seen[c] = true
				refused(t, v, strings.Replace(tok, c, other, 1), token.Malformed,
					"canonical base64url")
			}
		}
		segments := strings.Split(tok, ".")
		for i, name := range []string{"header", "payload", "signature"} {
			if len(segments[i])%4 == 0 {
				continue // no unused bits
			}
			seen[name] = true
			changed, last := slices.Clone(segments), len(segments[i])-1
			changed[i] = segments[i][:last] +
				string(alphabet[strings.IndexByte(alphabet, segments[i][last])|1])
			refused(t, v, strings.Join(changed, "."), token.Malformed,
				"the "+name+" segment is not canonical base64url")
		}
	}
}

// TestTokensFormLength tests genuine tokens just below, at and above 8 KiB.
func TestTokensFormLength(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	ofLength := func(want int) string {
		for padding := range 3 { // of the header: base64 has no segments of every length
			header := s.header("pad", strconv.Quote(strings.Repeat("x", padding)))
			short := len(s.SignBytes([]byte(header), []byte(s.claims("pad", `""`))))
			for n := (want - short) * 3 / 4; n <= (want-short)*3/4+2; n++ {
				if tok := s.SignBytes([]byte(header),
					[]byte(s.claims("pad", strconv.Quote(strings.Repeat("x", n))))); len(
					tok) == want {
					return tok
				}
			}
		}
		t.Fatalf("no token of %d bytes could be made", want)
		return ""
	}
	accepted(t, v, ofLength(8191))
	accepted(t, v, ofLength(8192))
	refused(t, v, ofLength(8193), token.Malformed, "8193 bytes, more than the 8192")
	refused(t, v, strings.Repeat("a", 1<<20), token.Malformed, "1048576 bytes, more than the 8192")
}

func TestTokensHeader(t *testing.T) {
	s := newScene(t)
	strict := func(i *token.Issuer) { i.RFC9068 = true }
	kid, _ := s.CurrentKey()
	quotedKid := strconv.Quote(kid)
	rows := []row{
		{name: "genuine"},
		{name: "unknown members are read past", header: []string{"x5t", `"AAAA"`, "ext", `{"a":[1,2,{"b":null}]}`}},
		{name: "names are case-sensitive, others are unknown", header: []string{"ALG", `"none"`, "Kid", `"x"`, "CRIT", `["b64"]`}},

		// alg
		{name: "alg missing", header: []string{"alg", ""}, code: token.WrongAlgorithm, says: []string{"no alg"}},
		{name: "alg empty", header: []string{"alg", `""`}, code: token.WrongAlgorithm, says: []string{"no alg"}},
		{name: "alg by another name", header: []string{"alg", "", "Alg", `"EdDSA"`}, code: token.WrongAlgorithm, says: []string{"no alg"}},
		{name: "alg a number", header: []string{"alg", "1"}, code: token.Malformed, says: []string{"header: alg is not a string"}},
		{name: "alg null", header: []string{"alg", "null"}, code: token.Malformed, says: []string{"header: alg is not a string"}},
		{name: "alg an array", header: []string{"alg", `["EdDSA"]`}, code: token.Malformed, says: []string{"header: alg is not a string"}},
		{name: "alg not allowed for the issuer", header: []string{"alg", `"RS256"`}, code: token.WrongAlgorithm, says: []string{`alg is "RS256"`, "allow-list is EdDSA"}},
		{name: "alg allowed, but not that of the key", header: []string{"alg", `"RS256"`}, policy: func(i *token.Issuer) { i.Algorithms = nil },
			code: token.WrongAlgorithm,
			says: []string{"alg is RS256", "not an algorithm of key " + quotedKid}},
		{name: "alg of the key, but not allowed", policy: func(i *token.Issuer) { i.Algorithms = []string{"RS256", "ES256"} },
			code: token.WrongAlgorithm, says: []string{`alg is "EdDSA"`,
				"allow-list is RS256, ES256"}},

		// extensions that change what the signed bytes mean
		{name: "crit", header: []string{"crit", `["exp"]`, "exp", "1"}, code: token.Malformed, says: []string{"header: crit is not allowed"}},
		{name: "crit, empty", header: []string{"crit", `[]`}, code: token.Malformed, says: []string{"crit"}},
		{name: "crit, null", header: []string{"crit", `null`}, code: token.Malformed, says: []string{"crit"}},
		{name: "b64 false (RFC 7797)", header: []string{"b64", "false", "crit", `["b64"]`}, code: token.Malformed, says: []string{"b64"}},
		{name: "b64 true", header: []string{"b64", "true"}, code: token.Malformed, says: []string{"b64"}},
		{name: "zip", header: []string{"zip", `"DEF"`}, code: token.Malformed, says: []string{"zip"}},
		{name: "cty, a nested JWT (RFC 7519 §5.2)", header: []string{"cty", `"JWT"`}, code: token.Malformed, says: []string{"cty"}},

		// kid
		{name: "kid a number", header: []string{"kid", "1"}, code: token.Malformed, says: []string{"header: kid is not a string"}},
		{name: "kid null", header: []string{"kid", "null"}, code: token.Malformed, says: []string{"header: kid is not a string"}},
		{name: "kid an object", header: []string{"kid", `{"a":1}`}, code: token.Malformed, says: []string{"header: kid is not a string"}},
		{name: "kid empty", header: []string{"kid", `""`}, code: token.UnknownKey, says: []string{"kid is an empty string"}},
		{name: "kid unknown", header: []string{"kid", `"other"`}, code: token.UnknownKey, says: []string{"no usable key of " + issuerURL + ` has kid "other"`}},
		{name: "kid in other case", header: []string{"kid", strconv.Quote(strings.ToLower(kid))}, code: token.UnknownKey, says: []string{strings.ToLower(kid)}},
		{name: "kid with a space after it", header: []string{"kid", strconv.Quote(kid + " ")}, code: token.UnknownKey},
		{name: "kid that would break a log line", header: []string{"kid", `"a\r\nlevel=INFO \u001b[31m\u202e"`}, code: token.UnknownKey, says: []string{`"a\r\nlevel=INFO \x1b[31m\u202e"`}},
		{name: "kid that would fill a log", header: []string{"kid", strconv.Quote(strings.Repeat("k", 4000))}, code: token.UnknownKey, says: []string{"k\"…"}},
		{name: "kid that is a path", header: []string{"kid", `"../../../../dev/null"`}, code: token.UnknownKey},

		// typ
		{name: "typ absent", header: []string{"typ", ""}},
		{name: "typ JWT", header: []string{"typ", `"JWT"`}},
		{name: "typ jwt", header: []string{"typ", `"jwt"`}},
		{name: "typ at+jwt", header: []string{"typ", `"at+jwt"`}},
		{name: "typ AT+JWT", header: []string{"typ", `"AT+JWT"`}},
		{name: "typ application/at+jwt", header: []string{"typ", `"application/at+jwt"`}},
		{name: "typ Application/At+Jwt", header: []string{"typ", `"Application/At+Jwt"`}},
		{name: "typ empty", header: []string{"typ", `""`}, code: token.WrongType, says: []string{`typ is "", expected at+jwt, JWT or none`}},
		{name: "typ application/jwt", header: []string{"typ", `"application/jwt"`}, code: token.WrongType, says: []string{`typ is "application/jwt", expected at+jwt, JWT or none`}},
		{name: "typ of an ID token by its own name", header: []string{"typ", `"id_token+jwt"`}, code: token.WrongType, says: []string{"expected at+jwt"}},
		{name: "typ of a DPoP proof", header: []string{"typ", `"dpop+jwt"`}, code: token.WrongType, says: []string{"DPoP proof, not an access token"}},
		{name: "typ of a logout token", header: []string{"typ", `"Logout+JWT"`}, code: token.WrongType, says: []string{"logout token, not an access token"}},
		{name: "typ JOSE", header: []string{"typ", `"JOSE"`}, code: token.WrongType},
		{name: "typ with a parameter", header: []string{"typ", `"at+jwt;v=1"`}, code: token.WrongType},
		{name: "typ with a space", header: []string{"typ", `" at+jwt"`}, code: token.WrongType},
		{name: "typ with a dotted capital I", header: []string{"typ", `"applİcation/at+jwt"`}, code: token.WrongType},
		{name: "typ null", header: []string{"typ", "null"}, code: token.Malformed, says: []string{"header: typ is not a string"}},
		{name: "typ an array", header: []string{"typ", `["JWT"]`}, code: token.Malformed, says: []string{"header: typ is not a string"}},
		{name: "strict, typ at+jwt", policy: strict},
		{name: "strict, typ Application/AT+JWT", policy: strict, header: []string{"typ", `"Application/AT+JWT"`}},
		{name: "strict, typ absent", policy: strict, header: []string{"typ", ""}, code: token.WrongType, says: []string{"typ is absent, expected at+jwt (RFC 9068 §4"}},
		{name: "strict, typ JWT", policy: strict, header: []string{"typ", `"JWT"`}, code: token.WrongType, says: []string{`typ is "JWT", expected at+jwt (RFC 9068 §4`}},
		{name: "strict, typ empty", policy: strict, header: []string{"typ", `""`}, code: token.WrongType},
	}
	for _, member := range []string{"jku", "x5u"} {
		rows = append(rows, row{name: member + " is never followed", header: []string{member, `"https://attacker.example/keys"`}})
	}
	rows = append(rows,
		row{name: "jwk is never used", header: []string{"jwk", jwk(ed25519Key().Public())}},
		row{name: "x5c is never used", header: []string{"x5c", `["AAAA"]`}},
	)
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "HS256", "HS512", "rs256",
		"RS256 ", "ed25519", "Ed448", "ES256K", "eddsa", "RSA-OAEP", "dir"} {
		rows = append(rows, row{name: "alg " + alg, header: []string{"alg", strconv.Quote(alg)},
			policy: func(i *token.Issuer) { i.Algorithms = nil }, // the default
			code:   token.WrongAlgorithm, says: []string{"alg is " + strconv.Quote(alg),
				"allow-list is RS256, PS256, ES256, EdDSA"}})
	}
	for _, alg := range []string{"RS384", "RS512", "PS384", "PS512", "ES384", "ES512"} {
		rows = append(rows, row{name: "alg " + alg + " by default",
			header: []string{"alg", strconv.Quote(alg)}, policy: func(i *token.Issuer) {
				i.Algorithms = nil
			},
			code: token.WrongAlgorithm, says: []string{"allow-list"}})
	}
	check(t, s, rows)

	for _, r := range s.wire.requests() {
		if r != discoveryURL && r != keySetURL {
			t.Errorf("%s was requested: want only discovery and the key set of the configured issuer "+
				"may be", r)
		}
	}
}

// notJSONObjects violate RFC 7515 §4 and RFC 7519 §4 in their form only. The object is a genuine
// one.
func notJSONObjects(object string) map[string]string {
	inside := strings.TrimSuffix(object, "}")
	withMember := func(raw string) string { return inside + "," + raw + "}" }
	return map[string]string{
		"no JSON":                    "x",
		"a space":                    " ",
		"null":                       "null",
		"a string":                   strconv.Quote(object),
		"a number":                   "1",
		"an array":                   "[" + object + "]",
		"cut short":                  inside,
		"two objects":                object + object,
		"an object after a space":    object + " " + object,
		"something after it":         object + "x",
		"a NUL after it":             object + "\x00",
		"a closing brace after it":   object + "}",
		"a byte order mark":          "\ufeff" + object,
		"a comment":                  "/**/" + object,
		"a trailing comma":           inside + ",}",
		"single quotes":              withMember(`'a':1`),
		"a name without quotes":      withMember(`a:1`),
		"NaN":                        withMember(`"a":NaN`),
		"Infinity":                   withMember(`"a":Infinity`),
		"a hexadecimal number":       withMember(`"a":0x10`),
		"a leading zero":             withMember(`"a":01`),
		"a bare control character":   withMember("\"a\":\"\n\""),
		"a name twice":               withMember(`"note":"` + canary + `"`),
		"a name twice, once escaped": withMember(`"\u006eote":1`),
		"a name twice, nested":       withMember(`"a":{"` + canary + `":1,"` + canary + `":1}`),
		"a name twice, in an array":  withMember(`"a":[{"b":{"c":1,"c":1}}]`),
		"invalid UTF-8":              withMember("\"a\":\"" + canary + "\xff\""),
		"invalid UTF-8 in a name":    withMember("\"\xc3\x28\":1"),
		"invalid UTF-8, nested":      withMember("\"a\":[{\"b\":\"\xed\xa0\x80\"}]"),
		"overlong UTF-8":             withMember("\"a\":\"\xc0\xae\""),
		"half a surrogate pair":      withMember(`"a":"\ud800"`),
		"half a pair in a name":      withMember(`"\udc00":1`),
		"UTF-16":                     strings.Join(strings.Split(object, ""), "\x00"),
		"open brackets":              inside + `,"a":` + strings.Repeat("[", 2000),
		"open braces":                inside + `,"a":` + strings.Repeat(`{"a":`, 800),
	}
}

func TestTokensHeaderIsAnObject(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	for name, header := range notJSONObjects(s.header()) {
		t.Run(name, func(t *testing.T) {
			refused(t, v, s.SignBytes([]byte(header), []byte(s.claims())), token.Malformed,
				"header: ")
		})
	}
	for _, name := range []string{"alg", "kid", "typ"} {
		t.Run(name+" twice", func(t *testing.T) {
			twice := s.header("", `"`+name+`":"x"`)
			refused(t, v, s.SignBytes([]byte(twice), []byte(s.claims())), token.Malformed,
				"header: a member name occurs twice")
		})
	}
	// whitespace of JSON
	accepted(t, v, s.SignBytes([]byte(" \t\r\n"+s.header()+" \n"), []byte(s.claims())))
}

func TestTokensClaimsAreAnObject(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	for name, claims := range notJSONObjects(s.claims()) {
		t.Run(name, func(t *testing.T) {
			refused(t, v, s.SignBytes([]byte(s.header()), []byte(claims)), token.Malformed,
				"claims: ")
		})
	}
	for _, name := range []string{"iss", "aud", "exp", "sub", "nbf", "scope", "cnf"} {
		t.Run(name+" twice", func(t *testing.T) {
			value := map[string]string{"exp": "1", "nbf": "1"}[name]
			if value == "" {
				value = strconv.Quote(issuerURL)
			}
			twice := s.claims("", `"`+name+`":`+value, "", `"`+name+`":`+value)
			refused(t, v, s.SignBytes([]byte(s.header()), []byte(twice)), token.Malformed,
				"claims: a member name occurs twice")
		})
	}
	// whitespace of JSON
	accepted(t, v, s.SignBytes([]byte(s.header()), []byte("\n"+s.claims()+"\t")))
	// Deep but well-formed objects are accepted, because the parser does not recurse.
	accepted(t, v, s.genuine("a", strings.Repeat("[", 2000)+strings.Repeat("]", 2000)))
	accepted(t, v, s.genuine("a", strings.Repeat(`{"a":`, 800)+"1"+strings.Repeat("}", 800)))
}

// TestTokensSignature: each algorithm accepts its own signature and no other algorithm's, with one
// key each.
func TestTokensSignature(t *testing.T) {
	all := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
		"EdDSA"}
	for _, alg := range all {
		t.Run(alg, func(t *testing.T) {
			s := newScene(t)
			s.policy.Algorithms = all
			key := keyFor(alg)
			s.publishOnly(jwk(key.Public(), "kid", `"k"`, "alg", strconv.Quote(alg), "use",
				`"sig"`))
			v := s.verifier(t)
			header := s.header("kid", `"k"`, "alg", strconv.Quote(alg))
			tok := sign(t, alg, key, header, s.claims())
			accepted(t, v, tok)

			other := strings.Split(sign(t, alg, key, header, s.claims("sub", `"other"`)), ".")
			parts := strings.Split(tok, ".")
			refused(t, v, parts[0]+"."+parts[1]+"."+other[2], token.BadSignature,
				`does not verify with key "k"`)
			refused(t, v, parts[0]+"."+other[1]+"."+parts[2], token.BadSignature,
				`does not verify with key "k"`)
			decoded := string(must(base64.RawURLEncoding.DecodeString(parts[2])))
			for name, changed := range map[string]string{
				"cut short":     segment(decoded[:len(decoded)-1]),
				"longer":        segment(decoded + "\x00"),
				"longer before": segment("\x00" + decoded),
				"twice":         segment(decoded + decoded),
				"one byte":      "AA",
				"zeros":         segment(make([]byte, len(decoded))),
			} {
				t.Run(name, func(t *testing.T) {
					refused(t, v, parts[0]+"."+parts[1]+"."+changed, token.BadSignature,
						"Was the token changed")
				})
			}
			for _, name := range all {
				if name != alg {
					// Signed with alg, but the header has name. The key is published for alg only.
					lie := sign(t, alg, key, s.header("kid", `"k"`, "alg", strconv.Quote(name)),
						s.claims())
					refused(t, v, lie, token.WrongAlgorithm, "alg is "+name,
						`not an algorithm of key "k"`)
				}
			}
		})
	}
}

func TestTokensClaims(t *testing.T) {
	s := newScene(t)
	strict := func(i *token.Issuer) { i.RFC9068 = true }
	seconds := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	const day, leeway = 24 * time.Hour, 30 * time.Second
	ours := strconv.Quote(audience)
	check(t, s, []row{
		// iss
		{name: "iss missing", claims: []string{"iss", ""}, code: token.WrongIssuer, says: []string{`issuer is "", expected ` + issuerURL}},
		{name: "iss empty", claims: []string{"iss", `""`}, code: token.WrongIssuer},
		{name: "iss null", claims: []string{"iss", "null"}, code: token.Malformed, says: []string{"claims: iss is not a string"}},
		{name: "iss an array", claims: []string{"iss", `["` + issuerURL + `"]`}, code: token.Malformed, says: []string{"claims: iss is not a string"}},
		{name: "iss without the trailing slash", claims: []string{"iss", strconv.Quote(strings.TrimSuffix(issuerURL, "/"))},
			code: token.WrongIssuer, says: []string{`issuer is "https://localhost:8443", expected "https://localhost:8443/": they differ by a trailing slash`}},
		{name: "iss in other case", claims: []string{"iss", strconv.Quote(strings.ToUpper(issuerURL))}, code: token.WrongIssuer, says: []string{"HTTPS://LOCALHOST:8443/", issuerURL}},
		{name: "iss with a path", claims: []string{"iss", strconv.Quote(issuerURL + "tenant")}, code: token.WrongIssuer},
		{name: "iss with the default of something", claims: []string{"iss", `"https://localhost/"`}, code: token.WrongIssuer},
		{name: "iss of somebody else", claims: []string{"iss", `"https://attacker.example/"`}, code: token.WrongIssuer, says: []string{`"https://attacker.example/"`, "expected " + issuerURL}},
		{name: "iss with escapes is the same string", claims: []string{"iss", `"https:\/\/localhost:8443\u002f"`}},

		// aud
		{name: "aud an array of ours alone", claims: []string{"aud", "[" + ours + "]"}},
		{name: "aud an array, ours first", claims: []string{"aud", "[" + ours + `,"urn:other"]`}},
		{name: "aud an array, ours last", claims: []string{"aud", `["urn:other","",` + ours + `]`}},
		{name: "aud the second of those configured", claims: []string{"aud", `"urn:second"`}, policy: func(i *token.Issuer) { i.Audiences = append(i.Audiences, "urn:second") }},
		{name: "aud missing", claims: []string{"aud", ""}, code: token.WrongAudience, says: []string{"audience is absent, expected " + ours}},
		{name: "aud an empty array", claims: []string{"aud", "[]"}, code: token.WrongAudience, says: []string{"audience is an empty array, expected " + ours}},
		{name: "aud empty", claims: []string{"aud", `""`}, code: token.WrongAudience, says: []string{`audience is "", expected ` + ours}},
		{name: "aud null", claims: []string{"aud", "null"}, code: token.Malformed, says: []string{"claims: aud is neither a string nor an array of strings"}},
		{name: "aud an object", claims: []string{"aud", `{"a":` + ours + `}`}, code: token.Malformed, says: []string{"claims: aud is neither a string nor an array of strings"}},
		{name: "aud a number", claims: []string{"aud", "1"}, code: token.Malformed, says: []string{"claims: aud is neither a string nor an array of strings"}},
		{name: "aud an array with null", claims: []string{"aud", "[" + ours + ",null]"}, code: token.Malformed, says: []string{"claims: an element of aud is not a string"}},
		{name: "aud an array of arrays", claims: []string{"aud", "[[" + ours + "]]"}, code: token.Malformed, says: []string{"claims: an element of aud is not a string"}},
		{name: "aud that of another API", claims: []string{"aud", `"urn:other"`}, code: token.WrongAudience, says: []string{`audience is "urn:other", expected ` + ours}},
		{name: "aud several others", claims: []string{"aud", `["urn:a","urn:b"]`}, code: token.WrongAudience, says: []string{`audience is "urn:a", "urn:b", expected ` + ours}},
		{name: "aud without the trailing slash", claims: []string{"aud", `"https://api.example"`}, code: token.WrongAudience},
		{name: "aud with ours as its beginning", claims: []string{"aud", `"https://api.example/v2"`}, code: token.WrongAudience},
		{name: "aud ours and another in one string", claims: []string{"aud", `"https://api.example/ urn:other"`}, code: token.WrongAudience},
		{name: "aud in other case", claims: []string{"aud", `"HTTPS://api.example/"`}, code: token.WrongAudience},
		{name: "aud long", claims: []string{"aud", `["` + strings.Repeat("a", 1000) + `"` + strings.Repeat(`,"`+strings.Repeat("b", 400)+`"`, 9) + `]`}, code: token.WrongAudience},
		{name: "aud of an ID token", claims: []string{"aud", `"reader"`, "nonce", `"n"`}, code: token.WrongAudience, says: []string{"This looks like an ID token"}},

		// exp
		{name: "exp missing", claims: []string{"exp", ""}, code: token.Malformed, says: []string{"claims: exp is missing"}},
		{name: "exp a string", claims: []string{"exp", strconv.Quote(seconds(time.Minute))}, code: token.Malformed, says: []string{"claims: exp is not a number of seconds"}},
		{name: "exp null", claims: []string{"exp", "null"}, code: token.Malformed, says: []string{"claims: exp is not a number"}},
		{name: "exp true", claims: []string{"exp", "true"}, code: token.Malformed, says: []string{"claims: exp is not a number"}},
		{name: "exp an array", claims: []string{"exp", "[" + seconds(time.Minute) + "]"}, code: token.Malformed, says: []string{"claims: exp is not a number"}},
		{name: "exp NaN", claims: []string{"exp", "NaN"}, code: token.Malformed, says: []string{"claims: not valid JSON"}},
		{name: "exp 1e400", claims: []string{"exp", "1e400"}, code: token.Malformed, says: []string{"claims: exp is out of range"}},
		{name: "exp 1e300", claims: []string{"exp", "1e300"}, code: token.Malformed, says: []string{"claims: exp is out of range"}},
		{name: "exp of five hundred digits", claims: []string{"exp", strings.Repeat("9", 500)}, code: token.Malformed, says: []string{"claims: exp is out of range"}},
		{name: "exp 2^63", claims: []string{"exp", "9223372036854775808"}, code: token.Malformed, says: []string{"claims: exp is out of range"}},
		{name: "exp 2^53", claims: []string{"exp", "9007199254740992"}, code: token.TooLongLived, says: []string{"more than the maximum lifetime of 24h0m0s"}},
		{name: "exp negative", claims: []string{"exp", "-1"}, code: token.Malformed, says: []string{"claims: exp is out of range"}},
		{name: "exp zero", claims: []string{"exp", "0"}, code: token.Expired, says: []string{"expired 20775 days ago"}},
		{name: "exp minus zero", claims: []string{"exp", "-0"}, code: token.Expired},
		{name: "exp too small for a float", claims: []string{"exp", "1e-400"}, code: token.Expired},
		{name: "exp in milliseconds", claims: []string{"exp", seconds(time.Minute) + "000"}, code: token.TooLongLived, says: []string{"Is it in milliseconds?"}},
		{name: "exp with a fraction", claims: []string{"exp", seconds(time.Minute) + ".5"}},
		{name: "exp with an exponent", claims: []string{"exp", "1.7950001e9"}},
		{name: "exp just not reached", claims: []string{"exp", seconds(time.Minute)}, at: time.Minute + leeway - time.Millisecond},
		{name: "exp reached to the second", claims: []string{"exp", seconds(time.Minute)}, at: time.Minute + leeway, code: token.Expired, says: []string{"expired 30s ago"}},
		{name: "exp with a fraction, just not reached", claims: []string{"exp", seconds(time.Minute) + ".5"}, at: time.Minute + leeway + 499*time.Millisecond},
		{name: "exp with a fraction, reached", claims: []string{"exp", seconds(time.Minute) + ".5"}, at: time.Minute + leeway + 500*time.Millisecond, code: token.Expired},
		{name: "exp 41 s ago", claims: []string{"exp", seconds(-41 * time.Second)}, code: token.Expired, says: []string{"expired 41s ago"}},
		{name: "exp, no leeway, just not reached", claims: []string{"exp", seconds(time.Minute)}, at: time.Minute - time.Millisecond, policy: func(i *token.Issuer) { i.Leeway = token.NoLeeway }},
		{name: "exp, no leeway, reached", claims: []string{"exp", seconds(time.Minute)}, at: time.Minute, policy: func(i *token.Issuer) { i.Leeway = token.NoLeeway }, code: token.Expired},
		{name: "exp, leeway of 60 s, just not reached", claims: []string{"exp", seconds(0)}, at: time.Minute - time.Millisecond, policy: func(i *token.Issuer) { i.Leeway = time.Minute }},
		{name: "exp, leeway of 60 s, reached", claims: []string{"exp", seconds(0)}, at: time.Minute, policy: func(i *token.Issuer) { i.Leeway = time.Minute }, code: token.Expired},
		{name: "exp at the maximum lifetime", claims: []string{"exp", seconds(day + leeway)}},
		{name: "exp a second after the maximum lifetime", claims: []string{"exp", seconds(day + leeway + time.Second)}, code: token.TooLongLived, says: []string{"exp is 24h0m31s from now, more than the maximum lifetime of 24h0m0s"}},
		{name: "exp at a configured maximum lifetime", claims: []string{"exp", seconds(time.Hour + leeway)}, policy: func(i *token.Issuer) { i.MaxLifetime = time.Hour }},
		{name: "exp after a configured maximum lifetime", claims: []string{"exp", seconds(time.Hour + leeway + time.Second)}, policy: func(i *token.Issuer) { i.MaxLifetime = time.Hour },
			code: token.TooLongLived, says: []string{"more than the maximum lifetime of 1h0m0s"}},
		{name: "exp within a longer maximum lifetime", claims: []string{"exp", seconds(7 * day)}, policy: func(i *token.Issuer) { i.MaxLifetime = 7 * day }},

		// nbf, iat
		{name: "nbf and iat absent", claims: []string{"iat", "", "nbf", ""}},
		{name: "nbf now", claims: []string{"nbf", seconds(0)}},
		{name: "nbf zero", claims: []string{"nbf", "0"}},
		{name: "nbf at the leeway", claims: []string{"nbf", seconds(leeway)}},
		{name: "nbf just after the leeway", claims: []string{"nbf", seconds(leeway) + ".001"}, code: token.NotYetValid, says: []string{"valid in 30s (nbf)"}},
		{name: "nbf, no leeway, reached", claims: []string{"nbf", seconds(0)}, policy: func(i *token.Issuer) { i.Leeway = token.NoLeeway }},
		{name: "nbf, no leeway, not reached", claims: []string{"nbf", seconds(time.Second)}, policy: func(i *token.Issuer) { i.Leeway = token.NoLeeway }, code: token.NotYetValid},
		{name: "nbf a string", claims: []string{"nbf", `"0"`}, code: token.Malformed, says: []string{"claims: nbf is not a number"}},
		{name: "nbf null", claims: []string{"nbf", "null"}, code: token.Malformed, says: []string{"claims: nbf is not a number"}},
		{name: "nbf negative", claims: []string{"nbf", "-1"}, code: token.Malformed, says: []string{"claims: nbf is out of range"}},
		{name: "nbf 1e400", claims: []string{"nbf", "1e400"}, code: token.Malformed, says: []string{"claims: nbf is out of range"}},
		{name: "iat long ago", claims: []string{"iat", "0"}},
		{name: "iat at the leeway", claims: []string{"iat", seconds(leeway)}},
		{name: "iat just after the leeway", claims: []string{"iat", seconds(leeway) + ".001"}, code: token.NotYetValid, says: []string{"issued in 30s (iat)"}},
		{name: "iat in milliseconds", claims: []string{"iat", seconds(0) + "000"}, code: token.NotYetValid, says: []string{"(iat)"}},
		{name: "iat a string", claims: []string{"iat", strconv.Quote(seconds(0))}, code: token.Malformed, says: []string{"claims: iat is not a number"}},
		{name: "iat false", claims: []string{"iat", "false"}, code: token.Malformed, says: []string{"claims: iat is not a number"}},
		{name: "iat 1e400", claims: []string{"iat", "1e400"}, code: token.Malformed, says: []string{"claims: iat is out of range"}},

		// sub
		{name: "sub missing", claims: []string{"sub", ""}, code: token.Malformed, says: []string{"claims: sub is missing or empty"}},
		{name: "sub empty", claims: []string{"sub", `""`}, code: token.Malformed, says: []string{"claims: sub is missing or empty"}},
		{name: "sub null", claims: []string{"sub", "null"}, code: token.Malformed, says: []string{"claims: sub is not a string"}},
		{name: "sub a number", claims: []string{"sub", "7"}, code: token.Malformed, says: []string{"claims: sub is not a string"}},

		// the strict profile (RFC 9068 §2.2)
		{name: "strict, all there", policy: strict},
		{name: "strict, no client_id", policy: strict, claims: []string{"client_id", ""}, code: token.Malformed, says: []string{"claims: client_id missing, required by RFC 9068"}},
		{name: "strict, client_id empty", policy: strict, claims: []string{"client_id", `""`}, code: token.Malformed, says: []string{"client_id missing"}},
		{name: "strict, azp is no client_id", policy: strict, claims: []string{"client_id", "", "azp", `"reader"`}, code: token.Malformed, says: []string{"client_id missing"}},
		{name: "strict, no iat", policy: strict, claims: []string{"iat", ""}, code: token.Malformed, says: []string{"iat missing"}},
		{name: "strict, no jti", policy: strict, claims: []string{"jti", ""}, code: token.Malformed, says: []string{"jti missing"}},
		{name: "strict, none of them", policy: strict, claims: []string{"client_id", "", "iat", "", "jti", ""}, code: token.Malformed, says: []string{"client_id, iat, jti missing"}},
		{name: "not strict, none of them", claims: []string{"client_id", "", "iat", "", "jti", ""}},
		{name: "client_id a number", claims: []string{"client_id", "1"}, code: token.Malformed, says: []string{"claims: client_id is not a string"}},
		{name: "azp an array", claims: []string{"azp", `["a"]`}, code: token.Malformed, says: []string{"claims: azp is not a string"}},
		{name: "jti null", claims: []string{"jti", "null"}, code: token.Malformed, says: []string{"claims: jti is not a string"}},

		// cnf: bound tokens (RFC 9449 §7.2, RFC 8705 §3)
		{name: "cnf of DPoP", claims: []string{"cnf", `{"jkt":"x"}`}, code: token.Bound, says: []string{"bound to a key (cnf)", "presented as a bearer token"}},
		{name: "cnf of mutual TLS", claims: []string{"cnf", `{"x5t#S256":"x"}`}, code: token.Bound},
		{name: "cnf of a kind that nobody knows", claims: []string{"cnf", `{"` + canary + `":1}`}, code: token.Bound},
		{name: "cnf empty", claims: []string{"cnf", "{}"}, code: token.Bound},
		{name: "cnf null", claims: []string{"cnf", "null"}, code: token.Bound},
		{name: "cnf a string", claims: []string{"cnf", `"x"`}, code: token.Bound},
		{name: "cnf inside another claim is another claim", claims: []string{"act", `{"cnf":{}}`}},
	})
}

// TestTokensKey: the key is found by kid in the issuer's set, or is the only usable key of it.
func TestTokensKey(t *testing.T) {
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	ed := func(changes ...string) string { return jwk(ed25519Key().Public(), changes...) }
	second := func(changes ...string) string { return jwk(other.Public(), changes...) }
	cacheable := []string{"kid", `"k"`}
	unnamed := []string{"kid", ""}
	k := func(changes ...string) []string { return append([]string{"kid", `"k"`}, changes...) }

	for _, test := range []struct {
		name   string
		keys   []string // the set
		header []string
		code   token.Code
		says   string
	}{
		{name: "by kid", keys: []string{second("kid", `"j"`), ed(k()...)}, header: cacheable},
		{name: "by kid, of one without alg", keys: []string{ed(k()...)}, header: cacheable},
		{name: "by kid, of one with alg", keys: []string{ed(k("alg", `"EdDSA"`)...)}, header: cacheable},
		{name: "by a kid of many bytes", keys: []string{ed("kid", strconv.Quote("ключ "+strings.Repeat("k", 1000)))}, header: []string{"kid", strconv.Quote("ключ " + strings.Repeat("k", 1000))}},
		{name: "kid of another key", keys: []string{ed("kid", `"j"`), second(k()...)}, header: cacheable, code: token.BadSignature, says: `does not verify with key "k"`},
		{name: "use sig", keys: []string{ed(k("use", `"sig"`)...)}, header: cacheable},
		{name: "use enc", keys: []string{second("kid", `"j"`), ed(k("use", `"enc"`)...)}, header: cacheable, code: token.UnknownKey, says: `has kid "k"`},
		{name: "use of another name", keys: []string{second("kid", `"j"`), ed(k("use", `"SIG"`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "use empty", keys: []string{second("kid", `"j"`), ed(k("use", `""`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "use a number", keys: []string{second("kid", `"j"`), ed(k("use", `1`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "key_ops verify", keys: []string{ed(k("key_ops", `["verify"]`)...)}, header: cacheable},
		{name: "key_ops verify among others", keys: []string{ed(k("key_ops", `["encrypt","verify"]`)...)}, header: cacheable},
		{name: "key_ops sign", keys: []string{second("kid", `"j"`), ed(k("key_ops", `["sign"]`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "key_ops empty", keys: []string{second("kid", `"j"`), ed(k("key_ops", `[]`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "key_ops a string", keys: []string{second("kid", `"j"`), ed(k("key_ops", `"verify"`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "use sig, key_ops sign", keys: []string{second("kid", `"j"`), ed(k("use", `"sig"`, "key_ops", `["sign"]`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "alg of another kind", keys: []string{second("kid", `"j"`), ed(k("alg", `"RS256"`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "alg by the other name of EdDSA", keys: []string{second("kid", `"j"`), ed(k("alg", `"Ed25519"`)...)}, header: cacheable},
		{name: "alg by the name of another curve", keys: []string{second("kid", `"j"`), ed(k("alg", `"Ed448"`)...)}, header: cacheable, code: token.UnknownKey},
		{name: "alg empty", keys: []string{second("kid", `"j"`), ed(k("alg", `""`)...)}, header: cacheable, code: token.UnknownKey},

		{name: "no kid, one key without kid", keys: []string{ed()}, header: unnamed},
		{name: "no kid, one key with kid", keys: []string{ed(k()...)}, header: unnamed},
		{name: "no kid, one key with an empty kid", keys: []string{ed("kid", `""`)}, header: unnamed},
		{name: "no kid, one usable key", keys: []string{second("use", `"enc"`), ed(k()...), `{"kty":"oct"}`, `{"kty":"RSA"}`}, header: unnamed},
		{name: "no kid, the one key is another", keys: []string{second(k()...)}, header: unnamed, code: token.BadSignature, says: `key "k"`},
		{name: "no kid, two keys", keys: []string{ed(k()...), second("kid", `"j"`)}, header: unnamed, code: token.UnknownKey, says: "2 usable keys"},
		{name: "no kid, two keys without kid", keys: []string{ed(), second()}, header: unnamed, code: token.UnknownKey, says: "2 usable keys"},
		{name: "no kid, one key of another type", keys: []string{jwk(p256Key().Public())}, header: unnamed, code: token.UnknownKey, says: "expected one for EdDSA"},
		{name: "no kid, two keys of which only one would fit", keys: []string{ed(k()...), jwk(p256Key().Public(), "kid", `"j"`)}, header: unnamed, code: token.UnknownKey, says: "2 usable keys"},
		{name: "kid empty never matches", keys: []string{ed("kid", `""`)}, header: []string{"kid", `""`}, code: token.UnknownKey, says: "empty string"},
		{name: "a kid, one key without kid", keys: []string{ed()}, header: cacheable, code: token.UnknownKey, says: `has kid "k"`},

		{name: "same kid, other algorithm", keys: []string{jwk(p256Key().Public(), k()...), jwk(rsaKey().Public(), k()...), ed(k()...)}, header: cacheable},
		{name: "same kid, same algorithm: neither", keys: []string{ed(k()...), second(k()...), second("kid", `"j"`)}, header: cacheable, code: token.UnknownKey, says: `has kid "k"`},
		{name: "the same key twice is one key", keys: []string{ed(k()...), ed(k("alg", `"EdDSA"`)...), second("kid", `"j"`)}, header: cacheable},
		{name: "the same key twice is one key, not named", keys: []string{ed(k()...), ed(k()...)}, header: unnamed},
		{name: "the same key twice, and another of its kid", keys: []string{ed(k()...), ed(k()...), second(k()...), second("kid", `"j"`)}, header: cacheable, code: token.UnknownKey},
		{name: "same kid, the other is for encryption", keys: []string{ed(k()...), second(k("use", `"enc"`)...)}, header: cacheable},
		{name: "same kid, the other is broken", keys: []string{ed(k()...), `{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAA"}`}, header: cacheable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			s.policy.Algorithms = []string{"EdDSA", "ES256", "RS256"}
			s.publishOnly(test.keys...)
			v := s.verifier(t)
			tok := sign(t, "EdDSA", ed25519Key(), s.header(test.header...), s.claims())
			if test.code == "" {
				accepted(t, v, tok)
			} else {
				refused(t, v, tok, test.code, test.says)
			}
		})
	}
}

// TestTokensKeyWithoutAlg: it serves any allow-listed algorithm that fits its type and curve, and
// no other.
func TestTokensKeyWithoutAlg(t *testing.T) {
	s := newScene(t)
	s.policy.Algorithms = []string{"RS256", "RS512", "PS384", "ES256", "ES384", "EdDSA"}
	s.publishOnly(jwk(rsaKey().Public(), "kid", `"rsa"`), jwk(p256Key().Public(), "kid", `"p256"`),
		jwk(p384Key().Public(), "kid", `"p384"`))
	v := s.verifier(t)
	for _, test := range []struct {
		kid, alg string
		code     token.Code
	}{
		{"rsa", "RS256", ""}, {"rsa", "RS512", ""}, {"rsa", "PS384", ""}, {"p256", "ES256", ""}, {"p384", "ES384", ""},
		{"rsa", "RS384", token.WrongAlgorithm}, {"rsa", "PS256", token.WrongAlgorithm}, // not on the list
		{"p384", "ES256", token.WrongAlgorithm}, {"p256", "ES384", token.WrongAlgorithm}, {"p256", "RS256", token.WrongAlgorithm}, {"rsa", "EdDSA", token.WrongAlgorithm},
	} {
		t.Run(test.kid+" "+test.alg, func(t *testing.T) {
			tok := sign(t, test.alg, keyFor(test.alg), s.header("kid", strconv.Quote(test.kid),
				"alg", strconv.Quote(test.alg)), s.claims())
			if test.code == "" {
				accepted(t, v, tok)
			} else {
				refused(t, v, tok, test.code, test.alg)
			}
		})
	}
}

// TestTokensKeyOfItsOwnIssuer: keys of one issuer do not verify tokens of another.
func TestTokensKeyOfItsOwnIssuer(t *testing.T) {
	s := newScene(t)
	const second = "https://localhost:9443/"
	_, secondKey, _ := ed25519.GenerateKey(rand.Reader)
	secondSet := func(kid string) string {
		return `{"issuer":"` + second + `","jwks_uri":"` + second + `keys","keys":[` +
			jwk(secondKey.Public(), "kid", kid) + `]}`
	}
	kid, _ := s.CurrentKey()
	for name, kids := range map[string][2]string{"other kid": {`"k"`, `"k"`},
		"same kid": {strconv.Quote(kid), strconv.Quote(kid)}, "no kid": {`"k"`, ""}} {
		t.Run(name, func(t *testing.T) {
			// discovery and key set at once
			s.wire.hosts["localhost:9443"] = serveJSON(secondSet(kids[0]))
			v, err := token.NewVerifier(t.Context(),
				s.config(s.policy, token.Issuer{URL: second, Audiences: []string{audience},
					Algorithms: []string{"EdDSA"}}))
			if err != nil {
				t.Fatal(err)
			}
			header := s.header("kid", kids[1])
			accepted(t, v, s.genuine())
			p := accepted(t, v, sign(t, "EdDSA", secondKey, header,
				s.claims("iss", strconv.Quote(second))))
			if p.Issuer() != second {
				t.Errorf("the principal is vouched for by %s, want %s", p.Issuer(), second)
			}
			code := token.BadSignature
			if name == "other kid" {
				code = token.UnknownKey
			}
			// the second issuer signs a token of the first
			refused(t, v, sign(t, "EdDSA", secondKey, header, s.claims()), code)
		})
	}
}

// TestTokensPolicyOfItsOwnIssuer: what one issuer is allowed, another is not.
func TestTokensPolicyOfItsOwnIssuer(t *testing.T) {
	s := newScene(t)
	const second = "https://localhost:9443/"
	s.wire.hosts["localhost:9443"] = serveJSON(`{"issuer":"` + second + `","jwks_uri":"` + second +
		`keys","keys":[` + jwk(ed25519Key().Public(), "kid", `"k"`) + `]}`)
	other := token.Issuer{URL: second, Audiences: []string{"urn:second"},
		Algorithms: []string{"EdDSA", "ES256"}, RFC9068: true, Leeway: token.NoLeeway,
		MaxLifetime: time.Hour, ScopeClaims: []string{"/scp"}}
	v, err := token.NewVerifier(t.Context(), s.config(s.policy, other))
	if err != nil {
		t.Fatal(err)
	}
	bySecond := func(header []string, claims ...string) string {
		return sign(t, "EdDSA", ed25519Key(),
			s.header(append([]string{"kid", `"k"`}, header...)...),
			s.claims(append([]string{"iss", strconv.Quote(second), "aud", `"urn:second"`, "scp",
				`["admin"]`}, claims...)...))
	}
	if got := accepted(t, v, bySecond(nil)).Scopes(); !slices.Equal(got, []string{"admin"}) {
		t.Errorf("scopes of the second issuer are %q, want those of its own claim /scp", got)
	}
	if got := accepted(t, v, s.genuine("scp", `["admin"]`)).Scopes(); !slices.Equal(got,
		strings.Fields(scope)) {
		t.Errorf("scopes of the first issuer are %q, want those of /scope alone", got)
	}
	refused(t, v, bySecond(nil, "aud", strconv.Quote(audience)), token.WrongAudience)
	refused(t, v, s.genuine("aud", `"urn:second"`), token.WrongAudience)
	refused(t, v, bySecond([]string{"typ", `"JWT"`}), token.WrongType)
	refused(t, v, bySecond(nil, "exp", strconv.FormatInt(now.Unix()-1, 10)), token.Expired)
	refused(t, v, bySecond(nil, "exp", strconv.FormatInt(now.Unix()+3601, 10)), token.TooLongLived)
	refused(t, v, s.genuine("iss", `"https://localhost:7443/"`), token.WrongIssuer, issuerURL+" or "+second)
}

// TestTokensScopes: read from the configured claims and from no other.
func TestTokensScopes(t *testing.T) {
	s := newScene(t)
	for _, test := range []struct {
		name     string
		claims   []string
		pointers []string
		want     []string
		says     string // of the refusal, if it is refused
	}{
		{name: "a string", claims: []string{"scope", `"a b c"`}, want: []string{"a", "b", "c"}},
		{name: "one", claims: []string{"scope", `"a"`}, want: []string{"a"}},
		{name: "an array", claims: []string{"scope", `["a","b"]`}, want: []string{"a", "b"}},
		{name: "an empty array", claims: []string{"scope", `[]`}},
		{name: "absent is none", claims: []string{"scope", ""}},
		{name: "empty is none", claims: []string{"scope", `""`}},
		{name: "twice counts once", claims: []string{"scope", `"b a b"`}, want: []string{"b", "a"}},
		{name: "spaces too many name nothing", claims: []string{"scope", `" a  b "`}, want: []string{"a", "b"}},
		{name: "only a space separates", claims: []string{"scope", `"a\tb c\nd e,f"`}, want: []string{"a\tb", "c\nd", "e,f"}},
		{name: "an entry of an array is not split", claims: []string{"scope", `["a b"]`}, want: []string{"a b"}},
		{name: "an empty entry names nothing", claims: []string{"scope", `["","a"]`}, want: []string{"a"}},
		{name: "case is kept", claims: []string{"scope", `"Read:Messages"`}, want: []string{"Read:Messages"}},
		{name: "scp is not read by default", claims: []string{"scope", "", "scp", `["admin"]`}},
		{name: "permissions is not read by default", claims: []string{"scope", `"a"`, "permissions", `["admin"]`}, want: []string{"a"}},
		{name: "Scope is not scope", claims: []string{"scope", "", "Scope", `"admin"`}},
		{name: "scope is not read where scp is configured", claims: []string{"scope", `"admin"`, "scp", `"a"`}, pointers: []string{"/scp"}, want: []string{"a"}},
		{name: "permissions", claims: []string{"permissions", `["a","b"]`}, pointers: []string{"/permissions"}, want: []string{"a", "b"}},
		{name: "both, if both are configured", claims: []string{"scope", `"a b"`, "permissions", `["b","c"]`}, pointers: []string{"/scope", "/permissions"}, want: []string{"a", "b", "c"}},
		{name: "one of both is absent", claims: []string{"scope", "", "permissions", `["c"]`}, pointers: []string{"/scope", "/permissions"}, want: []string{"c"}},
		{name: "nested", claims: []string{"realm_access", `{"roles":["a"],"other":1}`}, pointers: []string{"/realm_access/roles"}, want: []string{"a"}},
		{name: "nested, absent", claims: []string{"realm_access", `{}`}, pointers: []string{"/realm_access/roles"}},
		{name: "nested, the outer absent", pointers: []string{"/realm_access/roles"}},
		{name: "nested, the outer no object", claims: []string{"realm_access", `"roles"`}, pointers: []string{"/realm_access/roles"}},
		{name: "a name with slashes", claims: []string{"https://api.example/roles", `["a"]`}, pointers: []string{"/https:~1~1api.example~1roles"}, want: []string{"a"}},
		{name: "a name with a tilde", claims: []string{"a~1", `["a"]`}, pointers: []string{"/a~01"}, want: []string{"a"}},
		{name: "a name with a dot is one name", claims: []string{"realm_access", `{"roles":["admin"]}`, "realm_access.roles", `["a"]`}, pointers: []string{"/realm_access.roles"}, want: []string{"a"}},
		{name: "null", claims: []string{"scope", "null"}, says: "claims: /scope is neither a string nor an array of strings"},
		{name: "a number", claims: []string{"scope", "1"}, says: "claims: /scope is neither"},
		{name: "an object", claims: []string{"scope", `{"admin":true}`}, says: "claims: /scope is neither"},
		{name: "true", claims: []string{"scope", "true"}, says: "claims: /scope is neither"},
		{name: "an array with a number", claims: []string{"scope", `["a",1]`}, says: "claims: an element of /scope is not a string"},
		{name: "an array with null", claims: []string{"scope", `["a",null]`}, says: "claims: an element of /scope is not a string"},
		{name: "an array with an array", claims: []string{"scope", `[["a"]]`}, says: "claims: an element of /scope is not a string"},
		{name: "nested, of the wrong type", claims: []string{"realm_access", `{"roles":{"` + canary + `":1}}`}, pointers: []string{"/realm_access/roles"}},
		{name: "the second of the wrong type", claims: []string{"permissions", "7"}, pointers: []string{"/scope", "/permissions"}, want: strings.Fields(scope)},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := *s
			s.policy.ScopeClaims = test.pointers
			v := s.verifier(t)
			tok := s.genuine(test.claims...)
			if test.says != "" {
				refused(t, v, tok, token.Malformed, test.says)
				return
			}
			p := accepted(t, v, tok)
			if got := p.Scopes(); !slices.Equal(got, test.want) {
				t.Errorf("scopes are %q, want %q", got, test.want)
			}
			for _, scope := range test.want {
				if !p.HasScope(scope) {
					t.Errorf("HasScope(%q) is false, and it is among %q", scope, test.want)
				}
				for _, like := range []string{scope[:len(scope)-1], scope + ":x",
					strings.ToUpper(scope) + "!", " " + scope, scope + " ", ""} {
					if p.HasScope(like) && !slices.Contains(test.want, like) {
						t.Errorf("HasScope(%q) is true, with scopes %q: only an exact match may be",
							like, test.want)
					}
				}
			}
		})
	}
}

// TestTokensScopesCost: the cost of a token with an invalid signature must not grow with the square
// of its scopes.
func TestTokensScopesCost(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	accepted(t, v, s.genuine())
	var many strings.Builder
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for i := range 1850 {
		fmt.Fprintf(&many, "%c%c ", letters[i/len(letters)], letters[i%len(letters)])
	}
	cost := func(tok string) time.Duration {
		least := time.Hour // of several, so that a busy machine does not fail the test
		for range 20 {
			start := time.Now()
			refused(t, v, tok, token.BadSignature)
			least = min(least, time.Since(start))
		}
		return least
	}
	forged := func(changes ...string) string {
		return segment(s.header()) + "." + segment(s.claims(changes...)) + "." +
			segment(make([]byte, 64))
	}
	few := cost(forged("pad", strconv.Quote(many.String())))
	lots := cost(forged("scope", strconv.Quote(many.String())))
	if lots > 10*few+time.Millisecond {
		t.Errorf("a forged token with 1850 scopes costs %s, one of the same length with few %s: "+
			"are scopes compared with each other?", lots, few)
	}
}

// TestTokensPrincipal: the claims of a genuine token are returned unchanged.
func TestTokensPrincipal(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	p := accepted(t, v, s.genuine("exp", "1795000300.5", "azp", `"azp"`))
	if got, want := fmt.Sprintf("%s|%s|%s|%q|%d", p.Issuer(), p.Subject(), p.ClientID(), p.Scopes(),
		p.Expiry().UnixMilli()),
		issuerURL+
			`|reader@clients|reader|["read:messages" "write:messages"]|1795000300500`; got != want {
		t.Errorf("the principal is\n%s, want\n%s", got, want)
	}
	if got := accepted(t, v, s.genuine("client_id", "", "azp", `"azp"`)).ClientID(); got != "azp" {
		t.Errorf("without client_id the client is %q, want that of azp", got)
	}
	if got := accepted(t, v, s.genuine("client_id", "")).ClientID(); got != "" {
		t.Errorf("with neither client_id nor azp the client is %q, want none", got)
	}
	if got := accepted(t, v,
		s.genuine("sub", `"a\u0000b\"\u00e9😀"`)).Subject(); got != "a\x00b\"é😀" {
		t.Errorf("the subject is %q, want it unescaped and otherwise unchanged", got)
	}
}

// TestTokensWithoutKeys: tokens that can be refused without keys cause no outbound request.
func TestTokensWithoutKeys(t *testing.T) {
	s := newScene(t)
	s.wire.hosts = nil // the issuer was never reachable
	v := s.verifier(t)
	for code, tok := range map[token.Code]string{
		token.Malformed:      "rubbish",
		token.WrongAlgorithm: s.SignBytes([]byte(s.header("alg", `"none"`)), []byte(s.claims())),
		token.WrongType: s.SignBytes([]byte(s.header("typ", `"dpop+jwt"`)),
			[]byte(s.claims())),
		token.WrongIssuer:   s.genuine("iss", `"https://attacker.example/"`),
		token.WrongAudience: s.genuine("aud", `"urn:other"`),
		token.Expired:       s.genuine("exp", "0"),
		token.NotYetValid:   s.genuine("nbf", strconv.FormatInt(now.Unix()+60, 10)),
		token.TooLongLived:  s.genuine("exp", strconv.FormatInt(now.Unix()+1e6, 10)),
		token.Bound:         s.genuine("cnf", "{}"),
		token.UnknownKey:    s.SignBytes([]byte(s.header("kid", `""`)), []byte(s.claims())),
	} {
		t.Run(string(code), func(t *testing.T) { refused(t, v, tok, code) })
	}
	refused(t, v, s.genuine("scope", "1"), token.Malformed)
	if pending := s.wire.requests(); len(pending) != 0 {
		t.Errorf("%q were requested, but these tokens need no key", pending)
	}
	if e := refused(t, v, s.genuine(), token.KeysUnavailable,
		"could not fetch the keys of "+issuerURL); e.RetryAfter != time.Second {
		t.Errorf("RetryAfter is %s at a cold start, want 1s", e.RetryAfter)
	}
	if pending := s.wire.requests(); !slices.Equal(pending, []string{discoveryURL}) {
		t.Errorf("%q were requested for a token that needs a key, want discovery once", pending)
	}
}
