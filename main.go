// Command oasgate runs this API, guarded by its document, openapi.yaml.
//
//	oasgate dev     serves it on this machine, with a token issuer for development
//	oasgate token   prints a token of a running dev
//	oasgate call    calls an operation
//	oasgate serve   serves it with a real issuer; serve --check only checks the configuration
//	oasgate --help  lists the other commands
package main

import (
	_ "embed"

	"github.com/oasgate/oasgate/authz/command"
	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/server/telemetry"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/impl"
)

//go:embed openapi.yaml
var source []byte

func main() {
	command.Main(command.App{
		Name:        "oasgate",
		Description: "An API whose OpenAPI document is its access policy.",
		Document:    gen.GetSpec,
		Source:      source,
		Open:        &impl.Serve{},
		Telemetry:   telemetry.New,
		Dev:         &command.Dev{Issuer: devissuer.ForDev, Open: &impl.Dev{}},
	})
}
