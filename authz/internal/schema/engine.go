// Package schema holds values to the schemas of an OpenAPI document.
//
// Everything that the document decides is compiled once. A body is validated in one pass over its
// bytes, which stops at the first fault; nothing is built from it but where a keyword needs that.
// The same pass finds what has to be rewritten, so that generated code binds exactly the value that
// was validated. Only for a refused request a second pass collects what is wrong.
//
// The dialect is JSON Schema 2020-12 for OpenAPI 3.1 (§4.8.24), and that of OpenAPI 3.0.
//
// What kin-openapi does not hand over cannot be enforced: const: null of a document that was loaded
// without IncludeOrigin, and the last digits of numbers of the document from 2^53 on. What
// generated code cannot bind is listed in [Operation.Unbound]: it is refused by its binder, or left
// out.
package schema

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	root    *node
	options Options
	runs    sync.Pool // *run
}

// Kind is why a request is refused.
type Kind string

const (
	InvalidParameter Kind = "parameter"
	InvalidBody      Kind = "body"
	// MediaType: the operation takes no body of this Content-Type.
	MediaType Kind = "media type"
	// TooLarge: the fields of a form that is streamed are larger than a request may make them.
	TooLarge Kind = "too large"
	// Budget: validating would take more work than a request may cause, or the value nests deeper
	// than any program means.
	Budget Kind = "budget"
	// PatternTimeout: matching a pattern would take longer than a request may cause.
	PatternTimeout Kind = "pattern timeout"
	// NotFound: a path parameter is empty, and a path without a segment is another path.
	NotFound Kind = "not found"
)

// Error is why a request is refused. It holds nothing that the client sent.
type Error struct {
	Kind Kind
	// Details are those of InvalidParameter and InvalidBody: parameters first, each in the order of
	// the request.
	Details []Detail
	In      string // as in Detail, where Kind is Budget or PatternTimeout
}

// Detail is one fault.
type Detail struct {
	In   string // query, path, header, cookie or body
	Name string // of the parameter
	// RFC 6901, in the body or the parameter's value; * is a name that the client chose
	Pointer string
	Keyword string // of the schema
	Text    string // what is wrong, without a subject: "is not of type string"
}

// MaxDetails is how many faults of one request are reported.
const MaxDetails = 20

func (e *Error) Error() string {
	if len(e.Details) == 0 {
		return "refused: " + string(e.Kind)
	}
	var b strings.Builder
	for i, d := range e.Details {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(strings.Join(strings.Fields(d.In+" "+d.Name+" "+d.Pointer+" "+d.Text), " "))
	}
	return b.String()
}

// Validate validates a JSON text. It returns the text that generated code is to bind: the same
// bytes, unless something has to be rewritten for that. An error is an [*Error].
func (s *Schema) Validate(body []byte) ([]byte, error) {
	return s.validate(body, "body", "", InvalidBody)
}

// validate validates the value of a parameter or of the body.
func (s *Schema) validate(text []byte, in, name string, kind Kind) ([]byte, error) {
	if !isValid(text) { // RFC 7493: unique names, valid UTF-8, one value
		d := malformed(text)
		d.In, d.Name = in, name
		return nil, &Error{Kind: kind, Details: []Detail{d}}
	}
	r, ok := s.runs.Get().(*run)
	if !ok {
		r = &run{options: &s.options}
	}
	defer s.release(r)
	r.body, r.steps, r.depth, r.fatal, r.spent = text, budget(len(text)), 0, "", 0
	if r.whole(s.root) {
		return r.rewritten(), nil
	}
	if r.fatal != "" {
		return nil, &Error{Kind: r.fatal, In: in}
	}
	// The second pass collects, on the same budget.
	found := &report{in: in, name: name}
	c := run{body: text, options: &s.options, steps: budget(len(text)), report: found}
	c.whole(s.root)
	return nil, &Error{Kind: kind, Details: found.details}
}

// release keeps a run for the next text, unless its buffers have grown beyond what most need.
func (s *Schema) release(r *run) {
	if r.body = nil; cap(r.edits) <= 64 && cap(r.buffer) <= 4096 {
		r.edits, r.buffer = r.edits[:0], r.buffer[:0]
		s.runs.Put(r)
	}
}

// budget returns how many steps a pass may take. Every schema that is tried on a value is a step,
// and long values take more.
func budget(size int) int { return 1<<16 + 32*size }

// whole checks the whole text.
func (r *run) whole(n *node) bool {
	_, ok := r.check(n, space(r.body, 0), nil)
	return ok && r.fatal == ""
}

// malformed says what is wrong with a text that is not accepted as JSON.
func malformed(body []byte) Detail {
	d := Detail{Keyword: "syntax"}
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	_, err := decoder.ReadValue()
	if err == nil {
		d.Text = "has something after its JSON value"
		return d
	}
	at := int64(len(body))
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		at = syntactic.ByteOffset
	}
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		d.Text = fmt.Sprintf("has an object with two members of the same name (at byte %d)", at)
	case len(bytes.TrimSpace(body)) == 0:
		d.Text = "is empty"
	default:
		d.Text = fmt.Sprintf("is not valid JSON (at byte %d)", at)
	}
	return d
}
