//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// callResult is what `call` has written, and its exit code.
type callResult struct {
	stdout, stderr string
	code           int
}

// callProgram runs `call` in an empty folder, but for .env if that is given.
func callProgram(t *testing.T, as invocation, stdin string) callResult {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, append([]string{"call"}, as.args...)...)
	command.Dir, command.Env, command.Stdin = t.TempDir(), environment(
		as.env...), strings.NewReader(
		stdin,
	)
	if as.dotenv != "" {
		if err := os.WriteFile(filepath.Join(command.Dir, ".env"),
			[]byte(as.dotenv), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		if _, ended := err.(*exec.ExitError); !ended {
			t.Fatal(err)
		}
	}
	got := callResult{stdout.String(), stderr.String(), command.ProcessState.ExitCode()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("oasgate call %s\nexit code %d\nstdout:\n%sstderr:\n%s",
				strings.Join(as.args, " "), got.code, got.stdout, got.stderr)
		}
	})
	return got
}

// On dev, as a newcomer does it: no configuration, and a message from its creation to its end.
func TestCallDev(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	call := func(stdin string, args ...string) callResult {
		t.Helper()
		return callProgram(t,
			invocation{args: append([]string{args[0], "--url", p.url}, args[1:]...)}, stdin)
	}
	field := func(got callResult, name string) string {
		t.Helper()
		var body map[string]any
		if err := json.Unmarshal([]byte(got.stdout), &body); err != nil || got.code != 0 ||
			got.stderr != "" {
			t.Fatalf("exit code %d, stdout %q, stderr %q: want a JSON body and nothing else",
				got.code, got.stdout, got.stderr)
		}
		value, _ := body[name].(string)
		return value
	}
	if got := field(call("", "getPublic"), "message"); got != publicGreeting {
		t.Errorf("getPublic says %q: want %q", got, publicGreeting)
	}
	if got := field(call("", "getPrivateScoped"), "message"); got != scopedGreeting {
		t.Errorf("getPrivateScoped says %q: want %q", got, scopedGreeting)
	}
	if got := field(call("", "getPrivate", "--dpop"), "message"); got != privateGreeting {
		t.Errorf("getPrivate with a bound token says %q: want %q", got, privateGreeting)
	}

	id := field(call("", "createMessage", "--body", `{"text":"as an argument"}`), "id")
	field(call(`{"text":"from stdin"}`, "createMessage", "--body", "-"), "id")
	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, []byte(`{"text":"of a file"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	created := call("", "createMessage", "--body", "@"+file, "-i", "--idempotency-key",
		"0123456789abcdef", "--dpop")
	if head := regexp.MustCompile(
		`(?s)^HTTP/1\.1 201 Created\n.*\nLocation: /api/messages/.*\r\n\n\{"author"`); created.code != 0 ||
		!head.MatchString(created.stdout) {
		t.Errorf("with -i stdout is %q: want the status, the headers and the body", created.stdout)
	}
	list := call("", "listMessages", "--limit", "2")
	if list.code != 0 || strings.Count(list.stdout, `"id"`) != 2 ||
		!strings.Contains(list.stdout, "of a file") {
		t.Errorf("the list of at most 2 is %q: want the two newest", list.stdout)
	}

	// Calls as a person, with requested scopes, and with output for programs.
	got := call("", "createMessage", "--body", `{"text":"of a person"}`, "--as", "alice")
	if got.code != 0 || !strings.Contains(got.stdout, `"subject":"alice"`) {
		t.Errorf("as alice: %+v: want a message of hers", got)
	}
	var shown struct {
		Status  int
		Headers http.Header
		Body    struct{ Type string }
	}
	asJSON := call("", "listMessages", "--scope", "write:messages", "--json")
	if err := json.Unmarshal([]byte(asJSON.stdout), &shown); err != nil || asJSON.code != 1 ||
		shown.Status != 403 || !strings.HasSuffix(shown.Body.Type, "#insufficient-scope") ||
		shown.Headers.Get("Content-Type") != "application/problem+json" {
		t.Errorf("with --scope and --json: %+v (%v): want a 403 in one JSON object", asJSON, err)
	}

	if got := call("", "deleteMessage", "--id", id, "--if-match", `"7"`); got.code != 1 ||
		got.stdout != "" ||
		!strings.Contains(got.stderr, `"status":412`) ||
		!strings.HasSuffix(got.stderr,
			"\noasgate: DELETE /api/messages/{id} returned 412 Precondition Failed\n") {
		t.Errorf("exit code %d, stdout %q, stderr %q: want the problem, the status, and 1",
			got.code, got.stdout, got.stderr)
	}
	if got := call("", "deleteMessage", "--id", id, "--if-match", `"1"`); got != (callResult{}) {
		t.Errorf("deletion: %+v: want nothing but exit code 0", got)
	}
	for _, test := range []struct {
		name   string
		args   []string
		code   int
		stderr string // a part of it
	}{
		{"a client without scopes", []string{"getPrivateScoped", "--client", "none"}, 1, "returned 403 Forbidden"},
		{"gone", []string{"getMessage", "--id", id}, 1, "returned 404 Not Found"},
		{"refused before it gets there", []string{"getMessage", "--id", "a/../b?c#d"}, 1, "returned 400 Bad Request"},
		{"an operation that is misspelt", []string{"getmesage"}, 2, `unknown operation "getmesage"; did you mean getMessage? Run ` + "`oasgate call`"},
		{"a flag that there is not", []string{"getPublic", "--limit", "1"}, 2, "unknown flag --limit: see oasgate call getPublic --help"},
		{"a flag that is misspelt", []string{"listMessages", "-limt", "1"}, 2, "unknown flag --limt; did you mean --limit?: see"},
		{"a flag without its value", []string{"listMessages", "--limit"}, 2, "--limit has no value: see"},
		{"no issuer for a remote API", []string{"getPrivate", "--url", "https://api.invalid"}, 2, "--issuer (OASGATE_ISSUER) is not set"},
		{"a person at a remote API", []string{"getPrivate", "--url", "https://api.invalid", "--as", "bob"}, 2, `--as is for dev, but --url is "https://api.invalid": add --dev`},
		{"a body where none belongs", []string{"getPublic", "--body", "{}"}, 2, "unknown flag --body: see"},
		{"no body where one belongs", []string{"createMessage"}, 2, "--body is missing"},
		{"a parameter missing", []string{"getMessage"}, 2, "--id is missing"},
		{"a parameter empty", []string{"getMessage", "--id", ""}, 2, "--id is empty"},
		{"a parameter twice", []string{"listMessages", "--limit", "1", "--limit", "2"}, 2, "--limit is given 2 times"},
		{"a parameter without its flag", []string{"getMessage", "x"}, 2, "argument 3 after the operation is not a flag"},
		{"a secret as an argument", []string{"getPublic", "--client-secret=hunter2"}, 2, "unknown flag --client-secret"},
		{"a client that there is not", []string{"getPrivate", "--client", "other"}, 2, `--client is "other": expected full or none`},
		{"a person without the scope", []string{"createMessage", "--body", `{"text":"x"}`, "--as", "bob"}, 1, "returned 403 Forbidden"},
		{"a person that there is not", []string{"getPrivate", "--as", "carol"}, 2, `--as is "carol": expected alice or bob`},
		{"a person and a client", []string{"getPrivate", "--as", "bob", "--client", "none"}, 2, "--as and --client are both given"},
		{"a form where none belongs", []string{"createMessage", "--form", "a=b"}, 2, "unknown flag --form"},
		{"a file that there is not", []string{"createMessage", "--body", "@none.json"}, 2, "none.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := call("", test.args...)
			if got.code != test.code || got.stdout != "" ||
				!strings.Contains(got.stderr, test.stderr) ||
				strings.Contains(got.stderr, "hunter2") {
				t.Errorf("exit code %d, stdout %q, stderr %q: want %d and %q", got.code, got.stdout,
					got.stderr, test.code, test.stderr)
			}
		})
	}
	t.Run("flags before the operation", func(t *testing.T) {
		if got := callProgram(t, invocation{args: []string{"--dev", "getPrivate"}},
			""); got.code != 2 ||
			!strings.Contains(got.stderr, "expected an operation before the flags") {
			t.Errorf("exit code %d, stderr %q: want a hint that the operation comes first",
				got.code,
				got.stderr)
		}
	})
	t.Run("no dev", func(t *testing.T) {
		if got := callProgram(t, invocation{args: []string{"getPrivate", "--url", "http://127.0.0.1:1"}}, ""); got.code != 1 ||
			!strings.Contains(got.stderr, "start dev, or set --url to its address; for tokens of another issuer, set --issuer (OASGATE_ISSUER)") {
			t.Errorf("exit code %d, stderr %q: want a hint to start dev", got.code, got.stderr)
		}
		if got := callProgram(t, invocation{args: []string{"getPublic", "--url", "http://127.0.0.1:1"}}, ""); got.code != 1 ||
			!strings.Contains(got.stderr, "set --url to the address of the API") {
			t.Errorf("exit code %d, stderr %q: want a hint to set --url", got.code,
				got.stderr)
		}
	})
	t.Run("by another name of this machine", func(t *testing.T) {
		if got := callProgram(t, invocation{args: []string{"getPrivateScoped", "--url",
			strings.Replace(p.url, "localhost", "127.0.0.1", 1) + "/"}}, ""); got.code != 0 {
			t.Errorf("exit code %d, stderr %q: want the greeting", got.code, got.stderr)
		}
	})
}

// Calls with the credentials of a client at another issuer, from the environment or .env.
func TestCallServe(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-and-some-more"
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{
			audience,
		}, Scopes: []string{"read:messages", "read:messages:all", "write:messages"},
		Clients: []devissuer.Client{
			{ID: "caller", Secret: secret, Scopes: []string{"read:messages"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	p := startServe(t, &issuerProcess{url: issuer.URL()})
	settings := "OASGATE_ISSUER=" + issuer.URL() + "\nOASGATE_AUDIENCE=" + audience + ",https://other.example\nOASGATE_CLIENT_ID=caller\nOASGATE_CLIENT_SECRET=" + secret + "\n"
	for _, test := range []struct {
		name string
		invocation
		code   int
		output string // a part of stdout, or of stderr
	}{
		{"the environment", invocation{args: []string{"getPrivateScoped"}, env: strings.Fields(settings)}, 0, scopedGreeting},
		{".env", invocation{args: []string{"getPrivateScoped"}, dotenv: settings}, 0, scopedGreeting},
		{"flags", invocation{args: []string{"getPrivateScoped", "--issuer", issuer.URL(), "--audience", audience, "--client-id", "caller"}, env: []string{"OASGATE_CLIENT_SECRET=" + secret}}, 0, scopedGreeting},
		{"a scope that the client may not have", invocation{args: []string{"createMessage", "--body", `{"text":"x"}`}, dotenv: settings}, 1, "the issuer refused the request: invalid_scope"},
		{"another secret", invocation{args: []string{"getPrivate"}, dotenv: settings, env: []string{"OASGATE_CLIENT_SECRET=" + secret + "x"}}, 1, "the issuer refused the request: invalid_client"},
		{"no secret", invocation{args: []string{"getPrivate"}, env: []string{"OASGATE_ISSUER=" + issuer.URL()}}, 2, "the secret in OASGATE_CLIENT_SECRET"},
		{"an issuer that differs by its slash", invocation{args: []string{"getPrivate", "--issuer", strings.TrimSuffix(issuer.URL(), "/")}, dotenv: settings}, 1, "they differ by a trailing slash only"},
		{"an issuer without TLS", invocation{args: []string{"getPrivate", "--issuer", "http://issuer.example/"}, dotenv: settings}, 2, "expected a URL such as https://tenant.example/"},
		{"an API without TLS", invocation{args: []string{"getPrivate", "--url", "http://api.example"}, dotenv: settings}, 2, "expected an https URL"},
		{"public, without any credentials", invocation{args: []string{"getPublic"}, env: []string{"OASGATE_ISSUER=" + issuer.URL()}}, 0, publicGreeting},
		{"a client of dev's", invocation{args: []string{"getPrivate", "--client", "full"}, dotenv: settings}, 2, "--client is for dev, but"},
		{"dev is not running", invocation{args: []string{"getPrivate", "--dev"}, dotenv: settings}, 1, "the issuer returned 404 Not Found without an OAuth error: start dev"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.args = append(
				test.args[:1:1],
				append([]string{"--url", p.url}, test.args[1:]...)...)
			got := callProgram(t, test.invocation, "")
			output := got.stderr
			if test.code == 0 {
				output = strings.ReplaceAll(got.stdout, `\u0026`, "&")
			}
			if got.code != test.code || !strings.Contains(output, test.output) ||
				strings.Contains(got.stdout+got.stderr, secret) {
				t.Errorf("exit code %d, stdout %q, stderr %q: want %d and %q, without the secret",
					got.code, got.stdout, got.stderr, test.code, test.output)
			}
		})
	}
}

// Scopes are requested by the names of the issuer, from the configuration file of serve or
// --scope-prefix.
func TestCallUsesTheIssuersNames(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-and-some-more"
	scopes := []string{"api://app/read:messages", "api://app/.default"}
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{audience}, Scopes: scopes,
		Clients: []devissuer.Client{{ID: "caller", Secret: secret, Scopes: scopes}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	file := filepath.Join(t.TempDir(), "issuers.yaml")
	text := fmt.Sprintf(
		"issuers:\n  - url: %s\n    audiences: [%s]\n    scope_prefix: api://app/\n",
		issuer.URL(), audience)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startListed(t, file)
	for _, test := range []struct {
		name   string
		args   []string
		code   int
		output string
	}{
		{"by the file", []string{"--config", file}, 0, scopedGreeting},
		{"without it", nil, 1, "invalid_scope"},
		{"as given", []string{"--scope", "api://app/read:messages"}, 0, scopedGreeting},
		{"as given, beside the file", []string{"--config", file, "--scope", "api://app/.default"}, 1, "403"},
		{"an issuer that is not in the file", []string{"--config", file, "--issuer", "https://other.example/"}, 2, "does not list"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"getPrivateScoped", "--url", p.url, "--issuer", issuer.URL(),
				"--audience", audience, "--client-id", "caller"}, test.args...)
			got := callProgram(t,
				invocation{args: args, env: []string{"OASGATE_CLIENT_SECRET=" + secret}}, "")
			if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.output) {
				t.Errorf("exit code %d, stdout %q, stderr %q: want %d and %q",
					got.code, got.stdout, got.stderr, test.code, test.output)
			}
		})
	}
}

// The text of a refusal is shown to a person, without control sequences for the terminal.
func TestCallShowsNoControlCharacters(t *testing.T) {
	t.Parallel()
	const order = "\x1b]0;owned\a\u009b2J\x9b2J\rover"
	hostile := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/oauth/token" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			json.NewEncoder(w).
				Encode(map[string]string{"error": "invalid_client", "error_description": order})
			return
		}
		http.Error(w, order, http.StatusTeapot)
	}))
	t.Cleanup(hostile.Close)
	for _, test := range []struct{ operation, want string }{{"getPublic", "returned 418"},
		{"getPrivate", "the issuer refused the request: invalid_client"}} {
		got := callProgram(t, invocation{args: []string{test.operation, "--url", hostile.URL}}, "")
		if got.code != 1 || !strings.Contains(got.stderr, test.want) ||
			!strings.Contains(got.stderr, "owned") {
			t.Errorf("%s: exit code %d, stderr %q: want 1, %q and what the server says",
				test.operation, got.code, got.stderr, test.want)
		}
		if strings.ContainsFunc(got.stderr,
			func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) ||
			!utf8.ValidString(got.stderr) {
			t.Errorf("%s: stderr is %q: want nothing in it that a terminal acts upon",
				test.operation, got.stderr)
		}
	}
}

// What there is to call, and how.
func TestCallHelp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"Usage: oasgate call <operation>", "  listMessages ", "GET /api/messages\n", "token with read:messages, or read:messages:all", "public"}},
		{[]string{"--help"}, []string{"Usage: oasgate call <operation>", "  getPublic "}},
		{[]string{"--url", "http://localhost:1"}, []string{"Usage: oasgate call <operation>", "  getPublic "}},
		{[]string{"--json"}, []string{`"operation": "getPublic",`, `"access": "token with read:messages, or read:messages:all"`}},
		{[]string{"listMessages", "--help"}, []string{"GET /api/messages: Lists messages", "Access: token with read:messages", "--limit <integer>", "--cursor <string>", "--dpop", "[OASGATE_ISSUER]", "-i, --include"}},
		{[]string{"replaceMessage", "-h"}, []string{"--id <string>", "(path, required)", "--if-match <string>", "--body"}},
	} {
		got := callProgram(t,
			invocation{args: test.args, env: []string{"OASGATE_CLIENT_SECRET=hunter2"}}, "")
		for _, want := range test.want {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("call %v does not say %q", test.args, want)
			}
		}
		for line := range strings.Lines(got.stdout) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("call %v prints a line of %d columns: %s", test.args, n, line)
			}
		}
		if got.code != 0 || got.stderr != "" || strings.Contains(got.stdout, "hunter2") {
			t.Errorf("call %v: exit code %d, stderr %q: want 0 and nothing, and no secret",
				test.args, got.code, got.stderr)
		}
	}
}
