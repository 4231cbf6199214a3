package impl

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
	"github.com/oasgate/oasgate/gen"
)

const testAudience = "https://api.example"

// patience is the watchdog of every step that a test waits for. Only what fails waits that long.
const patience = 2 * time.Minute

// running is this API's server, its issuer in another server, and its log.
type running struct {
	url    string
	issuer *devissuer.Server
	log    *logBuffer
	server *server.Server
}

// start serves this API, without a database, except for what configure changes.
func start(t *testing.T, configure func(*server.Config)) *running {
	t.Helper()
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{testAudience}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{issuer: issuer, log: &logBuffer{}}
	config := server.Config{
		Document: document, Routes: Routes(Handlers{}),
		Logger:  slog.New(slog.NewJSONHandler(r.log, nil)),
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{testAudience}}},
	}
	if configure != nil {
		configure(&config)
	}
	if r.server, err = server.New(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(asDocumented(t, r.server))
	t.Cleanup(listening.Close)
	r.url = listening.URL
	return r
}

// withHandlers has the operations answered by these handlers.
func withHandlers(handlers gen.StrictServerInterface) func(*server.Config) {
	return func(c *server.Config) { c.Routes = Routes(handlers) }
}

// answer is a response, read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request. headers are name, value, name, value.
func (r *running) ask(t *testing.T, method, path string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	return read(t, request)
}

func read(t *testing.T, request *http.Request) answer {
	t.Helper()
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// raw sends exactly this text.
func (r *running) raw(t *testing.T, text string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// wantProblem checks that an answer is a problem document that agrees with its status.
func wantProblem(t *testing.T, got answer, status int) {
	t.Helper()
	var problem struct {
		Type, Title string
		Status      int
	}
	if err := json.Unmarshal([]byte(got.body), &problem); err != nil || problem.Status != status ||
		problem.Title == "" ||
		problem.Type == "" {
		t.Errorf("body is %q: want a problem document (RFC 9457) of status %d", got.body, status)
	}
	if got.status != status || got.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("status %d, Content-Type %q: want %d, application/problem+json", got.status,
			got.header.Get("Content-Type"), status)
	}
}

// logBuffer is a log of JSON lines.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// request returns the line of the request with this ID. The client can have the answer before the
// line is written, so it waits.
func (b *logBuffer) request(t *testing.T, id string) (entry map[string]any) {
	t.Helper()
	eventually(t, "request "+id+" has a line in the log", func() bool {
		for line := range strings.Lines(b.String()) {
			entry = nil
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatalf("the log has a line that is not JSON: %q", line)
			}
			if entry["msg"] == "request" && entry["request_id"] == id {
				return true
			}
		}
		return false
	})
	return entry
}

// eventually waits until done returns true. The watchdog only stops a hang.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for begun := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("it never happens that %s", what)
		}
	}
}
