// Package docs serves the interactive documentation of an API: Swagger UI over a copy of its
// document, extended by what each operation requires, tokens from the configured issuers, and
// examples in ten languages. All files come from this server, and the Content-Security-Policy
// forbids others.
package docs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"

	"github.com/oasgate/oasgate/authz"
)

// Root is the path of the page. Its files are below, except those that [OtherPaths] lists.
const Root = "/docs"

// OtherPaths returns the other paths that [Docs] serves: the index of the server, and the document
// at the paths where tools look for it.
func OtherPaths() []string { return []string{"/", "/openapi.json", "/openapi.yaml"} }

// Config configures [Docs].
type Config struct {
	Document *openapi3.T // without references to other files; not modified
	Source   []byte      // text of the document in YAML or JSON, for its order; nil sorts by name
	// URL under which clients reach the API. Default: the URL of the page
	Resource string
	BasePath string // prefix of the document's paths: "", or such as "/v1"
	// Plan is the compiled document. Default: compiled by New.
	Plan    *authz.Plan
	Issuers []Issuer // offered for tokens; without any, users paste tokens
	// Discover returns an issuer's endpoints (RFC 8414 §2); the authorization endpoint may be "".
	// It is called at the first view of the page, and again at later views until it succeeds.
	Discover func(ctx context.Context, issuer string) (authorize, token string, err error)
	// ScopesToRequest returns an issuer's names of scopes. Default: the same names.
	ScopesToRequest func(issuer string, scopes []string) []string
	// Refuse answers a request with an error.
	Refuse func(http.ResponseWriter, *http.Request, error)
	Logger *slog.Logger     // default slog.Default()
	Now    func() time.Time // default time.Now
	// InsecureClients prefills the Authorize dialog, visibly to everybody; it is nil except under
	// `dev`. If it is set, the page also trusts the Host header, and takes an issuer whose URL is
	// below Resource to be at that host too. So the page works under any name of this machine, and
	// through a forwarded port.
	InsecureClients *Clients
}

// Issuer is an issuer whose tokens the API accepts.
type Issuer struct {
	URL      string
	Audience string // of the tokens
	DPoP     bool   // the API accepts only tokens that are bound to a key (RFC 9449)
}

// Clients are the clients of a development issuer.
type Clients struct {
	ID, Secret string // of a client for the client credentials grant
	App        string // ID of a public client for the authorization code grant
}

// Docs serves the page. It is safe for concurrent use.
type Docs struct {
	config   Config
	ctx      context.Context
	document func() ([]byte, error)
	source   yaml.Node // for its order
	plan     *authz.Plan
	index    *template.Template
	files    map[string]file
	issuers  []*issuer

	mu   sync.Mutex // protects last
	last *edition
}

// New returns the page, or the joined faults of config. It does no I/O. Discovery uses ctx.
func New(ctx context.Context, config Config) (*Docs, error) {
	var faults []error
	if config.Document == nil {
		faults = append(faults,
			errors.New("docs: Config.Document is nil"))
	}
	if config.Refuse == nil {
		faults = append(faults,
			errors.New("docs: Config.Refuse is nil"))
	}
	if config.Discover == nil && len(config.Issuers) > 0 {
		faults = append(faults,
			errors.New("docs: Config.Discover is nil: it is needed to find the endpoints of "+
				"Config.Issuers"))
	}
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.ScopesToRequest == nil {
		config.ScopesToRequest = func(_ string, scopes []string) []string { return scopes }
	}
	d := &Docs{config: config, ctx: ctx}
	for _, i := range config.Issuers {
		d.issuers = append(d.issuers, &issuer{Issuer: i})
	}
	if err := yaml.Unmarshal(config.Source, &d.source); err != nil {
		return nil, fmt.Errorf("docs: Config.Source is not valid YAML: %w", err)
	}
	d.document = sync.OnceValues(config.Document.MarshalJSON)
	var errs [3]error
	if d.plan = config.Plan; d.plan == nil {
		d.plan, errs[0] = authz.Config{Document: config.Document,
			Unstated: authz.DenyUnstated}.CompileSecurity()
	}
	d.index, errs[1] = template.ParseFS(page, "page/index.html")
	d.files, errs[2] = readFiles()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("docs: %w", err)
	}
	return d, nil
}

