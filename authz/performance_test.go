package authz_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// perf is used by the benchmarks of the request path: the operations of the quickstart, with a real
// issuer and real tokens.
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
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/quickstart.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	p := &perf{issuer: issuer, doc: doc}
	p.forget(tb)
	return p
}

// forget creates a verifier that has the keys and an empty cache.
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
		e.HTTPErrorHandler = echov4.ErrorHandler(gate)
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
	p.guarded, p.raw = build(echov4.Middleware(gate)), build()
}

func (p *perf) mint(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = p.issuer.Mint(map[string]any{"sub": fmt.Sprintf("auth0|%024x", i),
			"scope": "openid profile read:messages", "azp": "my_client_id_0123456789abcdefghij"})
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
		tb.Fatalf("status is %d, want %d", d.status, expected)
	}
}

func scopedRequest(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/private-scoped", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// BenchmarkRequest measures one protected GET, in process. Quote ratios to raw, and allocations.
// Compare cold with the sum of raw and rsa.
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
			if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:],
				signature); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// The limits are slightly above the measured values. A change that exceeds one makes each request
// more expensive.
func TestAllocationsPerRequest(t *testing.T) {
	if build, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
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
	guardedPOST, rawPOST, bearer := newValidated(t, "")
	beyond, _, beyondBearer := newValidated(t, otherTags["composed"])
	cold := measure(p.guarded, 200, tokens)
	hot := measure(p.guarded, 200, again(tokens[0]))
	for name, c := range map[string]struct{ allocs, ceiling float64 }{
		"hot, beyond raw Echo": {hot - raw, 5},
		// The signature takes 9 of these allocations, in crypto/rsa.
		"cold, beyond raw Echo": {cold - raw, 22},
		"validated POST, beyond raw Echo binding the same": {
			testing.AllocsPerRun(100, func() {
				d.post(t, guardedPOST, bearer)
			}) - testing.AllocsPerRun(100, func() { d.post(t, rawPOST, bearer) }), 9,
		},
		"the same with other keywords": {
			testing.AllocsPerRun(100, func() {
				d.post(t, beyond, beyondBearer)
			}) - testing.AllocsPerRun(100, func() { d.post(t, rawPOST, bearer) }), 9,
		},
		"forged":    {measure(p.guarded, 401, again(forged)), 27},
		"malformed": {measure(p.guarded, 401, again("x.y")), 10},
	} {
		t.Logf("%s: %v allocations a request", name, c.allocs)
		if c.allocs > c.ceiling {
			t.Errorf("%s: %v allocations a request, the ceiling is %v: profile BenchmarkRequest "+
				"with -memprofile", name, c.allocs, c.ceiling)
		}
	}
}

const bodyDocument = `
openapi: 3.1.0
info: {title: performance, version: "1"}
paths:
  /things:
    post:
      operationId: createThing
      security: [{bearer: [write:things]}]
      requestBody:
        required: true
        content:
          application/json:
            schema:
              type: object
              additionalProperties: false
              required: [text]
              properties:
                text: {type: string, minLength: 1, maxLength: 1000, pattern: "^[^<>]*$"}
                priority: {type: integer, minimum: 0, maximum: 9}
                tags: {type: array, maxItems: 10, items: {type: string, maxLength: 40}}
      responses: {default: {description: any}}
components:
  schemas:
    Tag: {type: string, maxLength: 40}
  securitySchemes:
    bearer: {type: http, scheme: bearer, x-scopes: {write:things: Write}}
`

// otherTags are schemas of the tags with other keywords than the plainest.
var otherTags = map[string]string{
	"referring": `{type: array, maxItems: 10, uniqueItems: true, items: {$ref: "#/components/schemas/Tag"}}`,
	"composed":  `{type: array, maxItems: 10, uniqueItems: true, items: {type: string, maxLength: 40, not: {const: c}}}`,
}

// newValidated returns handlers for a POST with a small JSON body: through the gate, bound like
// generated code, and with Echo only, bound by Echo. tags, if set, replaces the schema of tags in
// the document.
func newValidated(tb testing.TB, tags string) (guarded, raw http.Handler, bearer string) {
	issuer := newIssuer(tb)
	document := bodyDocument
	if tags != "" {
		document = strings.Replace(document,
			"tags: {type: array, maxItems: 10, items: {type: string, maxLength: 40}}",
			"tags: "+tags, 1)
	}
	gate, err := authz.New(authz.Config{Document: load(tb, document),
		Verifier: newVerifier(tb, issuer)})
	if err != nil {
		tb.Fatal(err)
	}
	build := func(use ...echo.MiddlewareFunc) http.Handler {
		e := echo.New()
		e.HTTPErrorHandler = echov4.ErrorHandler(gate)
		e.Use(use...)
		e.POST("/things", func(c echo.Context) error {
			var thing struct {
				Text     string   `json:"text"`
				Priority int      `json:"priority"`
				Tags     []string `json:"tags"`
			}
			if err := c.Bind(&thing); err != nil {
				return err
			}
			if thing.Text != "hello" || len(thing.Tags) != 2 {
				return fmt.Errorf("bound %+v", thing)
			}
			return c.NoContent(http.StatusNoContent)
		})
		return e
	}
	return build(echov4.Middleware(gate)), build(),
		"Bearer " + issuer.Mint(map[string]any{"scope": "write:things"})
}

