package client_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/token"
)

const document = `
openapi: 3.1.0
info: {title: messages, version: "1"}
paths:
  /messages:
    get:
      operationId: listMessages
      security: [{bearerAuth: [read:messages]}]
      responses: {"200": {description: The messages.}}
    post:
      operationId: createMessage
      security: [{bearerAuth: [write:messages]}]
      requestBody: {required: true, content: {application/json: {schema: {type: object}}}}
      responses: {"201": {description: The message.}}
components:
  securitySchemes:
    bearerAuth: {type: http, scheme: bearer, x-scopes: {"read:messages": Read, "write:messages": Write}}
`

// api is a server that a gate guards. It records the requests.
type api struct {
	*httptest.Server
	requests atomic.Int64
}

// startAPI starts an API that accepts tokens of an issuer. With a nonce key it requires a nonce in
// each proof.
func startAPI(t testing.TB, issuer string, policy token.DPoPPolicy, nonceKey []byte) *api {
	t.Helper()
	a := &api{Server: httptest.NewUnstartedServer(nil)}
	address := "http://" + a.Listener.Addr().String()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer, Audiences: []string{audience}, DPoP: policy}},
		Proofs:  token.ProofPolicy{NonceKey: nonceKey}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier, Resource: address,
		AuthorizationServers: []string{issuer}})
	if err != nil {
		t.Fatal(err)
	}
	a.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		admitted, err := gate.Check(r, r.URL.Path, r.PathValue)
		if err != nil {
			gate.WriteProblem(w, r, err)
			return
		}
		body, _ := io.ReadAll(admitted.Body)
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		fmt.Fprintf(w, "%s %s %s %s", scheme, r.Method, r.URL.Path, body)
	})
	a.Start()
	t.Cleanup(a.Close)
	return a
}

// full is a configuration that works, changed.
func full(issuer string, change func(*client.Config)) client.Config {
	config := client.Config{Issuer: issuer, ClientID: "full", ClientSecret: secret,
		Audience: audience}
	if change != nil {
		change(&config)
	}
	return config
}

func newSource(t testing.TB, config client.Config) *client.Source {
	t.Helper()
	source, err := client.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func newClient(t testing.TB, config client.Config, url string) *http.Client {
	t.Helper()
	caller, err := newSource(t, config).Client(url)
	if err != nil {
		t.Fatal(err)
	}
	return caller
}

// send sends a request and returns the status and the body of the response.
func send(t testing.TB, caller *http.Client, method, url string, body io.Reader) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := caller.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(response.StatusCode, " ", string(text))
}

func TestConfigFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		config client.Config
		want   []string
	}{
		{"nothing", client.Config{}, []string{"Issuer, TokenURL and API are empty", "ClientID is empty", "ClientSecret is empty"}},
		{"both", full("https://a.example/", func(c *client.Config) { c.TokenURL = "https://a.example/token" }), []string{"both set"}},
		{"an issuer without TLS", full("http://a.example/", nil), []string{"issuer is \"http://a.example/\""}},
		{"a token endpoint without TLS", full("", func(c *client.Config) { c.TokenURL = "http://a.example/token" }), []string{"TokenURL is \"http://a.example/token\""}},
		{"a password in a URL", full("", func(c *client.Config) { c.TokenURL = "https://u:hunter2@a.example/token" }), []string{"TokenURL is \"https://u:xxxxx@a.example/token\""}},
		{"scopes in one", full("https://a.example/", func(c *client.Config) { c.Scopes = []string{"a b", "c", ""} }), []string{`Scopes has "a b"`, `Scopes has ""`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := client.New(t.Context(), test.config)
			if err == nil || len(strings.Split(err.Error(), "\n")) != len(test.want) ||
				strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), secret) {
				t.Fatalf("error is %v: want %d lines, without secrets", err, len(test.want))
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %v: want it to contain %q", err, want)
				}
			}
		})
	}
}

