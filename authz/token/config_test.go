package token_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

func TestConfigFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*token.Config)
		says   []string
	}{
		{"no issuer", func(c *token.Config) { c.Issuers = nil }, []string{"no issuer is configured", "at least one"}},
		{"issuer twice", func(c *token.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) }, []string{`"https://localhost:8443/"`, "configured twice"}},
		{"URL empty", func(c *token.Config) { c.Issuers[0].URL = "" }, []string{`issuer ""`, "expected a URL such as https://issuer.example/"}},
		{"URL a host", func(c *token.Config) { c.Issuers[0].URL = "issuer.example" }, []string{`issuer "issuer.example"`, "expected a URL"}},
		{"URL without host", func(c *token.Config) { c.Issuers[0].URL = "https:///tenant" }, []string{"expected a URL"}},
		{"URL with a port alone", func(c *token.Config) { c.Issuers[0].URL = "https://:443/" }, []string{"expected a URL"}},
		{"URL opaque", func(c *token.Config) { c.Issuers[0].URL = "https:issuer.example" }, []string{"expected a URL"}},
		{"URL with a query", func(c *token.Config) { c.Issuers[0].URL = issuerURL + "?a=b" }, []string{"without query and fragment"}},
		{"URL with an empty query", func(c *token.Config) { c.Issuers[0].URL = issuerURL + "?" }, []string{"without query and fragment"}},
		{"URL with a fragment", func(c *token.Config) { c.Issuers[0].URL = issuerURL + "#a" }, []string{"without query and fragment"}},
		{"URL with an empty fragment", func(c *token.Config) { c.Issuers[0].URL = issuerURL + "#" }, []string{"without query and fragment"}},
		{"URL with a user", func(c *token.Config) { c.Issuers[0].URL = "https://user:pass@issuer.example/" }, []string{"expected a URL"}},
		{"URL that does not parse", func(c *token.Config) { c.Issuers[0].URL = "https://issuer.example/\n" }, []string{`"https://issuer.example/\n"`, "expected a URL"}},
		{"http elsewhere", func(c *token.Config) { c.Issuers[0].URL = "http://issuer.example/" }, []string{"http is accepted on loopback hosts only", "expected https"}},
		{"http on a name that begins like loopback", func(c *token.Config) { c.Issuers[0].URL = "http://localhost.example/" }, []string{"loopback hosts only"}},
		{"http on a private network", func(c *token.Config) { c.Issuers[0].URL = "http://10.0.0.1/" }, []string{"loopback hosts only"}},
		{"another scheme", func(c *token.Config) { c.Issuers[0].URL = "ftp://issuer.example/" }, []string{`scheme is "ftp", expected https`}},
		{"no audience", func(c *token.Config) { c.Issuers[0].Audiences = nil }, []string{"audiences are []", "at least one is needed"}},
		{"an empty audience", func(c *token.Config) { c.Issuers[0].Audiences = []string{audience, ""} }, []string{"none may be empty"}},
		{"algorithms empty", func(c *token.Config) { c.Issuers[0].Algorithms = []string{} }, []string{"the list is empty", "leave it unset"}},
		{"HS256", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"RS256", "HS256"} }, []string{`algorithm "HS256": expected one of ES256, ES384, ES512, Ed25519, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512`}},
		{"none", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"none"} }, []string{`algorithm "none"`}},
		{"Ed448", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"Ed448"} }, []string{`algorithm "Ed448"`}},
		{"algorithm in lower case", func(c *token.Config) { c.Issuers[0].Algorithms = []string{"rs256"} }, []string{`algorithm "rs256"`}},
		{"leeway too long", func(c *token.Config) { c.Issuers[0].Leeway = time.Minute + 1 }, []string{"leeway is 1m0.000000001s", "at most 1m0s"}},
		{"leeway negative", func(c *token.Config) { c.Issuers[0].Leeway = -time.Second }, []string{"leeway is -1s"}},
		{"lifetime negative", func(c *token.Config) { c.Issuers[0].MaxLifetime = -time.Second }, []string{"maximum lifetime is -1s", "positive"}},
		{"scope claim without slash", func(c *token.Config) { c.Issuers[0].ScopeClaims = []string{"scope"} }, []string{`scope claim "scope"`, "JSON pointer (RFC 6901)"}},
		{"scope claim empty", func(c *token.Config) { c.Issuers[0].ScopeClaims = []string{""} }, []string{`scope claim ""`}},
		{"scope claim with a bad escape", func(c *token.Config) { c.Issuers[0].ScopeClaims = []string{"/a~2"} }, []string{`scope claim "/a~2"`}},
		{"cooldown negative", func(c *token.Config) { c.Issuers[0].Keys.Cooldown = -1 }, []string{"key cooldown is -1ns"}},
		{"maximum age negative", func(c *token.Config) { c.Issuers[0].Keys.MaxAge = -1 }, []string{"maximum age of keys is -1ns"}},
		{"maximum staleness negative", func(c *token.Config) { c.Issuers[0].Keys.MaxStale = -1 }, []string{"maximum staleness of keys is -1ns"}},
		{"stale before refreshed", func(c *token.Config) { c.Issuers[0].Keys.MaxStale = time.Minute }, []string{"maximum staleness of keys is 1m0s, less than their maximum age of 1h0m0s"}},
		{"cache negative", func(c *token.Config) { c.CacheBytes = -1 }, []string{"CacheBytes is -1", "positive"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			config := s.config(s.policy)
			test.change(&config)
			v, err := token.NewVerifier(t.Context(), config)
			if err == nil || v != nil {
				t.Fatalf("NewVerifier returned %v and %v, want an error alone", v, err)
			}
			for _, says := range test.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("the error does not say %q:\n%v", says, err)
				}
			}
			if faults := strings.Count(err.Error(), "\n") + 1; faults != 1 &&
				!strings.Contains(test.name, "negative") {
				t.Errorf("one fault is reported as %d:\n%v", faults, err)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !strings.HasPrefix(line, "token: ") {
					t.Errorf("a fault does not say where it comes from: %q", line)
				}
			}
		})
	}
}

