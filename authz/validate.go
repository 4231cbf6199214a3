package authz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// inputs is what an operation takes, and so what it refuses: what the document does not declare.
type inputs struct {
	path     []string                    // names of path parameters
	query    map[string]bool             // query parameters; true: may occur more than once
	deep     map[string]*openapi3.Schema // query parameters of style deepObject: filter[state]
	anyQuery bool                        // an object spread over the query, whose members the document leaves open
	headers  []string
	cookies  []string
	body     bool
	forms    map[string]fields // of a body that is a form, by media type
}

func compileInputs(item *openapi3.PathItem, spec *openapi3.Operation) inputs {
	in := inputs{query: map[string]bool{}, deep: map[string]*openapi3.Schema{}, body: spec.RequestBody != nil}
	if in.body && spec.RequestBody.Value != nil {
		in.forms = readForms(spec.RequestBody.Value.Content)
	}
	for _, p := range parameters(item, spec) {
		switch p.In {
		case openapi3.ParameterInPath:
			in.path = append(in.path, p.Name)
		case openapi3.ParameterInHeader:
			in.headers = append(in.headers, http.CanonicalHeaderKey(p.Name))
		case openapi3.ParameterInCookie:
			in.cookies = append(in.cookies, p.Name)
		case openapi3.ParameterInQuery:
			in.addQuery(p)
		}
	}
	return in
}

// parameters returns those of the operation and those of its path item that it does not override (OpenAPI 3.1 §4.8.10).
func parameters(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.Parameter) {
	for _, list := range []openapi3.Parameters{item.Parameters, spec.Parameters} { // the validator's order
		for _, ref := range list {
			if ref == nil || ref.Value == nil {
				continue // doc.Validate has said so
			}
			p := ref.Value
			same := func(other *openapi3.Parameter) bool { return other.In == p.In && other.Name == p.Name }
			all = append(slices.DeleteFunc(all, same), p)
		}
	}
	return all
}

// addQuery goes by what the validator decodes. It decodes a parameter as an object or an array only if the schema says
// so by its own type; what it would leave out, and so let through unseen, is not declared.
func (in *inputs) addQuery(p *openapi3.Parameter) {
	exploded := p.Style == "" || p.Style == openapi3.SerializationForm // the defaults (OpenAPI 3.1 §4.8.12.2)
	if p.Explode != nil {
		exploded = *p.Explode
	}
	schema := &openapi3.Schema{} // of a parameter with content: one text
	if p.Schema != nil && p.Schema.Value != nil {
		schema = p.Schema.Value
	}
	for range 16 { // and no further: it may contain itself
		if len(schema.AllOf) != 1 || schema.AllOf[0].Value == nil {
			break
		}
		schema = schema.AllOf[0].Value
	}
	switch {
	case p.Style == openapi3.SerializationDeepObject:
		in.deep[p.Name] = schema
	case exploded && schema.Type.Is("object"): // its members are query parameters of their own
		for name := range schema.Properties {
			in.query[name] = false
		}
		in.anyQuery = in.anyQuery || isOpen(schema)
	default:
		in.query[p.Name] = exploded && schema.Type.Is("array")
	}
}

// isOpen reports whether an object may have members that the document does not name, and says what they are.
func isOpen(schema *openapi3.Schema) bool {
	additional := schema.AdditionalProperties
	return additional.Schema != nil || additional.Has != nil && *additional.Has
}

// requestSchemas returns those of everything that an operation takes.
func requestSchemas(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.SchemaRef) {
	contents := []openapi3.Content{}
	for _, p := range parameters(item, spec) {
		all = append(all, p.Schema)
		contents = append(contents, p.Content)
	}
	if spec.RequestBody != nil && spec.RequestBody.Value != nil {
		contents = append(contents, spec.RequestBody.Value.Content)
	}
	for _, content := range contents {
		for _, media := range content {
			if media != nil {
				all = append(all, media.Schema)
			}
		}
	}
	return slices.DeleteFunc(all, func(s *openapi3.SchemaRef) bool { return s == nil || s.Value == nil })
}

// unenforceable reports why a schema of what an operation takes could not be enforced whole. On a schema that its JSON
// Schema compiler does not take, such as one with a pattern of another dialect, the validator falls back, without a
// word, on one that passes over const, patternProperties, if and other keywords of JSON Schema 2020-12.
func unenforceable(schema *openapi3.SchemaRef) error {
	// const refuses the value below unless it is passed over itself.
	probe := openapi3.Schema{Const: "one", Properties: openapi3.Schemas{"schema": {Value: schema.Value}}}
	err := probe.VisitJSON("another", openapi3.EnableJSONSchema2020())
	var refused *openapi3.SchemaError
	switch {
	case err == nil:
		return errors.New("a schema does not compile as JSON Schema 2020-12, so that its newer keywords would be passed over; is there a pattern with a lookahead, or with \\u where the character itself would do?")
	case !errors.As(err, &refused):
		return fmt.Errorf("a schema does not compile as JSON Schema 2020-12: %w", err)
	}
	return nil
}

