package token

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// takeAll takes units in turn for each caller until none can have more, and returns how many each
// has.
func takeAll(s *shares, callers ...string) []int {
	units := make([]int, len(callers))
	for took := true; took; {
		took = false
		for i, caller := range callers {
			if s.take(caller) != nil {
				units[i]++
				took = true
			}
		}
	}
	return units
}

func TestShares(t *testing.T) {
	for _, test := range []struct {
		capacity int
		callers  []string
		want     []int
		left     int
	}{
		{1700, []string{"a"}, []int{100}, 1600},
		{180, []string{"a", "b"}, []int{10, 10}, 160},
		{20, []string{"a", "b", "c", "d"}, []int{1, 1, 1, 1}, 16},
		{64, []string{"a"}, []int{4}, 60},
		{1, []string{"a", "b"}, []int{1, 0}, 0},
		{10, []string{""}, []int{10}, 0},
		{10, []string{"", "a"}, []int{9, 1}, 0},
		{0, []string{"a", ""}, []int{0, 0}, 0},
	} {
		s := &shares{capacity: test.capacity}
		if got := takeAll(s, test.callers...); !slices.Equal(got, test.want) {
			t.Errorf("%d for %q: %d, want %d", test.capacity, test.callers, got, test.want)
		}
		if left := s.capacity - s.taken; left != test.left {
			t.Errorf("%d for %q: %d left, want %d", test.capacity, test.callers, left, test.left)
		}
	}
}

// TestSharesOfManyCallers: many callers leave something, in whatever order they come.
func TestSharesOfManyCallers(t *testing.T) {
	const capacity = 1 << 19
	for _, n := range []int{1, 5, 20, 100} {
		inTurn, oneByOne := &shares{capacity: capacity}, &shares{capacity: capacity}
		var callers []string
		for i := range n {
			callers = append(callers, fmt.Sprint(i))
			takeAll(oneByOne, callers[i])
		}
		takeAll(inTurn, callers...)
		for name, test := range map[string]struct {
			s    *shares
			want float64
		}{
			"in turn":    {inTurn, 16 / (16 + float64(n))},
			"one by one": {oneByOne, math.Pow(16./17, float64(n))},
		} {
			left := float64(capacity-test.s.taken) / capacity
			if math.Abs(left/test.want-1) > .01 {
				t.Errorf("%d callers, %s: %.4f is left, want %.4f", n, name, left, test.want)
			}
		}
	}
}

// TestSharesWait: a unit that is returned goes to the first waiting caller that can have it.
func TestSharesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shares{capacity: 18}
		var taken []*share
		for _, caller := range append([]string{"a", "a"}, make([]string, 16)...) {
			taken = append(taken, s.take(caller))
		}
		var order []string
		var mu sync.Mutex
		wait := func(ctx context.Context, caller string, timeout time.Duration) {
			go func() {
				of, err := s.wait(ctx, caller, time.After(timeout))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					caller += " " + err.Error()
				}
				order = append(order, caller)
				if of != nil {
					taken = append(taken, of)
				}
			}()
			synctest.Wait()
		}
		gone, cancel := context.WithCancel(t.Context())
		wait(t.Context(), "a", time.Minute)
		wait(t.Context(), "b", time.Second)
		wait(gone, "c", time.Minute)
		wait(t.Context(), "d", time.Minute)
		cancel()
		synctest.Wait()
		s.give(taken[17])
		synctest.Wait()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s.give(taken[16])
		synctest.Wait()
		time.Sleep(time.Hour)
		synctest.Wait()
		want := []string{"c context canceled", "b", "d", "a " + errBusy.Error()}
		if !slices.Equal(order, want) {
			t.Errorf("%q, want %q", order, want)
		}
		if len(s.waiting) != 0 {
			t.Errorf("%d callers wait, want none", len(s.waiting))
		}
		for _, of := range append(taken[:16:16], taken[18:]...) {
			s.give(of)
		}
		if s.taken != 0 || len(s.of) != 0 {
			t.Errorf("%d units of %d callers are taken, want none", s.taken, len(s.of))
		}
	})
}

// TestRate: units return in the order in which they were taken, also after the clock was set back.
func TestRate(t *testing.T) {
	r := newRate(34, time.Second)
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		after  time.Duration
		caller string
		want   bool
	}{
		{0, "a", true}, {0, "a", true}, {0, "a", false}, {0, "b", true},
		{time.Second - 1, "a", false}, {1, "a", true}, {0, "a", false},
		{-time.Hour, "a", false}, {time.Second, "a", true}, {0, "a", false},
		{time.Second, "a", false}, {0, "b", true}, // the returned unit was of b
		{time.Hour, "a", true}, {0, "a", true}, {0, "a", false}, {0, "b", true},
	} {
		if at = at.Add(step.after); r.take(step.caller, at) != step.want {
			t.Errorf("step %d: taken is %t, want %t", i, !step.want, step.want)
		}
	}
	if len(r.taken) != 3 || r.burst.taken != 3 {
		t.Errorf("%d and %d units are taken, want 3", len(r.taken), r.burst.taken)
	}
}
