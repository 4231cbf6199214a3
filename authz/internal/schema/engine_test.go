package schema

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
)

// load returns a document with components, and the schema S of it.
func load(t testing.TB, version, schemas string) (*openapi3.T, *openapi3.SchemaRef) {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = true
	text := "openapi: " + version +
		"\ninfo: {title: t, version: '1'}\npaths: {}\ncomponents:\n  schemas:\n"
	for line := range strings.Lines(schemas) {
		text += "    " + line
	}
	doc, err := loader.LoadFromData([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return doc, doc.Components.Schemas["S"]
}

// compileS compiles the schema S.
func compileS(t testing.TB, version, schemas string, options Options) *Schema {
	t.Helper()
	doc, ref := load(t, version, schemas)
	s, err := NewCompiler(doc, options).Schema(ref)
	if err != nil {
		t.Fatalf("%v\n%s", err, schemas)
	}
	return s
}

const v30, v31 = "3.0.4", "3.1.1"

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		version, schemas string
		good, bad        []string
	}{
		{v31, "S: {}", []string{`1`, `null`, `{}`}, nil},
		{v31, "S: true", []string{`1`}, nil},
		{v31, "S: false", nil, []string{`1`, `null`}},
		{v31, "S: {const: null}", []string{`null`, ` null `}, []string{`5`, `"null"`, `false`}},
		{v31, "S: {oneOf: [{type: string, minLength: 2}, {const: null}]}", []string{`"ab"`, `null`}, []string{`5`, `"a"`}},
		{v31, "S: {enum: []}", nil, []string{`1`, `null`, `{}`}},
		{v31, "S: {enum: [null, 1, x, {a: [1, 2.50]}, true]}", []string{`null`, `1`, `1.0`, `10e-1`, `"x"`, `"\u0078"`, `{"a":[1,2.5]}`, `true`}, []string{`2`, `"y"`, `false`, `{"a":[2.5,1]}`, `{}`}},
		{v31, "S: {const: {a: 1, b: {}}}", []string{`{"b":{},"a":1.0}`}, []string{`{"a":1}`, `{"a":1,"b":[]}`}},
		{v31, "S: {type: [string, 'null']}", []string{`"a"`, `null`}, []string{`1`, `true`, `[]`}},
		{v31, "S: {type: integer}", []string{`1`, `1.0`, `1e2`, `-0`, `0.0`, `1e30`}, []string{`1.5`, `1e-1`, `"1"`}},
		{v31, "S: {type: [integer, string]}", []string{`1`, `"a"`}, []string{`1.5`}},
		{v31, "S: {minimum: 0.1, maximum: 1}", []string{`0.1`, `1`, `0.10`, `1.00`, `"x"`}, []string{`0.09999999999999999999999`, `1.0000000000000000000001`, `-1`}},
		{v31, "S: {exclusiveMinimum: 1, exclusiveMaximum: 2}", []string{`1.5`, `1.00000000000000000001`}, []string{`1`, `2`, `2.0`}},
		{v31, "S: {minimum: 3, exclusiveMinimum: 1}", []string{`3`}, []string{`2`}},
		{v31, "S: {minimum: 1, exclusiveMinimum: 1}", []string{`2`}, []string{`1`}},
		{v31, "S: {maximum: 3, exclusiveMaximum: 5}", []string{`3`}, []string{`4`}},
		{v31, "S: {maximum: 3, exclusiveMaximum: 3}", []string{`2`}, []string{`3`}},
		{v30, "S: {minimum: 1, exclusiveMinimum: true}", []string{`1.1`}, []string{`1`}},
		{v30, "S: {maximum: 9007199254740992}", []string{`9007199254740992`, `9.007199254740992e15`}, []string{`9007199254740993`, `9007199254740992.5`}},
		{v31, "S: {maximum: 9223372036854775807}", []string{`9223372036854775807`}, []string{`9223372036854775808`}},
		{v31, "S: {multipleOf: 0.01}", []string{`0.07`, `4.35`, `1e3`, `0`, `-1.11`}, []string{`0.075`, `1e-3`}},
		{v31, "S: {multipleOf: 3}", []string{`9`, `-9`, `9.0`, `3e20`}, []string{`10`, `1e20`}},
		{v31, "S: {type: number}", []string{`1e308`, `1e-308`}, []string{`1e309`, `1e999999`, "1" + strings.Repeat("0", 100)}},
		{v31, "S: {minLength: 2, maxLength: 3}", []string{`"äö"`, `"😀😀😀"`, `"a\u0301b"`, `5`}, []string{`"ä"`, `"abcd"`, `"\ud83d\ude00"`}},
		{v31, "S: {pattern: '^a+$'}", []string{`"aa"`, `1`}, []string{`"b"`, `"aa\n"`}},
		{v31, "S: {uniqueItems: true}", []string{`[]`, `[1,"1",true,[1],{"a":1},{"a":2},null,false,0,""]`, `[[],{}]`, `["a:","a"]`}, []string{`[1.0, 1]`, `["a","\u0061"]`, `[{"a":1,"b":2},{"b":2,"a":1e0}]`, `[[1],[1.0]]`, `[null,null]`, `[0,-0]`}},
		{v31, "S: {items: {type: integer}, minItems: 1, maxItems: 2}", []string{`[1]`, `[1,2]`, `{}`}, []string{`[]`, `[1,2,3]`, `["a"]`}},
		{v31, "S: {prefixItems: [{type: string}, {type: integer}], items: false}", []string{`[]`, `["a"]`, `["a",1]`}, []string{`[1]`, `["a",1,2]`}},
		{v31, "S: {contains: {type: string}, minContains: 2, maxContains: 3}", []string{`["a","b"]`, `[1,"a","b","c"]`}, []string{`["a"]`, `["a","b","c","d"]`, `[]`}},
		{v31, "S: {contains: {type: string}}", []string{`["a"]`}, []string{`[]`, `[1]`}},
		{v31, "S: {contains: {type: string}, minContains: 0}", []string{`[]`, `[1]`}, nil},
		{v31, "S: {required: [a, b], properties: {a: {type: integer}}}", []string{`{"a":1,"b":null}`, `1`}, []string{`{"a":1}`, `{"b":1}`, `{"a":"x","b":1}`, `{}`}},
		{v31, "S: {required: [\"a/b~c\"]}", []string{`{"a/b~c":1}`, `{"\u0061/b~c":1}`}, []string{`{}`}},
		{v31, "S: {properties: {a: {}}, additionalProperties: false}", []string{`{"a":1}`, `{"\u0061":1}`, `{}`}, []string{`{"A":1}`, `{"b":1}`}},
		{v31, "S: {patternProperties: {'^x-': {type: string}}, additionalProperties: {type: integer}}", []string{`{"x-a":"s","b":1}`}, []string{`{"x-a":1}`, `{"b":"s"}`}},
		{v31, "S: {properties: {x-a: {minLength: 2}}, patternProperties: {'^x-': {type: string}}}", []string{`{"x-a":"ab"}`}, []string{`{"x-a":5}`, `{"x-a":"a"}`}},
		{v31, "S: {propertyNames: {pattern: '^[a-z]+$', maxLength: 3}}", []string{`{"abc":1}`}, []string{`{"A":1}`, `{"abcd":1}`}},
		{v31, "S: {minProperties: 1, maxProperties: 2}", []string{`{"a":1}`, `[]`}, []string{`{}`, `{"a":1,"b":2,"c":3}`}},
		{v31, "S: {dependentRequired: {a: [b]}}", []string{`{"a":1,"b":1}`, `{"b":1}`, `{}`}, []string{`{"a":1}`}},
		{v31, "S: {dependentSchemas: {a: {required: [b]}}}", []string{`{"a":1,"b":1}`, `{}`, `1`}, []string{`{"a":1}`}},
		{v31, "S: {allOf: [{minimum: 1}, {maximum: 3}]}", []string{`2`}, []string{`0`, `4`}},
		{v31, "S: {anyOf: [{type: string}, {minimum: 3}]}", []string{`"a"`, `3`, `true`}, []string{`1`}},
		{v31, "S: {oneOf: [{multipleOf: 2}, {multipleOf: 3}]}", []string{`2`, `3`}, []string{`6`, `5`}},
		{v31, "S: {not: {type: string}}", []string{`1`}, []string{`"a"`}},
		{v31, "S: {not: {}}", nil, []string{`1`, `null`}},
		{v30, "S: {not: {}}", nil, []string{`1`, `null`}},
		{v30, "S: {type: string, nullable: true}", []string{`null`, `"a"`}, []string{`1`}},
		{v30, "S: {type: string, nullable: true, enum: [a]}", []string{`"a"`}, []string{`null`}},
		{v30, "S: {type: string, nullable: true, enum: [a, null]}", []string{`"a"`, `null`}, nil},
		{v31, "S: {if: {properties: {k: {const: a}}, required: [k]}, then: {required: [x]}, else: {required: [y]}}", []string{`{"k":"a","x":1}`, `{"k":"b","y":1}`}, []string{`{"k":"a","y":1}`, `{"k":"b","x":1}`}},
		{v31, "S: {unevaluatedProperties: false, allOf: [{properties: {a: {}}}], properties: {b: {}}}", []string{`{"a":1,"b":2}`}, []string{`{"c":1}`}},
		{v31, "S: {unevaluatedProperties: false, anyOf: [{required: [a], properties: {a: {}}}, {required: [b], properties: {b: {}}}]}", []string{`{"a":1}`, `{"a":1,"b":2}`}, []string{`{"c":1}`, `{"a":1,"c":1}`}},
		{v31, "S: {unevaluatedProperties: {type: integer}, properties: {a: {}}}", []string{`{"a":"x","b":1}`}, []string{`{"b":"x"}`}},
		{v31, "S: {unevaluatedProperties: false, if: {properties: {a: {const: 1}}, required: [a]}, then: {properties: {b: {}}}, else: {properties: {c: {}}}}", []string{`{"a":1,"b":1}`, `{"c":1}`}, []string{`{"a":1,"c":1}`, `{"a":2}`}},
		{v31, "S: {unevaluatedProperties: false, not: {properties: {a: {}}, required: [z]}}", []string{`{}`}, []string{`{"a":1}`}},
		{v31, "S: {unevaluatedProperties: false, dependentSchemas: {a: {properties: {b: {}}}}, properties: {a: {}}}", []string{`{"a":1,"b":1}`}, []string{`{"b":1}`}},
		{v31, "S: {unevaluatedProperties: false, allOf: [{additionalProperties: {type: integer}}]}", []string{`{"a":1}`}, []string{`{"a":"x"}`}},
		{v31, "S: {unevaluatedItems: false, prefixItems: [{}], allOf: [{prefixItems: [{}, {type: string}]}]}", []string{`[1,"a"]`}, []string{`[1,"a",2]`, `[1,2]`}},
		{v31, "S: {unevaluatedItems: false, contains: {type: string}}", []string{`["a"]`}, []string{`["a",1]`}},
		{v31, "S: {unevaluatedItems: {type: integer}, prefixItems: [{}]}", []string{`["a",1]`}, []string{`["a","b"]`}},
		{v31, "S: {$ref: '#/components/schemas/A', properties: {x: {}}}\nA: {properties: {a: {}}, unevaluatedProperties: false}", []string{`{"a":1}`}, []string{`{"a":1,"x":1}`, `{"x":1}`}},
		{v31, "S: {$ref: '#/components/schemas/B', properties: {x: {}}, unevaluatedProperties: false}\nB: {properties: {b: {type: string}}}", []string{`{"b":"s","x":1}`}, []string{`{"c":1}`, `{"b":1}`}},
		{v31, "S: {properties: {p: {$ref: '#/components/schemas/R'}}}\nR: {$ref: '#/components/schemas/B', properties: {x: {}}, unevaluatedProperties: false}\nB: {properties: {b: {type: string}}}", []string{`{"p":{"b":"s","x":1}}`}, []string{`{"p":{"c":1}}`}},
		{v31, "S: {$ref: '#/components/schemas/B', const: null}\nB: {}", []string{`null`}, []string{`1`}},
		{v31, "S: {$ref: '#/components/schemas/B', enum: []}\nB: {}", nil, []string{`1`}},
		{v31, "S: {$ref: '#/components/schemas/B', not: {}}\nB: {}", nil, []string{`1`}},
		{v31, "S: {$ref: '#/components/schemas/B', minimum: 3, description: d}\nB: {type: integer}", []string{`3`}, []string{`2`, `"a"`}},
		{v30, "S: {$ref: '#/components/schemas/B', minimum: 3}\nB: {type: integer}", []string{`2`}, []string{`"a"`}},
		{v31, "S: {properties: {p: {$ref: '#/components/schemas/S/$defs/d'}}, $defs: {d: {type: string}}}", []string{`{"p":"a"}`}, []string{`{"p":1}`}},
		{v31, "S: {type: object, properties: {next: {$ref: '#/components/schemas/S'}, v: {type: integer}}}", []string{`{"next":{"next":{"v":1}}}`}, []string{`{"next":{"next":{"v":"x"}}}`}},
		{v31, "S: {$dynamicAnchor: node, properties: {kids: {items: {$dynamicRef: '#node'}}, v: {type: integer}}}", []string{`{"kids":[{"v":1}]}`}, []string{`{"kids":[{"v":"x"}]}`}},
		{v31, "S: {oneOf: [{$ref: '#/components/schemas/Cat'}, {$ref: '#/components/schemas/Dog'}], discriminator: {propertyName: kind, mapping: {kitty: Cat, dog: '#/components/schemas/Dog'}}}\nCat: {properties: {kind: {}, lives: {type: integer}}}\nDog: {properties: {kind: {}, bark: {type: boolean}}}",
			[]string{`{"kind":"kitty","lives":1}`, `{"kind":"Cat","lives":1}`,
				`{"kind":"dog","lives":"any"}`}, []string{`{"kind":"kitty","lives":"x"}`, `{"kind":"other"}`, `{"kind":5}`}},
		{v31, "S: {format: int64}", []string{`9223372036854775807`, `"a"`}, []string{`9223372036854775808`, `1.5`}},
		{v31, "S: {type: string, format: regex}", []string{`"^(abc)"`}, []string{`"^(abc]"`}},
		{v31, "S: {format: regex}", []string{`"^(abc)"`, `5`}, []string{`"^(abc]"`}},
	} {
		s := compileS(t, c.version, c.schemas, Options{})
		for _, body := range c.good {
			if _, err := s.Validate([]byte(body)); err != nil {
				t.Errorf("%s %s: %s is refused: %v", c.version, c.schemas, body, err)
			}
		}
		for _, body := range c.bad {
			_, err := s.Validate([]byte(body))
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Errorf("%s %s: %s is accepted", c.version, c.schemas, body)
			} else if e.Kind != InvalidBody || len(e.Details) == 0 {
				t.Errorf("%s %s: %s is refused as %s %v", c.version, c.schemas, body, e.Kind, e)
			}
		}
	}
}

