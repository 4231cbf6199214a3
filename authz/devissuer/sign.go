package devissuer

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
)

// Mint makes a genuine token (RFC 9068 §2). It has iss, sub, aud (the first
// audience), iat, exp, jti and client_id (the first client, if there is one).
// claims override these and add to them; a nil value removes one.
//
// Mint, Sign and SignBytes panic on what cannot be encoded as JSON.
func (i *Issuer) Mint(claims map[string]any) string {
	client := "devissuer"
	if len(i.cfg.Clients) > 0 {
		client = i.cfg.Clients[0].ID
	}
	now := i.cfg.Now().Unix()
	return i.Sign(nil, merge(map[string]any{
		"iss":       i.cfg.URL,
		"sub":       client + clientSubject,
		"aud":       i.cfg.Audiences[0],
		"iat":       now,
		"exp":       now + i.lifetime(),
		"jti":       rand.Text(),
		"client_id": client,
	}, claims))
}

// Sign makes a token with exactly these claims. The header has alg and kid of the current key and
// typ at+jwt (RFC 9068 §2.1), which header overrides and adds to as in Mint. The signature always
// uses the key's own algorithm, so that a forged header can be tested with a valid signature.
func (i *Issuer) Sign(header, claims map[string]any) string {
	return i.signingKey().token(header, claims)
}

func (k *signingKey) token(header, claims map[string]any) string {
	return k.compact(
		encode(merge(map[string]any{"alg": k.alg, "kid": k.id, "typ": "at+jwt"}, header)),
		encode(claims),
	)
}

// SignBytes makes a token of exactly these bytes, JSON or not, signed with the current key.
func (i *Issuer) SignBytes(header, payload []byte) string {
	return i.signingKey().compact(header, payload)
}

// compact returns the compact serialization (RFC 7515 §7.1).
func (k *signingKey) compact(header, payload []byte) string {
	input := segment(header) + "." + segment(payload)
	signature, err := k.sign([]byte(input))
	if err != nil {
		// Impossible: the key was generated for this algorithm.
		panic(fmt.Errorf("devissuer: signing with %s: %w", k.alg, err))
	}
	return input + "." + segment(signature)
}

func merge(defaults, overrides map[string]any) map[string]any {
	maps.Copy(defaults, overrides)
	maps.DeleteFunc(defaults, func(_ string, value any) bool { return value == nil })
	return defaults
}

func encode(members map[string]any) []byte {
	if members == nil {
		members = map[string]any{}
	}
	b, err := json.Marshal(members)
	if err != nil {
		panic(fmt.Errorf("devissuer: cannot encode header or claims: %w", err))
	}
	return b
}
