//go:build unix

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/authz/server/docs"
	"github.com/oasgate/oasgate/authz/token"
)

// everyScheme has two schemes for tokens, one of which accepts only the tokens of people, and one
// scheme of each other kind that a page can or cannot send.
const everyScheme = `
openapi: 3.1.0
info: {title: Schemes, version: "1"}
paths:
  /programs: {get: {operationId: programs, security: [{programs: ["read:x"]}], responses: {"200": {description: d}}}}
  /people: {get: {operationId: people, security: [{people: ["read:x"]}], responses: {"200": {description: d}}}}
  /key: {get: {operationId: key, security: [{key: []}], responses: {"200": {description: d}}}}
  /query: {get: {operationId: query, security: [{query: []}], responses: {"200": {description: d}}}}
  /basic: {get: {operationId: basic, security: [{basic: []}], responses: {"200": {description: d}}}}
  /both: {get: {operationId: both, security: [{people: ["write:x"], key: []}], responses: {"200": {description: d}}}}
  /cookie: {get: {operationId: cookie, security: [{cookie: []}], responses: {"200": {description: d}}}}
components:
  securitySchemes:
    programs: {type: http, scheme: bearer, x-scopes: {"read:x": Read, "write:x": Write}}
    people: {type: oauth2, flows: {authorizationCode: {authorizationUrl: /a, tokenUrl: /t, scopes: {"read:x": Read, "write:x": Write}}}}
    key: {type: apiKey, in: header, name: X-Key}
    query: {type: apiKey, in: query, name: key}
    cookie: {type: apiKey, in: cookie, name: key}
    basic: {type: http, scheme: basic}
`

// startSchemes serves everyScheme with a development issuer. The API only accepts tokens that are
// bound to a key, and requires its own nonces in the proofs.
func startSchemes(t *testing.T) (address string) {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData([]byte(everyScheme))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("http://localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	issuer, err := devissuer.ForDev(address+"/", devSecret, []string{devAudience},
		[]string{"read:x", "write:x"})
	if err != nil {
		t.Fatal(err)
	}
	principal, err := token.NewPrincipal(token.PrincipalConfig{Subject: "by secret"})
	if err != nil {
		t.Fatal(err)
	}
	secrets := authz.Secrets{{
		ID: "ann", SHA256: sha256.Sum256([]byte("key-of-ann")), Principal: principal,
	}}
	s, err := server.New(t.Context(), server.Config{
		Document: document,
		Routes: func(g *authz.Gate) (http.Handler, error) {
			mux := g.Mux()
			for path := range document.Paths.Map() {
				mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					_ = json.NewEncoder(w).Encode(map[string]bool{path: true})
				})
			}
			return mux, mux.CheckRoutes()
		},
		Issuers: []token.Issuer{{
			URL: address + "/", Audiences: []string{devAudience}, DPoP: token.DPoPRequired,
		}},
		Gate: func(c *authz.Config) {
			key := authz.APIKey(secrets.Key)
			c.Authenticators = map[string]authz.Authenticator{
				"key": key, "query": key, "cookie": key, "basic": authz.Basic(secrets.User),
			}
			c.Schemes = map[string]authz.Scheme{
				"people": {Claims: map[string][]string{"/client_id": {"app"}}},
			}
		},
		NonceKey: []byte(strings.Repeat("k", 32)), Docs: true, Resource: address,
		InsecureIssuer:  issuer,
		InsecureClients: &docs.Clients{ID: "full", Secret: devSecret, App: "app"},
		Logger:          slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(t.Context(), listener) }()
	return address
}

