package token_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const (
	introspectURL = "https://introspect.example/ask?v=1"
	opaqueToken   = "ory_at_" + canary + ".Zm9v~+/=="
)

// introspection is an endpoint of RFC 7662.
type introspection struct {
	mu      sync.Mutex
	answers map[string]string // by token; others are not active
	fail    func(w http.ResponseWriter) bool
	asked   atomic.Int32
	fault   error // of a question
}

func (i *introspection) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.asked.Add(1)
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.Method != http.MethodPost || r.PostFormValue("token_type_hint") != "access_token" ||
		id != "api%3A1" && basic || secret != "s%C3%A9cret" && basic {
		i.fault = fmt.Errorf("%s %v, %q %q", r.Method, r.PostForm, id, secret)
	}
	if i.fail != nil && i.fail(w) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	answer, known := i.answers[r.PostFormValue("token")]
	if !known {
		answer = `{"active":false}`
	}
	io.WriteString(w, answer)
}

func (i *introspection) set(tok, answer string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answers[tok] = answer
}

func (i *introspection) failing(fail func(http.ResponseWriter) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = fail
}

// introspected returns a verifier that introspects opaque tokens at the issuer of a scene.
func (s *scene) introspected(t testing.TB) *introspection {
	i := &introspection{answers: map[string]string{}}
	s.wire.hosts["introspect.example"] = i
	s.policy.Introspection = token.Introspection{
		Endpoint: introspectURL, ClientID: "api:1", ClientSecret: "sécret", Opaque: true,
	}
	t.Cleanup(func() {
		if i.fault != nil {
			t.Errorf("a question was not as RFC 7662 §2.1 has it: %v", i.fault)
		}
	})
	return i
}

func status(code int) func(http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool { w.WriteHeader(code); return true }
}

// TestOpaqueTokens: what an issuer answers about a token passes the checks that claims pass.
func TestOpaqueTokens(t *testing.T) {
	const pass = token.Code("")
	for _, test := range []struct {
		name   string
		answer []string // changes to the claims
		token  string   // "": opaqueToken
		code   token.Code
	}{
		{"active", nil, "", pass},
		{"of a token type", []string{"token_type", `"bearer"`}, "", pass},
		{"a refresh token", []string{"token_type", `"refresh_token"`}, "", token.Inactive},
		{"not active", []string{"active", "false"}, "", token.Inactive},
		{"not said", []string{"active", ""}, "", token.IntrospectionUnavailable},
		{"said in words", []string{"active", `"true"`}, "", token.IntrospectionUnavailable},
		{"said twice", []string{"", `"active":true`}, "", token.IntrospectionUnavailable},
		{"without iss", []string{"iss", ""}, "", pass},
		{"of another issuer", []string{"iss", `"https://attacker.example/"`}, "", token.WrongIssuer},
		{"for another audience", []string{"aud", `"https://other.example/"`}, "", token.WrongAudience},
		{"for no audience", []string{"aud", ""}, "", token.WrongAudience},
		{"expired", []string{"exp", "1"}, "", token.Expired},
		{"without exp", []string{"exp", ""}, "", token.Malformed},
		{"of the future", []string{"nbf", "1894999000"}, "", token.NotYetValid},
		{"without sub", []string{"sub", ""}, "", token.Malformed},
		{"bound", []string{"cnf", `{"jkt":"x"}`}, "", token.Bound},
		{"scope of another type", []string{"scope", "1"}, "", token.Malformed},
		{"exp in words", []string{"exp", `"soon"`}, "", token.IntrospectionUnavailable},
		{"unknown", nil, "unknown", token.Inactive},
		{"two segments", nil, "a.b", token.Inactive},
		{"five segments", nil, "a.b.c.d.e", token.Inactive},
		{"three segments, which is a JWT", nil, "a.b.c", token.Malformed},
		{"other characters", nil, "a\"b", token.Malformed},
		{"nothing", nil, "", pass},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			endpoint := s.introspected(t)
			endpoint.set(
				opaqueToken,
				s.claims(append([]string{"active", "true"}, test.answer...)...),
			)
			tok := test.token
			if tok == "" {
				tok = opaqueToken
			}
			v := s.verifier(t)
			for range 2 {
				if test.code != pass {
					refused(t, v, tok, test.code)
					continue
				}
				p := accepted(t, v, tok)
				if p.Subject() != "reader@clients" || !p.HasScope("read:messages") ||
					p.Issuer() != issuerURL {
					t.Errorf("the principal is %+v", p)
				}
			}
			if tok == "a.b.c" && endpoint.asked.Load() != 0 {
				t.Error(
					"a token with three segments, perhaps another issuer's, was sent to this one",
				)
			}
			if pending := endpoint.asked.Load(); test.code == pass && pending != 1 {
				t.Errorf("%d introspection requests, want 1", pending)
			}
			s.log.lacks(t, opaqueToken, "sécret")
		})
	}
}