// TestLongValues compares values whose canonical forms are hashes, or end at a limit.
func TestLongValues(t *testing.T) {
	var members, reversed []string
	for i := range 60 {
		members = append(members, fmt.Sprintf(`"m%d":%d`, i, i))
		reversed = append([]string{fmt.Sprintf(` "\u006d%d" : %d.0`, i, i)}, reversed...)
	}
	list := strings.Repeat(`"a",`, 600) + `{` + strings.Join(members, ",") + `}`
	text := `{"l":[` + list + `],"t":"` + strings.Repeat("x", 2000) + `"}`
	same := `{"t":"` + strings.Repeat(`\u0078`, 2000) + `","l":[` +
		strings.Repeat("\"a\"\n,", 600) + `{` + strings.Join(reversed, ",") + `}]}`
	others := []string{
		strings.Replace(text, `"m59":59`, `"m59":58`, 1), strings.Replace(text, `xx`, `x`, 1),
		strings.Replace(text, `"a",`, `"b",`, 1), strings.Replace(text, `"a",`, ``, 1), `{}`, `[]`,
	}
	constant := compileS(t, v31, "S: {const: "+text+"}", Options{})
	enum := compileS(t, v31, "S: {enum: [[1], "+text+"]}", Options{})
	unique := compileS(t, v31, "S: {uniqueItems: true, items: {$ref: '#/components/schemas/S'}}",
		Options{})
	check := func(s *Schema, text string, want bool) {
		t.Helper()
		if _, err := s.Validate([]byte(text)); (err == nil) != want {
			t.Errorf("%.80s…: %v, want %v", text, err, want)
		}
	}
	for _, s := range []*Schema{constant, enum} {
		check(s, text, true)
		check(s, same, true)
	}
	// uniqueItems keeps hashes of elements, of other forms than those of const and enum.
	lists := "[[1],[" + text + strings.Repeat(`,"`+strings.Repeat("x", 2000)+`"`, 4) + "]]"
	check(compileS(t, v31, "S: {uniqueItems: true, const: "+lists+"}", Options{}), lists, true)
	check(compileS(t, v31, "S: {uniqueItems: true, enum: ["+lists+"]}", Options{}), lists, true)
	check(compileS(t, v31, "S: {uniqueItems: true, not: {const: "+lists+"}}", Options{}), lists,
		false)
	check(unique, "["+text+","+same+"]", false)
	check(unique, "[[0,"+text+"],[0,"+same+"]]", false)
	check(unique, "[["+text+",1],["+same+",0],["+text+",0]]", false)
	for _, other := range others {
		check(constant, other, false)
		check(enum, other, false)
		check(unique, "["+text+","+other+"]", true)
		check(unique, "[["+text+",1],["+other+",1],["+text+",0]]", true)
	}
}

