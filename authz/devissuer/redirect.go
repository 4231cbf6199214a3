package devissuer

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/oasgate/oasgate/authz/token"
)

// redirectsTo reports whether a redirect URI is registered for the client. URIs are compared
// exactly, except that the port of a loopback URI may be any (RFC 8252 §7.3, RFC 9700 §2.1).
func (c Client) redirectsTo(uri string) bool {
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool {
		return uri == registered || withoutPort(uri) != "" &&
			withoutPort(uri) == withoutPort(registered)
	})
}

// withoutPort removes the port from an http URI of a loopback host, and returns "" for any other
// URI. It does not parse the URI, so that the rest is compared exactly.
func withoutPort(uri string) string {
	for _, origin := range []string{"http://localhost", "http://127.0.0.1", "http://[::1]"} {
		rest, found := strings.CutPrefix(uri, origin)
		if !found {
			continue
		}
		if port, has := strings.CutPrefix(rest, ":"); has {
			rest = strings.TrimLeft(port, "0123456789")
			if digits := len(port) - len(rest); digits < 1 || digits > 5 {
				return ""
			}
		}
		return origin + rest
	}
	return ""
}

// redirectFault returns what is wrong with a configured redirect URI.
func redirectFault(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err != nil || !isVisible(uri) || strings.Contains(uri, " "):
		return fmt.Errorf("%q is not a URI", uri)
	case u.User != nil:
		return fmt.Errorf("%q has a user: remove it", u.Redacted())
	case strings.Contains(uri, "#"):
		return fmt.Errorf("%q has a fragment: remove it (RFC 6749 §3.1.2)", uri)
	case u.Scheme == "https" && u.Host != "", u.Scheme == "http" && token.IsLoopback(u.Hostname()),
		strings.Contains(u.Scheme, "."):
		return nil
	}
	return fmt.Errorf("%q must be https, http on a loopback host, or have a private-use scheme "+
		"such "+
		"as com.example.app:/ (RFC 8252 §7)", uri)
}

// redirection is the target of the response to an authorization request, after it was checked to be
// the client's.
type redirection struct{ uri, state, issuer string }

// answer redirects the browser with the parameters of a response, state and iss (RFC 9207). The
// status is 303, so that the browser does not post the form again (RFC 9700 §4.12).
func (to redirection) answer(w http.ResponseWriter, params url.Values) {
	params.Set("iss", to.issuer)
	if to.state != "" {
		params.Set("state", to.state)
	}
	separator := "?"
	if strings.Contains(to.uri, "?") {
		separator = "&" // the URI's own query stays (RFC 6749 §3.1.2)
	}
	w.Header().Set("Location", to.uri+separator+params.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

// refuse sends the error response of RFC 6749 §4.1.2.1.
func (to redirection) refuse(w http.ResponseWriter, refused *refusal) {
	to.answer(w, url.Values{"error": {refused.Code}, "error_description": {refused.Description}})
}

// formAction returns the sources for form-action besides 'self': browsers apply it to the redirects
// that follow the form as well, including the client's own. A client on a loopback host may
// redirect to another port.
func (to redirection) formAction() string {
	u, err := url.Parse(to.uri)
	switch {
	case err != nil:
		return ""
	case u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1"):
		return "http://localhost:* http://127.0.0.1:*"
	case u.Scheme == "https" &&
		strings.Trim(u.Host,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:") == "":
		return "https://" + u.Host
	}
	// a private-use scheme, or an address such as [::1], which a policy cannot name
	return u.Scheme + ":"
}