func TestClient(t *testing.T) {
	issuer := startIssuer(t, "")
	api := startAPI(t, issuer.URL(), token.DPoPAllowed, nil)
	for _, test := range []struct {
		name   string
		change func(*client.Config)
		want   string
	}{
		{"all that the client may have", nil, "200 Bearer GET /messages "},
		{"exactly what is needed", func(c *client.Config) { c.Scopes = []string{"read:messages"} }, "200 Bearer GET /messages "},
		{"another scope", func(c *client.Config) { c.Scopes = []string{"write:messages"} }, "403 "},
		{"by its token endpoint", func(c *client.Config) { c.Issuer, c.TokenURL = "", issuer.URL()+"oauth/token" }, "200 Bearer GET /messages "},
		{"bound to a key", func(c *client.Config) { c.DPoP = true }, "200 DPoP GET /messages "},
	} {
		t.Run(test.name, func(t *testing.T) {
			caller := newClient(t, full(issuer.URL(), test.change), api.URL)
			if got := send(t, caller, "GET", api.URL+"/messages", nil); !strings.HasPrefix(got,
				test.want) {
				t.Errorf("the API says %q, want %q", got, test.want)
			}
			request, err := http.NewRequestWithContext(t.Context(), "GET", api.URL+"/messages", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := caller.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if len(request.Header) != 0 || len(response.Request.Header) != 0 {
				t.Errorf("the request has got the headers %v, that of the answer %v: want "+
					"neither to show the token", request.Header, response.Request.Header)
			}
		})
	}
}

// fake is a token endpoint under the test's control.
func fake(t testing.TB, answer http.HandlerFunc) string {
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return server.URL + "/token"
}

func grant(w http.ResponseWriter, accessToken, tokenType string, lifetime int) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"token_type":%q,"expires_in":%d}`, accessToken, tokenType,
		lifetime)
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error":%q,"error_description":%q}`, code, description)
}

// TestTokenRequest checks the exact token request (RFC 6749 §2.3.1, §4.4.2), and that the secret is
// sent as the issuer requires.
func TestTokenRequest(t *testing.T) {
	for _, test := range []struct {
		name        string
		takes       func(*http.Request) bool
		first, next int64 // requests for the first token and for the next
		refused     string
	}{
		{"the header", func(r *http.Request) bool { _, _, ok := r.BasicAuth(); return ok }, 1, 1, ""},
		{"the body", func(r *http.Request) bool { return r.PostFormValue("client_secret") == secret }, 2, 1, ""},
		{"neither", func(*http.Request) bool { return false }, 2, 2, "invalid_client"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int64
			endpoint := fake(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if r.Method != http.MethodPost || r.URL.RawQuery != "" ||
					r.PostFormValue("grant_type") != "client_credentials" ||
					r.PostFormValue("audience") != "a & b" || r.PostFormValue("scope") != "x y" {
					t.Errorf("%s %s %v: want a POST with the grant, the audience and the "+
						"scopes in its body", r.Method, r.URL, r.PostForm)
				}
				if id, password, ok := r.BasicAuth(); ok &&
					(id != "full" || password != "s3cret+%26+%2B%25%2F%3D%3A%40") {
					t.Errorf("Basic credentials are %q, %q: want them form-encoded", id,
						password)
				}
				if !test.takes(r) {
					refuse(w, http.StatusUnauthorized, "invalid_client", "who is that?")
					return
				}
				// like an expired one
				grant(w, fmt.Sprint("t", requests.Load()), "bearer", 5)
			})
			source := newSource(t, full("", func(c *client.Config) {
				c.TokenURL, c.Audience, c.Scopes = endpoint, "a & b", []string{"x", "y"}
			}))
			for _, expected := range []int64{test.first, test.next} {
				requests.Store(0)
				got, err := source.Token()
				refused, ok := errors.AsType[*oauth2.RetrieveError](err)
				if ok != (test.refused != "") ||
					ok && refused.ErrorCode != test.refused {
					t.Errorf("%v, %v: want refusal %q", got, err, test.refused)
				}
				if requests.Load() != expected {
					t.Errorf("%d requests were made for a token, want %d", requests.Load(),
						expected)
				}
			}
		})
	}
}

func TestTokenIsKept(t *testing.T) {
	for _, test := range []struct{ lifetime, fetches int }{{3600, 1}, {5, 3}} {
		var requests atomic.Int64
		endpoint := fake(t, func(w http.ResponseWriter, _ *http.Request) {
			grant(w, fmt.Sprint("t", requests.Add(1)), "Bearer", test.lifetime)
		})
		source := newSource(t, full("", func(c *client.Config) { c.TokenURL = endpoint }))
		for range 3 {
			if _, err := source.Token(); err != nil {
				t.Fatal(err)
			}
		}
		if int(requests.Load()) != test.fetches {
			t.Errorf("3 tokens of %d s: %d fetches, want %d", test.lifetime, requests.Load(),
				test.fetches)
		}
	}
}

