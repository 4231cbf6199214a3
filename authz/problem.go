package authz

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// ProblemTypes is the default of [Config.ProblemTypeBase]. It leads to an explanation of each kind.
const ProblemTypes = "https://github.com/oasgate/oasgate/blob/main/authz/PROBLEMS.md#"

// problem is a problem document (RFC 9457 §3.1).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// WriteProblem answers a request with an error: the status, a problem document (RFC 9457), and the challenge
// (RFC 9110 §11.6.1) and other headers that go with it. It is the only place where errors become answers. An error
// that is no [*Error] is told by its status if it is an Echo error, and is otherwise a 500 that says nothing of it.
func (g *Gate) WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	e := classify(err)
	h := w.Header()
	known := g.usual[e.Kind]
	status := cmp.Or(e.status, known.status)
	values := [...]string{"application/problem+json", "nosniff", "no-store", known.challenge} // once for all
	h["Content-Type"], h["X-Content-Type-Options"] = values[0:1:1], values[1:2:2]
	if values[3] != "" {
		h["Www-Authenticate"] = values[3:4:4]
	} else if challenges := g.challenges(e, r); challenges != nil {
		h["Www-Authenticate"] = challenges
	}
	g.dpop.tellNonce(h, r)
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		h["Cache-Control"] = values[2:3:3]
	}
	if e.Allow != nil {
		h.Set("Allow", strings.Join(e.Allow, ", "))
	}
	if e.RetryAfter > 0 || e.Kind != Other && status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.RetryAfter.Seconds())))))
	}
	// GetBody: the request has been through the gate, whose validator has read its body.
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody && r.GetBody == nil && !e.bodyRead {
		h.Set("Connection", "close") // or net/http reads up to 256 KiB of what is left before it answers
	}
	delete(h, "Content-Length") // a handler's, of an answer that is not to be
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if e.Detail == "" && e.status == 0 && !g.explain {
		_, _ = w.Write(known.document)
		return
	}
	_, _ = w.Write(g.problem(e))
}

// usual is the answer to an error of which there is nothing particular to say. It is made at start: to refuse shall cost
// less than to ask.
type usual struct {
	status    int
	document  []byte
	challenge string // "": none, or not the same for all requests
}

func (g *Gate) prepare() {
	prepared := map[Kind]usual{}
	for kind := range kinds {
		e := &Error{Kind: kind}
		u := usual{status: e.Status(), document: g.problem(e)}
		switch kind {
		case MissingToken, InvalidRequest, InvalidToken:
			if g.dpop == nil { // with it there are two, whose order is the request's
				u.challenge = g.challenges(e, nil)[0]
			}
		}
		prepared[kind] = u
	}
	g.usual = prepared
}

// problem returns the problem document of an error.
func (g *Gate) problem(e *Error) []byte {
	body, _ := json.Marshal(problem{g.uri(e), e.title(), e.Status(), g.detail(e)})
	return append(body, '\n')
}

// classify finds out what an error means to a client. What nobody has classified is a 500.
func classify(err error) *Error {
	if known, ok := errors.AsType[*Error](err); ok && known.Status() != 0 {
		return known
	}
	var coded interface {
		error
		StatusCode() int
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &Error{Kind: BodyTooLarge, Err: err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Kind: Timeout, RetryAfter: time.Second, Err: err}
	case errors.As(err, &coded) && coded.StatusCode() >= 400 && coded.StatusCode() <= 599:
		return StatusError(coded.StatusCode(), "", err)
	}
	return &Error{Kind: Internal, Err: err}
}

// kindOf: the kind of an error of which nothing but the status is known, as Echo's and a handler's own are.
func kindOf(status int) Kind {
	switch status {
	case http.StatusUnauthorized:
		return MissingToken // RFC 9110 §15.5.2: with a challenge
	case http.StatusNotFound:
		return NotFound
	case http.StatusMethodNotAllowed:
		return MethodNotAllowed
	case http.StatusRequestEntityTooLarge:
		return BodyTooLarge
	case http.StatusUnsupportedMediaType:
		return UnsupportedMediaType
	case http.StatusInternalServerError:
		return Internal
	}
	return Other
}

