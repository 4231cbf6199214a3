package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/runtime"
	"golang.org/x/oauth2"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/token"
)

// callCommand calls an operation of the document. Its flags depend on the operation, so kong passes
// them through unparsed.
type callCommand struct {
	Args []string `arg:"" optional:"" help:"Operation and its parameters as flags. Without arguments, the operations are listed."`
}

// callable is an operation with its parameters.
type callable struct {
	authz.Operation
	plan       *authz.Plan
	spec       *openapi3.Operation
	parameters []*parameter
}

// parameter is a parameter of an operation, as a flag.
type parameter struct {
	*openapi3.Parameter
	flag   string
	kind   string   // string, integer, … array, object, JSON
	values []string // as given
}

// callOptions holds the flags that all operations have.
type callOptions struct {
	url, client, as, user        string
	base                         string // of the document's paths
	scope, form, keys            repeated
	dpop, include, json          bool
	dev                          bool // the token comes from a running dev
	hasDev                       bool // the program has the command dev
	keySchemes                   []string
	takesUser                    bool // the operation takes HTTP Basic
	issuer, audience, clientID   string
	file                         string // that lists issuers
	body, contentType            string
	bodyGiven, clientGiven, help bool
}

// repeated is a flag that can be given several times.
type repeated []string

// String implements [flag.Value].
func (r *repeated) String() string { return strings.Join(*r, ", ") }

// Set implements [flag.Value].
func (r *repeated) Set(value string) error { *r = append(*r, value); return nil }

// call calls the operation that the first argument names.
func (p *program) call(ctx context.Context, args []string) error {
	p = p.withDocumentFlags(args)
	document, plan, served, err := p.plan()
	if err != nil {
		return err
	}
	operations := callables(document, plan)
	if listed, asJSON := listing(args); listed {
		return p.listOperations(operations, asJSON)
	}
	name := args[0]
	if strings.HasPrefix(name, "-") {
		return &configurationError{fmt.Errorf("expected an operation before the flags: run "+
			"`%s call` for a list of the operations", p.Name)}
	}
	if len(operations) == 0 {
		return errors.New("the document has no operations")
	}
	i := slices.IndexFunc(operations, func(o *callable) bool { return o.ID == name })
	if i < 0 {
		return &configurationError{fmt.Errorf(
			"unknown operation %q; did you mean %s? Run `%s call` for a list of the operations",
			name, nearest(name, operations), p.Name)}
	}
	o := operations[i]
	options, err := o.parse(args[1:], p.env, p.Dev != nil)
	if err != nil {
		return &configurationError{fmt.Errorf("%w: see %s call %s --help", err, p.Name, o.ID)}
	}
	if options.help {
		return p.usage(o)
	}
	body, err := options.read(o.spec, p.stdin)
	if err != nil {
		return &configurationError{err}
	}
	options.within(served.clientPrefix())
	request, err := o.request(ctx, options, body)
	if err != nil {
		return &configurationError{fmt.Errorf("%w: see %s call %s --help", err, p.Name, o.ID)}
	}
	alternative, err := o.choose(options, p.env)
	if err == nil {
		err = o.present(request, alternative, options, p.env)
	}
	if err != nil {
		return err
	}
	caller, err := o.caller(ctx, alternative, options, p.env)
	if err != nil {
		return err
	}
	response, err := caller.Do(request)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // without the URL, whose query may have a key
		}
		return fmt.Errorf("%w: set --url to the address of the API", err)
	}
	defer response.Body.Close()
	return p.show(response, o, options)
}

// documentFlags are those flags of call that say which document it is about. They are read before
// the others, which depend on the document.
var documentFlags = []struct{ name, key, usage string }{
	{"overlay", "OVERLAY", "Overlays to apply to the document, separated by commas, as for serve."},
	{"base-path", "BASE_PATH", "Prefix of the document's paths, as for serve."},
}

