package telemetry

import (
	"net"
	"net/http"
	"net/http/httptest"
	"io"
	"log/slog"
	"testing"
	"syscall"
	"time"
	"fmt"
	"slices"
	"os"

	"github.com/oasgate/oasgate/authz/server"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestCost(t *testing.T) {
	if os.Getenv("COST") == "" { t.Skip() }
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer sink.Close()
	make1 := func(kind string) func(n int) time.Duration {
		var tel server.Telemetry
		if kind != "off" {
			page := true
			if kind != "metrics" { t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", sink.URL) ; os.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"); os.Setenv("OTEL_TRACES_SAMPLER_ARG", kind) }
			var err error
			tel, err = New(t.Context(), server.TelemetryConfig{Page: page, Logger: slog.New(slog.DiscardHandler)})
			if err != nil { t.Fatal(err) }
			os.Unsetenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
		}
		r := serve(t, tel)
		l, _ := net.Listen("tcp", "127.0.0.1:0")
		go r.Serve(t.Context(), l)
		bearer := r.bearer()
		client := &http.Client{}
		return func(n int) time.Duration {
			b := cpu()
			for range n {
				q, _ := http.NewRequest("GET", "http://"+l.Addr().String()+"/things/1", nil)
				q.Header.Set("Authorization", bearer)
				a, err := client.Do(q)
				if err != nil { t.Fatal(err) }
				_, _ = io.Copy(io.Discard, a.Body)
				a.Body.Close()
			}
			return (cpu() - b) / time.Duration(n)
		}
	}
	kinds := []string{"off", "metrics", "0", "0.05", "1"}
	runs := map[string]func(int) time.Duration{}
	best := map[string][]time.Duration{}
	for _, k := range kinds { runs[k] = make1(k); runs[k](2000) }
	for range 15 {
		for _, k := range kinds { best[k] = append(best[k], runs[k](3000)) }
	}
	for _, k := range kinds {
		slices.Sort(best[k])
		fmt.Println(k, "min", best[k][0], "median", best[k][len(best[k])/2], "ratio of minima", float64(best[k][0])/float64(best["off"][0]))
	}
}
