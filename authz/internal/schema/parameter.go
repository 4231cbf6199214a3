package schema

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
)

// parameter is a parameter of an operation. Its text is decoded to a JSON value, which is validated
// and encoded so that generated code binds exactly that value.
type parameter struct {
	in, name string
	required bool
	style    string
	explode  bool
	content  string // media type of a parameter with content; "" if it has a style
	empty    bool   // allowEmptyValue
	schema   *Schema
	shape    *shape
	scalar   bool   // its text is a single unencoded value
	plain    bool   // scalar, and run.plain decides about most of its texts
	key      string // of a header
	// missing is bound if the parameter is not sent: the default of its schema.
	missing []pair
}

// pair is a name and a value, unescaped.
type pair struct{ name, value string }

// fault returns the error for a parameter's text that cannot be decoded.
func (p *parameter) fault(keyword, text string) error { return p.faultAt("", keyword, text) }

func (p *parameter) faultAt(pointer, keyword, text string) error {
	d := Detail{In: p.in, Name: p.name, Pointer: pointer, Keyword: keyword, Text: text}
	return &Error{Kind: InvalidParameter, Details: []Detail{d}}
}

func (c *Compiler) parameter(spec *openapi3.Parameter) (*parameter, error) {
	p := &parameter{
		in: spec.In, name: spec.Name, required: spec.Required, style: spec.Style,
		empty: spec.AllowEmptyValue, key: http.CanonicalHeaderKey(spec.Name),
	}
	label := spec.In + " parameter " + spec.Name
	form := p.in == openapi3.ParameterInQuery || p.in == openapi3.ParameterInCookie
	if p.style == "" { // OpenAPI 3.1 §4.8.12.2
		p.style = openapi3.SerializationSimple
		if form {
			p.style = openapi3.SerializationForm
		}
	}
	p.explode = p.style == openapi3.SerializationForm || p.style == openapi3.SerializationDeepObject
	if spec.Explode != nil {
		p.explode = *spec.Explode
	}
	ref := spec.Schema
	for media, content := range spec.Content {
		p.content = mediaRange(media).essence
		if content != nil {
			ref = content.Schema
		}
	}
	if ref == nil {
		ref = &openapi3.SchemaRef{Value: &openapi3.Schema{}}
	}
	n, err := c.schema(ref, label)
	if err != nil {
		return nil, err
	}
	p.schema = &Schema{root: n, options: c.options}
	p.shape = c.shapeOf(n)
	if p.content != "" && !isJSON(p.content) && !p.shape.is(kindString) &&
		p.shape.kinds != anyKind {
		return nil, fmt.Errorf("the %s has content of %s, which is not decoded: make its schema a "+
			"string", label, p.content)
	}
	if p.content == "" && !p.hasStyle() {
		return nil,
			fmt.Errorf("the %s has style %s and a schema that this style does not support: see "+
				"OpenAPI 3.1 §4.8.12.3", label, p.style)
	}
	p.scalar = p.content == "" && (p.shape.kinds == anyKind || !p.shape.is(kindArray|kindObject)) &&
		(p.style == openapi3.SerializationForm || p.style == openapi3.SerializationSimple)
	p.plain = p.scalar && (n.kinds == kindString || n.kinds == kindNumber) && !n.never &&
		n.values == nil && !n.layered
	return p, p.readDefault(ref.Value.Default)
}

// readDefault encodes the default of an optional parameter for generated code to bind.
func (p *parameter) readDefault(value any) error {
	if value == nil || p.required {
		return nil
	}
	text, err := json.Marshal(value)
	if err == nil {
		p.missing, err = p.bindValue(text, new(time.Duration))
	}
	if err != nil {
		return fmt.Errorf("the default of the %s parameter %s does not match its schema: "+
			"correct it, because the handler gets it if the parameter is not sent", p.in, p.name)
	}
	return nil
}

// reader reads the parameters of one request. Most are a single text that is bound unchanged.
type reader struct {
	run  run
	text []byte
}

// scalar validates a single text, and returns the text to bind.
func (r *reader) scalar(p *parameter, text string) (string, error) {
	if !isText(text) {
		return "", p.fault("type", "is not text")
	}
	r.run.options = &p.schema.options
	if r.text = append(r.text[:0], text...); p.plain && r.run.plain(p.schema.root, r.text) {
		return text, nil
	}
	var ok bool
	if r.text, ok = p.shape.appendScalar(r.text[:0], text); !ok {
		return "", p.fault("type", p.shape.scalar())
	}
	if r.run.begin(r.text, true); r.run.whole(p.schema.root) && len(r.run.edits) == 0 &&
		(r.run.number.isSmall || !p.shape.overflows(r.text, 0)) {
		return text, nil
	}
	return p.bind(r.text, &r.run.spent) // returns the error, or another form of the value
}

