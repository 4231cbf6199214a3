package schema

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// Options configure a [Compiler].
type Options struct {
	// IgnoreFormats names formats that are not asserted.
	IgnoreFormats []string
	// RefuseReadOnly refuses requests that contain a readOnly member. By default, such members are
	// removed before the handler runs: OpenAPI only says that they SHOULD NOT be sent, and clients
	// often send back a whole object that they have read.
	RefuseReadOnly bool
	// DenyUndecoded refuses bodies of media types without a decoder whose schema requires more than
	// bytes or text, if the operation has other media types. By default they are faults.
	DenyUndecoded bool
	// Responses compiles for responses: writeOnly takes the place of readOnly.
	Responses bool
	// PatternTimeout bounds the time for matching patterns on one value, and PatternBudget the
	// total time for one request. Defaults: 100 ms and 500 ms.
	PatternTimeout, PatternBudget time.Duration
}

// Compiler compiles the schemas of one document. It is not safe for concurrent use, but its results
// are.
type Compiler struct {
	doc       *openapi3.T
	options   Options
	old       bool // OpenAPI 3.0
	nodes     map[key]*node
	shapes    map[*node]*shape
	patterns  map[string]*pattern
	anchors   map[string][]*openapi3.Schema
	spellings map[string]*spelling
	unions    []*union
	fresh     []*node // compiled since the last check for schemas composed of themselves
	faults    []error
	names     map[*openapi3.Schema]string // of components
	oneFile   bool                        // no $ref leads to another file
	place     []string                    // of the schema that is being compiled
	// NullConsts are the known locations of const: null. Lint uses them.
	NullConsts []*openapi3.Location
	// Extended are the schemas of the document that have extensions, in no particular order.
	Extended []*openapi3.Schema
}

// key identifies a compiled schema. names are the members that an enclosing schema makes readOnly,
// which changes the meaning of required.
type key struct {
	schema *openapi3.Schema
	names  string
}

// NewCompiler returns a compiler for the schemas of a loaded document. The document should be
// loaded with IncludeOrigin: without it, const: null looks like a missing const.
func NewCompiler(doc *openapi3.T, options Options) *Compiler {
	c := &Compiler{
		doc: doc, options: options, old: strings.HasPrefix(doc.OpenAPI, "3.0"),
		nodes: map[key]*node{}, shapes: map[*node]*shape{},
		names:    map[*openapi3.Schema]string{},
		patterns: map[string]*pattern{}, anchors: map[string][]*openapi3.Schema{},
		spellings: map[string]*spelling{},
	}
	if doc.Components != nil {
		for name, ref := range doc.Components.Schemas {
			if ref != nil && ref.Ref == "" && ref.Value != nil {
				c.names[ref.Value] = name
			}
		}
	}
	c.oneFile = true
	walk(doc, func(ref *openapi3.SchemaRef) {
		c.oneFile = c.oneFile && (ref.Ref == "" || ref.Ref[0] == '#')
		if len(ref.Value.Extensions) > 0 {
			c.Extended = append(c.Extended, ref.Value)
		}
		if ref.Ref == "" {
			for _, name := range []string{ref.Value.Anchor, ref.Value.DynamicAnchor} {
				if name != "" && !slices.Contains(c.anchors[name], ref.Value) {
					c.anchors[name] = append(c.anchors[name], ref.Value)
				}
			}
		}
	})
	return c
}

// Schema compiles a schema. The error joins all faults, each with its location.
func (c *Compiler) Schema(ref *openapi3.SchemaRef) (*Schema, error) {
	n, err := c.schema(ref, "")
	if err != nil {
		return nil, err
	}
	return &Schema{root: n, options: c.options}, nil
}

func (c *Compiler) schema(ref *openapi3.SchemaRef, place string) (*node, error) {
	c.faults, c.place = nil, nil
	if place != "" {
		c.place = append(c.place, place)
	}
	n := c.reference(ref, nil)
	for _, u := range c.unions {
		u.prepare()
	}
	c.unions = nil
	for _, fresh := range c.fresh {
		if fresh.composes(fresh, map[*node]bool{}) {
			c.fault("%s is composed of itself, so validation would not terminate (JSON Schema "+
				"§9.4.1)",
				cmp.Or(fresh.name, "a schema"))
			break
		}
	}
	c.fresh = nil
	return n, errors.Join(c.faults...)
}

// composes reports whether a node applies another node to the same value.
func (n *node) composes(other *node, seen map[*node]bool) bool {
	all := append(parts(n), n.not, n.condition)
	for _, d := range n.dependentSchemas {
		all = append(all, d.schema)
	}
	for _, part := range all {
		if part == nil || seen[part] {
			continue
		}
		if seen[part] = true; part == other || part.composes(other, seen) {
			return true
		}
	}
	return false
}

