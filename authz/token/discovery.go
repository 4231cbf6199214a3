package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// locator fetches an issuer's metadata and keys. It is not safe for concurrent use.
type locator struct {
	issuer       string // the issuer that the metadata must name
	discoveryURL string // default: below issuer
	jwksURI      string // default: from the metadata
	keyless      bool   // the issuer may have no keys: its tokens are opaque
	insecureHost string // the host, not a loopback one, that InsecureHTTP allows http to, or ""
	client       *http.Client
	log          *slog.Logger

	// documents holds the last good document of each URL that has a validator (RFC 9110 §8.8), for
	// conditional requests.
	documents map[string]document
}

// document is a JSON document with the header of its response.
type document struct {
	body               []byte
	header             http.Header
	etag, lastModified string
}

// validates reports whether the next request for the document can be conditional.
func (a document) validates() bool { return a.etag != "" || a.lastModified != "" }

// newLocator returns the locator of an issuer that is complete.
func newLocator(i *Issuer, client *http.Client, log *slog.Logger) *locator {
	l := &locator{
		issuer: i.URL, discoveryURL: i.DiscoveryURL, jwksURI: i.JWKSURI, client: client, log: log,
		documents: map[string]document{}, keyless: i.Introspection.Opaque,
	}
	if i.InsecureHTTP {
		if u, err := url.Parse(l.base()); err == nil && u.Scheme == "http" {
			l.insecureHost = u.Host
		}
	}
	return l
}

// base is the configured URL from which the others are discovered.
func (l *locator) base() string {
	return cmp.Or(l.jwksURI, l.discoveryURL, l.issuer)
}

// samePlace reports whether another locator uses the same URLs.
func (l *locator) samePlace(other *locator) bool {
	return l.discoveryURL == other.discoveryURL && l.jwksURI == other.jwksURI &&
		l.insecureHost == other.insecureHost
}

// metadata is the part of an issuer's metadata (OpenID Connect Discovery 1.0 §3, RFC 8414 §2) that
// is used here.
type metadata struct {
	Issuer        string `json:"issuer"`
	JWKSURI       string `json:"jwks_uri"`
	Introspection string `json:"introspection_endpoint"`

	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
}

// fetch returns the keys, and how long they are fresh by the issuer's Cache-Control.
func (l *locator) fetch(ctx context.Context, policy KeyPolicy) (*keySet, time.Duration, error) {
	at := l.jwksURI
	if at == "" {
		found, from, err := l.discover(ctx)
		none := errors.Is(err, errNoMetadata) || err == nil && found.JWKSURI == ""
		if l.keyless && none {
			return &keySet{}, policy.MaxAge, nil
		}
		if err != nil {
			return nil, 0, err
		}
		if err := l.checkURL(found.JWKSURI); err != nil {
			return nil, 0, fmt.Errorf("%s: jwks_uri is %s: %w", from, quote(found.JWKSURI), err)
		}
		at = found.JWKSURI
	}
	got, err := l.get(ctx, at)
	if err != nil {
		return nil, 0, err
	}
	set, dropped, err := parseKeySet(got.body)
	if err != nil {
		delete(l.documents, at) // the next request must not be conditional
		return nil, 0, fmt.Errorf("%s: %s", at, joinFaults(append([]error{err}, dropped...)))
	}
	if dropped != nil {
		l.log.Warn("keys ignored", "issuer", l.issuer, "keys", joinFaults(dropped))
	}
	set.validates = got.validates()
	return set, policy.clamp(got.header), nil
}

// errNoMetadata is returned if both places of the metadata answer 404, which is not an outage.
var errNoMetadata = errors.New("the issuer has no metadata")

// discover returns the issuer's metadata and its URL: that of OpenID Connect Discovery 1.0 §4 or,
// if it answers 404, that of RFC 8414 §3.1.
func (l *locator) discover(ctx context.Context) (found metadata, at string, err error) {
	at = l.discoveryURL
	if at == "" {
		at = strings.TrimSuffix(l.issuer, "/") + "/.well-known/openid-configuration"
	}
	got, err := l.get(ctx, at)
	if missing := (*statusError)(nil); l.discoveryURL == "" && errors.As(err, &missing) &&
		missing.status == http.StatusNotFound {
		if u, parseErr := url.Parse(l.issuer); parseErr == nil {
			at = u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" +
				strings.TrimSuffix(u.EscapedPath(), "/")
			var alsoErr error
			if got, alsoErr = l.get(ctx, at); errors.As(alsoErr, &missing) &&
				missing.status == http.StatusNotFound {
				err = fmt.Errorf("%w: %w; %w", errNoMetadata, err, alsoErr)
			} else if alsoErr != nil {
				err = fmt.Errorf("%w; %w", err, alsoErr)
			} else {
				err = nil
			}
		}
	}
	if err != nil {
		return metadata{}, at, err
	}
	if err := json.Unmarshal(got.body, &found); err != nil {
		delete(l.documents, at)
		return metadata{}, at, fmt.Errorf("%s: expected a discovery document (a JSON object with "+
			"issuer and jwks_uri), received something else", at)
	}
	if found.Issuer != l.issuer {
		delete(l.documents, at)
		return metadata{}, at, fmt.Errorf("%s: issuer is %s, expected %s: %s",
			at, quote(found.Issuer), quote(l.issuer), issuerHint(found.Issuer, l.issuer))
	}
	return found, at, nil
}

