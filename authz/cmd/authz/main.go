// Command authz reads an OpenAPI document as an access policy:
//
//	authz plan openapi.yaml                     who may call what
//	authz lint openapi.yaml                     what keeps it from being served, and what is unwise
//	authz diff main:openapi.yaml openapi.yaml   what changes in who may call what, with what requests
//	authz explain --document openapi.yaml …     is this token genuine, and what does it open
//	authz probe --document openapi.yaml …       does a running server do what its document says
//	authz init --module M --document D folder   a repository for the API that a document describes
//	authz bundle -o out.json openapi.yaml       a document in several files as one
//	authz scopes -o file.go openapi.yaml        constants of scopes and operations, and which need which
//	authz completion bash                       a script that completes all this in a shell
//
// Each works on any OpenAPI 3 document, whatever serves it. A document is a file, REVISION:FILE as
// in git, an https URL, or - for standard input. With --json the output is JSON.
//
// The exit code is 0 if all is well, 1 if there are findings (faults, a weakened operation, a token
// that is not genuine, a server that fails), and 2 if the question cannot be answered: wrong usage,
// a document that cannot be read, an issuer or a server that cannot be reached, a schema that
// cannot be compared.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/oasgate/oasgate/authz/internal/cli"
)

const (
	allWell = 0
	found   = 1
	unable  = 2
)

// errFound ends a command that has written its findings.
var errFound = errors.New("there are findings")

type commands struct {
	JSON    bool     `name:"json" help:"Write JSON."`
	Overlay []string `help:"OpenAPI overlays to apply to the document, in order, separated by commas."`

	Plan    planCommand    `cmd:"" help:"Show who may call what."`
	Lint    lintCommand    `cmd:"" help:"Find faults, which prevent the document from being served, and what is unwise."`
	Diff    diffCommand    `cmd:"" help:"Show changes in who may call what, and in what a request may contain. The exit code is 1 if anything is weakened."`
	Explain explainCommand `cmd:"" help:"Show whether a token is genuine, why not, and which operations it may call. The token is never printed."`
	Probe   probeCommand   `cmd:"" help:"Check that a running server enforces its document."`
	Init    initCommand    `cmd:"" help:"Create a repository for an API: a server that enforces its document, with tests. Or complete an existing one."`
	Bundle  bundleCommand  `cmd:"" help:"Write a document in several files as one."`
	Scopes  scopesCommand  `cmd:"" help:"Write the scopes and operations, and which operation requires which scopes, as Go, TypeScript or JSON."`

	Completion completionCommand `cmd:"" help:"Print a script that completes commands and flags in a shell."`
	Version    kong.VersionFlag  `help:"Print the versions of the tool and of Go."`
}

type completionCommand struct{ cli.Completion }

// Run implements the command.
func (c *completionCommand) Run(t *tool) error { return c.Write(t.out.w, "authz") }

// exitCodes is part of the help.
const exitCodes = "The exit code is 0 if all is well, 1 if there are findings, and 2 if the " +
	"question cannot be answered, for example after wrong usage."

// tool is the environment of a command.
type tool struct {
	stdin  io.Reader
	out    page
	errors page
	json   bool
	now    func() time.Time

	overlays []string // to apply to every document
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second interrupt does not wait
	collectLess()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// collectLess makes the garbage collector run at 2.5 times the live heap instead of twice, because
// commands are short. On a YAML document of 6 MB, lint takes 10 % less processor time.
func collectLess() { debug.SetGCPercent(150) }

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := tool{stdin: stdin, out: newPage(stdout), errors: newPage(stderr), now: time.Now}
	return t.run(ctx, args)
}

func (t *tool) run(ctx context.Context, args []string) int {
	var c commands
	helped := false
	parser := kong.Must(
		&c,
		kong.Name("authz"),
		kong.Description(
			"Reads, checks, compares and tests an OpenAPI document as an access policy."+
				"\n\n"+exitCodes,
		),
		kong.Vars{"version": cli.Version("authz")},
		kong.Writers(t.out.w, t.errors.w),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if len(args) > 0 && args[0] == cli.Complete {
		cli.WriteWords(t.out.w, parser.Model, args[1:], nil)
		return allWell
	}
	command, err := parser.Parse(args)
	if helped {
		return allWell
	}
	if err != nil {
		t.printError(withoutArguments(err.Error(), args) + ": see authz --help")
		return unable
	}
	t.json, t.overlays = c.JSON, c.Overlay
	switch err := command.Run(t); {
	case errors.Is(err, errFound):
		return found
	case err != nil:
		t.printError(err.Error())
		return unable
	}
	return allWell
}

// writeResult writes a result, as JSON or as text.
func (t *tool) writeResult(answer any, write func(page)) error {
	if t.json {
		return t.out.json(answer)
	}
	write(t.out)
	return nil
}

func (t *tool) printError(message string) {
	fmt.Fprintf(t.errors.w, "%s %s\n", t.errors.paint(red, "authz:"), printable(message))
}

// withoutArguments removes from a usage error every argument that could be a token or a secret in
// the wrong place. The parser quotes arguments that it does not understand.
func withoutArguments(message string, args []string) string {
	type given struct {
		value   string
		instead string
	}
	var all []given
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") {
			_, arg, _ = strings.Cut(arg, "=")
		}
		if len(arg) < 16 { // a command, a short file name: no credential
			continue
		}
		instead := fmt.Sprintf("(argument %d, not repeated here)", i+1)
		quoted := strconv.Quote(arg)
		all = append(
			all,
			given{quoted, instead},
			given{arg, instead},
			given{quoted[1 : len(quoted)-1], instead},
		)
	}
	// Replace the longest first: one argument can be the beginning of another.
	slices.SortStableFunc(all, func(a, b given) int { return len(b.value) - len(a.value) })
	var pairs []string
	for _, g := range all {
		pairs = append(pairs, g.value, g.instead)
	}
	return strings.NewReplacer(pairs...).Replace(message)
}
