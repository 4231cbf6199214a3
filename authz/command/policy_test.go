package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// webhooks is an App whose document has API keys, users and a base path. Handlers return the
// subject.
func webhooks() App {
	return App{
		Name: "hooks",
		Document: func() (*openapi3.T, error) {
			return openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
servers: [{url: "https://api.example/v1"}]
paths:
  /hook: {post: {operationId: hook, security: [{key: [send]}], responses: {"200": {description: d}}}}
  /user: {get: {operationId: user, security: [{basic: []}], responses: {"200": {description: d}}}}
  /open: {get: {operationId: open, responses: {"200": {description: d}}}}
components:
  securitySchemes:
    key: {type: apiKey, in: header, name: X-Key}
    basic: {type: http, scheme: basic}
`))
		},
		Open: Routes(func(g *authz.Gate) (http.Handler, error) {
			mux := g.Mux()
			for _, o := range g.Plan().Operations() {
				mux.HandleFunc(o.Method+" "+g.BasePath()+o.Path,
					func(w http.ResponseWriter, r *http.Request) {
						if p, ok := token.FromContext(r.Context()); ok {
							fmt.Fprint(w, p.Subject())
						}
					})
			}
			return mux, nil
		}),
	}
}

// log is a writer that tests read while others write.
type log struct {
	mutex sync.Mutex
	bytes bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.bytes.Write(b)
}

func (l *log) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.bytes.String()
}

// wait returns the first match of a pattern, once there is one.
func (l *log) wait(t *testing.T, pattern string) []string {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(
		10 * time.Millisecond) {
		found := regexp.MustCompile(pattern).FindStringSubmatch(l.String())
		if found != nil {
			return found
		}
	}
	t.Fatalf("the log never says %s: %s", pattern, l)
	return nil
}

// TestServeCredentials: a document with keys and users needs no Go code, and their file is
// reloaded.
func TestServeCredentials(t *testing.T) {
	t.Chdir(t.TempDir())
	entry := func(id, secret, scopes string) string {
		return fmt.Sprintf("  - {id: %s, scopes: [%s], sha256: %x}\n", id, scopes,
			sha256.Sum256([]byte(secret)))
	}
	write := func(text string) {
		if err := os.WriteFile("credentials.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key:\n" + entry("shop", "first", "send") + entry("guest", "second", "") + "basic:\n" +
		entry("alice", "pass:word", ""))
	ctx, stop := context.WithCancel(t.Context())
	var stderr log
	done := make(chan int)
	go func() {
		// no issuer, because the document has no access tokens
		done <- webhooks().Run(ctx, strings.Fields("serve --addr 127.0.0.1:0 "+
			"--unstated deny --credentials credentials.yaml"), nil, strings.NewReader(""),
			io.Discard, &stderr)
	}()
	api := "http://" + stderr.wait(t, `"msg":"serving","addr":"([^"]+)"`)[1]
	send := func(method, path, name, secret string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, api+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "":
		case "key":
			r.Header.Set("X-Key", secret)
		default:
			r.SetBasicAuth(name, secret)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	expect := func(method, path, name, secret string, status int, subject string) {
		t.Helper()
		got, body := send(method, path, name, secret)
		if got != status || status == 200 && body != subject {
			t.Errorf("%s %s with %s %q: %d %q, want %d %q", method, path, name, secret, got,
				body, status, subject)
		}
		if strings.Contains(body, secret) && secret != "" && status != 200 {
			t.Errorf("the response contains the secret: %s", body)
		}
	}
	expect("POST", "/v1/hook", "key", "first", 200, "shop")
	expect("POST", "/v1/hook", "key", "second", 403, "")
	expect("POST", "/v1/hook", "key", "third", 401, "")
	expect("POST", "/v1/hook", "", "", 401, "")
	expect("POST", "/hook", "key", "first", 404, "")
	expect("GET", "/v1/user", "alice", "pass:word", 200, "alice")
	expect("GET", "/v1/user", "alice", "pass:wor", 401, "")
	expect("GET", "/v1/user", "shop", "first", 401, "")
	expect("GET", "/v1/open", "", "", 403, "")

	write("key:\n  - {id: shop}\n")
	hangUp(t)
	stderr.wait(t, "credentials are unchanged.*sha256 is not set")
	expect("POST", "/v1/hook", "key", "first", 200, "shop")
	write("key:\n" + entry("shop", "third", "send") + "basic:\n" + entry("alice", "pass:word", ""))
	hangUp(t)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(
		10 * time.Millisecond) {
		if status, _ := send("POST", "/v1/hook", "key", "third"); status == 200 {
			break
		}
	}
	expect("POST", "/v1/hook", "key", "third", 200, "shop")
	expect("POST", "/v1/hook", "key", "first", 401, "")
	stop()
	if code := <-done; code != 0 {
		t.Errorf("serve exits with %d", code)
	}
	for _, secret := range []string{"first", "second", "third", "pass:word"} {
		if strings.Contains(stderr.String(), secret) {
			t.Errorf("the log contains the secret %q", secret)
		}
	}
}

// hangUp sends SIGHUP to this process.
func hangUp(t *testing.T) {
	t.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGHUP)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What the command credential prints is an entry of the file.
func TestCredentialCommand(t *testing.T) {
	code, stdout, stderr := run(t, webhooks(), `credential --id shop --scope send --scope read`)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	found, err := parseCredentials("file", []byte("key:\n"+stdout))
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(stderr)
	p, err := found["key"].Key(t.Context(), secret)
	if err != nil || p.Subject() != "shop" || p.ClientID() != "shop" || !p.HasScope("send") ||
		!p.HasScope("read") || len(secret) < 26 {
		t.Errorf("%q is the secret of %v, %v", secret, p, err)
	}
	if strings.Contains(stdout, secret) {
		t.Error("the entry contains the secret")
	}
	if code, _, _ := run(t, webhooks(), "credential"); code != 2 {
		t.Errorf("without --id: exit code %d", code)
	}
}

func TestCredentialFaults(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for text, fault := range map[string]string{
		"":                                  "is empty",
		"key: x":                            "expected a list",
		"key: [{id: a}]":                    "sha256 is not set",
		"key: [{sha256: " + hash + "}]":     "id is not set",
		"key: [{id: a, sha256: hunter2}]":   "sha256 is not 64 hexadecimal digits",
		"key: [{id: a, sha: " + hash + "}]": "sha is an unknown key",
		"key: [{id: a, sha256: " + hash + "}, {id: a, sha256: " + strings.Repeat("0b", 32) + "}]": "expected each ID once",
		"key: [{id: a, sha256: " + hash + "}, {id: b, sha256: " + hash + "}]":                     "expected each secret once",
	} {
		_, err := parseCredentials("file", []byte(text))
		if err == nil || !strings.Contains(err.Error(), fault) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: error is %v, want %q", text, err, fault)
		}
	}
}

