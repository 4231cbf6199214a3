package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/client"
)

// oauthClient requests access tokens by the client credentials grant (RFC 6749 §4.4), once for each
// set of scopes, because issuers limit the tokens that they issue, and charge for them.
type oauthClient struct {
	config client.Config // its Scopes apart
	asked  map[string]*issued
}

// issued is the answer to a request for a token.
type issued struct {
	*oauth2.Token
	scopes []string // what it grants
	err    error
}

// errNotGiven makes the kit skip a case.
var errNotGiven = fmt.Errorf(
	"the issuer does not grant this client such a token: %w",
	errors.ErrUnsupported,
)

// exactly returns a token with these scopes and no others, or errNotGiven.
func (c *oauthClient) exactly(ctx context.Context, scopes []string) (string, error) {
	got := c.ask(ctx, scopes)
	if got.err == nil && !(containsAll(got.scopes, scopes) && containsAll(scopes, got.scopes)) {
		return "", errNotGiven
	}
	return got.AccessToken, got.err
}

// sufficient returns a token with at least these scopes, or errNotGiven.
func (c *oauthClient) sufficient(ctx context.Context, scopes []string) (string, error) {
	got := c.ask(ctx, scopes)
	if got.err == nil && !containsAll(got.scopes, scopes) {
		return "", errNotGiven
	}
	return got.AccessToken, got.err
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func (c *oauthClient) ask(ctx context.Context, scopes []string) *issued {
	key := strings.Join(scopes, " ")
	got := c.asked[key]
	if got == nil || got.err == nil && !got.Valid() {
		got = c.request(ctx, scopes)
		c.asked[key] = got
	}
	return got
}

func (c *oauthClient) request(ctx context.Context, scopes []string) *issued {
	config := c.config
	config.Scopes = scopes
	token, err := requestToken(ctx, config)
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok &&
		refused.ErrorCode == "invalid_scope" {
		err = errNotGiven
	}
	if err != nil {
		return &issued{&oauth2.Token{}, nil, err}
	}
	if granted, ok := token.Extra("scope").(string); ok { // RFC 6749 §5.1: not told is as asked for
		scopes = nil
		for scope := range strings.FieldsSeq(granted) {
			if scope, ours := strings.CutPrefix(scope, c.config.ScopePrefix); ours {
				scopes = append(scopes, scope)
			}
		}
	}
	return &issued{token, scopes, nil}
}

func requestToken(ctx context.Context, config client.Config) (*oauth2.Token, error) {
	if config.ClientSecret == "" {
		return requestByCertificate(ctx, config)
	}
	source, err := client.New(ctx, config)
	if err != nil {
		return nil, err
	}
	return source.Token()
}

// requestByCertificate requests a token of an issuer that authenticates the client by its
// certificate (RFC 8705 §2), so that the client only sends its ID.
func requestByCertificate(ctx context.Context, config client.Config) (*oauth2.Token, error) {
	if err := requireHTTPS(config.TokenURL); err != nil {
		return nil, fmt.Errorf("--token-url: %w", err)
	}
	grant := clientcredentials.Config{
		ClientID: config.ClientID, TokenURL: config.TokenURL, AuthStyle: oauth2.AuthStyleInParams,
		EndpointParams: url.Values{},
	}
	if config.Audience != "" {
		grant.EndpointParams.Set("audience", config.Audience)
	}
	for _, scope := range config.Scopes {
		grant.Scopes = append(grant.Scopes, config.ScopePrefix+scope)
	}
	return grant.Token(context.WithValue(ctx, oauth2.HTTPClient, config.HTTPClient))
}

// errNotBound makes the kit skip a case.
var errNotBound = fmt.Errorf("the issuer's tokens are not bound to the certificate "+
	"(cnf.x5t#S256): %w", errors.ErrUnsupported)

// certificateBound is like sufficient, but returns errNotBound unless the token is a JWT that is
// bound to the certificate (RFC 8705 §3.1).
func (c *oauthClient) certificateBound(
	ctx context.Context, scopes []string, certificate *x509.Certificate) (string, error) {
	token, err := c.sufficient(ctx, scopes)
	if err != nil {
		return "", err
	}
	var claims struct {
		Confirmation struct {
			Certificate string `json:"x5t#S256"`
		} `json:"cnf"`
	}
	thumbprint := sha256.Sum256(certificate.Raw)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errNotBound
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Confirmation.Certificate !=
		base64.RawURLEncoding.EncodeToString(thumbprint[:]) {
		return "", errNotBound
	}
	return token, nil
}

// errNotRevoked makes the kit skip a case.
var errNotRevoked = fmt.Errorf("the issuer does not let this client revoke its tokens: %w",
	errors.ErrUnsupported)

// revoke returns a function that revokes a token at the endpoint (RFC 7009 §2.1), and forgets it.
func (c *oauthClient) revoke(endpoint string) func(context.Context, string) error {
	return func(ctx context.Context, token string) error {
		if err := requireHTTPS(endpoint); err != nil {
			return err
		}
		inBody := c.config.ClientSecret == ""
		status, err := c.postRevocation(ctx, endpoint, token, inBody)
		if err == nil && status != http.StatusOK && !inBody { // not every issuer takes HTTP Basic
			status, err = c.postRevocation(ctx, endpoint, token, true)
		}
		switch {
		case err != nil:
			return err
		case status == http.StatusBadRequest, status == http.StatusUnauthorized,
			status == http.StatusForbidden:
			return errNotRevoked
		case status != http.StatusOK:
			return fmt.Errorf("%s: status is %d, expected 200", endpoint, status)
		}
		maps.DeleteFunc(c.asked, func(_ string, got *issued) bool {
			return got.err == nil && got.AccessToken == token
		})
		return nil
	}
}

func (c *oauthClient) postRevocation(
	ctx context.Context, endpoint, token string, inBody bool) (status int, err error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if inBody {
		form.Set("client_id", c.config.ClientID)
		if c.config.ClientSecret != "" {
			form.Set("client_secret", c.config.ClientSecret)
		}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint,
		strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if !inBody { // RFC 6749 §2.3.1
		r.SetBasicAuth(url.QueryEscape(c.config.ClientID), url.QueryEscape(c.config.ClientSecret))
	}
	_, status, err = fetch(c.config.HTTPClient, r)
	return status, err
}

// boundTokens returns a function that requests tokens bound to a client's key (RFC 9449 §5).
func boundTokens(config client.Config, now func() time.Time) func(
	context.Context, []string, authztest.ProofKey) (string, error) {
	config.DPoP = true // so that it expects such a token; the transport puts the kit's proof
	caller := &oauthClient{config: config, asked: map[string]*issued{}}
	return func(ctx context.Context, scopes []string, key authztest.ProofKey) (string, error) {
		proving := *config.HTTPClient
		proving.Transport = &provingTransport{base: config.HTTPClient.Transport, key: key, now: now}
		caller.config.HTTPClient = &proving
		return caller.sufficient(ctx, scopes)
	}
}

// provingTransport adds a DPoP proof to requests, and repeats a request if the server requires a
// nonce (RFC 9449 §8).
type provingTransport struct {
	base  http.RoundTripper
	key   authztest.ProofKey
	now   func() time.Time
	nonce string
}

func (p *provingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := p.send(r)
	if err != nil {
		return nil, err
	}
	nonce := response.Header.Get("DPoP-Nonce")
	if nonce == "" || nonce == p.nonce || response.StatusCode < 400 || r.GetBody == nil {
		return response, nil
	}
	p.nonce = nonce
	again := r.Clone(r.Context())
	if again.Body, err = r.GetBody(); err != nil {
		return response, nil
	}
	response.Body.Close()
	return p.send(again)
}

func (p *provingTransport) send(r *http.Request) (*http.Response, error) {
	sent := r.Clone(r.Context())
	at := *r.URL
	at.RawQuery = ""
	sent.Header.Set("DPoP", p.key.Proof(r.Method, at.String(), "", p.nonce, p.now()))
	return p.base.RoundTrip(sent)
}

// issuerMetadata is what the probe uses of an issuer's metadata.
type issuerMetadata struct {
	KeySet     string `json:"jwks_uri"`
	Revocation string `json:"revocation_endpoint"` // or ""
}

// discover fetches the metadata of an issuer (OpenID Connect Discovery 1.0 §4).
func discover(ctx context.Context, caller *http.Client, issuer string) (
	metadata issuerMetadata, err error) {
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	body, err := get(ctx, caller, at)
	if err == nil && (json.Unmarshal(body, &metadata) != nil || metadata.KeySet == "") {
		err = fmt.Errorf("%s: expected a JSON object with jwks_uri, received something else", at)
	}
	return metadata, err
}

func get(ctx context.Context, caller *http.Client, at string) ([]byte, error) {
	if err := requireHTTPS(at); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	body, status, err := fetch(caller, r)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: status is %d, expected 200", at, status)
	}
	return body, err
}

func fetch(caller *http.Client, r *http.Request) (body []byte, status int, err error) {
	response, err := caller.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return body, response.StatusCode, err
}

// requireHTTPS returns an error unless the URL is https, or http on this machine. Secrets and the
// keys that verify signatures must not be sent in the clear.
func requireHTTPS(at string) error {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q: expected a URL such as https://issuer.example/oauth/token", at)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" ||
		u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s: expected https: http is for loopback hosts only", u.Redacted())
}
