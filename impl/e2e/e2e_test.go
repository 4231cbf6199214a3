//go:build unix

// Package e2e holds the end-to-end tests. They use the built program: real processes, real HTTP,
// and the issuer in another process.
package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/joho/godotenv"

	"github.com/oasgate/oasgate/authz/command"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/impl"
)

func TestMain(m *testing.M) {
	if os.Getenv(issuerRole) != "" {
		runIssuer()
		return
	}
	if os.Getenv(busyRole) != "" {
		runBusy()
		return
	}
	os.Exit(withProgram(m.Run))
}

// wantServed checks that a request succeeded.
func wantServed(t *testing.T, got answer) {
	t.Helper()
	if got.status/100 != 2 {
		t.Errorf("answer is %d %s: want 2xx", got.status, got.body)
	}
}

// A problem is what a client reads in the body of a refusal.
type problem struct {
	Type, Title, Detail string
	Status              int
}

// wantRefusal checks the status, headers and problem of a refusal, and returns the problem.
func wantRefusal(t *testing.T, got answer, kind string) problem {
	t.Helper()
	const challenge = `Bearer realm="…"`
	want, known := map[string]struct {
		status    int
		challenge string
	}{
		"missing-token":      {401, challenge},
		"invalid-request":    {400, challenge + `, error="invalid_request"`},
		"invalid-token":      {401, challenge + `, error="invalid_token"`},
		"insufficient-scope": {403, challenge + `, error="insufficient_scope", scope="` + scoped.scope + `"`},
		"keys-unavailable":   {503, ""},
		"not-found":          {404, ""},
		"method-not-allowed": {405, ""},
		"invalid-parameter":  {400, ""},
		"invalid-body":       {400, ""},
	}[kind]
	if !known {
		t.Fatalf("unknown kind of refusal: %q", kind)
	}
	var said problem
	if err := json.Unmarshal([]byte(got.body), &said); err != nil ||
		!strings.HasSuffix(said.Type, "/PROBLEMS.md#"+kind) ||
		said.Title == "" ||
		said.Detail == "" ||
		said.Status != want.status {
		t.Errorf("body is %q: want a problem document (RFC 9457) of kind %s, status %d", got.body,
			kind, want.status)
	}
	if media := got.header.Get("Content-Type"); got.status != want.status ||
		media != "application/problem+json" {
		t.Errorf("answer is %d %s: want %d application/problem+json", got.status, media,
			want.status)
	}
	// Where clients learn of the issuer (RFC 9728 §5.1) is a matter of the configuration;
	// TestDevIsDiscovered looks at it. So is whether DPoP is offered as well; TestDPoP looks at
	// that.
	configured := regexp.MustCompile(
		`, resource_metadata="[^"]*"|\nDPoP realm="[^"]*", algs="[^"]*"`)
	// the scopes of the operation (RFC 6750 §3), if it has any
	if want.status == http.StatusUnauthorized {
		configured = regexp.MustCompile(configured.String() + `|, scope="[^"]+"`)
	}
	realm := regexp.MustCompile(`realm="[^"]+"`)
	if challenges := got.header.Values("WWW-Authenticate"); realm.ReplaceAllString(
		configured.ReplaceAllString(strings.Join(challenges, "\n"), ""),
		`realm="…"`) != want.challenge {
		t.Errorf("WWW-Authenticate is %q: want %q for %s", challenges, want.challenge, kind)
	}
	if cache := got.header.Get("Cache-Control"); (want.status == 401 || want.status == 403) &&
		cache != "no-store" {
		t.Errorf("Cache-Control of a %d is %q: want no-store", want.status, cache)
	}
	if retry := got.header.Get("Retry-After"); want.status == 503 &&
		!regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(retry) {
		t.Errorf("Retry-After of a 503 is %q: want seconds, at least one", retry)
	}
	return said
}

func TestDevByItsBanner(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	banner := p.readBanner(t)
	if want := "http://localhost:"; !strings.HasPrefix(banner.api, want) {
		t.Fatalf("the banner says that the API is at %q: want %s and the port", banner.api, want)
	}
	withGo, withoutGo, call := banner.commands["get a token:"], banner.commands["or, without Go:"],
		banner.commands["call it:"]
	for name, line := range map[string]string{"with Go": withGo, "without Go": withoutGo} {
		t.Run("a token "+name, func(t *testing.T) {
			token := p.shell(t, line, `printf %s "$TOKEN"`)
			if strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \n") {
				t.Fatalf("%s\nsets TOKEN to %q: want a token and nothing else", line, token)
			}
			wantServed(t, p.get(t, scoped.path(t), token))
		})
		t.Run("a call "+name, func(t *testing.T) {
			want := p.get(t, call[strings.LastIndex(call, p.url)+len(p.url):],
				p.token(t, "--url", p.url))
			wantServed(t, want)
			if got := p.shell(t, line, call); got != want.body {
				t.Errorf("%s\n%s\nprints %q: want %q", line, call, got, want.body)
			}
		})
	}
}

// Without any flag, as a newcomer starts them, `dev` and `token` find each other.
func TestDevAtItsOwnAddress(t *testing.T) {
	t.Parallel()
	p := start(t, invocation{args: []string{"dev"}})
	eventually(t, "dev starts or gives up", func() bool {
		return strings.Contains(p.stdout.String(), "Stop with Ctrl-C") &&
			strings.Contains(p.stderr.String(), "msg=serving") ||
			strings.HasPrefix(p.stderr.String(), "oasgate: ")
	})
	if said := p.stderr.String(); strings.Contains(said, `--addr is "localhost:3010"`) &&
		strings.Contains(said, "address already in use") {
		t.Skip(
			"port 3010 is taken on this machine, so dev cannot be tried where it listens by default")
	}
	banner := p.readBanner(t)
	if p.url = banner.api; p.url != "http://localhost:3010" {
		t.Errorf("dev says that it is at %s: want http://localhost:3010", p.url)
	}
	if line, want := banner.commands["get a token:"], "TOKEN=$("+program+" token)"; line != want {
		t.Errorf("the banner's line is %q: want %q", line, want)
	}
	wantServed(t, p.get(t, scoped.path(t), p.token(t)))
}

