package command

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// everyStyle has parameters of every place and style, and other features of documents.
const everyStyle = `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /things/{id}/{tags}:
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}, description: Of the path.}
      - {name: Authorization, in: header, schema: {type: string}}
    get:
      operationId: get
      security: []
      parameters:
        - {name: id, in: path, required: true, schema: {type: string}, description: Of the operation.}
        - {name: id, in: query, schema: {type: string}}
        - {name: url, in: query, schema: {type: string}}
        - {name: -a=b c, in: query, schema: {type: string}}
        - {name: tags, in: path, required: true, style: matrix, explode: true, schema: {type: array, items: {type: string}}}
        - {name: form, in: query, schema: {type: [array, "null"], items: {type: string}}}
        - {name: commas, in: query, explode: false, schema: {allOf: [{type: array, items: {type: string}}]}}
        - {name: spaces, in: query, style: spaceDelimited, explode: false, schema: {type: array, items: {type: string}}}
        - {name: pipes, in: query, style: pipeDelimited, explode: false, schema: {type: array, items: {type: string}}}
        - {name: deep, in: query, style: deepObject, schema: {type: object, properties: {a: {type: string}, b: {type: string}}}}
        - {name: members, in: query, schema: {type: object}}
        - {name: reserved, in: query, allowReserved: true, schema: {type: string}}
        - {name: json, in: query, content: {application/json: {schema: {type: object}}}}
        - {name: X-List, in: header, schema: {type: array, items: {type: string}}}
        - {name: crumb, in: cookie, schema: {type: string}}
      responses: {"200": {description: d}}
    put:
      operationId: put
      security: []
      parameters:
        - {name: tags, in: path, required: true, schema: {type: string}}
      requestBody: {content: {text/plain: {schema: {type: string}}, application/merge-patch+json: {schema: {}}}}
      responses: {"200": {description: d}}
`

func TestCallParameters(t *testing.T) {
	document, err := openapi3.NewLoader().LoadFromData([]byte(everyStyle))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := authz.Compile(document)
	if err != nil {
		t.Fatal(err)
	}
	operations := callables(document, plan)
	var sent *http.Request
	server := httptest.NewServer(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent = r }))
	defer server.Close()
	const path = "--path.id 7 --tags x "
	for _, test := range []struct {
		operation int
		args      string // separated by spaces; _ is a space within one
		uri       string
		header    string // Name: value
	}{
		{0, "--path.id a/b?c --tags x --tags y/z", "/things/a%2Fb%3Fc/;tags=x;tags=y%2Fz", ""},
		{0, path + "--query.id 8", "/things/7/;tags=x?id=8", ""},
		{0, path + "--query.url=http://x/", "/things/7/;tags=x?url=http%3A%2F%2Fx%2F", ""},
		{0, path + "--query.-a-b-c d", "/things/7/;tags=x?-a%3Db+c=d", ""},
		{0, path + "--form a&b --form c=d,e --form=", "/things/7/;tags=x?form=a%26b&form=c%3Dd%2Ce&form=", ""},
		{0, path + "--commas a --commas b,c", "/things/7/;tags=x?commas=a,b%2Cc", ""},
		{0, path + "--spaces a --spaces b", "/things/7/;tags=x?spaces=a%20b", ""},
		{0, path + "--pipes a --pipes b|c", "/things/7/;tags=x?pipes=a%7Cb%7Cc", ""},
		{0, path + "--deep a=1=2 --deep b=", "/things/7/;tags=x?deep[a]=1%3D2&deep[b]=", ""},
		{0, path + "--members a=1 --members b=2&3", "/things/7/;tags=x?a=1&b=2%263", ""},
		{0, path + "--reserved a/b", "/things/7/;tags=x?reserved=a/b", ""},
		{0, path + `--query.json {"a":[1,"_"]}`, "/things/7/;tags=x?json=%7B%22a%22%3A%5B1%2C%22+%22%5D%7D", ""},
		{0, path + "--x-list a --x-list b", "/things/7/;tags=x", "X-List: a,b"},
		{0, path + "--crumb 1", "/things/7/;tags=x", "Cookie: crumb=1"},
		{1, "--id 7 --tags t --body x", "/things/7/t", "Content-Type: application/merge-patch+json"},
		{1, "--id 7 --tags t --body x --content-type text/plain", "/things/7/t", "Content-Type: text/plain"},
	} {
		t.Run(test.args, func(t *testing.T) {
			for _, p := range operations[test.operation].parameters {
				p.values = nil
			}
			args := strings.Fields(test.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "_", " ")
			}
			options, err := operations[test.operation].parse(append(args, "--url", server.URL+"/"),
				environment{}, true)
			if err != nil {
				t.Fatal(err)
			}
			body, err := options.read(operations[test.operation].spec, nil)
			if err != nil {
				t.Fatal(err)
			}
			options.within("")
			request, err := operations[test.operation].request(t.Context(), options, body)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			name, value, _ := strings.Cut(test.header, ": ")
			if sent.RequestURI != test.uri || test.header != "" && sent.Header.Get(name) != value {
				t.Errorf("%s with %q is sent: want %s with %q", sent.RequestURI,
					sent.Header.Get(name), test.uri, test.header)
			}
		})
	}
	for args, want := range map[string]string{
		path + "--deep a":            "--deep: expected name=value",
		path + "--query.json {":      "--query.json: expected JSON",
		path + "--authorization x":   "unknown flag --authorization",
		path + "--query.id 1 --id 2": "unknown flag --id",
		"--path.id 1":                "--tags is missing",
	} {
		for _, p := range operations[0].parameters {
			p.values = nil
		}
		options, err := operations[0].parse(strings.Fields(args), environment{}, true)
		if err == nil {
			options.within("")
			_, err = operations[0].request(t.Context(), options, nil)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v: want %q", args, err, want)
		}
	}
}

