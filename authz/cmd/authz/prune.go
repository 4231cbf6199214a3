package main

import (
	"iter"
	"strings"

	"go.yaml.in/yaml/v4"
)

// part is the part of a document that a command needs. Most of a large document describes
// responses, which only lint reads.
type part int

const (
	everything   part = iota
	requestPart       // who may call what, and what requests may contain
	securityPart      // who may call what
)

// prune removes from a document what the command does not need. It does not change a document that
// refers to other files, or to a place that it could remove.
func (p part) prune(document *yaml.Node) {
	if p == everything {
		return
	}
	pr := pruner{part: p, components: map[string]*yaml.Node{}, needed: map[string]bool{}}
	paths := child(document, "paths")
	if components := child(document, "components"); components != nil {
		for section, list := range members(components) {
			for name, component := range members(list) {
				pr.components[section+"/"+name] = component
			}
		}
	}
	if paths != nil {
		pr.follow(paths, pr.path)
	}
	if !pr.failed {
		remove(document, pr.root)
	}
}

type pruner struct {
	part       part
	components map[string]*yaml.Node // by section and name: schemas/Message
	needed     map[string]bool       // components that the paths refer to, in the end
	failed     bool
}

// choice says what to do with a member of an object: remove it, keep it, or choose among its own
// members.
type choice func(name string) (keep bool, inner choice)

func (p *pruner) root(name string) (bool, choice) {
	switch name {
	case "paths":
		return true, p.path
	case "components":
		return true, p.section
	case "tags", "webhooks", "externalDocs":
		return false, nil
	}
	return true, nil
}

func (p *pruner) path(string) (bool, choice) { return true, p.pathItem }

func (p *pruner) pathItem(name string) (bool, choice) {
	switch name {
	case "get", "put", "post", "delete", "options", "head", "patch", "trace", "query":
		return true, p.operation
	case "parameters":
		return p.part == requestPart, nil
	}
	return true, nil
}

func (p *pruner) operation(name string) (bool, choice) {
	switch name {
	case "operationId", "security", "servers":
		return true, nil
	case "parameters", "requestBody":
		return p.part == requestPart, nil
	}
	return strings.HasPrefix(name, "x-"), nil
}

func (p *pruner) section(section string) (bool, choice) {
	switch section {
	case "securitySchemes":
		return true, nil
	case "pathItems":
		return true, p.path
	}
	return strings.HasPrefix(section, "x-") || p.part == requestPart,
		func(name string) (bool, choice) { return p.needed[section+"/"+name], nil }
}

// follow marks the components that an object refers to, and what these refer to in turn.
func (p *pruner) follow(n *yaml.Node, choose choice) {
	for name, value := range members(n) {
		keep, inner := true, choice(nil)
		if choose != nil {
			keep, inner = choose(name)
		}
		if keep {
			p.failed = p.failed ||
				name == "$ref" && !strings.HasPrefix(value.Value, componentPrefix)
			p.follow(value, inner)
		}
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			p.follow(item, nil)
		}
	}
	// References are the values of $ref, and of the mappings of discriminators.
	ref, ok := strings.CutPrefix(n.Value, componentPrefix)
	if !ok {
		return
	}
	p.failed = p.failed || strings.Contains(ref, "%")
	section, rest, _ := strings.Cut(ref, "/")
	name, _, _ := strings.Cut(rest, "/")
	name = section + "/" + unescape.Replace(name)
	if component := p.components[name]; component != nil && !p.needed[name] {
		p.needed[name] = true
		p.follow(component, nil)
	}
}

const componentPrefix = "#/components/"

var unescape = strings.NewReplacer("~1", "/", "~0", "~")

// remove removes the members of an object that are not chosen.
func remove(object *yaml.Node, choose choice) {
	var kept []*yaml.Node
	for i := 0; i+1 < len(object.Content); i += 2 {
		key, value := object.Content[i], object.Content[i+1]
		keep, inner := choose(key.Value)
		if !keep {
			continue
		}
		if inner != nil && value.Kind == yaml.MappingNode {
			remove(value, inner)
		}
		kept = append(kept, key, value)
	}
	object.Content = kept
}

// members returns the names and the values of an object, and nothing of another value.
func members(n *yaml.Node) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}
