package authz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/go-json-experiment/json/jsontext"
)

// inputs is what an operation takes, and so what it refuses: what the document does not declare.
type inputs struct {
	path     []string // names of path parameters
	query    map[string]bool
	prefixes []string // of query names such as filter[state], by style deepObject
	anyQuery bool     // an object spread over the query, whose members the document leaves open
	single   []string // query parameters that may occur once
	headers  []string // header parameters, which may occur once
	body     bool
}

func compileInputs(item *openapi3.PathItem, spec *openapi3.Operation) inputs {
	in := inputs{query: map[string]bool{}, body: spec.RequestBody != nil}
	for _, ref := range slices.Concat(item.Parameters, spec.Parameters) {
		p := ref.Value
		if p == nil {
			continue // a broken reference: doc.Validate has said so
		}
		switch p.In {
		case openapi3.ParameterInPath:
			in.path = append(in.path, p.Name)
		case openapi3.ParameterInHeader:
			in.headers = append(in.headers, http.CanonicalHeaderKey(p.Name))
		case openapi3.ParameterInQuery:
			in.addQuery(p)
		}
	}
	return in
}

func (in *inputs) addQuery(p *openapi3.Parameter) {
	exploded := p.Style == "" || p.Style == openapi3.SerializationForm // the defaults (OpenAPI 3.1 §4.8.12.2)
	if p.Explode != nil {
		exploded = *p.Explode
	}
	var schema *openapi3.Schema
	if p.Schema != nil {
		schema = p.Schema.Value
	}
	switch {
	case schema != nil && p.Style == openapi3.SerializationDeepObject:
		in.prefixes = append(in.prefixes, p.Name+"[")
	case schema != nil && mayBe(schema, "object") && exploded:
		in.anyQuery = true // its members are query parameters of their own; the schema judges them
	case schema != nil && mayBe(schema, "array") && exploded:
		in.query[p.Name] = true
	default:
		in.query[p.Name] = true
		in.single = append(in.single, p.Name)
	}
}

// mayBe reports whether a schema lets a value be of a type, by itself or by what it is composed of.
func mayBe(schema *openapi3.Schema, kind string) bool {
	if schema.Type != nil {
		return schema.Type.Includes(kind)
	}
	for _, ref := range slices.Concat(schema.AllOf, schema.AnyOf, schema.OneOf) {
		if ref.Value != nil && mayBe(ref.Value, kind) {
			return true
		}
	}
	return kind == "object" && len(schema.Properties) > 0 || kind == "array" && schema.Items != nil
}

// validate holds an admitted request to the document: what OpenAPI leaves open is checked here, the schemas by the
// validator. It returns the request with its body read.
func (g *Gate) validate(r *http.Request, op *operation, param func(string) string) (*http.Request, error) {
	if err := op.inputs.checkQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	for _, name := range op.inputs.headers {
		if len(r.Header[name]) > 1 {
			return nil, refusal(InvalidParameter, "The header %s occurs more than once.", name)
		}
	}
	params, err := op.inputs.pathParams(param)
	if err != nil {
		return nil, err
	}
	body, err := g.readBody(r, op)
	if err != nil {
		return nil, err
	}
	if op.inputs.none() {
		return r, nil
	}
	// The validator writes the document's default values into the request: not into the one that others hold.
	r = r.WithContext(r.Context())
	at := *r.URL
	r.URL = &at
	if op.inputs.body {
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		if r.ContentLength = int64(len(body)); len(body) == 0 {
			r.Body = http.NoBody
		}
	}
	err = openapi3filter.ValidateRequest(r.Context(), &openapi3filter.RequestValidationInput{
		Request:    r,
		PathParams: params,
		Route:      op.schemas,
		// KeepValidatedValue: generated code binds the value that was validated. encoding/json would bind
		// "TEXT" to a member that the document calls "text", and that nobody has validated.
		Options: &openapi3filter.Options{KeepValidatedValue: true},
	})
	if err != nil {
		return nil, invalid(err)
	}
	return r, nil
}

// none reports whether there is nothing for the validator to look at.
func (in *inputs) none() bool {
	return !in.body && !in.anyQuery && in.path == nil && in.headers == nil && in.prefixes == nil && len(in.query) == 0
}

// checkQuery refuses what the validator reads past: a malformed query, a parameter that is not declared, a second
// value where one is expected (which one counts is for nobody to guess).
func (in *inputs) checkQuery(raw string) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return refusal(InvalidParameter, "The query is malformed.")
	}
	for name, list := range values {
		if !in.declares(name) {
			return refusal(InvalidParameter, "The query has a parameter that this operation does not declare.")
		}
		for _, value := range list {
			if !isText(value) {
				return refusal(InvalidParameter, "The query has a value that is not text.")
			}
		}
	}
	for _, name := range in.single {
		if len(values[name]) > 1 {
			return refusal(InvalidParameter, "The query parameter %s occurs more than once.", name)
		}
	}
	return nil
}

