package schema

import (
	"encoding/base64"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// format asserts what a format of JSON Schema 2020-12 (validation §7.3) or of the OpenAPI format
// registry demands of strings, of numbers, or of both.
type format struct {
	name   string
	text   func(string) bool
	number func(*decimal) bool
}

// annotating are the known formats that assert nothing.
var annotating = map[string]bool{
	"binary": true, "commonmark": true, "decimal": true, "decimal128": true, "html": true,
	"password": true,
}

// formats are the asserted formats.
var formats = named(map[string]format{
	"date":                  {text: isDate},
	"date-time":             {text: isDateTime},
	"date-time-local":       {text: isLocalDateTime},
	"time":                  {text: isTime},
	"time-local":            {text: isLocalTime},
	"duration":              {text: isDuration},
	"email":                 {text: func(s string) bool { return isEmail(s, false) }},
	"idn-email":             {text: func(s string) bool { return isEmail(s, true) }},
	"hostname":              {text: isHostname},
	"idn-hostname":          {text: isIDNHostname},
	"ipv4":                  {text: isIPv4},
	"ipv6":                  {text: isIPv6},
	"uri":                   {text: func(s string) bool { return isURI(s, false, true) }},
	"uri-reference":         {text: func(s string) bool { return isURI(s, false, false) }},
	"iri":                   {text: func(s string) bool { return isURI(s, true, true) }},
	"iri-reference":         {text: func(s string) bool { return isURI(s, true, false) }},
	"uri-template":          {text: isURITemplate},
	"uuid":                  {text: isUUID},
	"json-pointer":          {text: isJSONPointer},
	"relative-json-pointer": {text: isRelativePointer},
	"regex":                 {text: isRegex},
	"byte":                  {text: isBase64},
	"base64url":             {text: isBase64URL},
	"char":                  {text: func(s string) bool { return utf8.RuneCountInString(s) == 1 }},
	"http-date":             {text: isHTTPDate},
	"media-range":           {text: isMediaRange},
	"sf-string":             {text: isStructuredString},
	"sf-token":              {text: isStructuredToken},
	"sf-binary":             {text: isStructuredBinary},
	"sf-boolean":            {text: func(s string) bool { return s == "?0" || s == "?1" }},
	"int8":                  {number: integersBetween("-128", "127")},
	"int16":                 {number: integersBetween("-32768", "32767")},
	"int32":                 {number: integersBetween("-2147483648", "2147483647")},
	"int64": {number: integersBetween("-9223372036854775808",
		"9223372036854775807")},
	"uint8":      {number: integersBetween("0", "255")},
	"uint16":     {number: integersBetween("0", "65535")},
	"uint32":     {number: integersBetween("0", "4294967295")},
	"uint64":     {number: integersBetween("0", "18446744073709551615")},
	"double-int": {number: integersBetween("-9007199254740991", "9007199254740991")},
	"sf-integer": {number: integersBetween("-999999999999999", "999999999999999")},
	"sf-decimal": {number: isStructuredDecimal},
	"unixtime":   {number: func(d *decimal) bool { return d.isInteger() }},
	"float":      {number: fits(32)},
	"double":     {number: fits(64)},
})

func named(all map[string]format) map[string]*format {
	pointers := make(map[string]*format, len(all))
	for name, f := range all {
		f.name = name
		pointers[name] = &f
	}
	return pointers
}

// IsKnownFormat reports whether a format is known.
func IsKnownFormat(name string) bool { return formats[name] != nil || annotating[name] }

// KnownFormats returns the formats that are asserted, sorted.
func KnownFormats() []string { return slices.Sorted(maps.Keys(formats)) }

func integersBetween(least, most string) func(*decimal) bool {
	var low, high decimal
	low.parse([]byte(least))
	low.expand()
	high.parse([]byte(most))
	high.expand()
	return func(d *decimal) bool {
		return d.isInteger() && d.compare(&low) >= 0 && d.compare(&high) <= 0
	}
}

// fits reports whether a number is within the range of a float of the given size in bits.
func fits(bits int) func(*decimal) bool {
	return func(d *decimal) bool {
		if d.isSmall {
			return true
		}
		f, err := strconv.ParseFloat("0."+string(d.digits[:d.n])+"e"+strconv.Itoa(d.exponent), bits)
		return err == nil && !math.IsInf(f, 0)
	}
}

func isStructuredDecimal(d *decimal) bool { // RFC 9651 §3.3.2
	d.expand()
	return d.exponent <= 12 && d.n-d.exponent <= 3
}

func digits(s string, n int) bool {
	return len(s) == n && isDigits([]byte(s))
}

func isDate(s string) bool { // RFC 3339 §5.6
	if len(s) != 10 || s[4] != '-' || s[7] != '-' || !digits(s[:4]+s[5:7]+s[8:], 8) {
		return false
	}
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

func isDateTime(s string) bool { // RFC 3339 §5.6
	return len(s) > 11 && isDate(s[:10]) && (s[10] == 'T' || s[10] == 't') && isTime(s[11:])
}

func isLocalDateTime(s string) bool {
	return len(s) > 11 && isDate(s[:10]) && (s[10] == 'T' || s[10] == 't') && isLocalTime(s[11:])
}

func isTime(s string) bool {
	i := strings.IndexAny(s, "Zz+-")
	if i < 0 {
		return false
	}
	clock, offset, zone := s[:i], 0, s[i:]
	if zone != "Z" && zone != "z" {
		if len(zone) != 6 || zone[3] != ':' || !digits(zone[1:3], 2) || !digits(zone[4:], 2) {
			return false
		}
		hours, _ := strconv.Atoi(zone[1:3])
		minutes, _ := strconv.Atoi(zone[4:])
		if hours > 23 || minutes > 59 {
			return false
		}
		if offset = hours*60 + minutes; zone[0] == '-' {
			offset = -offset
		}
	}
	minute, leap, ok := readClock(clock)
	// A leap second is the last one of a day in UTC (RFC 3339 §5.7).
	return ok && (!leap || (minute-offset+2*1440)%1440 == 1439)
}

func isLocalTime(s string) bool {
	minute, leap, ok := readClock(s)
	return ok && (!leap || minute == 1439)
}

// readClock reads hh:mm:ss with a fraction. It returns the minute of the day, and whether the
// second is a leap second.
func readClock(s string) (minute int, leap, ok bool) {
	if len(s) < 8 || s[2] != ':' || s[5] != ':' || !digits(s[:2]+s[3:5]+s[6:8], 6) {
		return 0, false, false
	}
	if fraction, found := strings.CutPrefix(s[8:], "."); s[8:] != "" &&
		(!found || fraction == "" || !isDigits([]byte(fraction))) {
		return 0, false, false
	}
	hours, _ := strconv.Atoi(s[:2])
	minutes, _ := strconv.Atoi(s[3:5])
	seconds, _ := strconv.Atoi(s[6:8])
	return hours*60 + minutes, seconds == 60, hours < 24 && minutes < 60 && seconds <= 60
}

func isDuration(s string) bool { // RFC 3339 appendix A
	date, ok := strings.CutPrefix(s, "P")
	if !ok {
		return false
	}
	if weeks, ok := strings.CutSuffix(date, "W"); ok {
		return weeks != "" && isDigits([]byte(weeks))
	}
	date, clock, timed := strings.Cut(date, "T")
	return (date != "" || timed) && isUnits(date, "YMD") && isUnits(clock, "HMS") &&
		timed == (clock != "")
}

// isUnits reports whether a text is a sequence of numbers with units, in the order of the units and
// without gaps.
func isUnits(s, units string) bool {
	next := -1
	for s != "" {
		i := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' })
		if i <= 0 {
			return false
		}
		unit := strings.IndexByte(units, s[i])
		if unit < 0 || next >= 0 && unit != next {
			return false
		}
		next, s = unit+1, s[i+1:]
	}
	return true
}

const atext = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~"

func isEmail(s string, international bool) bool { // RFC 5321 §4.1.2, RFC 6531 §3.3
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > 254 || !international && !isASCII(s) {
		return false
	}
	local, domain := s[:at], s[at+1:]
	if inner, ok := strings.CutPrefix(domain, "["); ok {
		literal, closed := strings.CutSuffix(inner, "]")
		six, is6 := strings.CutPrefix(literal, "IPv6:")
		if !closed || is6 && !isIPv6(six) || !is6 && !isIPv4(literal) {
			return false
		}
	} else if !isHostname(domain) && !(international && isIDNHostname(domain)) {
		return false
	}
	if local[0] == '"' {
		return isQuotedLocal(local)
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(c rune) bool {
			return c < utf8.RuneSelf && !strings.ContainsRune(atext, c)
		}) {
			return false
		}
	}
	return true
}

func isQuotedLocal(s string) bool {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return false
	}
	s = s[1 : len(s)-1]
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
			if i == len(s) {
				return false
			}
		} else if s[i] == '"' {
			return false
		}
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func isHostname(s string) bool { // RFC 1123 §2.1
	if s == "" || len(s) > 253 {
		return false
	}
	start := 0 // of the label
	for i := 0; i <= len(s); i++ {
		switch {
		case i == len(s) || s[i] == '.':
			if i == start || i-start > 63 || s[start] == '-' || s[i-1] == '-' {
				return false
			}
			start = i + 1
		case !isAlphanumeric(rune(s[i])) && s[i] != '-':
			return false
		}
	}
	return true
}

