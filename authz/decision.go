package authz

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// Decision is a gate's decision about one request. It holds no credential.
type Decision struct {
	Operation *Operation // nil if no operation matches
	Outcome   Outcome
	// Cause is why the request was refused, or, if [Reported], would have been; nil if allowed.
	Cause     *Error
	Principal *token.Principal // the caller, also if refused; nil if anonymous or unknown
	Duration  time.Duration    // of the decision
}

// Outcome is the result of a [Decision].
type Outcome string

// The outcomes.
const (
	Allowed  Outcome = "allowed"
	Refused  Outcome = "refused"
	Reported Outcome = "reported" // admitted only because of InsecureReport…
)

func newDecision(a *Admission, refused error, reported *Error, took time.Duration) Decision {
	d := Decision{Operation: a.Operation, Outcome: Allowed, Principal: a.Principal, Duration: took}
	switch {
	case refused != nil:
		d.Outcome, d.Cause = Refused, classify(refused)
	case reported != nil:
		d.Outcome, d.Cause = Reported, reported
	}
	return d
}

// decide runs the pipeline for one request. reported is why the request would have been refused
// without InsecureReport….
func (g *Gate) decide(
	a *Admission, r *http.Request, route string, param func(string) string,
) (admitted *http.Request, reported *Error, err error) {
	a.Operation, a.Principal, a.raw, a.rate = nil, nil, nil, rate{}
	op, err := g.match(r, route)
	if err != nil {
		return nil, nil, err
	}
	a.Operation = &op.Operation
	// It also authenticates: the validator calls checkScheme, which calls Gate.authenticate for
	// each credential before it checks scopes.
	err = g.authorize(a, r, op)
	// Only for authorized requests, because it may be longer than the server's limit.
	if op.Timeout != 0 && (err == nil || g.reportEverything) {
		r = a.limit(r, op.Timeout)
	}
	if err == nil {
		err = g.limitRate(a, r, op)
	}
	if r = op.withoutQueryKeys(r); err == nil {
		err = g.callAuthorize(a, r, op)
	}
	if err != nil {
		if !g.reportEverything {
			return nil, nil, err
		}
		reported = classify(err)
	}
	if g.reportValidation || g.reportEverything {
		var invalid *Error
		if admitted, invalid, err = g.tryValidate(a, r, op, param); err != nil {
			return nil, nil, err
		}
		if reported == nil {
			reported = invalid
		}
	} else if admitted, err = g.validate(a, r, op, param); err != nil {
		return nil, nil, err
	}
	return a.admit(admitted), reported, nil
}

// tryValidate validates a request. If it is invalid, it returns the reason with the original
// request, whose body can be read again. Errors that are not about schemas are returned as err,
// unless everything is only reported.
func (g *Gate) tryValidate(
	a *Admission, r *http.Request, op *operation, param func(string) string,
) (admitted *http.Request, invalid *Error, err error) {
	var body *replay
	if r.Body != nil && r.Body != http.NoBody {
		body = &replay{ReadCloser: r.Body}
		r = r.WithContext(r.Context())
		r.Body = body
	}
	if admitted, err = g.validate(a, r, op, param); err == nil {
		if body != nil {
			body.stop()
		}
		return admitted, nil, nil
	}
	invalid = classify(err)
	if !g.reportEverything {
		if !invalid.schema {
			return nil, nil, err
		}
		if body != nil && !body.begun {
			if err := g.checkBody(r, op); err != nil {
				return nil, nil, err
			}
		}
	}
	if body != nil {
		r.Body = body.again()
		if op.Stream {
			r.Body = http.MaxBytesReader(nil, r.Body, cmp.Or(op.MaxBody, g.maxBody))
		}
	}
	return r, invalid, nil
}

// checkBody checks the limits of a body without its media type.
func (g *Gate) checkBody(r *http.Request, op *operation) error {
	r = r.Clone(r.Context())
	r.Header.Set("Content-Type", "application/octet-stream")
	_, err := g.readBody(r, op)
	return err
}

// replay records what is read from a body.
type replay struct {
	io.ReadCloser
	kept  bytes.Buffer
	begun bool
	done  bool // stop recording
}

func (b *replay) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if !b.done {
		b.kept.Write(p[:n])
	}
	b.begun = true
	return n, err
}

// stop ends the recording. A stream is still read afterwards.
func (b *replay) stop() { b.done, b.kept = true, bytes.Buffer{} }

// again returns the whole body, recorded and unread.
func (b *replay) again() io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(&b.kept, b.ReadCloser), b.ReadCloser}
}
