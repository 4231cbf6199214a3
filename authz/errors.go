package authz

import (
	"fmt"
	"net/http"
	"time"
)

// Kind names what went wrong, for clients. It is the last part of a problem's type URI, so it does
// not change.
type Kind string

// The kinds of refusals and failures.
const (
	// 401, RFC 6750 §3.1: a challenge without an error
	MissingToken Kind = "missing-token"
	// 400, RFC 6750 §3.1: the credential is presented wrongly
	InvalidRequest    Kind = "invalid-request"
	InvalidToken      Kind = "invalid-token"      // 401, RFC 6750 §3.1
	InsufficientScope Kind = "insufficient-scope" // 403, RFC 6750 §3.1
	// 401, RFC 9470 §3: sign in anew, or more strongly
	InsufficientAuth Kind = "insufficient-user-authentication"
	InvalidProof     Kind = "invalid-dpop-proof" // 401, RFC 9449 §7.1
	UseNonce         Kind = "use-dpop-nonce"     // 401, RFC 9449 §9
	// 503: nothing can be said of the token
	KeysUnavailable Kind = "keys-unavailable"
	// 503: whether the proof was used before cannot be said
	ReplaysUnavailable Kind = "replays-unavailable"
	// 401: of an operation that takes not only access tokens
	MissingCredential Kind = "missing-credential"
	// 401: a key, a password or a certificate
	InvalidCredential Kind = "invalid-credential"
	// 403: of a principal that is not an access token's
	InsufficientRole Kind = "insufficient-role"
	// 403: by a page of another site, with the browser's credential
	CrossOrigin Kind = "cross-origin"
	// 403: nobody may call this operation
	Denied Kind = "denied"
	// 503: nothing can be said of the credential
	CredentialsUnavailable Kind = "credentials-unavailable"
	NotFound               Kind = "not-found"              // 404
	MethodNotAllowed       Kind = "method-not-allowed"     // 405
	InvalidParameter       Kind = "invalid-parameter"      // 400
	InvalidBody            Kind = "invalid-body"           // 400
	BodyTooLarge           Kind = "body-too-large"         // 413
	UnsupportedMediaType   Kind = "unsupported-media-type" // 415
	Timeout                Kind = "timeout"                // 503
	Overloaded             Kind = "overloaded"             // 503: the server has too many requests
	RateLimited            Kind = "rate-limited"           // 429: the caller has sent too many
	// 503: what the server itself depends on cannot be reached
	Unavailable Kind = "unavailable"
	Internal    Kind = "internal" // 500: what nobody classified
	// another status, by a handler or by the router (RFC 9457 §4.2.1)
	Other Kind = "about:blank"
)

