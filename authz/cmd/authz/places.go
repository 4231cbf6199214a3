package main

import (
	"reflect"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v4"
)

// setPlaces sets the origins of a document that was decoded from a tree, as the loader does, but at
// a tenth of its cost.
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
	o := &struct {
		openapi3.Origin
		key openapi3.Location
	}{key: p.location(key)} // one allocation
	o.Key = &o.key
	if node.Kind == yaml.MappingNode && len(node.Content) > 0 {
		o.Fields = make(openapi3.FieldLocations, len(node.Content)/2)
		for i := range o.Fields {
			o.Fields[i] = p.location(node.Content[2*i])
		}
	}
	return &o.Origin
}

func (p *places) location(n *yaml.Node) openapi3.Location {
	return openapi3.Location{File: p.file, Line: n.Line, Column: n.Column, Name: n.Value}
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
