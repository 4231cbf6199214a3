package schema

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// compileOperation compiles the one operation of a document, whose parameters or requestBody the
// text states.
func compileOperation(t testing.TB, version, text string) (*Operation, []error) {
	t.Helper()
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = true
	document := "openapi: " + version + "\ninfo: {title: t, version: '1'}\npaths:\n  /p/{id}:\n  " +
		"  post:\n      responses: {'204': {description: d}}\n"
	for line := range strings.Lines(text) {
		document += "      " + line
	}
	doc, err := loader.LoadFromData([]byte(document))
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	item := doc.Paths.Value("/p/{id}")
	return NewCompiler(doc, Options{}).Operation(item, item.Post)
}

func mustOperation(t testing.TB, version, text string) *Operation {
	t.Helper()
	o, faults := compileOperation(t, version, text)
	if faults != nil {
		t.Fatal(errors.Join(faults...), text)
	}
	return o
}

// outcome is how a request is bound, or why it is refused.
func outcome(a *Accepted, err error) string {
	if err != nil {
		e, _ := errors.AsType[*Error](err)
		if e == nil {
			return "? " + err.Error()
		}
		var all []string
		for _, d := range e.Details {
			all = append(all, strings.TrimSpace(d.In+" "+d.Name)+d.Pointer+" "+d.Keyword)
		}
		if all == nil {
			return "refused: " + string(e.Kind)
		}
		return "refused: " + strings.Join(all, ", ")
	}
	return "ok"
}

