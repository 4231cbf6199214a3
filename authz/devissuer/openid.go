package devissuer

import "slices"

// The scopes of OpenID Connect Core 1.0 §3.1.2.1, §5.4 and §11 that this issuer answers itself.
const (
	openID        = "openid"
	profile       = "profile"
	email         = "email"
	offlineAccess = "offline_access"
)

// openIDScopes may be asked for by every client that signs people in.
func openIDScopes() []string { return []string{openID, profile, email, offlineAccess} }

// idToken tells the client who signed in (OpenID Connect Core 1.0 §2). It is for the client alone:
// its audience is the client, which is never that of an API. What profile and email ask for stands
// in it, as there is no UserInfo endpoint.
func (i *Issuer) idToken(g grant, scopes []string, nonce, accessToken string) string {
	key, now := i.signingKey(), i.cfg.Now().Unix()
	hash := key.hash().New()
	hash.Write([]byte(accessToken))
	claims := map[string]any{
		"iss":       i.cfg.URL,
		"sub":       g.person,
		"aud":       g.client,
		"iat":       now,
		"exp":       now + i.lifetime(),
		"auth_time": g.signedIn.Unix(),
		"at_hash":   segment(hash.Sum(nil)[:hash.Size()/2]), // §3.1.3.6
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if slices.Contains(scopes, profile) {
		claims["name"] = g.person
	}
	if slices.Contains(scopes, email) {
		claims["email"] = g.person + "@people.example" // of a domain that nobody has (RFC 2606 §2)
	}
	return key.token(map[string]any{"typ": "JWT"}, claims)
}
