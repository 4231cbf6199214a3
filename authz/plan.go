package authz

import (
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
