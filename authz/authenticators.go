package authz

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/token"
)

// Authenticator authenticates requests by the credential of one security scheme. [APIKey], [Basic]
// and [MutualTLS] return those for OpenAPI's types; a program may have its own.
type Authenticator interface {
	// Authenticate returns the principal of the credential in the request. scheme is the security
	// scheme in the document. The request has no body.
	//
	// The error must be, or wrap, [ErrAbsent], [ErrBadCredential], [ErrUnavailable] or a
	// [*token.Error]. Any other error, and a nil principal without an error, is a fault of the
	// server, answered with 500. Errors are logged, so they must not hold the credential.
	Authenticate(r *http.Request, scheme *openapi3.SecurityScheme) (*token.Principal, error)
}

// The errors of an [Authenticator].
var (
	ErrAbsent        = errors.New("authz: the request has no such credential")
	ErrBadCredential = errors.New("authz: the credential is not accepted")
	ErrUnavailable   = errors.New("authz: the credential cannot be checked now") // 503
)

// APIKey authenticates by the key of an apiKey scheme: in a header, the query or a cookie, as the
// document says. lookup returns the principal of a key; its errors are those of an [Authenticator].
//
// A request with two keys is refused. A key in the query is removed from the handler's request,
// unless the operation also declares it as a parameter.
func APIKey(lookup func(ctx context.Context, key string) (*token.Principal, error)) Authenticator {
	return apiKey(lookup)
}

type apiKey func(ctx context.Context, key string) (*token.Principal, error)

func (apiKey) fits(s *scheme) bool { return s.spec.Type == "apiKey" }

func (lookup apiKey) Authenticate(
	r *http.Request,
	scheme *openapi3.SecurityScheme,
) (*token.Principal, error) {
	var keys []string
	switch scheme.In {
	case "header":
		keys = r.Header.Values(scheme.Name)
	case "query":
		keys = r.URL.Query()[scheme.Name]
	case "cookie":
		for _, cookie := range r.CookiesNamed(scheme.Name) {
			keys = append(keys, cookie.Value)
		}
	}
	switch {
	case len(keys) > 1:
		return nil, fmt.Errorf("%w: there is more than one", ErrBadCredential)
	case len(keys) == 0 || keys[0] == "":
		return nil, ErrAbsent
	}
	return lookup(r.Context(), keys[0])
}

// Basic authenticates by user name and password (RFC 7617). lookup returns the principal of a user;
// its errors are those of an [Authenticator].
func Basic(
	lookup func(ctx context.Context, user, password string) (*token.Principal, error),
) Authenticator {
	return basic(lookup)
}

type basic func(ctx context.Context, user, password string) (*token.Principal, error)

func (basic) fits(s *scheme) bool { return s.isHTTP("basic") }

func (lookup basic) Authenticate(
	r *http.Request,
	_ *openapi3.SecurityScheme,
) (*token.Principal, error) {
	headers := r.Header["Authorization"]
	if len(headers) > 1 {
		return nil, fmt.Errorf("%w: there is more than one Authorization header", ErrBadCredential)
	}
	if len(headers) == 0 {
		return nil, ErrAbsent
	}
	if word, _, _ := strings.Cut(headers[0], " "); !strings.EqualFold(word, "Basic") {
		return nil, ErrAbsent
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return nil, fmt.Errorf("%w: expected base64 of a user name, a colon and a password",
			ErrBadCredential)
	}
	return lookup(r.Context(), user, password)
}

// MutualTLS authenticates by the client's certificate, which Config.ClientCertificates locates. The
// certificate of a TLS connection is accepted only if the server verified it (see
// tls.Config.ClientAuth). lookup returns the principal of a certificate; its errors are those of an
// [Authenticator].
func MutualTLS(
	lookup func(ctx context.Context, certificate *x509.Certificate) (*token.Principal, error),
) Authenticator {
	return mutualTLS(lookup)
}

type mutualTLS func(ctx context.Context, certificate *x509.Certificate) (*token.Principal, error)

func (mutualTLS) fits(s *scheme) bool { return s.spec.Type == "mutualTLS" }

func (lookup mutualTLS) Authenticate(
	r *http.Request,
	_ *openapi3.SecurityScheme,
) (*token.Principal, error) {
	from, _ := r.Context().Value(certificatesKey{}).(ClientCertificates)
	client, verified, err := from.find(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrBadCredential, err)
	case client == nil:
		return nil, ErrAbsent
	case !verified:
		return nil, fmt.Errorf("%w: the server has not verified the client certificate",
			ErrBadCredential)
	}
	return lookup(r.Context(), client)
}