func TestDev(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	full, none := p.token(t, "--url", p.url), p.token(t, "--url", p.url, "--client", "none")
	narrow := p.token(t, "--url", p.url, "--scope", scoped.scope)

	for _, test := range []struct {
		name, path, token string
		want              string // the kind of a refusal, or nothing
	}{
		{"public without a token", public.Path, "", ""},
		{"public with a token", public.Path, full, ""},
		{"public with nonsense for a token", public.Path, "nonsense", ""},
		{"private without a token", private.path(t), "", "missing-token"},
		{"private with nonsense for a token", private.path(t), "nonsense", "invalid-token"},
		{"private with every scope", private.path(t), full, ""},
		{"scoped without a token", scoped.Path, "", "missing-token"},
		{"scoped without scopes", scoped.Path, none, "insufficient-scope"},
		{"scoped with every scope", scoped.Path, full, ""},
		{"scoped with the scope that was asked for", scoped.Path, narrow, ""},
		{"scoped with a scope written into the token", scoped.Path, withClaim(t, none, "scope", scoped.scope), "invalid-token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.path == "" {
				t.Skip("openapi.yaml has no such operation")
			}
			if got := p.get(t, test.path, test.token); test.want == "" {
				wantServed(t, got)
			} else {
				wantRefusal(t, got, test.want)
				asks := strings.Contains(got.header.Get("WWW-Authenticate"),
					`scope="`+scoped.scope+`"`)
				if asks != (test.path == scoped.Path) {
					t.Errorf("WWW-Authenticate is %q: want the scope of the operation, if it has "+
						"one",
						got.header.Get("WWW-Authenticate"))
				}
			}
		})
	}

	t.Run("readiness", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz"} {
			if got := p.get(t, path, ""); got.status != http.StatusOK {
				t.Errorf("%s is %d %s: want 200", path, got.status, got.body)
			}
		}
	})
	t.Run("loopback alone", func(t *testing.T) {
		if !regexp.MustCompile(`msg=serving addr="?(127\.0\.0\.1|\[::1\]):\d`).
			MatchString(p.stderr.String()) {
			t.Errorf("the log does not say that dev listens on a loopback address")
		}
	})
	t.Run("other hosts", func(t *testing.T) {
		for _, path := range []string{private.path(t), "/.well-known/jwks.json", "/healthz"} {
			for _, host := range []string{"rebound.example", "rebound.example:3010", "192.0.2.1",
				"localhost.rebound.example"} {
				if got := p.ask(t, http.MethodGet, path, "Host",
					host); got.status != http.StatusMisdirectedRequest {
					t.Errorf(
						"GET %s of host %s is %d: want 421, or a page in a browser could read tokens (DNS rebinding)",
						path, host, got.status)
				}
			}
		}
	})
	t.Run("ctrl-c", func(t *testing.T) {
		p.signal(t, os.Interrupt)
		if code := p.ends(t); code != 0 {
			t.Errorf("dev exits with %d on an interrupt: want 0", code)
		}
	})
}

