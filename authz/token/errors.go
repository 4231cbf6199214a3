package token

import (
	"fmt"
	"strconv"
	"time"
)

// Code names the check that a token, or its proof, failed. Codes appear in logs and do not change.
type Code string

// The codes, in the order of the checks.
const (
	// Malformed means that the token is not a compact JWS (RFC 7515 §7.1), or its header or claims
	// are invalid.
	Malformed Code = "malformed"
	// WrongAlgorithm means that alg is missing, not allowed for the issuer, or not an algorithm of
	// the key.
	WrongAlgorithm Code = "algorithm"
	// WrongType means that typ is not that of an access token (RFC 9068 §4).
	WrongType     Code = "type"
	WrongIssuer   Code = "issuer"   // iss is not exactly that of a configured issuer
	WrongAudience Code = "audience" // aud holds none of the issuer's Audiences
	// WrongClaim means that a claim of the issuer's RequiredClaims is missing or has another value.
	WrongClaim   Code = "claim"
	Expired      Code = "expired"       // now is at or after exp
	NotYetValid  Code = "not_yet_valid" // nbf or iat is in the future
	TooLongLived Code = "lifetime"      // exp is later than MaxLifetime allows
	// Bound means that the token is bound to a key (cnf) and was presented without proof of
	// possession.
	Bound Code = "bound"
	// WrongScheme means that the token was presented with a DPoP proof, or without one, and the
	// issuer's policy does not accept that.
	WrongScheme  Code = "scheme"
	UnknownKey   Code = "unknown_key" // kid names no usable key of the issuer
	BadSignature Code = "signature"   // the signature does not verify with the key
	// KeyPending means that kid is unknown, and the keys cannot be fetched again yet. The token may
	// be genuine.
	KeyPending Code = "key_pending"
	// KeysUnavailable means that the issuer's keys could not be fetched. The token may be genuine.
	KeysUnavailable Code = "keys_unavailable"

	// Inactive means that the issuer's introspection response (RFC 7662) says that the token is not
	// active: it expired, was revoked, or is not one of the issuer's.
	Inactive Code = "inactive"
	// IntrospectionUnavailable means that introspection failed. The token may be genuine.
	IntrospectionUnavailable Code = "introspection_unavailable"

	// InvalidProof means that the DPoP proof is not one for this request and this token (RFC 9449
	// §4.3).
	InvalidProof Code = "dpop_proof"
	// NonceRequired means that the nonce of the proof is missing or too old (RFC 9449 §9).
	NonceRequired Code = "dpop_nonce"
	ProofReplayed Code = "dpop_replay" // the proof was used before (RFC 9449 §11.1)
	// ProofLimit means that the subject has sent more proofs than [ProofPolicy] allows, or than its
	// share of a [ReplayMemory].
	ProofLimit Code = "dpop_limit"
	// ReplaysUnavailable means that the [ReplayStore] failed. The proof may be good.
	ReplaysUnavailable Code = "dpop_replays_unavailable"
)

// codes lists all codes.
var codes = []Code{
	Malformed, WrongAlgorithm, WrongType, WrongIssuer, WrongAudience, WrongClaim, Expired,
	NotYetValid, TooLongLived, Bound, WrongScheme, UnknownKey, BadSignature, KeyPending,
	KeysUnavailable, Inactive, IntrospectionUnavailable, InvalidProof, NonceRequired, ProofReplayed,
	ProofLimit, ReplaysUnavailable,
}

// Error says why a token was not accepted. Its text is safe to log: of the token it holds only the
// values of registered claims and header parameters, and of claims that the configuration names,
// quoted and truncated.
type Error struct {
	Code   Code
	Detail string // what was expected and what was received
	// RetryAfter, with KeyPending, ProofLimit and the Unavailable codes, is when to retry.
	RetryAfter time.Duration
	Err        error // the cause, with the same codes; may be nil
}

func (e *Error) Error() string {
	s := "token: " + string(e.Code) + ": " + e.Detail
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

func refuse(code Code, format string, args ...any) *Error {
	if len(args) == 0 {
		return &Error{Code: code, Detail: format}
	}
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// quote escapes and truncates a received value for a log line or a message.
func quote(s string) string {
	const limit = 120
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
