package routertest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

const uploadDocument = `
openapi: 3.1.0
info: {title: t, version: "1"}
security: [{}]
paths:
  /form:
    post:
      operationId: form
      x-authz-stream: true
      x-authz-max-body: 64KiB
      parameters: [{name: n, in: query, schema: {type: integer}}]
      requestBody:
        required: true
        content:
          multipart/form-data:
            schema:
              type: object
              required: [title, file]
              additionalProperties: false
              properties:
                title: {type: string, maxLength: 10}
                note: {type: string}
                meta: {type: object, required: [n], properties: {n: {type: integer}}}
                file: {type: string, format: binary}
                more: {type: array, maxItems: 2, items: {type: string, format: binary}}
            encoding:
              file: {contentType: "text/csv, image/*"}
              meta: {contentType: application/json}
      responses: {"200": {description: Done.}}
  /bytes:
    post:
      operationId: bytes
      x-authz-stream: true
      x-authz-max-body: 64KiB
      requestBody:
        required: true
        content: {application/octet-stream: {}, image/*: {schema: {type: string, format: binary}}}
      responses: {"200": {description: Done.}}
  /maybe:
    post:
      operationId: maybe
      x-authz-stream: true
      requestBody: {content: {application/octet-stream: {}}}
      responses: {"200": {description: Done.}}
  /large:
    post:
      operationId: large
      x-authz-stream: true
      x-authz-max-body: 1GiB
      requestBody:
        required: true
        content:
          application/octet-stream: {}
          multipart/form-data:
            schema: {type: object, properties: {file: {type: string, format: binary}}}
      responses: {"200": {description: Done.}}
  /buffered:
    post:
      operationId: buffered
      x-authz-max-body: 1KiB
      requestBody: {required: true, content: {application/octet-stream: {}}}
      responses: {"200": {description: Done.}}
`

// uploads is a server whose handlers read what is uploaded.
type uploads struct {
	address string
	ran     atomic.Bool
	heap    atomic.Int64 // the most that was in use while a handler of large read
}

// newUploads starts the server. maxFields is the gate's limit of a body, and so that of the fields.
func newUploads(t *testing.T, build Build, change func(*authz.Config)) *uploads {
	t.Helper()
	loaded, err := openapi3.NewLoader().LoadFromData([]byte(uploadDocument))
	if err != nil {
		t.Fatal(err)
	}
	config := authz.Config{
		Document: loaded, MaxBodyBytes: 4 << 10, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config)
	}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	u := &uploads{}
	var routes []Route
	for _, o := range gate.Plan().Operations() {
		routes = append(routes, Route{gate, o.Method, o.Path, u.handle})
	}
	handler, err := build(authz.Gates{gate}, routes)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	u.address = server.Listener.Addr().String()
	return u
}

// handle answers with what it has read: each part with its name and data, or the whole body. It
// returns the error of a Read as it is, as generated handlers do.
func (u *uploads) handle(w http.ResponseWriter, r *http.Request, _ func(string) string) error {
	u.ran.Store(true)
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		all, err := u.read(r.Body)
		if err != nil {
			return err
		}
		_, _ = io.WriteString(w, all)
		return nil
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return err
	}
	var found []string
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("next part: %w", err)
		}
		all, err := u.read(part)
		if err != nil {
			return fmt.Errorf("part: %w", err)
		}
		found = append(found, part.FormName()+"="+all)
	}
	_, _ = io.WriteString(w, strings.Join(found, " "))
	return nil
}

