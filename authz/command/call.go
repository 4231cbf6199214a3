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
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/oapi-codegen/runtime"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/client"
)

// callCommand calls an operation of the document. Its flags depend on the operation, so that kong
// passes them through unread.
type callCommand struct {
	Args []string `arg:"" optional:"" help:"Operation, and its parameters as flags. Without any: lists the operations."`
}

// callable is an operation, and what a request of it takes.
type callable struct {
	authz.Operation
	spec       *openapi3.Operation
	parameters []*parameter
}

// parameter is a parameter of an operation, as a flag.
type parameter struct {
	*openapi3.Parameter
	flag   string
	kind   string   // string, integer, … array, object, JSON
	values []string // that were given
}

// callOptions are the flags that every operation has.
type callOptions struct {
	url, client                  string
	dpop, include                bool
	dev                          bool // the token comes from a running dev
	hasDev                       bool // the program has the command dev
	issuer, audience, clientID   string
	body, contentType            string
	bodyGiven, clientGiven, help bool
}

// call calls the operation that the first argument names.
func (p *program) call(ctx context.Context, args []string) error {
	document, plan, err := p.plan()
	if err != nil {
		return err
	}
	operations := callablesOf(document, plan)
	if len(args) == 0 || slices.Contains([]string{"-h", "-help", "--help", "help"}, args[0]) {
		return p.listCallables(operations)
	}
	name := args[0]
	if strings.HasPrefix(name, "-") {
		return &configurationError{errors.New("the operation comes first, its flags after it: `call` alone lists the operations")}
	}
	if len(operations) == 0 {
		return errors.New("the document has no operations")
	}
	i := slices.IndexFunc(operations, func(o *callable) bool { return o.ID == name })
	if i < 0 {
		return &configurationError{fmt.Errorf("there is no operation %q; the nearest is %s: `call` alone lists them all", name, nearest(name, operations))}
	}
	o := operations[i]
	options, err := o.parse(args[1:], p.env, p.Dev != nil)
	if err != nil {
		return &configurationError{fmt.Errorf("%w: see %s call %s --help", err, p.Name, o.ID)}
	}
	if options.help {
		return p.explain(o)
	}
	body, err := options.read(p.stdin)
	if err != nil {
		return &configurationError{err}
	}
	request, err := o.request(ctx, options, body)
	if err != nil {
		return &configurationError{fmt.Errorf("%w: see %s call %s --help", err, p.Name, o.ID)}
	}
	caller, err := o.caller(ctx, options, p.env)
	if err != nil {
		return err
	}
	response, err := caller.Do(request)
	if err != nil {
		return fmt.Errorf("%w: say with --url where the API is", err)
	}
	defer response.Body.Close()
	out := p.stdout
	if response.StatusCode >= 400 {
		out = p.stderr
	}
	if options.include {
		fmt.Fprintf(out, "%s %s\n", response.Proto, response.Status)
		if err := response.Header.Write(out); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	if response.StatusCode < 400 {
		if _, err := io.Copy(p.stdout, response.Body); err != nil { // as it is: it may go into a file
			return fmt.Errorf("the answer breaks off: %w", err)
		}
		return nil
	}
	refusal, err := io.ReadAll(io.LimitReader(response.Body, mostRefusal))
	fmt.Fprintln(p.stderr, strings.TrimSuffix(printable(string(refusal)), "\n"))
	if err != nil {
		return fmt.Errorf("the answer breaks off: %w", err)
	}
	return fmt.Errorf("%s %s is answered with %s", o.Method, o.Path, response.Status)
}

// mostRefusal bytes of a refusal are shown.
const mostRefusal = 1 << 20

// callablesOf returns the operations of the document.
func callablesOf(document *openapi3.T, plan *authz.Plan) []*callable {
	var all []*callable
	for _, o := range plan.Operations() {
		item := document.Paths.Value(o.Path)
		c := &callable{Operation: o, spec: item.GetOperation(o.Method)}
		// An operation's own parameter is in place of the path's of the same name (OpenAPI 3.1 §4.8.10).
		given := map[string]int{}
		for _, parameters := range []openapi3.Parameters{c.spec.Parameters, item.Parameters} {
			for _, ref := range parameters {
				p := &parameter{Parameter: ref.Value}
				reserved := slices.Contains([]string{"accept", "content-type", "authorization"}, strings.ToLower(p.Name)) // §4.8.12
				known := slices.ContainsFunc(c.parameters, func(other *parameter) bool { return other.Name == p.Name && other.In == p.In })
				if known || p.In == openapi3.ParameterInHeader && reserved {
					continue
				}
				p.kind, p.flag = kindOf(p.Parameter), flagName(p.Parameter)
				given[p.flag]++
				c.parameters = append(c.parameters, p)
			}
		}
		own := flag.NewFlagSet("", flag.ContinueOnError)
		(&callOptions{hasDev: true}).define(own, c.spec, environment{})
		for _, p := range c.parameters {
			if given[p.flag] > 1 || own.Lookup(p.flag) != nil || strings.HasPrefix(p.flag, "-") {
				p.flag = p.In + "." + p.flag
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *callable) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// flagName is the parameter's name, but for what a flag cannot hold. The names of headers do not know case.
func flagName(p *openapi3.Parameter) string {
	name := strings.NewReplacer("=", "-", " ", "-").Replace(p.Name)
	if p.In == openapi3.ParameterInHeader {
		name = strings.ToLower(name)
	}
	return name
}

// kindOf is what a parameter's values are.
func kindOf(p *openapi3.Parameter) string {
	if p.Schema == nil || p.Schema.Value == nil {
		return "JSON" // its schema is that of a media type
	}
	return kindOfSchema(p.Schema.Value, 0)
}

func kindOfSchema(s *openapi3.Schema, depth int) string {
	if s.Type != nil {
		types := slices.DeleteFunc(s.Type.Slice(), func(t string) bool { return t == openapi3.TypeNull })
		if len(types) > 0 {
			return types[0]
		}
	}
	if depth < 10 { // schemas may contain themselves
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

// define adds the flags that every operation has. There is none for the secret on purpose: everybody
// can read the arguments of a process.
func (c *callOptions) define(flags *flag.FlagSet, spec *openapi3.Operation, env environment) {
	c.client = "full"
	if c.hasDev {
		flags.BoolVar(&c.dev, "dev", false, "Get the token from a running dev, whatever the environment says of an issuer. So it is without --issuer.")
		flags.StringVar(&c.client, "client", c.client, "Client of dev that calls: full, or none, which may have no scopes.")
	}
	ofEnvironment := func(value *string, name, key, unset, usage string) {
		flags.StringVar(value, name, unset, usage+" ["+env.key(key)+"]")
	}
	flags.StringVar(&c.url, "url", devURL, "Where the document's paths begin.")
	ofEnvironment(&c.issuer, "issuer", "ISSUER", env.lookup("ISSUER"), "Issuer that gives the token, exactly as it writes itself.")
	audience, _, _ := strings.Cut(env.lookup("AUDIENCE"), ",") // serve may take several
	ofEnvironment(&c.audience, "audience", "AUDIENCE", strings.TrimSpace(audience), "Identifier of the API at the issuer.")
	ofEnvironment(&c.clientID, "client-id", "CLIENT_ID", env.lookup("CLIENT_ID"), "Client that calls; its secret comes from "+env.key("CLIENT_SECRET")+" alone.")
	flags.BoolVar(&c.dpop, "dpop", false, "Have the token bound to a key (RFC 9449).")
	flags.BoolVar(&c.include, "include", false, "Show the status and the headers of the answer too.")
	flags.BoolVar(&c.include, "i", false, "")
	flags.BoolVar(&c.help, "help", false, "Show this.")
	flags.BoolVar(&c.help, "h", false, "")
	if spec.RequestBody != nil {
		flags.StringVar(&c.body, "body", "", "The body itself, @ and the name of a file, or - for standard input.")
		flags.StringVar(&c.contentType, "content-type", mediaTypes(spec)[0], "Media type of the body: "+strings.Join(mediaTypes(spec), ", ")+".")
	}
}

// mediaTypes are those of the operation's body, JSON first.
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

// parse reads the flags, and reports all that is wrong with them.
func (o *callable) parse(args []string, env environment, hasDev bool) (*callOptions, error) {
	c := callOptions{hasDev: hasDev}
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
		return nil, err
	}
	if c.help {
		return &c, nil
	}
	flags.Visit(func(f *flag.Flag) {
		c.bodyGiven = c.bodyGiven || f.Name == "body"
		c.clientGiven = c.clientGiven || f.Name == "client"
	})
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if flags.NArg() > 0 {
		fault("argument %d after the operation is not a flag: parameters are given as --name value", len(args)-flags.NArg()+1)
	}
	for _, p := range o.parameters {
		switch {
		case len(p.values) == 0 && p.Required:
			fault("--%s is missing: %s", p.flag, strings.TrimSuffix(cmp.Or(firstLine(p.Description), "which the operation requires"), "."))
		case len(p.values) > 1 && p.kind != openapi3.TypeArray && p.kind != openapi3.TypeObject:
			fault("--%s is given %d times: it has one value", p.flag, len(p.values))
		case p.In == openapi3.ParameterInPath && slices.Contains(p.values, ""):
			fault("--%s is empty: it is a part of the path", p.flag)
		}
	}
	if o.spec.RequestBody != nil && o.spec.RequestBody.Value.Required && !c.bodyGiven {
		fault("--body is missing: give it as JSON, as @ and the name of a file, or as - for standard input")
	}
	if c.client != "full" && c.client != "none" {
		fault("--client is %q: expected full or none", c.client)
	}
	if c.clientGiven && !c.toDev() {
		fault("--client is one of dev's clients, but --issuer is %q: add --dev, or say with --client-id which of the issuer's calls", c.issuer)
	}
	return &c, errors.Join(faults...)
}

// toDev reports whether the token comes from dev.
func (c *callOptions) toDev() bool { return c.hasDev && (c.dev || c.issuer == "") }

// read returns the body; nil is none.
func (c *callOptions) read(stdin io.Reader) ([]byte, error) {
	name, isFile := strings.CutPrefix(c.body, "@")
	switch {
	case !c.bodyGiven:
		return nil, nil
	case c.body == "-":
		return io.ReadAll(stdin)
	case isFile:
		return os.ReadFile(name)
	}
	return []byte(c.body), nil
}

// request puts the parameters where the document says (OpenAPI 3.1 §4.8.12).
func (o *callable) request(ctx context.Context, c *callOptions, body []byte) (*http.Request, error) {
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
	target := strings.TrimSuffix(c.url, "/") + path
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

// encoded is the parameter in its style, ready for its place.
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
		style = openapi3.SerializationSimple // the cookie has the name already
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
	text, err := runtime.StyleParamWithOptions(style, explode, p.Name, value, runtime.StyleParamOptions{ParamLocation: location, AllowReserved: p.AllowReserved})
	if p.In == openapi3.ParameterInQuery {
		// What delimits spaceDelimited and pipeDelimited has no place in a URL as it is (RFC 3986 §2.2).
		text = strings.NewReplacer(" ", "%20", "|", "%7C").Replace(text)
	}
	return text, err
}

// caller is who sends the request: with a token of exactly the scopes that the operation needs, or without any where it
// needs none. A redirect is the answer.
func (o *callable) caller(ctx context.Context, c *callOptions, env environment) (*http.Client, error) {
	plain := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if o.Public() {
		return plain, nil
	}
	config := client.Config{
		Issuer: c.issuer, ClientID: c.clientID, ClientSecret: env.lookup("CLIENT_SECRET"),
		Audience: c.audience, Scopes: o.scopes(),
	}
	if c.toDev() {
		scopes := o.scopes()
		if c.client == "none" {
			scopes = nil // it may have none, and shows what becomes of that
		}
		config = devClient(c.url, c.client, scopes)
	} else if err := c.credentials(env); err != nil {
		return nil, &configurationError{err}
	}
	config.DPoP, config.HTTPClient = c.dpop, plain
	source, err := client.New(ctx, config)
	if err != nil {
		return nil, &configurationError{err}
	}
	caller, err := source.Client(c.url)
	if err != nil {
		return nil, &configurationError{err}
	}
	if _, err := source.Token(); err != nil {
		return nil, noToken(err, c.toDev())
	}
	return caller, nil
}

// credentials reports what of a client's credentials at an issuer is missing.
func (c *callOptions) credentials(env environment) error {
	id, secret := env.key("CLIENT_ID"), env.key("CLIENT_SECRET")
	switch given := c.clientID != "" && env.lookup("CLIENT_SECRET") != ""; {
	case c.issuer == "":
		return fmt.Errorf("--issuer (%s) is not set: expected the issuer that gives the token", env.key("ISSUER"))
	case !given && c.hasDev:
		return fmt.Errorf("--issuer is %q, so that --client-id (%s) and the secret in %s are needed: or say --dev", c.issuer, id, secret)
	case !given:
		return fmt.Errorf("--issuer is %q, so that --client-id (%s) and the secret in %s are needed", c.issuer, id, secret)
	}
	return nil
}

// scopes are those of the alternative that asks for the fewest.
func (o *callable) scopes() []string {
	var least []string
	found := false
	for _, alternative := range o.Alternatives {
		var scopes []string
		for _, requirement := range alternative {
			scopes = append(scopes, requirement.Scopes...)
		}
		slices.Sort(scopes)
		scopes = slices.Compact(scopes)
		if len(alternative) > 0 && (!found || len(scopes) < len(least)) { // an empty one is that a token is optional
			least, found = scopes, true
		}
	}
	return least
}

// nearest returns the operation whose name takes the fewest changes to get from.
func nearest(name string, operations []*callable) string {
	best := slices.MinFunc(operations, func(a, b *callable) int {
		return distance(strings.ToLower(name), strings.ToLower(a.ID)) - distance(strings.ToLower(name), strings.ToLower(b.ID))
	})
	return best.ID
}

// distance is how many letters have to be put in, left out or changed to get from a to b.
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

func (p *program) listCallables(operations []*callable) error {
	w := p.stdout
	fmt.Fprintf(w, "Usage: %s call <operation> [--parameter value …] [--body JSON|@file|-]\n\n"+
		"Calls an operation of the API with a token of exactly the scopes that it needs. The body of the answer goes to\n"+
		"stdout; that of a refusal, and its status, to stderr, and the exit code is 1.\n\n", p.Name)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, o := range operations {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\n", o.ID, firstLine(o.spec.Summary), o.Method+" "+o.Path, o.access())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nRun \"%s call <operation> --help\" for its parameters.\n", p.Name)
	return err
}

// access says who may call the operation.
func (o *callable) access() string {
	var ways []string
	for _, alternative := range o.Alternatives {
		var scopes []string
		for _, requirement := range alternative {
			scopes = append(scopes, requirement.Scopes...)
		}
		if len(alternative) > 0 {
			ways = append(ways, strings.Join(scopes, " and "))
		}
	}
	switch {
	case o.Public():
		return "public"
	case o.Optional():
		return "token optional"
	case slices.Contains(ways, ""):
		return "token"
	}
	return "token with " + strings.Join(ways, ", or ")
}

func (p *program) explain(o *callable) error {
	w := p.stdout
	fmt.Fprintf(w, "Usage: %s call %s [flags]\n\n%s %s: %s\nAccess: %s\n", p.Name, o.ID, o.Method, o.Path, firstLine(o.spec.Summary), o.access())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(o.parameters) > 0 {
		fmt.Fprint(w, "\nParameters:\n")
	}
	for _, p := range o.parameters {
		kind := map[string]string{openapi3.TypeArray: "value, repeatable", openapi3.TypeObject: "member=value, repeatable"}[p.kind]
		need := p.In
		if p.Required {
			need += ", required"
		}
		fmt.Fprintf(table, "  --%s <%s>\t%s (%s)\n", p.flag, cmp.Or(kind, p.kind), strings.Join(strings.Fields(p.Description), " "), need)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprint(w, "\nFlags:\n")
	flags := flag.NewFlagSet(o.ID, flag.ContinueOnError)
	shown := callOptions{hasDev: p.Dev != nil}
	shown.define(flags, o.spec, environment{prefix: p.env.prefix})
	flags.VisitAll(func(f *flag.Flag) {
		name, usage := "--"+f.Name, f.Usage
		if short := flags.Lookup(f.Name[:1]); short != nil && short.Value == f.Value {
			name = "-" + short.Name + ", " + name
		}
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " Default: " + f.DefValue
		}
		if usage != "" { // the short form is told with the long one
			fmt.Fprintf(table, "  %s\t%s\n", name, usage)
		}
	})
	return table.Flush()
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