// Secret is an API key or a password. It must be generated, with 128 random bits or more, because
// its hash is a fast one.
type Secret struct {
	ID        string   // the user name for [Basic]
	SHA256    [32]byte // of the secret
	Principal *token.Principal
}

// Secrets is a list of accepted secrets. Its methods compare in constant time.
//
//	keys := authz.Secrets{{ID: "billing", SHA256: sha256.Sum256(key), Principal: billing}}
//	config.Authenticators = map[string]authz.Authenticator{"apiKey": authz.APIKey(keys.Key)}
type Secrets []Secret

// Key is the lookup of [APIKey].
func (s Secrets) Key(_ context.Context, key string) (*token.Principal, error) {
	return s.find(key, func(Secret) bool { return true })
}

// User is the lookup of [Basic].
func (s Secrets) User(_ context.Context, user, password string) (*token.Principal, error) {
	return s.find(password, func(known Secret) bool {
		return subtle.ConstantTimeCompare([]byte(known.ID), []byte(user)) == 1
	})
}

func (s Secrets) find(secret string, candidate func(Secret) bool) (*token.Principal, error) {
	hash := sha256.Sum256([]byte(secret))
	var found *token.Principal
	for _, known := range s { // no early exit, for constant time
		if subtle.ConstantTimeCompare(known.SHA256[:], hash[:]) == 1 && candidate(known) {
			found = known.Principal
		}
	}
	if found == nil {
		return nil, ErrBadCredential
	}
	return found, nil
}

// Grant says for whom a client acts.
type Grant string

// The grants of [Scheme]. In a token of ClientGrant the subject is the client (RFC 9068 §2.2). It
// is recognized by sub, which is the client's ID, with or without the suffix @clients, or by the
// claims idtyp=app or gty=client-credentials. A token without a client matches neither grant.
//
// Some issuers, such as Keycloak, give a client's token a subject of its own, which looks like a
// person's. Use Scheme.Claims for those.
const (
	ClientGrant Grant = "client" // the client acts for itself
	PersonGrant Grant = "person" // the client acts for a person
)

// Scheme restricts the access tokens of a security scheme, for documents with schemes for different
// kinds of tokens.
type Scheme struct {
	Issuers []string            // the accepted issuers; nil: any
	Grant   Grant               // "": any
	Claims  map[string][]string // the accepted string values, by JSON pointer (RFC 6901)
}

// check returns why the principal's token does not match, or nil.
func (s *Scheme) check(p *token.Principal) error {
	if s.Issuers != nil && !slices.Contains(s.Issuers, p.Issuer()) {
		return errors.New("the security scheme does not accept tokens of this issuer")
	}
	if s.Grant != "" && (p.ClientID() == "" || s.Grant != grantOf(p)) {
		return fmt.Errorf("the security scheme accepts tokens of a %s only", s.Grant)
	}
	for pointer, values := range s.Claims {
		if value, err := token.Claim[string](p, pointer); err != nil ||
			!slices.Contains(values, value) {
			return fmt.Errorf("the security scheme does not accept this value of the claim %s",
				pointer)
		}
	}
	return nil
}

func grantOf(p *token.Principal) Grant {
	claimIs := func(pointer, value string) bool {
		claim, err := token.Claim[string](p, pointer)
		return err == nil && claim == value
	}
	if sub := p.Subject(); sub == "" || sub == p.ClientID() || sub == p.ClientID()+"@clients" ||
		claimIs("/idtyp", "app") || claimIs("/gty", "client-credentials") {
		return ClientGrant
	}
	return PersonGrant
}

// source authenticates for one security scheme. All schemes of access tokens share the source of
// the verifier, so that a token is verified once.
type source struct {
	scheme        *scheme // nil: the verifier
	authenticator Authenticator
}

