package lazyconn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// timeouts of a test's server. The deadlines of one request are set in this order, and each is
// later than the one before.
type timeouts struct{ header, read, write, idle time.Duration }

var testTimeouts = timeouts{
	header: 300 * time.Millisecond, read: 600 * time.Millisecond,
	write: 900 * time.Millisecond, idle: 1200 * time.Millisecond,
}

// watchdog ends a test that hangs, on the slowest machine.
const watchdog = 2 * time.Minute

// only returns the timeouts up to the one that is due. The others are longer than the watchdog, so
// that a client that is disconnected was disconnected by the one that is due.
func (t timeouts) only(due time.Duration) timeouts {
	for _, other := range []*time.Duration{&t.header, &t.read, &t.write, &t.idle} {
		if *other > due {
			*other = time.Hour
		}
	}
	return t
}

// listeners must not be distinguishable.
var listeners = map[string]func(net.Listener) net.Listener{
	"plain": func(l net.Listener) net.Listener { return l },
	"lazy":  func(l net.Listener) net.Listener { return Listener{l} },
}

// serveTest returns the address of a server.
func serveTest(
	t testing.TB, listen func(net.Listener) net.Listener, at timeouts, handler http.HandlerFunc,
) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: at.header, ReadTimeout: at.read, WriteTimeout: at.write,
		IdleTimeout: at.idle,
	}
	go func() { _ = server.Serve(listen(listener)) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}

func dialTest(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// ask sends a small request on a connection that stays open.
func ask(t testing.TB, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, answer.Body); err != nil ||
		answer.StatusCode != http.StatusOK {
		t.Fatalf("answer is %s, %v, want 200", answer.Status, err)
	}
}

// Each kind of slow client is disconnected by its own timeout, and not earlier than by net/http
// without lazy deadlines, even on a connection with pending timers of earlier requests.
func TestSlowClients(t *testing.T) {
	// drip sends byte after byte until the connection is closed under it.
	drip := func(conn net.Conn, what string) {
		for i := 0; ; i++ {
			if _, err := conn.Write([]byte{what[min(i, len(what)-1)]}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, client := range map[string]struct {
		after time.Duration
		play  func(conn *net.TCPConn)
	}{
		"sends its headers slowly": {testTimeouts.header, func(conn *net.TCPConn) {
			drip(conn, "GET / HTTP/1.1\r\nA: aaaaaaaa")
		}},
		"sends its body slowly": {testTimeouts.read, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn,
				"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
			drip(conn, "b")
		}},
		"reads nothing of a large answer": {testTimeouts.write, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
			time.Sleep(testTimeouts.write) // followed by the bytes that were buffered
		}},
		"reads a large answer slowly": {testTimeouts.write, func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
			for begun := time.Now(); time.Since(begun) < testTimeouts.write; time.Sleep(
				10 * time.Millisecond) {
				_, _ = conn.Read(make([]byte, 1<<10))
			}
		}},
	} {
		for kind, listen := range listeners {
			for _, before := range []int{0, 3} {
				t.Run(
					fmt.Sprintf("%s/%s/after %d requests", name, kind, before),
					func(t *testing.T) {
						t.Parallel()
						cut := make(chan time.Time, 1) // when the handler learns of it, if it does
						addr := serveTest(
							t,
							listen,
							testTimeouts.only(client.after),
							func(w http.ResponseWriter, r *http.Request) {
								_, err := io.Copy(io.Discard, r.Body)
								for r.URL.Path == "/large" && err == nil {
									_, err = w.Write(make([]byte, 1<<20))
								}
								if err != nil {
									cut <- time.Now()
								}
							},
						)
						begun := time.Now()
						conn := dialTest(t, addr)
						for range before {
							ask(t, conn)
							time.Sleep(50 * time.Millisecond)
							begun = time.Now()
						}
						over := make(chan time.Time, 1)
						go func() {
							client.play(conn)
							_, _ = io.Copy(io.Discard, conn)
							over <- time.Now()
						}()
						var after time.Duration
						select {
						case at := <-cut:
							after = at.Sub(begun)
						case at := <-over:
							after = at.Sub(begun)
						case <-time.After(watchdog):
							t.Fatal("is not cut off")
						}
						inTime(t, after, client.after)
					},
				)
			}
		}
	}
	for kind, listen := range listeners {
		t.Run("stays idle/"+kind, func(t *testing.T) {
			t.Parallel()
			conn := dialTest(t,
				serveTest(t, listen, testTimeouts, func(http.ResponseWriter, *http.Request) {}))
			var begun time.Time
			for range 10 { // to beyond the first idle timeout
				time.Sleep(testTimeouts.header / 2)
				begun = time.Now()
				ask(t, conn)
			}
			if n, err := conn.Read(make([]byte, 1)); n > 0 || err != io.EOF {
				t.Fatalf("reads %d bytes, %v, want the connection closed", n, err)
			}
			inTime(t, time.Since(begun), testTimeouts.idle)
		})
	}
}

