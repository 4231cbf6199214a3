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
// Its keys are found by discovery below URL (OpenID Connect Discovery 1.0 §4, or RFC 8414 §3 where
// that answers 404), unless one of DiscoveryURL, JWKSURI, JWKS and PublicKeyPEM says otherwise.
type Issuer struct {
	// URL is the issuer identifier: https, and exactly as it stands in iss, trailing slash
	// included. http is for loopback hosts only, or with InsecureHTTP. With the path segment
	// {tenantid} it stands for one issuer per tenant: see Tenants.
	URL string
	// Tenants are the tenants that {tenantid} in URL stands for. A token of a tenant must have the
	// tenant both in iss and in the claim tid. {tenantid} in DiscoveryURL or JWKSURI, or in URL
	// where these are not set, is replaced too: each tenant then has keys of its own.
	Tenants []string
	// InsecureAnyTenant accepts every tenant, and so everyone with an account at the provider. The
	// keys must be common to all tenants: DiscoveryURL or JWKSURI must be set, without {tenantid}.
	InsecureAnyTenant bool

	// DiscoveryURL is where the metadata is. The issuer that it names must still be URL.
	DiscoveryURL string
	// JWKSURI is where the key set is. Nothing else is fetched.
	JWKSURI string
	// JWKS is the key set itself (RFC 7517 §5). Nothing is fetched.
	JWKS []byte
	// PublicKeyPEM is the only key: a public key or a certificate in PEM, whatever kid a token
	// names. Nothing is fetched. The certificate's chain and dates count for nothing.
	PublicKeyPEM []byte
	// InsecureHTTP has keys fetched over http from the host of JWKSURI, DiscoveryURL or URL, the
	// first that is set. Whoever can change what is sent on the way there can sign tokens.
	InsecureHTTP bool

	// Audiences are the identifiers of this API; a token's aud must hold one of them.
	Audiences []string
	// AudienceClaim is a JSON pointer (RFC 6901) to the claim that is compared with Audiences.
	// Default /aud. Amazon Cognito's access tokens have no aud, but /client_id.
	AudienceClaim string
	// ClientClaim is a JSON pointer to the claim that names the client. Default client_id, or else
	// azp.
	ClientClaim string
	// SubjectOptional accepts tokens without sub, such as Keycloak's since version 25. Their
	// principal has the empty subject.
	SubjectOptional bool
	// RequiredClaims are further claims that a token must have, by JSON pointer, each a string and
	// one of those given: what kind of token it is (Keycloak's /typ, Cognito's /token_use), or
	// whose (/org_id, /hd).
	RequiredClaims map[string][]string
	// Algorithms is the allow-list of alg. Default RS256, PS256, ES256, EdDSA. Ed25519 (RFC 9864
	// §2.2) is another name of EdDSA.
	Algorithms []string
	// Leeway is granted to clocks that differ. Default 30 s, at most 60 s; NoLeeway for none.
	Leeway time.Duration
	// MaxLifetime is the furthest ahead that exp may lie. Default 24 h.
	MaxLifetime time.Duration
	// RFC9068 demands the strict profile of RFC 9068: typ at+jwt, and client_id, iat, jti.
	RFC9068 bool

	// ScopeClaims are JSON pointers (RFC 6901) to the claims that grant scopes. Default /scope.
	ScopeClaims []string
	// StrictScopeClaims refuses a token of which a scope claim is neither a string nor an array of
	// strings. /scope is always held to that (RFC 8693 §4.2); any other such claim grants no scope.
	StrictScopeClaims bool
	// ScopePrefix is what the values of the scope claims must begin with to count at all, and lose:
	// where an issuer writes scopes as <API>/<scope>, those of another API are none here.
	ScopePrefix string
	// ScopeNames renames: a value of the scope claims, without the prefix, that is a key here
	// stands for the scopes of its value, as in a scope string (RFC 6749 §3.3). Others keep their
	// names.
	ScopeNames map[string]string
	// GrantableScopes are the only scopes that the issuer may grant, by the names that they have
	// here; others are dropped. nil: all.
	GrantableScopes []string

	// DPoP says whether tokens may, or must, be bound to a key of the client (RFC 9449). Default
	// DPoPOff: those that are bound are refused.
	DPoP DPoPPolicy
	// MTLS says whether tokens may, or must, be bound to the client's certificate (RFC 8705).
	// Default MTLSOff: those that are bound are refused.
	MTLS MTLSPolicy
	// FAPI2 demands what the FAPI 2.0 Security Profile demands of a resource server (§5.3.4, §5.4):
	// only PS256, ES256 and EdDSA; tokens that are bound by DPoP or MTLS, of which one must be on;
	// a leeway of 10 s by default; and either Introspection.Always, or iat and a lifetime of at
	// most 5 min.
	FAPI2 bool
	// Introspection has the issuer asked whether tokens are active (RFC 7662). Default: off.
	Introspection Introspection
	Keys          KeyPolicy
}

