package schema

import (
	"bytes"
	"time"
)

// A run is one pass of a compiled schema over a JSON text. check reads one value, from an offset to
// its end, and calls object, array, string or numeric, which call check for the values inside. No
// value is decoded: everything is an offset into the body. layers then applies the keywords that
// are about the same value as a whole: allOf, unions, conditions, unevaluated*.
//
// Most texts take one pass, in which the text is not trusted: it validates the JSON syntax, stops
// at the first fault, and notes the edits that make generated code bind what was validated. A text
// that it cannot decide about (escapes, many members, a fault of syntax) is undecided. Then
// [Schema.validate] has jsontext validate the syntax, and makes a pass over the trusted text. If
// the value is invalid, a last pass with a report collects the faults instead of stopping.
//
// Work is counted in steps, and a pass that has no more left ends with a fatal kind, as does one
// whose patterns take too long. step is called for each schema that is applied, and pay for bytes
// that are read without one.
type run struct {
	body    []byte
	trusted bool // body is valid JSON; else it has no escapes, and the pass validates it
	options *Options
	steps   int // remaining
	depth   int
	fatal   Kind // why the pass cannot continue; "" if it can
	edits   []edit
	report  *report
	buffer  []byte // a stack for canonical forms
	number  decimal
	forms   canonical
	spent   time.Duration // matching patterns
	spare   []*marks      // unused
	trials  []*report     // unused
	names   []span        // of the members of open objects that have no bit, unless trusted
	index   []member      // of the objects that several schemas apply to
	indexed indexed       // the innermost of them
	count   int           // of the members or elements of the last container
	seen    uint64        // bits of the names of the last object
	listed  bool          // all members of the last object are in index
	ends    ends          // of the long values in body; nil until they are needed
	unpaid  int           // bytes that have been skipped but not charged
	skipped int           // bytes that have been skipped
}

// maxDepth bounds the depth of schemas and values.
const maxDepth = 1000

// step subtracts steps from the budget.
func (r *run) step(n int) {
	if r.steps -= n; r.steps < 0 && r.fatal == "" {
		r.fatal = Budget
	}
}

// undecided stops a pass over a text that is not trusted: either it is not valid JSON, or it is too
// unusual for this pass. It returns false.
func (r *run) undecided() bool {
	if r.fatal == "" {
		r.fatal = undecided
	}
	return false
}

// check checks the value at an offset, and returns the offset after it. It marks evaluated members
// and elements in m, which may be nil (JSON Schema 2020-12 §11).
func (r *run) check(n *node, at int, m *marks) (end int, ok bool) {
	if r.step(1); r.depth == maxDepth && r.fatal == "" {
		r.fatal = Budget
	}
	if r.fatal != "" {
		return 0, false
	}
	if at == len(r.body) {
		return 0, r.undecided()
	}
	if n.never {
		return r.skip(at), r.refuse("false", "is not allowed", "")
	}
	k := kindOf(r.body[at])
	if n.kinds&k == 0 {
		return r.skip(at), r.collects() && r.refuse("type", "is not of type "+n.typeNames(), "")
	}
	own := m
	if n.unevaluated != nil && k == kindObject || n.unevaluatedElements != nil && k == kindArray {
		own = r.borrow()
	}
	r.depth++
	switch k {
	case kindObject:
		end, ok = r.object(n, at, own)
	case kindArray:
		end, ok = r.array(n, at, own)
	case kindString:
		if end, ok = r.endOfString(at); ok {
			r.step((end - at) / 32)
			ok = r.string(n, at, end)
		}
	case kindNumber:
		if end, ok = r.scanNumber(at); ok {
			ok = r.numeric(n, at, end)
		}
	default:
		if end, ok = literal(r.body, at); !ok {
			r.undecided()
		}
	}
	if n.values != nil && (ok || r.collects()) {
		ok = r.values(n, at, end) && ok
	}
	if n.layered && (ok || r.collects()) {
		ok = r.layers(n, k, span{at, end}, m, own) && ok
	}
	r.depth--
	return end, ok && r.fatal == ""
}

// skip returns the offset after a value that no schema applies to.
func (r *run) skip(at int) (end int) {
	if r.trusted {
		end = r.ends.endOfValue(r.body, at)
	} else {
		var ok bool
		if end, ok = simpleValue(r.body, at, 0); !ok {
			r.undecided()
		}
	}
	r.scanned(at, end)
	return end
}

// endOfString returns the offset after the string that starts at an offset.
func (r *run) endOfString(at int) (end int, ok bool) {
	end = endOfText(r.body, at+1)
	if end == len(r.body) || r.body[end] != '"' {
		return r.endOfEscaped(at)
	}
	return end + 1, true
}

func (r *run) endOfEscaped(at int) (end int, ok bool) {
	if !r.trusted {
		return 0, r.undecided()
	}
	return endOfString(r.body, at), true
}

// first returns the offset of the first element or member of a container, or of its closing
// bracket if there is no more.
func (r *run) first(at int, closing byte) (first int, more bool) {
	if at = space(r.body, at+1); at == len(r.body) {
		return at, r.undecided()
	}
	return at, r.body[at] != closing
}

// next returns the offset of the next element or member of a container, or of its closing bracket
// if there is no more. end is the offset after the previous one.
func (r *run) next(end int, closing byte) (at int, more bool) {
	at = space(r.body, end)
	if at < len(r.body) && r.body[at] == ',' {
		if at = space(r.body, at+1); at < len(r.body) && r.body[at] != closing {
			return at, true
		}
	} else if at < len(r.body) && r.body[at] == closing {
		return at, false
	}
	return at, r.undecided()
}

// span is a part of the text.
type span struct{ at, end int }

// unquote returns the text of the string from at to end. It may grow the buffer, which the caller
// shortens again.
func (r *run) unquote(at, end int) (text []byte) {
	if !r.trusted {
		return r.body[at+1 : end-1]
	}
	return r.unescape(at, end)
}

func (r *run) unescape(at, end int) (text []byte) {
	text, r.buffer = unquote(r.body[at:end], r.buffer)
	return text
}

func (r *run) values(n *node, at, end int) bool {
	ok := true
	for _, set := range n.values {
		if r.payForms(); r.fatal != "" {
			return false
		}
		var has bool
		if start := len(r.buffer); kindOf(r.body[at]) == kindString {
			r.step((end - at) / 16)
			has = set.hasText(r.unquote(at, end))
			r.buffer = r.buffer[:start]
		} else {
			has, r.buffer = set.has(r.body, at, r.buffer, &r.forms)
		}
		if !has {
			if ok = r.refuse(set.keyword, set.expects, ""); !r.collects() {
				return false
			}
		}
	}
	return ok
}

// payForms charges for the canonical forms since the last time.
func (r *run) payForms() {
	r.step(r.forms.work)
	r.forms.work = 0
}

func (r *run) sameText(a, b span) bool {
	return bytes.Equal(r.body[a.at:a.end], r.body[b.at:b.end])
}
