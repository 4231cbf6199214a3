package token_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// failingClient is an HTTP client that fails while mode is set.
type failingClient struct {
	wire *wire
	mode atomic.Pointer[string]
}

func (c *failingClient) fail(mode string) { c.mode.Store(&mode) }

func (c *failingClient) RoundTrip(r *http.Request) (*http.Response, error) {
	switch mode := c.mode.Load(); *mode {
	case "panics":
		panic("refused: " + r.Header.Get("Authorization") + " " + canary)
	case "dereferences nil":
		var r *http.Request
		_ = r.Method
	case "exits":
		runtime.Goexit()
	case "has a body that panics":
		response, err := c.wire.RoundTrip(r)
		if err == nil {
			response.Body = panickingBody{}
		}
		return response, err
	}
	return c.wire.RoundTrip(r)
}

type panickingBody struct{}

func (panickingBody) Read([]byte) (int, error) { panic(errors.New(canary)) }
func (panickingBody) Close() error             { return nil }

// TestPanics: a panic of the program's HTTP client, or of Resolve, is a failure like others. It
// does not end the process, all requests that wait get an error, and the next fetch works.
func TestPanics(t *testing.T) {
	for _, mode := range []string{"panics", "dereferences nil", "has a body that panics", "exits"} {
		for _, fetch := range []struct {
			name   string
			code   token.Code
			config func(s *scene, c *token.Config)
			token  func(s *scene) token.Presented
		}{
			{"keys", token.KeysUnavailable, nil, nil},
			{"keys without discovery", token.KeysUnavailable,
				func(s *scene, c *token.Config) { c.Issuers[0].JWKSURI = keySetURL }, nil},
			{"introspection", token.IntrospectionUnavailable, nil,
				func(*scene) token.Presented { return token.Presented{Token: opaqueToken} }},
			{"introspection with discovery", token.IntrospectionUnavailable,
				func(s *scene, c *token.Config) {
					c.Issuers[0].Introspection.Endpoint = ""
					s.wire.hosts["localhost:8443"] = serveJSON(`{"issuer":"` + issuerURL +
						`","introspection_endpoint":"https://introspect.example/"}`)
				},
				func(*scene) token.Presented { return token.Presented{Token: opaqueToken} }},
			{"live introspection", token.IntrospectionUnavailable, nil,
				func(*scene) token.Presented {
					return token.Presented{Token: opaqueToken, Introspect: true}
				}},
		} {
			if mode == "exits" && fetch.name == "live introspection" {
				continue // would end the goroutine of the request
			}
			t.Run(fetch.name+" "+mode, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSceneAt(t, "EdDSA", time.Now)
					endpoint := s.introspected(t)
					endpoint.set(opaqueToken, s.claims("active", "true"))
					client := &failingClient{wire: s.wire}
					client.fail(mode)
					config := s.config(s.policy)
					config.HTTPClient = &http.Client{Transport: client}
					if fetch.config != nil {
						fetch.config(s, &config)
					}
					v := must(token.NewVerifier(t.Context(), config))
					presented := token.Presented{Token: s.genuine()}
					if fetch.token != nil {
						presented = fetch.token(s)
					}
					var all sync.WaitGroup
					for range 5 {
						all.Go(func() {
							_, err := v.VerifyPresented(t.Context(), presented)
							if codeOf(err) != fetch.code || strings.Contains(err.Error(), canary) {
								t.Errorf("%v, want the code %s", err, fetch.code)
							}
						})
					}
					all.Wait()
					client.fail("")
					time.Sleep(time.Second)
					if _, err := v.VerifyPresented(t.Context(), presented); err != nil {
						t.Errorf("afterwards: %v", err)
					}
					if mode == "dereferences nil" {
						s.log.mentions(t, "nil pointer dereference", "RoundTrip (panic_test.go:")
					}
					text := s.log.String()
					if n := strings.Count(text, "level=WARN"); n != 1 ||
						strings.Contains(text, canary) || strings.Contains(text, "Basic ") {
						t.Errorf("%d warnings, want one, without credentials:\n%s", n, text)
					}
				})
			})
		}
	}
}

// TestPanicsOfRefreshes: known keys stay in use while the HTTP client panics in the background.
func TestPanicsOfRefreshes(t *testing.T) {
	for _, mode := range []string{"panics", "exits"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSceneAt(t, "EdDSA", time.Now)
				client := &failingClient{wire: s.wire}
				client.fail("")
				config := s.config(s.policy)
				config.HTTPClient = &http.Client{Transport: client}
				v := must(token.NewVerifier(t.Context(), config))
				accepted(t, v, s.genuine())
				client.fail(mode)
				time.Sleep(3 * time.Hour)
				accepted(t, v, s.genuine())
				s.Rotate("EdDSA")
				refused(t, v, s.genuine(), token.KeyPending)
				client.fail("")
				time.Sleep(2 * time.Minute)
				accepted(t, v, s.genuine())
				if text := s.log.String(); strings.Count(text, "level=WARN") != 1 {
					t.Errorf("want one warning:\n%s", text)
				}
			})
		})
	}
}

// TestPanicsOfResolve: an issuer that Resolve returned before stays in use.
func TestPanicsOfResolve(t *testing.T) {
	for _, mode := range []string{"panics", "exits"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := newSceneAt(t, "EdDSA", time.Now), &directory{}
				works := false
				d.answer = func(context.Context, string) (*token.Issuer, error) {
					switch {
					case works:
						found := s.policy
						return &found, nil
					case mode == "exits":
						runtime.Goexit()
					}
					panic(canary)
				}
				v := s.resolving(t, d)
				var all sync.WaitGroup
				for range 5 {
					all.Go(func() { refused(t, v, s.genuine(), token.KeysUnavailable) })
				}
				all.Wait()
				works = true
				time.Sleep(2 * time.Second)
				accepted(t, v, s.genuine())
				works = false
				time.Sleep(6 * time.Minute)
				if mode == "panics" {
					accepted(t, v, s.genuine())
				}
				if strings.Contains(s.log.String(), canary) {
					t.Errorf("the value of the panic is in the log:\n%s", s.log)
				}
			})
		})
	}
}
