package authztest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
)

// preparation collects the faults of a target.
type preparation struct {
	*run
	faults []error
}

func (p *preparation) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("authztest: "+format, args...))
}

// prepare validates a target, or returns all of its faults, joined.
func prepare(target Target) (*run, error) {
	p := preparation{run: &run{Target: target, requests: map[string]Request{}}}
	p.makeForger()
	p.connect()
	if target.Document == nil {
		p.fault("Target.Document is nil")
		return nil, errors.Join(p.faults...)
	}
	plan, err := authz.Config{
		Document: target.Document,
		Without:  target.Without,
		Unstated: target.Unstated,
	}.CompileSecurity()
	if err != nil {
		return nil, errors.Join(append(p.faults, err)...)
	}
	p.schemes = schemes{plan}
	if !target.IgnoreResponses {
		// If some schemas cannot be enforced, responses are not compared.
		p.withResponses, _ = authz.Config{
			Document: target.Document, Without: target.Without, Unstated: target.Unstated,
			Undecoded: authz.DenyUndecoded, Responses: authz.LogResponses,
		}.Compile()
	}
	for name := range target.Credentials {
		if plan.Scheme(name) == nil {
			p.fault("Target.Credentials has %q, which is not a security scheme of the document",
				name)
		}
	}
	p.deriveCases(plan, p.buildRequests(plan))
	return p.run, errors.Join(p.faults...)
}

// makeForger makes the keys and certificates of forged credentials.
func (p *preparation) makeForger() {
	p.forger = forger{
		tokens:    p.Tokens,
		now:       p.Now,
		attackers: map[string]*devissuer.Issuer{},
	}
	if p.forger.now == nil {
		p.forger.now = time.Now
	}
	for _, key := range []*ProofKey{&p.forger.key, &p.forger.otherKey} {
		var err error
		if *key, err = newProofKey(); err != nil {
			p.faults = append(p.faults, err)
		}
	}
	for _, c := range []**tls.Certificate{&p.forger.certificate, &p.forger.otherCertificate} {
		var err error
		if *c, err = newCertificate(p.forger.now()); err != nil {
			p.faults = append(p.faults, err)
		}
	}
	switch {
	case p.Certificate != nil && p.Certificate.Leaf == nil:
		p.fault("Target.Certificate has no Leaf: tls.X509KeyPair sets it")
	case p.Certificate != nil:
		p.forger.certificate = p.Certificate
	case p.Handler == nil:
		p.forger.tokens.CertificateBound = nil
	}
}

// connect makes the clients.
func (p *preparation) connect() {
	if p.Handler != nil && p.URL == "" {
		p.URL = "http://localhost"
	}
	if u, err := url.Parse(p.URL); err != nil || u.Host == "" ||
		u.Scheme != "http" && u.Scheme != "https" ||
		u.RawQuery != "" ||
		u.Fragment != "" {
		p.fault(
			"Target.URL is %q: expected where the document's paths begin, such as "+
				"https://api.example/v1, or a Target.Handler",
			p.URL,
		)
	}
	p.client = client(p.Handler, p.Client)
	if p.patience = p.client.Timeout; p.patience == 0 {
		p.patience = 10 * time.Second
	}
	p.client.Timeout = 0 // send limits the context instead, which also ends a body
	if p.Handler == nil && p.Certificate != nil {
		p.presenting = map[*tls.Certificate]*http.Client{}
		for _, c := range []*tls.Certificate{p.forger.certificate, p.forger.otherCertificate} {
			presenting, err := withCertificate(p.client, c)
			if err != nil {
				p.faults = append(p.faults, err)
				break
			}
			p.presenting[c] = presenting
		}
	}
	if p.Outage != nil {
		p.outage = client(p.Outage, nil)
	}
}

// buildRequests builds a valid request for each operation, and returns why it could not, by
// operationId.
func (p *preparation) buildRequests(plan *authz.Plan) (broken map[string]error) {
	broken = map[string]error{}
	sampler := newSampler(p.Document)
	for _, o := range plan.Operations() {
		request, err := sampler.build(o, p.Requests[o.ID])
		if err != nil {
			broken[o.ID] = fmt.Errorf(
				"cannot build a valid request: %w. Give an example in the document, or "+
					"Target.Requests[%q]",
				err,
				o.ID,
			)
		}
		p.requests[o.ID] = request
	}
	for id := range p.Requests {
		if _, known := p.requests[id]; !known {
			p.fault("Target.Requests has %q, which is not an operationId of the document", id)
		}
	}
	return broken
}

// deriveCases derives the cases. An operation for which no request could be built has one case,
// which reports why.
func (p *preparation) deriveCases(plan *authz.Plan, broken map[string]error) {
	for _, c := range Cases(plan) {
		c.names = p.ScopesToRequest
		if c.broken = broken[c.Operation.ID]; c.broken == nil {
			p.cases = append(p.cases, c)
		} else if n := len(p.cases); n == 0 || p.cases[n-1].Operation.ID != c.Operation.ID {
			c.Name, c.Want = c.Operation.ID+"/request", ""
			p.cases = append(p.cases, c)
		}
	}
}

// client returns a client that does not follow redirects: a redirect is not an expected response.
func client(handler http.Handler, given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		*c = *given
	}
	if handler != nil {
		c.Transport = inProcess{handler}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}
