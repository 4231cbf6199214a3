package authztest_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
)

const audience = "https://messages.example/"

// messages is a target of a hand-written server with a flaw, or without.
type messages struct {
	document *openapi3.T
	plan     *authz.Plan
	issuer   *devissuer.Server
	tokens   authztest.Tokens
	keys     map[string]*ecdsa.PublicKey
}

func newMessages(t *testing.T) messages {
	t.Helper()
	m := messages{document: load(t, "testdata/messages.yaml"), keys: map[string]*ecdsa.PublicKey{}}
	var err error
	if m.plan, err = authz.Compile(m.document); err != nil {
		t.Fatal(err)
	}
	if m.issuer, err = devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Algorithm: "ES256"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.issuer.Close)
	m.tokens = authztest.Issued(m.issuer.Issuer)
	m.tokens.Bound = func(_ context.Context, scopes []string, key authztest.ProofKey) (string,
		error) {
		return m.issuer.Mint(map[string]any{"scope": strings.Join(scopes, " "),
			"cnf": map[string]any{"jkt": key.Thumbprint()}}), nil
	}
	m.tokens.CertificateBound = func(_ context.Context, scopes []string,
		certificate *x509.Certificate) (string, error) {
		sum := sha256.Sum256(certificate.Raw)
		return m.issuer.Mint(map[string]any{"scope": strings.Join(scopes, " "),
			"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}}), nil
	}
	var set struct{ Keys []struct{ Kid, X, Y string } }
	if err := json.Unmarshal(m.tokens.KeySet, &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("Issued has no usable key set: %v: %s", err, m.tokens.KeySet)
	}
	for _, key := range set.Keys {
		m.keys[key.Kid] = publicKey(key.X, key.Y)
	}
	return m
}

func load(t *testing.T, name string) *openapi3.T {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// target is a new target, because servers with flaws have state.
func (m messages) target(f flaw) authztest.Target {
	s := newServer(m.plan, m.issuer, audience, m.keys, f)
	outage := newServer(m.plan, m.issuer, audience, nil, f)
	return authztest.Target{
		Document: m.document,
		Handler:  s,
		Outage:   outage,
		Tokens:   m.tokens,
		Calls:    func() int { return s.calls + outage.calls },
	}
}

// TestConformance: a correct server passes, even if it does not use this library.
func TestConformance(t *testing.T) {
	authztest.Run(t, newMessages(t).target(none))
}

// TestFlaws: each flaw makes the expected cases fail, and no others.
func TestFlaws(t *testing.T) {
	const (
		secured = `(getMe|listMessages|createMessage|deleteMessage/bearer\([a-z:]*\)|deleteMessage)/`
		// a token is required
		closed    = `(listMessages|createMessage|deleteMessage/bearer\([a-z:]*\)|deleteMessage)/`
		tokenless = `(no_token|wrong_scheme|invalid_body_without_token|huge_body_without_token)`
		unproven  = `dpop_(without_proof|proof_.*|old_proof)`
		// a token without the key or certificate that it is bound to
		otherClient = `certificate_(missing|of_another_client)`
		bound       = `(dpop_token_as_bearer|` + otherClient + `)`
		forged      = `(malformed|alg_none|wrong_key|embedded_jwk|hs256_with_public_key|` +
			`tampered_payload|expired|not_yet_valid|wrong_issuer|wrong_audience|unknown_kid|` +
			`bound_as_bearer|` + unproven + `|` + bound + `)`
		scopesLack = `(scope_.*|token_of_.*)`
		outage     = `keys_unavailable`
		// dpop_proof_used_before: the first time
		proven = `(dpop_(genuine|proof_used_before)|certificate_genuine)`
		or     = `|`
	)
	caughtBy := map[flaw]string{
		anyScope:           `createMessage/scope_.*`,
		scopePrefix:        closed + `scope_.*_with_suffix`,
		missingIsForbidden: closed + tokenless,
		expiryUnchecked:    secured + `expired`,
		audienceUnchecked:  secured + `wrong_audience`,
		kidIgnored:         secured + `unknown_kid`,
		validatorFirst:     closed + `(invalid|huge)_body_without_token`,
		unguardedRoute: `listMessages/(` + tokenless + or + forged + or + scopesLack + or +
			outage + `)`,
		proofUnchecked: secured + unproven,
		proofUsedAgain: secured + `dpop_proof_used_before`,
		certificateAny: secured + `certificate_of_another_client`,
		proofOfAnyURL:  secured + `dpop_proof_of_another_url`,
		answersAnything: `getStatus/.*|getMe/(no_token|wrong_scheme)|` + secured +
			`(exact_scopes|token_of_.*|` + proven + `)`,
		cachedVerdict: closed + `token_of_.*`,
		failOpen:      secured + outage,

		scopeSuffix:        closed + `scope_.*_with_prefix`,
		scopeCut:           closed + `scope_.*_cut_short`,
		scopeCase:          closed + `scope_.*_in_other_case`,
		noneAccepted:       secured + `alg_none`,
		algorithmOfToken:   secured + `hs256_with_public_key`,
		embeddedKeyTrusted: secured + `embedded_jwk`,
		signatureUnchecked: secured + `(wrong_key|embedded_jwk|tampered_payload)`,
		notBeforeUnchecked: secured + `not_yet_valid`,
		issuerPrefix:       secured + `wrong_issuer`,
		bindingIgnored:     secured + `(bound_as_bearer|` + bound + `)`,
		malformedForgiven:  secured + `malformed`,
		schemeIgnored:      closed + `wrong_scheme`,
		publicRefuses:      `getStatus/bad_token_ignored`,
		publicIsGuarded:    `getStatus/.*`,
		optionalIsRequired: `getMe/(no_token|wrong_scheme)`,
		genuineRefused: secured + `(exact_scopes|token_of_.*|` + proven +
			`|dpop_proof_of_another_key)` + or + closed + scopesLack,
		errorCodeMissing: secured + forged + or + closed + scopesLack,
		errorCodeAlways:  closed + tokenless,
		scopesUnnamed:    closed + scopesLack,
		htmlErrors: secured + `(` + forged + or + outage + `)` + or + closed + `(` +
			tokenless + or + scopesLack + `)`,
		cacheable: secured + forged + or + closed + `(` + tokenless + or + scopesLack +
			`)`,
		tokenRepeated: secured + `(` + forged + or + outage + `)` + or + closed +
			`(wrong_scheme|` + scopesLack + `)`,
		outageIsInvalid: secured + outage,
	}
	m := newMessages(t)
	caught := map[string]bool{}
	for _, f := range slices.Sorted(maps.Keys(caughtBy)) {
		t.Run(string(f), func(t *testing.T) {
			report, err := authztest.Check(t.Context(), m.target(f))
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Failed()) == 0 {
				t.Errorf("no case found it")
			}
			should := regexp.MustCompile(`^(` + caughtBy[f] + `)$`)
			for _, result := range report.Results {
				name, found := result.Case.Name, len(result.Faults) > 0
				if result.Skipped != "" {
					t.Errorf("%s was skipped (%s): the target has everything that the kit needs", name,
						result.Skipped)
				}
				if found {
					caught[name] = true
				}
				switch {
				case should.MatchString(name) && !found:
					t.Errorf("%s passed: it should find that %s", name, f)
				case !should.MatchString(name) && found:
					t.Errorf("%s failed, though it is not about that: %s", name,
						strings.Join(result.Faults, "; "))
				}
			}
		})
	}
	for _, c := range authztest.Cases(m.plan) { // a kit without results has no output
		if !caught[c.Name] {
			t.Errorf("%s passes with each flaw: no flaw makes it fail", c.Name)
		}
	}
}

// TestOverTheNetwork: the results are the same, also of the case in which the client waits before
// it sends the body.
func TestOverTheNetwork(t *testing.T) {
	m := newMessages(t)
	// Only requests that should get no response have a short timeout, so that a slow machine causes
	// no faults.
	const generous, short = time.Minute, time.Second
	const huge = "createMessage/huge_body_without_token"
	all := func(string) bool { return true }
	quick := func(name string) bool {
		return strings.HasPrefix(name, "createMessage/") && name != huge
	}
	for _, test := range []struct {
		flaw     flaw
		tried    func(name string) bool // the other cases are skipped
		caughtBy string
		patience time.Duration
	}{
		{none, all, `^$`, generous},
		{expiryUnchecked, all, `/expired$`, generous},
		{validatorFirst, quick, `_body_without_token$`, generous},
		{validatorFirst, func(name string) bool { return name == huge }, `.`, short},
	} {
		t.Run(cmp.Or(string(test.flaw), "no flaw"), func(t *testing.T) {
			target := m.target(test.flaw)
			server := httptest.NewServer(http.StripPrefix("/v1", target.Handler))
			defer server.Close()
			target.Outage = http.StripPrefix("/v1", target.Outage)
			target.Handler, target.URL, target.Client = nil, server.URL+"/v1",
				&http.Client{Timeout: test.patience}
			caughtBy := regexp.MustCompile(test.caughtBy)
			target.Skip = func(c authztest.Case) string {
				if !test.tried(c.Name) {
					return "not of this test"
				}
				return ""
			}
			report, err := authztest.Check(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			for _, result := range report.Results {
				if should := result.Skipped == "" &&
					caughtBy.MatchString(result.Case.Name); should != (len(result.Faults) > 0) {
					t.Errorf("%s: found %q, want faults: %t", result.Case.Name,
						result.Faults, should)
				}
			}
		})
	}
}

// TestWithLess: cases that a target does not support are skipped, with the reason.
func TestWithLess(t *testing.T) {
	m := newMessages(t)
	all := m.target(none)
	for _, test := range []struct {
		name  string
		give  func(*authztest.Target)
		tried string // all that is; the rest is skipped
	}{
		{"no tokens", func(target *authztest.Target) {
			target.Tokens = authztest.Tokens{Issuer: m.issuer.URL(), Audience: audience}
		}, `no_token|wrong_scheme|malformed|.*_without_token|alg_none|wrong_key|embedded_jwk|bad_token_ignored`},
		{"the key set", func(target *authztest.Target) {
			target.Tokens = authztest.Tokens{KeySet: all.Tokens.KeySet}
		}, `no_token|wrong_scheme|malformed|.*_without_token|alg_none|wrong_key|embedded_jwk|bad_token_ignored|hs256_with_public_key`},
		{"genuine tokens", func(target *authztest.Target) {
			target.Tokens = authztest.Tokens{Genuine: all.Tokens.Genuine}
			target.Outage = nil
		}, `no_token|wrong_scheme|malformed|.*_without_token|alg_none|wrong_key|embedded_jwk|bad_token_ignored|tampered_payload|exact_scopes|scope_.*|token_of_.*`},
		{"genuine tokens of scopes that the issuer knows", func(target *authztest.Target) {
			target.Tokens = authztest.Tokens{Genuine: func(ctx context.Context,
				scopes []string) (string, error) {
				if known := m.plan.Scopes(); slices.ContainsFunc(scopes, func(s string) bool {
					return !slices.Contains(known, s)
				}) {
					return "", fmt.Errorf("invalid_scope: %w", errors.ErrUnsupported)
				}
				return all.Tokens.Genuine(ctx, scopes)
			}}
		}, `no_token|wrong_scheme|malformed|.*_without_token|alg_none|wrong_key|embedded_jwk|bad_token_ignored|tampered_payload|exact_scopes|scope_.*_removed|token_of_.*|keys_unavailable`},
		{"genuine tokens of every scope, whatever is asked for", func(target *authztest.Target) {
			target.Tokens = authztest.Tokens{
				Genuine: func(context.Context, []string) (string, error) {
					return "", fmt.Errorf("every scope or none: %w", errors.ErrUnsupported)
				},
				Sufficient: func(ctx context.Context, _ []string) (string, error) {
					return all.Tokens.Genuine(ctx, m.plan.Scopes())
				},
			}
		}, `no_token|wrong_scheme|malformed|.*_without_token|alg_none|wrong_key|embedded_jwk|bad_token_ignored|tampered_payload|exact_scopes|keys_unavailable`},
		{"a choice", func(target *authztest.Target) {
			target.Skip = func(c authztest.Case) string {
				if len(c.Runs()) > 0 {
					return "nothing is to be done there"
				}
				return ""
			}
		}, `no_token|wrong_scheme|malformed|.*_without_token|alg_none|wrong_key|embedded_jwk|hs256_with_public_key|tampered_payload|expired|not_yet_valid|wrong_issuer|wrong_audience|unknown_kid|bound_as_bearer|scope_.*|keys_unavailable|dpop_(without_proof|old_proof|token_as_bearer|proof_(of|tampered).*)|certificate_(missing|of_another_client)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			target := all
			test.give(&target)
			report, err := authztest.Check(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			tried := regexp.MustCompile(`/(` + test.tried + `)$`)
			for _, result := range report.Results {
				name := result.Case.Name
				if target.Skip != nil && len(result.Case.Runs()) > 0 {
					name = "left out"
				}
				switch {
				case len(result.Faults) > 0:
					t.Errorf("%s failed on a server that is right: %s", name,
						strings.Join(result.Faults, "; "))
				case tried.MatchString(name) != result.Passed():
					t.Errorf("%s: passed %t, skipped %q; want it to run: %t", name,
						result.Passed(), result.Skipped, !result.Passed())
				}
			}
		})
	}
}

// TestOpaqueTokens: an opaque token cannot be forged, but the cases with genuine ones run.
func TestOpaqueTokens(t *testing.T) {
	m := newMessages(t)
	target := m.target(none)
	server := target.Handler
	real := map[string]string{}
	target.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if known := real[strings.TrimPrefix(r.Header.Get("Authorization"),
			"Bearer ")]; known != "" {
			r.Header.Set("Authorization", "Bearer "+known)
		}
		server.ServeHTTP(w, r)
	})
	target.Tokens = authztest.Tokens{Genuine: func(ctx context.Context, scopes []string) (string,
		error) {
		opaque := rand.Text()
		var err error
		real[opaque], err = m.tokens.Genuine(ctx, scopes)
		return opaque, err
	}}
	target.Outage = nil
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range report.Results {
		forged := regexp.MustCompile(
			`/(alg_none|wrong_key|embedded_jwk|tampered_payload)$`).MatchString(result.Case.Name)
		if len(result.Faults) > 0 || forged && !strings.Contains(result.Skipped, "not a JWT") {
			t.Errorf("%s: found %q, skipped %q", result.Case.Name, result.Faults, result.Skipped)
		}
	}
}

// TestOnlyRFC6750: with OnlyRFC6750, a server without problem documents passes.
func TestOnlyRFC6750(t *testing.T) {
	m := newMessages(t)
	for _, f := range []flaw{htmlErrors, cacheable, scopesUnnamed} {
		target := m.target(f)
		target.OnlyRFC6750 = true
		report, err := authztest.Check(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range report.Failed() {
			t.Errorf("%s: %s: %s", f, result.Case.Name, strings.Join(result.Faults, "; "))
		}
	}
}

// recorded is a T that records the results.
type recorded struct {
	name   string
	ctx    context.Context
	errors *[]string
}

func (r recorded) Helper()                  {}
func (r recorded) Context() context.Context { return r.ctx }
func (r recorded) Run(name string, f func(recorded)) bool {
	f(recorded{r.name + "/" + name, r.ctx, r.errors})
	return true
}
func (r recorded) Error(args ...any) {
	*r.errors = append(*r.errors, r.name+": "+fmt.Sprint(args...))
}
func (r recorded) Fatal(args ...any) { r.Error(args...) }
func (r recorded) Skip(args ...any)  { r.Error(args...) }

// TestRunReports: the faults of a case are errors of its subtest.
func TestRunReports(t *testing.T) {
	m := newMessages(t)
	var said []string
	authztest.Run(recorded{"T", t.Context(), &said}, m.target(expiryUnchecked))
	want := []string{
		"T/getMe/expired: GET /me: expected 401 (invalid-token), received 204",
		"T/getMe/expired: GET /me: expected the handler not to run, it did",
	}
	if len(said) < 2 || !slices.Equal(said[:2], want) {
		t.Errorf("Run said\n%s\nwant to begin with\n%s", strings.Join(said, "\n"),
			strings.Join(want, "\n"))
	}
}

// TestFaultyTargets: all faults of a target are returned together, and no case runs.
func TestFaultyTargets(t *testing.T) {
	m := newMessages(t)
	target := m.target(none)
	target.URL = "messages.example"
	target.Requests = map[string]authztest.Request{"listMesages": {}}
	report, err := authztest.Check(t.Context(), target)
	for _, part := range []string{`Target.URL is "messages.example"`,
		`"listMesages", which is not an operationId`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Check returned %v, want it to contain: %s", err, part)
		}
	}
	if len(report.Results) > 0 {
		t.Errorf("%d cases were run", len(report.Results))
	}
	target = m.target(none)
	target.Handler, target.URL = nil, "https://messages.example"
	target.Certificate = &tls.Certificate{}
	target.Client = &http.Client{Transport: http.NewFileTransport(http.Dir(t.TempDir()))}
	_, err = authztest.Check(t.Context(), target)
	for _, part := range []string{"Target.Certificate has no Leaf",
		"expected an *http.Transport, to present Target.Certificate"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Check returned %v, want it to contain: %s", err, part)
		}
	}
	for _, part := range []string{"Target.URL is", "Target.Document is nil"} {
		if _, err := authztest.Check(t.Context(), authztest.Target{}); err == nil ||
			!strings.Contains(err.Error(), part) {
			t.Errorf("Check of nothing returned %v, want it to contain: %s", err, part)
		}
	}
}
