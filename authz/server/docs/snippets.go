package docs

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"unicode/utf16"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/runtime"

	"github.com/oasgate/oasgate/authz"
)

// Values are inserted into the snippets. If a value is empty, the snippets have a placeholder.
type Values struct {
	Document      *openapi3.T // its operations
	APIURL        string      // where clients reach the API, such as https://api.example.com
	TokenEndpoint string      // the issuer's (RFC 6749 §3.2)
	Audience      string      // of the token request; may be empty
	// ScopesToRequest returns the issuer's names of scopes; nil means the same names.
	ScopesToRequest func(scopes []string) []string
	ClientID        string
	ClientSecret    string // set under dev only, where it is not secret
}

// Snippets show, for every operation and language, how to get a token and how to call.
type Snippets struct {
	Languages  []Language                    `json:"languages"`
	Operations map[string]map[string]Snippet `json:"operations"` // by operationId, by Language.ID
}

// Language is a language of the snippets.
type Language struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	File     string `json:"file"`            // file name of a program
	Build    string `json:"build,omitempty"` // the command that compiles the file, if it needs one
	Run      string `json:"run"`             // the command that runs it
	Executed bool   `json:"executed"`        // whether our tests run it as shown

	literal func(string) string // writes any string as a literal of the language
}

// Snippet shows how to call an operation. Its two parts are displayed separately and form one
// program.
type Snippet struct {
	Token string `json:"token,omitempty"` // empty: the operation needs no token
	Call  string `json:"call"`
}

// Program returns the whole program. It prints the response; if it gets no token or the response is
// not a success, it reports the error on stderr and exits with a non-zero code.
func (s Snippet) Program() string {
	if s.Token == "" {
		return s.Call
	}
	return s.Token + "\n" + s.Call
}

//go:embed snippets
var snippetTemplates embed.FS

// languages returns the ten languages of the quickstart.
func languages() []Language {
	return []Language{
		{ID: "curl", Name: "cURL", File: "call.sh", Run: "sh call.sh", Executed: true,
			literal: shellLiteral},
		{ID: "csharp", Name: "C#", File: "call.cs",
			Build: "mcs -r:System.Net.Http -r:System.Runtime.Serialization -r:System.Xml.Linq " +
				"call.cs", Run: "mono call.exe", Executed: true,
			literal: quoted("", "", utf16Escape)},
		{ID: "go", Name: "Go", File: "call.go", Build: "go build call.go", Run: "./call",
			Executed: true, literal: quoted("", "", universalEscape)},
		{ID: "java", Name: "Java", File: "Call.java", Build: "javac Call.java", Run: "java Call",
			Executed: true, literal: quoted("", "", utf16Escape)},
		{ID: "node", Name: "Node", File: "call.mjs", Run: "node call.mjs", Executed: true,
			literal: quoted("", "", utf16Escape)},
		{ID: "objc", Name: "Objective-C", File: "call.m",
			Build: "gcc $(gnustep-config --objc-flags) -o call call.m " +
				"$(gnustep-config --base-libs)",
			Run: "./call", Executed: true, literal: objcLiteral},
		{ID: "php", Name: "PHP", File: "call.php", Run: "php call.php", Executed: true,
			literal: quoted("", "$", bracedEscape)},
		{ID: "python", Name: "Python", File: "call.py", Run: "python3 call.py", Executed: true,
			literal: quoted("", "", universalEscape)},
		{ID: "ruby", Name: "Ruby", File: "call.rb", Run: "ruby call.rb", Executed: true,
			literal: quoted("", "#", bracedEscape)},
		{ID: "swift", Name: "Swift", File: "call.swift", Run: "swift call.swift",
			literal: quoted("", "", bracedEscape)},
	}
}

// literals are the data of a template. All are literals of its language already, so that no
// template can forget to quote one.
type literals struct {
	TokenEndpoint string
	Form          []field // of the token request; empty: the operation needs no token
	Method, URL   string
	Headers       []field
	ContentType   field
	Body          string // empty: there is none
}

// field is a parameter or a header.
type field struct {
	Name, Value string
	Line        string // NAME=VALUE, or NAME: VALUE
}

// NewSnippets makes the snippets of the named operations, or of all if none is named. It ignores
// unknown operations, and does no I/O.
func NewSnippets(values Values, operationIDs ...string) (*Snippets, error) {
	if values.Document == nil {
		return nil, errors.New("docs: Values.Document is nil")
	}
	s := &Snippets{Languages: languages(), Operations: map[string]map[string]Snippet{}}
	templates, err := template.ParseFS(snippetTemplates, "snippets/*.tmpl")
	if err != nil {
		return nil, err
	}
	for _, o := range authz.Describe(values.Document) {
		if len(operationIDs) > 0 && !slices.Contains(operationIDs, o.ID) {
			continue
		}
		call := values.call(o)
		s.Operations[o.ID] = map[string]Snippet{}
		for _, language := range s.Languages {
			snippet, err := language.write(templates, values.literals(o, call, language.literal))
			if err != nil {
				return nil, err
			}
			s.Operations[o.ID][language.ID] = snippet
		}
	}
	return s, nil
}

