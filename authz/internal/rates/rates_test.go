package rates

import (
	"fmt"
	"testing"
	"time"
)

var (
	now   = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	until = now.Add(time.Minute)
)

func TestMemory(t *testing.T) {
	var m Memory
	for _, step := range []struct {
		group, caller string
		n             int64
		until         time.Time
		want          int64
	}{
		{"a", "x", 1, until, 1},
		{"a", "x", 1, until, 2},
		{"a", "y", 1, until, 1},
		{"b", "x", 1, until, 1},
		{"a", "x", 1, until, 3},
		{"a", "x", -1, until, 2},
		{"a", "x", 1, until, 3},
		{"a", "x", 1, until.Add(time.Minute), 1}, // the next window
		{"a", "x", -1, until, 0},                 // of the last window, which has ended
		{"a", "x", 1, until.Add(time.Minute), 2},
	} {
		if got := m.Add(step.group, step.caller, step.n, now, step.until); got != step.want {
			t.Errorf("%+v: %d", step, got)
		}
	}
}

// TestMemoryIsBounded: strangers with many addresses share a count at the end.
func TestMemoryIsBounded(t *testing.T) {
	var m Memory
	for i := range maxCallers + 10 {
		m.Add("group", fmt.Sprint(i), 1, now, until)
	}
	if n := m.Add("group", "new", 1, now, until); n != 11 || len(m.counts) > maxCallers+1 {
		t.Errorf("the count of a new caller is %d, and %d are counted: want 11 of %d", n,
			len(m.counts), maxCallers+1)
	}
	m.Add("group", "next", 1, until, until.Add(time.Minute))
	if len(m.counts) != 1 {
		t.Errorf("%d counts are kept of windows that have ended", len(m.counts)-1)
	}
}

// TestMemorySweepsRarely: a full memory is not searched for each new caller.
func TestMemorySweepsRarely(t *testing.T) {
	var m Memory
	for i := range maxCallers {
		m.Add("group", fmt.Sprint(i), 1, now, until)
	}
	m.Add("group", "new", 1, now, until) // sweeps
	m.counts[key{"group", "0"}] = count{1, now, now}
	m.Add("group", "new", 1, now.Add(sweepInterval-1), until)
	if _, kept := m.counts[key{"group", "0"}]; !kept {
		t.Error("counts are swept twice in a second")
	}
	m.Add("group", "new", 1, now.Add(sweepInterval), until)
	if _, kept := m.counts[key{"group", "0"}]; kept {
		t.Error("an ended count is kept for more than a second")
	}
}

// TestMemoryAfterClockWasAhead: counts of a time that has not come do not take the room of others.
func TestMemoryAfterClockWasAhead(t *testing.T) {
	var m Memory
	ahead := now.AddDate(1, 0, 0)
	for i := range maxCallers {
		m.Add("group", fmt.Sprint(i), 1, ahead, ahead.Add(time.Minute))
	}
	m.Add("group", "x", 1, now, until)
	if n := m.Add("group", "y", 1, now, until); n != 1 {
		t.Errorf("the first request of y is counted as %d", n)
	}
}
