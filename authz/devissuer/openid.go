package devissuer

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

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
	maps.Copy(claims, about(g.person, scopes))
	return key.token(map[string]any{"typ": "JWT"}, claims)
}

// about is what scopes let a client know of a person (OpenID Connect Core 1.0 §5.4).
func about(person string, scopes []string) map[string]any {
	claims := map[string]any{"sub": person}
	if slices.Contains(scopes, profile) {
		claims["name"] = person
	}
	if slices.Contains(scopes, email) {
		claims["email"] = person + "@people.example" // of a domain that nobody has (RFC 2606 §2)
	}
	return claims
}

// serveUserInfo says of the person what an access token lets its bearer know (OpenID Connect Core
// 1.0 §5.3). A token that is bound to a key is refused: it is not for bearers.
func (i *Issuer) serveUserInfo(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, challenge, code string) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="development issuer"`+challenge)
		writeJSON(w, status, map[string]string{"error": code})
	}
	raw, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !found || len(r.Header.Values("Authorization")) > 1 {
		refuse(http.StatusUnauthorized, "", "missing_token")
		return
	}
	claims := i.active(raw)
	if claims == nil || claims["cnf"] != nil {
		refuse(http.StatusUnauthorized, `, error="invalid_token"`, "invalid_token")
		return
	}
	scopes := i.tokens.scopes(claims["jti"])
	person, _ := claims["sub"].(string)
	if !slices.Contains(scopes, openID) {
		refuse(
			http.StatusForbidden,
			`, error="insufficient_scope", scope="openid"`,
			"insufficient_scope",
		)
		return
	}
	writeJSON(w, http.StatusOK, about(person, scopes))
}
