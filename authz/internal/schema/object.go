package schema

import "unicode/utf8"

func (r *run) object(n *node, at int, m *marks) (end int, ok bool) {
	ok = true
	if r.collects() { // report missing members before faults of others
		ok = r.missing(n, at)
	}
	t := tally{names: len(r.names)}
	start := at
	if r.indexed.at == at {
		t.indexed, end = true, r.indexed.end
		if n.properties.all == nil && n.mentioned.all == nil && !n.others {
			t.count = r.indexed.count
		}
		for t.count < r.indexed.count {
			x := r.index[r.indexed.first+t.count]
			if ok = r.member(n, &x, &t, m) && ok; !ok && !r.collects() || r.fatal != "" {
				return 0, false
			}
		}
	} else {
		first, more, inner := len(r.index), false, 0
		for at, more = r.first(at, '}'); more; {
			x, good := r.name(at)
			if !good {
				return 0, false
			}
			if ok = r.member(n, &x, &t, m) && ok; !ok && !r.collects() || r.fatal != "" {
				return 0, false
			}
			if n.layered && t.count <= maxIndexed && len(r.index) < maxIndex {
				r.index = append(r.index, x)
			}
			inner += x.end - x.value
			at, more = r.next(x.end, '}')
		}
		if r.fatal != "" {
			return 0, false
		}
		end = at + 1
		r.pay(end - start - inner)
		if r.listed = len(r.index)-first == t.count; !r.listed {
			r.index = r.index[:first]
		}
	}
	r.names = r.names[:t.names]
	r.count, r.seen = t.count, t.seen
	if !r.collects() && t.required < len(n.required) {
		return 0, false
	}
	if t.count < n.minProps {
		ok = r.refuseCount("minProperties", "has fewer than ", n.minProps, " members")
	}
	if n.maxProps >= 0 && t.count > n.maxProps {
		ok = r.refuseCount("maxProperties", "has more than ", n.maxProps, " members")
	}
	for _, d := range n.dependentRequired {
		if !ok && !r.collects() || d.holds(t.seen) || !r.has(start, d.name) {
			continue
		}
		for _, name := range d.required {
			if !r.has(start, name) {
				ok = r.refuse("dependentRequired", "is required because "+d.name+" is present",
					name)
			}
		}
	}
	return end, ok
}

// member is a member of an object in the text. end is 0 until it is known.
type member struct{ name, nameEnd, value, end int }

// indexed is an object whose members are in run.index.
type indexed struct{ at, end, first, count int }

// maxIndexed and maxIndex bound the memory of the index: the members of one object, and of all.
const (
	maxIndexed = 64
	maxIndex   = 1 << 10
)

// tally counts the members of an object.
type tally struct {
	count, required int
	seen            uint64 // bits of the properties
	names           int    // length of run.names before the object
	indexed         bool   // whether its names are known to differ
}

// has reports whether an object has a member.
func (r *run) has(object int, member string) (found bool) {
	start := len(r.buffer)
	r.members(object, func(name, end, _ int) bool {
		found = string(r.unquote(name, end)) == member
		r.buffer = r.buffer[:start]
		return !found
	})
	return found
}

// missing reports each required member that an object lacks.
func (r *run) missing(n *node, object int) bool {
	if len(n.required) == 0 {
		return true
	}
	present := make(map[string]bool, len(n.required))
	start := len(r.buffer)
	r.members(object, func(name, end, _ int) bool {
		if p := n.named(r.unquote(name, end)); p != nil {
			present[p.name] = true
		}
		r.buffer = r.buffer[:start]
		return true
	})
	ok := true
	for _, name := range n.required {
		if !present[name] {
			ok = r.refuse("required", "is missing", name)
		}
	}
	return ok
}

// name returns the member whose name is at an offset.
func (r *run) name(at int) (x member, ok bool) {
	if r.body[at] != '"' {
		return x, r.undecided()
	}
	x.name = at
	if x.nameEnd, ok = r.endOfString(at); !ok {
		return x, false
	}
	colon := space(r.body, x.nameEnd)
	if colon == len(r.body) || r.body[colon] != ':' {
		return x, r.undecided()
	}
	x.value = space(r.body, colon+1)
	return x, true
}

// isNew reports whether a name differs from all other names since the first one.
func (r *run) isNew(first int, name span) bool {
	const most = 16 // because of the time for comparisons
	for _, other := range r.names[first:] {
		if r.sameText(other, name) {
			return r.undecided()
		}
	}
	if len(r.names)-first == most {
		return r.undecided()
	}
	r.names = append(r.names, name)
	return true
}

