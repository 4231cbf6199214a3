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
		const most = 3.0
		s := compileS(t, v31, c.schemas, Options{})
		decode := func() {
			var value any
			if err := json.Unmarshal(c.body, &value); err != nil {
				t.Fatal(err)
			}
		}
		ratio := ratioOfTimes(most, func() { _, _ = s.Validate(c.body) }, decode)
		_, err := s.Validate(c.body)
		heap := allocated(func() { _, _ = s.Validate(c.body) })
		t.Logf("%-16s %.2f of decoding, heap %.2f of the body, %v", name, ratio,
			float64(heap)/float64(len(c.body)), err != nil)
		if ratio > most {
			t.Errorf("%s: validating costs %.1f times decoding, want at most %v", name, ratio,
				most)
		}
		if heap > 4*uint64(len(c.body)) {
			t.Errorf("%s: validating allocates %d bytes for a body of %d", name, heap, len(c.body))
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

// TestBudget: a schema that contains itself more than once takes exponential time without a budget.
func TestBudget(t *testing.T) {
	for name, schemas := range map[string]string{
		"anyOf": "S: {anyOf: [{required: [x], properties: {a: {$ref: '#/components/schemas/S'}}}, {properties: {a: {$ref: '#/components/schemas/S'}, b: {const: 1}}, maxProperties: 1, minProperties: 1}, {properties: {a: {$ref: '#/components/schemas/S'}}, type: object, minProperties: 2}]}",
		"oneOf": "S: {oneOf: [{properties: {a: {$ref: '#/components/schemas/S'}}}, {properties: {a: {$ref: '#/components/schemas/S'}}}, {type: 'null'}]}",
	} {
		s := compileS(t, v31, schemas, Options{})
		body := strings.Repeat(`{"a":`, 500) + `0` + strings.Repeat(`}`, 500)
		start := time.Now()
		_, err := s.Validate([]byte(body))
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
