package batch

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a writer that counts calls, and whose first call waits.
type slow struct {
	open  chan struct{}
	mu    sync.Mutex
	calls int
	text  strings.Builder
}

func (s *slow) Write(p []byte) (int, error) {
	<-s.open
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	return s.text.Write(p)
}

func TestBatchWritesEverythingOnceAndInOrder(t *testing.T) {
	to := &slow{open: make(chan struct{})}
	b := NewWriter(to)
	const writers, lines = 8, 200
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := range lines {
				fmt.Fprintf(b, "%d %d\n", w, n)
			}
		})
	}
	all.Wait() // nobody waits for a log that is slow
	close(to.open)
	b.Flush()

	next := map[int]int{}
	for line := range strings.Lines(to.text.String()) {
		var w, n int
		if _, err := fmt.Sscanf(line, "%d %d\n", &w, &n); err != nil || n != next[w] {
			t.Fatalf("line %q: want line %d of writer %d: are lines mixed, lost or in another order?", line, next[w], w)
		}
		next[w]++
	}
	for w := range writers {
		if next[w] != lines {
			t.Errorf("writer %d: %d lines, want %d: does Flush wait for the last batch?", w, next[w], lines)
		}
	}
	if to.calls > 3 {
		t.Errorf("%d calls for what came while the first waited, want 2 or 3", to.calls)
	}
}

// TestBatchIsBounded: a log that hangs takes so much memory and no more, and its writers go on once
// it does.
func TestBatchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &slow{open: make(chan struct{})}
		b := NewWriter(to)
		line := []byte(strings.Repeat("x", 64<<10))
		const lines = 4 * mostPending / (64 << 10)
		taken := 0
		go func() {
			for range lines {
				_, _ = b.Write(line)
				taken++
			}
		}()
		synctest.Wait()
		if most := 2 * (mostPending + 2*len(line)); taken*len(line) > most { // one batch being written, one pending
			t.Errorf("%d bytes were taken while none could be written, want no more than about %d", taken*len(line), most)
		}
		close(to.open)
		synctest.Wait()
		b.Flush()
		if got := to.text.Len(); got != lines*len(line) {
			t.Errorf("%d bytes came through of %d", got, lines*len(line))
		}
	})
}

// TestBatchGathers: what comes within a moment is one call, and none waits much longer.
func TestBatchGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &slow{open: make(chan struct{})}
		close(to.open)
		b := NewWriter(to)
		for range 5 {
			fmt.Fprintln(b, "line")
			time.Sleep(gathering / 10)
		}
		time.Sleep(gathering)
		synctest.Wait()
		if got := strings.Count(to.text.String(), "line\n"); got != 5 || to.calls != 1 {
			t.Errorf("after twice %s there are %d lines of 5, by %d calls, want all by one", gathering, got, to.calls)
		}
		b.Flush()
	})
}
