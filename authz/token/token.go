package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Config says whose tokens are accepted. Issuers has no default, unless Resolve is set.
type Config struct {
	Issuers []Issuer
	// Resolve, if set, returns the issuer for an iss that is not among Issuers, for programs whose
	// issuers change while they run. The URL of the issuer must equal iss. A nil issuer without an
	// error is not accepted; after an error the token is refused with [KeysUnavailable].
	//
	// Resolve is called with the server's context, for at most 20 issuers at one time, and only for
	// a token that some issuer could accept. Calls for unknown issuers are divided between clients
	// ([Presented.Client]). An issuer is cached for 5 min, nil for 30 s. While Resolve fails,
	// issuers that it returned before stay in use for a day.
	Resolve func(ctx context.Context, iss string) (*Issuer, error)
	// HTTPClient fetches metadata and key sets, and introspects. It never follows redirects.
	// A panic in it or in Resolve counts as an error that it returns. Default:
	// http.DefaultTransport.
	HTTPClient *http.Client
	Now        func() time.Time // default time.Now
	// Logger logs failed key fetches and keys that are ignored. Default slog.Default().
	Logger *slog.Logger
	// Predecessor is the verifier that this one replaces. Its keys of the same issuers are reused,
	// and refreshed at once in the background, so that a change of the configuration causes no
	// outage while an issuer is down. Its verified tokens are not reused.
	Predecessor *Verifier
	// CacheBytes is the approximate memory limit of the cache of verified tokens. Each takes up to
	// twice its length and about 1 KiB. Introspection responses take up to a quarter of CacheBytes
	// in addition. Default 32 MiB.
	CacheBytes int64
	// Proofs says how DPoP proofs are checked, where an issuer's DPoP policy allows them.
	Proofs ProofPolicy
}

const defaultCacheBytes = 32 << 20

// Verifier verifies access tokens. It is safe for concurrent use.
type Verifier struct {
	now        func() time.Time
	configured []*issuer
	issuers    map[string]*issuer // by iss
	templates  []*issuer          // those that accept any tenant
	sources    []*source
	opaque     *issuer   // the issuer of opaque tokens; may be nil
	resolver   *resolver // may be nil
	cache      cache
	headers    headers
	proofs     *proofs
	offersDPoP bool // ProofPolicy.Offered
	counts     *counts
}

// NewVerifier checks the configuration and returns all faults in it, joined. It does no I/O: keys
// are fetched when first needed, or by [Verifier.Ready]. Key fetches use ctx, which is the
// server's, and end with it.
func NewVerifier(ctx context.Context, config Config) (*Verifier, error) {
	v := &Verifier{now: config.Now, issuers: map[string]*issuer{}, counts: newCounts()}
	if v.now == nil {
		v.now = time.Now
	}
	log := config.Logger
	if log == nil {
		log = slog.Default()
	}
	client := &http.Client{}
	if config.HTTPClient != nil {
		*client = *config.HTTPClient
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}

	env := environment{ctx: ctx, client: client, now: v.now, log: log}

	var faults []error
	if config.CacheBytes == 0 {
		config.CacheBytes = defaultCacheBytes
	}
	if config.CacheBytes < 0 {
		faults = append(faults, fmt.Errorf("token: CacheBytes is %d: expected a positive number",
			config.CacheBytes))
	}
	v.cache = newCache(config.CacheBytes)
	env.answers = newAnswers(config.CacheBytes / 4)
	v.resolver = newResolver(config, env)
	if len(config.Issuers) == 0 && config.Resolve == nil {
		faults = append(faults,
			errors.New("token: no issuer is configured: at least one is needed"))
	}
	for _, c := range config.Issuers {
		found := c.complete()
		if found == nil {
			found = v.add(c, env)
		}
		for _, fault := range found {
			faults = append(faults, fmt.Errorf("token: issuer %q: %w", c.URL, fault))
		}
	}
	v.offersDPoP = config.Proofs.Offered
	var proofFaults []error
	v.proofs, proofFaults = newProofs(config, v.now)
	if faults = append(faults, proofFaults...); faults != nil {
		return nil, errors.Join(faults...)
	}
	if config.Predecessor != nil {
		v.counts = config.Predecessor.counts
		for _, keys := range v.sources {
			for _, before := range config.Predecessor.sources {
				if keys.issuer == before.issuer {
					keys.inherit(before)
				}
			}
		}
	}
	return v, nil
}

