package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
)

const (
	refusedTokens   = 400    // of each kind in a pair
	cacheTokens     = 40_000 // more than the cache takes at 1 KiB each
	starts          = 5      // of a server, to measure its memory
	settled         = 3 * time.Second
	manyConnections = 5000
	megabyte        = 1 << 20
)

// row is a row of the budget.
type row struct {
	what   string
	values []float64 // of the pairs, or of the single measurements
	limit  float64
	least  bool // limit is the least, otherwise the most
	unit   string
}

// budget measures the rows of the budget.
type budget struct {
	config
	folder, program  string
	issuer           *devissuer.Server
	genuine, foreign []string  // tokens
	echo             []float64 // requests per second of raw Echo
	rows             []row
}

// writeBudget measures all rows, and writes them as a table.
func writeBudget(ctx context.Context, w io.Writer, c config) error {
	folder, err := os.MkdirTemp("", "benchmark")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	b := &budget{config: c, folder: folder}
	b.report("building")
	if b.program, err = build(ctx, folder); err != nil {
		return err
	}
	var built []row
	if c.builds {
		if built, err = b.builds(ctx); err != nil {
			return err
		}
	}
	if b.issuer, err = issue("RS256"); err != nil {
		return err
	}
	defer b.issuer.Close()
	other, err := issue("RS256")
	if err != nil {
		return err
	}
	defer other.Close()
	b.report("signing tokens")
	b.genuine = mint(b.issuer, (c.pairs+1)*refusedTokens+1)
	b.foreign = mint(other, (c.pairs+1)*refusedTokens)
	if err := pinLoad(); err != nil {
		return err
	}
	for _, measure := range []func(context.Context) error{
		b.hot, b.refusals, b.idle, b.fullCache, b.idleConnections,
	} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	b.rows = append(b.rows, built...)
	b.write(w)
	return nil
}

func issue(algorithm string) (*devissuer.Server, error) {
	return devissuer.Start(devissuer.Config{Audiences: []string{audience}, Algorithm: algorithm})
}

func (b *budget) report(what string) {
	fmt.Fprintf(b.progress, "%s %s\n", time.Now().Format(time.TimeOnly), what)
}

// launch starts a server and waits until it is ready.
func (b *budget) launch(ctx context.Context, s server, issuer *devissuer.Server) (*process, error) {
	log, err := os.CreateTemp(b.folder, "log")
	if err != nil {
		return nil, err
	}
	log.Close()
	p, err := start(s, issuer.URL(), log.Name())
	if err != nil {
		return nil, err
	}
	token := issuer.Mint(map[string]any{"scope": scope})
	if err := p.ready(ctx, token); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return p, nil
}

