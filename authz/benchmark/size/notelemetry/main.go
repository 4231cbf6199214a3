// Program notelemetry is the program of this repository without telemetry, to compare its memory.
package main

import (
	"github.com/oasgate/oasgate/authz/command"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/impl"
)

func main() {
	command.Main(command.App{Name: "oasgate", Document: gen.GetSpec, Open: &impl.Serve{}})
}
