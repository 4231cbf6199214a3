package authz

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// NoTimeout as an Operation's Timeout means that there is no limit.
const NoTimeout time.Duration = -1

// place is a kind of object of a document.
type place string

const (
	atScheme    place = "a security scheme"
	atOperation place = "an operation"
	atSchema    place = "a schema"
)

// extension is a field that this package adds to OpenAPI.
type extension struct {
	at       place
	expected string // its type, for messages
	// read applies the extension to an operation, and reports whether the value is valid. It is nil
	// for extensions that are read elsewhere.
	read func(o *Operation, value any) bool
}

// The extensions that have other uses in this package.
const (
	scopesExtension   = "x-scopes"
	impliesExtension  = "x-authz-implies"
	defaultsExtension = "x-authz-default-scopes"
	acrExtension      = "x-acr-values"
	maxAgeExtension   = "x-max-age"
)

// extensions holds all extensions. Other names with the prefix are faults, because a misspelled
// extension would otherwise be ignored silently.
var extensions = map[string]extension{
	scopesExtension:   {atScheme, "a map of scopes to descriptions", nil},
	impliesExtension:  {atScheme, "a map of scopes to lists of the scopes that each implies", nil},
	defaultsExtension: {atScheme, "a list of one or more scopes", nil},
	acrExtension: {atOperation, "a list of one or more strings of " + printable,
		readACRValues},
	maxAgeExtension:    {atOperation, "a number of seconds, 0 or more", readMaxAge},
	"x-authz-max-body": {atOperation, "a size above 0, such as 50MiB, 64KiB or 1000", readMaxBody},
	"x-authz-rate-limit": {atOperation, "a number above 0 per s, min, h or d, such as 100/min",
		readRateLimit},
	"x-authz-timeout": {atOperation, "a positive duration such as 90s or 2m, or none",
		readTimeout},

	"x-authz-stream":         {atOperation, "true or false", readStream},
	"x-authz-outlives-token": {atOperation, "true or false", readOutlivesToken},

	// read by the tool
	"x-authz-lint-ignore": {atOperation, "a list of rules of authz lint", isList},
	"x-authz-introspect":  {atOperation, "true or false", readIntrospect},
	// read by authztest
	"x-authz-owner": {atOperation, "subject", readOwner},
}

const printable = "printable ASCII without spaces, quotes and backslashes"

func isList(_ *Operation, value any) bool {
	var names []string
	return remarshal(value, &names) == nil
}

func readIntrospect(o *Operation, value any) bool {
	on, ok := value.(bool)
	o.Introspect = on
	return ok
}

func readOwner(o *Operation, value any) bool {
	o.OwnedBySubject = value == "subject"
	return o.OwnedBySubject
}

func readStream(o *Operation, value any) (ok bool) {
	o.Stream, ok = value.(bool)
	return ok
}

func readOutlivesToken(o *Operation, value any) (ok bool) {
	o.OutlivesToken, ok = value.(bool)
	return ok
}

const extensionPrefix = "x-authz-"

// readACRValues reads the Authentication Context Class References of which a token must have one
// (RFC 9470 §3).
func readACRValues(o *Operation, value any) bool {
	var values []string
	if err := remarshal(value, &values); err != nil || len(values) == 0 ||
		slices.ContainsFunc(
			values,
			func(acr string) bool { return checkScope(acr) != nil },
		) { // as for scopes, the values are part of challenges
		return false
	}
	o.stepUp().ACRValues = values
	return true
}

func readMaxAge(o *Operation, value any) bool {
	var seconds *int
	if err := remarshal(value, &seconds); err != nil || seconds == nil || *seconds < 0 {
		return false
	}
	o.stepUp().MaxAge = seconds
	return true
}

func (o *Operation) stepUp() *StepUp {
	if o.StepUp == nil {
		o.StepUp = &StepUp{}
	}
	return o.StepUp
}

func readMaxBody(o *Operation, value any) bool {
	size, err := ParseSize(fmt.Sprint(value))
	o.MaxBody = size
	return err == nil
}

func readTimeout(o *Operation, value any) bool {
	text, _ := value.(string)
	if text == "none" {
		o.Timeout = NoTimeout
		return true
	}
	d, err := time.ParseDuration(text)
	o.Timeout = d
	return err == nil && d > 0
}

// ParseSize reads a number of bytes, as in x-authz-max-body: 50MiB, 64KiB, 1GiB or 1000.
func ParseSize(text string) (int64, error) {
	digits, shift := text, 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if before, found := strings.CutSuffix(text, unit); found {
			digits, shift = before, bits
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63-shift)
	if err != nil || n == 0 {
		return 0, fmt.Errorf(
			"size %q: expected a whole number of bytes above 0, or one with KiB, MiB or GiB, "+
				"such as 50MiB",
			text,
		)
	}
	return int64(n) << shift, nil
}

// remarshal converts an untyped JSON value.
func remarshal(value, into any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// readExtensions reads the extensions of an operation.
func (o *Operation) readExtensions(values map[string]any) (problems []string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if known := extensions[name]; known.read != nil && !known.read(o, values[name]) {
			problems = append(problems, fmt.Sprintf("%s: expected %s", name, known.expected))
		}
	}
	return problems
}

