package schema

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/url"
	"slices"
)

// Stream prepares an operation whose handler reads the body while it arrives. It returns a fault
// for each media type that cannot be streamed.
func (o *Operation) Stream() (faults []error) {
	if len(o.bodies) == 0 {
		faults = append(faults, errors.New("there is no body to stream"))
	}
	for _, b := range o.bodies {
		switch b.kind {
		case opaqueBody:
		case multipartBody:
			if problem := b.prepareStream(); problem != "" {
				faults = append(faults, fmt.Errorf("a body of %s cannot be streamed: %s",
					b.media.essence, problem))
			}
		default:
			faults = append(faults, fmt.Errorf("a body of %s cannot be streamed: expected "+
				"application/octet-stream, another type that is not decoded, or "+
				"multipart/form-data",
				b.media.essence))
		}
	}
	return faults
}

// prepareStream makes the schema of the fields before the files of a form. It does not require
// files, or anything else that only the whole form can satisfy.
func (b *body) prepareStream() (problem string) {
	root := b.schema.root
	if root.composed || root.patternProperties != nil || root.propertyNames != nil ||
		root.dependentRequired != nil || root.unevaluated != nil || root.values != nil {
		return "its schema must be a plain object, so that its fields can be validated before " +
			"its files arrive: expected properties, required and additionalProperties alone"
	}
	n := *root
	n.minProps, n.required, n.properties, n.mentioned = 0, nil, properties{}, properties{}
	files := false
	for _, name := range slices.Sorted(maps.Keys(root.properties.all)) {
		p := root.properties.all[name]
		if b.shape.members[name].isFile() {
			files = true
			optional := *p
			optional.required = false
			p = &optional
		} else if p.required {
			n.required = append(n.required, name)
		}
		n.properties.add(p)
	}
	if !files {
		return "none of its properties is a file: expected one of format: binary"
	}
	b.fields = &Schema{root: &n, options: b.schema.options}
	return ""
}

// isFile reports whether a field is a file, or a list of them.
func (s *shape) isFile() bool {
	return s != nil && (s.file || s.is(kindArray) && s.items != nil && s.items.file)
}

// stream starts reading a body for a handler.
func (b *body) stream(content Content, required bool, accepted *Accepted) error {
	if b.kind == opaqueBody {
		accepted.Stream = &opaque{Reader: content.Stream, required: required}
		return nil
	}
	accepted.Form, accepted.Rewritten = url.Values{}, true
	boundary := content.Params["boundary"]
	if boundary == "" {
		return bodyFault("", "syntax", "has no boundary")
	}
	source := &partReader{Reader: content.Stream}
	u := &upload{
		body: b, source: source, parts: multipart.NewReader(source, boundary),
		boundary: boundary, fields: newFields(b),
	}
	u.fields.spent = accepted.spent
	accepted.Stream = u
	return u.begin(content.MaxFields)
}

// opaque is a body that is passed on unchanged.
type opaque struct {
	io.Reader
	required bool
}

func (o *opaque) Read(p []byte) (int, error) {
	n, err := o.Reader.Read(p)
	if n > 0 {
		o.required = false
	}
	if err == io.EOF && o.required {
		return 0, bodyFault("", "required", "is missing")
	}
	return n, err
}

// partReader is a reader that records its last error, which package multipart wraps without access
// to it. It also bounds the headers of parts, because multipart keeps up to 10 MiB of each in
// memory.
type partReader struct {
	io.Reader
	err      error
	inHeader bool
	left     int // of a header
}

// maxPartHeader bounds the header of a part, including data that is read ahead.
const maxPartHeader = 64 << 10

func (r *partReader) Read(p []byte) (n int, err error) {
	if r.inHeader {
		if p = p[:min(len(p), r.left)]; len(p) == 0 {
			r.err = malformedMultipart()
			return 0, r.err
		}
	}
	n, err = r.Reader.Read(p)
	r.left -= n
	r.err = err
	return n, err
}

// upload is a multipart form that is validated while its handler reads it. It is encoded again, so
// that the handler's own reader finds the same parts. The fields come first, and have been
// validated; the files are not buffered.
//
// A delimiter is written only after the next part has been checked: when a handler reaches the end
// of a file, everything before the next part is valid, and after the last file the whole form.
type upload struct {
	body     *body
	source   *partReader
	parts    *multipart.Reader
	boundary string
	fields   *fields
	count    int // of the parts

	begun bool            // a delimiter has been written
	text  bytes.Buffer    // written, but not read yet
	file  *multipart.Part // its data follows text
	err   error           // follows text if file is nil
}

// begin reads the fields, and the header of the first file, if any.
func (u *upload) begin(maxFields int64) error {
	for {
		raw, err := u.nextPart()
		if err == io.EOF {
			return u.end()
		}
		p, err := u.part(raw, err)
		if err != nil {
			return err
		}
		if p.file {
			if err := u.fields.check(u.body.fields); err != nil {
				return err
			}
			return u.open(raw, p)
		}
		u.writeHeader(raw)
		left := maxFields - int64(u.text.Len())
		n, err := io.Copy(&u.text, io.LimitReader(raw, max(left, 0)+1))
		if err != nil {
			return u.malformed()
		}
		if n > left {
			return &Error{Kind: TooLarge}
		}
		data := u.text.Bytes()[u.text.Len()-int(n):]
		if err := u.fields.add(p, slices.Clone(data)); err != nil {
			return err
		}
	}
}

// nextPart reads up to the data of the next part.
func (u *upload) nextPart() (*multipart.Part, error) {
	u.source.inHeader, u.source.left = true, maxPartHeader
	defer func() { u.source.inHeader = false }()
	return u.parts.NextRawPart()
}

// part reads the header of the next part.
func (u *upload) part(raw *multipart.Part, err error) (part, error) {
	if u.count++; err != nil || u.count > maxParts {
		return part{}, u.malformed()
	}
	return u.fields.part(raw)
}

// malformed returns the error for a body that cannot be read further.
func (u *upload) malformed() error {
	if u.source.err != nil && u.source.err != io.EOF {
		return u.source.err
	}
	return malformedMultipart()
}

// open starts passing on a file.
func (u *upload) open(raw *multipart.Part, p part) error {
	switch {
	case !p.file:
		return bodyFault(p.pointer, "order", "is a field that follows a file: fields come first")
	case p.single && p.path == nil && len(p.field.tree.texts) > 0:
		return bodyFault(p.pointer, "type", "occurs more than once")
	case u.body.shape.closed && u.body.shape.members[p.field.name] == nil:
		return bodyFault(p.pointer, "additionalProperties",
			"is not declared in the schema")
	}
	if err := u.fields.add(p, nil); err != nil {
		return err
	}
	u.writeHeader(raw)
	u.file = raw
	return nil
}

// next continues after a file.
func (u *upload) next() error {
	u.file = nil
	raw, err := u.nextPart()
	if err == io.EOF {
		return u.end()
	}
	p, err := u.part(raw, err)
	if err != nil {
		return err
	}
	return u.open(raw, p)
}

// end validates the whole form after its last part.
func (u *upload) end() error {
	_, err := io.Copy(io.Discard, u.source) // the epilogue (RFC 2046 §5.1.1)
	if err = cmp.Or(u.source.err, err); err != nil && err != io.EOF {
		return err
	}
	if err := u.fields.check(u.body.schema); err != nil {
		return err
	}
	u.writeDelimiter()
	u.text.WriteString("--\r\n")
	u.err = io.EOF
	return nil
}

func (u *upload) writeDelimiter() {
	if u.begun {
		u.text.WriteString("\r\n")
	}
	u.begun = true
	u.text.WriteString("--" + u.boundary)
}

func (u *upload) writeHeader(raw *multipart.Part) {
	u.writeDelimiter()
	u.text.WriteString("\r\n")
	for _, name := range slices.Sorted(maps.Keys(raw.Header)) {
		for _, value := range raw.Header[name] {
			u.text.WriteString(name + ": " + value + "\r\n")
		}
	}
	u.text.WriteString("\r\n")
}

// Read implements [io.Reader].
func (u *upload) Read(p []byte) (int, error) {
	for {
		switch {
		case u.text.Len() > 0:
			return u.text.Read(p)
		case u.file == nil:
			return 0, u.err
		}
		n, err := u.file.Read(p)
		switch {
		case err == io.EOF:
			if err := u.next(); err != nil {
				u.file, u.err = nil, err
			}
		case err != nil:
			u.file, u.err = nil, u.malformed()
		}
		if n > 0 {
			return n, nil
		}
	}
}