func (c *Compiler) fault(format string, args ...any) {
	at := ""
	if len(c.place) > 0 {
		at = strings.Join(c.place, ".") + ": "
	}
	c.faults = append(c.faults, fmt.Errorf("schema %s%s", at, fmt.Sprintf(format, args...)))
}

// in compiles a subschema, with its name for error messages.
func (c *Compiler) in(name string, ref *openapi3.SchemaRef, hidden []string) *node {
	if ref == nil {
		return nil
	}
	c.place = append(c.place, name)
	n := c.reference(ref, hidden)
	c.place = c.place[:len(c.place)-1]
	return n
}

func (c *Compiler) list(name string, refs openapi3.SchemaRefs, hidden []string) (all []*node) {
	for i, ref := range refs {
		if ref != nil {
			all = append(all, c.in(fmt.Sprintf("%s[%d]", name, i), ref, hidden))
		}
	}
	return all
}

// reference compiles a schema or the target of a $ref. hidden are the members that an enclosing
// schema makes readOnly.
func (c *Compiler) reference(ref *openapi3.SchemaRef, hidden []string) *node {
	if ref.Value == nil {
		c.fault("$ref %q is not resolved: load the document with all of its files", ref.Ref)
		return newNode("")
	}
	if ref.Ref == "" {
		return c.compile(ref.Value, source{schema: ref.Value, name: c.names[ref.Value]}, hidden)
	}
	name := componentName(ref.Ref)
	// OpenAPI 3.0 ignores siblings of $ref
	if beside, found := siblings(ref); found && !c.old {
		beside.name = name
		return c.compile(ref.Value, beside, hidden)
	}
	if name != "" && c.oneFile && c.doc.Components != nil {
		component := c.doc.Components.Schemas[name]
		if component != nil && component != ref && component.Ref != "" {
			// the siblings of that $ref are handled there
			return c.in("$ref "+name, component, hidden)
		}
	}
	return c.compile(ref.Value, source{schema: ref.Value, name: name}, hidden)
}

// source is a schema to compile.
type source struct {
	schema    *openapi3.Schema
	name      string
	nullConst bool // const: null, which kin-openapi reads as a missing const
}

// isNullConst reports whether a schema has const: null, and where. Only the origin shows it.
func isNullConst(schema *openapi3.Schema) (bool, *openapi3.Location) {
	if schema.Const != nil || schema.Origin == nil {
		return false, nil
	}
	at, found := schema.Origin.Fields.Lookup("const")
	return found, &at
}

// annotations are the siblings of $ref by which kin-openapi replaces keywords of the target. They
// assert nothing.
var annotations = map[string]bool{
	"$ref": true, "$comment": true, "allowEmptyValue": true, "default": true, "deprecated": true,
	"description": true, "discriminator": true, "example": true, "examples": true,
	"externalDocs": true, "nullable": true, "readOnly": true, "summary": true, "title": true,
	"writeOnly": true, "xml": true,
}

// siblings returns the target of a $ref and a schema of its asserting siblings, if it has any.
// kin-openapi appends the siblings to allOf in a copy of the target, which changes the meaning of
// unevaluatedProperties, so siblings separates the two again.
func siblings(ref *openapi3.SchemaRef) (source, bool) {
	written, _ := ref.MarshalYAML()
	keywords, _ := written.(map[string]any)
	asserts := false
	for name := range keywords {
		asserts = asserts || !annotations[name] && !strings.HasPrefix(name, "x-")
	}
	if !asserts || ref.Value == nil {
		return source{}, false
	}
	target, all := *ref.Value, openapi3.Schema{}
	if n := len(target.AllOf); n > 0 && isAppended(target.AllOf[n-1], keywords) {
		all = *target.AllOf[n-1].Value
		target.AllOf = target.AllOf[:n-1]
	} else { // kin-openapi ignores these, and has appended nothing
		all.Not, _ = keywords["not"].(*openapi3.SchemaRef)
		if list, ok := keywords["enum"].([]any); ok {
			all.Enum = list
		}
	}
	all.AllOf = append(openapi3.SchemaRefs{{Value: &target}}, all.AllOf...)
	all.ReadOnly, all.WriteOnly = target.ReadOnly, target.WriteOnly
	constant, found := keywords["const"]
	return source{schema: &all, nullConst: found && constant == nil}, true
}