// Concurrent callers cause one request to the issuer. If it fails, all get the error at once.
func TestOneFetchForMany(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var requests atomic.Int64
			release := make(chan struct{})
			source := newSource(t, inBubble(func(w http.ResponseWriter, _ *http.Request) {
				requests.Add(1)
				<-release
				if fails {
					refuse(w, http.StatusServiceUnavailable, "temporarily_unavailable", "")
					return
				}
				grant(w, "t", "Bearer", 3600)
			}))
			var done sync.WaitGroup
			for range 100 {
				done.Go(func() {
					if got, err := source.Token(); (err != nil) != fails || err == nil &&
						got.AccessToken != "t" {
						t.Errorf("fails %v: %v, %v", fails, got, err)
					}
				})
			}
			synctest.Wait() // until all of them wait
			close(release)
			done.Wait()
			if got := requests.Load(); got != 1 {
				t.Errorf("fails %v: %d requests for the token of 100 callers, want 1", fails,
					got)
			}
		})
	}
}

// A caller whose context ends does not wait for the issuer, and does not take the token from the
// others.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		source := newSource(t, inBubble(func(w http.ResponseWriter, _ *http.Request) {
			<-release
			grant(w, "t", "Bearer", 3600)
		}))
		caller, err := source.Client("https://api.example")
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example/", nil)
			_, err := caller.Do(request)
			got <- err
		}()
		other := make(chan error, 1)
		go func() { _, err := source.Token(); other <- err }()
		synctest.Wait() // until both of them wait
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("the request ends with %v, want it cancelled", err)
		}
		close(release)
		if err := <-other; err != nil {
			t.Errorf("the other caller gets %v, want the token", err)
		}
	})
}

// inBubble configures an issuer without a network, because synctest cannot wait for one.
func inBubble(issuer http.HandlerFunc) client.Config {
	return full("", func(c *client.Config) {
		c.TokenURL = "https://issuer.example/token"
		c.HTTPClient = &http.Client{Transport: handlerTransport{issuer}}
	})
}

type handlerTransport struct{ http.Handler }

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), nil
}

