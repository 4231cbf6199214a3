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
	// Resolve, if set, finds the issuer of an iss that is not among Issuers, for programs whose
	// issuers change while they run. Its URL must be iss. nil without an error is an issuer that is
	// not accepted; with an error nothing is known, and the token is refused as [KeysUnavailable].
	//
	// Resolve is called with the server's context, for at most 8 issuers at one time, and only for
	// a token that some issuer could accept. Its answer serves for 5 min, nil for 30 s. While it
	// fails, issuers that were found before serve for a day.
	Resolve func(ctx context.Context, iss string) (*Issuer, error)
	// for discovery and key sets; redirects are never followed. Default: http.DefaultTransport
	HTTPClient *http.Client
	Now        func() time.Time // default time.Now
	// key fetches that fail, keys that are left out. Default slog.Default()
	Logger *slog.Logger
	// Predecessor is the verifier that this one shall replace: the keys that it has of the same
	// issuers are taken over, and refreshed at once in the background, so that a change of the
	// configuration is no outage even while an issuer is down. No verdict is taken over.
	Predecessor *Verifier
	// CacheBytes bounds, roughly, the memory for tokens that were verified and may come again. Each
	// takes up to twice its length, and about 1 KiB. What issuers answer about tokens takes up to a
	// quarter of it more. Default 32 MiB.
	CacheBytes int64
	// Proofs says how DPoP proofs are checked, where an issuer's DPoP policy lets them count.
	Proofs ProofPolicy
}

const defaultCacheBytes = 32 << 20

// Verifier verifies access tokens. It is safe for concurrent use.
type Verifier struct {
	now        func() time.Time
	configured []*issuer
	issuers    map[string]*issuer // by iss
	templates  []*issuer          // of any tenant
	sources    []*source
	opaque     *issuer   // takes tokens that are not JWTs; nil: none does
	resolver   *resolver // nil: there is none
	cache      cache
	headers    headers
	proofs     *proofs
	offersDPoP bool // whatever configured says
	counts     *counts
}

// NewVerifier checks the configuration and returns every fault of it, joined. It does no I/O: keys
// are fetched at first need, or by [Verifier.Ready]. Key fetches run on ctx, the server's; when it
// ends, so do they.
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
	var err error
	if v.cache, err = newCache(config.CacheBytes); err != nil || config.CacheBytes < 0 {
		faults = append(faults, fmt.Errorf("token: CacheBytes is %d: expected a positive number",
			config.CacheBytes))
	}
	if env.answers, err = newAnswers(max(1, config.CacheBytes/4)); err != nil {
		faults = append(faults, err)
	}
	if v.resolver, err = newResolver(config, env); err != nil {
		faults = append(faults, err)
	}
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
	var faulty []error
	v.proofs, faulty = newProofs(config, v.now)
	if faults = append(faults, faulty...); faults != nil {
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

// add takes in an issuer that is complete, each of its tenants as an issuer of its own.
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
			faults = append(faults, fmt.Errorf("Introspection.Opaque is set for %s too: an opaque "+
				"token names no issuer, so one at most can take them", v.opaque.URL))
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

// Verify returns the principal of a genuine bearer token, or an [*Error] that names the check it
// failed. With code [KeysUnavailable] nothing was found out about the token, because the issuer's
// keys could not be had; ctx bounds the wait for them. A token that is bound to a key is refused:
// see [Verifier.VerifyPresented].
func (v *Verifier) Verify(ctx context.Context, token string) (*Principal, error) {
	return v.VerifyPresented(ctx, Presented{Token: token})
}

// checkLength comes first: what is too long is not even hashed.
func checkLength(jwt string) error {
	if len(jwt) > maxTokenBytes {
		return refuse(Malformed, "%d bytes, more than the %d that are read", len(jwt),
			maxTokenBytes)
	}
	return nil
}

// verify verifies a token. What its sender has decides what it may be bound to; that is checked of
// a token from the cache too.
func (v *Verifier) verify(
	ctx context.Context, presented Presented, has possession,
) (*verified, error) {
	token, live := presented.Token, presented.Introspect
	if v.opaque != nil && isOpaque(token) {
		return v.verifyOpaque(ctx, token, has, live)
	}
	known, err := v.verifyJWT(ctx, token, has)
	if err == nil && (live || known.issuer.Introspection.Always) {
		return v.confirm(ctx, token, known, live)
	}
	return known, err
}

func (v *Verifier) verifyJWT(ctx context.Context, token string, has possession) (*verified, error) {
	name, named := nameOf(token)
	if named {
		known, err := v.cached(ctx, name)
		if err != nil {
			return nil, err
		}
		if known != nil {
			v.counts.hits.Add(1)
			if err := known.binding.check(known.issuer, has); err != nil {
				return nil, err
			}
			return known, nil
		}
		v.counts.misses.Add(1)
	}
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
	issuer, err := v.issuer(ctx, header, &claims)
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
	if err := claims.binding.check(issuer, has); err != nil {
		return nil, err
	}
	scopes, err := claims.scopes(issuer)
	if err != nil {
		return nil, err
	}
	client, err := claims.client(issuer)
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
	known := v.cache.verify(token, name, parts, &verified{
		principal: claims.principal(issuer, client, scopes), issuer: issuer, kid: header.kid,
		alg: header.alg, key: key,
		times: claims.times, binding: claims.binding, size: len(token),
	})
	if known == nil {
		return nil,
			refuse(BadSignature,
				"the signature is not that of key %s. Was the token changed, or cut short?",
				quote(key.kid))
	}
	v.headers.keep(parts.header)
	return known, nil
}

// cached returns a token that was accepted before and would be accepted again now, or nil.
func (v *Verifier) cached(ctx context.Context, n name) (*verified, error) {
	known := v.cache.get(n, v.now)
	if known == nil || !known.issuer.resolved {
		return known, nil
	}
	i, err := v.resolver.find(ctx, known.issuer.URL)
	if err != nil || i != known.issuer { // it has changed, or is not accepted any more
		return nil, err
	}
	return known, nil
}

func (c *claims) principal(i *issuer, client []byte, scopes []string) *Principal {
	seconds := int64(c.exp.seconds)
	return &Principal{
		issuer: i.URL, namer: &i.Issuer, subject: string(c.sub), clientID: string(client),
		scopes: scopes, claims: c.raw, act: c.act,
		expiry: time.Unix(seconds, int64((c.exp.seconds-float64(seconds))*1e9)),
	}
}

// issuer returns the issuer of a token.
func (v *Verifier) issuer(ctx context.Context, h header, c *claims) (*issuer, error) {
	iss := c.iss
	if i := v.configuredIssuer(iss); i != nil {
		return i, nil
	}
	if v.resolver != nil {
		if err := c.resolvable(h, v.now()); err != nil {
			return nil, err
		}
		if i, err := v.resolver.find(ctx, string(iss)); err != nil || i != nil {
			return i, err
		}
	}
	return nil, v.foreign(string(iss))
}

// configuredIssuer returns the issuer of the configuration that iss names; nil where none does.
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

func (v *Verifier) foreign(iss string) error {
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

// Ready returns nil when the keys of an issuer are had. Where they are not, it fetches them, of all
// issuers at once and at most twice a second, and waits as long as ctx allows. One issuer will do:
// that another is down concerns its tokens alone, which get [KeysUnavailable], and is no reason to
// keep the users of all the others away.
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
