package devissuer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const maxAuthorizationRequest = 8 << 10

// The error codes of RFC 6749 §4.1.2.1 and OpenID Connect Core 1.0 §3.1.2.6 that the token endpoint
// does not share.
const (
	accessDenied            = "access_denied"
	unsupportedResponseType = "unsupported_response_type"
	loginRequired           = "login_required"
	requestNotSupported     = "request_not_supported"
	requestURINotSupported  = "request_uri_not_supported"
)

// serveAuthorize is the authorization endpoint (RFC 6749 §3.1). It shows the sign-in page, whose
// form posts the same request with the chosen person, and then redirects with a code. Errors are
// reported by redirect too. Errors in client_id and redirect_uri are shown here, because an
// endpoint that redirects to any URI helps phishers (§4.1.2.1, §10.15).
func (i *Issuer) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	params, repeated, refused := readAuthorization(w, r)
	if refused != nil {
		i.showRefusal(w, refused)
		return
	}
	client, refused := i.requestClient(params)
	if refused != nil {
		i.showRefusal(w, refused)
		return
	}
	back := redirection{uri: params["redirect_uri"], state: params["state"], issuer: i.cfg.URL}
	if repeated {
		back.refuse(w, refuse(invalidRequest, "a parameter is repeated: send each once"))
		return
	}
	g, refused := i.readRequest(client, params)
	if refused != nil {
		back.refuse(w, refused)
		return
	}
	person, cancelled := params["person"], params["cancel"] != ""
	if person == "" && !cancelled {
		i.showSignIn(w, g, params, back)
		return
	}
	// The endpoint uses no cookies, but another page's form must not sign anybody in either.
	if err := new(http.CrossOriginProtection).Check(r); err != nil {
		i.showRefusal(w, &refusal{http.StatusForbidden, accessDenied,
			"the form was not sent by this issuer's page"})
		return
	}
	if cancelled {
		back.refuse(w, refuse(accessDenied, "the person cancelled"))
		return
	}
	n := slices.IndexFunc(i.cfg.People, func(p Person) bool { return p.Name == person })
	if n < 0 {
		i.showRefusal(w, refuse(invalidRequest, "person is unknown"))
		return
	}
	g.person, g.signedIn = person, i.cfg.Now()
	g.scopes = i.cfg.People[n].filterScopes(g.scopes)
	back.answer(w, url.Values{"code": {i.grants.add(g)}})
}

// readAuthorization reads the parameters from the query or the posted form (OpenID Connect Core 1.0
// §3.1.2.1). It omits repeated parameters and reports them in repeated: the client can be told only
// once its redirect URI is known.
func readAuthorization(w http.ResponseWriter,
	r *http.Request) (params map[string]string, repeated bool, refused *refusal) {
	raw := r.URL.RawQuery
	if r.Method == http.MethodPost {
		if raw != "" {
			return nil, false,
				refuse(invalidRequest,
					"the request has both a query and a body: put all parameters into one of them")
		}
		if mediaType, _, _ := mime.ParseMediaType(
			r.Header.Get("Content-Type")); mediaType != "application/x-www-form-urlencoded" {
			return nil, false,
				refuse(invalidRequest, "Content-Type must be application/x-www-form-urlencoded")
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAuthorizationRequest))
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return nil, false, &refusal{http.StatusRequestEntityTooLarge, invalidRequest,
				"the request is larger than 8 KiB"}
		}
		if err != nil {
			return nil, false, refuse(invalidRequest, "could not read the whole body")
		}
		raw = string(body)
	}
	if len(raw) > maxAuthorizationRequest {
		return nil, false, &refusal{http.StatusRequestURITooLong, invalidRequest,
			"the request is larger than 8 KiB"}
	}
	form, err := url.ParseQuery(raw)
	if err != nil {
		return nil, false, refuse(invalidRequest, "the parameters are not well-formed")
	}
	// only the page's form sends these, so that no link signs anybody in
	if r.Method != http.MethodPost {
		form.Del("person")
		form.Del("cancel")
	}
	params, repeated = single(form)
	return params, repeated, nil
}

