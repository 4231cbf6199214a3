package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/authz/internal/schema"
	"github.com/oasgate/oasgate/authz/token"
)

// Plan is an OpenAPI document compiled to one policy per operation.
type Plan struct {
	doc        *openapi3.T
	operations []*operation     // by path, then method
	paths      map[string]*path // by the document's path template: /messages/{id}
	schemes    map[string]*scheme
	scopes     map[string]string // of all schemes of access tokens
	defaults   []string          // the scopes that clients request first; nil: all

	granters   map[string]implications // by scheme; nil: no scope implies another
	nullConsts []*openapi3.Location
	extended   []*openapi3.Schema // those with extensions, until these are checked
}

// path is a path of the document, and its operations by method.
type path struct {
	methods map[string]*operation
	allow   []string // sorted
}

// Operation is the policy of one operation: who may call it, and its limits.
type Operation struct {
	ID     string
	Method string
	Path   string // the document's template
	// Alternatives are the alternatives of which one must be satisfied (OR). If there are none, the
	// operation is public, and tokens are ignored. If one is empty, a token is optional.
	Alternatives []Alternative
	// Denied is the reason why every request is refused, or "". If it is set, Alternatives is
	// empty.
	Denied string
	// StepUp is the requirement on how the principal signed in, or nil.
	StepUp *StepUp
	// MaxBody bounds the body of a request, in bytes; 0: the gate's limit. See x-authz-max-body.
	MaxBody int64
	// Timeout bounds the time of a request; 0: the server's limit, [NoTimeout]: none. See
	// x-authz-timeout and [Admission.Limiter].
	Timeout time.Duration
	// RateLimit bounds the requests of each caller: the principal or, without one, the network
	// address. Requests 0: no limit. See x-authz-rate-limit.
	RateLimit RateLimit
	// Introspect means that an access token is accepted only if its issuer confirms, for this
	// request, that it is active. See x-authz-introspect.
	Introspect bool
	// Stream means that the handler reads the body of a request while it arrives. See
	// x-authz-stream.
	Stream bool
	// OutlivesToken means that a streamed response continues after the token has expired. See
	// x-authz-outlives-token and [Admission.Expiry].
	OutlivesToken bool
	// OwnedBySubject means that a resource belongs to the principal that created it. Handlers
	// enforce this, and the conformance kit tests it with another principal. See x-authz-owner.
	OwnedBySubject bool

	granters map[string]implications // the plan's
}

// Alternative is a set of requirements that must all be met (AND).
type Alternative []Requirement

// Requirement is a scheme with the scopes that its principal must all have.
type Requirement struct {
	Scheme string
	Scopes []string
}

// Public reports whether everybody may call the operation; tokens are then ignored.
func (o Operation) Public() bool {
	return o.Denied == "" && !slices.ContainsFunc(o.Alternatives, func(a Alternative) bool {
		return len(a) > 0
	})
}

// Optional reports whether the operation may be called without a token, although a token that is
// sent must be valid.
func (o Operation) Optional() bool {
	return !o.Public() && slices.ContainsFunc(o.Alternatives, isEmpty)
}

func isEmpty(a Alternative) bool { return len(a) == 0 }

// operation is a compiled Operation.
type operation struct {
	Operation
	security  openapi3.SecurityRequirements // as the document has it, but with {} last
	route     *routers.Route
	schema    *schema.Operation // for its parameters and body
	responses schema.Responses  // nil if Config.Responses is IgnoreResponses

	compiled []compiledAlternative // the alternatives of security without {}, in that order
	// input is the input of the validator's security pass, which only reads it. It has no request:
	// the validator would read all of its body before it asks for the credential.
	input            openapi3filter.RequestValidationInput
	sources          []*source // of the principals in compiled
	schemeChallenges []string  // of its schemes, without access tokens
	byToken          bool      // some scheme takes access tokens
	queryKeys        []string  // API keys in the query

	fewestScopes   []string        // the scopes to request; see withRequestScopes
	requestScopes  []string        // the same, by the issuers' names
	scopeNamesVary bool            // issuers have different names
	challenges     map[Kind]string // with requestScopes, if those are the same for all requests
}

// compiledAlternative is a compiled [Alternative].
type compiledAlternative struct {
	conditions []condition
	needs      []need // of all conditions, without duplicates
	ambient    bool   // browsers add all of its credentials to cross-site requests
}

// need is a scope that the principal of a source must have, directly or by implication.
type need struct {
	source    int
	scope     string
	impliedBy []string // the scopes that imply it
	ofToken   bool
}