func TestMalformed(t *testing.T) {
	s := compileS(t, v31, "S: {}", Options{})
	for _, body := range []string{
		``, ` `, `{`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, "\"\xff\"", `"\ud800"`, `1 2`, `[1,]`,
		`01`, `nul`, strings.Repeat("[", 10001) + strings.Repeat("]", 10001), "\ufeff1",
	} {
		_, err := s.Validate([]byte(body))
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != InvalidBody {
			t.Errorf("%.20q: %v", body, err)
		}
	}
}

// syntaxSchemas check every value, in different ways.
func syntaxSchemas(t testing.TB) (schemas []*Schema) {
	for _, s := range []string{
		"S: {}",
		`S: {items: {$ref: "#/components/schemas/S"}, additionalProperties: {$ref: "#/components/schemas/S"}}`,
		`S: {properties: {id: {}, a: {$ref: "#/components/schemas/S"}, b: {$ref: "#/components/schemas/S"}, c: {readOnly: true}}, propertyNames: {maxLength: 50}, patternProperties: {"^[d-m]": {$ref: "#/components/schemas/S"}}, prefixItems: [{$ref: "#/components/schemas/S"}], contains: {}, minContains: 0, uniqueItems: true, unevaluatedProperties: {}, unevaluatedItems: {}, if: {type: object}, then: {minProperties: 1}}`,
	} {
		schemas = append(schemas, compileS(t, v31, s, Options{}))
	}
	return schemas
}

