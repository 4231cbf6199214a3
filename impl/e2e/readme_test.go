//go:build unix

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadme follows README.md in a copy of the repository: it runs the commands of the terminal
// sessions, compares their output, and applies the diffs. "…" matches any text, and on a line of
// its own any lines.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the program again, which takes too long for -short")
	}
	s := newSession(t)
	if lines := s.follow("README.md"); lines > 150 {
		t.Errorf("README.md has %d lines, want at most 150", lines)
	}
}

// TestServerReadme follows the README.md of authz/server in the same way, with a running dev.
// Commands with … or <…> are for servers elsewhere.
func TestServerReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the program again, which takes too long for -short")
	}
	s := newSession(t)
	s.run("go run . dev", "…")
	s.follow(filepath.FromSlash("authz/server/README.md"))
}

// follow follows a README and returns its number of lines.
func (s *session) follow(name string) (lines int) {
	s.t.Helper()
	readme, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```(console|diff)\n(.*?)^```$")
	for _, block := range blocks.FindAllStringSubmatch(string(readme), -1) {
		if block[1] == "diff" {
			s.patch("openapi.yaml", block[2])
			continue
		}
		for _, step := range strings.Split("\n"+block[2], "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			s.run(command, want)
		}
	}
	return strings.Count(string(readme), "\n")
}

// session is a terminal in a copy of the repository.
type session struct {
	t    *testing.T
	dir  string // of the copy
	home string // for the state of the shell between commands
	addr string // in place of localhost:3010, which can be in use
	dev  *exec.Cmd
	said output // by dev
}

func newSession(t *testing.T) *session {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &session{
		t: t, dir: filepath.Join(t.TempDir(), "oasgate"), home: t.TempDir(),
		addr: fmt.Sprintf("localhost:%d", listener.Addr().(*net.TCPAddr).Port),
	}
	listener.Close()
	copied := exec.CommandContext(t.Context(), "sh", "-ec", `
mkdir "$0"
cd ../..
git ls-files -co --exclude-standard | tar -cf - -T - | tar -xf - -C "$0"
cd "$0"
git init -q -b main
git add -A
git -c user.name=a -c user.email=a@example.com commit -q -m a`, s.dir)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Skipf("cannot copy the repository without git and tar: %v: %s", err, out)
	}
	s.write("pwd", s.dir)
	s.write("state", "")
	t.Cleanup(s.stop)
	return s
}

func (s *session) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.home, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

var (
	starts  = regexp.MustCompile(`\bgo run \. dev\b`)
	asksDev = regexp.MustCompile(`(\bgo run \.|\boasgate) (token|call \w+)`)
	// The tests themselves, and what needs an issuer or a server elsewhere.
	skipped = regexp.MustCompile(`\bgo test\b|\bgo run \. serve\b|…|<\w+>`)
)

// run runs a command with the state of the shell after the last one, and compares its output. A dev
// runs until the next one starts.
func (s *session) run(command, want string) {
	s.t.Helper()
	if skipped.MatchString(command) {
		return
	}
	text := strings.ReplaceAll(command, "localhost:3010", s.addr)
	text = asksDev.ReplaceAllString(text, "${0} --url http://"+s.addr)
	text = starts.ReplaceAllString(text, "${0} --addr "+s.addr)
	shell := exec.CommandContext(s.t.Context(), "sh", "-c", `
set -a
. "$0/state"
cd "$(cat "$0/pwd")"
eval "$1"
code=$?
export -p >"$0/state"
pwd >"$0/pwd"
exit $code`, s.home, text)
	shell.Env = environment("no_proxy=localhost",
		"PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	pattern := s.pattern(want)
	if !starts.MatchString(command) {
		out, err := shell.CombinedOutput()
		said := s.shown(string(out))
		if want == "" && err != nil { // an output that is shown may be that of a refusal
			s.t.Fatalf("$ %s\nfails: %v\n%s", command, err, said)
		}
		if !pattern.MatchString(said) {
			s.t.Fatalf("$ %s\nprints\n%s\nREADME.md shows\n%s", command, said, want)
		}
		return
	}
	s.stop()
	s.said.text.Reset()
	shell.Stdout, shell.Stderr = &s.said, &s.said
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run and its program
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGKILL) }
	if err := shell.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.dev = shell
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		said := s.shown(s.said.String())
		if strings.Contains(said, "keys fetched") && pattern.MatchString(said) {
			return
		}
		if time.Since(begun) > 3*patience {
			s.t.Fatalf("$ %s\nprints\n%s\nREADME.md shows\n%s", command, said, want)
		}
	}
}

// shown returns what is printed without the address that README.md does not have.
func (s *session) shown(output string) string {
	output = strings.ReplaceAll(output, " --url http://"+s.addr, "")
	return strings.TrimSpace(strings.ReplaceAll(output, s.addr, "localhost:3010"))
}

// stop stops dev.
func (s *session) stop() {
	if s.dev != nil {
		_ = syscall.Kill(-s.dev.Process.Pid, syscall.SIGKILL)
		_ = s.dev.Wait()
		s.dev = nil
	}
}

// pattern matches what README.md shows. Nothing shown is anything.
func (s *session) pattern(want string) *regexp.Regexp {
	if want = strings.TrimSpace(want); want == "" {
		want = "…"
	}
	quoted := regexp.MustCompile(` +`).ReplaceAllString(regexp.QuoteMeta(want), ` +`)
	quoted = regexp.MustCompile(`(?m)^…$`).ReplaceAllString(quoted, `(?s:.*)`)
	return regexp.MustCompile(`^` + strings.ReplaceAll(quoted, "…", ".*") + `$`)
}

// patch applies a change without line numbers, whose parts each fit in one place.
func (s *session) patch(name, change string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, part := range strings.Split(change, "@@\n") {
		var before, after strings.Builder
		for line := range strings.Lines(part) {
			if line[0] != '+' {
				before.WriteString(line[1:])
			}
			if line[0] != '-' {
				after.WriteString(line[1:])
			}
		}
		if n := strings.Count(string(text), before.String()); n != 1 {
			s.t.Fatalf("%s has %d places for the change of README.md:\n%s", name, n, part)
		}
		text = []byte(strings.Replace(string(text), before.String(), after.String(), 1))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}
