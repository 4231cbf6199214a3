package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
)

// Problem is a problem document (RFC 9457), the response of an API to a request that fails.
type Problem struct {
	Type     ProblemType `json:"type"`
	Title    string      `json:"title"`
	Status   int         `json:"status"`
	Detail   string      `json:"detail,omitempty"`
	Instance string      `json:"instance,omitempty"`
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("%d %s", p.Status, p.Title)
	}
	return fmt.Sprintf("%d %s: %s", p.Status, p.Title, p.Detail)
}

// ProblemType identifies a kind of problem.
type ProblemType string

const problemTypes = "https://github.com/oasgate/oasgate/blob/main/authz/PROBLEMS.md#"

// The problem types of package authz, unless the API configures others. PROBLEMS.md describes them.
const (
	MissingToken           ProblemType = problemTypes + "missing-token"
	InvalidRequest         ProblemType = problemTypes + "invalid-request"
	InvalidToken           ProblemType = problemTypes + "invalid-token"
	InsufficientScope      ProblemType = problemTypes + "insufficient-scope"
	InsufficientAuth       ProblemType = problemTypes + "insufficient-user-authentication"
	InvalidProof           ProblemType = problemTypes + "invalid-dpop-proof"
	UseNonce               ProblemType = problemTypes + "use-dpop-nonce"
	KeysUnavailable        ProblemType = problemTypes + "keys-unavailable"
	ReplaysUnavailable     ProblemType = problemTypes + "replays-unavailable"
	MissingCredential      ProblemType = problemTypes + "missing-credential"
	InvalidCredential      ProblemType = problemTypes + "invalid-credential"
	InsufficientRole       ProblemType = problemTypes + "insufficient-role"
	CrossOrigin            ProblemType = problemTypes + "cross-origin"
	Denied                 ProblemType = problemTypes + "denied"
	CredentialsUnavailable ProblemType = problemTypes + "credentials-unavailable"
	NotFound               ProblemType = problemTypes + "not-found"
	MethodNotAllowed       ProblemType = problemTypes + "method-not-allowed"
	InvalidParameter       ProblemType = problemTypes + "invalid-parameter"
	InvalidBody            ProblemType = problemTypes + "invalid-body"
	BodyTooLarge           ProblemType = problemTypes + "body-too-large"
	UnsupportedMediaType   ProblemType = problemTypes + "unsupported-media-type"
	Timeout                ProblemType = problemTypes + "timeout"
	Overloaded             ProblemType = problemTypes + "overloaded"
	RateLimited            ProblemType = problemTypes + "rate-limited"
	Unavailable            ProblemType = problemTypes + "unavailable"
	Internal               ProblemType = problemTypes + "internal"
)

// ProblemOf returns the [*Problem] of a response whose body has been read, or nil if the status is
// less than 400. A refusal without a problem document, such as that of a proxy, has the type
// about:blank (RFC 9457 §4.2.1). Generated code has both arguments as HTTPResponse and Body.
func ProblemOf(response *http.Response, body []byte) error {
	if response.StatusCode < 400 {
		return nil
	}
	p := &Problem{}
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if media != "application/problem+json" || json.Unmarshal(body, p) != nil {
		*p = Problem{Title: http.StatusText(response.StatusCode)}
	}
	if p.Type == "" {
		p.Type = "about:blank"
	}
	p.Status = response.StatusCode // what the body says is advisory (RFC 9457 §3.1.2)
	return p
}

// IsProblem reports whether an error is, or wraps, a problem of this type.
func IsProblem(err error, kind ProblemType) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && p.Type == kind
}
