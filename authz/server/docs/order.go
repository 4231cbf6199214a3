package docs

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"go.yaml.in/yaml/v4"
)

// arrange writes JSON and YAML with the members of each object in the order of like, the parsed
// text of the document. Members that like lacks come last, sorted by name.
func arrange(document []byte, like *yaml.Node) (asJSON, asYAML []byte, err error) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if err := writeArranged(&b, value, like); err != nil {
		return nil, nil, err
	}
	var tree yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &tree); err != nil { // JSON is YAML
		return nil, nil, err
	}
	useBlockStyle(&tree)
	asYAML, err = yaml.Marshal(&tree)
	return b.Bytes(), asYAML, err
}

// writeArranged writes a JSON value in the order of a node.
func writeArranged(b *bytes.Buffer, value any, like *yaml.Node) error {
	like = resolve(like)
	switch value := value.(type) {
	case map[string]any:
		b.WriteByte('{')
		for i, name := range names(value, like) {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeArranged(b, name, nil); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeArranged(b, value[name], member(like, name)); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, item := range value {
			if i > 0 {
				b.WriteByte(',')
			}
			var node *yaml.Node
			if like != nil && like.Kind == yaml.SequenceNode && i < len(like.Content) {
				node = like.Content[i]
			}
			if err := writeArranged(b, item, node); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	default:
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		b.Write(text)
	}
	return nil
}

// resolve follows documents and aliases to a node; nil stays nil.
func resolve(node *yaml.Node) *yaml.Node {
	for node != nil {
		switch {
		case node.Kind == yaml.DocumentNode && len(node.Content) > 0:
			node = node.Content[0]
		case node.Kind == yaml.AliasNode:
			node = node.Alias
		default:
			return node
		}
	}
	return nil
}

// names returns the names of an object's members, those of the node first.
func names(object map[string]any, like *yaml.Node) (all []string) {
	seen := map[string]bool{}
	if like != nil && like.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(like.Content); i += 2 {
			name := like.Content[i].Value
			if _, ok := object[name]; ok && !seen[name] {
				seen[name] = true
				all = append(all, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if !seen[name] {
			all = append(all, name)
		}
	}
	return all
}

// member returns the value of a mapping's key, or nil.
func member(like *yaml.Node, name string) *yaml.Node {
	if like == nil || like.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(like.Content); i += 2 {
		if like.Content[i].Value == name {
			return like.Content[i+1]
		}
	}
	return nil
}

// useBlockStyle changes parsed JSON to block style, with quotes only where needed.
func useBlockStyle(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		useBlockStyle(child)
	}
}
