package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-faster/jx"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/benchmark/peers/values/oapi"
	"github.com/oasgate/oasgate/authz/benchmark/peers/values/ogen"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/internal/echopath"
	"github.com/oasgate/oasgate/authz/internal/schema"
	"github.com/oasgate/oasgate/authz/token"
)

const person = `{"id":12345,"name":"Ada Lovelace","email":"ada@example.com","active":true,` +
	`"tags":["mathematics","poetry","engines"]}`

// people is an array of them, of 100 KB.
func people() []byte {
	body := []byte("[")
	for len(body) < 100<<10 {
		body = fmt.Append(body, person, ",")
	}
	body[len(body)-1] = ']'
	return body
}

// comparison is a row: what ours costs in terms of what it is compared with.
type comparison struct {
	name      string
	condition float64 // most that is accepted
	ours      func()
	other     func()
}

// writeValues writes what it costs to validate and to bind, in this process, net/http's reading of
// the request included and its writing of the answer not. Each figure is the
// ratio of the fastest of many rounds of one and of the other, in turn.
func writeValues(ctx context.Context, w io.Writer, rounds int) error {
	v, err := newValues(ctx)
	if err != nil {
		return err
	}
	defer v.issuer.Close()
	rows := v.comparisons()
	least, calls := make([][2]time.Duration, len(rows)), make([][2]int, len(rows))
	for i, row := range rows {
		calls[i] = [2]int{callsOf(row.ours), callsOf(row.other)}
	}
	for range rounds {
		for i, row := range rows {
			for side, f := range []func(){row.ours, row.other} {
				took := timed(f, calls[i][side])
				if least[i][side] == 0 || took < least[i][side] {
					least[i][side] = took
				}
			}
		}
	}
	fmt.Fprintf(w, "%s, %s, in process, minima of %d rounds in turn\n\n",
		time.Now().Format(time.DateOnly), runtime.Version(), rounds)
	fmt.Fprintln(w, "| what | ratio | at most |")
	fmt.Fprintln(w, "|---|---|---|")
	for i, row := range rows {
		ratio := float64(least[i][0]) / float64(least[i][1])
		fmt.Fprintf(w, "| %s | %.2f | %.1f |\n", row.name, ratio, row.condition)
	}
	fmt.Fprintf(w, "| allocations of the whole request | %.0f | 40 |\n",
		testing.AllocsPerRun(1000, rows[0].ours))
	return nil
}

// timed returns how long one call takes, of some that take a fraction of a time slice together: on
// a busy machine too, many of the rounds are not interrupted.
func timed(f func(), calls int) time.Duration {
	start := time.Now()
	for range calls {
		f()
	}
	return time.Since(start) / time.Duration(calls)
}

// callsOf returns how many calls take about as long as timed should. The first ones do not count: a
// token is verified, buffers grow. Nor do slow ones, so that no side is timed in fewer calls, with
// colder caches, because it was interrupted here.
func callsOf(f func()) int {
	const least, tries = 200 * time.Microsecond, 10
	timed(f, 100)
	for n := 1; ; n *= 2 {
		fastest := timed(f, n)
		for range tries {
			fastest = min(fastest, timed(f, n))
		}
		if fastest*time.Duration(n) > least {
			return n
		}
	}
}

// values is what the comparisons run on: the document's strict handlers behind a gate, and Echo by
// itself.
type values struct {
	issuer       *devissuer.Server
	bearer       string
	guarded, raw http.Handler

	person, author, people *schema.Schema
	decoder                echopath.Decoder
}