// Forms have the media type of the document, and files have their names.
func TestCallForms(t *testing.T) {
	file := filepath.Join(t.TempDir(), "picture.png")
	if err := os.WriteFile(file, []byte("\x89PNG"), 0o600); err != nil {
		t.Fatal(err)
	}
	for media, want := range map[string]string{
		"multipart/form-data":               `title="a=b" picture=picture.png image/png "\x89PNG"`,
		"application/x-www-form-urlencoded": `title="a=b" picture="\x89PNG"`,
	} {
		spec := &openapi3.Operation{RequestBody: &openapi3.RequestBodyRef{
			Value: openapi3.NewRequestBody().WithContent(openapi3.NewContentWithSchema(nil, []string{media})),
		}}
		c := callOptions{form: repeated{"title=a=b", "picture=@" + file}}
		body, err := c.read(spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Header.Set("Content-Type", c.contentType)
		var got string
		if err := r.ParseMultipartForm(1 << 20); err == nil {
			part := r.MultipartForm.File["picture"][0]
			opened, _ := part.Open()
			content, _ := io.ReadAll(opened)
			got = fmt.Sprintf("title=%q picture=%s %s %q",
				r.FormValue("title"), part.Filename, part.Header.Get("Content-Type"), content)
		} else {
			got = fmt.Sprintf("title=%q picture=%q", r.FormValue("title"), r.FormValue("picture"))
		}
		if got != want || !c.bodyGiven {
			t.Errorf("%s: the server reads %s, want %s", media, got, want)
		}
	}
	for _, field := range []string{"title", "=x", "picture=@" + file + "x"} {
		if _, _, err := formBody("multipart/form-data", []string{field}); err == nil {
			t.Errorf("--form %s is accepted", field)
		}
	}
}

func TestIndented(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":[1]}`:          "{\n  \"a\": [\n    1\n  ]\n}\n",
		"{\"a\":\"\u009b\"}": "{\n  \"a\": \"\ufffd\"\n}\n",
		"not JSON":           "not JSON",
	} {
		if got := indented([]byte(text)); got != want {
			t.Errorf("%s is shown as %q, want %q", text, got, want)
		}
	}
}
