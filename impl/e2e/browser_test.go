//go:build unix

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/gen"
)

// browser is a real one, without a window, that finds no host but this machine.
type browser struct{ context.Context }

// startBrowser starts Chromium, or the browser of its kind that OASGATE_TEST_BROWSER names, which
// then must start.
func startBrowser(t *testing.T) browser {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser is not tried with -short")
	}
	without := t.Skipf
	named := os.Getenv("OASGATE_TEST_BROWSER")
	if named != "" {
		without = t.Fatalf
	}
	path, err := exec.LookPath(cmp.Or(named, "chromium"))
	if err != nil {
		without(
			"no browser is installed: %v; Debian's package is chromium, and OASGATE_TEST_BROWSER can name another",
			err)
	}
	options := append(
		slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path),
		chromedp.WindowSize(1280, 1000),
		chromedp.Flag("host-resolver-rules",
			"MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"),
		chromedp.Flag("no-proxy-server", true),
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses root otherwise
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, quit := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(quit)
	if err := chromedp.Do(ctx); err != nil {
		without("%s does not start: %v", path, err)
	}
	return browser{ctx}
}

// tab is a page of the browser. It records the requests and the errors of the page.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	requests   []string // URLs
	complaints []string
}

// open opens a page in a new profile.
func (b browser) open(t *testing.T, address string) *tab {
	t.Helper()
	p := newTab(t, b, chromedp.WithNewBrowserContext())
	p.do(chromedp.Navigate(address))
	return p
}

func newTab(t *testing.T, parent context.Context, how chromedp.ContextOption) *tab {
	t.Helper()
	p := &tab{t: t}
	ctx, shut := chromedp.NewContext(parent, how, chromedp.WithListener(p.heard))
	t.Cleanup(shut)
	p.ctx = ctx
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("the browser opens no page: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("a page asked for\n  %s\nand complained of\n  %s",
				strings.Join(p.requests, "\n  "), strings.Join(p.complaints, "\n  "))
		}
	})
	return p
}

// heard notes what the browser tells of the page. It tells of violations of a policy (CSP) as
// entries of its log.
func (p *tab) heard(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, event.Request.URL)
	case *runtime.EventExceptionThrown:
		p.complaints = append(p.complaints, "exception: "+event.ExceptionDetails.Text+" "+
			describe(event.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if event.Type == runtime.ConsoleAPICalledTypeError ||
			event.Type == runtime.ConsoleAPICalledTypeAssert {
			said := "console:"
			for _, argument := range event.Args {
				said += " " + describe(argument)
			}
			p.complaints = append(p.complaints, said)
		}
	case *log.EventEntryAdded:
		// That an answer is an error is what the tests are about.
		if event.Entry.Level == log.EntryLevelError &&
			event.Entry.Source != log.EntrySourceNetwork {
			p.complaints = append(p.complaints, fmt.Sprintf("%s: %s", event.Entry.Source,
				event.Entry.Text))
		}
	}
}

func describe(object *runtime.RemoteObject) string {
	if object == nil {
		return ""
	}
	return strings.TrimSpace(string(object.Value) + " " + object.Description)
}

func (p *tab) complained() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.complaints)
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("the page does not get there: %v; it shows:\n%s", err, p.text())
	}
}

// click clicks the first element that an XPath expression finds, once it is visible. A click may
// close the page.
func (p *tab) click(xpath string) {
	p.t.Helper()
	// A page that is just being left or loaded has nothing to click, and its parts vanish under the
	// finger.
	p.until("there is "+xpath, found(xpath))
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Click(xpath, chromedp.NodeVisible)); err != nil &&
		!errors.Is(err, chromedp.ErrTargetDetached) {
		p.t.Fatalf("%s cannot be clicked: %v; the page shows:\n%s", xpath, err, p.text())
	}
}

// has reports whether an XPath expression finds anything now.
func (p *tab) has(xpath string) bool {
	p.t.Helper()
	return evaluate[bool](p, found(xpath))
}

