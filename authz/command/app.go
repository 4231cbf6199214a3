// Package command is the program around a server: the commands dev, serve, token and call, for any
// App. Its main is one call:
//
//	func main() {
//		command.Main(command.App{
//			Name:     "orders",
//			Document: gen.GetSpec,
//			Open:     command.Routes(routes),
//			Dev:      &command.Dev{Issuer: devissuer.ForDev},
//		})
//	}
//
// Every setting of serve is a flag and a key of the environment, which begins with the program's
// name, here ORDERS_. A file .env in the working directory may hold keys too. The environment takes
// precedence over the file, and flags take precedence over both.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"unicode"

	"github.com/alecthomas/kong"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/batch"
	"github.com/oasgate/oasgate/authz/token"
)

// App is a program: its name, its document, and what answers the document's operations.
type App struct {
	// Name is the name of the program: lower case letters, digits and hyphens.
	Name string
	// Description is a sentence about the program, for --help.
	Description string
	// Document returns the resolved document, such as GetSpec of generated code. Each call returns
	// another one.
	Document func() (*openapi3.T, error)
	// Open opens what serve needs to answer.
	Open Opener
	// Dev adds the commands dev and token. Default: the program does not have them.
	Dev *Dev
	// ProblemTypeBase begins the type URIs of problem documents. Default: see [authz.Config].
	ProblemTypeBase string
}

// Opener opens what a program needs to answer: its database, for example. If it is a pointer to a
// struct, the fields are further flags of the command, declared by kong's tags; the tag key is the
// flag's key of the environment, without the program's prefix.
//
// An Opener with flags can have a method Check() error. It does no I/O and returns what is wrong with
// their values, joined, each error naming its setting. They are reported together with the other
// faults of the configuration, before Open is called.
type Opener interface {
	Open(ctx context.Context, log *slog.Logger) (*Service, error)
}

// Service is what an [Opener] opens. Only Routes has no default.
type Service struct {
	// Routes returns the operations' handler, guarded by the gate, such as echov4.Routes does. It is
	// called again with another gate when the issuers change.
	Routes func(g *authz.Gate) (http.Handler, error)
	// Gate completes the configuration of each gate, such as with hooks. Default: it stays.
	Gate func(*authz.Config)
	// Ready reports why the service cannot answer now, for /readyz. Default: it always can.
	Ready func(ctx context.Context) error
	// Replays remembers which DPoP proofs were used. Default: in memory, for one server.
	Replays token.ReplayStore
	// Close is called once no request is under way. Default: nothing to close.
	Close func() error
}

// Routes is the [Opener] of a program that needs nothing but its handlers: see [Service.Routes].
type Routes func(g *authz.Gate) (http.Handler, error)

// Open implements [Opener].
func (r Routes) Open(context.Context, *slog.Logger) (*Service, error) {
	return &Service{Routes: r}, nil
}

