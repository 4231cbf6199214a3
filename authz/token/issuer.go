package token

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Issuer is one authorization server, and what its tokens must be. Zero values are the defaults.
//
// Its keys are discovered below URL (OpenID Connect Discovery 1.0 §4, or RFC 8414 §3 if that
// answers 404), unless one of DiscoveryURL, JWKSURI, JWKS and PublicKeyPEM is set.
type Issuer struct {
	// URL is the issuer identifier: an https URL, exactly as in iss, including a trailing slash.
	// http is allowed for loopback hosts, or with InsecureHTTP. With the path segment {tenantid}
	// it stands for one issuer per tenant: see Tenants.
	URL string
	// Tenants are the accepted values of {tenantid} in URL. A token must name its tenant both in
	// iss and in the claim tid. If DiscoveryURL or JWKSURI, or URL if neither is set, has
	// {tenantid}, each tenant has its own keys.
	Tenants []string
	// InsecureAnyTenant accepts every tenant, and so everyone with an account at the provider. The
	// keys must be common to all tenants: DiscoveryURL or JWKSURI must be set, without {tenantid}.
	InsecureAnyTenant bool

	// DiscoveryURL is the URL of the metadata. The issuer in the metadata must still be URL.
	DiscoveryURL string
	// JWKSURI is the URL of the key set. Nothing else is fetched.
	JWKSURI string
	// JWKS is the key set (RFC 7517 §5). Nothing is fetched.
	JWKS []byte
	// PublicKeyPEM is the only key: a public key or a certificate in PEM. The kid of tokens, and
	// the chain and dates of the certificate, are ignored. Nothing is fetched.
	PublicKeyPEM []byte
	// InsecureHTTP allows http to the host of JWKSURI, DiscoveryURL or URL, the first that is set.
	// An attacker on the network can then replace the keys and sign tokens.
	InsecureHTTP bool

	// Audiences are the identifiers of this API; a token's aud must hold one of them.
	Audiences []string
	// AudienceClaim is a JSON pointer (RFC 6901) to the claim that is compared with Audiences.
	// Default /aud. Amazon Cognito's access tokens have /client_id instead of aud.
	AudienceClaim string
	// ClientClaim is a JSON pointer to the claim that names the client. Default client_id, or azp
	// if that is absent.
	ClientClaim string
	// SubjectOptional accepts tokens without sub, such as Keycloak's since version 25. Their
	// principal has an empty subject.
	SubjectOptional bool
	// RequiredClaims are further claims that a token must have, by JSON pointer, with the accepted
	// string values: for example the kind of token (Keycloak's /typ, Cognito's /token_use) or the
	// organization (/org_id, /hd).
	RequiredClaims map[string][]string
	// Algorithms is the allow-list of alg. Default RS256, PS256, ES256, EdDSA. Ed25519 (RFC 9864
	// §2.2) is a synonym of EdDSA.
	Algorithms []string
	// Leeway is the tolerated clock difference. Default 30 s, at most 60 s; NoLeeway for none.
	Leeway time.Duration
	// MaxLifetime is the maximum time from now to exp. Default 24 h.
	MaxLifetime time.Duration
	// RFC9068 requires the strict profile of RFC 9068: typ at+jwt, and client_id, iat, jti.
	RFC9068 bool

	// ScopeClaims are JSON pointers (RFC 6901) to the claims that grant scopes. Default /scope.
	ScopeClaims []string
	// StrictScopeClaims refuses a token with a scope claim that is neither a string nor an array of
	// strings. Without it such a claim grants no scopes, except that a token with a malformed
	// /scope is always refused (RFC 8693 §4.2).
	StrictScopeClaims bool
	// ScopePrefix is removed from the values of the scope claims; values without it are ignored. It
	// is for issuers that write scopes as <API>/<scope>.
	ScopePrefix string
	// ScopeNames maps values of the scope claims, without the prefix, to the scopes that they
	// grant, separated by spaces (RFC 6749 §3.3). Other values are the names of scopes.
	ScopeNames map[string]string
	// GrantableScopes are the only scopes that the issuer may grant, after ScopeNames; others are
	// dropped. nil means all.
	GrantableScopes []string

	// DPoP says whether tokens may, or must, be bound to a key of the client (RFC 9449). Default
	// DPoPOff, which refuses bound tokens.
	DPoP DPoPPolicy
	// MTLS says whether tokens may, or must, be bound to the client's certificate (RFC 8705).
	// Default MTLSOff, which refuses bound tokens.
	MTLS MTLSPolicy
	// FAPI2 enforces the FAPI 2.0 Security Profile for resource servers (§5.3.4, §5.4): only PS256,
	// ES256 and EdDSA; tokens bound by DPoP or MTLS, one of which must be on; a leeway of 10 s by
	// default; and either Introspection.Always, or iat and a lifetime of at most 5 min.
	FAPI2 bool
	// Introspection configures token introspection (RFC 7662). Default: off.
	Introspection Introspection
	Keys          KeyPolicy
}

