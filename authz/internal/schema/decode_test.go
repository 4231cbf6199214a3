package schema

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type decoded struct {
	A       int8             `json:"a"`
	B       *string          `json:"b,omitempty"`
	C       []float32        `json:"c"`
	XY      []*decoded       `json:"x-y,omitempty"`
	Time    *time.Time       `json:"time"`
	Any     any              `json:"any"`
	Map     map[string]int   `json:"map"`
	Skipped chan int         `json:"-"`
	Deep    struct{ A bool } `json:"deep"`
}

// decodedPlain decodes without json v2.
type decodedPlain struct {
	A  int8           `json:"a"`
	B  *string        `json:"b,omitempty"`
	C  []float32      `json:"c"`
	XY []decodedPlain `json:"x-y,omitempty"`
	D  *bool          `json:"d"`
	E  *struct {
		A *[]string `json:"a"`
	} `json:"e"`
	F []time.Time `json:"f"` // UnmarshalJSON
	G *netip.Addr `json:"g"` // UnmarshalText
	H netip.Addr  `json:"h"`
	I noted       `json:"i"`
}

// noted is told of null too.
type noted struct{ text string }

func (n *noted) UnmarshalJSON(text []byte) error {
	if n.text = string(text); n.text == "0" {
		return errors.New("0")
	}
	return nil
}

// checkDecode compares with encoding/json, for a text whose names are in the letters of the types.
func checkDecode(t *testing.T, d *Decoder, text []byte) {
	t.Helper()
	for _, typ := range []reflect.Type{
		reflect.TypeFor[decoded](), reflect.TypeFor[decodedPlain](), reflect.TypeFor[[]string](),
		reflect.TypeFor[map[string]decodedPlain](), reflect.TypeFor[*float64](),
		reflect.TypeFor[any](),
	} {
		got, want := reflect.New(typ), reflect.New(typ)
		err := d.Decode(text, got.Interface())
		wantErr := json.Unmarshal(text, want.Interface())
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%s into %s: %v, want %v", text, typ, err, wantErr)
		} else if err == nil && !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Errorf("%s into %s: %+v, want %+v", text, typ, got.Elem(), want.Elem())
		}
	}
}

