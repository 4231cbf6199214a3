package schema

import (
	textual "encoding"
	stdjson "encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// Decoder decodes JSON that has been validated, as encoding/json does, but compares names exactly.
// It decodes the types that are most common in generated code, structs and lists of scalars and of
// types with encoding/json methods, without checking the text again, in half the time of json v2,
// which decodes all other types. The zero value is ready to use, and safe for concurrent use.
type Decoder struct{ plans sync.Map } // decode, or nil, by reflect.Type

// decoding are the options for json v2. They disable checks that the validator has already made.
var decoding = json.JoinOptions(
	jsonv1.DefaultOptionsV1(), json.MatchCaseInsensitiveNames(false),
	jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true),
)

// Decode decodes a text into the value that v points to.
func (d *Decoder) Decode(text []byte, v any) error {
	to := reflect.ValueOf(v)
	if to.Kind() == reflect.Pointer && !to.IsNil() && to.Elem().IsZero() {
		if f := d.plan(to.Type().Elem()); f != nil {
			if _, ok := f(text, space(text, 0), to.Elem()); ok {
				return nil
			}
			to.Elem().SetZero() // json v2 returns the error
		}
	}
	return json.Unmarshal(text, v, decoding)
}

// decode decodes the value at an offset into a zero value, and returns the offset after it. It
// reports false if the value does not fit.
type decode func(text []byte, at int, to reflect.Value) (end int, ok bool)

func (d *Decoder) plan(t reflect.Type) decode {
	if known, found := d.plans.Load(t); found {
		return known.(decode)
	}
	f := newDecode(t, map[reflect.Type]*decode{})
	d.plans.Store(t, f)
	return f
}

// newDecode returns the decode function of a type, or nil if json v2 decodes the type. known are
// the types in progress, because a type may contain itself.
func newDecode(t reflect.Type, known map[reflect.Type]*decode) decode {
	if f := known[t]; f != nil {
		return func(text []byte, at int, to reflect.Value) (int, bool) { return (*f)(text, at, to) }
	}
	switch pointer := reflect.PointerTo(t); {
	case pointer.Implements(reflect.TypeFor[json.UnmarshalerFrom]()):
		return nil
	case pointer.Implements(reflect.TypeFor[stdjson.Unmarshaler]()):
		return decodeByMethod
	case pointer.Implements(reflect.TypeFor[textual.TextUnmarshaler]()):
		return decodeByTextMethod
	}
	f := new(decode)
	known[t] = f
	switch t.Kind() {
	case reflect.String:
		*f = decodeString
	case reflect.Bool:
		*f = decodeBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		*f = decodeInt
	case reflect.Float32, reflect.Float64:
		*f = decodeFloat
	case reflect.Pointer:
		*f = newDecodePointer(t.Elem(), known)
	case reflect.Slice:
		*f = newDecodeSlice(t, known)
	case reflect.Struct:
		*f = newDecodeStruct(t, known)
	}
	return *f
}

func decodeString(text []byte, at int, to reflect.Value) (int, bool) {
	if text[at] != '"' {
		return decodeNull(text, at)
	}
	end := endOfString(text, at)
	s, _ := unquote(text[at:end], nil)
	to.SetString(string(s))
	return end, true
}

func decodeBool(text []byte, at int, to reflect.Value) (int, bool) {
	if kindOf(text[at]) != kindBoolean {
		return decodeNull(text, at)
	}
	to.SetBool(text[at] == 't')
	return endOfScalar(text, at), true
}

func decodeInt(text []byte, at int, to reflect.Value) (int, bool) {
	if kindOf(text[at]) != kindNumber {
		return decodeNull(text, at)
	}
	end := endOfScalar(text, at)
	n, err := strconv.ParseInt(string(text[at:end]), 10, to.Type().Bits())
	to.SetInt(n)
	return end, err == nil
}

func decodeFloat(text []byte, at int, to reflect.Value) (int, bool) {
	if kindOf(text[at]) != kindNumber {
		return decodeNull(text, at)
	}
	end := endOfScalar(text, at)
	n, err := strconv.ParseFloat(string(text[at:end]), to.Type().Bits())
	to.SetFloat(n)
	return end, err == nil
}

func decodeByMethod(text []byte, at int, to reflect.Value) (int, bool) {
	end := endOfValue(text, at)
	err := to.Addr().Interface().(stdjson.Unmarshaler).UnmarshalJSON(text[at:end:end])
	return end, err == nil
}

func decodeByTextMethod(text []byte, at int, to reflect.Value) (int, bool) {
	if text[at] != '"' {
		return decodeNull(text, at)
	}
	end := endOfString(text, at)
	inner, _ := unquote(text[at:end:end], nil)
	return end, to.Addr().Interface().(textual.TextUnmarshaler).UnmarshalText(inner) == nil
}

// decodeNull accepts only null, and leaves the zero value.
func decodeNull(text []byte, at int) (int, bool) { return at + len("null"), text[at] == 'n' }

func newDecodePointer(t reflect.Type, known map[reflect.Type]*decode) decode {
	element := newDecode(t, known)
	if element == nil {
		return nil
	}
	return func(text []byte, at int, to reflect.Value) (int, bool) {
		if text[at] == 'n' {
			return decodeNull(text, at)
		}
		value := reflect.New(t)
		to.Set(value)
		return element(text, at, value.Elem())
	}
}

func newDecodeSlice(t reflect.Type, known map[reflect.Type]*decode) decode {
	element := newDecode(t.Elem(), known)
	if element == nil {
		return nil
	}
	return func(text []byte, at int, to reflect.Value) (int, bool) {
		if text[at] != '[' {
			return decodeNull(text, at)
		}
		n := 0
		elements(text, at, func(int) bool { n++; return true })
		if n == 0 {
			to.Set(reflect.MakeSlice(t, 0, 0))
			return space(text, at+1) + 1, true
		}
		to.Grow(n)
		to.SetLen(n)
		at = space(text, at+1)
		for i := range n {
			end, ok := element(text, at, to.Index(i))
			if !ok {
				return 0, false
			}
			at = next(text, end)
		}
		return at + 1, true
	}
}

// fieldPlan is a field of a struct.
type fieldPlan struct {
	name   string
	index  int
	decode decode
}

func newDecodeStruct(t reflect.Type, known map[reflect.Type]*decode) decode {
	var fields []fieldPlan
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && rest == "" {
			continue
		}
		d := newDecode(f.Type, known)
		// json v2 decodes structs with special rules.
		if d == nil || f.Anonymous || !f.IsExported() || name == "" || name == "-" ||
			strings.ContainsAny(name, `'"\`) || rest != "" && rest != "omitempty" {
			return nil
		}
		fields = append(fields, fieldPlan{name, i, d})
	}
	return func(text []byte, at int, to reflect.Value) (int, bool) {
		if text[at] != '{' {
			return decodeNull(text, at)
		}
		at = space(text, at+1)
		for text[at] != '}' {
			nameEnd := endOfString(text, at)
			name, _ := unquote(text[at:nameEnd], nil)
			at = value(text, nameEnd)
			end, ok := 0, true
			if f := fieldNamed(fields, name); f != nil {
				if end, ok = f.decode(text, at, to.Field(f.index)); !ok {
					return 0, false
				}
			} else {
				end = endOfValue(text, at)
			}
			at = next(text, end)
		}
		return at + 1, true
	}
}

func fieldNamed(fields []fieldPlan, name []byte) *fieldPlan {
	for i := range fields {
		if string(name) == fields[i].name {
			return &fields[i]
		}
	}
	return nil
}