// withDocumentFlags returns the program with the document flags among args in its environment.
func (p *program) withDocumentFlags(args []string) *program {
	changed := *p
	for i, arg := range args {
		name, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"),
			"=")
		if !given && i+1 < len(args) {
			value = args[i+1]
		}
		for _, f := range documentFlags {
			if strings.HasPrefix(arg, "-") && name == f.name {
				changed.env = changed.env.with(f.key, value)
			}
		}
	}
	return &changed
}

// listing reports whether the arguments of call only ask for the list of operations, and whether
// they ask for JSON. A list may be asked for with --url, on which it does not depend.
func listing(args []string) (listed, asJSON bool) {
	if len(args) > 0 && args[0] == "help" {
		return true, false
	}
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.String("url", devURL, "")
	flags.BoolVar(&asJSON, "json", false, "")
	for _, f := range documentFlags {
		flags.String(f.name, "", "")
	}
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return true, asJSON
	}
	return err == nil && flags.NArg() == 0, asJSON
}

// completeCall returns what can follow the words after call, for shell completion.
func (p *program) completeCall(words []string) (all []string) {
	document, plan, _, err := p.plan()
	if err != nil {
		return nil
	}
	for _, o := range callables(document, plan) {
		if len(words) == 1 {
			all = append(all, o.ID)
			continue
		}
		if o.ID != words[0] || !strings.HasPrefix(words[len(words)-1], "-") {
			continue
		}
		for _, parameter := range o.parameters {
			all = append(all, "--"+parameter.flag)
		}
		flags := flag.NewFlagSet(o.ID, flag.ContinueOnError)
		options := o.options(p.Dev != nil)
		options.define(flags, o.spec, environment{})
		flags.VisitAll(func(f *flag.Flag) {
			if f.Usage != "" {
				all = append(all, "--"+f.Name)
			}
		})
	}
	return all
}

