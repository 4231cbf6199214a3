package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// caller is a caller with genuine credentials that grant some scopes, with a bad one, or without
// any.
type caller struct {
	has []atom
	bad string // a credential that is presented and not genuine; has is then empty
}

// admits implements the definition of OpenAPI (§4.8.30) directly, without the algebra of the
// package.
func admits(o authz.Operation, credential func(string) string, c caller) bool {
	optional := len(o.Alternatives) == 0
	for _, a := range o.Alternatives {
		optional = optional || len(a) == 0
		satisfied := c.bad == ""
		for _, r := range a {
			satisfied = satisfied && slices.Contains(c.has, atom{credential: credential(r.Scheme)})
			for _, s := range r.Scopes {
				satisfied = satisfied && slices.Contains(c.has, atom{credential(r.Scheme), s})
			}
			if c.bad == credential(r.Scheme) {
				return false // it is looked at, here or in another alternative
			}
		}
		if satisfied {
			return true
		}
	}
	return optional
}

// every returns all policies over the scopes a, b and c of one token: all sets of alternatives,
// which may include the empty one.
func every() (all []authz.Operation) {
	alternatives := []authz.Alternative{{}}
	for set := range 8 {
		alternatives = append(
			alternatives,
			authz.Alternative{{Scheme: "bearerAuth", Scopes: subset(set)}},
		)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for set := range 1 << len(alternatives) {
		o := authz.Operation{
			ID:     fmt.Sprint("o", set),
			Method: http.MethodGet,
			Path:   fmt.Sprint("/o", set),
		}
		for i, a := range alternatives {
			if set&(1<<i) != 0 {
				o.Alternatives = append(o.Alternatives, a)
			}
		}
		random.Shuffle(len(o.Alternatives), func(i, j int) {
			o.Alternatives[i], o.Alternatives[j] = o.Alternatives[j], o.Alternatives[i]
		})
		all = append(all, o)
	}
	return all
}

func subset(set int) []string {
	scopes := []string{}
	for i, s := range []string{"a", "b", "c"} {
		if set&(1<<i) != 0 {
			scopes = append(scopes, s)
		}
	}
	return scopes
}

func holds(credential string, scopes []string) []atom {
	has := []atom{{credential: credential}}
	for _, s := range scopes {
		has = append(has, atom{credential, s})
	}
	return has
}

// TestWeakerIsExact compares all pairs of policies over three scopes with the results for all
// callers.
func TestWeakerIsExact(t *testing.T) {
	asToken := func(string) string { return bearer }
	callers := []caller{{}, {bad: bearer}}
	for set := range 8 {
		callers = append(callers, caller{has: holds(bearer, subset(set))})
	}
	operations := every()
	policies := make([]access, len(operations))
	admitted := make([]uint, len(operations))
	for i, o := range operations {
		policies[i] = accessOf(o, asToken)
		for bit, c := range callers {
			if admits(o, asToken, c) {
				admitted[i] |= 1 << bit
			}
		}
	}
	if len(operations) != 512 {
		t.Fatalf("%d policies, want 512: every set of 9 alternatives", len(operations))
	}
	for i := range operations {
		for j := range operations {
			expected := admitted[i]&^admitted[j] == 0
			if got := policies[i].within(policies[j]); got != expected {
				t.Fatalf(
					"%v within %v is %v, want %v: whom it admits, as bits of %+v: %b and %b",
					policies[i],
					policies[j],
					got,
					expected,
					callers,
					admitted[i],
					admitted[j],
				)
			}
		}
	}
}

// TestWeakerIsExactForSeveralCredentials does the same for random policies over two credentials
// with scopes.
func TestWeakerIsExactForSeveralCredentials(t *testing.T) {
	// Two schemes with the same requirement, and one with another.
	credential := func(scheme string) string {
		return map[string]string{"x": bearer, "y": bearer, "z": "api key"}[scheme]
	}
	var callers []caller
	for tokenScopes := -1; tokenScopes < 8; tokenScopes++ {
		for keyScopes := -1; keyScopes < 8; keyScopes++ {
			var has []atom
			if tokenScopes >= 0 {
				has = append(has, holds(bearer, subset(tokenScopes))...)
			}
			if keyScopes >= 0 {
				has = append(has, holds("api key", subset(keyScopes))...)
			}
			callers = append(callers, caller{has: has})
		}
	}
	callers = append(callers, caller{bad: bearer}, caller{bad: "api key"})
	random := rand.New(rand.NewPCG(3, 4))
	policy := func() (o authz.Operation) {
		for range random.IntN(4) {
			a := authz.Alternative{}
			for _, scheme := range []string{"x", "y", "z"} {
				if random.IntN(2) == 0 {
					a = append(a, authz.Requirement{Scheme: scheme, Scopes: subset(random.IntN(8))})
				}
			}
			o.Alternatives = append(o.Alternatives, a)
		}
		return o
	}
	differ := 0
	for range 20_000 {
		a, b := policy(), policy()
		expected := !slices.ContainsFunc(
			callers,
			func(c caller) bool { return admits(a, credential, c) && !admits(b, credential, c) },
		)
		if got := accessOf(a, credential).within(accessOf(b, credential)); got != expected {
			t.Fatalf(
				"within is %v, want %v, for\n%v\n%v",
				got,
				expected,
				a.Alternatives,
				b.Alternatives,
			)
		}
		if !expected {
			differ++
		}
	}
	if differ < 2_000 || differ > 18_000 {
		t.Errorf(
			"%d of 20,000 pairs differ: the policies are not mixed enough to prove anything",
			differ,
		)
	}
}

// TestAgreesWithTheGate compares the result for every policy over three scopes with the gate that
// enforces it: whom it admits, and which scopes are missing.
func TestAgreesWithTheGate(t *testing.T) {
	doc := &openapi3.T{
		OpenAPI: "3.1.0", Info: &openapi3.Info{Title: "t", Version: "1"},
		Paths: openapi3.NewPaths(),
		Components: &openapi3.Components{
			SecuritySchemes: openapi3.SecuritySchemes{
				"bearerAuth": {Value: &openapi3.SecurityScheme{
					Type: "http", Scheme: "bearer",
					Extensions: map[string]any{
						"x-scopes": map[string]any{"a": "a", "b": "b", "c": "c"},
					},
				}},
			},
		},
	}
	operations := every()
	for _, o := range operations {
		security := openapi3.NewSecurityRequirements()
		for _, a := range o.Alternatives {
			requirement := openapi3.NewSecurityRequirement()
			for _, r := range a {
				requirement.Authenticate(r.Scheme, r.Scopes...)
			}
			security.With(requirement)
		}
		doc.AddOperation(
			o.Path,
			o.Method,
			&openapi3.Operation{
				OperationID: o.ID,
				Security:    security,
				Responses: openapi3.NewResponses(
					openapi3.WithStatus(
						200,
						&openapi3.ResponseRef{
							Value: openapi3.NewResponse().WithDescription("fine"),
						},
					),
				),
			},
		)
	}
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"api"}, Algorithm: "EdDSA"})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	verifier, err := token.NewVerifier(
		ctx,
		token.Config{
			Logger:  slog.New(slog.DiscardHandler),
			Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"api"}}},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: doc, Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	var headers []string
	for set := range 8 {
		headers = append(
			headers,
			"Bearer "+issuer.Mint(map[string]any{"scope": strings.Join(subset(set), " ")}),
		)
	}
	headers = append(headers, "", "Bearer not.a.token")

	for _, o := range operations {
		policy := accessOf(o, func(string) string { return bearer })
		for set, header := range headers {
			r := httptest.NewRequest(o.Method, o.Path, nil)
			if header != "" {
				r.Header.Set("Authorization", header)
			}
			_, err := gate.Check(r, o.Path, nil)
			var refused *authz.Error
			if err != nil && !errors.As(err, &refused) {
				t.Fatal(err)
			}
			switch set {
			case 8: // no token
				if policy.open() != (err == nil) {
					t.Errorf(
						"%v without a token: open is %v, the gate says %v",
						policy,
						policy.open(),
						err,
					)
				}
			case 9: // a bad one
				if public := policy.class() == "public"; public != (err == nil) {
					t.Errorf(
						"%v with a bad token: the class is %s, the gate says %v",
						policy,
						policy.class(),
						err,
					)
				}
			default:
				has := holds(bearer, subset(set))
				missing := policy.missing(func(a atom) bool { return slices.Contains(has, a) })
				var expected need
				if refused != nil {
					for _, s := range refused.Scopes {
						if !slices.Contains(subset(set), s) {
							expected = append(expected, atom{bearer, s})
						}
					}
				}
				if !slices.Equal(missing, expected) || (err == nil) != (missing == nil) {
					t.Errorf(
						"%v with scopes %v: missing is %v, the gate says %v, lacking %v",
						policy,
						subset(set),
						missing,
						err,
						expected,
					)
				}
			}
		}
	}
}

