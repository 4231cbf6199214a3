package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// Operation validates requests of an operation. It is safe for concurrent use.
type Operation struct {
	path, query, header, cookie []*parameter
	bodies                      []*body   // empty: it accepts no body
	required                    bool      // the body is required
	readers                     sync.Pool // *reader
	// Unbound lists the valid values that generated code does not bind. Lint uses it.
	Unbound []string
}

// Operation compiles the parameters of an operation and of its path item, and its body.
func (c *Compiler) Operation(
	item *openapi3.PathItem, spec *openapi3.Operation,
) (*Operation, []error) {
	o := &Operation{}
	var faults []error
	for _, s := range parametersOf(item, spec) {
		p, err := c.parameter(s)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		switch p.in {
		case openapi3.ParameterInPath:
			o.path = append(o.path, p)
		case openapi3.ParameterInQuery:
			o.query = append(o.query, p)
		case openapi3.ParameterInCookie:
			o.cookie = append(o.cookie, p)
		case openapi3.ParameterInHeader:
			// OpenAPI 3.1 §4.8.12.1: these are ignored.
			if p.key != "Accept" && p.key != "Content-Type" && p.key != "Authorization" {
				o.header = append(o.header, p)
			}
		}
		o.Unbound = append(o.Unbound, p.unbound()...)
	}
	if spec.RequestBody != nil && spec.RequestBody.Value != nil {
		request := spec.RequestBody.Value
		o.required = request.Required
		for _, name := range slices.Sorted(maps.Keys(request.Content)) {
			b, err := c.body(name, request.Content[name])
			if err != nil {
				faults = append(faults, err)
				continue
			}
			for other := range request.Content {
				b.ambiguous = b.ambiguous || other != name && strings.HasPrefix(name, other)
			}
			o.bodies = append(o.bodies, b)
			o.Unbound = append(o.Unbound, b.unbound()...)
		}
		if o.deniesAll() {
			faults = append(faults, errors.New("no media type of its body is decoded, "+
				"so every body would be refused: take application/json"))
		}
	}
	return o, faults
}

func (o *Operation) deniesAll() bool {
	denied := func(b *body) bool { return b.kind == deniedBody }
	return slices.ContainsFunc(o.bodies, denied) &&
		!slices.ContainsFunc(o.bodies, func(b *body) bool { return !denied(b) })
}

// parametersOf returns the parameters of an operation and those of its path item that it does not
// override (OpenAPI 3.1 §4.8.10).
func parametersOf(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.Parameter) {
	for _, list := range []openapi3.Parameters{item.Parameters, spec.Parameters} {
		for _, ref := range list {
			if ref == nil || ref.Value == nil {
				continue
			}
			p := ref.Value
			all = append(slices.DeleteFunc(all, func(other *openapi3.Parameter) bool {
				return other.In == p.In && other.Name == p.Name
			}), p)
		}
	}
	return all
}

// Accepted holds the values of a valid request, in the form to bind.
type Accepted struct {
	RawQuery string
	Header   http.Header // the headers to replace; nil if there are none
	Body     []byte
	// Form holds the fields of an urlencoded body, without the query. It is empty for a multipart
	// body, whose fields are in the body, and nil for others.
	Form url.Values
	// Stream is the body if the handler reads it. It returns io.EOF only if the whole body is
	// valid. Rewritten reports that its length has changed.
	Stream    io.Reader
	Rewritten bool
	json      bool          // the body was checked as JSON
	spent     time.Duration // matching patterns
}

// faults collects the faults in all parts of a request.
type faults struct{ err *Error }

func (f *faults) add(err error) {
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
	case f.err == nil || f.err.Details != nil && e.Details == nil:
		f.err = e // an error without details ends the validation
	case f.err.Details != nil:
		f.err.Details = append(f.err.Details, e.Details...)
		f.err.Details = f.err.Details[:min(len(f.err.Details), MaxDetails)]
	}
}

// validate validates the body, or the JSON text of one.
func (a *Accepted) validate(s *Schema, text []byte) ([]byte, error) {
	return s.validate(text, "body", "", InvalidBody, &a.spent)
}

// TakesBody reports whether the operation accepts a body.
func (o *Operation) TakesBody() bool { return len(o.bodies) > 0 }

// CheckNames refuses a request without a value for a path parameter, or with a query parameter that
// the operation does not declare. It is called before the body is read. [Operation.Check] makes the
// same checks.
func (o *Operation) CheckNames(r *http.Request, param func(name string) string) error {
	for _, p := range o.path {
		if param == nil || param(p.name) == "" {
			return &Error{Kind: NotFound}
		}
	}
	if r.URL.RawQuery == "" {
		return nil
	}
	all, ok := appendPairs(nil, r.URL.RawQuery)
	if !ok {
		return queryFault("syntax", "is malformed")
	}
	for _, q := range all {
		if o.owner(q.name) == nil {
			return undeclared()
		}
	}
	return nil
}

// Check validates a request. param returns a path parameter, unescaped. The caller has read the
// body and parsed its Content-Type. Errors are of type [*Error].
func (o *Operation) Check(
	r *http.Request, param func(name string) string, content Content,
) (*Accepted, error) {
	accepted := &Accepted{} // not on the heap if Check is inlined
	return accepted, o.check(r, param, content, accepted)
}

func (o *Operation) check(
	r *http.Request, param func(name string) string, content Content, accepted *Accepted,
) error {
	var f faults
	values, ok := o.readers.Get().(*reader)
	if !ok {
		values = &reader{}
	}
	defer o.release(values)
	values.run.spent = 0
	accepted.Body = content.Body
	for _, p := range o.path {
		text := ""
		if param != nil {
			text = param(p.name)
		}
		if text == "" {
			return &Error{Kind: NotFound}
		}
		f.add(values.path(p, text))
	}
	accepted.RawQuery = o.checkQuery(r.URL.RawQuery, values, &f)
	o.checkHeaders(r, values, accepted, &f)
	o.checkCookies(r, values, accepted, &f)
	if content.Stream != nil && f.err != nil {
		return f.err
	}
	accepted.spent = values.run.spent
	f.add(o.checkBody(content, accepted))
	if f.err != nil {
		return f.err
	}
	return nil
}

// release returns a reader to the pool, unless its buffers have grown too large.
func (o *Operation) release(r *reader) {
	r.run.body = nil
	if cap(r.text) <= 4096 && cap(r.run.edits) <= 64 && cap(r.run.buffer) <= 4096 {
		o.readers.Put(r)
	}
}

// Apply returns the request for the handler. If it must be a copy, it gets the context.
func (a *Accepted) Apply(ctx context.Context, r *http.Request) *http.Request {
	hasBody := len(a.Body) > 0 || a.json || r.Body != nil && r.Body != http.NoBody
	if r.URL.RawQuery == a.RawQuery && a.Header == nil && a.Form == nil && !hasBody {
		return r
	}
	r = r.WithContext(ctx)
	if r.URL.RawQuery != a.RawQuery {
		at := *r.URL
		at.RawQuery = a.RawQuery
		r.URL = &at
	}
	length := int64(len(a.Body))
	if a.Stream != nil {
		if length = r.ContentLength; a.Rewritten {
			length = -1
		}
	}
	stale := length != r.ContentLength && len(r.Header["Content-Length"]) > 0
	if a.Header != nil || stale {
		r.Header = r.Header.Clone()
		maps.Copy(r.Header, a.Header)
	}
	if stale {
		delete(r.Header, "Content-Length")
	}
	if stale && length >= 0 {
		r.Header.Set("Content-Length", strconv.FormatInt(length, 10))
	}
	if a.Form != nil { // ParseForm would add the query's parameters
		r.Form, r.PostForm = maps.Clone(a.Form), maps.Clone(a.Form)
	}
	switch {
	case a.Stream != nil:
		r.Body, r.ContentLength = io.NopCloser(a.Stream), length
	case hasBody:
		text, isJSON := a.Body, a.json // capturing a would move it to the heap for every request
		r.ContentLength = length
		r.GetBody = func() (io.ReadCloser, error) { return newBody(text, isJSON), nil }
		r.Body = newBody(text, isJSON)
	}
	return r
}

// newBody returns the body for the handler.
func newBody(text []byte, isJSON bool) io.ReadCloser {
	if isJSON {
		b := &JSONBody{Text: text}
		b.Reset(text)
		return b
	}
	if len(text) == 0 {
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(text))
}

// JSONBody is the JSON body of an admitted request, in the form that generated code binds. Text is
// empty if the operation accepts JSON and no body was sent.
type JSONBody struct {
	bytes.Reader
	Text []byte
}

func (*JSONBody) Close() error { return nil }

// path refuses a value that generated code would bind differently, because a path is never
// rewritten.
func (r *reader) path(p *parameter, text string) error {
	bound, err := r.bind(p, text)
	if err == nil && bound != text {
		err = p.fault("style", "is not in its canonical form")
	}
	return err
}

// bind validates a parameter that is a single text, and returns the text to bind.
func (r *reader) bind(p *parameter, text string) (string, error) {
	if p.scalar {
		return r.scalar(p, text)
	}
	value, err := p.decode(text)
	if err != nil {
		return "", err
	}
	return p.bind(value, &r.run.spent)
}

func (o *Operation) checkHeaders(r *http.Request, reader *reader, accepted *Accepted, f *faults) {
	for _, p := range o.header {
		switch values := r.Header[p.key]; {
		case len(values) == 0:
			if p.required {
				f.add(p.fault("required", "is missing"))
			} else if p.missing != nil {
				accepted.set(p.key, p.missing[0].value)
			}
		case len(values) > 1 && !p.shape.is(kindArray):
			f.add(p.fault("style", "occurs more than once"))
		default:
			// RFC 9110 §5.3: a list in several fields
			text := strings.Trim(strings.Join(values, ","), " \t")
			bound, err := reader.bind(p, text)
			if f.add(err); err == nil && (bound != values[0] || len(values) > 1) {
				accepted.set(p.key, bound)
			}
		}
	}
}

