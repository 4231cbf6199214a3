package main

import (
	"cmp"
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
	width   int // of a line, if it can be broken
}

// newPage returns a page that uses colours on a terminal, unless NO_COLOR (https://no-color.org) is
// set.
func newPage(w io.Writer) page {
	p := page{w: w, width: 80}
	if file, ok := w.(*os.File); ok && isatty.IsTerminal(file.Fd()) {
		p.colours = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		p.width = cmp.Or(terminalWidth(file), p.width)
	}
	return p
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

// leastColumn is the width to which a column is not broken further.
const leastColumn = 24

// wrap breaks the cells from a column on, so that the rows fit the page. A broken row continues in
// rows without the columns before.
func (p page) wrap(rows [][]cell, from int) (wrapped [][]cell) {
	rest, columns := p.width, 0
	for column := range from {
		widest := 0
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(printable(row[column].text)))
		}
		rest -= widest + 2
	}
	for _, row := range rows {
		columns = max(columns, len(row)-from)
	}
	width := max(leastColumn, rest/columns-2*(columns-1))
	for _, row := range rows {
		for more := true; more; {
			next := make([]cell, len(row))
			more = false
			for i := from; i < len(row); i++ {
				next[i].colour = row[i].colour
				row[i].text, next[i].text = breakLine(printable(row[i].text), width)
				more = more || next[i].text != ""
			}
			wrapped = append(wrapped, row)
			row = next
		}
	}
	return wrapped
}

// breakLine returns the words of a text that fit a line, at least one, and the rest.
func breakLine(text string, width int) (line, rest string) {
	end, count := 0, 0
	for i, r := range text + " " {
		if r == ' ' && (count <= width || end == 0) {
			end = i
		}
		count++
	}
	return text[:end], strings.TrimLeft(text[end:], " ")
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
