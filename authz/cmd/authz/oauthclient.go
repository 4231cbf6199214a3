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
)

// oauthClient gets access tokens by the client credentials grant (RFC 6749 §4.4). It asks once for each set of scopes:
// issuers count, and charge for, what they issue.
type oauthClient struct {
	endpoint, id, secret string
	audience             string
	http                 *http.Client
	now                  func() time.Time
	inBody               bool // the issuer takes the secret in the body alone
	asked                map[string]*issued
}

// issued is the answer to a request for a token.
type issued struct {
	token  string
	scopes []string // what it grants
	until  time.Time
	err    error
}

// errNotGiven has the kit skip a case.
var errNotGiven = fmt.Errorf("the issuer does not give this client such a token: %w", errors.ErrUnsupported)

// exactly returns a token with these scopes and no others, or errNotGiven.
func (c *oauthClient) exactly(ctx context.Context, scopes []string) (string, error) {
	got := c.ask(ctx, scopes)
	if got.err == nil && !(containsAll(got.scopes, scopes) && containsAll(scopes, got.scopes)) {
		return "", errNotGiven
	}
	return got.token, got.err
}

// sufficient returns a token with these scopes, and maybe others, or errNotGiven.
func (c *oauthClient) sufficient(ctx context.Context, scopes []string) (string, error) {
	got := c.ask(ctx, scopes)
	if got.err == nil && !containsAll(got.scopes, scopes) {
		return "", errNotGiven
	}
	return got.token, got.err
}

func containsAll(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

func (c *oauthClient) ask(ctx context.Context, scopes []string) *issued {
	key := strings.Join(scopes, " ")
	got := c.asked[key]
	if got == nil || got.err == nil && c.now().After(got.until) {
		got = c.request(ctx, key)
		c.asked[key] = got
	}
	return got
}

// tokenAnswer is the answer of the token endpoint, good (RFC 6749 §5.1) or bad (§5.2).
type tokenAnswer struct {
	Token     string  `json:"access_token"`
	Type      string  `json:"token_type"`
	ExpiresIn float64 `json:"expires_in"`
	Scope     *string `json:"scope"`

	Error       string `json:"error"`
	Description string `json:"error_description"`
}

func (c *oauthClient) request(ctx context.Context, scope string) *issued {
	status, answer, err := c.post(ctx, scope)
	if err == nil && answer.Error == "invalid_client" && !c.inBody {
		c.inBody = true // RFC 6749 §2.3.1 has servers take both; not all do
		status, answer, err = c.post(ctx, scope)
	}
	switch {
	case err != nil:
		return &issued{err: err}
	case answer.Error == "invalid_scope":
		return &issued{err: errNotGiven}
	case status != http.StatusOK || answer.Token == "" || !strings.EqualFold(answer.Type, "Bearer"):
		return &issued{err: fmt.Errorf("%s: expected a bearer token, received status %d%s", c.endpoint, status, c.reason(answer))}
	}
	got := &issued{token: answer.Token, until: c.now().Add(5 * time.Minute)}
	if answer.ExpiresIn > 0 {
		got.until = c.now().Add(time.Duration(answer.ExpiresIn/2) * time.Second)
	}
	got.scopes = strings.Fields(scope) // RFC 6749 §5.1: not told is as asked for
	if answer.Scope != nil {
		got.scopes = strings.Fields(*answer.Scope)
	}
	return got
}

// reason is what the issuer says, unless it repeats the secret.
func (c *oauthClient) reason(answer tokenAnswer) string {
	said := strings.TrimRight(" "+answer.Error+": "+answer.Description, ": ")
	if said == "" || strings.Contains(said, c.secret) || len(said) > 500 {
		return ""
	}
	return "," + said
}

func (c *oauthClient) post(ctx context.Context, scope string) (status int, answer tokenAnswer, err error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	for name, value := range map[string]string{"scope": scope, "audience": c.audience} {
		if value != "" {
			form.Set(name, value)
		}
	}
	if c.inBody {
		form.Set("client_id", c.id)
		form.Set("client_secret", c.secret)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, answer, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	if !c.inBody {
		r.SetBasicAuth(url.QueryEscape(c.id), url.QueryEscape(c.secret)) // RFC 6749 §2.3.1
	}
	body, status, err := fetch(c.http, r)
	if err == nil && json.Unmarshal(body, &answer) != nil {
		err = fmt.Errorf("%s: expected a JSON object, received status %d with something else", c.endpoint, status)
	}
	return status, answer, err
}

// keySet returns the keys of an issuer, by way of OpenID Connect Discovery 1.0 §4.
func keySet(ctx context.Context, client *http.Client, issuer string) ([]byte, error) {
	var discovery struct {
		KeySet string `json:"jwks_uri"`
	}
	at := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	body, err := get(ctx, client, at)
	if err == nil && (json.Unmarshal(body, &discovery) != nil || discovery.KeySet == "") {
		err = fmt.Errorf("%s: expected a JSON object with jwks_uri, received something else", at)
	}
	if err != nil {
		return nil, err
	}
	return get(ctx, client, discovery.KeySet)
}

func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	if err := confidential(at); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	body, status, err := fetch(client, r)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: status is %d, expected 200", at, status)
	}
	return body, err
}

func fetch(client *http.Client, r *http.Request) (body []byte, status int, err error) {
	response, err := client.Do(r)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return body, response.StatusCode, err
}

// confidential: secrets, and the keys that signatures are checked with, go over https; http is for this machine.
func confidential(at string) error {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q: expected a URL such as https://issuer.example/oauth/token", at)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%s: expected https: http is for loopback hosts only", u.Redacted())
}
