package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

type diffCommand struct {
	Old    string `arg:"" help:"The document before: a file, REVISION:FILE as in git, an https URL, or - for standard input."`
	New    string `arg:"" help:"The document after, named in the same ways."`
	FailOn string `enum:"weakened,tightened,any,none" default:"weakened" help:"Changes that make the exit code 1: weakened (default), tightened, any or none."`
	Format string `enum:"text,json,markdown,github,sarif" default:"text" help:"Output: text (default), json, markdown for a comment, github for annotations, or sarif."`
}

// change is one difference between two documents.
type change struct {
	ID        string  `json:"id"` // does not depend on other changes
	Change    verdict `json:"change"`
	Weakens   bool    `json:"weakens"`  // a caller or a request is accepted that was refused
	Tightens  bool    `json:"tightens"` // a caller or a request is refused that was accepted
	Operation string  `json:"operationId,omitempty"`
	Method    string  `json:"method,omitempty"`
	Path      string  `json:"path,omitempty"` // or the place of a security scheme
	// From is the operation's former method and path, if they have changed.
	From string `json:"from,omitempty"`
	// Was and Now describe who may call it. Was is empty for a new operation, Now for a removed
	// one.
	Was string `json:"was,omitempty"`
	Now string `json:"now,omitempty"`
	// Gains describes the callers that are newly admitted, Loses those that are no longer admitted.
	Gains []string `json:"gains,omitempty"`
	Loses []string `json:"loses,omitempty"`
	// Details are the differences in the request's schemas and in other controls.
	Details []detail `json:"details,omitempty"`
	File    string   `json:"file,omitempty"`
	Line    int      `json:"line,omitempty"`
}

// detail is a difference in one place of a request or of a security scheme.
type detail struct {
	Where    string `json:"where"` // body.user.name, query limit
	Problem  string `json:"problem"`
	Weakens  bool   `json:"weakens"`
	Tightens bool   `json:"tightens"`
}

// verdict names the kind of a change.
type verdict string

const (
	opened    verdict = "opened"   // a credential is no longer required
	weakened  verdict = "weakened" // callers are admitted that were refused
	looser    verdict = "validation weakened"
	changed   verdict = "changed" // a scheme or a control that has no direction
	added     verdict = "added"
	tightened verdict = "tightened" // callers are refused that were admitted
	stricter  verdict = "validation tightened"
	moved     verdict = "moved" // to another method or path
	removed   verdict = "removed"
)

// verdicts in the order in which they are printed.
var verdicts = []struct {
	verdict verdict
	colour  colour
}{
	{
		opened,
		red,
	}, {weakened, red}, {looser, red}, {changed, yellow}, {added, cyan}, {tightened, green},
	{stricter, green}, {moved, cyan}, {removed, dim},
}

func (v verdict) rank() int {
	for i := range verdicts {
		if verdicts[i].verdict == v {
			return i
		}
	}
	return len(verdicts)
}

// rule returns the verdict as an identifier, such as validation-weakened.
func (v verdict) rule() string { return strings.ReplaceAll(string(v), " ", "-") }

// comparison is the result of diff.
type comparison struct {
	Changes []change `json:"changes"`
	// Uncompared are the operations whose validation could not be compared.
	Uncompared []uncompared `json:"uncompared,omitempty"`
	Weakened   bool         `json:"weakened"`
}

// uncompared is an operation whose requests could not be compared.
type uncompared struct {
	Method  string `json:"method"`
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

func (c *diffCommand) Run(ctx context.Context, t *tool) error {
	if c.Old == standardInput && c.New == standardInput {
		return errors.New(
			"both documents are from standard input: name a file for one of them",
		)
	}
	places := c.Format == "github" || c.Format == "sarif"
	var old, now *openapi3.T
	var oldErr, nowErr error
	var loading sync.WaitGroup
	loading.Go(func() { old, oldErr = t.load(ctx, c.Old, requestPart, false) })
	loading.Go(func() { now, nowErr = t.load(ctx, c.New, requestPart, places) })
	loading.Wait()
	if err := errors.Join(oldErr, nowErr); err != nil {
		return err
	}
	answer := compare(old, now)
	if !places || len(t.overlays) > 0 { // lines of overlaid documents are not those of the file
		for i := range answer.Changes {
			answer.Changes[i].File, answer.Changes[i].Line = "", 0
		}
	}
	if err := c.write(t, answer); err != nil {
		return err
	}
	switch {
	case len(answer.Uncompared) > 0:
		return fmt.Errorf("validation not compared: %s", count(len(answer.Uncompared), "operation"))
	case slices.ContainsFunc(answer.Changes, c.fails):
		return errFound
	}
	return nil
}

// fails reports whether a change makes the exit code 1.
func (c *diffCommand) fails(change change) bool {
	switch c.FailOn {
	case "weakened":
		return change.Weakens
	case "tightened":
		return change.Weakens || change.Tightens
	}
	return c.FailOn == "any"
}

// compare returns the changes in who may call what, and in what a request may contain.
func compare(old, now *openapi3.T) comparison {
	before, after := comparableCredentials(old, now)
	was, is := describe(old, before), describe(now, after)
	pairs, changes := match(withImpliedHEAD(was, is), withImpliedHEAD(is, was))
	for _, p := range pairs {
		if c := p.access(); c.Change != "" {
			changes = append(changes, c)
		}
		changes = append(changes, p.controls()...)
	}
	changes = append(changes, schemeChanges(old, now)...)
	validation, missed := compareRequests(old, now, pairs)
	changes = append(changes, validation...)
	slices.SortStableFunc(changes, func(a, b change) int {
		return cmp.Or(
			cmp.Compare(a.Change.rank(), b.Change.rank()),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Method, b.Method),
		)
	})
	answer := comparison{Changes: append([]change{}, changes...), Uncompared: missed}
	seen := map[string]int{}
	for i, c := range answer.Changes {
		kind := "access"
		if c.Details != nil {
			kind = "details"
		}
		id := findingID(c.Change.rule(), kind, c.Method, address(c.Path), c.From)
		if seen[id]++; seen[id] > 1 { // compared with several operations
			id = fmt.Sprint(id, "-", seen[id])
		}
		answer.Changes[i].ID = id
		answer.Weakened = answer.Weakened || c.Weakens
	}
	return answer
}

