package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz/token"
)

// Verifier says whether an access token is genuine. [*token.Verifier] does. A refusal must be, or wrap, a
// [*token.Error]; any other error, and a nil principal without one, is taken for a fault of the server. One that is a
// [DPoPVerifier] as well decides whether DPoP is offered; one that wraps it must pass that on.
type Verifier interface {
	Verify(ctx context.Context, token string) (*token.Principal, error)
}

// Config is what a [Gate] is made of. Document and Verifier have no default.
type Config struct {
	Document *openapi3.T
	Verifier Verifier
	// Realm stands in challenges (RFC 9110 §11.5). Default: the document's title if it is plain ASCII, else "api".
	Realm string
	// BasePath is where the document's paths begin on this server: "", or as "/v1".
	BasePath string
	// MaxBodyBytes bounds the body of a request. Default 1 MiB.
	MaxBodyBytes int64
	// Resource is this API's own identifier (RFC 9728 §1.2): the URL, without query and fragment, under which
	// clients reach it, and at which the document's paths begin. It may leave BasePath out. Unset, no protected
	// resource metadata is told, and DPoP is not possible, for a proof names a URL.
	Resource string
	// AuthorizationServers are the issuers that the metadata names.
	AuthorizationServers []string
	Now                  func() time.Time // default time.Now
	// InsecureExplain tells clients exactly why a token was refused. For development only.
	InsecureExplain bool
}

// Gate decides every request by the document. It is safe for concurrent use.
type Gate struct {
	plan     *Plan
	verifier Verifier
	realm    string
	basePath string
	maxBody  int64
	explain  bool
	now      func() time.Time
	metadata *metadata // nil without Resource
	dpop     *dpop     // nil where DPoP is not offered
	usual    map[Kind]usual
}

// New compiles the document and returns every fault of it and of the rest of the configuration, joined.
func New(config Config) (*Gate, error) {
	g := &Gate{verifier: config.Verifier, realm: config.Realm, basePath: config.BasePath, maxBody: config.MaxBodyBytes, explain: config.InsecureExplain, now: config.Now}
	if g.maxBody == 0 {
		g.maxBody = 1 << 20
	}
	if g.now == nil {
		g.now = time.Now
	}
	var faults []error
	if g.verifier == nil {
		faults = append(faults, errors.New("authz: Config.Verifier is nil: nothing could be let in"))
	}
	if g.maxBody < 0 {
		faults = append(faults, fmt.Errorf("authz: Config.MaxBodyBytes is %d: expected a positive number", g.maxBody))
	}
	if g.basePath != "" && (g.basePath[0] != '/' || strings.HasSuffix(g.basePath, "/")) {
		faults = append(faults, fmt.Errorf("authz: Config.BasePath is %q: expected nothing, or a path such as /v1 without a slash at its end", g.basePath))
	}
	if !quotable(g.realm) {
		faults = append(faults, fmt.Errorf("authz: Config.Realm is %q: expected printable ASCII without quotes and backslashes", g.realm))
	}
	if config.Document == nil {
		return nil, errors.Join(append(faults, errors.New("authz: Config.Document is nil: there is no policy"))...)
	}
	if info := config.Document.Info; g.realm == "" && info != nil && quotable(info.Title) {
		g.realm = info.Title
	}
	if g.realm == "" {
		g.realm = "api"
	}
	plan, err := Compile(config.Document)
	if err != nil {
		faults = append(faults, err)
	}
	if g.dpop, err = newDPoP(config); err != nil {
		faults = append(faults, err)
	}
	if g.metadata, err = newMetadata(config, plan, g.dpop); err != nil {
		faults = append(faults, err)
	}
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	g.plan = plan
	g.prepare()
	return g, nil
}

// Plan returns the compiled document.
func (g *Gate) Plan() *Plan { return g.plan }

// check is the way of a request. It returns the request as the handler shall see it.
func (g *Gate) check(r *http.Request, at *path, param func(string) string) (*http.Request, error) {
	op, err := at.match(r)
	if err != nil {
		return nil, err
	}
	found, ofServer := FromContext(r.Context()) // a server wants to know of those who are refused, too
	if ofServer = ofServer && found.taken.CompareAndSwap(false, true); ofServer {
		found.Operation = &op.Operation
	}
	principal, err := g.admit(r, op)
	if ofServer {
		found.Principal = principal
	}
	if err != nil {
		return nil, err
	}
	if !ofServer {
		found = newAdmission(r.Context())
		found.Operation, found.Principal = &op.Operation, principal
		r = r.WithContext(found)
	}
	if r, err = g.validate(r, op, param); err != nil {
		return nil, err
	}
	found.admitted = true
	if p, _ := token.FromContext(r.Context()); p != found.Principal { // somebody between the server and here has put in another
		own := newAdmission(r.Context())
		own.Operation, own.Principal, own.admitted = found.Operation, found.Principal, true
		r = r.WithContext(own)
	}
	return r, nil
}

