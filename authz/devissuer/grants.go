package devissuer

import (
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A code lives for one minute (RFC 6749 §4.1.2 allows ten), a refresh token for a day.
const (
	codeLifetime    = time.Minute
	refreshLifetime = 24 * time.Hour
	maxGrants       = 1000
)

// grant is what a person granted to a client, and the credential that redeems it: first a code,
// then one refresh token after another.
type grant struct {
	client, person, audience string
	clientName               string // for the sign-in page
	scopes                   []string
	signedIn                 time.Time
	nonce                    string // OpenID Connect Core 1.0 §3.1.2.1
	redirectURI, challenge   string // the code is bound to both (RFC 6749 §4.1.3, RFC 7636)
	// thumbprint of the key that the code or refresh token is bound to (RFC 9449 §10, §5), or ""
	jkt string

	name       string // of the grant
	kind       string // of the credential: code or refresh token
	credential string
	expires    time.Time
}

// The kinds of credentials, named as their parameters.
const (
	aCode         = "code"
	aRefreshToken = "refresh_token"
)

// grants holds the grants that can still be redeemed. A credential consists of the grant's name and
// a secret, so that reuse of an old one is detected without storing it.
type grants struct {
	now   func() time.Time
	ended func(name string) // called for grants that end early

	mu     sync.Mutex // protects the fields below
	byName map[string]*grant
}

// add stores a grant and returns its code. If there is no room, it ends the oldest grant.
func (s *grants) add(g grant) (code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.byName, func(_ string, g *grant) bool { return s.expired(g) })
	if len(s.byName) >= maxGrants {
		delete(s.byName, slices.MinFunc(slices.Collect(maps.Keys(s.byName)), func(a, b string) int {
			return s.byName[a].signedIn.Compare(s.byName[b].signedIn)
		}))
	}
	name := rand.Text()
	g.name = name
	g.kind, g.credential, g.expires = aCode, name+"."+rand.Text(), s.now().Add(codeLifetime)
	s.byName[name] = &g
	return g.credential
}

// redeem checks a credential, and what use checks, and returns the grant with its next refresh
// token, if it has one. It is atomic, so that only one of two concurrent attempts succeeds.
//
// Reuse of a credential, and a failed attempt to redeem a code, end the grant: a code or token may
// be in the wrong hands, and nobody can tell which (RFC 6749 §4.1.2, RFC 9700 §4.14.2).
func (s *grants) redeem(kind, credential string, use func(*grant) *refusal) (grant, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, _, _ := strings.Cut(credential, ".")
	g, known := s.byName[name]
	switch {
	case !known:
		s.ended(name)
		return grant{}, refuse(invalidGrant, kind+" is unknown or revoked: sign in again")
	case g.kind != kind || !equalSecrets(g.credential, credential):
		s.end(name)
		return grant{},
			refuse(invalidGrant, kind+" was used before, so the grant and its tokens "+
				"are revoked: sign in again")
	case s.expired(g):
		delete(s.byName, name)
		return grant{}, refuse(invalidGrant, kind+" has expired: sign in again")
	}
	if refused := use(g); refused != nil {
		if kind == aCode {
			delete(s.byName, name)
		}
		return grant{}, refused
	}
	if !slices.Contains(g.scopes, offlineAccess) {
		delete(s.byName, name)
		g.credential = ""
		return *g, nil
	}
	g.kind, g.credential, g.expires = aRefreshToken, name+"."+rand.Text(),
		s.now().Add(refreshLifetime)
	return *g, nil
}

// end ends a grant and revokes its access tokens. The caller holds s.mu.
func (s *grants) end(name string) {
	delete(s.byName, name)
	s.ended(name)
}

// revoke ends the grant of a refresh token of the client, and reports whether there is one.
func (s *grants) revoke(credential, client string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, _, _ := strings.Cut(credential, ".")
	g, known := s.byName[name]
	if !known || g.kind != aRefreshToken || g.client != client ||
		!equalSecrets(g.credential, credential) {
		return false
	}
	s.end(name)
	return true
}

func (s *grants) expired(g *grant) bool { return !s.now().Before(g.expires) }
