package main

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v4"
)

// isJSON reports whether a document is meant to be JSON. YAML has flow mappings too, but only JSON
// documents begin with one.
func isJSON(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte{'{'})
}

// parseJSON parses JSON into the tree that the YAML parser would return, in a third of its time and
// a tenth of its memory. The loader's own JSON decoder is slower than the YAML parser, and matches
// names without regard to case, so it could read a Security member that the server ignores.
func parseJSON(text []byte) (*yaml.Node, error) {
	p := jsonParser{
		text: string(text), line: 1, column: 1,
		decoder: jsontext.NewDecoder(bytes.NewReader(text)),
	}
	root, err := p.value()
	if err != nil {
		return nil, err
	}
	if _, err := p.decoder.ReadToken(); err != io.EOF {
		return nil, errors.New("expected one JSON value")
	}
	return root, nil
}

type jsonParser struct {
	text    string
	decoder *jsontext.Decoder

	at, line, column int // of the offset at: counted from 1, columns in characters

	nodes    []yaml.Node  // allocated, not used yet
	children []*yaml.Node // likewise
	open     []*yaml.Node // the children of all collections that are being read
}

func (p *jsonParser) value() (*yaml.Node, error) {
	kind := p.decoder.PeekKind()
	end := int(p.decoder.InputOffset())
	n := p.node(end + len(p.text[end:]) - len(strings.TrimLeft(p.text[end:], " \t\r\n,:")))
	start := p.at
	token, err := p.decoder.ReadToken()
	if err != nil {
		return nil, err
	}
	n.Kind = yaml.ScalarNode
	switch kind {
	case '{', '[':
		n.Kind, n.Tag, n.Style = yaml.MappingNode, "!!map", yaml.FlowStyle
		if kind == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		first := len(p.open)
		for p.decoder.PeekKind() != kind+2 { // the closing bracket
			child, err := p.value()
			if err != nil {
				return nil, err
			}
			p.open = append(p.open, child)
		}
		n.Content = p.keep(p.open[first:])
		p.open = p.open[:first]
		_, err = p.decoder.ReadToken()
	case '"':
		n.Tag, n.Style = "!!str", yaml.DoubleQuotedStyle
		raw := p.text[start:p.decoder.InputOffset()]
		if n.Value = raw[1 : len(raw)-1]; strings.IndexByte(raw, '\\') >= 0 {
			n.Value = token.String()
		}
	default:
		n.Value = p.text[start:p.decoder.InputOffset()]
		switch kind {
		case 'n':
			n.Tag = "!!null"
		case 't', 'f':
			n.Tag = "!!bool"
		}
	}
	return n, err
}

// node returns a new node that begins at an offset.
func (p *jsonParser) node(offset int) *yaml.Node {
	passed := p.text[p.at:offset]
	if last := strings.LastIndexByte(passed, '\n'); last >= 0 {
		p.line += strings.Count(passed, "\n")
		p.column, passed = 1, passed[last+1:]
	}
	p.column += utf8.RuneCountInString(passed)
	p.at = offset
	if len(p.nodes) == 0 {
		p.nodes = make([]yaml.Node, 1024)
	}
	n := &p.nodes[0]
	p.nodes = p.nodes[1:]
	n.Line, n.Column = p.line, p.column
	return n
}

// keep returns a copy of a list of nodes.
func (p *jsonParser) keep(nodes []*yaml.Node) []*yaml.Node {
	if len(nodes) > len(p.children) {
		p.children = make([]*yaml.Node, max(1024, len(nodes)))
	}
	kept := p.children[:len(nodes):len(nodes)]
	p.children = p.children[len(nodes):]
	copy(kept, nodes)
	return kept
}

// setPlaces sets the origins of a document that was decoded from a tree, as the loader does for
// YAML.
func setPlaces(doc *openapi3.T, root *yaml.Node, file string) {
	p := places{file, map[reflect.Type]structFields{}}
	first := root // where the document begins
	if len(root.Content) > 0 {
		first = root.Content[0]
	}
	p.set(reflect.ValueOf(doc), root, first)
}

type places struct {
	file   string
	fields map[reflect.Type]structFields
}

// structFields are the fields of a struct type, by index.
type structFields struct {
	origin  int // -1: none
	value   int // -1: none; of a struct that only wraps another
	members map[string]int
}

var (
	originType = reflect.TypeFor[*openapi3.Origin]()
	anyType    = reflect.TypeFor[any]()
)

func (p *places) set(v reflect.Value, node, key *yaml.Node) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		if named, ok := v.Interface().(interface {
			Map() map[string]*openapi3.PathItem
		}); ok {
			p.members(reflect.ValueOf(named.Map()), node)
		} else if responses, ok := v.Interface().(*openapi3.Responses); ok {
			p.members(reflect.ValueOf(responses.Map()), node)
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		fields := p.of(v.Type())
		if fields.origin >= 0 {
			v.Field(fields.origin).Set(reflect.ValueOf(p.origin(node, key)))
		}
		if fields.value >= 0 {
			p.set(v.Field(fields.value), node, key)
			return
		}
		if node.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			if member, ok := fields.members[node.Content[i].Value]; ok {
				p.set(v.Field(member), node.Content[i+1], node.Content[i])
			}
		}
	case reflect.Map:
		p.members(v, node)
	case reflect.Slice:
		for i := 0; i < v.Len() && i < len(node.Content); i++ {
			// An item has no key, so its place is that of its first member.
			if item := node.Content[i]; item.Kind == yaml.MappingNode && len(item.Content) > 0 {
				p.set(v.Index(i), item, item.Content[0])
			}
		}
	}
}

func (p *places) members(v reflect.Value, node *yaml.Node) {
	if node.Kind != yaml.MappingNode || v.Type().Elem().Kind() != reflect.Pointer {
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if child := v.MapIndex(reflect.ValueOf(node.Content[i].Value)); child.IsValid() {
			p.set(child, node.Content[i+1], node.Content[i])
		}
	}
}

func (p *places) origin(node, key *yaml.Node) *openapi3.Origin {
	o := &openapi3.Origin{Key: p.location(key)}
	if node.Kind == yaml.MappingNode && len(node.Content) > 0 {
		o.Fields = make(openapi3.FieldLocations, len(node.Content)/2)
		for i := range o.Fields {
			o.Fields[i] = *p.location(node.Content[2*i])
		}
	}
	return o
}

func (p *places) location(n *yaml.Node) *openapi3.Location {
	return &openapi3.Location{File: p.file, Line: n.Line, Column: n.Column, Name: n.Value}
}

func (p *places) of(t reflect.Type) structFields {
	if known, ok := p.fields[t]; ok {
		return known
	}
	fields := structFields{-1, -1, map[string]int{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case f.Type == originType:
			fields.origin = i
		case f.Anonymous, f.Name == "Value" && f.Type.Kind() == reflect.Pointer,
			f.Name == "Schema" && name == "":
			fields.value = i
		case f.IsExported() && name != "" && name != "-" && f.Type != anyType:
			fields.members[name] = i
		}
	}
	p.fields[t] = fields
	return fields
}
