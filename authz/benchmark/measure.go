package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

const (
	audience = "https://api.example.com"
	scope    = "read:messages"
	path     = "/api/private-scoped"
)

// server is a server to measure. command returns what starts it for an issuer at an address, with
// the environment that it needs.
type server struct {
	name    string
	checks  bool // a token
	command func(issuer, address string) *exec.Cmd
}

// sample is what one round says of a server.
type sample struct {
	perSecond float64       // requests with the same token
	processor time.Duration // of the server, for each of them
	fresh     float64       // requests per second with tokens that come once; 0: not measured
	busy      float64       // share of a core that the load itself has used
}

type result struct {
	server  server
	samples []sample // a round each
}

// measure runs all rounds. The first result is raw Echo's.
func measure(ctx context.Context, c config) ([]result, error) {
	folder, err := os.MkdirTemp("", "benchmark")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	servers, err := allServers(ctx, folder)
	if err != nil {
		return nil, err
	}
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{audience}})
	if err != nil {
		return nil, err
	}
	defer issuer.Close()
	tokens := mint(issuer, c.tokens+1)
	if err := pinLoad(); err != nil {
		return nil, err
	}

	log := filepath.Join(folder, "log")
	var results []result
	for i, s := range servers {
		if i == 0 || c.only.MatchString(s.name) {
			results = append(results, result{server: s})
		}
	}
	for round := range c.rounds {
		for i := range results {
			r := &results[i]
			one, err := measureServer(ctx, c, r.server, issuer, tokens, log)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.server.name, err)
			}
			r.samples = append(r.samples, one)
			fmt.Fprintf(c.progress, "round %d: %s: %.0f requests/s\n",
				round+1, r.server.name, one.perSecond)
		}
	}
	return results, nil
}

// mint returns n tokens that differ. It signs on all cores.
func mint(issuer *devissuer.Server, n int) []string {
	tokens := make([]string, n)
	var group sync.WaitGroup
	for worker := range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for i := worker; i < n; i += runtime.GOMAXPROCS(0) {
				tokens[i] = issuer.Mint(map[string]any{
					"sub": fmt.Sprintf("user-%024d", i), "scope": "openid profile " + scope,
				})
			}
		})
	}
	group.Wait()
	return tokens
}

// measureServer starts a server, holds it to what it is meant to do, and measures it: first with
// one token that comes again and again, then with tokens that come once.
func measureServer(
	ctx context.Context, c config, s server, issuer *devissuer.Server, tokens []string, log string,
) (sample, error) {
	p, err := start(s, issuer.URL(), log)
	if err != nil {
		return sample{}, err
	}
	defer p.stop()
	if err := p.ready(ctx, tokens[0]); err != nil {
		return sample{}, err
	}
	if s.checks {
		if err := p.checks(ctx, issuer); err != nil {
			return sample{}, err
		}
	}
	conns, err := dial(ctx, p.address, c.connections)
	if err != nil {
		return sample{}, err
	}
	defer conns.close()
	again := request(p.address, tokens[0])
	warmUp := repeat(again, c.duration/5)
	if _, err := conns.send(ctx, http.StatusOK, warmUp); err != nil {
		return sample{}, err
	}
	used, err := p.processorTime()
	if err != nil {
		return sample{}, err
	}
	got, err := conns.send(ctx, http.StatusOK, repeat(again, c.duration))
	if err != nil {
		return sample{}, err
	}
	after, err := p.processorTime()
	if err != nil {
		return sample{}, err
	}
	one := sample{
		perSecond: got.perSecond(),
		processor: (after - used) / time.Duration(got.requests),
		busy:      got.processor.Seconds() / got.took.Seconds(),
	}
	if fresh := tokens[1:]; len(fresh) > 0 && s.checks {
		got, err := conns.send(ctx, http.StatusOK, each(requests(p.address, fresh)))
		if err != nil {
			return sample{}, err
		}
		one.fresh = got.perSecond()
	}
	return one, nil
}

// median of the samples, by a value of each.
func median(samples []sample, value func(i int) float64) float64 {
	values := make([]float64, len(samples))
	for i := range samples {
		values[i] = value(i)
	}
	return quantile(values, 0.5)
}

// quantile interpolates between the values.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low, part := int(at), at-float64(int(at))
	return sorted[low] + part*(sorted[min(low+1, len(sorted)-1)]-sorted[low])
}
