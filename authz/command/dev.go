package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/alecthomas/kong"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/token"
)

// Dev configures the commands dev and token. Only Issuer has no default.
type Dev struct {
	// Issuer returns the development issuer: see devissuer.ForDev. It has three clients: full is
	// granted all scopes, none is granted no scopes, and both use the secret; app is a public
	// client, in which users sign in.
	Issuer func(url, secret string, audiences, scopes []string) (Issuer, error)
	// Open opens the service for dev, usually with a database of its own. Default: App.Open.
	Open Opener
}

// Issuer is a token issuer that runs with the API: see [server.Issuer].
type Issuer = interface {
	http.Handler
	Serves(path string) bool
}

// devOpener returns the Opener of the command dev.
func (a App) devOpener() Opener {
	if a.Dev != nil && a.Dev.Open != nil {
		return a.Dev.Open
	}
	return a.Open
}

type devCommand struct {
	Addr        string       `default:"localhost:3010" help:"Loopback address to listen on."`
	CORSOrigins []string     `name:"cors-origins" placeholder:"ORIGIN" help:"Origins whose pages can call the API from a browser, such as http://localhost:3000, separated by commas. Default: none."`
	Policy      policyConfig `embed:""`
	Program     kong.Plugins `embed:""` // the flags of Dev.Open
	Log         logConfig    `embed:""`
}

type tokenCommand struct {
	URL    string   `default:"${dev_url}" help:"URL of the running dev."`
	Client string   `enum:"full,none" default:"full" help:"Client to get a token for: full is granted all scopes of the document, none is granted no scopes."`
	As     string   `placeholder:"PERSON" help:"Sign in as a person instead: alice has all scopes, bob can only read."`
	Scope  []string `sep:"none" help:"Scope to request; can be repeated. Default: all scopes of the client or the person."`
	JSON   bool     `name:"json" help:"Print the response of the token endpoint."`
}

// Constants that the processes dev and token share. The secret protects nothing: the development
// issuer only listens on loopback, and no other server trusts its tokens.
const (
	devAudience = "https://quickstarts/api"
	devID       = "full" // of the client that is granted all scopes
	devSecret   = "for-development-only"
	devURL      = "http://localhost:3010"
)

// dev runs the API with the development issuer inside.
func (p *program) dev(ctx context.Context, c *devCommand) error {
	logged := &heldWriter{w: p.stderr}
	defer logged.release()
	log, _, err := c.Log.logger(p.prefix(), logged)
	policy, policyErr := c.Policy.policy(p.prefix())
	if err = errors.Join(err, c.check(), policyErr, check(p.devOpener())); err != nil {
		return &configurationError{err}
	}
	document, err := policy.document(p.Document)
	if err != nil {
		return err
	}
	plan, err := policy.plan(document)
	if err != nil {
		return err
	}
	if err := policy.addDevSecrets(plan); err != nil {
		return err
	}
	listener, api, err := listenOnLoopback(c.Addr)
	if err != nil {
		return err
	}
	defer listener.Close()

	// The second audience is for clients that only know the address: they request a token for the
	// resource that the metadata names.
	audiences := []string{devAudience, api}
	issuer, err := p.Dev.Issuer(api+"/", devSecret, audiences, plan.Scopes())
	if err != nil {
		return err
	}
	p.unknownVariables(log)
	config := server.Config{
		Gate:     func(c *authz.Config) { c.Responses = authz.LogResponses },
		Document: document,
		Issuers: []token.Issuer{
			{
				URL: api + "/", Audiences: audiences, DPoP: token.DPoPAllowed,
				// For operations with x-authz-introspect.
				Introspection: token.Introspection{ClientID: "none", ClientSecret: devSecret},
			},
		},
		Resource:        api,
		CORSOrigins:     c.CORSOrigins,
		Docs:            true,
		Logger:          log,
		InsecureIssuer:  issuer,
		InsecureClients: &docs.Clients{ID: "full", Secret: devSecret, App: "app"},
	}
	bind := func() (net.Listener, error) { return listener, nil }
	return p.run(ctx, launch{
		listen: bind, opener: p.devOpener(), policy: policy, config: config,
	}, func(context.Context, *server.Server, *Service) {
		p.welcome(api, policy.prefix(), plan)
		logged.release()
	})
}

