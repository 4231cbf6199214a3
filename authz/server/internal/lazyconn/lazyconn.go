// Package lazyconn provides a listener whose connections set few timers.
//
// net/http sets eight deadlines for every request, and hardly any of them passes. Each goes through
// the poller to a timer of the runtime. The connections of this package only record the deadlines.
// A timer that is already set for an earlier time also covers a later deadline: when it fires too
// early, it is set again, and the read or write continues. A connection in steady use sets a timer
// only now and then.
//
// After a response, a connection also yields to other connections before it reads, because the next
// request has hardly ever arrived: an early read costs system calls.
//
// Measured with a protected GET that hits the token cache over 64 connections, log off, on one
// core: with the listener of package net instead, a request costs 11 % more processor time (median
// of 24 interleaved pairs, quartiles 6 % and 16 %); without the yield alone, 5 % (1 % and 11 %).
package lazyconn

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Listener accepts TCP connections with lazy deadlines. Callers observe the same deadlines as with
// the connections of the wrapped listener.
type Listener struct{ net.Listener }

// Accept implements [net.Listener].
func (l Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if tcp, ok := accepted.(*net.TCPConn); ok {
		return newConn(tcp), nil
	}
	return accepted, err
}

// Conn is a TCP connection with lazy deadlines. It does not have the method ReadFrom, with which
// net/http copies files to a TCP connection in the kernel: it could not continue after a timer that
// fired early. The server does not send files in that way.
type Conn struct {
	net.Conn    // the TCP connection
	read, write deadline
	writing     sync.Mutex    // a Write can take several of the TCP connection
	written     atomic.Bool   // since the last Read
	responses   atomic.Uint32 // counted by yield
	progress    progress      // protected by writing
	cut         atomic.Bool
	closer      atomic.Pointer[time.Timer]
}

func newConn(tcp *net.TCPConn) *Conn {
	return &Conn{
		Conn:  tcp,
		read:  deadline{setTimer: tcp.SetReadDeadline},
		write: deadline{setTimer: tcp.SetWriteDeadline},
	}
}

func (c *Conn) Read(p []byte) (int, error) {
	if err := c.read.begin(); err != nil {
		return 0, err
	}
	c.yield()
	for {
		n, err := c.Conn.Read(p)
		if c.read.end(err) {
			return n, err
		}
	}
}

// yield lets other connections run after a response has been written.
//
// It does so after every other response only. While a goroutine can run, the runtime does not poll
// the network for up to 10 ms, so some reads must block.
func (c *Conn) yield() {
	if c.written.Load() && c.written.Swap(false) && c.responses.Add(1)%2 == 1 {
		runtime.Gosched()
	}
}

func (c *Conn) Write(p []byte) (written int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.progress.least.Bytes > 0 {
		written, err = c.writeStream(p)
	} else {
		written, err = c.writeInTime(p)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.cut.Store(true)
		// Close discards what the peer did not take, instead of waiting for it.
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
	}
	return written, err
}

// writeInTime writes until the deadline.
func (c *Conn) writeInTime(p []byte) (written int, err error) {
	if err := c.write.begin(); err != nil {
		return 0, err
	}
	for {
		n, err := c.Conn.Write(p[written:])
		written += n
		c.written.Store(true)
		if c.write.end(err) {
			return written, err
		}
	}
}

// Cut reports whether a Write has failed because the peer was too slow.
func (c *Conn) Cut() bool { return c.cut.Load() }

// CloseAt closes the connection at a time. Zero is never.
func (c *Conn) CloseAt(t time.Time) {
	var timer *time.Timer
	if !t.IsZero() {
		timer = time.AfterFunc(time.Until(t), func() { _ = c.Close() })
	}
	if old := c.closer.Swap(timer); old != nil {
		old.Stop()
	}
}

// Reset ends what [Conn.Expect] and [Conn.CloseAt] demand of one response.
func (c *Conn) Reset() {
	if c.closer.Load() != nil {
		c.CloseAt(time.Time{})
	}
	c.Expect(Progress{})
}

// Close implements [net.Conn].
func (c *Conn) Close() error {
	if timer := c.closer.Load(); timer != nil {
		timer.Stop()
	}
	return c.Conn.Close()
}

// CloseWrite shuts down the writing side. net/http uses it so that a client that is still sending
// receives the response.
func (c *Conn) CloseWrite() error {
	return c.Conn.(*net.TCPConn).CloseWrite()
}

func (c *Conn) SetReadDeadline(t time.Time) error  { return c.read.set(t) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.write.set(t) }
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.read.set(t), c.write.set(t))
}

// deadline is the deadline of one direction. During a Read or Write of the TCP connection its timer
// is set no later than the deadline; at other times the timer does not matter. Whether the timer
// has fired too early is only checked when it fires, because reading the clock each time would cost
// most of what is saved.
type deadline struct {
	setTimer func(time.Time) error // of the TCP connection

	mu     sync.Mutex
	at     time.Time // zero: none
	stall  time.Time // an earlier one, of progress; zero: none
	timer  time.Time // zero: not set
	active int       // calls of Read or Write
}

// set sets the deadline. It does not use defer, because most calls of this package are of it.
func (d *deadline) set(t time.Time) (err error) {
	d.mu.Lock()
	d.at = t
	if d.active > 0 { // otherwise begin updates the timer
		err = d.update()
	}
	d.mu.Unlock()
	return err
}

// interrupts is later than the deadline in the distant past with which net/http interrupts its
// background read, and earlier than any other deadline.
var interrupts = time.Unix(1e9, 0)

// begin is called before a Read or Write of the TCP connection, which must not follow an error. It
// detects most interrupts of net/http's background read, of which there is one in every request,
// without a timer.
func (d *deadline) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && d.at.Before(interrupts) {
		return os.ErrDeadlineExceeded
	}
	_ = d.update() // fails if the connection is closed, which Read or Write reports
	d.active++
	return nil
}

// end is called after a Read or Write of the TCP connection, with its error. It returns false if
// the timer fired before the deadline: then the caller must call Read or Write again, without
// begin.
func (d *deadline) end(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if next := d.next(); errors.Is(err, os.ErrDeadlineExceeded) &&
		(next.IsZero() || time.Now().Before(next)) {
		_ = d.reset() // fails as in begin
		return false
	}
	d.active--
	return true
}

// next returns when the next Read or Write is to fail. Zero is never.
func (d *deadline) next() time.Time {
	if d.stall.IsZero() || !d.at.IsZero() && d.at.Before(d.stall) {
		return d.at
	}
	return d.stall
}

// update sets the timer, unless it is set early enough.
func (d *deadline) update() error {
	next := d.next()
	if next.IsZero() || !d.timer.IsZero() && !d.timer.After(next) {
		return nil
	}
	return d.reset()
}

// reset sets the timer to the deadline.
func (d *deadline) reset() error {
	d.timer = d.next()
	return d.setTimer(d.timer)
}
