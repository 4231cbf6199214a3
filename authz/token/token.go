package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Config says whose tokens are accepted. Only Issuers has no default.
type Config struct {
	Issuers    []Issuer
	HTTPClient *http.Client     // for discovery and key sets; redirects are never followed. Default: http.DefaultTransport
	Now        func() time.Time // default time.Now
	Logger     *slog.Logger     // key fetches that fail, keys that are left out. Default slog.Default()
	// Predecessor is the verifier that this one shall replace: the keys that it has of the same issuers are taken
	// over, and refreshed at once in the background, so that a change of the configuration is no outage even while an
	// issuer is down. No verdict is taken over.
	Predecessor *Verifier
	// CacheBytes bounds, roughly, the memory for tokens that were verified and may come again. Each takes up to twice
	// its length, and about 1 KiB. Default 32 MiB.
	CacheBytes int64
	// Proofs says how DPoP proofs are checked, where an issuer's DPoP policy lets them count.
	Proofs ProofPolicy
}

// Issuer is one authorization server, and what its tokens must be. Zero values are the defaults.
type Issuer struct {
	// URL is the issuer identifier: https, and exactly as it stands in iss, trailing slash included. http is
	// for loopback hosts only.
	URL string
	// Audiences are the identifiers of this API; a token's aud must hold one of them.
	Audiences []string
	// AudienceClaim is a JSON pointer (RFC 6901) to the claim that is held against Audiences. Default /aud. Amazon
	// Cognito's access tokens have no aud, but /client_id.
	AudienceClaim string
	// ClientClaim is a JSON pointer to the claim that names the client. Default client_id, or else azp.
	ClientClaim string
	// RequiredClaims are further claims that a token must have, by JSON pointer, each a string and one of those
	// given: what kind of token it is (Keycloak's /typ, Cognito's /token_use), or whose (/org_id, /hd).
	RequiredClaims map[string][]string
	// Algorithms is the allow-list of alg. Default RS256, PS256, ES256, EdDSA.
	Algorithms []string
	// Leeway is granted to clocks that differ. Default 30 s, at most 60 s; NoLeeway for none.
	Leeway time.Duration
	// MaxLifetime is the furthest ahead that exp may lie. Default 24 h.
	MaxLifetime time.Duration
	// RFC9068 demands the strict profile of RFC 9068: typ at+jwt, and client_id, iat, jti.
	RFC9068 bool
	// ScopeClaims are JSON pointers (RFC 6901) to the claims that grant scopes. Default /scope.
	ScopeClaims []string
	// ScopePrefix is what the values of the scope claims must begin with to count at all, and lose: where an issuer
	// writes scopes as <API>/<scope>, those of another API are none here.
	ScopePrefix string
	// ScopeNames renames: a value of the scope claims, without the prefix, that is a key here stands for the scopes of
	// its value, as in a scope string (RFC 6749 §3.3). Others keep their names.
	ScopeNames map[string]string
	// GrantableScopes are the only scopes that the issuer may grant, by the names that they have here; others are
	// dropped. nil: all.
	GrantableScopes []string
	// DPoP says whether tokens may, or must, be bound to a key of the client (RFC 9449). Default DPoPOff: those that
	// are bound are refused.
	DPoP DPoPPolicy
	Keys KeyPolicy
}

// NoLeeway as an Issuer's Leeway grants none.
const NoLeeway time.Duration = -1

const (
	defaultLeeway, mostLeeway = 30 * time.Second, 60 * time.Second
	defaultMaxLifetime        = 24 * time.Hour
	defaultCacheBytes         = 32 << 20
)

// Verifier verifies access tokens. It is safe for concurrent use.
type Verifier struct {
	now     func() time.Time
	issuers map[string]*issuer
	cache   cache
	headers headers
	proofs  *proofs
}

// issuer is an Issuer with its defaults filled in, and its keys.
type issuer struct {
	Issuer
	grantable map[string]bool // nil: all
	keys      *source
}

// NewVerifier checks the configuration and returns every fault of it, joined. It does no I/O: keys are fetched at
// first need, or by [Verifier.Ready]. Key fetches run on ctx, the server's; when it ends, so do they.
func NewVerifier(ctx context.Context, config Config) (*Verifier, error) {
	v := &Verifier{now: config.Now, issuers: map[string]*issuer{}}
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
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	var faults []error
	if len(config.Issuers) == 0 {
		faults = append(faults, errors.New("token: no issuer is configured: at least one is needed"))
	}
	for _, c := range config.Issuers {
		found := c.complete()
		if _, twice := v.issuers[c.URL]; twice {
			found = append(found, errors.New("is configured twice"))
		}
		for _, fault := range found {
			faults = append(faults, fmt.Errorf("token: issuer %q: %w", c.URL, fault))
		}
		keys := &source{issuer: c.URL, policy: c.Keys, client: client, now: v.now, log: log, ctx: ctx}
		v.issuers[c.URL] = &issuer{Issuer: c, grantable: setOf(c.GrantableScopes), keys: keys}
	}
	if config.CacheBytes == 0 {
		config.CacheBytes = defaultCacheBytes
	}
	var err error
	if v.cache, err = newCache(config.CacheBytes); err != nil || config.CacheBytes < 0 {
		faults = append(faults, fmt.Errorf("token: CacheBytes is %d: expected a positive number", config.CacheBytes))
	}
	var faulty []error
	v.proofs, faulty = newProofs(config, v.now)
	if faults = append(faults, faulty...); faults != nil {
		return nil, errors.Join(faults...)
	}
	if config.Predecessor != nil {
		for url, i := range v.issuers {
			if before := config.Predecessor.issuers[url]; before != nil {
				i.keys.inherit(before.keys)
			}
		}
	}
	return v, nil
}

