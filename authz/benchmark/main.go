// Program benchmark measures what it costs to serve one guarded GET with an RS256 token: the
// program of this repository beside other servers that do the same, and raw Echo and net/http,
// which check nothing. Each server is a process of its own on loopback, alone on one core where
// taskset is installed, with the load on another. Rounds are interleaved, and every figure is a
// ratio to raw Echo in the same round, so that the pace of the machine does not count.
//
//	go run . [-rounds 5] [-seconds 2] [-connections 64] [-tokens 5000] [-only regexp]
//	go run . -budget [-pairs 20] [-builds]
//	go run . -values [-rounds 1000]
//
// The second form measures the budget of this repository: speed in pairs of short slices, one after
// the other, and memory. With -builds, it also measures the processor time of a first build and
// what the library adds to a binary. The table is README's. It takes about four minutes, and two
// more with -builds. The third form measures, in this process, what it costs to validate and to
// bind. It needs Linux, whose /proc says what a process has used.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

//go:generate go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml
//go:generate go tool ogen --config ogen.yml --target peers/ogen --package ogen --clean openapi.yaml
//go:generate go tool oapi-codegen -config values-oapi-codegen.yaml values.yaml
//go:generate go tool ogen --config ogen.yml --target peers/values/ogen --package ogen --clean values.yaml

type config struct {
	rounds, connections, tokens int
	duration                    time.Duration // of the measurement of one server in one round
	only                        *regexp.Regexp
	pairs                       int           // of the budget
	slice                       time.Duration // of one side of a pair
	builds                      bool
	progress                    io.Writer
}

func main() {
	if name, ok := os.LookupEnv(peerVariable); ok { // started by the harness
		fmt.Fprintln(os.Stderr, servePeer(name))
		os.Exit(1)
	}
	var c config
	flag.IntVar(&c.rounds, "rounds", 5, "rounds, of which the medians are shown")
	seconds := flag.Float64("seconds", 2, "seconds for each server in each round")
	flag.IntVar(&c.connections, "connections", 64, "connections, each with one request at a time")
	flag.IntVar(&c.tokens, "tokens", 5000, "distinct tokens, each sent once; 0: not measured")
	only := flag.String("only", "", "regular expression of the servers to measure beside raw Echo")
	budget := flag.Bool("budget", false, "measure the budget of this repository")
	flag.IntVar(&c.pairs, "pairs", 20, "pairs of the budget")
	flag.DurationVar(&c.slice, "slice", time.Second/2, "time for one side of a pair of the budget")
	flag.BoolVar(&c.builds, "builds", false, "measure builds for the budget, too")
	values := flag.Bool("values", false, "measure what it costs to validate and to bind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	c.duration, c.progress = time.Duration(*seconds*float64(time.Second)), os.Stderr
	if *values {
		err = writeValues(ctx, os.Stdout, c.rounds)
	} else if *budget {
		err = writeBudget(ctx, os.Stdout, c)
	} else if c.only, err = regexp.Compile(*only); err == nil {
		var results []result
		if results, err = measure(ctx, c); err == nil {
			writeTable(os.Stdout, c, results)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
