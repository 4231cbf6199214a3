// Package rates counts what callers send.
package rates

import (
	"sync"
	"time"
)

// Memory counts in memory, by group and caller. The zero value is ready to use.
type Memory struct {
	mu     sync.Mutex
	counts map[key]count
	swept  time.Time // when ended counts were last removed
}

type key struct{ group, caller string }

type count struct {
	n           int64
	made, until time.Time
}

// maxCallers is the maximum number of callers that are counted separately. Further callers share a
// count for each group, so that clients with many addresses cannot exhaust memory.
const maxCallers = 100_000

// sweepInterval is the minimum time between sweeps, each of which takes milliseconds.
const sweepInterval = time.Second

// Add adds n to the count of a caller and returns it. A new count starts at 0, and ends at until.
// If n is below 0, it takes back what was added, unless that count has ended.
func (m *Memory) Add(group, caller string, n int64, now, until time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{group, caller}
	if _, known := m.counts[k]; !known && len(m.counts) >= maxCallers {
		m.sweep(now)
		if len(m.counts) >= maxCallers {
			k.caller = ""
		}
	}
	c := m.counts[k]
	if !c.until.Equal(until) {
		if n < 0 {
			return 0
		}
		c = count{made: now, until: until}
	}
	if m.counts == nil {
		m.counts = map[key]count{}
	}
	c.n += n
	m.counts[k] = c
	return c.n
}

// sweep removes the counts that have ended, and those that were made when the clock was ahead.
func (m *Memory) sweep(now time.Time) {
	if since := now.Sub(m.swept); since >= 0 && since < sweepInterval {
		return
	}
	m.swept = now
	for k, c := range m.counts {
		if !c.until.After(now) || c.made.After(now) {
			delete(m.counts, k)
		}
	}
}
