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

// The indexes of the peers that check nothing.
const (
	rawEchoPeer = iota
	rawHTTPPeer
)

// allServers returns the peers, raw Echo first, and this repository's program, which it builds into
// folder.
func allServers(ctx context.Context, folder string) ([]server, error) {
	var all []server
	for i := range peers {
		peer, err := peerServer(i)
		if err != nil {
			return nil, err
		}
		all = append(all, peer)
	}
	program, err := build(ctx, folder)
	if err != nil {
		return nil, err
	}
	return append(all,
		oasgate("**oasgate `serve`, request log off**", program, logOff),
		oasgate("**oasgate `serve` as it comes**, a log line per request to a file", program),
	), nil
}

// peerServer returns one of the peers, raw Echo first.
func peerServer(i int) (server, error) {
	self, err := os.Executable()
	peer := peers[i]
	return server{peer.name, peer.checks, func(issuer, address string) *exec.Cmd {
		command := exec.Command(self)
		command.Env = append(os.Environ(),
			peerVariable+"="+peer.name, issuerVariable+"="+issuer, addressVariable+"="+address)
		return command
	}}, err
}

// logOff is a setting that turns the lines of successful requests off.
const logOff = "OASGATE_LOG_LEVEL=warn"

// oasgate returns this repository's program as a server, with settings in its environment.
func oasgate(name, program string, settings ...string) server {
	return server{name, true, func(issuer, address string) *exec.Cmd {
		command := exec.Command(program, "serve")
		command.Env = append(os.Environ(), append(settings, "OASGATE_ISSUER="+issuer,
			"OASGATE_AUDIENCE="+audience, "OASGATE_ADDR="+address,
			"OASGATE_DATABASE_URL=sqlite:"+filepath.Join(filepath.Dir(program), "messages.db"))...)
		return command
	}}
}

// dev returns this repository's program with its development issuer.
func dev(program string) server {
	return server{"dev", true, func(_, address string) *exec.Cmd {
		return exec.Command(program, "dev", "--addr", address,
			"--database", "sqlite:"+filepath.Join(filepath.Dir(program), "dev.db"))
	}}
}

// build builds the program of the module that this one replaces, with that module's own
// dependencies, as its Dockerfile does.
func build(ctx context.Context, folder string) (string, error) {
	source, err := repository(ctx)
	if err != nil {
		return "", err
	}
	program := filepath.Join(folder, "oasgate")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s",
		"-o", program, ".")
	command.Dir, command.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	return program, run(command)
}

// repository returns the folder of the module that this one replaces.
func repository(ctx context.Context) (string, error) {
	const module = "github.com/oasgate/oasgate"
	source, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("cannot find %s: run this in authz/benchmark: %w", module, err)
	}
	return strings.TrimSpace(string(source)), nil
}

func run(command *exec.Cmd) error {
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", command, err, said)
	}
	return nil
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
