package server

import (
	"bufio"
	"crypto/rand"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server/internal/lazydeadline"
)

// handlerTimeout limits a request's context. It is shorter than writeTimeout, so that the client
// can still receive an error.
const handlerTimeout = 20 * time.Second

const requestIDHeader = "X-Request-Id"

// validID matches IDs that are safe in logs and headers.
var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestIDs generates IDs of requests. They are unique, but can be guessed.
type requestIDs struct {
	prefix string
	count  *atomic.Uint64
}

func newRequestIDs() requestIDs { return requestIDs{rand.Text() + "-", new(atomic.Uint64)} }

// exchange is a request and its response. It is the request's context, in which the gate stores its
// result, it is the response writer, and it records what is logged. It is one struct to save
// allocations.
type exchange struct {
	authz.Admission // its Context is deadline
	http.ResponseWriter
	deadline lazydeadline.Context
	id       [1]string // the value of the header
	start    time.Time
	status   int // 0: the response has not started
	bytes    int64
	stack    []byte // of a panic
}

// begin returns the exchange of a request. Its ID is that of the request's header if it is valid,
// otherwise a new one.
func (ids requestIDs) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w, start: time.Now()}
	x.deadline.Init(r.Context(), x.start.Add(handlerTimeout))
	x.Admission.Context, x.Admission.Limiter = &x.deadline, x
	if given := r.Header[requestIDHeader]; len(given) > 0 && validID.MatchString(given[0]) {
		x.id[0] = given[0]
	} else {
		var buffer [48]byte
		id := append(buffer[:0], ids.prefix...)
		x.id[0] = string(strconv.AppendUint(id, ids.count.Add(1), 36))
	}
	w.Header()[requestIDHeader] = x.id[:]
	return x
}

// end records the status that net/http sends if no response was started.
func (x *exchange) end() {
	if x.status == 0 {
		x.status = http.StatusOK
	}
}

// Limit implements [authz.Admission.Limiter]. It applies x-authz-timeout to the context of the
// request and to the connection. Contexts that derive from that of the request before the gate keep
// its deadline.
func (x *exchange) Limit(timeout time.Duration) {
	var end, written time.Time // none
	if timeout != authz.NoTimeout {
		end = x.start.Add(timeout)
		written = end.Add(writeTimeout - handlerTimeout)
	}
	x.deadline.Reset(end)
	connection := http.NewResponseController(x.ResponseWriter)
	_ = connection.SetReadDeadline(end) // the ResponseWriter of a test may have no deadlines
	_ = connection.SetWriteDeadline(written)
}

func (x *exchange) WriteHeader(status int) {
	// Other 1xx responses are not final (RFC 9110 §15.2).
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

// FlushError starts the response if it has not started.
func (x *exchange) FlushError() error {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack takes over the connection. The handler writes the response itself.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil && x.status == 0 {
		x.status = http.StatusSwitchingProtocols
	}
	return conn, buffered, err
}

// Unwrap returns the original writer, for [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