func (l *logged) lacks(t testing.TB, says ...string) {
	t.Helper()
	for _, s := range says {
		if text := l.String(); strings.Contains(text, s) {
			t.Errorf("the log says %q:\n%s", s, text)
		}
	}
}

// TestOpaqueTokensElsewhere: without introspection an opaque token is malformed, as it was.
func TestOpaqueTokensElsewhere(t *testing.T) {
	s := newScene(t)
	refused(t, s.verifier(t), opaqueToken, token.Malformed)
	s.introspected(t)
	s.policy.Introspection.Opaque = false
	refused(t, s.verifier(t), opaqueToken, token.Malformed)
}

// TestIntrospectionOutage: during an outage, tokens are neither accepted nor invalid. After the
// first failure, requests fail without delay, and once the issuer is back they succeed.
func TestIntrospectionOutage(t *testing.T) {
	for name, fail := range map[string]func(http.ResponseWriter) bool{
		"500":          status(500),
		"wrong client": status(401),
		"redirect":     func(w http.ResponseWriter) bool { w.Header().Set("Location", "/"); w.WriteHeader(302); return true },
		"not JSON":     func(w http.ResponseWriter) bool { io.WriteString(w, `{"active":true}`); return true },
		"no object":    func(w http.ResponseWriter) bool { return writeJSON(w, `[]`) },
		"too long": func(w http.ResponseWriter) bool {
			return writeJSON(w, `{"active":true,"x":"`+strings.Repeat("x", 65<<10)+`"}`)
		},
		"something after": func(w http.ResponseWriter) bool { return writeJSON(w, `{"active":true} {}`) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSceneAt(t, "EdDSA", time.Now)
				endpoint := s.introspected(t)
				endpoint.set("a", s.claims("active", "true"))
				endpoint.set("b", s.claims("active", "true"))
				v := s.verifier(t)
				accepted(t, v, "a")
				endpoint.failing(fail)
				for range 3 {
					if e := refused(t, v, "b", token.IntrospectionUnavailable); e.RetryAfter <= 0 {
						t.Error("no Retry-After")
					}
					accepted(t, v, "a") // as known
				}
				if pending := endpoint.asked.Load(); pending != 2 {
					t.Errorf("%d introspection requests, want 2: failures are cached briefly",
						pending)
				}
				if n := strings.Count(s.log.String(), "introspection failed"); n != 1 {
					t.Errorf("%d log lines, want 1:\n%s", n, s.log)
				}
				if stats := v.Stats(); stats.Issuers[0].Introspection.Failed != 1 ||
					stats.Refused[token.IntrospectionUnavailable] != 3 {
					t.Errorf("the counters are %+v", stats)
				}
				endpoint.failing(nil)
				time.Sleep(time.Second)
				accepted(t, v, "b")
			})
		})
	}
}

func writeJSON(w http.ResponseWriter, body string) bool {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, body)
	return true
}

