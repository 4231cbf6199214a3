package devissuer

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// maxTokens is how many access tokens are remembered.
const maxTokens = 10_000

// issued is what an access token does not say of itself.
type issued struct {
	grant   string   // that it came of; "": of none
	scopes  []string // those of OpenID Connect too
	revoked bool
	expires time.Time
}

// tokens are the access tokens of people, and those that were revoked, by jti.
type tokens struct {
	now func() time.Time

	mu   sync.Mutex // guards what follows
	byID map[string]*issued
}

// add remembers a token. Where there is no room, the one that expires first is forgotten.
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

// scopes returns the scopes of a token that a person let a client have. id is its jti, whatever
// that is.
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

// end revokes the tokens that came of a grant; none come of "".
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
