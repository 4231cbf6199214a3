package authz_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// perf is what the benchmarks of the request path run on: the quickstart's document, a real issuer, real tokens.
type perf struct {
	issuer  *devissuer.Server
	guarded http.Handler
	raw     http.Handler // Echo with the same handler and no check at all
}

func newPerf(tb testing.TB) *perf {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://api.example.com"}, Scopes: []string{"read:messages"}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { issuer.Close() })
	doc, err := openapi3.NewLoader().LoadFromFile("../openapi.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	verifier, err := token.NewVerifier(ctx, token.Config{Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example.com"}}}})
	if err != nil {
		tb.Fatal(err)
	}
	if err := verifier.Ready(ctx); err != nil {
		tb.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier})
	if err != nil {
		tb.Fatal(err)
	}
	build := func(mw ...echo.MiddlewareFunc) *echo.Echo {
		e := echo.New()
		e.HTTPErrorHandler = gate.ErrorHandler
		e.Use(mw...)
		hello := func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"message": "hello"}) }
		for _, o := range gate.Plan().Operations() {
			e.Add(o.Method, o.Path, hello)
		}
		return e
	}
	return &perf{issuer, build(gate.Middleware), build()}
}

func (p *perf) mint(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = p.issuer.Mint(map[string]any{"sub": fmt.Sprintf("auth0|%024x", i), "scope": "openid profile read:messages", "azp": "my_client_id_0123456789abcdefghij"})
	}
	return tokens
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

func (d *discard) serve(tb testing.TB, h http.Handler, r *http.Request, expected int) {
	clear(d.header)
	d.status = http.StatusOK
	h.ServeHTTP(d, r)
	if d.status != expected {
		tb.Fatalf("status is %d, expected %d", d.status, expected)
	}
}

func BenchmarkRequest(b *testing.B) {
	p := newPerf(b)
	request := func(token string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/api/private-scoped", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		return r
	}
	d := &discard{header: http.Header{}}
	hot := p.mint(1)[0]
	b.Run("raw", func(b *testing.B) {
		r := request(hot)
		b.ReportAllocs()
		for b.Loop() {
			d.serve(b, p.raw, r, 200)
		}
	})
	b.Run("hot", func(b *testing.B) {
		r := request(hot)
		d.serve(b, p.guarded, r, 200)
		b.ReportAllocs()
		for b.Loop() {
			d.serve(b, p.guarded, r, 200)
		}
	})
	cold := p.mint(2000)
	b.Run("cold", func(b *testing.B) {
		r := request(hot)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			r.Header["Authorization"][0] = "Bearer " + cold[i%len(cold)]
			i++
			d.serve(b, p.guarded, r, 200)
		}
	})
	b.Run("forged", func(b *testing.B) {
		r := request(hot[:len(hot)-8] + "AAAAAAAA")
		b.ReportAllocs()
		for b.Loop() {
			d.serve(b, p.guarded, r, 401)
		}
	})
	b.Run("malformed", func(b *testing.B) {
		r := request("x.y")
		b.ReportAllocs()
		for b.Loop() {
			d.serve(b, p.guarded, r, 401)
		}
	})
	b.Run("rsa", func(b *testing.B) {
		key, _ := rsa.GenerateKey(rand.Reader, 2048)
		digest := sha256.Sum256([]byte(hot))
		signature, _ := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
		b.ReportAllocs()
		for b.Loop() {
			if rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature) != nil {
				b.Fatal()
			}
		}
	})
}
