package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// This file parses patterns by the grammar of ECMA-262 §22.2.1 and translates them for RE2.
//
// A pattern has the meaning that it has with the u flag, as JSON Schema recommends. If it is
// invalid with the flag, it has its meaning without (Annex B), except that characters are still
// code points.

// parsedPattern is a valid pattern.
type parsedPattern struct {
	translated string // for RE2, unless backtracks
	backtracks bool   // RE2 lacks one of its features, or the translation is not worthwhile
	unicode    bool   // valid with the u flag
	largest    int    // count of a quantifier
}

func parsePattern(text string) (*parsedPattern, error) {
	p, err := parseECMA(text, true)
	if err == nil {
		return p, nil
	}
	return parseECMA(text, false)
}

type patternParser struct {
	parsedPattern
	text   []rune
	i      int
	groups int      // in the whole pattern
	names  []string // of groups, in the whole pattern
}

func parseECMA(text string, unicode bool) (result *parsedPattern, err error) {
	p := &patternParser{text: []rune(text)}
	p.unicode = unicode
	p.countGroups()
	defer func() {
		fault, ok := recover().(*PatternError)
		if ok {
			result, err = nil, fault
		}
	}()
	p.translated = p.disjunction(0)
	if p.i < len(p.text) {
		p.fail(p.i, "unmatched )")
	}
	return &p.parsedPattern, nil
}

// fail stops the parser: parseECMA returns the error.
func (p *patternParser) fail(at int, problem string) { panic(&PatternError{at, problem}) }

// countGroups counts the groups and reads their names, because the meaning of \1 and \k depends on
// them.
func (p *patternParser) countGroups() {
	class := false
	for i := 0; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == '\\':
			i++
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '(' && !class:
			rest := string(p.text[i+1 : min(i+4, len(p.text))])
			if !strings.HasPrefix(rest, "?") {
				p.groups++
			} else if strings.HasPrefix(rest, "?<") &&
				!strings.HasPrefix(rest, "?<=") && !strings.HasPrefix(rest, "?<!") {
				p.groups++
				name, _, _ := strings.Cut(string(p.text[i+3:]), ">")
				p.backtracks = p.backtracks || slices.Contains(p.names, name)
				p.names = append(p.names, name)
			}
		}
	}
}

// peek reports whether the rest of the pattern begins with the text.
func (p *patternParser) peek(s string) bool {
	return p.i < len(p.text) && strings.HasPrefix(string(p.text[p.i:min(len(p.text), p.i+len(s))]),
		s)
}

func (p *patternParser) accept(s string) bool {
	if !p.peek(s) {
		return false
	}
	p.i += len([]rune(s))
	return true
}

const maxGroups = 500 // maximum depth of nested groups

func (p *patternParser) disjunction(depth int) string {
	if depth > maxGroups {
		p.fail(p.i, "groups are nested too deep")
	}
	var out strings.Builder
	for p.i < len(p.text) && p.text[p.i] != ')' {
		if p.accept("|") {
			out.WriteByte('|')
			continue
		}
		out.WriteString(p.term(depth))
	}
	return out.String()
}

// term reads an assertion, or an atom with its quantifier.
func (p *patternParser) term(depth int) string {
	start := p.i
	switch {
	case p.accept("^"):
		return `\A`
	case p.accept("$"):
		return `\z`
	case p.accept(`\b`):
		return `\b`
	case p.accept(`\B`):
		return `\B`
	case p.peek("*"), p.peek("+"), p.peek("?"):
		p.fail(start, "nothing to repeat")
	}
	for _, look := range []string{"(?=", "(?!", "(?<=", "(?<!"} {
		if p.accept(look) {
			p.backtracks = true
			p.group(start, depth)
			if !p.unicode && len(look) == 3 { // Annex B: a lookahead may be repeated
				p.quantifier()
			}
			return ""
		}
	}
	atom := p.atom(depth)
	if q := p.quantifier(); q != "" {
		return "(?:" + atom + ")" + q
	}
	return atom
}

