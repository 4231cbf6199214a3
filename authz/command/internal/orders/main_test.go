package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v5"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov5"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"orders": main})
}

// TestScripts runs the program: see testdata/*.txtar. $API is an address at which dev can listen.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			listener, err := net.Listen("tcp", "localhost:0")
			if err != nil {
				return err
			}
			env.Setenv("ADDR", listener.Addr().String())
			env.Setenv("API", "http://"+listener.Addr().String())
			env.Setenv("COLUMNS", "1000")
			return listener.Close()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": ready},
	})
}

// ready waits until the server at $API is ready.
func ready(ts *testscript.TestScript, _ bool, _ []string) {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(ts.Getenv("API") + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(response.Status)
		}
		if time.Since(begun) > 2*time.Minute {
			ts.Fatalf("the server is not ready: %v", err)
		}
	}
}

// TestConformance tests that the program's server enforces its document.
func TestConformance(t *testing.T) {
	const audience = "https://orders.example"
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	document, err := app().Document()
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	serve := func() http.Handler {
		s, err := server.New(t.Context(), server.Config{
			Document: document,
			Routes: func(g *authz.Gate) (http.Handler, error) {
				return echov5.Routes(g, func(e *echo.Echo) {
					e.Use(func(next echo.HandlerFunc) echo.HandlerFunc { // inside the gate
						return func(c *echo.Context) error { calls.Add(1); return next(c) }
					})
					register(e)
				})
			},
			Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience}}},
			Logger:  slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	keyless := serve()
	authztest.Run(t, authztest.Target{
		Document: document,
		Handler:  serve(),
		Outage: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			issuer.Fail(devissuer.Fault{Down: true})
			defer issuer.Fail(devissuer.Fault{})
			keyless.ServeHTTP(w, r)
		}),
		Tokens: authztest.Issued(issuer.Issuer),
		Calls:  func() int { return int(calls.Load()) },
	})
}

// TestSize checks that the program has only the code that an adopter writes.
func TestSize(t *testing.T) {
	text, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines >= 60 {
		t.Errorf("main.go has %d lines: want less than 60", lines)
	}
}

// TestImports checks the dependencies of a program: no database, no other router, and in the
// library neither the development issuer nor the conformance kit.
func TestImports(t *testing.T) {
	const authzPath = "github.com/oasgate/oasgate/authz/"
	databases := []string{
		"modernc.org/",
		"github.com/jackc/pgx",
		"github.com/gomodule/redigo",
	}
	for _, test := range []struct {
		pkg    string
		forbid []string
	}{
		{".", append(databases, "github.com/labstack/echo/v4", "github.com/oasgate/oasgate/gen", "github.com/oasgate/oasgate/impl", authzPath+"authztest")},
		{authzPath + "command", append(databases, "github.com/labstack/echo", authzPath+"devissuer", authzPath+"authztest")},
		{authzPath + "server", append(databases, "github.com/labstack/echo", authzPath+"devissuer", authzPath+"authztest")},
	} {
		output, err := exec.Command("go", "list", "-deps", test.pkg).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", test.pkg, err)
		}
		deps := strings.Fields(string(output))
		if len(deps) < 10 {
			t.Errorf("%s has the dependencies %q: want them all", test.pkg, deps)
		}
		for _, forbidden := range test.forbid {
			if i := slices.IndexFunc(deps, func(d string) bool {
				return strings.HasPrefix(d, forbidden)
			}); i >= 0 {
				t.Errorf("%s depends on %s", test.pkg, deps[i])
			}
		}
	}
}