// admit authenticates and authorizes: it has the validator ask, for one alternative after another, whether the
// request satisfies it. The principal is nil where nobody was asked who they are; with an error, it is who was refused.
func (g *Gate) admit(r *http.Request, op *operation) (*token.Principal, error) {
	if op.Public() {
		return nil, nil
	}
	c := &caller{Context: r.Context(), gate: g, request: r}
	c.input = openapi3filter.RequestValidationInput{Request: bodiless(r), Route: op.route, Options: &asking}
	err := openapi3filter.ValidateSecurityRequirements(c, &c.input, op.security)

	switch {
	case c.err == errNoCredential:
		if err == nil {
			return nil, nil // a token is optional here
		}
		return nil, &Error{Kind: MissingToken}
	case c.err != nil:
		return nil, c.err // also where a token is optional: a bad one is not none
	case c.principal == nil:
		return nil, &Error{Kind: Internal, Err: fmt.Errorf("the validator did not ask who calls: %w", err)}
	case err == nil && !op.StepUp.Met(c.principal, g.now()):
		return c.principal, &Error{Kind: InsufficientAuth, StepUp: op.StepUp}
	case err == nil:
		return c.principal, nil
	case !onlyScopes(err):
		return c.principal, &Error{Kind: Internal, Err: err}
	}
	scopes := op.nearest(c.principal)
	return c.principal, &Error{Kind: InsufficientScope, Scopes: scopes, Detail: "This operation needs the scopes: " + strings.Join(scopes, " ") + "."}
}

// bodiless returns a request without the body: the validator would read all of it before it asks for the token.
func bodiless(r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	r = r.WithContext(r.Context())
	r.Body = http.NoBody
	return r
}

// caller is whoever sent a request: authenticated once, however many alternatives ask. It is the context of the
// questions, which are found to be about it by that.
type caller struct {
	context.Context
	gate      *Gate
	request   *http.Request
	input     openapi3filter.RequestValidationInput
	asked     bool
	principal *token.Principal // nil unless err is
	err       error
}

type callerKey struct{}

func (c *caller) Value(key any) any {
	if key == (callerKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// asking are the validator's options, which it only reads.
var asking = openapi3filter.Options{AuthenticationFunc: func(ctx context.Context, required *openapi3filter.AuthenticationInput) error {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		return errors.New("the validator asks in another context than it was given")
	}
	return c.satisfies(required.Scopes)
}}

var errScopes = errors.New("the token lacks a scope")

// satisfies answers the validator. Signature and claims come strictly before scopes.
func (c *caller) satisfies(scopes []string) error {
	if !c.asked {
		c.asked = true
		c.principal, c.err = c.gate.authenticate(c.request)
	}
	if c.err != nil {
		return c.err
	}
	for _, scope := range scopes {
		if !c.principal.HasScope(scope) {
			return errScopes
		}
	}
	return nil
}

// onlyScopes reports whether nothing but scopes kept the validator from being satisfied.
func onlyScopes(err error) bool {
	var unmet *openapi3filter.SecurityRequirementsError
	return errors.As(err, &unmet) && !slices.ContainsFunc(unmet.Errors, func(e error) bool { return e != errScopes })
}

// authenticate reads the credential of a request and verifies it.
func (g *Gate) authenticate(r *http.Request) (*token.Principal, error) {
	scheme, raw, err := credential(r, g.dpop != nil)
	if err != nil {
		return nil, err
	}
	var principal *token.Principal
	if scheme == schemeDPoP {
		var proof token.Proof
		if proof, err = g.dpop.proof(r); err != nil {
			return nil, err
		}
		principal, err = g.dpop.verifier.VerifyDPoP(r.Context(), raw, proof)
	} else {
		principal, err = g.verifier.Verify(r.Context(), raw)
	}
	if err == nil && principal != nil {
		return principal, nil
	}
	if refused, ok := errors.AsType[*token.Error](err); ok {
		return nil, &Error{Kind: kindOfToken(refused.Code), RetryAfter: refused.RetryAfter, Err: err}
	}
	return nil, &Error{Kind: Internal, Err: fmt.Errorf("the verifier returned neither a principal nor a token.Error: %w", err)}
}

// kindOfToken: what a client is told of a check that its token, or the proof that came with it, failed.
func kindOfToken(code token.Code) Kind {
	switch code {
	case token.KeysUnavailable:
		return KeysUnavailable
	case token.InvalidProof, token.ProofReplayed:
		return InvalidProof
	case token.NonceRequired:
		return UseNonce
	case token.ReplaysUnavailable:
		return ReplaysUnavailable
	}
	return InvalidToken
}

// Met reports whether the principal has signed in as is asked. A token that does not say how or when does not do. A nil
// StepUp asks nothing.
func (s *StepUp) Met(p *token.Principal, now time.Time) bool {
	if s == nil {
		return true
	}
	if s.ACRValues != nil {
		acr, err := token.Claim[string](p, "/acr")
		if err != nil || !slices.Contains(s.ACRValues, acr) {
			return false
		}
	}
	if s.MaxAge != nil {
		at, err := token.Claim[float64](p, "/auth_time")
		const skew = 60 // seconds: a sign-in that lies further in the future is none
		elapsed := float64(now.Unix()) - at
		if err != nil || elapsed > float64(*s.MaxAge) || elapsed < -skew {
			return false
		}
	}
	return true
}

// nearest returns the scopes of the alternative that asks for the fewest scopes the principal lacks; of several,
// the one that asks for the fewest.
func (o *operation) nearest(p *token.Principal) []string {
	var best []string
	fewest := -1
	for _, a := range o.Alternatives {
		scopes, missing := a.scopes(), 0
		for _, s := range scopes {
			if !p.HasScope(s) {
				missing++
			}
		}
		if fewest < 0 || missing < fewest || missing == fewest && len(scopes) < len(best) {
			best, fewest = scopes, missing
		}
	}
	return best
}

// Check decides one request. template is the path of the document that a router has matched, such as
// /messages/{id}, and param returns the unescaped value of one of its parameters; it may be nil where the template
// has none. On success it returns the request for the handler: with the principal in its context, its body already
// read and validated. Otherwise it returns an [*Error], which [Gate.WriteProblem] tells the client of. Where DPoP nonces are
// asked for, clients learn of new ones from these refusals alone, whereas [Gate.Middleware] tells them in every answer.
func (g *Gate) Check(r *http.Request, template string, param func(name string) string) (*http.Request, error) {
	return g.check(r, g.plan.templates[template], param)
}

// Middleware guards a whole Echo instance: e.Use(g.Middleware). It goes by what Echo's router has matched, and
// refuses any route that the document does not describe.
func (g *Gate) Middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		var param func(string) string
		if len(c.ParamNames()) > 0 {
			param = func(name string) string { return pathParam(c, name) }
		}
		r, err := g.check(c.Request(), g.matched(c), param)
		if err != nil {
			return err
		}
		c.SetRequest(r)
		g.dpop.tellNonce(c.Response().Header(), r)
		return next(c)
	}
}

