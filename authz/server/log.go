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
	handler slog.Handler
	proxies []netip.Prefix // trusted
}

// write logs a request. The line contains neither the query nor headers, which can contain tokens.
func (l requestLog) write(x *exchange, r *http.Request) {
	x.deadline.Release()
	if x.stream != nil {
		x.stream.done()
	}
	level := slog.LevelInfo
	disconnected := r.Context().Err() != nil // not a failure of the server
	if x.status >= 500 && !disconnected && !unverified(x.Cause) {
		level = slog.LevelError
	}
	if !l.handler.Enabled(r.Context(), level) {
		return
	}
	now := time.Now()
	var buffer [13]slog.Attr
	attrs := appendAttrs(buffer[:0], x, r, remoteIP(r, l.proxies), now.Sub(x.start))
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
	attrs []slog.Attr, x *exchange, r *http.Request, remote string, took time.Duration,
) []slog.Attr {
	var operation, path string
	if x.Operation != nil {
		operation, path = x.Operation.ID, x.Operation.Path
	} else {
		path = loggable(r.URL.Path)
	}
	status, outcome := x.outcome()
	attrs = append(attrs,
		slog.String("method", loggable(r.Method)),
		slog.String("path", path),  // of the document, or of the request
		slog.Int("status", status), // 0: the connection ended before the response
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
			slog.String("subject", x.Principal.Subject()),
			slog.String("client_id", x.Principal.ClientID()),
		)
		if actor, ok := x.Principal.Actor(); ok { // who acts for the subject (RFC 8693 §4.1)
			attrs = append(attrs, slog.String("actor", cmp.Or(actor.Subject, actor.ClientID)))
		}
	}
	if outcome != "" {
		attrs = append(attrs, slog.String("outcome", outcome))
	}
	if cause := cmp.Or(x.cut, x.Cause); cause != nil {
		attrs = append(attrs, slog.String("cause", cause.Error()))
	}
	if x.stack != nil {
		attrs = append(attrs, slog.String("stack", string(x.stack)))
	}
	return attrs
}

// outcome returns the status for the log, and what became of the response if it was not just sent.
func (x *exchange) outcome() (status int, outcome string) {
	switch {
	case x.cut != nil, x.taken != nil && x.taken.Cut():
		return 0, "cut" // the client was too slow, and has only a part
	case x.stream != nil && x.stream.over():
		return x.status, "ended" // with the token, or at its time
	}
	return x.status, ""
}

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
	return strings.Join(segments, "/")
}
