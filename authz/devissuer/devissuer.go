// Package devissuer is a token issuer for one machine: what `dev` runs so that
// nobody needs an account to see the API work, and what tests use to see how a
// server treats tokens, key rotation and outages.
//
// It is never for production. Its URL must be on a loopback host, it answers
// only requests made to one, and its keys are made at start and written nowhere.
//
// At oauth/token it speaks the client credentials grant (RFC 6749 §4.4), and it
// publishes .well-known/openid-configuration and .well-known/jwks.json, all
// below the path of its URL. Where the RFCs leave a choice:
//
//   - The parameter audience is required and names one audience; an unknown one
//     is invalid_target (RFC 8707 §2, RFC 8693 §2.2.2). The parameter resource
//     says the same (RFC 8707), for clients that know nothing of audience.
//   - A request without scope gets every scope that the client may have
//     (RFC 6749 §3.3). When that is none, both the answer and the token leave
//     scope out, because an empty string is not a scope.
//   - A request with a DPoP proof (RFC 9449 §5) gets a token that is bound to the
//     proof's key; server nonces are not asked for.
//   - Parameters come in the body, as a form or as a JSON object of strings. A
//     request with a query is refused: secrets in a URL end up in logs (§2.3.1).
//
// With [Config].People it also signs people in, at authorize: the authorization
// code grant (RFC 6749 §4.1) for clients with RedirectURIs, with PKCE by S256
// for all of them (RFC 7636, RFC 9700 §2.1.1), and OpenID Connect. There is no
// password and no session: the sign-in page has a button for each person, and
// posts the request again together with person, the name on the button. Here
//
//   - A redirect URI is the client's exactly, but for the port of one on this
//     machine (RFC 8252 §7.3). Who answers stands in iss (RFC 9207).
//   - A request that names no audience is for the first, because the clients of
//     OpenID Connect know of none.
//   - A person gives what the client asks for as far as the person may have it;
//     the answer's scope says what that is.
//   - openid, profile, email and offline_access are not the API's, and stay out
//     of the access token (RFC 9068 §2.2.3), unless [Config].Scopes has them.
//     Name and email stand in the ID token, and at oauth/userinfo (OpenID Connect
//     Core 1.0 §5.3), which takes bearer tokens only.
//   - A code works once, for 60 s, and is spent by whoever shows it. With
//     offline_access there is a refresh token, which works once within 24 h and
//     brings the next. One that is shown again, code or refresh token, ends the
//     sign-in that it came of (RFC 9700 §4.14.2), and its access tokens are no
//     longer active. A thousand sign-ins are remembered.
//   - dpop_jkt binds the code to a key (RFC 9449 §10), and a proof the refresh
//     token of a client without a secret (§5).
//
// At oauth/introspect it says whether an access token of its own is active
// (RFC 7662), to every client with a secret, and at oauth/revoke a client takes
// back its tokens (RFC 7009). An API that verifies tokens by key alone goes on
// accepting those until they expire. The last 10,000 tokens of people, and
// tokens that were revoked, are remembered.
//
// With [Config].Registration clients register themselves at oauth/register
// (RFC 7591), up to a hundred, and are forgotten when the issuer ends. Such a
// client is public, has redirect URIs of http on localhost, 127.0.0.1 and [::1]
// only, and no more scopes than the client that the configuration names. The
// request must be application/json, which a page elsewhere cannot send without
// being allowed to (CORS). A person must press a button each time, whichever
// client asks.
//
// In a test, [Start] runs one on a free port; [Issuer.Mint] makes genuine
// tokens, [Issuer.Sign] and [Issuer.SignBytes] make any others, and
// [Issuer.Rotate], [Issuer.RemoveKey], [Issuer.Publish] and [Issuer.Fail]
// change what the issuer shows of itself. A [Prover] is the client's key, and
// makes the proofs, for tokens that are bound to one.
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
	// the issuer identifier, exactly as it stands in iss; http(s) on a loopback host
	URL       string
	Audiences []string // the audiences for which tokens are issued; Mint uses the first
	Scopes    []string // every scope that exists
	Clients   []Client // who may ask for tokens
	// who may sign in at the authorization endpoint; without any there is none
	People []Person
	// ID of the public client whose Scopes clients that register themselves may have; "": none may
	Registration  string
	Algorithm     string           // of the first key; default RS256
	TokenLifetime time.Duration    // default 1 h; whole seconds
	Now           func() time.Time // default time.Now
}

