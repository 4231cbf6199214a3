package authztest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"time"

	"github.com/oasgate/oasgate/authz"
)

// presentedCertificate says which client certificate a case presents.
type presentedCertificate int

const (
	noCertificate presentedCertificate = iota
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

// presentCertificate sets the client certificate of a request that is handled in process.
func (r *run) presentCertificate(sent *http.Request, which presentedCertificate) {
	own := map[presentedCertificate]*x509.Certificate{
		ownCertificate: r.forger.certificate, otherCertificate: r.forger.otherCertificate,
	}
	if c := own[which]; c != nil {
		sent.TLS = &tls.ConnectionState{
			HandshakeComplete: true, PeerCertificates: []*x509.Certificate{c},
		}
	}
}

// newCertificate returns a self-signed certificate of a client.
func newCertificate(now time.Time) (*x509.Certificate, error) {
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
	return x509.ParseCertificate(der)
}
