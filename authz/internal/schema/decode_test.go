package schema

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"
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
