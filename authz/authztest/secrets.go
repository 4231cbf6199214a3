package authztest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// Secrets issues API keys, HTTP Basic users and client certificates for the security schemes of a
// document, and provides the authenticators with which a server under test accepts them.
//
//	secrets := authztest.NewSecrets(document)
//	config.Authenticators = secrets.Authenticators() // of the server
//	target.Credentials = secrets.Credentials()
//
// Certificates are only presented in process, to a Target.Handler.
type Secrets struct {
	schemes map[string]*openapi3.SecurityScheme

	mu     sync.Mutex
	issued map[string]*token.Principal // by secret
}

// NewSecrets returns the Secrets of a document.
func NewSecrets(doc *openapi3.T) *Secrets {
	s := &Secrets{
		schemes: map[string]*openapi3.SecurityScheme{}, issued: map[string]*token.Principal{},
	}
	if doc.Components == nil {
		return s
	}
	for name, ref := range doc.Components.SecuritySchemes {
		if ref != nil && ref.Value != nil {
			s.schemes[name] = ref.Value
		}
	}
	return s
}

// Authenticators returns an authenticator for each scheme of type apiKey or mutualTLS, and for HTTP
// Basic.
func (s *Secrets) Authenticators() map[string]authz.Authenticator {
	all := map[string]authz.Authenticator{}
	for name, spec := range s.schemes {
		switch {
		case spec.Type == "apiKey":
			all[name] = authz.APIKey(s.find)
		case isBasic(spec):
			all[name] = authz.Basic(
				func(ctx context.Context, user, password string) (*token.Principal, error) {
					return s.find(ctx, user+":"+password)
				})
		case spec.Type == "mutualTLS":
			all[name] = authz.MutualTLS(
				func(ctx context.Context, c *x509.Certificate) (*token.Principal, error) {
					return s.find(ctx, c.Subject.CommonName)
				})
		}
	}
	return all
}

// Credentials returns the credentials for the same schemes, for [Target.Credentials].
func (s *Secrets) Credentials() map[string]Credential {
	all := map[string]Credential{}
	for name := range s.Authenticators() {
		c := Credential{Genuine: s.issue}
		if s.schemes[name].Type == "mutualTLS" {
			c.Present = presentName
		}
		all[name] = c
	}
	return all
}

func isBasic(spec *openapi3.SecurityScheme) bool {
	return spec.Type == "http" && strings.EqualFold(spec.Scheme, "basic")
}

func (s *Secrets) issue(_ context.Context, roles []string) (string, error) {
	p, err := token.NewPrincipal(token.PrincipalConfig{Subject: "authztest", Scopes: roles})
	if err != nil {
		return "", err
	}
	secret := "authztest:" + rand.Text() // a user name and a password, or a key
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued[secret] = p
	return secret, nil
}

func (s *Secrets) find(_ context.Context, secret string) (*token.Principal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.issued[secret]; p != nil {
		return p, nil
	}
	return nil, authz.ErrBadCredential
}

func presentName(r *http.Request, secret string) error {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: secret}}
	r.TLS = &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}},
	}
	return nil
}
