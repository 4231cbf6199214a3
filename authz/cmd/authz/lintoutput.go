package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// fewPlaces is how many places of a group are shown unless --places is given.
const fewPlaces = 3

// findings writes the findings by rule and cause, with a summary.
func (p page) findings(document string, findings []finding, blocks map[string]string, places bool) {
	if len(findings) == 0 {
		p.line("%s: nothing found", printable(describeName(document)))
		return
	}
	var summary [][]cell
	for ofRule := range chunks(findings, func(f finding) string { return f.Rule }) {
		r, _ := ruleNamed(ofRule[0].Rule)
		p.line("%s: %s", p.paint(levelColour(r.level), r.level+" "+r.name), r.fix)
		p.places(document, ofRule, places)
		if block := blocks[r.name]; block != "" {
			p.line("  to paste:")
			for line := range strings.Lines(block) {
				p.line("    %s", strings.TrimRight(printable(line), "\n"))
			}
		}
		p.line("")
		summary = append(summary, []cell{
			{fmt.Sprint(len(ofRule)), bold}, {r.level, levelColour(r.level)}, {text: r.name},
		})
	}
	p.table("", summary)
}

// places writes the places of a rule's findings by cause: all of them, or the first few.
func (p page) places(document string, findings []finding, all bool) {
	byCause := map[string][]finding{}
	var causes []string
	for _, f := range findings {
		if byCause[f.cause] == nil {
			causes = append(causes, f.cause)
		}
		byCause[f.cause] = append(byCause[f.cause], f)
	}
	var rows [][]cell
	for _, cause := range causes {
		shown := byCause[cause]
		if !all {
			shown = shown[:min(len(shown), fewPlaces)]
		}
		for _, f := range shown {
			at := describeName(document)
			if f.Line > 0 {
				at = fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
			}
			rows = append(rows,
				[]cell{{at, dim}, {text: cmp.Or(f.Where, "-")}, {text: f.Problem}})
		}
		if more := len(byCause[cause]) - len(shown); more > 0 {
			rows = append(rows,
				[]cell{{fmt.Sprintf("and %d more of this kind (--places)", more), dim}})
		}
	}
	p.table("  ", rows)
}

func levelColour(level string) colour {
	switch level {
	case faultLevel:
		return red
	case warningLevel:
		return yellow
	}
	return cyan
}

// pasteBlocks returns, by rule, the text that fixes all of its findings.
func pasteBlocks(doc *openapi3.T, operations []operation, findings []finding) map[string]string {
	blocks := map[string]string{}
	for _, name := range []string{"undeclared-scope", "scopes-by-use"} {
		if slices.ContainsFunc(findings, func(f finding) bool { return f.Rule == name }) {
			blocks[name] = scopeLists(doc, operations)
		}
	}
	return blocks
}

// scopeLists returns the lists of scopes that schemes lack, in YAML.
func scopeLists(doc *openapi3.T, operations []operation) string {
	var b strings.Builder
	missing := missingScopes(doc, operations)
	for _, scheme := range slices.Sorted(maps.Keys(missing)) {
		fmt.Fprintf(
			&b,
			"components:\n  securitySchemes:\n    %s:\n      x-scopes:\n",
			yamlKey(scheme),
		)
		for _, scope := range missing[scheme] {
			fmt.Fprintf(&b, "        %s: TODO\n", yamlKey(scope))
		}
	}
	return b.String()
}

// missingScopes returns the scopes that operations require and schemes do not list, by scheme. An
// oauth2 scheme is left out, because it lists scopes by flow, and only its author knows the flow.
func missingScopes(doc *openapi3.T, operations []operation) map[string][]string {
	missing := map[string][]string{}
	for _, name := range usedSchemes(doc) {
		s := declaredScheme(doc, name)
		if s == nil {
			continue
		}
		listed := declaredScopes(s)
		for _, scope := range scopesOf(operations, name) {
			misspelt := slices.ContainsFunc(
				listed,
				func(l string) bool { return nearMiss(l, scope) },
			)
			if scope != "" && !strings.ContainsAny(scope, " \"\\") &&
				!slices.Contains(listed, scope) &&
				!misspelt {
				missing[name] = append(missing[name], scope)
			}
		}
	}
	return missing
}

// noticesOf returns the findings for other programs.
func noticesOf(findings []finding) (all []notice) {
	level := map[string]string{faultLevel: "error", warningLevel: "warning", noteLevel: "note"}
	for _, f := range findings {
		message := f.Problem
		if f.Where != "" {
			message = f.Where + ": " + message
		}
		if f.Fix != "" {
			message += ". Fix: " + f.Fix
		}
		all = append(all, notice{f.ID, f.Rule, level[f.Level], f.File, f.Line, f.Column, message})
	}
	return all
}

// describedRule is a rule in the output of --rules.
type describedRule struct {
	Rule  string `json:"rule"`
	Level string `json:"level"`
	Why   string `json:"why"`
	Fix   string `json:"fix"`
}

func describeRules() map[string][]describedRule {
	var all []describedRule
	for _, r := range rules {
		all = append(all, describedRule{r.name, r.level, r.why, r.fix})
	}
	return map[string][]describedRule{"rules": all}
}

func describeSARIF() (all []sarifRule) {
	for _, r := range rules {
		all = append(all, sarifRule{r.name, sarifText{r.why}, sarifText{r.fix}})
	}
	return all
}

func (p page) rules() {
	for _, r := range rules {
		p.line("%s %s", p.paint(levelColour(r.level), r.level), p.paint(bold, r.name))
		p.line("  %s", r.why)
		p.line("  Fix: %s.", r.fix)
	}
}
