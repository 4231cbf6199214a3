package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/token"
)

type probeCommand struct {
	Document string `required:"" help:"OpenAPI document that the server must enforce."`
	URL      string `required:"" name:"url" help:"Where the document's paths begin on the server: https://api.example/v1. Requests of the probe are sent to no other host."`

	TokenURL     string `help:"Token endpoint of the issuer, for a client that can get the scopes of the API. Without it, only cases that need no token are run."`
	ClientID     string `env:"OASGATE_CLIENT_ID" help:"ID of the client."`
	ClientSecret string `env:"OASGATE_CLIENT_SECRET" help:"Secret of the client. Prefer the environment: arguments are visible to other users."`
	Audience     string `env:"OASGATE_AUDIENCE" help:"Identifier of the API, for issuers that require one, and for forged tokens."`
	Issuer       string `env:"OASGATE_ISSUER" help:"Issuer that the server trusts, for forged tokens; its public keys are fetched and misused."`

	ScopePrefix string `help:"Prefix of the API's scopes at the issuer, such as https://api.example/ (scope_prefix). Default: none."`

	OtherClientID     string `env:"OASGATE_OTHER_CLIENT_ID" help:"ID of a second client, for operations whose objects belong to the client that creates them (x-authz-owner: subject)."`
	OtherClientSecret string `env:"OASGATE_OTHER_CLIENT_SECRET" help:"Secret of the second client."`

	DPoP     bool   `name:"dpop" help:"Also test tokens that are bound to a key (RFC 9449), for servers that accept them."`
	Resource string `help:"Where the document's paths begin, as DPoP proofs name it. Default: --url."`

	Cert    string `placeholder:"FILE" help:"PEM file of the certificate of the client (RFC 8705), for the server and for the token endpoint, where it can replace the secret. Tokens that are bound to it are tested, and operations that take certificates."`
	CertKey string `placeholder:"FILE" help:"PEM file of the key of --cert."`
	CA      string `name:"ca" placeholder:"FILE" help:"PEM file of the CAs that the server and the issuer are verified with. Default: those of the system."`

	Revoke bool `help:"Also test that a revoked token is refused by operations with x-authz-introspect. The metadata of --issuer names the endpoint (RFC 7009). Cases are run one at a time."`

	Key         map[string]string `mapsep:"none" sep:"none" help:"API key of a security scheme, as scheme=key; may be repeated. Prefer --credentials: arguments are visible to other users."`
	User        string            `env:"OASGATE_PROBE_USER" help:"User name and password of the http basic schemes, as user:password."`
	Credentials string            `help:"YAML file of credentials by security scheme, for schemes that do not take access tokens: a key, or user:password."`

	Only    []string          `help:"Run only these cases: operationIds or names of cases, with * for anything, separated by commas."`
	Workers int               `default:"1" help:"Cases to run at a time. Default: 1."`
	Header  map[string]string `mapsep:"none" sep:"none" help:"Header for every request, as Name=value; may be repeated."`
	Format  string            `enum:"text,json,junit" default:"text" help:"Output: text (default), json or junit."`

	Writes          bool `help:"Also run operations that may write: all but GET and HEAD. Without it, they only get requests that must be refused."`
	IgnoreResponses bool `help:"Do not compare responses with the document."`

	OnlyRFC6750 bool `name:"only-rfc6750" help:"Check responses by RFC 6750 alone, for servers without this library: problem documents, Cache-Control, realm and scope are not required."`
}

func (c *probeCommand) Run(ctx context.Context, t *tool) error {
	doc, err := t.load(ctx, c.Document, everything, false)
	if err != nil {
		return err
	}
	if _, err := authz.Compile(doc); err != nil {
		return fmt.Errorf(
			"%s has %s, so the expected responses are not known: see authz lint %s",
			c.Document,
			count(len(faultsOf(err)), "fault"),
			c.Document,
		)
	}
	target, err := c.target(ctx, t, doc)
	if err != nil {
		return err
	}
	results, err := authztest.Check(ctx, target)
	if err != nil {
		return err
	}
	report := c.report(results)
	if report.Failed > 0 && report.nothingFound() {
		return fmt.Errorf("every response is 404: do the paths of %[2]s begin at %[1]s?", c.URL,
			c.Document)
	}
	if len(report.Cases) == 0 {
		return fmt.Errorf("--only: no case matches %s", strings.Join(c.Only, ", "))
	}
	return c.answer(t, report)
}

