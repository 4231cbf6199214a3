package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern   string
		good, bad []string
	}{
		{`^(?!\s)(.*)(\S)$`, []string{"a b", "a"}, []string{" a", "a ", ""}},
		{`^(.)\1$`, []string{"aa", "😀😀"}, []string{"ab", "a"}},
		{`^[\u00e4-\u00fc]+$`, []string{"ä"}, []string{"a"}},
		{`^.{1,2000}$`, []string{"a", strings.Repeat("ä", 2000)}, []string{"", strings.Repeat("a", 2001)}},
		{`^.$`, []string{"a", "😀", "\u0085", "\v"}, []string{"\n", "\r", "\u2028", "\u2029"}},
		{`^\s$`, []string{"\v", "\u00a0", "\ufeff", "\u2003", "\u2028"}, []string{"\u0085", "\u180e", "a"}},
		{`^\S$`, []string{"a", "\u0085", "ä"}, []string{"\u00a0"}},
		{`^\w\d\W\D$`, []string{"a1 ä", "_9-x"}, []string{"ä1 a", "a١ a"}},
		{`a$`, []string{"a", "ba"}, []string{"a\n"}},
		{`\bé`, []string{"aé"}, []string{" é", "é"}},
		{`^[^]$`, []string{"a", "\n"}, []string{""}},
		{`^[]`, nil, []string{"", "a"}},
		{`^\u{1F600}$`, []string{"😀"}, []string{"a"}},
		{`^\ud83d\ude00$`, []string{"😀"}, nil},
		{`^\p{Lu}$`, []string{"Ä"}, []string{"ä"}},
		{`^\-\_\@$`, []string{"-_@"}, nil}, // Annex B
		{`^{a}]$`, []string{"{a}]"}, nil},
		{`^a{,2}$`, []string{"a{,2}"}, []string{"aa"}},
		{`^[\w-.]+$`, []string{"a-.b"}, []string{"a b"}},
		{`(?<y>\d{4})-\k<y>`, []string{"2020-2020"}, []string{"2020-2021"}},
		{`^(?:[a-z]{1,100}){1,100}$`, []string{"abc"}, []string{"1"}},
		{`^(a?)*$`, []string{"", "aaa"}, []string{"b"}},
		{`^\/\.$`, []string{"/."}, nil},
		{`^\0\x41\cA$`, []string{"\x00A\x01"}, nil},
		{`^[\b]$`, []string{"\b"}, []string{"b"}},
	} {
		p, err := compilePattern(c.pattern, -1, Options{})
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, s := range append(c.good, c.bad...) {
			r := run{options: &Options{}, steps: 1 << 20}
			if want := contains(c.good, s); r.match(p, []byte(s)) != want || r.fatal != "" {
				t.Errorf("%s on %q: want %v (%s)", c.pattern, s, want, r.fatal)
			}
		}
	}
}

func contains(all []string, s string) bool {
	for _, x := range all {
		if x == s {
			return true
		}
	}
	return false
}