// check returns the faults of the flags, joined.
func (c *devCommand) check() (err error) {
	host, _, addrErr := net.SplitHostPort(c.Addr)
	if addrErr != nil || !token.IsLoopback(host) {
		err = fmt.Errorf("--addr is %q: expected a loopback host and a port, "+
			"such as localhost:3010, because dev issues tokens to everyone; for other addresses, "+
			"use serve", c.Addr)
	}
	for _, origin := range c.CORSOrigins {
		if fault := server.CheckOrigin(origin); fault != nil {
			err = errors.Join(err, fmt.Errorf("--cors-origins is %q: expected %w", origin, fault))
		}
	}
	return err
}

// listenOnLoopback listens on an address, and returns the URL of the API there.
func listenOnLoopback(addr string) (listener net.Listener, api string, err error) {
	if listener, err = net.Listen("tcp", addr); err != nil {
		return nil, "", listenError("--addr", addr, err)
	}
	local := listener.Addr().(*net.TCPAddr)
	if !local.IP.IsLoopback() { // a hosts file can map localhost to any address
		err := fmt.Errorf(
			"--addr is %q, which resolves to %s: expected a loopback address, such as "+
				"127.0.0.1:3010",
			addr,
			local.IP,
		)
		return nil, "", errors.Join(&configurationError{err}, listener.Close())
	}
	host, _, _ := net.SplitHostPort(addr) // it is valid: net.Listen takes it
	return listener, "http://" + net.JoinHostPort(host, fmt.Sprint(local.Port)), nil
}

// heldWriter keeps what is written until it is released, so that a terminal shows the banner before
// the log, although the banner is not printed before everything works.
type heldWriter struct {
	w        io.Writer
	mu       sync.Mutex // protects the fields below
	kept     []byte
	released bool
}

func (h *heldWriter) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		return h.w.Write(p)
	}
	h.kept = append(h.kept, p...)
	return len(p), nil
}

func (h *heldWriter) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = h.w.Write(h.kept)
	h.kept, h.released = nil, true
}

// welcome prints where everything is, and the first steps. The commands work as they are, with sh,
// sed and curl.
func (p *program) welcome(api, basePath string, plan *authz.Plan) {
	token := p.self + " token"
	if api != devURL {
		token += " --url " + api
	}
	fmt.Fprintf(p.stdout, `
  API      %-28s (%d operations)
  Docs     %s/docs
  Issuer   %-28s DEVELOPMENT ONLY: loopback, key made at start
  Token    %s

  get a token:
    TOKEN=$(%s)
  or, without Go:
    TOKEN=$(curl -s %s/oauth/token -d grant_type=client_credentials -d client_id=full -d client_secret=%s -d audience=%s | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  call it:
    curl -H "Authorization: Bearer $TOKEN" %s%s

  --as alice or --as bob gets the token of a person: alice has all scopes, bob can only read.
  Apps use client_id=app, authorization code with PKCE. Stop with Ctrl-C.

`, api, len(plan.Operations()), api, api+"/", token, token, api, devSecret, devAudience,
		api+basePath, mostScopes(plan))
}

// mostScopes returns the path of the GET operation without path parameters that requires the most
// scopes.
func mostScopes(plan *authz.Plan) string {
	path, most := "/", -1
	for _, o := range plan.Operations() {
		if len(o.Alternatives) > 1 {
			continue // the example uses a Bearer token only
		}
		scopes := 0
		for _, alternative := range o.Alternatives {
			for _, requirement := range alternative {
				scopes += len(requirement.Scopes)
			}
		}
		if o.Method == http.MethodGet && !strings.Contains(o.Path, "{") && scopes > most {
			path, most = o.Path, scopes
		}
	}
	return path
}

