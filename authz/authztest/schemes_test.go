package authztest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// Classic faults of servers that take more than tokens.
const (
	keyFromAnywhere     flaw = "a key is accepted from the wrong place"
	keyByPrefix         flaw = "a key may begin like the genuine one"
	passwordByPrefix    flaw = "a password is compared by prefix"
	userIgnored         flaw = "the user name is not looked at"
	halfIsEnough        flaw = "one half of an AND is enough"
	scopesAddedUp       flaw = "scopes are taken from another scheme's principal"
	rolesUnchecked      flaw = "the roles of a key are not checked"
	crossSiteForgotten  flaw = "pages of other sites may use the cookie"
	badKeyIsNone        flaw = "a bad key passes for none"
	closedAlternatively flaw = "only the first alternative counts"
)

// many is an API that a gate guards, with a flaw.
type many struct {
	flaw  flaw
	gate  *authz.Gate
	doc   *openapi3.T
	calls int
}

func (m *many) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	spoilt := r.Clone(r.Context())
	switch key := r.Header.Get("X-Key"); m.flaw {
	case keyFromAnywhere:
		for _, place := range []string{r.URL.Query().Get("X-Key"), cookie(r, "X-Key")} {
			if place != "" {
				spoilt.Header.Set("X-Key", place)
			}
		}
		spoilt.URL.RawQuery = ""
		if key := r.URL.Query().Get("key") + r.Header.Get("key") + cookie(r, "key"); key != "" &&
			r.URL.Path == "/queries" {
			spoilt.URL.RawQuery = "key=" + key
		}
		if session := r.URL.Query().Get("session") + r.Header.Get("session"); session != "" {
			spoilt.AddCookie(&http.Cookie{Name: "session", Value: session})
		}
	case badKeyIsNone:
		if r.URL.Path == "/optional" {
			spoilt.Header.Del("X-Key")
		}
	case crossSiteForgotten:
		spoilt.Header.Del("Sec-Fetch-Site")
		spoilt.Header.Del("Origin")
	case closedAlternatively:
		if r.URL.Path == "/either" && key != "" {
			spoilt.Header.Set("X-Key", "none")
		}
	case halfIsEnough:
		if r.URL.Path == "/both" && r.TLS == nil {
			withName(spoilt, credential("certificate", []string{"write"}))
		}
	}
	_, err := m.gate.Check(spoilt, r.URL.Path, nil)
	if m.flaw == rolesUnchecked && kindOf(err) == authz.InsufficientRole {
		err = nil
	}
	if err != nil {
		m.gate.WriteProblem(w, r, err)
		return
	}
	m.calls++
	w.WriteHeader(http.StatusNoContent)
}

func kindOf(err error) authz.Kind {
	if e, ok := errors.AsType[*authz.Error](err); ok {
		return e.Kind
	}
	return ""
}

func cookie(r *http.Request, name string) string {
	if c, err := r.Cookie(name); err == nil {
		return c.Value
	}
	return ""
}

func withName(r *http.Request, name string) {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c},
		VerifiedChains: [][]*x509.Certificate{{c}}}
}

// The credentials here are a word and the roles: "key read write". Genuine ones end with a dot.
func credential(kind string, roles []string) string {
	return kind + " " + strings.Join(roles, " ") + "."
}

func (m *many) principal(kind, secret string, addUp []string) (*token.Principal, error) {
	word, rest, _ := strings.Cut(secret, " ")
	roles, found := strings.CutSuffix(rest, ".")
	if m.flaw == keyByPrefix && kind == "key" || m.flaw == passwordByPrefix && kind == "password" {
		roles, _, found = strings.Cut(rest, ".")
	}
	if word != kind || !found {
		return nil, authz.ErrBadCredential
	}
	return token.NewPrincipal(token.PrincipalConfig{Subject: kind,
		Scopes: slices.Concat(strings.Fields(roles), addUp)})
}

