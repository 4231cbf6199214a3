// Package jsonlines writes log lines of simple attributes in the format of [slog.JSONHandler],
// faster.
//
// Measured with a protected GET that hits the token cache, one line per request to a file, on one
// core: with slog's handler instead, a request costs 10 % more processor time (medians of two runs
// of 24 and 20 interleaved pairs, quartiles 0 % and 16 %, 1 % and 13 %).
package jsonlines

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
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

// lockedWriter serializes the lines of WriteLine and of slog. It escapes all characters that are
// not printable, such as U+202E and the control characters above ASCII, which a terminal would
// interpret. JSON only requires it of those below U+0020 (RFC 8259 §7).
type lockedWriter struct {
	io.Writer
	mu sync.Mutex
}

func (l *lockedWriter) Write(line []byte) (int, error) {
	if escaped, changed := escape(line); changed {
		if _, err := l.write(escaped); err != nil {
			return 0, err
		}
		return len(line), nil
	}
	return l.write(line)
}

func (l *lockedWriter) write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Writer.Write(line)
}

// escape escapes the characters of a JSON line that are not printable. They can only be in strings.
func escape(line []byte) (escaped []byte, changed bool) {
	plain := true
	for _, c := range line {
		plain = plain && c <= '~'
	}
	if plain {
		return nil, false
	}
	for _, r := range string(line) { // replaces invalid UTF-8 by U+FFFD
		switch {
		case r <= '~' || unicode.IsPrint(r):
			escaped = utf8.AppendRune(escaped, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			escaped = fmt.Appendf(escaped, `\u%04x\u%04x`, high, low)
		default:
			escaped = fmt.Appendf(escaped, `\u%04x`, r)
		}
	}
	return escaped, true
}

// MaxText is the length, in bytes, after which a text in a log line is cut off.
const MaxText = 8 << 10

// Cap cuts a text off after most bytes, between two characters.
func Cap(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most] + "…"
}

// capAttr cuts off the texts of slog's own lines: see [slog.HandlerOptions].
func capAttr(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Cap(a.Value.String(), MaxText))
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(Cap(err.Error(), MaxText))
		}
	}
	return a
}

// Options returns the options of handlers whose texts are cut off.
func Options(level slog.Leveler) *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: level, ReplaceAttr: capAttr}
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
			b = appendText(b, Cap(v.String(), MaxText))
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