// inTime checks that no deadline came early. Which deadline it was, [timeouts.only] decides.
func inTime(t *testing.T, after, expected time.Duration) {
	t.Helper()
	if after < expected {
		t.Errorf("is cut off after %s, want no earlier than after %s", after, expected)
	}
}

// A timer fires during a Write that has time left: no byte may be lost or repeated, and the bytes
// of another Write may not be mixed in.
func TestWriteGoesOnAfterEarlyTimer(t *testing.T) {
	one, other, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn := newConn(one)
	body := make([]byte, 24<<20) // more than the buffers of the connection
	_, _ = rand.NewChaCha8([32]byte{}).Read(body)
	expected := append(bytes.Clone(body), strings.Repeat("x", 32)...)

	early := time.Now().Add(300 * time.Millisecond)
	_ = conn.SetWriteDeadline(early)
	if _, err := conn.Write(body[:1]); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(watchdog))
	var writers sync.WaitGroup
	write := func(p []byte) {
		if n, err := conn.Write(p); n != len(p) || err != nil {
			t.Errorf("writes %d, %v, want %d", n, err, len(p))
		}
	}
	writers.Go(func() { write(body[1:]) })
	time.Sleep(time.Until(early) / 2)
	for range 32 {
		writers.Go(func() { write([]byte("x")) })
	}
	go func() {
		writers.Wait()
		_ = conn.Close()
	}()
	time.Sleep(time.Until(early) + 100*time.Millisecond)
	if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, expected) {
		t.Errorf("%d bytes, %v, want the %d written", len(got), err, len(expected))
	}
}

// net/http uses this method of a connection.
func TestLazyConnClosesHalf(t *testing.T) {
	one, other, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var conn net.Conn = newConn(one)
	defer conn.Close()
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the other end reads %v, want EOF", err)
	}
	_, _ = other.Write([]byte("x"))
	if n, err := conn.Read(make([]byte, 1)); n != 1 {
		t.Errorf("reads %d bytes, %v, want what is still sent", n, err)
	}
}

func TestPipelined(t *testing.T) {
	addr := serveTest(
		t,
		listeners["lazy"],
		testTimeouts,
		func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			time.Sleep(
				rand.N(200 * time.Microsecond)) // net/http meanwhile reads ahead, or is about to
			_, _ = fmt.Fprintf(w, "%s%s", r.URL.Path, body)
		},
	)
	conn := dialTest(t, addr)
	const requests = 500
	go func() {
		for i := range requests {
			if i%2 == 0 {
				_, _ = fmt.Fprintf(conn, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
			} else {
				_, _ = fmt.Fprintf(conn,
					"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n=body", i)
			}
		}
	}()
	answers := bufio.NewReader(conn)
	for i := range requests {
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		expected := fmt.Sprintf("/%d%s", i, strings.Repeat("=body", i%2))
		if got, err := io.ReadAll(answer.Body); err != nil || string(got) != expected {
			t.Fatalf("answer %d is %q, %v, want %q", i, got, err, expected)
		}
	}
}

func TestHangUpEndsTheRequestsContext(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan bool), make(chan error)
	addr := serveTest(
		t,
		listeners["lazy"],
		testTimeouts,
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/wait" {
				return
			}
			begun <- true
			select {
			case <-r.Context().Done():
				ended <- nil
			case <-time.After(watchdog):
				ended <- errors.New("the request's context does not end")
			}
		},
	)
	conn := dialTest(t, addr)
	ask(t, conn)
	_, _ = io.WriteString(conn, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	time.Sleep(
		testTimeouts.read) // no deadline of the request may end it, nor the background read
	select {
	case <-ended:
		t.Fatal("the request's context ends before the client hangs up")
	default:
	}
	_ = conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHijacked(t *testing.T) {
	t.Parallel()
	addr := serveTest(
		t,
		listeners["lazy"],
		testTimeouts,
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/hijack" {
				return
			}
			conn, buffered, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.Copy(conn, buffered)
		},
	)
	conn := dialTest(t, addr)
	ask(t, conn)
	_, _ = io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
	for _, text := range []string{"soon", "late"} {
		_, _ = io.WriteString(conn, text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			t.Fatalf("%q, %v comes back, want %q", got, err, text)
		}
		time.Sleep(testTimeouts.idle + 100*time.Millisecond) // all deadlines of the server are over
	}
}

func TestLazyConnIsAConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		one, other, err := tcpPair()
		if err != nil {
			return nil, nil, nil, err
		}
		return newConn(
			one,
		), newConn(other), func() { _ = errors.Join(one.Close(), other.Close()) }, nil
	})
}

func tcpPair() (*net.TCPConn, *net.TCPConn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	one, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	other, err := listener.Accept()
	if err != nil {
		return nil, nil, errors.Join(err, one.Close())
	}
	return one.(*net.TCPConn), other.(*net.TCPConn), nil
}

// TestReaderIsCalledBack does what net/http does at the end of each request, wherever the reader
// is: a deadline in the past interrupts it, and the connection works as before. Other deadlines are
// set in between.
func TestReaderIsCalledBack(t *testing.T) {
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			one, other, err := tcpPair()
			if err != nil {
				t.Error(err)
				return
			}
			defer one.Close()
			conn := newConn(one)
			stuck := time.AfterFunc(watchdog, func() {
				t.Error("a reader is stuck")
				_ = one.Close()
			})
			defer stuck.Stop()

			ctx, end := context.WithCancel(t.Context())
			var sent []byte
			var sender sync.WaitGroup
			sender.Go(func() {
				defer other.Close()
				for ctx.Err() == nil {
					b := byte(rand.N(256))
					sent = append(sent, b)
					if _, err := other.Write([]byte{b}); err != nil {
						t.Error(err)
					}
					time.Sleep(rand.N(200 * time.Microsecond))
				}
			})
			var got []byte
			read := func(p []byte) error {
				n, err := conn.Read(p)
				got = append(got, p[:n]...)
				return err
			}
			for range 1000 {
				out := make(chan error)
				_ = conn.SetReadDeadline(time.Time{})
				go func() { out <- read(make([]byte, 1)) }()
				if rand.N(2) == 0 {
					time.Sleep(rand.N(100 * time.Microsecond))
				}
				_ = conn.SetReadDeadline(time.Unix(1, 0))
				if err := <-out; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error(err)
					break
				}
				_ = conn.SetReadDeadline(time.Time{})
				deadline := time.Now().Add(rand.N(200 * time.Microsecond))
				_ = conn.SetReadDeadline(deadline)
				switch err := read(make([]byte, 4)); {
				case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline):
					t.Error("a deadline passes early")
				case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
					t.Error(err)
				}
			}
			end()
			_ = conn.SetReadDeadline(time.Time{})
			rest, err := io.ReadAll(conn)
			sender.Wait()
			if got = append(got, rest...); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes, %v, want the %d sent", len(got), err, len(sent))
			}
		})
	}
	all.Wait()
}

