package token

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The JSON of a token is read strictly (RFC 7515 §4, RFC 7519 §4, RFC 8725 §3.12): one object, unique and
// case-sensitive member names, valid UTF-8, nothing after it. The decoder sees to all of that, in nested and in
// skipped values too.

// eachMember calls member for every member of the object that data is. member must consume the value.
func eachMember(data []byte, member func(name string, d *jsontext.Decoder) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	if d.PeekKind() != '{' {
		return errors.New("not a JSON object")
	}
	if _, err := d.ReadToken(); err != nil {
		return syntax(err)
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return syntax(err)
		}
		if err := member(name.String(), d); err != nil {
			return syntax(err)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return syntax(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something stands after the JSON object")
	}
	return nil
}

// syntax replaces the decoder's errors, which quote the input, by one that does not.
func syntax(err error) error {
	var s *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a member name occurs twice")
	case errors.As(err, &s), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("not valid JSON")
	}
	return err
}

func readString(d *jsontext.Decoder, name string) (string, error) {
	if d.PeekKind() != '"' {
		return "", wrongType(d, name, "a string")
	}
	t, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// readStrings reads a string or an array of strings.
func readStrings(d *jsontext.Decoder, name string) ([]string, error) {
	if d.PeekKind() != '[' {
		s, err := readString(d, name)
		return []string{s}, err
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	list := []string{}
	for d.PeekKind() != ']' {
		s, err := readString(d, name)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	_, err := d.ReadToken()
	return list, err
}

// readTime reads a NumericDate (RFC 7519 §2): seconds since the epoch, possibly with a fraction.
func readTime(d *jsontext.Decoder, name string) (float64, error) {
	if d.PeekKind() != '0' {
		return 0, wrongType(d, name, "a number of seconds")
	}
	t, err := d.ReadToken()
	if err != nil {
		return 0, err
	}
	const most = 1 << 53 // beyond it a float64 no longer holds every second
	n, err := strconv.ParseFloat(t.String(), 64)
	if err != nil || n < 0 || n > most {
		return 0, errors.New(name + " is out of range")
	}
	return n, nil
}

// wrongType reports a value of the wrong type, or, where there is no value at all, what is wrong with the syntax.
func wrongType(d *jsontext.Decoder, name, expected string) error {
	if err := d.SkipValue(); err != nil {
		return err
	}
	return errors.New(name + " is not " + expected)
}

// lookup finds the value that a JSON pointer (RFC 6901) names, through objects only. The object is one that
// eachMember has read before, so its syntax is known to be right.
func lookup(object []byte, pointer jsontext.Pointer) (value jsontext.Value, found bool) {
	value = object
	for name := range pointer.Tokens() {
		var next jsontext.Value
		if value.Kind() != '{' {
			return nil, false
		}
		err := eachMember(value, func(member string, d *jsontext.Decoder) (err error) {
			if member != name {
				return d.SkipValue()
			}
			next, err = d.ReadValue()
			next = bytes.Clone(next) // the decoder's own buffer otherwise
			return err
		})
		if err != nil || next == nil {
			return nil, false
		}
		value = next
	}
	return value, true
}

// decode reads a value into v, with the strictness of this package.
func decode(value jsontext.Value, v any) error { return json.Unmarshal(value, v) }