// NoLeeway as an Issuer's Leeway means no leeway.
const NoLeeway time.Duration = -1

const (
	defaultLeeway, maxLeeway = 30 * time.Second, 60 * time.Second
	defaultMaxLifetime       = 24 * time.Hour
)

// issuer is an Issuer with its defaults filled in, and its keys.
type issuer struct {
	Issuer
	tenant    string          // the tenant that tid must name, or ""
	grantable map[string]bool // nil: all
	resolved  bool            // returned by Config.Resolve
	keys      *source
}

// Validate returns the faults for which [NewVerifier] refuses the issuer, joined.
func (i Issuer) Validate() error { return errors.Join(i.complete()...) }

// complete fills in the defaults, copies the lists, and returns all faults.
func (i *Issuer) complete() (faults []error) {
	i.Audiences, i.Algorithms = slices.Clone(i.Audiences), slices.Clone(i.Algorithms)
	i.ScopeClaims, i.Tenants = slices.Clone(i.ScopeClaims), slices.Clone(i.Tenants)
	i.ScopeNames, i.RequiredClaims = maps.Clone(i.ScopeNames), maps.Clone(i.RequiredClaims)
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format, args...))
	}
	i.completeURLs(fault)
	i.completeTenants(fault)
	if len(i.Audiences) == 0 || slices.Contains(i.Audiences, "") {
		fault("audiences are %q: at least one is needed, and none may be empty", i.Audiences)
	}
	if i.FAPI2 {
		i.completeFAPI2(fault)
	}
	if i.Algorithms == nil {
		i.Algorithms = []string{"RS256", "PS256", "ES256", "EdDSA"}
	}
	if len(i.Algorithms) == 0 {
		fault("algorithms: the list is empty, so no token is accepted; leave it unset for the " +
			"default")
	}
	for n, name := range i.Algorithms {
		i.Algorithms[n] = canonicalAlgorithm(name)
		if algorithms[i.Algorithms[n]] == nil {
			fault("algorithm %q: expected one of %s", name, strings.Join(Algorithms(), ", "))
		}
	}
	switch {
	case i.Leeway == 0:
		i.Leeway = defaultLeeway
	case i.Leeway == NoLeeway:
		i.Leeway = 0
	case i.Leeway < 0 || i.Leeway > maxLeeway:
		fault("leeway is %s: expected at most %s", i.Leeway, maxLeeway)
	}
	i.completeClaims(fault)
	i.completeIntrospection(fault)
	switch i.DPoP {
	case "":
		i.DPoP = DPoPOff
	case DPoPOff, DPoPAllowed, DPoPRequired:
	default:
		fault("DPoP policy is %q: expected %s, %s or %s", i.DPoP, DPoPOff, DPoPAllowed,
			DPoPRequired)
	}
	switch i.MTLS {
	case "":
		i.MTLS = MTLSOff
	case MTLSOff, MTLSAllowed, MTLSRequired:
	default:
		fault("MTLS policy is %q: expected %s, %s or %s", i.MTLS, MTLSOff, MTLSAllowed,
			MTLSRequired)
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
		fault("maximum staleness of keys is %s, less than their maximum age of %s: keys would "+
			"expire before they are refreshed", i.Keys.MaxStale, i.Keys.MaxAge)
	}
	return faults
}