// Client is a client (RFC 6749 §2.1) and the scopes that it may have. One with a
// Secret is confidential, and may have tokens for itself; one without is public.
// One with RedirectURIs signs people in.
type Client struct {
	ID, Secret string
	Scopes     []string
	// exactly as they are asked for; of http on localhost, 127.0.0.1 and [::1] any port will do
	RedirectURIs []string

	name string // what one that registered itself calls itself
}

// Person is somebody who signs in, by a click. Name is the sub of the tokens.
type Person struct {
	Name   string
	Scopes []string // what the person may let a client have
}

// Issuer issues tokens and publishes the keys that verify them. Its methods
// may be called concurrently, also while it serves.
type Issuer struct {
	cfg       Config
	path      string // of cfg.URL, without the trailing slash
	endpoints string // cfg.URL without the trailing slash: what endpoint URLs begin with

	grants               grants              // what people let clients have
	tokens               tokens              // access tokens of which more is known than they say
	registered           registered          // clients that registered themselves
	proofs               *token.ReplayMemory // DPoP proofs that were used
	discoveries, keySets atomic.Int64

	mu        sync.RWMutex // guards what follows
	current   *signingKey
	published []*signingKey
	extra     []json.RawMessage
	fault     Fault
}

// Paths of the endpoints, below the path of the issuer's URL.
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

// endpoint is what answers at a path.
type endpoint struct {
	methods []string
	serve   http.HandlerFunc
}

// endpoint returns the endpoint of a path. No path of a disabled one is the issuer's.
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
	case below == authorizePath && i.signsIn():
		return endpoint{append(read, http.MethodPost), i.serveAuthorize}, true
	case below == userInfoPath && i.signsIn():
		return endpoint{append(read, http.MethodPost), i.serveUserInfo}, true
	case below == registerPath && i.cfg.Registration != "":
		return endpoint{write, i.serveRegistration}, true
	}
	return endpoint{}, false
}

// New makes an issuer and its first key. The error joins every fault of cfg.
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

// URL is the issuer identifier: the iss of every token.
func (i *Issuer) URL() string { return i.cfg.URL }

// Serves says whether path is one of the issuer's own, so that a handler which
// shares the port can hand it exactly these.
func (i *Issuer) Serves(path string) bool {
	_, ok := i.endpoint(path)
	return ok
}

// signsIn says whether there is anybody to sign in.
func (i *Issuer) signsIn() bool { return len(i.cfg.People) > 0 }

// client returns the client of an ID, configured or registered.
func (i *Issuer) client(id string) (Client, bool) {
	if n := slices.IndexFunc(i.cfg.Clients, func(c Client) bool { return c.ID == id }); n >= 0 {
		return i.cfg.Clients[n], true
	}
	return i.registered.get(id)
}

// ServeHTTP answers the paths that [Issuer.Serves] names, and 404 elsewhere.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !fromThisMachine(r) {
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
			"The development issuer has nothing here: "+i.endpoints+discoveryPath+
				" lists its endpoints.",
		)
		return
	}
	if allow(w, r, e.methods...) {
		e.serve(w, r)
	}
}

// fromThisMachine guards against the browser. A page anywhere can have its own
// name resolve to 127.0.0.1 and so become same-origin with this server (DNS
// rebinding); it cannot choose the Host or the Origin that the browser sends.
func fromThisMachine(r *http.Request) bool {
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

// problem answers what is no business of OAuth's (RFC 9457).
func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(encode(map[string]any{"type": "about:blank", "title": http.StatusText(status),
		"status": status, "detail": detail}))
}