// withClaim writes a claim into a token, as somebody without the key can.
func withClaim(t *testing.T, token, name string, value any) string {
	t.Helper()
	segments := strings.Split(token, ".")
	claims := map[string]any{}
	payload, err := base64.RawURLEncoding.DecodeString(segments[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	claims[name] = value
	payload, err = json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	segments[1] = base64.RawURLEncoding.EncodeToString(payload)
	return strings.Join(segments, ".")
}

// dev tells the client the cause of a refusal, which serve only logs.
func TestDevExplains(t *testing.T) {
	t.Parallel()
	p, stranger := startDev(t), startIssuer(t)
	now := time.Now().Unix()
	for _, test := range []struct {
		name   string
		claims map[string]any
		want   *regexp.Regexp
	}{
		{"audience", map[string]any{"aud": "https://other.example"}, regexp.MustCompile(`audience is "https://other\.example", expected "https://quickstarts/api"`)},
		{"expired", map[string]any{"exp": now - 41}, regexp.MustCompile(`expired 4\ds ago`)},
		{"trailing slash", map[string]any{"iss": p.url}, regexp.MustCompile(`issuer is "` + regexp.QuoteMeta(p.url) + `", expected "` + regexp.QuoteMeta(p.url) + `/": they differ by a trailing slash`)},
		{"foreign issuer", map[string]any{"iss": stranger.url}, regexp.MustCompile(`issuer is "` + regexp.QuoteMeta(stranger.url) + `", expected ` + regexp.QuoteMeta(p.url) + `/`)},
		{"ID token", map[string]any{"aud": "client", "nonce": "n-0S6"}, regexp.MustCompile(`audience is "client".*looks like an ID token`)},
		{"milliseconds", map[string]any{"exp": now * 1000}, regexp.MustCompile(`milliseconds`)},
		{"not yet valid", map[string]any{"nbf": now + 90}, regexp.MustCompile(`valid in 1m\d+s \(nbf\)`)},
		{"key of another issuer", nil, regexp.MustCompile(`no usable key of ` + regexp.QuoteMeta(p.url) + `/ has kid`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			claims := map[string]any{"iss": p.url + "/", "aud": "https://quickstarts/api"}
			for name, value := range test.claims {
				claims[name] = value
			}
			said := wantRefusal(t, p.get(t, private.path(t), stranger.mint(claims)),
				"invalid-token")
			if !test.want.MatchString(said.Detail) {
				t.Errorf("detail is %q: want it to match %s", said.Detail, test.want)
			}
		})
	}
}

// A client that knows only the address of the API can find the issuer and get a token (RFC 9728 §5,
// RFC 8414 §3).
func TestDevIsDiscovered(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	fetch := func(url string) (document map[string]any) {
		t.Helper()
		path, ours := strings.CutPrefix(url, p.url)
		if got := p.get(t, path, ""); !ours || json.Unmarshal([]byte(got.body), &document) != nil {
			t.Fatalf("%s answers %d %s: want a JSON document of dev", url, got.status, got.body)
		}
		return document
	}
	challenge := p.get(t, private.path(t), "").header.Get("WWW-Authenticate")
	found := regexp.MustCompile(`resource_metadata="([^"]+)"`).FindStringSubmatch(challenge)
	if found == nil {
		t.Fatalf("the challenge is %s: want it to contain where the metadata is", challenge)
	}
	resource := fetch(found[1])
	servers, _ := resource["authorization_servers"].([]any)
	if len(servers) != 1 {
		t.Fatalf("the metadata is %v: want one authorization server", resource)
	}
	issuer := fetch(
		strings.TrimSuffix(fmt.Sprint(servers[0]), "/") + "/.well-known/openid-configuration")
	if issuer["issuer"] != servers[0] {
		t.Errorf("the issuer calls itself %v, the metadata %v", issuer["issuer"], servers[0])
	}
	form := strings.NewReader(
		"grant_type=client_credentials&client_id=full&client_secret=for-development-only&audience=" + fmt.Sprint(
			resource["resource"]),
	)
	response, err := http.Post(fmt.Sprint(issuer["token_endpoint"]),
		"application/x-www-form-urlencoded", form)
	if err != nil {
		t.Fatal(err)
	}
	answer := readAnswer(t, response)
	var grant struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(answer.body), &grant); err != nil || grant.Token == "" {
		t.Fatalf(
			"the token endpoint answers %d %s: want a token for the resource that the metadata names",
			answer.status, answer.body)
	}
	wantServed(t, p.get(t, scoped.path(t), grant.Token))
}

func TestServeRefusesTokens(t *testing.T) {
	t.Parallel()
	issuer, stranger := startIssuer(t), startIssuer(t)
	p := startServe(t, issuer)
	now := time.Now().Unix()
	genuine := issuer.mint(map[string]any{"scope": scoped.scope})
	wantServed(t, p.get(t, scoped.path(t), genuine))
	segments := strings.Split(genuine, ".")
	encode := base64.RawURLEncoding.EncodeToString

	for _, test := range []struct {
		name, token string
		cause       string // the cause in the log
	}{
		{"not-a-token", "nonsense", "malformed"},
		{"without-signature", segments[0] + "." + segments[1] + ".", "malformed"},
		{"encrypted", genuine + ".iv.tag", "malformed"},
		{"padded", genuine + "==", "malformed"},
		{"longer-than-is-read", strings.Repeat("a", 9<<10), "malformed: 9216 bytes"},
		{"json-serialization", `{"payload":"` + segments[1] + `"}`, "malformed: not a JWT"}, // with more members it would have commas, and be a 400
		{"alg-none", encode([]byte(`{"alg":"none"}`)) + "." + segments[1] + "." + segments[2], `algorithm: alg is "none"`},
		{"alg-symmetric", encode([]byte(`{"alg":"HS256"}`)) + "." + segments[1] + "." + segments[2], `algorithm: alg is "HS256"`},
		{"changed", withClaim(t, issuer.mint(nil), "sub", "somebody else"), "signature"},
		{"signature-of-another", segments[0] + "." + segments[1] + "." + strings.Split(issuer.mint(nil), ".")[2], "signature"},
		{"by-another-issuer", stranger.mint(map[string]any{"iss": issuer.url}), "unknown_key"},
		{"of-another-issuer", stranger.mint(nil), "issuer"},
		{"issuer-without-slash", issuer.mint(map[string]any{"iss": strings.TrimSuffix(issuer.url, "/")}), "trailing slash"},
		{"audience", issuer.mint(map[string]any{"aud": "https://other.example"}), `audience is "https://other.example"`},
		{"no-audience", issuer.mint(map[string]any{"aud": nil}), "audience is absent"},
		{"expired", issuer.mint(map[string]any{"exp": now - 60}), "expired"},
		{"for-ever", issuer.mint(map[string]any{"exp": nil}), "exp is missing"},
		{"milliseconds", issuer.mint(map[string]any{"exp": now * 1000}), "lifetime"},
		{"not-yet", issuer.mint(map[string]any{"nbf": now + 60}), "not_yet_valid"},
		{"nobody", issuer.mint(map[string]any{"sub": nil}), "sub is missing"},
		{"bound", issuer.mint(map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}), "bound"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := p.ask(t, http.MethodGet, scoped.path(t), "Authorization", "Bearer "+test.token,
				"X-Request-Id", test.name)
			said := wantRefusal(t, got, "invalid-token")
			if want := "The access token is malformed, expired, or not for this API. Get a new one."; said.Detail != want {
				t.Errorf("detail is %q: want %q: only dev explains", said.Detail,
					want)
			}
			line := p.logged(t, "request_id", test.name)
			if cause, _ := line["cause"].(string); !strings.HasPrefix(cause,
				"authz: invalid-token: token: ") ||
				!strings.Contains(cause, test.cause) {
				t.Errorf("the log gives as cause %v: want it to contain %q", line["cause"],
					test.cause)
			}
			if line["subject"] != nil || line["client_id"] != nil {
				t.Errorf("the log names the subject of a token that is not genuine: %v", line)
			}
		})
	}
}

