package server

import (
	"bufio"
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz"
)

// handlerTimeout is when a request's context ends. It is earlier than writeTimeout, so that the client
// can still be told.
const handlerTimeout = 20 * time.Second

const requestIDHeader = "X-Request-Id"

// validID is an ID that is safe in logs and headers.
var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestIDs makes IDs of requests. They are unique, and not secret.
type requestIDs struct {
	start string // of this server's
	count *atomic.Uint64
}

func newRequestIDs() requestIDs { return requestIDs{rand.Text() + "-", new(atomic.Uint64)} }

// exchange is a request and its answer: the request's context, which limits its time and learns
// what the gate finds out, the writer of the answer, and what the log says of both. It is one
// value, because every request has one.
type exchange struct {
	authz.Admission // its Context is the connection's
	http.ResponseWriter
	id      [1]string // as a header's value
	begun   time.Time
	limited atomic.Pointer[limited] // nil until somebody asks for the deadline
	status  int                     // 0: the answer has not begun
	bytes   int64
	stack   []byte // of a panic
}

// begin returns the exchange of a request. Its ID is the one that the request brings, if that is
// safe in logs and headers, or a new one.
func (ids requestIDs) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w, begun: time.Now()}
	x.Admission.Context = r.Context()
	if given := r.Header[requestIDHeader]; len(given) > 0 && validID.MatchString(given[0]) {
		x.id[0] = given[0]
	} else {
		var space [48]byte
		x.id[0] = string(strconv.AppendUint(append(space[:0], ids.start...), ids.count.Add(1), 36))
	}
	w.Header()[requestIDHeader] = x.id[:]
	return x
}

// end notes the status that net/http sends where nobody has begun an answer.
func (x *exchange) end() {
	if x.status == 0 {
		x.status = http.StatusOK
	}
}

// limited is a context that ends when the time for a request is over.
type limited struct {
	context.Context
	end context.CancelFunc
}

// limit starts the timer. Timers are expensive, and most requests are answered without anybody
// asking for the deadline, so only the first who asks starts it.
func (x *exchange) limit() *limited {
	if l := x.limited.Load(); l != nil {
		return l
	}
	ctx, end := context.WithDeadline(&x.Admission, x.begun.Add(handlerTimeout))
	l := &limited{ctx, end}
	if !x.limited.CompareAndSwap(nil, l) {
		end()
		return x.limited.Load()
	}
	return l
}

// release stops the timer.
func (x *exchange) release() {
	if l := x.limited.Load(); l != nil {
		l.end()
	}
}

func (x *exchange) Deadline() (time.Time, bool) { return x.limit().Deadline() }
func (x *exchange) Done() <-chan struct{}       { return x.limit().Done() }
func (x *exchange) Err() error                  { return x.limit().Err() }

// Value returns what the gate has found out, or a value of the connection's context.
func (x *exchange) Value(key any) any {
	if l := x.limited.Load(); l != nil { // package context finds the parent of a new context here
		return l.Value(key) // whose parent is the admission
	}
	return x.Admission.Value(key)
}

func (x *exchange) WriteHeader(status int) {
	// Other 1xx are not the answer (RFC 9110 §15.2).
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
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

// FlushError begins the answer, if it has not begun.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack takes over the connection, and the answer with it.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, both, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil && x.status == 0 {
		x.status = http.StatusSwitchingProtocols
	}
	return conn, both, err
}

// Unwrap is for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
