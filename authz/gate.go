package authz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/oasgate/oasgate/authz/token"
)

// Verifier verifies access tokens. [*token.Verifier] is one. A refusal must be, or wrap, a
// [*token.Error]; any other error, and a nil principal without an error, is a fault of the server.
// A wrapper of a verifier must also implement the optional interfaces that it needs: DPoPVerifier,
// PresentedVerifier and ScopeNamer.
type Verifier interface {
	Verify(ctx context.Context, token string) (*token.Principal, error)
}

// PresentedVerifier is a [Verifier] that also verifies tokens bound to the client's certificate
// (RFC 8705 §3), and introspects tokens without a cache (RFC 7662). [*token.Verifier] is one. A
// [Gate] calls it if there is a certificate and Offer has MTLS, for operations with
// x-authz-introspect, and for opaque tokens if Offer has Opaque.
type PresentedVerifier interface {
	Verifier
	VerifyPresented(ctx context.Context, presented token.Presented) (*token.Principal, error)
	Offer() token.Offer
}

// ScopeNamer is a [Verifier] whose issuers have their own names for scopes. [*token.Verifier] is
// one. Challenges and metadata list scopes by these names, because clients request them so.
type ScopeNamer interface {
	Verifier
	// ScopesToRequest returns the names of scopes at the issuer of a token. If the token is "" or
	// its issuer is unknown, it returns the names that all issuers share; if they differ, certain
	// is false.
	ScopesToRequest(token string, scopes []string) (names []string, certain bool)
}

// Config configures a [Gate]. Document is required, and so is Verifier if the document uses access
// tokens.
type Config struct {
	Document *openapi3.T
	// Verifier verifies the access tokens of bearer, oauth2 and openIdConnect schemes that are not
	// in Authenticators.
	Verifier Verifier
	// Authenticators are the authenticators of the other security schemes, by name.
	Authenticators map[string]Authenticator
	// ClientCertificates says where a client's certificate is. Default: the TLS connection.
	ClientCertificates ClientCertificates
	// Schemes restricts the access tokens of security schemes, by name.
	Schemes map[string]Scheme
	// Without names security schemes that are disabled: alternatives that require one are removed.
	// An operation with no other alternative is denied.
	Without []string
	// Unstated says how to treat operations without stated security. Default [RefuseUnstated].
	Unstated Unstated
	// Undecoded says how to treat media types of bodies that cannot be validated. Default
	// [RefuseUndecoded].
	Undecoded Undecoded
	// CookieOrigins are additional origins, such as https://app.example.com, whose pages may make
	// unsafe requests with only a credential that browsers add by themselves: a cookie, HTTP Basic
	// or a client certificate. See [http.CrossOriginProtection].
	CookieOrigins []string
	// Realm is the realm in challenges (RFC 9110 §11.5). Default: the document's title if it is
	// plain ASCII, else "api".
	Realm string
	// BasePath is the prefix of the document's paths on this server: "", or a path such as "/v1".
	// [BasePath] derives it from the document's servers.
	BasePath string
	// PublicPath is the prefix of the document's paths for clients, if a proxy in front of this
	// server adds or removes one: "/" for none, or a path such as "/v1". Default BasePath. It is
	// never derived from a header.
	PublicPath string
	// MaxBodyBytes bounds the body of a request. Default 1 MiB.
	MaxBodyBytes int64
	// IgnoreFormats names formats that are not asserted. By default, every format that JSON Schema
	// or the OpenAPI format registry defines precisely is asserted, in parameters and bodies.
	IgnoreFormats []string
	// RefuseReadOnly refuses requests that contain a readOnly member. By default, such members are
	// removed before the handler runs: OpenAPI only says that they SHOULD NOT be sent, and clients
	// often send back a whole object that they have read.
	RefuseReadOnly bool
	// Responses says whether the responses of handlers are validated. Default [IgnoreResponses].
	Responses Responses
	// Resource is this API's own identifier (RFC 9728 §1.2): the URL, without query and fragment,
	// at which clients reach it, and which is the prefix of the document's paths. It may omit
	// PublicPath. Without it, the gate serves no protected resource metadata and does not offer
	// DPoP, whose proofs contain a URL.
	Resource string
	// AuthorizationServers are the issuers in the metadata.
	AuthorizationServers []string
	// ProblemTypeBase is the prefix of the type URIs of problems, before the kind (RFC 9457
	// §3.1.1). Default [ProblemTypes], whose URIs point to the documentation of the kinds.
	ProblemTypeBase string
	// RateCounter counts requests for x-authz-rate-limit, so that servers share their limits.
	// Default: in memory. While it fails, each server counts in memory, unless RefuseUncounted is
	// set.
	RateCounter RateCounter
	// RefuseUncounted refuses requests with 503 if RateCounter fails.
	RefuseUncounted bool
	// ClientAddress returns the IP address of a client, for x-authz-rate-limit of requests without
	// a principal, and for each client's share of the introspection of unknown tokens. Default:
	// that of the connection, which may be a proxy's.
	ClientAddress func(*http.Request) string
	Now           func() time.Time // default time.Now
	// Logger logs errors of the program, which clients see as a 500, if no server logs requests by
	// their [Admission]. Default [slog.Default].
	Logger *slog.Logger

	// OnDecision, if set, is called once for each request that the gate decides, for audit and
	// metrics. It runs before the handler, and must not block.
	OnDecision func(context.Context, Decision)
	// Authorize, if set, makes decisions that the document cannot express, for example by the owner
	// of a resource. It is called after the scopes have been checked and before parameters and body
	// are validated, also for public operations. The request has no body, and the principal is nil
	// if the request has no token. Authorize can only refuse a request: with an [*Error], such as
	// [StatusError]; any other error is a 500.
	Authorize func(context.Context, *http.Request, Operation, *token.Principal) error
	// RenderError, if set, returns the body of a refusal and its media type, for APIs with their
	// own error format. Status and headers are unchanged. The body must not contain the URL of the
	// request, whose query may contain an API key.
	RenderError func(*http.Request, Problem) (mediaType string, body []byte)

	// InsecureExplain tells clients exactly why a token was refused. For development only.
	InsecureExplain bool
	// InsecureUnguarded lists paths outside the document that the gate does not protect: an exact
	// path such as /metrics, or a prefix such as /static/*.
	InsecureUnguarded []string
	// InsecureReportValidation accepts requests that only fail validation: of a parameter, the body
	// or its media type. OnDecision reports them. It is for introducing the gate into an API that
	// is in use.
	InsecureReportValidation bool
	// InsecureReportEverything accepts every request that has an operation. OnDecision reports the
	// decisions.
	InsecureReportEverything bool
}

