//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"testing"
)

// TestTypeScript has the client of gen/ts do what its users do, in its own tests.
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