// checkSyntax compares the accepted syntax with that of jsontext.
func checkSyntax(t *testing.T, schemas []*Schema, text []byte) {
	t.Helper()
	for _, s := range schemas {
		_, err := s.Validate(text)
		e, _ := errors.AsType[*Error](err)
		malformed := e != nil && len(e.Details) > 0 && e.Details[0].Keyword == "syntax"
		if malformed == jsontext.Value(text).IsValid() {
			t.Errorf("%q: %v; jsontext says the opposite", text, err)
		}
		if e != nil && e.Kind == undecided {
			t.Errorf("%q is not decided", text)
		}
	}
}

var syntaxTexts = []string{
	person, ` [ 1 , -0.5e+1 , true , false , null , "ä" , {} , [ ] ] `,
	`{"a":1,"b":{"a":[{}]}}`, `{"c":[1,{"d":2}],"d":{},"e":[],"f":[[]]}`,
	`"x"`, `0`,
}

// TestSyntax checks texts that are cut off at every byte, or have another byte there.
func TestSyntax(t *testing.T) {
	schemas := syntaxSchemas(t)
	for _, text := range syntaxTexts {
		for i := range len(text) {
			checkSyntax(t, schemas, []byte(text[:i]))
			for _, c := range "\x00\",:{}[]01.-e x\xff\\" {
				checkSyntax(t, schemas, []byte(text[:i]+string(c)+text[i+1:]))
				checkSyntax(t, schemas, []byte(text[:i]+string(c)+text[i:]))
			}
		}
	}
}

