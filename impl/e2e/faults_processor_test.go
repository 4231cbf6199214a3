//go:build unix

package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/command"
	"github.com/oasgate/oasgate/authz/server/telemetry"
)

// If the environment has busyRole, the test binary serves an API whose handler only computes.
const busyRole = "BUSY_SERVER_OF_AN_OASGATE_TEST"

const busyDocument = `
openapi: 3.1.0
info: {title: Busy, version: "1"}
paths:
  /hash:
    get:
      operationId: hash
      security: [{token: []}]
      responses: {"200": {description: OK}}
components: {securitySchemes: {token: {type: http, scheme: bearer}}}
`

// runBusy is the program of that role. A request takes a millisecond or more of a processor.
func runBusy() {
	data := make([]byte, 2<<20)
	command.Main(command.App{
		Name: "busy",
		Document: func() (*openapi3.T, error) {
			return openapi3.NewLoader().LoadFromData([]byte(busyDocument))
		},
		Telemetry: telemetry.New,
		Open: command.Routes(func(g *authz.Gate) (http.Handler, error) {
			mux := g.Mux()
			mux.HandleFunc("GET /hash", func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, "%x\n", sha256.Sum256(data))
			})
			return mux, mux.CheckRoutes()
		}),
	})
}

// TestOverloadOfProcessor: the same as TestOverload for a server whose handler computes. The server
// has one processor for itself, and the clients another. The goodput is for each second of
// processor time, because other processes use the processors, too.
func TestOverloadOfProcessor(t *testing.T) {
	faultTest(t)
	const clients, most = 32, 1000 // connections at capacity, and in the overload
	const rounds, lasting = 3, 3 * time.Second
	issuer := startIssuer(t)
	for name, fresh := range map[string]bool{"kept connections": false, "new connections": true} {
		t.Run(name, func(t *testing.T) {
			p := startBusy(t, issuer)
			client := &http.Client{Timeout: patience, Transport: &http.Transport{
				MaxConnsPerHost: most, MaxIdleConnsPerHost: most, DisableKeepAlives: fresh,
			}}
			defer client.CloseIdleConnections()
			caller := author{issuer.mint(nil), client}
			l := &load{t: t, success: http.StatusOK, send: func() (answer, error) {
				return caller.ask(p, http.MethodGet, "/hash", "")
			}}
			probed := p.probe(t)
			var goodput, p99 []float64
			var memory, refused int
			for range rounds {
				before := p.processorTime(t)
				usual := l.closed(clients, lasting)
				between := p.processorTime(t)
				if memory == 0 {
					memory = p.peak(t)
				}
				much := l.open(3*usual.goodput, lasting)
				after := p.processorTime(t)
				t.Logf("at capacity: %s; offered 3 times that: %s", usual, much)
				goodput = append(goodput, float64(much.served)/(after-between).Seconds()/
					(float64(usual.served)/(between-before).Seconds()))
				p99 = append(p99, much.p99.Seconds()/usual.p99.Seconds())
				refused += much.shed
			}
			probed()
			wantBounded(t, goodput, p99)
			if refused == 0 {
				t.Error("nothing was refused")
			}
			if got := p.peak(t); got > 2*memory {
				t.Errorf("the memory is %d KiB at its peak, and was %d at capacity: want at most "+
					"twice that", got, memory)
			}
			l.wantCounted(t, p, "hash")
			p.logged(t, "msg", "requests are refused: too many wait for a processor")
			t.Logf("median goodput %.2f, 99th percentile %.1f, memory %d and %d KiB",
				median(goodput), median(p99), memory, p.peak(t))
		})
	}
}

// startBusy starts the server on a processor of its own, and leaves another to the clients, until
// the end of the test.
func startBusy(t *testing.T, issuer *issuerProcess) *process {
	t.Helper()
	taskset, err := exec.LookPath("taskset")
	if err != nil || runtime.NumCPU() < 2 {
		t.Skip("needs taskset and two processors")
	}
	own := strconv.Itoa(os.Getpid())
	said, err := exec.Command(taskset, "-p", own).CombinedOutput()
	mask := regexp.MustCompile(`[0-9a-f]+\s*$`).FindString(string(said))
	if err != nil || exec.Command(taskset, "-a", "-c", "-p", "1", own).Run() != nil {
		t.Skipf("cannot choose a processor: %s", said)
	}
	t.Cleanup(func() {
		if said, err := exec.Command(taskset, "-a", "-p", strings.TrimSpace(mask),
			own).CombinedOutput(); err != nil {
			t.Errorf("taskset: %v\n%s", err, said)
		}
	})
	p := run(t, exec.Command(taskset, "-c", "0", os.Args[0], "serve", "--addr", "127.0.0.1:0"),
		invocation{env: []string{
			busyRole + "=yes", "BUSY_ISSUER=" + issuer.url, "BUSY_AUDIENCE=" + audience,
			"BUSY_ADMIN_ADDR=127.0.0.1:0",
		}})
	p.logsJSON = true
	p.url = "http://" + p.logged(t, "msg", "serving")["addr"].(string)
	eventually(t, "it is ready", func() bool {
		return p.get(t, "/readyz", "").status == http.StatusOK
	})
	return p
}

// processorTime returns how long the threads of a process have run.
func (p *process) processorTime(t *testing.T) (sum time.Duration) {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.command.Process.Pid))
	for _, file := range files {
		text, _ := os.ReadFile(file) // a thread can have ended
		used, _, _ := strings.Cut(string(text), " ")
		n, _ := strconv.ParseInt(used, 10, 64)
		sum += time.Duration(n)
	}
	if sum == 0 {
		t.Skip("the system does not report processor times")
	}
	return sum
}
