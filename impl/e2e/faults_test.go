//go:build unix

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// faultTest skips a slow test.
func faultTest(t *testing.T) {
	t.Helper()
	if os.Getenv("OASGATE_TEST_FAULTS") == "" {
		t.Skip("OASGATE_TEST_FAULTS is not set: see .ci/full")
	}
}

// metrics are the metrics of a server, by name and labels.
type metrics map[string]float64

// admin returns the admin listener of a server that has one.
func (p *process) admin(t *testing.T) *process {
	t.Helper()
	line := p.logged(t, "msg", "serving metrics and health")
	return &process{url: "http://" + line["addr"].(string)}
}

// metrics returns the metrics of a server with an admin listener.
func (p *process) metrics(t *testing.T) metrics {
	t.Helper()
	found := metrics{}
	for line := range strings.Lines(p.admin(t).get(t, "/metrics", "").body) {
		at := strings.LastIndex(line, " ")
		if value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err == nil {
			found[line[:at]] = value
		}
	}
	return found
}

// sum returns the sum of a metric over all labels that include the given ones, such as a="b".
func (m metrics) sum(name string, labels ...string) (sum float64) {
	for series, value := range m {
		if !strings.HasPrefix(series, name+"{") && series != name {
			continue
		}
		missing := func(label string) bool { return !strings.Contains(series, label) }
		if !slices.ContainsFunc(labels, missing) {
			sum += value
		}
	}
	return sum
}

// freeAddr returns a loopback address without a listener.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// lines returns the lines of the JSON log in which key is value.
func (p *process) lines(key, value string) (found []map[string]any) {
	for text := range strings.Lines(p.stderr.String()) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil && line[key] == value {
			found = append(found, line)
		}
	}
	return found
}

// wantRequests checks the number of requests of an operation that succeeded, that none has failed,
// and that none is active.
func (m metrics) wantRequests(t *testing.T, operation string, succeeded int) {
	t.Helper()
	labels := []string{`operation="` + operation + `"`, `outcome="succeeded"`, `cause="none"`}
	if n := int(m.sum("authz_requests_total", labels...)); n != succeeded {
		t.Errorf("the metrics have %d requests of %s that succeeded, clients %d", n, operation,
			succeeded)
	}
	if n := int(m.sum("authz_requests_total", labels[:1]...)); n != succeeded {
		t.Errorf("the metrics have %d requests of %s, want the %d that succeeded", n, operation,
			succeeded)
	}
	if n := m.sum("http_server_active_requests"); n != 0 {
		t.Errorf("the metrics have %v active requests", n)
	}
}

