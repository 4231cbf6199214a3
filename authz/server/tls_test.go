package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// selfSigned returns a certificate of this machine, or of a client.
func selfSigned(t *testing.T, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestTLS: HTTP/1.1 and HTTP/2 over TLS, certificates that are replaced, and tokens that are bound
// to that of the client.
func TestTLS(t *testing.T) {
	var current atomic.Pointer[tls.Config]
	present := func(serial int64) {
		current.Store(&tls.Config{
			Certificates: []tls.Certificate{
				selfSigned(t, serial),
			}, ClientAuth: tls.RequestClientCert,
			NextProtos: []string{"h2", "http/1.1"},
		})
	}
	present(1)
	r := start(t, func(c *Config) {
		c.Issuers[0].MTLS = token.MTLSAllowed
		c.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return current.Load(), nil
		}}
	})
	mine, other := selfSigned(t, 10), selfSigned(t, 11)
	sum := sha256.Sum256(mine.Leaf.Raw)
	bound := mint(r.issuer, map[string]any{
		"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
	})
	plain := mint(r.issuer, nil)
	ask := func(http2 bool, client *tls.Certificate, jwt string) (*http.Response, string) {
		t.Helper()
		config := &tls.Config{InsecureSkipVerify: true}
		if client != nil {
			config.Certificates = []tls.Certificate{*client}
		}
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
		defer transport.CloseIdleConnections()
		url := strings.Replace(r.url, "http:", "https:", 1) + private.path
		var response *http.Response
		var text []byte
		for range 3 { // on one connection
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Authorization", "Bearer "+jwt)
			if response, err = transport.RoundTrip(request); err != nil {
				t.Fatal(err)
			}
			text, err = io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
		}
		return response, string(text)
	}
	for _, http2 := range []bool{false, true} {
		for _, row := range []struct {
			client *tls.Certificate
			jwt    string
			status int
		}{{nil, plain, 200}, {&mine, bound, 200}, {&other, bound, 401}, {nil, bound, 401},
			{&mine, plain, 200}} {
			response, body := ask(http2, row.client, row.jwt)
			if response.StatusCode != row.status || (response.ProtoMajor == 2) != http2 {
				t.Errorf(
					"HTTP/2 %v: %s %s %s, want %d",
					http2,
					response.Proto,
					response.Status,
					body,
					row.status,
				)
			}
		}
	}
	if response, _ := ask(true, nil,
		plain); response.TLS.PeerCertificates[0].SerialNumber.Int64() != 1 {
		t.Error("not the first certificate")
	}
	present(2)
	if response, _ := ask(true, nil,
		plain); response.TLS.PeerCertificates[0].SerialNumber.Int64() != 2 {
		t.Error("the certificate was not replaced")
	}
}

// TestForgedCertificateHeaders: the header of an untrusted peer is removed before any code reads
// the request.
func TestForgedCertificateHeaders(t *testing.T) {
	c := selfSigned(t, 1)
	value := ":" + base64.StdEncoding.EncodeToString(c.Leaf.Raw) + ":"
	for believed, network := range map[bool]string{true: "127.0.0.0/8", false: "192.0.2.0/24"} {
		var seen []string
		r := startAnswering(t, greet, func(config *Config) {
			config.ClientCertificates = authz.ClientCertificates{
				Header:   authz.ClientCertHeader,
				Networks: []netip.Prefix{netip.MustParsePrefix(network)},
			}
			routes := config.Routes
			config.Routes = func(g *authz.Gate) (http.Handler, error) {
				next, err := routes(g)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					seen = append(
						seen,
						r.Header.Get("Client-Cert"),
						r.Header.Get("Client-Cert-Chain"),
					)
					next.ServeHTTP(w, r)
				}), err
			}
		})
		r.ask(t, http.MethodGet, public.path, "Client-Cert", value, "Client-Cert-Chain", value)
		if got := strings.Join(seen, "") != ""; got != believed {
			t.Errorf("a peer of %s: the header %q was not removed", network, seen)
		}
	}
}

// TestActorIsLogged: the party that acts for the subject (RFC 8693 §4.1) is logged.
func TestActorIsLogged(t *testing.T) {
	r := startAnswering(t, func(c echo.Context) error { return greet(c) }, nil)
	for id, row := range map[string]struct{ act, want any }{
		"none":      {nil, nil},
		"a-subject": {map[string]any{"sub": "agent", "client_id": "x", "act": map[string]any{"sub": "before"}}, "agent"},
		"a-client":  {map[string]any{"client_id": "robot"}, "robot"},
	} {
		r.ask(
			t,
			http.MethodGet,
			private.path,
			"X-Request-Id",
			id,
			"Authorization",
			"Bearer "+mint(r.issuer, map[string]any{"sub": "alice", "act": row.act}),
		)
		if entry := r.log.request(t, id); entry["actor"] != row.want ||
			entry["subject"] != "alice" {
			t.Errorf("%s: actor is %v, subject %v", id, entry["actor"], entry["subject"])
		}
	}
}

// TestConnectionServesOnOverTLS: a connection can be used after a stream. See also
// TestStreamsOverTLS.
func TestConnectionServesOnOverTLS(t *testing.T) {
	t.Parallel()
	r := streaming(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		events(w)
		time.Sleep(2 * shortWrite)
		_, _ = io.WriteString(w, "data: end\n\n")
	}, func(c *Config) {
		c.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t, 1)}}
	})
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	for range 2 { // and the connection serves on
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			strings.Replace(r.url, "http:", "https:", 1)+private.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+mint(r.issuer, nil))
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !strings.Contains(string(text), "end") || response.ProtoMajor != 1 {
			t.Errorf("%s %s: %q, %v", response.Proto, response.Status, text, err)
		}
	}
}