// joinFaults writes faults on one line, the first five at most, because every refusal during an
// outage repeats them.
func joinFaults(faults []error) string {
	const limit = 5
	var texts []string
	for _, fault := range faults[:min(len(faults), limit)] {
		texts = append(texts, fault.Error())
	}
	if more := len(faults) - limit; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// checkURL checks a discovered URL. It allows https; http to a loopback host if the configured URL
// is http; and http to insecureHost.
func (l *locator) checkURL(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Host == "":
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && u.Host == l.insecureHost:
		return nil
	case u.Scheme == "http" && IsLoopback(u.Hostname()) && strings.HasPrefix(l.base(), "http:"):
		return nil
	}
	return errors.New("expected an https URL (http only for an issuer on a loopback host)")
}

// IsLoopback reports whether a host, as [url.URL.Hostname] returns it, is localhost, in 127.0.0.0/8
// or ::1. It does not resolve names. An address with a zone is not a loopback address.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

func issuerHint(received, expected string) string {
	if strings.TrimSuffix(received, "/") == strings.TrimSuffix(expected, "/") {
		return "they differ by a trailing slash; configure the issuer exactly as its metadata " +
			"names it"
	}
	return "configure the issuer exactly as its metadata names it"
}

// statusError is the error for a response whose status is not 200.
type statusError struct {
	at     string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: status is %d, expected 200 (redirects are not followed)", e.at,
		e.status)
}

// get fetches a JSON document of at most maxSetBytes, without redirects. If it has not changed (RFC
// 9110 §13), get returns the previous document with the new header.
func (l *locator) get(ctx context.Context, at string) (document, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return document{}, err
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	before, known := l.documents[at]
	if before.etag != "" {
		request.Header.Set("If-None-Match", before.etag)
	} else if before.lastModified != "" {
		request.Header.Set("If-Modified-Since", before.lastModified)
	}
	response, err := l.client.Do(request)
	if err != nil {
		return document{}, err
	}
	defer response.Body.Close()
	if known && response.StatusCode == http.StatusNotModified {
		before.header = response.Header
		return before, nil
	}
	body, err := readJSON(response, at)
	if err != nil {
		return document{}, err
	}
	got := document{
		body: body, header: response.Header,
		etag: response.Header.Get("ETag"), lastModified: response.Header.Get("Last-Modified"),
	}
	delete(l.documents, at)
	if got.validates() {
		if len(l.documents) >= maxDocuments {
			clear(l.documents) // remove URLs that are no longer used
		}
		l.documents[at] = got
	}
	return got, nil
}

// maxDocuments covers the metadata and the key set, before and after their URLs change.
const maxDocuments = 4

// readJSON reads the JSON document of a response.
func readJSON(response *http.Response, at string) ([]byte, error) {
	if response.StatusCode != http.StatusOK {
		return nil, &statusError{at, response.StatusCode}
	}
	contentType := response.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return nil, fmt.Errorf("%s: Content-Type is %s, expected JSON", at, quote(contentType))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSetBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if len(body) > maxSetBytes {
		return nil, fmt.Errorf("%s: the response exceeds the limit of %d bytes", at, maxSetBytes)
	}
	return body, nil
}

// clamp returns how long a set is fresh, by its Cache-Control (RFC 9111 §5.2.2) and within the
// policy's bounds.
func (p KeyPolicy) clamp(header http.Header) time.Duration {
	age := p.MaxAge
	for directive := range strings.SplitSeq(
		strings.ToLower(strings.Join(header.Values("Cache-Control"), ",")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "max-age":
			if n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31); err == nil {
				age = min(age, time.Duration(n)*time.Second)
			}
		case "no-store", "no-cache":
			age = 0
		}
	}
	return min(max(age, minMaxAge), p.MaxAge)
}