func isAppended(last *openapi3.SchemaRef, keywords map[string]any) bool {
	if last.Ref != "" || last.Value == nil {
		return false
	}
	written, _ := last.Value.MarshalYAML()
	appended, ok := written.(map[string]any)
	for name := range appended {
		if _, found := keywords[name]; !found {
			return false
		}
	}
	return ok
}

func componentName(ref string) string {
	name, found := strings.CutPrefix(ref, "#/components/schemas/")
	if !found || strings.Contains(name, "/") {
		return ""
	}
	return strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
}

// compile compiles a schema once for each relevant set of hidden members. id identifies the schema
// even if source is derived from it.
func (c *Compiler) compile(id *openapi3.Schema, from source, hidden []string) *node {
	s := from.schema
	hidden = slices.DeleteFunc(slices.Clone(hidden), func(name string) bool {
		return !requires(s, name, map[*openapi3.Schema]bool{})
	})
	k := key{id, strings.Join(hidden, "\x00")}
	if n := c.nodes[k]; n != nil {
		return n
	}
	n := newNode(from.name)
	c.fresh = append(c.fresh, n)
	c.nodes[k] = n // before its subschemas: it may contain itself
	if s.Always != nil {
		n.never = !*s.Always
		return n
	}
	c.refuse(s)
	c.types(n, s)
	c.values(n, from)
	c.numbers(n, s)
	c.strings(n, s)
	c.arrays(n, s)
	hidden = append(hidden, c.hiddenMembers(s, map[*openapi3.Schema]bool{})...)
	slices.Sort(hidden)
	hidden = slices.Compact(hidden)
	c.objects(n, s, hidden)
	c.applicators(n, s, hidden)
	return n
}

// refuse reports keywords that cannot be compiled.
func (c *Compiler) refuse(s *openapi3.Schema) {
	if s.SchemaID != "" && s.SchemaID[0] != '#' && !c.old {
		c.fault("$id %q: relative references are not resolved against it: write them "+
			"from the root of the document, and remove $id", s.SchemaID)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Extensions)) {
		// JSON Schema used the name definitions before 2019-09.
		if !strings.HasPrefix(name, "x-") && name != "definitions" {
			c.fault("%q is not a keyword, so it is not enforced: is it misspelt? "+
				"The name of an extension begins with x-", name)
		}
	}
	switch strings.TrimSuffix(s.SchemaDialect, "#") {
	case "", "https://json-schema.org/draft/2020-12/schema", "https://spec.openapis.org/oas/3.1/dialect/base":
	default:
		c.fault("$schema %q is not a supported dialect: use JSON Schema 2020-12",
			s.SchemaDialect)
	}
}

func (c *Compiler) types(n *node, s *openapi3.Schema) {
	if s.Type == nil {
		return
	}
	n.kinds, n.integer, n.size = 0, true, n.size+1
	for _, name := range *s.Type {
		switch name {
		case "null":
			n.kinds |= kindNull
		case "boolean":
			n.kinds |= kindBoolean
		case "integer":
			n.kinds |= kindNumber
		case "number":
			n.kinds |= kindNumber
			n.integer = false
		case "string":
			n.kinds |= kindString
		case "array":
			n.kinds |= kindArray
		case "object":
			n.kinds |= kindObject
		default:
			c.fault("type %q is not a type of JSON", name)
		}
	}
	n.integer = n.integer && n.kinds&kindNumber != 0
	if len(*s.Type) == 0 {
		c.fault("type is an empty list: name a type, or leave it out")
	}
	if s.Nullable && c.old {
		n.kinds |= kindNull
	}
}

func (c *Compiler) values(n *node, from source) {
	s := from.schema
	add := func(keyword string, list []any) {
		set, err := newValueSet(keyword, list)
		if err != nil {
			c.fault("%v", err)
			return
		}
		n.values = append(n.values, set)
		n.size++
	}
	if s.Enum != nil {
		add("enum", s.Enum)
	}
	null, at := isNullConst(s)
	if null || from.nullConst {
		c.NullConsts = append(c.NullConsts, at)
	}
	if s.Const != nil || null || from.nullConst {
		add("const", []any{s.Const})
	}
}

func (c *Compiler) numbers(n *node, s *openapi3.Schema) {
	limit := func(inclusive *float64, exclusive openapi3.ExclusiveBound, tighter int) *bound {
		var b *bound
		if inclusive != nil {
			b = &bound{decimalOf(*inclusive), exclusive.IsTrue()}
		}
		if exclusive.Value != nil {
			e := decimalOf(*exclusive.Value)
			if b == nil || e.compare(b.value) != -tighter {
				b = &bound{e, true}
			}
		}
		if b != nil {
			n.size++
		}
		return b
	}
	n.minimum = limit(s.Min, s.ExclusiveMin, 1)
	n.maximum = limit(s.Max, s.ExclusiveMax, -1)
	if s.MultipleOf != nil {
		n.size++
		n.multipleOf = decimalOf(*s.MultipleOf)
		if *s.MultipleOf <= 0 {
			c.fault("multipleOf is %v: expected a number greater than 0", *s.MultipleOf)
		}
	}
}

