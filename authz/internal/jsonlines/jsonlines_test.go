package jsonlines

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
)

// FuzzWriteLine compares a line with the one that slog writes, member by member.
func FuzzWriteLine(f *testing.F) {
	for _, text := range []string{"", "plain", `"`, `\`, "a\nb", "\x00\x1b[31m", "é\u2028\u0085",
		"\xff", "</script>", strings.Repeat("x", 2000)} {
		f.Add(text, int64(-1), 0.001)
		f.Add("cause", int64(500), 12345678.912)
	}
	f.Fuzz(func(t *testing.T, text string, whole int64, ms float64) {
		if ms != ms || ms > 1e15 || ms < 0 || ms > 0 && ms < 1e-3 {
			t.Skip("not a duration of a request in milliseconds")
		}
		if len(text) > MaxText {
			t.Skip("is cut off, see TestEscapedAndCut")
		}
		attrs := []slog.Attr{
			slog.String("text", text),
			slog.Int64("whole", whole),
			slog.Float64("ms", ms),
			slog.String("last", text),
		}
		at := time.Unix(1_700_000_000, whole%1e9)
		record := slog.NewRecord(at, slog.LevelError, text, 0)
		record.AddAttrs(attrs...)

		var line, slogLine bytes.Buffer
		NewHandler(&line, nil).WriteLine(at, slog.LevelError, text, attrs)
		if err := slog.NewJSONHandler(&slogLine, nil).Handle(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(decoded(t, line.Bytes()), decoded(t, slogLine.Bytes())) {
			t.Errorf("the line is %s\nwant that of slog: %s", line.Bytes(), slogLine.Bytes())
		}
		written := strings.TrimSuffix(line.String(), "\n")
		if at := strings.IndexFunc(written, func(r rune) bool {
			return r < ' ' || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar &&
				!strings.Contains(text, "\ufffd")
		}); at >= 0 {
			t.Errorf("a control character at %d of %q", at, written)
		}
	})
}

// decoded returns the members of a line in their order.
func decoded(t *testing.T, line []byte) (members []any) {
	d := json.NewDecoder(bytes.NewReader(line))
	for d.More() || len(members) == 0 {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		members = append(members, token)
	}
	return members
}

// What a terminal would interpret is escaped, also in lines of slog, and long texts are cut off.
func TestEscapedAndCut(t *testing.T) {
	const text = "a\u202eb\u0085c\x7fd\U000e0001é\u2028"
	const want = `a\u202eb\u0085c\u007fd\udb40\udc01é\u2028`
	long := strings.Repeat("é", MaxText)
	var line bytes.Buffer
	handler := NewHandler(&line, Options(slog.LevelInfo))
	attrs := []slog.Attr{slog.String("text", text), slog.String("long", long)}
	handler.WriteLine(time.Now(), slog.LevelInfo, text, attrs)
	slog.New(handler).Info(text, "text", text, "long", long, "error", errors.New(long))
	for line := range strings.Lines(line.String()) {
		if strings.Count(line, want) != 2 {
			t.Errorf("the line is %.300q, want %q in it twice", line, want)
		}
		if len(line) > 3*MaxText || strings.Contains(line, "�") {
			t.Errorf("the line has %d bytes: want long texts cut off between characters", len(line))
		}
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil || members["text"] != text {
			t.Errorf("the text is %q, %v, want %q", members["text"], err, text)
		}
	}
}