func isAlphanumeric(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func isIDNHostname(s string) bool { // RFC 5890 §2.3.2.3
	ascii, err := idna.Registration.ToASCII(strings.ToLower(s))
	return err == nil && isHostname(ascii)
}

func isIPv4(s string) bool { // RFC 2673 §3.2
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}

func isIPv6(s string) bool { // RFC 4291 §2.2
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is6() && a.Zone() == ""
}

// isUUID accepts only the form with dashes (RFC 9562 §4), which the format defines. Braces, the URN
// form and the form without dashes are different texts for the same value.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !isHex(c) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isJSONPointer(s string) bool { // RFC 6901 §3
	if s != "" && s[0] != '/' {
		return false
	}
	for i := range len(s) {
		if s[i] == '~' && (i+1 == len(s) || s[i+1] != '0' && s[i+1] != '1') {
			return false
		}
	}
	return true
}

func isRelativePointer(s string) bool { // draft-bhutton-relative-json-pointer-00 §3
	i := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' })
	if i < 0 {
		i = len(s)
	}
	return i > 0 && (i == 1 || s[0] != '0') && (s[i:] == "#" || isJSONPointer(s[i:]))
}

func isRegex(s string) bool {
	_, err := parsePattern(s)
	return err == nil
}

func isBase64(s string) bool { // RFC 4648 §4
	_, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && !strings.ContainsAny(s, "\r\n")
}

