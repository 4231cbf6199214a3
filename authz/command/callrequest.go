package command

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
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/runtime"
)

// formType returns the media type of a form that the operation takes, or "".
func formType(spec *openapi3.Operation) string {
	for _, media := range []string{"multipart/form-data", "application/x-www-form-urlencoded"} {
		if spec.RequestBody.Value.Content[media] != nil {
			return media
		}
	}
	return ""
}

// mediaTypes returns the media types of the operation's body, JSON first.
func mediaTypes(spec *openapi3.Operation) []string {
	all := slices.Sorted(maps.Keys(spec.RequestBody.Value.Content))
	isJSON := func(s string) int {
		media, _, _ := mime.ParseMediaType(s)
		if media == "application/json" || strings.HasSuffix(media, "+json") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b string) int { return isJSON(a) - isJSON(b) })
	if len(all) == 0 {
		return []string{"application/json"}
	}
	return all
}

// read returns the body, or nil if there is none. It sets the content type of a form.
func (c *callOptions) read(spec *openapi3.Operation, stdin io.Reader) (body []byte, err error) {
	name, isFile := strings.CutPrefix(c.body, "@")
	switch {
	case len(c.form) > 0:
		c.bodyGiven = true
		body, c.contentType, err = formBody(formType(spec), c.form)
		return body, err
	case !c.bodyGiven:
		return nil, nil
	case c.body == "-":
		return io.ReadAll(stdin)
	case isFile:
		return os.ReadFile(name)
	}
	return []byte(c.body), nil
}

// formBody returns a form in its media type, and the full content type. A value @file is the
// content of a file, whose name is sent with a multipart form (RFC 7578 §4.2).
func formBody(media string, fields []string) ([]byte, string, error) {
	var body bytes.Buffer
	multi, values := multipart.NewWriter(&body), url.Values{}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, "=")
		if !ok || name == "" {
			return nil, "", fmt.Errorf("--form is %q: expected name=value or name=@file", field)
		}
		path, isFile := strings.CutPrefix(value, "@")
		content, part := []byte(value), textproto.MIMEHeader{}
		disposition := map[string]string{"name": name}
		if isFile {
			var err error
			if content, err = os.ReadFile(path); err != nil {
				return nil, "", fmt.Errorf("--form %s: %w", name, err)
			}
			disposition["filename"] = filepath.Base(path)
			kind := cmp.Or(mime.TypeByExtension(filepath.Ext(path)), "application/octet-stream")
			part.Set("Content-Type", kind)
		}
		values.Add(name, string(content))
		part.Set("Content-Disposition", mime.FormatMediaType("form-data", disposition))
		w, _ := multi.CreatePart(part) // a buffer takes everything
		_, _ = w.Write(content)
	}
	if media == "application/x-www-form-urlencoded" {
		return []byte(values.Encode()), media, nil
	}
	_ = multi.Close()
	return body.Bytes(), multi.FormDataContentType(), nil
}

// request builds the request with its parameters (OpenAPI 3.1 §4.8.12).
func (o *callable) request(
	ctx context.Context, c *callOptions, body []byte,
) (*http.Request, error) {
	path := o.Path
	var query []string
	headers := http.Header{}
	var cookies []*http.Cookie
	for _, p := range o.parameters {
		if len(p.values) == 0 {
			continue
		}
		text, err := p.encoded()
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", p.flag, err)
		}
		switch p.In {
		case openapi3.ParameterInPath:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", text)
		case openapi3.ParameterInQuery:
			query = append(query, text)
		case openapi3.ParameterInHeader:
			headers.Set(p.Name, text)
		case openapi3.ParameterInCookie:
			cookies = append(cookies, &http.Cookie{Name: p.Name, Value: text})
		}
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + strings.Join(query, "&")
	}
	var reader io.Reader
	if c.bodyGiven {
		reader = bytes.NewReader(body)
		headers.Set("Content-Type", c.contentType)
	}
	request, err := http.NewRequestWithContext(ctx, o.Method, target, reader)
	if err != nil || request.URL.Host == "" {
		return nil, fmt.Errorf("--url is %q: expected a URL such as %s", c.url, devURL)
	}
	request.Header = headers
	for _, cookie := range cookies {
		request.AddCookie(cookie)
	}
	return request, nil
}

// encoded returns the parameter's values in the style of the document.
func (p *parameter) encoded() (string, error) {
	location := map[string]runtime.ParamLocation{
		openapi3.ParameterInPath:   runtime.ParamLocationPath,
		openapi3.ParameterInQuery:  runtime.ParamLocationQuery,
		openapi3.ParameterInHeader: runtime.ParamLocationHeader,
		openapi3.ParameterInCookie: runtime.ParamLocationCookie,
	}[p.In]
	method, err := p.SerializationMethod()
	if err != nil {
		return "", err
	}
	style, explode := method.Style, method.Explode
	if p.In == openapi3.ParameterInCookie {
		style = openapi3.SerializationSimple // http.Cookie adds the name
	}
	var value any = p.values[0]
	switch p.kind {
	case openapi3.TypeArray:
		value = p.values
	case openapi3.TypeObject:
		members := map[string]string{}
		for _, member := range p.values {
			name, text, ok := strings.Cut(member, "=")
			if !ok {
				return "", errors.New("expected name=value for each member of the object")
			}
			members[name] = text
		}
		value = members
	case "JSON":
		if !json.Valid([]byte(p.values[0])) {
			return "", errors.New("expected JSON")
		}
		style, explode = openapi3.SerializationSimple, false
		if p.In == openapi3.ParameterInQuery {
			style = openapi3.SerializationForm
		}
	}
	text, err := runtime.StyleParamWithOptions(style, explode, p.Name, value,
		runtime.StyleParamOptions{ParamLocation: location, AllowReserved: p.AllowReserved})
	if p.In == openapi3.ParameterInQuery {
		// URLs do not allow the delimiters of spaceDelimited and pipeDelimited (RFC 3986 §2.2).
		text = strings.NewReplacer(" ", "%20", "|", "%7C").Replace(text)
	}
	return text, err
}
