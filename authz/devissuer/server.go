package devissuer

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is an issuer that listens on a loopback port.
type Server struct {
	*Issuer
	addr string

	mu   sync.Mutex // protects stop
	stop func()     // nil while stopped
}

// Start makes an issuer and serves it at its URL. Port 0 means a free port, which is then part of
// the issuer's URL; an empty cfg.URL means http://127.0.0.1:0/.
func Start(cfg Config) (*Server, error) {
	cfg.URL = cmp.Or(cfg.URL, "http://127.0.0.1:0/")
	u, err := parseURL(cfg.URL) // before listening, so that it is a loopback address
	if err != nil {
		_, err = New(cfg) // includes the other faults
		return nil, err
	}
	if u.Scheme != "http" {
		return nil, fmt.Errorf("devissuer: URL is %q: Start serves http only", cfg.URL)
	}
	listener, err := net.Listen("tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("devissuer: %w", err)
	}
	if u.Port() == "0" {
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		u.Host = net.JoinHostPort(u.Hostname(), port)
		cfg.URL = u.String()
	}
	issuer, err := New(cfg)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{Issuer: issuer, addr: listener.Addr().String()}
	s.serve(listener)
	return s, nil
}

// Stop closes the port and every connection, to simulate an outage.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Restart listens again on the same port, with the same keys. It does nothing on a running server.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		return nil
	}
	listener, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("devissuer: %w", err)
	}
	s.serve(listener)
	return nil
}

// Close is Stop.
func (s *Server) Close() { s.Stop() }

// serve sets s.stop, which returns once no connections are accepted. Closing a connection cancels
// its requests, and so ends the delay of a Fault.
func (s *Server) serve(listener net.Listener) {
	server := &http.Server{Handler: s.Issuer, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(listener) // always returns an error
	}()
	s.stop = func() {
		server.Close()
		<-served
	}
}