// requestClient returns the client of an authorization request after checking that the redirect URI
// is registered for it. The redirect URI is required even if the client has only one (OpenID
// Connect Core 1.0 §3.1.2.1).
func (i *Issuer) requestClient(params map[string]string) (Client, *refusal) {
	client, known := i.client(params["client_id"])
	switch {
	case params["client_id"] == "":
		return Client{}, refuse(invalidRequest, "client_id is missing or repeated")
	case !known:
		return Client{}, refuse(invalidRequest, "client_id is unknown")
	case params["redirect_uri"] == "":
		return Client{}, refuse(invalidRequest, "redirect_uri is missing or repeated")
	case !client.redirectsTo(params["redirect_uri"]):
		return Client{}, refuse(invalidRequest,
			"redirect_uri is not registered for this client: expected one of "+
				joinScopes(client.RedirectURIs)+
				" (http on localhost, 127.0.0.1 and [::1] with any port)")
	}
	return client, nil
}

// readRequest checks an authorization request and returns a grant without a person (RFC 6749
// §4.1.1).
func (i *Issuer) readRequest(client Client, params map[string]string) (grant, *refusal) {
	prompts := strings.Fields(params["prompt"])
	switch {
	case params["request"] != "":
		return grant{}, refuse(requestNotSupported, "request objects are not supported")
	case params["request_uri"] != "":
		return grant{}, refuse(requestURINotSupported, "request objects are not supported")
	case params["response_type"] == "":
		return grant{}, refuse(invalidRequest, "response_type is missing: it must be code")
	case params["response_type"] != "code":
		return grant{}, refuse(unsupportedResponseType,
			"response_type is not supported: it must be code")
	case params["response_mode"] != "" && params["response_mode"] != "query":
		return grant{},
			refuse(invalidRequest, "response_mode is not supported: it must be query")
	case params["code_challenge"] == "":
		return grant{},
			refuse(invalidRequest,
				"code_challenge is missing: every client must use PKCE (RFC 7636)")
	case params["code_challenge_method"] != "S256": // the default is plain (RFC 7636 §4.3)
		return grant{}, refuse(invalidRequest, "code_challenge_method must be S256")
	case !isSHA256(params["code_challenge"]):
		return grant{},
			refuse(invalidRequest, "code_challenge is not the unpadded base64url of a SHA-256 hash")
	case params["dpop_jkt"] != "" && !isSHA256(params["dpop_jkt"]):
		return grant{},
			refuse(invalidRequest, "dpop_jkt is not the unpadded base64url of a SHA-256 thumbprint")
	case len(prompts) > 1 && slices.Contains(prompts, "none"):
		return grant{}, refuse(invalidRequest, "prompt=none excludes other prompts")
	}
	// OpenID Connect clients send no audience; the first one is the default.
	audience, refused := i.target(params, i.cfg.Audiences[0])
	if refused != nil {
		return grant{}, refused
	}
	scopes, refused := i.scopesFor(client, params["scope"], openIDScopes())
	if refused != nil {
		return grant{}, refused
	}
	if slices.Contains(prompts, "none") {
		return grant{},
			refuse(loginRequired,
				"this issuer keeps no sessions, so prompt=none always fails")
	}
	return grant{
		client: client.ID, clientName: client.name, audience: audience, scopes: scopes,
		nonce:       params["nonce"],
		redirectURI: params["redirect_uri"], challenge: params["code_challenge"],
		jkt: params["dpop_jkt"],
	}, nil
}

// filterScopes returns the scopes that the person may grant. Granting fewer than requested is not
// an error: the client cannot know who signs in, and the response lists the scopes (RFC 6749 §3.3).
func (p Person) filterScopes(requested []string) (granted []string) {
	for _, scope := range requested {
		if slices.Contains(p.Scopes, scope) || slices.Contains(openIDScopes(), scope) {
			granted = append(granted, scope)
		}
	}
	return granted
}

// isSHA256 reports whether s encodes 32 bytes in canonical unpadded base64url.
func isSHA256(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	// DecodeString ignores newlines and trailing bits
	return err == nil && len(b) == sha256.Size && segment(b) == s
}

// verifies checks a PKCE code verifier: its syntax (RFC 7636 §4.1) and the S256 challenge (§4.6).
func verifies(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 ||
		strings.Trim(verifier,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") != "" {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(segment(sum[:])), []byte(challenge)) == 1
}