// TestIntrospectionHangs: if an issuer hangs, the first requests wait 5 s, and later ones at most
// half a second.
func TestIntrospectionHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		endpoint := s.introspected(t)
		s.wire.hosts["introspect.example"] = http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) {
				endpoint.asked.Add(1)
				<-r.Context().Done()
				panic(http.ErrAbortHandler)
			},
		)
		v := s.verifier(t)
		began := time.Now()
		refused(t, v, "first", token.IntrospectionUnavailable)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the first request took %s", took)
		}
		for n := range 20 {
			began := time.Now()
			refused(t, v, fmt.Sprint("t", n), token.IntrospectionUnavailable)
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("a later request took %s", took)
			}
			time.Sleep(300 * time.Millisecond)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Verify(gone, "gone"); codeOf(err) != token.IntrospectionUnavailable {
			t.Errorf("a client that hung up: %v", err)
		}
		time.Sleep(10 * time.Second) // and nothing is left running
	})
}

// TestIntrospectionIsShared: concurrent requests with one token share one introspection request.
func TestIntrospectionIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		endpoint := s.introspected(t)
		endpoint.set("t", s.claims("active", "true"))
		endpoint.failing(func(http.ResponseWriter) bool { time.Sleep(time.Second); return false })
		v := s.verifier(t)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { accepted(t, v, "t") })
		}
		all.Wait()
		if pending := endpoint.asked.Load(); pending != 1 {
			t.Errorf("%d introspection requests, want 1", pending)
		}
	})
}

// TestLiveAnswers: JWTs are introspected if the request or the issuer's configuration requires it.
// The response can only restrict.
func TestLiveAnswers(t *testing.T) {
	const pass = token.Code("")
	for _, test := range []struct {
		name   string
		answer string
		code   token.Code
		scopes string
	}{
		{"active", `{"active":true}`, pass, scope},
		{"fewer scopes", `{"active":true,"scope":"write:messages other"}`, pass, "write:messages"},
		{"no scopes", `{"active":true,"scope":""}`, pass, ""},
		{"more scopes", `{"active":true,"scope":"admin read:messages write:messages"}`, pass, scope},
		{"the same", `{"active":true,"iss":"` + issuerURL + `","aud":["` + audience + `"],"sub":"reader@clients"}`, pass, scope},
		{"revoked", `{"active":false}`, token.Inactive, ""},
		{"another issuer", `{"active":true,"iss":"https://attacker.example/"}`, token.WrongIssuer, ""},
		{"another audience", `{"active":true,"aud":"https://other.example/"}`, token.WrongAudience, ""},
		{"another subject", `{"active":true,"sub":"somebody"}`, token.WrongClaim, ""},
		{"another binding", `{"active":true,"cnf":{"jkt":"x"}}`, token.Bound, ""},
		{"expired", `{"active":true,"exp":1}`, token.Expired, ""},
		{"unreadable", `{"active":1}`, token.IntrospectionUnavailable, ""},
	} {
		for _, always := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, always %v", test.name, always), func(t *testing.T) {
				s := newScene(t)
				endpoint := s.introspected(t)
				s.policy.Introspection.Always = always
				tok := s.genuine()
				endpoint.set(tok, test.answer)
				v := s.verifier(t)
				presented := token.Presented{Token: tok, Introspect: !always}
				for range 2 {
					p, err := v.VerifyPresented(t.Context(), presented)
					if codeOf(err) != test.code {
						t.Fatalf("%v, want %q", err, test.code)
					}
					if err == nil && strings.Join(p.Scopes(), " ") != test.scopes {
						t.Errorf("scopes are %q, want %q", p.Scopes(), test.scopes)
					}
				}
				want := int32(1)
				if !always && test.code != token.Inactive &&
					test.code != token.IntrospectionUnavailable {
					want = 2 // live means now
				}
				if pending := endpoint.asked.Load(); pending != want &&
					test.code != token.IntrospectionUnavailable {
					t.Errorf("%d introspection requests, want %d", pending, want)
				}
				if !always { // other requests are not introspected, and succeed
					if p, err := v.Verify(t.Context(), tok); err != nil ||
						strings.Join(p.Scopes(), " ") != scope {
						t.Errorf("without a live answer: %v", err)
					}
				}
			})
		}
	}
}