// callables returns the operations of the document, sorted by ID.
func callables(document *openapi3.T, plan *authz.Plan) []*callable {
	var all []*callable
	for _, o := range plan.Operations() {
		item := document.Paths.Value(o.Path)
		c := &callable{Operation: o, plan: plan, spec: item.GetOperation(o.Method)}
		// A parameter of the operation overrides that of the path item (OpenAPI 3.1 §4.8.10).
		uses := map[string]int{} // of each flag name
		for _, parameters := range []openapi3.Parameters{c.spec.Parameters, item.Parameters} {
			for _, ref := range parameters {
				p := &parameter{Parameter: ref.Value}
				overridden := slices.ContainsFunc(c.parameters, func(other *parameter) bool {
					return other.Name == p.Name && other.In == p.In
				})
				if overridden || p.In == openapi3.ParameterInHeader && isReserved(p.Name) {
					continue
				}
				p.kind, p.flag = kindOf(p.Parameter), flagName(p.Parameter)
				uses[p.flag]++
				c.parameters = append(c.parameters, p)
			}
		}
		own := flag.NewFlagSet("", flag.ContinueOnError)
		(&callOptions{hasDev: true, keySchemes: []string{""}, takesUser: true}).define(own, c.spec,
			environment{})
		for _, p := range c.parameters {
			if uses[p.flag] > 1 || own.Lookup(p.flag) != nil || strings.HasPrefix(p.flag, "-") {
				p.flag = p.In + "." + p.flag
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *callable) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// isReserved reports whether a header cannot be a parameter (OpenAPI 3.1 §4.8.12).
func isReserved(header string) bool {
	switch strings.ToLower(header) {
	case "accept", "content-type", "authorization":
		return true
	}
	return false
}

// flagName returns the parameter's name without characters that a flag cannot have. The names of
// headers are case-insensitive.
func flagName(p *openapi3.Parameter) string {
	name := strings.NewReplacer("=", "-", " ", "-").Replace(p.Name)
	if p.In == openapi3.ParameterInHeader {
		name = strings.ToLower(name)
	}
	return name
}

// kindOf returns the type of a parameter's values.
func kindOf(p *openapi3.Parameter) string {
	if p.Schema == nil || p.Schema.Value == nil {
		return "JSON" // the parameter has content instead of a schema
	}
	return kindOfSchema(p.Schema.Value, 0)
}

func kindOfSchema(s *openapi3.Schema, depth int) string {
	if s.Type != nil {
		types := slices.DeleteFunc(s.Type.Slice(), func(t string) bool {
			return t == openapi3.TypeNull
		})
		if len(types) > 0 {
			return types[0]
		}
	}
	if depth < 10 { // schemas can be recursive
		for _, parts := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf} {
			for _, part := range parts {
				if kind := kindOfSchema(part.Value, depth+1); kind != openapi3.TypeString {
					return kind
				}
			}
		}
	}
	if len(s.Properties) > 0 {
		return openapi3.TypeObject
	}
	return openapi3.TypeString
}

// define adds the flags that all operations have. There is no flag for the secret, because other
// users can read the arguments of a process.
func (c *callOptions) define(flags *flag.FlagSet, spec *openapi3.Operation, env environment) {
	c.client = "full"
	if c.hasDev {
		flags.BoolVar(&c.dev, "dev", false,
			"Get the token from a running dev, even if an issuer is set. Default if none is set.")
		flags.StringVar(&c.client, "client", c.client,
			"Client of dev: full, which has all scopes, or none, which has no scopes.")
		flags.StringVar(&c.as, "as", "",
			"Sign in as a person of dev instead: alice, who has all scopes, or bob, who can "+
				"only read.")
	}
	variable := func(value *string, name, key, unset, usage string) {
		flags.StringVar(value, name, unset, usage+" ["+env.key(key)+"]")
	}
	for _, f := range documentFlags {
		variable(new(string), f.name, f.key, env.lookup(f.key), f.usage) // see withDocumentFlags
	}
	flags.StringVar(&c.url, "url", devURL,
		"URL of the API, with the prefix of its paths or without.")
	ofDev := ""
	if c.hasDev {
		ofDev = ", or that of dev"
	}
	if len(c.keySchemes) > 0 {
		flags.Var(&c.keys, "key", "API key, as scheme=value; can be repeated. Default: "+
			env.key(keyVariable(c.keySchemes[0]))+ofDev+".")
	}
	if c.takesUser {
		flags.StringVar(&c.user, "user", "", "User and password (HTTP Basic), as name:password. "+
			"Default: "+env.key("USER")+ofDev+".")
	}
	variable(&c.issuer, "issuer", "ISSUER", env.lookup("ISSUER"),
		"Issuer of the token: its URL, identical to the iss claim.")
	audience, _, _ := strings.Cut(env.lookup("AUDIENCE"), ",") // serve accepts several
	variable(&c.audience, "audience", "AUDIENCE", strings.TrimSpace(audience),
		"Identifier of the API at the issuer.")
	variable(&c.clientID, "client-id", "CLIENT_ID", env.lookup("CLIENT_ID"),
		"Client at the issuer. Its secret is read from "+env.key("CLIENT_SECRET")+
			" or "+env.key("CLIENT_SECRET")+"_FILE only.")
	variable(&c.file, "config", "CONFIG", env.lookup("CONFIG"),
		"YAML file that lists issuers, as for serve. It says what the issuer calls the scopes.")
	flags.Var(&c.scope, "scope", "Scope to request, as the issuer calls it, such as "+
		"api://<app>/.default; can be repeated. Default: the scopes that the operation requires.")
	flags.BoolVar(&c.dpop, "dpop", false, "Bind the token to a key (RFC 9449).")
	flags.BoolVar(&c.include, "include", false,
		"Also print the status and headers of the response.")
	flags.BoolVar(&c.include, "i", false, "")
	flags.BoolVar(&c.json, "json", false,
		"Print the status, the headers and the body of the response as one JSON object.")
	flags.BoolVar(&c.help, "help", false, "Show this help.")
	flags.BoolVar(&c.help, "h", false, "")
	if spec.RequestBody != nil {
		flags.StringVar(&c.body, "body", "",
			"Body of the request: the text itself, @file, or - for standard input.")
		types := mediaTypes(spec)
		flags.StringVar(&c.contentType, "content-type", types[0],
			"Media type of the body: "+strings.Join(types, ", ")+".")
		if formType(spec) != "" {
			flags.Var(&c.form, "form",
				"Field of the form: name=value, or name=@file; can be repeated. Replaces --body.")
		}
	}
}

// formType returns the media type of a form that the operation takes, or "".
func formType(spec *openapi3.Operation) string {
	for _, media := range []string{"multipart/form-data", "application/x-www-form-urlencoded"} {
		if spec.RequestBody.Value.Content[media] != nil {
			return media
		}
	}
	return ""
}

// mediaTypes returns the media types of the operation's body, JSON first.
func mediaTypes(spec *openapi3.Operation) []string {
	all := slices.Sorted(maps.Keys(spec.RequestBody.Value.Content))
	isJSON := func(s string) int {
		media, _, _ := mime.ParseMediaType(s)
		if media == "application/json" || strings.HasSuffix(media, "+json") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(all, func(a, b string) int { return isJSON(a) - isJSON(b) })
	if len(all) == 0 {
		return []string{"application/json"}
	}
	return all
}

// parse parses the flags, or returns all faults, joined.
func (o *callable) parse(args []string, env environment, hasDev bool) (*callOptions, error) {
	c := o.options(hasDev)
	flags := flag.NewFlagSet(o.ID, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.define(flags, o.spec, env)
	for _, p := range o.parameters {
		flags.Func(p.flag, p.Description, func(value string) error {
			p.values = append(p.values, value)
			return nil
		})
	}
	if err := flags.Parse(args); err != nil {
		return nil, flagError(err, flags)
	}
	if c.help {
		return &c, nil
	}
	flags.Visit(func(f *flag.Flag) {
		c.bodyGiven = c.bodyGiven || f.Name == "body"
		c.clientGiven = c.clientGiven || f.Name == "client"
	})
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format, args...))
	}
	if flags.NArg() > 0 {
		fault("argument %d after the operation is not a flag: expected parameters as --name value",
			len(args)-flags.NArg()+1)
	}
	for _, p := range o.parameters {
		switch {
		case len(p.values) == 0 && p.Required:
			expected := cmp.Or(firstLine(p.Description), "the operation requires it")
			fault("--%s is missing: %s", p.flag, strings.TrimSuffix(expected, "."))
		case len(p.values) > 1 && p.kind != openapi3.TypeArray && p.kind != openapi3.TypeObject:
			fault("--%s is given %d times: expected one value", p.flag, len(p.values))
		case p.In == openapi3.ParameterInPath && slices.Contains(p.values, ""):
			fault("--%s is empty: expected a value, because it is part of the path", p.flag)
		}
	}
	switch body := o.spec.RequestBody; {
	case c.bodyGiven && len(c.form) > 0:
		fault("--body and --form are both given: expected one of them")
	case body == nil || !body.Value.Required || c.bodyGiven || len(c.form) > 0:
	case formType(o.spec) != "":
		fault("--form is missing: expected name=value or name=@file for each field, or --body")
	default:
		fault("--body is missing: expected the text itself, @file, or - for standard input")
	}
	if c.client != "full" && c.client != "none" {
		fault("--client is %q: expected full or none", c.client)
	}
	if c.clientGiven && !c.usesDev() {
		fault("--client is for dev, but %s: "+
			"add --dev, or set --client-id to a client of the issuer", c.notDev())
	}
	if c.as != "" {
		switch {
		case !c.usesDev():
			fault("--as is for dev, but %s: add --dev", c.notDev())
		case c.clientGiven:
			fault("--as and --client are both given: expected one of them")
		case c.dpop:
			fault("--as and --dpop are both given: the token of a person is not bound to a key")
		}
	}
	return &c, errors.Join(faults...)
}

// within sets where the document's paths begin: at --url, which may have their prefix at its end.
func (c *callOptions) within(prefix string) {
	c.url = strings.TrimSuffix(strings.TrimSuffix(c.url, "/"), prefix)
	c.base = c.url + prefix
}

// usesDev reports whether the token comes from dev, which listens on loopback only.
func (c *callOptions) usesDev() bool {
	api, err := url.Parse(c.url)
	return c.hasDev &&
		(c.dev || c.issuer == "" && (err != nil || token.IsLoopback(api.Hostname())))
}

// notDev returns the reason why the token does not come from dev.
func (c *callOptions) notDev() string {
	if c.issuer == "" {
		return fmt.Sprintf("--url is %q", c.url)
	}
	return fmt.Sprintf("--issuer is %q", c.issuer)
}

// aboutDev returns what to do if dev, from which the token comes, does not issue one.
func (c *callOptions) aboutDev(env environment) string {
	switch {
	case !c.usesDev():
		return ""
	case c.dev:
		return startDev
	}
	return startDev + "; for tokens of another issuer, set --issuer (" + env.key("ISSUER") + ")"
}

// flagError returns an error of the parser of flags in the words of this program.
func flagError(err error, flags *flag.FlagSet) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		return fmt.Errorf("--%s has no value", name)
	}
	name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !ok {
		return err
	}
	var known []string
	flags.VisitAll(func(f *flag.Flag) {
		if len(f.Name) > 1 {
			known = append(known, f.Name)
		}
	})
	if near := meant(name, known); near != "" {
		return fmt.Errorf("unknown flag --%s; did you mean --%s?", name, near)
	}
	return fmt.Errorf("unknown flag --%s", name)
}