func found(xpath string) string {
	return fmt.Sprintf(
		"document.evaluate(%q, document, null, XPathResult.BOOLEAN_TYPE).booleanValue",
		"boolean("+xpath+")")
}

// text returns what the page shows.
func (p *tab) text() string {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return text
}

// shows waits until a part of the page, named by a CSS selector, has a text.
func (p *tab) shows(part, text string) {
	p.t.Helper()
	p.until(
		fmt.Sprintf("%s shows %q", part, text),
		fmt.Sprintf("[...document.querySelectorAll(%q)].some(part => part.innerText.includes(%q))",
			part, text),
	)
}

// until waits for an expression to be true. If the page is just being left or loaded, it evaluates
// it again.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		done, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		cancel()
		if err == nil && done {
			return
		}
		if time.Since(begun) > patience {
			p.t.Fatalf("not within %s: %s (%v); the page shows:\n%s", patience, what, err, p.text())
		}
	}
}

// evaluate returns the value of an expression, or of what it promises, which is not waited for
// longer than a person would.
func evaluate[T any](p *tab, expression string) (value T) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v; the page shows:\n%s", expression, err, p.text())
	}
	return value
}

// opens returns the window that a step opens.
func (p *tab) opens(step func()) *tab {
	p.t.Helper()
	opened := chromedp.WaitNewTarget(p.ctx,
		func(info *target.Info) bool { return info.Type == "page" })
	step()
	select {
	case id := <-opened:
		window := newTab(p.t, p.ctx, chromedp.WithTargetID(id))
		window.until("the window is somewhere", `location.href !== "about:blank"`)
		went := evaluate[string](window, "location.href") // before requests are recorded
		window.mu.Lock()
		defer window.mu.Unlock()
		window.requests = append(window.requests, went)
		return window
	case <-time.After(patience):
		p.t.Fatalf("no window has opened within %s; the page shows:\n%s", patience, p.text())
		return nil
	}
}

// keptToItself checks that a page had no errors, sent requests to these hosts only, and put no
// token or secret into a URL.
func (p *tab) keptToItself(hosts ...string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, complaint := range p.complaints {
		p.t.Errorf("the page complains: %s", complaint)
	}
	for _, request := range p.requests {
		u, err := url.Parse(request)
		if err != nil ||
			u.Scheme != "data" && u.Scheme != "blob" && !slices.Contains(hosts, u.Host) {
			p.t.Errorf("the page requested %s, want only the hosts %q", request, hosts)
		}
		if regexp.MustCompile(`eyJ|access_token|refresh_token|client_secret`).
			MatchString(request) ||
			strings.Contains(request, devSecret) {
			p.t.Errorf("the page requested %s: the URL contains a token or a secret", request)
		}
	}
}

// keepsNothing checks that the page has stored nothing in the browser.
func (p *tab) keepsNothing() {
	p.t.Helper()
	if kept := evaluate[string](p,
		`JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])`); kept != `[{},{},""]` {
		p.t.Errorf("the browser keeps %s: want nothing", kept)
	}
}

func hostOf(address string) string {
	_, host, _ := strings.Cut(address, "://")
	return host
}

