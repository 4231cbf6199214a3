package server

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestSilentConnections: if silent connections exhaust the limit, others wait at most until the
// header timeout. Idle connections are closed first. Afterwards, connections are kept alive again.
func TestSilentConnections(t *testing.T) {
	t.Parallel()
	r := start(t, func(c *Config) { c.MaxConnections = 8 })
	addr := strings.TrimPrefix(r.url, "http://")
	var silent []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	for n, conn := range silent[:4] { // some of them are idle after a request
		_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatalf("connection %d has no response: %v", n, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := client.Get(r.url + "/healthz")
	if err != nil {
		t.Fatalf("cannot connect: %v", err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("status %d", response.StatusCode)
	}
	// The server can be reached again.
	stats := r.server.Stats().Connections
	if stats.Open < 1 || stats.Open > 8 || stats.Max != 8 {
		t.Errorf("%d of %d connections are open, want 1 to 8 of 8", stats.Open, stats.Max)
	}
	if n := strings.Count(r.log.String(), "no further connections"); n == 0 || n > 3 {
		t.Errorf("the log says %d times that the limit is reached, want 1 to 3:\n%s", n, r.log)
	}
	for _, conn := range silent {
		conn.Close()
	}
	eventually(t, "the log has each time when the limit was reached", func() bool {
		n := strings.Count(r.log.String(), "no further connections")
		return uint64(n) == r.server.Stats().Connections.Filled
	})
	eventually(t, "connections are kept again", func() bool {
		response, err := client.Get(r.url + "/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return !response.Close
	})
}

func TestDefaultConnections(t *testing.T) {
	if files, n := fileLimit(), defaultConnections(); files > 0 && (n <= 0 || n >= files) {
		t.Errorf("%d connections of %d files", n, files)
	}
}