func (a *Accepted) set(name, value string) {
	if a.Header == nil {
		a.Header = http.Header{}
	}
	a.Header[name] = []string{value}
}

// checkCookies validates cookie parameters. Generated code reads each from the cookie with its
// name.
func (o *Operation) checkCookies(r *http.Request, reader *reader, accepted *Accepted, f *faults) {
	if len(o.cookie) == 0 {
		return
	}
	all := r.Cookies()
	changed := map[string]string{}
	gone := map[string]bool{}
	for _, p := range o.cookie {
		pairs := p.cookiePairs(all)
		if len(pairs) > 0 && p.repeated() && slices.ContainsFunc(pairs, func(q pair) bool {
			return strings.Contains(q.value, ",")
		}) { // which generated code treats as the end of an element
			f.add(p.fault("style", "has an element with a comma, which a cookie cannot carry"))
			continue
		}
		bound, err := p.checkPairs(p.unescape(pairs), &reader.run.spent)
		if err != nil {
			f.add(err)
			continue
		}
		if len(bound) == 1 && strings.ContainsAny(bound[0].value, `\";`) && p.content == "" {
			f.add(p.fault("style", "has a character that a cookie cannot carry"))
			continue
		}
		if len(bound) == 1 && !slices.Equal(bound, pairs) {
			for _, q := range pairs {
				gone[q.name] = true
			}
			changed[p.name] = p.escape(bound[0].value)
		}
	}
	if len(changed) == 0 {
		return
	}
	var list []string
	for _, c := range all {
		if _, found := changed[c.Name]; !found && !gone[c.Name] {
			list = append(list, c.Name+"="+c.Value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		list = append(list, name+"="+changed[name])
	}
	accepted.set("Cookie", strings.Join(list, "; "))
}

// cookiePairs returns the names and values of a parameter.
func (p *parameter) cookiePairs(all []*http.Cookie) (pairs []pair) {
	for _, c := range all {
		if !p.includes(c.Name) {
			continue
		}
		for i, value := range p.split(c.Value) {
			name := c.Name
			if i > 0 && p.exploded() {
				name, value, _ = strings.Cut(value, "=")
			}
			pairs = append(pairs, pair{name, strings.TrimPrefix(value, p.prefix(i))})
		}
	}
	return pairs
}

// split splits a cookie with style form and explode: a=1&a=2 (OpenAPI 3.1 §4.8.12.4).
func (p *parameter) split(value string) []string {
	if p.repeated() || p.exploded() {
		return strings.Split(value, "&")
	}
	return []string{value}
}

// prefix returns the text before the second and later elements of a list in a cookie.
func (p *parameter) prefix(i int) string {
	if i > 0 && p.repeated() {
		return p.name + "="
	}
	return ""
}

// unescape decodes a cookie with content as generated code does.
func (p *parameter) unescape(pairs []pair) []pair {
	if p.content == "" || !isJSON(p.content) {
		return pairs
	}
	all := slices.Clone(pairs)
	for i := range all {
		if text, err := url.QueryUnescape(all[i].value); err == nil {
			all[i].value = text
		}
	}
	return all
}

func (p *parameter) escape(value string) string {
	if p.content != "" && isJSON(p.content) {
		return url.QueryEscape(value)
	}
	return value
}

// unbound lists the parts of a parameter that generated code does not bind.
func (p *parameter) unbound() (all []string) {
	label := p.in + " parameter " + p.name
	root := p.schema.root
	if p.content != "" {
		return nil
	}
	if root.kinds == anyKind && (root.oneOf != nil || root.anyOf != nil) {
		return []string{
			label + ": a oneOf or anyOf without a type is not bound by generated code: " +
				"give the schema a list of types",
		}
	}
	if f := root.format; f != nil && p.style != openapi3.SerializationSimple && p.in == "path" &&
		(f.name == "date" || f.name == "date-time" || f.name == "uuid") {
		all = append(all, label+": generated code refuses format "+f.name+" of style "+p.style)
	}
	deep := p.style == openapi3.SerializationDeepObject
	if p.shape.is(kindObject) && !deep && (p.in != "query" || !p.exploded()) {
		for _, name := range slices.Sorted(maps.Keys(p.shape.members)) {
			if m := p.shape.members[name]; m.is(kindNumber | kindBoolean) {
				return []string{fmt.Sprintf(
					"%s: generated code binds the members of an object of style %s as strings "+
						"only, "+
						"so %s is refused: use deepObject or content", label, p.style, name)}
			}
		}
	}
	root.formats("", map[*node]bool{}, func(member, format string) {
		if format == "byte" || p.exploded() && format == "uuid" ||
			deep && strings.HasPrefix(format, "uint") {
			all = append(all, fmt.Sprintf(
				"%s: generated code does not bind format %s at %s", label, format, member))
		}
	})
	if deep && p.shape.others != nil && len(p.shape.members) > 0 {
		all = append(all, label+": generated code refuses additional properties of style "+
			"deepObject beside others")
	}
	slices.Sort(all)
	return all
}
