package devissuer

import (
	"crypto/rand"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A code lives as long as a browser needs to bring it home (RFC 6749 §4.1.2 allows ten minutes), a
// refresh token as long as a day's work; the next one begins anew.
const (
	codeLifetime    = time.Minute
	refreshLifetime = 24 * time.Hour
	maxGrants       = 1000
)

// grant is what a person let a client have, and what redeems it: first a code, then refresh tokens,
// one after the other.
type grant struct {
	client, person, audience string
	clientName               string // for the sign-in page
	scopes                   []string
	signedIn                 time.Time
	nonce                    string // OpenID Connect Core 1.0 §3.1.2.1
	redirectURI, challenge   string // what the code is bound to (RFC 6749 §4.1.3, RFC 7636)
	// the key that code or refresh token is bound to (RFC 9449 §10, §5); "" none
	jkt string

	name       string // of the grant itself, not of anybody
	kind       string // of the credential: a code or a refresh token
	credential string
	expires    time.Time
}

// The kinds of credentials, by the names that their parameters have.
const (
	aCode         = "code"
	aRefreshToken = "refresh_token"
)

// grants keeps the grants that can still be redeemed. A credential is the grant's name and a secret
// of its own, so that one which was used before is still known for what it was, and costs no
// memory.
type grants struct {
	now   func() time.Time
	ended func(name string) // is told of grants that end before their time

	mu     sync.Mutex // guards what follows
	byName map[string]*grant
}

// add keeps a grant, and returns its code. Where there is no room, the oldest sign-in ends.
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

// redeem takes a credential that use finds to be in the right hands, and returns its grant with the
// refresh token that follows, if one does. All of this is one step, so that of two who come with
// the same credential one is late.
//
// Who is late, or comes with a code in vain, ends the grant: the credential, or the one that
// followed it, is in wrong hands, and nobody can say which (RFC 6749 §4.1.2, RFC 9700 §4.14.2).
func (s *grants) redeem(kind, credential string, use func(*grant) *refusal) (grant, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, _, _ := strings.Cut(credential, ".")
	g, known := s.byName[name]
	switch {
	case !known:
		s.ended(name)
		return grant{}, refuse(invalidGrant, kind+" is unknown, or has ended: sign in again")
	case g.kind != kind || !equalSecrets(g.credential, credential):
		s.end(name)
		return grant{},
			refuse(invalidGrant, kind+" was used before, so that all that came of this sign-in "+
				"has ended: sign in again")
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

// end ends a grant, and the access tokens that came of it. s.mu is held.
func (s *grants) end(name string) {
	delete(s.byName, name)
	s.ended(name)
}

// revoke ends the grant of a refresh token, and reports whether there is one. A client can only end
// its own.
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
