package main

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

type diffCommand struct {
	Old   string `arg:"" help:"The document before, or - for standard input."`
	New   string `arg:"" help:"The document after, or - for standard input."`
	Allow bool   `help:"Exit with 0 also if something is weakened: somebody has looked at it."`
}

// change is what has become of an operation.
type change struct {
	Change  verdict `json:"change"`
	Weakens bool    `json:"weakens"` // lets somebody in who was not let in before
	ID      string  `json:"operationId,omitempty"`
	Method  string  `json:"method"`
	Path    string  `json:"path"`
	// From is where it was, if that was elsewhere: POST /v1/messages.
	From string `json:"from,omitempty"`
	// Was and Now are who may call it, in words; "" before it was there and when it is no more.
	Was string `json:"was,omitempty"`
	Now string `json:"now,omitempty"`
	// Gains is what lets callers in who were not let in before, in words; Loses is what no longer does.
	Gains []string `json:"gains,omitempty"`
	Loses []string `json:"loses,omitempty"`
}

// verdict is a change in one word.
type verdict string

const (
	opened    verdict = "opened"    // nobody needs a credential any more
	weakened  verdict = "weakened"  // somebody may call it who might not before, whoever else may not any more
	tightened verdict = "tightened" // somebody may not call it any more, and nobody may who might not before
	added     verdict = "added"
	removed   verdict = "removed"
	moved     verdict = "moved" // to another method or path, or a path parameter has another name
)

// verdicts in the order in which they are told.
var verdicts = []struct {
	verdict verdict
	colour  colour
}{{opened, red}, {weakened, red}, {added, cyan}, {tightened, green}, {moved, cyan}, {removed, dim}}

func (c *diffCommand) Run(t *tool) error {
	if c.Old == "-" && c.New == "-" {
		return errors.New("both documents are to be read from standard input: name a file for one of them")
	}
	var old, now *openapi3.T
	var oldErr, nowErr error
	var loading sync.WaitGroup
	loading.Go(func() { old, oldErr = t.load(c.Old, false) })
	loading.Go(func() { now, nowErr = t.load(c.New, false) })
	loading.Wait()
	err := errors.Join(oldErr, nowErr)
	if err != nil {
		return err
	}
	changes := compare(describe(old), describe(now))
	weaker := 0
	for _, c := range changes {
		if c.Weakens {
			weaker++
		}
	}
	answer := map[string]any{"changes": append([]change{}, changes...), "weakened": weaker > 0}
	err = t.tell(answer, func(p page) { p.writeChanges(changes, weaker) })
	if err == nil && weaker > 0 && !c.Allow {
		return errFound
	}
	return err
}

// compare finds what has changed in who may call what.
//
// An operation is known by its address, for that is what callers know, and by its operationId, for that is what
// generated servers find its handler by. Where the two lead to different operations it is compared with both.
func compare(old, now []operation) (changes []change) {
	matched := map[*operation]bool{}
	byAddress, byID := map[string]*operation{}, named(old)
	for i := range old {
		byAddress[old[i].address()] = &old[i]
	}
	names := named(now)
	for _, o := range now {
		before := []*operation{byAddress[o.address()]}
		if names[o.ID] != nil {
			before = append(before, byID[o.ID])
		}
		before = slices.DeleteFunc(slices.Compact(before), func(o *operation) bool { return o == nil })
		for _, b := range before {
			matched[b] = true
			if c := o.changeFrom(*b); c.Change != "" {
				changes = append(changes, c)
			}
		}
		if len(before) == 0 {
			c := o.change(added)
			// Nobody had to be let in here before. That everybody is, somebody should have decided.
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
	slices.SortStableFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.Change.rank(), b.Change.rank()), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return changes
}

// named finds operations by operationId. None, or that of several, is no name: it finds nil.
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

// address is what a request can be told apart by: the names of path parameters are not seen in it.
func (o operation) address() string { return o.Method + " " + parameter.ReplaceAllString(o.Path, "{}") }

var parameter = regexp.MustCompile(`\{[^}]*\}`)

func (o operation) change(v verdict) change {
	return change{Change: v, ID: o.ID, Method: o.Method, Path: o.Path}
}

// changeFrom compares an operation with what it was. Its Change is "" if it is the same.
func (o operation) changeFrom(old operation) change {
	c := o.change("")
	if o.String() != old.String() {
		c.Change, c.From = moved, old.String()
	}
	c.Was, c.Now = old.access.String(), o.access.String()
	for _, n := range o.access.beyond(old.access) {
		c.Gains = append(c.Gains, n.String())
	}
	for _, n := range old.access.beyond(o.access) {
		c.Loses = append(c.Loses, n.String())
	}
	if o.access.asksLess(old.access) {
		c.Gains = append(c.Gains, signIn(o.access.stepUp))
	}
	if old.access.asksLess(o.access) {
		c.Loses = append(c.Loses, signIn(old.access.stepUp))
	}
	switch {
	case o.access.open() && !old.access.open():
		c.Change, c.Weakens = opened, true
	case !o.access.within(old.access):
		c.Change, c.Weakens = weakened, true
	case !old.access.within(o.access):
		c.Change = tightened
	}
	return c
}

func (v verdict) rank() int {
	for i := range verdicts {
		if verdicts[i].verdict == v {
			return i
		}
	}
	return len(verdicts)
}

func (p page) writeChanges(changes []change, weaker int) {
	if len(changes) == 0 {
		p.line("nothing changes in who may call what")
		return
	}
	var rows [][]cell
	for _, c := range changes {
		access := c.Now
		switch {
		case c.Was != "" && c.Now != "" && c.Was != c.Now:
			access = c.Was + " → " + c.Now
		case c.Now == "":
			access = c.Was
		}
		if c.From != "" {
			access += ", moved from " + c.From
		}
		mark := cell{}
		if c.Weakens {
			mark = cell{"!", red}
		}
		rows = append(rows, append([]cell{mark, {string(c.Change), verdicts[c.Change.rank()].colour}}, plain(c.Method, c.Path, c.ID, access)...))
	}
	p.table("", rows)
	p.line("")
	if weaker == 0 {
		p.line("%s, none of them weaker", count(len(changes), "change"))
	} else {
		p.line("%s, %d of them weaker (!): somebody may call what they might not before", count(len(changes), "change"), weaker)
	}
}