// readSources sets the source of each scheme. It returns a fault for each scheme in use that has
// none, and for each name in the configuration that is not a scheme.
func (g *Gate) readSources(config Config) (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("authz: "+format, args...))
	}
	g.sources, g.schemeRules = map[string]*source{}, config.Schemes
	for name, a := range config.Authenticators {
		s := g.plan.schemes[name]
		checked, ok := a.(interface{ fits(*scheme) bool })
		switch {
		case s == nil:
			fault("Config.Authenticators has %q, which is not a security scheme of the document",
				name)
		case a == nil:
			fault("Config.Authenticators has nil for %q", name)
		case ok && !checked.fits(s):
			fault("Config.Authenticators[%q] does not fit the type of the scheme, %s", name, s)
		default:
			g.sources[name] = &source{s, a}
		}
	}
	verifier := &source{}
	for name, s := range g.plan.schemes {
		if s.token && g.sources[name] == nil {
			g.sources[name] = verifier
		}
	}
	for name, rules := range config.Schemes {
		switch {
		case g.plan.schemes[name] == nil:
			fault("Config.Schemes has %q, which is not a security scheme of the document", name)
		case g.sources[name] != verifier:
			fault("Config.Schemes has %q, whose credentials are not verified as access tokens",
				name)
		case rules.Grant != "" && rules.Grant != ClientGrant && rules.Grant != PersonGrant:
			fault(
				"Config.Schemes[%q].Grant is %q: expected %q or %q",
				name,
				rules.Grant,
				ClientGrant,
				PersonGrant,
			)
		case rules.Issuers != nil && len(rules.Issuers) == 0:
			fault(
				"Config.Schemes[%q].Issuers is empty, so that no token would pass: leave it nil "+
					"for any",
				name,
			)
		}
		for pointer, values := range rules.Claims {
			if !strings.HasPrefix(pointer, "/") || len(values) == 0 {
				fault(
					"Config.Schemes[%q].Claims has %q: expected a JSON pointer (RFC 6901) such "+
						"as /token_use, and values",
					name,
					pointer,
				)
			}
		}
	}
	for _, o := range g.plan.operations {
		for _, problem := range g.attach(o) {
			faults = append(
				faults,
				&Fault{
					Method:  o.Method,
					Path:    o.Path,
					Problem: problem,
					At:      locate(o.route.Operation.Origin, "security"),
				},
			)
		}
	}
	for _, o := range g.plan.operations {
		if problem := g.introspectionFault(o, verifier); problem != "" {
			faults = append(faults, &Fault{
				Method: o.Method, Path: o.Path, Problem: problem,
				At: locate(o.route.Operation.Origin, ""),
			})
		}
	}
	byVerifier := func(o *operation) bool { return slices.Contains(o.sources, verifier) }
	if g.verifier == nil && slices.ContainsFunc(g.plan.operations, byVerifier) {
		fault("Config.Verifier is nil, but the document requires access tokens")
	}
	return faults
}

// introspectionFault says why x-authz-introspect of an operation cannot be enforced, or returns "".
func (g *Gate) introspectionFault(o *operation, verifier *source) string {
	if !o.Introspect {
		return ""
	}
	for _, w := range o.compiled {
		for _, c := range w.conditions {
			if c.scheme.token && o.sources[c.source] != verifier {
				return "it has x-authz-introspect, but the tokens of security scheme " +
					c.scheme.name + " are verified by an authenticator in Config.Authenticators"
			}
		}
	}
	switch {
	case !slices.Contains(o.sources, verifier) && o.Denied == "":
		return "it has x-authz-introspect, but does not accept access tokens"
	case !g.offer.Introspect && o.Denied == "":
		return "it has x-authz-introspect, but introspection (RFC 7662) is not configured for " +
			"every issuer: configure it, or remove the extension"
	}
	return ""
}

// attach sets the sources of an operation and compiles its alternatives.
func (g *Gate) attach(o *operation) (problems []string) {
	for _, requirement := range o.security {
		var conditions []condition
		for _, name := range slices.Sorted(maps.Keys(requirement)) {
			s, from := g.plan.schemes[name], g.sources[name]
			switch {
			case s == nil:
				continue // the plan has a fault
			case from == nil:
				problems = append(problems, fmt.Sprintf("security scheme %s (%s) has no "+
					"authenticator: set one in Config.Authenticators, or drop the alternatives "+
					"that require it by Config.Without", name, s))
				continue
			}
			at := slices.Index(o.sources, from)
			if at < 0 {
				at = len(o.sources)
				o.sources = append(o.sources, from)
				o.schemeChallenges = appendChallenge(o.schemeChallenges, s, g.realm)
			}
			condition := condition{scheme: s, source: at, scopes: requirement[name]}
			if rules, ok := g.schemeRules[name]; ok {
				condition.rules = &rules
			}
			conditions = append(conditions, condition)
			o.byToken = o.byToken || s.token
		}
		if len(conditions) > 0 {
			o.compiled = append(o.compiled, o.newAlternative(conditions))
		}
	}
	o.queryKeys = undeclaredQueryKeys(o)
	return problems
}

