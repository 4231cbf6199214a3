package main

import (
	"testing"

	"github.com/oasgate/oasgate/authz/examples/internal/exampletest"
)

func TestExample(t *testing.T) { exampletest.Run(t, newHandler) }