func TestServeReadsCredentials(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer)
	token := issuer.mint(nil)
	for _, test := range []struct {
		name, query string
		headers     []string
		want        string // the kind of a refusal, or nothing
	}{
		{"lower case", "", []string{"Authorization", "bearer " + token}, ""},
		{"spaces", "", []string{"Authorization", "BEARER   " + token}, ""},
		{"nothing", "", nil, "missing-token"},
		{"another scheme", "", []string{"Authorization", "Basic " + token}, "missing-token"},
		{"no scheme", "", []string{"Authorization", token}, "missing-token"},
		{"no space", "", []string{"Authorization", "Bearer" + token}, "missing-token"},
		{"query", "?access_token=" + token, nil, "missing-token"},
		{"cookie", "", []string{"Cookie", "access_token=" + token}, "missing-token"},
		{"forwarded", "", []string{"X-Forwarded-Authorization", "Bearer " + token}, "missing-token"},
		{"no token", "", []string{"Authorization", "Bearer"}, "invalid-request"},
		{"two words", "", []string{"Authorization", "Bearer " + token + " " + token}, "invalid-request"},
		{"two joined", "", []string{"Authorization", "Bearer " + token + ",Bearer " + token}, "invalid-request"},
		{"tab", "", []string{"Authorization", "Bearer\t" + token}, "invalid-request"},
		{"two headers", "", []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}, "invalid-request"},
		{"header and query", "?access_token=" + token, []string{"Authorization", "Bearer " + token}, "invalid-request"},
		{"undeclared parameter", "?debug=1", []string{"Authorization", "Bearer " + token}, "invalid-parameter"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := p.ask(t, http.MethodGet, private.path(t)+test.query, test.headers...)
			if test.want == "" {
				wantServed(t, got)
			} else {
				wantRefusal(t, got, test.want)
			}
		})
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer)
	for _, token := range []string{"", issuer.mint(nil)} {
		for _, path := range []string{"/", "/nowhere", private.path(t) + "/", "/" + private.path(t),
			"/oauth/token", "/.well-known/jwks.json"} {
			wantRefusal(t, p.get(t, path, token), "not-found")
		}
		for _, method := range []string{"OPTIONS", "TRACE", "BREW"} { // which few documents have
			headers := []string{"Authorization", "Bearer " + token}
			if token == "" {
				headers = nil
			}
			got := p.ask(t, method, private.path(t), headers...)
			wantRefusal(t, got, "method-not-allowed")
			if allow := got.header.Get("Allow"); !slices.Contains(strings.Split(allow, ", "),
				"GET") {
				t.Errorf("%s %s: Allow is %q, want GET in it", method, private.path(t), allow)
			}
		}
	}
}

// A key that the issuer signs with from one moment to the next is served at once, and the one
// before it as ever.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer,
		"OASGATE_JWKS_COOLDOWN=1ms") // several rotations follow; keys are not due for an hour
	tokens := map[string]string{"ES256, the first": issuer.mint(nil)}
	wantServed(t, p.get(t, private.path(t), tokens["ES256, the first"]))
	for _, alg := range []string{"RS256", "PS256", "EdDSA", "ES256"} {
		before := issuer.keySets()
		issuer.rotate(alg)
		tokens[alg] = issuer.mint(nil)
		for name, token := range tokens {
			if got := p.get(t, private.path(t), token); got.status != http.StatusOK {
				t.Errorf(
					"after the rotation to %s, the token of the key %s is answered %d %s: want 200 at the first request",
					alg, name, got.status, got.body)
			}
		}
		if fetches := issuer.keySets() - before; fetches != 1 {
			t.Errorf("the rotation to %s made the server fetch the keys %d times: want once", alg,
				fetches)
		}
	}
}

// Unknown keys cause one fetch per cooldown, by default 30 s. Until it ends, tokens with another
// unknown key get 503.
func TestUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	t.Parallel()
	issuer, stranger := startIssuer(t), startIssuer(t)
	p := startServe(t, issuer)
	wantServed(t, p.get(t, private.path(t), issuer.mint(nil)))
	before := issuer.keySets()
	for n := range 20 {
		stranger.rotate("EdDSA")
		forged := stranger.mint(map[string]any{"iss": issuer.url})
		kind := "invalid-token"
		if n > 0 {
			kind = "keys-unavailable"
		}
		wantRefusal(t, p.get(t, private.path(t), forged), kind)
	}
	if fetches := issuer.keySets() - before; fetches != 1 {
		t.Errorf("20 unknown keys made the server fetch the keys %d times: want once", fetches)
	}
}

func TestRemovedKey(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer, "OASGATE_JWKS_MAX_AGE=1s")
	old := issuer.mint(nil)
	wantServed(t, p.get(t, private.path(t), old))
	removed := issuer.rotate("")
	current := issuer.mint(nil)
	wantServed(t, p.get(t, private.path(t), current))

	issuer.removeKey(removed)
	eventually(
		t,
		"the token of the removed key, which was accepted before, is refused",
		func() bool {
			return p.get(t, private.path(t), old).status != http.StatusOK
		},
	)
	wantRefusal(t, p.get(t, private.path(t), old), "invalid-token")
	wantServed(t, p.get(t, private.path(t), current))
}