// withImpliedHEAD adds the HEAD operations that only the other document declares. Without a
// declaration, HEAD is answered as GET, by GET's policy (RFC 9110 §9.3.2).
func withImpliedHEAD(operations, other []operation) []operation {
	declared := map[string]bool{} // by HEAD's address: whether these operations have it
	for _, o := range other {
		if o.Method == http.MethodHead {
			declared[o.address()] = false
		}
	}
	for _, o := range operations {
		if o.Method == http.MethodHead {
			declared[o.address()] = true
		}
	}
	all := slices.Clone(operations)
	for _, o := range operations {
		if o.Method != http.MethodGet {
			continue
		}
		o.Method, o.ID = http.MethodHead, "" // the ID is GET's
		if has, asked := declared[o.address()]; asked && !has {
			all = append(all, o)
		}
	}
	return all
}

// pair is an operation and its former version.
type pair struct{ old, now operation }

// match pairs each operation with its former versions, and returns the added and removed operations
// as changes.
//
// An operation is identified by its address, which callers use, and by its operationId, by which
// generated servers find its handler. If the two identify different operations, it is compared with
// both. Paths that differ only in parameter names have the same address, and routers differ in
// which of them they choose, so an operation without a counterpart of the same name is compared
// with all of them.
func match(old, now []operation) (pairs []pair, changes []change) {
	matched := map[*operation]bool{}
	byName, byAddress, byID := map[string]*operation{}, map[string][]*operation{}, named(old)
	for i := range old {
		o := &old[i]
		byName[o.String()] = o
		byAddress[o.address()] = append(byAddress[o.address()], o)
	}
	names := named(now)
	for _, o := range now {
		var before []*operation
		if same := byName[o.String()]; same != nil {
			before = append(before, same)
		} else {
			before = append(before, byAddress[o.address()]...)
		}
		if b := byID[o.ID]; names[o.ID] != nil && b != nil && !slices.Contains(before, b) {
			before = append(before, b)
		}
		for _, b := range before {
			matched[b] = true
			pairs = append(pairs, pair{*b, o})
		}
		if len(before) == 0 {
			c := o.change(added)
			// Nobody could call it before, so an operation that everybody may call needs a
			// decision.
			c.Weakens = o.access.open()
			c.Now = o.access.String()
			changes = append(changes, c)
		}
	}
	for i := range old {
		if o := &old[i]; !matched[o] {
			c := o.change(removed)
			c.Was = o.access.String()
			changes = append(changes, c)
		}
	}
	return pairs, changes
}

// named returns the operations by operationId. If an ID is empty or not unique, its entry is nil.
func named(operations []operation) map[string]*operation {
	names := map[string]*operation{"": nil}
	for i := range operations {
		o := &operations[i]
		if _, taken := names[o.ID]; taken {
			o = nil
		}
		names[operations[i].ID] = o
	}
	return names
}

// address identifies an operation as requests do, without the names of path parameters.
func (o operation) address() string { return o.Method + " " + address(o.Path) }

func address(path string) string { return parameter.ReplaceAllString(path, "{}") }

var parameter = regexp.MustCompile(`\{[^}]*\}`)

func (o operation) change(v verdict) change {
	c := change{Change: v, Operation: o.ID, Method: o.Method, Path: o.Path}
	if at := locate(o.spec.Origin, ""); at != nil {
		c.File, c.Line = at.File, at.Line
	}
	return c
}

// change returns a change of the pair's operation.
func (p pair) change(v verdict) change {
	c := p.now.change(v)
	if p.now.address() != p.old.address() {
		c.From = p.old.String()
	}
	return c
}

// access compares who may call the operation. If nothing has changed, the Change is "".
func (p pair) access() change {
	c := p.change("")
	if c.From != "" {
		c.Change = moved
	}
	was, now := p.old.access, p.now.access
	c.Was, c.Now = was.String(), now.String()
	for _, n := range now.beyond(was) {
		c.Gains = append(c.Gains, n.String())
	}
	for _, n := range was.beyond(now) {
		c.Loses = append(c.Loses, n.String())
	}
	if now.acceptsWeakerSignIn(was) {
		c.Gains = append(c.Gains, signIn(now.stepUp))
	}
	if was.acceptsWeakerSignIn(now) {
		c.Loses = append(c.Loses, signIn(was.stepUp))
	}
	c.Weakens, c.Tightens = !now.within(was), !was.within(now)
	switch {
	case now.open() && !was.open():
		c.Change = opened
	case c.Weakens:
		c.Change = weakened
	case c.Tightens:
		c.Change = tightened
	}
	return c
}
