package main

import (
	"fmt"
	"path"
	"strings"
)

// write writes the comparison in the requested format.
func (c *diffCommand) write(t *tool, answer comparison) error {
	switch {
	case t.json || c.Format == "json":
		return t.out.json(answer)
	case c.Format == "markdown":
		t.out.markdownChanges(answer)
	case c.Format == "github":
		t.out.annotations(answer.notices())
	case c.Format == "sarif":
		return t.out.sarif(file(c.New), verdictRules(), answer.notices())
	default:
		t.out.changes(answer)
	}
	return nil
}

// file returns the file in a document's name: that of main:openapi.yaml is openapi.yaml.
func file(name string) string {
	if _, after, ok := strings.Cut(name, ":"); ok {
		name = strings.TrimPrefix(after, "//")
	}
	return path.Clean(name)
}

// access describes who may call the operation, before and after.
func (c change) access() string {
	text := c.Now
	switch {
	case c.Was != "" && c.Now != "" && c.Was != c.Now:
		text = c.Was + " → " + c.Now
	case c.Now == "":
		text = c.Was
	}
	if c.From != "" && c.Details == nil {
		text += ", moved from " + c.From
	}
	return text
}

func (d detail) String() string { return strings.TrimPrefix(d.Where+": "+d.Problem, ": ") }

// summary counts the changes.
func (a comparison) summary() string {
	if len(a.Changes) == 0 {
		return "no changes in who may call what, or in what a request may contain"
	}
	weaker := 0
	for _, c := range a.Changes {
		if c.Weakens {
			weaker++
		}
	}
	if weaker == 0 {
		return fmt.Sprintf("%s, none weaker", count(len(a.Changes), "change"))
	}
	return fmt.Sprintf("%s, %d weaker (!): a caller or a request is accepted that was refused "+
		"before",
		count(len(a.Changes), "change"), weaker)
}

func (p page) changes(a comparison) {
	var rows [][]cell
	flush := func() {
		p.table("", rows)
		rows = nil
	}
	for _, c := range a.Changes {
		mark := cell{}
		if c.Weakens {
			mark = cell{"!", red}
		}
		access := c.access()
		if c.Details != nil {
			access = count(len(c.Details), "difference")
			if len(c.Details) == 1 {
				access = c.Details[0].String()
			}
		}
		rows = append(
			rows,
			append([]cell{mark, {string(c.Change), verdicts[c.Change.rank()].colour}},
				plain(c.Method, c.Path, c.Operation, access)...),
		)
		if len(c.Details) > 1 {
			for _, d := range c.Details {
				sign := " "
				if d.Weakens {
					sign = "!"
				}
				rows = append(rows, []cell{{text: "   " + sign + " " + d.String(), colour: dim}})
			}
		}
	}
	flush()
	if len(a.Changes) > 0 {
		p.line("")
	}
	p.line("%s", a.summary())
	for _, u := range a.Uncompared {
		p.line(
			"%s %s %s: %s",
			p.paint(red, "validation not compared:"),
			printable(u.Method),
			printable(u.Path),
			printable(u.Problem),
		)
	}
}

func (p page) markdownChanges(a comparison) {
	p.line("**%s**", a.summary())
	if len(a.Changes) > 0 {
		p.line("")
		rows := [][]string{{"", "change", "operation", "who may call it"}}
		for _, c := range a.Changes {
			mark := ""
			if c.Weakens {
				mark = "⚠️"
			}
			text := c.access()
			if c.Details != nil {
				var all []string
				for _, d := range c.Details {
					all = append(all, d.String())
				}
				text = strings.Join(all, "; ")
			}
			rows = append(
				rows,
				[]string{
					mark,
					string(c.Change),
					strings.TrimSpace("`" + strings.TrimSpace(c.Method+" "+c.Path) + "`"),
					text,
				},
			)
		}
		p.markdown(rows)
	}
	for i, u := range a.Uncompared {
		if i == 0 {
			p.line("")
		}
		p.line(
			"- validation not compared: `%s %s`: %s",
			printable(u.Method),
			printable(u.Path),
			printable(u.Problem),
		)
	}
}

// notices returns the changes for other programs.
func (a comparison) notices() (all []notice) {
	for _, c := range a.Changes {
		n := notice{id: c.ID, rule: c.Change.rule(), level: "note", file: c.File, line: c.Line}
		if c.Weakens {
			n.level = "error"
		}
		n.message = strings.TrimSpace(c.Method+" "+c.Path) + ": " + c.access()
		if c.Details != nil {
			var all []string
			for _, d := range c.Details {
				all = append(all, d.String())
			}
			n.message = strings.TrimSpace(c.Method+" "+c.Path) + ": " + strings.Join(all, "; ")
		}
		all = append(all, n)
	}
	for _, u := range a.Uncompared {
		all = append(all, notice{
			id: findingID(
				"not-compared",
				u.Method,
				address(u.Path),
			), rule: "not-compared", level: "error",
			message: fmt.Sprintf("%s %s: validation not compared: %s", u.Method, u.Path, u.Problem),
		})
	}
	return all
}

func verdictRules() []sarifRule {
	text := map[verdict]string{
		opened:   "A credential is no longer required.",
		weakened: "Callers are admitted that were refused before.",
		looser:   "Requests are accepted that were refused before.",
		changed:  "A security scheme or a control has changed.", added: "An operation was added.",
		tightened: "Callers are refused that were admitted before.",
		stricter:  "Requests are refused that were accepted before.",
		moved:     "An operation has another method or path.", removed: "An operation was removed.",
	}
	var all []sarifRule
	for _, v := range verdicts {
		all = append(
			all,
			sarifRule{
				v.verdict.rule(),
				sarifText{text[v.verdict]},
				sarifText{"See authz diff --help."},
			},
		)
	}
	return append(
		all,
		sarifRule{
			"not-compared",
			sarifText{"What a request may contain could not be compared."},
			sarifText{"See authz lint."},
		},
	)
}
