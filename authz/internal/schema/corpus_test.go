package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// writer writes documents and requests at random.
type writer struct {
	maker
	components map[string]any
}

// component makes an open object schema a component, and returns a reference to it, because the
// code that the generator writes for such a schema in a parameter does not compile.
func (m *writer) component(s map[string]any, path bool) map[string]any {
	if open, stated := s["additionalProperties"]; s["type"] != "object" ||
		!path && (!stated || open == false) {
		return s
	}
	name := fmt.Sprint("Open", len(m.components))
	m.components[name] = s
	return object("$ref", "#/components/schemas/"+name)
}

func object(pairs ...any) map[string]any {
	o := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		o[pairs[i].(string)] = pairs[i+1]
	}
	return o
}

func (m *writer) chance(n int) bool { return m.IntN(n) == 0 }

func (m *writer) scalar() map[string]any {
	s := pick(&m.maker, []func() map[string]any{
		func() map[string]any { return object("type", "string") },
		func() map[string]any { return object("type", "string", "maxLength", 3) },
		func() map[string]any {
			return object("type", "string", "enum", []any{"a", "b", "a,b", ""})
		},
		func() map[string]any { return object("type", "string", "pattern", "^[a-z ]*$") },
		func() map[string]any {
			return object(
				"type",
				"string",
				"format",
				pick(
					&m.maker,
					[]string{"date", "date-time", "uuid", "byte", "email", "ipv4", "uri", "time"},
				),
			)
		},
		func() map[string]any { return object("type", "integer") },
		func() map[string]any {
			return object(
				"type",
				"integer",
				"format",
				pick(&m.maker, []string{"int32", "int64", "int8", "int16"}),
				"maximum",
				100,
			)
		},
		func() map[string]any { return object("type", "integer", "enum", []any{1, 2, 100}) },
		func() map[string]any { return object("type", "number") },
		func() map[string]any {
			return object("type", "number", "format", pick(&m.maker, []string{"float", "double"}))
		},
		func() map[string]any { return object("type", "boolean") },
	})()
	return s
}

// nullable allows null, in the way of the schema's version.
func (m *writer) nullable(s map[string]any) map[string]any {
	if _, enum := s["enum"]; enum || s["type"] == nil {
		return s
	}
	if m.old {
		s["nullable"] = true
	} else {
		s["type"] = []any{s["type"], "null"}
	}
	return s
}

func (m *writer) flatObject(onlyStrings bool) map[string]any {
	properties := object()
	for _, name := range []string{"R", "g", "x-y", "kindOf"} {
		if m.IntN(3) > 0 {
			properties[name] = m.scalar()
			if onlyStrings {
				properties[name] = object("type", "string", "maxLength", 1+m.IntN(4))
			}
		}
	}
	s := object("type", "object", "properties", properties)
	m.additional(s, object("type", "string"))
	return s
}

func (m *writer) additional(s, others map[string]any) {
	switch m.IntN(6) {
	case 0, 1:
		s["additionalProperties"] = false
	case 2:
		s["additionalProperties"] = others
	case 3:
		if m.chance(3) {
			s["additionalProperties"] = true
		}
	}
}

