package server

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz"
)

// Unlimited as Config.MaxActive or Config.MaxConnections means that there is no limit.
const Unlimited = -1

const (
	perConnection = 4   // active requests for each connection of the pools
	perProcessor  = 32  // the least, so that few connections do not idle the processors
	withoutPools  = 256 // for each processor, if the program has no pools
	// maxWait is how long a request waits until it becomes active. Few clients wait much longer,
	// and handling a request after its client has given up is useless.
	maxWait = time.Second
)

// overload limits how many requests are active at the same time, and how many wait to be. The
// server refuses all others at once: a request that waits for a long time takes memory, and its
// client has often given up by the time it is handled.
//
// The limit is fixed. The adaptive limiter of failsafe-go 0.9 was measured: behind a pool of 4
// connections, offered 3 times its capacity, it kept 90 % of the goodput, as this one does. But
// with handlers that only wait (500 ms, 1000 requests per second), it refused 84 % of the requests
// in the first 10 s although the machine was idle.
type overload struct {
	active     chan struct{} // nil: no limit
	waiting    atomic.Int64
	queue      int64 // how many may wait
	processors *processors
}

// newOverload returns the limits of a configuration.
func newOverload(config Config) (*overload, error) {
	limit := config.MaxActive
	switch {
	case limit == Unlimited:
		return &overload{}, nil
	case limit < 0:
		return nil, errors.New("server: Config.MaxActive is negative: expected a number of " +
			"requests, 0 for the default, or Unlimited")
	case limit == 0:
		limit = defaultActive(config.Pools)
	}
	busy := func(delay time.Duration) {
		config.Logger.Warn("requests are refused: too many wait for a processor",
			"delay_ms", delay.Milliseconds())
	}
	return &overload{
		active: make(chan struct{}, limit), queue: int64(limit), processors: newProcessors(busy),
	}, nil
}

// defaultActive returns the default of Config.MaxActive.
func defaultActive(pools func() map[string]Pool) int {
	processors := runtime.GOMAXPROCS(0)
	if pools == nil {
		return withoutPools * processors
	}
	connections := 0
	for _, pool := range pools() {
		if pool.MaxOpen == 0 { // without a limit
			return withoutPools * processors
		}
		connections += pool.MaxOpen
	}
	return max(perConnection*connections, perProcessor*processors)
}

// errOverloaded is the error for a request that cannot become active soon.
var errOverloaded = &authz.Error{Kind: authz.Overloaded, RetryAfter: time.Second}

// enter waits until a request that began at start can become active. It reports false if the
// request is refused.
func (o *overload) enter(ctx context.Context, start time.Time) bool {
	if o.active == nil {
		return true
	}
	if o.processors.refuse(start) {
		return false
	}
	select {
	case o.active <- struct{}{}:
		return true
	default:
	}
	defer o.waiting.Add(-1)
	if o.waiting.Add(1) > o.queue {
		return false
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case o.active <- struct{}{}: // in the order in which they came
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// place is the slot of an active request. The zero value is for a request that does not count.
type place struct {
	overload *overload
	mu       sync.Mutex // a handler may read and write at the same time
	held     bool
	left     bool // for good
}

// leave makes the request no longer count as active. A stream does not count once it has begun,
// because it can last for hours and mostly waits.
func (p *place) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = true
	p.release()
}

// release frees the place. The caller holds mu.
func (p *place) release() {
	if p.held {
		<-p.overload.active
		p.held = false
	}
}

// pause frees the place until resume.
func (p *place) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release()
}

// resume waits for a place, unless the request has left or ends.
func (p *place) resume(ctx context.Context) {
	p.mu.Lock()
	left := p.left
	p.mu.Unlock()
	if left {
		return
	}
	select {
	case p.overload.active <- struct{}{}:
	case <-ctx.Done():
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
	if p.left {
		p.release()
	}
}

// waitingBody is the body of a request, which does not count as active while it waits for the body
// to arrive. Otherwise a few clients that send slowly would keep all others out.
type waitingBody struct {
	io.ReadCloser
	place *place
	ctx   context.Context
}

func (b *waitingBody) Read(p []byte) (int, error) {
	b.place.pause()
	defer b.place.resume(b.ctx)
	return b.ReadCloser.Read(p)
}