func (n *need) metBy(p *token.Principal) bool {
	return p.HasScope(n.scope) || slices.ContainsFunc(n.impliedBy, p.HasScope)
}

func (o *operation) newAlternative(conditions []condition) compiledAlternative {
	w := compiledAlternative{conditions: conditions}
	explicit := false // there is a credential that only a script can add, which CORS must allow
	for _, c := range conditions {
		w.ambient = w.ambient || c.scheme.isAmbient()
		// any page can link to a URL with a key
		explicit = explicit || !c.scheme.isAmbient() && !c.scheme.isKey("query")
		for _, scope := range c.scopes {
			same := func(n need) bool { return n.source == c.source && n.scope == scope }
			if !slices.ContainsFunc(w.needs, same) {
				by := o.GrantedBy(c.scheme.name, scope)
				w.needs = append(w.needs, need{c.source, scope, by, c.scheme.token})
			}
		}
	}
	all := slices.Clone(w.needs)
	// Drop the scopes that other required scopes imply.
	w.needs = slices.DeleteFunc(w.needs, func(n need) bool {
		return slices.ContainsFunc(all, func(other need) bool {
			return other.source == n.source && slices.Contains(n.impliedBy, other.scope)
		})
	})
	w.ambient = w.ambient && !explicit
	return w
}

// condition is a scheme that must have a principal with scopes.
type condition struct {
	scheme *scheme
	source int // in the operation's sources
	scopes []string
	rules  *Scheme // may be nil
}

// Fault is one fault of a document. A document with faults is not served.
type Fault struct {
	Method, Path string // of the operation, if it is about one
	Problem      string // what is wrong, what was expected, what to do
	Err          error  // the cause; may be nil
	// At is the location in the document, or of an enclosing element. It is nil unless the document
	// was loaded with IncludeOrigin.
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

// Unstated says how to treat operations for which the document states no security.
type Unstated int

const (
	RefuseUnstated Unstated = iota // the document has a fault, and is not served
	DenyUnstated                   // every request to such an operation is refused
)

// Undecoded says how to treat media types of request bodies without a decoder, such as
// application/xml, whose schema requires more than bytes or text.
type Undecoded int

const (
	RefuseUndecoded Undecoded = iota // the document has a fault, and is not served
	DenyUndecoded                    // a body of such a type is answered with 415
)

// Compile compiles a document. The error joins a [*Fault] for each of its faults.
func Compile(doc *openapi3.T) (*Plan, error) { return Config{Document: doc}.Compile() }

// Compile compiles Document, as [New] does, for programs that need only the plan. It does not
// require a verifier or authenticators.
func (c Config) Compile() (*Plan, error) { return orFaults(c.compile(true)) }

// CompileSecurity compiles only the security of Document. It does not read schemas, so it accepts
// documents whose requests cannot be validated.
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
	faults = append(faults, p.extensionFaults()...)
	if schemas {
		faults = append(p.validate(), faults...)
	}
	return p, faults
}

// Describe returns the policy of each operation, by path and method, even if [Compile] rejects the
// document. It is for tools that report on documents, and must not be used for access control: an
// operation without stated security is public, as in OpenAPI (§4.8.10).
func Describe(doc *openapi3.T) []Operation {
	p, _ := Config{Document: doc}.read(false)
	return p.Operations()
}

