package token

import (
	"crypto/sha256"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sync/singleflight"
)

// cache holds verified tokens, so that a repeated token costs a short hash instead of a signature
// verification. Entries depend on the token only, never on an operation.
//
// The cache key covers every byte of the token. Each verifier has its own cache, so a token that
// one configuration accepted is verified again by another. Only accepted tokens are cached. A hit
// checks the times again and looks the key up again in its issuer's set: after a key is removed,
// its tokens are refused at once, cached or not.
type cache struct {
	entries *lru[[sha256.Size]byte, *verifiedToken] // by the hash in the cacheKey
	// group merges concurrent verifications of one token.
	group *singleflight.Group
}

// cacheKey identifies a token by the SHA-256 of the start of its signature and by all of its other
// bytes, so a hit means that the whole token is the same.
//
// The cache does not keep the start of a signature, so that a dump of the memory contains no token
// that can be used. What it keeps does not help to compute the rest: the hash has 256 bits or more
// of the signature as its input, which for ECDSA and EdDSA are all of r or R. For RSA, the known
// part of a signature reveals an unknown part only if that is less than 1/e of its bits
// (Coppersmith 1996), which only the exponents 3 and 5 allow. Hashing the whole signature would
// take most of the time of a hit.
//
// Comparing the rest takes no constant time, but is reached only with the hashed part.
type cacheKey struct {
	hash   [sha256.Size]byte
	signed string // the signing input, with the dot after it
	rest   string // of the signature
}

// hashedChars is the number of characters of a signature that SHA-256 processes as one block.
const hashedChars = 55

// cacheKeyOf returns the key of a token. It reports false, and hashes nothing, if there are fewer
// than three segments.
func cacheKeyOf(token string) (cacheKey, bool) {
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found {
		return cacheKey{}, false
	}
	n := min(len(signature), hashedChars)
	return cacheKey{
		hash:   sha256.Sum256(bytesOf(signature[:n])),
		signed: token[:len(header)+len(payload)+len("..")],
		rest:   signature[n:],
	}, true
}

// verified is a token that was accepted.
type verifiedToken struct {
	principal *Principal
	issuer    *issuer
	kid, alg  []byte // as its header names the key
	key       *key
	times     times
	binding   binding
	size      int    // of the token, because the claims share its decoded buffer
	text      string // the token, without what cacheKey hashes
}

// overhead is the approximate size of an entry without its token.
const overhead = 1 << 10

// weight is the approximate memory of a token.
func (v *verifiedToken) weight() int64 {
	const header = int64(unsafe.Sizeof(""))
	p := v.principal
	// subject and clientID are copies. The scopes are strings in the claims, or in the
	// configuration.
	return overhead + int64(v.size+len(v.text)+len(p.subject)+len(p.clientID)) +
		header*int64(cap(p.scopes))
}

func newCache(bytes int64) cache {
	entries := &lru[[sha256.Size]byte, *verifiedToken]{
		limit: bytes,
		weigh: (*verifiedToken).weight,
	}
	return cache{entries, new(singleflight.Group)}
}

// find returns the cached token, or nil. A token with the same hash but other bytes does not match,
// and does not evict the entry.
func (c cache) find(n cacheKey) *verifiedToken {
	known, ok := c.entries.get(n.hash)
	if !ok {
		return nil
	}
	if rest, same := strings.CutPrefix(known.text, n.signed); !same || rest != n.rest {
		return nil
	}
	return known
}

// get returns a token that was accepted before and would be accepted again now.
func (c cache) get(n cacheKey, clock func() time.Time) *verifiedToken {
	known := c.find(n)
	if known == nil {
		return nil
	}
	now := clock()
	if set := known.issuer.keys.usableSet(now); set != nil &&
		known.times.check(known.issuer, now) == nil {
		// Look the key up as for a new token: one without kid is valid only while the set has a
		// single key.
		if key, _ := set.find(known.kid, known.alg); key == known.key {
			return known
		}
	}
	// The full verification reports the error, or waits for keys.
	c.entries.remove(n.hash)
	return nil
}

// notSignedBy is the error for a signature that does not verify with the key.
type notSignedBy struct{ key *key }

func (notSignedBy) Error() string { return "the signature does not verify with the key" }

// verify verifies the signature of a token, once for concurrent requests with the same token, and
// caches the token if it is good; otherwise it returns nil. It takes no context, because the wait
// for another request's verification is for the processor only.
func (c cache) verify(token string, n cacheKey, parts compact,
	accepted *verifiedToken) *verifiedToken {
	check := func() (any, error) {
		if known := c.find(n); known != nil && known.key == accepted.key { // cached just before
			return known, nil
		}
		if !accepted.key.verifiers[string(accepted.alg)](parts.signed, parts.signature) {
			return nil, notSignedBy{accepted.key}
		}
		accepted.text = n.signed + n.rest // a copy, which does not keep the token in memory
		c.entries.set(n.hash, accepted)
		return accepted, nil
	}
	found, err, _ := c.group.Do(token, check)
	if known, ok := found.(*verifiedToken); err != (notSignedBy{accepted.key}) &&
		(!ok || known.key != accepted.key) {
		found, _ = check() // the shared result is from a request with another key set
	}
	known, _ := found.(*verifiedToken)
	return known
}