func TestDecode(t *testing.T) {
	var d Decoder
	for _, text := range []string{
		`{}`, `null`, `{"a":1,"b":"x","c":[1.5,2],"x-y":[{"a":-128},{}],"d":true}`, `{"a":null,"b":null,"c":null,"d":null,"e":null,"x-y":null}`,
		`{"a":128}`, `{"a":1.5}`, `{"a":"1"}`, `{"b":1}`, `{"b":"a\"\u00e4\ud83d\ude00"}`, `{"c":[]}`, `{"c":[1e39]}`, `{"c":{}}`, `{"c":[null,1]}`,
		`{"e":{"a":["a","b"]}}`, `{"e":{"a":null,"b":{"c":[1,{"d":"}"}]}}}`, ` { "a" : 1 , "z" : [ 1 , 2 ] , "\u0062":"x" } `, `["a"]`, `[]`, `"x"`, `true`, `1`, `[[1]]`,
		`{"time":"2026-02-28T10:00:00Z","any":{"a":[1,"b"]},"map":{"x":1},"deep":{"A":true}}`, `{"x-y":[{"x-y":[{"a":1}]}]}`, `{"x-y":[null]}`,
		`{"f":["2026-02-28T10:00:00Z",null],"g":"::1","h":"10.0.0.1","i":[1, "]"] ,"a":1}`,
		`{"f":null,"g":null,"h":null,"i":null}`, `{"f":["x"]}`, `{"f":[1]}`, `{"g":"x"}`, `{"h":1}`,
		`{"h":"\u003a:1"}`, `{"i":"x"}`, `{"i":0}`,
	} {
		checkDecode(t, &d, []byte(text))
	}
	m := &maker{Rand: rand.New(rand.NewPCG(13, 14))}
	for range 2000 {
		checkDecode(t, &d, marshal(t, m.value(4)))
	}
	// Existing values are merged, like with encoding/json.
	got, want := decodedPlain{A: 5, C: []float32{1}}, decodedPlain{A: 5, C: []float32{1}}
	if err := d.Decode([]byte(`{"c":[2]}`), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"c":[2]}`), &want); err != nil ||
		!reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := d.Decode([]byte(`{}`), decodedPlain{}); err == nil {
		t.Error("no pointer is accepted")
	}
}

// TestDecodeConflict: encoding/json sets neither of two fields of the same name, without an error.
// The value would be lost.
func TestDecodeConflict(t *testing.T) {
	field := func(name string, t reflect.Type, tag string) reflect.StructField {
		return reflect.StructField{Name: name, Type: t, Tag: reflect.StructTag(tag)}
	}
	number := reflect.TypeFor[int]()
	twice := reflect.StructOf([]reflect.StructField{ // go vet refuses such a declaration
		field("A", number, `json:"a"`), field("B", reflect.TypeFor[string](), `json:"a"`),
	})
	inside := reflect.StructOf([]reflect.StructField{
		field("In", reflect.ArrayOf(1, twice), `json:"in,omitempty"`),
	})
	byName := reflect.StructOf([]reflect.StructField{
		field("A", number, `json:"B"`), field("B", number, ""),
	})
	type base struct {
		A int `json:"a"`
	}
	type overrides struct {
		base
		B int `json:"a"`
	}
	for _, c := range []struct {
		t     reflect.Type
		valid bool
	}{
		{twice, false}, {reflect.SliceOf(twice), false}, {inside, false}, {byName, false},
		{reflect.MapOf(reflect.TypeFor[string](), reflect.PointerTo(twice)), false},
		{reflect.TypeFor[overrides](), true}, {reflect.TypeFor[decoded](), true},
		{reflect.TypeFor[struct {
			A int `json:"-"`
			B int `json:"A"`
		}](), true},
	} {
		var d Decoder
		for range 2 { // the second time by the plan of the first
			err := d.Decode([]byte("null"), reflect.New(c.t).Interface())
			if (err == nil) != c.valid {
				t.Errorf("%v: %v, valid: %v", c.t, err, c.valid)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"a":1,"b":"x","c":[1.5],"x-y":[{}],"d":true,"e":{"a":[""]}}`)
	f.Add(`[" ",null]`)
	any := compileS(f, v31, "S: {}", Options{})
	var d Decoder
	f.Fuzz(func(t *testing.T, text string) {
		// Numbers beyond float64 are refused here, and names in other letters are other names.
		var folded, plain decodedPlain
		if _, err := any.Validate([]byte(text)); err != nil {
			return
		}
		wantErr, err := json.Unmarshal([]byte(text), &folded), d.Decode([]byte(text), &plain)
		if wantErr == nil && err != nil {
			t.Errorf("%s: %v", text, err)
		}
	})
}

// checkDecodeType compares the decoder with json v2, for a random type and value.
func checkDecodeType(t *testing.T, seed uint64) {
	t.Helper()
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 1))}
	typ := m.goType(3)
	text := m.textFor(nil, typ)
	if !jsontext.Value(text).IsValid() {
		t.Fatalf("%s is not valid", text)
	}
	var d Decoder
	got, want := reflect.New(typ), reflect.New(typ)
	err := d.Decode(text, got.Interface())
	wantErr := jsonv2.Unmarshal(text, want.Interface(), decoding)
	if (err == nil) != (wantErr == nil) {
		t.Errorf("%s into %s: %v, expected %v", text, typ, err, wantErr)
	} else if err == nil && !reflect.DeepEqual(got.Interface(), want.Interface()) {
		t.Errorf("%s into %s: %+v, expected %+v", text, typ, got.Elem(), want.Elem())
	}
}

func TestDecodeTypes(t *testing.T) {
	for seed := range uint64(2000) {
		checkDecodeType(t, seed)
	}
}

// FuzzDecodeTypes has few seeds, because the fuzzer runs all of them before it makes others.
func FuzzDecodeTypes(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(checkDecodeType)
}