// The same random script on a plain connection and a lazy one: a reader waits, deadlines are set,
// and either bytes arrive or the deadline passes. A busy machine is sometimes late, so only
// differences that repeat at slower beats count.
func TestLazyAsPlain(t *testing.T) {
	script := func(
		seed uint64, beat time.Duration, wrap func(*net.TCPConn) net.Conn,
	) (events string) {
		random := rand.New(rand.NewPCG(seed, 0))
		one, other, err := tcpPair()
		if err != nil {
			return err.Error()
		}
		defer one.Close()
		defer other.Close()
		conn := wrap(one)
		begun := time.Now()
		at := func(beats int) time.Time { return begun.Add(time.Duration(beats) * 2 * beat) }
		read := make(chan string)
		for beats := 0; beats < 30; {
			// Deadlines are set and bytes sent at even ticks; deadlines pass at odd ones.
			_ = conn.SetReadDeadline(at(beats + random.IntN(4) - 1).Add(beat))
			go func() {
				n, err := conn.Read(make([]byte, 8))
				read <- fmt.Sprintf("%d %t at %d\n", n, errors.Is(err, os.ErrDeadlineExceeded),
					time.Since(begun)/beat/2)
			}()
			for waiting := true; waiting; {
				beats++
				select {
				case event := <-read:
					events, waiting = events+event, false
					time.Sleep(time.Until(at(beats)))
					continue
				case <-time.After(time.Until(at(beats))):
				}
				switch random.IntN(5) {
				case 0:
					_, _ = other.Write([]byte("byte"))
				case 1:
					_ = conn.SetReadDeadline(time.Time{})
				case 2:
					_ = conn.SetReadDeadline(time.Unix(1, 0))
				default:
					_ = conn.SetReadDeadline(at(beats + random.IntN(4)).Add(beat))
				}
			}
		}
		return events
	}
	var all sync.WaitGroup
	for range 16 {
		seed := rand.Uint64()
		all.Go(func() {
			var plain, lazy string
			for beat := 20 * time.Millisecond; beat < time.Second; beat *= 2 {
				var both sync.WaitGroup
				both.Go(func() {
					plain = script(seed, beat, func(c *net.TCPConn) net.Conn { return c })
				})
				both.Go(func() {
					lazy = script(seed, beat, func(c *net.TCPConn) net.Conn { return newConn(c) })
				})
				if both.Wait(); plain == lazy {
					return
				}
			}
			t.Errorf("seed %d: lazy:\n%s\nplain:\n%s", seed, lazy, plain)
		})
	}
	all.Wait()
}

// The eight deadlines of a request set no timer if the background read is interrupted before it
// blocks.
func TestTimersAreRarelySet(t *testing.T) {
	timers := 0
	read := deadline{setTimer: func(time.Time) error { timers++; return nil }}
	write := deadline{setTimer: read.setTimer}
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	through := func(d *deadline) {
		if err := d.begin(); err != nil {
			t.Fatal(err)
		}
		d.end(nil)
	}
	for range 100 {
		_ = read.set(in(2 * time.Minute))
		through(&read)
		_ = read.set(in(5 * time.Second))
		_ = read.set(in(15 * time.Second))
		_ = write.set(in(30 * time.Second))
		_ = read.set(time.Time{})
		through(&write)
		_ = read.set(time.Unix(1, 0))
		if err := read.begin(); err == nil {
			t.Error("begin succeeds after a deadline in the past")
		}
		_ = read.set(time.Time{})
		_ = write.set(time.Time{})
	}
	if timers != 2 {
		t.Errorf("timers were set %d times, want once for each direction", timers)
	}
}

// TestYield keeps another goroutine ready to run while a connection reads data that has arrived:
// the goroutine must run after every other response, and not more often. The count is not exact,
// because the runtime sometimes schedules differently, often on a busy machine.
func TestYield(t *testing.T) {
	client, server, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn := newConn(server)
	defer conn.Close()
	if _, err := client.Write(make([]byte, 8<<10)); err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))

	const rounds = 100
	var yielded [3]int // after an answer, after the next, and in a Read that follows another
	var b [1]byte
	for range 10 {
		yielded = [3]int{}
		for range rounds {
			for i := range yielded {
				if i < 2 {
					if _, err := conn.Write(b[:]); err != nil {
						t.Fatal(err)
					}
				}
				var other atomic.Bool
				go other.Store(true)
				if _, err := conn.Read(b[:]); err != nil {
					t.Fatal(err)
				}
				if other.Load() {
					yielded[i]++
				}
				runtime.Gosched()
			}
		}
		if yielded[0] > rounds*3/4 && yielded[1] < rounds/4 && yielded[2] < rounds/4 {
			return
		}
	}
	t.Errorf("of %d times each, others went first %d times after an answer, %d times after the "+
		"next, %d times without one: want all, none, none", rounds, yielded[0], yielded[1],
		yielded[2])
}

// BenchmarkDeadlines is one small request over a connection, client and all.
func BenchmarkDeadlines(b *testing.B) {
	for kind, listen := range listeners {
		b.Run(kind, func(b *testing.B) {
			conn := dialTest(
				b,
				serveTest(b, listen, testTimeouts,
					func(w http.ResponseWriter, _ *http.Request) {
						w.WriteHeader(http.StatusNoContent)
					}),
			)
			request, answer := []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), make([]byte, 1<<10)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = conn.Write(request)
				if n, err := conn.Read(answer); err != nil ||
					!bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")) {
					b.Fatalf("%q, %v", answer[:n], err)
				}
			}
		})
	}
}
