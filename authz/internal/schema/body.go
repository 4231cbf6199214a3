package schema

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
)

// Content is the body of a request, usually read to its end. Its media type is the one that the caller has
// parsed from the one Content-Type.
type Content struct {
	Essence string // type/subtype, in lower case
	Params  map[string]string
	Body    []byte
	// Stream is the body, if a handler is to read it: see [Operation.Stream]. Then Body is empty.
	Stream io.Reader
	// MaxFields bounds what a streamed form has before its first file.
	MaxFields int64
}

// body is one media type of a request body.
type body struct {
	media    media
	kind     bodyKind
	schema   *Schema
	shape    *shape
	encoding map[string]*encoding // of a form's fields
	fields   *Schema              // of a form that is streamed, as far as its files are not known
}

type bodyKind uint8

const (
	jsonBody bodyKind = iota
	formBody
	multipartBody
	textBody
	yamlBody
	opaqueBody // passed on as it is
	deniedBody // not taken
)

// body compiles one media type. What nothing decodes is passed on as bytes where the schema says no
// more than that, and a fault where it does.
func (c *Compiler) body(name string, spec *openapi3.MediaType) (*body, error) {
	b := &body{media: mediaRange(name)}
	ref := &openapi3.SchemaRef{Value: &openapi3.Schema{}}
	if spec != nil && spec.Schema != nil {
		ref = spec.Schema
	}
	n, err := c.schema(ref, "of the body")
	if err != nil {
		return nil, err
	}
	b.schema, b.shape = &Schema{root: n, options: c.options}, c.shapeOf(n)
	switch essence := b.media.essence; {
	case isJSON(essence):
		b.kind = jsonBody
	case isForm(essence):
		b.kind = formBody
	case isMultipart(essence):
		b.kind = multipartBody
	case n.binary || n.trivial() || b.isPlain():
		b.kind = opaqueBody
	case isYAML(essence):
		b.kind = yamlBody
	case b.shape.kinds == kindString && strings.HasPrefix(essence, "text/"):
		b.kind = textBody
	case isJSONRange(essence): // of what it takes, JSON can be enforced
		b.kind = jsonBody
	case c.options.DenyUndecoded:
		b.kind = deniedBody
	default:
		return nil, fmt.Errorf("a body of %s is not decoded, so its schema cannot be enforced: "+
			"make it {}, or a plain string, or take application/json; or set Config.Undecoded to "+
			"authz.DenyUndecoded, so that such a body is answered with 415", name)
	}
	if b.kind == formBody || b.kind == multipartBody {
		return b, b.readEncoding(name, spec)
	}
	return b, nil
}

// isPlain reports whether a schema says nothing but type: string.
func (b *body) isPlain() bool {
	n := b.schema.root
	return n.kinds == kindString && n.size == 1
}

func (b *body) readEncoding(name string, spec *openapi3.MediaType) error {
	if !b.shape.is(kindObject) && b.shape.kinds != anyKind {
		return fmt.Errorf("a body of %s is an object: its schema takes none", name)
	}
	b.encoding = map[string]*encoding{}
	if spec == nil {
		return nil
	}
	for field, e := range spec.Encoding {
		if e != nil {
			b.encoding[field] = newEncoding(e)
		}
	}
	return nil
}

// checkBody holds a body to the media type that describes it best.
func (o *Operation) checkBody(content Content, accepted *Accepted) error {
	if content.Stream == nil && len(content.Body) == 0 && !strings.HasPrefix(content.Essence, "text/") { // "" is a text
		if o.required {
			return bodyFault("", "required", "is missing")
		}
		return nil
	}
	if len(o.bodies) == 0 {
		return bodyFault("", "requestBody", "is sent to an operation that takes none")
	}
	var best *body
	most := 0
	for _, b := range o.bodies {
		if n := b.media.matches(content.Essence, content.Params); n > most {
			best, most = b, n
		}
	}
	if best == nil {
		return &Error{Kind: MediaType}
	}
	if content.Stream != nil {
		return best.stream(content, o.required, accepted)
	}
	return best.check(content, accepted)
}

func bodyFault(pointer, keyword, text string) error {
	d := Detail{In: "body", Pointer: pointer, Keyword: keyword, Text: text}
	return &Error{Kind: InvalidBody, Details: []Detail{d}}
}

func (b *body) check(content Content, accepted *Accepted) (err error) {
	switch b.kind {
	case deniedBody:
		return &Error{Kind: MediaType}
	case jsonBody:
		if !isJSON(content.Essence) { // in a range
			return &Error{Kind: MediaType}
		}
		accepted.Body, err = b.schema.Validate(content.Body)
	case textBody:
		if !utf8.Valid(content.Body) {
			return bodyFault("", "type", "is not text")
		}
		_, err = b.schema.Validate(quote(nil, string(content.Body)))
	case yamlBody:
		text, problem := yamlJSON(content.Body)
		if problem != "" {
			return bodyFault("", "syntax", problem)
		}
		_, err = b.schema.Validate(text)
	case formBody:
		return b.checkForm(content, accepted)
	case multipartBody:
		return b.checkMultipart(content, accepted)
	case opaqueBody:
		// A range may take JSON too, which is then passed on like anything else.
	}
	return err
}

// unbound says what generated code leaves out of a form.
func (b *body) unbound() (all []string) {
	if b.kind != formBody {
		return nil
	}
	for name, p := range b.schema.root.properties {
		if f := p.schema.format; f != nil && (f.name == "date" || f.name == "date-time") {
			all = append(all, fmt.Sprintf("form field %s: generated code does not bind format %s "+
				"in a form: it gets the zero value", name, f.name))
		}
	}
	slices.Sort(all)
	return all
}
