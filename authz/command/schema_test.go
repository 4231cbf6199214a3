package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/oasgate/oasgate/authz/token"
)

const schemaFile = "issuers.schema.json"

// editor returns a function that validates a file of issuers like an editor.
func editor(t *testing.T) func(text []byte) error {
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return func(text []byte) error {
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			return err
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			return err
		}
		if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(encoded)); err != nil {
			return err
		}
		return schema.Validate(value)
	}
}

// The schema has exactly the keys that the parser reads, and the values that it can list.
func TestSchemaKeys(t *testing.T) {
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	type properties map[string]struct {
		Description string
		Ref         string `json:"$ref"`
		Type        any
		Enum        []string
		Items       struct{ Enum []string }
		Properties  map[string]any
	}
	var schema struct {
		Definitions struct {
			Issuer struct{ Properties properties }
		}
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	issuer := schema.Definitions.Issuer.Properties
	for where, names := range map[string][2][]string{
		"an issuer":     {namesOf(issuer), keyNames(issuerKeys)},
		"introspection": {namesOf(issuer["introspection"].Properties), keyNames(introspectionKeys)},
		"keys":          {namesOf(issuer["keys"].Properties), keyNames(keyPolicyKeys)},
		"preset":        {sorted(issuer["preset"].Enum), presetNames()},
		"algorithms":    {sorted(issuer["algorithms"].Items.Enum), sorted(token.Algorithms())},
	} {
		if !slices.Equal(names[0], names[1]) {
			t.Errorf("%s: the schema has %v, the parser %v", where, names[0], names[1])
		}
	}
	for name, property := range issuer {
		if property.Description == "" {
			t.Errorf("%s has no description for editors", name)
		}
	}
}

func namesOf[T any](m map[string]T) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	return sorted(names)
}

func keyNames[T any](keys []key[T]) (names []string) {
	for _, k := range keys {
		names = append(names, k.name)
	}
	return sorted(names)
}

func sorted(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return names
}

// Every preset, and the example of the README, names the schema in its first line and is valid.
func TestSchemaExamples(t *testing.T) {
	check := editor(t)
	const line = "# yaml-language-server: $schema="
	for _, name := range presetNames() {
		text, err := presets.ReadFile("presets/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(string(text), "\n"); first != line+"../"+schemaFile {
			t.Errorf("%s begins with %q", name, first)
		}
		if err := check(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	readme, err := os.ReadFile("../server/README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(readme)
	if found == nil || !bytes.HasPrefix(found[1], []byte(line+"https://")) {
		t.Fatal("the README has no example that names the schema")
	}
	if err := check(found[1]); err != nil {
		t.Errorf("the example of the README: %v", err)
	}
}

// The schema and the parser agree.
func TestSchemaAgrees(t *testing.T) {
	check := editor(t)
	for text, valid := range map[string]bool{
		"{}":                              true,
		"{dpop: allowed, mtls: required}": true,
		"{dpop: maybe}":                   false,
		"{subject: optional}":             true,
		"{subject: none}":                 false,
		"{leeway: 10s}":                   true,
		"{leeway: soon}":                  false,
		"{max_lifetime: 1h30m}":           true,
		"{max_lifetime: [1h]}":            false,
		"{algorithms: [RS256, ES256]}":    true,
		"{algorithms: [HS256]}":           false,
		"{algorithms: RS256}":             false,
		"{scope_claims: [/scp]}":          true,
		"{scope_claims: [scp]}":           false,
		"{scope_names: {a: b}}":           true,
		"{scope_names: [a]}":              false,
		"{strict_scope_claims: true}":     true,
		"{strict_scope_claims: maybe}":    false,
		"{profile: rfc9068}":              true,
		"{profile: strict}":               false,
		"{keys: {cooldown: 10s}}":         true,
		"{keys: {cooldown: 10}}":          false,
		"{keys: {warmup: 10s}}":           false,
		"{required_claims: {/a: [b]}}":    true,
		"{required_claims: {/a: b}}":      false,
		"{scope_claim: [/scp]}":           false,
		"{required_claims: {a: [b]}}":     false,
		"{preset: okta}":                  true,
		"{preset: octa}":                  false,
		"{introspection: {ask: true}}":    false,
	} {
		inner := strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}")
		file := fmt.Sprintf("issuers: [{url: https://a.example/, audiences: [a], %s}]", inner)
		if _, err := parseIssuers("f", []byte(file)); (err == nil) != valid {
			t.Errorf("%s: the parser says %v, want valid %t", text, err, valid)
		}
		if err := check([]byte(file)); (err == nil) != valid {
			t.Errorf("%s: the schema says %v, want valid %t", text, err, valid)
		}
	}
	for _, file := range []string{"issuers: []", "issuers: {}", "{}", "issuer: []",
		"issuers: [{url: https://a.example/}]", "issuers: [{url: https://a.example/, audiences: []}]"} {
		_, err := parseIssuers("f", []byte(file))
		if schema := check([]byte(file)); err == nil || schema == nil {
			t.Errorf("%s: the parser says %v, the schema %v, want faults", file, err, schema)
		}
	}
}
