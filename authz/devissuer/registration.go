package devissuer

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// Limits of registration.
const (
	maxRegistered       = 100
	maxRegistration     = 16 << 10 // bytes of a request
	maxRegisteredURIs   = 10
	maxRegisteredLetter = 80 // bytes of a name
)

// The error codes of RFC 7591 §3.2.2.
const (
	invalidRedirectURI    = "invalid_redirect_uri"
	invalidClientMetadata = "invalid_client_metadata"
)

// registration is the supported client metadata of RFC 7591 §2. Other members are ignored, as §2
// says.
type registration struct {
	RedirectURIs  []string `json:"redirect_uris"`
	AuthMethod    string   `json:"token_endpoint_auth_method"`
	GrantTypes    []string `json:"grant_types"`
	ResponseTypes []string `json:"response_types"`
	Name          string   `json:"client_name,omitempty"`
	Scope         string   `json:"scope,omitempty"`
}

// registered holds the registered clients.
type registered struct {
	mu   sync.Mutex // protects the fields below
	byID map[string]Client
}

func (s *registered) get(id string) (Client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	client, ok := s.byID[id]
	return client, ok
}

// add stores a client and returns its new ID, or false if there is no room.
func (s *registered) add(client Client) (id string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byID) >= maxRegistered {
		return "", false
	}
	client.ID = rand.Text()
	s.byID[client.ID] = client
	return client.ID, true
}

// serveRegistration registers a client (RFC 7591 §3).
func (i *Issuer) serveRegistration(w http.ResponseWriter, r *http.Request) {
	metadata, refused := readRegistration(w, r)
	if refused != nil {
		refused.write(w)
		return
	}
	template, _ := i.client(i.cfg.Registration)
	client := Client{RedirectURIs: metadata.RedirectURIs, Scopes: template.Scopes,
		name: metadata.Name}
	if metadata.Scope != "" {
		client.Scopes = slices.DeleteFunc(slices.Clone(template.Scopes), func(scope string) bool {
			return !slices.Contains(strings.Split(metadata.Scope, " "), scope)
		})
	}
	id, ok := i.registered.add(client)
	if !ok {
		(&refusal{http.StatusServiceUnavailable, "temporarily_unavailable",
			"too many clients are registered: restart the issuer"}).write(w)
		return
	}
	// The response tells what was changed (RFC 7591 §3.2.1).
	writeJSON(w, http.StatusCreated, struct {
		ID       string `json:"client_id"`
		IssuedAt int64  `json:"client_id_issued_at"`
		registration
	}{id, i.cfg.Now().Unix(), registration{
		RedirectURIs: client.RedirectURIs, AuthMethod: "none", ResponseTypes: []string{"code"},
		GrantTypes: []string{"authorization_code", aRefreshToken}, Name: metadata.Name,
		Scope: strings.Join(slices.Concat(client.Scopes, openIDScopes()), " "),
	}})
}

// readRegistration reads and checks a request. The media type keeps out forms of other origins,
// which browsers send without a preflight (Fetch §3.2.2).
func readRegistration(
	w http.ResponseWriter,
	r *http.Request,
) (metadata registration, refused *refusal) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media != "application/json" {
		return metadata, refuse(invalidRequest, "Content-Type must be application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRegistration))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return metadata, &refusal{
			http.StatusRequestEntityTooLarge,
			invalidRequest,
			"the body is larger than 16 KiB",
		}
	}
	if err != nil || json.Unmarshal(body, &metadata) != nil {
		return metadata, refuse(
			invalidRequest,
			"the body is not a JSON object of client metadata (RFC 7591 §2)",
		)
	}
	name := strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, metadata.Name)
	metadata.Name = string([]rune(name)[:min(len([]rune(name)), maxRegisteredLetter)])
	only := func(given []string, known ...string) bool {
		return !slices.ContainsFunc(
			given,
			func(s string) bool { return !slices.Contains(known, s) },
		)
	}
	switch {
	case len(metadata.RedirectURIs) == 0 || len(metadata.RedirectURIs) > maxRegisteredURIs:
		return metadata, refuse(invalidRedirectURI, "redirect_uris must be one to ten URIs")
	case slices.ContainsFunc(metadata.RedirectURIs, func(uri string) bool {
		return withoutPort(uri) == "" || redirectFault(uri) != nil
	}):
		return metadata, refuse(
			invalidRedirectURI,
			"redirect_uris must be http on localhost, 127.0.0.1 or [::1]",
		)
	case !only(metadata.GrantTypes, "authorization_code", aRefreshToken):
		return metadata, refuse(
			invalidClientMetadata,
			"grant_types must be authorization_code or refresh_token",
		)
	case !only(metadata.ResponseTypes, "code"):
		return metadata, refuse(invalidClientMetadata, "response_types must be code")
	}
	return metadata, nil
}
