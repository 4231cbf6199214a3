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
}

type key struct{ group, caller string }

type count struct {
	n     int64
	until time.Time
}

// maxCallers is the maximum number of callers that are counted separately. Further callers share a
// count for each group, so that clients with many addresses cannot exhaust memory.
const maxCallers = 100_000

// Add adds n to the count of a caller and returns it. A new count starts at 0, and ends at until.
// If n is 0, it only returns the count.
func (m *Memory) Add(group, caller string, n int64, now, until time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := key{group, caller}
	if _, known := m.counts[k]; !known && len(m.counts) >= maxCallers {
		for k, c := range m.counts {
			if !c.until.After(now) {
				delete(m.counts, k)
			}
		}
		if len(m.counts) >= maxCallers {
			k.caller = ""
		}
	}
	c := m.counts[k]
	if !c.until.Equal(until) {
		c = count{until: until}
	}
	if n == 0 {
		return c.n
	}
	if m.counts == nil {
		m.counts = map[key]count{}
	}
	c.n += n
	m.counts[k] = c
	return c.n
}
