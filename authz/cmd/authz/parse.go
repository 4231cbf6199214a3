package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v4"
)

// isJSON reports whether a document is meant to be JSON. YAML has flow mappings too, but only JSON
// documents begin with one.
func isJSON(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte{'{'})
}

// parseYAML parses plain YAML into a tree, in which names and dates are strings, as they are to the
// loader. It returns an error for what only the loader handles, such as aliases.
func parseYAML(text []byte) (*yaml.Node, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if document.Kind != yaml.DocumentNode || !normalize(document.Content[0]) {
		return nil, errors.New("expected plain YAML")
	}
	return document.Content[0], nil
}

// normalize reports whether a tree is of plain YAML, and sets the tags that only YAML has to those
// of strings.
func normalize(n *yaml.Node) bool {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || key.Tag == "!!null" {
				return false
			}
			key.Tag = "!!str"
		}
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!timestamp":
			n.Tag = "!!str"
		case "!!float":
			if strings.ContainsAny(n.Value, "nN") { // .inf and .nan are not JSON
				return false
			}
		case "!!str", "!!int", "!!bool", "!!null":
		default:
			return false
		}
	case yaml.AliasNode:
		return false
	}
	for _, c := range n.Content {
		if !normalize(c) {
			return false
		}
	}
	return true
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