// Gate checks requests against a document. It is safe for concurrent use.
type Gate struct {
	plan         *Plan
	verifier     Verifier
	sources      map[string]*source // of each security scheme
	schemeRules  map[string]Scheme
	origins      *http.CrossOriginProtection
	realm        string
	basePath     string
	public       string // prefix of the document's paths for clients
	maxBody      int64
	responses    Responses
	explain      bool
	now          func() time.Time
	metadata     *metadata // nil if Config.Resource is empty
	dpop         *dpop     // nil if DPoP is not offered
	offer        token.Offer
	certificates ClientCertificates
	logger       *slog.Logger

	onDecision       func(context.Context, Decision)
	authorizeHook    func(context.Context, *http.Request, Operation, *token.Principal) error
	renderError      func(*http.Request, Problem) (string, []byte)
	clientAddress    func(*http.Request) string
	rates            rateLimiter
	unguarded        unguarded
	reportValidation bool
	reportEverything bool

	problemTypes     string
	preparedProblems map[Kind]preparedProblem
}

// New compiles the document. It returns all faults of the document and the configuration, joined.
func New(config Config) (*Gate, error) {
	g := newGate(config)
	faults := g.check(config)
	if config.Document == nil {
		return nil, errors.Join(append(faults,
			errors.New("authz: Config.Document is nil: there is no policy"))...)
	}
	plan, found := config.compile(true)
	g.plan = plan
	faults = append(append(faults, found...), g.readSources(config)...)
	var err error
	if g.dpop, err = newDPoP(config, g.basePath, g.public); err != nil {
		faults = append(faults, err)
	}
	if g.metadata, err = newMetadata(config, plan, g.dpop, g.offer); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, g.overlaps(g.unguarded)...)
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	security := &openapi3filter.Options{AuthenticationFunc: g.AuthenticationFunc()}
	for _, o := range plan.operations {
		o.input = openapi3filter.RequestValidationInput{Route: o.route, Options: security}
	}
	g.prepare()
	return g, nil
}

