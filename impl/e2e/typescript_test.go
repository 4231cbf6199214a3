//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestTypeScript runs the tests of gen/ts.
func TestTypeScript(t *testing.T) {
	dir := os.Getenv("OASGATE_TEST_TYPESCRIPT")
	if testing.Short() {
		t.Skip("npm is not run with -short")
	}
	if dir == "" {
		t.Skip(
			"OASGATE_TEST_TYPESCRIPT is not set: expected the path of gen/ts, after `npm ci` there")
	}
	dev := startDev(t)
	command := exec.CommandContext(t.Context(), "npm", "test",
		"--ignore-scripts") // it is compiled already
	command.Dir = dir
	command.Env = environment("OASGATE_TEST_URL=" + dev.url)
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("npm test, in gen/ts: %v: what follows says which of its tests failed\n%s", err,
			output)
	}
}

// TestTypeScriptPackage packs the npm package, installs it into a new project, compiles a program
// there with each module resolution of TypeScript, and runs it.
func TestTypeScriptPackage(t *testing.T) {
	dir := os.Getenv("OASGATE_TEST_TYPESCRIPT")
	if testing.Short() || dir == "" {
		t.Skip("OASGATE_TEST_TYPESCRIPT is not set, or -short: npm is not run")
	}
	dev := startDev(t)
	project := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), name, args...)
		command.Dir = project
		command.Env = environment("OASGATE_TEST_URL=" + dev.url)
		output, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, output)
		}
		return string(output)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(project, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	app, err := os.ReadFile(filepath.Join(dir, "test", "package", "app.ts"))
	if err != nil {
		t.Fatal(err)
	}
	write("app.ts", string(app))
	write("package.json", `{"private": true, "type": "module"}`)
	run("npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", project, dir)
	packed, err := filepath.Glob(filepath.Join(project, "*.tgz"))
	if err != nil || len(packed) != 1 {
		t.Fatalf("npm pack has made %q (%v), want one package", packed, err)
	}
	run("npm", "install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund",
		packed[0])
	tsc := filepath.Join(dir, "node_modules", ".bin", "tsc")
	for _, resolution := range []string{"nodenext", "bundler", "node10"} {
		module := "esnext"
		if resolution == "nodenext" {
			module = resolution
		}
		run(tsc, "--strict", "--target", "es2022", "--lib", "es2022,dom,dom.iterable",
			"--module", module, "--moduleResolution", resolution, "app.ts")
		if got := run("node", "app.js"); got != "the packed client works\n" {
			t.Errorf("with %s the program prints %q", resolution, got)
		}
	}
}
