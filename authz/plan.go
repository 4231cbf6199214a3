package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/authz/internal/schema"
)

// Plan is an OpenAPI document compiled to one policy per operation. Everything that the document decides is decided
// here, once.
type Plan struct {
	doc        *openapi3.T
	operations []*operation     // by path, then method
	paths      map[string]*path // by the document's path template: /messages/{id}
	schemes    map[string]*scheme
	scopes     map[string]string // of all schemes
}

// path is a path of the document, and its operations by method.
type path struct {
	methods map[string]*operation
	allow   []string // sorted
}

// Operation is what the document says of who may call an operation.
type Operation struct {
	ID     string
	Method string
	Path   string // the document's template
	// Alternatives: one of them must be satisfied (OR). None at all: public, and a token is not looked at. An
	// empty alternative: a token is optional.
	Alternatives []Alternative
	// StepUp is what is asked beyond a token of how its principal signed in; nil: nothing.
	StepUp *StepUp
}

// Alternative is a set of requirements that must all be met (AND).
type Alternative []Requirement

// Requirement is a scheme and the scopes that it must grant, all of them.
type Requirement struct {
	Scheme string
	Scopes []string
}

// Public reports whether everybody may call the operation, and no token is looked at.
func (o Operation) Public() bool {
	return !slices.ContainsFunc(o.Alternatives, func(a Alternative) bool { return len(a) > 0 })
}

// Optional reports whether the operation may be called without a token, though one that is sent must be valid.
func (o Operation) Optional() bool {
	return !o.Public() && slices.ContainsFunc(o.Alternatives, func(a Alternative) bool { return len(a) == 0 })
}

