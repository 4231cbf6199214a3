package schema

import (
	"bytes"
	"math/bits"
	"time"
	"unicode/utf8"
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

// layers checks the keywords that apply schemas to the same value, or to what no other schema was
// applied to. own are the marks of this value, which are not m if those matter here.
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

// scanNumber reads the number at an offset, and returns the offset after it.
func (r *run) scanNumber(at int) (end int, ok bool) {
	if end, ok = r.number.scan(r.body, at); ok {
		return end, true
	}
	end = endOfScalar(r.body, at)
	r.scanned(at, end)
	switch text := r.body[at:end]; {
	case !r.trusted && !isNumber(string(text)):
		return end, r.undecided()
	case !r.number.parse(text):
		return end, r.refuse("number", "has too many digits or too large an exponent", "")
	}
	return end, true
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

// span is a part of the text.
type span struct{ at, end int }

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

func (r *run) numeric(n *node, at, end int) bool {
	ok := true
	if n.integer {
		if !r.number.isInteger() {
			ok = r.refuse("type", "is not of type "+n.typeNames(), "")
		} else if !r.number.isSmall || r.number.small == 0 && r.body[at] == '-' {
			r.rewriteInteger(at, end)
		}
	}
	for _, b := range []*bound{n.minimum, n.maximum} {
		if b == nil || !ok && !r.collects() {
			continue
		}
		order, keyword, exclusive := r.number.compare(b.value), "minimum", "exclusiveMinimum"
		if b == n.maximum {
			order, keyword, exclusive = -order, "maximum", "exclusiveMaximum"
		}
		if b.exclusive && order <= 0 {
			ok = r.refuse(exclusive, "is out of range: "+exclusive+" is "+b.value.String(), "")
		} else if order < 0 {
			ok = r.refuse(keyword, "is out of range: "+keyword+" is "+b.value.String(), "")
		}
	}
	if n.multipleOf != nil && (ok || r.collects()) {
		if r.step(20); !r.number.isMultipleOf(n.multipleOf) {
			ok = r.refuse("multipleOf", "is not a multiple of "+n.multipleOf.String(), "")
		}
	}
	if f := n.format; f != nil && f.number != nil && (ok || r.collects()) && !f.number(&r.number) {
		ok = r.refuse("format", "is not a valid "+f.name, "")
	}
	return ok
}

func (r *run) string(n *node, at, end int) bool {
	if n.minLength == 0 && n.maxLength < 0 && n.pattern == nil && n.format == nil {
		return true
	}
	start := len(r.buffer)
	r.step((end - at) / 16)
	ok := r.text(n, r.unquote(at, end))
	r.buffer = r.buffer[:start]
	return ok && r.fatal == ""
}

func (r *run) text(n *node, text []byte) bool {
	ok := true
	// Most texts have the right length whatever the length of their characters in bytes is.
	if !(len(text) > utf8.UTFMax*(n.minLength-1) && len(text) <= n.maxLength) &&
		(n.minLength > 0 || n.maxLength >= 0) {
		switch length := utf8.RuneCount(text); {
		case length < n.minLength:
			ok = r.refuseCount("minLength", "is shorter than ", n.minLength, " characters")
		case n.maxLength >= 0 && length > n.maxLength:
			ok = r.refuseCount("maxLength", "is longer than ", n.maxLength, " characters")
		}
	}
	if n.pattern != nil && ok && !r.match(n.pattern, text) {
		ok = r.refuse("pattern", "does not match the pattern "+n.pattern.text, "")
	}
	if f := n.format; f != nil && f.text != nil && (ok || r.collects()) {
		r.step(len(text) / 16)
		if !f.text(string(text)) {
			ok = r.refuse("format", "is not a valid "+f.name, "")
		}
	}
	return ok
}

func (r *run) array(n *node, at int, m *marks) (end int, ok bool) {
	ok = true
	start := at
	var unique *distinct
	if n.uniqueItems {
		unique = &distinct{}
	}
	contained, i, inner := 0, 0, 0
	at, more := r.first(at, ']')
	for more {
		element, good := n.items, true
		if i < len(n.prefixItems) {
			element = n.prefixItems[i]
		}
		r.enter(i)
		if element.trivial() {
			end = r.skip(at)
		} else {
			end, good = r.check(element, at, nil)
		}
		if ok = ok && good; !ok && !r.collects() {
			return 0, false
		}
		if element != nil {
			m.mark(i)
		}
		if n.contains != nil && r.try(n.contains, at, nil) {
			contained++
			m.mark(i)
		}
		if unique != nil && r.fatal == "" && !r.isDistinct(unique, start, span{at, end}) {
			unique = nil
			ok = r.refuse("uniqueItems", "equals an element before it", "")
		}
		r.leave()
		if r.fatal != "" || !ok && !r.collects() {
			return 0, false
		}
		inner += end - at
		at, more = r.next(end, ']')
		i++
		if n.maxItems >= 0 && i > n.maxItems && !r.collects() {
			return 0, false
		}
	}
	if r.fatal != "" {
		return 0, false
	}
	r.count = i
	r.pay(at - start - inner)
	if i < n.minItems {
		ok = r.refuseCount("minItems", "has fewer than ", n.minItems, " elements")
	}
	if n.maxItems >= 0 && i > n.maxItems {
		ok = r.refuseCount("maxItems", "has more than ", n.maxItems, " elements")
	}
	return at + 1, (n.contains == nil || r.contained(n, contained)) && ok
}

// distinct finds equal elements of an array: by comparing them while they are a few strings, true,
// false or null without escapes, and then by a hash table.
type distinct struct {
	few   [8]span
	exact bool // few are equal only if their texts are
	count int  // of few
	table *uniqueness
}

// isDistinct reports whether an element differs from those before it.
func (r *run) isDistinct(d *distinct, array int, element span) (first bool) {
	const exact = kindString | kindBoolean | kindNull // equal if their texts are
	switch isExact := !r.trusted && kindOf(r.body[element.at])&exact != 0; {
	case d.count == 0:
		d.few[0], d.exact, d.count = element, isExact, 1
		return true
	case d.table == nil:
		if d.exact && isExact && d.count < len(d.few) {
			for _, other := range d.few[:d.count] {
				if r.sameText(other, element) {
					return false
				}
			}
			d.few[d.count] = element
			d.count++
			return true
		}
		if !r.trusted {
			if r.skip(array); r.fatal != "" {
				return false
			}
		}
		d.table = newUniqueness(r.countElements(array))
		for _, other := range d.few[:d.count] {
			_, r.buffer = d.table.add(r.body, other.at, r.buffer, &r.forms)
		}
	}
	first, r.buffer = d.table.add(r.body, element.at, r.buffer, &r.forms)
	r.payForms()
	return first
}

// payForms charges for the canonical forms since the last time.
func (r *run) payForms() {
	r.step(r.forms.work)
	r.forms.work = 0
}

func (r *run) sameText(a, b span) bool {
	return bytes.Equal(r.body[a.at:a.end], r.body[b.at:b.end])
}

// contained checks the number of elements that match contains.
func (r *run) contained(n *node, count int) bool {
	if count < n.minContains {
		return r.refuseCount("contains", "has fewer than ", n.minContains,
			" elements that match contains")
	}
	if n.maxContains >= 0 && count > n.maxContains {
		return r.refuseCount("maxContains", "has more than ", n.maxContains,
			" elements that match contains")
	}
	return true
}

func (r *run) countElements(at int) (count int) {
	r.elements(at, func(int) bool { count++; return true })
	return count
}

func (r *run) object(n *node, at int, m *marks) (end int, ok bool) {
	ok = true
	if r.collects() { // report missing members before faults of others
		ok = r.missing(n, at)
	}
	t := tally{names: len(r.names)}
	start := at
	if r.indexed.at == at {
		t.indexed, end = true, r.indexed.end
		if n.properties == nil && n.mentioned == nil && !n.others {
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

// member checks one member.
func (r *run) member(n *node, x *member, t *tally, m *marks) (ok bool) {
	start := len(r.buffer)
	text := r.unquote(x.name, x.nameEnd)
	p := n.property(text)
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
	if p == nil && n.mentioned != nil {
		p = n.mentioned[string(text)]
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

func (r *run) unevaluatedElements(n *node, at int, m *marks) bool {
	ok, i := true, 0
	r.elements(at, func(at int) bool {
		if !m.has(i) {
			r.enter(i)
			if n.unevaluatedElements.never {
				ok = r.refuse("unevaluatedItems", "is not declared in the schema", "")
			} else if _, good := r.check(n.unevaluatedElements, at, nil); !good {
				ok = false
			}
			r.leave()
		}
		i++
		return r.fatal == "" && (ok || r.collects())
	})
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