// checkExtensions returns a problem for each name in an object of the document that is misspelled,
// or has no effect there.
func checkExtensions(at place, values map[string]any) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch known, ok := extensions[name]; {
		case ok && known.at != at:
			problems = append(
				problems,
				fmt.Errorf("%s has no effect on %s: it belongs to %s", name, at, known.at),
			)
		case ok:
		case strings.HasPrefix(strings.ToLower(name), extensionPrefix):
			problems = append(
				problems,
				fmt.Errorf(
					"unknown extension %s: expected one of %s",
					name,
					strings.Join(slices.Sorted(maps.Keys(extensions)), ", "),
				),
			)
		default:
			for _, right := range slices.Sorted(maps.Keys(extensions)) {
				if misspells(strings.ToLower(name), right) {
					problems = append(
						problems,
						fmt.Errorf("unknown extension %s: did you mean %s?", name, right),
					)
				}
			}
		}
	}
	return problems
}

// misspells reports whether a name differs from another by one inserted, deleted or replaced byte.
func misspells(name, right string) bool {
	same := 0
	for same < len(name) && same < len(right) && name[same] == right[same] {
		same++
	}
	a, b := name[same:], right[same:]
	switch len(a) - len(b) {
	case 0:
		return a == "" || a[1:] == b[1:]
	case 1:
		return a[1:] == b
	case -1:
		return a == b[1:]
	}
	return false
}

// extensionFaults checks the extensions of all objects that concern requests, and of all schemas if
// these are compiled.
func (p *Plan) extensionFaults() (faults []error) {
	check := func(at place, where Fault, values map[string]any, origin *openapi3.Origin) {
		for _, problem := range checkExtensions(at, values) {
			fault := where
			fault.Problem, fault.At = where.Problem+problem.Error(), locate(origin, "")
			faults = append(faults, &fault)
		}
	}
	doc := p.doc
	check("the document", Fault{}, doc.Extensions, doc.Origin)
	if doc.Info != nil {
		check("info", Fault{}, doc.Info.Extensions, doc.Info.Origin)
	}
	if doc.Components != nil {
		check("components", Fault{}, doc.Components.Extensions, doc.Components.Origin)
		for _, name := range slices.Sorted(maps.Keys(doc.Components.SecuritySchemes)) {
			if ref := doc.Components.SecuritySchemes[name]; ref != nil && ref.Value != nil {
				where := Fault{Problem: "components.securitySchemes." + name + ": "}
				check(atScheme, where, ref.Value.Extensions, ref.Value.Origin)
				for _, flow := range flows(ref.Value.Flows) {
					check("a flow", where, flow.Extensions, flow.Origin)
				}
			}
		}
	}
	if doc.Paths != nil {
		check("paths", Fault{}, doc.Paths.Extensions, doc.Paths.Origin)
	}
	for _, template := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := orEmpty(doc.Paths.Value(template))
		check("a path", Fault{Path: template}, item.Extensions, item.Origin)
		p.checkInputExtensions(check, Fault{Path: template}, item.Parameters, nil)
		for _, method := range slices.Sorted(maps.Keys(item.Operations())) {
			o, where := item.GetOperation(method), Fault{Method: method, Path: template}
			check(atOperation, where, o.Extensions, o.Origin)
			p.checkInputExtensions(check, where, o.Parameters, o.RequestBody)
		}
	}
	faulty := slices.ContainsFunc(p.extended, func(s *openapi3.Schema) bool {
		return checkExtensions(atSchema, s.Extensions) != nil
	})
	p.extended = nil
	if !faulty {
		return faults
	}
	// Only this walk knows the location of each schema, and takes long.
	_ = doc.WalkSchemas(func(at string, ref *openapi3.SchemaRef) error {
		check(atSchema, Fault{Problem: at + ": "}, ref.Value.Extensions, ref.Value.Origin)
		return nil
	})
	return faults
}

func (p *Plan) checkInputExtensions(
	check func(place, Fault, map[string]any, *openapi3.Origin),
	where Fault,
	parameters openapi3.Parameters,
	body *openapi3.RequestBodyRef,
) {
	for _, ref := range parameters {
		if ref != nil && ref.Value != nil {
			check("a parameter", where, ref.Value.Extensions, ref.Value.Origin)
		}
	}
	if body == nil || body.Value == nil {
		return
	}
	check("a request body", where, body.Value.Extensions, body.Value.Origin)
	for _, name := range slices.Sorted(maps.Keys(body.Value.Content)) {
		if media := body.Value.Content[name]; media != nil {
			check("a media type", where, media.Extensions, media.Origin)
		}
	}
}

// StepUp is an operation's requirement on how the principal signed in (RFC 9470).
type StepUp struct {
	ACRValues []string // the accepted values of acr; nil: any
	MaxAge    *int     // the maximum number of seconds since auth_time; nil: any
}
