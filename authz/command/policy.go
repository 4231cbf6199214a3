package command

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/overlay"
	"github.com/oasgate/oasgate/authz/token"
)

// policyConfig holds the settings of serve and dev that concern the document. The values are
// strings, as in [config].
type policyConfig struct {
	Overlays       string `name:"overlay" key:"OVERLAY" group:"The document:" help:"OpenAPI overlays to apply to the document, in this order, separated by commas."`
	BasePath       string `name:"base-path" key:"BASE_PATH" group:"The document:" help:"Prefix of the document's paths, such as /v1; / for none. Default: the path of the document's servers."`
	PublicPath     string `name:"public-path" key:"PUBLIC_PATH" group:"The document:" help:"The prefix for clients, if a proxy changes it; / for none. Default: the base path."`
	Without        string `name:"without" key:"WITHOUT" group:"The document:" help:"Security schemes to disable, separated by commas. An operation with no other scheme is closed."`
	Undecoded      string `name:"undecoded" key:"UNDECODED" default:"refuse" group:"The document:" help:"Media types of request bodies that cannot be decoded: refuse (to start) or deny (bodies of such a type)."`
	Unstated       string `name:"unstated" key:"UNSTATED" default:"refuse" group:"The document:" help:"Operations without a security requirement: refuse (to start) or deny (every request to them)."`
	MaxBody        string `name:"max-body" key:"MAX_BODY" default:"1MiB" group:"The document:" help:"Maximum size of a request body. An operation can override it with x-authz-max-body."`
	RequestTimeout string `name:"request-timeout" key:"REQUEST_TIMEOUT" default:"20s" group:"The document:" help:"Maximum time of a request, such as 20s or 2m, or none. An operation can override it with x-authz-timeout. Responses that stream are limited by progress instead."`
	WriteTimeout   string `name:"write-timeout" key:"WRITE_TIMEOUT" group:"The document:" help:"Time after which a client that has not received the response is disconnected, or none. Default: 10s more than the request timeout."`
	Credentials    string `name:"credentials" key:"CREDENTIALS" group:"The document:" help:"YAML file of API keys and HTTP Basic users, by security scheme. serve reloads it on SIGHUP. The command credential creates entries."`
}

// policy holds the parsed values of a policyConfig.
type policy struct {
	overlays             [][]byte
	basePath, publicPath string
	without              []string
	unstated             authz.Unstated
	undecoded            authz.Undecoded
	maxBody              int64
	requestTimeout       time.Duration
	writeTimeout         time.Duration // 0: the default
	credentials          atomic.Pointer[credentials]
	fallback             credentials // if neither the file nor the program has any
}

// credentials are the secrets of clients, by security scheme.
type credentials map[string]authz.Secrets

// policy parses the values, or returns all faults, joined.
func (c policyConfig) policy(prefix string) (*policy, error) {
	f := faults{prefix: prefix}
	p := &policy{basePath: c.BasePath, publicPath: c.PublicPath}
	p.overlays = f.overlays(c.Overlays)
	if c.Without != "" {
		p.without = f.list("WITHOUT", c.Without)
	}
	switch c.Unstated {
	case "refuse":
	case "deny":
		p.unstated = authz.DenyUnstated
	default:
		f.add("UNSTATED", c.Unstated, "refuse or deny")
	}
	switch c.Undecoded {
	case "refuse":
	case "deny":
		p.undecoded = authz.DenyUndecoded
	default:
		f.add("UNDECODED", c.Undecoded, "refuse or deny")
	}
	var err error
	if p.maxBody, err = authz.ParseSize(c.MaxBody); err != nil {
		f.add("MAX_BODY", c.MaxBody, "a size such as 1MiB, 64KiB or 1000")
	}
	p.requestTimeout = f.timeout("REQUEST_TIMEOUT", c.RequestTimeout)
	if c.WriteTimeout != "" {
		p.writeTimeout = f.timeout("WRITE_TIMEOUT", c.WriteTimeout)
		valid := p.requestTimeout != 0 && p.writeTimeout != 0
		if valid && !outlasts(p.writeTimeout, p.requestTimeout) {
			f.add("WRITE_TIMEOUT", c.WriteTimeout, "more than %s, which is %s, so that clients "+
				"can still receive an error", f.key("REQUEST_TIMEOUT"), c.RequestTimeout)
		}
	}
	read, err := c.readCredentials(prefix)
	if err != nil {
		f.all = append(f.all, err)
	}
	p.credentials.Store(&read)
	if f.all != nil {
		return nil, errors.Join(f.all...)
	}
	return p, nil
}

// outlasts reports whether a write timeout leaves time to answer after the request timeout.
func outlasts(write, request time.Duration) bool {
	return write == authz.NoTimeout || request != authz.NoTimeout && write > request
}

// overlays reads the files of overlays, separated by commas.
func (f *faults) overlays(names string) (texts [][]byte) {
	if names == "" {
		return nil
	}
	for _, name := range f.list("OVERLAY", names) {
		text, err := os.ReadFile(name)
		if err != nil {
			f.add("OVERLAY", name, "a readable file: %v", err)
		}
		texts = append(texts, text)
	}
	return texts
}