// limit returns a number of the document as an int, or -1 if it is missing.
func limit(n *uint64) int {
	if n == nil {
		return -1
	}
	return int(min(*n, math.MaxInt32))
}

func (c *Compiler) strings(n *node, s *openapi3.Schema) {
	n.minLength, n.maxLength = limit(&s.MinLength), limit(s.MaxLength)
	if n.minLength > 0 || n.maxLength >= 0 {
		n.size++
	}
	n.binary = s.Format == "binary" || s.ContentMediaType != "" && s.ContentEncoding == ""
	if s.Pattern != "" {
		n.size++
		n.pattern = c.pattern(s.Pattern, n.maxLength)
	}
	if f := formats[s.Format]; f != nil && !slices.Contains(c.options.IgnoreFormats, s.Format) {
		n.size++
		n.format = f
	}
}

func (c *Compiler) pattern(text string, maxLength int) *pattern {
	k := fmt.Sprint(maxLength, " ", text)
	p := c.patterns[k]
	if p == nil {
		var err error
		if p, err = compilePattern(text, maxLength, c.options); err != nil {
			c.fault("pattern %s: %v", text, err)
			p = &pattern{}
		}
		c.patterns[k] = p
	}
	return p
}

func (c *Compiler) arrays(n *node, s *openapi3.Schema) {
	n.minItems, n.maxItems, n.uniqueItems = limit(&s.MinItems), limit(s.MaxItems), s.UniqueItems
	n.prefixItems = c.list("prefixItems", s.PrefixItems, nil)
	n.items = c.in("items", s.Items, nil)
	if n.contains = c.in("contains", s.Contains, nil); n.contains != nil {
		if s.MinContains != nil {
			n.minContains = limit(s.MinContains)
		}
		n.maxContains = limit(s.MaxContains)
	}
	if n.minItems > 0 || n.maxItems >= 0 || n.uniqueItems || n.prefixItems != nil ||
		n.items != nil || n.contains != nil {
		n.size++
	}
}

// either compiles a keyword whose value is a boolean or a schema.
func (c *Compiler) either(name string, b openapi3.BoolSchema) *node {
	if b.Has != nil {
		n := newNode("")
		n.never = !*b.Has
		return n
	}
	return c.in(name, b.Schema, nil)
}

func (c *Compiler) objects(n *node, s *openapi3.Schema, hidden []string) {
	n.minProps, n.maxProps = limit(&s.MinProps), limit(s.MaxProps)
	n.additional = c.either("additionalProperties", s.AdditionalProperties)
	n.propertyNames = c.in("propertyNames", s.PropertyNames, nil)
	if len(s.Properties) > 0 {
		n.properties = make(map[string]*property, len(s.Properties))
	}
	// With additional properties, generated code compares names exactly.
	exact := n.additional != nil && !n.additional.never
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		ref := s.Properties[name]
		if ref == nil {
			continue
		}
		p := &property{name: name, schema: c.in(name, ref, nil), spelling: c.spelling(name)}
		p.hidden = c.isHidden(ref)
		n.properties[name] = p
		if len(s.Properties) <= 10 {
			n.few = append(n.few, p)
		}
	}
	if !exact && n.properties != nil {
		n.foldProperties()
	}
	for _, expression := range slices.Sorted(maps.Keys(s.PatternProperties)) {
		n.patternProperties = append(n.patternProperties, patternProperty{
			c.pattern(expression, -1), c.in(expression, s.PatternProperties[expression], nil),
		})
	}
	n.others = n.propertyNames != nil || n.patternProperties != nil ||
		n.additional != nil
	for _, name := range s.Required {
		if slices.Contains(hidden, name) || slices.Contains(n.required, name) {
			continue
		}
		n.required = append(n.required, name)
		n.mention(name).required = true
	}
	n.giveBits(s)
	for _, name := range slices.Sorted(maps.Keys(s.DependentRequired)) {
		needs := slices.DeleteFunc(slices.Clone(s.DependentRequired[name]),
			func(other string) bool {
				return slices.Contains(hidden, other)
			})
		n.dependentRequired = append(n.dependentRequired, n.newDependency(name, needs))
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependentSchemas)) {
		n.dependentSchemas = append(n.dependentSchemas, dependentSchema{
			name, c.in("dependentSchemas."+name, s.DependentSchemas[name], hidden),
			n.mention(name).bit,
		})
	}
	if n.minProps > 0 || n.maxProps >= 0 || n.additional != nil || n.propertyNames != nil ||
		n.properties != nil || n.patternProperties != nil || n.required != nil ||
		n.dependentRequired != nil || n.dependentSchemas != nil {
		n.size++
	}
}

