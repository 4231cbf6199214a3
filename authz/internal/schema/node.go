package schema

// node is a compiled schema. A nil node, where one may be missing, is a keyword that is not there.
type node struct {
	name  string // of the component; "" of a schema that is none
	size  int    // how many keywords there are
	never bool   // false, or not: {}

	kinds   kind // anyKind without type
	integer bool // of numbers only the integers

	values []*valueSet // enum and const

	minimum, maximum *bound
	multipleOf       *decimal

	minLength, maxLength int // -1: no maximum
	pattern              *pattern
	format               *format
	binary               bool // format: binary, or a contentMediaType: a file as a part of a form

	prefixItems              []*node
	items                    *node
	contains                 *node
	minContains, maxContains int // -1: no maximum
	minItems, maxItems       int
	uniqueItems              bool

	properties         map[string]*property
	few                []*property // the same, where there are so few that a loop is faster
	patternProperties  []patternProperty
	additional         *node
	propertyNames      *node
	required           []string
	loose              []string // those of required that properties does not name
	minProps, maxProps int
	dependentRequired  []dependency
	dependentSchemas   []dependentSchema
	// folded are the properties by their folded names, as encoding/json would find them; nil where
	// generated code looks at names as they are.
	folded map[string]*property

	allOf               []*node // and what $ref refers to, where it has siblings
	anyOf, oneOf        *union
	not                 *node
	condition           *node // if
	then, otherwise     *node
	composed            bool  // it has any of the keywords above, or dependentSchemas
	unevaluated         *node // unevaluatedProperties
	unevaluatedElements *node // unevaluatedItems
}

// newNode returns a node that accepts everything.
func newNode(name string) *node {
	return &node{
		name: name, kinds: anyKind, maxLength: -1, maxItems: -1, maxProps: -1, minContains: 1,
		maxContains: -1,
	}
}

// trivial reports whether the node accepts every value.
func (n *node) trivial() bool { return n == nil || n.size == 0 && !n.never }

// property returns the property of a name; nil for none.
func (n *node) property(name []byte) *property {
	for _, p := range n.few {
		if string(name) == p.name {
			return p
		}
	}
	if n.few != nil {
		return nil
	}
	return n.properties[string(name)]
}

// foldProperties has members dropped that encoding/json takes for a property, by their folded
// names.
func (n *node) foldProperties() {
	n.folded = make(map[string]*property, len(n.properties))
	for name, p := range n.properties {
		n.folded[string(fold(nil, []byte(name)))] = p
	}
}

type bound struct {
	value     *decimal
	exclusive bool
}

type property struct {
	name     string
	schema   *node
	required bool
	bit      uint64 // of its own, of the first 64 of a schema; 0 of others
	// hidden: readOnly in a request, writeOnly in a response.
	hidden bool
	// spelling is shared by all names of the document that encoding/json would take for one.
	spelling *spelling
}

// spelling is a folded name, and whether the document has it in several spellings.
type spelling struct {
	name    string
	several bool
}

type patternProperty struct {
	pattern *pattern
	schema  *node
}

type dependency struct {
	name     string
	required []string
	// bit is that of the name, and bits those of all names. They are 0 where one has none.
	bit, bits uint64
}

// newDependency returns a dependency between members, which the bits of the properties decide where
// they can.
func (n *node) newDependency(name string, required []string) dependency {
	d := dependency{name: name, required: required}
	for _, other := range append([]string{name}, required...) {
		p := n.properties[other]
		if p == nil || p.bit == 0 {
			return dependency{name: name, required: required}
		}
		d.bits |= p.bit
	}
	d.bit = n.properties[name].bit
	return d
}

// holds reports whether it is certain that an object with these properties keeps the dependency.
func (d *dependency) holds(seen uint64) bool {
	return d.bits != 0 && (seen&d.bit == 0 || seen&d.bits == d.bits)
}

type dependentSchema struct {
	name   string
	schema *node
}
