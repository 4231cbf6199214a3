package docs

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// The page and its programs request scopes by the names of the issuer.
func TestScopesHaveTheIssuersNames(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.ScopesToRequest = func(issuer string, scopes []string) (names []string) {
			if issuer != issuerURL {
				t.Errorf("issuer is %q", issuer)
			}
			for _, scope := range scopes {
				if scope != "audit" { // which the issuer does not grant
					names = append(names, "api/"+scope)
				}
			}
			return names
		}
	})
	served := s.copy(t, "/docs/openapi.json")
	scheme := served.Components.SecuritySchemes["oauth2"].Value
	want := map[string]string{"api/read:orders": "Read orders", "api/write:orders": "Write orders"}
	if got := scheme.Flows.ClientCredentials.Scopes; !maps.Equal(got, want) {
		t.Errorf("scopes of the issuer are %v, want %v", got, want)
	}
	security := *served.Paths.Value("/one").Put.Security
	if want := (openapi3.SecurityRequirements{
		{"bearerAuth": {"read:orders", "write:orders"}}, {"oauth2": {"api/read:orders", "api/write:orders"}},
	}); !reflect.DeepEqual(security, want) {
		t.Errorf("security is %v, want %v", security, want)
	}
	page := s.ask("GET", "/docs/").Body.String()
	for _, name := range []string{`&#34;read:orders&#34;:&#34;api/read:orders&#34;`,
		`&#34;audit&#34;:&#34;&#34;`} {
		if !strings.Contains(page, name) {
			t.Errorf("the page's settings do not have %s", name)
		}
	}
	snippets, err := NewSnippets(s.last.values, "one")
	if err != nil {
		t.Fatal(err)
	}
	for _, language := range []string{"curl", "go"} {
		program := snippets.Operations["one"][language].Program()
		if !strings.Contains(program, "api/read:orders") {
			t.Errorf("the program in %s does not request the issuer's scope:\n%s", language,
				program)
		}
	}
}

// The page uses the implications of scopes when it says which scopes a token lacks.
func TestPageHasImpliedScopes(t *testing.T) {
	s := newSite(t, func(c *Config) {
		c.Document.Components.SecuritySchemes["bearerAuth"].Value.Extensions["x-authz-implies"] =
			map[string]any{"write:orders": []any{"read:orders"}}
	})
	const want = `&#34;grantedBy&#34;:{&#34;read:orders&#34;:[&#34;write:orders&#34;]}`
	if page := s.ask("GET", "/docs/").Body.String(); !strings.Contains(page, want) {
		t.Errorf("the page's settings do not have %s", want)
	}
}
