// Package devissuer is a token issuer for one machine. The dev command runs it, so that trying the
// API needs no account, and tests use it to see how a server handles tokens, key rotation and
// outages.
//
// It is not for production. Its URL must be on a loopback host, it answers only requests made to
// one, and it keeps its keys in memory only.
//
// It implements the client credentials grant (RFC 6749 §4.4) at oauth/token and publishes
// .well-known/openid-configuration and .well-known/jwks.json, all below the path of its URL. Where
// the RFCs leave a choice:
//
//   - The parameter audience is required and names one audience; an unknown one
//     is invalid_target (RFC 8707 §2, RFC 8693 §2.2.2). The parameter resource
//     is an alternative (RFC 8707).
//   - A request without scope gets every scope that the client may have
//     (RFC 6749 §3.3). If there is none, neither the response nor the token has
//     scope, because an empty string is not a scope.
//   - A request with a DPoP proof (RFC 9449 §5) gets a token that is bound to the
//     proof's key. No server nonce is required.
//   - Parameters come in the body, as a form or as a JSON object of strings. A
//     request with a query is refused: secrets in a URL end up in logs (§2.3.1).
//
// With [Config].People it also signs people in: at authorize it implements OpenID Connect and the
// authorization code grant (RFC 6749 §4.1) for clients with RedirectURIs. PKCE with S256 is
// required of every client (RFC 7636, RFC 9700 §2.1.1). There are no passwords and no sessions: the
// sign-in page has a button for each person, which posts the request again with the parameter
// person, the name on the button.
//
//   - The redirect URI must match exactly, except for the port of a loopback URI
//     (RFC 8252 §7.3). The response has the parameter iss (RFC 9207).
//   - A request without an audience is for the first one, because OpenID Connect
//     clients send none.
//   - The grant has the requested scopes that the person may grant; the response
//     lists them in scope.
//   - openid, profile, email and offline_access are not scopes of the API and are
//     not in the access token (RFC 9068 §2.2.3), unless [Config].Scopes has them.
//     Name and email are in the ID token, and at oauth/userinfo (OpenID Connect
//     Core 1.0 §5.3), which accepts bearer tokens only.
//   - A code works once, within 60 s; a failed attempt uses it up as well. With
//     offline_access there is a refresh token, which works once within 24 h and
//     is replaced by a new one. Reuse of a code or refresh token revokes the
//     grant (RFC 9700 §4.14.2) and its access tokens. The issuer keeps the last
//     1,000 grants.
//   - dpop_jkt binds the code to a key (RFC 9449 §10); a proof binds the refresh
//     token of a client without a secret (§5).
//
// oauth/introspect reports whether an access token of this issuer is active (RFC 7662), to clients
// with a secret. At oauth/revoke a client revokes its own tokens (RFC 7009). An API that verifies
// tokens by key alone accepts revoked tokens until they expire. The issuer keeps the last 10,000
// tokens of people, and revoked tokens.
//
// With [Config].Registration clients can register at oauth/register (RFC 7591), up to a hundred;
// registrations are lost when the issuer stops. Such a client is public, has redirect URIs of http
// on localhost, 127.0.0.1 and [::1] only, and at most the scopes of the client that the
// configuration names. The request must be application/json, which a page of another origin cannot
// send without CORS. Every sign-in, of whichever client, requires that a person presses a button.
//
// In a test, [Start] runs an issuer on a free port. [Issuer.Mint] makes genuine tokens,
// [Issuer.Sign] and [Issuer.SignBytes] make any others, and [Issuer.Rotate], [Issuer.RemoveKey],
// [Issuer.Publish] and [Issuer.Fail] change what the issuer publishes. A [Prover] holds a client's
// DPoP key and makes the proofs for tokens that are bound to it.
package devissuer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// Config describes an issuer. URL and at least one audience are required.
type Config struct {
	// the issuer identifier, exactly as in iss; http or https on a loopback host
	URL       string
	Audiences []string // Mint uses the first
	Scopes    []string // all scopes of the API
	Clients   []Client
	// People may sign in at the authorization endpoint, which is disabled if there are none.
	People []Person
	// Registration is the ID of a public client: clients that register get at most its Scopes.
	// Registration is disabled if it is empty.
	Registration  string
	Algorithm     string           // of the first key; default RS256
	TokenLifetime time.Duration    // default 1 h; whole seconds
	Now           func() time.Time // default time.Now
}

