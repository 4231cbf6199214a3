//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestClients has OAuth clients of other makers do, against dev, what their users have them do.
func TestClients(t *testing.T) {
	dir := os.Getenv("OASGATE_TEST_CLIENTS")
	if testing.Short() {
		t.Skip("node is not run with -short")
	}
	if dir == "" {
		t.Skip("OASGATE_TEST_CLIENTS is not set: expected the path of a copy of testdata/clients, " +
			"after `npm ci` there")
	}
	for _, script := range []string{"openid-client.mjs", "mcp.mjs"} {
		t.Run(script, func(t *testing.T) {
			dev := startDev(t)
			command := exec.CommandContext(t.Context(), "node", filepath.Join(dir, script))
			command.Env = environment("OASGATE_TEST_URL=" + dev.url)
			if output, err := command.CombinedOutput(); err != nil {
				t.Errorf("node %s: %v\n%s", script, err, output)
			}
		})
	}
}
