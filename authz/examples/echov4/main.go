// Program echov4 guards a server on Echo v4 by openapi.yaml:
//
//	ISSUER=https://tenant.example/ AUDIENCE=https://orders.example go run ./echov4
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

func main() {
	document, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(context.Background(), token.Config{Issuers: []token.Issuer{{
		URL:       os.Getenv("ISSUER"),
		Audiences: []string{os.Getenv("AUDIENCE")},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	handler, err := newHandler(document, verifier)
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Addr:              "localhost:8080",
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

// newHandler returns the guarded API. The error lists every fault of the document and the routes.
func newHandler(document *openapi3.T, verifier *token.Verifier) (http.Handler, error) {
	gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
	if err != nil {
		return nil, err
	}
	return echov4.Routes(gate, func(e *echo.Echo) {
		e.GET("/health", getHealth)
		e.GET("/orders/:id", getOrder)
		e.PUT("/orders/:id", putOrder)
	})
}

func getHealth(c echo.Context) error {
	return c.String(http.StatusOK, "ok\n")
}

func getOrder(c echo.Context) error {
	caller, _ := token.FromContext(c.Request().Context())
	return c.String(http.StatusOK, "order "+c.Param("id")+", read by "+caller.Subject()+"\n")
}

func putOrder(c echo.Context) error {
	return c.NoContent(http.StatusNoContent)
}
