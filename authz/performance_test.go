package authz_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
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
	doc     *openapi3.T
	guarded http.Handler
	raw     http.Handler // Echo with the same handler and no check at all
}

const perfAudience = "https://api.example.com"

func newPerf(tb testing.TB) *perf {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{perfAudience}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { issuer.Close() })
	doc, err := openapi3.NewLoader().LoadFromFile("../openapi.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	p := &perf{issuer: issuer, doc: doc}
	p.forget(tb)
	return p
}

// forget begins anew with a verifier that has the keys and has seen no token.
func (p *perf) forget(tb testing.TB) {
	verifier, err := token.NewVerifier(tb.Context(), token.Config{
		Issuers: []token.Issuer{{URL: p.issuer.URL(), Audiences: []string{perfAudience}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := verifier.Ready(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: p.doc, Verifier: verifier})
	if err != nil {
		tb.Fatal(err)
	}
	build := func(use ...echo.MiddlewareFunc) *echo.Echo {
		e := echo.New()
		e.HTTPErrorHandler = gate.ErrorHandler
		e.Use(use...)
		hello := func(c echo.Context) error {
			return c.JSON(http.StatusOK, struct {
				Message string `json:"message"`
			}{"hello"})
		}
		for _, o := range gate.Plan().Operations() {
			e.Add(o.Method, o.Path, hello)
		}
		return e
	}
	p.guarded, p.raw = build(gate.Middleware), build()
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

func scopedRequest(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/private-scoped", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// BenchmarkRequest is one protected GET, in process. Quote ratios to raw, and allocations; cold is to be held against
// raw and rsa together.
func BenchmarkRequest(b *testing.B) {
	p := newPerf(b)
	d := &discard{header: http.Header{}}
	tokens := p.mint(2000)
	r := scopedRequest(tokens[0])
	run := func(name string, h *http.Handler, expected int, before func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before()
				d.serve(b, *h, r, expected)
			}
		})
	}
	nothing := func() {}
	run("raw", &p.raw, 200, nothing)
	run("hot", &p.guarded, 200, nothing)
	i := 0
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if i%len(tokens) == 0 {
				b.StopTimer()
				p.forget(b)
				b.StartTimer()
			}
			r.Header["Authorization"][0] = "Bearer " + tokens[i%len(tokens)]
			i++
			d.serve(b, p.guarded, r, 200)
		}
	})
	r = scopedRequest(tokens[0][:len(tokens[0])-8] + "AAAAAAAA")
	run("forged", &p.guarded, 401, nothing)
	r = scopedRequest("x.y")
	run("malformed", &p.guarded, 401, nothing)
	b.Run("rsa", func(b *testing.B) {
		key, _ := rsa.GenerateKey(rand.Reader, 2048)
		digest := sha256.Sum256([]byte(tokens[0]))
		signature, _ := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
		b.ReportAllocs()
		for b.Loop() {
			if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// The ceilings are a little above what is measured. A change that breaks one has put work on every request.
func TestAllocationsPerRequest(t *testing.T) {
	if build, ok := debug.ReadBuildInfo(); ok && slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector allocates on its own account")
	}
	p := newPerf(t)
	d := &discard{header: http.Header{}}
	tokens := p.mint(400)
	measure := func(h http.Handler, expected int, tokens []string) float64 {
		r, i := scopedRequest(""), 0
		headers := make([]string, len(tokens))
		for i, token := range tokens {
			headers[i] = "Bearer " + token
		}
		return testing.AllocsPerRun(len(tokens)-1, func() {
			r.Header["Authorization"][0] = headers[i]
			i++
			d.serve(t, h, r, expected)
		})
	}
	again := func(token string) []string { return slices.Repeat([]string{token}, 100) }
	forged := tokens[0][:len(tokens[0])-8] + "AAAAAAAA"
	raw := measure(p.raw, 200, tokens[:100])
	cold := measure(p.guarded, 200, tokens)
	hot := measure(p.guarded, 200, again(tokens[0]))
	for name, c := range map[string]struct{ allocs, ceiling float64 }{
		"hot, beyond raw Echo":  {hot - raw, 10},
		"cold, beyond raw Echo": {cold - raw, 34}, // of which the signature takes 9 in crypto/rsa, and less here
		"forged":                {measure(p.guarded, 401, again(forged)), 60},
		"malformed":             {measure(p.guarded, 401, again("x.y")), 30},
	} {
		t.Logf("%s: %v allocations a request", name, c.allocs)
		if c.allocs > c.ceiling {
			t.Errorf("%s: %v allocations a request, the ceiling is %v: profile BenchmarkRequest with -memprofile", name, c.allocs, c.ceiling)
		}
	}
}
