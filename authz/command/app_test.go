package command

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// things is an App with one operation, without dev.
func things() App {
	return App{
		Name: "many-things",
		Document: func() (*openapi3.T, error) {
			return openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /things: {get: {operationId: list, security: [{token: []}], responses: {"200": {description: d}}}}
components: {securitySchemes: {token: {type: http, scheme: bearer}}}
`))
		},
		Open: Routes(
			func(*authz.Gate) (http.Handler, error) { return nil, errors.New("not reached") }),
	}
}

// run runs an App with arguments that are separated by spaces.
func run(t *testing.T, app App, args string, environ ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	var out, errs strings.Builder
	code = app.Run(t.Context(), strings.Fields(args), environ, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// A program without Dev has neither its commands nor its flags, and does not mention them.
func TestWithoutDev(t *testing.T) {
	for _, test := range []struct {
		args   string
		code   int
		output string // a part of it
	}{
		{"--help", 0, "serve [flags]"},
		{"dev", 2, "many-things: unexpected argument dev"},
		{"token", 2, "many-things: unexpected argument token"},
		{"serve", 2, "many-things: MANY_THINGS_ISSUER is not set: expected the URL"},
		{"call", 0, "Usage: many-things call"},
		{"call list --help", 0, "--issuer"},
		{"call list --dev", 2, "unknown flag --dev"},
		{"call list", 2, "--issuer (MANY_THINGS_ISSUER) is not set"},
		{"call list --issuer https://issuer.example/", 2, "the secret in MANY_THINGS_CLIENT_SECRET\n"},
	} {
		t.Run(test.args, func(t *testing.T) {
			code, stdout, stderr := run(t, things(), test.args)
			if code != test.code || !strings.Contains(stdout+stderr, test.output) {
				t.Errorf("exit code %d, output %q: want %d and %q", code, stdout+stderr, test.code,
					test.output)
			}
			words := strings.FieldsFunc(
				stdout+stderr,
				func(r rune) bool { return strings.ContainsRune(" \n`-:;,", r) },
			)
			if !strings.Contains(test.args, "dev") && slices.Contains(words, "dev") {
				t.Errorf("the output hints at dev: %q", stdout+stderr)
			}
		})
	}
}

// own is an Opener with a flag.
type own struct {
	Store  string `name:"store" key:"STORE" default:"none" help:"Where things are."`
	opened *string
}

func (o *own) Check() error {
	if o.Store == "faulty" {
		return errors.New("MANY_THINGS_STORE is faulty")
	}
	return nil
}

func (o *own) Open(context.Context, *slog.Logger) (*Service, error) {
	*o.opened = o.Store
	return nil, errors.New("this is as far as it goes")
}

// The flags of an Opener are the command's: from the arguments, the environment or their defaults,
// and with their faults among the others.
func TestFlagsOfTheProgram(t *testing.T) {
	const enough = " --addr 127.0.0.1:0 --issuer https://issuer.example/ --audience a"
	for _, test := range []struct {
		args    string
		environ []string
		code    int
		opened  string
		stderr  []string
	}{
		{"serve" + enough, nil, 1, "none", []string{"this is as far as it goes"}},
		{"serve --store a" + enough, []string{"MANY_THINGS_STORE=b"}, 1, "a", []string{"this is as far as it goes"}},
		{"serve" + enough, []string{"MANY_THINGS_STORE=b", "STORE=c"}, 1, "b", []string{"this is as far as it goes"}},
		{"serve --store faulty --docs x", nil, 2, "", []string{
			"MANY_THINGS_ISSUER is not set", "MANY_THINGS_AUDIENCE is not set", `MANY_THINGS_DOCS is "x"`, "MANY_THINGS_STORE is faulty"}},
		{"dev --addr localhost:0", []string{"MANY_THINGS_STORE=b"}, 1, "b", []string{"this is as far as it goes"}},
		{"dev --addr x --store faulty", nil, 2, "", []string{`--addr is "x"`, "MANY_THINGS_STORE is faulty"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			opened := ""
			app := things()
			app.Open = &own{opened: &opened}
			app.Dev = &Dev{
				Issuer: func(string, string, []string, []string) (Issuer, error) {
					return nil, nil
				},
			}
			code, stdout, stderr := run(t, app, test.args, test.environ...)
			if code != test.code || opened != test.opened {
				t.Errorf("exit code %d, opened %q: want %d, %q", code, opened, test.code,
					test.opened)
			}
			if stdout != "" {
				t.Errorf("stdout is %q: want no banner of a program that did not start", stdout)
			}
			if lines := strings.Count(stderr, "many-things: "); lines != len(test.stderr) {
				t.Errorf("stderr is %q: want %d faults", stderr, len(test.stderr))
			}
			for _, want := range test.stderr {
				if !strings.Contains(stderr, "many-things: "+want) {
					t.Errorf("stderr is %q: want %q", stderr, want)
				}
			}
		})
	}
}

// What an App lacks is reported before anything runs.
func TestFaultyApp(t *testing.T) {
	for want, spoil := range map[string]func(*App){
		`App.Name is "Things": expected lower case letters`: func(a *App) { a.Name = "Things" },
		"App.Document or App.Open is nil":                   func(a *App) { a.Document = nil },
		"command: App.Document or App.Open is":              func(a *App) { a.Open = nil },
		"Dev.Issuer is nil":                                 func(a *App) { a.Dev = &Dev{} },
	} {
		app := things()
		spoil(&app)
		if code, _, stderr := run(t, app, "--help"); code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, stderr %q: want 1 and %q", code, stderr, want)
		}
	}
}

// In messages, the program has the name by which it was started, except with `go run`.
func TestSelf(t *testing.T) {
	for started, want := range map[string]string{
		"orders":                                 "orders",
		"./orders":                               "./orders",
		"/opt/go-builder/exe/orders":             "/opt/go-builder/exe/orders",
		"/tmp/go-build934176050/b001/exe/orders": "go run .",
		"/home/a/.cache/go-build/0a/" + strings.Repeat("0a", 32) + "-d/orders": "go run .",
	} {
		if got := selfOf(started); got != want {
			t.Errorf("%s: %q, want %q", started, got, want)
		}
	}
}
