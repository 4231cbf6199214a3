package schema

import (
	"fmt"
	"io"
	"regexp"
	"regexp/syntax"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// pattern is a regular expression of ECMA-262 (JSON Schema 2020-12 §6.4), which matches anywhere
// in a string unless it says ^ or $. RE2, which runs in linear time, matches the patterns that it
// can express, or an automaton does; a backtracking engine matches the others, with limits on
// length and time.
type pattern struct {
	text    string
	linear  *regexp.Regexp
	size    int        // instructions of linear
	quick   *automaton // the same as linear, for ASCII; may be nil
	backing *regexp2.Regexp
	longest int // maximum number of characters for backing
}

// longestString is the maximum length of a string for a backtracking pattern, unless maxLength or a
// quantifier of the pattern allows more.
const longestString = 4 << 10

func compilePattern(text string, maxLength int, options Options) (*pattern, error) {
	parsed, err := parsePattern(text)
	if err != nil {
		return nil, err
	}
	p := &pattern{text: text, longest: max(longestString, maxLength, parsed.largest)}
	if !parsed.backtracks {
		if p.linear, err = regexp.Compile(parsed.translated); err == nil {
			return p, p.readProgram(parsed.translated)
		}
	}
	flags := regexp2.ECMAScript
	if parsed.unicode {
		flags |= regexp2.Unicode
	}
	if p.backing, err = regexp2.Compile(text, flags); err != nil {
		return nil, err
	}
	if p.backing.MatchTimeout = options.PatternTimeout; p.backing.MatchTimeout == 0 {
		p.backing.MatchTimeout = 100 * time.Millisecond
	}
	return p, nil
}

// readProgram compiles the expression of linear.
func (p *pattern) readProgram(expression string) error {
	tree, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return err
	}
	p.size, p.quick = len(program.Inst), newAutomaton(program)
	return nil
}

func (r *run) patternBudget() time.Duration {
	if r.options.PatternBudget > 0 {
		return r.options.PatternBudget
	}
	return 500 * time.Millisecond
}

// match reports whether a pattern matches. It sets r.fatal if a limit is exceeded.
func (r *run) match(p *pattern, text []byte) bool {
	if r.fatal != "" {
		return false
	}
	r.step(1 + len(text)/16)
	if p.quick != nil {
		if matches, ok := p.quick.match(text); ok {
			return matches
		}
	}
	if p.linear != nil && len(text)*p.size < 1<<12 {
		return p.linear.Match(text)
	}
	if p.linear == nil && utf8.RuneCount(text) > p.longest {
		r.fatal = PatternTimeout
		return false
	}
	start := time.Now() // elapsed time, not the time of day
	var matched bool
	if p.linear != nil {
		matched = r.matchLinear(p, text, start)
	} else {
		var err error
		if matched, err = p.backing.MatchString(string(text)); err != nil {
			r.fatal = PatternTimeout
		}
	}
	r.spent += time.Since(start)
	if r.spent > r.patternBudget() {
		r.fatal = PatternTimeout
	}
	return matched && r.fatal == ""
}

// matchLinear matches a long string, or a large pattern, so that it can be stopped.
func (r *run) matchLinear(p *pattern, text []byte, start time.Time) bool {
	if len(text)*p.size < 1<<20 {
		return p.linear.Match(text)
	}
	reader := &deadlineReader{text: text, stop: start.Add(r.patternBudget() - r.spent)}
	matched := p.linear.MatchReader(reader)
	if reader.stopped {
		r.fatal = PatternTimeout
	}
	return matched
}

// deadlineReader reads runes until a deadline.
type deadlineReader struct {
	text    []byte
	read    int
	stop    time.Time
	stopped bool
}

func (s *deadlineReader) ReadRune() (rune, int, error) {
	if s.read++; s.read%256 == 0 && time.Now().After(s.stop) {
		s.stopped = true
	}
	if len(s.text) == 0 || s.stopped {
		return 0, 0, io.EOF
	}
	c, size := utf8.DecodeRune(s.text)
	s.text = s.text[size:]
	return c, size, nil
}

// PatternError is a fault of a pattern.
type PatternError struct {
	Offset  int // in characters, from 0
	Problem string
}

func (e *PatternError) Error() string {
	return fmt.Sprintf("%s at character %d", e.Problem, e.Offset+1)
}