// plain checks a text that is not encoded in JSON, for a schema with no keywords but those of
// strings, or of numbers. It reports false also about a number that may have to be rewritten.
func (r *run) plain(n *node, text []byte) bool {
	r.begin(text, true)
	if n.kinds == kindString {
		return r.text(n, text) && r.fatal == ""
	}
	if len(text) == 0 {
		return false
	}
	end, ok := r.number.scan(text, 0)
	return ok && end == len(text) && r.numeric(n, 0, end) && len(r.edits) == 0
}

// hasStyle reports whether a style is defined for a location and for the type of the schema.
func (p *parameter) hasStyle() bool {
	switch p.style {
	case openapi3.SerializationForm:
		return p.in == openapi3.ParameterInQuery || p.in == openapi3.ParameterInCookie
	case openapi3.SerializationDeepObject:
		return p.in == openapi3.ParameterInQuery && p.explode && p.shape.is(kindObject)
	case openapi3.SerializationSpaceDelimited, openapi3.SerializationPipeDelimited:
		return p.in == openapi3.ParameterInQuery && p.shape.is(kindArray|kindObject)
	case openapi3.SerializationSimple:
		return p.in == openapi3.ParameterInPath || p.in == openapi3.ParameterInHeader
	case openapi3.SerializationLabel, openapi3.SerializationMatrix:
		return p.in == openapi3.ParameterInPath
	}
	return false
}

// isText reports whether a text is UTF-8 without NUL, which many databases reject.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// check validates a JSON text, and returns the text to bind.
func (p *parameter) check(text []byte, spent *time.Duration) ([]byte, error) {
	value, err := p.schema.validate(text, p.in, p.name, InvalidParameter, spent)
	if err == nil && p.content == "" && p.shape.overflows(value, space(value, 0)) {
		return nil, p.fault("type", "has an integer beyond 64 bits")
	}
	return value, err
}

// delimiter returns the separator of the elements of a list in a single text.
func (p *parameter) delimiter() string {
	switch {
	case p.style == openapi3.SerializationSpaceDelimited:
		return " "
	case p.style == openapi3.SerializationPipeDelimited:
		return "|"
	case p.explode && p.style == openapi3.SerializationLabel:
		return "."
	case p.explode && p.style == openapi3.SerializationMatrix:
		return ";"
	}
	return ","
}

// strip removes the prefix that a style puts before a value.
func (p *parameter) strip(text string) (prefix, rest string, ok bool) {
	switch p.style {
	case openapi3.SerializationLabel:
		prefix = "."
	case openapi3.SerializationMatrix:
		prefix = ";" + p.name + "="
		if p.explode && p.shape.is(kindObject) {
			prefix = ";"
		}
	}
	rest, ok = strings.CutPrefix(text, prefix)
	return prefix, rest, ok
}

// decode converts the text of a parameter to JSON.
func (p *parameter) decode(text string) ([]byte, error) {
	if !isText(text) {
		return nil, p.fault("type", "is not text")
	}
	if p.content != "" {
		if isJSON(p.content) {
			return []byte(text), nil
		}
		return quote(nil, text), nil
	}
	_, text, ok := p.strip(text)
	if !ok {
		return nil, p.fault("style", "does not begin as style "+p.style+" does")
	}
	switch {
	case p.shape.is(kindArray):
		elements := strings.Split(text, p.delimiter())
		if p.explode && p.style == openapi3.SerializationMatrix {
			for i := 1; i < len(elements); i++ {
				if elements[i], ok = strings.CutPrefix(elements[i], p.name+"="); !ok {
					return nil, p.fault("style", "does not repeat its name as style matrix does")
				}
			}
		}
		return p.list(elements)
	case p.shape.is(kindObject):
		pairs, err := p.pairs(text)
		if err != nil {
			return nil, err
		}
		return p.object(pairs)
	}
	value, ok := p.shape.appendScalar(nil, text)
	if !ok {
		return nil, p.fault("type", p.shape.scalar())
	}
	return value, nil
}

// trim removes the optional white space around an element of a header (RFC 9110 §5.6.1).
func (p *parameter) trim(s string) string {
	if p.in == openapi3.ParameterInHeader {
		return strings.Trim(s, " \t")
	}
	return s
}

