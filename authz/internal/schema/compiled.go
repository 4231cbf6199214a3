package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// What the quick way may not judge goes the whole way, but for its price: its schemas are compiled once, at start, to
// what the validator makes of them on every request. The validator still decodes parameters and bodies, by schemas that
// stand in for those of the document, and the compiled ones judge what it has decoded. Tests compare the outcomes with
// those of the validator by itself.

// judgement says who judges the values of a schema as the validator would. If it names nobody, only the validator does.
type judgement struct {
	fault error // of the schema: nothing would enforce it whole
	// builtIn: the quick way. The validator itself takes it for a schema that refers to others and uses none of the newer
	// keywords, once it has compiled it.
	builtIn  bool
	compiled *jsonschema.Schema
}

// judge finds out how the validator judges a schema, by a value that JSON does not have: its quick way refuses NaN at
// once, and in its own words.
func judge(schema *openapi3.SchemaRef) (j judgement) {
	err := schema.Value.VisitJSON(math.NaN(), openapi3.EnableJSONSchema2020())
	var refused *jsonschema.ValidationError
	if err == nil || errors.As(err, &refused) { // it has been compiled, and judges
		if compiled, err := compileSchema(schema.Value); err == nil {
			j.compiled = compiled
		}
		return j
	}
	j.fault = unenforceable(schema)
	j.builtIn = errors.Is(err, openapi3.ErrSchemaInputNaN) && !hasNullable(schema)
	if j.fault == nil && isBeyondQuick(schema) {
		j.fault = errors.New("a schema does not compile together with the components that it refers to, so that its newer keywords would be passed over; does it use $dynamicRef, or $defs of its own?")
	}
	return j
}

// isBeyondQuick finds the keywords that the quick way knows nothing of.
func isBeyondQuick(schema *openapi3.SchemaRef) bool {
	return schema.WalkSubtree(func(_ string, ref *openapi3.SchemaRef) error {
		s := ref.Value
		if s.DynamicRef != "" || s.Const != nil || s.PrefixItems != nil || s.Contains != nil || s.PatternProperties != nil || s.DependentSchemas != nil ||
			s.PropertyNames != nil || s.If != nil || s.Then != nil || s.Else != nil || s.DependentRequired != nil ||
			s.UnevaluatedItems.Has != nil || s.UnevaluatedItems.Schema != nil || s.UnevaluatedProperties.Has != nil || s.UnevaluatedProperties.Schema != nil {
			return errUnlike
		}
		return nil
	}) != nil
}

// hasNullable finds the keyword that the quick way goes by where it takes the document for one of 3.0, and only there.
func hasNullable(schema *openapi3.SchemaRef) bool {
	err := schema.WalkSubtree(func(_ string, s *openapi3.SchemaRef) error {
		if s.Value.Nullable {
			return errUnlike
		}
		return nil
	})
	return err != nil
}

// judgements are those of the schemas of a document, by the schema and by its text. Operations share schemas, and write
// the same ones: to compile one takes long.
type judgements map[any]judgement

func (known judgements) of(schema *openapi3.SchemaRef) judgement {
	if schema.Value == nil {
		return judgement{} // a broken reference: doc.Validate has said so
	}
	if j, ok := known[schema.Value]; ok {
		return j
	}
	var key any = schema.Value
	// What a reference means, its text alone does not say.
	if text, err := json.Marshal(schema.Value); err == nil && !strings.Contains(string(text), `"$ref"`) {
		key = string(text)
	}
	j, ok := known[key]
	if !ok {
		j = judge(schema)
	}
	known[key], known[schema.Value] = j, j
	return j
}

// compileSchema compiles a schema as the validator does: the schema itself, and each that it refers to under $defs.
func compileSchema(schema *openapi3.Schema) (*jsonschema.Schema, error) {
	const url = "https://schemas.invalid/schema.json"
	w := writer{compiler: jsonschema.NewCompiler(), ids: map[*openapi3.Schema]string{}, defs: map[string]any{}}
	w.compiler.DefaultDraft(jsonschema.Draft2020)
	w.compiler.AssertFormat()
	document, err := w.schema(schema)
	if err != nil {
		return nil, err
	}
	if root, ok := document.(map[string]any); ok && len(w.defs) > 0 {
		root["$defs"] = w.defs // those of its own can be reached by no reference that reference takes
	}
	if err := w.compiler.AddResource(url, document); err != nil {
		return nil, err
	}
	return w.compiler.Compile(url)
}

// errUnlike: what is written might not mean here what it means to the validator, which therefore judges it by itself.
var errUnlike = errors.New("a schema that is left to the validator")