// telemetryOn returns the settings that turn all telemetry on. It is sent to a collector that
// discards it, which the returned function stops.
func telemetryOn() (settings []string, admin string, stop func(), err error) {
	if admin, err = freeAddress(); err != nil {
		return nil, "", nil, err
	}
	collector := httptest.NewServer(http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	return []string{"OASGATE_ADMIN_ADDR=" + admin,
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL}, admin, collector.Close, nil
}

// hot compares a request that comes again and again: with raw Echo, and with itself with telemetry.
func (b *budget) hot(ctx context.Context) error {
	b.report("hot requests")
	telemetry, _, stop, err := telemetryOn()
	if err != nil {
		return err
	}
	defer stop()
	echo, err := peerServer(rawEchoPeer)
	if err != nil {
		return err
	}
	servers := []server{
		echo,
		oasgate("log off", b.program, logOff),
		oasgate("log on", b.program),
		oasgate("telemetry", b.program, append(telemetry, logOff)...),
	}
	processes, clients := make([]*process, len(servers)), make([]client, len(servers))
	for i, s := range servers {
		if processes[i], err = b.launch(ctx, s, b.issuer); err != nil {
			return err
		}
		defer processes[i].stop()
		if clients[i], err = dial(ctx, processes[i].address, b.config.connections); err != nil {
			return err
		}
		defer clients[i].close()
	}
	type speed struct{ perSecond, processor float64 }
	slice := func(i int) (speed, error) {
		before, beforeErr := processes[i].processorTime()
		again := repeat(request(processes[i].address, b.genuine[0]), b.slice)
		got, err := clients[i].send(ctx, http.StatusOK, again)
		after, afterErr := processes[i].processorTime()
		if err := errors.Join(err, beforeErr, afterErr); err != nil {
			return speed{}, fmt.Errorf("%s: %w", servers[i].name, err)
		}
		if i == 0 {
			b.echo = append(b.echo, got.perSecond())
		}
		return speed{got.perSecond(), float64(after-before) / float64(got.requests)}, nil
	}
	for i := range servers { // warms up
		if _, err := slice(i); err != nil {
			return err
		}
	}
	b.echo = nil
	pairs := [...][2]int{{1, 0}, {2, 0}, {3, 1}}
	ratios := make([][]float64, len(pairs))
	var memory []float64
	for round := range b.pairs {
		for i, pair := range pairs {
			var speeds [2]speed
			for n := range pair {
				side := (n + round) % 2 // either is first in turn
				if speeds[side], err = slice(pair[side]); err != nil {
					return err
				}
			}
			ratio := speeds[0].perSecond / speeds[1].perSecond
			if i == len(pairs)-1 {
				ratio = speeds[0].processor / speeds[1].processor
			}
			ratios[i] = append(ratios[i], ratio)
		}
		used, err := processes[2].resident()
		if err != nil {
			return err
		}
		memory = append(memory, used)
	}
	const what = "hot protected GET, requests/s ÷ "
	b.rows = append(b.rows,
		row{what + "raw Echo, request log off", ratios[0], 0.85, true, ""},
		row{what + "raw Echo, as it comes (a log line per request)", ratios[1], 0.80, true, ""},
		row{"hot protected GET, processor time, with traces and metrics ÷ without", ratios[2],
			1.05, false, ""},
		row{"resident memory, hot, as it comes", memory, 45, false, " MB"},
	)
	return nil
}

// refusals measures the time of refusals, on serve and on dev.
func (b *budget) refusals(ctx context.Context) error {
	b.report("refusals")
	p, err := b.launch(ctx, oasgate("serve", b.program), b.issuer)
	if err != nil {
		return err
	}
	err = b.refuse(ctx, p, b.genuine[1:], "")
	p.stop()
	if err != nil {
		return err
	}
	b.report("refusals on dev")
	if p, err = start(dev(b.program), "", filepath.Join(b.folder, "dev.log")); err != nil {
		return err
	}
	defer p.stop()
	genuine, err := p.devTokens(ctx, len(b.genuine)-1)
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	return b.refuse(ctx, p, genuine, ", on `dev`")
}

// refuse compares the time for a token that is refused with that for a genuine one. Each token is
// sent once.
func (b *budget) refuse(ctx context.Context, p *process, genuine []string, where string) error {
	// Half, because a server on one core refuses further requests if 64 are active or wait.
	conns, err := dial(ctx, p.address, (b.config.connections+1)/2)
	if err != nil {
		return err
	}
	defer conns.close()
	forged := make([]string, len(genuine))
	for i, token := range genuine {
		forged[i] = forge(token)
	}
	kinds := []struct {
		name   string
		tokens []string
		status int
		times  []float64
	}{
		{"genuine", genuine, http.StatusOK, nil},
		{"forged", forged, http.StatusUnauthorized, nil},
		{"foreign", b.foreign, http.StatusUnauthorized, nil},
	}
	for round := range b.pairs + 1 {
		for i := range kinds {
			kind := &kinds[(i+round)%len(kinds)]
			tokens := kind.tokens[round*refusedTokens:][:refusedTokens]
			got, err := conns.send(ctx, kind.status, each(requests(p.address, tokens)))
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			if round > 0 { // the first warms up
				kind.times = append(kind.times, 1/got.perSecond())
			}
		}
	}
	for _, kind := range kinds[1:] {
		ratios := make([]float64, b.pairs)
		for i := range ratios {
			ratios[i] = kind.times[i] / kinds[0].times[i]
		}
		b.rows = append(b.rows, row{"refusing a " + kind.name +
			" token ÷ serving a genuine new one, time" + where, ratios, 1, false, ""})
	}
	return nil
}

// idle measures the memory of servers that have just started, without the package telemetry and
// with all that it exports.
func (b *budget) idle(ctx context.Context) error {
	b.report("idle memory")
	plain := filepath.Join(b.folder, "notelemetry")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s", "-o", plain,
		"./size/notelemetry")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := run(command); err != nil {
		return err
	}
	telemetry, admin, stop, err := telemetryOn()
	if err != nil {
		return err
	}
	defer stop()
	memory := func(page, program string, settings ...string) (float64, error) {
		p, err := b.launch(ctx, oasgate("serve", program, settings...), b.issuer)
		if err != nil {
			return 0, err
		}
		defer p.kill()
		if page != "" {
			response, err := http.Get(page)
			if err != nil {
				return 0, err
			}
			response.Body.Close()
		}
		time.Sleep(settled)
		return p.resident()
	}
	var off, more []float64
	for range starts {
		without, err := memory("", plain)
		if err != nil {
			return err
		}
		with, err := memory("http://"+admin+"/metrics", b.program, telemetry...)
		if err != nil {
			return err
		}
		off, more = append(off, without), append(more, with-without)
	}
	b.rows = append(b.rows,
		row{"resident memory, idle, without telemetry (size/notelemetry), docs off", off, 32, false,
			" MB"},
		row{"resident memory, idle, that telemetry adds, linked and on", more, 8, false, " MB"})
	return nil
}