// document returns the document with the overlays applied. It sets the base path if it is not set.
func (p *policy) document(load func() (*openapi3.T, error)) (*openapi3.T, error) {
	doc, err := load()
	if err == nil {
		doc, err = overlay.ApplyTo(doc, p.overlays...)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot load the document: %w", err)
	}
	if p.basePath == "" {
		p.basePath, err = authz.BasePath(doc)
	}
	return doc, err
}

// plan compiles the security of the document under the policy.
func (p *policy) plan(doc *openapi3.T) (*authz.Plan, error) {
	return authz.Config{Document: doc, Without: p.without, Unstated: p.unstated}.CompileSecurity()
}

// prefix returns the prefix of the document's paths, or "" for none.
func (p *policy) prefix() string {
	if p.basePath == "/" {
		return ""
	}
	return p.basePath
}

// clientPrefix returns the prefix of the document's paths for clients, or "" for none.
func (p *policy) clientPrefix() string {
	switch p.publicPath {
	case "":
		return p.prefix()
	case "/":
		return ""
	}
	return p.publicPath
}

// addDevSecrets adds credentials for the security schemes that have none. Like the clients of dev,
// they are public.
func (p *policy) addDevSecrets(plan *authz.Plan) error {
	p.fallback = credentials{}
	roles := map[string][]string{}
	for _, o := range plan.Operations() {
		for _, alternative := range o.Alternatives {
			for _, r := range alternative {
				roles[r.Scheme] = append(roles[r.Scheme], r.Scopes...)
			}
		}
	}
	for name, scopes := range roles {
		if spec := plan.Scheme(name); spec.Type != "apiKey" && !isBasic(spec) {
			continue
		}
		slices.Sort(scopes)
		principal, err := token.NewPrincipal(token.PrincipalConfig{
			Issuer: credentialIssuer, Subject: devID, ClientID: devID,
			Scopes: slices.Compact(scopes),
		})
		if err != nil {
			return err
		}
		p.fallback[name] = authz.Secrets{
			{ID: devID, SHA256: sha256.Sum256([]byte(devSecret)), Principal: principal},
		}
	}
	return nil
}

// gate completes the configuration of a gate.
func (p *policy) gate(c *authz.Config) {
	c.BasePath, c.PublicPath = p.prefix(), p.publicPath
	c.Undecoded = p.undecoded
	c.Without, c.Unstated, c.MaxBodyBytes = p.without, p.unstated, p.maxBody
	authenticators := maps.Clone(c.Authenticators)
	if authenticators == nil {
		authenticators = map[string]authz.Authenticator{}
	}
	accept := func(name string, secrets authz.Secrets) {
		if isHTTPScheme(c.Document, name) {
			authenticators[name] = authz.Basic(secrets.User)
		} else {
			authenticators[name] = authz.APIKey(secrets.Key)
		}
	}
	for name, secrets := range *p.credentials.Load() {
		accept(name, secrets)
	}
	for name, secrets := range p.fallback {
		if authenticators[name] == nil {
			accept(name, secrets)
		}
	}
	c.Authenticators = authenticators
}

func isHTTPScheme(doc *openapi3.T, scheme string) bool {
	if doc.Components == nil {
		return false
	}
	ref := doc.Components.SecuritySchemes[scheme]
	return ref != nil && ref.Value != nil && ref.Value.Type == "http"
}

// readCredentials reads the file of credentials, or returns all its faults, joined.
func (c policyConfig) readCredentials(prefix string) (credentials, error) {
	if c.Credentials == "" {
		return credentials{}, nil
	}
	f := faults{prefix: prefix}
	text, err := os.ReadFile(c.Credentials)
	if err != nil {
		return nil, fmt.Errorf("%s is %q: expected a readable file: %w",
			f.key("CREDENTIALS"), c.Credentials, err)
	}
	return parseCredentials(c.Credentials, text)
}

func parseCredentials(name string, text []byte) (credentials, error) {
	file, r, err := openYAML(name, text, "security schemes and their credentials")
	if err != nil {
		return nil, err
	}
	all := credentials{}
	for _, scheme := range file.members("") {
		all[scheme.name] = authz.Secrets{} // even if it is empty: then no request is accepted
		ids, hashes := map[string]bool{}, map[[32]byte]bool{}
		for _, entry := range scheme.elements() {
			secret := r.secret(entry)
			if ids[secret.ID] && secret.ID != "" {
				r.add(entry.at("id"), secret.ID, "each ID once")
			}
			if hashes[secret.SHA256] {
				r.all = append(r.all, fmt.Errorf(
					"%s is the same as in another entry: expected each secret once",
					entry.at("sha256")))
			}
			ids[secret.ID], hashes[secret.SHA256] = true, true
			all[scheme.name] = append(all[scheme.name], secret)
		}
	}
	if r.all != nil {
		return nil, errors.Join(r.all...)
	}
	return all, nil
}

// credentialIssuer is the issuer of principals with a credential of the file. No token has this
// issuer.
const credentialIssuer = "urn:authz:credentials"
