package authz_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/token"
)

// clientCertificate returns a self-signed certificate.
func clientCertificate(t testing.TB, name string, dns ...string) *x509.Certificate {
	t.Helper()
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	spiffe, _ := url.Parse("spiffe://example/" + name)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: dns,
		URIs: []*url.URL{spiffe},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func byteSequence(c *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

func xfcc(c *x509.Certificate) string {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	return `Hash=0123;Cert="` + url.PathEscape(string(text)) + `";Subject="O=\"x, y; z\",CN=a"`
}

// TestClientCertificates: whose header is believed, and what it must be.
func TestClientCertificates(t *testing.T) {
	read := clientCertificate(t, "read")
	write := clientCertificate(t, "write")
	proxy := clientCertificate(t, "proxy", "proxy.internal")
	rfc9440 := authz.ClientCertificates{
		Header: authz.ClientCertHeader,
		Networks: []netip.Prefix{
			netip.MustParsePrefix("192.0.2.0/28"),
			netip.MustParsePrefix("fd00::/8"),
		},
	}
	envoy := rfc9440
	envoy.Header = authz.XFCCHeader
	byName := authz.ClientCertificates{
		Header: authz.ClientCertHeader,
		Names:  []string{"PROXY.internal"},
	}
	byURI := authz.ClientCertificates{
		Header: authz.ClientCertHeader,
		Names:  []string{"spiffe://example/proxy"},
	}
	bySocket := authz.ClientCertificates{Header: authz.ClientCertHeader, UnixSocket: true}
	const near, far = "192.0.2.1:1234", "203.0.113.9:1234"

	connection := func(c *x509.Certificate, verified bool) *tls.ConnectionState {
		s := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
		if verified {
			s.VerifiedChains = [][]*x509.Certificate{{c}}
		}
		return s
	}
	for _, row := range []struct {
		name   string
		from   authz.ClientCertificates
		remote string
		header []string // values of the header of from, or else of Client-Cert
		tls    *tls.ConnectionState
		unix   bool
		caller string     // "" with kind
		kind   authz.Kind // of the refusal
		stays  bool       // the header, for the handler
	}{
		{"the connection", authz.ClientCertificates{}, far, nil, connection(read, true), false, "read", "", false},
		{"a header, off", authz.ClientCertificates{}, near, []string{byteSequence(read)}, nil, false, "", authz.MissingCredential, true},
		{"a header beside the connection, off", authz.ClientCertificates{}, near, []string{byteSequence(write)}, connection(read, true), false, "read", "", true},

		{"a proxy", rfc9440, near, []string{byteSequence(read)}, nil, false, "read", "", true},
		{"a proxy, by IPv6", rfc9440, "[fd00::1%eth0]:1", []string{byteSequence(read)}, nil, false, "read", "", true},
		{"a proxy, by mapped IPv4", rfc9440, "[::ffff:192.0.2.1]:1", []string{byteSequence(read)}, nil, false, "read", "", true},
		{"a proxy without a client's", rfc9440, near, nil, nil, false, "", authz.MissingCredential, false},
		{"a proxy's own is no client's", rfc9440, near, nil, connection(proxy, true), false, "", authz.MissingCredential, false},
		{"a proxy, twice", rfc9440, near, []string{byteSequence(read), byteSequence(read)}, nil, false, "", authz.InvalidCredential, true},
		{"a proxy, two in one field", rfc9440, near, []string{byteSequence(read) + ", " + byteSequence(read)}, nil, false, "", authz.InvalidCredential, true},
		{"a proxy, no colons", rfc9440, near, []string{strings.Trim(byteSequence(read), ":")}, nil, false, "", authz.InvalidCredential, true},
		{"a proxy, no certificate", rfc9440, near, []string{":Zm9v:"}, nil, false, "", authz.InvalidCredential, true},
		{"a proxy, empty", rfc9440, near, []string{""}, nil, false, "", authz.InvalidCredential, true},
		{"a proxy, in the other format", rfc9440, near, []string{xfcc(read)}, nil, false, "", authz.InvalidCredential, true},
		{"a stranger", rfc9440, far, []string{byteSequence(read)}, nil, false, "", authz.MissingCredential, false},
		{"a stranger, twice", rfc9440, far, []string{byteSequence(read), "x"}, nil, false, "", authz.MissingCredential, false},
		{"a stranger's connection is not asked", rfc9440, far, nil, connection(read, true), false, "", authz.MissingCredential, false},
		{"an address that is none", rfc9440, "pipe", []string{byteSequence(read)}, nil, false, "", authz.MissingCredential, false},

		{"a proxy's certificate", byName, far, []string{byteSequence(read)}, connection(proxy, true), false, "read", "", true},
		{"a proxy's certificate, by URI", byURI, far, []string{byteSequence(read)}, connection(proxy, true), false, "read", "", true},
		{"a proxy's certificate that nobody verified", byName, far, []string{byteSequence(read)}, connection(proxy, false), false, "", authz.MissingCredential, false},
		{"another's certificate", byName, near, []string{byteSequence(read)}, connection(write, true), false, "", authz.MissingCredential, false},
		{"no certificate of a proxy", byName, near, []string{byteSequence(read)}, nil, false, "", authz.MissingCredential, false},
		{"a Unix socket", bySocket, "@", []string{byteSequence(read)}, nil, true, "read", "", true},
		{"no Unix socket", bySocket, near, []string{byteSequence(read)}, nil, false, "", authz.MissingCredential, false},

		{"Envoy", envoy, near, []string{xfcc(read)}, nil, false, "read", "", true},
		{"Envoy, the last element", envoy, near, []string{xfcc(write) + "," + xfcc(read)}, nil, false, "read", "", true},
		{"Envoy, the last element has none", envoy, near, []string{xfcc(read) + ",Hash=1"}, nil, false, "", authz.InvalidCredential, true},
		{"Envoy, a quote that hides an element", envoy, near, []string{xfcc(read) + `,Subject="` + xfcc(write)}, nil, false, "", authz.InvalidCredential, true},
		{"Envoy, Cert twice", envoy, near, []string{xfcc(read) + ";" + xfcc(write)}, nil, false, "", authz.InvalidCredential, true},
		{"Envoy, two fields", envoy, near, []string{xfcc(read), xfcc(read)}, nil, false, "", authz.InvalidCredential, true},
		{"Envoy, a stranger", envoy, far, []string{xfcc(read)}, nil, false, "", authz.MissingCredential, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			gate, err := authz.New(authz.Config{
				Document: load(t, everyScheme), Verifier: byLookup(lookup(t, "token")),
				Authenticators: everyAuthenticator(t), ClientCertificates: row.from,
			})
			if err != nil {
				t.Fatal(err)
			}
			name := row.from.Header
			if name == "" {
				name = authz.ClientCertHeader
			}
			for _, target := range []string{"/mtls", "/key"} {
				// the other has a key, and no certificate
				r := httptest.NewRequest("GET", target, nil)
				r.RemoteAddr, r.TLS = row.remote, row.tls
				r.Header.Set("X-API-Key", "read")
				r.Header.Set("X-Forwarded-For", "192.0.2.1")
				for _, value := range row.header {
					r.Header.Add(name, value)
				}
				if row.unix {
					local := net.Addr(&net.UnixAddr{Net: "unix"})
					r = r.WithContext(
						context.WithValue(r.Context(), http.LocalAddrContextKey, local),
					)
				}
				admitted, err := gate.Check(r, target, nil)
				if target == "/mtls" {
					if kind := kindOfError(err); kind != row.kind {
						t.Fatalf("%v, want %q", err, row.kind)
					}
				} else if err != nil {
					t.Fatal(err)
				}
				if err == nil && target == "/mtls" {
					if p, _ := token.FromContext(admitted.Context()); !p.HasScope(row.caller) {
						t.Errorf("the caller is %v, want %s", p.Scopes(), row.caller)
					}
				}
				if err == nil && (admitted.Header[name] != nil) != row.stays {
					t.Errorf("for the handler, the header is %q", admitted.Header.Get(name))
				}
			}
		})
	}
}

func TestClientCertificatesFaults(t *testing.T) {
	for says, c := range map[string]authz.ClientCertificates{
		"Header is empty":                 {UnixSocket: true},
		`Header is "X-SSL-Cert"`:          {Header: "X-SSL-Cert", UnixSocket: true},
		"which identify":                  {Header: authz.ClientCertHeader},
		"Networks has an invalid prefix":  {Header: authz.ClientCertHeader, Networks: make([]netip.Prefix, 1)},
		"ClientCertificates.Names has an": {Header: authz.ClientCertHeader, Names: []string{""}},
	} {
		_, err := authz.New(
			authz.Config{
				Document:           load(t, guarded),
				Verifier:           newPrincipals(t, "read"),
				ClientCertificates: c,
			},
		)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", c, err, says)
		}
	}
}

