//go:build unix

package e2e

import (
	"encoding/json"
	"net/http"
	"testing"
)

// The tests here are of the quickstart's own operations, and go with them.

// The texts of the quickstart's responses.
const (
	publicGreeting = "Hello from a public endpoint! You don't need to be authenticated to see " +
		"this."
	privateGreeting = "Hello from a private endpoint! You need to be authenticated to see this."
	scopedGreeting  = "Hello from a private endpoint! You need to be authenticated and have a " +
		"scope of read:messages to see this."
)

func wantGreeting(t *testing.T, got answer, greeting string) {
	t.Helper()
	var message map[string]string
	if err := json.Unmarshal([]byte(got.body), &message); err != nil ||
		got.status != http.StatusOK ||
		len(message) != 1 ||
		message["message"] != greeting {
		t.Errorf("answer is %d %s: want 200 and the message %q", got.status, got.body, greeting)
	}
}

func TestGreetings(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	none, full := p.token(t, "--url", p.url, "--client", "none"), p.token(t, "--url", p.url)
	wantGreeting(t, p.get(t, "/api/public", ""), publicGreeting)
	wantGreeting(t, p.get(t, "/api/private", none), privateGreeting)
	wantGreeting(t, p.get(t, "/api/private-scoped", full), scopedGreeting)
}
