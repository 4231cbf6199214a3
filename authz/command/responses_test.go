package command

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// noIssuer is for a document whose operations take no tokens.
type noIssuer struct{ http.Handler }

func (noIssuer) Serves(string) bool { return false }

// TestResponsesAreCompared: dev logs responses that the document does not describe, serve does what
// its setting says, and neither logs a value of a response.
func TestResponsesAreCompared(t *testing.T) {
	app := App{
		Name: "many-things",
		Document: func() (*openapi3.T, error) {
			return openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /thing:
    get:
      operationId: thing
      security: []
      responses: {"200": {description: d, content: {application/json: {schema: {type: integer}}}}}
`))
		},
		Open: Routes(func(g *authz.Gate) (http.Handler, error) {
			mux := g.Mux()
			mux.HandleFunc("GET /thing", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `"secret"`)
			})
			return mux, nil
		}),
		Dev: &Dev{Issuer: func(string, string, []string, []string) (Issuer, error) {
			return noIssuer{http.NotFoundHandler()}, nil
		}},
	}
	const difference = "response does not match the document"
	for _, row := range []struct {
		args   string
		logged bool
		status int
	}{
		{"dev", true, 200},
		{"serve", false, 200},
		{"serve --responses=off", false, 200},
		{"serve --responses=log", true, 200},
		{"serve --responses=fail", true, 500},
	} {
		t.Run(row.args, func(t *testing.T) {
			t.Chdir(t.TempDir())
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var stderr log
			done := make(chan int)
			go func() {
				done <- app.Run(ctx, append(strings.Fields(row.args), "--addr", "127.0.0.1:0",
					"--log-format", "json"), nil, strings.NewReader(""), io.Discard, &stderr)
			}()
			address := stderr.wait(t, `"msg":"serving","addr":"([^"]+)"`)[1]
			request, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+"/thing", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode != row.status ||
				strings.Contains(string(body), "secret") != (row.status == 200) {
				t.Errorf("status %d and %s, want %d", response.StatusCode, body, row.status)
			}
			stop()
			if code := <-done; code != 0 {
				t.Errorf("exit code %d", code)
			}
			got := stderr.String()
			if strings.Contains(got, difference) != row.logged || strings.Contains(got, "secret") {
				t.Errorf("the log is %s, want it to contain that a %s: %v", got, difference,
					row.logged)
			}
		})
	}
}