// No error contains a part of the secret, whatever the issuer sends, and in any format of printing.
func TestErrorsContainNoSecret(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("full:s3cret+%26+%2B%25%2F%3D%3A%40"))
	for name, answer := range map[string]http.HandlerFunc{
		"a refusal": func(w http.ResponseWriter, r *http.Request) {
			refuse(w, 400, "invalid_request",
				"what is "+secret+" or "+r.Header.Get("Authorization"))
		},
		"not OAuth": func(w http.ResponseWriter, r *http.Request) {
			r.ParseForm()
			http.Error(w, fmt.Sprint(r.Header, r.PostForm.Encode()), 500)
		},
		"no token": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"send":%q}`, secret) },
		"no JSON":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, secret) },
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"no answer":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"other token": func(w http.ResponseWriter, _ *http.Request) { grant(w, "hunter2", "mac", 3600) },
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := fake(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/token" {
					t.Errorf("a redirect of the token endpoint was followed to %s", r.URL.Path)
				}
				answer(w, r)
			})
			_, err := newSource(t, full("", func(c *client.Config) {
				c.TokenURL = endpoint
			})).Token()
			if err == nil || !strings.Contains(err.Error(), endpoint) {
				t.Fatalf("error is %v: want one that names %s", err, endpoint)
			}
			text := fmt.Sprintf("%v %+v", err, err)
			if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
				text += fmt.Sprintf("%+v %+v %s", *refused, *refused.Response, refused.Body)
				if refused.Response.Request != nil {
					t.Error("the error contains the request, which has the secret")
				}
			}
			for _, leak := range []string{secret, "s3cret", basic, "hunter2"} {
				if strings.Contains(text, leak) {
					t.Errorf("the error says %q", leak)
				}
			}
		})
	}
}

func TestTokenIsSentToTheAPIOnly(t *testing.T) {
	issuer := startIssuer(t, "")
	var back string // where elsewhere sends a request for /back
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			http.Redirect(w, r, back, http.StatusTemporaryRedirect)
			return
		}
		fmt.Fprintf(w, "%s %v %v", r.URL.Path, r.Header["Authorization"], r.Header["Dpop"])
	}))
	defer elsewhere.Close()
	var seen []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		seen = append(seen, r.URL.Path+" "+scheme)
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, elsewhere.URL+"/", http.StatusTemporaryRedirect)
		case "/away-and-back":
			http.Redirect(w, r, elsewhere.URL+"/back", http.StatusTemporaryRedirect)
		case "/here", "/chosen":
			http.Redirect(w, r, "/end", http.StatusTemporaryRedirect)
		}
	}))
	defer api.Close()
	back = api.URL + "/chosen"
	caller := newClient(t, full(issuer.URL(), func(c *client.Config) {
		c.DPoP = true
	}), api.URL+"/v1/")

	if got, want := send(t, caller, "GET", api.URL+"/away", nil), "200 / [] []"; got != want {
		t.Errorf("after a redirect, the other server gets %q, want %q", got, want)
	}
	send(t, caller, "GET", api.URL+"/here", nil)
	if got, want := strings.Join(seen, ", "), "/away DPoP, /here DPoP, /end DPoP"; got != want {
		t.Errorf("the API gets %q, want %q: the token in each request", got, want)
	}
	seen = nil
	send(t, caller, "GET", api.URL+"/away-and-back", nil)
	if got, want := strings.Join(seen, ", "), "/away-and-back DPoP, /chosen , /end "; got != want {
		t.Errorf("the API received %q, want %q: no token after redirects by others", got,
			want)
	}
	for _, url := range []string{elsewhere.URL, strings.Replace(api.URL, "http:", "https:", 1),
		strings.Replace(api.URL, "127.0.0.1", "localhost", 1), strings.Replace(api.URL, "127.0.0.1",
			"127.0.0.1.example", 1)} {
		body := &closing{Reader: strings.NewReader("{}")}
		request, _ := http.NewRequest("POST", url, body)
		_, err := caller.Do(request)
		if e, ok := errors.AsType[*client.OriginError](err); !ok ||
			!strings.Contains(e.Error(), "the token is for "+api.URL) || !body.closed {
			t.Errorf(
				"%s: error is %v, body closed %v: want an OriginError, and the body closed",
				url, err, body.closed)
		}
	}
	for _, url := range []string{"http://api.example/", "api.example", "https://u:p@api.example/"} {
		if _, err := newSource(t, full(issuer.URL(), nil)).Client(url); err == nil ||
			strings.Contains(err.Error(), ":p@") {
			t.Errorf("an API at %s: error is %v, want one, for a token would go there in the "+
				"open", url, err)
		}
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// A token that is about to expire and that the API refuses is replaced once.
func TestTokenNoLongerValid(t *testing.T) {
	const challenge = `Bearer realm="api", error="invalid_token"`
	for _, test := range []struct {
		name   string
		age    time.Duration
		body   io.Reader
		accept string // the accepted token
		refuse string // the challenge
		want   string // status and requests to the API, and tokens fetched
	}{
		{"replaced", time.Minute, nil, "t2", challenge, "200, 2 requests, 2 tokens"},
		{"replaced, with a body", time.Minute, strings.NewReader(`{"n":1}`), "t2", challenge, "200, 2 requests, 2 tokens"},
		{"a body that cannot be sent again", time.Minute, io.MultiReader(strings.NewReader(`{"n":1}`)), "t2", challenge, "401, 1 requests, 1 tokens"},
		{"refused again", time.Minute, nil, "none", challenge, "401, 2 requests, 2 tokens"},
		{"fresh", 29 * time.Second, nil, "t2", challenge, "401, 1 requests, 1 tokens"},
		{"another error", time.Minute, nil, "t2", `Bearer realm="api"`, "401, 1 requests, 1 tokens"},
		{"a nonce without DPoP", time.Minute, nil, "t2", `DPoP error="use_dpop_nonce"`, "401, 1 requests, 1 tokens"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var tokens, requests int
			now := time.Now()
			endpoint := fake(t, func(w http.ResponseWriter, _ *http.Request) {
				tokens++
				grant(w, fmt.Sprint("t", tokens), "Bearer", 3600)
			})
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
				r *http.Request) {
				requests++
				if body, _ := io.ReadAll(r.Body); test.body != nil && string(body) != `{"n":1}` {
					t.Errorf("request %d has the body %q", requests, body)
				}
				if r.Header.Get("Authorization") != "Bearer "+test.accept {
					w.Header().Set("DPoP-Nonce", "n")
					w.Header().Set("WWW-Authenticate", test.refuse)
					w.WriteHeader(401)
				}
			}))
			defer api.Close()
			source := newSource(t, full("", func(c *client.Config) {
				c.TokenURL, c.Now = endpoint, func() time.Time { return now }
			}))
			caller, err := source.Client(api.URL)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := source.Token(); err != nil {
				t.Fatal(err)
			}
			now = now.Add(test.age)
			status, _, _ := strings.Cut(send(t, caller, "POST", api.URL, test.body), " ")
			if got := fmt.Sprintf("%s, %d requests, %d tokens", status, requests,
				tokens); got != test.want {
				t.Errorf("%s: want %s", got, test.want)
			}
		})
	}
}

// With the gate and the development issuer, with and without nonces.
func TestDPoP(t *testing.T) {
	issuer := startIssuer(t, "")
	for _, test := range []struct {
		name     string
		nonceKey []byte
		first    int64 // requests to the API for the first call, which may have to learn of a nonce
	}{
		{"no nonces", nil, 1},
		{"nonces", bytes.Repeat([]byte("k"), 32), 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			api := startAPI(t, issuer.URL(), token.DPoPRequired, test.nonceKey)
			caller := newClient(t, full(issuer.URL(), func(c *client.Config) {
				c.DPoP = true
			}), api.URL)
			if got, want := send(t, caller, "POST", api.URL+"/messages?",
				strings.NewReader(`{"n":1}`)), `200 DPoP POST /messages {"n":1}`; got != want {
				t.Errorf("the API says %q, want %q", got, want)
			}
			if got := api.requests.Swap(0); got != test.first {
				t.Errorf("the first call took %d requests, want %d", got, test.first)
			}
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if got, want := send(t, caller, "GET", api.URL+"/messages",
						nil), "200 DPoP GET /messages "; got != want {
						t.Errorf("the API says %q, want %q", got, want)
					}
				})
			}
			all.Wait()
			if got := api.requests.Load(); got != 20 {
				t.Errorf("20 calls took %d requests, want 20: the nonce is known", got)
			}
		})
	}
	t.Run("a bearer token is not taken", func(t *testing.T) {
		api := startAPI(t, issuer.URL(), token.DPoPRequired, nil)
		if got := send(t, newClient(t, full(issuer.URL(), nil), api.URL), "GET",
			api.URL+"/messages", nil); !strings.HasPrefix(got, "401 ") {
			t.Errorf("the API says %q to a bearer token, so that this test proves nothing", got)
		}
	})
}

// The issuer can require a nonce as well (RFC 9449 §8). The request is repeated once only.
func TestDPoPNonceOfTheIssuer(t *testing.T) {
	for _, test := range []struct {
		name     string
		accepts  string // the accepted nonce
		requests int
	}{
		{"known with the second request", "n1", 2},
		{"never satisfied", "none", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			issuer := startIssuer(t, "")
			var nonces []string
			var proxied http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
				var claims struct{ Nonce string }
				if parts := strings.Split(r.Header.Get("DPoP"), "."); len(parts) == 3 {
					payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
					json.Unmarshal(payload, &claims)
				}
				nonces = append(nonces, claims.Nonce)
				if claims.Nonce != test.accepts {
					w.Header().Set("DPoP-Nonce", fmt.Sprint("n", len(nonces)))
					refuse(w, 400, "use_dpop_nonce",
						"Authorization server requires nonce in DPoP proof")
					return
				}
				grant(w, "t", "DPoP", 3600)
			}
			endpoint := fake(t, proxied)
			source := newSource(t, full(issuer.URL(), func(c *client.Config) {
				c.Issuer, c.TokenURL, c.DPoP = "", endpoint, true
			}))
			got, err := source.Token()
			refused, _ := errors.AsType[*oauth2.RetrieveError](err)
			switch {
			case test.accepts == "none" &&
				(refused == nil || refused.ErrorCode != "use_dpop_nonce"):
				t.Errorf("%v, %v: want the refusal", got, err)
			case test.accepts != "none" && (err != nil || got.AccessToken != "t"):
				t.Errorf("%v, %v: want the token", got, err)
			}
			if len(nonces) != test.requests || nonces[0] != "" || nonces[1] != "n1" {
				t.Errorf("the issuer got proofs with nonces %q: want %d, the second with "+
					"that of the first answer", nonces, test.requests)
			}
		})
	}
}

// Another refusal is not repeated, even if it has a nonce, which the next request uses.
func TestDPoPOtherRefusal(t *testing.T) {
	requests := 0
	endpoint := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		w.Header().Set("DPoP-Nonce", "n1")
		refuse(w, 400, "invalid_scope", "which?")
	})
	_, err := newSource(t, full("", func(c *client.Config) {
		c.TokenURL, c.DPoP = endpoint, true
	})).Token()
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); !ok ||
		refused.ErrorCode != "invalid_scope" || refused.ErrorDescription != "which?" ||
		requests != 1 {
		t.Errorf("%d requests, and %v: want 1, and what the issuer says", requests, err)
	}
}

// All requests to the issuer and the API use the configured http.Client.
func TestHTTPClient(t *testing.T) {
	issuer := startIssuer(t, "")
	api := startAPI(t, issuer.URL(), token.DPoPAllowed, nil)
	for _, dpop := range []bool{false, true} {
		through := &counting{}
		caller := newClient(t, full(issuer.URL(), func(c *client.Config) {
			c.HTTPClient, c.DPoP = &http.Client{Transport: through}, dpop
		}), api.URL)
		send(t, caller, "GET", api.URL+"/messages", nil)
		if got, want := strings.Join(through.paths,
			" "), "/.well-known/openid-configuration /oauth/token /messages"; got != want {
			t.Errorf("DPoP %v: the client sends %s, want %s", dpop, got, want)
		}
	}
}

type counting struct{ paths []string }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.paths = append(c.paths, r.URL.Path)
	return http.DefaultTransport.RoundTrip(r)
}

// With DPoP, a bearer token of an issuer that does not support it is an error (RFC 9449 §5).
func TestDPoPIsNotLost(t *testing.T) {
	endpoint := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		grant(w, "t", "Bearer", 3600)
	})
	_, err := newSource(t, full("", func(c *client.Config) {
		c.TokenURL, c.DPoP = endpoint, true
	})).Token()
	if err == nil || !strings.Contains(err.Error(), `token_type is "Bearer", expected DPoP`) {
		t.Errorf("error is %v: want a bearer token to be refused", err)
	}
}

// If the issuer is down when the source is created, the next call tries again.
func TestIssuerComesBack(t *testing.T) {
	issuer := startIssuer(t, "")
	source := newSource(t, full(issuer.URL(), nil))
	issuer.Stop()
	if _, err := source.Token(); err == nil {
		t.Error("a token of an issuer that is down")
	}
	if err := issuer.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Token(); err != nil {
		t.Errorf("the issuer is up again: %v, want a token", err)
	}
}

// After a 503 the client waits for Retry-After, if MaxRetryAfter allows it, and sends the request
// once more.
func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		method, after string
		longest       time.Duration
		requests      int
		waited        time.Duration
	}{
		{"GET", "3", 5 * time.Second, 2, 3 * time.Second},
		{"HEAD", "0", 5 * time.Second, 2, 0},
		{"GET", "3", 0, 1, 0},
		{"GET", "6", 5 * time.Second, 1, 0},
		{"GET", "Sat, 28 Nov 2026 10:00:00 GMT", 5 * time.Second, 1, 0},
		{"GET", "", 5 * time.Second, 1, 0},
		{"POST", "3", 5 * time.Second, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			config := inBubble(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Host == "issuer.example" {
					grant(w, "t", "Bearer", 3600)
					return
				}
				requests++
				w.Header().Set("Retry-After", test.after)
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			config.MaxRetryAfter = test.longest
			caller, err := newSource(t, config).Client("https://api.example")
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			request, _ := http.NewRequest(test.method, "https://api.example/", nil)
			response, err := caller.Do(request)
			if err != nil || response.StatusCode != http.StatusServiceUnavailable {
				t.Fatalf("%+v: %v", test, err)
			}
			if waited := time.Since(begun); requests != test.requests || waited != test.waited {
				t.Errorf("%+v: %d requests, waited %s", test, requests, waited)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		config := inBubble(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Host == "issuer.example" {
				grant(w, "t", "Bearer", 3600)
				return
			}
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		config.MaxRetryAfter = time.Hour
		caller, err := newSource(t, config).Client("https://api.example")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		request, _ := http.NewRequestWithContext(ctx, "GET", "https://api.example/", nil)
		if _, err := caller.Do(request); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller whose context has ended gets %v", err)
		}
	})
}
