package server

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the lines about refusals of anonymous callers. They bound what a flood writes to 5,000
// lines in a window, and leave refusals of another cause or client visible.
const (
	sampleWindow = 10 * time.Second
	sampleLines  = 20  // of one cause and client in a window
	sampleKeys   = 250 // counted separately; other clients share the lines of a cause
)

// sampler limits the lines about refusals of anonymous callers, by cause and client. At the end of
// a window it logs how many lines it suppressed.
type sampler struct {
	log        *slog.Logger
	suppressed atomic.Uint64

	mu     sync.Mutex
	counts map[sampleKey]int // in the current window
	window *time.Timer       // nil: no window has begun
}

type sampleKey struct{ cause, client string }

func newSampler(log *slog.Logger) *sampler {
	return &sampler{log: log, counts: map[sampleKey]int{}}
}

// allow reports whether a refusal is logged.
func (s *sampler) allow(cause, remote string) bool {
	key := sampleKey{cause, network(remote)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window == nil {
		s.window = time.AfterFunc(sampleWindow, s.end)
	}
	if _, known := s.counts[key]; !known && len(s.counts) >= sampleKeys {
		key.client = "others"
	}
	s.counts[key]++
	if s.counts[key] <= sampleLines {
		return true
	}
	s.suppressed.Add(1)
	return false
}

// end ends a window.
func (s *sampler) end() {
	s.mu.Lock()
	counts := s.counts
	s.counts, s.window = map[sampleKey]int{}, nil
	s.mu.Unlock()
	for key, n := range counts {
		if n > sampleLines {
			s.log.Info("refusals not logged", "code", key.cause, "remote", key.client,
				"lines", n-sampleLines, "seconds", int(sampleWindow.Seconds()))
		}
	}
}

// network returns the network of an address that one client is likely to have: an IPv4 address, or
// an IPv6 network of 64 bits.
func network(remote string) string {
	ip, err := netip.ParseAddr(remote)
	if err != nil || ip.Unmap().Is4() {
		return remote
	}
	prefix, _ := ip.Prefix(64)
	return prefix.String()
}
