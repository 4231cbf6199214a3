package token

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// ReplayStore remembers which DPoP proofs were used (RFC 9449 §11.1).
type ReplayStore interface {
	// Use reports whether key is fresh, and has it used up until the given time. Of any number of
	// calls with one key, one after another or at the same time, from one server or several, one
	// alone is told that it is fresh. With an error nothing is known, and the request is refused.
	Use(ctx context.Context, key string, until time.Time) (fresh bool, err error)
}

// ReplayMemory is a [ReplayStore] for one process.
type ReplayMemory struct {
	most int
	now  func() time.Time

	mu    sync.Mutex
	used  map[string]struct{}
	ends  map[int64][]string // the keys of used, by the second at which they end
	swept int64              // the second up to which those that had ended were forgotten
}

// defaultReplays: each takes about 120 bytes, for two to three minutes.
const defaultReplays = 1 << 19

// NewReplayMemory returns a store that remembers so many proofs at the most. While it is full of
// proofs that have not ended it fails, so that all further ones are refused: to forget one before
// its time would let it be used again. now is time.Now if nil.
func NewReplayMemory(most int, now func() time.Time) *ReplayMemory {
	if now == nil {
		now = time.Now
	}
	return &ReplayMemory{most: most, now: now, used: map[string]struct{}{},
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
	if len(m.used) >= m.most {
		return false, fmt.Errorf("token: the %d DPoP proofs that are remembered have not ended "+
			"yet: is one client flooding? Else give ReplayMemory more room, or use a shared store",
			m.most)
	}
	m.used[key] = struct{}{}
	end := until.Unix() + 1
	m.ends[end] = append(m.ends[end], key)
	return true, nil
}

// sweep forgets what has ended, a second at a time: there are only so many seconds that a proof can
// end at.
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
		}
	}
}
