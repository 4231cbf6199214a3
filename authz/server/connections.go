package server

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// reservedFiles is how many of the files that the process can have open connections leave to the
// rest of it, such as its database. It is half of them if they are few.
const reservedFiles = 128

// defaultConnections returns the default of Config.MaxConnections.
func defaultConnections() int {
	files := fileLimit()
	return files - min(reservedFiles, files/2)
}

// connections is a listener that limits how many connections are open. Further ones wait until
// others are closed. Meanwhile, it closes idle ones, and those that have just sent a response. A
// connection that a handler has taken over no longer counts.
type connections struct {
	net.Listener
	server *http.Server
	full   func()        // called when the limit is reached
	slots  chan struct{} // nil: no limit
	closed chan struct{}
	close  sync.Once
	lean   atomic.Bool // connections are not kept alive
}

func newConnections(
	listener net.Listener, server *http.Server, limit int, full func(),
) *connections {
	c := &connections{
		Listener: listener, server: server, full: full, closed: make(chan struct{}),
	}
	if limit > 0 {
		c.slots = make(chan struct{}, limit)
	}
	return c
}

// Accept implements [net.Listener].
func (c *connections) Accept() (net.Conn, error) {
	if c.slots == nil {
		return c.Listener.Accept()
	}
	select {
	case c.slots <- struct{}{}:
	default:
		if c.lean.CompareAndSwap(false, true) {
			c.full()
		}
		c.server.SetKeepAlivesEnabled(false)
		select {
		case c.slots <- struct{}{}:
		case <-c.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := c.Listener.Accept()
	if err != nil {
		c.release()
	}
	return conn, err
}

// Close implements [net.Listener].
func (c *connections) Close() error {
	c.close.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// ended is called when a connection changes its state.
func (c *connections) ended(state http.ConnState) {
	if c.slots != nil && (state == http.StateClosed || state == http.StateHijacked) {
		c.release()
	}
}

func (c *connections) release() {
	<-c.slots
	if c.lean.Load() && len(c.slots) < cap(c.slots)*3/4 && c.lean.CompareAndSwap(true, false) {
		c.server.SetKeepAlivesEnabled(true)
	}
}
