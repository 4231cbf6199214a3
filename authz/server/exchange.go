package server

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/internal/lazyconn"
	"github.com/oasgate/oasgate/authz/server/internal/lazydeadline"
)

const requestIDHeader = "X-Request-Id"

// validID matches IDs that are safe in logs and headers.
var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestIDs generates IDs of requests. They are unique, but can be guessed.
type requestIDs struct {
	prefix string
	count  *atomic.Uint64
}

func newRequestIDs() requestIDs { return requestIDs{rand.Text() + "-", new(atomic.Uint64)} }

func (ids requestIDs) next() string {
	var buffer [48]byte
	id := append(buffer[:0], ids.prefix...)
	return string(strconv.AppendUint(id, ids.count.Add(1), 36))
}

// exchange is a request and its response. It is the request's context, in which the gate stores its
// result, it is the response writer, and it records what is logged. It is one struct to save
// allocations.
type exchange struct {
	authz.Admission // its Context is deadline
	http.ResponseWriter
	deadline lazydeadline.Context
	limits   *limits
	stream   *stream        // nil: the response is not one
	pace     *pace          // nil: the connection does all that is necessary
	last     time.Time      // when the response must have been sent; zero: no limit
	taken    *lazyconn.Conn // by the handler; nil: it is not
	id       [1]string      // the value of the header
	start    time.Time
	place    place // among the active requests
	body     waitingBody
	status   int // 0: the response has not started
	bytes    int64
	cut      error  // why the response could not be sent in time
	stack    []byte // of a panic

	multiplexed bool // the connection has other responses, too (HTTP/2)
}

// begin returns the exchange of a request. Its ID is that of the request's header if it is valid,
// otherwise a new one.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{
		ResponseWriter: w, start: time.Now(), limits: &s.limits, multiplexed: r.ProtoMajor > 1,
	}
	end := s.limits.end(x.start)
	x.deadline.Init(r.Context(), end)
	x.setLast(end)
	x.Admission.Context, x.Admission.Limiter = &x.deadline, x
	if given := r.Header[requestIDHeader]; len(given) > 0 && validID.MatchString(given[0]) {
		x.id[0] = given[0]
	} else {
		x.id[0] = s.ids.next()
	}
	w.Header()[requestIDHeader] = x.id[:]
	return x
}

// end records the status that net/http sends if no response was started. It sends the rest of a
// stream, so that the log knows what became of it.
func (x *exchange) end() {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	if x.stream != nil || x.pace != nil {
		_ = x.FlushError()
	}
}

// Limit implements [authz.Admission.Limiter]. It applies x-authz-timeout to the context of the
// request and to the connection.
func (x *exchange) Limit(timeout time.Duration) {
	var end time.Time // none
	if timeout != authz.NoTimeout {
		end = x.start.Add(timeout)
	}
	x.deadline.Reset(end)
	connection := http.NewResponseController(x.ResponseWriter)
	_ = connection.SetReadDeadline(end) // the ResponseWriter of a test may have no deadlines
	x.setLast(end)
	_ = connection.SetWriteDeadline(x.last)
}

// setLast derives the limit of the response from that of the handler.
func (x *exchange) setLast(end time.Time) {
	if x.last = x.limits.afterGrace(end); x.limits.endless {
		x.last = time.Time{}
	}
}

func (x *exchange) WriteHeader(status int) {
	// Other 1xx responses are not final (RFC 9110 §15.2).
	if x.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		x.begun(status)
	}
	x.ResponseWriter.WriteHeader(status)
}

// begun is called when the response starts.
func (x *exchange) begun(status int) {
	x.status = status
	if x.Operation != nil && status >= 200 {
		x.limitResponse()
	}
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.begun(http.StatusOK)
	}
	if x.stream != nil && x.stream.over() {
		return 0, x.failed(errStreamOver)
	}
	write := x.ResponseWriter.Write
	if x.pace != nil {
		write = x.pacedWrite
	}
	n, err := write(p)
	x.bytes += int64(n)
	return n, x.failed(err)
}

// FlushError starts the response if it has not started.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.begun(http.StatusOK)
	}
	flush := http.NewResponseController(x.ResponseWriter).Flush
	if x.pace != nil {
		return x.failed(x.paced(flush))
	}
	return x.failed(flush())
}

// failed notes that the client has not taken the response in time.
func (x *exchange) failed(err error) error {
	switch {
	case err == nil || x.cut != nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		x.cut = err
	case x.multiplexed && !x.last.IsZero() && !time.Now().Before(x.last):
		x.cut = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err) // HTTP/2 does not say so
	}
	return err
}

// Hijack takes over the connection. The handler writes the response itself.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return conn, buffered, err
	}
	if x.status == 0 {
		x.status = http.StatusSwitchingProtocols
	}
	x.hijacked(conn)
	return conn, buffered, nil
}

// Unwrap returns the original writer, for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