func TestBadPatterns(t *testing.T) {
	for pattern, offset := range map[string]int{
		`[_-.]`: 1, `a(b`: 1, `a)`: 1, `*`: 0, `a**`: 2, `[a`: 0, `(?i)a`: 0, `a\`: 1, `a{3,1}`: 1,
		`(?<a>x)\k<b>`: 7, `x(?<1>a)`: 4, `(?>a)`: 0, `a++`: 2, `{1}`: 0, `^*`: 1,
	} {
		_, err := compilePattern(pattern, -1, Options{})
		e, ok := errors.AsType[*PatternError](err)
		if !ok || e.Offset != offset {
			t.Errorf("%s: %v, want a fault at %d", pattern, err, offset)
		}
	}
	doc, ref := load(t, v31, "S: {properties: {name: {pattern: '[_-.]'}}}")
	if _, err := NewCompiler(doc, Options{}).Schema(ref); err == nil || err.Error() !=
		"schema name: pattern [_-.]: a range out of order: _-. at character 2" {
		t.Error(err)
	}
}

// TestPatternTime: patterns that backtrack exponentially, or take long, are stopped.
func TestPatternTime(t *testing.T) {
	options := Options{PatternTimeout: 20 * time.Millisecond, PatternBudget: 60 * time.Millisecond}
	for name, c := range map[string]struct{ schemas, body string }{
		"backtracking": {`S: {pattern: '^(?=.)(a+)+$'}`, `"` + strings.Repeat("a", 40) + `b"`},
		"long":         {`S: {pattern: '^(?=.)a+$'}`, `"` + strings.Repeat("a", 5000) + `"`},
		"many":         {`S: {items: {not: {pattern: '^(?=.)(a+)+$'}}}`, `["` + strings.Repeat(`aaaaaaaaaaaaab","`, 5000) + `"]`},
		"linear":       {`S: {pattern: '(a{1,900}b?){1,1}[bc]{1,1000}$'}`, `"` + strings.Repeat("a", 1<<19) + `"`},
	} {
		s := compileS(t, v31, c.schemas, options)
		_, err := s.Validate([]byte(c.body))
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != PatternTimeout {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPatternTimeOfPasses: the pass that collects the faults shares the time, and the steps, with
// the passes before it.
func TestPatternTimeOfPasses(t *testing.T) {
	s := compileS(t, v31, `S: {items: {pattern: '^(?=.)a+$'}}`, Options{})
	text := []byte(`["a","b"]`)
	for _, c := range []struct {
		spent time.Duration
		steps int
		want  string
	}{
		{0, 1000, "pattern"}, {time.Hour, 1000, "schema"}, {0, 1, "schema"},
	} {
		before := &run{options: &s.options}
		before.begin(text, true)
		before.spent, before.steps = c.spent, c.steps
		if all, _ := s.faults(before, "body", ""); len(all) != 1 || all[0].Keyword != c.want {
			t.Errorf("%v and %d steps: %v, want %s", c.spent, c.steps, all, c.want)
		}
	}
}

// Operations keep their buffers for the next request, but not the time that patterns took.
func TestPatternTimeOfEachRequest(t *testing.T) {
	o := mustOperation(t, v31, `parameters:
- {name: id, in: path, required: true, schema: {pattern: '^(?=.)a+$'}}`)
	spent := &reader{run: run{spent: time.Hour}}
	if o.release(spent); o.readers.Get() == spent { // the race detector drops some
		o.release(spent)
	}
	r := httptest.NewRequest("POST", "/p/a", nil)
	if _, err := o.Check(r, func(string) string { return "a" }, Content{}); err != nil {
		t.Error(err)
	}
}

// TestPatternTimeOfAll: the parameters and the body of a request share the time for patterns.
func TestPatternTimeOfAll(t *testing.T) {
	const schema = "schema: {type: object, properties: {a: {type: array, items: {type: string, " +
		"pattern: '^(?=.)a+$'}}}}"
	o := mustOperation(t, v31, "parameters: [{name: q, in: query, "+schema+"}]\n"+
		"requestBody: {content: {application/json: {"+schema+"}, "+
		"application/x-www-form-urlencoded: {"+schema+"}, multipart/form-data: {"+schema+"}}}")
	multipart := "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\naa\r\n--b--\r\n"
	for name, check := range map[string]func(spent *time.Duration) error{
		"query": func(spent *time.Duration) error {
			_, err := o.query[0].check([]byte(`{"a":["aa"]}`), spent)
			return err
		},
		"application/json": func(spent *time.Duration) error {
			return checkSpent(o, "application/json", `{"a":["aa"]}`, spent)
		},
		"form": func(spent *time.Duration) error {
			return checkSpent(o, "application/x-www-form-urlencoded", "a=aa", spent)
		},
		"multipart": func(spent *time.Duration) error {
			return checkSpent(o, "multipart/form-data", multipart, spent)
		},
	} {
		spent := time.Duration(0)
		if err := check(&spent); err != nil || spent == 0 && name != "multipart" {
			t.Errorf("%s: %v, %v spent", name, err, spent)
		}
		spent = time.Hour
		err := check(&spent)
		if e, _ := errors.AsType[*Error](err); e == nil || e.Kind != PatternTimeout {
			t.Errorf("%s after an hour: %v", name, err)
		}
	}
}

func checkSpent(o *Operation, essence, body string, spent *time.Duration) error {
	accepted := &Accepted{spent: *spent}
	err := o.checkBody(Content{Essence: essence, Params: map[string]string{"boundary": "b"},
		Body: []byte(body)}, accepted)
	*spent = accepted.spent
	return err
}

// TestPatternsAgainstNode compares with an implementation of ECMA-262, on patterns and strings that
// are made at random of the pieces that differ between dialects.
func TestPatternsAgainstNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	patterns, strs := corpus(20_000), []string{}
	if testing.Short() {
		patterns = patterns[:1000]
	}
	random := rand.New(rand.NewPCG(3, 4))
	characters := []rune("ab1_- .\n\r\t\v\u0085\u00a0\u2028\u180e\ufeffäÄſK😀$^\\/{}[]A\x00\x01\b")
	for range 60 {
		var s []rune
		for range random.IntN(6) {
			s = append(s, characters[random.IntN(len(characters))])
		}
		strs = append(strs, string(s))
	}
	input, err := json.Marshal(map[string]any{"patterns": patterns, "strings": strs})
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(node, "-e", `
		const {patterns, strings} = JSON.parse(require("fs").readFileSync(0, "utf8"));
		const all = patterns.map(p => {
			let re, mode = "u";
			try { re = new RegExp(p, "u") } catch { mode = "n"; try { re = new RegExp(p) } catch { return "" } }
			return mode + strings.map(s => re.test(s) ? "1" : "0").join("");
		});
		process.stdout.write(JSON.stringify(all));`)
	command.Stdin = bytes.NewReader(input)
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var results []string
	if err := json.Unmarshal(output, &results); err != nil {
		t.Fatal(err)
	}
	legal, linear, faults := 0, 0, 0
	for i, text := range patterns {
		p, err := compilePattern(text, -1, Options{})
		if results[i] == "" && strings.Contains(text, "[😀-😂]") {
			continue // wrong with the u flag, and without it a range of UTF-16 units out of order
		}
		if (err == nil) != (results[i] != "") {
			if faults++; faults < 20 {
				t.Errorf("%q: %v, legal to node: %v", text, err, results[i] != "")
			}
			continue
		}
		if err != nil {
			continue
		}
		legal++
		if p.linear != nil {
			linear++
		}
		for k, s := range strs {
			if results[i][0] == 'n' && utf8.RuneCountInString(s+text) != len(utf16(s+text)) {
				// without the u flag node counts UTF-16 units; here characters are code points
				continue
			}
			if strings.Contains(text, `(?<!`) && strings.ContainsAny(text, `12k`) &&
				utf8.RuneCountInString(s) != len(utf16(s)) {
				continue // there node looks into the middle of a code point
			}
			r := run{options: &Options{}, steps: 1 << 20}
			if want := results[i][k+1] == '1'; r.match(p, []byte(s)) != want {
				if faults++; faults < 20 {
					t.Errorf("%q on %q: want %v, linear: %v", text, s, want, p.linear != nil)
				}
			}
		}
	}
	t.Logf("%d patterns, %d legal, %d linear", len(patterns), legal, linear)
	if legal < len(patterns)/4 || linear < legal/4 {
		t.Errorf("%d of %d patterns are legal, %d linear: the corpus says little", legal,
			len(patterns), linear)
	}
}

func utf16(s string) (units []rune) {
	for _, c := range s {
		if units = append(units, c); c > 0xffff {
			units = append(units, c)
		}
	}
	return units
}

// corpus returns patterns, always the same.
func corpus(n int) (all []string) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"a", "b", "1", "_", "-", " ", "ä", "😀", ".", "^", "$", `\d`, `\D`, `\w`, `\W`, `\s`, `\S`, `\b`, `\B`,
		`\n`, `\t`, `\v`, `\0`, `\x41`, `\u0061`, `\u{62}`, `\ud83d\ude00`, `\cA`, `\/`, `\.`, `\-`, `\_`, `\$`,
		"(", ")", "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?<n>", `\k<n>`, `\1`, `\2`, "|", "|",
		"*", "+", "?", "{2}", "{1,2}", "{0,}", "{,2}", "*?", "+?", "{", "}", "]",
		"[ab]", "[^a]", "[a-c_]", `[\w-]`, `[\s\d]`, `[^\S]`, `[^\W_]`, "[]", "[^]", `[\b]`, "[_-.]", `[\u0061-\u0063]`, `[^\n]`, `[\D]`, `[.$]`, `[\]\\]`, `[😀-😂]`,
		`\p{L}`, `\P{Lu}`, `[\p{Nd}a]`, "(a|b)", "(?:ab)+", "^a", "b$", "(?i)",
	}
	for range n {
		var b strings.Builder
		open := 0
		for range 1 + random.IntN(6) {
			piece := pieces[random.IntN(len(pieces))]
			if strings.HasPrefix(piece, "(") && !strings.HasSuffix(piece, ")") &&
				!strings.HasSuffix(piece, "+") {
				open++
			}
			if piece == ")" && open > 0 {
				open--
			}
			b.WriteString(piece)
		}
		if random.IntN(8) > 0 {
			b.WriteString(strings.Repeat(")", open))
		}
		all = append(all, b.String())
	}
	return all
}

// FuzzAutomaton compares the automaton of an expression with package regexp.
func FuzzAutomaton(f *testing.F) {
	for _, c := range [][2]string{
		{`^[A-Z][A-Za-z ]*$`, "Ada Lovelace"}, {`^[a-z]+$`, ""}, {`a$|^b`, "ba"}, {`^$`, ""},
		{`$^`, ""}, {`a*`, "b"}, {`^(a|ab)(c|bcd)$`, "abcd"}, {`[0-9]{4}-[0-9]{2}`, "x2026-11"},
		{`(?i)^k+$`, "Kk"}, {`^a.c`, "a\nc"}, {`b\b`, "ab"}, {`(?m)^a$`, "b\na"}, {`[^a]`, "ä"},
		{`(a|^)(b|$)c?$`, "ab"}, {`^(?:a?){30}$`, "aaa"}, {`[a-z]{50}$`, strings.Repeat("a", 60)},
	} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, expression, text string) {
		linear, err := regexp.Compile(expression)
		if err != nil {
			return
		}
		var p pattern
		if err := p.readProgram(expression); err != nil || p.quick == nil {
			return
		}
		got, ok := p.quick.match([]byte(text))
		if want := linear.MatchString(text); ok && got != want {
			t.Errorf("%q on %q: %v, expected %v", expression, text, got, want)
		}
	})
}
