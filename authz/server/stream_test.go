package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// Short limits, but longer than a goroutine waits for a processor on a busy machine, which can be a
// part of a second.
const (
	shortRequest = 1000 * time.Millisecond
	shortWrite   = 1500 * time.Millisecond
	shortTurn    = 1000 * time.Millisecond
	shortBytes   = 1024
)

// streaming starts a server with these limits whose private operation has a handler and extensions.
func streaming(
	t *testing.T, extensions map[string]any, handler http.HandlerFunc, configure func(*Config),
) *running {
	t.Helper()
	return start(t, func(c *Config) {
		c.RequestTimeout, c.WriteTimeout = shortRequest, shortWrite
		c.Progress = Progress{Bytes: shortBytes, Per: shortTurn}
		c.Document.Paths.Value(private.path).Get.Extensions = extensions
		// The other operations have no handler.
		item := c.Document.Paths.Value(private.path)
		c.Document.Paths = openapi3.NewPaths(openapi3.WithPath(private.path, item))
		c.Routes = func(g *authz.Gate) (http.Handler, error) {
			mux := g.Mux()
			mux.HandleFunc("GET "+private.path, handler)
			return mux, mux.CheckRoutes()
		}
		if configure != nil {
			configure(c)
		}
	})
}

// patient gives responses that end as much time as a busy machine needs.
func patient(c *Config) { c.WriteTimeout = watchdog }

// open sends a request on a connection with a small buffer, so that the server notices soon that
// the client does not read.
func (r *running) open(t *testing.T, id string, claims map[string]any, headers ...string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { setReadBuffer(fd, 4<<10) })
	}}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(watchdog))
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: %s\r\n"+
		"Authorization: Bearer %s\r\n%s\r\n", private.path, id, mint(r.issuer, claims),
		strings.Join(append(headers, ""), "\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// events starts a stream.
func events(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: begin\n\n")
	_ = http.NewResponseController(w).Flush()
}

// flood writes until an error, for which it waits at most as long as the watchdog.
func flood(w io.Writer) (err error) {
	block := make([]byte, 32<<10)
	for begun := time.Now(); err == nil; _, err = w.Write(block) {
		if time.Since(begun) > watchdog {
			return errors.New("never an error")
		}
	}
	return err
}

func TestClientsThatReadNothing(t *testing.T) {
	t.Parallel()
	endless := map[string]any{"x-authz-timeout": "none"}
	for name, row := range map[string]struct {
		contentType string
		least       time.Duration // before the client is cut off
		extensions  map[string]any
	}{
		"an ordinary response":             {"application/json", shortWrite, nil},
		"an ordinary response of any time": {"application/json", shortTurn, endless},
		"events":                           {"text/event-stream", shortTurn, nil},
		"bytes":                            {"application/octet-stream", shortTurn, nil},
		"a picture":                        {"image/png", shortTurn, endless},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := make(chan error, 1)
			r := streaming(t, row.extensions, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", row.contentType)
				failed <- flood(w)
			}, nil)
			begun := time.Now()
			conn := r.open(t, "slow", nil)
			if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the handler's Write fails with %v, want a deadline", err)
			}
			if took := time.Since(begun); took < row.least {
				t.Errorf("the client is cut off after %s, want at least %s", took, row.least)
			}
			entry := r.log.request(t, "slow")
			if entry["outcome"] != "cut" || entry["status"] != 0.0 || entry["cause"] == nil {
				t.Errorf("the log says %v, want outcome cut, and not the status of a success",
					entry)
			}
			// The buffer of the kernel is not sent at the client's pace.
			eventually(t, "the connection is reset", func() bool {
				_, err := conn.Write([]byte("x"))
				return err != nil
			})
		})
	}
}

// A client that receives slowly, but fast enough, is not disconnected, however much the kernel has
// to send.
func TestClientsThatReadLittle(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		bytes int // in a sixth of a turn
		cut   bool
	}{
		"enough":     {2000, false},
		"not enough": {30, true},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS != "linux" && !row.cut {
				t.Skip("what the client has acknowledged is not known on this system")
			}
			t.Parallel()
			failed := make(chan error, 1)
			r := streaming(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/octet-stream")
				failed <- flood(w)
			}, nil)
			conn := r.open(t, "little", nil)
			buffer := make([]byte, row.bytes)
			for begun := time.Now(); row.cut || time.Since(begun) < 4*shortTurn; {
				if _, err := io.ReadFull(conn, buffer); err != nil {
					break
				}
				select {
				case err := <-failed:
					if !row.cut {
						t.Fatalf("the client is cut off after %s: %v", time.Since(begun), err)
					}
					if !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("the handler's Write fails with %v", err)
					}
					return
				case <-time.After(shortTurn / 6):
				}
				if time.Since(begun) > watchdog {
					t.Fatal("the client is never cut off")
				}
			}
		})
	}
}

