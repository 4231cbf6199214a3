package schema

import "unicode/utf8"

// scanNumber reads the number at an offset, and returns the offset after it.
func (r *run) scanNumber(at int) (end int, ok bool) {
	if end, ok = r.number.scan(r.body, at); ok {
		return end, true
	}
	end = endOfScalar(r.body, at)
	r.scanned(at, end)
	switch text := r.body[at:end]; {
	case !r.trusted && !isNumber(string(text)):
		return end, r.undecided()
	case !r.number.parse(text):
		return end, r.refuse("number", "has too many digits or too large an exponent", "")
	}
	return end, true
}

func (r *run) numeric(n *node, at, end int) bool {
	ok := true
	if n.integer {
		if !r.number.isInteger() {
			ok = r.refuse("type", "is not of type "+n.typeNames(), "")
		} else if !r.number.isSmall || r.number.small == 0 && r.body[at] == '-' {
			r.rewriteInteger(at, end)
		}
	}
	for _, b := range []*bound{n.minimum, n.maximum} {
		if b == nil || !ok && !r.collects() {
			continue
		}
		order, keyword, exclusive := r.number.compare(b.value), "minimum", "exclusiveMinimum"
		if b == n.maximum {
			order, keyword, exclusive = -order, "maximum", "exclusiveMaximum"
		}
		if b.exclusive && order <= 0 {
			ok = r.refuse(exclusive, "is out of range: "+exclusive+" is "+b.value.String(), "")
		} else if order < 0 {
			ok = r.refuse(keyword, "is out of range: "+keyword+" is "+b.value.String(), "")
		}
	}
	if n.multipleOf != nil && (ok || r.collects()) {
		if r.step(20); !r.number.isMultipleOf(n.multipleOf) {
			ok = r.refuse("multipleOf", "is not a multiple of "+n.multipleOf.String(), "")
		}
	}
	if f := n.format; f != nil && f.number != nil && (ok || r.collects()) && !f.number(&r.number) {
		ok = r.refuse("format", "is not a valid "+f.name, "")
	}
	return ok
}

func (r *run) string(n *node, at, end int) bool {
	if n.minLength == 0 && n.maxLength < 0 && n.pattern == nil && n.format == nil {
		return true
	}
	start := len(r.buffer)
	r.step((end - at) / 16)
	ok := r.text(n, r.unquote(at, end))
	r.buffer = r.buffer[:start]
	return ok && r.fatal == ""
}

func (r *run) text(n *node, text []byte) bool {
	ok := true
	// Most texts have the right length whatever the length of their characters in bytes is.
	if !(len(text) > utf8.UTFMax*(n.minLength-1) && len(text) <= n.maxLength) &&
		(n.minLength > 0 || n.maxLength >= 0) {
		switch length := utf8.RuneCount(text); {
		case length < n.minLength:
			ok = r.refuseCount("minLength", "is shorter than ", n.minLength, " characters")
		case n.maxLength >= 0 && length > n.maxLength:
			ok = r.refuseCount("maxLength", "is longer than ", n.maxLength, " characters")
		}
	}
	if n.pattern != nil && ok && !r.match(n.pattern, text) {
		ok = r.refuse("pattern", "does not match the pattern "+n.pattern.text, "")
	}
	if f := n.format; f != nil && f.text != nil && (ok || r.collects()) {
		r.step(len(text) / 16)
		if !f.text(string(text)) {
			ok = r.refuse("format", "is not a valid "+f.name, "")
		}
	}
	return ok
}
