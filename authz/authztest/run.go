package authztest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
		r.tryCredential(ctx, c, header, secrets, &result)
		if result.Skipped != "" || result.Faults != nil {
			break
		}
	}
	return result
}

// tryCredential runs a case with one of its Authorization headers.
func (r *run) tryCredential(
	ctx context.Context,
	c Case,
	authorization string,
	secrets []string,
	result *Result,
) {
	inconclusive := func(why string, got exchange) {
		result.Faults = []string{"inconclusive: " + why + ": " + strings.Join(got.faults, "; ")}
	}
	if c.twice {
		once := Case{Operation: c.Operation, proof: c.proof}
		got := r.send(ctx, once, authorization, nil)
		if r.asksForNonce(got.answer) {
			got = r.send(ctx, once, authorization, nil)
		}
		if got.faults != nil {
			inconclusive("the proof is refused the first time", got)
			return
		}
		c.proof = func(proofInput) string { return got.proof }
	}
	if c.revoked {
		result.Skipped, result.Faults = r.revoke(ctx, c, authorization)
		if result.Skipped != "" || result.Faults != nil {
			return
		}
	}
	if c.first != nil {
		if got := r.send(ctx, Case{Operation: *c.first}, authorization, nil); got.faults != nil {
			inconclusive(c.first.ID+" refuses a sufficient token", got)
			return
		}
	}
	got := r.send(ctx, c, authorization, secrets)
	if c.proof != nil && r.asksForNonce(got.answer) {
		got = r.send(ctx, c, authorization, secrets)
	}
	if c.timed && r.nonce.Load() != nil {
		result.Skipped = "the server requires nonces, so it need not check the time of a proof"
		return
	}
	result.add(got)
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