// A stream has no limit of its total time, and a silent handler is not a stall.
func TestSilentHandler(t *testing.T) {
	t.Parallel()
	done := make(chan error, 1)
	r := streaming(t, nil, func(w http.ResponseWriter, r *http.Request) {
		derived, cancel := context.WithCancel(r.Context()) // before the stream begins
		defer cancel()
		events(w)
		select {
		case <-derived.Done():
			done <- fmt.Errorf("the context ends: %w", derived.Err())
		case <-time.After(2 * shortWrite): // longer than all limits
			_, err := io.WriteString(w, "data: end\n\n")
			done <- err
		}
	}, nil)
	got := r.call(t, "X-Request-Id", "silent")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got.body != "data: begin\n\ndata: end\n\n" {
		t.Errorf("the client gets %q", got.body)
	}
	if entry := r.log.request(t, "silent"); entry["status"] != 200.0 ||
		entry["outcome"] != "succeeded" {
		t.Errorf("the log says %v", entry)
	}
	// The next response on the connection has the ordinary limits again.
	if got := r.call(t); got.status != http.StatusOK {
		t.Errorf("the next request is answered %d", got.status)
	}
	<-done
}

// Responses that do not stream have the ordinary limits.
func TestOrdinaryResponseEnds(t *testing.T) {
	done := make(chan error, 1)
	r := streaming(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		done <- r.Context().Err()
	}, nil)
	r.call(t)
	if err := <-done; err != context.DeadlineExceeded {
		t.Errorf("the context ends with %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	forever := func(w http.ResponseWriter, r *http.Request) {
		events(w)
		<-r.Context().Done()
	}
	soon := func() map[string]any {
		return map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()}
	}
	heedless := func(w http.ResponseWriter, r *http.Request) {
		events(w)
		for {
			if _, err := io.WriteString(w, "data: more\n\n"); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}
	for name, row := range map[string]struct {
		extensions map[string]any
		handler    http.HandlerFunc
		claims     func() map[string]any
		outcome    any
		whole      bool // the client gets a complete response
	}{
		"with the token": {nil, forever, soon, "ended", true},
		"with the token, whatever the handler writes": {nil, heedless, soon, "ended", true},
		"with the token, though the handler ignores it": {nil,
			func(w http.ResponseWriter, r *http.Request) {
				events(w)
				time.Sleep(4 * time.Second)
			}, soon, nil, false},
		"at the operation's time": {map[string]any{"x-authz-timeout": "1s"}, forever, nil, "ended", true},
		"not with the token": {map[string]any{"x-authz-outlives-token": true},
			func(w http.ResponseWriter, r *http.Request) {
				events(w)
				select {
				case <-r.Context().Done():
				case <-time.After(3 * time.Second):
					_, _ = io.WriteString(w, "data: outlives\n\n")
				}
			}, soon, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var configure func(*Config)
			if row.whole {
				configure = patient
			}
			r := streaming(t, row.extensions, row.handler, configure)
			var claims map[string]any
			if row.claims != nil {
				claims = row.claims()
			}
			conn := r.open(t, "stream", claims)
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if (err == nil) != row.whole {
				t.Errorf("the client reads to %v, want the response whole: %v", err, row.whole)
			}
			if row.extensions["x-authz-outlives-token"] == true &&
				!strings.Contains(string(body), "outlives") {
				t.Errorf("the stream ends with the token: %q", body)
			}
			entry := r.log.request(t, "stream")
			if row.outcome != nil && entry["outcome"] != row.outcome {
				t.Errorf("the log says %v, want outcome %v", entry, row.outcome)
			}
		})
	}
}