// fullCache measures the memory with as many tokens as the cache takes.
func (b *budget) fullCache(ctx context.Context) error {
	b.report("full cache")
	issuer, err := issue("EdDSA") // because it signs fast
	if err != nil {
		return err
	}
	defer issuer.Close()
	p, err := b.launch(ctx, oasgate("serve", b.program), issuer)
	if err != nil {
		return err
	}
	defer p.kill()
	conns, err := dial(ctx, p.address, b.config.connections)
	if err != nil {
		return err
	}
	defer conns.close()
	all := requests(p.address, mint(issuer, cacheTokens))
	var memory []float64
	for part := range slices.Chunk(all, cacheTokens/20) {
		if _, err := conns.send(ctx, http.StatusOK, each(part)); err != nil {
			return err
		}
		used, err := p.resident()
		if err != nil {
			return err
		}
		memory = append(memory, used)
	}
	b.rows = append(b.rows, row{"resident memory, token cache full at 32 MiB",
		memory[len(memory)-starts:], 90, false, " MB"})
	return nil
}

// idleConnections compares what connections without a request add to the memory.
func (b *budget) idleConnections(ctx context.Context) error {
	b.report("idle connections")
	plain, err := peerServer(rawHTTPPeer)
	if err != nil {
		return err
	}
	var ratios []float64
	for round := range b.pairs {
		servers := [2]server{oasgate("serve", b.program), plain}
		var grown [2]float64
		for n := range servers {
			i := (n + round) % 2
			if grown[i], err = b.growth(ctx, servers[i]); err != nil {
				return fmt.Errorf("%s: %w", servers[i].name, err)
			}
		}
		ratios = append(ratios, grown[0]/grown[1])
	}
	b.rows = append(b.rows, row{fmt.Sprintf(
		"%d idle connections ÷ the same on plain net/http, memory that they add",
		manyConnections), ratios, 1.3, false, ""})
	return nil
}

