package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/internal/lazyconn"
)

// Progress is the minimum rate at which a client must receive a stream: Bytes in Per. Time in which
// there is nothing to send does not count. See [Config].
type Progress struct {
	Bytes int64
	Per   time.Duration
}

// limits are the time limits of requests.
type limits struct {
	request  time.Duration // of a handler; authz.NoTimeout: none
	grace    time.Duration // in which the client can still receive the response
	endless  bool          // responses have no limit except progress
	progress lazyconn.Progress
	draining context.Context // streams end when it is done
}

// readLimits returns the limits of a configuration, and its faults.
func readLimits(c Config) (l limits, faults []error) {
	fault := func(text string, args ...any) {
		faults = append(faults, fmt.Errorf("server: "+text, args...))
	}
	l = limits{request: c.RequestTimeout, progress: lazyconn.Progress(c.Progress)}
	if l.request == 0 {
		l.request = requestTimeout
	}
	if l.request < 0 && l.request != authz.NoTimeout {
		fault("Config.RequestTimeout is %s: expected a positive duration, or authz.NoTimeout",
			l.request)
	}
	switch l.grace, l.endless = writeGrace, c.WriteTimeout == authz.NoTimeout; {
	case c.WriteTimeout == 0 || l.endless:
	case l.request == authz.NoTimeout || c.WriteTimeout <= l.request:
		fault("Config.WriteTimeout is %s: expected more than the request timeout, so that clients "+
			"can still receive an error, or authz.NoTimeout", c.WriteTimeout)
	default:
		l.grace = c.WriteTimeout - l.request
	}
	switch p := &l.progress; {
	case *p == lazyconn.Progress{}:
		*p = lazyconn.Progress{Bytes: 30 << 10, Per: 30 * time.Second}
	case p.Bytes <= 0 || p.Per <= 0:
		fault("Config.Progress is %d bytes in %s: expected a positive number and duration",
			p.Bytes, p.Per)
	}
	return l, faults
}

// end returns when a request must have been handled. Zero is never.
func (l *limits) end(start time.Time) time.Time {
	if l.request == authz.NoTimeout {
		return time.Time{}
	}
	return start.Add(l.request)
}

// afterGrace returns when the response to a request that ends must have been sent. Zero is never.
func (l *limits) afterGrace(end time.Time) time.Time {
	if end.IsZero() {
		return end
	}
	return end.Add(l.grace)
}

// stream is a response without a limit of its total time. The client must make progress, and it
// ends with the token.
type stream struct {
	end  time.Time // zero: none
	done func() bool
}

var errStreamOver = errors.New("the stream is over: its token has expired, or its time has passed")

func (s *stream) over() bool { return !s.end.IsZero() && !time.Now().Before(s.end) }

// isStream reports whether a response of this Content-Type is a stream: events, and everything that
// is not a text or a document such as JSON.
func isStream(contentType []string) bool {
	if len(contentType) != 1 || contentType[0] == "application/json" {
		return false
	}
	essence, _, _ := strings.Cut(contentType[0], ";")
	essence = strings.ToLower(strings.TrimSpace(essence))
	kind, subtype, ok := strings.Cut(essence, "/")
	if !ok || kind == "text" {
		return essence == "text/event-stream"
	}
	if i := strings.LastIndexByte(subtype, '+'); i >= 0 {
		subtype = subtype[i+1:]
	}
	switch subtype {
	case "json", "xml", "yaml", "javascript", "x-www-form-urlencoded":
		return false
	}
	return true
}

// limitResponse sets the limits of a response that starts and has no time limit, or must not have
// one.
func (x *exchange) limitResponse() {
	streams := isStream(x.Header()["Content-Type"])
	if streams {
		x.place.leave()
	}
	if !streams && !x.isEndless() {
		return
	}
	conn := lazy(x.deadline.Value(connKey{}))
	switch {
	case conn == nil: // not a TCP connection of [Server.Serve]: the time limits stay
		if streams {
			x.endWithToken()
		}
		return
	case x.multiplexed:
		x.pace = &pace{}
	default:
		conn.Expect(x.limits.progress)
	}
	if streams {
		x.beginStream(conn)
	}
}

