package schema

import (
	"math"
	"strconv"
)

// union is anyOf or oneOf. One pass over the value checks the types, required members and constant
// members of all branches, so that few branches are validated completely.
type union struct {
	keyword       string
	one           bool
	branches      []*node
	facts         []facts
	names         []string // used by facts; at most maxNames
	index         map[string]int
	discriminator string
	mapping       map[string]int // value of the discriminator → branch
}

const maxNames = 64

// facts are necessary conditions for a branch to match.
type facts struct {
	kinds    kind
	required uint64 // bits, by index in names
	tags     []tag
}

// tag is a member that, if present, must have one of a set of values.
type tag struct {
	name   int
	values *valueSet
}

// prepare computes the facts after all branches have been compiled.
func (u *union) prepare() {
	u.index = map[string]int{}
	u.facts = make([]facts, len(u.branches))
	for i, branch := range u.branches {
		u.facts[i].kinds = anyKind
		u.read(&u.facts[i], branch, map[*node]bool{})
	}
	if u.discriminator != "" {
		u.add(u.discriminator)
	}
}

func (u *union) add(name string) (int, bool) {
	i, found := u.index[name]
	if !found && len(u.names) < maxNames {
		i, found = len(u.names), true
		u.index[name] = i
		u.names = append(u.names, name)
	}
	return i, found
}

func (u *union) read(f *facts, n *node, visited map[*node]bool) {
	if visited[n] {
		return
	}
	visited[n] = true
	f.kinds &= n.kinds
	if n.never {
		f.kinds = 0
	}
	for _, set := range n.values {
		f.kinds &= set.kinds
	}
	for _, name := range n.required {
		if i, ok := u.add(name); ok {
			f.required |= 1 << i
		}
	}
	for name, p := range n.properties.all {
		if p.hidden {
			continue // such a member is not checked
		}
		for _, set := range p.schema.values {
			if i, ok := u.add(name); ok && len(set.others) == 0 {
				f.tags = append(f.tags, tag{i, set})
			}
		}
	}
	for _, part := range n.allOf {
		u.read(f, part, visited)
	}
}

// found are the members of one value that are relevant to a union.
type found struct {
	present uint64
	at      [maxNames]int32
}

func (r *run) find(u *union, at int, f *found) {
	if len(u.names) == 0 || len(r.body) > math.MaxInt32 {
		return
	}
	r.members(at, func(name, end, value int) bool {
		text, grown := unquote(r.body[name:end], r.buffer)
		if i, ok := u.index[string(text)]; ok {
			f.present |= 1 << i
			f.at[i] = int32(value)
		}
		r.buffer = grown[:len(r.buffer)]
		return true
	})
}

// possible reports whether the value satisfies a branch's facts.
func (r *run) possible(fact *facts, k kind, f *found) bool {
	if fact.kinds&k == 0 {
		return false
	}
	if k != kindObject {
		return true
	}
	if fact.required&^f.present != 0 {
		return false
	}
	for _, t := range fact.tags {
		if f.present&(1<<t.name) != 0 {
			var ok bool
			if ok, r.buffer = t.values.has(r.body, int(f.at[t.name]), r.buffer, &r.forms); !ok {
				return false
			}
		}
	}
	return true
}

// union checks a value against anyOf or oneOf.
func (r *run) union(u *union, at int, m *marks) bool {
	var f found
	k := kindOf(r.body[at])
	if k == kindObject {
		r.find(u, at, &f)
	}
	if i, ok := r.named(u, k, &f); ok {
		if i < 0 {
			return r.refuse(u.keyword, "is a discriminator that names none of the schemas",
				u.discriminator)
		}
		return r.branch(u.branches[i], at, m)
	}
	if r.collects() {
		return r.collectUnion(u, at, k, &f, m)
	}
	matches := 0
	for i, branch := range u.branches {
		if r.step(1); r.fatal != "" {
			return false
		}
		if !r.possible(&u.facts[i], k, &f) {
			continue
		}
		if r.try(branch, at, m) {
			if matches++; matches == 2 && u.one {
				break
			}
			if !u.one && m == nil {
				break
			}
		}
	}
	switch {
	case r.fatal != "":
		return false
	case matches == 2:
		return !u.one
	}
	return matches > 0
}

// named returns the branch selected by the discriminator, which is then the only one to match
// (OpenAPI 3.1.1 §4.8.25), or -1 if its value selects none. It reports false if there is no
// discriminator to use.
func (r *run) named(u *union, k kind, f *found) (int, bool) {
	i, known := u.index[u.discriminator]
	if u.discriminator == "" || !known || k != kindObject || f.present&(1<<i) == 0 {
		return 0, false
	}
	at := int(f.at[i])
	if kindOf(r.body[at]) != kindString {
		return -1, true
	}
	text, grown := unquote(r.body[at:endOfString(r.body, at)], r.buffer)
	branch, ok := u.mapping[string(text)]
	r.buffer = grown[:len(r.buffer)]
	if !ok {
		branch = -1
	}
	return branch, true
}

// collectUnion checks a value like union, and reports why no branch matches: the faults of the
// nearest branch, which is the one with the fewest faults among those with the most satisfied
// facts. It checks each branch once, because the branch may contain the union again.
func (r *run) collectUnion(u *union, at int, k kind, f *found, m *marks) bool {
	const unlike = 1000
	matches, best, least := 0, -1, math.MaxInt
	var details []Detail
	for _, possible := range []bool{true, false} {
		for i, branch := range u.branches {
			fact := &u.facts[i]
			if fact.kinds&k == 0 || r.possible(fact, k, f) != possible || matches > 1 {
				continue
			}
			faults, ok := r.faultsOf(branch, at, m)
			if ok {
				matches++
				continue
			}
			distance := len(faults) + unlike*r.violated(fact, f)
			if distance < least || distance == least && i < best {
				best, least, details = i, distance, faults
			}
		}
		if matches > 0 {
			break
		}
	}
	switch {
	case r.fatal != "":
		return false
	case matches > 1 && u.one:
		return r.refuse(u.keyword, "matches more than one of the schemas", "")
	case matches > 0:
		return true
	case best < 0:
		return r.refuse(u.keyword, "matches none of the schemas", "")
	}
	r.refuse(u.keyword, "matches none of the schemas; the nearest is "+u.branchName(best), "")
	for _, d := range details {
		r.report.add(d)
	}
	return false
}

// faultsOf is try, and returns the faults.
func (r *run) faultsOf(n *node, at int, m *marks) (faults []Detail, ok bool) {
	if len(r.trials) == 0 {
		r.trials = append(r.trials, new(report))
	}
	last := len(r.trials) - 1
	trial := r.trials[last]
	r.trials = r.trials[:last]
	*trial = report{in: r.report.in, name: r.report.name, path: r.report.path}
	ok = r.tryWith(trial, n, at, m)
	r.trials = append(r.trials, trial)
	return trial.details, ok
}

// violated returns how many tags of a branch a value does not have.
func (r *run) violated(fact *facts, f *found) (count int) {
	for _, t := range fact.tags {
		ok := false
		if f.present&(1<<t.name) != 0 {
			ok, r.buffer = t.values.has(r.body, int(f.at[t.name]), r.buffer, &r.forms)
		}
		if !ok {
			count++
		}
	}
	return count
}

func (u *union) branchName(i int) string {
	if name := u.branches[i].name; name != "" {
		return name
	}
	return "number " + strconv.Itoa(i+1)
}