// Client is a client (RFC 6749 §2.1) and its scopes. A client with a Secret is confidential and may
// use the client credentials grant; one without is public. A client with RedirectURIs signs people
// in.
type Client struct {
	ID, Secret string
	Scopes     []string
	// RedirectURIs are compared exactly, but any port matches for http on localhost, 127.0.0.1 and
	// [::1].
	RedirectURIs []string

	name string // client_name of a registered client
}

// Person signs in by a click. Name is the sub of the tokens.
type Person struct {
	Name   string
	Scopes []string // that the person may grant to clients
}

// Issuer issues tokens and publishes the keys that verify them. Its methods may be called
// concurrently, also while it serves.
type Issuer struct {
	cfg       Config
	path      string // path of cfg.URL, without the trailing slash
	endpoints string // cfg.URL without the trailing slash

	grants               grants              // codes and refresh tokens
	tokens               tokens              // issued and revoked access tokens
	registered           registered          // dynamically registered clients
	proofs               *token.ReplayMemory // used DPoP proofs
	discoveries, keySets atomic.Int64

	mu        sync.RWMutex // protects the fields below
	current   *signingKey
	published []*signingKey
	extra     []json.RawMessage
	fault     Fault
}

// Paths of the endpoints, relative to the path of the issuer's URL.
const (
	authorizePath  = "/authorize"
	tokenPath      = "/oauth/token"
	userInfoPath   = "/oauth/userinfo"
	introspectPath = "/oauth/introspect"
	revokePath     = "/oauth/revoke"
	registerPath   = "/oauth/register"
	discoveryPath  = "/.well-known/openid-configuration"       // OpenID Connect Discovery 1.0 §4
	metadataPath   = "/.well-known/oauth-authorization-server" // RFC 8414 §3: before the path
	keySetPath     = "/.well-known/jwks.json"
)

// endpoint is the handler of a path.
type endpoint struct {
	methods []string
	serve   http.HandlerFunc
}

// endpoint returns the endpoint of a path. Disabled endpoints do not exist.
func (i *Issuer) endpoint(path string) (e endpoint, ok bool) {
	read, write := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	published := func(document Endpoint) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { i.servePublished(w, r, document) }
	}
	if path == metadataPath+i.path {
		return endpoint{read, published(Discovery)}, true
	}
	below, ok := strings.CutPrefix(path, i.path)
	switch {
	case !ok:
	case below == tokenPath:
		return endpoint{write, i.serveToken}, true
	case below == introspectPath:
		return endpoint{write, i.serveIntrospection}, true
	case below == revokePath:
		return endpoint{write, i.serveRevocation}, true
	case below == discoveryPath:
		return endpoint{read, published(Discovery)}, true
	case below == keySetPath:
		return endpoint{read, published(KeySet)}, true
	case below == authorizePath && i.hasPeople():
		return endpoint{append(read, http.MethodPost), i.serveAuthorize}, true
	case below == userInfoPath && i.hasPeople():
		return endpoint{append(read, http.MethodPost), i.serveUserInfo}, true
	case below == registerPath && i.cfg.Registration != "":
		return endpoint{write, i.serveRegistration}, true
	}
	return endpoint{}, false
}