// list returns a JSON array of texts.
func (p *parameter) list(elements []string) ([]byte, error) {
	dst := []byte{'['}
	for i, element := range elements {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !isText(element) {
			return nil, p.fault("type", "is not text")
		}
		var ok bool
		if dst, ok = p.shape.items.appendScalar(dst, p.trim(element)); !ok {
			return nil, p.fault("items", "has an element that "+p.shape.items.scalar())
		}
	}
	return append(dst, ']'), nil
}

// pairs reads the members of an object from a single text: k,v,k,v or k=v,k=v.
func (p *parameter) pairs(text string) (all []pair, err error) {
	list := strings.Split(text, p.delimiter())
	if p.explode {
		for _, element := range list {
			name, value, ok := strings.Cut(element, "=")
			if !ok || strings.Contains(value, "=") {
				return nil, p.fault("style", "is not a list of name=value")
			}
			all = append(all, pair{p.trim(name), p.trim(value)})
		}
		return all, nil
	}
	if len(list)%2 != 0 {
		return nil, p.fault("style", "is not a list of names and values")
	}
	for i := 0; i < len(list); i += 2 {
		all = append(all, pair{p.trim(list[i]), p.trim(list[i+1])})
	}
	return all, nil
}

// object returns a JSON object. It keeps duplicate members, which validation refuses.
func (p *parameter) object(pairs []pair) ([]byte, error) {
	dst := []byte{'{'}
	for i, member := range pairs {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !isText(member.name) || !isText(member.value) {
			return nil, p.fault("type", "is not text")
		}
		dst = append(quote(dst, member.name), ':')
		s, _ := p.shape.member(member.name)
		var ok bool
		if dst, ok = s.appendScalar(dst, member.value); !ok {
			return nil, p.faultAt("/"+p.shape.segment(member.name), "type", s.scalar())
		}
	}
	return append(dst, '}'), nil
}

// bind validates a JSON text, and encodes it as the single text from which generated code binds it.
func (p *parameter) bind(text []byte, spent *time.Duration) (string, error) {
	value, err := p.check(text, spent)
	if err != nil {
		return "", err
	}
	bound := p.encode(value)
	if p.content == "" && kindOf(value[space(value, 0)]) == kindObject {
		if _, rest, _ := p.strip(bound); rest == "" {
			return "", p.fault("style", "has no member that the document names")
		}
	}
	return bound, nil
}

func (p *parameter) encode(value []byte) string {
	at := space(value, 0)
	if p.content != "" {
		if isJSON(p.content) {
			return string(value)
		}
		return scalarText(value, at)
	}
	prefix := ""
	switch p.style {
	case openapi3.SerializationLabel:
		prefix = "."
	case openapi3.SerializationMatrix:
		prefix = ";" + p.name + "="
	}
	switch kindOf(value[at]) {
	case kindArray:
		var list []string
		elements(value, at, func(at int) bool {
			list = append(list, scalarText(value, at))
			return true
		})
		delimiter := p.delimiter()
		if delimiter == ";" {
			delimiter += p.name + "="
		}
		return prefix + strings.Join(list, delimiter)
	case kindObject:
		if p.style == openapi3.SerializationMatrix && p.explode {
			prefix = ";"
		}
		return prefix + p.encodeObject(value, at)
	}
	return prefix + scalarText(value, at)
}

// encodeObject encodes an object. Generated code puts names and values between quotes and decodes
// the result as JSON, so each is encoded as the inside of a JSON string.
func (p *parameter) encodeObject(value []byte, at int) string {
	var list []string
	members(value, at, func(name, _, at int) bool {
		text := scalarText(value, name)
		if _, known := p.shape.member(text); !known {
			return true // generated code has no field for it
		}
		k, v := jsonInner(text), jsonInner(scalarText(value, at))
		if p.explode {
			list = append(list, k+"="+v)
		} else {
			list = append(list, k, v)
		}
		return true
	})
	return strings.Join(list, p.delimiter())
}

// jsonInner encodes a text as the inside of a JSON string. It escapes everything except letters,
// digits and characters such as -, so that no delimiter remains.
func jsonInner(text string) string {
	plain := true
	for _, c := range text {
		plain = plain && isPlain(c)
	}
	if plain {
		return text
	}
	var b strings.Builder
	for _, c := range text {
		switch {
		case isPlain(c):
			b.WriteRune(c)
		case c > 0xffff:
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	return b.String()
}

func isPlain(c rune) bool {
	return isAlphanumeric(c) || strings.ContainsRune("-_:/@+*~!$'()", c)
}

// scalarText returns the text of a JSON scalar.
func scalarText(value []byte, at int) string {
	if value[at] == '"' {
		text, _ := unquote(value[at:endOfString(value, at)], nil)
		return string(text)
	}
	return string(value[at:endOfScalar(value, at)])
}