func (g *Gate) matched(c echo.Context) *path {
	pattern, ok := strings.CutPrefix(c.Path(), g.basePath)
	if path := echo.GetPath(c.Request()); !ok || path != c.Path() && !segmentwise(c.Path(), path) {
		return nil
	}
	return g.plan.patterns[pattern]
}

// segmentwise reports whether each parameter of what Echo has matched is one segment of the path, as in OpenAPI. Echo
// gives the last parameter of a route all the rest of the path, lets one in the middle be empty, and does not tell the
// parameters where no route has the method.
func segmentwise(pattern, path string) bool {
	for {
		segment, patternRest, further := strings.Cut(pattern, "/")
		value, pathRest, longer := strings.Cut(path, "/")
		if value == "" && strings.HasPrefix(segment, ":") {
			return false
		}
		if !further || !longer {
			return further == longer
		}
		pattern, path = patternRest, pathRest
	}
}

// pathParam returns a parameter unescaped. Echo matches the escaped path where the two differ, as generated code knows.
func pathParam(c echo.Context, name string) string {
	value := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return value
	}
	unescaped, err := url.PathUnescape(value)
	if err != nil {
		return value // cannot be: net/http has parsed the path
	}
	return unescaped
}

// CheckRoutes compares the routes of a guarded Echo instance, e.Routes(), with the document. The error joins a
// [*Fault] for each route that the document does not describe and each operation that no route serves. Call it when
// all routes are registered, and do not start on an error.
func (g *Gate) CheckRoutes(routes []*echo.Route) error {
	var faults []error
	served := map[*operation]bool{}
	for _, route := range routes {
		var o *operation
		if pattern, ok := strings.CutPrefix(route.Path, g.basePath); ok && g.plan.patterns[pattern] != nil {
			o = g.plan.patterns[pattern].methods[route.Method]
		}
		if o == nil {
			faults = append(faults, &Fault{Method: route.Method, Path: route.Path, Problem: "a route that the document does not describe: describe it, or serve it outside the guarded Echo instance"})
		}
		served[o] = true
	}
	for _, o := range g.plan.operations {
		if !served[o] {
			faults = append(faults, &Fault{Method: o.Method, Path: o.Path, Problem: "no route serves this operation: register its handler, under BasePath if that is set"})
		}
	}
	return errors.Join(faults...)
}
