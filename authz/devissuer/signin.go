package devissuer

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
)

// signInStyle is allowed in the Content-Security-Policy by its hash.
const signInStyle = `
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #f4f5f7; }
main { max-width: 34rem; margin: 4rem auto; padding: 1.5rem 2rem 2rem; background: #fff; border: 1px solid #d5d9de; border-radius: 8px; }
h1 { margin: 0 0 .5rem; font-size: 1.4rem; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
button { width: 100%; margin-top: 1rem; padding: .7rem; font: inherit; font-weight: 600; color: #fff; background: #14532d; border: 0; border-radius: 6px; cursor: pointer; }
button:hover, button:focus-visible { background: #166534; }
button[name=cancel] { color: #1b1f24; background: #e5e7eb; font-weight: 400; }
.who { margin: .3rem 0 0; font-size: .9rem; }
.not { color: #9a3412; }
.note { margin: 1.5rem 0 0; font-size: .85rem; color: #57606a; }
`

// pages are the sign-in page and the error page. They need no script.
var pages = template.Must(template.New("").Parse(`
{{- define "head"}}<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>{{.}}</title>
<style>` + signInStyle + `</style>
<main>
<h1>{{.}}</h1>
{{end}}

{{- define "note"}}<p class="note">Development only: this issuer runs on this machine, has no passwords and signs in whom you choose.</p>
</main>
{{end}}

{{- define "scopes"}}{{range $n, $scope := .}}{{if $n}}, {{end}}<code>{{$scope}}</code>{{else}}no scopes{{end}}{{end}}

{{- define "signin"}}{{template "head" "Sign in"}}
<p><code>{{.Client}}</code>{{with .Name}}, registered as “{{.}}”,{{end}} requests {{template "scopes" .Scopes}} at <code>{{.Audience}}</code>. The response is sent to <code>{{.RedirectURI}}</code>.</p>
<form method="post" action="{{.Action}}">
{{range $name, $value := .Params}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}{{range .People}}<button name="person" value="{{.Name}}">Continue as {{.Name}}</button>
<p class="who">{{.Name}} grants {{template "scopes" .Granted}}{{if .Denied}} <span class="not">but may not grant {{template "scopes" .Denied}}</span>{{end}}</p>
{{end}}<button name="cancel" value="yes">Cancel</button>
</form>
{{template "note"}}{{end}}

{{- define "refusal"}}{{template "head" "The app's request is invalid"}}
<p><code>{{.Code}}</code>: {{.Description}}</p>
<p>The error is shown here and not sent to the app, because the request does not identify the app reliably.</p>
{{template "note"}}{{end}}
`))

// showSignIn shows the client, its scopes and the people who can sign in. The form posts the whole
// request again, and it is checked again, so that the server needs no session.
func (i *Issuer) showSignIn(w http.ResponseWriter, g grant, params map[string]string,
	back redirection) {
	type choice struct {
		Name            string
		Granted, Denied []string
	}
	var people []choice
	for _, person := range i.cfg.People {
		granted := person.filterScopes(g.scopes)
		denied := slices.DeleteFunc(slices.Clone(g.scopes), func(scope string) bool {
			return slices.Contains(granted, scope)
		})
		people = append(people, choice{person.Name, granted, denied})
	}
	showPage(w, http.StatusOK, "signin", "'self' "+back.formAction(), map[string]any{
		"Client": g.client, "Name": g.clientName, "Scopes": g.scopes,
		"Audience":    g.audience,
		"RedirectURI": g.redirectURI,
		"Action":      i.path + authorizePath, "Params": params, "People": people,
	})
}

// showRefusal shows an error that cannot be sent to the client.
func (i *Issuer) showRefusal(w http.ResponseWriter, refused *refusal) {
	showPage(w, refused.status, "refusal", "'none'", refused)
}

func showPage(w http.ResponseWriter, status int, name, formAction string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		// Impossible: templates and data are the program's.
		panic(fmt.Errorf("devissuer: page %s: %w", name, err))
	}
	style := sha256.Sum256([]byte(signInStyle))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(style[:])+
		"'; form-action "+formAction+"; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer, which would make the Origin of the page's own form null (Fetch §3.2.5). No
	// Cross-Origin-Opener-Policy, because apps open this page in a popup that reports to its
	// opener.
	w.Header().Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	w.Write(page.Bytes())
}
