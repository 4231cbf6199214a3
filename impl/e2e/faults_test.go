//go:build unix

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
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

// TestLogThatNobodyReads: if the reader of the log stops or ends, requests are served, and the
// program can end.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	for name, fault := range map[string]func(reader *os.File){
		"stops": func(*os.File) {},
		"ends":  func(reader *os.File) { reader.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			addr := freeAddr(t)
			command := exec.Command(program, "serve", "--addr", addr)
			command.Dir = t.TempDir()
			command.Env = environment("OASGATE_ISSUER="+issuer.url, "OASGATE_AUDIENCE="+audience)
			command.Stderr = writer
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			writer.Close()
			p := &process{command: command, url: "http://" + addr, ended: make(chan struct{})}
			go func() {
				defer close(p.ended)
				_ = command.Wait()
			}()
			t.Cleanup(func() {
				_ = command.Process.Kill()
				<-p.ended
			})
			for lines := bufio.NewScanner(reader); lines.Scan(); {
				if strings.Contains(lines.Text(), `"msg":"serving"`) {
					break
				}
			}
			fault(reader)
			token := issuer.mint(nil)
			for n := range 600 { // about 200 KiB of lines; a pipe has room for 64
				if got := p.get(t, private.path(t), token); got.status != http.StatusOK {
					t.Fatalf("request %d: %d %s", n, got.status, got.body)
				}
			}
			if got := p.get(t, "/healthz", ""); got.status != http.StatusOK {
				t.Errorf("/healthz is %d", got.status)
			}
			p.signal(t, syscall.SIGTERM)
			if code := p.ends(t); code != 0 {
				t.Errorf("the exit code is %d, want 0", code)
			}
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

// TestFewFiles: with few files, silent connections do not prevent the server from opening its
// database.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	issuer := startIssuer(t)
	addr := freeAddr(t)
	command := exec.Command("sh", "-c", `ulimit -n 64 && exec "$0" serve --addr "$1"`, program,
		addr)
	command.Dir = t.TempDir()
	command.Env = environment("OASGATE_ISSUER="+issuer.url, "OASGATE_AUDIENCE="+audience)
	var log output
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	p := &process{command: command, url: "http://" + addr}
	eventually(t, "it serves", func() bool { return strings.Contains(log.String(), `"serving"`) })
	token := issuer.mint(nil)
	for range 200 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for range 5 {
		wantServed(t, p.get(t, private.path(t), token))
	}
	if strings.Contains(log.String(), "too many open files") {
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
			"OASGATE_DATABASE_URL=" + database,
		}})
		p.url = "http://" + addr
		p.logged(t, "msg", "serving")
		eventually(t, addr+" is ready", func() bool {
			return p.get(t, "/readyz", "").status == http.StatusOK
		})
		return p
	}
	servers := []*process{serve(addrs[0]), serve(addrs[1])}
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
		return response.StatusCode, err
	}
	eventually(t, "the balancer passes requests on", func() bool {
		status, err := send()
		return err == nil && status == http.StatusOK
	})
	var sent atomic.Int64
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
					t.Errorf("request %d: status %d, %v", sent.Load(), status, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for i, addr := range addrs {
		servers[i].signal(t, syscall.SIGTERM)
		if code := servers[i].ends(t); code != 0 {
			t.Errorf("server %d ends with %d, want 0", i, code)
		}
		servers[i] = serve(addr)
		before := sent.Load() // the balancer notices within 300 ms
		time.Sleep(time.Second)
		eventually(t, "requests go on", func() bool {
			return sent.Load() > before+10 || t.Failed()
		})
	}
	close(stop)
	clients.Wait()
	t.Logf("%d requests, none failed: %t", sent.Load(), !t.Failed())
}
