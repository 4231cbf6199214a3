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
	// reports fresh. After an error the request is refused. A store can forget a key after until,
	// because the verifier does not ask for such keys, even if its clock is set back. caller is the
	// issuer and the subject of the token: a store can divide its room between callers.
	Use(ctx context.Context, key, caller string, until time.Time) (fresh bool, err error)
}

// ReplayMemory is a [ReplayStore] for one process.
type ReplayMemory struct {
	now func() time.Time

	mu    sync.Mutex
	room  shares
	used  map[string]*share
	ends  map[int64][]string // the keys in used, by the second in which they end
	swept int64              // the last second at which ended keys were removed
}

// defaultReplays is the default capacity in proofs. Each proof, and each caller, takes about 120
// bytes for two to three minutes.
const defaultReplays = 1 << 19

// NewReplayMemory returns a store for at most limit proofs. While it is full of proofs that have
// not ended, Use fails, so that further proofs are refused rather than old ones accepted again. A
// caller can use it while it has less than a 16th of the room that is left, so that many callers
// are needed to fill it; the caller "" can use all of it. now is time.Now if nil.
func NewReplayMemory(limit int, now func() time.Time) *ReplayMemory {
	if now == nil {
		now = time.Now
	}
	return &ReplayMemory{room: shares{capacity: limit}, now: now, used: map[string]*share{},
		ends: map[int64][]string{}}
}

// errReplayShare means that a caller has used its share of a [ReplayMemory].
var errReplayShare = errors.New("token: the subject has used its share of the ReplayMemory, a " +
	"16th of the room that is left. If it is not flooding, use a larger or shared store")

// Use implements [ReplayStore]. It returns an error if the store is full, or if the caller has used
// its share.
func (m *ReplayMemory) Use(
	_ context.Context, key, caller string, until time.Time,
) (fresh bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(m.now().Unix())
	if m.used[key] != nil {
		return false, nil
	}
	if len(m.used) >= m.room.capacity {
		return false, fmt.Errorf("token: ReplayMemory is full: none of its %d DPoP proofs has "+
			"ended. Are many clients flooding? Otherwise use a larger or shared store",
			m.room.capacity)
	}
	of := m.room.take(caller)
	if of == nil {
		return false, errReplayShare
	}
	end := until.Unix() + 1
	m.used[key] = of
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
				m.room.give(m.used[key])
				delete(m.used, key)
			}
			delete(m.ends, end)
		}
	}
}

// passedMinutes records which minutes of the last day have passed, by the clock or in real time. If
// the clock is set back, a [ReplayStore] can have forgotten the proofs that ended in them, although
// they are valid again.
type passedMinutes struct {
	mu      sync.Mutex
	read    time.Time      // the last reading of the clock
	at      time.Time      // when it was read, in real time
	minutes [24 * 60]int64 // Unix minutes that have passed: see slot
}

// passed records that the clock reads now, and reports whether the minute of end had passed before.
// It had not if end is maxLeeway or more from now, unless the clock was set back.
//
// If the clock jumps forwards, at most skip of the skipped time counts as passed: it must be longer
// than proofs are stored, so that none of the rest was used. Otherwise, after a clock that was
// hours ahead, no proof would be accepted for hours.
func (p *passedMinutes) passed(now, end time.Time, skip time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now = now.Round(0) // without the monotonic reading, which would hide jumps
	if p.at.IsZero() {
		p.read, p.at = now, time.Now()
	}
	elapsed := max(time.Since(p.at), min(now.Sub(p.read), skip))
	last := p.read.Add(elapsed).Unix() / 60
	for m := max(p.read.Unix()/60, last+1-int64(len(p.minutes))); m <= last; m++ {
		*p.slot(m) = m
	}
	this, minute := now.Unix()/60, end.Unix()/60
	*p.slot(this) = this
	p.read, p.at = now, time.Now()
	return *p.slot(minute) == minute
}

// slot returns where a minute is recorded.
func (p *passedMinutes) slot(minute int64) *int64 {
	return &p.minutes[uint64(minute)%uint64(len(p.minutes))]
}
