package authz_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const messages = `
openapi: 3.1.0
info: {title: messages, version: "1"}
paths:
  /messages/{id}:
    get:
      operationId: getMessage
      security: [{bearerAuth: [read:messages]}]
      parameters: [{name: id, in: path, required: true, schema: {type: integer, minimum: 1}}]
      responses: {"200": {description: The message.}}
components:
  securitySchemes:
    bearerAuth: {type: http, scheme: bearer, bearerFormat: JWT, x-scopes: {"read:messages": Read messages}}
`

// The standard library's router, guarded.
func ExampleGate_Mux() {
	issuer, err := devissuer.Start(devissuer.Config{Audiences: []string{"https://api.example.com"}})
	if err != nil {
		log.Fatal(err)
	}
	defer issuer.Close()

	document, err := openapi3.NewLoader().LoadFromData([]byte(messages))
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(context.Background(), token.Config{
		Issuers: []token.Issuer{{URL: issuer.URL(), Audiences: []string{"https://api.example.com"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
	if err != nil {
		log.Fatal(err)
	}

	mux := gate.Mux() // generated code accepts it as BaseRouter
	mux.HandleFunc("GET /messages/{id}", func(w http.ResponseWriter, r *http.Request) {
		principal, _ := token.FromContext(r.Context())
		fmt.Fprintf(w, "%s reads message %s", principal.Subject(), r.PathValue("id"))
	})
	if err := mux.CheckRoutes(); err != nil {
		log.Fatal(err)
	}

	call(mux, "/messages/7", "")
	call(mux, "/messages/7", issuer.Mint(map[string]any{"sub": "alice", "scope": "read:messages"}))
	call(mux, "/messages/seven",
		issuer.Mint(map[string]any{"sub": "alice", "scope": "read:messages"}))
	call(mux, "/debug", "")
	// Output:
	// 401 Bearer realm="messages", scope="read:messages"
	// 200 alice reads message 7
	// 400
	// 404
}

// call prints what a client gets.
func call(h http.Handler, path, accessToken string) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if accessToken != "" {
		r.Header.Set("Authorization", "Bearer "+accessToken)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	said := w.Header().Get("WWW-Authenticate")
	if w.Code == http.StatusOK {
		said = w.Body.String()
	}
	fmt.Println(strings.TrimSpace(fmt.Sprint(w.Code, " ", said)))
}
