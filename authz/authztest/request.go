package authztest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/internal/schema"
)

// build builds a request to an operation, and validates it against the document.
func (s sampler) build(o authz.Operation, override Request) (Request, error) {
	item := s.doc.Paths.Value(o.Path)
	spec := item.GetOperation(o.Method)
	r := Request{Path: map[string]string{}, Query: url.Values{}, Header: http.Header{}}
	for _, p := range parameters(item, spec) {
		if !p.Required || override.has(p) {
			continue
		}
		value, err := s.parameter(p)
		if err == nil {
			err = r.set(p, value)
		}
		if err != nil {
			return Request{}, fmt.Errorf("the %s parameter %s: %w", p.In, p.Name, err)
		}
	}
	maps.Copy(r.Path, override.Path)
	maps.Copy(r.Query, override.Query)
	maps.Copy(r.Header, override.Header)
	if override.Body != nil {
		r.Body, r.ContentType = override.Body, override.ContentType
	} else if spec.RequestBody != nil {
		var err error
		if r.Body, r.ContentType, err = s.body(spec.RequestBody.Value); err != nil &&
			spec.RequestBody.Value.Required {
			return Request{}, fmt.Errorf("the body: %w", err)
		}
	}
	return r, s.check(r, o)
}

// parameters returns the parameters of an operation, including those of its path item (OpenAPI 3.1
// §4.8.9.1).
func parameters(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.Parameter) {
	for _, ref := range item.Parameters {
		if spec.Parameters.GetByInAndName(ref.Value.In, ref.Value.Name) == nil {
			all = append(all, ref.Value)
		}
	}
	for _, ref := range spec.Parameters {
		all = append(all, ref.Value)
	}
	return all
}

// has reports whether a request has a value for a parameter.
func (r Request) has(p *openapi3.Parameter) bool {
	switch p.In {
	case openapi3.ParameterInPath:
		_, ok := r.Path[p.Name]
		return ok
	case openapi3.ParameterInHeader:
		return r.Header.Get(p.Name) != ""
	case openapi3.ParameterInCookie:
		return r.Header.Get("Cookie") != ""
	}
	return r.Query.Has(p.Name)
}

// check validates a request as the gate does.
func (s sampler) check(r Request, o authz.Operation) error {
	item := s.doc.Paths.Value(o.Path)
	compiled, faults := s.compiler.Operation(item, item.GetOperation(o.Method))
	if faults != nil {
		return errors.Join(faults...)
	}
	sent, err := r.http(context.Background(), "http://localhost", o, http.NoBody)
	if err != nil {
		return err
	}
	content := schema.Content{Body: r.Body}
	if r.ContentType != "" {
		content.Essence, content.Params, err = mime.ParseMediaType(r.ContentType)
		if err != nil {
			return fmt.Errorf("Content-Type %s: %w", r.ContentType, err)
		}
	}
	param := func(name string) string { return r.Path[name] }
	if err := compiled.CheckNames(sent, param); err != nil {
		return err
	}
	_, err = compiled.Check(sent, param, content)
	invalid, _ := errors.AsType[*schema.Error](err)
	if invalid != nil && invalid.Kind == schema.MediaType {
		return nil // such as XML, whose examples are not validated
	}
	return err
}

