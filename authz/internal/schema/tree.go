package schema

import (
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// tree is a value whose members are sent under names with brackets: f[a][0]=1 in style deepObject
// or in a form. The names decide whether it is a text, a list of texts or an object.
type tree struct {
	texts   []string
	members []*branch
}

type branch struct {
	name string
	tree tree
}

// split splits f[a][b] into f and the contents of the brackets. It reports false for any other use
// of brackets, because programs interpret them differently.
func split(name string) (root string, path []string, ok bool) {
	root, rest, found := strings.Cut(name, "[")
	if !found {
		return name, nil, !strings.Contains(name, "]")
	}
	for rest = "[" + rest; rest != ""; {
		end := strings.IndexByte(rest, ']')
		if rest[0] != '[' || end < 0 || strings.Contains(rest[1:end], "[") {
			return "", nil, false
		}
		path = append(path, rest[1:end])
		rest = rest[end+1:]
	}
	return root, path, root != ""
}

func (t *tree) isEmpty() bool { return len(t.texts) == 0 && len(t.members) == 0 }

// add adds a text under a path.
func (t *tree) add(path []string, text string) {
	if len(path) == 0 {
		t.texts = append(t.texts, text)
		return
	}
	i := slices.IndexFunc(t.members, func(b *branch) bool { return b.name == path[0] })
	if i < 0 {
		i = len(t.members)
		t.members = append(t.members, &branch{name: path[0]})
	}
	t.members[i].tree.add(path[1:], text)
}

const (
	maxBrackets = 32   // maximum depth of names
	maxBranches = 1000 // maximum number of names of one value
)

// problem says why a tree is not a value, and where (RFC 6901). "" means no problem.
type problem struct{ pointer, text string }

// at returns the problem of a member or an element as a problem of the enclosing value.
func (p problem) at(segment string) problem {
	return problem{"/" + segment + p.pointer, p.text}
}

// append appends the value as JSON according to its shape.
func (t *tree) append(dst []byte, s *shape, depth int) ([]byte, problem) {
	switch {
	case depth > maxBrackets || len(t.members) > maxBranches:
		return dst, problem{text: "is nested too deep, or has too many members"}
	case len(t.texts) > 0 && len(t.members) > 0:
		return dst, problem{text: "is sent as a value and as an object"}
	case s.is(kindArray) && (len(t.members) == 0 || t.indexed()):
		return t.appendList(dst, s, depth)
	case len(t.members) > 0 && s.is(anyKind&^kindObject) && !s.is(kindObject):
		return dst, problem{text: s.scalar()}
	case len(t.members) > 0:
		return t.appendObject(dst, s, depth)
	case len(t.texts) != 1:
		return dst, problem{text: "occurs more than once"}
	case s.is(kindObject) && !s.is(kindString):
		if text := strings.TrimSpace(t.texts[0]); strings.HasPrefix(text, "{") {
			return appendJSON(dst, text)
		}
	}
	dst, ok := s.appendScalar(dst, t.texts[0])
	if !ok {
		return dst, problem{text: s.scalar()}
	}
	return dst, problem{}
}

// appendJSON appends a text that is a single JSON value.
func appendJSON(dst []byte, text string) ([]byte, problem) {
	if !jsontext.Value(text).IsValid() {
		return dst, problem{text: "is not valid JSON"}
	}
	return append(dst, text...), problem{}
}

// indexed reports whether the names of the members are 0, 1, 2 and so on, each once, or a single
// [].
func (t *tree) indexed() bool {
	if len(t.members) == 1 && t.members[0].name == "" {
		return true
	}
	for i := range t.members {
		if !slices.ContainsFunc(t.members, func(b *branch) bool {
			return b.name == strconv.Itoa(i)
		}) {
			return false
		}
	}
	return true
}

func (t *tree) appendList(dst []byte, s *shape, depth int) (_ []byte, found problem) {
	elements := make([]tree, 0, len(t.texts)+len(t.members))
	texts := t.texts
	if len(t.members) == 1 && t.members[0].name == "" {
		if len(t.members[0].tree.members) > 0 {
			return dst, problem{text: "has a list without indices whose elements are objects"}
		}
		texts = t.members[0].tree.texts
	} else {
		elements = elements[:len(t.members)]
		for _, b := range t.members {
			i, _ := strconv.Atoi(b.name)
			elements[i] = b.tree
		}
	}
	for _, text := range texts {
		elements = append(elements, tree{texts: []string{text}})
	}
	dst = append(dst, '[')
	for i := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, found = elements[i].append(dst, s.items, depth+1); found.text != "" {
			return dst, found.at(strconv.Itoa(i))
		}
	}
	return append(dst, ']'), problem{}
}

func (t *tree) appendObject(dst []byte, s *shape, depth int) (_ []byte, found problem) {
	dst = append(dst, '{')
	for i, b := range t.members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(quote(dst, b.name), ':')
		member, _ := s.member(b.name)
		if dst, found = b.tree.append(dst, member, depth+1); found.text != "" {
			return dst, found.at(s.segment(b.name))
		}
	}
	return append(dst, '}'), problem{}
}

// flatten encodes a JSON value with names in brackets, as generated code reads them: lists of texts
// by a repeated name, if repeat is set, and others by index. It omits members that the document
// does not name, because generated code has no fields for them.
func (s *shape) flatten(dst []pair, name string, value []byte, at int, repeat bool) []pair {
	switch kindOf(value[at]) {
	case kindObject:
		members(value, at, func(member, _, at int) bool {
			text := scalarText(value, member)
			if m, known := s.member(text); known {
				dst = m.flatten(dst, name+"["+text+"]", value, at, repeat)
			}
			return true
		})
	case kindArray:
		i := 0
		elements(value, at, func(at int) bool {
			under := name + "[" + strconv.Itoa(i) + "]"
			if repeat && kindOf(value[at])&(kindObject|kindArray) == 0 {
				under = name
			}
			dst = s.elements().flatten(dst, under, value, at, repeat)
			i++
			return true
		})
	default:
		dst = append(dst, pair{name, scalarText(value, at)})
	}
	return dst
}
