// Package lazyconn is a listener whose connections set few timers.
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

// Listener accepts connections that do later, or not at all, what is mostly wasted: deadlines, and
// asking for a request before the client can have sent it.
//
// net/http sets eight deadlines for every request, and hardly any of them comes to pass: by the
// next one, a few microseconds later, it is forgotten. Each goes through the poller to a timer of
// the runtime, which together costs a twentieth of a small request. These connections remember the
// deadlines instead, and see to it that whoever waits is woken in time: a timer that is set already
// serves a later deadline too. It goes off too early then, is set anew, and the waiting goes on. A
// connection in steady use sets one every now and then, not several for each request.
//
// Who looks at the connection sees no difference: every deadline is kept as exactly as before, but
// for the turn that a Read may give to others.
type Listener struct{ net.Listener }

func (l Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if tcp, ok := accepted.(*net.TCPConn); ok {
		return newConn(tcp), nil
	}
	return accepted, err
}

// conn is a TCP connection whose deadlines are lazy. It does not have ReadFrom, with which net/http
// copies files to a bare one without reading them itself, for that could not go on after a timer
// went off early; nothing here answers that way.
type conn struct {
	net.Conn    // beneath
	read, write deadline
	writing     sync.Mutex    // one Write at a time, as beneath: each may take several there
	written     atomic.Bool   // since the last Read
	turns       atomic.Uint32 // answers after which it could give way
}

func newConn(tcp *net.TCPConn) *conn {
	return &conn{
		Conn:  tcp,
		read:  deadline{arm: tcp.SetReadDeadline},
		write: deadline{arm: tcp.SetWriteDeadline},
	}
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.read.enter(); err != nil {
		return 0, err
	}
	c.giveWay()
	for {
		n, err := c.Conn.Read(p)
		if c.read.leave(err) {
			return n, err
		}
	}
}

// giveWay has the other connections go first once an answer is written. The client has hardly ever
// sent its next request yet: to ask for it at once is a call of the system in vain, and to wait for
// it several more, together a twentieth of a small request; when the others have been served it has
// often come. Under little load there are no others, and nothing changes.
//
// It does so every other time only. While there is always a connection that need not wait, the
// runtime does not look at those that do, for up to 10 ms; so each asks in vain now and then, and
// waits.
func (c *conn) giveWay() {
	if c.written.Load() && c.written.Swap(false) && c.turns.Add(1)%2 == 1 {
		runtime.Gosched()
	}
}

func (c *conn) Write(p []byte) (written int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.write.enter(); err != nil {
		return 0, err
	}
	for {
		n, err := c.Conn.Write(p[written:])
		written += n
		c.written.Store(true)
		if c.write.leave(err) {
			return written, err
		}
	}
}

// CloseWrite is what net/http hangs up with on who is still sending, so that the answer gets there.
func (c *conn) CloseWrite() error {
	return c.Conn.(*net.TCPConn).CloseWrite()
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.read.set(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.write.set(t) }
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.read.set(t), c.write.set(t))
}

// deadline is the deadline of one direction. While anybody is inside, in a Read or Write of the
// connection beneath, what is armed there comes no later than what is asked for; while nobody is,
// it does not matter. That it comes too early is found out when it does: to look at the clock
// before would be the dearest part of this.
type deadline struct {
	arm func(time.Time) error // the connection beneath

	mu     sync.Mutex
	asked  time.Time // zero: none, as everywhere
	armed  time.Time
	inside int
}

// set does without defer, as most calls are of it.
func (d *deadline) set(t time.Time) (err error) {
	d.mu.Lock()
	d.asked = t
	if d.inside > 0 { // otherwise enter will see it
		err = d.settle()
	}
	d.mu.Unlock()
	return err
}

// calledBack is before any deadline that is meant as a time. net/http calls its own reader back by
// one in the distant past.
var calledBack = time.Unix(1e9, 0)

// enter comes before every Read or Write beneath. If it returns an error there must be none: that
// net/http calls its reader back, as it does in every request, is mostly found here, and costs
// nothing.
func (d *deadline) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.asked.IsZero() && d.asked.Before(calledBack) {
		return os.ErrDeadlineExceeded
	}
	_ = d.settle() // fails on a closed connection alone, and that the Read or Write will say
	d.inside++
	return nil
}

// leave comes after every Read or Write beneath, with its error. It returns false if that is only
// that the deadline armed has passed, before the one asked for: the caller is to go on then, and is
// still inside.
func (d *deadline) leave(err error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, os.ErrDeadlineExceeded) && (d.asked.IsZero() || time.Now().Before(d.asked)) {
		_ = d.rearm() // as in enter
		return false
	}
	d.inside--
	return true
}

// settle leaves what is armed if it comes in time.
func (d *deadline) settle() error {
	if d.asked.IsZero() || !d.armed.IsZero() && !d.armed.After(d.asked) {
		return nil
	}
	return d.rearm()
}

func (d *deadline) rearm() error {
	d.armed = d.asked
	return d.arm(d.asked)
}
