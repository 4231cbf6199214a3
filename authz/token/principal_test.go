package token_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/oasgate/oasgate/authz/token"
)

func principalOf(t testing.TB, claims ...string) *token.Principal {
	t.Helper()
	s := newScene(t)
	return accepted(t, s.verifier(t), s.genuine(claims...))
}

// says asserts the value of a claim as a T.
func says[T any](t *testing.T, p *token.Principal, pointer string, want T) {
	t.Helper()
	got, err := token.Claim[T](p, pointer)
	if err != nil {
		t.Errorf("Claim[%T](%q): %v", want, pointer, err)
		return
	}
	if a, b := must(json.Marshal(got)), must(json.Marshal(want)); string(a) != string(b) {
		t.Errorf("Claim[%T](%q) is %s, want %s", want, pointer, a, b)
	}
}

// fails asserts that a claim is absent or not a T, and that the error does not contain its value.
func fails[T any](t *testing.T, p *token.Principal, pointer string, absent bool) {
	t.Helper()
	got, err := token.Claim[T](p, pointer)
	if err == nil {
		t.Errorf("Claim[%T](%q) is %v, want an error", got, pointer, got)
		return
	}
	var zero T
	if a, b := must(json.Marshal(got)), must(json.Marshal(zero)); string(a) != string(b) {
		t.Errorf("Claim[%T](%q) fails, but returns %s", got, pointer, a)
	}
	if errors.Is(err, token.ErrNoClaim) != absent {
		t.Errorf("Claim[%T](%q): %v; that it is ErrNoClaim should be %v", got, pointer, err, absent)
	}
	if !strings.Contains(err.Error(), pointer) {
		t.Errorf("the error does not name the claim %q: %v", pointer, err)
	}
	loggable(t, "", err.Error())
}

func TestClaim(t *testing.T) {
	p := principalOf(t,
		"email", `"a@b.example"`, "email_verified", "true", "level", "7", "ratio", "0.5", "big", "9007199254740993",
		"roles", `["a","b"]`, "mixed", `["`+canary+`",1]`, "nothing", "null", "empty", `""`, "list", "[]",
		"address", `{"country":"NL","street":{"no":1}}`, "https://api.example/tenant", `"t1"`, "a~b", "1", "", `"":"no name"`)

	says(t, p, "/email", "a@b.example")
	says(t, p, "/email_verified", true)
	says(t, p, "/level", 7)
	says(t, p, "/level", 7.0)
	says(t, p, "/level", int8(7))
	says(t, p, "/ratio", 0.5)
	says(t, p, "/big", int64(9007199254740993))
	says(t, p, "/roles", []string{"a", "b"})
	says(t, p, "/list", []string{})
	says(t, p, "/empty", "")
	says(t, p, "/address/country", "NL")
	says(t, p, "/address/street/no", 1)
	says(t, p, "/address/street", map[string]int{"no": 1})
	says(t, p, "/address", struct {
		Country string `json:"country"`
	}{"NL"})
	says(t, p, "/https:~1~1api.example~1tenant", "t1")
	says(t, p, "/a~0b", 1)
	says(t, p, "/", "no name")
	says(t, p, "/sub", "reader@clients")
	says(t, p, "/roles", any([]any{"a", "b"}))

	fails[string](t, p, "/absent", true)
	fails[string](t, p, "/Email", true) // names are case-sensitive
	fails[string](t, p, "/email/", true)
	fails[string](t, p, "/email/x", true)
	fails[string](t, p, "/roles/0", true) // through objects only
	fails[string](t, p, "/address/absent", true)
	fails[string](t, p, "/nothing", true) // null is like absent
	fails[*string](t, p, "/nothing", true)
	fails[bool](t, p, "/nothing", true)
	fails[string](t, p, "/level", false)
	fails[int](t, p, "/email", false)
	fails[int](t, p, "/ratio", false)
	fails[int32](t, p, "/big", false)
	fails[bool](t, p, "/level", false)
	fails[uint8](t, p, "/mixed", false)
	fails[[]string](t, p, "/mixed", false)
	fails[[]string](t, p, "/email", false)
	fails[string](t, p, "/roles", false)
	fails[struct{ Country int }](t, p, "/address/country", false)

	// no pointers: a mistake of the program, and not that the claim is absent
	fails[string](t, p, "email", false)
	fails[string](t, p, "https://api.example/tenant", false)
	fails[string](t, p, "/a~b", false)

	whole, err := token.Claim[map[string]any](p, "") // RFC 6901 §5: the whole document
	if err != nil || whole["email"] != "a@b.example" {
		t.Errorf("all claims are %v, %v", whole, err)
	}
}