// mention returns the property with a name, and adds one if the schema does not declare it.
func (n *node) mention(name string) *property {
	p := n.named([]byte(name))
	if p == nil {
		p = &property{name: name}
		if n.mentioned == nil {
			n.mentioned = map[string]*property{}
		}
		n.mentioned[name] = p
	}
	return p
}

// giveBits gives bits to the names of dependencies, and to as many properties as possible.
func (n *node) giveBits(s *openapi3.Schema) {
	given := 0
	give := func(p *property) {
		if p.bit == 0 {
			p.bit = 1 << given // 0 from 64 on
			given++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependentSchemas)) {
		give(n.mention(name))
	}
	for _, name := range slices.Sorted(maps.Keys(s.DependentRequired)) {
		give(n.mention(name))
		for _, other := range s.DependentRequired[name] {
			give(n.mention(other))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.properties)) {
		give(n.properties[name])
	}
}

func (c *Compiler) spelling(name string) *spelling {
	folded := string(fold(nil, []byte(name)))
	known := c.spellings[folded]
	if known == nil {
		known = &spelling{name: name}
		c.spellings[folded] = known
	}
	known.several = known.several || known.name != name
	return known
}

func (c *Compiler) applicators(n *node, s *openapi3.Schema, hidden []string) {
	n.allOf = c.list("allOf", s.AllOf, hidden)
	n.anyOf = c.union("anyOf", s.AnyOf, s.Discriminator, hidden)
	n.oneOf = c.union("oneOf", s.OneOf, s.Discriminator, hidden)
	n.not = c.in("not", s.Not, hidden)
	if s.If != nil {
		n.condition = c.in("if", s.If, hidden)
		n.then, n.otherwise = c.in("then", s.Then, hidden), c.in("else", s.Else, hidden)
	}
	n.unevaluated = c.either("unevaluatedProperties", s.UnevaluatedProperties)
	n.unevaluatedElements = c.either("unevaluatedItems", s.UnevaluatedItems)
	if s.DynamicRef != "" {
		n.allOf = append(n.allOf, c.dynamic(s.DynamicRef, hidden))
	}
	n.composed = n.allOf != nil || n.anyOf != nil || n.oneOf != nil || n.not != nil ||
		n.condition != nil || n.dependentSchemas != nil
	n.layered = n.composed || n.unevaluated != nil || n.unevaluatedElements != nil
	if n.layered {
		n.size++
	}
}

// dynamic compiles a $dynamicRef. If the document has one anchor of that name, it is equivalent to
// $ref; if it has more, the target depends on the dynamic scope.
func (c *Compiler) dynamic(ref string, hidden []string) *node {
	name, local := strings.CutPrefix(ref, "#")
	if targets := c.anchors[name]; local && len(targets) == 1 {
		return c.in("$dynamicRef", &openapi3.SchemaRef{Value: targets[0]}, hidden)
	}
	c.fault("$dynamicRef %q cannot be enforced: expected one $dynamicAnchor of that name in the "+
		"document, there are %d; use $ref", ref, len(c.anchors[name]))
	return newNode("")
}

func (c *Compiler) union(
	keyword string, refs openapi3.SchemaRefs, d *openapi3.Discriminator, hidden []string,
) *union {
	if len(refs) == 0 {
		return nil
	}
	u := &union{keyword: keyword, one: keyword == "oneOf", branches: c.list(keyword, refs, hidden)}
	c.unions = append(c.unions, u)
	if d == nil {
		return u
	}
	u.discriminator = d.PropertyName
	u.mapping = map[string]int{}
	for i, ref := range refs {
		if name := lastSegment(ref.Ref); ref.Ref != "" && name != "" {
			u.mapping[name] = i
		}
	}
	for text, to := range d.Mapping {
		i := slices.IndexFunc(refs, func(ref *openapi3.SchemaRef) bool {
			return ref.Ref != "" && (ref.Ref == to.Ref || lastSegment(ref.Ref) == to.Ref)
		})
		if i < 0 {
			c.fault("the discriminator maps %s to %s, which %s does not list", text, to.Ref,
				keyword)
			continue
		}
		u.mapping[text] = i
	}
	return u
}

func lastSegment(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }
