package messages

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// A client of an API compiles no server, router, OpenAPI or JSON schema library.
func TestImports(t *testing.T) {
	const module = "github.com/oasgate/oasgate/"
	for _, pkg := range []string{module + "authz/client", module + "gen/apiclient",
		module + "impl/messages"} {
		output, err := exec.Command("go", "list", "-deps", pkg).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", pkg, err)
		}
		for dependency := range strings.FieldsSeq(string(output)) {
			if regexp.MustCompile(
				`/echo|kin-openapi|jsonschema|lestrrat|authz/(server|token)|/authz$`).
				MatchString(dependency) {
				t.Errorf("%s depends on %s", pkg, dependency)
			}
		}
	}
}
