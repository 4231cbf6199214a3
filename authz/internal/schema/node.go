package schema

// node is a compiled schema. For optional keywords, nil means that the keyword is missing.
type node struct {
	name  string // of the component; "" if the schema is not a component
	size  int    // number of keywords
	never bool   // false, or not: {}

	kinds   kind // anyKind without type
	integer bool // numbers must be integers

	values []*valueSet // enum and const

	minimum, maximum *bound
	multipleOf       *decimal

	minLength, maxLength int // -1: no maximum
	pattern              *pattern
	format               *format
	binary               bool // format: binary, or a contentMediaType: a file in a form

	prefixItems              []*node
	items                    *node
	contains                 *node
	minContains, maxContains int // -1: no maximum
	minItems, maxItems       int
	uniqueItems              bool

	properties         properties
	patternProperties  []patternProperty
	additional         *node
	propertyNames      *node
	others             bool // one of the keywords above applies to members not in properties
	required           []string
	mentioned          properties // members that only required and the dependencies name
	minProps, maxProps int
	dependentRequired  []dependency
	dependentSchemas   []dependentSchema
	// folded are the properties by their folded names, as encoding/json matches them; nil if
	// generated code compares names exactly.
	folded        map[string]*property
	foldedLengths uint64 // a bit for each length of a folded name, the last one for all above

	allOf               []*node // including the target of a $ref with siblings
	anyOf, oneOf        *union
	not                 *node
	condition           *node // if
	then, otherwise     *node
	composed            bool  // has any of the keywords above, or dependentSchemas
	layered             bool  // composed, or one of the keywords below
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

// properties are properties by name.
type properties struct {
	all map[string]*property
	few []*property // the same, if there are so few that a loop is faster
}

func (ps *properties) add(p *property) {
	const most = 10 // measured
	if ps.all == nil {
		ps.all = map[string]*property{}
	}
	ps.all[p.name] = p
	if ps.few = append(ps.few, p); len(ps.all) > most {
		ps.few = nil
	}
}

// find returns the property with a name, or nil.
func (ps *properties) find(name []byte) *property {
	for _, p := range ps.few {
		if string(name) == p.name {
			return p
		}
	}
	if ps.few != nil {
		return nil
	}
	return ps.all[string(name)]
}

// foldProperties makes the node drop members that encoding/json would match to a property by their
// folded names.
func (n *node) foldProperties() {
	n.folded = make(map[string]*property, len(n.properties.all))
	for name, p := range n.properties.all {
		folded := fold(nil, []byte(name))
		n.folded[string(folded)] = p
		n.foldedLengths |= 1 << min(len(folded), 63)
	}
}

// mayFold reports whether a name may match a property by its folded name. Most names have other
// lengths.
func (n *node) mayFold(name []byte) bool {
	return n.folded != nil && (n.foldedLengths>>min(len(name), 63)&1 != 0 || !isASCII(name))
}

// named returns the property with a name, declared or only mentioned, or nil.
func (n *node) named(name []byte) *property {
	if p := n.properties.find(name); p != nil {
		return p
	}
	return n.mentioned.find(name)
}

type bound struct {
	value     *decimal
	exclusive bool
}

type property struct {
	name     string
	schema   *node
	required bool
	bit      uint64 // unique among 64 names of a schema; 0 for others
	// hidden means readOnly in a request, or writeOnly in a response.
	hidden bool
	// spelling is shared by all names of the document that encoding/json treats as equal.
	spelling *spelling
}

// spelling is a folded name, and whether the document spells it in several ways.
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
	// bit is the bit of the name, and bits are those of all names. Both are 0 if a name has no bit.
	bit, bits uint64
}

// newDependency returns a dependency between members. It uses the bits of the properties if all
// have one.
func (n *node) newDependency(name string, required []string) dependency {
	d := dependency{name: name, required: required}
	for _, other := range append([]string{name}, required...) {
		p := n.named([]byte(other))
		if p.bit == 0 {
			return dependency{name: name, required: required}
		}
		d.bits |= p.bit
	}
	d.bit = n.named([]byte(name)).bit
	return d
}

// holds reports whether an object with these properties certainly satisfies the dependency.
func (d *dependency) holds(seen uint64) bool {
	return d.bits != 0 && (seen&d.bit == 0 || seen&d.bits == d.bits)
}

type dependentSchema struct {
	name   string
	schema *node
	bit    uint64 // of the name; 0 if it has none
}
