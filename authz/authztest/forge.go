package authztest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
)

// credential makes the Authorization headers of a case: a fixed header, or tokens derived from a
// genuine one. If there are several tokens, the response to each must be the same.
type credential struct {
	name   string // of a forgery
	needs  need
	header string
	scheme string // default Bearer
	make   func(f *forger, t *parsed) ([]string, error)
}

// need is a set of the fields of Tokens that a credential requires.
type need int

const (
	needsGenuine need = 1 << iota
	needsSign
	needsKeySet
	needsBound
	needsRevoke
	needsCertificateBound
)

var (
	noToken     = credential{}
	malformed   = credential{header: "Bearer authztest.not-a-token"}
	wrongScheme = credential{
		scheme: "Basic",
		make:   unchanged,
	} // a genuine token, for servers that skip the word before it
	genuine = credential{needs: needsGenuine, make: unchanged}
)

func unchanged(_ *forger, t *parsed) ([]string, error) { return []string{t.compact}, nil }

// forgeries are tokens that differ from a genuine one in one way, and must be refused for it.
var forgeries = []credential{
	{name: "alg_none", make: func(_ *forger, t *parsed) (all []string, err error) {
		for _, none := range []string{"none", "None", "NONE"} {
			// RFC 8725 §3.2; case is how filters are passed
			all = append(all, segment(with(t.header, "alg", none))+"."+segment(t.claims)+".")
		}
		return all, nil
	}},
	{name: "wrong_key", make: func(f *forger, t *parsed) ([]string, error) {
		attacker, err := f.attacker(t)
		if err != nil {
			return nil, err
		}
		return []string{attacker.Sign(t.header, t.claims)}, nil
	}},
	{name: "embedded_jwk", make: func(f *forger, t *parsed) ([]string, error) { // RFC 7515 §4.1.3
		attacker, err := f.attacker(t)
		if err != nil {
			return nil, err
		}
		key, err := publicKey(Issued(attacker).KeySet, "")
		if err != nil {
			return nil, err
		}
		return []string{attacker.Sign(with(t.header, "jwk", key.jwk), t.claims)}, nil
	}},
	{name: "hs256_with_public_key", needs: needsKeySet, make: hs256WithPublicKey},
	{
		name:  "tampered_payload",
		needs: needsGenuine,
		make: func(_ *forger, t *parsed) ([]string, error) {
			return []string{
				segment(
					t.header,
				) + "." + segment(
					with(t.claims, "sub", "somebody-else"),
				) + "." + t.signature,
			}, nil
		},
	},
	signed("expired", func(f *forger, t *parsed) (header, claims map[string]any) {
		ago := func(d time.Duration) int64 { return f.now().Add(-d).Unix() }
		claims = with(t.claims, "exp", ago(time.Hour))
		claims["iat"], claims["nbf"] = ago(2*time.Hour), ago(2*time.Hour)
		return t.header, claims
	}),
	signed("not_yet_valid", func(f *forger, t *parsed) (header, claims map[string]any) {
		claims = with(t.claims, "nbf", f.now().Add(time.Hour).Unix())
		claims["exp"] = f.now().Add(2 * time.Hour).Unix()
		return t.header, claims
	}),
	signed("wrong_issuer", func(_ *forger, t *parsed) (header, claims map[string]any) {
		return t.header, with(
			t.claims,
			"iss",
			fmt.Sprint(t.claims["iss"])+"x",
		) // a prefix comparison takes it
	}),
	signed("wrong_audience", func(_ *forger, t *parsed) (header, claims map[string]any) {
		return t.header, with(t.claims, "aud", "https://another-api.invalid/")
	}),
	signed("unknown_kid", func(_ *forger, t *parsed) (header, claims map[string]any) {
		return with(t.header, "kid", "authztest-unknown"), t.claims
	}),
	signed(
		"bound_as_bearer",
		func(_ *forger, t *parsed) (header, claims map[string]any) { // RFC 9449 §7.2
			thumbprint := sha256.Sum256([]byte("authztest"))
			return t.header, with(
				t.claims,
				"cnf",
				map[string]any{"jkt": base64.RawURLEncoding.EncodeToString(thumbprint[:])},
			)
		},
	),
}

// signed returns a forgery with a valid signature.
func signed(
	name string,
	change func(f *forger, t *parsed) (header, claims map[string]any),
) credential {
	return credential{
		name:  name,
		needs: needsGenuine | needsSign,
		make: func(f *forger, t *parsed) ([]string, error) {
			header, claims := change(f, t)
			return []string{f.tokens.Sign(header, claims)}, nil
		},
	}
}

// forger makes the tokens of a run.
type forger struct {
	tokens    Tokens
	now       func() time.Time
	attackers map[string]*devissuer.Issuer // by alg: anybody can be an issuer

	// The keys and certificates of the client, and of another client.
	key, otherKey                 ProofKey
	certificate, otherCertificate *tls.Certificate
}

