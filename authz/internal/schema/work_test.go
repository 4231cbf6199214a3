package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostile are bodies that cost a naive validator out of proportion.
func hostile() map[string]struct {
	schemas string
	body    []byte
} {
	repeat := func(s string, size int) []byte {
		return []byte("[" + strings.Repeat(s+",", size/(len(s)+1)) + s + "]")
	}
	objects := func(keyword string, n int, tail string) string {
		var b strings.Builder
		b.WriteString("S: {type: array, items: {" + keyword + ": [")
		for i := range n {
			fmt.Fprintf(&b, "{type: object, required: [m%d], properties: {m%d: {type: string}, "+
				"x: {type: integer}}}, ", i, i)
		}
		return b.String() + tail + "]}}"
	}
	distinct := []byte("[")
	for i := 0; len(distinct) < 1<<20; i++ {
		distinct = fmt.Appendf(distinct, "%d,", i)
	}
	distinct[len(distinct)-1] = ']'
	objectsApart := []byte("[")
	for i := 0; len(objectsApart) < 1<<20; i++ {
		objectsApart = fmt.Appendf(objectsApart, `{"b":%d,"a":"x"},`, i)
	}
	objectsApart[len(objectsApart)-1] = ']'
	const mib = 1 << 20
	return map[string]struct {
		schemas string
		body    []byte
	}{
		"oneOf 50 empty":  {objects("oneOf", 50, ""), repeat(`{}`, mib)},
		"oneOf 50 last":   {objects("oneOf", 50, ""), repeat(`{"m49":"a"}`, mib)},
		"oneOf 50 open":   {objects("oneOf", 50, "{type: object, maxProperties: 0}"), repeat(`{}`, mib)},
		"anyOf 10 empty":  {objects("anyOf", 10, ""), repeat(`{}`, mib)},
		"anyOf 10 last":   {objects("anyOf", 10, ""), repeat(`{"m9":"a"}`, mib)},
		"oneOf 3 numbers": {"S: {items: {oneOf: [{type: string}, {type: object}, {type: integer}]}}", repeat(`0`, mib)},
		"enum":            {"S: {items: {type: [string, 'null'], enum: [a, b, null]}}", repeat(`"a"`, mib)},
		"unique numbers":  {"S: {uniqueItems: true}", distinct},
		"unique objects":  {"S: {uniqueItems: true}", objectsApart},
		"unique equal":    {"S: {uniqueItems: true}", repeat(`0`, mib)},
		"unevaluated":     {"S: {items: {unevaluatedProperties: false, anyOf: [{properties: {a: {}}}, {properties: {b: {}}}]}}", repeat(`{"a":1,"b":2}`, mib)},
		"patterns":        {"S: {items: {pattern: '^(a|aa)+$'}}", repeat(`"`+strings.Repeat("a", 100)+`"`, mib)},
		"all refused":     {"S: {items: {type: string}}", repeat(`0`, mib)},
	}
}

// TestWork compares the cost of hostile bodies with the cost of decoding them.
func TestWork(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("slow, and not measured with the race detector")
	}
	for name, c := range hostile() {
		s := compileS(t, v31, c.schemas, Options{})
		compareWork(t, name, s, c.body, 3, 4)
	}
}

// compareWork returns the error of a body whose validation must cost little more than its decoding.
func compareWork(
	t *testing.T, name string, s *Schema, body []byte, most float64, mostHeap uint64,
) error {
	t.Helper()
	ratio := ratioOfTimes(most, func() { _, _ = s.Validate(body) }, func() {
		var value any
		if err := json.Unmarshal(body, &value); err != nil {
			t.Fatal(err)
		}
	})
	_, err := s.Validate(body)
	heap := allocated(func() { _, _ = s.Validate(body) })
	t.Logf("%-16s %.2f of decoding, heap %.2f of the body, %v", name, ratio,
		float64(heap)/float64(len(body)), err != nil)
	if ratio > most {
		t.Errorf("%s: validating costs %.1f times decoding, want at most %v", name, ratio, most)
	}
	if heap > mostHeap*uint64(len(body)) {
		t.Errorf("%s: validating allocates %d bytes for a body of %d", name, heap, len(body))
	}
	return err
}

// nesting is a schema S that contains itself, and the text around each level of a hostile body.
type nesting struct {
	schema        string
	before, after string
	core          string // the innermost value, with % for many elements; "" for any
}

const self = "{$ref: '#/components/schemas/S'}"