// TestStepUpIsExact compares all pairs of step-up requirements with the results of the gate for all
// sign-ins.
func TestStepUpIsExact(t *testing.T) {
	now := time.Now()
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"api"}, Algorithm: "EdDSA"})
	if err != nil {
		t.Fatal(err)
	}
	defer issuer.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	verifier, err := token.NewVerifier(
		ctx,
		token.Config{
			Logger:  slog.New(slog.DiscardHandler),
			Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"api"}}},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	var signedIn []*token.Principal
	for _, acr := range []any{nil, "x", "y", "z"} {
		for _, ago := range []any{nil, 0, 5, 15, 25} {
			claims := map[string]any{"acr": acr}
			if ago != nil {
				claims["auth_time"] = now.Unix() - int64(ago.(int))
			}
			p, err := verifier.Verify(ctx, issuer.Mint(claims))
			if err != nil {
				t.Fatal(err)
			}
			signedIn = append(signedIn, p)
		}
	}
	asks := []*authz.StepUp{nil}
	for _, acr := range [][]string{nil, {"x"}, {"y"}, {"y", "x"}, {"z", "x"}} {
		for _, age := range []*int{nil, new(0), new(10), new(20)} {
			asks = append(asks, &authz.StepUp{ACRValues: acr, MaxAge: age})
		}
	}
	asToken := func(string) string { return bearer }
	policy := func(s *authz.StepUp) access {
		return accessOf(
			authz.Operation{Alternatives: []authz.Alternative{{{Scheme: "t"}}}, StepUp: s},
			asToken,
		)
	}
	for _, a := range asks {
		for _, b := range asks {
			expected := !slices.ContainsFunc(
				signedIn,
				func(p *token.Principal) bool { return a.Met(p, now) && !b.Met(p, now) },
			)
			if got := policy(a).within(policy(b)); got != expected {
				t.Errorf("%q within %q is %v, want %v", policy(a), policy(b), got, expected)
			}
		}
	}
}

