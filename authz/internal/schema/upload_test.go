package schema

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/getkin/kin-openapi/openapi3"
)

const uploads = `
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /:
    post:
      requestBody:
        content:
          multipart/form-data:
            schema:
              type: object
              required: [a, f]
              additionalProperties: false
              properties:
                a: {type: string, maxLength: 3}
                f: {type: string, format: binary}
                g: {type: array, minItems: 1, maxItems: 2, items: {type: string, format: binary}}
      responses: {"204": {description: Done.}}
`

// compileUpload returns an operation twice: the second one is streamed.
func compileUpload(tb testing.TB, document string) (buffered, streamed *Operation, faults []error) {
	tb.Helper()
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		tb.Fatal(err)
	}
	item := doc.Paths.Value("/")
	buffered, faults = NewCompiler(doc, Options{}).Operation(item, item.Post)
	if faults != nil {
		tb.Fatal(faults)
	}
	streamed, _ = NewCompiler(doc, Options{}).Operation(item, item.Post)
	return buffered, streamed, streamed.Stream()
}

type readPart struct{ header, data string }

// readParts reads as a handler does.
func readParts(body io.Reader) (all []readPart, err error) {
	reader := multipart.NewReader(body, "b")
	for {
		p, err := reader.NextPart()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		data, err := io.ReadAll(p)
		if err != nil {
			return all, err
		}
		all = append(all, readPart{p.Header.Get("Content-Disposition"), string(data)})
	}
}

// For any form, a handler that streams it gets the parts of the form. If the form would be refused
// as a whole, or has a field after a file, it gets an error instead of io.EOF.
func TestStreamedForms(t *testing.T) {
	buffered, streamed, faults := compileUpload(t, uploads)
	if faults != nil {
		t.Fatal(faults)
	}
	const disposition = `Content-Disposition: form-data; name="`
	pieces := []string{
		"\r\n--b\r\n" + disposition + "a\"\r\n\r\n", "\r\n--b\r\n" + disposition + "f\"\r\n\r\n",
		"\r\n--b\r\n" + disposition + "g\"\r\n\r\n", "\r\n--b\r\n" + disposition + "x\"\r\n\r\n",
		"--b", "--bb", "\r\n", "\n", "\r", "-", "text", "\x00", "\r\n--b--", "\r\n--b--\r\n", " ",
	}
	accepted := 0
	for range 20000 {
		text := strings.Builder{}
		if rand.N(2) == 0 {
			text.WriteString(pieces[0])
		}
		for range rand.N(8) {
			text.WriteString(pieces[rand.N(len(pieces))])
			if rand.N(4) == 0 {
				text.WriteString(pieces[rand.N(3)])
			}
		}
		if rand.N(4) > 0 {
			text.WriteString("\r\n--b--\r\n")
		}
		body := text.String()
		if rand.N(8) == 0 {
			body = strings.ReplaceAll(body, "\r\n", "\n")
		}
		r := httptest.NewRequest("POST", "/", nil)
		content := Content{
			Essence: "multipart/form-data", Params: map[string]string{"boundary": "b"},
			Body: []byte(body),
		}
		_, want := buffered.Check(r, nil, content)
		parts, _ := readParts(strings.NewReader(body))
		file := false
		for _, p := range parts {
			isFile := !strings.Contains(p.header, `"a"`)
			if file && !isFile && want == nil {
				want = errors.New("a field after a file")
			}
			file = file || isFile
		}

		var source io.Reader = strings.NewReader(body)
		if rand.N(2) == 0 {
			source = iotest.OneByteReader(source)
		}
		content.Body, content.Stream, content.MaxFields = nil, source, 1<<20
		got, err := streamed.Check(r, nil, content)
		var found []readPart
		if err == nil {
			var whole bytes.Buffer
			found, err = readParts(io.TeeReader(got.Stream, &whole))
			if rest, _ := io.ReadAll(got.Stream); err == nil &&
				strings.TrimSpace(string(rest)) != "" {
				t.Fatalf("%q: %q is left after the end", body, rest)
			}
		}
		if body == "" {
			continue // no body at all, which is optional
		}
		if (err == nil) != (want == nil) {
			t.Fatalf("%q: streamed: %v, buffered: %v", body, err, want)
		}
		if err != nil {
			continue
		}
		accepted++
		if len(found) != len(parts) {
			t.Fatalf("%q: %d parts, want %d", body, len(found), len(parts))
		}
		for i := range found {
			if found[i] != parts[i] {
				t.Fatalf("%q: part %d is %q, want %q", body, i, found[i], parts[i])
			}
		}
	}
	if accepted < 200 {
		t.Errorf("only %d forms were accepted", accepted)
	}
}

func TestFaultsOfStreams(t *testing.T) {
	replace := func(old, by string) string { return strings.Replace(uploads, old, by, 1) }
	for name, row := range map[string]struct{ document, fault string }{
		"as it is":  {uploads, ""},
		"of JSON":   {replace("multipart/form-data", "application/json"), "application/json"},
		"of text":   {replace("multipart/form-data", "text/plain"), "text/plain"},
		"a range":   {replace("multipart/form-data", "multipart/*"), ""},
		"no files":  {strings.ReplaceAll(uploads, ", format: binary", ""), "none of its properties"},
		"composed":  {replace("additionalProperties: false", "not: {required: [z]}"), "plain object"},
		"dependent": {replace("additionalProperties: false", "dependentRequired: {a: [f]}"), "plain object"},
		"patterns":  {replace("additionalProperties: false", "patternProperties: {x: {}}"), "plain object"},
	} {
		doc := row.document
		if name == "of text" {
			doc = strings.Replace(doc, "type: object", "type: string", 1)
		}
		_, _, faults := compileUpload(t, doc)
		if err := errors.Join(faults...); row.fault == "" && err != nil ||
			row.fault != "" && (err == nil || !strings.Contains(err.Error(), row.fault)) {
			t.Errorf("%s: %v, want a fault of %q", name, err, row.fault)
		}
	}
}

// TestHeadersOfStreamedParts: headers are stored in memory, so their size is bounded.
func TestHeadersOfStreamedParts(t *testing.T) {
	_, streamed, faults := compileUpload(t, uploads)
	if faults != nil {
		t.Fatal(faults)
	}
	const field = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n"
	const file = "--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nx\r\n"
	for name, test := range map[string]struct {
		before, part string
		header       int
		ok           bool
	}{
		"of a field":       {"", "a", 5 << 20, false},
		"of a file":        {field, "f", 5 << 20, false},
		"of a usual size":  {field, "f", 4 << 10, true},
		"of a second file": {field + file, "g", 5 << 20, false},
	} {
		rest := strings.NewReader(test.before + "--b\r\nX: " + strings.Repeat("x", test.header) +
			"\r\nContent-Disposition: form-data; name=\"" + test.part + "\"\r\n\r\ny\r\n--b--\r\n")
		size := rest.Len()
		accepted, err := streamed.Check(httptest.NewRequest("POST", "/", nil), nil, Content{
			Essence: "multipart/form-data", Params: map[string]string{"boundary": "b"},
			Stream: rest, MaxFields: 1 << 20,
		})
		if err == nil {
			_, err = io.Copy(io.Discard, accepted.Stream)
		}
		if read := size - rest.Len(); (err == nil) != test.ok || read > 100<<10 {
			t.Errorf("%s: %v, after %d bytes", name, err, read)
		}
	}
}