// TestConfigAllFaults: all faults are returned at once, each with its issuer.
func TestConfigAllFaults(t *testing.T) {
	_, err := token.NewVerifier(t.Context(), token.Config{CacheBytes: -1, Issuers: []token.Issuer{
		{URL: "http://a.example/", Algorithms: []string{"none", "HS256"}, Leeway: time.Hour, MaxLifetime: -1},
		{URL: "https://b.example/", Audiences: []string{""}, ScopeClaims: []string{"scope", "/ok", "permissions"}, Keys: token.KeyPolicy{Cooldown: -1}},
		{URL: "https://c.example/", Audiences: []string{"ok"}},
		{URL: "https://c.example/", Audiences: []string{"ok"}},
	}})
	if err == nil {
		t.Fatal("no error")
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 12 {
		t.Errorf("want 12 faults, joined:\n%v", err)
	}
	for _, says := range []string{
		`issuer "http://a.example/": http is accepted`, `issuer "http://a.example/": audiences`, `issuer "http://a.example/": algorithm "none"`,
		`issuer "http://a.example/": algorithm "HS256"`, `issuer "http://a.example/": leeway is 1h0m0s`, `issuer "http://a.example/": maximum lifetime`,
		`issuer "https://b.example/": audiences`, `issuer "https://b.example/": scope claim "scope"`, `issuer "https://b.example/": scope claim "permissions"`,
		`issuer "https://b.example/": key cooldown`, `issuer "https://c.example/": is configured twice`, "CacheBytes",
	} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the error does not say %q:\n%v", says, err)
		}
	}
}

func TestConfigAccepted(t *testing.T) {
	for _, url := range []string{
		"https://issuer.example", "https://issuer.example/", "https://issuer.example/realms/a", "https://issuer.example:8443/",
		"http://localhost:3010/", "http://127.0.0.1:1", "http://127.9.9.9/", "http://[::1]:3010/", "https://[2001:db8::1]/",
	} {
		if _, err := token.NewVerifier(t.Context(),
			token.Config{
				Issuers: []token.Issuer{{URL: url, Audiences: []string{audience}}}}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, leeway := range []time.Duration{token.NoLeeway, 0, 1, time.Minute} {
		if _, err := token.NewVerifier(t.Context(),
			token.Config{Issuers: []token.Issuer{{URL: issuerURL, Audiences: []string{audience},
				Leeway: leeway}}}); err != nil {
			t.Errorf("leeway %s: %v", leeway, err)
		}
	}
}

// TestConfigIsTheCallersOwn: later changes of the config by the caller have no effect.
func TestConfigIsTheCallersOwn(t *testing.T) {
	s := newScene(t)
	s.policy.ScopeClaims = []string{"/scope"}
	config := s.config(s.policy)
	v, err := token.NewVerifier(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{config.Issuers[0].Audiences, config.Issuers[0].Algorithms,
		config.Issuers[0].ScopeClaims} {
		list[0] = "changed"
	}
	config.Issuers[0].URL = "changed"
	config.HTTPClient.Transport = http.DefaultTransport
	if got := accepted(t, v, s.genuine()).Scopes(); !slices.Equal(got, strings.Fields(scope)) {
		t.Errorf("scopes are %q, want %q", got, scope)
	}
	refused(t, v, s.genuine("aud", `"changed"`), token.WrongAudience)
}

// TestErrorText: the text has the code, the detail and the cause, in this order.
func TestErrorText(t *testing.T) {
	cause := fmt.Errorf("a cause")
	e := &token.Error{Code: token.KeysUnavailable, Detail: "detail", Err: cause}
	if got, want := e.Error(), "token: keys_unavailable: detail: a cause"; got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
	if e.Unwrap() != cause {
		t.Errorf("the cause is %v", e.Unwrap())
	}
	if got, want := (&token.Error{Code: token.Expired,
		Detail: "detail"}).Error(), "token: expired: detail"; got != want {
		t.Errorf("text is %q, want %q", got, want)
	}
}

func TestIsLoopback(t *testing.T) {
	for host, is := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.255.255.254": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "localhost.": false, "localhost.example": false, "127.0.0.1.example": false, "127.1": false, "0177.0.0.1": false, "2130706433": false,
		"0.0.0.0": false, "::": false, "128.0.0.1": false, "::1%lo": false, "[::1]": false, "127.0.0.1:80": false, "::ffff:10.0.0.1": false, "fe80::1": false,
	} {
		if token.IsLoopback(host) != is {
			t.Errorf("IsLoopback(%q) is %v, want %v", host, !is, is)
		}
	}
}
