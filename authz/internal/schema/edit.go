package schema

import (
	"bytes"
	"slices"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

// An edit is a change of the body that makes generated code bind what was validated.
type edit struct {
	at, end int
	kind    editKind
	text    string
}

type editKind uint8

const (
	// claim: no change. A member that a schema knows by its exact name.
	claim editKind = iota
	replace
	drop          // a member, with its comma
	dropUnclaimed // the same, unless it is claimed
)

// rewriteInteger writes an integer such as 1.0 or 1e2 as encoding/json reads it into a Go integer.
// What neither int64 nor uint64 holds stays as it is, and is refused by what binds it.
func (r *run) rewriteInteger(at, end int) {
	digits, negative := bytes.CutPrefix(r.body[at:end], []byte("-"))
	if isDigits(digits) && !(negative && digits[0] == '0') {
		return
	}
	if text, ok := r.number.appendInteger(nil); ok {
		r.edits = append(r.edits, edit{at, end, replace, string(text)})
	}
}

// rewritten returns the body with its edits, or the same bytes if there are none.
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
			continue // of two schemas, or within what is dropped
		}
		out = append(out, r.body[done:e.at]...)
		if done = e.end; e.kind == replace {
			out = append(out, e.text...)
			continue
		}
		if i := space(r.body, done); r.body[i] == ',' {
			done = i + 1
		} else { // the last member: the comma before it goes
			out = bytes.TrimSuffix(bytes.TrimRight(out, " \t\r\n"), []byte(","))
		}
	}
	return append(out, r.body[done:]...)
}

// foldRune returns one rune for all that encoding/json takes for the same.
func foldRune(c rune) rune {
	for {
		folded := unicode.SimpleFold(c)
		if folded <= c {
			return folded
		}
		c = folded
	}
}

// quote writes a text as a JSON string.
func quote(dst []byte, text string) []byte {
	dst, _ = jsontext.AppendQuote(dst, text)
	return dst
}
