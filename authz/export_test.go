package authz

import (
	"maps"
	"slices"
)

// Kinds returns every kind, for tests that leave none out.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }
