package token

import (
	"crypto/sha256"
	"strings"
	"time"
	"unsafe"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// cache keeps what was found out about genuine tokens, so that a token that comes again, as most
// do, costs half a hash and not a signature. What it holds is about the token alone: never what an
// operation asks for.
//
// A token is known by its name, every byte of it, so a second spelling of the same claims is
// another token; and a cache is one verifier's own, so what one configuration accepted no other
// takes over. Only accepted tokens are kept. On a hit, time is looked at again, and the key is
// looked up again in its issuer's set: a key that is removed ends its tokens at once, kept or not.
type cache struct {
	kept *otter.Cache[[sha256.Size]byte, *verified] // by the hash of the signature
	// of signatures, by token. Otter's own loader allocates more
	flights *singleflight.Group
}

// name is what a token is known by: the SHA-256 of its signature, and the text that is signed, as
// it is. That is kept with the claims in any case, and without the signature it is no token. To
// hash it too would be the dearest part of a hit.
type name struct {
	signature [sha256.Size]byte
	signed    string // with the dot behind it
}

// nameOf returns no name of what has fewer segments than a token. To refuse that shall not cost a
// hash.
func nameOf(token string) (name, bool) {
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found {
		return name{}, false
	}
	return name{sha256.Sum256(bytesOf(signature)), token[:len(header)+len(payload)+len("..")]}, true
}

// verified is a token that was accepted.
type verified struct {
	principal *Principal
	issuer    *issuer
	kid, alg  []byte // as its header names the key
	key       *key
	times     times
	binding   binding
	size      int    // of the token: its claims hold on to all that was decoded with them
	signed    string // of its name
}

// overhead is about what an entry takes beside its token. It bounds the number of entries, too.
const overhead = 1 << 10

// upkeepDelay has the cache see to many tokens in one go: to what is new, and to what must leave
// for it. By itself it would do so for each, in a goroutine of its own, at a cost of several times
// that of keeping the token. What is overdrawn meanwhile is bounded, because the cache takes note
// of so many tokens and then sees to them at once. The last of a flood may wait for the next token,
// new or not, to be seen to.
const upkeepDelay = time.Millisecond

func newCache(bytes int64) (cache, error) {
	kept, err := otter.New(&otter.Options[[sha256.Size]byte, *verified]{
		MaximumWeight: uint64(bytes),
		Weigher: func(_ [sha256.Size]byte, v *verified) uint32 {
			// The scopes are strings in the claims, or in the configuration.
			const header = unsafe.Sizeof("")
			return uint32(overhead+v.size+len(v.signed)) +
				uint32(header)*uint32(cap(v.principal.scopes))
		},
		Executor: func(upkeep func()) { time.AfterFunc(upkeepDelay, upkeep) },
	})
	return cache{kept, new(singleflight.Group)}, err
}

// find returns the token of a name, if it is kept. Another that has been given its signature is not
// it, and leaves it where it is.
func (c cache) find(n name) *verified {
	if known, ok := c.kept.GetIfPresent(n.signature); ok && known.signed == n.signed {
		return known
	}
	return nil
}

// get returns a token that was accepted before and would be accepted again now.
func (c cache) get(n name, clock func() time.Time) *verified {
	known := c.find(n)
	if known == nil {
		return nil
	}
	now := clock()
	if set := known.issuer.keys.serving(now); set != nil &&
		known.times.check(known.issuer, now) == nil {
		// Found as for a token never seen: one without kid stands only as long as the set has no
		// other key.
		if key, _ := set.find(known.kid, known.alg); key == known.key {
			return known
		}
	}
	// the whole verification will say what is wrong, or wait for keys
	c.kept.Invalidate(n.signature)
	return nil
}

// notSignedBy is the error of a token whose signature is not that of the key.
type notSignedBy struct{ key *key }

func (notSignedBy) Error() string { return "not the signature of the key" }

// verify checks the signature of a token, once for however many requests come with it at the same
// time, and keeps the token if it is good. Those who wait for another's finding wait for nothing
// but the processor, and so in no context.
func (c cache) verify(token string, n name, parts compact, accepted *verified) *verified {
	check := func() (any, error) {
		if known := c.find(n); known != nil && known.key == accepted.key { // found out just before
			return known, nil
		}
		if !accepted.key.verifiers[string(accepted.alg)](parts.signed, parts.signature) {
			return nil, notSignedBy{accepted.key}
		}
		accepted.signed = strings.Clone(n.signed) // and not with the signature behind it
		c.kept.Set(n.signature, accepted)
		return accepted, nil
	}
	found, err, _ := c.flights.Do(token, check)
	if known, ok := found.(*verified); err != (notSignedBy{accepted.key}) &&
		(!ok || known.key != accepted.key) {
		found, _ = check() // what was found is that of a request that saw another set
	}
	known, _ := found.(*verified)
	return known
}