// The bounds of the FAPI 2.0 Security Profile.
const (
	fapi2Leeway      = 10 * time.Second // the least leeway of iat and nbf (§5.3.2.1)
	fapi2Ahead       = time.Minute      // the most that iat may be in the future (§5.3.2.1)
	fapi2MaxLifetime = 5 * time.Minute  // without introspection, for revocation to take effect
)

// fapi2Algorithms are the algorithms of FAPI 2.0 §5.4.1.
var fapi2Algorithms = []string{"PS256", "ES256", "EdDSA"}

// completeFAPI2 fills in the defaults of the profile, and checks the other values.
func (i *Issuer) completeFAPI2(fault func(string, ...any)) {
	if i.Algorithms == nil {
		i.Algorithms = slices.Clone(fapi2Algorithms)
	}
	for _, name := range i.Algorithms {
		if !slices.Contains(fapi2Algorithms, canonicalAlgorithm(name)) {
			fault("algorithm %q: expected one of %s (FAPI 2.0 §5.4.1)", name,
				strings.Join(fapi2Algorithms, ", "))
		}
	}
	dpop, mtls := i.DPoP != "" && i.DPoP != DPoPOff, i.MTLS != "" && i.MTLS != MTLSOff
	switch {
	case !dpop && !mtls:
		fault("DPoP and MTLS are both off: expected one of them allowed or required, " +
			"because all tokens must be bound (FAPI 2.0 §5.3.4)")
	case !mtls:
		i.DPoP = DPoPRequired
	case !dpop:
		i.MTLS = MTLSRequired
	}
	switch {
	case i.Leeway == 0:
		i.Leeway = fapi2Leeway
	case i.Leeway < fapi2Leeway:
		fault("leeway is %s: expected %s to %s (FAPI 2.0 §5.3.2.1)", max(0, i.Leeway),
			fapi2Leeway, maxLeeway)
	}
	if !i.Introspection.Always {
		if i.MaxLifetime == 0 {
			i.MaxLifetime = fapi2MaxLifetime
		}
		if i.MaxLifetime > fapi2MaxLifetime {
			fault("maximum lifetime is %s: expected at most %s, or Introspection.Always, so that "+
				"revocation takes effect (FAPI 2.0 §5.3.4)", i.MaxLifetime, fapi2MaxLifetime)
		}
	}
}

// completeURLs checks the URLs of the issuer and its keys.
func (i *Issuer) completeURLs(fault func(string, ...any)) {
	u, err := url.Parse(strings.ReplaceAll(i.URL, tenantPlaceholder, "tenant"))
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || strings.ContainsAny(i.URL, "?#"):
		fault("expected a URL such as https://issuer.example/, without query and fragment (RFC 8414 §2)")
		return
	case u.Scheme == "http" && !IsLoopback(u.Hostname()) && !i.InsecureHTTP:
		fault("http is accepted on loopback hosts only: expected https, or InsecureHTTP")
	case u.Scheme != "http" && u.Scheme != "https":
		fault("scheme is %q, expected https", u.Scheme)
	}
	insecure := u.Scheme == "http" && !IsLoopback(u.Hostname())
	given := 0
	for _, place := range []struct{ name, url string }{
		{"discovery URL", i.DiscoveryURL}, {"JWKS URI", i.JWKSURI},
	} {
		if place.url == "" {
			continue
		}
		given++
		u, err := url.Parse(strings.ReplaceAll(place.url, tenantPlaceholder, "tenant"))
		switch {
		case err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "":
			fault("%s is %q: expected an https URL", place.name, place.url)
		case u.Scheme == "http" && !IsLoopback(u.Hostname()):
			insecure = true
			if !i.InsecureHTTP {
				fault("%s is %q: http is accepted on loopback hosts only: expected https, or "+
					"InsecureHTTP", place.name, place.url)
			}
		case u.Scheme != "http" && u.Scheme != "https":
			fault("%s is %q: expected an https URL", place.name, place.url)
		}
	}
	for _, keys := range [][]byte{i.JWKS, i.PublicKeyPEM} {
		if keys != nil {
			given++
		}
	}
	if given > 1 {
		fault("expected one of DiscoveryURL, JWKSURI, JWKS and PublicKeyPEM, received %d", given)
	}
	if i.InsecureHTTP && !insecure {
		fault("InsecureHTTP is set, but no URL uses http: leave it unset")
	}
	if _, err := i.staticKeys(); err != nil {
		fault("%w", err)
	}
}

