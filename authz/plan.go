package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/authz/internal/schema"
	"github.com/oasgate/oasgate/authz/token"
)

// Plan is an OpenAPI document compiled to one policy per operation. Everything that the document
// decides is decided here, once.
type Plan struct {
	doc        *openapi3.T
	operations []*operation     // by path, then method
	paths      map[string]*path // by the document's path template: /messages/{id}
	schemes    map[string]*scheme
	scopes     map[string]string // of all schemes
	defaults   []string          // of them, those that clients start with; nil: all

	granters   map[string]implications // by scheme; nil: no scope implies another
	nullConsts []*openapi3.Location
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
	// Alternatives: one of them must be satisfied (OR). None at all: public, and a token is not
	// looked at. An empty alternative: a token is optional.
	Alternatives []Alternative
	// Denied says why nobody may call it, whatever the document grants; "": somebody may. There are
	// no alternatives then.
	Denied string
	// StepUp is what is asked beyond a token of how its principal signed in; nil: nothing.
	StepUp *StepUp
	// MaxBody bounds the body of a request, in bytes; 0: the gate's limit. See x-authz-max-body.
	MaxBody int64
	// Timeout bounds the time of a request; 0: the server's limit, [NoTimeout]: none. See
	// x-authz-timeout and [Admission.Limiter].
	Timeout time.Duration
	// RateLimit bounds the requests of each caller: the principal or, without one, the network
	// address. Requests 0: no limit. See x-authz-rate-limit.
	RateLimit RateLimit
	// Introspect: an access token is accepted only if its issuer says now that it is active. See
	// x-authz-introspect.
	Introspect bool
	// Stream: the handler reads the body of a request while it arrives. See x-authz-stream.
	Stream bool
	// OutlivesToken: a response that streams goes on when the token has expired. See
	// x-authz-outlives-token and [Admission.Expiry].
	OutlivesToken bool
	// OwnedBySubject: what the operation reads or writes belongs to the principal that made it. The
	// conformance kit asks for it as another; a handler enforces it. See x-authz-owner.
	OwnedBySubject bool

	granters map[string]implications // the plan's
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
	return o.Denied == "" && !slices.ContainsFunc(o.Alternatives, func(a Alternative) bool {
		return len(a) > 0
	})
}

// Optional reports whether the operation may be called without a token, though one that is sent
// must be valid.
func (o Operation) Optional() bool {
	return !o.Public() && slices.ContainsFunc(o.Alternatives, isEmpty)
}

func isEmpty(a Alternative) bool { return len(a) == 0 }

// operation is an Operation with all that a request of it needs.
type operation struct {
	Operation
	security  openapi3.SecurityRequirements // as the document has it, but with {} last
	route     *routers.Route                // for the validator's security pass
	schema    *schema.Operation             // for its parameters and body
	responses schema.Responses              // nil where Config.Responses is IgnoreResponses

	ways    []way     // the alternatives of security but {}, in that order
	sources []*source // of the ways' principals
	offers  []string  // the challenges of its schemes, those for access tokens apart
	byToken bool      // some scheme takes access tokens
	hidden  []string  // query parameters that are keys

	wanted     []string        // the scopes to come back with; see tell
	asked      []string        // the same, by the names that issuers have for them
	unsettled  bool            // issuers have different names
	challenges map[Kind]string // that list them, where they are the same for all requests
}

// way is an alternative of an operation's security, with what it takes to decide it.
type way struct {
	conditions []condition
	needs      []need // of all conditions, each once
	// browsers add all of its credentials to requests that pages of other sites make
	ambient bool
}

// need is a scope that the principal of a source must have, or another one that implies it.
type need struct {
	source  int
	scope   string
	by      []string // the others
	ofToken bool
}

func (n *need) metBy(p *token.Principal) bool {
	return p.HasScope(n.scope) || slices.ContainsFunc(n.by, p.HasScope)
}

