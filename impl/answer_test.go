package impl

import (
	"net/http"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
)

// An answer that is only begun, as that of an event stream that has nothing to say yet, is one.
func TestFlushedAnswer(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		return http.NewResponseController(c.Response()).Flush() // the head of an answer, an event stream that has nothing to say yet
	}, nil)
	token := mint(s.issuer, map[string]any{"scope": scopes(private.Operation)})
	got := s.ask(t, private.Method, private.path(t), "Authorization", "Bearer "+token)
	if got.body != "" {
		t.Errorf("an answer of status %d that was complete has got a body: %s", got.status, got.body)
	}
}

func TestHijackedAnswer(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		conn, _, err := http.NewResponseController(c.Response()).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"))
		return err
	}, nil)
	s.call(t)
	if strings.Contains(s.log.String(), "neither an answer nor an error") {
		t.Error("a hijacked connection that was answered is logged as a 500")
	}
}

// Of the 1xx one alone is an answer, and the last one (RFC 9110 §15.2).
func TestSwitchedProtocols(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		w := c.Response().Writer
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusSwitchingProtocols)
		return nil
	}, nil)
	if got := s.call(t, "X-Request-Id", "switched"); got.status != http.StatusSwitchingProtocols {
		t.Errorf("status is %d, expected 101", got.status)
	}
	if status := s.log.request(t, "switched")["status"]; status != float64(http.StatusSwitchingProtocols) {
		t.Errorf("status %v is logged, expected 101", status)
	}
	if strings.Contains(s.log.String(), "neither an answer nor an error") {
		t.Error("an answer of status 101 is taken for none")
	}
}
