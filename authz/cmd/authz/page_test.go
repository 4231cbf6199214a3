package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestColours: on a terminal and nowhere else, and not with NO_COLOR.
func TestColours(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals here:", err)
	}
	defer terminal.Close()
	if !newPage(terminal).colours {
		t.Error("no colours on a terminal")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if newPage(w).colours {
		t.Error("colours in a pipe")
	}
	t.Setenv("TERM", "dumb")
	if newPage(terminal).colours {
		t.Error("colours on a dumb terminal")
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if newPage(terminal).colours {
		t.Error("colours in spite of NO_COLOR")
	}
}

// TestColouredTablesAlign: colours do not change the widths of columns.
func TestColouredTablesAlign(t *testing.T) {
	rows := func() [][]cell {
		return [][]cell{
			{{"yes", green}, {"GET", ""}, {"/größe", bold}, {"public", yellow}},
			{{"no", red}, {"DELETE", ""}, {"/x", ""}, {"token with a", ""}},
		}
	}
	var without, with bytes.Buffer
	page{w: &without}.table("", rows())
	page{w: &with, colours: true}.table("", rows())
	stripped := with.String()
	for _, c := range []colour{green, bold, yellow, red} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+string(c)+"m", "")
	}
	stripped = strings.ReplaceAll(stripped, "\x1b[0m", "")
	const expected = "yes  GET     /größe  public\nno   DELETE  /x      token with a\n"
	if without.String() != expected || stripped != expected || with.String() == stripped {
		t.Errorf(
			"want\n%swithout colours\n%swith colours\n%q",
			expected,
			without.String(),
			with.String(),
		)
	}
}

// TestPrintable: documents and tokens cannot send control sequences to a terminal.
func TestPrintable(t *testing.T) {
	for text, expected := range map[string]string{
		"/größe → 日本":        "/größe → 日本",
		"/a\x1b[2J":          `/a\x1b[2J`,
		"/a\r/b\tc":          `/a\r/b\tc`,
		"admin\u202egnp.exe": `admin\u202egnp.exe`,
		"two\nlines":         "two\nlines",
	} {
		if got := printable(text); got != expected {
			t.Errorf("printable(%q) is %q, want %q", text, got, expected)
		}
	}
}

// TestWrappedTables: lines fit the page if their words do.
func TestWrappedTables(t *testing.T) {
	var out bytes.Buffer
	p := newPage(&out)
	p.width = 58
	p.table("", p.wrap([][]cell{
		plain("PATH", "ACCESS", "CONTROLS"),
		plain("/a", "token with read and write", "timeout 2m"),
		plain("/b", "", "one-long-word-that-cannot-be-broken and another"),
		plain("/c", "last"),
	}, 1))
	const want = `PATH  ACCESS               CONTROLS
/a    token with read and  timeout 2m
      write
/b                         one-long-word-that-cannot-be-broken
                           and another
/c    last
`
	if out.String() != want {
		t.Errorf("the table is\n%sexpected\n%s", &out, want)
	}
}
