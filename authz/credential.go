package authz

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// errNoCredential: the request carries no bearer token. Not a refusal yet: an optional operation goes on.
var errNoCredential = errors.New("no bearer token")

// credential reads the access token of a request from its Authorization header (RFC 6750 §2.1), and from nowhere
// else: a token in the query, a form, a cookie or another header is as if absent.
func credential(r *http.Request) (string, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		return "", errNoCredential
	}
	if len(headers) > 1 {
		return "", refusal(InvalidRequest, "There is more than one Authorization header.")
	}
	const scheme = "Bearer" // case-insensitive (RFC 9110 §11.1)
	value := headers[0]
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", errNoCredential
	}
	rest := value[len(scheme):]
	token := strings.TrimLeft(rest, " ")
	switch {
	case rest != "" && rest[0] == '\t':
		return "", refusal(InvalidRequest, "A tab separates scheme and token; a space is expected.")
	case rest != "" && rest[0] != ' ':
		return "", errNoCredential // another scheme, whose name begins like this one
	case token == "":
		return "", refusal(InvalidRequest, "The Authorization header says Bearer and holds no token.")
	case strings.ContainsAny(token, " \t,"):
		return "", refusal(InvalidRequest, "The Authorization header holds more than one token.")
	case hasQueryToken(r.URL.RawQuery):
		return "", refusal(InvalidRequest, "There is a token in the Authorization header and one in the query.")
	}
	return token, nil
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