// New returns an issuer with a first key. The error joins all faults of cfg.
func New(cfg Config) (*Issuer, error) {
	cfg.Algorithm = cmp.Or(cfg.Algorithm, "RS256")
	cfg.TokenLifetime = cmp.Or(cfg.TokenLifetime, time.Hour)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.faults(); err != nil {
		return nil, err
	}
	cfg.Audiences, cfg.Scopes, cfg.Clients = slices.Clone(cfg.Audiences), slices.Clone(cfg.Scopes),
		slices.Clone(cfg.Clients)
	for n := range cfg.Clients {
		cfg.Clients[n].Scopes = slices.Clone(cfg.Clients[n].Scopes)
		cfg.Clients[n].RedirectURIs = slices.Clone(cfg.Clients[n].RedirectURIs)
	}
	cfg.People = slices.Clone(cfg.People)
	for n := range cfg.People {
		cfg.People[n].Scopes = slices.Clone(cfg.People[n].Scopes)
	}
	key, err := newSigningKey(cfg.Algorithm)
	if err != nil {
		return nil, err
	}
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	i := &Issuer{
		cfg:        cfg,
		path:       strings.TrimSuffix(u.Path, "/"),
		endpoints:  strings.TrimSuffix(cfg.URL, "/"),
		current:    key,
		published:  []*signingKey{key},
		tokens:     tokens{now: cfg.Now, byID: make(map[string]*issued)},
		registered: registered{byID: make(map[string]Client)},
		proofs:     token.NewReplayMemory(10_000, cfg.Now),
	}
	i.grants = grants{now: cfg.Now, byName: make(map[string]*grant), ended: i.tokens.end}
	return i, nil
}

// URL returns the issuer identifier, the iss of every token.
func (i *Issuer) URL() string { return i.cfg.URL }

// Serves reports whether path is one of the issuer's, so that a handler that shares the port can
// pass it these requests.
func (i *Issuer) Serves(path string) bool {
	_, ok := i.endpoint(path)
	return ok
}

func (i *Issuer) hasPeople() bool { return len(i.cfg.People) > 0 }

// client returns a configured or registered client.
func (i *Issuer) client(id string) (Client, bool) {
	if n := slices.IndexFunc(i.cfg.Clients, func(c Client) bool { return c.ID == id }); n >= 0 {
		return i.cfg.Clients[n], true
	}
	return i.registered.get(id)
}

// ServeHTTP answers the paths that [Issuer.Serves] reports, and others with 404.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isLocal(r) {
		problem(
			w,
			http.StatusForbidden,
			"This issuer is for development: it answers only requests that are made to localhost, "+
				"127.0.0.0/8 or [::1], and from no other origin.",
		)
		return
	}
	e, ok := i.endpoint(r.URL.Path)
	if !ok {
		problem(
			w,
			http.StatusNotFound,
			"The development issuer has no such path: "+i.endpoints+discoveryPath+
				" lists its endpoints.",
		)
		return
	}
	if allow(w, r, e.methods...) {
		e.serve(w, r)
	}
}

// isLocal protects against DNS rebinding: a page anywhere can have its name resolve to 127.0.0.1
// and so become same-origin with this server, but it cannot choose the Host and Origin headers that
// the browser sends.
func isLocal(r *http.Request) bool {
	if !token.IsLoopback((&url.URL{Host: r.Host}).Hostname()) {
		return false
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || !token.IsLoopback(u.Hostname()) {
			return false
		}
	}
	return true
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	problem(w, http.StatusMethodNotAllowed, "Use "+strings.Join(methods, " or "))
	return false
}

// problem answers errors that OAuth does not define (RFC 9457).
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(encode(map[string]any{"type": "about:blank", "title": http.StatusText(status),
		"status": status, "detail": detail}))
}

// faults joins everything that is wrong with the configuration. No message contains a secret.
func (cfg Config) faults() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("devissuer: "+format, args...))
	}

	if _, err := parseURL(cfg.URL); err != nil {
		faults = append(faults, err)
	}
	if len(cfg.Audiences) == 0 {
		fault("Audiences is empty: add the identifier of the API that tokens are for")
	}
	for n, audience := range cfg.Audiences {
		if audience == "" {
			fault("Audiences[%d] is empty: remove it or add an audience", n)
		}
	}
	for n, scope := range cfg.Scopes {
		if !isScopeToken(scope) {
			fault("Scopes[%d] is %q: a scope is one or more printable ASCII characters other "+
				"than space, \" and \\ (RFC 6749 §3.3)", n, scope)
		}
	}
	cfg.checkClients(fault)
	cfg.checkPeople(fault)
	if id := cfg.Registration; id != "" && !slices.ContainsFunc(cfg.Clients, func(c Client) bool {
		return c.ID == id && c.Secret == "" && len(c.RedirectURIs) > 0
	}) {
		fault("Registration is %q: it must be the ID of a client without Secret and with "+
			"RedirectURIs", id)
	}
	if !slices.Contains(algorithms(), cfg.Algorithm) {
		fault("%v", unknownAlgorithm(cfg.Algorithm))
	}
	if cfg.TokenLifetime < time.Second || cfg.TokenLifetime%time.Second != 0 {
		fault("TokenLifetime is %v: it must be whole seconds, at least one", cfg.TokenLifetime)
	}
	return errors.Join(faults...)
}

