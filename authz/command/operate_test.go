package command

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
)

// stored is an Opener with a secret.
type stored struct {
	Store string `name:"store" key:"STORE" secret:"" help:"Where things are."`
	Color string `name:"color" key:"COLOR" shown:"" default:"red" help:"Of things."`
	err   error
	got   string
}

func (s *stored) Open(context.Context, *slog.Logger) (*Service, error) {
	s.got = s.Store
	return nil, errors.New("the test ends here")
}

func (s *stored) Probe(context.Context) map[string]error { return map[string]error{"store": s.err} }

// serve --check reports what would fail, without secrets.
func TestCheckServe(t *testing.T) {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	for _, test := range []struct {
		issuer string
		err    error
		code   int
		want   []string
	}{
		{issuer.URL(), nil, 0, []string{
			"MANY_THINGS_ISSUER=" + issuer.URL() + "\n", "MANY_THINGS_STORE=(set)\n",
			"MANY_THINGS_COLOR=red (default)\n",
			"MANY_THINGS_LOG_FORMAT=json (default)\n",
			"ok      document: 1 operations\n", "ok      keys of " + issuer.URL() + ": 1\n",
			"ok      store\n",
		}},
		{down.URL, errors.New("no route to host"), 1, []string{
			"FAILED  keys of " + down.URL, "FAILED  store: no route to host\n",
			"many-things: checks failed: 2\n",
		}},
	} {
		app := things()
		app.Open = &stored{err: test.err}
		code, stdout, stderr := run(t, app, "serve --check --store secret",
			"MANY_THINGS_ISSUER="+test.issuer, "MANY_THINGS_AUDIENCE=a")
		if code != test.code || strings.Contains(stdout+stderr, "secret") ||
			strings.Contains(stdout, "MANY_THINGS_DPOP_NONCE_KEY") {
			t.Errorf("exit code %d, want %d: %s%s", code, test.code, stdout, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("the output is %s%s\nwant %q in it", stdout, stderr, want)
			}
		}
	}
}

// A faulty document is a failed check, too.
func TestCheckServeDocument(t *testing.T) {
	app := things()
	app.Open = &stored{}
	code, stdout, _ := run(t, app, "serve --check --without nonsense",
		"MANY_THINGS_ISSUER=http://localhost:1/", "MANY_THINGS_AUDIENCE=a")
	if code != 1 || !strings.Contains(stdout, "FAILED  document: ") {
		t.Errorf("exit code %d, output %s: want a fault of the document", code, stdout)
	}
}

func TestSecretInFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "store")
	if err := os.WriteFile(file, []byte("from the file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{"MANY_THINGS_ISSUER=http://localhost:1/", "MANY_THINGS_AUDIENCE=a",
		"MANY_THINGS_ADDR=127.0.0.1:0"}
	for _, test := range []struct {
		args    string
		environ []string
		got     string // by the Opener
		code    int
		want    string
	}{
		{"serve", []string{"MANY_THINGS_STORE_FILE=" + file}, "from the file", 1, "ends here"},
		{"serve --store flag", []string{"MANY_THINGS_STORE_FILE=" + file}, "flag", 1, "ends here"},
		{"serve", []string{"MANY_THINGS_STORE_FILE=" + file, "MANY_THINGS_STORE=x"}, "", 2,
			"MANY_THINGS_STORE and MANY_THINGS_STORE_FILE are both set"},
		{"serve", []string{"MANY_THINGS_STORE_FILE=" + file + "x"}, "", 2,
			"MANY_THINGS_STORE_FILE is \"" + file + "x\": expected a readable file"},
		{"serve", []string{"MANY_THINGS_COLOR_FILE=" + file}, "", 1,
			`"variable":"MANY_THINGS_COLOR_FILE"`}, // not a secret
	} {
		app, opener := things(), &stored{}
		app.Open = opener
		code, _, stderr := run(t, app, test.args, append(environ, test.environ...)...)
		if code != test.code || opener.got != test.got || !strings.Contains(stderr, test.want) {
			t.Errorf("%s with %v: exit code %d, store %q, %s\nwant %d, %q, %q", test.args,
				test.environ, code, opener.got, stderr, test.code, test.got, test.want)
		}
	}
}

