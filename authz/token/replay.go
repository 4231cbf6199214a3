package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ReplayStore remembers which DPoP proofs were used (RFC 9449 §11.1).
type ReplayStore interface {
	// Use reports whether key is fresh, and records it as used until the given time. Of any number
	// of calls with one key, sequential or concurrent, from one server or several, exactly one
	// reports fresh. After an error the request is refused.
	Use(ctx context.Context, key string, until time.Time) (fresh bool, err error)
}

// ReplayMemory is a [ReplayStore] for one process.
type ReplayMemory struct {
	capacity int
	now      func() time.Time

	mu        sync.Mutex
	used      map[string]struct{}
	ends      map[int64][]string // the keys in used, by the second in which they end
	swept     int64              // the last second at which ended keys were removed
	forgotten int64              // the latest end of a removed key
}

// defaultReplays is the default capacity. Each proof takes about 120 bytes for two to three
// minutes.
const defaultReplays = 1 << 19

// longestReplay is longer than proofs are stored, in seconds. If the clock is set back by more,
// proofs that were forgotten are not valid for a long time, and others must not wait for that.
const longestReplay = 5 * 60

// NewReplayMemory returns a store for at most limit proofs. While it is full of proofs that have
// not ended, Use fails, so that further proofs are refused rather than old ones accepted again. now
// is time.Now if nil.
func NewReplayMemory(limit int, now func() time.Time) *ReplayMemory {
	if now == nil {
		now = time.Now
	}
	return &ReplayMemory{capacity: limit, now: now, used: map[string]struct{}{},
		ends: map[int64][]string{}}
}

// Use implements [ReplayStore].
func (m *ReplayMemory) Use(_ context.Context, key string, until time.Time) (fresh bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(m.now().Unix())
	if _, used := m.used[key]; used {
		return false, nil
	}
	end := until.Unix() + 1
	if end <= m.forgotten && m.forgotten <= m.swept+longestReplay {
		return false, errors.New("token: the clock was set back to before the end of DPoP proofs " +
			"that ReplayMemory has forgotten. It accepts later ones. Do the clocks jump?")
	}
	if len(m.used) >= m.capacity {
		return false, fmt.Errorf("token: ReplayMemory is full: none of its %d DPoP proofs has "+
			"ended. Is one client flooding? Otherwise increase its capacity, or use a shared store",
			m.capacity)
	}
	m.used[key] = struct{}{}
	m.ends[end] = append(m.ends[end], key)
	return true, nil
}

// sweep removes the keys that have ended. Proofs end within minutes, so ends has few seconds.
func (m *ReplayMemory) sweep(now int64) {
	if now == m.swept {
		return
	}
	m.swept = now
	for end, keys := range m.ends {
		if end <= now {
			for _, key := range keys {
				delete(m.used, key)
			}
			delete(m.ends, end)
			m.forgotten = max(m.forgotten, end)
		}
	}
}