// Inspect is [Compile] for tools that report on documents, which should be loaded with
// IncludeOrigin. The notes are not faults. They are about values that generated code does not bind,
// and about const: null, which is lost in documents loaded without IncludeOrigin, such as those
// embedded in generated code.
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
			`loaded without IncludeOrigin, as in generated code: write type: "null"`})
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
		p.extended = compiler.Extended
		for _, name := range c.IgnoreFormats {
			if !schema.IsKnownFormat(name) {
				faults = append(faults,
					fmt.Errorf("authz: Config.IgnoreFormats has %q: expected one of %s", name,
						strings.Join(schema.KnownFormats(), ", ")))
			}
		}
	}
	for _, name := range c.Without {
		if p.schemes[name] == nil && !p.requires(name) {
			faults = append(faults,
				fmt.Errorf("authz: Config.Without has %q, which is not a security scheme of the "+
					"document", name))
		}
	}
	ids := map[string]string{}
	shapes := map[string]string{}
	for _, template := range slices.Sorted(maps.Keys(p.doc.Paths.Map())) {
		item := p.doc.Paths.Value(template)
		if item == nil {
			continue
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
					Problem: fmt.Sprintf("operationId %s is also used by %s: give each operation "+
						"its own", o.ID, other),
				})
			}
			ids[o.ID] = method + " " + template
			shape := method + " " + shapeOf(template)
			if other, taken := shapes[shape]; taken {
				found = append(found, &Fault{
					Method: method, Path: template, At: locate(item.Origin, ""),
					Problem: fmt.Sprintf("it matches the same requests as %s: paths that differ "+
						"only in the names of their parameters are the same", other),
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

// repeated returns the name of a path parameter that occurs twice in a template.
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

// locate returns the location of an element's field, or of the element if it has no such field.
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
		// An empty list for the whole document does not count: it would silently make new
		// operations public.
		o.security = p.doc.Security
	case c.Unstated == DenyUnstated:
		o.Denied = "the document states no security for it"
	default:
		problem("security", "no security is stated: add security to the operation or the whole "+
			"document (security: [] on the operation if it is public), in the document or an "+
			"overlay; or set Config.Unstated to authz.DenyUnstated to deny it")
	}
	for _, requirement := range o.security {
		if requirement == nil {
			problem("security", "an alternative of its security is null: write {} if a token is "+
				"optional, or remove it")
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
		problem("", "it has x-authz-introspect, but is public: there is no token to introspect")
	}
	if o.StepUp != nil && !o.alwaysByToken(p) {
		problem("", fmt.Sprintf("it has %s or %s, but may be called without a token, which says "+
			"how the person signed in", acrExtension, maxAgeExtension))
	}
	return o, faults
}

func (p *Plan) readAlternative(
	requirement openapi3.SecurityRequirement, without []string,
) (
	alternative Alternative, problems []string) {
	alternative = Alternative{}
	// the schemes by the content of the Authorization header
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
				"list them, or write [] if none are required", name))
		}
		for _, scope := range scopes {
			if err := s.declares(scope); err != nil {
				problems = append(problems, err.Error())
			} else if s.implicitScopes && s.token {
				p.scopes[scope] = ""
			}
		}
		if holds := s.authorization(); holds != "" {
			inHeader[holds] = name
		}
	}
	if len(inHeader) > 1 {
		problems = append(problems,
			fmt.Sprintf("an alternative of its security requires %s in one Authorization header, "+
				"which holds one credential (RFC 9110 §11.6.2): make them alternatives, or move "+
				"one elsewhere", strings.Join(slices.Sorted(maps.Keys(inHeader)), " and ")))
	}
	return alternative, problems
}

// drop removes the alternatives that name one of the schemes. Removing only the requirement would
// weaken the alternative.
func (o *operation) drop(schemes []string) {
	had := len(o.Alternatives) > 0
	o.Alternatives = slices.DeleteFunc(o.Alternatives, func(a Alternative) bool {
		return slices.ContainsFunc(a, func(r Requirement) bool {
			return slices.Contains(schemes, r.Scheme)
		})
	})
	if had && len(o.Alternatives) == 0 {
		o.Denied = "each of its alternatives requires a disabled security scheme"
	}
	// {} must be last: the validator stops at the first satisfied alternative, so a bad token would
	// otherwise be ignored. The order of alternatives has no other meaning.
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

// alwaysByToken reports whether every alternative requires an access token.
func (o *operation) alwaysByToken(p *Plan) bool {
	return !o.Public() && !slices.ContainsFunc(o.Alternatives, func(a Alternative) bool {
		return !slices.ContainsFunc(a, func(r Requirement) bool {
			s := p.schemes[r.Scheme]
			return s == nil || s.token
		})
	})
}

// compile compiles the validation of an operation's requests.
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

// compileResponses compiles the validation of the operation's responses, if compiler is not nil.
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

// Scheme returns a security scheme of the document, or nil if there is none of this name.
func (p *Plan) Scheme(name string) *openapi3.SecurityScheme {
	if s := p.schemes[name]; s != nil {
		return s.spec
	}
	return nil
}

// TakesTokens reports whether some operation accepts access tokens.
func (p *Plan) TakesTokens() bool {
	byToken := func(r Requirement) bool { s := p.schemes[r.Scheme]; return s != nil && s.token }
	return slices.ContainsFunc(p.operations, func(o *operation) bool {
		return slices.ContainsFunc(o.Alternatives, func(a Alternative) bool {
			return slices.ContainsFunc(a, byToken)
		})
	})
}

// Scopes returns the scopes of access tokens that the document declares, or uses if it declares
// none, sorted.
func (p *Plan) Scopes() []string { return slices.Sorted(maps.Keys(p.scopes)) }