// FuzzSyntax has few seeds, because the fuzzer runs all of them before it makes others.
func FuzzSyntax(f *testing.F) {
	for _, text := range syntaxTexts {
		f.Add([]byte(text))
	}
	f.Add([]byte("\"\xff\""))
	f.Add([]byte(`{"a":1,"b":2,"a":3}`))
	f.Add([]byte(`{"x":1,"y":2,"x":3}`))
	f.Add([]byte(strings.Repeat("[", 10001) + strings.Repeat("]", 10001)))
	schemas := syntaxSchemas(f)
	f.Fuzz(func(t *testing.T, text []byte) { checkSyntax(t, schemas, text) })
}

// TestManyMembers: objects that several schemas apply to, with members in the index and beyond.
func TestManyMembers(t *testing.T) {
	for _, n := range []int{1, 16, 17, 63, 64, 65, 200} {
		last := fmt.Sprintf("m%d", n-1)
		s := compileS(t, v31, `S: {unevaluatedProperties: false, allOf: [{required: [`+last+`]}, {additionalProperties: {$ref: "#/components/schemas/N"}}]}
N: {type: object, allOf: [{properties: {a: {type: integer}}, required: [a]}, {properties: {b: {minimum: 2}}}], unevaluatedProperties: false}`, Options{})
		for _, c := range []struct{ value, keyword string }{
			{`{"a":1,"b":2}`, ""}, {`{"a":1,"b":1}`, "minimum"}, {`{"b":2}`, "required"},
			{`{"a":1,"c":1}`, "unevaluatedProperties"}, {`{"a":1,"a":2}`, "syntax"},
		} {
			body := []byte("{")
			for i := range n - 1 {
				body = fmt.Appendf(body, `"m%d": {"a": 1, "b": 3}, `, i)
			}
			body = fmt.Appendf(body, `"%s": %s}`, last, c.value)
			_, err := s.Validate(body)
			e, _ := errors.AsType[*Error](err)
			if (e == nil) != (c.keyword == "") || e != nil && e.Details[0].Keyword != c.keyword {
				t.Errorf("%d members, the last %s: %v, want %q", n, c.value, err, c.keyword)
			}
		}
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ schemas, body, want string }{
		{"S: {type: integer}", `1.0`, `1`},
		{"S: {type: integer}", `1e2`, `100`},
		{"S: {type: integer}", `-1.50e1`, `-15`},
		{"S: {type: integer}", `18446744073709551615.0`, `18446744073709551615`},
		{"S: {type: integer}", `18446744073709551616.0`, `18446744073709551616.0`},
		{"S: {type: integer}", `0.0`, `0`},
		{"S: {type: number}", `1e2`, `1e2`},
		{"S: {properties: {a: {type: integer}}}", `{ "a" : 1.0 , "b": 1.0}`, `{ "a" : 1 , "b": 1.0}`},
		{"S: {oneOf: [{required: [x], properties: {a: {type: integer}}}, {properties: {a: {type: number, minimum: 0}}}]}", `{"a":1.0}`, `{"a":1.0}`},
		{"S: {properties: {text: {type: string}}}", `{"text":"ok","TEXT":"other"}`, `{"text":"ok"}`},
		{"S: {properties: {text: {type: string}}}", `{"TEXT":"other", "text":"ok"}`, `{ "text":"ok"}`},
		{"S: {properties: {kind: {type: string}}}", `{"Kind":1}`, `{}`},
		{"S: {properties: {text: {type: string}}, additionalProperties: true}", `{"TEXT":1}`, `{"TEXT":1}`},
		{"S: {allOf: [{properties: {text: {type: string}}}, {properties: {TEXT: {type: string}}}]}", `{"TEXT":"a","text":"b","Text":"c"}`, `{"TEXT":"a","text":"b"}`},
		{"S: {required: [id, n], properties: {id: {type: string, readOnly: true}, n: {type: integer}}}", `{"id":5, "n":1.0}`, `{ "n":1}`},
		{"S: {required: [id, n], properties: {id: {type: string, readOnly: true}, n: {type: integer}}}", `{"n":1, "id":{"a":[1]} }`, `{"n":1 }`},
		{"S: {allOf: [{$ref: '#/components/schemas/B'}, {required: [id]}]}\nB: {properties: {id: {type: string, readOnly: true}}}", `{}`, `{}`},
		{"S: {allOf: [{$ref: '#/components/schemas/B'}], required: [id]}\nB: {properties: {id: {$ref: '#/components/schemas/I'}}}\nI: {type: string, readOnly: true}", `{"id":1}`, `{}`},
		{"S: {required: [id], properties: {id: {$ref: '#/components/schemas/I', readOnly: true}}}\nI: {type: string}", `{"id":1}`, `{}`},
	} {
		s := compileS(t, v31, c.schemas, Options{})
		got, err := s.Validate([]byte(c.body))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s: %s %v, want %s", c.schemas, c.body, got, err, c.want)
		}
	}
}