// Algorithms returns the names of all algorithms that an [Issuer] may allow.
func Algorithms() []string { return slices.Sorted(maps.Keys(algorithms)) }

// Validate returns every fault of the issuer, joined: those for which [NewVerifier] refuses it.
func (i Issuer) Validate() error { return errors.Join(i.complete()...) }

// complete fills in the defaults, makes the lists its own, and returns all faults.
func (i *Issuer) complete() (faults []error) {
	i.Audiences, i.Algorithms, i.ScopeClaims = slices.Clone(i.Audiences), slices.Clone(i.Algorithms), slices.Clone(i.ScopeClaims)
	i.ScopeNames, i.RequiredClaims = maps.Clone(i.ScopeNames), maps.Clone(i.RequiredClaims)
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	u, err := url.Parse(i.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || strings.ContainsAny(i.URL, "?#"):
		fault("expected a URL such as https://issuer.example/, without query and fragment (RFC 8414 §2)")
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		fault("http is accepted on loopback hosts only: expected https")
	case u.Scheme != "http" && u.Scheme != "https":
		fault("scheme is %q, expected https", u.Scheme)
	}
	if len(i.Audiences) == 0 || slices.Contains(i.Audiences, "") {
		fault("audiences are %q: at least one is needed, and none may be empty", i.Audiences)
	}
	if i.Algorithms == nil {
		i.Algorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}
	}
	if len(i.Algorithms) == 0 {
		fault("algorithms: the list is empty, so that no token would pass; leave it unset for the default")
	}
	for _, name := range i.Algorithms {
		if algorithms[name] == nil {
			fault("algorithm %q: expected one of %s", name, strings.Join(Algorithms(), ", "))
		}
	}
	switch {
	case i.Leeway == 0:
		i.Leeway = defaultLeeway
	case i.Leeway == NoLeeway:
		i.Leeway = 0
	case i.Leeway < 0 || i.Leeway > mostLeeway:
		fault("leeway is %s: expected at most %s", i.Leeway, mostLeeway)
	}
	if i.ScopeClaims == nil {
		i.ScopeClaims = []string{scopeClaim}
	}
	for _, pointer := range i.ScopeClaims {
		if !isPointer(pointer) {
			fault("scope claim %q: expected a JSON pointer (RFC 6901) such as /scope or /realm_access/roles", pointer)
		}
	}
	if i.AudienceClaim == "" {
		i.AudienceClaim = audClaim
	}
	if !isPointer(i.AudienceClaim) {
		fault("audience claim %q: expected a JSON pointer (RFC 6901) such as /aud", i.AudienceClaim)
	}
	if i.RFC9068 && i.AudienceClaim != audClaim {
		fault("audience claim %q: the strict profile demands aud (RFC 9068 §4); leave one of the two unset", i.AudienceClaim)
	}
	if i.ClientClaim != "" && !isPointer(i.ClientClaim) {
		fault("client claim %q: expected a JSON pointer (RFC 6901) such as /azp", i.ClientClaim)
	}
	for _, pointer := range slices.Sorted(maps.Keys(i.RequiredClaims)) {
		if values := i.RequiredClaims[pointer]; !isPointer(pointer) {
			fault("required claim %q: expected a JSON pointer (RFC 6901) such as /token_use", pointer)
		} else if len(values) == 0 {
			fault("required claim %q: no value is given, so that no token would pass", pointer)
		} else {
			i.RequiredClaims[pointer] = slices.Clone(values)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(i.ScopeNames)) {
		if scopes := i.ScopeNames[value]; value == "" || !isScopeString(scopes) {
			fault("scope name %q stands for %q: expected a value of the scope claims, and scopes with single spaces between them", value, scopes)
		}
	}
	for _, scope := range i.GrantableScopes {
		if !isScopeString(scope) || strings.Contains(scope, " ") {
			fault("grantable scope %q: expected one scope, without spaces", scope)
		}
	}
	switch i.DPoP {
	case "":
		i.DPoP = DPoPOff
	case DPoPOff, DPoPAllowed, DPoPRequired:
	default:
		fault("DPoP policy is %q: expected %s, %s or %s", i.DPoP, DPoPOff, DPoPAllowed, DPoPRequired)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		unset time.Duration
	}{
		{"maximum lifetime", &i.MaxLifetime, defaultMaxLifetime},
		{"key cooldown", &i.Keys.Cooldown, 30 * time.Second},
		{"maximum age of keys", &i.Keys.MaxAge, time.Hour},
		{"maximum staleness of keys", &i.Keys.MaxStale, 24 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.unset
		}
		if *d.value < 0 {
			fault("%s is %s: expected a positive duration", d.name, *d.value)
		}
	}
	if i.Keys.MaxStale < i.Keys.MaxAge {
		fault("maximum staleness of keys is %s, less than their maximum age of %s: keys would end before they are refreshed", i.Keys.MaxStale, i.Keys.MaxAge)
	}
	return faults
}

