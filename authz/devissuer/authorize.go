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

// The error codes of RFC 6749 §4.1.2.1 and OpenID Connect Core 1.0 §3.1.2.6, beside those of the
// token endpoint.
const (
	accessDenied            = "access_denied"
	unsupportedResponseType = "unsupported_response_type"
	loginRequired           = "login_required"
	requestNotSupported     = "request_not_supported"
	requestURINotSupported  = "request_uri_not_supported"
)

// serveAuthorize is the authorization endpoint (RFC 6749 §3.1): the sign-in page, which posts the
// request again with the person who was chosen, and the code. A fault goes back to the client,
// unless it is not known where that is: then it is shown here, for an endpoint that redirects
// anywhere is a phisher's (§4.1.2.1, §10.15).
func (i *Issuer) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	params, repeated, refused := readAuthorization(w, r)
	if refused != nil {
		i.showRefusal(w, refused)
		return
	}
	client, refused := i.whoAsks(params)
	if refused != nil {
		i.showRefusal(w, refused)
		return
	}
	back := redirection{uri: params["redirect_uri"], state: params["state"], issuer: i.cfg.URL}
	if repeated {
		back.refuse(w, refuse(invalidRequest, "a parameter is repeated: each may come once"))
		return
	}
	asked, refused := i.readRequest(client, params)
	if refused != nil {
		back.refuse(w, refused)
		return
	}
	person, cancelled := params["person"], params["cancel"] != ""
	if person == "" && !cancelled {
		i.showSignIn(w, asked, params, back)
		return
	}
	// Nothing here rests on a cookie; still nobody is signed in by another page's form.
	if err := new(http.CrossOriginProtection).Check(r); err != nil {
		i.showRefusal(w, &refusal{http.StatusForbidden, accessDenied,
			"the form was not sent by this issuer's own page"})
		return
	}
	if cancelled {
		back.refuse(w, refuse(accessDenied, "the person did not sign in"))
		return
	}
	n := slices.IndexFunc(i.cfg.People, func(p Person) bool { return p.Name == person })
	if n < 0 {
		i.showRefusal(w, refuse(invalidRequest, "there is no such person"))
		return
	}
	asked.person, asked.signedIn = person, i.cfg.Now()
	asked.scopes = i.cfg.People[n].granted(asked.scopes)
	back.answer(w, url.Values{"code": {i.grants.add(asked)}})
}

// readAuthorization reads the query, or the form that was posted (OpenID Connect Core 1.0
// §3.1.2.1). Parameters that come more than once are left out, and repeated says so: it is not
// known yet whom to tell.
func readAuthorization(w http.ResponseWriter,
	r *http.Request) (params map[string]string, repeated bool, refused *refusal) {
	raw := r.URL.RawQuery
	if r.Method == http.MethodPost {
		if raw != "" {
			return nil, false,
				refuse(invalidRequest,
					"the request has a query beside its body: parameters belong in one of them")
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
			return nil, false, refuse(invalidRequest, "the body could not be read to its end")
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
	if r.Method != http.MethodPost { // these are the page's own: a link signs nobody in
		form.Del("person")
		form.Del("cancel")
	}
	params, repeated = single(form)
	return params, repeated, nil
}

// whoAsks is the client, if the redirect URI is one of its own. It must be given also where there
// is but one, as OpenID Connect Core 1.0 §3.1.2.1 has it.
func (i *Issuer) whoAsks(params map[string]string) (Client, *refusal) {
	client, known := i.client(params["client_id"])
	switch {
	case params["client_id"] == "":
		return Client{}, refuse(invalidRequest, "client_id is missing, or repeated")
	case !known:
		return Client{}, refuse(invalidRequest, "client_id is unknown")
	case params["redirect_uri"] == "":
		return Client{}, refuse(invalidRequest, "redirect_uri is missing, or repeated")
	case !client.redirectsTo(params["redirect_uri"]):
		return Client{}, refuse(invalidRequest,
			"redirect_uri is not one of this client's, which are "+
				listed(client.RedirectURIs)+
				" (http on localhost, 127.0.0.1 and [::1] with any port)")
	}
	return client, nil
}

// readRequest reads what the client asks for into a grant that is nobody's yet (RFC 6749 §4.1.1).
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
			"response_type must be code, the only one of this issuer")
	case params["response_mode"] != "" && params["response_mode"] != "query":
		return grant{},
			refuse(invalidRequest, "response_mode must be query, the only one of this issuer")
	case params["code_challenge"] == "":
		return grant{},
			refuse(invalidRequest,
				"code_challenge is missing: every client must use PKCE (RFC 7636)")
	case params["code_challenge_method"] != "S256": // without it, it would be plain (§4.3)
		return grant{}, refuse(invalidRequest, "code_challenge_method must be S256")
	case !isSHA256(params["code_challenge"]):
		return grant{},
			refuse(invalidRequest, "code_challenge is not the unpadded base64url of a SHA-256 hash")
	case params["dpop_jkt"] != "" && !isSHA256(params["dpop_jkt"]):
		return grant{},
			refuse(invalidRequest, "dpop_jkt is not the unpadded base64url of a SHA-256 thumbprint")
	case len(prompts) > 1 && slices.Contains(prompts, "none"):
		return grant{}, refuse(invalidRequest, "prompt=none goes with no other prompt")
	}
	// Apps that know OAuth but not this issuer name no API: they mean the first.
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
				"nobody stays signed in at this issuer, so prompt=none cannot be met")
	}
	return grant{
		client: client.ID, clientName: client.name, audience: audience, scopes: scopes,
		nonce:       params["nonce"],
		redirectURI: params["redirect_uri"], challenge: params["code_challenge"],
		jkt: params["dpop_jkt"],
	}, nil
}

// granted are those of the scopes that the person may have. Fewer than were asked for is no fault:
// a client does not know who will sign in, and the answer tells it (RFC 6749 §3.3).
func (p Person) granted(asked []string) (granted []string) {
	for _, scope := range asked {
		if slices.Contains(p.Scopes, scope) || slices.Contains(openIDScopes(), scope) {
			granted = append(granted, scope)
		}
	}
	return granted
}

// isSHA256 says whether s can be a hash: 32 bytes, canonically encoded.
func isSHA256(s string) bool {
	b, err := base64.RawURLEncoding.DecodeString(s)
	// the decoder passes over newlines and loose bits
	return err == nil && len(b) == sha256.Size && segment(b) == s
}

// verifies is RFC 7636 §4.6 for S256, with the verifier's grammar of §4.1.
func verifies(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 ||
		strings.Trim(verifier,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~") != "" {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(segment(sum[:])), []byte(challenge)) == 1
}
