// Package schema holds the parameters and the body of requests to the schemas of an OpenAPI document.
//
// A [Compiler] compiles each operation once, at start; [Operation.Validate] then holds a request to
// it.
package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Compiler compiles the operations of one document.
type Compiler struct {
	doc         *openapi3.T
	relabelled  *openapi3.T                             // as one of 3.0; see plain.go
	compiled    map[*openapi3.Schema]*jsonschema.Schema // by what stands in for it; see compiled.go
	composition composition                             // of schemas
	names       map[string]bool                         // of members, in any schema: what a problem may say of a body
	known       judgements
}

// NewCompiler returns a compiler for a document whose references are resolved.
func NewCompiler(doc *openapi3.T) *Compiler {
	c := &Compiler{
		doc: doc, relabelled: relabelled(doc), compiled: map[*openapi3.Schema]*jsonschema.Schema{},
		composition: readComposition(doc), names: map[string]bool{}, known: judgements{},
	}
	_ = doc.WalkSchemas(func(_ string, schema *openapi3.SchemaRef) error {
		for name := range schema.Value.Properties {
			c.names[name] = true
		}
		return nil
	})
	return c
}

// Operation is what one operation takes, compiled.
type Operation struct {
	*Compiler
	way    *way
	quick  *way   // the same, for a body without long numbers; nil: there is no quicker one
	inputs inputs // what parameters and body the operation takes
}

// Operation compiles the operation of a route. It returns an error for each of its schemas that
// cannot be enforced.
func (c *Compiler) Operation(route *routers.Route) (*Operation, []error) {
	o := &Operation{Compiler: c, inputs: compileInputs(route.PathItem, route.Operation)}
	return o, o.compile(route)
}

// TakesBody reports whether the document declares a body.
func (o *Operation) TakesBody() bool { return o.inputs.body }

// Body is the body of a request.
type Body struct {
	Media  string            // its media type, without parameters
	Params map[string]string // the parameters of the media type
	Bytes  []byte            // empty: there is none
}

// Validate holds a request to the operation: what OpenAPI leaves open is checked here, the schemas by
// the validator. param returns the unescaped value of a path parameter; read reads the body, after the parameters are known
// to be declared. Validate returns the request as the handler shall see it, with its body read, and otherwise an [*Error], or
// the error of read.
func (o *Operation) Validate(r *http.Request, param func(string) string, read func() (Body, error)) (*http.Request, error) {
	if err := o.inputs.checkQuery(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if err := o.inputs.checkHeaders(r); err != nil {
		return nil, err
	}
	params, err := o.inputs.pathParams(param)
	if err != nil {
		return nil, err
	}
	body, err := read()
	if err != nil {
		return nil, err
	}
	if len(body.Bytes) > 0 {
		if err := o.inputs.checkBody(body.Media, body.Params, body.Bytes); err != nil {
			return nil, &Error{Kind: InvalidBody, Detail: "The body " + err.Error() + ".", BodyRead: true}
		}
	}
	if o.inputs.none() {
		return r, nil
	}
	// A copy, for the validator writes the document's default values into it: not into what others hold.
	r = r.WithContext(r.Context())
	if r.URL.RawQuery != "" || len(o.inputs.query)+len(o.inputs.deep) > 0 || o.inputs.anyQuery {
		at := *r.URL
		r.URL = &at
	}
	if o.inputs.headers != nil || o.inputs.cookies != nil {
		r.Header = r.Header.Clone()
	}
	if o.inputs.body {
		r.Body = io.NopCloser(bytes.NewReader(body.Bytes))
		if r.ContentLength = int64(len(body.Bytes)); len(body.Bytes) == 0 {
			r.Body = http.NoBody
		}
	}
	way := o.way
	if o.quick != nil && numbersOf(body.Bytes) == plainNumbers {
		way = o.quick
	}
	err = o.hold(r.Context(), way, &openapi3filter.RequestValidationInput{
		Request:    r,
		PathParams: params,
		Route:      way.route,
		Options:    &validation,
	})
	if err != nil {
		return nil, o.invalid(err)
	}
	return r, nil
}

// hold has the validator look at parameters and body, in its own order, and judges what it hands over.
func (c *Compiler) hold(ctx context.Context, way *way, input *openapi3filter.RequestValidationInput) error {
	for _, parameter := range way.parameters {
		if err := c.judgeParameter(parameter, openapi3filter.ValidateParameter(ctx, input, parameter)); err != nil {
			return err
		}
	}
	if way.body == nil {
		return nil
	}
	if err := openapi3filter.ValidateRequestBody(ctx, input, way.body); err != nil {
		return err
	}
	return c.judgeBody(way.body, input)
}

// validation are the validator's options, which it only reads. KeepValidatedValue: generated code binds the value that was
// validated. encoding/json would bind "TEXT" to a member that the document calls "text", and that nobody has validated.
var validation = openapi3filter.Options{KeepValidatedValue: true}

// Kind says what of a request is wrong.
type Kind int

// The kinds of errors.
const (
	Internal       Kind = iota // not the request: the validator failed
	NotFound                   // a path parameter is empty
	Parameter                  // a parameter
	InvalidBody                // the body
	WrongMediaType             // the body's media type
)

// Error is a request that does not fit its operation. Detail is for the client: it names places of
// the document, and nothing that was submitted.
type Error struct {
	Kind     Kind
	Detail   string
	BodyRead bool // the body has been read to its end
	Err      error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

func refusal(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// invalid tells a client what the validator found, by names of the document alone: its own text holds schemas and
// submitted values.
func (c *Compiler) invalid(err error) error {
	var e *openapi3filter.RequestError
	switch {
	case !errors.As(err, &e) || e.Parameter == nil && e.RequestBody == nil:
		return &Error{Kind: Internal, Err: fmt.Errorf("the validator returned a %T", err)}
	case e.Parameter != nil:
		return &Error{Kind: Parameter, Detail: fmt.Sprintf("The %s parameter %s %s.", e.Parameter.In, e.Parameter.Name, c.wrong(e.Err)), BodyRead: true}
	case e.Err == nil:
		return &Error{Kind: WrongMediaType, Detail: "This operation does not take a body of this Content-Type.", BodyRead: true}
	}
	return &Error{Kind: InvalidBody, Detail: fmt.Sprintf("The body %s.", c.wrong(e.Err)), BodyRead: true}
}

// wrong says which rule of the document was broken, and where.
func (c *Compiler) wrong(err error) string {
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
	submitted := func(step string) bool { return !c.names[step] && !index.MatchString(step) }
	if len(at) > 0 && !slices.ContainsFunc(at, submitted) {
		says += " at /" + strings.Join(at, "/")
	}
	return says
}

// index is a place in an array.
var index = regexp.MustCompile(`^[0-9]{1,6}$`)