func TestParameters(t *testing.T) {
	color := func(in, more string) string {
		return "parameters: [{name: color, in: " + in + ", " + more + "schema: {type: object, " +
			"additionalProperties: false, properties: {R: {type: string, maxLength: 3}, G: " +
			"{type: string}, B: {type: string}}}}]"
	}
	list := func(in, more, items string) string {
		return "parameters: [{name: x, in: " + in + ", " + more + "schema: {type: array, items: " +
			items + "}}]"
	}
	one := func(in, schema string) string {
		return "parameters: [{name: x, in: " + in + ", schema: " + schema + "}]"
	}
	path := func(more, schema string) string {
		return "parameters: [{name: id, in: path, required: true, " + more + "schema: " + schema +
			"}]"
	}
	for _, c := range []struct{ operation, in, text, want, bound string }{
		// The names of members are exact; others, and doubled ones, are refused where the schema is
		// closed.
		{color("query", "explode: false, "), "query", "color=R,1,G,2", "ok", "color=R,1,G,2"},
		{color("query", "explode: false, "), "query", "color=R,1,r,2", "refused: query color/* additionalProperties", ""},
		{color("query", "explode: false, "), "query", "color=r,abcdef", "refused: query color/* additionalProperties", ""},
		{color("query", "explode: false, "), "query", "color=R,1,X,2", "refused: query color/* additionalProperties", ""},
		{color("query", "explode: false, "), "query", "color=R,1,R,2", "refused: query color syntax", ""},
		{color("query", "explode: false, "), "query", "color=R,1,G", "refused: query color style", ""},
		{color("query", "explode: false, "), "query", `color=R,a%22`, "ok", `color=R,a\u0022`},
		{"parameters: [{name: color, in: query, explode: false, schema: {type: object, properties: {R: {type: string, maxLength: 3}}}}]", "query", "color=r,abcdef", "refused: query color style", ""},
		{"parameters: [{name: color, in: query, explode: false, schema: {type: object, properties: {R: {type: string, maxLength: 3}}}}]", "query", "color=R,1,r,abcdef", "ok", "color=R,1"},
		{color("query", ""), "query", "R=1&G=2", "ok", "R=1&G=2"},
		{color("query", ""), "query", "R=1&r=2", "refused: query parameters", ""},
		{color("query", ""), "query", "R=1&R=2", "refused: query color syntax", ""},
		{color("query", "style: deepObject, explode: true, "), "query", "color[R]=1&color[G]=2", "ok", "color[R]=1&color[G]=2"},
		{color("query", "style: deepObject, explode: true, "), "query", "color[r]=1", "refused: query parameters", ""},
		{color("query", "style: deepObject, explode: true, "), "query", "color[R]=1&color[R]=2", "refused: query color/R type", ""},
		{color("query", "style: deepObject, explode: true, "), "query", "color[R][x]=1", "refused: query color/R type", ""},
		{color("query", "style: pipeDelimited, explode: false, "), "query", "color=R|1|G|2", "ok", "color=R|1|G|2"},
		{color("header", ""), "header", "R, 1 ,G,2", "ok", "R,1,G,2"},
		{color("header", ""), "header", "r,abcdef", "refused: header color/* additionalProperties", ""},
		{color("header", "explode: true, "), "header", "R=1, G=2", "ok", "R=1,G=2"},
		{color("cookie", "explode: false, "), "cookie", "color=R,1", "ok", "color=R,1"},
		{color("cookie", "explode: false, "), "cookie", "color=r,abcdef", "refused: cookie color/* additionalProperties", ""},
		{color("cookie", ""), "cookie", "R=1; G=2", "ok", "color=R=1,G=2"},
		// A header's elements are trimmed.
		{list("header", "", "{type: string, enum: [a, b]}"), "header", "a, b", "ok", "a,b"},
		{list("header", "", "{type: string, maxLength: 3}"), "header", "a,    abc", "ok", "a,abc"},
		{list("header", "", "{type: integer}"), "header", "1, 2", "ok", "1,2"},
		{list("header", "", "{type: integer}"), "header", "1, 2.0", "ok", "1,2"},
		{list("header", "", "{type: integer}"), "header", "1,,2", "refused: header x items", ""},
		{list("query", "", "{type: integer}"), "query", "x=1&x=2.0", "ok", "x=1&x=2"},
		{list("query", "", "{type: string}"), "query", "x=a%2Cb&x=", "ok", "x=a%2Cb&x="},
		{list("query", "explode: false, ", "{type: integer}"), "query", "x=1%2C2", "ok", "x=1%2C2"},
		{list("query", "explode: false, ", "{type: integer}"), "query", "x=1&x=2", "refused: query x style", ""},
		{list("query", "style: spaceDelimited, explode: false, ", "{type: integer}"), "query", "x=1%201e1", "ok", "x=1+10"},
		{list("query", "style: pipeDelimited, explode: false, ", "{type: integer}"), "query", "x=1|2", "ok", "x=1|2"},
		{list("cookie", "", "{type: integer}"), "cookie", "x=1; x=2", "ok", "x=1,2"},
		{list("cookie", "", "{type: integer}"), "cookie", "x=1&x=2", "ok", "x=1,2"},
		{list("cookie", "explode: false, ", "{type: integer}"), "cookie", "x=1,2", "ok", "x=1,2"},
		// Texts are what JSON calls them.
		{one("query", "{type: boolean}"), "query", "x=true", "ok", "x=true"},
		{one("query", "{type: boolean}"), "query", "x=1", "refused: query x type", ""},
		{one("query", "{type: boolean}"), "query", "x=t", "refused: query x type", ""},
		{one("query", "{type: boolean}"), "query", "x=TRUE", "refused: query x type", ""},
		{one("query", "{type: boolean}"), "query", "x=False", "refused: query x type", ""},
		{one("query", "{type: number}"), "query", "x=16777217", "ok", "x=16777217"},
		{one("query", "{type: integer}"), "query", "x=1e2", "ok", "x=100"},
		{one("query", "{type: integer}"), "query", "x=1.0", "ok", "x=1"},
		{one("query", "{type: integer}"), "query", "x=9223372036854775808", "refused: query x type", ""},
		{list("query", "", "{type: integer}"), "query", "x=1&x=9223372036854775808", "refused: query x type", ""},
		{list("cookie", "", "{type: string}"), "cookie", "x=a,b; x=c", "refused: cookie x style", ""},
		{one("query", "{type: integer}"), "query", "x=007", "refused: query x type", ""},
		{one("query", "{type: integer}"), "query", "x=%2B1", "refused: query x type", ""},
		{one("query", "{type: integer}"), "query", "x=", "refused: query x type", ""},
		{one("query", "{type: integer}"), "query", "x=1&x=1", "refused: query x style", ""},
		{one("query", "{type: integer, format: int32}"), "query", "x=2147483648", "refused: query x format", ""},
		{one("query", "{type: number}"), "query", "x=Inf", "refused: query x type", ""},
		{one("query", "{type: number}"), "query", "x=0x1p4", "refused: query x type", ""},
		{one("query", "{type: string}"), "query", "x=", "ok", "x="},
		{one("query", "{type: string}"), "query", "x=a%00", "refused: query x type", ""},
		{one("query", "{type: string}"), "query", "x=%ff", "refused: query x type", ""},
		{one("query", "{type: string}"), "query", "x=%zz", "refused: query syntax", ""},
		{one("query", "{type: string}"), "query", "y=1", "refused: query parameters", ""},
		{one("query", "{type: [integer, string]}"), "query", "x=1e1", "ok", "x=10"},
		{one("query", "{oneOf: [{type: integer}, {type: string}]}"), "query", "x=abc", "ok", "x=abc"},
		{one("query", "{enum: [1, 2]}"), "query", "x=1", "ok", "x=1"},
		{one("query", "{oneOf: [{type: string, enum: [all]}, {type: array, minItems: 2, items: {type: string}}]}"), "query", "x=all", "ok", "x=all"},
		{one("query", "{oneOf: [{type: string, enum: [all]}, {type: array, minItems: 2, items: {type: string}}]}"), "query", "x=a&x=b", "ok", "x=a&x=b"},
		{one("query", "{oneOf: [{type: string, enum: [all]}, {type: array, minItems: 2, items: {type: string}}]}"), "query", "x=a", "refused: query x oneOf, query x minItems", ""},
		{one("query", "{}"), "query", "x=1", "ok", "x=1"},
		{"parameters: [{name: x, in: query, allowEmptyValue: true, schema: {type: boolean}}]", "query", "x", "ok", ""},
		{"parameters: [{name: x, in: query, required: true, schema: {type: boolean}}]", "query", "", "refused: query x required", ""},
		{"parameters: [{name: x, in: header, required: true, schema: {type: boolean}}]", "query", "", "refused: header x required", ""},
		{"parameters: [{name: x, in: cookie, required: true, schema: {type: boolean}}]", "query", "", "refused: cookie x required", ""},
		// A path is not rewritten.
		{path("", "{type: string, format: uuid}"), "path", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "ok", ""},
		{path("", "{type: string, format: uuid}"), "path", "{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}", "refused: path id format", ""},
		{path("", "{type: string, format: uuid}"), "path", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "refused: path id format", ""},
		{path("", "{type: string, format: uuid}"), "path", "f81d4fae7dec11d0a76500a0c91e6bf6", "refused: path id format", ""},
		{path("", "{type: integer}"), "path", "1", "ok", ""},
		{path("", "{type: integer}"), "path", "1.0", "refused: path id style", ""},
		{path("", "{type: integer}"), "path", "1e0", "refused: path id style", ""},
		{path("", "{type: array, items: {type: integer}}"), "path", "1,2", "ok", ""},
		{path("", "{type: object, properties: {R: {type: string, maxLength: 3}}, additionalProperties: false}"), "path", "R,abc", "ok", ""},
		{path("explode: true, ", "{type: object, properties: {R: {type: string, maxLength: 3}}, additionalProperties: false}"), "path", "R=abc,r=abcdef", "refused: path id/* additionalProperties", ""},
		{path("explode: true, ", "{type: object, properties: {R: {type: string, maxLength: 3}}}"), "path", "R=abc,r=abcdef", "refused: path id style", ""},
		{path("style: label, ", "{type: integer}"), "path", ".5", "ok", ""},
		{path("style: label, ", "{type: integer}"), "path", "5", "refused: path id style", ""},
		{path("style: label, explode: true, ", "{type: array, items: {type: integer}}"), "path", ".5.6", "ok", ""},
		{path("style: matrix, ", "{type: array, items: {type: integer}}"), "path", ";id=5,6", "ok", ""},
		{path("style: matrix, explode: true, ", "{type: array, items: {type: integer}}"), "path", ";id=5;id=6", "ok", ""},
		{path("style: matrix, explode: true, ", "{type: object, properties: {R: {type: string}}}"), "path", ";R=5", "ok", ""},
		// A parameter with content is JSON.
		{"parameters: [{name: x, in: query, content: {application/json: {schema: {type: object, properties: {a: {type: integer}}}}}}]", "query", `x={"a":1.0}`, "ok", `x={"a":1}`},
		{"parameters: [{name: x, in: query, content: {application/json: {schema: {type: object}}}}]", "query", `x={"a":1,"a":2}`, "refused: query x syntax", ""},
		// Style deepObject.
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, properties: {items: {type: array, items: {type: integer, maximum: 5}}, o: {type: object, properties: {n: {type: integer}}}}}}]", "query", "f[items][0]=1&f[items][1]=2&f[o][n]=1.0", "ok", "f[items][0]=1&f[items][1]=2&f[o][n]=1"},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, properties: {items: {type: array, items: {type: integer, maximum: 5}}}}}]", "query", "f[items][0]=1&f[items][00]=99", "refused: query f/items type", ""},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, properties: {items: {type: array, items: {type: integer, maximum: 5}}}}}]", "query", "f[items]=1&f[items]=2", "ok", "f[items][0]=1&f[items][1]=2"},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, properties: {a: {type: string}}}}]", "query", "f[a]=1&f[a][b]=2", "refused: query f/a type", ""},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, properties: {a: {type: string}}}}]", "query", "f[a=1", "refused: query f style", ""},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object}}]", "query", "f[a]=1", "ok", "f[a]=1"},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, additionalProperties: {type: integer}}}]", "query", "f[a]=x", "refused: query f/* type", ""},
		{"parameters: [{name: f, in: query, style: deepObject, explode: true, schema: {type: object, properties: {a/b: {type: array, items: {type: object, properties: {n: {type: integer}}}}}}}]", "query", "f[a/b][0][n]=1&f[a/b][1][n]=x", "refused: query f/a~1b/1/n type", ""},
	} {
		o := mustOperation(t, v31, c.operation)
		r := httptest.NewRequest("POST", "/p/1", nil)
		param := func(string) string { return "1" }
		switch c.in {
		case "query":
			r.URL.RawQuery = c.text
		case "header":
			r.Header.Set(o.header[0].name, c.text)
		case "cookie":
			r.Header.Set("Cookie", c.text)
		case "path":
			param = func(string) string { return c.text }
		}
		a, err := o.Check(r, param, Content{})
		if got := outcome(a, err); got != c.want {
			t.Errorf("%s: %s: %s, want %s", c.operation, c.text, got, c.want)
			continue
		}
		if err != nil || c.in == "path" {
			continue
		}
		bound := a.Apply(r.Context(), r)
		got := bound.URL.RawQuery
		switch c.in {
		case "header":
			got = bound.Header.Get(o.header[0].name)
		case "cookie":
			got = bound.Header.Get("Cookie")
		case "query":
			values, err := url.ParseQuery(got)
			want, _ := url.ParseQuery(c.bound)
			if err == nil && maps.EqualFunc(values, want, func(a, b []string) bool {
				return strings.Join(a, "\x00") == strings.Join(b, "\x00")
			}) {
				continue
			}
		}
		if got != c.bound {
			t.Errorf("%s: %s: bound from %s, want %s", c.operation, c.text, got, c.bound)
		}
	}
}

func TestBodies(t *testing.T) {
	form := func(schema string) string {
		return "requestBody: {required: true, content: {application/x-www-form-urlencoded: " +
			"{schema: " + schema + "}}}"
	}
	media := func(name, schema string) string {
		return "requestBody: {required: true, content: {" + name + ": {schema: " + schema + "}}}"
	}
	const urlencoded = "application/x-www-form-urlencoded"
	for _, c := range []struct{ operation, query, essence, text, want, bound string }{
		{"parameters: [{name: n, in: query, schema: {type: integer}}]\n" + form("{type: object, properties: {name: {type: string}, n: {type: integer, maximum: 5}}}"), "n=99", urlencoded, "name=abc", "ok", "name=abc"},
		{form("{type: object, properties: {n: {type: integer, maximum: 5}}}"), "", urlencoded, "n=6", "refused: body/n maximum", ""},
		{form("{type: object, properties: {n: {type: integer}}}"), "", urlencoded, "n=1e2", "ok", "n=100"},
		{form("{type: object, properties: {n: {type: integer}}}"), "", urlencoded, "n=9223372036854775808", "refused: body type", ""},
		{form("{type: object, properties: {n: {type: integer}}}"), "", urlencoded, "n=1&n=2", "refused: body/n type", ""},
		{form("{type: object, properties: {n: {type: array, items: {type: integer}}}}"), "", urlencoded, "n=1&n=2", "ok", "n=1&n=2"},
		{form("{type: object, properties: {n: {type: array, items: {type: integer}}}}"), "", urlencoded, "n[]=1&n[]=2", "ok", "n=1&n=2"},
		{form("{type: object, properties: {o: {type: object, properties: {a: {type: integer}}}}}"), "", urlencoded, "o[a]=1", "ok", "o[a]=1"},
		{form("{type: object, properties: {o: {type: object, properties: {a: {type: integer}}}}}"), "", urlencoded, `o={"a":1.0}`, "ok", "o[a]=1"},
		{form("{type: object, properties: {o: {type: object, properties: {a: {type: integer}}}}}"), "", urlencoded, "o[a]=x", "refused: body/o/a type", ""},
		{form("{type: object, properties: {o: {type: object}}}"), "", urlencoded, `o={"a":1},"b":{}`, "refused: body/o type", ""},
		{form("{allOf: [{type: object, properties: {a: {type: integer}}}, {type: object, properties: {b: {type: boolean}}}]}"), "", urlencoded, "a=1&b=true", "ok", "a=1&b=true"},
		{form("{type: object, properties: {Metadata: {description: x}}}"), "", urlencoded, "Metadata=any", "ok", "Metadata=any"},
		{form("{type: object, properties: {a: {type: string}}}"), "", urlencoded, "a=1&z=2", "ok", "a=1"},
		{form("{type: object, properties: {a: {type: string}}}"), "", urlencoded, "a=1&A=2", "ok", "a=1"},
		{form("{type: object, properties: {a: {type: string}}, additionalProperties: false}"), "", urlencoded, "a=1&z=2", "refused: body/* additionalProperties", ""},
		{form("{type: object, properties: {a: {type: string}}}"), "", urlencoded, "a=1&z[=2", "refused: body syntax", ""},
		{form("{type: object, required: [a], properties: {a: {type: string}}}"), "", urlencoded, "b=1", "refused: body/a required", ""},
		{form("{type: object}"), "", urlencoded, "a=%zz", "refused: body syntax", ""},
		{media("application/json; charset=utf-8", "{type: object}"), "", "application/json", "{}", "ok", "{}"},
		{media("application/json", "{type: object}"), "", "application/merge-patch+json", "{}", "refused: media type", ""},
		{media("'*/*'", "{type: string, format: binary}"), "", "application/yaml", "k: 1", "ok", "k: 1"},
		{media("application/vnd.api+json", "{type: object}"), "", "application/vnd.api+json", "[]", "refused: body type", ""},
		{media("application/json", "{}"), "", "application/json", "", "refused: body required", ""},
		{media("text/csv", "{type: string}"), "", "text/csv", "a,b", "ok", "a,b"},
		{media("text/plain", "{type: string, maxLength: 2}"), "", "text/plain", "abc", "refused: body maxLength", ""},
		{media("application/x-protobuf", "{type: string, format: binary}"), "", "application/x-protobuf", "\xff", "ok", "\xff"},
		{"requestBody: {content: {application/json: {schema: {type: object}}}}", "", "", "", "ok", ""},
		{"responses: {}", "", "application/json", "{}", "refused: body requestBody", ""},
	} {
		o := mustOperation(t, v31, strings.TrimPrefix(c.operation, "responses: {}"))
		r := httptest.NewRequest("POST", "/p/1?"+c.query, nil)
		a, err := o.Check(r, func(string) string { return "1" },
			Content{Essence: c.essence, Body: []byte(c.text)})
		if got := outcome(a, err); got != c.want {
			t.Errorf("%s: %s: %s, want %s", c.operation, c.text, got, c.want)
			continue
		}
		if err != nil {
			continue
		}
		got := string(a.Body)
		if c.essence == urlencoded {
			r := a.Apply(r.Context(), r)
			r.Header.Set("Content-Type", urlencoded)
			if err := r.ParseForm(); err != nil {
				t.Fatal(err)
			}
			got, _ = url.QueryUnescape(r.Form.Encode())
			if body, _ := url.QueryUnescape(string(a.Body)); body != got && len(a.Form) == 1 {
				t.Errorf("%s: %s: the body is %s, the form %s", c.operation, c.text, body, got)
			}
		}
		if got != c.bound {
			t.Errorf("%s: %s: bound from %s, want %s", c.operation, c.text, got, c.bound)
		}
	}
}

