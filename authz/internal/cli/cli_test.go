package cli

import (
	"os/exec"
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

// TestScripts checks the scripts with each shell that is installed, and uses the one for bash.
func TestScripts(t *testing.T) {
	for shell := range scripts {
		var script strings.Builder
		if err := (&Completion{Shell: shell}).Write(&script, "two-words"); err != nil {
			t.Fatal(err)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		line := []string{"-n", "-c", script.String()}
		if shell == "bash" {
			line = []string{"-c", "two-words() { printf '%s\\n' \"$@\" found; }\n" +
				script.String() +
				"\nCOMP_WORDS=(two-words a f) COMP_CWORD=2; _two_words two-words f a; echo " +
				"\"${COMPREPLY[@]}\""}
		}
		out, err := exec.Command(path, line...).CombinedOutput()
		if err != nil || shell == "bash" && strings.TrimSpace(string(out)) != "f found" {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
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
