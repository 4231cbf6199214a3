package authztest

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// Credential is a source of credentials for a security scheme that does not take access tokens.
type Credential struct {
	// Genuine returns a credential that the server accepts and whose principal has exactly these
	// roles: a key, or a user name and a password separated by a colon. It is called once per case.
	// If its error wraps [errors.ErrUnsupported], the case is skipped.
	Genuine func(ctx context.Context, roles []string) (string, error)
	// Present adds the credential to a request if the document does not say how: a client
	// certificate, or the credential of a custom http scheme. In process, it may set the request's
	// TLS.
	Present func(r *http.Request, credential string) error
}

// other is a credential of a case other than its token.
type other struct {
	scheme string
	roles  []string
	change func(credential string) string // nil: genuine
	in     string                         // the place where it is put; "": as the document says
}

// schemes are the security schemes of a plan.
type schemes struct{ *authz.Plan }

func (s schemes) isToken(name string) bool {
	spec := s.Scheme(name)
	return spec != nil && (spec.Type == "oauth2" || spec.Type == "openIdConnect" ||
		spec.Type == "http" && strings.EqualFold(spec.Scheme, "bearer"))
}

// isAmbient reports whether browsers send the credential by themselves.
func (s schemes) isAmbient(name string) bool {
	spec := s.Scheme(name)
	return spec != nil &&
		(spec.Type == "mutualTLS" || spec.Type == "apiKey" && spec.In == "cookie" ||
			spec.Type == "http" && strings.EqualFold(spec.Scheme, "basic"))
}

func (s schemes) onlyTokens(o authz.Operation) bool {
	for _, a := range o.Alternatives {
		if slices.ContainsFunc(a, func(r authz.Requirement) bool { return !s.isToken(r.Scheme) }) {
			return false
		}
	}
	return true
}

// presented maps the schemes of a request's credentials to their scopes or roles. The key for all
// tokens is "".
type presented map[string][]string

func (p presented) with(scheme string, scopes []string) presented {
	all := presented{scheme: scopes}
	for name, had := range p {
		if name != scheme {
			all[name] = had
		}
	}
	return all
}

func (p presented) without(scheme string) presented {
	all := p.with(scheme, nil)
	delete(all, scheme)
	return all
}

func (s schemes) key(r authz.Requirement) string {
	if s.isToken(r.Scheme) {
		return ""
	}
	return r.Scheme
}

// wants returns the expected response to genuine credentials. If no alternative is satisfied and
// one only lacks scopes or roles, the response is 403.
func (s schemes) wants(o authz.Operation, p presented) authz.Kind {
	want := authz.MissingCredential
	for _, a := range o.Alternatives {
		missing, lacks := false, authz.Kind("")
		for _, r := range a {
			has, ok := p[s.key(r)]
			missing = missing || !ok
			if lacking := ok && lacksAny(o, r, has); lacking &&
				(lacks == "" || s.isToken(r.Scheme)) {
				lacks = authz.InsufficientRole
				if s.isToken(r.Scheme) {
					lacks = authz.InsufficientScope
				}
			}
		}
		switch {
		case missing:
		case lacks == "":
			return ""
		case want != authz.InsufficientScope:
			want = lacks
		}
	}
	return want
}

func lacksAny(o authz.Operation, r authz.Requirement, granted []string) bool {
	return slices.ContainsFunc(r.Scopes, func(scope string) bool {
		return !has(granted, scope, o.GrantedBy(r.Scheme, scope))
	})
}

// cases returns the cases of an operation that takes credentials other than tokens.
func (s schemes) cases(o authz.Operation) (all []Case) {
	nothing := authz.MissingCredential
	if o.Optional() {
		nothing = ""
	}
	all = append(all, Case{Name: o.ID + "/no_credential", Operation: o, Want: nothing})
	if !o.Optional() {
		all = append(
			all,
			Case{
				Name:      o.ID + "/invalid_body_without_credential",
				Operation: o,
				Want:      nothing,
				body:      invalidBody,
			},
			Case{
				Name:      o.ID + "/huge_body_without_credential",
				Operation: o,
				Want:      nothing,
				body:      hugeBody,
			},
		)
	}
	var prefixes []string
	for _, a := range o.Alternatives {
		if len(a) == 0 {
			continue
		}
		prefix := o.ID + "/" + label(a) + "/"
		if !slices.Contains(prefixes, prefix) {
			prefixes = append(prefixes, prefix)
			all = append(all, s.alternativeCases(o, a, prefix)...)
		}
	}
	return all
}

