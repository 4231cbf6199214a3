// Program uploads takes large files, guarded by openapi.yaml, with code that oapi-codegen generates
// for Echo:
//
//	ISSUER=https://tenant.example/ AUDIENCE=https://documents.example go run ./uploads
package main

//go:generate go tool oapi-codegen -config oapi-codegen.yaml openapi.yaml

import (
	"context"
	"errors"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/token"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	document, err := openapi3.NewLoader().LoadFromFile("uploads/openapi.yaml")
	if err != nil {
		log.Fatal(err)
	}
	s, err := newServer(document, documents{os.TempDir()}, token.Issuer{
		URL:       os.Getenv("ISSUER"),
		Audiences: []string{os.Getenv("AUDIENCE")},
	})
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(s.Serve(ctx, listener))
}

// newServer returns the guarded API. The error lists every fault of the document and the routes.
func newServer(
	document *openapi3.T, handlers documents, issuer token.Issuer,
) (*server.Server, error) {
	return server.New(context.Background(), server.Config{
		Document: document,
		Issuers:  []token.Issuer{issuer},
		Routes: func(gate *authz.Gate) (http.Handler, error) {
			return echov4.Routes(gate, func(e *echo.Echo) {
				RegisterHandlers(e, NewStrictHandler(handlers, nil))
			})
		},
	})
}

// documents are the handlers. They keep documents in a folder.
type documents struct{ folder string }

// AddDocument reads a form. Its title comes first and is valid. Whether the file is whole shows
// only at the end of the form.
func (d documents) AddDocument(
	_ context.Context, request AddDocumentRequestObject,
) (AddDocumentResponseObject, error) {
	var title []byte
	var found Document
	err := d.store("document", func(w io.Writer) error {
		for {
			part, err := request.Body.NextPart()
			if errors.Is(err, io.EOF) {
				return nil // now, and not before
			}
			if err != nil {
				return err
			}
			if err := read(part, &title, &found.Size, w); err != nil {
				return err
			}
		}
	})
	found.Name = string(title)
	return AddDocument201JSONResponse(found), err
}

func read(part *multipart.Part, title *[]byte, size *int64, w io.Writer) (err error) {
	if part.FormName() == "title" {
		*title, err = io.ReadAll(part)
		return err
	}
	*size, err = io.Copy(w, part)
	return err
}

// PutContent reads bytes.
func (d documents) PutContent(
	_ context.Context, request PutContentRequestObject,
) (PutContentResponseObject, error) {
	found := Document{Name: request.Name}
	err := d.store(request.Name, func(w io.Writer) (err error) {
		found.Size, err = io.Copy(w, request.Body)
		return err
	})
	return PutContent200JSONResponse(found), err
}

// store writes a file that is there only if write succeeds.
func (d documents) store(name string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(d.folder, "upload-")
	if err != nil {
		return err
	}
	err = write(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return os.Rename(file.Name(), filepath.Join(d.folder, name))
}
