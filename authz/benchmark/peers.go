package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// The harness starts itself once more for each peer, with these in the environment.
const (
	peerVariable    = "BENCHMARK_PEER"
	addressVariable = "BENCHMARK_ADDRESS"
	issuerVariable  = "BENCHMARK_ISSUER"
)

const text = "Hello from a private endpoint! You need to be authenticated and have a scope of " +
	scope + " to see this."

type message struct {
	Message string `json:"message"`
}

// peers serve the same answer. Each is as its own documentation suggests.
var peers = []struct {
	name   string
	checks bool
	serve  func(issuer string) (http.Handler, error)
}{
	{"raw Echo, no check", false, rawEcho},
	{"raw net/http, no check", false, rawHTTP},
	{"the standard library alone, key set kept, no token kept", true, standardLibrary},
	{"echo-jwt with keyfunc", true, echoJWT},
	{"oapi-codegen with echo-middleware, the usual recipe", true, oapiCodegen},
	{"ogen", true, ogenServer},
}

// allServers returns the peers, raw Echo first, and this repository's program, which it builds into
// folder.
func allServers(ctx context.Context, folder string) ([]server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var all []server
	for _, peer := range peers {
		all = append(all, server{peer.name, peer.checks, func(issuer, address string) *exec.Cmd {
			command := exec.Command(self)
			command.Env = append(os.Environ(),
				peerVariable+"="+peer.name, issuerVariable+"="+issuer, addressVariable+"="+address)
			return command
		}})
	}
	program, err := build(ctx, folder)
	if err != nil {
		return nil, err
	}
	ours := func(settings ...string) func(issuer, address string) *exec.Cmd {
		return func(issuer, address string) *exec.Cmd {
			command := exec.Command(program, "serve")
			command.Env = append(os.Environ(), append(settings, "OASGATE_ISSUER="+issuer,
				"OASGATE_AUDIENCE="+audience, "OASGATE_ADDR="+address,
				"OASGATE_DATABASE_URL=sqlite:"+filepath.Join(folder, "messages.db"))...)
			return command
		}
	}
	quiet, asItComes := ours("OASGATE_LOG_LEVEL=warn"), ours()
	return append(all,
		server{"**oasgate `serve`, request log off**", true, quiet},
		server{"**oasgate `serve` as it comes**, a log line per request to a file", true,
			asItComes},
	), nil
}

// build builds the program of the module that this one replaces, with that module's own
// dependencies.
func build(ctx context.Context, folder string) (string, error) {
	const module = "github.com/oasgate/oasgate"
	source, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("cannot find %s: run this in authz/benchmark: %w", module, err)
	}
	program := filepath.Join(folder, "oasgate")
	command := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	command.Dir = strings.TrimSpace(string(source))
	if said, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, said)
	}
	return program, nil
}

// servePeer is the main function of a peer.
func servePeer(name string) error {
	for _, peer := range peers {
		if peer.name != name {
			continue
		}
		handler, err := peer.serve(os.Getenv(issuerVariable))
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", os.Getenv(addressVariable))
		if err != nil {
			return err
		}
		return (&http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
	}
	return errors.New("no such peer: " + name)
}

func rawEcho(string) (http.Handler, error) {
	e := newEcho()
	e.GET(path, echoMessage)
	return e, nil
}

func newEcho() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	return e
}

func echoMessage(c echo.Context) error { return c.JSON(http.StatusOK, message{text}) }