func TestAccessInWords(t *testing.T) {
	schemes := map[string]string{"t": bearer, "k": "api key in header x-key"}
	for _, test := range []struct {
		alternatives []authz.Alternative
		words, class string
	}{
		{nil, "public", "public"},
		{[]authz.Alternative{{}}, "public", "public"},
		{[]authz.Alternative{{}, {{Scheme: "t"}}}, "optional token", "optional"},
		{[]authz.Alternative{{{Scheme: "t", Scopes: []string{"a"}}}, {}, {{Scheme: "k"}}}, "optional token or api key in header x-key", "optional"},
		{[]authz.Alternative{{{Scheme: "t"}}}, "token", "token"},
		{[]authz.Alternative{{{Scheme: "t", Scopes: []string{"a"}}}, {{Scheme: "t"}}}, "token", "token"},
		{[]authz.Alternative{{{Scheme: "t", Scopes: []string{"a", "b"}}}, {{Scheme: "t", Scopes: []string{"c"}}}}, "token with a and b, or c", "scopes"},
		{[]authz.Alternative{{{Scheme: "t", Scopes: []string{"a"}}}, {{Scheme: "k"}}}, "token with a, or api key in header x-key", "credential"},
		{[]authz.Alternative{{{Scheme: "k"}, {Scheme: "t", Scopes: []string{"a"}}}}, "api key in header x-key, and token with a", "scopes"},
		// The same twice, in another order.
		{[]authz.Alternative{{{Scheme: "t", Scopes: []string{"a", "b"}}}, {{Scheme: "t", Scopes: []string{"b", "a", "a"}}}}, "token with a and b", "scopes"},
		// A scope can have the name of a class.
		{[]authz.Alternative{{{Scheme: "t", Scopes: []string{"public"}}}}, "token with public", "scopes"},
	} {
		a := accessOf(
			authz.Operation{Alternatives: test.alternatives},
			func(s string) string { return schemes[s] },
		)
		if a.String() != test.words || a.class() != test.class {
			t.Errorf(
				"%v is %q, %s; want %q, %s",
				test.alternatives,
				a,
				a.class(),
				test.words,
				test.class,
			)
		}
	}
}

