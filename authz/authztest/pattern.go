package authztest

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
)

// matching makes a short string that matches the pattern of a schema and is of the length that it
// allows.
func matching(schema *openapi3.Schema, n int) (string, error) {
	parsed, err := syntax.Parse(schema.Pattern, syntax.Perl)
	if err != nil {
		return "", fmt.Errorf("its pattern %q is not understood here", schema.Pattern)
	}
	whole, err := regexp.Compile(schema.Pattern)
	if err != nil {
		return "", err
	}
	// What repeats is repeated more and more often until the string is long enough.
	for repeat := range int(schema.MinLength) + 4 {
		w := writer{repeat: repeat, nth: n}
		w.write(parsed)
		s := w.String()
		length := uint64(utf8.RuneCountInString(s))
		if length >= schema.MinLength && (schema.MaxLength == nil || length <= *schema.MaxLength) &&
			whole.MatchString(s) {
			return s, nil
		}
	}
	return "", fmt.Errorf("no string could be made for its pattern %q and length", schema.Pattern)
}

// writer writes a string that an expression matches.
type writer struct {
	strings.Builder
	repeat int // how often to repeat what need not be
	nth    int // which character of a class to take
}

func (w *writer) write(re *syntax.Regexp) {
	if w.Len() > 4*most {
		return // repetitions of repetitions: no schema wants that long a string
	}
	times := func(least, most int) {
		n := least + w.repeat
		if most >= 0 && n > most {
			n = most
		}
		for range n {
			w.write(re.Sub[0])
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		w.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		w.WriteRune(pick(re.Rune, w.nth))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		w.WriteRune(rune('a' + w.nth%26))
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			w.write(sub)
		}
	case syntax.OpAlternate, syntax.OpCapture:
		w.write(re.Sub[0])
	case syntax.OpStar:
		times(0, -1)
	case syntax.OpPlus:
		times(1, -1)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpRepeat:
		times(re.Min, re.Max)
	}
	// The rest, ^ and \b and their like, are of no width.
}

// pick takes a character of a class, given as pairs of bounds: a letter or digit where it has one.
func pick(class []rune, nth int) rune {
	for _, plain := range []string{"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		"0123456789", "-_.~"} {
		var in []rune
		for _, r := range plain {
			for i := 0; i+1 < len(class); i += 2 {
				if class[i] <= r && r <= class[i+1] {
					in = append(in, r)
				}
			}
		}
		if in != nil {
			return in[nth%len(in)]
		}
	}
	if len(class) == 0 {
		return 'a'
	}
	return class[0]
}