// goType returns a type like those of generated code.
func (m *maker) goType(depth int) reflect.Type {
	leaves := []reflect.Type{
		reflect.TypeFor[string](), reflect.TypeFor[bool](), reflect.TypeFor[int](),
		reflect.TypeFor[int8](), reflect.TypeFor[int16](), reflect.TypeFor[int32](),
		reflect.TypeFor[int64](), reflect.TypeFor[float32](), reflect.TypeFor[float64](),
		reflect.TypeFor[time.Time](), reflect.TypeFor[netip.Addr](), reflect.TypeFor[uint8](),
		reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any](), reflect.TypeFor[time.Month](),
		reflect.TypeFor[map[string]string](), reflect.TypeFor[struct{}](),
	}
	switch n := m.IntN(6); {
	case depth == 0 || n < 2:
		return pick(m, leaves[:9+m.IntN(9)])
	case n == 2:
		return reflect.PointerTo(m.goType(depth - 1))
	case n == 3:
		return reflect.SliceOf(m.goType(depth - 1))
	}
	var fields []reflect.StructField
	for i := range m.IntN(8) {
		name := string(rune('A' + i))
		tag := `json:"` + pick(m, []string{name, name + "-x", "ä" + name, name + name}) +
			pick(m, []string{``, `,omitempty`, `,omitempty`, `,string`}) + `"`
		fields = append(fields, reflect.StructField{
			Name: name, Type: m.goType(depth - 1), Tag: reflect.StructTag(tag),
		})
	}
	return reflect.StructOf(fields)
}

// textFor appends a text that mostly fits a type.
func (m *maker) textFor(dst []byte, t reflect.Type) []byte {
	blank := pick(m, []string{"", "", "", " ", "\n\t"})
	return append(m.bareTextFor(append(dst, blank...), t), blank...)
}

func (m *maker) bareTextFor(dst []byte, t reflect.Type) []byte {
	if m.IntN(30) == 0 {
		return append(dst, pick(m, []string{
			`null`, `0`, `-0`, `1.5`, `1e2`, `"x"`, `true`, `[]`, `{}`, `[[1]]`, `{"a":{"b":"}"}}`,
			`"\u0041"`,
		})...)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return m.textFor(dst, t.Elem())
	case reflect.Bool:
		return append(dst, pick(m, []string{"true", "false"})...)
	case reflect.Slice:
		dst = append(dst, '[')
		for i := range m.IntN(7) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = m.textFor(dst, t.Elem())
		}
		return append(dst, ']')
	case reflect.Struct:
		switch t {
		case reflect.TypeFor[time.Time]():
			return append(dst, `"2026-02-28T10:00:00.5+01:00"`...)
		case reflect.TypeFor[netip.Addr]():
			return append(dst, pick(m, []string{`"::1"`, `"10.0.0.1"`, `"\u003a:1"`, `""`})...)
		}
		dst = append(dst, '{')
		written := 0
		for _, i := range m.Perm(t.NumField()) {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			switch m.IntN(10) {
			case 0:
				continue
			case 1:
				name = strings.ToLower(name) // another name
			case 2:
				name = `\u00` + strconv.FormatInt(int64(name[0]), 16) + name[1:]
				if t.Field(i).Tag.Get("json")[0] >= 128 {
					continue
				}
			}
			if written++; written > 1 {
				dst = append(dst, ',')
			}
			dst = append(dst, `"`+name+`" : `...)
			dst = m.textFor(dst, t.Field(i).Type)
		}
		return append(dst, '}')
	case reflect.String:
		return append(dst, pick(m, []string{
			`""`, `"a"`, `"Ada Lovelace, the first"`, `"\\"`, `"a\"b"`, `"\u00e4\ud83d\ude00"`, `"ä"`,
			`"\\\\\""`, `"` + strings.Repeat("long ", 300) + `"`,
		})...)
	case reflect.Float32, reflect.Float64:
		return append(dst, pick(m, []string{`0`, `-1.5e-3`, `1e39`, `1e309`, `123456789.125`})...)
	case reflect.Map, reflect.Interface:
		return append(dst, `{"a":"b"}`...)
	}
	return append(dst, pick(m, []string{
		`0`, `-1`, `127`, `-129`, `65536`, `2147483647`, `9223372036854775807`,
		`-9223372036854775808`, `9223372036854775808`, `-0`, `123456789012345678`,
	})...)
}
