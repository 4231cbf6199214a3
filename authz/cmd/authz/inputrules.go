package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz/internal/schema"
)

func anyBodies(_ *openapi3.T, operations []operation, report report) {
	for _, o := range operations {
		body := o.body()
		if body == nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(body.Content)) {
			media := body.Content[name]
			if media == nil || !strings.Contains(name, "json") {
				continue
			}
			if media.Schema == nil || media.Schema.Value == nil || media.Schema.Value.IsEmpty() {
				report(
					locate(body.Origin, "content"),
					o.String()+" body",
					"any "+name+" passes",
					"",
				)
			}
		}
	}
}

func unboundedStrings(_ *openapi3.T, in input, report report) {
	s := in.schema
	if in.exposed && s.Type.Includes(openapi3.TypeString) && !in.bounded {
		report(locate(s.Origin, "type"), in.where, "a string of any length", "")
	}
}

func unboundedArrays(_ *openapi3.T, in input, report report) {
	s := in.schema
	if in.exposed && s.Type.Includes(openapi3.TypeArray) && s.MaxItems == nil && s.Enum == nil &&
		s.Const == nil {
		report(locate(s.Origin, "type"), in.where, "an array of any length", "")
	}
}

func openObjects(doc *openapi3.T, in input, report report) {
	s := in.schema
	switch {
	case in.closed || closes(s) || !isObject(s):
	case doc.IsOpenAPI30() && len(s.AllOf)+len(s.OneOf)+len(s.AnyOf) > 0: // 3.0 has no keyword
	default:
		report(locate(s.Origin, ""), in.where,
			"an object that accepts members it does not describe",
			"")
	}
}

func unenforcedFormats(_ *openapi3.T, in input, report report) {
	s := in.schema
	if s.Format != "" && !schema.IsKnownFormat(s.Format) && s.Pattern == "" && s.Enum == nil {
		report(locate(s.Origin, "format"), in.where, "format "+s.Format+" is not enforced", "")
	}
}

func readOnlyInputs(_ *openapi3.T, in input, report report) {
	for _, name := range slices.Sorted(slices.Values(in.schema.Required)) {
		if ref := in.schema.Properties[name]; ref != nil && ref.Value != nil && ref.Value.ReadOnly {
			report(locate(in.schema.Origin, "required"), in.where+"."+name,
				"required and readOnly: a request must not contain it", "")
		}
	}
}
