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

// locator finds an issuer's keys. It is used by one fetch at a time.
type locator struct {
	issuer       string // that the metadata must name
	discoveryURL string // "": below issuer
	jwksURI      string // "": as the metadata says
	keyless      bool   // the issuer may have no keys: its tokens are opaque
	// the one host to which http is allowed though it is not this machine; "": none
	insecureHost string
	client       *http.Client
	log          *slog.Logger

	// answers are the last good answers with a validator (RFC 9110 §8.8), by URL: the next request
	// asks only for what has changed.
	answers map[string]answer
}

// answer is a JSON document, and how it came.
type answer struct {
	body               []byte
	header             http.Header
	etag, lastModified string
}

// validates reports whether the next request for the document can be conditional.
func (a answer) validates() bool { return a.etag != "" || a.lastModified != "" }

// newLocator returns the locator of an issuer that is complete.
func newLocator(i *Issuer, client *http.Client, log *slog.Logger) *locator {
	l := &locator{
		issuer: i.URL, discoveryURL: i.DiscoveryURL, jwksURI: i.JWKSURI, client: client, log: log,
		answers: map[string]answer{}, keyless: i.Introspection.Opaque,
	}
	if i.InsecureHTTP {
		if u, err := url.Parse(l.base()); err == nil && u.Scheme == "http" {
			l.insecureHost = u.Host
		}
	}
	return l
}

// base is the configured URL from which all the others follow.
func (l *locator) base() string {
	return cmp.Or(l.jwksURI, l.discoveryURL, l.issuer)
}

// samePlace reports whether another locator looks in the same place.
func (l *locator) samePlace(other *locator) bool {
	return l.discoveryURL == other.discoveryURL && l.jwksURI == other.jwksURI &&
		l.insecureHost == other.insecureHost
}

// metadata is what an issuer says of itself (OpenID Connect Discovery 1.0 §3, RFC 8414 §2), as far
// as it matters here.
type metadata struct {
	Issuer        string `json:"issuer"`
	JWKSURI       string `json:"jwks_uri"`
	Introspection string `json:"introspection_endpoint"`

	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
}

// fetch gets the keys, and says how long they are fresh by the issuer's Cache-Control.
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
		if err := l.mayFetch(found.JWKSURI); err != nil {
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
		delete(l.answers, at) // the next answer must be a whole one
		return nil, 0, fmt.Errorf("%s: %s", at, listed(append([]error{err}, dropped...)))
	}
	if dropped != nil {
		l.log.Warn("keys left out", "issuer", l.issuer, "keys", listed(dropped))
	}
	set.validates = got.validates()
	return set, policy.clamp(got.header), nil
}

// errNoMetadata: the issuer answers that it has no metadata, which is no outage.
var errNoMetadata = errors.New("the issuer has no metadata")

// discover gets the issuer's metadata, and says where it was. Below an issuer's URL it is at the
// place of OpenID Connect Discovery 1.0 §4 or, if there is nothing, at that of RFC 8414 §3.1.
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
		delete(l.answers, at)
		return metadata{}, at, fmt.Errorf("%s: expected a discovery document (a JSON object with "+
			"issuer and jwks_uri), received something else", at)
	}
	if found.Issuer != l.issuer {
		delete(l.answers, at)
		return metadata{}, at, fmt.Errorf("%s: issuer is %s, expected %s: %s",
			at, quote(found.Issuer), quote(l.issuer), issuerHint(found.Issuer, l.issuer))
	}
	return found, at, nil
}

// listed writes faults on one line, and not all where there are many: they stand in every refusal
// of an outage.
func listed(faults []error) string {
	const most = 5
	var texts []string
	for _, fault := range faults[:min(len(faults), most)] {
		texts = append(texts, fault.Error())
	}
	if more := len(faults) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// mayFetch: what is discovered comes over https; over http from this machine alone, where what was
// configured is there too, or from the one host for which the configuration allows it.
func (l *locator) mayFetch(uri string) error {
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

// IsLoopback reports whether a host, as [url.URL.Hostname] gives it, is this machine: localhost,
// 127.0.0.0/8 or ::1. It goes by what is written and asks no resolver. An address with a zone is
// none: what it means differs by machine.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}

func issuerHint(received, expected string) string {
	if strings.TrimSuffix(received, "/") == strings.TrimSuffix(expected, "/") {
		return "they differ by a trailing slash only; configure it exactly as the issuer writes it"
	}
	return "configure the issuer exactly as it names itself"
}

// statusError is an answer of another status than 200.
type statusError struct {
	at     string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: status is %d, expected 200 (redirects are not followed)", e.at,
		e.status)
}

// get fetches a JSON document: 200 and JSON, or an error; no redirects, and no more than
// maxSetBytes once decoded. A document that has not changed (RFC 9110 §13) is the one that came
// before.
func (l *locator) get(ctx context.Context, at string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Accept", "application/json, application/jwk-set+json")
	before, known := l.answers[at]
	if before.etag != "" {
		request.Header.Set("If-None-Match", before.etag)
	} else if before.lastModified != "" {
		request.Header.Set("If-Modified-Since", before.lastModified)
	}
	response, err := l.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	if known && response.StatusCode == http.StatusNotModified {
		before.header = response.Header
		return before, nil
	}
	body, err := readJSON(response, at)
	if err != nil {
		return answer{}, err
	}
	got := answer{
		body: body, header: response.Header,
		etag: response.Header.Get("ETag"), lastModified: response.Header.Get("Last-Modified"),
	}
	delete(l.answers, at)
	if got.validates() {
		if len(l.answers) >= mostAnswers {
			clear(l.answers) // of places where the keys are no longer
		}
		l.answers[at] = got
	}
	return got, nil
}

// mostAnswers is more than there are places: the metadata, the key set, and these before a move.
const mostAnswers = 4

// readJSON reads the answer to a request for a JSON document.
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
		return nil, fmt.Errorf("%s: more than the %d bytes that are read", at, maxSetBytes)
	}
	return body, nil
}

// clamp returns how long a set is fresh, by its Cache-Control (RFC 9111 §5.2.2) within the policy's
// bounds.
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
	return min(max(age, leastMaxAge), p.MaxAge)
}