// appendChallenge adds the challenge of a scheme (RFC 9110 §11.6.1). API keys and certificates have
// no registered one, but a 401 must have one (§15.5.2); clients ignore unknown challenges.
func appendChallenge(offers []string, s *scheme, realm string) []string {
	offer := ` realm="` + realm + `"`
	switch {
	case s.token:
		return offers // see Gate.challenges
	case s.isHTTP("basic"):
		offer = "Basic" + offer + `, charset="UTF-8"`
	case s.spec.Type == "http":
		offer = s.spec.Scheme + offer
	case s.spec.Type == "apiKey":
		offer = "ApiKey" + offer + `, in="` + s.spec.In + `", name="` + s.spec.Name + `"`
	default:
		offer = "MutualTLS" + offer
	}
	if slices.Contains(offers, offer) {
		return offers
	}
	return append(offers, offer)
}

// undeclaredQueryKeys returns the API keys in the query that the operation does not also declare as
// parameters.
func undeclaredQueryKeys(o *operation) (names []string) {
	declared := func(name string) bool {
		is := func(p *openapi3.ParameterRef) bool {
			return p != nil && p.Value != nil && p.Value.In == "query" && p.Value.Name == name
		}
		return slices.ContainsFunc(o.route.PathItem.Parameters, is) ||
			slices.ContainsFunc(o.route.Operation.Parameters, is)
	}
	for _, w := range o.compiled {
		for _, c := range w.conditions {
			if name := c.scheme.spec.Name; c.scheme.isKey("query") && !declared(name) &&
				!slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// withoutQueryKeys returns the request without queryKeys, so that they are neither validated as
// parameters nor logged by handlers.
func (o *operation) withoutQueryKeys(r *http.Request) *http.Request {
	if o.queryKeys == nil || r.URL.RawQuery == "" {
		return r
	}
	var kept []string
	for _, pair := range strings.Split(r.URL.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err != nil || !slices.Contains(o.queryKeys, name) {
			kept = append(kept, pair)
		}
	}
	r = r.WithContext(r.Context())
	r.Form, r.PostForm, r.MultipartForm = nil, nil, nil // an authenticator may have parsed it
	at := *r.URL
	at.RawQuery = strings.Join(kept, "&")
	r.URL = &at
	if before, _, found := strings.Cut(r.RequestURI, "?"); found {
		r.RequestURI = before + "?" + at.RawQuery
	}
	return r
}

// authenticate returns the principal of a request by one source. Its error is errNoCredential or an
// [*Error].
func (g *Gate) authenticate(
	r *http.Request, op *operation, from *source,
) (*token.Principal, error) {
	var principal *token.Principal
	var err error
	if from.authenticator == nil {
		return g.verify(r, op)
	}
	asked := bodiless(r)
	if from.scheme.spec.Type == "mutualTLS" {
		asked = g.certificates.within(asked)
	}
	principal, err = from.authenticator.Authenticate(asked, from.scheme.spec)
	refused, ofToken := errors.AsType[*token.Error](err)
	switch {
	case err == nil && principal != nil:
		return principal, nil
	case errors.Is(err, ErrAbsent):
		return nil, errNoCredential
	case ofToken &&
		(from.scheme.token ||
			kinds[kindOfToken(refused.Code)].status == http.StatusServiceUnavailable):
		return nil, refusalOf(refused, err)
	case errors.Is(err, ErrBadCredential) && from.scheme.token:
		return nil, &Error{Kind: InvalidToken, Err: err}
	case errors.Is(err, ErrBadCredential), ofToken:
		return nil, &Error{Kind: InvalidCredential, Err: err}
	case errors.Is(err, ErrUnavailable):
		return nil, &Error{Kind: CredentialsUnavailable, Err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, &Error{Kind: Timeout, Err: err}
	}
	return nil, &Error{
		Kind: Internal,
		Err: fmt.Errorf("the authenticator of %s returned neither a principal nor "+
			"an error of an Authenticator: %w", from.scheme.name, cmp.Or(err, errNoPrincipal)),
	}
}

var errNoPrincipal = errors.New("a nil principal without an error")
