package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-isatty"
)

// page is the output of a command.
type page struct {
	w       io.Writer
	colours bool
}

// newPage returns a page that uses colours on a terminal, unless NO_COLOR (https://no-color.org) is
// set.
func newPage(w io.Writer) page {
	file, ok := w.(*os.File)
	return page{
		w,
		ok && isatty.IsTerminal(file.Fd()) && os.Getenv("NO_COLOR") == "" &&
			os.Getenv("TERM") != "dumb",
	}
}

// colour is the parameter of an SGR escape sequence (ECMA-48 §8.3.117).
type colour string

const (
	bold   colour = "1"
	dim    colour = "2"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	cyan   colour = "36"
)

func (p page) paint(c colour, text string) string {
	if !p.colours || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// line writes one line.
func (p page) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// cell is a cell of a table.
type cell struct {
	text   string
	colour colour
}

func plain(texts ...string) []cell {
	cells := make([]cell, len(texts))
	for i, text := range texts {
		cells[i].text = text
	}
	return cells
}

// table writes rows with aligned columns. Rows can differ in length; the last cell of a row can be
// of any width.
func (p page) table(indent string, rows [][]cell) {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i].text = printable(row[i].text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if i < len(row)-1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
			}
		}
	}
	for _, row := range rows {
		line := indent
		for i, c := range row {
			line += p.paint(c.colour, c.text)
			if i < len(row)-1 {
				line += strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2)
			}
		}
		fmt.Fprintln(p.w, strings.TrimRight(line, " "))
	}
}

// json writes a value for programs.
func (p page) json(value any) error {
	encoder := json.NewEncoder(p.w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// printable escapes characters that a terminal would interpret: documents and tokens can come from
// strangers.
func printable(text string) string {
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var out strings.Builder
	for _, r := range text {
		if hidden(r) {
			escaped := strconv.QuoteRuneToASCII(r)
			out.WriteString(escaped[1 : len(escaped)-1])
		} else {
			out.WriteRune(r)
		}
	}
	return out.String()
}

// hidden reports whether a character is a control character, or changes how others are displayed.
func hidden(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// count writes a number with its noun.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
