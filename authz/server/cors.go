package server

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/rs/cors"

	"github.com/oasgate/oasgate/authz/token"
)

// preflightAge is how long browsers cache a preflight.
const preflightAge = 10 * time.Minute

// crossOrigin allows pages of the configured origins, and no others, to call the operations of the
// document and to read the responses (CORS, Fetch §3.3).
//
// CORS only restricts browsers; the gate decides about requests. Credentials in the sense of Fetch,
// which are those that the browser adds (cookies, client certificates), are never allowed. A token
// is not one of them, because the page itself sends it.
type crossOrigin struct{ cors *cors.Cors }

// newCORS returns a crossOrigin, or nil if there are no origins.
func newCORS(document *openapi3.T, origins []string) *crossOrigin {
	if len(origins) == 0 {
		return nil
	}
	// In addition to the document: the methods that browsers allow without a preflight, and the
	// headers that the gate and the server read and write.
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost}
	allowed := []string{"Authorization", "Content-Type", "DPoP", requestIDHeader}
	exposed := []string{
		"DPoP-Nonce", "ETag", "Link", "Location", "Retry-After", "WWW-Authenticate",
		requestIDHeader,
	}
	for _, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			methods = append(methods, method)
			for _, p := range slices.Concat(item.Parameters, operation.Parameters) {
				if p.Value.In == openapi3.ParameterInHeader {
					allowed = append(allowed, p.Value.Name)
				}
			}
			for _, response := range operation.Responses.Map() {
				for name := range response.Value.Headers {
					exposed = append(exposed, name)
				}
			}
		}
	}
	return &crossOrigin{cors.New(cors.Options{
		AllowOriginFunc: func(origin string) bool { return slices.Contains(origins, origin) },
		AllowedMethods:  distinct(methods),
		AllowedHeaders:  distinct(allowed),
		ExposedHeaders:  distinct(exposed),
		MaxAge:          int(preflightAge.Seconds()),
	})}
}

// distinct sorts names of methods or headers, and removes duplicates.
func distinct(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.ToLower(a), strings.ToLower(b))
	})
	return slices.CompactFunc(names, strings.EqualFold)
}

var errPreflightRefused = errors.New(
	"preflight refused: the origin, the method or a header is not " +
		"allowed: check the CORS origins of the configuration and the parameters of the operation",
)

// handle responds to a preflight and returns true. For other requests it returns false, and sets
// the headers that tell the browser whether the page can read the response, even if it is an error.
func (c *crossOrigin) handle(x *exchange, r *http.Request) bool {
	switch {
	case c == nil:
		return false
	case r.Header["Origin"] == nil: // same origin, or not a browser (Fetch §3.2)
		x.Header().Add("Vary", "Origin")
		return false
	}
	c.cors.HandlerFunc(x, r)
	preflight := r.Method == http.MethodOptions &&
		r.Header.Get("Access-Control-Request-Method") != ""
	if preflight && x.Header().Get("Access-Control-Allow-Origin") == "" {
		x.Cause = errPreflightRefused
	}
	return preflight
}

// checkOrigins returns the faults of CORSOrigins.
func checkOrigins(origins []string) (faults []error) {
	for _, origin := range origins {
		if err := CheckOrigin(origin); err != nil {
			err = fmt.Errorf("server: Config.CORSOrigins has %q: expected %w", origin, err)
			faults = append(faults, err)
		}
	}
	return faults
}

// originForm matches origins as browsers send them (RFC 6454 §6.2), which can be compared as
// strings.
var originForm = regexp.MustCompile(`^https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`)

// CheckOrigin returns an error if an origin cannot be allowed. The error describes what is
// expected.
//
// The wildcard * is not accepted. Pages of any origin would still need a token, but they could read
// the public operations of an API in a private network.
func CheckOrigin(given string) error {
	host := originForm.FindStringSubmatch(given)
	switch {
	case given == "null":
		return errors.New("an origin other than null, which all sandboxed frames and local files " +
			"share")
	case strings.Contains(given, "*"):
		return errors.New("a list of origins without wildcards")
	case host == nil:
		return errors.New(
			"an origin as browsers send it, in lower case and without a slash at the " +
				"end, such as https://app.example.com or http://localhost:3000",
		)
	case strings.HasPrefix(given, "https:") && host[2] == ":443",
		strings.HasPrefix(given, "http:") && host[2] == ":80":
		return fmt.Errorf("the origin without %s, because browsers omit the default port", host[2])
	case strings.HasPrefix(given, "http:") && !token.IsLoopback(strings.Trim(host[1], "[]")):
		return errors.New("https: http is allowed for loopback hosts only, because anyone on the " +
			"network path could change the page")
	}
	return nil
}