func TestDetails(t *testing.T) {
	many := ""
	for i := range MaxDetails {
		many += fmt.Sprintf(", /%d type", i)
	}
	for _, c := range []struct{ schemas, body, want string }{
		{"S: {required: [street, city], properties: {street: {}, zip: {pattern: '^[0-9]{5}$'}, age: {minimum: 0, type: integer}}}", `{"zip":"abc","age":-1}`,
			"/street required, /city required, /zip pattern, /age minimum"},
		{"S: {additionalProperties: {type: integer}}", `{"secret":"x"}`, "/* type"},
		{"S: {items: {properties: {a/b: {type: string}}}}", `[{"a/b":""},{"a/b":1}]`, "/1/a~1b type"},
		{"S: {oneOf: [{$ref: '#/components/schemas/Cat'}, {$ref: '#/components/schemas/Dog'}], discriminator: {propertyName: kind}}\nCat: {required: [lives], properties: {kind: {const: Cat}}}\nDog: {required: [bark], properties: {kind: {const: Dog}}}", `{"kind":"Dog"}`, "/bark required"},
		{"S: {oneOf: [{$ref: '#/components/schemas/Cat'}, {$ref: '#/components/schemas/Dog'}]}\nCat: {required: [lives], properties: {kind: {const: cat}}}\nDog: {required: [bark], properties: {kind: {const: dog}}}", `{"kind":"dog"}`, " oneOf Dog, /bark required"},
		{"S: {anyOf: [{type: string}, {type: object, required: [a]}]}", `{}`, " anyOf number 2, /a required"},
		{"S: {items: {type: string}}", "[" + strings.Repeat("1,", 50) + "1]", many[2:]},
	} {
		s := compileS(t, v31, c.schemas, Options{})
		_, err := s.Validate([]byte(c.body))
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Fatalf("%s: accepted", c.body)
		}
		var got []string
		for _, d := range e.Details {
			text := d.Pointer + " " + d.Keyword
			if _, nearest, ok := strings.Cut(d.Text, "the nearest is "); ok {
				text += " " + nearest
			}
			got = append(got, text)
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %s, want %s (%v)", c.body, strings.Join(got, ", "), c.want, e)
		}
	}
}

