package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// TestPreCommitHook: the hook that the README shows is one that pre-commit reads.
func TestPreCommitHook(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(readme, -1) {
		var config struct {
			Repos []struct {
				Repo  string
				Hooks []struct {
					ID, Name, Language, Entry, Files string
					Dependencies                     []string `yaml:"additional_dependencies"`
				}
			}
		}
		if err := yaml.Unmarshal(block[1], &config); err != nil {
			if strings.Contains(string(block[1]), "repos:") {
				t.Fatal(err)
			}
			continue // a list of steps
		}
		for _, repo := range config.Repos {
			for _, hook := range repo.Hooks {
				found = true
				files, err := regexp.Compile(hook.Files)
				if repo.Repo != "local" || hook.ID == "" || hook.Name == "" ||
					hook.Language != "golang" || len(hook.Dependencies) != 1 ||
					!strings.HasPrefix(hook.Entry, "authz lint ") || err != nil ||
					!files.MatchString("openapi.yaml") {
					t.Errorf("the hook is %+v", hook)
				}
			}
		}
	}
	if !found {
		t.Error("the README has no hook")
	}
}

// TestAction: the GitHub action is a composite one, uses the inputs that it declares, and calls the
// tool with flags that it has.
func TestAction(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../../../.github/actions/authz/action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Name, Description string
		Inputs            map[string]struct{ Description, Default string }
		Runs              struct {
			Using string
			Steps []struct{ Uses, Shell, Run, If string }
		}
	}
	if err := yaml.Unmarshal(text, &action); err != nil {
		t.Fatal(err)
	}
	if action.Name == "" || action.Description == "" || action.Runs.Using != "composite" {
		t.Errorf("the action is %+v", action)
	}
	for _, use := range regexp.MustCompile(`inputs\.([a-z-]+)`).FindAllSubmatch(text, -1) {
		if _, ok := action.Inputs[string(use[1])]; !ok {
			t.Errorf("inputs.%s is not declared", use[1])
		}
	}
	document := filepath.FromSlash("../../testdata/quickstart.yaml")
	values := strings.NewReplacer("$BASE:$DOCUMENT", document, "$DOCUMENT", document,
		"$LINT_FAIL_ON", action.Inputs["lint-fail-on"].Default,
		"$DIFF_FAIL_ON", action.Inputs["diff-fail-on"].Default, `"`, "")
	calls := 0
	for _, step := range action.Runs.Steps {
		if (step.Uses == "") == (step.Run == "") || step.Run != "" && step.Shell == "" {
			t.Errorf("a step is %+v: want uses, or run with a shell", step)
		}
		for line := range strings.Lines(step.Run) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), `"$RUNNER_TEMP/authz" `)
			if !ok {
				continue
			}
			calls++
			command, _, _ = strings.Cut(command, " >>")
			var stdout, stderr bytes.Buffer
			args := strings.Fields(values.Replace(command))
			if code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr); code != allWell {
				t.Errorf("authz %q: exit code %d, %s", args, code, &stderr)
			}
		}
	}
	if calls != 3 {
		t.Errorf("the action calls the tool %d times, want 3", calls)
	}
}
