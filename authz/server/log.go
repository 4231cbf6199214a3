package server

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz/internal/jsonlines"
	"github.com/oasgate/oasgate/authz/token"
)

// requestLog writes one line for each request.
type requestLog struct {
	handler slog.Handler
	proxies []netip.Prefix // trusted
}

// write writes the line of a request. It never contains a query, which may hold a token, nor a
// header.
func (l requestLog) write(x *exchange, r *http.Request) {
	x.release()
	level := slog.LevelInfo
	hungUp := r.Context().Err() != nil // a client that hangs up is not the server's fault
	if x.status >= 500 && !hungUp && !unverified(x.Cause) {
		level = slog.LevelError
	}
	if !l.handler.Enabled(r.Context(), level) {
		return
	}
	now := time.Now()
	var space [12]slog.Attr
	attrs := appendAttrs(space[:0], x, r, remoteIP(r, l.proxies), now.Sub(x.begun))
	if lines, ok := l.handler.(*jsonlines.Handler); ok {
		lines.WriteLine(now, level, "request", attrs)
		return
	}
	line := slog.NewRecord(now, level, "request", 0) // the source line would always be this one
	line.AddAttrs(attrs...)
	_ = l.handler.Handle(r.Context(), line)
}

// unverified reports whether a request failed because the keys for its token could not be had. Anybody
// can send such tokens, and the verifier itself logs the outage, once.
func unverified(cause error) bool {
	refused, ok := errors.AsType[*token.Error](cause)
	return ok && (refused.Code == token.KeysUnavailable || refused.Code == token.KeyPending)
}

// appendAttrs appends what the line says.
func appendAttrs(
	attrs []slog.Attr, x *exchange, r *http.Request, remote string, took time.Duration,
) []slog.Attr {
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
		attrs = append(attrs,
			slog.String("subject", x.Principal.Subject()),
			slog.String("client_id", x.Principal.ClientID()),
		)
	}
	if x.Cause != nil {
		attrs = append(attrs, slog.String("cause", x.Cause.Error()))
	}
	if x.stack != nil {
		attrs = append(attrs, slog.String("stack", string(x.stack)))
	}
	return attrs
}

// loggable removes from a client's text what is long enough to be a token in the wrong place.
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
