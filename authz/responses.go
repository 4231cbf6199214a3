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

// Responses says whether what handlers answer is held to the document: the status, its headers, the
// media type and the schema. Problems that the gate writes are not, nor are streams and files: what
// is flushed, larger than 1 MiB, or copied from a file by net/http. What is logged names places of
// the document, never values.
type Responses int

const (
	IgnoreResponses Responses = iota
	// LogResponses logs what does not match, and lets it pass. An operation with a response whose
	// schema cannot be compiled is not looked at.
	LogResponses
	// FailResponses answers 500 in its place. A response that cannot be compiled is a fault of the
	// document.
	FailResponses
)

// maxHeldResponse is how much of a response is kept to be validated.
const maxHeldResponse = 1 << 20

// HoldResponse returns the writer for the handler of an admitted request, and what to call when the
// handler has returned, with or without an error. Adapters call it.
func (g *Gate) HoldResponse(
	w http.ResponseWriter, admitted *http.Request,
) (http.ResponseWriter, func()) {
	a, ok := FromContext(admitted.Context())
	if g.responses == IgnoreResponses || !ok || a.Operation == nil {
		return w, func() {}
	}
	op := g.plan.paths[a.Operation.Path].methods[a.Operation.Method]
	if op.responses == nil {
		return w, func() {}
	}
	h := &held{ResponseWriter: w, delayed: g.responses == FailResponses}
	if h.delayed {
		h.before = w.Header().Clone()
	}
	return h, func() { h.finish(g, admitted, op) }
}

// held is a response that is held to the document.
type held struct {
	http.ResponseWriter
	delayed bool        // nothing is sent before it is validated
	before  http.Header // those that were set before the handler ran
	status  int         // 0: the handler has not begun to answer
	body    []byte
	passed  bool // by: a stream or a file
}

func (h *held) WriteHeader(status int) {
	if status < 200 || h.status != 0 || h.passed {
		h.ResponseWriter.WriteHeader(status)
		return
	}
	if h.status = status; !h.delayed {
		h.ResponseWriter.WriteHeader(status)
	}
}

func (h *held) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.WriteHeader(http.StatusOK)
	}
	if !h.passed && len(h.body)+len(p) > maxHeldResponse {
		h.pass()
	}
	if h.passed {
		return h.ResponseWriter.Write(p)
	}
	h.body = append(h.body, p...)
	if h.delayed {
		return len(p), nil
	}
	return h.ResponseWriter.Write(p)
}

// pass sends what there is, and lets the rest pass by.
func (h *held) pass() {
	if h.passed {
		return
	}
	h.passed = true
	h.send()
	h.body = nil
}

func (h *held) send() {
	if !h.delayed || h.status == 0 {
		return
	}
	h.ResponseWriter.WriteHeader(h.status)
	_, _ = h.ResponseWriter.Write(h.body)
}

func (h *held) ReadFrom(src io.Reader) (int64, error) {
	h.pass()
	return io.Copy(h.ResponseWriter, src)
}

func (h *held) Flush() { _ = h.FlushError() }

func (h *held) FlushError() error {
	h.pass()
	return http.NewResponseController(h.ResponseWriter).Flush()
}

func (h *held) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.pass()
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// CheckResponse checks a response to an admitted request of an operation, whose body has been read:
// its status, headers, media type and schema. The error names places of the document, never values.
// The plan must come from a [Config] whose Responses is not [IgnoreResponses]. The error wraps
// [errors.ErrUnsupported] where nothing could be checked, because the responses of the operation
// were not compiled.
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

// finish validates the response once it is whole.
func (h *held) finish(g *Gate, r *http.Request, op *operation) {
	if h.status == 0 || h.passed {
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
	if !h.delayed {
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
