package token

import (
	"context"
	"slices"
	"sync"
	"time"
)

// shares divides a capacity between callers. A caller can take a unit while it has less than a 16th
// of what is left. So one caller has a 17th of the capacity at most, and n callers that all want
// more have 1/(n+16) of it each, and leave 16/(n+16). If each takes all that it can before the next
// one begins, the first ones have more until they return it, and (16/17)^n is left. The caller ""
// stands for all callers without a name, and can take all that is left.
type shares struct {
	capacity int

	mu      sync.Mutex
	taken   int
	of      map[string]*share // of the callers that have units
	waiting []waiter          // in the order of arrival
}

// share is what one caller has taken.
type share struct {
	caller string
	units  int
}

// waiter is a call of wait.
type waiter struct {
	caller string
	taken  chan *share // receives the share once the waiter has a unit; has room for it
}

// shareOfFree: a caller can take a unit if more than shareOfFree times its units are left.
const shareOfFree = 16

// take takes a unit, if the caller can have one. It returns nil otherwise.
func (s *shares) take(caller string) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(caller)
}

func (s *shares) takeLocked(caller string) *share {
	free := s.capacity - s.taken
	of := s.of[caller]
	if free <= 0 || of != nil && caller != "" && shareOfFree*of.units >= free {
		return nil
	}
	if s.of == nil {
		s.of = map[string]*share{}
	}
	if of == nil {
		of = &share{caller: caller}
		s.of[caller] = of
	}
	of.units++
	s.taken++
	return of
}

// give returns a unit of a share, and hands units to those that wait.
func (s *shares) give(of *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if of.units--; of.units == 0 {
		delete(s.of, of.caller)
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(w waiter) bool {
		got := s.takeLocked(w.caller)
		if got != nil {
			w.taken <- got
		}
		return got != nil
	})
}

// wait is take, but waits until the caller can have a unit. After the timeout it returns errBusy,
// and when ctx is done, the error of ctx.
func (s *shares) wait(
	ctx context.Context, caller string, timeout <-chan time.Time,
) (*share, error) {
	s.mu.Lock()
	of := s.takeLocked(caller)
	w := waiter{caller, make(chan *share, 1)}
	if of == nil {
		s.waiting = append(s.waiting, w)
	}
	s.mu.Unlock()
	if of != nil {
		return of, nil
	}
	var err error
	select {
	case of = <-w.taken:
		return of, nil
	case <-timeout:
		err = errBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other waiter) bool {
		return other.taken == w.taken
	})
	s.mu.Unlock()
	select {
	case of = <-w.taken: // received it at the same time
		return of, nil
	default:
		return nil, err
	}
}

// rate limits events to a burst, and to one in each interval on average. It divides the burst
// between callers; the units return in the order in which they were taken.
type rate struct {
	interval time.Duration

	mu       sync.Mutex
	burst    shares
	taken    []*share
	returned time.Time // up to when units have been returned
}

func newRate(burst int, interval time.Duration) *rate {
	return &rate{interval: interval, burst: shares{capacity: burst}}
}

// take counts an event, and reports whether the caller can have it now.
func (r *rate) take(caller string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(max(0, int(now.Sub(r.returned)/r.interval)), len(r.taken))
	for _, of := range r.taken[:n] {
		r.burst.give(of)
	}
	r.taken = slices.Delete(r.taken, 0, n)
	r.returned = r.returned.Add(time.Duration(n) * r.interval)
	if len(r.taken) == 0 || now.Before(r.returned) { // the clock was set back
		r.returned = now
	}
	of := r.burst.take(caller)
	if of == nil {
		return false
	}
	r.taken = append(r.taken, of)
	return true
}

// caller returns the name by which proofs and queries are counted. It begins with its kind, so that
// a client cannot use up the share of a subject of the same name.
func (t *verifiedToken) caller() string {
	if subject := t.principal.Subject(); subject != "" {
		return "subject:" + subject
	}
	if client := t.principal.ClientID(); client != "" {
		return "client:" + client
	}
	return "key:" + t.binding.jkt
}
