package devissuer

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const maxTokenRequest = 64 << 10

// tokenResponse is the response of RFC 6749 §5.1.
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope,omitempty"`

	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"` // OpenID Connect Core 1.0 §3.1.3.3
}

// refusal is the error response of RFC 6749 §5.2. Its description never contains received text,
// other than what a DPoP proof says about its request, because a secret may be in any field by
// mistake.
type refusal struct {
	status      int
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

// The error codes of RFC 6749 §5.2, and of RFC 8707 §2.
const (
	invalidRequest       = "invalid_request"
	invalidClient        = "invalid_client"
	invalidGrant         = "invalid_grant"
	unauthorizedClient   = "unauthorized_client"
	unsupportedGrantType = "unsupported_grant_type"
	invalidScope         = "invalid_scope"
	invalidTarget        = "invalid_target"
)

// refuse returns a refusal with status 400, which §5.2 gives to all errors but two.
func refuse(code, description string) *refusal {
	return &refusal{http.StatusBadRequest, code, printable(description)}
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	answer, refused := i.issue(w, r)
	if refused != nil {
		refused.write(w)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// writeJSON writes a response that must not be cached (RFC 6749 §5.1).
func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func (refused *refusal) write(w http.ResponseWriter) {
	if refused.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="development issuer"`)
	}
	writeJSON(w, refused.status, refused)
}

// issue handles all grants. It authenticates the client first, so that others learn nothing about
// audiences and scopes.
func (i *Issuer) issue(w http.ResponseWriter, r *http.Request) (*tokenResponse, *refusal) {
	params, refusal := readParameters(w, r)
	if refusal != nil {
		return nil, refusal
	}
	client, refusal := i.authenticate(r, params)
	if refusal != nil {
		return nil, refusal
	}
	switch params["grant_type"] {
	case "client_credentials":
		return i.clientCredentials(r, client, params)
	case "authorization_code":
		return i.exchangeCode(r, client, params)
	case "refresh_token":
		return i.refresh(r, client, params)
	case "":
		return nil, refuse(invalidRequest, "grant_type is missing: it must be "+grantTypes)
	}
	return nil, refuse(unsupportedGrantType, "grant_type must be "+grantTypes)
}

const grantTypes = "client_credentials, authorization_code or refresh_token"

// clientCredentials implements RFC 6749 §4.4.
func (i *Issuer) clientCredentials(r *http.Request, client Client,
	params map[string]string) (*tokenResponse, *refusal) {
	if client.Secret == "" {
		return nil, refuse(unauthorizedClient, "a client without a secret cannot use this grant "+
			"(RFC 6749 §4.4): a person must sign in")
	}
	audience, refusal := i.target(params, "")
	if refusal != nil {
		return nil, refusal
	}
	scopes, refusal := i.scopesFor(client, params["scope"], nil)
	if refusal != nil {
		return nil, refusal
	}
	jkt, refusal := i.boundKey(r)
	if refusal != nil {
		return nil, refusal
	}
	return i.accessToken(map[string]any{
		"sub":       client.ID + clientSubject,
		"client_id": client.ID,
		"aud":       audience,
	}, strings.Join(scopes, " "), jkt), nil
}

// clientSubject ends the sub of every client and of no person (RFC 9068 §5).
const clientSubject = "@clients"

// accessToken makes a token and the response with it, bound to a key unless jkt is empty. The names
// of claims are constants, here and in Mint; only values are input.
func (i *Issuer) accessToken(claims map[string]any, scope, jkt string) *tokenResponse {
	if scope != "" {
		claims["scope"] = scope
	}
	tokenType := "Bearer"
	if jkt != "" {
		tokenType = "DPoP" // RFC 9449 §5
		claims["cnf"] = map[string]any{"jkt": jkt}
	}
	return &tokenResponse{AccessToken: i.Mint(claims), TokenType: tokenType,
		ExpiresIn: i.lifetime(), Scope: scope}
}

// target returns the API that the token is for: the parameter audience, or resource (RFC 8707 §2),
// or else implied.
func (i *Issuer) target(params map[string]string, implied string) (string, *refusal) {
	audience, resource := params["audience"], params["resource"]
	known := "this issuer knows " + strings.Join(i.cfg.Audiences, ", ")
	switch {
	case audience == "" && resource == "" && implied != "":
		return implied, nil
	case audience == "" && resource == "":
		return "", refuse(invalidRequest, "audience is missing: "+known)
	case audience != "" && resource != "" && audience != resource:
		return "", refuse(invalidTarget, "audience and resource differ: a token is for one API")
	}
	target := cmp.Or(audience, resource)
	if !slices.Contains(i.cfg.Audiences, target) {
		return "", refuse(invalidTarget, "audience is unknown: "+known)
	}
	return target, nil
}

// readParameters reads the body within its limit.
func readParameters(w http.ResponseWriter, r *http.Request) (map[string]string, *refusal) {
	if r.URL.RawQuery != "" {
		return nil, refuse(invalidRequest, "the request has a query: parameters belong in the "+
			"body, where logs do not show them")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTokenRequest))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &refusal{http.StatusRequestEntityTooLarge, invalidRequest,
			"the body is larger than 64 KiB"}
	}
	if err != nil {
		return nil, refuse(invalidRequest, "could not read the whole body")
	}
	return parseParameters(r.Header.Get("Content-Type"), body)
}

// parseParameters reads a form or a JSON object of strings. A repeated parameter is an error, and
// one without a value counts as omitted (RFC 6749 §3.2).
func parseParameters(contentType string, body []byte) (map[string]string, *refusal) {
	mediaType, _, _ := mime.ParseMediaType(contentType)
	switch mediaType {
	case "application/x-www-form-urlencoded":
		return parseForm(body)
	case "application/json":
		return parseJSON(body)
	default:
		return nil,
			refuse(invalidRequest,
				"Content-Type must be application/x-www-form-urlencoded or application/json")
	}
}

func parseForm(body []byte) (map[string]string, *refusal) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse(invalidRequest, "the body is not a well-formed form")
	}
	params, repeated := single(form)
	if repeated {
		return nil, refuse(invalidRequest, "a parameter is repeated: send each once")
	}
	return params, nil
}

// single returns the parameters that occur once, and whether others are repeated.
func single(form url.Values) (params map[string]string, repeated bool) {
	params = make(map[string]string)
	for name, values := range form {
		if len(values) == 1 {
			params[name] = values[0]
		} else {
			repeated = true
		}
	}
	return params, repeated
}

// parseJSON decodes member by member, because json.Unmarshal accepts duplicate names.
func parseJSON(body []byte) (map[string]string, *refusal) {
	if !json.Valid(body) {
		return nil, refuse(invalidRequest, "the body is not well-formed JSON")
	}
	members := json.NewDecoder(bytes.NewReader(body))
	if start, _ := members.Token(); start != json.Delim('{') {
		return nil, refuse(invalidRequest, "the body is not a JSON object")
	}
	params := make(map[string]string)
	for members.More() {
		key, _ := members.Token() // no errors: the body is valid JSON
		member, _ := members.Token()
		name, _ := key.(string)
		value, ok := member.(string)
		if !ok {
			return nil, refuse(invalidRequest, "every member of the JSON body must be a string")
		}
		if _, repeated := params[name]; repeated {
			return nil, refuse(invalidRequest, "a parameter is repeated: send each once")
		}
		params[name] = value
	}
	return params, nil
}

// authenticate finds the client by HTTP Basic or by its credentials in the body, never by both (RFC
// 6749 §2.3, §2.3.1). A public client has no secret and sends only its ID (§3.2.1).
func (i *Issuer) authenticate(r *http.Request, params map[string]string) (Client, *refusal) {
	id, secret := params["client_id"], params["client_secret"]
	headers := r.Header.Values("Authorization")
	// A client that used the header gets 401 and a challenge; any other gets 400, because a browser
	// opens a dialog for the challenge (RFC 6749 §5.2).
	unauthenticated := func(description string) (Client, *refusal) {
		refused := refuse(invalidClient, description)
		if len(headers) > 0 {
			refused.status = http.StatusUnauthorized
		}
		return Client{}, refused
	}
	switch {
	case len(headers) > 1:
		return Client{}, refuse(invalidRequest, "there is more than one Authorization header")
	case len(headers) == 1 && secret != "":
		return Client{}, refuse(
			invalidRequest,
			"the client authenticates twice: use either the Authorization header or client_secret "+
				"in the body",
		)
	case len(headers) == 1:
		basicID, basicSecret, ok := basicCredentials(r)
		if !ok {
			return unauthenticated(
				"the Authorization header is not HTTP Basic with a form-encoded client_id and " +
					"client_secret",
			)
		}
		if id != "" && id != basicID {
			return Client{}, refuse(
				invalidRequest,
				"client_id in the body differs from the Authorization header",
			)
		}
		id, secret = basicID, basicSecret
	}

	client, known := i.client(id)
	if id == "" || secret == "" && (!known || client.Secret != "") {
		return unauthenticated(
			"client_id or client_secret is missing: send both in the body or as HTTP Basic",
		)
	}
	if !known || !equalSecrets(client.Secret, secret) {
		return unauthenticated("client_id is unknown or client_secret is incorrect")
	}
	return client, nil
}

// basicCredentials decodes HTTP Basic (RFC 7617) and the form encoding inside it (RFC 6749 §2.3.1).
func basicCredentials(r *http.Request) (id, secret string, ok bool) {
	id, secret, ok = r.BasicAuth()
	if !ok {
		return "", "", false
	}
	id, errID := url.QueryUnescape(id)
	secret, errSecret := url.QueryUnescape(secret)
	return id, secret, errID == nil && errSecret == nil
}

// equalSecrets takes the same time for every guess. Hashing hides the length, which
// ConstantTimeCompare alone does not.
func equalSecrets(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// scopesFor returns the requested scopes or refuses. RFC 6749 §3.3 would allow granting fewer, but
// then the mistake shows only at the API. extra are scopes besides those of the client.
func (i *Issuer) scopesFor(client Client, requested string, extra []string) ([]string, *refusal) {
	if requested == "" {
		return client.Scopes, nil
	}
	var granted []string
	for scope := range strings.SplitSeq(requested, " ") {
		switch {
		case !isScopeToken(scope):
			return nil,
				refuse(invalidScope,
					"scope is malformed: it must be a list of scopes separated by single spaces")
		case slices.Contains(extra, scope):
		case !slices.Contains(i.cfg.Scopes, scope):
			return nil, refuse(invalidScope, "a requested scope is unknown (known: "+
				joinScopes(slices.Concat(i.cfg.Scopes, extra))+")")
		case !slices.Contains(client.Scopes, scope):
			return nil,
				refuse(invalidScope, "a requested scope is not allowed for this client (allowed: "+
					joinScopes(slices.Concat(client.Scopes, extra))+")")
		}
		if !slices.Contains(granted, scope) {
			granted = append(granted, scope)
		}
	}
	return granted, nil
}

func joinScopes(scopes []string) string {
	if len(scopes) == 0 {
		return "none"
	}
	return strings.Join(scopes, " ")
}

// isScopeToken checks the syntax of one scope (RFC 6749 §3.3).
func isScopeToken(s string) bool {
	return isVisible(s) && !strings.ContainsAny(s, " \"\\")
}

// isVisible reports whether s is 1*VSCHAR, printable ASCII (RFC 6749 appendix A).
func isVisible(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c > 0x7e })
}

// printable replaces what is not allowed in an error_description (RFC 6749 §5.2); a configured
// audience can contain any character.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return '?'
		}
		return c
	}, s)
}
