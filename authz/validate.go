package authz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"

	"github.com/oasgate/oasgate/authz/internal/schema"
)

// validate validates an authorized request. It returns the request for the handler, in which
// generated code binds exactly the validated values.
func (g *Gate) validate(
	a *Admission, r *http.Request, op *operation, param func(string) string,
) (*http.Request, error) {
	if r.Body != nil && r.Body != http.NoBody { // otherwise Check does this
		if err := op.schema.CheckNames(r, param); err != nil {
			return nil, invalid(err, false)
		}
	}
	content, err := g.readBody(r, op)
	if err != nil {
		return nil, err
	}
	a.raw = content.Body
	accepted, err := op.schema.Check(r, param, content)
	switch {
	case err != nil && content.Stream != nil:
		return nil, streamError(err)
	case err != nil:
		return nil, invalid(err, true)
	case accepted.Stream != nil:
		accepted.Stream = streamedBody{accepted.Stream}
	}
	return accepted.Apply(a.contextOf(r), r), nil
}

// streamedBody is a body that is validated while the handler reads it. If it is invalid, Read
// returns an [*Error] instead of io.EOF.
type streamedBody struct{ io.Reader }

func (s streamedBody) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = streamError(err)
	}
	return n, err
}

// streamError converts an error of a streamed body to an [*Error].
func streamError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return invalid(err, false)
}

// RawBody returns the body of a request as it was sent, for handlers that verify its signature or
// digest: the gate may rewrite the body that the handler reads. It returns nil if there is no body.
// The caller must not modify it.
func RawBody(ctx context.Context) []byte {
	if a, ok := FromContext(ctx); ok {
		return a.raw
	}
	return nil
}

// PublicPath returns the [Config.PublicPath] of the gate that admitted a request, for the Location
// and Link headers of handlers.
func PublicPath(ctx context.Context) string {
	if a, ok := FromContext(ctx); ok && a.gate != nil {
		return a.gate.public
	}
	return ""
}

// Violation is a rule of the document that a request violates. It holds only names from the
// document: an asterisk stands for a name that the client chose.
type Violation struct {
	In        string `json:"in,omitempty"`        // of a parameter: query, path, header or cookie
	Parameter string `json:"parameter,omitempty"` // its name
	// Pointer is the location in the body, or in the value of the parameter (RFC 6901 §6); # is the
	// whole value.
	Pointer string `json:"pointer,omitempty"`
	Keyword string `json:"keyword"` // the keyword of JSON Schema or OpenAPI
	Detail  string `json:"detail"`
}

// invalid converts a validation error to an [*Error].
func invalid(err error, bodyRead bool) *Error {
	found, ok := errors.AsType[*schema.Error](err)
	if !ok {
		return &Error{Kind: Internal, Err: err}
	}
	e := &Error{Kind: kindOfInvalid[found.Kind], bodyRead: bodyRead, schema: true}
	switch found.Kind {
	case schema.NotFound:
		e.schema = false
	case schema.TooLarge:
		e.schema = false
		e.Detail = "The fields before the first file are too large."
	case schema.MediaType:
		e.Detail = "This operation does not accept a body of this Content-Type."
	case schema.Budget, schema.PatternTimeout:
		e.Kind, e.Detail = InvalidParameter, "A parameter takes too much work to validate."
		if found.In == "body" {
			e.Kind, e.Detail = InvalidBody, "The body takes too much work to validate."
		}
		e.Err = fmt.Errorf("validation of the request stopped: %s exceeded", found.Kind)
	}
	for i, d := range found.Details {
		if i == 0 {
			e.Detail = sentence(d)
		}
		v := Violation{Keyword: d.Keyword, Detail: d.Text}
		if d.In != "body" {
			v.In, v.Parameter = d.In, d.Name
		}
		if d.In == "body" || d.Pointer != "" {
			v.Pointer = "#" + d.Pointer
		}
		e.Errors = append(e.Errors, v)
	}
	return e
}