// target returns the server with everything that its cases need, if the server can be reached.
func (c *probeCommand) target(ctx context.Context, t *tool, doc *openapi3.T) (
	target authztest.Target, err error) {
	header, err := c.header()
	if err != nil {
		return target, err
	}
	callers, err := c.connect()
	if err != nil {
		return target, err
	}
	others, err := c.credentials(doc, callers.certificate)
	if err != nil {
		return target, err
	}
	target = authztest.Target{
		Credentials: others,
		Document:    doc, URL: strings.TrimSuffix(c.URL, "/"), OnlyRFC6750: c.OnlyRFC6750,
		Now: t.now, Skip: c.skip,
		Header: header, Workers: c.Workers, Resource: c.Resource,
		IgnoreResponses: c.IgnoreResponses,
		Client:          callers.plain, Certificate: callers.certificate,
	}
	if c.Revoke {
		target.Workers = 1 // cases share tokens
	}
	if c.ScopePrefix != "" {
		target.ScopesToRequest = token.Issuer{ScopePrefix: c.ScopePrefix}.ScopesToRequest
	}
	if target.Tokens, err = c.tokens(ctx, t, callers.presenting); err != nil {
		return target, err
	}
	return target, c.checkReachable(ctx, callers.presenting)
}

// checkReachable returns an error if the server cannot be reached, before every case runs into its
// timeout.
func (c *probeCommand) checkReachable(ctx context.Context, caller *http.Client) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, c.URL, nil)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	if _, _, err := fetch(caller, r); err != nil {
		return fmt.Errorf("cannot reach the server: %w", err)
	}
	return nil
}

// newHTTPClient returns a client that waits as long as the kit does, and does not follow redirects.
func newHTTPClient() *http.Client {
	return &http.Client{
		Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// callers are the clients for the server and the issuer.
type callers struct {
	plain       *http.Client
	presenting  *http.Client     // presents the certificate, if there is one
	certificate *tls.Certificate // of --cert
}

// connect returns the clients with the certificates of --cert and --ca.
func (c *probeCommand) connect() (callers, error) {
	all := callers{plain: newHTTPClient(), presenting: newHTTPClient()}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		text, err := os.ReadFile(c.CA)
		if err != nil {
			return all, fmt.Errorf("--ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return all, fmt.Errorf("--ca: %s: expected certificates in PEM", c.CA)
		}
	}
	all.plain.Transport = transport(config)
	all.presenting.Transport = all.plain.Transport
	switch {
	case c.Cert == "" && c.CertKey == "":
		return all, nil
	case c.Cert == "" || c.CertKey == "":
		return all, errors.New("--cert and --cert-key are needed together, or none of them")
	case !strings.HasPrefix(strings.ToLower(c.URL), "https://"):
		return all, errors.New("--cert: expected --url to be https: without TLS, no certificate " +
			"is presented")
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.CertKey)
	if err != nil {
		return all, fmt.Errorf("--cert, --cert-key: %w", err)
	}
	all.certificate = &pair
	config = config.Clone()
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &pair, nil
	}
	all.presenting.Transport = transport(config)
	return all, nil
}

func transport(config *tls.Config) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	return t
}

// header returns the headers of --header.
func (c *probeCommand) header() (http.Header, error) {
	header := http.Header{}
	for name, value := range c.Header {
		if strings.EqualFold(name, "Authorization") {
			return nil, errors.New(
				"--header: Authorization would replace the credentials of the cases",
			)
		}
		header.Set(name, value)
	}
	return header, nil
}

// credentials returns the credentials of --key, --user, --credentials and --cert, by scheme. Their
// roles are not known, so only cases that require none can use them.
func (c *probeCommand) credentials(doc *openapi3.T, certificate *tls.Certificate) (
	map[string]authztest.Credential, error) {
	given := map[string]string{}
	if c.Credentials != "" {
		text, err := os.ReadFile(c.Credentials)
		if err != nil {
			return nil, fmt.Errorf("--credentials: %w", err)
		}
		if yaml.Unmarshal(text, &given) != nil { // the error would repeat some of it
			return nil, fmt.Errorf("--credentials: %s: expected a YAML map of security schemes to "+
				"credentials", c.Credentials)
		}
	}
	for scheme, key := range c.Key {
		if s := declaredScheme(doc, scheme); s == nil || s.Type != "apiKey" {
			return nil, fmt.Errorf("--key: %s is not a security scheme of type apiKey", scheme)
		}
		given[scheme] = key
	}
	if c.User != "" {
		found := false
		for _, scheme := range usedSchemes(doc) {
			if s := declaredScheme(doc, scheme); s != nil && s.Type == "http" &&
				strings.EqualFold(s.Scheme, "basic") {
				given[scheme], found = c.User, true
			}
		}
		if !found || !strings.Contains(c.User, ":") {
			return nil, errors.New("--user: expected user:password, and a document with an http " +
				"basic scheme")
		}
	}
	present := map[string]func(*http.Request, string) error{}
	if certificate != nil {
		for _, scheme := range usedSchemes(doc) {
			if s := declaredScheme(doc, scheme); s != nil && s.Type == "mutualTLS" {
				given[scheme] = string(certificate.Leaf.Raw)
				// The TLS handshake presents it: see Target.Certificate.
				present[scheme] = func(*http.Request, string) error { return nil }
			}
		}
	}
	all := map[string]authztest.Credential{}
	for scheme, secret := range given {
		all[scheme] = authztest.Credential{Present: present[scheme], Genuine: func(
			_ context.Context, roles []string) (string, error) {
			if len(roles) > 0 {
				return "", fmt.Errorf("the roles of the credential for %s are not known: %w",
					scheme, errors.ErrUnsupported)
			}
			return secret, nil
		}}
	}
	return all, nil
}

