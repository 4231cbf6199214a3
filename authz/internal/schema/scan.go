package schema

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/go-json-experiment/json/jsontext"
)

// The functions in this file scan JSON text that is valid (RFC 8259, RFC 7493), except for those
// named simple, which validate it. They only find the ends of values, and do not allocate.

// kind is the type of a JSON value. A set of kinds is the bitwise or of them.
type kind uint8

const (
	kindNull kind = 1 << iota
	kindBoolean
	kindNumber
	kindString
	kindArray
	kindObject

	anyKind = kindNull | kindBoolean | kindNumber | kindString | kindArray | kindObject
)

// kindOf returns the kind of the value that begins with c.
func kindOf(c byte) kind { return kinds[c] }

// kinds are the kinds of values by their first byte.
var kinds = func() (table [256]kind) {
	for i := range table {
		table[i] = kindNumber
	}
	table['{'], table['['], table['"'] = kindObject, kindArray, kindString
	table['t'], table['f'], table['n'] = kindBoolean, kindBoolean, kindNull
	return table
}()

// space returns the offset of the first byte at or after i that is not white space.
func space(b []byte, i int) int {
	const spaces = 1<<' ' | 1<<'\n' | 1<<'\t' | 1<<'\r'
	for i < len(b) && b[i] <= ' ' && spaces>>b[i]&1 != 0 {
		i++
	}
	return i
}

// endOfText returns the offset of the first quote, backslash or control character at or after i, or
// the length. It compares eight bytes at a time.
func endOfText(b []byte, i int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		quotes, escapes := x^ones*'"', x^ones*'\\'
		// The top bit of the first byte that is zero here, or less than a space, is set. Those of
		// the bytes after it may be set too.
		found := ((quotes-ones)&^quotes | (escapes-ones)&^escapes | (x-ones*' ')&^x) & tops
		if found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] != '"' && b[i] != '\\' && b[i] >= ' ' {
		i++
	}
	return i
}

// endOfString returns the offset after the string that starts at i.
func endOfString(b []byte, i int) int {
	for i = endOfText(b, i+1); b[i] == '\\'; {
		i = endOfText(b, i+2)
	}
	return i + 1
}

// endOfScalar returns the offset after the number, true, false or null that starts at i.
func endOfScalar(b []byte, i int) int {
	for i < len(b) {
		switch b[i] {
		case ',', ']', '}', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return i
}

// endOfValue returns the offset after the value that starts at i.
func endOfValue(b []byte, i int) int { return ends(nil).endOfValue(b, i) }

// next returns the offset of the next element or member of a container, or of its closing bracket.
// i is the offset after the previous one.
func next(b []byte, i int) int {
	i = space(b, i)
	if b[i] == ',' {
		i = space(b, i+1)
	}
	return i
}

// value returns the offset of the value of the member whose name ends at i.
func value(b []byte, i int) int { return space(b, space(b, i)+1) }

// members calls f with the offsets of each member's name and value, until it returns false.
func members(b []byte, object int, f func(name, nameEnd, value int) bool) {
	for i := space(b, object+1); b[i] != '}'; {
		end := endOfString(b, i)
		at := value(b, end)
		if !f(i, end, at) {
			return
		}
		i = next(b, endOfValue(b, at))
	}
}

// elements calls f with the offset of each element, until it returns false.
func elements(b []byte, array int, f func(at int) bool) {
	for i := space(b, array+1); b[i] != ']'; {
		if !f(i) {
			return
		}
		i = next(b, endOfValue(b, i))
	}
}

// unquote returns the text of a JSON string, and the buffer, which it uses only if the string has
// escapes.
func unquote(quoted, buffer []byte) (text, grown []byte) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, buffer
	}
	start := len(buffer)
	buffer, _ = jsontext.AppendUnquote(buffer, quoted) // valid, like the whole text
	return buffer[start:], buffer
}

// The functions below validate text, but not its UTF-8. They accept no escapes, and only small
// numbers of names and levels.

func simpleValue(b []byte, i, depth int) (end int, ok bool) {
	if i == len(b) || depth == 16 {
		return i, false
	}
	switch b[i] {
	case '"':
		return simpleString(b, i)
	case '{':
		return simpleObject(b, i, depth)
	case '[':
		return simpleArray(b, i, depth)
	}
	if kindOf(b[i]) != kindNumber {
		return literal(b, i)
	}
	end = endOfScalar(b, i)
	return end, isNumber(string(b[i:end]))
}

// literal returns the offset after true, false or null at i.
func literal(b []byte, i int) (end int, ok bool) {
	word := "null"
	switch b[i] {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	end = i + len(word)
	return end, end <= len(b) && string(b[i:end]) == word
}

func simpleString(b []byte, i int) (end int, ok bool) {
	end = endOfText(b, i+1)
	return end + 1, end < len(b) && b[end] == '"'
}

func simpleArray(b []byte, i, depth int) (end int, ok bool) {
	if i = space(b, i+1); i < len(b) && b[i] == ']' {
		return i + 1, true
	}
	for {
		if i, ok = simpleValue(b, i, depth+1); !ok {
			return i, false
		}
		if i = space(b, i); i == len(b) || b[i] != ',' {
			return i + 1, i < len(b) && b[i] == ']'
		}
		i = space(b, i+1)
	}
}

func simpleObject(b []byte, i, depth int) (end int, ok bool) {
	if i = space(b, i+1); i < len(b) && b[i] == '}' {
		return i + 1, true
	}
	var names [16][]byte
	for n := range names {
		if i == len(b) || b[i] != '"' {
			return i, false
		}
		if end, ok = simpleString(b, i); !ok {
			return end, false
		}
		names[n] = b[i:end]
		for _, other := range names[:n] {
			if bytes.Equal(names[n], other) {
				return i, false
			}
		}
		if i = space(b, end); i == len(b) || b[i] != ':' {
			return i, false
		}
		if i, ok = simpleValue(b, space(b, i+1), depth+1); !ok {
			return i, false
		}
		if i = space(b, i); i == len(b) || b[i] != ',' {
			return i + 1, i < len(b) && b[i] == '}'
		}
		i = space(b, i+1)
	}
	return i, false
}
