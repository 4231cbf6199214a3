//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// listed is an issuer as the configuration file lists it.
func listed(issuer *issuerProcess) string {
	return fmt.Sprintf("  - url: %s\n    audiences: [%s]\n", issuer.url, audience)
}

func writeFile(t *testing.T, path string, text ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(text, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startListed has `serve` listen on a free port, for the issuers of a file.
func startListed(t *testing.T, file string) *process {
	t.Helper()
	p := start(
		t,
		invocation{
			args: []string{"serve", "--addr", "127.0.0.1:0"},
			env:  []string{"OASGATE_CONFIG=" + file},
		},
	)
	p.logsJSON = true
	p.url = "http://" + p.logged(t, "msg", "serving")["addr"].(string)
	return p
}

// reloads sends SIGHUP and waits for a line of the log.
func (p *process) reloads(t *testing.T, message string) {
	t.Helper()
	count := func() int { return strings.Count(p.stderr.String(), `"msg":"`+message+`"`) }
	before := count()
	p.signal(t, syscall.SIGHUP)
	eventually(t, fmt.Sprintf("the log says %q once more", message),
		func() bool { return count() > before })
}

// TestReload: on SIGHUP the file is read again, while requests go on; one with faults changes
// nothing.
func TestReload(t *testing.T) {
	a, b := startIssuer(t), startIssuer(t)
	file := filepath.Join(t.TempDir(), "issuers.yaml")
	writeFile(t, file, "issuers:\n", listed(a))
	p := startListed(t, file)
	ofA, ofB := a.mint(nil), b.mint(nil)
	p.keepSecret(ofA, ofB)
	check := func(statusA, statusB int, why string) {
		t.Helper()
		if gotA, gotB := p.get(t, private.path(t), ofA).status, p.get(t, private.path(t),
			ofB).status; gotA != statusA ||
			gotB != statusB {
			t.Errorf("tokens of the two issuers get %d and %d, want %d and %d: %s", gotA, gotB,
				statusA, statusB, why)
		}
	}
	check(200, 401, "the file lists the first alone")

	var asked atomic.Int64
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet,
					p.url+private.path(t), nil)
				request.Header.Set("Authorization", "Bearer "+ofA)
				request.Close = n%10 == 0 // also on connections that are new
				response, err := http.DefaultTransport.RoundTrip(request)
				if err != nil {
					t.Errorf("a request was dropped: %v", err)
					return
				}
				if got := readAnswer(t, response); got.status != 200 {
					t.Errorf(
						"a token of the first issuer, which is listed all the time, gets %d: %s",
						got.status, got.body)
				}
				asked.Add(1)
			}
		})
	}
	served := func() { // some more requests
		before := asked.Load()
		eventually(t, "requests go on", func() bool { return asked.Load() > before+10 })
	}

	served()
	writeFile(t, file, "issuers:\n", listed(a), listed(b))
	p.reloads(t, "accepting tokens")
	served()
	check(200, 200, "the file lists both now")

	for faulty, want := range map[string]string{
		"issuers:\n" + listed(a) + "    grantable: []\n": file + ":4: grantable is an unknown key: expected one of ",
		"issuers:\n" + listed(a) + listed(a):             file + `:4: url is \"` + a.url + `\": expected each issuer once; this one is also on line 2`,
		"issuers:\n  - [":                                file + " is not valid YAML: ",
		"":                                               file + " is empty: ",
	} {
		writeFile(t, file, faulty)
		p.reloads(t, "reload failed: the issuers, certificates and credentials are unchanged")
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("the log does not say what is wrong with the file: %s", want)
		}
		check(200, 200, "a file with faults changes nothing")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.reloads(t, "reload failed: the issuers, certificates and credentials are unchanged")
	check(200, 200, "a file that is gone changes nothing")

	writeFile(t, file, "issuers:\n", listed(a))
	p.reloads(t, "accepting tokens")
	served()
	check(200, 401, "the file lists the first alone again, and no verdict of before counts")
	close(stop)
	clients.Wait()
}

// TestFaultyFile: nothing is served.
func TestFaultyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "issuers.yaml")
	writeFile(t, file, "issuers:\n  - preset: auth1\n    url: http://issuer.example/\n")
	p := start(
		t,
		invocation{
			args: []string{"serve", "--addr", "127.0.0.1:0", "--config", file, "--audience", "a"},
		},
	)
	if code := p.ends(t); code != 2 {
		t.Errorf("exits with %d, want 2", code)
	}
	for _, want := range []string{
		`oasgate: OASGATE_AUDIENCE is "a": expected it unset`,
		"oasgate: " + file + `:2: preset is "auth1": expected one of `,
		"oasgate: " + file + `:3: url is "http://issuer.example/": expected https`,
		"oasgate: " + file + ":2: audiences is not set: expected ",
	} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("stderr does not say %s", want)
		}
	}
}