// credentials returns the Authorization headers of a case, or why it must be skipped. The header ""
// means none.
func (f *forger) credentials(
	ctx context.Context,
	c Case,
) (headers []string, skip string, err error) {
	cred := c.credential
	if cred.make == nil {
		return []string{cred.header}, "", nil
	}
	if missing := cred.needs.missing(f.tokens); missing != nil {
		return nil, "needs " + strings.Join(missing, " and "), nil
	}
	base, err := f.base(ctx, c)
	if err == nil && cred.name != "" {
		err = base.opaque
	}
	if err == nil {
		headers, err = cred.make(f, base)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, err.Error(), nil
	}
	for i := range headers {
		headers[i] = cmp.Or(cred.scheme, "Bearer") + " " + headers[i]
	}
	return headers, "", err
}

func (n need) missing(t Tokens) (missing []string) {
	for _, part := range []struct {
		need need
		had  bool
		name string
	}{
		{needsGenuine, t.Genuine != nil, "Tokens.Genuine"},
		{needsSign, t.Sign != nil, "Tokens.Sign"},
		{needsKeySet, t.KeySet != nil, "Tokens.KeySet"},
		{needsBound, t.Bound != nil, "Tokens.Bound"},
		{needsRevoke, t.Revoke != nil, "Tokens.Revoke"},
		{needsCertificateBound, t.CertificateBound != nil,
			"Tokens.CertificateBound with Target.Handler or Target.Certificate"},
	} {
		if n&part.need != 0 && !part.had {
			missing = append(missing, part.name)
		}
	}
	return missing
}

// base returns a genuine token. Without a source of them, it returns a token that only looks
// genuine.
func (f *forger) base(ctx context.Context, c Case) (*parsed, error) {
	if c.credential.needs&needsBound != 0 {
		compact, err := f.tokens.Bound(ctx, c.Scopes, f.key)
		if err != nil {
			return nil, fmt.Errorf("no bound token with the scopes %q: %w", c.Scopes, err)
		}
		return parse(compact), nil
	}
	if c.credential.needs&needsCertificateBound != 0 {
		compact, err := f.tokens.CertificateBound(ctx, c.Scopes, f.certificate.Leaf)
		if err != nil {
			return nil, fmt.Errorf("no token with the scopes %q that is bound to a certificate: %w",
				c.Scopes, err)
		}
		return parse(compact), nil
	}
	if f.tokens.Genuine != nil {
		issue := f.tokens.Genuine
		if f.tokens.Sufficient != nil && c.Want != authz.InsufficientScope {
			issue = f.tokens.Sufficient
		}
		compact, err := issue(ctx, c.Scopes)
		if err != nil {
			return nil, fmt.Errorf("no token with the scopes %q: %w", c.Scopes, err)
		}
		return parse(compact), nil
	}
	attacker, err := f.issuer("ES256")
	if err != nil {
		return nil, err
	}
	claims := scopeClaim(c.Scopes)
	claims["iss"], claims["aud"] = f.tokens.Issuer, f.tokens.Audience
	return parse(attacker.Mint(claims)), nil
}

// attacker returns another issuer, with a key of the same type as the token's.
func (f *forger) attacker(t *parsed) (*devissuer.Issuer, error) {
	alg, _ := t.header["alg"].(string)
	return f.issuer(alg)
}

func (f *forger) issuer(alg string) (*devissuer.Issuer, error) {
	if f.attackers[alg] == nil {
		issuer, err := devissuer.New(
			devissuer.Config{
				URL:       "http://localhost/",
				Audiences: []string{"authztest"},
				Algorithm: alg,
				Now:       f.now,
			},
		)
		if err != nil {
			return nil, fmt.Errorf(
				"cannot create another key for the alg of the genuine token (%w): %w",
				err,
				errors.ErrUnsupported,
			)
		}
		f.attackers[alg] = issuer
	}
	return f.attackers[alg], nil
}

// parsed is a decoded token that can be modified and encoded again.
type parsed struct {
	compact, signature string
	header, claims     map[string]any
	opaque             error // why it is not a JWT, so that nothing can be forged from it
}

func parse(compact string) *parsed {
	t := &parsed{compact: compact}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		t.opaque = fmt.Errorf(
			"the genuine token is not a JWT (%d segments, expected 3): %w",
			len(parts),
			errors.ErrUnsupported,
		)
		return t
	}
	t.signature = parts[2]
	for i, into := range []*map[string]any{&t.header, &t.claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber() // keep numbers as they are
		if err != nil || d.Decode(into) != nil {
			t.opaque = fmt.Errorf(
				"the genuine token is not a JWT (segment %d is not a JSON object in base64url): %w",
				i+1,
				errors.ErrUnsupported,
			)
		}
	}
	return t
}

// with returns a copy of the members in which one is set.
func with(members map[string]any, name string, value any) map[string]any {
	changed := maps.Clone(members)
	changed[name] = value
	return changed
}

func segment(members map[string]any) string {
	b, err := json.Marshal(members)
	if err != nil {
		panic(fmt.Errorf("authztest: encoding claims: %w", err))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}
