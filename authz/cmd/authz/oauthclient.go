package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

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
	source, err := client.New(ctx, config)
	if err != nil {
		return &issued{&oauth2.Token{}, nil, err}
	}
	token, err := source.Token()
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

// boundTokens returns a function that requests tokens bound to a client's key (RFC 9449 §5).
func boundTokens(config client.Config, now func() time.Time) func(
	context.Context, []string, authztest.ProofKey) (string, error) {
	config.DPoP = true // so that it expects such a token; the transport puts the kit's proof
	caller := &oauthClient{config: config, asked: map[string]*issued{}}
	return func(ctx context.Context, scopes []string, key authztest.ProofKey) (string, error) {
		caller.config.HTTPClient = newHTTPClient()
		caller.config.HTTPClient.Transport = &provingTransport{key: key, now: now}
		return caller.sufficient(ctx, scopes)
	}
}

// provingTransport adds a DPoP proof to requests, and repeats a request if the server requires a
// nonce (RFC 9449 §8).
type provingTransport struct {
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
	return http.DefaultTransport.RoundTrip(sent)
}

// keySet returns the keys of an issuer, located by OpenID Connect Discovery 1.0 §4.
func keySet(ctx context.Context, caller *http.Client, issuer string) ([]byte, error) {
	var discovery struct {
		KeySet string `json:"jwks_uri"`
	}
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	body, err := get(ctx, caller, at)
	if err == nil && (json.Unmarshal(body, &discovery) != nil || discovery.KeySet == "") {
		err = fmt.Errorf("%s: expected a JSON object with jwks_uri, received something else", at)
	}
	if err != nil {
		return nil, err
	}
	return get(ctx, caller, discovery.KeySet)
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