// http returns the HTTP request, with the given body.
func (r Request) http(
	ctx context.Context,
	base string,
	o authz.Operation,
	body io.Reader,
) (*http.Request, error) {
	path := o.Path
	for name, value := range r.Path {
		path = strings.ReplaceAll(path, "{"+name+"}", url.PathEscape(value))
	}
	target := strings.TrimSuffix(base, "/") + path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	sent, err := http.NewRequestWithContext(ctx, o.Method, target, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(sent.Header, r.Header)
	if r.ContentType != "" {
		sent.Header.Set("Content-Type", r.ContentType)
	}
	return sent, nil
}

// set writes a parameter in its style (OpenAPI 3.1 §4.8.12.3).
func (r *Request) set(p *openapi3.Parameter, value any) error {
	if p.Content != nil {
		b, err := json.Marshal(value)
		if err != nil {
			return err
		}
		value = string(b)
	}
	style := p.Style
	if style == "" {
		style = map[string]string{"path": "simple", "header": "simple", "query": "form",
			"cookie": "form"}[p.In]
	}
	explode := style == "form"
	if p.Explode != nil {
		explode = *p.Explode
	}
	switch p.In {
	case openapi3.ParameterInPath:
		r.Path[p.Name] = inPath(p.Name, style, explode, flatten(value))
	case openapi3.ParameterInHeader:
		r.Header.Set(p.Name, inPath(p.Name, style, explode, flatten(value)))
	default:
		query := inQuery(p.Name, style, explode, flatten(value))
		if p.In == openapi3.ParameterInQuery {
			maps.Copy(r.Query, query)
			break
		}
		for name, values := range query {
			cookie := name + "=" + strings.Join(values, "; "+name+"=")
			if before := r.Header.Get("Cookie"); before != "" {
				cookie = before + "; " + cookie
			}
			r.Header.Set("Cookie", cookie)
		}
	}
	return nil
}

// flat is a value in the form of a parameter: a text, a list, or pairs of names and texts.
type flat struct {
	names []string // of an object's members
	texts []string
	list  bool
}

func flatten(value any) flat {
	switch v := value.(type) {
	case []any:
		f := flat{list: true}
		for _, item := range v {
			f.texts = append(f.texts, text(item))
		}
		return f
	case map[string]any:
		f := flat{}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			f.names, f.texts = append(f.names, name), append(f.texts, text(v[name]))
		}
		return f
	}
	return flat{texts: []string{text(value)}}
}

func text(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	b, _ := json.Marshal(value) // it was JSON
	return string(b)
}

// pairs returns the names and texts of an object, joined by a separator.
func (f flat) pairs(separator string) (all []string) {
	for i, name := range f.names {
		all = append(all, name+separator+f.texts[i])
	}
	return all
}

// inPath formats a value in the styles simple, label and matrix.
func inPath(name, style string, explode bool, f flat) string {
	all := f.texts
	switch {
	case f.names != nil && explode:
		all = f.pairs("=")
	case f.names != nil:
		all = f.pairs(",")
	}
	switch {
	case style == "label" && explode:
		return "." + strings.Join(all, ".")
	case style == "label":
		return "." + strings.Join(all, ",")
	case style == "matrix" && explode && f.names != nil:
		return ";" + strings.Join(all, ";")
	case style == "matrix" && explode:
		return ";" + name + "=" + strings.Join(all, ";"+name+"=")
	case style == "matrix":
		return ";" + name + "=" + strings.Join(all, ",")
	}
	return strings.Join(all, ",")
}

// inQuery formats a value in the styles form, spaceDelimited, pipeDelimited and deepObject.
func inQuery(name, style string, explode bool, f flat) url.Values {
	separator := map[string]string{"spaceDelimited": " ", "pipeDelimited": "|"}[style]
	if separator == "" {
		separator = ","
	}
	values := url.Values{}
	switch {
	case style == "deepObject":
		for i, member := range f.names {
			values.Add(name+"["+member+"]", f.texts[i])
		}
	case f.names != nil && explode:
		for i, member := range f.names {
			values.Add(member, f.texts[i])
		}
	case f.names != nil:
		values.Set(name, strings.Join(f.pairs(separator), separator))
	case f.list && !explode:
		values.Set(name, strings.Join(f.texts, separator))
	default:
		values[name] = f.texts
	}
	return values
}