func newMany(t *testing.T, f flaw) (*many, authztest.Target) {
	t.Helper()
	m := &many{flaw: f, doc: load(t, "testdata/schemes.yaml")}
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience},
		Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	byKey := authz.APIKey(func(_ context.Context, key string) (*token.Principal, error) {
		return m.principal("key", key, nil)
	})
	config := authz.Config{Document: m.doc, Verifier: verifier,
		Authenticators: map[string]authz.Authenticator{
			"key": byKey, "query": byKey, "cookie": byKey,
			"basic": authz.Basic(func(_ context.Context, user, password string) (*token.Principal,
				error) {
				if user != "user" && m.flaw != userIgnored {
					return nil, authz.ErrBadCredential
				}
				return m.principal("password", password, nil)
			}),
			"certificate": authz.MutualTLS(func(_ context.Context,
				c *x509.Certificate) (*token.Principal, error) {
				if m.flaw == scopesAddedUp {
					return m.principal("certificate", c.Subject.CommonName, []string{"write"})
				}
				return m.principal("certificate", c.Subject.CommonName, nil)
			}),
		}}
	if m.gate, err = authz.New(config); err != nil {
		t.Fatal(err)
	}
	genuine := func(kind string) authztest.Credential {
		return authztest.Credential{Genuine: func(_ context.Context, roles []string) (string,
			error) {
			return credential(kind, roles), nil
		}}
	}
	certificate := genuine("certificate")
	certificate.Present = func(r *http.Request, name string) error { withName(r, name); return nil }
	basic := authztest.Credential{Genuine: func(_ context.Context, roles []string) (string, error) {
		return "user:" + credential("password", roles), nil
	}}
	return m, authztest.Target{
		Document: m.doc, Handler: m, Tokens: authztest.Issued(issuer.Issuer), Calls: func() int {
			return m.calls
		},
		Credentials: map[string]authztest.Credential{
			"key": genuine("key"), "query": genuine("key"), "cookie": genuine("key"), "basic": basic, "certificate": certificate,
		},
	}
}

// TestSchemes: a correct server passes, and each flaw makes the expected cases fail.
func TestSchemes(t *testing.T) {
	for f, caughtBy := range map[flaw]string{
		none:                `^$`,
		keyFromAnywhere:     `_in_(header|query|cookie)$`,
		keyByPrefix:         `(key|query|cookie)_with_suffix$`,
		passwordByPrefix:    `basic_with_suffix$`,
		userIgnored:         `basic_of_another_user$`,
		halfIsEnough:        `^byBoth/.*/certificate_missing$`,
		scopesAddedUp:       `^byBoth/.*/certificate_write_(removed|of_token)$`,
		rolesUnchecked:      `_removed$|_of_token$`,
		crossSiteForgotten:  `^changeByCookie/.*/cross_site$`,
		badKeyIsNone:        `^optionallyByKey/.*/key_(cut_short|with_suffix)$`,
		closedAlternatively: `^byTokenOrKey/key`,
	} {
		t.Run(fmt.Sprint("flaw ", f), func(t *testing.T) {
			_, target := newMany(t, f)
			report, err := authztest.Check(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			found := 0
			for _, result := range report.Results {
				name := result.Case.Name
				if result.Skipped != "" && result.Skipped != "needs Target.Outage" &&
					result.Skipped != "needs Tokens.Bound" &&
					result.Skipped != "needs Tokens.CertificateBound with Target.Handler or "+
						"Target.Certificate" {
					t.Errorf("%s was skipped: %s", name, result.Skipped)
				}
				if len(result.Faults) == 0 {
					continue
				}
				if found++; !regexp.MustCompile(caughtBy).MatchString(name) {
					t.Errorf("%s failed, though it is not about that: %s", name,
						strings.Join(result.Faults, "; "))
				}
			}
			if (found > 0) != (f != none) {
				t.Errorf("%d cases found it", found)
			}
		})
	}
}

// Cases without a credential are skipped, and an unknown scheme is a fault of the target.
func TestSchemesWithLess(t *testing.T) {
	_, target := newMany(t, none)
	target.Credentials = map[string]authztest.Credential{"key": {Genuine: func(context.Context,
		[]string) (string, error) {
		return "", fmt.Errorf("%w: no such key", errors.ErrUnsupported)
	}}}
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	skipped := map[string]bool{}
	for _, result := range report.Results {
		skipped[result.Skipped] = true
		if len(result.Faults) > 0 {
			t.Errorf("%s: %q", result.Case.Name, result.Faults)
		}
	}
	for _, why := range []string{`needs Target.Credentials["basic"]`,
		`needs Target.Credentials["certificate"]`, "unsupported operation: no such key"} {
		if !skipped[why] {
			t.Errorf("nothing is skipped because it %s", why)
		}
	}
	target.Credentials["kye"] = target.Credentials["key"]
	if _, err := authztest.Check(t.Context(), target); err == nil ||
		!strings.Contains(err.Error(), `"kye"`) {
		t.Errorf("an unknown scheme: error is %v", err)
	}
}

// An operation that is closed to everybody must refuse all requests.
func TestDenied(t *testing.T) {
	m, target := newMany(t, none)
	target.Without = []string{"key"}
	report, err := authztest.Check(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range report.Results {
		if failed := len(result.Faults) > 0; failed != strings.HasSuffix(result.Case.Name,
			"/denied") {
			t.Errorf("%s: %q; want faults of the server, which accepts keys, where "+
				"be closed", result.Case.Name, result.Faults)
		}
	}
	if m.calls == 0 {
		t.Error("no handler ran")
	}
}
