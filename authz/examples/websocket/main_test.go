package main

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/oasgate/oasgate/authz/examples/internal/exampletest"
	"github.com/oasgate/oasgate/authz/token"
)

const (
	audience = "https://echo.example"
	session  = "a-session-of-alice"
	watchdog = time.Minute
)

// startServer returns the URL of the API and a function that issues tokens.
func startServer(t *testing.T) (url string, mint func(map[string]any) string) {
	t.Helper()
	document, issuer := exampletest.Start(t, "openapi.yaml", audience)
	s, err := newServer(document, session, token.Issuer{
		URL: issuer.URL(), Audiences: []string{audience},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String() + "/echo", issuer.Mint
}

func TestUpgrade(t *testing.T) {
	url, mint := startServer(t)
	bearer := "Bearer " + mint(map[string]any{"sub": "alice", "scope": "echo"})
	other := "Bearer " + mint(map[string]any{"sub": "alice", "scope": "other"})
	for _, row := range []struct {
		name                        string
		authorization, cookie, from string // from is the origin of the page
		status                      int
	}{
		{"nothing", "", "", "", 401},
		{"a token", bearer, "", "", 101},
		{"a token without the scope", other, "", "", 403},
		{"a forged token", bearer + "x", "", "", 401},
		{"a token, from any page", bearer, "", "https://evil.example", 101},
		{"a session", "", session, "", 101},
		{"a session, from a listed page", "", session, "https://app.example", 101},
		{"a session, from another page", "", session, "https://evil.example", 403},
		{"another session", "", "x", "https://app.example", 401},
	} {
		t.Run(row.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), watchdog)
			defer cancel()
			header := http.Header{}
			for name, value := range map[string]string{
				"Authorization": row.authorization, "Origin": row.from,
			} {
				if value != "" {
					header.Set(name, value)
				}
			}
			if row.cookie != "" {
				header.Set("Cookie", "session="+row.cookie)
			}
			options := &websocket.DialOptions{HTTPHeader: header}
			conn, response, err := websocket.Dial(ctx, url, options)
			if response == nil || response.StatusCode != row.status {
				t.Fatalf("%v, %v, want status %d", response, err, row.status)
			}
			if row.status != http.StatusSwitchingProtocols {
				if got := response.Header.Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("refused with a body of %s", got)
				}
				return
			}
			defer conn.CloseNow()
			if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, got, err := conn.Read(ctx); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v comes back", got, err)
			}
			if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUpgradeEndsWithTheToken(t *testing.T) {
	url, mint := startServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), watchdog)
	defer cancel()
	exp := time.Now().Add(2 * time.Second).Truncate(time.Second)
	header := http.Header{"Authorization": {"Bearer " + mint(map[string]any{
		"sub": "alice", "scope": "echo", "exp": exp.Unix(),
	})}}
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	_, _, err = conn.Read(ctx)
	if ctx.Err() != nil || err == nil {
		t.Errorf("the connection is still open: %v", err)
	}
	if now := time.Now(); now.Before(exp) {
		t.Errorf("the connection ends %s before the token", exp.Sub(now))
	}
}
