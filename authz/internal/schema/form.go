package schema

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
)

// The validator decodes a body leniently, and what it passes over a handler may well read. So what it is given is
// first seen to be what it takes it for. The errors say what the body
// is or has, for clients, and nothing of what was sent.

var (
	errJSON    = errors.New("is not one JSON value in UTF-8 with unique member names")
	errNumbers = errors.New("has a number of more digits, or of a larger exponent, than are read")
	errField   = errors.New("has a field that this operation does not declare")
	errTwice   = errors.New("has a field more than once")
	errText    = errors.New("has a field that is not text")
	errForm    = errors.New("is not a well-formed form")
	errPart    = errors.New("has a part of a Content-Type that is not its field's")
)

// checkBody holds a body to its media type, and a form to the fields that the document declares.
func (in *inputs) checkBody(media string, params map[string]string, body []byte) error {
	switch {
	case isJSON(media):
		return checkJSON(body)
	case media == urlencoded:
		return checkForm(in.forms[media], body)
	case media == multiparted:
		return checkMultipart(in.forms[media], params["boundary"], body)
	}
	return nil
}

// checkJSON is stricter than the validator: no duplicate names, valid UTF-8, nothing after the value (RFC 7493).
func checkJSON(text []byte) error {
	if !jsontext.Value(text).IsValid() {
		return errJSON
	}
	if numbersOf(text) == hugeNumbers {
		return errNumbers
	}
	return nil
}

// fields are what a form may have.
type fields struct {
	declared map[string]*openapi3.Schema
	open     bool // and more, which the document does not name
}

// The media types of forms.
const (
	urlencoded  = "application/x-www-form-urlencoded"
	multiparted = "multipart/form-data"
)

// readForms returns the fields of a body by its media type; one that is not declared is for the validator to refuse.
func readForms(declared openapi3.Content) map[string]fields {
	forms := map[string]fields{}
	for _, media := range []string{urlencoded, multiparted} {
		f := fields{declared: map[string]*openapi3.Schema{}}
		if content := declared.Get(media); content != nil && content.Schema != nil {
			f.add(content.Schema.Value, 16)
		} else {
			f.open = true
		}
		forms[media] = f
	}
	return forms
}

// add goes no deeper than depth: a schema may contain itself.
func (f *fields) add(schema *openapi3.Schema, depth int) {
	if schema == nil || depth == 0 {
		return
	}
	for name, property := range schema.Properties {
		if property != nil { // a broken reference: doc.Validate has said so
			f.declared[name] = property.Value
		}
	}
	f.open = f.open || isOpen(schema)
	for _, parts := range []openapi3.SchemaRefs{schema.AllOf, schema.AnyOf, schema.OneOf} {
		for _, part := range parts {
			if part != nil {
				f.add(part.Value, depth-1)
			}
		}
	}
}

// check judges a field by its name and by how often it occurs.
func (f fields) check(name string, times int) error {
	schema, declared := f.declared[name]
	switch {
	// Generated code reads l[0] as an element of l, of which the validator knows nothing.
	case !declared && (!f.open || strings.ContainsAny(name, "[]")):
		return errField
	case times > 1 && (schema == nil || !schema.Type.Includes("array")):
		return errTwice
	}
	return nil
}

func checkForm(f fields, body []byte) error {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return errForm
	}
	for name, list := range values {
		if err := f.check(name, len(list)); err != nil {
			return err
		}
		if !isText(name) || !isText(strings.Join(list, "")) {
			return errText
		}
	}
	return nil
}

// checkMultipart also keeps the client from choosing how a part is decoded: the schema says what it is.
func checkMultipart(f fields, boundary string, body []byte) error {
	if boundary == "" {
		return errForm
	}
	times := map[string]int{}
	reader := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, err := reader.NextRawPart() // with its Content-Transfer-Encoding, which RFC 7578 §4.7 does without
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || part.Header.Get("Content-Transfer-Encoding") != "" {
			return errForm
		}
		name := part.FormName()
		times[name]++
		if err := f.check(name, times[name]); err != nil {
			return err
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return errForm
		}
		if err := checkPart(f.declared[name], part.Header["Content-Type"], text); err != nil {
			return err
		}
	}
}

func checkPart(schema *openapi3.Schema, contentType []string, text []byte) error {
	structured := schema != nil && (schema.Type.Is("object") || schema.Type.Is("array") && schema.Items != nil && schema.Items.Value.Type.Is("object"))
	if len(contentType) == 0 && !structured {
		return nil
	}
	media, _, err := ParseMediaType(contentType)
	switch {
	case err != nil:
		return errPart
	case isJSON(media):
		return checkJSON(text)
	case structured || strings.Contains(media, "yaml") || strings.Contains(media, "csv") || strings.HasPrefix(media, "multipart/") || strings.HasSuffix(media, "zip"):
		return errPart // the validator would decode these, each in its own lenient way
	}
	return nil
}

// ParseMediaType reads the one Content-Type that a body must have.
func ParseMediaType(headers []string) (string, map[string]string, error) {
	if len(headers) != 1 {
		return "", nil, refusal(WrongMediaType, "A body needs one Content-Type, there are %d.", len(headers))
	}
	if headers[0] == "application/json" {
		return headers[0], nil, nil
	}
	media, params, err := mime.ParseMediaType(headers[0])
	if err != nil {
		return "", nil, refusal(WrongMediaType, "The Content-Type is malformed.")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", nil, refusal(WrongMediaType, "The body's charset is not supported: send UTF-8.")
	}
	return media, params, nil
}
