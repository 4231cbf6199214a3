//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is the watchdog of every step that a test waits for. Only what fails waits that long.
const patience = 2 * time.Minute

// devSecret is the secret of the clients of dev.
const devSecret = "for-development-only"

// devAudience is what the tokens of dev are for.
const devAudience = "https://quickstarts/api"

// program is where TestMain has built it.
var program string

func withProgram(run func() int) int {
	dir, err := os.MkdirTemp("", "oasgate")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "oasgate")
	build := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build = append(build, "-race") // a race is written to stderr, where nothingLeaked finds it
	}
	if output, err := exec.Command("go",
		append(build, "github.com/oasgate/oasgate")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, output)
		return 1
	}
	return run()
}

// environment is this process's, less what would configure the program.
func environment(set ...string) []string {
	inherited := slices.DeleteFunc(os.Environ(), func(pair string) bool {
		return strings.HasPrefix(pair, "OASGATE_") || strings.HasPrefix(pair, "AUTH0_")
	})
	return append(
		append(inherited, "GORACE=atexit_sleep_ms=0"),
		set...) // otherwise the race detector delays each exit by a second
}

// invocation describes how the program is started. Its working directory contains only .env.
type invocation struct {
	args   []string
	env    []string
	dotenv string
}

// process is the program, running or ended.
type process struct {
	url            string
	command        *exec.Cmd
	stdout, stderr output
	ended          chan struct{}
	logsJSON       bool

	mu   sync.Mutex
	sent map[string]bool // sent by clients; the log must not contain it
}

// output is what a process has written so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func start(t *testing.T, as invocation) *process {
	t.Helper()
	return run(t, exec.Command(program, as.args...), as)
}

// run runs a command that is the program or ends in it.
func run(t *testing.T, command *exec.Cmd, as invocation) *process {
	t.Helper()
	p := &process{command: command, ended: make(chan struct{})}
	p.command.Dir = t.TempDir()
	p.command.Env = environment(as.env...)
	p.command.Stdout, p.command.Stderr = &p.stdout, &p.stderr
	if as.dotenv != "" {
		if err := os.WriteFile(filepath.Join(p.command.Dir, ".env"),
			[]byte(as.dotenv), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // ProcessState has the result
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.ended
		p.nothingLeaked(t)
		if t.Failed() {
			t.Logf("%s\nstdout:\n%sstderr:\n%s", command, &p.stdout, &p.stderr)
		}
	})
	return p
}

// startServe has `serve` listen on a free port, for this issuer.
func startServe(t *testing.T, issuer *issuerProcess, env ...string) *process {
	t.Helper()
	p := start(t, invocation{
		args: []string{"serve", "--addr", "127.0.0.1:0"},
		env: append(
			[]string{"OASGATE_ISSUER=" + issuer.url, "OASGATE_AUDIENCE=" + audience},
			env...),
	})
	p.logsJSON = true
	p.url = "http://" + p.logged(t, "msg", "serving")["addr"].(string)
	return p
}

// startDev has `dev` listen on a free port.
func startDev(t *testing.T, args ...string) *process {
	t.Helper()
	p := start(t, invocation{args: append([]string{"dev", "--addr", "localhost:0"}, args...)})
	p.url = p.readBanner(t).api
	// On a busy machine dev may need time to fetch its own keys. Earlier requests get 503.
	eventually(t, "dev has its keys",
		func() bool { return p.get(t, "/readyz", "").status == http.StatusOK })
	return p
}

