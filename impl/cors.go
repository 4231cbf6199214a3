package impl

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
	"github.com/oasgate/oasgate/gen"
)

// preflightAge is how long a browser need not ask again. Browsers themselves cap it, some at two hours.
const preflightAge = 10 * time.Minute

// newCORS returns what lets pages of these origins, and no others, call what the document describes and read the
// answers (CORS, Fetch §3.3); nil if there are none. Its error joins all faults of the origins.
//
// It says what a browser may do, and nothing of what a request may: that remains the gate's. Credentials in the sense of
// Fetch, which the browser adds by itself (cookies, client certificates), are never allowed. A token is not one of them:
// the page has it, and sends it.
func newCORS(origins []string) (*cors.Cors, error) {
	if len(origins) == 0 {
		return nil, nil
	}
	var faults []error
	for _, origin := range origins {
		if err := CheckOrigin(origin); err != nil {
			faults = append(faults, fmt.Errorf("impl: Settings.CORSOrigins has %q: expected %w", origin, err))
		}
	}
	document, err := gen.GetSpec()
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return corsFor(document, origins), nil
}

func corsFor(document *openapi3.T, origins []string) *cors.Cors {
	// What browsers send without asking, and what the gate and the server read and write beyond the document.
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost}
	sent := []string{"Authorization", "Content-Type", "DPoP", requestIDHeader}
	exposed := []string{"DPoP-Nonce", "ETag", "Link", "Location", "Retry-After", "WWW-Authenticate", requestIDHeader}
	for _, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			methods = append(methods, method)
			for _, parameters := range []openapi3.Parameters{item.Parameters, operation.Parameters} {
				for _, p := range parameters {
					if p.Value.In == openapi3.ParameterInHeader {
						sent = append(sent, p.Value.Name)
					}
				}
			}
			for _, response := range operation.Responses.Map() {
				for name := range response.Value.Headers {
					exposed = append(exposed, name)
				}
			}
		}
	}
	return cors.New(cors.Options{
		AllowOriginFunc: func(origin string) bool { return slices.Contains(origins, origin) },
		AllowedMethods:  distinct(methods),
		AllowedHeaders:  distinct(sent),
		ExposedHeaders:  distinct(exposed),
		MaxAge:          int(preflightAge.Seconds()),
	})
}

// distinct sorts names of methods or headers, and leaves out those that are there twice.
func distinct(names []string) []string {
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	return slices.CompactFunc(names, strings.EqualFold)
}

// crossOrigin answers what a browser asks before a page of another origin may call (a preflight), which has no token and
// goes no further, and marks the other answers as ones that such a page may read, refusals too.
func (s *Server) crossOrigin(next http.Handler) http.Handler {
	if s.cors == nil {
		return next
	}
	marked := s.cors.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.guard.Load().gate.ServesMetadata(r.URL.Path): // open to all origins, by itself
			next.ServeHTTP(w, r)
		case r.Header["Origin"] == nil: // no browser asks (Fetch §3.2), and OPTIONS is a method like others
			w.Header().Add("Vary", "Origin")
			next.ServeHTTP(w, r)
		default:
			marked.ServeHTTP(w, r)
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" && w.Header().Get("Access-Control-Allow-Origin") == "" {
				exchangeOf(r).err = errors.New("preflight: no page of this origin may send a request with this method and these headers: see OASGATE_CORS_ORIGINS, and the operation's parameters in the document")
			}
		}
	})
}

// originForm is an origin as browsers write it (RFC 6454 §6.2), so that to be equal is to be the same.
var originForm = regexp.MustCompile(`^https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`)

// CheckOrigin returns what is expected instead of an origin whose pages cannot be let in, or may not be.
//
// There is no `*`. A token would still be needed, but an API in a private network, or of this machine alone, would have
// what it answers without one read by whatever page somebody in there opens.
func CheckOrigin(given string) error {
	host := originForm.FindStringSubmatch(given)
	switch {
	case given == "null":
		return errors.New("the origin of a page, not null, which is that of every sandboxed frame and of every file")
	case strings.Contains(given, "*"):
		return errors.New("each origin by itself, for with * there is no telling whose pages call")
	case host == nil:
		return errors.New("an origin as browsers send it: scheme, host, in lower case, and port, such as https://app.example.com or http://localhost:3000, with no slash at the end")
	case strings.HasPrefix(given, "https:") && host[2] == ":443", strings.HasPrefix(given, "http:") && host[2] == ":80":
		return fmt.Errorf("it without %s, which browsers leave out, for it is the scheme's own", host[2])
	case strings.HasPrefix(given, "http:") && !token.IsLoopback(strings.Trim(host[1], "[]")):
		return errors.New("https: http is for loopback hosts only, for whoever is on the way to the page can have it send what they like")
	}
	return nil
}
