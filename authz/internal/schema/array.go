package schema

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
	exact bool // elements in few are equal only if their texts are
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
