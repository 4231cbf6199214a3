package schema

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
)

// The validator compiles every schema of a 3.1 document anew on every request, for a hundred microseconds each. It has
// a second way, for 3.0 documents, that compiles nothing, and that passes over the newer keywords of JSON Schema
// without a word. An operation is sent this quick way only if all schemas of what it takes keep to keywords that both
// ways are known to judge alike, or are ones that the validator has the quick way judge in any case. Any other goes the
// whole way, by schemas that are compiled once (compiled.go), or as the validator goes it by itself. Tests compare the
// ways over generated documents.

// relabelled returns the document with the version that has the validator go the quick way.
func relabelled(doc *openapi3.T) *openapi3.T {
	return &openapi3.T{OpenAPI: "3.0.3", Info: doc.Info, Paths: doc.Paths, Components: doc.Components}
}

// way is how a request is held to the schemas of its operation.
type way struct {
	route      *routers.Route // of its document, by the version, the validator goes the quick way or the whole
	parameters []*openapi3.Parameter
	body       *openapi3.RequestBody
}

// compile finds the ways that the requests of the operation may go. It returns an error for each schema that none enforces.
func (o *Operation) compile(at *routers.Route) (errs []error) {
	item, spec := at.PathItem, at.Operation
	o.way = &way{route: at, parameters: parameters(item, spec)}
	if spec.RequestBody != nil {
		o.way.body = spec.RequestBody.Value
	}
	for _, schema := range decodedBy(item, spec) {
		if err := o.composition.check(schema); err != nil {
			errs = append(errs, err)
		}
	}
	if errs != nil || !o.doc.IsOpenAPI31OrLater() {
		return errs
	}
	judged := true
	for _, schema := range requestSchemas(item, spec) {
		j := o.known.of(schema)
		if j.fault != nil {
			errs = append(errs, j.fault)
		}
		judged = judged && (j.builtIn || j.compiled != nil)
	}
	route := *at
	route.Spec = o.relabelled
	if o.known.arePlain(o.way) {
		o.quick = &way{&route, o.way.parameters, o.way.body}
	}
	if !judged || !standsIn(true) || !standsIn(false) { // the latter: of a validator that has changed
		return errs
	}
	compiled := &way{route: &route}
	for _, parameter := range o.way.parameters {
		copied := *parameter
		copied.Schema = o.standIn(parameter.Schema, false)
		copied.Content = o.standIns(parameter.Content, false)
		compiled.parameters = append(compiled.parameters, &copied)
	}
	if o.way.body != nil {
		copied := *o.way.body
		copied.Content = o.standIns(copied.Content, true)
		compiled.body = &copied
	}
	o.way = compiled
	return errs
}

// composition is what is known of the schemas of a document by what they are composed of: true, of itself.
type composition map[*openapi3.Schema]bool

// readComposition finds every schema by which to judge a value is to judge the same value by it again (JSON Schema Core
// 2020-12 §9.4.1).
func readComposition(doc *openapi3.T) composition {
	c, under := composition{}, map[*openapi3.Schema]bool{}
	var follow func(s *openapi3.Schema)
	follow = func(s *openapi3.Schema) {
		if _, done := c[s]; done || s == nil {
			return
		}
		if under[s] {
			c[s] = true
			return
		}
		under[s] = true
		for _, part := range composing(s) {
			if part != nil {
				follow(part.Value)
			}
		}
		delete(under, s)
		if !c[s] {
			c[s] = false
		}
	}
	_ = doc.WalkSchemas(func(_ string, ref *openapi3.SchemaRef) error {
		follow(ref.Value)
		return nil
	})
	maps.DeleteFunc(c, func(_ *openapi3.Schema, ofItself bool) bool { return !ofItself })
	return c
}

// check returns an error if a schema is, or has, one that is composed of itself.
func (c composition) check(schema *openapi3.SchemaRef) error {
	if len(c) == 0 {
		return nil // as in nearly every document
	}
	return schema.WalkSubtree(func(_ string, ref *openapi3.SchemaRef) error {
		if c[ref.Value] {
			return fmt.Errorf("a schema (%s) is composed of itself by allOf, anyOf, oneOf, not or if: no value can be decoded by it; let it contain itself in a property or in items", cmp.Or(ref.Ref, "without a name"))
		}
		return nil
	})
}

// decodedBy returns the schemas that the validator decodes by, of parameters and of forms. JSON it decodes without, and where
// it then judges it does come to an end.
func decodedBy(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.SchemaRef) {
	for _, p := range parameters(item, spec) {
		all = append(all, p.Schema)
	}
	if spec.RequestBody != nil && spec.RequestBody.Value != nil {
		for name, media := range spec.RequestBody.Value.Content {
			if media != nil && !isJSON(name) {
				all = append(all, media.Schema)
			}
		}
	}
	return slices.DeleteFunc(all, func(s *openapi3.SchemaRef) bool { return s == nil || s.Value == nil })
}

// composing returns the schemas by which a schema has the same value judged.
func composing(s *openapi3.Schema) openapi3.SchemaRefs {
	parts := slices.Concat(s.AllOf, s.AnyOf, s.OneOf, openapi3.SchemaRefs{s.Not, s.If, s.Then, s.Else})
	for _, part := range s.DependentSchemas {
		parts = append(parts, part)
	}
	return parts
}

