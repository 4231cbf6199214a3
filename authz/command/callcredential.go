package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/token"
)

// plan returns the document and its plan, as serve and dev use them: with the overlays and
// the base path of the environment, or of the flags of call.
func (p *program) plan() (*openapi3.T, *authz.Plan, *policy, error) {
	f := faults{prefix: p.prefix()}
	served := &policy{
		basePath: p.env.lookup("BASE_PATH"), publicPath: p.env.lookup("PUBLIC_PATH"),
		// the server refuses operations without stated security
		unstated: authz.DenyUnstated,
	}
	served.overlays = f.overlays(p.env.lookup("OVERLAY"))
	if names := p.env.lookup("WITHOUT"); names != "" {
		served.without = f.list("WITHOUT", names)
	}
	if f.all != nil {
		return nil, nil, nil, &configurationError{errors.Join(f.all...)}
	}
	document, err := served.document(p.Document)
	if err != nil {
		return nil, nil, nil, err
	}
	plan, err := served.plan(document)
	return document, plan, served, err
}

// isToken reports whether a security scheme takes access tokens.
func isToken(spec *openapi3.SecurityScheme) bool {
	return spec != nil && (spec.Type == "oauth2" || spec.Type == "openIdConnect" ||
		spec.Type == "http" && strings.EqualFold(spec.Scheme, "bearer"))
}

func isBasic(spec *openapi3.SecurityScheme) bool {
	return spec != nil && spec.Type == "http" && strings.EqualFold(spec.Scheme, "basic")
}

// options returns the options of an operation, unset.
func (o *callable) options(hasDev bool) callOptions {
	c := callOptions{hasDev: hasDev}
	for _, alternative := range o.Alternatives {
		for _, r := range alternative {
			spec := o.plan.Scheme(r.Scheme)
			c.takesUser = c.takesUser || isBasic(spec)
			if spec != nil && spec.Type == "apiKey" && !slices.Contains(c.keySchemes, r.Scheme) {
				c.keySchemes = append(c.keySchemes, r.Scheme)
			}
		}
	}
	return c
}

// secret returns the credential for a security scheme that does not take access tokens, or "".
func (c *callOptions) secret(env environment, name string, spec *openapi3.SecurityScheme) string {
	switch {
	case isBasic(spec):
		return cmp.Or(c.user, env.lookup("USER"), c.ofDev("full:"+devSecret))
	case spec == nil || spec.Type != "apiKey":
		return ""
	}
	for _, given := range c.keys {
		if scheme, value, _ := strings.Cut(given, "="); scheme == name {
			return value
		}
	}
	return cmp.Or(env.lookup(keyVariable(name)), c.ofDev(devSecret))
}

// ofDev returns a credential that dev accepts, if the API is that of dev.
func (c *callOptions) ofDev(secret string) string {
	if c.usesDev() && c.client == "full" && c.as == "" {
		return secret
	}
	return ""
}

// keyVariable returns the variable of an API key, without the program's prefix: KEY_X_API of x-api.
func keyVariable(scheme string) string {
	return "KEY_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, scheme)
}

// explicit reports whether a flag gives the credential for a security scheme.
func (c *callOptions) explicit(name string, spec *openapi3.SecurityScheme) bool {
	return isBasic(spec) && c.user != "" || slices.ContainsFunc(c.keys, func(given string) bool {
		return strings.HasPrefix(given, name+"=")
	})
}

// choose returns the alternative with which to call the operation. All of its credentials are
// available. Alternatives with more credentials from flags come first, then those that require
// fewer scopes. The result is empty if no credential is required, and none is given.
func (o *callable) choose(c *callOptions, env environment) (authz.Alternative, error) {
	var best authz.Alternative
	named, fewest, found := 0, 0, false
	var lacking []string
	for _, a := range o.Alternatives {
		explicit, scopes, lacks := 0, 0, ""
		for _, r := range a {
			spec := o.plan.Scheme(r.Scheme)
			scopes += len(r.Scopes)
			switch {
			case c.explicit(r.Scheme, spec):
				explicit++
			case isToken(spec) || c.secret(env, r.Scheme, spec) != "":
			default:
				lacks = o.hint(r.Scheme, spec, env)
			}
		}
		switch {
		case len(a) == 0:
		case lacks != "":
			lacking = append(lacking, lacks)
		case !found || explicit > named || explicit == named && scopes < fewest:
			best, named, fewest, found = a, explicit, scopes, true
		}
	}
	if found || o.Public() || o.Optional() || o.Denied != "" {
		return best, nil
	}
	return nil, &configurationError{fmt.Errorf("%s needs a credential: %s", o.ID,
		strings.Join(lacking, "; or "))}
}

// hint describes how to give the credential for a security scheme.
func (o *callable) hint(name string, spec *openapi3.SecurityScheme, env environment) string {
	switch {
	case isBasic(spec):
		return "give --user name:password, or " + env.key("USER")
	case spec != nil && spec.Type == "apiKey":
		return fmt.Sprintf("give --key %s=value, or %s", name, env.key(keyVariable(name)))
	}
	return fmt.Sprintf("call has no credential for the security scheme %s", name)
}

