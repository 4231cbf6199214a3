package command

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
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
	o, err := p.named(args[0], operations)
	if err != nil {
		return err
	}
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

// named returns the operation with an ID.
func (p *program) named(id string, operations []*callable) (*callable, error) {
	if strings.HasPrefix(id, "-") {
		return nil, &configurationError{fmt.Errorf("expected an operation before the flags: run "+
			"`%s call` for a list of the operations", p.Name)}
	}
	if len(operations) == 0 {
		return nil, errors.New("the document has no operations")
	}
	i := slices.IndexFunc(operations, func(o *callable) bool { return o.ID == id })
	if i < 0 {
		return nil, &configurationError{fmt.Errorf(
			"unknown operation %q; did you mean %s? Run `%s call` for a list of the operations",
			id, nearest(id, operations), p.Name)}
	}
	return operations[i], nil
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