// Each security scheme has its own credential, and each operation gets the one that it requires.
func TestBrowserDocsCredentials(t *testing.T) {
	b := startBrowser(t)
	address := startSchemes(t)
	page := docsPage{b.open(t, address+"/docs/")}
	choose := func(scheme string) {
		t.Helper()
		if !evaluate[bool](page.tab, `document.querySelector("#docs-authorize-dialog").open`) {
			page.click(authorizeButton)
		}
		evaluate[any](page.tab, fmt.Sprintf(`void (field => { field.value = %q; field.dispatchEvent(new Event("change", {bubbles: true})); })(document.querySelector("[name=for]"))`, scheme))
	}
	answered := func(id, status string) {
		t.Helper()
		if got := page.try(id); !strings.HasPrefix(got.status, status) {
			t.Errorf("%s is answered: %+v, want %s", id, got, status)
		}
	}
	schemes := func() []string {
		return evaluate[[]string](page.tab, `[...document.querySelectorAll("#docs-held section")].map(s => s.innerText.replace(/\s+/g, " "))`)
	}

	// One token for all schemes, and one scheme with another.
	choose("")
	page.click(submitButton)
	page.shows("#docs-held", "a key of this page (DPoP)")
	choose("people")
	page.click(`//input[@name="way" and @value="person"]`)
	window := page.opens(func() { page.click(submitButton) })
	window.click(`//button[@name="person" and @value="bob"]`)
	page.shows("#docs-held", "bob")
	if held := schemes(); len(held) != 2 ||
		!regexp.MustCompile(`For people You are bob .* Scopes read:x Until .*20`).MatchString(strings.Join(held, "\n")) ||
		!regexp.MustCompile(`For programs You are full@clients .* Scopes read:x write:x Until .*20`).MatchString(strings.Join(held, "\n")) {
		t.Errorf("the dialog says %q: want who, which scopes and until when, for each scheme", held)
	}

	choose("key")
	if label := evaluate[string](page.tab, `[...document.querySelectorAll("#docs-authorize-form label")].filter(l => l.checkVisibility()).map(l => l.innerText.split("\n")[0].trim()).join()`); label != "Security scheme,API key" {
		t.Errorf("for an API key the dialog has %q: want one field", label)
	}
	page.fill("[name=key]", "key-of-ann")
	page.click(submitButton)
	page.shows("#docs-held", "set")
	choose("query")
	page.fill("[name=key]", "wrong")
	page.click(submitButton)
	choose("basic")
	page.fill("[name=user]", "ann")
	page.fill("[name=password]", "key-of-ann")
	page.click(submitButton)
	page.shows("#docs-held", "ann")
	choose("cookie")
	page.shows("#docs-authorize-form", "A page cannot send a cookie")
	if evaluate[bool](page.tab, `document.querySelector("#docs-authorize-form [type=submit]").checkVisibility()`) {
		t.Error("the dialog offers to send a cookie, which a page cannot")
	}
	page.keepPicture("docs-credentials.png")
	page.press(kb.Escape)

	answered("programs", "200")
	answered("people", "200")
	answered("key", "200")
	answered("query", "401")
	answered("basic", "200")
	answered("both", "403") // bob may not write
	answered("cookie", "401")
	lacking := evaluate[string](page.tab, `[...document.querySelectorAll(".docs-lacking")].map(o => o.closest(".opblock").id.split("-").pop()).sort().join(" ")`)
	if lacking != "both cookie" {
		t.Errorf("%q are shown as closed: want what bob may not do, and the cookie", lacking)
	}

	// Removing a credential only affects its schemes.
	page.click(authorizeButton)
	page.click(`//div[@id="docs-held"]/section[contains(., "bob")]//button`)
	page.press(kb.Escape)
	answered("people", "401")
	answered("programs", "200")

	page.keptToItselfBut(address, "key=wrong")
	page.keepsNothing()
}

// keptToItselfBut is keptToItself of a page that sends an API key in the query, as it must.
func (p docsPage) keptToItselfBut(address, key string) {
	p.t.Helper()
	p.mu.Lock()
	p.requests = slices.DeleteFunc(p.requests, func(url string) bool {
		return strings.Contains(url, key)
	})
	p.mu.Unlock()
	p.keptToItself(hostOf(address))
}
