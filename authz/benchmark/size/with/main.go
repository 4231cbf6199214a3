// Program with is a server that this library guards, to compare the size of its binary.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/benchmark/peers/oapi"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

type handlers struct{}

func (handlers) GetPrivateScoped(c echo.Context) error {
	return c.JSON(http.StatusOK, oapi.Message{Message: "hello"})
}

func main() {
	document, err := oapi.GetSpec()
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := token.NewVerifier(context.Background(), token.Config{Issuers: []token.Issuer{{
		URL: os.Getenv("ISSUER"), Audiences: []string{os.Getenv("AUDIENCE")},
	}}})
	if err != nil {
		log.Fatal(err)
	}
	gate, err := authz.New(authz.Config{Document: document, Verifier: verifier})
	if err != nil {
		log.Fatal(err)
	}
	handler, err := echov4.Routes(gate, func(e *echo.Echo) { oapi.RegisterHandlers(e, handlers{}) })
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler))
}