// Main runs the program and exits: with code 0, with 2 for wrong usage or a faulty configuration, or
// with 1 for a later failure.
func Main(app App) {
	// The live heap is a megabyte or two, and every request leaves a little garbage. With the default
	// GOGC, a fifth of the time went into collecting it, every 4 MB. The reserve counts as live, but is
	// never touched. GOGC, if set, is respected.
	var reserve []byte
	if os.Getenv("GOGC") == "" {
		reserve = make([]byte, 16<<20)
		debug.SetGCPercent(200)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal does not wait for requests under way
	code := app.Run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	runtime.KeepAlive(reserve)
	os.Exit(code)
}

// program is an App that runs.
type program struct {
	App
	env            environment
	stdin          io.Reader
	stdout, stderr io.Writer
}

type commands struct {
	Development kong.Plugins      `embed:""` // *devCommands, or nothing
	Call        callCommand       `cmd:"" passthrough:"" help:"Call an operation of the API, or list them: call <operation> --help."`
	Credential  credentialCommand `cmd:"" help:"Make an API key, or a password for HTTP Basic, and its entry for the file of credentials."`
	Serve       serveCommand      `cmd:"" set:"log_format=json" help:"Run the API for a real issuer."`
}

type devCommands struct {
	Dev   devCommand   `cmd:"" set:"log_format=text" help:"Run the API with a token issuer inside, on this machine alone. Needs no configuration."`
	Token tokenCommand `cmd:"" help:"Print an access token from a running dev, and nothing else."`
}

// Run is the whole program, without signals: it ends when ctx does. It returns the exit code.
func (a App) Run(
	ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer,
) int {
	batched := batch.NewWriter(stderr)
	defer batched.Flush()
	p := &program{App: a, stdin: stdin, stdout: stdout, stderr: batched}
	if err := a.check(); err != nil {
		return p.complain(err, 1)
	}
	var err error
	if p.env, err = readEnvironment(a.prefix(), environ, ".env"); err != nil {
		return p.complain(err, 2)
	}
	c := commands{Serve: serveCommand{Program: flags(a.Open)}}
	development := &devCommands{Dev: devCommand{Program: flags(a.devOpener())}}
	if a.Dev != nil {
		c.Development = kong.Plugins{development}
	}
	helped := false
	parser, err := kong.New(&c,
		kong.Name(a.Name),
		kong.Description(a.Description),
		kong.Vars{"dev_url": devURL},
		kong.Writers(stdout, batched),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(kong.ResolverFunc(p.resolve)),
		kong.ValueFormatter(func(value *kong.Value) string {
			if key := value.Tag.Get("key"); key != "" {
				return value.Help + " [" + p.env.key(key) + "]"
			}
			return value.Help
		}),
	)
	if err != nil {
		return p.complain(err, 1)
	}
	command, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return p.complain(fmt.Errorf("%w: see %s --help", err, a.Name), 2)
	}
	switch command.Selected().Name {
	case "dev":
		err = p.dev(ctx, &development.Dev)
	case "token":
		err = p.token(ctx, &development.Token)
	case "call":
		err = p.call(ctx, c.Call.Args)
	case "credential":
		err = p.credential(&c.Credential)
	case "serve":
		err = p.serve(ctx, &c.Serve)
	}
	var faulty *configurationError
	switch {
	case errors.As(err, &faulty):
		return p.complain(err, 2)
	case err != nil:
		return p.complain(err, 1)
	}
	return 0
}

// check reports what a program cannot run without.
func (a App) check() error {
	switch {
	case !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(a.Name):
		return fmt.Errorf("command: App.Name is %q: expected a word such as orders", a.Name)
	case a.Document == nil || a.Open == nil:
		return errors.New("command: App.Document or App.Open is nil")
	case a.Dev != nil && a.Dev.Issuer == nil:
		return errors.New("command: Dev.Issuer is nil")
	}
	return nil
}

// prefix begins the keys of the environment.
func (a App) prefix() string {
	return strings.ToUpper(strings.ReplaceAll(a.Name, "-", "_")) + "_"
}

// resolve returns what the environment says of a flag that is not given.
func (p *program) resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	key := flag.Tag.Get("key")
	if key == "" {
		return nil, nil
	}
	if value := p.env.lookup(key); value != "" {
		return value, nil
	}
	return nil, nil
}

// flags are those that an Opener declares.
func flags(o Opener) kong.Plugins {
	if t := reflect.TypeOf(o); t != nil && t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct {
		return kong.Plugins{o}
	}
	return nil
}

// check returns what is wrong with the flags that an Opener declares.
func check(o Opener) error {
	if checker, ok := o.(interface{ Check() error }); ok {
		return checker.Check()
	}
	return nil
}

// plan returns what the document says about who may call what.
func (a App) plan() (*openapi3.T, *authz.Plan, error) {
	document, err := a.Document()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot load the document: %w", err)
	}
	// An operation without a security statement is for the server to refuse.
	plan, err := authz.Config{Document: document, Unstated: authz.DenyUnstated}.CompileSecurity()
	return document, plan, err
}

// complain prints an error, of joined ones each on its own line, and returns the exit code.
func (p *program) complain(err error, code int) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.stderr, "%s: %s\n", p.Name, printable(strings.TrimSpace(line)))
	}
	return code
}

// printable replaces what a terminal would act upon instead of showing it: an error may repeat what a
// server said.
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

// configurationError is for the operator to correct before anything can start. The exit code is 2.
type configurationError struct{ error }