// spa is a single-page app on another origin. It knows only the address of the API and its client
// ID.
const spa = `<!doctype html>
<title>An app of another origin</title>
<script>
const api = %q, redirect_uri = location.origin + "/callback";
const base64url = bytes => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const discover = async () => (await fetch(api + "/.well-known/openid-configuration")).json();

async function signIn(scope) { // RFC 7636
	sessionStorage.state = random();
	sessionStorage.verifier = random();
	const code_challenge = base64url(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(sessionStorage.verifier)));
	location = (await discover()).authorization_endpoint + "?" + new URLSearchParams({
		response_type: "code", client_id: "app", redirect_uri, scope, audience: "https://quickstarts/api",
		state: sessionStorage.state, code_challenge, code_challenge_method: "S256",
	});
}

async function redeem() {
	const answer = new URLSearchParams(location.search), discovered = await discover();
	if (answer.get("state") !== sessionStorage.state || answer.get("iss") !== discovered.issuer) throw new Error("this answer is to nobody's question");
	const response = await fetch(discovered.token_endpoint, {method: "POST", body: new URLSearchParams({
		grant_type: "authorization_code", client_id: "app", code: answer.get("code"), redirect_uri, code_verifier: sessionStorage.verifier,
	})});
	return response.json();
}

async function call(method, path, token, more = {}, text) {
	const headers = {...more};
	if (token) headers.Authorization = "Bearer " + token;
	if (text) headers["Content-Type"] = "application/json";
	try {
		const response = await fetch(api + path, {method, headers, body: text && JSON.stringify({text})});
		return {status: response.status, headers: Object.fromEntries(response.headers), body: await response.text()};
	} catch (error) {
		return {blocked: String(error)};
	}
}
</script>
`

// called is what an app could learn of an answer.
type called struct {
	Status  int
	Headers map[string]string
	Body    string
	Blocked string
}

func (p *tab) call(arguments ...any) called {
	p.t.Helper()
	said, err := json.Marshal(arguments)
	if err != nil {
		p.t.Fatal(err)
	}
	return evaluate[called](p, fmt.Sprintf("call(...%s)", said))
}

// An app on an origin of OASGATE_CORS_ORIGINS can sign people in and call the API. An app on
// another origin can do neither.
func TestBrowserAppOfAnotherOrigin(t *testing.T) {
	b := startBrowser(t)
	var api string
	app := func() *httptest.Server {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			if r.URL.Path == "/favicon.ico" {
				return
			}
			fmt.Fprintf(w, spa, api)
		}))
		t.Cleanup(server.Close)
		return server
	}
	named, other := app(), app()
	p := startDev(t, "--cors-origins", named.URL)
	api = p.url

	signIn := func(person string) (*tab, string, []string) {
		t.Helper()
		page := b.open(t, named.URL)
		evaluate[any](page, `void signIn("read:messages write:messages")`)
		page.click(fmt.Sprintf(`//button[@name="person" and @value=%q]`, person))
		page.until("the app gets its answer",
			`location.pathname === "/callback" && typeof redeem === "function"`)
		given := evaluate[struct {
			AccessToken      string `json:"access_token"`
			Scope            string
			Error            string
			ErrorDescription string `json:"error_description"`
		}](page, "redeem()")
		if given.AccessToken == "" {
			t.Fatalf("%s gets no token: %s %s", person, given.Error, given.ErrorDescription)
		}
		p.keepSecret(given.AccessToken)
		return page, given.AccessToken, strings.Fields(given.Scope)
	}

	bobs, token, scopes := signIn("bob")
	if !slices.Equal(scopes, []string{"read:messages"}) {
		t.Errorf("bob's token has %q, want only read:messages", scopes)
	}
	if got := bobs.call("GET", "/api/private-scoped", token); got.Status != 200 {
		t.Errorf("bob reads: %+v, want 200", got)
	}
	if got := bobs.call("POST", "/api/messages", token,
		map[string]string{"Idempotency-Key": "bobs-first-key-of-16"}, "Hello"); got.Status != 403 ||
		!strings.Contains(got.Headers["www-authenticate"], `scope="write:messages"`) {
		t.Errorf("bob writes: %+v, want 403 with a challenge that the app can read", got)
	}
	if got := bobs.call("GET", "/api/private-scoped", ""); got.Status != 401 ||
		!strings.HasPrefix(got.Headers["www-authenticate"], "Bearer ") {
		t.Errorf("without a token: %+v, want 401 with a challenge that the app can read", got)
	}
	if got := bobs.call("GET", "/api/private-scoped", "x.y.z"); got.Status != 401 ||
		!strings.Contains(got.Headers["www-authenticate"], `error="invalid_token"`) {
		t.Errorf("with a bad token: %+v, want 401 with a challenge that the app can read", got)
	}

	alices, token, _ := signIn("alice")
	made := alices.call("POST", "/api/messages", token,
		map[string]string{"Idempotency-Key": "alices-first-key-of-16"}, "Hello")
	if made.Status != 201 || made.Headers["location"] == "" || made.Headers["etag"] == "" {
		t.Fatalf("alice writes: %+v, want 201 with Location and ETag that the app can read", made)
	}
	if got := alices.call("PUT", made.Headers["location"], token,
		map[string]string{"If-Match": made.Headers["etag"]}, "Hello again"); got.Status != 200 {
		t.Errorf("alice writes again: %+v, want 200", got)
	}
	for _, page := range []*tab{bobs, alices} {
		page.keptToItself(hostOf(named.URL), hostOf(p.url))
	}
	if got := alices.call("GET", "/api/public", "",
		map[string]string{"X-Made-Up": "1"}); got.Blocked == "" {
		t.Errorf("a header that the document does not declare was allowed: %+v", got)
	}

	stranger := b.open(t, other.URL)
	for _, path := range []string{"/api/public", "/api/private-scoped",
		"/.well-known/openid-configuration", "/oauth/token"} {
		if got := stranger.call("GET", path, token); got.Blocked == "" {
			t.Errorf("a page of an origin that is not configured can read %s: %+v", path, got)
		}
	}
	if got := stranger.call("GET", "/api/public", ""); got.Blocked == "" {
		t.Errorf("a page of an origin that is not configured can read a public operation: %+v", got)
	}
}

