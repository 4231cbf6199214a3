package authz

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ClientCertificates says where the certificate of a client is, for [MutualTLS] and for access
// tokens that are bound to it (RFC 8705). The zero value uses that of the TLS connection.
//
// With Header, it is in a header set by a proxy, which has verified it; the certificate of the
// connection is then the proxy's. The header is trusted only from the configured peers, regardless
// of X-Forwarded-For, and deleted from the requests of others.
type ClientCertificates struct {
	// Header is [ClientCertHeader] or [XFCCHeader]. Default: the certificate of the connection.
	Header string

	// Networks, UnixSocket and Names identify the trusted proxies. With Header, at least one is
	// required.

	Networks   []netip.Prefix // the addresses of the proxies
	UnixSocket bool           // proxies connect by a Unix socket
	// Names are DNS or URI names in the proxies' certificates, which the server must verify
	// (tls.VerifyClientCertIfGiven).
	Names []string
}

// The headers with a client certificate.
const (
	ClientCertHeader = "Client-Cert"             // RFC 9440 §2.2
	XFCCHeader       = "X-Forwarded-Client-Cert" // of Envoy; the last element is used
)

func (c ClientCertificates) check() (faults []error) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("authz: Config.ClientCertificates."+format, args...))
	}
	proxies := len(c.Networks) > 0 || c.UnixSocket || len(c.Names) > 0
	switch {
	case c.Header == "" && proxies:
		fault("Header is empty, but proxies are configured: expected %s or %s, or no proxies",
			ClientCertHeader, XFCCHeader)
	case c.Header == "":
	case c.Header != ClientCertHeader && c.Header != XFCCHeader:
		fault("Header is %q: expected %s or %s", c.Header, ClientCertHeader, XFCCHeader)
	case !proxies:
		fault("Header is %s: expected Networks, UnixSocket or Names, which identify the trusted "+
			"proxies", c.Header)
	}
	for _, network := range c.Networks {
		if !network.IsValid() {
			fault("Networks has an invalid prefix: expected a CIDR such as 10.0.0.0/8")
		}
	}
	if slices.Contains(c.Names, "") {
		fault("Names has an empty name")
	}
	return faults
}

// Strip deletes the header from the request of an untrusted peer. [Gate.Check] calls it; a server
// should call it before anything else reads the request.
func (c ClientCertificates) Strip(r *http.Request) {
	if c.Header == "" || r.Header[c.Header] == nil || c.trusts(r) {
		return
	}
	delete(r.Header, c.Header)
	if c.Header == ClientCertHeader {
		delete(r.Header, "Client-Cert-Chain") // RFC 9440 §2.3
	}
}

type certificatesKey struct{}

// within returns the request with c in its context, where [MutualTLS] finds it, even if another
// authenticator wraps it.
func (c ClientCertificates) within(r *http.Request) *http.Request {
	if c.Header == "" {
		return r
	}
	return r.WithContext(context.WithValue(r.Context(), certificatesKey{}, c))
}

// trusts reports whether the connection of the request is from a trusted proxy.
func (c ClientCertificates) trusts(r *http.Request) bool {
	if c.UnixSocket {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok &&
			local.Network() == "unix" {
			return true
		}
	}
	if len(c.Networks) > 0 {
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			ip := peer.Addr().Unmap().WithZone("")
			within := func(n netip.Prefix) bool { return n.Contains(ip) }
			if slices.ContainsFunc(c.Networks, within) {
				return true
			}
		}
	}
	if len(c.Names) == 0 || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return false
	}
	own := r.TLS.PeerCertificates[0]
	return slices.ContainsFunc(c.Names, func(name string) bool {
		return slices.ContainsFunc(own.DNSNames, func(dns string) bool {
			return strings.EqualFold(dns, name)
		}) || slices.ContainsFunc(own.URIs, func(uri *url.URL) bool { return uri.String() == name })
	})
}

// find returns the certificate of the client, or nil, and whether its chain was verified. It
// returns an error if the header of a proxy is malformed.
func (c ClientCertificates) find(
	r *http.Request,
) (client *x509.Certificate, verified bool, err error) {
	if c.Header == "" {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return nil, false, nil
		}
		return r.TLS.PeerCertificates[0], len(r.TLS.VerifiedChains) > 0, nil
	}
	fields := r.Header[c.Header]
	switch {
	case len(fields) == 0 || !c.trusts(r):
		return nil, false, nil
	case len(fields) > 1:
		err = fmt.Errorf("there are %d fields, expected one", len(fields))
	case c.Header == ClientCertHeader:
		client, err = readClientCert(fields[0])
	default:
		client, err = readXFCC(fields[0])
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", c.Header, err)
	}
	return client, true, nil
}

var errCertificate = errors.New("it does not hold a certificate")

// readClientCert reads a field of RFC 9440 §2.2: a Byte Sequence (RFC 8941 §3.3.5) of DER.
func readClientCert(value string) (*x509.Certificate, error) {
	encoded, opened := strings.CutPrefix(value, ":")
	encoded, closed := strings.CutSuffix(encoded, ":")
	der, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !opened || !closed || err != nil || strings.ContainsAny(encoded, "\r\n") {
		return nil, errors.New("expected base64 between colons (RFC 9440 §2.2)")
	}
	client, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errCertificate
	}
	return client, nil
}

// readXFCC reads the certificate of the last element of Envoy's header: URL-encoded PEM, in Cert.
func readXFCC(value string) (*x509.Certificate, error) {
	elements, err := splitQuoted(value, ',')
	if err != nil {
		return nil, err
	}
	pairs, err := splitQuoted(elements[len(elements)-1], ';')
	if err != nil {
		return nil, err
	}
	var encoded string
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "Cert") {
			continue
		}
		if encoded != "" {
			return nil, errors.New("its last element has Cert twice")
		}
		encoded = strings.Trim(strings.TrimSpace(value), `"`)
	}
	if encoded == "" {
		return nil, errors.New("its last element has no Cert: configure the proxy to send it " +
			"(set_current_client_cert_details)")
	}
	text, err := url.PathUnescape(encoded) // does not decode +
	if err != nil {
		return nil, errCertificate
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errCertificate
	}
	client, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errCertificate
	}
	return client, nil
}

// splitQuoted splits s at separators outside of quotes. A backslash in quotes escapes the next
// byte.
func splitQuoted(s string, separator byte) (parts []string, err error) {
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			parts, start = append(parts, s[start:i]), i+1
		}
	}
	if quoted {
		return nil, errors.New("a quote is not closed")
	}
	return append(parts, s[start:]), nil
}
