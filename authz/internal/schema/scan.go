package schema

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// The functions of this file move over JSON text that jsontext has already found to be valid (RFC
// 8259, RFC 7493): they check nothing but where a value ends, and allocate nothing.

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
func kindOf(c byte) kind {
	switch c {
	case '{':
		return kindObject
	case '[':
		return kindArray
	case '"':
		return kindString
	case 't', 'f':
		return kindBoolean
	case 'n':
		return kindNull
	}
	return kindNumber
}

// space returns the offset of the first byte at or after i that is no white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// endOfString returns the offset behind the string that begins at i.
func endOfString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ { // most are too short for anything but a loop
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// endOfScalar returns the offset behind the number, true, false or null that begins at i.
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

// endOfValue returns the offset behind the value that begins at i.
func endOfValue(b []byte, i int) int {
	for depth := 0; ; {
		switch b[i] {
		case '"':
			i = endOfString(b, i)
		case '{', '[':
			depth++
			i++
			continue
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\n', '\t', '\r':
			i++
			continue
		default:
			i = endOfScalar(b, i)
		}
		if depth == 0 {
			return i
		}
	}
}

// next returns the offset of the next element or member of a container, or of its closing bracket,
// where i is behind the one before.
func next(b []byte, i int) int {
	i = space(b, i)
	if b[i] == ',' {
		i = space(b, i+1)
	}
	return i
}

// value returns the offset of the value of a member whose name ends at i.
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

// unquote returns the text of a JSON string, and the buffer that it used if it had to.
func unquote(quoted, buffer []byte) (text, grown []byte) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner, buffer
	}
	start := len(buffer)
	buffer, _ = jsontext.AppendUnquote(buffer, quoted) // valid, as all of the text
	return buffer[start:], buffer
}