// member checks one member.
func (r *run) member(n *node, x *member, t *tally, m *marks) (ok bool) {
	start := len(r.buffer)
	text := r.unquote(x.name, x.nameEnd)
	p := n.properties.find(text)
	switch {
	case p == nil && !n.others && !n.mayFold(text):
		r.skipMember(x)
		ok = true
	case p == nil:
		r.enterMember("")
		ok = r.memberNamed(n, nil, text, x, t.count, m)
		r.leave()
	case n.propertyNames == nil && n.patternProperties == nil: // most members
		r.enterMember(p.name)
		ok = r.property(p, x)
		r.leave()
		m.mark(t.count)
	default:
		ok = r.memberNamed(n, p, text, x, t.count, m)
	}
	if p == nil {
		p = n.mentioned.find(text)
	}
	r.buffer = r.buffer[:start]
	if p != nil && p.bit != 0 {
		if t.seen&p.bit != 0 { // twice
			return r.undecided()
		}
		t.seen |= p.bit
	} else if !r.trusted && !t.indexed && !r.isNew(t.names, span{x.name, x.nameEnd}) {
		return false
	}
	if p != nil && p.required {
		t.required++
	}
	t.count++
	return ok
}

func (r *run) memberNamed(
	n *node, p *property, text []byte, x *member, ordinal int, m *marks,
) (ok bool) {
	ok = true
	if p != nil {
		r.enterMember(p.name)
		ok = r.property(p, x)
		r.leave()
	}
	if n.propertyNames != nil && (ok || r.collects()) {
		_, good := r.check(n.propertyNames, x.name, nil)
		ok = ok && good
	}
	known := p != nil
	for _, pp := range n.patternProperties {
		if !ok && !r.collects() || !r.match(pp.pattern, text) {
			continue
		}
		ok = r.checkMember(pp.schema, x) && ok
		known = true
	}
	if !known && n.additional != nil {
		if n.additional.never {
			ok = r.refuse("additionalProperties", "is not declared in the schema", "")
		} else {
			ok = r.checkMember(n.additional, x) && ok
		}
		known = true
	}
	if known {
		m.mark(ordinal)
	}
	r.skipMember(x)
	if p == nil && n.mayFold(text) {
		r.dropFolded(n, text, x)
	}
	return ok && r.fatal == ""
}

// property checks a member that is in properties.
func (r *run) property(p *property, x *member) bool {
	if p.spelling.several {
		r.edits = append(r.edits, edit{at: x.name, kind: claim})
	}
	if !p.hidden {
		return r.checkMember(p.schema, x)
	}
	r.skipMember(x)
	if r.options.RefuseReadOnly || r.options.Responses {
		keyword := "readOnly"
		if r.options.Responses {
			keyword = "writeOnly"
		}
		return r.refuse(keyword, "is "+keyword+" and must not be sent", "")
	}
	r.edits = append(r.edits, edit{at: x.name, end: x.end, kind: drop})
	return true
}

// checkMember checks the value of a member, and finds its end.
func (r *run) checkMember(n *node, x *member) (ok bool) {
	if n.trivial() {
		r.skipMember(x)
		return true
	}
	x.end, ok = r.check(n, x.value, nil)
	return ok
}

// skipMember finds the end of a member's value, unless it is known.
func (r *run) skipMember(x *member) {
	if x.end == 0 {
		x.end = r.skip(x.value)
	}
}

// dropFolded drops a member that the schema does not declare but that encoding/json would match to
// one that it does, such as {"TEXT": …} to text.
func (r *run) dropFolded(n *node, text []byte, x *member) {
	start := len(r.buffer)
	r.buffer = fold(r.buffer, text)
	if n.folded[string(r.buffer[start:])] != nil {
		r.edits = append(r.edits, edit{at: x.name, end: x.end, kind: dropUnclaimed})
	}
	r.buffer = r.buffer[:start]
}

func (r *run) unevaluatedMembers(n *node, at int, m *marks) bool {
	ok, i := true, 0
	r.members(at, func(name, end, value int) bool {
		if !m.has(i) {
			r.enterMember("")
			if n.unevaluated.never {
				ok = r.refuse("unevaluatedProperties", "is not declared in the schema", "")
			} else if _, good := r.check(n.unevaluated, value, nil); !good {
				ok = false
			}
			r.leave()
		}
		i++
		return r.fatal == "" && (ok || r.collects())
	})
	return ok
}

// fold appends a name in the form that encoding/json compares if there is no exact match.
func fold(dst, name []byte) []byte {
	for len(name) > 0 {
		c, size := utf8.DecodeRune(name)
		name = name[size:]
		if c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst = append(dst, byte(c))
			continue
		}
		dst = utf8.AppendRune(dst, foldRune(c)) // ſ and K fold to S and K
	}
	return dst
}
