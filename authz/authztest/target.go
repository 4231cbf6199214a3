package authztest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// Target is a server and its document, with what the kit needs to test that the server enforces the
// document. Document and one of Handler and URL are required.
type Target struct {
	Document *openapi3.T

	// Handler is the whole server, called in process.
	Handler http.Handler
	// URL is where the document's paths begin, such as https://api.example/v1. Default with a
	// Handler: http://localhost.
	URL string
	// Resource is where the document's paths begin in DPoP proofs, if the server is known by
	// another URL. Default: URL.
	Resource string
	// Client sends the requests if there is no Handler. It does not follow redirects. Its Timeout
	// bounds the wait for a response. Default: 10 s.
	Client *http.Client
	// Certificate is the client certificate (RFC 8705) of every request, except in the cases that
	// must be refused without it. A remote server may refuse their TLS handshake instead. Default:
	// none, and in process, a self-signed one for Tokens.CertificateBound.
	Certificate *tls.Certificate

	// Tokens provides access tokens. Default: none.
	Tokens Tokens
	// ScopesToRequest returns the issuer's names of scopes, which challenges contain: see
	// token.Issuer.ScopesToRequest. Default: those of the document.
	ScopesToRequest func(scopes []string) []string
	// Credentials provides the credentials of other security schemes, by scheme.
	Credentials map[string]Credential
	// Without and Unstated are those of the server's [authz.Config].
	Without  []string
	Unstated authz.Unstated
	// Outage is the same API, called in process, but its issuer's keys have never been available,
	// so that tokens must be answered with 503. nil: not tested.
	Outage http.Handler

	// Calls returns how often a handler of the API has run. With it, each case asserts that the
	// handler ran, or did not. nil: not asserted.
	Calls func() int
	// Requests replaces, by operationId, parts of the requests that are built from the document.
	Requests map[string]Request
	// Skip returns why a case must be skipped, or "". nil: none is skipped.
	Skip func(Case) string

	// Header is added to every request, for example for a proxy in front of the server.
	Header http.Header
	// Workers is how many cases [Check] runs at a time. Default: 1. With Calls, it is 1.
	Workers int

	// IgnoreResponses turns off the comparison of responses with the document, for handlers that
	// are only stubs.
	IgnoreResponses bool

	// Now is the server's clock. Default: time.Now.
	Now func() time.Time

	// OnlyRFC6750 is for servers without an [authz.Gate]: status and challenge must follow RFC
	// 6750, but problem documents (RFC 9457), Cache-Control: no-store, a realm, and the scope
	// parameter of a challenge are not required.
	OnlyRFC6750 bool
}

// Tokens provides access tokens. Each field that is set enables more cases. [Issued] sets most of
// them.
type Tokens struct {
	// Genuine returns a token that the server accepts and that grants exactly these scopes. It is
	// called once per case. Each forgery differs from a genuine token in one way. If the error
	// wraps [errors.ErrUnsupported], for example because the issuer does not know a scope, the case
	// is skipped.
	Genuine func(ctx context.Context, scopes []string) (string, error)
	// Sufficient is called instead of Genuine in cases in which a token may grant more than these
	// scopes: all but those that test missing scopes. It is for issuers that grant a client all of
	// its scopes, whatever it requests. nil: Genuine is called.
	Sufficient func(ctx context.Context, scopes []string) (string, error)
	// Other is like Genuine, for a second principal, who does not own what the first one creates.
	Other func(ctx context.Context, scopes []string) (string, error)
	// Bound is like Genuine, for tokens that are bound to a key (RFC 9449 §6). nil: such tokens are
	// not tested. [Issued] does not set it.
	Bound func(ctx context.Context, scopes []string, key ProofKey) (string, error)
	// CertificateBound is like Genuine, for tokens that are bound to a client's certificate (RFC
	// 8705 §3). It is only called with a [Target.Handler] or a [Target.Certificate]. nil: such
	// tokens are not tested. [Issued] does not set it.
	CertificateBound func(ctx context.Context, scopes []string, certificate *x509.Certificate) (
		string, error)
	// Revoke revokes a token at the issuer (RFC 7009), for operations with x-authz-introspect. If
	// the error wraps [errors.ErrUnsupported], the case is skipped.
	Revoke func(ctx context.Context, token string) error
	// Sign signs a header and claims with the key of genuine tokens.
	Sign func(header, claims map[string]any) string
	// KeySet is the issuer's JWK set (RFC 7517), for forgeries that misuse a public key.
	KeySet []byte

	// Issuer and Audience are the claims of forgeries if there is no Genuine.
	Issuer, Audience string
}

// Request is a request to an operation, without credentials. In [Target.Requests], its fields
// replace what was built, parameter by parameter.
type Request struct {
	Path        map[string]string // unescaped values of path parameters
	Query       url.Values
	Header      http.Header
	ContentType string // of Body
	Body        []byte // nil: as built
}

// Result is the result of a case.
type Result struct {
	Case    Case
	Skipped string // why the case was not run; "" if it was
	// Faults are sentences that name what was expected and what was received. The case passed if
	// there are none.
	Faults []string
	Status int // of the answer; 0 if there was none
	// HandshakeRefused is set if the server refused the TLS handshake, and so the request.
	HandshakeRefused bool
	Duration         time.Duration

	// Detail and Curl are set if there are faults: the detail of the problem document, and a
	// command that repeats the request, with variables for the credentials.
	Detail string
	Curl   string
}

// Passed reports whether the case was run without faults.
func (r Result) Passed() bool { return r.Skipped == "" && len(r.Faults) == 0 }

// Report holds the results of all cases, in their order.
type Report struct{ Results []Result }

// Failed returns the results with faults.
func (r Report) Failed() []Result {
	var failed []Result
	for _, result := range r.Results {
		if len(result.Faults) > 0 {
			failed = append(failed, result)
		}
	}
	return failed
}
