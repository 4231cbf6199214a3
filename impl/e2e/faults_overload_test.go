//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestOverload: under 3 times the load that it can serve, a server whose database is slow serves at
// least 80 % of its capacity, and these requests take at most 5 times as long. Its memory is
// bounded, no probe is refused, and each acknowledged message is stored once. All are ratios within
// a round, and the median of the rounds counts, because other processes use the machine too.
func TestOverload(t *testing.T) {
	faultTest(t)
	const active = 2 * 16 // keeps the 16 connections of the store busy
	const rounds, lasting = 3, 3 * time.Second
	issuer, db := startIssuer(t), startPostgres(t)
	p := startServe(t, issuer, "OASGATE_DATABASE_URL="+postgresURL(db),
		"OASGATE_ADMIN_ADDR=127.0.0.1:0")
	db.query(t, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END$$;
		CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()`)
	alice := author{
		issuer.mint(map[string]any{"sub": "alice", "scope": "read:messages write:messages"}),
		&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}, Timeout: patience},
	}
	l := &load{t: t, success: http.StatusCreated, send: func() (answer, error) {
		return alice.ask(p, http.MethodPost, "/api/messages", `{"text":"x"}`)
	}}

	probed := p.probe(t)
	var goodput, p99 []float64
	var memory int
	for range rounds {
		usual := l.closed(active, lasting)
		if memory == 0 {
			memory = p.peak(t)
		}
		much := l.open(3*usual.goodput, lasting)
		t.Logf("at capacity: %s; offered 3 times that: %s", usual, much)
		if much.shed == 0 {
			t.Error("nothing was refused")
		}
		goodput = append(goodput, much.goodput/usual.goodput)
		p99 = append(p99, much.p99.Seconds()/usual.p99.Seconds())
	}
	probed()
	wantBounded(t, goodput, p99)
	// memory is that after the first load. Garbage, and caches and pools that grow, can double it.
	if got := p.peak(t); got > 2*memory {
		t.Errorf(
			"the memory is %d KiB at its peak, and was %d at capacity: want at most twice that",
			got, memory)
	}
	if got := db.query(t, "SELECT count(*) FROM messages"); got != strconv.Itoa(l.served) {
		t.Errorf("%s messages are stored, want the %d that were acknowledged", got, l.served)
	}
	l.wantCounted(t, p, "createMessage")
	t.Logf("median goodput %.2f, 99th percentile %.1f, memory %d and %d KiB", median(goodput),
		median(p99), memory, p.peak(t))
}

// probe requests the health and the metrics of a server again and again, until end is called.
func (p *process) probe(t *testing.T) (end func()) {
	t.Helper()
	stop := make(chan struct{})
	var probes sync.WaitGroup
	for _, url := range []string{
		p.url + "/healthz", p.url + "/readyz", p.admin(t).url + "/metrics",
	} {
		probes.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
				}
				response, err := http.Get(url)
				if err != nil || response.StatusCode != http.StatusOK {
					t.Errorf("%s in an overload: %v, %v", url, response, err)
					return
				}
				response.Body.Close()
			}
		})
	}
	return func() {
		close(stop)
		probes.Wait()
	}
}

// wantBounded checks the ratios of the rounds.
func wantBounded(t *testing.T, goodput, p99 []float64) {
	t.Helper()
	if got := median(goodput); got < 0.8 {
		t.Errorf("the goodput is %.2f times that at capacity, want at least 0.8", got)
	}
	if got := median(p99); got > 5 {
		t.Errorf("the 99th percentile is %.1f times that at capacity, want at most 5", got)
	}
}

// load sends requests and counts the answers.
type load struct {
	t       *testing.T
	success int // status
	send    func() (answer, error)

	mu           sync.Mutex
	served, shed int
	times        []time.Duration // of those that were served in the current phase
}

// phase is the result of a phase.
type phase struct {
	goodput      float64 // served requests per second
	p99          time.Duration
	served, shed int
}

func (p phase) String() string {
	return fmt.Sprintf("%.0f/s, p99 %s, %d refused", p.goodput, p.p99.Round(time.Millisecond),
		p.shed)
}

// one sends a request, which must be served or shed.
func (l *load) one() {
	sent := time.Now()
	got, err := l.send()
	took := time.Since(sent)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && got.status == l.success:
		l.served++
		l.times = append(l.times, took)
	case err == nil && got.status == http.StatusServiceUnavailable &&
		got.header.Get("Retry-After") != "" && strings.Contains(got.body, "#overloaded"):
		l.shed++
	default:
		l.t.Errorf("%d %s, %v: want %d, or 503 of the kind overloaded", got.status, got.body, err,
			l.success)
	}
}

// closed measures clients that each send one request after another.
func (l *load) closed(clients int, lasting time.Duration) phase {
	return l.measure(func(group *sync.WaitGroup) {
		for range clients {
			group.Go(func() {
				for begun := time.Now(); time.Since(begun) < lasting && !l.t.Failed(); {
					l.one()
				}
			})
		}
	})
}

// open measures a rate of requests in each second, without waiting for their responses.
func (l *load) open(rate float64, lasting time.Duration) phase {
	return l.measure(func(group *sync.WaitGroup) {
		interval := time.Duration(float64(time.Second) / rate)
		begun := time.Now()
		for n := 0; time.Since(begun) < lasting && !l.t.Failed(); n++ {
			time.Sleep(time.Until(begun.Add(time.Duration(n) * interval)))
			group.Go(l.one)
		}
	})
}

func (l *load) measure(run func(group *sync.WaitGroup)) phase {
	shed := l.shed
	l.times = nil
	begun := time.Now()
	var group sync.WaitGroup
	run(&group)
	group.Wait()
	if len(l.times) == 0 {
		l.t.Fatal("nobody was served")
	}
	slices.Sort(l.times)
	return phase{
		float64(len(l.times)) / time.Since(begun).Seconds(), l.times[len(l.times)*99/100],
		len(l.times), l.shed - shed,
	}
}

// wantCounted compares the metrics with what the clients counted.
func (l *load) wantCounted(t *testing.T, p *process, operation string) {
	t.Helper()
	metrics := p.metrics(t)
	if n := int(metrics.sum("authz_requests_total", `cause="overloaded"`)); n != l.shed {
		t.Errorf("the metrics have %d requests that were shed, clients %d", n, l.shed)
	}
	if n := int(metrics.sum("authz_requests_total", `operation="`+operation+`"`,
		`outcome="succeeded"`)); n != l.served {
		t.Errorf("the metrics have %d requests that were served, clients %d", n, l.served)
	}
	if n := metrics.sum("http_server_active_requests"); n != 0 {
		t.Errorf("%v requests are active at the end", n)
	}
	if n := metrics.sum("authz_waiting_requests"); n != 0 {
		t.Errorf("%v requests wait at the end", n)
	}
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// peak returns the most memory that a process has used so far, in KiB.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		t.Skip("the memory of a process cannot be told: ", err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	size, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return size
}
