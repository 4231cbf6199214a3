package token

import (
	"fmt"
	"strconv"
	"time"
)

// Code names the check that a token, or the proof that came with it, failed. The names are stable:
// they appear in logs.
type Code string

// The checks, in the order in which they are made.
const (
	// not a compact JWS (RFC 7515 §7.1), or its header or claims break their rules
	Malformed Code = "malformed"
	// alg is missing, not allowed for the issuer, or not that of the key
	WrongAlgorithm Code = "algorithm"
	// typ says that this is not an access token (RFC 9068 §4)
	WrongType     Code = "type"
	WrongIssuer   Code = "issuer"   // iss is not exactly that of a configured issuer
	WrongAudience Code = "audience" // aud holds none of ours
	// a claim that the issuer's configuration requires is missing, or another
	WrongClaim   Code = "claim"
	Expired      Code = "expired"       // now is at or after exp
	NotYetValid  Code = "not_yet_valid" // nbf or iat lies in the future
	TooLongLived Code = "lifetime"      // exp lies further ahead than any token may live
	// bound to a key (cnf) and presented without a proof of it
	Bound Code = "bound"
	// presented with a DPoP proof or without one, where that is not accepted
	WrongScheme  Code = "scheme"
	UnknownKey   Code = "unknown_key" // kid names no usable key of the issuer
	BadSignature Code = "signature"   // the signature is not that of the key
	// kid is new, and the keys cannot be fetched again yet: nothing can be said of the token
	KeyPending Code = "key_pending"
	// the issuer's keys could not be had: nothing can be said of the token
	KeysUnavailable Code = "keys_unavailable"

	// Of what the issuer was asked about the token (RFC 7662).

	// not active: expired, revoked, or not one of the issuer's
	Inactive Code = "inactive"
	// the issuer could not be asked: nothing can be said of the token
	IntrospectionUnavailable Code = "introspection_unavailable"

	// Of the proof that came with the token.
	// not a DPoP proof of this request and this token (RFC 9449 §4.3)
	InvalidProof Code = "dpop_proof"
	// its nonce is missing or too old (RFC 9449 §9)
	NonceRequired Code = "dpop_nonce"
	ProofReplayed Code = "dpop_replay" // it was used before (RFC 9449 §11.1)
	// whether it was used before could not be found out
	ReplaysUnavailable Code = "dpop_replays_unavailable"
)

// codes are all of them.
var codes = []Code{
	Malformed, WrongAlgorithm, WrongType, WrongIssuer, WrongAudience, WrongClaim, Expired,
	NotYetValid, TooLongLived, Bound, WrongScheme, UnknownKey, BadSignature, KeyPending,
	KeysUnavailable, Inactive, IntrospectionUnavailable, InvalidProof, NonceRequired, ProofReplayed,
	ReplaysUnavailable,
}

// Error says why a token was not accepted. Its text is safe to log: it never holds the token or a
// part of it other than the values of registered claims and header parameters, and of claims that
// the configuration names, quoted and cut short.
type Error struct {
	Code   Code
	Detail string // what was expected, what was received
	// with KeyPending and the codes of what is unavailable: when to ask again
	RetryAfter time.Duration
	Err        error // with these: why, if there is more to say
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

// quote makes a value that somebody sent fit for a log line and for a message: escaped, and cut
// short.
func quote(s string) string {
	const most = 120
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
