package impl

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/gen"
)

// private is an operation that requires a token, for tests that do not depend on the other contents
// of openapi.yaml.
var private = find(
	"that needs a token",
	func(o authz.Operation) bool { return len(o.Alternatives) == 1 },
)

// operation is one that a plain GET calls.
type operation struct {
	authz.Operation
	what  string
	scope string // what a token needs for it
}

// find returns the operation with this property that requires the fewest scopes.
func find(what string, is func(authz.Operation) bool) operation {
	found := operation{what: what}
	document, err := gen.GetSpec()
	if err != nil {
		return found // the start of a server reports it
	}
	for _, o := range authz.Describe(document) {
		item := document.Paths.Value(o.Path)
		plain := o.Method == http.MethodGet && !strings.Contains(o.Path, "{") &&
			item.Get.RequestBody == nil &&
			o.StepUp == nil
		for _, p := range slices.Concat(item.Parameters, item.Get.Parameters) {
			plain = plain && !p.Value.Required
		}
		if scope := scopes(o); plain && is(o) &&
			(found.Path == "" || len(scope) < len(found.scope)) {
			found.Operation, found.scope = o, scope
		}
	}
	return found
}

func scopes(o authz.Operation) string {
	var all []string
	for _, alternative := range o.Alternatives {
		for _, requirement := range alternative {
			all = append(all, requirement.Scopes...)
		}
	}
	return strings.Join(all, " ")
}

// mint returns a token for the private operation, with these claims in addition.
func mint(issuer interface{ Mint(map[string]any) string }, claims map[string]any) string {
	all := map[string]any{"scope": private.scope}
	maps.Copy(all, claims)
	return issuer.Mint(all)
}

// path skips the test if there is no such operation.
func (o operation) path(t *testing.T) string {
	t.Helper()
	if o.Path == "" {
		t.Skipf("openapi.yaml has no operation %s and that a GET without parameters calls", o.what)
	}
	return o.Path
}
