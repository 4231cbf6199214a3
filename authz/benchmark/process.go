package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// process is a server that runs.
type process struct {
	command *exec.Cmd
	address string
	log     string
	ended   chan struct{}
}

// pinned reports whether servers get the first core and this process the second.
func pinned() bool {
	_, err := exec.LookPath("taskset")
	return err == nil && runtime.NumCPU() > 1
}

// pinLoad moves this process to the second core.
func pinLoad() error {
	if !pinned() {
		return nil
	}
	return exec.Command("taskset", "-a", "-c", "-p", "1", strconv.Itoa(os.Getpid())).Run()
}

// start starts a server on a free port.
func start(s server, issuer, log string) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	command := s.command(issuer, address)
	if pinned() {
		env := command.Env
		command = exec.Command("taskset", append([]string{"-c", "0"}, command.Args...)...)
		command.Env = env
	}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	command.Stdout, command.Stderr = file, file
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command, address, log, make(chan struct{})}
	go func() { _ = command.Wait(); close(p.ended) }()
	return p, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}

// kill stops the server at once.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.ended
}

// ready waits until the server answers a good token.
func (p *process) ready(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if status, err := p.status(ctx, token); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-p.ended:
			said, _ := os.ReadFile(p.log)
			return fmt.Errorf("has ended: %s", bytes.TrimSpace(said))
		case <-ctx.Done():
			return errors.New("does not answer a good token with 200")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// devTokens waits until dev is ready and returns a number of new tokens.
func (p *process) devTokens(ctx context.Context, n int) (tokens []string, err error) {
	token := func() (string, error) {
		response, err := http.PostForm("http://"+p.address+"/oauth/token", url.Values{
			"grant_type": {"client_credentials"}, "client_id": {"full"},
			"client_secret": {"for-development-only"}, "audience": {"https://quickstarts/api"},
		})
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		var issued struct {
			Token string `json:"access_token"`
		}
		err = json.NewDecoder(response.Body).Decode(&issued)
		return issued.Token, err
	}
	var first string
	for begun := time.Now(); first == ""; time.Sleep(20 * time.Millisecond) {
		if first, err = token(); err != nil && time.Since(begun) > time.Minute {
			return nil, err
		}
	}
	if err := p.ready(ctx, first); err != nil {
		return nil, err
	}
	for range n {
		next, err := token()
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, next)
	}
	return tokens, nil
}

// checks asserts that the server refuses what it must: a server that does less is not compared.
func (p *process) checks(ctx context.Context, issuer *devissuer.Server) error {
	with := func(name string, value any) string {
		return issuer.Mint(map[string]any{"scope": scope, name: value})
	}
	for _, test := range []struct {
		name, token string
		want        []int
	}{
		{"no token", "", []int{400, 401}}, // echo-jwt's answer is 400
		{"forged", forge(with("scope", scope)), []int{401}},
		{"expired", with("exp", time.Now().Add(-time.Hour).Unix()), []int{401}},
		{"another audience", with("aud", "https://other.example"), []int{401}},
		{"another issuer", with("iss", "https://other.example/"), []int{401}},
		{"another scope", with("scope", scope+"2"), []int{403}},
	} {
		status, err := p.status(ctx, test.token)
		if err != nil {
			return err
		}
		if !slices.Contains(test.want, status) {
			return fmt.Errorf("%s: the answer is %d, expected %v", test.name, status, test.want)
		}
	}
	return nil
}

// forge changes the signature of a token.
func forge(token string) string {
	at := strings.LastIndexByte(token, '.') + 20
	flipped := map[bool]string{true: "B", false: "A"}[token[at] == 'A']
	return token[:at] + flipped + token[at+1:]
}

func (p *process) status(ctx context.Context, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+path, nil)
	if err != nil {
		return 0, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// processorTime returns the processor time that the threads of the server have used.
func (p *process) processorTime() (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.command.Process.Pid))
	for _, file := range files {
		text, readErr := os.ReadFile(file)
		if readErr != nil {
			continue // the thread has ended
		}
		used, _, _ := strings.Cut(string(text), " ")
		n, parseErr := strconv.ParseInt(used, 10, 64)
		sum, err = sum+time.Duration(n), errors.Join(err, parseErr)
	}
	return sum, err
}

// resident returns the resident memory of the server, in MB of 1,024 kB.
func (p *process) resident() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(kilobytes)
	return float64(n) / 1024, err
}

// processor returns the name of the processor.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // the name is not essential
	_, rest, _ := strings.Cut(string(info), "model name")
	name, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
}