// TestLiveAnswersAreNotCached: an active token is refused as soon as it is revoked. A forged one is
// refused without introspection.
func TestLiveAnswersAreNotCached(t *testing.T) {
	s := newScene(t)
	endpoint := s.introspected(t)
	s.policy.Introspection.Always = true
	tok := s.genuine()
	endpoint.set(tok, `{"active":true}`)
	v := s.verifier(t)
	accepted(t, v, tok)
	endpoint.set(tok, `{"active":false}`)
	accepted(t, v, tok)
	live := token.Presented{Token: tok, Introspect: true}
	if _, err := v.VerifyPresented(t.Context(), live); codeOf(err) != token.Inactive {
		t.Errorf("a revoked token: %v", err)
	}
	refused(t, v, tok, token.Inactive) // the result applies to all requests
	before := endpoint.asked.Load()
	live.Token = tok[:len(tok)-4] + "AAAA"
	if _, err := v.VerifyPresented(t.Context(), live); codeOf(err) != token.BadSignature &&
		codeOf(err) != token.Malformed {
		t.Errorf("a forged token: %v", err)
	}
	if endpoint.asked.Load() != before {
		t.Error("a forged token was introspected")
	}

	s.policy.Introspection = token.Introspection{}
	live.Token = tok
	if _, err := s.verifier(t).VerifyPresented(t.Context(), live); codeOf(
		err,
	) != token.IntrospectionUnavailable {
		t.Errorf("introspection fails: %v", err)
	}
}

// TestIntrospectionDiscovery: the endpoint of the metadata, and its authentication methods.
func TestIntrospectionDiscovery(t *testing.T) {
	for _, test := range []struct {
		name     string
		metadata string // after issuer
		inBody   bool
		code     token.Code
	}{
		{"an endpoint", `"introspection_endpoint":"https://introspect.example/"`, false, ""},
		{"credentials in the body", `"introspection_endpoint":"https://introspect.example/","introspection_endpoint_auth_methods_supported":["client_secret_post","private_key_jwt"]`, true, ""},
		{"either", `"introspection_endpoint":"https://introspect.example/","introspection_endpoint_auth_methods_supported":["client_secret_post","client_secret_basic"]`, false, ""},
		{"none", `"x":1`, false, token.IntrospectionUnavailable},
		{"over http", `"introspection_endpoint":"http://introspect.example/"`, false, token.IntrospectionUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			endpoint := s.introspected(t)
			inBody := false
			endpoint.failing(func(http.ResponseWriter) bool { return false })
			s.wire.hosts["introspect.example"] = http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) {
					inBody = r.PostFormValue("client_secret") == "sécret" &&
						r.Header.Get("Authorization") == ""
					endpoint.ServeHTTP(w, r)
				},
			)
			endpoint.set(opaqueToken, s.claims("active", "true"))
			s.policy.Introspection.Endpoint = ""
			s.wire.hosts["localhost:8443"] = serveJSON(
				`{"issuer":"` + issuerURL + `",` + test.metadata + `}`,
			)
			v := s.verifier(t)
			if test.code != "" {
				refused(t, v, opaqueToken, test.code)
				return
			}
			accepted(t, v, opaqueToken)
			if inBody != test.inBody {
				t.Errorf("credentials in the body: %v", inBody)
			}
			if err := v.Ready(t.Context()); err != nil {
				t.Errorf("an issuer of opaque tokens without keys is not ready: %v", err)
			}
		})
	}
}

