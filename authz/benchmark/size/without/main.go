// Program without is a server with the usual recipe for scopes, to compare the size of its binary
// with that of [with].
//
// [with]: ../with
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/labstack/echo/v4"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
	middleware "github.com/oapi-codegen/echo-middleware"

	"github.com/oasgate/oasgate/authz/benchmark/peers/oapi"
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
	issuer := os.Getenv("ISSUER")
	cache := jwk.NewCache(context.Background())
	if err := cache.Register(issuer + ".well-known/jwks.json"); err != nil {
		log.Fatal(err)
	}
	keys := jwk.NewCachedSet(cache, issuer+".well-known/jwks.json")
	authenticate := func(_ context.Context, in *openapi3filter.AuthenticationInput) error {
		header := in.RequestValidationInput.Request.Header.Get("Authorization")
		token, err := jwt.Parse([]byte(strings.TrimPrefix(header, "Bearer ")), jwt.WithKeySet(keys),
			jwt.WithIssuer(issuer), jwt.WithAudience(os.Getenv("AUDIENCE")))
		if err != nil {
			return err
		}
		value, _ := token.Get("scope")
		list, _ := value.(string)
		for _, scope := range in.Scopes {
			if !slices.Contains(strings.Fields(list), scope) {
				return errors.New("insufficient scope")
			}
		}
		return nil
	}
	e := echo.New()
	e.Use(middleware.OapiRequestValidatorWithOptions(document, &middleware.Options{
		Options: openapi3filter.Options{AuthenticationFunc: authenticate},
	}))
	oapi.RegisterHandlers(e, handlers{})
	log.Fatal(http.ListenAndServe("localhost:8080", e))
}