// read returns the body, or nil if there is none. It sets the content type of a form.
func (c *callOptions) read(spec *openapi3.Operation, stdin io.Reader) (body []byte, err error) {
	name, isFile := strings.CutPrefix(c.body, "@")
	switch {
	case len(c.form) > 0:
		c.bodyGiven = true
		body, c.contentType, err = formBody(formType(spec), c.form)
		return body, err
	case !c.bodyGiven:
		return nil, nil
	case c.body == "-":
		return io.ReadAll(stdin)
	case isFile:
		return os.ReadFile(name)
	}
	return []byte(c.body), nil
}

// formBody returns a form in its media type, and the full content type. A value @file is the
// content of a file, whose name is sent with a multipart form (RFC 7578 §4.2).
func formBody(media string, fields []string) ([]byte, string, error) {
	var body bytes.Buffer
	multi, values := multipart.NewWriter(&body), url.Values{}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, "=")
		if !ok || name == "" {
			return nil, "", fmt.Errorf("--form is %q: expected name=value or name=@file", field)
		}
		path, isFile := strings.CutPrefix(value, "@")
		content, part := []byte(value), textproto.MIMEHeader{}
		disposition := map[string]string{"name": name}
		if isFile {
			var err error
			if content, err = os.ReadFile(path); err != nil {
				return nil, "", fmt.Errorf("--form %s: %w", name, err)
			}
			disposition["filename"] = filepath.Base(path)
			kind := cmp.Or(mime.TypeByExtension(filepath.Ext(path)), "application/octet-stream")
			part.Set("Content-Type", kind)
		}
		values.Add(name, string(content))
		part.Set("Content-Disposition", mime.FormatMediaType("form-data", disposition))
		w, _ := multi.CreatePart(part) // a buffer takes everything
		_, _ = w.Write(content)
	}
	if media == "application/x-www-form-urlencoded" {
		return []byte(values.Encode()), media, nil
	}
	_ = multi.Close()
	return body.Bytes(), multi.FormDataContentType(), nil
}

