package authz_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/overlay"
	"github.com/oasgate/oasgate/authz/token"
)

// TestPublicDocuments guards each document of the folder that OASGATE_TEST_DOCUMENTS names as it
// is, and those for which testdata/public has an overlay with that as well. The kit runs against a
// stub server, and the requests that it makes from the documents must reach the handlers.
func TestPublicDocuments(t *testing.T) {
	folder := os.Getenv("OASGATE_TEST_DOCUMENTS")
	if folder == "" {
		t.Skip(
			"OASGATE_TEST_DOCUMENTS is not set: expected a folder of OpenAPI documents; .ci/full fetches some",
		)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("OASGATE_TEST_DOCUMENTS is %q: expected a folder with documents (%v)", folder, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		t.Run(name, func(t *testing.T) {
			t.Run("published", func(t *testing.T) { guardPublic(t, loadPublic(t, file)) })
			if laid := filepath.Join("testdata/public", name+".overlay.yaml"); exists(laid) {
				t.Run("overlaid", func(t *testing.T) { guardPublic(t, loadPublic(t, file, laid)) })
			}
		})
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// guardPublic guards a document and proves it.
func guardPublic(t *testing.T, doc *openapi3.T) {
	issuer := newIssuer(t)
	config := authz.Config{
		Document: doc, Unstated: authz.DenyUnstated, Undecoded: authz.DenyUndecoded,
		Verifier: newVerifier(t, issuer),
		Logger:   slog.New(slog.DiscardHandler),
	}
	secrets := issuedSecrets{}
	credentials := map[string]authztest.Credential{}
	config.Authenticators, credentials = secrets.schemes(doc)
	began := time.Now()
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("compiled in %s", time.Since(began).Round(time.Millisecond))

	calls := 0
	reached := map[string]bool{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if a, ok := authz.FromContext(r.Context()); ok {
			reached[a.Operation.ID] = true
		}
		w.WriteHeader(http.StatusNoContent)
	})
	report, err := authztest.Check(t.Context(), authztest.Target{
		Document: doc, Unstated: authz.DenyUnstated,
		Handler: newTemplateRouter(t, gate, handler),
		Tokens:  authztest.Issued(issuer.Issuer), Credentials: credentials,
		Calls: func() int { return calls },
	})
	if err != nil {
		t.Fatal(err)
	}
	callable, skipped := 0, 0
	for _, o := range gate.Plan().Operations() {
		if o.Denied == "" {
			callable++
		}
	}
	for _, result := range report.Results {
		if result.Skipped != "" && !strings.Contains(result.Skipped, "Outage") {
			skipped++
		}
	}
	for i, result := range report.Failed() {
		if i < 10 {
			t.Errorf(
				"%s: %s %s %s",
				result.Case.Name,
				strings.Join(result.Faults, "; "),
				result.Detail,
				result.Curl,
			)
		}
	}
	t.Logf(
		"%d operations, %d callable, %d reached; %d cases, %d skipped, %d failed; %s",
		len(gate.Plan().Operations()),
		callable,
		len(
			reached,
		),
		len(report.Results),
		skipped,
		len(report.Failed()),
		time.Since(began).Round(time.Millisecond),
	)
	if len(reached)*10 < callable*9 {
		t.Errorf(
			"requests reached the handlers of %d operations, expected most of %d",
			len(reached),
			callable,
		)
	}
}

// loadPublic loads a document with overlays applied.
func loadPublic(t *testing.T, file string, overlays ...string) *openapi3.T {
	t.Helper()
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var texts [][]byte
	for _, name := range overlays {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	if document, err = overlay.Apply(document, texts...); err != nil {
		t.Fatal(err)
	}
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	doc, err := loader.LoadFromDataWithPath(document, &url.URL{Path: filepath.ToSlash(file)})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// issuedSecrets are credentials of other kinds than access tokens, and their principals.
type issuedSecrets map[string]*token.Principal

func (s issuedSecrets) issue(_ context.Context, roles []string) (string, error) {
	p, err := token.NewPrincipal(token.PrincipalConfig{Subject: "someone", Scopes: roles})
	secret := fmt.Sprintf("user%d:secret%[1]d", len(s))
	s[secret] = p
	return secret, err
}

func (s issuedSecrets) find(secret string) (*token.Principal, error) {
	if p := s[secret]; p != nil {
		return p, nil
	}
	return nil, authz.ErrBadCredential
}

// schemes returns an authenticator and a source of credentials for each scheme that needs one.
func (s issuedSecrets) schemes(
	doc *openapi3.T,
) (map[string]authz.Authenticator, map[string]authztest.Credential) {
	authenticators := map[string]authz.Authenticator{}
	credentials := map[string]authztest.Credential{}
	if doc.Components == nil {
		return authenticators, credentials
	}
	for name, ref := range doc.Components.SecuritySchemes {
		credential := authztest.Credential{Genuine: s.issue}
		switch spec := ref.Value; {
		case spec.Type == "apiKey":
			authenticators[name] = authz.APIKey(
				func(_ context.Context, key string) (*token.Principal, error) {
					return s.find(key)
				},
			)
		case spec.Type == "http" && strings.EqualFold(spec.Scheme, "basic"):
			authenticators[name] = authz.Basic(
				func(_ context.Context, user, password string) (*token.Principal, error) {
					return s.find(user + ":" + password)
				},
			)
		case spec.Type == "mutualTLS":
			authenticators[name] = authz.MutualTLS(
				func(_ context.Context, c *x509.Certificate) (*token.Principal, error) {
					return s.find(c.Subject.CommonName)
				},
			)
			credential.Present = func(r *http.Request, secret string) error {
				c := &x509.Certificate{Subject: pkix.Name{CommonName: secret}}
				r.TLS = &tls.ConnectionState{
					PeerCertificates: []*x509.Certificate{c},
					VerifiedChains:   [][]*x509.Certificate{{c}},
				}
				return nil
			}
		case spec.Type == "http" && !strings.EqualFold(spec.Scheme, "bearer"):
			authenticators[name] = ownScheme{s}
			credential.Present = func(r *http.Request, secret string) error {
				r.Header.Set("Authorization", spec.Scheme+" "+secret)
				return nil
			}
		default:
			continue
		}
		credentials[name] = credential
	}
	return authenticators, credentials
}

// ownScheme authenticates by an http scheme that this library has no authenticator for.
type ownScheme struct{ issuedSecrets }

func (s ownScheme) Authenticate(
	r *http.Request,
	spec *openapi3.SecurityScheme,
) (*token.Principal, error) {
	word, secret, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(word, spec.Scheme) {
		return nil, authz.ErrAbsent
	}
	p, err := s.find(secret)
	if errors.Is(err, authz.ErrBadCredential) {
		return nil, fmt.Errorf("%w: unknown", err)
	}
	return p, err
}
