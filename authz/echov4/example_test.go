package echov4_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov4"
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

// An Echo instance that a gate guards.
func ExampleRoutes() {
	// An issuer for this example. A real one is remote, and configured by its URL.
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
		log.Fatal(err) // every fault of the document, with what to do
	}

	handler, err := echov4.Routes(gate, func(e *echo.Echo) {
		// generated code has RegisterHandlers for this
		e.GET("/messages/:id", func(c echo.Context) error {
			principal, _ := token.FromContext(c.Request().Context())
			return c.String(http.StatusOK, principal.Subject()+" reads message "+c.Param("id"))
		})
	})
	if err != nil {
		// routes that the document does not describe, operations that no route serves
		log.Fatal(err)
	}

	call(handler, "/messages/7", "")
	call(handler, "/messages/7", issuer.Mint(map[string]any{"sub": "alice"}))
	call(handler, "/messages/7",
		issuer.Mint(map[string]any{"sub": "alice", "scope": "read:messages"}))
	call(handler, "/messages/0",
		issuer.Mint(map[string]any{"sub": "alice", "scope": "read:messages"}))
	call(handler, "/debug", "")
	// Output:
	// 401 Bearer realm="messages", scope="read:messages"
	// 403 Bearer realm="messages", error="insufficient_scope", scope="read:messages"
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
