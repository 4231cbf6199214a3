package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme runs the commands of README.md that need neither an issuer nor a server, in a
// repository with the branch main, the tag v2, and a change that is not committed. It compares what
// they print with what README.md shows, where "…" stands for any lines.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.FromSlash("../../../openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	write := func(name string, data []byte) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) { prepare(t, append([]string{"git"}, args...)) }
	write("openapi.yaml", document)
	write("api/openapi.yaml", document)
	git("init", "-q", "-b", "main")
	git("add", ".")
	for _, message := range []string{"1", "2", "3", "4"} {
		git("commit", "-q", "--allow-empty", "-m", message)
	}
	git("tag", "v2")
	git("fetch", "-q", ".", "main")
	write("gen/gen.go", []byte("package gen\n"))
	write("web/web.ts", nil)
	scoped := regexp.MustCompile(`(?s)(: getPrivateScoped\n.*?bearerAuth: )\["read:messages"\]`)
	changed := scoped.ReplaceAll(document, []byte("${1}[]"))

	ran := 0
	sessions := regexp.MustCompile("(?s)```console\n(.*?)```")
	for _, block := range sessions.FindAllSubmatch(readme, -1) {
		for _, step := range strings.Split("\n"+string(block[1]), "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			command, _, _ = strings.Cut(command, " #")
			args := strings.Fields(command)
			if args[0] != "authz" || strings.Contains(command, "…") ||
				strings.ContainsAny(command, "<>") || args[1] == "explain" || args[1] == "probe" {
				continue
			}
			ran++
			if write("openapi.yaml", document); args[1] == "diff" {
				write("openapi.yaml", changed)
			}
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), args[1:], new(bytes.Buffer), &stdout, &stderr)
			if code == unable {
				t.Errorf("%s: %s", command, &stderr)
			}
			shown := regexp.QuoteMeta(strings.TrimSpace(want))
			shown = strings.ReplaceAll(shown, "\n…\n", "\n(?:.*\n)*")
			matches := regexp.MustCompile("^" + shown + "$").MatchString
			if shown != "" && !matches(strings.TrimSpace(stdout.String())) {
				t.Errorf("%s prints\n%s\nREADME.md shows\n%s", command, &stdout, want)
			}
		}
	}
	if ran < 10 {
		t.Errorf("%d commands were run, expected more", ran)
	}
}