func TestMultipart(t *testing.T) {
	operation := func(schema, encoding string) string {
		return "requestBody: {required: true, content: {multipart/form-data: {schema: " + schema +
			", encoding: {" + encoding + "}}}}"
	}
	part := func(disposition, contentType, data string) string {
		s := "--b\r\nContent-Disposition: form-data; " + disposition + "\r\n"
		if contentType != "" {
			s += "Content-Type: " + contentType + "\r\n"
		}
		return s + "\r\n" + data + "\r\n"
	}
	file := func(contentType string) string {
		return part(`name="file"; filename="f"`, contentType, "\xff\x00")
	}
	const binary = "{type: object, required: [file], additionalProperties: false, properties: " +
		"{file: {type: string, format: binary}, n: {type: integer}, o: {type: object, required: " +
		"[a]}, many: {type: array, items: {type: string, format: binary}}}}"
	for _, c := range []struct{ operation, body, want string }{
		{operation(binary, ""), file("text/csv"), "ok"},
		{operation(binary, ""), file(""), "ok"},
		{operation(binary, "file: {contentType: 'text/csv, application/zip'}"), file("application/zip"), "ok"},
		{operation(binary, "file: {contentType: 'image/*'}"), file("image/png"), "ok"},
		{operation(binary, "file: {contentType: 'text/csv, application/zip'}"), file("image/png"), "refused: body/file contentType"},
		{operation(binary, ""), part(`name="n"`, "", "1"), "refused: body/file required"},
		{operation(binary, ""), file("") + part(`name="n"`, "", "x"), "refused: body/n type"},
		{operation(binary, ""), file("") + part(`name="n"`, "", "1"), "ok"},
		{operation(binary, ""), file("") + file(""), "refused: body/file type"},
		{operation(binary, ""), file("") + part(`name="o"`, "application/json", `{"a":1}`), "ok"},
		{operation(binary, ""), file("") + part(`name="o"`, "application/json", `{"a":1},"x":2`), "refused: body/o syntax"},
		{operation(binary, ""), file("") + part(`name="o"`, "", `{"a":1}`), "ok"},
		{operation(binary, ""), file("") + part(`name="o"`, "application/json", `{}`), "refused: body/o/a required"},
		{operation(binary, ""), file("") + part(`name="z"`, "", `1`), "refused: body/* additionalProperties"},
		{operation(binary, ""), file("") + part(`name="many"; filename="a"`, "", "1") + part(`name="many"; filename="b"`, "", "2"), "ok"},
		{operation("{type: object, required: [file], properties: {file: {contentMediaType: application/octet-stream}}}", ""), file("application/gzip"), "ok"},
	} {
		o := mustOperation(t, v31, c.operation)
		r := httptest.NewRequest("POST", "/p/1", nil)
		a, err := o.Check(r, func(string) string { return "1" }, Content{
			Essence: "multipart/form-data", Params: map[string]string{"boundary": "b"},
			Body: []byte(c.body + "--b--\r\n"),
		})
		if got := outcome(a, err); got != c.want {
			t.Errorf("%s: %q: %s, want %s", c.operation, c.body, got, c.want)
		}
	}
}