// read returns what a reader has if that is little, else a hash of it.
func (u *uploads) read(r io.Reader) (string, error) {
	var start bytes.Buffer
	n, err := io.Copy(&start, io.LimitReader(r, 32<<10))
	if err != nil || n < 32<<10 {
		return start.String(), err
	}
	hash := sha256.New()
	hash.Write(start.Bytes())
	for {
		_, err := io.CopyN(hash, r, 8<<20)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		u.heap.Store(max(u.heap.Load(), int64(m.HeapAlloc)))
		if err == io.EOF {
			return fmt.Sprintf("%x", hash.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

const (
	field = "--b\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n"
	file  = "--b\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"f\"\r\n" +
		"Content-Type: %s\r\n\r\n%s\r\n"
	meta = "--b\r\nContent-Disposition: form-data; name=\"meta\"\r\n" +
		"Content-Type: application/json\r\n\r\n%s\r\n"
	finish = "--b--\r\n"
)

// post sends a request and returns the status lines of all responses, and the last one's body. A
// body that is chunked can have trailers.
func (u *uploads) post(
	t *testing.T, path, contentType, body string, chunked bool, headers ...string,
) (status int, text string, problem authz.Problem) {
	t.Helper()
	u.ran.Store(false)
	conn, err := net.Dial("tcp", u.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	length, sent := fmt.Sprintf("Content-Length: %d", len(body)), body
	if chunked {
		length, sent = "Transfer-Encoding: chunked", ""
		for rest := body; rest != ""; {
			n := min(len(rest), 100)
			sent += fmt.Sprintf("%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		sent += "0\r\nX-Trailer: ignored\r\n\r\n"
	}
	head := append([]string{
		"POST " + path + " HTTP/1.1", "Host: localhost", "Content-Type: " + contentType, length,
	}, headers...)
	go func() {
		hangUp := sent == "hang up"
		_, _ = io.WriteString(conn, strings.Join(head, "\r\n")+"\r\n\r\n"+sent[:len(sent)/2])
		if !hangUp {
			_, _ = io.WriteString(conn, sent[len(sent)/2:])
		} else {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	read, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode >= 400 {
		if err := json.Unmarshal(read, &problem); err != nil {
			t.Errorf("%d is not answered with a problem: %s", response.StatusCode, read)
		}
	}
	return response.StatusCode, string(read), problem
}

func uploadRows(t *testing.T, build Build) {
	u := newUploads(t, build, nil)
	part := fmt.Sprintf
	title, csv := part(field, "title", "t"), part(file, "file", "text/csv", "a,b")
	long := strings.Repeat("x", 70<<10)
	multipart := "multipart/form-data; boundary=b"
	for _, row := range []struct {
		name, path, contentType, body string
		status                        int
		ran                           bool
		want                          string // the answer, or what is wrong
	}{
		{"a field and a file", "/form", multipart, title + csv + finish,
			200, true, "title=t file=a,b"},
		{"files of a list", "/form", multipart,
			title + part(file, "more", "a/b", "1") + csv + part(file, "more", "a/b", "2") + finish,
			200, true, "title=t more=1 file=a,b more=2"},
		{"a field of JSON", "/form", multipart, title + part(meta, `{"n":1}`) + csv + finish,
			200, true, `title=t meta={"n":1} file=a,b`},
		{"an empty file", "/form", multipart, title + part(file, "file", "text/csv", "") + finish,
			200, true, "title=t file="},
		{"preamble and epilogue", "/form", multipart,
			"hello\r\n" + title + csv + finish + "goodbye", 200, true, "title=t file=a,b"},
		{"lines that end in LF", "/form", multipart,
			strings.ReplaceAll(title+csv+finish, "\r\n", "\n"), 200, true, "title=t file=a,b"},
		{"data like delimiters", "/form", multipart,
			title + part(file, "file", "text/csv", "\n--b\n\r\n--bb\r\n-") + finish,
			200, true, "title=t file=\n--b\n\r\n--bb\r\n-"},

		{"an invalid parameter", "/form?n=x", multipart, title + csv + finish, 400, false, "n"},
		{"no boundary", "/form", "multipart/form-data", title + csv + finish,
			400, false, "boundary"},
		{"an invalid field", "/form", multipart,
			part(field, "title", "much too long") + csv + finish, 400, false, "/title"},
		{"an invalid field of JSON", "/form", multipart,
			title + part(meta, `{"n":"x"}`) + csv + finish, 400, false, "/meta/n"},
		{"a field is missing", "/form", multipart, csv + finish, 400, false, "/title"},
		{"an undeclared field", "/form", multipart, title + part(field, "x", "1") + csv + finish,
			400, false, "/*"},
		{"no file", "/form", multipart, title + finish, 400, false, "/file"},
		{"nothing", "/form", multipart, finish, 400, false, "/title"},
		{"no body", "/form", multipart, "", 400, false, "The body "},
		{"not multipart", "/form", multipart, "hello", 400, false, "not a valid multipart"},
		{"the first file is of another type", "/form", multipart,
			title + part(file, "file", "a/b", "x") + finish, 400, false, "Content-Type"},
		{"the first file is undeclared", "/form", multipart,
			title + part(file, "x", "a/b", "x") + finish, 400, false, "/*"},
		{"fields that are too large", "/form", multipart,
			title + part(field, "note", long[:5<<10]) + csv + finish, 413, false, "fields"},

		{"a field after a file", "/form", multipart, csv[:0] + title + csv +
			part(field, "note", "x") + finish, 400, true, "/note"},
		{"a second file is of another type", "/form", multipart,
			title + part(file, "more", "a/b", "x") + part(file, "file", "a/b", "x") + finish,
			400, true, "Content-Type"},
		{"a file that occurs twice", "/form", multipart, title + csv + csv + finish,
			400, true, "more than once"},
		{"an undeclared file", "/form", multipart,
			title + csv + part(file, "x", "a/b", "x") + finish, 400, true, "/*"},
		{"a file is missing", "/form", multipart, title + part(file, "more", "a/b", "x") + finish,
			400, true, "/file"},
		{"too many files", "/form", multipart,
			title + csv + strings.Repeat(part(file, "more", "a/b", "x"), 3) + finish,
			400, true, "/more"},
		{"an encoded file", "/form", multipart, title + csv + strings.Replace(
			part(file, "more", "a/b", "eA=="), "\r\n\r\n",
			"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1) + finish,
			400, true, "Content-Transfer-Encoding"},
		{"no last delimiter", "/form", multipart, title + csv, 400, true, "not a valid multipart"},
		{"no end of a file", "/form", multipart, title + strings.TrimSuffix(csv, "\r\n"),
			400, true, "not a valid multipart"},

		{"bytes", "/bytes", "application/octet-stream", "\x00\xff", 200, true, "\x00\xff"},
		{"bytes of a range", "/bytes", "image/png", "png", 200, true, "png"},
		{"bytes of another type", "/bytes", "text/plain", "x", 415, false, ""},
		{"no bytes, optional", "/maybe", "application/octet-stream", "", 200, true, ""},
		{"a buffered body", "/buffered", "application/octet-stream", "x", 200, true, "x"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, chunked := range []bool{false, true} {
				status, text, problem := u.post(t, row.path, row.contentType, row.body, chunked)
				ran := row.ran
				if status != row.status || u.ran.Load() != ran {
					t.Fatalf("chunked %v: status %d, the handler ran: %v, want %d, %v: %s", chunked,
						status, u.ran.Load(), row.status, ran, text)
				}
				if row.status == 200 && text != row.want {
					t.Errorf("chunked %v: the handler read %q, want %q", chunked, text, row.want)
				}
				if said := fmt.Sprint(problem.Detail, problem.Errors); row.status != 200 &&
					!strings.Contains(said, row.want) {
					t.Errorf("chunked %v: the response says %s, want %q", chunked, said, row.want)
				}
			}
		})
	}
}

// A body that is known to be too large is refused before it is read, and before the client is told
// to send it (RFC 9110 §10.1.1). One that turns out to be is an error in place of its end.
func uploadLimits(t *testing.T, build Build) {
	u := newUploads(t, build, nil)
	part := fmt.Sprintf
	long := strings.Repeat("x", 70<<10)
	form := part(field, "title", "t") + part(file, "file", "text/csv", long) + finish
	multipart := "multipart/form-data; boundary=b"
	late := part(field, "title", "t") + part(file, "file", "text/csv", "x") + finish + long
	for _, row := range []struct {
		name, path, contentType, body string
		chunked                       bool
		headers                       []string
		status                        int
		ran                           bool
	}{
		{"bytes", "/bytes", "image/png", long, false, nil, 413, false},
		{"bytes, chunked", "/bytes", "image/png", long, true, nil, 413, true},
		{"a form", "/form", multipart, form, false, nil, 413, false},
		{"a form, chunked", "/form", multipart, form, true, nil, 413, true},
		{"an epilogue, chunked", "/form", multipart, late, true, nil, 413, true},
		{"buffered", "/buffered", "image/png", long, false, nil, 413, false},
		{"buffered bytes", "/buffered", "application/octet-stream", long, false, nil, 413, false},
		{"buffered bytes, chunked", "/buffered", "application/octet-stream", long, true, nil,
			413, false},
		{"a client that asks first", "/bytes", "image/png", long, false,
			[]string{"Expect: 100-continue"}, 413, false},
		{"a client that asks first, of another type", "/bytes", "a/b", "x", false,
			[]string{"Expect: 100-continue"}, 415, false},
		{"a client that asks first, and may", "/bytes", "image/png", "x", false,
			[]string{"Expect: 100-continue"}, 100, true},
		{"an encoded body", "/bytes", "image/png", "x", false,
			[]string{"Content-Encoding: gzip"}, 415, false},
		{"no bytes", "/bytes", "image/png", "", false, nil, 400, false},
		{"no bytes, chunked", "/bytes", "image/png", "", true, nil, 400, true},
		{"a client that hangs up", "/bytes", "image/png", "hang up", false, nil, 400, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			status, text, _ := u.post(
				t, row.path, row.contentType, row.body, row.chunked, row.headers...)
			if status != row.status || row.status != 100 && u.ran.Load() != row.ran {
				t.Errorf("status %d, the handler ran: %v, want %d, %v: %s", status, u.ran.Load(),
					row.status, row.ran, text)
			}
		})
	}
}

// However large an upload is, the server holds little of it.
func uploadMemory(t *testing.T, build Build) {
	const size, most = 96 << 20, 12 << 20
	u := newUploads(t, build, nil)
	random := make([]byte, 1<<20)
	for i := range random {
		random[i] = byte(i * i >> 3)
	}
	hash := sha256.New()
	for range size >> 20 {
		hash.Write(random)
	}
	want := fmt.Sprintf("%x", hash.Sum(nil))
	data := func() io.Reader { return &repeating{block: random, left: size} }
	head, _, _ := strings.Cut(fmt.Sprintf(file, "file", "a/b", "\x00"), "\x00")
	for contentType, body := range map[string]io.Reader{
		"application/octet-stream": data(),
		"multipart/form-data; boundary=b": io.MultiReader(
			strings.NewReader(head), data(), strings.NewReader("\r\n"+finish)),
	} {
		var before runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		u.heap.Store(0)
		response, err := http.Post("http://"+u.address+"/large", contentType, body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != 200 || !strings.HasSuffix(string(text), want) {
			t.Errorf("%s: %d %s, %v: what the handler read is not what was sent", contentType,
				response.StatusCode, text, err)
		}
		if grown := u.heap.Load() - int64(before.HeapAlloc); grown > most || u.heap.Load() == 0 {
			t.Errorf("%s: %d bytes are in use for an upload of %d, want at most %d", contentType,
				grown, size, most)
		}
	}
}

type repeating struct {
	block []byte
	left  int
}

func (r *repeating) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	at := len(r.block) - (r.left-1)%len(r.block) - 1
	n := copy(p[:min(len(p), r.left)], r.block[at:])
	r.left -= n
	return n, nil
}

// A gate that reports only passes on what breaks the schemas of fields, and keeps the limit.
func uploadReports(t *testing.T, build Build) {
	u := newUploads(t, build, func(c *authz.Config) { c.InsecureReportValidation = true })
	form := "multipart/form-data; boundary=b"
	bad := fmt.Sprintf(field, "title", "much too long") + fmt.Sprintf(file, "file", "text/csv", "x")
	for _, row := range []struct {
		name, body string
		status     int
	}{
		{"an invalid field", bad + finish, 200},
		{"an invalid field, and too much", bad + strings.Repeat("x", 70<<10), 413},
	} {
		status, text, _ := u.post(t, "/form", form, row.body, true)
		if status != row.status || !u.ran.Load() {
			t.Errorf("%s: status %d, the handler ran: %v, want %d: %s", row.name, status,
				u.ran.Load(), row.status, text)
		}
	}
}
