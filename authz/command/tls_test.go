package command

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issue returns a certificate and its key in PEM, signed by the authority, or self-signed if that
// is nil.
func (a *authority) issue(
	t *testing.T,
	name string,
	serial int64,
) (own *authority, certificate, key []byte) {
	t.Helper()
	own = &authority{}
	own.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			serial,
		), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: a == nil, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	by := &authority{template, own.key}
	if a != nil {
		by = a
	}
	der, err := x509.CreateCertificate(
		rand.Reader,
		template,
		by.certificate,
		own.key.Public(),
		by.key,
	)
	if err != nil {
		t.Fatal(err)
	}
	own.certificate, _ = x509.ParseCertificate(der)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(own.key)
	return own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func writeFiles(t *testing.T, files map[string][]byte) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServeTLS: serve supports TLS and HTTP/2, requests certificates of its authorities, and reads
// its files again on SIGHUP; faulty ones change nothing.
func TestServeTLS(t *testing.T) {
	t.Chdir(t.TempDir())
	ca, caPEM, _ := (*authority)(nil).issue(t, "ca", 1)
	_, cert, key := ca.issue(t, "localhost", 2)
	writeFiles(t, map[string][]byte{"cert.pem": cert, "key.pem": key, "ca.pem": caPEM})
	_, clientCert, clientKey := ca.issue(t, "client", 3)
	client, err := tls.X509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	_, strangerCert, strangerKey := (*authority)(nil).issue(t, "stranger", 4)
	unknown, err := tls.X509KeyPair(strangerCert, strangerKey)
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	var stderr log
	done := make(chan int)
	go func() {
		done <- webhooks().Run(ctx,
			strings.Fields("serve --addr 127.0.0.1:0 --unstated deny --without key,basic "+
				"--tls-cert cert.pem --tls-key key.pem --tls-client-ca ca.pem"), nil,
			strings.NewReader(""), io.Discard, &stderr)
	}()
	api := "https://" + stderr.wait(t, `"msg":"serving","addr":"([^"]+)"`)[1]
	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	get := func(own ...tls.Certificate) (*http.Response, error) {
		config := &tls.Config{RootCAs: pool, ServerName: "localhost"}
		if own != nil { // even if the server does not request it
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate,
				error) {
				return &own[0], nil
			}
		}
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get(api + "/healthz")
		if err == nil {
			response.Body.Close()
		}
		return response, err
	}
	serial := func(own ...tls.Certificate) int64 {
		t.Helper()
		response, err := get(own...)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != 200 || response.ProtoMajor != 2 {
			t.Errorf("%s %s", response.Proto, response.Status)
		}
		return response.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if serial() != 2 || serial(client) != 2 {
		t.Error("another certificate")
	}
	if _, err := get(unknown); err == nil {
		t.Error("a client certificate of another authority was accepted")
	}
	if _, err := http.Get(strings.Replace(api, "https:", "http:", 1) + "/healthz"); err == nil {
		if response, _ := http.Get(strings.Replace(api, "https:", "http:", 1) +
			"/healthz"); response.StatusCode == 200 {
			t.Error("plain HTTP is answered")
		}
	}
	if _, err := tls.Dial("tcp", strings.TrimPrefix(api, "https://"), &tls.Config{
		RootCAs: pool, ServerName: "localhost", MaxVersion: tls.VersionTLS11,
	}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}

	_, other, otherKey := ca.issue(t, "localhost", 5)
	writeFiles(t, map[string][]byte{"cert.pem": other}) // whose key is another
	hangUp(t)
	stderr.wait(t, "reload failed.*HOOKS_TLS_CERT")
	if serial() != 2 {
		t.Error("faulty files were taken")
	}
	writeFiles(t, map[string][]byte{"key.pem": otherKey})
	hangUp(t)
	for end := time.Now().Add(time.Minute); serial() != 5; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the new certificate is not presented")
		}
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestServeUnixSocket: a proxy on this machine connects by a socket.
func TestServeUnixSocket(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	var stderr log
	done := make(chan int)
	go func() {
		done <- webhooks().Run(ctx,
			strings.Fields("serve --addr unix:s --unstated deny --without key,basic "+
				"--client-cert-header Client-Cert --client-cert-proxies unix"), nil,
			strings.NewReader(""), io.Discard, &stderr)
	}()
	stderr.wait(t, `"msg":"serving"`)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", "s")
		},
	}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("http://localhost/healthz")
	if err != nil || response.StatusCode != 200 {
		t.Errorf("%v, %v", response, err)
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestTLSSettings(t *testing.T) {
	t.Chdir(t.TempDir())
	_, cert, key := (*authority)(nil).issue(t, "localhost", 1)
	writeFiles(t, map[string][]byte{"cert.pem": cert, "key.pem": key, "empty.pem": nil})
	bound := []token.Issuer{{MTLS: token.MTLSRequired}}
	for _, test := range []struct {
		config  tlsConfig
		issuers []token.Issuer
		says    string // "": no fault
	}{
		{tlsConfig{}, nil, ""},
		{tlsConfig{Cert: "cert.pem", Key: "key.pem"}, bound, ""},
		{tlsConfig{Header: "Client-Cert", Proxies: "10.0.0.0/8, unix"}, bound, ""},
		{tlsConfig{Cert: "cert.pem", Key: "key.pem", ClientCA: "cert.pem", Header: authz.XFCCHeader, ProxyNames: "proxy.internal"}, bound, ""},
		{tlsConfig{}, bound, "ORDERS_TLS_CERT is not set: expected the server's certificate, or ORDERS_CLIENT_CERT_HEADER"},
		{tlsConfig{Cert: "cert.pem"}, nil, "ORDERS_TLS_KEY is not set"},
		{tlsConfig{Key: "key.pem"}, nil, "ORDERS_TLS_CERT is not set"},
		{tlsConfig{ClientCA: "cert.pem"}, nil, "ORDERS_TLS_CERT is not set: expected the server's certificate, because ORDERS_TLS_CLIENT_CA"},
		{tlsConfig{Cert: "none.pem", Key: "key.pem"}, nil, `ORDERS_TLS_CERT is "none.pem": expected PEM files`},
		{tlsConfig{Cert: "cert.pem", Key: "key.pem", ClientCA: "empty.pem"}, nil, `ORDERS_TLS_CLIENT_CA is "empty.pem": expected a PEM file of certificates: it has no certificate`},
		{tlsConfig{Header: "X-SSL-Cert", Proxies: "unix"}, nil, `ORDERS_CLIENT_CERT_HEADER is "X-SSL-Cert": expected Client-Cert or X-Forwarded-Client-Cert`},
		{tlsConfig{Header: "Client-Cert"}, nil, "ORDERS_CLIENT_CERT_PROXIES is not set"},
		{tlsConfig{Proxies: "unix"}, nil, "ORDERS_CLIENT_CERT_HEADER is not set"},
		{tlsConfig{Header: "Client-Cert", Proxies: "10.0.0.1"}, nil, `ORDERS_CLIENT_CERT_PROXIES is "10.0.0.1": expected networks`},
		{tlsConfig{Header: "Client-Cert", ProxyNames: "p"}, nil, "ORDERS_TLS_CLIENT_CA is not set"},
	} {
		f := faults{prefix: prefix}
		test.config.clients(&f)
		config := test.config.server(&f, test.issuers)
		var texts []string
		for _, err := range f.all {
			texts = append(texts, err.Error())
		}
		if got := strings.Join(texts, "\n"); (got == "") != (test.says == "") ||
			!strings.Contains(got, test.says) {
			t.Errorf("%+v: %s, want %q", test.config, got, test.says)
		}
		if test.says == "" && (config != nil) != (test.config.Cert != "") {
			t.Errorf("%+v: TLS is %v", test.config, config)
		}
	}
	config := tlsConfig{Cert: "cert.pem", Key: "key.pem"}
	for want, got := range map[tls.ClientAuthType]*tls.Config{
		tls.NoClientCert:      config.server(&faults{}, nil),
		tls.RequestClientCert: config.server(&faults{}, bound),
	} {
		if got.ClientAuth != want {
			t.Errorf("the ClientAuth is %v, want %v", got.ClientAuth, want)
		}
	}
}