// newGate returns a gate with the settings of a configuration, or their defaults, and no plan yet.
func newGate(config Config) *Gate {
	g := &Gate{
		verifier:         config.Verifier,
		sources:          map[string]*source{},
		schemeRules:      config.Schemes,
		origins:          http.NewCrossOriginProtection(),
		realm:            config.Realm,
		basePath:         config.BasePath,
		public:           config.PublicPath,
		maxBody:          cmp.Or(config.MaxBodyBytes, 1<<20),
		responses:        config.Responses,
		explain:          config.InsecureExplain,
		now:              config.Now,
		certificates:     config.ClientCertificates,
		logger:           cmp.Or(config.Logger, slog.Default()),
		onDecision:       config.OnDecision,
		authorizeHook:    config.Authorize,
		renderError:      config.RenderError,
		clientAddress:    config.ClientAddress,
		unguarded:        config.InsecureUnguarded,
		reportValidation: config.InsecureReportValidation,
		reportEverything: config.InsecureReportEverything,
		problemTypes:     cmp.Or(config.ProblemTypeBase, ProblemTypes),
	}
	g.rates.shared, g.rates.refuse = config.RateCounter, config.RefuseUncounted
	if g.now == nil {
		g.now = time.Now
	}
	if v, ok := config.Verifier.(PresentedVerifier); ok {
		g.offer = v.Offer()
	}
	switch g.public {
	case "":
		g.public = g.basePath
	case "/":
		g.public = ""
	}
	if document := config.Document; g.realm == "" && document != nil && document.Info != nil &&
		quotable(document.Info.Title) {
		g.realm = document.Info.Title
	}
	g.realm = cmp.Or(g.realm, "api")
	return g
}

// check returns the faults of the configuration that do not concern the document.
func (g *Gate) check(config Config) []error {
	faults := append(g.unguarded.check(), g.certificates.check()...)
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("authz: Config."+format, args...))
	}
	for _, origin := range config.CookieOrigins {
		if err := g.origins.AddTrustedOrigin(origin); err != nil {
			fault("CookieOrigins has %q: expected an origin such as https://app.example.com: %w",
				origin, err)
		}
	}
	if g.maxBody < 0 {
		fault("MaxBodyBytes is %d: expected a positive number", g.maxBody)
	}
	isPrefix := func(path string) bool { return path[0] == '/' && !strings.HasSuffix(path, "/") }
	if g.basePath != "" && !isPrefix(g.basePath) {
		fault("BasePath is %q: expected nothing, or a path such as /v1 without a slash at its end",
			g.basePath)
	}
	if config.PublicPath != "" && config.PublicPath != "/" && !isPrefix(config.PublicPath) {
		fault("PublicPath is %q: expected nothing, /, or a path such as /v1 without a slash at "+
			"its end", config.PublicPath)
	}
	if base, err := url.Parse(g.problemTypes); err != nil || !base.IsAbs() {
		fault("ProblemTypeBase is %q: expected an absolute URI such as "+
			"https://api.example.com/problems#, which the kind is appended to", g.problemTypes)
	}
	if !quotable(g.realm) {
		fault("Realm is %q: expected printable ASCII without quotes and backslashes", g.realm)
	}
	return faults
}

// Plan returns the compiled document.
func (g *Gate) Plan() *Plan { return g.plan }

// BasePath returns the prefix of the document's paths on this server.
func (g *Gate) BasePath() string { return g.basePath }

// PublicPath returns the prefix of the document's paths for clients, as for a Location header.
func (g *Gate) PublicPath() string { return g.public }

// Check decides one request. route is the route that the router matched, or "" if none: the
// document's path template, such as /messages/{id}, or a pattern with method and base path, such as
// "GET /v1/messages/{id}", as in [http.Request.Pattern]. param returns the unescaped value of a
// path parameter; it may be nil if the template has none.
//
// On success Check returns the request for the handler: its context holds the principal, and its
// body has been read and validated. Adapters then call [Gate.SetHeaders]; without it, clients get
// new DPoP nonces only with refusals. Otherwise Check returns an [*Error] for [Gate.WriteProblem].
func (g *Gate) Check(r *http.Request, route string,
	param func(name string) string) (*http.Request, error) {
	if _, path, ok := strings.Cut(route, " "); ok && route[0] != '/' && g.unguarded.has(path) {
		return r, nil
	}
	g.certificates.Strip(r)
	a := admission(r)
	if g.onDecision == nil {
		admitted, reported, err := g.decide(a, r, route, param)
		a.Reported = reported
		return admitted, err
	}
	began := g.now()
	admitted, reported, err := g.decide(a, r, route, param)
	a.Reported = reported
	g.onDecision(r.Context(), newDecision(a, err, reported, g.now().Sub(began)))
	return admitted, err
}

// SetHeaders sets the headers of the response to an admitted request, which Check has returned: the
// DPoP nonce for the client's next proof if nonces are required (RFC 9449 §8.2), and
// RateLimit-Policy and RateLimit if the operation has x-authz-rate-limit.
func (g *Gate) SetHeaders(h http.Header, r *http.Request) {
	g.dpop.setNonce(h, r)
	if a, ok := FromContext(r.Context()); ok {
		a.rate.setHeaders(h)
	}
}
