// Package command implements a program that serves an API, with the commands dev, serve, token,
// call, credential and completion. The main function of such a program is one call:
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
// Every setting of serve is a flag and an environment variable. The names of the variables begin
// with the program's name, here ORDERS_. They can also be set in a file .env in the working
// directory. The environment takes precedence over the file, and flags take precedence over both.
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
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"syscall"
	"unicode"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/alecthomas/kong"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/cli"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

// App describes a program: its name, its document, and the handlers of the document's operations.
type App struct {
	// Name is the name of the program: lower case letters, digits and hyphens.
	Name string
	// Description is one sentence that --help shows.
	Description string
	// Document returns the document with its references resolved, such as GetSpec in generated
	// code. Each call returns a new copy.
	Document func() (*openapi3.T, error)
	// Source is the text of the document, which determines the order on /docs. Default: the order
	// of names.
	Source []byte
	// Open opens the service for the command serve.
	Open Opener
	// Dev adds the commands dev and token. Default: the program does not have them.
	Dev *Dev
	// Telemetry, usually telemetry.New, exports traces and metrics. Default: the program has none.
	Telemetry func(context.Context, server.TelemetryConfig) (server.Telemetry, error)
	// ProblemTypeBase is the prefix of the type URIs of problem documents. Default: see
	// [authz.Config].
	ProblemTypeBase string
}

// Opener opens the service of a program, for example its database. If it is a pointer to a struct,
// the fields are additional flags of the command, declared by kong's tags. The tag "key" names the
// environment variable of the flag, without the program's prefix. With the tag "secret", the
// value can also be in a file, which the variable with the suffix _FILE names. With the tag
// "shown", the value is part of the effective configuration that the program shows.
//
// An Opener with flags can have a method Check() error. It validates the flags without I/O and
// returns all faults, joined, each naming its setting. They are reported together with the other
// faults of the configuration, before Open is called.
type Opener interface {
	Open(ctx context.Context, log *slog.Logger) (*Service, error)
}

// Service is what an [Opener] opens. Only Routes has no default.
type Service struct {
	// Routes returns the handler of the operations, guarded by the gate: see echov4.Routes. It is
	// called again with a new gate when the issuers change.
	Routes func(g *authz.Gate) (http.Handler, error)
	// Gate completes the configuration of each gate, for example with hooks. Default: no changes.
	Gate func(*authz.Config)
	// Ready returns an error if the service cannot answer now, for /readyz. Default: always ready.
	Ready func(ctx context.Context) error
	// Components are checks of what the service depends on, by name, for the admin listener. Unlike
	// Ready, they do not decide whether the service can answer.
	Components map[string]func(ctx context.Context) error
	// Pools returns the state of the service's pools of connections, by name, for the metrics.
	Pools func() map[string]server.Pool
	// Replays stores the DPoP proofs that were used. Default: in memory, for a single server.
	Replays token.ReplayStore
	// RateCounter counts requests for x-authz-rate-limit. Default: in memory.
	RateCounter authz.RateCounter
	// Close is called after the last request has ended. Default: nothing to close.
	Close func() error
}

// Routes is the [Opener] of a program that only has handlers: see [Service.Routes].
type Routes func(g *authz.Gate) (http.Handler, error)

// Open implements [Opener].
func (r Routes) Open(context.Context, *slog.Logger) (*Service, error) {
	return &Service{Routes: r}, nil
}

// Main runs the program and exits with code 0, with code 2 for wrong usage or a faulty
// configuration, or with code 1 for any other failure.
func Main(app App) {
	setMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := app.Run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	os.Exit(code)
}

// setMemory configures the garbage collector. The environment variables GOGC and GOMEMLIMIT take
// precedence.
func setMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
		percent := gcPercent
		afterCollections(func() {
			next := gcPercent
			if liveHeap() > largeHeap {
				next = gcPercentLarge
			}
			if next != percent {
				percent = next
				debug.SetGCPercent(percent)
			}
		})
	}
	// 90 % of the limit of the cgroup. An error means that there is no limit.
	_, _ = memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup))
}

