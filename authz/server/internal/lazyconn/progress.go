package lazyconn

import (
	"fmt"
	"os"
	"time"
)

// Progress is how much a peer must take of a stream: Bytes in Per. Only the time in which there is
// something to send counts.
type Progress struct {
	Bytes int64
	Per   time.Duration
}

// ErrStalled is the error of a Write whose peer does not make the progress that is expected.
var ErrStalled = fmt.Errorf("the peer takes less than it must: %w", os.ErrDeadlineExceeded)

// progress measures that of a peer, in turns: each ends with enough bytes, or with the connection.
type progress struct {
	least   Progress      // no Bytes: none is expected
	queued  int64         // in the kernel when the turn began
	written int64         // since
	spent   time.Duration // in Write, since
}

// Expect requires progress from now on, in addition to the deadline. The zero Progress requires
// none. It must not be called during a Write.
func (c *Conn) Expect(least Progress) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.progress = progress{least: least}
	if least.Bytes > 0 {
		c.progress.queued = queued(c.Conn)
	}
}

func (c *Conn) writeStream(p []byte) (written int, err error) {
	turn := &c.progress
	for {
		begun := time.Now()
		c.write.setStall(begun.Add(turn.least.Per - turn.spent))
		n, err := c.writeInTime(p[written:])
		stalled := c.write.isStalled()
		c.write.setStall(time.Time{})
		written += n
		turn.written += int64(n)
		turn.spent += time.Since(begun)
		if err != nil && !stalled {
			return written, err
		}
		// The kernel accepts a good deal at once and then nothing for long, so what the peer has
		// acknowledged counts, too.
		if turn.written >= turn.least.Bytes || stalled {
			now := queued(c.Conn)
			if max(turn.written, turn.written+turn.queued-now) < turn.least.Bytes {
				return written, ErrStalled
			}
			*turn = progress{least: turn.least, queued: now}
		}
		if err == nil {
			return written, nil
		}
	}
}

// setStall is called between Writes.
func (d *deadline) setStall(t time.Time) {
	d.mu.Lock()
	d.stall = t
	d.mu.Unlock()
}

// isStalled reports whether the deadline of progress has passed, and no other.
func (d *deadline) isStalled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	return !now.Before(d.stall) && (d.at.IsZero() || now.Before(d.at))
}
