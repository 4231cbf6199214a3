package devissuer

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
)

// exchangeCode implements the authorization code grant (RFC 6749 §4.1.3) with PKCE (RFC 7636 §4.6).
func (i *Issuer) exchangeCode(r *http.Request, client Client,
	params map[string]string) (*tokenResponse, *refusal) {
	for _, name := range []string{"code", "redirect_uri", "code_verifier"} {
		if params[name] == "" {
			return nil, refuse(invalidRequest, name+" is missing")
		}
	}
	jkt, refused := i.boundKey(r)
	if refused != nil {
		return nil, refused
	}
	g, refused := i.grants.redeem(aCode, params["code"], func(g *grant) *refusal {
		switch {
		case g.client != client.ID:
			return refuse(invalidGrant, "code was issued to another client")
		case g.redirectURI != params["redirect_uri"]:
			return refuse(invalidGrant, "redirect_uri differs from the authorization request")
		case !verifies(params["code_verifier"], g.challenge):
			return refuse(invalidGrant, "code_verifier does not match code_challenge")
		case g.jkt != "" && g.jkt != jkt:
			return refuse(invalidGrant,
				"code is bound to a DPoP key (dpop_jkt): send a proof of that key")
		}
		// The refresh tokens of confidential clients are bound by client authentication (RFC 9449
		// §5).
		g.jkt = ""
		if client.Secret == "" {
			g.jkt = jkt
		}
		return i.sameTarget(g, params)
	})
	if refused != nil {
		return nil, refused
	}
	return i.answerGrant(g, g.scopes, g.nonce, jkt), nil
}

// refresh implements RFC 6749 §6. A refresh token works once and is replaced by a new one (RFC 9700
// §4.14.2).
func (i *Issuer) refresh(r *http.Request, client Client,
	params map[string]string) (*tokenResponse, *refusal) {
	if params["refresh_token"] == "" {
		return nil, refuse(invalidRequest, "refresh_token is missing")
	}
	jkt, refused := i.boundKey(r)
	if refused != nil {
		return nil, refused
	}
	var scopes []string
	g, refused := i.grants.redeem(aRefreshToken, params["refresh_token"],
		func(g *grant) (refused *refusal) {
			switch {
			case g.client != client.ID:
				return refuse(invalidGrant, "refresh_token was issued to another client")
			case g.jkt != "" && g.jkt != jkt:
				return refuse(invalidGrant,
					"refresh_token is bound to a DPoP key: send a proof of that key")
			}
			if scopes, refused = g.narrowScopes(params["scope"]); refused != nil {
				return refused
			}
			return i.sameTarget(g, params)
		})
	if refused != nil {
		return nil, refused
	}
	return i.answerGrant(g, scopes, "", jkt), nil // no nonce: OpenID Connect Core 1.0 §12.2
}

// narrowScopes returns the requested scopes of the grant, or all of them if none are requested. The
// next refresh token again has all of them (RFC 6749 §6).
func (g *grant) narrowScopes(requested string) ([]string, *refusal) {
	if requested == "" {
		return g.scopes, nil
	}
	var scopes []string
	for scope := range strings.SplitSeq(requested, " ") {
		if !slices.Contains(g.scopes, scope) {
			return nil,
				refuse(invalidScope, "a requested scope was not granted (granted: "+
					joinScopes(g.scopes)+")")
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

// sameTarget checks that the audience, if sent again (RFC 8707 §2.2), is that of the grant.
func (i *Issuer) sameTarget(g *grant, params map[string]string) *refusal {
	audience, refused := i.target(params, g.audience)
	if refused == nil && audience != g.audience {
		refused = refuse(invalidTarget, "audience differs from the authorization request")
	}
	return refused
}

// answerGrant issues the tokens for a redeemed grant. The access token has only the scopes of the
// API (RFC 9068 §2.2.3); the response lists all granted scopes.
func (i *Issuer) answerGrant(g grant, scopes []string, nonce, jkt string) *tokenResponse {
	apiScopes := slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return !slices.Contains(i.cfg.Scopes, scope)
	})
	id := rand.Text()
	i.tokens.add(
		id,
		issued{grant: g.name, scopes: scopes, expires: i.cfg.Now().Add(i.cfg.TokenLifetime)},
	)
	answer := i.accessToken(map[string]any{
		"jti":       id,
		"sub":       g.person,
		"client_id": g.client,
		"aud":       g.audience,
		"auth_time": g.signedIn.Unix(), // RFC 9068 §2.2.1
	}, strings.Join(apiScopes, " "), jkt)
	answer.Scope = strings.Join(scopes, " ")
	answer.RefreshToken = g.credential
	if slices.Contains(scopes, openID) {
		answer.IDToken = i.idToken(g, scopes, nonce, answer.AccessToken)
	}
	return answer
}

// lifetime returns the lifetime of access tokens and ID tokens in seconds.
func (i *Issuer) lifetime() int64 { return int64(i.cfg.TokenLifetime / time.Second) }