// TestWeakerIsExactWithImplications compares policies with two sets of implications with the
// results for all callers.
func TestWeakerIsExactWithImplications(t *testing.T) {
	relations := []map[string][]string{
		nil,
		{"c": {"a"}},
		{"c": {"b"}, "b": {"a"}},
		{"a": {"b", "c"}},
	}
	var operations []operation
	var admitted []uint
	for _, relation := range relations {
		implies := ""
		if relation != nil {
			text, _ := json.Marshal(relation)
			implies = `, "x-authz-implies": ` + string(text)
		}
		var paths []string
		for set := range 1 << 8 { // sets of the sets of scopes
			var alternatives []string
			for i := range 8 {
				if set&(1<<i) != 0 {
					scopes, _ := json.Marshal(subset(i))
					alternatives = append(alternatives, `{"t": `+string(scopes)+`}`)
				}
			}
			paths = append(
				paths,
				fmt.Sprintf(
					`"/%d": {"get": {"security": [%s], "responses": {}}}`,
					set,
					strings.Join(alternatives, ","),
				),
			)
		}
		doc, err := openapi3.NewLoader().
			LoadFromData(
				[]byte(`{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {` +
					strings.Join(paths, ",") +
					`}, "components": {"securitySchemes": {"t": {"type": "http", "scheme": "bearer",
			"x-scopes": {"a": "", "b": "", "c": ""}` + implies + `}}}}`))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range describe(doc, credentials(doc)) {
			callers := []caller{{}, {bad: bearer}}
			for set := range 8 {
				callers = append(callers, caller{has: holds(bearer, closed(subset(set), relation))})
			}
			bits := uint(0)
			for bit, c := range callers {
				if admits(o.Operation, func(string) string { return bearer }, c) {
					bits |= 1 << bit
				}
				lacks := o.access.missing(func(a atom) bool { return slices.Contains(c.has, a) })
				if c.bad == "" && (lacks == nil) != (bits&(1<<bit) != 0) {
					t.Fatalf("%v lacks %v for %v under %v", c, lacks, o.Alternatives, relation)
				}
			}
			operations, admitted = append(operations, o), append(admitted, bits)
		}
	}
	for i := range operations {
		for j := range operations {
			want := admitted[i]&^admitted[j] == 0
			if got := operations[i].access.within(operations[j].access); got != want {
				t.Fatalf(
					"%v (%v) within %v (%v) is %v, want %v",
					operations[i].access,
					operations[i].Alternatives,
					operations[j].access,
					operations[j].Alternatives,
					got,
					want,
				)
			}
		}
		// A client with one of the sets is admitted, and no set can be smaller.
		for _, set := range operations[i].access.alternatives() {
			if len(set) > 0 && admitted[i] == 0 {
				t.Fatalf("%v lists %v, which does not grant access", operations[i].access, set)
			}
		}
	}
}

