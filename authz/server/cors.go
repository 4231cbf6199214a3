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

// preflightAge is how long a browser need not ask again. Some browsers cap it at two hours.
const preflightAge = 10 * time.Minute

// crossOrigin lets pages of the configured origins, and of no others, call what the document
// describes and read the answers (CORS, Fetch §3.3).
//
// It says what a browser may do. What a request may do remains the gate's decision. Credentials in
// the sense of Fetch, which the browser adds by itself (cookies, client certificates), are never
// allowed. A token is not one of them: the page has it, and sends it.
type crossOrigin struct{ cors *cors.Cors }

// newCORS returns nil if there are no origins.
func newCORS(document *openapi3.T, origins []string) *crossOrigin {
	if len(origins) == 0 {
		return nil
	}
	// What browsers send without asking, and what the gate and the server read and write beside the
	// document.
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost}
	sent := []string{"Authorization", "Content-Type", "DPoP", requestIDHeader}
	exposed := []string{
		"DPoP-Nonce", "ETag", "Link", "Location", "Retry-After", "WWW-Authenticate", requestIDHeader,
	}
	for _, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			methods = append(methods, method)
			for _, p := range slices.Concat(item.Parameters, operation.Parameters) {
				if p.Value.In == openapi3.ParameterInHeader {
					sent = append(sent, p.Value.Name)
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
		AllowedHeaders:  distinct(sent),
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

var errRefusedPreflight = errors.New("preflight refused: pages of this origin may not send this " +
	"method and these headers: see the CORS origins in the configuration, " +
	"and the operation's parameters in the document")

// answers answers a preflight, which a browser sends before a page of another origin may call, and
// reports whether it did. It marks all other answers, refusals too, as readable to such a page or
// not.
func (c *crossOrigin) answers(x *exchange, r *http.Request) bool {
	switch {
	case c == nil:
		return false
	case r.Header["Origin"] == nil: // not sent by a browser for a page (Fetch §3.2)
		x.Header().Add("Vary", "Origin")
		return false
	}
	c.cors.HandlerFunc(x, r)
	preflight := r.Method == http.MethodOptions &&
		r.Header.Get("Access-Control-Request-Method") != ""
	if preflight && x.Header().Get("Access-Control-Allow-Origin") == "" {
		x.Cause = errRefusedPreflight
	}
	return preflight
}

// checkOrigins returns the faults of a configuration's origins.
func checkOrigins(origins []string) (faults []error) {
	for _, origin := range origins {
		if err := CheckOrigin(origin); err != nil {
			err = fmt.Errorf("server: Config.CORSOrigins has %q: expected %w", origin, err)
			faults = append(faults, err)
		}
	}
	return faults
}

// originForm is an origin as browsers write it (RFC 6454 §6.2), so that origins can be compared as
// text.
var originForm = regexp.MustCompile(`^https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`)

// CheckOrigin returns what is expected instead of an origin that cannot be allowed, or must not be.
//
// There is no `*`. Pages would still need a token, but every page that somebody opens inside a
// private network could read what an API there answers without one.
func CheckOrigin(given string) error {
	host := originForm.FindStringSubmatch(given)
	switch {
	case given == "null":
		return errors.New("the origin of a page, not null, which is that of every sandboxed frame " +
			"and of every file")
	case strings.Contains(given, "*"):
		return errors.New("each origin by itself, for with * there is no telling whose pages call")
	case host == nil:
		return errors.New("an origin as browsers send it: scheme, host, in lower case, and port, " +
			"such as https://app.example.com or http://localhost:3000, with no slash at the end")
	case strings.HasPrefix(given, "https:") && host[2] == ":443",
		strings.HasPrefix(given, "http:") && host[2] == ":80":
		return fmt.Errorf(
			"it without %s, which browsers leave out, for it is the scheme's own", host[2])
	case strings.HasPrefix(given, "http:") && !token.IsLoopback(strings.Trim(host[1], "[]")):
		return errors.New("https: http is for loopback hosts only, for whoever is on the way " +
			"to the page can have it send what they like")
	}
	return nil
}
