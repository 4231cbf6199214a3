package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

type planCommand struct {
	Document string   `arg:"" help:"OpenAPI document: a file, REVISION:FILE as in git, an https URL, or - for standard input."`
	Scope    []string `help:"Show only what a token with these scopes may call, separated by commas."`
	Token    string   `help:"Show only what the holder of the token in this file (- for standard input) may call. The token is not verified: see explain."`
	Without  []string `help:"Security schemes that the server disables (Config.Without), separated by commas."`
	Deny     bool     `name:"deny-unstated" help:"Assume that the server refuses all requests to operations without stated security (Config.Unstated)."`
	Format   string   `enum:"text,json,markdown" default:"text" help:"Output: text (default), json or markdown."`
}

// planReport is the result of plan, for programs.
type planReport struct {
	Operations []plannedOperation `json:"operations"`
	Scopes     int                `json:"scopes"` // that operations require
	Faults     int                `json:"faults"` // of who may call what, that keep the document from being served: see lint
}

type plannedOperation struct {
	ID     string `json:"operationId"`
	Method string `json:"method"`
	Path   string `json:"path"`
	HEAD   bool   `json:"head,omitempty"` // a GET operation that also answers HEAD, by the same policy
	// Class is public, optional, token, scopes, credential (something other than a token), nobody
	// or unstated.
	Class  string `json:"class"`
	Access string `json:"access"` // in words
	// Alternatives are those of the document. One must be satisfied, with all of its requirements.
	Alternatives [][]plannedRequirement `json:"alternatives"`
	StepUp       *plannedStepUp         `json:"stepUp,omitempty"`
	// Introspect, Stream, OutlivesToken, MaxBody and Timeout are the x-authz-… extensions of these
	// names.
	Introspect    bool   `json:"introspect,omitempty"`
	Stream        bool   `json:"stream,omitempty"`
	OutlivesToken bool   `json:"outlivesToken,omitempty"`
	MaxBody       int64  `json:"maxBody,omitempty"` // bytes
	Timeout       string `json:"timeout,omitempty"` // 2m, or none
}

// plannedStepUp is what is required of how the caller signed in (RFC 9470).
type plannedStepUp struct {
	ACRValues []string `json:"acrValues,omitempty"`
	MaxAge    *int     `json:"maxAge,omitempty"` // seconds
}

type plannedRequirement struct {
	Scheme string   `json:"scheme"`
	Scopes []string `json:"scopes"`
}

func (c *planCommand) Run(ctx context.Context, t *tool) error {
	if c.Document == standardInput && c.Token == standardInput {
		return errors.New(
			"both the document and the token are from standard input: name a file for one of them",
		)
	}
	doc, err := t.load(ctx, c.Document, securityPart, false)
	if err != nil {
		return err
	}
	holder, err := c.holder(t)
	if err != nil {
		return err
	}
	faults, err := c.faults(doc)
	if err != nil {
		return err
	}
	report := c.report(doc, holder)
	report.Faults = len(faults)
	switch {
	case t.json || c.Format == "json":
		err = t.out.json(report)
	case c.Format == "markdown":
		t.out.markdownPlan(report)
	default:
		t.out.plan(report)
	}
	if err != nil {
		return err
	}
	if report.Faults > 0 {
		t.printError(fmt.Sprintf("%s has %s and cannot be served: see authz lint %[1]s",
			c.Document, count(report.Faults, "fault")))
		return errFound
	}
	return nil
}

// report returns the operations that the holder may call, or all for nil.
func (c *planCommand) report(doc *openapi3.T, holder func(atom) bool) planReport {
	report := planReport{Operations: []plannedOperation{}}
	scopes := map[string]bool{}
	for _, o := range describe(doc, credentials(doc)) {
		nobody := c.restrict(doc, &o)
		if holder != nil && (nobody || o.access.missing(holder) != nil) {
			continue
		}
		for _, n := range o.access.needs {
			for _, scope := range n.scopes() {
				if !nobody {
					scopes[scope] = true
				}
			}
		}
		p := plannedOperation{
			ID: o.ID, Method: o.Method, Path: o.Path, Class: o.access.class(),
			Access:       o.access.String(),
			Alternatives: planned(o.Alternatives), StepUp: (*plannedStepUp)(o.StepUp),
			HEAD:       o.Method == http.MethodGet && o.item.Head == nil,
			Introspect: o.Introspect, Stream: o.Stream, OutlivesToken: o.OutlivesToken,
			MaxBody: o.MaxBody, Timeout: timeout(o.Timeout),
		}
		switch {
		case nobody:
			p.Class, p.Access = "nobody", "nobody: all requests are refused"
		case o.unstated:
			p.Class, p.Access = "unstated", "not stated: the gate refuses the document"
		}
		report.Operations = append(report.Operations, p)
	}
	report.Scopes = len(scopes)
	return report
}

// faults returns the faults in who may call what.
func (c *planCommand) faults(doc *openapi3.T) ([]*authz.Fault, error) {
	for _, name := range c.Without {
		if declaredScheme(doc, name) == nil {
			return nil, fmt.Errorf("--without: %s is not a security scheme of the document", name)
		}
	}
	config := authz.Config{Document: doc, Without: c.Without}
	if c.Deny {
		config.Unstated = authz.DenyUnstated
	}
	_, err := config.CompileSecurity()
	return faultsOf(err), nil
}