func (o *operation) newWay(conditions []condition) way {
	w := way{conditions: conditions}
	chosen := false // a credential that only a script can add, which CORS must allow
	for _, c := range conditions {
		w.ambient = w.ambient || c.scheme.isAmbient()
		// any page can link to a URL with a key
		chosen = chosen || !c.scheme.isAmbient() && !c.scheme.isKey("query")
		for _, scope := range c.scopes {
			same := func(n need) bool { return n.source == c.source && n.scope == scope }
			if !slices.ContainsFunc(w.needs, same) {
				by := o.GrantedBy(c.scheme.name, scope)
				w.needs = append(w.needs, need{c.source, scope, by, c.scheme.isToken()})
			}
		}
	}
	all := slices.Clone(w.needs)
	w.needs = slices.DeleteFunc(w.needs, func(n need) bool { // who has another one has it as well
		return slices.ContainsFunc(all, func(other need) bool {
			return other.source == n.source && slices.Contains(n.by, other.scope)
		})
	})
	w.ambient = w.ambient && !chosen
	return w
}

// condition is a scheme that must have a principal with scopes.
type condition struct {
	scheme *scheme
	source int // in the operation's sources
	scopes []string
	demand *Scheme // nil: none beyond
}

// Fault is one fault of a document. A document with faults is not served.
type Fault struct {
	Method, Path string // of the operation; empty where the fault is not one operation's
	Problem      string // what is wrong, what was expected, what to do
	Err          error  // the cause, where there is one
	// At is the place in the document, as near as it is known. It needs a document loaded with
	// IncludeOrigin.
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

// Unstated says what becomes of operations for which the document states no security.
type Unstated int

const (
	RefuseUnstated Unstated = iota // the document has a fault, and is not served
	DenyUnstated                   // every request to such an operation is refused
)

// Undecoded says what becomes of media types of a request body that nothing decodes, such as
// application/xml, and whose schema says more than that they are bytes or text.
type Undecoded int

const (
	RefuseUndecoded Undecoded = iota // the document has a fault, and is not served
	DenyUndecoded                    // a body of such a type is answered with 415
)

// Compile compiles a document. The error joins a [*Fault] for each of its faults.
func Compile(doc *openapi3.T) (*Plan, error) { return Config{Document: doc}.Compile() }

// Compile compiles Document as Unstated and Without say. [New] does so. The method is for programs
// that need the plan alone, and what authenticates requests not yet.
func (c Config) Compile() (*Plan, error) { return orFaults(c.compile(true)) }

// CompileSecurity compiles, of Document, only who may call what. It does not read schemas, so it
// takes a document whose requests could not be validated.
func (c Config) CompileSecurity() (*Plan, error) { return orFaults(c.compile(false)) }

func orFaults(p *Plan, faults []error) (*Plan, error) {
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	return p, nil
}

// compile returns the plan as far as its faults allow.
func (c Config) compile(schemas bool) (*Plan, []error) {
	if c.Document == nil {
		return nil, []error{errors.New("authz: Config.Document is nil: there is no policy")}
	}
	p, faults := c.read(schemas)
	faults = append(faults, p.extensionFaults(schemas)...)
	if schemas {
		faults = append(p.validate(), faults...)
	}
	return p, faults
}

// Describe returns what a document says of who may call each operation, by path and method, also
// where [Compile] would refuse it. It is for tools that report on documents and never for what
// guards one: an operation whose security is not stated is public to OpenAPI (§4.8.10), and here.
func Describe(doc *openapi3.T) []Operation {
	p, _ := Config{Document: doc}.read(false)
	return p.Operations()
}

// Inspect is [Compile] for tools that report on documents, which should be loaded with
// IncludeOrigin. The notes are what a document says that does not reach every handler, and no
// fault: values that generated code does not bind, and const: null, which is lost where a document
// is loaded without IncludeOrigin, as the one that generated code embeds is.
func Inspect(doc *openapi3.T) (notes []*Fault, err error) {
	p, faults := Config{Document: doc}.compile(true)
	if p == nil {
		return nil, errors.Join(faults...)
	}
	for _, o := range p.operations {
		for _, text := range o.schema.Unbound {
			notes = append(notes, &Fault{
				Method: o.Method, Path: o.Path, Problem: text,
				At: locate(o.route.Operation.Origin, ""),
			})
		}
	}
	for _, at := range p.nullConsts {
		notes = append(notes, &Fault{At: at, Problem: `const: null is lost where the document is ` +
			`loaded without its origins, as generated code loads it: write type: "null"`})
	}
	return notes, errors.Join(faults...)
}

func newPlan(doc *openapi3.T) *Plan {
	return &Plan{doc: doc, paths: map[string]*path{}, schemes: map[string]*scheme{},
		scopes: map[string]string{}}
}

// read compiles a document as far as its faults allow.
func (c Config) read(schemas bool) (*Plan, []error) {
	p := newPlan(c.Document)
	faults := p.readSchemes()
	faults = append(append(faults, p.readImplications()...), p.readDefaultScopes()...)
	var compiler, responses *schema.Compiler
	if schemas {
		if c.Responses != IgnoreResponses {
			responses = schema.NewCompiler(p.doc, schema.Options{
				IgnoreFormats: c.IgnoreFormats, RefuseReadOnly: true, Responses: true,
			})
		}
		compiler = schema.NewCompiler(p.doc, schema.Options{
			IgnoreFormats: c.IgnoreFormats, RefuseReadOnly: c.RefuseReadOnly,
			DenyUndecoded: c.Undecoded == DenyUndecoded,
		})
		for _, name := range c.IgnoreFormats {
			if !schema.IsKnownFormat(name) {
				faults = append(faults,
					fmt.Errorf("authz: Config.IgnoreFormats has %q, which is no format "+
						"that is asserted: expected one of %s", name,
						strings.Join(schema.KnownFormats(), ", ")))
			}
		}
	}
	for _, name := range c.Without {
		if p.schemes[name] == nil {
			faults = append(faults,
				fmt.Errorf("authz: Config.Without has %q, which is no security scheme of the "+
					"document", name))
		}
	}
	ids := map[string]string{}
	shapes := map[string]string{}
	for _, template := range slices.Sorted(maps.Keys(p.doc.Paths.Map())) {
		item := p.doc.Paths.Value(template)
		if item == nil {
			continue // a path with nothing under it has no operations
		}
		at := &path{methods: map[string]*operation{}}
		if name, twice := repeated(template); twice {
			faults = append(faults, &Fault{Path: template,
				Problem: fmt.Sprintf("path parameter %s occurs twice: give each its own name",
					name), At: locate(item.Origin, "")})
		}
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			o, found := p.readOperation(c, method, template, item)
			if compiler != nil {
				found = append(found, p.compile(o, compiler)...)
				found = append(found, o.compileResponses(responses, c.Responses)...)
			}
			if other, taken := ids[o.ID]; taken {
				found = append(found, &Fault{
					Method: method, Path: template, At: locate(item.GetOperation(method).Origin,
						"operationId"),
					Problem: fmt.Sprintf("operationId %s is that of %s too: give each operation "+
						"its own", o.ID, other),
				})
			}
			ids[o.ID] = method + " " + template
			shape := method + " " + shapeOf(template)
			if other, taken := shapes[shape]; taken {
				found = append(found, &Fault{
					Method: method, Path: template, At: locate(item.Origin, ""),
					Problem: fmt.Sprintf("no request tells it from %s: paths that differ in the "+
						"names of their parameters are the same", other),
				})
			}
			shapes[shape] = method + " " + template
			faults = append(faults, found...)
			at.methods[method] = o
			at.allow = append(at.allow, method)
			p.operations = append(p.operations, o)
		}
		p.paths[template] = at
	}
	if compiler != nil {
		p.nullConsts = compiler.NullConsts
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

// locate returns the place of an element's field, or of the element itself where it has no such
// field.
func locate(element *openapi3.Origin, field string) *openapi3.Location {
	if element == nil {
		return nil
	}
	if at, ok := element.Fields.Lookup(field); ok {
		return &at
	}
	return element.Key
}

// readOperation reads who may call an operation, and its limits.
func (p *Plan) readOperation(c Config, method, template string,
	item *openapi3.PathItem) (o *operation, faults []error) {
	spec := item.GetOperation(method)
	o = &operation{Operation: Operation{
		ID: spec.OperationID, Method: method, Path: template, granters: p.granters,
	}}
	o.route = &routers.Route{Spec: p.doc, Path: template, PathItem: item, Method: method,
		Operation: spec}
	problem := func(field, problem string) {
		faults = append(faults, &Fault{Method: method, Path: template, Problem: problem,
			At: locate(spec.Origin, field)})
	}

	if o.ID == "" {
		o.ID = method + " " + template
	}
	switch {
	case spec.Security != nil:
		o.security = *spec.Security
	case len(p.doc.Security) > 0:
		// an empty one for the whole document says nothing: new operations would be public unseen
		o.security = p.doc.Security
	case c.Unstated == DenyUnstated:
		o.Denied = "the document states no security for it"
	default:
		problem("security", "no security is stated: say who may call it, by security for the "+
			"operation or the whole document "+
			"(security: [] on the operation if everybody may), in the document or an overlay; "+
			"or set Config.Unstated to authz.DenyUnstated, so that nobody may")
	}
	for _, requirement := range o.security {
		if requirement == nil {
			problem("security", "an alternative of its security is null: write {} if a token is "+
				"optional, or take it out")
		}
		alternative, problems := p.readAlternative(requirement, c.Without)
		for _, text := range problems {
			problem("security", text)
		}
		o.Alternatives = append(o.Alternatives, alternative)
	}
	o.drop(c.Without)
	for _, text := range o.readExtensions(spec.Extensions) {
		problem("", text)
	}
	if o.Introspect && o.Public() {
		problem(
			"",
			"it has x-authz-introspect, and everybody may call it: there is no token to ask about",
		)
	}
	if o.StepUp != nil && !o.alwaysByToken(p) {
		problem("", fmt.Sprintf("it has %s or %s and may be called without a token, but nothing "+
			"else says how a person signed in", acrExtension, maxAgeExtension))
	}
	return o, faults
}

func (p *Plan) readAlternative(
	requirement openapi3.SecurityRequirement, without []string,
) (
	alternative Alternative, problems []string) {
	alternative = Alternative{}
	// what the Authorization header is to hold, and for which scheme
	inHeader := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(requirement)) {
		scopes := requirement[name]
		alternative = append(alternative, Requirement{name, slices.Clone(scopes)})
		s, err := p.scheme(name)
		if err != nil {
			if !slices.Contains(without, name) {
				problems = append(problems, err.Error())
			}
			continue
		}
		if scopes == nil {
			problems = append(problems, fmt.Sprintf("security scheme %s has null for its scopes: "+
				"list them, or write [] if any credential will do", name))
		}
		for _, scope := range scopes {
			if err := s.declares(scope); err != nil {
				problems = append(problems, err.Error())
			} else if s.byUse && s.isToken() {
				p.scopes[scope] = ""
			}
		}
		if holds := s.authorization(); holds != "" {
			inHeader[holds] = name
		}
	}
	if len(inHeader) > 1 {
		problems = append(problems,
			fmt.Sprintf("an alternative of its security demands %s in one Authorization header, "+
				"which holds one credential (RFC 9110 §11.6.2): make them alternatives, or move "+
				"one "+
				"elsewhere",
				strings.Join(slices.Sorted(maps.Keys(inHeader)), " and ")))
	}
	return alternative, problems
}

// drop takes out every alternative that names one of the schemes: the whole alternative, because
// what is left of it would let in more.
func (o *operation) drop(schemes []string) {
	had := len(o.Alternatives) > 0
	o.Alternatives = slices.DeleteFunc(o.Alternatives, func(a Alternative) bool {
		return slices.ContainsFunc(a, func(r Requirement) bool {
			return slices.Contains(schemes, r.Scheme)
		})
	})
	if had && len(o.Alternatives) == 0 {
		o.Denied = "each of its alternatives needs a security scheme that is switched off"
	}
	// The validator stops at the first alternative that is satisfied. {} always is, and a bad token
	// would pass for none if it came first. Alternatives are alternatives in any order.
	o.security = nil
	for _, a := range o.Alternatives {
		requirement := openapi3.SecurityRequirement{}
		for _, r := range a {
			requirement[r.Scheme] = r.Scopes
		}
		o.security = append(o.security, requirement)
	}
	slices.SortStableFunc(o.security, func(a, b openapi3.SecurityRequirement) int {
		return min(len(b), 1) - min(len(a), 1)
	})
}

// alwaysByToken reports whether whoever calls the operation has an access token.
func (o *operation) alwaysByToken(p *Plan) bool {
	return !o.Public() && !slices.ContainsFunc(o.Alternatives, func(a Alternative) bool {
		return !slices.ContainsFunc(a, func(r Requirement) bool {
			s := p.schemes[r.Scheme]
			return s == nil || s.isToken()
		})
	})
}

// compile makes what holds the requests of an operation to the document.
func (p *Plan) compile(o *operation, compiler *schema.Compiler) (faults []error) {
	problem := func(problem string) {
		faults = append(faults, &Fault{Method: o.Method, Path: o.Path, Problem: problem,
			At: locate(o.route.Operation.Origin, "")})
	}
	for _, text := range checkInputs(o.route.Operation) {
		problem(text)
	}
	var errs []error
	o.schema, errs = compiler.Operation(o.route.PathItem, o.route.Operation)
	if o.Stream && errs == nil {
		for _, err := range o.schema.Stream() {
			errs = append(errs, fmt.Errorf("x-authz-stream: %w", err))
		}
	}
	for _, err := range errs {
		problem(err.Error())
	}
	return faults
}

// compileResponses compiles what the operation answers, where answers are held to the document.
func (o *operation) compileResponses(compiler *schema.Compiler, mode Responses) (faults []error) {
	if compiler == nil {
		return nil
	}
	responses, errs := compiler.Responses(o.route.Operation)
	if errs == nil {
		o.responses = responses
	}
	if mode != FailResponses {
		return nil
	}
	for _, err := range errs {
		faults = append(faults, &Fault{
			Method: o.Method, Path: o.Path, Problem: "a response: " + err.Error(),
			At: locate(o.route.Operation.Origin, "responses"),
		})
	}
	return faults
}

// Operations returns every operation of the document, by path and method.
func (p *Plan) Operations() []Operation {
	all := make([]Operation, len(p.operations))
	for i, o := range p.operations {
		all[i] = o.Operation
	}
	return all
}

// Scheme returns what the document says of a security scheme; nil if it declares none of this name.
func (p *Plan) Scheme(name string) *openapi3.SecurityScheme {
	if s := p.schemes[name]; s != nil {
		return s.spec
	}
	return nil
}

// TakesTokens reports whether some operation takes access tokens.
func (p *Plan) TakesTokens() bool {
	byToken := func(r Requirement) bool { s := p.schemes[r.Scheme]; return s != nil && s.isToken() }
	return slices.ContainsFunc(p.operations, func(o *operation) bool {
		return slices.ContainsFunc(o.Alternatives, func(a Alternative) bool {
			return slices.ContainsFunc(a, byToken)
		})
	})
}

// Scopes returns every scope of access tokens that the document declares, or uses where it lists
// none, sorted.
func (p *Plan) Scopes() []string { return slices.Sorted(maps.Keys(p.scopes)) }
