package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

type lintCommand struct {
	Document string   `arg:"" optional:"" help:"OpenAPI document: a file, REVISION:FILE as in git, an https URL, or - for standard input."`
	Rules    bool     `help:"List the rules, why each exists and how to fix what it finds."`
	Skip     []string `help:"Rules to skip, separated by commas. Faults cannot be skipped."`
	Ignore   string   `help:"File of findings to suppress: a YAML list of {rule, where, reason}."`
	Places   bool     `help:"Show every place of a finding, not the first few."`
	FailOn   string   `enum:"fault,warning,note" default:"fault" help:"Lowest level that makes the exit code 1: fault (default), warning or note."`
	Format   string   `enum:"text,json,github,sarif" default:"text" help:"Output: text (default), json, github for annotations, or sarif."`
	Fix      bool     `help:"Write an overlay that fixes what can be fixed mechanically, instead of the findings."`
}

// finding is a fault or something unwise in a document.
type finding struct {
	ID      string `json:"id"` // does not depend on other findings
	Level   string `json:"level"`
	Rule    string `json:"rule"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Where   string `json:"where,omitempty"` // in the API: GET /messages; where several share it, in the first of them
	Problem string `json:"problem"`
	Fix     string `json:"fix,omitempty"`

	cause string // what findings of one group have in common
}

func (c *lintCommand) Run(ctx context.Context, t *tool) error {
	if c.Rules {
		return t.writeResult(describeRules(), func(p page) { p.rules() })
	}
	if c.Document == "" {
		return errors.New("the document is missing: authz lint openapi.yaml")
	}
	for _, name := range c.Skip {
		r, ok := ruleNamed(name)
		switch {
		case !ok:
			return fmt.Errorf("--skip: unknown rule %s: see authz lint --rules", name)
		case r.level == faultLevel:
			return fmt.Errorf("--skip: %s is a fault: the document would not be served", name)
		}
	}
	ignored, err := readSuppressions(c.Ignore)
	if err != nil {
		return err
	}
	doc, err := t.load(ctx, c.Document, everything, true)
	if broken, ok := errors.AsType[*brokenRefs](err); ok && !c.Fix {
		return c.answer(t, nil, broken.findings())
	}
	if err != nil {
		return err
	}
	operations := describe(doc, credentials(doc))
	if c.Fix {
		return writeFixes(t.out, doc, operations)
	}
	findings := lint(doc, operations, c.Skip)
	findings, unused := ignored.apply(suppressInDocument(operations, findings))
	for _, u := range unused {
		t.printError(fmt.Sprintf("%s: suppresses nothing: %s", c.Ignore, u))
	}
	return c.answer(t, pasteBlocks(doc, operations, findings), findings)
}

// answer writes the findings. blocks are texts to paste, by rule.
func (c *lintCommand) answer(t *tool, blocks map[string]string, findings []finding) error {
	var err error
	switch {
	case t.json || c.Format == "json":
		err = t.out.json(map[string]any{"findings": append([]finding{}, findings...)})
	case c.Format == "github":
		t.out.annotations(noticesOf(findings))
	case c.Format == "sarif":
		err = t.out.sarif(file(c.Document), describeSARIF(), noticesOf(findings))
	default:
		t.out.findings(c.Document, findings, blocks, c.Places)
	}
	limit := slices.Index(levels, c.FailOn)
	if err == nil &&
		slices.ContainsFunc(
			findings,
			func(f finding) bool { return slices.Index(levels, f.Level) <= limit },
		) {
		return errFound
	}
	return err
}

// lint returns the faults of a document, which would stop the server, and the findings of the
// rules.
func lint(doc *openapi3.T, operations []operation, skip []string) []finding {
	notes, err := authz.Inspect(doc)
	faults := faultsOf(err)
	all := faultFindings(faults)
	var checks []func(input)
	for _, r := range rules {
		if slices.Contains(skip, r.name) || r.level == faultLevel {
			continue
		}
		report := r.reportTo(&all)
		switch {
		case r.name == invalidElsewhere:
			reportInvalid(doc, faults, report)
		case r.name == unboundInput:
			for _, note := range notes {
				if note.Path != "" {
					report(note.At, note.Method+" "+note.Path, note.Problem, "")
				}
			}
		case r.name == nullConst:
			for _, note := range notes {
				if note.Path == "" {
					report(note.At, "", note.Problem, "")
				}
			}
		case r.name == unknownSuppression:
			reportSuppressions(operations, report)
		case r.input != nil:
			checks = append(checks, func(in input) { r.input(doc, in, report) })
		default:
			r.find(doc, operations, report)
		}
	}
	inputs(operations, func(in input) {
		for _, check := range checks {
			check(in)
		}
	})
	slices.SortStableFunc(all, func(a, b finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level)),
			cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(
				a.File,
				b.File,
			),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
		)
	})
	identify(all)
	return all
}

// reportTo returns a function that adds the findings of a rule to a list.
func (r rule) reportTo(all *[]finding) report {
	seen := map[finding]bool{}
	return func(at *openapi3.Location, where, problem, cause string) {
		f := finding{
			Level: r.level, Rule: r.name, Problem: problem, Fix: r.fix,
			cause: cmp.Or(cause, problem),
		}.at(at)
		if at != nil && seen[f] {
			return
		}
		seen[f] = true
		f.Where = where
		*all = append(*all, f)
	}
}

// identify gives each finding an ID that does not depend on lines.
func identify(findings []finding) {
	seen := map[string]int{}
	for i, f := range findings {
		id := findingID(f.Rule, f.Where, f.Problem)
		if seen[id]++; seen[id] > 1 {
			id = fmt.Sprint(id, "-", seen[id])
		}
		findings[i].ID = id
	}
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
		f := finding{Level: faultLevel, Problem: fault.Problem}.at(fault.At)
		if fault.Err != nil {
			at, cause := innermost(fault.Err)
			f = f.at(at)
			// The validator reports a place once for every path that leads to it.
			same := f
			same.Problem = cause.Error()
			if at != nil && seen[same] {
				continue
			}
			seen[same] = true
			// The lines after the first show the schema and the value.
			first, _, _ := strings.Cut(fault.Err.Error(), "\n")
			f.Problem += ": " + first
		}
		r := ruleOfFault(f.Problem)
		f.Rule, f.Fix, f.cause = r.name, r.fix, r.cause(f.Problem)
		if fault.Path != "" {
			f.Where = strings.TrimSpace(fault.Method + " " + fault.Path)
		}
		all = append(all, f)
	}
	return all
}

// ruleOfFault returns the first rule that matches the text of a fault. The last rule matches any.
func ruleOfFault(problem string) rule {
	i := slices.IndexFunc(
		rules,
		func(r rule) bool { return r.problem != nil && r.problem.MatchString(problem) },
	)
	return rules[i]
}

// cause returns what the findings of a fault's rule have in common. Undeclared scopes, for example,
// are one mistake in the list of scopes, however many operations require them.
func (r rule) cause(problem string) string {
	switch r.name {
	case "undeclared-scope", "unstated-security":
		return r.name
	}
	return problem
}

// innermost returns the error that the validator wraps, and its place in the document. Dozens of
// its error types have a field for the place, but share no interface.
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
		if origin, ok := field.Interface().(*openapi3.Origin); ok && origin != nil &&
			origin.Key != nil {
			at = origin.Key
		}
	}
	return at, cause
}

// reportSuppressions reports names in x-authz-lint-ignore that are not rules, or are rules of
// faults.
func reportSuppressions(operations []operation, report report) {
	for _, o := range operations {
		for _, name := range o.ignored() {
			if r, ok := ruleNamed(name); !ok || r.level == faultLevel {
				report(
					locate(o.spec.Origin, ignoreExtension),
					o.String(),
					name+" is not a rule that can be suppressed",
					"",
				)
			}
		}
	}
}
