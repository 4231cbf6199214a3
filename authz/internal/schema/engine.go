// Package schema validates values against the schemas of an OpenAPI document.
//
// The document is compiled once. A body is validated in one pass over its bytes, syntax included,
// which stops at the first fault and allocates only where a keyword requires it. The same pass
// finds the edits that make generated code bind exactly the value that was validated. A body with
// escapes, or one that this pass refuses, is first held to jsontext's syntax; another pass, for
// refused requests only, collects the details.
//
// The dialect is JSON Schema 2020-12 for OpenAPI 3.1 (§4.8.24), and that of OpenAPI 3.0.
//
// kin-openapi loses some information, which cannot be enforced: const: null, if the document was
// loaded without IncludeOrigin, and the last digits of the document's numbers from 2^53 on.
// [Operation.Unbound] lists the values that generated code cannot bind: its binder refuses or omits
// them.
package schema

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	root    *node
	options Options
	runs    sync.Pool // *run
}

// Kind is the reason why a request is refused.
type Kind string

const (
	InvalidParameter Kind = "parameter"
	InvalidBody      Kind = "body"
	// MediaType means that the operation does not accept a body of this Content-Type.
	MediaType Kind = "media type"
	// TooLarge means that the fields of a streamed form exceed their size limit.
	TooLarge Kind = "too large"
	// Budget means that validation would exceed the work limit of a request, or that the value is
	// nested too deeply.
	Budget Kind = "budget"
	// PatternTimeout means that matching a pattern would exceed the time limit of a request.
	PatternTimeout Kind = "pattern timeout"
	// NotFound means that a path parameter is empty: a path without a segment is a different path.
	NotFound Kind = "not found"

	// undecided means that a pass cannot decide about a text that may not be valid JSON.
	undecided Kind = "undecided"
)

// Error describes a refused request. It contains nothing that the client sent.
type Error struct {
	Kind Kind
	// Details are set for InvalidParameter and InvalidBody: parameters first, each in the order of
	// the request.
	Details []Detail
	In      string // as in Detail, if Kind is Budget or PatternTimeout
}

// Detail is one fault.
type Detail struct {
	In   string // query, path, header, cookie or body
	Name string // of the parameter
	// a JSON pointer (RFC 6901) into the body or the parameter's value; * stands for a name chosen
	// by the client
	Pointer string
	Keyword string // of the schema
	Text    string // a description without a subject: "is not of type string"
}

// MaxDetails is the maximum number of faults reported for one request.
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

// Validate validates a JSON text. It returns the text for generated code to bind: the same bytes,
// unless a value must be rewritten. Its errors are of type [*Error].
func (s *Schema) Validate(body []byte) ([]byte, error) {
	return s.validate(body, "body", "", InvalidBody, new(time.Duration))
}

// validate validates the value of a parameter or of the body. spent is the time that the request
// has spent on patterns.
func (s *Schema) validate(
	text []byte, in, name string, kind Kind, spent *time.Duration,
) ([]byte, error) {
	r, found := s.runs.Get().(*run)
	if !found {
		r = &run{options: &s.options}
	}
	r.spent = *spent
	defer s.release(r, spent)
	// The first pass validates the syntax as well. It decides about most texts.
	r.begin(text, false)
	if utf8.Valid(text) && bytes.IndexByte(text, '\\') < 0 {
		if r.whole(s.root) {
			return r.rewritten(), nil
		}
	} else {
		r.undecided()
	}
	if !jsontext.Value(text).IsValid() { // RFC 7493: unique names, valid UTF-8, one value
		d := malformed(text)
		d.In, d.Name = in, name
		return nil, &Error{Kind: kind, Details: []Detail{d}}
	}
	if r.fatal == undecided {
		if r.begin(text, true); r.whole(s.root) {
			return r.rewritten(), nil
		}
	}
	if r.fatal != "" {
		return nil, &Error{Kind: r.fatal, In: in}
	}
	var details []Detail
	details, r.spent = s.faults(r, in, name)
	return nil, &Error{Kind: kind, Details: details}
}

// faults makes the pass that collects the faults of a text. It shares the budget of the passes
// before it, and takes no more than a few times their steps. It returns the time spent on patterns.
func (s *Schema) faults(before *run, in, name string) ([]Detail, time.Duration) {
	all := &report{in: in, name: name}
	r := run{options: &s.options, report: all, spent: before.spent}
	r.begin(before.body, true)
	r.ends = before.ends
	r.steps = min(before.steps, 1<<16+4*(r.steps-before.steps))
	if r.whole(s.root); len(all.details) == 0 {
		// The budget is spent.
		all.add(Detail{In: in, Name: name, Keyword: "schema", Text: "does not match its schema"})
	}
	return all.details, r.spent
}

// release returns a run to the pool, unless its buffers have grown too large.
func (s *Schema) release(r *run, spent *time.Duration) {
	*spent = r.spent
	r.ends, r.forms.hashes, r.number.text = nil, nil, nil // like the body, they may be large
	if r.body = nil; cap(r.edits) <= 64 && cap(r.buffer) <= 4096 && cap(r.names) <= 256 &&
		cap(r.index) <= 256 {
		r.edits, r.buffer = r.edits[:0], r.buffer[:0]
		s.runs.Put(r)
	}
}

// budget returns the maximum number of steps of a pass. Applying a schema to a value is one step,
// or more if the value is long. Reading a few bytes without a schema, or again, is one step too. A
// schema takes a small part of the budget unless it contains itself several times.
func budget(size int) int { return 1<<16 + 32*size }

// begin begins a pass over a text. trusted says that it is known to be valid JSON.
func (r *run) begin(text []byte, trusted bool) {
	r.body, r.trusted, r.steps, r.depth, r.fatal = text, trusted, budget(len(text)), 0, ""
	r.edits, r.names, r.index, r.indexed.at = r.edits[:0], r.names[:0], r.index[:0], -1
	r.ends, r.unpaid, r.skipped, r.forms.hashes = nil, 0, 0, nil
}

// whole checks the whole text.
func (r *run) whole(n *node) bool {
	end, ok := r.check(n, space(r.body, 0), nil)
	if ok && space(r.body, end) < len(r.body) {
		ok = r.undecided()
	}
	return ok && r.fatal == ""
}

// malformed describes why a text is not accepted as JSON.
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
