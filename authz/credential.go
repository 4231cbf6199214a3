package authz

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// errNoCredential: the request carries no access token. Not a refusal yet: an optional operation goes on.
var errNoCredential = errors.New("no access token")

// The schemes by which a token is presented (RFC 6750 §2.1, RFC 9449 §7.1), case-insensitive (RFC 9110 §11.1).
const (
	schemeBearer = "Bearer"
	schemeDPoP   = "DPoP"
)

// credential reads the access token of a request from its Authorization header, and from nowhere else: a token in the
// query, a form, a cookie or another header is as if absent. So is one by the DPoP scheme where that is not offered.
func credential(r *http.Request, dpop bool) (scheme, token string, err error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return "", "", errNoCredential
	}
	if len(headers) > 1 {
		return "", "", refusal(InvalidRequest, "There is more than one Authorization header.")
	}
	rest, found := cutScheme(headers[0], schemeBearer)
	if scheme = schemeBearer; !found && dpop {
		rest, found = cutScheme(headers[0], schemeDPoP)
		scheme = schemeDPoP
	}
	if !found {
		return "", "", errNoCredential
	}
	token = strings.TrimLeft(rest, " ")
	switch {
	case rest != "" && rest[0] == '\t':
		return "", "", refusal(InvalidRequest, "A tab separates scheme and token; a space is expected.")
	case rest != "" && rest[0] != ' ':
		return "", "", errNoCredential // another scheme, whose name begins like this one
	case token == "":
		return "", "", refusal(InvalidRequest, "The Authorization header says %s and holds no token.", scheme)
	case strings.IndexByte(token, ' ') >= 0 || strings.IndexByte(token, '\t') >= 0 || strings.IndexByte(token, ',') >= 0: // faster than ContainsAny, on every request
		return "", "", refusal(InvalidRequest, "The Authorization header holds more than one token.")
	case hasQueryToken(r.URL.RawQuery):
		return "", "", refusal(InvalidRequest, "There is a token in the Authorization header and one in the query.")
	}
	return scheme, token, nil
}

func cutScheme(value, scheme string) (rest string, found bool) {
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	return value[len(scheme):], true
}

// hasQueryToken looks for the parameter of RFC 6750 §2.3. The query need not be well-formed yet.
func hasQueryToken(query string) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, _, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err == nil && name == "access_token" {
			return true
		}
	}
	return false
}