// gcPercent replaces the default of 100. Measured with a protected GET that hits the token cache,
// in 20 interleaved pairs each, processor time per request (medians and quartiles) and resident
// memory:
//
//	GOGC  time               memory
//	100   1                  30 MB
//	200   0.91 (0.90, 0.95)  34 MB
//	300   0.90 (0.89, 0.95)  38 MB
//	400   0.91 (0.87, 0.93)  42 MB
//	600   0.90 (0.87, 0.92)  50 MB
//
// A large heap is collected rarely anyway, and three times its size is much: with a full token
// cache, the resident memory is 113 MB with 200, and 87 MB with 100.
const (
	gcPercent      = 200
	gcPercentLarge = 100
	largeHeap      = 16 << 20 // bytes
)

// afterCollections calls f after each garbage collection.
func afterCollections(f func()) {
	marker := new([64]byte) // not a tiny object, which could stay in memory with another one
	runtime.AddCleanup(marker, func(f func()) { f(); afterCollections(f) }, f)
}

// liveHeap returns the bytes that the last garbage collection has left.
func liveHeap() uint64 {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	return live[0].Value.Uint64()
}

// program is a running App.
type program struct {
	App
	env            environment
	model          *kong.Node // of all commands
	self           string     // the command line of the program, as people type it
	stdin          io.Reader
	stdout, stderr io.Writer
}

type commands struct {
	Development kong.Plugins      `embed:""` // *devCommands, or empty
	Call        callCommand       `cmd:"" passthrough:"" help:"Call an operation of the API, or list them: call <operation> --help."`
	Credential  credentialCommand `cmd:"" help:"Create an API key, or a password for HTTP Basic, and its entry for the file of credentials."`
	Health      healthCommand     `cmd:"" help:"Ask a serve on this machine whether it is alive. The exit code is 0 if it is."`
	Serve       serveCommand      `cmd:"" set:"log_format=json" help:"Run the API with the issuers of the configuration."`
	Completion  cli.Completion    `cmd:"" help:"Print a script that completes commands, operations and flags in a shell."`
	Version     versionFlag       `help:"Print the versions of the program, of Go and of the document."`
}

// versionFlag prints the versions and ends the program, whatever else is given.
type versionFlag bool

// BeforeReset implements a hook of kong.
func (versionFlag) BeforeReset(parser *kong.Kong, p *program) error {
	fmt.Fprintln(p.stdout, cli.Version(p.Name))
	document, err := p.Document()
	if err != nil {
		return fmt.Errorf("cannot load the document: %w", err)
	}
	if info := document.Info; info != nil {
		fmt.Fprintf(p.stdout, "document: %s %s\n", printable(info.Title), printable(info.Version))
	}
	parser.Exit(0)
	return nil
}

// exitCodes is part of the help.
const exitCodes = "The exit code is 0 for success, 2 for wrong usage or a faulty configuration, " +
	"and 1 for any other failure."

type devCommands struct {
	Dev   devCommand   `cmd:"" set:"log_format=text" help:"Run the API with a development issuer, on loopback only. Needs no configuration."`
	Token tokenCommand `cmd:"" help:"Print an access token from a running dev."`
}

// Run runs the program until ctx ends, and returns the exit code.
func (a App) Run(
	ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer,
) int {
	p := &program{App: a, self: selfOf(os.Args[0]), stdin: stdin, stdout: stdout, stderr: stderr}
	if err := a.check(); err != nil {
		return p.fail(err, 1)
	}
	var envErr error // of a .env that can belong to another program; token does not need it
	p.env, envErr = readEnvironment(a.prefix(), environ, ".env")
	c := commands{Serve: serveCommand{Program: flags(a.Open)}}
	development := &devCommands{Dev: devCommand{Program: flags(a.devOpener())}}
	if a.Dev != nil {
		c.Development = kong.Plugins{development}
	}
	helpShown := false
	parser, err := p.parser(&c, func() { helpShown = true })
	if err != nil {
		return p.fail(err, 1)
	}
	p.model = parser.Model.Node
	if len(args) > 0 && args[0] == cli.Complete {
		cli.WriteWords(stdout, parser.Model, args[1:],
			map[string]func([]string) []string{"call": p.completeCall})
		return 0
	}
	command, err := parser.Parse(args)
	if helpShown {
		return 0
	}
	if err != nil {
		return p.fail(fmt.Errorf("%w: see %s --help", err, a.Name), 2)
	}
	selected := command.Selected().Name
	if envErr != nil && selected != "token" {
		return p.fail(envErr, 2)
	}
	switch selected {
	case "dev":
		err = p.dev(ctx, &development.Dev)
	case "token":
		err = p.token(ctx, &development.Token)
	case "call":
		err = p.call(ctx, c.Call.Args)
	case "credential":
		err = p.credential(&c.Credential)
	case "health":
		err = p.health(ctx, &c.Health)
	case "serve":
		err = p.serve(ctx, &c.Serve, p.effective(command.Selected().Flags))
	case "completion":
		err = c.Completion.Write(stdout, a.Name)
	}
	if err == nil {
		return 0
	}
	if _, faulty := errors.AsType[*configurationError](err); faulty {
		return p.fail(err, 2)
	}
	return p.fail(err, 1)
}