// kinds gives each kind its status and title, and what is said where nothing more particular is.
var kinds = map[Kind]struct {
	status int
	title  string
	detail string
}{
	MissingToken: {http.StatusUnauthorized, "An access token is required",
		"Send an access token of this API in the Authorization header: " +
			"Bearer, a space, the token."},
	InvalidRequest: {http.StatusBadRequest, "The access token is presented wrongly",
		"Send one Authorization header that holds Bearer, a space and one token, and no token " +
			"elsewhere."},
	InvalidToken: {http.StatusUnauthorized, "The access token is not valid",
		"The access token is malformed, expired, or not for this API. Get a new one."},
	InsufficientScope: {http.StatusForbidden, "The access token lacks a scope",
		"Get a token with the scopes that the challenge lists."},
	InsufficientAuth: {http.StatusUnauthorized,
		"A stronger or more recent sign-in is required",
		"Sign in again, as the challenge says, and come back with the token that you get."},
	KeysUnavailable: {http.StatusServiceUnavailable, "Access tokens cannot be verified now",
		"The token issuer's keys could not be had, so nothing can be said of the token. Try " +
			"again later."},
	InvalidProof: {http.StatusUnauthorized, "The DPoP proof is not valid",
		"Make a proof for each request: of its method and URL, of the token that goes with it, " +
			"and of now."},
	UseNonce: {http.StatusUnauthorized, "The DPoP proof needs a nonce",
		"Make a new proof, with the nonce that the DPoP-Nonce header holds."},
	ReplaysUnavailable: {http.StatusServiceUnavailable, "DPoP proofs cannot be checked now",
		"Whether the proof was used before could not be found out. Try again later, with a new " +
			"proof."},
	MissingCredential: {http.StatusUnauthorized, "A credential is required",
		"Send one of the credentials that the challenges name."},
	InvalidCredential: {http.StatusUnauthorized, "The credential is not accepted",
		"The key, the user name and password, or the certificate is not one of this API's."},
	InsufficientRole: {http.StatusForbidden, "The credential lacks a role",
		"Use a credential with the roles that this operation needs."},
	CrossOrigin: {http.StatusForbidden, "Pages of other sites may not do this",
		"The browser adds this credential by itself, so the request must come from a page of " +
			"this API's own origin."},
	Denied: {http.StatusForbidden, "Nobody may do this",
		"This operation is closed to everybody."},
	CredentialsUnavailable: {http.StatusServiceUnavailable, "The credential cannot be checked now",
		"Nothing can be said of the credential. Try again later."},
	NotFound: {http.StatusNotFound, "There is no such resource",
		"This API has nothing at this path."},
	MethodNotAllowed: {http.StatusMethodNotAllowed, "The method is not allowed here",
		"The Allow header lists the methods of this path."},
	InvalidParameter: {http.StatusBadRequest, "A parameter is not valid",
		"Send the parameters that the API's document describes."},
	InvalidBody: {http.StatusBadRequest, "The body is not valid",
		"Send a body that the API's document describes."},
	BodyTooLarge: {http.StatusRequestEntityTooLarge, "The body is too large",
		"Send a smaller body."},
	UnsupportedMediaType: {http.StatusUnsupportedMediaType, "The body's format is not supported",
		"Send a body with a Content-Type that the API's document describes, and no " +
			"Content-Encoding."},
	Timeout: {http.StatusServiceUnavailable, "The request took too long",
		"The server gave up on this request. Try again later."},
	Overloaded: {http.StatusServiceUnavailable, "The server has too many requests",
		"The server has not handled this request, because it has too many. Try again later."},
	RateLimited: {http.StatusTooManyRequests, "Too many requests",
		"The RateLimit-Policy header says how many are allowed. Try again later."},
	Unavailable: {http.StatusServiceUnavailable, "The service is not available now",
		"The server cannot reach what it depends on. Try again later."},
	Internal: {http.StatusInternalServerError, "Something went wrong here",
		"The fault is the server's and has been logged."},
	Other: {0, "", "The status says all there is to say."},
}

// Error is a request refused, or failed. Its fields are what the client is told; Err, and so the
// text of Error, is for the log alone. Neither ever holds a token.
type Error struct {
	Kind   Kind
	Detail string      // for the client; empty: the kind's own
	Errors []Violation // InvalidParameter, InvalidBody: what is wrong, at most 20
	// Scopes are those of the alternative that is nearest, with InsufficientScope, or of the one
	// with the fewest, with a 401, by the names of the document. A challenge has the issuer's
	// names.
	Scopes     []string
	StepUp     *StepUp       // InsufficientAuth: what is asked
	Allow      []string      // MethodNotAllowed: the methods of the path
	RetryAfter time.Duration // of a 503
	Err        error         // the cause, for the log

	operation *operation // MissingCredential, InvalidCredential: what the challenges are about
	missing   int        // scopes: how many of those of the way
	way       *way
	asked     []string // Scopes, by the names that the issuer has for them; nil: the same
	prepared  string   // the challenge, made at start
	status    int      // 0: the kind's own
	rate      rate     // RateLimited: where the caller stands
	bodyRead  bool     // the request's body has been read to its end
	schema    bool     // a schema of the document is broken, and nothing else
}

// Status returns the HTTP status of the answer.
func (e *Error) Status() int {
	if e.status != 0 {
		return e.status
	}
	return kinds[e.Kind].status
}

func (e *Error) Error() string {
	s := "authz: " + string(e.Kind)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// StatusError returns an error of which nothing but the HTTP status is known, from 400 to 599.
// detail is for the client; if it is empty, the kind's own detail is sent. err is the cause, for
// the log.
func StatusError(status int, detail string, err error) *Error {
	return &Error{Kind: kindOf(status), Detail: detail, Err: err, status: status}
}

func refusal(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}
