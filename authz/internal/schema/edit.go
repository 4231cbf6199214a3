package schema

import (
	"bytes"
	"slices"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

// An edit is a change to the body that makes generated code bind the validated value.
type edit struct {
	at, end int
	kind    editKind
	text    string
}

type editKind uint8

const (
	// claim marks a member that a schema knows by its exact name. It changes nothing.
	claim editKind = iota
	replace
	drop          // removes a member and its comma
	dropUnclaimed // like drop, unless the member is claimed
)

// rewriteInteger writes an integer such as 1.0 or 1e2 in the form that encoding/json decodes into a
// Go integer. Integers that fit neither int64 nor uint64 are unchanged, and refused when they are
// bound.
func (r *run) rewriteInteger(at, end int) {
	digits, negative := bytes.CutPrefix(r.body[at:end], []byte("-"))
	if isDigits(digits) && !(negative && digits[0] == '0') {
		return
	}
	if text, ok := r.number.appendInteger(nil); ok {
		r.edits = append(r.edits, edit{at, end, replace, string(text)})
	}
}

// rewritten returns the body with the edits applied, or the same bytes if there are none.
func (r *run) rewritten() []byte {
	if !slices.ContainsFunc(r.edits, func(e edit) bool { return e.kind != claim }) {
		return r.body
	}
	slices.SortFunc(r.edits, func(a, b edit) int {
		if a.at != b.at {
			return a.at - b.at
		}
		return int(a.kind) - int(b.kind)
	})
	out := make([]byte, 0, len(r.body)+16)
	done, claimed := 0, -1
	for _, e := range r.edits {
		switch {
		case e.kind == claim:
			claimed = e.at
			continue
		case e.at < done, e.kind == dropUnclaimed && e.at == claimed:
			continue // a duplicate from another schema, or inside a dropped member
		}
		out = append(out, r.body[done:e.at]...)
		if done = e.end; e.kind == replace {
			out = append(out, e.text...)
			continue
		}
		if i := space(r.body, done); r.body[i] == ',' {
			done = i + 1
		} else { // the last member: remove the comma before it
			out = bytes.TrimSuffix(bytes.TrimRight(out, " \t\r\n"), []byte(","))
		}
	}
	return append(out, r.body[done:]...)
}

// foldRune returns the same rune for all runes that encoding/json treats as equal.
func foldRune(c rune) rune {
	for {
		folded := unicode.SimpleFold(c)
		if folded <= c {
			return folded
		}
		c = folded
	}
}

// quote returns a text as a JSON string.
func quote(dst []byte, text string) []byte {
	dst, _ = jsontext.AppendQuote(dst, text)
	return dst
}
