package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/oasgate/oasgate/authz"
)

type planCommand struct {
	Document string `arg:"" help:"OpenAPI document, or - for standard input."`
}

// planReport is what plan says to programs.
type planReport struct {
	Operations []plannedOperation `json:"operations"`
	Faults     int                `json:"faults"` // that keep the document from being served: see lint
}

type plannedOperation struct {
	ID     string `json:"operationId"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Class  string `json:"class"`  // public, optional, token, scopes, or credential: something other than a token
	Access string `json:"access"` // in words
	// Alternatives as the document states them: one must be satisfied, by all of its requirements.
	Alternatives [][]plannedRequirement `json:"alternatives"`
	StepUp       *plannedStepUp         `json:"stepUp,omitempty"`
}

// plannedStepUp is what is asked of how the caller signed in (RFC 9470).
type plannedStepUp struct {
	ACRValues []string `json:"acrValues,omitempty"`
	MaxAge    *int     `json:"maxAge,omitempty"` // seconds
}

type plannedRequirement struct {
	Scheme string   `json:"scheme"`
	Scopes []string `json:"scopes"`
}

func (c *planCommand) Run(ctx context.Context, t *tool) error {
	doc, err := t.load(ctx, c.Document, securityPart, false)
	if err != nil {
		return err
	}
	report := planReport{[]plannedOperation{}, len(securityFaults(doc))}
	for _, o := range describe(doc, credentials(doc)) {
		report.Operations = append(report.Operations, plannedOperation{
			o.ID, o.Method, o.Path, o.access.class(), o.access.String(), planned(o.Alternatives), (*plannedStepUp)(o.StepUp),
		})
	}
	if err := t.tell(report, func(p page) { p.writePlan(report.Operations) }); err != nil {
		return err
	}
	if report.Faults > 0 {
		t.complain(fmt.Sprintf("%s has %s that would keep it from being served: see authz lint %s", c.Document, count(report.Faults, "fault"), c.Document))
		return errFound
	}
	return nil
}

func planned(alternatives []authz.Alternative) [][]plannedRequirement {
	all := [][]plannedRequirement{}
	for _, alternative := range alternatives {
		requirements := []plannedRequirement{}
		for _, r := range alternative {
			requirements = append(requirements, plannedRequirement{r.Scheme, append([]string{}, r.Scopes...)})
		}
		all = append(all, requirements)
	}
	return all
}

func (p page) writePlan(operations []plannedOperation) {
	rows := [][]cell{{{"METHOD", bold}, {"PATH", bold}, {"OPERATION", bold}, {"ACCESS", bold}}}
	number := map[string]int{}
	for _, o := range operations {
		number[o.Class]++
		rows = append(rows, append(plain(o.Method, o.Path, o.ID), cell{o.Access, classColour(o.Class)}))
	}
	p.table("", rows)
	var sums []string
	for _, class := range []string{"public", "optional", "token", "scopes", "credential"} {
		if number[class] > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", number[class], class))
		}
	}
	p.line("")
	p.line("%s", strings.Join(append([]string{count(len(operations), "operation")}, sums...), ", "))
}

func classColour(class string) colour {
	switch class {
	case "public":
		return yellow
	case "optional":
		return cyan
	}
	return ""
}
