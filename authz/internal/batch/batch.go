// Package batch writes lines together that come together.
package batch

import (
	"io"
	"sync"
	"time"
)

// Writer is a writer that writes together what comes together: the lines of requests that end at
// about the same time cost one call of the system, and no request waits for it. [Writer.Flush]
// waits until all is written; only what a killed process had not begun to write, of the last
// millisecond, is lost.
type Writer struct {
	to io.Writer

	mu      sync.Mutex
	written sync.Cond // a batch is
	pending []byte
	writing bool
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer {
	b := &Writer{to: w}
	b.written.L = &b.mu
	return b
}

// mostPending bytes may wait to be written before Write waits too: a log that cannot be written as
// fast as it comes slows its writers down, and loses nothing.
const mostPending = 1 << 20

func (b *Writer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) > mostPending {
		b.written.Wait()
	}
	b.pending = append(b.pending, p...)
	if !b.writing {
		b.writing = true
		go b.write()
	}
	return len(p), nil
}

// gathering is how long a line waits for others.
const gathering = time.Millisecond

// write goes on until nothing is pending.
func (b *Writer) write() {
	var batch []byte
	for {
		time.Sleep(gathering)
		b.mu.Lock()
		batch, b.pending = b.pending, batch[:0]
		b.writing = len(batch) > 0
		b.written.Broadcast()
		b.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		_, _ = b.to.Write(batch)
	}
}

// Flush returns when all that was written before has been passed on.
func (b *Writer) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.writing {
		b.written.Wait()
	}
}