var kindOfInvalid = map[schema.Kind]Kind{
	schema.NotFound:         NotFound,
	schema.InvalidParameter: InvalidParameter,
	schema.InvalidBody:      InvalidBody,
	schema.MediaType:        UnsupportedMediaType,
	schema.TooLarge:         BodyTooLarge,
}

// sentence describes a violation and its location.
func sentence(d schema.Detail) string {
	s := "The " + d.In
	if d.Name != "" {
		s += " parameter " + d.Name
	}
	if d.Pointer != "" {
		s += " at " + d.Pointer
	}
	return s + " " + d.Text + "."
}

// readBody reads the body of a request, and refuses a body that the operation does not accept. A
// streamed body is read later.
func (g *Gate) readBody(r *http.Request, op *operation) (content schema.Content, err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return content, nil
	}
	if !op.schema.TakesBody() {
		if r.ContentLength < 0 { // chunked: it may still be empty
			if n, err := io.ReadFull(r.Body, make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
				return content, nil
			}
		}
		return content, refusal(InvalidBody, "This operation does not accept a body.")
	}
	for _, encoding := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(encoding, "identity") {
			return content, refusal(UnsupportedMediaType,
				"Content-Encoding is not supported: send the body as it is.")
		}
	}
	content.Essence, content.Params, err = mediaType(r.Header["Content-Type"])
	if err != nil {
		return content, err
	}
	content.Type = r.Header["Content-Type"][0]
	limit := cmp.Or(op.MaxBody, g.maxBody)
	if r.ContentLength > limit {
		return content, tooLarge(limit)
	}
	if op.Stream {
		content.Stream = limitedBody{http.MaxBytesReader(nil, r.Body, limit)}
		content.MaxFields = min(limit, g.maxBody)
		return content, nil
	}
	content.Body, err = readAll(r.Body, r.ContentLength, limit)
	if err != nil {
		err = readError(err)
	}
	return content, err
}

// limitedBody is a body whose errors are [*Error] values.
type limitedBody struct{ io.Reader }

func (b limitedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = readError(err)
	}
	return n, err
}

// readError converts an error from reading a body to an [*Error].
func readError(err error) error {
	var over *http.MaxBytesError // ours, or that of a server with a lower limit
	switch {
	case errors.As(err, &over):
		return tooLarge(over.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{Kind: Other, status: http.StatusRequestTimeout, Err: err}
	}
	return &Error{Kind: InvalidBody, Detail: "The body could not be read to its end.", Err: err}
}

// mediaType parses the Content-Type of a body.
func mediaType(headers []string) (essence string, params map[string]string, err error) {
	unsupported := func(detail string) error {
		return &Error{Kind: UnsupportedMediaType, Detail: detail, schema: true}
	}
	if len(headers) != 1 {
		return "", nil, unsupported(
			fmt.Sprintf("The request has %d Content-Type headers, expected one.", len(headers)))
	}
	if headers[0] == "application/json" {
		return headers[0], nil, nil
	}
	essence, params, err = mime.ParseMediaType(headers[0])
	if err != nil {
		return "", nil, unsupported("The Content-Type is malformed.")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", nil, unsupported("The body's charset is not supported: send UTF-8.")
	}
	return essence, params, nil
}

// maxPreallocated bounds the memory that is allocated for a body before it has arrived.
const maxPreallocated = 1 << 20

// readAll reads the whole body. A known length is within the limit, and net/http enforces it, but
// the client may send less, so memory beyond maxPreallocated grows with what arrives.
func readAll(body io.ReadCloser, length, limit int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(http.MaxBytesReader(nil, body, limit))
	}
	all := make([]byte, min(length, maxPreallocated))
	for read := int64(0); ; {
		n, err := io.ReadFull(body, all[read:])
		if read += int64(n); err != nil || read == length {
			return all[:read], err
		}
		all = append(all, make([]byte, min(length-read, read))...)
	}
}

func tooLarge(limit int64) error {
	return refusal(BodyTooLarge, "The body exceeds the limit of %d bytes.", limit)
}