// growth returns what idle connections add to the memory of a server. Each has had one request.
func (b *budget) growth(ctx context.Context, s server) (float64, error) {
	p, err := b.launch(ctx, s, b.issuer)
	if err != nil {
		return 0, err
	}
	defer p.kill()
	before, err := p.resident()
	if err != nil {
		return 0, err
	}
	once := [][]byte{request(p.address, b.genuine[0])}
	for range manyConnections {
		conn, err := dial(ctx, p.address, 1)
		if err != nil {
			return 0, err
		}
		defer conn.close()
		if _, err := conn.send(ctx, http.StatusOK, each(once)); err != nil {
			return 0, err
		}
	}
	time.Sleep(settled / 3)
	after, err := p.resident()
	return after - before, err
}

// builds measures the first build of the program, and what the library adds to a binary.
func (b *budget) builds(ctx context.Context) ([]row, error) {
	b.report("first build")
	source, err := repository(ctx)
	if err != nil {
		return nil, err
	}
	graph := filepath.Join(b.folder, "actiongraph")
	command := exec.CommandContext(ctx, "go", "build", "-debug-actiongraph="+graph,
		"-o", filepath.Join(b.folder, "first"), ".")
	command.Dir = source
	command.Env = append(os.Environ(), "GOCACHE="+filepath.Join(b.folder, "cache"))
	if err := run(command); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(graph)
	if err != nil {
		return nil, err
	}
	var actions []struct{ CmdUser, CmdSys time.Duration }
	if err := json.Unmarshal(text, &actions); err != nil {
		return nil, err
	}
	var used time.Duration
	for _, a := range actions {
		used += a.CmdUser + a.CmdSys
	}

	b.report("binaries")
	size := map[string]float64{}
	for _, name := range []string{"with", "without"} {
		file := filepath.Join(b.folder, name)
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w",
			"-o", file, "./size/"+name)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := run(command); err != nil {
			return nil, err
		}
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		size[name] = float64(info.Size()) / megabyte
	}
	return []row{
		{"first build, processor time", []float64{used.Seconds()}, 170, false, " s"},
		{"stripped binary of a guarded server (size/with) − the usual recipe (size/without)",
			[]float64{size["with"] - size["without"]}, 3, false, " MB"},
	}, nil
}

// write writes the rows in the order of the budget.
func (b *budget) write(w io.Writer) {
	fmt.Fprintf(w, "%s, %s, %s, %d connections, %d pairs of %s each\n\n",
		time.Now().Format(time.DateOnly), runtime.Version(), processor(), b.config.connections,
		b.pairs, b.slice)
	fmt.Fprintln(w, "| what | median | quartiles | budget | |")
	fmt.Fprintln(w, "|---|---|---|---|---|")
	for _, r := range b.rows {
		median := quantile(r.values, 0.5)
		sign, met := "≤", "met"
		if r.least {
			sign = "≥"
		}
		if r.least && median < r.limit || !r.least && median > r.limit {
			met = "missed"
		}
		quartiles := "-"
		if len(r.values) > 1 {
			quartiles = figure(quantile(r.values, 0.25), r.unit) + " to " +
				figure(quantile(r.values, 0.75), r.unit) + r.unit
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s %s | %s |\n", r.what, figure(median, r.unit)+r.unit,
			quartiles, sign, figure(r.limit, r.unit)+r.unit, met)
	}
	least, most := slices.Min(b.echo), slices.Max(b.echo)
	fmt.Fprintf(w, "\nRaw Echo: %.0f requests/s, quartiles %.0f to %.0f, %.0f to %.0f in all: a "+
		"spread of %.0f %%.\n", quantile(b.echo, 0.5), quantile(b.echo, 0.25),
		quantile(b.echo, 0.75), least, most, 100*(most-least)/most)
}

// figure formats a ratio with two decimals, and others with one.
func figure(value float64, unit string) string {
	return strconv.FormatFloat(value, 'f', map[bool]int{true: 2, false: 1}[unit == ""], 64)
}
