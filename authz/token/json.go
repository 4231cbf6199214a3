package token

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The JSON of a token is read strictly (RFC 7515 §4, RFC 7519 §4, RFC 8725 §3.12): one object,
// unique and case-sensitive member names, valid UTF-8, nothing after it. The decoder enforces this
// in nested values too.

// reader is a reusable decoder with its input.
type reader struct {
	jsontext.Decoder
	buffer bytes.Buffer
}

var readers = sync.Pool{New: func() any { return new(reader) }}

func read(data []byte, with func(*jsontext.Decoder) error) error {
	r := readers.Get().(*reader)
	defer readers.Put(r)
	r.buffer = *bytes.NewBuffer(data)
	r.Reset(&r.buffer)
	err := with(&r.Decoder)
	if err == nil {
		if _, after := r.ReadToken(); !errors.Is(after, io.EOF) {
			err = errors.New("data after the JSON value")
		}
	}
	r.buffer = bytes.Buffer{} // do not keep the token in the pool
	r.Reset(&r.buffer)
	return withoutInput(err)
}

// eachMember calls member for every member of the JSON object in data. The value aliases data.
func eachMember(data []byte, member func(name []byte, value jsontext.Value) error) error {
	return read(data, func(d *jsontext.Decoder) error {
		if d.PeekKind() != '{' {
			return errors.New("not a JSON object")
		}
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		for d.PeekKind() != '}' {
			name, err := readName(d, data)
			if err != nil {
				return err
			}
			value, err := readValue(d, data)
			if err != nil {
				return err
			}
			if err := member(name, value); err != nil {
				return err
			}
		}
		_, err := d.ReadToken()
		return err
	})
}

// readValue reads one value. The result aliases data, not the decoder's buffer.
func readValue(d *jsontext.Decoder, data []byte) (jsontext.Value, error) {
	value, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	end := int(d.InputOffset())
	return data[end-len(value) : end : end], nil
}

func readName(d *jsontext.Decoder, data []byte) ([]byte, error) {
	name, err := readValue(d, data)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(name, '\\') >= 0 {
		return jsontext.AppendUnquote(nil, name)
	}
	return name[1 : len(name)-1], nil
}

// withoutInput replaces the decoder's errors, which quote the input, with errors that do not.
func withoutInput(err error) error {
	if err == nil {
		return nil
	}
	var s *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a member name occurs twice")
	case errors.As(err, &s), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("not valid JSON")
	}
	return err
}

// textOf returns the text of a JSON string. It aliases value if there are no escapes.
func textOf(name string, value jsontext.Value) ([]byte, error) {
	if value.Kind() != '"' {
		return nil, errors.New(name + " is not a string")
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return value[1 : len(value)-1], nil
	}
	return jsontext.AppendUnquote([]byte{}, value)
}

// eachText calls each for a string, or for every string of an array of strings.
func eachText(name string, value jsontext.Value, each func([]byte)) error {
	switch value.Kind() {
	case '"':
		text, err := textOf(name, value)
		if err == nil {
			each(text)
		}
		return err
	case '[':
	default:
		return errors.New(name + " is neither a string nor an array of strings")
	}
	return read(value, func(d *jsontext.Decoder) error {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		for d.PeekKind() != ']' {
			element, err := readValue(d, value)
			if err != nil {
				return err
			}
			text, err := textOf("an element of "+name, element)
			if err != nil {
				return err
			}
			each(text)
		}
		_, err := d.ReadToken()
		return err
	})
}

// numericDate is seconds since the epoch, possibly with a fraction (RFC 7519 §2).
type numericDate struct {
	seconds float64
	present bool
}

func timeOf(name string, value jsontext.Value) (numericDate, error) {
	if value.Kind() != '0' {
		return numericDate{}, errors.New(name + " is not a number of seconds")
	}
	const limit = 1 << 53 // beyond it a float64 no longer holds every second
	if n, err := strconv.ParseUint(string(value), 10, 53); err == nil {
		return numericDate{float64(n), true}, nil // the common case, and faster
	}
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil || n < 0 || n > limit {
		return numericDate{}, errors.New(name + " is out of range")
	}
	return numericDate{n, true}, nil
}

// lookup finds the value that a JSON pointer (RFC 6901) names, through objects only. The object
// must be valid JSON.
func lookup(object []byte, pointer string) (value jsontext.Value, found bool) {
	value = object
	for name := range jsontext.Pointer(pointer).Tokens() {
		var next jsontext.Value
		if value.Kind() != '{' {
			return nil, false
		}
		err := eachMember(value, func(member []byte, v jsontext.Value) error {
			if string(member) == name {
				next = v
			}
			return nil
		})
		if err != nil || next == nil {
			return nil, false
		}
		value = next
	}
	return value, true
}

// decode reads a value into v, strictly.
func decode(value jsontext.Value, v any) error { return json.Unmarshal(value, v) }