// group reads the rest of a group that starts at an offset.
func (p *patternParser) group(start, depth int) string {
	inner := p.disjunction(depth + 1)
	if !p.accept(")") {
		p.fail(start, "unterminated group")
	}
	return "(?:" + inner + ")"
}

func (p *patternParser) atom(depth int) string {
	start := p.i
	c := p.text[p.i]
	p.i++
	switch c {
	case '.':
		return `[^\n\r\x{2028}\x{2029}]`
	case '(':
		switch {
		case p.accept("?:"):
		case p.accept("?<"):
			p.name()
		case p.peek("?"):
			p.fail(start, "unknown kind of group")
		}
		return p.group(start, depth)
	case '[':
		return p.class(start)
	case '\\':
		return p.escape(start)
	case ']', '}':
		if p.unicode {
			p.fail(start, "lone bracket")
		}
	case '{':
		p.i = start
		if p.unicode || p.quantifier() != "" {
			p.fail(start, "nothing to repeat")
		}
		p.i = start + 1
	}
	return regexp.QuoteMeta(string(c))
}

// name reads the name of a group, after <.
func (p *patternParser) name() string {
	start := p.i
	end := slices.Index(p.text[p.i:], '>')
	if end < 1 {
		p.fail(start, "a group's name is missing")
	}
	name := string(p.text[p.i : p.i+end])
	for i, c := range name {
		letter := c == '_' || c == '$' || c > 0x7f || isAlphanumeric(c) && c > '9'
		if !letter && (i == 0 || c < '0' || c > '9') {
			p.fail(start, "a group's name is not an identifier")
		}
	}
	p.i += end + 1
	return name
}

// quantifier reads a quantifier, if there is one.
func (p *patternParser) quantifier() (q string) {
	start := p.i
	switch {
	case p.accept("*"):
		q = "*"
	case p.accept("+"):
		q = "+"
	case p.accept("?"):
		q = "?"
	case p.accept("{"):
		least, ok := p.count()
		most := least
		if ok && p.accept(",") {
			most = -1
			if !p.peek("}") {
				most, ok = p.count()
			}
		}
		if !ok || !p.accept("}") {
			if p.unicode {
				p.fail(start, "incomplete quantifier")
			}
			p.i = start // Annex B: a brace
			return ""
		}
		if most >= 0 && most < least {
			p.fail(start, "the counts of a quantifier are out of order")
		}
		p.largest = max(p.largest, least, most)
		p.backtracks = p.backtracks || max(least, most) > 1000
		if q = "{" + strconv.Itoa(least) + ","; most >= 0 {
			q += strconv.Itoa(most)
		}
		q += "}"
	default:
		return ""
	}
	p.accept("?") // lazy or not, it matches the same strings
	return q
}

// count reads a number. It truncates numbers larger than the length of any string.
func (p *patternParser) count() (int, bool) {
	start := p.i
	n := 0
	for p.i < len(p.text) && '0' <= p.text[p.i] && p.text[p.i] <= '9' {
		n = min(n*10+int(p.text[p.i]-'0'), 1<<24)
		p.i++
	}
	return n, p.i > start
}

// escape reads the text after a backslash outside a class.
func (p *patternParser) escape(start int) string {
	if p.i == len(p.text) {
		p.fail(start, `\ at the end`)
	}
	c := p.text[p.i]
	switch {
	case '1' <= c && c <= '9':
		n, _ := p.count()
		if p.unicode && n > p.groups {
			p.fail(start, "a reference to a group that does not exist")
		}
		p.backtracks = true
		return ""
	case c == 'k' && (p.unicode || len(p.names) > 0):
		p.i++
		if !p.accept("<") {
			p.fail(start, "a reference without a name")
		}
		if name := p.name(); !slices.Contains(p.names, name) {
			p.fail(start, "a reference to a group that does not exist")
		}
		p.backtracks = true
		return ""
	}
	set, single := p.characterEscape(start, false)
	if set != nil {
		return set.String()
	}
	return regexp.QuoteMeta(string(single))
}