func TestUnknownVariables(t *testing.T) {
	_, _, stderr := run(t, things(), "serve --addr 127.0.0.1:0",
		"MANY_THINGS_ISSUER=http://localhost:1/", "MANY_THINGS_AUDIENCE=a",
		"MANY_THINGS_ADUIENCE=b", "MANY_THINGS_NOTHING_LIKE_IT=c", "MANY_THINGS_CLIENT_SECRET=d",
		"MANY_THINGS_DPOP_NONCE_KEY_FILE=", "OTHER_PROGRAM=e",
		// Set by Kubernetes.
		"MANY_THINGS_SERVICE_HOST=10.0.0.1", "MANY_THINGS_SERVICE_PORT_HTTP=80",
		"MANY_THINGS_PORT=tcp://10.0.0.1:80", "MANY_THINGS_PORT_80_TCP_ADDR=10.0.0.1")
	var got []string
	for line := range strings.Lines(stderr) {
		if strings.Contains(line, "not a setting of this program") {
			_, variable, _ := strings.Cut(line, `"variable":`)
			got = append(got, strings.TrimSpace(variable))
		}
	}
	want := []string{
		`"MANY_THINGS_ADUIENCE","did_you_mean":"MANY_THINGS_AUDIENCE"}`,
		`"MANY_THINGS_NOTHING_LIKE_IT"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("reported are %q, want %q", got, want)
	}
}

// Every setting of the library is either shown or a secret.
func TestShown(t *testing.T) {
	secrets := []string{"DPOP_NONCE_KEY"}
	for _, settings := range []any{
		config{}, tlsConfig{}, policyConfig{}, operateConfig{}, logConfig{},
	} {
		fields := reflect.TypeOf(settings)
		for i := range fields.NumField() {
			key, ok := fields.Field(i).Tag.Lookup("key")
			_, secret := fields.Field(i).Tag.Lookup("secret")
			if ok && (slices.Contains(shown, key) == slices.Contains(secrets, key) ||
				secret != slices.Contains(secrets, key)) {
				t.Errorf("%s is neither a secret nor shown, or both", key)
			}
		}
	}
}

func TestOperateFaults(t *testing.T) {
	code, _, stderr := run(t, things(), "serve --admin-addr nowhere --audit-full maybe --dpop-limit 0",
		"MANY_THINGS_ISSUER=http://localhost:1/", "MANY_THINGS_AUDIENCE=a")
	for _, want := range []string{
		`MANY_THINGS_ADMIN_ADDR is "nowhere": expected host:port`,
		`MANY_THINGS_AUDIT_FULL is "maybe": expected block or drop`,
		`MANY_THINGS_DPOP_LIMIT is "0": expected a number above 0`,
	} {
		if code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("exit code %d, %s: want 2 and %q", code, stderr, want)
		}
	}
}

func TestHealth(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	for args, want := range map[string]int{
		"health --addr :" + port:                          0,
		"health --addr 127.0.0.1:1 --admin-addr :" + port: 0,
		"health --ready --addr 0.0.0.0:" + port:           1,
		"health --addr 127.0.0.1:1":                       1,
		"health --addr nowhere":                           2,
	} {
		if code, _, stderr := run(t, things(), args); code != want {
			t.Errorf("%s: exit code %d, want %d: %s", args, code, want, stderr)
		}
	}
}

// TestAuditLog: the audit log is complete when the program has ended.
func TestAuditLog(t *testing.T) {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	file := filepath.Join(t.TempDir(), "audit.log")
	ctx, stop := context.WithCancel(t.Context())
	app := things()
	app.Open = Routes(func(g *authz.Gate) (http.Handler, error) {
		mux := g.Mux()
		mux.HandleFunc("GET /things", func(http.ResponseWriter, *http.Request) {})
		for range 2 {
			r := httptest.NewRequest(http.MethodGet, "/things", nil)
			mux.ServeHTTP(httptest.NewRecorder(), r)
		}
		stop()
		return mux, mux.CheckRoutes()
	})
	t.Chdir(t.TempDir())
	var out strings.Builder
	code := app.Run(ctx, []string{"serve", "--audit-log", file, "--audit-full", "drop"}, []string{
		"MANY_THINGS_ISSUER=" + issuer.URL(), "MANY_THINGS_AUDIENCE=a",
		"MANY_THINGS_ADDR=127.0.0.1:0", "MANY_THINGS_ADMIN_ADDR=127.0.0.1:0",
	}, strings.NewReader(""), &out, &out)
	text, err := os.ReadFile(file)
	if code != 0 || err != nil || strings.Count(string(text), `"code":"missing-token"`) != 2 {
		t.Errorf("exit code %d, %v, audit log %s: want 2 decisions\n%s", code, err, text, &out)
	}
	if !strings.Contains(out.String(), "serving metrics and health") {
		t.Errorf("the admin listener is not logged: %s", &out)
	}
}
