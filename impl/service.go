// Package impl is this API: what its operations do.
package impl

import (
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/gen"
)

// Routes returns the operations of openapi.yaml, guarded by a gate.
func Routes(handlers gen.StrictServerInterface) func(g *authz.Gate) (http.Handler, error) {
	return func(g *authz.Gate) (http.Handler, error) {
		return echov4.Routes(g, func(e *echo.Echo) {
			gen.RegisterHandlers(e, gen.NewStrictHandler(handlers, nil))
		})
	}
}

// Plan returns what the document says of who may call what.
func Plan() (*authz.Plan, error) {
	document, err := gen.GetSpec()
	if err != nil {
		return nil, fmt.Errorf("the embedded document does not load: %w: generate it again with `go generate ./...`", err)
	}
	return authz.Compile(document)
}
