package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz/token"
)

// A flushed response without a body, as of an event stream without events, is a response.
func TestFlushedAnswer(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		return http.NewResponseController(c.Response()).
			Flush()
		// only the headers
	}, nil)
	token := mint(s.issuer, map[string]any{"scope": ""})
	got := s.ask(t, "GET", private.path, "Authorization", "Bearer "+token)
	if got.body != "" {
		t.Errorf("a response of status %d that was complete has a body: %s", got.status,
			got.body)
	}
}

func TestHijackedAnswer(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		conn, _, err := http.NewResponseController(c.Response()).Hijack()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(
			[]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"))
		return err
	}, nil)
	s.call(t)
	if strings.Contains(s.log.String(), "neither a response nor an error") {
		t.Error("a response on a hijacked connection is logged as a 500")
	}
}

// Of the 1xx responses, only 101 is final (RFC 9110 §15.2.2).
func TestSwitchedProtocols(t *testing.T) {
	s := startAnswering(t, func(c echo.Context) error {
		w := c.Response().Writer
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusSwitchingProtocols)
		return nil
	}, nil)
	if got := s.call(t, "X-Request-Id", "switched"); got.status != http.StatusSwitchingProtocols {
		t.Errorf("status is %d, want 101", got.status)
	}
	if status := s.log.request(t, "switched")["status"]; status != float64(
		http.StatusSwitchingProtocols) {
		t.Errorf("status %v is logged, want 101", status)
	}
	if strings.Contains(s.log.String(), "neither a response nor an error") {
		t.Error("a response of status 101 counts as none")
	}
}

// A request that a handler sends through the server has its own principal, even if the context is
// used again.
func TestNestedRequest(t *testing.T) {
	var s *running
	s = startAnswering(t, func(c echo.Context) error {
		ctx := c.Request().Context()
		if c.Request().Header.Get("X-Inner") == "" {
			r := httptest.NewRequestWithContext(ctx, "GET", private.path, nil)
			r.Header.Set("Authorization",
				"Bearer "+mint(s.issuer, map[string]any{"sub": "inner", "scope": ""}))
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
	got := s.ask(t, "GET", private.path, "Authorization",
		"Bearer "+mint(s.issuer, map[string]any{"sub": "outer", "scope": ""}))
	if got.status != http.StatusOK || got.body != "inner, inner, then outer" {
		t.Errorf("%d %s, want the principals: inner, inner, then outer", got.status, got.body)
	}
}

// deadlines is a ResponseWriter that records the deadlines of its connection.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write *time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = &t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = &t; return nil }

// x-authz-timeout replaces the limit of the server, for the handler and for the connection.
func TestTimeoutOfOperation(t *testing.T) {
	for _, row := range []struct {
		extension string
		limit     time.Duration // of the handler; 0: none
		extended  bool          // the deadlines of the connection are set anew
	}{
		{"", requestTimeout, false},
		{"5s", 5 * time.Second, true},
		{"2m", 2 * time.Minute, true},
		{"none", 0, true},
	} {
		var deadline time.Time
		var has bool
		s := startAnswering(t, func(c echo.Context) error {
			deadline, has = c.Request().Context().Deadline()
			return c.NoContent(http.StatusNoContent)
		}, func(config *Config) {
			if row.extension != "" {
				spec := config.Document.Paths.Value(public.path).Get
				spec.Extensions = map[string]any{"x-authz-timeout": row.extension}
			}
		})
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		before := time.Now()
		s.server.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+public.path, nil))
		if w.Code != http.StatusNoContent {
			t.Fatalf("%q: status is %d", row.extension, w.Code)
		}
		if has != (row.limit > 0) || has && (deadline.Before(before.Add(row.limit)) ||
			deadline.After(time.Now().Add(row.limit))) {
			t.Errorf("%q: the handler's deadline is in %s, %v; want %s", row.extension,
				deadline.Sub(before), has, row.limit)
		}
		if (w.read != nil) != row.extended || (w.write != nil) != row.extended {
			t.Fatalf("%q: deadlines of the connection are %v and %v, want them set: %v",
				row.extension, w.read, w.write, row.extended)
		}
		if row.extended && (w.read.IsZero() != (row.limit == 0) ||
			w.write.IsZero() != (row.limit == 0) || row.limit > 0 && !w.write.After(deadline)) {
			t.Errorf("%q: deadlines of the connection are %v and %v, the handler's %v",
				row.extension, w.read, w.write, deadline)
		}
	}
}