func TestHijackedConnections(t *testing.T) {
	t.Parallel()
	hijack := func(w http.ResponseWriter) net.Conn {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n"+
			"Connection: Upgrade\r\n\r\n")
		return conn
	}
	upgrade := []string{"Connection: Upgrade", "Upgrade: echo"}
	t.Run("end with the token, also after the handler", func(t *testing.T) {
		t.Parallel()
		r := streaming(t, nil, func(w http.ResponseWriter, _ *http.Request) { hijack(w) }, nil)
		exp := time.Now().Add(2 * time.Second).Truncate(time.Second)
		conn := r.open(t, "hijacked", map[string]any{"exp": exp.Unix()}, upgrade...)
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if now := time.Now(); now.Before(exp) {
			t.Errorf("the connection ends %s before the token", exp.Sub(now))
		}
		if entry := r.log.request(t, "hijacked"); entry["status"] != 101.0 {
			t.Errorf("the log says %v", entry)
		}
	})
	t.Run("end with the token behind another listener", func(t *testing.T) {
		t.Parallel()
		r := streaming(t, nil, func(w http.ResponseWriter, _ *http.Request) { hijack(w) }, nil)
		other := httptest.NewServer(r.server)
		defer other.Close()
		r.url = other.URL
		exp := time.Now().Add(2 * time.Second).Truncate(time.Second)
		conn := r.open(t, "hijacked", map[string]any{"exp": exp.Unix()}, upgrade...)
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if now := time.Now(); now.Before(exp) {
			t.Errorf("the connection ends %s before the token", exp.Sub(now))
		}
	})
	t.Run("need progress", func(t *testing.T) {
		t.Parallel()
		failed := make(chan error, 1)
		r := streaming(t, map[string]any{"x-authz-outlives-token": true},
			func(w http.ResponseWriter, _ *http.Request) { failed <- flood(hijack(w)) }, nil)
		r.open(t, "hijacked", nil, upgrade...)
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the handler's Write fails with %v, want a deadline", err)
		}
		if entry := r.log.request(t, "hijacked"); entry["outcome"] != "cut" {
			t.Errorf("the log says %v", entry)
		}
	})
	t.Run("have no other limit", func(t *testing.T) {
		t.Parallel()
		r := streaming(t, nil, func(w http.ResponseWriter, r *http.Request) {
			conn := hijack(w)
			defer conn.Close()
			select {
			case <-r.Context().Done():
			case <-time.After(2 * shortWrite):
				_, _ = io.WriteString(conn, "late")
			}
		}, nil)
		if got, err := io.ReadAll(r.open(t, "hijacked", nil, upgrade...)); err != nil ||
			!strings.HasSuffix(string(got), "late") {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A server that stops ends its streams, instead of waiting for them.
func TestStreamsEndWithTheServer(t *testing.T) {
	begun := make(chan bool)
	r := streaming(t, nil, func(w http.ResponseWriter, r *http.Request) {
		events(w)
		close(begun)
		<-r.Context().Done()
	}, patient)
	conn := r.open(t, "stream", nil)
	<-begun
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("the server ends with %v", err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("the client reads to %v", err)
	}
}

// The limits apply over TLS too, and with HTTP/2 to each response.
func TestStreamsOverTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the time limits of many streams")
	}
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		// ask sends a request. The client has large buffers. It tries again if the handler is not
		// called, because on a busy machine a handshake can last longer than the limits allow.
		ask := func(
			t *testing.T, extensions, claims map[string]any, handler http.HandlerFunc,
		) (*running, *http.Response) {
			t.Helper()
			var called atomic.Bool
			r := streaming(t, extensions, func(w http.ResponseWriter, r *http.Request) {
				called.Store(true)
				handler(w, r)
			}, func(c *Config) {
				c.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t, 1)}}
				if claims != nil { // the token expires
					patient(c)
				}
			})
			transport := &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2,
			}
			t.Cleanup(transport.CloseIdleConnections)
			url := strings.Replace(r.url, "http:", "https:", 1) + private.path
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Authorization", "Bearer "+mint(r.issuer, claims))
			request.Header.Set("X-Request-Id", "secure")
			response, err := transport.RoundTrip(request)
			for tries := 1; err != nil && !called.Load() && tries < 50; tries++ {
				response, err = transport.RoundTrip(request)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = response.Body.Close() })
			if want := map[bool]int{false: 1, true: 2}[http2]; response.ProtoMajor != want {
				t.Fatalf("the response is of %s", response.Proto)
			}
			return r, response
		}
		prefix := map[bool]string{false: "HTTP 1 ", true: "HTTP 2 "}[http2]
		for contentType, extensions := range map[string]map[string]any{
			"application/octet-stream": nil,
			"application/json":         nil,
			"text/plain":               {"x-authz-timeout": "none"},
		} {
			t.Run(prefix+"a client that reads nothing of "+contentType, func(t *testing.T) {
				t.Parallel()
				failed := make(chan error, 1)
				r, _ := ask(t, extensions, nil, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", contentType)
					failed <- flood(w)
				})
				if err := <-failed; err == nil {
					t.Error("the handler's Write never fails")
				}
				if entry := r.log.request(t, "secure"); entry["outcome"] != "cut" {
					t.Errorf("the log says %v", entry)
				}
			})
		}
		t.Run(prefix+"a client that reads enough", func(t *testing.T) {
			if runtime.GOOS != "linux" {
				t.Skip("what the client has acknowledged is not known on this system")
			}
			t.Parallel()
			failed := make(chan error, 1)
			_, response := ask(t, nil, nil, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/octet-stream")
				failed <- flood(w)
			})
			buffer := make([]byte, 16<<10)
			for begun := time.Now(); time.Since(begun) < 4*shortTurn; {
				if _, err := io.ReadFull(response.Body, buffer); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-failed:
					t.Fatalf("the client is cut off after %s: %v", time.Since(begun), err)
				case <-time.After(shortTurn / 10):
				}
			}
		})
		t.Run(prefix+"a silent handler", func(t *testing.T) {
			t.Parallel()
			_, response := ask(t, nil, nil, func(w http.ResponseWriter, r *http.Request) {
				events(w)
				select {
				case <-r.Context().Done():
				case <-time.After(2 * shortWrite):
					_, _ = io.WriteString(w, "data: end\n\n")
				}
			})
			got, err := io.ReadAll(response.Body)
			if err != nil || !strings.HasSuffix(string(got), "data: end\n\n") {
				t.Errorf("the client gets %q, %v", got, err)
			}
		})
		t.Run(prefix+"the end of the token", func(t *testing.T) {
			t.Parallel()
			exp := time.Now().Add(2 * time.Second).Truncate(time.Second)
			r, response := ask(t, nil, map[string]any{"exp": exp.Unix()},
				func(w http.ResponseWriter, r *http.Request) {
					events(w)
					<-r.Context().Done()
				})
			if _, err := io.ReadAll(response.Body); err != nil || time.Now().Before(exp) {
				t.Errorf("the stream ends at %s, %v, want %s", time.Now(), err, exp)
			}
			if entry := r.log.request(t, "secure"); entry["outcome"] != "ended" {
				t.Errorf("the log says %v", entry)
			}
		})
	}
}

