package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// endpoint is the introspection endpoint of an issuer.
type endpoint struct {
	config  Introspection
	locator *locator
	client  *http.Client
	now     func() time.Time

	discovering sync.Mutex
	url         string // "": not known yet
	inBody      bool   // the credentials go into the body
	foundAt     time.Time
}

// maxIntrospectionBytes bounds a response.
const maxIntrospectionBytes = 64 << 10

// post sends the request (RFC 7662 §2.1) and returns the claims of the response, or nil if the
// token is not active. Its errors hold neither the token nor the credentials.
func (e *endpoint) post(ctx context.Context, token string) (*claims, error) {
	at, inBody, err := e.locate(ctx)
	if err != nil {
		return nil, err
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if inBody {
		form.Set("client_id", e.config.ClientID)
		form.Set("client_secret", e.config.ClientSecret)
	}
	content := strings.NewReader(form.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, content)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if !inBody { // encoded as in a form (RFC 6749 §2.3.1)
		id, secret := url.QueryEscape(e.config.ClientID), url.QueryEscape(e.config.ClientSecret)
		request.SetBasicAuth(id, secret)
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if err := e.checkHeader(response, at); err != nil {
		return nil, &answerError{err}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxIntrospectionBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at, err)
	}
	if len(body) > maxIntrospectionBytes {
		return nil, &answerError{fmt.Errorf("%s: the response exceeds the limit of %d bytes",
			at, maxIntrospectionBytes)}
	}
	return readAnswer(body)
}

// locate returns the URL, from the issuer's metadata if it is not configured.
func (e *endpoint) locate(ctx context.Context) (at string, inBody bool, err error) {
	if e.config.Endpoint != "" {
		return e.config.Endpoint, false, nil
	}
	e.discovering.Lock() // the locator is not safe for concurrent use
	defer e.discovering.Unlock()
	if e.url != "" && left(e.foundAt, e.now(), time.Hour) > 0 {
		return e.url, e.inBody, nil
	}
	found, from, err := e.locator.discover(ctx)
	if err == nil {
		if err = e.locator.checkURL(found.Introspection); err != nil {
			err = fmt.Errorf("%s: introspection_endpoint is %s: %w", from,
				quote(found.Introspection), err)
		}
	}
	if err != nil {
		return "", false, err
	}
	methods := found.IntrospectionAuth
	e.url, e.foundAt = found.Introspection, e.now()
	e.inBody = slices.Contains(methods, "client_secret_post") &&
		!slices.Contains(methods, "client_secret_basic")
	return e.url, e.inBody, nil
}

// checkHeader checks status and media type of a response.
func (e *endpoint) checkHeader(response *http.Response, at string) error {
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusBadRequest:
		return fmt.Errorf("%s: status is %d, expected 200: is the client %s with this secret "+
			"registered at the issuer?", at, response.StatusCode, quote(e.config.ClientID))
	default:
		return &statusError{at, response.StatusCode}
	}
	media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return fmt.Errorf("%s: Content-Type is %s, expected application/json (RFC 7662 §2.2)",
			at, quote(response.Header.Get("Content-Type")))
	}
	return nil
}

// answerError means that the issuer has answered, but not as RFC 7662 §2.2 says.
type answerError struct{ error }

func (e *answerError) Unwrap() error { return e.error }

// readAnswer parses a response (RFC 7662 §2.2), as strictly as claims. It returns nil if the token
// is not active, and an error only if the response is malformed.
func readAnswer(body []byte) (*claims, error) {
	var kind []byte
	var active jsontext.Kind
	err := eachMember(body, func(name []byte, value jsontext.Value) (err error) {
		switch string(name) {
		case "active":
			active = value.Kind()
		case "token_type":
			kind, err = textOf("token_type", value)
		}
		return err
	})
	if err == nil && active != 't' && active != 'f' {
		err = errors.New("active is not true or false")
	}
	if err != nil {
		return nil,
			&answerError{fmt.Errorf("the response does not conform to RFC 7662 §2.2: %w", err)}
	}
	isAccessToken := kind == nil || slices.ContainsFunc([]string{"Bearer", "DPoP", "access_token"},
		func(known string) bool { return strings.EqualFold(known, string(kind)) })
	if active == 'f' || !isAccessToken { // refresh tokens are active too
		return nil, nil
	}
	c, err := parseClaims(body)
	if err != nil {
		refused, _ := errors.AsType[*Error](err)
		return nil, &unreadableError{refused.Detail}
	}
	return &c, nil
}

// unreadableError means that a token is active but its claims cannot be read. Other tokens may be
// readable.
type unreadableError struct{ detail string }

func (e *unreadableError) Error() string {
	return "the answer is not of RFC 7662 §2.2: " + e.detail
}