// Serves reports whether a path belongs to the page.
func Serves(path string) bool { return path == Root || strings.HasPrefix(path, Root+"/") }

// ServeHTTP answers the paths of [Serves] and [OtherPaths].
func (d *Docs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy(nil))
	h.Set("X-Content-Type-Options", "nosniff")
	// the URL of a page here can contain an authorization code
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		d.config.Refuse(w, r, &authz.Error{Kind: authz.MethodNotAllowed,
			Allow: []string{http.MethodGet, http.MethodHead}})
		return
	}
	name, below := strings.CutPrefix(r.URL.Path, Root+"/")
	if slices.Contains(OtherPaths(), r.URL.Path) {
		if name, below = strings.TrimPrefix(r.URL.Path, "/"), true; name == "" {
			d.serveIndex(w, r)
			return
		}
	}
	if r.URL.Path == Root {
		h.Set("Location", "docs/") // relative, because a proxy may have removed a prefix
		h.Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	if file, ok := d.files[name]; ok && below {
		file.serve(w, r)
		return
	}
	if !slices.Contains([]string{"", "openapi.json", "openapi.yaml", "snippets.json"}, name) ||
		!below {
		d.config.Refuse(w, r, &authz.Error{Kind: authz.NotFound})
		return
	}
	now, err := d.edition(r)
	if err != nil {
		d.config.Refuse(w, r, &authz.Error{Kind: authz.Internal, Err: err})
		return
	}
	switch name {
	case "":
		h.Set("Content-Security-Policy", now.policy)
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store") // the endpoints of the issuers may change
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(now.page))
	case "openapi.json":
		now.json.serve(w, r)
	case "openapi.yaml":
		now.yaml.serve(w, r)
	case "snippets.json":
		d.serveSnippets(w, r, now.values)
	}
}

// serveIndex redirects browsers to the page, and answers others with a list of paths.
func (d *Docs) serveIndex(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Accept")
	if strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/html") {
		h.Set("Location", "docs/")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	index := struct {
		Title   string `json:"title"`
		Version string `json:"version"`
		Docs    string `json:"docs"`
		JSON    string `json:"openapi_json"`
		YAML    string `json:"openapi_yaml"`
	}{Title: "API", Docs: "docs/", JSON: "docs/openapi.json", YAML: "docs/openapi.yaml"}
	if info := d.config.Document.Info; info != nil {
		index.Title, index.Version = cmp.Or(info.Title, index.Title), info.Version
	}
	body, _ := json.Marshal(index) // cannot fail: strings only
	h.Set("Content-Type", "application/json")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(body, '\n')))
}

// serveSnippets answers with the snippets of the operation in the query.
func (d *Docs) serveSnippets(w http.ResponseWriter, r *http.Request, values Values) {
	id := r.URL.Query().Get("operation")
	snippets, err := NewSnippets(values, id)
	var body []byte
	if err == nil {
		body, err = json.Marshal(snippets)
	}
	switch {
	case err != nil:
		d.config.Refuse(w, r, &authz.Error{Kind: authz.Internal, Err: err})
	case len(snippets.Operations) == 0:
		d.config.Refuse(w, r, &authz.Error{Kind: authz.NotFound})
	default:
		compressed("snippets.json", body).serve(w, r)
	}
}

