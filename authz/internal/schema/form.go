package schema

import (
	"bytes"
	"cmp"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
)

// encoding describes the serialization of a form field (OpenAPI 3.1 §4.8.15).
type encoding struct {
	types   []media // media types of the field; if empty, the schema decides
	style   string
	explode bool
}

func newEncoding(spec *openapi3.Encoding) *encoding {
	e := &encoding{style: cmp.Or(spec.Style, openapi3.SerializationForm)}
	e.explode = e.style == openapi3.SerializationForm
	if spec.Explode != nil {
		e.explode = *spec.Explode
	}
	for text := range strings.SplitSeq(spec.ContentType, ",") {
		if text = strings.TrimSpace(text); text != "" {
			e.types = append(e.types, mediaRange(text))
		}
	}
	return e
}

func (e *encoding) isJSON() bool {
	return e != nil && len(e.types) == 1 && isJSON(e.types[0].essence)
}

// field holds the values of a form under one name.
type field struct {
	name string
	tree tree
	json [][]byte // values sent as JSON
	file bool
}

// fields are the fields of one form, in order.
type fields struct {
	body   *body
	list   []*field
	byName map[string]*field
	spent  time.Duration // matching patterns
}

// named returns the field that a name with brackets belongs to, and the rest of the name. If the
// document declares the name with its brackets, there is no rest.
func (f *fields) named(name string) (*field, []string, bool) {
	root, path := name, []string(nil)
	if f.body.shape.members[name] == nil {
		var ok bool
		if root, path, ok = split(name); !ok {
			return nil, nil, false
		}
	}
	known := f.byName[root]
	if known == nil {
		known = &field{name: root}
		f.byName[root] = known
		f.list = append(f.list, known)
	}
	return known, path, true
}