const audClaim, scopeClaim = "/aud", "/scope"

func isPointer(s string) bool { return strings.HasPrefix(s, "/") && jsontext.Pointer(s).IsValid() }

func isScopeString(s string) bool { return s != "" && strings.Join(strings.Fields(s), " ") == s }

// setOf returns nil for nil.
func setOf(list []string) map[string]bool {
	if list == nil {
		return nil
	}
	set := map[string]bool{}
	for _, s := range list {
		set[s] = true
	}
	return set
}

// Verify returns the principal of a genuine bearer token, or an [*Error] that names the check it failed. With code
// [KeysUnavailable] nothing was found out about the token, because the issuer's keys could not be had; ctx bounds
// the wait for them. A token that is bound to a key is refused: see [Verifier.VerifyDPoP].
func (v *Verifier) Verify(ctx context.Context, token string) (*Principal, error) {
	if err := checkLength(token); err != nil {
		return nil, err
	}
	known, err := v.verify(ctx, token, false)
	if err != nil {
		return nil, err
	}
	return known.principal, nil
}

// checkLength comes first: what is too long is not even hashed.
func checkLength(jwt string) error {
	if len(jwt) > maxTokenBytes {
		return refuse(Malformed, "%d bytes, more than the %d that are read", len(jwt), maxTokenBytes)
	}
	return nil
}

// verify is the way of a token. Whether it came with a proof decides what it must be bound to, and that is asked of a token
// that was kept as well.
func (v *Verifier) verify(ctx context.Context, token string, dpop bool) (*verified, error) {
	name, named := nameOf(token)
	if named {
		if known := v.cache.get(name, v.now); known != nil {
			if err := known.binding.check(known.issuer, dpop); err != nil {
				return nil, err
			}
			return known, nil
		}
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
	issuer := v.issuers[string(claims.iss)]
	if issuer == nil {
		return nil, v.foreign(string(claims.iss))
	}
	if err := header.check(issuer); err != nil {
		return nil, err
	}
	if err := claims.check(issuer, v.now()); err != nil {
		return nil, err
	}
	if err := claims.binding.check(issuer, dpop); err != nil {
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
	known := v.cache.verify(token, name, parts, &verified{
		principal: claims.principal(issuer, client, scopes), issuer: issuer, kid: header.kid, alg: header.alg, key: key,
		times: claims.times, binding: claims.binding, size: len(token),
	})
	if known == nil {
		return nil, refuse(BadSignature, "the signature is not that of key %s. Was the token changed, or cut short?", quote(key.kid))
	}
	v.headers.keep(parts.header)
	return known, nil
}

func (c *claims) principal(i *issuer, client []byte, scopes []string) *Principal {
	seconds := int64(c.exp.seconds)
	return &Principal{
		issuer: i.URL, subject: string(c.sub), clientID: string(client), scopes: scopes, claims: c.raw,
		expiry: time.Unix(seconds, int64((c.exp.seconds-float64(seconds))*1e9)),
	}
}

func (v *Verifier) foreign(iss string) error {
	known := slices.Sorted(maps.Keys(v.issuers))
	for _, url := range known {
		if strings.TrimSuffix(iss, "/") == strings.TrimSuffix(url, "/") {
			return refuse(WrongIssuer, "issuer is %s, expected %s: they differ by a trailing slash", quote(iss), quote(url))
		}
	}
	return refuse(WrongIssuer, "issuer is %s, expected %s", quote(iss), strings.Join(known, " or "))
}

// Ready returns nil when the keys of an issuer are had. Where they are not, it fetches them, of all issuers at once
// and at most twice a second, and waits as long as ctx allows. One issuer will do: that another is down concerns its
// tokens alone, which get [KeysUnavailable], and is no reason to keep the users of all the others away.
func (v *Verifier) Ready(ctx context.Context) error {
	fetched := make(chan error, len(v.issuers))
	for _, i := range v.issuers {
		go func() {
			_, err := i.keys.current(ctx)
			fetched <- err
		}()
	}
	var faults []error
	for range v.issuers {
		err := <-fetched
		if err == nil {
			return nil
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