// policy returns the Content-Security-Policy: scripts, styles and images from this server only,
// requests to it and to the issuers' token endpoints, and no framing.
func policy(found []endpoints) string {
	connect := "connect-src 'self'"
	for _, e := range found {
		if source := source(e.token); source != "" {
			connect += " " + source
		}
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
		connect +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// source converts a URL to a source expression (CSP3 §2.3.1), or returns "" if that is impossible,
// as for IPv6 addresses. It drops the query, which would never match.
func source(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" ||
		strings.Trim(u.Host,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:") != "" {
		return ""
	}
	return u.Scheme + "://" + u.Host + strings.NewReplacer(";", "%3B", ",", "%2C", "'",
		"%27").Replace(u.EscapedPath())
}

// edition is what depends on the URL of the page and the endpoints of the issuers.
type edition struct {
	base       string
	found      []endpoints
	policy     string
	page       []byte
	json, yaml file // the served copy
	values     Values
}

// edition returns the edition for a request, which is usually the last one.
func (d *Docs) edition(r *http.Request) (*edition, error) {
	base := d.base(r)
	found := d.endpoints(base)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil || d.last.base != base || !slices.Equal(d.last.found, found) {
		next, err := d.publish(base, found)
		if err != nil {
			return nil, err
		}
		d.last = next
	}
	return d.last, nil
}

// base returns the URL of the API for a client; "" means the origin of the page. The Host header is
// trusted under dev only, where the server accepts only loopback hosts.
func (d *Docs) base(r *http.Request) string {
	if d.config.InsecureClients != nil && !strings.ContainsAny(r.Host, "%;,'\"") {
		return "http://" + r.Host
	}
	return strings.TrimSuffix(d.config.Resource, "/")
}

// publish makes an edition.
func (d *Docs) publish(base string, found []endpoints) (*edition, error) {
	document, err := d.served(base, found)
	if err != nil {
		return nil, err
	}
	e := &edition{base: base, found: found, policy: policy(found)}
	plain, err := document.MarshalJSON()
	if err != nil {
		return nil, err
	}
	asJSON, asYAML, err := arrange(plain, &d.source)
	if err != nil {
		return nil, err
	}
	e.json, e.yaml = compressed("openapi.json", asJSON), compressed("openapi.yaml", asYAML)
	values := Values{Document: d.config.Document, APIURL: d.api(base)}
	issuer := Issuer{}
	if len(d.config.Issuers) > 0 {
		issuer = d.config.Issuers[0]
	}
	if len(found) > 0 {
		values.TokenEndpoint, issuer = found[0].token, found[0].Issuer
	}
	values.Audience = issuer.Audience
	values.ScopesToRequest = func(scopes []string) []string {
		return d.config.ScopesToRequest(issuer.URL, scopes)
	}
	clients := d.config.InsecureClients
	if clients != nil {
		values.ClientID, values.ClientSecret = clients.ID, clients.Secret
	}
	e.values = values
	var unknown []string // issuers with unknown endpoints
	for _, i := range d.config.Issuers {
		if !slices.ContainsFunc(found, func(e endpoints) bool { return e.Issuer == i }) {
			unknown = append(unknown, i.URL)
		}
	}
	settings, err := json.Marshal(d.settings(found))
	if err != nil {
		return nil, err
	}
	title := "API"
	if document.Info != nil && document.Info.Title != "" {
		title = document.Info.Title
	}
	var html bytes.Buffer
	err = d.index.Execute(&html, map[string]any{
		"Title": title, "Version": document.Info.Version, "Issuers": d.config.Issuers,
		"Unknown": unknown, "Clients": clients,
		"Settings": string(settings), "API": cmp.Or(base, "this address"),
	})
	e.page = html.Bytes()
	return e, err
}

// settings returns what the page's script needs besides the document.
func (d *Docs) settings(found []endpoints) any {
	type client struct {
		ID     string `json:"id"`
		Secret string `json:"secret,omitempty"`
	}
	type scheme struct {
		Issuer   string `json:"issuer"`
		Audience string `json:"audience"`
		// Authorize and Token are the issuer's endpoints; Authorize may be empty.
		Authorize string            `json:"authorize,omitempty"`
		Token     string            `json:"token"`
		DPoP      bool              `json:"dpop,omitempty"`
		Clients   map[string]client `json:"clients,omitempty"` // prefilled, by flow
		// Names are the issuer's names of scopes, where they differ from the document's.
		Names map[string]string `json:"names,omitempty"`
	}
	schemes := map[string]scheme{}
	for name, e := range d.schemes(found) {
		s := scheme{
			Issuer: e.URL, Audience: e.Audience, Authorize: e.authorize, Token: e.token,
			DPoP: e.DPoP,
		}
		if c := d.config.InsecureClients; c != nil {
			s.Clients = map[string]client{"clientCredentials": {c.ID, c.Secret},
				"authorizationCode": {ID: c.App}}
		}
		for scope := range d.scopes() {
			names := d.config.ScopesToRequest(e.URL, []string{scope})
			if asked := strings.Join(names, " "); asked != scope {
				if s.Names == nil {
					s.Names = map[string]string{}
				}
				s.Names[scope] = asked
			}
		}
		schemes[name] = s
	}
	return map[string]any{
		"schemes": schemes, "scopes": d.scopes(), "credentials": d.credentials(),
		"grantedBy": d.grantedBy(),
	}
}
