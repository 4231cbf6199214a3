package schema

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/runtime"
)

// TestBinding tests the guarantee for parameters and forms: the binders of generated code bind the
// accepted value of each accepted request. The types are those of the generator, with float64 for
// numbers.
func TestBinding(t *testing.T) {
	m := &binder{maker: maker{Rand: rand.New(rand.NewPCG(9, 10))}}
	count := 4000
	if testing.Short() {
		count = 400
	}
	accepted, rewritten := 0, 0
	for range count {
		spec := m.parameter()
		o, faults := m.compile(t, spec)
		if faults != nil {
			t.Fatal(faults, spec)
		}
		for range 12 {
			r := httptest.NewRequest("POST", "/p/1", nil)
			path := m.send(r, spec)
			if path == "" {
				continue // no segment is another path
			}
			a, err := o.Check(r, func(string) string { return path }, Content{})
			if err != nil {
				continue
			}
			accepted++
			if r.URL.RawQuery != a.RawQuery || a.Header != nil {
				rewritten++
			}
			bound := a.Apply(r.Context(), r)
			dest := reflect.New(m.typeOf(spec["schema"].(map[string]any)))
			present, err := m.bind(bound, path, spec, dest.Interface())
			if err != nil {
				if strings.Contains(err.Error(), "json: cannot unmarshal string") {
					// members that are not strings, in styles that bind only strings: refused
					continue
				}
				t.Fatalf("%v: %q %v cannot be bound: %v", spec, bound.URL.RawQuery, bound.Header,
					err)
			}
			// The accepted value, from what is bound, by the same engine.
			p := append(append(append(append([]*parameter{}, o.path...), o.query...), o.header...),
				o.cookie...)[0]
			want := m.accepted(t, p, bound, path)
			if !present {
				if want != nil {
					t.Fatalf("%v: %q %v is not bound, accepted %s", spec, bound.URL.RawQuery,
						bound.Header, want)
				}
				continue
			}
			got, err := json.Marshal(dest.Interface())
			if err != nil {
				t.Fatal(err)
			}
			x, _ := appendCanonical(nil, got, 0)
			y, _ := appendCanonical(nil, want, 0)
			if string(x) != string(y) {
				t.Fatalf("%v: %q %v binds %s, accepted %s", spec, r.URL.RawQuery, r.Header, got,
					want)
			}
		}
	}
	t.Logf("%d accepted, %d rewritten", accepted, rewritten)
	if accepted < count || rewritten < count/10 {
		t.Error("the corpus says little")
	}
}

type binder struct{ maker }

func (m *binder) scalar() map[string]any {
	return pick(&m.maker, []map[string]any{
		{"type": "string"}, {"type": "string", "maxLength": 3}, {"type": "integer"},
		{"type": "integer", "maximum": 100}, {"type": "number"}, {"type": "boolean"},
		{"type": "string", "enum": []any{"a", "b"}},
	})
}

func (m *binder) parameter() map[string]any {
	in := pick(&m.maker, []string{"path", "query", "header", "cookie"})
	schema := m.scalar()
	styles := map[string][]string{"path": {"simple", "label", "matrix"}, "query": {"form"},
		"header": {"simple"}, "cookie": {"form"}}[in]
	switch m.IntN(3) {
	case 0:
		schema = map[string]any{"type": "array", "items": m.scalar()}
		if in == "query" {
			styles = []string{"form", "form", "spaceDelimited", "pipeDelimited"}
		}
	case 1:
		schema = map[string]any{"type": "object", "properties": map[string]any{"R": m.scalar(),
			"g": m.scalar()}}
		if m.IntN(2) == 0 {
			schema["additionalProperties"] = false
		}
		if in == "query" {
			styles = []string{"form", "deepObject", "form"}
		}
	}
	p := map[string]any{"name": "p", "in": in, "schema": schema, "style": pick(&m.maker, styles),
		"explode": m.IntN(2) == 0}
	if p["style"] == "deepObject" {
		p["explode"] = true
	}
	if in == "path" {
		p["required"] = true
	}
	return p
}

func (m *binder) compile(t *testing.T, spec map[string]any) (*Operation, []error) {
	document := map[string]any{
		"openapi": v31, "info": map[string]any{"title": "t", "version": "1"},
		"paths": map[string]any{"/p/{p}": map[string]any{"post": map[string]any{
			"parameters": []any{spec},
			"responses":  map[string]any{"204": map[string]any{"description": "d"}},
		}}},
	}
	doc := loadDocument(t, document)
	item := doc.Paths.Value("/p/{p}")
	return NewCompiler(doc, Options{}).Operation(item, item.Post)
}

