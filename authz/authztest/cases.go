package authztest

import "github.com/oasgate/oasgate/authz"

// Case is one request, and how it must be answered.
type Case struct {
	// Name is unique in the document: the operationId, the alternative where there are several, and what is tried;
	// with a slash between.
	Name      string
	Operation authz.Operation
	// Scopes are those that the token of the case grants, or claims to.
	Scopes []string
	// Want is the refusal that is expected; "" means that the request must be let in.
	Want authz.Kind
}

// Cases derives the cases of every operation, in the order of [authz.Plan.Operations]. Which of them can be run is
// for the [Target] to say.
func Cases(plan *authz.Plan) []Case { return nil }