func TestIssuerDownAtStart(t *testing.T) {
	t.Parallel()
	issuer, stranger := startIssuer(t), startIssuer(t)
	token := issuer.mint(nil)
	issuer.stop()
	p := startServe(t, issuer)

	if got := p.get(t, "/healthz", ""); got.status != http.StatusOK {
		t.Errorf("/healthz is %d %s: want 200, for the process is alive", got.status, got.body)
	}
	wantRefusal(t, p.get(t, "/readyz", ""), "keys-unavailable")
	wantRefusal(t, p.get(t, private.path(t), token), "keys-unavailable")
	if public.Path != "" {
		wantServed(t, p.get(t, public.Path, token))
	}
	// Requests that need no keys are answered without them.
	wantRefusal(t, p.get(t, private.path(t), ""), "missing-token")
	wantRefusal(t, p.get(t, private.path(t), "nonsense"), "invalid-token")
	wantRefusal(t, p.get(t, private.path(t), stranger.mint(nil)), "invalid-token")
	wantRefusal(t,
		p.get(t, private.path(t), issuer.mint(map[string]any{"aud": "https://other.example"})),
		"invalid-token")

	issuer.restart()
	eventually(t, "a token is served once the issuer is back", func() bool {
		return p.get(t, private.path(t), token).status == http.StatusOK
	})
	if got := p.get(t, "/readyz", ""); got.status != http.StatusOK {
		t.Errorf("/readyz is %d %s once tokens are served: want 200", got.status, got.body)
	}
}

func TestIssuerDownLater(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer, "OASGATE_JWKS_COOLDOWN=1ms")
	known := issuer.mint(nil)
	wantServed(t, p.get(t, private.path(t), known))

	for _, outage := range []struct {
		name       string
		begin, end func()
	}{
		{"gone", issuer.stop, issuer.restart},
		{"failing", func() { issuer.fail(devissuer.Fault{Status: 500}) }, func() { issuer.fail(devissuer.Fault{}) }},
		{"without keys", func() { issuer.fail(devissuer.Fault{Endpoint: devissuer.KeySet, Body: []byte(`{"keys":[]}`)}) }, func() { issuer.fail(devissuer.Fault{}) }},
	} {
		neverSeen := issuer.mint(
			nil) // by a key that is known: the first one, or that of the outage before
		outage.begin()
		issuer.rotate("")
		unknown := issuer.mint(nil)
		wantRefusal(t, p.get(t, private.path(t), unknown), "keys-unavailable")
		wantServed(t, p.get(t, private.path(t), known))
		wantServed(t, p.get(t, private.path(t), neverSeen))
		if got := p.get(t, "/readyz", ""); got.status != http.StatusOK {
			t.Errorf(
				"with the issuer %s, /readyz is %d: want 200, for the keys that were had serve",
				outage.name, got.status)
		}

		outage.end()
		eventually(
			t,
			"the issuer was "+outage.name+" and is back, and the key of meanwhile is known",
			func() bool {
				return p.get(t, private.path(t), unknown).status == http.StatusOK
			},
		)
		wantServed(t, p.get(t, private.path(t), known))
	}
}

// Keys that cannot be refreshed serve for OASGATE_JWKS_MAX_STALE, and no longer.
func TestStaleKeys(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer, "OASGATE_JWKS_MAX_AGE=500ms", "OASGATE_JWKS_MAX_STALE=1500ms")
	token := issuer.mint(nil)
	wantServed(t, p.get(t, private.path(t), token))
	issuer.stop()
	wantServed(t, p.get(t, private.path(t), token))
	eventually(
		t,
		"a token, which was accepted before, is no longer when the keys are too old",
		func() bool {
			return p.get(t, private.path(t), token).status != http.StatusOK
		},
	)
	wantRefusal(t, p.get(t, private.path(t), token), "keys-unavailable")
	wantRefusal(t, p.get(t, "/readyz", ""), "keys-unavailable")
	issuer.restart()
	eventually(t, "the issuer is back, and tokens are served", func() bool {
		return p.get(t, private.path(t), token).status == http.StatusOK
	})
}

func TestFaultsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	enough := []string{"OASGATE_ISSUER=https://issuer.invalid/", "OASGATE_AUDIENCE=" + audience}

	for _, test := range []struct {
		name string
		invocation
		code int
		want []string // what the lines of stderr begin with, each of them
	}{
		{"nothing is set", invocation{args: []string{"serve"}}, 2, []string{"OASGATE_ISSUER is not set", "OASGATE_AUDIENCE is not set"}},
		{"everything is wrong", invocation{args: []string{"serve"}, env: []string{
			"OASGATE_ADDR=3010", "OASGATE_ISSUER=http://issuer.example/", "OASGATE_ALGORITHMS=HS256", "OASGATE_LEEWAY=2m",
			"OASGATE_JWKS_COOLDOWN=soon", "OASGATE_JWKS_MAX_AGE=-1h", "OASGATE_JWKS_MAX_STALE=0s", "OASGATE_TRUSTED_PROXIES=10.0.0.1",
			"OASGATE_RESOURCE=api", "OASGATE_LOG_FORMAT=xml", "OASGATE_LOG_LEVEL=loud",
		}}, 2, []string{
			`OASGATE_ADDR is "3010"`, `OASGATE_ALGORITHMS is "HS256"`, `OASGATE_LEEWAY is "2m"`, `OASGATE_JWKS_COOLDOWN is "soon"`,
			`OASGATE_JWKS_MAX_AGE is "-1h"`, `OASGATE_JWKS_MAX_STALE is "0s"`, `OASGATE_TRUSTED_PROXIES is "10.0.0.1"`, `OASGATE_RESOURCE is "api"`,
			`OASGATE_ISSUER is "http://issuer.example/": expected https`, "OASGATE_AUDIENCE is not set",
			`OASGATE_LOG_LEVEL is "loud"`, `OASGATE_LOG_FORMAT is "xml"`,
		}},
		{"dev's pages are of no origin", invocation{args: []string{"dev", "--cors-origins", "http://localhost:3000,*,http://app.example"}}, 2,
			[]string{`--cors-origins is "*": expected a list of origins`, `--cors-origins is "http://app.example": expected https`}},
		{"the issuer's alias contradicts it", invocation{args: []string{"serve"}, env: append(enough, "AUTH0_DOMAIN=tenant.invalid")}, 2,
			[]string{"AUTH0_DOMAIN and OASGATE_ISSUER have different values"}},
		{"the domain is of http", invocation{args: []string{"serve"}, env: []string{"AUTH0_DOMAIN=http://tenant.invalid", "AUTH0_AUDIENCE=" + audience}}, 2,
			[]string{`OASGATE_ISSUER is "http://tenant.invalid": expected https`}},
		{"malformed .env", invocation{args: []string{"serve"}, env: enough, dotenv: "A=1\nhunter2\n"}, 2, []string{".env is malformed at line 2"}},
		{"unknown flag", invocation{args: []string{"serve", "--isuer", "x"}}, 2, []string{"unknown flag --isuer"}},
		{"unknown command", invocation{args: []string{"server"}}, 2, []string{"unexpected argument server"}},
		{"no command", invocation{}, 2, []string{"expected one of"}},
		{"port in use", invocation{args: []string{"serve", "--addr", taken.Addr().String()}, env: enough}, 1, []string{`OASGATE_ADDR is "` + taken.Addr().String() + `"`}},
		{"dev on every interface", invocation{args: []string{"dev", "--addr", "0.0.0.0:0"}}, 2, []string{`--addr is "0.0.0.0:0": expected a loopback host and a port`}},
		{"dev on no host", invocation{args: []string{"dev", "--addr", ":0"}}, 2, []string{`--addr is ":0": expected a loopback host and a port`}},
		{"dev on a network's address", invocation{args: []string{"dev", "--addr", "192.0.2.1:0"}}, 2, []string{`--addr is "192.0.2.1:0": expected a loopback host and a port`}},
		{"dev on a name", invocation{args: []string{"dev", "--addr", "dev.example:0"}}, 2, []string{`--addr is "dev.example:0": expected a loopback host and a port`}},
		{"no dev running", invocation{args: []string{"token", "--url", "http://127.0.0.1:1"}}, 1, []string{"cannot reach the issuer: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, test.invocation)
			if code := p.ends(t); code != test.code {
				t.Errorf("exit code is %d: want %d", code, test.code)
			}
			if said := p.stdout.String(); said != "" {
				t.Errorf("faults go to stderr, stdout has %q", said)
			}
			lines := strings.Split(strings.TrimSuffix(p.stderr.String(), "\n"), "\n")
			// A port in use is found after the database was opened, which is logged.
			lines = slices.DeleteFunc(lines, func(line string) bool {
				return strings.HasPrefix(line, `{"time":`)
			})
			for _, want := range test.want {
				if !slices.ContainsFunc(lines,
					func(line string) bool { return strings.HasPrefix(line, "oasgate: "+want) }) {
					t.Errorf("no line of stderr begins with %q", "oasgate: "+want)
				}
			}
			if len(lines) != len(test.want) {
				t.Errorf("stderr has %d lines: want one for each of %d faults", len(lines),
					len(test.want))
			}
			if strings.Contains(p.stderr.String(), "hunter2") {
				t.Errorf("stderr repeats a line of .env, which may be a secret")
			}
		})
	}
}

func TestSettingsPrecedence(t *testing.T) {
	t.Parallel()
	const dotenv = "OASGATE_ISSUER=https://dotenv.invalid/\nOASGATE_AUDIENCE=of-dotenv\n"
	example, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	filledIn := strings.NewReplacer("OASGATE_ISSUER=\n", "OASGATE_ISSUER=https://example.invalid/\n", "OASGATE_AUDIENCE=\n", "OASGATE_AUDIENCE=of-example\n").
		Replace(string(example))
	for _, test := range []struct {
		name string
		invocation
		issuer, audience string // as they are logged at start
	}{
		{"of .env.example with two values filled in", invocation{dotenv: filledIn}, "https://example.invalid/", "of-example"},
		{"of .env", invocation{dotenv: dotenv}, "https://dotenv.invalid/", "of-dotenv"},
		{"the environment beats .env", invocation{dotenv: dotenv, env: []string{"OASGATE_ISSUER=https://env.invalid"}}, "https://env.invalid", "of-dotenv"},
		{"a flag beats both", invocation{dotenv: dotenv, env: []string{"OASGATE_AUDIENCE=of-env"}, args: []string{"--audience", "of-flag"}}, "https://dotenv.invalid/", "of-flag"},
		{"empty is absent", invocation{dotenv: dotenv, env: []string{"OASGATE_ISSUER=", "OASGATE_AUDIENCE="}}, "https://dotenv.invalid/", "of-dotenv"},
		{"the quickstart's names", invocation{env: []string{"AUTH0_DOMAIN=Tenant.invalid", "AUTH0_AUDIENCE=of-auth0"}}, "https://tenant.invalid/", "of-auth0"},
		{"a domain with scheme and slash", invocation{env: []string{"AUTH0_DOMAIN=https://tenant.invalid/", "OASGATE_AUDIENCE=x"}}, "https://tenant.invalid/", "x"},
		{"a domain of the environment beats the issuer of .env", invocation{dotenv: dotenv, env: []string{"AUTH0_DOMAIN=tenant.invalid"}}, "https://tenant.invalid/", "of-dotenv"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.args = append([]string{"serve", "--addr", "127.0.0.1:0"}, test.args...)
			p := start(t, test.invocation)
			p.logsJSON = true
			line := p.logged(t, "msg", "accepting tokens")
			if line["issuer"] != test.issuer ||
				fmt.Sprint(line["audience"]) != "["+test.audience+"]" {
				t.Errorf("issuer %v, audience %v were logged: want %s, [%s]", line["issuer"],
					line["audience"], test.issuer, test.audience)
			}
		})
	}
}

