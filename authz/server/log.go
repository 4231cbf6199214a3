package server

import (
	"cmp"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz/internal/jsonlines"
	"github.com/oasgate/oasgate/authz/token"
)

// requestLog logs one line for each request.
type requestLog struct {
	handler   slog.Handler
	proxies   []netip.Prefix // trusted
	telemetry Telemetry      // nil: no trace IDs
	sampler   *sampler
}

func newRequestLog(config Config) requestLog {
	return requestLog{
		config.Logger.Handler(), config.TrustedProxies, config.Telemetry,
		newSampler(config.Logger),
	}
}

// write logs a request. The line contains neither the query nor headers, which can contain tokens.
func (l requestLog) write(x *exchange, r *http.Request, took time.Duration) {
	outcome := x.outcome(r)
	level := slog.LevelInfo
	switch probe := r.URL.Path == healthPath || r.URL.Path == readyPath; {
	case outcome == Failed && !unverified(x.Cause) && x.Cause != errOverloaded:
		level = slog.LevelError
	case outcome == Succeeded && probe:
		level = slog.LevelDebug
	}
	if !l.handler.Enabled(r.Context(), level) {
		return
	}
	remote := remoteIP(r, l.proxies)
	// Other lines are about known callers, which the operator can block, or about failures of the
	// server.
	anonymous := x.Principal == nil && x.Cause != nil && level == slog.LevelInfo &&
		outcome != ClientClosed
	if anonymous && !l.sampler.allow(causeOf(x.Cause), remote) {
		return
	}
	var buffer [18]slog.Attr
	attrs := appendAttrs(buffer[:0], x, r, remote, outcome, took)
	if l.telemetry != nil {
		trace, span := l.telemetry.Trace(r.Context())
		if trace != "" {
			attrs = append(attrs, slog.String("trace_id", trace))
		}
		if span != "" {
			attrs = append(attrs, slog.String("span_id", span))
		}
	}
	now := x.start.Add(took)
	if lines, ok := l.handler.(*jsonlines.Handler); ok {
		lines.WriteLine(now, level, "request", attrs)
		return
	}
	line := slog.NewRecord(now, level, "request", 0) // without a source line
	line.AddAttrs(attrs...)
	_ = l.handler.Handle(r.Context(), line)
}

// unverified reports whether a request failed because the keys for its token were unavailable.
// Anybody can send such tokens, and the verifier itself logs the outage, once.
func unverified(cause error) bool {
	refused, ok := errors.AsType[*token.Error](cause)
	return ok && (refused.Code == token.KeysUnavailable ||
		refused.Code == token.KeyPending || refused.Code == token.IntrospectionUnavailable)
}

// appendAttrs appends the attributes of a request.
func appendAttrs(
	attrs []slog.Attr, x *exchange, r *http.Request, remote string, outcome Outcome,
	took time.Duration,
) []slog.Attr {
	var operation, path string
	if x.Operation != nil {
		operation, path = x.Operation.ID, x.Operation.Path
	} else {
		path = loggable(r.URL.Path)
	}
	status, code, cause := x.result(outcome)
	attrs = append(attrs,
		slog.String("method", loggable(r.Method)),
		slog.String("path", path),  // of the document, or of the request
		slog.Int("status", status), // 0: the connection ended before the response
		slog.String("outcome", string(outcome)),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.Int64("bytes", x.bytes),
		slog.String("remote", remote),
		slog.String("request_id", x.id[0]),
	)
	if operation != "" {
		attrs = append(attrs, slog.String("operation", operation))
	}
	if x.Principal != nil {
		attrs = append(attrs,
			slog.String("subject", jsonlines.Cap(x.Principal.Subject(), maxLogged)),
			slog.String("client_id", jsonlines.Cap(x.Principal.ClientID(), maxLogged)),
		)
		if actor, ok := x.Principal.Actor(); ok { // who acts for the subject (RFC 8693 §4.1)
			attrs = append(attrs, slog.String("actor",
				jsonlines.Cap(cmp.Or(actor.Subject, actor.ClientID), maxLogged)))
		}
	}
	if cause != nil {
		attrs = append(attrs,
			slog.String("cause", jsonlines.Cap(cause.Error(), maxLogged)),
			slog.String("code", code),
		)
	}
	if x.stack != nil {
		attrs = append(attrs, slog.String("stack", string(x.stack)))
	}
	return attrs
}

// maxLogged is the maximum length of a text of a request in its log line, in bytes.
const maxLogged = 1 << 10

// loggable removes long path segments, which could be misplaced tokens.
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
	return jsonlines.Cap(strings.Join(segments, "/"), maxLogged)
}
