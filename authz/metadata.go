package authz

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/oasgate/oasgate/authz/token"
)

// metadataPath is the path of protected resource metadata (RFC 9728 §3).
const metadataPath = "/.well-known/oauth-protected-resource"

// metadata is the protected resource metadata (RFC 9728 §2), from which clients learn the issuers
// and the scopes.
type metadata struct {
	url   string   // for challenges; never from a Host header
	paths []string // that answer with it
	body  []byte
}

func newMetadata(config Config, plan *Plan, dpop *dpop, offer token.Offer) (*metadata, error) {
	if config.Resource == "" {
		return nil, nil
	}
	resource, err := url.Parse(config.Resource)
	if err != nil || resource.Host == "" || resource.Scheme != "https" &&
		resource.Scheme != "http" ||
		resource.User != nil || strings.ContainsAny(config.Resource, "?#") ||
		!quotable(config.Resource) {
		return nil, fmt.Errorf("authz: Config.Resource is %q: expected the URL under which clients reach the API, such as https://api.example.com, without query and fragment (RFC 9728 §1.2)", config.Resource)
	}
	if len(config.AuthorizationServers) == 0 && plan != nil && !plan.TakesTokens() {
		return nil, nil // no tokens, so no issuer
	}
	if len(config.AuthorizationServers) == 0 {
		return nil, errors.New("authz: Config.AuthorizationServers is empty: expected at least " +
			"one, because the metadata of Config.Resource must name the issuers")
	}
	if plan == nil {
		return nil, nil // the document's faults are already reported
	}
	// The path of the resource follows the well-known path (§3.1). The path without it is for
	// clients that try it first.
	inserted := metadataPath + strings.TrimSuffix(resource.EscapedPath(), "/")
	m := &metadata{url: resource.Scheme + "://" + resource.Host + inserted,
		paths: slices.Compact([]string{metadataPath, inserted})}
	body := struct {
		Resource             string   `json:"resource"`
		AuthorizationServers []string `json:"authorization_servers"`
		Scopes               []string `json:"scopes_supported,omitempty"`
		Methods              []string `json:"bearer_methods_supported"`
		Name                 string   `json:"resource_name,omitempty"`
		DPoPAlgorithms       []string `json:"dpop_signing_alg_values_supported,omitempty"`
		DPoPRequired         bool     `json:"dpop_bound_access_tokens_required,omitempty"`
		MTLS                 bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	}{Resource: config.Resource, AuthorizationServers: config.AuthorizationServers,
		Scopes: initialScopeNames(config, plan), Methods: []string{"header"}, MTLS: offer.MTLS}
	if config.Document.Info != nil {
		body.Name = config.Document.Info.Title
	}
	if dpop != nil {
		body.DPoPAlgorithms, body.DPoPRequired = dpop.offer.Algorithms, dpop.offer.Required
	}
	if body.DPoPRequired {
		body.Methods = []string{} // no bearer tokens
	}
	m.body, err = json.Marshal(body)
	return m, err
}

// initialScopeNames returns the initial scopes by the issuers' names, or by the document's if
// issuers differ.
func initialScopeNames(config Config, plan *Plan) []string {
	scopes := plan.initialScopes()
	if namer, ok := config.Verifier.(ScopeNamer); ok {
		scopes, _ = namer.ScopesToRequest("", scopes)
	}
	return scopes
}

// ServesMetadata reports whether [Gate.ServeMetadata] serves a path.
func (g *Gate) ServesMetadata(path string) bool {
	return g.metadata != nil && slices.Contains(g.metadata.paths, path)
}

// ServeMetadata serves the protected resource metadata (RFC 9728). It is public, and readable by
// scripts of any origin.
func (g *Gate) ServeMetadata(w http.ResponseWriter, r *http.Request) {
	if !g.ServesMetadata(r.URL.Path) {
		g.WriteProblem(w, r, &Error{Kind: NotFound})
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(g.metadata.body)
	case http.MethodOptions: // a preflight: some clients send additional headers
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "*")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
	default:
		g.WriteProblem(w, r, &Error{Kind: MethodNotAllowed, Allow: []string{http.MethodGet,
			http.MethodHead, http.MethodOptions}})
	}
}
