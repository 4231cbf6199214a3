package schema

import (
	"cmp"
	"strconv"
	"strings"
)

// report collects the faults of a refused request.
type report struct {
	in, name string    // of the parameter
	path     []segment // the location of the current value
	details  []Detail
}

// segment is a segment of a JSON pointer: the name of a member, or else the index of an element.
type segment struct {
	name  string
	index int
}

func (s segment) String() string {
	if s.name == "" {
		return strconv.Itoa(s.index)
	}
	return escape(s.name)
}

func (p *report) add(d Detail) {
	if len(p.details) < MaxDetails {
		p.details = append(p.details, d)
	}
}

// collects reports whether a pass continues after a fault, because its report is not yet full.
func (r *run) collects() bool { return r.report != nil && len(r.report.details) < MaxDetails }

// refuse reports that the value, or one of its members, violates a keyword. It returns false.
func (r *run) refuse(keyword, text, member string) bool {
	if !r.collects() || r.fatal != "" {
		return false
	}
	var pointer strings.Builder
	for _, s := range r.report.path {
		pointer.WriteString("/" + s.String())
	}
	if member != "" {
		pointer.WriteString("/" + escape(member))
	}
	r.report.add(Detail{r.report.in, r.report.name, pointer.String(), keyword, text})
	return false
}

// refuseCount is refuse with a number in the text.
func (r *run) refuseCount(keyword, before string, n int, after string) bool {
	return r.collects() && r.refuse(keyword, before+strconv.Itoa(n)+after, "")
}

// enterMember descends into a member. "" is a member that the document does not name.
func (r *run) enterMember(name string) {
	if r.report != nil {
		r.report.path = append(r.report.path, segment{name: cmp.Or(name, "*")})
	}
}

func (r *run) enter(element int) {
	if r.report != nil {
		r.report.path = append(r.report.path, segment{index: element})
	}
}

func (r *run) leave() {
	if r.report != nil {
		r.report.path = r.report.path[:len(r.report.path)-1]
	}
}

// escape writes a name as a segment of a JSON pointer (RFC 6901 §3).
func escape(name string) string {
	if !strings.ContainsAny(name, "~/") {
		return name
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

// typeNames lists the types that a schema accepts.
func (n *node) typeNames() string {
	var names []string
	for _, t := range []struct {
		kind kind
		name string
	}{
		{kindNull, "null"}, {kindBoolean, "boolean"}, {kindNumber, "number"},
		{kindString, "string"}, {kindArray, "array"}, {kindObject, "object"},
	} {
		if n.kinds&t.kind == 0 {
			continue
		}
		if t.kind == kindNumber && n.integer {
			t.name = "integer"
		}
		names = append(names, t.name)
	}
	return strings.Join(names, " or ")
}
