package lazydeadline

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

type key struct{}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := context.WithValue(t.Context(), key{}, "value")
		at := time.Now().Add(time.Minute)
		var c Context
		c.Init(parent, at)
		if got, ok := c.Deadline(); !ok || !got.Equal(at) {
			t.Errorf("the deadline is %v, %t, want %v", got, ok, at)
		}
		if c.started != nil {
			t.Error("Deadline has started the timer")
		}
		for _, when := range []string{"before", "after"} {
			if got := c.Value(key{}); got != "value" {
				t.Errorf("%s the start, the value is %v, want that of the parent", when, got)
			}
			if c.Err() != nil {
				t.Errorf("the error is %v before the deadline", c.Err())
			}
		}
		time.Sleep(time.Minute - 1)
		select {
		case <-c.Done():
			t.Error("done before the deadline")
		default:
		}
		time.Sleep(time.Nanosecond)
		<-c.Done()
		if c.Err() != context.DeadlineExceeded {
			t.Errorf("the error is %v, want %v", c.Err(), context.DeadlineExceeded)
		}
	})
}

func TestParentEndsFirst(t *testing.T) {
	at := time.Now().Add(time.Hour)
	parent, cancel := context.WithDeadline(t.Context(), at)
	var c Context
	c.Init(parent, at.Add(time.Hour))
	if got, _ := c.Deadline(); !got.Equal(at) {
		t.Errorf("the deadline is %v, want that of the parent, %v", got, at)
	}
	done := c.Done()
	cancel()
	<-done
	if c.Err() != context.Canceled {
		t.Errorf("the error is %v, want %v", c.Err(), context.Canceled)
	}
}

func TestRelease(t *testing.T) {
	var c Context
	c.Init(t.Context(), time.Now().Add(time.Hour))
	c.Release()
	if c.started != nil {
		t.Error("Release has started the timer")
	}
	done := c.Done()
	c.Release()
	<-done
}

// Contexts that derive from it do not need a goroutine each.
func TestChildren(t *testing.T) {
	var c Context
	c.Init(t.Context(), time.Now().Add(time.Hour))
	before := runtime.NumGoroutine()
	for range 100 {
		_, cancel := context.WithCancel(&c)
		defer cancel()
	}
	if after := runtime.NumGoroutine(); after > before+50 {
		t.Errorf("100 children need %d goroutines", after-before)
	}
	c.Release()
}

// Contexts that derive from it follow the deadline.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Context
		c.Init(t.Context(), time.Now().Add(time.Minute))
		derived, cancel := context.WithCancel(&c)
		defer cancel()
		c.Reset(time.Time{})
		if at, ok := derived.Deadline(); ok {
			t.Errorf("the deadline is %v after it was removed", at)
		}
		time.Sleep(time.Hour)
		if c.Err() != nil || derived.Err() != nil {
			t.Errorf("the errors are %v and %v without a deadline", c.Err(), derived.Err())
		}
		c.Reset(time.Now().Add(time.Minute))
		time.Sleep(time.Minute - 1)
		if c.Err() != nil || derived.Err() != nil {
			t.Errorf("the errors are %v and %v before the deadline", c.Err(), derived.Err())
		}
		<-derived.Done()
		if c.Err() != context.DeadlineExceeded || derived.Err() != context.DeadlineExceeded {
			t.Errorf("the errors are %v and %v after the deadline", c.Err(), derived.Err())
		}
		c.Reset(time.Now().Add(time.Minute))
		if c.Err() == nil {
			t.Error("a deadline that has passed is undone")
		}
		c.Release()
	})
}

func TestResetBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Context
		c.Init(t.Context(), time.Now().Add(time.Hour))
		c.Reset(time.Now().Add(time.Second))
		begun := time.Now()
		<-c.Done()
		if took := time.Since(begun); took != time.Second {
			t.Errorf("done after %s, want a second", took)
		}
	})
}