func (m *binder) text() string {
	return pick(&m.maker, []string{
		"a", "b", "abc", "", "1", "1.0", "1e1", "-0", "2.5", "007", "true", "false", "TRUE", "ä", "a b", `"`, `a"b`,
		`\`, "x-y", "100", "1e400", "a=b", "a&b", "😀", "null", " 1", "a.b", "a;b",
	})
}

// send puts a random value, or something similar, into a request. It returns the path parameter.
func (m *binder) send(r *http.Request, spec map[string]any) string {
	style, explode := spec["style"].(string), spec["explode"].(bool)
	var names, texts []string
	for range 1 + m.IntN(2) {
		names = append(names, pick(&m.maker, []string{"R", "g", "g", "r", "z"}))
		texts = append(texts, m.text())
	}
	delimiter := map[string]string{"spaceDelimited": " ", "pipeDelimited": "|"}[style]
	if delimiter == "" {
		delimiter = ","
	}
	var list []string
	switch spec["schema"].(map[string]any)["type"] {
	case "object":
		for i := range names {
			if explode {
				list = append(list, names[i]+"="+texts[i])
			} else {
				list = append(list, names[i], texts[i])
			}
		}
	case "array":
		list = texts
	default:
		list = texts[:1]
	}
	text := strings.Join(list, delimiter)
	query := url.Values{}
	switch spec["in"] {
	case "path":
		switch style {
		case "label":
			if explode {
				text = strings.Join(list, ".")
			}
			text = "." + text
		case "matrix":
			prefix := ";p="
			if explode && spec["schema"].(map[string]any)["type"] == "object" {
				prefix = ";"
			}
			if explode {
				text = strings.Join(list, prefix)
			}
			text = prefix + text
		}
		return text
	case "header":
		r.Header["P"] = []string{
			strings.Trim(strings.Join(list, pick(&m.maker, []string{",", ", "})), " \t")}
	case "cookie":
		r.Header.Set("Cookie", "other=1; p="+text)
		if explode && m.IntN(2) == 0 && len(list) > 1 {
			r.Header.Set("Cookie", "p="+list[0]+"; p="+list[1])
		}
		if explode && spec["schema"].(map[string]any)["type"] == "object" {
			r.Header.Set("Cookie", strings.Join(list, "; "))
		}
	default:
		switch typ := spec["schema"].(map[string]any)["type"]; {
		case style == "deepObject":
			for i := range names {
				query.Add("p["+names[i]+"]", texts[i])
			}
		case explode && typ == "object":
			for i := range names {
				query.Add(names[i], texts[i])
			}
		case explode && typ == "array":
			query["p"] = texts
		default:
			query.Set("p", text)
		}
		r.URL.RawQuery = query.Encode()
	}
	return "1"
}

func (m *binder) typeOf(schema map[string]any) reflect.Type {
	switch schema["type"] {
	case "integer":
		return reflect.TypeFor[int]()
	case "number":
		return reflect.TypeFor[float64]()
	case "boolean":
		return reflect.TypeFor[bool]()
	case "array":
		return reflect.SliceOf(m.typeOf(schema["items"].(map[string]any)))
	case "object":
		var fields []reflect.StructField
		for i, name := range []string{"R", "g"} {
			fields = append(fields, reflect.StructField{
				Name: fmt.Sprintf("F%d", i),
				Type: reflect.PointerTo(
					m.typeOf(schema["properties"].(map[string]any)[name].(map[string]any))),
				Tag: reflect.StructTag(`json:"` + name + `,omitempty"`),
			})
		}
		return reflect.StructOf(fields)
	}
	return reflect.TypeFor[string]()
}

// bind does the work of the generated wrappers. It reports whether there is a value to bind.
func (m *binder) bind(r *http.Request, path string, spec map[string]any, dest any) (bool, error) {
	style, explode := spec["style"].(string), spec["explode"].(bool)
	options := runtime.BindStyledParameterOptions{Explode: explode}
	switch spec["in"] {
	case "path":
		options.ParamLocation = runtime.ParamLocationPath
		options.Required, options.ValueIsUnescaped = true, true
		return true, runtime.BindStyledParameterWithOptions(style, "p", path, dest, options)
	case "header":
		options.ParamLocation = runtime.ParamLocationHeader
		return true, runtime.BindStyledParameterWithOptions("simple", "p", r.Header.Get("P"), dest,
			options)
	case "cookie":
		cookie, err := r.Cookie("p")
		if err != nil {
			return false, nil
		}
		options.ParamLocation = runtime.ParamLocationCookie
		return true, runtime.BindStyledParameterWithOptions("simple", "p", cookie.Value, dest,
			options)
	}
	query := r.URL.Query()
	err := runtime.BindQueryParameterWithOptions(style, explode, false, "p", query, dest,
		runtime.BindQueryParameterOptions{})
	return len(query) > 0, err
}

// accepted returns the value of a bound parameter or form by the engine, or nil.
func (m *binder) accepted(t *testing.T, p *parameter, r *http.Request, path string) []byte {
	t.Helper()
	var text []byte
	var err error
	switch p.in {
	case openapi3.ParameterInPath:
		text, err = p.decode(path)
	case openapi3.ParameterInHeader:
		text, err = m.inner(p, r.Header.Get("P"))
	case openapi3.ParameterInCookie:
		cookie, missing := r.Cookie("p")
		if missing != nil {
			return nil
		}
		text, err = m.inner(p, cookie.Value)
	default:
		pairs, _ := appendPairs(nil, r.URL.RawQuery)
		if len(pairs) == 0 {
			return nil
		}
		if p.style != "deepObject" && !p.exploded() && !p.repeated() {
			text, err = m.inner(p, pairs[0].value)
		} else {
			text, err = p.decodePairs(pairs)
		}
	}
	if err == nil {
		text, err = p.check(text, new(time.Duration))
	}
	if err != nil {
		t.Fatalf("what is to be bound is refused: %v", err)
	}
	return text
}

// inner decodes the one text of a parameter. The texts of an object's members are insides of JSON
// strings there.
func (m *binder) inner(p *parameter, text string) ([]byte, error) {
	if !p.shape.is(kindObject) {
		return p.decode(text)
	}
	pairs, err := p.pairs(text)
	if err != nil {
		return nil, err
	}
	for i := range pairs {
		if err := json.Unmarshal([]byte(`"`+pairs[i].value+`"`), &pairs[i].value); err != nil {
			return nil, err
		}
	}
	return p.object(pairs)
}

// TestFormBinding does the same for urlencoded forms.
func TestFormBinding(t *testing.T) {
	m := &binder{maker: maker{Rand: rand.New(rand.NewPCG(11, 12))}}
	count := 3000
	if testing.Short() {
		count = 300
	}
	accepted := 0
	for range count {
		properties, fields := map[string]any{}, []reflect.StructField{}
		for i, name := range []string{"a", "b", "c"} {
			var schema map[string]any
			switch m.IntN(4) {
			case 0:
				schema = map[string]any{"type": "array", "items": m.scalar()}
			case 1:
				schema = map[string]any{"type": "object",
					"properties": map[string]any{"R": m.scalar(), "g": m.scalar()}}
			default:
				schema = m.scalar()
			}
			properties[name] = schema
			typ := m.typeOf(schema)
			if schema["type"] != "array" {
				typ = reflect.PointerTo(typ)
			}
			fields = append(fields, reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: typ, Tag: reflect.StructTag(`json:"` + name + `,omitempty"`)})
		}
		document := map[string]any{
			"openapi": v31, "info": map[string]any{"title": "t", "version": "1"},
			"paths": map[string]any{"/p": map[string]any{"post": map[string]any{
				"requestBody": map[string]any{
					"content": map[string]any{"application/x-www-form-urlencoded": map[string]any{
						"schema": map[string]any{"type": "object", "properties": properties},
					}}},
				"responses": map[string]any{"204": map[string]any{"description": "d"}},
			}}},
		}
		doc := loadDocument(t, document)
		item := doc.Paths.Value("/p")
		o, faults := NewCompiler(doc, Options{}).Operation(item, item.Post)
		if faults != nil {
			t.Fatal(faults)
		}
		for range 20 {
			var pairs []pair
			for range 1 + m.IntN(3) {
				name := pick(&m.maker, []string{"a", "b", "c", "A", "z", "a[]", "a[0]", "b[R]",
					"c[g]", "a[R]"})
				pairs = append(pairs, pair{name, m.text()})
			}
			r := httptest.NewRequest("POST", "/p", nil)
			a, err := o.Check(r, nil, Content{Essence: "application/x-www-form-urlencoded",
				Body: []byte(encodePairs(pairs))})
			if err != nil {
				continue
			}
			accepted++
			dest := reflect.New(reflect.StructOf(fields))
			if err := runtime.BindForm(dest.Interface(), a.Form, nil, nil); err != nil {
				t.Fatalf("%v: %v: %v cannot be bound: %v", properties, pairs, a.Form, err)
			}
			got, err := json.Marshal(dest.Interface())
			if err != nil {
				t.Fatal(err)
			}
			want := acceptedForm(t, o, a)
			x, _ := appendCanonical(nil, got, 0)
			y, _ := appendCanonical(nil, want, 0)
			if string(x) != string(y) {
				t.Fatalf("%v: %v binds %s, accepted %s", properties, pairs, got, want)
			}
		}
	}
	t.Logf("%d accepted", accepted)
	if accepted < count {
		t.Error("the corpus says little")
	}
}

// acceptedForm returns the value of the form to bind, by the engine.
func acceptedForm(t *testing.T, o *Operation, a *Accepted) []byte {
	t.Helper()
	f := fields{body: o.bodies[0], byName: map[string]*field{}}
	pairs, _ := appendPairs(nil, string(a.Body))
	for _, p := range pairs {
		one, path, ok := f.named(p.name)
		if !ok {
			t.Fatalf("%s is written", p.name)
		}
		one.tree.add(path, p.value)
	}
	text, err := f.json()
	if err == nil {
		text, err = o.bodies[0].schema.Validate(text)
	}
	if err != nil {
		t.Fatalf("what is to be bound is refused: %v", err)
	}
	return text
}

func FuzzRequest(f *testing.F) {
	doc := loadDocument(f, map[string]any{
		"openapi": v31, "info": map[string]any{"title": "t", "version": "1"},
		"paths": map[string]any{"/p": map[string]any{"post": map[string]any{
			"parameters": []any{
				map[string]any{"name": "f", "in": "query", "style": "deepObject", "explode": true,
					"schema": map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "array", "items": map[string]any{"type": "integer"}}}}},
				map[string]any{"name": "o", "in": "query", "explode": false,
					"schema": map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}}}},
				map[string]any{"name": "X-L", "in": "header",
					"schema": map[string]any{"type": "array", "items": map[string]any{"type": "number"}}},
				map[string]any{"name": "c", "in": "cookie",
					"schema": map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}}}},
			},
			"requestBody": map[string]any{"content": map[string]any{
				"application/x-www-form-urlencoded": map[string]any{"schema": map[string]any{"type": "object", "additionalProperties": true}},
				"multipart/form-data":               map[string]any{"schema": map[string]any{"type": "object"}},
			}},
			"responses": map[string]any{"204": map[string]any{"description": "d"}},
		}}},
	})
	item := doc.Paths.Value("/p")
	o, faults := NewCompiler(doc, Options{}).Operation(item, item.Post)
	if faults != nil {
		f.Fatal(faults)
	}
	f.Add("f[a][0]=1&o=a,b", "1, 2", "a=b", "a=1&b[c]=2")
	f.Add("f[a][00]=1&f[a]=2", "1,,2", "c=a=b&c=d", "a[=1&a[]=2")
	f.Add("o=%22", "x", "c=\\",
		"--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n")
	f.Fuzz(func(t *testing.T, query, header, cookie, body string) {
		r := httptest.NewRequest("POST", "/p", nil)
		r.URL.RawQuery, r.Header = query, http.Header{"X-L": {header}, "Cookie": {cookie}}
		for _, essence := range []string{"application/x-www-form-urlencoded",
			"multipart/form-data"} {
			content := Content{Essence: essence, Params: map[string]string{"boundary": "b"},
				Body: []byte(body)}
			a, err := o.Check(r, nil, content)
			if err != nil {
				continue
			}
			// The rewritten value is accepted, if it can be sent.
			bound := a.Apply(r.Context(), r)
			if _, err := o.Check(bound, nil, Content{Essence: essence, Params: content.Params,
				Body: a.Body}); err != nil &&
				!strings.Contains(bound.URL.RawQuery+bound.Header.Get("Cookie"), "u00") {
				t.Errorf("%q %q %q is to be bound and refused: %v", bound.URL.RawQuery,
					bound.Header, a.Body, err)
			}
		}
	})
}
