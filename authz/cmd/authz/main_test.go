package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool(
	"update",
	false,
	"rewrite the transcripts in testdata by what the tool says now",
)

// TestTranscripts runs what testdata/*.txtar show of the tool: a terminal session over the files in
// the archive.
func TestTranscripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no transcripts in testdata: %v", err)
	}
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".txtar")
		if name == "explain" || name == "probe" {
			continue // they need an issuer or a server: see TestExplain and TestProbe
		}
		t.Run(name, func(t *testing.T) {
			replay(t, script, func(args []string, stdin, stdout, stderr *bytes.Buffer) int {
				return run(t.Context(), args, stdin, stdout, stderr)
			}, nil)
		})
	}
}

// replay runs the commands of a transcript and compares their output. A command is `$ authz …`,
// optionally with `< file`. Its output is the lines of stdout, those of stderr after 2>, and the
// exit code if it is not 0. `$ git …` and `$ cp …` are run too, and print nothing. In commands,
// names are replaced by their values, and in the output, values by their names.
func replay(
	t *testing.T,
	script string,
	command func(args []string, stdin, stdout, stderr *bytes.Buffer) int,
	values map[string]string,
) {
	t.Helper()
	archive, err := txtar.ParseFile(script)
	if err != nil {
		t.Fatal(err)
	}
	script, err = filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	if archive.Files[len(archive.Files)-1].Name != "transcript" {
		t.Fatalf("%s: the last file of the archive must be the transcript", script)
	}
	t.Chdir(t.TempDir())
	for _, f := range archive.Files {
		if err := os.MkdirAll(filepath.Dir(f.Name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names, reals := pairs(values, false), pairs(values, true)
	transcript := &archive.Files[len(archive.Files)-1]
	var now bytes.Buffer
	for line := range strings.Lines(string(transcript.Data)) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok &&
			!strings.HasPrefix(command, "authz ") {
			fmt.Fprintf(&now, "$ %s\n", command)
			prepare(t, strings.Fields(command))
			continue
		}
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "$ authz ")
		if !ok {
			continue
		}
		fmt.Fprintf(&now, "$ authz %s\n", text)
		text, input, piped := strings.Cut(text, " < ")
		args := strings.Fields(text)
		for i := range args {
			args[i] = strings.NewReplacer(reals...).Replace(args[i])
		}
		var stdin, stdout, stderr bytes.Buffer
		if piped {
			data, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			stdin.WriteString(strings.NewReplacer(reals...).Replace(string(data)))
		}
		code := command(args, &stdin, &stdout, &stderr)
		now.WriteString(strings.NewReplacer(names...).Replace(stdout.String()))
		for line := range strings.Lines(stderr.String()) {
			now.WriteString("2> " + strings.NewReplacer(names...).Replace(line))
		}
		if code != 0 {
			fmt.Fprintf(&now, "exit %d\n", code)
		}
		now.WriteString("\n")
	}
	was := string(transcript.Data)
	if *update {
		transcript.Data = now.Bytes()
		if err := os.WriteFile(script, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if was != now.String() {
		t.Errorf(
			"%s: the tool does not say what the transcript shows. If it is right, run go test -update and review the change. It says:\n%s",
			filepath.Base(script),
			now.String(),
		)
	}
}

// prepare runs a command of a transcript that is not the tool.
func prepare(t *testing.T, command []string) {
	t.Helper()
	if command[0] != "git" && command[0] != "cp" {
		t.Fatalf("want git or cp in a transcript, found %s", command[0])
	}
	run := exec.CommandContext(t.Context(), command[0], command[1:]...)
	run.Env = append(
		os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a",
		"GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a",
		"GIT_COMMITTER_EMAIL=a@example.com",
	)
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// pairs are arguments of strings.NewReplacer. Long values are first, because one value can be the
// beginning of another.
func pairs(values map[string]string, toReal bool) (all []string) {
	for _, name := range slices.SortedFunc(maps.Keys(values), func(a, b string) int {
		return cmp.Or(len(values[b])-len(values[a]), cmp.Compare(a, b))
	}) {
		if toReal {
			all = append(all, name, values[name])
		} else {
			all = append(all, values[name], name)
		}
	}
	return all
}

// TestUsageErrorsRepeatNoToken: an unknown argument can be a token, so usage errors must not
// contain it.
func TestUsageErrorsRepeatNoToken(t *testing.T) {
	const secret, tail = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl",
		"-and-what-follows"
	for _, args := range [][]string{
		{secret},
		{"plan", "openapi.yaml", secret},
		{"explain", secret, secret + tail},
		{"explain", "--token=" + secret},
		{"explain", "--leeway=" + secret},
		{"explain", "--leeway", secret},
		{"explain", "--json=" + secret},
		{"diff", "a", "b", "Bearer " + secret},
		{"diff", "a", "b", secret + "\"\n\x1b"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		if code != unable {
			t.Errorf("authz %q: exit code is %d, want %d: wrong usage", args, code, unable)
		}
		if out := stdout.String() + stderr.String(); strings.Contains(out, secret[:20]) ||
			strings.Contains(out, tail) {
			t.Errorf(
				"authz %q: the usage error repeats the token; see withoutArguments. It says: %s",
				args,
				out,
			)
		}
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--help"}, nil, &stdout, &stderr); code != allWell ||
		stderr.Len() > 0 {
		t.Errorf(
			"authz --help: exit code is %d, stderr %q, want 0 and nothing",
			code,
			stderr.String(),
		)
	}
	for _, command := range []string{"plan", "lint", "diff", "explain", "probe"} {
		if !strings.Contains(stdout.String(), "\n  "+command) {
			t.Errorf("authz --help does not list %s:\n%s", command, stdout.String())
		}
	}
}
