package devissuer

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// Endpoint names one of the two documents that the issuer publishes.
type Endpoint string

const (
	Discovery Endpoint = "discovery"
	KeySet    Endpoint = "jwks"
)

// Fault describes how discovery and the key set misbehave; the zero value is healthy. Fields
// combine: Fault{Status: 500} still has the genuine body, which exposes a client that ignores the
// status.
type Fault struct {
	Endpoint     Endpoint      // empty means both
	Delay        time.Duration // before anything else
	Down         bool          // the connection is closed without a response
	Redirect     string        // Location of the response; Status defaults to 302
	Status       int
	ContentType  string
	CacheControl string
	Body         []byte // in place of the document, if not nil

	DiscoveryIssuer string // in place of issuer, in discovery
	JWKSURI         string // in place of jwks_uri, in discovery
}

// Fail applies a fault to discovery and the key set until Fail(Fault{}). The other endpoints stay
// healthy. Fail panics on an unknown Endpoint.
func (i *Issuer) Fail(f Fault) {
	if f.Endpoint != "" && f.Endpoint != Discovery && f.Endpoint != KeySet {
		panic(fmt.Errorf("devissuer: Fault.Endpoint is %q: it must be %q, %q or empty for both",
			f.Endpoint, Discovery, KeySet))
	}
	f.Body = slices.Clone(f.Body)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = f
}

// Requests returns how often each document was requested, failures included.
func (i *Issuer) Requests() (discovery, keySet int) {
	return int(i.discoveries.Load()), int(i.keySets.Load())
}

func (i *Issuer) servePublished(w http.ResponseWriter, r *http.Request, endpoint Endpoint) {
	if endpoint == Discovery {
		i.discoveries.Add(1)
	} else {
		i.keySets.Add(1)
	}
	fault := i.faultOf(endpoint)
	if fault.Delay > 0 {
		select {
		case <-time.After(fault.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // returning would send an empty 200
		}
	}
	if fault.Down {
		panic(http.ErrAbortHandler)
	}
	contentType, body := "application/json", i.discoveryDocument(fault)
	if endpoint == KeySet {
		contentType, body = "application/jwk-set+json", i.keySetDocument() // RFC 7517 §8.5.2
	}
	if fault.Body != nil {
		body = fault.Body
	}
	status := http.StatusOK
	if fault.Redirect != "" {
		status = http.StatusFound
		w.Header().Set("Location", fault.Redirect)
	}
	w.Header().Set("Content-Type", cmp.Or(fault.ContentType, contentType))
	w.Header().Set("Cache-Control", cmp.Or(fault.CacheControl, "public, max-age=300"))
	w.WriteHeader(cmp.Or(fault.Status, status))
	w.Write(body)
}

func (i *Issuer) faultOf(endpoint Endpoint) Fault {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.fault.Endpoint == "" || i.fault.Endpoint == endpoint {
		return i.fault
	}
	return Fault{}
}

// discoveryDocument returns the provider metadata of OpenID Connect Discovery 1.0 §3 and RFC 8414
// §2. If People is empty, members about signing in that the former requires are minimal.
func (i *Issuer) discoveryDocument(fault Fault) []byte {
	members := map[string]any{
		"issuer":                cmp.Or(fault.DiscoveryIssuer, i.cfg.URL),
		"token_endpoint":        i.endpoints + tokenPath,
		"jwks_uri":              cmp.Or(fault.JWKSURI, i.endpoints+keySetPath),
		"grant_types_supported": []string{"client_credentials"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic",
			"client_secret_post"},
		"scopes_supported":                      append([]string{}, i.cfg.Scopes...),
		"response_types_supported":              []string{},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": i.publishedAlgorithms(),
		"dpop_signing_alg_values_supported":     token.ProofAlgorithms(), // RFC 9449 §5.1

		"introspection_endpoint": i.endpoints + introspectPath,
		"introspection_endpoint_auth_methods_supported": []string{
			"client_secret_basic",
			"client_secret_post",
		},
		"revocation_endpoint": i.endpoints + revokePath,
		"revocation_endpoint_auth_methods_supported": []string{
			"client_secret_basic",
			"client_secret_post",
			"none",
		},
	}
	if i.cfg.Registration != "" {
		members["registration_endpoint"] = i.endpoints + registerPath
	}
	if i.hasPeople() {
		maps.Copy(members, map[string]any{
			"authorization_endpoint":                         i.endpoints + authorizePath,
			"userinfo_endpoint":                              i.endpoints + userInfoPath,
			"authorization_response_iss_parameter_supported": true, // RFC 9207 §3
			"response_types_supported":                       []string{"code"},
			"response_modes_supported":                       []string{"query"},
			"grant_types_supported": []string{"client_credentials",
				"authorization_code", "refresh_token"},
			"code_challenge_methods_supported": []string{"S256"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_basic",
				"client_secret_post", "none"},
			"scopes_supported": slices.Concat(i.cfg.Scopes, slices.DeleteFunc(openIDScopes(),
				func(scope string) bool {
					return slices.Contains(i.cfg.Scopes, scope)
				})),
			"claims_supported": []string{"iss", "sub", "aud", "exp",
				"iat", "auth_time", "nonce", "at_hash", "name", "email"},
			"request_uri_parameter_supported": false, // the default is true
		})
	}
	return encode(members)
}

func (i *Issuer) publishedAlgorithms() []string {
	i.mu.RLock()
	defer i.mu.RUnlock()
	algs := []string{}
	for _, key := range i.published {
		algs = append(algs, key.alg)
	}
	slices.Sort(algs)
	return slices.Compact(algs)
}

// keySetDocument returns the JWK set (RFC 7517 §5). It joins bytes because an entry of
// [Issuer.Publish] need not be JSON.
func (i *Issuer) keySetDocument() []byte {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var entries [][]byte
	for _, key := range i.published {
		entries = append(entries, key.public)
	}
	for _, jwk := range i.extra {
		entries = append(entries, jwk)
	}
	return fmt.Appendf(nil, `{"keys":[%s]}`, bytes.Join(entries, []byte(",")))
}