// chosen reports whether --only selects a case.
func (c *probeCommand) chosen(test authztest.Case) bool {
	return len(c.Only) == 0 || slices.ContainsFunc(c.Only, func(pattern string) bool {
		return matches(pattern, test.Operation.ID) || matches(pattern, test.Name)
	})
}

// matches reports whether a name matches a pattern, in which * stands for any text.
func matches(pattern, name string) bool {
	whole := "^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
	return regexp.MustCompile(whole).MatchString(name)
}

// skip skips the cases that --only does not select, and those that could write, unless --writes is
// given.
func (c *probeCommand) skip(test authztest.Case) string {
	if !c.chosen(test) {
		return "not selected (--only)"
	}
	reads := func(o authz.Operation) bool {
		return o.Method == http.MethodGet || o.Method == http.MethodHead
	}
	if !c.Writes &&
		slices.ContainsFunc(test.Runs(), func(o authz.Operation) bool { return !reads(o) }) {
		return "would run an operation that may write (--writes)"
	}
	return ""
}

const giveAudience = "give the identifier of the API at the issuer by --audience (OASGATE_AUDIENCE)"

// tokens returns the tokens that the given client can get.
func (c *probeCommand) tokens(ctx context.Context, t *tool, to *http.Client) (
	tokens authztest.Tokens, err error) {
	if c.Issuer != "" && c.Audience == "" {
		return tokens, errors.New("--issuer: forged tokens must differ from genuine ones in one " +
			"place only, and so need their audience: " + giveAudience)
	}
	tokens = authztest.Tokens{Issuer: c.Issuer, Audience: c.Audience}
	var metadata issuerMetadata
	if c.Issuer != "" {
		if metadata, err = discover(ctx, to, c.Issuer); err == nil {
			tokens.KeySet, err = get(ctx, to, metadata.KeySet)
		}
		if err != nil {
			return tokens, fmt.Errorf("--issuer: cannot fetch its keys: %w", err)
		}
	}
	switch {
	case c.Revoke && (c.Issuer == "" || c.TokenURL == ""):
		return tokens, errors.New("--revoke needs --issuer, whose metadata names the revocation " +
			"endpoint, and a client (--token-url, --client-id, --client-secret)")
	case c.Revoke && metadata.Revocation == "":
		return tokens, fmt.Errorf("--revoke: the metadata of %s has no revocation_endpoint "+
			"(RFC 8414 §2)", c.Issuer)
	}
	if c.TokenURL == "" && c.ClientID == "" && c.ClientSecret == "" {
		return tokens, nil
	}
	return c.fromIssuer(ctx, t, to, tokens, metadata)
}

// fromIssuer adds to tokens those that the issuer grants to the clients.
func (c *probeCommand) fromIssuer(
	ctx context.Context,
	t *tool,
	to *http.Client,
	tokens authztest.Tokens,
	metadata issuerMetadata,
) (authztest.Tokens, error) {
	if c.TokenURL == "" || c.ClientID == "" || c.ClientSecret == "" && c.Cert == "" {
		return tokens, errors.New(
			"--token-url, --client-id and --client-secret (OASGATE_CLIENT_SECRET), or --cert " +
				"instead of the secret, are needed together, or none of them",
		)
	}
	caller := &oauthClient{
		config: client.Config{
			TokenURL:     c.TokenURL,
			ClientID:     c.ClientID,
			ClientSecret: c.ClientSecret,
			ScopePrefix:  c.ScopePrefix,
			Audience:     c.Audience,
			HTTPClient:   to,
		},
		asked: map[string]*issued{},
	}
	if _, err := caller.sufficient(ctx, nil); err != nil {
		err = fmt.Errorf("no token: %w", err)
		if _, refused := errors.AsType[*oauth2.RetrieveError](err); refused && c.Audience == "" {
			err = fmt.Errorf("%w: if the issuer requires an audience, %s", err, giveAudience)
		}
		return tokens, err
	}
	tokens.Genuine, tokens.Sufficient = caller.exactly, caller.sufficient
	if c.Cert != "" {
		tokens.CertificateBound = caller.certificateBound
	}
	if c.Revoke {
		tokens.Revoke = caller.revoke(metadata.Revocation)
	}
	if c.DPoP {
		tokens.Bound = boundTokens(caller.config, t.now)
	}
	switch {
	case c.OtherClientID == "" && c.OtherClientSecret == "":
	case c.OtherClientID == "" || c.OtherClientSecret == "":
		return tokens, errors.New(
			"--other-client-id and --other-client-secret (OASGATE_OTHER_CLIENT_SECRET) are " +
				"needed together, or none of them",
		)
	default:
		config := caller.config
		config.ClientID, config.ClientSecret = c.OtherClientID, c.OtherClientSecret
		other := &oauthClient{config: config, asked: map[string]*issued{}}
		tokens.Other = other.sufficient
	}
	return tokens, nil
}
