package authz_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
)

// exchangeCase is a request to the server of a document in testdata/cases. %t in a header is a
// token, %s another secret.
type exchangeCase struct {
	request string // GET /path?query
	body    string // with a Content-Type before it on its own line; "": none
	header  string // Name: value
	status  int
	errors  []string // what the problem names, as place keyword
}

// fileOf is a multipart body with files of one media type.
func fileOf(field, mediaType string, n int) string {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for range n {
		part, _ := w.CreatePart(textproto.MIMEHeader{
			"Content-Disposition": {`form-data; name="` + field + `"; filename="f"`},
			"Content-Type":        {mediaType},
		})
		_, _ = part.Write([]byte("a,b\n\x00\xff"))
	}
	_ = w.Close()
	return w.FormDataContentType() + "\n" + b.String()
}

func inJSON(text string) string { return "application/json\n" + text }

// TestDocumentsInUse tests features of real documents, one document each.
func TestDocumentsInUse(t *testing.T) {
	post := func(path, body string, status int, errors ...string) exchangeCase {
		return exchangeCase{request: "POST " + path, body: body, status: status, errors: errors}
	}
	get := func(path, header string, status int) exchangeCase {
		return exchangeCase{request: "GET " + path, header: header, status: status}
	}
	for name, rows := range map[string][]exchangeCase{
		"examples": {
			get("/trains", "", 401),
			get("/trains", "Authorization: Bearer %t trains:write", 403),
			get("/trains", "Authorization: Bearer %t trains:read", 204),
			{request: "POST /trains?express=true", header: "Authorization: Bearer %t trains:write", status: 204},
			{
				request: "POST /trains?express=yes",
				header:  "Authorization: Bearer %t trains:write",
				status:  400, errors: []string{"express type"},
			},
		},
		"patterns": {
			post("/words", inJSON(`{"trimmed": "a b", "doubled": "aa", "umlaut": "ä"}`), 204),
			post("/words", inJSON(`{"long": "`+strings.Repeat("a", 2000)+`"}`), 204),
			post("/words", inJSON(`{"trimmed": " a"}`), 400, "#/trimmed pattern"),
			post("/words", inJSON(`{"doubled": "ab"}`), 400, "#/doubled pattern"),
			post("/words", inJSON(`{"umlaut": "a"}`), 400, "#/umlaut pattern"),
			post("/words", inJSON(`{"long": "`+strings.Repeat("a", 2001)+`"}`), 400,
				"#/long pattern"),
		},
		"schemes": {
			get("/either", "", 401),
			get("/either", "Authorization: Bearer %t", 204),
			get("/either", "X-API-Key: %s", 204),
			get("/either", "X-API-Key: wrong", 401),
			get("/either", "Cookie: sid=%s", 401),
			get("/cookie", "Cookie: sid=%s", 204),
			get("/cookie", "X-API-Key: %s", 401),
			get("/basic", "Authorization: Basic %s", 204),
			get("/basic", "Authorization: Basic d3Jvbmc6d3Jvbmc=", 401),
			get("/both", "Authorization: Bearer %t", 401),
			get("/both", "Certificate: %s", 401),
			get("/both", "Certificate: %s\nAuthorization: Bearer %t", 204),
		},
		"templates": {
			get("/files/a.txt", "", 204),
			{request: "GET /files/a.pdf", status: 400, errors: []string{"ext enum"}},
			get("/files/a", "", 404),
			post("/things:batch", "", 204),
			post("/things/7:activate", "", 204),
			post("/things/x:activate", "", 400, "id type"),
			get("/things/7:activate", "", 405),
			get("/users/a", "", 204),
		},
		"servers": {get("/v1/things", "", 204), get("/things", "", 404)},
		"readonly": {
			post("/inline", inJSON(`{"n": 1}`), 204),
			post("/referred", inJSON(`{"n": 1}`), 204),
			post("/inline", inJSON(`{"n": 1, "id": "x"}`), 204),
			post("/referred", inJSON(`{"n": 1, "id": "x"}`), 204),
			post("/inline", inJSON(`{"id": "x"}`), 400, "#/n required"),
			post("/referred", inJSON(`{"id": "x"}`), 400, "#/n required"),
		},
		"faults": {
			post("/addresses", inJSON(`{"zip": "x", "age": -1}`), 400, "x required", "y required",
				"#/age minimum", "#/city required", "#/street required", "#/zip pattern"),
			post("/addresses?x=1&y=2", inJSON(`{"street": "s", "city": "c"}`), 204),
		},
		"kinds": {
			post("/pets", inJSON(`{"kind": "cat", "lives": 9}`), 204),
			post("/pets", inJSON(`{"kind": "dog", "bark": true}`), 204),
			post("/pets", inJSON(`{"kind": "cat", "lives": "9", "bark": true}`), 400,
				"#/* additionalProperties", "#/lives type"),
			post("/pets", inJSON(`{"kind": "dog", "bark": 1}`), 400, "#/bark type"),
			post("/pets", inJSON(`{"kind": "cow"}`), 400, "#/kind oneOf"),
			post("/maybe", inJSON(`null`), 204),
			post("/maybe", inJSON(`{"kind": "cat", "lives": 9}`), 204),
			post("/status", inJSON(`null`), 204),
			post("/status", inJSON(`"c"`), 400, "# enum"),
			post("/map", inJSON(`{"a": 1}`), 204),
			post("/map", inJSON(`{"a": "1"}`), 400, "#/* type"),
			post("/derived", inJSON(`{"n": null}`), 204),
			post("/derived", inJSON(`{"n": "1"}`), 400, "#/n type"),
			post("/tuple", inJSON(`["a", 1]`), 204),
			post("/tuple", inJSON(`["a", 1, 2]`), 400, "#/2 false"),
			post("/multi", inJSON(`1`), 204),
			post("/multi", inJSON(`true`), 400, "# type"),
			get("/filter?f[a]=x&f[b]=1&ids=1,2&sort[]=a&sort[]=b", "", 204),
			{request: "GET /filter?f[b]=x", status: 400, errors: []string{"f#/b type"}},
			{request: "GET /filter?ids=1,x", status: 400, errors: []string{"ids items"}},
		},
		"uploads": {
			post("/import", fileOf("file", "text/csv", 1), 204),
			post("/import", fileOf("file", "application/zip", 1), 204),
			post("/import", fileOf("file", "image/png", 1), 400, "#/file contentType"),
			post("/any-file", fileOf("file", "application/gzip", 1), 204),
			post("/any-file", fileOf("file", "application/yaml", 1), 204),
			post("/many", fileOf("files", "text/csv", 3), 204),
			post("/csv", "text/csv\na,b", 204),
			post("/csv", "text/plain\na,b", 415),
			post("/proto", "application/x-protobuf\n\x00\xff", 204),
			post("/bare", "application/x-protobuf\n\x00\xff", 204),
			post("/any", "image/png\n\x00\xff", 204),
			post("/range", inJSON(`{"a": "1"}`), 204),
			post("/range", "application/problem+json\n"+`{"a": 1}`, 400, "#/a type"),
			post("/range", "text/json\n"+`{"a": 1}`, 400, "#/a type"),
			post("/range", "application/yaml\na: 1", 415),
			post("/range", "application/xml\n<a/>", 415),
			post("/api", "application/vnd.api+json\n{}", 204),
			post("/xml", inJSON(`{}`), 204),
			post("/xml", "application/xml\n<a/>", 415),
			get("/events", "", 204),
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := newCaseServer(t, "testdata/cases/"+name+".yaml")
			for _, row := range rows {
				server.try(t, row)
			}
		})
	}
}