// validate holds an admitted request to the document: what OpenAPI leaves open is checked here, the schemas by the
// validator. It returns the request as the handler shall see it, with its body read.
func (g *Gate) validate(r *http.Request, op *operation, param func(string) string) (*http.Request, error) {
	if err := op.inputs.checkQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if err := op.inputs.checkHeaders(r); err != nil {
		return nil, err
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
	// A copy, for the validator writes the document's default values into it: not into what others hold.
	r = r.WithContext(r.Context())
	if r.URL.RawQuery != "" || len(op.inputs.query)+len(op.inputs.deep) > 0 || op.inputs.anyQuery {
		at := *r.URL
		r.URL = &at
	}
	if op.inputs.headers != nil || op.inputs.cookies != nil {
		r.Header = r.Header.Clone()
	}
	if op.inputs.body {
		r.Body = io.NopCloser(bytes.NewReader(body))
		if r.ContentLength = int64(len(body)); len(body) == 0 {
			r.Body = http.NoBody
		}
	}
	way := op.way
	if op.quick != nil && numbersOf(body) == plainNumbers {
		way = op.quick
	}
	err = g.plan.hold(r.Context(), way, &openapi3filter.RequestValidationInput{
		Request:    r,
		PathParams: params,
		Route:      way.route,
		Options:    &validation,
	})
	if err != nil {
		return nil, g.plan.invalid(err)
	}
	return r, nil
}

// hold has the validator look at parameters and body, in its own order, and judges what it hands over.
func (p *Plan) hold(ctx context.Context, way *way, input *openapi3filter.RequestValidationInput) error {
	for _, parameter := range way.parameters {
		if err := p.judgeParameter(parameter, openapi3filter.ValidateParameter(ctx, input, parameter)); err != nil {
			return err
		}
	}
	if way.body == nil {
		return nil
	}
	if err := openapi3filter.ValidateRequestBody(ctx, input, way.body); err != nil {
		return err
	}
	return p.judgeBody(way.body, input)
}

// validation are the validator's options, which it only reads. KeepValidatedValue: generated code binds the value that was
// validated. encoding/json would bind "TEXT" to a member that the document calls "text", and that nobody has validated.
var validation = openapi3filter.Options{KeepValidatedValue: true}

// none reports whether there is nothing for the validator to look at.
func (in *inputs) none() bool {
	return !in.body && !in.anyQuery && in.path == nil && in.headers == nil && in.cookies == nil && len(in.query)+len(in.deep) == 0
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
		if len(list) > 1 && !in.query[name] {
			return refusal(InvalidParameter, "A query parameter occurs more than once.")
		}
		for i := strings.LastIndexByte(name, '['); i > 0; i = strings.LastIndexByte(name[:i], '[') {
			if values.Has(name[:i]) { // the validator panics on filter[a]=1&filter[a][b]=2
				return refusal(InvalidParameter, "A query parameter is sent as a value and as an object.")
			}
		}
		if !isText(name) || !isText(strings.Join(list, ",")) {
			return refusal(InvalidParameter, "The query has a name or a value that is not text.")
		}
	}
	return nil
}

// member is how a name of style deepObject goes on after the parameter's own. Validator and generated code each read
// anything else in a way of their own.
var member = regexp.MustCompile(`^\[([^\[\]]+)\](\[[^\[\]]+\])*$`)

func (in *inputs) declares(name string) bool {
	parameter, _, bracketed := strings.Cut(name, "[")
	if schema := in.deep[parameter]; bracketed && schema != nil {
		parts := member.FindStringSubmatch(name[len(parameter):])
		return parts != nil && schema.Type.Is("object") && (schema.Properties[parts[1]] != nil || isOpen(schema))
	}
	_, declared := in.query[name]
	return declared || in.anyQuery
}

