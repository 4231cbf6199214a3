package main

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// part is the part of a document that a command needs. Most of a large document describes
// responses, which only lint reads.
type part int

const (
	everything   part = iota
	requestPart       // who may call what, and what requests may contain
	securityPart      // who may call what
)

// prune removes from a JSON document what the command does not need, and keeps the line numbers. It
// returns other documents, and those in several files, unchanged.
func (p part) prune(document []byte) []byte {
	if p == everything || !isJSON(document) {
		return document
	}
	w := pruner{part: p, text: document, needed: map[string]bool{}}
	root := member{end: len(document)}
	// Collect what the paths refer to, and what that refers to in turn.
	kept := w.write(root, func(m member) (bool, choice) { return m.name == "paths", w.path })
	components := map[string][]byte{}
	for _, m := range w.members(root) {
		if m.name != "components" {
			continue
		}
		for _, section := range w.members(m) {
			for _, c := range w.members(section) {
				components[section.name+"/"+c.name] = document[c.from:c.end]
			}
		}
	}
	for queue := [][]byte{kept}; len(queue) > 0; queue = queue[1:] {
		for _, ref := range reference.FindAllSubmatch(queue[0], -1) {
			name := string(ref[1]) + "/" + unescape.Replace(string(ref[2]))
			if !w.needed[name] {
				w.needed[name] = true
				queue = append(queue, components[name])
			}
		}
		w.failed = w.failed || otherReference.Match(queue[0])
	}
	out := w.write(root, w.root)
	if w.failed {
		return document
	}
	return out
}

var (
	reference = regexp.MustCompile(`"#/components/([^/"]+)/([^/"]+)`)
	unescape  = strings.NewReplacer("~1", "/", "~0", "~")
	// otherReference matches references to another file, or to a place that may have been removed.
	otherReference = regexp.MustCompile(
		`"\$ref"\s*:\s*"([^#]|#[^/]|#/[^c]|#/components/[^"]*[\\%])`,
	)
)

// pruner writes parts of a JSON text.
type pruner struct {
	part   part
	text   []byte
	needed map[string]bool // components, as schemas/Message
	out    []byte
	done   int // the newlines of the text before are written
	failed bool
}

// member is a member of an object: its name, and the place of the member and its value in the text.
type member struct {
	name             string
	start, from, end int
}

// choice says what to do with a member: drop it, keep it, or choose among its own members.
type choice func(m member) (keep bool, inner choice)

func (w *pruner) root(m member) (bool, choice) {
	switch m.name {
	case "paths":
		return true, w.path
	case "components":
		return true, w.section
	case "tags", "webhooks", "externalDocs":
		return false, nil
	}
	return true, nil
}

func (w *pruner) path(member) (bool, choice) { return true, w.pathItem }

func (w *pruner) pathItem(m member) (bool, choice) {
	switch m.name {
	case "get", "put", "post", "delete", "options", "head", "patch", "trace", "query":
		return true, w.operation
	case "parameters":
		return w.part == requestPart, nil
	}
	return true, nil
}

func (w *pruner) operation(m member) (bool, choice) {
	switch m.name {
	case "operationId", "security", "servers":
		return true, nil
	case "parameters", "requestBody":
		return w.part == requestPart, nil
	}
	return strings.HasPrefix(m.name, "x-"), nil
}

func (w *pruner) section(section member) (bool, choice) {
	switch section.name {
	case "securitySchemes":
		return true, nil
	case "pathItems":
		return true, w.path
	}
	return strings.HasPrefix(section.name, "x-") ||
			w.part == requestPart, func(m member) (bool, choice) {
			return w.needed[section.name+"/"+m.name], nil
		}
}

// write writes an object with the chosen members, and returns it.
func (w *pruner) write(object member, choose choice) []byte {
	w.out, w.done = nil, 0
	w.object(object, choose)
	w.lines(len(w.text))
	return w.out
}

func (w *pruner) object(object member, choose choice) {
	w.out = append(w.out, '{')
	first := true
	for _, m := range w.members(object) {
		keep, inner := choose(m)
		if !keep {
			continue
		}
		if !first {
			w.out = append(w.out, ',')
		}
		first = false
		w.lines(m.start)
		if inner != nil && w.text[m.from] == '{' {
			w.out = append(w.out, w.text[m.start:m.from]...)
			w.done = m.from
			w.object(m, inner)
			continue
		}
		w.out = append(w.out, w.text[m.start:m.end]...)
		w.done = m.end
	}
	w.out = append(w.out, '}')
}

// lines writes the newlines of what was removed.
func (w *pruner) lines(to int) {
	for range bytes.Count(w.text[w.done:to], []byte{'\n'}) {
		w.out = append(w.out, '\n')
	}
	w.done = to
}

// members returns the members of an object, or nil for another value.
func (w *pruner) members(object member) (all []member) {
	text := w.text[object.from:object.end]
	decoder := jsontext.NewDecoder(bytes.NewReader(text))
	token, err := decoder.ReadToken()
	if err != nil || token.Kind() != '{' {
		w.failed = w.failed || err != nil
		return nil
	}
	// next returns the beginning of the token after an offset.
	next := func(offset int64) int {
		return object.from + int(
			offset,
		) + len(
			text[offset:],
		) - len(
			bytes.TrimLeft(text[offset:], " \t\r\n,:"),
		)
	}
	for decoder.PeekKind() == '"' {
		m := member{start: next(decoder.InputOffset())}
		name, err := decoder.ReadToken()
		if err != nil {
			break
		}
		m.name = name.String()
		m.from = next(decoder.InputOffset())
		if err := decoder.SkipValue(); err != nil {
			break
		}
		m.end = object.from + int(decoder.InputOffset())
		all = append(all, m)
	}
	if token, err := decoder.ReadToken(); err != nil || token.Kind() != '}' {
		w.failed = true
	}
	return all
}
