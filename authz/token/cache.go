package token

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// cache keeps what was found out about genuine tokens, so that a token that comes again, as most do, costs a hash and
// not a signature. What it holds is about the token alone: never what an operation asks for.
//
// The key is the SHA-256 of the token as it came, every byte of it, so a second spelling of the same claims is another
// token; and a cache is one verifier's own, so what one configuration accepted no other takes over. Only accepted
// tokens are kept. On a hit, time is looked at again, and the key is looked up again in its issuer's set: a key that is
// removed ends its tokens at once, kept or not.
type cache struct {
	kept    *otter.Cache[[sha256.Size]byte, *verified]
	flights *singleflight.Group // of signatures, by the same names. Otter's own loader allocates more
}

// verified is a token that was accepted.
type verified struct {
	principal *Principal
	issuer    *issuer
	kid, alg  []byte // as its header names the key
	key       *key
	times     times
	binding   binding
	size      int // of the token: its claims hold on to all that was decoded with them
}

// overhead is about what an entry takes beside its token. It bounds the number of entries, too.
const overhead = 1 << 10

// upkeepDelay has the cache see to many tokens in one go: to what is new, and to what must leave for it. By itself it
// would do so for each, in a goroutine of its own, at a cost of several times that of keeping the token. What is
// overdrawn meanwhile is bounded, because the cache takes note of so many tokens and then sees to them at once. The
// last of a flood may wait for the next token, new or not, to be seen to.
const upkeepDelay = time.Millisecond

func newCache(bytes int64) (cache, error) {
	kept, err := otter.New(&otter.Options[[sha256.Size]byte, *verified]{
		MaximumWeight: uint64(bytes),
		Weigher: func(_ [sha256.Size]byte, v *verified) uint32 {
			return uint32(overhead + v.size)
		},
		Executor: func(upkeep func()) { time.AfterFunc(upkeepDelay, upkeep) },
	})
	return cache{kept, new(singleflight.Group)}, err
}

// digest names a token in the cache.
func digest(token string) [sha256.Size]byte { return sha256.Sum256(bytesOf(token)) }

// get returns a token that was accepted before and would be accepted again now.
func (c cache) get(sum [sha256.Size]byte, clock func() time.Time) *verified {
	known, ok := c.kept.GetIfPresent(sum)
	if !ok {
		return nil
	}
	now := clock()
	if set := known.issuer.keys.serving(now); set != nil && known.times.check(known.issuer, now) == nil {
		// Found as for a token never seen: one without kid stands only as long as the set has no other key.
		if key, _ := set.find(known.kid, known.alg); key == known.key {
			return known
		}
	}
	c.kept.Invalidate(sum) // the whole verification will say what is wrong, or wait for keys
	return nil
}

// notSignedBy is the error of a token whose signature is not that of the key.
type notSignedBy struct{ key *key }

func (notSignedBy) Error() string { return "not the signature of the key" }

// verify checks the signature of a token, once for however many requests come with it at the same time, and keeps the
// token if it is good. Those who wait for another's finding wait for nothing but the processor, and so in no context.
func (c cache) verify(_ context.Context, sum [sha256.Size]byte, parts compact, accepted *verified) *verified {
	find := func() (any, error) {
		if known, ok := c.kept.GetIfPresent(sum); ok && known.key == accepted.key { // found out just before
			return known, nil
		}
		if !accepted.key.verifiers[string(accepted.alg)](parts.signed, parts.signature) {
			return nil, notSignedBy{accepted.key}
		}
		c.kept.Set(sum, accepted)
		return accepted, nil
	}
	found, err, _ := c.flights.Do(string(sum[:]), find)
	if known, ok := found.(*verified); err != (notSignedBy{accepted.key}) && (!ok || known.key != accepted.key) {
		found, _ = find() // what was found is that of a request that saw another set
	}
	known, _ := found.(*verified)
	return known
}
