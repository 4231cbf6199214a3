package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Principal is the subject and the client of a genuine token, with its scopes and claims. It is
// immutable.
type Principal struct {
	issuer, subject, clientID string
	scopes                    []string
	expiry                    time.Time
	claims                    []byte
	act                       jsontext.Value // of claims; may be nil
	issuerConfig              *Issuer        // for ScopesToRequest; may be nil
}

// PrincipalConfig is the argument of [NewPrincipal].
type PrincipalConfig struct {
	Issuer, Subject, ClientID string
	Scopes                    []string
	Expiry                    time.Time
	Claims                    map[string]any // read by [Claim]
}

// NewPrincipal returns a principal without a token, for other kinds of credentials and for tests of
// handlers. It fails if the claims cannot be encoded as JSON.
func NewPrincipal(config PrincipalConfig) (*Principal, error) {
	claims := config.Claims
	if claims == nil {
		claims = map[string]any{}
	}
	raw, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("token: the claims of a principal: %w", err)
	}
	act, _ := lookup(raw, "/act")
	return &Principal{
		act: act, issuer: config.Issuer, subject: config.Subject, clientID: config.ClientID,
		scopes: slices.Clone(config.Scopes), expiry: config.Expiry, claims: raw,
	}, nil
}

// Issuer returns the issuer that vouches for the principal: iss.
func (p *Principal) Issuer() string { return p.issuer }

// Subject returns sub. It is unique only together with the issuer (RFC 7519 §4.1.2). With
// [Issuer.SubjectOptional] it may be empty, and must then not identify the owner of anything.
func (p *Principal) Subject() string { return p.subject }

// ClientID returns the client that the token was issued to, or "": the claim named by
// [Issuer.ClientClaim], or client_id (RFC 9068 §2.2), or azp.
func (p *Principal) ClientID() string { return p.clientID }

// Scopes returns the scopes that the token grants.
func (p *Principal) Scopes() []string { return slices.Clone(p.scopes) }

// HasScope reports whether the token grants the scope: exactly, case-sensitively (RFC 6749 §3.3).
func (p *Principal) HasScope(scope string) bool { return slices.Contains(p.scopes, scope) }

// Expiry returns exp, without leeway.
func (p *Principal) Expiry() time.Time { return p.expiry }

// Actor is the party that acts for the subject (RFC 8693 §4.1). Prior actors, at /act/act, are
// informational only: read them with [Claim].
type Actor struct{ Issuer, Subject, ClientID string }

// Actor returns act, and reports whether the token has it.
func (p *Principal) Actor() (Actor, bool) {
	if p.act == nil {
		return Actor{}, false
	}
	text := func(name string) string {
		value, found := lookup(p.act, "/"+name)
		if !found {
			return ""
		}
		text, err := textOf(name, value)
		if err != nil {
			return ""
		}
		return string(text)
	}
	return Actor{Issuer: text("iss"), Subject: text("sub"), ClientID: text("client_id")}, true
}

// ErrNoClaim is wrapped by the error of [Claim] if the token does not have the claim.
var ErrNoClaim = errors.New("token: no such claim")

// Claim reads any claim of the principal's token by JSON pointer (RFC 6901), through objects:
//
//	email, err := token.Claim[string](p, "/email")
//
// It fails with [ErrNoClaim] if the claim is absent or null, and with another error if it is not a
// T. The issuer may not have verified the value, such as an email address.
func Claim[T any](p *Principal, pointer string) (T, error) {
	var v T
	if pointer != "" && !isPointer(pointer) {
		return v, fmt.Errorf("token: claim %q: expected a JSON pointer (RFC 6901) such as /email",
			pointer)
	}
	value, found := lookup(p.claims, pointer)
	// Decoding null would return the zero value of T.
	if !found || value.Kind() == 'n' {
		return v, fmt.Errorf("%w: %s", ErrNoClaim, pointer)
	}
	if err := decode(value, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("token: claim %s is not a %T", pointer, v)
	}
	return v, nil
}

// ContextKey is the context key of the principal, for custom implementations of [context.Context];
// see [NewContext].
type ContextKey struct{}

// NewContext returns a context that carries the principal.
func NewContext(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, ContextKey{}, p)
}

// FromContext returns the principal of a request that was authenticated by a token. Requests to
// public operations have none.
func FromContext(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(ContextKey{}).(*Principal)
	return p, ok
}