// writer writes schemas of the document as JSON Schema.
type writer struct {
	compiler *jsonschema.Compiler
	ids      map[*openapi3.Schema]string
	defs     map[string]any // by id
}

func (w *writer) schema(schema *openapi3.Schema) (any, error) {
	if schema == nil {
		return nil, errUnlike // a broken reference: doc.Validate has said so
	}
	written, err := schema.MarshalYAML() // of this schema alone: those within are as they were loaded
	keywords, ok := written.(map[string]any)
	if err != nil || !ok { // true or false
		return written, err
	}
	if name, ok := keywords["format"].(string); ok {
		w.compiler.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(value any) error { return checkFormat(name, value) }})
	}
	for name, value := range keywords {
		if keywords[name], err = w.keyword(value); err != nil {
			return nil, err
		}
	}
	return keywords, nil
}

func (w *writer) keyword(value any) (_ any, err error) {
	switch value := value.(type) {
	case *openapi3.SchemaRef:
		return w.reference(value)
	case *openapi3.BoolSchema:
		if value.Has != nil {
			return *value.Has, nil
		}
		return w.reference(value.Schema)
	case openapi3.SchemaRefs:
		list := make([]any, len(value))
		for i, ref := range value {
			if list[i], err = w.reference(ref); err != nil {
				return nil, err
			}
		}
		return list, nil
	case openapi3.Schemas:
		members := map[string]any{}
		for name, ref := range value {
			if members[name], err = w.reference(ref); err != nil {
				return nil, err
			}
		}
		return members, nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var plain any
	return plain, json.Unmarshal(text, &plain)
}

func (w *writer) reference(ref *openapi3.SchemaRef) (any, error) {
	switch {
	case ref == nil:
		return nil, errUnlike
	case ref.Ref == "":
		return w.schema(ref.Value)
	}
	// What stands beside $ref and asserts something is no longer told from what it refers to.
	written, err := ref.MarshalYAML()
	beside, ok := written.(map[string]any)
	if err != nil || !ok || !strings.HasPrefix(ref.Ref, "#/components/schemas/") {
		return nil, errUnlike
	}
	for name := range beside {
		if !assertsNothing[name] && !strings.HasPrefix(name, "x-") {
			return nil, errUnlike
		}
	}
	id, known := w.ids[ref.Value]
	if !known {
		id = strconv.Itoa(len(w.ids))
		w.ids[ref.Value] = id // before it is written: it may contain itself
		if w.defs[id], err = w.schema(ref.Value); err != nil {
			return nil, err
		}
	}
	return map[string]any{"$ref": "#/$defs/" + id}, nil
}

// assertsNothing are the keywords that may stand beside $ref without a say in what is valid.
var assertsNothing = map[string]bool{
	"$ref": true, "$comment": true, "title": true, "description": true, "deprecated": true, "default": true, "example": true,
	"examples": true, "externalDocs": true, "readOnly": true, "writeOnly": true, "xml": true,
}

// checkFormat holds a value to the format of its schema, by the formats that the validator knows.
func checkFormat(name string, value any) error {
	var number float64
	switch value := value.(type) {
	case string:
		if format, ok := openapi3.SchemaStringFormats[name]; ok {
			return format.Validate(value)
		}
		return nil
	case json.Number:
		n, err := value.Float64()
		if err != nil {
			return nil // no float64 holds it
		}
		number = n
	case float64:
		number = value
	case int:
		number = float64(value)
	case int32:
		number = float64(value)
	case int64:
		number = float64(value)
	default:
		return nil
	}
	if format, ok := openapi3.SchemaIntegerFormats[name]; ok && number == math.Trunc(number) && !math.IsInf(number, 0) {
		return format.Validate(int64(number))
	}
	if format, ok := openapi3.SchemaNumberFormats[name]; ok {
		return format.Validate(number)
	}
	return nil
}

// standIn returns a schema that the validator decodes by as it does by the document's, and that has it hand over what
// it has decoded: one that refuses every value of a parameter, for the refusal holds it, or one that accepts every body,
// for the request then holds it.
func (c *Compiler) standIn(ref *openapi3.SchemaRef, accepts bool) *openapi3.SchemaRef {
	if ref == nil || ref.Value == nil {
		return ref
	}
	j := c.known.of(ref)
	if j.builtIn {
		return ref
	}
	schema := *ref.Value
	schema.Always = &accepts
	c.compiled[&schema] = j.compiled
	return &openapi3.SchemaRef{Value: &schema}
}

// standsIn reports whether a stand-in does what it is there for. Were a parameter's to accept a value, nobody would judge
// it.
func standsIn(accepts bool) bool {
	var refused *openapi3.SchemaError
	schema := &openapi3.Schema{Always: &accepts}
	err := schema.VisitJSON("a value")
	if accepts {
		return err == nil
	}
	return errors.As(err, &refused) && refused.Schema == schema && refused.Value == "a value"
}

// standIns returns content with schemas that stand in for its own.
func (c *Compiler) standIns(content openapi3.Content, accept bool) openapi3.Content {
	if content == nil {
		return nil
	}
	all := openapi3.Content{}
	for name, media := range content {
		if media != nil {
			copied := *media
			copied.Schema = c.standIn(media.Schema, accept)
			media = &copied
		}
		all[name] = media
	}
	return all
}

// judgeParameter judges the value of a parameter that a stand-in has refused. Every other error stays.
func (c *Compiler) judgeParameter(parameter *openapi3.Parameter, err error) error {
	var refused *openapi3.SchemaError
	if !errors.As(err, &refused) || c.compiled[refused.Schema] == nil {
		return err
	}
	if err := c.compiled[refused.Schema].Validate(refused.Value); err != nil {
		return &openapi3filter.RequestError{Parameter: parameter, Err: err}
	}
	return nil
}

// judgeBody judges a body that a stand-in has accepted.
func (c *Compiler) judgeBody(body *openapi3.RequestBody, input *openapi3filter.RequestValidationInput) error {
	media := body.Content.Get(input.Request.Header.Get("Content-Type"))
	if media == nil || media.Schema == nil || c.compiled[media.Schema.Value] == nil || input.Request.ContentLength == 0 {
		return nil // there is none, or the validator has judged it itself
	}
	kept, ok := input.Request.Body.(interface{ ValidatedValue() any })
	if !ok {
		return errors.New("the validator has not kept the value of a body")
	}
	if err := c.compiled[media.Schema.Value].Validate(kept.ValidatedValue()); err != nil {
		return &openapi3filter.RequestError{RequestBody: body, Err: err}
	}
	return nil
}

// broken returns the keyword of a schema that a value does not keep to, and the place of that value, as the validator
// reports them: those of the innermost error, as far as there is but one.
func broken(err *jsonschema.ValidationError) (keyword string, at []string) {
	for len(err.Causes) == 1 && isWrapper(err.ErrorKind) {
		err = err.Causes[0]
	}
	if path := err.ErrorKind.KeywordPath(); len(path) > 0 {
		keyword = path[len(path)-1]
	}
	return keyword, slices.Clone(err.InstanceLocation)
}

func isWrapper(k jsonschema.ErrorKind) bool {
	switch k.(type) {
	case *kind.Schema, *kind.Group, *kind.Reference:
		return true
	}
	return false
}

// requestSchemas returns those of everything that an operation takes.
func requestSchemas(item *openapi3.PathItem, spec *openapi3.Operation) (all []*openapi3.SchemaRef) {
	contents := []openapi3.Content{}
	for _, p := range parameters(item, spec) {
		all = append(all, p.Schema)
		contents = append(contents, p.Content)
	}
	if spec.RequestBody != nil && spec.RequestBody.Value != nil {
		contents = append(contents, spec.RequestBody.Value.Content)
	}
	for _, content := range contents {
		for _, media := range content {
			if media != nil {
				all = append(all, media.Schema)
			}
		}
	}
	return slices.DeleteFunc(all, func(s *openapi3.SchemaRef) bool { return s == nil || s.Value == nil })
}

// unenforceable reports why a schema of what an operation takes could not be enforced whole. On a schema that its JSON
// Schema compiler does not take, such as one with a pattern of another dialect, the validator falls back, without a
// word, on one that passes over const, patternProperties, if and other keywords of JSON Schema 2020-12.
func unenforceable(schema *openapi3.SchemaRef) error {
	// const refuses the value below unless it is passed over itself.
	probe := openapi3.Schema{Const: "one", Properties: openapi3.Schemas{"schema": {Value: schema.Value}}}
	err := probe.VisitJSON("another", openapi3.EnableJSONSchema2020())
	var refused *openapi3.SchemaError
	switch {
	case err == nil:
		return errors.New("a schema does not compile as JSON Schema 2020-12, so that its newer keywords would be passed over; is there a pattern with a lookahead, or with \\u where the character itself would do?")
	case !errors.As(err, &refused):
		return fmt.Errorf("a schema does not compile as JSON Schema 2020-12: %w", err)
	}
	return nil
}