// add adds an issuer that is complete, and each of its tenants as an issuer of its own.
func (v *Verifier) add(c Issuer, env environment) (faults []error) {
	i := &issuer{Issuer: c, grantable: setOf(c.GrantableScopes)}
	v.configured = append(v.configured, i)
	template := strings.Contains(c.URL, tenantPlaceholder)
	if !template || c.commonKeys() {
		i.keys = v.source(i, env)
	}
	all := []*issuer{i}
	if template {
		all = nil
		for _, tenant := range c.Tenants {
			one := i.forTenant(tenant)
			if one.keys == nil {
				one.keys = v.source(one, env)
			}
			all = append(all, one)
		}
	}
	if c.Introspection.Opaque {
		if v.opaque != nil {
			faults = append(faults, fmt.Errorf("Introspection.Opaque is set for %s too: expected "+
				"one issuer at most, because an opaque token names no issuer", v.opaque.URL))
		}
		v.opaque = i
	}
	if c.InsecureAnyTenant {
		v.templates = append(v.templates, i)
	}
	for _, one := range all {
		if v.issuers[one.URL] != nil {
			faults = append(faults, errors.New("is configured twice"))
		}
		v.issuers[one.URL] = one
	}
	return faults
}

func (v *Verifier) source(i *issuer, env environment) *source {
	s := newSource(&i.Issuer, env)
	v.sources = append(v.sources, s)
	return s
}

// Verify returns the principal of a genuine bearer token, or an [*Error] that names the check that
// failed. The code [KeysUnavailable] means that the token could not be verified because the
// issuer's keys could not be fetched; ctx bounds the wait for them. A token that is bound to a key
// is refused: see [Verifier.VerifyPresented].
func (v *Verifier) Verify(ctx context.Context, token string) (*Principal, error) {
	return v.VerifyPresented(ctx, Presented{Token: token})
}

// checkLength runs first, so that an oversized token is not even hashed.
func checkLength(jwt string) error {
	if len(jwt) > maxTokenBytes {
		return refuse(Malformed, "%d bytes, more than the %d that are read", len(jwt),
			maxTokenBytes)
	}
	return nil
}

// verifyHere makes the checks of a token that need no introspection, its binding to proven among
// them. It returns nil for an opaque token.
func (v *Verifier) verifyHere(
	ctx context.Context, token, sender string, proven possession,
) (*verifiedToken, error) {
	if v.opaque != nil && isOpaque(token) {
		return nil, nil
	}
	name, cacheable := cacheKeyOf(token)
	if cacheable {
		known, err := v.cached(ctx, name)
		if err != nil {
			return nil, err
		}
		if known != nil {
			v.counts.hits.Add(1)
			if err := known.binding.check(known.issuer, proven); err != nil {
				return nil, err
			}
			return known, nil
		}
		v.counts.misses.Add(1)
	}
	return v.verifyNew(ctx, token, sender, name, proven)
}

// introspect introspects a token for which verifyHere has returned known, if that is required.
func (v *Verifier) introspect(
	ctx context.Context, presented Presented, known *verifiedToken, proven possession,
) (*verifiedToken, error) {
	switch {
	case known == nil:
		return v.verifyOpaque(ctx, presented, proven)
	case presented.Introspect || known.issuer.Introspection.Always:
		return v.confirm(ctx, presented, known)
	}
	return known, nil
}