func TestIsStream(t *testing.T) {
	for contentType, want := range map[string]bool{
		"":                                   false,
		"nonsense":                           false,
		"application/json":                   false,
		"application/problem+json":           false,
		"Application/JSON; charset=utf-8":    false,
		"application/atom+xml":               false,
		"application/yaml":                   false,
		"text/plain":                         false,
		"text/csv":                           false,
		"text/event-stream":                  true,
		"Text/Event-Stream; charset=utf-8":   true,
		"application/octet-stream":           true,
		"application/x-ndjson":               true,
		"application/pdf":                    true,
		"image/png":                          true,
		"image/svg+xml":                      false,
		"video/mp4":                          true,
		"multipart/x-mixed-replace; b=\"x\"": true,
	} {
		if got := isStream([]string{contentType}); got != want {
			t.Errorf("%q is a stream: %v, want %v", contentType, got, want)
		}
	}
}

func TestFaultsOfTheLimits(t *testing.T) {
	for name, row := range map[string]struct {
		config Config
		fault  string
	}{
		"negative": {Config{RequestTimeout: -2}, "Config.RequestTimeout"},
		"write before request": {
			Config{RequestTimeout: time.Minute, WriteTimeout: time.Minute}, "Config.WriteTimeout",
		},
		"write and no request": {
			Config{RequestTimeout: authz.NoTimeout, WriteTimeout: time.Minute},
			"Config.WriteTimeout",
		},
		"half a progress": {Config{Progress: Progress{Bytes: 1}}, "Config.Progress"},
		"none at all": {
			Config{RequestTimeout: authz.NoTimeout, WriteTimeout: authz.NoTimeout}, "",
		},
		"only no write": {Config{WriteTimeout: authz.NoTimeout}, ""},
		"nothing said":  {Config{}, ""},
	} {
		_, faults := readLimits(row.config)
		if err := errors.Join(faults...); row.fault == "" && err != nil ||
			row.fault != "" && (err == nil || !strings.Contains(err.Error(), row.fault)) {
			t.Errorf("%s: %v, want a fault of %q", name, err, row.fault)
		}
	}
}

// TestStreamsOverUnixSockets: they end with the token too, whatever the timeout of the operation.
func TestStreamsOverUnixSockets(t *testing.T) {
	for _, timeout := range []string{"none", "1h"} {
		t.Run(timeout, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			r := streaming(t, map[string]any{"x-authz-timeout": timeout},
				func(w http.ResponseWriter, r *http.Request) {
					events(w)
					select {
					case <-r.Context().Done():
						_, err := io.WriteString(w, "data: late\n\n")
						ended <- err
					case <-time.After(watchdog):
						ended <- nil
					}
				}, patient)
			path := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = r.server.Serve(ctx, listener) }()
			defer func() { stop(); <-done }()
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			soon := map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()}
			_, _ = fmt.Fprintf(conn,
				"GET %s HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: stream\r\n"+
					"Authorization: Bearer %s\r\n\r\n", private.path, mint(r.issuer, soon))
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.ReadAll(response.Body); err != nil {
				t.Error(err)
			}
			if err := <-ended; !errors.Is(err, errStreamOver) {
				t.Errorf("a write after the token's end: %v", err)
			}
			if entry := r.log.request(t, "stream"); entry["outcome"] != "ended" {
				t.Errorf("the log says %v, want outcome ended", entry)
			}
		})
	}
}
