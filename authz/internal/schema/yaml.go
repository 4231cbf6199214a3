package schema

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/go-json-experiment/json/jsontext"
)

// maxYAMLDepth bounds the depth of a YAML body.
const maxYAMLDepth = 200

// yamlJSON converts a YAML body to JSON. It accepts a single document of mappings with string keys,
// sequences and the scalars of the core schema (YAML 1.2 §10.3). It refuses aliases, because a few
// of them can expand to any amount of data. It keeps duplicate keys, which validation refuses.
func yamlJSON(body []byte) (_ []byte, problem string) {
	var root, further yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(body))
	if err := decoder.Decode(&root); err != nil || len(root.Content) != 1 || !utf8.Valid(body) {
		return nil, "is not valid YAML"
	}
	if err := decoder.Decode(&further); !errors.Is(err, io.EOF) {
		return nil, "is not one YAML document"
	}
	return appendYAML(nil, root.Content[0], 0)
}

func appendYAML(dst []byte, n *yaml.Node, depth int) (_ []byte, problem string) {
	if depth > maxYAMLDepth {
		return dst, "is nested too deep"
	}
	switch n.Kind {
	case yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
				return dst, "has a key that is not a string"
			}
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(quote(dst, key.Value), ':')
			if dst, problem = appendYAML(dst, n.Content[i+1], depth+1); problem != "" {
				return dst, problem
			}
		}
		return append(dst, '}'), ""
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, element := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, problem = appendYAML(dst, element, depth+1); problem != "" {
				return dst, problem
			}
		}
		return append(dst, ']'), ""
	case yaml.ScalarNode:
		return appendYAMLScalar(dst, n)
	}
	return dst, "has an alias, which is not supported"
}

func appendYAMLScalar(dst []byte, n *yaml.Node) (_ []byte, problem string) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return quote(dst, n.Value), ""
	case "!!null":
		return append(dst, "null"...), ""
	case "!!bool":
		if b, err := strconv.ParseBool(n.Value); err == nil {
			return strconv.AppendBool(dst, b), ""
		}
	case "!!int", "!!float":
		if jsontext.Value(n.Value).IsValid() {
			return append(dst, n.Value...), ""
		}
		if i, err := strconv.ParseInt(n.Value, 0, 64); err == nil {
			return strconv.AppendInt(dst, i, 10), ""
		}
	}
	return dst, "has a value that JSON does not have"
}
