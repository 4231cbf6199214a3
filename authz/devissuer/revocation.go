package devissuer

import (
	"net/http"
	"time"
)

// serveRevocation revokes a token of the client (RFC 7009 §2). A refresh token revokes the whole
// grant (§2.1). Revoking an inactive token succeeds (§2.2).
func (i *Issuer) serveRevocation(w http.ResponseWriter, r *http.Request) {
	params, refused := readParameters(w, r)
	var client Client
	if refused == nil {
		client, refused = i.authenticate(r, params)
	}
	if refused == nil && params["token"] == "" {
		refused = refuse(invalidRequest, "token is missing")
	}
	if refused != nil {
		refused.write(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if i.grants.revoke(params["token"], client.ID) {
		return
	}
	claims := i.active(params["token"])
	switch {
	case claims == nil:
	case claims["client_id"] != client.ID:
		refuse(invalidGrant, "the token was issued to another client").write(w)
	default:
		expires, _ := claims["exp"].(float64)
		i.tokens.add(
			text(claims["jti"]),
			issued{revoked: true, expires: time.Unix(int64(expires), 0)},
		)
	}
}