func (m *writer) parameter(in string, n int) map[string]any {
	name := map[string]string{
		"path": "id", "header": fmt.Sprint("X-H", n), "cookie": fmt.Sprint("c", n),
		"query": fmt.Sprintf(pick(&m.maker, []string{"q%d", "q-%d", "q.%d", "Q%d_x", "q%d[]"}), n),
	}[in]
	p := object("name", name, "in", in)
	if in == "path" || m.chance(4) {
		p["required"] = true
	}
	if in != "path" && m.chance(10) {
		p["content"] = object("application/json", object("schema", m.component(m.body(1), false)))
		return p
	}
	style := pick(&m.maker, map[string][]string{
		"path": {"simple", "label", "matrix"}, "query": {"form"}, "header": {"simple"}, "cookie": {"form"},
	}[in])
	explode := m.chance(2)
	var schema map[string]any
	switch m.IntN(6) {
	case 0, 1:
		items := m.scalar()
		if in == "path" && items["format"] == "byte" {
			items = object("type", "string")
		}
		schema = object("type", "array", "items", items)
		if in == "query" && !explode {
			style = pick(&m.maker, []string{"form", "spaceDelimited", "pipeDelimited"})
		}
		if m.chance(3) {
			schema["uniqueItems"] = true
		}
	case 2, 3:
		if in == "query" && m.chance(2) && !strings.HasSuffix(name, "]") {
			style, explode = "deepObject", true
			schema = m.flatObject(false)
			if m.chance(2) {
				schema["properties"].(map[string]any)["list"] = object(
					"type",
					"array",
					"items",
					m.scalar(),
				)
			}
			if m.chance(2) {
				schema["properties"].(map[string]any)["deep"] = m.flatObject(false)
			}
		} else {
			schema = m.flatObject(!m.chance(4))
			if in == "query" && explode { // its members are parameters of their own
				properties := object()
				for member, s := range schema["properties"].(map[string]any) {
					properties[fmt.Sprint(member, n)] = s
				}
				schema["properties"] = properties
				delete(schema, "additionalProperties")
			}
		}
		if len(schema["properties"].(map[string]any)) == 0 {
			schema["properties"] = object("only"+fmt.Sprint(n), object("type", "string"))
		}
	default:
		schema = m.scalar()
		switch {
		case m.chance(8):
			schema = object(
				"$ref",
				"#/components/schemas/"+pick(&m.maker, []string{"Color", "Size"}),
			)
		case m.chance(8) && schema["format"] != "byte":
			schema = object("allOf", []any{schema})
		case m.chance(8) && in != "path":
			schema = m.nullable(schema)
		}
		if in != "path" && p["required"] == nil && m.chance(5) {
			switch {
			case schema["type"] == "boolean":
				schema["default"] = true
			case schema["type"] == "integer":
				schema["default"] = 2
			case schema["type"] == "string" && schema["format"] == nil:
				schema["default"] = "a"
			}
		}
	}
	p["schema"], p["style"], p["explode"] = m.component(schema, in == "path"), style, explode
	return p
}

var bodyNames = []string{"id", "name", "x-y", "type", "text", "TEXT", "kind_of", "sK"}

// body makes the schema of a JSON body, or of a part of one.
func (m *writer) body(depth int) map[string]any {
	switch n := m.IntN(10); {
	case depth == 0 || n < 2:
		s := m.scalar()
		if m.chance(4) {
			m.nullable(s)
		}
		return s
	case n == 2:
		return object("type", "array", "items", m.body(depth-1))
	case n == 3:
		return object(
			"$ref",
			"#/components/schemas/"+pick(
				&m.maker,
				[]string{"Color", "Size", "Pet", "Derived", "Tree", "Map", "Open"},
			),
		)
	}
	properties, required := object(), []any{}
	for _, name := range bodyNames {
		if m.chance(2) {
			continue
		}
		s := m.body(depth - 1)
		properties[name] = s
		if m.chance(8) && s["$ref"] == nil {
			s["readOnly"] = true
		}
		if m.chance(3) {
			required = append(required, name)
		}
	}
	s := object("type", "object", "properties", properties)
	if len(required) > 0 {
		s["required"] = required
	}
	m.additional(s, m.scalar())
	return s
}

func (m *writer) formBody(multi bool) map[string]any {
	properties := object()
	for _, name := range []string{"a", "b", "c-d", "e"} {
		switch m.IntN(5) {
		case 0:
			properties[name] = object("type", "array", "items", m.scalar())
		case 1:
			properties[name] = m.flatObject(false)
		case 2:
			if multi {
				properties[name] = object("type", "string", "format", "binary")
				continue
			}
			fallthrough
		default:
			properties[name] = m.scalar()
		}
	}
	s := object("type", "object", "properties", properties)
	if m.chance(3) {
		s["required"] = []any{"a"}
	}
	if m.chance(3) {
		s["additionalProperties"] = false
	}
	return s
}

