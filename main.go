// Command oasgate runs this API, guarded by its document, openapi.yaml.
//
//	oasgate dev     with a token issuer inside, on this machine alone, without any configuration
//	oasgate token   prints a token of a running dev
//	oasgate call    calls an operation of the API
//	oasgate serve   for a real issuer
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/alecthomas/kong"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/impl"
)

type commands struct {
	Dev   devCommand   `cmd:"" set:"log_format=text" help:"Run the API with a token issuer inside, on this machine alone. Needs no configuration."`
	Token tokenCommand `cmd:"" help:"Print an access token from a running dev, and nothing else."`
	Call  callCommand  `cmd:"" passthrough:"" help:"Call an operation of the API, or list them: call <operation> --help."`
	Serve serveCommand `cmd:"" set:"log_format=json" help:"Run the API for a real issuer."`
}

type devCommand struct {
	Addr        string         `default:"localhost:3010" help:"Address to listen on, of a loopback host."`
	CORSOrigins []string       `name:"cors-origins" placeholder:"ORIGIN" help:"Origins whose pages may call from a browser, such as http://localhost:3000, separated by commas. Default: none."`
	Database    string         `default:"sqlite:data/dev.db" help:"Where messages are kept. Never serve's: no key of the environment sets it."`
	Log         impl.LogConfig `embed:""`
}

type tokenCommand struct {
	URL    string   `default:"${dev_url}" help:"Where dev is."`
	Client string   `enum:"full,none" default:"full" help:"Who asks: full may have every scope of the document, none may have none."`
	Scope  []string `sep:"none" help:"Scope to ask for; may be repeated. Default: all that the client may have."`
}

type serveCommand struct {
	Config impl.Config    `embed:""`
	Log    impl.LogConfig `embed:""`
}

// What `dev` and `token`, two processes, agree on. The secret is worth nothing: the issuer that takes it answers this
// machine alone, and what it signs nobody else trusts.
const (
	devAudience = "https://quickstarts/api"
	devSecret   = "for-development-only"
	devURL      = "http://localhost:3010"
)

// linger is longer than load balancers commonly take to notice that a server is no longer ready.
const linger = 3 * time.Second

func main() {
	// The heap that lives is a megabyte or two, and every request leaves a little garbage: at the usual setting a fifth of
	// the time would go into collecting it, every 4 MB. What is reserved here, and never touched, counts as living. An
	// operator's own GOGC stands.
	var reserve []byte
	if os.Getenv("GOGC") == "" {
		reserve = make([]byte, 16<<20)
		debug.SetGCPercent(200)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal does not wait for requests under way
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	runtime.KeepAlive(reserve)
	os.Exit(code)
}

// run is the whole program; tests run it too. It returns the exit code: 2 for wrong usage and faults of the
// configuration, 1 for what fails later.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	env, err := impl.ReadEnvironment(environ, ".env")
	if err != nil {
		return complain(stderr, err, 2)
	}
	var c commands
	helped := false
	parser, err := kong.New(&c,
		kong.Name("oasgate"),
		kong.Description("An API whose OpenAPI document is its access policy."),
		kong.Vars{"dev_url": devURL},
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
			if value := env.Lookup(flag.Tag.Get("key")); value != "" {
				return value, nil
			}
			return nil, nil
		})),
		kong.ValueFormatter(func(value *kong.Value) string {
			if key := value.Tag.Get("key"); key != "" {
				return value.Help + " [" + key + "]"
			}
			return value.Help
		}),
	)
	if err != nil {
		return complain(stderr, err, 1)
	}
	command, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return complain(stderr, fmt.Errorf("%w: see oasgate --help", err), 2)
	}
	switch command.Selected().Name {
	case "dev":
		err = c.Dev.run(ctx, stdout, stderr)
	case "token":
		err = c.Token.run(ctx, stdout)
	case "call":
		err = c.Call.run(ctx, env, os.Stdin, stdout, stderr)
	case "serve":
		err = c.Serve.run(ctx, stderr)
	}
	var faulty *configurationError
	switch {
	case errors.As(err, &faulty):
		return complain(stderr, err, 2)
	case err != nil:
		return complain(stderr, err, 1)
	}
	return 0
}

// complain prints an error, of joined ones each on its own line.
func complain(stderr io.Writer, err error, code int) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "oasgate: %s\n", printable(strings.TrimSpace(line)))
	}
	return code
}

// printable takes out of a text what a terminal would act upon instead of showing it: an error may repeat what a server
// has said.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r) || r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		}
		return unicode.ReplacementChar
	}, text)
}

// configurationError is for the operator to put right before anything can start.
type configurationError struct{ error }

func (c *serveCommand) run(ctx context.Context, stderr io.Writer) error {
	hangups := make(chan os.Signal, 1)
	if c.Config.File != "" { // else SIGHUP ends the process, as usual
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	settings, err := c.Config.Settings()
	log, logErr := c.Log.Logger(stderr)
	if err := errors.Join(err, logErr); err != nil {
		return &configurationError{err}
	}
	listener, err := net.Listen("tcp", settings.Addr)
	if err != nil {
		return fmt.Errorf("OASGATE_ADDR is %q: %w", settings.Addr, err)
	}
	return serve(ctx, listener, settings, server.Config{Logger: log, Linger: linger}, func(server *server.Server) {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				if err := c.reload(server); err != nil {
					log.Error("the issuers stay as they were", "faults", strings.Split(err.Error(), "\n"))
				}
			}
		}
	})
}