// TestHidden: members that are readOnly or writeOnly, by the settings.
func TestHidden(t *testing.T) {
	const schemas = "S: {required: [id, secret], properties: {id: {type: string, readOnly: " +
		"true}, secret: {type: string, writeOnly: true}}}"
	for _, c := range []struct {
		options    Options
		body, want string // want "" is a refusal
	}{
		{Options{}, `{"id":"a","secret":"b"}`, `{"secret":"b"}`},
		{Options{}, `{"secret":"b"}`, `{"secret":"b"}`},
		{Options{}, `{"id":"a"}`, ""},
		{Options{RefuseReadOnly: true}, `{"id":"a","secret":"b"}`, ""},
		{Options{RefuseReadOnly: true}, `{"secret":"b"}`, `{"secret":"b"}`},
		{Options{Responses: true}, `{"id":"a"}`, `{"id":"a"}`},
		{Options{Responses: true}, `{"id":"a","secret":"b"}`, ""},
		{Options{Responses: true}, `{}`, ""},
	} {
		for _, version := range []string{v30, v31} {
			got, err := compileS(t, version, schemas, c.options).Validate([]byte(c.body))
			if (err != nil) != (c.want == "") || string(got) != c.want {
				t.Errorf("%s %+v: %s: %s %v, want %s", version, c.options, c.body, got, err,
					c.want)
			}
		}
	}
}