// TestLogThatNobodyReads: if the reader of the log stops or ends, requests are served, the lost
// lines are counted, and the program can end. A reader that continues gets all other lines, and the
// number of the lost ones.
func TestLogThatNobodyReads(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a pipe and waits")
	}
	t.Parallel()
	issuer := startIssuer(t)
	for _, continues := range []bool{true, false} {
		t.Run(map[bool]string{true: "stops", false: "ends"}[continues], func(t *testing.T) {
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			command := exec.Command(program, "serve", "--addr", "127.0.0.1:0")
			command.Dir = t.TempDir()
			command.Env = environment("OASGATE_ISSUER="+issuer.url, "OASGATE_AUDIENCE="+audience,
				"OASGATE_ADMIN_ADDR=127.0.0.1:0")
			command.Stderr = writer
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			writer.Close()
			p := &process{command: command, ended: make(chan struct{})}
			go func() {
				defer close(p.ended)
				_ = command.Wait()
			}()
			t.Cleanup(func() {
				_ = command.Process.Kill()
				<-p.ended
				p.nothingLeaked(t)
			})
			log := bufio.NewReader(reader)
			for len(p.lines("msg", "serving metrics and health")) == 0 {
				line, err := log.ReadBytes('\n')
				if err != nil {
					t.Fatalf("%v: %s", err, &p.stderr)
				}
				_, _ = p.stderr.Write(line)
			}
			p.url = "http://" + p.logged(t, "msg", "serving")["addr"].(string)
			lost := func() int { return int(p.metrics(t).sum("authz_log_lost_total")) }
			if n := lost(); n != 0 {
				t.Fatalf("the metrics have %d lost lines before the fault", n)
			}
			if !continues {
				reader.Close()
			}

			sent := 0
			token := issuer.mint(map[string]any{"sub": strings.Repeat("x", 1000)}) // for long lines
			send := func() {
				if got := p.get(t, private.path(t), token); got.status != http.StatusOK {
					t.Fatalf("request %d: %d %s", sent, got.status, got.body)
				}
				sent++
			}
			eventually(t, "lines are lost", func() bool { // after 1 MiB
				for range 100 {
					send()
				}
				return lost() > 0
			})
			send()
			if got := p.get(t, "/healthz", ""); got.status != http.StatusOK {
				t.Errorf("/healthz is %d", got.status)
			}
			p.metrics(t).wantRequests(t, private.ID, sent)
			if !continues {
				eventually(t, "all lines are lost", func() bool { return lost() == sent })
			}
			gap, read := lost(), make(chan struct{})
			go func() {
				defer close(read)
				_, _ = io.Copy(&p.stderr, log) // reads nothing if the file is closed
			}()
			if continues {
				told := p.logged(t, "msg",
					"lines of the log were lost: it was not read, or could not be written")
				if n := int(told["lines"].(float64)); n != gap {
					t.Errorf("the log says that %d lines were lost, the metrics %d", n, gap)
				}
				send()
			}
			p.signal(t, syscall.SIGTERM)
			if code := p.ends(t); code != 0 {
				t.Errorf("the exit code is %d, want 0", code)
			}
			<-read
			if n := len(p.lines("operation", private.ID)); n != sent-gap {
				t.Errorf("the log has %d of %d requests, want all but %d", n, sent, gap)
			}
			t.Logf("%d requests, %d lines lost", sent, gap)
		})
	}
}

// TestSIGHUPWithoutFile: SIGHUP does not end a program that has no file to read again.
func TestSIGHUPWithoutFile(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	p := startServe(t, issuer)
	p.signal(t, syscall.SIGHUP)
	p.logged(t, "msg",
		"SIGHUP is ignored: there is no file of issuers, credentials or certificates to read again")
	wantServed(t, p.get(t, private.path(t), issuer.mint(nil)))
}

// TestFewFiles: with few files, silent connections do not prevent the server from using its
// database.
func TestFewFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the time limits of silent connections")
	}
	t.Parallel()
	issuer := startIssuer(t)
	const files, connections = 64, 32
	p := run(t, exec.Command("sh", "-c", fmt.Sprintf(
		`ulimit -n %d && exec "$0" serve --addr 127.0.0.1:0`, files), program),
		invocation{env: []string{
			"OASGATE_ISSUER=" + issuer.url, "OASGATE_AUDIENCE=" + audience,
			"OASGATE_ADMIN_ADDR=127.0.0.1:0",
		}})
	p.logsJSON = true
	p.url = "http://" + p.logged(t, "msg", "serving")["addr"].(string)
	var silent []net.Conn
	for range 200 {
		silent = append(silent, p.dial(t))
	}
	alice := newAuthor(issuer.mint(
		map[string]any{"sub": "alice", "scope": "read:messages write:messages"}))
	created := map[string]string{}
	for n := range 5 {
		text := strconv.Itoa(n)
		id, err := alice.post(p, text, text)
		if err != nil {
			t.Fatal(err)
		}
		created[id] = text
	}
	if got := alice.list(t, p); !maps.Equal(got, created) {
		t.Errorf("%v are stored, want %v", got, created)
	}

	metrics := p.metrics(t)
	metrics.wantRequests(t, "createMessage", len(created))
	if n := metrics.sum("authz_connections_max"); n != connections {
		t.Errorf("%v connections can be open, want %d", n, connections)
	}
	if n := metrics.sum("authz_connections"); n > connections {
		t.Errorf("%v connections are open, want at most %d", n, connections)
	}
	if n := metrics.sum("process_open_fds"); n >= files {
		t.Errorf("%v files are open", n)
	}
	for _, conn := range silent {
		conn.Close()
	}
	alice.http.CloseIdleConnections()
	eventually(t, "all connections are closed", func() bool {
		return p.metrics(t).sum("authz_connections") == 0
	})
	filled := p.metrics(t).sum("authz_connections_filled_total")
	told := len(p.lines("msg", "no further connections are accepted until others are closed"))
	if filled < 1 || int(filled) != told {
		t.Errorf("the limit was reached %v times, the log says %d", filled, told)
	}
	if strings.Contains(p.stderr.String(), "too many open files") {
		t.Error("the files were exhausted")
	}
}

