package token_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

func ExampleVerifier() {
	// An issuer for development. In production, use the URL of your issuer; nothing else changes.
	issuer, err := devissuer.Start(devissuer.Config{
		Audiences: []string{"https://api.example/"},
		Scopes:    []string{"read:messages"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	verifier, err := token.NewVerifier(context.Background(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"}}},
	})
	if err != nil {
		log.Fatal(err) // every fault of the configuration
	}

	genuine := issuer.Mint(map[string]any{"sub": "reader", "scope": "read:messages"})
	principal, err := verifier.Verify(context.Background(), genuine)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(principal.Subject(), principal.Scopes(), principal.HasScope("read:messages"))

	expired := issuer.Mint(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
	_, err = verifier.Verify(context.Background(), expired)
	if e, ok := errors.AsType[*token.Error](err); ok {
		fmt.Println(e.Code == token.Expired, e.Detail)
	}
	elsewhere := issuer.Mint(map[string]any{"aud": "https://other.example/"})
	_, err = verifier.Verify(context.Background(), elsewhere)
	fmt.Println(err)
	// Output:
	// reader [read:messages] true
	// true expired 1h0m0s ago
	// token: audience: audience is "https://other.example/", expected "https://api.example/"
}

// An outage of the keys does not mean that the token is invalid: respond with 503 and Retry-After,
// not 401.
func ExampleError() {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://api.example/"}})
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	verifier, err := token.NewVerifier(context.Background(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"}}},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	issuer.Fail(devissuer.Fault{Status: 500})

	_, err = verifier.Verify(context.Background(), issuer.Mint(nil))
	if e, ok := errors.AsType[*token.Error](err); ok && e.Code == token.KeysUnavailable {
		fmt.Println("503, Retry-After:", e.RetryAfter.Seconds())
	}
	_, err = verifier.Verify(context.Background(), "rubbish") // needs no key to be refused
	if e, ok := errors.AsType[*token.Error](err); ok && e.Code == token.Malformed {
		fmt.Println("401")
	}
	// Output:
	// 503, Retry-After: 1
	// 401
}

func ExampleClaim() {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://api.example/"}})
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()
	verifier, err := token.NewVerifier(context.Background(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example/"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	principal, err := verifier.Verify(context.Background(), issuer.Mint(map[string]any{
		"org":                        map[string]any{"id": "o-7", "roles": []string{"owner", "billing"}},
		"https://api.example/tenant": "blue",
	}))
	if err != nil {
		log.Fatal(err)
	}

	roles, err := token.Claim[[]string](principal, "/org/roles")
	fmt.Println(roles, err)
	// RFC 6901 writes / as ~1
	tenant, err := token.Claim[string](principal, "/https:~1~1api.example~1tenant")
	fmt.Println(tenant, err)
	_, err = token.Claim[string](principal, "/org/name")
	fmt.Println(errors.Is(err, token.ErrNoClaim), err)
	_, err = token.Claim[int](principal, "/org/id")
	fmt.Println(err)
	// Output:
	// [owner billing] <nil>
	// blue <nil>
	// true token: no such claim: /org/name
	// token: claim /org/id is not a int
}