// request builds the request with its parameters (OpenAPI 3.1 §4.8.12).
func (o *callable) request(
	ctx context.Context, c *callOptions, body []byte,
) (*http.Request, error) {
	path := o.Path
	var query []string
	headers := http.Header{}
	var cookies []*http.Cookie
	for _, p := range o.parameters {
		if len(p.values) == 0 {
			continue
		}
		text, err := p.encoded()
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", p.flag, err)
		}
		switch p.In {
		case openapi3.ParameterInPath:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", text)
		case openapi3.ParameterInQuery:
			query = append(query, text)
		case openapi3.ParameterInHeader:
			headers.Set(p.Name, text)
		case openapi3.ParameterInCookie:
			cookies = append(cookies, &http.Cookie{Name: p.Name, Value: text})
		}
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + strings.Join(query, "&")
	}
	var reader io.Reader
	if c.bodyGiven {
		reader = bytes.NewReader(body)
		headers.Set("Content-Type", c.contentType)
	}
	request, err := http.NewRequestWithContext(ctx, o.Method, target, reader)
	if err != nil || request.URL.Host == "" {
		return nil, fmt.Errorf("--url is %q: expected a URL such as %s", c.url, devURL)
	}
	request.Header = headers
	for _, cookie := range cookies {
		request.AddCookie(cookie)
	}
	return request, nil
}

