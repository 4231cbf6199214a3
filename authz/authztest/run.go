package authztest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
)

// T is the part of *testing.T that [Run] uses, so that programs that only use [Check] do not link
// package testing.
type T[Self any] interface {
	Helper()
	Context() context.Context
	Run(name string, f func(t Self)) bool
	Error(args ...any)
	Fatal(args ...any)
	Skip(args ...any)
}

// Run runs each case as a subtest of t, a *testing.T. It skips the cases that need more than the
// target has.
func Run[Self T[Self]](t Self, target Target) {
	t.Helper()
	r, err := prepare(target)
	if err != nil {
		t.Fatal(err)
	}
	for rest := r.cases; len(rest) > 0; {
		id, n := rest[0].Operation.ID, 0
		for n < len(rest) && rest[n].Operation.ID == id {
			n++
		}
		cases := rest[:n]
		rest = rest[n:]
		t.Run(id, func(t Self) {
			for _, c := range cases {
				t.Run(
					strings.TrimPrefix(c.Name, id+"/"),
					func(t Self) { tell(t, r.try(t.Context(), c)) },
				)
			}
		})
	}
}

func tell[Self T[Self]](t Self, result Result) {
	t.Helper()
	if result.Skipped != "" {
		t.Skip(result.Skipped)
	}
	for _, fault := range result.Faults {
		t.Error(result.Case.Operation.Method + " " + result.Case.Operation.Path + ": " + fault)
	}
	if result.Detail != "" {
		t.Error("detail: " + result.Detail)
	}
	if result.Curl != "" {
		t.Error("to repeat: " + result.Curl)
	}
}

// Check runs every case and returns the results. If the target is faulty, it runs nothing and
// returns all faults, joined. When ctx ends, it returns the error of ctx and the results so far.
func Check(ctx context.Context, target Target) (Report, error) {
	r, err := prepare(target)
	if err != nil {
		return Report{}, err
	}
	results := make([]Result, len(r.cases))
	tried := make([]bool, len(r.cases))
	next := make(chan int)
	var workers sync.WaitGroup
	for range r.workers() {
		workers.Go(func() {
			for i := range next {
				results[i], tried[i] = r.try(ctx, r.cases[i]), true
			}
		})
	}
	for i := range r.cases {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	var report Report
	for i, result := range results {
		if !tried[i] {
			return report, ctx.Err()
		}
		report.Results = append(report.Results, result)
	}
	return report, nil
}

// workers returns 1 if calls are counted, because each call must belong to a known request.
func (r *run) workers() int {
	if r.Calls != nil {
		return 1
	}
	return max(r.Workers, 1)
}

// run is a validated target.
type run struct {
	Target
	cases         []Case
	schemes       schemes
	withResponses *authz.Plan        // nil: answers are not compared
	requests      map[string]Request // by operationId
	client        *http.Client
	presenting    map[*tls.Certificate]*http.Client // if the server is remote
	outage        *http.Client
	patience      time.Duration // how long to wait for an answer
	nonce         atomic.Value  // of the next DPoP proof, a string

	tokens sync.Mutex // protects forger, and the functions of the target that return credentials
	forger forger
}

func prepare(target Target) (*run, error) {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("authztest: "+format, args...))
	}

	r := &run{Target: target, requests: map[string]Request{}}
	r.forger = forger{
		tokens:    target.Tokens,
		now:       target.Now,
		attackers: map[string]*devissuer.Issuer{},
	}
	if r.forger.now == nil {
		r.forger.now = time.Now
	}
	for _, key := range []*ProofKey{&r.forger.key, &r.forger.otherKey} {
		var err error
		if *key, err = newProofKey(); err != nil {
			faults = append(faults, err)
		}
	}
	for _, c := range []**tls.Certificate{&r.forger.certificate, &r.forger.otherCertificate} {
		var err error
		if *c, err = newCertificate(r.forger.now()); err != nil {
			faults = append(faults, err)
		}
	}
	switch {
	case r.Certificate != nil && r.Certificate.Leaf == nil:
		fault("Target.Certificate has no Leaf: tls.X509KeyPair sets it")
	case r.Certificate != nil:
		r.forger.certificate = r.Certificate
	case r.Handler == nil:
		r.forger.tokens.CertificateBound = nil
	}
	if r.Handler != nil && r.URL == "" {
		r.URL = "http://localhost"
	}
	if u, err := url.Parse(r.URL); err != nil || u.Host == "" ||
		u.Scheme != "http" && u.Scheme != "https" ||
		u.RawQuery != "" ||
		u.Fragment != "" {
		fault(
			"Target.URL is %q: expected where the document's paths begin, such as https://api.example/v1, or a Target.Handler",
			target.URL,
		)
	}
	r.client = client(target.Handler, target.Client)
	if r.patience = r.client.Timeout; r.patience == 0 {
		r.patience = 10 * time.Second
	}
	r.client.Timeout = 0 // send limits the context instead, which also ends a body
	if r.Handler == nil && r.Certificate != nil {
		r.presenting = map[*tls.Certificate]*http.Client{}
		for _, c := range []*tls.Certificate{r.forger.certificate, r.forger.otherCertificate} {
			presenting, err := withCertificate(r.client, c)
			if err != nil {
				faults = append(faults, err)
				break
			}
			r.presenting[c] = presenting
		}
	}
	if target.Outage != nil {
		r.outage = client(target.Outage, nil)
	}
	if target.Document == nil {
		return nil, errors.Join(
			append(
				faults,
				errors.New("authztest: Target.Document is nil"),
			)...)
	}
	plan, err := authz.Config{
		Document: target.Document,
		Without:  target.Without,
		Unstated: target.Unstated,
	}.CompileSecurity()
	if err != nil {
		return nil, errors.Join(append(faults, err)...)
	}
	r.schemes = schemes{plan}
	if !target.IgnoreResponses {
		// If some schemas cannot be enforced, responses are not compared.
		r.withResponses, _ = authz.Config{
			Document: target.Document, Without: target.Without, Unstated: target.Unstated,
			Undecoded: authz.DenyUndecoded, Responses: authz.LogResponses,
		}.Compile()
	}
	for name := range target.Credentials {
		if plan.Scheme(name) == nil {
			fault("Target.Credentials has %q, which is not a security scheme of the document", name)
		}
	}
	broken := map[string]error{}
	sampler := newSampler(target.Document)
	for _, o := range plan.Operations() {
		request, err := sampler.build(o, target.Requests[o.ID])
		if err != nil {
			broken[o.ID] = fmt.Errorf(
				"cannot build a valid request: %w. Give an example in the document, or "+
					"Target.Requests[%q]",
				err,
				o.ID,
			)
		}
		r.requests[o.ID] = request
	}
	for id := range target.Requests {
		if _, known := r.requests[id]; !known {
			fault("Target.Requests has %q, which is not an operationId of the document", id)
		}
	}
	for _, c := range Cases(plan) {
		c.names = target.ScopesToRequest
		if c.broken = broken[c.Operation.ID]; c.broken == nil {
			r.cases = append(r.cases, c)
		} else if n := len(r.cases); n == 0 || r.cases[n-1].Operation.ID != c.Operation.ID {
			// Report it once for each operation.
			c.Name, c.Want = c.Operation.ID+"/request", ""
			r.cases = append(r.cases, c)
		}
	}
	return r, errors.Join(faults...)
}

// client returns a client that does not follow redirects: a redirect is not an expected response.
func client(handler http.Handler, given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		*c = *given
	}
	if handler != nil {
		c.Transport = inProcess{handler}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// try runs a case.
func (r *run) try(ctx context.Context, c Case) (result Result) {
	begun := time.Now()
	defer func() { result.Duration = time.Since(begun) }()
	result.Case = c
	if c.broken != nil {
		result.Faults = []string{c.broken.Error()}
		return result
	}
	if c.outage && r.outage == nil {
		result.Skipped = "needs Target.Outage"
		return result
	}
	if r.Skip != nil {
		if result.Skipped = r.Skip(c); result.Skipped != "" {
			return result
		}
	}
	if c.owned {
		return r.tryOwner(ctx, result)
	}
	headers, secrets, skip, err := r.credentials(ctx, c)
	switch {
	case err != nil:
		result.Faults = []string{"no credential: " + err.Error()}
		return result
	case skip != "":
		result.Skipped = skip
		return result
	}
	for _, header := range headers {
		if c.twice {
			once := Case{Operation: c.Operation, proof: c.proof}
			got := r.send(ctx, once, header, nil)
			if r.asksForNonce(got.answer) {
				got = r.send(ctx, once, header, nil)
			}
			if got.faults != nil {
				result.Faults = []string{"inconclusive: the proof is refused the first time: " +
					strings.Join(got.faults, "; ")}
				return result
			}
			c.proof = func(proofInput) string { return got.proof }
		}
		if c.revoked {
			result.Skipped, result.Faults = r.revoke(ctx, c, header)
			if result.Skipped != "" || result.Faults != nil {
				return result
			}
		}
		if c.first != nil {
			first := Case{Operation: *c.first}
			if got := r.send(ctx, first, header, nil); got.faults != nil {
				result.Faults = []string{
					"inconclusive: " + c.first.ID +
						" refuses a sufficient token: " + strings.Join(
						got.faults,
						"; ",
					),
				}
				return result
			}
		}
		got := r.send(ctx, c, header, secrets)
		if c.proof != nil && r.asksForNonce(got.answer) {
			got = r.send(ctx, c, header, secrets)
		}
		if c.timed && r.nonce.Load() != nil {
			result.Skipped = "the server requires nonces, so it need not check the time of a proof"
			return result
		}
		if result.add(got); result.Faults != nil {
			break
		}
	}
	return result
}

// revoke uses a token once, and then revokes it. It returns why the case must be skipped, or why
// the token could not be revoked.
func (r *run) revoke(ctx context.Context, c Case, authorization string) (
	skip string, faults []string) {
	got := r.send(ctx, Case{Operation: c.Operation}, authorization, nil)
	if got.faults != nil {
		return "", []string{"inconclusive: the token is refused before it is revoked: " +
			strings.Join(got.faults, "; ")}
	}
	_, token, _ := strings.Cut(authorization, " ")
	switch err := r.Tokens.Revoke(ctx, token); {
	case errors.Is(err, errors.ErrUnsupported):
		return err.Error(), nil
	case err != nil:
		return "", []string{"cannot revoke the token: " + err.Error()}
	}
	return "", nil
}

// credentials returns the Authorization headers and the other secrets of a case, or why it must be
// skipped.
func (r *run) credentials(
	ctx context.Context,
	c Case,
) (headers, secrets []string, skip string, err error) {
	r.tokens.Lock()
	defer r.tokens.Unlock()
	headers, skip, err = r.forger.credentials(ctx, c)
	if err == nil && skip == "" {
		secrets, skip, err = r.secrets(ctx, c)
	}
	return headers, secrets, skip, err
}

// exchange is a request that was sent, and its result.
type exchange struct {
	faults []string
	answer answer
	detail string
	curl   string
	proof  string // that was sent

	handshakeRefused bool
}

// add records an exchange.
func (r *Result) add(e exchange) {
	r.Faults, r.Status, r.HandshakeRefused = e.faults, e.answer.status, e.handshakeRefused
	if e.faults != nil {
		r.Detail, r.Curl = e.detail, e.curl
	}
}

// The body of a case with an invalid body. The marker shows whether a response repeats it.
const (
	marker      = "authztest-unterminated"
	brokenJSON  = `{"` + marker + `": `
	jsonContent = "application/json"
)

// send sends the request of a case with a credential, and compares the response with what the case
// expects.
func (r *run) send(
	ctx context.Context,
	c Case,
	authorization string,
	secrets []string,
) (e exchange) {
	client := r.client
	if c.outage {
		client = r.outage
	}
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	request := r.requests[c.Operation.ID]
	if c.request != nil {
		request = *c.request
	}
	body := &upload{Reader: bytes.NewReader(request.Body)}
	length := int64(len(request.Body))
	switch c.body {
	case invalidBody:
		request.ContentType = jsonContent
		body.Reader, length = strings.NewReader(brokenJSON), int64(len(brokenJSON))
	case hugeBody:
		request.ContentType = jsonContent
		body.Reader, length = &endless{ctx: ctx, wait: r.Handler == nil}, -1
	}
	sent, err := request.http(ctx, r.URL, c.Operation, body)
	if err != nil {
		return exchange{faults: []string{err.Error()}}
	}
	maps.Copy(sent.Header, r.Header)
	if sent.ContentLength = length; length == 0 {
		sent.Body = http.NoBody
	}
	if authorization != "" {
		sent.Header.Set("Authorization", authorization)
	}
	certificate := r.certificateOf(c)
	switch presenting := r.presenting[certificate]; {
	case presenting != nil:
		client = presenting
	case certificate != nil:
		sent.TLS = &tls.ConnectionState{
			HandshakeComplete: true, PeerCertificates: []*x509.Certificate{certificate.Leaf},
		}
	}
	if err := r.present(sent, c, secrets); err != nil {
		return exchange{faults: []string{"cannot present the credential: " + err.Error()}}
	}
	if authorization != "" {
		secrets = append(secrets, authorization[strings.IndexByte(authorization, ' ')+1:])
	}
	if c.proof != nil {
		if e.proof = r.prove(sent, c, authorization); e.proof != "" {
			secrets = append(secrets, e.proof)
		}
	}
	e.curl = r.curl(sent, c, request, secrets)
	calls := r.calls()
	response, err := client.Do(sent)
	if r.presenting != nil && certificate != r.Certificate && c.Want != "" &&
		refusesHandshake(err) {
		e.handshakeRefused = true
		return e
	}
	if err != nil {
		why := "no response: " + err.Error()
		if c.body == hugeBody {
			why += ": does the server wait for the body before it looks for a token?"
		}
		e.faults = []string{why}
		return e
	}
	defer response.Body.Close()
	got := answer{status: response.StatusCode, header: response.Header}
	if got.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer)); err != nil &&
		c.Want != "" {
		e.faults, e.answer = []string{"cannot read the response: " + err.Error()}, got
		return e
	}
	e.answer, e.detail = got, redact(got.detail(), secrets)
	e.faults = c.faults(got, r.OnlyRFC6750)
	if fault := r.conformance(c, response, got.body); e.faults == nil && fault != "" {
		e.faults = []string{fault}
	}
	ran := r.calls() - calls
	switch {
	case r.Calls == nil:
	case c.Want == "" && ran == 0 && e.faults == nil:
		e.faults = append(
			e.faults,
			fmt.Sprintf("expected the handler to run, it did not; received %d", got.status),
		)
	case c.Want != "" && ran > 0:
		e.faults = append(e.faults, "expected the handler not to run, it did")
	}
	if c.Want == "" {
		return e
	}
	if r.Handler != nil && c.body != validBody && body.read.Load() > 0 {
		e.faults = append(
			e.faults,
			fmt.Sprintf(
				"expected no byte of the body to be read before the token is accepted, %d were",
				body.read.Load(),
			),
		)
	}
	if c.body == invalidBody && got.repeats(marker) {
		e.faults = append(
			e.faults,
			"expected a response that does not repeat the body, it repeats some of it",
		)
	}
	if slices.ContainsFunc(secrets, got.repeats) {
		e.faults = append(
			e.faults,
			"expected a response that does not repeat the credential, it does",
		)
	}
	return e
}