func (cfg Config) checkClients(fault func(format string, args ...any)) {
	seen := make(map[string]bool)
	for n, client := range cfg.Clients {
		if !isVisible(client.ID) {
			fault("Clients[%d].ID is %q: it must be one or more printable ASCII characters (RFC "+
				"6749 appendix A.1)", n, client.ID)
		}
		if seen[client.ID] {
			fault("Clients[%d].ID is %q, the ID of an earlier client: give each client its own", n,
				client.ID)
		}
		seen[client.ID] = true
		switch {
		case client.Secret == "" && len(client.RedirectURIs) == 0:
			fault("Clients[%d] (%q) has neither a Secret, for the client credentials grant, nor "+
				"RedirectURIs, to sign people in: add one of them", n, client.ID)
		case client.Secret != "" && !isVisible(client.Secret):
			fault("Clients[%d] (%q) has a Secret that is not printable ASCII (RFC 6749 appendix "+
				"A.2)", n, client.ID)
		}
		for _, scope := range client.Scopes {
			if !slices.Contains(cfg.Scopes, scope) {
				fault("Clients[%d] (%q) has scope %q, which is not in Scopes: add it "+
					"there, or remove it here", n, client.ID, scope)
			}
		}
		for _, uri := range client.RedirectURIs {
			if err := redirectFault(uri); err != nil {
				fault("Clients[%d] (%q): the redirect URI %w", n, client.ID, err)
			}
		}
		if len(client.RedirectURIs) > 0 && len(cfg.People) == 0 {
			fault("Clients[%d] (%q) has RedirectURIs, but People is empty: add "+
				"People, or remove them", n, client.ID)
		}
		if len(client.RedirectURIs) > 0 && slices.Contains(cfg.Audiences, client.ID) {
			fault("Clients[%d].ID is %q, also one of Audiences: its ID tokens would pass for "+
				"access tokens: give it another", n, client.ID)
		}
	}
}

func (cfg Config) checkPeople(fault func(format string, args ...any)) {
	names := make(map[string]bool)
	for n, person := range cfg.People {
		if !isVisible(person.Name) || len(person.Name) > 255 {
			fault("People[%d].Name is %q: it must be 1 to 255 printable ASCII characters (OpenID "+
				"Connect Core 1.0 §2)", n, person.Name)
		}
		if strings.HasSuffix(person.Name, clientSubject) {
			fault("People[%d].Name is %q: names that end with %s are for clients (RFC 9068 "+
				"§5)", n, person.Name, clientSubject)
		}
		if names[person.Name] {
			fault("People[%d].Name is %q, the name of an earlier person: give each its own", n,
				person.Name)
		}
		names[person.Name] = true
		for _, scope := range person.Scopes {
			if !slices.Contains(cfg.Scopes, scope) {
				fault("People[%d] (%q) has scope %q, which is not in Scopes: add it "+
					"there, or remove it here", n, person.Name, scope)
			}
		}
	}
}

// parseURL parses an issuer identifier (OpenID Connect Discovery 1.0 §3, RFC 8414 §2: no query, no
// fragment), which must be on a loopback host.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf(
			"devissuer: URL is %q, which is not a valid URL: expected one such as http://localhost:3010/",
			raw,
		)
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return nil,
			fmt.Errorf("devissuer: URL is %q: an issuer identifier has no user, query or fragment",
				u.Redacted())
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("devissuer: URL is %q: its scheme must be http or https", raw)
	case !token.IsLoopback(u.Hostname()):
		return nil, fmt.Errorf("devissuer: URL is %q: the development issuer is for one machine "+
			"only, so its host must be localhost, in 127.0.0.0/8, or [::1]", raw)
	}
	return u, nil
}