// isEndless reports whether the response may take any time, by the operation or the configuration.
func (x *exchange) isEndless() bool {
	if x.Operation.Timeout != 0 {
		return x.limits.endless || x.Operation.Timeout == authz.NoTimeout
	}
	return x.limits.endless || x.limits.request == authz.NoTimeout
}

// beginStream replaces the time limits of the request by those of a stream.
func (x *exchange) beginStream(conn *lazyconn.Conn) {
	end := x.streamEnd()
	x.deadline.Reset(end)
	// so that a handler can still write after its context has ended
	x.last = x.limits.afterGrace(end)
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(x.last)
	if !x.multiplexed {
		conn.CloseAt(x.last)
	}
	drained := context.AfterFunc(x.limits.draining, func() {
		now := time.Now()
		x.deadline.Reset(now)
		if !x.multiplexed {
			conn.CloseAt(now.Add(x.limits.grace))
		}
	})
	x.stream = &stream{end: end, done: drained}
}

// endWithToken ends a stream with its token, if that is earlier than its time limit.
func (x *exchange) endWithToken() {
	end := x.streamEnd()
	if limit, limited := x.deadline.Deadline(); end.IsZero() || limited && !end.Before(limit) {
		return
	}
	x.deadline.Reset(end)
	x.last = x.limits.afterGrace(end)
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(x.last)
	x.stream = &stream{end: end, done: func() bool { return true }}
}

// pace measures the progress of a response on a shared connection (HTTP/2), as [lazyconn.Conn] does
// for a whole connection.
type pace struct {
	written int64
	spent   time.Duration
}

// pacedWrite writes in pieces. The client must receive each piece within the time that its minimum
// progress allows.
func (x *exchange) pacedWrite(p []byte) (written int, err error) {
	for {
		most := min(int64(len(p)-written), x.limits.progress.Bytes)
		n := 0
		err = x.paced(func() (err error) {
			n, err = x.ResponseWriter.Write(p[written : written+int(most)])
			x.pace.written += int64(n)
			return err
		})
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// paced calls a function that sends something. In HTTP/2, a deadline applies even while nothing is
// sent, so it is set only during the call.
func (x *exchange) paced(send func() error) error {
	begun := time.Now()
	end := begun.Add(x.limits.progress.Per - x.pace.spent)
	if !x.last.IsZero() && x.last.Before(end) {
		end = x.last
	}
	controller := http.NewResponseController(x.ResponseWriter)
	_ = controller.SetWriteDeadline(end)
	err := send()
	if err != nil && !time.Now().Before(end) {
		err = lazyconn.ErrStalled
	}
	_ = controller.SetWriteDeadline(x.last)
	x.pace.spent += time.Since(begun)
	if x.pace.written >= x.limits.progress.Bytes {
		*x.pace = pace{}
	}
	return err
}

// hijacked applies the limits of a stream to a connection that the handler has taken over, also
// after the handler has returned.
func (x *exchange) hijacked(taken net.Conn) {
	x.place.leave()
	if x.Operation == nil {
		return
	}
	end := x.streamEnd()
	x.deadline.Reset(end)
	conn := lazy(taken)
	if conn == nil { // of another listener
		if !end.IsZero() {
			time.AfterFunc(time.Until(end), func() { _ = taken.Close() })
		}
		return
	}
	conn.CloseAt(end)
	conn.Expect(x.limits.progress)
	x.taken = conn
}

// streamEnd returns when a stream ends: when the token that opened it expires, or when the
// operation says. Zero is never.
func (x *exchange) streamEnd() (end time.Time) {
	if !x.Operation.OutlivesToken {
		end = x.Expiry()
	}
	if x.Operation.Timeout > 0 {
		if own := x.start.Add(x.Operation.Timeout); end.IsZero() || own.Before(end) {
			end = own
		}
	}
	return end
}

// connKey is the key of the connection in the context of its requests.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// lazy returns the TCP connection of a connection of [Server.Serve], or nil.
func lazy(conn any) *lazyconn.Conn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	own, _ := conn.(*lazyconn.Conn)
	return own
}

// resetConn ends the limits of a stream once its response has been sent.
func resetConn(conn net.Conn, state http.ConnState) {
	if state != http.StateIdle {
		return
	}
	if own := lazy(conn); own != nil {
		own.Reset()
	}
}
