package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"

	"github.com/oasgate/oasgate/authz/internal/schema"
)

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
	faults = append(faults, c.unknownNames(p)...)
	r := &reader{Plan: p, config: c, ids: map[string]string{}, shapes: map[string]string{}}
	if schemas {
		r.newCompilers()
	}
	for _, template := range slices.Sorted(maps.Keys(p.doc.Paths.Map())) {
		if item := p.doc.Paths.Value(template); item != nil {
			faults = append(faults, r.readPath(template, item)...)
		}
	}
	if schemas {
		p.extended, p.nullConsts = r.requests.Extended, r.requests.NullConsts
	}
	return p, faults
}

// unknownNames returns a fault for each unknown format and security scheme in the configuration.
func (c Config) unknownNames(p *Plan) (faults []error) {
	for _, name := range c.IgnoreFormats {
		if !schema.IsKnownFormat(name) {
			faults = append(faults,
				fmt.Errorf("authz: Config.IgnoreFormats has %q: expected one of %s", name,
					strings.Join(schema.KnownFormats(), ", ")))
		}
	}
	for _, name := range c.Without {
		if p.schemes[name] == nil && !p.requires(name) {
			faults = append(faults,
				fmt.Errorf("authz: Config.Without has %q, which is not a security scheme of the "+
					"document", name))
		}
	}
	return faults
}

// reader reads the operations of a document into its plan.
type reader struct {
	*Plan
	config              Config
	requests, responses *schema.Compiler // nil: not compiled
	// the operations that were read, by operationId and by shapeOf
	ids, shapes map[string]string
}

func (r *reader) newCompilers() {
	r.requests = schema.NewCompiler(r.doc, schema.Options{
		IgnoreFormats: r.config.IgnoreFormats, RefuseReadOnly: r.config.RefuseReadOnly,
		DenyUndecoded: r.config.Undecoded == DenyUndecoded,
	})
	if r.config.Responses != IgnoreResponses {
		r.responses = schema.NewCompiler(r.doc, schema.Options{
			IgnoreFormats: r.config.IgnoreFormats, RefuseReadOnly: true, Responses: true,
		})
	}
}

// readPath reads the operations of a path.
func (r *reader) readPath(template string, item *openapi3.PathItem) (faults []error) {
	if name, twice := repeated(template); twice {
		faults = append(faults, &Fault{Path: template,
			Problem: fmt.Sprintf("path parameter %s occurs twice: give each its own name",
				name), At: locate(item.Origin, "")})
	}
	at := &path{methods: map[string]*operation{}}
	for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
		o, found := r.readOperation(method, template, item)
		if r.requests != nil {
			found = append(found, r.compile(o)...)
			found = append(found, r.compileResponses(o)...)
		}
		faults = append(append(faults, found...), r.duplicates(o)...)
		at.methods[method] = o
		at.allow = append(at.allow, method)
		r.operations = append(r.operations, o)
	}
	r.paths[template] = at
	return faults
}

// duplicates returns the faults of an operation that has the operationId of another one, or matches
// the same requests.
func (r *reader) duplicates(o *operation) (faults []error) {
	name, shape := o.Method+" "+o.Path, o.Method+" "+shapeOf(o.Path)
	if other, taken := r.ids[o.ID]; taken {
		faults = append(faults, &Fault{
			Method: o.Method, Path: o.Path, At: locate(o.route.Operation.Origin, "operationId"),
			Problem: fmt.Sprintf("operationId %s is also used by %s: give each operation "+
				"its own", o.ID, other),
		})
	}
	if other, taken := r.shapes[shape]; taken {
		faults = append(faults, &Fault{
			Method: o.Method, Path: o.Path, At: locate(o.route.PathItem.Origin, ""),
			Problem: fmt.Sprintf("it matches the same requests as %s: paths that differ "+
				"only in the names of their parameters are the same", other),
		})
	}
	r.ids[o.ID], r.shapes[shape] = name, name
	return faults
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
func (r *reader) readOperation(method, template string, item *openapi3.PathItem) (
	o *operation, faults []error,
) {
	spec := item.GetOperation(method)
	o = &operation{Operation: Operation{
		ID: spec.OperationID, Method: method, Path: template, granters: r.granters,
	}}
	o.route = &routers.Route{Spec: r.doc, Path: template, PathItem: item, Method: method,
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
	case len(r.doc.Security) > 0:
		// An empty list for the whole document does not count: it would silently make new
		// operations public.
		o.security = r.doc.Security
	case r.config.Unstated == DenyUnstated:
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
		alternative, problems := r.readAlternative(requirement)
		for _, text := range problems {
			problem("security", text)
		}
		o.Alternatives = append(o.Alternatives, alternative)
	}
	o.drop(r.config.Without)
	for _, text := range o.readExtensions(spec.Extensions) {
		problem("", text)
	}
	if o.Introspect && o.Public() {
		problem("", "it has x-authz-introspect, but is public: there is no token to introspect")
	}
	if o.StepUp != nil && !o.alwaysByToken(r.Plan) {
		problem("", fmt.Sprintf("it has %s or %s, but may be called without a token, which says "+
			"how the person signed in", acrExtension, maxAgeExtension))
	}
	return o, faults
}

func (r *reader) readAlternative(requirement openapi3.SecurityRequirement) (
	alternative Alternative, problems []string,
) {
	alternative = Alternative{}
	// the schemes by the content of the Authorization header
	inHeader := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(requirement)) {
		scopes := requirement[name]
		alternative = append(alternative, Requirement{name, slices.Clone(scopes)})
		s, err := r.scheme(name)
		if err != nil {
			if !slices.Contains(r.config.Without, name) {
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
				r.scopes[scope] = ""
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
func (r *reader) compile(o *operation) (faults []error) {
	problem := func(problem string) {
		faults = append(faults, &Fault{Method: o.Method, Path: o.Path, Problem: problem,
			At: locate(o.route.Operation.Origin, "")})
	}
	for _, text := range checkInputs(o.route.Operation) {
		problem(text)
	}
	var errs []error
	o.schema, errs = r.requests.Operation(o.route.PathItem, o.route.Operation)
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

// compileResponses compiles the validation of an operation's responses, if they are validated.
func (r *reader) compileResponses(o *operation) (faults []error) {
	if r.responses == nil {
		return nil
	}
	responses, errs := r.responses.Responses(o.route.Operation)
	if errs == nil {
		o.responses = responses
	}
	if r.config.Responses != FailResponses {
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
