package token

import (
	"slices"
	"strings"
)

// tenantPlaceholder stands for the tenant in the URL of a multi-tenant issuer, as in Entra's
// metadata: https://login.microsoftonline.com/{tenantid}/v2.0.
const tenantPlaceholder = "{tenantid}"

// maxTenantBytes bounds the name of a tenant; a UUID has 36 bytes.
const maxTenantBytes = 128

func (i *Issuer) completeTenants(fault func(string, ...any)) {
	templates := strings.Count(i.URL, tenantPlaceholder)
	switch {
	case templates == 0 && strings.ContainsAny(i.URL, "{}"):
		fault("expected no placeholder but %s", tenantPlaceholder)
	case templates == 0:
		if i.Tenants != nil || i.InsecureAnyTenant {
			fault("tenants are given, but the URL has no %s to stand for them", tenantPlaceholder)
		}
		if strings.Contains(i.DiscoveryURL+i.JWKSURI, tenantPlaceholder) {
			fault("the URL of the keys has %s, but that of the issuer does not", tenantPlaceholder)
		}
	case templates > 1 || !slices.Contains(strings.Split(i.URL, "/"), tenantPlaceholder):
		fault("expected %s once, as a segment of the path", tenantPlaceholder)
	case i.InsecureAnyTenant && i.Tenants != nil:
		fault("Tenants and InsecureAnyTenant are both set: leave one of them out")
	case i.InsecureAnyTenant && !i.commonKeys():
		fault("InsecureAnyTenant: the keys must be common to all tenants. Set DiscoveryURL or "+
			"JWKSURI, without %s", tenantPlaceholder)
	case !i.InsecureAnyTenant && len(i.Tenants) == 0:
		fault("the URL has %s, but no tenants are given: list those that are accepted, "+
			"or set InsecureAnyTenant", tenantPlaceholder)
	}
	for n, tenant := range i.Tenants {
		if !isTenant(tenant) {
			fault("tenant %q: expected letters, digits and -._ only", tenant)
		} else if slices.Contains(i.Tenants[:n], tenant) {
			fault("tenant %q is listed twice", tenant)
		}
	}
}

// commonKeys reports whether all tenants have the same keys.
func (i *Issuer) commonKeys() bool {
	if i.JWKS != nil || i.PublicKeyPEM != nil {
		return true
	}
	place := i.DiscoveryURL + i.JWKSURI
	return place != "" && !strings.Contains(place, tenantPlaceholder)
}

// isTenant reports whether s is safe as a segment of a URL.
func isTenant(s string) bool {
	return s != "" && len(s) <= maxTenantBytes && s != "." && s != ".." &&
		!strings.ContainsFunc(s, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
				c == '-' || c == '.' || c == '_')
		})
}

// forTenant returns the issuer of one tenant, from the template i.
func (i issuer) forTenant(tenant string) *issuer {
	i.tenant = tenant
	i.URL = withTenant(i.URL, tenant)
	i.DiscoveryURL, i.JWKSURI = withTenant(i.DiscoveryURL, tenant), withTenant(i.JWKSURI, tenant)
	i.Introspection.Endpoint = withTenant(i.Introspection.Endpoint, tenant)
	return &i
}

func withTenant(url, tenant string) string {
	return strings.ReplaceAll(url, tenantPlaceholder, tenant)
}

// tenantOf returns the tenant in an iss that matches a template.
func tenantOf(template, iss string) (string, bool) {
	before, after, _ := strings.Cut(template, tenantPlaceholder)
	rest, ok := strings.CutPrefix(iss, before)
	if !ok {
		return "", false
	}
	tenant, ok := strings.CutSuffix(rest, after)
	return tenant, ok && isTenant(tenant)
}

// checkTenant checks that iss and tid name the same tenant. Otherwise an administrator of one
// tenant who controls one of the claims could impersonate another tenant.
func (c *claims) checkTenant(i *issuer) error {
	if i.tenant == "" {
		return nil
	}
	if string(c.tid) != i.tenant {
		return refuse(WrongIssuer, "tenant (tid) is %s, expected that of the issuer, %s",
			quote(string(c.tid)), quote(i.tenant))
	}
	return nil
}

// checkKey checks the issuer of a key. In Microsoft's key set, which all tenants share, each key
// names the issuer whose tokens it signs; personal accounts have separate keys.
func (i *issuer) checkKey(k *key) error {
	if i.tenant == "" || k.issuer == "" || withTenant(k.issuer, i.tenant) == i.URL {
		return nil
	}
	return refuse(UnknownKey, "key %s is for tokens of %s only", quote(k.kid), quote(k.issuer))
}