// arePlain reports whether the quick way and the whole way judge all of what an operation takes alike.
func (known judgements) arePlain(w *way) bool {
	parameter, body := plain{}, plain{body: true} // each its own: they may share a schema
	for _, p := range w.parameters {
		if p.Schema == nil || !known.of(p.Schema).builtIn && !parameter.schema(p.Schema) {
			return false
		}
	}
	if w.body == nil {
		return true
	}
	for mediaType, media := range w.body.Content {
		if media == nil || media.Schema == nil || !known.of(media.Schema).builtIn && (!isJSON(mediaType) || !body.schema(media.Schema)) {
			return false
		}
	}
	return true
}

// plain walks the schemas of an operation: of its parameters, or of its body.
type plain struct {
	body bool // not those of parameters
	seen []*openapi3.Schema
}

// plainKeywords are the fields of a schema that both ways judge alike, as schema looks at them, or that judge nothing.
var plainKeywords = map[string]bool{
	"Type": true, "Enum": true, "Default": true, "Format": true, "Pattern": true,
	"MinLength": true, "MaxLength": true, "Min": true, "Max": true, "ExclusiveMin": true, "ExclusiveMax": true,
	"Items": true, "MinItems": true, "MaxItems": true,
	"Properties": true, "Required": true, "MinProps": true, "MaxProps": true, "AdditionalProperties": true,
	"AllOf": true, "Extensions": true,
	"Origin": true, "Title": true, "Description": true, "Comment": true, "Example": true, "Examples": true,
	"ExternalDocs": true, "Deprecated": true,
}

func (p *plain) schema(ref *openapi3.SchemaRef) bool {
	if ref == nil {
		return true
	}
	s := ref.Value
	if s == nil {
		return false
	}
	if slices.Contains(p.seen, s) {
		return true
	}
	p.seen = append(p.seen, s)

	fields := reflect.ValueOf(s).Elem()
	for i := range fields.NumField() {
		if !fields.Field(i).IsZero() && !plainKeywords[fields.Type().Field(i).Name] {
			return false
		}
	}
	for name := range s.Extensions {
		if !strings.HasPrefix(name, "x-") { // a keyword that the library does not know
			return false
		}
	}
	// Without a type the quick way refuses null. A composed schema has the types of its parts.
	if s.Type == nil && len(s.AllOf) == 0 {
		return false
	}
	// An empty list of types, which no schema should have, it takes for none at all; the whole way for any.
	if s.Type != nil && len(*s.Type) == 0 {
		return false
	}
	// The quick way puts defaults into a body, and takes a required member for given then.
	if p.body && s.Default != nil {
		return false
	}
	// It lets null pass an enum, and compares numbers by float64, where the whole way compares exactly.
	for _, value := range s.Enum {
		if _, ok := value.(string); !ok || !s.Type.Is("string") {
			return false
		}
	}
	// It holds a number to a format by the type of the schema, where the whole way goes by that of the value.
	if s.Format != "" && s.Format != "float" && s.Format != "double" && (s.Type == nil || s.Type.Includes("number")) {
		return false
	}
	if !p.bounds(s) {
		return false
	}
	for _, member := range s.Properties {
		if !p.schema(member) {
			return false
		}
	}
	for _, part := range s.AllOf {
		if !p.schema(part) {
			return false
		}
	}
	return p.schema(s.Items) && p.schema(s.AdditionalProperties.Schema)
}

// bounds: the quick way compares by float64, the whole way exactly. A number of a parameter is a float64 anyway, or an
// integer, which is compared alike with what is less than the first that a float64 cannot hold. A number of a body is
// compared as it was written.
func (p *plain) bounds(s *openapi3.Schema) bool {
	if s.ExclusiveMin.Bool != nil || s.ExclusiveMax.Bool != nil { // the form of 3.0
		return false
	}
	for _, bound := range []*float64{s.Min, s.Max, s.ExclusiveMin.Value, s.ExclusiveMax.Value} {
		if bound == nil {
			continue
		}
		if math.Abs(*bound) >= 1<<53 || p.body && (s.Type == nil || s.Type.Includes("number") || *bound != math.Trunc(*bound)) {
			return false
		}
	}
	return true
}

// numbers says how dear the numbers of a JSON text are to judge.
type numbers int

const (
	plainNumbers numbers = iota // a float64 keeps all their digits
	longNumbers                 // some have more digits, or an exponent: they go the whole way
	hugeNumbers                 // no program means them, and the whole way makes exact fractions of them (RFC 7493 §2.2)
)

// numbersOf finds the dearest numbers of a JSON text. Of 1e999999 the validator makes a fraction in tens of
// milliseconds, of a million digits in seconds, and over 1e1000001 it panics.
func numbersOf(text []byte) numbers {
	dearest := plainNumbers
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '0' <= c && c <= '9':
			rest := bytes.TrimLeft(text[i:], "0123456789+-.eE")
			number := text[i : len(text)-len(rest)]
			dearest = max(dearest, numberOf(number))
			i += len(number) - 1
		}
	}
	return dearest
}

// numberOf judges one number, without its sign.
func numberOf(number []byte) numbers {
	const mostBytes, mostExponent = 100, 308 // as of a float64
	if len(number) > mostBytes {
		return hugeNumbers
	}
	e := bytes.IndexAny(number, "eE")
	if e < 0 {
		if len(number) > 15 {
			return longNumbers
		}
		return plainNumbers
	}
	if power, err := strconv.Atoi(string(number[e+1:])); err != nil || power > mostExponent || power < -mostExponent {
		return hugeNumbers
	}
	return longNumbers
}

func isJSON(mediaType string) bool {
	mediaType, _, _ = strings.Cut(strings.ToLower(mediaType), ";")
	mediaType = strings.TrimSpace(mediaType)
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")
}