// NoLeeway as an Issuer's Leeway grants none.
const NoLeeway time.Duration = -1

const (
	defaultLeeway, mostLeeway = 30 * time.Second, 60 * time.Second
	defaultMaxLifetime        = 24 * time.Hour
)

// issuer is an Issuer with its defaults filled in, and its keys.
type issuer struct {
	Issuer
	tenant    string          // that tid must name; "": the issuer has no tenants
	grantable map[string]bool // nil: all
	resolved  bool            // by Config.Resolve
	keys      *source
}

// Validate returns every fault of the issuer, joined: those for which [NewVerifier] refuses it.
func (i Issuer) Validate() error { return errors.Join(i.complete()...) }

// complete fills in the defaults, makes the lists its own, and returns all faults.
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
		fault("algorithms: the list is empty, so that no token would pass; leave it unset for " +
			"the default")
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
	case i.Leeway < 0 || i.Leeway > mostLeeway:
		fault("leeway is %s: expected at most %s", i.Leeway, mostLeeway)
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
		fault("maximum staleness of keys is %s, less than their maximum age of %s: "+
			"keys would end before they are refreshed", i.Keys.MaxStale, i.Keys.MaxAge)
	}
	return faults
}

// The bounds of the FAPI 2.0 Security Profile.
const (
	fapi2Leeway      = 10 * time.Second // that must be granted to iat and nbf (§5.3.2.1)
	fapi2Ahead       = time.Minute      // beyond which no iat may lie in the future (§5.3.2.1)
	fapi2MaxLifetime = 5 * time.Minute  // without introspection: that a revocation takes effect
)

// fapi2Algorithms are those of §5.4.1.
var fapi2Algorithms = []string{"PS256", "ES256", "EdDSA"}

// completeFAPI2 sets the defaults of the profile, and checks what is set against it.
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
			fapi2Leeway, mostLeeway)
	}
	if !i.Introspection.Always {
		if i.MaxLifetime == 0 {
			i.MaxLifetime = fapi2MaxLifetime
		}
		if i.MaxLifetime > fapi2MaxLifetime {
			fault("maximum lifetime is %s: expected at most %s, or Introspection.Always, so that "+
				"revoked tokens do not last (FAPI 2.0 §5.3.4)", i.MaxLifetime, fapi2MaxLifetime)
		}
	}
}

// completeURLs checks where the issuer and its keys are.
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
					"InsecureHTTP",
					place.name, place.url)
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
		fault("InsecureHTTP is set, but no URL is http: leave it out")
	}
	if _, err := i.staticKeys(); err != nil {
		fault("%w", err)
	}
}

// completeClaims checks where in a token things are.
func (i *Issuer) completeClaims(fault func(string, ...any)) {
	if i.ScopeClaims == nil {
		i.ScopeClaims = []string{scopeClaim}
	}
	for _, pointer := range i.ScopeClaims {
		if !isPointer(pointer) {
			fault("scope claim %q: expected a JSON pointer (RFC 6901) such as /scope or "+
				"/realm_access/roles",
				pointer)
		}
	}
	if i.AudienceClaim == "" {
		i.AudienceClaim = audClaim
	}
	if !isPointer(i.AudienceClaim) {
		fault("audience claim %q: expected a JSON pointer (RFC 6901) such as /aud", i.AudienceClaim)
	}
	if i.RFC9068 && i.AudienceClaim != audClaim {
		fault("audience claim %q: the strict profile demands aud (RFC 9068 §4); leave one of the "+
			"two unset",
			i.AudienceClaim)
	}
	if i.RFC9068 && i.SubjectOptional {
		fault("SubjectOptional is set, but the strict profile demands sub (RFC 9068 §2.2); " +
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
			fault("required claim %q: no value is given, so that no token would pass", pointer)
		} else {
			i.RequiredClaims[pointer] = slices.Clone(values)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(i.ScopeNames)) {
		if scopes := i.ScopeNames[value]; value == "" || !isScopeString(scopes) {
			fault("scope name %q stands for %q: expected a value of the scope claims, "+
				"and scopes with single spaces between them", value, scopes)
		}
	}
	for _, scope := range i.GrantableScopes {
		if !isScopeString(scope) || strings.Contains(scope, " ") {
			fault("grantable scope %q: expected one scope, without spaces", scope)
		}
	}
}

// staticKeys returns the keys that the configuration itself has; nil where they are fetched.
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