// The page at /docs under dev: from an empty browser to an answer, as an application and as two
// people.
func TestBrowserDocs(t *testing.T) {
	b := startBrowser(t)
	p := startDev(t)
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := authz.Compile(document)
	if err != nil {
		t.Fatal(err)
	}
	page := docsPage{b.open(t, p.url+"/docs")}

	for _, o := range plan.Operations() {
		needs := "token"
		var alternatives []string
		for _, alternative := range o.Alternatives {
			if scopes := alternative[0].Scopes; len(scopes) > 0 {
				needs, alternatives = "scope: ", append(alternatives, strings.Join(scopes, " and "))
			}
		}
		if o.Public() {
			needs = "public"
		}
		page.shows(fmt.Sprintf("[id$=%q] .opblock-summary .docs-access", "-"+o.ID),
			needs+strings.Join(alternatives, " or "))
	}

	page.asApplication()
	if got := page.try("getPrivateScoped"); got.status != "200" ||
		!strings.Contains(got.details, scopedGreeting) {
		t.Errorf("an application is answered: %+v, want 200 and a greeting", got)
	}

	page.signIn("bob")
	if got := page.try("listMessages"); got.status != "200" {
		t.Errorf("bob reads: %+v, want 200", got)
	}
	if got := page.try("createMessage"); got.status != "403" ||
		!strings.Contains(got.details, "insufficient-scope") ||
		!strings.Contains(got.details, "write:messages") {
		t.Errorf("bob writes: %+v, want 403, and on the page which scope is missing", got)
	}

	page.signIn("alice")
	if got := page.try("createMessage"); got.status != "201" ||
		!strings.Contains(got.details, `"alice"`) {
		t.Errorf("alice writes: %+v, want 201 and a message of hers", got)
	}

	page.shows(`[id$="-createMessage"] .docs-languages`, "cURL")
	languages := evaluate[[]string](page.tab,
		`[...document.querySelectorAll('[id$="-createMessage"] .docs-languages button')].map(button => button.innerText)`)
	if len(languages) != 10 {
		t.Errorf("the languages are %q: want ten", languages)
	}
	for _, language := range languages {
		page.click(
			operation("createMessage") + fmt.Sprintf(
				`//*[@class="docs-languages"]//button[.=%q]`,
				language,
			),
		)
		page.until(
			"another language is chosen: "+language,
			fmt.Sprintf(
				`document.querySelector('[id$="-createMessage"] .docs-languages button[aria-pressed=true]').innerText === %q`,
				language),
		)
		parts := evaluate[[]string](page.tab,
			`[...document.querySelectorAll('[id$="-createMessage"] .docs-snippets pre')].map(part => part.innerText)`)
		if len(parts) != 2 || !strings.Contains(parts[0], "/oauth/token") ||
			!strings.Contains(parts[1], "/api/messages") ||
			!strings.Contains(parts[0]+parts[1], hostOf(p.url)) {
			t.Errorf(
				"%s is shown as %q: want how to get a token, and how to call, of this very server",
				language, parts)
		}
	}

	page.keptToItself(hostOf(p.url))
	page.keepsNothing()
	page.picture("getPrivateScoped")

	// The check for errors of a page must be able to fail.
	for _, forbidden := range []string{
		`void document.head.append(Object.assign(document.createElement("script"), {textContent: "1"}))`,
		`fetch("https://elsewhere.example/").catch(() => null)`,
	} {
		before := len(page.complained())
		evaluate[any](page.tab, forbidden)
		eventually(t, "the browser tells that the page's policy forbids: "+forbidden,
			func() bool { return len(page.complained()) > before })
	}
}

