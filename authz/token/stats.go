package token

import (
	"slices"
	"sync/atomic"
	"time"
)

// Stats are the counters of a [Verifier]. They continue those of its Predecessor.
type Stats struct {
	Issuers []IssuerStats // one for each key set, as configured; those of Config.Resolve last
	Cache   CacheStats
	// Refused counts the tokens that were not accepted.
	Refused map[Code]uint64
}

// IssuerStats are the counters of one issuer.
type IssuerStats struct {
	URL     string
	Keys    int           // usable keys
	KeyAge  time.Duration // since the last fetch; 0 while Keys is 0, or if they are configured
	Fetched uint64        // successful key fetches
	Failed  uint64        // failed key fetches

	Introspection IntrospectionStats
}

// IntrospectionStats counts the introspection requests to one issuer, by their outcome.
type IntrospectionStats struct {
	Active, Inactive, Failed uint64
	Limited                  uint64 // not sent, because of the limits on number and rate
}

// CacheStats are the counters of the cache of verified tokens.
type CacheStats struct {
	Hits, Misses uint64
	Tokens       int
	Bytes        uint64 // approximate
}

// counts are a verifier's own counters.
type counts struct {
	hits, misses atomic.Uint64
	refused      map[Code]*atomic.Uint64
}

func newCounts() *counts {
	c := &counts{refused: map[Code]*atomic.Uint64{}}
	for _, code := range codes {
		c.refused[code] = new(atomic.Uint64)
	}
	return c
}

// refuse counts a token that was not accepted.
func (c *counts) refuse(err error) {
	if e, ok := err.(*Error); ok {
		if n := c.refused[e.Code]; n != nil {
			n.Add(1)
		}
	}
}

type fetchCounts struct{ fetched, failed atomic.Uint64 }

type introspectionCounts struct{ active, inactive, failed, limited atomic.Uint64 }

// Stats returns the current counters.
func (v *Verifier) Stats() Stats {
	tokens, bytes := v.cache.entries.size()
	s := Stats{
		Cache: CacheStats{
			Hits: v.counts.hits.Load(), Misses: v.counts.misses.Load(),
			Tokens: tokens, Bytes: uint64(bytes),
		},
		Refused: map[Code]uint64{},
	}
	for code, n := range v.counts.refused {
		s.Refused[code] = n.Load()
	}
	for _, keys := range slices.Concat(v.sources, v.resolver.sources()) {
		s.Issuers = append(s.Issuers, keys.stats())
	}
	return s
}

func (s *source) stats() IssuerStats {
	stats := IssuerStats{
		URL: s.issuer, Fetched: s.counts.fetched.Load(), Failed: s.counts.failed.Load(),
	}
	if set := s.set.Load(); set != nil {
		stats.Keys = len(set.keys)
		if !s.static {
			stats.KeyAge = s.now().Sub(set.fetched)
		}
	}
	if s.introspector != nil {
		c := s.introspector.count
		stats.Introspection = IntrospectionStats{
			Active: c.active.Load(), Inactive: c.inactive.Load(), Failed: c.failed.Load(),
			Limited: c.limited.Load(),
		}
	}
	return stats
}