// app is the App of main.go. It makes the packages of the program dependencies of the test, so that
// go test notices their changes. It does not see what TestMain builds.
func app() command.App {
	return command.App{
		Name:     "oasgate",
		Document: gen.GetSpec,
		Open:     &impl.Serve{},
		Dev:      &command.Dev{Issuer: devissuer.ForDev, Open: &impl.Dev{}},
	}
}

// help returns what serve --help prints, each flag on one line.
func help(t *testing.T) string {
	t.Helper()
	t.Setenv("COLUMNS", "1000")
	var stdout, stderr strings.Builder
	code := app().Run(t.Context(), []string{"serve", "--help"}, nil, nil, &stdout, &stderr)
	if code != 0 || stderr.String() != "" {
		t.Fatalf("exit code is %d, stderr %q: want 0 and nothing", code, &stderr)
	}
	return stdout.String()
}

func TestHelp(t *testing.T) {
	said := help(t)
	for _, key := range []string{"OASGATE_ADDR", "OASGATE_ISSUER", "OASGATE_AUDIENCE",
		"OASGATE_JWKS_MAX_AGE", "OASGATE_LOG_LEVEL"} {
		if !strings.Contains(said, "["+key+"]") {
			t.Errorf("help does not say which flag stands for %s:\n%s", key, said)
		}
	}
}

// .env.example is where operators learn of the keys.
func TestEnvExample(t *testing.T) {
	text, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	described := func(line string) bool {
		i := slices.Index(lines, line)
		return i > 0 && strings.HasPrefix(lines[i-1], "# ")
	}
	keys := []string{"AUTH0_DOMAIN", "AUTH0_AUDIENCE"}
	flag := regexp.MustCompile(`(?m)^ +--[a-z-]+=("(.*?)"|STRING) .*\[(\w+)(?:, or \w+_FILE)?\]$`)
	for _, found := range flag.FindAllStringSubmatch(help(t), -1) {
		unset, key := found[2], found[3]
		keys = append(keys, key)
		if !described(key+"="+unset) && !described("# "+key+"="+unset) {
			t.Errorf(".env.example has no line %s=%s with a comment before it", key, unset)
		}
	}
	if len(keys) < 22 {
		t.Errorf("--help shows the keys %q: want all 20 of serve's, and the aliases", keys)
	}
	for _, line := range lines {
		key, _, pair := strings.Cut(strings.TrimPrefix(line, "# "), "=")
		if pair && !strings.Contains(key, " ") && !slices.Contains(keys, key) {
			t.Errorf(".env.example has %s, which is not a setting", key)
		}
	}
	if _, err := godotenv.Unmarshal(string(text)); err != nil {
		t.Errorf(".env.example is malformed: %v", err)
	}
}

// What an operator reads of each request. That nothing of a token is in it, every test here checks
// (nothingLeaked).
func TestLog(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer)
	alice := "Bearer " + issuer.mint(map[string]any{"sub": "alice", "client_id": "app"})
	scopeless := "Bearer " + issuer.mint(
		map[string]any{"sub": "alice", "client_id": "app", "scope": nil})
	for _, test := range []struct {
		id, path, authorization string
		want                    map[string]any // nil: absent
	}{
		{"served", private.path(t), alice, map[string]any{"level": "INFO", "method": "GET", "path": private.path(t), "operation": private.ID, "status": 200.0, "subject": "alice", "client_id": "app", "cause": nil, "remote": "127.0.0.1"}},
		{"forbidden", scoped.Path, scopeless, map[string]any{"operation": scoped.ID, "status": 403.0, "subject": "alice", "client_id": "app", "cause": "authz: insufficient-scope: This operation requires the scopes: " + scoped.scope + "."}},
		{"anonymous", private.path(t), "", map[string]any{"operation": private.ID, "status": 401.0, "subject": nil, "client_id": nil, "cause": "authz: missing-token"}},
		{"in-the-query", private.path(t) + "?access_token=" + alice[len("Bearer "):], "", map[string]any{"path": private.path(t), "status": 401.0, "subject": nil, "cause": "authz: missing-token"}},
		{"in-the-path", "/nowhere/" + alice[len("Bearer "):], "", map[string]any{"path": "/nowhere/…", "operation": nil, "status": 404.0, "cause": "authz: not-found"}},
		{"public", public.Path, alice, map[string]any{"operation": public.ID, "status": 200.0, "subject": nil, "client_id": nil}},
	} {
		t.Run(test.id, func(t *testing.T) {
			if test.path == "" {
				t.Skip("openapi.yaml has no such operation")
			}
			headers := []string{"X-Request-Id", test.id}
			if test.authorization != "" {
				headers = append(headers, "Authorization", test.authorization)
			}
			p.keepSecret(test.path)
			got := p.ask(t, http.MethodGet, test.path, headers...)
			if id := got.header.Get("X-Request-Id"); id != test.id {
				t.Errorf("X-Request-Id is %q in the answer: want that of the request, %q", id,
					test.id)
			}
			line := p.logged(t, "request_id", test.id)
			for key, want := range test.want {
				if line[key] != want {
					t.Errorf("%s is %#v: want %#v, in %v", key, line[key], want, line)
				}
			}
		})
	}
}

