package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz/token"
)

// An answer that is only begun, as that of an event stream that has nothing to say yet, is one.
func TestFlushedAnswer(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		return http.NewResponseController(c.Response()).Flush() // the head of an answer, an event stream that has nothing to say yet
	}, nil)
	token := mint(s.issuer, map[string]any{"scope": ""})
	got := s.ask(t, "GET", private.path, "Authorization", "Bearer "+token)
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

// Of the 1xx, 101 alone ends the answer, as net/http has it: what follows is of another protocol
// (RFC 9110 §15.2.2).
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

// A request that a handler makes within its own, through all of the server, is its own sender's,
// also once somebody waits.
func TestRequestWithinARequest(t *testing.T) {
	var s *running
	s = startAnswering(t, func(c echo.Context) error {
		ctx := c.Request().Context()
		if c.Request().Header.Get("X-Inner") == "" {
			r := httptest.NewRequestWithContext(ctx, "GET", private.path, nil)
			r.Header.Set("Authorization", "Bearer "+mint(s.issuer, map[string]any{"sub": "inner", "scope": ""}))
			r.Header.Set("X-Inner", "1")
			w := httptest.NewRecorder()
			s.server.ServeHTTP(w, r)
			outer, _ := token.FromContext(ctx)
			return c.String(w.Code, w.Body.String()+", then "+outer.Subject())
		}
		before, _ := token.FromContext(ctx)
		ctx.Done() // as every query of a database does
		after, _ := token.FromContext(ctx)
		return c.String(http.StatusOK, before.Subject()+", "+after.Subject())
	}, nil)
	got := s.ask(t, "GET", private.path, "Authorization", "Bearer "+mint(s.issuer, map[string]any{"sub": "outer", "scope": ""}))
	if got.status != http.StatusOK || got.body != "inner, inner, then outer" {
		t.Errorf("%d %s, expected the principals: inner, inner, then outer", got.status, got.body)
	}
}