// write executes the language's template. In some languages a program has a part that both of the
// others need.
func (l Language) write(templates *template.Template, data literals) (snippet Snippet, err error) {
	part := func(name string) string {
		var text bytes.Buffer
		if t := templates.Lookup(l.ID + " " + name); t != nil {
			err = errors.Join(err, t.Execute(&text, data))
		}
		return text.String()
	}
	snippet = Snippet{Call: part("call")}
	if len(data.Form) > 0 {
		snippet.Token = part("begin") + part("token")
	} else {
		snippet.Call = part("begin") + snippet.Call
	}
	return snippet, err
}

// call is the request that a program sends with its token.
type call struct {
	url         string
	headers     []pair
	contentType string // empty: there is no body
	body        string
}

type pair struct{ name, value string }

// literals converts the values and a call to literals.
func (v Values) literals(o authz.Operation, c call, literal func(string) string) literals {
	w := literals{
		TokenEndpoint: literal(cmp.Or(v.TokenEndpoint, "https://YOUR_ISSUER/oauth/token")),
		Method:        literal(o.Method),
		URL:           literal(c.url),
	}
	fieldOf := func(p pair, between string) field {
		return field{literal(p.name), literal(p.value), literal(p.name + between + p.value)}
	}
	if scopes, needed := v.tokenScopes(o); needed {
		if v.ScopesToRequest != nil {
			scopes = v.ScopesToRequest(scopes)
		}
		for _, p := range []pair{
			{"grant_type", "client_credentials"}, // RFC 6749 §4.4.2
			{"client_id", cmp.Or(v.ClientID, "YOUR_CLIENT_ID")},
			{"client_secret", cmp.Or(v.ClientSecret, "YOUR_CLIENT_SECRET")},
			{"audience", v.Audience},
			{"scope", strings.Join(scopes, " ")},
		} {
			if p.value != "" {
				w.Form = append(w.Form, fieldOf(p, "="))
			}
		}
	}
	for _, p := range c.headers {
		w.Headers = append(w.Headers, fieldOf(p, ": "))
	}
	if c.contentType != "" {
		w.ContentType = fieldOf(pair{"Content-Type", c.contentType}, ": ")
		w.Body = literal(c.body)
	}
	return w
}

// Credentials that a program can send: see credentialOf.
const apiKey, userAndPassword = "API key", "user and password"

// alternative returns the first alternative of an operation whose credentials a program can all
// send, or nil.
func (v Values) alternative(o authz.Operation) authz.Alternative {
	for _, a := range o.Alternatives {
		if !slices.ContainsFunc(a, func(r authz.Requirement) bool {
			return !slices.Contains([]string{"token", apiKey, userAndPassword},
				v.credential(r.Scheme))
		}) {
			return a
		}
	}
	return nil
}

// credential describes the credential of a security scheme: see credentialOf.
func (v Values) credential(scheme string) string {
	if spec := v.scheme(scheme); spec != nil {
		return credentialOf(spec)
	}
	return ""
}

func (v Values) scheme(name string) *openapi3.SecurityScheme {
	if v.Document.Components == nil || v.Document.Components.SecuritySchemes[name] == nil {
		return nil
	}
	return v.Document.Components.SecuritySchemes[name].Value
}