// nestings are schemas that contain themselves, with keywords that need the members of an object or
// the elements of an array again, or a value whose end is not known.
var nestings = map[string]nesting{
	"required":                 {"{required: [x, y, z], properties: {a: @}}", `{"a":`, `,"x":0,"y":0,"z":0}`, ""},
	"required, not met":        {"{required: [x], properties: {a: @}}", `{"a":`, `,"x":0}`, `{"b":[%0]}`},
	"dependentRequired":        {"{dependentRequired: {x: [y]}, properties: {a: @}}", `{"a":`, `,"x":0,"y":0}`, ""},
	"dependentSchemas":         {"{dependentSchemas: {x: {required: [y]}}, properties: {a: @}}", `{"a":`, `,"x":0,"y":0}`, ""},
	"unevaluatedProperties":    {"{unevaluatedProperties: @}", `{"a":`, `}`, ""},
	"unevaluatedProperties 2":  {"{unevaluatedProperties: false, anyOf: [{properties: {a: @}}]}", `{"a":`, `}`, ""},
	"unevaluatedItems":         {"{unevaluatedItems: @}", `[`, `]`, ""},
	"unevaluatedItems 2":       {"{unevaluatedItems: false, prefixItems: [@, true]}", `[`, `,0]`, ""},
	"unevaluatedItems not met": {"{type: array, unevaluatedItems: @}", `[`, `]`, `[%0]`},
	"contains":                 {"{contains: @}", `[`, `]`, ""},
	"contains not met":         {"{type: array, contains: @}", `[`, `]`, `[%0]`},
	"minProperties":            {"{minProperties: 1, additionalProperties: @}", `{"a":`, `}`, ""},
	"propertyNames":            {"{propertyNames: {maxLength: 1}, patternProperties: {a: @}}", `{"a":`, `}`, ""},
	"anyOf":                    {"{properties: {a: {anyOf: [@, {type: 'null'}]}}}", `{"a":`, `}`, ""},
	"anyOf not met":            {"{type: object, properties: {a: {anyOf: [@, {type: 'null'}]}}}", `{"a":`, `}`, `{"b":[%0],"a":0}`},
	"oneOf":                    {"{items: {oneOf: [@, {type: 'null'}]}}", `[`, `]`, ""},
	"oneOf not met":            {"{type: array, items: {oneOf: [@, {type: 'null'}]}}", `[`, `]`, `[%0]`},
	"oneOf tags":               {"{oneOf: [{properties: {t: {const: x}, a: @}}, {properties: {t: {const: y}}}]}", `{"a":`, `,"t":"x"}`, `{"b":[%0],"t":"y"}`},
	"discriminator":            {"{oneOf: [{$ref: '#/components/schemas/A'}, {$ref: '#/components/schemas/B'}], discriminator: {propertyName: t}}\nA: {properties: {a: @}}\nB: {type: object}", `{"a":`, `,"t":"A"}`, `{"b":[%0],"t":"B"}`},
	"allOf":                    {"{items: @, allOf: [{minItems: 0}, {minItems: 1}]}", `[`, `]`, ""},
	"not":                      {"{items: {not: {not: @}}}", `[`, `]`, ""},
	"if":                       {"{if: {required: [a]}, then: {properties: {a: @}}}", `{"a":`, `}`, ""},
	"if and then":              {"{if: {properties: {a: @}}, then: {maxProperties: 1}}", `{"a":`, `}`, ""},
	"uniqueItems":              {"{uniqueItems: true, items: @}", `[[],`, `]`, ""},
	"enum":                     {"{not: {enum: [[1, 2, 3], {a: 1}]}, items: @}", `[`, `]`, ""},
	"const":                    {"{not: {const: {a: 1}}, properties: {a: @}}", `{"a":`, `}`, ""},
	"many members":             {"{properties: {a: @}, anyOf: [{required: [m68]}, {required: [m69]}]}", `{` + manyMembers() + `"a":`, "}", ""},
}

func manyMembers() (text string) {
	for i := range maxIndexed + 6 {
		text += fmt.Sprintf(`"m%d":0,`, i)
	}
	return text
}

// body returns a text in which a value is nested.
func (n nesting) body(depth int, core string) []byte {
	return []byte(strings.Repeat(n.before, depth) + core + strings.Repeat(n.after, depth))
}

// depth returns the greatest depth at which a value is decided.
func (n nesting) depth(s *Schema, core string) (depth int) {
	for step := maxDepth; step > 0; step /= 2 {
		_, err := s.Validate(n.body(depth+step, core))
		if e, _ := errors.AsType[*Error](err); e == nil || e.Kind != Budget {
			depth += step
		}
	}
	return depth
}

// TestNestedWork compares the cost of hostile bodies of the greatest depth with that of decoding
// them. It is in proportion to the size of the body, not to its size times its depth.
func TestNestedWork(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("slow, and not measured with the race detector")
	}
	const size = 1 << 20
	const mostHeap = 8 // jsontext keeps the names of the members of all open objects
	for name, n := range nestings {
		s := compileS(t, v31, "S: "+strings.ReplaceAll(n.schema, "@", self), Options{})
		many := strings.Repeat("[],", size/3)
		long := map[string]string{n.core: strings.ReplaceAll(n.core, "%", many)}
		if n.core == "" {
			long = map[string]string{
				`""`:  `"` + strings.Repeat("x", size) + `"`,
				`[0]`: `[` + strings.Repeat(`0,`, size/2) + `1]`,
			}
		}
		for short, core := range long {
			depth := n.depth(s, strings.ReplaceAll(short, "%", "[],"))
			if depth < maxDepth/4 {
				t.Errorf("%s: the depth is only %d", name, depth)
			}
			err := compareWork(t, name+" "+short, s, n.body(depth, core), 6, mostHeap)
			if e, _ := errors.AsType[*Error](err); e != nil && e.Kind == Budget {
				t.Errorf("%s: the budget is spent", name)
			}
		}
	}
}

