package server

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// reservedFiles is the number of file descriptors that are not used for connections, but left to
// the rest of the process, such as its database. If the limit is low, half of it is reserved.
const reservedFiles = 128

// defaultConnections returns the default of Config.MaxConnections.
func defaultConnections() int {
	files := fileLimit()
	return files - min(reservedFiles, files/2)
}

// connections limits how many connections are open. Further ones wait until others are closed.
// Meanwhile, idle connections are closed, and those that have just sent a response. A connection
// that a handler has taken over no longer counts.
type connections struct {
	server *http.Server
	full   func()        // called when the limit is reached
	slots  chan struct{} // nil: no limit
	lean   atomic.Bool   // connections are not kept alive
	open   atomic.Int64
	filled atomic.Uint64 // how often the limit was reached
}

func newConnections(server *http.Server, limit int, full func()) *connections {
	c := &connections{server: server, full: full}
	if limit > 0 {
		c.slots = make(chan struct{}, limit)
	}
	return c
}

// changed is called when a connection changes its state.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	resetConn(conn, state)
	switch state {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
		if c.slots != nil {
			c.release()
		}
	}
}

// stats returns the state of the connections.
func (c *connections) stats() Connections {
	return Connections{Open: c.open.Load(), Max: cap(c.slots), Filled: c.filled.Load()}
}

func (c *connections) release() {
	<-c.slots
	if c.lean.Load() && len(c.slots) < cap(c.slots)*3/4 && c.lean.CompareAndSwap(true, false) {
		c.server.SetKeepAlivesEnabled(true)
	}
}

// limitedListener accepts connections up to a limit.
type limitedListener struct {
	net.Listener
	connections *connections
	closed      chan struct{}
	close       sync.Once
}

func (c *connections) listener(l net.Listener) *limitedListener {
	return &limitedListener{Listener: l, connections: c, closed: make(chan struct{})}
}

// Accept implements [net.Listener].
func (l *limitedListener) Accept() (net.Conn, error) {
	c := l.connections
	if c.slots == nil {
		return l.Listener.Accept()
	}
	select {
	case c.slots <- struct{}{}:
	default:
		if c.lean.CompareAndSwap(false, true) {
			c.filled.Add(1)
			c.full()
		}
		c.server.SetKeepAlivesEnabled(false)
		select {
		case c.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		c.release()
	}
	return conn, err
}

// Close implements [net.Listener].
func (l *limitedListener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
