package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// Telemetry exports what a server does: package authz/server/telemetry does so for OpenTelemetry
// and Prometheus. The methods are called concurrently.
type Telemetry interface {
	// Begin is called before a request is handled. It returns the request, with the span in its
	// context if there is one.
	Begin(r *http.Request) *http.Request
	// Trace returns the IDs of the trace and the span in a context, or "".
	Trace(ctx context.Context) (traceID, spanID string)
	// End is called after a request has been handled, with its context.
	End(ctx context.Context, e Event)

	// Watch is called once, with a function that returns the current state of the server.
	Watch(stats func() Stats) error
	// Transport returns a transport that records the requests for keys and introspection.
	Transport(next http.RoundTripper) http.RoundTripper
	// Replays returns a store that records the uses of the given store.
	Replays(next token.ReplayStore) token.ReplayStore
	// ServeHTTP responds with all metrics, for /metrics of the admin listener.
	http.Handler
	// Shutdown exports what has not been exported yet.
	Shutdown(ctx context.Context) error
}

// TelemetryConfig configures a [Telemetry].
type TelemetryConfig struct {
	Service string // the name of the program
	Version string
	Page    bool         // ServeHTTP is used
	Logger  *slog.Logger // of failures to export; default slog.Default()
}

// Event is a request that has been handled. All of its strings are from small sets, which no client
// can add to, except for Path.
type Event struct {
	Method    string // _OTHER: not a method of RFC 9110 or RFC 5789
	Path      string // without long segments, which could be tokens
	Route     string // the template of the path, with the base path; "": unknown
	Operation string // ID of the operation; "": none
	Status    int    // 0: the connection ended before the response
	Outcome   Outcome
	Cause     string // why it was refused or failed: see README.md; "": not known to the server
	Reported  string // why it would have been refused without InsecureReport…; "": it would not
	Duration  time.Duration
}

// Outcome is how a request ended.
type Outcome string

// The outcomes.
const (
	Succeeded    Outcome = "succeeded"     // status below 400
	Refused      Outcome = "refused"       // 4xx
	Failed       Outcome = "failed"        // 5xx
	ClientClosed Outcome = "client_closed" // the client closed the connection before the response
	Cut          Outcome = "cut"           // the client was too slow, and got only a part
	Ended        Outcome = "ended"         // a stream ended: by its token, or a timeout
)

// Stats is the state of a server.
type Stats struct {
	Active           int64  // requests
	SuppressedLines  uint64 // of the log: see README.md
	LostLines        uint64 // of the log: it could not be written, or not fast enough
	Waiting          int64  // requests that wait to be handled
	Connections      Connections
	DroppedDecisions uint64 // of the audit log
	Tokens           token.Stats
	Pools            map[string]Pool
}

// Connections is the state of the connections of clients. Those that a handler has taken over do
// not count.
type Connections struct {
	Open   int64
	Max    int    // 0: no limit
	Filled uint64 // how often the limit was reached
}

// Pool is the state of a pool of connections: see [database/sql.DBStats].
type Pool struct {
	MaxOpen, InUse, Idle int
	Waits                int64 // for a connection
	Waited               time.Duration
}

// Stats returns the current state of the server.
func (s *Server) Stats() Stats {
	stats := Stats{Active: s.active.Load(), SuppressedLines: s.log.sampler.suppressed.Load()}
	if c := s.current.Load(); c != nil && c.verifier != nil {
		stats.Tokens = c.verifier.Stats()
	}
	if s.config.LostLines != nil {
		stats.LostLines = s.config.LostLines()
	}
	stats.Waiting = s.overload.waiting.Load()
	stats.Connections = s.connections.stats()
	if s.config.Audit != nil {
		stats.DroppedDecisions = s.config.Audit.Dropped()
	}
	if s.config.Pools != nil {
		stats.Pools = s.config.Pools()
	}
	return stats
}

// event describes a request that has been handled.
func (s *Server) event(x *exchange, r *http.Request, took time.Duration) Event {
	outcome := x.outcome(r)
	status, code, _ := x.result(outcome)
	e := Event{
		Method: method(r.Method), Path: loggable(r.URL.Path), Status: status,
		Outcome: outcome, Cause: code, Duration: took,
	}
	if x.Reported != nil {
		e.Reported = causeOf(x.Reported)
	}
	switch c := s.current.Load(); {
	case x.Operation != nil:
		e.Operation, e.Route = x.Operation.ID, c.BasePath()+x.Operation.Path
	case r.URL.Path == healthPath || r.URL.Path == readyPath:
		e.Route = r.URL.Path
	}
	return e
}

// outcome returns how a request ended. The context of r ends when the client closes the connection,
// and not at the time limit of the request.
func (x *exchange) outcome(r *http.Request) Outcome {
	switch closed := r.Context().Err() != nil; {
	case x.cut != nil, x.taken != nil && x.taken.Cut():
		return Cut
	case x.stream != nil && x.stream.over():
		return Ended
	case closed && (x.status == 0 || x.status >= 500):
		return ClientClosed
	case x.status >= 500:
		return Failed
	case x.status >= 400:
		return Refused
	}
	return Succeeded
}

// errClientClosed is the cause of a request whose client has closed the connection.
var errClientClosed = errors.New("the client closed the connection")

// result returns the status of a request, and the code and the cause of its outcome. If the client
// has closed the connection, the handler's own error is ignored, because it is often only a
// consequence.
func (x *exchange) result(outcome Outcome) (status int, code string, cause error) {
	switch outcome {
	case ClientClosed:
		return 0, string(ClientClosed), errClientClosed
	case Cut:
		return 0, string(Cut), cmp.Or(x.cut, x.Cause)
	}
	return x.status, causeOf(x.Cause), x.Cause
}

// causeOf returns the code of an error: that of the check that a token failed, or else the kind of
// the problem.
func causeOf(err error) string {
	if err == nil {
		return ""
	}
	if refused, ok := errors.AsType[*token.Error](err); ok {
		return cmp.Or(string(refused.Code), "token")
	}
	problem, ok := errors.AsType[*authz.Error](err)
	switch {
	case !ok:
		return string(authz.Internal)
	case problem.Kind == authz.Other:
		return "other"
	}
	return string(problem.Kind)
}

// method returns a method, or _OTHER if it is unknown, as the conventions of OpenTelemetry say.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return m
	}
	return "_OTHER"
}
