package schema

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
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
		return refusal(Parameter, "The query is malformed.")
	}
	for name, list := range values {
		if !in.declares(name) {
			return refusal(Parameter, "The query has a parameter that this operation does not declare.")
		}
		if len(list) > 1 && !in.query[name] {
			return refusal(Parameter, "A query parameter occurs more than once.")
		}
		for i := strings.LastIndexByte(name, '['); i > 0; i = strings.LastIndexByte(name[:i], '[') {
			if values.Has(name[:i]) { // the validator panics on filter[a]=1&filter[a][b]=2
				return refusal(Parameter, "A query parameter is sent as a value and as an object.")
			}
		}
		if !isText(name) || !isText(strings.Join(list, ",")) {
			return refusal(Parameter, "The query has a name or a value that is not text.")
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
			return refusal(Parameter, "The header %s occurs more than once.", name)
		}
		if !isText(r.Header.Get(name)) {
			return refusal(Parameter, "The header %s is not text.", name)
		}
	}
	for _, name := range in.cookies {
		if len(r.CookiesNamed(name)) > 1 {
			return refusal(Parameter, "The cookie %s occurs more than once.", name)
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
			return nil, refusal(Parameter, "The path parameter %s is not text.", name)
		}
	}
	return params, nil
}
