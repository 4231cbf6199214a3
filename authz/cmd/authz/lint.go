package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

type lintCommand struct {
	Document string   `arg:"" help:"OpenAPI document, or - for standard input."`
	Skip     []string `help:"Rules to leave out, separated by commas. Faults cannot be left out."`
}

// finding is something in a document that somebody should look at.
type finding struct {
	Severity string `json:"severity"` // fault: the document would not be served; unwise
	Rule     string `json:"rule"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Where    string `json:"where,omitempty"` // in the API: GET /messages; where several share it, in the first of them
	Problem  string `json:"problem"`
	Fix      string `json:"fix,omitempty"`
}

func (c *lintCommand) Run(ctx context.Context, t *tool) error {
	for _, name := range c.Skip {
		if !slices.ContainsFunc(rules, func(r rule) bool { return r.name == name }) {
			var names []string
			for _, r := range rules {
				names = append(names, r.name)
			}
			return fmt.Errorf("--skip: there is no rule %s: the rules are %s", name, strings.Join(names, ", "))
		}
	}
	doc, err := t.load(ctx, c.Document, true)
	if err != nil {
		return err
	}
	findings := lint(doc, c.Skip)
	err = t.tell(map[string]any{"findings": append([]finding{}, findings...)}, func(p page) { p.writeFindings(c.Document, findings) })
	if err == nil && findings != nil {
		return errFound
	}
	return err
}

// lint returns the faults of a document, which are those that would stop the server, and what the rules find.
func lint(doc *openapi3.T, skip []string) []finding {
	all := faultFindings(faults(doc))
	operations := describe(doc, credentials(doc))
	for _, r := range rules {
		if slices.Contains(skip, r.name) {
			continue
		}
		seen := map[finding]bool{}
		r.find(doc, operations, func(at *openapi3.Location, where, problem string) {
			f := finding{Severity: "unwise", Rule: r.name, Problem: problem, Fix: r.fix}.at(at)
			if at != nil && seen[f] {
				return
			}
			seen[f] = true
			f.Where = where
			all = append(all, f)
		})
	}
	slices.SortStableFunc(all, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return all
}

func (f finding) at(at *openapi3.Location) finding {
	if at != nil {
		f.File, f.Line, f.Column = at.File, at.Line, at.Column
	}
	return f
}

func faultFindings(faults []*authz.Fault) (all []finding) {
	seen := map[finding]bool{}
	for _, fault := range faults {
		f := finding{Severity: "fault", Rule: "fault", Problem: fault.Problem}.at(fault.At)
		if fault.Err != nil {
			at, cause := innermost(fault.Err)
			f = f.at(at)
			// The validator comes upon the same place by every way that leads to it.
			same := f
			same.Problem = cause.Error()
			if at != nil && seen[same] {
				continue
			}
			seen[same] = true
			// After a first line that says what is wrong, it shows the schema and the value.
			first, _, _ := strings.Cut(fault.Err.Error(), "\n")
			f.Problem += ": " + first
		}
		if fault.Path != "" {
			f.Where = strings.TrimSpace(fault.Method + " " + fault.Path)
		}
		all = append(all, f)
	}
	return all
}

// innermost finds what the validator wraps, and where in the document that is. Dozens of its error types have a field
// for the place, and nothing else in common.
func innermost(err error) (at *openapi3.Location, cause error) {
	for ; err != nil; err = errors.Unwrap(err) {
		cause = err
		value := reflect.Indirect(reflect.ValueOf(err))
		if value.Kind() != reflect.Struct {
			continue
		}
		field := value.FieldByName("Origin")
		if !field.IsValid() {
			continue
		}
		if origin, ok := field.Interface().(*openapi3.Origin); ok && origin != nil && origin.Key != nil {
			at = origin.Key
		}
	}
	return at, cause
}

func (p page) writeFindings(document string, findings []finding) {
	if len(findings) == 0 {
		p.line("%s: nothing found", printable(document))
		return
	}
	number := map[string]int{}
	for i := 0; i < len(findings); {
		first := findings[i]
		var rows [][]cell
		for ; i < len(findings) && findings[i].Rule == first.Rule; i++ {
			f := findings[i]
			at := document
			if f.Line > 0 {
				at = fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
			}
			rows = append(rows, []cell{{at, dim}, {text: cmp.Or(f.Where, "-")}, {text: f.Problem}})
			number[f.Severity]++
		}
		if first.Severity == "fault" {
			p.line("%s", p.paint(red, "fault: the document would not be served"))
		} else {
			p.line("%s: %s", p.paint(yellow, first.Rule), first.Fix)
		}
		p.table("  ", rows)
		p.line("")
	}
	var sums []string
	for _, severity := range slices.Sorted(maps.Keys(number)) {
		sums = append(sums, fmt.Sprintf("%d %s", number[severity], severity))
	}
	p.line("%s: %s", count(len(findings), "finding"), strings.Join(sums, ", "))
}
