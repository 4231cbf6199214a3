package main

import (
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/examples/internal/exampletest"
	"github.com/oasgate/oasgate/authz/token"
)

const audience = "https://documents.example"

func TestUploads(t *testing.T) {
	document, issuer := exampletest.Start(t, "openapi.yaml", audience)
	folder := filepath.Join(t.TempDir(), "documents")
	handler, err := newServer(document, documents{folder}, token.Issuer{
		URL: issuer.URL(), Audiences: []string{audience},
	})
	if err != nil {
		t.Fatal(err)
	}
	empty := func() {
		if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	empty()
	authztest.Run(t, authztest.Target{
		Document: document, Handler: handler, Tokens: authztest.Issued(issuer.Issuer),
	})

	const (
		form   = "multipart/form-data; boundary=b"
		octets = "application/octet-stream"
		title  = "--b\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nReport\r\n"
		file   = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n12345\r\n"
		other  = "--b\r\nContent-Disposition: form-data; name=\"x\"; filename=\"f\"\r\n\r\n1\r\n"
	)
	content := "PUT /documents/report/content"
	for _, row := range []struct {
		name, request, contentType, body string
		status                           int
		stored                           string // its name
	}{
		{"a form", "POST /documents", form, title + file + "--b--\r\n", 201, "document"},
		{"an invalid title", "POST /documents", form,
			strings.Replace(title, "Report", "", 1) + file + "--b--\r\n", 400, ""},
		{"a form that breaks off", "POST /documents", form, title + file, 400, ""},
		{"two files", "POST /documents", form, title + file + file + "--b--\r\n", 400, ""},
		{"an undeclared file", "POST /documents", form, title + file + other + "--b--\r\n", 400, ""},
		{"bytes", content, octets, "12345", 200, "report"},
		{"no bytes", content, octets, "", 400, ""},
		{"another type", content, form, "12345", 415, ""},
		{"too many bytes", content, octets, "chunked", 413, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var body io.Reader = io.MultiReader(strings.NewReader(row.body)) // of no known length
			if row.body == "chunked" {
				body = io.LimitReader(endless{}, 51<<20)
			}
			empty()
			method, path, _ := strings.Cut(row.request, " ")
			r := httptest.NewRequest(method, path, body)
			r.Header.Set("Authorization", "Bearer "+issuer.Mint(map[string]any{
				"sub": "alice", "scope": "write:documents",
			}))
			r.Header.Set("Content-Type", row.contentType)
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != row.status {
				t.Errorf("status %d, want %d: %s", w.Code, row.status, w.Body)
			}
			var names []string
			all, err := os.ReadDir(folder)
			for _, entry := range all {
				names = append(names, entry.Name())
			}
			if stored := strings.Join(names, " "); err != nil || stored != row.stored {
				t.Errorf("stored is %q, %v, want %q", stored, err, row.stored)
			}
			if row.stored != "" && !strings.Contains(w.Body.String(), `"size":5`) {
				t.Errorf("the answer is %s", w.Body)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