// closed adds what scopes imply.
func closed(scopes []string, relation map[string][]string) []string {
	for i := 0; i < len(scopes); i++ {
		for _, implied := range relation[scopes[i]] {
			if !slices.Contains(scopes, implied) {
				scopes = append(scopes, implied)
			}
		}
	}
	return scopes
}

func TestImplicationsInWords(t *testing.T) {
	doc := func(implies string) *openapi3.T {
		doc, err := openapi3.NewLoader().LoadFromData([]byte(`
openapi: 3.1.0
info: {title: t, version: "1"}
paths:
  /read: {get: {operationId: read, security: [{t: [read]}, {t: [all]}], responses: {default: {description: any}}}}
  /both: {get: {operationId: both, security: [{t: [all, read, write]}], responses: {default: {description: any}}}}
components: {securitySchemes: {t: {type: http, scheme: bearer, x-scopes: {read: "", all: "", write: "", admin: ""}` + implies + `}}}
`))
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	plain, implying := doc(""), doc(", x-authz-implies: {all: [read], admin: [all]}")
	var words []string
	for _, o := range describe(implying, credentials(implying)) {
		words = append(words, o.access.String())
	}
	want := []string{"token with all (or admin) and write", "token with read (or admin or all)"}
	if !slices.Equal(words, want) {
		t.Errorf("access is %q, want %q", words, want)
	}
	changes := compare(plain, implying).Changes
	if len(changes) != 2 || changes[0].Change != weakened || changes[1].Change != weakened ||
		!slices.Equal(changes[1].Gains, []string{"token with admin"}) || changes[1].Tightens {
		t.Errorf(
			"changes are %+v, want both operations to be weakened, and GET /read to gain admin",
			changes,
		)
	}
	for _, c := range compare(implying, plain).Changes {
		if c.Change != tightened {
			t.Errorf("reversed: %+v, want tightened", c)
		}
	}
	if changes := compare(implying, implying).Changes; len(changes) != 0 {
		t.Errorf("changes are %+v, want none", changes)
	}
	defaults := doc(", x-authz-default-scopes: [read]")
	if changes := compare(plain, defaults).Changes; len(changes) != 0 {
		t.Errorf(
			"changes are %+v, want none: default scopes do not change who is admitted",
			changes,
		)
	}
}

// With implications of many scopes at once, diff ends. It may report a change that is none.
func TestManyImplications(t *testing.T) {
	doc := func(implies bool) *openapi3.T {
		scopes, needed, implications := map[string]string{}, []string{}, map[string][]string{}
		for i := range 40 {
			scope := fmt.Sprint("s", i)
			scopes[scope], scopes["all:"+scope] = "", ""
			needed, implications["all:"+scope] = append(needed, scope), []string{scope}
		}
		scheme := map[string]any{"type": "http", "scheme": "bearer", "x-scopes": scopes}
		if implies {
			scheme["x-authz-implies"] = implications
		}
		text, _ := json.Marshal(map[string]any{
			"openapi": "3.1.0", "info": map[string]string{"title": "t", "version": "1"},
			"components": map[string]any{"securitySchemes": map[string]any{"t": scheme}},
			"paths": map[string]any{"/": map[string]any{"get": map[string]any{
				"security": []any{map[string]any{"t": needed}}, "responses": map[string]any{},
			}}},
		})
		doc, err := openapi3.NewLoader().LoadFromData(text)
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	plain, implying := doc(false), doc(true)
	if changes := compare(plain, implying).Changes; len(changes) != 1 || !changes[0].Weakens {
		t.Errorf("changes are %+v, want one that weakens", changes)
	}
	if changes := compare(implying, implying).Changes; len(changes) != 0 {
		t.Errorf("changes are %+v, want none", changes)
	}
	for _, o := range describe(implying, credentials(implying)) {
		if sets := o.access.alternatives(); len(sets) != 1 || len(sets[0]) != 40 {
			t.Errorf("there are %d sets of scopes, want the document's own", len(sets))
		}
	}
}
