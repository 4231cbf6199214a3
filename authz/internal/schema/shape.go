package schema

import (
	"slices"
	"strconv"
	"strings"
)

// shape describes the values that the text of a parameter or a form field can have: the JSON types
// that its schema accepts, through $ref, allOf, anyOf and oneOf.
type shape struct {
	kinds   kind
	integer bool // numbers must be integers
	// unsigned means integers of format uint64
	unsigned bool
	items    *shape
	members  map[string]*shape
	others   *shape // of members that are not named; nil if the document has no schema for them
	closed   bool   // additionalProperties: false
	file     bool   // format: binary, or a contentMediaType
}

// shapeOf returns the shape of a compiled schema.
func (c *Compiler) shapeOf(n *node) *shape { return newShape(n, c.shapes) }

func newShape(n *node, known map[*node]*shape) *shape {
	if s := known[n]; s != nil {
		return s
	}
	s := &shape{members: map[string]*shape{}}
	s.kinds = kindsOf(n, map[*node]kind{})
	s.integer = s.kinds&kindNumber != 0 && integersOnly(n, map[*node]bool{})
	known[n] = s // before its parts, because it may contain itself
	s.read(n, known, map[*node]bool{})
	if len(s.members) == 0 && !s.closed && s.others == nil { // an object of any members
		s.others = &shape{kinds: anyKind}
	}
	return s
}

func (s *shape) read(n *node, known map[*node]*shape, visited map[*node]bool) {
	if n == nil || visited[n] {
		return
	}
	visited[n] = true
	s.file = s.file || n.binary
	s.unsigned = s.unsigned || n.format != nil && n.format.name == "uint64"
	if n.items != nil && s.items == nil {
		s.items = newShape(n.items, known)
	}
	for name, p := range n.properties.all {
		if s.members[name] == nil || s.members[name].kinds == anyKind {
			s.members[name] = newShape(p.schema, known)
		}
	}
	if n.additional != nil && !n.additional.never && s.others == nil {
		s.others = newShape(n.additional, known)
	}
	s.closed = s.closed || n.additional != nil && n.additional.never
	for _, part := range parts(n) {
		s.read(part, known, visited)
	}
}

// parts returns the schemas that apply to the same value.
func parts(n *node) []*node {
	all := slices.Clone(n.allOf)
	for _, u := range []*union{n.anyOf, n.oneOf} {
		if u != nil {
			all = append(all, u.branches...)
		}
	}
	return append(all, n.then, n.otherwise)
}

// kindsOf returns the types that a schema accepts. known caches the results.
func kindsOf(n *node, known map[*node]kind) kind {
	if kinds, found := known[n]; found {
		return kinds
	}
	known[n] = anyKind // until it is known, because it may contain itself
	kinds := n.kinds
	for _, set := range n.values {
		kinds &= set.kinds
	}
	if kinds == anyKind && (n.properties.all != nil || n.additional != nil) {
		// the keywords do not apply to other types, but the text is meant to be an object
		kinds = kindObject
	}
	if kinds == anyKind && n.items != nil {
		kinds = kindArray
	}
	for _, part := range n.allOf {
		kinds &= kindsOf(part, known)
	}
	for _, u := range []*union{n.anyOf, n.oneOf} {
		if u == nil {
			continue
		}
		var some kind
		for _, branch := range u.branches {
			some |= kindsOf(branch, known)
		}
		kinds &= some
	}
	known[n] = kinds
	return kinds
}

// integersOnly reports whether the numbers that a schema accepts are integers.
func integersOnly(n *node, known map[*node]bool) (only bool) {
	if only, found := known[n]; found {
		return only
	}
	known[n] = false
	defer func() { known[n] = only }()
	if n.integer {
		return true
	}
	for _, part := range n.allOf {
		if integersOnly(part, known) {
			return true
		}
	}
	for _, u := range []*union{n.anyOf, n.oneOf} {
		if u != nil && !slices.ContainsFunc(u.branches, func(branch *node) bool {
			return branch.kinds&kindNumber != 0 && !integersOnly(branch, known)
		}) {
			return true
		}
	}
	return false
}

// appendScalar appends a text as a JSON value of its shape: the first possible of boolean, number
// and string, in the order of generated code. It reports false if none is possible.
func (s *shape) appendScalar(dst []byte, text string) ([]byte, bool) {
	switch {
	case s == nil || s.kinds == anyKind: // no type: a string
		return quote(dst, text), true
	case s.kinds&kindBoolean != 0 && (text == "true" || text == "false"):
		return append(dst, text...), true
	case s.kinds&kindNumber != 0 && isNumber(text):
		return append(dst, text...), true
	case s.kinds&kindString != 0:
		return quote(dst, text), true
	}
	return dst, false
}

// isNumber reports whether a text is a JSON number (RFC 8259 §6).
func isNumber(text string) bool {
	text = strings.TrimPrefix(text, "-")
	whole := leadingDigits(text)
	if whole == 0 || whole > 1 && text[0] == '0' {
		return false
	}
	text = text[whole:]
	if fraction, found := strings.CutPrefix(text, "."); found {
		n := leadingDigits(fraction)
		if n == 0 {
			return false
		}
		text = fraction[n:]
	}
	if text == "" || text[0] != 'e' && text[0] != 'E' {
		return text == ""
	}
	if text = text[1:]; text != "" && (text[0] == '+' || text[0] == '-') {
		text = text[1:]
	}
	return text != "" && leadingDigits(text) == len(text)
}

// leadingDigits returns the number of digits at the start of a text.
func leadingDigits(text string) (n int) {
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	return n
}

func (s *shape) is(k kind) bool { return s != nil && s.kinds != anyKind && s.kinds&k != 0 }

// scalar describes the texts that this shape accepts.
func (s *shape) scalar() string {
	n := node{kinds: s.kinds & (kindBoolean | kindNumber | kindString), integer: s.integer}
	if n.kinds == 0 {
		n.kinds = s.kinds
	}
	return "is not of type " + n.typeNames()
}

// elements returns the shape of the elements, or nil if the document has no schema for them.
func (s *shape) elements() *shape {
	if s == nil {
		return nil
	}
	return s.items
}

// member returns the shape of a member, and whether the document declares it. A nil shape allows
// any value.
func (s *shape) member(name string) (*shape, bool) {
	if s == nil {
		return nil, true
	}
	if m := s.members[name]; m != nil {
		return m, true
	}
	return s.others, s.others != nil
}

// segment returns the pointer segment of a member: its name, or * if the document does not declare
// it.
func (s *shape) segment(name string) string {
	if s == nil || s.members[name] == nil {
		return "*"
	}
	return escape(name)
}

// overflows reports whether a value contains an integer that overflows the integers of Go.
// Generated code treats it as a server error in a form, and ignores it in an object.
func (s *shape) overflows(value []byte, at int) (found bool) {
	switch kindOf(value[at]) {
	case kindObject:
		members(value, at, func(name, _, at int) bool {
			m, _ := s.member(scalarText(value, name))
			found = m.overflows(value, at)
			return !found
		})
	case kindArray:
		elements(value, at, func(at int) bool {
			found = s.elements().overflows(value, at)
			return !found
		})
	case kindNumber:
		if s != nil && s.integer {
			_, err := strconv.ParseInt(scalarText(value, at), 10, 64)
			if s.unsigned {
				_, err = strconv.ParseUint(scalarText(value, at), 10, 64)
			}
			found = err != nil
		}
	}
	return found
}
