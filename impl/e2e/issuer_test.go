//go:build unix

package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// audience is what the tests' issuers issue tokens for, and what `serve` expects.
const audience = "https://api.example"

// issuerRole, in the environment, has the test binary be an issuer instead of running tests.
const issuerRole = "ISSUER_OF_AN_OASGATE_TEST"

// remoteIssuer is what the process of an issuer offers to the process of the test.
type remoteIssuer struct{ server *devissuer.Server }

// runIssuer serves an issuer until the test closes our standard input, as it does at the latest
// when it dies.
func runIssuer() {
	server, err := devissuer.Start(
		devissuer.Config{Audiences: []string{audience}, Algorithm: "ES256"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	remote := rpc.NewServer()
	if err := remote.RegisterName("Issuer", &remoteIssuer{server}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	remote.ServeCodec(jsonrpc.NewServerCodec(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}))
}

func (r *remoteIssuer) URL(_ struct{}, url *string) error {
	*url = r.server.URL()
	return nil
}

func (r *remoteIssuer) Mint(claims map[string]any, token *string) error {
	*token = r.server.Mint(claims)
	return nil
}

// Rotate tells the kid of the key that was current until now.
func (r *remoteIssuer) Rotate(alg string, before *string) error {
	*before, _ = r.server.CurrentKey()
	r.server.Rotate(alg)
	return nil
}

func (r *remoteIssuer) RemoveKey(kid string, _ *struct{}) error {
	r.server.RemoveKey(kid)
	return nil
}

func (r *remoteIssuer) Fail(fault devissuer.Fault, _ *struct{}) error {
	r.server.Fail(fault)
	return nil
}

func (r *remoteIssuer) Stop(struct{}, *struct{}) error {
	r.server.Stop()
	return nil
}

func (r *remoteIssuer) Restart(struct{}, *struct{}) error { return r.server.Restart() }

// KeySets returns how often the key set was requested.
func (r *remoteIssuer) KeySets(_ struct{}, times *int) error {
	_, *times = r.server.Requests()
	return nil
}

// issuerProcess controls an issuer in another process.
type issuerProcess struct {
	t       *testing.T
	url     string
	client  *rpc.Client
	process *os.Process
}

func startIssuer(t *testing.T) *issuerProcess {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = environment(issuerRole + "=yes")
	command.Stderr = t.Output()
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	i := &issuerProcess{t: t, process: command.Process, client: jsonrpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{stdout, stdin})}
	t.Cleanup(func() {
		_ = i.process.Signal(syscall.SIGCONT) // of a test that has stopped it
		_ = i.client.Close()
		if err := command.Wait(); err != nil {
			t.Errorf("the issuer's process: %v", err)
		}
	})
	i.call("URL", struct{}{}, &i.url)
	return i
}

func (i *issuerProcess) call(method string, argument, reply any) {
	i.t.Helper()
	if err := i.client.Call("Issuer."+method, argument, reply); err != nil {
		i.t.Fatalf("the issuer's process, method %s: %v", method, err)
	}
}

// mint returns a genuine token of the current key that is good for the private operation, except
// for what claims change.
func (i *issuerProcess) mint(claims map[string]any) (token string) {
	i.t.Helper()
	all := map[string]any{"scope": private.scope}
	maps.Copy(all, claims)
	i.call("Mint", all, &token)
	return token
}

// signal sends a signal to the process. While it is stopped, no other method returns.
func (i *issuerProcess) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := i.process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (i *issuerProcess) rotate(alg string) (before string) {
	i.t.Helper()
	i.call("Rotate", alg, &before)
	return before
}

func (i *issuerProcess) removeKey(kid string) {
	i.t.Helper()
	i.call("RemoveKey", kid, &struct{}{})
}

func (i *issuerProcess) fail(fault devissuer.Fault) {
	i.t.Helper()
	i.call("Fail", fault, &struct{}{})
}

func (i *issuerProcess) stop() {
	i.t.Helper()
	i.call("Stop", struct{}{}, &struct{}{})
}

func (i *issuerProcess) restart() {
	i.t.Helper()
	i.call("Restart", struct{}{}, &struct{}{})
}

func (i *issuerProcess) keySets() (times int) {
	i.t.Helper()
	i.call("KeySets", struct{}{}, &times)
	return times
}