// verifyNew verifies a token that is not cached. It is a function of its own because it needs 1.4
// kB of stack: with them, a request with a cached token would leave each connection a stack of 16
// kB instead of 8.
func (v *Verifier) verifyNew(ctx context.Context, token, sender string, name cacheKey,
	proven possession) (*verifiedToken, error) {
	parts, err := parseCompact(token)
	if err != nil {
		return nil, err
	}
	header, err := v.headers.parse(parts.header)
	if err != nil {
		return nil, err
	}
	claims, err := parseClaims(parts.payload)
	if err != nil {
		return nil, err
	}
	issuer, err := v.issuer(ctx, sender, header, &claims)
	if err != nil {
		return nil, err
	}
	if err := header.check(issuer); err != nil {
		return nil, err
	}
	if err := claims.check(issuer, v.now()); err != nil {
		return nil, err
	}
	if err := claims.checkLifetime(issuer); err != nil {
		return nil, err
	}
	if err := claims.binding.check(issuer, proven); err != nil {
		return nil, err
	}
	scopes, err := claims.scopes(issuer)
	if err != nil {
		return nil, err
	}
	client, err := claims.clientName(issuer)
	if err != nil {
		return nil, err
	}
	key, err := issuer.keys.find(ctx, header.kid, header.alg)
	if err != nil {
		return nil, err
	}
	if err := issuer.checkKey(key); err != nil {
		return nil, err
	}
	known := v.cache.verify(token, name, parts, &verifiedToken{
		principal: claims.principal(issuer, client, scopes), issuer: issuer, kid: header.kid,
		alg: header.alg, key: key,
		times: claims.times, binding: claims.binding, size: len(token),
	})
	if known == nil {
		return nil, refuse(BadSignature, "the signature does not verify with key %s. Was the "+
			"token changed or truncated?", quote(key.kid))
	}
	v.headers.keep(parts.header)
	return known, nil
}

// cached returns a token that was accepted before and would be accepted again now, or nil.
func (v *Verifier) cached(ctx context.Context, n cacheKey) (*verifiedToken, error) {
	known := v.cache.get(n, v.now)
	if known == nil || !known.issuer.resolved {
		return known, nil
	}
	i, err := v.resolver.find(ctx, "", known.issuer.URL)
	if err != nil || i != known.issuer { // it has changed, or is no longer accepted
		return nil, err
	}
	return known, nil
}

func (c *claims) principal(i *issuer, client []byte, scopes []string) *Principal {
	seconds := int64(c.exp.seconds)
	return &Principal{
		issuer: i.URL, issuerConfig: &i.Issuer, subject: string(c.sub), clientID: string(client),
		scopes: scopes, claims: c.raw, act: c.act,
		expiry: time.Unix(seconds, int64((c.exp.seconds-float64(seconds))*1e9)),
	}
}

// issuer returns the issuer of a token that a client has sent.
func (v *Verifier) issuer(
	ctx context.Context, client string, h header, c *claims,
) (*issuer, error) {
	iss := c.iss
	if i := v.configuredIssuer(iss); i != nil {
		return i, nil
	}
	if v.resolver != nil {
		if err := c.resolvable(h, v.now()); err != nil {
			return nil, err
		}
		if i, err := v.resolver.find(ctx, client, string(iss)); err != nil || i != nil {
			return i, err
		}
	}
	return nil, v.wrongIssuer(string(iss))
}

// configuredIssuer returns the configured issuer that iss names, or nil.
func (v *Verifier) configuredIssuer(iss []byte) *issuer {
	if i := v.issuers[string(iss)]; i != nil {
		return i
	}
	for _, template := range v.templates {
		if tenant, ok := tenantOf(template.URL, string(iss)); ok {
			return template.forTenant(tenant)
		}
	}
	return nil
}

func (v *Verifier) wrongIssuer(iss string) error {
	known := slices.Sorted(maps.Keys(v.issuers))
	for _, template := range v.templates {
		known = append(known, template.URL)
	}
	for _, url := range known {
		if strings.TrimSuffix(iss, "/") == strings.TrimSuffix(url, "/") {
			return refuse(WrongIssuer, "issuer is %s, expected %s: they differ by a trailing slash",
				quote(iss), quote(url))
		}
	}
	if len(known) == 0 {
		return refuse(WrongIssuer, "issuer is %s, which is not accepted", quote(iss))
	}
	return refuse(WrongIssuer, "issuer is %s, expected %s", quote(iss),
		strings.Join(known[:min(len(known), 5)], " or "))
}

// Ready returns nil once the keys of one issuer are available. If none are, it fetches those of
// all issuers at once, at most twice a second, and waits until ctx is done. One issuer is enough:
// while another is down, only its own tokens are refused, with [KeysUnavailable].
func (v *Verifier) Ready(ctx context.Context) error {
	fetched := make(chan error, len(v.sources))
	for _, keys := range v.sources {
		go func() {
			_, err := keys.current(ctx)
			fetched <- err
		}()
	}
	var faults []error
	for range v.sources {
		err := <-fetched
		if err == nil {
			return nil
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
