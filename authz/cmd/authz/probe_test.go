package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
	"golang.org/x/tools/txtar"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// TestProbe replays testdata/probe.txtar against a correct server, and some with flaws.
func TestProbe(t *testing.T) {
	const script, secret = "testdata/probe.txtar", "correct-horse-battery-staple"
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{
			"https://api.example/",
		}, Scopes: []string{"read:messages", "write:messages"},
		Clients: []devissuer.Client{
			{ID: "probe", Secret: secret, Scopes: []string{"read:messages", "write:messages"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	var writes, elsewhere atomic.Int64
	guarded := guardedServer(t, script, issuer, &writes)
	serve := func(h http.Handler) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}
	other := serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	gone := httptest.NewServer(nil)
	gone.Close()
	values := map[string]string{
		"{right}": serve(guarded),
		// One route has escaped the gate.
		"{leaky}": serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/messages" && r.Method == http.MethodGet {
				return
			}
			guarded.ServeHTTP(w, r)
		})),
		// A server that answers as RFC 6750 wants and no better.
		"{terse}": serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer := httptest.NewRecorder()
			guarded.ServeHTTP(answer, r)
			if challenge := answer.Header().Get("WWW-Authenticate"); challenge != "" {
				w.Header().Set("WWW-Authenticate", challenge)
				w.Header().Set("Connection", "close")
			}
			w.WriteHeader(answer.Code)
		})),
		"{redirects}": serve(http.RedirectHandler(other, http.StatusTemporaryRedirect)),
		"{gone}":      gone.URL,
		"{gone-host}": gone.Listener.Addr().String(),
		"{issuer}":    issuer.URL(),
		"{token-url}": strings.TrimSuffix(issuer.URL(), "/") + "/oauth/token",
		"{secret}":    secret,
	}
	replay(t, script, func(args []string, stdin, stdout, stderr *bytes.Buffer) int {
		before := writes.Load()
		code := run(t.Context(), args, stdin, stdout, stderr)
		if command := strings.Join(args, " "); (writes.Load() > before) != strings.Contains(
			command,
			"--writes",
		) {
			t.Errorf(
				"authz %s had the server write %d times",
				strings.ReplaceAll(command, secret, "…"),
				writes.Load()-before,
			)
		}
		if strings.Contains(stdout.String()+stderr.String(), secret) ||
			strings.Contains(stdout.String()+stderr.String(), "eyJ") {
			t.Errorf(
				"authz %s prints a secret or a token",
				strings.ReplaceAll(strings.Join(args, " "), secret, "…"),
			)
		}
		return code
	}, values)
	if n := elsewhere.Load(); n > 0 {
		t.Errorf(
			"%d requests were sent to where --url does not point: redirects are not to be followed",
			n,
		)
	}
}

