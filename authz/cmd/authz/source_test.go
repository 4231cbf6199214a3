package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestRemoteDocument reads documents from servers, within bounds.
func TestRemoteDocument(t *testing.T) {
	const head = "openapi: 3.1.0\ninfo: {title: t, version: 1.0.0}\npaths: {/a: "
	var other *httptest.Server
	mux := http.NewServeMux()
	serve := func(path, text string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.ReplaceAll(text, "OTHER", other.URL))
		})
	}
	serve("/api/openapi.yaml", head+"{$ref: ../a.yaml}}")
	serve(
		"/a.yaml",
		"get: {operationId: a, security: [], responses: {default: {description: fine}}}",
	)
	serve("/elsewhere.yaml", head+"{$ref: OTHER/a.yaml}}")
	mux.HandleFunc(
		"/moved.yaml",
		func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/a.yaml", http.StatusFound)
		},
	)
	mux.HandleFunc("/large.yaml", func(w http.ResponseWriter, _ *http.Request) {
		line := bytes.Repeat([]byte("#\n"), 1<<19)
		for range maxRemote>>20 + 1 {
			_, _ = w.Write(line)
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	other = httptest.NewServer(mux)
	defer other.Close()
	for path, expected := range map[string]struct {
		code int
		text string
	}{
		"/api/openapi.yaml": {allWell, "GET, HEAD  /a    a"},
		"/elsewhere.yaml":   {unable, "only files of "},
		"/moved.yaml":       {unable, "status is 302, expected 200"},
		"/missing.yaml":     {unable, "status is 404, expected 200"},
		"/large.yaml":       {unable, "expected at most 64 MiB"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(
			t.Context(),
			[]string{"plan", server.URL + path},
			&bytes.Buffer{},
			&stdout,
			&stderr,
		)
		if out := stdout.String() + stderr.String(); code != expected.code ||
			!strings.Contains(out, expected.text) {
			t.Errorf(
				"%s: exit code %d, %s: want %d, %q",
				path,
				code,
				out,
				expected.code,
				expected.text,
			)
		}
	}
}
