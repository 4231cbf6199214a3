package schema

import (
	"bytes"
	"mime/multipart"
	"net/textproto"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

const formSchema = `
type: object
properties:
  title: {type: string}
  tags: {type: array, items: {type: string}}
  meta: {type: object, properties: {n: {type: integer}}}
  image: {type: string, format: binary}
`

func formInputs(t *testing.T) *inputs {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte("openapi: 3.1.0\ninfo: {title: t, version: '1'}\npaths: {}\ncomponents:\n  schemas:\n    Form:" +
		strings.ReplaceAll(formSchema, "\n", "\n      ")))
	if err != nil {
		t.Fatal(err)
	}
	media := &openapi3.MediaType{Schema: doc.Components.Schemas["Form"]}
	return &inputs{body: true, forms: readForms(openapi3.Content{urlencoded: media, multiparted: media})}
}

func TestForms(t *testing.T) {
	in := formInputs(t)
	for body, expected := range map[string]error{
		"title=a&tags=b&tags=c": nil,
		"title=a&admin=true":    errField,
		"title=a&title=b":       errTwice,
		"tags[0]=a":             errField,
		"tags[]=a":              errField,
		"TITLE=a":               errField,
		"title=%00":             errText,
		"title=%ff":             errText,
		"title=%zz":             errForm,
		"title=a;b":             errForm,
	} {
		if err := in.checkBody("application/x-www-form-urlencoded", nil, []byte(body)); err != expected {
			t.Errorf("%s: %v, expected %v", body, err, expected)
		}
	}
}

func TestMultipartForms(t *testing.T) {
	in := formInputs(t)
	type part struct{ name, contentType, encoding, text string }
	for name, c := range map[string]struct {
		parts    []part
		expected error
	}{
		"as declared":             {[]part{{"title", "", "", "a"}, {"tags", "", "", "b"}, {"tags", "text/plain", "", "c"}, {"meta", "application/json", "", `{"n":1}`}, {"image", "image/png", "", "\x89\x00"}}, nil},
		"not declared":            {[]part{{"admin", "", "", "true"}}, errField},
		"twice":                   {[]part{{"title", "", "", "a"}, {"title", "", "", "b"}}, errTwice},
		"duplicate members":       {[]part{{"meta", "application/json", "", `{"n":1,"n":2}`}}, errJSON},
		"two values":              {[]part{{"meta", "application/json", "", `{"n":1}{}`}}, errJSON},
		"huge number":             {[]part{{"meta", "application/json", "", `{"n":1e999999}`}}, errNumbers},
		"object that is YAML":     {[]part{{"meta", "application/yaml", "", "n: 1"}}, errPart},
		"object of no type":       {[]part{{"meta", "", "", "n: 1"}}, errPart},
		"string that is YAML":     {[]part{{"title", "application/yaml", "", "n: 1"}}, errPart},
		"another charset":         {[]part{{"title", "text/plain; charset=utf-16", "", "a"}}, errPart},
		"encoded":                 {[]part{{"title", "", "base64", "YQ=="}}, errForm},
		"quoted-printable as raw": {[]part{{"title", "", "quoted-printable", "=61"}}, errForm},
	} {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		for _, p := range c.parts {
			h := textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + p.name + `"`}}
			if p.contentType != "" {
				h.Set("Content-Type", p.contentType)
			}
			if p.encoding != "" {
				h.Set("Content-Transfer-Encoding", p.encoding)
			}
			pw, _ := w.CreatePart(h)
			_, _ = pw.Write([]byte(p.text))
		}
		w.Close()
		if err := in.checkBody("multipart/form-data", map[string]string{"boundary": w.Boundary()}, body.Bytes()); err != c.expected {
			t.Errorf("%s: %v, expected %v", name, err, c.expected)
		}
	}
	if err := in.checkBody("multipart/form-data", nil, []byte("x")); err != errForm {
		t.Errorf("without a boundary: %v, expected %v", err, errForm)
	}
}

// The validator makes exact fractions of numbers: these bodies took it seconds, or had it panic.
func TestNumbersThatAreDear(t *testing.T) {
	in := &inputs{body: true}
	for name, body := range map[string]string{
		"exponents":  "[" + strings.Repeat("1e999999,", 100) + "1]",
		"digits":     strings.Repeat("9", 1<<20),
		"that panic": "1e1000001",
	} {
		if err := in.checkBody("application/json", nil, []byte(body)); err != errNumbers {
			t.Errorf("%s: %v, expected %v", name, err, errNumbers)
		}
	}
}
