package schema

import (
	"cmp"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
)

// Content is the body of a request, usually read completely. The caller has parsed its media type
// from the Content-Type.
type Content struct {
	Type    string // as it was sent
	Essence string // type/subtype, in lower case
	Params  map[string]string
	Body    []byte
	// Stream is the body if the handler reads it: see [Operation.Stream]. Body is then empty.
	Stream io.Reader
	// MaxFields bounds the size of a streamed form before its first file, in bytes.
	MaxFields int64
}

// body is a media type of a request body.
type body struct {
	media    media
	kind     bodyKind
	schema   *Schema
	shape    *shape
	encoding map[string]*encoding // of a form's fields
	fields   *Schema              // of a streamed form, before its files are known
	name     string               // of the media type, as the document writes it
	inline   bool                 // its schema is not a component
	// ambiguous means that generated code also matches the body to another media type, because it
	// compares prefixes of the Content-Type.
	ambiguous bool
}

type bodyKind uint8

const (
	jsonBody bodyKind = iota
	formBody
	multipartBody
	textBody
	yamlBody
	opaqueBody // passed on unchanged
	deniedBody // refused
)

// body compiles a media type. A media type without a decoder is passed on as bytes if the schema
// requires no more than that; otherwise it is a fault.
func (c *Compiler) body(name string, spec *openapi3.MediaType) (*body, error) {
	b := &body{media: mediaRange(name), name: name}
	ref := &openapi3.SchemaRef{Value: &openapi3.Schema{}}
	if spec != nil && spec.Schema != nil {
		ref = spec.Schema
	}
	b.inline = ref.Ref == ""
	n, err := c.schema(ref, "of the body")
	if err != nil {
		return nil, err
	}
	b.schema, b.shape = &Schema{root: n, options: c.options}, c.shapeOf(n)
	switch essence := b.media.essence; {
	case isJSON(essence):
		b.kind = jsonBody
		if b.inline {
			// the generated type has no methods, so it has no members other than the properties
			n.foldProperties()
		}
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
	case isJSONRange(essence): // only JSON can be enforced
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

// isPlain reports whether a schema contains only type: string.
func (b *body) isPlain() bool {
	n := b.schema.root
	return n.kinds == kindString && n.size == 1
}

func (b *body) readEncoding(name string, spec *openapi3.MediaType) error {
	if !b.shape.is(kindObject) && b.shape.kinds != anyKind {
		return fmt.Errorf("the schema of %s does not accept an object, but a body of this media "+
			"type is one", name)
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

// checkBody validates a body against the most specific media type.
func (o *Operation) checkBody(content Content, accepted *Accepted) error {
	// "" is a text
	if content.Stream == nil && len(content.Body) == 0 &&
		!strings.HasPrefix(content.Essence, "text/") {
		if o.required {
			return bodyFault("", "required", "is missing")
		}
		accepted.json = slices.ContainsFunc(
			o.bodies,
			func(b *body) bool { return b.kind == jsonBody },
		)
		return nil
	}
	if len(o.bodies) == 0 {
		return bodyFault("", "requestBody", "is sent, but the operation has no body")
	}
	b := o.bodyOf(content)
	if b == nil {
		return &Error{Kind: MediaType}
	}
	if len(o.bodies) > 1 && !strings.Contains(b.name, "*") &&
		!strings.HasPrefix(content.Type, b.name) {
		// Generated code distinguishes bodies by the prefix of the Content-Type.
		accepted.set("Content-Type", b.contentType(content))
	}
	if content.Stream != nil {
		return b.stream(content, o.required, accepted)
	}
	return b.check(content, accepted)
}

// contentType returns the Content-Type of a body as the document spells it.
func (b *body) contentType(content Content) string {
	if boundary, found := content.Params["boundary"]; found {
		return cmp.Or(
			mime.FormatMediaType(b.name, map[string]string{"boundary": boundary}),
			content.Type,
		)
	}
	return b.name
}

// bodyOf returns the most specific body for a media type, or nil if there is none.
func (o *Operation) bodyOf(content Content) (best *body) {
	most := 0
	for _, b := range o.bodies {
		if n := b.media.matches(content.Essence, content.Params); n > most {
			best, most = b, n
		}
	}
	return best
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
		accepted.Body, err = accepted.validate(b.schema, content.Body)
		accepted.json = !b.ambiguous
	case textBody:
		if !utf8.Valid(content.Body) {
			return bodyFault("", "type", "is not text")
		}
		_, err = accepted.validate(b.schema, quote(nil, string(content.Body)))
	case yamlBody:
		text, problem := yamlJSON(content.Body)
		if problem != "" {
			return bodyFault("", "syntax", problem)
		}
		_, err = accepted.validate(b.schema, text)
	case formBody:
		return b.checkForm(content, accepted)
	case multipartBody:
		return b.checkMultipart(content, accepted)
	case opaqueBody:
		// A range may include JSON, which is then passed on like any other body.
	}
	return err
}

// unbound lists the parts of a body that generated code does not bind.
func (b *body) unbound() (all []string) {
	if b.kind == jsonBody && b.inline {
		root := b.schema.root
		if root.oneOf != nil || root.anyOf != nil {
			all = append(
				all,
				"body: generated code does not bind a oneOf or anyOf that is not a "+
					"component: move it to components/schemas",
			)
		}
		if root.additional != nil && !root.additional.never && root.properties.all != nil {
			all = append(
				all,
				"body: generated code does not bind additional properties of a schema that "+
					"is not a component: move it to components/schemas",
			)
		}
	}
	if b.kind != formBody {
		return all
	}
	effects := map[string]string{
		"date": "it gets the zero value", "date-time": "it gets the zero value",
		"byte": "it answers 500",
	}
	b.schema.root.formats("", map[*node]bool{}, func(field, format string) {
		effect := effects[format]
		if list := strings.HasSuffix(field, "[]"); effect != "" && (!list || format == "byte") {
			all = append(all, fmt.Sprintf(
				"form field %s: generated code does not bind format %s in a form: %s",
				field,
				format,
				effect,
			))
		}
	})
	slices.Sort(all)
	return all
}

// formats adds the formats of members and elements, by their names in a form.
func (n *node) formats(within string, seen map[*node]bool, report func(field, format string)) {
	if n == nil || seen[n] {
		return
	}
	seen[n] = true
	if n.items != nil {
		if f := n.items.format; f != nil {
			report(within+"[]", f.name)
		}
		n.items.formats(within+"[]", seen, report)
	}
	for name, p := range n.properties.all {
		field := name
		if within != "" {
			field = within + "[" + name + "]"
		}
		if f := p.schema.format; f != nil {
			report(field, f.name)
		}
		p.schema.formats(field, seen, report)
	}
	for _, part := range parts(n) {
		part.formats(within, seen, report)
	}
}