// guardedServer serves the first document of a transcript, behind a gate.
func guardedServer(
	t *testing.T,
	script string,
	issuer *devissuer.Server,
	writes *atomic.Int64,
) http.Handler {
	t.Helper()
	archive, err := txtar.ParseFile(script)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(archive.Files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	verifier, err := token.NewVerifier(ctx, token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	e := echo.New()
	e.HTTPErrorHandler = echov4.ErrorHandler(gate)
	e.Use(echov4.Middleware(gate))
	for _, o := range gate.Plan().Operations() {
		e.Add(
			o.Method,
			strings.NewReplacer("{", ":", "}", "").Replace(o.Path),
			func(c echo.Context) error {
				if o.Method != http.MethodGet {
					writes.Add(1)
				}
				return c.NoContent(http.StatusNoContent)
			},
		)
	}
	return e
}

// TestSecretInTheBody: some issuers do not accept HTTP Basic.
func TestSecretInTheBody(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Content-Type", "application/json")
		if _, _, basic := r.BasicAuth(); basic || r.PostFormValue("client_secret") != "s" {
			w.WriteHeader(http.StatusUnauthorized)
			w.Write([]byte(`{"error": "invalid_client"}`))
			return
		}
		w.Write(
			[]byte(
				`{"access_token": "t", "token_type": "bearer", "expires_in": 3600, "scope": "a b"}`,
			),
		)
	}))
	defer server.Close()
	c := &oauthClient{
		config: client.Config{TokenURL: server.URL, ClientID: "c", ClientSecret: "s"},
		asked:  map[string]*issued{},
	}
	for range 3 {
		if _, err := c.sufficient(t.Context(), []string{"a"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.exactly(t.Context(), []string{"a"}); err == nil {
			t.Fatal("a token with a and b passes for one with exactly a")
		}
	}
	if requests != 2 {
		t.Errorf(
			"%d requests to the token endpoint, want 2: by Basic, then in the body, then never again",
			requests,
		)
	}
}

// TestProbeCredentials probes operations that take keys, with the credentials of a file.
func TestProbeCredentials(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: t, version: 1.0.0}
paths:
  /a: {get: {operationId: a, security: [key: []], responses: {default: {description: fine}}}}
  /b: {get: {operationId: b, security: [login: []], responses: {default: {description: fine}}}}
components:
  securitySchemes:
    key: {type: apiKey, in: header, name: X-Key}
    login: {type: http, scheme: basic}
`
	const key = "correct-horse-battery-staple"
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	somebody, err := token.NewPrincipal(token.PrincipalConfig{Subject: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	keys := authz.Secrets{{ID: "a", SHA256: sha256.Sum256([]byte(key)), Principal: somebody}}
	gate, err := authz.New(authz.Config{
		Document: doc,
		Authenticators: map[string]authz.Authenticator{
			"key": authz.APIKey(keys.Key), "login": authz.Basic(keys.User),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	mux.HandleFunc("GET /a", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /b", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	dir := t.TempDir()
	files := map[string]string{"api.yaml": document, "wrong": "- " + key,
		"credentials": "{key: " + key + ", login: 'a:" + key + "'}"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inFile := func(name string) string { return "--credentials=" + filepath.Join(dir, name) }
	for i, test := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{inFile("credentials")}, allWell, " 0 failed, 0 skipped"},
		{[]string{"--key=key=" + key, "--user=a:" + key}, allWell, " 0 failed, 0 skipped"},
		{[]string{"--user=a:" + key}, allWell, " 0 failed, 5 skipped"},
		{[]string{"--key=key=" + key + "x", "--only=a"}, found, "expected the request to be accepted"},
		{[]string{"--key=login=" + key}, unable, "login is not a security scheme of type apiKey"},
		{[]string{"--user=" + key}, unable, "expected user:password"},
		{[]string{inFile("wrong")}, unable, "expected a YAML map"},
		{[]string{inFile("missing")}, unable, "no such file"},
		{nil, allWell,
			"needs a credential of another scheme (--key, --user, --credentials, --cert)"},
	} {
		args := append([]string{"probe", "--document=" + filepath.Join(dir, "api.yaml"),
			"--url=" + server.URL}, test.args...)
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		out := stdout.String() + stderr.String()
		if code != test.code || !strings.Contains(out, test.text) ||
			strings.Contains(out, key) {
			t.Errorf("%d: exit code %d, %s: want %d, %q, and no key", i, code, out, test.code,
				test.text)
		}
	}
}

// TestProbeDPoP probes a server that accepts bound tokens and has another URL for proofs, and one
// that does not check proofs.
func TestProbeDPoP(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: t, version: 1.0.0}
paths: {/a: {get: {operationId: a, security: [b: [read]], responses: {default: {description: fine}}}}}
components: {securitySchemes: {b: {type: http, scheme: bearer, x-scopes: {read: Read.}}}}
`
	const secret = "correct-horse-battery-staple"
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{"https://api.example/"}, Scopes: []string{"read"},
		Clients: []devissuer.Client{{ID: "probe", Secret: secret, Scopes: []string{"read"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"},
			DPoP: token.DPoPAllowed}},
		Proofs: token.ProofPolicy{NonceKey: []byte(strings.Repeat("n", 32))},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier,
		Resource: "https://api.example/", AuthorizationServers: []string{issuer.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	mux.HandleFunc("GET /a", func(http.ResponseWriter, *http.Request) {})
	right := httptest.NewServer(mux)
	defer right.Close()
	careless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Authorization"), "DPoP ") {
			return
		}
		mux.ServeHTTP(w, r)
	}))
	defer careless.Close()
	name := filepath.Join(t.TempDir(), "api.yaml")
	if err := os.WriteFile(name, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		url  string
		code int
		text string
	}{
		{right.URL, allWell, "10 cases: 9 passed, 0 failed, 1 skipped"}, // by nonces, not by time
		{careless.URL, found, "expected 401 (invalid-dpop-proof), received 200"},
	} {
		args := []string{"probe", "--document=" + name, "--url=" + test.url, "--only=a/dpop*",
			"--token-url=" + strings.TrimSuffix(issuer.URL(), "/") + "/oauth/token",
			"--client-id=probe", "--client-secret=" + secret, "--audience=https://api.example/",
			"--dpop", "--resource=https://api.example/"}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		if out := stdout.String() + stderr.String(); code != test.code ||
			!strings.Contains(out, test.text) || strings.Contains(out, "eyJ") {
			t.Errorf("exit code %d, %s: want %d, %q, and no token", code, out, test.code,
				test.text)
		}
	}
}

