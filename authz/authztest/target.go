package authztest

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// Target is a server, its document, and what the kit may use to prove that the one enforces the
// other. Document and one of Handler and URL have no default.
type Target struct {
	Document *openapi3.T

	// Handler is the whole server, called in process.
	Handler http.Handler
	// URL is where the document's paths begin, such as https://api.example/v1. Default, with a
	// Handler: http://localhost.
	URL string
	// Resource is where the document's paths begin as the server tells it in DPoP proofs. Default:
	// URL.
	Resource string
	// Client sends the requests where there is no Handler; no redirect is followed. Its Timeout
	// bounds the wait for an answer. Default 10 s.
	Client *http.Client

	// Tokens is where tokens come from. The zero value has none.
	Tokens Tokens
	// ScopesToRequest returns the names that the issuer of the tokens has for scopes, which are
	// those in challenges, as token.Issuer.ScopesToRequest does. nil: the document's.
	ScopesToRequest func(scopes []string) []string
	// Credentials are where the credentials of other security schemes come from, by scheme.
	Credentials map[string]Credential
	// Without and Unstated are those of the server's [authz.Config].
	Without  []string
	Unstated authz.Unstated
	// Outage is the same API, called in process, where the issuer's keys cannot be had and never
	// were: tokens must be answered with 503 there. nil: not tried.
	Outage http.Handler

	// Calls counts how often a handler of the API has run. With it each case asserts that the
	// handler did, or did not. nil: not asserted.
	Calls func() int
	// Requests replaces, by operationId, parts of the requests that are built from the document.
	Requests map[string]Request
	// Skip says why a case is not to be run, or "". nil: all are run that can be.
	Skip func(Case) string

	// Header is added to every request: what a proxy in front of the server wants, say.
	Header http.Header
	// Workers is how many cases [Check] runs at a time. Default 1. With Calls it is 1.
	Workers int

	// IgnoreResponses leaves the answers of handlers uncompared with what the document describes:
	// for handlers that stand in for those of the API.
	IgnoreResponses bool

	// Now is the server's clock. Default time.Now.
	Now func() time.Time

	// OnlyRFC6750 is for servers that are not guarded by an [authz.Gate]: status and challenge are
	// held to RFC 6750, but answers need not have problem documents (RFC 9457), Cache-Control:
	// no-store, a realm, or the scope parameter of a challenge.
	OnlyRFC6750 bool
}

// Tokens is a way to get access tokens. Each field that is set lets the kit try more. [Issued] sets
// most of them.
type Tokens struct {
	// Genuine returns a token that the server accepts and that grants exactly these scopes. It is
	// called once per case. Forgeries differ from a genuine token in one thing each. An error that
	// wraps [errors.ErrUnsupported] says that such a token cannot be had (an issuer may refuse to
	// make one with a scope that it does not know), and has the case skipped.
	Genuine func(ctx context.Context, scopes []string) (string, error)
	// Sufficient is asked in place of Genuine where a token may grant more than these scopes, which
	// is in every case but those that are about scopes that lack: many issuers give a client all
	// that it may have, whatever it asks for. nil: Genuine is asked.
	Sufficient func(ctx context.Context, scopes []string) (string, error)
	// Other is Genuine for a second principal, who owns nothing of what the first one makes.
	Other func(ctx context.Context, scopes []string) (string, error)
	// Bound is Genuine for tokens that are bound to a key (RFC 9449 §6). nil: the server does not
	// take such tokens, or it is not tried. [Issued] does not set it.
	Bound func(ctx context.Context, scopes []string, key ProofKey) (string, error)
	// Revoke has the issuer take a token back (RFC 7009), for operations with x-authz-introspect.
	Revoke func(ctx context.Context, token string) error
	// Sign signs a header and claims with the key of genuine tokens, whatever they say.
	Sign func(header, claims map[string]any) string
	// KeySet is the issuer's published JWK set (RFC 7517), for forgeries that misuse a public key.
	KeySet []byte

	// Issuer and Audience are what forgeries claim where there is no Genuine token to begin with.
	Issuer, Audience string
}

// Request is a request to an operation, without its credential. As an entry of [Target.Requests],
// what it sets replaces what was built, parameter by parameter.
type Request struct {
	Path        map[string]string // unescaped values of path parameters
	Query       url.Values
	Header      http.Header
	ContentType string // of Body
	Body        []byte // nil: as built
}

// Result is what became of a case.
type Result struct {
	Case    Case
	Skipped string // why the case was not run; "" if it was
	// what was expected and what was received, a sentence each; none: the case passed
	Faults   []string
	Status   int // of the answer; 0 if there was none
	Duration time.Duration

	// Detail and Curl are set where there are faults: the detail of the answer's problem document,
	// and a command that repeats the request, with variables for the credentials.
	Detail string
	Curl   string
}

// Passed reports whether the case was run and no fault was found.
func (r Result) Passed() bool { return r.Skipped == "" && len(r.Faults) == 0 }

// Report is what became of all cases, in their order.
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
