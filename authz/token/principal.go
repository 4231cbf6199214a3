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

// Principal is who a genuine token speaks for. It does not change, so it may be shared.
type Principal struct {
	issuer, subject, clientID string
	scopes                    []string
	expiry                    time.Time
	claims                    []byte
	act                       jsontext.Value // of claims, found in passing; nil: none
	namer                     *Issuer        // of scopes; nil: they have one name
}

// PrincipalConfig is what [NewPrincipal] makes a principal of.
type PrincipalConfig struct {
	Issuer, Subject, ClientID string
	Scopes                    []string
	Expiry                    time.Time
	Claims                    map[string]any // what [Claim] reads
}

// NewPrincipal makes a principal without a token: for those who come with another credential, and
// for tests of handlers. It fails where the claims cannot be written as JSON.
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

// Subject returns sub. It is unique only together with the issuer (RFC 7519 §4.1.2). It is empty
// where the issuer's tokens may have none ([Issuer.SubjectOptional]): nothing can then be owned by
// it.
func (p *Principal) Subject() string { return p.subject }

// ClientID returns the client that the token was issued to: client_id (RFC 9068 §2.2), or azp, or
// what the issuer's ClientClaim says, or "".
func (p *Principal) ClientID() string { return p.clientID }

// Scopes returns the scopes that the token grants.
func (p *Principal) Scopes() []string { return slices.Clone(p.scopes) }

// HasScope reports whether the token grants the scope: exactly, case-sensitively (RFC 6749 §3.3).
func (p *Principal) HasScope(scope string) bool { return slices.Contains(p.scopes, scope) }

// Expiry returns when the token ends: exp, without leeway.
func (p *Principal) Expiry() time.Time { return p.expiry }

// Actor is who acts for the subject, as the issuer says (RFC 8693 §4.1). Actors of actors are only
// told by [Claim], at /act/act: they are history, and count for nothing.
type Actor struct{ Issuer, Subject, ClientID string }

// Actor returns who acts for the subject: act. Without it the subject acts itself.
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

// ErrNoClaim is what [Claim] wraps when the token does not have the claim.
var ErrNoClaim = errors.New("token: no such claim")

// Claim reads any claim of the principal's token by JSON pointer (RFC 6901), through objects:
//
//	email, err := token.Claim[string](p, "/email")
//
// It fails with [ErrNoClaim] when there is none or it is null, and with another error when the
// claim is not a T. A claim is the issuer's word; whether the issuer checked it (an email address,
// say) is for the caller to know.
func Claim[T any](p *Principal, pointer string) (T, error) {
	var v T
	if pointer != "" && !isPointer(pointer) {
		return v, fmt.Errorf("token: claim %q: expected a JSON pointer (RFC 6901) such as /email",
			pointer)
	}
	value, found := lookup(p.claims, pointer)
	// json leaves a T as it is at null: an empty string, or false, that nobody said
	if !found || value.Kind() == 'n' {
		return v, fmt.Errorf("%w: %s", ErrNoClaim, pointer)
	}
	if err := decode(value, &v); err != nil {
		var zero T
		return zero, fmt.Errorf("token: claim %s is not a %T", pointer, v)
	}
	return v, nil
}

// ContextKey is the key to which a context that carries a principal answers with it. It is for
// those who write a context of their own; [NewContext] makes one.
type ContextKey struct{}

// NewContext returns a context that carries the principal.
func NewContext(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, ContextKey{}, p)
}

// FromContext returns the principal of a request that was let in with a token. A public operation
// has none, and an optional one may have none.
func FromContext(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(ContextKey{}).(*Principal)
	return p, ok
}