func isBase64URL(s string) bool { // RFC 4648 §5, padded or not
	encoding := base64.RawURLEncoding
	if strings.HasSuffix(s, "=") {
		encoding = base64.URLEncoding
	}
	_, err := encoding.Strict().DecodeString(s)
	return err == nil && !strings.ContainsAny(s, "\r\n")
}

func isHTTPDate(s string) bool { // RFC 9110 §5.6.7
	t, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", s)
	return err == nil && t.Format("Mon, 02 Jan 2006 15:04:05 GMT") == s
}

func isToken(s string) bool { // RFC 9110 §5.6.2
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !isAlphanumeric(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}

func isMediaRange(s string) bool { // RFC 9110 §12.5.1
	media, params, _ := strings.Cut(s, ";")
	kind, sub, ok := strings.Cut(strings.TrimSpace(media), "/")
	if !ok || !isToken(kind) || !isToken(sub) || kind == "*" && sub != "*" {
		return false
	}
	for params != "" {
		var param string
		param, params, _ = strings.Cut(params, ";")
		name, value, ok := strings.Cut(strings.TrimSpace(param), "=")
		quoted := len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"'
		if !ok || !isToken(name) || !isToken(value) && !quoted {
			return false
		}
	}
	return true
}

func isStructuredString(s string) bool { // RFC 9651 §3.3.3
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	for i := 1; i < len(s)-1; i++ {
		switch c := s[i]; {
		case c < ' ' || c > '~' || c == '"':
			return false
		case c == '\\':
			if i++; i == len(s)-1 || s[i] != '"' && s[i] != '\\' {
				return false
			}
		}
	}
	return true
}

func isStructuredToken(s string) bool { // RFC 9651 §3.3.4
	if s == "" || s[0] != '*' && !(isAlphanumeric(rune(s[0])) && s[0] > '9') {
		return false
	}
	return isToken(strings.NewReplacer(":", "a", "/", "a").Replace(s))
}

func isStructuredBinary(s string) bool { // RFC 9651 §3.3.5
	return len(s) > 1 && s[0] == ':' && s[len(s)-1] == ':' && isBase64(s[1:len(s)-1])
}
