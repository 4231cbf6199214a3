package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// API is the protected resource metadata of an API (RFC 9728 §2).
type API struct {
	Resource string   `json:"resource"`              // the API's own identifier
	Issuers  []string `json:"authorization_servers"` // never empty
	// Scopes are those of the challenge to the request, or else those that the metadata lists. They
	// are named as the issuers name them.
	Scopes []string `json:"scopes_supported"`
}

// resourceMetadata is the well-known path of RFC 9728 §3.
const resourceMetadata = "/.well-known/oauth-protected-resource"

// DiscoverAPI finds the issuers whose tokens an API accepts. at is any URL of the API, to which it
// sends a GET without a token. A 401 has a challenge with the URL of the metadata (RFC 9728 §5.1);
// otherwise DiscoverAPI looks at the well-known paths of RFC 9728 §3.1. The metadata must be at the
// API's own origin, and its resource must be the API.
//
// Errors are of type [*DiscoveryError], except if at is invalid. httpClient is http.DefaultClient
// if nil.
func DiscoverAPI(ctx context.Context, httpClient *http.Client, at string) (API, error) {
	u, err := url.Parse(at)
	if err == nil {
		err = checkConfidential(at)
	}
	if err != nil {
		return API{}, fmt.Errorf(
			"client: the API is at %q: expected an https URL, http on loopback "+
				"hosts only",
			redacted(at),
		)
	}
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	places, scopes, err := fetchChallenge(ctx, httpClient, at)
	if err != nil {
		return API{}, err
	}
	if places == nil {
		origin := u.Scheme + "://" + u.Host
		places = slices.Compact([]string{
			origin + resourceMetadata + strings.TrimSuffix(
				u.EscapedPath(),
				"/",
			), origin + resourceMetadata,
		})
	}
	var faults []error
	for _, place := range places {
		api, err := apiAt(ctx, httpClient, u, place)
		if err == nil {
			if scopes != nil {
				api.Scopes = scopes
			}
			return api, nil
		}
		faults = append(faults, err)
	}
	return API{}, errors.Join(faults...)
}

// The parameters of a challenge (RFC 6750 §3, RFC 9728 §5.1).
var (
	metadataParameter = regexp.MustCompile(`[ ,]resource_metadata="([^"\\]+)"`)
	scopeParameter    = regexp.MustCompile(`[ ,]scope="([^"\\]+)"`)
)

// fetchChallenge requests a challenge and returns the URL of the metadata and the scopes in it.
// Both are nil if there is no 401 or the challenge lacks them.
func fetchChallenge(
	ctx context.Context,
	httpClient *http.Client,
	at string,
) (places, scopes []string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, nil, &DiscoveryError{URL: at, Problem: err.Error(), Err: err}
	}
	response, err := withoutRedirects(httpClient).Do(request)
	if err != nil {
		return nil, nil, &DiscoveryError{
			URL:     at,
			Problem: "the API does not answer: " + causeOf(err).Error(),
			Err:     err,
		}
	}
	discard(response)
	if response.StatusCode != http.StatusUnauthorized {
		return nil, nil, nil
	}
	challenges := strings.Join(response.Header.Values("WWW-Authenticate"), ", ")
	if found := metadataParameter.FindStringSubmatch(challenges); found != nil {
		places = found[1:]
	}
	if found := scopeParameter.FindStringSubmatch(challenges); found != nil {
		scopes = strings.Fields(found[1])
	}
	return places, scopes, nil
}

// apiAt reads the metadata of the API at u from place and checks that it is the API's.
func apiAt(ctx context.Context, httpClient *http.Client, u *url.URL, place string) (API, error) {
	wrong := func(format string, args ...any) (API, error) {
		return API{}, &DiscoveryError{URL: place, Problem: fmt.Sprintf(format, args...)}
	}
	at, err := url.Parse(place)
	if err != nil || originOf(at) != originOf(u) || at.User != nil {
		return wrong("the challenge names metadata of another origin: expected %s", originOf(u))
	}
	var api API
	const expected = "a JSON object with resource and authorization_servers"
	if err := fetchMetadata(ctx, httpClient, place, "the API", expected, &api); err != nil {
		return API{}, err
	}
	// RFC 9728 §3.3 prevents metadata from naming issuers for another resource.
	resource, err := url.Parse(api.Resource)
	if err != nil || originOf(resource) != originOf(u) ||
		!below(u.EscapedPath(), resource.EscapedPath()) {
		return wrong("resource is %q: expected a prefix of %s", api.Resource, u.Redacted())
	}
	if len(api.Issuers) == 0 {
		return wrong("authorization_servers is missing: expected the issuers of the API's tokens")
	}
	for _, issuer := range api.Issuers {
		if err := checkIssuer(issuer); err != nil {
			return wrong("authorization_servers: %v", err)
		}
		if strings.EqualFold(u.Scheme, "https") &&
			!strings.HasPrefix(strings.ToLower(issuer), "https:") {
			// a server on this machine is not the issuer of a remote API
			return wrong(
				"authorization_servers has %q: expected an https URL, like the API's",
				issuer,
			)
		}
	}
	return api, nil
}

// below reports whether path is parent or within it.
func below(path, parent string) bool {
	parent = strings.TrimSuffix(parent, "/")
	return path == parent || strings.HasPrefix(path, parent+"/") || parent == ""
}
