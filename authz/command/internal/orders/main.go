// Command orders is a program that the tests of authz/command build from authz/... alone: another
// name, another document and another router than this repository's program, and no database.
package main

import (
	_ "embed"
	"net/http"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v5"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/command"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/echov5"
	"github.com/oasgate/oasgate/authz/token"
)

//go:embed openapi.yaml
var document []byte

func app() command.App {
	return command.App{
		Name:        "orders",
		Description: "Takes orders.",
		Document: func() (*openapi3.T, error) {
			return openapi3.NewLoader().LoadFromData(document)
		},
		Open:            command.Routes(routes),
		Dev:             &command.Dev{Issuer: devissuer.ForDev},
		ProblemTypeBase: "https://orders.example/problems#",
	}
}

func main() { command.Main(app()) }

func routes(g *authz.Gate) (http.Handler, error) { return echov5.Routes(g, register) }

type order struct {
	Item string `json:"item"`
	By   string `json:"by,omitempty"`
}

func register(e *echo.Echo) {
	e.GET("/v1/status", func(c *echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"status": "open"})
	})
	e.GET("/v1/orders/:id", func(c *echo.Context) error {
		return c.JSON(http.StatusOK, order{Item: c.Param("id")})
	})
	e.POST("/v1/orders", func(c *echo.Context) error {
		who, _ := token.FromContext(c.Request().Context())
		placed := order{By: who.Subject()}
		if err := c.Bind(&placed); err != nil {
			return err
		}
		return c.JSON(http.StatusCreated, placed)
	})
}
