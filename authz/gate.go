package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"github.com/oasgate/oasgate/authz/token"
)

// Verifier says whether an access token is genuine. [*token.Verifier] does. A refusal must be, or wrap, a
// [*token.Error]; any other error, and a nil principal without one, is taken for a fault of the server. One that is a
// [DPoPVerifier] as well decides whether DPoP is offered; one that wraps it must pass that on.
type Verifier interface {
	Verify(ctx context.Context, token string) (*token.Principal, error)
}

// Config is what a [Gate] is made of. Document has no default, and Verifier none where the document takes
// access tokens.
type Config struct {
	Document *openapi3.T
	// Verifier verifies the access tokens of bearer, oauth2 and openIdConnect schemes that are not in
	// Authenticators.
	Verifier Verifier
	// Authenticators are those of the other security schemes, by name.
	Authenticators map[string]Authenticator
	// Schemes says what a security scheme demands of an access token beyond being genuine, by name.
	Schemes map[string]Scheme
	// Without are the names of security schemes that are switched off: an alternative that needs one is
	// as if the document did not have it. An operation that has no other is closed to everybody.
	Without []string
	// Unstated says what becomes of operations whose security is not stated. Default [RefuseUnstated].
	Unstated Unstated
	// CookieOrigins are the origins, such as https://app.example.com, beside the API's own whose pages may
	// change something with nothing but a credential that browsers add by themselves: a cookie, HTTP Basic
	// or a client certificate. See [http.CrossOriginProtection].
	CookieOrigins []string
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
	// ProblemTypeBase is what the type URIs of problems begin with; the kind follows (RFC 9457 §3.1.1).
	// Default [ProblemTypes], whose URIs lead to the documentation of the kinds.
	ProblemTypeBase string
	Now             func() time.Time // default time.Now
	// InsecureExplain tells clients exactly why a token was refused. For development only.
	InsecureExplain bool
}

// Gate decides every request by the document. It is safe for concurrent use.
type Gate struct {
	plan     *Plan
	verifier Verifier
	sources  map[string]*source // of each security scheme
	demands  map[string]Scheme
	origins  *http.CrossOriginProtection
	realm    string
	basePath string
	maxBody  int64
	explain  bool
	now      func() time.Time
	metadata *metadata // nil without Resource
	dpop     *dpop     // nil where DPoP is not offered

	problemTypes string
	usual        map[Kind]usual
	security     openapi3filter.Options // of the validator's security pass, which only reads them
}

// New compiles the document and returns every fault of it and of the rest of the configuration, joined.
func New(config Config) (*Gate, error) {
	g := &Gate{verifier: config.Verifier, realm: config.Realm, basePath: config.BasePath, maxBody: config.MaxBodyBytes, explain: config.InsecureExplain, now: config.Now}
	if g.problemTypes = config.ProblemTypeBase; g.problemTypes == "" {
		g.problemTypes = ProblemTypes
	}
	if g.maxBody == 0 {
		g.maxBody = 1 << 20
	}
	if g.now == nil {
		g.now = time.Now
	}
	var faults []error
	g.origins = http.NewCrossOriginProtection()
	for _, origin := range config.CookieOrigins {
		if err := g.origins.AddTrustedOrigin(origin); err != nil {
			faults = append(faults, fmt.Errorf("authz: Config.CookieOrigins has %q: expected an origin such as https://app.example.com: %w", origin, err))
		}
	}
	if g.maxBody < 0 {
		faults = append(faults, fmt.Errorf("authz: Config.MaxBodyBytes is %d: expected a positive number", g.maxBody))
	}
	if g.basePath != "" && (g.basePath[0] != '/' || strings.HasSuffix(g.basePath, "/")) {
		faults = append(faults, fmt.Errorf("authz: Config.BasePath is %q: expected nothing, or a path such as /v1 without a slash at its end", g.basePath))
	}
	if base, err := url.Parse(g.problemTypes); err != nil || !base.IsAbs() {
		faults = append(faults, fmt.Errorf("authz: Config.ProblemTypeBase is %q: expected an absolute URI such as https://api.example.com/problems#, which the kind is appended to", g.problemTypes))
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
	plan, found := config.compile(true)
	g.plan = plan
	faults = append(append(faults, found...), g.readSources(config)...)
	var err error
	if g.dpop, err = newDPoP(config); err != nil {
		faults = append(faults, err)
	}
	if g.metadata, err = newMetadata(config, plan, g.dpop); err != nil {
		faults = append(faults, err)
	}
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	g.security.AuthenticationFunc = g.AuthenticationFunc()
	g.prepare()
	return g, nil
}

// Plan returns the compiled document.
func (g *Gate) Plan() *Plan { return g.plan }

// BasePath returns where the document's paths begin on this server.
func (g *Gate) BasePath() string { return g.basePath }

// Check decides one request. template is the path template of the document that the router has
// matched, such as /messages/{id}, and param returns the unescaped value of a path parameter; it may
// be nil where the template has none.
//
// On success Check returns the request for the handler: its context holds the principal, and its
// body has been read and validated. Otherwise it returns an [*Error] for [Gate.WriteProblem].
// Adapters then call [Gate.SetHeaders]; without it, clients learn of new DPoP nonces from refusals
// alone.
func (g *Gate) Check(r *http.Request, template string, param func(name string) string) (*http.Request, error) {
	op, err := g.match(r, template)
	if err != nil {
		return nil, err
	}
	a := admission(r)
	a.Operation, a.Principal = &op.Operation, nil
	if err := g.authorize(a, r, op); err != nil {
		return nil, err
	}
	r = op.withoutKeys(r)
	if r, err = g.validate(r, op, param); err != nil {
		return nil, err
	}
	return a.admit(r), nil
}

// SetHeaders sets what every answer to an admitted request carries: the DPoP nonce for the client's
// next proof, where nonces are required (RFC 9449 §8.2).
func (g *Gate) SetHeaders(h http.Header, r *http.Request) { g.dpop.tellNonce(h, r) }