func newValues(ctx context.Context) (v *values, err error) {
	v = &values{raw: rawValues()}
	v.issuer, err = devissuer.Start(devissuer.Config{Audiences: []string{audience}})
	if err != nil {
		return nil, err
	}
	v.bearer = "Bearer " + v.issuer.Mint(map[string]any{"scope": "write:people"})
	verifier, err := token.NewVerifier(ctx, token.Config{
		Issuers: []token.Issuer{{URL: v.issuer.URL(), Audiences: []string{audience}}},
	})
	if err != nil {
		return nil, err
	}
	if err := verifier.Ready(ctx); err != nil {
		return nil, err
	}
	document, err := oapi.GetSpec()
	if err != nil {
		return nil, err
	}
	gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
	if err != nil {
		return nil, err
	}
	v.guarded, err = echov4.Routes(gate, func(e *echo.Echo) {
		oapi.RegisterHandlers(e, oapi.NewStrictHandler(strictValues{}, nil))
	})
	if err != nil {
		return nil, err
	}
	compiler := schema.NewCompiler(document, schema.Options{})
	one := document.Components.Schemas["Person"]
	if v.person, err = compiler.Schema(one); err != nil {
		return nil, err
	}
	if v.author, err = compiler.Schema(document.Components.Schemas["Author"]); err != nil {
		return nil, err
	}
	list := &openapi3.SchemaRef{Value: openapi3.NewArraySchema()}
	list.Value.Items = one
	v.people, err = compiler.Schema(list)
	return v, err
}

func (v *values) comparisons() []comparison {
	post := v.request(http.MethodPost, "/people", person)
	member := v.request(http.MethodPost, "/members", person)
	get := v.request(http.MethodGet, "/people/7?limit=10&q=abc", "")
	all := people()
	var ours oapi.Person
	var oursChecked oapi.Author
	var theirs ogen.Person
	var theirsChecked ogen.Author
	return []comparison{
		{
			"whole request, a small JSON body ÷ raw Echo with `c.Bind`, which checks nothing", 1.3,
			serving(v.guarded, post), serving(v.raw, post),
		},
		{
			"decode and validate ÷ ogen's generated decode and validate", 1.5,
			func() { ours = oapi.Person{}; v.bind(v.person, &ours) },
			func() { theirs = ogen.Person{}; decodeByOgen(&theirs) },
		},
		{
			"the same, with formats, patterns and uniqueItems", 1.5,
			func() { oursChecked = oapi.Author{}; v.bind(v.author, &oursChecked) },
			func() { theirsChecked = ogen.Author{}; decodeByOgen(&theirsChecked) },
		},
		{
			"a schema with keywords of 2020-12 only ÷ the plainest of the same value", 1.1,
			serving(v.guarded, member), serving(v.guarded, post),
		},
		{
			"validate an array of 100 KB ÷ `encoding/json` into structs", 1,
			func() { must(validated(v.people, all)) }, func() {
				var list []oapi.Person
				must(json.Unmarshal(all, &list))
			},
		},
		// If raw Echo takes 100, of which 81 are net/http's reading, ours takes 184: generated code
		// without a gate 119, the adapter 5, kin-openapi's security pass 9, the verifier 18 (of
		// which the hash of a part of the token 5 and the clock 4), the rest of the authorization
		// 5, the validation 19, the copy of the request with its context 4, the rest of the gate 5.
		{
			"GET, four parameters ÷ raw Echo that binds them by hand", 1.5,
			serving(v.guarded, get), serving(v.raw, get),
		},
	}
}

func validated(s *schema.Schema, body []byte) error {
	_, err := s.Validate(body)
	return err
}

// bind is what the gate and the binder of echov4 do with a body.
func (v *values) bind(s *schema.Schema, to any) {
	text, err := s.Validate([]byte(person))
	must(err)
	must(v.decoder.Decode(text, to))
}

// decodeByOgen is what ogen's generated code does with a body.
func decodeByOgen(to interface {
	Decode(*jx.Decoder) error
	Validate() error
}) {
	d := jx.GetDecoder()
	defer jx.PutDecoder(d)
	d.ResetBytes([]byte(person))
	must(to.Decode(d))
	must(d.Skip()) // ogen too refuses what follows
	must(to.Validate())
}

