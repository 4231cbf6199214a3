package devissuer

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"
)

// exchangeCode is the authorization code grant, RFC 6749 §4.1.3, with PKCE (RFC 7636 §4.6).
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
			return refuse(invalidGrant, "code was given to another client")
		case g.redirectURI != params["redirect_uri"]:
			return refuse(invalidGrant, "redirect_uri is not that of the authorization request")
		case !verifies(params["code_verifier"], g.challenge):
			return refuse(invalidGrant, "code_verifier does not fit code_challenge")
		case g.jkt != "" && g.jkt != jkt:
			return refuse(invalidGrant,
				"code is bound to a DPoP key (dpop_jkt), of which this request has no proof")
		}
		// What follows is bound to the key only where nothing else binds it to the client (RFC 9449
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

// refresh is RFC 6749 §6. Each refresh token works once, and brings the next (RFC 9700 §4.14.2).
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
				return refuse(invalidGrant, "refresh_token was given to another client")
			case g.jkt != "" && g.jkt != jkt:
				return refuse(invalidGrant,
					"refresh_token is bound to a DPoP key, of which this request has no proof")
			}
			if scopes, refused = g.narrowed(params["scope"]); refused != nil {
				return refused
			}
			return i.sameTarget(g, params)
		})
	if refused != nil {
		return nil, refused
	}
	return i.answerGrant(g, scopes, "", jkt), nil // without a nonce: OpenID Connect Core 1.0 §12.2
}

// narrowed are the scopes of the grant, or those that are asked for of them. The next refresh token
// has all of them again (RFC 6749 §6).
func (g *grant) narrowed(requested string) ([]string, *refusal) {
	if requested == "" {
		return g.scopes, nil
	}
	var scopes []string
	for scope := range strings.SplitSeq(requested, " ") {
		if !slices.Contains(g.scopes, scope) {
			return nil, refuse(invalidScope, "a requested scope was not granted: "+listed(g.scopes)+
				" were")
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}

// sameTarget: the token request may name the API again (RFC 8707 §2.2), but no other.
func (i *Issuer) sameTarget(g *grant, params map[string]string) *refusal {
	audience, refused := i.target(params, g.audience)
	if refused == nil && audience != g.audience {
		refused = refuse(invalidTarget, "audience is not that of the authorization request")
	}
	return refused
}

// answerGrant makes what a grant is redeemed for. Only scopes that mean something to the API stand
// in its token (RFC 9068 §2.2.3); the client learns of all that were granted.
func (i *Issuer) answerGrant(g grant, scopes []string, nonce, jkt string) *tokenResponse {
	of := slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
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
	}, strings.Join(of, " "), jkt)
	answer.Scope = strings.Join(scopes, " ")
	answer.RefreshToken = g.credential
	if slices.Contains(scopes, openID) {
		answer.IDToken = i.idToken(g, scopes, nonce, answer.AccessToken)
	}
	return answer
}

// lifetime is that of access tokens and ID tokens, in seconds.
func (i *Issuer) lifetime() int64 { return int64(i.cfg.TokenLifetime / time.Second) }
