package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/labstack/echo/v4"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
	middleware "github.com/oapi-codegen/echo-middleware"

	"github.com/oasgate/oasgate/authz/benchmark/peers/oapi"
)

// oapiCodegen is the generated server with the validating middleware, whose AuthenticationFunc
// verifies with jwx.
func oapiCodegen(issuer string) (http.Handler, error) {
	document, err := oapi.GetSpec()
	if err != nil {
		return nil, err
	}
	authenticate, err := newAuthenticate(issuer)
	if err != nil {
		return nil, err
	}
	e := newEcho()
	e.Use(middleware.OapiRequestValidatorWithOptions(document, &middleware.Options{
		Options: openapi3filter.Options{AuthenticationFunc: authenticate},
	}))
	oapi.RegisterHandlers(e, oapiHandler{})
	return e, nil
}

type oapiHandler struct{}

func (oapiHandler) GetPrivateScoped(c echo.Context) error {
	return c.JSON(http.StatusOK, oapi.Message{Message: text})
}

func newAuthenticate(issuer string) (openapi3filter.AuthenticationFunc, error) {
	url := issuer + ".well-known/jwks.json"
	cache := jwk.NewCache(context.Background())
	if err := cache.Register(url); err != nil {
		return nil, err
	}
	if _, err := cache.Refresh(context.Background(), url); err != nil {
		return nil, err
	}
	keys := jwk.NewCachedSet(cache, url)
	return func(_ context.Context, input *openapi3filter.AuthenticationInput) error {
		header := input.RequestValidationInput.Request.Header.Get("Authorization")
		raw, ok := strings.CutPrefix(header, "Bearer ")
		if !ok {
			return echo.NewHTTPError(http.StatusUnauthorized)
		}
		token, err := jwt.Parse([]byte(raw), jwt.WithKeySet(keys), jwt.WithIssuer(issuer),
			jwt.WithAudience(audience))
		if err != nil {
			return echo.NewHTTPError(http.StatusUnauthorized).SetInternal(err)
		}
		value, _ := token.Get("scope")
		list, _ := value.(string)
		for _, each := range input.Scopes {
			if !hasScope(list, each) {
				return echo.ErrForbidden
			}
		}
		return nil
	}, nil
}
