package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Equality of JSON values (JSON Schema 2020-12 §4.2.2): numbers by value, strings by code points,
// objects without order.

// appendCanonical appends a form that is the same for equal values only. It reports false if a
// number exceeds the limits.
func appendCanonical(dst, b []byte, at int) ([]byte, bool) {
	dst, _, ok := (&canonical{limit: math.MaxInt}).append(dst, b, at)
	return dst, ok
}

// canonical appends canonical forms. A long form is replaced by its hash, so that it is not copied
// again for each array or object that the value is in.
type canonical struct {
	number decimal
	limit  int            // of the buffer, beyond which forms are not completed; 0: none
	hashes map[int]hashed // of long elements, by their offset
	work   int            // bytes read
}

type hashed struct {
	end int
	sum [sha256.Size]byte
}

// The maximum lengths of forms in bytes: longer ones are replaced by their hashes. maxList is that
// of strings and of an array in progress. It applies only without a limit, because a hash would
// keep the buffer from reaching the limit.
const (
	maxForm = 128
	maxList = 1 << 10
)

// append returns the offset after the value, too.
func (c *canonical) append(dst, b []byte, at int) (_ []byte, end int, ok bool) {
	start := len(dst)
	if c.limit > 0 && start > c.limit {
		return dst, at, false
	}
	c.work++
	switch kindOf(b[at]) {
	case kindNumber:
		end = endOfScalar(b, at)
		c.work += end - at
		if ok = c.number.parse(b[at:end]); ok {
			dst = c.number.appendCanonical(dst)
		}
		return dst, end, ok
	case kindString:
		if end, ok = c.endOfString(b, at); !ok {
			return dst, end, false
		}
		c.work += end - at
		if dst = appendText(dst, b[at:end]); c.limit == 0 && len(dst)-start > maxList {
			dst = hash(dst, start)
		}
		return dst, end, true
	case kindNull, kindBoolean:
		return append(dst, b[at]), endOfScalar(b, at), true
	}
	if known, found := c.hashes[at]; found && c.limit == 0 { // others are of other forms
		return append(append(dst, '#'), known.sum[:]...), known.end, true
	}
	if b[at] == '[' {
		dst, end, ok = c.appendArray(dst, b, at)
	} else {
		dst, end, ok = c.appendObject(dst, b, at)
	}
	if ok && len(dst)-start > maxForm {
		dst = hash(dst, start)
	}
	return dst, end, ok
}

func hash(dst []byte, start int) []byte {
	sum := sha256.Sum256(dst[start:])
	return append(append(dst[:start], '#'), sum[:]...)
}

// endOfString returns the offset after a string, unless its form would exceed the limit.
func (c *canonical) endOfString(b []byte, at int) (end int, ok bool) {
	const escape = len(`\u0061`) // a character is not longer
	if c.limit > 0 && c.limit < (len(b)-at)/escape {
		window := b[:at+escape*c.limit]
		for end = endOfText(window, at+1); end < len(window) && window[end] == '\\'; {
			end = endOfText(window, end+2)
		}
		return end + 1, end < len(window)
	}
	return endOfString(b, at), true
}

// keep keeps the form of an element, if it is a hash.
func (c *canonical) keep(at, end int, form []byte) {
	if len(form) == 1+sha256.Size && form[0] == '#' {
		if c.hashes == nil {
			c.hashes = map[int]hashed{}
		}
		c.hashes[at] = hashed{end, [sha256.Size]byte(form[1:])}
	}
}

func (c *canonical) appendArray(dst, b []byte, at int) (_ []byte, end int, ok bool) {
	start := len(dst)
	dst = append(dst, '[')
	for at = space(b, at+1); b[at] != ']'; at = next(b, end) {
		if dst, end, ok = c.append(dst, b, at); !ok {
			return dst, end, false
		}
		if dst = append(dst, ','); c.limit == 0 && len(dst)-start > maxList {
			dst = hash(dst, start)
		}
	}
	return append(dst, ']'), at + 1, true
}

// appendObject appends the members in their order and, after those, sorted; then it removes the
// unsorted ones.
func (c *canonical) appendObject(dst, b []byte, at int) (_ []byte, end int, ok bool) {
	type member struct{ start, middle, end int }
	var few [8]member
	all, start := few[:0], len(dst)
	for at = space(b, at+1); b[at] != '}'; at = next(b, end) {
		m := member{start: len(dst)}
		if end, ok = c.endOfString(b, at); !ok {
			return dst, end, false
		}
		c.work += end - at
		dst = appendText(dst, b[at:end])
		m.middle = len(dst)
		if dst, end, ok = c.append(dst, b, value(b, end)); !ok {
			return dst, end, false
		}
		m.end = len(dst)
		all = append(all, m)
	}
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
	return dst[:start+copy(dst[start:], dst[unsorted:])], at + 1, true
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

// valueSet holds the values of enum, or the single value of const.
type valueSet struct {
	keyword string
	kinds   kind
	literal string          // of t, f, n
	text    map[string]bool // strings
	few     []string        // the same, if there are so few that a loop is faster
	others  map[string]bool // numbers, arrays and objects, in canonical form
	longest int             // bounds the forms of others before they are complete
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
		canonical, ok := appendCanonical(nil, b, 0)
		if !ok {
			return nil, fmt.Errorf(
				"a number of %s exceeds the limit of %d digits or the maximum exponent of %d",
				keyword, maxNumberBytes, maxExponent)
		}
		s.others[string(canonical)] = true
		// bytes: a form is at most 3 times as long, or 6 times while it is sorted
		s.longest = max(s.longest, 8*len(b))
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
func (s *valueSet) has(b []byte, at int, buffer []byte, c *canonical) (bool, []byte) {
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
	c.limit = start + s.longest
	form, _, ok := c.append(buffer, b, at)
	c.limit = 0
	return ok && s.others[string(form[start:])], form[:start]
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
func (u *uniqueness) add(b []byte, at int, buffer []byte, c *canonical) (bool, []byte) {
	start := len(buffer)
	buffer, end, ok := c.append(buffer, b, at)
	if !ok {
		return false, buffer[:start]
	}
	c.keep(at, end, buffer[start:])
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
			buffer, _, _ = c.append(buffer, b, int(s.at)-1)
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
