package command

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/mattn/go-isatty"
)

// maxRefusal is how many bytes of a refusal are shown.
const maxRefusal = 1 << 20

// show prints the response. The body of a success is printed unchanged, for files, or indented if
// it is JSON and a person reads it.
func (p *program) show(response *http.Response, o *callable, c *callOptions) error {
	if c.json {
		return p.showJSON(response, o)
	}
	out := p.stdout
	if response.StatusCode >= 400 {
		out = p.stderr
	}
	if c.include {
		fmt.Fprintf(out, "%s %s\n", response.Proto, response.Status)
		if err := response.Header.Write(out); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	if response.StatusCode < 400 {
		var err error
		if isJSON(response.Header.Get("Content-Type")) && isTerminal(p.stdout) {
			var body []byte
			if body, err = io.ReadAll(response.Body); err == nil {
				_, err = io.WriteString(p.stdout, indented(body))
			}
		} else {
			_, err = io.Copy(p.stdout, response.Body)
		}
		if err != nil {
			return fmt.Errorf("reading the response: %w", err)
		}
		return nil
	}
	refusal, err := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	text := string(refusal)
	if isTerminal(p.stderr) {
		text = indented(refusal)
	}
	fmt.Fprintln(p.stderr, strings.TrimSuffix(printable(text), "\n"))
	if err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	return statusError(o, response)
}

func statusError(o *callable, response *http.Response) error {
	return fmt.Errorf("%s %s returned %s", o.Method, o.Path, response.Status)
}

// showJSON prints the response as one JSON object. A body that is not JSON is a string in it.
func (p *program) showJSON(response *http.Response, o *callable) error {
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	shown := map[string]any{"status": response.StatusCode, "headers": response.Header}
	switch {
	case len(body) > 0 && json.Valid(body):
		shown["body"] = json.RawMessage(body)
	case len(body) > 0:
		shown["body"] = string(body)
	}
	if err := p.writeJSON(shown); err != nil || response.StatusCode < 400 {
		return err
	}
	return statusError(o, response)
}

// writeJSON prints a value for programs.
func (p *program) writeJSON(value any) error {
	encoder := json.NewEncoder(p.stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// indented returns JSON on indented lines, without control characters that a terminal would
// interpret, and other text unchanged.
func indented(body []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, bytes.TrimSpace(body), "", "  ") != nil {
		return string(body)
	}
	return printable(b.String()) + "\n"
}

func isJSON(contentType string) bool {
	media, _, _ := mime.ParseMediaType(contentType)
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

// columns is the width of the help: that of COLUMNS, which kong respects too, or 80.
func (p *program) columns() int {
	if n, err := strconv.Atoi(p.env.process("COLUMNS")); err == nil && n > 40 {
		return n
	}
	return 80
}

func (p *program) listOperations(operations []*callable, asJSON bool) error {
	if asJSON {
		type operation struct {
			ID      string `json:"operation"`
			Method  string `json:"method"`
			Path    string `json:"path"`
			Summary string `json:"summary,omitempty"`
			Access  string `json:"access"`
		}
		all := []operation{}
		for _, o := range operations {
			summary := firstLine(o.spec.Summary)
			all = append(all, operation{o.ID, o.Method, o.Path, summary, o.access()})
		}
		return p.writeJSON(all)
	}
	fmt.Fprintf(p.stdout, "Usage: %s call <operation> [--parameter value …] "+
		"[--body JSON|@file|-]\n\n"+
		"Calls an operation of the API with a token that has exactly the required scopes.\n"+
		"Prints the body of the response to stdout. If the status is 400 or more, prints\n"+
		"the body and the status to stderr, and exits with code 1.\n\n", p.Name)
	var rows [][]string
	for _, o := range operations {
		rows = append(rows, []string{
			o.ID, firstLine(o.spec.Summary), o.Method + " " + o.Path, o.access(),
		})
	}
	p.table(rows)
	_, err := fmt.Fprintf(p.stdout, "\nRun \"%s call <operation> --help\" for its parameters.\n",
		p.Name)
	return err
}

func (p *program) usage(o *callable) error {
	fmt.Fprintf(p.stdout, "Usage: %s call %s [flags]\n\n%s %s: %s\nAccess: %s\n",
		p.Name, o.ID, o.Method, o.Path, firstLine(o.spec.Summary), o.access())
	var rows [][]string
	for _, p := range o.parameters {
		kind := map[string]string{
			openapi3.TypeArray:  "value, repeatable",
			openapi3.TypeObject: "member=value, repeatable",
		}[p.kind]
		need := p.In
		if p.Required {
			need += "," + noBreak + "required"
		}
		description := strings.Join(strings.Fields(p.Description), " ")
		rows = append(rows, []string{
			fmt.Sprintf("--%s <%s>", p.flag, cmp.Or(kind, p.kind)), description + " (" + need + ")",
		})
	}
	if len(rows) > 0 {
		fmt.Fprint(p.stdout, "\nParameters:\n")
		p.table(rows)
	}
	fmt.Fprint(p.stdout, "\nFlags:\n")
	flags := flag.NewFlagSet(o.ID, flag.ContinueOnError)
	shown := o.options(p.Dev != nil)
	shown.define(flags, o.spec, environment{prefix: p.env.prefix})
	rows = nil
	flags.VisitAll(func(f *flag.Flag) {
		name, usage := "--"+f.Name, f.Usage
		if short := flags.Lookup(f.Name[:1]); short != nil && short.Value == f.Value {
			name = "-" + short.Name + ", " + name
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " Default: " + f.DefValue
		}
		if usage != "" { // short forms are printed with the long ones
			rows = append(rows, []string{name, usage})
		}
	})
	p.table(rows)
	return nil
}

// noBreak is a space at which lines do not break.
const noBreak = "\u00a0"

// table prints rows whose first column is a name. The columns are aligned if they fit into the
// width of the help. If not, they follow the name, each on as many lines as it needs.
func (p *program) table(rows [][]string) {
	if len(rows) == 0 {
		return
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	total := 0
	for _, width := range widths {
		total += width + 2
	}
	name := min(widths[0], maxName) + 4
	for _, row := range rows {
		line := "  " + row[0]
		if total <= p.columns() {
			column := 2
			for i, text := range row[1:] {
				column += widths[i] + 2
				line = pad(line, column) + text
			}
			p.line(line)
			continue
		}
		if utf8.RuneCountInString(line)+2 > name {
			p.line(line)
			line = ""
		}
		for _, text := range row[1:] {
			for _, part := range wrap(text, p.columns()-name) {
				p.line(pad(line, name) + part)
				line = ""
			}
		}
	}
}

// wrap breaks text at spaces into lines of at most width characters, apart from longer words.
func wrap(text string, width int) (lines []string) {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' }) {
		last := len(lines) - 1
		if last >= 0 && utf8.RuneCountInString(lines[last]+" "+word) <= width {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// maxName is the widest name beside which a description starts.
const maxName = 28

func (p *program) line(text string) {
	fmt.Fprintln(p.stdout, strings.TrimRight(strings.ReplaceAll(text, noBreak, " "), " "))
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
