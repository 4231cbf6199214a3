package docs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"net/http"
	"path"
	"strings"
	"time"
)

// page holds the page's own files. Those of Swagger UI have inline scripts, which the policy
// forbids.
//
//go:embed page
var page embed.FS

//go:generate sh fetch.sh

// swaggerUI holds the files of Swagger UI, compressed.
//
//go:embed swagger-ui/*.gz
var swaggerUI embed.FS

// file is a static file.
type file struct {
	contentType string
	plain, gzip []byte // gzip is nil if it saves little
	etag        string // of plain
}

func readFiles() (map[string]file, error) {
	files := map[string]file{}
	for _, name := range []string{"docs.js", "docs.css", "favicon.svg",
		"oauth2-redirect.html", "oauth2-redirect.js"} {
		plain, err := page.ReadFile("page/" + name)
		if err != nil {
			return nil, err
		}
		files[name] = newFile(name, plain, nil)
	}
	for _, name := range []string{"swagger-ui-bundle.js", "swagger-ui.css"} {
		compressed, err := swaggerUI.ReadFile("swagger-ui/" + name + ".gz")
		if err != nil {
			return nil, err
		}
		reader, err := gzip.NewReader(bytes.NewReader(compressed))
		if err != nil {
			return nil, err
		}
		plain, err := io.ReadAll(reader)
		if err != nil {
			return nil, err
		}
		files[name] = newFile(name, plain, compressed)
	}
	return files, nil
}

func newFile(name string, plain, compressed []byte) file {
	sum := sha256.Sum256(plain)
	contentType := map[string]string{ // mime.TypeByExtension depends on the machine
		".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".html": "text/html; charset=utf-8",
		".svg":  "image/svg+xml", ".json": "application/json", ".yaml": "application/yaml",
	}[path.Ext(name)]
	return file{contentType: contentType, plain: plain, gzip: compressed,
		etag: hex.EncodeToString(sum[:12])}
}

// compressed compresses generated content.
func compressed(name string, plain []byte) file {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // cannot fail: BestSpeed is valid
	_, _ = w.Write(plain)                           // cannot fail: w writes to a buffer
	_ = w.Close()
	return newFile(name, plain, b.Bytes())
}

// serve answers with the file. Browsers revalidate it each time, because names without a version
// may mean another file after the next deployment.
func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-cache")
	body, etag := f.plain, f.etag
	if f.gzip != nil {
		h.Add("Vary", "Accept-Encoding") // CORS may have set it already
		if acceptsGzip(r) {
			h.Set("Content-Encoding", "gzip")
			body, etag = f.gzip, f.etag+"-gzip"
		}
	}
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip parses Accept-Encoding (RFC 9110 §12.5.3) approximately: it treats any weight below 1
// as a refusal, which costs only bytes.
func acceptsGzip(r *http.Request) bool {
	for _, entry := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","),
		",") {
		coding, weight, weighed := strings.Cut(strings.TrimSpace(entry), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			return !weighed || !strings.HasPrefix(strings.TrimSpace(weight), "q=0")
		}
	}
	return false
}