func (m *writer) content() map[string]any {
	jsonBody := func() map[string]any { return object("schema", m.body(3)) }
	switch m.IntN(12) {
	case 0, 1:
		return object("application/x-www-form-urlencoded", object("schema", m.formBody(false)))
	case 2:
		return object("multipart/form-data", object("schema", m.formBody(true)))
	case 3:
		return object("text/plain", object("schema", object("type", "string", "maxLength", 5)))
	case 4:
		return object("application/octet-stream", object("schema", object()))
	case 5:
		return object(
			"application/json",
			jsonBody(),
			"application/x-www-form-urlencoded",
			object("schema", m.formBody(false)),
		)
	case 6:
		return object(
			pick(
				&m.maker,
				[]string{
					"application/merge-patch+json",
					"application/vnd.x.v1+json",
					"application/json; charset=utf-8",
				},
			),
			jsonBody(),
		)
	}
	return object("application/json", jsonBody())
}

func (m *writer) document(version string, operations int) map[string]any {
	paths := object()
	for i := range operations {
		path := fmt.Sprintf("/o%d", i)
		var parameters []any
		if m.chance(2) {
			path += "/{id}"
			parameters = append(parameters, m.parameter("path", 0))
		}
		open := false // one object accepts parameters that no other declares
		for n := range m.IntN(4) {
			p := m.parameter(pick(&m.maker, []string{"query", "query", "header", "cookie"}), n+1)
			if s, _ := p["schema"].(map[string]any); p["in"] != "path" && s["type"] == "object" &&
				p["style"] == "form" &&
				p["explode"] == true {
				if open {
					continue
				}
				open = true
			}
			parameters = append(parameters, p)
		}
		o := object(
			"operationId",
			fmt.Sprint("o", i),
			"security",
			[]any{},
			"parameters",
			parameters,
			"responses",
			object("204", object("description", "Done.")),
		)
		verb := pick(&m.maker, []string{"post", "post", "put", "get", "delete"})
		if verb == "post" || verb == "put" {
			o["requestBody"] = object("required", !m.chance(4), "content", m.content())
		}
		paths[path] = object(verb, o)
	}
	for i, l := range limits(version == v30) {
		o := object("operationId", fmt.Sprint("o", operations+i), "security", []any{},
			"responses", object("204", object("description", "Done.")))
		paths[fmt.Sprint("/limit", i)] = object("post", merged(o, l.operation))
	}
	ref := func(name string) map[string]any { return object("$ref", "#/components/schemas/"+name) }
	return object("openapi", version, "info", object("title", "t", "version", "1"), "paths", paths,
		"components", object("schemas", merged(m.components, object(
			"Color",
			object("type", "string", "enum", []any{"red", "green"}),
			"Size",
			object("type", "integer", "minimum", 1, "maximum", 50),
			"Cat",
			object(
				"type",
				"object",
				"required",
				[]any{"kind"},
				"properties",
				object("kind", object("type", "string"), "lives", object("type", "integer")),
			),
			"Dog",
			object(
				"type",
				"object",
				"required",
				[]any{"kind"},
				"properties",
				object("kind", object("type", "string"), "bark", object("type", "boolean")),
			),
			"Pet",
			object(
				"oneOf",
				[]any{ref("Cat"), ref("Dog")},
				"discriminator",
				object(
					"propertyName",
					"kind",
					"mapping",
					object("cat", "#/components/schemas/Cat", "dog", "#/components/schemas/Dog"),
				),
			),
			"Base",
			object(
				"type",
				"object",
				"required",
				[]any{"id"},
				"properties",
				object(
					"id",
					object("type", "string", "readOnly", true),
					"n",
					object("type", "integer"),
				),
			),
			"Derived",
			object(
				"allOf",
				[]any{
					ref("Base"),
					object(
						"type",
						"object",
						"properties",
						object("text", object("type", "string", "maxLength", 5)),
					),
				},
			),
			"Tree",
			object(
				"type",
				"object",
				"properties",
				object(
					"kids",
					object("type", "array", "items", ref("Tree")),
					"v",
					object("type", "integer"),
				),
			),
			"Map",
			object("type", "object", "additionalProperties", object("type", "integer")),
			"Open",
			object("type", "object", "additionalProperties", true),
		))))
}

