package authztest

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/oasgate/oasgate/authz"
)

// presentedCertificate says which client certificate a case presents.
type presentedCertificate int

const (
	usualCertificate presentedCertificate = iota // Target.Certificate: see certificateOf
	noCertificate
	ownCertificate
	otherCertificate
)

// certificateCases test tokens that are bound to a client's certificate (RFC 8705 §3).
func certificateCases(o authz.Operation) (cases []Case) {
	for _, c := range []struct {
		name        string
		want        authz.Kind
		certificate presentedCertificate
	}{
		{"genuine", "", ownCertificate},
		{"missing", authz.InvalidToken, noCertificate},
		{"of_another_client", authz.InvalidToken, otherCertificate},
	} {
		cases = append(cases, Case{
			Name: o.ID + "/certificate_" + c.name, Operation: o, Scopes: alternatives(o)[0].scopes,
			Want: c.want, certificate: c.certificate,
			credential: credential{needs: needsCertificateBound, make: unchanged},
		})
	}
	return cases
}

// certificateOf returns the client certificate that a case presents, or nil. Operations that take
// certificates as credentials get one only in the cases that present this credential.
func (r *run) certificateOf(c Case) *tls.Certificate {
	isCertificate := func(scheme string) bool {
		spec := r.schemes.Scheme(scheme)
		return spec != nil && spec.Type == "mutualTLS"
	}
	switch c.certificate {
	case ownCertificate:
		return r.forger.certificate
	case otherCertificate:
		return r.forger.otherCertificate
	case noCertificate:
		return nil
	}
	for _, a := range c.Operation.Alternatives {
		takes := slices.ContainsFunc(a, func(n authz.Requirement) bool {
			return isCertificate(n.Scheme)
		})
		if takes && !slices.ContainsFunc(c.others, func(o other) bool {
			return isCertificate(o.scheme)
		}) {
			return nil
		}
	}
	return r.Certificate
}

// withCertificate returns a client that presents the certificate in its TLS handshakes.
func withCertificate(c *http.Client, certificate *tls.Certificate) (*http.Client, error) {
	transport, ok := cmp.Or(c.Transport, http.DefaultTransport).(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("authztest: Target.Client.Transport is a %T: expected an "+
			"*http.Transport, to present Target.Certificate", c.Transport)
	}
	transport = transport.Clone()
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{}
	}
	// Unlike Certificates, this also presents a certificate that the server does not ask for by the
	// name of its CA.
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (
		*tls.Certificate, error) {
		return certificate, nil
	}
	presenting := *c
	presenting.Transport = transport
	return &presenting, nil
}

// refusesHandshake reports whether an error means that the server ended the connection instead of
// answering: with a TLS alert, or, because the client may still be sending, without one.
func refusesHandshake(err error) bool {
	failed, ok := errors.AsType[*net.OpError](err)
	return ok && failed.Op == "remote error" || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// newCertificate returns a self-signed certificate of a client.
func newCertificate(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authztest"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