// tokenScopes returns the scopes of the token for an operation, and whether it needs a token.
func (v Values) tokenScopes(o authz.Operation) (scopes []string, needed bool) {
	for _, requirement := range v.alternative(o) {
		if v.credential(requirement.Scheme) != "token" {
			continue
		}
		needed = true
		for _, scope := range requirement.Scopes {
			if !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes, needed
}

// addCredentials adds the credentials other than access tokens to a call.
func (v Values) addCredentials(o authz.Operation, c *call, query *[]string, cookies *[]string) {
	key := cmp.Or(v.ClientSecret, "YOUR_API_KEY")
	for _, requirement := range v.alternative(o) {
		spec := v.scheme(requirement.Scheme)
		switch credentialOf(spec) {
		case userAndPassword:
			pair := pair{"Authorization", "Basic BASE64_OF_USER:PASSWORD"}
			if v.ClientSecret != "" {
				user := []byte(v.ClientID + ":" + v.ClientSecret)
				pair.value = "Basic " + base64.StdEncoding.EncodeToString(user)
			}
			c.headers = append(c.headers, pair)
		case apiKey:
			switch spec.In {
			case openapi3.ParameterInQuery:
				*query = append(*query, url.QueryEscape(spec.Name)+"="+url.QueryEscape(key))
			case openapi3.ParameterInCookie:
				*cookies = append(*cookies, spec.Name+"="+key)
			default:
				c.headers = append(c.headers, pair{spec.Name, key})
			}
		}
	}
}

// call makes the request of an operation from the document's examples, with the required inputs
// only.
func (v Values) call(o authz.Operation) (c call) {
	item := v.Document.Paths.Value(o.Path)
	spec := item.GetOperation(o.Method)
	path, query, cookies := o.Path, []string{}, []string{}
	for _, p := range parameters(item, spec) {
		switch text := parameterText(p); p.In {
		case openapi3.ParameterInPath:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", text)
		case openapi3.ParameterInQuery:
			query = append(query, text)
		case openapi3.ParameterInHeader:
			c.headers = append(c.headers, pair{p.Name, text})
		case openapi3.ParameterInCookie:
			cookies = append(cookies, text)
		}
	}
	v.addCredentials(o, &c, &query, &cookies)
	if len(cookies) > 0 {
		c.headers = append(c.headers, pair{"Cookie", strings.Join(cookies, "; ")})
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	c.url = strings.TrimSuffix(cmp.Or(v.APIURL, "https://YOUR_API"), "/") + inURL(path)
	if spec.RequestBody != nil {
		c.contentType, c.body = body(spec.RequestBody.Value.Content)
	}
	return c
}

// parameters returns the required parameters. They include If-Match if the response without it is
// 428 (RFC 6585 §3). Three headers are never parameters (OpenAPI 3.1 §4.8.12.2.1).
func parameters(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.Parameter) {
	conditional := spec.Responses.Value("428") != nil
	for _, ref := range slices.Concat(spec.Parameters, item.Parameters) {
		p := ref.Value
		isHeader := func(name string) bool {
			return p.In == openapi3.ParameterInHeader && strings.EqualFold(p.Name, name)
		}
		overridden := slices.ContainsFunc(all, func(other *openapi3.Parameter) bool {
			return other.In == p.In && other.Name == p.Name
		})
		needed := p.Required || conditional && isHeader("If-Match")
		if needed && !overridden &&
			!slices.ContainsFunc([]string{"Accept", "Content-Type", "Authorization"}, isHeader) {
			all = append(all, p)
		}
	}
	return all
}

// parameterText writes a parameter in its style (OpenAPI 3.1 §4.8.12.3), escaped for its location.
// It falls back to JSON if the style cannot represent the value.
func parameterText(p *openapi3.Parameter) string {
	value := sample(p.Schema, p.Example, p.Examples, 0)
	for _, media := range p.Content {
		value = jsonText(sample(media.Schema, media.Example, media.Examples, 0))
	}
	location := map[string]runtime.ParamLocation{
		openapi3.ParameterInPath:   runtime.ParamLocationPath,
		openapi3.ParameterInQuery:  runtime.ParamLocationQuery,
		openapi3.ParameterInHeader: runtime.ParamLocationHeader,
		openapi3.ParameterInCookie: runtime.ParamLocationCookie,
	}[p.In]
	method, err := p.SerializationMethod()
	if err == nil && value != nil {
		if text, err := runtime.StyleParamWithLocation(method.Style, method.Explode, p.Name,
			location, value); err == nil {
			return text
		}
	}
	style := openapi3.SerializationSimple
	if p.In == openapi3.ParameterInQuery || p.In == openapi3.ParameterInCookie {
		style = openapi3.SerializationForm
	}
	// a string can always be represented
	text, _ := runtime.StyleParamWithLocation(style, false, p.Name, location, jsonText(value))
	return text
}

// jsonText encodes a value as JSON.
func jsonText(value any) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // it is not shown as HTML
	_ = encoder.Encode(value)
	return strings.TrimSuffix(b.String(), "\n")
}

// inURL escapes characters that are not allowed in the path or query of a URL (RFC 3986 §3.3),
// because clients treat them differently.
func inURL(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>[\\]^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// body makes a request body: JSON if the operation accepts it, or else a text example. Other media
// types have none.
func body(content openapi3.Content) (contentType, text string) {
	names := slices.SortedFunc(maps.Keys(content), func(a, b string) int {
		return cmp.Or(cmp.Compare(jsonRank(a), jsonRank(b)), cmp.Compare(a, b))
	})
	if len(names) == 0 {
		return "", ""
	}
	media := content[names[0]]
	value := sample(media.Schema, media.Example, media.Examples, 0)
	if jsonRank(names[0]) < 2 {
		return names[0], jsonText(value)
	}
	if text, ok := value.(string); ok {
		return names[0], text
	}
	return "", ""
}

func jsonRank(media string) int {
	media, _, _ = strings.Cut(media, ";")
	switch {
	case media == "application/json":
		return 0
	case strings.HasSuffix(media, "+json"):
		return 1
	}
	return 2
}

// sample returns the document's example, or else a value of the right type. It may be invalid:
// patterns, for instance, are ignored.
func sample(ref *openapi3.SchemaRef, example any, examples openapi3.Examples, depth int) any {
	if example != nil {
		return example
	}
	for _, name := range slices.Sorted(maps.Keys(examples)) {
		if e := examples[name]; e != nil && e.Value != nil && e.Value.Value != nil {
			return e.Value.Value
		}
	}
	if ref == nil || ref.Value == nil {
		return "string"
	}
	schema := ref.Value
	given := slices.Concat([]any{schema.Example}, schema.Examples,
		[]any{schema.Const, schema.Default}, schema.Enum)
	if i := slices.IndexFunc(given, func(v any) bool { return v != nil }); i >= 0 {
		return given[i]
	}
	if depth > 8 { // the schema may be recursive
		return nil
	}
	switch {
	case len(schema.OneOf) > 0:
		return sample(schema.OneOf[0], nil, nil, depth+1)
	case len(schema.AnyOf) > 0:
		return sample(schema.AnyOf[0], nil, nil, depth+1)
	case schema.Type.Includes("boolean"):
		return true
	case schema.Type.Includes("integer"), schema.Type.Includes("number"):
		if schema.Min != nil {
			return *schema.Min
		}
		return 1
	case schema.Type.Includes("array"):
		return []any{sample(schema.Items, nil, nil, depth+1)}
	case schema.Type.Includes("object"), len(schema.Properties) > 0, len(schema.AllOf) > 0:
		object := map[string]any{}
		for _, part := range schema.AllOf {
			if members, ok := sample(part, nil, nil, depth+1).(map[string]any); ok {
				maps.Copy(object, members)
			}
		}
		for _, name := range schema.Required {
			if property := schema.Properties[name]; property == nil || !property.Value.ReadOnly {
				object[name] = sample(property, nil, nil, depth+1)
			}
		}
		return object
	}
	switch schema.Format {
	case "date-time":
		return "2026-01-01T00:00:00Z"
	case "date":
		return "2026-01-01"
	case "uuid":
		return "01234567-89ab-7def-8123-456789abcdef"
	case "email":
		return "somebody@example.com"
	case "uri", "url":
		return "https://example.com/"
	}
	return "string"
}

// shellLiteral quotes for a POSIX shell, whose strings cannot hold a NUL.
func shellLiteral(s string) string {
	s = strings.ReplaceAll(s, "\x00", "")
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// quoted returns a function that writes literals in double quotes, in ASCII, so that the encoding
// of the file does not matter. Languages differ in the additional characters that need a backslash,
// and in the escapes of all others.
func quoted(begin, alsoEscaped string, other func(rune) string) func(string) string {
	return func(s string) string {
		var b strings.Builder
		b.WriteString(begin + `"`)
		for _, r := range s {
			switch {
			case r == '\n':
				b.WriteString(`\n`)
			case r == '\r':
				b.WriteString(`\r`)
			case r == '\t':
				b.WriteString(`\t`)
			case r == '"' || r == '\\' || strings.ContainsRune(alsoEscaped, r):
				b.WriteString(`\` + string(r))
			case ' ' <= r && r <= '~':
				b.WriteRune(r)
			default:
				b.WriteString(other(r))
			}
		}
		return b.String() + `"`
	}
}

// utf16Escape is for languages whose strings are UTF-16: C#, Java and JavaScript. Java replaces it
// before parsing (JLS §3.3), which is harmless in a literal, except for the characters that quoted
// escapes otherwise.
func utf16Escape(r rune) (s string) {
	for _, unit := range utf16.Encode([]rune{r}) {
		s += fmt.Sprintf(`\u%04x`, unit)
	}
	return s
}

// universalEscape is for Go and Python.
func universalEscape(r rune) string {
	if r > 0xffff {
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// objcLiteral uses octal escapes of UTF-8 bytes: in C99, \u begins at U+00A0 and \x has no maximum
// length. It breaks up ??, which could begin a trigraph.
func objcLiteral(s string) string {
	literal := quoted("@", "", func(r rune) (escaped string) {
		for _, b := range []byte(string(r)) {
			escaped += fmt.Sprintf(`\%03o`, b)
		}
		return escaped
	})(s)
	for strings.Contains(literal, "??") {
		literal = strings.ReplaceAll(literal, "??", `?\?`)
	}
	return literal
}

// bracedEscape is for PHP, Ruby and Swift.
func bracedEscape(r rune) string { return fmt.Sprintf(`\u{%x}`, r) }
