package impl

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz"
)

const requestIDHeader = "X-Request-Id"

// exchange is a request under way: its context, which bounds its time and is told what the gate finds out, its answer, and
// what the log shall say of it. It is all in one, for every request has one.
type exchange struct {
	authz.Admission // its Context is the connection's
	http.ResponseWriter
	id      [1]string // as a header has it
	begun   time.Time
	limited atomic.Pointer[limited] // nil until somebody waits
	status  int                     // 0: not begun
	bytes   int64
	err     error
	stack   []byte
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	return r.Context().Value(exchangeKey{}).(*exchange)
}

// limited is a context that ends when the time for a request is over.
type limited struct {
	context.Context
	end context.CancelFunc
}

// limit starts the clock, set to when the request's time is over. Most requests are answered without ever waiting for
// anything, and setting a clock is dear: it is done only for those who ask when to stop.
func (x *exchange) limit() *limited {
	if l := x.limited.Load(); l != nil {
		return l
	}
	// Beneath it is the admission: who waits shall not see past it, should another request's lie there.
	ctx, end := context.WithDeadline(&x.Admission, x.begun.Add(handlerTimeout))
	l := &limited{ctx, end}
	if !x.limited.CompareAndSwap(nil, l) {
		end()
		return x.limited.Load()
	}
	return l
}

// over gives back what limit took.
func (x *exchange) over() {
	if l := x.limited.Load(); l != nil {
		l.end()
	}
}

func (x *exchange) Deadline() (time.Time, bool) { return x.limit().Deadline() }
func (x *exchange) Done() <-chan struct{}       { return x.limit().Done() }
func (x *exchange) Err() error                  { return x.limit().Err() }

// Value finds the exchange itself, what the gate has found out, or what the connection's context has.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	if l := x.limited.Load(); l != nil { // package context finds its own parents here, and those of Done they must be
		return l.Value(key) // which asks the admission beneath
	}
	return x.Admission.Value(key)
}

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) { // other 1xx are not the answer
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(p)
	x.bytes += int64(n)
	return n, err
}

// FlushError begins the answer, if nobody has.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack takes the connection, and the answer with it.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, both, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil && x.status == 0 {
		x.status = http.StatusSwitchingProtocols
	}
	return conn, both, err
}

// Unwrap lets http.ResponseController find what the writer beneath can do.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// exchanged makes a request an exchange: it has an id, the one it brings, if that is fit for logs and headers, or a new one,
// which is unique and not a secret; its time is bounded; and one line is written of it, whatever becomes of it.
func (s *Server) exchanged(next http.Handler) http.Handler {
	fit := regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	start, count := rand.Text()+"-", new(atomic.Uint64)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &exchange{Admission: authz.Admission{Context: r.Context()}, ResponseWriter: w, begun: time.Now()}
		if brought := r.Header[requestIDHeader]; len(brought) > 0 && fit.MatchString(brought[0]) {
			x.id[0] = brought[0]
		} else {
			var space [48]byte
			x.id[0] = string(strconv.AppendUint(append(space[:0], start...), count.Add(1), 36))
		}
		w.Header()[requestIDHeader] = x.id[:]
		defer s.ended(x, r)
		next.ServeHTTP(x, r.WithContext(x))
		if x.status == 0 {
			x.status = http.StatusOK // as net/http does
		}
	})
}

// ended writes the line of a request. It never holds a query, which may carry a token, nor a header.
func (s *Server) ended(x *exchange, r *http.Request) {
	x.over()
	level := slog.LevelInfo
	if x.status >= 500 && r.Context().Err() == nil { // a client who hangs up is no fault of ours
		level = slog.LevelError
	}
	handler := s.log.Handler()
	if !handler.Enabled(r.Context(), level) {
		return
	}
	now := time.Now()
	var space [12]slog.Attr
	attrs := x.appendAttrs(space[:0], r, s.remoteIP(r), now.Sub(x.begun))
	if lines, ok := handler.(*jsonLines); ok {
		lines.write(now, level, "request", attrs)
		return
	}
	line := slog.NewRecord(now, level, "request", 0) // which line of code it is, nobody asks
	line.AddAttrs(attrs...)
	_ = handler.Handle(r.Context(), line)
}

func (x *exchange) appendAttrs(attrs []slog.Attr, r *http.Request, remote string, took time.Duration) []slog.Attr {
	var operation, path string
	if x.Operation != nil {
		operation, path = x.Operation.ID, x.Operation.Path
	} else {
		path = loggable(r.URL.Path)
	}
	attrs = append(attrs,
		slog.String("method", loggable(r.Method)),
		slog.String("path", path),    // as the document has it, or as it came
		slog.Int("status", x.status), // 0: the connection was cut before there was one
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("bytes", x.bytes),
		slog.String("remote", remote),
		slog.String("request_id", x.id[0]),
	)
	if operation != "" {
		attrs = append(attrs, slog.String("operation", operation))
	}
	if x.Principal != nil {
		attrs = append(attrs, slog.String("subject", x.Principal.Subject()), slog.String("client_id", x.Principal.ClientID()))
	}
	if x.err != nil {
		attrs = append(attrs, slog.String("cause", x.err.Error()))
	}
	if x.stack != nil {
		attrs = append(attrs, slog.String("stack", string(x.stack)))
	}
	return attrs
}

// loggable cuts out of what a client chose whatever is long enough to be a token put in the wrong place.
func loggable(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	segments := strings.Split(s, "/")
	for i, segment := range segments {
		if len(segment) > most {
			segments[i] = "…"
		}
	}
	return strings.Join(segments, "/")
}

// refuse answers, and notes, an error outside Echo.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	exchangeOf(r).err = err
	s.guard.Load().gate.WriteProblem(w, r, err)
}

// recovered answers a panic with a 500 of which the client learns nothing. Where an answer had begun it cuts the
// connection instead, lest half an answer pass for a whole one.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			reason := recover()
			if reason == nil {
				return
			}
			if reason == http.ErrAbortHandler {
				panic(reason) // meant for net/http
			}
			x := exchangeOf(r)
			x.stack = debug.Stack()
			err := &authz.Error{Kind: authz.Internal, Err: fmt.Errorf("panic: %v", reason)}
			if x.status != 0 {
				x.err = err
				panic(http.ErrAbortHandler)
			}
			s.refuse(w, r, err)
		}()
		next.ServeHTTP(w, r)
	})
}
