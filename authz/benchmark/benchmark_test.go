package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMain is a peer if the harness has started this program as one.
func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(peerVariable); ok {
		panic(servePeer(name))
	}
	os.Exit(m.Run())
}

// TestMeasure runs the harness briefly: each server starts, refuses bad requests, and has a row.
func TestMeasure(t *testing.T) {
	c := config{
		rounds: 1, connections: 2, tokens: 10, duration: 500 * time.Millisecond,
		only: regexp.MustCompile(``), progress: t.Output(),
	}
	results, err := measure(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if s := r.samples[0]; s.perSecond <= 0 || r.server.checks != (s.fresh > 0) {
			t.Errorf("%s: %+v", r.server.name, s)
		}
	}
	var table strings.Builder
	writeTable(&table, c, results)
	for _, r := range results {
		if !strings.Contains(table.String(), "| "+r.server.name+" | ") {
			t.Errorf("there is no row of %s in\n%s", r.server.name, table.String())
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 9, 2}, 3}} {
		samples := make([]sample, len(test.values))
		got := median(samples, func(i int) float64 { return test.values[i] })
		if got != test.want {
			t.Errorf("the median of %v is %v, want %v", test.values, got, test.want)
		}
	}
}

// BenchmarkValues is for profiles of what writeValues compares.
func BenchmarkValues(b *testing.B) {
	v, err := newValues(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer v.issuer.Close()
	for _, row := range v.comparisons() {
		name, _, _ := strings.Cut(row.name, " ÷ ")
		for side, f := range map[string]func(){"ours": row.ours, "other": row.other} {
			b.Run(name+"/"+side, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
	}
}