// present adds the credentials of an alternative, other than access tokens, to a request.
func (o *callable) present(
	r *http.Request, a authz.Alternative, c *callOptions, env environment,
) error {
	for _, requirement := range a {
		spec := o.plan.Scheme(requirement.Scheme)
		secret := c.secret(env, requirement.Scheme, spec)
		switch {
		case isToken(spec): // package client refuses the same
		case r.URL.Scheme != "https" && !token.IsLoopback(r.URL.Hostname()):
			return &configurationError{fmt.Errorf("--url is %q: expected an https URL, http on "+
				"loopback hosts only, because a credential is sent there", c.url)}
		case isBasic(spec):
			user, password, found := strings.Cut(secret, ":")
			if !found {
				return errors.New("--user: expected name:password")
			}
			r.SetBasicAuth(user, password)
		case spec.In == openapi3.ParameterInHeader:
			r.Header.Set(spec.Name, secret)
		case spec.In == openapi3.ParameterInQuery:
			if r.URL.RawQuery != "" {
				r.URL.RawQuery += "&"
			}
			r.URL.RawQuery += url.QueryEscape(spec.Name) + "=" + url.QueryEscape(secret)
		default:
			r.AddCookie(&http.Cookie{Name: spec.Name, Value: secret})
		}
	}
	return nil
}

// tokenScopes returns the scopes that an alternative requires of an access token, and whether it
// requires one.
func (o *callable) tokenScopes(a authz.Alternative) (scopes []string, required bool) {
	for _, r := range a {
		if isToken(o.plan.Scheme(r.Scheme)) {
			scopes, required = append(scopes, r.Scopes...), true
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes), required
}

// describe describes the credentials that an alternative requires.
func (o *callable) describe(a authz.Alternative) string {
	var parts []string
	if scopes, required := o.tokenScopes(a); required && len(scopes) > 0 {
		parts = append(parts, "token with "+strings.Join(scopes, " and "))
	} else if required {
		parts = append(parts, "token")
	}
	for _, r := range a {
		switch spec := o.plan.Scheme(r.Scheme); {
		case isToken(spec):
		case isBasic(spec):
			parts = append(parts, "user and password")
		case spec != nil && spec.Type == "apiKey":
			parts = append(parts, "key "+r.Scheme)
		default:
			parts = append(parts, r.Scheme)
		}
	}
	return strings.Join(parts, " and ")
}

// caller returns the client that sends the request, with a token that has exactly the scopes that
// the operation requires (or those of --scope), or without a token if the operation is public. It
// does not follow redirects.
func (o *callable) caller(
	ctx context.Context, a authz.Alternative, c *callOptions, env environment,
) (*http.Client, error) {
	plain := unredirected()
	scopes, required := o.tokenScopes(a)
	if !required {
		return plain, nil
	}
	if len(c.scope) > 0 {
		scopes = c.scope
	}
	if c.as != "" {
		token, err := signIn(ctx, c.url, c.as, scopes)
		if err != nil {
			return nil, tokenError(err, c.aboutDev(env))
		}
		plain.Transport = &oauth2.Transport{Source: oauth2.StaticTokenSource(token)}
		return plain, nil
	}
	secret, err := env.secret("CLIENT_SECRET")
	if err != nil {
		return nil, &configurationError{err}
	}
	config := client.Config{
		Issuer: c.issuer, ClientID: c.clientID, ClientSecret: secret,
		Audience: c.audience, Scopes: scopes,
	}
	if c.usesDev() {
		if c.client == "none" {
			scopes = nil // dev would refuse to grant any
		}
		config = devClient(c.url, c.client, scopes)
	} else if err := c.credentials(env, secret != ""); err != nil {
		return nil, &configurationError{err}
	}
	if !c.usesDev() && len(c.scope) == 0 {
		names, err := c.requested(env, config.Scopes)
		if err != nil {
			return nil, &configurationError{err}
		}
		config.Scopes = names
	}
	config.DPoP, config.HTTPClient = c.dpop, plain
	source, err := client.New(ctx, config)
	if err != nil {
		return nil, &configurationError{err}
	}
	caller, err := source.Client(c.base)
	if err != nil {
		return nil, &configurationError{err}
	}
	if _, err := source.Token(); err != nil {
		return nil, tokenError(err, c.aboutDev(env))
	}
	return caller, nil
}

// requested returns what the issuer is asked for to grant the scopes, as --config says.
func (c *callOptions) requested(env environment, scopes []string) ([]string, error) {
	if c.file == "" {
		return scopes, nil
	}
	issuers, err := readIssuers(env.key("CONFIG"), c.file)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, i := range issuers {
		if i.URL == c.issuer {
			return i.ScopesToRequest(scopes), nil
		}
		urls = append(urls, i.URL)
	}
	return nil, fmt.Errorf("--issuer is %q, which %s does not list: expected %s, or --scope",
		c.issuer, c.file, strings.Join(urls, " or "))
}

// credentials returns an error if the issuer or the client's credentials are missing.
func (c *callOptions) credentials(env environment, hasSecret bool) error {
	id, secret := env.key("CLIENT_ID"), env.key("CLIENT_SECRET")
	switch given := c.clientID != "" && hasSecret; {
	case c.issuer == "":
		return fmt.Errorf("--issuer (%s) is not set: expected the issuer of the token",
			env.key("ISSUER"))
	case !given && c.hasDev:
		return fmt.Errorf("--issuer is %q: set --client-id (%s) and the secret in %s, or add --dev",
			c.issuer, id, secret)
	case !given:
		return fmt.Errorf("--issuer is %q: set --client-id (%s) and the secret in %s",
			c.issuer, id, secret)
	}
	return nil
}