// checkHeaders does the same for header and cookie parameters.
func (in *inputs) checkHeaders(r *http.Request) error {
	for _, name := range in.headers {
		if len(r.Header[name]) > 1 {
			return refusal(InvalidParameter, "The header %s occurs more than once.", name)
		}
		if !isText(r.Header.Get(name)) {
			return refusal(InvalidParameter, "The header %s is not text.", name)
		}
	}
	for _, name := range in.cookies {
		if len(r.CookiesNamed(name)) > 1 {
			return refusal(InvalidParameter, "The cookie %s occurs more than once.", name)
		}
	}
	return nil
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
		if params[name] == "" {
			return nil, &Error{Kind: NotFound} // no segment is another path
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
		if r.ContentLength < 0 { // not known (chunked): it may still be nothing
			if n, err := io.ReadFull(r.Body, make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
				return nil, nil
			}
		}
		return nil, refusal(InvalidBody, "This operation takes no body.")
	}
	for _, encoding := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(encoding, "identity") {
			return nil, refusal(UnsupportedMediaType, "Content-Encoding is not supported: send the body as it is.")
		}
	}
	media, params, err := mediaType(r.Header["Content-Type"])
	if err != nil {
		return nil, err
	}
	if r.ContentLength > g.maxBody {
		return nil, tooLarge(g.maxBody)
	}
	body, err := readAll(r.Body, r.ContentLength, g.maxBody)
	var over *http.MaxBytesError // ours, or that of a server with a lower limit
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(over.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Error{Kind: Other, status: http.StatusRequestTimeout, Err: err}
	case err != nil:
		return nil, &Error{Kind: InvalidBody, Detail: "The body could not be read to its end.", Err: err}
	}
	if len(body) > 0 {
		if err := op.inputs.checkBody(media, params, body); err != nil {
			return nil, &Error{Kind: InvalidBody, Detail: "The body " + err.Error() + ".", bodyRead: true}
		}
	}
	return body, nil
}

// readAll reads to the end. A length that is known is within the limit, and net/http sees to it that it is kept.
func readAll(body io.ReadCloser, length, limit int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(http.MaxBytesReader(nil, body, limit))
	}
	all := make([]byte, length)
	_, err := io.ReadFull(body, all)
	return all, err
}

func tooLarge(limit int64) error {
	return refusal(BodyTooLarge, "The body is larger than the %d bytes that are accepted.", limit)
}

// mediaType reads the one Content-Type that a body must have.
func mediaType(headers []string) (string, map[string]string, error) {
	if len(headers) != 1 {
		return "", nil, refusal(UnsupportedMediaType, "A body needs one Content-Type, there are %d.", len(headers))
	}
	if headers[0] == "application/json" {
		return headers[0], nil, nil
	}
	media, params, err := mime.ParseMediaType(headers[0])
	if err != nil {
		return "", nil, refusal(UnsupportedMediaType, "The Content-Type is malformed.")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", nil, refusal(UnsupportedMediaType, "The body's charset is not supported: send UTF-8.")
	}
	return media, params, nil
}

// invalid tells a client what the validator found, by names of the document alone: its own text holds schemas and
// submitted values.
func (p *Plan) invalid(err error) error {
	var e *openapi3filter.RequestError
	switch {
	case !errors.As(err, &e) || e.Parameter == nil && e.RequestBody == nil:
		return &Error{Kind: Internal, Err: fmt.Errorf("the validator returned a %T", err)}
	case e.Parameter != nil:
		return &Error{Kind: InvalidParameter, Detail: fmt.Sprintf("The %s parameter %s %s.", e.Parameter.In, e.Parameter.Name, p.wrong(e.Err)), bodyRead: true}
	case e.Err == nil:
		return &Error{Kind: UnsupportedMediaType, Detail: "This operation does not take a body of this Content-Type.", bodyRead: true}
	}
	return &Error{Kind: InvalidBody, Detail: fmt.Sprintf("The body %s.", p.wrong(e.Err)), bodyRead: true}
}

// wrong says which rule of the document was broken, and where.
func (p *Plan) wrong(err error) string {
	var keyword string
	var at []string
	var schema *openapi3.SchemaError
	var compiled *jsonschema.ValidationError
	switch {
	case errors.Is(err, openapi3filter.ErrInvalidRequired):
		return "is missing"
	case errors.As(err, &schema):
		keyword, at = schema.SchemaField, schema.JSONPointer()
	case errors.As(err, &compiled):
		keyword, at = broken(compiled)
	default:
		return "cannot be read as its schema says"
	}
	says := "does not match its schema"
	if keyword != "" {
		says += " (" + keyword + ")"
	}
	// A member that the document does not name is a submitted text.
	submitted := func(step string) bool { return !p.names[step] && !index.MatchString(step) }
	if len(at) > 0 && !slices.ContainsFunc(at, submitted) {
		says += " at /" + strings.Join(at, "/")
	}
	return says
}

// index is a place in an array.
var index = regexp.MustCompile(`^[0-9]{1,6}$`)
