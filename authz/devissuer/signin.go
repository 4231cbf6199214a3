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

// signInStyle is named in the policy by its hash.
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

// pages are the two that a person sees. They need no script.
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

{{- define "note"}}<p class="note">Development only: this issuer, on this machine alone, asks for no password and signs in whoever is chosen.</p>
</main>
{{end}}

{{- define "scopes"}}{{range $n, $scope := .}}{{if $n}}, {{end}}<code>{{$scope}}</code>{{else}}no scopes{{end}}{{end}}

{{- define "signin"}}{{template "head" "Sign in"}}
<p><code>{{.Client}}</code>{{with .Name}}, which registered itself as “{{.}}”,{{end}} asks for {{template "scopes" .Scopes}} at <code>{{.Audience}}</code>. Your answer goes to <code>{{.RedirectURI}}</code>.</p>
<form method="post" action="{{.Action}}">
{{range $name, $value := .Params}}<input type="hidden" name="{{$name}}" value="{{$value}}">
{{end}}{{range .People}}<button name="person" value="{{.Name}}">Continue as {{.Name}}</button>
<p class="who">{{.Name}} gives it {{template "scopes" .Gives}}{{if .Lacks}} <span class="not">but may not have {{template "scopes" .Lacks}}</span>{{end}}</p>
{{end}}<button name="cancel" value="yes">Cancel</button>
</form>
{{template "note"}}{{end}}

{{- define "refusal"}}{{template "head" "The app's request cannot be answered"}}
<p><code>{{.Code}}</code>: {{.Description}}</p>
<p>This is shown here, and not sent to the app, because nothing in the request is sure to be the app's.</p>
{{template "note"}}{{end}}
`))

// showSignIn shows who asks for what, and who would give it what. The form posts the request again,
// to be checked again: there is no session, and nothing to steal or to forge.
func (i *Issuer) showSignIn(w http.ResponseWriter, asked grant, params map[string]string,
	back redirection) {
	type choice struct {
		Name         string
		Gives, Lacks []string
	}
	var people []choice
	for _, person := range i.cfg.People {
		gives := person.granted(asked.scopes)
		lacks := slices.DeleteFunc(slices.Clone(asked.scopes), func(scope string) bool {
			return slices.Contains(gives, scope)
		})
		people = append(people, choice{person.Name, gives, lacks})
	}
	showPage(w, http.StatusOK, "signin", "'self' "+back.follows(), map[string]any{
		"Client": asked.client, "Name": asked.clientName, "Scopes": asked.scopes,
		"Audience":    asked.audience,
		"RedirectURI": asked.redirectURI,
		"Action":      i.path + authorizePath, "Params": params, "People": people,
	})
}

// showRefusal is for the person, when nobody else can be told.
func (i *Issuer) showRefusal(w http.ResponseWriter, refused *refusal) {
	showPage(w, refused.status, "refusal", "'none'", refused)
}

func showPage(w http.ResponseWriter, status int, name, formAction string, data any) {
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, name, data); err != nil {
		// The pages and what they show were made here; only a defect gets here.
		panic(fmt.Errorf("devissuer: page %s: %w", name, err))
	}
	style := sha256.Sum256([]byte(signInStyle))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+
		base64.StdEncoding.EncodeToString(style[:])+
		"'; form-action "+formAction+"; frame-ancestors 'none'; base-uri 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: under that, browsers call the origin of the page's own form null (Fetch
	// §3.2.5). And no Cross-Origin-Opener-Policy: apps open this page in a window that reports
	// back.
	w.Header().Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	w.Write(page.Bytes())
}