// TestTokensBoundToCertificates: a gate passes its verifier the certificate of the connection, or
// of the header of a trusted peer (RFC 8705 §3).
func TestTokensBoundToCertificates(t *testing.T) {
	issuer := newIssuer(t)
	mine, other := clientCertificate(t, "mine"), clientCertificate(t, "other")
	sum := sha256.Sum256(mine.Raw)
	bound := issuer.Mint(map[string]any{"scope": "read",
		"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}})
	plain := issuer.Mint(map[string]any{"scope": "read"})
	header := authz.ClientCertificates{
		Header:   authz.ClientCertHeader,
		Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
	}
	for _, row := range []struct {
		name    string
		policy  token.MTLSPolicy
		from    authz.ClientCertificates
		tok     string
		tls     *x509.Certificate
		header  []string
		remote  string
		refused authz.Kind
	}{
		{"the connection", token.MTLSAllowed, authz.ClientCertificates{}, bound, mine, nil, "", ""},
		{"another connection", token.MTLSAllowed, authz.ClientCertificates{}, bound, other, nil, "", authz.InvalidToken},
		{"no connection", token.MTLSAllowed, authz.ClientCertificates{}, bound, nil, nil, "", authz.InvalidToken},
		{"off", token.MTLSOff, authz.ClientCertificates{}, bound, mine, nil, "", authz.InvalidToken},
		{"a bearer token with a certificate", token.MTLSAllowed, authz.ClientCertificates{}, plain, mine, nil, "", ""},
		{"a bearer token, required", token.MTLSRequired, authz.ClientCertificates{}, plain, mine, nil, "", authz.InvalidToken},
		{"a header, off", token.MTLSAllowed, authz.ClientCertificates{}, bound, nil, []string{byteSequence(mine)}, "192.0.2.1:1", authz.InvalidToken},
		{"a header", token.MTLSAllowed, header, bound, nil, []string{byteSequence(mine)}, "192.0.2.1:1", ""},
		{"another's header", token.MTLSAllowed, header, bound, nil, []string{byteSequence(other)}, "192.0.2.1:1", authz.InvalidToken},
		{"a stranger's header", token.MTLSAllowed, header, bound, nil, []string{byteSequence(mine)}, "192.0.2.2:1", authz.InvalidToken},
		{"a header twice", token.MTLSAllowed, header, bound, nil, []string{byteSequence(mine), byteSequence(mine)}, "192.0.2.1:1", authz.InvalidRequest},
		{"a broken header", token.MTLSAllowed, header, plain, nil, []string{"x"}, "192.0.2.1:1", authz.InvalidRequest},
	} {
		t.Run(row.name, func(t *testing.T) {
			verifier, err := token.NewVerifier(t.Context(), token.Config{
				Issuers: []token.Issuer{
					{URL: issuer.URL(), Audiences: []string{audience}, MTLS: row.policy},
				},
				Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			r := requestOf("GET /one", row.tok, "", "")
			if row.tls != nil {
				r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{row.tls}}
			}
			r.RemoteAddr = row.remote
			for _, value := range row.header {
				r.Header.Add(authz.ClientCertHeader, value)
			}
			w, ran := serveGuarded(t, func(c *authz.Config) {
				c.Verifier, c.ClientCertificates = verifier, row.from
			}, r)
			if (ran != nil) != (row.refused == "") ||
				row.refused != "" && !strings.Contains(w.Body.String(), string(row.refused)) {
				t.Errorf("answered %d %s, want %q", w.Code, w.Body, row.refused)
			}
		})
	}
}

// asked is a verifier that records its calls.
type asked struct {
	authz.Verifier
	offer     token.Offer
	presented []token.Presented
	err       error
}

func (a *asked) VerifyPresented(ctx context.Context, p token.Presented) (*token.Principal, error) {
	a.presented = append(a.presented, p)
	if a.err != nil {
		return nil, a.err
	}
	return a.Verify(ctx, p.Token)
}

func (a *asked) Offer() token.Offer { return a.offer }

// TestVerifyPresented: when a gate calls VerifyPresented, and with which arguments.
func TestVerifyPresented(t *testing.T) {
	certificate := clientCertificate(t, "client")
	live := strings.Replace(
		guarded,
		"operationId: one,",
		"operationId: one, x-authz-introspect: true,",
		1,
	)
	if live == guarded {
		t.Fatal("the document has no operation one")
	}
	for _, row := range []struct {
		name        string
		document    string
		offer       token.Offer
		certificate bool
		asked       bool
	}{
		{"a bearer token", guarded, token.Offer{MTLS: true, Introspect: true}, false, false},
		{"with a certificate", guarded, token.Offer{MTLS: true}, true, true},
		{"with a certificate that does not count", guarded, token.Offer{}, true, false},
		{"a live answer", live, token.Offer{Introspect: true}, false, true},
		{"a live answer, with a certificate", live, token.Offer{MTLS: true, Introspect: true}, true, true},
	} {
		verifier := &asked{Verifier: newPrincipals(t, "read"), offer: row.offer}
		r := requestOf("GET /one", "read", "", "")
		if row.certificate {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
		}
		w, ran := serveGuarded(t, func(c *authz.Config) {
			c.Document, c.Verifier = load(t, row.document), verifier
		}, r)
		if ran == nil || (len(verifier.presented) == 1) != row.asked {
			t.Fatalf(
				"%s: got %d %s, VerifyPresented called %d times",
				row.name,
				w.Code,
				w.Body,
				len(verifier.presented),
			)
		}
		for _, p := range verifier.presented {
			if p.Token != "read" || p.Introspect != (row.document == live) ||
				(p.Certificate != nil) != (row.certificate && row.offer.MTLS) {
				t.Errorf("%s: presented %+v", row.name, p)
			}
		}
	}

	verifier := &asked{Verifier: newPrincipals(t, "read"), offer: token.Offer{Introspect: true},
		err: &token.Error{Code: token.IntrospectionUnavailable}}
	w, ran := serveGuarded(
		t,
		func(c *authz.Config) { c.Document, c.Verifier = load(t, live), verifier },
		requestOf("GET /one", "read", "", ""),
	)
	if ran != nil || w.Code != 503 || w.Header().Get("Retry-After") == "" ||
		w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("introspection fails: %d %v %s", w.Code, w.Header(), w.Body)
	}
	verifier.err = &token.Error{Code: token.Inactive}
	if w, ran := serveGuarded(t, func(c *authz.Config) {
		c.Document, c.Verifier = load(t, live), verifier
	},
		requestOf("GET /one", "read", "", "")); ran != nil ||
		w.Code != 401 ||
		!strings.Contains(w.Header().Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("a revoked token: %d %v", w.Code, w.Header())
	}
}

// TestIntrospectionFaults: a requirement that cannot be met prevents the start.
func TestIntrospectionFaults(t *testing.T) {
	able := &asked{Verifier: newPrincipals(t, "read"), offer: token.Offer{Introspect: true}}
	on := func(operation string) string {
		return strings.Replace(
			guarded,
			"operationId: "+operation+",",
			"operationId: "+operation+", x-authz-introspect: true,",
			1,
		)
	}
	for _, row := range []struct {
		document string
		verifier authz.Verifier
		says     string // "": no fault
	}{
		{on("one"), able, ""},
		{strings.Replace(on("one"), "introspect: true", "introspect: false", 1), newPrincipals(t, "read"), ""},
		{strings.Replace(on("one"), "introspect: true", `introspect: "yes"`, 1), able, "x-authz-introspect: expected true or false"},
		{strings.Replace(on("one"), "-introspect", "-introspects", 1), able, "unknown extension x-authz-introspects"},
		{on("public"), able, "but is public"},
		{on("one"), newPrincipals(t, "read"), "not configured for every issuer"},
		{on("one"), &asked{Verifier: newPrincipals(t, "read"), offer: token.Offer{MTLS: true}}, "not configured for every issuer"},
	} {
		_, err := authz.New(authz.Config{Document: load(t, row.document), Verifier: row.verifier})
		if (err == nil) != (row.says == "") ||
			err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%v, want %q", err, row.says)
		}
	}
	document := strings.Replace(
		everyScheme,
		"operationId: key,",
		"operationId: key, x-authz-introspect: true,",
		1,
	)
	_, err := authz.New(
		authz.Config{
			Document:       load(t, document),
			Verifier:       able,
			Authenticators: everyAuthenticator(t),
		},
	)
	if err == nil || !strings.Contains(err.Error(), "does not accept access tokens") {
		t.Errorf("an operation by key: %v", err)
	}
	document = strings.Replace(
		everyScheme,
		"operationId: bearer,",
		"operationId: bearer, x-authz-introspect: true,",
		1,
	)
	authenticators := everyAuthenticator(t)
	authenticators["bearer"] = struct{ authz.Authenticator }{}
	_, err = authz.New(
		authz.Config{Document: load(t, document), Verifier: able, Authenticators: authenticators},
	)
	if err == nil ||
		!strings.Contains(err.Error(), "by an authenticator in Config.Authenticators") {
		t.Errorf("an operation with an authenticator of its own: %v", err)
	}
}

// TestMetadataOfMTLS: RFC 9728 §2.
func TestMetadataOfMTLS(t *testing.T) {
	for _, on := range []bool{false, true} {
		gate, err := authz.New(authz.Config{
			Document: load(
				t,
				guarded,
			), Verifier: &asked{Verifier: newPrincipals(t, "read"), offer: token.Offer{MTLS: on}},
			Resource: resource, AuthorizationServers: []string{"https://issuer.example"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		gate.ServeMetadata(
			w,
			httptest.NewRequest("GET", "/.well-known/oauth-protected-resource", nil),
		)
		var metadata map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &metadata); err != nil {
			t.Fatal(err)
		}
		if got, _ := metadata["tls_client_certificate_bound_access_tokens"].(bool); got != on {
			t.Errorf("the metadata is %s, want %v", w.Body, on)
		}
	}
}

// TestWrappedMutualTLS: a wrapper of [authz.MutualTLS] does not take the certificate of a proxy for
// that of the client.
func TestWrappedMutualTLS(t *testing.T) {
	client, proxy := clientCertificate(t, "read"), clientCertificate(t, "proxy", "proxy.internal")
	authenticators := everyAuthenticator(t)
	for name, a := range authenticators {
		authenticators[name] = struct{ authz.Authenticator }{a}
	}
	gate, err := authz.New(authz.Config{
		Document: load(t, everyScheme), Verifier: byLookup(lookup(t, "token")),
		Authenticators: authenticators,
		ClientCertificates: authz.ClientCertificates{
			Header: authz.ClientCertHeader, Names: []string{"proxy.internal"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/mtls", nil)
	r.TLS = &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{proxy},
		VerifiedChains:   [][]*x509.Certificate{{proxy}},
	}
	if _, err := gate.Check(r, "/mtls", nil); kindOfError(err) != authz.MissingCredential {
		t.Errorf("the proxy itself: %v", err)
	}
	r.Header.Set(authz.ClientCertHeader, byteSequence(client))
	admitted, err := gate.Check(r, "/mtls", nil)
	if err != nil {
		t.Fatal(err)
	}
	if p, _ := token.FromContext(admitted.Context()); !p.HasScope("read") {
		t.Errorf("the caller is %v, want read", p.Scopes())
	}
}

// FuzzClientCertificates: for any header of a proxy, the certificate is the one in the header, or
// there is none.
func FuzzClientCertificates(f *testing.F) {
	read := clientCertificate(f, "read")
	for _, value := range []string{byteSequence(read), xfcc(read), xfcc(read) + "," + xfcc(read),
		strings.ReplaceAll(xfcc(read), "=", " = "), `Cert=";"`, `"\`, ":", ""} {
		f.Add(value, true)
		f.Add(value, false)
	}
	somebody := named(f, "certificate", "read")
	authenticators := everyAuthenticator(f)
	authenticators["mtls"] = authz.MutualTLS(
		func(context.Context, *x509.Certificate) (*token.Principal, error) { return somebody, nil })
	gates := map[bool]*authz.Gate{}
	for envoy, header := range map[bool]string{false: authz.ClientCertHeader,
		true: authz.XFCCHeader} {
		gate, err := authz.New(authz.Config{
			Document: load(f, everyScheme), Verifier: byLookup(lookup(f, "token")),
			Authenticators:     authenticators,
			ClientCertificates: authz.ClientCertificates{Header: header, UnixSocket: true},
		})
		if err != nil {
			f.Fatal(err)
		}
		gates[envoy] = gate
	}
	f.Fuzz(func(t *testing.T, value string, envoy bool) {
		r := httptest.NewRequest("GET", "/mtls", nil)
		r.Header[authz.ClientCertHeader], r.Header[authz.XFCCHeader] = []string{value},
			[]string{value}
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey,
			net.Addr(&net.UnixAddr{Net: "unix"})))
		_, err := gates[envoy].Check(r, "/mtls", nil)
		der, notBase64 := base64.StdEncoding.DecodeString(strings.Trim(value, ":"))
		if _, none := x509.ParseCertificate(der); err == nil && !envoy &&
			(notBase64 != nil || none != nil) {
			t.Errorf("accepted %q", value)
		}
		squeezed := strings.ToLower(strings.Join(strings.Fields(value), "")) // blanks are allowed
		if err == nil && envoy && !strings.Contains(squeezed, "cert=") {
			t.Errorf("accepted %q", value)
		}
	})
}
