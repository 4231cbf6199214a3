package authz

import (
	"fmt"
	"net/http"
	"time"
)

// Kind is the kind of an [Error], for clients. It is the last part of a problem's type URI, so it
// does not change.
type Kind string

// The kinds of refusals and failures.
const (
	// 401, RFC 6750 §3.1: the challenge has no error
	MissingToken Kind = "missing-token"
	// 400, RFC 6750 §3.1: the Authorization header is malformed
	InvalidRequest    Kind = "invalid-request"
	InvalidToken      Kind = "invalid-token"      // 401, RFC 6750 §3.1
	InsufficientScope Kind = "insufficient-scope" // 403, RFC 6750 §3.1
	// 401, RFC 9470 §3: a more recent or stronger sign-in is required
	InsufficientAuth Kind = "insufficient-user-authentication"
	InvalidProof     Kind = "invalid-dpop-proof" // 401, RFC 9449 §7.1
	UseNonce         Kind = "use-dpop-nonce"     // 401, RFC 9449 §9
	// 503: the token cannot be verified now
	KeysUnavailable Kind = "keys-unavailable"
	// 503: the proof cannot be checked for replay now
	ReplaysUnavailable Kind = "replays-unavailable"
	// 401: the operation also accepts credentials other than access tokens
	MissingCredential Kind = "missing-credential"
	// 401: the API key, password or certificate is not accepted
	InvalidCredential Kind = "invalid-credential"
	// 403: like InsufficientScope, for other credentials than access tokens
	InsufficientRole Kind = "insufficient-role"
	// 403: a cross-site request with a credential that the browser added
	CrossOrigin Kind = "cross-origin"
	// 403: nobody may call this operation
	Denied Kind = "denied"
	// 503: the credential cannot be checked now
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
	// 503: a dependency of the server is unavailable
	Unavailable Kind = "unavailable"
	Internal    Kind = "internal" // 500: any other error
	// any other status, from a handler or the router (RFC 9457 §4.2.1)
	Other Kind = "about:blank"
)

// kinds holds the status, the title and the default detail of each kind.
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
		"Sign in again, as the challenge says, and retry with the new token."},
	KeysUnavailable: {http.StatusServiceUnavailable, "Access tokens cannot be verified now",
		"The token issuer's keys could not be fetched, so the token cannot be verified. Try " +
			"again later."},
	InvalidProof: {http.StatusUnauthorized, "The DPoP proof is not valid",
		"Make a new proof for each request, with its method, its URL, the hash of its token " +
			"and the current time."},
	UseNonce: {http.StatusUnauthorized, "The DPoP proof needs a nonce",
		"Make a new proof with the nonce in the DPoP-Nonce header."},
	ReplaysUnavailable: {http.StatusServiceUnavailable, "DPoP proofs cannot be checked now",
		"The server could not check whether the proof was used before. Try again later with a " +
			"new proof."},
	MissingCredential: {http.StatusUnauthorized, "A credential is required",
		"Send one of the credentials that the challenges name."},
	InvalidCredential: {http.StatusUnauthorized, "The credential is not accepted",
		"The key, the user name and password, or the certificate is not one of this API's."},
	InsufficientRole: {http.StatusForbidden, "The credential lacks a role",
		"Use a credential with the roles that this operation requires."},
	CrossOrigin: {http.StatusForbidden, "Pages of other sites may not do this",
		"The browser adds this credential by itself, so the request must come from a page of " +
			"this API's own origin."},
	Denied: {http.StatusForbidden, "Nobody may do this",
		"This operation is closed to everybody."},
	CredentialsUnavailable: {http.StatusServiceUnavailable, "The credential cannot be checked now",
		"The server could not check the credential. Try again later."},
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

// Error says why a request was refused or failed. Its fields are sent to the client, except Err;
// Err, and so the text of Error, is for the log only. Neither holds a token.
type Error struct {
	Kind   Kind
	Detail string      // for the client; empty: the kind's own
	Errors []Violation // InvalidParameter, InvalidBody: at most 20
	// Scopes are required scopes, by the names in the document: with InsufficientScope those of the
	// alternative closest to success, with a 401 those of the alternative with the fewest. The
	// challenge has the issuer's names.
	Scopes     []string
	StepUp     *StepUp       // InsufficientAuth: the requirement
	Allow      []string      // MethodNotAllowed: the methods of the path
	RetryAfter time.Duration // of a 503 or 429
	Err        error         // the cause, for the log

	// MissingCredential, InvalidCredential: the operation, for challenges
	operation         *operation
	missing           int // how many scopes of the alternative are missing
	alternative       *compiledAlternative
	requestScopes     []string // Scopes by the issuer's names; nil: the same
	preparedChallenge string   // the challenge, made at start
	status            int      // 0: the kind's own
	rate              rate     // RateLimited: where the caller stands
	bodyRead          bool     // the request's body has been read to its end
	schema            bool     // the request violates a schema and nothing else
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

// StatusError returns an error for an HTTP status from 400 to 599. detail is for the client; if it
// is empty, the default detail is sent. err is the cause, for the log.
func StatusError(status int, detail string, err error) *Error {
	return &Error{Kind: kindOf(status), Detail: detail, Err: err, status: status}
}

func refusal(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}
