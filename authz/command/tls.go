package command

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// tlsConfig holds the settings of TLS and of client certificates.
type tlsConfig struct {
	Cert       string `name:"tls-cert" key:"TLS_CERT" group:"TLS:" help:"PEM file of the server's certificate and its chain. With it, the server speaks TLS. Reloaded on SIGHUP."`
	Key        string `name:"tls-key" key:"TLS_KEY" group:"TLS:" help:"PEM file of the certificate's key. Reloaded on SIGHUP."`
	ClientCA   string `name:"tls-client-ca" key:"TLS_CLIENT_CA" group:"TLS:" help:"PEM file of the authorities whose client certificates are accepted. Reloaded on SIGHUP."`
	Header     string `name:"client-cert-header" key:"CLIENT_CERT_HEADER" group:"TLS:" help:"Header in which a proxy passes the client's certificate on: Client-Cert (RFC 9440) or X-Forwarded-Client-Cert (Envoy). Default: the certificate of the connection."`
	Proxies    string `name:"client-cert-proxies" key:"CLIENT_CERT_PROXIES" group:"TLS:" help:"Proxies whose header is trusted: CIDRs separated by commas, or unix for all connections by a Unix socket."`
	ProxyNames string `name:"client-cert-proxy-names" key:"CLIENT_CERT_PROXY_NAMES" group:"TLS:" help:"The same, by DNS or URI names in their own certificates, which TLS_CLIENT_CA must have signed."`
}

// cipherSuites are those that BCP 195 (RFC 9325 §4.2) recommends for TLS 1.2, and their ChaCha20
// counterparts. Those of TLS 1.3 cannot be chosen.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// server reads the files. It returns nil if TLS is not configured.
func (c tlsConfig) server(f *faults, issuers []token.Issuer) *tls.Config {
	bound := func(i token.Issuer) bool {
		return i.MTLS == token.MTLSAllowed || i.MTLS == token.MTLSRequired
	}
	mtls := slices.ContainsFunc(issuers, bound)
	switch {
	case c.Cert == "" && c.Key != "":
		f.missing("TLS_CERT", "the certificate of the key in %s", f.key("TLS_KEY"))
	case c.Cert != "" && c.Key == "":
		f.missing("TLS_KEY", "the key of the certificate in %s", f.key("TLS_CERT"))
	case c.Cert == "" && c.ClientCA != "":
		f.missing("TLS_CERT", "the server's certificate, because %s is set", f.key("TLS_CLIENT_CA"))
	case c.Cert == "" && c.Header == "" && mtls:
		f.missing("TLS_CERT", "the server's certificate, or %s: the mtls policy of an issuer is "+
			"not off, and clients could present no certificate", f.key("CLIENT_CERT_HEADER"))
	}
	if c.Cert == "" || c.Key == "" {
		return nil
	}
	certificate, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		f.add("TLS_CERT", c.Cert, "PEM files of a certificate, and of its key in %s %q: %v",
			f.key("TLS_KEY"), c.Key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12,
		CipherSuites: cipherSuites, NextProtos: []string{"h2", "http/1.1"},
	}
	switch {
	case c.ClientCA != "":
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, c.authorities(f)
		// A resumed session would keep a certificate whose authority was removed by a reload.
		config.SessionTicketsDisabled = true
	case mtls && c.Header == "":
		// signed by any authority: tokens name the certificate
		config.ClientAuth = tls.RequestClientCert
	}
	return config
}

func (c tlsConfig) authorities(f *faults) *x509.CertPool {
	pool := x509.NewCertPool()
	text, err := os.ReadFile(c.ClientCA)
	if err == nil && !pool.AppendCertsFromPEM(text) {
		err = errors.New("it has no certificate")
	}
	if err != nil {
		f.add("TLS_CLIENT_CA", c.ClientCA, "a PEM file of certificates: %v", err)
	}
	return pool
}

// clients returns where client certificates come from.
func (c tlsConfig) clients(f *faults) authz.ClientCertificates {
	found := authz.ClientCertificates{Header: c.Header}
	if c.Header != "" && c.Header != authz.ClientCertHeader && c.Header != authz.XFCCHeader {
		f.add("CLIENT_CERT_HEADER", c.Header, "%s or %s", authz.ClientCertHeader, authz.XFCCHeader)
	}
	if c.Proxies != "" {
		for _, entry := range f.list("CLIENT_CERT_PROXIES", c.Proxies) {
			network, err := netip.ParsePrefix(entry)
			switch {
			case entry == "unix":
				found.UnixSocket = true
			case err == nil:
				found.Networks = append(found.Networks, network.Masked())
			case entry != "": // list reports it
				f.add("CLIENT_CERT_PROXIES", entry, "networks as CIDRs, such as "+
					"10.0.0.0/8,fd00::/8, or unix")
			}
		}
	}
	if c.ProxyNames != "" {
		found.Names = f.list("CLIENT_CERT_PROXY_NAMES", c.ProxyNames)
		if c.ClientCA == "" {
			f.missing("TLS_CLIENT_CA",
				"the authorities of the proxies' own certificates, because %s "+
					"is set", f.key("CLIENT_CERT_PROXY_NAMES"))
		}
	}
	proxies := c.Proxies != "" || c.ProxyNames != ""
	switch {
	case c.Header != "" && !proxies:
		f.missing("CLIENT_CERT_PROXIES", "the proxies whose %s is trusted, or %s", c.Header,
			f.key("CLIENT_CERT_PROXY_NAMES"))
	case c.Header == "" && proxies:
		f.missing("CLIENT_CERT_HEADER", "%s or %s, because proxies are configured",
			authz.ClientCertHeader, authz.XFCCHeader)
	}
	return found
}

// reloadable returns a configuration that uses, for each connection, the one that current returns.
func reloadable(current func() *tls.Config) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if config := current(); config != nil {
				return config, nil
			}
			return nil, errors.New("command: no certificate")
		},
	}
}
