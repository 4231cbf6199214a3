package schema

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	unreserved = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	subDelims  = "!$&'()*+,;="
)

// isURI reports whether a text is a URI or a reference (RFC 3986 appendix A) or, if international
// is set, an IRI (RFC 3987 §2.2).
func isURI(s string, international, absolute bool) bool {
	rest, fragment, _ := strings.Cut(s, "#")
	if !isURIText(fragment, international, ":@/?", false) {
		return false
	}
	rest, query, _ := strings.Cut(rest, "?")
	if !isURIText(query, international, ":@/?", true) {
		return false
	}
	scheme, after, found := strings.Cut(rest, ":")
	if found && isScheme(scheme) {
		rest = after
	} else if absolute {
		return false
	} else if segment, _, _ := strings.Cut(rest, "/"); strings.Contains(segment, ":") {
		return false // the first segment of a relative path has no colon (§4.2)
	}
	if authority, ok := strings.CutPrefix(rest, "//"); ok {
		path := ""
		if i := strings.IndexByte(authority, '/'); i >= 0 {
			authority, path = authority[:i], authority[i:]
		}
		return isAuthority(authority, international) && isURIText(path, international, ":@/", false)
	}
	return isURIText(rest, international, ":@/", false)
}

func isScheme(s string) bool {
	if s == "" || !isAlphanumeric(rune(s[0])) || s[0] <= '9' {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !isAlphanumeric(c) && c != '+' && c != '-' && c != '.'
	})
}

func isAuthority(s string, international bool) bool {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if !isURIText(s[:i], international, ":", false) {
			return false
		}
		s = s[i+1:]
	}
	host, port := s, ""
	if end := strings.IndexByte(s, ']'); strings.HasPrefix(s, "[") {
		if end < 0 || !isIPv6(s[1:end]) && !isFutureIP(s[1:end]) {
			return false
		}
		host, port = "", s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
	}
	if port != "" && (port[0] != ':' || !isDigits([]byte(port[1:]))) {
		return false
	}
	return isURIText(host, international, "", false)
}

func isFutureIP(s string) bool { // IPvFuture
	version, address, ok := strings.Cut(s, ".")
	if !ok || len(version) < 2 || version[0] != 'v' && version[0] != 'V' || address == "" {
		return false
	}
	for _, c := range []byte(version[1:]) {
		if !isHex(c) {
			return false
		}
	}
	return !strings.Contains(address, "%") && isURIText(address, false, ":", false)
}

// isURIText reports whether a part consists of unreserved characters, sub-delims, the given other
// characters, and percent-encoded bytes.
func isURIText(s string, international bool, others string, query bool) bool {
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == '%':
			if len(s) < i+3 || !isHex(s[i+1]) || !isHex(s[i+2]) {
				return false
			}
			size = 3
		case c >= utf8.RuneSelf:
			if !international || !isUCS(c, query) {
				return false
			}
		case !strings.ContainsRune(unreserved+subDelims+others, c):
			return false
		}
		i += size
	}
	return true
}

// isUCS reports whether a character is allowed in an IRI. Some private-use characters are allowed
// only in the query.
func isUCS(c rune, query bool) bool {
	private := 0xE000 <= c && c <= 0xF8FF || c >= 0xF0000
	reserved := 0xFDD0 <= c && c <= 0xFDEF || 0xFFF0 <= c && c <= 0xFFFF || c&0xFFFE == 0xFFFE
	return c >= 0xA0 && !reserved && (query || !private)
}

// isURITemplate reports whether a text is a URI template (RFC 6570 §2).
func isURITemplate(s string) bool {
	for s != "" {
		open := strings.IndexByte(s, '{')
		if open < 0 {
			return isTemplateLiteral(s)
		}
		end := strings.IndexByte(s, '}')
		if end < open || !isTemplateLiteral(s[:open]) || !isExpression(s[open+1:end]) {
			return false
		}
		s = s[end+1:]
	}
	return true
}

func isTemplateLiteral(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c == 0x7f || strings.IndexByte("\"'<>\\^`{|}", c) >= 0 {
			return false
		}
		if c == '%' && (len(s) < i+3 || !isHex(s[i+1]) || !isHex(s[i+2])) {
			return false
		}
	}
	return true
}

func isExpression(s string) bool {
	if s != "" && strings.IndexByte("+#./;?&", s[0]) >= 0 {
		s = s[1:]
	}
	for variable := range strings.SplitSeq(s, ",") {
		name, length, prefixed := strings.Cut(strings.TrimSuffix(variable, "*"), ":")
		n, err := strconv.ParseUint(length, 10, 16)
		exploded := strings.HasSuffix(variable, "*")
		if prefixed && (err != nil || n == 0 || n > 9999 || length[0] == '0' || exploded) {
			return false
		}
		for part := range strings.SplitSeq(name, ".") {
			if part == "" || strings.ContainsFunc(part, func(c rune) bool {
				return !isAlphanumeric(c) && c != '_' && c != '%'
			}) {
				return false
			}
		}
	}
	return true
}
