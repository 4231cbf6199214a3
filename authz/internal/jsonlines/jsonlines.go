// Package jsonlines writes log lines of simple attributes in the format of [slog.JSONHandler],
// faster.
//
// Measured with a protected GET that hits the token cache, one line per request to a file, on one
// core: with slog's handler instead, a request costs 10 % more processor time (medians of two runs
// of 24 and 20 interleaved pairs, quartiles 0 % and 16 %, 1 % and 13 %).
package jsonlines

import (
	"encoding/json"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// Handler is a [slog.JSONHandler] with the additional method WriteLine.
type Handler struct {
	*slog.JSONHandler
	writer *lockedWriter
}

// NewHandler returns a Handler that writes to w.
func NewHandler(w io.Writer, options *slog.HandlerOptions) *Handler {
	writer := &lockedWriter{Writer: w}
	return &Handler{slog.NewJSONHandler(writer, options), writer}
}

// lockedWriter serializes the lines of WriteLine and of slog.
type lockedWriter struct {
	io.Writer
	mu sync.Mutex
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Writer.Write(p)
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// WriteLine writes a line of any level. Attributes that are neither strings nor numbers are written
// as strings. The keys must not need escaping.
func (h *Handler) WriteLine(at time.Time, level slog.Level, message string, attrs []slog.Attr) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b := append((*buffer)[:0], `{"time":"`...)
	b = at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"`...)
	b = append(b, level.String()...)
	b = append(b, `","msg":`...)
	b = appendText(b, message)
	for _, attr := range attrs {
		b = append(append(append(b, `,"`...), attr.Key...), `":`...)
		switch v := attr.Value; v.Kind() {
		case slog.KindInt64:
			b = strconv.AppendInt(b, v.Int64(), 10)
		case slog.KindFloat64:
			b = strconv.AppendFloat(b, v.Float64(), 'f', -1, 64)
		default:
			b = appendText(b, v.String())
		}
	}
	*buffer = append(b, '}', '\n')
	_, _ = h.writer.Write(*buffer)
}

// appendText appends a JSON string. It copies printable ASCII, which most strings are.
func appendText(b []byte, text string) []byte {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			escaped, _ := json.Marshal(text) // replaces invalid UTF-8 by U+FFFD
			return append(b, escaped...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}