func merged(a, b map[string]any) map[string]any {
	maps.Copy(a, b)
	return a
}

// text is a text for a schema, most of the time.
func (m *writer) text(s *openapi3.SchemaRef) string {
	if s == nil || s.Value == nil || m.chance(8) {
		return (&binder{m.maker}).text()
	}
	v := s.Value
	for _, part := range v.AllOf {
		return m.text(part)
	}
	if len(v.Enum) > 0 {
		return fmt.Sprint(pick(&m.maker, v.Enum))
	}
	if v.Type == nil {
		return (&binder{m.maker}).text()
	}
	switch {
	case v.Type.Includes("integer"):
		return pick(
			&m.maker,
			[]string{
				"1",
				"7",
				"100",
				"-3",
				"0",
				"1.0",
				"1e1",
				"-0",
				"12.50e1",
				"9223372036854775807",
				"18446744073709551615",
				"99999999999999999999",
				"1e30",
			},
		)
	case v.Type.Includes("number"):
		return pick(
			&m.maker,
			[]string{
				"1",
				"2.5",
				"-0.1",
				"1e3",
				"16777217",
				"9007199254740993",
				"1e400",
				"0.1000000000000000055",
				"1E-7",
			},
		)
	case v.Type.Includes("boolean"):
		return pick(&m.maker, []string{"true", "false", "true", "false", "1", "True"})
	}
	format := v.Format
	if format == "binary" {
		format = ""
	}
	return pick(&m.maker, map[string][]string{
		"date":      {"2026-02-28", "2024-02-29", "2025-02-29", "0000-01-01"},
		"date-time": {"2026-02-28T10:00:00Z", "2026-02-28t10:00:00.120+01:00", "2016-12-31T23:59:60Z", "2026-02-28T24:00:00Z", "2026-02-28T10:00:00.123456789012Z"},
		"uuid":      {"f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}"},
		"byte":      {"", "YWJj", "YWI=", "YWI", "+/+/", "-_-_"},
		"email":     {"a@example.com", "a@[127.0.0.1]", "A.b+c@example.com", "a@b"},
		"ipv4":      {"127.0.0.1", "1.2.3.04"},
		"uri":       {"https://example.com/?a=b&c#d", "urn:x:y", "x"},
		"time":      {"10:00:00Z", "10:00:00"},
		"":          {"", "a", "b", "abc", "ä", "a b", `"`, `\`, "a,b", "a=b", "a&b", "😀", "null", "1", "true", "a.b", "a;b", "a|b", "%41", "+", "/", "a/b", "[", "{}", " ", "\u2028"},
	}[format])
}

// value is a JSON text for a schema, most of the time.
func (m *writer) value(ref *openapi3.SchemaRef, depth int) string {
	if ref == nil || ref.Value == nil || depth > 5 || m.chance(40) {
		return pick(
			&m.maker,
			[]string{"null", "1", `"a"`, "true", "[]", "{}", `{"a":1}`, "1.0", "1e2"},
		)
	}
	s := ref.Value
	if len(s.OneOf) > 0 {
		kind := pick(&m.maker, []string{"cat", "dog"})
		return `{"kind":"` + kind + `",` + pick(
			&m.maker,
			[]string{`"lives":9`, `"bark":true`, `"lives":1.0`, `"Lives":1`, `"BARK":false`},
		) + "}"
	}
	if (s.Nullable || s.Type.Includes("null")) && m.chance(4) {
		return "null"
	}
	switch {
	case s.Type.Includes("array"):
		list := []string{}
		for range m.IntN(4) {
			list = append(list, m.value(s.Items, depth+1))
		}
		return "[" + strings.Join(list, ", ") + "]"
	case s.Type.Includes("object"), len(s.AllOf) > 0:
		return m.objectValue(s, depth)
	case s.Type.Includes("boolean"):
		return pick(&m.maker, []string{"true", "false"})
	case s.Type.Includes("integer"), s.Type.Includes("number"):
		return m.text(ref)
	}
	text := m.text(ref)
	if m.chance(10) && text != "" && text[0] < 0x80 && s.Format == "" {
		return fmt.Sprintf(`"\u%04x`, text[0]) + string(quote(nil, text[1:]))[1:]
	}
	return string(quote(nil, text))
}

func (m *writer) objectValue(s *openapi3.Schema, depth int) string {
	properties := map[string]*openapi3.SchemaRef{}
	var required []string
	for _, part := range append([]*openapi3.SchemaRef{{Value: s}}, s.AllOf...) {
		for name, p := range part.Value.Properties {
			properties[name] = p
		}
		required = append(required, part.Value.Required...)
	}
	var list []string
	member := func(name, value string) {
		switch m.IntN(40) {
		case 0:
			name = strings.ToUpper(name)
		case 1:
			name = strings.ToLower(name)
		case 2:
			name = strings.NewReplacer("s", "ſ", "k", "K").Replace(name)
		case 3:
			list = append(list, string(quote(nil, strings.ToUpper(name)))+":"+value)
		case 4:
			list = append(list, string(quote(nil, name))+" : "+value)
		}
		list = append(list, string(quote(nil, name))+":"+value)
	}
	for _, name := range sortedKeys(properties) {
		if slices.Contains(required, name) && !m.chance(20) || m.chance(2) {
			member(name, m.value(properties[name], depth+1))
		}
	}
	if s.AdditionalProperties.Schema != nil || s.AdditionalProperties.Has != nil || m.chance(10) {
		for range m.IntN(3) {
			member(
				pick(&m.maker, []string{"u", "v", "Id", "nAme", "ID"}),
				m.value(s.AdditionalProperties.Schema, depth+1),
			)
		}
	}
	m.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return "{" + strings.Join(list, pick(&m.maker, []string{",", ", ", "\n,"})) + "}"
}

func sortedKeys(all map[string]*openapi3.SchemaRef) (keys []string) {
	for name := range all {
		keys = append(keys, name)
	}
	slices.Sort(keys)
	return keys
}

// sentRequest is a request, with its parts.
type sentRequest struct {
	method, target, id string
	query              string
	header             http.Header
	contentType        string
	body               []byte
	parts              [][]string // of a multipart body
}

func (s *sentRequest) String() string {
	return fmt.Sprintf("%s %s %q %q %q", s.method, s.target, s.query, s.header, s.body)
}

// send sends the request, and returns what the handler has bound; nil if it was refused.
func (s *sentRequest) send(t *testing.T, server string) (map[string]json.RawMessage, string) {
	t.Helper()
	u, err := url.Parse(server + s.target)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = s.query
	r := &http.Request{Method: s.method, URL: u, Header: s.header.Clone(), Host: u.Host}
	if s.body != nil {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(s.body)), int64(len(s.body))
	}
	client := http.Client{Timeout: 60 * time.Second}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Sprint(response.StatusCode, " ", string(text))
	}
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return answer, string(text)
}

// request makes a request of an operation.
func (g *generated) request(o *boundOperation) *sentRequest {
	s := &sentRequest{method: o.method, target: o.base, header: http.Header{}}
	var query, cookies []string
	for _, spec := range parametersOf(o.item, o.spec) {
		if spec.In != "path" && !spec.Required && g.chance(3) {
			continue
		}
		if spec.Required && g.chance(30) && spec.In != "path" {
			continue
		}
		g.send(s, spec, &query, &cookies)
	}
	if g.chance(40) {
		query = append(query, "zz=1")
	}
	g.Shuffle(len(query), func(i, j int) { query[i], query[j] = query[j], query[i] })
	s.query = strings.Join(query, "&")
	if cookies != nil {
		s.header.Set("Cookie", strings.Join(cookies, "; "))
	}
	if o.spec.RequestBody != nil && (o.spec.RequestBody.Value.Required || !g.chance(4)) {
		g.sendBody(s, o.spec.RequestBody.Value.Content)
	}
	return s
}

// send puts a parameter into a request.
func (g *generated) send(s *sentRequest, spec *openapi3.Parameter, query, cookies *[]string) {
	escape := func(text string) string {
		if g.chance(10) {
			return strings.ReplaceAll(url.QueryEscape(text), "%2C", ",")
		}
		return url.QueryEscape(text)
	}
	if spec.Content != nil {
		text := g.value(spec.Content["application/json"].Schema, 0)
		switch spec.In {
		case "query":
			*query = append(*query, escape(spec.Name)+"="+escape(text))
		case "cookie":
			*cookies = append(*cookies, spec.Name+"="+url.QueryEscape(text))
		default:
			s.set(spec.Name, text)
		}
		return
	}
	p := parameter{
		style:   spec.Style,
		explode: spec.Explode != nil && *spec.Explode,
		name:    spec.Name,
		in:      spec.In,
	}
	schema := spec.Schema.Value
	isList, isObject := schema.Type.Includes("array"), schema.Type.Includes("object")
	var names, texts []string
	switch {
	case isList:
		for range 1 + g.IntN(3) {
			texts = append(texts, g.text(schema.Items))
		}
	case isObject:
		for _, name := range sortedKeys(schema.Properties) {
			if g.IntN(3) > 0 {
				names, texts = append(names, name), append(texts, g.text(schema.Properties[name]))
			}
		}
		if g.chance(12) || len(names) == 0 {
			names, texts = append(
				names,
				pick(&g.maker, []string{"r", "G", "z", "R", "X-Y"}),
			), append(
				texts,
				"a",
			)
		}
	default:
		texts = []string{g.text(spec.Schema)}
	}
	if p.style == "deepObject" {
		for i, name := range names {
			member := schema.Properties[name]
			root := spec.Name + "[" + name + "]"
			switch {
			case member != nil && member.Value.Type.Includes("array"):
				for j := range 1 + g.IntN(2) {
					at := pick(
						&g.maker,
						[]string{fmt.Sprintf("[%d]", j), fmt.Sprintf("[%d]", j), "", "[]", "[00]"},
					)
					*query = append(*query, escape(root+at)+"="+escape(g.text(member.Value.Items)))
				}
			case member != nil && member.Value.Type.Includes("object"):
				for _, inner := range sortedKeys(member.Value.Properties) {
					*query = append(
						*query,
						escape(
							root+"["+inner+"]",
						)+"="+escape(
							g.text(member.Value.Properties[inner]),
						),
					)
				}
			default:
				*query = append(*query, escape(root)+"="+escape(texts[i]))
			}
		}
		return
	}
	list := texts
	if isObject {
		list = nil
		for i := range names {
			if p.explode {
				list = append(list, names[i]+"="+texts[i])
			} else {
				list = append(list, names[i], texts[i])
			}
		}
	}
	text := strings.Join(list, p.delimiter())
	switch spec.In {
	case "path":
		switch p.style {
		case "label":
			text = "." + text
		case "matrix":
			prefix := ";" + p.name + "="
			if p.explode && isObject {
				prefix = ";"
			}
			if p.explode {
				text = strings.Join(list, prefix)
			}
			text = prefix + text
		}
		s.id = text
		s.target += url.PathEscape(text)
	case "header":
		if g.chance(3) {
			text = strings.ReplaceAll(text, ",", ", ")
		}
		s.set(spec.Name, text)
	case "cookie":
		switch {
		case p.explode && isObject:
			*cookies = append(*cookies, list...)
		case p.explode && isList && g.chance(2):
			for _, element := range list {
				*cookies = append(*cookies, spec.Name+"="+element)
			}
		default:
			*cookies = append(*cookies, spec.Name+"="+text)
		}
	default:
		switch {
		case p.explode && isObject:
			for i := range names {
				*query = append(*query, escape(names[i])+"="+escape(texts[i]))
			}
		case p.explode && isList:
			for _, element := range list {
				*query = append(*query, escape(spec.Name)+"="+escape(element))
			}
		default:
			*query = append(*query, escape(spec.Name)+"="+escape(text))
		}
	}
}

// set sets a header with a value that net/http sends unchanged.
func (s *sentRequest) set(name, value string) {
	if !strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		s.header[textproto.CanonicalMIMEHeaderKey(name)] = []string{strings.Trim(value, " \t")}
	}
}

