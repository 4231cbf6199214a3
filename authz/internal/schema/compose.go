package schema

import "math/bits"

// layers checks the keywords that apply schemas to the same value, or to what no other schema was
// applied to. own are the marks of this value: m, or others if the schema has unevaluated keywords.
func (r *run) layers(n *node, k kind, value span, m, own *marks) bool {
	count, seen, outer := r.count, r.seen, r.indexed
	if k == kindObject && outer.at != value.at && r.listed {
		r.indexed = indexed{value.at, value.end, len(r.index) - count, count}
	}
	open := own // nil if nothing is left to be evaluated
	if own != m && own.all(count) {
		open = nil
	}
	ok := !n.composed || r.compose(n, k, value.at, seen, open)
	if own != m && (ok || r.collects()) {
		switch {
		case open == nil:
		case k == kindObject:
			ok = r.unevaluatedMembers(n, value.at, own) && ok
		default:
			ok = r.unevaluatedElements(n, value.at, own) && ok
		}
		m.markAll(count)
		r.giveBack(own)
	}
	if r.indexed.at != outer.at {
		r.index, r.indexed = r.index[:r.indexed.first], outer
	}
	return ok
}

// compose checks the keywords that apply schemas to the same value. seen are the bits of an
// object's names.
func (r *run) compose(n *node, k kind, at int, seen uint64, m *marks) bool {
	ok := true
	more := func() bool { return r.fatal == "" && (ok || r.collects()) }
	for _, part := range n.allOf {
		if more() {
			ok = r.branch(part, at, m) && ok
		}
	}
	for _, u := range []*union{n.anyOf, n.oneOf} {
		if u != nil && more() {
			ok = r.union(u, at, m) && ok
		}
	}
	if n.not != nil && more() && r.rejects(n.not, at) {
		ok = r.refuse("not", "matches the schema that it must not match", "")
	}
	if n.condition != nil && more() {
		then := n.otherwise
		if r.try(n.condition, at, m) {
			then = n.then
		}
		if then != nil && r.fatal == "" {
			ok = r.branch(then, at, m) && ok
		}
	}
	if k == kindObject {
		for _, d := range n.dependentSchemas {
			if more() && (d.bit != 0 && seen&d.bit != 0 || d.bit == 0 && r.has(at, d.name)) {
				ok = r.branch(d.schema, at, m) && ok
			}
		}
	}
	return ok && r.fatal == ""
}

// rejects reports whether a value matches the schema of not. It discards all edits and marks.
func (r *run) rejects(n *node, at int) bool {
	edits := len(r.edits)
	matched := r.try(n, at, nil)
	r.edits = r.edits[:edits]
	return matched && r.fatal == ""
}

// try checks a value without reporting faults. If the value does not match, its edits and
// evaluated members are discarded.
func (r *run) try(n *node, at int, m *marks) bool { return r.tryWith(nil, n, at, m) }

// tryWith is try with a report of the faults.
func (r *run) tryWith(trial *report, n *node, at int, m *marks) bool {
	report, edits, names, index := r.report, len(r.edits), len(r.names), len(r.index)
	var own *marks
	if m != nil {
		own = r.borrow()
	}
	r.report = trial
	_, ok := r.check(n, at, own)
	r.report, r.names, r.index = report, r.names[:names], r.index[:index]
	if ok = ok && r.fatal == ""; ok {
		m.join(own)
	} else {
		r.edits = r.edits[:edits]
	}
	r.giveBack(own)
	return ok
}

// branch checks a value against the one branch that it must match, and reports the faults.
func (r *run) branch(n *node, at int, m *marks) bool {
	_, ok := r.check(n, at, m)
	return ok
}

// marks are the evaluated members or elements of one value. Methods of a nil marks do nothing.
type marks struct{ bits []uint64 }

func (m *marks) mark(i int) {
	if m != nil {
		m.set(i)
	}
}

func (m *marks) set(i int) {
	for len(m.bits) <= i/64 {
		m.bits = append(m.bits, 0)
	}
	m.bits[i/64] |= 1 << (i % 64)
}

func (m *marks) has(i int) bool { return i/64 < len(m.bits) && m.bits[i/64]&(1<<(i%64)) != 0 }

// all reports whether all of a small number of members or elements are marked.
func (m *marks) all(count int) bool {
	return count == 0 || len(m.bits) == 1 && bits.TrailingZeros64(^m.bits[0]) >= count
}

func (m *marks) markAll(count int) {
	if m == nil {
		return
	}
	for i := range count {
		m.mark(i)
	}
}

// borrow returns empty marks. giveBack returns them for reuse.
func (r *run) borrow() *marks {
	last := len(r.spare) - 1
	if last < 0 {
		return new(marks)
	}
	m := r.spare[last]
	r.spare, m.bits = r.spare[:last], m.bits[:0]
	return m
}

func (r *run) giveBack(m *marks) {
	const most = 16 // keeps the memory of a pooled run small
	if m != nil && len(r.spare) < most && cap(m.bits) <= most {
		r.spare = append(r.spare, m)
	}
}

func (m *marks) join(other *marks) {
	if m == nil {
		return
	}
	for i, bits := range other.bits {
		if i < len(m.bits) {
			m.bits[i] |= bits
		} else {
			m.bits = append(m.bits, bits)
		}
	}
}