// TestPrincipalDoesNotChange: changes of what its methods return do not change a principal.
func TestPrincipalDoesNotChange(t *testing.T) {
	p := principalOf(t, "roles", `["a","b"]`)
	p.Scopes()[0] = "admin"
	scopes := append(p.Scopes(), "admin")
	clear(scopes)
	for _, pointer := range []string{"/roles", ""} {
		raw, err := token.Claim[jsontext.Value](p, pointer)
		if err != nil {
			t.Fatal(err)
		}
		clear(raw)
		message, err := token.Claim[json.RawMessage](p, pointer)
		if err != nil {
			t.Fatal(err)
		}
		clear(message)
	}
	if roles, _ := token.Claim[[]string](p, "/roles"); len(roles) == 2 {
		roles[0] = "admin"
	}
	says(t, p, "/roles", []string{"a", "b"})
	says(t, p, "/scope", scope)
	if got := p.Scopes(); !slices.Equal(got, strings.Fields(scope)) || p.HasScope("admin") ||
		!p.HasScope("read:messages") {
		t.Errorf("scopes are %q, want %q", got, scope)
	}
}

// TestPrincipalConcurrently: it is shared by all requests with the same token.
func TestPrincipalConcurrently(t *testing.T) {
	s := newScene(t)
	v := s.verifier(t)
	tok := s.genuine("address", `{"country":"NL"}`)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				p := accepted(t, v, tok)
				if country, err := token.Claim[string](p, "/address/country"); err != nil ||
					country != "NL" {
					t.Errorf("the country is %q, %v", country, err)
				}
				clear(p.Scopes())
				if !p.HasScope("write:messages") || p.Subject() != "reader@clients" {
					t.Errorf("the principal is %v", p)
				}
			}
		})
	}
	group.Wait()
}

func TestPrincipalInContext(t *testing.T) {
	p := principalOf(t)
	if got, ok := token.FromContext(token.NewContext(t.Context(), p)); !ok || got != p {
		t.Errorf("FromContext returns %v, %v", got, ok)
	}
	if got, ok := token.FromContext(context.Background()); ok || got != nil {
		t.Errorf("FromContext of nothing returns %v, %v", got, ok)
	}
	if !p.Expiry().Equal(now.Add(5 * time.Minute)) {
		t.Errorf("the expiry is %s, want %s: exp without leeway", p.Expiry(),
			now.Add(5*time.Minute))
	}
}

func TestNewPrincipal(t *testing.T) {
	expiry := time.Unix(1_800_000_000, 0)
	p, err := token.NewPrincipal(token.PrincipalConfig{
		Issuer: "urn:keys", Subject: "billing", ClientID: "billing-1", Scopes: []string{"read"},
		Expiry: expiry,
		Claims: map[string]any{"team": map[string]any{"name": "a"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.Issuer() != "urn:keys" || p.Subject() != "billing" || p.ClientID() != "billing-1" ||
		!p.HasScope("read") ||
		p.HasScope("write") || !p.Expiry().Equal(expiry) {
		t.Errorf("the principal is %+v, want what it was made of", p)
	}
	if team, err := token.Claim[string](p, "/team/name"); err != nil || team != "a" {
		t.Errorf("its claim is %q, %v", team, err)
	}
	if p, err = token.NewPrincipal(token.PrincipalConfig{}); err != nil {
		t.Fatal(err)
	}
	if _, err := token.Claim[string](p, "/sub"); !errors.Is(err, token.ErrNoClaim) {
		t.Errorf("without claims: error is %v, want ErrNoClaim", err)
	}
	if _, err := token.NewPrincipal(token.PrincipalConfig{
		Claims: map[string]any{"f": func() {}}}); err == nil {
		t.Error("NewPrincipal accepts a claim that is not JSON")
	}
}