// restrict applies --without and --deny-unstated to an operation, and reports whether nobody may
// call it. An AND is switched off if one part of it is.
func (c *planCommand) restrict(doc *openapi3.T, o *operation) (nobody bool) {
	if o.unstated {
		return c.Deny
	}
	had := len(o.Alternatives)
	off := func(a authz.Alternative) bool {
		return slices.ContainsFunc(a, func(r authz.Requirement) bool {
			return slices.Contains(c.Without, r.Scheme)
		})
	}
	o.Alternatives = slices.DeleteFunc(slices.Clone(o.Alternatives), off)
	if len(o.Alternatives) < had {
		o.access = accessOf(o.Operation, credentials(doc))
	}
	return had > 0 && len(o.Alternatives) == 0
}

// holder returns a function that reports what the given scopes or token grant, or nil if neither is
// given.
func (c *planCommand) holder(t *tool) (func(atom) bool, error) {
	scopes := c.Scope
	switch {
	case c.Token == "" && c.Scope == nil:
		return nil, nil
	case c.Token != "" && c.Scope != nil:
		return nil, errors.New("expected --scope or --token, received both")
	case c.Token != "":
		text, err := readTokenFile(c.Token, t.stdin)
		if err != nil {
			return nil, fmt.Errorf("--token: %w", err)
		}
		raw, _ := cleanToken(text)
		claims := unverified(raw)
		if claims.alg == "" {
			return nil, errors.New(
				"--token: expected a JWT: only the issuer knows the scopes of other tokens",
			)
		}
		scopes = claims.scopes()
	}
	return func(a atom) bool {
		return a.credential == bearer && (a.scope == "" || slices.Contains(scopes, a.scope))
	}, nil
}

func readTokenFile(name string, stdin io.Reader) (string, error) {
	const most = 1 << 20
	in := stdin
	if name != standardInput {
		file, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, most))
	return string(text), err
}

func planned(alternatives []authz.Alternative) [][]plannedRequirement {
	all := [][]plannedRequirement{}
	for _, alternative := range alternatives {
		requirements := []plannedRequirement{}
		for _, r := range alternative {
			requirements = append(
				requirements,
				plannedRequirement{r.Scheme, append([]string{}, r.Scopes...)},
			)
		}
		all = append(all, requirements)
	}
	return all
}

// summary counts the operations by class, and the scopes: 8 operations: 1 public, 1 any token, 6
// with scopes (3 scopes).
func (r planReport) summary() string {
	number := map[string]int{}
	for _, o := range r.Operations {
		number[o.Class]++
	}
	var parts []string
	for _, class := range []struct{ name, words string }{
		{"public", "public"}, {"optional", "optional token"}, {"token", "any token"},
		{"scopes", "with scopes"},
		{"credential", "other credentials"}, {"nobody", "nobody"},
		{"unstated", "not stated"},
	} {
		if n := number[class.name]; n > 0 {
			part := fmt.Sprintf("%d %s", n, class.words)
			if class.name == "scopes" {
				part += fmt.Sprintf(" (%s)", count(r.Scopes, "scope"))
			}
			parts = append(parts, part)
		}
	}
	text := count(len(r.Operations), "operation")
	if parts != nil {
		text += ": " + strings.Join(parts, ", ")
	}
	return text
}

// methods returns the methods that the operation answers.
func (o plannedOperation) methods() string {
	if o.HEAD {
		return o.Method + ", HEAD"
	}
	return o.Method
}

// controls describes the x-authz-… extensions of an operation.
func (o plannedOperation) controls() string {
	var all []string
	if o.Introspect {
		all = append(all, "introspection of each token")
	}
	if o.MaxBody > 0 {
		all = append(all, "body up to "+formatSize(o.MaxBody))
	}
	if o.Stream {
		all = append(all, "streamed body")
	}
	if o.Timeout != "" {
		all = append(all, "timeout "+o.Timeout)
	}
	if o.OutlivesToken {
		all = append(all, "response outlives the token")
	}
	return strings.Join(all, ", ")
}

// formatSize is the inverse of [authz.ParseSize].
func formatSize(bytes int64) string {
	for _, unit := range []struct {
		name string
		bits int
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if bytes&(1<<unit.bits-1) == 0 {
			return fmt.Sprint(bytes>>unit.bits, unit.name)
		}
	}
	return count(int(bytes), "byte")
}

// timeout formats x-authz-timeout: 2m, none, or "" for the server's own.
func timeout(d time.Duration) string {
	switch d {
	case 0:
		return ""
	case authz.NoTimeout:
		return "none"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func (r planReport) hasControls() bool {
	return slices.ContainsFunc(r.Operations, func(o plannedOperation) bool {
		return o.controls() != ""
	})
}

func (p page) plan(report planReport) {
	header := []cell{{"METHOD", bold}, {"PATH", bold}, {"OPERATION", bold}, {"ACCESS", bold}}
	controls := report.hasControls()
	if controls {
		header = append(header, cell{"CONTROLS", bold})
	}
	rows := [][]cell{header}
	for _, o := range report.Operations {
		row := append(plain(o.methods(), o.Path, o.ID), cell{o.Access, classColour(o.Class)})
		if controls {
			row = append(row, cell{text: o.controls()})
		}
		rows = append(rows, row)
	}
	p.table("", p.wrap(rows, 3))
	p.line("")
	p.line("%s", report.summary())
}

func (p page) markdownPlan(report planReport) {
	header := []string{"method", "path", "operation", "access"}
	controls := report.hasControls()
	if controls {
		header = append(header, "controls")
	}
	rows := [][]string{header}
	for _, o := range report.Operations {
		row := []string{o.methods(), "`" + o.Path + "`", o.ID, o.Access}
		if controls {
			row = append(row, o.controls())
		}
		rows = append(rows, row)
	}
	p.markdown(rows)
	p.line("")
	p.line("%s", report.summary())
}

func classColour(class string) colour {
	switch class {
	case "public", "unstated":
		return yellow
	case "optional":
		return cyan
	}
	return ""
}
