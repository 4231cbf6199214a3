package authz

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/token"
)

// Authenticator authenticates requests by the credential of one security scheme. [APIKey], [Basic]
// and [MutualTLS] return those for OpenAPI's types; a program may have its own.
type Authenticator interface {
	// Authenticate returns the principal of the credential in the request. scheme is the security
	// scheme in the document. The request has no body.
	//
	// The error must be, or wrap, [ErrAbsent], [ErrBadCredential], [ErrUnavailable] or a
	// [*token.Error]. Any other error, and a nil principal without an error, is a fault of the
	// server, answered with 500. Errors are logged, so they must not hold the credential.
	Authenticate(r *http.Request, scheme *openapi3.SecurityScheme) (*token.Principal, error)
}

// The errors of an [Authenticator].
var (
	ErrAbsent        = errors.New("authz: the request has no such credential")
	ErrBadCredential = errors.New("authz: the credential is not accepted")
	ErrUnavailable   = errors.New("authz: the credential cannot be checked now") // 503
)

// APIKey authenticates by the key of an apiKey scheme: in a header, the query or a cookie, as the
// document says. lookup returns the principal of a key; its errors are those of an [Authenticator].
//
// A request with two keys is refused. A key in the query is removed from the handler's request,
// unless the operation also declares it as a parameter.
func APIKey(lookup func(ctx context.Context, key string) (*token.Principal, error)) Authenticator {
	return apiKey(lookup)
}

type apiKey func(ctx context.Context, key string) (*token.Principal, error)

func (apiKey) fits(s *scheme) bool { return s.spec.Type == "apiKey" }

func (lookup apiKey) Authenticate(
	r *http.Request,
	scheme *openapi3.SecurityScheme,
) (*token.Principal, error) {
	var keys []string
	switch scheme.In {
	case "header":
		keys = r.Header.Values(scheme.Name)
	case "query":
		keys = r.URL.Query()[scheme.Name]
	case "cookie":
		for _, cookie := range r.CookiesNamed(scheme.Name) {
			keys = append(keys, cookie.Value)
		}
	}
	switch {
	case len(keys) > 1:
		return nil, fmt.Errorf("%w: there is more than one", ErrBadCredential)
	case len(keys) == 0 || keys[0] == "":
		return nil, ErrAbsent
	}
	return lookup(r.Context(), keys[0])
}

// Basic authenticates by user name and password (RFC 7617). lookup returns the principal of a user;
// its errors are those of an [Authenticator].
func Basic(
	lookup func(ctx context.Context, user, password string) (*token.Principal, error),
) Authenticator {
	return basic(lookup)
}

type basic func(ctx context.Context, user, password string) (*token.Principal, error)

func (basic) fits(s *scheme) bool { return s.isHTTP("basic") }

func (lookup basic) Authenticate(
	r *http.Request,
	_ *openapi3.SecurityScheme,
) (*token.Principal, error) {
	headers := r.Header["Authorization"]
	if len(headers) > 1 {
		return nil, fmt.Errorf("%w: there is more than one Authorization header", ErrBadCredential)
	}
	if len(headers) == 0 {
		return nil, ErrAbsent
	}
	if word, _, _ := strings.Cut(headers[0], " "); !strings.EqualFold(word, "Basic") {
		return nil, ErrAbsent
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return nil, fmt.Errorf("%w: expected base64 of a user name, a colon and a password",
			ErrBadCredential)
	}
	return lookup(r.Context(), user, password)
}

// MutualTLS authenticates by the client's certificate, which Config.ClientCertificates locates. The
// certificate of a TLS connection is accepted only if the server verified it (see
// tls.Config.ClientAuth). lookup returns the principal of a certificate; its errors are those of an
// [Authenticator].
func MutualTLS(
	lookup func(ctx context.Context, certificate *x509.Certificate) (*token.Principal, error),
) Authenticator {
	return mutualTLS(lookup)
}

type mutualTLS func(ctx context.Context, certificate *x509.Certificate) (*token.Principal, error)

func (mutualTLS) fits(s *scheme) bool { return s.spec.Type == "mutualTLS" }