func label(a authz.Alternative) string {
	var parts []string
	for _, r := range a {
		parts = append(parts, r.Scheme+"("+strings.Join(r.Scopes, ",")+")")
	}
	return strings.Join(parts, "+")
}

// alternativeCases returns requests that differ in one way from a request that satisfies the
// alternative.
func (s schemes) alternativeCases(
	o authz.Operation,
	a authz.Alternative,
	prefix string,
) (cases []Case) {
	v := variations{schemes: s, operation: o, alternative: a, prefix: prefix, full: presented{}}
	for _, r := range a {
		v.full[s.key(r)] = union(v.full[s.key(r)], r.Scopes)
	}
	v.add("exact_scopes", v.full, "", genuine)
	ambient := !slices.ContainsFunc(
		a,
		func(r authz.Requirement) bool { return !s.isAmbient(r.Scheme) },
	)
	if ambient && caution(o) > 0 && o.Method != http.MethodOptions && !o.Optional() {
		v.add("cross_site", v.full, authz.CrossOrigin, genuine).crossSite = true
	}
	for _, key := range sortedKeys(v.full) {
		rest := v.full.without(key)
		if len(v.full) > 1 {
			v.add(named(key)+"_missing", rest, s.wantsOrNothing(o, rest), genuine)
		}
		v.removeScopes(key)
		if key == "" {
			v.forgeToken(rest)
		} else {
			v.changeCredential(key, rest)
			v.misplaceKey(key, rest)
		}
	}
	return v.cases
}

// variations are the cases of an alternative.
type variations struct {
	schemes
	operation   authz.Operation
	alternative authz.Alternative
	prefix      string    // of the names
	full        presented // satisfies the alternative
	cases       []Case
}

func (v *variations) add(name string, p presented, want authz.Kind, token credential) *Case {
	c := Case{Name: v.prefix + name, Operation: v.operation, Want: want, mixed: true}
	if scopes, ok := p[""]; ok {
		c.credential, c.Scopes = token, scopes
	}
	for _, r := range v.alternative {
		if roles, ok := p[r.Scheme]; ok {
			c.others = append(c.others, other{scheme: r.Scheme, roles: roles})
		}
	}
	v.cases = append(v.cases, c)
	return &v.cases[len(v.cases)-1]
}

// removeScopes adds cases in which one scope is missing, or granted to the principal of another
// scheme.
func (v *variations) removeScopes(key string) {
	add := func(name string, p presented) {
		v.add(name, p, v.wantsOrNothing(v.operation, p), genuine)
	}
	for _, scope := range v.full[key] {
		fewer := slices.DeleteFunc(
			slices.Clone(v.full[key]),
			func(had string) bool { return had == scope },
		)
		without := v.full.with(key, fewer)
		add(named(key)+"_"+scope+"_removed", without)
		for _, elsewhere := range sortedKeys(v.full.without(key)) {
			add(named(key)+"_"+scope+"_of_"+named(elsewhere),
				without.with(elsewhere, union(v.full[elsewhere], []string{scope})))
		}
	}
}

// forgeToken adds cases with a forged token. rest are the other credentials.
func (v *variations) forgeToken(rest presented) {
	for _, forgery := range forgeries {
		v.add(forgery.name, v.full, v.refusal(rest, authz.InvalidToken), forgery)
	}
	if v.wants(v.operation, rest) != "" {
		v.add("keys_unavailable", v.full, authz.KeysUnavailable, genuine).outage = true
	}
}

// changeCredential adds cases with a changed credential.
func (v *variations) changeCredential(key string, rest presented) {
	for _, change := range changes(v.Scheme(key)) {
		c := v.add(key+"_"+change.name, v.full, v.refusal(rest, authz.InvalidCredential), genuine)
		c.other(key).change = change.apply
	}
}

// misplaceKey adds cases with a key in another place than expected.
func (v *variations) misplaceKey(key string, rest presented) {
	want := v.wantsOrNothing(v.operation, rest)
	if want == "" {
		return // it is a parameter that the operation does not declare, which proves nothing
	}
	for _, place := range otherPlaces(v.Scheme(key)) {
		v.add(key+"_in_"+place, v.full, want, genuine).other(key).in = place
	}
}

