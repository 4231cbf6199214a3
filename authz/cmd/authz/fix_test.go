package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/overlay"
)

// TestFixesApply: the overlay of lint --fix applies to its document, and what it leaves to decide
// is a fault.
func TestFixesApply(t *testing.T) {
	document := []byte(`
openapi: 3.1.0
info: {title: t, version: 1.0.0}
paths:
  "/a's/{id}.json":
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {responses: {default: {description: fine}}}
  /b: {get: {security: [bearerAuth: ["read:b"]], responses: {default: {description: fine}}}}
components: {securitySchemes: {bearerAuth: {type: http, scheme: bearer}}}
`)
	dir := t.TempDir()
	name := filepath.Join(dir, "openapi.yaml")
	if err := os.WriteFile(name, document, 0o644); err != nil {
		t.Fatal(err)
	}
	authz := func(args ...string) (string, int) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, &bytes.Buffer{}, &stdout, &stderr)
		return stdout.String() + stderr.String(), code
	}
	fixes, code := authz("lint", "--fix", name)
	if code != allWell {
		t.Fatalf("exit code %d: %s", code, fixes)
	}
	fixed, err := overlay.Apply(document, []byte(fixes))
	if err != nil {
		t.Fatalf("%v in %s", err, fixes)
	}
	if err := os.WriteFile(name, fixed, 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := authz("lint", "--places", name)
	if code != found || !strings.Contains(out, "security scheme TODO is not declared") ||
		strings.Contains(out, "1  fault    unstated") ||
		strings.Contains(out, "missing-operation-id") ||
		strings.Contains(out, "scopes-by-use") {
		t.Errorf("exit code %d, %s: want one fault, the scheme TODO", code, out)
	}
}
