package authz

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/oasgate/oasgate/authz/token"
)

// errNoCredential means that the request has no credential of the scheme. Another alternative may
// still admit it.
var errNoCredential = errors.New("no credential")

// The authentication schemes of access tokens (RFC 6750 §2.1, RFC 9449 §7.1), case-insensitive (RFC
// 9110 §11.1).
const (
	schemeBearer = "Bearer"
	schemeDPoP   = "DPoP"
)

// authenticate returns the principal of a request by one source. Its error is errNoCredential or an
// [*Error].
func (g *Gate) authenticate(
	r *http.Request, op *operation, from *source,
) (*token.Principal, error) {
	var principal *token.Principal
	var err error
	if from.authenticator == nil {
		return g.verify(r, op)
	}
	asked := bodiless(r)
	if from.scheme.spec.Type == "mutualTLS" {
		asked = g.certificates.within(asked)
	}
	principal, err = from.authenticator.Authenticate(asked, from.scheme.spec)
	refused, ofToken := errors.AsType[*token.Error](err)
	switch {
	case err == nil && principal != nil:
		return principal, nil
	case errors.Is(err, ErrAbsent):
		return nil, errNoCredential
	case ofToken &&
		(from.scheme.token ||
			kinds[kindOfToken(refused.Code)].status == http.StatusServiceUnavailable):
		return nil, refusalOf(refused, err)
	case errors.Is(err, ErrBadCredential) && from.scheme.token:
		return nil, &Error{Kind: InvalidToken, Err: err}
	case errors.Is(err, ErrBadCredential), ofToken:
		return nil, &Error{Kind: InvalidCredential, Err: err}
	case errors.Is(err, ErrUnavailable):
		return nil, &Error{Kind: CredentialsUnavailable, Err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, &Error{Kind: Timeout, Err: err}
	}
	return nil, &Error{
		Kind: Internal,
		Err: fmt.Errorf("the authenticator of %s returned neither a principal nor "+
			"an error of an Authenticator: %w", from.scheme.name, cmp.Or(err, errNoPrincipal)),
	}
}

var errNoPrincipal = errors.New("a nil principal without an error")

// verify reads the access token of a request and verifies it.
func (g *Gate) verify(r *http.Request, op *operation) (*token.Principal, error) {
	scheme, raw, err := credential(r, g.dpop != nil)
	if err != nil {
		return nil, err
	}
	var proof token.Proof
	if scheme == schemeDPoP {
		if proof, err = g.dpop.proof(r); err != nil {
			return nil, err
		}
	}
	var certificate *x509.Certificate
	if g.offer.MTLS {
		if certificate, _, err = g.certificates.find(r); err != nil {
			return nil, &Error{Kind: InvalidRequest, Err: err,
				Detail: "The proxy's header with the client certificate is malformed."}
		}
	}
	client := ""
	if g.offer.Resolve || g.offer.Opaque && strings.Count(raw, ".") != 2 { // not a JWT
		client = g.network(r, siteBits) // so that a site has one share
	}
	var principal *token.Principal
	switch ctx := r.Context(); {
	case certificate != nil || op.Introspect || client != "":
		presented := token.Presented{
			Token: raw, Certificate: certificate, Introspect: op.Introspect, Client: client,
		}
		if scheme == schemeDPoP {
			with := proof // escapes to the heap only here
			presented.Proof = &with
		}
		principal, err = g.verifier.(PresentedVerifier).VerifyPresented(ctx, presented)
	case scheme == schemeDPoP:
		principal, err = g.dpop.verifier.VerifyDPoP(ctx, raw, proof)
	default:
		principal, err = g.verifier.Verify(ctx, raw)
	}
	if err == nil && principal != nil {
		return principal, nil
	}
	if refused, ok := errors.AsType[*token.Error](err); ok {
		return nil, refusalOf(refused, err)
	}
	return nil, &Error{Kind: Internal,
		Err: fmt.Errorf("the verifier returned neither a principal nor a token.Error: %w", err)}
}

// refusalOf returns the refusal of a token.
func refusalOf(refused *token.Error, err error) *Error {
	e := &Error{Kind: kindOfToken(refused.Code), RetryAfter: refused.RetryAfter, Err: err}
	switch refused.Code {
	case token.IntrospectionUnavailable:
		e.Detail = "The token issuer cannot be reached to check the token. Try again later."
	case token.ProofLimit:
		e.Detail = "The subject of the token has sent too many DPoP proofs. Try again later."
	}
	return e
}

// credential reads the access token of a request from its Authorization header. It ignores tokens
// in the query, a form, a cookie or another header, and those of the DPoP scheme unless dpop.
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
		return "", "",
			refusal(InvalidRequest, "A tab separates scheme and token, expected a space.")
	case rest != "" && rest[0] != ' ':
		return "", "", errNoCredential // a scheme with this prefix
	case token == "":
		return "", "", refusal(InvalidRequest, "The Authorization header has no token after %s.",
			scheme)
	case strings.IndexByte(token, ' ') >= 0 || strings.IndexByte(token, '\t') >= 0 ||
		strings.IndexByte(token, ',') >= 0: // faster than ContainsAny
		return "", "", refusal(InvalidRequest, "The Authorization header has more than one token.")
	case hasQueryToken(r.URL.RawQuery):
		return "", "", refusal(InvalidRequest,
			"There is a token in the Authorization header and one in the query.")
	}
	return scheme, token, nil
}

func cutScheme(value, scheme string) (rest string, found bool) {
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	return value[len(scheme):], true
}

// hasQueryToken reports whether a query, well-formed or not, has access_token (RFC 6750 §2.3).
func hasQueryToken(query string) bool {
	if !strings.Contains(query, "access_token") && strings.IndexByte(query, '%') < 0 {
		return false // most queries
	}
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

// proof returns the DPoP proof of a request (RFC 9449 §7.1).
func (d *dpop) proof(r *http.Request) (token.Proof, error) {
	proofs := r.Header.Values("DPoP")
	if len(proofs) != 1 {
		return token.Proof{}, refusal(InvalidProof, "The request has %d DPoP headers: send one, "+
			"with a proof made for this request.", len(proofs))
	}
	return token.Proof{JWT: proofs[0], Method: r.Method,
		URL: d.base + strings.TrimPrefix(r.URL.EscapedPath(), d.basePath)}, nil
}

// kindOfToken maps the code of a token error to the kind that clients see.
func kindOfToken(code token.Code) Kind {
	switch code {
	case token.KeysUnavailable, token.KeyPending, token.IntrospectionUnavailable:
		return KeysUnavailable
	case token.InvalidProof, token.ProofReplayed:
		return InvalidProof
	case token.NonceRequired:
		return UseNonce
	case token.ProofLimit:
		return RateLimited
	case token.ReplaysUnavailable:
		return ReplaysUnavailable
	}
	return InvalidToken
}