// encoded returns the parameter's values in the style of the document.
func (p *parameter) encoded() (string, error) {
	location := map[string]runtime.ParamLocation{
		openapi3.ParameterInPath:   runtime.ParamLocationPath,
		openapi3.ParameterInQuery:  runtime.ParamLocationQuery,
		openapi3.ParameterInHeader: runtime.ParamLocationHeader,
		openapi3.ParameterInCookie: runtime.ParamLocationCookie,
	}[p.In]
	method, err := p.SerializationMethod()
	if err != nil {
		return "", err
	}
	style, explode := method.Style, method.Explode
	if p.In == openapi3.ParameterInCookie {
		style = openapi3.SerializationSimple // http.Cookie adds the name
	}
	var value any = p.values[0]
	switch p.kind {
	case openapi3.TypeArray:
		value = p.values
	case openapi3.TypeObject:
		members := map[string]string{}
		for _, member := range p.values {
			name, text, ok := strings.Cut(member, "=")
			if !ok {
				return "", errors.New("expected name=value for each member of the object")
			}
			members[name] = text
		}
		value = members
	case "JSON":
		if !json.Valid([]byte(p.values[0])) {
			return "", errors.New("expected JSON")
		}
		style, explode = openapi3.SerializationSimple, false
		if p.In == openapi3.ParameterInQuery {
			style = openapi3.SerializationForm
		}
	}
	text, err := runtime.StyleParamWithOptions(style, explode, p.Name, value,
		runtime.StyleParamOptions{ParamLocation: location, AllowReserved: p.AllowReserved})
	if p.In == openapi3.ParameterInQuery {
		// URLs do not allow the delimiters of spaceDelimited and pipeDelimited (RFC 3986 §2.2).
		text = strings.NewReplacer(" ", "%20", "|", "%7C").Replace(text)
	}
	return text, err
}