func (in *inputs) declares(name string) bool {
	return in.anyQuery || in.query[name] || slices.ContainsFunc(in.prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// isText: valid UTF-8 without NUL, which no schema of a string means and no database takes.
func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func (in *inputs) pathParams(param func(string) string) (map[string]string, error) {
	if in.path == nil {
		return nil, nil
	}
	params := make(map[string]string, len(in.path))
	for _, name := range in.path {
		if param != nil {
			params[name] = param(name)
		}
		if !isText(params[name]) {
			return nil, refusal(InvalidParameter, "The path parameter %s is not text.", name)
		}
	}
	return params, nil
}

// readBody reads the body of a request, if its operation takes one, and refuses every other.
func (g *Gate) readBody(r *http.Request, op *operation) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil, nil
	}
	if !op.inputs.body {
		// A length that is not known (chunked) may still be nothing.
		if n, err := io.ReadFull(r.Body, make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, refusal(InvalidBody, "This operation takes no body.")
	}
	for _, encoding := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(encoding, "identity") {
			return nil, refusal(UnsupportedMediaType, "Content-Encoding is not supported: send the body as it is.")
		}
	}
	media, err := mediaType(r.Header["Content-Type"])
	if err != nil {
		return nil, err
	}
	if r.ContentLength > g.maxBody {
		return nil, g.tooLarge()
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, g.maxBody+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Error{Kind: Other, status: http.StatusRequestTimeout, Err: err}
	case err != nil:
		return nil, &Error{Kind: InvalidBody, Detail: "The body could not be read to its end.", Err: err}
	case int64(len(body)) > g.maxBody:
		return nil, g.tooLarge()
	}
	if len(body) > 0 && (media == "application/json" || strings.HasSuffix(media, "+json")) && !jsontext.Value(body).IsValid() {
		// Stricter than the validator: no duplicate names, valid UTF-8, nothing after the value (RFC 7493).
		return nil, &Error{Kind: InvalidBody, Detail: "The body is not one JSON value in UTF-8 with unique member names.", bodyRead: true}
	}
	return body, nil
}

func (g *Gate) tooLarge() error {
	return refusal(BodyTooLarge, "The body is larger than the %d bytes that are accepted.", g.maxBody)
}

// mediaType reads the one Content-Type that a body must have.
func mediaType(headers []string) (string, error) {
	if len(headers) != 1 {
		return "", refusal(UnsupportedMediaType, "A body needs one Content-Type, there are %d.", len(headers))
	}
	media, params, _ := strings.Cut(headers[0], ";")
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(name, "charset") && !strings.EqualFold(strings.Trim(value, `"`), "utf-8") {
			return "", refusal(UnsupportedMediaType, "The body's charset is not supported: send UTF-8.")
		}
	}
	return strings.ToLower(strings.TrimSpace(media)), nil
}

// invalid tells a client what the validator found, by names of the document alone: its own text holds schemas and
// submitted values.
func invalid(err error) error {
	var e *openapi3filter.RequestError
	switch {
	case !errors.As(err, &e) || e.Parameter == nil && e.RequestBody == nil:
		return &Error{Kind: Internal, Err: fmt.Errorf("the validator returned a %T", err)}
	case e.Parameter != nil:
		return &Error{Kind: InvalidParameter, Detail: fmt.Sprintf("The %s parameter %s %s.", e.Parameter.In, e.Parameter.Name, wrong(e.Err)), bodyRead: true}
	case e.Err == nil:
		return &Error{Kind: UnsupportedMediaType, Detail: "This operation does not take a body of this Content-Type.", bodyRead: true}
	}
	return &Error{Kind: InvalidBody, Detail: fmt.Sprintf("The body %s.", wrong(e.Err)), bodyRead: true}
}

// wrong says which rule of the document was broken, and where.
func wrong(err error) string {
	var schema *openapi3.SchemaError
	switch {
	case errors.Is(err, openapi3filter.ErrInvalidRequired):
		return "is missing"
	case !errors.As(err, &schema):
		return "cannot be read as its schema says"
	}
	says := "does not match its schema"
	if schema.SchemaField != "" {
		says += " (" + schema.SchemaField + ")"
	}
	if at := "/" + strings.Join(schema.JSONPointer(), "/"); plainPointer.MatchString(at) {
		says += " at " + at
	}
	return says
}

// plainPointer: a place in a body that can be told without giving a submitted text back.
var plainPointer = regexp.MustCompile(`^(/[A-Za-z0-9_-]{1,40}){1,10}$`)