// TestProbeCertificate probes servers that accept tokens bound to a certificate, with an issuer
// that authenticates the client by it, and operations with introspection.
func TestProbeCertificate(t *testing.T) {
	const document = `
openapi: 3.1.0
info: {title: t, version: 1.0.0}
paths:
  /a: {get: {operationId: a, security: [b: [read]], responses: {default: {description: fine}}}}
  /m: {get: {operationId: m, security: [m: []], responses: {default: {description: fine}}}}
  /i:
    get:
      operationId: i
      security: [b: [read]]
      x-authz-introspect: true
      responses: {default: {description: fine}}
components:
  securitySchemes:
    b: {type: http, scheme: bearer, x-scopes: {read: Read.}}
    m: {type: mutualTLS}
`
	const secret, audience = "correct-horse-battery-staple", "https://api.example/"
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{audience}, Scopes: []string{"read"},
		Clients: []devissuer.Client{{ID: "probe", Secret: secret, Scopes: []string{"read"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	verifier, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{audience},
			MTLS: token.MTLSAllowed, Introspection: token.Introspection{
				Endpoint: issuer.URL() + "oauth/introspect", ClientID: "probe",
				ClientSecret: secret,
			}}},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	somebody, err := token.NewPrincipal(token.PrincipalConfig{Subject: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier,
		Authenticators: map[string]authz.Authenticator{"m": authz.MutualTLS(
			func(context.Context, *x509.Certificate) (*token.Principal, error) {
				return somebody, nil
			})}})
	if err != nil {
		t.Fatal(err)
	}
	mux := gate.Mux()
	for _, path := range []string{"/a", "/m", "/i"} {
		mux.HandleFunc("GET "+path, func(http.ResponseWriter, *http.Request) {})
	}

	certificate, cert, key := writeCertificate(t)
	serve := func(h http.Handler, how tls.ClientAuthType) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = log.New(io.Discard, "", 0) // of refused handshakes
		known := x509.NewCertPool()
		known.AddCert(certificate)
		server.TLS = &tls.Config{ClientAuth: how, ClientCAs: known}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	// An issuer that authenticates the client by its certificate, and binds the token to it.
	binding := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _, basic := r.BasicAuth()
		if basic || r.PostFormValue("client_id") != "probe" || r.PostForm.Has("client_secret") {
			http.Error(w, `{"error": "invalid_client"}`, http.StatusUnauthorized)
			return
		}
		sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"token_type": "Bearer", "expires_in": 3600,
			"access_token": issuer.Mint(map[string]any{"scope": r.PostFormValue("scope"),
				"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}}),
		})
	}), tls.RequireAndVerifyClientCert)
	// A server that does not look at the certificate.
	careless := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS.PeerCertificates = []*x509.Certificate{certificate}
		mux.ServeHTTP(w, r)
	}), tls.RequestClientCert)
	// A server that caches introspection responses.
	var known sync.Map
	keeping := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		credential := r.Header.Get("Authorization")
		if _, ok := known.Load(credential); ok {
			return
		}
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, r)
		if answer.Code == http.StatusOK {
			known.Store(credential, true)
		}
		mux.ServeHTTP(w, r)
	}), tls.NoClientCert)
	asking := serve(mux, tls.RequestClientCert)
	verifying := serve(mux, tls.VerifyClientCertIfGiven)
	requiring := serve(mux, tls.RequireAndVerifyClientCert)

	dir := t.TempDir()
	name, ca := filepath.Join(dir, "api.yaml"), filepath.Join(dir, "ca.pem")
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: asking.Certificate().Raw})
	for file, text := range map[string][]byte{name: []byte(document), ca: root} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	presented := []string{"--cert=" + cert, "--cert-key=" + key}
	byCertificate := slices.Concat([]string{"--token-url=" + binding.URL, "--client-id=probe"},
		presented)
	bySecret := []string{"--token-url=" + issuer.URL() + "oauth/token", "--client-id=probe",
		"--client-secret=" + secret, "--audience=" + audience}
	// An issuer whose revocation endpoint refuses the client, and one without such an endpoint.
	refusing := serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		metadata := map[string]string{"jwks_uri": issuer.URL() + ".well-known/jwks.json"}
		switch {
		case r.Method == http.MethodPost:
			w.WriteHeader(http.StatusForbidden)
			return
		case !strings.HasPrefix(r.URL.Path, "/without/"):
			metadata["revocation_endpoint"] = "https://" + r.Host + "/revoke"
		}
		_ = json.NewEncoder(w).Encode(metadata)
	}), tls.NoClientCert)
	const bound, revoked = "--only=a/certificate*", "--only=i/revoked*,i/exact*"
	with := func(args []string, more ...string) []string { return slices.Concat(args, more) }
	revoking := func(issuer string) []string {
		return with(bySecret, "--revoke", "--issuer="+issuer, revoked)
	}
	for _, test := range []struct {
		name string
		url  string
		args []string
		code int
		text string
	}{
		{"any certificate", asking.URL, with(byCertificate, bound), allWell,
			"3 cases: 3 passed, 0 failed, 0 skipped"},
		{"any certificate, all cases", asking.URL, with(byCertificate, "--only=a"), allWell,
			" 0 failed,"},
		{"known certificates", verifying.URL, with(byCertificate, bound), allWell,
			"in 1 case, the server ends the TLS handshake"},
		{"only with a certificate", requiring.URL, with(byCertificate, bound), allWell,
			"in 2 cases, the server ends the TLS handshake"},
		{"binding ignored", careless.URL, with(byCertificate, bound), found,
			"3 cases: 1 passed, 2 failed, 0 skipped"},
		{"binding ignored, to repeat", careless.URL,
			with(byCertificate, "--only=a/certificate_of*"), found,
			`curl -i -X GET '` + careless.URL + `/a' --cert "$CERT" --key "$CERT_KEY"`},
		{"not bound", asking.URL, with(with(bySecret, presented...), bound), allWell,
			"3  the issuer's tokens are not bound to the certificate"},
		{"no certificate", asking.URL, with(bySecret, bound), allWell,
			"3  needs a token bound to a certificate (--cert, --cert-key)"},
		{"scheme", verifying.URL, with(presented, "--only=m"), allWell,
			"4 cases: 4 passed, 0 failed, 0 skipped"},
		{"scheme, not verified", asking.URL, with(presented, "--only=m"), found,
			"expected the request to be accepted, received 401"},
		{"over http", issuer.URL(), byCertificate, unable, "expected --url to be https"},
		{"no key", asking.URL, presented[:1], unable, "--cert and --cert-key are needed together"},
		{"not a key", asking.URL, []string{"--cert=" + cert, "--cert-key=" + cert}, unable,
			"--cert, --cert-key: "},

		{"revoked", asking.URL, revoking(issuer.URL()), allWell,
			"2 cases: 2 passed, 0 failed, 0 skipped"},
		{"revoked, kept", keeping.URL, revoking(issuer.URL()), found,
			"expected 401 (invalid-token), received 200"},
		{"revocation refused", asking.URL, revoking(refusing.URL), allWell,
			"1  the issuer does not let this client revoke its tokens"},
		{"no revocation endpoint", asking.URL, revoking(refusing.URL + "/without"), unable,
			"has no revocation_endpoint"},
		{"not to revoke", asking.URL, with(bySecret, revoked), allWell,
			"needs to revoke tokens at the issuer (--revoke)"},
		{"revocation endpoint unknown", asking.URL, with(bySecret, "--revoke"), unable,
			"--revoke needs --issuer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{"probe", "--document=" + name, "--url=" + test.url,
				"--ca=" + ca}, test.args...)
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
			if out := stdout.String() + stderr.String(); code != test.code ||
				!strings.Contains(out, test.text) || strings.Contains(out, "eyJ") ||
				strings.Contains(out, secret) {
				t.Errorf("exit code %d, %s: want %d, %q, and no token", code, out, test.code,
					test.text)
			}
		})
	}
}

// writeCertificate returns a self-signed certificate of a client, and the PEM files of it and of
// its key.
func writeCertificate(t *testing.T) (certificate *x509.Certificate, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "probe"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certificate, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, cert, key
}