// When it is told to stop, the server fails /readyz, then accepts no new requests, and finishes the
// active ones.
func TestDrain(t *testing.T) {
	t.Parallel()
	for range 10 { // on a busy machine, the response can arrive too early for this check
		if drains(t) {
			return
		}
	}
	t.Error(
		"each time the request was answered before new connections were refused, so nothing was " +
			"proved of it")
}

func drains(t *testing.T) (proved bool) {
	issuer := startIssuer(t)
	p := startServe(t, issuer)
	wantServed(t, p.get(t, private.path(t), issuer.mint(nil)))

	// A slow request: its key is unknown, and the issuer is slow.
	issuer.rotate("")
	issuer.fail(devissuer.Fault{Endpoint: devissuer.KeySet, Delay: 4 * time.Second})
	fetches, token := issuer.keySets(), issuer.mint(nil)
	underWay := make(chan answer, 1)
	go func() {
		defer close(underWay) // also if get fails
		underWay <- p.get(t, private.path(t), token)
	}()
	eventually(t, "the request makes the server ask for keys",
		func() bool { return issuer.keySets() > fetches })

	p.signal(t, syscall.SIGTERM)
	p.logged(t, "msg", "stopping")
	if got := p.get(t, "/readyz", ""); got.status != http.StatusServiceUnavailable {
		t.Errorf("/readyz is %d once the server is to stop: want 503", got.status)
	}
	wantServed(t, p.get(t, "/healthz", "")) // for load balancers learn of it later
	eventually(t, "new connections are refused", func() bool {
		connection, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			connection.Close()
		}
		return err != nil
	})
	select {
	case <-p.ended:
		t.Errorf("the process has ended with a request under way")
	case got := <-underWay:
		wantServed(t, got)
		return false
	default:
	}
	wantServed(t, <-underWay)
	if code := p.ends(t); code != 0 {
		t.Errorf("exit code is %d: want 0 when every request ended", code)
	}
	return true
}

// A caller that tries again does not wait.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := startServe(t, startIssuer(t))
	p.signal(t, syscall.SIGTERM)
	p.logged(t, "msg", "stopping")
	eventually(
		t,
		"a further signal ends the process",
		func() bool { // not the very next, if it follows at once
			return p.command.Process.Signal(syscall.SIGTERM) != nil
		},
	)
	if code := p.ends(t); code != -1 {
		t.Errorf("exit code is %d: want -1, for a signal has ended the process", code)
	}
}

// A body of 200 MiB is not read before the token is accepted, not even by net/http.
func TestBodyWithoutTokenIsNotRead(t *testing.T) {
	t.Parallel()
	p := startServe(t, startIssuer(t))
	for _, test := range []struct{ name, head, body, kind string }{
		{"GET", "GET " + private.path(t) + " HTTP/1.1\r\n", "Transfer-Encoding: chunked\r\n", "missing-token"},
		{"GET with a bad token", "GET " + private.path(t) + " HTTP/1.1\r\nAuthorization: Bearer nonsense\r\n", "Content-Length: 209715200\r\n", "invalid-token"},
		{"another method", "BREW " + private.path(t) + " HTTP/1.1\r\n", "Content-Length: 209715200\r\n", "method-not-allowed"},
		{"PUT somewhere", "PUT /nowhere HTTP/1.1\r\n", "Content-Length: 209715200\r\n", "not-found"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, written := p.flood(t, test.head+"Host: localhost\r\n"+test.body+"\r\n")
			wantRefusal(t, got, test.kind)
			if most := int64(16 << 20); written > most { // the rest waits in the kernels' buffers
				t.Errorf(
					"the client got rid of %d bytes of its body: want less than %d, for the server reads none of it",
					written, most)
			}
		})
		t.Run(
			test.name+", asking before",
			func(t *testing.T) { // would first send 100 Continue (RFC 9110 §10.1.1)
				connection := p.dial(t)
				fmt.Fprint(connection,
					test.head+"Host: localhost\r\nExpect: 100-continue\r\n"+test.body+"\r\n")
				wantRefusal(t, readResponse(t, connection), test.kind)
			},
		)
		t.Run(
			test.name+", never sending",
			func(t *testing.T) {
				// net/http would wait for a short body before it sends the response
				connection := p.dial(t)
				fmt.Fprint(connection, test.head+"Host: localhost\r\nContent-Length: 1000\r\n\r\n")
				got := readResponse(t, connection)
				wantRefusal(t, got, test.kind)
				if got.header.Get(
					"Connection") != "close" { // the answer of a server that waits does not have it
					t.Errorf("Connection is %q: want close, or net/http waits for the body",
						got.header.Get("Connection"))
				}
			},
		)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer)
	token := issuer.mint(map[string]any{"filler": strings.Repeat("a", 5000)})
	wantServed(t, p.get(t, private.path(t), token))
	wantRefusal(t,
		p.get(t, private.path(t), issuer.mint(map[string]any{"filler": strings.Repeat("a", 6000)})),
		"invalid-token")
	if got := p.ask(t, http.MethodGet, private.path(t), "X-Filler",
		strings.Repeat("a", 64<<10)); got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 64 KiB is answered with %d: want 431", got.status)
	}

	t.Run("a body where none is declared", func(t *testing.T) {
		p.keepSecret(token)
		connection := p.dial(t)
		fmt.Fprintf(connection,
			"GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\n\r\n{}",
			private.path(t), token)
		wantRefusal(t, readResponse(t, connection), "invalid-body")
	})
}
