package authztest

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// matching returns a short string that matches the pattern of a schema and has a valid length. The
// engine decides what an ECMA-262 pattern means: candidates are made from the parts that can be
// parsed here, and the first that the engine accepts is used.
func (s sampler) matching(schema *openapi3.Schema, n int) (string, error) {
	main, ahead := lookaheads(schema.Pattern)
	parsed, err := parsePattern(main)
	if err != nil {
		return "", fmt.Errorf("its pattern %q is not supported", schema.Pattern)
	}
	var starts []string // what lookaheads ask for, in front of the rest
	for _, condition := range ahead {
		re, err := parsePattern(condition)
		if err != nil {
			return "", fmt.Errorf("its pattern %q is not supported", schema.Pattern)
		}
		w := writer{nth: n}
		w.write(re)
		starts = append(starts, w.String())
	}
	start := strings.Join(starts, "")
	// Increase the number of repetitions until the string is long enough.
	for repeat := range int(schema.MinLength) + 4 {
		w := writer{repeat: repeat, nth: n}
		w.write(parsed)
		made := w.String()
		candidates := []string{made}
		if start != "" {
			candidates = append(candidates, start+made, start+made[min(len(start), len(made)):])
		}
		for _, candidate := range candidates {
			if s.accepts(schema, candidate) {
				return candidate, nil
			}
		}
	}
	return "", fmt.Errorf("found no string for its pattern %q and length", schema.Pattern)
}

// parsePattern parses an ECMA-262 pattern as far as Go's syntax has the same constructs.
func parsePattern(pattern string) (*syntax.Regexp, error) {
	return syntax.Parse(codePoint.ReplaceAllString(pattern, `\x{$1$2}`), syntax.Perl)
}

// codePoint is an escaped character, which Go writes differently.
var codePoint = regexp.MustCompile(`\\u(?:([0-9A-Fa-f]{4})|\{([0-9A-Fa-f]+)\})`)

// lookaheads removes lookaheads and lookbehinds, which Go does not have, from a pattern. It returns
// the rest, and the patterns of the positive ones.
func lookaheads(pattern string) (main string, ahead []string) {
	var rest strings.Builder
	for i := 0; i < len(pattern); i++ {
		length := groupLength(pattern[i:])
		inner, positive := strings.CutPrefix(pattern[i:i+length], "(?=")
		switch {
		case positive:
			ahead = append(ahead, strings.TrimSuffix(inner, ")"))
		case length > 0 && lookaround.MatchString(pattern[i:]):
		case pattern[i] == '\\' && i+1 < len(pattern):
			rest.WriteString(pattern[i : i+2])
			i++
			continue
		default:
			rest.WriteByte(pattern[i])
			continue
		}
		i += length - 1
	}
	return rest.String(), ahead
}

var lookaround = regexp.MustCompile(`^\(\?(?:=|!|<=|<!)`)

// groupLength returns the length of the lookaround at the start of a text, or 0.
func groupLength(text string) int {
	if !lookaround.MatchString(text) {
		return 0
	}
	depth, class := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case class:
			class = c != ']'
		case c == '[':
			class = true
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// writer writes a string that matches an expression.
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
	// All others, such as ^ and \b, have no width.
}

// pick returns a character of a class, which is given as pairs of bounds: a letter or digit if
// there is one.
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