// TestRollingRestart: while two servers behind a load balancer are restarted one after another, no
// request fails.
func TestRollingRestart(t *testing.T) {
	database := os.Getenv("OASGATE_TEST_DATABASE_URL")
	balancer, err := exec.LookPath("haproxy")
	switch {
	case testing.Short():
		t.Skip("slow")
	case database == "" || err != nil:
		t.Skip("needs OASGATE_TEST_DATABASE_URL and haproxy")
	}
	issuer := startIssuer(t)
	addrs := []string{freeAddr(t), freeAddr(t)}
	serve := func(addr string) *process {
		p := start(t, invocation{args: []string{"serve", "--addr", addr}, env: []string{
			"OASGATE_ISSUER=" + issuer.url, "OASGATE_AUDIENCE=" + audience,
			"OASGATE_DATABASE_URL=" + database, "OASGATE_ADMIN_ADDR=127.0.0.1:0",
		}})
		p.logsJSON = true
		p.url = "http://" + addr
		p.logged(t, "msg", "serving")
		eventually(t, addr+" is ready", func() bool {
			return p.get(t, "/readyz", "").status == http.StatusOK
		})
		return p
	}
	servers := []*process{serve(addrs[0]), serve(addrs[1])}
	all := slices.Clone(servers)
	front := freeAddr(t)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	writeFile(t, file, fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option redispatch
  retries 3
frontend api
  bind %s
  default_backend servers
backend servers
  option httpchk GET /readyz
  default-server check inter 300ms fall 2 rise 1
  server a %s
  server b %s
`, front, addrs[0], addrs[1]))
	proxy := exec.Command(balancer, "-db", "-f", file)
	var said output
	proxy.Stdout, proxy.Stderr = &said, &said
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proxy.Process.Kill()
		_ = proxy.Wait()
	})
	token := issuer.mint(nil)
	var served atomic.Int64
	send := func() (int, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet,
			"http://"+front+private.path(t), nil)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		if err == nil && response.StatusCode == http.StatusOK {
			served.Add(1)
		}
		return response.StatusCode, err
	}
	eventually(t, "the balancer passes requests on", func() bool {
		status, err := send()
		return err == nil && status == http.StatusOK
	})
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				if status, err := send(); err != nil || status != http.StatusOK {
					t.Errorf("after %d requests: status %d, %v", served.Load(), status, err)
					return
				}
			}
		})
	}
	for i, addr := range addrs {
		servers[i].signal(t, syscall.SIGTERM)
		if code := servers[i].ends(t); code != 0 {
			t.Errorf("server %d ends with %d, want 0", i, code)
		}
		servers[i].logged(t, "msg", "stopping")
		servers[i] = serve(addr)
		all = append(all, servers[i])
		before := served.Load() // the balancer notices within 300 ms
		time.Sleep(time.Second)
		eventually(t, "requests go on", func() bool {
			return served.Load() > before+10 || t.Failed()
		})
	}
	close(stop)
	clients.Wait()

	// The balancer's own checks are not requests of an operation.
	eventually(t, "the logs have each request once", func() bool {
		logged := 0
		for _, p := range all {
			logged += len(p.lines("operation", private.ID))
		}
		return logged == int(served.Load())
	})
	for _, p := range all {
		for _, line := range p.lines("operation", private.ID) {
			if line["outcome"] != "succeeded" {
				t.Errorf("a server has logged %v", line)
			}
		}
	}
	for _, p := range servers { // which run
		metrics := p.metrics(t)
		metrics.wantRequests(t, private.ID, len(p.lines("operation", private.ID)))
		if n := metrics.sum("authz_log_lost_total"); n != 0 {
			t.Errorf("the metrics have %v lost lines", n)
		}
	}
	t.Logf("%d requests, none failed: %t", served.Load(), !t.Failed())
}
