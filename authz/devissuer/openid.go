package devissuer

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// The scopes of OpenID Connect Core 1.0 §3.1.2.1, §5.4 and §11 that this issuer supports.
const (
	openID        = "openid"
	profile       = "profile"
	email         = "email"
	offlineAccess = "offline_access"
)

// openIDScopes returns the scopes that every client that signs people in may request.
func openIDScopes() []string { return []string{openID, profile, email, offlineAccess} }

// idToken makes the ID token (OpenID Connect Core 1.0 §2). Its audience is the client, which is
// never that of an API. It has the claims of profile and email as well.
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
	maps.Copy(claims, userClaims(g.person, scopes))
	return key.token(map[string]any{"typ": "JWT"}, claims)
}

// userClaims returns the claims about a person that scopes grant (OpenID Connect Core 1.0 §5.4).
func userClaims(person string, scopes []string) map[string]any {
	claims := map[string]any{"sub": person}
	if slices.Contains(scopes, profile) {
		claims["name"] = person
	}
	if slices.Contains(scopes, email) {
		claims["email"] = person + "@people.example" // a reserved domain (RFC 2606 §2)
	}
	return claims
}

// serveUserInfo answers with the claims that an access token grants (OpenID Connect Core 1.0 §5.3).
// It accepts bearer tokens only, not tokens that are bound to a key.
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
	writeJSON(w, http.StatusOK, userClaims(person, scopes))
}
