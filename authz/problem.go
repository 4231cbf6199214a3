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

// ProblemTypes is the default of [Config.ProblemTypeBase], the URL of an explanation of each kind.
const ProblemTypes = "https://github.com/oasgate/oasgate/blob/main/authz/PROBLEMS.md#"

// Problem is a problem document (RFC 9457 §3.1).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Errors are the violations of the document, parameters first, at most 20.
	Errors []Violation `json:"errors,omitempty"`
	Kind   Kind        `json:"-"` // the last part of Type
}

// WriteProblem answers a request with an error: the status, a problem document (RFC 9457), and the
// challenge (RFC 9110 §11.6.1) and other headers that go with it. For an error that is not an
// [*Error] the status is its StatusCode, if it has that method, or else 500; its text is not sent.
func (g *Gate) WriteProblem(w http.ResponseWriter, r *http.Request, err error) {
	if h, ok := w.(*checkedResponse); ok { // problems are not validated
		h.bypassed, w = true, h.ResponseWriter
	}
	e := classify(err)
	a, ok := FromContext(r.Context())
	if ok {
		a.Cause = err
		e = a.withScopes(e, g)
	}
	if e.Kind == Internal && (!ok || a.gateMade) {
		g.log(r, err)
	}
	h := w.Header()
	known := g.preparedProblems[e.Kind]
	status := cmp.Or(e.status, known.status)
	// One allocation for all header values.
	values := [...]string{"application/problem+json", "nosniff", "no-store", known.challenge}
	if len(e.Scopes) > 0 { // the challenge lists them
		values[3] = e.preparedChallenge
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
	g.dpop.setNonce(h, r)
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
	// GetBody is set once the gate's validator has read the body.
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody && r.GetBody == nil &&
		!e.bodyRead {
		// Otherwise net/http reads up to 256 KiB of the rest of the body before it answers.
		h.Set("Connection", "close")
	}
	delete(h, "Content-Length") // set by the handler for another body
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

// withScopes adds the scopes that the client should request to the refusal of a handler, as for the
// gate's own.
func (a *Admission) withScopes(e *Error, g *Gate) *Error {
	if a.gate != g || a.operation == nil || e.requestScopes != nil {
		return e
	}
	told := *e // requests may share a handler's error
	switch {
	case e.Kind == InsufficientScope:
		told.requestScopes = a.Principal.ScopesToRequest(e.Scopes)
	case e.Scopes == nil && a.operation.fewestScopes != nil:
		return a.withRequestScopes(&told)
	default:
		return e
	}
	return &told
}

// log logs a fault of the program that no server logs.
func (g *Gate) log(r *http.Request, err error) {
	g.logger.LogAttrs(r.Context(), slog.LevelError, "request failed",
		slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.String("cause", fmt.Sprint(err)))
}

// preparedProblem is the response to an error without details. It is prepared at start, so that
// refusals are cheap.
type preparedProblem struct {
	status    int
	document  []byte
	challenge string // "": none, or it depends on the request
}

func (g *Gate) prepare() {
	prepared := map[Kind]preparedProblem{}
	for kind := range kinds {
		e := &Error{Kind: kind}
		u := preparedProblem{status: e.Status(), document: g.document(e)}
		switch kind {
		case MissingToken, InvalidRequest, InvalidToken:
			if g.dpop == nil { // with DPoP there are two, whose order depends on the request
				u.challenge = g.challenges(e, nil)[0]
			}
		}
		prepared[kind] = u
	}
	g.preparedProblems = prepared
	if g.plan == nil {
		return
	}
	for _, op := range g.plan.operations {
		if op.prepareScopes(g.verifier); op.fewestScopes == nil || g.dpop != nil {
			continue
		}
		op.challenges = map[Kind]string{}
		for _, kind := range []Kind{MissingToken, InvalidToken} {
			e := &Error{Kind: kind, Scopes: op.fewestScopes, requestScopes: op.requestScopes}
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

// WriteBindingProblem answers a request whose parameters or body generated code could not read. Use
// it as the ErrorHandlerFunc and RequestErrorHandlerFunc of generated code.
func (g *Gate) WriteBindingProblem(w http.ResponseWriter, r *http.Request, err error) {
	g.WriteProblem(w, r, BindingError(err))
}

// BindingError converts an error of generated code that could not read a request to an
// [InvalidParameter] that names the parameter, or an [InvalidBody]. The text of err may hold input,
// so it is only logged.
func BindingError(err error) *Error {
	if named := bindingText.FindStringSubmatch(err.Error()); named != nil {
		detail := "The parameter " + cmp.Or(named[1:]...) + " does not match its schema."
		return &Error{Kind: InvalidParameter, Detail: detail, Err: err}
	}
	const detail = "The body does not match its schema."
	return &Error{Kind: InvalidBody, Detail: detail, Err: err}
}

// bindingText matches oapi-codegen's errors about a parameter. Its name is from the document.
var bindingText = regexp.MustCompile(`^(?:Invalid format for parameter (\S+?):|` +
	`Query argument (\S+) is required|Header parameter (\S+) is required|` +
	`Expected one value for (\S+?), got|` +
	`(?i:Error unmarshaling parameter) '?([^\s']+)'? as JSON|` +
	`(?i:Error unescaping cookie parameter) '?([^\s']+?)'?$)`)

// classify converts any error to an [*Error]. An unknown error becomes a 500.
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
		// Generated code read an optional body that was not sent.
		return &Error{Kind: InvalidBody, Detail: "The body is missing.", Err: err}
	case errors.As(err, &coded) && coded.StatusCode() >= 400 && coded.StatusCode() <= 599:
		return StatusError(coded.StatusCode(), "", err)
	}
	return &Error{Kind: Internal, Err: err}
}

// kindOf maps the status of an error, such as Echo's, to a kind.
func kindOf(status int) Kind {
	switch status {
	case http.StatusUnauthorized:
		return MissingToken // a 401 must have a challenge (RFC 9110 §15.5.2)
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

// challenges returns the WWW-Authenticate headers of an error, or nil. The first is for the scheme
// of the request's token and has the error; a 401 also has one for the other scheme, if both are
// offered (RFC 9449 §7.1).
func (g *Gate) challenges(e *Error, r *http.Request) []string {
	if e.operation != nil { // it also accepts other credentials than access tokens
		var tokens []string
		if e.operation.byToken {
			tokens = g.challenges(&Error{Kind: MissingToken, Scopes: e.Scopes,
				requestScopes: e.requestScopes}, r)
		}
		return append(tokens, e.operation.schemeChallenges...)
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

// challenge returns the parameters of the challenge for an error (RFC 6750 §3), if it has one. They
// consist of constants, the configuration, and scopes of the document, all checked at start, and
// never of input.
func (e *Error) challenge() (parameters string, ok bool) {
	switch e.Kind {
	case MissingToken: // without an error (RFC 6750 §3.1)
		return e.scopesParameter(), true
	case InsufficientAuth:
		parameters = `, error="insufficient_user_authentication"`
		if e.StepUp != nil && e.StepUp.ACRValues != nil {
			parameters += `, acr_values="` + strings.Join(e.StepUp.ACRValues, " ") + `"`
		}
		if e.StepUp != nil && e.StepUp.MaxAge != nil {
			parameters += `, max_age=` + strconv.Itoa(*e.StepUp.MaxAge)
		}
		return parameters + e.scopesParameter(), true
	case InvalidRequest:
		return `, error="invalid_request"`, true
	case InvalidToken:
		return `, error="invalid_token"` + e.scopesParameter(), true
	case InvalidProof:
		return `, error="invalid_dpop_proof"` + e.scopesParameter(), true
	case UseNonce:
		return `, error="use_dpop_nonce"` + e.scopesParameter(), true
	case InsufficientScope:
		return `, error="insufficient_scope"` + e.scopesParameter(), true
	}
	return "", false
}

// scopesParameter returns the scope parameter of a challenge (RFC 6750 §3). It drops malformed
// scopes, which only the errors of handlers may have.
func (e *Error) scopesParameter() string {
	names := e.requestScopes
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

// quotable reports whether s needs no escapes in a quoted-string (RFC 9110 §5.6.4).
func quotable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