func (lookup mutualTLS) Authenticate(
	r *http.Request,
	_ *openapi3.SecurityScheme,
) (*token.Principal, error) {
	from, _ := r.Context().Value(certificatesKey{}).(ClientCertificates)
	client, verified, err := from.find(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBadCredential, err)
	case client == nil:
		return nil, ErrAbsent
	case !verified:
		return nil, fmt.Errorf("%w: the server has not verified the client certificate",
			ErrBadCredential)
	}
	return lookup(r.Context(), client)
}

// Secret is an API key or a password. It must be generated, with 128 random bits or more, because
// its hash is a fast one.
type Secret struct {
	ID        string   // the user name for [Basic]
	SHA256    [32]byte // of the secret
	Principal *token.Principal
}

// Secrets is a list of accepted secrets. Its methods compare in constant time.
//
//	keys := authz.Secrets{{ID: "billing", SHA256: sha256.Sum256(key), Principal: billing}}
//	config.Authenticators = map[string]authz.Authenticator{"apiKey": authz.APIKey(keys.Key)}
type Secrets []Secret

// Key is the lookup of [APIKey].
func (s Secrets) Key(_ context.Context, key string) (*token.Principal, error) {
	return s.find(key, func(Secret) bool { return true })
}

// User is the lookup of [Basic].
func (s Secrets) User(_ context.Context, user, password string) (*token.Principal, error) {
	return s.find(password, func(known Secret) bool {
		return subtle.ConstantTimeCompare([]byte(known.ID), []byte(user)) == 1
	})
}

func (s Secrets) find(secret string, candidate func(Secret) bool) (*token.Principal, error) {
	hash := sha256.Sum256([]byte(secret))
	var found *token.Principal
	for _, known := range s { // no early exit, for constant time
		if subtle.ConstantTimeCompare(known.SHA256[:], hash[:]) == 1 && candidate(known) {
			found = known.Principal
		}
	}
	if found == nil {
		return nil, ErrBadCredential
	}
	return found, nil
}

// Grant says for whom a client acts.
type Grant string

// The grants of [Scheme]. In a token of ClientGrant the subject is the client (RFC 9068 §2.2). It
// is recognized by sub, which is the client's ID, with or without the suffix @clients, or by the
// claims idtyp=app or gty=client-credentials. A token without a client matches neither grant.
//
// Some issuers, such as Keycloak, give a client's token a subject of its own, which looks like a
// person's. Use Scheme.Claims for those.
const (
	ClientGrant Grant = "client" // the client acts for itself
	PersonGrant Grant = "person" // the client acts for a person
)

// Scheme restricts the access tokens of a security scheme, for documents with schemes for different
// kinds of tokens.
type Scheme struct {
	Issuers []string            // the accepted issuers; nil: any
	Grant   Grant               // "": any
	Claims  map[string][]string // the accepted string values, by JSON pointer (RFC 6901)
}

// check returns why the principal's token does not match, or nil.
func (s *Scheme) check(p *token.Principal) error {
	if s.Issuers != nil && !slices.Contains(s.Issuers, p.Issuer()) {
		return errors.New("the security scheme does not accept tokens of this issuer")
	}
	if s.Grant != "" && (p.ClientID() == "" || s.Grant != grantOf(p)) {
		return fmt.Errorf("the security scheme accepts tokens of a %s only", s.Grant)
	}
	for pointer, values := range s.Claims {
		if value, err := token.Claim[string](p, pointer); err != nil ||
			!slices.Contains(values, value) {
			return fmt.Errorf("the security scheme does not accept this value of the claim %s",
				pointer)
		}
	}
	return nil
}

func grantOf(p *token.Principal) Grant {
	claimIs := func(pointer, value string) bool {
		claim, err := token.Claim[string](p, pointer)
		return err == nil && claim == value
	}
	if sub := p.Subject(); sub == "" || sub == p.ClientID() || sub == p.ClientID()+"@clients" ||
		claimIs("/idtyp", "app") || claimIs("/gty", "client-credentials") {
		return ClientGrant
	}
	return PersonGrant
}