// reload reads the file of issuers again. Whatever is wrong with it, or with how it goes with the rest, the server goes
// on as before.
func (c *serveCommand) reload(server *server.Server) error {
	settings, err := c.Config.Settings()
	if err != nil {
		return err
	}
	return server.Reload(settings.Issuers)
}

func (c *devCommand) run(ctx context.Context, stdout, stderr io.Writer) error {
	log, err := c.Log.Logger(stderr)
	host, _, addrErr := net.SplitHostPort(c.Addr)
	if addrErr != nil || !token.IsLoopback(host) {
		err = errors.Join(err, fmt.Errorf("--addr is %q: expected a port of a loopback host, such as localhost:3010, for dev gives tokens to whoever asks; elsewhere, serve listens", c.Addr))
	}
	for _, origin := range c.CORSOrigins {
		if fault := server.CheckOrigin(origin); fault != nil {
			err = errors.Join(err, fmt.Errorf("--cors-origins is %q: expected %w", origin, fault))
		}
	}
	if err != nil {
		return &configurationError{err}
	}
	plan, err := impl.Plan()
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

	issuer, err := devissuer.New(devissuer.Config{
		URL:       api + "/",
		Audiences: []string{devAudience, api},
		Scopes:    plan.Scopes(),
		Clients: []devissuer.Client{
			{ID: "full", Secret: devSecret, Scopes: plan.Scopes()},
			{ID: "none", Secret: devSecret},
			{ID: "app", Scopes: plan.Scopes(), RedirectURIs: devRedirectURIs()},
		},
		People: []devissuer.Person{
			{Name: "alice", Scopes: plan.Scopes()},
			{Name: "bob", Scopes: reading(plan.Scopes())},
		},
	})
	if err != nil {
		return err
	}
	var settings impl.Settings
	// The second is for clients that know nothing but the address: they ask for what the metadata calls the resource.
	settings.Issuers = []token.Issuer{{URL: issuer.URL(), Audiences: []string{devAudience, api}, DPoP: token.DPoPAllowed}}
	settings.Resource = api
	settings.DatabaseURL = c.Database
	settings.CORSOrigins = c.CORSOrigins
	settings.Docs = true

	welcome(stdout, api, plan)
	return serve(ctx, listener, settings, server.Config{
		Logger:         log,
		InsecureIssuer: issuer, InsecureClients: &docs.Clients{ID: "full", Secret: devSecret, App: "app"},
	}, func(*server.Server) {})
}

// devRedirectURIs are those that apps commonly have, on any port, and that of the docs page.
func devRedirectURIs() (uris []string) {
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]"} {
		for _, path := range []string{"/", "/callback", "/docs/oauth2-redirect.html"} {
			uris = append(uris, "http://"+host+path)
		}
	}
	return uris
}

// reading are the scopes by whose names one reads what is one's own.
func reading(scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return !strings.HasPrefix(scope, "read:") || strings.HasSuffix(scope, ":all")
	})
}

// serve runs until ctx ends and requests under way have ended; keys are fetched, and the store is open, as long as there
// are any. Beside it runs what attends to the server.
func serve(ctx context.Context, listener net.Listener, settings impl.Settings, config server.Config, attend func(*server.Server)) (err error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	store, err := impl.OpenStore(ctx, impl.StoreConfig{URL: settings.DatabaseURL, Logger: config.Logger})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if config.Document, err = gen.GetSpec(); err != nil {
		return errors.Join(err, listener.Close())
	}
	config.Routes = impl.Routes(impl.Handlers{Messages: store})
	config.Issuers, config.Resource, config.NonceKey = settings.Issuers, settings.Resource, settings.NonceKey
	config.CORSOrigins, config.Docs, config.TrustedProxies = settings.CORSOrigins, settings.Docs, settings.TrustedProxies
	if url := settings.ReplayStore; url != "" {
		replays, err := impl.OpenReplays(url)
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		defer replays.Close()
		config.Replays = replays
	}
	server, err := server.New(life, config)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	config.Logger.Info("serving", "addr", listener.Addr().String())
	go attend(server)
	return server.Serve(ctx, listener)
}

// welcome shows a newcomer the way. Its commands work when pasted as they are, with sh, sed and curl.
func welcome(w io.Writer, api string, plan *authz.Plan) {
	elsewhere := ""
	if api != devURL {
		elsewhere = " --url " + api
	}
	fmt.Fprintf(w, `
  API      %-28s (%d operations, from openapi.yaml)
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

`, api, len(plan.Operations()), api+"/", api, elsewhere, api, devSecret, devAudience, api, mostGuarded(plan))
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

// run asks the issuer of a running dev for a token, as any client would (RFC 6749 §4.4.2).
func (c *tokenCommand) run(ctx context.Context, stdout io.Writer) error {
	source, err := client.New(ctx, devClient(c.URL, c.Client, c.Scope))
	if err != nil {
		return &configurationError{fmt.Errorf("--url is %q: expected a URL such as %s: %w", c.URL, devURL, err)}
	}
	token, err := source.Token()
	if err != nil {
		return noToken(err, true)
	}
	_, err = fmt.Fprintln(stdout, token.AccessToken)
	return err
}

// devClient is one of dev's clients, as whoever asks for a token. By any name that this machine has: the endpoint is not
// discovered, for then the issuer's own would be the only one.
func devClient(api, id string, scopes []string) client.Config {
	return client.Config{TokenURL: strings.TrimSuffix(api, "/") + "/oauth/token", ClientID: id, ClientSecret: devSecret, Audience: devAudience, Scopes: scopes}
}

// noToken says why there is no token, and what to do if it is a running dev that was to give one.
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