// refusal returns the expected response to an invalid credential, which is refused unless the rest
// satisfies the operation. The refusal is that of the nearest alternative.
func (v *variations) refusal(rest presented, kind authz.Kind) authz.Kind {
	switch want := v.wants(v.operation, rest); {
	case v.operation.Optional():
	case want == "", want == authz.InsufficientScope, want == authz.InsufficientRole:
		return want
	}
	return kind
}

// other returns the case's credential of a scheme.
func (c *Case) other(scheme string) *other {
	return &c.others[slices.IndexFunc(c.others, func(o other) bool { return o.scheme == scheme })]
}

// wantsOrNothing is like wants, but accepts everything if credentials are optional.
func (s schemes) wantsOrNothing(o authz.Operation, p presented) authz.Kind {
	if o.Optional() {
		return ""
	}
	return s.wants(o, p)
}

func named(key string) string {
	if key == "" {
		return "token"
	}
	return key
}

func sortedKeys(p presented) []string {
	keys := make([]string, 0, len(p))
	for key := range p {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

type change struct {
	name  string
	apply func(credential string) string
}

// changes returns credentials that a sloppy comparison would accept.
func changes(spec *openapi3.SecurityScheme) []change {
	all := []change{
		{"cut_short", func(s string) string { return s[:len(s)-1] }},
		{"with_suffix", func(s string) string { return s + "x" }},
	}
	switch {
	case spec.Type == "http" && strings.EqualFold(spec.Scheme, "basic"):
		return append(all, change{"of_another_user", func(s string) string { return "x" + s }})
	case spec.Type == "apiKey":
		return all
	}
	return nil
}

// otherPlaces returns the places where a key is not expected.
func otherPlaces(spec *openapi3.SecurityScheme) []string {
	if spec.Type != "apiKey" {
		return nil
	}
	return slices.DeleteFunc(
		[]string{"header", "query", "cookie"},
		func(in string) bool { return in == spec.In },
	)
}

// secrets returns the other credentials of a case, or why it must be skipped.
func (r *run) secrets(ctx context.Context, c Case) (secrets []string, skip string, err error) {
	for _, o := range c.others {
		how, spec := r.Credentials[o.scheme], r.schemes.Scheme(o.scheme)
		documented := spec.Type == "apiKey" ||
			spec.Type == "http" && strings.EqualFold(spec.Scheme, "basic")
		switch {
		case how.Genuine == nil:
			return nil, fmt.Sprintf("needs Target.Credentials[%q]", o.scheme), nil
		case how.Present == nil && !documented:
			return nil, fmt.Sprintf("needs Target.Credentials[%q].Present", o.scheme), nil
		}
		secret, err := how.Genuine(ctx, o.roles)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, err.Error(), nil
		}
		if err != nil {
			return nil, "", err
		}
		if o.change != nil {
			secret = o.change(secret)
		}
		secrets = append(secrets, secret)
	}
	return secrets, "", nil
}

// present adds the other credentials of a case to its request.
func (r *run) present(sent *http.Request, c Case, secrets []string) error {
	if c.crossSite {
		sent.Header.Set("Sec-Fetch-Site", "cross-site")
		sent.Header.Set("Origin", "https://elsewhere.invalid")
	}
	for i, o := range c.others {
		switch spec := r.schemes.Scheme(o.scheme); {
		case r.Credentials[o.scheme].Present != nil:
			if err := r.Credentials[o.scheme].Present(sent, secrets[i]); err != nil {
				return err
			}
		case spec.Type == "apiKey":
			presentKey(sent, cmp.Or(o.in, spec.In), spec.Name, secrets[i])
		default:
			sent.Header.Set(
				"Authorization",
				"Basic "+base64.StdEncoding.EncodeToString([]byte(secrets[i])),
			)
		}
	}
	return nil
}

func presentKey(sent *http.Request, in, name, key string) {
	switch in {
	case "header":
		sent.Header.Set(name, key)
	case "query":
		query := sent.URL.Query()
		query.Set(name, key)
		sent.URL.RawQuery = query.Encode()
	case "cookie":
		sent.AddCookie(&http.Cookie{Name: name, Value: key})
	}
}