// caller returns the client that sends the request, with a token that has exactly the scopes that
// the operation requires (or those of --scope), or without a token if the operation is public. It
// does not follow redirects.
func (o *callable) caller(
	ctx context.Context, a authz.Alternative, c *callOptions, env environment,
) (*http.Client, error) {
	plain := unredirected()
	scopes, required := o.tokenScopes(a)
	if !required {
		return plain, nil
	}
	if len(c.scope) > 0 {
		scopes = c.scope
	}
	if c.as != "" {
		token, err := signIn(ctx, c.url, c.as, scopes)
		if err != nil {
			return nil, tokenError(err, c.aboutDev(env))
		}
		plain.Transport = &oauth2.Transport{Source: oauth2.StaticTokenSource(token)}
		return plain, nil
	}
	secret, err := env.secret("CLIENT_SECRET")
	if err != nil {
		return nil, &configurationError{err}
	}
	config := client.Config{
		Issuer: c.issuer, ClientID: c.clientID, ClientSecret: secret,
		Audience: c.audience, Scopes: scopes,
	}
	if c.usesDev() {
		if c.client == "none" {
			scopes = nil // dev would refuse to grant any
		}
		config = devClient(c.url, c.client, scopes)
	} else if err := c.credentials(env, secret != ""); err != nil {
		return nil, &configurationError{err}
	}
	if !c.usesDev() && len(c.scope) == 0 {
		names, err := c.requested(env, config.Scopes)
		if err != nil {
			return nil, &configurationError{err}
		}
		config.Scopes = names
	}
	config.DPoP, config.HTTPClient = c.dpop, plain
	source, err := client.New(ctx, config)
	if err != nil {
		return nil, &configurationError{err}
	}
	caller, err := source.Client(c.base)
	if err != nil {
		return nil, &configurationError{err}
	}
	if _, err := source.Token(); err != nil {
		return nil, tokenError(err, c.aboutDev(env))
	}
	return caller, nil
}

// requested returns what the issuer is asked for to grant the scopes, as --config says.
func (c *callOptions) requested(env environment, scopes []string) ([]string, error) {
	if c.file == "" {
		return scopes, nil
	}
	issuers, err := readIssuers(env.key("CONFIG"), c.file)
	if err != nil {
		return nil, err
	}
	var urls []string
	for _, i := range issuers {
		if i.URL == c.issuer {
			return i.ScopesToRequest(scopes), nil
		}
		urls = append(urls, i.URL)
	}
	return nil, fmt.Errorf("--issuer is %q, which %s does not list: expected %s, or --scope",
		c.issuer, c.file, strings.Join(urls, " or "))
}

// credentials returns an error if the issuer or the client's credentials are missing.
func (c *callOptions) credentials(env environment, hasSecret bool) error {
	id, secret := env.key("CLIENT_ID"), env.key("CLIENT_SECRET")
	switch given := c.clientID != "" && hasSecret; {
	case c.issuer == "":
		return fmt.Errorf("--issuer (%s) is not set: expected the issuer of the token",
			env.key("ISSUER"))
	case !given && c.hasDev:
		return fmt.Errorf("--issuer is %q: set --client-id (%s) and the secret in %s, or add --dev",
			c.issuer, id, secret)
	case !given:
		return fmt.Errorf("--issuer is %q: set --client-id (%s) and the secret in %s",
			c.issuer, id, secret)
	}
	return nil
}

// nearest returns the ID of the operation that is most similar to name.
func nearest(name string, operations []*callable) string {
	to := func(o *callable) int { return distance(strings.ToLower(name), strings.ToLower(o.ID)) }
	return slices.MinFunc(operations, func(a, b *callable) int { return to(a) - to(b) }).ID
}

// distance returns the Levenshtein distance of a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// access describes who can call the operation.
func (o *callable) access() string {
	var all []string
	for _, alternative := range o.Alternatives {
		if len(alternative) > 0 {
			text := o.describe(alternative)
			if rest, found := strings.CutPrefix(text, "token with "); found && len(all) > 0 &&
				strings.HasPrefix(all[0], "token with ") {
				text = rest // token with a, or b
			}
			all = append(all, text)
		}
	}
	switch {
	case o.Denied != "":
		return "nobody"
	case o.Public():
		return "public"
	case o.Optional():
		return "optional: " + strings.Join(all, ", or ")
	}
	return strings.Join(all, ", or ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