func must(err error) {
	if err != nil && err != io.EOF {
		panic(err)
	}
}

// request returns the bytes of a request.
func (v *values) request(method, target, body string) []byte {
	text := fmt.Sprintf(
		"%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nX-Trace: abc\r\n",
		method, target, v.bearer)
	if body != "" {
		text += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return []byte(text + "\r\n" + body)
}

// serving returns what reads and serves a request, as net/http does. The answer must be 204.
func serving(h http.Handler, request []byte) func() {
	w := &answer{header: http.Header{}}
	source := bytes.NewReader(nil)
	reader := bufio.NewReader(nil)
	return func() {
		source.Reset(request)
		reader.Reset(source)
		r, err := http.ReadRequest(reader)
		must(err)
		clear(w.header)
		w.status = 0
		h.ServeHTTP(w, r)
		if w.status != http.StatusNoContent {
			panic(fmt.Sprint("status ", w.status))
		}
	}
}

// answer is a response that nobody reads.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }

type strictValues struct{}

func (strictValues) AddPerson(
	_ context.Context, r oapi.AddPersonRequestObject,
) (oapi.AddPersonResponseObject, error) {
	if r.Body.Id != 12345 || len(r.Body.Tags) != 3 {
		return nil, fmt.Errorf("bound %+v", r.Body)
	}
	return oapi.AddPerson204Response{}, nil
}

func (strictValues) AddMember(
	_ context.Context, r oapi.AddMemberRequestObject,
) (oapi.AddMemberResponseObject, error) {
	if r.Body.Id != 12345 || len(r.Body.Tags) != 3 {
		return nil, fmt.Errorf("bound %+v", r.Body)
	}
	return oapi.AddMember204Response{}, nil
}

func (strictValues) AddAuthor(
	_ context.Context, r oapi.AddAuthorRequestObject,
) (oapi.AddAuthorResponseObject, error) {
	if r.Body.Id != 12345 || len(r.Body.Tags) != 3 {
		return nil, fmt.Errorf("bound %+v", r.Body)
	}
	return oapi.AddAuthor204Response{}, nil
}

func (strictValues) FindPerson(
	_ context.Context, r oapi.FindPersonRequestObject,
) (oapi.FindPersonResponseObject, error) {
	if r.Id != 7 || *r.Params.Limit != 10 || *r.Params.Q != "abc" || *r.Params.XTrace != "abc" {
		return nil, fmt.Errorf("bound %+v", r)
	}
	return oapi.FindPerson204Response{}, nil
}

// rawValues is Echo by itself, as its documentation has it. What it binds by hand it also checks,
// as every program must; it takes no notice of undeclared parameters.
func rawValues() http.Handler {
	e := newEcho()
	e.POST("/people", func(c echo.Context) error {
		var p oapi.Person
		if err := c.Bind(&p); err != nil {
			return err
		}
		if p.Id != 12345 || len(p.Tags) != 3 {
			return fmt.Errorf("bound %+v", p)
		}
		return c.NoContent(http.StatusNoContent)
	})
	e.GET("/people/:id", func(c echo.Context) error {
		id, err := strconv.Atoi(c.Param("id"))
		if err != nil || id < 1 {
			return echo.ErrBadRequest
		}
		limit, err := strconv.Atoi(c.QueryParam("limit"))
		if err != nil || limit < 1 || limit > 100 {
			return echo.ErrBadRequest
		}
		q, trace := c.QueryParam("q"), c.Request().Header.Get("X-Trace")
		if utf8.RuneCountInString(q) > 50 || utf8.RuneCountInString(trace) > 40 {
			return echo.ErrBadRequest
		}
		if id != 7 || limit != 10 || q != "abc" || trace != "abc" {
			return fmt.Errorf("bound %d %d %q %q", id, limit, q, trace)
		}
		return c.NoContent(http.StatusNoContent)
	})
	return e
}
