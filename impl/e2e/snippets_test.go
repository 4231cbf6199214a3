//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/gen"
)

// toolchains lists, for each language, how to detect its tools, and the Debian packages of them.
// There is none for Swift.
var toolchains = map[string]struct{ check, packages string }{
	"curl": {"curl --help all | grep -q -e --fail-with-body", "curl"},
	"csharp": {
		"command -v mono && command -v mcs && ls /usr/lib/mono/4.5/System.Net.Http.dll /usr/lib/mono/4.5/System.Runtime.Serialization.dll /usr/lib/mono/4.5/System.Xml.Linq.dll",
		"mono-mcs libmono-system-net-http4.0-cil libmono-system-runtime-serialization4.0-cil libmono-system-xml-linq4.0-cil",
	},
	"go":   {"command -v go", "golang-go"},
	"java": {"command -v javac && command -v java", "default-jdk-headless"},
	"node": {
		"node --input-type=module -e 'process.exit(typeof fetch === \"function\" ? 0 : 1)'",
		"nodejs",
	},
	"objc": {
		"echo '#import <Foundation/Foundation.h>' | gcc $(gnustep-config --objc-flags) -MF /dev/null -x objective-c -fsyntax-only -",
		"gobjc gnustep-make libgnustep-base-dev",
	},
	"php":    {"php -m | grep -qx curl", "php-cli php-curl"},
	"python": {"python3 -c 'import ssl, urllib.request'", "python3"},
	"ruby":   {"ruby -r json -r net/http -e 1", "ruby"},
}

// snippetEnvironment disables the proxy of this machine.
func snippetEnvironment() []string {
	return environment("no_proxy=localhost,127.0.0.1", "NO_PROXY=localhost,127.0.0.1")
}

// compiled is a program, ready to be run.
type compiled struct {
	language docs.Language
	dir      string
}

// compile saves a program, and builds it with the command that the page shows.
func compile(t *testing.T, language docs.Language, program string) compiled {
	t.Helper()
	c := compiled{language, t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.dir, language.File),
		[]byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := c.shell(t, language.Build); code != 0 || stderr != "" {
		t.Fatalf("%s exits with %d:\n%s%s\nthe program, of authz/server/docs/snippets/%s.tmpl:\n%s",
			language.Build, code, stdout, stderr, language.ID, program)
	}
	return c
}

func (c compiled) run(t *testing.T) (stdout, stderr string, code int) {
	t.Helper()
	return c.shell(t, c.language.Run)
}

func (c compiled) shell(t *testing.T, line string) (stdout, stderr string, code int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "sh", "-c", line)
	command.Dir, command.Env = c.dir, snippetEnvironment()
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), command.ProcessState.ExitCode()
}

// succeeds runs the program, which must print an answer and nothing else.
func (c compiled) succeeds(t *testing.T) string {
	t.Helper()
	stdout, stderr, code := c.run(t)
	if code != 0 || stderr != "" {
		t.Fatalf("%s exits with %d and says\n%s%s", c.language.Run, code, stdout, stderr)
	}
	return stdout
}

// fails runs the program, which must exit with an error and print all this to stderr. curl prints
// the body of a refusal elsewhere.
func (c compiled) fails(t *testing.T, says ...string) {
	t.Helper()
	stdout, stderr, code := c.run(t)
	if c.language.ID == "curl" {
		stdout, stderr = "", stdout+stderr
	}
	if code == 0 || stdout != "" {
		t.Errorf("%s exits with %d, want an error, and prints %q, want nothing",
			c.language.Run, code, stdout)
	}
	for _, text := range says {
		if !strings.Contains(stderr, text) {
			t.Errorf("stderr does not say %q, but\n%s", text, stderr)
		}
	}
}

// perLanguage runs a test for each language that this machine has, two at a time.
func perLanguage(
	t *testing.T, languages []docs.Language, test func(t *testing.T, language docs.Language),
) {
	atOnce := make(chan struct{}, 2)
	for _, language := range languages {
		t.Run(language.ID, func(t *testing.T) {
			if !language.Executed {
				t.Skipf("%s is shown, and not executed", language.Name)
			}
			if testing.Short() {
				t.Skip("programs of other languages are not run with -short")
			}
			t.Parallel()
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			toolchain := toolchains[language.ID]
			command := exec.CommandContext(t.Context(), "sh", "-c", toolchain.check)
			command.Env = snippetEnvironment()
			if err := command.Run(); err != nil {
				t.Skipf("%s cannot be run here (%s: %v): install Debian's %s", language.Name,
					toolchain.check, err, toolchain.packages)
			}
			test(t, language)
		})
	}
}

func devSnippets(t *testing.T, api, tokenEndpoint string) *docs.Snippets {
	t.Helper()
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	snippets, err := docs.NewSnippets(docs.Values{
		Document: document, APIURL: api, TokenEndpoint: tokenEndpoint, Audience: devAudience,
		ClientID: "full", ClientSecret: devSecret,
	})
	if err != nil {
		t.Fatal(err)
	}
	return snippets
}

