package token

import (
	"crypto/sha256"
	"time"
)

const (
	// inactiveAge is how long the response that a token is not active is cached.
	inactiveAge = 10 * time.Second
	// maxInactive bounds the cache of inactive tokens.
	maxInactive = 1 << 14
)

// answers caches introspection responses by the SHA-256 of the token. Active and inactive tokens
// have separate caches, so that a flood of made-up tokens evicts no active one.
type answers struct {
	active   *lru[[sha256.Size]byte, *activeAnswer]
	inactive *lru[[sha256.Size]byte, time.Time] // when the response arrived
}

func newAnswers(bytes int64) answers {
	return answers{
		active: &lru[[sha256.Size]byte, *activeAnswer]{
			limit: bytes,
			weigh: (*activeAnswer).weight,
		},
		inactive: &lru[[sha256.Size]byte, time.Time]{limit: maxInactive},
	}
}

// keep caches an answer, unless the inactive cache has the token. It checks that last, because a
// concurrent query may add the token there.
func (a answers) keep(name [sha256.Size]byte, answer *activeAnswer, now time.Time) {
	if !answer.fresh(now) {
		return
	}
	a.active.set(name, answer)
	if _, revoked := a.inactive.get(name); revoked {
		a.active.remove(name)
	}
}

// activeAnswer is a response that a token is active.
type activeAnswer struct {
	by     *introspector
	claims claims
	at     time.Time      // when it arrived
	token  *verifiedToken // the token with the response applied; nil until verified
}

// fresh reports whether an answer can be used without asking again.
func (a *activeAnswer) fresh(now time.Time) bool { return left(a.at, now, a.by.maxAge) > 0 }

// weight is the approximate memory of an answer. The token of an opaque one has the same claims.
func (a *activeAnswer) weight() int64 {
	weight := overhead + int64(cap(a.claims.raw))
	if a.token != nil {
		weight += a.token.weight()
	}
	return weight
}
