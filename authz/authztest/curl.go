package authztest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// curl returns a command that repeats a request. Credentials are shell variables, because a report
// must not contain tokens.
func (r *run) curl(sent *http.Request, c Case, request Request, secrets []string) string {
	args := []string{"curl", "-i", "-X", sent.Method, quote(redact(sent.URL.String(), secrets))}
	if r.presenting[r.certificateOf(c)] != nil {
		args = append(args, "--cert", `"$CERT"`, "--key", `"$CERT_KEY"`)
	}
	for _, name := range slices.Sorted(maps.Keys(sent.Header)) {
		for _, value := range sent.Header[name] {
			switch _, given := r.Header[name]; {
			case name == "Authorization":
				scheme, _, _ := strings.Cut(value, " ")
				args = append(args, "-H", `"Authorization: `+scheme+` $TOKEN"`)
			case given: // it may be a secret, of a proxy
				args = append(args, "-H", quote(name+": SECRET"))
			default:
				args = append(args, "-H", quote(name+": "+redact(value, secrets)))
			}
		}
	}
	switch {
	case c.body == hugeBody:
		args = append(args, "-T", "/dev/zero")
	case c.body == invalidBody:
		args = append(args, "--data-binary", quote(brokenJSON))
	case len(request.Body) > 4096:
		args = append(args, "--data-binary", "@body")
	case len(request.Body) > 0:
		args = append(args, "--data-binary", quote(string(request.Body)))
	}
	return strings.Join(args, " ")
}

func redact(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(
				strings.ReplaceAll(text, secret, "SECRET"),
				url.QueryEscape(secret),
				"SECRET",
			)
		}
	}
	return text
}

// quote quotes an argument for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// detail returns the detail of a problem document (RFC 9457 §3.1.4).
func (a answer) detail() string {
	var problem struct{ Title, Detail string }
	if json.Unmarshal(a.body, &problem) != nil {
		return ""
	}
	if problem.Detail == "" {
		return problem.Title
	}
	return problem.Detail
}
