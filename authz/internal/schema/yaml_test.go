package schema

import (
	"fmt"
	"net/http/httptest"
	"testing"
)

func TestYAML(t *testing.T) {
	o := mustOperation(t, v31, "requestBody: {content: {application/yaml: {schema: {type: "+
		"object, required: [a], properties: {a: {type: integer}, s: {type: string}}}}}}")
	for body, want := range map[string]string{
		"a: 1\ns: x": "ok", "a: 0x10": "ok", `{"a": 1}`: "ok", "a: x": "refused: body/a type", "s: x": "refused: body/a required",
		"a: 1\ns: 2024-01-01": "ok", "a: 1\na: 2": "refused: body syntax", "a: &x 1\nb: *x": "refused: body syntax",
		"a: .inf": "refused: body syntax", "a: [": "refused: body syntax", "a: 1\n---\na: 2": "refused: body syntax",
	} {
		a, err := o.Check(httptest.NewRequest("POST", "/p/1", nil), nil,
			Content{Essence: "application/yaml", Body: []byte(body)})
		if got := outcome(a, err); got != want {
			t.Errorf("%q: %s, want %s", body, got, want)
		}
	}
}

// TestYAMLWork: YAML is read in linear time.
func TestYAMLWork(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	keys := func(n int) (body []byte) {
		for i := range n {
			body = fmt.Appendf(body, "k%d: 1\n", i)
		}
		return body
	}
	small, large := keys(4000), keys(40000)
	const most = 2.0
	ratio := ratioOfTimes(most, func() { yamlJSON(large) }, func() {
		for range 10 {
			yamlJSON(small)
		}
	})
	if ratio > most {
		t.Errorf("a body of ten times the size takes %.1f times as long per byte", ratio)
	}
}
