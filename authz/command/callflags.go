package command

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/token"
)

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

// define adds the flags that all operations have.
func (c *callOptions) define(flags *flag.FlagSet, spec *openapi3.Operation, env environment) {
	for _, f := range documentFlags { // see withDocumentFlags
		env.flag(flags, new(string), f.name, f.key, env.lookup(f.key), f.usage)
	}
	flags.StringVar(&c.url, "url", devURL,
		"URL of the API, with the prefix of its paths or without.")
	c.defineDev(flags)
	c.defineCredentials(flags, env)
	if spec.RequestBody != nil {
		c.defineBody(flags, spec)
	}
	flags.BoolVar(&c.include, "include", false,
		"Also print the status and headers of the response.")
	flags.BoolVar(&c.include, "i", false, "")
	flags.BoolVar(&c.json, "json", false,
		"Print the status, the headers and the body of the response as one JSON object.")
	flags.BoolVar(&c.help, "help", false, "Show this help.")
	flags.BoolVar(&c.help, "h", false, "")
}

func (c *callOptions) defineDev(flags *flag.FlagSet) {
	c.client = "full"
	if !c.hasDev {
		return
	}
	flags.BoolVar(&c.dev, "dev", false,
		"Get the token from a running dev, even if an issuer is set. Default if none is set.")
	flags.StringVar(&c.client, "client", c.client,
		"Client of dev: full, which has all scopes, or none, which has no scopes.")
	flags.StringVar(&c.as, "as", "",
		"Sign in as a person of dev instead: alice, who has all scopes, or bob, who can "+
			"only read.")
}

// defineCredentials adds the flags of credentials. The client's secret has none, because other
// users can read the arguments of a process.
func (c *callOptions) defineCredentials(flags *flag.FlagSet, env environment) {
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
	env.flag(flags, &c.issuer, "issuer", "ISSUER", env.lookup("ISSUER"),
		"Issuer of the token: its URL, identical to the iss claim.")
	audience, _, _ := strings.Cut(env.lookup("AUDIENCE"), ",") // serve accepts several
	env.flag(flags, &c.audience, "audience", "AUDIENCE", strings.TrimSpace(audience),
		"Identifier of the API at the issuer.")
	env.flag(flags, &c.clientID, "client-id", "CLIENT_ID", env.lookup("CLIENT_ID"),
		"Client at the issuer. Its secret is read from "+env.key("CLIENT_SECRET")+
			" or "+env.key("CLIENT_SECRET")+"_FILE only.")
	env.flag(flags, &c.file, "config", "CONFIG", env.lookup("CONFIG"),
		"YAML file that lists issuers, as for serve. It says what the issuer calls the scopes.")
	flags.Var(&c.scope, "scope", "Scope to request, as the issuer calls it, such as "+
		"api://<app>/.default; can be repeated. Default: the scopes that the operation requires.")
	flags.BoolVar(&c.dpop, "dpop", false, "Bind the token to a key (RFC 9449).")
}

func (c *callOptions) defineBody(flags *flag.FlagSet, spec *openapi3.Operation) {
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

// flag adds a flag that an environment variable can set too.
func (e environment) flag(flags *flag.FlagSet, value *string, name, key, unset, usage string) {
	flags.StringVar(value, name, unset, usage+" ["+e.key(key)+"]")
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
	var extra error
	if flags.NArg() > 0 {
		extra = fmt.Errorf("argument %d after the operation is not a flag: expected parameters as "+
			"--name value", len(args)-flags.NArg()+1)
	}
	return &c, errors.Join(extra, o.checkParameters(), c.checkBody(o.spec), c.checkDev())
}

func (o *callable) checkParameters() error {
	var faults []error
	for _, p := range o.parameters {
		switch {
		case len(p.values) == 0 && p.Required:
			expected := cmp.Or(firstLine(p.Description), "the operation requires it")
			faults = append(faults, fmt.Errorf("--%s is missing: %s", p.flag,
				strings.TrimSuffix(expected, ".")))
		case len(p.values) > 1 && p.kind != openapi3.TypeArray && p.kind != openapi3.TypeObject:
			faults = append(faults, fmt.Errorf("--%s is given %d times: expected one value", p.flag,
				len(p.values)))
		case p.In == openapi3.ParameterInPath && slices.Contains(p.values, ""):
			faults = append(faults, fmt.Errorf("--%s is empty: expected a value, because it is "+
				"part of the path", p.flag))
		}
	}
	return errors.Join(faults...)
}

func (c *callOptions) checkBody(spec *openapi3.Operation) error {
	switch body := spec.RequestBody; {
	case c.bodyGiven && len(c.form) > 0:
		return errors.New("--body and --form are both given: expected one of them")
	case body == nil || !body.Value.Required || c.bodyGiven || len(c.form) > 0:
		return nil
	case formType(spec) != "":
		return errors.New("--form is missing: expected name=value or name=@file for each field, " +
			"or --body")
	}
	return errors.New("--body is missing: expected the text itself, @file, or - for standard input")
}

func (c *callOptions) checkDev() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format, args...))
	}
	if c.client != "full" && c.client != "none" {
		fault("--client is %q: expected full or none", c.client)
	}
	if c.clientGiven && !c.usesDev() {
		fault("--client is for dev, but %s: "+
			"add --dev, or set --client-id to a client of the issuer", c.notDev())
	}
	switch {
	case c.as == "":
	case !c.usesDev():
		fault("--as is for dev, but %s: add --dev", c.notDev())
	case c.clientGiven:
		fault("--as and --client are both given: expected one of them")
	case c.dpop:
		fault("--as and --dpop are both given: the token of a person is not bound to a key")
	}
	return errors.Join(faults...)
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