// caseServer serves a document with a handler that only notes that it runs.
type caseServer struct {
	http.Handler
	token  func(scope string) string
	secret string
	ran    bool
}

func newCaseServer(t *testing.T, file string) *caseServer {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	base, err := authz.BasePath(doc)
	if err != nil {
		t.Fatal(err)
	}
	issuer, secrets, s := newIssuer(t), authztest.NewSecrets(doc), &caseServer{}
	s.token = func(scope string) string { return issuer.Mint(map[string]any{"scope": scope}) }
	for _, c := range secrets.Credentials() { // any value; each kind accepts it
		if s.secret, err = c.Genuine(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	gate, err := authz.New(authz.Config{
		Document: doc, BasePath: base, Verifier: newVerifier(t, issuer),
		Authenticators: secrets.Authenticators(), Undecoded: authz.DenyUndecoded,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Handler = newTemplateRouter(
		t,
		gate,
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.ran = true
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusNoContent)
		}),
	)
	return s
}

func (s *caseServer) try(t *testing.T, row exchangeCase) {
	t.Helper()
	method, target, _ := strings.Cut(row.request, " ")
	mediaType, body, _ := strings.Cut(row.body, "\n")
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	for header := range strings.Lines(row.header) {
		s.present(r, strings.TrimSpace(header))
	}
	s.ran = false
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var problem authz.Problem
	_ = json.Unmarshal(w.Body.Bytes(), &problem)
	var found []string
	for _, v := range problem.Errors {
		found = append(found, v.Parameter+v.Pointer+" "+v.Keyword)
	}
	slices.Sort(found)
	expected := slices.Sorted(slices.Values(row.errors))
	if w.Code != row.status || s.ran != (row.status == 204) || !slices.Equal(found, expected) {
		t.Errorf(
			"%s %s %.60q: status %d, errors %q, handler ran: %t; want %d, %q: %s",
			row.request,
			row.header,
			row.body,
			w.Code,
			found,
			s.ran,
			row.status,
			expected,
			w.Body,
		)
	}
}

// present sets a header, or the client certificate of the connection.
func (s *caseServer) present(r *http.Request, header string) {
	name, value, _ := strings.Cut(header, ": ")
	word, scope, _ := strings.Cut(value, "%t")
	switch user, password, _ := strings.Cut(s.secret, ":"); {
	case name == "Certificate":
		c := &x509.Certificate{Subject: pkix.Name{CommonName: s.secret}}
		r.TLS = &tls.ConnectionState{
			PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}},
		}
	case value == "Basic %s":
		r.SetBasicAuth(user, password)
	case strings.Contains(value, "%t"):
		r.Header.Set(name, word+s.token(strings.TrimSpace(scope)))
	case name != "":
		r.Header.Set(name, strings.ReplaceAll(value, "%s", s.secret))
	}
}

