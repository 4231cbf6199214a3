package schema

import (
	"fmt"
	"strings"
	"testing"
)

func TestFormats(t *testing.T) {
	long := strings.Repeat("a", 64)
	for format, c := range map[string]struct{ good, bad []string }{
		"date":                  {[]string{"2024-02-29", "0000-01-01"}, []string{"2023-02-29", "2024-1-01", "2024-13-01", "", "2024-02-29Z", "२०२४-01-01"}},
		"date-time":             {[]string{"2024-01-01T00:00:00Z", "2024-01-01t00:00:00.123z", "2024-01-01T23:59:59+23:59", "1998-12-31T23:59:60Z", "1998-12-31T15:59:60.1-08:00"}, []string{"2024-01-01 00:00:00Z", "2024-01-01T00:00:00", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00+24:00", "1998-12-31T22:59:60Z", "2024-01-01T00:00:00.Z", "2024-01-01T00:00Z"}},
		"time":                  {[]string{"12:00:00Z", "23:59:60Z", "00:59:60+01:00"}, []string{"12:00:00", "12:00", "25:00:00Z", "12:00:00+1:00"}},
		"time-local":            {[]string{"12:00:00"}, []string{"12:00:00Z"}},
		"date-time-local":       {[]string{"2024-01-01T12:00:00"}, []string{"2024-01-01T12:00:00Z"}},
		"duration":              {[]string{"P1D", "PT1H", "P1Y2M3DT4H5M6S", "P3W", "PT0S", "P1Y2M"}, []string{"P", "PT", "1D", "P1S", "PT1D", "P1M1Y", "P1Y2D", "P1W1D", "PT1H2S", "P-1D", "P1.5D", ""}},
		"email":                 {[]string{"a@b", "a.b+c@example.com", `"a b"@example.com`, "a@[127.0.0.1]", "a@[IPv6:::1]"}, []string{"a", "@b", "a@", "a..b@c", ".a@b", "a@-b", "ä@b", "a b@c", "a@[1]", long + "a@b", "a@b@c"}},
		"idn-email":             {[]string{"ä@b", "a@bücher.example"}, []string{"ä", "a b@c"}},
		"hostname":              {[]string{"a", "a.b-c.D1", "xn--bcher-kva.example"}, []string{"", "-a", "a-", "a..b", "a_b", "bücher", long + ".b", "a."}},
		"idn-hostname":          {[]string{"bücher.example", "a"}, []string{"", "-a", "a_b"}},
		"ipv4":                  {[]string{"127.0.0.1"}, []string{"127.0.0", "127.0.0.01", "256.0.0.1", "::1", "1.2.3.4 "}},
		"ipv6":                  {[]string{"::1", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4"}, []string{"127.0.0.1", "::1%eth0", "1::2::3", ""}},
		"uri":                   {[]string{"https://a.b/c?d=e#f", "urn:a:b", "mailto:a@b", "http://[::1]:8080/", "http://u:p@h/%41", "a:"}, []string{"/a", "a", "http://a b", "http://a/%4", "http://[1]/", "http://a:b/", "http://ä", "1a:b", "http://a/<b>", "http://a/\\b"}},
		"uri-reference":         {[]string{"/a", "a", "", "?q", "#f", "//h/p", "./a:b"}, []string{"a b", "1:b", "#a#b", "\\a"}},
		"iri":                   {[]string{"http://ä/ö", "http://a"}, []string{"ä", "http://a b"}},
		"iri-reference":         {[]string{"ä", "/ö#ü"}, []string{"a b", "\u0080"}},
		"uri-template":          {[]string{"/a/{b}", "{+a,b*}", "{?a:3}", "ä", ""}, []string{"{", "}", "{}", "/a b", "{a:0}", "{a,}"}},
		"uuid":                  {[]string{"f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"}, []string{"{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "f81d4fae7dec11d0a76500a0c91e6bf6", "g81d4fae-7dec-11d0-a765-00a0c91e6bf6", ""}},
		"json-pointer":          {[]string{"", "/a", "/a~0b~1c", "/"}, []string{"a", "/~", "/~2"}},
		"relative-json-pointer": {[]string{"0", "1/a", "0#", "10/b"}, []string{"", "01", "a", "-1", "0a", "1##"}},
		"byte":                  {[]string{"", "YQ==", "YWI="}, []string{"YQ", "Y", "YQ=\n=", "YR==", "-_=="}},
		"base64url":             {[]string{"", "YQ", "YQ==", "-_8"}, []string{"Y", "YR", "+/8"}},
		"char":                  {[]string{"a", "😀"}, []string{"", "ab"}},
		"http-date":             {[]string{"Sun, 06 Nov 1994 08:49:37 GMT"}, []string{"Mon, 06 Nov 1994 08:49:37 GMT", "1994"}},
		"media-range":           {[]string{"text/*", "*/*", "text/html;q=0.5", `a/b; c="d e"`}, []string{"text", "*/html", "a/b;c"}},
		"sf-string":             {[]string{`"a"`, `"\""`}, []string{`a`, `"`, `"\a"`, `"ä"`}},
		"sf-token":              {[]string{"a/b:c", "*"}, []string{"1", "", "a b"}},
		"sf-binary":             {[]string{":YQ==:", "::"}, []string{"YQ=="}},
		"sf-boolean":            {[]string{"?1"}, []string{"true"}},
	} {
		s := compileS(t, v31, "S: {format: "+format+"}", Options{})
		off := compileS(t, v31, "S: {format: "+format+"}", Options{IgnoreFormats: []string{format}})
		for _, text := range c.good {
			if _, err := s.Validate(quote(nil, text)); err != nil {
				t.Errorf("%s: %q is refused: %v", format, text, err)
			}
		}
		for _, text := range c.bad {
			if _, err := s.Validate(quote(nil, text)); err == nil {
				t.Errorf("%s: %q is accepted", format, text)
			}
			if _, err := off.Validate(quote(nil, text)); err != nil {
				t.Errorf("%s: %q is refused where the format is ignored", format, text)
			}
		}
		if _, err := s.Validate([]byte("5")); err != nil {
			t.Errorf("%s is asserted of a number", format)
		}
	}
}

func TestNumberFormats(t *testing.T) {
	for format, c := range map[string]struct{ good, bad []string }{
		"int8":       {[]string{"-128", "127", "1e2", "1.0"}, []string{"128", "-129", "1.5"}},
		"int32":      {[]string{"2147483647"}, []string{"2147483648", "1e10"}},
		"int64":      {[]string{"9223372036854775807", "-9223372036854775808"}, []string{"9223372036854775808", "0.1"}},
		"uint8":      {[]string{"0", "255"}, []string{"-1", "256"}},
		"uint64":     {[]string{"18446744073709551615"}, []string{"18446744073709551616", "-1"}},
		"double-int": {[]string{"9007199254740991"}, []string{"9007199254740992"}},
		"float":      {[]string{"3.4e38", "0.1", "-1", "123456789012345678"}, []string{"3.5e38", "1e300"}},
		"double":     {[]string{"1.7e308", "1e-308"}, []string{"1.8e308"}},
		"unixtime":   {[]string{"1"}, []string{"1.5"}},
		"sf-decimal": {[]string{"1.125", "999999999999.9"}, []string{"1.1255", "1e12"}},
		"sf-integer": {[]string{"999999999999999"}, []string{"1e15"}},
	} {
		s := compileS(t, v31, "S: {format: "+format+"}", Options{})
		off := compileS(t, v31, "S: {format: "+format+"}", Options{IgnoreFormats: []string{format}})
		for _, number := range c.good {
			if _, err := s.Validate([]byte(number)); err != nil {
				t.Errorf("%s: %s is refused: %v", format, number, err)
			}
		}
		for _, number := range c.bad {
			if _, err := s.Validate([]byte(number)); err == nil {
				t.Errorf("%s: %s is accepted", format, number)
			}
			if _, err := off.Validate([]byte(number)); err != nil && number != "1.8e308" {
				t.Errorf("%s: %s is refused where the format is ignored", format, number)
			}
		}
		if _, err := s.Validate([]byte(`"x"`)); err != nil {
			t.Errorf("%s is asserted of a string", format)
		}
	}
}

// TestFaults: what cannot be compiled is reported with its location.
func TestFaults(t *testing.T) {
	for schemas, want := range map[string]string{
		"S: {type: file}":                                         `schema type "file" is not a type of JSON`,
		"S: {properties: {a: {type: []}}}":                        "schema a: type is an empty list: name a type, or leave it out",
		"S: {multipleOf: 0}":                                      "schema multipleOf is 0: expected a number greater than 0",
		"S: {items: {$dynamicRef: '#x'}}":                         `schema items: $dynamicRef "#x" cannot be enforced: expected one $dynamicAnchor of that name in the document, there are 0; use $ref`,
		"S: {$schema: 'http://json-schema.org/draft-07/schema#'}": `schema $schema "http://json-schema.org/draft-07/schema#" is not a supported dialect: use JSON Schema 2020-12`,
		"S: {$id: 'https://a/b'}":                                 `schema $id "https://a/b": relative references are not resolved against it: write them from the root of the document, and remove $id`,
	} {
		doc, ref := load(t, v31, schemas)
		_, err := NewCompiler(doc, Options{}).Schema(ref)
		if fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", schemas, err, want)
		}
	}
}