const smallBody = `{"text":"hello","priority":3,"tags":["a","b"]}`

func (d *discard) post(tb testing.TB, h http.Handler, bearer string) {
	r := httptest.NewRequest(http.MethodPost, "/things", strings.NewReader(smallBody))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", bearer)
	d.serve(tb, h, r, http.StatusNoContent)
}

func BenchmarkValidatedPOST(b *testing.B) {
	guarded, raw, bearer := newValidated(b, "")
	handlers := map[string]http.Handler{"guarded": guarded, "raw": raw}
	bearers := map[string]string{"guarded": bearer, "raw": bearer}
	for name, tags := range otherTags {
		handlers["guarded, "+name], _, bearers["guarded, "+name] = newValidated(b, tags)
	}
	d := &discard{header: http.Header{}}
	for name, h := range handlers {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d.post(b, h, bearers[name])
			}
		})
	}
}

// many returns a document with that many typical operations: path and query parameters, bodies by
// reference, composed schemas.
func many(operations int) string {
	var s strings.Builder
	s.WriteString("openapi: 3.1.0\ninfo: {title: many, version: \"1\"}\npaths:\n")
	for i := range operations / 2 {
		fmt.Fprintf(&s, `
  /things%[1]d/{id}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: string, pattern: "^[a-z0-9]{1,20}$"}}
    get:
      operationId: get%[1]d
      security: [{bearer: [read:things]}]
      parameters:
        - {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100, default: 20}}
      responses: {default: {description: any}}
    put:
      operationId: put%[1]d
      security: [{bearer: [write:things]}]
      requestBody: {content: {application/json: {schema: {$ref: "#/components/schemas/Thing%[2]d"}}}}
      responses: {default: {description: any, content: {application/json: {schema: {$ref: "#/components/schemas/Thing%[2]d"}}}}}
`, i, i%50)
	}
	s.WriteString("components:\n  securitySchemes:\n    bearer: {type: http, scheme: bearer, " +
		"x-scopes: {read:things: Read, write:things: Write}}\n  schemas:\n")
	s.WriteString("    Base: {type: object, required: [id], properties: {id: {type: string, " +
		"maxLength: 40}, created: {type: string, format: date-time}}}\n")
	for i := range 50 {
		fmt.Fprintf(&s, "    Thing%d: {allOf: [{$ref: '#/components/schemas/Base'}, {type: "+
			"object, properties: {name: {type: string, maxLength: 100}, tags: {type: array, "+
			"items: {type: string}}}}]}\n", i)
	}
	return s.String()
}

func BenchmarkOperations(b *testing.B) {
	issuer := newIssuer(b)
	verifier := newVerifier(b, issuer)
	bearer := "Bearer " + issuer.Mint(map[string]any{"scope": "read:things"})
	numbers := []int{6, 60, 600, 3000}
	// all of them stay alive, so that the garbage collector has the same work for each
	gates := map[int]*authz.Gate{}
	for _, n := range numbers {
		gate, err := authz.New(authz.Config{Document: load(b, many(n)), Verifier: verifier})
		if err != nil {
			b.Fatal(err)
		}
		gates[n] = gate
	}
	for _, n := range numbers {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			gate := gates[n]
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header.Set("Authorization", bearer)
			last := fmt.Sprintf("/things%d/{id}", n/2-1)
			id := func(string) string { return "abc" }
			b.ReportAllocs()
			for b.Loop() {
				if _, err := gate.Check(r, last, id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkStart(b *testing.B) {
	doc := load(b, many(600))
	verifier := newVerifier(b, newIssuer(b))
	for b.Loop() {
		if _, err := authz.New(authz.Config{Document: doc, Verifier: verifier}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDeclaredLength: memory for a body is allocated as it arrives, not by the declared length.
func TestDeclaredLength(t *testing.T) {
	const declared = 256 << 20
	gate, err := authz.New(authz.Config{Document: load(t, `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /:
    put:
      security: []
      x-authz-max-body: 256MiB
      requestBody: {content: {application/octet-stream: {}}}
      responses: {"204": {description: Done.}}
`)})
	if err != nil {
		t.Fatal(err)
	}
	put := func(body []byte, length int64) error {
		r := httptest.NewRequest("PUT", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/octet-stream")
		r.ContentLength = length
		admitted, err := gate.Check(r, "/", nil)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(admitted.Body)
		if err == nil && !bytes.Equal(got, body) {
			err = fmt.Errorf("%d bytes were read as %d different ones", len(body), len(got))
		}
		return err
	}
	for _, n := range []int{1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 3} {
		body := bytes.Repeat([]byte("0123456789a"), n/11+1)[:n]
		if err := put(body, int64(n)); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if kind := kindOfError(put(body[:n-1], int64(n))); kind != authz.InvalidBody {
			t.Errorf("%d bytes, one too few: %q", n, kind)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if kind := kindOfError(put(nil, declared)); kind != authz.InvalidBody {
		t.Errorf("nothing of what was declared: %q", kind)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > declared/8 {
		t.Errorf("%d bytes were allocated for a body that never came", took)
	}
}
