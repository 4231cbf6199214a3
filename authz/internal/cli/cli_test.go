package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

type program struct {
	Deep struct {
		Inner struct {
			Mode string `enum:"one,two" default:"one"`
			Loud bool
		} `cmd:""`
		Hidden struct{} `cmd:"" hidden:""`
	} `cmd:""`
	Raw struct {
		Args []string `arg:"" optional:""`
	} `cmd:"" passthrough:""`
	Completion Completion `cmd:""`
}

func TestWords(t *testing.T) {
	var p program
	parser, err := kong.New(&p, kong.Name("thing"))
	if err != nil {
		t.Fatal(err)
	}
	raw := func(words []string) []string { return []string{"saw:" + strings.Join(words, ",")} }
	for _, test := range []struct{ words, want string }{
		{"", "deep raw completion"},
		{"d", "deep"},
		{"deep ", "inner"},
		{"deep inner --", "--help --mode --loud"},
		{"deep inner --mode ", "one two"},
		{"deep inner --mode=one --l", "--loud"},
		{"deep inner --loud --mode t", "two"},
		{"completion ", "bash zsh fish"},
		{"nothing x", ""},
		{"raw a saw", "saw:a,saw"},
	} {
		var got strings.Builder
		WriteWords(&got, parser.Model, strings.Split(test.words, " "),
			map[string]func([]string) []string{"raw": raw})
		if words := strings.Join(strings.Fields(got.String()), " "); words != test.want {
			t.Errorf("%q is completed by %q, want %q", test.words, words, test.want)
		}
	}
	WriteWords(new(strings.Builder), parser.Model, nil, nil) // not called by a script
}

// TestScripts has the shells that are installed complete a command line by their own scripts. The
// program prints the words that it is called with.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "two-words")
	const printWords = "#!/bin/sh\nprintf '%s\\n' \"$@\" found\n"
	if err := os.WriteFile(program, []byte(printWords), 0o755); err != nil {
		t.Fatal(err)
	}
	for shell, test := range map[string]struct {
		complete string // what completes `two-words a f`
		want     string // with SCRIPT for the script
	}{
		"bash": {"SCRIPT\nCOMP_WORDS=(two-words a f) COMP_CWORD=2; _two_words two-words f a; " +
			"echo \"${COMPREPLY[@]}\"", "f found"},
		// compadd only works while the line editor completes, and compdef needs compinit.
		"zsh": {"compdef() { : }; compadd() { echo ${(P)2} }; _files() { echo no words }\n" +
			"SCRIPT\nwords=(two-words a f) CURRENT=3; _two_words", "__complete a f found"},
		"fish": {"SCRIPT\ncomplete -C 'two-words a f' | string join ' '", "f found"},
	} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			var script strings.Builder
			if err := (&Completion{Shell: shell}).Write(&script, "two-words"); err != nil {
				t.Fatal(err)
			}
			command := exec.Command(path, "-c",
				strings.Replace(test.complete, "SCRIPT", script.String(), 1))
			command.Env = append(os.Environ(), "HOME="+dir,
				"PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
			out, err := command.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
				t.Errorf("%v: completed by %q, want %q", err, got, test.want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.0", Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
		},
		Deps: []*debug.Module{{Path: "example.com/x", Version: "v1"},
			{Path: library, Version: "v0.3.0"}},
	}
	const want = "thing v1.2.3, revision abc (modified), go1.26.0\ngithub.com/oasgate/oasgate " +
		"v0.3.0"
	if got := version("thing", info); got != want {
		t.Errorf("the version is %q, want %q", got, want)
	}
	bare := &debug.BuildInfo{GoVersion: "go1.26.0"}
	if got := version("thing", bare); got != "thing (devel), go1.26.0" {
		t.Errorf("the version is %q", got)
	}
	if !slices.Contains(strings.Fields(Version("thing")), "thing") {
		t.Error("the version does not name the program")
	}
}