// TestOperationFaults: an operation that could only refuse is a fault.
func TestOperationFaults(t *testing.T) {
	for operation, want := range map[string]string{
		"requestBody: {content: {application/xml: {schema: {type: object, properties: {a: {type: string}}}}}}":               "a body of application/xml is not decoded",
		"requestBody: {content: {application/x-www-form-urlencoded: {schema: {type: array, items: {}}}}}":                    "does not accept an object",
		"parameters: [{name: x, in: query, style: deepObject, explode: true, schema: {type: array, items: {type: string}}}]": "has style deepObject and a schema that this style does not support",
		"parameters: [{name: x, in: query, schema: {type: string, pattern: '[_-.]'}}]":                                       "schema query parameter x: pattern [_-.]: a range out of order",
	} {
		_, faults := compileOperation(t, v31, operation)
		if len(faults) != 1 || !strings.Contains(faults[0].Error(), want) {
			t.Errorf("%s: %v, want %s", operation, faults, want)
		}
	}
}

// TestAllFaults: a refusal has all errors of the request, parameters first.
func TestAllFaults(t *testing.T) {
	o := mustOperation(t, v30, `parameters: [{name: x, in: query, required: true, schema: {type: integer}}, {name: y, in: query, required: true, schema: {type: integer}}]
requestBody: {required: true, content: {application/json: {schema: {type: object, required: [street, city], properties: {street: {type: string}, city: {type: string}, zip: {type: string, pattern: "^[0-9]{5}$"}, age: {type: integer, minimum: 0}}}}}}`)
	r := httptest.NewRequest("POST", "/p/1?y=z", nil)
	_, err := o.Check(r, func(string) string { return "1" }, Content{Essence: "application/json",
		Body: []byte(`{"zip":"a","age":-1}`)})
	want := "refused: query x required, query y type, body/street required, body/city required, " +
		"body/zip pattern, body/age minimum"
	if got := outcome(nil, err); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if e, _ := errors.AsType[*Error](err); e.Kind != InvalidParameter {
		t.Error(e.Kind)
	}
}

