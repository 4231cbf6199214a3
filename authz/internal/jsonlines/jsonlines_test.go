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

// FuzzJSONLine: the line that Handler writes by itself says what slog's own handler would say, name
// by name.
func FuzzJSONLine(f *testing.F) {
	for _, text := range []string{"", "plain", `"`, `\`, "a\nb", "\x00\x1b[31m", "é\u2028\u0085", "\xff", "</script>", strings.Repeat("x", 2000)} {
		f.Add(text, int64(-1), 0.001)
		f.Add("cause", int64(500), 12345678.912)
	}
	f.Fuzz(func(t *testing.T, text string, whole int64, ms float64) {
		if ms != ms || ms > 1e15 || ms < 0 || ms > 0 && ms < 1e-3 {
			t.Skip("no duration of a request in milliseconds")
		}
		attrs := []slog.Attr{slog.String("text", text), slog.Int64("whole", whole), slog.Float64("ms", ms), slog.String("last", text)}
		at := time.Unix(1_700_000_000, whole%1e9)
		record := slog.NewRecord(at, slog.LevelError, text, 0)
		record.AddAttrs(attrs...)

		var own, theirs bytes.Buffer
		NewHandler(&own, nil).WriteLine(at, slog.LevelError, text, attrs)
		if err := slog.NewJSONHandler(&theirs, nil).Handle(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		if ownLine, theirLine := decoded(t, own.Bytes()), decoded(t, theirs.Bytes()); !reflect.DeepEqual(ownLine, theirLine) {
			t.Errorf("wrote %s\nexpected what slog writes: %s", own.Bytes(), theirs.Bytes())
		}
		line := strings.TrimSuffix(own.String(), "\n")
		if at := strings.IndexFunc(line, func(r rune) bool {
			return r < ' ' || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar && !strings.Contains(text, "\ufffd")
		}); at >= 0 {
			t.Errorf("the line can be taken for two: a control character at %d of %q", at, line)
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