// The programs of the page of a running dev, saved, compiled and run as the page says.
func TestSnippetsOfThePage(t *testing.T) {
	dev := startDev(t)
	page := func(operation string) (shown docs.Snippets) {
		answer, err := http.Get(dev.url + "/docs/snippets.json?operation=" + operation)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(&shown); err != nil {
			t.Fatal(err)
		}
		return shown
	}
	scoped, create := page("getPrivateScoped"), page("createMessage")
	perLanguage(t, scoped.Languages, func(t *testing.T, language docs.Language) {
		greeting := compile(t, language,
			scoped.Operations["getPrivateScoped"][language.ID].Program()).succeeds(t)
		if !strings.Contains(greeting, "Hello from a private endpoint!") {
			t.Errorf("getPrivateScoped: prints %q", greeting)
		}
		created := compile(t, language,
			create.Operations["createMessage"][language.ID].Program()).succeeds(t)
		var message gen.Message
		if err := json.Unmarshal([]byte(created), &message); err != nil ||
			message.Text != "Hello, world!" {
			t.Errorf("createMessage: prints %q (%v)", created, err)
		}
	})
}

// One program, for which the issuer is each time another.
func TestSnippetsShowARefusal(t *testing.T) {
	dev := startDev(t)
	languages := devSnippets(t, "", "").Languages
	perLanguage(t, languages, func(t *testing.T, language docs.Language) {
		var issuer http.HandlerFunc // sequential: one run at a time
		front := httptest.NewServer(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { issuer(w, r) }))
		defer front.Close()
		// asDev has dev answer a form that differs from what was sent.
		asDev := func(differs func(form url.Values)) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				differs(r.PostForm)
				answer, err := http.PostForm(dev.url+"/oauth/token", r.PostForm)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadGateway)
					return
				}
				defer answer.Body.Close()
				w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
				w.WriteHeader(answer.StatusCode)
				_, _ = io.Copy(w, answer.Body)
			}
		}
		snippet := devSnippets(t, dev.url, front.URL).Operations["getPrivateScoped"][language.ID]
		program := compile(t, language, snippet.Program())

		issuer = asDev(func(form url.Values) { form.Set("client_id", "none"); form.Del("scope") })
		program.fails(t, "403", "insufficient-scope", "read:messages")

		issuer = asDev(func(form url.Values) { form.Set("client_secret", "wrong") })
		program.fails(t, "400", "invalid_client", "client_secret is incorrect")

		issuer = func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{ "token_type": "Bearer", "access_token": "forged" }`)
		}
		program.fails(t, "401", "invalid-token")

		issuer = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, `{}`) }
		program.fails(t, "access_token")

		if language.ID == "objc" {
			return // NSURLConnection follows redirects
		}
		followed := false
		issuer = func(w http.ResponseWriter, r *http.Request) {
			if followed = r.URL.Path == "/elsewhere"; !followed {
				http.Redirect(w, r, "/elsewhere", http.StatusFound)
			}
		}
		if language.ID == "curl" { // it prints only what it received: nothing
			program.fails(t, "access_token")
		} else {
			program.fails(t, "302")
		}
		if followed {
			t.Error(
				"the program goes wherever it is redirected, with what is meant for one address")
		}
	})
}

// A server without a trusted certificate gets nothing.
func TestSnippetsVerifyTLS(t *testing.T) {
	var requests sync.Map // language → true
	server := httptest.NewUnstartedServer(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Store(strings.Split(r.URL.Path, "/")[1], true)
		}),
	)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail
	server.StartTLS()
	t.Cleanup(server.Close)
	perLanguage(t, devSnippets(t, "", "").Languages, func(t *testing.T, language docs.Language) {
		program := compile(t, language,
			devSnippets(t, server.URL+"/"+language.ID,
				"").Operations["getPublic"][language.ID].Program())
		program.fails(t)
		if _, sent := requests.Load(language.ID); sent {
			t.Error("the program accepted a self-signed certificate")
		}
	})
}

// Values arrive unchanged, whatever characters they contain.
func TestSnippetsQuoteEverything(t *testing.T) {
	// What a language's own type for URLs makes something else of, escaped or not.
	mangled := map[string]string{"csharp": "\u202e", "objc": "?\x00"}
	const visible = `'"\ $HOME ${HOME} $(id) #{1+1} #$0 \(1+1) {$a} %s %d %@ ` + "`id`" +
		` </script> ?> ??/ */ // <!-- \n \u0022 \u000a \x41 \101 & + = ; @ ~ 100%`
	hostile := visible + "\"\"\"'''\a\b\t\n\r\n\v\f\x00\x01" +
		"7\x1b[31m\x7f\u0085\u00a0ü€\u2028\u2029\ufeff\u202e😀9" + `\`
	perLanguage(t, devSnippets(t, "", "").Languages, func(t *testing.T, language docs.Language) {
		sendable := hostile
		if language.ID == "curl" {
			sendable = strings.ReplaceAll(hostile, "\x00",
				"") // no argument of a command can have one
		}
		inURL := strings.Map(func(r rune) rune {
			if strings.ContainsRune(mangled[language.ID], r) {
				return -1
			}
			return r
		}, hostile)
		document := &openapi3.T{
			OpenAPI: "3.1.0",
			Info:    &openapi3.Info{Title: "hostile", Version: "1"},
			Paths: openapi3.NewPaths(openapi3.WithPath("/things/{id}", &openapi3.PathItem{
				Post: &openapi3.Operation{
					OperationID: "hostile",
					Security:    &openapi3.SecurityRequirements{{"bearerAuth": {visible}}},
					Parameters: openapi3.Parameters{
						{
							Value: &openapi3.Parameter{
								In:       "path",
								Name:     "id",
								Required: true,
								Example:  inURL,
								Schema:   openapi3.NewStringSchema().NewRef(),
							},
						},
						{
							Value: &openapi3.Parameter{
								In:       "query",
								Name:     "q[]",
								Required: true,
								Example:  inURL,
								Schema:   openapi3.NewStringSchema().NewRef(),
							},
						},
						{
							Value: &openapi3.Parameter{
								In:       "header",
								Name:     "X-Hostile",
								Required: true,
								Example:  visible,
								Schema:   openapi3.NewStringSchema().NewRef(),
							},
						},
					},
					RequestBody: &openapi3.RequestBodyRef{
						Value: openapi3.NewRequestBody().
							WithContent(openapi3.Content{
								"application/json": {Example: map[string]any{hostile: hostile}}}),
					},
					Responses: openapi3.NewResponses(),
				},
			})),
			Components: &openapi3.Components{
				SecuritySchemes: openapi3.SecuritySchemes{
					"bearerAuth": {Value: &openapi3.SecurityScheme{Type: "http", Scheme: "bearer"}},
				},
			},
		}

		var form url.Values
		var got struct {
			path, query, header, authorization, contentType string
			body                                            map[string]string
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				_ = r.ParseForm()
				form = r.PostForm
				_, _ = io.WriteString(w, `{"access_token":"granted"}`)
				return
			}
			got.path, got.query, got.header = r.URL.Path, r.URL.Query().
				Get("q[]"),
				r.Header.Get("X-Hostile")
			got.authorization, got.contentType = r.Header.Get("Authorization"), r.Header.Get(
				"Content-Type")
			_ = json.NewDecoder(r.Body).Decode(&got.body)
			_, _ = io.WriteString(w, "arrived")
		}))
		defer server.Close()
		snippets, err := docs.NewSnippets(docs.Values{
			Document: document, APIURL: server.URL, TokenEndpoint: server.URL + "/token",
			Audience: hostile, ClientID: hostile, ClientSecret: hostile,
		})
		if err != nil {
			t.Fatal(err)
		}
		if printed := compile(t, language,
			snippets.Operations["hostile"][language.ID].Program()).succeeds(t); strings.TrimSpace(
			printed) != "arrived" {
			t.Errorf("prints %q", printed)
		}
		for what, pair := range map[string][2]string{
			"grant_type":    {form.Get("grant_type"), "client_credentials"},
			"client_id":     {form.Get("client_id"), sendable},
			"client_secret": {form.Get("client_secret"), sendable},
			"audience":      {form.Get("audience"), sendable},
			"scope":         {form.Get("scope"), visible},
			"the path":      {got.path, "/things/" + inURL},
			"the query":     {got.query, inURL},
			"the header":    {got.header, visible},
			"the token":     {got.authorization, "Bearer granted"},
			"Content-Type":  {got.contentType, "application/json"},
			"the body":      {got.body[hostile], hostile},
		} {
			if pair[0] != pair[1] {
				t.Errorf(
					"%s arrives as\n%q, want\n%q: see the language's literal in authz/server/docs/snippets.go",
					what, pair[0], pair[1])
			}
		}
	})
}

// The table above has each language that the page marks as executed.
func TestEveryExecutedLanguageHasAToolchain(t *testing.T) {
	for _, language := range devSnippets(t, "", "").Languages {
		if _, known := toolchains[language.ID]; known != language.Executed {
			t.Errorf("%s: executed is %t on the page; in toolchains it is %t", language.Name,
				language.Executed, known)
		}
	}
	if missing := slices.DeleteFunc([]string{"curl", "csharp", "go", "java", "node", "objc", "php",
		"python", "ruby"}, func(id string) bool {
		_, ok := toolchains[id]
		return ok
	}); len(
		missing) > 0 {
		t.Errorf("no toolchain for %v", missing)
	}
}