// TestPlainParameters: run.plain and the pass over JSON give the same result.
func TestPlainParameters(t *testing.T) {
	texts := []string{"", "0", "-0", "1", "-1", "01", "+1", "7", "99", "100", "101", "1.0", "1e2",
		"1.5", " 1", "1 ", "1,2", "999999999999999999", "9223372036854775807",
		"9223372036854775808", "18446744073709551616", "abc", "a\"b", "a\\b", "ünïcödé", "null",
		"true", "\x00", "\xff", "2026-11-29", "a@example.com", strings.Repeat("é", 51)}
	for _, s := range []string{
		"{type: integer}", "{type: integer, minimum: 1, maximum: 100}", "{type: number}",
		"{type: integer, format: int32}", "{type: integer, format: uint64}",
		"{type: number, exclusiveMinimum: 1, multipleOf: 0.5}", "{type: string}",
		"{type: string, minLength: 1, maxLength: 50}", "{type: string, pattern: '^[a-z]+$'}",
		"{type: string, format: date}", "{type: string, format: email}",
	} {
		o := mustOperation(t, "3.1.0", "parameters: [{name: x, in: query, schema: "+s+"}]")
		p := o.query[0]
		if !p.plain {
			t.Fatalf("%s is not plain", s)
		}
		general := *p
		general.plain = false
		for _, text := range texts {
			bound, err := new(reader).scalar(p, text)
			want, wantErr := new(reader).scalar(&general, text)
			if bound != want || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Errorf("%s: %q is %q, %v, expected %q, %v", s, text, bound, err, want, wantErr)
			}
		}
	}
	for _, s := range []string{"{}", "{type: boolean}", "{type: [string, 'null']}",
		"{type: string, enum: [a]}", "{type: string, not: {const: a}}", "{type: [string, integer]}",
		"{allOf: [{type: string}]}"} {
		o := mustOperation(t, "3.1.0", "parameters: [{name: x, in: query, schema: "+s+"}]")
		if o.query[0].plain {
			t.Errorf("%s is plain", s)
		}
	}
}

