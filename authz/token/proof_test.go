package token

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// The examples of RFC 7638 §3.1, RFC 8037 appendix A.3 and RFC 9449 §6.1.
func TestThumbprint(t *testing.T) {
	for want, key := range map[string]string{
		"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs": `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
		"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I": `{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}`,
	} {
		parsed, err := jwk.ParseKey([]byte(key))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		public, err := publicKey(parsed)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		if got := thumbprint(public); got != want {
			t.Errorf("thumbprint is %s, want %s, of %s", got, want, key)
		}
	}
}

// equivalentURL returns a URL in an equivalent form (RFC 3986 §6.2).
func equivalentURL(r *rand.Rand, scheme, host, path string) string {
	capitals := func(s string) string {
		return strings.Map(func(c rune) rune {
			if r.IntN(2) == 0 {
				return []rune(strings.ToUpper(string(c)))[0]
			}
			return c
		}, s)
	}
	out := capitals(scheme) + "://" + capitals(host)
	switch r.IntN(3) {
	case 0:
		out += map[string]string{"http": ":80", "https": ":443"}[scheme]
	case 1:
		out += ":"
	}
	for rest := path; rest != ""; {
		switch c := rest[0]; {
		case c == '%':
			out += "%" + capitals(strings.ToLower(rest[1:3]))
			rest = rest[2:]
		case c == '/' && r.IntN(4) == 0:
			out += []string{"/.", "/x/..", "/%2E", "/x/%2e.", "/x/y/../.."}[r.IntN(5)] + "/"
		case isUnreserved(c) && r.IntN(3) == 0:
			out += capitals(fmt.Sprintf("%%%02x", c))
		default:
			out += string(c)
		}
		rest = rest[1:]
	}
	if path == "/" && r.IntN(2) == 0 && strings.HasSuffix(out, "/") &&
		!strings.Contains(out, "/.") {
		out = strings.TrimSuffix(out, "/")
	}
	return out + []string{"", "?", "?a=/../b", "#", "#f", "?a#f"}[r.IntN(6)]
}

// A URL in any of its spellings is one, and different URLs stay different.
func TestNormalURL(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 449))
	random := func() (scheme, host, path string) {
		scheme = []string{"http", "https"}[r.IntN(2)]
		host = []string{"a.example", "b.example", "[2001:db8::443]", "127.0.0.1"}[r.IntN(4)]
		path = "/"
		for range r.IntN(6) {
			path += []string{"a", "B", "-", "~", "/", "%2F", "%20", "%25", "%3F", "+", "a.b",
				"%C3%A9"}[r.IntN(12)]
		}
		return scheme, host, path
	}
	normal := func(raw string) string {
		server, path, ok := normalURL(raw)
		if !ok {
			t.Fatalf("%s is taken for no URL", raw)
		}
		return server + removeDotSegments(path)
	}
	different := 0
	for range 20_000 {
		scheme, host, path := random()
		plain := scheme + "://" + host + path
		if got := normal(plain); got != plain {
			t.Fatalf("%s is normal and becomes %s", plain, got)
		}
		other := equivalentURL(r, scheme, host, path)
		if got := normal(other); got != plain {
			t.Fatalf("%s becomes %s, want %s", other, got, plain)
		}
		scheme2, host2, path2 := random()
		if second := scheme2 + "://" + host2 + path2; second != plain {
			different++
			if normal(equivalentURL(r, scheme2, host2, path2)) == plain {
				t.Fatalf("%s is taken for %s", second, plain)
			}
		}
	}
	if different < 10_000 {
		t.Errorf("only %d pairs differed: the test tries too little", different)
	}
}

// RFC 3986 §5.2.4, and the examples of §5.4 that are about it.
func TestWithoutDots(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/": "/a/", "/.": "/", "/..": "/", "/./": "/", "/../": "/", "/a/.": "/a/", "/a/..": "/",
		"/a/b/..": "/a/", "/a/b/../": "/a/", "/a/./b": "/a/b", "/a/../b": "/b", "/../../g": "/g", "/a/b/c/./../../g": "/a/g",
		"/a//..": "/a/", "//..": "/", "//": "//", "/.a": "/.a", "/a.": "/a.", "/..a/...": "/..a/...", "/b/c/g;x=1/../y": "/b/c/y",
	} {
		if got := removeDotSegments(path); got != want {
			t.Errorf("%s becomes %s, want %s", path, got, want)
		}
	}
}

// normalURL is idempotent, and does not change the octets of the path.
func FuzzNormalURL(f *testing.F) {
	for _, seed := range []string{
		"", "https://a", "https://a/", "HTTPS://A:443/b%2f%7E?c#d", "http://a:80", "http://a:443/", "https://[::1]:443/", "https://a:/",
		"https://u@a/", "https:///a", "https://a/%", "https://a/%4", "https://a/%zz", "https://a/../b", "//a/b", "https:a/b", "https://a?b/c", "https://a\\@b/", "https://a/é", "http://:", "http://:80/", "http://::", "http://a::80/", "http://:80:", "http://[::80", "http://\xa7\xc0㭭000/", "https://\u212a\u212a\u212a/a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		server, path, ok := normalURL(raw)
		if !ok {
			return
		}
		if again, againPath, ok := normalURL(server + path); !ok || again != server ||
			againPath != path {
			t.Errorf("%q becomes %q %q, and that %q %q", raw, server, path, again, againPath)
		}
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(server+path, "?#") ||
			strings.Contains(server, "@") || strings.ContainsFunc(server+path, func(c rune) bool {
			return c <= ' ' || c > '~'
		}) {
			t.Errorf("%q becomes %q %q", raw, server, path)
		}
		before, _, _ := strings.Cut(raw, "#")
		before, _, _ = strings.Cut(before, "?")
		_, before, _ = strings.Cut(before, "://")
		i := strings.IndexByte(before, '/')
		if i < 0 {
			before = "/"
		} else {
			before = before[i:]
		}
		wanted, err1 := url.PathUnescape(before)
		got, err2 := url.PathUnescape(path)
		if err1 != nil || err2 != nil || got != wanted ||
			strings.Count(path, "/") != strings.Count(before, "/") {
			t.Errorf("the path of %q becomes %q: unescaped %q and %q", raw, path, wanted, got)
		}
		if clean := removeDotSegments(path); slices.ContainsFunc(strings.Split(clean, "/"),
			func(s string) bool {
				return s == "." || s == ".."
			}) {
			t.Errorf("there are dot segments in %q still", clean)
		}
	})
}

// What parseProof accepts is decided again by other means.
func FuzzProof(f *testing.F) {
	const header, claims = `{"typ":"dpop+jwt","alg":"ES256","jwk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}`, `{"htm":"GET","htu":"https://a/","iat":1795000000,"jti":"1","ath":"x"}`
	for _, seed := range [][2]string{
		{header, claims}, {header, `{"htm":"GET","htu":"https://a/","iat":1.5e9,"jti":"","nonce":"n"}`}, {header, `{"htm":null,"htu":"","iat":-1,"jti":1}`},
		{`{"typ":"DPOP+jwt","alg":"EdDSA","jwk":{}}`, claims}, {`{"typ":"dpop+jwt","alg":"RS256","jwk":{"d":"x"}}`, claims}, {`{"typ":"dpop+jwt","alg":"PS256","jwk":[]}`, claims},
		{`{"typ":"dpop+jwt","alg":"ES256"}`, claims}, {`{"typ":"at+jwt","alg":"ES256","jwk":{}}`, claims}, {`{"typ":"dpop+jwt","alg":"HS256","jwk":{"k":"x"}}`, claims},
		{`{"typ":"dpop+jwt","alg":"ES256","jwk":{},"crit":[]}`, claims}, {`{"typ":"dpop+jwt","alg":"ES256","jwk":{"x":1,"x":2}}`, claims}, {header, claims + claims},
		{`{"typ":"dpop+jwt","alg":"Ed25519","jwk":{}}`, claims},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, header, claims []byte) {
		jwt := b64(header) + "." + b64(claims) + ".AA"
		text := func(members map[string]any, name string) (string, bool) {
			s, ok := members[name].(string)
			return s, ok
		}

		wanted := len(header) > 0 && len(claims) > 0 && len(jwt) <= maxTokenBytes
		h, ok := strictObject(header)
		wanted = wanted && ok
		for _, refused := range []string{"crit", "b64", "zip", "cty"} {
			_, present := h[refused]
			wanted = wanted && !present
		}
		typ, _ := text(h, "typ")
		alg, _ := text(h, "alg")
		wanted = wanted && strings.EqualFold(typ, "dpop+jwt") &&
			slices.Contains([]string{"ES256", "EdDSA", "Ed25519", "PS256", "RS256"}, alg)
		if kid, present := h["kid"]; present {
			s, ok := kid.(string)
			wanted = wanted && ok && s != ""
		}
		key, ok := h["jwk"].(map[string]any)
		wanted = wanted && ok
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
			_, present := key[private]
			wanted = wanted && !present
		}
		c, ok := strictObject(claims)
		wanted = wanted && ok
		for name, required := range map[string]bool{"htm": true, "htu": true, "jti": true,
			"ath": false, "nonce": false} {
			value, present := c[name]
			_, isText := value.(string)
			wanted = wanted && (isText || !present && !required)
		}
		jti, _ := text(c, "jti")
		wanted = wanted && len(jti) > 0 && len(jti) <= maxJTIBytes

		p, err := parseProof(jwt)
		if err != nil {
			checkErrorText(t, []byte(jwt), err)
			if e := err.(*Error); e.Code != InvalidProof {
				t.Errorf("refused as %s, want %s", e.Code, InvalidProof)
			}
			// iat is checked by timeOf, which FuzzClaims tests.
			if _, dated := c["iat"]; wanted && dated && !strings.Contains(err.Error(), "iat") {
				t.Errorf("refused, by %v, want it accepted", err)
			}
			return
		}
		if !wanted {
			t.Fatalf("accepted, want it refused: %s\n%s", header, claims)
		}
		for name, got := range map[string][]byte{"htm": p.htm, "htu": p.htu, "jti": p.jti,
			"ath": p.ath, "nonce": p.nonce} {
			if want, _ := text(c, name); string(got) != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		_ = p.checkRequest("GET", "https://a/")
		_, _ = p.key() // it must not panic
	})
}
