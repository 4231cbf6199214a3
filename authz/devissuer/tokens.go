package devissuer

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// maxTokens is the number of access tokens that are stored.
const maxTokens = 10_000

// issued is what the issuer stores about an access token.
type issued struct {
	grant   string   // the name of its grant, or ""
	scopes  []string // including those of OpenID Connect
	revoked bool
	expires time.Time
}

// tokens holds the access tokens of people, and revoked tokens, by jti.
type tokens struct {
	now func() time.Time

	mu   sync.Mutex // protects the fields below
	byID map[string]*issued
}

// add stores a token. If there is no room, it removes the one that expires first.
func (s *tokens) add(id string, t issued) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= maxTokens {
		maps.DeleteFunc(
			s.byID,
			func(_ string, t *issued) bool { return !s.now().Before(t.expires) },
		)
	}
	if len(s.byID) >= maxTokens {
		delete(s.byID, slices.MinFunc(slices.Collect(maps.Keys(s.byID)), func(a, b string) int {
			return s.byID[a].expires.Compare(s.byID[b].expires)
		}))
	}
	s.byID[id] = &t
}

// scopes returns the scopes of a stored token. id is its jti claim, of any type.
func (s *tokens) scopes(id any) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.byID[text(id)]; t != nil {
		return t.scopes
	}
	return nil
}

func (s *tokens) revoked(id any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.byID[text(id)]
	return t != nil && t.revoked
}

// end revokes the tokens of a grant. An empty name matches none.
func (s *tokens) end(grant string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.byID {
		t.revoked = t.revoked || grant != "" && t.grant == grant
	}
}

func text(claim any) string {
	s, _ := claim.(string)
	return s
}
