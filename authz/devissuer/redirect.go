package devissuer

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/oasgate/oasgate/authz/token"
)

// redirectsTo says whether a redirect URI is one of the client's: character for character, but that
// the port of one on this machine is free, as an app takes whichever it gets (RFC 8252 §7.3, RFC
// 9700 §2.1).
func (c Client) redirectsTo(uri string) bool {
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool {
		return uri == registered || withoutPort(uri) != "" &&
			withoutPort(uri) == withoutPort(registered)
	})
}

// withoutPort takes the port, if there is one, out of an http URI of this machine, and returns ""
// for any other. It takes the text apart and does not parse it: whatever a parser would make of the
// rest, it must be what was registered.
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

// redirectFault says what is wrong with a redirect URI of the configuration.
func redirectFault(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err != nil || !isVisible(uri) || strings.Contains(uri, " "):
		return fmt.Errorf("%q is not a URI", uri)
	case u.User != nil:
		return fmt.Errorf("%q has a user, which no app needs", u.Redacted())
	case strings.Contains(uri, "#"):
		return fmt.Errorf("%q has a fragment: it may have none (RFC 6749 §3.1.2)", uri)
	case u.Scheme == "https" && u.Host != "", u.Scheme == "http" && token.IsLoopback(u.Hostname()),
		strings.Contains(u.Scheme, "."):
		return nil
	}
	return fmt.Errorf("%q must be https, http on a loopback host, or of an app's own scheme such "+
		"as com.example.app:/ (RFC 8252 §7)", uri)
}

// A redirection is where the answer to an authorization request goes, once that is known to be the
// client's.
type redirection struct{ uri, state, issuer string }

// answer sends the browser back with the parameters of an answer, state, and who answers (RFC
// 9207). 303, so that the form which was posted here is posted to nobody else (RFC 9700 §4.12).
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

// refuse is the error answer of RFC 6749 §4.1.2.1.
func (to redirection) refuse(w http.ResponseWriter, refused *refusal) {
	to.answer(w, url.Values{"error": {refused.Code}, "error_description": {refused.Description}})
}

// follows lists, for form-action, where the browser may go once the form of the sign-in page is
// posted: browsers hold redirects to it as well, also those that follow at the client's. A client
// on this machine may send on to another port.
func (to redirection) follows() string {
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
	// an app's own; or an address such as [::1], for which a policy has no words
	return u.Scheme + ":"
}
