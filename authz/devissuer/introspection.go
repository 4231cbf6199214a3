package devissuer

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
)

// serveIntrospection reports whether an access token is active, with its claims (RFC 7662 §2). Only
// clients with a secret may ask (§2.1).
func (i *Issuer) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	params, refused := readParameters(w, r)
	var client Client
	if refused == nil {
		client, refused = i.authenticate(r, params)
	}
	switch {
	case refused != nil:
	case client.Secret == "":
		refused = refuse(unauthorizedClient, "a client without a secret cannot introspect tokens")
	case params["token"] == "":
		refused = refuse(invalidRequest, "token is missing")
	}
	if refused != nil {
		refused.write(w)
		return
	}
	answer := i.active(params["token"])
	if answer == nil { // no other members (§2.2)
		writeJSON(w, http.StatusOK, map[string]any{"active": false})
		return
	}
	answer["active"], answer["token_type"] = true, "Bearer"
	if answer["cnf"] != nil {
		answer["token_type"] = "DPoP"
	}
	writeJSON(w, http.StatusOK, answer)
}

// active returns the claims of an access token of this issuer, or nil if it is not genuine, not
// currently valid, or revoked.
func (i *Issuer) active(raw string) map[string]any {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil
	}
	var header struct {
		Alg, Kid, Typ string
	}
	var claims map[string]any
	signature, err := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	if err != nil || !decodeSegment(parts[0], &header) || !decodeSegment(parts[1], &claims) {
		return nil
	}
	key := i.publishedKey(header.Kid)
	if key == nil || key.alg != header.Alg || header.Typ != "at+jwt" ||
		!key.verify([]byte(parts[0]+"."+parts[1]), signature) {
		return nil
	}
	now := float64(i.cfg.Now().Unix())
	expires, ok := claims["exp"].(float64)
	begins, _ := claims["nbf"].(float64)
	if claims["iss"] != i.cfg.URL || !ok || now >= expires || now < begins ||
		i.tokens.revoked(claims["jti"]) {
		return nil
	}
	return claims
}

func decodeSegment(text string, into any) bool {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && json.Unmarshal(decoded, into) == nil
}
