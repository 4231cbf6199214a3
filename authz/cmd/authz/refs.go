package main

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// brokenRefs is the error of a document with broken references.
type brokenRefs struct {
	refs []broken
	err  error // of the loader
}

// broken is a reference to something that does not exist.
type broken struct {
	file         string
	line, column int
	where        string // in the document: paths./users.get.responses.200
	ref          string
	why          string
}

func (b *brokenRefs) Error() string {
	var all []string
	for i, r := range b.refs {
		if i == 3 {
			all = append(all, fmt.Sprintf("and %d more (see authz lint)", len(b.refs)-i))
			break
		}
		all = append(
			all,
			fmt.Sprintf("%s:%d: %s refers to %s: %s", r.file, r.line, r.where, r.ref, r.why),
		)
	}
	return strings.Join(all, "; ")
}

func (b *brokenRefs) Unwrap() error { return b.err }

func (b *brokenRefs) findings() (all []finding) {
	r, _ := ruleNamed(brokenRef)
	for _, ref := range b.refs {
		problem := ref.ref + ": " + ref.why
		all = append(all, finding{
			Level: faultLevel, Rule: brokenRef, File: ref.file, Line: ref.line, Column: ref.column,
			Where: ref.where, Problem: problem, Fix: r.fix, cause: problem,
		})
	}
	identify(all)
	return all
}

// findBrokenRefs follows every reference of a document that could not be loaded. The loader stops
// at the first broken one, and does not say where it is.
func findBrokenRefs(from source, err error) error {
	s := refSearch{from: from, files: map[string]*yaml.Node{}}
	s.file(from.root)
	if s.broken == nil {
		return err
	}
	return &brokenRefs{s.broken, err}
}

type refSearch struct {
	from   source
	files  map[string]*yaml.Node // by location; nil: not readable
	broken []broken
}

// file reads a file once and follows its references.
func (s *refSearch) file(location *url.URL) (*yaml.Node, error) {
	key := location.String()
	if root, read := s.files[key]; read {
		if root == nil {
			return nil, fmt.Errorf("%s cannot be read", location.Path)
		}
		return root, nil
	}
	s.files[key] = nil
	data, err := s.from.read(location)
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil || len(root.Content) == 0 {
		return nil, fmt.Errorf("%s is neither YAML nor JSON", location.Path)
	}
	s.files[key] = root.Content[0]
	s.walk(location, root.Content[0], nil)
	return root.Content[0], nil
}

// walk follows the references below a node. Those in examples and extensions are data.
func (s *refSearch) walk(location *url.URL, node *yaml.Node, at []string) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key, value := node.Content[i], node.Content[i+1]
			switch {
			case key.Value == "$ref" && value.Kind == yaml.ScalarNode:
				s.follow(location, value, strings.Join(at, "."))
			case key.Value == "example" || key.Value == "examples" ||
				strings.HasPrefix(key.Value, "x-"):
			default:
				s.walk(location, value, append(at[:len(at):len(at)], key.Value))
			}
		}
	case yaml.SequenceNode:
		for i, item := range node.Content {
			s.walk(location, item, append(at[:len(at):len(at)], strconv.Itoa(i)))
		}
	}
}

func (s *refSearch) follow(location *url.URL, ref *yaml.Node, where string) {
	shown := "a reference"
	fail := func(why string) {
		s.broken = append(s.broken, broken{location.Path, ref.Line, ref.Column, where, shown, why})
	}
	target, err := url.Parse(ref.Value)
	if err != nil {
		fail("not a URI reference")
		return
	}
	shown = target.Redacted()
	file := location
	if target.Path != "" || target.Host != "" {
		file = relative(location, target)
	}
	root, err := s.file(file)
	if err != nil {
		fail(strings.TrimPrefix(err.Error(), "it refers to "+shown+": "))
		return
	}
	for _, token := range strings.Split(strings.TrimPrefix(target.Fragment, "/"), "/") {
		if token == "" {
			continue
		}
		if root = child(root, unescape.Replace(token)); root == nil {
			fail(fmt.Sprintf("%s has no %s", file.Path, target.Fragment))
			return
		}
	}
}

// relative resolves a reference as the loader does. File paths can be relative.
func relative(base, ref *url.URL) *url.URL {
	if ref.Scheme != "" || ref.Host != "" || base.Scheme != "" {
		return base.ResolveReference(
			&url.URL{Scheme: ref.Scheme, Host: ref.Host, Path: ref.Path, User: ref.User},
		)
	}
	if path.IsAbs(ref.Path) {
		return &url.URL{Path: ref.Path}
	}
	return &url.URL{Path: path.Join(path.Dir(base.Path), ref.Path)}
}

// anything stands for a node that has every member.
var anything = &yaml.Node{}

func child(node *yaml.Node, name string) *yaml.Node {
	if node == anything {
		return anything
	}
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				return node.Content[i+1]
			}
		}
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == "$ref" { // it is followed where it stands
				return anything
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i]
		}
	}
	return nil
}
