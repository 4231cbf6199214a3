package schema

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// InvalidResponse is the kind of errors about responses.
const InvalidResponse Kind = "response"

// Responses validates the responses of an operation. The key is a status, a range of
// statuses, or "default". It is safe for concurrent use.
type Responses map[string]*Operation

// Responses compiles the responses of an operation. Options.Responses of the compiler must be set.
func (c *Compiler) Responses(spec *openapi3.Operation) (all Responses, faults []error) {
	all = Responses{}
	for status, ref := range spec.Responses.Map() {
		if ref == nil || ref.Value == nil {
			continue
		}
		o := &Operation{required: len(ref.Value.Content) > 0}
		for _, name := range slices.Sorted(maps.Keys(ref.Value.Headers)) {
			header := ref.Value.Headers[name]
			// OpenAPI 3.1 §4.8.17: content describes Content-Type.
			if header == nil || header.Value == nil ||
				http.CanonicalHeaderKey(name) == "Content-Type" {
				continue
			}
			spec := header.Value.Parameter
			spec.In, spec.Name = openapi3.ParameterInHeader, name
			p, err := c.parameter(&spec)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			p.missing = nil // the reader of the header applies its default
			o.header = append(o.header, p)
		}
		for _, name := range slices.Sorted(maps.Keys(ref.Value.Content)) {
			b, err := c.body(name, ref.Value.Content[name])
			if err != nil {
				faults = append(faults, err)
				continue
			}
			o.bodies = append(o.bodies, b)
		}
		all[status] = o
	}
	return all, faults
}

// Check validates a response. bodiless means that it has no body regardless of the document, as a
// response to HEAD, or with a status that has none (RFC 9110 §6.4.1). Errors are of type [*Error].
func (all Responses) Check(status int, h http.Header, bodiless bool, content Content) error {
	code := strconv.Itoa(status)
	o := all[code]
	for _, key := range []string{code[:1] + "XX", "default"} {
		if o == nil {
			o = all[key]
		}
	}
	if o == nil {
		return responseFault("responses", "has a status that the document does not describe")
	}
	var f faults
	o.checkHeaders(&http.Request{Header: combined(h)}, &reader{}, &Accepted{}, &f)
	switch {
	case bodiless:
	case len(o.bodies) == 0 && len(content.Body) > 0:
		f.add(responseFault("content", "has a body that the document does not describe"))
	default:
		f.add(o.checkBody(content, &Accepted{}))
	}
	switch {
	case f.err == nil:
		return nil
	case f.err.Kind == MediaType:
		return responseFault("content", "has a Content-Type that the document does not describe")
	}
	return f.err
}

// combined returns the headers with one value each, as a recipient may combine them (RFC 9110
// §5.3). A server adds values that it does not know of, such as a second challenge.
func combined(h http.Header) http.Header {
	all := make(http.Header, len(h))
	for name, values := range h {
		all[name] = []string{strings.Join(values, ", ")}
	}
	return all
}

func responseFault(keyword, text string) error {
	d := Detail{In: "response", Keyword: keyword, Text: text}
	return &Error{Kind: InvalidResponse, Details: []Detail{d}}
}