// TestIntrospectionFaults: faults of the configuration prevent the start.
func TestIntrospectionFaults(t *testing.T) {
	i := func(c token.Introspection, more func(*token.Issuer)) token.Issuer {
		i := token.Issuer{URL: issuerURL, Audiences: []string{audience}, Introspection: c}
		if more != nil {
			more(&i)
		}
		return i
	}
	for _, test := range []struct {
		issuer token.Issuer
		says   string
	}{
		{i(token.Introspection{Opaque: true}, nil), "ClientID is empty"},
		{i(token.Introspection{ClientID: "a"}, nil), "ClientSecret is empty"},
		{i(token.Introspection{ClientID: "a", ClientSecret: "b", MaxAge: 2 * time.Hour}, nil), "MaxAge is 2h0m0s: expected at most 1h0m0s"},
		{i(token.Introspection{ClientID: "a", ClientSecret: "b", Endpoint: "http://a.example/"}, nil), "expected an https URL"},
		{i(token.Introspection{ClientID: "a", ClientSecret: "b"}, func(i *token.Issuer) { i.JWKSURI = "https://a.example/" }), "Endpoint is empty"},
		{i(token.Introspection{ClientID: "a", ClientSecret: "b", Opaque: true},
			func(i *token.Issuer) {
				i.URL, i.Tenants = "https://a.example/{tenantid}/", []string{"a"}
			}), "names no tenant"},
	} {
		if err := test.issuer.Validate(); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %v, want %q", test.issuer.Introspection, err, test.says)
		} else if strings.Contains(err.Error(), `"b"`) {
			t.Errorf("the secret is in %v", err)
		}
	}
	on := token.Introspection{ClientID: "a", ClientSecret: "b", Opaque: true}
	other := i(on, func(i *token.Issuer) { i.URL = "https://b.example/" })
	if _, err := token.NewVerifier(t.Context(),
		token.Config{Issuers: []token.Issuer{i(on, nil), other}}); err == nil ||
		!strings.Contains(err.Error(), "an opaque token names no issuer") {
		t.Errorf("two issuers of opaque tokens: %v", err)
	}
}

// TestOpaqueTokensWithProofs: the introspection response says to which key an opaque token is bound
// (RFC 7662 §2.2, RFC 9449 §6.2).
func TestOpaqueTokensWithProofs(t *testing.T) {
	s := newDPoPScene(t)
	endpoint := s.introspected(t)
	s.policy.DPoP = token.DPoPAllowed
	endpoint.set(
		opaqueToken,
		s.claims(
			"active",
			"true",
			"token_type",
			`"DPoP"`,
			"cnf",
			`{"jkt":"`+thumbprintOf(p256Key())+`"}`,
		),
	)
	v := s.verifier(t)
	if _, err := v.VerifyDPoP(t.Context(), opaqueToken,
		of(s.proof(t, p256Key(), opaqueToken))); err != nil {
		t.Errorf("with a good proof: %v", err)
	}
	refused(t, v, opaqueToken, token.Bound)
	endpoint.set("theft", s.claims("active", "true", "cnf", `{"jkt":"other"}`))
	if _, err := v.VerifyDPoP(t.Context(), "theft", of(s.proof(t, p256Key(), "theft"))); codeOf(
		err,
	) != token.Bound {
		t.Errorf("with the proof of another key: %v", err)
	}
}

// The issuer is asked about a token only once everything about its proof has been checked that can
// be checked without the answer.
func TestProofsAreCheckedBeforeTheIssuerIsAsked(t *testing.T) {
	s := newDPoPScene(t)
	endpoint := s.introspected(t)
	s.policy.DPoP = token.DPoPAllowed
	v := s.verifier(t)
	jwt := s.bound(p256Key())
	endpoint.set(jwt, `{"active":true}`)
	for tokens, presented := range map[string]token.Presented{
		"an opaque token": {Token: opaqueToken}, "a JWT": {Token: jwt, Introspect: true},
	} {
		good, other := s.proof(t, p256Key(), presented.Token),
			s.proof(t, p256Key(), presented.Token, "jti", `"other"`)
		last := strings.LastIndexByte(good, '.')
		old := strconv.FormatInt(s.now().Add(-time.Hour).Unix(), 10)
		for name, proof := range map[string]string{
			"a bad signature": good[:last] + other[strings.LastIndexByte(other, '.'):],
			"too old":         s.proof(t, p256Key(), presented.Token, "iat", old),
		} {
			with := of(proof)
			presented.Proof = &with
			_, err := v.VerifyPresented(t.Context(), presented)
			if codeOf(err) != token.InvalidProof || endpoint.asked.Load() != 0 {
				t.Errorf("%s, %s: %v, the issuer was asked %d times", tokens, name, err,
					endpoint.asked.Load())
			}
		}
	}
}