// serve has the page if it is enabled, and fills in no client.
func TestBrowserDocsUnderServe(t *testing.T) {
	b := startBrowser(t)
	issuer := startIssuer(t)
	if got := startServe(t, issuer).get(t, "/docs", ""); got.status != http.StatusNotFound {
		t.Errorf("/docs is %d, want 404: the page is off", got.status)
	}
	p := startServe(t, issuer, "OASGATE_DOCS=true")
	page := docsPage{b.open(t, p.url+"/docs")}
	page.click(authorizeButton)
	filled := evaluate[[]string](page.tab,
		`[...document.querySelectorAll("dialog input:not([type=radio])")].filter(input => input.type === "checkbox" ? input.checked : input.value).map(input => input.name)`)
	if len(filled) > 0 {
		t.Errorf("%q are filled in, want nothing", filled)
	}
	page.press(kb.Escape)
	if got := page.try("getPublic"); got.status != "200" {
		t.Errorf("getPublic is answered: %+v, want 200", got)
	}
	if got := page.try("getPrivate"); got.status != "401" {
		t.Errorf("getPrivate is answered: %+v, want 401 without a token", got)
	}
	page.keptToItself(hostOf(p.url))
	page.keepsNothing()
}

// The page shows the settings of serve.
func TestOriginsUnderServe(t *testing.T) {
	t.Parallel()
	p := startServe(t, startIssuer(t),
		"OASGATE_CORS_ORIGINS=https://app.example, http://localhost:3000")
	for origin, want := range map[string]string{"https://app.example": "https://app.example", "http://localhost:3000": "http://localhost:3000", "http://localhost:3010": ""} {
		got := p.ask(t, "OPTIONS", "/api/messages", "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers",
			"authorization,content-type,idempotency-key")
		if got.status != http.StatusNoContent ||
			got.header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("the preflight of %s is answered with %d for origin %q: want 204 for %q",
				origin, got.status, got.header.Get("Access-Control-Allow-Origin"), want)
		}
	}
}

// docsPage is the page at /docs.
type docsPage struct{ *tab }

const (
	authorizeButton = `//button[@id="docs-authorize"]`
	submitButton    = `//form[@id="docs-authorize-form"]//button[@type="submit"]`
)

