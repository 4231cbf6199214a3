package server

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// faultyWriter blocks while gate is locked, and fails while err is set.
type faultyWriter struct {
	gate sync.Mutex
	err  error
	text strings.Builder
}

func (f *faultyWriter) Write(p []byte) (int, error) {
	f.gate.Lock()
	defer f.gate.Unlock()
	if f.err != nil {
		n := min(3, len(p))
		f.text.Write(p[:n])
		return n, f.err
	}
	return f.text.Write(p)
}

func (f *faultyWriter) String() string {
	f.gate.Lock()
	defer f.gate.Unlock()
	return f.text.String()
}

// TestLinesWithoutReader: Write does not wait, lines beyond the buffer are counted, and the loss is
// reported afterwards.
func TestLinesWithoutReader(t *testing.T) {
	w := &faultyWriter{}
	var lines *Lines
	var reported atomic.Uint64
	lines = NewLines(LinesConfig{Writer: w, Size: 100, Recovered: func(lost uint64, err error) {
		// The loss is reported in two parts if lines were lost before the first was written. The
		// message about the first part can itself be lost, because the buffer is still full.
		reported.Add(lost)
		fmt.Fprintf(lines, "loss: %v\n", err)
	}})
	w.gate.Lock()
	for range 1000 {
		if n, err := lines.Write([]byte("0123456789\n")); n != 11 || err != nil {
			t.Fatalf("Write returned %d, %v", n, err)
		}
	}
	lost := lines.Lost()
	if lost < 900 {
		t.Errorf("%d lines lost, want at least 900 of 1000", lost)
	}
	w.gate.Unlock()
	eventually(t, "what waited is written", func() bool {
		return strings.Count(w.String(), "0123456789\n") == int(1000-lost)
	})
	fmt.Fprint(lines, "again\n")
	eventually(t, "the whole loss is mentioned", func() bool {
		return reported.Load() == lines.Lost() && strings.Contains(w.String(), "loss: <nil>\n")
	})
	lines.Close()
	lost = lines.Lost()
	fmt.Fprint(lines, "late\n")
	if got := lines.Lost(); got != lost+1 || strings.Contains(w.String(), "late") {
		t.Errorf("%d lines lost, want %d, the late one too", got, lost+1)
	}
}

// TestLinesOnAFullDisk: a truncated line is on its own line.
func TestLinesOnAFullDisk(t *testing.T) {
	w := &faultyWriter{err: syscall.ENOSPC}
	told := make(chan error, 1)
	lines := NewLines(LinesConfig{Writer: w, Recovered: func(_ uint64, err error) { told <- err }})
	fmt.Fprint(lines, "first\n")
	eventually(t, "the line is lost", func() bool { return lines.Lost() == 1 })
	w.gate.Lock()
	w.err = nil
	w.gate.Unlock()
	fmt.Fprint(lines, "second\n")
	if err := <-told; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Recovered got %v, want ENOSPC", err)
	}
	lines.Close()
	if got := w.String(); got != "fir\nsecond\n" {
		t.Errorf("written: %q", got)
	}
}

func TestLinesBlock(t *testing.T) {
	w := &faultyWriter{}
	lines := NewLines(LinesConfig{Writer: w, Size: 20, Block: true})
	w.gate.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			fmt.Fprint(lines, "0123456789\n")
		}
	}()
	w.gate.Unlock()
	<-done
	lines.Close()
	if got := strings.Count(w.String(), "\n"); got != 100 || lines.Lost() != 0 {
		t.Errorf("%d lines written and %d lost, want 100 and 0", got, lines.Lost())
	}
}

// TestLinesCloseIsBounded: Close does not wait for a blocked reader.
func TestLinesCloseIsBounded(t *testing.T) {
	w := &faultyWriter{}
	lines := NewLines(LinesConfig{Writer: w})
	w.gate.Lock()
	fmt.Fprint(lines, "never\n")
	lines.Close()
	w.gate.Unlock()
}