// TestBudgetOfOrdinaryBodies: a large body that is nested moderately does not come near the budget.
func TestBudgetOfOrdinaryBodies(t *testing.T) {
	const depth, size = 32, 1 << 20
	for name, n := range nestings {
		s := compileS(t, v31, "S: "+strings.ReplaceAll(n.schema, "@", self), Options{})
		core := `[` + strings.Repeat(`0,"text",`, size/9) + `1]`
		if n.core != "" {
			core = strings.ReplaceAll(n.core, "%", strings.Repeat("[],", size/3))
		}
		text := n.body(depth, core)
		r := run{options: &s.options}
		r.begin(text, true)
		r.whole(s.root)
		used := budget(len(text)) - r.steps
		if r.fatal != "" || used > budget(len(text))/4 {
			t.Errorf("%s: %d of %d steps, %s", name, used, budget(len(text)), r.fatal)
		}
	}
}

// ratioOfTimes returns how many times as long one function takes as the other, which should be at
// most the limit. A busy machine gets several tries. Both functions should take about as long, so
// that they are interrupted as often.
func ratioOfTimes(limit float64, one, other func()) (ratio float64) {
	for range 10 {
		ones, others := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
		for range 3 {
			start := time.Now()
			one()
			between := time.Now()
			other()
			ones = min(ones, between.Sub(start))
			others = min(others, time.Since(between))
		}
		if ratio = float64(ones) / float64(others); ratio <= limit {
			break
		}
	}
	return ratio
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBudget: a schema that contains itself more than once takes exponential time without a budget,
// and so does a long value in it that takes few steps each time.
func TestBudget(t *testing.T) {
	const size = 1 << 18
	for name, n := range map[string]nesting{
		"anyOf":       {"{anyOf: [{properties: {a: @}, maxProperties: 1}, {properties: {a: @}}], minProperties: 1}", `{"a":`, `}`, "{}"},
		"oneOf":       {"{oneOf: [{properties: {a: @}}, {properties: {a: @}}, {type: 'null'}]}", `{"a":`, `}`, "0"},
		"allOf":       {"{allOf: [{properties: {a: @}}, {properties: {a: @}}]}", `{"a":`, `}`, "0"},
		"contains":    {"{contains: @, items: @}", `[`, `]`, "0"},
		"long blanks": {"{allOf: [{properties: {a: @}}, {properties: {a: @}}]}", `{"a":`, `}`, strings.Repeat(" ", size) + "0"},
		"long text":   {"{allOf: [{properties: {a: @}}, {properties: {a: @}}]}", `{"a":`, `}`, `"` + strings.Repeat("x", size) + `"`},
		"long list":   {"{contains: @, items: @}", `[`, `]`, `[` + strings.Repeat("0,", size/2) + "1]"},
		"long number": {"{anyOf: [{properties: {a: @}, minProperties: 1}, {properties: {a: @}}]}", `{"a":`, `}`, strings.Repeat("1", size)},
	} {
		s := compileS(t, v31, "S: "+strings.ReplaceAll(n.schema, "@", self), Options{})
		depth := 200
		if len(n.core) > size {
			depth = 14 // 2^14 steps are within the budget, but not 2^14 passes over this value
		}
		start := time.Now()
		_, err := s.Validate(n.body(depth, n.core))
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Kind != Budget {
			t.Errorf("%s: %v, want the budget to be spent", name, err)
		}
		t.Log(name, time.Since(start))
	}
}

// TestComposedOfItself: a schema that is composed of itself is a fault of the document.
func TestComposedOfItself(t *testing.T) {
	for schemas, faulty := range map[string]bool{
		"S: {allOf: [{$ref: '#/components/schemas/S'}]}":                                            true,
		"S: {anyOf: [{type: string}, {not: {$ref: '#/components/schemas/S'}}]}":                     true,
		"S: {dependentSchemas: {a: {$ref: '#/components/schemas/S'}}}":                              true,
		"S: {oneOf: [{$ref: '#/components/schemas/A'}]}\nA: {if: {$ref: '#/components/schemas/S'}}": true,
		"S: {properties: {a: {anyOf: [{$ref: '#/components/schemas/S'}]}}}":                         false,
		"S: {anyOf: [{items: {$ref: '#/components/schemas/S'}}, {type: string}]}":                   false,
	} {
		doc, ref := load(t, v31, schemas)
		_, err := NewCompiler(doc, Options{}).Schema(ref)
		if (err != nil) != faulty {
			t.Errorf("%s: %v, want a fault: %v", schemas, err, faulty)
		}
	}
}

func TestDepth(t *testing.T) {
	s := compileS(t, v31, "S: {items: {$ref: '#/components/schemas/S'}}", Options{})
	for depth, want := range map[int]Kind{500: "", 2000: Budget} {
		_, err := s.Validate([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		e, _ := errors.AsType[*Error](err)
		if want == "" && err != nil || want != "" && (e == nil || e.Kind != want) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}