// TestPolicyFaults: faults of the policy settings are reported together with other faults.
func TestPolicyFaults(t *testing.T) {
	dir := t.TempDir()
	nothing := filepath.Join(dir, "nothing.yaml")
	if err := os.WriteFile(nothing, []byte("overlay: 1.0.0\ninfo: {title: t, version: "+
		"v}\nactions: [{target: $.paths.none, remove: true}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	unknown := filepath.Join(dir, "unknown.yaml")
	if err := os.WriteFile(unknown, []byte("kye: [{id: a, sha256: "+strings.Repeat("0a", 32)+"}]"),
		0o600); err != nil {
		t.Fatal(err)
	}
	for args, fault := range map[string]string{
		"--overlay missing.yaml":                    `HOOKS_OVERLAY is "missing.yaml": expected a readable file`,
		"--overlay " + nothing:                      "did not match any targets",
		"--unstated public":                         `HOOKS_UNSTATED is "public": expected refuse or deny`,
		"--max-body 1MB":                            `HOOKS_MAX_BODY is "1MB": expected a size`,
		"--request-timeout 20":                      `HOOKS_REQUEST_TIMEOUT is "20": expected a positive duration`,
		"--write-timeout never":                     `HOOKS_WRITE_TIMEOUT is "never": expected a positive duration`,
		"--write-timeout 20s":                       "more than HOOKS_REQUEST_TIMEOUT, which is 20s",
		"--request-timeout none --write-timeout 1m": "more than HOOKS_REQUEST_TIMEOUT, which is none",
		"--without a,,b":                            "HOOKS_WITHOUT",
		"--without kye":                             `Config.Without has "kye"`,
		"--credentials missing":                     "HOOKS_CREDENTIALS",
		"--credentials " + unknown:                  `Config.Authenticators has "kye"`,
		"--base-path v1":                            "Config.BasePath",
		"--public-path v1":                          "Config.PublicPath",
		"--without key":                             "security scheme basic (http basic) has no authenticator",
	} {
		code, _, stderr := run(t, webhooks(), "serve --addr 127.0.0.1:0 --issuer https://issuer.invalid/ --audience a "+args)
		if code == 0 || !strings.Contains(stderr, fault) {
			t.Errorf("%s: exit code %d, %s; want %q", args, code, stderr, fault)
		}
	}
}
