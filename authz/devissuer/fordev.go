package devissuer

import (
	"net/http"
	"slices"
	"strings"
)

// ForDev returns the issuer of a program's dev command. It has the clients full, with all scopes,
// and none, with no scopes, both with the secret; and the client app, in which people sign in:
// alice, who may grant all scopes, and bob, who may grant those that read his own data. Clients may
// register with the scopes of app.
func ForDev(url, secret string, audiences, scopes []string) (interface {
	http.Handler
	Serves(path string) bool
}, error) {
	return New(Config{
		URL:       url,
		Audiences: audiences,
		Scopes:    scopes,
		Clients: []Client{
			{ID: "full", Secret: secret, Scopes: scopes},
			{ID: "none", Secret: secret},
			{ID: "app", Scopes: scopes, RedirectURIs: redirectURIs()},
		},
		Registration: "app",
		People: []Person{
			{Name: "alice", Scopes: scopes},
			{Name: "bob", Scopes: readScopes(scopes)},
		},
	})
}

// redirectURIs returns the usual redirect URIs of apps, on any port, and that of the page at /docs.
func redirectURIs() (uris []string) {
	for _, host := range []string{"localhost", "127.0.0.1", "[::1]"} {
		for _, path := range []string{"/", "/callback", "/docs/oauth2-redirect.html"} {
			uris = append(uris, "http://"+host+path)
		}
	}
	return uris
}

// readScopes returns the scopes that begin with read: and do not end in :all.
func readScopes(scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return !strings.HasPrefix(scope, "read:") || strings.HasSuffix(scope, ":all")
	})
}
