package authz

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/oasgate/oasgate/authz/internal/schema"
)

// validate holds an admitted request to the document. It returns the request as the handler shall see
// it, with its body read.
func (g *Gate) validate(r *http.Request, op *operation, param func(string) string) (*http.Request, error) {
	validated, err := op.schema.Validate(r, param, func() (schema.Body, error) { return g.readBody(r, op) })
	if invalid, ok := errors.AsType[*schema.Error](err); ok {
		kind := kindOfInvalid[invalid.Kind]
		return nil, &Error{
			Kind: kind, Detail: invalid.Detail, Err: invalid.Err, bodyRead: invalid.BodyRead,
			schema: kind != Internal && kind != NotFound,
		}
	}
	return validated, err
}

var kindOfInvalid = map[schema.Kind]Kind{
	schema.Internal:       Internal,
	schema.NotFound:       NotFound,
	schema.Parameter:      InvalidParameter,
	schema.InvalidBody:    InvalidBody,
	schema.WrongMediaType: UnsupportedMediaType,
}

// readBody reads the body of a request whose operation takes one, and refuses any other body.
func (g *Gate) readBody(r *http.Request, op *operation) (body schema.Body, err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return body, nil
	}
	if !op.schema.TakesBody() {
		if r.ContentLength < 0 { // chunked: it may still be empty
			if n, err := io.ReadFull(r.Body, make([]byte, 1)); n == 0 && errors.Is(err, io.EOF) {
				return body, nil
			}
		}
		return body, refusal(InvalidBody, "This operation takes no body.")
	}
	for _, encoding := range r.Header["Content-Encoding"] {
		if !strings.EqualFold(encoding, "identity") {
			return body, refusal(UnsupportedMediaType, "Content-Encoding is not supported: send the body as it is.")
		}
	}
	if body.Media, body.Params, err = schema.ParseMediaType(r.Header["Content-Type"]); err != nil {
		return body, err
	}
	limit := cmp.Or(op.MaxBody, g.maxBody)
	if r.ContentLength > limit {
		return body, tooLarge(limit)
	}
	body.Bytes, err = readAll(r.Body, r.ContentLength, limit)
	var over *http.MaxBytesError // ours, or that of a server with a lower limit
	switch {
	case errors.As(err, &over):
		return body, tooLarge(over.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return body, &Error{Kind: Other, status: http.StatusRequestTimeout, Err: err}
	case err != nil:
		return body, &Error{Kind: InvalidBody, Detail: "The body could not be read to its end.", Err: err}
	}
	return body, nil
}

// readAll reads to the end. A length that is known is within the limit, and net/http sees to it that it is kept.
func readAll(body io.ReadCloser, length, limit int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(http.MaxBytesReader(nil, body, limit))
	}
	all := make([]byte, length)
	_, err := io.ReadFull(body, all)
	return all, err
}

func tooLarge(limit int64) error {
	return refusal(BodyTooLarge, "The body is larger than the %d bytes that are accepted.", limit)
}
