package authz

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/oasgate/oasgate/authz/internal/schema"
)

// Responses says whether the responses of handlers are validated: status, headers, media type and
// schema. Problems of the gate are not validated, nor are streams and files: responses that are
// flushed, larger than 1 MiB, or copied from a file by net/http. Logs name locations in the
// document, never values.
type Responses int

const (
	IgnoreResponses Responses = iota
	// LogResponses logs responses that do not match, and sends them. It ignores operations with a
	// response whose schema cannot be compiled.
	LogResponses
	// FailResponses answers 500 instead of responses that do not match. A response that cannot be
	// compiled is a fault of the document.
	FailResponses
)

// maxBufferedResponse bounds the responses that are validated.
const maxBufferedResponse = 1 << 20

// WrapResponse returns the writer for the handler of an admitted request, which validates the
// response, and a function to call after the handler has returned. It is for adapters.
func (g *Gate) WrapResponse(
	w http.ResponseWriter, admitted *http.Request,
) (http.ResponseWriter, func()) {
	if g.responses == IgnoreResponses {
		return w, func() {}
	}
	a, ok := FromContext(admitted.Context())
	if !ok || a.Operation == nil {
		return w, func() {}
	}
	op := g.plan.paths[a.Operation.Path].methods[a.Operation.Method]
	if op.responses == nil {
		return w, func() {}
	}
	h := &checkedResponse{ResponseWriter: w, buffered: g.responses == FailResponses}
	if h.buffered {
		h.before = w.Header().Clone()
	}
	return h, func() { h.finish(g, admitted, op) }
}

// checkedResponse validates a response against the document.
type checkedResponse struct {
	http.ResponseWriter
	buffered bool        // send nothing before it is validated
	before   http.Header // the headers before the handler ran
	status   int         // 0: the handler has not begun to answer
	body     []byte
	bypassed bool // not validated: a stream or a file
}

func (h *checkedResponse) WriteHeader(status int) {
	if status < 200 || h.status != 0 || h.bypassed {
		h.ResponseWriter.WriteHeader(status)
		return
	}
	if h.status = status; !h.buffered {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *checkedResponse) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.WriteHeader(http.StatusOK)
	}
	if !h.bypassed && len(h.body)+len(p) > maxBufferedResponse {
		h.bypass()
	}
	if h.bypassed {
		return h.ResponseWriter.Write(p)
	}
	h.body = append(h.body, p...)
	if h.buffered {
		return len(p), nil
	}
	return h.ResponseWriter.Write(p)
}

// bypass sends the buffered part, and writes the rest directly.
func (h *checkedResponse) bypass() {
	if h.bypassed {
		return
	}
	h.bypassed = true
	h.send()
	h.body = nil
}

func (h *checkedResponse) send() {
	if !h.buffered || h.status == 0 {
		return
	}
	h.ResponseWriter.WriteHeader(h.status)
	_, _ = h.ResponseWriter.Write(h.body)
}

func (h *checkedResponse) ReadFrom(src io.Reader) (int64, error) {
	h.bypass()
	return io.Copy(h.ResponseWriter, src)
}

func (h *checkedResponse) Flush() { _ = h.FlushError() }

func (h *checkedResponse) FlushError() error {
	h.bypass()
	return http.NewResponseController(h.ResponseWriter).Flush()
}

func (h *checkedResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.bypass()
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

func (h *checkedResponse) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// CheckResponse validates a response to an admitted request of an operation, whose body has been
// read: status, headers, media type and schema. The error names locations in the document, never
// values. The plan must come from a [Config] whose Responses is not [IgnoreResponses]. The error
// wraps [errors.ErrUnsupported] if the responses of the operation were not compiled.
func (p *Plan) CheckResponse(o Operation, response *http.Response, body []byte) error {
	at := p.paths[o.Path]
	if at == nil || at.methods[o.Method] == nil {
		return fmt.Errorf("authz: the document has no operation %s %s", o.Method, o.Path)
	}
	op := at.methods[o.Method]
	if op.responses == nil {
		return fmt.Errorf("authz: the responses of %s were not compiled: compile the plan with "+
			"Config.Responses set to authz.FailResponses, which reports why: %w", o.ID,
			errors.ErrUnsupported)
	}
	head := response.Request != nil && response.Request.Method == http.MethodHead
	return op.checkResponse(head, response.StatusCode, response.Header, body)
}

func (o *operation) checkResponse(head bool, status int, h http.Header, body []byte) error {
	content := schema.Content{Body: body}
	content.Essence, content.Params, _ = mediaType(h["Content-Type"])
	bodiless := head || status == http.StatusNoContent || status == http.StatusNotModified
	return o.responses.Check(status, h, bodiless, content)
}

// finish validates the complete response.
func (h *checkedResponse) finish(g *Gate, r *http.Request, op *operation) {
	if h.status == 0 || h.bypassed {
		return
	}
	err := op.checkResponse(r.Method == http.MethodHead, h.status, h.Header(), h.body)
	if err == nil {
		h.send()
		return
	}
	g.logger.LogAttrs(r.Context(), slog.LevelWarn, "response does not match the document",
		slog.String("operation", op.ID), slog.Int("status", h.status),
		slog.String("cause", err.Error()))
	if !h.buffered {
		return
	}
	clear(h.Header())
	for name, values := range h.before {
		h.Header()[name] = values
	}
	g.WriteProblem(h.ResponseWriter, r, &Error{
		Kind: Internal, Err: fmt.Errorf("the response does not match the document: %w", err),
	})
}