// TestUndecoded: a media type without a decoder is a fault, unless there is another one and the
// program refuses its bodies.
func TestUndecoded(t *testing.T) {
	for content, faults := range map[string][2]bool{ // by default, with DenyUndecoded
		"application/json: {schema: {type: object}}":                                            {false, false},
		"application/xml: {schema: {}}":                                                         {false, false},
		"application/xml: {schema: {type: object}}":                                             {true, true},
		"application/xml: {schema: {type: object}}, application/json: {schema: {type: object}}": {true, false},
		"application/xml: {schema: {type: object}}, text/csv: {schema: {type: array}}":          {true, true},
		"'*/*': {schema: {type: object}}":                                                       {false, false},
		"'application/*': {schema: {type: object}}":                                             {false, false},
		"'text/*': {schema: {type: object}}":                                                    {true, true},
		"text/json: {schema: {type: object}}":                                                   {false, false},
	} {
		document := edited(
			t,
			plain,
			"application/json: {schema: {type: object, properties: {n: {type: integer}}}}}}\n",
			content+"}}\n",
		)
		for i, undecoded := range []authz.Undecoded{authz.RefuseUndecoded, authz.DenyUndecoded} {
			_, err := authz.Config{Document: load(t, document), Undecoded: undecoded}.Compile()
			if (err != nil) != faults[i] {
				t.Errorf(
					"%s, Undecoded %d: error is %v, want one: %t",
					content,
					undecoded,
					err,
					faults[i],
				)
			}
			if undecoded == authz.RefuseUndecoded && err != nil &&
				!strings.Contains(fmt.Sprint(err), "DenyUndecoded") {
				t.Errorf("%s: the fault does not offer DenyUndecoded: %v", content, err)
			}
		}
	}
}
