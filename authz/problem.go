package authz

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// ProblemTypes is the default of [Config.ProblemTypeBase]. It leads to an explanation of each kind.
const ProblemTypes = "https://github.com/oasgate/oasgate/blob/main/authz/PROBLEMS.md#"

// Problem is a problem document (RFC 9457 §3.1). It holds what a client may know, and nothing else.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Errors are the parts of the request that are not valid, parameters first, at most 20.
	Errors []Violation `json:"errors,omitempty"`
	Kind   Kind        `json:"-"` // the last part of Type
}

// WriteProblem answers a request with an error: the status, a problem document (RFC 9457), and the
// challenge (RFC 9110 §11.6.1) and other headers that go with it. It is the only place where errors
// become answers. An error that is no [*Error] is told by its StatusCode if it has one, and is
// otherwise a 500 that says nothing of it.
func (g *Gate) WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	if h, ok := w.(*held); ok { // a problem is not the handler's answer
		h.passed, w = true, h.ResponseWriter
	}
	e := classify(err)
	a, ok := FromContext(r.Context())
	if ok {
		a.Cause = err
		e = a.withScopes(e, g)
	}
	if e.Kind == Internal && (!ok || a.own) {
		g.log(r, err)
	}
	h := w.Header()
	known := g.usual[e.Kind]
	status := cmp.Or(e.status, known.status)
	// once for all
	values := [...]string{"application/problem+json", "nosniff", "no-store", known.challenge}
	// which the challenge lists
	if len(e.Scopes) > 0 {
		values[3] = e.prepared
	}
	var body []byte
	if g.renderError != nil {
		values[0], body = g.renderError(r, g.problem(e))
	}
	h["Content-Type"], h["X-Content-Type-Options"] = values[0:1:1], values[1:2:2]
	if values[3] != "" {
		h["Www-Authenticate"] = values[3:4:4]
	} else if challenges := g.challenges(e, r); challenges != nil {
		h["Www-Authenticate"] = challenges
	}
	g.dpop.tellNonce(h, r)
	if e.rate.setHeaders(h); ok {
		a.rate.setHeaders(h)
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		h["Cache-Control"] = values[2:3:3]
	}
	if e.Allow != nil {
		h.Set("Allow", strings.Join(e.Allow, ", "))
	}
	if e.RetryAfter > 0 || e.Kind != Other && status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(seconds(e.RetryAfter)))
	}
	// GetBody: the request has been through the gate, whose validator has read its body.
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody && r.GetBody == nil &&
		!e.bodyRead {
		// or net/http reads up to 256 KiB of what is left before it answers
		h.Set("Connection", "close")
	}
	delete(h, "Content-Length") // a handler's, of an answer that is not to be
	w.WriteHeader(status)
	switch {
	case r.Method == http.MethodHead:
		return
	case g.renderError != nil:
	case e.Detail == "" && e.status == 0 && !g.explain:
		body = known.document
	default:
		body = g.document(e)
	}
	_, _ = w.Write(body)
}

// seconds returns a duration in whole seconds, at least 1.
func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

// withScopes has the refusal of a handler say with which scopes to come back, as the gate's own
// does.
func (a *Admission) withScopes(e *Error, g *Gate) *Error {
	if a.gate != g || a.operation == nil || e.asked != nil {
		return e
	}
	told := *e // it may be a handler's for all requests
	switch {
	case e.Kind == InsufficientScope:
		told.asked = a.Principal.ScopesToRequest(e.Scopes)
	case e.Scopes == nil && a.operation.wanted != nil:
		return a.tell(&told)
	default:
		return e
	}
	return &told
}

// log tells of a fault of the program where no server does.
func (g *Gate) log(r *http.Request, err error) {
	g.logger.LogAttrs(r.Context(), slog.LevelError, "request failed",
		slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("cause", fmt.Sprint(err)))
}

// usual is the answer to an error of which there is nothing particular to say. It is made at start:
// to refuse shall cost less than to ask.
type usual struct {
	status    int
	document  []byte
	challenge string // "": none, or not the same for all requests
}

func (g *Gate) prepare() {
	prepared := map[Kind]usual{}
	for kind := range kinds {
		e := &Error{Kind: kind}
		u := usual{status: e.Status(), document: g.document(e)}
		switch kind {
		case MissingToken, InvalidRequest, InvalidToken:
			if g.dpop == nil { // with it there are two, whose order is the request's
				u.challenge = g.challenges(e, nil)[0]
			}
		}
		prepared[kind] = u
	}
	g.usual = prepared
	if g.plan == nil {
		return
	}
	for _, op := range g.plan.operations {
		if op.settle(g.verifier); op.wanted == nil || g.dpop != nil {
			continue
		}
		op.challenges = map[Kind]string{}
		for _, kind := range []Kind{MissingToken, InvalidToken} {
			e := &Error{Kind: kind, Scopes: op.wanted, asked: op.asked}
			op.challenges[kind] = g.challenges(e, nil)[0]
		}
	}
}

func (g *Gate) problem(e *Error) Problem {
	return Problem{Type: g.uri(e), Title: e.title(), Status: e.Status(), Detail: g.detail(e),
		Errors: e.Errors, Kind: e.Kind}
}