// characterEscape reads the text after a backslash: a set of characters, or a single character.
func (p *patternParser) characterEscape(start int, class bool) (runes, rune) {
	c := p.text[p.i]
	p.i++
	switch c {
	case 'd':
		return digitRunes, 0
	case 'D':
		return digitRunes.negate(), 0
	case 'w':
		return wordRunes, 0
	case 'W':
		return wordRunes.negate(), 0
	case 's':
		return spaceRunes, 0
	case 'S':
		return spaceRunes.negate(), 0
	case 'f':
		return nil, '\f'
	case 'n':
		return nil, '\n'
	case 'r':
		return nil, '\r'
	case 't':
		return nil, '\t'
	case 'v':
		return nil, '\v'
	case 'x':
		return nil, p.hex(start, c, 2)
	case 'u':
		return nil, p.unicodeEscape(start)
	case 'p', 'P':
		if p.unicode {
			return p.property(start), 0
		}
		return nil, c
	case 'c':
		if p.i < len(p.text) && isAlphanumeric(p.text[p.i]) && p.text[p.i] > '9' {
			p.i++
			return nil, p.text[p.i-1] % 32
		}
		p.reject(start, `\c without a letter`)
		return nil, c
	case '0':
		if p.i < len(p.text) && '0' <= p.text[p.i] && p.text[p.i] <= '9' {
			p.reject(start, "an octal escape")
		}
		return nil, 0
	}
	switch {
	case strings.ContainsRune(`^$\.*+?()[]{}|/`, c), class && c == '-':
		return nil, c
	case class && c == 'b':
		return nil, '\b'
	case '1' <= c && c <= '9':
		p.reject(start, "an octal escape")
	case p.unicode:
		p.fail(start, `\`+string(c)+` is not an escape`)
	}
	return nil, c
}

// reject fails if the u flag is set. Otherwise Annex B allows the syntax, and the backtracking
// engine handles it.
func (p *patternParser) reject(at int, problem string) {
	if p.unicode {
		p.fail(at, problem)
	}
	p.backtracks = true
}

// hex reads the given number of hex digits. Without them, \x and \u mean the letter (Annex B).
func (p *patternParser) hex(start int, letter rune, n int) rune {
	if p.i+n <= len(p.text) {
		if v, err := strconv.ParseUint(string(p.text[p.i:p.i+n]), 16, 32); err == nil {
			p.i += n
			return rune(v)
		}
	}
	if p.unicode {
		p.fail(start, `\`+string(letter)+` without its hex digits`)
	}
	return letter
}

func (p *patternParser) unicodeEscape(start int) rune {
	if p.unicode && p.accept("{") {
		end := slices.Index(p.text[p.i:], '}')
		if end < 1 {
			p.fail(start, `\u{ without its code point`)
		}
		v, err := strconv.ParseUint(string(p.text[p.i:p.i+end]), 16, 32)
		if err != nil || v > 0x10FFFF {
			p.fail(start, `\u{ without its code point`)
		}
		p.i += end + 1
		return p.surrogate(rune(v))
	}
	high := p.hex(start, 'u', 4)
	if high < 0xD800 || high > 0xDBFF || !p.peek(`\u`) {
		return p.surrogate(high)
	}
	back := p.i
	p.i += 2
	if low := p.hex(start, 'u', 4); low >= 0xDC00 && low <= 0xDFFF {
		return 0x10000 + (high-0xD800)<<10 + low - 0xDC00
	}
	p.i = back
	return p.surrogate(high)
}

// surrogate marks a surrogate half, which no valid string contains, for the backtracking engine.
func (p *patternParser) surrogate(c rune) rune {
	p.backtracks = p.backtracks || c >= 0xD800 && c <= 0xDFFF
	return c
}

// property reads \p{…}. The backtracking engine knows the names.
func (p *patternParser) property(start int) runes {
	end := slices.Index(p.text[p.i:], '}')
	if !p.peek("{") || end < 2 {
		p.fail(start, `\p without a property`)
	}
	p.i += end + 1
	p.backtracks = true
	return runes{}
}

// class reads a character class, after its opening bracket.
func (p *patternParser) class(start int) string {
	negated := p.accept("^")
	var set runes
	for !p.accept("]") {
		if p.i == len(p.text) {
			p.fail(start, "unterminated character class")
		}
		at := p.i
		from, low := p.classAtom()
		if !p.peek("-") || p.i+1 < len(p.text) && p.text[p.i+1] == ']' || p.i+1 == len(p.text) {
			set = append(set, from.or(low)...)
			continue
		}
		p.i++
		to, high := p.classAtom()
		switch {
		case from != nil || to != nil:
			if p.unicode {
				p.fail(at, "a range from or to a class of characters")
			}
			set = append(append(append(set, from.or(low)...), to.or(high)...), '-', '-')
		case low > high:
			p.fail(at, "a range out of order: "+string(low)+"-"+string(high))
		default:
			set = append(set, low, high)
		}
	}
	if negated {
		set = set.negate()
	}
	return set.String()
}

func (p *patternParser) classAtom() (runes, rune) {
	if p.i == len(p.text) {
		p.fail(p.i, "unterminated character class")
	}
	start := p.i
	c := p.text[p.i]
	p.i++
	if c != '\\' {
		return nil, c
	}
	if p.i == len(p.text) {
		p.fail(start, `\ at the end`)
	}
	return p.characterEscape(start, true)
}

// runes is a set of characters: pairs of the first and the last of each range.
type runes []rune

var (
	digitRunes = runes{'0', '9'}
	wordRunes  = runes{'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}
	// spaceRunes are WhiteSpace and LineTerminator (ECMA-262 §12.2, §12.3).
	spaceRunes = runes{
		'\t', '\r', ' ', ' ', 0xa0, 0xa0, 0x1680, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029,
		0x202f, 0x202f, 0x205f, 0x205f, 0x3000, 0x3000, 0xfeff, 0xfeff,
	}
)

// or returns the set, or the set of one character if it is nil.
func (s runes) or(c rune) runes {
	if s != nil {
		return s
	}
	return runes{c, c}
}

// sorted returns the ranges in order, without overlap.
func (s runes) sorted() (all runes) {
	type span struct{ low, high rune }
	var spans []span
	for i := 0; i < len(s); i += 2 {
		spans = append(spans, span{s[i], s[i+1]})
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.low - b.low) })
	for _, x := range spans {
		if n := len(all); n > 0 && x.low <= all[n-1]+1 {
			all[n-1] = max(all[n-1], x.high)
			continue
		}
		all = append(all, x.low, x.high)
	}
	return all
}

func (s runes) negate() runes {
	negated := runes{}
	from := rune(0)
	all := s.sorted()
	for i := 0; i < len(all); i += 2 {
		if from < all[i] {
			negated = append(negated, from, all[i]-1)
		}
		from = all[i+1] + 1
	}
	if from <= 0x10FFFF {
		negated = append(negated, from, 0x10FFFF)
	}
	return negated
}

// String returns the set in the syntax of RE2.
func (s runes) String() string {
	all := s.sorted()
	if len(all) == 0 {
		return `[^\x{0}-\x{10FFFF}]`
	}
	var b strings.Builder
	b.WriteByte('[')
	for i := 0; i < len(all); i += 2 {
		fmt.Fprintf(&b, `\x{%x}-\x{%x}`, all[i], all[i+1])
	}
	b.WriteByte(']')
	return b.String()
}
