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
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
)

// encoding says how a field of a form is written (OpenAPI 3.1 §4.8.15).
type encoding struct {
	types   []media // of the field's content; empty: by its schema
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

// field is what a form has under one name.
type field struct {
	name string
	tree tree
	json [][]byte // values that come as JSON
	file bool
}

// fields are those of one form, in its order.
type fields struct {
	body   *body
	list   []*field
	byName map[string]*field
}

// named returns the field that a name with brackets belongs to, and the rest of the name. A name
// that the document has with its brackets is taken as it is.
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

// json writes the form as a JSON object.
func (f *fields) json() ([]byte, error) {
	dst := []byte{'{'}
	for i, one := range f.list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(quote(dst, one.name), ':')
		s, _ := f.body.shape.member(one.name)
		var problem string
		if dst, problem = f.value(dst, one, s); problem != "" {
			name := "*"
			if f.body.shape.members[one.name] != nil {
				name = one.name
			}
			return nil, bodyFault("/"+escape(name), "type", problem)
		}
	}
	return append(dst, '}'), nil
}

func (f *fields) value(dst []byte, one *field, s *shape) (_ []byte, problem string) {
	e := f.body.encoding[one.name]
	list := s.is(kindArray)
	switch {
	case one.json != nil && (!one.tree.isEmpty() || !list && len(one.json) > 1):
		return dst, "occurs more than once"
	case one.json != nil && list:
		return append(append(append(dst, '['), bytes.Join(one.json, []byte(","))...), ']'), ""
	case one.json != nil:
		return append(dst, one.json[0]...), ""
	case one.file && !list && len(one.tree.texts) > 1:
		return dst, "occurs more than once"
	case e.isJSON() && len(one.tree.texts) == 1:
		return appendJSON(dst, one.tree.texts[0])
	case list && e != nil && !e.explode && len(one.tree.texts) == 1:
		p := parameter{style: e.style}
		t := tree{texts: strings.Split(one.tree.texts[0], p.delimiter())}
		return t.append(dst, s, 0)
	case len(one.tree.texts) > 1 && s != nil && s.kinds == anyKind:
		return dst, "occurs more than once"
	}
	return one.tree.append(dst, s, 0)
}

// checkForm holds an urlencoded form to its schema, and writes it as generated code binds it.
func (b *body) checkForm(content Content, accepted *Accepted) error {
	pairs, ok := appendPairs(nil, string(content.Body))
	if !ok {
		return bodyFault("", "syntax", "is not a valid form")
	}
	f := fields{body: b, byName: map[string]*field{}}
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
	value, err := b.schema.Validate(text)
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
	// maxField bounds a multipart field that is no file.
	maxField = 1 << 20
)

// checkMultipart holds a multipart form to its schema. Its bytes are passed on as they are: the
// handler gets a reader of parts.
func (b *body) checkMultipart(content Content, accepted *Accepted) error {
	accepted.Form = url.Values{}
	boundary := content.Params["boundary"]
	if boundary == "" {
		return bodyFault("", "syntax", "has no boundary")
	}
	reader := multipart.NewReader(bytes.NewReader(content.Body), boundary)
	f := fields{body: b, byName: map[string]*field{}}
	for i := 0; ; i++ {
		part, err := reader.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil || i == maxParts {
			return bodyFault("", "syntax", "is not a valid multipart body")
		}
		if err := f.addPart(part); err != nil {
			return err
		}
	}
	text, err := f.json()
	if err != nil {
		return err
	}
	_, err = b.schema.Validate(text)
	return err
}

func (f *fields) addPart(part *multipart.Part) error {
	name := part.FormName()
	one, path, ok := f.named(name)
	if !ok || name == "" || !isText(name) {
		return bodyFault("", "syntax", "has a part without a name, or with one that is malformed")
	}
	// RFC 7578 §4.7: forms do not have it.
	switch strings.ToLower(part.Header.Get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
	default:
		return bodyFault("", "syntax", "has a part with a Content-Transfer-Encoding")
	}
	s, declared := f.body.shape.member(one.name)
	if s.is(kindArray) && s.items != nil {
		s = s.items
	}
	pointer := "/*"
	if declared && f.body.shape.members[one.name] != nil {
		pointer = "/" + escape(one.name)
	}
	e := f.body.encoding[one.name]
	essence, params, _ := mime.ParseMediaType(part.Header.Get("Content-Type"))
	if err := e.accepts(essence, params, pointer); err != nil {
		return err
	}
	data, err := io.ReadAll(part)
	if err != nil {
		return bodyFault("", "syntax", "is not a valid multipart body")
	}
	switch {
	case s != nil && s.file || s == nil && part.FileName() != "":
		one.file = true
		one.tree.add(path, "") // a file is any bytes
	case isJSON(essence) || e.isJSON():
		if !jsontext.Value(data).IsValid() {
			return bodyFault(pointer, "syntax", "is not valid JSON")
		}
		one.json = append(one.json, data)
	case len(data) > maxField || !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
		return bodyFault(pointer, "type", "is not text")
	default:
		one.tree.add(path, string(data))
	}
	return nil
}

// accepts reports whether a part may have a Content-Type: one that encoding names, or any if it
// names none. A part without one is text (RFC 7578 §4.4).
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