func (g *Gate) uri(e *Error) string {
	if e.Kind == Other {
		return string(Other)
	}
	return g.problemTypes + string(e.Kind)
}

func (e *Error) title() string {
	if e.Kind == Other {
		return cmp.Or(http.StatusText(e.Status()), "An error without a name")
	}
	return kinds[e.Kind].title
}

func (g *Gate) detail(e *Error) string {
	detail := e.Detail
	if detail == "" {
		detail = kinds[e.Kind].detail
	}
	var cause *token.Error
	if g.explain && errors.As(e.Err, &cause) {
		detail += " Why: " + cause.Detail
		if cause.Err != nil {
			detail += ": " + cause.Err.Error()
		}
	}
	return detail
}

// challenges returns the WWW-Authenticate headers of an error, or nil. That of the scheme by which the request presents
// its token comes first, and says what is wrong; with a 401 the other scheme follows, where both are offered (RFC 9449
// §7.1).
func (g *Gate) challenges(e *Error, r *http.Request) []string {
	if e.operation != nil { // it takes not only access tokens, if any
		var tokens []string
		if e.operation.byToken {
			tokens = g.challenges(&Error{Kind: MissingToken}, r)
		}
		return append(tokens, e.operation.offers...)
	}
	parameters, ok := e.challenge()
	if !ok {
		return nil
	}
	metadata := ""
	if g.metadata != nil && e.Status() == http.StatusUnauthorized {
		metadata = `, resource_metadata="` + g.metadata.url + `"` // RFC 9728 §5.1
	}
	if g.dpop == nil {
		return []string{schemeBearer + ` realm="` + g.realm + `"` + metadata + parameters}
	}
	bearer := schemeBearer + ` realm="` + g.realm + `"` + metadata
	dpop := schemeDPoP + ` realm="` + g.realm + `", algs="` + strings.Join(g.dpop.offer.Algorithms, " ") + `"` + metadata
	switch both := e.Status() == http.StatusUnauthorized; {
	case g.dpop.offer.Required:
		return []string{dpop + parameters}
	case g.dpop.used(r) && both:
		return []string{dpop + parameters, bearer}
	case g.dpop.used(r):
		return []string{dpop + parameters}
	case both:
		return []string{bearer + parameters, dpop}
	}
	return []string{bearer + parameters}
}

// challenge returns what a challenge says of an error (RFC 6750 §3), if there is to be one. The parts of challenges
// are constants, the realm and URLs of the configuration and scopes of the document, all checked at start: nothing that
// a client sent can get into them.
func (e *Error) challenge() (parameters string, ok bool) {
	switch e.Kind {
	case MissingToken: // no error: the client may not have known (RFC 6750 §3.1)
		return "", true
	case InsufficientAuth:
		parameters = `, error="insufficient_user_authentication"`
		if e.StepUp != nil && e.StepUp.ACRValues != nil {
			parameters += `, acr_values="` + strings.Join(e.StepUp.ACRValues, " ") + `"`
		}
		if e.StepUp != nil && e.StepUp.MaxAge != nil {
			parameters += `, max_age=` + strconv.Itoa(*e.StepUp.MaxAge)
		}
		return parameters, true
	case InvalidRequest:
		return `, error="invalid_request"`, true
	case InvalidToken:
		return `, error="invalid_token"`, true
	case InvalidProof:
		return `, error="invalid_dpop_proof"`, true
	case UseNonce:
		return `, error="use_dpop_nonce"`, true
	case InsufficientScope:
		parameters = `, error="insufficient_scope"`
		// Those of the gate are checked. A handler may refuse as well, with any.
		if scopes := slices.DeleteFunc(slices.Clone(e.Scopes), func(s string) bool { return checkScope(s) != nil }); len(scopes) > 0 {
			parameters += `, scope="` + strings.Join(scopes, " ") + `"`
		}
		return parameters, true
	}
	return "", false
}

// quotable reports whether s can stand in a quoted-string (RFC 9110 §5.6.4) as it is.
func quotable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