// faults joins everything that is wrong with the configuration. No message
// shows a secret.
func (cfg Config) faults() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("devissuer: "+format, args...))
	}

	if _, err := parseURL(cfg.URL); err != nil {
		faults = append(faults, err)
	}
	if len(cfg.Audiences) == 0 {
		fault("Audiences is empty: name at least one audience, the API that tokens are for")
	}
	for n, audience := range cfg.Audiences {
		if audience == "" {
			fault("Audiences[%d] is empty: remove it, or name an audience", n)
		}
	}
	for n, scope := range cfg.Scopes {
		if !isScopeToken(scope) {
			fault("Scopes[%d] is %q: a scope is one or more printable ASCII characters other "+
				"than space, \" and \\ (RFC 6749 §3.3)", n, scope)
		}
	}
	seen := make(map[string]bool)
	for n, client := range cfg.Clients {
		if !isVisible(client.ID) {
			fault("Clients[%d].ID is %q: it must be one or more printable ASCII characters (RFC "+
				"6749 appendix A.1)", n, client.ID)
		}
		if seen[client.ID] {
			fault("Clients[%d].ID is %q, as that of an earlier client: give each client its own", n,
				client.ID)
		}
		seen[client.ID] = true
		switch {
		case client.Secret == "" && len(client.RedirectURIs) == 0:
			fault("Clients[%d] (%q) has neither a Secret, to have tokens for itself, nor "+
				"RedirectURIs, to sign people in: give it one of them", n, client.ID)
		case client.Secret != "" && !isVisible(client.Secret):
			fault("Clients[%d] (%q) has a Secret that is not printable ASCII (RFC 6749 appendix "+
				"A.2)", n, client.ID)
		}
		for _, scope := range client.Scopes {
			if !slices.Contains(cfg.Scopes, scope) {
				fault("Clients[%d] (%q) may have scope %q, which is not among Scopes: add it "+
					"there, or remove it here", n, client.ID, scope)
			}
		}
		for _, uri := range client.RedirectURIs {
			if err := redirectFault(uri); err != nil {
				fault("Clients[%d] (%q): the redirect URI %w", n, client.ID, err)
			}
		}
		if len(client.RedirectURIs) > 0 && len(cfg.People) == 0 {
			fault("Clients[%d] (%q) has RedirectURIs, but there is nobody to sign in: add "+
				"People, or remove them", n, client.ID)
		}
		if len(client.RedirectURIs) > 0 && slices.Contains(cfg.Audiences, client.ID) {
			fault("Clients[%d].ID is %q, as one of Audiences is: its ID tokens would pass for "+
				"access tokens: give it another", n, client.ID)
		}
	}
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
			fault("People[%d].Name is %q, as that of an earlier person: give each person a name", n,
				person.Name)
		}
		names[person.Name] = true
		for _, scope := range person.Scopes {
			if !slices.Contains(cfg.Scopes, scope) {
				fault("People[%d] (%q) may have scope %q, which is not among Scopes: add it "+
					"there, or remove it here", n, person.Name, scope)
			}
		}
	}
	if id := cfg.Registration; id != "" && !slices.ContainsFunc(cfg.Clients, func(c Client) bool {
		return c.ID == id && c.Secret == "" && len(c.RedirectURIs) > 0
	}) {
		fault(
			"Registration is %q: it must be the ID of a client without Secret and with "+
				"RedirectURIs",
			id,
		)
	}
	if !slices.Contains(algorithms(), cfg.Algorithm) {
		fault("%v", unknownAlgorithm(cfg.Algorithm))
	}
	if cfg.TokenLifetime < time.Second || cfg.TokenLifetime%time.Second != 0 {
		fault("TokenLifetime is %v: it must be whole seconds, at least one", cfg.TokenLifetime)
	}
	return errors.Join(faults...)
}

// parseURL parses an issuer identifier (OpenID Connect Discovery 1.0 §3,
// RFC 8414 §2: no query, no fragment), and holds it to a loopback host.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf(
			"devissuer: URL is %q, which does not parse: give one like http://localhost:3010/",
			raw,
		)
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return nil,
			fmt.Errorf("devissuer: URL is %q: an issuer identifier has no user, query or fragment",
				u.Redacted())
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("devissuer: URL is %q: its scheme must be http or https", raw)
	case !token.IsLoopback(u.Hostname()):
		return nil, fmt.Errorf("devissuer: URL is %q: the development issuer is for this machine "+
			"alone, so its host must be localhost, in 127.0.0.0/8, or [::1]", raw)
	}
	return u, nil
}