func (g *generated) sendBody(s *sentRequest, content openapi3.Content) {
	var media []string
	for name := range content {
		media = append(media, name)
	}
	slices.Sort(media)
	s.contentType = pick(&g.maker, media)
	schema := content[s.contentType].Schema
	switch {
	case isJSON(mediaRange(s.contentType).essence):
		s.body = []byte(g.value(schema, 0))
		if g.chance(30) {
			s.body = append(s.body, "{}"...)
		}
		if s.contentType == "application/json; charset=utf-8" && g.chance(2) {
			s.contentType = "application/json"
		}
	case isForm(s.contentType):
		var fields []string
		for _, f := range g.fields(schema.Value) {
			fields = append(fields, url.QueryEscape(f[0])+"="+url.QueryEscape(f[1]))
		}
		s.body = []byte(strings.Join(fields, "&"))
	case isMultipart(s.contentType):
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		s.parts = [][]string{}
		for _, f := range g.fields(schema.Value) {
			file := ""
			var part io.Writer
			if p := schema.Value.Properties[f[0]]; p != nil && p.Value.Format == "binary" {
				file = "f.bin"
				part, _ = w.CreateFormFile(f[0], file)
			} else {
				part, _ = w.CreateFormField(f[0])
			}
			_, _ = io.WriteString(part, f[1])
			s.parts = append(s.parts, []string{f[0], file, f[1]})
		}
		w.Close()
		s.contentType, s.body = w.FormDataContentType(), b.Bytes()
	default:
		s.body = []byte(g.text(nil))
	}
	if g.chance(10) {
		s.contentType = pick(&g.maker, []string{
			strings.Replace(
				s.contentType,
				"application/",
				"Application/",
				1,
			), s.contentType + " ; a=b", "text/html",
		})
	}
	if len(s.body) == 0 {
		s.body, s.contentType = nil, ""
		return
	}
	s.header.Set("Content-Type", s.contentType)
}

// fields are the fields of a form, by name and text.
func (g *generated) fields(s *openapi3.Schema) (all [][2]string) {
	for _, name := range sortedKeys(s.Properties) {
		p := s.Properties[name]
		switch {
		case !slices.Contains(s.Required, name) && g.chance(3):
		case p.Value.Type.Includes("array"):
			suffix := pick(&g.maker, []string{"", "", "[]"})
			for range 1 + g.IntN(3) {
				all = append(all, [2]string{name + suffix, g.text(p.Value.Items)})
			}
		case p.Value.Type.Includes("object"):
			for _, inner := range sortedKeys(p.Value.Properties) {
				all = append(
					all,
					[2]string{name + "[" + inner + "]", g.text(p.Value.Properties[inner])},
				)
			}
		case g.chance(20):
			all = append(all, [2]string{strings.ToUpper(name), g.text(p)})
		default:
			all = append(all, [2]string{name, g.text(p)})
		}
	}
	if g.chance(8) {
		all = append(all, [2]string{"other", "1"})
	}
	return all
}