// completeClaims fills in and checks the settings about claims.
func (i *Issuer) completeClaims(fault func(string, ...any)) {
	if i.ScopeClaims == nil {
		i.ScopeClaims = []string{scopeClaim}
	}
	for _, pointer := range i.ScopeClaims {
		if !isPointer(pointer) {
			fault("scope claim %q: expected a JSON pointer (RFC 6901) such as /scope or "+
				"/realm_access/roles", pointer)
		}
	}
	if i.AudienceClaim == "" {
		i.AudienceClaim = audClaim
	}
	if !isPointer(i.AudienceClaim) {
		fault("audience claim %q: expected a JSON pointer (RFC 6901) such as /aud", i.AudienceClaim)
	}
	if i.RFC9068 && i.AudienceClaim != audClaim {
		fault("audience claim %q: the strict profile requires aud (RFC 9068 §4); leave one of "+
			"the two unset", i.AudienceClaim)
	}
	if i.RFC9068 && i.SubjectOptional {
		fault("SubjectOptional is set, but the strict profile requires sub (RFC 9068 §2.2); " +
			"leave one of the two unset")
	}
	if i.ClientClaim != "" && !isPointer(i.ClientClaim) {
		fault("client claim %q: expected a JSON pointer (RFC 6901) such as /azp", i.ClientClaim)
	}
	for _, pointer := range slices.Sorted(maps.Keys(i.RequiredClaims)) {
		if values := i.RequiredClaims[pointer]; !isPointer(pointer) {
			fault("required claim %q: expected a JSON pointer (RFC 6901) such as /token_use",
				pointer)
		} else if len(values) == 0 {
			fault("required claim %q: no value is given, so no token is accepted", pointer)
		} else {
			i.RequiredClaims[pointer] = slices.Clone(values)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(i.ScopeNames)) {
		if scopes := i.ScopeNames[value]; value == "" || !isScopeString(scopes) {
			fault("scope name %q stands for %q: expected a value of the scope claims, and scopes "+
				"separated by single spaces", value, scopes)
		}
	}
	for _, scope := range i.GrantableScopes {
		if !isScopeString(scope) || strings.Contains(scope, " ") {
			fault("grantable scope %q: expected one scope, without spaces", scope)
		}
	}
}

// staticKeys returns the configured keys, or nil if keys are fetched.
func (i *Issuer) staticKeys() (*keySet, error) {
	switch {
	case i.JWKS != nil:
		set, dropped, err := parseKeySet(i.JWKS)
		if err = errors.Join(append(dropped, err)...); err != nil {
			return nil, fmt.Errorf("JWKS: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return set, nil
	case i.PublicKeyPEM != nil:
		k, err := parsePEM(i.PublicKeyPEM)
		if err != nil {
			return nil, fmt.Errorf("PublicKeyPEM: %w", err)
		}
		return &keySet{keys: []*key{k}, anyKid: true}, nil
	}
	return nil, nil
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