// scopes returns every scope that the alternative asks for.
func (a Alternative) scopes() []string {
	var all []string
	for _, r := range a {
		for _, s := range r.Scopes {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// operation is an Operation with all that a request of it needs.
type operation struct {
	Operation
	security openapi3.SecurityRequirements // as the document has it, but with {} last
	route    *routers.Route                // for the validator's security pass
	schema   *schema.Operation             // for its parameters and body
}

// Fault is one fault of a document. A document with faults is not served.
type Fault struct {
	Method, Path string // of the operation; empty where the fault is not one operation's
	Problem      string // what is wrong, what was expected, what to do
	Err          error  // the cause, where there is one
	// At is the place in the document, as near as it is known. It needs a document loaded with IncludeOrigin.
	At *openapi3.Location
}

func (f *Fault) Error() string {
	s := "openapi: "
	if f.Path != "" {
		s += strings.TrimLeft(f.Method+" ", " ") + f.Path + ": "
	}
	s += f.Problem
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

func (f *Fault) Unwrap() error { return f.Err }

// Compile compiles a document. The error joins a [*Fault] for each of its faults.
func Compile(doc *openapi3.T) (*Plan, error) {
	p, faults := read(doc)
	if faults = append(validate(doc), faults...); faults != nil {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

// Describe returns what a document says of who may call each operation, by path and method, also where [Compile]
// would refuse it. It is for tools that report on documents and never for what guards one: an operation whose
// security is not stated is public to OpenAPI (§4.8.10), and here.
func Describe(doc *openapi3.T) []Operation {
	p := newPlan(doc)
	p.readSchemes()
	for _, template := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		if item := doc.Paths.Value(template); item != nil {
			for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
				o, _ := p.readPolicy(method, template, item.GetOperation(method))
				p.operations = append(p.operations, o)
			}
		}
	}
	return p.Operations()
}

func newPlan(doc *openapi3.T) *Plan {
	return &Plan{doc: doc, paths: map[string]*path{}, schemes: map[string]*scheme{}, scopes: map[string]string{}}
}

// validate returns what keeps a document from being valid OpenAPI.
func validate(doc *openapi3.T) (faults []error) {
	err := doc.Validate(context.Background(), openapi3.EnableMultiError())
	several, ok := err.(openapi3.MultiError)
	if err != nil && !ok {
		several = openapi3.MultiError{err}
	}
	for _, err := range several {
		faults = append(faults, &Fault{Problem: "not a valid OpenAPI document", Err: err})
	}
	return faults
}

// read compiles a document as far as its faults allow.
func read(doc *openapi3.T) (*Plan, []error) {
	p := newPlan(doc)
	faults := p.readSchemes()
	schemas := schema.NewCompiler(doc)
	ids := map[string]string{}
	for _, template := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := doc.Paths.Value(template)
		if item == nil {
			continue // a path with nothing under it has no operations
		}
		at := &path{methods: map[string]*operation{}}
		if name, twice := repeated(template); twice {
			faults = append(faults, &Fault{Path: template, Problem: fmt.Sprintf("path parameter %s occurs twice: give each its own name", name), At: locate(item.Origin, "")})
		}
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			o, found := p.compile(method, template, item, schemas)
			if other, taken := ids[o.ID]; taken && o.ID != "" {
				found = append(found, &Fault{
					Method: method, Path: template, At: locate(item.GetOperation(method).Origin, "operationId"),
					Problem: fmt.Sprintf("operationId %s is that of %s too: give each operation its own", o.ID, other),
				})
			}
			ids[o.ID] = method + " " + template
			faults = append(faults, found...)
			at.methods[method] = o
			at.allow = append(at.allow, method)
			p.operations = append(p.operations, o)
		}
		p.paths[template] = at
	}
	return p, faults
}

// repeated returns the name of a path parameter that a template has more than once: it would have
// two values.
func repeated(template string) (name string, found bool) {
	seen := map[string]bool{}
	for _, part := range strings.Split(template, "{")[1:] {
		name, _, _ := strings.Cut(part, "}")
		if seen[name] {
			return name, true
		}
		seen[name] = true
	}
	return "", false
}

// locate returns the place of an element's field, or of the element itself where it has no such field.
func locate(element *openapi3.Origin, field string) *openapi3.Location {
	if element == nil {
		return nil
	}
	if at, ok := element.Fields.Lookup(field); ok {
		return &at
	}
	return element.Key
}

// readPolicy reads who may call an operation.
func (p *Plan) readPolicy(method, template string, spec *openapi3.Operation) (o *operation, faults []error) {
	o = &operation{Operation: Operation{ID: spec.OperationID, Method: method, Path: template}}
	problem := func(field, problem string) {
		faults = append(faults, &Fault{Method: method, Path: template, Problem: problem, At: locate(spec.Origin, field)})
	}

	if o.ID == "" {
		problem("operationId", "it has no operationId: give it one, unique in the document")
	}
	switch {
	case spec.Security != nil:
		o.security = slices.Clone(*spec.Security)
	case len(p.doc.Security) > 0: // an empty one for the whole document says nothing: new operations would be public unseen
		o.security = slices.Clone(p.doc.Security)
	default:
		problem("security", "no security is stated: say who may call it, with a security: [] of its own if everybody may")
	}
	for _, requirement := range o.security {
		alternative := Alternative{}
		if requirement == nil {
			problem("security", "an alternative of its security is null: write {} if a token is optional, or take it out")
		}
		for _, name := range slices.Sorted(maps.Keys(requirement)) {
			scheme, err := p.enforced(name)
			if err != nil {
				problem("security", err.Error())
			} else if requirement[name] == nil {
				problem("security", fmt.Sprintf("security scheme %s has null for its scopes: list them, or write [] if any token will do", name))
			} else {
				for _, scope := range requirement[name] {
					if err := scheme.declares(scope); err != nil {
						problem("security", err.Error())
					}
				}
			}
			alternative = append(alternative, Requirement{name, slices.Clone(requirement[name])})
		}
		o.Alternatives = append(o.Alternatives, alternative)
	}
	var err error
	if o.StepUp, err = readStepUp(spec.Extensions); err != nil {
		problem("", err.Error())
	} else if o.StepUp != nil && (o.Public() || o.Optional()) {
		problem("", fmt.Sprintf("it has %s or %s and may be called without a token, which knows neither", acrExtension, maxAgeExtension))
	}
	// The validator stops at the first alternative that is satisfied. {} always is, and a bad token would pass
	// for none if it came first. Alternatives are alternatives in any order.
	slices.SortStableFunc(o.security, func(a, b openapi3.SecurityRequirement) int { return min(len(b), 1) - min(len(a), 1) })
	return o, faults
}

// compile makes the policy of one operation, and what holds its requests to the document.
func (p *Plan) compile(method, template string, item *openapi3.PathItem, schemas *schema.Compiler) (o *operation, faults []error) {
	spec := item.GetOperation(method)
	o, faults = p.readPolicy(method, template, spec)
	o.route = &routers.Route{Spec: p.doc, Path: template, PathItem: item, Method: method, Operation: spec}
	var errs []error
	o.schema, errs = schemas.Operation(o.route)
	for _, err := range errs {
		faults = append(faults, &Fault{Method: method, Path: template, Problem: err.Error(), At: locate(spec.Origin, "")})
	}
	return o, faults
}

// Operations returns every operation of the document, by path and method.
func (p *Plan) Operations() []Operation {
	all := make([]Operation, len(p.operations))
	for i, o := range p.operations {
		all[i] = o.Operation
	}
	return all
}

// Scopes returns every scope that the document declares, sorted.
func (p *Plan) Scopes() []string { return slices.Sorted(maps.Keys(p.scopes)) }