// TestKinds: schemas that generators and validators disagree on.
func TestKinds(t *testing.T) {
	const components = `
Cat: {type: object, required: [kind, lives], properties: {kind: {const: cat}, lives: {type: integer}}, additionalProperties: false}
Dog: {type: object, required: [kind, bark], properties: {kind: {type: string, enum: [dog]}, bark: {type: boolean}}, additionalProperties: false}
Pet: {oneOf: [{$ref: "#/components/schemas/Cat"}, {$ref: "#/components/schemas/Dog"}], discriminator: {propertyName: kind, mapping: {cat: "#/components/schemas/Cat", dog: "#/components/schemas/Dog"}}}
MaybePet: {oneOf: [{$ref: "#/components/schemas/Cat"}, {type: "null"}]}
Base: {type: object, required: [id], properties: {id: {type: string, format: uuid, readOnly: true}}}
Derived: {allOf: [{$ref: "#/components/schemas/Base"}, {type: object, properties: {n: {type: [integer, "null"]}}}]}
`
	for name, c := range map[string]struct{ good, bad []string }{
		"Pet":      {[]string{`{"kind":"cat","lives":9}`, `{"bark":true,"kind":"dog"}`}, []string{`{"kind":"cat","bark":true}`, `{"kind":"dog","bark":"x"}`, `{"lives":1}`, `1`}},
		"MaybePet": {[]string{`null`, `{"kind":"cat","lives":1.0}`}, []string{`{}`, `1`}},
		"Derived":  {[]string{`{"n":null}`, `{"id":"anything","n":1}`}, []string{`{"n":"x"}`}},
	} {
		s := compileS(t, v31, "S: {$ref: '#/components/schemas/"+name+"'}\n"+
			strings.TrimSpace(components), Options{})
		for _, body := range c.good {
			if _, err := s.Validate([]byte(body)); err != nil {
				t.Errorf("%s: %s is refused: %v", name, body, err)
			}
		}
		for _, body := range c.bad {
			if _, err := s.Validate([]byte(body)); err == nil {
				t.Errorf("%s: %s is accepted", name, body)
			}
		}
	}
}
