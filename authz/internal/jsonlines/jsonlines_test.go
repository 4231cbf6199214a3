package jsonlines

import (
	"bytes"
	"encoding/json"
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