// ends waits until the process has ended and returns its exit code, -1 for one that a signal has
// ended.
func (p *process) ends(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("the process has not ended within %s", patience)
	}
	return p.command.ProcessState.ExitCode()
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// logged waits for a line of the JSON log in which key is value.
func (p *process) logged(t *testing.T, key, value string) (line map[string]any) {
	t.Helper()
	eventually(t, fmt.Sprintf("a log line has %s %q", key, value), func() bool {
		for text := range strings.Lines(p.stderr.String()) {
			line = nil
			if json.Unmarshal([]byte(text), &line) == nil && line[key] == value {
				return true
			}
		}
		return false
	})
	return line
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begun := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// nothingLeaked searches all that the process has written for pieces of what clients sent as a
// credential, and checks that the log is what it should be.
func (p *process) nothingLeaked(t *testing.T) {
	t.Helper()
	written := p.stdout.String() + p.stderr.String()
	for secret := range p.sent {
		if piece := pieceOf(secret, written); piece != "" {
			t.Errorf(
				"the program wrote %q, a piece of a token that it was sent: see authz/server/log.go",
				piece)
		}
	}
	if strings.Contains(written, "WARNING: DATA RACE") {
		t.Errorf("the program has a data race: see its stderr")
	}
	for line := range strings.Lines(p.stderr.String()) {
		if p.logsJSON && !json.Valid([]byte(line)) {
			t.Errorf("the log has a line that is not JSON: %s", line)
		}
	}
}

// pieceOf returns a part of a secret that text contains, and that is too long for a coincidence.
func pieceOf(secret, text string) string {
	const long = 16
	for at := 0; at+long <= len(secret); at += long {
		if piece := secret[at : at+long]; strings.Contains(text, piece) {
			return piece
		}
	}
	return ""
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// get sends a request with a token, or without one if it is "".
func (p *process) get(t *testing.T, path, token string) answer {
	t.Helper()
	if token == "" {
		return p.ask(t, http.MethodGet, path)
	}
	return p.ask(t, http.MethodGet, path, "Authorization", "Bearer "+token)
}

// ask sends a request. headers are name, value, name, value.
func (p *process) ask(t *testing.T, method, path string, headers ...string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, p.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Add(pair[0], pair[1])
		if pair[0] == "Host" {
			request.Host = pair[1]
		}
	}
	_, query, _ := strings.Cut(path, "?")
	secrets := p.keepSecret(
		append(request.Header["Authorization"], request.Header.Get("Cookie"), query)...)
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	got := readAnswer(t, response)
	for _, secret := range secrets {
		if piece := pieceOf(secret, got.body); piece != "" {
			t.Errorf("the answer repeats %q, a piece of the token: %s", piece, got.body)
		}
	}
	return got
}

// keepSecret makes nothingLeaked search for all parts of these texts that could be a segment of a
// token.
func (p *process) keepSecret(texts ...string) []string {
	secrets := regexp.MustCompile(`[A-Za-z0-9_-]{16,}`).FindAllString(strings.Join(texts, " "), -1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent == nil {
		p.sent = map[string]bool{}
	}
	for _, secret := range secrets {
		p.sent[secret] = true
	}
	return secrets
}

func readAnswer(t *testing.T, response *http.Response) answer {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// flood sends up to 200 MiB, as much as the server reads, and returns the response and the number
// of bytes.
func (p *process) flood(t *testing.T, head string) (answer, int64) {
	t.Helper()
	connection := p.dial(t)
	written := make(chan int64, 1)
	go func() {
		var sum int64
		_, _ = io.WriteString(connection, head)
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		if strings.Contains(head, "chunked") {
			chunk = fmt.Appendf(nil, "10000\r\n%s\r\n", chunk)
		}
		for sum < 200<<20 {
			n, err := connection.Write(chunk)
			sum += int64(n)
			if err != nil { // the server has closed the connection
				break
			}
		}
		written <- sum
	}()
	got := readResponse(t, connection)
	if got.header.Get("Connection") != "close" {
		t.Errorf("Connection is %q: want close, or net/http reads on", got.header.Get("Connection"))
	}
	return got, <-written
}

func (p *process) dial(t *testing.T) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	_ = connection.SetDeadline(time.Now().Add(patience))
	return connection
}

// readResponse reads one response. It keeps the Connection header, which net/http removes.
func readResponse(t *testing.T, connection net.Conn) answer {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.Close {
		response.Header.Set("Connection", "close")
	}
	return readAnswer(t, response)
}

// banner is what `dev` shows a newcomer: where it is, and what to type.
type banner struct {
	api      string
	commands map[string]string // by the line above
}

func (p *process) readBanner(t *testing.T) banner {
	t.Helper()
	eventually(t, "dev shows its banner", func() bool {
		return strings.Contains(p.stdout.String(), "Stop with Ctrl-C")
	})
	found := banner{commands: map[string]string{}}
	var label string
	for line := range strings.Lines(p.stdout.String()) {
		line = strings.TrimSuffix(line, "\n")
		fields := strings.Fields(line)
		if command, ok := strings.CutPrefix(line, "    "); ok {
			found.commands[label] = command
			continue
		}
		label = strings.TrimSpace(line)
		if len(fields) > 1 && fields[0] == "API" {
			found.api = fields[1]
		}
	}
	return found
}

// shell runs lines of the banner as they are, in another folder.
func (p *process) shell(t *testing.T, lines ...string) string {
	t.Helper()
	for _, tool := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil &&
			slices.ContainsFunc(lines,
				func(l string) bool { return tool == "sh" || strings.Contains(l, tool) }) {
			t.Skipf("%s is not on this machine, so the line cannot be run: %q", tool, lines)
		}
	}
	command := exec.CommandContext(t.Context(), "sh", "-c", strings.Join(lines, "\n"))
	command.Dir = t.TempDir()
	command.Env = environment("no_proxy=localhost")
	stdout, err := command.Output()
	if err != nil {
		t.Errorf("%q: %v", lines, err)
	}
	return string(stdout)
}

// token runs `oasgate token`, which must print a token.
func (p *process) token(t *testing.T, args ...string) string {
	t.Helper()
	asked := start(t, invocation{args: append([]string{"token"}, args...)})
	if code := asked.ends(t); code != 0 || asked.stderr.String() != "" {
		t.Fatalf("token %q exits with %d and says %s", args, code, &asked.stderr)
	}
	return strings.TrimSuffix(asked.stdout.String(), "\n")
}
