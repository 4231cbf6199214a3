package schema

import (
	"strconv"
	"strings"
)

// report collects the faults of a refused request.
type report struct {
	in, name string   // of the parameter
	path     []string // the location of the current value: escaped segments of a JSON pointer
	details  []Detail
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
	path := r.report.path
	if member != "" {
		path = append(path[:len(path):len(path)], escape(member))
	}
	pointer := ""
	if len(path) > 0 {
		pointer = "/" + strings.Join(path, "/")
	}
	r.report.add(Detail{r.report.in, r.report.name, pointer, keyword, text})
	return false
}

// enterMember descends into a member. "" is a member that the document does not name.
func (r *run) enterMember(name string) {
	if p := r.report; p != nil {
		p.enterMember(name)
	}
}

func (p *report) enterMember(name string) {
	if name == "" {
		name = "*"
	}
	p.path = append(p.path, escape(name))
}

func (r *run) enter(element int) {
	if p := r.report; p != nil {
		p.enterMember(strconv.Itoa(element))
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