// document returns the problem document of an error as JSON.
func (g *Gate) document(e *Error) []byte {
	body, _ := json.Marshal(g.problem(e))
	return append(body, '\n')
}

// WriteBindingProblem answers a request whose parameters or body generated code could not read. It
// is what generated code calls ErrorHandlerFunc and RequestErrorHandlerFunc.
func (g *Gate) WriteBindingProblem(w http.ResponseWriter, r *http.Request, err error) {
	g.WriteProblem(w, r, BindingError(err))
}

// BindingError returns an error of generated code that could not read a request: [InvalidParameter]
// and which one, or [InvalidBody]. The text of err, which may hold what was submitted, is for the
// log.
func BindingError(err error) *Error {
	if named := bindingText.FindStringSubmatch(err.Error()); named != nil {
		detail := "The parameter " + cmp.Or(named[1:]...) + " cannot be read as its schema says."
		return &Error{Kind: InvalidParameter, Detail: detail, Err: err}
	}
	const detail = "The body cannot be read as its schema says."
	return &Error{Kind: InvalidBody, Detail: detail, Err: err}
}

// bindingText is how oapi-codegen tells of a parameter. Its name is the document's.
var bindingText = regexp.MustCompile(`^(?:Invalid format for parameter (\S+?):|` +
	`Query argument (\S+) is required|Header parameter (\S+) is required|` +
	`Expected one value for (\S+?), got|` +
	`(?i:Error unmarshaling parameter) '?([^\s']+)'? as JSON|` +
	`(?i:Error unescaping cookie parameter) '?([^\s']+?)'?$)`)

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
	case errors.Is(err, http.ErrNotMultipart):
		// generated code reads an optional body that was not sent
		return &Error{Kind: InvalidBody, Detail: "The body is missing.", Err: err}
	case errors.As(err, &coded) && coded.StatusCode() >= 400 && coded.StatusCode() <= 599:
		return StatusError(coded.StatusCode(), "", err)
	}
	return &Error{Kind: Internal, Err: err}
}

// kindOf: the kind of an error of which nothing but the status is known, as Echo's and a handler's
// own are.
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

// challenges returns the WWW-Authenticate headers of an error, or nil. That of the scheme by which
// the request presents its token comes first, and says what is wrong; with a 401 the other scheme
// follows, where both are offered (RFC 9449 §7.1).
func (g *Gate) challenges(e *Error, r *http.Request) []string {
	if e.operation != nil { // it takes not only access tokens, if any
		var tokens []string
		if e.operation.byToken {
			tokens = g.challenges(&Error{Kind: MissingToken, Scopes: e.Scopes, asked: e.asked}, r)
		}
		return append(tokens, e.operation.offers...)
	}
	parameters, ok := e.challenge()
	if !ok {
		return nil
	}
	metadata := ""
	if g.metadata != nil && (e.Status() == http.StatusUnauthorized || e.Kind == InsufficientScope) {
		metadata = `, resource_metadata="` + g.metadata.url + `"` // RFC 9728 §5.1
	}
	if g.dpop == nil {
		return []string{schemeBearer + ` realm="` + g.realm + `"` + metadata + parameters}
	}
	bearer := schemeBearer + ` realm="` + g.realm + `"` + metadata
	dpop := schemeDPoP + ` realm="` + g.realm + `", algs="` + strings.Join(g.dpop.offer.Algorithms,
		" ") + `"` + metadata
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

// challenge returns what a challenge says of an error (RFC 6750 §3), if there is to be one. The
// parts of challenges are constants, the realm and URLs of the configuration and scopes of the
// document, all checked at start: nothing that a client sent can get into them.
func (e *Error) challenge() (parameters string, ok bool) {
	switch e.Kind {
	case MissingToken: // no error: the client may not have known (RFC 6750 §3.1)
		return e.scopes(), true
	case InsufficientAuth:
		parameters = `, error="insufficient_user_authentication"`
		if e.StepUp != nil && e.StepUp.ACRValues != nil {
			parameters += `, acr_values="` + strings.Join(e.StepUp.ACRValues, " ") + `"`
		}
		if e.StepUp != nil && e.StepUp.MaxAge != nil {
			parameters += `, max_age=` + strconv.Itoa(*e.StepUp.MaxAge)
		}
		return parameters + e.scopes(), true
	case InvalidRequest:
		return `, error="invalid_request"`, true
	case InvalidToken:
		return `, error="invalid_token"` + e.scopes(), true
	case InvalidProof:
		return `, error="invalid_dpop_proof"` + e.scopes(), true
	case UseNonce:
		return `, error="use_dpop_nonce"` + e.scopes(), true
	case InsufficientScope:
		return `, error="insufficient_scope"` + e.scopes(), true
	}
	return "", false
}

// scopes is the parameter of a challenge that lists the scopes (RFC 6750 §3). Those of the gate are
// checked. A handler may refuse as well, with any.
func (e *Error) scopes() string {
	names := e.asked
	if names == nil {
		names = e.Scopes
	}
	scopes := slices.DeleteFunc(slices.Clone(names), func(s string) bool {
		return checkScope(s) != nil
	})
	if len(scopes) == 0 {
		return ""
	}
	return `, scope="` + strings.Join(scopes, " ") + `"`
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
