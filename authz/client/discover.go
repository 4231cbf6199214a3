package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Endpoints is the part of an issuer's metadata that clients need (OpenID Connect Discovery 1.0 §3,
// RFC 8414 §2). Absent members are empty.
type Endpoints struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"` // never empty
	KeySet        string `json:"jwks_uri"`

	TokenAuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	DPoPAlgorithms   []string `json:"dpop_signing_alg_values_supported"` // RFC 9449 §5.1
}

// DiscoveryError reports metadata that could not be fetched or cannot be trusted.
type DiscoveryError struct {
	URL     string // of the request
	Status  int    // of the response; 0 if there was none
	Problem string // expected, received, what to do
	Err     error  // the cause if there was no response, or an [*IssuerError]
}

func (e *DiscoveryError) Error() string { return "client: " + e.URL + ": " + e.Problem }
func (e *DiscoveryError) Unwrap() error { return e.Err }

// IssuerError reports metadata of another issuer than the requested one. Its endpoints must not be
// used (RFC 8414 §3.3).
type IssuerError struct{ Expected, Received string }

func (e *IssuerError) Error() string {
	hint := "write it exactly as the issuer does"
	if strings.TrimSuffix(e.Received, "/") == strings.TrimSuffix(e.Expected, "/") {
		hint = "they differ by a trailing slash only; " + hint
	}
	return fmt.Sprintf("issuer is %q, expected %q: %s", e.Received, e.Expected, hint)
}

const (
	discoveryTimeout = 10 * time.Second
	maxMetadata      = 256 << 10
)

// Discover fetches an issuer's metadata from the path of OpenID Connect Discovery 1.0 §4 or, if
// that does not exist, from the path of RFC 8414 §3. issuer is the URL exactly as the issuer writes
// it. All requests use https, except to loopback hosts. Redirects are not followed, because RFC
// 8414 §3.2 requires status 200.
//
// Errors are of type [*DiscoveryError], except if issuer is invalid. httpClient is
// http.DefaultClient if nil.
func Discover(ctx context.Context, httpClient *http.Client, issuer string) (Endpoints, error) {
	if err := checkIssuer(issuer); err != nil {
		return Endpoints{}, err
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return Endpoints{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	// OpenID Connect appends the well-known path to the issuer's path, RFC 8414 §3.1 prepends it.
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	found, err := discoverAt(ctx, httpClient, issuer,
		origin+path+"/.well-known/openid-configuration")
	if e, ok := errors.AsType[*DiscoveryError](err); ok && e.Status >= 400 && e.Status < 500 {
		var also error
		if found, also = discoverAt(ctx, httpClient, issuer,
			origin+"/.well-known/oauth-authorization-server"+path); also == nil {
			return found, nil
		}
		return Endpoints{}, errors.Join(err, also)
	}
	return found, err
}

// checkIssuer checks the syntax of OpenID Connect Discovery 1.0 §3 and RFC 8414 §2.
func checkIssuer(issuer string) error {
	if err := checkConfidential(issuer); err != nil || strings.ContainsAny(issuer, "?#") {
		return fmt.Errorf(
			"client: issuer is %q: expected a URL such as https://tenant.example/, http on loopback hosts only, with no user, query or fragment",
			redacted(issuer),
		)
	}
	return nil
}

func discoverAt(ctx context.Context, httpClient *http.Client, issuer,
	at string) (Endpoints, error) {
	var found Endpoints
	const expected = "a JSON object with issuer and token_endpoint"
	if err := fetchMetadata(ctx, httpClient, at, "the issuer", expected, &found); err != nil {
		return Endpoints{}, err
	}
	wrong := func(format string, args ...any) (Endpoints, error) {
		return Endpoints{}, &DiscoveryError{URL: at, Status: http.StatusOK,
			Problem: fmt.Sprintf(format, args...)}
	}
	// OpenID Connect Discovery 1.0 §4.3 and RFC 8414 §3.3 prevent one issuer from posing as
	// another.
	if found.Issuer != issuer {
		mismatch := &IssuerError{Expected: issuer, Received: found.Issuer}
		return Endpoints{}, &DiscoveryError{URL: at, Status: http.StatusOK,
			Problem: mismatch.Error(), Err: mismatch}
	}
	if found.Token == "" {
		return wrong("token_endpoint is missing: this issuer does not issue tokens to clients")
	}
	for _, member := range []struct{ name, endpoint string }{
		{"token_endpoint", found.Token}, {"authorization_endpoint", found.Authorization},
		{"jwks_uri", found.KeySet},
	} {
		err := checkConfidential(member.endpoint)
		if err == nil && strings.HasPrefix(strings.ToLower(issuer), "https:") &&
			!strings.HasPrefix(strings.ToLower(member.endpoint), "https:") {
			// a server on this machine is not the issuer
			err = errors.New("expected an https URL, like the issuer's")
		}
		if err != nil && member.endpoint != "" {
			return wrong("%s is %q: %v", member.name, member.endpoint, err)
		}
	}
	return found, nil
}

// fetchMetadata fetches metadata of an issuer or API. Errors are of type [*DiscoveryError].
func fetchMetadata(
	ctx context.Context,
	httpClient *http.Client,
	at, whose, expected string,
	into any,
) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return &DiscoveryError{URL: at, Problem: err.Error(), Err: err}
	}
	request.Header.Set("Accept", "application/json")
	response, err := withoutRedirects(httpClient).Do(request)
	if err != nil {
		return &DiscoveryError{URL: at, Problem: whose + " does not answer: " +
			causeOf(err).Error(), Err: err}
	}
	defer response.Body.Close()
	wrong := func(format string, args ...any) error {
		return &DiscoveryError{URL: at, Status: response.StatusCode,
			Problem: fmt.Sprintf(format, args...)}
	}
	if response.StatusCode != http.StatusOK {
		return wrong("status is %d, expected 200 (redirects are not followed)", response.StatusCode)
	}
	contentType := response.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); err != nil ||
		media != "application/json" && !strings.HasSuffix(media, "+json") {
		return wrong("Content-Type is %q, expected application/json", contentType)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxMetadata+1))
	switch {
	case err != nil:
		return &DiscoveryError{URL: at, Status: response.StatusCode,
			Problem: "could not read the response: " + causeOf(err).Error(), Err: err}
	case len(body) > maxMetadata:
		return wrong(
			"the response is larger than %d KiB", maxMetadata>>10)
	case json.Unmarshal(body, into) != nil:
		return wrong("expected %s, received something else", expected)
	}
	return nil
}

// checkConfidential returns an error unless a URL uses https, or http to a loopback host (RFC 6749
// §1.6, RFC 8252 §8.3).
func checkConfidential(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err == nil && u.Host != "" && u.User == nil &&
		(u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())) {
		return nil
	}
	return errors.New("expected an https URL, http on loopback hosts only")
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Zone() == "" &&
		ip.Unmap().IsLoopback()
}

// withoutRedirects returns a copy of client that does not follow redirects.
func withoutRedirects(client *http.Client) *http.Client {
	if client == nil {
		client = http.DefaultClient
	}
	c := *client
	c.CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}
	return &c
}

// causeOf returns an error of http.Client.Do without its URL, which the message already has.
func causeOf(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// redacted returns a URL without its password.
func redacted(given string) string {
	u, err := url.Parse(given)
	if err != nil {
		return "(not a URL)" // it may contain a password anywhere
	}
	return u.Redacted()
}