func TestSeveralHeaders(t *testing.T) {
	o := mustOperation(t, v31, "parameters: [{name: X-L, in: header, schema: {type: array, "+
		"items: {type: integer}}}, {name: X-S, in: header, schema: {type: string}}]")
	r := httptest.NewRequest("POST", "/p/1", nil)
	r.Header = http.Header{"X-L": {"1", " 2"}}
	a, err := o.Check(r, func(string) string { return "1" }, Content{})
	if err != nil || a.Apply(r.Context(), r).Header.Get("X-L") != "1,2" {
		t.Error(err)
	}
	r.Header = http.Header{"X-S": {"1", "2"}}
	if _, err := o.Check(r, func(string) string { return "1" }, Content{}); err == nil {
		t.Error("a string in two headers is accepted")
	}
}

// TestMultipartForm: a handler that reads a multipart form with net/http gets each field once,
// without the query.
func TestMultipartForm(t *testing.T) {
	o := mustOperation(t, v31, "parameters: [{name: n, in: query, schema: {type: "+
		"integer}}]\nrequestBody: {content: {multipart/form-data: {schema: {type: object, "+
		"properties: {n: {type: integer, maximum: 5}, a: {type: string}}}}}}")
	body := "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b--\r\n"
	r := httptest.NewRequest("POST", "/p/1?n=99", nil)
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	a, err := o.Check(r, nil, Content{Essence: "multipart/form-data",
		Params: map[string]string{"boundary": "b"}, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	bound := a.Apply(r.Context(), r)
	if err := bound.ParseMultipartForm(1 << 20); err != nil {
		t.Fatal(err)
	}
	if got := bound.Form.Encode(); got != "a=x" {
		t.Errorf("the form is %s", got)
	}
	if got := bound.URL.RawQuery; got != "n=99" {
		t.Errorf("the query is %s", got)
	}
}

// TestConcurrent: an operation is shared by all of its requests.
func TestConcurrent(t *testing.T) {
	o := mustOperation(t, v31, "parameters: [{name: n, in: query, schema: {type: number, "+
		"minimum: 0.5, multipleOf: 0.5}}]\nrequestBody: {content: {application/json: {schema: "+
		"{oneOf: [{type: object, required: [a], properties: {a: {pattern: '^(?=x)x+$'}}}, {type: "+
		"array, uniqueItems: true}]}}}}")
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 50 {
				r := httptest.NewRequest("POST", "/p/1?n=1.5", nil)
				body := []string{`{"a":"xx"}`, `[1,2,{"a":1}]`}[i%2]
				if _, err := o.Check(r, nil, Content{Essence: "application/json",
					Body: []byte(body)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// TestUnbound: what generated code does not bind, or refuses, though it is valid, is listed for
// lint: the places of SECURITY.md that a document shows.
func TestUnbound(t *testing.T) {
	one := func(in, more, schema string) string {
		required := ""
		if in == "path" {
			required = "required: true, "
		}
		return "parameters: [{name: id, in: " + in + ", " + required + more + "schema: " + schema +
			"}]"
	}
	body := func(media, schema string) string {
		return "requestBody: {content: {" + media + ": {schema: " + schema + "}}}"
	}
	const urlencoded, deep = "application/x-www-form-urlencoded", "style: deepObject, "
	for _, c := range []struct{ operation, want string }{
		// Bound as the zero value.
		{body(urlencoded, "{type: object, properties: {d: {type: string, format: date}}}"), "form field d: generated code does not bind format date in a form: it gets the zero value"},
		{body(urlencoded, "{type: object, properties: {o: {type: object, properties: {d: {type: string, format: date-time}}}}}"), "form field o[d]: generated code does not bind format date-time in a form: it gets the zero value"},
		{one("query", "", "{oneOf: [{type: integer}, {type: string}]}"), "query parameter id: a oneOf or anyOf without a type"},
		{one("query", "", "{anyOf: [{type: integer}, {type: string}]}"), "query parameter id: a oneOf or anyOf without a type"},
		{one("query", "", "{type: object, properties: {u: {type: string, format: uuid}}}"), "query parameter id: generated code does not bind format uuid at u"},
		{one("query", "", "{type: array, items: {type: string, format: byte}}"), "query parameter id: generated code does not bind format byte at []"},
		{one("query", deep, "{type: object, properties: {b: {type: string, format: byte}}}"), "query parameter id: generated code does not bind format byte at b"},
		{body("application/json", "{oneOf: [{type: object}, {type: string}]}"), "body: generated code does not bind a oneOf or anyOf that is not a component"},
		// Not bound.
		{body("application/json", "{type: object, properties: {a: {}}, additionalProperties: {type: integer}}"), "body: generated code does not bind additional properties of a schema that is not a component"},
		// Refused.
		{one("header", "", "{type: object, properties: {n: {type: integer}}}"), "header parameter id: generated code binds the members of an object of style simple as strings only"},
		{one("query", "explode: false, ", "{type: object, properties: {n: {type: boolean}}}"), "query parameter id: generated code binds the members of an object of style form as strings only"},
		{one("query", deep, "{type: object, properties: {n: {type: integer, format: uint32}}}"), "query parameter id: generated code does not bind format uint32 at n"},
		{one("query", deep, "{type: object, properties: {a: {type: string}}, additionalProperties: {type: string}}"), "query parameter id: generated code refuses additional properties of style deepObject"},
		{one("path", "style: label, ", "{type: string, format: uuid}"), "path parameter id: generated code refuses format uuid of style label"},
		{one("path", "style: matrix, ", "{type: string, format: date}"), "path parameter id: generated code refuses format date of style matrix"},
		{body(urlencoded, "{type: object, properties: {b: {type: string, format: byte}}}"), "form field b: generated code does not bind format byte in a form: it answers 500"},
		// Bound as it was accepted.
		{one("query", "", "{type: object, properties: {n: {type: integer}}}"), ""},
		{one("query", deep, "{type: object, properties: {n: {type: integer}}}"), ""},
		{one("query", "", "{type: [integer, string]}"), ""},
		{one("query", "", "{type: array, items: {type: string, format: date}}"), ""},
		{one("path", "", "{type: string, format: uuid}"), ""},
		{one("header", "", "{type: object, properties: {n: {type: string}}}"), ""},
		{body(urlencoded, "{type: object, properties: {a: {type: integer}, l: {type: array, items: {type: string, format: date}}}}"), ""},
		{body("application/json", "{type: object, properties: {d: {type: string, format: date-time}}}"), ""},
	} {
		o := mustOperation(t, v31, c.operation)
		all := strings.Join(o.Unbound, "\n")
		if !strings.HasPrefix(all, c.want) || (all == "") != (c.want == "") || len(o.Unbound) > 1 {
			t.Errorf("%s: %q, want %q", c.operation, all, c.want)
		}
	}
}
