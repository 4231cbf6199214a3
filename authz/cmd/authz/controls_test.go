package main

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// extensionDocument returns a document with an extension on its operation or its scheme, or without
// one.
func extensionDocument(t *testing.T, name string, value any, onScheme bool) *openapi3.T {
	t.Helper()
	scheme := object{
		"type": "http", "scheme": "bearer", "x-scopes": object{"read": "R", "all": "A"},
	}
	operation := object{
		"operationId": "a", "security": []any{object{"bearer": []string{"read"}}},
		"responses": object{"200": object{"description": "fine"}},
	}
	if onScheme && value != nil {
		scheme[name] = value
	} else if value != nil {
		operation[name] = value
	}
	text, err := json.Marshal(object{
		"openapi": "3.1.0", "info": object{"title": "t", "version": "1"},
		"paths":      object{"/a": object{"post": operation}},
		"components": object{"securitySchemes": object{"bearer": scheme}},
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// knownExtensions returns the names of all extensions that the library reads, from its message
// about an unknown one.
func knownExtensions(t *testing.T) []string {
	t.Helper()
	_, err := authz.Config{
		Document: extensionDocument(t, "x-authz-misspelt", true, false),
	}.CompileSecurity()
	var fault *authz.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("an unknown extension: %v, want a fault", err)
	}
	_, names, found := strings.Cut(fault.Problem, "expected one of ")
	if !found {
		t.Fatalf("an unknown extension: %s, want the names of the known ones", fault.Problem)
	}
	return strings.Split(names, ", ")
}

// TestExtensionDirections compares documents that differ in one extension. Each extension that the
// library reads must have a row.
func TestExtensionDirections(t *testing.T) {
	type row struct {
		before, after     any
		weakens, tightens bool
	}
	const weaker, stricter = true, true
	onScheme := map[string]bool{
		"x-scopes": true, "x-authz-implies": true, "x-authz-default-scopes": true,
	}
	boolean := func(trueWeakens bool) []row {
		return []row{
			{nil, true, trueWeakens, !trueWeakens},
			{false, true, trueWeakens, !trueWeakens},
			{true, nil, !trueWeakens, trueWeakens},
			{true, false, !trueWeakens, trueWeakens},
			{nil, false, false, false},
		}
	}
	limit := func(low, high string) []row {
		return []row{
			{low, high, weaker, false},
			{high, low, false, stricter},
			{nil, low, weaker, stricter}, // the limit of the server is not known
			{low, nil, weaker, stricter},
		}
	}
	table := map[string][]row{
		"x-scopes": {
			{object{"read": "R"}, object{"read": "R", "all": "A"}, false, false},
		},
		"x-authz-implies": {
			{nil, object{"all": []string{"read"}}, weaker, false},
			{object{"all": []string{"read"}}, nil, false, stricter},
		},
		"x-authz-default-scopes": {
			{nil, []string{"read"}, false, false},
		},
		"x-acr-values": {
			{nil, []string{"mfa"}, false, stricter},
			{[]string{"mfa"}, nil, weaker, false},
			{[]string{"mfa"}, []string{"mfa", "password"}, weaker, false},
			{[]string{"mfa"}, []string{"password"}, weaker, stricter},
		},
		"x-max-age": {
			{nil, 60, false, stricter},
			{60, nil, weaker, false},
			{60, 120, weaker, false},
			{120, 60, false, stricter},
		},
		"x-authz-max-body": limit("64KiB", "1MiB"),
		"x-authz-timeout": append(limit("90s", "2m"),
			row{"2m", "none", weaker, false},
			row{nil, "none", weaker, false},
			row{"none", nil, false, stricter}),
		"x-authz-rate-limit": {
			{nil, "100/min", false, stricter},
			{"100/min", nil, weaker, false},
			{"100/min", "2/s", weaker, false},
			{"2/s", "100/min", false, stricter},
		},
		"x-authz-stream":         boolean(true),
		"x-authz-outlives-token": boolean(true),
		"x-authz-introspect":     boolean(false),
		"x-authz-owner": {
			{nil, "subject", false, stricter},
			{"subject", nil, weaker, false},
		},
		"x-authz-lint-ignore": {
			{nil, []string{"public-write"}, false, false},
		},
	}
	for _, name := range knownExtensions(t) {
		if len(table[name]) == 0 {
			t.Errorf("%s: no row says what a change of it means", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		for _, r := range table[name] {
			answer := compare(extensionDocument(t, name, r.before, onScheme[name]),
				extensionDocument(t, name, r.after, onScheme[name]))
			weakens, tightens := false, false
			for _, c := range answer.Changes {
				weakens, tightens = weakens || c.Weakens, tightens || c.Tightens
			}
			if weakens != r.weakens || tightens != r.tightens {
				t.Errorf("%s: %v → %v: weaker %v, stricter %v; want %v, %v", name, r.before,
					r.after, weakens, tightens, r.weakens, r.tightens)
			}
		}
	}
}