// json returns the form as a JSON object.
func (f *fields) json() ([]byte, error) {
	dst := []byte{'{'}
	for _, one := range f.list {
		if one.tree.isEmpty() && one.json == nil {
			continue // a file whose data has not arrived
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = append(quote(dst, one.name), ':')
		s, _ := f.body.shape.member(one.name)
		var found problem
		if dst, found = f.value(dst, one, s); found.text != "" {
			found = found.at(f.body.shape.segment(one.name))
			return nil, bodyFault(found.pointer, "type", found.text)
		}
	}
	return append(dst, '}'), nil
}

func (f *fields) value(dst []byte, one *field, s *shape) ([]byte, problem) {
	e := f.body.encoding[one.name]
	list := s.is(kindArray)
	switch {
	case one.json != nil && (!one.tree.isEmpty() || !list && len(one.json) > 1):
		return dst, problem{text: "occurs more than once"}
	case one.json != nil && list:
		return append(append(append(dst, '['), bytes.Join(one.json, []byte(","))...), ']'),
			problem{}
	case one.json != nil:
		return append(dst, one.json[0]...), problem{}
	case one.file && !list && len(one.tree.texts) > 1:
		return dst, problem{text: "occurs more than once"}
	case e.isJSON() && len(one.tree.texts) == 1:
		return appendJSON(dst, one.tree.texts[0])
	case list && e != nil && !e.explode && len(one.tree.texts) == 1:
		p := parameter{style: e.style}
		t := tree{texts: strings.Split(one.tree.texts[0], p.delimiter())}
		return t.append(dst, s, 0)
	case len(one.tree.texts) > 1 && s != nil && s.kinds == anyKind:
		return dst, problem{text: "occurs more than once"}
	}
	return one.tree.append(dst, s, 0)
}

// checkForm validates an urlencoded form, and encodes it for generated code to bind.
func (b *body) checkForm(content Content, accepted *Accepted) error {
	pairs, ok := appendPairs(nil, string(content.Body))
	if !ok {
		return bodyFault("", "syntax", "is not a valid form")
	}
	f := newFields(b)
	for _, p := range pairs {
		one, path, ok := f.named(p.name)
		if !ok || !isText(p.name) || !isText(p.value) {
			return bodyFault("", "syntax", "has a field whose name or value is malformed")
		}
		one.tree.add(path, p.value)
	}
	text, err := f.json()
	if err != nil {
		return err
	}
	value, err := accepted.validate(b.schema, text)
	if err != nil {
		return err
	}
	if b.shape.overflows(value, space(value, 0)) {
		return bodyFault("", "type", "has an integer beyond 64 bits")
	}
	var bound []pair
	members(value, space(value, 0), func(name, _, at int) bool {
		field := scalarText(value, name)
		if s, known := b.shape.member(field); known { // generated code has no place for others
			bound = s.flatten(bound, field, value, at, true)
		}
		return true
	})
	accepted.Form = url.Values{}
	for _, p := range bound {
		accepted.Form.Add(p.name, p.value)
	}
	if !slices.Equal(bound, pairs) {
		accepted.Body = []byte(encodePairs(bound))
	}
	return nil
}

const (
	maxParts = 1000
	// maxField bounds a multipart field that is not a file, in bytes.
	maxField = 1 << 20
)

// checkMultipart validates a multipart form. The bytes are passed on unchanged: the handler gets a
// reader of the parts.
func (b *body) checkMultipart(content Content, accepted *Accepted) error {
	accepted.Form = url.Values{}
	boundary := content.Params["boundary"]
	if boundary == "" {
		return bodyFault("", "syntax", "has no boundary")
	}
	reader := multipart.NewReader(bytes.NewReader(content.Body), boundary)
	f := newFields(b)
	f.spent = accepted.spent
	for i := 0; ; i++ {
		part, err := reader.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil || i == maxParts {
			return malformedMultipart()
		}
		p, err := f.part(part)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(part)
		if err != nil {
			return malformedMultipart()
		}
		if err := f.add(p, data); err != nil {
			return err
		}
	}
	return f.check(b.schema)
}

func malformedMultipart() error {
	return bodyFault("", "syntax", "is not a valid multipart body")
}

func newFields(b *body) *fields { return &fields{body: b, byName: map[string]*field{}} }

// check validates the whole form against a schema.
func (f *fields) check(s *Schema) error {
	text, err := f.json()
	if err != nil {
		return err
	}
	_, err = s.validate(text, "body", "", InvalidBody, &f.spent)
	return err
}

// part is a part of a multipart form, without its data.
type part struct {
	field   *field
	path    []string // in the field
	pointer string
	file    bool
	json    bool
	single  bool // the field holds one value
}

// part reads the header of a part.
func (f *fields) part(raw *multipart.Part) (p part, err error) {
	name := raw.FormName()
	one, path, ok := f.named(name)
	if !ok || name == "" || !isText(name) {
		return p, bodyFault("", "syntax",
			"has a part without a name, or with one that is malformed")
	}
	p.field, p.path = one, path
	// RFC 7578 §4.7: forms do not use it.
	switch strings.ToLower(raw.Header.Get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
	default:
		return p, bodyFault("", "syntax", "has a part with a Content-Transfer-Encoding")
	}
	s, declared := f.body.shape.member(one.name)
	if p.single = !s.is(kindArray); !p.single && s.items != nil {
		s = s.items
	}
	p.pointer = "/*"
	if declared && f.body.shape.members[one.name] != nil {
		p.pointer = "/" + escape(one.name)
	}
	e := f.body.encoding[one.name]
	essence, params, _ := mime.ParseMediaType(raw.Header.Get("Content-Type"))
	if err := e.accepts(essence, params, p.pointer); err != nil {
		return p, err
	}
	p.file = s != nil && s.file || s == nil && raw.FileName() != ""
	p.json = isJSON(essence) || e.isJSON()
	return p, nil
}

// add adds the data of a part. The data of a file is not checked: any bytes are valid.
func (f *fields) add(p part, data []byte) error {
	switch {
	case p.file:
		p.field.file = true
		p.field.tree.add(p.path, "")
	case p.json:
		if !jsontext.Value(data).IsValid() {
			return bodyFault(p.pointer, "syntax", "is not valid JSON")
		}
		p.field.json = append(p.field.json, data)
	case len(data) > maxField || !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
		return bodyFault(p.pointer, "type", "is not text")
	default:
		p.field.tree.add(p.path, string(data))
	}
	return nil
}

// accepts reports whether a part may have a Content-Type: one that encoding lists, or any if it
// lists none. A part without a Content-Type is text (RFC 7578 §4.4).
func (e *encoding) accepts(essence string, params map[string]string, pointer string) error {
	if e == nil || len(e.types) == 0 {
		return nil
	}
	essence = cmp.Or(essence, "text/plain")
	for _, m := range e.types {
		if m.matches(essence, params) > 0 {
			return nil
		}
	}
	return bodyFault(pointer, "contentType", "is not of a Content-Type that its encoding names")
}