// parser returns a parser of the command line. It calls helpShown instead of ending the process.
func (p *program) parser(c *commands, helpShown func()) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name(p.Name),
		kong.Description(strings.TrimSpace(p.Description+"\n\n"+exitCodes)),
		kong.Vars{"dev_url": devURL},
		kong.Bind(p),
		kong.Writers(p.stdout, p.stderr),
		kong.Exit(func(int) { helpShown() }),
		kong.Resolvers(kong.ResolverFunc(p.resolve)),
		kong.ValueFormatter(func(value *kong.Value) string {
			switch key := value.Tag.Get("key"); {
			case key != "" && value.Tag.Has("secret"):
				return value.Help + " [" + p.env.key(key) + ", or " + p.env.key(key) + "_FILE]"
			case key != "":
				return value.Help + " [" + p.env.key(key) + "]"
			}
			return value.Help
		}),
	)
}

// selfOf returns how to start the program again, given how it was started. `go run` builds it in a
// temporary folder, or in its cache.
func selfOf(started string) string {
	if goRun.MatchString(filepath.ToSlash(started)) {
		return "go run ."
	}
	return started
}

var goRun = regexp.MustCompile(`/go-build[0-9]+/b[0-9]+/exe/|/[0-9a-f]{2}/[0-9a-f]{64}-d/`)

// check returns an error if a required field is missing or invalid.
func (a App) check() error {
	switch {
	case !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(a.Name):
		return fmt.Errorf(
			"command: App.Name is %q: expected lower case letters, digits and hyphens", a.Name)
	case a.Document == nil || a.Open == nil:
		return errors.New("command: App.Document or App.Open is nil")
	case a.Dev != nil && a.Dev.Issuer == nil:
		return errors.New("command: Dev.Issuer is nil")
	}
	return nil
}

// prefix is the prefix of the environment variables.
func (a App) prefix() string {
	return strings.ToUpper(strings.ReplaceAll(a.Name, "-", "_")) + "_"
}

// resolve returns the value that the environment has for a flag that is not given.
func (p *program) resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	key := flag.Tag.Get("key")
	if key == "" {
		return nil, nil
	}
	lookup := func(name string) (string, error) { return p.env.lookup(name), nil }
	if flag.Tag.Has("secret") {
		lookup = p.env.secret
	}
	value, err := lookup(key)
	if err != nil || value == "" {
		return nil, err
	}
	return value, nil
}

// flags returns the flags that an Opener declares.
func flags(o Opener) kong.Plugins {
	if t := reflect.TypeOf(o); t != nil && t.Kind() == reflect.Pointer &&
		t.Elem().Kind() == reflect.Struct {
		return kong.Plugins{o}
	}
	return nil
}

// check validates the flags that an Opener declares.
func check(o Opener) error {
	if checker, ok := o.(interface{ Check() error }); ok {
		return checker.Check()
	}
	return nil
}

// fail prints an error, joined errors on a line each, and returns the exit code.
func (p *program) fail(err error, code int) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.stderr, "%s: %s\n", p.Name, printable(strings.TrimSpace(line)))
	}
	return code
}

// printable replaces control characters, which a terminal would interpret: the text may come from a
// server.
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

// configurationError is a fault in the configuration or the usage. The exit code is 2.
type configurationError struct{ error }
