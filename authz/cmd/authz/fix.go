package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"
)

// fixes is an OpenAPI Overlay 1.0 document.
type fixes struct {
	Overlay string          `yaml:"overlay"`
	Info    overlayInfo     `yaml:"info"`
	Actions []overlayAction `yaml:"actions"`
}

type overlayInfo struct {
	Title   string `yaml:"title"`
	Version string `yaml:"version"`
}

type overlayAction struct {
	Target      string         `yaml:"target"`
	Description string         `yaml:"description,omitempty"`
	Update      map[string]any `yaml:"update"`
}

// todoScheme is a security scheme that no document declares, so that the gate refuses to start
// until somebody has decided who may call the operation.
const todoScheme = "TODO"

// writeFixes writes an overlay with what can be fixed mechanically. What needs a decision is marked
// TODO.
func writeFixes(p page, doc *openapi3.T, operations []operation) error {
	o := fixes{
		Overlay: "1.0.0",
		Info:    overlayInfo{"Fixes by authz lint --fix: replace every TODO", "1"},
		Actions: []overlayAction{},
	}
	missing := missingScopes(doc, operations)
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		scopes := map[string]any{}
		for _, scope := range missing[name] {
			scopes[scope] = "TODO"
		}
		o.Actions = append(o.Actions, overlayAction{
			Target: "$.components.securitySchemes" + jsonPathKey(
				name,
			), Description: "the scopes that operations require",
			Update: map[string]any{"x-scopes": scopes},
		})
	}
	taken := map[string]bool{}
	for _, op := range operations {
		taken[op.spec.OperationID] = true
	}
	for _, op := range operations {
		update := map[string]any{}
		if op.spec.OperationID == "" {
			id := operationName(op.Method, op.Path)
			for n := 2; taken[id]; n++ {
				id = fmt.Sprint(operationName(op.Method, op.Path), n)
			}
			taken[id] = true
			update["operationId"] = id
		}
		if op.unstated {
			update["security"] = []any{map[string]any{todoScheme: []string{}}}
		}
		if len(update) > 0 {
			o.Actions = append(o.Actions, overlayAction{
				Target: "$.paths" + jsonPathKey(
					op.Path,
				) + "." + strings.ToLower(
					op.Method,
				), Update: update,
			})
		}
	}
	encoder := yaml.NewEncoder(p.w)
	encoder.SetIndent(2)
	if err := encoder.Encode(o); err != nil {
		return err
	}
	return encoder.Close()
}

// operationName derives a name from a method and a path: GET /users/{id}/keys is getUsersIdKeys.
func operationName(method, path string) string {
	return strings.ToLower(method) + camel(path)
}

// jsonPathKey selects a member by name (RFC 9535 §2.3.1).
func jsonPathKey(name string) string {
	return "['" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(name) + "']"
}

// yamlKey quotes a key if YAML would not read it as that string.
func yamlKey(key string) string {
	plain := !strings.ContainsFunc(key, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_./", r)
	})
	if plain && unicode.IsLetter([]rune(key + "0")[0]) &&
		!slices.Contains(
			[]string{"true", "false", "null", "yes", "no", "on", "off"},
			strings.ToLower(key),
		) {
		return key
	}
	text, err := yaml.Marshal(key)
	if err != nil || !strings.ContainsAny(string(text), `"'`) {
		return fmt.Sprintf("%q", key)
	}
	return strings.TrimSpace(string(text))
}