// openAuthorize opens the dialog and chooses how to get a token: application, person or paste.
func (p docsPage) openAuthorize(way string) {
	p.t.Helper()
	if !evaluate[bool](p.tab, `document.querySelector("#docs-authorize-dialog").open`) {
		p.click(authorizeButton)
	}
	if forget := `//div[@id="docs-held" and not(@hidden)]//button`; p.has(forget) {
		p.click(forget)
	}
	p.click(fmt.Sprintf(`//input[@name="way" and @value=%q]`, way))
}

// authorized waits for a token, and closes the dialog.
func (p docsPage) authorized() {
	p.t.Helper()
	p.until("there is a token", found(`//div[@id="docs-held" and not(@hidden)]`))
	p.click(`//dialog[@id="docs-authorize-dialog"]//button[@class="docs-close"]`)
}

// asApplication gets a token with what is filled in.
func (p docsPage) asApplication() {
	p.t.Helper()
	p.openAuthorize("application")
	p.click(submitButton)
	p.authorized()
}

// signIn gets a person's token, in the window that opens for it.
func (p docsPage) signIn(person string) {
	p.t.Helper()
	p.openAuthorize("person")
	window := p.opens(func() { p.click(submitButton) })
	window.click(fmt.Sprintf(`//button[@name="person" and @value=%q]`, person))
	p.authorized()
	window.keptToItself(hostOf(evaluate[string](p.tab, "location.origin")))
}

// operation finds, by XPath, what the page shows of an operation.
func operation(id string) string {
	return fmt.Sprintf(
		`//div[starts-with(@id, "operations-") and substring(@id, string-length(@id) - %d) = %q]`,
		len(id),
		"-"+id,
	)
}

// tried is what the page shows of an answer.
type tried struct{ status, details string }

// try calls an operation with what is filled in.
func (p docsPage) try(id string) tried {
	p.t.Helper()
	o := operation(id)
	if closed := o + `//button[@class="opblock-summary-control" and @aria-expanded="false"]`; p.has(
		closed) {
		p.click(closed)
	}
	if !p.has(o + `//button[contains(@class, "try-out__btn") and contains(@class, "cancel")]`) {
		p.click(o + `//button[contains(@class, "try-out__btn")]`)
	}
	if earlier := o + `//button[contains(@class, "btn-clear")]`; p.has(earlier) {
		p.click(earlier)
	}
	p.click(o + `//button[contains(@class, "execute")]`)
	answer := fmt.Sprintf("[id$=%q] .live-responses-table tbody", "-"+id)
	p.until("there is an answer to "+id, fmt.Sprintf("document.querySelector(%q) !== null", answer))
	return tried{
		status: evaluate[string](p.tab,
			fmt.Sprintf("document.querySelector(%q).innerText", answer+" .response-col_status")),
		details: evaluate[string](
			p.tab,
			fmt.Sprintf("document.querySelector(%q).innerText",
				answer+" .response-col_description"),
		),
	}
}

// picture saves a screenshot of an operation in the directory OASGATE_TEST_ARTIFACTS, if it is set.
// To update the one in authz/server/docs:
//
//	OASGATE_TEST_ARTIFACTS=$PWD/authz/server/docs go test -run '^TestBrowserDocs$' ./impl/e2e
func (p docsPage) picture(id string) {
	p.t.Helper()
	dir := os.Getenv("OASGATE_TEST_ARTIFACTS")
	if dir == "" {
		return
	}
	// The port was free before, and the token is not used.
	evaluate[any](
		p.tab,
		`for (const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); texts.nextNode();) {
		const text = texts.currentNode;
		text.data = text.data.replaceAll(location.host, "localhost:3010").replace(/eyJ[\w.-]+/g, "eyJ…");
	}`,
	)
	p.do(chromedp.EmulateViewport(1200, 1340))
	evaluate[any](p.tab,
		fmt.Sprintf("document.querySelector(%q).scrollIntoView()", fmt.Sprintf("[id$=%q]", "-"+id)))
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "screenshot.png"), picture, 0o644)
	}
	if err != nil {
		p.t.Errorf("cannot save the screenshot: %v", err)
	}
}