// body builds a body of the simplest media type.
func (s sampler) body(spec *openapi3.RequestBody) (body []byte, contentType string, err error) {
	names := slices.SortedFunc(maps.Keys(spec.Content), func(a, b string) int {
		if d := difficulty(a) - difficulty(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	err = errors.New("its content has no media type")
	for _, name := range names {
		media := spec.Content[name]
		if media == nil {
			media = &openapi3.MediaType{}
		}
		var value any
		if value, err = s.media(media); err != nil {
			continue
		}
		if body, contentType, err = encode(name, media, value); err == nil {
			return body, contentType, nil
		}
	}
	return nil, "", err
}

// difficulty ranks media types by how difficult it is to build a body; below 2, it is JSON.
func difficulty(media string) int {
	media, _, _ = strings.Cut(media, ";")
	switch {
	case media == "application/json":
		return 0
	case strings.HasSuffix(media, "+json"), media == "text/json":
		return 1
	case media == "application/x-www-form-urlencoded", media == "multipart/form-data":
		return 2
	case strings.Contains(media, "*"):
		return 4
	}
	return 3
}

func encode(
	name string, media *openapi3.MediaType, value any,
) (body []byte, contentType string, err error) {
	switch name {
	case "*/*", "application/*":
		name = "application/json"
	case "text/*":
		name = "text/plain"
	}
	plain, _, _ := strings.Cut(name, ";")
	members, isObject := value.(map[string]any)
	if difficulty(plain) == 2 && value == any("a") { // a form whose schema says nothing
		members, isObject = map[string]any{"a": "a"}, true
	}
	switch {
	case difficulty(plain) < 2:
		body, err = json.Marshal(value)
		return body, name, err
	case plain == "application/x-www-form-urlencoded" && isObject:
		form := url.Values{}
		for name, member := range members {
			form[name] = flatten(member).texts
		}
		return []byte(form.Encode()), name, nil
	case plain == "multipart/form-data" && isObject:
		return encodeMultipart(media, members)
	}
	if s, ok := value.(string); ok {
		return []byte(s), name, nil
	}
	return nil, "", fmt.Errorf("no body of type %s can be made from a schema", name)
}

// encodeMultipart writes a part for each member, or for each item of an array (OpenAPI 3.1
// §4.8.15). Fields come before files, because servers may stream files.
func encodeMultipart(
	media *openapi3.MediaType, members map[string]any,
) (body []byte, contentType string, err error) {
	var fields, files []part
	for _, name := range slices.Sorted(maps.Keys(members)) {
		items, isList := members[name].([]any)
		if !isList {
			items = []any{members[name]}
		}
		for _, item := range items {
			p := part{name: name, text: text(item), contentType: partType(media, name)}
			switch _, isText := item.(string); {
			case isFile(media, name):
				p.file = true
				p.contentType = cmp.Or(p.contentType, "application/octet-stream")
				files = append(files, p)
				continue
			case !isText && (isObject(item) || strings.Contains(p.contentType, "json")):
				p.contentType = cmp.Or(p.contentType, "application/json")
			}
			fields = append(fields, p)
		}
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range append(fields, files...) {
		disposition := fmt.Sprintf("form-data; name=%q", p.name)
		if p.file {
			disposition += `; filename="file"`
		}
		header := textproto.MIMEHeader{"Content-Disposition": {disposition}}
		if p.contentType != "" {
			header.Set("Content-Type", p.contentType)
		}
		out, err := w.CreatePart(header)
		if err == nil {
			_, err = io.WriteString(out, p.text)
		}
		if err != nil {
			return nil, "", err
		}
	}
	err = w.Close()
	return b.Bytes(), w.FormDataContentType(), err
}

// part is a part of a multipart body.
type part struct {
	name, text, contentType string
	file                    bool
}

func isObject(value any) bool {
	_, ok := value.(map[string]any)
	return ok
}

// partType returns the first Content-Type that the document lists for a part, or "".
func partType(media *openapi3.MediaType, name string) string {
	if media.Encoding[name] == nil {
		return ""
	}
	first, _, _ := strings.Cut(media.Encoding[name].ContentType, ",")
	if first = strings.TrimSpace(first); strings.Contains(first, "*") {
		return strings.NewReplacer("*/*", "text/plain", "/*", "/x-anything").Replace(first)
	}
	return first
}

// isFile reports whether a member, or each of its items, is binary (OpenAPI 3.0 §4.7.14.4; in 3.1,
// also a schema without a type).
func isFile(media *openapi3.MediaType, name string) bool {
	if media.Schema == nil || media.Schema.Value == nil {
		return false
	}
	ref := media.Schema.Value.Properties[name]
	for ref != nil && ref.Value != nil && ref.Value.Type.Is(openapi3.TypeArray) {
		ref = ref.Value.Items
	}
	return ref != nil && ref.Value != nil &&
		(ref.Value.Format == "binary" || ref.Value.ContentMediaType != "")
}
