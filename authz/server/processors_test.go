package server

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestProcessors: requests are refused only while the delay and the queue are too long, no more of
// them than the queue exceeds its limit by, and no more than refusedPerMilli.
func TestProcessors(t *testing.T) {
	count := runtime.GOMAXPROCS(0)
	least := int64(leastRunnable * count)
	var (
		runnable int64
		delay    time.Duration
		at       time.Duration
		told     []time.Duration
	)
	p := &processors{
		runnable: func() int64 { return runnable }, delay: func() time.Duration { return delay },
		began: func(d time.Duration) { told = append(told, d) }, started: time.Now(),
	}
	// send sends a number of requests at the same time, after a pause.
	send := func(pause time.Duration, requests int) (refused int) {
		at += pause
		for range requests {
			if p.refuse(p.started.Add(at)) {
				refused++
			}
		}
		return refused
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d are refused, want %d", what, got, want)
		}
	}

	runnable, delay = 10*least, tolerableDelay
	want("long queue, tolerable delay", send(delayWindow, 100), 0)
	runnable, delay = least, 2*tolerableDelay
	want("long delay, short queue", send(delayWindow, 100), 0)
	if told != nil {
		t.Error("began was called, but no request is refused")
	}
	runnable = least + 3
	want("three too many", send(queueSample, 100), 3)
	want("until the next sample", send(queueSample/2, 100), 0)
	want("at the next sample", send(queueSample, 100), 3)
	runnable = 100 * least
	want("far too many", send(queueSample, 1000), refusedPerMilli*count)
	want("after some milliseconds", send(5*queueSample, 1000), 5*refusedPerMilli*count)
	if len(told) != 1 || told[0] != delay {
		t.Errorf("began was called with %v, want %s once", told, delay)
	}

	// Faster requests are allowed a longer queue.
	served := 100 * int(least)
	runnable, delay = 0, tolerableDelay/2
	send(delayWindow, 1) // begins a window
	send(queueSample, served-1)
	runnable = int64(served)*int64(tolerableDelay)/int64(delayWindow) + 2
	want("two more than are served in time", send(delayWindow-queueSample, 1000), 2)

	runnable = 0
	send(refusingPeriod, 1)
	runnable = 100 * least
	want("after the queue was short for some time", send(delayWindow, 100), 0)
}

// TestSchedulerDelay compares the delay and the queue with those of goroutines that compute.
func TestSchedulerDelay(t *testing.T) {
	delay := schedulerDelay()
	if got := delay(); got < 0 || got > time.Minute {
		t.Errorf("the delay is %s, want 0 s to 1 min", got)
	}
	var group sync.WaitGroup
	for range 100 * runtime.GOMAXPROCS(0) { // the last one waits for the others
		group.Go(func() {
			for begun := time.Now(); time.Since(begun) < 2*time.Millisecond; {
			}
		})
	}
	longest := int64(0)
	for range 50 {
		longest = max(longest, runnableGoroutines())
		runtime.Gosched()
	}
	group.Wait()
	if longest == 0 {
		t.Error("no goroutine has waited for a processor")
	}
	if got := delay(); got < time.Millisecond || got > time.Minute {
		t.Errorf("the delay is %s, want 1 ms to 1 min", got)
	}
}
