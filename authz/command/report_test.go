package command

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// What passes under --insecure-report is in the log.
func TestInsecureReport(t *testing.T) {
	for _, row := range []struct {
		mode   string
		target string
		status int
		logged string // "": nothing
	}{
		{"off", "/things", 401, ""},
		{"validation", "/things", 401, ""},
		{"everything", "/things", 204, "operation=list status=401"},
	} {
		document, err := things().Document()
		if err != nil {
			t.Fatal(err)
		}
		var logged strings.Builder
		decisions := 0
		c := authz.Config{
			Document: document, Verifier: &token.Verifier{},
			Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		}
		count := func(c *authz.Config) {
			c.OnDecision = func(context.Context, authz.Decision) { decisions++ }
		}
		chain(count, (&faults{}).report("INSECURE_REPORT", row.mode))(&c)
		gate, err := authz.New(c)
		if err != nil {
			t.Fatal(err)
		}
		mux := gate.Mux()
		mux.HandleFunc(
			"GET /things",
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", row.target, nil))
		if w.Code != row.status || decisions != 1 {
			t.Errorf(
				"%s: status %d after %d decisions, want %d after one",
				row.mode,
				w.Code,
				decisions,
				row.status,
			)
		}
		if got := logged.String(); !strings.Contains(got, row.logged) ||
			(got == "") != (row.logged == "") {
			t.Errorf("%s: the log has %q", row.mode, got)
		}
	}
}