// TestEmptyKeySetsOfOpaqueIssuers: if an issuer of opaque tokens no longer publishes keys, its
// tokens stay valid.
func TestEmptyKeySetsOfOpaqueIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		s.introspected(t)
		v := s.verifier(t)
		accepted(t, v, s.genuine())
		s.Fail(
			devissuer.Fault{
				Endpoint: devissuer.Discovery,
				Body:     []byte(`{"issuer":"` + issuerURL + `"}`),
			},
		)
		time.Sleep(2 * time.Hour)
		accepted(t, v, s.genuine())
		s.log.mentions(t, "no longer publishes keys")
	})
}

// TestRevocation: with the development issuer, a revoked token (RFC 7009) is refused at once if the
// request requires introspection. Otherwise it is refused once that is known.
func TestRevocation(t *testing.T) {
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{audience}, Algorithm: "EdDSA", Scopes: []string{"read:messages"},
		Clients: []devissuer.Client{{ID: "api", Secret: "for the API, and long enough",
			Scopes: []string{"read:messages"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	send := func(path string, form url.Values) string {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, issuer.URL()+path,
			strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.SetBasicAuth("api", url.QueryEscape("for the API, and long enough"))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", path, response.Status, body)
		}
		return string(body)
	}
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	answer := send("oauth/token", url.Values{"grant_type": {"client_credentials"},
		"audience": {audience}})
	if err := json.Unmarshal([]byte(answer), &granted); err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier(t.Context(), token.Config{Issuers: []token.Issuer{{
		URL: issuer.URL(), Audiences: []string{audience},
		Introspection: token.Introspection{ClientID: "api",
			ClientSecret: "for the API, and long enough"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	live := token.Presented{Token: granted.AccessToken, Introspect: true}
	if p, err := v.VerifyPresented(t.Context(), live); err != nil || !p.HasScope("read:messages") {
		t.Fatalf("a token that is active: %v", err)
	}
	send("oauth/revoke", url.Values{"token": {granted.AccessToken}})
	if _, err := v.VerifyPresented(t.Context(), live); codeOf(err) != token.Inactive {
		t.Errorf("a token that is revoked: %v", err)
	}
	accepted(t, v, granted.AccessToken) // if introspection is not required
}

// FuzzIntrospection: for any response of an issuer, accepted tokens are active and have our
// audience.
func FuzzIntrospection(f *testing.F) {
	s := newScene(f)
	endpoint := s.introspected(f)
	f.Add(s.claims("active", "true"))
	f.Add(s.claims("active", "true", "aud", `["x"]`))
	f.Add(s.claims("active", "true", "", `"active":false`))
	f.Add(s.claims("active", "true", "", `"Active":false,"n":1e999`)) // other names are ignored
	// the error quotes it on purpose
	f.Add(s.claims("active", "true", "iss", strconv.Quote(canary)))
	f.Add(`{"active":false}`)
	f.Add(`{"active":true,"cnf":{}}`)
	f.Add(`[]`)
	s.policy.Introspection.MaxAge = token.NoAge
	f.Fuzz(func(t *testing.T, answer string) {
		// Errors quote iss and aud on purpose, and mutations move values between members. So the
		// canary must be in the token only.
		answer = strings.ReplaceAll(answer, canary, "note")
		endpoint.set(opaqueToken, answer)
		p, err := s.verifier(t).Verify(t.Context(), opaqueToken)
		if err != nil {
			loggable(t, opaqueToken, err.Error())
			return
		}
		said := map[string]json.RawMessage{} // not a struct, whose names encoding/json folds
		var active bool
		var audiences []string
		if json.Unmarshal([]byte(answer), &said) != nil ||
			json.Unmarshal(said["active"], &active) != nil || !active || p.Subject() == "" {
			t.Fatalf("accepted with %q", answer)
		}
		if json.Unmarshal(said["aud"], &audiences) != nil {
			audiences = make([]string, 1)
			if err := json.Unmarshal(said["aud"], &audiences[0]); err != nil {
				t.Fatalf("accepted with %q: %v", answer, err)
			}
		}
		if !slices.Contains(audiences, audience) {
			t.Errorf("accepted with %q, for the audiences %q", answer, audiences)
		}
	})
}
