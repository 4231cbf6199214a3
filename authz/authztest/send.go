package authztest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// exchange is a request that was sent, and its result.
type exchange struct {
	faults []string
	answer answer
	detail string
	curl   string
	proof  string // that was sent

	handshakeRefused bool
}

// add records an exchange.
func (r *Result) add(e exchange) {
	r.Faults, r.Status, r.HandshakeRefused = e.faults, e.answer.status, e.handshakeRefused
	if e.faults != nil {
		r.Detail, r.Curl = e.detail, e.curl
	}
}

// The body of a case with an invalid body. The marker shows whether a response repeats it.
const (
	marker      = "authztest-unterminated"
	brokenJSON  = `{"` + marker + `": `
	jsonContent = "application/json"
)

// send sends the request of a case with a credential, and compares the response with what the case
// expects.
func (r *run) send(
	ctx context.Context,
	c Case,
	authorization string,
	secrets []string,
) (e exchange) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	request := r.requests[c.Operation.ID]
	if c.request != nil {
		request = *c.request
	}
	body := r.upload(ctx, c, &request)
	sent, err := request.http(ctx, r.URL, c.Operation, body)
	if err != nil {
		return exchange{faults: []string{err.Error()}}
	}
	maps.Copy(sent.Header, r.Header)
	if sent.ContentLength = body.length; body.length == 0 {
		sent.Body = http.NoBody
	}
	client := r.clientFor(sent, c)
	if authorization != "" {
		sent.Header.Set("Authorization", authorization)
	}
	if err := r.present(sent, c, secrets); err != nil {
		return exchange{faults: []string{"cannot present the credential: " + err.Error()}}
	}
	if authorization != "" {
		secrets = append(secrets, authorization[strings.IndexByte(authorization, ' ')+1:])
	}
	if c.proof != nil {
		if e.proof = r.prove(sent, c, authorization); e.proof != "" {
			secrets = append(secrets, e.proof)
		}
	}
	e.curl = r.curl(sent, c, request, secrets)
	calls := r.calls()
	response, err := client.Do(sent)
	if err != nil {
		r.noResponse(&e, c, err)
		return e
	}
	defer response.Body.Close()
	e.answer = answer{status: response.StatusCode, header: response.Header}
	e.answer.body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil && c.Want != "" {
		e.faults = []string{"cannot read the response: " + err.Error()}
		return e
	}
	e.detail = redact(e.answer.detail(), secrets)
	e.faults = r.judge(c, response, e.answer, r.calls()-calls)
	if c.Want != "" {
		e.faults = append(e.faults, r.leaks(c, e.answer, body.read.Load(), secrets)...)
	}
	return e
}

// upload returns the body of a case, and sets its content type.
func (r *run) upload(ctx context.Context, c Case, request *Request) *upload {
	switch c.body {
	case invalidBody:
		request.ContentType = jsonContent
		return &upload{Reader: strings.NewReader(brokenJSON), length: int64(len(brokenJSON))}
	case hugeBody:
		request.ContentType = jsonContent
		return &upload{Reader: &endless{ctx: ctx, wait: r.Handler == nil}, length: -1}
	}
	return &upload{Reader: bytes.NewReader(request.Body), length: int64(len(request.Body))}
}

// clientFor returns the client that presents the certificate of a case. For a handler in process,
// it puts the certificate into the request instead.
func (r *run) clientFor(sent *http.Request, c Case) *http.Client {
	certificate := r.certificateOf(c)
	if presenting := r.presenting[certificate]; presenting != nil {
		return presenting
	}
	if certificate != nil {
		sent.TLS = &tls.ConnectionState{
			HandshakeComplete: true, PeerCertificates: []*x509.Certificate{certificate.Leaf},
		}
	}
	if c.outage {
		return r.outage
	}
	return r.client
}

// noResponse records why there is no response. If the case has a certificate that the server does
// not accept, a failed handshake is the expected refusal.
func (r *run) noResponse(e *exchange, c Case, err error) {
	if r.presenting != nil && r.certificateOf(c) != r.Certificate && c.Want != "" &&
		refusesHandshake(err) {
		e.handshakeRefused = true
		return
	}
	why := "no response: " + err.Error()
	if c.body == hugeBody {
		why += ": does the server wait for the body before it looks for a token?"
	}
	e.faults = []string{why}
}

// judge compares a response with what the case expects. ran is how often the handler has run.
func (r *run) judge(c Case, response *http.Response, got answer, ran int) []string {
	faults := c.faults(got, r.OnlyRFC6750)
	if fault := r.conformance(c, response, got.body); faults == nil && fault != "" {
		faults = []string{fault}
	}
	switch {
	case r.Calls == nil:
	case c.Want == "" && ran == 0 && faults == nil:
		faults = append(
			faults,
			fmt.Sprintf("expected the handler to run, it did not; received %d", got.status),
		)
	case c.Want != "" && ran > 0:
		faults = append(faults, "expected the handler not to run, it did")
	}
	return faults
}

// leaks returns what a refusal reveals of the request, and whether bytes of the body were read
// before it.
func (r *run) leaks(c Case, got answer, read int64, secrets []string) (faults []string) {
	if r.Handler != nil && c.body != validBody && read > 0 {
		faults = append(
			faults,
			fmt.Sprintf(
				"expected no byte of the body to be read before the token is accepted, %d were",
				read,
			),
		)
	}
	if c.body == invalidBody && got.repeats(marker) {
		faults = append(
			faults,
			"expected a response that does not repeat the body, it repeats some of it",
		)
	}
	if slices.ContainsFunc(secrets, got.repeats) {
		faults = append(
			faults,
			"expected a response that does not repeat the credential, it does",
		)
	}
	return faults
}

// maxAnswer is how much of a response is read, in bytes.
const maxAnswer = 1 << 20

// conformance compares a response with the document, and returns "" if they agree. It compares
// refusals only if the document describes them as problems, because it need not describe refusals.
func (r *run) conformance(c Case, response *http.Response, body []byte) string {
	// 501 means that the operation has no handler yet, as in code that authz init writes.
	if r.withResponses == nil || len(body) == maxAnswer ||
		response.StatusCode == http.StatusNotImplemented ||
		c.Want != "" && !r.describesProblem(c.Operation, response.StatusCode) {
		return ""
	}
	err := r.withResponses.CheckResponse(c.Operation, response, body)
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return ""
	}
	return "expected a response that the document describes, received " +
		strconv.Itoa(response.StatusCode) + ": " + err.Error()
}

// describesProblem reports whether the document describes a status as a problem (RFC 9457).
func (r *run) describesProblem(o authz.Operation, status int) bool {
	responses := r.Document.Paths.Value(o.Path).GetOperation(o.Method).Responses
	for _, ref := range []*openapi3.ResponseRef{
		responses.Status(status), responses.Value(strconv.Itoa(status/100) + "XX"),
		responses.Default(),
	} {
		if ref != nil && ref.Value != nil {
			return ref.Value.Content["application/problem+json"] != nil
		}
	}
	return false
}

func (r *run) calls() int {
	if r.Calls == nil {
		return 0
	}
	return r.Calls()
}
