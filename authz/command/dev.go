package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/token"
)

// Dev is what the command dev needs beside the rest of the App. Only Issuer has no default.
type Dev struct {
	// Issuer returns the development issuer, such as devissuer.ForDev does. Its clients are full, which
	// may have all scopes, and none, which may have none, both with the secret, and the public client
	// app, in which people sign in.
	Issuer func(url, secret string, audiences, scopes []string) (Issuer, error)
	// Open is App.Open for dev, which usually has another database. Default App.Open.
	Open Opener
}

// Issuer is a token issuer beside the API: see [server.Issuer].
type Issuer = interface {
	http.Handler
	Serves(path string) bool
}

// devOpener opens what dev needs to answer.
func (a App) devOpener() Opener {
	if a.Dev != nil && a.Dev.Open != nil {
		return a.Dev.Open
	}
	return a.Open
}

type devCommand struct {
	Addr        string       `default:"localhost:3010" help:"Address to listen on, of a loopback host."`
	CORSOrigins []string     `name:"cors-origins" placeholder:"ORIGIN" help:"Origins whose pages may call from a browser, such as http://localhost:3000, separated by commas. Default: none."`
	Policy      policyConfig `embed:""`
	Program     kong.Plugins `embed:""` // the flags of Dev.Open
	Log         logConfig    `embed:""`
}

type tokenCommand struct {
	URL    string   `default:"${dev_url}" help:"Where dev is."`
	Client string   `enum:"full,none" default:"full" help:"Who asks: full may have every scope of the document, none may have none."`
	Scope  []string `sep:"none" help:"Scope to ask for; may be repeated. Default: all that the client may have."`
}

// What dev and token, two processes, agree on. The secret protects nothing: its issuer answers this
// machine alone, and nobody else trusts what it signs.
const (
	devAudience = "https://quickstarts/api"
	devSecret   = "for-development-only"
	devURL      = "http://localhost:3010"
)

// dev runs the API with the development issuer inside.
func (p *program) dev(ctx context.Context, c *devCommand) error {
	log, err := c.Log.logger(p.prefix(), p.stderr)
	host, _, addrErr := net.SplitHostPort(c.Addr)
	if addrErr != nil || !token.IsLoopback(host) {
		err = errors.Join(err, fmt.Errorf("--addr is %q: expected a port of a loopback host, such as localhost:3010, for dev gives tokens to whoever asks; elsewhere, serve listens", c.Addr))
	}
	for _, origin := range c.CORSOrigins {
		if fault := server.CheckOrigin(origin); fault != nil {
			err = errors.Join(err, fmt.Errorf("--cors-origins is %q: expected %w", origin, fault))
		}
	}
	policy, policyErr := c.Policy.policy(p.prefix())
	if err = errors.Join(err, policyErr, check(p.devOpener())); err != nil {
		return &configurationError{err}
	}
	document, err := policy.document(p.Document)
	if err != nil {
		return err
	}
	plan, err := authz.Config{Document: document, Without: policy.without, Unstated: policy.unstated}.CompileSecurity()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("--addr is %q: %w", c.Addr, err)
	}
	local := listener.Addr().(*net.TCPAddr)
	if !local.IP.IsLoopback() { // a hosts file can say anything of localhost
		return errors.Join(&configurationError{fmt.Errorf("--addr is %q, which is %s here: expected a loopback address, such as 127.0.0.1:3010", c.Addr, local.IP)}, listener.Close())
	}
	api := "http://" + net.JoinHostPort(host, fmt.Sprint(local.Port))

	// The second audience is for clients that know nothing but the address: they ask for what the
	// metadata calls the resource.
	audiences := []string{devAudience, api}
	issuer, err := p.Dev.Issuer(api+"/", devSecret, audiences, plan.Scopes())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	welcome(p.stdout, api, policy.prefix(), plan)
	return p.run(ctx, listener, p.devOpener(), policy, server.Config{
		Document:        document,
		Issuers:         []token.Issuer{{URL: api + "/", Audiences: audiences, DPoP: token.DPoPAllowed}},
		Resource:        api,
		CORSOrigins:     c.CORSOrigins,
		Docs:            true,
		Logger:          log,
		InsecureIssuer:  issuer,
		InsecureClients: &docs.Clients{ID: "full", Secret: devSecret, App: "app"},
	}, func(*server.Server) {})
}

// welcome shows a newcomer what to do. Its commands work when pasted as they are, with sh, sed and
// curl.
func welcome(w io.Writer, api, basePath string, plan *authz.Plan) {
	elsewhere := ""
	if api != devURL {
		elsewhere = " --url " + api
	}
	fmt.Fprintf(w, `
  API      %-28s (%d operations)
  Issuer   %-28s DEVELOPMENT ONLY: loopback, key made at start
  Docs     %s/docs

  get a token:
    TOKEN=$(go run . token%s)
  or, without Go:
    TOKEN=$(curl -s %s/oauth/token -d grant_type=client_credentials -d client_id=full -d client_secret=%s -d audience=%s | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  call it:
    curl -H "Authorization: Bearer $TOKEN" %s%s

  client_id=none gets a token without scopes. Apps sign in alice, who may do all, and bob, who may read:
  client_id=app, authorization code with PKCE. Stop with Ctrl-C.

`, api, len(plan.Operations()), api+"/", api, elsewhere, api, devSecret, devAudience, api+basePath, mostGuarded(plan))
}

// mostGuarded returns the path, ready to call, of the operation that asks for the most scopes.
func mostGuarded(plan *authz.Plan) string {
	path, most := "/", -1
	for _, o := range plan.Operations() {
		if len(o.Alternatives) > 1 {
			continue // there is more than one way in
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

// token asks the issuer of a running dev for a token, as any client would (RFC 6749 §4.4.2).
func (p *program) token(ctx context.Context, c *tokenCommand) error {
	source, err := client.New(ctx, devClient(c.URL, c.Client, c.Scope))
	if err != nil {
		return &configurationError{fmt.Errorf("--url is %q: expected a URL such as %s: %w", c.URL, devURL, err)}
	}
	token, err := source.Token()
	if err != nil {
		return noToken(err, true)
	}
	_, err = fmt.Fprintln(p.stdout, token.AccessToken)
	return err
}

// devClient is one of dev's clients. The endpoint is not discovered, because the issuer's own name for
// it is only one of those that this machine has.
func devClient(api, id string, scopes []string) client.Config {
	return client.Config{
		TokenURL: strings.TrimSuffix(api, "/") + "/oauth/token",
		ClientID: id, ClientSecret: devSecret, Audience: devAudience, Scopes: scopes,
	}
}

// noToken says why there is no token, and what to do if a running dev was asked.
func noToken(err error, ofDev bool) error {
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case ok && refused.ErrorCode != "":
		return fmt.Errorf("the issuer refuses: %s: %s", refused.ErrorCode, refused.ErrorDescription)
	case ok:
		err = fmt.Errorf("the issuer answers %s, not as an issuer does", refused.Response.Status)
	default:
		err = fmt.Errorf("no issuer answers: %w", err)
	}
	if ofDev {
		return fmt.Errorf("%w: run dev, or say with --url where it is", err)
	}
	return err
}
