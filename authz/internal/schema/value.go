package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Equality of JSON values (JSON Schema 2020-12 §4.2.2): numbers by value, strings by code points,
// objects without order.

// appendCanonical appends a form that is the same for equal values only. It reports false if a
// number exceeds the limits.
func appendCanonical(dst, b []byte, at int, number *decimal) ([]byte, bool) {
	ok := true
	switch kindOf(b[at]) {
	case kindNumber:
		if ok = number.parse(b[at:endOfScalar(b, at)]); ok {
			dst = number.appendCanonical(dst)
		}
	case kindString:
		dst = appendText(dst, b[at:endOfString(b, at)])
	case kindArray:
		dst = append(dst, '[')
		elements(b, at, func(at int) bool {
			dst, ok = appendCanonical(dst, b, at, number)
			dst = append(dst, ',')
			return ok
		})
		dst = append(dst, ']')
	case kindObject:
		return appendCanonicalObject(dst, b, at, number)
	default:
		dst = append(dst, b[at]) // t, f or n
	}
	return dst, ok
}

// appendText appends a string in a form that is not a prefix of that of any other string.
func appendText(dst, quoted []byte) []byte {
	dst = append(dst, '"')
	start := len(dst)
	text, grown := unquote(quoted, dst)
	if len(grown) > start {
		dst = grown // it has been unquoted into dst
	} else {
		dst = append(dst, text...)
	}
	// The length follows the text, which is equally unambiguous.
	n := len(dst) - start
	dst = append(dst, '"')
	return strconv.AppendInt(dst, int64(n), 10)
}

// appendCanonicalObject appends the members in their order and, after those, sorted; then it
// removes the unsorted ones.
func appendCanonicalObject(dst, b []byte, at int, number *decimal) ([]byte, bool) {
	type member struct{ start, middle, end int }
	var few [8]member
	all, ok, start := few[:0], true, len(dst)
	members(b, at, func(name, nameEnd, value int) bool {
		m := member{start: len(dst)}
		dst = appendText(dst, b[name:nameEnd])
		m.middle = len(dst)
		dst, ok = appendCanonical(dst, b, value, number)
		m.end = len(dst)
		all = append(all, m)
		return ok
	})
	slices.SortFunc(all, func(x, y member) int {
		return bytes.Compare(dst[x.start:x.middle], dst[y.start:y.middle])
	})
	unsorted := len(dst)
	dst = append(dst, '{')
	for _, m := range all {
		dst = append(append(dst, dst[m.start:m.middle]...), ':')
		dst = append(append(dst, dst[m.middle:m.end]...), ',')
	}
	dst = append(dst, '}')
	return dst[:start+copy(dst[start:], dst[unsorted:])], ok
}

// valueSet holds the values of enum, or the single value of const.
type valueSet struct {
	keyword string
	kinds   kind
	literal string          // of t, f, n
	text    map[string]bool // strings
	few     []string        // the same, if there are so few that a loop is faster
	others  map[string]bool // numbers, arrays and objects, in canonical form
	expects string          // the text of the fault for other values
}

func newValueSet(keyword string, values []any) (*valueSet, error) {
	s := &valueSet{
		keyword: keyword, text: map[string]bool{}, others: map[string]bool{},
	}
	for _, v := range values {
		if text, ok := v.(string); ok {
			s.kinds |= kindString
			s.text[text] = true
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("a value of %s is not JSON: %w", keyword, err)
		}
		k := kindOf(b[0])
		s.kinds |= k
		if k&(kindNull|kindBoolean) != 0 {
			s.literal += string(b[:1])
			continue
		}
		canonical, ok := appendCanonical(nil, b, 0, new(decimal))
		if !ok {
			return nil, fmt.Errorf(
				"a number of %s exceeds the limit of %d digits or the maximum exponent of %d",
				keyword, maxNumberBytes, maxExponent)
		}
		s.others[string(canonical)] = true
	}
	if len(s.text) <= 8 {
		s.few = slices.Sorted(maps.Keys(s.text))
	}
	s.expects = s.expected()
	return s, nil
}

// expected describes the values, as the document spells them.
func (s *valueSet) expected() string {
	if s.kinds == 0 {
		return "is not allowed: enum is empty"
	}
	const most = 10
	if s.kinds == kindString && len(s.text) <= most {
		return "is not one of " + strings.Join(slices.Sorted(maps.Keys(s.text)), ", ")
	}
	if s.keyword == "const" {
		return "is not the value of const"
	}
	return "is not one of the values of enum"
}

// has reports whether the set contains the value at an offset. It uses the buffer for canonical
// forms, and returns it.
func (s *valueSet) has(b []byte, at int, buffer []byte, number *decimal) (bool, []byte) {
	k := kindOf(b[at])
	if s.kinds&k == 0 {
		return false, buffer
	}
	start := len(buffer)
	switch k {
	case kindString:
		text, grown := unquote(b[at:endOfString(b, at)], buffer)
		return s.hasText(text), grown[:start]
	case kindNull, kindBoolean:
		return strings.IndexByte(s.literal, b[at]) >= 0, buffer
	}
	canonical, ok := appendCanonical(buffer, b, at, number)
	return ok && s.others[string(canonical[start:])], canonical[:start]
}

// hasText reports whether the set contains a string.
func (s *valueSet) hasText(text []byte) bool {
	for _, one := range s.few {
		if string(text) == one {
			return true
		}
	}
	return s.few == nil && s.text[string(text)]
}

// uniqueness finds equal elements of an array in linear time. It is a hash table of the elements'
// offsets with open addressing. The seed is secret, so that clients cannot choose values that
// collide.
type uniqueness struct {
	seed  maphash.Seed
	table []slot
	count int
	all   int // number of elements of the array
}

type slot struct {
	hash uint32
	at   uint32 // offset of the element, plus one; 0 is free
}

func newUniqueness(all int) *uniqueness {
	return &uniqueness{seed: maphash.MakeSeed(), table: make([]slot, 8), all: all}
}

// add adds the element at an offset, and reports whether it differs from all previous ones.
func (u *uniqueness) add(b []byte, at int, buffer []byte, number *decimal) (bool, []byte) {
	start := len(buffer)
	buffer, ok := appendCanonical(buffer, b, at, number)
	if !ok {
		return false, buffer[:start]
	}
	if u.count++; u.count*5 > len(u.table)*4 {
		u.grow()
	}
	hash := uint32(maphash.Bytes(u.seed, buffer[start:]))
	mask := uint32(len(u.table) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &u.table[i]
		if s.at == 0 {
			*s = slot{hash, uint32(at) + 1}
			return true, buffer[:start]
		}
		if s.hash == hash {
			middle := len(buffer)
			buffer, _ = appendCanonical(buffer, b, int(s.at)-1, number)
			if bytes.Equal(buffer[start:middle], buffer[middle:]) {
				return false, buffer[:start]
			}
			buffer = buffer[:middle]
		}
	}
}

// grow makes the table four times as large, but not larger than all elements need.
func (u *uniqueness) grow() {
	size := len(u.table) * 4
	for size > 16 && size/2*4 > u.all*5 {
		size /= 2
	}
	old := u.table
	u.table = make([]slot, size)
	mask := uint32(size - 1)
	for _, s := range old {
		if s.at == 0 {
			continue
		}
		i := s.hash & mask
		for u.table[i].at != 0 {
			i = (i + 1) & mask
		}
		u.table[i] = s
	}
}