// maxAnswer is how much of a response is read, in bytes.
const maxAnswer = 1 << 20

// conformance compares a response with the document, and returns "" if they agree. It compares
// refusals only if the document describes them as problems, because it need not describe refusals.
func (r *run) conformance(c Case, response *http.Response, body []byte) string {
	// 501 means that the operation has no handler yet, as in code that authz init writes.
	if r.withResponses == nil || len(body) == maxAnswer ||
		response.StatusCode == http.StatusNotImplemented ||
		c.Want != "" && !r.describesProblem(c.Operation, response.StatusCode) {
		return ""
	}
	err := r.withResponses.CheckResponse(c.Operation, response, body)
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return ""
	}
	return "expected a response that the document describes, received " +
		strconv.Itoa(response.StatusCode) + ": " + err.Error()
}

// describesProblem reports whether the document describes a status as a problem (RFC 9457).
func (r *run) describesProblem(o authz.Operation, status int) bool {
	responses := r.Document.Paths.Value(o.Path).GetOperation(o.Method).Responses
	for _, ref := range []*openapi3.ResponseRef{
		responses.Status(status), responses.Value(strconv.Itoa(status/100) + "XX"),
		responses.Default(),
	} {
		if ref != nil && ref.Value != nil {
			return ref.Value.Content["application/problem+json"] != nil
		}
	}
	return false
}

func (r *run) calls() int {
	if r.Calls == nil {
		return 0
	}
	return r.Calls()
}

// Issued returns tokens of a development issuer that the target trusts.
func Issued(issuer *devissuer.Issuer) Tokens {
	tokens := Tokens{
		Genuine: func(_ context.Context, scopes []string) (string, error) {
			return issuer.Mint(scopeClaim(scopes)), nil
		},
		Sign: issuer.Sign,
	}
	keys := strings.TrimSuffix(issuer.URL(), "/") + "/.well-known/jwks.json"
	if response, err := client(issuer, nil).Get(keys); err == nil &&
		response.StatusCode == http.StatusOK {
		tokens.KeySet, _ = io.ReadAll(response.Body)
	}
	return tokens
}

// scopeClaim returns the claim that grants scopes (RFC 8693 §4.2), or no claims.
func scopeClaim(scopes []string) map[string]any {
	if len(scopes) == 0 {
		return map[string]any{}
	}
	return map[string]any{"scope": strings.Join(scopes, " ")}
}