// token requests a token from a running dev and prints it.
func (p *program) token(ctx context.Context, c *tokenCommand) error {
	source, err := client.New(ctx, devClient(c.URL, c.Client, c.Scope))
	if err != nil {
		return &configurationError{
			fmt.Errorf("--url is %q: expected a URL such as %s: %w", c.URL, devURL, err),
		}
	}
	var token *oauth2.Token
	if c.As == "" {
		token, err = source.Token() // RFC 6749 §4.4.2
	} else {
		scopes := c.Scope
		if len(scopes) == 0 {
			_, plan, _, planErr := p.plan()
			if planErr != nil {
				return planErr
			}
			scopes = plan.Scopes()
		}
		token, err = signIn(ctx, c.URL, c.As, scopes)
	}
	if err != nil {
		return tokenError(err, startDev)
	}
	if c.JSON {
		scope, _ := token.Extra("scope").(string)
		return p.writeJSON(map[string]any{
			"access_token": token.AccessToken, "token_type": token.TokenType,
			"expires_in": token.ExpiresIn, "scope": scope,
		})
	}
	_, err = fmt.Fprintln(p.stdout, token.AccessToken)
	return err
}

// signIn returns the token of a person of dev, by the authorization code grant (RFC 6749 §4.1).
// dev asks for no password, so that no browser is needed.
func signIn(ctx context.Context, api, person string, scopes []string) (*oauth2.Token, error) {
	api = strings.TrimSuffix(api, "/")
	endpoint := oauth2.Endpoint{
		AuthURL: api + "/authorize", TokenURL: api + "/oauth/token",
		AuthStyle: oauth2.AuthStyleInParams,
	}
	// Nothing listens on the redirect URI: the code is read from the redirect.
	app := oauth2.Config{
		ClientID: "app", Endpoint: endpoint, RedirectURL: "http://localhost/callback", Scopes: scopes,
	}
	verifier := oauth2.GenerateVerifier()
	asked, err := url.Parse(app.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier),
		oauth2.SetAuthURLParam("audience", devAudience)))
	if err != nil {
		return nil, err
	}
	form := asked.Query()
	form.Set("person", person)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.AuthURL,
		strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := unredirected().Do(request)
	if err != nil {
		return nil, err
	}
	response.Body.Close()
	if response.StatusCode == http.StatusBadRequest {
		return nil, &configurationError{fmt.Errorf("--as is %q: expected alice or bob", person)}
	}
	answer, err := response.Location()
	if err != nil {
		return nil, &oauth2.RetrieveError{Response: response}
	}
	if code := answer.Query().Get("error"); code != "" {
		return nil, &oauth2.RetrieveError{
			Response: response, ErrorCode: code,
			ErrorDescription: answer.Query().Get("error_description"),
		}
	}
	return app.Exchange(ctx, answer.Query().Get("code"), oauth2.VerifierOption(verifier))
}

// unredirected returns a client that does not follow redirects.
func unredirected() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// devClient returns the configuration of a client of dev. The endpoint is not discovered, because
// discovery would only accept one of the names of this host.
func devClient(api, id string, scopes []string) client.Config {
	return client.Config{
		TokenURL: strings.TrimSuffix(api, "/") + "/oauth/token",
		ClientID: id, ClientSecret: devSecret, Audience: devAudience, Scopes: scopes,
	}
}

// startDev is what to do if dev does not answer.
const startDev = "start dev, or set --url to its address"

// tokenError describes why no token was issued, and what to do if the issuer cannot be reached.
func tokenError(err error, remedy string) error {
	if faulty, ok := errors.AsType[*configurationError](err); ok {
		return faulty
	}
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case ok && refused.ErrorCode != "":
		return fmt.Errorf("the issuer refused the request: %s: %s", refused.ErrorCode,
			refused.ErrorDescription)
	case ok:
		err = fmt.Errorf("the issuer returned %s without an OAuth error", refused.Response.Status)
	default:
		err = fmt.Errorf("cannot reach the issuer: %w", err)
	}
	if remedy != "" {
		return fmt.Errorf("%w: %s", err, remedy)
	}
	return err
}
