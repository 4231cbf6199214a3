package authz

import (
	"maps"
	"slices"
)

// Kinds returns all kinds, for complete tests.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }
